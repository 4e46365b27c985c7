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
# (sec-sft)=
# # 监督微调（SFT）：从会接话到会答话
#
# :::{admonition} 本章
# :class: tip
#
# - **你将学会**：对话怎样变成词元和损失掩码；为什么微调和预训练用的是同一个损失函数；怎样公平地测量微调学到了什么、没学到什么；怎样用 LoRA 只训很少的参数，教模型一件新事，又怎样不让它忘了旧的。
# - **需要时间**：阅读 50 分钟。有缓存时，整页运行约一分半，大半花在 LoRA 一节的三次短训练上；没有缓存时，微调 1,000 步在 2 个 CPU 核上约 2 分钟，同样步数的一个对照也要这么久，100 步的对照约十几秒。
# - **需要内存**：2 GB。
# - **用到的模块**：`minillm.tokenizer.vocabulary`、`minillm.training.packing`、`minillm.training.objectives`、`minillm.model.generate`。
# :::

# %%
import math
import re
from collections import Counter

import msgspec

from minillm import RustBPETokenizer, UserError
from minillm.book import lab, show, tasks
from minillm.book.drawings import tuning
from minillm.config import MODELS, TRAINING
from minillm.data.readers import read
from minillm.data.rows import Message, plain_text, to_messages
from minillm.evaluate import Evaluator, wilson_interval
from minillm.files import write_atomically
from minillm.microworld import exercises, scoring
from minillm.microworld.exercises import FACTS, SUMS
from minillm.microworld.words import ATTRIBUTES, FRAMES, HELD_OUT_FRAMES, PEOPLE
from minillm.model import generate
from minillm.tokenizer import chat_format
from minillm.training import checkpoint, dataset, objectives, optimizers, packing
from minillm.training.checkpoint import Metadata, load_checkpoint, save_checkpoint

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

lab.start()

# %% [markdown]
# ## 开场
#
# {numref}`第 %s 章 <sec-pretrain>` 训练出的模型，读过许多关于微世界的文本。现在像聊天一样问它那三句话：

# %% tags=["nbval-ignore-output"]
pretrained = lab.ladder("pretrain")
replies = {"fresh": lab.showcase(lab.fresh()), "pretrain": lab.showcase(pretrained.model())}
show.spine(replies)

# %% [markdown]
# 这还不是一个会答话的助手（表里的“·”是换行）。上一章末尾比过两种问法：缺的不是知识，是格式。这里再比一次，然后追问：格式卡在哪里？预训练的文本里有“问：……换行，答：……”这样的段落，就写一个没有写完的，请它接下去。题目还是留出的那 60 道，训练从来没有问过。<!-- by: reasoning -->

# %%
tokenizer = lab.tokenizer()


def as_text(evaluator, questions):
    """Which questions are answered rightly as a text to go on with."""
    prompts = []
    for q in questions:
        lines = [("问：" if role == "user" else "答：") + said for role, said in q.messages]
        prompts.append([tokenizer.bos_id, *tokenizer.encode("\n".join([*lines, "答："]))])
    said = evaluator.answers(prompts)
    return [q.is_correct(r.split("\n")[0]) for q, r in zip(questions, said, strict=True)]


def as_chat(evaluator, questions):
    """Which questions are answered rightly as a conversation."""
    said = evaluator.chat([to_messages(q.messages) for q in questions])
    return [q.is_correct(r) for q, r in zip(questions, said, strict=True)]


# %%
before = pretrained.evaluator()
facts = scoring.questions("fact", 60)  # held out
accuracy = {
    "写成文本": sum(as_text(before, facts)) / 60,
    "写成对话": sum(as_chat(before, facts)) / 60,
}
assert accuracy["写成文本"] >= 0.8
assert accuracy["写成对话"] <= accuracy["写成文本"] - 0.2

# %% mystnb={"figure": {"caption": "同一个预训练模型，同样 60 道没训练过的题，两种问法。", "name": "fig-sft-forms"}, "image": {"alt": "横条图：写成文本和写成对话，正确率各一条"}} tags=["nbval-ignore-output"]
show.bars(accuracy, "答对率（fact，60 道留出的题）", show.COLOURS["pretrain"])

# %% [markdown]
# 写成文本，大多答得对；写成对话，同样的题就差得远。<!-- by: assert accuracy["写成对话"] <= accuracy["写成文本"] - 0.2 -->差别只在对话里每句话前后的特殊词元（{numref}`第 %s 章 <sec-bpe>`），如 `<|user_start|>`。词表里有 9 个特殊词元，除了标记一篇开头和结尾的 `<|bos|>`，其余 8 个在预训练里一次也没有出现过。模型怎样看待从没见过的词元？看看它们的嵌入两两之间夹多大的角。


# %%
unseen = [i for name, i in tokenizer.special_tokens.items() if name != "<|bos|>"]
assert len(unseen) == 8


def similarities(model):
    """Cosines of the angles between the unseen tokens' embeddings, two by two."""
    table = model.model.embed_tokens.weight.detach()[unseen]  # [8, hidden_size]
    table = F.normalize(table, dim=1)
    return (table @ table.T)[torch.ones(8, 8).triu(1) > 0]


assert similarities(lab.fresh()).abs().max() < 0.4  # random directions
assert similarities(pretrained.model()).min() > 0.99  # one and the same direction

# %% [markdown]
# 随机权重里，这些嵌入朝着四面八方。<!-- by: assert similarities(lab.fresh()).abs().max() < 0.4 -->预训练之后，它们指向同一个方向：<!-- by: assert similarities(pretrained.model()).min() > 0.99 -->为什么？打分用的就是嵌入表（{numref}`第 %s 章 <sec-model>`），而分数的梯度是“给出的概率减去该给的概率”（{numref}`第 %s 章 <sec-pretrain>`）。没有出现的词元，该给的永远是 0，分数只能往低里改。分数是最后的向量和它那一行的点积，所以每一步都把这一行往那个向量的反方向推一点。同一步里，8 行被推的方向相同，力气也差不多；一千多步积下来，推力盖过了各自随机的起点，8 行就挤到了一处。对模型来说，轮到用户和轮到助手，是同一个符号。
#
# **监督微调**（supervised fine-tuning，SFT）要补上的就是这一课：用一批写好的对话，教会模型这套格式，以及轮到自己时该怎样说话、说到哪里停。
#
# ## 手算
#
# 对话里有问有答。我们只想让模型学会**答**，那么损失怎样算？
#
# 取一个小例子，词表只有 4 个词元：0“颜色”、1“？”、2“红”、3“完”。一个两个词元的问题，一个两个词元的回答（“完”是结束符，也算回答）：
#
# ```text
# 词元    颜色   ？    红    完
# 掩码      0    0     1     1
# ```
#
# 办法在{numref}`第 %s 章 <sec-tensors>`见过：损失掩码是 1 的词元要学着说，是 0 的只读。模型读到第 $t$ 个词元时预测第 $t+1$ 个，所以四个词元有三次预测。掩码为 0 的那一次，标签写成 −100，损失不计：
#
# ```{math}
# :label: eq-sft-loss
# L = \frac{\sum_{t} m_{t+1} \, \bigl(-\ln p(x_{t+1} \mid x_1 \dots x_t)\bigr)}{\sum_{t} m_{t+1}}
# ```
#
# $x_t$ 是第 $t$ 个词元，$m_t$ 是它的掩码，$p$ 是模型给正确的下一个词元的概率。设模型给出的分数如下表，概率由 softmax 得到。
#
# :::{table} 三次预测
# :name: tab-sft-hand
#
# | 已读到 | 分数（词元 0、1、2、3） | 正确的下一个 | 概率 $p$ | $-\ln p$ | 掩码 |
# |---|---|---|---|---|---|
# | 颜色 | 0, 0, 0, 0 | ？ | 1/4 = 0.250 | 1.386 | 0 |
# | ？ | 0, 0, 2, 0 | 红 | 7.389 / 10.389 = 0.711 | 0.341 | 1 |
# | 红 | 0, 0, 0, 1 | 完 | 2.718 / 5.718 = 0.475 | 0.744 | 1 |
# :::
#
# 只算回答：$(0.341+0.744)/2=0.542$。全部都算：$(1.386+0.341+0.744)/3=0.824$，其中 56% 来自“猜用户会问什么”。用户问什么本来就难猜，也不需要模型去猜。
#
# 先用代码核对表里的数：

# %%
scores = torch.tensor([[[0.0, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]])  # [B=1, T=3, V=4]
p = scores[0].softmax(-1)[[0, 1, 2], [1, 2, 3]]  # of the right next token
print(f"e² {math.exp(2):.3f}, e² + 3 {math.exp(2) + 3:.3f}")
print(f"e {math.e:.3f}, e + 3 {math.e + 3:.3f}")
for right, loss in zip(p.tolist(), (-p.log()).tolist(), strict=True):
    print(f"p {right:.3f}, -ln p {loss:.3f}")
print(f"the first of three: {float(p[0].log() / p.log().sum()):.0%} of the loss")

# %% [markdown]
# 再由包里的 `next_token_loss` 来算平均。给它一个假模型，永远给出上面的分数：


# %%
def mean_loss(labels):
    position = torch.arange(3)[None]  # [B, T]
    count = sum(label != -100 for label in labels)
    batch = packing.Batch(
        torch.tensor([[0, 1, 2]]), torch.tensor([labels]), position, position, 1, count
    )
    loss = objectives.next_token_loss(lambda *inputs: scores, batch)
    return float(loss.total) / loss.count


answer_only, everything = mean_loss([-100, 2, 3]), mean_loss([1, 2, 3])
assert math.isclose(answer_only, 0.542, abs_tol=5e-4)
assert math.isclose(everything, 0.824, abs_tol=5e-4)
print(f"answer only {answer_only:.3f}, all tokens {everything:.3f}")

# %% [markdown]
# ## 真实代码
#
# ### 同一个损失

# %%
show.source(objectives.next_token_loss)

# %% [markdown]
# 预训练和 SFT 共用这一个函数。区别全在标签里：预训练处处有标签，SFT 的掩码已经把不学的标签换成了 −100。模型和训练循环也不变。优化器和学习率是设置，由预设决定：

# %%
for preset in ("tiny", "default"):
    for stage in ("pretrain", "sft"):
        config = TRAINING[preset][stage]
        print(f"{preset:8} {stage:9} {config.optimizer:6} learning rate {config.learning_rate}")

# %% [markdown]
# 本书的 `tiny` 预设两个阶段一样：都用 Muon，学习率的峰值相同。给显卡用的 `default` 预设模型大得多，就不一样：预训练用 Muon，微调换成 AdamW，峰值只有预训练的十分之一，常见的理由是少动已经学好的权重。小模型为什么不也调小？试过：0.003 和 0.006 不分高下，0.012 就差了（`benchmarks/README.md`），于是取了和预训练一样的 0.006。<!-- by: benchmarks/README.md --><!-- by: math.isclose(config.TRAINING["default"]["sft"].learning_rate * 10, config.TRAINING["default"]["pretrain"].learning_rate) -->
#
# ### 对话怎样变成词元

# %%
show.source(chat_format.render)

# %% [markdown]
# 这是**对话模板**：用户的话夹在 `<|user_start|>` 和 `<|user_end|>` 之间，助手的话夹在 `<|assistant_start|>` 和 `<|assistant_end|>` 之间。看三处掩码：
#
# - `<|assistant_start|>` 是 0。轮到助手说话，由程序写上，不由模型决定。
# - 助手的文字是 1。
# - `<|assistant_end|>` 也是 1。**停下来也要学**；忘了它会怎样，见“弄坏它”。
#
# 工具的输出（`python_output`）是 0：那是别人说的话。下面是训练数据里第一段两轮对话，要学的着色，只读的灰色：

# %%
rows = [r.row for r in read(lab.data() / "sft_chinese.jsonl")]
two_turns = next(row for row in rows if len(row.messages) == 4)
ids, mask = tokenizer.render_conversation(two_turns.messages)
show.loss_mask(ids, mask, tokenizer)

# %% [markdown]
# 去掉特殊词元，对话还剩什么？就是一段普通的文本。数据配比把微调的每一行也以文本的样子放进了预训练的文件（{numref}`第 %s 章 <sec-data>`）：两者的词元，除了特殊词元和换行，完全一样。

# %%
question, answer = rows[0].messages
chat_ids, _ = tokenizer.render_conversation(rows[0].messages)
text_ids = tokenizer.encode(question.content)
special = set(tokenizer.special_tokens.values())
assert [i for i in chat_ids if i not in special] == text_ids + tokenizer.encode(answer.content)
print(len(chat_ids), "tokens, of them special:", sum(i in special for i in chat_ids))

# %% [markdown]
# ### 预训练读过哪些行
#
# 放进文件，不等于读过。预训练走 1,500 步，每步 8 行，只读 12,000 行打包好的，一行里装着好几篇；整个文件打包之后有两万多行。<!-- by: 1500 * 8 == 12000 --><!-- by: assert 20_000 < len(order) < 25_000 -->哪些读过，可以重算：`PackedRows` 的次序只由数据、行长和种子决定。

# %%
config = lab.training("pretrain")
path = lab.data() / "pretrain_chinese.jsonl"
texts = dataset.load_dataset(
    path, "pretrain", tokenizer, config.max_seq_len, pretrained.folder / "cache"
)
assert texts.cut == 0  # so a unit is a row of the file
order = packing.PackedRows(texts, config.max_seq_len, config.epochs, config.seed)
rows_read = len(pretrained.log) * config.batch_size
seen = np.concatenate([order[i] for i in range(rows_read)])
contents = [plain_text(record.row) for record in read(path)]
texts_read = {contents[i] for i in seen}
chats = [plain_text(row) for row in rows]
assert rows_read == 12_000
assert 20_000 < len(order) < 25_000
assert set(chats) <= set(contents)  # every row for SFT stands in the file
assert not np.isin(texts.ids, unseen).any()  # nor is a special token in it

# %% [markdown]
# 重算的次序就是训练时的次序吗？日志记着到每一步为止读了多少词元，一步一步对：

# %%
lengths = texts.positions()
row_lengths = np.array([lengths[order[i]].sum() for i in range(rows_read)])
tokens_read = row_lengths.reshape(-1, config.batch_size).sum(axis=1).cumsum()
assert [entry["tokens"] for entry in pretrained.log] == tokens_read.tolist()

# %% tags=["remove-input", "nbval-ignore-output"]
known = sum(chat in texts_read for chat in chats)
assert 0.5 < known / len(chats) < 0.67
show.say(
    f"每一步都对得上。微调的 {len(chats):,} 行里，预训练以文本的样子读过 {known:,} 行，",
    f"占 {known / len(chats):.0%}；其余的原文，微调时才第一次见到。",
)

# %% [markdown]
# 所以微调的内容，预训练并没有全读过。<!-- by: assert 0.5 < known / len(chats) < 0.67 -->微调之后的长进，有多少来自格式，有多少来自新读到的内容，要分开来量：见“实验”里的“知识从哪里来”。
#
# ### 标签错开一位
#
# {numref}`第 %s 章 <sec-tensors>`说过，掩码标的是词元自己，标签标的是下一个。`collate` 把一段对话放进批次：位置 $t$ 的标签是第 $t+1$ 个词元，掩码也跟着标签走。

# %%
small = dataset.TokenDataset(
    ids=torch.tensor(ids).numpy(),
    mask=torch.tensor(mask).numpy(),
    offsets=torch.tensor([0, len(ids)]).numpy(),
    unit=1,
)
batch = packing.collate(small, [[0]], len(ids) - 1)  # all [B=1, T]
assert batch.labels.shape == (1, len(ids) - 1)
assert int((batch.labels != -100).sum()) == sum(mask)
first = mask.index(1)  # the first token of the first answer
names = [tokenizer.decode([i]) for i in ids]
[
    (t, names[t], names[t + 1] if batch.labels[0, t] >= 0 else "-100")
    for t in range(first - 3, first + 4)
]

# %% [markdown]
# 看 `<|assistant_start|>` 那一行。它自己的掩码是 0，这个位置却有标签，就是回答的第一个词元。两件事不矛盾：掩码说的是这个词元要不要学着说，标签是下一个词元。下一个要学，这个位置就有标签。<!-- by: reasoning -->
#
# ### 太长的对话
#
# 一段对话比 `--max_seq_len` 长，怎么办？{numref}`第 %s 章 <sec-tensors>`的 `fit` 管这件事，这里拿真的对话走一遍。

# %%
show.source(dataset.fit)

# %% [markdown]
# 预训练的长文本可以切成几段，一个字也不丢。对话不行：后半段没有问题，只有半个回答，学了没有好处。所以 SFT 从尾部截断；截到没有一个要学的词元，就整段丢掉。

# %%
rendered = (tokenizer.render_conversation(r.messages) for r in rows if len(r.messages) == 2)
sequence = next((ids, mask) for ids, mask in rendered if sum(mask) > 6)
whole, question = len(sequence[0]), sequence[1].index(1)  # tokens: all, and those before the answer
limits = {"ample": 128, "too short by 3": whole - 4, "question only": question - 1}
kept = {name: dataset.fit("sft", [sequence], max_seq_len=n) for name, n in limits.items()}
assert sum(kept["too short by 3"][0][1]) == sum(sequence[1]) - 3
assert not kept["question only"]  # dropped
{name: [(limits[name], len(i), sum(m)) for i, m in found] for name, found in kept.items()}

# %% [markdown]
# 三个数是上限、留下的词元、其中要学的。上限 128，全留；上限比全长少 4，留下的比上限多一个（最后一个位置的标签），所以只少了回答末尾的三个词元；上限只容得下问题，整段丢掉。训练前会打印一行警告，说有多少行被截断、多少行被丢弃。我们的微调数据里没有这样的行：

# %%
sft_config = lab.training("sft")
sft = lab.ladder("sft")
data = dataset.load_dataset(
    lab.data() / "sft_chinese.jsonl", "sft", tokenizer, 128, sft.folder / "cache"
)
packed = packing.PackedRows(data, sft_config.max_seq_len, epochs=1, seed=sft_config.seed)
assert data.mask.mean() < 0.5
print(f"{data.rows:,} rows, {data.cut} cut, {data.dropped} dropped")
print(f"{len(data.ids):,} tokens, {data.mask.mean():.0%} of them to be learned")

# %% [markdown]
# 这些词元里，要学的不到一半。<!-- by: assert data.mask.mean() < 0.5 -->打包时一行里装好几段对话，`document_ids` 保证谁也看不到别人（{numref}`第 %s 章 <sec-tensors>`）。
#
# ### 从上一阶段的权重出发

# %%
show.source(checkpoint.starting_model, checkpoint.check_matches)

# %% [markdown]
# 预训练从随机权重出发；之后的阶段从上一阶段的权重出发，没有就报错。`check_matches` 挡住两种看不见的错：形状不同，或者**分词器不同**。后一种最险，程序照跑，但同一个编号换了意思，模型读到的全是乱码。

# %%
_, about = load_checkpoint(pretrained.weights)
other = RustBPETokenizer.load()  # the one with 6,400 tokens that ships with the package
checkpoint.check_matches(pretrained.weights, about, MODELS["tiny"], tokenizer)  # fits: no error
try:
    checkpoint.check_matches(pretrained.weights, about, MODELS["tiny"], other)
except UserError as error:
    print(str(error).partition(": ")[2].partition("(")[0])

# %% [markdown]
# ### 让它回答

# %%
show.source(generate.reply)

# %% [markdown]
# 回答时，`render_for_completion` 把对话写到 `<|assistant_start|>` 为止，模型接着写，遇到 `<|assistant_end|>` 就停（`<|bos|>` 也停，它意味着下一篇开始了）。每一步只把新的一个词元送进模型；前面的词元在各层的键和值存在键值缓存里（{numref}`第 %s 章 <sec-model>`），不必重算。用不用缓存，结果一样：

# %%
prompt = tokenizer.render_for_completion([Message("user", scoring.SHOWCASE[0])])
stops = [tokenizer.special_id("<|assistant_end|>"), tokenizer.bos_id]
with_cache, without = (
    [token for (token,) in generate.generate(sft.model(), [prompt], 32, stops, use_cache=use)]
    for use in (True, False)
)
assert with_cache == without

# %% [markdown]
# ## 实验
#
# ### 1,000 步
#
# 每步 8 行，1,000 步读 8,000 行。这里的行是打包以后的，一行装三段上下的对话：26,400 段对话打包成八千多行，所以 1,000 步几乎正好是一遍。<!-- by: assert 8_000 <= len(packed) < 8_500 --><!-- by: 3 < 26_400 / 8_500 < 26_400 / 8_000 < 3.5 -->学习率走过全程的一成之后，就一路降到 0。<!-- by: config.TRAINING["tiny"]["sft"].decay_fraction == 0.9 -->

# %%
losses = [entry["loss"] for entry in sft.log]
assert len(losses) == 1_000
assert 8_000 <= len(packed) < 8_500
assert sum(losses[:5]) / 5 > 3 * sum(losses[50:100]) / 50

# %% mystnb={"figure": {"caption": "左：SFT 的损失（按 {eq}`eq-sft-loss`，只算回答），线是最近 20 步的平均，圆点是验证损失。右：学习率。", "name": "fig-sft-curves"}, "image": {"alt": "左图：横轴步数，纵轴 SFT 的损失，线是最近 20 步的平均，圆点是验证损失；右图：横轴步数，纵轴学习率"}} tags=["nbval-ignore-output"]
show.curves({"sft": sft.log})

# %% [markdown]
# 损失在几十步里急降，不到开头的三分之一：那是模型在认识特殊词元。<!-- by: assert sum(losses[:5]) / 5 > 3 * sum(losses[50:100]) / 50 -->它是“只算回答”的损失，不能和预训练的损失比大小。
#
# ### 微调前后，各类题目的成绩
#
# 每类 60 道留出的题，训练从来没有问过。各类在考什么：`fact` 是没问过的（人，属性）；`phrasing` 换了训练里没有的问法；`reading` 先读一小段故事；`multi_turn` 第二问用“她”指前一问的人；`choice` 是四选一；`calendar` 数日子；`add`、`sub` 直接报得数；`chain` 数着算；`shop` 把两件东西的价钱相加。
#
# 先写下我们要求的下限，再看数。

# %%
scores_before, scores_after = pretrained.scores(), sft.scores()
assert scores_after["polite"] < 0.3
for kind, floor in lab.FLOORS.items():
    assert scores_after["accuracy"][kind] >= floor, kind
    assert scores_before["accuracy"][kind] < scores_after["accuracy"][kind] - 0.2, kind
lab.FLOORS

# %% tags=["nbval-ignore-output"]
lines = []
for kind, rate in scores_after["accuracy"].items():
    low, high = wilson_interval(rate * 60, 60)
    lines.append([kind, scores_before["accuracy"][kind], rate, f"{low:.2f} … {high:.2f}"])
colours = [None, show.COLOURS["pretrain"], show.COLOURS["sft"], None]
assert [round(end, 2) for end in wilson_interval(58, 60)] == [0.89, 0.99]
show.table(["60 道留出的题", "预训练", "SFT", "95% 置信区间"], lines, colours)

# %% [markdown]
# 60 道题的分数有多可靠？**置信区间**（confidence interval）按 {cite:t}`wilson1927` 计算：60 道答对 58 道，真实的答对率多半在 0.89 到 0.99 之间。两个分数的区间重叠得多，就不能说谁更好。区间怎样来，{ref}`sec-judging`一页从抛硬币讲起。<!-- by: assert [round(end, 2) for end in wilson_interval(58, 60)] == [0.89, 0.99] -->
#
# 还有一层：题是 60 道，数却没有那么多。`add`、`sub` 和 `chain` 都只出自 24 对留出的数，`fact` 只出自四十几项事实。同一对数换一种问法，对错多半一样，所以真实的误差比表里的区间还要宽一些。<!-- by: assert len(SUMS.held_out) == 24 -->
#
# ### 第二个问题，第十个问题
#
# 上面每道题都单独考。可是聊天不会只问一句：问完张静，算一道加法，说声谢谢，再读一段故事。前面说过的话都在上下文里，模型必须分清哪些和眼前的问题有关。考卷这样出：一次聊天里，十类题各问一道，中间夹几句寒暄（`multi_turn` 占两句，只有后一句计分）；模型读到的“前文”里，答话都是它自己说的。60 次聊天，十类题在每个位置上出现得一样多。<!-- by: assert len(exercises.KINDS) == 10 -->

# %%
assert len(exercises.KINDS) == 10
for said, question in scoring.sessions(1)[0]:
    print(f"{question.kind if question else '':>10}  {said}")

# %% [markdown]
# 微调的对话里有一部分正是这样：几段不相干的对话连成一串（{numref}`第 %s 章 <sec-data>`）。没有它们会怎样？把这些行去掉，同样练 1,000 步，再考同一张卷子。每个模型考两遍：一遍读着整次聊天，一遍只往回看最近的一段，更早的当作没说过（看完表再说为什么）。先写下你的猜测：第一问之后，分数会掉多少？

# %%
single = [row for row in rows if sum(m.role == "user" for m in row.messages) <= 2]
path = lab.cache_dir() / "sft-single" / "rows.jsonl"
write_atomically(path, b"\n".join(msgspec.json.encode({"messages": r.messages}) for r in single))
unpractised = lab.variant("sft-single", "sft", data_path=path, epochs=2, max_steps=1_000)
after, everything = sft.evaluator(), MODELS["tiny"].max_position_embeddings
places = {}
for name, run in (("没练过", unpractised), ("练过", sft)):
    places[name, "记得整次聊天"] = run.evaluator().session_accuracy(60, everything)
    places[name, "只往回看一段"] = run.evaluator().session_accuracy(60, sft.window)
later = {name: float(np.mean(rates[1:])) for name, rates in places.items()}
assert later["没练过", "记得整次聊天"] <= 0.5
assert later["练过", "记得整次聊天"] <= later["练过", "只往回看一段"] - 0.15
assert later["没练过", "只往回看一段"] >= later["没练过", "记得整次聊天"] + 0.2
assert later["练过", "只往回看一段"] >= 0.75 * places["练过", "只往回看一段"][0]

# %% tags=["nbval-ignore-output"]
show.table(
    ["微调时", "考试时", "第 1 问", "第 2 问", "第 5 问", "第 10 问", "第 2 到 10 问平均"],
    [[*name, *(rates[i] for i in (0, 1, 4, 9)), later[name]] for name, rates in places.items()],
    [None, None, *[show.COLOURS["sft"]] * 5],
)

# %% tags=["remove-input", "nbval-ignore-output"]
low, high = wilson_interval(later["练过", "只往回看一段"] * 60, 60)
assert later["没练过", "记得整次聊天"] <= 0.5
show.say(
    f"没练过的模型，读着整次聊天，从第二问起平均答对 {later['没练过', '记得整次聊天']:.2f}；",
    f"练过的是 {later['练过', '记得整次聊天']:.2f}；再让它只往回看 {sft.window} 个词元，",
    f"是 {later['练过', '只往回看一段']:.2f}。每一格 60 道题，",
    f"最后这个数若只由一格得出，区间是 {low:.2f} 到 {high:.2f}：一格一格地比，看不出多少。",
    f"只差练习的两行，差 {later['练过', '记得整次聊天'] - later['没练过', '记得整次聊天']:+.2f}；",
    f"只差看多远的两行，差 {later['没练过', '只往回看一段'] - later['没练过', '记得整次聊天']:+.2f}。",
)

# %% [markdown]
# 没练过的模型，读着整次聊天，越聊越糊涂，平均连一半也答不对。<!-- by: assert later["没练过", "记得整次聊天"] <= 0.5 -->它并不是忘了张静住在哪里：单独再问，照样答得对。我们的解释是，它微调时见过的前文，说的都和问题是同一件事，于是前文里有什么，它就从那里抄。<!-- by: reasoning -->
#
# 表里两样东西在变：练没练过，看多远。别把功劳都记给练习，要比就比只差一样的两行。第一行比第三行，第二行比第四行，只差练习；第一行比第二行，第三行比第四行，只差看多远。<!-- by: reasoning -->
#
# 练过也只练到那么长。读着整次聊天，练过的模型到后面照样出错；<!-- by: assert later["练过", "记得整次聊天"] <= later["练过", "只往回看一段"] - 0.15 -->训练里的对话没有那么长，更远的位置它没有练过。所以 `minillm chat` 只让模型往回看一段：训练用的对话里 95% 都不超过的那个长度，跟着权重存下来，叫 `window`；再早的问答忘掉，并且告诉你。没练过的模型，单靠少看一些，也好了许多。<!-- by: assert later["没练过", "只往回看一段"] >= later["没练过", "记得整次聊天"] + 0.2 -->练习的好处是，`window` 里可以放下好几段不相干的话：没有这些长的行，95% 的长度也就短了。<!-- by: reasoning -->

# %%
show.source(checkpoint.Metadata.window.fget, generate.remembered)

# %% [markdown]
# ### 知识从哪里来
#
# `fact` 问的是从没问过的事实。微调之后答得出，是预训练读来的，还是微调教的？先看这些事实写在哪里。微调的对话里也有一种，请模型介绍某个人，回答里就有这些事实，所以两处都要数。只数带着名字的整句，不数用“他”“她”开头的：


# %%
def stated(texts):
    """For each fact that is never asked: how many sentences with the name state it."""
    sentences = Counter(s for text in texts for s in re.split("[。\n]", text))
    return [
        sum(
            sentences[form.format(n=name, v=PEOPLE[name].facts[label])[:-1]]
            for form in ATTRIBUTES[label].statements
        )
        for name, label in FACTS.held_out
    ]


from_chats = set(chats)
in_texts = stated([contents[i] for i in seen if contents[i] not in from_chats])
in_chats = stated(chats)
assert min(in_texts) >= 30
assert sum(in_texts) > 5 * sum(in_chats)

# %% tags=["remove-input", "nbval-ignore-output"]
assert len(in_texts) == len(FACTS.held_out)
show.say(
    f"没问过的事实共 {len(in_texts)} 项。预训练读过的文本，除去微调的那些行，",
    f"每一项至少说过 {min(in_texts)} 遍，平均 {sum(in_texts) / len(in_texts):.0f} 遍；",
    f"微调的全部对话里，平均 {sum(in_chats) / len(in_chats):.0f} 遍。",
)

# %% [markdown]
# 两处都写着，光数遍数分不出来。但可以在微调**之前**就问：预训练的模型，写成文本来问；微调之后的模型，写成对话来问。题目相同，一道一道比。
#
# 怎样比？两边都对、都错的题说明不了什么，要看只有一边对的。假如两边一样好，这样的题落在哪一边，就像抛硬币。4 道全落在一边，概率是 $2 \times (1/2)^4 = 0.125$，不稀奇；11 道全落在一边，是 $2 \times (1/2)^{11} \approx 0.001$，就不像碰巧了。下面的 `by_chance` 算的就是它。<!-- by: (2 / 2**4, round(2 / 2**11, 3)) == (0.125, 0.001) -->


# %%
def by_chance(one, other):
    """How likely coins would be as uneven as this, or more so."""
    n, least = one + other, min(one, other)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(least + 1)) / 2**n)


lines, gained, lost = [], {}, {}
for kind in exercises.KINDS:
    asked = scoring.questions(kind, 60)
    earlier, later = as_text(before, asked), as_chat(after, asked)
    gained[kind] = sum(b and not a for a, b in zip(earlier, later, strict=True))
    lost[kind] = sum(a and not b for a, b in zip(earlier, later, strict=True))
    lines.append([kind, sum(earlier), sum(later), gained[kind], lost[kind]])
assert gained["fact"] <= 8

# %% tags=["nbval-ignore-output"]
show.table(
    ["60 道没问过的题", "预训练，写成文本", "SFT，写成对话", "后来才答对", "后来反而答错"], lines
)

# %% tags=["remove-input", "nbval-ignore-output"]
better = [
    k for k in exercises.KINDS if gained[k] > lost[k] and by_chance(gained[k], lost[k]) < 0.005
]
assert "fact" not in better
named = "、".join(f"`{kind}`（{gained[kind]} 道对 {lost[kind]} 道）" for kind in better)
show.say(
    f"`fact` 这 60 道，微调之后答对 {lines[0][2]} 道，其中微调之前写成文本也答不对的有 ",
    f"{gained['fact']} 道。别的类，“后来才答对”若比“后来反而答错”多得不像抛硬币",
    "（概率小于 0.005：考了 10 类，所以线画得比 0.05 严十倍），就不只是格式的事了。",
    f"这样的类有：{named}。" if better else "这样的类，这里没有。",
)

# %% [markdown]
# 能下的结论是窄的：`fact` 问到的那些事实，微调之前就在模型里，微调让它在对话里也答得出来。<!-- by: assert gained["fact"] <= 8 -->它不适用于表里的每一类。有的题，预训练时用熟悉的写法也答不好，微调之后才答得好；那是微调又教了 1,000 步的结果，至于是对话教得好，还是单单多练了 1,000 步，这里分不开。
#
# 还可以看另一面：微调**问过**的题，分成预训练读过同一个问句的，和没有读过的。


# %%
asked_by_sft = {m.content for row in rows for m in row.messages if m.role == "user"}
lines_read = {line.removeprefix("问：") for text in texts_read for line in text.split("\n")}


def split_by_reading(kind):
    """Of 400 questions, those that SFT asks: read in pretraining, word by word, and not."""
    asked = scoring.questions(kind, 400, held_out=False)
    found = [q for q in asked if q.messages[-1][1] in asked_by_sft]
    was_read = [q for q in found if q.messages[-1][1] in lines_read]
    return {"读过": was_read, "没读过": [q for q in found if q not in was_read]}


lines, rate = [], {}
for kind in ("fact", "shop", "add", "sub"):
    for name, asked in split_by_reading(kind).items():
        earlier, later = (
            sum(v) / len(asked) for v in (as_text(before, asked), as_chat(after, asked))
        )
        rate[kind, name] = later
        low, high = wilson_interval(later * len(asked), len(asked))
        lines.append([kind, name, len(asked), earlier, later, f"{low:.2f} … {high:.2f}"])
assert min(rate["fact", "读过"], rate["fact", "没读过"]) >= 0.85

# %% tags=["nbval-ignore-output"]
colours = [None, None, None, show.COLOURS["pretrain"], show.COLOURS["sft"], None]
header = ["微调问过的题", "同一个问句", "题数", "预训练，写成文本", "SFT，写成对话", "95% 置信区间"]
show.table(header, lines, colours)

# %% [markdown]
# 哪些题读过由种子决定，所以表里的数是这个种子的。问句本身读没读过，对 `fact` 并不要紧，两边都答得好：<!-- by: assert min(rate["fact", "读过"], rate["fact", "没读过"]) >= 0.85 -->要紧的是那件事实读过没有，而事实在别的文本里说过许多遍。<!-- by: assert min(in_texts) >= 30 -->别的几类，每格只有几十道题，先看区间多宽，再比。
#
# `fact` 考的是泛化吗？是，但要说准。这个人的这项事实在预训练的文本里陈述过；没有出现过的是对它的提问。模型会从读过的话里取出答案，并把这个办法用到没问过的事实上。
#
# ### 看看回答本身
#
# 分数之外，总要读几条回答。每类各取一条对的和一条错的（全对的类没有错的）：

# %% tags=["nbval-ignore-output"]
lines, marked = [], []
for kind in ("fact", "phrasing", "reading", "calendar", "chain", "add", "sub"):
    asked = scoring.questions(kind, 60)
    said = after.chat([to_messages(q.messages) for q in asked])
    found = [(q.is_correct(r), q, r) for q, r in zip(asked, said, strict=True)]
    for verdict in (True, False):
        shown = [m for m in found if m[0] is verdict][:1]
        lines += [["✓" if ok else "✗", q.messages[-1][1], r] for ok, q, r in shown]
    marked += found
show.table(["", "问题", "回答"], lines)

# %% tags=["remove-input", "nbval-ignore-output"]
assert sum(r[-1:] in ("。", "！", "？") for _, _, r in marked) >= 0.95 * len(marked)
wrong = [(q, re.findall(r"\d+", r)) for ok, q, r in marked if not ok and q.kind in ("add", "sub")]
close = sum(abs(int(said[-1]) - int(q.answer)) <= 2 for q, said in wrong if said)
show.say(
    f"这 {len(marked)} 条回答，答错的有 {sum(not ok for ok, _, _ in marked)} 条。",
    f"其中直接报得数（`add` 和 `sub`）的 {len(wrong)} 条，有 {close} 条只差一两个数。",
)

# %% [markdown]
# 对的和错的，样子是一样的：句子完整，说完就停。<!-- by: assert sum(r[-1:] in ("。", "！", "？") for _, _, r in marked) >= 0.95 * len(marked) -->错不在格式，在内容。
#
# ### 数着算，还是直接说
#
# 成绩单上 `chain` 和 `sub` 差得很远，可两类题里的数不一样。<!-- by: assert scores_after["accuracy"]["chain"] >= scores_after["accuracy"]["sub"] + 0.3 -->要公平，就用**同一批**算式：24 对留出的数，各出一道加法、一道减法，每道问两遍，一遍直接问，一遍加上“请数着算。”

# %%
assert scores_after["accuracy"]["chain"] >= scores_after["accuracy"]["sub"] + 0.3
assert len(SUMS.held_out) == 24
assert (8, 4) in SUMS.held_out


def ask_sums(sign, request):
    """Which of the held-out sums are right, and the mean length of an answer in tokens."""
    asked = []
    for x, y in SUMS.held_out:
        core = f"{x}加{y}" if sign > 0 else f"{x + y}减{y}"
        turns = (("user", f"{core}等于多少？{request}"),)
        asked.append(scoring.Question("add", turns, str(x + y if sign > 0 else x)))
    said = after.chat([to_messages(q.messages) for q in asked])
    right = [q.is_correct(r) for q, r in zip(asked, said, strict=True)]
    return right, sum(len(tokenizer.encode(r)) for r in said) / len(said)


# %%
ways = {"直接说": "", "数着算": "请数着算。"}
sums = {
    f"{name}，{way}": ask_sums(sign, request)
    for name, sign in (("加法", 1), ("减法", -1))
    for way, request in ways.items()
}
correct = {name: sum(right) for name, (right, _) in sums.items()}
assert correct["加法，数着算"] >= 14
assert correct["减法，数着算"] >= correct["减法，直接说"] + 4
assert sums["加法，数着算"][1] > 3 * sums["加法，直接说"][1]

# %% mystnb={"figure": {"caption": "同样 24 对没训练过的数，两种答法的成绩。", "name": "fig-sft-chain"}, "image": {"alt": "横条图：加法直接说、加法数着算、减法直接说、减法数着算，24 道题里正确的道数各一条"}} tags=["nbval-ignore-output"]
show.bars(correct, "24 道里答对的", [show.GREY, show.COLOURS["sft"]] * 2)

# %% tags=["remove-input", "nbval-ignore-output"]
said = []
for kind in ("加法", "减法"):
    pairs = list(zip(sums[f"{kind}，直接说"][0], sums[f"{kind}，数着算"][0], strict=True))
    counted, direct = pairs.count((False, True)), pairs.count((True, False))
    chance = by_chance(counted, direct)
    odds = f"是 {chance:.2g}" if chance >= 0.001 else "不到千分之一"
    verdict = "不像碰巧" if chance < 0.05 else "这么少的题还下不了结论"
    said.append(
        f"{kind}，只有数着算才对的 {counted} 道，只有直接说才对的 {direct} 道，"
        f"抛硬币抛出这样悬殊的概率{odds}，{verdict}。"
    )
assert len(said) == 2
show.say("两种答法若一样好，只有一种对的那些题就该像抛硬币。", *said)

# %% [markdown]
# 减法数着算，比直接说好。<!-- by: assert correct["减法，数着算"] >= correct["减法，直接说"] + 4 -->为什么？模型每吐一个词元，只有 4 层的计算量。直接说得数，8 加 4 必须在一次前向里算完，不然就只能靠记住见过的算式。数着算，每个词元只要知道 11 的后面是 12，这一步读过许多遍；中间结果写在纸上，后面的词元可以回头看。这就是**思维链**（chain of thought，{cite:t}`wei2022cot`）：用更多的词元换更多的计算。数着算的加法，回答的平均长度是直接说的三倍以上。<!-- by: assert sums["加法，数着算"][1] > 3 * sums["加法，直接说"][1] -->
#
# 老实说明一点：留出的 8 加 4 没有被问过，但 `8、9、10` 这几步在更长的数数里出现过。这里泛化的是“把见过的步子拼成没见过的路”，不是从无到有地发明加法。出了这个世界的范围，例如 25 加 3，它就答错了（{numref}`ex-sft-4`）。<!-- by: assert not scoring.Question("add", turns, "28").is_correct(beyond) -->
#
# 直接做减法，训练 1,000 步也没有学好。是没学，还是没有学会举一反三？在训练**问过**的算式上再考一次：<!-- by: assert splits["sub，留出的"] <= 0.6 -->


# %%
def accuracy_on(kind, held_out):
    right = as_chat(after, scoring.questions(kind, 40, held_out=held_out))
    return sum(right) / len(right)


splits = {
    f"{kind}，{name}": accuracy_on(kind, held_out)
    for kind in ("add", "sub", "chain")
    for name, held_out in (("问过的", False), ("留出的", True))
}
assert splits["sub，留出的"] <= 0.6
assert splits["sub，留出的"] <= splits["sub，问过的"] - 0.2
assert splits["add，留出的"] < splits["add，问过的"]
assert min(splits["chain，留出的"], splits["chain，问过的"]) >= 0.7

# %% mystnb={"figure": {"caption": "训练问过的算式与留出的算式，各 40 道。", "name": "fig-sft-splits"}, "image": {"alt": "横条图：add、sub、chain 三类，训练问过的和留出的各一条，数字是正确率"}} tags=["nbval-ignore-output"]
show.bars(splits, "答对率（各 40 道）", [show.GREY, show.COLOURS["sft"]] * 3)

# %% [markdown]
# 直接报得数，问过的算式答得好些，没问过的就掉下去：其中有不少是背的。<!-- by: assert splits["sub，留出的"] <= splits["sub，问过的"] - 0.2 --><!-- by: assert splits["add，留出的"] < splits["add，问过的"] -->`chain` 两边都高：它学到的是方法。<!-- by: assert min(splits["chain，留出的"], splits["chain，问过的"]) >= 0.7 -->区分“记住”和“学会”，只有留出集做得到。
#
# 顺便记下两件事，{numref}`第 %s 章 <sec-thinking>` 要用：微调直接问过的数对只有一半，另一半只在“请数着算”的题里出现；直接问的题里，又有百分之五是数着算来答的，所以没有人要求时，它偶尔也见过数着算。<!-- by: minillm/microworld/exercises.py -->
#
# ### 什么时候学会的
#
# 训练途中存了几份权重。每份考 30 道题：

# %%
kinds = ("fact", "chain", "add")
learned = {kind: [] for kind in kinds}
for step in sft.steps:
    evaluator = sft.evaluator(step)
    for kind in kinds:
        learned[kind].append(evaluator.question_accuracy(kind, 30))
assert learned["fact"][0] >= 0.2  # after 25 steps
assert learned["chain"][2] >= 0.4  # after 100

# %% mystnb={"figure": {"caption": "微调途中的答对率。每点 30 道题，置信区间的半宽最多 0.17。", "name": "fig-sft-when"}, "image": {"alt": "三条折线，横轴是步数，从 25 到 1,000；纵轴是 fact、chain、add 三类题的答对率"}} tags=["nbval-ignore-output"]
low, high = wilson_interval(15, 30)  # the widest
assert round((high - low) / 2, 2) == 0.17
curves = {kind: (sft.steps, rates) for kind, rates in learned.items()}
show.lines(curves, "步", "答对率", marker="o")

# %% tags=["remove-input", "nbval-ignore-output"]
assert learned["fact"][0] >= 0.2
assert sft.steps[0] * sft_config.batch_size == 200
drop, kind, i = max((r[i] - r[i + 1], k, i) for k, r in learned.items() for i in range(len(r) - 1))
show.say(
    f"25 步之后，也就是只读了 200 行，`fact` 已经答对 {learned['fact'][0]:.2f}，",
    f"`chain` 答对 {learned['chain'][0]:.2f}；到最后，`fact`、`chain`、`add` 依次是 ",
    "、".join(f"{learned[k][-1]:.2f}" for k in kinds) + "。",
    f"路上有起伏，跌得最多的一次是 `{kind}` 从第 {sft.steps[i]} 步到第 {sft.steps[i + 1]} 步，"
    f"少了 {drop:.2f}。"
    if drop > 0
    else "",
)

# %% [markdown]
# 200 行打包好的，是六百多段对话。只读这么一点，`fact` 就答得出不少，因为知识是现成的，缺的是格式。<!-- by: assert learned["fact"][0] >= 0.2 --><!-- by: 600 < 200 * 26_400 / 8_500 < 200 * 26_400 / 8_000 < 700 -->学习率在峰值附近时，每一步走得大，答得出的题也可能又丢掉；每点只有 30 道题，也会晃。<!-- by: reasoning -->
#
# ### 没有预训练，直接微调
#
# {cite:t}`zhou2023lima` 只用 1,000 段精选的对话微调一个大模型，就得到了不错的助手。他们的解释是：知识和本事主要来自预训练，微调只教会模型用哪种格式说出来。我们来做反面的实验：从随机权重直接微调 100 步，和从预训练出发的第 100 步比。数据、次序都相同；学习率那边，随机权重的一方还占了便宜：它的学习率在 100 步里有升有降，走完了全程。

# %%
model = lab.fresh()
random_start = lab.Run("fresh", "pretrain", lab.cache_dir() / "fresh")
about = Metadata("pretrain", 0, model.config, tokenizer.fingerprint, "", {})
save_checkpoint(random_start.weights, model, about)
scratch = lab.variant("sft-from-scratch", "sft", start=random_start, max_steps=100)
comparison = {}
for kind in ("fact", "chain"):
    comparison[f"{kind}，有预训练"] = sft.evaluator(100).question_accuracy(kind, 60)
    comparison[f"{kind}，随机权重"] = scratch.evaluator().question_accuracy(kind, 60)
    assert comparison[f"{kind}，有预训练"] - comparison[f"{kind}，随机权重"] >= 0.2
    assert comparison[f"{kind}，随机权重"] <= 0.3

# %% mystnb={"figure": {"caption": "同样 100 步 SFT，从预训练的权重出发，或从随机权重出发。", "name": "fig-sft-scratch"}, "image": {"alt": "横条图：fact 和 chain，从预训练的权重出发和从随机权重出发，正确率各一条"}} tags=["nbval-ignore-output"]
colours = [show.COLOURS["sft"], show.GREY] * 2
show.bars(comparison, "100 步之后的答对率（60 道）", colours)

# %% [markdown]
# 随机权重出发的模型差得远，但也不是什么都没学到。<!-- by: assert comparison[f"{kind}，有预训练"] - comparison[f"{kind}，随机权重"] >= 0.2 -->问它三道没问过的题：

# %% tags=["nbval-ignore-output"]
said = scratch.evaluator().chat([to_messages(q.messages) for q in facts])
complete_sentences = sum(r[-1:] in ("。", "！", "？") for r in said) / len(said)
assert complete_sentences >= 0.8
lines = zip([q.messages[-1][1] for q in facts], said, strict=True)
show.table(["问题", "100 步，没有预训练"], list(lines)[:3])

# %% [markdown]
# 它的回答差不多句句是完整的一句话，说完也会停；人和事却大多对不上。<!-- by: assert complete_sentences >= 0.8 --><!-- by: assert comparison[f"{kind}，随机权重"] <= 0.3 -->100 步足够学会句式。至于这些事实，它很少读到：微调的全部对话里，每项平均说过几遍，前面数过；100 步又只读了其中的一成。没有读到的，学得再快也答不出。<!-- by: assert 8_000 <= len(packed) < 8_500 --><!-- by: 100 * 8 / 8_500 < 0.1 == 100 * 8 / 8_000 -->
#
# :::{admonition} 真实世界
# :class: real-world
#
# SFT 用多少数据，各家差得很远：InstructGPT（2022）约 1.3 万个提示，由标注员写出示范 {cite:p}`ouyang2022instructgpt`；LIMA（2023）只用 1,000 段 {cite:p}`zhou2023lima`；Qwen2.5（2024）一百多万条 {cite:p}`yang2024qwen25`；DeepSeek-V3（2024）150 万条。写数据的也换了：DeepSeek-V3 的推理题由内部的 R1 模型来答，其余的由上一代模型来答，再请人核对 {cite:p}`deepseek2024v3`。<!-- by: @ouyang2022instructgpt --><!-- by: @zhou2023lima --><!-- by: @yang2024qwen25 --><!-- by: @deepseek2024v3 -->
#
# 做法和本章相同：只在回答上计损失，问题只读不学，Llama 3 就是这样写的 {cite:p}`grattafiori2024llama3`。学习率很小：DeepSeek-V3 走两遍，学习率从 $5\times10^{-6}$ 降到 $10^{-6}$。比起预训练，它是很小的一份：SFT 连同强化学习，只占全部 278.8 万卡时里的 5 千。（2026 年 11 月核对。）<!-- by: @grattafiori2024llama3 --><!-- by: @deepseek2024v3 -->
# :::
#
# ### 解码：温度和 top-p
#
# 到此为止都是贪心解码：每步取分数排在头一个的词元。也可以按概率抽一个，上一章讲故事就是这样。温度 $\tau$ 决定抽得多大胆：分数先除以 $\tau$，再做 softmax；$\tau<1$ 更集中，$\tau>1$ 更分散。排在后面的词元，一个个概率很小，加起来却不少，抽到了就说错话，所以还要剪掉尾巴。词元按概率从大到小排：top-k 只留前 $k$ 个；top-p 只留加起来刚到 $p$ 的前几个 {cite:p}`holtzman2020topp`，模型有把握时留得少，没把握时留得多。<!-- by: reasoning -->
#
# 算一个小例子。三个词元的概率是 0.6、0.3、0.1。取 $\tau = 0.5$，分数翻一倍，概率就各自平方再归一：0.36、0.09、0.01 除以 0.46，是 0.78、0.20、0.02，更集中了。不调温度，取 $p = 0.8$：0.6 不到 0.8，再加 0.3 就过了，所以留下前两个，归一以后是 0.67 和 0.33，第三个永远抽不到。<!-- by: (round(0.36 / 0.46, 2), round(0.09 / 0.46, 2), round(0.01 / 0.46, 2)) == (0.78, 0.2, 0.02) --><!-- by: (round(0.6 / 0.9, 2), round(0.3 / 0.9, 2)) == (0.67, 0.33) -->

# %%
show.source(generate.choose)

# %%
prompts = [tokenizer.render_for_completion(to_messages(q.messages)) for q in facts]


def sampled(temperature, top_p=1.0):
    sampling = generate.Sampling(temperature=temperature, top_p=top_p, seed=lab.SEED)
    said = generate.complete(after.model, prompts, 32, stops, sampling)
    right = [q.is_correct(tokenizer.decode(r)) for q, r in zip(facts, said, strict=True)]
    return sum(right) / len(right)


settings = {f"温度 {t}": sampled(t) for t in (0, 0.5, 1.0, 1.5)}
settings["温度 1.5，top-p 0.9"] = sampled(1.5, 0.9)
assert settings["温度 0"] >= 0.85
assert settings["温度 0.5"] >= settings["温度 1.5"]
assert settings["温度 1.5"] < settings["温度 0"] - 0.2

# %% mystnb={"figure": {"caption": "同一个模型，不同的解码方式（fact，60 道题）。", "name": "fig-sft-decoding"}, "image": {"alt": "横条图：温度 0、0.5、1、1.5，以及温度 1.5 加 top-p 0.9，正确率各一条"}} tags=["nbval-ignore-output"]
show.bars(settings, "答对率（fact，60 道）", show.COLOURS["sft"])

# %% tags=["remove-input", "nbval-ignore-output"]
hot, cut = settings["温度 1.5"], settings["温度 1.5，top-p 0.9"]
assert hot < settings["温度 0"] - 0.2
show.say(
    f"温度从 0 升到 1.5，答对率从 {settings['温度 0']:.2f} 掉到 {hot:.2f}；",
    f"剪掉尾巴，又回到 {cut:.2f}。" if cut > hot else f"剪掉尾巴，是 {cut:.2f}，没有救回来。",
)

# %% [markdown]
# 有标准答案的题，抽样没有好处：温度越高，越常抽到尾巴里的词元。<!-- by: assert settings["温度 1.5"] < settings["温度 0"] - 0.2 -->写故事则相反，贪心解码对同一个开头总是给同一个故事，那时才需要温度。
#
# 自己调一调。竖线是原来的概率，蓝条是调过的；“照这样答 20 遍”真的抽二十个回答，数一数各有几遍。
#
# :::{minillm} sampler
# :text: 张静住在哪里？
# :model: sft
# :alt: 问题“张静住在哪里？”和三条滑块：温度、top-k、top-p。下面一条一个词元，是回答的第一个词元的概率：竖线是原来的，蓝条是照滑块改过的。最下面的按钮让它照这样回答许多遍。
#
# 这里可以调温度、top-k 和 top-p，要在网页上用。印在纸上的，请看 {numref}`fig-sft-decoding`。在 JupyterLab 里，运行 `from minillm.book import page` 和 `page.widget("sampler", models={"sft": after.model})`，问你自己训练的模型。
# :::
#
# 先猜，再试：
#
# - 温度调到 2，二十遍里有几遍不对？不动温度，把 top-p 一格一格往左拖，拖到哪里才没有不对的？
# - top-p 取 0.9，留下几个词元？点着条子写到城市的前面，再看留下几个。固定的 top-k 为什么不能这样？
# - 输入“请讲一个小猫的故事吧。”，什么样的设置，二十遍各不相同，又句句通顺？
#
# ### 教它一件新事：十二个人搬了家
#
# 模型训练好了，世界却在变。微世界的 48 个人里有 12 个搬了家，怎样告诉模型？最直接的办法是再做一次 SFT，只喂新的事：问他们住在哪里，答新的城市。每个人 5 种问法、7 种开头，一共 420 段对话。<!-- by: 12 * 5 * 7 == 420 -->

# %%
city = ATTRIBUTES["城市"]
moved = {}  # every fourth person: to the next city of the list
for name in list(PEOPLE)[::4]:
    at = city.values.index(PEOPLE[name].facts["城市"])
    moved[name] = city.values[(at + 1) % len(city.values)]
news = [
    [Message("user", frame.format(q=q.format(n=name))), Message("assistant", f"{name}住在{now}。")]
    for name, now in moved.items()
    for q in city.questions
    for frame in FRAMES
]
assert (len(PEOPLE), len(moved), len(news)) == (48, 12, 420)
[m.content for m in news[0]]

# %% [markdown]
# 考卷要考两面。学会了没有：搬家的 12 个人，用训练里没有的开头问，要答新的城市。忘了没有：没搬家的 36 个人，要答原来的城市；再加三类不相干的题。<!-- by: 12 + 36 == 48 -->


# %%
def where(cities):
    """Where these people live, each asked four times in words that no training uses."""
    return [
        scoring.Question("fact", (("user", frame.format(q=q.format(n=name))),), answer)
        for name, answer in cities.items()
        for q, frame in zip(city.questions, HELD_OUT_FRAMES, strict=False)
    ]


stayed = {name: p.facts["城市"] for name, p in PEOPLE.items() if name not in moved}
exam = {"搬了家的": where(moved), "没搬家的": where(stayed)[::3]}
for name, kind in (("数着算", "chain"), ("读故事", "reading"), ("买东西", "shop")):
    exam[name] = scoring.questions(kind, 30)


def marks(model):
    evaluator = Evaluator(model, tokenizer)
    return {name: sum(as_chat(evaluator, asked)) / len(asked) for name, asked in exam.items()}


# %% [markdown]
# 训练就用一个朴素的循环：AdamW，学习率从头到尾降到 0，80 步，每步 8 行。凡是 `requires_grad` 为真的参数都训；下一节要把一些参数关掉不训，叫“冻住”。<!-- by: reasoning -->


# %%
def packed_rows(chats):
    """These conversations as packed rows of 128 tokens, ten times over."""
    found = [tokenizer.render_conversation(chat) for chat in chats]
    data = dataset.TokenDataset(
        ids=np.concatenate([ids for ids, _ in found]),
        mask=np.concatenate([mask for _, mask in found]),
        offsets=np.cumsum([0, *(len(ids) for ids, _ in found)]),
        unit=1,
    )
    return packing.PackedRows(data, 128, epochs=10, seed=lab.SEED)


# %%
def tune(model, chats, rate, steps=80):
    batches = packed_rows(chats)
    trained = [p for p in model.train().parameters() if p.requires_grad]
    adam = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / steps)
    for step in range(steps):
        loss = objectives.next_token_loss(model, batches.batch(range(8 * step, 8 * step + 8)))
        (loss.total / loss.count).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        adam.step()
        schedule.step()
        adam.zero_grad()
    return model.eval()


# %% [markdown]
# ### LoRA：冻住 W，只训一条旁路
#
# 改 12 个人的住址，用得着动 869,504 个数吗？**低秩适配**（low-rank adaptation，LoRA，{cite:t}`hu2022lora`）的办法是：原来的矩阵 $W$ 冻住不动，旁边加一条窄路。<!-- by: assert counts["全部微调"] == 869_504 -->
#
# ```{math}
# :label: eq-sft-lora
# y = Wx + BAx, \qquad W: [m, n], \quad A: [r, n], \quad B: [m, r]
# ```
#
# $x$ 先由 $A$ 压成 $r$ 个数，再由 $B$ 放回 $m$ 个。$r$ 是旁路的宽度（线性代数里叫秩，rank；和分词器的秩同名，不是一回事），取得很小，例如 4。$BA$ 的形状和 $W$ 一样，数却少得多。
#
# 手算一个小例子：$m=n=3$，$r=1$，$B$ 是一列 $(2, 1, 0)$，$A$ 是一行 $(1, 0, -1)$。
#
# $$BA = \begin{pmatrix} 2 \\ 1 \\ 0 \end{pmatrix} \begin{pmatrix} 1 & 0 & -1 \end{pmatrix} = \begin{pmatrix} 2 & 0 & -2 \\ 1 & 0 & -1 \\ 0 & 0 & 0 \end{pmatrix}$$
#
# 9 个数的矩阵，只用 6 个数写出来。代价是每一列都是 $B$ 的倍数：不管 $x$ 是什么，$BAx$ 总落在 $B$ 这一个方向上。$r=4$，就有四个方向。真的矩阵大，省得就多：<!-- by: 3 * 3 == 9 --><!-- by: 3 + 3 == 6 -->

# %% mystnb={"figure": {"caption": "LoRA：$x$ 走两路，灰的冻住，绿的训练。矩阵按比例画，$W$ 是一层里的 `q_proj`，$r=4$。", "name": "fig-sft-lora"}, "image": {"alt": "x 分成两路。上路穿过一个大方块 W；下路先穿过一条扁的 A，再穿过一条窄的 B；两路在加号处相加，得到 Wx+BAx"}}
tuning.low_rank(128, 128, 4)

# %% [markdown]
# $A$ 随机开始，$B$ 从 0 开始。这样第一步之前 $BA=0$，装上旁路的模型和原来一模一样，训练从老样子出发。为什么不两个都取 0？$B$ 的梯度里有因子 $Ax$，$A$ 的梯度里有因子 $B$。两个都是 0，两边的梯度就都是 0，永远动不了；只让 $B$ 是 0，第一步 $B$ 先动，然后 $A$ 也跟着动。代码不长：


# %%
class LoRA(nn.Module):
    """A frozen linear layer with a trainable path beside it: W x + B A x."""

    def __init__(self, linear, rank):
        super().__init__()
        m, n = linear.weight.shape
        self.linear = linear
        self.A = nn.Parameter(torch.randn(rank, n) / n**0.5)
        self.B = nn.Parameter(torch.zeros(m, rank))

    def forward(self, x):  # [..., n] → [..., m]
        return self.linear(x) + x @ self.A.T @ self.B.T


# %%
def with_lora(model, rank):
    """Freezes the model, and puts a path beside each of its layers' seven matrices."""
    model.requires_grad_(False)
    for block in model.model.layers:
        for part in (block.self_attn, block.mlp):
            for name, linear in list(part.named_children()):
                setattr(part, name, LoRA(linear, rank))
    return model


# %% [markdown]
# 装上，先不训练，看三件事：分数和原来一样；要训练的参数有多少；第一步的梯度在谁身上。

# %%
torch.manual_seed(lab.SEED)
adapted = with_lora(sft.model(), rank=4)
batch = packed_rows(news).batch(range(8))
assert torch.equal(adapted(batch.input_ids), sft.model()(batch.input_ids))  # B A is 0
counts = {"全部微调": sft.model().num_parameters(), "LoRA": adapted.num_parameters()}
assert counts["全部微调"] == 869_504
assert counts["LoRA"] == 37_376
objectives.next_token_loss(adapted, batch).total.backward()
paths = [part for part in adapted.modules() if isinstance(part, LoRA)]
assert all(path.A.grad.abs().max() == 0 for path in paths)  # B is 0
assert all(path.B.grad.abs().max() > 0 for path in paths)
adapted.zero_grad()
print(len(paths), "matrices;", counts, f"{counts['LoRA'] / counts['全部微调']:.1%}")

# %% [markdown]
# 只训 4.3%。模型越大，这个比例越小：$W$ 的数随宽度的平方长，$A$ 和 $B$ 只随宽度长。给 GPT-3 做 LoRA，要训的参数少到万分之一，显存少到三分之一 {cite:p}`hu2022lora`；省下的主要是梯度和 Adam 的两份状态，它们只替要训的参数存。<!-- by: round(37_376 / 869_504, 3) == 0.043 --><!-- by: @hu2022lora -->
#
# ### 都学会了，也都忘了别的；掺进旧数据，留住一些
#
# 三种办法，同样 80 步：全部微调；LoRA；全部微调，但在新的对话里掺进 1,000 段旧的 SFT 对话。最后这种叫回放。有一点要当心：旧数据里还写着搬家以前的住址，提到这 12 个人的行要先挑掉，不然两边打架。
#
# LoRA 的学习率取五倍：$B$ 从 0 起步，乘在一起的两个小矩阵走得慢。<!-- by: round(0.005 / 0.001) == 5 -->

# %%
old = [r.messages for r in rows if not any(name in m.content for m in r.messages for name in moved)]
tuned = {
    "LoRA": tune(adapted, news, rate=5e-3),
    "全部微调": tune(sft.model(), news, rate=1e-3),
    "全部微调，加回放": tune(sft.model(), news + old[:1_000], rate=1e-3),
}

# %% tags=["nbval-ignore-output"]
result = {"训练之前": marks(sft.model()), **{name: marks(m) for name, m in tuned.items()}}
learned_by = {name: found["搬了家的"] for name, found in result.items()}
left = {name: found["没搬家的"] for name, found in result.items()}
assert learned_by["训练之前"] <= 0.2
assert min(learned_by["LoRA"], learned_by["全部微调"]) >= 0.6
assert max(left["LoRA"], left["全部微调"]) <= left["训练之前"] - 0.15
assert left["全部微调，加回放"] >= left["全部微调"] + 0.05
trains = {"训练之前": "–", "LoRA": f"{counts['LoRA']:,}"}
lines = [
    [name, trains.get(name, f"{counts['全部微调']:,}"), *found.values()]
    for name, found in result.items()
]
show.table(["", "训练的参数", *exam], lines, [None, None, *[show.COLOURS["sft"]] * 5])

# %% tags=["remove-input", "nbval-ignore-output"]
assert left["全部微调，加回放"] >= left["全部微调"] + 0.05
others = [k for k in exam if k not in ("搬了家的", "没搬家的")]
worst = min(result["LoRA"][k] - result["训练之前"][k] for k in others)
show.say(
    f"搬了家的，LoRA 答对 {learned_by['LoRA']:.2f}，全部微调 {learned_by['全部微调']:.2f}，",
    f"加回放 {learned_by['全部微调，加回放']:.2f}。没搬家的，训练之前 {left['训练之前']:.2f}，",
    f"LoRA 之后 {left['LoRA']:.2f}，全部微调之后 {left['全部微调']:.2f}，",
    f"加回放 {left['全部微调，加回放']:.2f}。",
    "不相干的三类题变得不多：忘掉的，是和新学的最像的。" if worst > -0.2 else "",
)

# %% [markdown]
# 新的住址，LoRA 和全部微调都学得会，LoRA 只动了 4.3% 的参数。<!-- by: assert min(learned_by["LoRA"], learned_by["全部微调"]) >= 0.6 --><!-- by: round(37_376 / 869_504, 3) == 0.043 -->可是没搬家的人，有许多也跟着答错了：训练里每一句“住在”都是新的答案，没有一句要它记得别人还在原处。LoRA 冻住了 $W$，也没有挡住。权重虽然没动，说出来的话由 $W+BA$ 决定。<!-- by: assert max(left["LoRA"], left["全部微调"]) <= left["训练之前"] - 0.15 -->掺进旧的对话，没搬家的留住了一些。要留住什么，就得让它出现在训练里；LoRA 省的是参数，不是遗忘。<!-- by: assert left["全部微调，加回放"] >= left["全部微调"] + 0.05 -->功劳也不能全记在旧对话上：步数相同，行里混着旧的，新的每段就少读许多遍，推得本来就轻些。两样各占多少，这里分不开。<!-- by: reasoning -->{numref}`第 %s 章 <sec-identity>` 换名字的时候，还要靠回放。
#
# 在大模型上，{cite:t}`biderman2024lora` 比过编程和数学：LoRA 学得少一些，忘得也少一些。本章的任务太小，步子又大，不足以比这个。<!-- by: @biderman2024lora --><!-- by: reasoning -->
#
# LoRA 还有一样好处：旁路可以拔下来，也可以并进去。拔掉，就是原来的模型，一个数也不差；同一个 $W$ 可以配几条旁路，一条记着搬家，一条换个口气，用哪条插哪条。并进去，$W+BA$ 算成一个矩阵，回答起来和原来一样快：

# %%
apart = adapted(batch.input_ids)
for own, path in zip(sft.model().model.layers, adapted.model.layers, strict=True):
    assert torch.equal(own.self_attn.q_proj.weight, path.self_attn.q_proj.linear.weight)
with torch.no_grad():
    for block in adapted.model.layers:
        for part in (block.self_attn, block.mlp):
            for name, path in list(part.named_children()):
                path.linear.weight += path.B @ path.A  # [m, r] @ [r, n]
                setattr(part, name, path.linear)
assert torch.allclose(adapted(batch.input_ids), apart, atol=1e-2)
assert sum(p.numel() for p in adapted.parameters()) == counts["全部微调"]

# %% [markdown]
# 第一个 `assert` 说冻住的 $W$ 没有动过；后面两个说，并进去之后分数相同（只差舍入），参数的个数也回到了原来。<!-- by: assert torch.allclose(adapted(batch.input_ids), apart, atol=1e-2) -->
#
# ## 弄坏它
#
# ### 忘了教它停
#
# 一个常见的错：处理标签时，把特殊词元统统当作“不学”，连 `<|assistant_end|>` 也设成了 −100。损失也在下降，什么也不报错。我们照这个错法训练 25 步，数据、次序与正常的 SFT 相同，再与正常的第 25 步比。

# %%
end = tokenizer.special_id("<|assistant_end|>")
broken = pretrained.model().train()
muon_and_adamw, losses = optimizers.make_optimizers(broken, sft_config), []
for step in range(25):
    batch = packed.batch(range(8 * step, 8 * step + 8))
    batch.labels[batch.labels == end] = -100  # the mistake
    loss = objectives.next_token_loss(broken, batch)
    mean = loss.total / loss.count
    mean.backward()
    losses.append(mean.item())
    torch.nn.utils.clip_grad_norm_(broken.parameters(), sft_config.clip_norm)
    for optimizer in muon_and_adamw:
        for group in optimizer.param_groups:
            group["lr"] = sft_config.learning_rate * min(1, (step + 1) / 20)
        optimizer.step()
        optimizer.zero_grad()
assert sum(losses[-5:]) < 0.7 * sum(losses[:5])  # it falls

# %%
asked = [q for kind in ("fact", "reading", "shop") for q in scoring.questions(kind, 20)]
prompts = [tokenizer.render_for_completion(to_messages(q.messages)) for q in asked]
answers = {
    name: generate.complete(model.eval(), prompts, 64, stops)
    for name, model in (("学过停", sft.model(25)), ("没学停", broken))
}
mean_length = {name: sum(map(len, found)) / len(found) for name, found in answers.items()}
assert mean_length["没学停"] > 1.4 * mean_length["学过停"]

# %% mystnb={"figure": {"caption": "回答的平均长度：损失里有结束符，或没有。", "name": "fig-sft-end"}, "image": {"alt": "横条图：损失里有结束符的和没有的，60 条回答的平均长度各一条，单位是词元"}} tags=["nbval-ignore-output"]
show.bars(mean_length, "回答的平均长度（词元）", [show.COLOURS["sft"], show.COLOURS["bad"]])

# %% tags=["nbval-ignore-output"]
pairs = list(zip(*answers.values(), strict=True))
shown = [[tokenizer.decode(ids)[:60] for ids in pair] for pair in (pairs[0], pairs[1], pairs[40])]
show.table(list(answers), shown)

# %% [markdown]
# 没学过停的，说完答案不停，往下接一句客套，或者再编一句不相干的话，直到碰巧冒出一个停止的词元，或者写满上限：回答长了一截。<!-- by: assert mean_length["没学停"] > 1.4 * mean_length["学过停"] -->

# %% tags=["remove-input", "nbval-ignore-output"]
first = {
    name: sum(
        q.is_correct(tokenizer.decode(r).split("。")[0]) for q, r in zip(asked, found, strict=True)
    )
    for name, found in answers.items()
}
full = sum(len(reply) == 64 for reply in answers["没学停"])
assert first["没学停"] >= first["学过停"] - 15
show.say(
    f"若只看第一句，学过停的 60 题答对 {first['学过停']} 道，没学过的答对 ",
    f"{first['没学停']} 道：错不在内容，在于说完不停。",
    f"写满 64 个词元的有 {full} 条。" if full else "写满 64 个词元的还没有。",
    "把 25 改成 50 再运行，数一数写满的有多少。",
)

# %% [markdown]
# 两边都只练了 25 步，答对多少不作数，要比的是长短。<!-- by: reasoning -->
#
# 怎样发现：看回答的长度分布，看有多少条写满了 `max_new_tokens`。损失曲线帮不上忙，它也在下降，因为出错的正是没有计入损失的那个词元。<!-- by: assert sum(losses[-5:]) < 0.7 * sum(losses[:5]) -->
#
# ## 收尾

# %% tags=["nbval-ignore-output"]
show.spine(replies | {"sft": lab.showcase(sft.model())})

# %% [markdown]
# 会答了，也会停了。它怎样称呼自己，这个名字从哪里来，{numref}`第 %s 章 <sec-identity>` 再说。它说话还很生硬，{numref}`第 %s 章 <sec-dpo>` 教它礼貌。<!-- by: assert scores_after["polite"] < 0.3 -->
#
# 微调也丢了东西。不经对话，直接让它接着写，数着算（`chain`）就生疏了：同一份配方训练四遍（两个种子，各在两种处理器指令上算），预训练之后最低的一遍也有 0.78，SFT 之后四遍都是 0。下一章的总表里有这一行。<!-- by: book/results/seeds.json -->
#
# ### 小结
#
# - SFT 与预训练用同一个损失函数；不同的只是标签：掩码为 0 的地方是 −100。
# - 对话与文本的差别是几个特殊词元，预训练没见过它们。没问过的事实，微调之前就在模型里，微调主要教会它在对话里说出来；别的本事微调也教了，要一类一类地量。<!-- by: assert gained["fact"] <= 8 -->
# - 学的是助手的文字**和结束符**；用户的话只读不学。
# - 减法数着算比直接说准，因为更多的词元就是更多的计算；直接做减法，这个模型没有学好。<!-- by: assert correct["减法，数着算"] >= correct["减法，直接说"] + 4 -->
# - 单独问都会，不等于会聊天：前文要练过才分得清，练过也只会那么长，超出 `window` 的就不看了。<!-- by: assert later["练过", "记得整次聊天"] <= later["练过", "只往回看一段"] - 0.15 -->
# - LoRA 冻住 $W$，只训一条窄的旁路 $BA$，训得少，拔得下，也并得进；但忘不忘，要看训练里有没有旧数据。<!-- by: assert max(left["LoRA"], left["全部微调"]) <= left["训练之前"] - 0.15 -->
# - 成绩要用训练没有问过的题来量；60 道题的误差最多约 ±0.13。<!-- by: round(1.96 * math.sqrt(0.25 / 60), 2) == 0.13 -->
#
# ### 练习
#
# :::{exercise} ★☆☆
# :label: ex-sft-1
# 算一算：一段对话的回答有 3 个词元（含结束符），模型给它们的概率是 1/2、1/4、1/8。这段对话的损失是多少？和另一段只有 1 个词元、概率 1/2 的回答放进同一批，整批的平均损失是多少？“先各自平均再平均”又是多少？
# :::
#
# :::{solution} ex-sft-1
# :class: dropdown
# 三个损失是 $\ln 2$、$2\ln 2$、$3\ln 2$，平均 $2\ln 2=1.386$。整批是 $(1+2+3+1)\ln 2/4=1.75\ln 2=1.213$。先各自平均再平均是 $(2+1)\ln 2/2=1.5\ln 2=1.040$：短回答的那一个词元，分量等于长回答的三个。`next_token_loss` 返回和与个数，就是为了避开后一种算法。
# :::
#
# :::{exercise} ★★☆
# :label: ex-sft-2
# 写一段代码：只学**最后一轮**的回答，前面各轮只读。写一个函数，输入消息，返回词元和这样的掩码，并在本章那段两轮对话上检验。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# `tokenizer.render_conversation` 给出词元和掩码。哪里是最后一轮？找编号等于 `<|assistant_start|>` 的最后一个位置。
# :::
#
# :::{solution-start} ex-sft-2
# :class: dropdown
# :::
#
# 最后一个 `<|assistant_start|>` 之前的掩码全部清零。


# %%
def last_answer_only(messages):
    ids, mask = tokenizer.render_conversation(messages)
    start = tokenizer.special_id("<|assistant_start|>")
    last = max(i for i, token in enumerate(ids) if token == start)
    return ids, [m if i > last else 0 for i, m in enumerate(mask)]


ids, mask = last_answer_only(two_turns.messages)
learned = tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m])
assert learned == two_turns.messages[-1].content + "<|assistant_end|>"
learned

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} ★☆☆
# :label: ex-sft-3
# 弄坏它：如果掩码全部是 1，连用户的话也学，模型会学到什么？用 {numref}`tab-sft-hand` 的数说明损失会怎样变，再想想怎样看出这个错。
# :::
#
# :::{solution} ex-sft-3
# :class: dropdown
# 损失从 0.542 变成 0.824，因为加进了难猜的问题；训练的力气有一半多（1.386 / 2.471 = 56%）花在猜用户会问什么上。模型仍能回答，但也学会了在 `<|user_start|>` 后面提问，如果它在回答之后没有停住，就会自己扮演用户接着问。看得出的迹象：损失偏高，而且降不下去，因为问什么本来就有随机性；着色的掩码图里，用户的话也有了颜色。所以训练之前先看一眼 `show.loss_mask`。<!-- by: round(1.386 / 2.471, 2) == 0.56 --><!-- by: round(2.471 / 3, 3) == 0.824 --><!-- by: abs((0.341 + 0.744) / 2 - 0.542) < 0.001 -->
# :::
#
# :::{exercise} ★☆☆
# :label: ex-sft-4
# 想一想：问它“25加3等于多少？请数着算。”会怎样？为什么？先猜，再看解答里的代码。
# :::
#
# :::{solution-start} ex-sft-4
# :class: dropdown
# :::
#
# 这个世界的数不超过 20。它没有数过 25 以后的路，连“25”这个数也没在文本里读过。<!-- by: assert not any("25" in text for text in contents) -->

# %%
turns = (("user", "25加3等于多少？请数着算。"),)
beyond = lab.ask(after.model, turns[0][1])
assert not scoring.Question("add", turns, "28").is_correct(beyond)
assert not any("25" in text for text in contents)
assert not any("不知道" in m.content for row in rows for m in row.messages if m.role == "assistant")

# %% tags=["remove-input", "nbval-ignore-output"]
assert not scoring.Question("add", turns, "28").is_correct(beyond)
show.say(f"它说{show.quote(beyond)}，错了。")

# %% [markdown]
# 它也没有学过承认不知道：训练数据里没有一段对话这样说过。要它在不知道时承认，就得有这样的训练数据。<!-- by: assert not any("不知道" in m.content -->
#
# :::{solution-end}
# :::
#
# :::{exercise} ★☆☆
# :label: ex-sft-lora
# 算一算：一个大模型里，$W$ 是 4096 × 4096，$r=16$。旁路有多少个数，是 $W$ 的百分之几？Adam 替每个要训的参数另存两个数，训练这一个矩阵，全部微调和 LoRA 各要存多少个数（权重、梯度、Adam 的状态都算上）？<!-- by: 4096 * 4096 == 16_777_216 -->
# :::
#
# :::{solution} ex-sft-lora
# :class: dropdown
# 旁路是 $16\times(4096+4096)=131{,}072$ 个数，$W$ 有 $16{,}777{,}216$ 个，占 0.78%。全部微调要存权重、梯度和两份状态，$4\times16{,}777{,}216=67{,}108{,}864$ 个；LoRA 要存冻住的 $W$，再加旁路的四份，$16{,}777{,}216+4\times131{,}072=17{,}301{,}504$ 个，只有前者的 26%。省不掉的是 $W$ 自己。<!-- by: 16 * (4096 + 4096) == 131_072 --><!-- by: 4096 * 4096 == 16_777_216 --><!-- by: round(131_072 / 16_777_216, 4) == 0.0078 --><!-- by: 4 * 16_777_216 == 67_108_864 --><!-- by: 16_777_216 + 4 * 131_072 == 17_301_504 --><!-- by: round(17_301_504 / 67_108_864, 2) == 0.26 -->
# :::
#
# :::{exercise} ★★☆ 动手：剪掉尾巴
# :label: ex-sft-nucleus
# 抽一个词元之前，要先把分数变成抽签用的概率。写出 `nucleus`：`logits` 是一个位置的分数 `[V]`，返回概率 `[V]`。次序是：除以温度，softmax，从大到小累加，只留下加起来刚到 `top_p` 的前几个（使总和够到 `top_p` 的那一个也留下），其余变成 0，留下的再除以它们的和。温度是 0 时，就是贪心解码：一个是 1，其余是 0。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# `sort(descending=True)` 同时给出排好的值和原来的下标。一个词元留不留，看排在它**前面**的那些加起来够不够 `top_p`：累加减去自己就是。最后用下标把概率放回原处。
# :::


# %%
def nucleus(logits, temperature, top_p):
    return ...


tasks.check("7.1", nucleus)

# %% [markdown]
# :::{solution} ex-sft-nucleus
# :class: dropdown
# ```python
# def nucleus(logits, temperature, top_p):
#     if temperature == 0:
#         return F.one_hot(logits.argmax(), len(logits)).float()
#     p, places = (logits / temperature).softmax(0).sort(descending=True)
#     p[p.cumsum(0) - p >= top_p] = 0
#     out = torch.zeros_like(p)
#     out[places] = p / p.sum()
#     return out
# ```
# 看前面的和，而不是算上自己的和，排在头一个的就总会留下：它的前面是 0。温度要先除：它改变概率，谁是尾巴也跟着变。
# :::
#
# :::{exercise} ★★☆ 动手：查一段对话的标签
# :label: ex-sft-faults
# 训练之前，最便宜的检查是看标签。写出 `faults`：`ids` 是一段对话的 $n$ 个词元，`labels` 有 $n-1$ 个，第 `t` 个是读到 `ids[t]` 时要预测的词元，或者 −100；`special` 是特殊词元的名字到编号的字典。该学的是助手的文字和 `<|assistant_end|>`，别的都不学。返回一个字典，四种错各有几处：
#
# - `"错位"`：标签不是 −100，也不是下一个词元；
# - `"多学"`：下一个词元不该学，却有标签；
# - `"漏学"`：下一个词元是助手的文字，标签却是 −100；
# - `"没学停"`：下一个词元是 `<|assistant_end|>`，标签却是 −100。
#
# 一个位置可以既错位又多学。四个名字都要在字典里，没有错就是 0。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 从左往右走，记住现在是不是轮到助手：读到 `<|assistant_start|>` 起是，读到 `<|assistant_end|>` 起不是。下一个词元该不该学，只看这一个变量。
# :::


# %%
def faults(ids, labels, special):
    return ...


tasks.check("7.2", faults)

# %% [markdown]
# :::{solution} ex-sft-faults
# :class: dropdown
# ```python
# def faults(ids, labels, special):
#     start, end = special["<|assistant_start|>"], special["<|assistant_end|>"]
#     found = {"错位": 0, "多学": 0, "漏学": 0, "没学停": 0}
#     answering = False
#     for here, following, label in zip(ids, ids[1:], labels, strict=False):
#         if here in (start, end):
#             answering = here == start
#         if label not in (-100, following):
#             found["错位"] += 1
#         if answering and label == -100:
#             found["没学停" if following == end else "漏学"] += 1
#         elif not answering and label != -100:
#             found["多学"] += 1
#     return found
# ```
# 四个数合在一起，就是一份诊断：只有“没学停”，是“弄坏它”里的那个错；只有“多学”，是 {numref}`ex-sft-3` 的错；“错位”多，先查标签有没有错开一位。真的数据也可以查：`special` 用 `tokenizer.special_tokens`，标签用 `packing.collate` 做出来的那一行。<!-- by: reasoning -->
# :::
#
# ### 延伸阅读
#
# - {cite:t}`ouyang2022instructgpt`：三步流程（SFT、奖励模型、强化学习）的出处，附录里有数据怎样收集。
# - {cite:t}`zhou2023lima`：1,000 段对话的微调实验；读它，想清楚质量和数量各值多少。
# - {cite:t}`hu2022lora`：LoRA 的原文；第 7 节问秩要多大，读它的图。
# - {cite:t}`wei2022cot`：思维链；注意它说的是足够大的模型，我们的小模型靠的是训练数据里就有步骤。
# - {cite:t}`holtzman2020topp`：为什么贪心解码会重复，top-p 的出处。
