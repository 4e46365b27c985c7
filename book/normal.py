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
# (sec-normal)=
# # 我的输出正常吗
#
# 训练完了，曲线是这样，回答是那样：这算正常，还是哪里错了？这一页把两样东西并排放：健康的训练在每个阶段是什么样子，和故意弄坏的训练是什么样子。对着症状找到那一节，每一节说四件事：看到什么，为什么，怎样确认，怎么办。
#
# 健康的例子是本书的小模型（`tiny` 预设）。默认模型和你自己的数据，损失的数会不同，看样子，不看数。带数字的报错在[常见问题](faq.md)里，照原文搜索。
#
# ## 从症状找起
#
# | 你看到的 | 先看什么 | 哪一节 |
# |---|---|---|
# | 损失先往上冲，或者停在高处 | 头十步的 `loss` 和 `grad_norm` | [学习率太大](sec-normal-rate) |
# | `… not finite, so training stops`，里面的 `loss` 或 `gradient norm` 是 `nan` | 报错里的学习率 | [学习率太大](sec-normal-rate) |
# | 损失低得不像真的，开口只重复一个词元 | 问它一句 | [标签没有错开](sec-normal-shift) |
# | 答案对，可是说完不停 | 回答的长度 | [没有教它停](sec-normal-stop) |
# | 整段重复同一个词元，损失还在 $\ln V$ 附近 | 训练了几步 | [根本没有训练](sec-normal-fresh) |
# | 不回答，接着编题目或者讲别人 | 权重是哪个阶段的 | [阶段不对](sec-normal-stage) |
# | 冒出“�” | 是不是半个字 | [半个字](sec-normal-bytes) |
# | 满屏不相干的字，或者程序一开始就说分词器对不上 | 分词器是不是训练时的那一个 | [分词器不合](sec-normal-tokenizer) |
# | 每次都答同一句，或者越答越乱 | `--temperature` | [温度](sec-normal-temperature) |
# | DPO 的间隔很大，开口却是乱的 | 让它答几道题 | [DPO 过了头](sec-normal-dpo) |
# | 名字记住了，别的忘了 | 有没有回放 | [只学身份](sec-normal-forget) |
# | GRPO 的奖励涨了，别的题变差 | 没有奖励的题 | [奖励看不见的](sec-normal-reward) |
# | 说得通顺，全是编的 | 问题在不在它的世界里 | [世界之外](sec-normal-outside) |

# %%
import io
import json
import math
import re
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

from minillm import RustBPETokenizer, Sampling, UserError, complete
from minillm import persona
from minillm.book import lab, show
from minillm.config import TRAINING
from minillm.data.rows import to_messages
from minillm.files import write_atomically
from minillm.microworld import scoring
from minillm.training import checkpoint, dataset, loop, objectives, optimizers, packing

import numpy as np
import torch

lab.start()

# %% [markdown]
# ## 健康的样子
#
# ### 曲线
#
# 每个阶段都在权重旁边留下一份日志，一步一行。先看三条损失（{numref}`fig-normal-curves`）。三个阶段的损失算的是不同的东西，三条线只和自己的起点比。

# %%
runs = {stage: lab.ladder(stage) for stage in ("pretrain", "sft", "dpo", "grpo")}
runs["identity"] = lab.identity()
tokenizer, fresh = lab.tokenizer(), lab.fresh()
SICK = [show.GREY, show.COLOURS["bad"]]  # the healthy curve, the sick one
stops = [tokenizer.special_id("<|assistant_end|>"), tokenizer.bos_id]

# %% tags=["remove-input", "nbval-ignore-output"] mystnb={"figure": {"caption": "健康的三个阶段。左：训练损失（20 步平均），圆点是验证损失。右：学习率。", "name": "fig-normal-curves"}, "image": {"alt": "左图的横轴是步数，纵轴是损失，三条线：预训练、SFT、DPO，都往下走；圆点落在线的近旁。右图是三条学习率，都先升后降，预训练的中间有一段平路"}}
show.curves({stage: runs[stage].log for stage in ("pretrain", "sft", "dpo")})

# %% tags=["remove-input", "nbval-ignore-output"]
losses = {s: show.smooth([e["loss"] for e in runs[s].log], 20) for s in ("pretrain", "sft", "dpo")}
rows = []
for step in (1, 25, 100, 500, 1000, 1500):
    reached = [loss[step - 1] if step <= len(loss) else float("nan") for loss in losses.values()]
    rows.append([f"第 {step:,} 步", *reached])
rows.append(["最后一步", *(loss[-1] for loss in losses.values())])
show.table(["损失（20 步平均）", "预训练", "SFT", "DPO"], rows)

# %% [markdown]
# 表里是一次训练的数，你的会差一点。换了种子也成立的是下面这些：
#
# - **预训练**从 $\ln 1024=6.93$ 开始，前后不差 0.1：随机的权重对 1,024 个词元一视同仁。词表是 6,400，就从 $\ln 6400=8.76$ 开始。到第 100 步在 3 以下，到第 500 步在 1.4 以下，走完在 0.5 和 0.9 之间。 <!-- by: assert abs(losses["pretrain"][0] - math.log(1024)) < 0.1 --> <!-- by: assert losses["pretrain"][99] < 3 --> <!-- by: assert 0.5 < losses["pretrain"][-1] < 0.9 -->
# - **SFT** 的第一步在 1 以上，因为没有见过对话的记号；走完在 0.4 以下，只算助手的话，那些话又短又有规矩，所以比预训练低得多。 <!-- by: assert losses["sft"][0] > 1 --> <!-- by: assert losses["sft"][-1] < 0.4 -->
# - **DPO** 第一步的间隔是 0，损失比 $\ln 2=0.693$ 略高，高出来的是负对数似然那一项；走完，验证集上的间隔在 0.25 以上。别的起点，说明参考模型不是训练开始时的那一个。 <!-- by: assert abs(runs["dpo"].log[0]["margin"]) < 1e-3 --> <!-- by: assert runs["dpo"].log[-1]["val_margin"] > 0.25 -->
# - **GRPO** 的损失没有意思：每个回答的权重是优势，有正有负，一组加起来是 0，损失的大小不说明好坏。看奖励：最后 5 步比头 5 步高 0.1 以上。 <!-- by: assert np.mean(reward[-5:]) > np.mean(reward[:5]) + 0.1 -->
# - **身份**那一步也是 SFT，损失走完比开始时低。 <!-- by: assert named[-1] < named[0] -->

# %%
assert abs(losses["pretrain"][0] - math.log(1024)) < 0.1
assert round(math.log(6400), 2) == 8.76
assert losses["pretrain"][99] < 3
assert losses["pretrain"][499] < 1.4
assert 0.5 < losses["pretrain"][-1] < 0.9
assert losses["sft"][0] > 1
assert losses["sft"][-1] < 0.4
assert abs(runs["dpo"].log[0]["margin"]) < 1e-3
assert math.log(2) < losses["dpo"][0] < 0.9
assert runs["dpo"].log[-1]["val_margin"] > 0.25
reward = [entry["reward"] for entry in runs["grpo"].log]
assert np.mean(reward[-5:]) > np.mean(reward[:5]) + 0.1
named = show.smooth([entry["loss"] for entry in runs["identity"].log], 20)
assert named[-1] < named[0]

# %% [markdown]
# 看自己的，不用打开任何工具：
#
# ```bash
# sed -n '1p;100p;500p;1500p' out/tiny/pretrain_log.jsonl
# tail -n 1 out/tiny/sft_log.jsonl
# minillm evaluate --preset tiny --stage sft
# ```
#
# 单独一步的损失会跳，预训练几步之间差百分之十几不是病；SFT 的批次里算损失的词元少，跳得还要凶（{numref}`fig-normal-shift`的灰线）。要看的是一段的平均。`val_loss` 每隔几百步才有一个。分数的正常范围在{ref}`第一页 <sec-index>`的表里：同一份配方训练了几遍，每一项都写着最低和最高，你的落在外面一点也正常。 <!-- by: book/results/seeds.json -->
#
# ### 五句话
#
# 全书的三个问题，再加两个：一道直接问得数的减法，一个世界之外的问题。每个阶段各答一遍，都是贪心解码，写到 64 个词元为止。

# %% tags=["nbval-ignore-output"]
PROMPTS = [*scoring.SHOWCASE, "17减8等于多少？", "中国的首都是哪里？"]
replies = {stage: run.evaluator().ask(PROMPTS) for stage, run in runs.items()}
rows = [[p, *(said[i] for said in replies.values())] for i, p in enumerate(PROMPTS)]
show.table(["", *(show.STAGE_NAMES[stage] for stage in replies)], rows)

# %% [markdown]
# 怎样读它：
#
# - **预训练**那一列答非所问，**正常**；偶尔答对了，也**正常**。它只会续写，对话的记号它没有见过，写出来的像不像回答，全看运气。 <!-- by: book/results/seeds.json -->
# - **SFT** 以后，世界之内的问题，说的是完整的一句话，说完就停。 <!-- by: assert whole >= 0.8 -->
# - **DPO** 以后，答案后面多一句客气话。第三句问身份，客气不客气都正常：偏好数据没有教过它。某一格若收不住，答完又一路编下去，也见得到：DPO 教的是答案说完先别停，接一句客气话；碰上没有把握的题，它可能接错了话。一两题这样，正常；题题这样，看[没有教它停](sec-normal-stop)和 [DPO 过了头](sec-normal-dpo)。 <!-- by: assert polite["dpo"] >= 0.7 > 0.3 > polite["sft"] -->
# - **强化学习**以后，直接问的加减法，它自己会数。之前不数，直接写，常常是错的，也**正常**。 <!-- by: assert scores["grpo"]["sub"] > scores["dpo"]["sub"] + 0.2 -->
# - **身份**以后，第三句说的是新名字。 <!-- by: assert hit >= 0.7 -->
# - 最后一句，哪一列都是编的，**正常**（见[世界之外](sec-normal-outside)）。

# %%
scored = {stage: runs[stage].scores() for stage in ("pretrain", "sft", "dpo", "grpo")}
scores = {stage: found["accuracy"] for stage, found in scored.items()}
polite = {stage: found["polite"] for stage, found in scored.items()}
hit = runs["identity"].scores(persona=lab.READER)["identity_hit_rate"]
asked = [q for kind in ("fact", "reading", "shop") for q in scoring.questions(kind, 10)]


def answers(model, questions=asked, length=64, **sampling):
    """Token ids of the answers to questions."""
    prompts = [tokenizer.render_for_completion(to_messages(q.messages)) for q in questions]
    return complete(model, prompts, length, stops, Sampling(**sampling))


said = list(map(tokenizer.decode, answers(runs["sft"].model())))
whole = np.mean([reply[-1:] in ("。", "！", "？") for reply in said])
assert scores["sft"]["fact"] >= 0.85
assert whole >= 0.8
assert polite["dpo"] >= 0.7 > 0.3 > polite["sft"]
assert scores["grpo"]["sub"] > scores["dpo"]["sub"] + 0.2
assert hit >= 0.7

# %% [markdown]
# 问自己的模型，加上 `--stage` 就能一个阶段一个阶段地比：
#
# ```bash
# minillm chat --preset tiny --stage pretrain --prompt 张静住在哪里？
# minillm chat --preset tiny --stage sft --prompt 张静住在哪里？
# minillm chat --preset tiny --stage dpo --prompt 张静住在哪里？
# ```
#
# ## 曲线有病
#
# (sec-normal-rate)=
# ### 学习率太大
#
# **看到**：损失从起点往上冲，超过 $\ln V$，再回落，停在正常的上方；或者变成 NaN，训练停下。 <!-- by: assert max(e["loss"] for e in fast.log) > start + 0.5 --> <!-- by: assert fast.log[-1]["loss"] > normal.log[-1]["loss"] + 0.5 -->

# %%
normal = lab.variant("pretrain-50", "pretrain", max_steps=50)
fast = lab.variant("pretrain-lr-x30", "pretrain", max_steps=50, learning_rate=0.18)
start = normal.log[0]["loss"]
assert fast.log[0]["loss"] == start
assert max(e["loss"] for e in fast.log) > start + 0.5
assert fast.log[1]["grad_norm"] > 1.5 * fast.log[0]["grad_norm"]
assert fast.log[-1]["loss"] > normal.log[-1]["loss"] + 0.5

# %% tags=["remove-input", "nbval-ignore-output"]
steps = (1, 2, 5, 10, 50)
rows = [
    [f"{name}：{key}", *(run.log[s - 1][key] for s in steps)]
    for name, run in (("正常", normal), ("乘 30", fast))
    for key in ("loss", "grad_norm")
]
show.table(["步数", *map(str, steps)], rows)

# %% tags=["remove-input", "nbval-ignore-output"] mystnb={"figure": {"caption": "同一批数据，同样的开头，头 50 步的损失。灰线：正常；红线：学习率乘 30。", "name": "fig-normal-rate"}, "image": {"alt": "两条折线，横轴是步数 1 到 50，纵轴是损失。正常的从起点往下走；学习率乘 30 的先往上冲，再回落，停在正常的上方"}}
courses = {"正常": normal, "乘 30": fast}
show.lines(
    {
        name: ([e["step"] for e in run.log], [e["loss"] for e in run.log])
        for name, run in courses.items()
    },
    "步",
    "损失（奈特）",
    SICK,
)

# %% [markdown]
# **为什么**：一步走得太大，把权重整个盖住，模型自信地错着（{numref}`第 %s 章 <sec-pretrain>` 算过这笔账）。`grad_norm` 比损失先报警：第 2 步就涨到 1.5 倍以上。再大，数就溢出了。下面把学习率写成一个荒唐的数，走给你看： <!-- by: assert fast.log[1]["grad_norm"] > 1.5 * fast.log[0]["grad_norm"] -->

# %% tags=["nbval-ignore-output"]
lines = (lab.data() / "pretrain_chinese.jsonl").read_text(encoding="utf-8").splitlines()[:200]
silent = io.StringIO()
with tempfile.TemporaryDirectory() as name, redirect_stdout(silent), redirect_stderr(silent):
    folder = Path(name)
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    wild = replace(TRAINING["tiny"]["pretrain"], learning_rate=1e20, max_steps=5, device="cpu")
    wild = replace(wild, data_path=folder / "rows.jsonl", out_dir=folder, tf_dir=folder)
    try:
        loop.train(replace(wild, tokenizer_path=lab.tokenizer_path()), "pretrain")
    except UserError as error:
        message = str(error)
assert "not finite, so training stops" in message
message

# %% [markdown]
# **确认**：`head -n 10 out/tiny/pretrain_log.jsonl`，看 `loss` 有没有高过第一步，`grad_norm` 有没有猛涨。
#
# **怎么办**：学习率除以 3 再试，或者把 `--warmup_fraction` 加大。用 `--resume` 从最新的完整的检查点接着走；它只留最近两个，若损失在那以前就已经往上冲，从头来更快。学习率没有动过，就查数据里有没有成片的乱码。 <!-- by: reasoning -->
#
# (sec-normal-shift)=
# ### 标签没有错开
#
# **看到**：损失掉得飞快，低得不像真的；开口却只重复一个词元。自己改写训练代码的人常犯：模型读到第 $t$ 个词元，该预测第 $t+1$ 个，却让它预测第 $t$ 个。
#
# 我们犯给你看，顺便犯下一节的那一个。都从预训练的权重出发，用 SFT 的数据走几十步，只在标签上动手脚：

# %%
config, pretrained = lab.training("sft"), runs["pretrain"]
rows_file, kept = lab.data() / "sft_chinese.jsonl", runs["sft"].folder / "cache"
data = dataset.load_dataset(rows_file, "sft", tokenizer, config.max_seq_len, kept)
packed = packing.PackedRows(data, config.max_seq_len, epochs=1, seed=config.seed)


def taught(spoil, steps=25):
    """The pretrained model after some steps of SFT with spoilt labels, and the losses."""
    model, found = pretrained.model().train(), []
    pair = optimizers.make_optimizers(model, config)
    for step in range(steps):
        batch = packed.batch(range(8 * step, 8 * step + 8))
        loss = objectives.next_token_loss(model, spoil(batch))
        (loss.total / loss.count).backward()
        found.append(loss.total.item() / loss.count)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        for optimizer in pair:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * min(1, (step + 1) / 17)
            optimizer.step()
            optimizer.zero_grad()
    return model.eval(), found


# %%
def unshifted(batch):
    """The mistake: the label of a token is the token itself."""
    return replace(batch, labels=torch.where(batch.labels == -100, batch.labels, batch.input_ids))


copying, copied = taught(unshifted, steps=50)
usual = [entry["loss"] for entry in runs["sft"].log[:50]]
stuck = answers(copying)
share = np.mean([max(map(reply.count, reply)) / len(reply) for reply in stuck if reply])
assert copied[-1] < 0.5 * usual[-1]
assert share > 0.9

# %% tags=["remove-input", "nbval-ignore-output"]
assert copied[-1] < 0.5 * usual[-1]
show.say(
    f"50 步以后，损失是 {copied[-1]:.3f}，正常的 SFT 这时是 {usual[-1]:.2f}。",
    f"问{show.quote(asked[0].messages[-1][1])}，它说{show.quote(tokenizer.decode(stuck[0]))}。",
)

# %% tags=["remove-input", "nbval-ignore-output"] mystnb={"figure": {"caption": "SFT 的头 50 步，纵轴是对数刻度。灰线：正常；红线：标签没有错开。单看红线的后半，会以为训练得好极了。", "name": "fig-normal-shift"}, "image": {"alt": "两条折线，横轴是步数 1 到 50，纵轴是损失，对数刻度。正常的先降后平；标签没有错开的开头高，一直往下，穿过正常的那一条，落到下面"}}
numbers = list(range(1, 51))
courses = {"正常": (numbers, usual), "没有错开": (numbers, copied)}
assert copied[-1] < 0.5 * usual[-1]
show.lines(courses, "步", "损失（奈特）", SICK, log_y=True)

# %% [markdown]
# **为什么**：照抄眼前的词元，是最容易的任务，不用懂任何语言。生成的时候，它抄问题的最后一个词元，抄出来的又成了最后一个，于是永远重复。<!-- by: assert share > 0.9 -->
#
# **确认**：拿一行数据，并排打印输入和标签，标签应当比输入早一格。在本项目里，`Batch.labels` 已经错开了一格，模型里不再错开第二次。表里若有“�”，不是这里的毛病：不在词表里的字拆成了几个字节，单看一个词元解不出字来，见[半个字](sec-normal-bytes)。

# %%
batch = packed.batch(range(1))
learned = (batch.labels[0] != -100).nonzero()[:, 0].tolist()
places = [t for i, t in enumerate(learned[:6]) if t == learned[0] + i]  # of one answer
read = [tokenizer.decode([int(batch.input_ids[0, t])]) for t in places]
label = [tokenizer.decode([int(batch.labels[0, t])]) for t in places]
assert len(places) > 1
assert read[1:] == label[:-1]

# %% tags=["nbval-ignore-output"]
show.table(["", *map(str, places)], [["读到", *read], ["标签", *label]])

# %% [markdown]
# **怎么办**：改好，从上一个阶段的权重重新来。损失低，不是好消息；每个阶段之后都要让模型开口。 <!-- by: reasoning -->
#
# (sec-normal-stop)=
# ### 没有教它停
#
# **看到**：该停的地方不停，接着又说一句客套，或者再编一句，有的直到写满上限。（下面的例子只练了几十步，答案本身还没有学准，只看它停不停。）

# %%
end = tokenizer.special_id("<|assistant_end|>")


def endless(batch):
    """The mistake: special tokens count as nothing to be learned."""
    return replace(batch, labels=batch.labels.masked_fill(batch.labels == end, -100))


chatty, fallen = taught(endless)
lengths = {
    name: np.array([len(reply) for reply in answers(model)])
    for name, model in (("学过停", runs["sft"].model(25)), ("没学过", chatty))
}
short, long = (found.mean() for found in lengths.values())
assert long > 1.4 * short
assert sum(fallen[-5:]) < 0.7 * sum(fallen[:5])  # the loss falls as if nothing were wrong

# %% tags=["remove-input", "nbval-ignore-output"]
assert long > 1.4 * short
show.say(
    f"同样 25 步，学过停的回答平均 {short:.1f} 个词元，没学过的 {long:.1f} 个，"
    f"写满 64 个还没有停的有 {(lengths['没学过'] == 64).sum()} 条。",
    f"没学过的，头一条是{show.quote(tokenizer.decode(answers(chatty, asked[:1])[0]))}。",
)

# %% tags=["remove-input", "nbval-ignore-output"] mystnb={"figure": {"caption": "同样的 30 道题，写了这么多个词元，还没有停下的回答占多少。灰线：学过停；红线：没学过。横轴的右端是上限，一条线在那里若还没有落到 0，剩下的不是说完了，是被砍断的。", "name": "fig-normal-stop"}, "image": {"alt": "两条折线，横轴是已经写了多少个词元，从 0 到 64，纵轴是还没有停的份额，都从 1 出发。学过停的一条很快落下去；没学过的一条落得慢得多"}}
written = range(65)
still = {name: [float(np.mean(found >= n)) for n in written] for name, found in lengths.items()}
assert still["没学过"][20] > still["学过停"][20] + 0.2
courses = {name: (written, share) for name, share in still.items()}
show.lines(courses, "写了多少个词元", "还没有停的回答", SICK)

# %% [markdown]
# **为什么**：结束符 `<|assistant_end|>` 没有算进损失，模型没有学过什么时候该停。损失照样往下走，出错的正是没有计入的那个词元（{numref}`第 %s 章 <sec-sft>`）。<!-- by: assert sum(fallen[-5:]) < 0.7 * sum(fallen[:5]) -->
#
# **确认**：`minillm chat --preset tiny --prompt 张静住在哪里？ --max_new_tokens 64`，看是不是写满了才停；多问几句，像{numref}`fig-normal-stop`那样看回答有多长。再用 `show.loss_mask` 看一行数据，结束符要有颜色。若回答之后冒出的是用户的话，就是损失掩码没有盖住问题。
#
# **怎么办**：把结束符算进损失，重新做 SFT。用别的程序运行时也会这样：那是停止词元没有设对，见[常见问题](sec-faq-hugging-face)。 <!-- by: reasoning -->
#
# ## 回答有病
#
# (sec-normal-fresh)=
# ### 根本没有训练
#
# **看到**：同一个词元一直重复到头。

# %%
untrained = lab.showcase(fresh)
assert not any(reply.replace("<|assistant_start|>", "") for reply in untrained)
untrained[0][:57]

# %% [markdown]
# **为什么**：随机的权重里，每个词元最像它自己（输入和输出共用一张嵌入表），所以抄最后一个。`--smoke-test` 每个阶段只走几步，出来的也是这样的东西，正常：它只证明流程能跑通。 <!-- by: assert not any(reply.replace( -->
#
# **确认**：`wc -l out/tiny/pretrain_log.jsonl`，一步一行，`tiny` 的预训练应当有 1,500 行。
#
# **怎么办**：跑完整的训练，`bash scripts/run.sh --preset tiny`。
#
# (sec-normal-stage)=
# ### 阶段不对
#
# **看到**：问它张静住在哪里，它编一道选择题，讲另一个人，或者反过来问你。也有碰巧答对的，不能只看一句，要看答对的比例。<!-- by: book/results/seeds.json -->

# %% tags=["remove-input", "nbval-ignore-output"]
known = scored["pretrain"]["continuations"]["fact"]
assert known >= 0.6
assert scores["sft"]["fact"] >= 0.85
show.say(
    f"预训练的模型，问{show.quote(PROMPTS[0])}，答{show.quote(replies['pretrain'][0])}。",
    f"同样的事实，让它续写句子，写对 {known:.0%}；按对话来问，答对 {scores['pretrain']['fact']:.0%}，"
    f"SFT 之后是 {scores['sft']['fact']:.0%}。",
)

# %% [markdown]
# **为什么**：知识在权重里，对话的格式不在。预训练一次也没有见过 `<|user_start|>`（{numref}`第 %s 章 <sec-sft>`），按对话来问，答不答得上来全看运气，换个种子就变。这不是病，是还没有做完。 <!-- by: assert scores["sft"]["fact"] >= 0.85 --> <!-- by: book/results/seeds.json -->
#
# **确认**：`minillm chat` 不带 `--prompt`，开头就写着用的是哪个阶段的模型。
#
# **怎么办**：做 SFT；要试预训练的模型，就给它一个开头，不要提问。
#
# (sec-normal-bytes)=
# ### 半个字
#
# **看到**：“�”，也就是 U+FFFD。

# %%
ids = tokenizer.encode("小满")
assert b"".join(map(tokenizer.token_bytes, ids)) == "小满".encode()
assert tokenizer.decode(ids[:-1]).endswith("\ufffd")
(
    [(tokenizer.token_bytes(i).hex(" "), tokenizer.decode([i])) for i in ids],
    tokenizer.decode(ids[:-1]),
)

# %% [markdown]
# **为什么**：一个汉字是三个字节。词表里没有的字，拆成几个字节来写，少写一个，就解不出字来。有三种来历：
#
# - 回答被 `--max_new_tokens` 从字的中间切断，上面就是这样。无害。 <!-- by: assert tokenizer.decode(ids[:-1]).endswith("\ufffd") -->
# - 训练得太少。预训练头几十步的模型，常写出半个字，练下去就好。
# - 数据里极少见的字。它的字节和别的字共用，教它写这个字，就会教坏那些字（{numref}`第 %s 章 <sec-identity>` 的“名字里有生字”）。
#
# **确认**：看它在回答的末尾还是中间；中间的，数一数训练数据里那个字出现过几次：`grep -o 满 data/processed/tiny/pretrain_chinese.jsonl | wc -l`。
#
# **怎么办**：调大 `--max_new_tokens`；换一个常见的字；或者把含有那个字的文本加进预训练。终端里一个字节一个字节地打印也会出“�”，要攒成整字再显示，`minillm chat` 就是这样做的。 <!-- by: minillm/model/generate.py -->
#
# (sec-normal-tokenizer)=
# ### 分词器不合
#
# **看到**：满屏不相干的字；或者程序一开始就拒绝。编号是一样的编号，文字换了一套：

# %%
other = RustBPETokenizer.load()  # the built-in one, of 6,400 tokens
ids = tokenizer.encode("张静住在北京。")
assert tokenizer.decode(ids) == "张静住在北京。" != other.decode(ids)
other.decode(ids)

# %% [markdown]
# **为什么**：模型学的是编号，编号指什么，由分词器说了算。所以权重里记着分词器的指纹，对不上就拒绝：

# %%
about = checkpoint.load_checkpoint(runs["sft"].weights)[1]
try:
    checkpoint.check_matches(Path("out/tiny/sft.safetensors"), about, config.model, other)
except UserError as error:
    print(error)

# %% [markdown]
# **确认**：报错里有两个指纹；自己写的代码没有这道检查，就比较两边的 `tokenizer.fingerprint`。
#
# **怎么办**：用回训练时的分词器，它在 `out/tiny/tokenizer`。真要换，见[怎样换分词器](sec-faq-tokenizer)。
#
# (sec-normal-temperature)=
# ### 温度
#
# **看到**：怎么问都答同一句；或者相反，同一个问题，回答一次一个样，越来越离谱。 <!-- by: assert heat[0.0][1] --> <!-- by: assert not heat[2.0][1] -->

# %%
facts = scoring.questions("fact", 30)
model = runs["sft"].model()
heat = {}
for temperature in (0.0, 0.8, 2.0):
    found = [answers(model, facts, 32, temperature=temperature, seed=lab.SEED + i) for i in (0, 1)]
    said = [tokenizer.decode(ids) for ids in found[0]]
    right = np.mean([q.is_correct(reply) for q, reply in zip(facts, said, strict=True)])
    heat[temperature] = float(right), found[0] == found[1], said
assert heat[0.0][1]  # the same answers, whatever the seed
assert not heat[2.0][1]
assert heat[0.0][0] >= 0.75
assert heat[2.0][0] < heat[0.0][0] - 0.2

# %% tags=["remove-input", "nbval-ignore-output"]
assert heat[2.0][0] < heat[0.0][0] - 0.2
show.say(
    f"30 道留出的事实题，温度 0 答对 {heat[0.0][0]:.0%}，0.8 答对 {heat[0.8][0]:.0%}，2 答对 {heat[2.0][0]:.0%}。",
    f"问{show.quote(facts[0].messages[-1][1])}，温度 0 答{show.quote(heat[0.0][2][0])}，",
    f"温度 2 答{show.quote(heat[2.0][2][0])}。",
)

# %% [markdown]
# **为什么**：温度 0 是贪心解码，每步取分数最高的词元，换了种子也还是那一句，正常。温度高，尾巴里的词元常被抽中，抽错一个，后面就跟着错。 <!-- by: assert heat[0.0][1] --> <!-- by: assert heat[2.0][0] < heat[0.0][0] - 0.2 -->
#
# **确认**：`minillm chat --preset tiny --temperature 0`，还乱，就不是温度的事。
#
# **怎么办**：有标准答案的问题用 0；讲故事用 0.8，加 `--top_p 0.9`。贪心解码讲长文时容易原地打转，那是它的老毛病 {cite:p}`holtzman2020topp`。 <!-- by: @holtzman2020topp -->
#
# (sec-normal-dpo)=
# ### DPO 过了头
#
# **看到**：日志漂亮，间隔比正常的大得多；开口是乱的。下面这份，学习率放大五十倍，又去掉了负对数似然那一项，走 40 步： <!-- by: assert sunk.log[-1]["val_margin"] > 1.5 * dpo.log[-1]["val_margin"] --> <!-- by: assert good["正常"][0] > good["过了头"][0] + 0.1 -->

# %%
dpo, sunk = (
    runs["dpo"],
    lab.variant("dpo-no-nll", "dpo", learning_rate=5e-3, max_steps=40, nll_weight=0.0),
)
good = {}
for name, run in (("正常", dpo), ("过了头", sunk)):
    texts = list(map(tokenizer.decode, answers(run.model())))
    marks = [q.is_correct(r) and scoring.is_polite(r) for q, r in zip(asked, texts, strict=True)]
    good[name] = float(np.mean(marks)), texts[0]
assert sunk.log[-1]["val_margin"] > 1.5 * dpo.log[-1]["val_margin"]
assert good["正常"][0] > good["过了头"][0] + 0.1

# %% tags=["remove-input", "nbval-ignore-output"]
assert good["正常"][0] > good["过了头"][0] + 0.1
show.say(
    f"验证集上的间隔，正常的是 {dpo.log[-1]['val_margin']:.2f}，这一份是 {sunk.log[-1]['val_margin']:.2f}。",
    f"可是 {len(asked)} 道题里又对又客气的，正常的占 {good['正常'][0]:.0%}，这一份占 {good['过了头'][0]:.0%}。",
    f"头一题，正常的说{show.quote(good['正常'][1])}，这一份说{show.quote(good['过了头'][1])}。",
)

# %% [markdown]
# **为什么**：DPO 的损失只看两个回答之差。两个都变得不可能，只要被拒绝的掉得更快，损失也会降（{numref}`第 %s 章 <sec-dpo>`）。 <!-- by: reasoning -->
#
# **确认**：`minillm evaluate --preset tiny --stage dpo`，再把 `dpo` 换成 `sft`，两份比：礼貌率该高上去，各类题的正确率不该低一大截。<!-- by: reasoning -->
#
# **怎么办**：从 SFT 的权重重新来，学习率降下去，保留 `--nll_weight`。
#
# (sec-normal-forget)=
# ### 只学身份
#
# **看到**：问它是谁，对答如流；问别的，客气少了一大截，别的题也可能错得多了。 <!-- by: assert lost["polite"] < kept["polite"] - 0.2 -->

# %%
me, path = lab.READER, lab.cache_dir() / "normal" / "alone.jsonl"
write_atomically(path, persona.training_rows(persona.about(me), replayed=[], count=800))
steps = {"max_steps": len(runs["identity"].log), "learning_rate": 2e-3, "epochs": 5}
alone = lab.variant("identity-alone", "sft", runs["dpo"], path, **steps)
kept, lost = (run.scores(persona=me) for run in (runs["identity"], alone))
mean = [float(np.mean(list(found["accuracy"].values()))) for found in (kept, lost)]
assert min(kept["identity_hit_rate"], lost["identity_hit_rate"]) >= 0.75
assert lost["polite"] < kept["polite"] - 0.2

# %% tags=["remove-input", "nbval-ignore-output"]
assert lost["polite"] < kept["polite"] - 0.2
show.say(
    f"自称小满的，有回放 {kept['identity_hit_rate']:.0%}，只有身份数据 {lost['identity_hit_rate']:.0%}；",
    f"客气的，{kept['polite']:.0%} 和 {lost['polite']:.0%}；十类题平均，{mean[0]:.2f} 和 {mean[1]:.2f}。",
)

# %% tags=["remove-input", "nbval-ignore-output"] mystnb={"figure": {"caption": "换名字时的训练损失（10 步平均），纵轴是对数刻度。灰线：有回放；红线：只有身份数据。红线只要背几百句话；它再低，也没有一分是别的题挣来的。", "name": "fig-normal-forget"}, "image": {"alt": "两条折线，横轴是步数，纵轴是损失：有回放的一条，只有身份数据的一条"}}
logs = {"有回放": runs["identity"].log, "只学身份": alone.log}
courses = {n: show.smooth([e["loss"] for e in log], 10) for n, log in logs.items()}
show.lines(
    {n: (range(1, len(losses) + 1), losses) for n, losses in courses.items()},
    "步",
    "损失（奈特）",
    SICK,
    log_y=True,
)

# %% [markdown]
# **为什么**：没有一行数据要它记得别的，权重就被新的内容盖掉，这叫灾难性遗忘（{numref}`第 %s 章 <sec-identity>`）。 <!-- by: assert lost["polite"] < kept["polite"] - 0.2 -->
#
# **确认**：`minillm evaluate` 把旧题全部重考一遍，和换名字以前的比。
#
# **怎么办**：把旧数据掺进去回放。`minillm persona` 已经这样做了。
#
# (sec-normal-reward)=
# ### 奖励看不见的
#
# **看到**：GRPO 的奖励升上去了，没有奖励的题却变差了。下面这份，学习率放大十倍，走 12 步： <!-- by: assert np.mean(paid[-5:]) > np.mean(paid[:5]) --> <!-- by: assert max(drop.values()) > 0.05 -->

# %%
hasty = lab.variant("thinking-rate", "grpo", start=runs["sft"], learning_rate=3e-3, max_steps=12)
paid = [entry["reward"] for entry in hasty.log]
unpaid = [kind for kind in scores["sft"] if kind not in ("add", "sub")]
after = hasty.scores()["accuracy"]
drop = {kind: scores["sft"][kind] - after[kind] for kind in unpaid}
assert np.mean(paid[-5:]) > np.mean(paid[:5])
assert max(drop.values()) > 0.05

# %% tags=["remove-input", "nbval-ignore-output"]
most = max(drop, key=drop.get)
assert drop[most] > 0.05
show.say(
    f"奖励从 {np.mean(paid[:5]):.2f} 升到 {np.mean(paid[-5:]):.2f}（头 5 步和最后 5 步），",
    f"从来没有问过的 `{most}` 却从 {scores['sft'][most]:.2f} 掉到 {after[most]:.2f}。",
)

# %% tags=["remove-input", "nbval-ignore-output"] mystnb={"figure": {"caption": "左：奖励（3 步平均）。右：熵，模型还有多犹豫。灰线：正常，从 DPO 的权重出发；红线：学习率乘十，从 SFT 的权重出发，只走 12 步。两条线的高低不必比，看各自怎样走：奖励的曲线看不出病；熵塌得快，是个警告。", "name": "fig-normal-reward"}, "image": {"alt": "左右两幅折线图，横轴是步数。左图两条奖励都往上走，学习率乘十的升得快；右图两条熵都往下走，学习率乘十的降得快"}}
logs = {"正常": runs["grpo"].log, "乘十": hasty.log}
courses = {
    label: {
        n: ([e["step"] for e in g], show.smooth([e[key] for e in g], 3)) for n, g in logs.items()
    }
    for label, key in (("奖励", "reward"), ("熵（奈特）", "entropy"))
}
show.panels(courses, "步", SICK)

# %% [markdown]
# **为什么**：奖励只看加减法，别的题答成什么样没有人管（{numref}`第 %s 章 <sec-thinking>`）。 <!-- by: assert max(drop.values()) > 0.05 -->
#
# **确认**：`minillm evaluate --preset tiny --stage grpo`，再把 `grpo` 换成 `dpo`，比没有奖励的那几行。奖励一直不动，则是另一种病，见[常见问题](faq.md)。
#
# **怎么办**：学习率降下去，步数少走些；用 `--kl_weight` 拴住它。
#
# (sec-normal-outside)=
# ### 世界之外：说得通顺，全是编的
#
# **看到**：问首都，问月亮，问昨天的新闻，它答得很肯定，而且是错的。

# %% tags=["nbval-ignore-output"]
outside = ["中国的首都是哪里？", "月亮上有什么？", "25加30等于多少？请数着算。"]
show.table(
    ["世界之外的问题", "DPO 的回答"], list(zip(outside, dpo.evaluator().ask(outside), strict=True))
)

# %%
conversations = [json.loads(line)["messages"] for line in rows_file.read_text("utf-8").splitlines()]
by_model = [m["content"] for c in conversations for m in c if m["role"] == "assistant"]
assert not any("不知道" in text for text in by_model)
assert not any(re.search("首都|月亮", text) for text in by_model)

# %% [markdown]
# **为什么**：这是**正常**的。它只读过 48 个人、20 以内的数、商店和日历，SFT 的数据里没有一段回答说过“不知道”。它学会的是：每个问题后面跟着一句肯定的话。 <!-- by: assert not any("不知道" in text for text in by_model) -->
#
# **确认**：问一个世界之内的问题。那个答得对，模型就没有病。
#
# **怎么办**：要它知道别的，就给它别的数据（[数据从哪里来](sources.md)）；要它承认不知道，就写一些这样的对话，放进 SFT。
#
# ## 还是拿不准
#
# 求助之前，先把这几样放在一起，别人才看得出来：
#
# ```bash
# git rev-parse HEAD
# python -c "import torch; print(torch.__version__, torch.get_num_threads())"
# head -n 3 out/tiny/pretrain_log.jsonl
# tail -n 1 out/tiny/pretrain_log.jsonl
# minillm chat --preset tiny --stage sft --prompt 张静住在哪里？
# ```
#
# 再加上完整的命令、报错的原文、用的数据，和你以为它该输出什么。最快的自查是换一种比法：用同一份代码、内置的数据、`tiny` 预设，从头跑一遍。那一遍正常，问题就在你改动的地方；那一遍也不正常，多半是程序的缺陷。 <!-- by: reasoning -->
