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
# 读完这本书，你会有一个自己训练的中文语言模型。从空文件夹和随机数开始：造数据，训练分词器，写 Transformer，预训练，监督微调，偏好优化，最后给它起一个名字。
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

# %% tags=["remove-input"] mystnb={"figure": {"caption": "整本书的路线。第一格里的行是文字、对话和成对的回答；对话在预训练时也当文字读，只数一次。同一条流水线换一个配置，就是 25,829,888 个参数的默认模型。", "name": "fig-index-flow"}, "image": {"alt": "六个方框从左到右：数据、分词器、预训练、监督微调、偏好优化，最后换上你的名字；前五个写着有多少行、多少个词元、多少步"}}
show.flow(
    [
        ("data", f"{total:,} rows"),
        ("tokenizer", f"{fresh.config.vocab_size:,} tokens"),
        ("pretrain", f"{len(runs['pretrain'].log):,} steps"),
        ("SFT", f"{len(runs['sft'].log):,} steps"),
        ("DPO", f"{len(runs['dpo'].log)} steps"),
        ("identity", "your name"),
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
# 全书只问它三个问题，每过一个阶段问一遍。张静的住处和 8 加 4，训练数据里从来没有问过。<!-- by: assert ("张静", "城市") in asked.FACTS.held_out --><!-- by: assert (8, 4) in asked.SUMS.held_out -->

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
assert sum(scores["pretrain"]["accuracy"][kind] for kind in kinds.values()) / len(kinds) < 0.4
for result in (scores["sft"], scores["dpo"], scores["identity"]):  # plain sums are not among them
    assert all(result["accuracy"][kind] >= floor for kind, floor in lab.FLOORS.items())
assert scores["sft"]["polite"] < 0.1 < 0.85 <= scores["dpo"]["polite"]
assert min(scores[stage]["identity_hit_rate"] for stage in ("dpo", "identity")) >= 0.7

# %% [markdown]
# 随机的权重只会重复同一个词元。预训练以后它会接着往下写，问它却多半答不上来。
# 监督微调教会它回答，偏好优化让它在答完以后多一句客气话；最后一步给它换了一个名字，它从此叫小满。<!-- by: assert not any(reply.replace( --><!-- by: assert sum(scores["pretrain"]["accuracy"][kind] for kind in kinds.values()) --><!-- by: assert scores["sft"]["polite"] < 0.1 < 0.85 <= scores["dpo"]["polite"] -->
#
# 分数说的是同一件事。可是一次训练的分数靠不住：换一个随机种子，或者换一种处理器，舍入稍有不同，训练出来的就是另一个模型。所以同一份配方要训练许多遍，看哪些分数总是高，哪些时高时低。<!-- by: book/results/seeds.json -->

# %% tags=["remove-input"]
study = json.loads(lab.RESULTS.read_bytes())
seeds = {run["seed"] for run in study["runs"]}
kernels = {run["arithmetic"] for run in study["runs"]}
assert len(study["runs"]) == len(seeds) * len(kernels)
show.say(
    f"下表是 {len(study['runs'])} 次训练的分数：{len(seeds)} 个随机种子，",
    "各训练一次。"
    if len(kernels) == 1
    else "每个种子用 PyTorch 的普通内核和它为处理器挑的快内核各训练一次。",
    "大字是平均，下面的小字是最低到最高。",
)

# %% [markdown]
# 每一行是 60 个训练中没有问过的问题（最后一行 24 个），数字是做到的比例。题目也只是抽样：只看一次训练，60 题的 95% 置信区间至多 ±0.13，24 题至多 ±0.19。<!-- by: assert half(60) <= 0.13 -->

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
for stage, result in scores.items():  # this very run is one more of them
    mine, theirs = evaluate.flatten(result), study["scores"][stage]
    for name in names.values():
        assert theirs[name]["min"] - 0.15 <= mine[name] <= theirs[name]["max"] + 0.15, (stage, name)

# %% tags=["remove-input"]
after = study["scores"]["dpo"]
add, minus, steps = (after[f"answer {kind}"] for kind in ("add", "sub", "chain"))
assert minus["max"] + 0.2 < steps["min"]
assert minus["mean"] + 0.2 < add["mean"]
assert scores["dpo"]["accuracy"]["chain"] > scores["dpo"]["accuracy"]["sub"] + 0.3
show.say(
    f"也有学不会的。偏好优化以后，直接做减法，{len(study['runs'])} 次训练里最好的一次也只对 "
    f"{minus['max']:.0%}；直接做加法平均好得多，从 {add['min']:.0%} 到 {add['max']:.0%}。",
    f"把步骤写出来，不管加减，最差的一次也对 {steps['min']:.0%}。",
)

# %% tags=["remove-input"]
thought = study["scores"]["grpo"]["answer sub"]
assert thought["min"] > minus["max"] + 0.3
assert scores["grpo"]["accuracy"]["sub"] > scores["dpo"]["accuracy"]["sub"] + 0.3
show.say(
    "可是没有人教它什么时候该写步骤。强化学习只告诉它算对了没有，它就自己数了起来：",
    f"同样直接问减法，平均从 {minus['mean']:.0%} 到 {thought['mean']:.0%}。",
)

# %% [markdown]
# 直接算为什么难，{numref}`第 %s 章 <sec-sft>` 会讲；它怎样自己想到要数，是{numref}`第 %s 章 <sec-thinking>`的事。
# 离开它的小世界，它什么都不懂。它不是一个有用的助手，是一个看得清的助手。

# %% tags=["remove-input", "nbval-ignore-output"] mystnb={"figure": {"caption": "三个阶段的训练损失（20 步平均），横轴是各阶段走过的百分比。每个阶段最小化的东西不同，三条线的高低不能互相比较。", "name": "fig-index-loss"}, "image": {"alt": "三条曲线，纵轴是对数刻度：预训练（蓝）、监督微调（绿）、偏好优化（橙）的训练损失，各自的终点都低于起点"}}
series = {}
for name, run in zip(("pretrain", "SFT", "DPO"), runs.values(), strict=True):
    share = [100 * entry["step"] / len(run.log) for entry in run.log]
    series[name] = share, show.smooth([entry["loss"] for entry in run.log])
assert all(losses[-1] < losses[0] for _, losses in series.values())
colours = [show.COLOURS[stage] for stage in runs]
show.lines(series, "steps of the stage (%)", "training loss (log scale)", colours, log_y=True)

# %% [markdown]
# ## 先跑一遍
#
# 在项目的文件夹里，一条命令走完全程，再一条和它聊天：
#
# ```bash
# bash scripts/run.sh --preset tiny
# .venv/bin/minillm chat --preset tiny
# ```
#
# 第一条命令自己建好虚拟环境，造数据，训练分词器和三个阶段，每个阶段之后打分。第一次要下载几个 GB，主要是 PyTorch；训练本身约五分钟。
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
# 你需要：写过 Python，见过一次 PyTorch，记得导数和概率是什么；Python 3.10 或更新的版本，两个 CPU 核，4 GB 内存。不需要：显卡，Rust，大语言模型的任何经验。
# 一章读半小时到四十分钟。<!-- by: pyproject.toml -->
#
# ## 目录与代码
#
# 章里不抄代码：要讲的源代码从 `minillm/` 直接取来显示，和训练时运行的是同一份。
#
# | 章 | 要回答的问题 | 模块 |
# |---|---|---|
# | {numref}`第 %s 章 <sec-environment>` {ref}`sec-environment` | 怎样让训练随时可以开始、可以重来？ | `config`、`cli`、`book/` |
# | {numref}`第 %s 章 <sec-data>` {ref}`sec-data` | 给它读什么，各读多少？ | `microworld/`、`data/` |
# | {numref}`第 %s 章 <sec-bpe>` {ref}`sec-bpe` | 汉字怎样变成整数？ | `tokenizer/`、`rustbpe/` |
# | {numref}`第 %s 章 <sec-tensors>` {ref}`sec-tensors` | 一行行文字怎样拼成一批张量？ | `tokenizer/chat_format`、`training/dataset`、`training/packing` |
# | {numref}`第 %s 章 <sec-model>` {ref}`sec-model` | 里面有些什么数，怎样算？ | `model/transformer`、`config` |
# | {numref}`第 %s 章 <sec-pretrain>` {ref}`sec-pretrain` | 猜下一个词元，怎么就学会了语言？ | `training/` |
# | {numref}`第 %s 章 <sec-sft>` {ref}`sec-sft` | 会说话的模型，怎样变成会回答的？ | `training/objectives`、`model/generate` |
# | {numref}`第 %s 章 <sec-dpo>` {ref}`sec-dpo` | 两句回答，怎样教它选好的那一句？ | `training/objectives` |
# | {numref}`第 %s 章 <sec-identity>` {ref}`sec-identity` | 怎样给它一个名字？ | `microworld/identity`、`persona` |
# | {numref}`第 %s 章 <sec-pipeline>` {ref}`sec-pipeline` | 怎样一条命令跑完，并知道它好不好？ | `evaluate`、`chat`、`scripts/` |
# | {numref}`第 %s 章 <sec-scale>` {ref}`sec-scale` | 世界变大以后，什么会变？ | `config`、`data/hubs` |
# | {numref}`第 %s 章 <sec-takeaway>` {ref}`sec-takeaway` | 怎样把它带到别的程序里，又压得多小？ | `training/model_folder`、`training/gguf_export` |
#
# 查东西去附录：[常见问题](faq.md)、{ref}`命令 <sec-commands>`、[术语表](glossary.md)。
#
# ## 约定
#
# - 每一章六个部分：开场、手算、真实代码、实验、弄坏它、收尾。手算的数都由紧跟着的一格代码用 `assert` 核对。
# - 术语第一次出现时加粗，并附英文；全书只用这一个译名。
# - 张量的形状写成 `[B, T, C]`：$B$ 行，每行 $T$ 个词元，每个词元 $C$ 个数。
# - 图里同一种颜色是同一件东西：灰是随机权重，蓝是预训练，绿是监督微调，橙是偏好优化，紫是身份，红是弄坏的那一个。
# - 每个数字来自本页的代码、`benchmarks/` 里的测量，或注明的文献。讲某一次训练的句子由代码写出：你的机器训练出别的分数，句子跟着变。写死的结论都有 `assert` 守着，别的随机种子也要通过；想试，先设环境变量 `MINILLM_SEED=7`，再打开笔记本。
# - 练习的解答折叠在题目下面。先做再看。
#
# 代码和文字以 MIT 许可证发布，可以自由使用、修改、拿去教课。路线得益于 nanochat {cite:p}`karpathy2025nanochat` 和 MiniMind {cite:p}`gong2024minimind`，小世界的想法来自 TinyStories {cite:p}`eldan2023tinystories`。
#
# 从 {ref}`sec-environment` 开始。
