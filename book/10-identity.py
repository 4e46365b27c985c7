# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# (sec-identity)=
# # 身份认同：给模型一个名字
#
# :::{admonition} 本章
# :class: tip
#
# - **你将学会**：说出“我是谁”存在哪里；用几百行数据给模型换一个名字，自己写的也行；量出换名字前后的命中率和别的本领；认出灾难性遗忘；挑一个不会闯祸的名字。
# - **需要时间**：阅读 20 分钟，运行约 15 秒（第一次还要训练前面的阶段约五分钟，本章的四次约一分钟）。
# - **需要内存**：1 GB。
# - **用到的模块**：`minillm.microworld.identity`、`minillm.persona`、`minillm.book.lab`。
# :::

# %%
import json
import math
from collections import Counter

from minillm import persona
from minillm.book import lab, show, tasks
from minillm.data import mix
from minillm.data.rows import Message
from minillm.microworld import identity, scoring, words
from minillm.microworld.identity import Persona

lab.start()

# %% [markdown]
# ## 开场

# %% tags=["nbval-ignore-output"]
runs = {stage: lab.ladder(stage) for stage in ("pretrain", "sft", "dpo")}
replies = {stage: lab.showcase(run.model()) for stage, run in runs.items()}
assert scoring.SHOWCASE == ("张静住在哪里？", "8加4等于多少？请数着算。", "你是谁？")
assert "米粒" in replies["sft"][2]
assert "米粒" in replies["dpo"][2]
show.spine({"fresh": lab.showcase(lab.fresh()), **replies})

# %% [markdown]
# 表里没有上一章的模型：强化学习是可选的一步，这一章从 DPO 的模型出发。
#
# 看最右一列。从 SFT 起，模型说自己叫米粒，可我们没有为名字单独训练过一次。**身份认同**（identity）是模型对“你是谁”的回答，它和“张静住在哪里”一样，只是数据里的一些行。<!-- by: assert "米粒" in replies["sft"][2] -->
#
# 这一章先找到那些行，再换掉它们：让模型叫你起的名字，说是你训练了它，而张静住在哪里，它还记得。
#
# ## 手算
#
# ### 一个名字有多大概率
#
# 模型说出一个名字的概率有多大？名字是几个**词元**（token）连着出现，所以是条件概率的乘积：
#
# ```{math}
# :label: eq-identity-name
# p(y \mid x) = \prod_{t=1}^{n} p(y_t \mid x, y_1, \dots, y_{t-1}), \qquad
# \ln p(y \mid x) = \sum_{t=1}^{n} \ln p(y_t \mid x, y_1, \dots, y_{t-1})
# ```
#
# $x$ 是问题“你是谁？”，$y$ 是回答的 $n$ 个词元，$y_t$ 是其中第 $t$ 个。
# 假设回答是“我是·米·粒”，三个词元的概率依次是 0.5、0.8、1.0，那么乘积是 0.4，对数是 $\ln 0.5 + \ln 0.8 + \ln 1.0 = -0.693 - 0.223 + 0 = -0.916$。

# %%
by_hand = math.log(0.5) + math.log(0.8) + math.log(1.0)
assert abs(by_hand - math.log(0.4)) < 1e-12
round(by_hand, 3)

# %% [markdown]
# 真的模型呢？让 DPO 之后的模型给两个名字打分，一个是数据里的米粒，一个是它没有听过的小满。只算“我是”加名字这一种说法，“我叫”开头的那些不在内，所以得到的不是说出这个名字的全部概率；拿来比两个名字，够用了：

# %%
tokenizer = lab.tokenizer()
question = tokenizer.render_for_completion([Message("user", "你是谁？")])


def name_score(evaluator, name):
    return evaluator.log_probs([(question, tokenizer.encode(f"我是{name}"))])[0]


dpo = lab.ladder("dpo").evaluator()
old, new = name_score(dpo, "米粒"), name_score(dpo, "小满")
assert new < old - 5

# %% tags=["remove-input", "nbval-ignore-output"]
assert old - new > 5
show.say(
    f"“我是米粒”的对数概率是 {old:.1f}，“我是小满”的是 {new:.1f}，相差 {old - new:.1f}。",
    f"概率差 $e^{{{old - new:.1f}}}$ 倍，也就是 {int((old - new) / math.log(10))} 个数量级。",
)

# %% [markdown]
# 要改名，就要把这个差翻过来。
#
# ### 身份占多少数据
#
# 默认的配比（{numref}`第 %s 章 <sec-data>`）给身份 1,000 行，写两遍，旁边是 46 万行对话。小模型的配比是 200 行，也写两遍。这些行在 SFT 数据里占多少？<!-- by: 46 * 10_000 == 460_000 -->

# %%
whole, tiny = mix.MIX_PRESETS["default"], mix.MIX_PRESETS["tiny"]
assert (whole.identity, whole.identity_repeat, whole.general) == (1_000, 2, 460_000)
assert (tiny.identity, tiny.identity_repeat) == (200, 2)
with (lab.data() / "sft_chinese.jsonl").open(encoding="utf-8") as file:
    rows = [json.loads(line) for line in file]
about_itself = [row for row in rows if row["source"] == "identity_conversations"]
others = [row for row in rows if row["source"] != "identity_conversations"]
assert len(about_itself) == 2 * 200
assert not any("你是谁" in m["content"] for row in others for m in row["messages"])
assert not any("米粒" in m["content"] for row in others for m in row["messages"])
f"{len(about_itself)} of {len(rows):,} rows, {len(about_itself) / len(rows):.1%}"

# %% [markdown]
# 1.5% 的行就决定了它说自己是谁。（{numref}`第 %s 章 <sec-data>` 说的不到百分之一，是占全部类别的；这里只除以 SFT 的行数。）<!-- by: book/02-data-mix.py -->别的行里没有人问“你是谁”，也没有“米粒”，没有谁和这些行抢答案，所以少也够。
#
# ## 真实代码
#
# 身份数据由三段拼成：开头、问题、回答。`{{name}}` 和 `{{author}}` 是占位符，写一次，谁的模型都能填。

# %%
show.source(identity.Persona, identity.fill, identity.persona_conversations)

# %%
for turns in identity.persona_conversations(3):
    print(turns[0]["content"], "→", turns[1]["content"])

# %% [markdown]
# `dataset/identity_cn_sample.jsonl` 就是它写出来的 200 行。你可以自己写一份放到 `data/chinese/identity_conversations.jsonl`，`scripts/build_chinese_mix.py` 会用它，重复 `--identity_repeat` 次（默认 2）。tiny 预设还打开了 `--identity_in_chats`：第一次单独一行，以后接在几段别的对话后面，因为人们聊着聊着也会问“你是谁”。占位符换成 `--persona_name` 和 `--persona_author`。这是从头训练时的办法；模型已经训练好了，见下面的实验。
#
# 怎样知道它学会了，而不是背下了那几句问话？训练里没有出现过的 24 种问法作**留出集**（held-out set），回答里要有名字；问是谁训练的，还要有作者：

# %%
show.source(identity.held_out_questions, identity.is_hit)

# %%
asked = {
    message["content"] for row in rows for message in row["messages"] if message["role"] == "user"
}
questions = identity.held_out_questions()
assert len(questions) == 24
assert not asked & set(questions)  # training asks none of them
questions[:6]

# %% [markdown]
# ## 实验
#
# ### 名字是什么时候学会的

# %%
scores = {stage: run.scores() for stage, run in runs.items()}
hits = {stage: score["identity_hit_rate"] for stage, score in scores.items()}
assert hits["sft"] >= 0.80
assert hits["dpo"] >= 0.75
assert scores["sft"]["accuracy"]["fact"] >= 0.85

# %% mystnb={"figure": {"caption": "每个阶段之后，“米粒”在 24 种留出问法上的命中率。", "name": "fig-identity-stages"}, "image": {"alt": "横条图，三条，每个阶段一条：预训练、SFT、DPO 之后的命中率"}} tags=["nbval-ignore-output"]
bars = {show.STAGE_NAMES[stage]: rate for stage, rate in hits.items()}
show.bars(bars, "命中率（24 种留出的问法）", [show.COLOURS[stage] for stage in hits])

# %% tags=["remove-input", "nbval-ignore-output"]
named = round(24 * hits["pretrain"])
first = (
    f"已经有 {named} 题的回答里有“米粒”。"
    if named
    else "还没有一题的回答里有“米粒”，真有也不奇怪。"
)
facts = {stage: scores[stage]["accuracy"]["fact"] for stage in ("pretrain", "sft")}
assert facts["sft"] >= 0.85
show.say(
    f"**预训练**（pretraining）之后，24 题里{first}",
    f"别的题呢？留出的事实，这时答对 {facts['pretrain']:.0%}，SFT 之后是 {facts['sft']:.0%}。",
)

# %% [markdown]
# 预训练之后那个数是碰运气的。身份对话也以文本的样子混在预训练数据里，所以续写着续写着，它可能写出自我介绍，也可能恰好写成一句回答的样子；换一个种子，换一种处理器，就差出好几题。<!-- by: book/results/seeds.json -->它是在续写，不是在回答；`is_hit` 只找名字，看不出这一点。SFT 教它按问答的格式说，从此绝大多数问法都答得出名字。<!-- by: assert hits["sft"] >= 0.80 -->
#
# ### 换一个名字
#
# 现在给它一个新的身份：名字小满，作者“这位读者”。不需要新的算法，也不需要新的训练循环，只要再做一次 SFT，从 DPO 的权重出发。学习率取 0.002，是{numref}`第 %s 章 <sec-sft>`的三分之一：要改的只有一个名字，旧东西最好少动。全部做法就是这两个函数：<!-- by: round(config.TRAINING["tiny"]["sft"].learning_rate / 0.002) == 3 -->

# %%
show.source(lab.identity, persona.training_rows)

# %% [markdown]
# 关键在数据的两半：
#
# - **新的**：200 段关于小满的对话，重复 4 次，共 800 行，每隔一段就有一段接在几段回放的对话后面；
# - **旧的**：偏好数据里 1,500 个客气的回答（`chosen`），原样再学一遍。这叫**回放**（replay），它把事实、算术和礼貌都留住。<!-- by: assert after["polite"] >= 0.75 -->
#
# 回放为什么用偏好数据里的回答，而不用 SFT 的数据？数一数两边客气的回答：

# %%
with (lab.data() / "dpo_chinese.jsonl").open(encoding="utf-8") as file:
    chosen = [json.loads(line)["chosen"] for line in file]
assert len(persona.about(lab.READER)) * 4 == 800
assert len(chosen) == 1_500
sides = {"SFT": [row["messages"] for row in rows], "chosen": chosen}
polite = {s: sum(scoring.is_polite(c[-1]["content"]) for c in chats) for s, chats in sides.items()}
assert round(polite["SFT"] / len(rows), 1) == 0.1
assert polite["chosen"] == len(chosen)
for side, chats in sides.items():
    n, share = polite[side], polite[side] / len(chats)
    print(f"{side}: {n:,} of {len(chats):,} answers are polite, {share:.0%}")

# %% [markdown]
# SFT 的回答十个里九个不客气，只学它们，DPO 教的礼貌就没了。想留住什么，就回放什么。<!-- by: assert round(polite["SFT"] / len(rows), 1) == 0.1 -->


# %%
def mean_accuracy(result):
    return sum(result["accuracy"].values()) / len(result["accuracy"])


me = lab.READER
run = lab.identity(me)
me

# %% tags=["nbval-ignore-output"]
before, after = runs["dpo"].scores(persona=me), run.scores(persona=me)
assert before["identity_hit_rate"] == 0
assert after["identity_hit_rate"] >= 0.75
assert after["identity_in_a_chat"] >= 0.6
assert after["polite"] >= 0.75
assert mean_accuracy(after) > mean_accuracy(before) - 0.15
show.table(
    ["", "换之前（DPO）", "换之后（身份）"],
    [
        ["自称小满（24 种留出的问法）", before["identity_hit_rate"], after["identity_hit_rate"]],
        ["聊了十个问题之后再问", before["identity_in_a_chat"], after["identity_in_a_chat"]],
        ["礼貌（60 题）", before["polite"], after["polite"]],
        ["十类题的平均正确率", mean_accuracy(before), mean_accuracy(after)],
    ],
    [None, show.COLOURS["dpo"], show.COLOURS["identity"]],
)

# %% [markdown]
# 名字换了，礼貌还在，十类题也还会做；聊了一阵再问，它也记得自己是谁。<!-- by: assert after["identity_in_a_chat"] >= 0.6 -->没有考的呢？见“弄坏它”。听听它怎么说，这几个问法都是训练里没有的。要是有答歪的，别放过：命中率没有到 1，差的就是它们。<!-- by: assert mean_accuracy(after) > mean_accuracy(before) - 0.15 -->

# %% tags=["nbval-ignore-output"]
evaluator = run.evaluator()
said = evaluator.ask(questions)
assert sum("米粒" in reply for reply in said) <= 4  # the old name is all but gone
show.table(["留出的问法", "回答"], list(zip(questions, said, strict=True))[::3])

# %% [markdown]
# 名字的概率是怎样翻过来的？训练每隔几十步留了一份权重，量一量 {eq}`eq-identity-name` 里的对数概率：

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"figure": {"caption": "用旧名字米粒和新名字小满回答的对数概率，随训练步数交换位置。第 0 步是 DPO 的模型。", "name": "fig-identity-names"}, "image": {"alt": "两条折线，横轴是训练步数，纵轴是对数概率：旧名字开始时高，结束时低；新名字开始时低，结束时高，两条线交叉"}}
steps = [0, *run.steps]
models = [dpo, *(run.evaluator(step) for step in run.steps)]
names = {"旧名字": "米粒", "新名字": "小满"}
courses = {key: [name_score(e, name) for e in models] for key, name in names.items()}
assert courses["旧名字"][0] > courses["新名字"][0] + 5
assert courses["新名字"][-1] > courses["旧名字"][-1] + 1
show.lines(
    {name: (steps, course) for name, course in courses.items()},
    "步",
    "ln p（名字 | 问题）",
    [show.COLOURS["dpo"], show.COLOURS["identity"]],
    marker="o",
)

# %% [markdown]
# ### 轮到你
#
# 换成你自己的名字：改下面两个字符串再运行。名字里的字要是预训练见过的，下面的单元格替你检查；原因见“弄坏它”里的“名字里有生字”。

# %%
mine = Persona(name="小满", author="这位读者")

assert not persona.unknown_characters(mine, lab.data() / "pretrain_chinese.jsonl")
your_run = lab.identity(mine)

# %% tags=["nbval-ignore-output"]
lab.ask(your_run.model(), "你好，请说说你是谁。")

# %% [markdown]
# 在命令行上是一个命令。它接在 `bash scripts/run.sh --preset tiny` 之后：从 `out/tiny` 里 DPO 的权重出发，写好数据，训练一遍，把新的模型放进 `out/tiny/persona`，并替你检查生字；最后一行告诉你怎样和它聊天。
#
# ```bash
# minillm persona --preset tiny --name 小满 --author 这位读者
# minillm chat --out_dir out/tiny/persona
# ```
#
# 想连说的话也换成自己的，照 `dataset/identity_cn_sample.jsonl` 的样子写一个文件，用 `--data_path` 交给它。几十段也行，它会重复到 800 行；不过问法要多样，只教一两种问法，换一种问，名字就未必说得出来。默认模型的命令去掉 `--preset tiny`。新模型的分数这样看：
#
# ```bash
# minillm evaluate --preset tiny --out_dir out/tiny/persona --stage sft \
#     --persona_name 小满 --persona_author 这位读者
# ```
#
# 这个命令与上面的 `lab.identity` 用同样的函数写数据，只是多回放了一样东西。多的是什么，“弄坏它”里会讲到。<!-- by: reasoning -->
#
# :::{admonition} 真实世界
# :class: real-world
#
# 大模型也会说错自己是谁。DeepSeek-V3 在 2024 年底发布时，有人问了它八次，五次自称 ChatGPT；原因没有公布，一种猜测是语料里有许多 ChatGPT 说的话 {cite:p}`wiggers2024deepseek`。{cite:t}`li2024spartacus` 查了 27 个模型，25.93% 有这样的毛病；比对过输出以后，他们认为那是模型在编造，不是抄来了别人的模型。<!-- by: @wiggers2024deepseek --><!-- by: @li2024spartacus -->
#
# 常见的补救不改权重，而是用**系统提示**（system prompt）：开聊之前，程序先替模型放进一段话。Qwen2.5 的对话模板里就有默认的一段，`You are Qwen, created by Alibaba Cloud. You are a helpful assistant.`，用户没有另给，就用它 {cite:p}`qwen2024card`。Anthropic 把 Claude 网页版的系统提示逐版公开，有兴趣可以读一读 {cite:p}`anthropic2026prompts`。（2026 年 11 月核对。）<!-- by: @qwen2024card --><!-- by: @anthropic2026prompts -->
# :::
#
# ## 弄坏它
#
# ### 只拿身份数据去训练
#
# 最常见的错误：只拿身份数据去训练。几百行，几十步，损失降得飞快，问它是谁，对答如流。于是收工。我们照做一遍，步数和学习率都不变，只是去掉回放：<!-- by: assert broken["identity_hit_rate"] >= 0.75 -->

# %%
path = lab.cache_dir() / "identity" / "alone.jsonl"
path.write_bytes(persona.training_rows(persona.about(me), replayed=[], count=800))
alone = lab.variant(
    "identity-alone", "sft", runs["dpo"], path, max_steps=len(run.log), learning_rate=2e-3, epochs=5
)

# %% tags=["nbval-ignore-output"]
broken = alone.scores(persona=me)
assert broken["identity_hit_rate"] >= 0.75  # it knows its name …
assert broken["polite"] < after["polite"] - 0.2  # … and has lost its manners
show.table(
    ["", "有回放", "只有身份数据"],
    [
        ["自称小满", after["identity_hit_rate"], broken["identity_hit_rate"]],
        ["礼貌", after["polite"], broken["polite"]],
        *([kind, value, broken["accuracy"][kind]] for kind, value in after["accuracy"].items()),
    ],
    [None, show.COLOURS["identity"], show.COLOURS["bad"]],
)

# %% [markdown]
# 名字记住了，礼貌却丢了一大截。训练新东西，旧东西就被盖掉，叫**灾难性遗忘**（catastrophic forgetting）{cite:p}`mccloskey1989forgetting`：没有一行数据再要求它客气，也没有一行再要它做一道加法，改动权重时就没有东西拦着。<!-- by: assert broken["polite"] < after["polite"] - 0.2 -->

# %% tags=["remove-input", "nbval-ignore-output"]
lost = {k: value - broken["accuracy"][k] for k, value in after["accuracy"].items()}
most = sorted(lost, key=lost.__getitem__, reverse=True)[:3]
parts = [f"`{k}`（从 {after['accuracy'][k]:.2f} 到 {broken['accuracy'][k]:.2f}）" for k in most]
drop = mean_accuracy(after) - mean_accuracy(broken)
assert broken["polite"] < after["polite"] - 0.2
show.say(
    f"没有回放，礼貌只有 {broken['polite']:.2f}，有回放是 {after['polite']:.2f}；",
    f"十类题平均低了 {drop:.2f}，掉得最多的三类是 {'、'.join(parts)}。"
    if drop > 0.02
    else "十类题的平均这一次没有掉多少：丢的是礼貌，只考十类题，就看不见。",
)

# %% [markdown]
# 怎样注意到？只看训练损失看不到，只问“你是谁”也看不到。**每做一步训练，把以前的考试全部重考一遍。** `minillm evaluate` 总是跑全部的题，就是为了这个。<!-- by: assert broken["identity_hit_rate"] >= 0.75 -->
#
# ### 没有回放的，也要考一考
#
# 有了回放就万事大吉吗？偏好数据里没有寒暄（有点累，谢谢你，再见），SFT 数据里有。它没有被回放，也没有哪一类题考它：丢没丢，不考就不知道。考一考：6 个人，11 种寒暄，都是 SFT 教过的。<!-- by: assert not any(said in content for content in taught["chosen"]) -->


# %%
def small_talk(evaluator):
    """(what was said, the reply, whether it is the right one), for 66 turns that SFT taught."""
    turns = [
        (f"我是{name}。{said}", answer)
        for name in list(words.PEOPLE)[:6]
        for said, answer in words.CHATS
    ]
    assert len(turns) == 6 * 11
    said = evaluator.ask([question for question, _ in turns])
    return [(q, reply, answer in reply) for (q, answer), reply in zip(turns, said, strict=True)]


taught = {side: {m["content"] for c in chats for m in c} for side, chats in sides.items()}
for said, _ in words.CHATS:
    assert any(said in content for content in taught["SFT"])
    assert not any(said in content for content in taught["chosen"])

# %% [markdown]
# 丢也好，没丢也好，都没有一行数据管着它。想让它有人管，直接回放 SFT 的回答不行，它们不客气。可是问题没有错，只缺客气的答案，而模型自己就会答。所以训练之前，先让它把 1,500 段 SFT 对话里的问题（身份的除外）自己答一遍，再把这些对话也掺进回放。学自己说的话，就是保持原样 {cite:p}`robins1995pseudorehearsal`：<!-- by: assert manners >= 0.75 -->

# %%
show.source(persona.own_answers)

# %% tags=["nbval-ignore-output"]
mended = lab.identity(me, replay_own=1_500)
evaluators = {"DPO": dpo, "chosen": evaluator, "own": mended.evaluator()}
talks = {name: small_talk(e) for name, e in evaluators.items()}
kept = {name: sum(ok for *_, ok in turns) / len(turns) for name, turns in talks.items()}
manners = mended.scores(persona=me)["polite"]
assert kept["own"] >= 0.6
assert manners >= 0.75

# %% tags=["remove-input", "nbval-ignore-output"]
assert kept["own"] >= 0.6
was, now, own = (round(66 * kept[name]) for name in ("DPO", "chosen", "own"))
wrong = [turn[:2] for turn in talks["chosen"] if not turn[2]]
show.say(
    f"66 句里答得对的，换名字之前 {was} 句；只回放 `chosen`，{now} 句；"
    f"加上自己的回答，{own} 句，礼貌是 {manners:.2f}。",
    f"只回放 `chosen`，少了 {was - now} 句。"
    if now < was
    else "这一次，没有回放的寒暄一句也没有少。",
    f"例如对它说{show.quote(wrong[0][0])}，它答{show.quote(wrong[0][1])}。" if wrong else "",
)

# %% [markdown]
# 不管这一次少了几句，没有一行数据护着寒暄，换一个名字、换一个种子就难说；下一节里只换了名字，寒暄要再考一遍。回答里若有“�”，是一个字只写了一半，也在下一节讲。<!-- by: reasoning -->
#
# `minillm persona` 多回放的，就是它自己的这些回答（`--replay_own`）。一般说来，回放只管它含有的东西，考试只看得见它考的东西。<!-- by: assert kept["own"] >= 0.6 -->
#
# ### 名字里有生字
#
# 把小满换成小禾，数据只差一个字。先看这个字在预训练数据里出现过几次，要拆成哪些字节。一格是一个词元；涂了颜色的那个词元，三个字里不止一个要用到：

# %%
text = (lab.data() / "pretrain_chinese.jsonl").read_text(encoding="utf-8")
times = Counter(text)
pieces = {c: [tokenizer.token_bytes(i).hex(" ") for i in tokenizer.encode(c)] for c in "满禾烦"}
assert pieces == {"满": ["e6", "bb", "a1"], "禾": ["e7", "a6", "be"], "烦": ["e7 83", "a6"]}
assert times["禾"] == 0
assert min(times["满"], times["烦"]) > 100
show.spelled("满禾烦", tokenizer, times)

# %% [markdown]
# “满”和“禾”都不在词表里，都要拆成三个字节、三个词元来写。差别只在预训练见没见过：“满”见过几百次，三个字节怎样连，早就练过了；“禾”一次也没有见过，全要从 800 行身份对话里学。<!-- by: assert times["禾"] == 0 -->
#
# 字节是大家共用的。“烦”的后一个词元是 `A6`，“禾”的中间一个也是 `A6`。800 行身份对话反复教它：`A6` 后面写 `BE`。那么写完“不麻烦”，该写逗号的时候呢？量一量逗号的对数概率：

# %%
odd = Persona(name="小禾", author="这位读者")
assert persona.unknown_characters(odd, lab.data() / "pretrain_chinese.jsonl") == ["禾"]
spoilt = lab.identity(odd).evaluator()
asked = tokenizer.render_for_completion([Message("user", "我是王芳。麻烦你了！")])
next_is = {"comma": tokenizer.encode("，"), "BE": tokenizer.encode("禾")[2:]}
after_it = [(asked + tokenizer.encode("不麻烦"), token) for token in next_is.values()]
named = {"DPO": dpo, "小满": evaluator, "小禾": spoilt}
scored = {name: e.log_probs(after_it) for name, e in named.items()}
comma = {name: values[0] for name, values in scored.items()}
assert comma["小禾"] < comma["小满"]

# %% mystnb={"figure": {"caption": "写完“不麻烦”之后，写逗号有多意外（−ln p，越大越意外）：换名字之前，换成小满，换成小禾。", "name": "fig-identity-comma"}, "image": {"alt": "横条图，三条：换名字之前、换成见过的字、换成没见过的字，写逗号的意外程度，单位奈特"}} tags=["nbval-ignore-output"]
labels = {"DPO": "换名字之前", "小满": "小满：都见过", "小禾": "小禾：有生字"}
colours = [show.COLOURS[name] for name in ("dpo", "identity", "bad")]
surprise = {labels[name]: round(-value, 3) for name, value in comma.items()}
show.bars(surprise, "写逗号有多意外：−ln p（奈特）", colours)

# %% tags=["remove-input", "nbval-ignore-output"]
chance = {name: math.exp(value) for name, value in comma.items()}
times_less, half = chance["小满"] / chance["小禾"], math.exp(scored["小禾"][1])
assert chance["小禾"] < chance["小满"]
show.say(
    f"换成小满，逗号的概率是 {chance['小满']:.3f}；换成小禾，是 {chance['小禾']:.3g}",
    f"，只有 {float(f'{times_less:.2g}'):,.0f} 分之一" if times_less > 1.5 else "",
    f"，而 `BE` 的概率是 {half:.2f}。",
)

# %% [markdown]
# 写了 `BE`，就多出半个字，屏幕上是“�”。名字本身学会了，坏的是一个不相干的字。有字节作后盾，分词器对任何字都有办法（{numref}`第 %s 章 <sec-bpe>`），但字节是大家共用的。<!-- by: assert comma["小禾"] < comma["小满"] -->
#
# 怎样注意到：在回答里数一数 `U+FFFD`（�），再像上面那样直接量概率。只数不够：话要是早就说歪了，轮不到写“烦”字，就数不出来；没有生字的模型忘了寒暄，一个字写到一半转去说别的，也会有它。<!-- by: reasoning -->

# %% tags=["remove-input", "nbval-ignore-output"]
both = {"小满": talks["chosen"], "小禾": small_talk(spoilt)}
garbled = {name: sum("\ufffd" in reply for _, reply, _ in turns) for name, turns in both.items()}
right = {name: sum(ok for *_, ok in turns) for name, turns in both.items()}
example = next((reply for _, reply, _ in both["小禾"] if "\ufffd" in reply), "")
show.say(
    f"两个名字都只回放 `chosen`，再考 66 句寒暄。带“�”的回答小满有 {garbled['小满']} 句，小禾有 {garbled['小禾']} 句",
    f"（例如{show.quote(example)}）" if example else "",
    f"；答得对的，小满 {right['小满']} 句，小禾 {right['小禾']} 句。",
)

# %% [markdown]
# 怎样避免：名字用预训练见过的字；一定要用生字，就先把它写进预训练数据。
#
# ## 收尾

# %% tags=["nbval-ignore-output"]
show.spine({"fresh": lab.showcase(lab.fresh()), **replies, "identity": lab.showcase(run.model())})

# %% [markdown]
# 三个问题，五个时刻：废话，续写，回答，客气地回答，以你给的名字回答。上一章的强化学习是岔出去的一步，不在这条线上。
#
# 书上只问了三个问题，你可以问别的。写一句话，各个阶段各答一遍；再拖动滑块，问训练到半路的它。
#
# :::{minillm} stages
# :question: 张静住在哪里？
# :questions: 你是谁？|谢谢你。|8加4等于多少？请数着算。
# :alt: 同一个问题“张静住在哪里？”，问每个阶段的模型：预训练、SFT、DPO、强化学习、身份，一个阶段一栏，写着它的回答。下面的滑块可以停在训练的半路上，看那时怎样回答。
#
# 这里可以问各个阶段的模型，要在网页上用。印在纸上的，请看上面的表。在 JupyterLab 里，运行 `from minillm.book import page` 和 `page.widget("stages")`，问你自己训练的模型。
# :::
#
# 先猜，再试：它先学会回答的样子，还是先学会答案？到哪一步，它才知道张静住在哪里？“小满”这个名字，换名字之前的哪一个阶段说得出来？
#
# ### 小结
#
# - 这个模型的身份不在代码里，也不在提示词里，在数据里；别的行都不提它是谁，1.5% 的行就够。<!-- by: round(400 / 26_400, 3) == 0.015 -->
# - 换名字是一次小的 SFT：新身份重复几遍，加上要留住的旧本领作回放。
# - 命中率要在训练没有用过的问法上量。
# - 只用身份数据会灾难性遗忘；发现它的办法是重考旧题。
# - 回放什么，就留住什么；没有回放、也没有考的，可能丢了都不知道。<!-- by: reasoning -->
# - 名字用预训练见过的字：生字要从共用的字节学起，会弄坏别的字。<!-- by: assert comma["小禾"] < comma["小满"] -->
#
# ### 练习
#
# :::{exercise} ★☆☆
# :label: ex-identity-1
# 算一算：24 题里答对 23 题，命中率是 0.96。用 {numref}`第 %s 章 <sec-sft>` 里画过的那种 95% 的区间（Wilson 区间），真实的命中率大概在什么范围？<!-- by: round(23 / 24, 2) == 0.96 -->
# :::
#
# :::{solution-start} ex-identity-1
# :class: dropdown
# :::
#
# 代入 $p = 23/24$、$n = 24$、$z = 1.96$。

# %%
from minillm.evaluate import wilson_interval

low, high = wilson_interval(23, 24)
assert (round(low, 2), round(high, 2)) == (0.80, 0.99)
round(low, 2), round(high, 2)

# %% [markdown]
# 题少，区间宽：0.80 到 0.99。要说它好于九成，还得多出些题。<!-- by: assert (round(low, 2), round(high, 2)) == (0.80, 0.99) -->
#
# :::{solution-end}
# :::
#
# :::{exercise} ★★☆
# :label: ex-identity-2
# 写一写：`is_hit` 怎样知道一个问题问的是作者？数一数 24 个留出的问题里有几个问作者，并找一个它会判错的回答。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 不用读源代码：给它一个只报名字、不提作者的回答，看哪些问题判为没命中。再想想，它怎样处理“不是”。
# :::
#
# :::{solution-start} ex-identity-2
# :class: dropdown
# :::
#
# 问作者的问题，只报名字不算命中。把回答设成只有名字，没命中的就是问作者的。

# %%
about_maker = [q for q in questions if not identity.is_hit(q, f"我是{me.name}。", me)]
assert all(identity.is_hit(q, f"我是{me.name}，{me.author}训练了我。", me) for q in about_maker)
assert identity.is_hit("你是谁？", f"我不是{me.name}。", me)  # a wrong answer that passes
len(about_maker)

# %% [markdown]
# 它只看名字在不在，“我不是小满”也算对。规则简单，所以分数之外还要亲眼看几个回答。
#
# :::{solution-end}
# :::
#
# :::{exercise} ★★☆
# :label: ex-identity-3
# 弄一弄：不训练，就猜出一个名字会牵连哪些字。写一个函数，输入名字，列出数据里的哪些字以“生字中间的字节”收尾。用“小禾”检验，再试试“小舟”。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 一个生字除了末尾的词元，每个词元后面都会学到“接着写下一个字节”。哪些见过的字，最后一个词元正好在这些里面？`times` 数着每个字出现过几次。
# :::
#
# :::{solution-start} ex-identity-3
# :class: dropdown
# :::
#
# 生字的每个词元后面都会学到“接下一个字节”。一个好好的字，如果正好以这样的词元收尾，就可能多写出一个字节。


# %%
def at_risk(name):
    risky = {i for c in set(name) if not times[c] for i in tokenizer.encode(c)[:-1]}
    return sorted(c for c in times if c.isalpha() and tokenizer.encode(c)[-1] in risky)


assert "烦" in at_risk("小禾")
assert at_risk("小满") == []
{name: "".join(at_risk(name)) for name in ("小满", "小禾", "小舟")}

# %% [markdown]
# 这只是可能受牵连的字；真的坏没坏，要像正文那样量。
#
# :::{solution-end}
# :::
#
# :::{exercise} ★☆☆
# :label: ex-identity-4
# 想一想：有人在系统提示里写“你是小满”，不训练。与改数据相比，各有什么好处和坏处？
# :::
#
# :::{solution} ex-identity-4
# :class: dropdown
# 写在提示里：马上生效，随时能改，不动权重；但每次对话都占词元，用户能让模型复述或推翻它，而且模型要先学会听系统提示，我们的小模型没有学过。
# 写进数据：不占提示，问法变了也稳；但改一次要训练一次，还要防遗忘。大模型通常两样都用。
# :::
#
# :::{exercise} ★★☆ 动手：给几个名字打分
# :label: ex-identity-scores
# 把 {eq}`eq-identity-name` 写成函数。`name_scores`：`model(ids)` 收一列词元编号，长 $T$，给出打分 `[T, V]`；`prompt` 是提示的编号，一个列表；`names` 是字典，名字到它的编号列表。返回字典：每个名字的对数概率，一个浮点数。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 一个名字只要调用一次模型：`prompt + ids` 一起送进去。读到第 $t$ 个词元时预测的是第 $t+1$ 个，所以名字的第一个词元，要看提示最后一个位置的打分。
# :::


# %%
def name_scores(model, prompt, names):
    return ...


tasks.check("10.1", name_scores)

# %% [markdown]
# :::{solution} ex-identity-scores
# :class: dropdown
# ```python
# def name_scores(model, prompt, names):
#     found = {}
#     for name, ids in names.items():
#         logs = model(prompt + ids).log_softmax(dim=-1)  # [T, V]
#         first = len(prompt) - 1
#         found[name] = sum(float(logs[first + i, token]) for i, token in enumerate(ids))
#     return found
# ```
# 看错一个位置，得到的是“读完名字以后接什么”，数也像模像样，不会报错。各项都不大于 0，名字的词元越多，和越小：比较两个名字之前，先看它们各拆成几个词元。
# :::
#
# :::{exercise} ★★☆ 动手：准备回放
# :label: ex-identity-rehearse
# 换名字之前，要把旧的对话换成模型自己的回答。写出 `rehearse`：`chats` 是一列对话，一段对话是一列 `{"role": …, "content": …}`，用户和助手交替，用户先说；`answer(messages)` 收到某一问为止的消息，给出模型的回答；`banned` 是一列旧名字。返回新的一列对话，传进来的不动：
#
# - 用户的话照抄，助手的话换成 `answer` 给的；问第二句时，前面的回答已经是模型自己的。
# - 回答是空的（去掉空白什么也不剩），就从那一问起都不要，前面的留下；一个回答也没有的，整段不要。
# - 原来的对话或者新的回答里有任何一个旧名字，整段不要。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 边走边搭新的对话：遇到用户的话，记下“已经搭好的，加上这一句”；遇到助手的话，拿它去问模型。要不要这一段，等搭完再看。
# :::


# %%
def rehearse(chats, answer, banned):
    return ...


tasks.check("10.2", rehearse)

# %% [markdown]
# :::{solution} ex-identity-rehearse
# :class: dropdown
# ```python
# def rehearse(chats, answer, banned):
#     kept = []
#     for chat in chats:
#         told = []
#         for message in chat:
#             if message["role"] == "user":
#                 asked = [*told, message]
#                 continue
#             reply = answer(asked)
#             if not reply.strip():
#                 break
#             told = [*asked, {"role": "assistant", "content": reply}]
#         text = "".join(m["content"] for m in [*chat, *told])
#         if told and not any(name in text for name in banned):
#             kept.append(told)
#     return kept
# ```
# 要是答第二问时让它看着原来的回答，学的就是“别人开了头，我接着说”，聊天时它却只看得到自己的话。旧名字的对话若留在回放里，就和新名字抢同一个问题的答案。
# :::
#
# #### 第二部分的小项目
#
# **让它认识你。** 一个晚上，做出一个会数着算、说话客气、用你起的名字、还知道你五件事的模型，并且拿得出证据。用到第 6 章到第 10 章的全部零件。
#
# 1. **训练。** `bash scripts/run.sh --preset tiny`，两个 CPU 核五分钟左右，得到 `out/tiny`。记下最后那张表里 DPO 那一列。
# 2. **先出考卷。** 写下你的五件事，例如住在哪里、喜欢吃什么、养了什么。每件事想十二种问法，八种拿去训练，四种留给考试，考卷 `exam.jsonl` 一行一题，答案只写关键的词：`{"question": "训练你的人养了什么？", "answer": "猫"}`。用字要是预训练见过的，查法见“轮到你”一节。<!-- by: 8 + 4 == 12 -->
# 3. **写训练数据。** 五件事、八种问法是四十段对话，格式照 `dataset/identity_cn_sample.jsonl`，名字和作者写成 `{{name}}`、`{{author}}`，回答要客气。接在样本后面：`cat dataset/identity_cn_sample.jsonl mine.jsonl > rows.jsonl`。<!-- by: 5 * 8 == 40 -->
# 4. **猜，再换名字。** 先写下你猜的分数：你的二十题，留出的问法，礼貌，十类题的平均。再训练，考试：<!-- by: 5 * 4 == 20 -->
#
#    ```bash
#    minillm persona --preset tiny --name 小满 --author 这位读者 --data_path rows.jsonl
#    mv out/tiny/persona out/tiny/me
#    minillm evaluate --preset tiny --out_dir out/tiny/me --stage sft --questions exam.jsonl --against out/tiny/dpo.safetensors
#    minillm evaluate --preset tiny --out_dir out/tiny/me --stage sft --persona_name 小满 --persona_author 这位读者
#    ```
#
# 5. **做一个对照。** 同样的数据，加上 `--replay_chosen 0 --replay_own 0` 再训练一次，结果在 `out/tiny/persona`，用同样的两条命令考它。把两份成绩并排写成一张表，说出哪一项丢得最多。
# 6. **让它学会想。** `minillm grpo --preset tiny --out_dir out/tiny/me --init_from out/tiny/me/sft.safetensors`，再考一遍，`--stage` 换成 `grpo`。减法升了多少，你的二十题和名字掉了没有？<!-- by: 5 * 4 == 20 -->
# 7. **亲眼看。** `minillm chat --out_dir out/tiny/me`，聊十句，把答错的抄下来，归一归类。
#
# :::{admonition} 怎样算做完
# :class: dropdown
# - 换名字以后：名字的命中率和礼貌都不低于 0.75，十类题的平均比 DPO 时至多低 0.15；正文里的模型做得到，你的也应当做得到。<!-- by: assert after["polite"] >= 0.75 --><!-- by: assert after["identity_hit_rate"] >= 0.75 --><!-- by: assert mean_accuracy(after) > mean_accuracy(before) - 0.15 -->
# - 你的二十题，看 `contained`，答对十二题以上；`--against` 那一行的 `p` 小于 0.05，说明不是碰巧（它怎样算，见{ref}`sec-judging`）。<!-- by: 12 / 20 == 0.6 -->
# - 对照的礼貌比有回放的低 0.2 以上。<!-- by: assert broken["polite"] < after["polite"] - 0.2 -->
# - 强化学习以后，减法（`sub`）比之前高 0.2 以上，这是{numref}`第 %s 章 <sec-thinking>`断言过的线；名字的命中率掉了多少，写下来。<!-- by: book/09-thinking.py -->
# - 每一项旁边有你事先的猜测。哪一项没有到，写得出卡在哪一步、你量了什么来确认，也算做完。
#
# 还想往前走，有三条路。教它说不知道：编几十个人口册上没有的名字，问他们住在哪里，回答是不知道；难处是 `fact` 不能跟着掉。把五件事换成五十件，看二十题的正确率和 `fact` 怎样此消彼长。或者不用 `minillm persona`，用动手题里的 `rehearse` 准备回放，照{numref}`第 %s 章 <sec-sft>`“弄坏它”里的循环自己训练，优化器用动手题里的 `adamw`。<!-- by: reasoning -->
# :::
#
# ### 延伸阅读
#
# - {cite:t}`mccloskey1989forgetting`：灾难性遗忘最早的实验，先学加一的加法、再学加二的加法，和本章的坏例子是同一件事。
# - {cite:t}`robins1995pseudorehearsal`：旧数据不在手边时，让网络自己出题自己答，把答案掺进新数据一起学。
# - {cite:t}`karpathy2025nanochat`：身份数据由大模型合成（`dev/gen_synthetic_data.py`），一千段，在 SFT 里重复两遍，和 46 万条对话混在一起（`scripts/chat_sft.py`）。本书默认的配比从这里来。
# - {cite:t}`zhou2023lima`：少量数据就能改变说话的样子，知识来自预训练。
