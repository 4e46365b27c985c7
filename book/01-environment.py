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
# (sec-environment)=
# # 环境，以及一页纸的语言模型
#
# :::{admonition} 本章
# :class: tip
#
# - **你将学会**：从一台空机器装好全书的环境；用数数的办法做出第一个语言模型，并用留出的数据给它打分。
# - **需要时间**：安装约 10 分钟（看网速），本章运行约半分钟。
# - **需要内存**：2 GB。
# - **用到的模块**：`minillm.book.lab`、`minillm.book.show`、`minillm.config`、`minillm.microworld.scoring`。
# :::

# %%
import json
import math
import random
import re
import time
from collections import Counter

from minillm import config  # before PyTorch: it says how threads wait (see the FAQ)
from minillm.book import lab, show

import psutil
import torch

lab.start()

# %% [markdown]
# ## 开场
#
# 这本书只训练一个模型，从第一页到最后一页。它有 87 万个参数，生活在一个很小的中文世界里：48 个人物、20 种商品、20 以内的算术。每过一章，我们都问它同样的三句话。<!-- by: round(869504 / 10000) == 87 -->
#
# 今天它还是一堆随机数：

# %% tags=["nbval-ignore-output"]
answers = lab.showcase(lab.fresh())
assert all(re.fullmatch(r"(.+?)\1{9,}", answer) for answer in answers)
show.spine({"fresh": answers})

# %% [markdown]
# 它只会把一个词元重复到底。到 {numref}`第 %s 章 <sec-dpo>`，我们要它用通顺的中文回答这三句话，再带上一句客气话。全书的路线见 {numref}`fig-environment-map`。

# %% tags=["hide-input"] mystnb={"figure": {"caption": "全书的路线：数据、分词器、张量、三个训练阶段。框里的 ch. 是讲它的章。", "name": "fig-environment-map"}, "image": {"alt": "六个方框从左到右用箭头相连：数据（第 2 章），词元（第 3 章），张量（第 4 章），预训练（第 5、6 章），SFT（第 7 章），DPO（第 8 章）"}}
colours = [show.GREY] * 3 + [show.COLOURS[stage] for stage in ("pretrain", "sft", "dpo")]
show.flow(
    [
        ("data", "ch. 2"),
        ("tokens", "ch. 3"),
        ("tensors", "ch. 4"),
        ("pretrain", "ch. 5, 6"),
        ("SFT", "ch. 7"),
        ("DPO", "ch. 8"),
    ],
    colours,
)

# %% [markdown]
# {numref}`第 %s 章 <sec-identity>` 给模型换上你起的名字，{numref}`第 %s 章 <sec-pipeline>` 把全部步骤变成一条命令，{numref}`第 %s 章 <sec-scale>` 说明换成真实规模时哪些会变。
#
# ### 装好环境
#
# 你需要：git，Python 3.10 或更新的版本，4 GB 磁盘（PyTorch 的 CPU 版；带 CUDA 的要 8 GB），2 GB 空闲内存，两个 CPU 核。**不需要 GPU。**<!-- by: pyproject.toml --> 取到源代码之后，在项目的文件夹里运行：
#
# ```bash
# bash scripts/run.sh --preset tiny   # trains a small model that answers: some minutes on 2 cores, plus the download
# bash scripts/test.sh                # every test
# ```
#
# 第一条命令把整条流水线走一遍：建环境、配数据、预训练、SFT、DPO，最后得到一个会回答问题的小模型，并说出怎样和它聊天。只想知道这台机器上样样能不能用，就用 `bash scripts/run.sh --smoke-test`：同样的阶段各走几步，两分钟左右，什么也没有学到。
#
# 环境装在**虚拟环境**（virtual environment）里，即项目文件夹中的 `.venv`：一套只属于这个项目的 Python 和包，删掉它，就什么也没有留下。不想用脚本，手动也可以：
#
# ```bash
# python3 -m venv .venv
# source .venv/bin/activate
# pip install --upgrade pip
# pip install -r requirements.txt
# ```
#
# 常用的几个开关，都是环境变量：
#
# | 变量 | 作用 | 默认 |
# |---|---|---|
# | `PYTHON` | 用哪个解释器建环境 | `python3` |
# | `VENV_DIR` | 虚拟环境放在哪里 | `.venv` |
# | `PIP_INDEX_URL` | pip 从哪里下载；下载太慢时设为离你近的镜像 | pip 自己的默认 |
# | `ENABLE_RUSTBPE` | 设为 1 就编译 Rust 写的分词器训练器，需要 Rust（{numref}`第 %s 章 <sec-bpe>`） | 关闭 |
#
# 没有 GPU 时，不必下载带 CUDA 的 PyTorch：建好 `.venv`，先按 PyTorch 官网 “Get Started” 页面的 CPU 命令装 2.10 或更新的 `torch`，再运行 `scripts/run.sh`，它会保留你装的这一份。<!-- by: pyproject.toml -->
#
# 读这本书也有两种方法。想边读边运行，用 JupyterLab 或 VS Code 打开 `book/` 里的笔记本，内核选 `.venv` 里的 Python；想只读，`bash scripts/book.sh --serve` 会在本机打开网页。出了问题，先查 {ref}`sec-faq`。
#
# ### 你的机器有多快
#
# 训练主要是矩阵乘法。两个 $n \times n$ 的矩阵相乘要 $2n^3$ 次浮点运算，除以时间，就是这台机器的速度：

# %% tags=["nbval-ignore-output"]
n = 1024
a, b = torch.randn(n, n), torch.randn(n, n)
seconds = []
for _ in range(10):
    started = time.perf_counter()
    a @ b
    seconds.append(time.perf_counter() - started)
speed = 2 * n**3 / min(seconds)
free = psutil.virtual_memory().available
print(f"{psutil.cpu_count()} cores, {torch.get_num_threads()} threads, {free / 1e9:.1f} GB free")
print(f"{speed / 1e9:.0f} GFLOP/s")

# %% [markdown]
# 训练一个 $N$ 个参数的模型，每个词元约要 $6N$ 次浮点运算（前向 $2N$，反向 $4N$）{cite:p}`kaplan2020scaling`。小模型的预训练走 1,500 步，每步 8 行，每行 128 个词元：

# %%
parameters = lab.fresh().num_parameters()
tokens = 1500 * 8 * 128
flops = 6 * parameters * tokens
assert parameters == 869_504
print(f"{parameters:,} parameters, {tokens:,} tokens, {flops:.1e} floating-point operations")

# %% [markdown]
# 用这个数除以你的机器的速度，就是预训练时间的下限。实际要更久：小矩阵喂不饱处理器，注意力、损失和优化器也要时间。
#
# 还有一件事要知道：在 CPU 上，本书全用 32 位浮点数（float32）计算，它只有约 7 位有效数字。<!-- by: round(-math.log10(2**-24)) == 7 -->

# %%
one = torch.tensor(1.0)
assert one + 1e-8 == one  # too small to be seen
assert one + 1e-6 != one
print(f"{torch.finfo(torch.float32).eps:.1e}")

# %% [markdown]
# 所以，换一台机器、换一种加法的次序，第 7 位之后就会不同，几百步训练之后，模型也会略有不同。书里说到训练结果的句子，数字因此都由代码填进去：你在自己的机器上运行，读到的就是你的模型。在每台机器上都该成立的话，旁边有 `assert` 守着，不成立就会报错。
#
# ## 手算
#
# 安装的时候，我们先用纸笔做一个语言模型。
#
# **语言模型**（language model）只做一件事：看着前面的文字，给下一个字的每一种可能一个概率，$p(\text{下一个} \mid \text{前面})$。只要会这一件事，就会给整句话打分（把每个字的概率乘起来），也会写字（按概率挑一个字，接上去，再来一遍）。
# 本书的模型和几千亿参数的模型都是这样的东西；预训练、SFT、DPO 只是一次次改动这些概率。
#
# 最简单的办法是数数。下面是五句话组成的**语料**（corpus）：
#
# > 我爱苹果。　我爱西瓜。　他爱苹果。　我吃苹果。　他吃西瓜。
#
# 假定下一个字只和前一个字有关，这叫二元模型，是 **n 元模型**（n-gram model）的一种。数一数，谁后面跟着谁：
#
# | 前一个字 | 后面的字与次数 | 概率 |
# |---|---|---|
# | 句首 | 我 3，他 2 | $\tfrac35, \tfrac25$ |
# | 我 | 爱 2，吃 1 | $\tfrac23, \tfrac13$ |
# | 他 | 爱 1，吃 1 | $\tfrac12, \tfrac12$ |
# | 爱 | 苹 2，西 1 | $\tfrac23, \tfrac13$ |
# | 吃 | 苹 1，西 1 | $\tfrac12, \tfrac12$ |
# | 苹 | 果 3 | 1 |
# | 西 | 瓜 2 | 1 |
# | 果 | 。3 | 1 |
# | 瓜 | 。2 | 1 |
#
# “他爱西瓜。”不在语料里。模型给它的概率是
#
# $$p = \underbrace{\tfrac25}_{他} \times \underbrace{\tfrac12}_{爱} \times \underbrace{\tfrac13}_{西} \times \underbrace{1}_{瓜} \times \underbrace{1}_{。} = \tfrac{1}{15}$$
#
# 没见过的句子，也得到了不小的概率：模型做到了**泛化**，而不只是背下来。
#
# 一个模型好不好，怎样用一个数来说？看它对真实的文字有多吃惊。一个字的概率是 $p$，吃惊的程度就是 $-\log_2 p$ 比特：一定会出现的，0 比特；像掷硬币的，1 比特。平均起来的吃惊叫**交叉熵**（cross-entropy）{cite:p}`shannon1948`。
#
# 平均到什么上？这一章按字猜，后面的模型按词元猜，字和词元长短不一。所以我们平均到谁都一样的东西上：UTF-8 编码的字节，一个汉字是 3 个。这叫**每字节比特数**（bits per byte）：
#
# ```{math}
# :label: eq-environment-entropy
# H = -\frac{1}{B} \sum_{i=1}^{N} \log_2 p(c_i \mid c_1, \dots, c_{i-1})
# ```
#
# $c_i$ 是第 $i$ 个字，$N$ 是字数，$B$ 是字节数。“他爱西瓜。”有 5 个字、15 个字节，$H = \tfrac1{15} \log_2 15 = 0.26$。如果什么都不知道，每个字都在 9 个字里瞎猜，就是 $\tfrac5{15} \log_2 9 = 1.06$。
#
# 交叉熵越低越好，它是全书最重要的一个数。{numref}`第 %s 章 <sec-pretrain>` 的损失就是它，只是平均到词元上，又换成自然对数，单位叫奈特。


# %%
def count(texts, n):
    """How often each string of up to n characters occurs; ^ stands for the start of a text."""
    table = Counter({"": sum(map(len, texts))})
    for text in texts:
        text = "^" + text
        table.update(text[i : i + k] for k in range(1, n + 1) for i in range(len(text) - k + 1))
    return table


table = count(["我爱苹果。", "我爱西瓜。", "他爱苹果。", "我吃苹果。", "他吃西瓜。"], 2)
assert (table["^我"], table["^他"], table["爱苹"], table["爱"]) == (3, 2, 2, 3)

sentence = "他爱西瓜。"
steps = [table[x + y] / table[x] for x, y in zip("^" + sentence, sentence, strict=False)]
surprise, size = -math.log2(math.prod(steps)), len(sentence.encode())
assert math.isclose(math.prod(steps), 1 / 15)
assert (size, round(5 * math.log2(9) / size, 2)) == (15, 1.06)
print(f"p = {math.prod(steps):.4f}, {surprise / size:.2f} bits per byte")

# %% [markdown]
# 这样数有一个毛病：“我爱他。”里的“爱他”一次也没有出现过，概率是 0，吃惊是无穷大。补救的办法叫**平滑**（smoothing）。我们用其中的插值（interpolation）：让少看一个字的模型也来投票，给它 5 票。
#
# ```{math}
# :label: eq-environment-smooth
# p(c \mid h) = \frac{\mathrm{count}(hc) + 5\,p(c \mid h')}{\mathrm{count}(h) + 5}
# ```
#
# $h$ 是前面的 $n-1$ 个字，$h'$ 是去掉最前面一个字的 $h$。$h$ 见过很多次，5 票算不了什么；$h$ 从没见过，就全听 $h'$ 的。$h$ 一个字也不剩时，$\mathrm{count}(h)$ 是总字数，5 票交给瞎猜的模型，它给每个字 $1/V$，$V$ 是字的种数。
#
# 代入 $V = 9$。语料共 25 个字，“他”有 2 个：$p(\text{他}) = (2 + \tfrac59)/(25 + 5) = 0.085$。“爱”有 3 个，后面从来不是“他”：$p(\text{他} \mid \text{爱}) = (0 + 5 \times 0.085)/(3 + 5) = 0.053$，不再是 0。


# %%
def probability(table, before, character, V):
    """Of a character after those before it: each context gives 5 votes to the shorter one."""
    p = 1 / V
    for start in range(len(before), -1, -1):
        h = before[start:]
        p = (table[h + character] + 5 * p) / (table[h] + 5)
    return p


assert table[""] == 25
assert math.isclose(probability(table, "", "他", 9), (2 + 5 / 9) / 30)
p = probability(table, "爱", "他", 9)
assert math.isclose(p, 5 * (2 + 5 / 9) / 30 / 8)
print(f"{p:.3f}")

# %% [markdown]
# ## 真实代码
#
# 数数的模型只属于这一章，它的代码都在本页。书里其余的东西都在 `minillm` 包里；笔记本只是调用它，并像下面这样显示它真正的源代码。先看形状和默认值，它们集中在一处：

# %%
show.source(config.ModelConfig)

# %% [markdown]
# 2,580 万参数的默认模型是给 GPU 的；本书用的是 `tiny` 这一套：<!-- by: round(25829888, -5) / 10000 == 2580 -->

# %%
tiny = config.MODELS["tiny"]
names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
show.table(
    ["", "default", "tiny"],
    [[n, getattr(config.ModelConfig(), n), getattr(tiny, n)] for n in names],
)

# %% [markdown]
# 每一章的第一个单元格都调用 `lab.start`：设好**随机种子**（random seed），印出版本。`lab.fresh` 用同一个种子造出那堆随机数：

# %%
show.source(lab.start, lab.fresh)

# %% [markdown]
# 后面的章要用到训练好的模型。它们只训练一次，存在 `.cache/` 里；文件夹的名字是代码、设置和数据的哈希值，改了其中任何一样，就会重新训练，绝不会拿旧的结果冒充。想一次备好：
#
# ```bash
# python -m minillm.book.lab   # pretraining, SFT and DPO of the tiny model: some minutes on 2 cores
# ```
#
# 任何一章都可以单独打开、单独运行，缺什么，`lab` 就先训练什么。
#
# `scripts/run.sh` 也用同样的办法避免重复劳动：装好依赖之后，它写下标记 `.venv/.deps_installed`，下次看到标记就不再安装。标记里记着什么？看脚本：

# %%
script = (lab.ROOT / "scripts" / "env.sh").read_text(encoding="utf-8")
first = script.index("# What the environment is made from")
print(script[first : script.index("# install_once MARKER")].strip())

# %% [markdown]
# 三个文件内容的哈希值，加上 Python 的版本和项目的位置。所以 `requirements.txt` 改了一个字，或者升级了 Python，它都会重新安装，不会悄悄跳过。
#
# ## 实验
#
# 现在把数数的办法用到真正的语料上。微世界的文本由程序写成，{numref}`第 %s 章 <sec-data>` 讲它怎样来；`lab.data()` 已经备好两份：84,263 篇用来数，另有 824 篇**留出集**（held-out set）用来打分，没有一篇在两边都出现。{numref}`第 %s 章 <sec-pretrain>` 的模型读的、考的，也是这两份。每篇末尾加一个结束符 `$`，它也要猜。


# %%
def texts(name):
    lines = (lab.data() / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] + "$" for line in lines]


training, held_out = texts("pretrain_chinese.jsonl"), texts("pretrain_chinese_val.jsonl")
assert not set(training) & set(held_out)
kinds = sorted(set("".join(training)))
V = len(kinds)
assert set("".join(held_out)) <= set(kinds)
held_out_bytes = sum(len(text[:-1].encode()) for text in held_out)

print(f"{len(training):,} texts, {sum(map(len, training)):,} characters of {V} kinds to count")
print(f"{len(held_out)} texts, {sum(map(len, held_out)):,} characters held out")
print(f"{held_out_bytes:,} bytes held out")
training[4]


# %%
def bits_per_byte(table, texts, n):
    """Cross-entropy of an n-gram model; the end mark is to be guessed, but has no bytes."""
    bits = 0
    for text in texts:
        text = "^" + text
        for i in range(1, len(text)):
            bits -= math.log2(probability(table, text[max(0, i - n + 1) : i], text[i], V))
    return bits / sum(len(text[:-1].encode()) for text in texts)


table = count(training, 5)
ns = [1, 2, 3, 4, 5]
scores = {0: math.log2(V) * sum(map(len, held_out)) / held_out_bytes}  # 0: knows nothing
scores |= {n: bits_per_byte(table, held_out, n) for n in ns}
assert all(scores[n] < scores[n - 1] for n in ns)
assert [round(scores[n], 2) for n in (0, 1, 2, 3)] == [3.32, 2.77, 1.05, 0.68]
print({n: round(score, 3) for n, score in scores.items()})

# %% mystnb={"figure": {"caption": "在留出的文本上，每字节要几个比特（{eq}`eq-environment-entropy`）。看得越远，吃惊越少。", "name": "fig-environment-bits"}, "image": {"alt": "五根横条，从上到下是瞎猜、一元、二元、三元、五元，一根比一根短"}}
bars = {"uniform": 0, "unigram": 1, "bigram": 2, "trigram": 3, "5-gram": 5}
assert all(scores[a] > scores[b] for a, b in ((0, 1), (1, 2), (2, 3), (3, 5)))
show.bars(
    {name: scores[n] for name, n in bars.items()},
    "bits per byte, held out",
    [show.GREY] + [show.COLOURS["other"]] * 4,
)

# %% [markdown]
# 从上到下读 {numref}`fig-environment-bits`：
#
# - **瞎猜**：503 种字一样可能，每字节 3.32 比特；
# - **一元**：知道哪些字常见，2.77 比特；
# - **二元**：再看前一个字，一下降到 1.05。<!-- by: assert [round(scores[n], 2) for n in (0, 1, 2, 3)] == [3.32, 2.77, 1.05, 0.68] -->微世界的句子很规整，一个字往往决定下一个字；<!-- by: assert all(scores[n] < scores[n - 1] for n in ns) -->
# - **三元**：看两个字，0.68；
# - **五元**：看四个字，0.458。
#
# 最后一个数是全书要打败的基线：一个词也不懂，只会数数，就能做到每字节 0.458 比特。后面的模型要低于它，才算学到了数数给不了的东西。{numref}`第 %s 章 <sec-pretrain>` 用同一份留出集、同一个单位来比。
#
# 真实的语言要难得多。{cite:t}`shannon1951prediction` 让人玩这个猜字游戏，估计出印刷英语每个字母约有 0.6 到 1.3 比特，而一个英文字母正好是一个字节。
#
# 语言模型也能写字。从句首开始，按概率挑一个字，接上，再挑，直到结束符：


# %%
def write(n, seed):
    """Draws one character after the other until the end mark; only what was seen, no smoothing."""
    rng, text = random.Random(seed), "^"
    while not text.endswith("$") and len(text) < 60:
        before = text[max(0, len(text) - n + 1) :]
        text += rng.choices(kinds, [table[before + c] for c in kinds])[0]
    return text.strip("^$")


written = {n: write(n, seed=4) for n in (1, 2, 3, 5)}
assert re.search("去公园。小鸭看见.*蓝色的勺子。小熊把勺子藏.*红色的勺子", written[5])
for n, text in written.items():
    print(f"{n}-gram:", text, end="\n\n")

# %% [markdown]
# 一元模型写的是一盘散沙。二元模型相邻的两个字都通顺，三个字以上就不知所云。三元模型已经有了词和短句，可是一句话的开头和结尾不是一回事。五元模型的短句都像样，合起来却对不上：去公园的是小鹿，看见勺子的是小鸭，藏勺子的又成了小熊，勺子也从蓝色变成了红色。<!-- by: assert re.search("去公园。小鸭看见.*蓝色的勺子。小熊把勺子藏.*红色的勺子", written[5]) -->
#
# 它们知道张静住在哪里吗？三元模型不可能知道：在它眼里，“张静住在”和“王勇住在”是同一个上文，“住在”。五元模型看得见四个字，“张静住在”正好四个。可是只要中间隔开一句，比如“张静最喜欢紫色。她住在”，它看见的就只有“。她住在”：

# %%
for before in ("住在", "张静住在", "。她住在"):
    after = {c: probability(table, before, c, V) for c in kinds}
    best = sorted(after, key=after.get, reverse=True)[:5]
    print(before, [(c, round(after[c], 2)) for c in best], f"北: {after['北']:.2f}")
    assert (after["北"] > 0.9) == (before == "张静住在")  # Zhang Jing lives in Beijing

# %% [markdown]
# 张静住在北京。第一行，三元模型只知道“住在”后面常有“哪里”和城市，“北”排不进前五，概率是 0.06。第二行，五元模型有 0.95 的把握。第三行隔了一句，把握又掉到 0.17，和给别的城市的相近。要在这里说对，就得看见更前面的“张静”。<!-- by: assert (after["北"] > 0.9) == (before == "张静住在") -->
#
# 办法好像很清楚：看得再远一些，六个字、七个字、十个字。下面就来试。
#
# ## 弄坏它
#
# ### 在训练数据上打分
#
# 只取 300 篇文本来数，让 $n$ 从 1 长到 7，同时在两处打分：数过的这 300 篇，和留出的 824 篇（{numref}`fig-environment-overfit`）。

# %%
small, longer = training[:300], [1, 2, 3, 4, 5, 6, 7]
few = count(small, 7)
on_counted = [bits_per_byte(few, small, n) for n in longer]
on_held_out = [bits_per_byte(few, held_out, n) for n in longer]
assert on_counted == sorted(on_counted, reverse=True)
assert min(on_held_out) == on_held_out[3]
assert (round(on_counted[6], 3), round(on_held_out[6], 2)) == (0.257, 1.03)
assert on_counted[6] < scores[5]
show.table(
    ["n", *map(str, longer)],
    [["counted, 300 texts", *on_counted], ["held out, 300 texts counted", *on_held_out]],
)

# %% mystnb={"figure": {"caption": "每字节比特数。数 300 篇：在数过的文字上（橙红），$n$ 越大越好；在留出的文字上（深蓝），过了 $n=4$ 就不再变好。数 84,263 篇（浅蓝），留出的文字上才继续往下走。", "name": "fig-environment-overfit"}, "image": {"alt": "横轴 n 从 1 到 7，三条线都从同一高度落下。数过的文字上的线一直往下；数 300 篇、在留出的文字上打分的线先降后平，最后远在它上面；数 84,263 篇、在留出的文字上打分的线画到 n=5，那里不到第二条的一半高"}}
assert on_held_out[6] > 3 * on_counted[6]
assert scores[5] < 0.5 * on_held_out[4]
show.lines(
    {
        "300 counted": (longer, on_counted),
        "300, held out": (longer, on_held_out),
        "84,263, held out": (ns, [scores[n] for n in ns]),
    },
    "n",
    "bits per byte",
    colours=[show.COLOURS["bad"], show.COLOURS["pretrain"], show.COLOURS["other"]],
    marker="o",
)

# %% [markdown]
# 只看数过的文字，七元模型出色极了：每字节 0.257 比特，比数了八万多篇的五元模型还低。在没见过的文字上，它要 1.03 比特，约四倍；从四元到七元，看得远了三个字，一点好处也没有。这就是**过拟合**（overfitting）：它把 300 篇背了下来，而背下来的那部分在别处用不上。<!-- by: assert (round(on_counted[6], 3), round(on_held_out[6], 2)) == (0.257, 1.03) -->
#
# 原因是表太大。七元模型要记住每一种“前六个字”，见过的只是极小的一部分；下表最后一列是留出的文字里，前面的字曾经见过的位置所占的比例：

# %%
rows = []
for n in (2, 3, 5, 7):
    places = [("^" + t)[max(0, i - n + 1) : i] for t in held_out for i in range(1, len(t) + 1)]
    known = sum(place in few for place in places) / len(places)
    seen = sum(len(h) == n - 1 and "$" not in h for h in few)
    rows.append([n, f"{float(V) ** (n - 1):.0e}", f"{seen:,}", f"{known:.2f}"])
assert float(rows[-1][-1]) < 0.5 < 0.9 < float(rows[0][-1])
assert (round(on_held_out[4], 2), round(scores[5], 3)) == (1.02, 0.458)
show.table(["n", "possible contexts", "contexts seen", "share known, held out"], rows)

# %% [markdown]
# 七元模型一半以上的时候遇到的是没见过的上文，只好退回去，听看得近的模型的。多数些文字当然有用：300 篇换成 84,263 篇，五元模型从 1.02 降到 0.458。可是每多看一个字，表就大 503 倍，文字跟不上。<!-- by: assert float(rows[-1][-1]) < 0.5 < 0.9 < float(rows[0][-1]) -->
#
# 毛病出在记账的办法：每一种上文单独记一笔，像的和不像的都互不相干。“张静最喜欢紫色。她住在”和“张静养了一只猫。她住在”，人一看就知道该接同一个城市。在看得够远的表里，它们是毫无关系的两格，各要各的次数；在看得不够远的表里，两处看见的都是“她住在”，又和别人的混在一起。
# {cite:t}`bengio2003nplm` 指出了出路：不要给每种上文单独记账，而是把字变成向量，让相似的上文共用参数，再用一个函数算出下一个字的概率。
# 从那时的小网络到今天的 Transformer（{numref}`第 %s 章 <sec-model>`），换的是函数，猜下一个字这件事还是那件事。
#
# 从这里带走一条规矩：**分数只在留出的数据上才算数。** 本书每一章的结果都这样量。
#
# ### 忘了种子
#
# 另一个常见的错误小得多，却更烦人：没有设随机种子。下面第一个单元格每次运行都不同，第二个永远相同：

# %% tags=["nbval-ignore-output"]
torch.seed()  # what happens when nobody sets one
print("unseeded", torch.rand(3))

# %%
torch.manual_seed(42)
x = torch.rand(3)
torch.manual_seed(42)
assert torch.equal(torch.rand(3), x)
print("seeded  ", x)

# %% [markdown]
# 没有种子，你就分不清“改动有用”和“运气好”。本书凡是随机的地方都有固定的种子；即使如此，小的差别也要多跑几个种子才能相信。想试另一个，先设环境变量 `MINILLM_SEED=7`，再打开笔记本：数据不变，权重和训练的次序都换一套。
#
# ## 收尾
#
# 模型还是那堆随机数，但我们有了三样东西：能用的环境，一把尺子（留出集上的每字节比特数），和一条要打败的基线，表的最后一行：

# %%
names = {0: "瞎猜", 2: "二元", 3: "三元", 5: "五元，基线"}
assert round(scores[5], 3) == 0.458
show.table(["", "每字节比特数"], [[name, f"{scores[n]:.3f}"] for n, name in names.items()])

# %% [markdown]
# 下一章（{numref}`第 %s 章 <sec-data>`）走进微世界，看看数据是怎样配出来的。
#
# ### 小结
#
# - `bash scripts/run.sh --preset tiny` 建好环境，训练出一个小模型；`--smoke-test` 只证明每个阶段都能运行。装过的不会再装。
# - 语言模型给出下一个字的概率；会这一件事，就会给句子打分，也能写字。
# - 交叉熵是平均的吃惊程度，本书用每字节比特数，越低越好。
# - n 元模型靠数数：n 小了看不远，n 大了没见过，只好退回短一点的上文；相似的上文之间什么也不共用。
# - 分数只在留出的数据上算数；随机的地方要有种子。
#
# ### 练习
#
# :::{exercise}
# :label: ex-environment-1
# 算一算：用手算的五句话，“我吃西瓜。”的概率是多少（不平滑）？每字节几比特？
# :::
#
# :::{solution} ex-environment-1
# :class: dropdown
# $\tfrac35 \times \tfrac13 \times \tfrac12 \times 1 \times 1 = \tfrac1{10}$；$\tfrac1{15} \log_2 10 = 0.22$ 比特，比“他爱西瓜。”少一点：“我”比“他”常见。<!-- by: round(math.log2(10) / 15, 2) == 0.22 -->
# :::
#
# :::{exercise}
# :label: ex-environment-2
# 写代码：最老的平滑不问短的上文，只给每种可能都加一点点 $k$：$p(c \mid h) = (\mathrm{count}(hc) + k)/(\mathrm{count}(h) + kV)$。取 $k = 0.001$，用 300 篇的表，把留出集上从一元到七元的分数再算一遍。和插值差在哪里？
# :::
#
# :::{solution-start} ex-environment-2
# :class: dropdown
# :::

# %%
places = [("^" + text, i) for text in held_out for i in range(1, len(text) + 1)]
add_k = []
for n in longer:
    bits = 0
    for text, i in places:
        h = text[max(0, i - n + 1) : i]
        bits -= math.log2((few[h + text[i]] + 0.001) / (few[h] + 0.001 * V))
    add_k.append(bits / held_out_bytes)
assert add_k[6] > 1.8 * add_k[1] > 1.8 * on_held_out[6]
show.table(["n", *map(str, longer)], [["add k", *add_k], ["interpolation", *on_held_out]])

# %% [markdown]
# 加 $k$ 的分数过了二元就往上走，七元比二元差得多；插值的却是平的。两边数出来的次数一样，差的只是没见过时怎么办：加 $k$ 把票平均分给 503 种字，插值把票交给短一点的上文。所以看到“$n$ 大了反而差”，先怀疑平滑。<!-- by: assert add_k[6] > 1.8 * add_k[1] > 1.8 * on_held_out[6] -->
#
# :::{solution-end}
# :::
#
# :::{exercise}
# :label: ex-environment-3
# 弄坏它：把数过的 300 篇混进留出集里，再给七元模型打分。分数会变成什么样？怎样防止这种事？
# :::
#
# :::{solution-start} ex-environment-3
# :class: dropdown
# :::

# %%
leaked = bits_per_byte(few, held_out + small, 7)
assert leaked < on_held_out[-1] - 0.15
print(f"{on_held_out[-1]:.2f} bits per byte clean, {leaked:.2f} leaked")

# %% [markdown]
# 分数好看了许多，模型一点没变。这叫数据泄漏。防止的办法是按内容划分，而不是随手抽样，再检查两边有没有相同的文字；读入数据时的那句 `assert not set(training) & set(held_out)` 就是为此。
#
# :::{solution-end}
# :::
#
# :::{exercise}
# :label: ex-environment-4
# 想一想：三元模型在“8加4等于”后面能写对答案吗？二十元模型呢？
# :::
#
# :::{solution} ex-environment-4
# :class: dropdown
# 三元模型只看得见“等于”两个字，前面是几加几它不知道，只能写最常见的数。二十元模型看得见整个式子，但只会答一字不差地见过的题；没见过的数对，它一无所知。要答对没见过的题，就得从相似的题里学到规律，这正是数数做不到的。
# :::
#
# ### 延伸阅读
#
# - {cite:t}`shannon1948`：信息与熵的由来；其中就有用 n 元模型写出的英语。
# - {cite:t}`shannon1951prediction`：让人来猜下一个字母，用猜的次数估计语言的熵。
# - {cite:t}`bengio2003nplm`：用神经网络做语言模型的开端，引言把数数的困境讲得很清楚。
