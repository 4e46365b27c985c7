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
# (sec-data-engineering)=
# # 数据工程
#
# {numref}`第 %s 章 <sec-data>`讲给模型读什么；这一页讲怎样把别人的数据变成它能读的样子：认格式，去重，划分，打乱，坏行隔离，最后留下一份报告。要用自己的数据时再来读。
#
# 平常只要三步，后面讲每一步里发生了什么：
#
# 1. `minillm import 文件 --category general` 把下载来的文件变成行，写进 `data/chinese/general_….jsonl`；自己写的文件照这样起名，直接放进去也行。
# 2. `python scripts/build_chinese_mix.py` 按行数配好，写进 `data/processed/`。
# 3. 看那里的 `mix_report.json`（读到多少，写了多少）和 `quarantine.jsonl`（哪些行不能用，为什么）。<!-- by: minillm/data/mix.py -->

# %%
import json
import tempfile
from pathlib import Path

from minillm.book import lab, show
from minillm.data import formats, mix, rows
from minillm.data.readers import read

import numpy as np

lab.start()

# %% [markdown]
# ## 两遍扫描
#
# 数据这样流过 `mix.build`（{numref}`fig-data-flow`）。第一遍扫描，每一行认一次：外来的格式当场改写成统一的格式，再留下一张便条，记着这一行的哈希和位置。选择和打乱只看便条。第二遍才按便条上的位置去取文字，写出来。

# %% mystnb={"figure": {"caption": "数据配比的两遍扫描。第一遍只记下每行的位置和哈希；选好以后，第二遍按位置去取。", "name": "fig-data-flow"}, "image": {"alt": "五个方框从左到右由箭头相连：文件、扫描、选择、打乱、写出；扫描每行记 37 字节，写出预训练、SFT、DPO 三种文件"}}
assert mix.NOTE.itemsize == 37
show.flow(
    [
        ("文件", "data/chinese/\n*.jsonl"),
        ("扫描", "每行\n37 字节"),
        ("选择", "目标行数，\n留出集"),
        ("打乱", "随机号码"),
        ("写出", "三个阶段的\n文件"),
    ]
)

# %% [markdown]
# ## 三种行
#
# 世界上的数据格式很多，我们只认三种意思：一段文字、一场对话、一对对话。

# %%
show.source(rows.Text, rows.Chat, rows.Pair)

# %% [markdown]
# 每种外来格式配一个很短的读取函数，把它变成这三种之一。下面是 BELLE 用的 alpaca 格式，以及 CMMLU 的选择题：

# %%
show.source(formats.read_alpaca, formats.read_question, formats.multiple_choice)

# %% [markdown]
# 一行是什么格式，看它有哪些字段：把 `FORMATS` 表从上往下查，遇到一种格式，它要的字段这一行全有，就按这种读。`convert` 的最后一行管格式以外的字段：有系统提示就放到最前面，对话里带着图片就拒收。表里现在有这些：

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
# ## 自己的格式，加一行就认得
#
# 有人的数据是 `{"q": "…", "a": "…"}`。没有一种格式有这两个字段，所以它会进隔离区。给它写一行 `Format`：名字、字段、读取函数；`read_question` 已经是现成的读取函数，只要说出字段名。

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
# ## 同一篇文档只在一边
#
# 一行属于训练还是验证，由文档的哈希值决定，不由它出现的次序决定：

# %%
show.source(mix.fingerprints)

# %% [markdown]
# 为什么要两个哈希？一个管次序，一个管划分。种子变了，行的次序应当跟着变；谁是验证文档却不许变，否则改个种子再训练，从前的考题就进了训练集。
#
# 第一个哈希带着种子，用来排序和去重：内容相同的行哈希相同，排序以后成了邻居，`distinct` 在每一类里只留一个。同样的内容放进两类，就各留一个。
# 第二个哈希不带种子，也不管类别：一篇文档的值小于 `val_fraction`（默认 0.01）× $2^{64}$，它就是验证文档。于是同一篇文档无论出现几次、在哪个类别里，永远在同一边。<!-- by: minillm/data/mix.py -->

# %%
show.source(mix.distinct, mix.even_copies)

# %% [markdown]
# 次序很要紧：**先划分，再重复**。`choose_copies` 拿到去重后的便条，先看文档的哈希值属于哪边，训练这边的才按 {eq}`eq-data-quota` 重复。{numref}`第 %s 章 <sec-data>`的“弄坏它”把次序反过来，看它坏在哪里。
#
# ## 有限内存里的打乱
#
# 六十三万行放不进小内存，怎样打乱？打乱的不是文字，是便条：扫描时每行记 37 字节，主要是哈希和位置，630,000 行一共 $630000 \times 37 = 23.3$ MB。选中的每一份（一行写两遍就是两份）发一个随机的 64 位号码，按号码排序，就是一个随机排列。文字留在磁盘上，最后才按位置一行一行去取，所以行再长，要的内存也不变多。用 2,000 行试一次：

# %%
show.source(mix.shuffled)

# %%
order = mix.shuffled(np.ones(2000, int), seed=0).tolist()
assert round(630_000 * mix.NOTE.itemsize / 1e6, 1) == 23.3
assert sorted(order) == list(range(2000))
assert order != sorted(order)
print(f"the first of 2000 indices in their random order: {order[:6]}")

# %% [markdown]
# ## 一行变几行
#
# 最后，一行写进哪些文件？纯文字只给预训练；对话既给 SFT，也作为一段文字给预训练；偏好对只给 DPO。别的字段原样保留，`source` 写明出处。

# %%
show.source(mix.stage_rows)

# %% [markdown]
# ## 坏行进隔离区，带着理由
#
# 真实的数据里总有坏行。跳过它们，就没人知道丢的是什么；遇到就停，几十万行里有一行坏就建不成。我们的办法是**隔离区**（quarantine）：坏行写进 `quarantine.jsonl`，带着文件、行号和理由，其余照常。
# 下面两个文件里，`general` 的八行中有五行不能用，还有一行是重复；`math` 只有两行，目标却是四行。文件名的开头就是类别，所以 `general_demo.jsonl` 归 `general`；类别后面不能紧跟别的拉丁字母。

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
# 每条理由都说出字段和问题。文件的第三行，JSON 断了；第四行没有回答；第五行的角色写成了“用户”；第六行的字段没有一种格式认得；第七行本身没错，但它是偏好对，应当放进名字以 `preference` 开头的文件。
# 数学只有两条，各写了两遍；偏好对一条也没有。报告的最后两行提醒这两件事。加上 `--strict`，遇到第一条坏行就停。
#
# 别的来源也是同样的路：`minillm import` 把下载好的 JSON、CSV、parquet 变成 `data/chinese/<类别>_<名字>.jsonl`，`minillm download` 直接去取（{numref}`第 %s 章 <sec-scale>`）。
#
# ## 报告里写着一切
#
# 每次构建都写一份 `mix_report.json`。全书的数据也有，{numref}`第 %s 章 <sec-data>`核对行数用的就是它：

# %%
report = json.loads((lab.data() / "mix_report.json").read_text(encoding="utf-8"))
columns = ["read", "duplicates", "held_out", "target", "rows", "repeats", "validation_rows"]
names = ["读到", "相同", "留出", "目标", "训练行", "重复", "验证"]
show.table(
    ["", *names],
    [[name, *(str(c[k]) for k in columns)] for name, c in report["categories"].items()],
)

# %% [markdown]
# 横着读一行。`knowledge`：读到 9,000 条，其中 379 条和别的一模一样（相同），剩下 8,621 条；留出 90 条，不给训练；还有 8,531 条，目标是 9,000 行，所以有 469 行是重复。`text` 没有目标，写着 `None`：有多少写多少。<!-- by: 9000 - 379 == 8621 and 8621 - 90 == 8531 and 9000 - 8531 == 469 -->
#
# `text` 留出 613 篇，验证文件却只写了 579 篇，为什么？验证文件最多写到训练行数的百分之一，多出来的 34 篇既不写进验证，也不给训练。<!-- by: 613 - 579 == 34 and math.ceil(57863 / 100) == 579 -->
#
# 重复太多，模型会背诵而不是学习 {cite:p}`lee2022dedup`。所以来路不明的重复先去掉，再重复多少由我们决定，写在报告里。
#
# 报告还记下每个文件的行数、每一种出处的行数和全部的选项：几个月以后还说得清，这个模型读的是什么。<!-- by: minillm/data/report.py -->
