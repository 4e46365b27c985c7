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
# (sec-scale)=
# # 走向真实规模
#
# :::{admonition} 本章
# :class: tip
#
# - **你将学会**：从配置算出参数、计算量、显存和时间；量一量自己的机器；验证梯度累积和多进程训练算的是同一件事；看懂小模型的跑分有多大误差；把数据分成许多份；算出租机器的账单，知道一台机器之后用什么。
# - **需要时间**：阅读 60 分钟，可以分三次；运行约 1 分钟。
# - **需要内存**：1.5 GB。
# - **用到的模块**：`minillm.config`、`minillm.training.loop`、`minillm.training.objectives`、`minillm.data.shards`、`minillm.data.importer`、`minillm.data.mix`、`minillm.evaluate`。
# :::

# %%
import io
import json
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import cache
from itertools import islice, pairwise
from pathlib import Path

# %%
from minillm import ModelConfig, RustBPETokenizer, Transformer, evaluate
from minillm.book import lab, show, tasks
from minillm.book.drawings import scale
from minillm.config import MODELS, TRAINING
from minillm.data import hubs, mix
from minillm.data.formats import convert
from minillm.data.rows import plain_text, to_messages
from minillm.data.shards import find_shards
from minillm.errors import UserError
from minillm.microworld import lessons
from minillm.training import dataset, loop, objectives, optimizers, packing

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

lab.start()

# %% [markdown]
# ## 开场
#
# 流水线走完了一遍（{numref}`第 %s 章 <sec-pipeline>`）。小模型现在这样回答：

# %% tags=["nbval-ignore-output"]
show.spine({"identity": lab.showcase(lab.identity().model())})

# %% [markdown]
# 它有 869,504 个参数，知道 48 个人的小世界，此外什么也没有读过。
# 这一章讲世界变成真的以后，什么会变：参数、数据、时间、内存、机器。
#
# 这一章长，可以分三次读：算账（开头到“带掩码的注意力”）；验证（梯度累积、多进程、分片、跑分）；动手（一台机器之后、清洗、租机器、换语料）。不打算租机器的，最后那一部分用到再翻。<!-- by: reasoning -->
#
# 先说清楚数字的来历。本章的测量都在运行这一页的 CPU 上做，没有用 GPU。关于 GPU 的数字只有三种：用公式算的；厂商标称的峰值；别人公布的测量，都注明出处。
#
# ## 手算
#
# ### 参数
#
# {numref}`第 %s 章 <sec-model>` 一项一项数过：小模型 869,504 个，默认模型 25,829,888 个。这个数记作 $N$，下面一切都从它算起。


# %%
@cache
def parameters(config: ModelConfig) -> int:
    with torch.device("meta"):  # shapes only, no memory
        return Transformer(config).num_parameters()


TINY, DEFAULT = MODELS["tiny"], ModelConfig()
assert (parameters(TINY), parameters(DEFAULT)) == (869_504, 25_829_888)

# %% [markdown]
# ### 计算量
#
# 训练一个词元要多少次运算？一个参数在前向传播里做一次乘、一次加，共 2 次；反向传播要算两个梯度（对输入的、对参数的），共 4 次。合计每个参数 6 次 {cite:p}`kaplan2020scaling`。
# 注意力还要给每一对位置打分、加权，这部分与参数无关 {cite:p}`chowdhery2022palm`：
#
# ```{math}
# :label: eq-scale-flops
# F = 6N + 12\,L\,C\,T
# ```
#
# $F$ 是每个词元的浮点运算次数，$N$ 是参数，$L$ 是层数，$C$ 是宽度，$T$ 是序列长度。12 的来历：打分和加权各 $2CT$ 次，前向一份、反向两份，$2 \times 2 \times 3 = 12$。<!-- by: 2 * 2 * 3 == 12 -->
#
# 两点要交代。输入时查嵌入表，什么也不乘；可是同一张表在输出时要整张乘一遍，所以 $N$ 里算它一次，正好。因果掩码遮住了一半的位置，照理注意力只要一半；通行的算法仍按整个 $T$ 计，本书也照办，好和别人的数字比。<!-- by: @chowdhery2022palm -->
#
#
# 小模型（$T=128$）：$6 \times 869504 + 12 \times 4 \times 128 \times 128 = 5217024 + 786432 = 6003456$，约 6 百万次。
# 默认模型（$T=512$）：$6 \times 25829888 + 12 \times 8 \times 512 \times 512 = 154979328 + 25165824 = 180145152$，约 1.8 亿次，是小模型的 30 倍。<!-- by: round(180145152 / 1e8, 1) == 1.8 --><!-- by: round(180145152 / 6003456) == 30 -->


# %%
def flops_per_token(c: ModelConfig, length: int) -> int:
    attention = 12 * c.num_hidden_layers * c.hidden_size * length
    return 6 * parameters(c) + attention


assert flops_per_token(TINY, 128) == 6_003_456
assert flops_per_token(DEFAULT, 512) == 180_145_152
round(flops_per_token(DEFAULT, 512) / flops_per_token(TINY, 128), 1)

# %% [markdown]
# ### 时间
#
# 机器标称的峰值，训练时用得上多少？这个比例叫**模型浮点利用率**（model FLOPs utilization，MFU）：
#
# ```{math}
# :label: eq-scale-mfu
# \text{MFU} = \frac{F \times \text{词元/秒}}{\text{峰值（次/秒）}},
# \qquad
# \text{小时} = \frac{F \times \text{词元数}}{\text{峰值} \times \text{MFU} \times 3600}
# ```
#
# 拿别人的测量练手。nanochat {cite:p}`karpathy2025nanochat` 的 `dev/LEADERBOARD.md` 记着每一次“追上 GPT-2”的训练。第一次在 2026 年 1 月 29 日：总计算量 $4.3308 \times 10^{19}$ 次，8 张 H100 用了 10,949 秒，即 3.04 小时。H100 的 bf16 峰值厂商标称 $989 \times 10^{12}$ 次/秒。于是
# $4.3308 \times 10^{19} / (10949 \times 8 \times 989 \times 10^{12}) = 0.50$。标称峰值用上了 50%，是很好的成绩。{cite:t}`chowdhery2022palm` 报告的是 46%。
#
# 这 3.04 小时后来一再被打破，同年 3 月的第六次只要 1.65 小时，换过数据、精度和结构。只有第一次连同总计算量一起公布，所以用它。<!-- by: assert round(hours(4.3308e19, 8 * 989e12, 0.50), 2) == 3.04 --><!-- by: round(99 / 60, 2) == 1.65 -->


# %%
def hours(flops: float, peak: float, mfu: float) -> float:
    return flops / (peak * mfu * 3600)


published_mfu = 4.3308e19 / (10949.467 * 8 * 989e12)
assert round(published_mfu, 2) == 0.50
assert round(hours(4.3308e19, 8 * 989e12, 0.50), 2) == 3.04
round(published_mfu, 3)

# %% [markdown]
# ### 内存
#
# 训练时每个参数占多少字节？权重、梯度、Muon 的动量 {cite:p}`jordan2024muon`，都是 4 字节的 fp32，共 12 字节。嵌入表和归一化的权重归 AdamW {cite:p}`loshchilov2019adamw`，它有两个动量，共 16 字节。默认模型的嵌入表有 $6400 \times 512 = 3276800$ 个，17 个归一化各 512 个，合计 3,285,504 个归 AdamW，其余 22,544,384 个归 Muon：$12 \times 22544384 + 16 \times 3285504 = 323$ MB。不多。
#
# 真正占内存的是**激活**（activation）：前向传播的中间结果要留到反向传播。光是输出层的打分 `[B, T, V]`，默认一次前向 32 行、每行 512 个词元，就有 $32 \times 512 \times 6400 \times 4 = 419$ MB，比上面的总和还大。在支持 bfloat16 的 GPU 上，打分是 16 位的；算损失时分批转成 fp32，fp32 的整份副本从不存在（{numref}`第 %s 章 <sec-pretrain>`的 `cross_entropy`）。<!-- by: minillm/training/objectives.py -->


# %%
def by_optimizer(preset: str) -> list[int]:
    """Numbers of parameters that Muon trains, and AdamW."""
    model = Transformer(MODELS[preset])
    return [
        sum(p.numel() for group in optimizer.param_groups for p in group["params"])
        for optimizer in optimizers.make_optimizers(model, TRAINING[preset]["pretrain"])
    ]


by_muon, by_adamw = by_optimizer("default")
assert (by_muon, by_adamw) == (22_544_384, 3_285_504)
state_bytes = 12 * by_muon + 16 * by_adamw
logit_bytes = 32 * 512 * DEFAULT.vocab_size * 4
assert (round(state_bytes / 1e6), round(logit_bytes / 1e6)) == (323, 419)
print(
    f"weights, gradients, momenta: {state_bytes / 1e6:.0f} MB; logits: {logit_bytes / 1e6:.0f} MB"
)

# %% [markdown]
# ### 一步，几个进程分着做
#
# 一张卡太慢，就用几张。最省事的分法是**数据并行**（data parallelism）：模型人手一份，行分开。每个进程用自己的行做前向和反向，交出梯度，拿回大家的总和，再照总和走一步。开头权重相同，走的步子也相同，权重就一直相同。<!-- by: reasoning -->
#
# 拿一个权重来算。它现在是 0.50，学习率是 1。0 号进程的两行里有 6 个要学的词元，梯度加起来是 +1.2；1 号的两行只有 2 个要学的，加起来是 −0.4：

# %%
tokens, sums = [6, 2], [1.2, -0.4]
step = sum(sums) / sum(tokens)
each = [total / count for total, count in zip(sums, tokens, strict=True)]
assert round(step, 6) == 0.1
assert [round(mean, 6) for mean in each] == [0.2, -0.2]
print(f"sum first: {step:.1f}; mean of the means: {abs(sum(each)) / 2:.1f}")

# %% tags=["hide-input"] mystnb={"figure": {"caption": "数据并行的一步，只看一个权重。", "name": "fig-scale-together"}, "image": {"alt": "两列，一列一个进程：各自的两行，同样的权重，自己的梯度和词元个数；中间一条是全规约，把两边的相加；最后两边除以同一个总数，得到同样的新权重"}}
scale.together([2, 2], tokens, sums, weight=0.5, rate=1.0)

# %% [markdown]
# 一步只交流一次，叫**全规约**（all-reduce）：各人交出一个数，人人得到总和。词元的个数也这样加，因为要除以的是*全部*的个数：$0.8 / 8 = 0.1$，权重从 0.50 变成 0.40。
#
# 若各自先求平均呢？0 号得 $1.2 / 6 = 0.2$，1 号得 $-0.4 / 2 = -0.2$，两个平均数再平均是 0：一步也不走。2 个词元的意见和 6 个词元的一样响。先加，后除，次序不能换。<!-- by: assert [round(mean, 6) for mean in each] == [0.2, -0.2] -->
#
# 只有一张卡？四行先后分着做，中间不走步，只让梯度加着。这就是{numref}`第 %s 章 <sec-pretrain>`的梯度累积。下图的数与上图一个也不差，只是把空间换成了时间：

# %% tags=["hide-input"] mystnb={"figure": {"caption": "梯度累积：同样的一步，一个进程分先后来做。", "name": "fig-scale-turns"}, "image": {"alt": "时间从左到右：先是 0、1 两行，激活用完就丢，梯度的和与词元个数记下；再是 2、3 两行，加上去；末了相除，走一步"}}
scale.in_turns([2, 2], tokens, sums, weight=0.5, rate=1.0)

# %% [markdown]
# 省下的是激活：一份算完就丢，内存里只有一份的。梯度不同，它和权重占一样多的地方，加多少份也不变大。<!-- by: reasoning -->
#
# ## 真实代码
#
# 从一个进程到多个进程，训练循环只有三处不同。第一处，每个进程拿哪些行：

# %%
show.source(loop.MicroBatches)

# %% [markdown]
# 全部行的次序在每个进程里都一样（同一个种子算出来的），第 `rank` 个进程取属于它的那一段。所以只要总行数相同，无论几个进程，一步用的都是同样的行。
#
# 第二处，**梯度累积**（gradient accumulation）和进程间的求和。一步里先把损失的*和*与词元的*个数*分别累加，最后除一次：

# %% tags=["hide-input"]
show.source(loop.Trainer.accumulate, loop.Trainer.update)

# %% [markdown]
# `no_sync` 让前几次反向传播不通信，只有最后一次才让各进程交换梯度。交换由 PyTorch 的 DDP（distributed data parallel，分布式数据并行）{cite:p}`li2020ddp` 来做。它求的是*平均*，而我们要的是*和*除以总数，所以乘以 `scale`，即 `world_size` 除以总数：
# 两个进程的梯度和是 $g_1$、$g_2$，DDP 给出 $(g_1 + g_2)/2$，乘以 $2/n$ 得 $(g_1 + g_2)/n$。
#
# 第三处，怎样知道自己是几号：`torchrun` 是 PyTorch 启动多个进程的命令，它给每个进程设好了环境变量。

# %%
show.source(loop.set_up_process)

# %% [markdown]
# ### 围成一圈，梯度要搬多少
#
# 梯度怎样加到一起？全送到 0 号，加好再发回去，也行。只是 $P$ 个进程，0 号要收 $P-1$ 份、发 $P-1$ 份，别人都在等它。
#
# 常用的办法是围成一圈（ring all-reduce）{cite:p}`patarasuk2009allreduce`：梯度切成 $P$ 块，每一步，每个进程只送一块给右手的邻居。先是收到的*加*到自己的同一块上，走 $P-1$ 步，每个进程手里就有一块加全了；再走 $P-1$ 步，把加全的一块块传下去，收到的*换掉*自己的。用三个进程看。0 号的数是个位，1 号的是十位，2 号的是百位，所以一眼看得出一块里加进了谁：303 里有 0 号和 2 号，333 就全了。<!-- by: 3 + 300 == 303 --><!-- by: 3 + 30 + 300 == 333 -->

# %% tags=["hide-input"] mystnb={"figure": {"caption": "三个进程围成一圈，四步把梯度加全。一行是一个进程，一列是一块；第 0、1 步收到的加上去，第 2、3 步收到的换上去。颜色深的格子是刚收到的。", "name": "fig-scale-ring"}, "image": {"alt": "五张三行三列的表：开始时各是各的数；每一步有三格刚收到；第 1 步以后每个进程有一块加全；第 3 步以后全部加全"}}
scale.around_the_ring([[1, 2, 3], [10, 20, 30], [100, 200, 300]])

# %% [markdown]
# 每一步送出 $1/P$ 份，一共 $2(P-1)$ 步，所以每个进程送出 $2(P-1)/P$ 份，再多的进程也不到两份：8 个是 1.75 份。<!-- by: 2 * (8 - 1) / 8 == 1.75 -->默认模型的梯度是 103 MB：

# %%
gradient_mb = 4 * parameters(DEFAULT) / 1e6
assert round(gradient_mb) == 103
moved = {P: (2 * (P - 1) / P * gradient_mb, (P - 1) * gradient_mb) for P in (2, 8, 64)}
assert all(ring < 2 * gradient_mb for ring, _ in moved.values())
show.table(
    ["进程", "一圈，每个进程送出（MB）", "都送给 0 号，它要发回（MB）"],
    [[P, *(f"{size:,.0f}" for size in sizes)] for P, sizes in moved.items()],
)

# %% [markdown]
# 一圈里没有谁特别忙，人再多，各自搬的也几乎不变。数据并行能铺开到许多张卡，靠的就是这个。DDP 还把搬运藏起来：反向传播从最后一层算起，算好的先送，不等前面的层 {cite:p}`li2020ddp`。<!-- by: assert all(ring < 2 * gradient_mb for ring, _ in moved.values()) -->
#
# ## 实验
#
# ### 量一量这台机器
#
# 先量峰值：两个 $1024 \times 1024$ 的矩阵相乘是 $2 \times 1024^3$ 次运算。再量两个模型的前向加反向，与训练时一样带着文档掩码（{numref}`第 %s 章 <sec-tensors>`）。输出因机器而异。


# %%
def fastest(action, times: int) -> float:
    """Seconds of the fastest of several calls."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


# %%
def random_batch(config: ModelConfig, rows: int, length: int) -> packing.Batch:
    """Two documents of random tokens in every row, as training packs them."""
    size = length // 2 + 1  # a document's last token is only predicted
    ids = torch.randint(config.vocab_size, (2 * rows * size,)).numpy().astype(np.int32)
    ends = np.arange(0, len(ids) + 1, size)
    documents = dataset.TokenDataset(ids, np.ones(len(ids), np.uint8), ends, unit=1)
    return packing.collate(documents, [[i, i + 1] for i in range(0, 2 * rows, 2)], length)


def training_step(config: ModelConfig, rows: int, length: int):
    """Forward and backward as in training."""
    model, batch = Transformer(config), random_batch(config, rows, length)
    return lambda: objectives.next_token_loss(model, batch).total.backward()


# %% tags=["nbval-ignore-output"]
matrix = torch.randn(1024, 1024)
peak = 2 * 1024**3 / fastest(lambda: matrix @ matrix, 10)
runs = {"tiny": (TINY, 8, 128, 5), "default": (DEFAULT, 1, 256, 2)}
measured, mfu, table = {}, {}, []
for name, (config, rows, length, times) in runs.items():
    seconds = fastest(training_step(config, rows, length), times)
    measured[name] = rows * length / seconds
    rate = measured[name] * flops_per_token(config, length)
    mfu[name] = rate / peak
    shape = f"{rows} × {length}"
    table.append([name, shape, f"{measured[name]:,.0f}", f"{rate / 1e9:,.0f}", mfu[name]])
print(f"{torch.get_num_threads()} threads; a large matmul reaches {peak / 1e9:,.0f} GFLOP/s")
show.table(["模型", "行 × 词元", "词元/秒", "十亿次运算/秒", "MFU"], table)

# %% tags=["remove-input", "nbval-ignore-output"]
slower = measured["tiny"] / measured["default"]
assert slower > 1
show.say(
    f"在这台机器上，小模型的 MFU 是 {mfu['tiny']:.0%}，默认模型是 {mfu['default']:.0%}。"
    f"默认模型每个词元的运算是小模型的 30 倍，速度是它的 1/{slower:.0f}。"
)

# %% [markdown]
# （30 倍按训练时的行长 512 算；上面测的是 256 个词元一行，注意力那一项少一半，是 28 倍。）<!-- by: round((154979328 + 12 * 8 * 512 * 256) / 6003456) == 28 -->
#
# 两个比例一般不相等，因为时间不只花在运算上。每次调用一个算子（一次矩阵乘、一次相加）都有固定的开销，小模型的一次调用里运算又少。数一数：


# %%
class Calls(TorchDispatchMode):
    """Counts the operations that PyTorch is asked for."""

    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count += 1
        return operation(*args, **(kwargs or {}))


with Calls() as calls:
    training_step(TINY, 8, 128)()
per_call = 8 * 128 * flops_per_token(TINY, 128) / calls.count
assert 300 < calls.count < 3000

# %% tags=["remove-input", "nbval-ignore-output"]
assert per_call / 989e12 < 0.1e-6
show.say(
    f"小模型的一步有 {calls.count} 次调用，平均一次 {per_call / 1e6:.0f} 百万次运算。"
    f"H100 做完这些只要 {per_call / 989e12 * 1e9:.0f} 纳秒，而在 GPU 上"
    "[发出一次调用要几微秒](https://developer.nvidia.com/blog/cuda-graphs/)：卡总在等。"
)

# %% [markdown]
# 所以“每秒多少词元”不能从大模型按比例推给小模型，也不能从 CPU 推给 GPU，反过来也不行。MFU 要量，不要猜。
#
# ### 要多少词元，要多少小时
#
# 四个预算。其一，本书的小模型：1,500 步，每步 8 行 128 个词元。其二，默认配置在内置数据上跑两轮；数据量从每类 200 行估计。
# 其三，{cite:t}`hoffmann2022chinchilla` 的经验：计算量一定时，词元数大约取参数的 20 倍。默认模型是 $20 \times 25829888 = 5.17$ 亿。其四，100 亿个词元，是上一个预算的 19 倍，相当于一份像样的真实语料。<!-- by: round(1e10 / (20 * 25829888)) == 19 -->

# %%
tokenizer = RustBPETokenizer.load()
row_targets = {"text": 60_000, "general": 460_000, "knowledge": 100_000}
row_targets |= {"math": 8_000, "identity": 2_000}
epoch = 0.0
for category, rows in row_targets.items():
    sample = [plain_text(convert(row)) for row in lessons.rows(category, 200, seed=42)]
    epoch += rows * sum(len(tokenizer.encode(text)) + 1 for text in sample) / len(sample)
tiny_run = lab.training("pretrain")
assert tiny_run.max_steps * tiny_run.batch_size * tiny_run.max_seq_len == 1_536_000
budgets = {
    "tiny，内置数据": (TINY, 128, 1_536_000),
    "default，内置数据两轮": (DEFAULT, 512, round(2 * epoch)),
    "default，20 词元/参数": (DEFAULT, 512, 20 * parameters(DEFAULT)),
    "default，100 亿词元": (DEFAULT, 512, 10_000_000_000),
}
work = {name: tokens * flops_per_token(c, T) for name, (c, T, tokens) in budgets.items()}
show.table(
    ["预训练", "词元（百万）", "运算次数"],
    [[n, f"{b[2] / 1e6:,.1f}", f"{work[n]:.2e}"] for n, b in budgets.items()],
)

# %% [markdown]
# 代进 {eq}`eq-scale-mfu`，算默认模型。MFU 一律假设 40%，峰值用厂商标称的 bf16 稠密值：下面的小时数是算出来的，没有量过，只有数量级可信。小模型不在其中，它在大卡上到不了 40%，原因刚才说了。<!-- by: assert per_call / 989e12 < 0.1e-6 -->
#
# 小时数乘以每小时的价钱就是花费。价钱请填你看到的；这里的 2 元只是占位，好让你一眼看出倍数，不是真能租到的价。后文 DeepSeek-V3 的账按每卡时 2 *美元*算，贵得多。所以下面凡是用 2 元算出来的钱，先换成你的价钱再看。<!-- by: @deepseek2024v3 -->

# %%
devices = {"RTX 4090": 165e12, "A100": 312e12, "H100": 989e12}
yuan_per_hour = 2.0  # put in your own


def readable(hours: float) -> str:
    if hours < 2:
        return f"{60 * hours:.0f} 分钟" if hours > 1 / 30 else f"{3600 * hours:.0f} 秒"
    return f"{hours:.1f} 小时" if hours < 48 else f"{hours / 24:.0f} 天"


needed = {
    name: [hours(flops, flops_per_second, 0.40) for flops_per_second in devices.values()]
    for name, flops in work.items()
    if budgets[name][0] is DEFAULT
}
chinchilla = needed["default，20 词元/参数"][0]
assert round(chinchilla, 2) == 0.39
print(f"20 tokens per parameter on an RTX 4090: {chinchilla * yuan_per_hour:.2f} yuan")
header = ["预训练（假设 40% MFU）", *devices]
show.table(header, [[n, *map(readable, numbers)] for n, numbers in needed.items()])

# %% [markdown]
# 用这台机器呢？同样的算式，用刚才量到的速度：

# %% tags=["nbval-ignore-output"]
here = {
    name: b[2] / measured["tiny" if b[0] is TINY else "default"] / 3600
    for name, b in budgets.items()
}
show.table(["预训练", "这台机器"], [[n, readable(h)] for n, h in here.items()])

# %% tags=["remove-input", "nbval-ignore-output"]
small, built_in, chinchilla, _ = here.values()
assert small < built_in < chinchilla
show.say(
    f"所以本书用小模型：它的预训练在这里要 {readable(small)}，谁都能跑。"
    f"默认模型在内置数据上要 {readable(built_in)}，按 20 词元/参数要 {readable(chinchilla)}。"
    "命令是同一条，只是该换机器了。"
)

# %% [markdown]
# 别人的测量：MiniMind {cite:p}`gong2024minimind` 2025 年的说明里写，26M 的 MiniMind2-Small（宽 512、8 层、词表 6,400，与默认模型一样）在一张 RTX 3090 上预训练约 1.1 小时，SFT 约 1 小时，数据是它自己的。2026 年 4 月起，它的主线换成了 64M 的模型，这些数字已不在首页上。<!-- by: @gong2024minimind -->
#
# ### 内存花在哪里
#
# 激活不必估计，可以数。PyTorch 每存一个张量给反向传播，就调用一次我们的函数。默认模型，一行，512 个词元，分属两篇文档：


# %%
def saved_bytes(config: ModelConfig, length: int) -> int:
    """Bytes that one row's forward pass keeps for the backward pass, weights apart."""
    model = Transformer(config)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = random_batch(config, 1, length)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = objectives.next_token_loss(model, batch).total
    assert loss.requires_grad
    return sum(kept.values())


# %%
per_token = saved_bytes(DEFAULT, 512) / 512
assert 200e3 < per_token < 600e3
print(f"{per_token / 1e3:.0f} KB of activations per token")

# %%
kept = {
    "tiny": saved_bytes(TINY, 128),
    "small": saved_bytes(MODELS["small"], 256),
    "default": 512 * per_token,
}


def memory(preset: str, rows: int) -> dict[str, float]:
    """Bytes, while so many rows go through a model."""
    by_muon, by_adamw = by_optimizer(preset)
    count = by_muon + by_adamw
    parts = {"权重": 4 * count, "梯度": 4 * count, "动量": 4 * by_muon + 8 * by_adamw}
    return parts | {"激活": rows * kept[preset]}


shapes = {"tiny": (8, 128), "small": (16, 256), "default": (32, 512)}
for name, shape in shapes.items():
    preset = TRAINING[name]["pretrain"]
    assert (preset.batch_size, preset.max_seq_len) == shape
share = {name: memory(name, rows)["激活"] for name, (rows, _) in shapes.items()}
assert all(share[name] > 0.7 * sum(memory(name, shapes[name][0]).values()) for name in shapes)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "训练时内存里是什么（fp32）：三个预设各自的批（行 × 词元），以及默认模型只放 8 行。右边是总数。", "name": "fig-scale-memory"}, "image": {"alt": "四根横条，各按比例分成权重、梯度、动量、激活四段，激活的一段总是长得多；末尾写着总数"}}
bars = {f"{name}，{rows} × {T}": memory(name, rows) for name, (rows, T) in shapes.items()}
bars["default，8 × 512"] = memory("default", 8)
scale.memory_shares(bars)

# %% [markdown]
# 前三段只看参数，与批的大小无关；激活与一次前向的行数成正比。三个预设都一样：大头是激活。<!-- by: assert all(share[name] > 0.7 * sum(memory(name, shapes[name][0]).values()) for name in shapes) -->
#
# 显存不够时，先把 `--batch_size` 调小、`--accumulation_steps` 按同样的倍数调大：激活按比例变小，其余不变。在 GPU 上，**混合精度**（mixed precision）{cite:p}`micikevicius2018mixed` 用 16 位存激活，矩阵乘法那一部分再减半。<!-- by: @micikevicius2018mixed -->
#
# ### 带掩码的注意力，在 GPU 上换一条路
#
# 有一处，CPU 上的数字不能照搬到 GPU 上。训练时一行装着几份文档，模型总是收到文档掩码；同时四个查询头共用一组键和值（`enable_gqa=True`）。
# 内核（kernel，与笔记本的内核无关）是 GPU 上完成一种运算的程序。同一个注意力，PyTorch 备有几种：FlashAttention 和“省内存的”边算边丢掉打分；cuDNN 是 NVIDIA 的库，只在有的卡上能用；math 把打分全部存下。FlashAttention 不收任意的掩码；省内存的那一种收，但较早的 PyTorch 要求键、值的头数与查询相等。都不能用时，PyTorch 一声不响地退回 math，把每一层、每个头的 $T \times T$ 个打分都存下来。
#
# 所以在 CUDA 上带着掩码时，本书的代码先把键和值各复制 $H/K$ 份（$H$ 个查询头，$K$ 组键和值，默认模型是 4 份），省内存的内核在哪个版本都收；Hugging Face 的 transformers 也是[有掩码就不用 `enable_gqa`](https://github.com/huggingface/transformers/pull/39412)。若还是没有内核能算，例如头的宽度不是 8 的倍数，训练开头有一行警告。<!-- by: minillm/model/transformer.py --><!-- by: minillm/training/devices.py -->
#
# 退回的话要多少，不用 GPU 也能数：让 PyTorch 在这里也用 math 内核。一个打分 4 字节，$L$ 层、$H$ 个头、每个位置对 $T$ 个位置都有一个，所以每词元多存 $4 \times L \times H \times T = 4 \times 8 \times 8 \times 512 = 131072$ 字节，展开的键和值还要一些。

# %%
with sdpa_kernel(SDPBackend.MATH):
    worst = saved_bytes(DEFAULT, 512) / 512
extra = worst - per_token
assert 131_072 < extra < 1.2 * 131_072
print(f"{worst / 1e3:.0f} KB per token, {extra / 1e3:.0f} KB more")
print(f"activations of 32 rows: {32 * 512 * worst / 1e9:.1f} GB")

# %% [markdown]
# 多出来的部分与 $T$ 成正比：行长到 2,048，每词元的打分就是 4 倍。<!-- by: 2048 / 512 == 4 -->
#
# 你的卡上真正跑的是哪个内核，显存峰值多少，每秒多少词元，用 `bash scripts/gpu_check.sh` 量：不用联网，八分钟以内，结果写进 `book/results/gpu.json`。

# %% tags=["remove-input", "nbval-ignore-output"]
gpu_file = lab.ROOT / "book" / "results" / "gpu.json"
gpu = json.loads(gpu_file.read_text("utf-8")) if gpu_file.exists() else {"steps": {}}
values = {name: step.get("values") or {} for name, step in gpu["steps"].items()}
steps = {"不编译": values.get("speed"), "`--compile`": values.get("compiled")}
rows = [
    [name, v["rows"], v["length"], v["tokens_per_second"], v["share"], v["peak_bytes"] / 1e9]
    for name, v in steps.items()
    if v
]
header = ["", "行", "词元", "词元/秒", "占大矩阵乘法", "显存峰值 GB"]
show.table(header, rows) if rows else show.say(
    "书做成的时候，手边没有 GPU，所以这里没有表。在有卡的机器上运行上面那条命令，"
    "再用 `bash scripts/book.sh --execute 12-scale` 运行这一页，这里就列出不编译和编译各自的速度和显存峰值。"
)

# %% [markdown]
# ### 梯度累积算的是同一个梯度
#
# 小模型，训练数据里的 8 场对话。一次算完，或者分成 4 次每次 2 场，梯度应当相同，只差舍入：

# %%
folder = tempfile.TemporaryDirectory()
work_dir = Path(folder.name)
with (lab.data() / "sft_chinese.jsonl").open("rb") as file:
    (work_dir / "sft.jsonl").write_bytes(b"".join(islice(file, 64)))
with redirect_stderr(io.StringIO()):
    chats = dataset.load_dataset(
        work_dir / "sft.jsonl", "sft", lab.tokenizer(), 128, work_dir / "cache"
    )


def gradient(model, batches, divisor) -> torch.Tensor:
    """Sums of losses first; ``divisor`` says by what each is divided."""
    model.zero_grad()
    losses = [objectives.next_token_loss(model, batch) for batch in batches]
    total = sum(loss.count for loss in losses)
    for loss in losses:
        (loss.total / divisor(loss.count, total)).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])  # [N]


# %%
model = lab.ladder("pretrain").model()
rows = packing.PackedRows(chats, 128, epochs=1, seed=lab.SEED)
whole = gradient(model, [rows.batch(range(8))], lambda count, total: total)
parts_of_4 = [rows.batch(range(i, i + 2)) for i in range(0, 8, 2)]
accumulated = gradient(model, parts_of_4, lambda count, total: total)
difference = float((whole - accumulated).norm() / whole.norm())
assert difference < 1e-4
print(f"{whole.numel():,} numbers compared, relative difference below 1e-4")

# %% [markdown]
# ### 两个进程，真的跑一次
#
# 在一台机器上，`torchrun` 启动几个进程，每个进程一张卡；没有卡就用 CPU，进程之间由 PyTorch 自带的 gloo 传数。命令只是在前面加几个词：
#
# ```bash
# torchrun --standalone --nproc_per_node 2 trainer/train_pretrain.py --batch_size 16
# ```
#
# 我们跑三步：两个进程各 4 行，对照一个进程 8 行。`python -m torch.distributed.run` 就是 `torchrun`。

# %%
with (lab.data() / "pretrain_chinese.jsonl").open("rb") as file:
    (work_dir / "texts.jsonl").write_bytes(b"".join(islice(file, 400)))
lab.tokenizer().save(work_dir / "tokenizer")


def options(out: str, batch_size: int) -> dict:
    chosen = {"data_path": work_dir / "texts.jsonl", "tokenizer_path": work_dir / "tokenizer"}
    chosen |= {"out_dir": work_dir / out, "tf_dir": work_dir / out / "tf", "device": "cpu"}
    return chosen | {"batch_size": batch_size, "max_steps": 3, "seed": lab.SEED}


def log_of(out: str) -> list[dict]:
    text = (work_dir / out / "pretrain_log.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


# %%
command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
command += [str(lab.ROOT / "trainer" / "train_pretrain.py"), "--preset", "tiny"]
for name, value in options("two", batch_size=4).items():
    command += [f"--{name}", str(value)]
finished = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=work_dir, timeout=600)
assert finished.returncode == 0, finished.stderr[-2000:]

with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
    loop.train(replace(tiny_run, **options("one", batch_size=8)), "pretrain")
print("\n".join(finished.stdout.splitlines()[:2]))

# %% tags=["nbval-ignore-output"]
one, two = log_of("one"), log_of("two")
assert [entry["tokens"] for entry in one] == [entry["tokens"] for entry in two]
for a, b in zip(one, two, strict=True):
    assert abs(a["loss"] - b["loss"]) < 0.01 * a["loss"]
show.table(
    ["步", "词元", "损失，1 个进程 × 8 行", "损失，2 个进程 × 4 行"],
    [
        [a["step"], a["tokens"], f"{a['loss']:.4f}", f"{b['loss']:.4f}"]
        for a, b in zip(one, two, strict=True)
    ],
)

# %% [markdown]
# 只有 0 号进程打印，所以同样的话只出现一次。词元数完全相同，损失只差舍入。多进程改变的是快慢，不是结果。
#
# ### 数据分成许多份，算的还是同一件事
#
# 数据大了就不会只有一个文件：下载来的本来就是许多个，清洗的程序也是几个进程各写各的。这样的每一个文件叫一个**分片**（shard）。
# `--data_path` 可以是一个文件，一个文件夹，或者一个带引号的模式，例如 `'shards/part-*.jsonl'`。分片按名字的次序读，前后相接；文件夹里名字以 `_val` 结尾的是留出的，只用来验证。
#
# 把刚才的 400 行切成两片，与一个文件对照：

# %%
lines = (work_dir / "texts.jsonl").read_bytes().splitlines(keepends=True)
shard_dir = work_dir / "shards"
shard_dir.mkdir()
for name, part in {"00000": lines[:150], "00001": lines[150:]}.items():
    (shard_dir / f"{name}.jsonl").write_bytes(b"".join(part))


def tokens_of(path: Path) -> dataset.TokenDataset:
    shards, cache = find_shards(path).train, work_dir / "cache"
    with redirect_stderr(io.StringIO()):
        return dataset.load_shards(shards, "pretrain", lab.tokenizer(), 128, cache)


# %%
documents = [tokens_of(path) for path in (work_dir / "texts.jsonl", shard_dir)]
one_file, two_shards = (packing.PackedRows(data, 128, 2, lab.SEED) for data in documents)
assert len(one_file) == len(two_shards)
for i in range(0, len(one_file), 8):
    a, b = (rows.batch(range(i, i + 8)) for rows in (one_file, two_shards))
    assert torch.equal(a.input_ids, b.input_ids)
    assert torch.equal(a.labels, b.labels)
print(f"{len(documents[1])} documents in two shards: every batch of two epochs is the same")

# %% [markdown]
# 每一批都相同，训练出来的权重就一个比特也不差。代价在别处：分词。每个分片分词一次，结果按*内容*存进 `out/cache`，所以再添一片，只分它自己；几个进程从不同的分片开始，各分一部分，碰到别人分好的就直接用。<!-- by: assert torch.equal(a.input_ids, b.input_ids) --><!-- by: minillm/training/dataset.py -->
#
# 分片来自不同的地方，最容易混进别的格式。往文件夹里放一份对话：

# %%
(shard_dir / "00002.jsonl").write_bytes((work_dir / "sft.jsonl").read_bytes())
try:
    tokens_of(shard_dir)
except UserError as error:
    refused = str(error).replace(f"{work_dir}/", "")
assert refused.startswith("shards/00002.jsonl:1: this row is a chat")
print(refused)

# %% [markdown]
# 错误发生在训练之前，指明文件和行号，已有的检查点一个也没有动。断点续训（`--resume`）时，分片的内容或次序变了，也会拒绝。压缩的分片（`.jsonl.gz`）要先解开。<!-- by: minillm/data/shards.py -->
#
# ### 跑分有多大误差
#
# 26M 参数的模型常去考 C-Eval {cite:p}`huang2023ceval`：四选一，全部 13,948 题，其中 52 科各 5 道示例题共 260 题，验证集 1,346 题，其余 12,342 题的答案不公开。常见的自测用验证集。
# MiniMind2-Small（26M）2025 年公布的分数是 26.37% {cite:p}`gong2024minimind`，正是 1,346 题里的 355 题。闭着眼睛猜是 25%。26.37% 比猜好吗？<!-- by: assert 52 * 5 + 1346 + 12342 == 13948 --><!-- by: assert round(355 / 1346, 4) == 0.2637 -->
#
# 用 **Wilson 区间** {cite:p}`wilson1927` 算 95% 的**置信区间**（confidence interval），再模拟两千次瞎猜，以及两千次真有 30% 本领的考试：

# %%
assert 52 * 5 + 1346 + 12342 == 13948
low, high = evaluate.wilson_interval(355, 1346)
assert low < 0.25 < high
rng = np.random.default_rng(0)  # of a simulation: the same for every seed of the book
guessing, better = (rng.binomial(1346, p, 2000) / 1346 for p in (0.25, 0.30))
lucky = float((guessing >= 355 / 1346).mean())
assert round(355 / 1346, 4) == 0.2637
assert 0.10 < lucky < 0.15
print(f"355 of 1346: [{low:.3f}, {high:.3f}]; guessing gets as many in {lucky:.0%} of the tests")

# %% tags=["hide-input"] mystnb={"figure": {"caption": "在 1,346 道四选一上，瞎猜（灰）和真有三成本领（蓝）各考两千次的得分分布。26.37% 落在灰色里面。", "name": "fig-scale-chance"}, "image": {"alt": "两个钟形的直方图，灰色是瞎猜，中心在 25%，蓝色是三成本领，中心在 30%；横轴是得分，纵轴是次数"}}
assert np.quantile(guessing, 0.05) < 355 / 1346 < np.quantile(guessing, 0.95)
assert abs(guessing.mean() - 0.25) < 0.005
assert abs(better.mean() - 0.30) < 0.005
show.histogram(
    {"瞎猜（25%）": 100 * guessing, "真有三成本领（30%）": 100 * better},
    "1,346 题的得分（%）",
    "次数",
    [show.GREY, show.COLOURS["other"]],
    bins=30,
)

# %% [markdown]
# 区间含有 25%，瞎猜一百次也有十来次考到 26.37%。结论不是“这个模型不好”，而是这张卷子量不出它的本领。<!-- by: assert 0.10 < lucky < 0.15 -->
#
# 几百万到几千万个参数，足够写通顺的小故事 {cite:p}`eldan2023tinystories`，装不下 52 科的知识。要看模型学到了什么，就得用它够得着的题，例如微世界的留出题，或者验证集上的每字节比特数。<!-- by: @eldan2023tinystories -->
#
# ### 世界以外的二十道题
#
# 小模型在微世界以外会几分？我们出二十道常识题，四选一，看哪个选项的概率最大。出题有个陷阱：模型天生偏爱短的、常见的词。
# 对策：四道题共用四个选项，每个选项恰好对一次。不看题只凭偏爱选的，正好得 25%。<!-- by: assert cheated >= 15 -->

# %%
GROUPS = [
    ("{}的首都是哪里？", "法国 英国 德国 意大利", "巴黎 伦敦 柏林 罗马"),
    ("《{}》的作者是谁？", "红楼梦 西游记 三国演义 水浒传", "曹雪芹 吴承恩 罗贯中 施耐庵"),
    ("《{}》是谁写的？", "静夜思 春望 赤壁赋 狂人日记", "李白 杜甫 苏轼 鲁迅"),
    ("{}的化学符号是什么？", "铁 铜 银 钠", "Fe Cu Ag Na"),
    ("{}？", "一分钟有多少秒 一天有多少小时 一年有多少个月 一星期有多少天", "六十 二十四 十二 七"),
]
quiz = [
    (frame.format(subject), answers.split(), i)
    for frame, subjects, answers in GROUPS
    for i, subject in enumerate(subjects.split())
]


# %%
def hits(evaluator, quiz) -> int:
    found = 0
    for question, choices, right in quiz:
        prompt = evaluator.tokenizer.render_for_completion(to_messages([("user", question)]))
        pairs = [(prompt, evaluator.tokenizer.encode(choice)) for choice in choices]
        found += int(np.argmax(evaluator.log_probs(pairs))) == right
    return found


# %% tags=["nbval-ignore-output"]
dpo = lab.ladder("dpo")
outside = hits(dpo.evaluator(), quiz)
inside = dpo.scores()["multiple_choice"]
interval = evaluate.wilson_interval(outside, len(quiz))
assert inside["interval"][0] > 0.40
print(
    f"outside its world: {outside} of {len(quiz)}, interval [{interval[0]:.2f}, {interval[1]:.2f}]"
)
print(
    f"inside, held out: {inside['accuracy']:.2f} of {inside['n']}, from {inside['interval'][0]:.2f}"
)

# %% tags=["remove-input", "nbval-ignore-output"]
assert outside <= 10
assert inside["accuracy"] > outside / len(quiz) + 0.15
like_guessing = interval[0] < 0.25 < interval[1]
show.say(
    f"世界以外，20 道里选对 {outside} 道，瞎猜平均是 5 道，",
    "两者分不开。" if like_guessing else "这一点差别，换二十道题就没有了。",
    f"世界以内，同样的考法、没见过的题，选对 {inside['accuracy']:.0%}，远高于瞎猜。",
    "它不是“笨”，是没读过。",
)

# %% [markdown]
# ### 一台机器之后
#
# 几台机器，每台 8 张卡，命令只多几项，每台都运行同一条：
#
# ```bash
# torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint host0:29500 \
#     trainer/train_pretrain.py
# ```
#
# `--rdzv_endpoint` 是大家碰头的地址，任选一台。我们的训练器在这里还能用，但有三个边界，过了就该换工具：
#
# - **数据**：每台机器都要有完整的数据，分了片也一样；每个进程都在内存里记着全部文档的长度和打包结果，网页规模的语料放不下。
# - **内存**：DDP 要求每张卡放得下整个模型和优化器。7B 参数，照 AdamW 每参数 16 字节，要 $16 \times 7 \times 10^9 = 112$ GB；换成 Muon，每参数 12 字节，也要 84 GB，哪一种都超过一张 80 GB 的卡。<!-- by: 12 * 7 == 84 -->ZeRO {cite:p}`rajbhandari2020zero` 把这些状态切开，分给各张卡；PyTorch 的 FSDP 和 DeepSpeed 都实现了它。
# - **速度**：长序列和大模型要用 FlashAttention {cite:p}`dao2022flashattention` 的变长接口、张量并行和流水线并行（后两样下面讲）。从零预训练几十亿参数以上，用 torchtitan（PyTorch 官方，代码好读）或 Megatron-LM（大集群上的张量并行和流水线并行）。
#
# 一张卡放不下时，切法有三种，差在切什么、搬什么：

# %% tags=["hide-input"] mystnb={"figure": {"caption": "四层的模型，两张卡（蓝和橙），三种切法。绿的地方要在两张卡之间搬数。", "name": "fig-scale-splits"}, "image": {"alt": "三栏。数据并行：蓝橙各有四层，底下连起来；流水线并行：下面两层蓝，上面两层橙，中间一个绿箭头；张量并行：每一层左边蓝，右边橙，下面有绿线"}}
scale.three_splits()

# %% [markdown]
# - 数据并行切的是*行*。每步搬一次梯度；每张卡要装得下整个模型。ZeRO 和 FSDP 也是它，只是把装的东西再分开，用到时现取。<!-- by: @rajbhandari2020zero -->
# - 流水线并行切的是*层*。前几层在一张卡上，后几层在另一张，搬的只是交界处的激活。可是前面的没有算完，后面的只能等，所以一批要切成许多小份，一份接一份地送，像流水线。<!-- by: reasoning -->
# - 张量并行切的是*矩阵*。每张卡算一半，每一层都要把两半的结果加起来，搬得很勤，所以只放在连线很快的几张卡之间。<!-- by: reasoning -->
#
# 三种可以同时用，卡数相乘。换了工具，照样要问：损失除对了吗，掩码对吗，留出集干净吗，跑分的区间有多宽。<!-- by: reasoning -->
#
# :::{admonition} 真实世界
# :class: real-world
#
# Llama 3.1 405B（2024）用 16,384 张 H100：每个矩阵切给 8 张卡（张量并行），各层分成 16 段（流水线并行），这样的一套有 128 份（数据并行），$8 \times 16 \times 128 = 16384$，MFU 是 41%。它的计算量用 $6N$ 来算，$6 \times 4.05 \times 10^{11} \times 1.56 \times 10^{13} = 3.8 \times 10^{25}$ 次，与报告写的一样 {cite:p}`grattafiori2024llama3`。<!-- by: @grattafiori2024llama3 --><!-- by: round(6 * 4.05e11 * 1.56e13 / 1e25, 1) == 3.8 -->
#
# DeepSeek-V3（2024）用 2,048 张 H800，层分 16 段，混合专家（{numref}`第 %s 章 <sec-model>`）的专家分放在 64 张卡上，不用张量并行。大部分矩阵乘法用 8 位浮点数（FP8），在两个小一些的模型上与 bf16 对照，损失相差不到 0.25%。全部训练用了 278.8 万卡时，即每张卡用的小时加起来；按每卡时 2 美元，是 557.6 万美元。报告注明，这只是最后的这一次训练，不含此前的研究和试验 {cite:p}`deepseek2024v3`。（2026 年 11 月核对。）<!-- by: @deepseek2024v3 --><!-- by: 2788000 * 2 == 5576000 -->
# :::
#
# ### 清洗和去重，用现成的引擎
#
# 清洗几百万行以上的文字，要几个进程甚至几台机器一起做，中间断了能接着做。这些不必自己写：datatrove {cite:p}`penedo2024datatrove` 是 Hugging Face 清洗网页语料用的库。`scripts/pipeline_datatrove.py` 用它的零件搭了一条流水线：
#
# ```bash
# pip install -e '.[pipeline]' -c constraints.txt
# python scripts/pipeline_datatrove.py --raw_dir raw/ --out_dir data/sharded --tasks 4 --workers 2
# python trainer/train_pretrain.py --data_path data/sharded/shards
# ```
#
# 原始文件可以是 `minillm import` 认得的任何格式。几个任务分的是*文件*，一个大文件只有一个任务能做，先切开：`split -l 100000 --additional-suffix=.jsonl big.jsonl raw/part-`。
# 流水线分五步，每一步的每个任务做完都留下记号，断了就把同一条命令再运行一次，做完的不重做：
#
# 1. 读入，丢掉汉字太少的、汉字所占份额太小的、自己重复自己的；
# 2. 每篇算一个 MinHash 签名，14 段，每段 8 个数（下面说它怎样用）；
# 3. 签名有一段完全相同的，记作一对；
# 4. 对连成串，每一串只留一篇；
# 5. 写成分片，每行 `{"text": …, "source": …}`，按文字的哈希留出一小部分，名字以 `_val` 结尾。
#
# 签名里每个数的用处只有一条：两篇在这个数上相同的概率，正好是它们公共的片段（三个字一串）占全部片段的份额，记作 $s$。为什么，{numref}`第 %s 章 <sec-poems>`用三首诗算给你看。一段 8 个数都相同，概率是 $s^8$；14 段里至少有一段全同，是 $1 - (1 - s^8)^{14}$。份额高的几乎逃不掉，份额低的几乎碰不上，比较却不用两两去做。<!-- by: reasoning -->
#
# 丢掉的都在 `removed` 文件夹里，写着理由。<!-- by: scripts/pipeline_datatrove.py -->
#
# datatrove 的默认值是为英文定的，有三处不能照搬到中文上：
#
# - 它自带的中文分词要另装 spaCy 和 jieba。这里一个汉字算一个词，什么也不用下载。
# - 它算“最常见的几个词占全文多少”时，把词之间的空格也算进去。四个汉字，中间三个空格，就成了 7 个字符。一首诗连标点 40 字，随便哪个四字片段，只出现一次，也占 $7/40 = 17.5\%$，过了 16% 的门槛，整首被当作重复丢掉。这一项不用；重复只看 10 个字的片段，最多占全文的 15%。<!-- by: 0.16 < 7 / 40 == 0.175 --><!-- by: scripts/pipeline_datatrove.py -->
# - 去重之前，它把所有的数字换成 0，算术题就都成了同一道。这一项关掉。
#
# 在两批真实的文字上各量了两万行。一批是古诗词，其中有意放进了四千首重出的诗；一批是法律、小说、百科、诗词和今译的古文混在一起的：<!-- by: benchmarks/dedup.py -->

# %%
found = json.loads((lab.ROOT / "book" / "results" / "dedup.json").read_text("utf-8"))
samples = {"poems": "古诗词", "modern": "各种文字"}
steps = {"read": "读入", "short": "汉字太少", "not Chinese": "汉字份额太小"}
steps |= {"repetition": "自己重复", "near duplicates": "近似重复", "written": "写出"}
show.table(
    ["", *samples.values()],
    [[said, *(f"{found[s]['pipeline'][step]:,}" for s in samples)] for step, said in steps.items()],
)

# %% [markdown]
# 本书自己清洗古诗词时，也用 MinHash 去重（`minillm.data.near`），做法不同：它只用 32 个数，找到的候选再*逐对数一遍*，公共片段达到四成才算。同样的文字，两种办法比一比。下表按公共片段的份额分组，“机会”是按公式 $1 - (1 - s^8)^{14}$ 算的、签名撞上的概率。“抓住”是说两篇里至少去掉了一篇，也可能是因为它像第三篇，所以有几格比“机会”高：<!-- by: benchmarks/dedup.py --><!-- by: minillm/data/near.py -->


# %%
def caught(share: float) -> float:
    """Probability that two texts agree in one of 14 bands of 8 numbers."""
    return 1 - (1 - share**8) ** 14


ends = ["0.4", "0.5", "0.65", "0.8", "0.9", "1"]
table = []
for low, high in pairwise(ends):
    counts = [found[s]["near"][f"pairs {low} to {high}"] for s in samples]
    chance = f"{caught(float(low)):.0%} – {caught(float(high)):.0%}"
    table.append([f"{low} – {high}", *(f"{hit} / {pairs}" for pairs, hit in counts), chance])
show.table(["公共片段", *(f"{s}：抓住 / 对" for s in samples.values()), "机会"], table)

# %%
near = {sample: found[sample]["near"] for sample in samples}
assert near["poems"]["pairs 0.9 to 1"] == [2075, 2075]
assert (near["poems"]["ours 0.4"], near["poems"]["datatrove"]) == (4348, 3554)
assert (near["modern"]["ours 0.4"], near["modern"]["datatrove"]) == (79, 24)
assert near["modern"]["datatrove, share below 0.4"] == 0

# %% [markdown]
# 公共片段在九成以上的，datatrove 一对也没有漏；八成以下的，它漏得越来越多。古诗词里我们去掉 4,348 首，它去掉 3,554 首；各种文字里是 79 篇对 24 篇，它去掉的 24 篇都确有公共片段达到四成的另一篇。<!-- by: assert near["poems"]["pairs 0.9 to 1"] == [2075, 2075] --><!-- by: assert (near["poems"]["ours 0.4"], near["poems"]["datatrove"]) == (4348, 3554) --><!-- by: assert (near["modern"]["ours 0.4"], near["modern"]["datatrove"]) == (79, 24) --><!-- by: assert near["modern"]["datatrove, share below 0.4"] == 0 -->
#
# 短诗为什么漏得多？这样的门槛适合网页：同一篇长文换了开头结尾，绝大部分片段不变。短诗不是这样。一首五言绝句连标点 24 个字，三个字一串，有 22 个片段。<!-- by: 24 - 2 == 22 -->改一个字断三串，改两个字最多断 6 串：两边共有的剩 16 串，合起来有 $22 + 6 = 28$ 串，公共的只占 16/28，即 57%。<!-- by: round(16 / 28, 2) == 0.57 -->datatrove 比较之前还去掉标点，剩下 20 个字、18 个片段，公共的只占 12/24，正好一半。<!-- by: 12 / 24 == 0.5 --><!-- by: 20 - 2 == 18 -->所以本书的古诗词用自己的办法。
#
# 要到许多台机器上跑，流水线不变，只换执行的那一个类。脚本的 `run` 里，把 `LocalPipelineExecutor` 换成下面的一种；所有机器要看得见同样的两个文件夹：
#
# ```python
# from datatrove.executor.slurm import SlurmPipelineExecutor  # on the login node of a Slurm cluster
#
# last = SlurmPipelineExecutor(
#     steps, tasks=tasks, workers=200, logging_dir=str(logs / name), depends=last,
#     time="04:00:00", partition="cpu", mem_per_cpu_gb=2, job_name=name,
# )
# ```
#
# ```python
# import ray
# from datatrove.executor.ray import RayPipelineExecutor
#
# ray.init(address="auto")  # once, before the loop: the cluster that `ray start` has made
# last = RayPipelineExecutor(
#     steps, tasks=tasks, workers=200, logging_dir=str(logs / name), depends=last
# )
# ```
#
# Slurm 只是把作业排进队；全部做完之后，把同一条命令再运行一次，它就打印各步的行数。这两段照 datatrove 0.10.1 的源代码写成，*没有在集群上跑过*。试过的是上面的两万行，在一台机器上，4 个任务，2 个进程。<!-- by: benchmarks/dedup.py -->
#
# ### 租一台机器，从头到尾
#
# 先算账。账单是一个公式，每一项都能事先填：
#
# ```{math}
# :label: eq-scale-bill
# \text{费用} = \left( \frac{F \times D}{\text{峰值} \times \text{MFU} \times 3600} + \text{卡数} \times \text{闲置小时} \right) \times \text{每卡每小时的价钱} + \text{硬盘和流量}
# ```
#
# $F$ 是每个词元的运算次数（{eq}`eq-scale-flops`），$D$ 是词元数。括号里是*卡时*：卡数翻倍，训练时间减半，乘起来不变；只有闲置的时间要乘以卡数。三个大小，各按 20 词元/参数，每行 512 个词元，用 H100，MFU 假设 40%。词元数该取参数的多少倍、损失能到多少，要看你的数据上量出来的缩放定律；这里只管账单。训练状态照每参数 16 字节算，是上限：<!-- by: reasoning -->

# %%
sizes = {
    "26M": DEFAULT,
    "100M": replace(DEFAULT, hidden_size=768, intermediate_size=2112, num_hidden_layers=16),
    "1B": replace(DEFAULT, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22),
}
card_hours, bill = {}, []
for name, config in sizes.items():
    count, training_tokens = parameters(config), 20 * parameters(config)
    flops = training_tokens * flops_per_token(config, 512)
    card_hours[name] = hours(flops, devices["H100"], 0.40)
    yuan = f"{card_hours[name] * yuan_per_hour:,.1f}"
    state = f"{16 * count / 1e9:.1f}"
    row = [name, f"{count:,}", f"{training_tokens / 1e8:,.0f}", f"{flops:.1e}"]
    bill.append([*row, f"{card_hours[name]:,.2f}", yuan, state])
header = ["模型", "参数", "词元（亿）", "运算次数", "H100 卡时", f"元，每卡时 {yuan_per_hour:g} 元"]
show.table([*header, "训练状态（GB）"], bill)

# %%
assert 80 < card_hours["1B"] / card_hours["100M"] < 90
assert 15 < card_hours["100M"] / card_hours["26M"] < 17

# %% [markdown]
# 从 100M 到 1B，参数是 9.4 倍，词元也是，所以卡时是八十多倍。三种大小的训练状态，一张 80 GB 的卡都放得下，DDP 够用。<!-- by: assert 80 < card_hours["1B"] / card_hours["100M"] < 90 --><!-- by: round(1005152256 / 106390272, 1) == 9.4 --><!-- by: 16 * 1005152256 < 80e9 -->
#
# 便宜的机器往往是**抢占式机器**（spot instance）：价钱低，但随时可能被收回，有的提前一两分钟通知，有的不通知。两次存盘相隔 $s$，收回落在当中的任何一刻都一样可能，平均丢掉半段 $s/2$；换一台机器又要 $r$。平均每隔 $M$ 被收回一次，浪费的时间就约占 $(s/2 + r)/M$。例如 5 分钟存一次，两小时收回一次，换机器 3 分钟：$(5/2 + 3)/120 = 4.6\%$。只要价钱低得比这多，就划算。<!-- by: round((5 / 2 + 3) / 120, 3) == 0.046 -->
#
# 接下来的步骤，按次序：
#
# 1. **租**。看四样：卡、显存、硬盘、每小时价钱。硬盘要放数据、分词的结果和检查点。分词的结果每词元 5 字节，5.17 亿词元是 2.6 GB；一个检查点约是训练状态去掉梯度，每参数 8 到 12 字节，最多留两个。<!-- by: round(20 * 25829888 / 1e8, 2) == 5.17 --><!-- by: round(5 * 20 * 25829888 / 1e9, 1) == 2.6 --><!-- by: minillm/training/checkpoint.py -->
# 2. **镜像**。要的只是 NVIDIA 的驱动和 Python 3.10 以上；PyTorch 的 pip 包自己带着 CUDA。登录后先看 `nvidia-smi`，右上角是驱动支持的最高 CUDA 版本，低于 PyTorch 所带的就换一个镜像。<!-- by: pyproject.toml -->
# 3. **上传**。先在自己的机器上清洗、去重、切好，只传分片。1 GB 的数据，上行每秒 10 Mbit（8 bit 是一个字节），要 13 分钟，这段时间卡在闲着，所以先开一台没有卡的机器，或者直接传到能挂载的硬盘上。<!-- by: round(8e9 / 10e6 / 60) == 13 -->
# 4. **tmux**。网络断了，前台的程序会跟着死。`tmux new -s train` 开一个不会断的会话，`Ctrl-b d` 离开，`tmux attach -t train` 回来。
# 5. **先量，再训练**。`bash scripts/gpu_check.sh` 在八分钟内说出内核、显存和速度，把 MFU 代进账单，不对就现在停。
# 6. **训练**，`--out_dir` 放在机器收回后还在的硬盘上，`--save_every` 按上面的 $s$ 折算成步数。
# 7. **接着训练**。换一台机器，挂上同一块硬盘，运行*同一条*命令：有检查点就接着，没有就从头。
# 8. **下载**，核对，再退机器。硬盘也要删，它单独计费。
#
# ```bash
# rsync -avP --exclude .venv --exclude .cache --exclude out ./ USER@HOST:minillm/
# rsync -avP data/sharded/shards USER@HOST:disk/
# ssh USER@HOST
# cd minillm && tmux new -s train
# python3 -m venv .venv && source .venv/bin/activate && pip install -e . -c constraints.txt
# bash scripts/gpu_check.sh
# python trainer/train_pretrain.py --data_path ~/disk/shards --out_dir ~/disk/out \
#     --compile --save_every 200 --resume
# # on your own machine
# rsync -avP USER@HOST:disk/out/pretrain.safetensors USER@HOST:disk/out/pretrain_log.jsonl out/
# python trainer/train_full_sft.py
# ```
#
# 收回之前若有通知，程序收到 SIGTERM，会做完手上的一步，存下检查点再退出；没有通知，最多丢掉 `--save_every` 步。检查点先写在旁边，写完整了才改名，所以任何时刻都有一个完整的。文件里记着自己的 SHA-256，下载时坏了，读的时候会说。<!-- by: minillm/training/checkpoint.py --><!-- by: minillm/training/devices.py -->
#
# 哪些试过，哪些没有：随机杀掉训练再 `--resume`，结果一个比特也不差，这在 CPU 上反复试过（`benchmarks/crash.py`）；两台“机器”是同一台机器上的两个 `torchrun`。租机器、传数据、抢占式机器和账单，写这本书时*没有真的做过*：上面的命令是按各个工具的用法写的。<!-- by: benchmarks/README.md -->
#
# ### 换上真实的语料
#
# 包里认得的公开数据集，一条命令下载并转换，例如 `minillm download belle`；没有网络时，先把文件放好，再用 `minillm import`。Hugging Face 和 ModelScope 都连不上时，还有 npm 上的古诗词 `minillm download poetry`；别的来源见[数据从哪里来](sources.md)。
#
# ```bash
# minillm download belle
# minillm import my_news/ --category text --name news
# python scripts/build_chinese_mix.py --built_in none
# ```
#
# 它们写出 `data/chinese/general_belle.jsonl` 和 `data/chinese/text_news.jsonl`，第三条再混合。文件名的开头决定类别，后面不能紧跟别的拉丁字母，其余随意（附录 {ref}`sec-data-engineering`）。不带名字时列出全部：

# %%
listed = hubs.run_download(hubs.DownloadOptions())
assert listed == []  # nothing was fetched

# %% [markdown]
# 第三条里的 `--built_in none` 不能忘。没有文件的类别，默认由内置的样例顶上，大多是微世界的题：只有 BELLE 和新闻时，知识 100,000 行、数学 8,000 行、身份 2,000 行、偏好 60,000 对都是内置的，混在你的语料里。配比的程序会逐类说出来。用很小的 smoke 预设看一看，自己的数据只有二十场对话：<!-- by: assert [wanted(name) for name in lacking] == [100_000, 8_000, 2_000, 60_000] -->


# %%
def wanted(category: str) -> int:
    default = mix.MIX_PRESETS["default"]
    return default.target(category) * (default.identity_repeat if category == "identity" else 1)


lacking = ["knowledge", "math", "identity", "preference"]
assert [wanted(name) for name in lacking] == [100_000, 8_000, 2_000, 60_000]
print(", ".join(f"{name} {wanted(name):,}" for name in lacking))

# %%
own = work_dir / "own"
own.mkdir()
turns = [("user", "{}的下一个数是几？"), ("assistant", "{}。")]
with (own / "general_mine.jsonl").open("w", encoding="utf-8") as file:
    for i in range(20):
        texts = [(role, text.format(i + place)) for place, (role, text) in enumerate(turns)]
        row = {"messages": [{"role": role, "content": text} for role, text in texts]}
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def mixed(**changes) -> mix.MixReport:
    smoke = replace(mix.MIX_PRESETS["smoke"], text=None, **changes)  # text=None: as by default
    said = io.StringIO()
    with redirect_stderr(said):
        report = mix.build(replace(smoke, data_dir=own, out_dir=work_dir / "mixed"))
    print(said.getvalue().replace(f"{work_dir}/", ""))
    return report


# %%
report = mixed()
strangers = sum(c.rows for c in report.categories.values() if c.built_in)
assert strangers == 350
report = mixed(built_in="none")
assert {name for name, c in report.categories.items() if c.rows} == {"general"}
assert report.outputs["dpo_chinese.jsonl"] == 0

# %% [markdown]
# 第一次，自己的 20 场对话重复到 400 行，另有 350 行是内置的。第二次只有自己的，缺的类别不要了。没有偏好对，`dpo_chinese.jsonl` 就是空的，DPO 这一阶段也就没有。一键的写法是 `MIX_ARGS="--built_in none" bash scripts/run.sh`，它会跳过没有数据的 DPO；身份文件缺了，它仍会放一份 `dataset/` 里的样例，先换成你自己的（{numref}`第 %s 章 <sec-identity>`）。<!-- by: assert strangers == 350 -->
#
# 还有一处会让人看错：`minillm evaluate` 的问答题全部出自微世界。混合里没有微世界的行，它就略去这些题，说明理由；用别处的数据训练的，它无从知道，分数低是应该的，不说明好坏。能看的是验证损失和每字节比特数，它们来自你自己的留出文档。要问答的分数，就照上面那二十道题的样子自己出题，让选项轮流做正确答案，再用 `minillm evaluate --questions` 打分（[常见问题](sec-faq-own-task)）。
#
# 另有三件事先想好：
#
# - **许可**：每个数据集的主页写着能做什么。C-Eval 的数据是 CC BY-NC-SA 4.0，不得商用；由别家模型生成的对话（{cite:t}`wang2023selfinstruct` 的办法，BELLE 也是这样来的），常常另有使用条款。
# - **考卷不进课本**：用 CMMLU 或 C-Eval 训练过，就不能再拿它们的分数说事。
# - **分词器**：换了语料，词表要在新语料上重新训练，或者至少比较每词元字数（{numref}`第 %s 章 <sec-bpe>`）。换了词表，预训练要从头来；词表不换，可以用 `--init_from` 从旧的权重接着预训练，{cite:t}`gururangan2020dontstop` 在四个领域上都得到了好处。
#
# ## 弄坏它
#
# 梯度累积最常见的错误：每个小批次各自求平均，再把几个平均数平均。词元数相同时没有区别，SFT 里词元数偏偏不同。
#
# 手算里的那个权重，就这样一步也没有走。真的对话呢？把 64 场对话按回答长短排好，最短的 8 场作一个小批次，最长的 8 场作另一个：<!-- by: assert [round(mean, 6) for mean in each] == [0.2, -0.2] -->

# %%
answers = [int(chats.mask[a:b].sum()) for a, b in pairwise(chats.offsets)]
order = np.argsort(answers, kind="stable")
short, long = (packing.collate(chats, [[i] for i in part], 128) for part in (order[:8], order[-8:]))
counts = [int((batch.labels >= 0).sum()) for batch in (short, long)]
right = gradient(model, [short, long], lambda count, total: total)
wrong = gradient(model, [short, long], lambda count, total: 2 * count)
error = float((wrong - right).norm() / right.norm())
assert counts[1] > 4 * counts[0]
assert error > 0.1
print(
    f"answer tokens: {counts}, so a short answer's token weighs {counts[1] / counts[0]:.1f} times"
)

# %% tags=["remove-input", "nbval-ignore-output"]
cosine = float(torch.nn.functional.cosine_similarity(right, wrong, dim=0))
longer = float(wrong.norm() / right.norm())
assert cosine < 0.99
show.say(
    f"错的梯度，长度是对的 {longer:.1f} 倍，方向也偏了：余弦是 {cosine:.2f}，"
    f"两者之差有对的梯度的 {error:.1f} 倍长。"
)

# %% [markdown]
# 训练不会报错，只是模型学的是另一个目标：偏爱短回答。怎样发现？两个办法：
# 像上面那样断言“分批与不分批的梯度相同”，用*长短不一*的真实数据，不要用等长的随机数；改变 `accumulation_steps` 而保持总批大小，看损失曲线是否重合。<!-- by: assert error > 0.1 -->
#
# ## 收尾
#
# 微世界里的路走到了头。三个问题，从随机权重到有了名字，从头看一遍（`·` 是换行，`�` 是没有写完的汉字，太长的截成 `…`）：

# %% tags=["nbval-ignore-output"]
stages = {stage: lab.ladder(stage) for stage in ("pretrain", "sft", "dpo")}
replies = {"fresh": lab.showcase(lab.fresh())}
replies |= {stage: lab.showcase(run.model()) for stage, run in stages.items()}
replies["identity"] = lab.showcase(lab.identity().model())
show.spine(replies)

# %%
scores = {stage: evaluate.flatten(run.scores()) for stage, run in stages.items()}
assert scores["sft"]["answer fact"] > scores["pretrain"]["answer fact"] + 0.4
assert scores["dpo"]["polite"] > scores["sft"]["polite"] + 0.5
assert lab.READER.name in replies["identity"][2]

# %% [markdown]
# 预训练读了文字，还不会回答；SFT 学会了回答；DPO 学会了客气；最后，它有了你起的名字。每一步改变了什么，你都亲手量过。<!-- by: assert scores["sft"]["answer fact"] > scores["pretrain"]["answer fact"] + 0.4 --><!-- by: assert scores["dpo"]["polite"] > scores["sft"]["polite"] + 0.5 --><!-- by: assert lab.READER.name in replies["identity"][2] -->
#
# 往哪里去？书里还有几件事：把模型交给别的程序（{numref}`第 %s 章 <sec-takeaway>`），让它读一千多年的真诗（{numref}`第 %s 章 <sec-poems>`），先写下预言再训练（{numref}`第 %s 章 <sec-scaling>`）。你自己呢？把微世界换成你熟悉的一个小世界：一本菜谱，一门课的讲义，一个游戏的设定。写二十条留出题，从头训练一次。
# 或者租一小时的卡，跑一遍默认配置，拿自己的 MFU 填进上面的表。
#
# ### 小结
#
# - 参数从配置数出来：默认 25,829,888。每个词元约 $6N$ 次运算，再加注意力。
# - 时间 = 运算次数 ÷（峰值 × MFU）。MFU 要量，不要猜。
# - 训练状态每参数 12（Muon）到 16（AdamW）字节；激活随批大小增长，通常更大。
# - 梯度累积和多进程不改变结果，前提是先求和、后除以总数。求和围成一圈做，进程再多，每个送出的也不到两份梯度。<!-- by: assert all(ring < 2 * gradient_mb for ring, _ in moved.values()) -->
# - 小模型在大考卷上和瞎猜分不开；先算区间，再下结论。<!-- by: assert low < 0.25 < high -->
# - 数据分成许多份，每一批仍与一个文件的相同；清洗和去重用现成的引擎，但默认值要为中文改。<!-- by: assert torch.equal(a.input_ids, b.input_ids) -->
# - 换成自己的数据，加上 `--built_in none`，并且自己出题。
#
# ### 练习
#
# :::{exercise} ★☆☆
# :label: ex-scale-1
# 算一算：宽 768、16 层、其余比例不变的模型约有一亿参数。按 20 词元/参数，忽略注意力项，在一张 A100 上以 40% 的 MFU 要多少小时？<!-- by: 1.5 * 512 == 768 -->
# :::
#
# :::{solution} ex-scale-1
# :class: dropdown
# $N = 10^8$，词元 $2 \times 10^9$，运算 $6 \times 10^8 \times 2 \times 10^9 = 1.2 \times 10^{18}$。除以 $312 \times 10^{12} \times 0.4 \times 3600 = 4.49 \times 10^{17}$，得 2.7 小时。参数是 26M 的 3.9 倍，词元也是，所以时间约为 15 倍。<!-- by: round(1.2e18 / (312e12 * 0.4 * 3600), 1) == 2.7 --><!-- by: round(1e8 / 25829888, 1) == 3.9 --><!-- by: round(3.9 * 3.9) == 15 -->
# :::
#
# :::{exercise} ★★☆
# :label: ex-scale-2
# 写代码：要用多少道四选一的题，才能以 95% 的把握把 26.37% 和 25% 分开？用 `wilson_interval` 从一百题起找，以百题为单位。<!-- by: round(355 / 1346, 4) == 0.2637 -->
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 正确率 `share` 不变，只换题数 `n`。哪一个 `n` 起，区间的下限才高过 25%？
# :::
#
# :::{solution-start} ex-scale-2
# :class: dropdown
# :::

# %%
share = 355 / 1346
questions = next(
    n for n in range(100, 20_000, 100) if evaluate.wilson_interval(share * n, n)[0] > 0.25
)
assert 2.5 < questions / 1346 < 3
questions

# %% [markdown]
# 是验证集题数的近三倍。区间的半宽与 $1/\sqrt{n}$ 成正比：要窄一半，题数要 4 倍。<!-- by: assert 2.5 < questions / 1346 < 3 -->
#
# :::{solution-end}
# :::
#
# :::{exercise} ★★☆
# :label: ex-scale-3
# 弄坏它：把上面二十道题的错误选项都加长（每个后面加“或者别的什么”），正确选项不动。什么也不懂的模型会得几分？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# `hits` 不管选项是什么，只比概率。一个选项后面多几个词元，它的概率就多乘几个小于 1 的数。
# :::
#
# :::{solution-start} ex-scale-3
# :class: dropdown
# :::

# %% tags=["nbval-ignore-output"]
biased = [
    (q, [c if i == right else f"{c}或者别的什么" for i, c in enumerate(choices)], right)
    for q, choices, right in quiz
]
cheated = hits(dpo.evaluator(), biased)
assert cheated >= 15
print(f"{cheated} of {len(biased)}, and it still knows nothing")

# %% [markdown]
# 概率是各词元概率的乘积，越长越小。选项长短不齐的考卷，量到的是长短。常见的补救是除以长度，GPT-3 的评测就是这样做的 {cite:p}`brown2020gpt3`，可它又有自己的偏向；让选项轮流做正确答案，偏向才会抵消。<!-- by: assert cheated >= 15 -->
#
# :::{solution-end}
# :::
#
# :::{exercise} ★☆☆
# :label: ex-scale-4
# 想一想：你把 1 张卡换成 8 张，`--batch_size` 不变。总批大小怎样变？步数呢？还应该检查哪个超参数？
# :::
#
# :::{solution} ex-scale-4
# :class: dropdown
# `--batch_size` 是每张卡的，所以总批大小变成 8 倍，同样的数据步数变成 1/8。这已经不是同一个训练：步数减少，学习率往往要重新选。想要结果不变，就把 `--accumulation_steps` 除以 8（默认是 4，只能除到 1），或者把 `--batch_size` 调小，使“行数 × 累积 × 卡数”不变。本章两个进程的实验就是这样做的。<!-- by: config.TRAINING["default"]["pretrain"].accumulation_steps == 4 -->
# :::
#
# :::{exercise} ★★☆ 动手：分批求梯度
# :label: ex-scale-accumulate
# 显存只够一次算几行，一步却要许多行。模型只有一层，打分是 `x @ weight`，损失是*全部*要学的词元的平均交叉熵，标签为 −100 的位置不学。`x` 是 `[N, C]`，`labels` 是 `[N]`，`sizes` 说怎样分份：`[5, 1]` 是前 5 行一份，后 1 行一份。写出 `accumulate(weight, x, labels, sizes)`：一次只算一份，返回损失对 `weight` 的梯度。传进来的 `weight` 是要求梯度的张量；检查的时候会看你是不是真的一份一份地算。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 先不算损失，只数全部要学的词元。`x.split(sizes)` 把各行分成几份。每一份用 `cross_entropy(…, reduction="sum")` 求和，除以刚才的总数，用 `torch.autograd.grad` 求梯度，加起来。
# :::


# %%
def accumulate(
    weight: torch.Tensor, x: torch.Tensor, labels: torch.Tensor, sizes: list[int]
) -> torch.Tensor:
    return ...


tasks.check("12.1", accumulate)

# %% [markdown]
# :::{solution} ex-scale-accumulate
# :class: dropdown
# ```python
# def accumulate(weight, x, labels, sizes):
#     count = (labels >= 0).sum()
#     gradient = torch.zeros_like(weight)
#     for part, wanted in zip(x.split(sizes), labels.split(sizes), strict=True):
#         loss = torch.nn.functional.cross_entropy(part @ weight, wanted, reduction="sum")
#         gradient += torch.autograd.grad(loss / count, weight)[0]
#     return gradient
# ```
# 先求和，后除以总数，梯度就与一次算完的相同。一份里要是一个要学的也没有，平均数是 0 除以 0，和却好好的是 0。
# :::
#
# :::{exercise} ★★☆ 动手：一圈机器，把梯度加起来
# :label: ex-scale-ring
# 把{numref}`fig-scale-ring` 写成代码。$P$ 个进程围成一圈，第 $r$ 个只送给右边的第 $(r+1) \bmod P$ 个。各自的梯度切成 $P$ 块，`pieces[r][k]` 是第 $r$ 个进程的第 $k$ 块。一共走 $2(P-1)$ 步，从 0 数起：
#
# - 每一步，所有的进程同时送出一块：第 $r$ 个送它的第 $(r - \text{step}) \bmod P$ 块。
# - 前 $P-1$ 步，收到的*加*到自己的同一块上；后 $P-1$ 步，收到的*换掉*自己的同一块。
#
# 先用笔算两个进程：`[[1, 2], [3, 4]]` 走一步是 `[[1, 6], [4, 4]]`，再走一步，两个都是 `[4, 6]`。写出 `ring_step(pieces, step)`：走一步，返回各进程的新块，传进来的不动。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 先把 `pieces` 逐行复制一份，送出去的从旧的里读，收到的写进新的里。Python 的 `(-1) % 3` 是 2，负数不用另外照顾。
# :::


# %%
def ring_step(pieces: list[list[float]], step: int) -> list[list[float]]:
    return ...


tasks.check("12.2", ring_step)

# %% [markdown]
# :::{solution} ex-scale-ring
# :class: dropdown
# ```python
# def ring_step(pieces, step):
#     size = len(pieces)
#     new = [list(own) for own in pieces]
#     for rank, own in enumerate(pieces):
#         k, right = (rank - step) % size, (rank + 1) % size
#         new[right][k] = own[k] + (pieces[right][k] if step < size - 1 else 0)
#     return new
# ```
# 前一半走完，每个进程手里恰好有一块是加全了的；后一半把它转一圈。哪一块先加全？试一试 `ring_step` 走到第 $P-2$ 步，第 $r$ 个进程加全的总是第 $(r+1) \bmod P$ 块。<!-- by: reasoning -->
# :::
#
# ### 延伸阅读
#
# - {cite:t}`kaplan2020scaling`、{cite:t}`hoffmann2022chinchilla`：计算量怎样在参数和数据之间分配；读后一篇时留意它怎样修正前一篇。
# - {cite:t}`li2020ddp`：DDP 怎样一边反向传播一边通信。
# - {cite:t}`rajbhandari2020zero`：模型大到一张卡放不下时，状态怎样切分。
# - {cite:t}`karpathy2025nanochat`：同样的流水线在 8 张 H100 上的样子。
