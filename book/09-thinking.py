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
# (sec-thinking)=
# # 学会思考：只看结果对不对
#
# :::{admonition} 本章
# :class: tip
#
# - **你将学会**：没有标准解法、只有判分程序时怎样训练模型；亲手算一次策略梯度；看懂 GRPO 比 REINFORCE 多了什么；量出强化学习教会的是新本领，还是何时用旧本领。
# - **需要时间**：阅读 50 分钟，运行不到两分钟；第一次运行另要训练十一份小模型，只用一个 CPU 核约五分钟。
# - **需要内存**：2 GB。
# - **用到的模块**：`minillm.training.reinforcement`、`minillm.training.grpo`、`minillm.microworld.scoring`。
# :::

# %%
import json
import math
import re
import zlib
from collections import Counter
from dataclasses import replace
from random import Random

from minillm.book import lab, show, tasks
from minillm.book.drawings import judging
from minillm.data.rows import to_messages
from minillm.files import write_atomically
from minillm.microworld import scoring
from minillm.microworld.exercises import SUM_POOLS
from minillm.training import grpo, objectives, reinforcement

import numpy as np
import torch

lab.start()

# %% [markdown]
# ## 开场
#
# 上一章（{numref}`第 %s 章 <sec-dpo>`）之后，模型答得客气了：

# %% tags=["nbval-ignore-output"]
sft, dpo = lab.ladder("sft"), lab.ladder("dpo")
replies = {run.name: lab.showcase(run.model()) for run in (sft, dpo)}
show.spine(replies)

# %% [markdown]
# 中间那一句的末尾有“请数着算”。去掉这四个字，它还算得对吗？拿 600 道训练里从没问过的加减法，每道问两遍：一遍照原样，一遍在末尾加上“请数着算。”。题目虽多，里面的两个数（下文叫一个**数对**）只有 24 种，都是留出的，只是问法和先后不同，所以误差比 600 道独立的题该有的大。


# %%
exam = [q for kind in ("add", "sub") for q in scoring.questions(kind, 300)]
kinds = np.array([q.kind for q in exam])
assert len(exam) == 600


def answers(run, questions, cue="", step=None):
    """Greedy answers, which of them are right, and which of them count."""
    turns = [[*q.messages[:-1], ("user", q.messages[-1][1] + cue)] for q in questions]
    said = run.evaluator(step).chat([to_messages(turn) for turn in turns])
    right = np.array([q.is_correct(reply) for q, reply in zip(questions, said, strict=True)])
    return said, right, np.array(["步到" in reply for reply in said])


def line(name, answered):
    """A row of a table: the shares of sums and differences that are right, and of counting."""
    _, right, counted = answered
    return [name, right[kinds == "add"].mean(), right[kinds == "sub"].mean(), counted.mean()]


# %% tags=["nbval-ignore-output"]
columns = ["", "加法", "减法", "数的比例"]
plain = {run.name: answers(run, exam) for run in (sft, dpo)}
told = {run.name: answers(run, exam, cue="请数着算。") for run in (sft, dpo)}
rows = []
for name in ("sft", "dpo"):
    rows.append(line(f"{name.upper()}，照原样", plain[name]))
    rows.append(line(f"{name.upper()}，请它数", told[name]))
show.table(columns, rows)

# %%
for name in ("sft", "dpo"):
    assert plain[name][2].mean() < 0.3 < 0.7 < told[name][2].mean()
    assert told[name][1][kinds == "sub"].mean() > plain[name][1][kinds == "sub"].mean() + 0.3

# %% [markdown]
# 减法直接写，大多是错的；叫它数，就好得多。<!-- by: assert told[name][1][kinds == "sub"].mean() > plain[name][1][kinds == "sub"].mean() + 0.3 -->它**会**数，只是没有人提醒就不数。<!-- by: assert plain[name][2].mean() < 0.3 < 0.7 < told[name][2].mean() -->
#
# 怎样让它自己想到要数？写几千个先数后答的示范，再做一轮 SFT，当然可以。但这一章换一个问法：如果我们**不知道**好的解法长什么样，只能判断最后的答案对不对呢？数学题、编程题都是这样：写出解法很难，核对答案很容易。
#
# 能由程序核对的奖励，叫**可验证奖励**（verifiable reward）。本章的奖励只有一行：对的得 1 分，错的得 0 分。不写示范，也不提“数”这个字，模型自己写，程序判分，这就是**强化学习**（reinforcement learning）。
#
# ## 手算
#
# ### 一道题，八个回答，一次梯度
#
# 先把事情缩到最小。设一道题只有两种答法：“直接写”，得 0 分；“数着算”，得 1 分。模型给两种答法的分数（logit）是 $z = (\ln 3,\ 0)$，所以概率是 $\pi = (3/4,\ 1/4)$：它四次里只数一次。<!-- by: reasoning -->
#
# 让它答八次，抽到的是：写、写、数、写、写、写、数、写。我们要的是平均奖励 $J = \mathbb{E}_{y \sim \pi}[r(y)]$ 变大。问题是，判分程序不能求导，$J$ 怎样对 $z$ 求导？
#
# 办法是只对概率求导。$\mathbb{E}_{y \sim \pi}$ 是让模型自己写 $y$ 时的平均，写开来就是 $J = \sum_y \pi(y)\,r(y)$：每种回答的得分，乘上它出现的概率，再加起来。里面只有 $\pi(y)$ 随 $z$ 变，$r(y)$ 不变。$\nabla$ 是对 $z$ 的每个分量各求一次导数。再用一个恒等式：$\log \pi$ 的导数是 $\nabla \pi / \pi$，移项就是 $\nabla \pi(y) = \pi(y)\,\nabla \log \pi(y)$。所以<!-- by: reasoning -->
#
# ```{math}
# :label: eq-thinking-reinforce
# \nabla J = \sum_y r(y)\,\nabla \pi(y) = \mathbb{E}_{y \sim \pi}\bigl[\,r(y)\,\nabla \log \pi(y)\,\bigr]
# ```
#
# 恒等式把 $\pi(y)$ 换到了前面，又当上了平均的权重。于是右边是一个平均数，抽几个样本就能估计。这叫**策略梯度**（policy gradient），{cite:t}`williams1992` 给它起名 REINFORCE：得分高的回答，往概率更高的方向推。奖励 $r$ 只是一个系数，怎样算出来的都行。<!-- by: @williams1992 -->
#
# 对 softmax，$\partial \log \pi(y) / \partial z_k = \mathbf{1}\{y = k\} - \pi_k$，其中 $\mathbf{1}\{y = k\}$ 在 $y$ 就是 $k$ 时为 1，不是则为 0。只看“数”的那个 logit，$\pi_{\text{数}} = 1/4$：
#
# | 回答 | 个数 | $r$ | $\partial \log\pi / \partial z_{\text{数}}$ | 乘积 |
# |---|---|---|---|---|
# | 写 | 6 | 0 | $0 - 0.25 = -0.25$ | 0 |
# | 数 | 2 | 1 | $1 - 0.25 = +0.75$ | $+0.75$ |
#
# 八个平均：$2 \times 0.75 / 8 = 0.1875$。走一步，学习率取 1：$z_{\text{数}}$ 加 0.1875，$z_{\text{写}}$ 减 0.1875，“数”的概率从 0.25 升到 0.33。<!-- by: assert round(float(stepped[1]), 2) == 0.33 -->
#
# ### 减去平均分
#
# 上面的算法有一个毛病：得 0 分的六个回答，什么也没说。假如奖励是 10 分和 9 分，那么八个回答**都**往上推，好坏只差在推得多狠。我们想要的是：比平均好的往上推，比平均差的往下压。所以减去一个数 $b$，叫**基线**（baseline）；剩下的 $A = r - b$ 叫**优势**（advantage）。<!-- by: reasoning -->
#
# 这样减，会不会把方向减歪了？不会，因为 $\nabla \log \pi$ 自己的平均是 0：$\pi_{\text{数}} \times 0.75 + \pi_{\text{写}} \times (-0.25) = 0.25 \times 0.75 - 0.75 \times 0.25 = 0$。概率的总和永远是 1，有的要涨，就有的要跌。于是 $\mathbb{E}[b\,\nabla \log \pi] = 0$，减掉它，平均不变，只少了些忽大忽小。<!-- by: reasoning -->
#
# 用这一组的平均分 $2/8 = 0.25$ 作基线：
#
# | 回答 | 个数 | $r$ | $A = r - 0.25$ | $\partial \log\pi / \partial z_{\text{数}}$ | 乘积 |
# |---|---|---|---|---|---|
# | 写 | 6 | 0 | $-0.25$ | $-0.25$ | $+0.0625$ |
# | 数 | 2 | 1 | $+0.75$ | $+0.75$ | $+0.5625$ |
#
# 平均：$(6 \times 0.0625 + 2 \times 0.5625)/8 = 0.1875$，和刚才一样，只是现在错的回答也出了力（{numref}`fig-thinking-pushes`）。

# %% tags=["nbval-ignore-output"] mystnb={"figure": {"caption": "八个回答各受什么力。箭头向上：往更常说的方向推；向下：往少说的方向压；长短是权重。上：权重是奖励，得 0 分的不动。下：减去平均分，好的往上，差的往下。", "name": "fig-thinking-pushes"}, "image": {"alt": "两行，每行八个格子，写着写或数。上一行只有两个“数”有向上的箭头；下一行两个“数”向上的箭头略短，六个“写”有向下的箭头，更短"}}
judging.pushes(
    list("写写数写写写数写"),
    {
        "奖励": [0, 0, 1, 0, 0, 0, 1, 0],
        "减去平均": [-0.25 if c == "写" else 0.75 for c in "写写数写写写数写"],
    },
)

# %% [markdown]
# 请 PyTorch 核对：

# %%
counts = torch.tensor([0, 0, 1, 0, 0, 0, 1, 0])  # which of the eight answers count
rewards = counts.double()[None]  # [questions=1, group_size=8]
better = reinforcement.advantages(rewards)
assert better.unique().tolist() == [-0.25, 0.75]

for weights in (rewards, better):
    z = torch.tensor([math.log(3), 0.0], dtype=torch.float64, requires_grad=True)
    log_probs = z.log_softmax(-1)[counts]  # of each answer, [8]
    (weights[0] * log_probs).mean().backward()
    assert torch.allclose(z.grad, torch.tensor([-0.1875, 0.1875], dtype=torch.float64))
stepped = (z.detach() + z.grad).softmax(-1)
assert round(float(stepped[1]), 2) == 0.33
print(f"gradient {z.grad[1]:.4f}, probability of counting 0.25 -> {stepped[1]:.2f}")

# %% [markdown]
# 这八个样本恰好是两个“数”，正合概率。抽到几个“数”，其实要看运气：0 到 8 个都可能。把九种情形按概率加权，就得到梯度估计的真实平均和标准差，不必抽样：


# %%
def estimate(k, baseline):
    """The gradient that a group of eight with ``k`` answers that count estimates."""
    r = np.array([1.0] * k + [0.0] * (8 - k))
    return np.mean((r - baseline(r)) * (r - 0.25))  # counting is right, so r is also 1{y}


chance = np.array([math.comb(8, k) * 0.25**k * 0.75 ** (8 - k) for k in range(9)])
spread = {}
for name, baseline in (("none", lambda r: 0), ("0.25", lambda r: 0.25), ("group mean", np.mean)):
    found = np.array([estimate(k, baseline) for k in range(9)])
    mean = float(chance @ found)
    spread[name] = mean, float(np.sqrt(chance @ (found - mean) ** 2))
    print(f"baseline {name:10}  mean {mean:.4f}, standard deviation {spread[name][1]:.4f}")
assert math.isclose(spread["0.25"][0], 0.1875)
assert math.isclose(spread["group mean"][0], 0.1875 * 7 / 8)
assert spread["0.25"][1] < 0.7 * spread["none"][1]

# %% [markdown]
# 减去 0.25，平均不变，标准差小了三分之一：<!-- by: assert spread["0.25"][1] < 0.7 * spread["none"][1] -->同样多的样本，方向更准。用组平均则有一点折扣：每个回答的基线里有它自己的八分之一，平均成了 $7/8$。所有分量打同样的折，方向没有变。<!-- by: assert math.isclose(spread["group mean"][0], 0.1875 * 7 / 8) -->
#
# ### 从 REINFORCE 到 GRPO，一次加一样
#
# 1. **REINFORCE**：$r\,\nabla \log\pi(y)$。
# 2. **减基线**：$(r - b)\,\nabla\log\pi(y)$。$b$ 从哪里来？PPO {cite:p}`schulman2017ppo` 另训一个网络来估计，叫价值网络。
# 3. **组平均**：同一道题答 $G$ 次，$b$ 就是这一组的平均分。不要价值网络，这是**组相对策略优化**（group relative policy optimization，GRPO）{cite:p}`shao2024deepseekmath` 的核心。
# 4. **除以标准差**：原版的 GRPO 用 $A = (r - \bar r)/\mathrm{std}(r)$，标准差是样本的（分母 $G - 1$）。对错一边倒的组因此说话更响，下面的单元格会算。{cite:t}`liu2025drgrpo` 认为这是偏差，去掉了；本书默认也不除。<!-- by: @liu2025drgrpo -->
# 5. **词元**：回答是一串词元，$\log\pi(y) = \sum_t \log\pi(y_t)$，每个词元都拿整个回答的 $A$。全部相加，再除以这一批答案的词元总数，如 DAPO {cite:p}`yu2025dapo`。
# 6. **裁剪**：采样很贵，想在同一批回答上多走几步。可是走了一步，模型就不是写出它们的那个模型了。记 $\rho = \pi / \pi_{\text{采样时}}$，PPO 的目标是 $\min\bigl(\rho A,\ \mathrm{clip}(\rho,\, 1-\varepsilon,\, 1+\varepsilon)\, A\bigr)$：一个词元的概率已经变了 $\varepsilon$ 这么多，就不再推它。取 $\varepsilon = 0.2$，看三种情形：<!-- by: @schulman2017ppo -->
#    - 好的回答 $A = 1$，$\rho$ 已经到 1.5：$\min(1.5,\ 1.2) = 1.2$ 是常数，导数是 0，推到头了。
#    - 坏的回答 $A = -1$，$\rho$ 已经到 0.5：$\min(-0.5,\ -0.8) = -0.8$ 也是常数，压到头了。
#    - 好的回答变得更难说出口了，$\rho = 0.5$：$\min(0.5,\ 0.8) = 0.5$，没有裁掉，还能推回来。<!-- by: @schulman2017ppo -->
#
#    只走一步时 $\rho = 1$，裁剪不起作用。
# 7. **KL**：再扣掉离出发点的距离，和上一章的 $\beta$ 是同一根缰绳。本章不用它，权重取 0。<!-- by: config.GRPO_PRESETS["tiny"].kl_weight == 0 -->
#
# 第 4 条除得有多狠？一组八个，分别对 1 个、4 个、7 个：

# %%
groups = torch.tensor([[1.0] * k + [0.0] * (8 - k) for k in (1, 4, 7)], dtype=torch.float64)
for by_std in (False, True):
    a = reinforcement.advantages(groups, divide_by_std=by_std)
    shown = [f"{row[0]:.2f} {row[-1]:.2f}" for row in a.tolist()]  # a right answer, a wrong one
    print(f"divide_by_std={by_std!s:5} ", "   ".join(shown))
    assert torch.allclose(a.sum(1), torch.zeros(3, dtype=torch.float64))
same = torch.ones(1, 8, dtype=torch.float64)
assert reinforcement.advantages(same).abs().max() == 0.0

# %% [markdown]
# 看对的回答得了多少：只对一个的那组，和对了一半的那组比。不除的时候，0.88 比 0.50，不到两倍；除了以后，2.47 比 0.94，两倍半还多。<!-- by: 2.47 / 0.94 > 2.5 --><!-- by: 0.88 / 0.5 < 2 -->
# 还有一条：八个**全对**或**全错**，优势全是 0，这道题白问了。后面会看到，快学会的时候，这样的组越来越多。<!-- by: assert reinforcement.advantages(same).abs().max() == 0.0 -->
#
# 和前两章比：
#
# | | 回答谁写的 | 好坏谁说的 | 和什么比 | 训练时的模型 |
# |---|---|---|---|---|
# | SFT | 别人 | 不说，照抄 | 不比 | 一个 |
# | DPO | 别人 | 偏好对 | 另一个回答 | 策略、参考 |
# | PPO | 自己 | 奖励模型或程序 | 价值网络的估计 | 策略、价值网络，常加参考、奖励模型 |
# | GRPO | 自己 | 同上 | 同组的平均 | 策略，要 KL 时加参考 |
#
# ## 真实代码
#
# ### 问什么
#
# 强化学习只问 SFT **没有直接问过**的数对，考试用的又是第三份：

# %%
assert not set(SUM_POOLS["rl"]) & set(SUM_POOLS["sft"])
assert not set(SUM_POOLS["test"]) & {*SUM_POOLS["rl"], *SUM_POOLS["sft"]}
print({name: len(pairs) for name, pairs in SUM_POOLS.items()})
show.source(scoring.question_to_explore)

# %% [markdown]
# 为什么不问 SFT 问过的？那些答案它背过了，直接写就能得分，数不数一个样，没有什么可学。“弄坏它”一节会量这件事。
#
# 还要有一样东西：它得**偶尔**真的数一次。从不出现的回答，判不到分，也就推不动。所以 SFT 数据里，没有要求数的加减法有 5% 是数着答的。<!-- by: minillm/microworld/exercises.py -->
#
# ### 采样、判分、优势

# %%
show.source(reinforcement.roll_out)

# %% [markdown]
# 三处要留意。温度是 1：{eq}`eq-thinking-reinforce` 要求样本来自正在训练的那个分布。结束标记 `end` 也算回答：什么时候停，也是模型的选择。只有答到上限被砍断的，末尾没有它。
#
# 真的问一道题，答 16 次：


# %%
def sample(run, questions, n, step=None, seed=lab.SEED):
    """n answers to each question at temperature 1, one group after the other."""
    config, model, found = replace(lab.training("grpo"), group_size=n), run.model(step), []
    for i in range(0, len(questions), 16):  # all at once would need much memory
        part = questions[i : i + 16]
        found += reinforcement.roll_out(model, tokenizer, part, config, seed + i)
    return found


def counts_up(rollouts):
    return np.array(["步到" in rollout.reply for rollout in rollouts])


# %% tags=["nbval-ignore-output"]
tokenizer = lab.tokenizer()
rng = Random(lab.SEED)
explored = [scoring.question_to_explore(rng) for _ in range(48)]
rollouts = sample(sft, explored, 16)
rewards = reinforcement.group_rewards(rollouts, 16)  # [48, 16]
found = (counts_up(rollouts) & (rewards.flatten().numpy() == 1)).reshape(48, 16)  # counted, right
telling = found.any(axis=1) & (rewards.sum(dim=1).numpy() < 8)
i = int(telling.argmax())  # the first group that has one, and not many right ones
assert telling[i]
group, better = rollouts[16 * i : 16 * i + 16], reinforcement.advantages(rewards)[i]
print(group[0].question.messages[-1][1])
show.table(
    ["奖励", "优势", "回答"],
    [[int(r.reward), float(a), r.reply] for r, a in zip(group, better, strict=True)],
)

# %% [markdown]
# 判分只看回答的最后一句，客气话不算：里面要有得数，也不能扯到题目没有说的人和事。所以先说对、又往下胡说的，得 0 分。<!-- by: minillm/microworld/scoring.py -->
#
# 这张表就是训练的全部信息。这里数着算的那一个答对了，优势是正的，它的每一个词元都往上推，包括开头决定“要数”的那几个。<!-- by: assert telling[i] -->
#
# ### 目标函数

# %%
show.source(reinforcement.advantages, reinforcement.make_grpo_objective)

# %% [markdown]
# 去掉裁剪和 KL，剩下的就是 `token_losses` 乘上优势：**SFT 的损失，每个回答加一个可正可负的权重**。采样之后的第一步 $\rho = 1$，梯度应当与它完全相同。用刚才那一组核对：

# %%
(batch,) = reinforcement.pack_rollouts(group, better, 1024, 8)
model = sft.model()
gradients = []
for weighted in (False, True):
    model.zero_grad()
    if weighted:
        weights = batch.advantages[batch.document_ids.clamp(min=0)]  # [B, T]
        (objectives.token_losses(model, batch) * weights).sum().backward()
    else:
        reinforcement.make_grpo_objective()(model, batch).total.backward()
    gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
assert gradients[0].abs().max() > 0
assert torch.allclose(*gradients, atol=1e-5)

# %% [markdown]
# ### 一步训练
#
# 训练循环还是那个循环，只是批次由模型现写：

# %%
show.source(grpo.GRPOTrainer.batches, grpo.GRPOTrainer.step)

# %% [markdown]
# 日志里有一项 `informative`，是组内分数不全相同的题所占的比例。它是 0 的那一步，权重原样不动。
#
# ## 实验
#
# ### 30 步：奖励和长度一起升
#
# 从 SFT 的权重出发，每步 16 道题，每道答 8 次，走 30 步，学习率 0.0003，用 AdamW。换三颗种子：题目和抽样都不同。<!-- by: math.isclose(config.GRPO_PRESETS["tiny"].learning_rate, 0.0003) --><!-- by: config.GRPO_PRESETS["tiny"].questions == 16 --><!-- by: assert all(len(run.log) == 30 for run in runs) -->

# %%
runs = [
    lab.variant("thinking", "grpo", start=sft, seed=lab.SEED + i, max_steps=30) for i in range(3)
]
assert all(len(run.log) == 30 for run in runs)

# %% mystnb={"figure": {"caption": "三颗种子，每 5 步平均。从左到右：平均奖励，回答的词元数，熵（每个词元的 $-\\log\\pi$，即模型还有多犹豫）。奖励升，长度跟着升，熵降下去。", "name": "fig-thinking-curves"}, "image": {"alt": "三幅折线图并排，横轴都是步数 1 到 30，每幅三条线，每颗种子一条。奖励和长度上升，熵下降。"}} tags=["nbval-ignore-output"]
steps = [entry["step"] for entry in runs[0].log]
colours = [show.COLOURS[name] for name in ("grpo", "other", "sft")]
courses = {
    name: {
        f"种子 {lab.SEED + i}": (steps, show.smooth([e[key] for e in run.log], 5))
        for i, run in enumerate(runs)
    }
    for name, key in (("奖励", "reward"), ("词元数", "length"), ("熵（奈特）", "entropy"))
}
for run in runs:
    first, last = run.log[:5], run.log[-5:]
    for key, change in (("reward", 0.1), ("length", 4), ("entropy", -0.03)):
        grown = np.mean([e[key] for e in last]) - np.mean([e[key] for e in first])
        assert grown > change if change > 0 else grown < change, (key, grown)
show.panels(courses, "步", colours)

# %% [markdown]
# 三颗种子走出同一种形状。<!-- by: assert grown > change if change > 0 else grown < change -->{cite:t}`deepseek2025r1` 的图里也是这样：没有人要求写长，回答却随着奖励自己变长。那里花的是大量的显卡；这里是一个 869,504 个参数的模型，只用 CPU。
#
# ### 留出的 600 道题

# %% tags=["nbval-ignore-output"]
after = [answers(run, exam) for run in runs]
rows = [line("SFT", plain["sft"])]
rows += [line(f"GRPO，种子 {lab.SEED + i}", found) for i, found in enumerate(after)]
rows.append(line("SFT，请它数", told["sft"]))
show.table(columns, rows, [None, *[show.COLOURS["grpo"]] * 3])

# %%
for _, right, counted in after:
    assert counted.mean() > plain["sft"][2].mean() + 0.3
    assert right[kinds == "sub"].mean() > plain["sft"][1][kinds == "sub"].mean() + 0.2

# %% [markdown]
# 三颗种子都开始不用提醒就数；减法比原来高 0.2 以上。<!-- by: assert counted.mean() > plain["sft"][2].mean() + 0.3 --><!-- by: assert right[kinds == "sub"].mean() > plain["sft"][1][kinds == "sub"].mean() + 0.2 -->这些数对，哪一个阶段都没有问过。
#
# ### 它学会的是选择，不是减法
#
# 表的最后一行是没有训练过的 SFT 模型，只是有人提醒它数。拿强化学习之后的三行和它比：像不像同一个模型，只是不用提醒了？（看减法那一列。加法直接写就能对一些，推力小，30 步未必追得上。）这让人怀疑：它学到的，也许只是**什么时候**数。<!-- by: reasoning -->
#
# 怎样检验？如果只是换了选择，而“直接写”和“数”两种算法各自的水平不变，那么正确率应当是两个数的加权平均，权重就是数的比例：
#
# $$\text{正确率} = (1 - c) \times \text{直接写的正确率} + c \times \text{数的正确率}$$
#
# 横轴放数的比例 $c$，纵轴放正确率，训练途中的每一个模型都应当落在一条直线上。取每颗种子第 0、10、20、30 步的权重，各答 40 道留出的减法，每道两次。直线的两端由 SFT 模型定：左端是照原样问时，不数的那些回答的正确率；右端是提醒它数时，数了的那些的正确率。点和直线都用温度 1 的抽样，和前面表里的贪心解码不是一把尺子：

# %% mystnb={"figure": {"caption": "留出的减法：横轴是数着算的比例，纵轴是正确率，全部在温度 1 抽样量得。每条折线是一颗种子在第 0、10、20、30 步的模型；灰线连接 SFT 模型的两种水平，左端是它不数的回答，右端是它被提醒而数了的回答。", "name": "fig-thinking-line"}, "image": {"alt": "横轴从 0 到 1 是数着算的比例，纵轴是正确率。三条带点的折线从左下角沿着一条灰色直线走到右上角。"}} tags=["nbval-ignore-output"]
subs = [q for q in exam if q.kind == "sub"][:40]
reminded = [replace(q, messages=(("user", q.messages[-1][1] + "请数着算。"),)) for q in subs]


def share_and_accuracy(drawn):
    return float(counts_up(drawn).mean()), float(np.mean([r.reward for r in drawn]))


written, counted = sample(sft, subs, 8), sample(sft, reminded, 8)
low = np.mean([r.reward for r in written if "步到" not in r.reply])
high = np.mean([r.reward for r in counted if "步到" in r.reply])
start, ways = share_and_accuracy(written), {}
for i, run in enumerate(runs):
    points = [start, *(share_and_accuracy(sample(run, subs, 2, step)) for step in run.steps)]
    ways[f"种子 {lab.SEED + i}"] = np.array(points).T  # [share or accuracy, 4]
off = [np.abs(y - (low + x * (high - low))).mean() for x, y in ways.values()]
assert max(off) < 0.2
shown = {"只换选择": ([0.0, 1.0], [low, high]), **ways}
show.lines(shown, "数着算的比例（抽样）", "正确率（减法，抽样）", [show.GREY, *colours], marker="o")

# %% [markdown]
# 点都在直线附近：看得到的变化，用换了选择就说得通。<!-- by: assert max(off) < 0.2 -->奖励没有教会它减法，它把本来就会、但很少用的那种做法，变成了习惯。
#
# 这张图也有看不出的事：数的比例接近 1 以后，不数的回答没剩几个，它们准没准，无从知道。“长度收费”一节换一种奖励，再看直接写的那条路动没有动。<!-- by: reasoning -->
#
# ### 多答几次，原来的模型也答得出
#
# 换一个角度问同一件事：强化学习之前，正确的回答在不在模型的分布里？**pass@k** 是答 $k$ 次至少对一次的概率。直接抽 $k$ 个看有没有对的，误差很大；{cite:t}`chen2021codex` 的做法是抽 $n \ge k$ 个，其中 $c$ 个是对的，则<!-- by: reasoning -->
#
# ```{math}
# :label: eq-thinking-pass
# \text{pass@}k = 1 - \binom{n - c}{k} \Big/ \binom{n}{k}
# ```
#
# 也就是 1 减去“任取 $k$ 个都错”的概率。例如抽了 4 个，对 1 个，取 2 个：六种取法里三种全错，pass@2 是 $1 - 3/6 = 0.5$。<!-- by: 1 - math.comb(3, 2) / math.comb(4, 2) == 0.5 -->留出的减法 20 道，每道答 64 次。答案都不大于 20，乱猜多了也会碰对，所以再单算一行：对，**而且**是数出来的。<!-- by: reasoning -->


# %% tags=["nbval-ignore-output"]
def pass_at(k, right):
    """Mean over questions of the unbiased estimate; right: [questions, n]."""
    n, found = right.shape[1], right.sum(axis=1).tolist()
    return float(np.mean([1 - math.comb(n - c, k) / math.comb(n, k) for c in found]))


few, passes = subs[:20], {}
for name, run in (("SFT", sft), ("GRPO", runs[0])):
    rollouts = sample(run, few, 64)
    right = np.array([r.reward == 1 for r in rollouts]).reshape(-1, 64)
    by_counting = right & counts_up(rollouts).reshape(-1, 64)
    passes[name] = [pass_at(k, right) for k in (1, 8, 16, 64)]
    passes[f"{name}，数出来的"] = [pass_at(k, by_counting) for k in (1, 8, 16, 64)]
show.table(["", "pass@1", "pass@8", "pass@16", "pass@64"], [[n, *p] for n, p in passes.items()])

# %%
gains = {name: found[3] - found[0] for name, found in passes.items()}
assert gains["SFT，数出来的"] > 0.1
assert passes["GRPO"][0] > passes["SFT"][0] + 0.15
assert gains["SFT"] > gains["GRPO"] + 0.05

# %% [markdown]
# SFT 模型答一次，很少既数了又算对；答 64 次，靠数碰对过一回的题就多得多。<!-- by: assert gains["SFT，数出来的"] > 0.1 -->各种写法都算上，它碰对过的题还要多。强化学习把“偶尔”变成了“常常”：只答一次，它对得多；<!-- by: assert passes["GRPO"][0] > passes["SFT"][0] + 0.15 -->可是多答几次，它添得比 SFT 少，<!-- by: assert gains["SFT"] > gains["GRPO"] + 0.05 -->一来它只答一次就对了大半，剩下可添的本来不多；二来熵低了，64 次里许多是同一个回答。{cite:t}`yue2025rlvr` 在大模型上量到同样的事：$k$ 小的时候训练后的好，$k$ 大了，原来的模型追上来，甚至反超。这里题目简单，只看得到“追上来”那一半。<!-- by: reasoning -->
#
# ### 换成别的办法行不行
#
# 五个对照，都从同一个 SFT 模型出发：
#
# - **多做 SFT**：同样的 SFT 数据，再走 100 步，词元数与 30 步强化学习在同一个数量级；<!-- by: assert 0.3 < more.log[-1]["tokens"] / runs[0].log[-1]["tokens"] < 3 -->
# - **拒绝采样微调**（rejection sampling fine-tuning，RFT）{cite:p}`yuan2023rft`：抽一批回答，只留对的，拿来做 SFT，只做一轮；
# - **随机奖励**：按回答的哈希值给 0 分或 1 分；
# - **多数表决**（majority vote）{cite:p}`wang2023selfconsistency`：不训练，答 16 次，取最常见的得数（费时，所以加法、减法各只考 60 道）；<!-- by: reasoning -->
# - **提醒**：不训练，加上“请数着算。”，也就是开场的那一行。


# %%
def at_random(question, reply):
    """0 or 1 by the text alone: the same reply always gets the same."""
    return float(zlib.crc32((question.messages[-1][1] + reply).encode()) % 2)


slow = {"optimizer": "adamw", "learning_rate": 3e-4}  # as in GRPO
more = lab.variant("thinking-more", "sft", start=sft, max_steps=100, **slow)
luck = lab.variant("thinking-random", "grpo", start=sft, reward=at_random, max_steps=15)
assert 0.3 < more.log[-1]["tokens"] / runs[0].log[-1]["tokens"] < 3


# %% tags=["nbval-ignore-output"]
def as_row(rollout):
    said = [*rollout.question.messages, ("assistant", rollout.reply)]
    turns = [{"role": role, "content": content} for role, content in said]
    return json.dumps({"messages": turns}, ensure_ascii=False)


asked = [scoring.question_to_explore(rng) for _ in range(160)]
drawn = sample(sft, asked, 8)
kept = [rollout for rollout in drawn if rollout.reward]  # right answers only
assert counts_up(drawn).mean() < counts_up(kept).mean() < 0.8
path = lab.cache_dir() / "thinking" / f"kept-{lab.SEED}.jsonl"
write_atomically(path, "\n".join(map(as_row, kept)).encode())
rejection = lab.variant(
    "thinking-rejection", "sft", start=sft, data_path=path, epochs=6, max_steps=50, **slow
)

# %% tags=["nbval-ignore-output"]
controls = {"多做 SFT": more, "拒绝采样": rejection, "随机奖励": luck}
others = {name: answers(run, exam) for name, run in controls.items()}
rows = [line("SFT", plain["sft"]), *(line(name, found) for name, found in others.items())]

voters = [*exam[:60], *exam[300:360]]
votes = sample(sft, voters, 16)
numbers = [(re.findall(r"\d+", r.reply) or ["?"])[-1] for r in votes]
most = [Counter(numbers[i : i + 16]).most_common(1)[0][0] for i in range(0, len(votes), 16)]
elected = np.array([q.answer == number for q, number in zip(voters, most, strict=True)])
shares = elected[:60].mean(), elected[60:].mean(), counts_up(votes).mean()
rows.append(["16 次的多数", *shares])
rows += [line("请它数", told["sft"]), line("GRPO", after[0])]
show.table(columns, rows)

# %%
best = after[0][1][kinds == "sub"].mean()
for name in ("多做 SFT", "随机奖励"):
    _, right, counted = others[name]
    assert right[kinds == "sub"].mean() < best - 0.1
    assert counted.mean() < after[0][2].mean() - 0.1
assert elected[60:].mean() < best - 0.1
assert others["拒绝采样"][2].mean() < after[0][2].mean() - 0.05

# %% [markdown]
# 多做 SFT 不行：数据里数的只占那么一点，再抄多少遍，学到的比例还是那么一点。随机奖励也不行：它不知道该往哪里推。多数表决把错的也表决出来了，因为直接写的错误远比数对的多。<!-- by: assert right[kinds == "sub"].mean() < best - 0.1 --><!-- by: assert elected[60:].mean() < best - 0.1 -->
#
# 拒绝采样是同一条路上的一步：它就是奖励为 0 和 1、不减基线、只抽一轮的策略梯度。留下的回答里，数的比例比抽到的高，离题题都数还远，<!-- by: assert counts_up(drawn).mean() < counts_up(kept).mean() < 0.8 -->一轮推不到底。<!-- by: assert others["拒绝采样"][2].mean() < after[0][2].mean() - 0.05 -->要是拿新的模型再抽、再训，一轮一轮做下去，就成了强化学习。STaR {cite:p}`zelikman2022star` 正是这样做的。

# %% tags=["remove-input", "nbval-ignore-output"]
_, right, counted = others["拒绝采样"]
was, now = plain["sft"][1], right
assert counted.mean() < after[0][2].mean()
show.say(
    f"一轮拒绝采样之后，数的比例是 {counted.mean():.2f}，"
    f"减法从 {was[kinds == 'sub'].mean():.2f} 到 {now[kinds == 'sub'].mean():.2f}，"
    f"加法从 {was[kinds == 'add'].mean():.2f} 到 {now[kinds == 'add'].mean():.2f}：",
    "不数的回答也练准了一些。"
    if right[~counted].mean() > was.mean() + 0.1
    else "不数的回答没有多少长进。",
)

# %% [markdown]
# ### 别的本领
#
# 强化学习只问加减法，别的题一道没有。别的本领还在吗？从 SFT 出发的和从 DPO 出发的各看一个，后者是 `lab.ladder("grpo")`，也就是命令行加上 `--with-grpo` 得到的那个。这里每类考 60 题，所以加减法两行和前面 600 道题的表不全一样：<!-- by: reasoning -->

# %% tags=["nbval-ignore-output"]
grown = lab.ladder("grpo")
models = {"SFT": sft, "SFT + GRPO": runs[0], "DPO": dpo, "DPO + GRPO": grown}
scores = {name: run.scores() for name, run in models.items()}
names = ("fact", "reading", "multi_turn", "choice", "calendar", "chain", "shop", "add", "sub")
rows = [[name, *(s["accuracy"][name] for s in scores.values())] for name in names]
for name in ("polite", "identity_hit_rate"):
    rows.append([name, *(float(s[name]) for s in scores.values())])
show.table(["", *scores], rows)

# %%
for old, new in (("SFT", "SFT + GRPO"), ("DPO", "DPO + GRPO")):
    rest = {n: np.mean([s["accuracy"][k] for k in names[:-2]]) for n, s in scores.items()}
    assert rest[new] > rest[old] - 0.15
    assert scores[new]["accuracy"]["sub"] > scores[old]["accuracy"]["sub"] + 0.2
assert scores["DPO + GRPO"]["polite"] > 0.6

# %% [markdown]
# 七种别的题，平均没有掉多少；<!-- by: assert rest[new] > rest[old] - 0.15 -->DPO 教的客气还在。<!-- by: assert scores["DPO + GRPO"]["polite"] > 0.6 -->问它是谁的那一行要自己看看：身份和加减法毫不相干，没有一道题护着它，有的运行里掉一截，有的运行里不掉。步数少、学习率小、只在自己写的回答上推，改动就小；下一节会看到步子大了怎样。<!-- by: book/results/seeds.json -->
#
# 还有一件意外的事。不经对话、让它接着写的数着算（`continue chain`），SFT 和 DPO 之后几乎不会了（{numref}`第 %s 章 <sec-dpo>`）。强化学习没有练过续写，它却回来了。<!-- by: book/results/seeds.json -->

# %% tags=["remove-input"]
study = json.loads(lab.RESULTS.read_bytes())
held = {stage: study["scores"][stage]["continue chain"] for stage in ("sft", "dpo", "grpo")}
assert held["grpo"]["mean"] > held["dpo"]["mean"] + 0.3
show.say(
    f"同一份配方训练了 {len(study['runs'])} 次，`continue chain` 在 SFT 之后平均 "
    f"{held['sft']['mean']:.2f}，DPO 之后 {held['dpo']['mean']:.2f}，"
    f"强化学习之后 {held['grpo']['mean']:.2f}，最低的一次也有 {held['grpo']['min']:.2f}。",
    "可见它没有从权重里消失，只是不用了。",
)

# %% tags=["remove-input", "nbval-ignore-output"]
replied, right, _ = answers(grown, exam)
stuck = np.array(["。。" in reply for reply in replied])
say = ["分数看不出来的毛病，要读回答才看得见。"]
if stuck.any():
    i = int(stuck.argmax())
    say.append(
        f"从 DPO 出发的这一份，600 道题里有 {stuck.sum()} 道，答到一半写出一串句号，"
        f"其中对的 {right[stuck].sum()} 道。"
        f"例如问{show.quote(exam[i].messages[-1][1])}，答{show.quote(replied[i])}。"
    )
else:
    say.append("有的运行里，从 DPO 出发的这一份会答到一半写出一串句号；你正在看的这一份没有。")
show.say(*say)

# %% [markdown]
# ## 弄坏它
#
# ### 判分有漏洞：错的也拿满分
#
# 判分程序是唯一的老师，它错在哪里，模型就往哪里走，这叫**奖励作弊**（reward hacking）。最容易想到的漏洞是“回答里任何地方出现得数就给分”，可是数着算正好是说出得数最省事的办法，模型用不着钻它。
#
# 换一个漏洞。想教模型思考，就奖励“看起来在思考”：回答里有“步到”就给 1 分，得数不管。先猜：练完了，考试会变好，还是变坏？<!-- by: reasoning -->


# %%
def looks(question, reply):
    """1 for whatever looks like counting."""
    return float("步到" in reply)


for_looks = lab.variant("thinking-looks", "grpo", start=sft, reward=looks, max_steps=20)

# %% tags=["nbval-ignore-output"]
hacked = answers(for_looks, exam)
rows = [["看样子", hacked[2].mean(), hacked[1].mean()]]
rows.append(["看得数", after[0][1].mean(), after[0][1].mean()])
show.table(["训练时的判分", "拿到的分", "真的对"], rows)

# %% tags=["remove-input", "nbval-ignore-output"]
said, right, paid = hacked
wrong = [i for i in range(600) if paid[i] and not right[i]]
assert paid.mean() > plain["sft"][2].mean() + 0.2
assert wrong  # full marks for wrong answers
better = right.mean() - plain["sft"][1].mean()
i = wrong[0]
show.say(
    f"{len(wrong)} 个错的回答拿了满分，例如问{show.quote(exam[i].messages[-1][1])}，"
    f"答{show.quote(said[i])}。",
    f"从头到尾没有看过一个得数，它却比训练之前多对了 {100 * better:.0f} 个百分点。"
    "漏洞没有让分数变坏，这正是它难发现的地方。但这不是奖励的功劳："
    "出发点的模型数起来本来就常常是对的，只要让它数，怎样让都行。"
    if better > 0.1
    else "它写满了步骤，考试的分数却没有跟着涨：步骤的样子有了，对错没有人管。",
)

# %% [markdown]
# {cite:t}`shao2025spurious` 在大模型上看到过：只看格式的奖励，分数也会涨。<!-- by: @shao2025spurious -->可是这个奖励分不出对错，数错一步、看错题目，照样满分，也就没有东西把它往对里推；出发点越不会数，它教出来的就越只是思考的**样子**。<!-- by: assert wrong -->真正闯祸的判分程序，见 {numref}`ex-thinking-3`。
#
# 怎样发现？看奖励的曲线看不出来，它只会越来越好。日志因此另记一个 `accuracy`，用真的 `is_correct` 判；没有第二把尺子时，就要亲眼读回答。<!-- by: reasoning -->
#
# ### 没有差别的组：白问
#
# 八个回答得分全同，这道题就没有信号。起初全错的组多；数着算的回答多起来，同一组里有对有错，`informative` 可以升一阵；再往后题题都数，全对的组越来越多，它就掉下去。量一量三颗种子的平均，每 5 步一段：<!-- by: reasoning -->

# %% tags=["nbval-ignore-output"]
informative = [np.mean([run.log[i]["informative"] for run in runs]) for i in range(30)]
parts = {step: round(float(np.mean(informative[step - 5 : step])), 2) for step in range(5, 31, 5)}
print(parts)

# %% [markdown]
# 这些回答白写了，而写回答是最费时间的一步。DAPO {cite:p}`yu2025dapo` 的办法是扔掉它们，接着抽，直到凑满一批。
#
# 更根本的问题是**问什么**。前面说，只问 SFT 没有直接问过的数对。拿 SFT 模型在问过的和没问过的数对上各抽一批，<!-- by: reasoning -->看直接写和数着算各对多少：

# %% tags=["nbval-ignore-output"]
practised = [q for kind in ("add", "sub") for q in scoring.questions(kind, 24, held_out=False)]
gain = {}
for name, asked in (("SFT 问过的", practised), ("留给强化学习的", explored)):
    answered = sample(sft, asked, 16)
    right, counted = np.array([r.reward == 1 for r in answered]), counts_up(answered)
    gain[name] = float(right[~counted].mean()), float(right[counted].mean())
show.table(["", "直接写，对的", "数着算，对的"], [[n, *g] for n, g in gain.items()])

# %%
(asked_written, asked_counted), (left_written, left_counted) = gain.values()
assert left_counted > left_written + 0.2
assert asked_written > left_written + 0.15
assert left_counted - left_written > asked_counted - asked_written + 0.05

# %% [markdown]
# 两列之差就是推力：没问过的，数着算对得多，优势就往“数”那边推；SFT 问过的，直接写已经常对，数了多得不了多少分，就推不动。<!-- by: assert left_counted > left_written + 0.2 --><!-- by: assert left_counted - left_written > asked_counted - asked_written + 0.05 -->背熟了的题，不会逼人思考。
#
# ### 步子太大：学得快，别的本领丢得更快
#
# 学习率放大十倍（0.003），只走 12 步：<!-- by: math.isclose(config.GRPO_PRESETS["tiny"].learning_rate * 10, 0.003) -->

# %%
hasty = lab.variant("thinking-rate", "grpo", start=sft, learning_rate=3e-3, max_steps=12)

# %% tags=["nbval-ignore-output"]
fast = hasty.scores()["accuracy"]
rows = [
    [n, scores["SFT"]["accuracy"][n], scores["SFT + GRPO"]["accuracy"][n], fast[n]] for n in names
]
show.table(["", "SFT", "GRPO，30 步", "学习率乘十，12 步"], rows)

# %% tags=["remove-input", "nbval-ignore-output"]
lost = {name: scores["SFT"]["accuracy"][name] - fast[name] for name in names[:-2]}
most = max(lost, key=lost.get)
grew = [np.mean([e["length"] for e in part]) for part in (hasty.log[:2], hasty.log[-3:])]
assert grew[1] > grew[0] + 4
show.say(
    f"它也学会了数，只用了 12 步：回答从平均 {grew[0]:.0f} 个词元长到 {grew[1]:.0f} 个。"
    f"可是从来没有问过的 `{most}` 从 {scores['SFT']['accuracy'][most]:.2f} 掉到 {fast[most]:.2f}，"
    f"七种别的题平均掉了 {np.mean(list(lost.values())):.2f}。"
)

# %% [markdown]
# 奖励只看加减法，别的题答成什么样，没有人管。只看奖励曲线，会以为步子大了更好：所以一定要另考别的题；真掉了，就用 KL 拴住，或者把步子走小。<!-- by: reasoning -->
#
# ### 长度收费
#
# 数着算要写一长串，直接写只要几个词元。回答越长，等得越久。给长度定一个价：答对的，每 100 个词元扣 $\lambda$ 分（`length_penalty`）。答错的本来就是 0 分，不再扣。<!-- by: minillm/training/reinforcement.py -->
#
# 先算两笔账。$\lambda = 1.5$：数着算若写 30 个词元，答对一次得 $1 - 1.5 \times 0.30 = 0.55$ 分；直接写 6 个词元，答对一次得 $1 - 1.5 \times 0.06 = 0.91$ 分。平均得分是正确率乘上这个数，所以数着算的正确率要到直接写的 $0.91 / 0.55 \approx 1.7$ 倍，才不亏。$\lambda = 2$：$0.40$ 分和 $0.88$ 分，要 2.2 倍。拿开场那张表算一算：哪个价钱下，哪一种题该数？<!-- by: round((1 - 1.5 * 0.06) / (1 - 1.5 * 0.30), 1) == 1.7 --><!-- by: round((1 - 2 * 0.06) / (1 - 2 * 0.30), 1) == 2.2 -->

# %% tags=["remove-input", "nbval-ignore-output"]
lines = {1.5: 0.91 / 0.55, 2.0: 0.88 / 0.40}  # price: how many times as often right pays
times = {
    k: told["sft"][1][kinds == k].mean() / plain["sft"][1][kinds == k].mean()
    for k in ("add", "sub")
}
should = {
    price: [name for k, name in (("add", "加法"), ("sub", "减法")) if times[k] > line_at]
    for price, line_at in lines.items()
}
show.say(
    f"SFT 模型数着算的正确率，是直接写的多少倍？加法 {times['add']:.1f} 倍，减法 {times['sub']:.1f} 倍。",
    *(
        f"$\\lambda = {price:g}$ 的线是 {lines[price]:.1f} 倍，该数的"
        + ("是" + "和".join(names) if names else "一种也没有")
        + "。"
        for price, names in should.items()
    ),
)

# %%
cheap, dear = (
    lab.variant("thinking-frugal", "grpo", start=sft, length_penalty=price, max_steps=30)
    for price in (1.5, 2.0)
)

# %% tags=["nbval-ignore-output"]
priced = {"λ = 0": after[0], "λ = 1.5": answers(cheap, exam), "λ = 2": answers(dear, exam)}
rows = []
for name, answered in (("SFT", plain["sft"]), *priced.items()):
    length = np.mean([len(tokenizer.encode(reply)) + 1 for reply in answered[0]])
    adds, subtractions = (answered[2][kinds == kind].mean() for kind in ("add", "sub"))
    rows.append([*line(name, answered)[:3], float(adds), float(subtractions), float(length)])
show.table(["", "加法", "减法", "加法，数的", "减法，数的", "词元数"], rows)

# %% tags=["remove-input", "nbval-ignore-output"]
apart = {name: row[4] - row[3] for name, row in zip(priced, rows[1:], strict=True)}
_, right, counted = priced["λ = 2"]
written = (kinds == "add") & ~counted
assert len(apart) == 3
split = [name for name in ("λ = 1.5", "λ = 2") if apart[name] > 0.2]
show.say(
    f"{'、'.join(split)} 时分了家，减法数的比例比加法高出 0.2 以上：该数的数，能省的省，"
    "这叫自适应的思考；没有人告诉它哪一种题该数。"
    if split
    else "**没有分家**：两个价钱下，加法和减法数的比例都差不多。"
    "这一次，30 步里价钱没有教出自适应的思考。",
    f"$\\lambda = 2$ 时，不数的加法对 {right[written].mean():.2f}，"
    f"训练之前是 {plain['sft'][1][kinds == 'add'].mean():.2f}。"
    if written.any()
    else "",
)

# %% [markdown]
# 结果未必照着账走。账比的是数和不数，训练比的是同一组的八个回答：一组里八个都数，谁也不比谁省，优势里就没有价钱的事了，再多走几步也回不了头；一组里没有一个数的，也一样。价钱要落在两种题的线之间，还要趁两种答法都在的时候收。<!-- by: reasoning -->
#
# 数这条路收了费，分数也会去推另一条路：直接写。前面说它学会的是选择，那是因为选择来得最快；换一种价钱，学到的就可能是别的东西。<!-- by: reasoning -->
#
# ### 算法的变体：先换一颗种子看看
#
# 关于 GRPO 的改法，论文很多：除不除以标准差，怎样裁剪，同一批回答走几步，怎样平均。想试，改一个参数就行，例如 `lab.variant("mine", "grpo", start=sft, updates=4, max_steps=10)` 在每一批回答上走四步。下结论之前，先看换一颗种子的差别有多大（{numref}`fig-thinking-curves`的三条线），再看你的改法有没有超过它。<!-- by: reasoning -->
#
# 这不是说那些论文白写了。这里的奖励没有噪声，回答只有几十个词元，几十步就学完，采样和训练用的是同一份权重。让变体分出高下的条件：很长的、长短悬殊的回答，几千步的训练，判得不准的奖励，采样的权重落后于训练的权重，这里一样也没有。在这个尺寸上，起决定作用的是数据（问什么题）和探索（偶尔数不数）。<!-- by: reasoning -->

# %% [markdown]
# ## 收尾

# %% tags=["nbval-ignore-output"]
replies["grpo"] = lab.showcase(grown.model())
show.spine(replies)

# %% [markdown]
# 三句话里没有一句是光秃秃的加减法，所以表里看不出多少变化。要看变化，就问它“13减6等于多少？”，不提“数”字：

# %% tags=["nbval-ignore-output"]
question = "13减6等于多少？"
show.table(
    ["", question],
    [[show.STAGE_NAMES[run.name], lab.ask(run.model(), question)] for run in (sft, dpo, grown)],
)

# %% [markdown]
# 自己出一道题，两个模型各答 16 次，看奖励、平均分和优势：
#
# :::{minillm} samples
# :question: 13减6等于多少？
# :questions: 14减5等于多少？|9加8等于几？|13加4等于多少？
# :before: dpo
# :after: grpo
# :alt: 两组回答。最上面是题目“13减6等于多少？”和提问的按钮；下面左右两栏，是强化学习之前和之后的模型各答的一组，画了对的、错的各几个，一个回答一行：奖励是 1 还是 0，优势是正是负，回答怎么说，有多少个词元；每一栏的上面写着这一组的平均奖励和优势怎么算。
#
# 这里可以让强化学习前后的模型各答 16 次，要在网页上用。印在纸上的，请看“采样、判分、优势”一节的表。在 JupyterLab 里，运行 `from minillm.book import page` 和 `page.widget("samples", models={"dpo": dpo.model(), "grpo": grown.model()})`，问你自己训练的模型。
# :::
#
# 先猜，再试：哪些题，之前的那一组优势全是 0？这样的题，之后答得对吗？之后的模型还会不数就答吗？勾上优势除以标准差，一边倒的组变成什么样？
#
# ### 自己训练
#
# ```bash
# bash scripts/run.sh --preset tiny --with-grpo    # the three stages, and GRPO on top
# minillm grpo --preset tiny                       # GRPO alone, from the DPO weights
# minillm chat --preset tiny                       # talks to the newest stage
# ```
#
# 换成自己的题：`--data_path` 给一个 JSONL 文件，一行一题，`{"question": "…", "answer": "…"}`。答案是数，就比回答里最后一个数；不是数，就看最后一句里有没有它。
#
# ### 和真的比
#
# DeepSeek-R1 {cite:p}`deepseek2025r1` 的 R1-Zero 用的就是这个办法：从预训练的模型出发，不做 SFT，用 GRPO，奖励由规则给出，一条管答案，一条管格式。奖励和长度一起升，和 {numref}`fig-thinking-curves` 同一个形状。规模大了以后，本章轻轻放过的几件事就要紧了：
#
# - **词元怎样平均**。先在每个回答里平均，长的错答案每个词元挨的罚就轻，回答会越错越长；DAPO {cite:p}`yu2025dapo` 按词元总数平均，Dr. GRPO {cite:p}`liu2025drgrpo` 除以固定的数。
# - **熵**。练几千步，熵塌了就不再探索；DAPO 把裁剪的上界放宽，好让小概率的词元长得起来。
# - **奖励未必是它看上去的那个东西**。{cite:t}`shao2025spurious` 用随机的、只看格式的奖励训练一个 Qwen 模型，数学分数也升得很高，换成别的模型却常常不升：放大的是本来就有的习惯。<!-- by: @shao2025spurious -->这和本章的“只看样子”是一回事。
# - **新本领**。本章的模型早就会数，是 SFT 教的，强化学习只做了选择。大模型的强化学习是不是也只是选择，还在争论 {cite:p}`yue2025rlvr`。
#
# 869,504 个参数还有几件事演不出来：回头检查、换一条路重来，这里的思维链只有二十几个词元；奖励有噪声、采样和训练不同步时，各种变体的高下；练得足够久，会不会长出没人教过的做法。
#
# :::{admonition} 真实世界
# :class: real-world
#
# 上面说的 R1-Zero，每步 32 道题，每道答 16 次，走 10,400 步；本章每步 16 道，每道 8 次，走 30 步。它在 AIME 2024（美国的中学数学竞赛，30 题）上从 15.6% 升到 77.9% {cite:p}`deepseek2025r1`；这是后来修订的数，2025 年 1 月的第一版写的是 71.0%。<!-- by: @deepseek2025r1 --><!-- by: config.GRPO_PRESETS["tiny"].questions == 16 --><!-- by: assert all(len(run.log) == 30 for run in runs) -->
#
# 题目不必多。Qwen3（2025）的这个阶段只用了 3,995 道，要求前面的 SFT 没有用过、学得会、尽量难、范围广；走 170 步，235B 的模型在同一份卷子上从 70.1 分升到 85.1 分 {cite:p}`yang2025qwen3`。DAPO（2025）从 Qwen2.5-32B 的预训练模型出发，到 50 分，连代码和数据一起公开 {cite:p}`yu2025dapo`。<!-- by: @yang2025qwen3 --><!-- by: @yu2025dapo -->
#
# 长度收费也真有人用。DeepSeek-V4（2026）有几档思考，训练时每一档收的长度费不同 {cite:p}`deepseek2026v4`。（2026 年 11 月核对。）<!-- by: @deepseek2026v4 -->
# :::
#
# ### 小结
#
# - 只要能核对答案，就能训练：模型自己写，程序判分，好过平均的往上推。不需要示范，也不需要判分程序能求导。<!-- by: reasoning -->
# - 策略梯度就是带权重的 SFT：每个回答的权重是优势 $A = r - \bar r$。减基线不改变方向，只减小抖动；GRPO 的基线是同一道题的组平均。<!-- by: assert torch.allclose(*gradients, atol=1e-5) -->
# - 三颗种子，30 步，留出的减法都高了 0.2 以上，数的回答多了 0.3 以上。<!-- by: assert right[kinds == "sub"].mean() > plain["sft"][1][kinds == "sub"].mean() + 0.2 --><!-- by: assert counted.mean() > plain["sft"][2].mean() + 0.3 -->
# - 它先学会的是**选择**数着算，不是减法：正确率与数的比例同在一条线上；原来的模型答 64 次，也碰得到。<!-- by: assert max(off) < 0.2 -->
# - 判分程序就是目标。只看样子的奖励，分不出对错；要用另一把尺子，也要亲眼读回答。<!-- by: assert wrong -->
# - 能推动的前提：偶尔做对，而且做对的比平时得分高。全对、全错、背熟了的题都没有信号。<!-- by: assert left_counted > left_written + 0.2 -->
#
# 模型会算了，也客气。不过强化学习是可选的一步，加上 `--with-grpo` 才做；下一章（{numref}`第 %s 章 <sec-identity>`）回到 DPO 的模型，给它换一个名字。
#
# ### 练习
#
# :::{exercise} ★☆☆
# :label: ex-thinking-1
# 算一算：手算里说，组平均把自己也算了进去，所以梯度打了 $7/8$ 的折。如果基线只用**别人**的平均分，四个回答得 1、0、0、0 分，优势是多少？它和 $r - \bar r$ 是什么关系？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 对的那个，别人都得 0 分；错的每个，别人里有一个得 1 分。各减一次，再与 $r-\bar r$ 逐个相除。
# :::
#
# :::{solution-start} ex-thinking-1
# :class: dropdown
# :::
#
# 对的那个：别人平均 0，优势 1。错的每个：别人平均 $1/3$，优势 $-1/3$。$r - \bar r$ 是 $0.75$ 和 $-0.25$，正好都是它们的 $3/4$。一般地，去掉自己的优势是 $\frac{G}{G-1}(r - \bar r)$：

# %%
r = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
without_itself = r - (r.sum() - r) / 3
assert torch.allclose(
    without_itself, torch.tensor([1, -1 / 3, -1 / 3, -1 / 3], dtype=torch.float64)
)
assert torch.allclose(without_itself, 4 / 3 * reinforcement.advantages(r[None])[0])
without_itself

# %% [markdown]
# 所有的优势乘同一个数，等于学习率乘这个数。所以这点偏差，调学习率就补上了。
#
# :::{solution-end}
# :::
#
# :::{exercise} ★☆☆
# :label: ex-thinking-2
# 想一想，再算：如果一次回答里数的概率是 3%，一组 8 个里至少有一个数的概率是多少？30 步、每步 16 组，平均有几组？若概率是万分之一呢？<!-- by: reasoning -->由此说说，为什么 R1-Zero 可以不做 SFT，而这里的 SFT 数据要放进那 5%。
# :::
#
# :::{solution-start} ex-thinking-2
# :class: dropdown
# :::

# %%
for share in (0.03, 0.0001):
    in_a_group = 1 - (1 - share) ** 8
    print(
        f"share {share}: {in_a_group:.4f} of the groups, {30 * 16 * in_a_group:.1f} groups in 30 steps"
    )

# %% [markdown]
# 3% 时，五组里有一组多能看见，立刻就有东西可推；推了一点，下一步就更常见。万分之一时，480 组里平均不到一组，训练大半时间在等运气。<!-- by: 480 * (1 - 0.9999**8) < 1 -->
# R1-Zero 的出发点读过的网页里，有大量一步步解题的文字，写步骤是它本来就常做的事。<!-- by: reasoning -->
#
# :::{solution-end}
# :::
#
# :::{exercise} ★★☆
# :label: ex-thinking-3
# 弄坏它：有的判分程序只读回答里的**第一个**数。写出这个奖励，从 SFT 的权重训练 10 步。先猜：它会让模型多写还是少写？考试会好还是坏？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 奖励是一个函数，收题目和回答，给一个数，像正文的 `looks` 那样写；训练用 `lab.variant`，`reward=` 交给它。先在纸上给“17。”和“13加4等于17。”各判一次。<!-- by: 13 + 4 == 17 -->
# :::
#
# :::{solution-start} ex-thinking-3
# :class: dropdown
# :::


# %%
def first_number(question, reply):
    return float(re.findall(r"\d+", reply)[:1] == [question.answer])


curt = lab.variant("thinking-first", "grpo", start=sft, reward=first_number, max_steps=10)

# %% tags=["nbval-ignore-output"]
first = answers(curt, exam)
assert first[2].mean() < after[0][2].mean() - 0.2
assert first[1].mean() < after[0][1].mean() - 0.15
show.table(columns, [line("SFT", plain["sft"]), line("只看第一个数", first)])

# %% [markdown]
# “13加4等于17。”的第一个数是 13，不得分；数着算也是先抄题。能得分的只有光秃秃的“17。”。这个奖励逼着模型先说得数，不许想：它数得少，考试也比只看对错的奖励差得远。<!-- by: 13 + 4 == 17 --><!-- by: assert first[1].mean() < after[0][1].mean() - 0.15 -->一条看着像格式要求的规则，把思考的路堵死了。
#
# :::{solution-end}
# :::
#
# :::{exercise} ★☆☆
# :label: ex-thinking-4
# 想一想：没有标准答案时，有人用多数表决的结果当答案，与多数相同就给 1 分。<!-- by: reasoning -->从本章的 SFT 模型出发，加法和减法会怎样？
# :::
#
# :::{solution} ex-thinking-4
# :class: dropdown
# 看对照表里“16 次的多数”那一行。减法的多数多半是错的，这样的奖励会把直接写的错答案推得更牢，数出来的对答案因为不合群而被压下去。<!-- by: assert elected[60:].mean() < best - 0.1 -->加法的多数对得多一些，可以更一致，却没有推力去数。多数是对的，这个办法才行得通；而且它奖励的是一致，不是正确。<!-- by: reasoning -->
# :::
#
# :::{exercise} ★★☆ 动手：一组回答的梯度
# :label: ex-thinking-gradient
# 把手算的那张表写成函数。`policy_gradient`：`z` 是 $K$ 种答法的打分 `[K]`，`drawn` 是一组抽到的答法的编号 `[G]`，`rewards` 是它们的奖励 `[G]`。返回平均奖励对 `z` 的梯度的估计 `[K]`：每个回答的优势乘以 $\partial\log\pi/\partial z$，再对这一组取平均。基线是组平均。不用 `.backward()`。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# `torch.nn.functional.one_hot(drawn, len(z))` 的形状是 `[G, K]`，抽到的那一格是 1。减去 $\pi$，就是每个回答的 $\partial\log\pi/\partial z$。
# :::


# %%
def policy_gradient(z, drawn, rewards):
    return ...


tasks.check("9.1", policy_gradient)

# %% [markdown]
# :::{solution} ex-thinking-gradient
# :class: dropdown
# ```python
# def policy_gradient(z, drawn, rewards):
#     better = rewards - rewards.mean()  # [G]
#     push = torch.nn.functional.one_hot(drawn, len(z)) - z.softmax(0)  # [G, K]
#     return (better[:, None] * push).mean(dim=0)
# ```
# `push` 的每一行加起来是 0：推高一种答法，别的就得让出概率。所以没抽到的答法也有梯度。奖励都相同的一组，`better` 全是 0，什么也不动。
# :::
#
# :::{exercise} ★★☆ 动手：裁剪过的目标
# :label: ex-thinking-clip
# 写出一组回答的 GRPO 损失。`rewards` 是各回答的奖励 `[G]`；`lengths` 是各回答的词元数，一个列表；`new` 和 `old` 是全部词元的对数概率 `[N]`，一个回答接着一个回答，前者来自现在的模型，后者来自采样时的模型。每个词元的损失是 $-\min\bigl(\rho A,\ \mathrm{clip}(\rho,\,1-\varepsilon,\,1+\varepsilon)\,A\bigr)$，返回全部词元的平均。优势是奖励减组平均，不除以标准差；没有 KL。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# `repeat_interleave` 把一个回答的优势分给它的每个词元；$\rho$ 是对数概率之差的指数。四种情形各想一遍：好的回答、坏的回答，概率变大、变小，哪两种该停手？
# :::


# %%
def grpo_loss(rewards, new, old, lengths, epsilon):
    return ...


tasks.check("9.2", grpo_loss)

# %% [markdown]
# :::{solution} ex-thinking-clip
# :class: dropdown
# ```python
# def grpo_loss(rewards, new, old, lengths, epsilon):
#     better = (rewards - rewards.mean()).repeat_interleave(torch.tensor(lengths))  # [N]
#     ratio = (new - old).exp()
#     clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
#     return float(-torch.minimum(ratio * better, clipped * better).mean())
# ```
# 该停手的是好的已经涨过了界、坏的已经压过了界：这时取到的是裁剪过的那一项，它不随 $\rho$ 变，梯度是 0。另外两种走反了方向，不管走了多远都要拉回来，所以不能一律裁剪，要取小的。
# :::
#
# ### 延伸阅读
#
# - {cite:t}`shao2024deepseekmath`：GRPO 的出处，第 4 节；并把 SFT、拒绝采样、DPO、PPO 写成同一个式子的特例。
# - {cite:t}`deepseek2025r1`：R1-Zero 与 R1；看长度和奖励的曲线，也看他们没有走通的路。
# - {cite:t}`yu2025dapo`、{cite:t}`liu2025drgrpo`：把 GRPO 拆开来改的报告，每一处改动都有对照。
# - {cite:t}`yue2025rlvr`、{cite:t}`shao2025spurious`：强化学习到底教了什么，两个让人冷静的实验。
# - {cite:t}`williams1992`、{cite:t}`schulman2017ppo`：策略梯度和裁剪从哪里来。
