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
# (sec-model)=
# # 模型与默认配置
#
# :::{admonition} 本章
# :class: tip
#
# - **你将学会**：从“求平均”起，每步三行，把注意力搭到与 PyTorch 的一模一样；手算一次旋转；一项一项数出默认模型的 25,829,888 个参数；读懂 `minillm/model/transformer.py` 的每一行和每个张量的形状；用两个实验证明模型不偷看后文、缓存不改变结果；看清每个零件值多少损失；认出一个丢了因果掩码的模型。
# - **需要时间**：阅读 60 分钟，运行约 20 秒（第一次还要训练预训练模型，约两分半钟，以后从缓存里取）。
# - **需要内存**：1 GB。
# - **用到的模块**：`minillm.model.transformer`、`minillm.config`。
# :::

# %%
import json
import math
from dataclasses import replace
from unittest.mock import patch

from minillm import ModelConfig
from minillm.book import lab, show, tasks
from minillm.book.drawings import model as drawings
from minillm.config import MODELS, TRAINING
from minillm.microworld import scoring
from minillm.model import generate, transformer
from minillm.training.dataset import load_dataset
from minillm.training.llama_folder import read_config, read_weights
from minillm.training.objectives import next_token_loss, validation_loss
from minillm.training.optimizers import make_optimizers
from minillm.training.packing import PackedRows

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

lab.start()

# %% [markdown]
# ## 开场
#
# 数据、词表、张量都齐了，还缺一台机器：读进整数，吐出下一个整数。这一章就造它。先看它刚造好、一步也没有训练时的样子：

# %%
replies = lab.showcase(lab.fresh())
assert not any(reply.replace("<|assistant_start|>", "") for reply in replies)
show.spine({"fresh": replies})

# %% [markdown]
# 三个问题，同一串废话：它把提示的最后一个**词元**（token）`<|assistant_start|>` 一遍遍重复。
# 这不是偶然，读完本章你能说出原因。<!-- by: assert not any(reply.replace( -->
#
# 这台机器里没有数据库，没有语法规则，也没有加法器，只有不到一百万个数，现在都是随机的。
# 它以后知道的每一件事，张静住在哪里，8 加 4 怎么数，自己叫什么，都只能写在这些数里。
# 本章讲清楚这些数怎样摆放、怎样计算；{numref}`第 %s 章 <sec-pretrain>` 再去改它们的值。
#
# ## 手算
#
# ### 一条流：每一层只往里加
#
# 先看整台机器怎样走线。一个词元进来，查表变成一个向量，也就是一串数，小模型是 128 个。这串数从头流到尾，每一层读它，算出点什么，加回去。好比一块传来传去的黑板：每个人先读，再添几笔，谁也不擦别人写的。这条只加不改的向量叫**残差流**（residual stream）。<!-- by: config.MODELS["tiny"].hidden_size == 128 -->
#
# {numref}`fig-model-stream` 是默认模型的八层。每层加两次：绿框从*前面的位置*取信息，橙框只加工*自己这个位置*的。最下面的输出层读完这块黑板，给下一个词元打分。两种框里装着什么，是本章的内容；线怎样走，现在就看得懂。

# %% tags=["hide-input"] mystnb={"figure": {"caption": "默认模型里的残差流，只画一个位置。每个框读流里的向量（灰线），把结果加回流里（彩线）。中间那条线上只有加号，没有别的。", "name": "fig-model-stream"}, "image": {"alt": "一条粗线自上而下，从嵌入到归一化和输出层。左边八个注意力的框，右边八个前馈网络的框，交替排列；每个框有一条线从粗线读入，一条线回到粗线上的一个加号"}}
drawings.residual_stream(ModelConfig().num_hidden_layers)

# %% [markdown]
# 为什么要加，而不是一层套一层？训练要把损失的信号从最上面传回最底下，传到时还剩多少，看导数。取一个数 $x$，假设每层算的都是 $f(x) = x/10$。
#
# - 一层套一层，八层是 $f(f(\cdots f(x)))$，导数是 $0.1^8$，一亿分之一：底下的层收不到信号，学不动。<!-- by: abs(0.1**8 - 1e-8) < 1e-12 -->
# - 每层算 $x + f(x)$，一层的导数是 $1 + 0.1$，八层是 $1.1^8 = 2.14$。不管 $f$ 多小，那个 1 总在，信号顺着它原样传下去。<!-- by: round(1.1**8, 2) == 2.14 -->
#
# 让 PyTorch 求这两个导数：


# %%
def slope(add, layers=8):
    x = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    y = x
    for _ in range(layers):
        y = y + y / 10 if add else y / 10
    y.backward()
    return x.grad.item()


assert abs(slope(add=False) - 0.1**8) < 1e-12
assert abs(slope(add=True) - 1.1**8) < 1e-9
f"{slope(add=False):.0e}", f"{slope(add=True):.2f}"

# %% [markdown]
# ### 注意力：从求平均开始，一步一步搭
#
# 读到“张静住在”，接下来该写一个城市，哪一个要看前面是谁。可是每个位置手里只有自己那个词元的向量 $x$，“在”只知道自己是“在”。它得从前面的位置取信息，这件事叫**注意力**（attention）{cite:p}`vaswani2017attention`。下面七步，每步三行左右，从最笨的办法搭到今天的大模型用的那一种。
#
# **第一步，平均。** 把自己和前面的向量平均一下，总算知道了前面有些什么。取三个词元“张静 / 住 / 在”（真的分词器切得不一样，这样切是为了好算），向量取三个好认的：$(1,0,0)$、$(0,1,0)$、$(0,0,1)$。混合以后，第几个数是多少，就是从第几个词元取了几份。

# %%
x = torch.eye(3)  # [T, C]: 张静, 住, 在
mean = torch.ones(3, 3).tril()  # [T, T]: row t has ones up to column t
mean = mean / mean.sum(dim=1, keepdim=True)
mean @ x

# %% [markdown]
# 第三行：“在”从三个词元各取三分之一。求平均写成了一个矩阵乘法：`mean` 是一张权重表，一行一个位置，写着它从每个位置取几份。右上角全是 0，因为后面的词元还没有写出来，取不到。<!-- by: reasoning -->往后的六步，改的都是这张表。
#
# **第二步，加权。** 平均不分轻重：“张静”和“住”各占一份，“是谁”这条线索就冲淡了。权重要有大有小。假设“在”给三个词元打了分：2、0、0。分数可正可负，权重却要大于 0、加起来等于 1。先取指数，都成了正数：$e^2 = 7.389$，$e^0 = 1$。再各除以总和 $7.389 + 1 + 1 = 9.389$，得 $(0.787, 0.107, 0.107)$。这两下合起来叫 **softmax**。<!-- by: round(math.exp(2), 3) == 7.389 and round(math.exp(2) / (math.exp(2) + 2), 3) == 0.787 and round(1 / (math.exp(2) + 2), 3) == 0.107 -->

# %%
scores = torch.tensor([2.0, 0, 0])
weights = scores.exp() / scores.exp().sum()
assert torch.allclose(weights, scores.softmax(dim=0))
weights

# %% [markdown]
# 打分全一样，softmax 就回到平均。打分差得越多，权重越偏向高的一边。
#
# **第三步，让词元自己打分。** 分数从哪里来？一个位置在找什么，另一个位置是什么，对得上，分就高。好比在图书馆找书：手里的纸条写着要找什么，书脊上印着书名，翻开才是内容。每个位置于是有三个向量：**查询**（query）$q$ 是纸条，说自己在找什么；**键**（key）$k$ 是书脊，说自己能被怎样找到；**值**（value）$v$ 是内容，被找到以后交出去。和找书不同的是，这里不只取一本：每一本都取一点，书脊越对得上，取得越多。
#
# 三个向量都从这个位置的 $x$ 算出来，各乘一个矩阵：
#
# $$q = W_q\, x, \qquad k = W_k\, x, \qquad v = W_v\, x$$
#
# 三个矩阵由训练学出来，所有位置共用。为什么不拿 $x$ 自己又当纸条又当书脊？因为要找的和自己是什么，常常不一样：“在”找的是人，自己却不是人。
#
# 位置 $t$ 给位置 $s$ 打的分是点积 $q_t \cdot k_s$：两个向量的方向越一致，分越高。下面的矩阵是编的，只求好算；$x$ 是单位向量，所以矩阵的三列就是三个词元的 $q$（或 $k$、$v$）：
#
# | 位置 | 词元 | $q$ | $k$ | $v$ |
# |---|---|---|---|---|
# | 1 | 张静 | (1, 1) | (1, 0) | (1, 0) |
# | 2 | 住 | (0, 1) | (0, 1) | (0, 1) |
# | 3 | 在 | (2, 0) | (0, 0) | (1, 1) |

# %%
w_q = torch.tensor([[1.0, 0, 2], [1, 1, 0]])  # [D, C]
w_k = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
w_v = torch.tensor([[1.0, 0, 1], [0, 1, 1]])
q, k, v = x @ w_q.T, x @ w_k.T, x @ w_v.T  # [T, D] each
q @ k.T  # [T, T]: row t, column s is q_t · k_s

# %% [markdown]
# 第三行正是 2、0、0：“在”的纸条 $(2, 0)$ 只对得上“张静”的书脊 $(1, 0)$。
#
# **第四步，除以 $\sqrt D$。** $D$ 是 $q$ 和 $k$ 各有几个数，这里是 2，默认模型里是 64。点积是 $D$ 个乘积之和；假如它们互相独立，每个的方差是 1，和的方差就是 $D$，标准差是 $\sqrt D$。$D = 64$ 时标准差是 8，两个分数差 8 是常事，而 $e^8$ 约是 3,000。随机取一千个 $q$，各给十个 $k$ 打分，看 softmax 以后最大的一份有多大：<!-- by: round(math.exp(8), -3) == 3000 and 8**2 == 64 -->

# %%
generator = torch.Generator().manual_seed(0)
ask, keys = torch.randn(2, 1000, 10, 64, generator=generator)
raw = (ask[:, :1] @ keys.mT)[:, 0]  # [1000, 10]: ten scores of each question
assert abs(raw.std() - 8) < 0.2
measured = []
for name, values in (("不除", raw), ("除以 8", raw / 8)):
    a = values.softmax(dim=1)  # weights, [1000, 10]
    slopes = (a * (1 - a)).mean()  # how a weight moves with its own score
    measured.append([name, f"{a.amax(1).mean():.1f}", f"{slopes:.2f}"])
assert raw.softmax(dim=1).amax(1).mean() > 0.8 > 0.4 > (raw / 8).softmax(dim=1).amax(1).mean()
show.table(["", "十份里最大的一份", "导数 a(1 − a)"], measured)

# %% [markdown]
# 不除，十个里的一个平均独占八成以上，别的接近 0。<!-- by: assert raw.softmax(dim=1).amax(1).mean() > 0.8 > 0.4 > (raw / 8).softmax(dim=1).amax(1).mean() -->还没开始学，就只看一处了。更糟的是末一列：权重 $a$ 对自己那个分数的导数是 $a(1-a)$，权重贴着 0 或 1，导数就贴着 0，分数再怎么改也没有反应，学不动。除以 8，分数的标准差回到 1，两样都好了。
#
# **第五步，不许看后面。** 第三步的打分表是满的，“张静”给后面的词元也打了分。那些词元还没有写出来，不许看，这个限制叫**因果掩码**（causal mask）。做法是在 softmax *之前*把右上角换成 $-\infty$：$e^{-\infty} = 0$，后文一份也分不到，一行的和还是 1。

# %%
future = torch.ones(3, 3, dtype=torch.bool).triu(1)  # above the diagonal
scores = (q @ k.T / math.sqrt(2)).masked_fill(future, -torch.inf)
weights = scores.softmax(dim=1)
show.matrix(weights, ["张静", "住", "在"], ["张静", "住", "在"], digits=3)

# %% [markdown]
# 行是正在看的词元，列是被看的。用笔核对，再乘上 $v$：
#
# - **位置 1** 只看得到自己，权重是 1，$y_1 = v_1 = (1, 0)$。
# - **位置 2** 打分 $(0, 1)/\sqrt2 = (0, 0.707)$，取指数得 $(1, 2.028)$，除以和得 $(0.330, 0.670)$。$y_2 = 0.330\,v_1 + 0.670\,v_2 = (0.330, 0.670)$。
# - **位置 3** 打分 $(2, 0, 0)/\sqrt2 = (1.414, 0, 0)$，取指数得 $(4.113, 1, 1)$。除以和，多留一位，权重是 $(0.6728, 0.1636, 0.1636)$。
#   $y_3 = 0.6728\,(1,0) + 0.1636\,(0,1) + 0.1636\,(1,1) = (0.8364, 0.3272)$。
#
# “在”把三分之二的注意力给了“张静”。<!-- by: abs(math.exp(2**0.5) / (math.exp(2**0.5) + 2) - 2 / 3) < 0.01 -->全部打 0 分，再遮住后文，就回到第一步的平均：

# %%
y = weights @ v  # [T, D]
by_hand = torch.tensor([[1.0, 0.0], [0.330, 0.670], [0.836, 0.327]])
assert torch.allclose(y, by_hand, atol=6e-4)
assert torch.allclose(torch.zeros(3, 3).masked_fill(future, -torch.inf).softmax(dim=1), mean)
y

# %% [markdown]
# 五步写成一个式子：
#
# ```{math}
# :label: eq-model-attention
# y_t = \sum_{s \le t} a_{ts}\, v_s, \qquad
# a_{ts} = \frac{\exp(q_t \cdot k_s / \sqrt{D})}{\sum_{r \le t} \exp(q_t \cdot k_r / \sqrt{D})}
# ```
#
# 从右往左读：打分，除以 $\sqrt D$，取指数，除以总和，得权重 $a_{ts}$；按权重把 $v_s$ 加起来。求和只到 $t$，就是掩码。<!-- by: reasoning -->
#
# **第六步，多个头。** 一张权重表在每个位置只有一种看法：忙着找“是谁”，就顾不上找“问什么”。于是把 $q$、$k$、$v$ 各切成 $H$ 段，每段叫一个头，各打各的分，各取各的值，最后接起来。换一个大一点的例子，五个词元，向量有 8 个数，切成 4 个头，每头 2 个数：


# %%
def split(x, w, heads):  # [T, C] → [heads, T, D]
    return (x @ w.T).view(len(x), heads, -1).transpose(0, 1)


T, C, H, D = 5, 8, 4, 2
x, w_q, w_k, w_v = (torch.randn(n, C, generator=generator) for n in (T, H * D, H * D, H * D))
q, k, v = split(x, w_q, H), split(x, w_k, H), split(x, w_v, H)
future = torch.ones(T, T, dtype=torch.bool).triu(1)
weights = (q @ k.mT / math.sqrt(D)).masked_fill(future, -torch.inf).softmax(dim=-1)  # [H, T, T]
y = (weights @ v).transpose(0, 1).reshape(T, C)  # heads side by side again
weights.shape, y.shape

# %% [markdown]
# 四张权重表，一次矩阵乘法就都算了；`@` 只管末尾两维，前面的 $H$ 各算各的。
#
# **第七步，几个头合用一组键值。** 生成时，每个词元的键和值都要存着（为什么，见“键值缓存”一节），头越多存得越多。**分组查询注意力**（grouped-query attention，GQA）{cite:p}`ainslie2023gqa` 让几个查询头合用一组键和值。纸条还是一人一张，书架少几个。代码只改一处：$k$ 和 $v$ 只切成 $K = 2$ 段，用的时候每段复印一份给邻居：

# %%
K = 2
k, v = (split(x, w[: K * D], K) for w in (w_k, w_v))  # [K, T, D]: half as much to store
shared_k, shared_v = (z.repeat_interleave(H // K, dim=0) for z in (k, v))  # [H, T, D]
weights = (q @ shared_k.mT / math.sqrt(D)).masked_fill(future, -torch.inf).softmax(dim=-1)
y = weights @ shared_v  # [H, T, D]

kernel = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True, enable_gqa=True)
assert torch.allclose(y, kernel[0], atol=1e-5)
k.shape, y.shape

# %% [markdown]
# 拿来核对的 `scaled_dot_product_attention` 是 PyTorch 自己的注意力，模型用的就是它。七步搭出来的，与它算的一样。<!-- by: assert torch.allclose(y, kernel[0], atol=1e-5) -->它胜在快：不把整张权重表摊在内存里。
#
# {numref}`fig-model-heads` 画出小模型里谁和谁合用。头与头的结果接起来，再乘一个矩阵 `o_proj`，各头找到的东西才混到一起。

# %% tags=["hide-input"] mystnb={"figure": {"caption": "小模型的一层注意力，从一个位置看：4 个查询头，2 组键值，同色的合用。键和值有许多份，自己和前面的每个位置各有一份。", "name": "fig-model-heads"}, "image": {"alt": "自上而下五排：一个向量 x；四个查询 q0 到 q3；两组键和值，左边两个查询连着第一组，右边两个连着第二组；四个结果 y0 到 y3；最下面接起来乘 o_proj"}}
drawings.head_groups(MODELS["tiny"])

# %% [markdown]
# ### 旋转：打分只看距离
#
# 上面的算式有个缺口：把“张静”和“住”对调，“在”得到的 $y_3$ 一点不变，加法不管次序。注意力自己不知道谁先谁后：“张静问李兰：”和“李兰问张静：”，到了冒号那里，看得见的是同样几个词元，一层注意力取到的东西也就一样。
#
# 怎样把位置告诉它？**旋转位置编码**（rotary position embedding，RoPE）{cite:p}`su2021rope` 的办法是：位置 $p$ 的 $q$ 和 $k$，先各转 $p\,\theta$ 弧度，再做点积。
#
# ```{math}
# :label: eq-model-rope
# (R_{p\theta}\, q) \cdot (R_{s\theta}\, k) = q \cdot R_{(s-p)\theta}\, k, \qquad
# R_\alpha = \begin{pmatrix} \cos\alpha & -\sin\alpha \\ \sin\alpha & \cos\alpha \end{pmatrix}
# ```
#
# 左边各转各的，右边只有差 $s - p$：两个向量的夹角只和它们多转了多少有关。于是注意力知道的不是“第 103 个”，而是“往前 2 个”。
#
# 把一对数看成一根针，位置每进一格，针转一下。{numref}`fig-model-clock` 的下半部分，三处的两根针各朝各的方向，夹角却一样：差的都是两格。旋转不改变长短，所以点积变不变，只看夹角。<!-- by: assert abs(score(103, 101) - score(3, 1)) < 1e-3 -->

# %% tags=["hide-input"] mystnb={"figure": {"caption": "旋转就是钟表的针，从正上方起，这里画成顺时针。上两排：同一根针在位置 0 到 5；第 0 对转得快，第 4 对转得慢。下面：位置不同，只要相距一样，$q$ 和 $k$ 的夹角就一样。", "name": "fig-model-clock"}, "image": {"alt": "上面两排各六个钟面，第一排的针每格转五十七度，第二排每格转六度；下面三个大钟面各有两根针，q 在 2、3、5，k 在 0、1、3，三处的夹角相同"}}
drawings.clock_hands(MODELS["tiny"], (0, 4))

# %% [markdown]
# 用笔算一遍。取 $q = k = (1, 0)$，$\theta = 1$。$q$ 在位置 3，转成 $(\cos 3, \sin 3) = (-0.990, 0.141)$；$k$ 在位置 1，转成 $(\cos 1, \sin 1) = (0.540, 0.841)$。
# 点积 $-0.535 + 0.119 = -0.416$，正好是 $\cos 2$。把两个位置都加 100，再算一遍：

# %%
flat = ModelConfig(hidden_size=2, num_attention_heads=1, num_key_value_heads=1)  # D = 2
cos, sin = transformer.rotary_tables(flat)  # [max_position_embeddings, D] each


def score(p, s):
    here, there = (transformer.rotate(torch.tensor([1.0, 0.0]), cos[i], sin[i]) for i in (p, s))
    return float(here @ there)


assert abs(score(3, 1) - math.cos(2)) < 1e-3
assert abs(score(103, 101) - score(3, 1)) < 1e-3
[round(score(3, 1), 3), round(score(103, 101), 3), round(score(3, 2), 3)]

# %% [markdown]
# 位置 (3, 1) 和 (103, 101) 的分数一样，(3, 2) 的不同：距离变了，分数才变。<!-- by: assert abs(score(103, 101) - score(3, 1)) < 1e-3 -->
#
# 一个头有 $D$ 个数，分成 $D/2$ 对，每一对转的快慢不同：第 $i$ 对的 $\theta_i = 10000^{-2i/D}$。像钟的几根针：秒针分得清前一秒和后一秒，却不知道是几点；时针正相反。{numref}`fig-model-rope` 画的是打分怎样随距离变：第 0 对 6.3 个词元转一圈，第 4 对 63 个，第 8 对 628 个，第 12 对要 6,283 个，图上只画到 54 个，它看上去没有动，是留给更远的距离的。几根针合在一起，远近才都分得清。<!-- by: (round(20 * math.pi), round(200 * math.pi), round(2000 * math.pi)) == (63, 628, 6283) -->

# %% tags=["hide-input"] mystnb={"figure": {"caption": "小模型的一个头（$D = 32$）里的四对数：$q = k = (1, 0)$ 时，距离对打分的影响。第 0 对每 6.3 个词元转一圈，第 12 对在 54 个词元里转不到百分之一圈。", "name": "fig-model-rope"}, "image": {"alt": "四条余弦曲线，横轴是距离 0 到 54：第 0 对快速振荡，第 4 对不到一圈，第 8 对缓慢下降，第 12 对看上去是水平线"}}
turn = 2 * math.pi
assert round(turn, 1) == 6.3  # pair 0 turns by 1 radian a token
assert turn > 54 * 10000 ** (-8 / 32)
assert turn / 100 > 54 * 10000 ** (-24 / 32)
distance = list(range(55))
waves = {
    f"第 {i} 对": (distance, [math.cos(d * 10000 ** (-2 * i / 32)) for d in distance])
    for i in (0, 4, 8, 12)
}
show.lines(waves, "两个词元的距离", "旋转以后的 q · k")

# %% [markdown]
# ### 参数：一项一项数
#
# 参数装在四种零件里：**嵌入**（embedding）表把每个编号变成一个向量；注意力有四个矩阵；**前馈网络**（feed-forward network）在每个位置上单独加工，有三个；**归一化**（normalization）管住向量的长短。后两种下一节细看，现在只当账目：每个矩阵有几行几列，乘起来是多少。
#
# 默认配置 `ModelConfig()`：词表 $V = 6400$，宽度 $C = 512$，层数 $L = 8$，8 个查询头，2 个键值头，每头 $D = 512/8 = 64$，前馈网络内部宽度 $M = 1408$。
#
# | 部分 | 算式 | 参数 |
# |---|---|---|
# | 嵌入表（输出层共用） | $V \cdot C = 6400 \times 512$ | 3,276,800 |
# | 每层：查询与输出矩阵 | $2 \cdot C \cdot C = 2 \times 512 \times 512$ | 524,288 |
# | 每层：键与值矩阵 | $2 \cdot C \cdot 2D = 2 \times 512 \times 128$ | 131,072 |
# | 每层：前馈网络的三个矩阵 | $3 \cdot C \cdot M = 3 \times 512 \times 1408$ | 2,162,688 |
# | 每层：两个归一化 | $2 \cdot C$ | 1,024 |
# | 最后的归一化 | $C$ | 512 |
#
# 每层 $524{,}288 + 131{,}072 + 2{,}162{,}688 + 1{,}024 = 2{,}819{,}072$，八层 $22{,}552{,}576$；加上嵌入表和最后的归一化，一共 $25{,}829{,}888$。

# %%
table, *layer, last = 6400 * 512, 2 * 512 * 512, 2 * 512 * 128, 3 * 512 * 1408, 2 * 512, 512
assert table + 8 * sum(layer) + last == 25_829_888
table, layer, last

# %% [markdown]
# 写成一个函数，别的尺寸也能数：


# %%
def count(c):
    kv = c.num_key_value_heads * c.head_dim
    attention = 2 * c.hidden_size**2 + 2 * c.hidden_size * kv
    ffn = 3 * c.hidden_size * c.intermediate_size
    layers = c.num_hidden_layers * (attention + ffn + 2 * c.hidden_size)
    return c.vocab_size * c.hidden_size + layers + c.hidden_size


assert count(ModelConfig()) == 25_829_888
for config in MODELS["default"], MODELS["tiny"]:
    assert transformer.Transformer(config).num_parameters() == count(config)
[count(MODELS["default"]), count(MODELS["tiny"])]

# %% [markdown]
# 同一个函数数出本书一直用的小模型：869,504 个参数。训练脚本开头打印的就是这个数。
#
# ## 真实代码
#
# 两个配置只有尺寸不同，代码是同一份。

# %% tags=["hide-input"]
about = {
    "vocab_size": "词表大小 V",
    "hidden_size": "残差流的宽度 C",
    "intermediate_size": "前馈网络的内部宽度 M",
    "num_hidden_layers": "层数 L",
    "num_attention_heads": "查询头 H",
    "num_key_value_heads": "键值头 K",
    "head_dim": "每头的宽度 D = C / H",
    "max_position_embeddings": "最长的序列",
    "rope_theta": "旋转的底数",
    "rms_norm_eps": "归一化里防止除以零的数",
}
show.table(
    ["字段", "含义", "默认 default", "小模型 tiny"],
    [
        [name, text, *(f"{getattr(MODELS[p], name):g}" for p in ("default", "tiny"))]
        for name, text in about.items()
    ],
)

# %% [markdown]
# 结构与 Llama {cite:p}`touvron2023llama` 相同。数据从左流到右，下面按这个顺序读 `minillm/model/transformer.py`。形状里的字母：$B$ 行，$T$ 个位置，其余见上表。

# %% tags=["hide-input"] mystnb={"figure": {"caption": "整个模型。中间的块重复 $L$ 次，进出的形状都是 `[B, T, C]`。", "name": "fig-model-flow"}, "image": {"alt": "从左到右五个方框：词元编号 [B, T]，嵌入 [B, T, C]，L 个块 [B, T, C]，归一化 [B, T, C]，输出层 [B, T, V]"}}
show.flow(
    [
        ("词元编号", "[B, T]"),
        ("嵌入", "[B, T, C]"),
        ("块 × L", "[B, T, C]"),
        ("归一化", "[B, T, C]"),
        ("输出层", "[B, T, V]"),
    ],
    [show.GREY, *[show.COLOURS["pretrain"]] * 3, show.COLOURS["sft"]],
)

# %% [markdown]
# ### 主干：两次相加就是一层
#
# 编号先查表变成向量：编号 $i$ 就取嵌入表的第 $i$ 行。残差流从这里开始。`cos` 和 `sin` 是旋转要用的表，`mask` 是谁能看谁的许可表；`cache` 是键值缓存，训练时没有，先不管它。<!-- by: reasoning -->

# %%
show.source(transformer.Decoder.forward, transformer.Block)

# %% [markdown]
# `Block.forward` 的两行就是一整层：`x` 加上注意力的结果，再加上前馈网络的结果。两者读的都是归一化以后的 `x`，结果却加回没有归一化的 `x`。

# %% tags=["hide-input"] mystnb={"figure": {"caption": "一个块。从上面绕过去的线是残差流：没有归一化的 `x` 原样到加号，绿框和橙框的结果在那里加上去，与残差流那张图里的同色。", "name": "fig-model-block"}, "image": {"alt": "从左到右：方框 x，归一化，注意力，一个加号，归一化，前馈网络，又一个加号，方框 x。从 x 之后分出一条线，绕过归一化和注意力，到第一个加号；加号之后又分出一条，绕过归一化和前馈网络，到第二个加号"}}
blue, green, orange = (show.COLOURS[name] for name in ("pretrain", "sft", "dpo"))
show.flow(
    [
        ("x", "[B, T, C]"),
        ("归一化", ""),
        ("注意力", "[B, T, C]"),
        ("+", ""),
        ("归一化", ""),
        ("前馈网络", "[B, T, C]"),
        ("+", ""),
        ("x", "[B, T, C]"),
    ],
    [show.GREY, blue, green, show.GREY, blue, orange, show.GREY, show.GREY],
    skips=[(0, 3), (3, 6)],
)

# %% [markdown]
# ### 归一化：只留方向，不留长短
#
# 层层相加，`x` 的长度没有人管。每一层想读的是方向，不是长度，所以先做归一化。RMSNorm {cite:p}`zhang2019rmsnorm` 除以均方根，再乘一个可学的缩放 $g$：
#
# ```{math}
# :label: eq-model-rmsnorm
# \mathrm{RMSNorm}(x)_i = g_i\, \frac{x_i}{\sqrt{\frac1C \sum_j x_j^2 + \varepsilon}}
# ```
#
# 取 $x = (3, 4)$，$g = (1, 1)$：均方 $(9 + 16)/2 = 12.5$，均方根 $3.536$，结果 $(0.849, 1.131)$。把 $x$ 放大十倍，结果不变。<!-- by: assert torch.allclose(small, large, atol=1e-4) -->

# %%
norm = transformer.RMSNorm(2, eps=1e-5)
with torch.no_grad():
    small, large = norm(torch.tensor([3.0, 4.0])), norm(torch.tensor([30.0, 40.0]))
assert torch.allclose(small, torch.tensor([0.849, 1.131]), atol=1e-3)
assert torch.allclose(small, large, atol=1e-4)
small

# %% [markdown]
# ### 注意力：七步都在这里
#
# 七步搭的，加上旋转，就是包里的这二十行。读的时候盯住形状，看得出哪一行是哪一步：

# %%
show.source(transformer.Attention.forward, transformer.rotate)

# %% [markdown]
# 手搭的没有 $B$ 这一维，这里几行一起算。`q` 是 `[B, H, T, D]`，`k` 和 `v` 是 `[B, K, T, D]`，$K < H$。`enable_gqa=True` 让第 $h$ 个查询头用第 $\lfloor hK/H \rfloor$ 组键值：小模型 $H = 4$，$K = 2$，第 0、1 个头用第 0 组，第 2、3 个头用第 1 组。
#
# 只有 `q` 和 `k` 要旋转：位置影响“找谁”，不影响“找到以后拿什么”。`rotate` 把 $(x_i, x_{i+D/2})$ 当作一对，就是手算里的那个旋转：`roll` 挪半个头，每个数就对上它的搭档；式中的负号已经写进 `sin` 表。
#
# 还有两处是为别的情形写的，第一遍可以跳过。`T > 1`：生成时一次只送一个词元，缓存里的全是它的前文，不需要掩码。`kernel_shares_heads` 只有在 GPU（CUDA）上又带着掩码时为假，那时先把键和值各复制 $H/K$ 份，算出来的一样（{numref}`第 %s 章 <sec-scale>`）。
#
# 手搭的和它真的一样吗？拿训练好的权重来比（{numref}`第 %s 章 <sec-pretrain>` 里训练，这里先借来用）。先照手算写出旋转：把第 $i$ 个数和第 $i + D/2$ 个当作一对，$(a, b)$ 转成 $(a\cos - b\sin,\ b\cos + a\sin)$。


# %%
def turn(z, theta=10000.0):  # [heads, T, D]
    half = z.shape[-1] // 2
    speeds = theta ** (-torch.arange(half) / half)
    angles = torch.outer(torch.arange(z.shape[-2]), speeds)  # [T, D/2]
    a, b, cos, sin = z[..., :half], z[..., half:], angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def attend_by_hand(x, w, heads, groups):  # [T, C] → [T, C]
    q = turn(split(x, w["q"], heads))
    k, v = turn(split(x, w["k"], groups)), split(x, w["v"], groups)
    k, v = (z.repeat_interleave(heads // groups, dim=0) for z in (k, v))
    future = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(future, -torch.inf)
    return (scores.softmax(dim=-1) @ v).transpose(0, 1).reshape(len(x), -1) @ w["o"].T


# %% [markdown]
# 让模型读一句话，截下第一层注意力的输入和输出（`register_forward_hook` 登记一个函数，这一层算完就调用它），再从同样的输入、同样的四个矩阵手搭一遍：

# %% tags=["nbval-ignore-output"]
pretrain = lab.ladder("pretrain")  # trained now if it is not in the cache
trained, fresh, tokenizer = pretrain.model(), lab.fresh(), lab.tokenizer()
ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode("小猫说：“你好。”")]])  # [B, T]
layer, caught = trained.model.layers[0].self_attn, []
hook = layer.register_forward_hook(lambda _, args, out: caught.extend([args[0], out]))
with torch.no_grad():
    trained(ids)
    hook.remove()
    x, wanted = caught[0][0], caught[1][0]  # [T, C] in, [T, C] out
    four = {name: getattr(layer, f"{name}_proj").weight for name in "qkvo"}
    mine = attend_by_hand(x, four, layer.H, layer.K)
assert torch.allclose(mine, wanted, atol=1e-3)
mine.shape

# %% [markdown]
# 一样。<!-- by: assert torch.allclose(mine, wanted, atol=1e-3) -->包里的代码没有藏着别的东西。
#
# 训练时一行里装着好几篇文档（{numref}`第 %s 章 <sec-tensors>` 的打包），只有因果掩码还不够，一篇文档不该看到另一篇。上一章用过的 `document_mask` 两条一起管：

# %%
show.source(transformer.document_mask)

# %%
two_documents = torch.tensor([[0, 0, 0, 1, 1]])  # [B, T] = [1, 5]
mask = transformer.document_mask(two_documents)[0, 0]  # [T, T]
assert mask.sum() == 3 + 2 + 1 + 2 + 1
names = ["甲1", "甲2", "甲3", "乙1", "乙2"]
show.matrix(mask, names, names, digits=0)

# %% [markdown]
# 行是正在看的词元，列是被看的词元。右上角全是 0，是因果；左下角的方块也是 0，是文档的边界。
#
# ### 前馈网络：带阀门的两层
#
# 注意力在位置之间搬运信息，前馈网络在每个位置上单独加工它，大部分参数在这里。<!-- by: assert abs(sizes["FFN"] / 25_829_888 - 2 / 3) < 0.01 -->用的是 SwiGLU {cite:p}`shazeer2020glu`：

# %%
show.source(transformer.MLP.forward)

# %% [markdown]
# 形状从 `[B, T, C]` 到 `[B, T, M]` 再回到 `[B, T, C]`。`up_proj` 算出 $M$ 个候选，`gate_proj` 算出 $M$ 个阀门，$\mathrm{silu}(z) = z\,\sigma(z)$ 决定开多大，$\sigma(z) = 1/(1+e^{-z})$。
# 手算：$\mathrm{silu}(1) = 0.731$，开；$\mathrm{silu}(-4) = -4 \times 0.018 = -0.072$，差不多关上。
#
# 为什么要阀门？没有它，`up_proj` 和 `down_proj` 连着乘，还是一个矩阵，变宽又变窄等于白做。要有一步不是乘矩阵，才算得出矩阵算不出的东西。
#
# $M$ 为什么是 $2.75\,C$？老式的前馈网络只有两个矩阵，内部宽 $4C$，共 $2 \times 4C^2 = 8C^2$ 个参数；这里有三个，共 $3CM$ 个，要一样多，$M$ 就该是 $\frac83 C$，约 $2.67\,C$。那不是整数，上表的两个模型都取略大一点的 $2.75\,C$。<!-- by: 3 * 8 / 3 == 2 * 4 and round(8 / 3, 2) == 2.67 -->

# %%
gates = F.silu(torch.tensor([1.0, 0.0, -4.0]))
assert torch.allclose(gates, torch.tensor([0.731, 0.0, -0.072]), atol=1e-3)
two = MODELS["default"], MODELS["tiny"]
assert all(c.intermediate_size == 2.75 * c.hidden_size for c in two)
gates

# %% [markdown]
# ### 输出层：同一张表，反过来用
#
# 最后一个向量怎样变成下一个词元的分数？和嵌入表的每一行做点积：像哪一行，哪一行的词元得分就高。分数再过一次 softmax，就是下一个词元的概率。输入和输出共用一张表 {cite:p}`press2017tying`，省下 $V \cdot C$ 个参数。

# %%
show.source(transformer.Transformer.__init__, transformer.Transformer._init)

# %% [markdown]
# 开场的谜底就在 `lm_head.weight = embed_tokens.weight` 这一行。没有训练时，各层往残差流里加的东西很小，`x` 主要还是输入词元自己的那一行；拿它和整张表比，最像的当然是它自己。所以随机的模型只会重复。
#
# ### 初始化：为什么是 $0.02/\sqrt{2L}$
#
# $2L$ 个子层都往残差流上加东西。$n$ 个独立的量相加，方差是一个的 $n$ 倍；写回残差流的两个矩阵 `o_proj` 和 `down_proj` 从 $0.02/\sqrt{2L}$ 开始 {cite:p}`radford2019gpt2`，加完 $2L$ 次，增加的方差和加一次时一样，与深度无关。小模型 $L = 4$，每个从 $0.02/\sqrt 8 = 0.007$ 开始：八份这样的方差加起来，正是一份 $0.02^2$。<!-- by: round(0.02 / 8**0.5, 3) == 0.007 and 4 * 2 == 8 -->
# 把缩放撤掉再量一次残差流最后的均方根（刚嵌入时是 0.02）：


# %%
@torch.no_grad()
def final_rms(layers, scaled):
    torch.manual_seed(0)
    net = transformer.Transformer(replace(MODELS["tiny"], num_hidden_layers=layers))
    for block in net.model.layers:
        if not scaled:
            block.self_attn.o_proj.weight *= math.sqrt(2 * layers)
            block.mlp.down_proj.weight *= math.sqrt(2 * layers)
    found = []
    net.model.norm.register_forward_pre_hook(lambda _, args: found.append(args[0]))
    net(torch.randint(1024, (8, 128)))
    return float(found[0].square().mean().sqrt())


rms = [[f"{n} 层", final_rms(n, True), final_rms(n, False)] for n in (4, 16)]
assert all(a < 0.03 < 2 * 0.03 < b for _, a, b in rms)
assert rms[1][2] > 2 * rms[0][2]
show.table(["", "缩放", "不缩放"], [[n, f"{a:.3f}", f"{b:.3f}"] for n, a, b in rms])

# %% [markdown]
# 有缩放，4 层和 16 层差不多；没有，越深越大，16 层时词元自己的 0.02 已经淹没在随机的输出里。
#
# ### 从头走一遍：每个零件的名字和形状
#
# 把一句话送进小模型，记下每个模块的权重和输出的形状：

# %%
shapes = {}
for name, module in fresh.named_modules():
    if hasattr(module, "weight") and "layers.1" not in name and "layers.2" not in name:
        module.register_forward_hook(
            lambda _, __, out, name=name, weight=module.weight: shapes.update(
                {name: [list(weight.shape), list(out.shape)]}
            )
        )
with torch.no_grad():
    fresh(ids)
kept = {n: s for n, s in shapes.items() if "layers.3" not in n}
assert kept["lm_head"][1] == [1, ids.shape[1], 1024]
show.table(["模块", "权重", "输出"], [[n, *map(str, s)] for n, s in kept.items()])

# %% [markdown]
# 这些名字不是我们起的，是 Hugging Face 里 `LlamaForCausalLM` 的。所以 `state_dict()` 一个键都不用改，就能装进别人的 Llama；`tests/model/test_transformer.py` 用同一份权重比较两边的输出，相差不到 $10^{-5}$。

# %%
expected = "model.layers.0.self_attn.q_proj.weight"
assert expected in fresh.state_dict()
assert fresh.lm_head.weight is fresh.model.embed_tokens.weight  # one table, two names
[name for name in fresh.state_dict() if ".layers.0." in name]

# %% [markdown]
# ### 二十行的 Llama：读一个真的文件夹
#
# 训练结束时，权重还存成一个 Hugging Face 格式的文件夹：`config.json` 写尺寸，`model.safetensors` 写权重，每个张量有名字和形状。别人发布的 Llama 也是这样的文件夹。只用这两个文件，不用包里的模型，把前面的零件接起来，就是一个完整的 Llama：


# %%
def llama(folder, ids):  # ids: [T] → scores [T, V]
    c = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    w = load_file(folder / "model.safetensors")

    def norm(x, name):
        return F.rms_norm(x, x.shape[-1:], w[name], c["rms_norm_eps"])

    x = w["model.embed_tokens.weight"][ids]  # [T, C]
    for i in range(c["num_hidden_layers"]):
        here = f"model.layers.{i}."
        read = norm(x, here + "input_layernorm.weight")
        four = {n: w[f"{here}self_attn.{n}_proj.weight"] for n in "qkvo"}
        x = x + attend_by_hand(read, four, c["num_attention_heads"], c["num_key_value_heads"])
        read = norm(x, here + "post_attention_layernorm.weight")
        gate, up, down = (w[f"{here}mlp.{n}_proj.weight"] for n in ("gate", "up", "down"))
        x = x + (F.silu(read @ gate.T) * (read @ up.T)) @ down.T
    table = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return norm(x, "model.norm.weight") @ table.T


# %% [markdown]
# `read_config` 和 `read_weights` 是包里读这种文件夹的函数：名字对不上、形状不对、模型不会算的零件，都当场拒绝。两条路读同一个文件夹，打的分应当一样：

# %%
folder = pretrain.folder / "pretrain"
loaded = read_weights(folder, read_config(folder)).eval()
with torch.no_grad():
    by_names, by_package = llama(folder, ids[0]), loaded(ids)[0]
assert torch.allclose(by_names, by_package, atol=1e-3)
stored = load_file(folder / "model.safetensors")
show.table(
    ["文件里的名字", "形状"],
    [[n, str(list(t.shape))] for n, t in stored.items() if ".layers." not in n or ".0." in n],
)

# %% [markdown]
# 分数一样。<!-- by: assert torch.allclose(by_names, by_package, atol=1e-3) -->别人的 Llama 文件夹也这样读（旋转的底数要照它的 `config.json`，手写的 `turn` 用的总是 1 万），训练时用 `--init_from` 接着练；多出来的零件，比如 Llama 3.1 给旋转加的缩放，包里不会算，就当场拒绝。<!-- by: minillm/training/llama_folder.py -->你在这里读懂的，就是那些大模型的骨架：它们的不同在尺寸，以及少数零件。
#
# :::{admonition} 真实世界
# :class: real-world
#
# 本书的小模型和三家的放在一起看：同一副骨架，尺寸不同，另有少数零件不同。键值缓存是生成时每个词元要存下的键和值（“键值缓存”一节讲），按每个数 2 字节算。（Qwen3 的这一个，每头是 128 个数，不是宽度除以头数。）<!-- by: 2 * 28 * 8 * 128 * 2 == 114688 -->
#
# | | 小模型 | Qwen3-0.6B | Llama 3.1 405B | DeepSeek-V3 <!-- by: @deepseek2024v3 --> |
# |---|---|---|---|---|
# | 报告的年份 | | 2025 | 2024 | 2024 |
# | 参数 | 87 万 | 6 亿 | 4,050 亿 | 6,710 亿 <!-- by: @deepseek2024v3 --> |
# | 层 | 4 | 28 | 126 | 61 <!-- by: @deepseek2024v3 --> |
# | 宽度 | 128 | 1,024 | 16,384 | 7,168 <!-- by: @deepseek2024v3 --> |
# | 查询头、键值头 | 4、2 | 16、8 | 128、8 | 128，MLA <!-- by: @deepseek2024v3 --> |
# | 每个词元的键值缓存 | 1 KB | 115 KB | 516 KB | 70 KB <!-- by: @zhao2025insights --><!-- by: (2 * 4 * 2 * 32 * 2, 2 * 28 * 8 * 128 * 2) == (1024, 114688) --> |
#
# 再按零件对照：
#
# | 零件 | 本书 | Qwen3-0.6B | Llama 3.1 405B | DeepSeek-V3 <!-- by: @deepseek2024v3 --> |
# |---|---|---|---|---|
# | 归一化 | RMSNorm | RMSNorm，另有 QK-Norm | RMSNorm | RMSNorm <!-- by: @yang2025qwen3 --><!-- by: @deepseek2024v3 --> |
# | 位置 | RoPE，底数 1 万 | RoPE，底数 100 万 | RoPE，底数 50 万 | RoPE，每头只转 64 个数 <!-- by: @yang2025qwen3 --><!-- by: @grattafiori2024llama3 --><!-- by: @deepseek2024v3 --> |
# | 注意力 | 分组 | 分组 | 分组 | MLA <!-- by: @deepseek2024v3 --> |
# | 前馈网络 | SwiGLU | SwiGLU | SwiGLU | SwiGLU，多数层换成专家 <!-- by: @deepseek2024v3 --> |
# | 词表 | 1,024 | 151,669 | 128,000 | 约 128,000 <!-- by: @yang2025qwen3 --><!-- by: @grattafiori2024llama3 --><!-- by: @deepseek2024v3 --> |
# | 输出层 | 与嵌入共用 | 与嵌入共用 | 自己的矩阵 | 自己的矩阵 <!-- by: @yang2025qwen3 --> |
#
# 底数大，慢的针转得更慢，是为了更长的文章。<!-- by: reasoning -->主干没有列，三家都是残差流，先归一化再读。<!-- by: @yang2025qwen3 --><!-- by: @grattafiori2024llama3 --><!-- by: @deepseek2024v3 -->不同的零件有三样：
#
# - **QK-Norm**：Qwen3 在打分之前，把 $q$ 和 $k$ 再各归一化一次，训练更稳 {cite:p}`yang2025qwen3`。<!-- by: @yang2025qwen3 -->
# - **混合专家**（mixture of experts，MoE）：DeepSeek-V3 除头三层外，前馈网络换成 256 个小的（专家），外加一个公用的；每个词元只挑 8 个来算。所以 6,710 亿个参数里，一个词元只用到 370 亿个 {cite:p}`deepseek2024v3`。<!-- by: @deepseek2024v3 -->
# - **多头潜在注意力**（multi-head latent attention，MLA）：DeepSeek-V3 不存键和值，只存一个压缩过的向量，要用时再展开。每个词元存 70 KB；Llama 3.1 405B 用分组查询注意力 {cite:p}`grattafiori2024llama3`，要存 516 KB {cite:p}`zhao2025insights`。<!-- by: @zhao2025insights -->
#
# （2026 年 11 月核对。）
# :::
#
# ## 实验
#
# ### 没有训练时，损失接近 $\ln V$
#
# 什么都不知道的模型，最诚实的猜法是给 1,024 个词元同样的概率，**交叉熵**（cross-entropy）就是 $\ln 1024 = 6.93$。随机权重应当离它不远；离得远，说明初始化或标签有错。在留出的验证行上量：

# %% tags=["nbval-ignore-output"]
cache = pretrain.folder / "cache"
val_path = lab.data() / "pretrain_chinese_val.jsonl"
held_out = PackedRows(load_dataset(val_path, "pretrain", tokenizer, 128, cache), 128, 1, 0, False)


def val_loss(net):
    return validation_loss(next_token_loss, net, [held_out.batch(range(32))])["loss"]


loss = val_loss(fresh)
assert abs(loss - math.log(1024)) < 0.1
f"loss {loss:.2f}, ln 1024 = {math.log(1024):.2f}"

# %% [markdown]
# 不会正好相等。随机的分数有高有低，取指数的时候，高的放大得多，低的缩小得少，softmax 的分母平均就变大，损失也跟着大：多出来的大约是分数方差的一半。碰巧偏向常用的词元，又能赚回一些。量一量分数，顺便验证开场的谜底：<!-- by: assert abs(loss - math.log(1024)) < 0.1 -->

# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    logits = fresh(ids)  # [B, T, V]
own = float(logits.gather(-1, ids[..., None]).mean())  # of the token that was just read
spread = float(logits.std())
assert own > 4 * spread
assert abs(spread - 0.02 * math.sqrt(128)) < 0.05
print(f"score of the token just read {own:.1f}, standard deviation of all scores {spread:.2f}")

# %% [markdown]
# 归一化以后，$x$ 的 128 个数均方是 1；一个分数是它们各乘一个标准差为 0.02 的随机数再相加，所以分数的标准差约 $0.02\sqrt{128} = 0.23$，方差的一半约 0.03。<!-- by: round((0.02 * 128**0.5) ** 2 / 2, 2) == 0.03 -->
#
# 刚读过的词元不同：$x$ 主要就是它那一行，方向一致，各项相乘都往正的一边加。完全一致的话，就是 $128 \times 0.02 = 2.56$ 分。
#
# 一千个随机数里，最大的通常只高出三个多标准差。刚读过的词元自己得的分，平均高出四个标准差还不止，所以贪心地取最高分，就是一遍遍重复自己。<!-- by: assert own > 4 * spread -->
#
# ### 它看不到后文
#
# 因果性不必相信，可以测。改掉位置 $t$ 的词元，前面的输出一点也不该变，从它起都该变。`leaks_backwards` 返回 `True`，就是前面的也跟着动了：


# %%
@torch.no_grad()
def leaks_backwards(net, t=3):
    changed = ids.clone()
    changed[0, t] = tokenizer.encode("猫")[0]
    documents = torch.zeros_like(ids)  # one document, as in training
    difference = net(ids, document_ids=documents) - net(changed, document_ids=documents)
    difference = difference.abs().amax(-1)[0]  # [T]
    assert difference[t:].min() > 1e-4
    return bool(difference[:t].max() > 1e-5)


assert not leaks_backwards(fresh)
assert not leaks_backwards(trained)
leaks_backwards(fresh), leaks_backwards(trained)

# %% [markdown]
# ### 参数多半不在注意力里
#
# {numref}`fig-model-parameters` 把手算的账画了出来。注意力出名，三分之二的参数却在前馈网络里。<!-- by: assert abs(sizes["FFN"] / 25_829_888 - 2 / 3) < 0.01 -->

# %% tags=["hide-input"] mystnb={"figure": {"caption": "默认模型的参数。前馈网络占三分之二，嵌入表占八分之一；词表开到 4.5 万，嵌入表就比其余的一切都大。", "name": "fig-model-parameters"}, "image": {"alt": "横条，单位百万：前馈网络最长，然后是注意力、嵌入表，归一化短得看不见"}}
groups = {"FFN": "mlp", "attention": "self_attn", "embedding": "embed_tokens", "norms": "norm"}
named = dict(transformer.Transformer(ModelConfig()).named_parameters())
sizes = {
    group: sum(p.numel() for name, p in named.items() if part in name)
    for group, part in groups.items()
}
assert sum(sizes.values()) == 25_829_888
assert sizes["FFN"] > sizes["attention"] > sizes["embedding"] > 100 * sizes["norms"]
assert abs(sizes["FFN"] / 25_829_888 - 2 / 3) < 0.01
assert abs(sizes["embedding"] / 25_829_888 - 1 / 8) < 0.01
assert sum(sizes.values()) - sizes["embedding"] < 4.5e4 * 512
names = ["前馈网络", "注意力", "嵌入表", "归一化"]
millions = [n / 1e6 for n in sizes.values()]
show.bars(dict(zip(names, millions, strict=True)), "默认模型的参数（百万）")

# %% [markdown]
# ### 拿掉一个零件，损失涨多少
#
# 零件都讲过了，各值多少？拿掉或换掉一个，别的不动，从头训练，再比验证损失。这样的实验叫**消融**（ablation）。
#
# 模型用宽度和层数都减半的，每种改法训练 150 步，用两个种子。同一种改法，种子不同，损失也不同，所以单看一次不行。要训练几十次，页里不做，由 `python benchmarks/ablations.py` 事先做好，这里读它的结果。
#
# 先立规矩，再看结果。原样的两次之间差多少，叫它的宽度。一种改法的两次都在原样的两次之外，空出来的还不止一个宽度，才说它变好或变差；否则就说分不出。只有两个种子，这条规矩仍然粗：差得少的几行，多训练几次也许会改判。<!-- by: reasoning -->

# %% tags=["hide-input"]
found = json.loads((lab.ROOT / "book/results/ablations.json").read_text(encoding="utf-8"))
parts = {
    "base": "原样",
    "no attention": "没有注意力",
    "no residual": "没有残差流",
    "no norm": "没有归一化",
    "no ffn": "没有前馈网络",
    "no rope": "没有旋转",
    "unscaled": "初始化不缩放",
    "mha": "每个头自有键值",
    "relu": "ReLU 代替阀门",
    "untied": "输出层用自己的矩阵",
    "1 layer": "1 层，宽 80",
    "4 layers": "4 层，宽 48",
}


def trials(change, steps, what="val_loss"):
    return [r[what] for r in found["runs"] if (r["change"], r["steps"]) == (change, steps)]


# %% tags=["hide-input"]
def verdict(change, steps=150):
    usual, values = trials("base", steps), trials(change, steps)
    width = max(usual) - min(usual)
    if min(values) - max(usual) > width:
        return "变差"
    return "变好" if min(usual) - max(values) > width else "分不出"


def row(change, steps=150):
    values = trials(change, steps)
    return [f"{trials(change, steps, 'parameters')[0]:,}", *(f"{v:.2f}" for v in values)]


judged = {change: verdict(change) for change in parts if change != "base"}
table = [[name, *row(c), judged.get(c, "")] for c, name in parts.items()]
assert judged["no attention"] == judged["no residual"] == "变差"
assert judged["no norm"] == judged["no rope"] == judged["4 layers"] == "变差"
assert judged["unscaled"] == judged["mha"] == judged["no ffn"] == "分不出"
assert judged["relu"] == judged["1 layer"] == judged["untied"] == "变好"
assert max(trials("mha", 150)) < min(trials("base", 150))
assert min(trials("no residual", 150)) > max(trials("no norm", 150)) + 0.3
show.table(["改法", "参数", "种子 42", "种子 7", "与原样比"], table)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "一个点是一次训练，蓝带是原样的两次之间。颜色就是上表末一列的判断：橙的坏，绿的好，灰的分不出。出了右边界的，写着数。", "name": "fig-model-ablations"}, "image": {"alt": "横轴是验证损失。原样的两点在蓝带两端；没有注意力和没有残差流远在右边之外，没有归一化次之；用 ReLU、输出层用自己的矩阵、一层宽模型在蓝带左边，是绿的；每个头自有键值也在左边，离得近，是灰的"}}
drawings.seed_dots(
    {name: trials(change, 150) for change, name in parts.items()},
    "原样",
    {parts[change]: said for change, said in judged.items()},
    "验证损失（奈特，每个词元）",
    1.8,
)

# %% [markdown]
# 从上往下读：
#
# - **没有注意力**，每个位置只看得见自己这一个词元，不管多少层，都只是{numref}`第 %s 章 <sec-environment>`的二元模型。**没有残差流**，参数一个没少，两层就已经学得慢得多。这两样是骨架。<!-- by: assert judged["no attention"] == judged["no residual"] == "变差" --><!-- by: assert min(trials("no residual", 150)) > max(trials("no norm", 150)) + 0.3 -->
# - **没有归一化**、**没有旋转**，也变差，涨得少一些；同样多的参数，拉成四个窄层也是。没有旋转还能学，因为因果掩码留着一点先后：每个位置能看到的范围不同（练习里再量一次）。<!-- by: assert judged["no norm"] == judged["no rope"] == judged["4 layers"] == "变差" -->
# - **分不出**的：初始化缩放防的是深，这里只有两层，用不上。每个头自有键值，两次都略低，低得却不够一个宽度；反过来读，分组省下一半的缓存，代价小得这里量不清。<!-- by: assert judged["unscaled"] == judged["mha"] == judged["no ffn"] == "分不出" --><!-- by: assert max(trials("mha", 150)) < min(trials("base", 150)) -->没有前馈网络也分不出，这就奇怪了：它占去块里七成的参数。<!-- by: assert judged["unscaled"] == judged["mha"] == judged["no ffn"] == "分不出" --><!-- by: round((158016 - 90432) / (158016 - 1024 * 64), 1) == 0.7 -->
# - **变好**的更奇怪：把带阀门的换成老式的 ReLU（两个矩阵，内部加宽一半，参数一样多），两层换成一个宽层，都更好。<!-- by: benchmarks/ablations.py -->输出层自己的矩阵也更好，它多了四成参数。<!-- by: assert judged["relu"] == judged["1 layer"] == judged["untied"] == "变好" --><!-- by: round(223552 / 158016, 1) == 1.4 -->
#
# 难道书里选得不对？先别急。150 步只走了训练的开头，谁起步快，谁就好看。把奇怪的几样再训练一遍，这次 600 步：


# %% tags=["hide-input"]
def lead(change, steps):  # how far its mean loss lies below the unchanged model's
    usual, values = trials("base", steps), trials(change, steps)
    return sum(usual) / len(usual) - sum(values) / len(values)


again = ["base", "no ffn", "relu", "untied", "1 layer"]
later = {change: verdict(change, 600) for change in again[1:]}
rows = [[parts[c], *row(c, 600)[1:], judged.get(c, ""), later.get(c, "")] for c in again]
assert later["1 layer"] == later["no ffn"] == "分不出"
assert later["relu"] == later["untied"] == "变好"
assert max(trials("base", 600)) < min(trials("base", 150)) - 0.5
assert all(2 * lead(c, 600) < lead(c, 150) for c in ("relu", "untied"))
show.table(["改法", "600 步，种子 42", "种子 7", "150 步时", "600 步时"], rows)

# %% [markdown]
# 损失都降了一大截。<!-- by: assert max(trials("base", 600)) < min(trials("base", 150)) - 0.5 -->一个宽层的便宜没有了，两层的追上来，分不出了。<!-- by: assert later["1 layer"] == later["no ffn"] == "分不出" -->ReLU 和自己的输出矩阵还是好些，领先的却只剩不到一半。<!-- by: assert later["relu"] == later["untied"] == "变好" --><!-- by: assert all(2 * lead(c, 600) < lead(c, 150) for c in ("relu", "untied")) -->没有前馈网络，还是分不出。一种解释：微世界的句子不是照套路接，就是从前文抄，要记住的东西少；书越厚，要记的越多，前馈网络才越要紧。<!-- by: reasoning -->
#
# 这张表该怎样用？它说的是一个 16 万参数的模型，在一个句子很有套路的世界里，训练了一小会儿。<!-- by: round(158016 / 1e4) == 16 -->大模型选 SwiGLU，凭的是大模型上的比较 {cite:p}`shazeer2020glu`；本书照着选，还有一个更实在的理由：结构与 Llama 一样，才能读别人的文件夹，也让别人读我们的。自己做消融时，记住三条：一次只改一处；每种至少两个种子；训练得长一些再看一眼，次序会不会变。<!-- by: @shazeer2020glu -->
#
# ### 训练以后，有的头会回头看
#
# 微世界里有一种“跟着说”的句子。要说对第二遍，只能回头去抄第一遍。随机的模型和预训练完的模型各怎样看这个句子？
# 下面的表这样读：一行是一个正在看的词元，颜色越深，它给那一列的词元的注意力越多，一行加起来是 1。先看随机的，第 4 层的第 1 个头（代码从 0 数起）：

# %% tags=["nbval-ignore-output"]
echo = "小猫说：“王芳、王涛、王勇。”小狗跟着说：“王芳、王涛、王勇。”"
row = [tokenizer.bos_id, *tokenizer.encode(echo)]
places = torch.arange(1, len(row) + 1)[:, None]  # t
assert (show.attention_weights(fresh, row) * places).max() < 1.5
show.attention(fresh, tokenizer, echo, layer=3, head=0)

# %% [markdown]
# 每一行都很匀：第 $t$ 个词元给前面每个词元大约 $1/t$。<!-- by: assert (show.attention_weights(fresh, row) * places).max() < 1.5 -->
#
# 训练过的呢？四层一共 16 个头，先找会回头看的。一个句子不算数：取 60 个留出的“跟着说”，量每个头在即将写出一个词时，给第一遍里*那个词*多少注意力。


# %%
def looks_back(net, sentences):
    shares = []
    for sentence in sentences:
        row = [tokenizer.bos_id, *tokenizer.encode(sentence.prompt + sentence.answer)]
        weights = show.attention_weights(net, row)  # [L, H, T, T]
        pieces = [tokenizer.decode([i]) for i in row]
        first, second = (i for i, piece in enumerate(pieces) if piece == "：“")
        for i in range(second, len(row) - 2):
            if pieces[i] in ("：“", "、"):  # a word comes next
                shares.append(weights[:, :, i, i - second + first + 1])
    return torch.stack(shares).mean(0)  # [L, H]


sentences = scoring.continuations("echo", 60)
before, after = looks_back(fresh, sentences), looks_back(trained, sentences)
assert before.max() < 0.1
assert after.max() > max(0.2, after[0].max() + 0.2)
print(f"训练前，最高的一个头：{before.max():.2f}")

# %% tags=["nbval-ignore-output", "hide-input"]
show.matrix(after, [f"第 {i + 1} 层" for i in range(4)], [f"头 {i + 1}" for i in range(4)])

# %% [markdown]
# 训练前，任何一个头都不超过十分之一。训练后有了会回头看的头，没有人写过这条规则。看得最准的不在第一层。一种解释：要抄“王涛”，得找到第一遍里跟在“王芳、”后面的那个词；可是在第一层，“王涛”只知道自己是“王涛”。前面的层先让它看一眼左边，把“我跟在谁后面”加进残差流，后面的层才能按这个来找。这样的头，{numref}`第 %s 章 <sec-pretrain>`还要细看。<!-- by: assert after.max() > max(0.2, after[0].max() + 0.2) -->
#
# 看得最准的那个头，怎样看上面的句子？

# %% tags=["nbval-ignore-output"]
layer, head = divmod(int(after.argmax()), after.shape[1])
show.attention(trained, tokenizer, echo, layer=layer, head=head)

# %% tags=["remove-input", "nbval-ignore-output"]
pieces = [tokenizer.decode([i]) for i in row]
weights = show.attention_weights(trained, row)[layer, head]  # [T, T]
first, second = (i for i, piece in enumerate(pieces) if piece == "：“")
seen, hits = [], 0
for i, word in zip((second, second + 2, second + 4), ("王芳", "王涛", "王勇"), strict=True):
    there, most = i - second + first + 1, int(weights[i].argmax())
    assert pieces[there] == word
    hits += there == most
    other = "" if there == most else f"，得到最多的是{show.quote(pieces[most])}"
    seen.append(f"该写{word}的那一行，第一遍的{word}得到 {weights[i, there]:.2f}{other}")
said = generate.complete(trained, [row[: second + 1]], 12, [tokenizer.bos_id])[0]
wrote = tokenizer.decode(said).partition("。")[0]
copied = wrote == "王芳、王涛、王勇"
show.say(
    f"这是第 {layer + 1} 层的第 {head + 1} 个头，60 个句子平均给对的那个词 {after.max():.2f}。",
    f"看图的下半部分：{'；'.join(seen)}。三处看准了 {hits} 处。",
    f"让模型自己写第二遍，它写的是{show.quote(wrote)}，{'抄对了。' if copied else '没有抄对。'}",
)

# %% [markdown]
# 看准不等于写对：注意力只把信息搬过来，写哪个词，要等所有的头和前馈网络都加过以后，由输出层决定。
#
# ### 打开来看
#
# 还是预训练完的模型。让它读“张静住在”，下一个该是城市了。左边一格是一个头，可以选，也可以关；选中的词元怎样分它的注意力，画在每个词元左边的蓝条里。右边是接下来可能写的词元，点一个，就写上去。
# 再下面，每一层以后的残差流都用最后的归一化和嵌入表读一遍：如果算到这里为止，该写什么。
#
# :::{minillm} glass
# :text: 张静住在
# :model: pretrain
# :plain:
# :alt: 打开的模型在读“张静住在”。上面一排词元，左边的蓝条是选中的头分给它的注意力；左边一格一个头，是各层各头的注意力，每个头下面有开关；右边是下一个词元的概率，和从每一层读出来的第一名；最下面是它接着写的话。
#
# 这里可以打开模型来看，要在网页上用。印在纸上的，请看上面的两张表：每个头有多会回头看，看得最准的那个头又怎样看这个句子。在 JupyterLab 里，运行 `from minillm.book import page` 和 `page.widget("glass", models={"pretrain": trained, "fresh": fresh}, text="张静住在", plain="")`，打开你自己训练的模型。
# :::
#
# 先猜，再试：
#
# - 手算里，“在”把三分之二的注意力给了“张静”。真的模型里，“张”和“静”是两个词元，“住在”是一个，哪些头像手算的那样看？关掉一个，城市变吗？关掉一整层呢？<!-- by: abs(math.exp(2**0.5) / (math.exp(2**0.5) + 2) - 2 / 3) < 0.01 -->
# - 城市到第几层以后才排在第一？在那之前，排在第一的是什么？
# - 把“张静”换成别的名字，或者把句子换成上面的“跟着说”，留下第二遍不写。看得最准的那个头关掉以后，少抄对几个名字？
#
# ### 键值缓存：算过的不再算
#
# 生成一个词元要把整段文字送进模型，取最后一个位置的分数。下一个词元又要送一遍，前面的键和值却一个也没变，因为没有人能看到后文。把它们存下来，就是**键值缓存**（KV cache）。{numref}`fig-model-cache` 画的是四步里各算了什么：

# %% tags=["hide-input"] mystnb={"figure": {"caption": "读“张静住在”，一步多一个词元。没有缓存，每一步都把前面的键和值重算一遍；有缓存，只算新来的那一个，其余的现成。", "name": "fig-model-cache"}, "image": {"alt": "左右两个阶梯，四步各多一个词元 bos、张、静、住在：左边每一步的格子全是橙色，共算 10 个；右边每一步只有最后一格是橙色，其余是灰色，共算 4 个"}}
pieces = ["bos", *(tokenizer.decode([i]) for i in tokenizer.encode("张静住在"))]
drawings.growing_cache(pieces)

# %% [markdown]
# 存的只有键和值。查询不用存：过去的位置问过的话，以后没有人再问。`append` 把新来的键和值写在旧的后面，交回全部。一段一段送进去，输出应当和一次送进去相同。先看源代码，再核对：<!-- by: reasoning -->

# %%
show.source(transformer.KVCache.append, doc=False)

# %%
store = transformer.KVCache(
    trained.config, batch_size=1, max_length=32, like=trained.lm_head.weight
)
with torch.no_grad():
    pieces = [trained(part, cache=store) for part in ids.split([4, 1, ids.shape[1] - 5], dim=1)]
    assert torch.allclose(torch.cat(pieces, dim=1), trained(ids), atol=1e-4)
store.keys[0].shape, store.length

# %% [markdown]
# 省多少？提示有 $P$ 个词元，生成 $N$ 个。不用缓存，模型要处理 $P + (P+1) + \dots + (P+N-1) = NP + N(N-1)/2$ 个词元；用缓存，只有 $P + N - 1$ 个。
# 取 $P = 20$，$N = 60$：$1200 + 1770 = 2970$ 对 $79$，差 38 倍。一次乘或一次加叫一个 FLOP（浮点运算），百万个是 MFLOP，十亿个是 GFLOP。一个词元经过一个矩阵，每个参数做一次乘和一次加，小模型的矩阵里有 $868{,}352$ 个，乘二是 1.74 MFLOP，于是 5.2 GFLOP 对 0.14 GFLOP（注意力打分另算，在这个长度上很小）。让程序数一数：


# %%
def write(prompt, count, use_cache):
    text, processed = list(prompt), 0
    store = transformer.KVCache(
        trained.config, batch_size=1, max_length=128, like=trained.lm_head.weight
    )
    for _ in range(count):
        part = text[store.length :]  # all of it where nothing is stored
        logits = trained(torch.tensor([part]), cache=store if use_cache else None)
        processed += len(part)
        text.append(logits[0, -1].argmax().item())
    return text[len(prompt) :], processed


prompt = [tokenizer.bos_id] * 20
with torch.no_grad():
    (slow, many), (fast, few) = write(prompt, 60, False), write(prompt, 60, True)
assert slow == fast == [token for (token,) in generate.generate(trained, [prompt], 60)]
assert (many, few) == (60 * 20 + 60 * 59 // 2, 20 + 59)
flop = 2 * sum(matrix.numel() for matrix in trained.parameters() if matrix.dim() == 2)
assert (round(flop / 1e6, 2), round(many / few)) == (1.74, 38)
assert (round(many * flop / 1e9, 1), round(few * flop / 1e9, 2)) == (5.2, 0.14)
many, few

# %% [markdown]
# 词元一个不差，要处理的从 2,970 个降到 79 个。

# %% [markdown]
# ## 弄坏它
#
# 自己写注意力的人常犯一个错：忘了因果掩码。它不报错，训练还特别顺利。我们来犯一次：把 `document_mask` 换成只管文档边界、不管先后的版本。
# 为了快，还用消融时的那个宽度和层数都减半的模型，158,016 个参数，训练 80 步，两次只差这一个函数：

# %%
half = replace(MODELS["tiny"], hidden_size=64, intermediate_size=176, num_hidden_layers=2)
recipe = replace(TRAINING["tiny"]["pretrain"], model=half, learning_rate=2e-2)
documents = load_dataset(lab.data() / "pretrain_chinese.jsonl", "pretrain", tokenizer, 128, cache)
rows = PackedRows(documents, 128, epochs=1, seed=lab.SEED)
assert count(half) < count(MODELS["tiny"]) / 5
causal = transformer.document_mask


def both_ways(document_ids):  # the tril of document_mask is missing
    return (document_ids[:, :, None] == document_ids[:, None, :])[:, None]


count(half)


# %%
def short_run(mask, steps=80):
    torch.manual_seed(lab.SEED)
    net, losses = transformer.Transformer(half), []
    optimizers = make_optimizers(net, recipe)
    with patch.object(transformer, "document_mask", mask):  # put back afterwards
        for step in range(steps):
            loss = next_token_loss(net, rows.batch(range(8 * step, 8 * step + 8)))
            (loss.total / loss.count).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.total.item() / loss.count)
    return net.eval(), losses


right, right_losses = short_run(causal)
wrong, wrong_losses = short_run(both_ways)
assert wrong_losses[-1] < pretrain.log[-1]["loss"] / 2

# %% mystnb={"figure": {"caption": "同样的模型、数据、步数。看得到后文的那一个，损失直奔零。", "name": "fig-model-leak"}, "image": {"alt": "两条训练损失曲线，起点相同：有因果掩码的那条降下来以后还留着一大截，没有掩码的贴近零"}} tags=["nbval-ignore-output"]
assert abs(right_losses[0] - wrong_losses[0]) < 0.1
assert wrong_losses[-1] < 0.3 < 1 < right_losses[-1]
x = list(range(1, 81))
show.lines(
    {"有因果掩码": (x, right_losses), "没有": (x, wrong_losses)},
    "步",
    "训练损失（奈特，每个词元）",
    [show.COLOURS["pretrain"], show.COLOURS["bad"]],
)

# %% [markdown]
# 如果只看这张图，坏的那个像是天才：80 步，不到五分之一大的模型，损失却不到小模型训练 1,500 步以后的一半。<!-- by: assert wrong_losses[-1] < pretrain.log[-1]["loss"] / 2 --><!-- by: assert count(half) < count(MODELS["tiny"]) / 5 -->
#
# 低得不像话，本身就是警报：世界里有的是猜不中的东西，下一个出场的是小猫还是小狗，谁也不知道，损失不可能是零。
# 它学到的办法是往后看一格，把答案抄过来。到了生成的时候，后面的词元还没有写出来，它就原形毕露。三种检查：


# %%
def examine(net, mask):
    with patch.object(transformer, "document_mask", mask):
        same_code = val_loss(net)  # validation by the same broken code
    starts = [[tokenizer.bos_id, *tokenizer.encode(t)] for t in ("小猫说：“", "张静住在")]
    said = generate.complete(net, starts, 12, [tokenizer.bos_id])
    return same_code, val_loss(net), *(tokenizer.decode(reply) for reply in said)


good, bad = examine(right, causal), examine(wrong, both_ways)
assert bad[0] < 0.7
assert good[0] > 1.0
assert bad[1] > math.log(1024) - 1 > good[1] + 2  # as generation meets it: no later token
with patch.object(transformer, "document_mask", both_ways):
    assert leaks_backwards(wrong)

# %% tags=["nbval-ignore-output", "hide-input"]
show.table(
    ["", "有因果掩码", "没有"],
    [
        ["训练损失，第 80 步", right_losses[-1], wrong_losses[-1]],
        ["验证损失，用训练时的掩码", good[0], bad[0]],
        ["验证损失，用因果掩码", good[1], bad[1]],
        ["小猫说：“ →", good[2], bad[2]],
        ["张静住在 →", good[3], bad[3]],
    ],
)

# %% [markdown]
# - **验证损失救不了你**：验证用的是同一段坏代码，留出的行同样往后看一格，损失同样漂亮。<!-- by: assert bad[0] < 0.7 -->
# - **生成立刻露馅**：没有后文可抄，写出来的不是话。换上因果掩码再验证，损失和从没训练过的 $\ln 1024$ 差不多，或者更坏。<!-- by: assert bad[1] > math.log(1024) - 1 > good[1] + 2 -->
# - **不用训练就能发现**：实验一节的 `leaks_backwards` 改一个词元就能查出来。这样的检查应当写成测试，`tests/model/test_transformer.py` 里就有一个。
#
# ## 收尾
#
# 这一章没有训练出什么，三个问题的回答还是开场那样。不同的是，我们有了一台每个零件都量过的机器，869,504 个数等着被改写。下一章改写它们。
#
# ### 小结
#
# - 残差流从头通到尾，每层只往里加；注意力是按 $q \cdot k/\sqrt D$ 的 softmax 取 $v$ 的加权和；因果掩码只许往前看；RoPE 让打分只依赖距离。
# - 一个块往残差流上加两次：注意力在位置之间搬信息，前馈网络在每个位置上加工，参数的三分之二在后者。<!-- by: assert abs(sizes["FFN"] / 25_829_888 - 2 / 3) < 0.01 -->
# - 输出层就是嵌入表；写回残差流的矩阵除以 $\sqrt{2L}$，残差流的大小就与深度无关。<!-- by: assert all(a < 0.03 < 2 * 0.03 < b for _, a, b in rms) -->
# - 随机的模型损失约等于 $\ln V$，不等就先查错。
# - 训练损失好得不像话时，先测因果性：改一个词元，看前面变不变。
#
# ### 练习
#
# :::{exercise} ★★☆
# :label: ex-model-1
# 算一算：词表 6,400，宽度 256，6 层，8 个查询头，2 个键值头，前馈网络内部宽度 704，有多少参数？嵌入表占多大的份额，比默认模型多还是少，为什么？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 照“参数：一项一项数”的表一行一行地填，先算每头的宽度 $D$。键值矩阵的宽度是 2 个头的。
# :::
#
# :::{solution-start} ex-model-1
# :class: dropdown
# :::
#
# 嵌入表 $6400 \times 256 = 1{,}638{,}400$。每头 $256/8 = 32$，键和值各 $256 \times 64$。每层 $2 \times 256^2 + 2 \times 256 \times 64 + 3 \times 256 \times 704 + 2 \times 256 = 705{,}024$，六层 $4{,}230{,}144$，最后的归一化 $256$。

# %%
other = replace(ModelConfig(), hidden_size=256, intermediate_size=704, num_hidden_layers=6)
assert 1_638_400 + 6 * 705_024 + 256 == count(other) == 5_868_800
assert transformer.Transformer(other).num_parameters() == 5_868_800
f"{1_638_400 / 5_868_800:.0%} against {3_276_800 / 25_829_888:.0%}"

# %% [markdown]
# 嵌入表随宽度成正比地变，每层的矩阵随宽度的平方变，所以模型越小，嵌入表的份额越大。小模型要用小词表，道理在此。
#
# :::{solution-end}
# :::
#
# :::{exercise} ★☆☆
# :label: ex-model-2
# 写一写：不用 `F.rms_norm`，按 {eq}`eq-model-rmsnorm` 写出 `rms_norm(x, weight, eps)`，`x` 是 `[B, T, C]`。拿训练过的模型里真实的权重核对。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# `x.square().mean(dim=-1, keepdim=True)` 是均方，形状 `[B, T, 1]`。
# :::
#
# :::{solution-start} ex-model-2
# :class: dropdown
# :::
#
# 均方沿最后一维算，`keepdim=True` 留住这一维好相除。


# %%
def rms_norm(x, weight, eps):
    return weight * x / (x.square().mean(dim=-1, keepdim=True) + eps).sqrt()


last = trained.model.norm
with torch.no_grad():
    x = torch.randn(2, 5, 128)  # [B, T, C]
    assert torch.allclose(rms_norm(x, last.weight, last.eps), last(x), atol=1e-5)

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} ★☆☆
# :label: ex-model-3
# 弄一弄：给训练过的模型两种错误的位置，一种是所有位置都加 100，一种是所有位置都是 0。先猜验证损失各会怎样，再量。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 打分依赖的是位置，还是位置之差？两种错误各改了哪一样？
# :::
#
# :::{solution-start} ex-model-3
# :class: dropdown
# :::
#
# 由 {eq}`eq-model-rope`，打分只看位置之差。都加 100，差不变，损失应当不变；都是 0，就分不清先后了。

# %%
batch = held_out.batch(range(32))
moved = replace(batch, position_ids=batch.position_ids + 100)
lost = replace(batch, position_ids=torch.zeros_like(batch.position_ids))
usual, shifted, nowhere = (
    validation_loss(next_token_loss, trained, [b])["loss"] for b in (batch, moved, lost)
)
assert abs(shifted - usual) < 0.01
assert usual + 0.5 < nowhere < math.log(1024) - 1

# %% [markdown]
# 果然：加 100 毫无影响，全零则损失大增。没有跌到瞎猜，因果掩码还留着一点先后：每个词元能看到的范围不同。<!-- by: assert usual + 0.5 < nowhere < math.log(1024) - 1 -->
#
# :::{solution-end}
# :::
#
# :::{exercise} ★★☆
# :label: ex-model-4
# 想一想：默认模型用 `bfloat16`（每个数 2 字节）生成 2,048 个词元，键值缓存要多少字节？如果 8 个查询头各用自己的键值呢？同时服务 100 个人呢？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 先算一个词元在一层里存几个数：几组键，几组值，每组几个。
# :::
#
# :::{solution} ex-model-4
# :class: dropdown
# 每个词元每层存 $K$ 组键和 $K$ 组值，每组 $D$ 个数：$2 \cdot L \cdot K \cdot D \times 2$ 字节 $= 2 \times 8 \times 2 \times 64 \times 2 = 4{,}096$ 字节。2,048 个词元是 8 MiB。
# 8 组键值是 4 倍，32 MiB。100 个人，一边 0.8 GiB，一边 3.1 GiB，而模型自己的权重只有 $25.8\text{M} \times 2 \approx 52$ MB。大模型的显存常常不是被权重吃掉的，分组查询注意力就是为此而来。<!-- by: (round(100 * 8 / 1024, 1), round(100 * 32 / 1024, 1)) == (0.8, 3.1) -->
# :::
#
# :::{exercise} ★★☆ 动手：因果注意力
# :label: ex-model-attend
# 合上“手算”一节，不用 `F.scaled_dot_product_attention`，按 {eq}`eq-model-attention` 写出 `attend(q, k, v)`：三个张量都是 `[B, H, T, D]`，返回同样形状的 $y$。每个位置只看得到自己和自己前面的。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 打分是 `q @ k.transpose(-1, -2)`，形状 `[B, H, T, T]`，行是正在看的，列是被看的。`torch.ones(T, T, dtype=torch.bool).triu(1)` 标出后文；把那里的打分换成负无穷，softmax 以后就是 0。
# :::


# %%
def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return ...


tasks.check("5.1", attend)

# %% [markdown]
# :::{solution} ex-model-attend
# :class: dropdown
# ```python
# def attend(q, k, v):
#     T, D = q.shape[-2:]
#     scores = q @ k.transpose(-1, -2) / math.sqrt(D)
#     future = torch.ones(T, T, dtype=torch.bool).triu(1)
#     return scores.masked_fill(future, -torch.inf).softmax(dim=-1) @ v
# ```
# 要先遮再做 softmax。做完再把后文的权重改成 0，后文虽然没有取到，却已经占去一份，一行的权重加起来就小于 1，而且前面的输出会随后文的打分而变：那正是泄漏。
# :::
#
# :::{exercise} ★★★ 动手：一整层注意力
# :label: ex-model-layer
# 写出一整层分组查询注意力，只省去旋转。`attention(x, w_q, w_k, w_v, w_o, heads, groups)`：`x` 是 `[B, T, C]`，返回的也是；四个矩阵照 `nn.Linear` 的样子存成 `[出, 入]`，`w_q` 和 `w_o` 是 `[C, C]`，`w_k` 和 `w_v` 是 `[groups × D, C]`，$D$ 是 `C / heads`。
# 第 $h$ 个查询头用第 $\lfloor hK/H \rfloor$ 组键值，$H$ 是 `heads`，$K$ 是 `groups`；各头的输出依次接起来，再过 `w_o`。可以用 `F.scaled_dot_product_attention(q, k, v, is_causal=True)`，键和值要自己分给各头。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 每一步写下形状。`x @ w_q.T` 是 `[B, T, C]`，先 `view` 成 `[B, T, H, D]`，再 `transpose(1, 2)` 成 `[B, H, T, D]`。用 `torch.arange(2)` 试一试，`repeat` 和 `repeat_interleave` 各把两组排成什么次序。
# :::


# %%
def attention(x, w_q, w_k, w_v, w_o, heads: int, groups: int) -> torch.Tensor:
    return ...


tasks.check("5.2", attention)

# %% [markdown]
# :::{solution} ex-model-layer
# :class: dropdown
# ```python
# def attention(x, w_q, w_k, w_v, w_o, heads, groups):
#     B, T, C = x.shape
#     D = C // heads
#     q = (x @ w_q.T).view(B, T, heads, D).transpose(1, 2)
#     k = (x @ w_k.T).view(B, T, groups, D).transpose(1, 2)
#     v = (x @ w_v.T).view(B, T, groups, D).transpose(1, 2)
#     k, v = (z.repeat_interleave(heads // groups, dim=1) for z in (k, v))
#     y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
#     return y.transpose(1, 2).reshape(B, T, C) @ w_o.T
# ```
# 形状对，数不一定对：`[B, T, C]` 直接 `view` 成 `[B, H, T, D]` 不报错，却把不同位置的数拼进了同一个头。核对用的是 PyTorch 自己的多头注意力，给每个头各抄一份它那一组的键值矩阵，结果应当一样：分组查询注意力就是几个头共用一份 `w_k` 和 `w_v` 的多头注意力。
# :::
#
# ### 延伸阅读
#
# - {cite:t}`vaswani2017attention`：Transformer 的出处。读第 3.2 节的注意力；编码器的部分可以跳过。
# - {cite:t}`touvron2023llama`：把 RMSNorm、RoPE、SwiGLU 放在一起的配方，第 2.2 节一页讲完，就是本章的结构。
# - {cite:t}`su2021rope`：旋转位置编码的推导，第 3 节从“只依赖相对位置”这个要求出发。
# - {cite:t}`ainslie2023gqa`：分组查询注意力在质量和速度之间的取舍，附消融实验。
#
# ### 附：一次一个词元，慢在哪里
#
# 这一节是工程，只关心原理的可以跳过。有了缓存，生成时要处理的词元少了几十倍，却只能一个一个来：每一步都要把全部权重从内存读一遍，每个权重只用一次。<!-- by: round((60 * 20 + 60 * 59 // 2) / (20 + 59)) == 38 -->这时慢在读内存，不在乘法；模型小到一定程度，连读内存也不慢了，时间都花在 PyTorch 调用一个个小算子上。所以在 CPU 上回答一个人的时候，`generate` 换用 `minillm.model.decode`：算的还是 {numref}`fig-model-block` 那些数，只是归 PyTorch 的只剩大矩阵的乘法和 SwiGLU 里的一个 $\sigma$；其余的交给 NumPy，在同一块内存里就地算，调用起来便宜得多。末一格核对：从第五个词元起换它来算，分数与整段送进去的一样。<!-- by: assert torch.allclose(torch.cat(scores), trained(ids)[0, 4:], atol=1e-4) -->

# %%
from minillm.model.decode import OneTokenDecoder

show.source(OneTokenDecoder.__call__, OneTokenDecoder.attend, OneTokenDecoder.swiglu, doc=False)

# %%
store = transformer.KVCache(
    trained.config, batch_size=1, max_length=32, like=trained.lm_head.weight
)
with torch.inference_mode():
    trained(ids[:, :4], cache=store)
    one_token = OneTokenDecoder(trained, store)
    scores = [one_token(token) for token in ids[0, 4:].tolist()]
    assert torch.allclose(torch.cat(scores), trained(ids)[0, 4:], atol=1e-4)
