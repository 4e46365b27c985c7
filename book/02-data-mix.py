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
# (sec-data)=
# # 数据配比
#
# :::{admonition} 本章
# :class: tip
#
# - **你将学会**：认识全书要用的微世界；看清训练从不问的是哪些题；算出每类数据写几行、重复几遍；量出配比怎样改变模型；证明留出集没有泄漏。
# - **需要时间**：阅读 40 分钟，运行约 20 秒。
# - **需要内存**：不到 1 GB。
# - **用到的模块**：`minillm.microworld.exercises`、`minillm.microworld.scoring`、`minillm.data.mix`、`minillm.book.drawings.data`。
# :::

# %%
import json
import re
from collections import Counter
from functools import cache
from random import Random

from minillm.book import lab, show, tasks
from minillm.book.drawings import data as drawings
from minillm.data import categories, mix, rows
from minillm.data.readers import read
from minillm.data.rows import plain_text
from minillm.microworld import documents, exercises, lessons, scoring, words

lab.start()

# %% [markdown]
# ## 开场
#
# 先看一个谜。两个模型，结构相同，起点相同，都用四千段对话微调，一遍读完。考同样的 60 道加减，都请它们一步一步数着算：

# %% tags=["hide-input"]
study = json.loads((lab.ROOT / "book" / "results" / "mixes.json").read_bytes())


def measured(name: str, exam: str) -> list[float]:
    """Of a mix of benchmarks/mixes.py: the scores of an exam, one for each seed."""
    return [run["scores"][exam] for run in study["runs"] if run["mix"] == name]


assert study["rows"] == 4000
assert study["items"] == 60
assert len(measured("sums 0%", "chain")) == len(measured("sums 20%", "chain")) == 2
assert max(measured("sums 0%", "chain")) < 0.05 < 0.8 < min(measured("sums 20%", "chain"))
show.table(
    ["", "第一次", "第二次"],
    [
        ["一个模型答对", *(f"{share:.0%}" for share in measured("sums 0%", "chain"))],
        ["另一个答对", *(f"{share:.0%}" for share in measured("sums 20%", "chain"))],
    ],
)

# %% [markdown]
# （换一批对话、换一个随机种子，再做一遍，就是“第二次”。）代码没有差别，差别只在它们读的东西：第一个的四千段里没有算术，第二个的有五分之一是算术。读什么，各读多少，叫**数据配比**（data mixture）。
# 这一章讲它：先认识给模型读的世界，再划出训练永远不问的题，然后算每类写几行，最后量一量配比怎样改变模型。<!-- by: assert max(measured("sums 0%", "chain")) < 0.05 < 0.8 < min(measured("sums 20%", "chain")) -->
#
# ### 一个封闭的世界
#
# 真实的中文太大。不到一百万个参数（模型里可以调整的数）装不下中文，装得下也没法检查：模型说某人住在成都，我们不知道对不对。<!-- by: 869504 < 10**6 -->
#
# {cite:t}`eldan2023tinystories` 的办法是把世界变小：只用幼儿认识的词写故事，几百万参数的模型就能写得通顺。
# 我们再走一步，把世界封闭起来：48 个人、20 种商品、16 样东西、10 种动物，二十以内的加减，星期和月份。每个问题的答案都查得到。
#
# 这就是张静的全部档案。全书要问的第一句，“张静住在哪里？”，答案是北京。

# %%
assert words.PEOPLE["张静"].facts["城市"] == "北京"
words.PEOPLE["张静"].facts

# %% [markdown]
# 世界里的一切都由一个随机种子写成文字，一共三种，各给一个训练阶段：
#
# - 语料里的文档，给预训练，模型从中学会接着往下写；
# - 对话，给监督微调，模型从中学会回答；
# - **偏好对**（preference pair），即同一个问题的一好一差两个回答，给偏好优化，模型从中学会选好的。
#
# 各看几条：

# %%
examples = [["文档", text] for text in documents.documents(6, seed=2)]
for category in ("general", "knowledge", "math"):
    for turns in lessons.conversations(category, 2, seed=1):
        examples.append([f"对话 {category}", " ▸ ".join(turn["content"] for turn in turns)])
for pair in lessons.preferences(2, seed=1):
    question, good = pair["chosen"][-2:]
    bad = pair["rejected"][-1]
    both = f"{question['content']} ▸ 好：{good['content']} ▸ 差：{bad['content']}"
    examples.append(["偏好对", both])
show.table(["种类", "内容（▸ 分开各轮）"], examples)

# %% [markdown]
# 对话分三类，名字沿用真实数据的叫法：`general` 是问人物、读故事、追问，还有介绍一个人、讲故事和寒暄；`knowledge` 是选择题、读故事、日历，也有少量问人物；`math` 是加减和买东西。类别只决定各写多少行；同一种题可以在两类里都有，读故事就是。表里有两段对话连问了几件不相干的事，那是故意的，下面就讲。<!-- by: minillm/microworld/lessons.py -->
#
# 人的档案写在文档里，每条档案有五种说法。故事、数数、逛商店、日历各有各的文档。
#
# 对话的回答偶尔带一句客气话，多半没有。偏好对教的是：答对，并且客气。好的那一句两样都有；差的那一句缺一样，要么答对了却不客气，要么客气却答错了。全书 1,500 对里，差的一句有 483 句是客气而错的，所以光学会客气还不够（{numref}`第 %s 章 <sec-dpo>`）。数一数：<!-- by: assert (len(pairs), all(good), sum(bad)) == (1500, True, 483) -->

# %%
pairs = [record.row for record in read(lab.data() / "dpo_chinese.jsonl")]
good = [scoring.is_polite(pair.chosen[-1].content) for pair in pairs]
bad = [scoring.is_polite(pair.rejected[-1].content) for pair in pairs]
assert (len(pairs), all(good), sum(bad)) == (1500, True, 483)
chats = [record.row for record in read(lab.data() / "sft_chinese.jsonl")]
polite = [scoring.is_polite(chat.messages[-1].content) for chat in chats]
assert sum(polite) < 0.15 * len(polite)
assert {len(attribute.statements) for attribute in words.ATTRIBUTES.values()} == {5}
strings = sum(sum(m.role == "user" for m in chat.messages) > 2 for chat in chats)
assert 0.1 < strings / len(chats) < 0.2
print(f"pairs: {len(pairs)}, chosen polite: {sum(good)}, rejected polite: {sum(bad)}")
print(f"conversations: {len(polite):,}, last answer polite: {sum(polite):,}")
print(f"with three questions or more: {strings:,}")

# %% [markdown]
# 对话里有一到两成问了三次以上，那是一*串*：几段不相干的对话，连同几句寒暄，接在一起。<!-- by: assert 0.1 < strings / len(chats) < 0.2 -->聊天不会只问一句；没练过这样的对话，模型会越聊越乱，{numref}`第 %s 章 <sec-sft>` 会量给你看。
#
# ### 训练永远不问的
#
# 怎样知道模型学会了，而不是背下了？办法是留出。上一章留出的是几百篇文字，这里留出的是*题*：把一类问题的全部组合排成一张表，比如 48 个人，每人六件事可问，一种组合就是一格，整张表叫这类问题的*空间*；每个空间划出大约五分之一的格子，训练从不问它们。划出哪些格子，由**哈希值**（hash）决定：它由内容算出，看不出规律，同样的内容却永远得到同样的值。所以增加一个人，不会挪动别人的格子。<!-- by: assert 0.14 < min(apart) < 0.2 < max(apart) < 0.25 -->

# %%
spaces = {
    "人 × 属性": exercises.FACTS,
    "两个加数": exercises.SUMS,
    "两样商品": exercises.BASKETS,
    "东西 × 地点": exercises.PLACINGS,
    "起点 × 天数": exercises.DATES,
}
apart = [len(s.held_out) / (len(s.train) + len(s.held_out)) for s in spaces.values()]
assert 0.14 < min(apart) < 0.2 < max(apart) < 0.25
show.table(
    ["空间", "训练会问", "留出"],
    [[name, len(s.train), len(s.held_out)] for name, s in spaces.items()],
)

# %% [markdown]
# “人 × 属性”整个画出来，就是 {numref}`fig-data-facts`：48 个人，每人六格。

# %% tags=["hide-input"] mystnb={"figure": {"caption": "人 × 属性的全部格子。蓝的训练会问，空的训练从不问。圈出的是“张静住在哪里”。", "name": "fig-data-facts"}, "image": {"alt": "三排方格，每排 16 个人，各有工作、城市、食物、爱好、宠物、颜色六格；大多数是蓝的，空格零零散散，张静的城市是空格，圈了出来"}}
facts = dict.fromkeys(exercises.FACTS.train, drawings.ASKED_KIND)
facts |= dict.fromkeys(exercises.FACTS.held_out, drawings.HELD_KIND)
assert len(facts) == 48 * 6
assert ("张静", "城市") in exercises.FACTS.held_out
assert len(exercises.FACTS.held_out) < 0.2 * len(facts)
people, attributes = tuple(words.PEOPLE), tuple(words.ATTRIBUTES)
drawings.held_out_cells(people, attributes, facts, ("张静", "城市"), bands=3, size=0.25)

# %% [markdown]
# 训练会问张静做什么工作，从不问她住在哪里；会问王勇住在哪里。于是“住在哪里”这种问法练过，“张静”也练过，只有两样碰在一起的那一格没练过。答得对，就不是背下了这道题。
#
# 两个加数的格子见 {numref}`fig-data-sums`。加数不分先后，一格也管着减法：8 加 4 留出，4 加 8、12 减 4 和 12 减 8 也就一起留出。
#
# 加数还有一层。题目有两种问法：直接问得数（`8加7等于几？`），或者请它数着算（`8加7等于几？请数着算。`）。训练会问的 76 格里，38 格两种都问（深蓝）；另外 38 格，微调只请它数着算，从不直接问得数（浅蓝）。浅蓝的留给{numref}`第 %s 章 <sec-thinking>`：那里要看模型会不会自己想到去数，就不能让它先背过得数。<!-- by: assert len(asked) == len(explored) == 38 --><!-- by: 38 + 38 == 76 -->

# %% tags=["hide-input"] mystnb={"figure": {"caption": "两个加数的格子：横看大的，竖看小的，和不超过 20。深蓝的训练两种问法都有，浅蓝的只请它数着算，空的训练从不问。圈出的是 8 加 4。", "name": "fig-data-sums"}, "image": {"alt": "一片倒三角形的方格，深蓝、浅蓝和空格混在一起；8 和 4 的一格是空的，圈了出来"}}
asked, explored, held_out = (exercises.SUM_POOLS[pool] for pool in ("sft", "rl", "test"))
assert len(asked) == len(explored) == 38
assert set(asked) | set(explored) == set(exercises.SUMS.train)
assert held_out == exercises.SUMS.held_out
assert (8, 4) in held_out
sums = dict.fromkeys(asked, drawings.BOTH_KIND) | dict.fromkeys(explored, drawings.COUNTED_KIND)
sums |= dict.fromkeys(held_out, drawings.HELD_KIND)
drawings.held_out_cells(range(1, 20), range(1, 11), sums, (8, 4), size=0.25)

# %% [markdown]
# 张静住的城市、8 加 4，都在留出的格子里：全书要问的头两句，训练一次也不会问。
# 不过留出的档案在文档里有*陈述*（“张静的家在北京。”），否则模型无从知道。要考的是：读到过的事，换成提问，会不会答。
#
# ### 考卷有十类题
#
# 留出的格子里的题，组成全书的考卷。题目一共十类，以后各章都用这些名字：<!-- by: assert len(exercises.KINDS) == len(asks) == 10 -->

# %% tags=["hide-input"]
asks = {
    "fact": "某人的一件事",
    "phrasing": "同上，换一种没见过的问法",
    "reading": "读一段故事再回答",
    "multi_turn": "接着上一句追问",
    "choice": "四选一",
    "calendar": "几天或几个月以后",
    "add": "直接问和是多少",
    "sub": "直接问差是多少",
    "chain": "请它数着算",
    "shop": "两样商品一共多少钱",
}
assert len(exercises.KINDS) == len(asks) == 10
first = {kind: scoring.questions(kind, 1)[0] for kind in asks}
examples = {k: " ▸ ".join(content for _, content in q.messages) for k, q in first.items()}
show.table(["名字", "问什么", "一道留出的题"], [[k, asks[k], examples[k]] for k in asks])

# %% [markdown]
# ## 手算
#
# ### 一条写几遍
#
# 类别有大有小。数学题往往只有几千道，闲聊却有几十万条。照原样混在一起，模型很难见到数学。
# 配比就是事先定下每一类写几行，多了抽样，少了重复。
#
# 一类有 $n$ 条不同的数据，目标是 $m$ 行，每条写几遍？做一次带余除法：
#
# ```{math}
# :label: eq-data-quota
# m = q\,n + r, \qquad 0 \le r < n
# ```
#
# $q$ 是商，$r$ 是余数。打乱以后，前 $r$ 条写 $q+1$ 遍，其余的写 $q$ 遍。这样任何两条的遍数最多差 1。
#
# 拿小数字算一遍：A 类有 7 条，目标 4 行；B 类有 2 条，目标 5 行。
#
# - A：$4 = 0 \times 7 + 4$。四条写 1 遍，三条不写。这是抽样。
# - B：$5 = 2 \times 2 + 1$。一条写 3 遍，一条写 2 遍。这是重复。
#
# 包里做这件事的是 `even_copies`。代入同样的数：


# %%
def copies(different: int, target: int) -> list[int]:
    return mix.even_copies(different, target).tolist()


assert copies(7, 4) == [1, 1, 1, 1, 0, 0, 0]
assert copies(2, 5) == [3, 2]
copies(7, 4), copies(2, 5)

# %% [markdown]
# ### 按行和按词元，是两回事
#
# 按行看，B 占 $5/9 = 56\%$。但模型读的不是行，是词元，也就是字、词这样的小段（{numref}`第 %s 章 <sec-bpe>`）；一行长，词元就多。假如 A 每行 30 个词元，B 每行 6 个：
#
# ```{math}
# :label: eq-data-share
# s_i = \frac{m_i\,\ell_i}{\sum_j m_j\,\ell_j}
# ```
#
# $m_i$ 是第 $i$ 类的行数，$\ell_i$ 是平均每行的词元数，$s_i$ 是它占全部词元的份额。A 有 $4 \times 30 = 120$ 个词元，B 有 $5 \times 6 = 30$ 个。B 的份额从 56% 掉到 20%。

# %%
rows_of, length = {"A": 4, "B": 5}, {"A": 30, "B": 6}
tokens_of = {name: rows_of[name] * length[name] for name in rows_of}
share = {name: tokens / sum(tokens_of.values()) for name, tokens in tokens_of.items()}
assert share == {"A": 0.8, "B": 0.2}
assert round(5 / 9, 2) == 0.56
share

# %% [markdown]
# 所以报告配比时要说清楚按什么算。命令行按行定目标，报告里两样都写。
#
# ### 真实数据的比例
#
# 不加参数时，`scripts/build_chinese_mix.py` 用 {numref}`tab-data-targets` 里的目标。它们是 nanochat {cite:p}`karpathy2025nanochat` 的比例：四十六万条对话，十万道选择题，八千道数学题，一千条身份对话写两遍；另加六万对偏好数据，规模和 UltraFeedback {cite:p}`cui2023ultrafeedback` 相近。
#
# :::{table} 默认的训练行数
# :name: tab-data-targets
#
# | 类别 | 目标（行） | 份额 | 内容，例如 |
# |---|---|---|---|
# | `general` | 460,000 | 73.0% | 多轮对话：BELLE {cite:p}`ji2023belle`、中文 ShareGPT |
# | `knowledge` | 100,000 | 15.9% | 知识题：CLUE {cite:p}`xu2020clue`、CMMLU {cite:p}`li2023cmmlu`，改写成问答 |
# | `math` | 8,000 | 1.3% | 应用题：CMath {cite:p}`wei2023cmath`、math401 |
# | `identity` | 2 × 1,000 | 0.3% | 人设和自我介绍 |
# | `preference` | 60,000 | 9.5% | 偏好对：中文 UltraFeedback，或者自己做的 |
# :::
#
# 还有第六类 `text`：只给预训练读的纯文本，没有目标，有多少读多少。份额用默认值核对一遍：

# %%
target = {name: mix.MixOptions().target(name) for name in categories.CATEGORIES if name != "text"}
target["identity"] *= mix.MixOptions().identity_repeat
total = sum(target.values())
assert total == 630_000
assert (target["math"], target["preference"]) == (8_000, 60_000)
{name: f"{rows / total:.1%}" for name, rows in target.items()}

# %% [markdown]
# ## 真实代码
#
# ### 划格子的只有几行
#
# 留出的格子怎样来？给空间起一个名字，和格子连成一串字，取哈希值的第一个字节，能被 5 整除的就留出。一个字节是 0 到 255，其中 52 个能被 5 整除，约五分之一：<!-- by: round(52 / 256, 1) == 0.2 and 255 // 5 + 1 == 52 -->

# %%
show.source(exercises.split)

# %% [markdown]
# 没有随机数，也没有名单。改了哪一格的内容，只有那一格可能换边；别人在别的机器上运行，划出来的一样。文档也这样划分：由它的文字算出哈希值，值小的那百分之一用来验证，无论它出现几次、在哪个文件里，永远在同一边。<!-- by: minillm/data/mix.py -->
#
# ### 写几遍，一次除法
#
# {eq}`eq-data-quota` 在包里是这样：

# %%
show.source(mix.even_copies)

# %% [markdown]
# 次序很要紧：先去重，再划分，**最后才重复**。“弄坏它”里把次序反过来，看它坏在哪里。
#
# 其余的代码是数据工程：认得十几种别人的格式，坏行隔离起来并写明理由，几十万行在有限的内存里打乱，最后留下一份报告。要用自己的数据时，见附录 {ref}`sec-data-engineering`。
#
# ## 实验
#
# ### 全书读的，算术给得多
#
# `lab.data()` 生成全书要用的数据；命令行的写法是 `python scripts/build_chinese_mix.py --preset tiny`。每一类占多少行、多少词元？词元用全书的分词器（1,024 个词元，{numref}`第 %s 章 <sec-bpe>`）来数，一行不漏。

# %%
report = json.loads((lab.data() / "mix_report.json").read_text(encoding="utf-8"))
tokenizer = lab.tokenizer()
row_count, token_count = Counter(), Counter()
for stage in ("pretrain", "dpo"):
    for record in read(lab.data() / f"{stage}_chinese.jsonl"):
        category = record.raw["source"].removeprefix("builtin:").split("_")[0]
        row_count[category] += 1
        token_count[category] += len(tokenizer.encode(plain_text(record.row)))
assert all(row_count[name] == c["rows"] for name, c in report["categories"].items())
print(f"{row_count.total():,} rows, {token_count.total():,} tokens")

# %% tags=["hide-input"] mystnb={"figure": {"caption": "微世界的数据：每类占全部行数（灰圈）和全部词元数（蓝点）的百分比，右边写着数。横轴取对数，小的几类才分得开：同样的距离是同样的倍数。六类依次是 text、general、knowledge、math、identity、preference。", "name": "fig-data-shares"}, "image": {"alt": "六类数据各一行，灰圈是行的份额，蓝点是词元的份额，横轴取对数；头一类的圈和点重合，身份和偏好的点在圈的右边"}}
names = dict(
    zip(
        categories.CATEGORIES, ("文档", "闲聊问答", "选择日历", "算术", "身份", "偏好"), strict=True
    )
)
share = {}
for name, label in names.items():
    counts = ((row_count[name], row_count), (token_count[name], token_count))
    share[label] = tuple(100 * count / all_counts.total() for count, all_counts in counts)
assert max(share["身份"]) < 1
assert share["算术"][0] > 5 * 1.3
assert all(share[label][1] > share[label][0] for label in ("身份", "偏好"))
drawings.paired_shares(share, ("行", "词元"))

# %% [markdown]
# 手算里，同一类的两种份额差得远；这里差得不多，因为微世界各类的行长相近。和 {numref}`tab-data-targets` 比，算术的份额大得多：小模型要学会数数，就得多给，下一节量给你看。<!-- by: assert share["算术"][0] > 5 * 1.3 -->身份对话不到百分之一，模型记得住自己的名字吗？{numref}`第 %s 章 <sec-identity>` 会量。<!-- by: assert max(share["身份"]) < 1 -->
#
# :::{admonition} 真实世界
# :class: real-world
#
# Llama 3 的报告 {cite:p}`grattafiori2024llama3` 按词元写配比：一般知识约占 50%，数学和推理 25%，代码 17%，多语种 8%，一共 15.6 万亿个词元。去重分三层：网址，整篇（差不多的也算重复），行。每 3,000 万篇里出现超过 6 次的行一律删去，导航栏和 Cookie 提示没有了，一些常见的好句子也没有了；量下来，模型还是更好。<!-- by: @grattafiori2024llama3 -->
#
# 读得越来越多：DeepSeek-V3（2024）14.8 万亿个词元 {cite:p}`deepseek2024v3`，Qwen2.5（2024）18 万亿 {cite:p}`yang2024qwen25`，Qwen3（2025）36 万亿 {cite:p}`yang2025qwen3`，DeepSeek-V4（2026）超过 32 万亿 {cite:p}`deepseek2026v4`。Llama 3 的语料没有公开，别人也就查不了它的留出集。公开的有 FineWeb，从 96 次网页抓取里洗出 15 万亿个词元，连清洗的程序一起给出 {cite:p}`penedo2024fineweb`。（2026 年 11 月核对。）<!-- by: @penedo2024fineweb --><!-- by: @yang2025qwen3 -->
# :::
#
# ### 没给它读的，它不会
#
# 回到开头的谜。几个模型都从书里预训练过的那一个出发（怎样预训练，{numref}`第 %s 章 <sec-pretrain>`讲），都读四千段对话，一遍读完，只有算术占的份额不同：没有，40 段（1%），800 段（20%）；其余的问人物、故事、选择、日历。每种配比做两次，换一批对话，也换一个种子。考的都是留出的格子，60 题（{numref}`fig-data-mixes`）。<!-- by: 0.01 * 4000 == 40 and 0.2 * 4000 == 800 -->

# %% tags=["hide-input"] mystnb={"figure": {"caption": "算术占对话的份额不同，留出的题答对多少。横线连着两次训练的分数，点是平均。", "name": "fig-data-mixes"}, "image": {"alt": "左右两格，每格三行，是算术占 0、1% 和 20%。左格考数着算加减，三个点从最左边移到最右边；右格考人物的事，三条横线互相重叠"}}
shares = {"没有算术": "sums 0%", "占 1%": "sums 1%", "占 20%": "sums 20%"}
panels = {
    title: {
        label: (sum(found) / len(found), min(found), max(found))
        for label, name in shares.items()
        for found in [measured(name, exam)]
    }
    for title, exam in (("数着算加减", "chain"), ("人物的事", "fact"))
}
assert [share * study["rows"] for share in (0.01, 0.2)] == [40, 800]
none, little, fifth = (measured(name, "chain") for name in shares.values())
assert max(none) < 0.05 < min(little) < max(little) < 0.2 < 0.8 < min(fifth)
on_people = [measured(name, "fact") for name in shares.values()]
assert max(min(found) for found in on_people) < min(max(found) for found in on_people)
show.intervals(panels, {"占 20%": show.COLOURS["sft"], "占 1%": show.COLOURS["other"]})

# %% [markdown]
# 没有算术的，一题也难答对，虽然预训练读过的文档里就写着怎样数。读过是一回事，被问到时拿得出来是另一回事，那要对话来教。给 40 段，十题里对一两题；给 800 段，对了八成以上。<!-- by: assert max(none) < 0.05 < min(little) < max(little) < 0.2 < 0.8 < min(fifth) --><!-- by: minillm/microworld/documents.py -->
#
# 这 800 段是从别的题那里挤出来的，别的题吃亏了吗？人物的题看不出来：三种配比的范围互相重叠，而同一种配比换一次训练，就差了十几到二十几个百分点。要看出更小的代价，得多做几次。<!-- by: assert max(min(found) for found in on_people) < min(max(found) for found in on_people) --><!-- by: book/results/mixes.json -->
#
# ### 重复出来的行，不算数
#
# 同样写 800 段算术，这回不同的没有那么多：200 段各写 4 遍，或者 8 段各写 100 遍。行数不变：<!-- by: 800 / 100 == 8 and 800 / 4 == 200 -->

# %%
times = {"800 段，各写 1 遍": 1, "200 段，各写 4 遍": 4, "8 段，各写 100 遍": 100}
once, four, hundred = (
    measured("sums 20%" + (f", each {n} times" if n > 1 else ""), "chain") for n in times.values()
)
assert len(once) == len(four) == len(hundred) == 2
assert max(hundred) < 0.25 < 0.6 < min(four) < max(four) < 0.8 < min(once)
show.table(
    ["算术", "第一次", "第二次"],
    [
        [label, *(f"{share:.0%}" for share in found)]
        for label, found in zip(times, (once, four, hundred), strict=True)
    ],
)

# %% [markdown]
# 写 100 遍的，从八成以上掉到至多两成：同样的 8 段反复读，学不会数。写 4 遍的，两次都还对七成多，比全是新的低一些。份额只说读了多少行，本事看的是读了多少*不同*的行。<!-- by: assert max(hundred) < 0.25 < 0.6 < min(four) < max(four) < 0.8 < min(once) --><!-- by: book/results/mixes.json -->
#
# 所以先去重，再决定重复几遍。真实的语料里也有人量过：整份语料读到四遍几乎不亏，再往后越来越不值 {cite:p}`muennighoff2023repeat`。那是上亿个词元的语料；这里总共才 200 段，四遍已经看得出亏。而重复的文字，模型会整段背下来 {cite:p}`lee2022dedup`。<!-- by: @muennighoff2023repeat --><!-- by: @lee2022dedup -->
#
# ### 留出集是干净的
#
# 考得出本事，前提是考题没有混进训练。口说无凭，逐项检查。第一项：没有一篇验证文档出现在训练文件里，三个阶段都按完全相同的文字比较。


# %%
@cache
def documents(name: str) -> set[str]:
    found = (r.row for r in read(lab.data() / name))
    return {
        "\n".join(m.content for m in row.chosen) if isinstance(row, rows.Pair) else plain_text(row)
        for row in found
    }


for stage in ("pretrain", "sft", "dpo"):
    train, val = (documents(f"{stage}_chinese{suffix}.jsonl") for suffix in ("", "_val"))
    both = train & val
    assert not both
    print(f"{stage}: {len(train):,} documents, {len(val)} for validation, in both: {len(both)}")

# %% [markdown]
# 上面数的是*不同的*文档，重复的行只算一次，所以和行数对不上。
#
# 第二项：考模型用的问题，训练对话里问过吗？每一类取 400 道留出的问题，和 SFT 文件里的每一个用户轮次比较，单独比，也连同它前面的一轮、两轮……一起比。
# 只看留出题的零还不够：万一这种比较本来就什么也找不到呢？所以再取 400 道训练会问的题，作为对照。<!-- by: reasoning -->

# %%
prompts = {
    tuple((m.role, m.content) for m in chat.messages[first : last + 1])
    for chat in chats
    for last in range(0, len(chat.messages), 2)  # a user's turn
    for first in range(0, last + 1, 2)
}
overlap = {
    kind: [
        sum(tuple(q.messages) in prompts for q in scoring.questions(kind, 400, held_out=held_out))
        for held_out in (False, True)
    ]
    for kind in exercises.KINDS
}
assert all(held_out == 0 for _, held_out in overlap.values())
assert min(overlap["fact"][0], overlap["phrasing"][0]) > 100
assert sorted(shared for shared, _ in overlap.values())[:4] == [0, 0, 1, 69]
show.table(
    ["", "训练会问的 400 题", "留出的 400 题"], [[k, *map(str, v)] for k, v in overlap.items()]
)

# %% [markdown]
# 右边全是零。左边有七类至少有 69 道原样出现过，说明比较是有效的。（`phrasing` 的左边用的是训练里有的问法，右边才是没见过的。）<!-- by: minillm/microworld/exercises.py --><!-- by: assert sorted(shared for shared, _ in overlap.values())[:4] == [0, 0, 1, 69] -->
#
# 但 `reading`、`choice`、`multi_turn` 的左边也是 0 或 1：故事和选项的组合太多，难得有两道题一字不差。对这几类，文字比较什么也证明不了。<!-- by: assert sorted(shared for shared, _ in overlap.values())[:4] == [0, 0, 1, 69] -->
#
# 所以第三项检查看格子：把每个用户轮次问的是谁、问的什么找出来，连同代词所指的人。

# %%
names = re.compile("|".join(words.PEOPLE))
label_of = {
    question.format(n=""): label
    for label, attribute in words.ATTRIBUTES.items()
    for question in (*attribute.questions, attribute.noun)
}
seen, name = set(), ""
for chat in chats:
    for said in (m.content for m in chat.messages if m.role == "user"):
        name = (names.findall(said) or [name])[-1]
        seen |= {(name, label) for text, label in label_of.items() if text in said}

assert seen == set(exercises.FACTS.train)
assert not seen & set(exercises.FACTS.held_out)
print(f"asked about: {len(seen)} of {len(exercises.FACTS.train)} cells for training,", end=" ")
print(f"{len(seen & set(exercises.FACTS.held_out))} of {len(exercises.FACTS.held_out)} held out")

# %% [markdown]
# 训练对话问遍了 241 个该问的格子，47 个留出的一个也没问，无论单问、连问还是选择题。故事、算术、买东西和日历的格子，项目的测试也这样逐格查。<!-- by: tests/microworld/test_microworld.py -->
#
# 还有一样要老实说。留出的加法从不作为题目出现，但它的*步子*会：数 8 加 5 要走五步，前四步正是 8 加 4 的全部步子。数一数有多少道留出的加法是这样：

# %%
corpus = "\n".join(documents("pretrain_chinese.jsonl"))
steps = [
    exercises.count(a, b, 1).split("步，")[1].split("，等于")[0] for a, b in exercises.SUMS.held_out
]
inside = sum(text in corpus for text in steps)
whole = sum(exercises.count(a, b, 1) in corpus for a, b in exercises.SUMS.held_out)
stated = sum(
    any(s.format(n=n, v=words.PEOPLE[n].facts[k]) in corpus for s in words.ATTRIBUTES[k].statements)
    for n, k in exercises.FACTS.held_out
)
assert (whole, stated) == (0, len(exercises.FACTS.held_out))
print(
    f"held-out sums: {len(steps)}; counted in full: {whole}; their steps in other counts: {inside}"
)
print(f"held-out facts: {len(exercises.FACTS.held_out)}; stated in some document: {stated}")

# %% [markdown]
# 所以“数着算”考的是组合：步子见过，这样从头数到尾的没见过。留出的档案则每一条都读得到，考的是把读到的说出来。以后每个分数都照这个意思读。
#
# ## 弄坏它
#
# ### 先重复，再切开
#
# 最常见的错误：先把数据重复到目标行数，再随机抽出十分之一来验证。看上去没有问题，抽走的行确实不再参加训练。<!-- by: reasoning -->
#
# 五条文档，各写三遍，画出来看（{numref}`fig-data-splits`）：

# %% tags=["hide-input"] mystnb={"figure": {"caption": "竖线右边用来验证。上：先重复、打乱，再切开，框出的在训练里也有。下：先切开，再重复训练的那些。", "name": "fig-data-splits"}, "image": {"alt": "两排写着甲乙丙丁戊的格子。上排竖线右边的三格都框了出来；下排竖线右边只有一格，没有框"}}
five = list("甲乙丙丁戊")
shuffled = five * 3
Random(0).shuffle(shuffled)
ways = {
    "先重复，再切开": (shuffled[3:], shuffled[:3]),
    "先切开，再重复": (five[1:] * 3, five[:1]),
}
assert set(shuffled[:3]) <= set(shuffled[3:])
assert "甲" not in five[1:]
drawings.two_splits(five, ways)

# %% [markdown]
# 重复过的文档有好几份，切一刀，两边都落得到。换成真的对话，各做一遍。1,000 条不同的数学对话，各写五遍：


# %%
def leaked(expanded: list[str], held_out: list[str]) -> int:
    return sum(document in set(expanded) for document in held_out)


def careless(documents: list[str], repeats: int) -> tuple[list[str], list[str]]:
    """Repeat, shuffle, cut: the mistake."""
    expanded = documents * repeats
    Random(0).shuffle(expanded)
    tenth = len(expanded) // 10
    return expanded[tenth:], expanded[:tenth]


def careful(documents: list[str], repeats: int) -> tuple[list[str], list[str]]:
    """Cut, then repeat what is for training."""
    different = list(dict.fromkeys(documents))
    Random(0).shuffle(different)
    tenth = len(different) // 10
    return different[tenth:] * repeats, different[:tenth]


# %%
generated = lessons.conversations("math", 1500, seed=42)
single = ["\n".join(t["content"] for t in turns) for turns in generated if len(turns) == 2]
quiz = [text for text in dict.fromkeys(single) if re.search(r"\n.*\d", text)][:1000]
results = []
for repeats in (1, 2, 5):
    for split in (careless, careful):
        train, val = split(quiz, repeats)
        results.append([repeats, split.__name__, len(val), leaked(train, val)])
assert [found for *_, found in results[2:]] == [182, 0, 500, 0]
named = {"careless": "先重复", "careful": "先划分"}
rows_ = [[n, named[way], *rest] for n, way, *rest in results]
show.table(["每条写几遍", "怎样划分", "验证行", "也在训练集里"], rows_)

# %% [markdown]
# 写五遍时，粗心的划分里每一行验证数据都在训练集里。写两遍时，200 行里有 182 行。
#
# ### 拿一本字典去考
#
# 它坏在哪里？坏在分数好看。做一个什么也没学的“模型”：把训练集里的问题和答数存进字典，查到就照念，查不到就认输。
# 字典有两种。一种按字面查，问题要一字不差。另一种只看题意：`5加3等于几？` 和 `请问5+3是多少？` 算同一个键。<!-- by: reasoning -->


# %%
def meaning(question: str) -> str:
    """5加3等于几？ → 5+3; a question without numbers stays as it is."""
    found = re.findall(r"\d+|[加减+-]", question)
    return "".join(found).translate(str.maketrans("加减", "+-")) or question


def dictionary_score(train: list[str], val: list[str], key=str) -> float:
    pairs = [[d.split("\n", 1) for d in documents] for documents in (train, val)]
    number = re.compile(r"\d+")
    known = {key(question): number.findall(answer)[-1] for question, answer in pairs[0]}
    return sum(known.get(key(q)) == number.findall(a)[-1] for q, a in pairs[1]) / len(val)


# %%
cells = [
    f"{question.messages[-1][1]}\n{question.answer}"
    for kind in ("add", "sub", "chain", "shop")
    for question in scoring.questions(kind, 60)
]
tried = {
    "重复以后随机划分": careless(quiz, 5),
    "重复以前随机划分": careful(quiz, 5),
    "按格子留出": (careful(quiz, 5)[0], cells),
}
scores = {n: [dictionary_score(*s, key) for key in (str, meaning)] for n, s in tried.items()}
assert scores["重复以后随机划分"] == [1.0, 1.0]
assert scores["重复以前随机划分"][0] <= 0.05
assert round(scores["重复以前随机划分"][1], 2) == 0.76
assert scores["按格子留出"] == [0.0, 0.0]
header = ["验证集怎样来", "按字面查的字典", "看题意的字典"]
show.table(header, [[n, *v] for n, v in scores.items()], [None, *[show.COLOURS["bad"]] * 2])

# %% [markdown]
# 第一行：泄漏的验证集，一本字典就得满分。第二行：整条文字没有泄漏了，一字不差的问题几乎没有；可是同一道题换个问法还在训练集里，看题意的字典还是答对了 76%。<!-- by: assert scores["重复以前随机划分"][0] <= 0.05 --><!-- by: assert round(scores["重复以前随机划分"][1], 2) == 0.76 -->
#
# 第三行是我们的做法：整个格子留出，两本字典都得零分。在这样的题上得的分，不是查表得来的。
#
# ### 混进了考题，它只记住那几道
#
# 字典会背，真的模型呢？照上面“占 20%”的配比再训练两次，只改一处：留出的 24 格加数，有 12 格混进了微调的对话。考卷分成两半，都直接问得数，各 60 题。这些题本来就难，不数步子，干净的模型也答不对几道：

# %%
halves = {"泄漏的 12 格": "add leaked", "没有泄漏的 12 格": "add clean"}
mixes = {"干净": "sums 20%", "混进了 12 格": "sums 20%, half leaked"}
found = {(m, h): measured(mixes[m], halves[h]) for m in mixes for h in halves}
assert {len(scores) for scores in found.values()} == {2}
(before, other_before), (after, other_after) = ([found[m, h] for h in halves] for m in mixes)
assert max(before) <= 0.2 < 0.4 < min(after)
assert max(other_after) <= min(other_before)
show.table(
    ["训练数据", *halves],
    [[m, *("、".join(f"{share:.0%}" for share in found[m, h]) for h in halves)] for m in mixes],
)

# %% [markdown]
# （每格是两次的分数。）泄漏的那 12 格，从至多两成涨到四成以上；另外那 12 格，没有变好。<!-- by: assert max(before) <= 0.2 < 0.4 < min(after) --><!-- by: assert max(other_after) <= min(other_before) -->
#
# 两半合成一张卷子，混进了考题的模型就好看得多。可是它没有学会加法，只是记住了泄漏的那几道：分数涨了，本事没涨。要不是另外留着 12 格，谁也看不出来。<!-- by: assert max(other_after) <= min(other_before) -->
#
# 怎样发现泄漏？三个办法：看验证损失是不是低得可疑，甚至低于训练损失；像上面那样求交集；拿一本字典去考。
#
# ## 收尾
#
# 书里的模型还没有动，它仍是一堆随机数。变的是它面前有了什么：

# %%
show.table(
    ["", "之前", "现在"],
    [
        ["训练数据", "没有", f"{row_count.total():,} 行，{token_count.total():,} 个词元"],
        ["验证文档", "没有", f"{report['outputs']['pretrain_chinese_val.jsonl']:,} 篇"],
        ["张静住在哪里？", "没有任何文字说起", "文档里写着，训练从不问"],
        ["8加4等于多少？", "没有任何文字说起", "留出：训练从不算"],
        ["你是谁？", "没有任何文字说起", f"{row_count['identity']} 行身份对话"],
    ],
)

# %% [markdown]
# 有了文字，还要切成模型认得的小段：下一章（{numref}`第 %s 章 <sec-bpe>`）讲汉字怎样变成词元。
#
# ### 小结
#
# - 微世界封闭，所以每个回答都能判对错。
# - 配比就是给每类定行数：多了抽样，少了重复，遍数最多差 1。
# - 份额按行和按词元不是一回事，报告两样都写。
# - 没给它读的，它不会；给得少，学得少；几段反复读，学不会做法；考题混进训练，它只记住那几道。
# - 先去重，再划分，最后重复。留出集用断言检查，不靠相信。
#
# ### 练习
#
# :::{exercise} ★☆☆
# :label: ex-data-1
# 算一算：数学只找到 1,500 条，验证留出 15 条，目标是 8,000 行。每条写几遍？写得多的有几条？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 先去掉验证的 15 条，余下的才是 {eq}`eq-data-quota` 里的 $n$。
# :::
#
# :::{solution} ex-data-1
# :class: dropdown
# 训练有 $1500 - 15 = 1485$ 条。$8000 = 5 \times 1485 + 575$，所以 575 条写 6 遍，910 条写 5 遍。核对：$575 \times 6 + 910 \times 5 = 8000$。<!-- by: 8000 - 5 * 1485 == 575 and 1485 - 575 == 910 -->
# :::
#
# :::{exercise} ★★☆
# :label: ex-data-2
# 写代码：{numref}`fig-data-facts` 里，有没有人的六格全都会问？有没有人只剩两格会问？数一数，留出 0、1、2……格的各有几个人。如果哪个人六格全留出了，会有什么问题？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# `Counter(name for name, _ in exercises.FACTS.held_out)` 给出每个人留出几格；没有留出的人不在里面。
# :::
#
# :::{solution-start} ex-data-2
# :class: dropdown
# :::

# %%
of_person = Counter(name for name, _ in exercises.FACTS.held_out)
cells_of = Counter(of_person[name] for name in words.PEOPLE)
assert sum(cells_of.values()) == 48
assert sum(n * people for n, people in cells_of.items()) == len(exercises.FACTS.held_out)
assert 0 < max(cells_of) < 6
dict(sorted(cells_of.items()))

# %% [markdown]
# 有 19 个人六格全都会问。没有人只剩两格：留出最多的三个人，也还有三格会问，张静就是其中一个。要是谁的六格全留出了，训练对话里就从来不提这个名字；再考他，考的是“没见过的名字怎样答”，不是“没问过的事怎样答”，两件事混在一起，分数就说不清了。<!-- by: assert 0 < max(cells_of) < 6 -->
#
# :::{solution-end}
# :::
#
# :::{exercise} ★☆☆
# :label: ex-data-3
# 弄坏它：在一条文档的末尾加一个空格，再算一次 `mix.fingerprints`：它给一条文档算两个哈希，一个用来去重，一个定它在训练还是验证。去重还认得出它吗？一篇验证文档这样改过以后，会不会混进训练集？
# :::
#
# :::{solution-start} ex-data-3
# :class: dropdown
# :::

# %%
text = "张静的家在北京。"
prints = [mix.fingerprints(rows.Text(t), seed=42) for t in (text, text, text + " ")]
assert prints[0] == prints[1]
assert prints[0] != prints[2]
[[part.hex() for part in both] for both in prints]

# %% [markdown]
# 认不出。两个哈希都变了，所以改过的文档可能落到另一边。配比时只去掉完全相同的内容；{cite:t}`lee2022dedup` 还去掉近似的内容，用的是 MinHash（给每篇算一小串数，两篇越像，相同的数越多）。网页和古诗词都该先这样洗过，办法见{numref}`第 %s 章 <sec-scale>`和{numref}`第 %s 章 <sec-poems>`。<!-- by: minillm/data/mix.py -->
#
# :::{solution-end}
# :::
#
# :::{exercise} ★☆☆
# :label: ex-data-4
# 想一想：`sft_chinese_val.jsonl` 里的对话没有一场在训练集里。为什么还需要 `scoring.questions` 的留出题？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 验证文件里的问题，和训练里的问题问的是不是同样的格子？
# :::
#
# :::{solution} ex-data-4
# :class: dropdown
# 验证对话和训练对话来自同样的格子：它问的每一个（人，属性），训练都用别的说法问过。它量的是“同一种题答得怎样”，适合看损失何时不再下降。留出题问的是从没问过的格子，量的是“学到的做法能不能用到新的事情上”。两样都要，名字不能混。
# :::
#
# :::{exercise} ★★☆ 动手：先划分，再重复
# :label: ex-data-divide
# 把这一章的规矩写成一个函数。`divide(documents, is_held_out, target)` 返回两个列表 `(train, val)`：
#
# - 相同的文档只算一条，按第一次出现的次序；
# - `is_held_out(document)` 为真的进 `val`，每条写一遍；
# - 其余的 $n$ 条进 `train`，一共写 `target` 行（{eq}`eq-data-quota`）：次序不变，同一条的几遍挨着，余数由前面几条各多写一遍。
#
# 一条训练的也没有，`train` 就是空的。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# `dict.fromkeys` 去掉重复，又保住次序；`divmod(target, n)` 给出商和余数。
# :::


# %%
def divide(documents: list[str], is_held_out, target: int) -> tuple[list[str], list[str]]:
    return ...


tasks.check("2.1", divide)

# %% [markdown]
# :::{solution} ex-data-divide
# :class: dropdown
# ```python
# def divide(documents, is_held_out, target):
#     different = list(dict.fromkeys(documents))
#     val = [d for d in different if is_held_out(d)]
#     train = [d for d in different if not is_held_out(d)]
#     if not train:
#         return [], val
#     q, r = divmod(target, len(train))
#     return [d for i, d in enumerate(train) for _ in range(q + (i < r))], val
# ```
# 三步的次序换不得：先重复再划分，`val` 里同一条就有好几遍，`target` 也不再是训练的行数。`is_held_out` 只看内容，所以语料多一条少一条，别的文档站在哪边都不变。
# :::
#
# :::{exercise} ★★★ 动手：查出泄漏的题
# :label: ex-data-leaks
# 下载来的语料里可能混着你的考题：换了标点，加了引号，夹在一篇长文当中，求交集查不出来。写出 `find_leaks(train, quiz, threshold)`，返回 `quiz` 里泄漏了的题，次序不变。办法是比三字串：
#
# - 标点和空白不算，只留 `str.isalnum()` 为真的字，再取出每三个相邻的字；一段文字的三字串是一个集合，相同的只算一个；
# - 一道题的三字串，如果有不少于 `threshold` 的份额出现在*同一篇*训练文档里，这道题就算泄漏了。
#
# 例如“8加4等于多少？”有五个三字串：`8加4`、`加4等`、`4等于`、`等于多`、`于多少`。“5加3等于多少？”里有其中的两个，份额是 0.4。每道题都不少于三个字。<!-- by: 2 / 5 == 0.4 -->
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 写一个小函数 `runs(text)`，返回三字串的集合；两个集合的交是 `&`。训练文档的集合在循环外面先算好，不要每道题都算一遍。
# :::


# %%
def find_leaks(train: list[str], quiz: list[str], threshold: float) -> list[str]:
    return ...


tasks.check("2.2", find_leaks)

# %% [markdown]
# :::{solution} ex-data-leaks
# :class: dropdown
# ```python
# def find_leaks(train, quiz, threshold):
#     def runs(text):
#         text = "".join(c for c in text if c.isalnum())
#         return {text[i : i + 3] for i in range(len(text) - 2)}
#
#     documents, found = [runs(document) for document in train], []
#     for question in quiz:
#         wanted = runs(question)
#         if any(len(wanted & runs_) / len(wanted) >= threshold for runs_ in documents):
#             found.append(question)
#     return found
# ```
# 分母只用题目的三字串，不用两边合起来的：文档可以很长，题目只占一角，除以合起来的就漏掉了。也不能先把所有文档的三字串并成一个集合：语料一大，什么题都凑得齐。换了说法的题它仍然认不出，`5加3` 和 `5+3` 没有一个三字串相同；那要靠按格子留出。
# :::
#
# ### 延伸阅读
#
# - {cite:t}`eldan2023tinystories`：为什么小世界能教出会说话的小模型。
# - {cite:t}`lee2022dedup`：重复的数据怎样让模型背诵，近似去重怎样做。
# - {cite:t}`karpathy2025nanochat`：默认比例的出处，那里是英文数据。
