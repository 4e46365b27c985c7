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
# (sec-tensors)=
# # 从文本到张量
#
# :::{admonition} 本章
# :class: tip
#
# - **你将学会**：把文本、对话和偏好对变成形状整齐的整数张量；算出每个位置的标签和损失掩码；用打包代替填充，并证明打包没有改变损失。
# - **需要时间**：阅读 35 分钟，运行不到 1 分钟。
# - **需要内存**：1 GB。
# - **用到的模块**：`minillm.tokenizer.vocabulary`、`minillm.training.packing`、`minillm.training.export`。
# :::

# %%
import io
import re
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

from minillm import cli, complete, generate
from minillm.book import lab, show, tasks
from minillm.book.drawings import tokens as draw
from minillm.config import TRAINING
from minillm.data.readers import read
from minillm.microworld import scoring
from minillm.model.transformer import document_mask
from minillm.tokenizer import chat_format
from minillm.training import dataset, export, optimizers, packing
from minillm.training.objectives import next_token_loss, token_losses

import numpy as np
import torch
import torch.nn.functional as F

lab.start()
tokenizer = lab.tokenizer()

# %% [markdown]
# ## 开场
#
# 两个模型，从同样的随机权重出发，读同样的 20 批文字。二十步以后，一个的训练损失还在 3 以上，另一个已经不到 0.5。损失越低，猜得越准，第二个该聪明得多。<!-- by: assert broken_losses[-1] < 0.5 < 3 < right_losses[-1] -->
#
# 让第二个接着“张静住在”往下写，它只会把“住在”写了又写。<!-- by: assert set(copied) == {start[-1]} -->
#
# 程序没有报错，模型也没有装错零件。错的只有一处：有一排整数应当错开一格，没有错开。这一章就讲这些整数怎样排；读到“弄坏它”，你会亲手造出这第二个模型，也会知道怎样一眼认出它。<!-- by: reasoning -->
#
# 上一章（{numref}`第 %s 章 <sec-bpe>`）结束时，我们能把任何一句话变成**词元**（token）的编号。交给模型、请它接着写的文字叫**提示**（prompt）。全书的三个提示现在是三串整数，长短不一：

# %%
prompts = [tokenizer.encode(question) for question in scoring.SHOWCASE]
for ids in prompts:
    print(len(ids), ids)

# %% [markdown]
# 模型要的却是**张量**（tensor）：一块形状整齐的数字，一次算完。长短不一的三串放不进一个矩形。而且模型训练时还需要另外两样东西：每个位置应当猜出的**标签**（labels），以及哪些位置算进损失。
#
# 本章把这一步补上：先用纸笔，再看代码，最后打包成训练要读的样子，每一个数字都摆在眼前。
#
# ## 手算
#
# ### 标签：同一串词元，错开一位
#
# 语言模型在每个位置做同一件事：读到这里为止的词元，猜下一个。所以一段文本既是题目，也是答案。题目是前 $n-1$ 个词元，答案是后 $n-1$ 个，**$n$ 个词元只占 $n-1$ 个位置**。
#
# 拿“你好。”来说，前后各加一个 `<|bos|>`，一共五个词元、四个位置：
#
# :::{table} “你好。”的题目和答案
# :name: tab-tensors-shift
#
# | 位置 | 0 | 1 | 2 | 3 |
# |---|---|---|---|---|
# | 输入 `input_ids` | `<\|bos\|>` | 你 | 好 | 。 |
# | 标签 `labels` | 你 | 好 | 。 | `<\|bos\|>` |
# :::
#
# `bos` 是 beginning of sequence，一篇的开头；末尾怎么也是它？一篇的结尾就是下一篇的开头，所以一个记号管两头：排在最前面，它说“开始了”；当作最后一个答案，它说“这一篇完了”。末尾的这一个只当答案，从不当题目，模型由它学会停下。

# %%
ids = [tokenizer.bos_id, *tokenizer.encode("你好。"), tokenizer.bos_id]
inputs, labels = ids[:-1], ids[1:]
assert [tokenizer.decode([i]) for i in inputs] == ["<|bos|>", "你", "好", "。"]
assert [tokenizer.decode([i]) for i in labels] == ["你", "好", "。", "<|bos|>"]
print(inputs, labels, sep="\n")

# %% [markdown]
# ### 损失掩码：对话里只学回答
#
# 对话不一样。用户的话是别人说的，模型只要读懂，不必学会替用户提问。**损失掩码**（loss mask）给每个词元一个 0 或 1：1 表示这个词元要由模型说出来，算进损失；0 表示只读。
#
# 掩码标的是词元自己，标签标的是“下一个词元”。两者要一起错开：位置 $t$ 的标签是第 $t+1$ 个词元，是否计入损失也看第 $t+1$ 个词元的掩码。不计入的标签写成 -100，这是 PyTorch 的 `cross_entropy` 默认跳过的值。-100 不是编号，没有哪个词元叫 -100，它只说“这一格不算”。
#
# 用一轮最短的对话手算。用户说“8加4等于多少？”，助手说“12。”。照对话的格式排成十二个词元，于是有十一个位置：
#
# :::{table} 一轮对话的掩码和标签
# :name: tab-tensors-mask
#
# | 位置 | 输入 | 下一个词元 | 它的掩码 | 标签 |
# |---|---|---|---|---|
# | 0 | `<\|bos\|>` | `<\|user_start\|>` | 0 | -100 |
# | 1 | `<\|user_start\|>` | 8 | 0 | -100 |
# | 2 | 8 | 加 | 0 | -100 |
# | 3 | 加 | 4 | 0 | -100 |
# | 4 | 4 | 等于多少 | 0 | -100 |
# | 5 | 等于多少 | ？ | 0 | -100 |
# | 6 | ？ | `<\|user_end\|>` | 0 | -100 |
# | 7 | `<\|user_end\|>` | `<\|assistant_start\|>` | 0 | -100 |
# | 8 | `<\|assistant_start\|>` | 12 | 1 | 12 |
# | 9 | 12 | 。 | 1 | 。 |
# | 10 | 。 | `<\|assistant_end\|>` | 1 | `<\|assistant_end\|>` |
# :::
#
# 只有三个位置要学。其中第一个站在 `<|assistant_start|>` 上：看到这个记号，就该说出回答的第一个词元。最后一个学的是 `<|assistant_end|>`：说完要停。

# %%
conversation = [
    {"role": "user", "content": "8加4等于多少？"},
    {"role": "assistant", "content": "12。"},
]
ids, mask = tokenizer.render_conversation(conversation)
labels = [token if learn else -100 for token, learn in zip(ids[1:], mask[1:], strict=True)]
assert mask == [0] * 9 + [1] * 3
assert labels[:8] == [-100] * 8
assert [tokenizer.decode([i]) for i in labels[8:]] == ["12", "。", "<|assistant_end|>"]
print(ids, mask, labels, sep="\n")

# %% [markdown]
# 掩码怎样影响损失？假设模型在十一个位置上给正确词元的概率是：前八个都是 0.01，最后三个是 0.5、0.25、0.8。损失是**交叉熵**（cross-entropy），即只在要学的位置上取 $-\ln p$ 再平均（{numref}`第 %s 章 <sec-environment>`的对数以 2 为底，单位是比特；这里用自然对数，单位是**奈特**（nat），两者只差一个常数倍）：
#
# ```{math}
# :label: eq-tensors-loss
# L = \frac{\sum_t m_{t+1}\,(-\ln p_t)}{\sum_t m_{t+1}}
# ```
#
# $p_t$ 是位置 $t$ 给正确词元的概率，$m_{t+1}$ 是那个词元的掩码。代入：$(0.6931 + 1.3863 + 0.2231)/3 = 0.768$。前八个位置猜得再差也不改变 $L$，因为它们的 $m$ 是 0。<!-- by: round((0.6931 + 1.3863 + 0.2231) / 3, 3) == 0.768 -->
#
# 下面照这些概率造出打分，剩下的概率平分给别的词元，再交给 `cross_entropy`，应当得到同一个数：

# %%
probabilities = torch.tensor([0.01] * 8 + [0.5, 0.25, 0.8])
scores = torch.full((11, tokenizer.vocab_size), -torch.inf)  # [positions, vocabulary]
scores[range(11), ids[1:]] = probabilities.log()
rest = torch.log((1 - probabilities) / (tokenizer.vocab_size - 1))
scores = torch.where(scores.isinf(), rest[:, None], scores)
loss = F.cross_entropy(scores, torch.tensor(labels), ignore_index=-100)
assert abs(loss.item() - 0.768) < 0.001
round(loss.item(), 3)

# %% [markdown]
# ### 嵌入：查表就是乘矩阵
#
# 整数编号只是名字，编号挨着的两个词元，并不比隔得远的两个更像。模型的第一步是**嵌入**（embedding）：一张 $V \times C$ 的表，每个词元占一行，行里的 $C$ 个数由训练学出来。编号是几，就取第几行。
#
# 取一张 $V=5$、$C=3$ 的小表，查词元 2、0、2：
#
# $$
# E = \begin{pmatrix} 0.1 & 0.2 & 0.3 \\ 1 & 0 & 0 \\ 0.5 & -1 & 2 \\ 0 & 1 & 0 \\ 0 & 0 & 1 \end{pmatrix},
# \qquad
# \begin{pmatrix} 0&0&1&0&0 \\ 1&0&0&0&0 \\ 0&0&1&0&0 \end{pmatrix} E
# = \begin{pmatrix} 0.5 & -1 & 2 \\ 0.1 & 0.2 & 0.3 \\ 0.5 & -1 & 2 \end{pmatrix}
# $$
#
# 左边的矩阵每行只有一个 1，位置就是编号，叫独热（one-hot）矩阵。它和 $E$ 的乘积正好是第 2、0、2 行。查表和乘矩阵是同一件事，只是查表省去了所有乘 0 的运算。由此也看得出两点：同一个词元在哪里都得到同一个向量；这一批里没有出现的词元，它那一行没有参加查表，也就得不到改动。（这里只说输入这一头。本书的模型写出词元时用的也是这张表，见{numref}`第 %s 章 <sec-model>`，那一头每一步都用到所有的行。）
#
# 下面的代码用**梯度**（gradient）来看第二点。梯度是损失对每个参数的导数，训练就是逆着它改参数（{numref}`第 %s 章 <sec-pretrain>`）。这里拿查到的数之和代替损失：没有查到的行，梯度是 0；查到两次的行，是查到一次的两倍。<!-- by: reasoning -->

# %%
E = torch.tensor([[0.1, 0.2, 0.3], [1, 0, 0], [0.5, -1, 2], [0, 1, 0], [0, 0, 1]])
E.requires_grad_()
looked_up = F.embedding(torch.tensor([2, 0, 2]), E)  # [3, 3]
product = F.one_hot(torch.tensor([2, 0, 2]), 5).float() @ E  # [3, 5] @ [5, 3]
assert torch.equal(looked_up, product)
assert torch.equal(looked_up[0], torch.tensor([0.5, -1.0, 2.0]))
looked_up.sum().backward()
E.grad.sum(dim=1)  # rows 1, 3 and 4 were not looked up; row 2 was, twice

# %% [markdown]
# 这张表在 tiny 模型里是 `[1024, 128]`，在 default 模型里是 `[6400, 512]`。训练之前它是随机数，里面没有任何意义。训练之后它学到了什么，{numref}`第 %s 章 <sec-pretrain>` 再看。
#
# ## 真实代码
#
# 数据从 JSON Lines 到模型，要经过四步。形状里 $B$ 是行数，$T$ 是一行的位置数，$C$ 是嵌入的宽度。

# %% tags=["hide-input"] mystnb={"figure": {"caption": "数据经过的四步，一个箭头是一步。方框里是到这时它叫什么，装着什么，形状怎样。", "name": "fig-tensors-flow"}, "image": {"alt": "五个方框从左到右相连：数据行、词元序列、词元数据集、一批、模型的输入，各自标着内容和形状"}}
show.flow(
    [
        ("一行数据", "text, messages"),
        ("序列", "ids, mask [n]"),
        ("数据集", "int32 [词元数]"),
        ("一批", "4 × int64 [B, T]"),
        ("嵌入", "float32 [B, T, C]"),
    ]
)

# %% [markdown]
# ### 一行数据变成词元序列
#
# `tokenize_row` 是全项目唯一决定“一行数据变成哪些词元”的地方。三个阶段三种结果：预训练是整段文本，只有开头的 `<|bos|>` 不学；**监督微调**（supervised fine-tuning，SFT）是一段对话；**直接偏好优化**（direct preference optimization，DPO）的一行有两个回答，于是有两个序列，选中的（好的）在前。

# %%
show.source(dataset.tokenize_row)

# %% [markdown]
# 对话由 `render_conversation` 排版。它先检查角色的次序，再交给 `chat_format.render`：一边放词元，一边记下 0 或 1。（`tool`、`python` 和 `output` 是给会用工具的模型留的，本书的数据里没有，读的时候跳过那几行。）

# %%
show.source(chat_format.render)

# %% [markdown]
# 注意**特殊词元**（special token）从哪里来：只来自 `special[…]`，从不来自 `encode`。用户在话里打出 `<|assistant_start|>` 这几个字符，得到的是普通词元，伪造不了一轮对话。

# %%
typed = tokenizer.encode("<|assistant_start|>")
assert tokenizer.special_id("<|assistant_start|>") not in typed
assert tokenizer.decode(typed) == "<|assistant_start|>"
len(typed)

# %% [markdown]
# ### 太长怎么办
#
# `fit` 保证每个序列最多占 `max_seq_len` 个位置。预训练的长文切成几段，一个词元也不丢。对话只能**截断**（truncation）：后半截丢掉；如果剩下的部分一个要学的词元都没有，整行丢掉。

# %%
show.source(dataset.fit, doc=False)

# %% [markdown]
# 用刚才的十二个词元试一试。限长 9 个位置时留下十个词元，回答只剩“12”；限长 8 时回答全没了，这一行作废。同样长的文本在预训练里切成两段，第二段从第一段的最后一个词元接起，所以要学的词元一个不少：

# %%
assert dataset.fit("sft", [(ids, mask)], 9) == [(ids[:10], mask[:10])]
assert dataset.fit("sft", [(ids, mask)], 8) == []
pieces = dataset.fit("pretrain", [(ids, [0] + [1] * 11)], 8)
assert pieces[0][0][-1] == pieces[1][0][0]
[len(piece) for piece, _ in pieces], sum(sum(learn[1:]) for _, learn in pieces)

# %% [markdown]
# ### 词元存在磁盘上
#
# `load_dataset` 把一个文件的全部序列首尾相接，存成三个数组：`ids` 是 int32，`mask` 是 uint8，`offsets` 记下每个序列从哪里开始。每个词元占 5 字节，用内存映射（memory map）读取，用到哪里才从磁盘读哪里，所以内存不随数据增长。下面读入三个阶段的**留出集**（held-out set），即训练时从不使用的验证文件：

# %%
CACHE = lab.data().parent / "cache"


def load(stage, part="_val"):
    with redirect_stderr(io.StringIO()):  # the progress bar of a first run
        path = lab.data() / f"{stage}_chinese{part}.jsonl"
        return dataset.load_dataset(path, stage, tokenizer, 128, CACHE)


held_out = {stage: load(stage) for stage in ("pretrain", "sft", "dpo")}
assert held_out["sft"].mask.mean() < 0.5
show.table(
    ["阶段", "单位", "词元", "要学的份额", "平均长度", "最长"],
    [
        [stage, len(d), len(d.ids), d.mask.mean(), float(d.positions().mean()), d.positions().max()]
        for stage, d in held_out.items()
    ],
)

# %% [markdown]
# 单位是不可拆开的：DPO 的一对算一个，因为损失要比较两个回答，它们必须同在一行。“要学的份额”是掩码为 1 的词元所占的份额：SFT 里超过一半的词元只读不学。最后两列是一个单位平均和最多占几个位置。平均长度远小于上限 128，这就引出下一个问题。<!-- by: assert held_out["sft"].mask.mean() < 0.5 -->
#
# ### 打包代替填充
#
# 把长短不一的序列凑成矩形，最简单的做法是**填充**（padding）：短的后面补零，补到一样长。补的位置照样要算，算完就扔。**打包**（packing）换一种做法：几个短序列首尾相接，凑满一行，每个序列保持完整。
#
# 怎样装得满？这是装箱问题，{cite:t}`ding2024bestfit` 用的办法叫最佳适配递减：长的先放，每个放进“放得下且剩余最少”的那一行。手算一次，行长 128，单位长 70、60、50、40、30、6：
#
# - 70 开第 0 行，余 58；60 放不下，开第 1 行，余 68。<!-- by: 128 - 70 == 58 and 128 - 60 == 68 -->
# - 50 两行都放得下，选余得少的第 0 行，余 8。
# - 40 只有第 1 行放得下，余 28；30 哪行都放不下，开第 2 行，余 98。<!-- by: 68 - 40 == 28 and 128 - 30 == 98 -->
# - 6 三行都放得下，选第 0 行，余 2。

# %%
lengths = np.array([70, 60, 50, 40, 30, 6])
rows = packing.pack(lengths, 128, order=range(6))
assert [lengths[row].tolist() for row in rows] == [[70, 50, 6], [60, 40], [30]]
rows

# %%
show.source(packing.pack, doc=False)

# %% [markdown]
# `open_rows` 是还有空位的行，按剩下的空位从小到大排着。所以 `bisect_left` 找到的头一个放得下的，就是剩得最少的那一行。找得也快：排好序的表每看一眼就砍掉一半，一千行只要看十眼。<!-- by: 2**10 > 1000 -->
#
# ### 一批是四个张量
#
# `collate` 把选好的行铺成四个 `[B, T]` 的 int64 张量，合称 `Batch`：

# %%
show.source(packing.collate)

# %% [markdown]
# - `input_ids`：题目，每个序列的前 $n-1$ 个词元。
# - `labels`：答案，已经错开一位，不学的写成 -100。错开只在这里做一次，模型和损失函数里都不再移动。
# - `position_ids`：每个序列里的位置，各自从 0 数起。
# - `document_ids`：这个位置属于第几个序列；填充是 -1。
#
# 把留出集里最短的两段对话打包成一行，四个张量并排看。掩码已经化入 `labels`；末两行是填充，训练时它总在一行的右端。

# %% tags=["hide-input"]
places = held_out["sft"].positions()
short = places.argsort(kind="stable")[:2]
pair = packing.collate(held_out["sft"], [short], 24)
assert places[short].tolist() == [11, 11]
names = ["input_ids", "labels", "position_ids", "document_ids"]
columns = [getattr(pair, name)[0].tolist() for name in names]
show.table(
    ["词元", *names],
    [
        [tokenizer.decode([row[0]]) if row[3] >= 0 else "", *row]
        for row in zip(*columns, strict=True)
    ],
)

# %% [markdown]
# 同处一行的序列不能互相看见。下一章的**注意力**（attention）让每个位置从前面的位置取信息；谁可以看谁，由一张许可表定。`document_mask` 由 `document_ids` 造出它，形状 `[B, 1, T, T]`：只许看同一序列里的自己和前文。
#
# 下面是长 3 和长 4 的两个序列加一个填充位，`1:2` 是第 1 个序列的位置 2。一行是一个位置，涂色的格子是它看得见的位置。填充位也看得见自己：注意力是把看得见的位置加权平均，总得有一个可看，才算得出；算出来的反正不用。

# %%
numbers = torch.tensor([[0, 0, 0, 1, 1, 1, 1, -1]])
allowed = document_mask(numbers)  # [1, 1, 8, 8]
assert allowed.sum() == (1 + 2 + 3) + (1 + 2 + 3 + 4) + 1
names = [f"{d}:{i}" for d, i in zip(numbers[0].tolist(), [0, 1, 2, 0, 1, 2, 3, 0], strict=True)]
show.matrix(allowed[0, 0], names, names, digits=None)

# %% [markdown]
# ### 合成一张图
#
# 从一行数据到许可表，{numref}`fig-tensors-strip` 自上而下走一遍，用的就是表里那两段对话。

# %% tags=["hide-input"] mystnb={"figure": {"caption": "一段真实的对话从词元到许可表。绿的要学，灰的只读。三、四两层的列是对齐的：一列是打包以后的一个位置。第四层涂色的是看得见的格子，右下角灰的是填充。", "name": "fig-tensors-strip"}, "image": {"alt": "四层，从上到下：一段对话的词元和编号；每个词元一支箭头指向左下方的标签，不学的是 -100；两段对话并成一行，后面是填充，格子里是各自从 0 数起的位置；最下面是许可表，两个蓝色的三角互不相连，右下角是填充的灰色小三角"}}
assert held_out["sft"].offsets[short[0] + 1] - held_out["sft"].offsets[short[0]] == 12
assert document_mask(pair.document_ids).sum() == 66 + 66 + 3
draw.row_to_mask(held_out["sft"], short.tolist(), 24, tokenizer)

# %% [markdown]
# - **第一层**：对话排成 12 个词元，下面是编号。掩码是 1 的涂绿。
# - **第二层**：每个词元往左下走一格，成为前一个位置的标签。第一个词元不是谁的标签，最后一个词元下面没有位置，它只当答案，所以 12 个词元只有 11 个位置。掩码跟着词元一起走，绿的还是那三个。
# - **第三层**：11 个位置收窄，另一段对话接在右边，再添两个填充，凑满 24 个。格子里是 `position_ids`，第二段从 0 重新数起；粗线是 `document_ids` 换号的地方。
# - **第四层**：许可表。位置看得见自己和本段里的前文，越靠后看得越多，所以每段是一个三角。两个三角互不相连：两段挨着，却互不相看。右下角灰色的小三角是两个填充，它们的 `document_ids` 都是 -1，算作一段。<!-- by: assert document_mask(pair.document_ids).sum() == 66 + 66 + 3 -->
#
# 第三层和第四层说的是两件事，不要混了。**算不算损失，看颜色；看不看得见，看许可表。** 问题的位置是灰色的，不算损失，可是在许可表里，回答的每个位置都看得见它们。不学问题，回答却要读问题。
#
# ### 排队：洗牌，装盒，再洗盒子
#
# 一行会装了，还要定下各行的次序。训练要把数据读好几轮，一轮就是全部数据读一遍。`PackedRows` 在训练开始之前，就把所有轮次的行排成一队。每一轮的做法好比发牌：先洗牌，再把牌装进盒子，最后把盒子也洗一遍。
#
# 1. **洗牌。** 文件里同类的数据可能挨在一起；照原样装，一行里就可能全是加法，接着几步也全是加法。所以先打乱单位的次序，每 8,192 个切成一窗。洗过了，一窗里各类数据都有，比例和全部数据差不多。<!-- by: reasoning -->
# 2. **装盒。** 一窗一窗地交给 `pack`。它长的先放，装好的行于是按长短排着：前面的行里有长的，后面的行里只有短的。
# 3. **洗盒子。** 不洗，训练就总是先读长的、后读短的，每到新的一窗重来一遍。把全部行的次序再打乱一次，长短就均匀地散在一轮里。
#
# `packed[i]` 是第 $i$ 行装了哪些单位。
#
# 这条队由四样东西决定：数据、行长、轮数、种子。四样不变，排多少遍都是同一条队。所以“训练到哪里了”只要记一个数：下一行的序号。半路停了，重新排一次队，从这个序号接着读，一行不多，一行不少。这叫**断点续训**（resume）。下面排两次，核对两条队相同，再从第 5 行接着取，核对取到的也相同：<!-- by: reasoning -->

# %%
packed = packing.PackedRows(held_out["sft"], max_seq_len=128, epochs=2, seed=42)
again = packing.PackedRows(held_out["sft"], max_seq_len=128, epochs=2, seed=42)
assert [*packed] == [*again]
assert packed.WINDOW == 8192
assert torch.equal(packed.batch(range(8)).labels[5:], again.batch(range(5, 8)).labels)
batch = packed.batch(range(8))
used = (batch.document_ids >= 0).int()
assert (used.diff(dim=1) <= 0).all()  # padding is on the right
{name: (tuple(t.shape), t.dtype) for name, t in vars(batch).items() if torch.is_tensor(t)}

# %% [markdown]
# ## 实验
#
# ### 给对话上色
#
# 绿色的词元算进损失，灰色的只读。先看留出集里的一轮对话和一段两轮对话。汉字若被拆成几个字节词元，就显示十六进制的字节。

# %%
chats = [record.row for record in read(lab.data() / "sft_chinese_val.jsonl")]
one = next(chat for chat in chats if len(chat.messages) == 2)
show.loss_mask(*tokenizer.render_conversation(one.messages), tokenizer)

# %%
two = next(chat for chat in chats if len(chat.messages) == 4)
two_ids, two_mask = tokenizer.render_conversation(two.messages)
show.loss_mask(two_ids, two_mask, tokenizer)

# %% [markdown]
# 两轮对话里两个回答都是绿色：一段对话同时练两次。每个回答之后的 `<|assistant_end|>` 也是绿色，而 `<|user_start|>` 永远是灰色。
#
# 再看一个偏好对。橙色的是 DPO 要比较的部分：两个序列的问题相同，都不计入；计入的只有两个回答。

# %%
pairs = [record.row for record in read(lab.data() / "dpo_chinese_val.jsonl")]
chosen, rejected = dataset.tokenize_row("dpo", pairs[0], tokenizer)
show.loss_mask(*chosen, tokenizer, show.COLOURS["dpo"])

# %%
show.loss_mask(*rejected, tokenizer, show.COLOURS["dpo"])

# %% [markdown]
# ### 打包的样子
#
# {numref}`fig-tensors-packing-pretrain` 是八行预训练数据，{numref}`fig-tensors-packing-sft` 是八行 SFT 数据。一段颜色是一个序列，竖线是边界；深色的位置要学，浅色的只读，右端的空白是填充。颜色轮着用，只为分清相邻的序列，和别处图里的颜色无关。

# %% tags=["hide-input"] mystnb={"figure": {"caption": "打包的预训练数据：除了填充，处处都学。", "name": "fig-tensors-packing-pretrain"}, "image": {"alt": "八行横条，每行由几段深色的序列首尾相接，拼成 128 个位置，段与段之间有竖线"}}
texts = packing.PackedRows(held_out["pretrain"], max_seq_len=128, epochs=1, seed=42)
show.packing(texts.batch(range(8)))

# %% tags=["hide-input"] mystnb={"figure": {"caption": "打包的 SFT 数据：每一轮前浅后深，浅色的是问题，深色的是回答。", "name": "fig-tensors-packing-sft"}, "image": {"alt": "八行横条，每段序列先是浅色的问题，后是深色的回答；有两轮的对话深浅各出现两次"}}
show.packing(batch)

# %% [markdown]
# ### 点一个词元
#
# 下面是四段对话，按同样的办法排成行。点一个词元，看它的标签、它自己的掩码、它在哪里、看得见谁。行长可以拖，打包可以关，对话之间的隔断可以拆。
#
# :::{minillm} mask
# :alt: 一批打包的对话。上面可以改第一段对话、行长，可以拆掉打包和隔断；中间一行一行排着词元，绿色的位置要学，箭头后面是它的标签，灰色的只读；选中了回答里的一个词元，它看得见的词元画了线；下面写着它的输入、标签、位置和看得见多少。
#
# 这里可以点每一个词元，要在网页上用。印在纸上的，请看 {numref}`tab-tensors-mask`：一段对话的每个位置，下一个词元的掩码，和它的标签。在 JupyterLab 里，运行 `from minillm.book import page` 和 `page.widget("mask")`。
# :::
#
# 先猜，再试：
#
# - 一步一步缩短行长。先被整段丢掉的，是四段里最长的那一段吗？
# - 找一行里装着两段对话的，拆掉“按对话隔开”，点后一段的 `<|bos|>`。它忽然看得见多少个词元？装上隔断，它又看得见几个？
# - 行长取多少的时候，打包和不打包占的位置一样多？
#
# :::{admonition} 猜完再看
# :class: dropdown
# - 不是。先丢的是讲小兔的那一段：丢不丢，看的是轮到第一个回答之前有多长，不看整段多长。<!-- by: reasoning -->
# - 拆掉以后，它看得见前一段的全部，再加它自己；装上，就只看得见自己。<!-- by: reasoning -->
# - 最短的两段长 11 和 13，行长不到 24，哪两段也装不进同一行，打包就什么也省不下。<!-- by: 11 + 13 == 24 -->
# :::
#
# ### 打包省下多少
#
# 在留出的预训练文件上比较四种凑法，量的是“有词元的位置占全部位置的份额”：每个序列都补到 128；补到全文件最长的一个；随机分成每八个一组，补到组里最长的；打包。

# %%
lengths = held_out["pretrain"].positions()
shuffled = lengths[np.random.default_rng(42).permutation(len(lengths))]
groups = [shuffled[i : i + 8] for i in range(0, len(shuffled), 8)]
fill = {
    "补到 128": lengths.mean() / 128,
    "补到最长": lengths.mean() / lengths.max(),
    "八个一组": lengths.sum() / sum(len(g) * g.max() for g in groups),
    "打包": texts.fill(),
}
sft_fill = packing.PackedRows(held_out["sft"], max_seq_len=128, epochs=1, seed=42).fill()
assert min(fill["打包"], sft_fill) >= 0.95
assert round(fill["打包"] / fill["补到 128"], 1) == 3.7
assert round(1 - fill["打包"], 3) == 0.011
{name: round(float(share), 3) for name, share in fill.items()}, round(sft_fill, 3)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "留出的预训练文本：四种凑法里有词元的位置所占的份额。", "name": "fig-tensors-fill"}, "image": {"alt": "四根横条，从上到下是补到 128、补到最长、八个一组、打包，一根比一根长"}}
assert list(fill.values()) == sorted(fill.values())
show.bars(fill, "有词元的位置的份额", [show.GREY] * 3 + [show.COLOURS["pretrain"]])

# %% [markdown]
# 打包的份额是 0.989，补到 128 只有 0.269。同样一步计算，打包读到的词元是后者的 3.7 倍。换成时间也是这个量级：`python benchmarks/time_to_loss.py` 里别的都不变，只把打包换成补齐，tiny 模型训练到每字节 0.5 比特要花 4.2 倍的时间。剩下的 1.1% 是装箱的零头。<!-- by: benchmarks/README.md --><!-- by: assert round(fill["打包"] / fill["补到 128"], 1) == 3.7 --><!-- by: assert round(1 - fill["打包"], 3) == 0.011 -->
#
# 数据越少，零头越显眼：DPO 的留出文件只有 15 对，每行要放得下一整对（256 个位置），902 个词元位置装进四行，份额是 0.881。<!-- by: assert held_out["dpo"].positions().sum() == 902 -->

# %%
few = packing.PackedRows(held_out["dpo"], max_seq_len=128, epochs=1, seed=42)
assert held_out["dpo"].positions().sum() == 902
assert len(few) == 4
len(few), few.row_length, few.fill()

# %% [markdown]
# ### 打包不改变损失
#
# 省下计算的前提是结果不变。怎样证明？让同一个模型（随机权重就够）读同样的序列两次：一次打包，一次每行只放一个；逐个序列比较平均损失。如果序列之间漏了一点信息，两边就会不同。

# %%
model = lab.fresh()
document_units = [unit for i in range(8) for unit in texts[i]]
together = texts.batch(range(8))
alone = packing.collate(held_out["pretrain"], [[u] for u in document_units], 128)


@torch.no_grad()
def loss_by_document(batch):
    losses, inside = token_losses(model, batch), batch.document_ids >= 0
    sums = torch.zeros(batch.num_documents)
    sums.index_add_(0, batch.document_ids[inside], losses[inside])
    return sums / torch.bincount(batch.document_ids[inside])


gap = (loss_by_document(together) - loss_by_document(alone)).abs().max().item()
assert together.num_documents == alone.num_documents == len(document_units)
assert gap < 1e-4
f"{together.num_documents} documents, largest difference {gap:.4f}"

# %% [markdown]
# 两边相差不到 $10^{-4}$。再验证一下这个检查本身抓得住错误：把 `document_ids` 全改成 0，让一行里的序列彼此看见，变得最多的那个词元，损失变了 0.1 以上，至少是这个界限的一千倍。（这里比的是单个词元，上面比的是一个序列的平均。）<!-- by: assert gap < 1e-4 --><!-- by: assert largest > 0.1 --><!-- by: 1000 * 1e-4 == 0.1 -->

# %% tags=["nbval-ignore-output"]
leaky = replace(together, document_ids=torch.zeros_like(together.document_ids))
inside = together.document_ids >= 0
with torch.no_grad():
    difference = (token_losses(model, leaky) - token_losses(model, together)).abs()
largest = difference[inside].max().item()
assert largest > 0.1
print(f"without the mask, one token's loss changes by up to {largest:.2f}")

# %% [markdown]
# :::{admonition} 真实世界
# :class: real-world
#
# 大模型也打包，隔不隔断却各有各的做法。Llama 3（2024）隔断：报告说，在普通长度的预训练里影响有限，接着用很长的行训练时就要紧了 {cite:p}`grattafiori2024llama3`。DeepSeek-V3（2024）打包的办法与本章同出一篇论文 {cite:p}`ding2024bestfit`，预训练时不隔断，SFT 时才隔断 {cite:p}`deepseek2024v3`。到了 DeepSeek-V4（2026），预训练也隔断了 {cite:p}`deepseek2026v4`。<!-- by: @grattafiori2024llama3 --><!-- by: @deepseek2024v3 --><!-- by: @deepseek2026v4 -->
#
# 行长都是先短后长。Llama 3.1 405B 从 4,096 个词元开始，很快加到 8,192，末了分六步加到 128K；DeepSeek-V4 从 4K 开始，经 16K、64K，一直到 1M。本书的小模型一行 128 个。（2026 年 11 月核对。）<!-- by: @grattafiori2024llama3 --><!-- by: @deepseek2026v4 -->
# :::
#
# ### 把张量写成文件
#
# 以后的章不用这些文件，赶时间的可以跳到“弄坏它”；要把数据喂给别的训练程序，再回来看，最要紧的是“掩码没有错开”那一条。
#
# 训练脚本自己会打包，不需要中间文件。想用自己的 `DataLoader`，或者想逐行看清模型读到了什么，就用 `scripts/export_embeddings.py`：每行数据在张量里也是一行，短的填充，长的截断并警告。（名字里的 embeddings 沿用旧称；写出的是编号，还不是向量。）
#
# ```bash
# python scripts/export_embeddings.py --format sft --max-length 2048
# ```
#
# 脚本只有一行正文，调用 `minillm export`。我们在临时文件夹里对三行数据（最短的两行和最长的一行）运行它，把上限压到 24 来看警告：

# %%
folder = Path(tempfile.mkdtemp())


def export_to(stage, *flags):
    path = folder / f"{stage}.jsonl"
    source = lab.data() / f"{stage}_chinese_val.jsonl"
    lines = sorted(source.read_bytes().splitlines(keepends=True), key=len)
    path.write_bytes(lines[0] + lines[1] + lines[-1])  # two short ones and the longest
    arguments = {"format": stage, "data_path": path, "output": path.with_suffix(".pt")}
    arguments["tokenizer_path"] = lab.tokenizer_path()
    words = [word for k, v in arguments.items() for word in (f"--{k}", str(v))]
    with redirect_stdout(io.StringIO()) as said, redirect_stderr(said):
        cli.main(["export", *words, *flags])
    text = said.getvalue().replace(f"{folder}/", "")
    print(*re.findall(r"(?:warning: |wrote |\w+ +int).*", text), sep="\n")  # no progress bar
    return torch.load(path.with_suffix(".pt"), weights_only=True)


sft = export_to("sft", "--max-length", "24")
dpo = export_to("dpo", "--max-length", "64")

# %% [markdown]
# SFT 的三行里有一行超长，警告说出了文件、行号和长度。`input_ids` 与 `loss_mask` 都是 int32 的 `[3, 24]`。预训练格式写的是 `input_ids`（int32）和 `labels`（int64，`cross_entropy` 要求它是 int64）；DPO 写四个张量。`.pt` 文件里是 pickle，读它可能运行别人藏在里面的代码；`weights_only=True` 只放行张量和纯数据。
#
# 导出的张量和训练器自己用的有三处不同，用之前要知道：
#
# - **掩码没有错开。** `loss_mask` 说的是同一位置的 `input_ids` 自己要不要学；`labels` 则已经错开。所以导出 SFT 之后，标签要自己错开一次；导出预训练的不要再错开。
# - **预训练的结尾少一个 `<|bos|>`。** 训练时每篇文本末尾有一个 `<|bos|>` 当答案，教模型认出结尾。导出的文件里一行只有一篇，没有下一篇，就没有写它；照这样训练，模型学不到在哪里停。加上 `--append-eos`，末尾添一个 `<|assistant_end|>`。<!-- by: assert plain["labels"][0, : len(trained) - 1].tolist() == [*trained[1:-1], -100] -->
# - **一行只有一个序列**，右边用 0 填充，`labels` 用 -100。
#
# 看最短的一段对话。最后一列是错开之后的标签，与手算时的做法相同：

# %%
row = next(read(folder / "sft.jsonl")).row
written = [sft[name][0].tolist() for name in ("input_ids", "loss_mask")]
rendered, learn = tokenizer.render_conversation(row.messages)
n = len(rendered)
assert written == [rendered + [0] * (24 - n), learn + [0] * (24 - n)]  # unshifted, padded right
labels = [i if m else -100 for i, m in zip(written[0][1:], written[1][1:], strict=True)]
names = [tokenizer.decode([i]) for i in rendered] + [""] * (24 - n)
show.table(
    ["词元", "input_ids", "loss_mask", "错开的标签"],
    [*zip(names, *written, labels, strict=False)][: n + 2],
)

# %% [markdown]
# 再看最短的一段文本，训练时的标签、导出的两行、加了 `--append-eos` 的两行：

# %%
plain = export_to("pretrain", "--max-length", "48")
ended = export_to("pretrain", "--max-length", "48", "--append-eos")
row = next(read(folder / "pretrain.jsonl")).row
((trained, _),) = dataset.tokenize_row("pretrain", row, tokenizer)
assert trained[-1] == tokenizer.bos_id
assert plain["labels"][0, : len(trained) - 1].tolist() == [*trained[1:-1], -100]
end = tokenizer.special_id("<|assistant_end|>")
assert ended["labels"][0, : len(trained)].tolist() == [*trained[1:-1], end, -100]


# %% tags=["hide-input"]
def pieces(ids):
    texts = [str(i) if i in (0, -100) else tokenizer.decode([i]) for i in ids]
    return [text.replace("\n", "⏎") for text in texts]


shown = [["训练：labels", *pieces(trained[1:])]]
for name, tensors_of in (("导出", plain), ("--append-eos", ended)):
    for key in ("input_ids", "labels"):
        shown.append([f"{name}：{key}", *pieces(tensors_of[key][0, : len(trained)].tolist())])
show.table(["", *map(str, range(len(trained)))], shown)

# %% [markdown]
# `--bos-token` 换掉开头的特殊词元。上限默认是 2048；看到截断的警告，就调大 `--max-length`，或者事先把数据切短。写法见源码：

# %%
show.source(export.row_tensors)

# %% [markdown]
# ## 弄坏它
#
# ### 掩码错一位
#
# 最常见的错误：标签错开了，掩码忘了错开，于是位置 $t$ 是否计入看的是第 $t$ 个词元自己的掩码。程序不报错，损失照样下降。把两种做法里**真正被学的标签**涂上颜色，先看正确的：

# %%
show.loss_mask(two_ids[1:], two_mask[1:], tokenizer)

# %%
show.loss_mask(two_ids[1:], two_mask[:-1], tokenizer, show.COLOURS["bad"])

# %% [markdown]
# 直接拿导出的、没有错开的 `loss_mask` 去配错开的标签，犯的就是它。和正确的比，错的有两处不同。每个回答的第一个词元变灰：模型从不练习怎样开口，而开口那个词元往往决定了整句话。第一个回答之后的 `<|user_start|>` 变了色：模型学会在说完之后替用户提问。
#
# 怎样发现？像上面那样把标签涂色看一眼，或者写成断言：

# %%
learned = [i for i, learn in zip(two_ids[1:], two_mask[1:], strict=True) if learn]
wrong = [i for i, learn in zip(two_ids[1:], two_mask[:-1], strict=True) if learn]
user_start = tokenizer.special_id("<|user_start|>")
first_of_answer = tokenizer.encode(two.messages[1].content)[0]
assert user_start not in learned
assert learned[0] == first_of_answer
{"first token": tokenizer.decode(wrong[:1]), "says <|user_start|>": user_start in wrong}

# %% [markdown]
# ### 标签没有错开
#
# 另一个错误更彻底：`labels = input_ids`，忘了错开。这在换用别的训练框架时很容易发生，因为有的框架在模型内部错开，有的要求你先错开。
#
# 下面从同样的随机权重出发，用 {numref}`第 %s 章 <sec-pretrain>` 的优化器（每一步怎样改参数，由它定）和同样的 20 批训练数据训练两个模型，一个标签正确，一个标签就是输入自己。

# %%
train_rows = packing.PackedRows(load("pretrain", ""), 128, epochs=1, seed=lab.SEED)


def unshifted(batch):
    return replace(batch, labels=torch.where(batch.labels == -100, -100, batch.input_ids))


def train_briefly(change, steps=20):
    model, losses = lab.fresh().train(), []
    muon_and_adamw = optimizers.make_optimizers(model, TRAINING["tiny"]["pretrain"])
    for step in range(steps):
        loss = next_token_loss(model, change(train_rows.batch(range(4 * step, 4 * step + 4))))
        (loss.total / loss.count).backward()
        for optimizer in muon_and_adamw:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.total.item() / loss.count)
    return model.eval(), losses


# %%
right, right_losses = train_briefly(lambda batch: batch)
broken, broken_losses = train_briefly(unshifted)

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"figure": {"caption": "训练损失。标签没有错开时（橙红），从第一步起就低得多，二十步后已不到 0.5；错开的还在 3 以上。", "name": "fig-tensors-copy"}, "image": {"alt": "两条曲线，横轴是步数：正确标签的损失在上面，没有错开的在下面"}}
assert all(low < high - 1 for low, high in zip(broken_losses, right_losses, strict=True))
assert broken_losses[-1] < 0.5 < 3 < right_losses[-1]
show.lines(
    {
        "错开了": (range(1, 21), right_losses),
        "没有错开": (range(1, 21), broken_losses),
    },
    "步",
    "训练损失（奈特，每个词元）",
    [show.COLOURS["pretrain"], show.COLOURS["bad"]],
)

# %% [markdown]
# 曲线漂亮得可疑。两个模型都在留出的文本上用正确的标签考一次：


# %%
def held_out_loss(model):
    with torch.no_grad():
        loss = next_token_loss(model, together)
    return loss.total.item() / loss.count


chance = float(np.log(tokenizer.vocab_size))
assert broken_losses[-1] < 0.5 < 3 < right_losses[-1]
assert broken_losses[0] < chance - 1 < chance - 0.3 < right_losses[0]
assert held_out_loss(right) < 5 < chance < held_out_loss(broken) - 1
print(f"guessing at random: {chance:.2f} nats; worse than that: {held_out_loss(broken) > chance}")

# %% tags=["nbval-ignore-output"]
show.table(
    ["标签", "第一步的损失", "最后一步的损失", "留出的损失"],
    [
        ["错开了", right_losses[0], right_losses[-1], held_out_loss(right)],
        ["没有错开", broken_losses[0], broken_losses[-1], held_out_loss(broken)],
    ],
)

# %% [markdown]
# 训练损失低得多，留出损失却比闭着眼睛乱猜（$\ln 1024 = 6.93$）还差。<!-- by: assert held_out_loss(right) < 5 < chance < held_out_loss(broken) - 1 -->
#
# 模型学会的只有一件事：把眼前的词元抄一遍。让它接着写，就看得一清二楚：<!-- by: assert set(copied) == {start[-1]} -->

# %%
start = [tokenizer.bos_id, *tokenizer.encode("张静住在")]
(copied,) = complete(broken, [start], max_new_tokens=12)
assert set(copied) == {start[-1]}
tokenizer.decode(copied)

# %% [markdown]
# 三个办法能早早发现它。一是看第一步的损失。什么也不知道的模型，给 $V$ 个词元同样的概率 $1/V$，损失是 $-\ln(1/V) = \ln V$；随机权重应当在它附近，这里却低得多。原因是这个模型的输入和输出共用一张嵌入表（{numref}`第 %s 章 <sec-model>`），还没有训练就偏向“再说一遍”，而标签没有错开，“再说一遍”正是标准答案。二是看结尾：自然语言的损失降不到 0，因为下一个词本来就不确定。三是像本章这样，把一批数据的 `input_ids` 和 `labels` 并排打印出来。<!-- by: assert broken_losses[0] < chance - 1 < chance - 0.3 < right_losses[0] -->
#
# ## 收尾
#
# 三个问题现在是一个张量，形状 `[3, T]`。这是它们送进模型时的样子：前面加上对话的记号，短的在**左边**填充。

# %%
rendered = [
    tokenizer.render_for_completion([{"role": "user", "content": q}]) for q in scoring.SHOWCASE
]
width = max(map(len, rendered))
tensor = torch.tensor([[0] * (width - len(r)) + r for r in rendered])
at_once = complete(lab.fresh(), rendered, max_new_tokens=5)
assert at_once == [complete(lab.fresh(), [r], max_new_tokens=5)[0] for r in rendered]
print(tuple(tensor.shape), tensor.dtype)
show.table(
    ["", *map(str, range(width))],
    [[q, *pieces(row)] for q, row in zip(scoring.SHOWCASE, tensor.tolist(), strict=True)],
)

# %% [markdown]
# 训练时填充在右边，回答时为什么在左边？训练时一行是整篇给的，填充放在末尾，谁也碍不着。回答时却要在右端一个一个地接上新词元：左边填充，三个问题的最后一个词元就都在最后一列，下一个词元都接在它后面。填充的 0 谁也看不见，`position_ids` 从真正的第一个词元数起，所以三个问题一起答和分开答，结果相同。做这件事的是 `generate`（`KVCache` 下一章讲，这里只看 `ids` 怎样在左边补 0）：

# %%
show.excerpt(generate, "pad = torch.tensor", "def run")

# %% [markdown]
# ### 小结
#
# - $n$ 个词元占 $n-1$ 个位置：标签是错开一位的输入，只错开一次。
# - 损失掩码标出该由模型说的词元，它和标签一起错开；不学的标签是 -100。
# - 嵌入就是查表，等于独热矩阵乘嵌入表。
# - 打包让 95% 以上的位置有词元（数据很少时除外）；`document_ids` 和 `position_ids` 保证损失与单独计算时相同。<!-- by: assert min(fill["打包"], sft_fill) >= 0.95 -->
# - 填充在训练和导出时在右边，回答时在左边。
# - 训练损失好得离谱时，先把 `input_ids` 和 `labels` 并排看一眼。
#
# ### 练习
#
# :::{exercise} ★☆☆
# :label: ex-tensors-1
# 算一算：一行 128 个位置，装着长 50、40、38 的三个序列。注意力的 $128 \times 128$ 个格子里，许可的有几个？不管序列的边界、只许看自己和前面时，又有几个？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 长 $n$ 的序列里，第 1 个位置看得见 1 个，第 2 个看得见 2 个……一共几个？
# :::
#
# :::{solution-start} ex-tensors-1
# :class: dropdown
# :::
#
# 长 $n$ 的序列里，第 $i$ 个位置看得见 $i$ 个，一共 $n(n+1)/2$ 个。三个序列是 $1275 + 820 + 741 = 2836$。只许看自己和前面，叫**因果掩码**（causal mask），这时是 $128 \times 129 / 2 = 8256$。许可的只占 16,384 个格子的 17%。<!-- by: 128**2 == 16384 and round(2836 / 16384, 2) == 0.17 -->

# %%
numbers = torch.tensor([[0] * 50 + [1] * 40 + [2] * 38])
assert int(document_mask(numbers).sum()) == 1275 + 820 + 741 == 2836
assert int(document_mask(numbers * 0).sum()) == 8256
round(2836 / 128**2, 3)

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} ★★☆
# :label: ex-tensors-2
# 写一写：实现最省事的装箱：按文件次序放，当前行放不下就另开一行，从不回头。在留出的预训练文本上，它要多少行？和 `pack` 差多少？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 不必记下哪行装了什么，只要记住行数和当前这一行的余量。`held_out["pretrain"].positions()` 是每个序列的长度。
# :::
#
# :::{solution-start} ex-tensors-2
# :class: dropdown
# :::
#
# 这叫“下次适配”，只要记住当前行的余量。

# %%
count, room = 1, 128
for need in held_out["pretrain"].positions().tolist():
    if need > room:
        count, room = count + 1, 128
    room -= need
best = len(packing.pack(held_out["pretrain"].positions(), 128, range(len(held_out["pretrain"]))))
assert 1.1 * best < count < 1.2 * best
count, best

# %% [markdown]
# 多用一成多的行，也就多花一成多的计算。<!-- by: assert 1.1 * best < count < 1.2 * best -->
#
# :::{solution-end}
# :::
#
# :::{exercise} ★☆☆
# :label: ex-tensors-3
# 弄坏它：让 `position_ids` 不再从头数，一行从 0 数到 127，但保留 `document_ids`。每个序列的损失会变吗？先猜，再运行。<!-- by: 128 - 1 == 127 -->
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 用 `replace` 换掉 `together` 的 `position_ids`，再照“打包不改变损失”一节比较。
# :::
#
# :::{solution-start} ex-tensors-3
# :class: dropdown
# :::

# %%
straight = replace(together, position_ids=torch.arange(128).expand(8, 128))
change = (loss_by_document(straight) - loss_by_document(together)).abs().max().item()
assert change < 1e-4
f"unchanged: {change < 1e-4}"

# %% [markdown]
# 不变，差别只是舍入。这个模型用**旋转位置编码**（RoPE），两个词元之间的注意力只取决于它们相距多远（{numref}`第 %s 章 <sec-model>`）；整个序列一起后移，距离不变。那为什么还要从头数？因为位置的表有长度上限，而且换成每个位置一个向量的绝对位置编码，这个错误就会显形。
#
# :::{solution-end}
# :::
#
# :::{exercise} ★☆☆
# :label: ex-tensors-4
# 想一想：如果 `<|assistant_end|>` 的掩码是 0，训练出的模型会怎样？
# :::
#
# :::{solution} ex-tensors-4
# :class: dropdown
# 它从没学过说完要停。回答完之后它会接着写下去，直到碰到字数的上限。损失看不出这个错误，因为漏掉的位置根本不在损失里；要看生成的文本。
# :::
#
# :::{exercise} ★★☆ 动手：错开、截断、补齐
# :label: ex-tensors-rows
# 写出 `to_tensors(rows, T)`。`rows` 里每一项是一个序列的 `(ids, mask)`，两个一样长的列表。返回 `(input_ids, labels)`，都是 `[B, T]` 的 int64 张量，一个序列占一行：
#
# - 标签和掩码一起错开一位，不学的标签是 -100；
# - 太长的序列只留前 $T$ 个位置；
# - 短的在右边补：输入补 0，标签补 -100。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 先造两块张量，一块装满 0，一块装满 -100，再一行一行地填。$T$ 个位置要留下几个词元？
# :::


# %%
def to_tensors(rows: list[tuple[list[int], list[int]]], T: int):
    return ...


tasks.check("4.1", to_tensors)

# %% [markdown]
# :::{solution} ex-tensors-rows
# :class: dropdown
# ```python
# def to_tensors(rows, T):
#     input_ids = torch.zeros(len(rows), T, dtype=torch.int64)
#     labels = torch.full((len(rows), T), -100)
#     for b, (ids, mask) in enumerate(rows):
#         ids, mask = torch.tensor(ids[: T + 1]), torch.tensor(mask[: T + 1])
#         n = len(ids) - 1
#         input_ids[b, :n] = ids[:-1]
#         labels[b, :n] = torch.where(mask[1:] == 1, ids[1:], -100)
#     return input_ids, labels
# ```
# $T$ 个位置要 $T + 1$ 个词元：最后一个位置也要有答案。只留 $T$ 个，每个截断的序列就少学一个词元，程序却不会说什么。
# :::
#
# :::{exercise} ★★★ 动手：装箱
# :label: ex-tensors-pack
# 自己装一次箱。`pack(lengths, capacity)`：`lengths[d]` 是第 $d$ 个序列占几个位置，没有一个超过 `capacity`。照最佳适配递减：
#
# - 长的先放，一样长的按原来的次序；
# - 每个放进放得下而剩得最少的那一行，剩得一样多就放进先开的一行，哪行都放不下才新开一行；
# - 一行里，先放的在左边。
#
# 返回 `(position_ids, document_ids)`，都是 `[行数, capacity]` 的 int64 张量：`position_ids` 在每个序列里从 0 数起，`document_ids` 写着是第几个序列。填充在右边，两个张量里分别是 0 和 -1。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 分两步。先求每一行装哪几个序列，像手算那样得到 `[[0, 2, 5], [1, 3], [4]]`，同时记着各行的余量；一行一行看过去就行，不必快。再把它写成两个张量。
# :::


# %%
def pack(lengths: list[int], capacity: int):
    return ...


tasks.check("4.2", pack)

# %% [markdown]
# :::{solution} ex-tensors-pack
# :class: dropdown
# ```python
# def pack(lengths, capacity):
#     rows, room = [], []
#     for d in sorted(range(len(lengths)), key=lambda d: -lengths[d]):
#         fits = [r for r in range(len(rows)) if room[r] >= lengths[d]]
#         if not fits:
#             fits = [len(rows)]
#             rows.append([])
#             room.append(capacity)
#         best = min(fits, key=lambda r: room[r])
#         rows[best].append(d)
#         room[best] -= lengths[d]
#     position_ids = torch.zeros(len(rows), capacity, dtype=torch.int64)
#     document_ids = torch.full((len(rows), capacity), -1)
#     for r, row in enumerate(rows):
#         at = 0
#         for d in row:
#             position_ids[r, at : at + lengths[d]] = torch.arange(lengths[d])
#             document_ids[r, at : at + lengths[d]] = d
#             at += lengths[d]
#     return position_ids, document_ids
# ```
# `sorted` 让相等的保持原来的次序，`min` 取相等的里面最先的，所以两种打平都不用另写。把 `document_ids` 交给 `document_mask`，就是注意力的许可表。包里的 `packing.pack` 让余量一直有序，找一行不必从头看过去。
# :::
#
# #### 第一部分的小项目：你自己的语料
#
# 一个晚上。拿一份微世界以外的中文，用前四章做过的零件，从文字一直做到可以训练的张量，每一步都留下数。做完以后你能回答：在这份文字上，一个训练出来的模型要打败多少，才算学到了数数给不了的东西？
#
# 准备一份文字：自己的日记、笔记、文章，或者别的你有权用的中文，五万字以上，一段算一篇。手头没有，就用这本书：
#
# ```python
# import jupytext
#
# pages = sorted(lab.ROOT.glob("book/[0-9]*.py"))
# cells = [cell for page in pages for cell in jupytext.read(page).cells]
# texts = [p for c in cells if c.cell_type == "markdown" for p in c.source.split("\n\n")]
# ```
#
# 在自己的笔记本里做，零件从各章抄来：
#
# 1. **划分。** 去掉不到二十个字的段落。用 `divide`（`2.1`）分成训练和留出，`is_held_out` 由文字的哈希值决定，留出二十分之一左右，训练的每条写一遍。<!-- by: reasoning -->
# 2. **查漏。** 用 `find_leaks`（`2.2`）查留出的各篇，门槛取 `0.8`。查出来的打开看看：是引文，是套话，还是同一段改过几个字？决定留不留，写下理由。再检查这个检查：往训练里放十篇换过标点的留出文字，看它找不找得到。
# 3. **基线。** 用{numref}`第 %s 章 <sec-environment>`的 `count` 和 `probability` 数训练的文字，用 `measure`（`1.1`）在留出的文字上量 $n$ 从 1 到 5，记下每字节比特数；再记一个瞎猜的。
# 4. **词表。** 用 `bpe.train_bpe` 在训练的文字上学四个词表，`vocab_size` 取 512、1,015、2,048、4,096。在留出的文字上量字节/词元，看每个词表里最长的十个词元，那是这份语料的指纹。第二个加上九个特殊词元正好是 1,024，下面就用它。<!-- by: (1015 + 9, 2**9, 2**11, 2**12) == (1024, 512, 2048, 4096) -->
# 5. **张量。** 把两份文字各写成 JSON Lines，一行一个 `{"text": "……"}`。`dataset.load_dataset` 读进来，`packing.PackedRows` 装成 128 一行，看装满了多少。照“打包不改变损失”一节，用 `lab.fresh()` 核对打包和单独算的损失。
# 6. **对账。** 一个没有训练的模型，给 1,024 个词元大致同样的概率，每字节是 $\log_2 1024 / r$ 比特，$r$ 是第二个词表的字节/词元。把它和瞎猜、各个 $n$ 排成一张表。没有训练的模型排在哪里？训练要把它带到哪里？
#
# 同样的事也可以不写代码做一遍，核对两边的数：`python scripts/train_rustbpe_tokenizer.py --data_path 训练.jsonl --vocab_size 1024 --out_dir 词表` 学词表，`python scripts/export_embeddings.py --data_path 留出.jsonl --tokenizer_path 词表 --output 留出.pt` 写出张量。
#
# :::{admonition} 怎样算做完
# :class: dropdown
#
# - 用到的四个零件 `1.1`、`2.1`、`2.2`、`4.2` 都印出“通过”；`4.2` 装出的行数与 `len(packing.pack(...))` 相同。
# - `set(train) & set(held_out)` 是空的。放进训练的十篇，`find_leaks` 十篇都找到。
# - 每字节比特数里，瞎猜的最大，二元比一元小；$n$ 再大下去是升是降，你说得出原因（{numref}`fig-environment-overfit`）。
# - 四个词表的字节/词元一个比一个大；留出的每一篇，`decode(encode(text))` 都等于 `text`。
# - 打包以后，有词元的位置占 95% 以上；每篇的损失与单独算的相差不到 $10^{-4}$；把 `document_ids` 全改成 0，差别就超过这个界限。
# - 对账的表写好了，下面有一句话：训练要降到多少以下，为什么。
# :::
#
# 往前走：换一份不同的文字，用这一份的表和词表去量，差多少？把 `1.2` 的 `kneser_ney` 推广到三元，基线降了多少？读完{numref}`第 %s 章 <sec-pretrain>`，拿这份张量训练一个模型，看它几步以后过得了你的基线。
#
# ### 延伸阅读
#
# - {cite:t}`ding2024bestfit`：为什么不该为了凑满一行而切断文档，以及用最佳适配装箱的代价有多小。
# - {cite:t}`bengio2003nplm`：最早把“每个词一个向量”放进神经语言模型的论文，嵌入表就是从这里来的。
# - {cite:t}`karpathy2025nanochat`：对话的记号和掩码规则出自这个项目。
