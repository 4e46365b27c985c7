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
# (sec-pretrain)=
# # 预训练：从随机权重到会说话
#
# :::{admonition} 本章
# :class: tip
#
# - **你将学会**：手算交叉熵、困惑度和每字节比特数；手算一次反向传播；说清从 SGD 到 Muon，每个优化器治的是什么毛病；读懂训练循环的每一步；看曲线判断训练是否正常；说清预训练学到了什么、没学到什么。
# - **需要时间**：阅读 60 分钟。没有缓存时，预训练 1,500 步在 2 个 CPU 核上约两分半钟，比较优化器的六次 150 步和两次 50 步的对照约一分半钟；有缓存时，整页一分多钟。
# - **需要内存**：1.5 GB。
# - **用到的模块**：`minillm.training.objectives`、`minillm.training.loop`、`minillm.training.checkpoint`。
# :::

# %%
import io
import json
import math
import re
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from minillm import Sampling, complete, files
from minillm.book import lab, show, tasks
from minillm.book.drawings import optimisation
from minillm.config import TRAINING
from minillm.evaluate import Evaluator, wilson_interval
from minillm.microworld import scoring, words
from minillm.training import checkpoint, dataset, loop, objectives, optimizers
from minillm.training.packing import Batch, PackedRows

import numpy as np
import torch

lab.start()

# %% [markdown]
# ## 开场
#
# {numref}`第 %s 章 <sec-model>` 搭好了模型，权重是随机的。它对三个问题的回答如下。

# %%
replies = lab.showcase(lab.fresh())
assert all(reply == "<|assistant_start|>" * 64 for reply in replies)
show.spine({"fresh": replies})

# %% [markdown]
# 随机的模型只会重复一个词元。它不知道哪个字跟在哪个字后面，更不知道张静是谁。 <!-- by: assert all(reply == "<|assistant_start|>" * 64 for reply in replies) -->
#
# **预训练**（pretraining）只做一件事：给模型看大量文本，让它在每个位置预测下一个词元，猜得不准就改一点权重。没有人告诉它什么是语法、什么是事实；要猜准下一个词元，它只好自己学会这些。
#
# ## 手算
#
# ### 猜得有多不准：交叉熵
#
# 模型在一个位置给出整个词表的分数（logits）。怎样把“猜得准不准”变成一个数？先用 softmax 把分数变成概率，再看它给正确词元的概率 $p$：
#
# ```{math}
# :label: eq-pretrain-ce
# p_t = \frac{e^{z_{t,y_t}}}{\sum_v e^{z_{t,v}}}, \qquad
# L = \frac{1}{N}\sum_{t=1}^{N} -\ln p_t
# ```
#
# $z_{t,v}$ 是位置 $t$ 上词元 $v$ 的分数，$y_t$ 是真正的下一个词元，$N$ 是要预测的词元数。$L$ 叫**交叉熵**（cross-entropy），单位是奈特（nat，以 $e$ 为底的信息单位）。$p_t=1$ 时损失是 0；$p_t$ 每小一半，损失就多 $\ln 2=0.693$；对 1,024 个词元一视同仁地瞎猜，是 $\ln 1024=6.93$。取对数，是因为一句话的概率是每一步的概率相乘，取了对数，乘就变成加，才好一步一步地算，再平均。 <!-- by: round(math.log(2), 3) == 0.693 --> <!-- by: round(math.log(1024), 2) == 6.93 -->
#
# 拿一个小例子来算。词表只有三个词元“张静”“住在”“北京。”，编号 0、1、2，要预测的句子是“张静住在北京。”
#
# :::{table} 三个词元的交叉熵
# :name: tab-pretrain-ce
#
# | 已读到 | 分数 $z$ | $e^z$ 之和 | 正确词元 | $p$ | $-\ln p$ |
# |---|---|---|---|---|---|
# | （开头） | 2, 0, 1 | 7.389 + 1 + 2.718 = 11.107 | 张静 | 7.389 / 11.107 = 0.665 | 0.408 |
# | 张静 | 0, 3, 1 | 1 + 20.086 + 2.718 = 23.804 | 住在 | 20.086 / 23.804 = 0.844 | 0.170 |
# | 住在 | 0, 0, 0 | 3 | 北京。 | 1 / 3 = 0.333 | 1.099 |
# :::
#
# 三个损失的和是 1.676（先加再舍入；拿表里舍入过的数加是 1.677），平均是 0.559 奈特。 <!-- by: round(0.408 + 0.170 + 1.099, 3) == 1.677 -->
#
# 同一个数有三种常用的读法。**困惑度**（perplexity）是 $e^{L}=e^{0.559}=1.75$：平均每一步像在 1.75 个同样可能的词元里猜一个。换成比特要除以 $\ln 2$：$1.676/0.693=2.418$ 比特。三个词元共 $6+6+9=21$ 个 UTF-8 字节，所以**每字节比特数**（bits per byte）是 $2.418/21=0.115$。
#
# 损失和困惑度随分词器而变：词元越长，每步越难猜。每字节比特数除掉了这一点，不同分词器的模型才能相比。
#
# 先用最笨的办法核对表里的每一个数，再交给包里的函数：

# %%
e = [[math.exp(z) for z in row] for row in ([2, 0, 1], [0, 3, 1], [0, 0, 0])]
assert [round(math.exp(z), 3) for z in (1, 2, 3)] == [2.718, 7.389, 20.086]
assert [round(sum(row), 3) for row in e] == [11.107, 23.804, 3]
p = [row[y] / sum(row) for row, y in zip(e, (0, 1, 2), strict=True)]
assert [round(x, 3) for x in p] == [0.665, 0.844, 0.333]
total = -sum(math.log(x) for x in p)
assert (round(total, 3), round(total / math.log(2), 3)) == (1.676, 2.418)

# %%
logits = torch.tensor([[[2.0, 0, 1], [0, 3, 1], [0, 0, 0], [5, 5, 5]]])  # [B=1, T=4, V=3]
labels = torch.tensor([[0, 1, 2, -100]])  # the last position is padding
ids = torch.zeros_like(labels)  # our stand-in below does not look at them
batch = Batch(ids, labels, ids, ids, num_documents=1, num_targets=3)


def stand_in(input_ids, position_ids, document_ids):
    return logits  # a "model" that always gives our scores


losses = objectives.token_losses(stand_in, batch)  # [B, T]
loss = objectives.next_token_loss(stand_in, batch)
mean = float(loss.total) / loss.count
bits_per_byte = float(loss.total) / math.log(2) / len("张静住在北京。".encode())
assert np.allclose(losses, [[0.408, 0.170, 1.099, 0]], atol=6e-4)
assert (loss.count, round(mean, 3), round(bits_per_byte, 3)) == (3, 0.559, 0.115)
print("per token", losses[0].tolist())
print(f"mean {mean:.3f}, perplexity {math.exp(mean):.2f}, bits per byte {bits_per_byte:.3f}")

# %% [markdown]
# 第 4 个位置是填充，标签是 −100，损失是 0，也不计入个数。注意 `next_token_loss` 返回的是**和**与**个数**，没有平均；原因在“真实代码”里讲。
#
# ### 往哪边改：一步梯度下降
#
# 损失知道了，怎样让它变小？好比蒙着眼下山：谷底在哪里看不见，脚下往哪边斜却踩得出来。朝着下坡迈一小步，再踩一踩，再迈一步。
#
# 脚下的斜度就是**梯度**（gradient）：每个数各增加一点点，损失跟着变多少。它指着损失上升最快的方向，所以要往反方向走。损失对分数的梯度很好记：$\partial(-\ln p_y)/\partial z_v = p_v - [v=y]$，即“给出的概率减去该给的概率”。$\partial$ 是只动一个数、别的都不动时的导数；$y$ 是正确的词元，$[v=y]$ 在 $v$ 就是 $y$ 时是 1，否则是 0。想自己推，就写成 $-\ln p_y = -z_y + \ln \sum_v e^{z_v}$，两项分别求导。 <!-- by: reasoning -->
#
# 第三个位置上，概率是 $(1/3, 1/3, 1/3)$，该给的是 $(0, 0, 1)$，梯度就是 $(1/3, 1/3, -2/3)$：前两个分数该降，第三个该升，升得最多。 <!-- by: assert torch.allclose(z.grad, torch.tensor([1 / 3, 1 / 3, -2 / 3])) -->
#
# 沿梯度的反方向走一步，步长（**学习率**，learning rate）取 0.5：新的分数是 $(-0.167, -0.167, 0.333)$，正确词元的概率从 0.333 升到 0.452，损失从 1.099 降到 0.794。 <!-- by: assert round(float(loss_new), 3) == 0.794 -->

# %%
z = torch.zeros(3, requires_grad=True)
(-z.log_softmax(0)[2]).backward()
assert torch.allclose(z.grad, torch.tensor([1 / 3, 1 / 3, -2 / 3]))
z_new = z.detach() - 0.5 * z.grad
loss_new = -z_new.log_softmax(0)[2]
assert round(float(loss_new), 3) == 0.794
assert round(float(z_new.softmax(0)[2]), 3) == 0.452
z.grad, z_new, loss_new

# %% [markdown]
# ### 从损失走回每个权重：反向传播
#
# 真正要改的不是分数，是算出分数的权重。分数由最后一层算出，最后一层的输入由前一层算出，一层套着一层，求导用链式法则。
#
# 先看两层的玩具：$h=2w$，$L=h^2$，现在 $w=3$。从右往左走：$h=6$，$L$ 对 $h$ 的导数是 $2h=12$；$h$ 对 $w$ 的导数是 2；乘起来，$L$ 对 $w$ 的导数是 24。直接验算，$L=4w^2$，导数 $8w$ 也是 24。 <!-- by: 2 * (2 * 3) * 2 == 8 * 3 == 24 -->
#
# 再看一个小得不能再小的语言模型。输入 $x=2$，只有一个神经元，$h=wx$；每个词元有自己的权重 $u_v$，分数是 $z_v=u_vh$。现在 $w=0.5$，$u=(1,0,-1)$，正确的词元是“住在”。
#
# **前向**，从左往右：$h=0.5\times2=1$，分数是 $(1,0,-1)$，softmax 得 $(0.665,0.245,0.090)$，损失 $-\ln0.245=1.408$。
#
# **反向**，从右往左，每到一处，问一句“损失对你的导数是多少”：
#
# - 分数：概率减去该给的概率，$(0.665,\ 0.245-1,\ 0.090)=(0.665,-0.755,0.090)$。
# - 权重 $u_v$：它乘着 $h$ 进入 $z_v$，所以是 $z_v$ 的梯度乘以 $h=1$，还是这三个数。
# - $h$：它分三路走出去，三路的账都要算。每一路是 $z_v$ 的梯度乘以 $u_v$，加起来是 $0.665\times1-0.755\times0+0.090\times(-1)=0.575$。 <!-- by: round(0.665 * 1 - 0.755 * 0 + 0.090 * -1, 3) == 0.575 -->
# - 权重 $w$：$h$ 的梯度乘以 $x$，$0.575\times2=1.150$。
#
# 规则只有两条：经过乘法，乘上另一个因数；一个数分几路走出去，各路回来的梯度相加。每个零件只须知道自己这一步的导数，不必知道整个网络。从损失走到最左边，每个权重就都分到了自己的梯度，这叫**反向传播**（backpropagation）。真的模型只是零件多些。 <!-- by: reasoning -->

# %% tags=["hide-input"] mystnb={"figure": {"caption": "一个神经元、三个词元的模型。箭头是前向的次序，圆圈把进来的两个数相乘。每个字母上面的蓝数是它的值，下面的橙数是损失对它的梯度；$x$ 是输入，不用改，没有写。$h$ 的 0.575 是三路之和。", "name": "fig-pretrain-backward"}, "image": {"alt": "一张图，从左到右：x 乘以 w 得 h，h 分三路，各乘一个 u，得三个分数，再一起进入 softmax 与交叉熵，得到 L。w 和三个 u 都在自己的圆圈上方，用箭头指着它。每个字母上面有值，下面有梯度"}}
assert round(0.665 * 1 - 0.755 * 0 + 0.090 * -1, 3) == 0.575
optimisation.backward_graph(2, 0.5, [1, 0, -1], ["张静", "住在", "北京。"], correct=1)

# %% [markdown]
# {numref}`fig-pretrain-backward` 里的数，用两种办法核对：PyTorch 的 `backward()`；还有不用求导的笨办法，把一个权重加减 0.001，看损失变了多少，除以 0.002。 <!-- by: reasoning -->


# %%
def tiny_loss(w, u):
    return -(u * (w * 2.0)).log_softmax(0)[1]


w = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
u = torch.tensor([1.0, 0, -1], dtype=torch.float64, requires_grad=True)
tiny_loss(w, u).backward()
nudged = [tiny_loss(w + step, u).item() for step in (0.001, -0.001)]
slope = (nudged[0] - nudged[1]) / 0.002
assert round(tiny_loss(w, u).item(), 3) == 1.408
assert [round(g, 3) for g in u.grad.tolist()] == [0.665, -0.755, 0.09]
assert round(w.grad.item(), 3) == round(slope, 3) == 1.150
print(f"backward {w.grad:.3f}, nudged {slope:.3f}")

# %% [markdown]
# 笨办法每核对一个权重，要把模型算两遍；几十万个权重就是上百万遍。反向传播走一个来回，全部算出。训练用它，笨办法留着查错。 <!-- by: reasoning -->
#
# ### 长谷里，一个步长照顾不了两个方向
#
# 有了梯度，照 $w\leftarrow w-\eta g$ 一步步走，叫**随机梯度下降**（stochastic gradient descent，SGD）；“随机”是因为每一步的梯度只来自随机取的一批数据。它的毛病，两个权重就看得出来。
#
# 设损失是 $\frac12(w_1^2+50\,w_2^2)$：一条东西走向的长谷，沿着谷底（$w_1$）很平，横着（$w_2$）很陡。梯度是 $(w_1,\,50\,w_2)$。 <!-- by: reasoning -->
#
# - **步子大**，$\eta=0.039$：横着的一步乘以 $1-50\times0.039=-0.95$，从这一坡跳到对面的坡，来回撞；再大一点，过了 $2/50=0.04$，就越跳越高。
# - **步子小**，$\eta=0.005$：不撞了，可是沿着谷底每一步只乘 $1-0.005=0.995$，走 40 步还剩 82% 的路。 <!-- by: round((1 - 0.005) ** 40, 2) == 0.82 -->
#
# **动量**（momentum）治来回撞。不按这一步的梯度走，按过去各步梯度的移动平均走：$m\leftarrow0.9\,m+0.1\,g$，$w\leftarrow w-\eta m$。横着的梯度一正一负，平均下来抵消；沿着谷底的总朝一个方向，越积越多。像一个滚下来的球。球也有球的毛病：到了谷底刹不住，冲过头，再滚回来。
#
# **Adam** 换一个思路：陡的方向梯度大，平的方向梯度小，那就各除以自己平常的大小，每个权重一把尺子 {cite:p}`kingma2015adam`。它除了 $m$，再记一个梯度平方的移动平均 $v$，步子是 $\eta\,m/\sqrt v$。（下面的代码里，$m$ 和 $v$ 还各除以 $1-0.9^s$ 和 $1-0.95^s$，是补头几步的偏小，后面算 Adam 的一步时再说。） <!-- by: @kingma2015adam -->

# %%
CURVE = np.array([[1.0, 0], [0, 50]])  # the loss is w · CURVE w / 2, its gradient CURVE w


def descend(rule, rate, curve=CURVE, start=(-4.0, 1.0), steps=40):
    w, m, v, path = np.array(start), np.zeros(2), np.zeros(2), [start]
    for s in range(1, steps + 1):
        g = curve @ w
        m = 0.9 * m + 0.1 * g
        v = 0.95 * v + 0.05 * g**2
        adam = m / (1 - 0.9**s) / np.sqrt(v / (1 - 0.95**s))
        w = w - rate * {"SGD": g, "动量": m, "Adam": adam}[rule]
        path.append(w)
    return np.array(path)


walks = {
    f"{rule}，学习率 {rate}": (CURVE, descend(rule, rate))
    for rule, rate in (("SGD", 0.039), ("SGD", 0.005), ("动量", 0.2), ("Adam", 0.2))
}

# %% tags=["hide-input"] mystnb={"figure": {"caption": "从上往下看同一条长谷：灰线是等高线，十字是谷底，圆圈是起点，每个点是一步，都走 40 步。", "name": "fig-pretrain-valley"}, "image": {"alt": "四幅图。步子大的 SGD 上下来回跳，慢慢往右；步子小的 SGD 落到谷底以后几乎不动；动量摆动几下，冲过十字又回来；Adam 斜着走到谷底附近，摆动很小"}}
across = {title: walk[:, 1] for title, (_, walk) in walks.items()}
assert all(np.diff(np.sign(across["SGD，学习率 0.039"])) != 0)
assert walks["SGD，学习率 0.005"][1][-1, 0] < -0.8 * 4
assert walks["动量，学习率 0.2"][1][:, 0].max() > 1
optimisation.descents(walks)

# %% [markdown]
# {numref}`fig-pretrain-valley` 的第四幅里，Adam 不在乎谷有多陡。这可以说得很准：把 50 换成 5,000，$w_2$ 的梯度处处放大到 100 倍，$m$ 也是 100 倍，$\sqrt v$ 也是 100 倍，一除，路线一点不变。 <!-- by: assert np.allclose(descend("Adam", 0.2), descend("Adam", 0.2, steep)) --> <!-- by: 5000 / 50 == 100 -->
#
# 可是尺子是按坐标轴量的。把同一条谷转 45°，陡的方向就不再是哪一个权重自己的事：两个权重的梯度里都既有陡的一份，又有平的一份，两把尺子量出来一样大，除了等于没除。 <!-- by: reasoning -->

# %% tags=["hide-input"] mystnb={"figure": {"caption": "同样的 Adam，同样的谷，只是转了 45°。左边走到了谷底，右边先横着冲出去，再来回折，40 步还在半路。", "name": "fig-pretrain-rotated"}, "image": {"alt": "两幅图。左图的谷是水平的，路线到了谷底的十字附近；右图的谷是斜的，路线先横着越过谷底，再折回来，停在离十字很远的地方"}}
turn = np.array([[1.0, -1], [1, 1]]) / np.sqrt(2)
turned = turn @ CURVE @ turn.T
steep = np.array([[1.0, 0], [0, 5000]])
assert np.allclose(descend("Adam", 0.2), descend("Adam", 0.2, steep))
straight = descend("Adam", 0.2)
slanted = descend("Adam", 0.2, turned, turn @ (-4.0, 1.0))
height = [w @ curve @ w / 2 for w, curve in ((straight[-1], CURVE), (slanted[-1], turned))]
assert height[1] > 10 * height[0]
optimisation.descents({"谷顺着坐标轴": (CURVE, straight), "谷转 45°": (turned, slanted)})

# %% [markdown]
# 神经网络的谷没有理由顺着坐标轴。例如注意力里，`v_proj` 的输出在一个头里换一组坐标来记，`o_proj` 跟着换，模型算出来的一样，谷却转了。后面要讲的 Muon 就不怕转。 <!-- by: assert height[1] > 10 * height[0] -->
#
# ### Adam 的一步，一个数一个数地算
#
# 真正的训练有几十万个权重，每个都记着自己的两个移动平均：
#
# $$m \leftarrow \beta_1 m + (1-\beta_1)\,g, \qquad v \leftarrow \beta_2 v + (1-\beta_2)\,g^2$$
#
# $g$ 是这一步的梯度。$\beta_1$、$\beta_2$ 越接近 1，从前的梯度记得越久：$\beta_1=0.9$ 大约记着最近 10 步，$\beta_2=0.95$ 大约记着 20 步。步子是 $\eta\, m/\sqrt{v}$。 <!-- by: round(1 / (1 - 0.9)) == 10 and round(1 / (1 - 0.95)) == 20 -->
#
# 两个量各说一件事。$\sqrt v$ 说梯度平常有多大，除以它，梯度大的权重和梯度小的权重就走得差不多远。$m$ 说方向稳不稳。看两个极端： <!-- by: reasoning -->
#
# - 梯度总是 $+1$：$m$ 和 $\sqrt v$ 都趋向 1，步子走满一个 $\eta$。 <!-- by: reasoning -->
# - 梯度一步 $+1$、一步 $-1$：$\sqrt v$ 还是 1，$m$ 却抵消得接近 0，几乎不动。 <!-- by: reasoning -->
#
# 所以 $m/\sqrt v$ 像一个信心：方向越一致，步子越接近满步；满步就是学习率。 <!-- by: reasoning -->
#
# 两个平均都从 0 开始，头几步偏小：第一步的 $m$ 只有 $(1-\beta_1)\,g$，是梯度的十分之一，$v$ 只有 $g^2$ 的二十分之一。所以各除以 $1-\beta^s$ 补回来，$s$ 是第几步，从 1 数；步数多了，$\beta^s$ 趋近 0，就不用补了。（分母里还有一个很小的数，防止除以 0，下面略去。） <!-- by: round(1 - 0.9, 9) == 1 / 10 and round(1 - 0.95, 9) == 1 / 20 -->
#
# 最后是**权重衰减**（weight decay）：每步把权重缩小一点，没有用处的权重慢慢退回 0。AdamW {cite:p}`loshchilov2019adamw` 让它单独进行，不混进梯度；为什么要单独，算完这一步就说。 <!-- by: @loshchilov2019adamw -->
#
# 一个权重 $w=0.5$，梯度 $g=0.2$，学习率 $\eta=0.006$，衰减 0.1，$\beta_1=0.9$，$\beta_2=0.95$，第一步：
#
# - $m=0.1\times0.2=0.02$，除以 $1-0.9$ 修正后是 0.2；$v=0.05\times0.04=0.002$，除以 $1-0.95$ 修正后是 0.04。
# - 衰减：$0.5\times(1-0.006\times0.1)=0.4997$。
# - 走步：$0.4997-0.006\times0.2/\sqrt{0.04}=0.4997-0.006=0.4937$。
#
# 第一步的大小恰好是学习率，与梯度大小无关：梯度是 0.2 还是 0.0002，都走 0.006。训练刚开始，$m$ 和 $v$ 只见过一两个批次，方向并不可靠，步子却是满的，这正是需要**预热**（warm-up）的原因。


# %%
def first_step(gradient):
    w = torch.nn.Parameter(torch.tensor(0.5))
    adamw = torch.optim.AdamW([w], lr=0.006, betas=(0.9, 0.95), weight_decay=0.1)
    w.grad = torch.tensor(gradient)
    adamw.step()
    return w.item()


m, v = 0.1 * 0.2, 0.05 * 0.04
assert math.isclose(m / 0.1, 0.2)
assert math.isclose(v / 0.05, 0.04)
assert round(first_step(0.2), 4) == round(first_step(0.0002), 4) == 0.4937
first_step(0.2), first_step(0.0002)

# %% [markdown]
# ### AdamW 的 W：衰减不该除以 √v
#
# 老办法把衰减写进损失：加一项 $\frac{\lambda}{2}w^2$，梯度就多出 $\lambda w$。用 SGD，这和每步缩小一点是一回事。用 Adam 就不是了：$\lambda w$ 混在梯度里，也要除以 $\sqrt v$。梯度大的权重 $\sqrt v$ 大，衰减被除得所剩无几；梯度小的，衰减反而放大。 <!-- by: reasoning -->
#
# 三个权重都从 1 开始，梯度一正一负地摆，本来哪儿也不该去，只剩衰减。它们只有梯度的大小不同，走 200 步： <!-- by: reasoning -->


# %%
def after_200_steps(optimizer, size):
    w = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    rule = optimizer([w], lr=0.006, betas=(0.9, 0.95), weight_decay=0.1)
    for s in range(200):
        w.grad = torch.tensor(size * (-1.0) ** s, dtype=torch.float64)
        rule.step()
    return w.item()


sizes = (10.0, 1.0, 0.1)
kept = {
    name: [after_200_steps(rule, size) for size in sizes]
    for name, rule in (("混进梯度", torch.optim.Adam), ("单独衰减（AdamW）", torch.optim.AdamW))
}
assert [round(w, 2) for w in kept["混进梯度"]] == [0.98, 0.88, 0.36]
assert [round(w, 2) for w in kept["单独衰减（AdamW）"]] == [0.88, 0.88, 0.88]
show.table(["梯度的大小", *map(str, sizes)], [[name, *row] for name, row in kept.items()])

# %% [markdown]
# 混进梯度，三个权重剩下 0.98、0.88 和 0.36：该缩多少，取决于与衰减无关的梯度。单独衰减，都是 0.88，与梯度的大小无关：每步乘 $1-0.006\times0.1=0.9994$，200 步剩 0.887，第一步的满步又走掉约 0.006。 <!-- by: round(0.9994 ** 200, 3) == 0.887 and round(0.9994 ** 200 - 0.006, 2) == 0.88 -->
#
# ### 学习率表
#
# 学习率先升、再平、后降（warmup-stable-decay，{cite:t}`hu2024minicpm`）。共 10 步、预热占 0.2、下降占 0.4 时，预热 2 步、下降 4 步，第 $s$ 步（从 0 数）的倍数是
#
# $$\min\left(1,\ \frac{s+1}{2+1},\ \frac{10-s}{4+1}\right)$$
#
# 三项各管一段，取最小的：第二项是上坡，第三项是下坡，1 是顶。例如 $s=0$ 得 1/3，$s=4$ 得 1，$s=9$ 得 1/5。分子分母都加 1，坡上的每一步就都大于 0、小于 1，没有一步是白走的。预设里预热占 2%，下降占 40%：1,500 步就是前 30 步上坡，最后 600 步下坡。 <!-- by: (round(1500 * config.TRAINING["tiny"]["pretrain"].warmup_fraction), round(1500 * config.TRAINING["tiny"]["pretrain"].decay_fraction)) == (30, 600) --> <!-- by: (0.02, 0.4) == (2 / 100, 40 / 100) -->

# %%
by_hand = [1 / 3, 2 / 3, 1, 1, 1, 1, 4 / 5, 3 / 5, 2 / 5, 1 / 5]
factors = [optimizers.learning_rate_factor(s, 10, 0.2, 0.4) for s in range(10)]
assert np.allclose(factors, by_hand)
[round(f, 2) for f in factors]

# %% [markdown]
# ## 真实代码
#
# ### 目标与学习率
#
# 手算过的损失，在包里是三个函数：

# %%
show.source(objectives.cross_entropy, objectives.token_losses, objectives.next_token_loss)

# %% [markdown]
# 形状：`input_ids` 是 `[B, T]`，`logits` 是 `[B, T, V]`，拉平成 `[B·T, V]` 算交叉熵，再还原成 `[B, T]`。`_in_fp32` 把打分转成 32 位，再调用 PyTorch 的 `F.cross_entropy`：即使前向用 16 位的数，损失也在 32 位里算。打分多于 $2^{24}$ 个时分批转，逐位相同，只为少占显存；小模型用不着。
#
# 学习率照手算的那条曲线：

# %%
show.source(optimizers.learning_rate_factor)

# %% [markdown]
# ### 为什么先求和，最后才除
#
# 一个大批次放不进内存时，可以拆成几个小批次，各自反向传播，让梯度加起来，再走一步：**梯度累积**（gradient accumulation）。拆开之后，怎样平均才和不拆一样？
#
# 设小批次一有 3 个词元、损失和 3.0，小批次二有 1 个词元、损失和 3.0。各自平均再平均，是 $(1.0+3.0)/2=2.0$；所有词元一起平均，是 $6.0/4=1.5$。前一种算法让第二批的那个词元占 1/2，其余每个只占 1/6，只有它的三分之一。所以目标函数只给和与个数，训练器把它们分别加起来，只除一次。预训练里每批都装得差不多满，差别很小；监督微调里每批的回答长短不一（{numref}`第 %s 章 <sec-sft>`），差别就大了。 <!-- by: (1 / 2) / (1 / 6) == 3 --> <!-- by: assert tokens.min() > 0.8 * config.batch_size * config.max_seq_len -->
#
# ### 批次从哪里来
#
# `PackedRows`（{numref}`第 %s 章 <sec-tensors>`）是打包好的行。`MicroBatches` 决定第几步读哪几行：它只是步数的函数，没有别的状态。

# %%
show.source(loop.MicroBatches, doc=False)

# %% [markdown]
# ### 训练循环
#
# 去掉日志、存盘、多张卡，一个训练循环只有这几行：
#
# ```python
# for step, (input_ids, labels) in enumerate(batches):
#     for group in optimizer.param_groups:
#         group["lr"] = peak * learning_rate_factor(step, total_steps, 0.02, 0.4)
#     optimizer.zero_grad()
#     logits = model(input_ids)
#     loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
#     loss.backward()
#     clip_grad_norm_(model.parameters(), 1.0)
#     optimizer.step()
# ```
#
# 定学习率，清掉旧梯度，前向，反向，裁剪，走一步。包里的代码做的是同样的事，多出来的行各有各的用处：批次放不进内存，有好几张卡，中途断电。读的时候先认出上面这几行。
#
# 一次训练是一个 `Trainer`：`run` 走完所有的步，一步是 `step`，它依次调用 `set_rate`、`accumulate` 和 `update`；步走完了，`after` 记录、验证、存盘。先看前两个，再按数据流动的次序看其余的。

# %%
show.source(loop.Trainer.run, loop.Trainer.step)

# %% tags=["hide-input"]
show.source(loop.Trainer.set_rate)

# %% [markdown]
# **一、定学习率，清梯度。** 学习率按步数算出，写进每个优化器；旧梯度清掉（忘了会怎样，见 {numref}`ex-pretrain-3`）。

# %% tags=["hide-input"]
show.source(loop.Trainer.accumulate)

# %% [markdown]
# **二、前向、反向，把和与个数加起来。** `learn` 调用这一阶段的目标函数，这里就是 `next_token_loss`；`loss.total` 是损失的和，`.backward()` 让梯度累加到 `parameter.grad`，它现在是**和的梯度**。`autocast` 让矩阵乘法用 `--dtype` 所说的精度：GPU 上默认是 bfloat16，CPU 上写明 `--dtype bfloat16` 才是；float32 时它什么也不做。`no_sync` 让多进程只在最后一个小批次时通信。

# %% tags=["hide-input"]
show.source(loop.Trainer.update)

# %% [markdown]
# **三、除一次，裁剪，走一步。** 梯度除以总个数，变成平均损失的梯度。接着是**梯度裁剪**（gradient clipping）：全部梯度看成一个长向量，长度超过 1 就整体缩到 1。例如 $(3, 4)$ 的长度是 5，缩成 $(0.6, 0.8)$，方向不变。走完这一步，`step` 才把损失从 GPU 取回来：取数要等前面的活全部干完，取早了，GPU 就要闲着等下一条指令。损失或梯度不再是有限的数，就立刻停下，磁盘上的好权重不会被坏的盖掉。 <!-- by: minillm/training/loop.py -->

# %%
p = torch.nn.Parameter(torch.zeros(2))
p.grad = torch.tensor([3.0, 4.0])
norm = torch.nn.utils.clip_grad_norm_([p], 1.0)
assert float(norm) == 5.0
assert torch.allclose(p.grad, torch.tensor([0.6, 0.8]))
float(norm), p.grad

# %% [markdown]
# 裁剪什么时候有用？Adam 的步子本来就和梯度的大小无关，好像用不着裁。可是 $m$ 和 $v$ 会*记着*：偶尔来一个坏批次，梯度比平常大一百倍，往后许多步都受它的影响。做个试验：梯度总是 1，只有第 31 步，来了一个方向相反的 $-100$。 <!-- by: reasoning -->


# %% tags=["hide-input"] mystnb={"figure": {"caption": "第 31 步来了一个坏批次。纵轴是权重走了多远，以学习率为单位。裁到 1，一顿就过去；不裁，先倒退，再慢慢起步。", "name": "fig-pretrain-clip"}, "image": {"alt": "两条线先重合着上升，到第 31 步分开：裁剪的接着上升；不裁的转而下降，过了很久才回头，最后远远落在下面"}}
def one_bad_batch(clip):
    w = torch.nn.Parameter(torch.tensor(0.0, dtype=torch.float64))
    adamw, gone = torch.optim.AdamW([w], lr=0.01, betas=(0.9, 0.95), weight_decay=0), []
    for step in range(1, 101):
        w.grad = torch.tensor(-100.0 if step == 31 else 1.0, dtype=torch.float64)
        if clip:
            torch.nn.utils.clip_grad_norm_([w], 1.0)
        adamw.step()
        gone.append(-w.item() / 0.01)  # in learning rates
    return gone


clipped, unclipped = one_bad_batch(True), one_bad_batch(False)
assert [round(gone[29]) for gone in (clipped, unclipped)] == [30, 30]
assert [round(gone[-1]) for gone in (clipped, unclipped)] == [98, 33]
back = 1 + next(s for s in range(31, 100) if unclipped[s] > unclipped[29])
assert 80 < back < 90
steps = list(range(1, 101))
courses = {"裁剪": (steps, clipped), "不裁": (steps, unclipped)}
colours = [show.COLOURS["pretrain"], show.COLOURS["bad"]]
show.lines(courses, "步数", "走了多远（学习率）", colours)

# %% [markdown]
# 走 100 步，裁剪的走了 98 个学习率，不裁的只走了 33 个：先被 $m$ 带着倒退，又被 $v$ 里那个 $100^2$ 压着迈不开腿，到第 80 步以后才回到出事前的地方。裁剪把 $-100$ 变成 $-1$，坏批次只算一票。Muon 也记动量，也一样要裁。反过来，每一步都超过上限时，裁剪只是把梯度都缩到同样长，而 Adam 和 Muon 的步子本来就不看梯度的长短，所以它治不了学习率太大。 <!-- by: assert 80 < back < 90 --> <!-- by: assert [round(gone[-1]) for gone in (clipped, unclipped)] == [98, 33] -->

# %% tags=["hide-input"]
show.source(loop.Trainer.after)

# %% [markdown]
# **四、记录、验证、存盘。** 每步在 `pretrain_log.jsonl` 写一行，同样的数也进 TensorBoard（`tensorboard --logdir ../tf_dir`）；每 500 步在留出的文本上验证一次；每 1,000 步存一个检查点。
#
# ### 两个优化器：Muon 与 AdamW
#
# AdamW 把每个权重当作单独的数，所以怕谷转了方向（{numref}`fig-pretrain-rotated`）。可是注意力和前馈网络的权重是矩阵，它的梯度也是矩阵，有自己的方向，各个方向的大小相差很多：按梯度走，大的方向走得远，小的方向走得少。
#
# “方向的大小”可以画出来。把单位圆上的每个点乘以一个 $2\times2$ 的矩阵，圆就变成椭圆；椭圆的两根半轴各有多长，叫**奇异值**（singular value）。Muon {cite:p}`jordan2024muon` 先对梯度做移动平均，也就是动量，再把椭圆换成圆：轴的方向不动，长短都改成 1，于是每个方向走一样远（{numref}`fig-pretrain-muon`）。Adam 给每个坐标一把尺子，Muon 给每根轴一把尺子，轴是矩阵自己的，坐标怎么转都跟着转。

# %% tags=["hide-input"] mystnb={"figure": {"caption": "下面算的 $G$ 把单位圆（虚线）变成什么。左：先除以全长（四个数的平方和开方）$\\sqrt{50}$，两根半轴是 0.95 和 0.32；右：Muon 把两根都改成 1，方向不动。", "name": "fig-pretrain-muon"}, "image": {"alt": "左图是一个斜着的细长椭圆，长轴是短轴的三倍；右图是一个圆，两根半轴的方向和左图相同，一样长"}}
G = [[3.0, 0], [4, 5]]
length = math.sqrt(sum(g * g for row in G for g in row))
assert math.isclose(length**2, 50)
assert [round(math.sqrt(s) / length, 2) for s in (45, 5)] == [0.95, 0.32]
optimisation.equalized_axes(G)

# %% [markdown]
# 写成公式，任何矩阵都拆得成 $G=U\Sigma V^\top$：$V^\top$ 先转一下（也许还翻个面），$\Sigma$ 沿坐标轴拉伸，$U$ 再转一下；拉伸的倍数就是奇异值。因为 $G^\top G=V\Sigma^2V^\top$，奇异值可以从 $G^\top G$ 手算：找出乘上它之后只变长短、不转方向的向量，长短的倍数叫特征值，开方就是奇异值。倍数全换成 1，剩下 $UV^\top$，只转不拉，这样的矩阵叫正交矩阵。
#
# 例如 $G=\begin{pmatrix}3&0\\4&5\end{pmatrix}$，$G^\top G=\begin{pmatrix}25&20\\20&25\end{pmatrix}$，它把 $(1,1)$ 变成 $(45,45)$，把 $(1,-1)$ 变成 $(5,-5)$，所以特征值是 45 和 5，奇异值是 $\sqrt{45}=6.71$ 和 $\sqrt5=2.24$：一个方向的步子是另一个的三倍。这两个方向除以自己的长度 $\sqrt2$，就是 $V$ 的两列；$G$ 把它们送到 $(3,9)$ 和 $(3,-1)$ 的方向，各缩到长度 1，就是 $U$ 的两列。换成 1 之后是 $UV^\top=\frac{1}{\sqrt{20}}\begin{pmatrix}4&-2\\2&4\end{pmatrix}=\begin{pmatrix}0.894&-0.447\\0.447&0.894\end{pmatrix}$。 <!-- by: (45 / 5) ** 0.5 == 3 -->

# %%
G = torch.tensor([[3.0, 0], [4, 5]])
U, S, Vt = torch.linalg.svd(G)
assert torch.allclose(S, torch.tensor([45.0, 5.0]).sqrt())
assert torch.allclose(U @ Vt, torch.tensor([[4.0, -2], [2, 4]]) / math.sqrt(20))

w = torch.nn.Parameter(torch.zeros(2, 2))
optimizer = optimizers.Muon([w], lr=1.0, weight_decay=0.0)
w.grad = G.clone()
optimizer.step()
after = torch.linalg.svdvals(w.detach()) / (0.2 * math.sqrt(2))
assert after.max() / after.min() < 2 < 2.9 < S.max() / S.min()

turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
U2, _, Vt2 = torch.linalg.svd(turn @ G)
assert torch.allclose(U2 @ Vt2, turn @ (U @ Vt), atol=1e-5)  # turned coordinates, turned step
print("singular values of the gradient:", [round(float(s), 2) for s in S])
print("of Muon's step, unscaled:       ", [round(float(s), 1) for s in after])

# %% [markdown]
# 真正的 Muon 不做奇异值分解，那太慢。奇异值可以不分解就改：$(aI+bXX^\top+c(XX^\top)^2)X$ 的 $U$、$V$ 与 $X$ 相同（$XX^\top=U\Sigma^2U^\top$，中间的 $V^\top V$ 消掉了），每个奇异值 $s$ 变成 $as+bs^3+cs^5$。系数取 3.4445、−4.775、2.0315，上面的 0.95 和 0.32 走一轮就变成 0.75 和 0.95：小的猛涨，大的反而压一压。重复 5 次（Newton–Schulz 迭代），0.002 到 1 之间的都落到 1 附近，不恰好是 1： <!-- by: round(3.4445 * 0.95 - 4.775 * 0.95 ** 3 + 2.0315 * 0.95 ** 5, 2) == 0.75 --> <!-- by: round(3.4445 * 0.32 - 4.775 * 0.32 ** 3 + 2.0315 * 0.32 ** 5, 2) == 0.95 -->

# %%
s = torch.linspace(0.002, 1, 1000)
for _ in range(optimizers.ROUNDS):
    s = optimizers.A * s + optimizers.B * s**3 + optimizers.C * s**5
assert optimizers.ROUNDS == 5
assert 0.6 < s.min() < s.max() < 1.3
show.source(optimizers.orthogonalize)

# %% [markdown]
# 拿真的梯度试一次：随机权重的模型读一个批次，取第一层 `up_proj` 的梯度，它是 352 行 128 列的矩阵，有 128 个方向。除以全长之后，最大的方向比最小的大十倍还不止：照着梯度走，步子几乎都花在少数几个方向上。正交化以后，128 个方向都在 1 附近（{numref}`fig-pretrain-singular`）。 <!-- by: assert sizes["梯度"].max() > 10 * sizes["梯度"].min() --> <!-- by: assert 0.6 < sizes["Muon 的步子"].min() < sizes["Muon 的步子"].max() < 1.3 --> <!-- by: config.MODELS["tiny"].intermediate_size == 352 -->

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"figure": {"caption": "一个真的梯度的 128 个奇异值，从大到小，纵轴取对数。", "name": "fig-pretrain-singular"}, "image": {"alt": "两条线：梯度的从左到右一直往下，跨过不止一个数量级；Muon 的步子那条几乎是平的，在 1 的近旁"}}
net = lab.fresh()
with tempfile.TemporaryDirectory() as name:
    path = lab.data() / "pretrain_chinese_val.jsonl"
    held_out = dataset.load_dataset(path, "pretrain", lab.tokenizer(), 128, Path(name))
first_batch = PackedRows(held_out, 128, epochs=1, seed=0).batch(range(8))
objectives.next_token_loss(net, first_batch).total.backward()
gradient = optimizers.turned(net.model.layers[0].mlp.up_proj.weight.grad)  # [128, 352]
sizes = {
    "梯度": torch.linalg.svdvals(gradient / gradient.norm()),
    "Muon 的步子": torch.linalg.svdvals(optimizers.orthogonalize(gradient[None])[0]),
}
assert sizes["梯度"].max() > 10 * sizes["梯度"].min()
assert 0.6 < sizes["Muon 的步子"].min() < sizes["Muon 的步子"].max() < 1.3
numbers = list(range(1, 129))
series = {name: (numbers, values.tolist()) for name, values in sizes.items()}
show.lines(series, "第几个方向", "奇异值", [show.GREY, show.COLOURS["pretrain"]], log_y=True)

# %% [markdown]
# 同样形状的矩阵叠在一起算，CPU 上用单精度；PyTorch 自带的 `torch.optim.Muon` 是同一条规则，逐个矩阵用 bfloat16 算。步子再乘 $0.2\sqrt{\max(\text{行},\text{列})}$，使每个元素的均方根约 0.2，与 AdamW 相当 {cite:p}`liu2025muon`，两个优化器才能共用一个学习率。嵌入表和归一化的权重不是“从向量到向量的变换”，留给 AdamW。训练器就这样分： <!-- by: assert 0.16 < rms < 0.20 -->

# %%
show.source(optimizers.make_optimizers)

# %% [markdown]
# 值不值得？{cite:t}`liu2025muon` 报告达到同样损失约需 AdamW 一半的计算量。自己来比，先要公平：两边都得用自己最好的学习率，预热也都要够长。预设的预热是 2%，150 步里只有 3 步，对 AdamW 太短；下面两边都取 20%，30 步。学习率各试三个，每个是前一个的两倍；其余与预设相同，都从同样的随机权重出发。 <!-- by: @liu2025muon --> <!-- by: 0.02 * 150 == 3 --> <!-- by: 0.2 * 150 == 30 -->


# %%
def loss_after_150(optimizer, rate):
    changes = {"optimizer": optimizer, "learning_rate": rate, "warmup_fraction": 0.2}
    run = lab.variant(f"pretrain-{optimizer}", "pretrain", max_steps=150, **changes)
    return run.log[-1]["val_loss"]


rates = {"muon": (0.006, 0.012, 0.024), "adamw": (0.002, 0.004, 0.008)}
early = {name: {r: loss_after_150(name, r) for r in tried} for name, tried in rates.items()}

# %% tags=["nbval-ignore-output"]
rows = [[name, rate, loss] for name, losses in early.items() for rate, loss in losses.items()]
show.table(["优化器", "学习率", "150 步后的验证损失"], [[n, f"{r:g}", x] for n, r, x in rows])

# %% tags=["remove-input", "nbval-ignore-output"]
best = {name: min(losses, key=losses.get) for name, losses in early.items()}
assert early["muon"][best["muon"]] < early["adamw"][best["adamw"]] - 0.1
spread = {name: max(losses.values()) - min(losses.values()) for name, losses in early.items()}
show.say(
    f"各取最好的一个：Muon 是 {early['muon'][best['muon']]:.2f}（学习率 {best['muon']:g}），",
    f"AdamW 是 {early['adamw'][best['adamw']]:.2f}（学习率 {best['adamw']:g}）。起跑的这一段，Muon 领先。",
    f"学习率从最小到最大差四倍，Muon 的三个损失相差 {spread['muon']:.2f}，AdamW 的相差 {spread['adamw']:.2f}。",
)

# %% [markdown]
# 练到底就不是这样了。`python benchmarks/time_to_loss.py` 走完全部 1,500 步：Muon 用 135 秒，AdamW（学习率 0.002）用 104 秒，留出的文本上每字节分别是 0.222 和 0.226 比特。（那里只取 64 行留出的文本来量，数据也是早先的一版，所以这两个数只能彼此比，不能和本章后面的结果比。）Muon 的一步走得远，也贵一些，到头来两样差不多抵消；0.004 比特的差别，一个种子说明不了什么。所以对照要看量的是哪一段：起跑领先的，未必先到终点。 <!-- by: benchmarks/README.md --> <!-- by: benchmarks/time_to_loss.py -->
#
# 预设用的是 Muon：起跑快，终点不输，对学习率也不挑剔。上表里 0.006 还不是最好的，为什么预设取它？因为 150 步是短跑，步子大的占便宜。走完 1,500 步，0.006 的验证损失是 0.664，0.012 是 0.692，0.018 是 0.728，次序倒了过来（这几个数是单独量的一次，也只能彼此比）。`python benchmarks/sweep.py` 训练 200 步，学习率从 0.003 到 0.024 差八倍，Muon 的验证损失在 1.026 和 1.229 之间；AdamW 从 0.001 到 0.003 只差三倍，就在 1.416 和 1.791 之间。不过那里的预热只有 4 步，对 AdamW 仍嫌短（全表在 `benchmarks/README.md`）。 <!-- by: benchmarks/README.md --> <!-- by: 200 * 0.02 == 4 -->
#
# ### 检查点与断点续训
#
# 训练几个小时后断电，怎么办？**检查点**（checkpoint）存下接着走所需的一切：权重、优化器的 $m$ 和 $v$、步数。读到哪一行数据、学习率是多少，都由步数算出，不必存。

# %%
show.source(files.atomic_file, files.write_atomically)

# %% [markdown]
# 文件先写到 `.tmp`，落盘后再改名。改名是一个不可分的操作：任何时刻断电，磁盘上不是完整的旧文件，就是完整的新文件。格式是 safetensors，只有张量和一段 JSON，读它不会执行代码（`pickle` 会）。文件头里记着全部内容的 SHA-256：磁盘坏了一个字节也看得出来，续训就退到前一个检查点。 <!-- by: minillm/training/checkpoint.py -->
#
# 说它能接着走，就要试：同样的 6 步，一次走完；另一次每 2 步存一个检查点，第 5 步后“断电”，再用 `resume=True` **断点续训**（resume）。两份权重应当逐位相同。 <!-- by: assert all(torch.equal(one[name], two[name]) for name in one) -->


# %%
def power_cut(step, model):
    if step == 5:
        raise KeyboardInterrupt


lines = (lab.data() / "pretrain_chinese.jsonl").read_text(encoding="utf-8").splitlines()
silent = io.StringIO()
with tempfile.TemporaryDirectory() as name, redirect_stdout(silent), redirect_stderr(silent):
    folder = Path(name)
    (folder / "rows.jsonl").write_text("\n".join(lines[:1000]), encoding="utf-8")
    base = replace(TRAINING["tiny"]["pretrain"], max_steps=6, save_every=2)
    base = replace(base, data_path=folder / "rows.jsonl", tf_dir=folder, device="cpu")
    base = replace(base, tokenizer_path=lab.tokenizer_path())
    whole = loop.train(replace(base, out_dir=folder / "whole"), "pretrain")
    try:
        loop.train(replace(base, out_dir=folder / "cut"), "pretrain", power_cut)
    except KeyboardInterrupt:
        again = loop.train(replace(base, out_dir=folder / "cut", resume=True), "pretrain")
    one, two = (checkpoint.load_checkpoint(path)[0].state_dict() for path in (whole, again))
assert all(torch.equal(one[name], two[name]) for name in one)
print(re.findall(r"going on from .*/(.*)", silent.getvalue()))

# %% [markdown]
# 续训从第 4 步的检查点出发，重走第 5、6 步，权重逐位相同。断电可能发生在任何时刻，也可能正好在写检查点时：`python benchmarks/crash.py` 让每个阶段在随机的时刻被强行结束 20 次，60 次的结果都与没有中断过的逐位相同（在 CPU 上）。自己按 Ctrl-C 不会丢东西：走完这一步，存好，再停。 <!-- by: benchmarks/README.md -->
#
# ### 换到 GPU 上
#
# 同一段循环不改一行，要管的有三样：
#
# - **精度**，`--dtype`。`auto` 在 GPU 上用 bfloat16 做矩阵乘法，一个数只占 16 位，算得快；权重和优化器状态留在 32 位。为什么不全用 16 位？bfloat16 的有效数字只有两三位，1 加上 0.001 还是 1，小的改动就加不上去了。两种混着用，叫**混合精度**（mixed precision，{cite:t}`micikevicius2018mixed`）。那篇论文用的是另一种 16 位的数，范围窄，小的梯度会变成 0，所以要先把损失放大；bfloat16 的范围和 32 位的一样宽，用不着。在 CPU 上，`auto` 是 32 位；有 AMX 或 AVX512_BF16 指令的 CPU（`lscpu` 会列出来）也可以写明 `--dtype bfloat16`。 <!-- by: 0.001 < 2**-8 -->
# - **编译**，`--compile`。先花些时间把模型和损失一起编译，之后更快：很多小算子合成几个大的，每个位置的分数（`default` 有 6,400 个）也不再另存一份 32 位的副本。快多少因卡而异，`python benchmarks/speed.py --batch_size 128 --compile` 会量。
# - **几张卡**，用 `torchrun` 来启动：
#
# ```bash
# torchrun --nproc_per_node 2 trainer/train_pretrain.py --compile
# ```
#
# 每步的行数 = 批大小 × 累积次数 × 进程数。内存不够时，把 `--batch_size` 减半、`--accumulation_steps` 加倍，结果只差舍入误差；用 `--resume` 接着训练时，这个乘积必须和原来一样，否则第几步读哪几行就对不上了，程序会报错。
#
# ## 实验
#
# ### 训练
#
# `tiny` 预设：每步 8 行 × 128 个位置，1,500 步。没有缓存时约两分半钟。

# %%
run = lab.ladder("pretrain")
config = TRAINING["tiny"]["pretrain"]
fresh, model = lab.fresh(), run.model()
tokenizer = lab.tokenizer()
assert len(run.log) == config.max_steps == 1500
tokens = np.diff([entry["tokens"] for entry in run.log], prepend=0)  # of each step
assert tokens.min() > 0.8 * config.batch_size * config.max_seq_len
print(f"parameters       {model.num_parameters():,}")
print(f"rows per step    {config.batch_size} x {config.max_seq_len} positions")

# %% tags=["nbval-ignore-output"] mystnb={"figure": {"caption": "预训练的损失（左，20 步的平均；圆点是验证损失）和学习率（右）。", "name": "fig-pretrain-curves"}, "image": {"alt": "左图的横轴是步数，纵轴是损失，单位是每个词元的奈特数：线是训练损失，圆点是验证损失，落在线的近旁。右图是每一步的学习率：直线上升，平一段，再直线下降"}}
validation = {int(e["step"]): e["val_loss"] for e in run.log if "val_loss" in e}
trained = dict(enumerate(show.smooth([e["loss"] for e in run.log], 50), 1))  # of 50 steps
assert all(abs(trained[step] - loss) < 0.1 for step, loss in validation.items())
show.curves({"预训练": run.log})

# %% [markdown]
# {numref}`fig-pretrain-curves` 怎么读：
#
# - **起点**是 $\ln 1024=6.93$：随机的模型对 1,024 个词元一视同仁。起点若高出许多，先查初始化和标签。 <!-- by: assert abs(first - math.log(1024)) < 0.1 -->
# - **头 100 步**最陡，降得比后面所有的步加起来还多。学的是哪些词元常见、谁常跟在谁后面。 <!-- by: assert first - trained[100] > 2 * (trained[100] - trained[1500]) -->
# - **中间的平台**学习率不变，损失降得慢了，每一步还有抖动。 <!-- by: assert 0 < trained[400] - trained[900] < 0.3 -->
# - **第 900 步之后**学习率下降，损失又降一截。大步子在谷底两侧来回跳，小步子才落得下去。 <!-- by: assert trained[900] - trained[1500] > 0.08 -->

# %%
first = run.log[0]["loss"]
assert abs(first - math.log(1024)) < 0.1
assert first - trained[100] > 2 * (trained[100] - trained[1500])
assert 0 < trained[400] - trained[900] < 0.3
assert config.max_steps * (1 - config.decay_fraction) == 900
assert trained[900] - trained[1500] > 0.08
assert validation[1500] < 0.8 < validation[500]

# %% [markdown]
# :::{admonition} 真实世界
# :class: real-world
#
# DeepSeek-V3（2024）的报告写得细，可以逐项对照。AdamW 的 $\beta_1=0.9$、$\beta_2=0.95$，权重衰减 0.1，梯度裁剪到 1，都和本章一样；学习率也是先升、再平、后降，峰值 $2.2\times10^{-4}$。不一样的是数量：一步最多 15,360 行，每行 4,096 个词元，约 6,300 万个，本章一步是 1,024 个。读完 14.8 万亿个词元，2,048 张 H800 显卡一共用了 266.4 万卡时（一张卡用一小时是一卡时）{cite:p}`deepseek2024v3`。<!-- by: round(15360 * 4096, -6) == 63000000 --><!-- by: 8 * 128 == 1024 --><!-- by: @deepseek2024v3 -->
#
# Llama 3.1 405B（2024）用了 3,084 万卡时 {cite:p}`meta2024llama31`。其中 54 天有详细的记录：意外中断 419 次，约三小时一次 {cite:p}`grattafiori2024llama3`。没有检查点，是练不完的。<!-- by: round(54 * 24 / 419, 1) == 3.1 --><!-- by: @grattafiori2024llama3 -->
#
# Muon 也用到了大模型上。Kimi K2（2025）用它的改版训练 1 万亿个参数，读 15.5 万亿个词元，损失没有冲高过一次 {cite:p}`kimi2025k2`。DeepSeek-V4（2026）也换成 Muon，嵌入表、输出层和 RMSNorm 的权重仍归 AdamW {cite:p}`deepseek2026v4`，与本章分得一样。（2026 年 11 月核对。）<!-- by: @kimi2025k2 --><!-- by: @deepseek2026v4 -->
# :::
#
# ### 这个损失算好吗
#
# 单看最后的损失，看不出好坏，要有对照。{numref}`第 %s 章 <sec-environment>` 留下了一条要打败的基线：从同样的训练文本里数出来的 n 元模型，在同样的留出文本上量，二元是 1.05，三元是 0.68，五元是 0.458 比特每字节。 <!-- by: book/01-environment.py -->
#
# 损失的单位是每个词元的奈特数。除以 $\ln 2$，再除以每个词元的字节数，就换成了同一个单位：

# %%
train_set, val_set = (
    dataset.load_dataset(
        lab.data() / f"pretrain_chinese{s}.jsonl", "pretrain", tokenizer, 128, run.folder / "cache"
    )
    for s in ("", "_val")
)
targets = val_set.ids[1:][val_set.mask[1:] == 1]  # the held-out tokens that are predicted
num_bytes = sum(len(tokenizer.token_bytes(i)) for i in targets)
assert num_bytes == 116480  # those that chapter 1 measures on
bytes_per_token = num_bytes / len(targets)
print(f"{len(train_set):,} training texts")
print(f"{len(targets):,} held-out tokens, {bytes_per_token:.2f} bytes each")

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"figure": {"caption": "留出文本上的每字节比特数，越低越好。灰色是数出来的 n 元模型，蓝色是训练途中和训练完的模型，它打败了每一个。", "name": "fig-pretrain-bpb"}, "image": {"alt": "六根横条，从上到下是二元、三元、五元模型，和预训练第 500、1000、1500 步的模型，一根比一根短"}}
counted = {"二元": 1.05, "三元": 0.68, "五元": 0.458}
chapter_1 = (lab.ROOT / "book" / "01-environment.py").read_text(encoding="utf-8")
assert all(str(value) in chapter_1 for value in counted.values())
learned = {
    f"模型，第 {step} 步": loss / math.log(2) / bytes_per_token for step, loss in validation.items()
}
values = [*counted.values(), *learned.values()]
assert values == sorted(values, reverse=True)
colours = [show.GREY] * len(counted) + [show.COLOURS["pretrain"]] * len(learned)
show.bars(counted | learned, "每字节比特数", colours)

# %% tags=["remove-input", "nbval-ignore-output"]
final = run.scores()["bits_per_byte"]
assert abs(final - learned["模型，第 1500 步"]) < 0.002
assert final < 0.6 * counted["五元"]
show.say(f"训练完的模型每字节只要 {final:.3f} 比特，是五元模型的 {final / counted['五元']:.0%}。")

# %% [markdown]
# 基线打败了：模型每字节的比特数不到五元模型的六成。数数的模型数过全部 84,263 篇文本，训练只读了其中的一部分（{numref}`ex-pretrain-4`），所以赢的不是读得多。五元模型只看前四个字；谁住在哪里、数到第几步了、刚才捡到的是什么，答案常在更远的地方。 <!-- by: assert final < 0.6 * counted["五元"] -->
#
# （上一格的数若和图里最后一条差在末位，那是因为量的行不全一样：图里量全部留出的文本，`scores()` 至多取 200 行。） <!-- by: minillm/evaluate.py -->
#
# 它到不了 0：文本里有真正随机的东西，比如故事里捡到的是帽子还是钥匙，谁也猜不准。
#
# ### 它怎样一步步学会说话
#
# 训练途中留下了快照。让每个快照接着写同样的三个开头，用**贪心解码**（greedy decoding），即每步取分数最高的词元。 <!-- by: reasoning -->


# %%
def go_on(model, text, length=24, **sampling):
    prompt = [tokenizer.bos_id, *tokenizer.encode(text)]
    [ids] = complete(model, [prompt], length, [tokenizer.bos_id], Sampling(**sampling))
    return tokenizer.decode(ids)


# %% tags=["nbval-ignore-output"]
prompts = ["张静住在", "8加4", "小熊说：“猫、狗。”小兔跟着说"]
snapshots = {0: fresh, **{step: run.model(step) for step in run.steps}}
rows = [[s, *(go_on(m, p)[:36] for p in prompts)] for s, m in snapshots.items()]
show.table(["步数", *prompts], rows)

# %% [markdown]
# 表里每格只是一个例子，要下结论就得数。先把**像不像**和**对不对**分开来数。人口册上的 48 个人，每人一个“某某住在”的开头：接上随便哪座城市，就算像；接上他自己的城市，才算对。没见过的加法 30 道：从头到尾是数数的样子，就算像；每一步都数对，才算对。


# %%
CITY = "(" + "|".join(words.ATTRIBUTES["城市"].values) + ")。"
COUNTING = r"：从\d+往[前后]走\d+步，(\d+步到\d+，)+等于\d+。"
homes = [(f"{name}住在", p.facts["城市"] + "。") for name, p in words.PEOPLE.items()]
sums = [(item.prompt, item.answer) for item in scoring.continuations("chain", 30)]
assert len(homes) == 48


def alike_and_right(step, items, pattern):
    prompts = [[tokenizer.bos_id, *tokenizer.encode(prompt)] for prompt, _ in items]
    replies = run.evaluator(step).answers(prompts)
    alike = np.mean([bool(re.match(pattern, reply)) for reply in replies])
    right = np.mean([r.startswith(answer) for r, (_, answer) in zip(replies, items, strict=True)])
    return float(alike), float(right)


# %% tags=["nbval-ignore-output"]
cities, counts = (
    {step: alike_and_right(step, items, pattern) for step in run.steps}
    for items, pattern in ((homes, CITY), (sums, COUNTING))
)
assert max(alike - right for alike, right in cities.values()) > 0.3
assert cities[1500][1] > 0.85
rows = [
    [f"{what}：{how}", *(found[step][i] for step in run.steps)]
    for what, found in (("住在哪里", cities), ("数着算", counts))
    for i, how in enumerate(("像", "对"))
]
show.table(
    ["步数", *map(str, run.steps)], rows, [None] + [show.COLOURS["pretrain"]] * len(run.steps)
)

# %% tags=["remove-input", "nbval-ignore-output"]
half = [
    [next(step for step in run.steps if found[step][i] >= 0.5) for i in (0, 1)]
    for found in (cities, counts)
]
assert all(alike < right for alike, right in half)
show.say(
    f"住在哪里：第 {half[0][0]} 步的快照已经多半像样，第 {half[0][1]} 步的才多半写对。",
    f"数着算：先后是第 {half[1][0]} 步和第 {half[1][1]} 步。",
)

# %% [markdown]
# 句子的样子先到，内容后到。早的快照写得出城市的名字，却常是别人的城市；数数的格式齐全，数却不对。模型先学会怎么说，后学会说得对。流畅不等于正确，读任何语言模型的输出都要记得这一点。 <!-- by: assert all(alike < right for alike, right in half) --> <!-- by: assert max(alike - right for alike, right in cities.values()) > 0.3 -->
#
# 还有别的能力。`scoring.continuations` 给出训练时从没出现过的句子，切成开头和应有的结尾，模型写出的必须以它开始。下面先看四类；后面的总表里还有三类：`calendar` 数日子，`add` 直接写出和，`shop` 算两样东西一共多少钱。

# %%
for kind in ("fact", "reading", "echo", "chain"):
    item = scoring.continuations(kind, 1)[0]
    print(f"{kind:8} {item.prompt[-24:]} → {item.answer[:30]}")

# %% tags=["nbval-ignore-output"]
kinds = ("fact", "reading", "chain", "echo")
accuracy = {
    kind: [run.evaluator(step).continuation_accuracy(kind, 30) for step in run.steps]
    for kind in kinds
}
NAMES = {"fact": "事实", "reading": "找地点", "chain": "数着算", "echo": "照抄"}
NAMES |= {"calendar": "数日子", "add": "直接加", "shop": "算价钱"}
rows = [[f"{NAMES[kind]} {kind}", *values] for kind, values in accuracy.items()]
show.table(["步数", *map(str, run.steps)], rows)

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"figure": {"caption": "留出句子的续写正确率（每类 30 题）。横轴是训练步数，取对数。", "name": "fig-pretrain-skills"}, "image": {"alt": "四条线，每种能力一条，横轴是取对数的训练步数，纵轴是正确率，左端都贴着 0"}}
assert all(values[0] <= 0.1 for values in accuracy.values())
assert accuracy["echo"][-2] <= 0.2
assert run.steps[-2] == 800
show.lines(
    {NAMES[kind]: (run.steps, values) for kind, values in accuracy.items()},
    "步数",
    "正确率",
    log_x=True,
    marker="o",
)

# %% [markdown]
# 四种能力不是一起涨的（{numref}`fig-pretrain-skills`）：
#
# - 事实 `fact`（换一种说法讲一个人的事）靠反复见到，见一次，记牢一点。 <!-- by: reasoning -->
# - 找地点 `reading`（回头找故事里的地点）是一下子学会的：相邻两个快照之间，正确率至少跳 0.4。我们的猜想是，它要靠 {numref}`第 %s 章 <sec-model>` 里那种会回头看的头：头没有长成，一个地点也找不到；长成了，这一类题就一起会了。下一节来查。 <!-- by: assert jumps["reading"] >= 0.4 -->
# - 数着算 `chain`（没见过的加法）要连对好几步，错一步就不算。
# - 照抄 `echo`（原样照抄三个词）来得晚：到 800 步还几乎不会。 <!-- by: assert accuracy["echo"][-2] <= 0.2 --> <!-- by: assert run.steps[-2] == 800 -->

# %% tags=["remove-input", "nbval-ignore-output"]
jumps = {kind: max(np.diff(values)) for kind, values in accuracy.items()}
at = int(np.argmax(np.diff(accuracy["reading"])))
before, after = run.steps[at : at + 2]
assert jumps["reading"] >= 0.4
assert trained[after] > 0.6 * trained[before]
show.say(
    f"这次训练里，`reading` 在第 {before} 步的快照上是 {accuracy['reading'][at]:.2f}，到第 {after} 步",
    f"是 {accuracy['reading'][at + 1]:.2f}。同一段里，训练损失从 {trained[before]:.2f} 降到 {trained[after]:.2f}，",
    "没有这样的一跳。",
    *[
        f"能力也会倒退：`chain` 从第 {a} 步的 {x:.2f} 跌到第 {b} 步的 {y:.2f}，那时学习率还没有降下来。"
        for (a, x), (b, y) in pairwise(zip(run.steps, accuracy["chain"], strict=True))
        if y < x - 0.15 and b < 900
    ],
)

# %% [markdown]
# 损失是所有词元的平均，一种能力的突变淹没在里面；所以只看损失不够，要一类一类地量。 <!-- by: assert trained[after] > 0.6 * trained[before] -->
#
# 30 道题量出来的正确率有多准？像抛 30 次硬币，正面该有 15 次，抛出 10 次或 20 次也不稀奇。真实的正确率若是一半，量出三分之一或三分之二都有可能：误差可达 ±0.17。所以不要细究相邻两点的小差别；怎样算，{numref}`第 %s 章 <sec-sft>` 会说。 <!-- by: assert round((high - low) / 2, 2) == 0.17 --> <!-- by: 15 - 30 * 0.17 > 9.5 -->

# %%
low, high = wilson_interval(15, 30)
assert round((high - low) / 2, 2) == 0.17
final_scores = run.scores()["continuations"]  # up to 60 items of each kind
assert final_scores["fact"] >= 0.65
assert final_scores["reading"] >= 0.75
assert final_scores["chain"] >= 0.45
never = Evaluator(fresh, tokenizer, max_new_tokens=8)
assert never.continuation_accuracy("fact", 30) == 0

# %% tags=["nbval-ignore-output"]
show.table(
    ["续写", "正确率"],
    [[f"{NAMES[kind]} {kind}", score] for kind, score in final_scores.items()],
    [None, show.COLOURS["pretrain"]],
)

# %% tags=["remove-input", "nbval-ignore-output"]
study = json.loads(lab.RESULTS.read_text(encoding="utf-8"))["scores"]["pretrain"]
chain, add = study["continue chain"], study["continue add"]
assert chain["min"] > 0.7
assert chain["min"] > add["max"]
show.say(
    f"同是加法，这次训练里，数着算的 `chain` 答对 {final_scores['chain']:.0%}，",
    f"不数、直接写出和的 `add` 答对 {final_scores['add']:.0%}。",
    f"一次训练说明不了什么，所以换着种子，训练了 {len(chain['values'])} 遍：",
    f"`chain` 在 {chain['min']:.0%} 和 {chain['max']:.0%} 之间，`add` 在 {add['min']:.0%} 和 {add['max']:.0%} 之间。",
)

# %% [markdown]
# 数着算每次都学得会，最差的一次也比直接算最好的一次强。直接写出和，要求模型在一次前向里得出结果；数着算把它拆成一串容易的小步，每步只要往前数一个数。这是**思维链**（chain of thought）最小的例子，{numref}`第 %s 章 <sec-sft>` 会用没问过的题再比一次。 <!-- by: assert chain["min"] > add["max"] -->
#
# ### 会回头看的头，是哪一刻长成的
#
# 快照都在，每个头看哪里也量得出来，猜想可以查。
#
# 先看最单纯的抄写：随机取 24 个词元，连写两遍。第一遍谁也猜不着。第二遍只要会回头就全猜得着：手里是“乙”，回头找到上一个“乙”，抄它后面的那一个。大的语言模型会，靠的是一种头，叫**归纳头**（induction head）{cite:p}`olsson2022induction`。它要两层合作：前一层的头让每个词元记下“我前面是谁”，后一层的头拿“现在是谁”去对，对上了就抄。它在训练早期的一小段里突然长成，损失曲线上看得见一个小坎。 <!-- by: @olsson2022induction -->
#
# 我们的小模型呢？在每个快照上量两样：两遍各自的损失；十六个头里，给“该抄的那个词元”注意力最多的头，平均给了多少。 <!-- by: reasoning -->


# %%
def two_losses(net, rows):
    """Mean loss where something stands first and where it is repeated; each head's share."""
    first, again, shares = [], [], []
    for ids, places in rows:
        with torch.no_grad():
            logp = net(torch.tensor([ids]))[0].log_softmax(-1)  # [T, V]
        weights = show.attention_weights(net, ids)  # [L, H, T, T]
        for a, b in places:  # the token at b repeats the one at a
            first.append(-logp[a - 1, ids[a]])
            again.append(-logp[b - 1, ids[b]])
            shares.append(weights[:, :, b - 1, a])
    return *(float(torch.stack(x).mean()) for x in (first, again)), torch.stack(shares).mean(0)


rng = np.random.default_rng(0)
ordinary = range(256, tokenizer.bos_id)  # neither single bytes nor special tokens
random_rows = []
for _ in range(16):
    once = rng.choice(ordinary, 24).tolist()
    random_rows.append(([tokenizer.bos_id, *once, *once], [(i, i + 24) for i in range(2, 25)]))

# %%
by_step = {step: two_losses(run.model(step), random_rows) for step in run.steps}
assert all(again > 0.8 * first for first, again, _ in by_step.values())
assert max(shares.max() for _, _, shares in by_step.values()) < 0.2
assert by_step[1500][1] > math.log(1024)

# %% [markdown]
# 它始终没有学会：第二遍的损失和第一遍的没有多大差别，没有一个头在看该抄的地方；到头来两遍都比瞎猜还差，因为它对没见过的文本也自信地猜。 <!-- by: assert all(again > 0.8 * first for first, again, _ in by_step.values()) --> <!-- by: assert by_step[1500][1] > math.log(1024) --> <!-- by: assert max(shares.max() for _, _, shares in by_step.values()) < 0.2 -->这不奇怪：训练文本里没有这样的句子，什么也不逼它学。模型学的是训练文本用得着的抄写，那就到那里去量。书里有两种，难易不同：
#
# - **找地点**：“小猫把石头藏在椅子下。……石头在”，下一个词是椅子下。故事里藏东西的地方只有一处，只要看见一个放东西的地点就抄，用不着问它前面是谁，一层就够。
# - **照抄**：“猫、狗、羊。”跟着说“猫、狗”，下一个词是羊。三个词是同一类，要认准是“狗”后面的那个，要两层。


# %%
def copied_rows(kind):
    """30 held-out sentences: their tokens, and where each word stands first and again."""
    rows = []
    for item in scoring.continuations(kind, 30):
        ids = [tokenizer.bos_id, *tokenizer.encode(item.prompt + item.answer)]
        pieces = [tokenizer.decode([i]) for i in ids]
        if kind == "reading":
            [a, b] = (i for i, piece in enumerate(pieces) if piece in words.PLACES)
            rows.append((ids, [(a, b)]))
        else:  # the same sentence twice: a word comes after ：“ and after 、
            first, second = (i for i, piece in enumerate(pieces) if piece == "：“")
            ends = (i for i in range(second, len(ids) - 1) if pieces[i] in ("：“", "、"))
            rows.append((ids, [(first + i + 1 - second, i + 1) for i in ends]))
    assert all(ids[a] == ids[b] for ids, places in rows for a, b in places)
    return rows


texts = {"找地点": copied_rows("reading"), "照抄": copied_rows("echo")}
course = {
    kind: [two_losses(run.model(step), rows) for step in run.steps] for kind, rows in texts.items()
}

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"figure": {"caption": "两种抄写各在什么时候学会。左：第一遍（虚线）要猜，第二遍（实线）可以抄。右：十六个头里最会看的那个，给该抄的词元多少注意力。", "name": "fig-pretrain-copying"}, "image": {"alt": "左图两条虚线和两条实线，横轴是取对数的步数：起初实线与虚线靠在一起，后来实线往下离开虚线，末端都在虚线下面。右图两条线从接近 0 的地方升起"}}
for found in course.values():
    assert abs(found[0][0] - found[0][1]) < 1  # after 25 steps nothing is copied yet
    assert found[0][2].max() < 0.15
    assert found[-1][1] < found[-1][0] - 0.8
    assert found[-1][2].max() > 0.2
optimisation.copying_courses(
    run.steps,
    {kind: tuple(zip(*(f[:2] for f in found), strict=True)) for kind, found in course.items()},
    {kind: [float(f[2].max()) for f in found] for kind, found in course.items()},
)

# %% tags=["remove-input", "nbval-ignore-output"]
learned_at = {
    kind: next((s for s, f in zip(run.steps, found, strict=True) if f[1] < f[0] / 2), None)
    for kind, found in course.items()
}
assert learned_at["找地点"] is not None
show.say(
    *(
        f"{kind}：第 {step} 步的快照上，第二遍的损失头一回不到第一遍的一半。"
        if step
        else f"{kind}：到最后，第二遍的损失还在第一遍的一半以上。"
        for kind, step in learned_at.items()
    ),
    *(
        f"{kind}最会看的头在第 {1 + int(f[-1][2].argmax()) // 4} 层，"
        f"给该抄的词元 {f[-1][2].max():.2f} 的注意力。"
        for kind, f in course.items()
    ),
)

# %% [markdown]
# 第 25 步，两遍一样难，没有一个头在看；训练完，两种抄写都有专门看那里的头，第二遍容易得多。看图时还可以留意：注意力升起来的那一个快照，未必就是损失掉下去的那一个。看对了地方只是一半，还要把看到的词写进打分里，后面的层也得学会。 <!-- by: reasoning --> <!-- by: assert abs(found[0][0] - found[0][1]) < 1 --> <!-- by: assert found[-1][1] < found[-1][0] - 0.8 --> <!-- by: assert found[-1][2].max() > 0.2 --> <!-- by: assert found[0][2].max() < 0.15 -->
#
# 可是一起出现，不等于是原因。要知道是不是，就把头关掉：`o_proj` 的权重里，每个头占 32 列，把一个头的列改成 0，它看到什么都传不出去。每种文本关掉看得最多的三个头，再和随便关三个别的比（换着关五次，取平均）： <!-- by: 128 / 4 == 32 -->


# %%
def without(heads):
    """The model in which these heads, numbered through all layers, write nothing."""
    net = run.model()
    for head in heads:
        attention = net.model.layers[head // 4].self_attn
        place = head % 4 * attention.D
        attention.o_proj.weight.data[:, place : place + attention.D] = 0
    return net


off = {}
for kind, rows in texts.items():
    order = course[kind][-1][2].flatten().argsort(descending=True).tolist()
    others = [rng.choice(order[3:], 3, replace=False).tolist() for _ in range(5)]
    best = two_losses(without(order[:3]), rows)[1]
    chance = np.mean([two_losses(without(heads), rows)[1] for heads in others])
    off[kind] = [course[kind][-1][1], best, float(chance)]

# %% tags=["nbval-ignore-output"]
header = ["第二遍的损失", "都开着", "关掉看得最多的三个", "随便关三个别的"]
show.table(header, [[kind, *losses] for kind, losses in off.items()])

# %% tags=["remove-input", "nbval-ignore-output"]
alone = [two_losses(without([head]), texts["照抄"])[1] for head in range(16)]
worst = int(np.argmax(alone))
looks = float(course["照抄"][-1][2].flatten()[worst])
assert all(min(best, chance) > on - 1 for on, best, chance in off.values())
show.say(
    *(
        f"{kind}：关掉看得最多的三个，损失从 {on:.2f} 升到 {best:.2f}，随便关三个别的，平均到 {chance:.2f}，"
        + ("离了这几个头不行。" if best > 2 * chance + 0.5 else "差别说明不了什么。")
        for kind, (on, best, chance) in off.items()
    ),
    f"再把十六个头一个一个地关：照抄伤得最重的，是关掉第 {1 + worst // 4} 层的一个头，损失升到 "
    f"{alone[worst]:.2f}；它自己给该抄的词元 {looks:.2f} 的注意力"
    + ("，并不在看那里。" if looks < 0.1 else "。"),
)

# %% [markdown]
# 关头的试验要小心读，两个方向都会骗人。关掉一个头，什么也没有坏，不等于它没有用：同样的活可能有几个头在干，少了一个，别的顶上。关掉一个头，坏了，也不等于活是它干的：后一层的头拿什么去对，要靠前一层的头先写好。两层的本领牵动的头多，也就来得晚。 <!-- by: reasoning -->
#
# ### 让它讲故事
#
# 贪心解码总是写同一篇。要有变化，就按概率抽：分数先除以**温度**（temperature）0.8，再 softmax，再抽签。温度低于 1，概率更集中在高分词元上。 <!-- by: reasoning -->

# %% tags=["nbval-ignore-output"]
facts = words.PEOPLE["张静"].facts
print("张静:", " ".join(facts.values()), "\n")
for i in range(2):
    print("张静" + go_on(model, "张静", 80, temperature=0.8, seed=lab.SEED + i))
for i in range(2):
    print("有一天" + go_on(model, "有一天", 80, temperature=0.8, seed=lab.SEED + i))

# %% [markdown]
# 关于张静的话，可以对着最上面的那一行逐条核对。故事有没有破绽，要多抽几篇来数。抽 100 篇，看两处前后是否一致：东西放在哪里，后来说它在哪里；捡到时是什么颜色，拿到时又是什么颜色。

# %%
prompts = [[tokenizer.bos_id, *tokenizer.encode("有一天")]] * 100
sampling = Sampling(temperature=0.8, seed=lab.SEED)
stories = [
    tokenizer.decode(ids) for ids in complete(model, prompts, 100, [tokenizer.bos_id], sampling)
]
PLACE = r"把(..)[放藏]在(...?)。.*“\1在(...?)[。，]"
COLOUR = r"一.(.色)的(..)。.*(?:找到了|拿到)(.色)的\2"
told = {"地点": re.compile(PLACE), "颜色": re.compile(COLOUR)}
pairs = {what: [m.groups() for s in stories if (m := p.search(s))] for what, p in told.items()}
same_place = [put == said for _, put, said in pairs["地点"]]
same_colour = [found == got for found, _, got in pairs["颜色"]]
assert np.mean(same_place) > 0.75

# %% tags=["remove-input", "nbval-ignore-output"]
odd = next((pair for pair in pairs["颜色"] if pair[0] != pair[2]), None)
show.say(
    f"讲到两次地点的有 {len(same_place)} 篇，一致的 {sum(same_place)} 篇；",
    f"讲到两次颜色的有 {len(same_colour)} 篇，一致的 {sum(same_colour)} 篇。",
    f"例如有一篇里，捡到的是{odd[0]}的{odd[1]}，拿到手却成了{odd[2]}的。" if odd else "",
)

# %% [markdown]
# 地点大多记得住。 <!-- by: assert np.mean(same_place) > 0.75 -->颜色就难说了：八种颜色里随便说一种，有八分之一会碰对；有的种子到训练结束还是这样，有的种子已经篇篇说对（想看，执行 `MINILLM_SEED=7 python book/06-pretrain.py`）。我们的解释是：训练的故事里，东西一放好，马上就有人问它在哪里，而颜色说过之后要隔几句，才有一半的机会再提起，可学的少得多。本领像 `reading` 那样是一下子出现的；练得少，来不来得及在这 1,500 步里出现，就看运气。所以一次训练“没学会”，不等于这个模型学不会。
#
# ### 嵌入表里长出了类别
#
# 没有人告诉模型红色和蓝色是一类。嵌入表 `[V, C]` 的每一行是一个词元的向量；两行的余弦越大，方向越近。训练前后，离几个词元最近的是谁？

# %% tags=["nbval-ignore-output"]
tables = {"训练前": fresh.lm_head.weight.detach(), "训练后": model.lm_head.weight.detach()}


def nearest(table, word, k=4):
    [token] = tokenizer.encode(word)
    cosine = torch.cosine_similarity(table, table[token][None])  # [V]
    return [tokenizer.decode([i]) for i in cosine.topk(k + 1).indices.tolist()[1:]]


asked = ["红色", "7", "小鹿", "猫", "树洞里"]
show.table(
    ["词元", *tables], [[w, *("、".join(nearest(t, w)) for t in tables.values())] for w in asked]
)

# %%
GROUPS = {
    "颜色": words.ATTRIBUTES["颜色"].values,
    "数": [str(n) for n in range(21)],
    "动物": words.ANIMALS,
    "地方": words.PLACES,
}
share = {
    name: [np.mean([nearest(t, w, 1)[0] in group for w in group]) for t in tables.values()]
    for name, group in GROUPS.items()
}
assert all(before <= 0.3 and after >= before + 0.2 for before, after in share.values())
assert np.mean([after for _, after in share.values()]) >= 0.7

# %% tags=["nbval-ignore-output"]
show.table(["最近的词元同属一类", *tables], [[name, *map(float, v)] for name, v in share.items()])

# %% [markdown]
# 训练前只有碰巧，训练后大多是同类。原因在目标里：能出现在同样上文之后的词元，得到同样方向的梯度。{cite:t}`bengio2003nplm` 最早用神经网络语言模型说明了这一点。 <!-- by: assert np.mean([after for _, after in share.values()]) >= 0.7 -->
#
# ### 它知道，但还答不好
#
# 谁住在哪里，模型已经会写了。可是按对话的格式来问，它就答得差（下面那张表的第二列）。问题出在哪里？ <!-- by: assert chat <= plain - 0.1 -->
#
# 对话格式用 `<|user_start|>`、`<|assistant_start|>` 等**特殊词元**（special token）包住每一轮，而预训练的文本里一个也没有。预训练见过的问答是练习册的样子：`问：……`，换行，`答：……`。换成这个格式再问同样的题，题目都是训练里没有问过的： <!-- by: assert np.isin(train_set.ids, chat_tokens).sum() == 0 -->

# %%
chat_tokens = [
    tokenizer.special_id(f"<|{r}_{e}|>") for r in ("user", "assistant") for e in ("start", "end")
]
assert np.isin(train_set.ids, chat_tokens).sum() == 0

evaluator = run.evaluator()
questions = scoring.questions("fact", 60)
texts = [f"问：{q.messages[-1][1]}\n答：" for q in questions]
replies = evaluator.answers([[tokenizer.bos_id, *tokenizer.encode(t)] for t in texts])
plain = np.mean([q.is_correct(r.split("\n")[0]) for q, r in zip(questions, replies, strict=True)])
chat = run.scores()["accuracy"]["fact"]
assert plain >= 0.80
assert chat <= plain - 0.1

# %% tags=["nbval-ignore-output"]
in_book = [go_on(model, f"问：{q}\n答：", 48).split("\n")[0] for q in scoring.SHOWCASE]
rows = list(zip(scoring.SHOWCASE, lab.showcase(model), in_book, strict=True))
show.table(["", "对话格式", "练习册格式"], [*rows, ["60 道留出的事实题", chat, float(plain)]])

# %% [markdown]
# 题目和权重都一样，差的只是写法：夹着没见过的记号，模型就乱了。上面三行只是例子，换成练习册的格式也可能答错；要看的是最后一行，那是 60 道题数出来的。可见知识大多已经在权重里，缺的是**格式**：认出谁在问、轮到谁答、答完就停。这就是监督微调要教的（{numref}`第 %s 章 <sec-sft>`）。{cite:t}`zhou2023lima` 对大模型提出过同样的看法：知识主要来自预训练，微调教的是答话的样子。 <!-- by: assert chat <= plain - 0.1 -->
#
# 要说明的是，这个结论有一个前提：我们的预训练文本里本来就掺了写成纯文本的问答（{numref}`第 %s 章 <sec-data>`）。
#
# ## 弄坏它
#
# ### 学习率乘 30
#
# 最常见的错误是学习率大了一个量级。我们把 0.006 改成 0.18，其余不变，训练 50 步，和同样 50 步的正常训练比。

# %%
assert config.learning_rate == 0.18 / 30 == 0.006
short = lab.variant("pretrain-50", "pretrain", max_steps=50)
broken = lab.variant("pretrain-lr-x30", "pretrain", max_steps=50, learning_rate=0.18)

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"figure": {"caption": "学习率正常（蓝）和乘 30（橙红）的前 50 步。乘 30 的先往上冲，再回落，停在正常的上方。", "name": "fig-pretrain-lr"}, "image": {"alt": "左图的横轴是步数，纵轴是损失：两条线从同一点出发，正常的往下走，乘 30 的先冲过起点，再回落，终点仍在正常的上方。右图是两条学习率"}}
runs = {"正常": short.log, "乘 30": broken.log}
losses = {name: [entry["loss"] for entry in log] for name, log in runs.items()}
assert losses["正常"][0] == losses["乘 30"][0]
assert max(losses["乘 30"]) > losses["乘 30"][0] + 0.5
assert losses["正常"][-1] + 0.5 < losses["乘 30"][-1] < max(losses["乘 30"]) - 1
courses = {
    label: {name: (range(1, 51), [entry[key] for entry in log]) for name, log in runs.items()}
    for label, key in (("损失（奈特，每个词元）", "loss"), ("学习率", "learning_rate"))
}
show.panels(courses, "步数", [show.COLOURS["pretrain"], show.COLOURS["bad"]])

# %% tags=["nbval-ignore-output"]
steps = (1, 2, 3, 5, 7, 10, 20, 50)
rows = [
    [f"{name}：{label}", *(log[s - 1][key] for s in steps)]
    for name, log in runs.items()
    for label, key in (("损失", "loss"), ("grad_norm", "grad_norm"))
]
show.table(["步数", *map(str, steps)], rows)

# %%
peak = max(losses["乘 30"])
jump = broken.log[1]["grad_norm"] / broken.log[0]["grad_norm"]
assert peak > math.log(1024) + 0.5
assert jump > 1.5
assert losses["乘 30"][1] < losses["乘 30"][0] * 1.25
assert broken.log[-1]["val_loss"] > short.log[-1]["val_loss"] + 0.5

# %% [markdown]
# 算一算就知道为什么。矩阵的初始标准差是 0.02（写回残差流的两层更小）。Muon 每步给每个元素的改动，均方根约是学习率的 0.18 倍（下一格量出来）：
#
# - 学习率 0.006：$0.18\times0.006=0.0011$，约是权重的 5%。 <!-- by: assert [round(step / 0.02, 2) for step in (0.18 * 0.006, 0.18 * 0.18)] == [0.05, 1.62] -->
# - 学习率 0.18：$0.18\times0.18=0.032$，约是权重的 162%，一步就把权重整个盖住。嵌入表由 AdamW 更新，每个元素一步走 0.18，是初始值的 9 倍。 <!-- by: assert [round(step / 0.02, 2) for step in (0.18 * 0.006, 0.18 * 0.18)] == [0.05, 1.62] --> <!-- by: round(0.18 / 0.02) == 9 -->

# %%
w = torch.nn.Parameter(torch.zeros(128, 128))
optimizer = optimizers.Muon([w], lr=1.0, weight_decay=0.0)
w.grad = torch.randn(128, 128)
optimizer.step()
rms = w.detach().square().mean().sqrt().item()
assert 0.16 < rms < 0.20
assert [round(step / 0.02, 2) for step in (0.18 * 0.006, 0.18 * 0.18)] == [0.05, 1.62]
print(f"one step of Muon at learning rate 1: {rms:.2f} per element; std of fresh weights: 0.02")

# %% [markdown]
# 怎样发现：
#
# - **损失高过 $\ln V$**。比瞎猜还差，说明模型自信地错着。只要出现这一条，就停。 <!-- by: assert peak > math.log(1024) + 0.5 -->
# - **`grad_norm` 在第一步之后猛涨**。它比损失更早报警：第 2 步的损失还没有高出多少，梯度的长度已经大得多。 <!-- by: assert jump > 1.5 -->
# - **没有 NaN，不等于没事**。这里损失后来也在降，单看后半段像是正常的训练；与正常曲线画在一起，差距才看得出来。梯度裁剪救不了它：Muon 和 AdamW 的步长本来就与梯度大小无关，裁剪只管梯度，不管学习率。 <!-- by: assert losses["正常"][-1] + 0.5 < losses["乘 30"][-1] < max(losses["乘 30"]) - 1 -->
#
# 怎样补救：从上一个好的检查点出发，学习率除以 3 再试；或者先用几十步试三四个学习率，取不冲高的里面最大的一个。 <!-- by: reasoning -->
#
# ## 收尾

# %% tags=["nbval-ignore-output"]
show.spine({"fresh": lab.showcase(fresh), "pretrain": lab.showcase(model)})

# %% [markdown]
# 话像话了，却还不会好好回答。它在文本里读过许多问答，可是 `<|user_start|>`、`<|assistant_start|>` 这几个记号一次也没有见过，不知道它们之间就是一问一答。下一章（{numref}`第 %s 章 <sec-sft>`）补这一课。 <!-- by: assert np.isin(train_set.ids, chat_tokens).sum() == 0 --> <!-- by: assert chat <= plain - 0.1 -->
#
# ### 小结
#
# - 预训练只压低一个数：下一个词元的交叉熵 $-\ln p$，从 $\ln V$ 开始往下降。 <!-- by: assert abs(first - math.log(1024)) < 0.1 -->
# - 反向传播从损失往回走一趟，每个权重就有了梯度：经过乘法，乘另一个因数；几路回来的相加。
# - 先加和与个数，最后除一次：小批次怎样拆，结果都一样。
# - 长谷里 SGD 来回撞，动量治撞，Adam 治陡缓不匀，谷一转它又不灵了，Muon 按矩阵自己的轴走。 <!-- by: assert height[1] > 10 * height[0] -->
# - 学习率先升、再平、后降；比较优化器，两边都要挑过学习率，还要看量的是哪一段。
# - 模型先学会怎么说，后学会说得对；损失是平均，看不出哪种能力何时学会，要分类去量。 <!-- by: assert all(alike < right for alike, right in half) -->
# - 训练完，模型每字节的比特数不到五元模型的六成；知识大多在权重里，但按对话格式问，还答不好。 <!-- by: assert final < 0.6 * counted["五元"] -->
#
# ### 练习
#
# :::{exercise} ★☆☆
# :label: ex-pretrain-1
# 验证损失 0.665 奈特、每个词元 4.04 字节，困惑度和每字节比特数是多少？另一个分词器每词元 2.02 字节，若模型同样好（每字节比特数相同），它的困惑度是多少？ <!-- by: assert math.isclose(0.665 / 4.04, 0.665 / 2 / 2.02) -->
# :::
#
# :::{solution-start} ex-pretrain-1
# :class: dropdown
# :::
#
# 困惑度 $e^{0.665}=1.94$；每字节 $0.665/0.693/4.04=0.237$ 比特。词元短一半，每词元的奈特数也少一半：$e^{0.3325}=1.39$。同样好的模型，困惑度却不同，所以困惑度不能跨分词器比较。 <!-- by: assert [round(math.exp(x), 2) for x in (0.665, 0.665 / 2)] == [1.94, 1.39] -->

# %%
assert [round(math.exp(x), 2) for x in (0.665, 0.665 / 2)] == [1.94, 1.39]
assert math.isclose(0.665 / 4.04, 0.665 / 2 / 2.02)
round(0.665 / math.log(2) / 4.04, 3)

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} ★★☆
# :label: ex-pretrain-2
# 写代码验证：8 行一次反向传播，与分成 1 行、7 行两批累积、最后除一次，梯度相同；而“各批平均再平均”不同。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# `PackedRows(val_set, 128, epochs=1, seed=0)` 是打包好的行，`.batch(range(8))` 取出前八行。`next_token_loss` 给出和与个数；比较任何一个权重的 `.grad` 就行，每次之前记得 `zero_grad`。
# :::
#
# :::{solution-start} ex-pretrain-2
# :class: dropdown
# :::
#
# 两批的词元数要差得多，才看得出区别，所以分成 1 和 7。 <!-- by: assert (wrong - at_once).norm() > 0.05 * at_once.norm() -->

# %%
packed = PackedRows(val_set, 128, epochs=1, seed=0)


def gradient(parts, mean_of_means):
    fresh.zero_grad()
    found = [objectives.next_token_loss(fresh, packed.batch(part)) for part in parts]
    total = sum(loss.count for loss in found)
    for loss in found:
        (loss.total / (len(found) * loss.count if mean_of_means else total)).backward()
    return fresh.model.layers[0].mlp.up_proj.weight.grad.clone()


at_once = gradient([range(8)], False)
split = gradient([range(1), range(1, 8)], False)
wrong = gradient([range(1), range(1, 8)], True)
assert (split - at_once).norm() < 1e-4 * at_once.norm()
assert (wrong - at_once).norm() > 0.05 * at_once.norm()

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} ★★☆
# :label: ex-pretrain-3
# 弄坏它：忘了 `zero_grad`。用最简单的损失 $w^2/2$（梯度就是 $w$）、学习率 0.1、从 $w=1$ 开始走 40 步，看 $w$ 怎么变。 <!-- by: assert min(bad) < -0.9 -->
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 一个权重用 `torch.nn.Parameter(torch.tensor(1.0))`，优化器用 `torch.optim.SGD`。先心算头三步：旧梯度没有清掉，第二步用的是两次梯度的和。
# :::
#
# :::{solution-start} ex-pretrain-3
# :class: dropdown
# :::
#
# 旧梯度一直加进来，步子就不会在谷底变小：$w$ 冲过 0，走到对面，再回来，永远摆动，像没有摩擦的秋千。


# %%
def walk(forget):
    w = torch.nn.Parameter(torch.tensor(1.0))
    sgd, path = torch.optim.SGD([w], lr=0.1), []
    for _ in range(40):
        if not forget:
            sgd.zero_grad()
        (w * w / 2).backward()
        sgd.step()
        path.append(w.item())
    return path


good, bad = walk(False), walk(True)
assert abs(good[-1]) < 0.02
assert min(bad) < -0.9
assert max(bad[10:]) > 0.9
[round(value, 2) for value in bad[::4]]

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} ★☆☆
# :label: ex-pretrain-4
# 想一想：这一章里，训练损失和验证损失相差很小。为什么？什么时候验证损失会高得多？ <!-- by: assert all(abs(trained[step] - loss) < 0.1 for step, loss in validation.items()) -->
# :::
#
# :::{solution-start} ex-pretrain-4
# :class: dropdown
# :::
#
# 1,500 步 × 8 行 = 12,000 行，而一遍数据有 21,000 多行：第一遍还没走完，除了配比时重复的少数文本，每一篇最多见一次，训练损失也是在“没见过的”文本上量的。两者还差的那一点，有两个来源：图里的训练损失是前 20 步的平均，那时的权重旧一点；这 20 步里读到的行有难有易。 <!-- by: assert config.max_steps * config.batch_size == 12000 < 21000 < len(rows) -->
#
# 若同样的数据走很多遍，模型会开始背训练文本，训练损失继续降，验证损失停住甚至回升，这就是过拟合。 <!-- by: reasoning -->

# %%
rows = PackedRows(train_set, 128, epochs=1, seed=lab.SEED)
assert config.max_steps * config.batch_size == 12000 < 21000 < len(rows)
texts = [train_set.ids[a:b].tobytes() for a, b in pairwise(train_set.offsets)]
repeated = 1 - len(set(texts)) / len(texts)
assert 0.01 < repeated < 0.02
print(f"{repeated:.1%} of the texts are repetitions")

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} ★★☆ 动手：损失的梯度
# :label: ex-pretrain-gradient
# 反向传播从损失对打分的梯度开始。写出 `loss_gradient`：`logits` 是打分 `[N, V]`，`labels` 是标签 `[N]`，返回**平均**损失对打分的梯度 `[N, V]`。标签是 −100 的行不学，梯度是 0，也不算进个数；一行也不学时，梯度全是 0。不用 `.backward()`，用手算一节的 $p_v - [v=y]$。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 先对每一行做 softmax，再在正确词元的位置减 1。−100 不能拿来当下标：先用 `labels != -100` 挑出要学的行。
# :::


# %%
def loss_gradient(logits, labels):
    return ...


tasks.check("6.1", loss_gradient)

# %% [markdown]
# :::{solution} ex-pretrain-gradient
# :class: dropdown
# ```python
# def loss_gradient(logits, labels):
#     p = logits.softmax(dim=-1)
#     learned = labels != -100
#     p[learned, labels[learned]] -= 1
#     p[~learned] = 0
#     return p / max(1, int(learned.sum()))
# ```
# `softmax` 会先减去每一行的最大值，所以打分很大也不溢出。每一行的梯度加起来是 0：有的分数要升，就有的要降。
# :::
#
# :::{exercise} ★★★ 动手：从梯度到新的权重
# :label: ex-pretrain-adamw
# 把 `Trainer` 的 `update` 从头写一遍。`adamw(w, steps, rate)`：`w` 是一个长向量，装着全部权重；`steps` 每步一项，每项是几个小批次的 `(梯度的和, 词元数)`。每一步依次做四件事：
#
# 1. 小批次加起来，除以全部词元数；
# 2. 梯度的长度超过 1，就整个缩到 1；
# 3. 更新 $m$ 和 $v$，再修正；
# 4. 权重先衰减，再走步。
#
# $\beta_1=0.9$，$\beta_2=0.95$，衰减 0.1，分母加 $10^{-8}$，学习率一直是 `rate`。返回走完所有步的权重。核对用的是 PyTorch 的 `clip_grad_norm_` 和 `torch.optim.AdamW`。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# $m$ 和 $v$ 从 0 开始，跨步留着。第 $t$ 步（从 1 数）的修正是除以 $1-\beta_1^t$ 和 $1-\beta_2^t$；修正过的只用来走步，留到下一步的是没有修正的。衰减是把 `w` 乘以 $1-0.1\eta$，与梯度无关。
# :::


# %%
def adamw(w, steps, rate):
    return ...


tasks.check("6.2", adamw)

# %% [markdown]
# :::{solution} ex-pretrain-adamw
# :class: dropdown
# ```python
# def adamw(w, steps, rate):
#     m = v = torch.zeros_like(w)
#     for t, step in enumerate(steps, 1):
#         g = sum(gradient for gradient, _ in step) / sum(count for _, count in step)
#         if g.norm() > 1:
#             g = g / g.norm()
#         m = 0.9 * m + 0.1 * g
#         v = 0.95 * v + 0.05 * g * g
#         w = w * (1 - 0.1 * rate)
#         w = w - rate * m / (1 - 0.9**t) / ((v / (1 - 0.95**t)).sqrt() + 1e-8)
#     return w
# ```
# 第一步的大小与梯度无关，裁不裁都一样；从第二步起才看得出，没有裁的大梯度会留在 $m$ 和 $v$ 里。衰减若并进梯度，也会被 $\sqrt{v}$ 除掉，大的权重就不多缩了，这正是 AdamW 把它分开的原因。
# :::
#
# ### 延伸阅读
#
# - {cite:t}`hu2024minicpm`：先平后降的学习率表，以及在小模型上怎样挑设置。
# - {cite:t}`jordan2024muon` 和 {cite:t}`liu2025muon`：Muon 的来历，和把它用到大模型上要改的两处。
# - {cite:t}`olsson2022induction`：归纳头怎样找到、怎样量、怎样证明它有用。
# - {cite:t}`eldan2023tinystories`：小模型配小世界能写出连贯的故事，与本书的想法相近。
