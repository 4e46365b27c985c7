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
# - **你将学会**：从配置算出参数、计算量、显存和时间；量一量自己的机器；验证梯度累积和多进程训练算的是同一件事；看懂小模型的跑分有多大误差；知道一台机器之后用什么。
# - **需要时间**：阅读 40 分钟，运行约 1 分钟。
# - **需要内存**：1.5 GB。
# - **用到的模块**：`minillm.config`、`minillm.training.loop`、`minillm.training.objectives`、`minillm.data.importer`、`minillm.data.mix`、`minillm.evaluate`。
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
from minillm.book import lab, show
from minillm.config import MODELS, TRAINING
from minillm.data import hubs, mix
from minillm.data.formats import convert
from minillm.data.rows import plain_text, to_messages
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
# 拿别人的测量练手。nanochat {cite:p}`karpathy2025nanochat` 的 `dev/LEADERBOARD.md` 记着每一次“追上 GPT-2”的训练。第一次在 2026 年 1 月 29 日：总计算量 $4.3308 \times 10^{19}$ 次，8 张 H100 用了 10,949 秒。H100 的 bf16 峰值厂商标称 $989 \times 10^{12}$ 次/秒。于是
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
muon, adamw = optimizers.make_optimizers(Transformer(DEFAULT), TRAINING["default"]["pretrain"])
by_muon, by_adamw = (
    sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    for optimizer in (muon, adamw)
)
assert (by_muon, by_adamw) == (22_544_384, 3_285_504)
state_bytes = 12 * by_muon + 16 * by_adamw
logit_bytes = 32 * 512 * DEFAULT.vocab_size * 4
assert (round(state_bytes / 1e6), round(logit_bytes / 1e6)) == (323, 419)
print(
    f"weights, gradients, momenta: {state_bytes / 1e6:.0f} MB; logits: {logit_bytes / 1e6:.0f} MB"
)

# %% [markdown]
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
# `no_sync` 让前几次反向传播不通信，只有最后一次才让各进程交换梯度。DDP {cite:p}`li2020ddp` 交换时求的是*平均*，而我们要的是*和*除以总数，所以乘以 `scale`，即 `world_size` 除以总数：
# 两个进程的梯度和是 $g_1$、$g_2$，DDP 给出 $(g_1 + g_2)/2$，乘以 $2/n$ 得 $(g_1 + g_2)/n$。
#
# 第三处，怎样知道自己是几号：`torchrun` 启动每个进程时设好了环境变量。

# %%
show.source(loop.set_up_process)

# %% [markdown]
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
show.table(["model", "rows × tokens", "tokens/s", "GFLOP/s", "MFU"], table)

# %% tags=["remove-input", "nbval-ignore-output"]
slower = measured["tiny"] / measured["default"]
assert slower > 1
show.say(
    f"在这台机器上，小模型的 MFU 是 {mfu['tiny']:.0%}，默认模型是 {mfu['default']:.0%}。"
    f"默认模型每个词元的运算是小模型的 30 倍，速度是它的 1/{slower:.0f}。"
)

# %% [markdown]
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
# 三个预算。其一，本书的小模型：1,500 步，每步 8 行 128 个词元。其二，默认配置在内置数据上跑两轮；数据量从每类 200 行估计。
# 其三，{cite:t}`hoffmann2022chinchilla` 的经验：计算量一定时，词元数大约取参数的 20 倍。默认模型是 $20 \times 25829888 = 5.17$ 亿。

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
# 小时数乘以每小时的价钱就是花费。价钱请填你看到的，这里的 2 元只是占位。

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
parts = {
    "weights": 4 * parameters(DEFAULT) / 1e9,
    "gradients": 4 * parameters(DEFAULT) / 1e9,
    "momenta": (4 * by_muon + 8 * by_adamw) / 1e9,
    "activations, 32 rows": 32 * 512 * per_token / 1e9,
    "activations, 8 rows": 8 * 512 * per_token / 1e9,
}
print(f"{per_token / 1e3:.0f} KB of activations per token")

# %% tags=["hide-input"] mystnb={"figure": {"caption": "默认模型训练时的内存（fp32，每行 512 个词元）。前三项与批大小无关；激活与一次前向的行数成正比。", "name": "fig-scale-memory"}, "image": {"alt": "五根横条，单位 GB：权重、梯度、动量，以及一次前向 32 行和 8 行时的激活"}}
colours = [show.COLOURS["pretrain"]] * 3 + [show.COLOURS["other"]] * 2
show.bars(parts, "GB", colours)

# %% [markdown]
# 显存不够时，先把 `--batch_size` 调小、`--accumulation_steps` 按同样的倍数调大：激活按比例变小，其余不变。在 GPU 上，**混合精度**（mixed precision）{cite:p}`micikevicius2018mixed` 用 16 位存激活，矩阵乘法那一部分再减半。<!-- by: @micikevicius2018mixed -->
#
# ### 带掩码的注意力，在 GPU 上换一条路
#
# 有一处，CPU 上的数字不能照搬到 GPU 上。训练时一行装着几份文档，模型总是收到文档掩码；同时四个查询头共用一组键和值（`enable_gqa=True`）。
# 内核（kernel，与笔记本的内核无关）是 GPU 上完成一种运算的程序。同一个注意力，PyTorch 备有几种：FlashAttention 和“省内存的”边算边丢掉打分；cuDNN 是 NVIDIA 的库，只在有的卡上能用；math 把打分全部存下。FlashAttention 不收任意的掩码；省内存的那一种收，但较早的 PyTorch 要求键、值的头数与查询相等。都不能用时，PyTorch 一声不响地退回 math，把每一层、每个头的 $T \times T$ 个打分都存下来。
#
# 所以在 CUDA 上带着掩码时，本书的代码先把键和值各复制 $H/K$ 份，省内存的内核在哪个版本都收；Hugging Face 的 transformers 也是[有掩码就不用 `enable_gqa`](https://github.com/huggingface/transformers/pull/39412)。若还是没有内核能算，例如头的宽度不是 8 的倍数，训练开头有一行警告。<!-- by: minillm/model/transformer.py --><!-- by: minillm/training/devices.py -->
#
# 退回的话要多少，不用 GPU 也能数：让 PyTorch 在这里也用 math 内核。打分每词元多存 $4 \times L \times H \times T = 4 \times 8 \times 8 \times 512 = 131072$ 字节，展开的键和值还要一些。

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
show.table(header, rows) if rows else show.say("书做成的时候，手边没有 GPU，所以这里还空着。")

# %% [markdown]
# ### 梯度累积算的是同一个梯度
#
# 小模型，8 场真实的对话。一次算完，或者分成 4 次每次 2 场，梯度应当相同，只差舍入：

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
# 在一台机器上，`torchrun` 启动几个进程，每个进程一张卡；没有卡就用 CPU 和 gloo。命令只是在前面加几个词：
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
    ["step", "tokens", "loss, 1 process × 8", "loss, 2 processes × 4"],
    [
        [a["step"], a["tokens"], f"{a['loss']:.4f}", f"{b['loss']:.4f}"]
        for a, b in zip(one, two, strict=True)
    ],
)

# %% [markdown]
# 只有 0 号进程打印，所以同样的话只出现一次。词元数完全相同，损失只差舍入。多进程改变的是快慢，不是结果。
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
    {"guessing (25%)": 100 * guessing, "true skill 30%": 100 * better},
    "score on 1,346 questions (%)",
    "simulated tests",
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
# - **数据**：每台机器都要有完整的数据，每个进程都在内存里记着全部文档的长度和打包结果，网页规模的语料放不下。清洗、近似去重、分片用 datatrove {cite:p}`penedo2024datatrove`；自己的流程要跑在许多机器上，可以用 Ray。
# - **内存**：DDP 要求每张卡放得下整个模型和优化器。7B 参数要 $16 \times 7 \times 10^9 = 112$ GB，一张 80 GB 的卡放不下。ZeRO {cite:p}`rajbhandari2020zero` 把这些状态切开，分给各张卡；PyTorch 的 FSDP 和 DeepSpeed 都实现了它。
# - **速度**：长序列和大模型要用 FlashAttention {cite:p}`dao2022flashattention` 的变长接口、张量并行和流水线并行。从零预训练几十亿参数以上，用 torchtitan（PyTorch 官方，代码好读）或 Megatron-LM（大集群上的张量并行和流水线并行）。
#
# 换了工具，照样要问：损失除对了吗，掩码对吗，留出集干净吗，跑分的区间有多宽。<!-- by: reasoning -->
#
# ### 换上真实的语料
#
# 已知的公开数据集，一条命令下载并转换，例如 `minillm download belle`；没有网络时，先把文件放好，再用 `minillm import`。这两个网站连不上时，还有 npm 上的古诗词 `minillm download poetry`；别的来源见[数据从哪里来](sources.md)。
#
# ```bash
# minillm download belle
# minillm import my_news/ --category text --name news
# python scripts/build_chinese_mix.py --built_in none
# ```
#
# 它们写出 `data/chinese/general_belle.jsonl` 和 `data/chinese/text_news.jsonl`，第三条再混合。文件名的开头决定类别，后面不能紧跟别的拉丁字母，其余随意（{numref}`第 %s 章 <sec-data>`）。不带名字时列出全部：

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
# 餐巾纸：一个小批次只有 2 个要学的词元，平均损失 4.0；另一个有 40 个，平均 0.5。
# 对的做法是 $(2 \times 4.0 + 40 \times 0.5) / 42 = 0.667$。平均的平均是 $(4.0 + 0.5)/2 = 2.25$。
# 短回答里的一个词元，权重是长回答里的 $40/2 = 20$ 倍。<!-- by: round((2 * 4.0 + 40 * 0.5) / 42, 3) == 0.667 -->
#
# 真的对话也是这样。把 64 场对话按回答长短排好，最短的 8 场作一个小批次，最长的 8 场作另一个：

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
# 三个问题最后一次。从随机权重到有了名字：

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
# 往哪里去？把微世界换成你熟悉的一个小世界：一本菜谱，一门课的讲义，一个游戏的设定。写二十条留出题，从头训练一次。
# 或者租一小时的卡，跑一遍默认配置，拿自己的 MFU 填进上面的表。
#
# ### 小结
#
# - 参数从配置数出来：默认 25,829,888。每个词元约 $6N$ 次运算，再加注意力。
# - 时间 = 运算次数 ÷（峰值 × MFU）。MFU 要量，不要猜。
# - 训练状态每参数 12（Muon）到 16（AdamW）字节；激活随批大小增长，通常更大。
# - 梯度累积和多进程不改变结果，前提是先求和、后除以总数。
# - 小模型在大考卷上和瞎猜分不开；先算区间，再下结论。<!-- by: assert low < 0.25 < high -->
# - 换成自己的数据，加上 `--built_in none`，并且自己出题。
#
# ### 练习
#
# :::{exercise}
# :label: ex-scale-1
# 算一算：宽 768、16 层、其余比例不变的模型约有一亿参数。按 20 词元/参数，忽略注意力项，在一张 A100 上以 40% 的 MFU 要多少小时？<!-- by: 1.5 * 512 == 768 -->
# :::
#
# :::{solution} ex-scale-1
# :class: dropdown
# $N = 10^8$，词元 $2 \times 10^9$，运算 $6 \times 10^8 \times 2 \times 10^9 = 1.2 \times 10^{18}$。除以 $312 \times 10^{12} \times 0.4 \times 3600 = 4.49 \times 10^{17}$，得 2.7 小时。参数是 26M 的 3.9 倍，词元也是，所以时间约为 15 倍。<!-- by: round(1.2e18 / (312e12 * 0.4 * 3600), 1) == 2.7 --><!-- by: round(1e8 / 25829888, 1) == 3.9 --><!-- by: round(3.9 * 3.9) == 15 -->
# :::
#
# :::{exercise}
# :label: ex-scale-2
# 写代码：要用多少道四选一的题，才能以 95% 的把握把 26.37% 和 25% 分开？用 `wilson_interval` 从一百题起找，以百题为单位。<!-- by: round(355 / 1346, 4) == 0.2637 -->
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
# :::{exercise}
# :label: ex-scale-3
# 弄坏它：把上面二十道题的错误选项都加长（每个后面加“或者别的什么”），正确选项不动。什么也不懂的模型会得几分？
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
# :::{exercise}
# :label: ex-scale-4
# 想一想：你把 1 张卡换成 8 张，`--batch_size` 不变。总批大小怎样变？步数呢？还应该检查哪个超参数？
# :::
#
# :::{solution} ex-scale-4
# :class: dropdown
# `--batch_size` 是每张卡的，所以总批大小变成 8 倍，同样的数据步数变成 1/8。这已经不是同一个训练：步数减少，学习率往往要重新选。想要结果不变，就把 `--accumulation_steps` 除以 8（默认是 4，只能除到 1），或者把 `--batch_size` 调小，使“行数 × 累积 × 卡数”不变。本章两个进程的实验就是这样做的。<!-- by: config.TRAINING["default"]["pretrain"].accumulation_steps == 4 -->
# :::
#
# ### 延伸阅读
#
# - {cite:t}`kaplan2020scaling`、{cite:t}`hoffmann2022chinchilla`：计算量怎样在参数和数据之间分配；读后一篇时留意它怎样修正前一篇。
# - {cite:t}`li2020ddp`：DDP 怎样一边反向传播一边通信。
# - {cite:t}`rajbhandari2020zero`：模型大到一张卡放不下时，状态怎样切分。
# - {cite:t}`karpathy2025nanochat`：同样的流水线在 8 张 H100 上的样子。
