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
# - **需要时间**：安装约 10 分钟（看网速），本章运行约 20 秒。
# - **需要内存**：2 GB。
# - **用到的模块**：`minillm.lab`、`minillm.show`、`minillm.config`、`minillm.world`。
# :::

# %%
import math
import random
import time
from collections import Counter

import psutil
import torch

from minillm import config, lab, show, world

lab.start()

# %% [markdown]
# ## 开场
#
# 这本书只训练一个模型，从第一页到最后一页。它有 87 万个参数，生活在一个很小的中文世界里：48 个人物、20 种商品、20 以内的算术。每过一章，我们都问它同样的三句话。
# 今天它还是一堆随机数：

# %% tags=["nbval-ignore-output"]
show.spine({"fresh": lab.showcase(lab.fresh())})

# %% [markdown]
# 它只会把一个词元重复到底。到 {numref}`第 %s 章 <sec-dpo>`，同样的三句话都会答对，至少前两句还会带上一句客气话。全书的路线见 {numref}`fig-environment-map`。

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
# 你需要：git，Python 3.10 或更新的版本，4 GB 磁盘（PyTorch 的 CPU 版；带 CUDA 的要 8 GB），2 GB 空闲内存，两个 CPU 核。**不需要 GPU。** 取到源代码之后，在项目的文件夹里运行：
#
# ```bash
# bash scripts/run.sh --smoke-test   # every stage for a few steps: about two minutes on 2 cores, plus the download
# bash scripts/test.sh               # every test
# ```
#
# 第一条命令把整条流水线走一遍：建环境、配数据、预训练、SFT、DPO，每个阶段只走几步，证明样样能用。它不会学到东西；真正训练是 `bash scripts/run.sh --preset tiny`，几分钟。
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
# 没有 GPU 时，不必下载带 CUDA 的 PyTorch：建好 `.venv`，先按 PyTorch 官网 “Get Started” 页面的 CPU 命令装 2.10 或更新的 `torch`，再运行 `scripts/run.sh`，它会保留你装的这一份。
#
# 读这本书也有两种方法。想边读边运行，用 JupyterLab 或 VS Code 打开 `book/` 里的笔记本，内核选 `.venv` 里的 Python；想只读，`bash scripts/book.sh --serve` 会在本机打开网页。出了问题，先查 {ref}`sec-faq`。
#
# ### 你的机器有多快
#
# 训练几乎全是矩阵乘法。两个 $n \times n$ 的矩阵相乘要 $2n^3$ 次浮点运算，除以时间，就是这台机器的速度：

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
# 用这个数除以你的机器的速度，就是预训练时间的下限。实际要多几倍，因为小矩阵喂不饱处理器，注意力、损失和优化器也要时间。
#
# 还有一件事要知道：在 CPU 上，本书全用 32 位浮点数（float32）计算，它只有约 7 位有效数字。

# %%
one = torch.tensor(1.0)
assert one + 1e-8 == one  # too small to be seen
assert one + 1e-6 != one
print(f"{torch.finfo(torch.float32).eps:.1e}")

# %% [markdown]
# 所以，换一台机器、换一种加法的次序，第 7 位之后就会不同，几百步训练之后，模型也会略有不同。书里凡是训练出来的数，检查时都留了余地；你看到的数和书上差一点，是正常的。
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
# 没见过的句子，也得到了不小的概率：模型**概括**了，而不只是背下来。
#
# 一个模型好不好，怎样用一个数来说？看它对真实的文字有多吃惊。一个字的概率是 $p$，吃惊的程度就是 $-\log_2 p$ 比特：一定会出现的，0 比特；一半的机会，1 比特。对整段文字取平均，就是**交叉熵**（cross-entropy）{cite:p}`shannon1948`：
#
# ```{math}
# :label: eq-environment-entropy
# H = -\frac{1}{N} \sum_{i=1}^{N} \log_2 p(c_i \mid c_1, \dots, c_{i-1})
# ```
#
# $c_i$ 是第 $i$ 个字，$N$ 是字数。对“他爱西瓜。”，$H = \tfrac15 \log_2 15 = 0.78$ 比特每字。如果什么都不知道，9 个字里瞎猜，就是 $\log_2 9 = 3.17$ 比特。交叉熵越低越好，它是全书最重要的一个数，{numref}`第 %s 章 <sec-pretrain>` 的损失就是它（只是换成自然对数，单位叫奈特）。


# %%
def count(texts, n):
    """How often each n characters, and each n - 1 before another, occur; ^ is the start."""
    grams, contexts = Counter(), Counter()
    for text in texts:
        text = "^" * (n - 1) + text
        for i in range(n - 1, len(text)):
            grams[text[i - n + 1 : i + 1]] += 1
            contexts[text[i - n + 1 : i]] += 1
    return grams, contexts


grams, contexts = count(["我爱苹果。", "我爱西瓜。", "他爱苹果。", "我吃苹果。", "他吃西瓜。"], 2)
assert (grams["^我"], grams["^他"], grams["爱苹"], contexts["爱"]) == (3, 2, 2, 3)

sentence = "他爱西瓜。"
p = [grams[x + y] / contexts[x] for x, y in zip("^" + sentence, sentence, strict=False)]
assert math.isclose(math.prod(p), 1 / 15)
print(f"p = {math.prod(p):.4f}, {-math.log2(math.prod(p)) / len(sentence):.2f} bits per character")

# %% [markdown]
# 这样数有一个毛病：“我爱他。”里的“爱他”一次也没有出现过，概率是 0，吃惊是无穷大。补救的办法是给每种可能都预先加上一点点 $k$，叫**平滑**（smoothing）：
#
# ```{math}
# :label: eq-environment-smooth
# p(c \mid h) = \frac{\mathrm{count}(hc) + k}{\mathrm{count}(h) + kV}
# ```
#
# $h$ 是前面的 $n-1$ 个字，$V$ 是字的种数。取 $k = 0.01$、$V = 9$，$p(\text{他} \mid \text{爱}) = 0.01 / (3 + 0.09) = 0.0032$，不再是 0。

# %%
p = (grams["爱他"] + 0.01) / (contexts["爱"] + 0.01 * 9)
assert math.isclose(p, 0.01 / 3.09)
print(f"{p:.4f}")

# %% [markdown]
# ## 真实代码
#
# 数数的模型只属于这一章，它的代码都在本页。书里其余的东西都在 `minillm` 包里；笔记本只是调用它，并像下面这样显示它真正的源代码。先看形状和默认值，它们集中在一处：

# %%
show.source(config.ModelConfig)

# %% [markdown]
# 2,580 万参数的默认模型是给 GPU 的；本书用的是 `tiny` 这一套：

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
# python -m minillm.lab   # pretraining, SFT and DPO of the tiny model: some minutes on 2 cores
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
# 现在把数数的办法用到真正的语料上。微世界的文档由程序按种子生成（{numref}`第 %s 章 <sec-data>`）。取 5,000 篇来数，另取 500 篇**留出集**（held-out set）来打分；凡是和前者一字不差的，先剔掉。每篇末尾加一个结束符 `$`，它也要猜。

# %%
training = [text + "$" for text in world.documents(5000, seed=0)]
seen = set(training)
fresh = (text + "$" for text in world.documents(600, seed=1))
held_out = [text for text in fresh if text not in seen][:500]
characters = Counter("".join(training))
V = len(characters)
assert set("".join(held_out)) <= set(characters)

print(f"{sum(characters.values()):,} characters of {V} kinds to count")
print(f"{sum(map(len, held_out)):,} held out")
training[4]


# %%
def bits(model, texts, n, k):
    """Cross-entropy in bits per character, with k added to every count."""
    grams, contexts = model
    total = length = 0
    for text in texts:
        text = "^" * (n - 1) + text
        for i in range(n - 1, len(text)):
            before = text[i - n + 1 : i]
            p = (grams[before + text[i]] + k) / (contexts[before] + k * V)
            total -= math.log2(p)
            length += 1
    return total / length


models = {n: count(training, n) for n in (1, 2, 3)}
scores = {n: bits(model, held_out, n, 0.01) for n, model in models.items()}
assert math.log2(V) - 1 > scores[1] > scores[2] + 4 > scores[3] + 4.5

# %% mystnb={"figure": {"caption": "在留出的文档上，每个字平均要几个比特（{eq}`eq-environment-entropy`）。知道得越多，吃惊越少。", "name": "fig-environment-bits"}, "image": {"alt": "四根横条：瞎猜 8.97，一元 7.38，二元 2.84，三元 2.00 比特每字"}}
show.bars(
    {
        "uniform": math.log2(V),
        "unigram": scores[1],
        "bigram": scores[2],
        "trigram": scores[3],
    },
    "bits per character, held out",
    [show.GREY] + [show.COLOURS["other"]] * 3,
)

# %% [markdown]
# 从上到下读 {numref}`fig-environment-bits`：
#
# - **瞎猜**：所有的字一样可能，$\log_2 503 = 8.97$ 比特；
# - **一元**：知道哪些字常见，省下约 1.6 比特；
# - **二元**：再看前一个字，一下省下 4.5 比特。微世界的句子很规整，一个字往往决定下一个字；
# - **三元**：再看两个字，又省下 0.8 比特。
#
# 真实的语言要难得多。{cite:t}`shannon1951prediction` 让人玩这个猜字游戏，估计出印刷英语每个字母约有 0.6 到 1.3 比特；汉字的种数比字母多得多，每字的比特数自然更大。
#
# 语言模型也会写字。从句首开始，按概率挑一个字，接上，再挑，直到结束符：


# %%
def write(model, n, seed):
    """Draws one character after the other until the end mark."""
    grams, rng, text = model[0], random.Random(seed), "^" * (n - 1)
    while not text.endswith("$") and len(text) < 60:
        before = text[len(text) - n + 1 :]
        weights = [grams[before + c] for c in characters]
        text += rng.choices(list(characters), weights)[0]
    return text.strip("^$")


for n in models:
    print(f"{n}-gram:", write(models[n], n, seed=6), end="\n\n")

# %% [markdown]
# 一元模型写的是一盘散沙。二元模型相邻的两个字都通顺，三个字以上就不知所云。三元模型已经有了词和短句，可是一句话的开头和结尾不是一回事。
#
# 它也不可能知道张静住在哪里。在它眼里，“张静住在”和“王勇住在”是同一个上文：“住在”。

# %%
grams, contexts = models[3]
after = {c: grams["住在" + c] / contexts["住在"] for c in characters}
print([(c, round(after[c], 2)) for c in sorted(after, key=after.get, reverse=True)[:5]])
assert after["北"] < 0.2  # Zhang Jing lives in Beijing

# %% [markdown]
# 张静住在北京，模型给“北”的概率和给别的城市的差不多：它只知道“住在”后面常有城市，或者“哪里”。要答对，就得看见更前面的“张静”。
#
# 办法好像很清楚：看得再远一些，四个字、五个字、十个字。下面就来试。
#
# ## 弄坏它
#
# ### 在训练数据上打分
#
# 只取 300 篇文档来数，让 $n$ 从 1 长到 7，同时在两处打分：数过的这 300 篇，和留出的 500 篇（{numref}`fig-environment-overfit`）。

# %% mystnb={"figure": {"caption": "同一个模型，两种打分。在数过的文字上，$n$ 越大越好；在留出的文字上，过了 $n=3$ 就越来越差。", "name": "fig-environment-overfit"}, "image": {"alt": "横轴 n 从 1 到 7。训练文字上的曲线从 7.4 一路降到 0.7；留出文字上的先从 7.4 降到 3.5，再升到 6.2。"}}
small, ns = training[:300], list(range(1, 8))
few = {n: count(small, n) for n in ns}
on_training = [bits(few[n], small, n, 0.001) for n in ns]
on_held_out = [bits(few[n], held_out, n, 0.001) for n in ns]
assert on_training[-1] < 1.0
assert on_held_out[-1] > 5.5
assert min(on_held_out) == on_held_out[2]
show.lines(
    {"counted": (ns, on_training), "held out": (ns, on_held_out)},
    "n",
    "bits per character",
    colours=[show.COLOURS["bad"], show.COLOURS["pretrain"]],
    marker="o",
)

# %% [markdown]
# 只看下面的线，七元模型近乎完美：每字 0.7 比特。上面的线说出真相：在没见过的文字上它要 6.2 比特，比只看一个字的二元模型（3.5）差得多。这就是**过拟合**（overfitting）：它把 300 篇背了下来，什么也没学会。
#
# 原因是表太大。七元模型要记住每一种“前六个字”，见过的只是极小的一部分；下表最后一列是留出的文字里，前面的字曾经见过的位置所占的比例：

# %%
rows = []
for n in (2, 3, 5, 7):
    places = [text[i - n + 1 : i] for text in held_out for i in range(n - 1, len(text))]
    known = sum(place in few[n][1] for place in places) / len(places)
    rows.append([n, f"{float(V) ** (n - 1):.0e}", f"{len(few[n][1]):,}", f"{known:.2f}"])
assert float(rows[-1][-1]) < 0.5 < 0.9 < float(rows[0][-1])
show.table(["n", "possible contexts", "contexts seen", "share known, held out"], rows)

# %% [markdown]
# 数数的模型要么只看眼前，要么什么都没见过。{cite:t}`bengio2003nplm` 指出了出路：不要给每种上文单独记账，而是把字变成向量，让相似的上文共用参数，再用一个函数算出下一个字的概率。
# 从那时的小网络到今天的 Transformer（{numref}`第 %s 章 <sec-model>`），变的是函数，猜下一个字这件事没有变。
#
# 从这里带走一条规矩：**分数只在留出的数据上才算数。** 本书每一章的结果都这样量。
#
# ### 忘了种子
#
# 另一个常见的错误小得多，却更烦人：忘了设随机种子。下面第一行每次运行都不同，第二行永远相同：

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
# 没有种子，你就分不清“改动有用”和“运气好”。本书的每个数都有固定的种子；即使如此，小的差别也要多跑几个种子才能相信。
#
# ## 收尾
#
# 模型还是那堆随机数，但我们有了三样东西：能用的环境，一把尺子（留出数据上每字的比特数），和一条要打败的基线：
#
# | 看几个字 | 留出的文档上，每字的比特数 |
# |---|---|
# | 瞎猜 | 8.97 |
# | 二元 | 2.84 |
# | 三元 | 2.00 |
#
# 下一章（{numref}`第 %s 章 <sec-data>`）走进微世界，看看数据是怎样配出来的。
#
# ### 小结
#
# - `bash scripts/run.sh --smoke-test` 建好环境，并证明每个阶段都能运行；装过的不会再装。
# - 语言模型给出下一个字的概率；会这一件事，就会给句子打分，也会写字。
# - 交叉熵是平均的吃惊程度，单位是比特每字，越低越好。
# - n 元模型靠数数：n 小了看不远，n 大了没见过；平滑只能救急。
# - 分数只在留出的数据上算数；随机的地方要有种子。
#
# ### 练习
#
# :::{exercise}
# :label: ex-environment-1
# 算一算：用手算的五句话，“我吃西瓜。”的概率是多少？每字几比特？困惑度（perplexity）是 $2^H$，又是多少？
# :::
#
# :::{solution} ex-environment-1
# :class: dropdown
# $\tfrac35 \times \tfrac13 \times \tfrac12 \times 1 \times 1 = \tfrac1{10}$；$\tfrac15 \log_2 10 = 0.66$ 比特；困惑度 $2^{0.66} = 1.58$：平均每一步像在 1.58 个字里挑一个。
# :::
#
# :::{exercise}
# :label: ex-environment-2
# 写代码：平滑的 $k$ 应该取多大？用 5,000 篇数出来的三元模型，在留出集上试 $k$ = 1、0.1、0.01、0.001，哪个最好？
# :::
#
# :::{solution-start} ex-environment-2
# :class: dropdown
# :::

# %%
tried = {k: bits(models[3], held_out, 3, k) for k in (1, 0.1, 0.01, 0.001)}
assert min(tried, key=tried.get) in (0.01, 0.001)
{k: round(value, 2) for k, value in tried.items()}

# %% [markdown]
# $k = 1$ 太大：503 个字各加 1，把数出来的次数都冲淡了。但要留心：用留出集挑了 $k$，留出集的分数就不再完全干净。讲究的做法是再留一份，专门用来挑。
#
# :::{solution-end}
# :::
#
# :::{exercise}
# :label: ex-environment-3
# 弄坏它：把 300 篇文档混进留出集里，再给七元模型打分。分数会变成什么样？怎样防止这种事？
# :::
#
# :::{solution-start} ex-environment-3
# :class: dropdown
# :::

# %%
leaked = bits(few[7], held_out + small, 7, 0.001)
assert leaked < on_held_out[-1] - 1.5
print(f"{on_held_out[-1]:.2f} bits clean, {leaked:.2f} bits leaked")

# %% [markdown]
# 分数好看了许多，模型一点没变。这叫数据泄漏。防止的办法是按内容划分，而不是随手抽样，再检查两边有没有相同的文字；本章开头剔掉一字不差的文档，就是为此。
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
# 三元模型只看得见“等于”（甚至只有最后两个字），前面是几加几它不知道，只能写最常见的数。二十元模型看得见整个式子，但只会答一字不差地见过的题；没见过的数对，它一无所知。要答对没见过的题，就得从相似的题里学到规律，这正是数数做不到的。
# :::
#
# ### 延伸阅读
#
# - {cite:t}`shannon1948`：信息与熵的由来；其中就有用 n 元模型写出的英语。
# - {cite:t}`shannon1951prediction`：让人来猜下一个字母，用猜的次数估计语言的熵。
# - {cite:t}`bengio2003nplm`：用神经网络做语言模型的开端，引言把数数的困境讲得很清楚。
