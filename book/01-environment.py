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
# (sec-environment)=
# # 一页纸的语言模型
#
# :::{admonition} 本章
# :class: tip
#
# - **你将学会**：语言模型只做哪一件事；用数数做出第一个语言模型，再让同一个模型自己学出来；用留出的数据给它们打分。
# - **需要时间**：阅读 40 分钟，运行约半分钟。
# - **需要内存**：2 GB。
# - **用到的模块**：`minillm.book.lab`、`minillm.book.show`、`minillm.book.drawings.data`、`minillm.book.tasks`。
# :::

# %%
import json
import math
import random
import re
from collections import Counter

from minillm.book import lab, show, tasks
from minillm.book.drawings import data as drawings

import numpy as np
import torch

lab.start()

# %% [markdown]
# ## 开场
#
# > 昨天睡得太晚，今天差点迟＿
#
# 空格里填什么？你多半填了“到”。这句话你没有见过，可是这样的话见得多了，“迟”后面总是那几个字，前面又说睡得晚，别的都不像。<!-- by: reasoning -->
#
# **语言模型**（language model）只做这一件事：看着前面的文字，给下一个字的每一种可能一个概率，$p(\text{下一个} \mid \text{前面})$。会了这一件，就会写字：按概率挑一个字，接上去，再挑下一个。会写字，就会回答：把问题放在前面，接着写下去的就是答案。<!-- by: reasoning -->
# 本书的模型和几千亿参数的模型都是这样的东西；后面每一章，只是一次次改动这些概率。
#
# 全书跟着一个模型走，它有 87 万个数可以调整（它们叫参数），生活在一个很小的中文世界里：48 个人物、20 种商品、20 以内的算术。我们一直问它同样的三句话。今天那些数还是随机的，它这样猜：<!-- by: round(869504 / 10000) == 87 -->

# %% tags=["nbval-ignore-output"]
answers = lab.showcase(lab.fresh())
assert all(re.fullmatch(r"(.+?)\1{9,}", answer) for answer in answers)
show.spine({"fresh": answers})

# %% [markdown]
# 它只会把同一个记号重复到底。（`<|assistant_start|>` 不是网页出了错，是一个**词元**（token）：词元是模型读写的最小单位，多半是一个字或一个词，也有这样的记号，{numref}`第 %s 章 <sec-bpe>` 讲它们怎样来。）到 {numref}`第 %s 章 <sec-dpo>`，我们要它用通顺的中文回答这三句话，多半再带上一句客气话。<!-- by: book/results/seeds.json --> 路线见 {numref}`fig-environment-map`。
#
# 这一章不用那个模型。我们从头做一个最小的：先数数，再让它自己学，学出来的和数出来的会是同一张表。会了这一步，后面各章只是把这张表换成更会猜的东西。代码都可以运行，还没有装好环境的，见 {ref}`sec-setup`；先往下读也行，手算只要纸笔。<!-- by: reasoning -->

# %% tags=["hide-input"] mystnb={"figure": {"caption": "前八章的路线：数据、词元、张量，然后是三个训练阶段。后面的章让它学会思考，给它名字，再把它做大。", "name": "fig-environment-map"}, "image": {"alt": "六个方框从左到右用箭头相连：数据（第 2 章），词元（第 3 章），张量（第 4 章），预训练（第 5、6 章），微调（第 7 章），偏好优化（第 8 章）"}}
colours = [show.GREY] * 3 + [show.COLOURS[stage] for stage in ("pretrain", "sft", "dpo")]
show.flow(
    [
        ("数据", "第 2 章"),
        ("词元", "第 3 章"),
        ("张量", "第 4 章"),
        ("预训练", "第 5、6 章"),
        ("微调", "第 7 章"),
        ("偏好优化", "第 8 章"),
    ],
    colours,
)

# %% [markdown]
# 前三格备料：写出数据，切成词元，拼成整齐的数字块（**张量**，tensor）。后三格训练同一个模型，一格接着一格：
#
# - **预训练**（pretraining）读大量文字，学会接着往下写；
# - **监督微调**（supervised fine-tuning，SFT）读一问一答，学会回答；
# - **直接偏好优化**（direct preference optimization，DPO）读成对的回答，一好一差，学会选好的。
#
# ## 手算
#
# ### 数一数，谁后面跟着谁
#
# 下面是五句话组成的**语料**（corpus）：
#
# > 我爱苹果。　我爱西瓜。　他爱苹果。　我吃苹果。　他吃西瓜。
#
# 假定下一个字只和前一个字有关。要数的是两个字的组合，所以叫二元模型；数 $n$ 个字的组合，看前面 $n-1$ 个字猜下一个，就是 **n 元模型**（n-gram model）。数一数，谁后面跟着谁：
#
# | 前一个字 | 后面的字与次数 | 概率 |
# |---|---|---|
# | 句首 | 我 3，他 2 | $\tfrac35, \tfrac25$ |
# | 我 | 爱 2，吃 1 | $\tfrac23, \tfrac13$ |
# | 他 | 爱 1，吃 1 | $\tfrac12, \tfrac12$ |
# | 爱 | 苹 2，西 1 | $\tfrac23, \tfrac13$ |
# | 吃 | 苹 1，西 1 | $\tfrac12, \tfrac12$ |
# | 苹 | 果 3 | 1 |
# | 西 | 瓜 2 | 1 |
# | 果 | 。3 | 1 |
# | 瓜 | 。2 | 1 |
#
# “他爱西瓜。”不在语料里。模型给它的概率是
#
# $$p = \underbrace{\tfrac25}_{他} \times \underbrace{\tfrac12}_{爱} \times \underbrace{\tfrac13}_{西} \times \underbrace{1}_{瓜} \times \underbrace{1}_{。} = \tfrac{1}{15}$$
#
# 没见过的句子，也得到了不小的概率：模型做到了**泛化**（generalization），而不只是背下来。
#
# ### 猜得好不好，看它有多吃惊
#
# 一个模型好不好，怎样用一个数来说？看它对真实的文字有多吃惊。一个字的概率是 $p$，吃惊的程度就是 $-\log_2 p$ 比特：一定会出现的，0 比特；像掷硬币的，1 比特；四种里猜一种，2 比特。为什么取对数？一句话的概率是各个字的概率相*乘*，取了对数就变成相*加*：整句的吃惊等于各个字的吃惊之和，这才谈得上平均。平均起来的吃惊叫**交叉熵**（cross-entropy）{cite:p}`shannon1948`。
#
# 平均到什么上？这一章按字猜，后面的模型按词元猜，字和词元长短不一。所以我们平均到谁都一样的东西上：UTF-8 编码的字节，一个汉字是 3 个。这叫**每字节比特数**（bits per byte）：
#
# ```{math}
# :label: eq-environment-entropy
# H = -\frac{1}{B} \sum_{i=1}^{N} \log_2 p(c_i \mid c_1, \dots, c_{i-1})
# ```
#
# $c_i$ 是第 $i$ 个字，$N$ 是字数，$B$ 是字节数。“他爱西瓜。”连句号有 5 个字、15 个字节，$H = \tfrac1{15} \log_2 15 = 0.26$。如果什么都不知道，每个字都在 9 种字里瞎猜，就是 $\tfrac5{15} \log_2 9 = 1.06$。
#
# 交叉熵越低越好，它是全书最重要的一个数。{numref}`第 %s 章 <sec-pretrain>` 的损失就是它，只是平均到词元上，又换成自然对数，单位叫奈特。
#
# 让代码核对一遍。下面的 `count` 数出每一串字各出现几次，一个字的、两个字的都数，`^` 代表句首：


# %%
def count(texts, n):
    """How often each string of up to n characters occurs; ^ stands for the start of a text."""
    table = Counter({"": sum(map(len, texts))})
    for text in texts:
        text = "^" + text
        table.update(text[i : i + k] for k in range(1, n + 1) for i in range(len(text) - k + 1))
    return table


table = count(["我爱苹果。", "我爱西瓜。", "他爱苹果。", "我吃苹果。", "他吃西瓜。"], 2)
assert (table["^我"], table["^他"], table["爱苹"], table["爱"]) == (3, 2, 2, 3)

sentence = "他爱西瓜。"
steps = [table[x + y] / table[x] for x, y in zip("^" + sentence, sentence, strict=False)]
surprise, size = -math.log2(math.prod(steps)), len(sentence.encode())
assert math.isclose(math.prod(steps), 1 / 15)
assert (size, round(5 * math.log2(9) / size, 2)) == (15, 1.06)
print(f"p = {math.prod(steps):.4f}, {surprise / size:.2f} bits per byte")

# %% [markdown]
# ## 真实代码
#
# ### 同一张表，这回不数，让它学
#
# 数出来的表，是看完文字以后一次填好的。还有一种填法：先随便填，再一步步改，改到它不怎么吃惊为止。这叫训练。后面所有的模型都是训练出来的，所以先在这张小表上看清楚。
#
# 表还是一行一个前字、一列一个后字。格子里不放概率，放**打分**（logits），随便什么数都可以，大的表示更像。打分怎样变成概率？用 **softmax**：各取指数，就都是正数；再除以它们的和，就加起来等于 1。
#
# ```{math}
# :label: eq-environment-softmax
# p_j = \frac{e^{z_j}}{\sum_k e^{z_k}}
# ```
#
# $z_j$ 是这一行第 $j$ 列的打分，$p_j$ 是它的概率。打分是 $(1, 0, 0)$ 的，概率是 $(e, 1, 1)/(e + 2) = (0.58, 0.21, 0.21)$。一开始全填 0，九个字各得 $\tfrac19$，就是瞎猜。<!-- by: round(math.e / (math.e + 2), 2) == 0.58 and round(1 / (math.e + 2), 2) == 0.21 -->
#
# 前一个字挑出一行，softmax 把这一行变成下一个字的概率（{numref}`fig-environment-layer`）：这就是一层的神经网络，最小的一种。<!-- by: reasoning -->
#
# 打分往哪边改？拿“我”这一行说。它猜每个字 $\tfrac19$，文字里真的跟在后面的，爱是 $\tfrac23$，吃是 $\tfrac13$，别的没有。爱猜少了，该升；苹猜多了，该降。规矩只有一句：**猜多了的降，猜少了的升**，差得多就改得多：<!-- by: reasoning -->
#
# ```{math}
# :label: eq-environment-step
# z_j \leftarrow z_j - \eta\,(p_j - q_j)
# ```
#
# $q_j$ 是文字里的比例，$\eta$ 是步长，我们取 2。走一步：爱从 0 升到 $2 \times (\tfrac23 - \tfrac19) = 1.11$，吃升到 $2 \times (\tfrac13 - \tfrac19) = 0.44$，其余七个字降到 $-2 \times \tfrac19 = -0.22$。再做 softmax：$e^{1.11} = 3.04$，$e^{0.44} = 1.56$，$7 \times e^{-0.22} = 5.61$，一共 10.2，爱的概率是 $3.04 \div 10.2 = 0.30$，从 0.11 升上来了。<!-- by: abs(math.exp(10 / 9) - 3.04) < 0.005 and abs(math.exp(4 / 9) - 1.56) < 0.005 and abs(7 * math.exp(-2 / 9) - 5.61) < 0.005 -->
#
# 这条规矩不是随手定的。“我”后面平均的吃惊（这里用自然对数）是 $-\sum_j q_j \ln p_j$，把 {eq}`eq-environment-softmax` 代进去（各个 $q_j$ 加起来是 1），就是 $-\sum_j q_j z_j + \ln \sum_k e^{z_k}$。打分 $z_j$ 动一点点，前一项跟着动它的 $-q_j$ 倍，后一项动它的 $e^{z_j}/\sum_k e^{z_k} = p_j$ 倍，合起来是 $p_j - q_j$。
# 这个数就是**梯度**（gradient）：每个打分增加一点点，吃惊跟着增加多少。要吃惊变小，就往反方向走，这叫梯度下降。
#
# 全部代码是这几行：

# %%
contexts, targets = list("^我他爱吃苹西果瓜"), list("我他爱吃苹西果瓜。")
counted = np.array([[table[a + b] / table[a] for b in targets] for a in contexts])


def softmax(z):
    """Each row of scores as probabilities."""
    powers = np.exp(z)
    return powers / powers.sum(axis=1, keepdims=True)


kept, z = [], np.zeros((9, 9))
for _ in range(2000):
    kept.append(z)
    z = z - 2.0 * (softmax(z) - counted)
learned = softmax(z)
assert abs(learned - counted).max() < 0.001
assert round(softmax(kept[1])[1, 2], 2) == 0.30
show.table(
    ["“我”的后面", *targets],
    [["走一步", *softmax(kept[1])[1]], ["走 2,000 步", *learned[1]], ["数出来的", *counted[1]]],
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "最小的神经网络，走了两步。左边是打分的表，颜色越深打分越高；“我”挑出它那一行，softmax 把它变成蓝色的概率。灰框是文字里数出来的比例，箭头是下一步要推的方向：猜少了的升，猜多了的降。", "name": "fig-environment-layer"}, "image": {"alt": "左边是九行九列的表，“我”的一行标成蓝色，一根写着 softmax 的箭头指向右边的条形图；爱和吃的蓝条低于灰框，箭头向上，其余七个字只有矮矮的蓝条，箭头向下"}}
assert 0.3 < softmax(kept[2])[1, 2] < counted[1, 2]
assert 0.15 < softmax(kept[2])[1, 3] < counted[1, 3]
drawings.bigram_layer(kept[2], counted[1], contexts, targets, "我")

# %% [markdown]
# 九行的概率全都走到了数出来的比例，最多也差不到 0.001。<!-- by: assert abs(learned - counted).max() < 0.001 -->
#
# 可是 $q_j$ 不就是数出来的答案吗？其实不必先数。一处一处地读：读到“我爱”，就当 $q$ 在爱上是 1，在别处是 0，照样推一下；读到“我吃”，就当它在吃上是 1。“我”一共三处，爱上的平均起来是 $(1 + 1 + 0)/3 = \tfrac23$，推的方向正好是 $p_j - q_j$。所以它只要读，每一步让自己少吃惊一点；这里写成 $q_j$，是把许多处并成一次算。后面的模型都这样从文字里学，谁也不先替它数。<!-- by: (1 + 1 + 0) / 3 == 2 / 3 -->
#
# 表里最后放着什么？softmax 只在乎打分之间的差：一行全部加 5，概率不变。差是多少呢，正好是概率之比的对数。“我”后面，爱的概率是吃的两倍，打分就高 $\ln 2 = 0.69$。换句话说，除去每行一个常数，**打分就是概率的对数**。从没出现过的字，概率该是 0，对数是负无穷，打分就一直往下走，永远走不到。<!-- by: round(math.log(2), 2) == 0.69 -->

# %%
love, eat = targets.index("爱"), targets.index("吃")
assert abs(z[1, love] - z[1, eat] - math.log(2)) < 0.001
seen = counted > 0
assert abs(np.log(learned[seen]) - np.log(counted[seen])).max() < 0.002
print(f"{z[1, love] - z[1, eat]:.2f}, ln 2 = {math.log(2):.2f}")

# %% [markdown]
# 梯度也不必自己推。只写出吃惊怎样算，PyTorch 就会从后往前求出每个打分的梯度，和我们推的一样：

# %%
w = torch.zeros(9, 9, dtype=torch.float64, requires_grad=True)
loss = -(torch.tensor(counted) * torch.log_softmax(w, dim=1)).sum()
loss.backward()
assert np.allclose(w.grad.numpy(), softmax(np.zeros((9, 9))) - counted)
print(w.grad[1].numpy().round(2))

# %% [markdown]
# 印出来的是“我”那一行：爱是 $\tfrac19 - \tfrac23 = -0.56$，吃是 $-0.22$，别的各 $0.11$，正是 $p_j - q_j$。<!-- by: round(1 / 9 - 2 / 3, 2) == -0.56 and round(1 / 9 - 1 / 3, 2) == -0.22 and round(1 / 9, 2) == 0.11 -->
#
# 学出来的表和数出来的一样，费了这么大劲，图什么？数数只会填表。学的办法不挑：把表换成任何别的东西，只要算得出“每个数动一点点，吃惊变多少”，这个循环一个字也不用改。表做不到的，换个东西来做。表究竟做不到什么，下面就会看到。<!-- by: reasoning -->
#
# ## 实验
#
# ### 八万篇文字，先数
#
# 现在换真正的语料。微世界的文本由程序写成，{numref}`第 %s 章 <sec-data>` 讲它怎样来；`lab.data()` 已经备好两份：84,263 篇用来数，另有 824 篇**留出集**（held-out set）用来打分，没有一篇在两边都出现。{numref}`第 %s 章 <sec-pretrain>` 的模型读的、考的，也是这两份。每篇末尾加一个结束符 `$`，它也要猜。


# %%
def texts(name):
    lines = (lab.data() / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] + "$" for line in lines]


training, held_out = texts("pretrain_chinese.jsonl"), texts("pretrain_chinese_val.jsonl")
assert not set(training) & set(held_out)
kinds = sorted(set("".join(training)))
V = len(kinds)
assert set("".join(held_out)) <= set(kinds)
held_out_bytes = sum(len(text[:-1].encode()) for text in held_out)

print(f"{len(training):,} texts, {sum(map(len, training)):,} characters of {V} kinds to count")
print(f"{len(held_out)} texts, {sum(map(len, held_out)):,} characters held out")
print(f"{held_out_bytes:,} bytes held out")
training[4]


# %% [markdown]
# ### 没见过的，问短一点的上文
#
# 这样数有一个毛病：“我爱他。”里的“爱他”一次也没有出现过，概率是 0，吃惊是无穷大。补救的办法叫**平滑**（smoothing）。我们用其中的**插值**（interpolation）：让少看一个字的模型也来投票，算它 5 票；自己数到过几次，自己就有几票。
#
# ```{math}
# :label: eq-environment-smooth
# p(c \mid h) = \frac{\mathrm{count}(hc) + 5\,p(c \mid h')}{\mathrm{count}(h) + 5}
# ```
#
# $h$ 是前面的 $n-1$ 个字，$h'$ 是去掉最前面一个字的 $h$。换一种写法更清楚：$p(c \mid h)$ 是两个答案的加权平均，一个是自己数出来的比例 $\mathrm{count}(hc)/\mathrm{count}(h)$，一个是短一点的模型的 $p(c \mid h')$，权重之比是 $\mathrm{count}(h) : 5$。$h$ 见过 5 次，两边各占一半；见过 500 次，5 票算不了什么；从没见过，就全听 $h'$ 的。5 是随手取的，取得越大，越信短的上文。<!-- by: 5 / (5 + 5) == 0.5 and 500 / (500 + 5) > 0.99 -->
#
# $h$ 一个字也不剩时，$\mathrm{count}(h)$ 是总字数，5 票交给瞎猜的模型，它给每个字 $1/V$，$V$ 是字的种数。
#
# 拿手算的五句话代入：$V = 9$，共 25 个字，“他”有 2 个：$p(\text{他}) = (2 + \tfrac59)/(25 + 5) = 0.085$。“爱”有 3 个，后面从来不是“他”：$p(\text{他} \mid \text{爱}) = (0 + 5 \times 0.085)/(3 + 5) = 0.053$，不再是 0。写成加权平均，就是 $\tfrac38 \times 0 + \tfrac58 \times 0.085$。


# %%
def probability(table, before, character, V):
    """Of a character after those before it: each context gives 5 votes to the shorter one."""
    p = 1 / V
    for start in range(len(before), -1, -1):
        h = before[start:]
        p = (table[h + character] + 5 * p) / (table[h] + 5)
    return p


assert table[""] == 25
assert math.isclose(probability(table, "", "他", 9), (2 + 5 / 9) / 30)
p = probability(table, "爱", "他", 9)
assert math.isclose(p, 5 * (2 + 5 / 9) / 30 / 8)
print(f"{p:.3f}")

# %% [markdown]
# ### 看得越远，越不吃惊
#
# 把 $n$ 从 1 到 5 都量一遍：


# %%
def bits_per_byte(table, texts, n):
    """Cross-entropy of an n-gram model; the end mark is to be guessed, but has no bytes."""
    bits = 0
    for text in texts:
        text = "^" + text
        for i in range(1, len(text)):
            bits -= math.log2(probability(table, text[max(0, i - n + 1) : i], text[i], V))
    return bits / sum(len(text[:-1].encode()) for text in texts)


table = count(training, 5)
ns = [1, 2, 3, 4, 5]
scores = {0: math.log2(V) * sum(map(len, held_out)) / held_out_bytes}  # 0: knows nothing
scores |= {n: bits_per_byte(table, held_out, n) for n in ns}
assert all(scores[n] < scores[n - 1] for n in ns)
assert [round(scores[n], 2) for n in range(5)] == [3.32, 2.77, 1.05, 0.68, 0.52]
print({n: round(score, 3) for n, score in scores.items()})

# %% mystnb={"figure": {"caption": "在留出的文本上，每字节要几个比特（{eq}`eq-environment-entropy`）。看得越远，吃惊越少。", "name": "fig-environment-bits"}, "image": {"alt": "六根横条，从上到下是瞎猜、一元、二元、三元、四元、五元，一根比一根短"}}
names = ("瞎猜", "一元", "二元", "三元", "四元", "五元")
show.bars(
    dict(zip(names, scores.values(), strict=True)),
    "每字节比特数（留出的文字）",
    [show.GREY] + [show.COLOURS["other"]] * 5,
)

# %% [markdown]
# 从上到下读 {numref}`fig-environment-bits`：
#
# - **瞎猜**：503 种字（标点、数字、换行和 `$` 也算）一样可能，每字节 3.32 比特；
# - **一元**：知道哪些字常见，2.77 比特；
# - **二元**：再看前一个字，一下降到 1.05。<!-- by: assert [round(scores[n], 2) for n in range(5)] == [3.32, 2.77, 1.05, 0.68, 0.52] -->微世界的句子很规整，一个字往往决定下一个字；<!-- by: assert all(scores[n] < scores[n - 1] for n in ns) -->
# - **三元**：看两个字，0.68；
# - **四元**：看三个字，0.52；
# - **五元**：看四个字，0.458。
#
# 从二元起，每多看一个字，省下的都比上一次少：1.05、0.68、0.52、0.46。我们停在五元；为什么不能一直看下去，“弄坏它”里会看到。<!-- by: assert [round(scores[n], 2) for n in range(5)] == [3.32, 2.77, 1.05, 0.68, 0.52] -->
#
# 最后一个数是全书要打败的基线：一个词也不懂，只会数数，就能做到每字节 0.458 比特。后面的模型要低于它，才算学到了数数给不了的东西。{numref}`第 %s 章 <sec-pretrain>` 用同一份留出集、同一个单位来比。
#
# 真实的语言要难得多。{cite:t}`shannon1951prediction` 让人玩这个猜字游戏，估计出印刷英语每个字母约有 0.6 到 1.3 比特，而一个英文字母正好是一个字节。
#
# ### 八万篇文字，再学
#
# 同样的语料，让一层的网络来学二元。表有 504 行（503 种字，加上句首）、503 列，一开始全是 0；每一步，每一行都按 {eq}`eq-environment-step` 改一次，步长这回取 4。行与行不相干，各学各的。<!-- by: 503 + 1 == 504 -->

# %%
place = {character: i for i, character in enumerate([*kinds, "^"])}


def pairs(table):
    """How often each character (columns) follows another (rows; the last: the start)."""
    found = np.zeros((V + 1, V))
    for key, times in table.items():
        if len(key) == 2:
            found[place[key[0]], place[key[1]]] = times
    return found


def bits(p, pairs, size):
    """Bits per byte of a table of probabilities on texts that have these pairs."""
    return -(pairs * np.log2(p, where=pairs > 0, out=np.zeros_like(p))).sum() / size


training_pairs, held_out_pairs = pairs(table), pairs(count(held_out, 2))
training_bytes = sum(len(text[:-1].encode()) for text in training)
shares = training_pairs / np.maximum(training_pairs.sum(axis=1, keepdims=True), 1)

# %%
z, losses = np.zeros((V + 1, V)), []
for _ in range(301):
    guessed = softmax(z)
    losses.append(bits(guessed, training_pairs, training_bytes))
    z -= 4.0 * (guessed - shares)
on_new = bits(softmax(z), held_out_pairs, held_out_bytes)
counted_bits = bits(shares, training_pairs, training_bytes)
assert counted_bits < losses[-1] < 1.03 * counted_bits
assert losses == sorted(losses, reverse=True)
assert on_new < 1.03 * scores[2] < 0.4 * losses[0]
print(f"learned {losses[-1]:.2f}, counted {counted_bits:.2f} bits per byte, the texts themselves")
print(f"learned {on_new:.2f}, counted {scores[2]:.2f} bits per byte, held-out texts")

# %% tags=["hide-input"] mystnb={"figure": {"caption": "一层的网络学二元：每一步之后，在学的这些文字上的每字节比特数。虚线是数出来的二元模型在同样的文字上的分数。", "name": "fig-environment-learned"}, "image": {"alt": "一条曲线从 3.3 急降，后来越来越平，贴近一条水平的虚线，始终在它上面"}}
assert min(losses) > counted_bits
assert losses[0] - losses[50] > 20 * (losses[50] - losses[300])
drawings.falling_to(range(301), {"学出来的": losses}, {"数出来的": counted_bits})

# %% [markdown]
# 一开始是瞎猜。三百步以后，离数出来的差不到百分之三（{numref}`fig-environment-learned`）；在留出的文字上，也和数出来的二元模型差不到百分之三。<!-- by: assert counted_bits < losses[-1] < 1.03 * counted_bits --><!-- by: assert on_new < 1.03 * scores[2] < 0.4 * losses[0] -->
# 它没有做过平滑：打分走不到负无穷，概率就从来不是 0。
#
# 看一行。“买”后面该是什么，数的和学的各有一份：

# %%
row = place["买"]
row_scores = z[row] - np.log(np.exp(z[row]).sum())  # without the row's constant
best = np.argsort(-shares[row], kind="stable")[:4]
assert abs(row_scores[best] - np.log(shares[row, best])).max() < 0.1
show.table(
    ["“买”的后面", *(kinds[j] for j in best)],
    [
        ["数出来的概率", *shares[row, best]],
        ["它的对数", *np.log(shares[row, best])],
        ["学出来的打分", *row_scores[best]],
    ],
)

# %% [markdown]
# 打分已经减去了整行共有的那个常数。下两行几乎一样，差不到 0.1。<!-- by: assert abs(row_scores[best] - np.log(shares[row, best])).max() < 0.1 --> 在八万篇文字上，学到的也是概率的对数。
#
# ### 它写得出什么
#
# 语言模型也能写字。从句首开始，按概率挑一个字，接上，再挑，直到结束符：


# %%
def write(n, seed):
    """Draws one character after the other until the end mark; only what was seen, no smoothing."""
    rng, text = random.Random(seed), "^"
    while not text.endswith("$") and len(text) < 60:
        before = text[max(0, len(text) - n + 1) :]
        text += rng.choices(kinds, [table[before + c] for c in kinds])[0]
    return text.strip("^$")


written = {n: write(n, seed=4) for n in (1, 2, 3, 5)}
assert re.search("去公园。小鸭看见.*蓝色的勺子。小熊把勺子藏.*红色的勺子", written[5])
for n, text in written.items():
    print(f"{n}-gram:", text, end="\n\n")

# %% [markdown]
# 一元模型写的是一盘散沙。二元模型相邻的两个字都通顺，三个字以上就不知所云。三元模型已经有了词和短句，可是一句话的开头和结尾不是一回事。五元模型的短句都像样，合起来却对不上：去公园的是小鹿，看见勺子的是小鸭，藏勺子的又成了小熊，勺子也从蓝色变成了红色。<!-- by: assert re.search("去公园。小鸭看见.*蓝色的勺子。小熊把勺子藏.*红色的勺子", written[5]) -->
#
# ### 自己数一份
#
# 换成你给的文字，数一遍，写一写。每句前面标明是照抄的，还是新的；新的，就是文字里没有的。
#
# :::{minillm} ngram
# :text: 张静住在北京。|张静喜欢紫色。|张静养了一只猫。|王勇住在广州。|王勇喜欢红色。|王勇养了一只狗。|小鹿去公园。|小鹿看见蓝色的勺子。|小鹿把勺子藏在床下。|小鸭去河边。|小鸭看见红色的帽子。|小鸭把帽子藏在树下。|小熊去公园。|小熊看见紫色的帽子。|小熊把帽子藏在床下。
# :start: 小熊
# :alt: 上面的框里是十五句短句，下面是 n 的滑块，停在 3，和写着“小熊”的开头。再下面是三条横条：看、去、把，各占三分之一。最下面写出了一句话，并说它是照抄的还是新的。
#
# 这里可以把任何一段文字数成 $n$ 元的表，再照着写，要在网页上用。在 JupyterLab 里，运行 `from minillm.book import page` 和 `page.widget("ngram", text="小熊去公园。|小鹿去河边。")`，竖线分开各句。
# :::
#
# 先猜，再试：
#
# - $n$ 从 2 到 6，各写 20 句。照抄的占多少，怎样随 $n$ 变？
# - $n = 6$，开头改成 `王勇看见`。它这时看的是几个字？
# - 贴一段你自己的文字，一首歌词或者聊天记录，要几百字。$n$ 是几的时候最好玩？<!-- by: reasoning -->
#
# :::{admonition} 猜完再看
# :class: dropdown
# - $n$ 越大，照抄的越多。看得远了，见过的上文大多只有一种接法，只好抄下去。$n = 6$ 也还有新的句子，因为“把帽子藏在”后面有两种接法。文字多了，同样的 $n$ 才又有得选。<!-- by: reasoning -->
# - “王勇看见”没有出现过，退一步；“勇看见”也没有，再退，到“看见”为止，两个字。看见东西的是小鹿、小鸭和小熊，没有王勇；它不管，照样往下写。<!-- by: reasoning -->
# - 多半是 2 或 3：再小不成话，再大全是原文。<!-- by: reasoning -->
# :::
#
# ### 它们知道什么
#
# 它们知道张静住在哪里吗？三元模型不可能知道：在它眼里，“张静住在”和“王勇住在”是同一个上文，“住在”。五元模型看得见四个字，“张静住在”正好四个。可是只要中间隔开一句，比如“张静最喜欢紫色。她住在”，它看见的就只有“。她住在”：

# %%
for before in ("住在", "张静住在", "。她住在"):
    after = {c: probability(table, before, c, V) for c in kinds}
    best = sorted(after, key=after.get, reverse=True)[:5]
    print(before, [(c, round(after[c], 2)) for c in best], f"北: {after['北']:.2f}")
    assert (after["北"] > 0.9) == (before == "张静住在")  # Zhang Jing lives in Beijing

# %% [markdown]
# 张静住在北京。第一行，三元模型只知道“住在”后面常有“哪里”和城市，“北”排不进前五，概率是 0.06。第二行，五元模型有 0.95 的把握。第三行隔了一句，把握又掉到 0.17，和给别的城市的相近。“北”仍排在第一，可这算不上知道：它数的是全体人物的“。她住在”，换一个人来问，给出的还是这几个数。要在这里说对，就得看见更前面的“张静”。<!-- by: assert (after["北"] > 0.9) == (before == "张静住在") -->
#
# 办法好像很清楚：看得再远一些，六个字、七个字、十个字。下面就来试。
#
# ## 弄坏它
#
# ### 在训练数据上打分
#
# 只取 300 篇文本来数，让 $n$ 从 1 长到 7，同时在两处打分：数过的这 300 篇，和留出的 824 篇（{numref}`fig-environment-overfit`）。

# %%
small, longer = training[:300], [1, 2, 3, 4, 5, 6, 7]
few = count(small, 7)
on_counted = [bits_per_byte(few, small, n) for n in longer]
on_held_out = [bits_per_byte(few, held_out, n) for n in longer]
assert on_counted == sorted(on_counted, reverse=True)
assert min(on_held_out) == on_held_out[3]
assert (round(on_counted[6], 3), round(on_held_out[6], 2)) == (0.257, 1.03)
assert on_counted[6] < scores[5]
show.table(
    ["n", *map(str, longer)],
    [["数过的 300 篇", *on_counted], ["留出的 824 篇", *on_held_out]],
)

# %% mystnb={"figure": {"caption": "每字节比特数。数 300 篇：在数过的文字上（橙红），$n$ 越大越好；在留出的文字上（深蓝），过了 $n=4$ 就不再变好。数 84,263 篇（浅蓝），留出的文字上才继续往下走。", "name": "fig-environment-overfit"}, "image": {"alt": "横轴 n 从 1 到 7，三条线都从同一高度落下。数过的文字上的线一直往下；数 300 篇、在留出的文字上打分的线先降后平，最后远在它上面；数 84,263 篇、在留出的文字上打分的线画到 n=5，那里不到第二条的一半高"}}
assert on_held_out[6] > 3 * on_counted[6]
assert scores[5] < 0.5 * on_held_out[4]
show.lines(
    {
        "数过的，数 300 篇": (longer, on_counted),
        "留出的，数 300 篇": (longer, on_held_out),
        "留出的，数八万篇": (ns, [scores[n] for n in ns]),
    },
    "n",
    "每字节比特数",
    colours=[show.COLOURS["bad"], show.COLOURS["pretrain"], show.COLOURS["other"]],
    marker="o",
)

# %% [markdown]
# 只看数过的文字，七元模型出色极了：每字节 0.257 比特，比数了八万多篇的五元模型还低。在没见过的文字上，它要 1.03 比特，约四倍；从四元到七元，看得远了三个字，一点好处也没有。这就是**过拟合**（overfitting）：它把 300 篇背了下来，而背下来的那部分在别处用不上。（留出的线只是走平，没有掉头往上，那是平滑的功劳，见 {numref}`ex-environment-2`。）<!-- by: assert (round(on_counted[6], 3), round(on_held_out[6], 2)) == (0.257, 1.03) -->
#
# 原因是表太大。七元模型要记住每一种“前六个字”，见过的只是极小的一部分。下表里 `2e+16` 是 $2 \times 10^{16}$；最后一列是留出的文字里，前面的字曾经见过的位置所占的比例：

# %%
rows = []
for n in (2, 3, 5, 7):
    places = [("^" + t)[max(0, i - n + 1) : i] for t in held_out for i in range(1, len(t) + 1)]
    known = sum(place in few for place in places) / len(places)
    seen = sum(len(h) == n - 1 and "$" not in h for h in few)
    rows.append([n, f"{float(V) ** (n - 1):.0e}", f"{seen:,}", f"{known:.2f}"])
assert float(rows[-1][-1]) < 0.5 < 0.9 < float(rows[0][-1])
assert (round(on_held_out[4], 2), round(scores[5], 3)) == (1.02, 0.458)
show.table(["n", "可能的上文", "见过的上文", "留出的文字里见过的"], rows)

# %% [markdown]
# 七元模型一半以上的时候遇到的是没见过的上文，只好退回去，听看得近的模型的。多数些文字当然有用：300 篇换成 84,263 篇，五元模型从 1.02 降到 0.458。可是每多看一个字，表就变成原来的 503 倍，文字跟不上。<!-- by: assert float(rows[-1][-1]) < 0.5 < 0.9 < float(rows[0][-1]) -->
#
# 毛病出在记账的办法：每一种上文单独记一笔，像的和不像的都互不相干。“张静最喜欢紫色。她住在”和“张静养了一只猫。她住在”，人一看就知道该接同一个城市。在看得够远的表里，它们是毫无关系的两格，各要各的次数；在看得不够远的表里，两处看见的都是“她住在”，又和别人的混在一起。
# {cite:t}`bengio2003nplm` 指出了出路：不要给每种上文单独记账，而是把字变成向量，让相似的上文共用参数，再用一个函数算出下一个字的概率。
# 从那时的小网络到今天的 Transformer（{numref}`第 %s 章 <sec-model>`），换的是函数，猜下一个字这件事还是那件事。
#
# 从这里带走一条规矩：**分数只在留出的数据上才算数。** 本书每一章的结果都这样量。
#
# :::{admonition} 真实世界
# :class: real-world
#
# 数数的模型也做到过很大。2007 年，Google 为机器翻译做的模型数到 2 万亿个词元，记下 3,000 亿条 n 元 {cite:p}`brants2007ngram`。2024 年的 infini-gram {cite:p}`liu2024infinigram` 数了 5 万亿个，$n$ 不设上限：上文有多长对得上，就看多长。在人写的文字上，它猜中下一个词元的比例是 47%。<!-- by: @brants2007ngram --><!-- by: @liu2024infinigram -->
#
# 今天和人聊天的模型走的是另一条路，共用参数：2020 年的 GPT-3 有 1,750 亿个 {cite:p}`brown2020gpt3`，2024 年的 Llama 3.1 最大的一个有 4,050 亿个 {cite:p}`grattafiori2024llama3`，2026 年的 DeepSeek-V4-Pro 有 1.6 万亿个 {cite:p}`deepseek2026v4`，约是本书模型的一百八十万倍。做的还是同一件事：给下一个词元一个概率。（2026 年 11 月核对。）<!-- by: round(1.6e12 / 869504, -5) == 1800000 --><!-- by: @deepseek2026v4 -->
# :::
#
# ### 忘了种子
#
# 另一个常见的错误小得多，却更烦人：没有设**随机种子**（random seed）。下面第一个单元格每次运行都不同，第二个永远相同：

# %% tags=["nbval-ignore-output"]
torch.seed()  # what happens when nobody sets one
print("unseeded", torch.rand(3))

# %%
torch.manual_seed(42)
x = torch.rand(3)
torch.manual_seed(42)
assert torch.equal(torch.rand(3), x)
print("seeded  ", x)

# %% [markdown]
# 没有种子，你就分不清“改动有用”和“运气好”。本书凡是随机的地方都有固定的种子；即使如此，小的差别也要多跑几个种子才能相信（{ref}`sec-setup-rounding`）。
#
# ## 收尾
#
# 书里的模型还是那堆随机数，但我们有了三样东西：一个学出来的语言模型，一把尺子（留出集上的每字节比特数），和一条要打败的基线，表的最后一行：

# %%
names = {0: "瞎猜", 2: "二元，数出来的", 3: "三元", 5: "五元，基线"}
assert round(scores[5], 3) == 0.458
rows = [[name, f"{scores[n]:.3f}"] for n, name in names.items()]
show.table(["", "每字节比特数"], [*rows[:2], ["二元，学出来的", f"{on_new:.3f}"], *rows[2:]])

# %% [markdown]
# 下一章（{numref}`第 %s 章 <sec-data>`）走进微世界，看看数据是怎样配出来的。
#
# ### 小结
#
# - 语言模型给出下一个字的概率；会这一件事，就会写字，也会回答。
# - 交叉熵是平均的吃惊程度，本书用每字节比特数，越低越好。
# - 同一张表，可以数，也可以学：猜多了的降，猜少了的升。学到的打分就是概率的对数。
# - n 元模型靠数数：n 小了看不远，n 大了没见过，只好退回短一点的上文；相似的上文之间什么也不共用。
# - 分数只在留出的数据上算数；随机的地方要有种子。
#
# ### 练习
#
# :::{exercise} ★☆☆
# :label: ex-environment-1
# 算一算：用手算的五句话，“我吃西瓜。”的概率是多少（不平滑）？每字节几比特？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 在手算的表里查五个概率，句首的那个也要，再乘起来。
# :::
#
# :::{solution} ex-environment-1
# :class: dropdown
# $\tfrac35 \times \tfrac13 \times \tfrac12 \times 1 \times 1 = \tfrac1{10}$；$\tfrac1{15} \log_2 10 = 0.22$ 比特，比“他爱西瓜。”少一点。差别只在第一步，“我”比“他”常见；后面两步乘起来都是 $\tfrac16$。<!-- by: round(math.log2(10) / 15, 2) == 0.22 -->
# :::
#
# :::{exercise} ★★☆
# :label: ex-environment-2
# 写代码：最老的平滑不问短的上文，只给每种可能都加一点点 $k$：$p(c \mid h) = (\mathrm{count}(hc) + k)/(\mathrm{count}(h) + kV)$。取 $k = 0.001$，用 300 篇的表，把留出集上从一元到七元的分数再算一遍。和插值差在哪里？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 照 `bits_per_byte` 的样子走一遍留出集，上文 $h$ 也一样取；只把 `probability` 换成题里的式子，`few[h + text[i]]` 就是 $\mathrm{count}(hc)$。
# :::
#
# :::{solution-start} ex-environment-2
# :class: dropdown
# :::

# %%
places = [("^" + text, i) for text in held_out for i in range(1, len(text) + 1)]
add_k = []
for n in longer:
    bits = 0
    for text, i in places:
        h = text[max(0, i - n + 1) : i]
        bits -= math.log2((few[h + text[i]] + 0.001) / (few[h] + 0.001 * V))
    add_k.append(bits / held_out_bytes)
assert add_k[6] > 1.8 * add_k[1] > 1.8 * on_held_out[6]
show.table(["n", *map(str, longer)], [["加 k", *add_k], ["插值", *on_held_out]])

# %% [markdown]
# 加 $k$ 的分数过了二元就往上走，七元比二元差得多；插值的却是平的。两边数出来的次数一样，差的只是没见过时怎么办：加 $k$ 把票平均分给 503 种字，插值把票交给短一点的上文。所以看到“$n$ 大了反而差”，先怀疑平滑。<!-- by: assert add_k[6] > 1.8 * add_k[1] > 1.8 * on_held_out[6] -->
#
# :::{solution-end}
# :::
#
# :::{exercise} ★☆☆
# :label: ex-environment-3
# 弄坏它：把数过的 300 篇混进留出集里，再给七元模型打分。分数会变成什么样？怎样防止这种事？
# :::
#
# :::{solution-start} ex-environment-3
# :class: dropdown
# :::

# %%
leaked = bits_per_byte(few, held_out + small, 7)
assert leaked < on_held_out[-1] - 0.15
print(f"{on_held_out[-1]:.2f} bits per byte clean, {leaked:.2f} leaked")

# %% [markdown]
# 分数好看了许多，模型一点没变。这叫数据泄漏。防止的办法是按内容划分，而不是随手抽样，再检查两边有没有相同的文字；读入数据时的那句 `assert not set(training) & set(held_out)` 就是为此。
#
# :::{solution-end}
# :::
#
# :::{exercise} ★☆☆
# :label: ex-environment-4
# 想一想：三元模型在“8加4等于”后面能写对答案吗？二十元模型呢？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 写“等于”后面的那个字时，三元模型看得见哪两个字？
# :::
#
# :::{solution} ex-environment-4
# :class: dropdown
# 三元模型只看得见“等于”两个字，前面是几加几它不知道，只能写“等于”后面最常见的字。二十元模型看得见整个式子，但只会答一字不差地见过的题；没见过的数对，它一无所知。要答对没见过的题，就得从相似的题里学到规律，这正是数数做不到的。
# :::
#
# :::{exercise} ★★☆ 动手：一把尺子
# :label: ex-environment-measure
# 每字节比特数是全书的尺子，换了模型也要能量。写出 `measure(texts, p)`。`p` 是任何一个模型：`p(before, character)` 返回它在 `before` 之后给 `character` 的概率，`before` 是同一篇里这个字前面的全部文字，一篇的第一个字前面是空串。
# 返回这些文字合起来的每字节比特数（{eq}`eq-environment-entropy`），这里没有句首的记号，也没有结束符。文字可能很长，几千个概率乘起来，小得浮点数记不下。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 两个累加的数：比特和字节。比特逐字加 $-\log_2 p$，字节用 `len(text.encode())`，末了只除一次。
# :::


# %%
def measure(texts: list[str], p) -> float:
    return ...


tasks.check("1.1", measure)

# %% [markdown]
# :::{solution} ex-environment-measure
# :class: dropdown
# ```python
# def measure(texts, p):
#     bits = size = 0
#     for text in texts:
#         size += len(text.encode())
#         for i, character in enumerate(text):
#             bits -= math.log2(p(text[:i], character))
#     return bits / size
# ```
# 先把各篇加起来再除，一个字节才算一个字节；先除再平均，两个字的短文就和长文同样重了。`p` 只是一个函数，所以这把尺子量得了数数的模型，也量得了后面的神经网络。
# :::
#
# :::{exercise} ★★★ 动手：前面有过几种字
# :label: ex-environment-continuation
# 插值的兜底有个毛病。假如语料里“香港”出现了一千次，“港”就是常用字，遇到没见过的上文，兜底的一元模型总爱猜它。可是“港”的前面只有过“香”。{cite:t}`kneser1995backing` 的办法是：兜底时不问一个字出现过几次，问它前面有过几种不同的字。
#
# $$p(c \mid h) = \frac{\max(\mathrm{count}(hc) - d,\ 0)}{\mathrm{count}(h\,\cdot)} + \frac{d\,N(h\,\cdot)}{\mathrm{count}(h\,\cdot)} \cdot \frac{N(\cdot\,c)}{N(\cdot\,\cdot)}$$
#
# $\mathrm{count}(h\,\cdot)$ 是 $h$ 后面还有字的次数，$N(h\,\cdot)$ 是它后面有过几种字，$N(\cdot\,c)$ 是 $c$ 前面有过几种字，$N(\cdot\,\cdot)$ 是相邻的两个字一共有几种。每一种见过的对从次数里让出 $d$，$0 < d < 1$，让出来的按前面有过几种字分给所有的字。
#
# 拿手算的五句话试一次，取 $d = 0.5$。一共有 12 种对，“爱”前面有过“我”和“他”两种：$p(\text{爱} \mid \text{我}) = \frac{2 - 0.5}{3} + \frac{0.5 \times 2}{3} \cdot \frac{2}{12} = \frac59$。
#
# 写出 `kneser_ney(texts, h, c, d)`。`h` 和 `c` 各是一个字；数的是各篇里相邻的两个字，不跨篇，也不加句首的记号。`h` 后面从来没有过字时，返回 $N(\cdot\,c)/N(\cdot\,\cdot)$。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 先用一个 `Counter` 数出所有的对：`zip(text, text[1:])` 给出一篇里相邻的两个字。它的键是一种一种的对，值是次数：$N$ 数的是键，$\mathrm{count}$ 加的是值。写完以后，把 $h$ 固定，让 $c$ 走遍所有的字，概率加起来应当是 1。
# :::


# %%
def kneser_ney(texts: list[str], h: str, c: str, d: float) -> float:
    return ...


tasks.check("1.2", kneser_ney)

# %% [markdown]
# :::{solution} ex-environment-continuation
# :class: dropdown
# ```python
# def kneser_ney(texts, h, c, d):
#     pairs = Counter(pair for text in texts for pair in zip(text, text[1:]))
#     rest = sum(pair[1] == c for pair in pairs) / len(pairs)
#     after = [times for pair, times in pairs.items() if pair[0] == h]
#     if not after:
#         return rest
#     return (max(pairs[h, c] - d, 0) + d * len(after) * rest) / sum(after)
# ```
# $h$ 后面有几种字，就一共让出几个 $d$，不多不少地分回去，所以各字的概率加起来还是 1。分母不能用 `text.count(h)`：一篇末尾的 $h$ 后面没有字，“哈哈哈”里的“哈哈”也会少数一次。把一个字的 $h$ 换成几个字，逐级兜底，就是{numref}`第 %s 章 <sec-poems>`的数数模型。
# :::
#
# ### 延伸阅读
#
# - {cite:t}`shannon1948`：信息与熵的由来；其中就有用 n 元模型写出的英语。
# - {cite:t}`shannon1951prediction`：让人来猜下一个字母，用猜的次数估计语言的熵。
# - {cite:t}`bengio2003nplm`：用神经网络做语言模型的开端，引言把数数的困境讲得很清楚。
