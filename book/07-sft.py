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
# - **你将学会**：对话怎样变成词元和损失掩码；为什么微调和预训练用的是同一个损失函数；怎样公平地测量微调学到了什么、没学到什么。
# - **需要时间**：阅读 40 分钟。有缓存时，整页运行约 25 秒；没有缓存时，微调 800 步在 2 个 CPU 核上约 100 秒，100 步的对照约十几秒。
# - **需要内存**：2 GB。
# - **用到的模块**：`minillm.tokenizer`、`minillm.tensors`、`minillm.objectives`、`minillm.generate`。
# :::

# %%
import math

import torch
import torch.nn.functional as F

from minillm import checkpoint, generate, lab, objectives, show, tensors, trainer, world
from minillm.checkpoint import Metadata, load_checkpoint, save_checkpoint
from minillm.config import MODELS, TRAINING, UserError
from minillm.evaluate import to_messages, wilson_interval
from minillm.rows import Message
from minillm.sources import read
from minillm.tokenizer import RustBPETokenizer
from minillm.world_questions import SUMS

lab.start()

# %% [markdown]
# ## 开场
#
# {numref}`第 %s 章 <sec-pretrain>` 训练出的模型读完了整个微世界。现在像聊天一样问它那三句话：

# %% tags=["nbval-ignore-output"]
pretrained = lab.ladder("pretrain")
replies = {"fresh": lab.showcase(lab.fresh()), "pretrain": lab.showcase(pretrained.model())}
show.spine(replies)

# %% [markdown]
# 有的答错，有的答非所问；就算带出一句对的，也夹在不相干的话里。是它不知道张静住在哪里吗？换一种问法试试。预训练的文本里有“问：……换行，答：……”这样的段落，我们就写一个没有写完的段落，请它接下去。题目是留出集里的 60 道，训练从来没有问过。


# %%
def ask_as_text(evaluator, kind, items=60):
    """Held-out questions as a text to go on with, in place of a conversation."""
    questions = world.questions(kind, items)
    prompts = [f"问：{q.messages[-1][1]}\n答：" for q in questions]
    tok = evaluator.tokenizer
    said = evaluator.answers([[tok.bos_id, *tok.encode(p)] for p in prompts])
    first_lines = [reply.split("\n")[0] for reply in said]
    right = [q.is_correct(r) for q, r in zip(questions, first_lines, strict=True)]
    return sum(right) / len(right)


tokenizer = lab.tokenizer()
before = pretrained.evaluator()
as_text = ask_as_text(before, "fact")
as_chat = pretrained.scores()["accuracy"]["fact"]
assert as_text >= 0.8
assert as_chat <= as_text - 0.2

# %% mystnb={"figure": {"caption": "同一个预训练模型，同样 60 道没训练过的题，两种问法。", "name": "fig-sft-forms"}, "image": {"alt": "横条图：写成文本时答对率接近 1，写成对话时接近 0"}}
bars = {"as a text": as_text, "as a conversation": as_chat}
show.bars(bars, "accuracy (fact, 60 held-out questions)", show.COLOURS["pretrain"])

# %% [markdown]
# 知识已经在模型里了。写成文本，答对率约 0.98；写成对话，几乎一题不对（换一次运行，也可能碰对一两成到一半，总之靠不住）。差别只在格式：对话里每句话前后有**特殊词元**（special token），如 `<|user_start|>`，它们在预训练的文本里一次也没有出现过。模型怎样看待从没见过的词元？看看它们的嵌入。


# %%
def similarity(model, one, other):
    """Cosine of the angle between two special tokens' embeddings, each ``[hidden_size]``."""
    table = model.model.embed_tokens.weight.detach()
    ids = [tokenizer.special_id(f"<|{name}|>") for name in (one, other)]
    return float(F.cosine_similarity(table[ids[0]], table[ids[1]], dim=0))


user_or_assistant = ("user_start", "assistant_start")
assert abs(similarity(lab.fresh(), *user_or_assistant)) < 0.3  # random directions
assert similarity(pretrained.model(), *user_or_assistant) > 0.99  # one and the same direction

# %% [markdown]
# 随机权重里，这两个嵌入几乎垂直。预训练之后，它们指向同一个方向：每一步都把“没有出现的词元”的分数往下压，这 8 个词元挨的是同样的压，最后挤在一起。对模型来说，“轮到用户说”和“轮到助手说”是同一个符号。
#
# **监督微调**（supervised fine-tuning，SFT）要补上的就是这一课：用一批写好的对话，教会模型这套格式，以及轮到自己时该怎样说话、说到哪里停。
#
# ## 手算
#
# 对话里有问有答。我们只想让模型学会**答**，那么损失怎样算？
#
# 取一个最小的例子，词表只有 4 个词元：0“颜色”、1“？”、2“红”、3“完”。一个两个词元的问题，一个两个词元的回答（“完”是结束符，也算回答）：
#
# ```text
# 词元    颜色   ？    红    完
# 掩码      0    0     1     1
# ```
#
# **损失掩码**（loss mask）是 1 的词元要学着说，是 0 的只读。模型读到第 $t$ 个词元时预测第 $t+1$ 个，所以四个词元有三次预测。掩码为 0 的那一次，标签写成 −100，损失不计：
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
# 同样的数由包里的 `next_token_loss` 来算。给它一个假模型，永远给出上面的分数：

# %%
scores = torch.tensor([[[0.0, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]])  # [B=1, T=3, V=4]


def mean_loss(labels):
    position = torch.arange(3)[None]  # [B, T]
    count = sum(label != -100 for label in labels)
    batch = tensors.Batch(
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
# 预训练和 SFT 共用这一个函数，一行也不差。区别全在标签里：预训练处处有标签，SFT 的掩码已经把不学的标签换成了 −100。模型、优化器、训练循环也都不变。
#
# ### 对话怎样变成词元

# %%
show.source(RustBPETokenizer._render)

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
# 去掉特殊词元，对话还剩什么？就是一段普通的文本。事实上微调的每一行，预训练都以文本的样子读过（{numref}`第 %s 章 <sec-data>`）：两者的词元，除了特殊词元和换行，完全一样。

# %%
question, answer = rows[0].messages
chat_ids, _ = tokenizer.render_conversation(rows[0].messages)
text_ids = tokenizer.encode(question.content)
special = set(tokenizer.special_tokens.values())
assert [i for i in chat_ids if i not in special] == text_ids + tokenizer.encode(answer.content)
print(len(chat_ids), "tokens, of them special:", sum(i in special for i in chat_ids))

# %% [markdown]
# 所以这一章有一个干净的结论可下：凡是微调之后变好的，功劳都在“格式和怎样使用知识”，不在新的知识。
#
# ### 标签错开一位
#
# `collate` 把一段对话放进批次：位置 $t$ 的标签是第 $t+1$ 个词元，掩码也跟着标签走。

# %%
small = tensors.TokenDataset(
    ids=torch.tensor(ids).numpy(),
    mask=torch.tensor(mask).numpy(),
    offsets=torch.tensor([0, len(ids)]).numpy(),
    unit=1,
)
batch = tensors.collate(small, [[0]], len(ids) - 1)  # all [B=1, T]
assert batch.labels.shape == (1, len(ids) - 1)
assert int((batch.labels != -100).sum()) == sum(mask)
first = mask.index(1)  # the first token of the first answer
names = [tokenizer.decode([i]) for i in ids]
[
    (t, names[t], names[t + 1] if batch.labels[0, t] >= 0 else "-100")
    for t in range(first - 3, first + 4)
]

# %% [markdown]
# 读到 `<|assistant_start|>` 时，标签是回答的第一个词元：掩码为 0 的词元，下一个位置照样可以有标签。
#
# ### 太长的对话
#
# 一段对话比 `--max_seq_len` 长，怎么办？

# %%
show.source(tensors.fit)

# %% [markdown]
# 预训练的长文本可以切成几段，一个字也不丢。对话不行：后半段没有问题，只有半个回答，学了没有好处。所以 SFT 从尾部截断；截到一个要学的词元都不剩，就整段丢掉。

# %%
sequence = tokenizer.render_conversation(rows[0].messages)
whole, question = len(sequence[0]), sequence[1].index(1)  # tokens: all, and those before the answer
limits = {"ample": 128, "too short by 3": whole - 4, "question only": question - 1}
kept = {name: tensors.fit("sft", [sequence], max_seq_len=n) for name, n in limits.items()}
assert sum(kept["too short by 3"][0][1]) == sum(sequence[1]) - 3
assert not kept["question only"]  # dropped
{name: [(limits[name], len(i), sum(m)) for i, m in found] for name, found in kept.items()}

# %% [markdown]
# 三个数是上限、留下的词元、其中要学的。上限 128，全留；上限比全长少 4，留下的比上限多一个（最后一个位置的标签），所以只少了回答末尾的三个词元；上限只容得下问题，整段丢掉。训练前会打印一行警告，说有多少行被截断、多少行被丢弃。我们的微调数据里没有这样的行：

# %%
sft_config = TRAINING["tiny"]["sft"]
sft = lab.ladder("sft")
data = tensors.load_dataset(
    lab.data() / "sft_chinese.jsonl", "sft", tokenizer, 128, sft.folder / "cache"
)
print(f"{data.rows:,} rows, {data.cut} cut, {data.dropped} dropped")
print(f"{len(data.ids):,} tokens, {data.mask.mean():.0%} of them to be learned")
packed = tensors.PackedRows(data, sft_config.max_seq_len, epochs=1, seed=sft_config.seed)
print(f"packed into {len(packed):,} rows of {packed.row_length} tokens")

# %% [markdown]
# 80 多万个词元里，要学的不到一半。打包时一行里装好几段对话，`document_ids` 保证谁也看不到别人（{numref}`第 %s 章 <sec-tensors>`）。
#
# ### 从上一阶段的权重出发

# %%
show.source(checkpoint.starting_model, checkpoint.check_matches)

# %% [markdown]
# 预训练从随机权重出发；之后的阶段从上一阶段的权重出发，没有就报错。`check_matches` 挡住两种看不见的错：形状不同，或者**分词器不同**。后一种最险，程序照跑，但 300 号词元换了意思，模型读到的全是乱码。

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
# 回答时，`render_for_completion` 把对话写到 `<|assistant_start|>` 为止，模型接着写，遇到 `<|assistant_end|>` 就停（`<|bos|>` 也停，它意味着下一篇开始了）。每一步只把新的一个词元送进模型，前面各层的键和值存在**键值缓存**（KV cache）里，所以第 $n$ 个词元不必把前 $n-1$ 个重算一遍。用不用缓存，结果一样：

# %%
prompt = tokenizer.render_for_completion([Message("user", world.SHOWCASE[0])])
stops = [tokenizer.special_id("<|assistant_end|>"), tokenizer.bos_id]
with_cache, without = (
    [token for (token,) in generate.generate(sft.model(), [prompt], 32, stops, use_cache=use)]
    for use in (True, False)
)
assert with_cache == without

# %% [markdown]
# ## 实验
#
# ### 800 步
#
# 每步 8 行，800 步读 6,400 行，正好一遍（只差最后十几行）。学习率的峰值和预训练相同，走过一成之后就一路降到 0。

# %% mystnb={"figure": {"caption": "SFT 的损失（按 {eq}`eq-sft-loss`，只算回答）和学习率。", "name": "fig-sft-curves"}, "image": {"alt": "左：损失先升到 3.5 以上，几十步里急降到 0.5 以下，之后缓慢下降；右：学习率升到 0.006，停留片刻后线性降到 0"}}
show.curves({"sft": sft.log})

# %% [markdown]
# 损失先往上冲了一下，随后几十步里掉到 0.5 以下，那是模型在认识特殊词元。它是“只算回答”的损失，不能和预训练的损失比大小。
#
# ### 微调前后，各类题目的成绩
#
# 每类 60 道留出的题，训练从来没有问过。先写下我们要求的下限，再看数。

# %%
scores_before, scores_after = pretrained.scores(), sft.scores()
for kind, floor in lab.FLOORS.items():
    assert scores_after["accuracy"][kind] >= floor, kind
    assert scores_before["accuracy"][kind] < floor - 0.25, kind
lab.FLOORS

# %% tags=["nbval-ignore-output"]
lines = []
for kind, rate in scores_after["accuracy"].items():
    low, high = wilson_interval(rate * 60, 60)
    lines.append([kind, scores_before["accuracy"][kind], rate, f"{low:.2f} … {high:.2f}"])
colours = [None, show.COLOURS["pretrain"], show.COLOURS["sft"], None]
show.table(["60 held-out questions", "预训练", "SFT", "95% 置信区间"], lines, colours)

# %% [markdown]
# 60 道题的分数有多可靠？**置信区间**（confidence interval）按 {cite:t}`wilson1927` 计算：60 道答对 58 道，真实的答对率多半在 0.89 到 0.99 之间。两个分数的区间重叠得多，就不能说谁更好。
#
# 各类题目在考什么：`fact` 是没问过的（人，属性）；`phrasing` 换了训练里没有的问法；`reading` 先读一小段故事；`multi_turn` 第二问用“她”指前一问的人；`choice` 是四选一；`calendar` 数日子；`add`、`sub` 直接报得数；`chain` 数着算；`shop` 把两件东西的价钱相加。
#
# `fact` 考的是泛化吗？是，但要说准。这个人的这项事实在预训练的文本里陈述过；没有出现过的是对它的提问。模型学会了“怎样从读过的话里取出答案”，并把它用到没问过的事实上。
#
# ### 看看回答本身
#
# 分数之外，总要读几条回答。每类各取一条对的和一条错的（全对的类没有错的）：

# %% tags=["nbval-ignore-output"]
after = sft.evaluator()
lines = []
for kind in ("fact", "phrasing", "reading", "calendar", "chain", "add", "sub"):
    asked = world.questions(kind, 60)
    said = after.chat([to_messages(q.messages) for q in asked])
    marked = [(q.is_correct(r), q, r) for q, r in zip(asked, said, strict=True)]
    for verdict in (True, False):
        shown = [m for m in marked if m[0] is verdict][:1]
        lines += [["✓" if ok else "✗", q.messages[-1][1], r] for ok, q, r in shown]
show.table(["", "问题", "回答"], lines)

# %% [markdown]
# 错得有规律：张冠李戴（报错了宠物，记错了颜色），数数时多走了一步，直接报得数时只差一两个。没有一条是胡言乱语：格式全学会了，错在内容。
#
# ### 数着算，还是直接说
#
# `chain` 高，`add` 和 `sub` 低，可几类题里的数不一样。要公平，就用**同一批**算式：24 对留出的数，各出一道加法、一道减法，每道问两遍，一遍直接问，一遍加上“请数着算。”


# %%
def ask_sums(sign, request):
    """How many of the 24 held-out sums are right, and the mean length of an answer in tokens."""
    asked = []
    for x, y in SUMS.held_out:
        core = f"{x}加{y}" if sign > 0 else f"{x + y}减{y}"
        turns = (("user", f"{core}等于多少？{request}"),)
        asked.append(world.Question("add", turns, str(x + y if sign > 0 else x)))
    said = after.chat([to_messages(q.messages) for q in asked])
    correct = sum(q.is_correct(r) for q, r in zip(asked, said, strict=True))
    return correct, sum(len(tokenizer.encode(r)) for r in said) / len(said)


ways = {"directly": "", "step by step": "请数着算。"}
sums = {
    f"{name}, {way}": ask_sums(sign, request)
    for name, sign in (("add", 1), ("subtract", -1))
    for way, request in ways.items()
}
assert len(SUMS.held_out) == 24
assert sums["add, step by step"][0] >= 16
assert sums["subtract, step by step"][0] >= sums["subtract, directly"][0] + 8
assert sums["add, step by step"][1] > 3 * sums["add, directly"][1]

# %% mystnb={"figure": {"caption": "同样 24 对没训练过的数，两种答法各答对多少道。", "name": "fig-sft-chain"}, "image": {"alt": "横条图：加法直接答对约 16 道，数着算约 20 道；减法直接只答对约 7 道，数着算几乎全对"}}
colours = [show.GREY, show.COLOURS["sft"]] * 2
show.bars({k: v[0] for k, v in sums.items()}, "correct answers of 24", colours)

# %% [markdown]
# 我们这次运行里，加法直接答对 16 道，数着算 20 道；减法直接只对 7 道，数着算 23 道。减法差这么多，不会是碰巧；加法只差几道，24 道题还下不了结论。
#
# 为什么数着算有用？模型每吐一个词元，只有 4 层的计算量。直接说得数，8 加 4 必须在一次前向里算完，多半要靠记住见过的算式。数着算，每个词元只要回答“11 的后面是 12”，这一步见过千百遍；中间结果写在纸上，后面的词元可以回头看。这就是**思维链**（chain of thought，{cite:t}`wei2022cot`）：用更多的词元换更多的计算，加法的回答平均是直接说的三倍以上长。
#
# 老实说明一点：留出的 8 加 4 没有被问过，但 `8、9、10` 这几步在更长的数数里出现过。这里泛化的是“把见过的步子拼成没见过的路”，不是从无到有地发明加法。出了这个世界的范围，例如 25 加 3，它照样会答错（{numref}`ex-sft-4`）。
#
# 减法直接回答对不到三成，训练 800 步也没有学好。是没学，还是没有学会举一反三？在训练**问过**的算式上再考一次：


# %%
def accuracy_on(kind, held_out):
    asked = world.questions(kind, 40, held_out=held_out)
    said = after.chat([to_messages(q.messages) for q in asked])
    return sum(q.is_correct(r) for q, r in zip(asked, said, strict=True)) / len(asked)


splits = {
    f"{kind}, {name}": accuracy_on(kind, held_out)
    for kind in ("add", "sub", "chain")
    for name, held_out in (("asked in training", False), ("held out", True))
}
assert splits["sub, held out"] <= splits["sub, asked in training"] - 0.2
assert splits["chain, held out"] >= 0.7

# %% mystnb={"figure": {"caption": "训练问过的算式与留出的算式，各 40 道。", "name": "fig-sft-splits"}, "image": {"alt": "横条图：add、sub、chain 三类，训练问过的和留出的各一条；add 从约 0.98 掉到约 0.70，sub 从约 0.68 掉到约 0.18，chain 一条是 1，一条约 0.85"}}
show.bars(splits, "accuracy (40 questions each)", [show.GREY, show.COLOURS["sft"]] * 3)

# %% [markdown]
# 问过的算式，直接回答时加法答对约 0.98，减法约 0.68；没问过的，掉到约 0.70 和 0.18。直接报得数主要靠背：问过的背得出，没问过的，加法还能对一半多，减法多半只能猜一个相近的数。`chain` 两边都高：它学到的是方法。区分“记住”和“学会”，只有留出集做得到。
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
assert learned["chain"][2] >= 0.5  # after 100

# %% mystnb={"figure": {"caption": "微调途中的答对率（每点 30 道题，置信区间约 ±0.15）。", "name": "fig-sft-when"}, "image": {"alt": "三条折线，横轴是 25 到 800 步：fact 从 0.6 升到 0.9；chain 从 0.3 升到 0.8，50 步时已有 0.77；add 起伏很大，50 步时到过 0.6，又跌到 0.3 以下，最后约 0.67"}}
curves = {kind: (sft.steps, rates) for kind, rates in learned.items()}
show.lines(curves, "step", "accuracy", marker="o")

# %% [markdown]
# 25 步（200 行数据）时，微调前几乎答不出的 `fact` 已对了一半多（换一次运行，也可能只有三成：学习率刚升到峰值，模型还在适应新的格式）；`chain` 到 50 步就有七成多。知识是现成的，缺的主要是格式，学得很快。再往后涨得慢，要到学习率降下来，`fact` 才到 0.9 左右。`add` 起伏最大，最后也只有三分之二左右：它不只是格式问题，还要背更多的算式。中间的停顿和起伏，多半与高学习率有关，每点只有 30 道题也是一个原因。
#
# ### 没有预训练，直接微调
#
# {cite:t}`zhou2023lima` 只用 1,000 段精选的对话微调一个大模型，就得到了不错的助手。他们的解释是：知识和本事几乎全在预训练里，微调只教会模型用哪种格式说出来。我们来做反面的实验：从随机权重直接微调 100 步，和从预训练出发的第 100 步比。数据、次序都相同；学习率那边，随机权重的一方还占了便宜，它在 100 步里完整地降到 0。

# %%
model = lab.fresh()
random_start = lab.Run("fresh", "pretrain", lab.cache_dir() / "fresh")
about = Metadata("pretrain", 0, model.config, tokenizer.fingerprint, "", {})
save_checkpoint(random_start.weights, model, about)
scratch = lab.variant("sft-from-scratch", "sft", start=random_start, max_steps=100)
comparison = {}
for kind in ("fact", "chain"):
    comparison[f"{kind}, pretrained"] = sft.evaluator(100).question_accuracy(kind, 60)
    comparison[f"{kind}, from random weights"] = scratch.evaluator().question_accuracy(kind, 60)
    assert comparison[f"{kind}, pretrained"] - comparison[f"{kind}, from random weights"] >= 0.3

# %% mystnb={"figure": {"caption": "同样 100 步 SFT，从预训练的权重出发，或从随机权重出发。", "name": "fig-sft-scratch"}, "image": {"alt": "横条图：预训练过的模型 fact 约 0.5、chain 约 0.7，随机权重出发的都接近 0"}}
colours = [show.COLOURS["sft"], show.GREY] * 2
show.bars(comparison, "accuracy after 100 steps (60 questions)", colours)

# %% [markdown]
# 随机权重出发的模型，100 步之后也不是什么都没学到。问它张静住在哪里：

# %% tags=["nbval-ignore-output"]
lab.ask(scratch.model(), world.SHOWCASE[0])

# %% [markdown]
# 它学会了句式，人和事却对不上。100 步足够学格式，内容要靠预训练。
#
# ### 解码：温度和 top-p
#
# 到此为止都是**贪心解码**（greedy decoding）：每步取分数最高的词元。也可以按概率抽一个。**温度**（temperature）$\tau$ 决定抽得多大胆：分数先除以 $\tau$，再做 softmax；$\tau<1$ 更集中，$\tau>1$ 更分散。top-p 再剪掉尾巴：只在概率加起来刚到 $p$ 的那几个最好的词元里抽 {cite:p}`holtzman2020topp`。

# %%
show.source(generate.choose)

# %%
asked = world.questions("fact", 60)
prompts = [tokenizer.render_for_completion(to_messages(q.messages)) for q in asked]


def sampled(temperature, top_p=1.0):
    sampling = generate.Sampling(temperature=temperature, top_p=top_p)
    said = generate.complete(after.model, prompts, 32, stops, sampling)
    right = [q.is_correct(tokenizer.decode(r)) for q, r in zip(asked, said, strict=True)]
    return sum(right) / len(right)


settings = {f"temperature {t}": sampled(t) for t in (0, 0.5, 1.0, 1.5)}
settings["temperature 1.5, top_p 0.9"] = sampled(1.5, 0.9)
assert settings["temperature 0"] >= 0.85
assert settings["temperature 1.5"] < settings["temperature 0"] - 0.2

# %% mystnb={"figure": {"caption": "同一个模型，不同的解码方式（fact，60 道题）。", "name": "fig-sft-decoding"}, "image": {"alt": "横条图：温度 0 和 0.5 时答对率在 0.9 以上，温度 1 约 0.78，温度 1.5 约 0.43，加 top-p 0.9 约 0.50"}}
show.bars(settings, "accuracy (fact, 60 questions)", show.COLOURS["sft"])

# %% [markdown]
# 有标准答案的题，抽样没有好处：温度 0.5 和贪心解码不相上下，温度 1 已经差了一截，温度 1.5 时对不到一半。top-p 救回几题，因为错的多半在尾巴里。写故事则相反，贪心解码每次都是同一个故事，那时才需要温度。
#
# ## 弄坏它
#
# ### 忘了教它停
#
# 一个常见的错：处理标签时，把特殊词元统统当作“不学”，连 `<|assistant_end|>` 也设成了 −100。损失照样下降，什么也不报错。我们照这个错法训练 25 步，数据、次序与正常的 SFT 相同，再与正常的第 25 步比。

# %%
end = tokenizer.special_id("<|assistant_end|>")
broken = pretrained.model().train()
optimizers = trainer.make_optimizers(broken, sft_config)
for step in range(25):
    batch = packed.batch(range(8 * step, 8 * step + 8))
    batch.labels[batch.labels == end] = -100  # the mistake
    loss = objectives.next_token_loss(broken, batch)
    (loss.total / loss.count).backward()
    torch.nn.utils.clip_grad_norm_(broken.parameters(), sft_config.clip_norm)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = sft_config.learning_rate * min(1, (step + 1) / 17)
        optimizer.step()
        optimizer.zero_grad()

# %%
kinds = ("fact", "reading", "shop")
prompts = [
    tokenizer.render_for_completion(to_messages(q.messages))
    for kind in kinds
    for q in world.questions(kind, 20)
]
answers = {
    name: generate.complete(model.eval(), prompts, 64, stops)
    for name, model in (("end learned", sft.model(25)), ("end not learned", broken))
}
mean_length = {name: sum(map(len, found)) / len(found) for name, found in answers.items()}
assert mean_length["end not learned"] > 1.4 * mean_length["end learned"]

# %% mystnb={"figure": {"caption": "回答的平均长度：学过结束符与没学过。", "name": "fig-sft-end"}, "image": {"alt": "横条图：学过结束符的回答平均约 8 个词元，没学过的约 15 个"}}
show.bars(
    mean_length, "mean length of an answer (tokens)", [show.COLOURS["sft"], show.COLOURS["bad"]]
)

# %% tags=["nbval-ignore-output"]
pairs = list(zip(*answers.values(), strict=True))
shown = [[tokenizer.decode(ids)[:60] for ids in pair] for pair in (pairs[0], pairs[1], pairs[40])]
show.table(list(answers), shown)

# %% [markdown]
# 三条的答案都和左边一样，可它说完不停，接上一句客套，有时再编一句不相干的话，直到碰巧冒出 `<|bos|>` 或者写满上限。训练越久越严重；把 25 改成 50 再运行，就会看到有些回答一直写到上限。
#
# 怎样发现：看回答的长度分布，看有多少条写满了 `max_new_tokens`。损失曲线帮不上忙，因为出错的正是没有计入损失的那个词元。
#
# ## 收尾

# %% tags=["nbval-ignore-output"]
show.spine(replies | {"sft": lab.showcase(sft.model())})

# %% [markdown]
# 会答了，也会停了。它说自己叫米粒，这个名字从哪里来，{numref}`第 %s 章 <sec-identity>` 再说。它说话还很生硬，{numref}`第 %s 章 <sec-dpo>` 教它礼貌。
#
# ### 小结
#
# - SFT 与预训练用同一个损失函数；不同的只是标签：掩码为 0 的地方是 −100。
# - 对话与文本的差别是几个特殊词元。预训练没见过它们，所以有知识也答不好；微调之后，答对九成以上。
# - 学的是助手的文字**和结束符**；用户的话只读不学。
# - 数着算比直接说准，因为更多的词元就是更多的计算；直接做减法，这个模型没有学好。
# - 每个数都来自训练没有问过的题，60 道题的误差约 ±0.1。
#
# ### 练习
#
# :::{exercise}
# :label: ex-sft-1
# 算一算：一段对话的回答有 3 个词元（含结束符），模型给它们的概率是 1/2、1/4、1/8。这段对话的损失是多少？和另一段只有 1 个词元、概率 1/2 的回答放进同一批，整批的平均损失是多少？“先各自平均再平均”又是多少？
# :::
#
# :::{solution} ex-sft-1
# :class: dropdown
# 三个损失是 $\ln 2$、$2\ln 2$、$3\ln 2$，平均 $2\ln 2=1.386$。整批是 $(1+2+3+1)\ln 2/4=1.75\ln 2=1.213$。先各自平均再平均是 $(2+1)\ln 2/2=1.5\ln 2=1.040$：短回答的那一个词元，分量等于长回答的三个。`next_token_loss` 返回和与个数，就是为了避开后一种算法。
# :::
#
# :::{exercise}
# :label: ex-sft-2
# 写一段代码：只学**最后一轮**的回答，前面各轮只读。写一个函数，输入消息，返回词元和这样的掩码，并在本章那段两轮对话上检验。
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
# :::{exercise}
# :label: ex-sft-3
# 弄坏它：如果掩码全部是 1，连用户的话也学，模型会学到什么？用 {numref}`tab-sft-hand` 的数说明损失会怎样变，再想想怎样看出这个错。
# :::
#
# :::{solution} ex-sft-3
# :class: dropdown
# 损失从 0.542 变成 0.824，因为加进了难猜的问题；训练的力气有一半多（1.386 / 2.471 = 56%）花在猜用户会问什么上。模型仍能回答，但也学会了“在 `<|user_start|>` 后面提问”，如果它在回答之后没有停住，就会自己扮演用户接着问。看得出的迹象：损失明显偏高，而且降不下去，因为问什么本来就有随机性；着色的掩码图里，用户的话也有了颜色。所以训练之前先看一眼 `show.loss_mask`。
# :::
#
# :::{exercise}
# :label: ex-sft-4
# 想一想：问它“25加3等于多少？请数着算。”会怎样？为什么？先猜，再看解答里的代码。
# :::
#
# :::{solution-start} ex-sft-4
# :class: dropdown
# :::
#
# 这个世界的数不超过 20。它没有数过 25 以后的路，连“25”这个数也没在算式里读过。

# %%
beyond = lab.ask(after.model, "25加3等于多少？请数着算。")
assert not world.Question("add", (("user", "25加3等于多少？"),), "28").is_correct(beyond)

# %% [markdown]
# 它答错了（再写一行 `beyond`，看看它是怎样答的），也没有学过说“我不知道”：训练数据里没有一段对话这样说过。要它在不知道时承认，就得有这样的训练数据。
#
# :::{solution-end}
# :::
#
# ### 延伸阅读
#
# - {cite:t}`ouyang2022instructgpt`：三步流程（SFT、奖励模型、强化学习）的出处，附录里有数据怎样收集。
# - {cite:t}`zhou2023lima`：1,000 段对话的微调实验；读它，想清楚质量和数量各值多少。
# - {cite:t}`wei2022cot`：思维链；注意它说的是足够大的模型，我们的小模型靠的是训练数据里就有步骤。
# - {cite:t}`holtzman2020topp`：为什么贪心解码会重复，top-p 的出处。
