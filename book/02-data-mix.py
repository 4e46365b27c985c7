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
# - **你将学会**：认识全书要用的微世界；算出每类数据写几行、重复几遍；把别人的数据读成统一的格式；把坏行隔离并写明理由；证明留出集没有泄漏。
# - **需要时间**：阅读 30 分钟，运行约 20 秒。
# - **需要内存**：不到 1 GB。
# - **用到的模块**：`minillm.microworld.scoring`、`minillm.data.rows`、`minillm.data.formats`、`minillm.data.mix`。
# :::

# %%
import json
import re
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from random import Random

from minillm.book import lab, show
from minillm.data import categories, formats, mix, rows
from minillm.data.readers import read
from minillm.data.rows import plain_text
from minillm.microworld import documents, exercises, lessons, scoring, words

import numpy as np

lab.start()

# %% [markdown]
# ## 开场
#
# 全书问模型同样的三个问题。模型现在还是随机权重，它这样回答：

# %% tags=["nbval-ignore-output"]
show.spine({"fresh": lab.showcase(lab.fresh())})

# %% [markdown]
# 它没有读过任何东西。它的 87 万个参数里没有张静，也没有加法。<!-- by: round(869504 / 10000) == 87 -->
#
# 这一章不训练模型。我们准备它将要读的文字，并且事先划出一部分文字和问题，训练永远不用，只用来考它。
#
# ### 一个封闭的世界
#
# 真实的中文太大。不到一百万个参数装不下中文，装得下也没法检查：模型说某人住在成都，我们不知道对不对。<!-- by: 869504 < 10**6 -->
#
# {cite:t}`eldan2023tinystories` 的办法是把世界变小：只用幼儿认识的词写故事，几百万参数的模型就能写得通顺。
# 我们再走一步，把世界封闭起来：48 个人、20 种商品、16 样东西、10 种动物，二十以内的加减，星期和月份。每个问题的答案都查得到。
#
# 这就是张静的全部档案。三个问题里的第一个，答案是北京。

# %%
assert words.PEOPLE["张静"].facts["城市"] == "北京"
words.PEOPLE["张静"].facts

# %% [markdown]
# 世界里的一切都由一个随机种子写成文字，一共三种：**语料**（corpus）里的文档，给预训练；对话，给监督微调；**偏好对**（preference pair），即同一个问题的一好一差两个回答，给偏好优化。各看几条。

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
# 人的档案写在文档里，每条档案有五种说法。故事、数数、逛商店、日历各有各的文档。
#
# 对话的回答偶尔带一句客气话，多半没有。偏好对教的是：答对，并且客气。好的那一句两样都有；差的那一句缺一样，要么答对了却不客气，要么客气却答错了。全书 1,500 对里，差的一句有 483 个是客气而错的，所以光学会客气还不够（{numref}`第 %s 章 <sec-dpo>`）。数一数：<!-- by: assert (len(pairs), all(good), sum(bad)) == (1500, True, 483) -->

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
# 对话里有一到两成是一*串*：几段不相干的对话，连同几句寒暄，接在一起。<!-- by: assert 0.1 < strings / len(chats) < 0.2 -->聊天不会只问一句；没练过这样的对话，模型从第二问起就会答乱，{numref}`第 %s 章 <sec-sft>` 会量给你看。
#
# ### 训练永远不问的
#
# 怎样知道模型学会了，而不是背下了？办法是**留出集**（held-out set）：在每一类问题的空间里划出大约五分之一的格子，训练从不问它们。格子由哈希值决定，所以增加一个人，不会挪动别人的格子。<!-- by: assert 0.14 < min(apart) < 0.2 < max(apart) < 0.25 -->

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
assert ("张静", "城市") in exercises.FACTS.held_out
assert (8, 4) in exercises.SUMS.held_out
show.table(
    ["空间", "训练会问", "留出"],
    [[name, len(s.train), len(s.held_out)] for name, s in spaces.items()],
)
asked, explored, held_out = (set(exercises.SUM_POOLS[pool]) for pool in ("sft", "rl", "test"))
assert len(asked) == len(explored) == 38
assert asked | explored == set(exercises.SUMS.train)
assert held_out == set(exercises.SUMS.held_out)

# %% [markdown]
# 两个加数，训练会问的 76 格又对半分。38 格随便问；另外 38 格，微调只说“请数着算”，从不直接问得数。直接问它们是{numref}`第 %s 章 <sec-thinking>` 的事：那里要模型自己发现数着算的好处，背过得数的题就没有什么可发现的。<!-- by: assert len(asked) == len(explored) == 38 --><!-- by: 38 + 38 == 76 -->
#
# 张静住的城市、8 加 4，都在留出的格子里。三个问题里的前两个，训练一次也不会问。
# 不过留出的档案在文档里有*陈述*（“张静的家在北京。”），否则模型无从知道。要考的是：读到过的事，换成提问，会不会答。
#
# ## 手算
#
# 类别有大有小。数学题往往只有几千道，闲聊却有几十万条。照原样混在一起，模型很难见到数学。
# **数据配比**（data mixture）就是事先定下每一类写几行，多了抽样，少了重复。
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
# 餐巾纸上的例子：A 类有 7 条，目标 4 行；B 类有 2 条，目标 5 行。
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
# 按行看，B 占 $5/9 = 56\%$。但模型读的是**词元**（token），不是行。假如 A 每行 30 个词元，B 每行 6 个：
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
# ### 默认的比例
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
{name: f"{rows / total:.1%}" for name, rows in target.items()}

# %% [markdown]
# ## 真实代码
#
# 数据这样流过 `mix.build`。一行只在扫描时认一次：外来的格式当场改写成统一的格式，再留下一张便条，记着这一行的哈希和位置。选择和打乱只看便条，最后才按位置去取文字。

# %% mystnb={"figure": {"caption": "数据配比的两遍扫描。第一遍只记下每行的位置和哈希；选好以后，第二遍按位置去取。", "name": "fig-data-flow"}, "image": {"alt": "五个方框从左到右由箭头相连：文件、扫描、选择、打乱、写出；扫描每行记 37 字节，写出预训练、SFT、DPO 三种文件"}}
assert mix.NOTE.itemsize == 37
show.flow(
    [
        ("files", "data/chinese/\n*.jsonl"),
        ("scan", "37 bytes\nper row"),
        ("choose", "targets,\nheld-out set"),
        ("shuffle", "random\nnumbers"),
        ("write", "pretrain, sft,\ndpo .jsonl"),
    ]
)

# %% [markdown]
# ### 三种行
#
# 世界上的数据格式很多，我们只认三种意思：一段文字、一场对话、一对对话。

# %%
show.source(rows.Text, rows.Chat, rows.Pair)

# %% [markdown]
# 每种外来格式配一个很短的读取函数，把它变成这三种之一。下面是 BELLE 用的 alpaca 格式，以及 CMMLU 的选择题：

# %%
show.source(formats.read_alpaca, formats.read_question, formats.multiple_choice)

# %% [markdown]
# 一行是什么格式，由它有哪些字段决定：`FORMATS` 表里第一个字段齐全的就是。表里现在有这么多种格式：

# %%
print(len(formats.FORMATS), "formats:", "; ".join(f.name for f in formats.FORMATS))
show.source(formats.convert)

# %% [markdown]
# 试三条手写的行：一条 BELLE，一条 ShareGPT，一道存成 CSV 的 CMMLU。`read` 看文件的后缀，一行一行地读，不把整个文件放进内存。

# %%
belle = {"instruction": "把下面的词连成一句话。", "input": "小猫 河边", "output": "小猫在河边。"}
sharegpt = {
    "conversations": [
        {"from": "human", "value": "你好！"},
        {"from": "gpt", "value": "你好！想聊什么？"},
    ]
}
cmmlu = ",Question,A,B,C,D,Answer\n0,二十减去八等于,十,十一,十二,十三,C\n"

with tempfile.TemporaryDirectory() as folder:
    lines = [json.dumps(row, ensure_ascii=False) for row in (belle, sharegpt)]
    Path(folder, "dialogue.jsonl").write_text("\n".join(lines), encoding="utf-8")
    Path(folder, "quiz.csv").write_text(cmmlu, encoding="utf-8")
    found = [r.row for path in sorted(Path(folder).iterdir()) for r in read(path)]
assert all(isinstance(row, rows.Chat) for row in found)
for row in found:
    print([(m.role, m.content) for m in row.messages])

# %% [markdown]
# CMMLU 的答案只有一个字母 `C`。读取函数把选项的内容也抄进回答，这样模型学的是“十二”，不只是一个字母。
#
# ### 同一篇文档只在一边
#
# 一行属于训练还是验证，由文档的哈希值决定，不由它出现的次序决定：

# %%
show.source(mix.fingerprints)

# %% [markdown]
# 第一个哈希带着种子，用来排序和去重：内容相同的行哈希相同，排序以后成了邻居，`distinct` 在每一类里只留一个。同样的内容放进两类，就各留一个。
# 第二个哈希不带种子，也不管类别：一篇文档的值小于 `val_fraction` × $2^{64}$，它就是验证文档。于是同一篇文档无论出现几次、在哪个类别里，永远在同一边。

# %%
show.source(mix.distinct, mix.even_copies)

# %% [markdown]
# 次序很要紧：**先划分，再重复**。`choose_copies` 拿到去重后的便条，先看文档的哈希值属于哪边，训练这边的才按 {eq}`eq-data-quota` 重复。本章的“弄坏它”会把次序反过来。
#
# ### 有限内存里的打乱
#
# 六十三万行放不进小内存，怎样打乱？打乱的不是文字，是便条：扫描时每行记 37 字节，主要是哈希和位置，630,000 行一共 $630000 \times 37 = 23.3$ MB。选中的每一份发一个随机的 64 位号码，按号码排序，就是一个随机排列。文字留在磁盘上，最后才按位置一行一行去取，所以行再长，要的内存也不变多。用 2,000 行试一次：

# %%
show.source(mix.shuffled)

# %%
order = mix.shuffled(np.ones(2000, int), seed=0).tolist()
assert round(630_000 * mix.NOTE.itemsize / 1e6, 1) == 23.3
assert sorted(order) == list(range(2000))
assert order != sorted(order)
print(f"the first of 2000 indices in their random order: {order[:6]}")

# %% [markdown]
# ### 一行变几行
#
# 最后，一行写进哪些文件？对话既给 SFT，也作为一段文字给预训练；偏好对只给 DPO。别的字段原样保留，`source` 写明出处。

# %%
show.source(mix.stage_rows)

# %% [markdown]
# ## 实验
#
# ### 全书的数据
#
# `lab.data()` 生成全书要用的数据。命令行的写法是 `python scripts/build_chinese_mix.py --preset tiny`。每次构建都写一份 `mix_report.json`：

# %%
report = json.loads((lab.data() / "mix_report.json").read_text(encoding="utf-8"))
columns = ["read", "duplicates", "held_out", "target", "rows", "repeats", "validation_rows"]
show.table(
    ["", *columns],
    [[name, *(str(c[k]) for k in columns)] for name, c in report["categories"].items()],
)

# %% [markdown]
# 横着读一行。`knowledge`：读到 9,000 条，其中 610 条和别的一模一样，剩下 8,390 条；91 条不给训练（其中 90 条写进验证文件）；目标 9,000 行，所以有 701 行是重复。
# 训练集里重复太多，模型会背诵而不是学习 {cite:p}`lee2022dedup`，所以先去重，重复多少由我们决定，并且写在报告里。
#
# 每一类占多少行、多少词元？词元用全书的分词器（1,024 个词元，{numref}`第 %s 章 <sec-bpe>`）来数，一行不漏。

# %%
tokenizer = lab.tokenizer()
row_count, token_count = Counter(), Counter()
for stage in ("pretrain", "dpo"):
    for record in read(lab.data() / f"{stage}_chinese.jsonl"):
        category = record.raw["source"].removeprefix("builtin:").split("_")[0]
        row_count[category] += 1
        token_count[category] += len(tokenizer.encode(plain_text(record.row)))
assert all(row_count[name] == c["rows"] for name, c in report["categories"].items())
print(f"{row_count.total():,} rows, {token_count.total():,} tokens")

# %% tags=["hide-input"] mystnb={"figure": {"caption": "微世界的数据：每类占全部行数（灰）和全部词元数（蓝）的百分比。", "name": "fig-data-shares"}, "image": {"alt": "六类数据各两根横条，灰色是行的份额，蓝色是词元的份额；每根条的长度是百分数"}}
share = {}
for name in categories.CATEGORIES:
    share[f"{name}: rows"] = round(100 * row_count[name] / row_count.total(), 1)
    share[f"{name}: tokens"] = round(100 * token_count[name] / token_count.total(), 1)
assert max(share["identity: rows"], share["identity: tokens"]) < 1
show.bars(share, "share of the training data (%)", [show.GREY, show.COLOURS["other"]] * 6)

# %% [markdown]
# 身份对话不到百分之一。模型记得住自己的名字吗？{numref}`第 %s 章 <sec-identity>` 会量。<!-- by: assert max(share["identity: rows"], share["identity: tokens"]) < 1 -->
#
# ### 自己建一次，带着坏行
#
# 真实的数据里总有坏行。跳过它们，就没人知道丢的是什么；遇到就停，几十万行里有一行坏就建不成。我们的办法是**隔离区**（quarantine）：坏行写进 `quarantine.jsonl`，带着文件、行号和理由，其余照常。
# 下面两个文件里，`general` 的八行中有五行不能用，还有一行是重复；`math` 只有两行，目标却是四行。文件名的开头就是类别，后面不能紧跟别的拉丁字母。

# %%
good = json.dumps(belle, ensure_ascii=False)
general = [
    good,
    json.dumps(sharegpt, ensure_ascii=False),
    '{"instruction": "写一首诗。", "output": "床前',
    '{"instruction": "写一首诗。", "output": " "}',
    '{"messages": [{"role": "用户", "content": "你好"}]}',
    '{"title": "新闻", "body": "今天天晴。"}',
    '{"prompt": "你好", "chosen": "你好！", "rejected": "嗯。"}',
    good,
]
maths = ['{"query": "3+4=", "response": 7}', '{"question": "8-5=?", "answer": "3"}']


# %%
def build(folder: Path, **options) -> tuple[str, list[dict]]:
    (folder / "general_demo.jsonl").write_text("\n".join(general), encoding="utf-8")
    (folder / "math_demo.jsonl").write_text("\n".join(maths), encoding="utf-8")
    others = dict.fromkeys(("knowledge", "identity", "preference", "built_in_text"), 0)
    report = mix.build(mix.MixOptions(folder, folder / "out", **others, **options))
    bad = (folder / "out" / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    return report.table(), [json.loads(line) for line in bad]


# %%
with tempfile.TemporaryDirectory() as folder:
    table, bad = build(Path(folder), general=2, math=4, val_fraction=0)
assert len(bad) == 5
print(table)

# %%
show.table(
    ["文件", "行", "理由", "原文"],
    [[Path(b["path"]).name, b["line"], b["reason"], b["raw"][:40]] for b in bad],
)

# %% [markdown]
# 每条理由都说出字段和问题。第三行的 JSON 断了；第五行的角色写成了“用户”；第七行本身没错，但它是偏好对，应当放进名字以 `preference` 开头的文件。
# 数学只有两条，各写了两遍；偏好对一条也没有。报告的最后两行提醒这两件事。加上 `--strict`，遇到第一条坏行就停。
#
# 别的来源也是同样的路：`minillm import` 把下载好的 JSON、CSV、parquet 变成 `data/chinese/<类别>_<名字>.jsonl`，`minillm download` 直接去取（{numref}`第 %s 章 <sec-scale>`）。
#
# ### 留出集是干净的
#
# 口说无凭，逐项检查。第一项：没有一篇验证文档出现在训练文件里，三个阶段都按完全相同的文字比较。


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
# 第二项：考模型用的问题，训练对话里问过吗？每一类取 400 道留出的问题，和 SFT 文件里的每一个用户轮次比较，单独比，也连同它前面的一轮、两轮……一起比。
# 只看留出题的零还不够：万一这种比较本来就什么也找不到呢？所以再取 400 道训练会问的题，作为对照。

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
# 右边全是零。左边有七类至少有 69 道原样出现过，说明比较是有效的。<!-- by: assert sorted(shared for shared, _ in overlap.values())[:4] == [0, 0, 1, 69] -->
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
# 训练对话问遍了 241 个该问的格子，47 个留出的一个也没问，无论单问、连问还是选择题。
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
# 所以“数着算”考的是组合：步子见过，从哪里开始、走几步、在哪里停，没见过。留出的档案则每一条都读得到，考的是把读到的说出来。以后每个分数都照这个意思读。
#
# ## 弄坏它
#
# 最常见的错误：先把数据重复到目标行数，再随机抽出十分之一来验证。看上去没有问题，抽走的行确实不再参加训练。<!-- by: reasoning -->
#
# 我们各做一遍。1,000 条不同的数学对话，各写五遍：


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
show.table(["每条写几遍", "划分", "验证行", "也在训练集里"], results)

# %% [markdown]
# 写五遍时，粗心的划分里每一行验证数据都在训练集里。写两遍时，200 行里有 182 行。
#
# 它坏在哪里？坏在分数好看。做一个什么也没学的“模型”：把训练集里的问题和答数存进字典，查到就照念，查不到就认输。
# 字典有两种。一种按字面查，问题要一字不差。另一种只看题意：`5加3等于几？` 和 `请问5+3是多少？` 算同一个键。


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
# 怎样发现泄漏？三个办法：看验证损失是不是低得可疑，甚至低于训练损失；像上面那样求交集；拿一本字典去考。
#
# ## 收尾
#
# 这一章没有训练，三个问题的回答没有变。变的是模型面前有了什么：

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
# ### 小结
#
# - 微世界封闭，所以每个回答都能判对错。
# - 配比就是给每类定行数：多了抽样，少了重复，遍数最多差 1。
# - 份额按行和按词元不是一回事，报告两样都写。
# - 坏行进隔离区，带着理由；不静默跳过，也不因为一行停下。
# - 先去重，再划分，最后重复。留出集用断言检查，不靠相信。
#
# ### 练习
#
# :::{exercise}
# :label: ex-data-1
# 算一算：数学只找到 1,500 条，验证留出 15 条，目标是 8,000 行。每条写几遍？写得多的有几条？
# :::
#
# :::{solution} ex-data-1
# :class: dropdown
# 训练有 $1500 - 15 = 1485$ 条。$8000 = 5 \times 1485 + 575$，所以 575 条写 6 遍，910 条写 5 遍。核对：$575 \times 6 + 910 \times 5 = 8000$。<!-- by: 8000 - 5 * 1485 == 575 and 1485 - 575 == 910 -->
# :::
#
# :::{exercise}
# :label: ex-data-2
# 写代码：有人的数据是 `{"q": "…", "a": "…"}`。现在读它会怎样？给它写一个读取函数和一行 `Format`，不改动包里的文件，只验证它能读。
# :::
#
# :::{solution-start} ex-data-2
# :class: dropdown
# :::
#
# 现在它会进隔离区：没有一种格式有这两个字段。`read_question` 已经是现成的读取函数，只要说出字段名。

# %%
mine = {"q": "一年有几个月？", "a": "十二个月。"}
try:
    formats.convert(mine)
except rows.BadRow as error:
    print(error)
new = formats.Format("q, a", ("q", "a"), formats.read_question("q", "a"))
assert set(new.fields) <= set(mine)
row = new.read(mine)
assert row == formats.question_and_answer("一年有几个月？", "十二个月。")
row.messages

# %% [markdown]
# 要长期使用，就把这一行加进 `minillm/data/formats.py` 的 `FORMATS`。
#
# :::{solution-end}
# :::
#
# :::{exercise}
# :label: ex-data-3
# 弄坏它：在一条文档的末尾加一个空格，再算一次 `fingerprints`。去重还认得出它吗？一篇验证文档这样改过以后，会不会混进训练集？
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
# 认不出。两个哈希都变了，所以改过的文档可能落到另一边。本包只去掉完全相同的内容；{cite:t}`lee2022dedup` 还去掉近似的内容，用的是 MinHash。真实的网页语料应当先用那样的工具处理（{numref}`第 %s 章 <sec-scale>`）。
#
# :::{solution-end}
# :::
#
# :::{exercise}
# :label: ex-data-4
# 想一想：`sft_chinese_val.jsonl` 里的对话没有一场在训练集里。为什么还需要 `scoring.questions` 的留出题？
# :::
#
# :::{solution} ex-data-4
# :class: dropdown
# 验证对话和训练对话来自同样的格子：它问的每一个（人，属性），训练都用别的说法问过。它量的是“同一种题答得怎样”，适合看损失何时不再下降。留出题问的是从没问过的格子，量的是“学到的做法能不能用到新的事情上”。两样都要，名字不能混。
# :::
#
# ### 延伸阅读
#
# - {cite:t}`eldan2023tinystories`：为什么小世界能教出会说话的小模型。
# - {cite:t}`lee2022dedup`：重复的数据怎样让模型背诵，近似去重怎样做。
# - {cite:t}`karpathy2025nanochat`：默认比例的出处，那里是英文数据。
