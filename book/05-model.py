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
# - **你将学会**：手算一次注意力和一次旋转；一项一项数出默认模型的 25,829,888 个参数；读懂 `minillm/model/transformer.py` 的每一行和每个张量的形状；用两个实验证明模型不偷看后文、缓存不改变结果；认出一个丢了因果掩码的模型。
# - **需要时间**：阅读 40 分钟，运行约 20 秒（第一次还要训练预训练模型，约两分半钟，以后从缓存里取）。
# - **需要内存**：1 GB。
# - **用到的模块**：`minillm.model.transformer`、`minillm.config`。
# :::

# %%
import math
from dataclasses import replace
from unittest.mock import patch

from minillm import ModelConfig
from minillm.book import lab, show
from minillm.config import MODELS, TRAINING
from minillm.microworld import scoring
from minillm.model import generate, transformer
from minillm.training.dataset import load_dataset
from minillm.training.objectives import next_token_loss, validation_loss
from minillm.training.optimizers import make_optimizers
from minillm.training.packing import PackedRows

import torch
import torch.nn.functional as F

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
# 三个问题，同一串废话：它把提示词的最后一个**词元**（token）`<|assistant_start|>` 一遍遍重复。
# 这不是偶然，读完本章你能说出原因。<!-- by: assert not any(reply.replace( -->
#
# 这台机器里没有数据库，没有语法规则，也没有加法器，只有不到一百万个数，现在都是随机的。
# 它以后知道的每一件事，张静住在哪里，8 加 4 怎么数，自己叫什么，都只能写在这些数里。
# 本章讲清楚这些数怎样摆放、怎样计算；{numref}`第 %s 章 <sec-pretrain>` 再去改它们的值。
#
# ## 手算
#
# ### 注意力：三个词元
#
# 读到“张静住在”，接下来该写一个城市，哪一个要看前面是谁。每个位置都得从前面的位置取信息，这件事叫**注意力**（attention）{cite:p}`vaswani2017attention`。
# 每个位置有三个向量：查询 $q$ 说自己在找什么，键 $k$ 说自己能被怎样找到，值 $v$ 是被找到以后交出的内容。
#
# 位置 $t$ 从位置 $s$ 取多少？用点积打分，再用 softmax 变成加起来等于 1 的权重：
#
# ```{math}
# :label: eq-model-attention
# y_t = \sum_{s \le t} a_{ts}\, v_s, \qquad
# a_{ts} = \frac{\exp(q_t \cdot k_s / \sqrt{D})}{\sum_{r \le t} \exp(q_t \cdot k_r / \sqrt{D})}
# ```
#
# $D$ 是向量的长度。除以 $\sqrt{D}$ 是因为 $D$ 个独立的、方差为 1 的乘积相加，标准差是 $\sqrt D$；不除，向量一长，softmax 就会接近一个 1 和一堆 0，那里的梯度接近 0，学不动。
# 求和只到 $t$：后面的词元还没有写出来，不许看。这个限制叫**因果掩码**（causal mask）。<!-- by: reasoning -->
#
# 取三个词元“张静 / 住 / 在”，$D = 2$：
#
# | 位置 | 词元 | $q$ | $k$ | $v$ |
# |---|---|---|---|---|
# | 1 | 张静 | (1, 1) | (1, 0) | (1, 0) |
# | 2 | 住 | (0, 1) | (0, 1) | (0, 1) |
# | 3 | 在 | (2, 0) | (0, 0) | (1, 1) |
#
# - **位置 1** 只看得到自己，权重是 1，$y_1 = v_1 = (1, 0)$。
# - **位置 2** 打分 $(0, 1)/\sqrt2 = (0, 0.707)$，取指数得 $(1, 2.028)$，除以和得 $(0.330, 0.670)$。$y_2 = 0.330\,v_1 + 0.670\,v_2 = (0.330, 0.670)$。
# - **位置 3** 打分 $(2, 0, 0)/\sqrt2 = (1.414, 0, 0)$，取指数得 $(4.113, 1, 1)$。除以和，权重是 $(0.673, 0.164, 0.164)$。
#   $y_3 = 0.673\,(1,0) + 0.164\,(0,1) + 0.164\,(1,1) = (0.836, 0.327)$。
#
# “在”的三分之二的注意力落在“张静”上。让 PyTorch 算同样的数，模型用的也是这个函数：<!-- by: abs(math.exp(2**0.5) / (math.exp(2**0.5) + 2) - 2 / 3) < 0.01 -->

# %%
q = torch.tensor([[1.0, 1], [0, 1], [2, 0]])[None, None]  # [B, H, T, D] = [1, 1, 3, 2]
k = torch.tensor([[1.0, 0], [0, 1], [0, 0]])[None, None]
v = torch.tensor([[1.0, 0], [0, 1], [1, 1]])[None, None]
y = F.scaled_dot_product_attention(q, k, v, is_causal=True)

by_hand = torch.tensor([[1.0, 0.0], [0.330, 0.670], [0.836, 0.327]])
assert torch.allclose(y[0, 0], by_hand, atol=6e-4)
y[0, 0]

# %% [markdown]
# ### 旋转：位置从哪里来
#
# 上面的算式有个缺口：把“张静”和“住”对调，“在”得到的 $y_3$ 一点不变。注意力自己不知道谁先谁后，“张静问李兰”和“李兰问张静”在它眼里一样。
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
# 取 $q = k = (1, 0)$，$\theta = 1$。$q$ 在位置 3，转成 $(\cos 3, \sin 3) = (-0.990, 0.141)$；$k$ 在位置 1，转成 $(\cos 1, \sin 1) = (0.540, 0.841)$。
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
# 一个头有 $D$ 个数，分成 $D/2$ 对，每一对转的快慢不同：第 $i$ 对的 $\theta_i = 10000^{-2i/D}$。快的几对分得清相邻的词元，慢的几对分得清远近。

# %% tags=["hide-input"] mystnb={"figure": {"caption": "小模型的一个头（$D = 32$）里的四对数：$q = k = (1, 0)$ 时，距离对打分的影响。第 0 对每 6.3 个词元转一圈，第 12 对在 54 个词元里转不到百分之一圈。", "name": "fig-model-rope"}, "image": {"alt": "四条余弦曲线，横轴是距离 0 到 54：第 0 对快速振荡，第 4 对不到一圈，第 8 对缓慢下降，第 12 对看上去是水平线"}}
turn = 2 * math.pi
assert round(turn, 1) == 6.3  # pair 0 turns by 1 radian a token
assert turn > 54 * 10000 ** (-8 / 32)
assert turn / 100 > 54 * 10000 ** (-24 / 32)
distance = list(range(55))
waves = {
    f"pair {i}": (distance, [math.cos(d * 10000 ** (-2 * i / 32)) for d in distance])
    for i in (0, 4, 8, 12)
}
show.lines(waves, "distance between two tokens", "q · k after rotation")

# %% [markdown]
# ### 参数：一项一项数
#
# 参数装在四种零件里，下一节细看，这里先认名字：**嵌入**（embedding）表把每个编号变成一个向量；注意力在位置之间取信息，一套 $q$、$k$、$v$ 叫一个头；**前馈网络**（feed-forward network）在每个位置上单独加工；**归一化**（normalization）管住向量的长短。
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

# %% tags=["hide-input"] mystnb={"figure": {"caption": "整个模型。中间的块重复 $L$ 次，进出的形状都是 `[B, T, C]`。", "name": "fig-model-flow"}, "image": {"alt": "从左到右五个方框：词元编号 [B, T]，嵌入 [B, T, C]，L 个块 [B, T, C]，RMSNorm [B, T, C]，输出层 [B, T, V]"}}
show.flow(
    [
        ("token ids", "[B, T]"),
        ("embedding", "[B, T, C]"),
        ("block × L", "[B, T, C]"),
        ("RMSNorm", "[B, T, C]"),
        ("lm_head", "[B, T, V]"),
    ],
    [show.GREY, *[show.COLOURS["pretrain"]] * 3, show.COLOURS["sft"]],
)

# %% [markdown]
# ### 主干：一条残差流
#
# 编号先查表变成向量，这一步叫嵌入：编号 $i$ 就取嵌入表的第 $i$ 行。以后每一层都在这个向量上*加*一点东西，从不重写它。这条从头流到尾、只加不改的向量叫**残差流**（residual stream）。

# %%
show.source(transformer.Decoder.forward, transformer.Block)

# %% [markdown]
# `Block.forward` 的两行就是一整层：`x` 加上注意力的结果，再加上前馈网络的结果。两者读的都是归一化以后的 `x`，结果却加回没有归一化的 `x`。加法的梯度是 1，所以损失的信号能原样传到最底层。

# %% tags=["hide-input"] mystnb={"figure": {"caption": "一个块。从上面绕过去的线是残差流：没有归一化的 `x` 原样到加号，绿框的结果在那里加上去。", "name": "fig-model-block"}, "image": {"alt": "从左到右：方框 x，RMSNorm，注意力，一个加号，RMSNorm，前馈网络，又一个加号，方框 x。从 x 之后分出一条线，绕过 RMSNorm 和注意力，到第一个加号；加号之后又分出一条，绕过 RMSNorm 和前馈网络，到第二个加号"}}
blue, green = show.COLOURS["pretrain"], show.COLOURS["sft"]
show.flow(
    [
        ("x", "[B, T, C]"),
        ("RMSNorm", ""),
        ("attention", "[B, T, C]"),
        ("+", ""),
        ("RMSNorm", ""),
        ("MLP", "[B, T, C]"),
        ("+", ""),
        ("x", "[B, T, C]"),
    ],
    [show.GREY, blue, green, show.GREY, blue, green, show.GREY, show.GREY],
    skips=[(0, 3), (3, 6)],
)

# %% [markdown]
# ### 归一化：RMSNorm
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
# ### 注意力：多个头，少几组键值
#
# 一个头只有一种找法。模型用 $H$ 个头并排找，各有自己的 $q$、$k$、$v$，结果接在一起，再由 `o_proj` 混合。
#
# 生成时，每个词元的键和值都要存着，头越多存得越多。**分组查询注意力**（grouped-query attention，GQA）{cite:p}`ainslie2023gqa` 让几个查询头合用一组键值：小模型 4 个查询头用 2 组，默认模型 8 个用 2 组。读代码时盯住形状：

# %%
show.source(transformer.Attention.forward, transformer.rotate)

# %% [markdown]
# `q` 是 `[B, H, T, D]`，`k` 和 `v` 是 `[B, K, T, D]`，$K < H$。`enable_gqa=True` 让第 $h$ 个查询头用第 $\lfloor hK/H \rfloor$ 组键值。只有 `q` 和 `k` 要旋转：位置影响“找谁”，不影响“找到以后拿什么”。
# `kernel_shares_heads` 只有一种情形为假：在 GPU（CUDA）上又带着掩码。那时先把键和值各复制 $H/K$ 份，算出来的一样；为什么，见{numref}`第 %s 章 <sec-scale>`。
# `rotate` 把 $(x_i, x_{i+D/2})$ 当作一对，就是手算里的那个旋转：`roll` 挪半个头，每个数就对上它的搭档；式中的负号已经写进 `sin` 表。
# `T > 1` 是为生成留的：一次只送一个词元时，缓存里的全是它的前文，不需要掩码。
#
# 训练时一行里装着好几篇文档（{numref}`第 %s 章 <sec-tensors>` 的打包），只有因果掩码还不够，一篇文档不该看到另一篇。`document_mask` 两条一起管：

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
# ### 前馈网络：SwiGLU
#
# 注意力在位置之间搬运信息，前馈网络在每个位置上单独加工它，大部分参数在这里。用的是 SwiGLU {cite:p}`shazeer2020glu`：

# %%
show.source(transformer.MLP.forward)

# %% [markdown]
# 形状从 `[B, T, C]` 到 `[B, T, M]` 再回到 `[B, T, C]`。`up_proj` 算出 $M$ 个候选，`gate_proj` 算出 $M$ 个阀门，$\mathrm{silu}(z) = z\,\sigma(z)$ 决定开多大，$\sigma(z) = 1/(1+e^{-z})$。
# 手算：$\mathrm{silu}(1) = 0.731$，开；$\mathrm{silu}(-4) = -4 \times 0.018 = -0.072$，差不多关上。三个矩阵比老式的两个多一半，所以 $M$ 不取 $4C$，取 $\frac83 C$ 左右，参数才一样多：这里是 $2.75\,C$。<!-- by: 3 * 8 / 3 == 2 * 4 -->

# %%
gates = F.silu(torch.tensor([1.0, 0.0, -4.0]))
assert torch.allclose(gates, torch.tensor([0.731, 0.0, -0.072]), atol=1e-3)
assert all(c.intermediate_size == 2.75 * c.hidden_size for c in MODELS.values())
gates

# %% [markdown]
# ### 输出层：同一张表，反过来用
#
# 最后一个向量怎样变成下一个词元的分数？和嵌入表的每一行做点积：像哪一行，哪一行的词元得分就高。输入和输出共用一张表 {cite:p}`press2017tying`，省下 $V \cdot C$ 个参数。

# %%
show.source(transformer.Transformer.__init__, transformer.Transformer._init)

# %% [markdown]
# 开场的谜底就在 `lm_head.weight = embed_tokens.weight` 这一行。没有训练时，各层往残差流里加的东西很小，`x` 主要还是输入词元自己的那一行；拿它和整张表比，最像的当然是它自己。所以随机的模型只会重复。
#
# ### 初始化：为什么是 $0.02/\sqrt{2L}$
#
# $2L$ 个子层都往残差流上加东西。$n$ 个独立的量相加，方差是一个的 $n$ 倍；写回残差流的两个矩阵 `o_proj` 和 `down_proj` 从 $0.02/\sqrt{2L}$ 开始 {cite:p}`radford2019gpt2`，加完 $2L$ 次，增加的方差和加一次时一样，与深度无关。
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
# ### 从头走一遍，以及 Hugging Face 的名字
#
# 把一句话送进小模型，记下每个模块的权重和输出的形状：

# %%
tokenizer, fresh = lab.tokenizer(), lab.fresh()
ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode("小猫说：“你好。”")]])  # [B, T]
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
# 这些名字不是我们起的，是 Hugging Face 里 `LlamaForCausalLM` 的。所以 `state_dict()` 一个键都不用改，就能装进别人的 Llama；`tests/test_model.py` 用同一份权重比较两边的输出，相差不到 $10^{-5}$。
# 你在这里读懂的，就是那些大模型的骨架：它们的不同在尺寸，以及少数零件。

# %%
expected = "model.layers.0.self_attn.q_proj.weight"
assert expected in fresh.state_dict()
assert fresh.lm_head.weight is fresh.model.embed_tokens.weight  # one table, two names
[name for name in fresh.state_dict() if ".layers.0." in name]

# %% [markdown]
# ## 实验
#
# ### 没有训练时，损失是多少
#
# 什么都不知道的模型，最诚实的猜法是给 1,024 个词元同样的概率，**交叉熵**（cross-entropy）就是 $\ln 1024 = 6.93$。随机权重应当离它不远；离得远，说明初始化或标签有错。在留出的验证行上量：

# %% tags=["nbval-ignore-output"]
pretrain = lab.ladder("pretrain")  # trained now if it is not in the cache
cache = pretrain.folder / "cache"
val_path = lab.data() / "pretrain_chinese_val.jsonl"
held_out = PackedRows(load_dataset(val_path, "pretrain", tokenizer, 128, cache), 128, 1, 0, False)


def val_loss(net):
    return validation_loss(next_token_loss, net, [held_out.batch(range(32))])["loss"]


loss = val_loss(fresh)
assert abs(loss - math.log(1024)) < 0.1
f"loss {loss:.2f}, ln 1024 = {math.log(1024):.2f}"

# %% [markdown]
# 不会正好相等，因为随机的分数不全一样：没有根据的偏心，平均要多付大约分数方差的一半；碰巧偏向常用的词元，又能赚回一些。量一量分数，顺便验证开场的谜底：<!-- by: assert abs(loss - math.log(1024)) < 0.1 -->

# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    logits = fresh(ids)  # [B, T, V]
own = float(logits.gather(-1, ids[..., None]).mean())  # of the token that was just read
spread = float(logits.std())
assert own > 4 * spread
assert abs(spread - 0.02 * math.sqrt(128)) < 0.05
print(f"score of the token just read {own:.1f}, standard deviation of all scores {spread:.2f}")

# %% [markdown]
# 标准差约 $0.02\sqrt{128} = 0.23$，方差的一半约 0.03。<!-- by: round((0.02 * 128**0.5) ** 2 / 2, 2) == 0.03 -->
#
# 一千个随机数里，最大的通常只高出三个多标准差。刚读过的词元自己得的分，平均高出四个标准差还不止，所以贪心地取最高分，就是一遍遍重复自己。<!-- by: assert own > 4 * spread -->
#
# ### 它看不到后文
#
# 因果性不必相信，可以测。改掉位置 $t$ 的词元，前面的输出一点也不该变，后面的都该变：


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


trained = pretrain.model()
assert not leaks_backwards(fresh)
assert not leaks_backwards(trained)
leaks_backwards(fresh), leaks_backwards(trained)

# %% [markdown]
# ### 参数都在哪里

# %% tags=["hide-input"] mystnb={"figure": {"caption": "默认模型的参数。前馈网络占三分之二，嵌入表占八分之一；词表开到 4.5 万，嵌入表就比其余的一切都大。", "name": "fig-model-parameters"}, "image": {"alt": "横条，单位百万：前馈网络（FFN）最长，然后是注意力、嵌入表，归一化短得看不见"}}
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
show.bars({k: n / 1e6 for k, n in sizes.items()}, "parameters of the default model (millions)")

# %% [markdown]
# ### 训练以后，注意力在看什么
#
# 微世界里有一种“跟着说”的句子。要说对第二遍，只能回头去抄第一遍。随机的模型和预训练完的模型（{numref}`第 %s 章 <sec-pretrain>` 里训练，这里先借来看）各怎样看这个句子？
# 先看随机的，第 4 层的第 1 个头（代码从 0 数起）：

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
print(f"highest share of any head before training: {before.max():.2f}")

# %% tags=["nbval-ignore-output", "hide-input"]
show.matrix(after, [f"layer {i}" for i in range(4)], [f"head {i}" for i in range(4)])

# %% [markdown]
# 训练前，任何一个头都不超过十分之一。训练后有了会回头看的头，没有人写过这条规则。看得最准的不在第一层：要先知道“我后面该跟谁”，得靠前面的层把信息备好。<!-- by: assert after.max() > max(0.2, after[0].max() + 0.2) -->
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
# 生成一个词元要把整段文字送进模型，取最后一个位置的分数。下一个词元又要送一遍，前面的键和值却一个也没变，因为没有人能看到后文。把它们存下来，就是**键值缓存**（KV cache）。一段一段送进去，输出应当和一次送进去相同：

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
# 取 $P = 20$，$N = 60$：$1200 + 1770 = 2970$ 对 $79$，差 38 倍。一个词元经过一个矩阵，每个参数做一次乘和一次加，小模型的矩阵里有 $868{,}352$ 个，乘二是 1.74 MFLOP，于是 5.2 GFLOP 对 0.14 GFLOP（注意力打分另算，在这个长度上很小）。让程序数一数：


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
#
# 可是这 79 个词元只能一个一个来：每一步都要把全部权重从内存读一遍，每个权重却只用一次。这时慢在读内存，不在乘法；模型小到一定程度，连读内存也不慢了，时间都花在 PyTorch 调用一个个小算子上。所以在 CPU 上回答一个人的时候，`generate` 换用 `minillm.model.decode`：算的还是 {numref}`fig-model-block` 那些数，只是归 PyTorch 的只剩大矩阵的乘法和 SwiGLU 里的一个 $\sigma$；其余的交给 NumPy，在同一块内存里就地算，调用起来便宜得多。

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

# %% [markdown]
# ## 弄坏它
#
# 自己写注意力的人常犯一个错：忘了因果掩码。它不报错，训练还特别顺利。我们来犯一次：把 `document_mask` 换成只管文档边界、不管先后的版本。
# 为了快，用一个宽度和层数都减半的模型，158,016 个参数，训练 80 步，两次只差这一个函数：

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
    {"causal": (x, right_losses), "no causal mask": (x, wrong_losses)},
    "step",
    "training loss (nats per token)",
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
# - **不用训练就能发现**：实验一节的 `leaks_backwards` 改一个词元就能查出来。这样的检查应当写成测试，`tests/test_model.py` 里就有一个。
#
# ## 收尾
#
# 这一章没有训练出什么，三个问题的回答还是开场那样。不同的是，我们有了一台每个零件都量过的机器，869,504 个数等着被改写。下一章改写它们。
#
# ### 小结
#
# - 注意力是按 $q \cdot k/\sqrt D$ 的 softmax 取 $v$ 的加权和；因果掩码只许往前看；RoPE 让打分只依赖距离。
# - 一个块往残差流上加两次：注意力在位置之间搬信息，前馈网络在每个位置上加工，参数的三分之二在后者。<!-- by: assert abs(sizes["FFN"] / 25_829_888 - 2 / 3) < 0.01 -->
# - 输出层就是嵌入表；写回残差流的矩阵除以 $\sqrt{2L}$，残差流的大小就与深度无关。<!-- by: assert all(a < 0.03 < 2 * 0.03 < b for _, a, b in rms) -->
# - 随机的模型损失约等于 $\ln V$，不等就先查错。
# - 训练损失好得不像话时，先测因果性：改一个词元，看前面变不变。
#
# ### 练习
#
# :::{exercise}
# :label: ex-model-1
# 算一算：词表 6,400，宽度 256，6 层，8 个查询头，2 个键值头，前馈网络内部宽度 704，有多少参数？嵌入表占多大的份额，比默认模型多还是少，为什么？
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
# :::{exercise}
# :label: ex-model-2
# 写一写：不用 `F.rms_norm`，按 {eq}`eq-model-rmsnorm` 写出 `rms_norm(x, weight, eps)`，`x` 是 `[B, T, C]`。拿训练过的模型里真实的权重核对。
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
# :::{exercise}
# :label: ex-model-3
# 弄一弄：给训练过的模型两种错误的位置，一种是所有位置都加 100，一种是所有位置都是 0。先猜验证损失各会怎样，再量。
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
# :::{exercise}
# :label: ex-model-4
# 想一想：默认模型用 `bfloat16`（每个数 2 字节）生成 2,048 个词元，键值缓存要多少字节？如果 8 个查询头各用自己的键值呢？同时服务 100 个人呢？
# :::
#
# :::{solution} ex-model-4
# :class: dropdown
# 每个词元每层存 $K$ 组键和 $K$ 组值，每组 $D$ 个数：$2 \cdot L \cdot K \cdot D \times 2$ 字节 $= 2 \times 8 \times 2 \times 64 \times 2 = 4{,}096$ 字节。2,048 个词元是 8 MiB。
# 8 组键值是 4 倍，32 MiB。100 个人，一边 0.8 GiB，一边 3.1 GiB，而模型自己的权重只有 $25.8\text{M} \times 2 \approx 52$ MB。大模型的显存常常不是被权重吃掉的，分组查询注意力就是为此而来。<!-- by: (round(100 * 8 / 1024, 1), round(100 * 32 / 1024, 1)) == (0.8, 3.1) -->
# :::
#
# ### 延伸阅读
#
# - {cite:t}`vaswani2017attention`：Transformer 的出处。读第 3.2 节的注意力；编码器的部分可以跳过。
# - {cite:t}`touvron2023llama`：把 RMSNorm、RoPE、SwiGLU 放在一起的配方，第 2.2 节一页讲完，就是本章的结构。
# - {cite:t}`su2021rope`：旋转位置编码的推导，第 3 节从“只依赖相对位置”这个要求出发。
# - {cite:t}`ainslie2023gqa`：分组查询注意力在质量和速度之间的取舍，附消融实验。
