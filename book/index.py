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
# (sec-index)=
# # MiniLLM：亲手训练一个中文大语言模型
#
# 读完这本书，你会有一个自己训练的中文语言模型。语言模型只做一件事：看着前面的文字，猜下面接什么；一个接一个地猜下去，就成了话。
# 你从空文件夹和随机数开始：造数据，训练分词器，写 Transformer，预训练，监督微调，偏好优化，最后给它起一个名字。
# 每一步都在你自己的电脑上真的运行，不需要显卡。
#
# 办法是把世界变小。书里的模型只有 869,504 个参数，住在一个封闭的微世界里：48 个人，20 种商品，二十以内的加减，星期和月份，谁把什么放在了哪里的故事。
# 世界小，两个 CPU 核五分钟左右就能走完三个阶段的训练；世界封闭，它的每一句回答是对是错都查得到。

# %% tags=["remove-cell"]
import json

from minillm import evaluate
from minillm.book import lab, show
from minillm.microworld import exercises as asked, words

lab.start()
runs = {stage: lab.ladder(stage) for stage in ("pretrain", "sft", "dpo")}
thinking = lab.ladder("grpo")  # on top of DPO
named = lab.identity()  # the reader's persona, on top of DPO as well
scores = {stage: run.scores() for stage, run in runs.items()}
scores["grpo"] = thinking.scores()
scores["identity"] = named.scores(persona=lab.READER)
fresh = lab.fresh()
assert fresh.num_parameters() == 869_504
assert (len(words.PEOPLE), len(words.GOODS)) == (48, 20)
assert ("张静", "城市") in asked.FACTS.held_out  # never asked in training, nor is 8 + 4
assert (8, 4) in asked.SUMS.held_out
rows = {s: len((lab.data() / f"{s}_chinese.jsonl").read_bytes().splitlines()) for s in runs}
total = sum(rows.values()) - rows["sft"]  # pretraining reads the conversations too, as text
assert total == 85_763

# %% tags=["remove-input"] mystnb={"figure": {"caption": "整本书的路线。第一格里的行是文字、对话和成对的回答；对话在预训练时也当文字读，只数一次。SFT 是监督微调，教它回答；DPO 是偏好优化，教它选好的回答。同一条流水线换一个配置，就是 25,829,888 个参数的默认模型。", "name": "fig-index-flow"}, "image": {"alt": "六个方框从左到右：数据、分词器、预训练、监督微调、偏好优化，最后换上你的名字；前五个写着有多少行、多少个词元、多少步"}}
show.flow(
    [
        ("数据", f"{total:,} 行"),
        ("分词器", f"{fresh.config.vocab_size:,} 个词元"),
        ("预训练", f"{len(runs['pretrain'].log):,} 步"),
        ("SFT", f"{len(runs['sft'].log):,} 步"),
        ("DPO", f"{len(runs['dpo'].log)} 步"),
        ("身份", "你的名字"),
    ],
    [show.GREY, show.GREY, *(show.COLOURS[s] for s in ("pretrain", "sft", "dpo", "identity"))],
)

# %% [markdown]
# ## 和它说句话
#
# 它就在这一页里，由你的浏览器运行，不连任何服务器。左上角选它训练到哪个阶段，同一句话各问一遍。
#
# :::{minillm} chat
# :questions: 张静住在哪里？|那她喜欢吃什么？|8加4等于多少？请数着算。|你是谁？
# :alt: 聊天的窗口。最上面选模型训练到哪个阶段；中间是对话：问“张静住在哪里？”，它回答了；下面是几个现成的问题、输入的格子和发送的按钮。
#
# 这里是聊天的窗口，要在网页上用。印在纸上的，请看下面的表：同样的模型，每过一个阶段回答三个问题。在 JupyterLab 里，运行 `from minillm.book import page` 和 `page.widget("chat")`，和你自己训练的模型说话。
# :::
#
# 先猜，再试：问完“张静住在哪里？”，接着问“那她喜欢吃什么？”，哪些阶段知道“她”是谁？“重新开始”以后直接问这一句呢？一直聊下去，它从哪一句开始忘记前面的话？
#
# ## 它怎样学会说话
#
# 全书只问它三个问题，每过一个阶段问一遍。张静的住处和 8 加 4，训练数据里从来没有问过；她住在北京，只在它读的文字里说起过。<!-- by: assert ("张静", "城市") in asked.FACTS.held_out --><!-- by: assert (8, 4) in asked.SUMS.held_out --><!-- by: minillm/microworld/documents.py -->

# %% tags=["remove-input", "nbval-ignore-output"]
models = {"fresh": fresh} | {stage: run.model() for stage, run in runs.items()}
models["identity"] = named.model()
answers = {stage: lab.showcase(net) for stage, net in models.items()}
show.spine(answers)

# %% tags=["remove-cell"]
kinds = {
    "某人的一件事": "fact",
    "换一种没见过的问法": "phrasing",
    "读一段故事再回答": "reading",
    "接着上一句追问": "multi_turn",
    "一步一步数着加减": "chain",
    "不写步骤，直接加": "add",
    "不写步骤，直接减": "sub",
    "买两样东西一共多少钱": "shop",
}
assert not any(reply.replace("<|assistant_start|>", "") for reply in answers["fresh"])
answered = {s: [r["accuracy"][kind] for kind in kinds.values()] for s, r in scores.items()}
assert sum(answered["sft"]) > sum(answered["pretrain"]) + 0.15 * len(kinds)
for result in (scores["sft"], scores["dpo"], scores["identity"]):  # plain sums are not among them
    assert all(result["accuracy"][kind] >= floor for kind, floor in lab.FLOORS.items())
assert scores["sft"]["polite"] < 0.3 < 0.7 <= scores["dpo"]["polite"]
assert min(scores[stage]["identity_hit_rate"] for stage in ("dpo", "identity")) >= 0.7

# %% [markdown]
# 随机的权重只会重复同一个词元；词元是模型读写的最小单位，多半是一个字或一个词，`<|assistant_start|>` 这样的记号也是。（表里的 `·` 是换行，太长的回答截断成 `…`；要是有 `�`，那是只写了一半的汉字。）预训练以后它会接着往下写；问它，答不答得上来全看运气（看下面成绩表里预训练那一列的小字）。
# 监督微调（图和表里写作 SFT）教会它回答，偏好优化（写作 DPO）让它在多数回答后面添一句客气话；最后一步给它换了一个名字，它从此叫小满。<!-- by: assert not any(reply.replace( --><!-- by: assert sum(answered["sft"]) > sum(answered["pretrain"]) + 0.15 * len(kinds) --><!-- by: assert scores["sft"]["polite"] < 0.3 < 0.7 <= scores["dpo"]["polite"] --><!-- by: book/results/seeds.json -->
#
# 分数说的是同一件事。可是一次训练的分数靠不住：换一个随机种子，或者换一种处理器，舍入稍有不同，训练出来的就是另一个模型。所以同一份配方要训练许多遍，看哪些分数总是高，哪些时高时低。<!-- by: book/results/seeds.json -->
#
# 成绩表里还多出一列**强化学习**（reinforcement learning）：偏好优化以后，让模型自己写出答案，只告诉它对还是不对；对的那种写法，以后写出来的机会就大一些。{numref}`第 %s 章 <sec-thinking>` 讲它。

# %% tags=["remove-input"]
study = json.loads(lab.RESULTS.read_bytes())
seeds = {run["seed"] for run in study["runs"]}
kernels = {run["arithmetic"] for run in study["runs"]}
assert len(study["runs"]) == len(seeds) * len(kernels)
show.say(
    f"下表是 {len(study['runs'])} 次训练的分数：{len(seeds)} 个随机种子，",
    "各训练一次。"
    if len(kernels) == 1
    else "每个种子用两种算法次序各训练一次，它们的舍入不同，像换了一台机器。",
    "大字是平均，下面的小字是最低到最高。",
)

# %% [markdown]
# 每一行是 60 个训练中没有问过的问题（最后一行 24 个），数字是做到的比例。题目也只是抽样，真正的水平和考出来的会差一点：只看一次训练，60 题的 95% 置信区间，即说得通的水平，至多 ±0.13，24 题至多 ±0.19（{ref}`sec-judging` 讲怎样算）。<!-- by: assert half(60) <= 0.13 --><!-- by: assert half(24) <= 0.19 -->
#
# 表不是从左到右走到底的。前三列一段接一段；“强化学习”和“身份”两列都从 DPO 的模型出发，各走各的，都要和 DPO 那一列比。所以“身份”的减法不好，不是学会了又忘掉：它没有练过强化学习。<!-- by: reasoning -->

# %% tags=["remove-input"]
names = {name: f"answer {kind}" for name, kind in kinds.items()}
names |= {"回答得客气": "polite", "知道自己是谁": "identity"}
stages = ("pretrain", "sft", "dpo", "grpo", "identity")
show.spread({stage: study["scores"][stage] for stage in stages}, names)

# %% tags=["remove-cell"]


def half(n):
    low, high = evaluate.wilson_interval(n / 2, n)
    return (high - low) / 2


assert half(60) <= 0.13
assert half(24) <= 0.19
decided = [name for name in names.values() if name not in ("answer add", "answer sub")]
for stage in ("sft", "dpo", "grpo", "identity"):  # this very run is one more of them
    mine, theirs = evaluate.flatten(scores[stage]), study["scores"][stage]
    for name in decided:  # plain sums, and all answers after pretraining, are a matter of luck
        assert mine[name] >= theirs[name]["min"] - 0.25, (stage, name)

# %% tags=["remove-input"]
after = study["scores"]["dpo"]
add, minus, steps = (after[f"answer {kind}"] for kind in ("add", "sub", "chain"))
assert minus["mean"] + 0.1 < min(add["mean"], steps["mean"])
assert scores["dpo"]["accuracy"]["chain"] > scores["dpo"]["accuracy"]["sub"] + 0.2
show.say(
    f"也有学不会的。偏好优化以后，直接做减法，{len(study['runs'])} 次训练里最好的一次也只对 "
    f"{minus['max']:.0%}；直接做加法平均好些，从 {add['min']:.0%} 到 {add['max']:.0%}。",
    f"把步骤写出来，不管加减，最差的一次也对 {steps['min']:.0%}。",
)

# %% tags=["remove-input"]
thought = study["scores"]["grpo"]["answer sub"]
assert thought["mean"] > minus["mean"] + 0.3
assert scores["grpo"]["accuracy"]["sub"] > scores["dpo"]["accuracy"]["sub"] + 0.2
show.say(
    "可是没有人教它什么时候该写步骤。强化学习只告诉它算对了没有，它就自己数了起来：",
    f"同样直接问减法，平均从 {minus['mean']:.0%} 到 {thought['mean']:.0%}。",
)

# %% [markdown]
# 直接算为什么难，{numref}`第 %s 章 <sec-sft>` 会讲；它怎样自己想到要数，是{numref}`第 %s 章 <sec-thinking>`的事。
# 离开它的小世界，它什么都不懂。它不是一个有用的助手，是一个看得清的助手。
#
# 训练的时候还看不到这些分数，看得到的是**损失**（loss）：模型在正读着的数据上错得多厉害，越小越好（{numref}`fig-index-loss`）。三条线都在往下走，说明三个阶段都学到了东西；可是学到的是什么，会不会做减法，从线上看不出来，只能像上面那样出题考它。<!-- by: assert all(losses[-1] < losses[0] for _, losses in series.values()) -->

# %% tags=["remove-input", "nbval-ignore-output"] mystnb={"figure": {"caption": "三个阶段的训练损失（20 步平均），横轴是各阶段走过的百分比。每个阶段最小化的东西不同，三条线的高低不能互相比较。", "name": "fig-index-loss"}, "image": {"alt": "三条曲线，纵轴是对数刻度：预训练（蓝）、监督微调（绿）、偏好优化（橙）的训练损失，各自的终点都低于起点"}}
series = {}
for name, run in zip(("预训练", "SFT", "DPO"), runs.values(), strict=True):
    share = [100 * entry["step"] / len(run.log) for entry in run.log]
    series[name] = share, show.smooth([entry["loss"] for entry in run.log])
assert all(losses[-1] < losses[0] for _, losses in series.values())
colours = [show.COLOURS[stage] for stage in runs]
show.lines(series, "走过的步数（%）", "训练损失（对数刻度）", colours, log_y=True)

# %% [markdown]
# ## 先跑一遍
#
# 先取到项目（`git clone`，后面是它的地址），进入它的文件夹。一条命令走完全程，再一条和它聊天：
#
# ```bash
# bash scripts/run.sh --preset tiny
# .venv/bin/minillm chat --preset tiny
# ```
#
# 第一条命令自己建好虚拟环境，造数据，训练分词器和三个阶段，每个阶段之后打分。第一次要下载几个 GB，主要是 PyTorch（没有显卡，可以先装小得多的 CPU 版，见 {ref}`sec-setup`）；训练本身约五分钟。
#
# ## 怎样读
#
# **只读网页**。每一段代码的输出、每一张图，都是运行以后存下来的，不是画上去的。
#
# **一格一格运行**。每一章是一个笔记本，想从哪一章开始都可以：它需要的模型，缓存里有就取，没有就当场训练，以后不再训练。
#
# ```bash
# source .venv/bin/activate
# jupyter lab book
# ```
#
# **训练默认模型**。有一块 GPU，就用同一套脚本训练 25,829,888 个参数的模型，也可以换上自己的数据。{numref}`第 %s 章 <sec-pipeline>` 讲命令，{numref}`第 %s 章 <sec-scale>` 讲世界变大以后什么会变。
#
# ```bash
# bash scripts/run.sh
# ```
#
# 你需要：写过 Python，见过一次 PyTorch，记得导数和概率是什么；Python 3.10 或更新的版本，两个 CPU 核，4 GB 内存（有 2 GB 空闲就够）。不需要：显卡，Rust，大语言模型的任何经验。
# 一章多半读半小时到四十分钟，最长的两章要一小时。<!-- by: book/05-model.py --><!-- by: book/06-pretrain.py -->
#
# ## 目录与代码
#
# 章里不抄代码：要讲的源代码从 `minillm/` 直接取来显示，和训练时运行的是同一份。
#
# | 章 | 要回答的问题 | 模块 |
# |---|---|---|
# | {numref}`第 %s 章 <sec-environment>` {ref}`sec-environment` | 语言模型最小能小到什么样，又怎样自己学出来？ | `book/` |
# | {numref}`第 %s 章 <sec-data>` {ref}`sec-data` | 给它读什么，各读多少？ | `microworld/`、`data/` |
# | {numref}`第 %s 章 <sec-bpe>` {ref}`sec-bpe` | 汉字怎样变成整数？ | `tokenizer/`、`rustbpe/` |
# | {numref}`第 %s 章 <sec-tensors>` {ref}`sec-tensors` | 一行行文字怎样拼成一批张量？ | `tokenizer/chat_format`、`training/dataset`、`training/packing` |
# | {numref}`第 %s 章 <sec-model>` {ref}`sec-model` | 里面有些什么数，怎样算？ | `model/transformer`、`config` |
# | {numref}`第 %s 章 <sec-pretrain>` {ref}`sec-pretrain` | 猜下一个词元，怎么就学会了语言？ | `training/` |
# | {numref}`第 %s 章 <sec-sft>` {ref}`sec-sft` | 会说话的模型，怎样变成会回答的？ | `training/objectives`、`model/generate` |
# | {numref}`第 %s 章 <sec-dpo>` {ref}`sec-dpo` | 两句回答，怎样教它选好的那一句？ | `training/objectives` |
# | {numref}`第 %s 章 <sec-thinking>` {ref}`sec-thinking` | 只告诉它对不对，它能学会思考吗？ | `training/reinforcement`、`training/grpo` |
# | {numref}`第 %s 章 <sec-identity>` {ref}`sec-identity` | 怎样给它一个名字？ | `microworld/identity`、`persona` |
# | 两部分之间　{ref}`sec-judging` | 一个分数有多可信，差别是不是运气？ | `evaluate` |
# | {numref}`第 %s 章 <sec-pipeline>` {ref}`sec-pipeline` | 怎样一条命令跑完，成绩单上的分数考的是什么？ | `evaluate`、`chat`、`scripts/` |
# | {numref}`第 %s 章 <sec-scale>` {ref}`sec-scale` | 世界变大以后，什么会变？ | `config`、`data/hubs` |
# | {numref}`第 %s 章 <sec-takeaway>` {ref}`sec-takeaway` | 怎样把它带到别的程序里，又压得多小？ | `training/model_folder`、`training/gguf_export` |
# | {numref}`第 %s 章 <sec-poems>` {ref}`sec-poems` | 换成真实的文字，它学到了什么，抄了什么，不懂什么？ | `data/verse`、`data/tones`、`book/ngram` |
# | {numref}`第 %s 章 <sec-scaling>` {ref}`sec-scaling` | 给你一小时，该训练多大的模型？ | `book/laws`、`microworld/entropy` |
# | {numref}`第 %s 章 <sec-default>` {ref}`sec-default` | 默认模型练到底，会什么，不会什么？ | `book/laws`、`scripts/run.sh` |
#
# 查东西去附录：[常见问题](faq.md)、{ref}`我的输出正常吗 <sec-normal>`、{ref}`sec-data-engineering`、{ref}`命令 <sec-commands>`、[数据从哪里来](sources.md)、[术语表](glossary.md)。
#
# ## 约定
#
# - 每一章六个部分：开场、手算、真实代码、实验、弄坏它、收尾。手算的数都由紧跟着的一格代码用 `assert` 核对。
# - 术语第一次出现时加粗，并附英文；全书只用这一个译名。
# - 张量的形状写成 `[B, T, C]`：$B$ 行，每行 $T$ 个词元，每个词元 $C$ 个数。
# - 图里同一种颜色是同一件东西：灰是随机权重，蓝是预训练，绿是监督微调，橙是偏好优化，紫是强化学习，粉红是身份，橙红是弄坏的那一个，浅蓝是用来比较的。
# - 每个数字来自本页的代码、`benchmarks/` 里的测量，或注明的文献。讲某一次训练的句子由代码写出：你的机器训练出别的分数，句子跟着变。写死的结论都有 `assert` 守着，别的随机种子也要通过；想试，先设环境变量 `MINILLM_SEED=7`，再打开笔记本。
# - 练习的解答折叠在题目下面。先做再看。标着“动手”的要你写一个函数，运行那一格，它就说对不对；星越多越难。
#
# 代码和文字以 MIT 许可证发布，可以自由使用、修改、拿去教课。路线得益于 nanochat {cite:p}`karpathy2025nanochat` 和 MiniMind {cite:p}`gong2024minimind`，小世界的想法来自 TinyStories {cite:p}`eldan2023tinystories`。
#
# 想边读边运行，先做 {ref}`sec-setup`；只读的，从 {ref}`sec-environment` 开始。
