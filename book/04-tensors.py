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
# - **需要时间**：阅读 30 分钟，运行不到 1 分钟。
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
from minillm.book import lab, show
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
# 模型还是随机权重，三个问题照旧答不出来。

# %% tags=["nbval-ignore-output"]
show.spine({"fresh": lab.showcase(lab.fresh())})

# %% [markdown]
# 上一章（{numref}`第 %s 章 <sec-bpe>`）结束时，我们能把任何一句话变成**词元**（token）的编号。三个问题现在是三串整数，长短不一。
#
# 模型要的却是**张量**（tensor）：一块形状整齐的数字，一次算完。长短不一的三串放不进一个矩形。而且模型训练时还需要另外两样东西：每个位置应当猜出的**标签**（labels），以及哪些位置算进损失。
#
# 本章把这一步补上。训练不会开始，但训练要吃的每一个数字都会摆在眼前。

# %%
prompts = [tokenizer.encode(question) for question in scoring.SHOWCASE]
for ids in prompts:
    print(len(ids), ids)

# %% [markdown]
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
# 末尾的 `<|bos|>` 只当答案，从不当题目：它教模型认出“这里该结束了”。

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
# 掩码标的是词元自己，标签标的是“下一个词元”。两者要一起错开：位置 $t$ 的标签是第 $t+1$ 个词元，是否计入损失也看第 $t+1$ 个词元的掩码。不计入的标签写成 -100，这是 PyTorch 的 `cross_entropy` 默认跳过的值。
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
# 掩码怎样影响损失？假设模型在十一个位置上给正确词元的概率是：前八个都是 0.01，最后三个是 0.5、0.25、0.8。损失是**交叉熵**（cross-entropy），即只在要学的位置上取 $-\ln p$ 再平均：
#
# ```{math}
# :label: eq-tensors-loss
# L = \frac{\sum_t m_{t+1}\,(-\ln p_t)}{\sum_t m_{t+1}}
# ```
#
# $p_t$ 是位置 $t$ 给正确词元的概率，$m_{t+1}$ 是那个词元的掩码。代入：$(0.693 + 1.386 + 0.223)/3 = 0.768$。前八个位置猜得再差也不改变 $L$，因为它们的 $m$ 是 0。

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
# 左边的矩阵每行只有一个 1，位置就是编号，叫独热（one-hot）矩阵。它和 $E$ 的乘积正好是第 2、0、2 行。查表和乘矩阵是同一件事，只是查表省去了所有乘 0 的运算。由此也看得出两点：同一个词元在哪里都得到同一个向量；没有出现的行，这一步得不到来自输入端的梯度。

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
# 这张表在 tiny 模型里是 `[1024, 128]`，在默认模型里是 `[6400, 512]`。训练之前它是随机数，里面没有任何意义。训练之后它学到了什么，{numref}`第 %s 章 <sec-pretrain>` 再看。
#
# ## 真实代码
#
# 数据从 JSON Lines 到模型，要经过四步。形状里 $B$ 是行数，$T$ 是一行的位置数，$C$ 是嵌入的宽度。

# %% tags=["hide-input"] mystnb={"figure": {"caption": "数据经过的四步，箭头下方是每一步交出的东西。", "name": "fig-tensors-flow"}, "image": {"alt": "五个方框从左到右相连：数据行、词元序列、词元数据集、一批、模型的输入，各自标着内容和形状"}}
show.flow(
    [
        ("row", "text, messages"),
        ("sequence", "ids, mask [n]"),
        ("dataset", "int32 [tokens]"),
        ("Batch", "4 x int64 [B, T]"),
        ("embedding", "float32 [B, T, C]"),
    ]
)

# %% [markdown]
# ### 一行数据变成词元序列
#
# `tokenize_row` 是全项目唯一决定“一行数据变成哪些词元”的地方。三个阶段三种结果：预训练是整段文本，只有开头的 `<|bos|>` 不学；**监督微调**（supervised fine-tuning，SFT）是一段对话；**直接偏好优化**（direct preference optimization，DPO）的一行有两个回答，于是有两个序列，选中的在前。

# %%
show.source(dataset.tokenize_row)

# %% [markdown]
# 对话由 `render_conversation` 排版。它先检查角色的次序，再交给 `chat_format.render`：一边放词元，一边记下 0 或 1。

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
# `load_dataset` 把一个文件的全部序列首尾相接，存成三个数组：`ids` 是 int32，`mask` 是 uint8，`offsets` 记下每个序列从哪里开始。每个词元占 5 字节，用内存映射读取，所以内存不随数据增长。下面读入三个阶段的**留出集**（held-out set），即训练时从不使用的验证文件：

# %%
CACHE = lab.data().parent / "cache"


def load(stage, part="_val"):
    with redirect_stderr(io.StringIO()):  # the progress bar of a first run
        path = lab.data() / f"{stage}_chinese{part}.jsonl"
        return dataset.load_dataset(path, stage, tokenizer, 128, CACHE)


held_out = {stage: load(stage) for stage in ("pretrain", "sft", "dpo")}
assert held_out["sft"].mask.mean() < 0.5
show.table(
    ["stage", "units", "tokens", "learned", "mean positions", "longest"],
    [
        [stage, len(d), len(d.ids), d.mask.mean(), float(d.positions().mean()), d.positions().max()]
        for stage, d in held_out.items()
    ],
)

# %% [markdown]
# `units` 是不可拆开的单位：DPO 的一对算一个，因为损失要比较两个回答，它们必须同在一行。`learned` 是掩码为 1 的词元所占的份额：SFT 里超过一半的词元只读不学。平均长度远小于上限 128，这就引出下一个问题。<!-- by: assert held_out["sft"].mask.mean() < 0.5 -->
#
# ### 打包
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
# `insort` 和 `bisect_left` 让“还有空位的行”一直有序，找一行只要对数时间。
#
# ### 一批
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
# 把两个短序列打包成一行，四个张量并排看。掩码已经化入 `labels`；`�` 是不成整字的字节词元；最后一行是填充，训练时它总在一行的右端。

# %% tags=["hide-input"]
places = held_out["sft"].positions()
short = np.flatnonzero(places < 20)[:2]
pair = packing.collate(held_out["sft"], [short], places[short].sum() + 1)
names = ["input_ids", "labels", "position_ids", "document_ids"]
columns = [getattr(pair, name)[0].tolist() for name in names]
show.table(
    ["token", *names],
    [
        [tokenizer.decode([row[0]]) if row[3] >= 0 else "", *row]
        for row in zip(*columns, strict=True)
    ],
)

# %% [markdown]
# 同处一行的序列不能互相看见。`document_mask` 由 `document_ids` 造出注意力的许可表 `[B, 1, T, T]`：只许看同一序列里的自己和前文。下面是长 3 和长 4 的两个序列加一个填充位，一行是一个位置，涂色的格子是它看得见的位置：

# %%
numbers = torch.tensor([[0, 0, 0, 1, 1, 1, 1, -1]])
allowed = document_mask(numbers)  # [1, 1, 8, 8]
assert allowed.sum() == (1 + 2 + 3) + (1 + 2 + 3 + 4) + 1
names = [f"{d}:{i}" for d, i in zip(numbers[0].tolist(), [0, 1, 2, 0, 1, 2, 3, 0], strict=True)]
show.matrix(allowed[0, 0], names, names, digits=None)

# %% [markdown]
# 最后，`PackedRows` 把所有轮次的行排好队。每一轮先打乱单位，每 8,192 个为一窗，一窗一窗地交给 `pack`：窗是数据的随机样本，一行也就是。装好的行再打乱次序，`packed[i]` 是第 $i$ 行装的单位。
#
# 队列只取决于数据、行长、轮数和种子，所以“训练到哪里了”只是一个数：下一行的序号。**断点续训**（resume）因此能从停下的地方接着读，一行不多，一行不少。

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
# {numref}`fig-tensors-packing-pretrain` 是八行预训练数据，{numref}`fig-tensors-packing-sft` 是八行 SFT 数据。一段颜色是一个序列，竖线是边界；深色的位置要学，浅色的只读，右端的空白是填充。

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
# - 拆掉“按对话隔开”，点第二段对话的 `<|bos|>`。它忽然看得见多少个词元？装上隔断，它又看得见几个？
# - 行长取多少的时候，打包和不打包占的位置一样多？
#
# ### 打包省下多少
#
# 在留出的预训练文件上比较四种凑法，量的是“有词元的位置占全部位置的份额”：每个序列都补到 128；补到全文件最长的一个；随机分成每八个一组，补到组里最长的；打包。

# %%
lengths = held_out["pretrain"].positions()
shuffled = lengths[np.random.default_rng(42).permutation(len(lengths))]
groups = [shuffled[i : i + 8] for i in range(0, len(shuffled), 8)]
fill = {
    "pad to 128": lengths.mean() / 128,
    "pad to the longest": lengths.mean() / lengths.max(),
    "pad in groups of 8": lengths.sum() / sum(len(g) * g.max() for g in groups),
    "pack": texts.fill(),
}
sft_fill = packing.PackedRows(held_out["sft"], max_seq_len=128, epochs=1, seed=42).fill()
assert min(fill["pack"], sft_fill) >= 0.95
assert round(fill["pack"] / fill["pad to 128"], 1) == 3.7
assert round(1 - fill["pack"], 3) == 0.011
{name: round(float(share), 3) for name, share in fill.items()}, round(sft_fill, 3)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "留出的预训练文本：四种凑法里有词元的位置所占的份额。", "name": "fig-tensors-fill"}, "image": {"alt": "四根横条，从上到下是补到 128、补到最长、八个一组、打包，一根比一根长"}}
assert list(fill.values()) == sorted(fill.values())
show.bars(
    fill, "share of positions that hold a token", [show.GREY] * 3 + [show.COLOURS["pretrain"]]
)

# %% [markdown]
# 打包的份额是 0.989，补到 128 只有 0.269。同样一步计算，打包读到的词元是后者的 3.7 倍。换成时间也是这个量级：`python benchmarks/time_to_loss.py` 里别的都不变，只把打包换成补齐，tiny 模型训练到每字节 0.5 比特要花 4.2 倍的时间。剩下的 1.1% 是装箱的零头。<!-- by: benchmarks/README.md --><!-- by: assert round(fill["pack"] / fill["pad to 128"], 1) == 3.7 --><!-- by: assert round(1 - fill["pack"], 3) == 0.011 -->
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
# 两边相差不到 $10^{-4}$。再验证一下这个检查本身抓得住错误：把 `document_ids` 全改成 0，让一行里的序列彼此看见，差别立刻是这个界限的一千倍以上。<!-- by: assert gap < 1e-4 --><!-- by: assert largest > 0.1 -->

# %% tags=["nbval-ignore-output"]
leaky = replace(together, document_ids=torch.zeros_like(together.document_ids))
inside = together.document_ids >= 0
with torch.no_grad():
    difference = (token_losses(model, leaky) - token_losses(model, together)).abs()
largest = difference[inside].max().item()
assert largest > 0.1
print(f"without the mask, one token's loss changes by up to {largest:.2f}")

# %% [markdown]
# ### 把张量写成文件
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
    ["token", "input_ids", "loss_mask", "shifted labels"],
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


shown = [["training: labels", *pieces(trained[1:])]]
for name, tensors_of in (("exported", plain), ("--append-eos", ended)):
    for key in ("input_ids", "labels"):
        shown.append([f"{name}: {key}", *pieces(tensors_of[key][0, : len(trained)].tolist())])
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
# 直接拿导出的、没有错开的 `loss_mask` 去配错开的标签，犯的就是它。错的一种有两处不同。每个回答的第一个词元变灰：模型从不练习怎样开口，而开口那个词元往往决定了整句话。第一个回答之后的 `<|user_start|>` 变了色：模型学会在说完之后替用户提问。
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
# 下面从同样的随机权重出发，用 {numref}`第 %s 章 <sec-pretrain>` 的优化器和同样的 20 批训练数据训练两个模型，一个标签正确，一个标签就是输入自己。

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

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"figure": {"caption": "训练损失。标签没有错开时（橙红），从第一步起就低得多，二十步后已不到 0.7。", "name": "fig-tensors-copy"}, "image": {"alt": "两条曲线，横轴是步数：正确标签的损失在上面，没有错开的在下面"}}
assert all(low < high - 1 for low, high in zip(broken_losses, right_losses, strict=True))
assert broken_losses[-1] < 0.7
show.lines(
    {
        "shifted": (range(1, 21), right_losses),
        "not shifted": (range(1, 21), broken_losses),
    },
    "step",
    "training loss (nats per token)",
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
assert broken_losses[-1] < 0.7 < 1.5 < right_losses[-1]
assert broken_losses[0] < chance - 1 < chance - 0.3 < right_losses[0]
assert held_out_loss(right) < 5.5 < chance < held_out_loss(broken)
print(f"guessing at random: {chance:.2f} nats; worse than that: {held_out_loss(broken) > chance}")

# %% tags=["nbval-ignore-output"]
show.table(
    ["labels", "first loss", "last loss", "held-out loss"],
    [
        ["shifted", right_losses[0], right_losses[-1], held_out_loss(right)],
        ["not shifted", broken_losses[0], broken_losses[-1], held_out_loss(broken)],
    ],
)

# %% [markdown]
# 训练损失低得多，留出损失却比闭着眼睛乱猜（$\ln 1024 = 6.93$）还差。<!-- by: assert held_out_loss(right) < 5.5 < chance < held_out_loss(broken) -->
#
# 模型学会的只有一件事：把眼前的词元抄一遍。让它接着写，就看得一清二楚：<!-- by: assert set(copied) == {start[-1]} -->

# %%
start = [tokenizer.bos_id, *tokenizer.encode("张静住在")]
(copied,) = complete(broken, [start], max_new_tokens=12)
assert set(copied) == {start[-1]}
tokenizer.decode(copied)

# %% [markdown]
# 三个办法能早早发现它。一是看第一步的损失：随机权重应当在 $\ln V$ 附近，这里却低得多。原因是输入和输出共用一张嵌入表，随机权重已经偏向“再说一遍”。二是看结尾：自然语言的损失降不到 0，因为下一个词本来就不确定。三是像本章这样，把一批数据的 `input_ids` 和 `labels` 并排打印出来。<!-- by: assert broken_losses[0] < chance - 1 < chance - 0.3 < right_losses[0] -->
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
# 训练时填充在右边，回答时为什么在左边？训练时一行是整篇给的，填充放在末尾，谁也碍不着。回答时却要在右端一个一个地接上新词元：左边填充，三个问题的最后一个词元就都在最后一列，下一个词元都接在它后面。填充的 0 谁也看不见，`position_ids` 从真正的第一个词元数起，所以三个问题一起答和分开答，结果相同。做这件事的是 `generate`：

# %%
show.excerpt(generate, "pad = torch.tensor", "def run")

# %% [markdown]
# ### 小结
#
# - $n$ 个词元占 $n-1$ 个位置：标签是错开一位的输入，只错开一次。
# - 损失掩码标出该由模型说的词元，它和标签一起错开；不学的标签是 -100。
# - 嵌入就是查表，等于独热矩阵乘嵌入表。
# - 打包让 95% 以上的位置有词元（数据很少时除外）；`document_ids` 和 `position_ids` 保证损失与单独计算时相同。<!-- by: assert min(fill["pack"], sft_fill) >= 0.95 -->
# - 填充在训练和导出时在右边，回答时在左边。
# - 训练损失好得离谱时，先把 `input_ids` 和 `labels` 并排看一眼。
#
# ### 练习
#
# :::{exercise}
# :label: ex-tensors-1
# 算一算：一行 128 个位置，装着长 50、40、38 的三个序列。注意力的 $128 \times 128$ 个格子里，许可的有几个？没有文档边界、只有因果掩码时又有几个？
# :::
#
# :::{solution-start} ex-tensors-1
# :class: dropdown
# :::
#
# 长 $n$ 的序列里，第 $i$ 个位置看得见 $i$ 个，一共 $n(n+1)/2$ 个。三个序列是 $1275 + 820 + 741 = 2836$。只有**因果掩码**（causal mask）时是 $128 \times 129 / 2 = 8256$。许可的只占 16,384 个格子的 17%。<!-- by: 128**2 == 16384 and round(2836 / 16384, 2) == 0.17 -->

# %%
numbers = torch.tensor([[0] * 50 + [1] * 40 + [2] * 38])
assert int(document_mask(numbers).sum()) == 1275 + 820 + 741 == 2836
assert int(document_mask(numbers * 0).sum()) == 8256
round(2836 / 128**2, 3)

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise}
# :label: ex-tensors-2
# 写一写：实现最省事的装箱：按文件次序放，当前行放不下就另开一行，从不回头。在留出的预训练文本上，它要多少行？和 `pack` 差多少？
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
# :::{exercise}
# :label: ex-tensors-3
# 弄坏它：让 `position_ids` 不再从头数，一行从 0 数到 127，但保留 `document_ids`。每个序列的损失会变吗？先猜，再运行。<!-- by: 128 - 1 == 127 -->
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
# :::{exercise}
# :label: ex-tensors-4
# 想一想：如果 `<|assistant_end|>` 的掩码是 0，训练出的模型会怎样？
# :::
#
# :::{solution} ex-tensors-4
# :class: dropdown
# 它从没学过说完要停。回答完之后它会接着写下去，直到碰到字数的上限。损失看不出这个错误，因为漏掉的位置根本不在损失里；要看生成的文本。
# :::
#
# ### 延伸阅读
#
# - {cite:t}`ding2024bestfit`：为什么不该为了凑满一行而切断文档，以及用最佳适配装箱的代价有多小。
# - {cite:t}`bengio2003nplm`：最早把“每个词一个向量”放进神经语言模型的论文，嵌入表就是从这里来的。
# - {cite:t}`karpathy2025nanochat`：对话的记号和掩码规则出自这个项目。
