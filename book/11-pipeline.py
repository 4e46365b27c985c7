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
# (sec-pipeline)=
# # 一键流水线与评测
#
# :::{admonition} 本章
# :class: tip
#
# - **你将学会**：用一条命令跑完整条流水线，知道每一步留下什么文件；读懂它打印的成绩单：每个分数考的是什么，怎样判对错，什么时候会骗人。
# - **需要时间**：阅读 30 分钟，运行不到 1 分钟；从头跑一遍流水线还要几分钟。
# - **需要内存**：1 GB。
# - **用到的模块**：`scripts/run.sh`、`minillm.evaluate`、`minillm.microworld.scoring`。
# :::

# %%
import io
import math
import re
import subprocess
import tempfile
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from itertools import islice
from pathlib import Path

from minillm import RustBPETokenizer, Sampling, cli, complete, evaluate
from minillm.book import lab, show, tasks
from minillm.book.drawings import judging
from minillm.data.readers import read
from minillm.data.rows import plain_text, to_messages
from minillm.microworld import scoring
from minillm.training import dataset, packing

import msgspec
import numpy as np

lab.start()
tokenizer = lab.tokenizer()
runs = {stage: lab.ladder(stage) for stage in ("pretrain", "sft", "dpo")}

# %% [markdown]
# ## 开场
#
# 前面各章一级一级走到了这里。三个问题，五个时刻：

# %% tags=["nbval-ignore-output"]
replies = {stage: lab.showcase(run.model()) for stage, run in runs.items()}
replies["identity"] = lab.showcase(lab.identity().model())
show.spine({"fresh": lab.showcase(lab.fresh()), **replies})

# %% [markdown]
# 还差两件事。第一，这些步骤散在九章里，换一台机器能不能一条命令重来一遍？第二，三个问题答得好，不等于模型好。流水线每走完一个阶段，就打印一张长长的成绩单。每一行考的是什么，怎样判的对错？
#
# 一个分数有多可信，{ref}`前一页 <sec-judging>`已经讲过。这一章问另一件事：分数考的是不是你以为的东西。
#
# ## 手算
#
# ### 词元大小不同，损失不能比
#
# 成绩单最上面的不是正确率，是从留出文本上的损失算来的。损失的单位是奈特（nat，自然对数的单位），一个词元平均多少奈特。它有一个毛病：词元的大小由分词器决定。<!-- by: reasoning -->
#
# 同一句话“张静住在北京。”有 21 个字节。tiny 的分词器切成 6 个词元，按字节切就是 21 段。假设两个模型给整句话的概率一样，整句的损失都是 5.04 奈特：

# %% tags=["nbval-ignore-output"] mystnb={"figure": {"caption": "同一句话的两种切法，画成一样长。整句的损失相同，摊到每一段就不同。“北京”两字被切在字的中间，这两个词元只好写成字节。", "name": "fig-pipeline-same-loss"}, "image": {"alt": "上面一行是六个宽的格子，每格一个词元，四个写着字或标点，两个写着字节；下面一行是同样总宽的二十一个窄格子，每格一个字节的十六进制数。两行下面都写着一共 5.04 奈特"}}
sentence = "张静住在北京。"
ids = tokenizer.encode(sentence)
judging.same_loss([tokenizer.token_bytes(i) for i in ids], 5.04)

# %% [markdown]
# 前者每词元 $5.04/6=0.84$，后者每词元 $5.04/21=0.24$。后者看起来好得多，其实一样好：它只是把同一笔账分成了 21 份。<!-- by: round(0.24 * 21, 2) == round(0.84 * 6, 2) -->
#
# **每字节比特数**（bits per byte）改用与分词器无关的分母：
#
# ```{math}
# :label: eq-pipeline-bpb
# \text{bpb} = \frac{L}{\ln 2 \cdot \bar b}
# ```
#
# $L$ 是每词元的损失（奈特），除以 $\ln 2 = 0.693$ 换成比特，$\bar b$ 是每词元的平均字节数。两个模型代进去：$0.84/(0.693 \times 3.5) = 0.346$，$0.24/(0.693 \times 1) = 0.346$。它也有直观的意思：用这个模型压缩文本，每个字节平均要这么多比特；不压缩是 8。这个想法来自 {cite:t}`shannon1948`。

# %%
bytes_in_it, tokens_in_it = len(sentence.encode()), len(ids)
assert (bytes_in_it, tokens_in_it) == (21, 6)
by_token = (5.04 / 6) / (math.log(2) * 21 / 6)
by_byte = (5.04 / 21) / (math.log(2) * 1)
assert round(by_token, 3) == round(by_byte, 3) == 0.346
round(by_token, 3)

# %% [markdown]
# ## 真实代码
#
# ### 一条命令
#
# ```bash
# bash scripts/run.sh --smoke-test     # every stage for a few steps: does it run here at all?
# bash scripts/run.sh --preset tiny    # the models of this book
# bash scripts/run.sh                  # the default model, for a GPU
# ```
#
# `--smoke-test` 用的是默认大小的模型，但数据很少、每阶段只走几步，在 CPU 上用 float32，两分钟左右证明整条路是通的；它的分数没有意义。`--preset tiny` 训练本书一直在用的模型。脚本的步骤可以从它的源码里直接读出来：

# %%
script = (lab.ROOT / "scripts" / "run.sh").read_text("utf-8")
for title in re.findall(r'^step "(.*)"', script, re.M):
    print(title)

# %% [markdown]
# 1. **环境**：找到 Python，建虚拟环境，装一次依赖（{numref}`第 %s 章 <sec-environment>`）。
# 2. **数据**：检查 `data/chinese/identity_conversations.jsonl` 在不在；不在就放一份样例并说明，然后按配比混合（{numref}`第 %s 章 <sec-data>`）。
# 3. **分词器**：tiny 总是自己训练一个；默认模型用随包附带的，`ENABLE_RUSTBPE=1` 才用 RustBPE 训练（{numref}`第 %s 章 <sec-bpe>`）。
# 4. **三个阶段**：**预训练**（pretraining）、监督微调（SFT）、直接偏好优化（DPO），各自训练完立刻评测。身份数据不另成一个阶段，它已经混在前面的数据里；换成自己的人设见 {numref}`第 %s 章 <sec-identity>`。
# 5. 最后把每个阶段的评测排成一张表，并说出怎样和模型聊天；`--smoke-test` 不排表，只说每个阶段都跑通了，接下来该跑什么。
#
# 第 4 步的原文是这样的，评测由 `scripts/evaluate_stage.py` 做：

# %%
print(script[script.index("# evaluate STAGE") : script.index('step "Done')])

# %% [markdown]
# `${PRETRAIN_ARGS-}` 让你不改脚本就能换参数；脚本开头的 `set -euf -o pipefail` 保证任何一步失败就停，不会拿着上一步的残余继续。全部开关在 `--help` 里：

# %%
help_text = subprocess.check_output(
    ["bash", "scripts/run.sh", "--help"], cwd=lab.ROOT, encoding="utf-8"
)
print(help_text[help_text.index("Environment variables") :])

# %% [markdown]
# 例如显存不够时（{ref}`sec-faq` 里有更多）：
#
# ```bash
# PRETRAIN_ARGS="--batch_size 16 --accumulation_steps 8" bash scripts/run.sh
# bash scripts/run_cn_pipeline.sh --preset tiny                # packages by uv instead of pip
# ENABLE_RUSTBPE=1 bash scripts/run_cn_pipeline.sh             # and the tokenizer by RustBPE (needs maturin and Rust)
# ```
#
# 也可以一个阶段一个阶段地跑。后一阶段自动从前一阶段最新的权重开始：
#
# ```bash
# python scripts/build_chinese_mix.py
# python trainer/train_pretrain.py --data_path data/processed/pretrain_chinese.jsonl
# python trainer/train_full_sft.py --data_path data/processed/sft_chinese.jsonl
# python trainer/train_dpo.py --data_path data/processed/dpo_chinese.jsonl
# python scripts/evaluate_stage.py --stage dpo
# ```
#
# ### 跑完之后，什么在哪里
#
# ```text
# data/chinese/identity_conversations.jsonl   你的人设；换成自己的再跑一遍
# data/processed/tiny/
#     {pretrain,sft,dpo}_chinese.jsonl        训练用的行
#     {pretrain,sft,dpo}_chinese_val.jsonl    留出的行
#     mix_report.json, quarantine.jsonl       配比的报告；坏行和原因
# out/tiny/
#     tokenizer/                              分词器
#     {pretrain,sft,dpo}.safetensors          三个阶段的权重
#     {pretrain,sft,dpo}/                     同样的权重，Hugging Face 的 transformers 能直接打开
#     {pretrain,sft,dpo}_log.jsonl            每一步的损失、学习率等
#     checkpoints/, cache/                    断点续训用的检查点；词元的缓存
# ../tf_dir/
#     pretrain/, sft/, dpo/                   TensorBoard 日志
#     eval_results.jsonl                      每次评测一行
# ```
#
# 默认模型的文件在 `data/processed/` 和 `out/` 里，少一层 `tiny/`。看训练曲线：`.venv/bin/tensorboard --logdir ../tf_dir`。本书的数据、分词器和权重各在缓存的一个文件夹里，里面的名字是一样的：

# %%
folder = runs["dpo"].folder
expected = [lab.tokenizer_path() / "tokenizer_meta.json", lab.data() / "mix_report.json"]
expected += [lab.data() / "quarantine.jsonl"]
for stage in runs:
    expected += [folder / f"{stage}.safetensors", folder / f"{stage}_log.jsonl"]
    expected += [lab.data() / f"{stage}_chinese{part}.jsonl" for part in ("", "_val")]
assert all(path.exists() for path in expected)
len(expected)

# %% [markdown]
# ### 评测一次
#
# `scripts/evaluate_stage.py` 就是 `minillm evaluate`。它载入一个阶段的权重，考一遍，打印分数，再往 `eval_results.jsonl` 末尾添一行。我们对 DPO 模型运行它，每类只考 4 题，日志写到临时文件夹：

# %%
logs = Path(tempfile.mkdtemp())
arguments = ["--preset", "tiny", "--stage", "dpo", "--items", "4", "--out_dir", str(folder)]
arguments += ["--tokenizer_path", str(lab.tokenizer_path())]
arguments += ["--data_dir", str(lab.data()), "--tf_dir", str(logs)]
with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
    cli.main(["evaluate", *arguments])
lines = (logs / "eval_results.jsonl").read_bytes().splitlines()
assert len(lines) == 1
list(msgspec.json.decode(lines[0]))

# %% [markdown]
# 分数之外，这一行还记着**用什么得出了这些分数**：步数、全部训练设置（`config`）、训练数据的哈希（`data_sha256`）、分词器的指纹、代码的版本（`git`）。三个月后回头看，没有这些的分数只是一个数字。
#
# ### 怎样算答对
#
# 所有题都来自微世界留出的格子：这些（人物，属性）、这些加法、这些摆放，训练里从来没有问过（{numref}`第 %s 章 <sec-data>`）。训练读过的题答得对，只说明记住了。
#
# 模型的回答是自由的一句话，“鸡蛋。”和“林兰爱吃鸡蛋。”都该算对。`Question.is_correct` 定了规则：

# %%
show.source(scoring.Question.is_correct, scoring.Question._is_right_number)

# %%
(fact,) = scoring.questions("fact", 1)
(add,) = scoring.questions("add", 1)
name = re.search("[，：](.{2})", fact.messages[-1][1])[1]
given = {
    fact: [f"{fact.answer}。", f"{name}爱吃{fact.answer}。", f"{name}爱吃火锅。", "鸡蛋或者火锅。"],
    add: ["10。", "9加1等于10。", "1加9等于10。", "9加1等于11。", "9加2等于10。"],
}
given[fact] += ["张静爱吃鸡蛋。", "不是鸡蛋。"]
judged = [[q.messages[-1][1], r, q.is_correct(r)] for q, said in given.items() for r in said]
assert [right for *_, right in judged] == [True, True] + [False] * 4 + [True] * 3 + [False] * 2
show.table(["题目", "回答", "判对"], [[q, r, "对" if ok else "错"] for q, r, ok in judged])

# %% [markdown]
# 规则有取舍。同时说两个答案不算对，把别人的名字安上去不算对，算式的数字抄错而结果碰巧对也不算对；源代码里的 `DENIAL` 认得“不”“没”和“并非”，末句里有它们就不算对。<!-- by: minillm/microworld/scoring.py -->规则也有漏洞，{numref}`ex-pipeline-3` 会找到一个。
#
# 考试时用**贪心解码**（greedy decoding）：每步取概率最高的词元。这样同一个模型的分数是确定的，不会因为抽样的运气变动。

# %%
show.source(evaluate.Evaluator.question_accuracy)

# %% [markdown]
# ## 实验
#
# ### 三个阶段的成绩单

# %% tags=["nbval-ignore-output"]
scores = {stage: run.scores() for stage, run in runs.items()}
show.skills(scores)

# %% [markdown]
# 每类 60 题（`continue` 有几类的格子不够，少一些），`identity` 是 24 题，都是训练没有问过的。60 题的误差约有 ±0.1，读的时候记着（{ref}`sec-judging`）。<!-- by: reasoning -->行名先认一遍。`continue` 是让模型续写文本，`answer` 是让它回答问题。后半截说考什么：`fact` 问档案，`phrasing` 换个没见过的问法，`reading` 读一段故事再问，`multi_turn` 是对话的第二问，`choice` 是四选一，`calendar` 问日子，`echo` 复述，`chain` 数着算，`add`、`sub` 直接算，`shop` 算价钱。`question 1` 到 `question 10` 是一场长对话里的第几问。`multiple choice` 和 `choice` 是同样的题，只是不让它写，而是比四个选项的概率，后面专门讲；`identity in a chat` 是聊了一阵再问名字；`DPO` 开头的两行考留出的偏好对，{numref}`第 %s 章 <sec-dpo>`讲过。
#
# 最上面是每字节比特数，越低越好，只是各列不能随便比：预训练考的是留出的文本，后两列考的是留出的回答。DPO 那一格比 SFT 高出一截，是病吗？先猜一猜，{numref}`ex-pipeline-4` 会讲。<!-- by: assert final["bits_per_byte"] > 1.3 * after["bits_per_byte"] -->
#
# 读成绩单时注意四点，每一点都由后面的一格代码核对：
#
# - **预训练之后会续写，回答全凭运气。** 知识已经有了，`continue fact` 很高；问答的格式还没学过，`answer` 的各项有时接近 0，有时过半，换个种子就变。SFT 以后才一直高。<!-- by: assert pretrain["continuations"]["fact"] >= 0.6 --><!-- by: assert all(final["accuracy"][kind] >= floor for kind, floor in lab.FLOORS.items()) --><!-- by: book/results/seeds.json -->
# - **SFT 之后会回答，但不礼貌。** 礼貌是 DPO 教的，`polite` 从 0 附近跳到 1 附近。<!-- by: assert after["polite"] <= 0.20 -->
# - **有得就有失。** 预训练时会的 `continue chain`（接着数数），SFT 之后就不会了。微调数据里没有不带对话记号的续写，它因此生疏：这就是上一章见过的灾难性遗忘（{cite:t}`mccloskey1989forgetting`）。<!-- by: assert after["continuations"]["chain"] <= pretrain["continuations"]["chain"] - 0.3 -->
# - **有学不会的。** 直接算减法 `answer sub` 到最后也比数着算的 `answer chain` 低得多。这就是思维链（{numref}`第 %s 章 <sec-sft>`）的价值，{cite:t}`wei2022cot` 在大模型上看到的是同一件事。<!-- by: assert final["accuracy"]["chain"] >= final["accuracy"]["sub"] + 0.3 -->

# %% tags=["remove-input", "nbval-ignore-output"]
before, after = scores["pretrain"]["continuations"], scores["sft"]["continuations"]
moved = sorted(before, key=lambda kind: after[kind] - before[kind])
fell = [kind for kind in moved if after[kind] < before[kind] - 0.05]
rose = [kind for kind in moved[::-1] if after[kind] > before[kind] + 0.05]


def told(kinds):
    return "、".join(f"`{kind}`（{before[kind]:.2f} → {after[kind]:.2f}）" for kind in kinds)


assert "chain" in fell
show.say(
    f"这次运行里，SFT 之后续写掉了 0.05 以上的有 {told(fell)}",
    f"；升了 0.05 以上的有 {told(rose)}，微调时练过的东西帮了它们。"
    if rose
    else "；没有一类升了 0.05。",
    f"直接算减法，三个阶段里最高的一次是 {max(s['accuracy']['sub'] for s in scores.values()):.2f}。",
)

# %% [markdown]
# 下面的下限是本书的承诺，你的机器上也应当成立。不同的处理器舍入不同，训练结果像换了一个种子，所以下限都定在各遍运行里最差的一遍之下；那些运行列在{ref}`前一页的一节 <sec-pipeline-seeds>`。<!-- by: book/results/seeds.json -->

# %%
pretrain, after, final = scores["pretrain"], scores["sft"], scores["dpo"]
assert all(final["accuracy"][kind] >= floor for kind, floor in lab.FLOORS.items())
assert final["polite"] >= 0.85
assert final["identity_hit_rate"] >= 0.75
assert after["polite"] <= 0.20
assert pretrain["continuations"]["fact"] >= 0.6
assert after["continuations"]["chain"] <= pretrain["continuations"]["chain"] - 0.3
assert final["accuracy"]["chain"] >= final["accuracy"]["sub"] + 0.3
assert final["bits_per_byte"] > 1.3 * after["bits_per_byte"]
lab.FLOORS

# %% mystnb={"figure": {"caption": "三种能力在三个阶段之后的正确率。", "name": "fig-pipeline-stages"}, "image": {"alt": "三条折线，横轴是预训练、SFT、DPO，纵轴是正确率：直接答一件事、直接算加法、直接算减法"}} tags=["nbval-ignore-output"]
stages = ["预训练", "SFT", "DPO"]
kinds = {"答一件事": "fact", "直接算加法": "add", "直接算减法": "sub"}
show.lines(
    {name: (stages, [s["accuracy"][k] for s in scores.values()]) for name, k in kinds.items()},
    "阶段之后",
    "正确率（60 道留出的题）",
    [show.COLOURS["other"], show.GREY, show.COLOURS["bad"]],
    marker="o",
)

# %% [markdown]
# ### 每字节比特数，真的算一遍
#
# 先核对成绩单里的数：从预训练模型的 `val_loss` 出发，用 {eq}`eq-pipeline-bpb` 自己算一遍。

# %%
with redirect_stderr(io.StringIO()):  # the progress bar of a first run
    path = lab.data() / "pretrain_chinese_val.jsonl"
    data = dataset.load_dataset(path, "pretrain", tokenizer, 128, folder / "cache")
lengths = np.array([len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)])
packed = packing.PackedRows(data, 128, epochs=1, seed=0)
labels = packed.batch(range(200)).labels  # the rows that val_loss is of: see --max_val_rows
bytes_per_token = lengths[labels[labels >= 0]].mean()
bpb = scores["pretrain"]["val_loss"] / (math.log(2) * bytes_per_token)
assert abs(bpb - scores["pretrain"]["bits_per_byte"]) < 1e-6
assert bpb < 0.40
print(f"{bytes_per_token:.3f} bytes per token; less than 0.40 bits per byte: {bpb < 0.40}")

# %% [markdown]
# 再看为什么不能直接比每词元的损失。取三个最简单的“模型”：只记每个词元出现的频率，不看上文。三者的区别只在分词：按字节、tiny 的 1,024 词表、随包附带的 6,400 词表。频率来自 5,000 行训练文本，在留出的文本上考：

# %%
training = [plain_text(r.row) for r in islice(read(lab.data() / "pretrain_chinese.jsonl"), 5000)]
testing = [plain_text(r.row) for r in read(path)]
size = sum(len(text.encode()) for text in testing)
vocabularies = {
    "按字节": (256, lambda text: list(text.encode())),
    "1,024": (1024, tokenizer.encode),
    "6,400": (6400, RustBPETokenizer.load().encode),
}
rows = []
for name, (vocabulary, encode) in vocabularies.items():
    counts = Counter(token for text in training for token in encode(text))
    total = counts.total() + vocabulary  # one more of each, so that none has probability 0
    ids = [token for text in testing for token in encode(text)]
    nats = -sum(math.log((counts[token] + 1) / total) for token in ids)
    rows.append([name, nats / len(ids), size / len(ids), nats / math.log(2) / size])
assert rows[0][1] < rows[1][1]
assert rows[0][3] > 2 * rows[1][3] > 2 * rows[2][3]
show.table(["词表", "每词元损失（奈特）", "每词元字节数", "每字节比特数"], rows)

# %% [markdown]
# 按字节的模型每词元的损失最低，每字节比特数却最高：它每步只猜一个字节，当然容易，但要猜很多步。次序完全倒了过来。<!-- by: assert rows[0][3] > 2 * rows[1][3] > 2 * rows[2][3] -->
#
# 还有一个限制：文本必须是同一份。前面说，成绩单上预训练的每字节比特数不能和后两个阶段的比，就是这个缘故。
#
# ### 选择题的三种考法
#
# 选择题看起来最客观，其实分数取决于怎么问。同一个 SFT 模型，同样 60 道留出的四选一：让它自由回答；比较四个选项内容的概率，选概率大的（`Evaluator.choice_accuracy`）；比较“A”“B”“C”“D”四个字母的概率。

# %%
evaluator = runs["sft"].evaluator()
choices = scoring.questions("choice", 60)
candidates = []
for question in choices:
    prompt = tokenizer.render_for_completion(to_messages(question.messages))
    candidates += [(prompt, tokenizer.encode(letter)) for letter in "ABCD"]
letters = np.array(evaluator.log_probs(candidates)).reshape(60, 4).argmax(axis=1)
by_letter = np.mean([q.options[i] == q.answer for q, i in zip(choices, letters, strict=True)])
by_text = scores["sft"]["multiple_choice"]["accuracy"]
free = scores["sft"]["accuracy"]["choice"]
assert by_letter < 0.5 < free
assert free - by_letter > 0.3

# %% tags=["nbval-ignore-output"]
show.table(
    ["怎样考", "60 题里对的比例"],
    [["自由回答", free], ["选概率大的选项", by_text], ["选概率大的字母", float(by_letter)]],
)

# %% [markdown]
# 自由回答和按字母，差了一大截；瞎猜能对四分之一。同一个模型，知道的东西没有变。<!-- by: assert free - by_letter > 0.3 -->
# 数一数训练里的选择题，有几道的答案带字母：

# %%
taught = [row.row.messages for row in read(lab.data() / "sft_chinese.jsonl")]
choice_rows = [turns for turns in taught if "A." in turns[-2].content]
with_letter = [turns for turns in choice_rows if re.search("[A-D]", turns[-1].content)]
assert len(choice_rows) > 1000
assert not with_letter
len(choice_rows), len(with_letter)

# %% [markdown]
# 一道也没有。答案从来是一句话，例如张静的爱好是写字，模型没有学过用字母回答，字母的概率就没有意义。按内容比，也有同样的毛病，只是轻些：模型学过的回答是整句，光秃秃的一个“写字”不大像它会说的话；几个选项还长短不同，而概率是连乘出来的，长的吃亏（{numref}`ex-scale-3` 会把它放大）。<!-- by: reasoning -->
#
# 换句话说，**评测的格式要和模型学过的格式一致**，否则测的是格式。公开的选择题集（{cite:t}`huang2023ceval`、{cite:t}`li2023cmmlu`）上的分数，也要先问一句是怎样考的。
#
# ### 抽样会把分数弄低
#
# 贪心解码之外，也可以按概率抽样，**温度**（temperature）越高越随意。同样 60 道事实题：

# %%
questions = scoring.questions("fact", 60)
prompts = [tokenizer.render_for_completion(to_messages(q.messages)) for q in questions]
stops = [tokenizer.special_id("<|assistant_end|>"), tokenizer.bos_id]
right = {}
for temperature in (0.0, 1.0):
    said = complete(evaluator.model, prompts, 32, stops, Sampling(temperature))
    answers = [tokenizer.decode(ids) for ids in said]
    right[temperature] = sum(q.is_correct(a) for q, a in zip(questions, answers, strict=True))
assert right[0.0] >= 51
assert right[1.0] <= right[0.0]

# %% tags=["nbval-ignore-output"]
show.table(["温度", "60 题对几题"], [[str(t), n] for t, n in right.items()])

# %% [markdown]
# 聊天时抽样让话不重样；考试时，它把本来拿得准的也拿去碰运气。<!-- by: assert right[1.0] <= right[0.0] -->
#
# ## 弄坏它
#
# ### 拿训练题考试
#
# 评测最常见的错误，是考题在训练里出现过。微世界的题有明确的格子，所以可以把两种考法并排：`held_out=True` 是没问过的格子，`held_out=False` 是问过的。


# %%
def share_right(kind, held_out):
    questions = scoring.questions(kind, 60, held_out=held_out)
    replies = evaluator.chat([to_messages(q.messages) for q in questions])
    return float(np.mean([q.is_correct(r) for q, r in zip(questions, replies, strict=True)]))


kinds = {"事实": "fact", "数着算": "chain", "直接算加法": "add", "直接算减法": "sub"}
gaps = {kind: (share_right(kind, False), share_right(kind, True)) for kind in kinds.values()}
assert gaps["sub"][0] - gaps["sub"][1] > 0.3
assert gaps["fact"][0] - gaps["fact"][1] < 0.25

# %% tags=["nbval-ignore-output"]
show.table(
    ["考什么", "训练问过的", "没问过的", "差"],
    [[name, *gaps[kind], gaps[kind][0] - gaps[kind][1]] for name, kind in kinds.items()],
    [None, show.COLOURS["bad"], show.COLOURS["sft"], None],
)

# %% [markdown]
# 事实题的两种考法差得不多，这大体是真学会了。直接算的减法露了馅：问过的和没问过的差出一大截。模型把训练里的减法背了下来，却没有学会减。<!-- by: assert gaps["sub"][0] - gaps["sub"][1] > 0.3 -->

# %% tags=["remove-input", "nbval-ignore-output"]
seen, unseen = gaps["sub"]
assert seen > unseen + 0.3
show.say(
    f"只考训练题的人会写下：减法对 {seen:.0%}。用户问的多半是没练过的题，只对 {unseen:.0%}，"
    "于是他奇怪，为什么总有人说它算错。"
)

# %% [markdown]
# 怎样防？考题要在**造训练数据之前**就划出去，而且按内容划，不是按行划：把“11减4等于几”改一种问法再留出，等于没有留出。真实的语料里更难，要靠去重（{cite:t}`lee2022dedup`）。
#
# :::{admonition} 真实世界
# :class: real-world
#
# - **题会错**。{cite:t}`gema2024mmlu` 把常用的考卷 MMLU 抽出 5,700 题重新核对，估计 6.49% 的题有错。<!-- by: @gema2024mmlu -->
# - **题会漏**。{cite:t}`zhang2024gsm1k` 照着数学题集 GSM8K {cite:p}`cobbe2021gsm8k` 的样子另出一套，有的模型在新题上的正确率最多低 8%；前沿的大模型几乎不掉。<!-- by: @zhang2024gsm1k -->
#
# （2026 年 11 月核对。）
# :::
#
# ## 收尾
#
# 这一章没有训练新的东西，三个问题的回答和开场时一样，停在最后一行：

# %% tags=["nbval-ignore-output"]
show.spine({"identity": replies["identity"]})

# %% [markdown]
# 不同的是，成绩单上的每一行，现在都知道考的是什么。一个分数先要问它考的是不是那件事，再问有多可信（{ref}`sec-judging`）。<!-- by: reasoning -->
#
# ### 小结
#
# - `bash scripts/run.sh --preset tiny` 从空机器走到能聊天的模型，每个阶段训练完就评测，结果添进 `eval_results.jsonl`。
# - 每词元的损失不能跨分词器比较，每字节比特数可以，前提是同一份文本。
# - 评测的格式会改变分数：同一个模型做同样的选择题，按字母和按内容能差出一大截。
# - 考训练题，测的是背诵。考题要在造训练数据之前就划出去。
#
# ### 练习
#
# :::{exercise} ★☆☆
# :label: ex-pipeline-3
# 弄坏它：写一句错的回答，让 `is_correct` 判它对。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 规则里写死了几个否定的说法，也只看最后一句。哪些错话不用这几个说法？
# :::
#
# :::{solution-start} ex-pipeline-3
# :class: dropdown
# :::
#
# 规则认得“不”“没”和“并非”，不认得“讨厌”；它也只看最后一句。

# %%
wrong_replies = [f"林兰讨厌吃{fact.answer}。", f"林兰爱吃火锅。林兰爱吃{fact.answer}。"]
[(reply, fact.is_correct(reply)) for reply in wrong_replies]

# %% [markdown]
# 自动判分总有漏洞，所以除了看总分，还要随机抽几十条回答用眼睛读。训练得越久、越是针对分数优化，模型越可能钻进漏洞里。
#
# :::{solution-end}
# :::
#
# :::{exercise} ★★☆
# :label: ex-pipeline-4
# 想一想：成绩单里 DPO 的 `bits_per_byte` 比 SFT 高出一大截，`answer` 的各项平均起来却没有掉多少。两个数哪个在说谎？<!-- by: assert final["bits_per_byte"] > 1.3 * after["bits_per_byte"] -->
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 两个数问的不是同一件事。DPO 模型的回答里，哪几个词元会让“一字不差”的概率变小？
# :::
#
# :::{solution} ex-pipeline-4
# :class: dropdown
# 哪一个也没有。`bits_per_byte` 问的是“留出的 SFT 回答，一字不差，概率有多大”。那些回答大多没有礼貌的结尾，而 DPO 模型总想加一句，于是在句子该结束的地方给正确词元的概率很低，损失升高。回答的内容大多还是对的，所以正确率变化不大。损失衡量的是像不像那份文本，正确率衡量的是答得对不对。<!-- by: assert final["bits_per_byte"] > 1.3 * after["bits_per_byte"] -->
# :::
#
# :::{exercise} ★☆☆ 动手：威尔逊区间
# :label: ex-pipeline-wilson
# 成绩单上的每个比例都要配区间。写出 `wilson(correct, n)`：考 $n$ 题，对 `correct` 题，返回区间的下限和上限，$z = 1.96$。公式在前一页，是 {eq}`eq-pipeline-wilson`。不要用 `evaluate` 里现成的。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 先把 $\hat p$ 和 $z^2/n$ 各存成一个变量，分子和分母都用得着。根号里的第二项是 $z^2/(4n^2)$，分母上是 $n$ 的平方。
# :::


# %%
def wilson(correct: int, n: int) -> tuple[float, float]:
    return ...


tasks.check("11.1", wilson)

# %% [markdown]
# :::{solution} ex-pipeline-wilson
# :class: dropdown
# ```python
# def wilson(correct, n, z=1.96):
#     p, a = correct / n, z * z / n
#     half = z * math.sqrt(p * (1 - p) / n + a / (4 * n))
#     return (p + a / 2 - half) / (1 + a), (p + a / 2 + half) / (1 + a)
# ```
# 检查不拿别的程序的输出来比，它用定义：区间的每一端 $p$ 都满足 $(\hat p - p)^2 = z^2 p(1-p)/n$，即真值若是 $p$，$\hat p$ 刚好在意外的边上。
# :::
#
# :::{exercise} ★★☆ 动手：判分的程序
# :label: ex-pipeline-judge
# 模型自由回答选择题，分数全由判分的程序说了算。写出 `judge(reply, answer, options)`：回答 `reply` 对不对，返回 `True` 或 `False`。规则四条：
#
# 1. 在“，。；？”处把回答切成分句。
# 2. 在分句里从左到右找选项。同一个位置有几个选项对得上，取最长的，然后从它的末尾接着找：回答里写着 `牛肉面`，就不再算有 `牛肉`。
# 3. 分句里，选项前面有“不”或“没”，这一处不算数。
# 4. 算数的选项里有 `answer`，又没有别的，才是对。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 用一个集合记下算数的选项，最后看它是不是正好等于 `{answer}`。在分句里走的下标叫 `i`，`clause.startswith(option, i)` 说这个位置对不对得上；找到就跳过整个选项，没找到就走一格。
# :::


# %%
def judge(reply: str, answer: str, options: list[str]) -> bool:
    return ...


tasks.check("11.2", judge)

# %% [markdown]
# :::{solution} ex-pipeline-judge
# :class: dropdown
# ```python
# def judge(reply, answer, options):
#     said = set()
#     for clause in re.split("[，。；？]", reply):
#         i = 0
#         while i < len(clause):
#             here = [option for option in options if clause.startswith(option, i)]
#             found = max(here, key=len, default="")
#             if found and not re.search("[不没]", clause[:i]):
#                 said.add(found)
#             i += len(found) or 1
#     return said == {answer}
# ```
# 取最长的，与分词器把“牛肉面”当作一个词元是一个道理。这套规则仍有洞：“讨厌鸡蛋”判对，“不是火锅是鸡蛋”少了一个逗号就判错。每加一条规则，都要拿真的回答重新读一遍。
# :::
#
# ### 延伸阅读
#
# - {cite:t}`wilson1927`：威尔逊区间的原文，四页，值得读。动手题要写的就是它。
# - {cite:t}`shannon1951prediction`：让人来猜下一个字母，估计英文每个字母有多少比特；每字节比特数的源头。
# - {cite:t}`huang2023ceval`、{cite:t}`li2023cmmlu`：两份中文选择题评测，看它们怎样出题、怎样考。
# - {cite:t}`cobbe2021gsm8k`：数学应用题怎样自动判分。
