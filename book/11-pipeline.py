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
# - **你将学会**：用一条命令跑完整条流水线，知道每一步留下什么文件；给一个分数算置信区间，比较两个模型，看出分数在什么时候会骗人。
# - **需要时间**：阅读 35 分钟，运行不到 1 分钟；从头跑一遍流水线还要几分钟。
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
from minillm.book import lab, show
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
# 还差两件事。第一，这些步骤散在九章里，换一台机器能不能一条命令重来一遍？第二，三个问题答得好，不等于模型好。前几章报过很多分数。一个分数有多可信？0.98 和 1.00 算不算有差别？
#
# 本章把流水线合成一条命令，然后认真对待分数。
#
# ## 手算
#
# ### 一个比例有多可信
#
# 模型答了 60 道留出的题，对 54 道，正确率 $\hat p = 0.9$。如果另抽 60 道，多半不会正好又是 54。我们想要一个**置信区间**（confidence interval）：用这种办法算出的区间，100 次里约有 95 次套得住真正的正确率。
#
# 课本上常见的办法是 $\hat p \pm z\sqrt{\hat p(1-\hat p)/n}$，其中 $n$ 是题数，$z=1.96$ 对应 95%。代入：$0.9 \pm 1.96\sqrt{0.09/60} = 0.9 \pm 0.076$，即 0.824 到 0.976。
#
# 它在两头失灵。答对 60 题里的 60 题时 $\hat p(1-\hat p)=0$，区间是 1.00 到 1.00：60 道题就断定模型永远不错，荒唐。{cite:t}`wilson1927` 的办法反过来问：真值是哪些数时，看到 $\hat p$ 才不算意外？解出来是
#
# ```{math}
# :label: eq-pipeline-wilson
# \frac{\hat p + \dfrac{z^2}{2n} \;\pm\; z\sqrt{\dfrac{\hat p(1-\hat p)}{n} + \dfrac{z^2}{4n^2}}}{1 + \dfrac{z^2}{n}}
# ```
#
# 代入 54/60，$z^2 = 3.8416$：分子的中间是 $0.9 + 3.8416/120 = 0.9320$，根号里是 $0.0015 + 0.000267 = 0.001767$，根号乘 1.96 得 0.0824，分母是 1.0640。区间是 $(0.9320 \pm 0.0824)/1.0640$，即 **0.799 到 0.953**。
#
# 60/60：中间 $1.0320$，根号里是 $0.000267$，乘 1.96 得 0.0320。区间是 $(1.0320 \pm 0.0320)/1.0640$，即 **0.940 到 1.000**。满分也只能说，真值大概不低于 0.94。


# %%
def naive_interval(correct, n, z=1.96):
    p = correct / n
    half = z * math.sqrt(p * (1 - p) / n)
    return p - half, p + half


assert np.allclose(evaluate.wilson_interval(54, 60), (0.799, 0.953), atol=0.001)
assert np.allclose(evaluate.wilson_interval(60, 60), (0.940, 1.000), atol=0.001)
assert np.allclose(naive_interval(54, 60), (0.824, 0.976), atol=0.001)
assert naive_interval(60, 60) == (1.0, 1.0)
[round(x, 3) for x in evaluate.wilson_interval(54, 60)]

# %% [markdown]
# “100 次里约有 95 次套得住”是可以检验的。真正的正确率是 0.98、考 60 题时，答对的题数服从二项分布，把每种结果的概率加起来，就得到区间套住 0.98 的概率，不用模拟：


# %%
def coverage(interval, p, n=60):
    total = 0.0
    for k in range(n + 1):
        low, high = interval(k, n)
        total += math.comb(n, k) * p**k * (1 - p) ** (n - k) * (low <= p <= high)
    return total


rows = [
    [p, coverage(naive_interval, p), coverage(evaluate.wilson_interval, p)]
    for p in (0.5, 0.8, 0.9, 0.98)
]
assert rows[-1][1] < 0.75
assert min(row[2] for row in rows) > 0.92
show.table(["true accuracy", "naive covers", "Wilson covers"], rows)

# %% [markdown]
# 真值 0.98 时，号称 95% 的朴素区间只有 0.70 的概率套得住；威尔逊区间一直在 0.92 以上。本书的分数常常靠近 0 或 1，所以都用它。
# <!-- by: assert min(row[2] for row in rows) > 0.92 -->
#
# ### 每字节比特数
#
# 语言模型的另一种分数是留出文本上的损失，每个词元多少奈特（nat，自然对数的单位）。它有一个毛病：词元的大小由分词器决定。同一句话，“张静住在北京。”有 21 个字节，tiny 的分词器切成 6 个词元，按字节切是 21 个。假设两个模型给整句话的概率一样，总损失都是 5.04 奈特，那么前者每词元 $5.04/6=0.84$，后者每词元 $5.04/21=0.24$。后者看起来好得多，其实一样好。
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
sentence = "张静住在北京。"
bytes_in_it, tokens_in_it = len(sentence.encode()), len(tokenizer.encode(sentence))
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
# `--smoke-test` 用的是默认大小的模型，但数据很少、每阶段只走几步，在 CPU 上用 float32，几分钟证明整条路是通的；它的分数没有意义。`--preset tiny` 训练本书一直在用的模型。脚本的步骤可以从它的源码里直接读出来：

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
show.table(["question", "reply", "correct"], judged)

# %% [markdown]
# 规则有取舍。同时说两个答案不算对，把别人的名字安上去不算对，算式的数字抄错而结果碰巧对也不算对。规则也有漏洞，{numref}`ex-pipeline-3` 会找到一个。
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
# 每类 60 题（`continue` 有几类的格子不够，少一些），`identity` 是 24 题，都是训练没有问过的。最上面是每字节比特数，越低越好；`continue` 是让模型续写文本，`answer` 是让它回答问题。读成绩单时注意四点，每一点都由后面的一格代码核对：
#
# - **预训练之后会续写，不大会回答。** `continue fact` 比 `answer fact` 高得多，`continue reading` 比 `answer reading` 高得多。知识有了，问答的格式还没学会。<!-- by: assert pretrain["continuations"][kind] >= pretrain["accuracy"][kind] + 0.2 -->
# - **SFT 之后会回答，但不礼貌。** 礼貌是 DPO 教的，`polite` 从 0 附近跳到 1 附近。<!-- by: assert after["polite"] <= 0.20 -->
# - **有得就有失。** 预训练时会的 `continue chain`（接着数数），SFT 之后就不会了。微调数据里没有不带对话记号的续写，它因此生疏；这种现象叫灾难性遗忘（{cite:t}`mccloskey1989forgetting`）。<!-- by: assert after["continuations"]["chain"] <= pretrain["continuations"]["chain"] - 0.3 -->
# - **有学不会的。** 直接算减法 `answer sub` 到最后也比数着算的 `answer chain` 低得多。这就是**思维链**（chain of thought）的价值，{cite:t}`wei2022cot` 在大模型上看到的是同一件事。<!-- by: assert final["accuracy"]["chain"] >= final["accuracy"]["sub"] + 0.3 -->

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
# 下面的下限是本书的承诺，你的机器上也应当成立。不同的处理器舍入不同，训练结果像换了一个种子，所以下限都在许多次运行的分数之下；那些运行列在{ref}`后面的一节 <sec-pipeline-seeds>`。

# %%
pretrain, after, final = scores["pretrain"], scores["sft"], scores["dpo"]
assert all(final["accuracy"][kind] >= floor for kind, floor in lab.FLOORS.items())
assert final["polite"] >= 0.85
assert final["identity_hit_rate"] >= 0.75
assert after["polite"] <= 0.20
for kind in ("fact", "reading"):
    assert pretrain["continuations"][kind] >= pretrain["accuracy"][kind] + 0.2
assert after["continuations"]["chain"] <= pretrain["continuations"]["chain"] - 0.3
assert final["accuracy"]["chain"] >= final["accuracy"]["sub"] + 0.3
assert final["bits_per_byte"] > 1.3 * after["bits_per_byte"]
lab.FLOORS

# %% mystnb={"figure": {"caption": "三种能力在三个阶段之后的正确率。", "name": "fig-pipeline-stages"}, "image": {"alt": "三条折线，横轴是预训练、SFT、DPO，纵轴是正确率：直接答一件事（fact）、直接算加法（add）、直接算减法（sub）"}} tags=["nbval-ignore-output"]
stages = ["pretrain", "SFT", "DPO"]
show.lines(
    {k: (stages, [s["accuracy"][k] for s in scores.values()]) for k in ("fact", "add", "sub")},
    "after stage",
    "share of 60 held-out questions",
    [show.COLOURS["other"], show.GREY, show.COLOURS["bad"]],
    marker="o",
)

# %% [markdown]
# ### 给每个分数配上区间
#
# 两个分数写出来都是两位小数，题数不同，分量就不同：

# %% tags=["nbval-ignore-output"]
asked = {
    "answer fact": (final["accuracy"]["fact"], 60),
    "answer add": (final["accuracy"]["add"], 60),
    "polite": (final["polite"], 60),
    "identity": (final["identity_hit_rate"], 24),
    "DPO accuracy": (final["dpo"]["accuracy"], 15),
}
rows = []
for score, (share, n) in asked.items():
    rows.append([score, n, round(share * n), share, *evaluate.wilson_interval(share * n, n)])
show.table(["score", "questions", "right", "share", "low", "high"], rows)

# %% tags=["remove-input", "nbval-ignore-output"]
width = {row[0]: row[5] - row[4] for row in rows}
assert width["DPO accuracy"] > width["answer fact"]
show.say(
    f"`answer fact` 有 60 题，对 {rows[0][2]} 题，区间宽 {width['answer fact']:.2f}。"
    f"`DPO accuracy` 看着一样精确，其实只有 15 对留出数据，对 {rows[-1][2]} 对，"
    f"区间宽 {width['DPO accuracy']:.2f}，下限只有 {rows[-1][4]:.2f}。"
)

# %% [markdown]
# 要多少题才够？{numref}`fig-pipeline-width` 画出正确率 0.9 时区间的上下限。题数变成四倍，宽度才减半（{eq}`eq-pipeline-wilson` 里，题多时只剩根号下的 $\hat p(1-\hat p)/n$）。<!-- by: math.isclose(math.sqrt(0.09 / 240), math.sqrt(0.09 / 60) / 2) -->

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"figure": {"caption": "正确率为 0.9 时，威尔逊区间（{eq}`eq-pipeline-wilson`）随题数变窄。", "name": "fig-pipeline-width"}, "image": {"alt": "两条曲线形成一个漏斗：题越多，区间的上限和下限靠得越近"}}
numbers = [10, 20, 40, 60, 100, 200, 400, 1000, 2000]
bounds = [evaluate.wilson_interval(0.9 * n, n) for n in numbers]
show.lines(
    {"high": (numbers, [b[1] for b in bounds]), "low": (numbers, [b[0] for b in bounds])},
    "questions",
    "95% interval at 0.9",
    [show.COLOURS["pretrain"]] * 2,
    log_x=True,
    marker="o",
)

# %% [markdown]
# (sec-pipeline-seeds)=
# ### 换一个种子，分数变多少
#
# 上面的区间只管一件事：题是抽出来的。它不管另一件事：模型也是碰出来的。初始的权重、行的次序都由种子决定，种子不同，就是另一个模型；处理器不同，每次舍入差一点点，一千多步之后也是另一个模型。这一份运气有多大，只有多训练几次才知道。
#
# `python benchmarks/seeds.py` 用几个种子各走完一遍四个阶段，记进 `book/results/seeds.json`。下面每格是这些运行的平均，小字是它们的范围：

# %%
spread = lab.seeds()
names = [name for name in spread["sft"] if name != "val_loss"] + ["DPO accuracy"]
show.spread(spread, dict(zip(names, names, strict=True)))

# %% [markdown]
# 怎样读它？如果种子之间的差别只来自抽题，标准差应当和 $\sqrt{p(1-p)/60}$ 差不太远。逐项比一比 SFT 之后的分数：

# %%
rows = []
for kind in ("fact", "chain", "add", "reading"):
    found = spread["sft"][f"answer {kind}"]
    chance = math.sqrt(found["mean"] * (1 - found["mean"]) / 60)
    rows.append([kind, found["mean"], found["std"], chance])
assert all(row[2] < row[3] for row in rows[:2])
assert all(row[2] > 1.5 * row[3] for row in rows[2:])
show.table(["answer", "mean", "std between runs", "std by chance alone"], rows)

# %% [markdown]
# 各次运行考的是**同样的** 60 题，所以这里连抽题的运气都没有，全是训练的运气。前两类，它不比抽题的运气大。<!-- by: assert all(row[2] < row[3] for row in rows[:2]) -->直接算加法和读故事不一样，它是抽题运气的一倍半以上：读故事，有的运行几乎题题答对，有的错两成；训练一次，报一个数，几乎什么也没有说。<!-- by: assert all(row[2] > 1.5 * row[3] for row in rows[2:]) --><!-- by: book/results/seeds.json -->
#
# 所以本书凡是下结论，都先问过所有这些运行；只在一次运行里看到的，由代码写进句子里，说的是你正在看的这一次。<!-- by: reasoning -->

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
    "bytes": (256, lambda text: list(text.encode())),
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
show.table(["vocabulary", "nats per token", "bytes per token", "bits per byte"], rows)

# %% [markdown]
# 按字节的模型每词元的损失最低，每字节比特数却最高：它每步只猜一个字节，当然容易，但要猜很多步。次序完全倒了过来。<!-- by: assert rows[0][3] > 2 * rows[1][3] > 2 * rows[2][3] -->
#
# 还有一个限制：比较每字节比特数，文本必须是同一份。成绩单里预训练考的是留出的文本，SFT 和 DPO 考的是留出的对话里的回答，所以成绩单的每字节比特数，预训练的和后两个阶段的不能比。
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
    ["how", "share of 60"],
    [["free answer", free], ["likeliest option", by_text], ["likeliest letter", float(by_letter)]],
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
# 一道也没有。答案从来是一句话，例如张静的爱好是写字，模型没有学过用字母回答，字母的概率就没有意义。换句话说，**评测的格式要和模型学过的格式一致**，否则测的是格式。公开的选择题集（{cite:t}`huang2023ceval`、{cite:t}`li2023cmmlu`）上的分数，也要先问一句是怎样考的。
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
show.table(["temperature", "right of 60"], [[str(t), n] for t, n in right.items()])

# %% [markdown]
# 聊天时抽样让话不重样，考试时它只会添乱。<!-- by: assert right[1.0] <= right[0.0] -->
#
# ### 比较两个模型
#
# 模型甲真正的正确率是 0.85，乙是 0.90。考多少题才看得出乙比甲强？
#
# 如果两个模型各考各的题，差的方差是两个方差之和：$0.85 \times 0.15 + 0.9 \times 0.1 = 0.2175$。要有八成把握让 95% 的检验看出差别 $d = 0.05$，题数约为 $(1.96+0.84)^2 \times 0.2175/d^2 = 682$。<!-- by: assert abs(detected(682)[1] - 0.8) < 0.03 -->
#
# 如果考**同样的题**，可以只看两个模型不一致的题。两个都对或都错的题对比较没有贡献。假设甲对乙错的题占 0.03，乙对甲错的占 0.08（差还是 0.05），方差降到 $0.03 + 0.08 - 0.05^2 = 0.1075$，题数约为 337，省下一半。这叫**配对比较**（paired comparison）。模拟验证：<!-- by: assert abs(detected(337)[0] - 0.8) < 0.03 -->

# %%
rng = np.random.default_rng(42)


def detected(n, trials=4000):
    # Columns: both right, only A, only B, neither.
    _, only_a, only_b, _ = rng.multinomial(n, [0.82, 0.03, 0.08, 0.07], trials).T
    paired = (only_b - only_a) / np.sqrt(np.maximum(only_a + only_b, 1))
    a, b = rng.binomial(n, 0.85, trials) / n, rng.binomial(n, 0.90, trials) / n
    error = np.sqrt(np.maximum(a * (1 - a) + b * (1 - b), 1e-9) / n)
    return float(np.mean(paired > 1.96)), float(np.mean((b - a) / error > 1.96))


assert abs(detected(337)[0] - 0.8) < 0.03
assert abs(detected(682)[1] - 0.8) < 0.03
numbers = [30, 60, 120, 240, 480, 960]
power = [detected(n) for n in numbers]
assert 0.15 < power[numbers.index(60)][0] < 0.25
[round(p, 2) for p, _ in power]

# %% tags=["hide-input"] mystnb={"figure": {"caption": "真值 0.85 与 0.90 的两个模型，考多少题能看出差别。纵轴是 4,000 次模拟的比较里看出差别的份额。", "name": "fig-pipeline-power"}, "image": {"alt": "两条随题数上升的曲线：考同样的题的一条在上，各考各的题的一条在下"}}
show.lines(
    {
        "same questions": (numbers, [p for p, _ in power]),
        "different questions": (numbers, [u for _, u in power]),
    },
    "questions per model",
    "share of comparisons",
    [show.COLOURS["pretrain"], show.GREY],
    log_x=True,
    marker="o",
)

# %% [markdown]
# 60 题时，即使配对也只有约五分之一的机会看出 5 个百分点的差别。所以本书的成绩单里，差两三个百分点不说明什么，差出二三十个百分点才说明问题。<!-- by: assert 0.15 < power[numbers.index(60)][0] < 0.25 -->
#
# 回到真模型：SFT 和 DPO 做同样 60 道留出的加法。把题分成四格，只看不一致的两格：


# %% tags=["nbval-ignore-output"]
def marks(evaluator, kind, held_out=True):
    questions = scoring.questions(kind, 60, held_out=held_out)
    replies = evaluator.chat([to_messages(q.messages) for q in questions])
    return np.array([q.is_correct(r) for q, r in zip(questions, replies, strict=True)])


sft, dpo = marks(evaluator, "add"), marks(runs["dpo"].evaluator(), "add")
only_sft, only_dpo = int((sft & ~dpo).sum()), int((dpo & ~sft).sum())
z = (only_dpo - only_sft) / math.sqrt(max(only_sft + only_dpo, 1))
rows = [[int((sft & dpo).sum()), only_sft, only_dpo, int((~sft & ~dpo).sum()), z]]
show.table(["both", "only SFT", "only DPO", "neither", "z"], rows)

# %% tags=["remove-input", "nbval-ignore-output"]
odd = only_sft + only_dpo
tail = sum(math.comb(odd, k) for k in range(min(only_sft, only_dpo) + 1))
p_value = min(1.0, 2 * tail / 2**odd)
shown = f"= {p_value:.3f}" if p_value >= 0.001 else "< 0.001"
assert odd == abs(int(dpo.sum()) - int(sft.sum())) + 2 * min(only_sft, only_dpo)
show.say(
    "$|z|$ 超过 1.96，差别才不太像是运气。这次运行里，DPO 比 SFT ",
    f"{'多' if only_dpo >= only_sft else '少'}对 {abs(only_dpo - only_sft)} 题，"
    f"$z$ 是 {z:.2f}，{'过了线' if abs(z) > 1.96 else '没有过线'}。",
    f"但这只来自 {odd} 道不一致的题，题这么少，$z$ 并不准；"
    f"练习里的精确检验给出 $p$ {shown}，{'也' if (p_value < 0.05) == (abs(z) > 1.96) else '却'}"
    f"{'过了' if p_value < 0.05 else '没有过'} 0.05 的线。",
)

# %% [markdown]
# ## 弄坏它
#
# ### 拿训练题考试
#
# 评测最常见的错误，是考题在训练里出现过。微世界的题有明确的格子，所以可以把两种考法并排：`held_out=True` 是没问过的格子，`held_out=False` 是问过的。

# %%
gaps = {}
for kind in ("fact", "chain", "add", "sub"):
    seen, unseen = marks(evaluator, kind, held_out=False), marks(evaluator, kind)
    gaps[kind] = float(seen.mean()), float(unseen.mean())
assert gaps["sub"][0] - gaps["sub"][1] > 0.3
assert gaps["fact"][0] - gaps["fact"][1] < 0.15

# %% tags=["nbval-ignore-output"]
show.table(
    ["kind", "asked in training", "never asked", "gap"],
    [[kind, seen, unseen, seen - unseen] for kind, (seen, unseen) in gaps.items()],
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
# ### 挑最好的那次
#
# 另一个错误不需要作弊：训练 20 个版本，每个考同样大小的一份卷子，报分数排在第一的那个。假设 20 个版本其实一样好，真值都是 0.80，每次考 60 题：

# %%
rng = np.random.default_rng(42)
papers = rng.binomial(60, 0.80, (10_000, 20)) / 60  # [repetitions, versions]
best = papers.max(axis=1)
fresh = rng.binomial(60, 0.80, 10_000) / 60  # the winner sits a second paper
assert 0.87 < best.mean() < 0.92
assert abs(fresh.mean() - 0.80) < 0.005
{
    "one": round(float(papers.mean()), 3),
    "best of 20": round(float(best.mean()), 3),
    "again": round(float(fresh.mean()), 3),
}

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"figure": {"caption": "单次考试（蓝）和 20 个一样好的版本里分数排第一的一次（橙红）。", "name": "fig-pipeline-best"}, "image": {"alt": "两个直方图：单次考试围绕 0.80，二十次里挑出来的一次整个偏右"}}
show.histogram(
    {"one run": papers[:, 0], "best of 20": best},
    "score on 60 questions (true accuracy 0.80)",
    "repetitions",
    [show.COLOURS["pretrain"], show.COLOURS["bad"]],
    bins=list(np.arange(0.575, 1.01, 1 / 60)),
)

# %% [markdown]
# 版本都一样好，最高分平均却是 0.89，高出 9 个百分点。<!-- by: assert 0.87 < best.mean() < 0.92 -->挑**检查点**（checkpoint）、挑种子、挑提示词，都会这样。补救很简单：用一份卷子挑，用另一份没用过的卷子报。上面的 `again` 就是胜者的第二次考试，它回到 0.80。在微世界里换一份卷子只要换种子：`scoring.questions(kind, 60, seed=1)`。
#
# ## 收尾
#
# 这一章没有训练新的东西，三个问题的回答和开场时一样，停在最后一行：

# %% tags=["nbval-ignore-output"]
show.spine({"identity": replies["identity"]})

# %% [markdown]
# 不同的是我们对“它学会了”这句话的要求。<!-- by: reasoning -->
# 以事实题为例，这句话应当这样写：

# %% tags=["nbval-ignore-output"]
share = final["accuracy"]["fact"]
low, high = evaluate.wilson_interval(share * 60, 60)
print(
    f"facts never asked in training: {share * 60:.0f} of 60 right, 95% interval {low:.2f} to {high:.2f}"
)

# %% [markdown]
# 一个可以引用的分数应当有这几样：考的是什么、训练是否见过、对几题、一共几题、区间多宽；要是拿它下结论，还要说训练了几次。
#
# ### 小结
#
# - `bash scripts/run.sh --preset tiny` 从空机器走到能聊天的模型，每个阶段训练完就评测，结果添进 `eval_results.jsonl`。
# - 比例要配区间，靠近 0 和 1 时用威尔逊区间；60 题的误差约有 ±0.1。训练的运气是另一份误差，要多训练几次才量得到。
# - 每词元的损失不能跨分词器比较，每字节比特数可以，前提是同一份文本。
# - 评测的格式会改变分数：同一个模型做同样的选择题，按字母和按内容能差出一大截。
# - 考训练题测的是背诵；挑出来的一次测的是运气。
#
# ### 练习
#
# :::{exercise}
# :label: ex-pipeline-1
# 算一算：身份题 24 道对 22 道，威尔逊区间是多少？若想在正确率 0.9 附近把误差压到 ±0.03，大约要多少题？
# :::
#
# :::{solution-start} ex-pipeline-1
# :class: dropdown
# :::
#
# $\hat p = 0.917$，代入 {eq}`eq-pipeline-wilson` 得 0.74 到 0.98。误差 0.03 时，$n \approx 1.96^2 \times 0.09/0.03^2 = 384.2$，进一位就是答案。

# %%
low, high = evaluate.wilson_interval(22, 24)
assert (round(low, 2), round(high, 2)) == (0.74, 0.98)
math.ceil(1.96**2 * 0.9 * 0.1 / 0.03**2)

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise}
# :label: ex-pipeline-2
# 写一写：不一致的题很少时，$z$ 不准。写一个精确的检验：如果两个模型一样好，$b+c$ 道不一致的题里，每一道偏向谁都是抛硬币。“只有甲对”的 3 道、“只有乙对”的 12 道，至少这么悬殊的概率是多少？
# :::
#
# :::{solution-start} ex-pipeline-2
# :class: dropdown
# :::
#
# 把 15 次抛硬币里正面出现 0、1、2、3 次的概率加起来，再乘 2（两个方向都算）。


# %%
def sign_test(b, c):
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1))
    return min(1.0, 2 * tail / 2 ** (b + c))


assert abs(sign_test(3, 12) - 0.0352) < 0.0001
round(sign_test(3, 12), 4)

# %% [markdown]
# 小于 0.05，大概不是运气。这叫符号检验。<!-- by: assert abs(sign_test(3, 12) - 0.0352) < 0.0001 -->
#
# :::{solution-end}
# :::
#
# :::{exercise}
# :label: ex-pipeline-3
# 弄坏它：写一句错的回答，让 `is_correct` 判它对。
# :::
#
# :::{solution-start} ex-pipeline-3
# :class: dropdown
# :::
#
# 规则认得“不”和“没”，不认得“讨厌”；它也只看最后一句。

# %%
wrong_replies = [f"林兰讨厌吃{fact.answer}。", f"林兰爱吃火锅。林兰爱吃{fact.answer}。"]
[(reply, fact.is_correct(reply)) for reply in wrong_replies]

# %% [markdown]
# 自动判分总有漏洞，所以除了看总分，还要随机抽几十条回答用眼睛读。训练得越久、越是针对分数优化，模型越可能钻进漏洞里。
#
# :::{solution-end}
# :::
#
# :::{exercise}
# :label: ex-pipeline-4
# 想一想：成绩单里 DPO 的 `bits_per_byte` 比 SFT 高出一大截，`answer` 的各项平均起来却没有掉多少。两个数哪个在说谎？<!-- by: assert final["bits_per_byte"] > 1.3 * after["bits_per_byte"] -->
# :::
#
# :::{solution} ex-pipeline-4
# :class: dropdown
# 都没有。`bits_per_byte` 问的是“留出的 SFT 回答，一字不差，概率有多大”。那些回答大多没有礼貌的结尾，而 DPO 模型总想加一句，于是在句子该结束的地方给正确词元的概率很低，损失升高。回答的内容大多还是对的，所以正确率变化不大。损失衡量的是像不像那份文本，正确率衡量的是答得对不对。
# :::
#
# ### 延伸阅读
#
# - {cite:t}`wilson1927`：威尔逊区间的原文，四页，值得读。
# - {cite:t}`shannon1951prediction`：让人来猜下一个字母，估计英文每个字母有多少比特；每字节比特数的源头。
# - {cite:t}`huang2023ceval`、{cite:t}`li2023cmmlu`：两份中文选择题评测，看它们怎样出题、怎样考。
# - {cite:t}`cobbe2021gsm8k`：数学应用题怎样自动判分。
