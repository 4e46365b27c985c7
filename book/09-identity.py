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
# - **你将学会**：说出“我是谁”存在哪里；用几百行数据给模型换一个名字；量出换名字前后的命中率和别的本领；认出灾难性遗忘；挑一个不会闯祸的名字。
# - **需要时间**：阅读 20 分钟，运行约 15 秒（第一次还要训练前面的阶段约五分钟，本章的三次约半分钟）。
# - **需要内存**：1 GB。
# - **用到的模块**：`minillm.identity`、`minillm.lab`。
# :::

# %%
import json
import math

from minillm import identity, lab, show, world_text
from minillm.identity import Persona
from minillm.rows import Message

lab.start()

# %% [markdown]
# ## 开场

# %% tags=["nbval-ignore-output"]
runs = {stage: lab.ladder(stage) for stage in ("pretrain", "sft", "dpo")}
replies = {stage: lab.showcase(run.model()) for stage, run in runs.items()}
show.spine({"fresh": lab.showcase(lab.fresh()), **replies})

# %% [markdown]
# 看第三列。模型说自己叫米粒，可我们从来没有单独教过它名字。**身份认同**（identity）是模型对“你是谁”的回答，它和“张静住在哪里”一样，只是数据里的一些行。
# 这一章先找到那些行，再换掉它们：让模型叫你起的名字，说是你训练了它，而张静仍然住在北京。
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
# 真的模型呢？让 DPO 之后的模型给两个名字打分，一个是数据里的米粒，一个是它没有听过的小满：

# %%
tokenizer = lab.tokenizer()
question = tokenizer.render_for_completion([Message("user", "你是谁？")])


def name_score(evaluator, name):
    return evaluator.log_probs([(question, tokenizer.encode(f"我是{name}"))])[0]


dpo = lab.ladder("dpo").evaluator()
old, new = name_score(dpo, "米粒"), name_score(dpo, "小满")
assert old > -5
assert new < old - 10

# %% tags=["nbval-ignore-output"]
print(f"ln p(我是米粒) = {old:.1f}, ln p(我是小满) = {new:.1f}: {math.exp(old - new):,.0f} times")

# %% [markdown]
# 差了十个数量级以上。要改名，就要把这个差翻过来。
#
# ### 身份占多少数据
#
# 手册给身份的份额是 1,000 行，重复两次，旁边是 46 万行对话。小模型的配比是 200 行乘 2。这些行在 SFT 数据里占多少？

# %%
with (lab.data() / "sft_chinese.jsonl").open() as file:
    rows = [json.loads(line) for line in file]
about_itself = [row for row in rows if row["source"] == "identity_conversations"]
assert len(about_itself) == 2 * 200
f"{len(about_itself)} of {len(rows):,} rows, {len(about_itself) / len(rows):.1%}"

# %% [markdown]
# 1.5% 的行就决定了它说自己是谁。别的行里没有一句和这些行抢答案，所以少也够。
#
# ## 真实代码
#
# 身份数据由三段拼成：开头、问题、回答。`{{name}}` 和 `{{author}}` 是占位符，写一次，谁的模型都能填。

# %%
show.source(identity.Persona, identity.fill, identity.conversations)

# %%
for turns in identity.conversations(3):
    print(turns[0]["content"], "→", turns[1]["content"])

# %% [markdown]
# `dataset/identity_cn_sample.jsonl` 就是它写出来的 200 行。你可以自己写一份放到 `data/chinese/identity_conversations.jsonl`，`scripts/build_chinese_mix.py` 会用它，重复 `--identity_repeat` 次（默认 2），并把占位符换成 `--persona_name` 和 `--persona_author`。
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
hits = {stage: run.scores()["identity_hit_rate"] for stage, run in runs.items()}
assert hits["sft"] >= 0.80
assert hits["dpo"] >= 0.85

# %% mystnb={"figure": {"caption": "每个阶段之后，“米粒”在 24 种留出问法上的命中率。", "name": "fig-identity-stages"}, "image": {"alt": "横条图：预训练之后约 0.21，SFT 之后约 0.88，DPO 之后约 0.92"}}
show.bars(hits, "hit rate (24 held-out questions)", [show.COLOURS[stage] for stage in hits])

# %% [markdown]
# **预训练**（pretraining）之后已经命中约两成（换一次运行，可能一题没有，也可能过半）：身份对话也以文本的样子混在预训练数据里。但看开场的表，那时它每次都从“回答”两个字写起，前两句接的是不相干的话，第三句才碰上自我介绍：它是在续写，不是在回答；`is_hit` 只找名字，看不出这一点。SFT 让它按问答的格式说出来。
#
# ### 换一个名字
#
# 现在给它一个新的身份：名字小满，作者“这位读者”。不需要新的算法，也不需要新的训练循环，只要再做一次 SFT，从 DPO 的权重出发。全部做法就是这一个函数：

# %%
show.source(lab.identity)

# %% [markdown]
# 关键在数据的两半：
#
# - **新的**：200 段关于小满的对话，重复 4 次，共 800 行；
# - **旧的**：偏好数据里 1,500 个客气的回答（`chosen`），原样再学一遍。这叫**回放**（replay），它把事实、算术和礼貌都留住。
#
# 回放为什么用偏好数据里的回答，而不用 SFT 的数据？因为 SFT 数据里九成的回答不客气，学一遍它们，上一章的礼貌就没了。想留住什么，就回放什么。

# %%
me = lab.READER
run = lab.identity(me)
me

# %% tags=["nbval-ignore-output"]
before, after = runs["dpo"].scores(persona=me), run.scores(persona=me)
assert before["identity_hit_rate"] == 0
assert after["identity_hit_rate"] >= 0.85
assert after["polite"] >= 0.85


def mean_accuracy(result):
    return sum(result["accuracy"].values()) / len(result["accuracy"])


assert mean_accuracy(after) > mean_accuracy(before) - 0.1
show.table(
    ["", "换之前（DPO）", "换之后（身份）"],
    [
        ["自称小满（24 种留出的问法）", before["identity_hit_rate"], after["identity_hit_rate"]],
        ["礼貌（60 题）", before["polite"], after["polite"]],
        ["十类题的平均正确率", mean_accuracy(before), mean_accuracy(after)],
    ],
    [None, show.COLOURS["dpo"], show.COLOURS["identity"]],
)

# %% [markdown]
# 名字从 0 换到九成以上，礼貌和这十类题的平均几乎没有动（没有考的呢？见“弄坏它”）。听听它怎么说，这几个问法都是训练里没有的：

# %% tags=["nbval-ignore-output"]
evaluator = run.evaluator()
said = evaluator.ask(questions)
assert not any("米粒" in reply for reply in said)  # the old name is gone
show.table(["留出的问法", "回答"], list(zip(questions, said, strict=True))[::3])

# %% [markdown]
# 名字的概率是怎样翻过来的？训练每隔几十步留了一份权重，量一量 {eq}`eq-identity-name` 里的对数概率：

# %% tags=["hide-input"] mystnb={"figure": {"caption": "回答“我是米粒”和“我是小满”的对数概率，随训练步数交换位置。第 0 步是 DPO 的模型。", "name": "fig-identity-names"}, "image": {"alt": "两条折线：旧名字从 -1 左右降到 -16 左右，新名字从 -33 左右升到接近 0，在前二十几步之内交叉"}}
steps = [0, *run.steps]
models = [dpo, *(run.evaluator(step) for step in run.steps)]
show.lines(
    {
        name: (steps, [name_score(e, n) for e in models])
        for n, name in (("米粒", "old name"), ("小满", "new name"))
    },
    "step",
    "ln p(name | question)",
    [show.COLOURS["dpo"], show.COLOURS["identity"]],
    marker="o",
)

# %% [markdown]
# ### 轮到你
#
# 换成你自己的名字：改下面两个字符串再运行，训练大约十秒。名字里的字最好在数据里出现过，下面的单元格替你检查；原因见“弄坏它”的最后一节。

# %%
mine = Persona(name="小满", author="这位读者")

with (lab.data() / "pretrain_chinese.jsonl").open() as file:
    known = set(file.read())
unknown = sorted(set(mine.name + mine.author) - known)
assert not unknown, f"the data never shows {unknown}"
your_run = lab.identity(mine)

# %% tags=["nbval-ignore-output"]
lab.ask(your_run.model(), "你好，请说说你是谁。")

# %% [markdown]
# 在命令行上，同样的事是两步：把你的对话写成一个 JSONL 文件，再从 DPO 的权重出发做一次 SFT。
#
# ```bash
# python trainer/train_full_sft.py --preset tiny --data_path data/my_identity.jsonl \
#     --init_from out/tiny/dpo.safetensors --out_dir out/mine --tokenizer_path out/tiny/tokenizer \
#     --max_steps 90 --learning_rate 2e-3
# ```
#
# ## 弄坏它
#
# ### 只拿身份数据去训练
#
# 最常见的错误：只拿身份数据去训练。几百行，几十步，损失降得飞快，问它是谁，对答如流。于是收工。我们照做一遍，步数和学习率都不变，只是去掉回放：

# %%
only_identity = [
    [{**turn, "content": identity.fill(turn["content"], me)} for turn in turns]
    for turns in identity.conversations(200)
] * 4
path = lab.cache_dir() / "identity" / "alone.jsonl"
lines = [json.dumps({"messages": turns}, ensure_ascii=False) for turns in only_identity]
path.write_text("\n".join(lines) + "\n", encoding="utf-8")
alone = lab.variant(
    "identity-alone", "sft", runs["dpo"], path, max_steps=90, learning_rate=2e-3, epochs=5
)

# %% tags=["nbval-ignore-output"]
broken = alone.scores(persona=me)
assert broken["identity_hit_rate"] >= 0.75  # it knows its name …
assert broken["polite"] < after["polite"] - 0.3  # … and has lost its manners
assert mean_accuracy(broken) < mean_accuracy(after) - 0.05
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
# 名字学会了，礼貌一点不剩，十类题几乎每一类都比有回放时低，平均低了 0.12，加法和减法掉得最多。换一次运行，忘掉的是哪几类、忘掉多少都会变：有一次事实掉了一大半，读故事从全对掉到不足三成。训练新东西，旧东西就被盖掉，叫**灾难性遗忘**（catastrophic forgetting）{cite:p}`mccloskey1989forgetting`：没有一行数据要求模型记得张静住在哪里，改动权重时就没有东西拦着。
#
# 怎样注意到？只看训练损失看不到，只问“你是谁”也看不到。**每做一步训练，把以前的考试全部重考一遍。** `minillm evaluate` 每次都跑全部的题，就是为了这个。
#
# ### 没有回放的，还是会丢
#
# 有了回放就万事大吉吗？偏好数据里没有寒暄（“我有点累。”“谢谢你！”），SFT 数据里有。它没有被回放，也不在那十类题里。考一考：6 个人，11 种寒暄，都是 SFT 教过的。


# %%
def small_talk(evaluator):
    """(what was said, the reply, whether it is the right one), for 66 turns that SFT taught."""
    turns = [
        (f"我是{name}。{said}", answer)
        for name in list(world_text.PEOPLE)[:6]
        for said, answer in world_text.CHATS
    ]
    said = evaluator.ask([question for question, _ in turns])
    return [(q, reply, answer in reply) for (q, answer), reply in zip(turns, said, strict=True)]


odd = Persona(name="小禾", author="这位读者")  # for the next section
odd_run = lab.identity(odd)
talks = {
    name: small_talk(e)
    for name, e in (("DPO", dpo), ("小满", evaluator), ("小禾", odd_run.evaluator()))
}
kept = {name: sum(ok for *_, ok in turns) / len(turns) for name, turns in talks.items()}
assert kept["DPO"] >= 0.9
assert kept["小禾"] < kept["DPO"]

# %% mystnb={"figure": {"caption": "寒暄还答得对的比例（66 句）：换名字之前、换成小满、换成小禾。", "name": "fig-identity-talk"}, "image": {"alt": "横条图：DPO 之后 1.0，换成第一个名字约 0.77，换成第二个名字约 0.45"}}
labels = {"DPO": "before (DPO)", "小满": "known characters", "小禾": "an unknown character"}
colours = [show.COLOURS["dpo"], show.COLOURS["identity"], show.COLOURS["bad"]]
bars = {labels[name]: rate for name, rate in kept.items()}
show.bars(bars, "small talk kept (66 turns)", colours)

# %% tags=["nbval-ignore-output"]
wrong = [
    [name, *turn[:2]]
    for name, turns in talks.items()
    for turn in [t for t in turns if not t[2]][:5]
]
show.table(["", "寒暄", "回答"], wrong)

# %% [markdown]
# 换成小满之后丢了两成多：大多开头几个字还对，接着就滑进别的话，多半来自自我介绍。补救也是同一句话：把 SFT 里的寒暄也放进回放。一般说来，回放只保住它含有的东西，考试只看得见它考的东西。
#
# ### 名字里有生字
#
# 小禾丢得更多，而两次训练的数据只差一个字。各只训练了一次，差别里有多少是碰巧，说不准；但其中一种错查得清来历：回答里会冒出不成字的字节（�），有时一开口就是“禾”的后两个字节（表里每个名字只列五句，没有列到）。“禾”在全部数据里一次也没有出现过，它不是一个词元，要拆成三个字节来写。看看它与“烦”字：


# %%
def hexes(text):
    return [tokenizer.token_bytes(i).hex(" ").upper() for i in tokenizer.encode(text)]


assert "禾" not in known
assert hexes("禾") == ["E7", "A6", "BE"]
assert hexes("烦") == ["E7 83", "A6"]
{character: hexes(character) for character in "禾烦满"}

# %% [markdown]
# “烦”的最后一个词元是 `A6`，“禾”的中间一个也是 `A6`。800 行身份对话反复教它：`A6` 后面写 `BE`。那么写完“不麻烦”，该写逗号的时候呢？量一量逗号的对数概率：

# %%
asked = tokenizer.render_for_completion([Message("user", "我是王芳。麻烦你了！")])
after_it = (asked + tokenizer.encode("不麻烦"), tokenizer.encode("，"))
comma = {
    name: e.log_probs([after_it])[0]
    for name, e in (("DPO", dpo), ("小满", evaluator), ("小禾", odd_run.evaluator()))
}
assert comma["DPO"] > -0.5
assert comma["小满"] > -0.5
assert comma["小禾"] < -2

# %% mystnb={"figure": {"caption": "写完“不麻烦”之后，写逗号有多意外（−ln p，越大越意外）。", "name": "fig-identity-comma"}, "image": {"alt": "横条图：换名字之前和换成已知字的名字都接近 0，换成有生字的名字约 16"}}
surprise = {labels[name]: round(-value, 3) for name, value in comma.items()}
show.bars(surprise, "-ln p(comma) in nats", colours)

# %% [markdown]
# 从几乎必然（不到 0.01 奈特）变成几乎绝无可能（约 16 奈特，千万分之一；换一次运行，可能只有几个奈特），概率几乎都给了 `BE`；写了它，就多出半个字，成了“不麻烦�”。名字本身学会了，坏的是一个不相干的字。有字节作后盾，分词器永远不会说“我不认识这个字”（{numref}`第 %s 章 <sec-bpe>`），但字节是大家共用的。
#
# 怎样注意到：在回答里数一数 `U+FFFD`（�），再像上面那样直接量概率。只数不够：这一次，66 句寒暄里小满有一句，小禾也只有两句，因为它多半早就说歪了，轮不到写“烦”字；换一次运行，小禾有过十几句。怎样避免：名字用预训练见过的字；一定要用生字，就先把它写进预训练数据。
#
# ## 收尾

# %% tags=["nbval-ignore-output"]
show.spine({"fresh": lab.showcase(lab.fresh()), **replies, "identity": lab.showcase(run.model())})

# %% [markdown]
# 三个问题，五个时刻：废话，续写，回答，客气地回答，以你给的名字回答。
#
# ### 小结
#
# - 身份不在代码里，也不在提示词里，在数据里：1.5% 的行就够。
# - 换名字是一次小的 SFT：新身份重复几遍，加上要留住的旧本领作回放。
# - 命中率要在训练没有用过的问法上量：从 0 到九成以上（24 题）。
# - 只用身份数据会灾难性遗忘；发现它的办法是重考旧题。
# - 回放什么，就留住什么；没有回放、也没有考的，丢了都不知道。
# - 名字用数据里有的字：生字要从共用的字节学起，会弄坏别的字。
#
# ### 练习
#
# :::{exercise}
# :label: ex-identity-1
# 算一算：24 题里答对 23 题，命中率是 0.96。用 {numref}`第 %s 章 <sec-pipeline>` 的 Wilson 区间，真实的命中率大概在什么范围？
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
# 题少，区间宽：0.80 到 0.99。要说“好于九成”，还得多出些题。
#
# :::{solution-end}
# :::
#
# :::{exercise}
# :label: ex-identity-2
# 写一写：`is_hit` 怎样知道一个问题问的是作者？数一数 24 个留出的问题里有几个问作者，并找一个它会判错的回答。
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
# :::{exercise}
# :label: ex-identity-3
# 弄一弄：不训练，就猜出一个名字会牵连哪些字。写一个函数，输入名字，列出数据里的哪些字以“生字中间的字节”收尾。用“小禾”检验，再试试“小舟”。
# :::
#
# :::{solution-start} ex-identity-3
# :class: dropdown
# :::
#
# 生字的每个词元后面都会学到“接下一个字节”。一个好好的字，如果正好以这样的词元收尾，就可能多写出一个字节。


# %%
def at_risk(name):
    risky = {i for c in set(name) - known for i in tokenizer.encode(c)[:-1]}
    return sorted(c for c in known if c.isalpha() and tokenizer.encode(c)[-1] in risky)


assert "烦" in at_risk("小禾")
assert at_risk("小满") == []
{name: "".join(at_risk(name)) for name in ("小满", "小禾", "小舟")}

# %% [markdown]
# 这只是可能受牵连的字；真的坏没坏，要像正文那样量。
#
# :::{solution-end}
# :::
#
# :::{exercise}
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
# ### 延伸阅读
#
# - {cite:t}`mccloskey1989forgetting`：灾难性遗忘最早的实验，先学加一的加法、再学加二的加法，和本章的坏例子是同一件事。
# - {cite:t}`karpathy2025nanochat`：它的身份数据怎样合成、怎样混进中期训练和 SFT，手册的做法从这里来。
# - {cite:t}`zhou2023lima`：少量数据就能改变说话的样子，知识来自预训练。
