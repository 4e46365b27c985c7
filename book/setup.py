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
# (sec-setup)=
# # 装好环境
#
# 只在网页上读，不必装什么，直接去 {numref}`第 %s 章 <sec-environment>`。想边读边运行，照这一页做一次，大约十分钟，看网速。
#
# 你需要：git，Python 3.10 或更新的版本，4 GB 磁盘（PyTorch 的 CPU 版；带 CUDA 的要 8 GB），2 GB 空闲内存，两个 CPU 核。**不需要 GPU。**<!-- by: pyproject.toml -->
#
# ## 一条命令
#
# 先取到项目（`git clone`，后面是它的地址），再在它的文件夹里运行：
#
# ```bash
# bash scripts/run.sh --smoke-test    # every stage for a few steps: some two minutes, plus the download
# bash scripts/run.sh --preset tiny   # trains the book's small model: some minutes on 2 cores
# ```
#
# 第一条建好环境，再让每个阶段各走几步，只证明这台机器上样样能用，模型什么也没有学到。第二条把整条流水线真的走一遍：配数据、训练分词器、预训练、微调、偏好优化，最后得到一个会回答问题的小模型，并说出怎样和它聊天。它在跑，你就可以去读第一章。
#
# 环境装在**虚拟环境**（virtual environment）里，即项目文件夹中的 `.venv`：一套只属于这个项目的 Python 和包，删掉这个文件夹，就等于没有装过。不想用脚本，手动也可以：
#
# ```bash
# python3 -m venv .venv
# source .venv/bin/activate
# pip install --upgrade pip
# pip install -r requirements.txt
# ```
#
# 没有 GPU 时，不必下载带 CUDA 的 PyTorch：建好 `.venv`，先按 PyTorch 官网 “Get Started” 页面的 CPU 命令装 2.10 或更新的 `torch`，再运行 `scripts/run.sh`，它会保留你装的这一份。<!-- by: pyproject.toml -->
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
# 出了问题，先查 {ref}`sec-faq`。
#
# ## 打开笔记本
#
# 用 JupyterLab 或 VS Code 打开 `book/` 里的笔记本，内核选 `.venv` 里的 Python：
#
# ```bash
# source .venv/bin/activate
# jupyter lab book
# ```
#
# 只想读，`bash scripts/book.sh --serve` 会在本机打开网页。
#
# 下面这一格能运行，环境就装好了。每一章的第一格都像它：引入要用的东西，再调用 `lab.start`，印出版本。

# %%
import time

from minillm.book import lab, show  # before PyTorch: it says how threads wait (see the FAQ)

import psutil
import torch

lab.start()

# %% [markdown]
# ## 你的机器有多快
#
# 训练主要是矩阵乘法。两个 $n \times n$ 的矩阵相乘，结果有 $n^2$ 个数，每个要 $n$ 次乘法、$n$ 次加法，一共 $2n^3$ 次浮点运算。拿它除以时间，就是这台机器的速度：

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
# 网页上印着的是存下这一页的那台机器，而且只用了一个线程（{ref}`sec-faq` 讲线程）；自己运行，印出来的才是你的机器。
#
# 训练要算多少次？**参数**（parameter）是模型里由训练调整的数。**词元**（token）是模型读写的最小单位，多半是一个字或一个词。一个词元经过模型，每个参数大约做一次乘法、一次加法，这一趟叫前向；再往回算每个参数该怎样改，叫反向，约是前向的两倍。$N$ 个参数，前向 $2N$ 次，反向 $4N$ 次，每个词元合起来约 $6N$ 次浮点运算 {cite:p}`kaplan2020scaling`。小模型的预训练走 1,500 步，每步 8 行，每行 128 个词元：<!-- by: 2 + 4 == 6 -->

# %%
parameters = lab.fresh().num_parameters()
tokens = 1500 * 8 * 128
flops = 6 * parameters * tokens
assert parameters == 869_504
print(f"{parameters:,} parameters, {tokens:,} tokens, {flops:.1e} floating-point operations")

# %% [markdown]
# 用这个数除以你的机器的速度，就是预训练时间的下限。比方说每秒 1,000 亿次（100 GFLOP/s）的机器，$8.0 \times 10^{12} \div 10^{11} = 80$ 秒。实际要更久：小矩阵喂不饱处理器，矩阵乘法以外也还有别的事要做。<!-- by: 8.0e12 / (1000 * 1e8) == 80 and 1000 * 1e8 == 100 * 1e9 -->
#
# (sec-setup-rounding)=
# ## 为什么你的数字和书上的不同
#
# 在 CPU 上，本书训练模型全用 32 位浮点数（float32），它只有约 7 位有效数字。<!-- by: round(-math.log10(2**-24)) == 7 -->

# %%
one = torch.tensor(1.0)
assert one + 1e-8 == one  # too small to be seen
assert one + 1e-6 != one
print(f"{torch.finfo(torch.float32).eps:.1e}")

# %% [markdown]
# 印出来的 `1.2e-07` 是 1 和紧挨着它的下一个数的距离，小得多的零头加上去就没有了。每加一次都要舍掉一点，先加哪两个，舍掉的就不一样。
#
# 所以，换一台机器、换一种加法的次序，第 7 位之后就会不同；几百步训练之后，模型也会略有不同。书里说到训练结果的句子，数字因此都由代码填进去：你在自己的机器上运行，读到的就是你的模型。在每台机器上都该成立的话，旁边有 `assert` 守着，不成立就会报错。
#
# `lab.start` 还设好**随机种子**（random seed）：种子相同，“随机”的数就相同。`lab.fresh` 用它造出全书的起点，一个还没有训练的模型：

# %%
show.source(lab.start, lab.fresh)

# %% [markdown]
# 想试另一个种子，先设环境变量 `MINILLM_SEED=7`，再打开笔记本：数据不变，权重和训练的次序都换一套。
#
# ## 训练好的模型存在哪里
#
# 后面的章要用到训练好的模型。它们只训练一次，存在 `.cache/` 里；文件夹的名字是代码、设置和数据的哈希值（由内容算出的一串字符，内容变了它就变），改了其中任何一样，就会重新训练，绝不会拿旧的结果冒充。想一次备好：
#
# ```bash
# python -m minillm.book.lab   # pretraining, SFT and DPO of the small model: some minutes on 2 cores
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
# 环境好了，去 {numref}`第 %s 章 <sec-environment>`：做出第一个语言模型。
