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
# (sec-dpo)=
# # 直接偏好优化：两个都对的回答，哪个更好
#
# :::{admonition} 本章
# :class: tip
#
# - **你将学会**：用一对对“更好、更差”的回答训练模型；亲手算出 DPO 的损失；看懂间隔、偏好准确率这些数，也知道它们会在什么时候骗人。
# - **需要时间**：运行约 30 秒；第一次运行要先训练前面各阶段和两份“弄坏”的模型，另加几分钟。
# - **需要内存**：2 GB。
# - **用到的模块**：`minillm.objectives`、`minillm.trainer`、`minillm.world`、`minillm.evaluate`。
# :::

# %%
import math

import numpy as np
import torch

from minillm import lab, objectives, show, tensors, trainer, world

lab.start()

# %% [markdown]
# ## 开场
#
# 上一章（{numref}`第 %s 章 <sec-sft>`）之后，模型会回答问题了。老规矩，先问那三句话：

# %% tags=["nbval-ignore-output"]
sft = lab.ladder("sft")
before = {"fresh": lab.fresh(), "pretrain": lab.ladder("pretrain").model(), "sft": sft.model()}
replies = {stage: lab.showcase(model) for stage, model in before.items()}
show.spine(replies)

# %% [markdown]
# 它答得不错，但口气生硬：说完就走，从不问一句“还有什么想问的吗”。我们想要的是另一种风格：答案要对，话也要客气。
#
# 为什么不再做一轮 SFT，把客气的回答当标准答案抄一遍？可以，但 SFT 只会说“照着这个写”，说不出“**这个比那个好**”。人在很多任务上写不出标准答案，却能在两个答案里挑出更好的一个：哪首诗更顺，哪段解释更清楚。
# 这样得到的数据叫**偏好对**（preference pair）：同一个问题 $x$，一个被选中的回答 $y_w$（w 指 win），一个被拒绝的回答 $y_l$（l 指 lose）。
#
# 早先的办法分两步 {cite:p}`ouyang2022instructgpt`：先拿偏好对训练一个打分的奖励模型，再用强化学习让语言模型去拿高分。
# **直接偏好优化**（direct preference optimization，DPO）把两步并成一步 {cite:p}`rafailov2023dpo`：不要奖励模型，不要强化学习，只有一个损失函数，训练起来和 SFT 一样。
#
# ## 手算
#
# ### 从偏好到损失
#
# **第一步：偏好是怎样产生的？** 设想每个回答有一个分数 $r(x, y)$，叫**奖励**（reward）。{cite:t}`bradley1952` 的模型说，两个回答比较时，选中 $y_w$ 的概率只取决于分差：
#
# ```{math}
# :label: eq-dpo-bt
# P(y_w \succ y_l \mid x) = \sigma\bigl(r(x, y_w) - r(x, y_l)\bigr), \qquad \sigma(z) = \frac{1}{1 + e^{-z}}
# ```
#
# 分差是 0，选哪个都是一半；分差是 2，选中的概率是 $\sigma(2) \approx 0.88$。
#
# **第二步：有了分数，最好的模型是什么样？** 我们要分数高，又不许模型为了分数变得面目全非，所以从奖励里扣掉它离出发点的距离：
#
# $$\max_\pi \; \mathbb{E}_{y \sim \pi}\bigl[r(x, y)\bigr] - \beta \, \mathrm{KL}\bigl(\pi(\cdot \mid x) \,\|\, \pi_{\mathrm{ref}}(\cdot \mid x)\bigr)$$
#
# 这里 $\pi$ 是正在训练的模型（叫策略），$\pi_{\mathrm{ref}}$ 是**参考模型**（reference model），也就是 SFT 之后、不再改动的那一份；KL 度量两个分布差多远；$\beta$ 是缰绳：越大，拴得越紧。这个问题的最优解可以写出来：
#
# $$\pi^*(y \mid x) = \frac{1}{Z(x)} \, \pi_{\mathrm{ref}}(y \mid x) \, e^{r(x, y) / \beta}$$
#
# 意思很朴素：原来的概率，按奖励的指数放大或缩小；$Z(x)$ 只是让概率加起来等于 1 的常数。
#
# :::{dropdown} 为什么这就是最优解
# 两边取对数，$r(x, y) = \beta \log \pi^*(y \mid x) - \beta \log \pi_{\mathrm{ref}}(y \mid x) + \beta \log Z(x)$。代入目标，$\pi_{\mathrm{ref}}$ 的两项抵消，
# 剩下 $-\beta\,\mathrm{KL}(\pi \,\|\, \pi^*) + \beta \log Z(x)$。第二项与 $\pi$ 无关，第一项在 $\pi = \pi^*$ 时取最大值 0。
# :::
#
# **第三步：倒过来读。** 给定任何一个模型 $\pi$，它就是某个奖励的最优解，这个奖励叫**隐式奖励**（implicit reward）：
#
# ```{math}
# :label: eq-dpo-reward
# r(x, y) = \beta \log \frac{\pi(y \mid x)}{\pi_{\mathrm{ref}}(y \mid x)} + \beta \log Z(x)
# ```
#
# **第四步：代回第一步。** $Z(x)$ 很难算，因为它要对所有可能的回答求和。但 {eq}`eq-dpo-bt` 里只有分差，$Z(x)$ 只和问题有关，一减就没了。于是，让人的选择最有可能发生，就是让下面的损失最小：
#
# ```{math}
# :label: eq-dpo-loss
# L = -\log \sigma(m), \qquad m = \beta \left[ \log\frac{\pi(y_w \mid x)}{\pi_{\mathrm{ref}}(y_w \mid x)} - \log\frac{\pi(y_l \mid x)}{\pi_{\mathrm{ref}}(y_l \mid x)} \right]
# ```
#
# $m$ 叫**间隔**（margin）：选中的回答比被拒绝的多得了多少奖励。
#
# ### 一对回答，用纸笔算
#
# 问“张静住在哪里？”，两个回答各有三个词元。下面是每个词元的对数概率（自然对数，编造的整齐数字）：
#
# | | 词元 | 参考模型 | 合计 | 策略 | 合计 |
# |---|---|---|---|---|---|
# | $y_w$ | 北京。· 欢迎提问· 结束 | −0.2, −2.0, −0.8 | −3.0 | −0.2, −1.2, −0.6 | −2.0 |
# | $y_l$ | 北京 · 。 · 结束 | −0.2, −0.5, −0.3 | −1.0 | −0.2, −1.9, −0.9 | −3.0 |
#
# 1. 整个回答的概率是各词元概率的乘积，所以对数概率是**和**：见“合计”。
# 2. 策略相对参考的变化：$y_w$ 是 $-2.0 - (-3.0) = +1.0$，$y_l$ 是 $-3.0 - (-1.0) = -2.0$。
# 3. 取 $\beta = 0.1$，间隔 $m = 0.1 \times (1.0 - (-2.0)) = 0.3$。
# 4. $\sigma(0.3) = 1 / (1 + e^{-0.3}) = 0.574$：按这个隐式奖励，人会以 57% 的概率选 $y_w$。
# 5. 损失 $L = -\ln 0.574 = 0.554$。

# %%
reference = torch.tensor([[-0.2, -2.0, -0.8], [-0.2, -0.5, -0.3]]).sum(-1)  # chosen, rejected
policy = torch.tensor([[-0.2, -1.2, -0.6], [-0.2, -1.9, -0.9]]).sum(-1)
losses, margins = objectives.dpo_loss(policy[:1], policy[1:], reference[:1], reference[1:], 0.1)

assert math.isclose(margins.item(), 0.3, abs_tol=1e-6)
assert math.isclose(losses.item(), -math.log(1 / (1 + math.exp(-0.3))), abs_tol=1e-6)
print(f"margin {margins.item():.3f}, loss {losses.item():.3f}")

# %% [markdown]
# 训练的第一步，策略就是参考模型的拷贝，所有变化都是 0：$m = 0$，$\sigma(0) = \tfrac12$，$L = \ln 2 = 0.693$。
# 不管模型多大、数据是什么，DPO 的损失都从这个数出发。开头不是 0.693，一定有地方写错了。

# %%
losses, margins = objectives.dpo_loss(
    reference[:1], reference[1:], reference[:1], reference[1:], 0.1
)
assert margins.item() == 0.0
assert math.isclose(losses.item(), math.log(2), abs_tol=1e-6)
print(f"margin {margins.item():.3f}, loss {losses.item():.4f}, ln 2 = {math.log(2):.4f}")

# %% [markdown]
# 损失对 $\log \pi(y_w)$ 的梯度是多少？对 {eq}`eq-dpo-loss` 求导，得到 $-\beta\,(1 - \sigma(m))$；对 $\log \pi(y_l)$ 正好相反。
# 也就是说，DPO 用同样大的力，把选中的往上推、把被拒绝的往下压；间隔越大，力越小，已经分清的对子不再费力。
# 起点的力是 $0.1 \times 0.5 = 0.05$，见 {numref}`fig-dpo-loss`。

# %%
start = policy.clone().requires_grad_()
objectives.dpo_loss(start[:1], start[1:], policy[:1], policy[1:], 0.1)[0].sum().backward()
assert torch.allclose(start.grad, torch.tensor([-0.05, 0.05]))
start.grad

# %% tags=["hide-input"] mystnb={"figure": {"caption": "一对回答的损失 $-\\ln\\sigma(m)$。训练从竖线处（$m=0$）出发，向右走；曲线的斜率就是推力，越往右越平，但永远不到 0：这个损失从不喊停。", "name": "fig-dpo-loss"}, "image": {"alt": "横轴是间隔，从负 4 到 4；损失从 4.02 单调降到 0.02，在 0 处是 0.69，那里有一条竖线"}}
m = np.linspace(-4, 4, 81)
show.lines(
    {
        "loss": (m, np.log1p(np.exp(-m))),
        "start: ln 2": ([0, 0], [0, math.log(2)]),
    },
    "margin m",
    "loss (nats)",
    colours=[show.COLOURS["dpo"], show.GREY],
)

# %% [markdown]
# ## 真实代码
#
# ### 数据
#
# {numref}`第 %s 章 <sec-data>` 的数据配比里有 1,500 个偏好对。它们由微世界的 `world.preferences` 造出：选中的总是又对又客气；被拒绝的，七成是对而不客气，三成是客气而不对。
# 后一种不可少，否则模型会学到“客气就行”。两个例子：

# %%
pairs = list(world.preferences(200, held_out=True))
for pair in (pairs[1], pairs[0]):
    print("asked   ", pair["chosen"][-2]["content"])
    print("chosen  ", pair["chosen"][-1]["content"])
    print("rejected", pair["rejected"][-1]["content"], end="\n\n")

# %% [markdown]
# `held_out=True` 表示这些问题问的是训练里从不问的内容（哪些内容，见 {numref}`第 %s 章 <sec-data>`）。本章所有的测量都用这 200 对。
#
# 一对回答变成两条序列，渲染的方法与 SFT 相同：问题只读不学，回答和结束标记才计入概率。着色的词元就是 $\log \pi(y \mid x)$ 要加的那些：

# %%
tokenizer = lab.tokenizer()
ids, mask = tokenizer.render_conversation(pairs[1]["chosen"])
show.loss_mask(ids, mask, tokenizer, show.COLOURS["dpo"])

# %%
ids, mask = tokenizer.render_conversation(pairs[1]["rejected"])
show.loss_mask(ids, mask, tokenizer, show.COLOURS["bad"])

# %% [markdown]
# 注意最后一个着色的词元 `<|assistant_end|>`。两个回答的区别，有一半在于**什么时候停**。记住它，“弄坏它”一节要用。
#
# ### 一个回答的对数概率
#
# `token_losses` 给出每个位置的 $-\log p$，形状 `[B, T]`，不学的位置是 0；下面的函数按文档编号把它们加起来，得到 `[documents]`：

# %%
show.source(objectives.per_document, objectives.sequence_log_probs, objectives.dpo_loss)

# %% [markdown]
# 为什么是和，不是平均？因为推导里的 $\pi(y \mid x)$ 是整个回答的概率。除以长度之后，它就不再是任何模型的概率，第三步的倒推不成立；而且每个词元受的力变成 $\beta / (2|y|)$，短回答的词元被压得比长回答的词元被推得更狠（{numref}`ex-dpo-2` 会量出来）。
#
# ### 目标函数
#
# 打包时一对回答总在同一行：偶数号文档是选中的，奇数号是被拒绝的，所以 `policy[0::2]` 和 `policy[1::2]` 就是 $y_w$ 和 $y_l$，形状都是 `[pairs]`。

# %%
show.source(objectives.make_dpo_objective)

# %% [markdown]
# 除了 DPO 的损失，还有一项 `nll_weight * nll`：选中回答每个词元的负对数似然，正是 SFT 的损失，权重 0.3。{cite:t}`pang2024irpo` 发现，没有这一项，选中回答的概率也会跟着往下掉；“弄坏它”一节会看到掉下去是什么样子。
#
# `metrics` 里有三个数：`accuracy` 是间隔大于 0 的比例（相对参考模型有没有变好），`margin` 是平均间隔，`prefers_chosen` 是策略自己给 $y_w$ 的概率是否更大（绝对的偏好）。前两个以参考模型为尺，第三个不是，两者会差得很远。
#
# 参考模型从哪里来？训练器在开始时拷贝一份，并冻结：

# %%
show.excerpt(trainer._train, 'if stage == "dpo":', "# --- Data ---")

# %% [markdown]
# 用真实的批次检查起点。验证集的 15 对打成一个批次，策略与参考是同一个 SFT 模型：

# %%
path = lab.data() / "dpo_chinese_val.jsonl"
data = tensors.load_dataset(path, "dpo", tokenizer, 128, sft.folder / "cache")
packed = tensors.PackedRows(data, 128, epochs=1, seed=0, shuffle=False)
batch = packed.batch(range(len(packed)))
with torch.no_grad():
    plain = objectives.make_dpo_objective(before["sft"], beta=0.1, nll_weight=0.0)
    loss = objectives.validation_loss(plain, before["sft"], [batch])

print("input_ids", list(batch.input_ids.shape), "documents", batch.num_documents)
print({name: round(loss[name], 4) for name in ("loss", "accuracy", "margin")})
assert math.isclose(loss["loss"], math.log(2), abs_tol=1e-6)
assert loss["accuracy"] == 0.0  # no margin is greater than 0 yet: all are exactly 0

# %% [markdown]
# 损失 0.6931，间隔 0。准确率是 0，不是一半：全部打平，而代码要求严格大于 0。日志的第一步也会是这样。
#
# ## 实验
#
# 1,500 对，训练两遍，105 步，学习率 0.0001（SFT 是 0.006：DPO 只做小改动）。训练曲线见 {numref}`fig-dpo-curves`。

# %%
dpo = lab.ladder("dpo")

# %% mystnb={"figure": {"caption": "DPO 的训练曲线（每 10 步平均）。损失里含 0.3 倍的负对数似然；间隔从 0 开始上升。", "name": "fig-dpo-curves"}, "image": {"alt": "横轴是步数 1 到 105。损失从约 0.75 降到约 0.5，间隔从 0 升到约 0.6。"}}
steps = [entry["step"] for entry in dpo.log]
show.lines(
    {name: (steps, show.smooth([e[name] for e in dpo.log], 10)) for name in ("loss", "margin")},
    "step",
    "loss, margin (nats)",
    colours=[show.COLOURS["dpo"], show.COLOURS["other"]],
)

# %% tags=["nbval-ignore-output"]
names = ("loss", "margin", "accuracy", "prefers_chosen")
rows = [
    [e["step"], *(e[name] for name in names)] for e in dpo.log if e["step"] in (1, 10, 25, 50, 105)
]
show.table(["step", *names], rows)

# %% [markdown]
# 看第 25 步：`accuracy` 已经接近 1，`prefers_chosen` 还不到一半，到第 50 步也才约八成。相对参考模型进步了一点点，准确率就算对；要让模型自己真的更愿意说 $y_w$，需要把间隔推到足以翻盘。只报告 `accuracy` 的训练日志，会早早地显得已经学成。
#
# 下面在 200 个留出的对子上量同样的事，直接看 $\log \pi(y_w) - \log \pi(y_l)$。训练前后各算一次：


# %%
def pair_log_probs(evaluator, role):
    """log p(answer | prompt) of each pair's chosen or rejected answer, [200]."""
    parts = []
    for pair in pairs:
        prompt = tokenizer.render_for_completion(pair[role])
        ids, _ = tokenizer.render_conversation(pair[role])
        parts.append((prompt, ids[len(prompt) :]))  # the answer, with <|assistant_end|>
    return np.array(evaluator.log_probs(parts))


chosen = {run.name: pair_log_probs(run.evaluator(), "chosen") for run in (sft, dpo)}
rejected = {run.name: pair_log_probs(run.evaluator(), "rejected") for run in (sft, dpo)}
gap = {name: chosen[name] - rejected[name] for name in chosen}  # each [200]
margin = 0.1 * (gap["dpo"] - gap["sft"])
assert np.mean(gap["sft"] > 0) < 0.6 < 0.9 < np.mean(gap["dpo"] > 0)
assert np.mean(margin > 0) > 0.8  # accuracy, against the reference

# %% [markdown]
# 先只看“对而不客气”的那些对子，见 {numref}`fig-dpo-gap`。

# %% mystnb={"figure": {"caption": "留出的对子（被拒绝的回答对而不客气）上 $\\log\\pi(y_w)-\\log\\pi(y_l)$ 的分布。虚线右边是模型更愿意说客气的回答。", "name": "fig-dpo-gap"}, "image": {"alt": "两个直方图。SFT 的绝大多数在 0 的左边，集中在负 3 附近；DPO 的几乎全在右边，大多在 0 到 10 之间。"}}
manners = np.array([not world.is_polite(pair["rejected"][-1]["content"]) for pair in pairs])
show.histogram(
    {"after SFT": gap["sft"][manners], "after DPO": gap["dpo"][manners]},
    "log-probability of chosen minus rejected (nats)",
    colours=[show.COLOURS["sft"], show.COLOURS["dpo"]],
)

# %% [markdown]
# SFT 之后，绝大多数对子都偏向不客气的回答：SFT 的数据里客气的只占一成，客气话又要多花约十个词元，每个词元都要付出概率。DPO 之后几乎全部翻了过来。
#
# 再把两种对子分开列：

# %% tags=["nbval-ignore-output"]
rows = []
for name, group in (("right, not polite", manners), ("polite, not right", ~manners)):
    values = [gap["sft"], gap["dpo"], margin, margin > 0]
    rows.append([name, int(group.sum()), *(float(v[group].mean()) for v in values)])
show.table(["rejected is", "pairs", "gap, SFT", "gap, DPO", "margin", "accuracy"], rows)

# %% [markdown]
# 第二行值得停下来看。对“客气而不对”的回答，SFT 模型早就压得很低（差 8 个奈特以上，$e^8 \approx 3000$ 倍），DPO 之后只多了不到 1 个奈特；准确率有约 0.8，间隔却不到第一行的十分之一。
# 这 1,500 对教会模型的是**客气**，不是正确。正确是预训练和 SFT 教的。
#
# 第一行的变化又落在哪些词元上？把回答拆成两段：结束标记 `<|assistant_end|>`，和它前面的全部文字。


# %% tags=["nbval-ignore-output"]
def text_and_end(evaluator, role):
    """Mean log p of the answers' text and of their end token, where manners alone differ."""
    texts, ends = [], []
    for pair in np.array(pairs)[manners]:
        start = len(tokenizer.render_for_completion(pair[role]))
        ids, _ = tokenizer.render_conversation(pair[role])
        texts.append((ids[:start], ids[start:-1]))
        ends.append((ids[:-1], ids[-1:]))
    return [float(np.mean(evaluator.log_probs(parts))) for parts in (texts, ends)]


roles = ("chosen", "rejected")
parts = {run.name: [text_and_end(run.evaluator(), role) for role in roles] for run in (sft, dpo)}
header = ["", "chosen: text", "chosen: end", "rejected: text", "rejected: end"]
show.table(header, [[name, *np.ravel(values).tolist()] for name, values in parts.items()])

# %%
changes = np.array(parts["dpo"]) - np.array(parts["sft"])  # [chosen or rejected, text or end]
assert changes[1, 1] < -1.5  # "stop here" after an answer without a closing phrase
assert abs(changes[1, 1]) > 4 * abs(changes[1, 0])  # the text of that answer hardly moves
assert changes[0, 0] > 1  # while that of the polite one gets likelier

# %% [markdown]
# 变化最集中的是一个词元：**生硬的回答说完之后的结束标记**。它的平均对数概率从约 0 掉到约 −4.5（换一次运行，掉 2 到 5 个奈特都有可能），它前面的文字却只掉了 0.3 个奈特上下；选中的回答则是文字（客气话的开头）变得容易了 2 个多奈特。
# DPO 教的是“答案说完先别停”。一对回答在哪里分叉，力就用在哪里。
#
# 现在让模型真正开口。礼貌率是在 60 个留出的问题上，贪心解码的回答里含有客气话的比例：

# %%
scores = {"sft": sft.scores(), "dpo": dpo.scores()}
assert scores["sft"]["polite"] <= 0.20
assert scores["dpo"]["polite"] >= 0.85

mean = {name: np.mean(list(s["accuracy"].values())) for name, s in scores.items()}
assert mean["dpo"] >= mean["sft"] - 0.1  # ten kinds of questions, 60 of each

# %% tags=["nbval-ignore-output"]
print({name: round(float(s["polite"]), 2) for name, s in scores.items()})
print({name: round(float(value), 3) for name, value in mean.items()})
show.skills(scores)

# %% [markdown]
# 礼貌率从几乎为 0 升到 0.85 以上，十种问题的平均正确率没有明显变化（60 题一种，单独一行有 ±0.13 的误差，所以不要拿一行的升降做文章）。两处要老实说明：
#
# - 直接算减法（`answer sub`）训练前后都很差，60 题里只对十来题。DPO 没有教会它减法；多数时候，只是把错的答案说得客气。
# - 每字节比特数（`bits_per_byte`）反而变差了。它量的是模型有多像 SFT 的验证集，而那里大多数回答是生硬的。我们故意让模型不再像它，这个数变差正是目的。**换了目标，就要换尺子。**
#
# 三个留出的问题，前后对照：

# %% tags=["nbval-ignore-output"]
asked = [pairs[i]["chosen"][-2]["content"] for i in (8, 24, 52)]
said = {name: run.evaluator().ask(asked) for name, run in (("sft", sft), ("dpo", dpo))}
wanted = [pairs[i]["rejected"][-1]["content"] for i in (8, 24, 52)]
show.table(["asked", "SFT", "DPO"], zip(asked, said["sft"], said["dpo"], strict=True))

# %% [markdown]
# DPO 之后三个都客气了。第二个前后都对。第三个是减法，正确的答案是 2：错的仍然错。第一个说明 DPO 也不是没有代价：正确的答案是橙色，SFT 答对了，DPO 之后却说乱了。平均正确率没有降，不等于每一题都不变。
#
# ## 弄坏它
#
# {eq}`eq-dpo-loss` 里只有**差**。把 $\log \pi(y_w)$ 和 $\log \pi(y_l)$ 都减去 10，即两个回答的概率都缩小到两万分之一，损失一点不变：

# %%
normal = objectives.dpo_loss(policy[:1], policy[1:], reference[:1], reference[1:], 0.1)
sunk = objectives.dpo_loss(policy[:1] - 10, policy[1:] - 10, reference[:1], reference[1:], 0.1)
assert torch.allclose(normal[0], sunk[0])
print(f"loss {normal[0].item():.4f} and {sunk[0].item():.4f}")

# %% [markdown]
# 所以 DPO 不在乎选中的回答是不是也变得不可能，只要被拒绝的掉得更快。平时看不出来，因为学习率很小，还有负对数似然那一项拉着。现在把学习率放大二十倍（0.002），练两份：一份保留那一项，一份去掉。两份各 40 步，其余完全相同。

# %%
kept = lab.variant("dpo-lr", "dpo", learning_rate=2e-3, max_steps=40)
broken = lab.variant("dpo-no-nll", "dpo", learning_rate=2e-3, max_steps=40, nll_weight=0.0)

# %% [markdown]
# 先看训练日志。只看这张表，你会选哪一个？

# %% tags=["nbval-ignore-output"]
names = ("loss", "margin", "accuracy", "val_loss", "val_margin")
ends = {"DPO, 105 steps": dpo, "lr x20, with NLL": kept, "lr x20, no NLL": broken}
show.table(["", *names], [[k, *(run.log[-1][n] for n in names)] for k, run in ends.items()])

# %% [markdown]
# 最后一行损失最小（它少一项，本来就不能比），间隔也最大，是正式的 DPO 的四倍以上，准确率仍有八成多。再看留出的对子上，选中的回答的平均对数概率（{numref}`fig-dpo-sink`）：

# %% mystnb={"figure": {"caption": "留出的 200 对上，选中的回答的平均对数概率。三条线都从 SFT 模型出发。", "name": "fig-dpo-sink"}, "image": {"alt": "横轴是步数。正式的 DPO 和保留负对数似然的一份从约负 4.4 升到负 2 到负 2.5 之间；去掉它的一份掉到约负 6.7。"}}
series = {}
for name, run in (("DPO", dpo), ("lr ×20", kept), ("lr ×20, no NLL", broken)):
    means = [float(pair_log_probs(run.evaluator(s), "chosen").mean()) for s in run.steps]
    series[name] = ([0, *run.steps], [float(chosen["sft"].mean()), *means])
fallen = {name: y[-1] - y[0] for name, (_, y) in series.items()}
assert min(fallen["DPO"], fallen["lr ×20"]) > 0
assert fallen["lr ×20, no NLL"] < -1
show.lines(
    series,
    "step",
    "mean log-probability of chosen (nats)",
    colours=[show.COLOURS[k] for k in ("dpo", "other", "bad")],
    marker="o",
)

# %% [markdown]
# 去掉那一项之后，我们想要的回答反而更不可能了，间隔却照样很大。它开口是什么样子？

# %% tags=["nbval-ignore-output"]
evaluators = {name: run.evaluator() for name, run in ends.items()}
kinds = ("fact", "reading", "shop")
rates = {n: [e.question_accuracy(k, 30) for k in kinds] for n, e in evaluators.items()}
rows = [[n, *rates[n], e.politeness(30), e.ask([asked[0]])[0]] for n, e in evaluators.items()]
show.table(["", *kinds, "polite", asked[0]], rows)

# %%
good, same_rate, bad = (np.mean(r) for r in rates.values())
assert good > 0.85
assert same_rate > bad + 0.3  # the only difference between the two: the NLL term

# %% [markdown]
# 第三行的损失最小、间隔最大，开口却露了馅：三类题几乎全错，客气的也只剩不到一半，最后一列连句子都不通。第二行的学习率同样大，只因为保留了那一项，就好得多。最后一列的这一题，三份都没有说出橙色：只看一个回答，第一、二行也分不出好坏，要看前几列。同样的两段再量一次：

# %% tags=["nbval-ignore-output"]
parts |= {
    name: [text_and_end(ends[name].evaluator(), role) for role in roles] for name in list(ends)[1:]
}
show.table(header, [[name, *np.ravel(values).tolist()] for name, values in parts.items()])

# %% [markdown]
# 两份的生硬回答，结束标记都被压到 −30 上下，甚至更低：说完答案就停，已经绝无可能。保留那一项时，选中的文字变得容易了约 2 个奈特，空出来的概率有地方去；去掉之后，两种回答的文字都比 SFT 时低了 2 到 4 个奈特，而这两种回答说的都是正确的答案：答案本身也被压下去了，概率流到了别处。流到哪里，{eq}`eq-dpo-loss` 不管。
#
# 怎样发现：
#
# - 除了间隔和准确率，还要记录 $\log \pi(y_w)$ 本身。它持续下降，就该停了；
# - 每个阶段之后都要在留出的问题上让模型**开口**，看正确率，也亲眼看几个回答；
# - 间隔大得离谱，不是好消息。
#
# 只放大学习率、保留那一项的第二份，好得多，但事实题和阅读题也比正式的 DPO 低一些（一种只有 30 题，误差不小）。步子大了，变化还会传到偏好对没有教过的问题上：试试问它“你是谁？”（{numref}`ex-dpo-3`）。
#
# ## 收尾

# %% tags=["nbval-ignore-output"]
show.spine({**replies, "dpo": lab.showcase(dpo.model())})

# %% [markdown]
# 前两句多了客气话。风格变了，内容大体没变：SFT 之后答对的大多仍然对，答错的（比如减法）大多仍然错。第三句换了一种说法，却没有变客气：偏好对里没有一个问题问“你是谁”，客气没有传到那里；换一次运行，也可能捎带过去。名字没有变；这个名字从哪里来、怎样换成你自己的，是下一章（{numref}`第 %s 章 <sec-identity>`）的事。
#
# ### 小结
#
# - 偏好对只说“这个比那个好”。由 Bradley–Terry 模型和“别离参考模型太远”这两条假设，推出一个不需要奖励模型的损失。
# - 间隔 $m$ 是选中与被拒绝的回答的隐式奖励之差；起点一定是 $m = 0$、损失 $\ln 2$。
# - 回答的对数概率是各词元之和，不是平均；包含结束标记。
# - 留出的问题上礼貌率从约 0 升到 0.85 以上，十种问题的平均正确率下降不超过 0.1；减法仍然大多答错。
# - 损失只看差，所以要加一项负对数似然、用小学习率，并且监视 $\log \pi(y_w)$ 与真实的回答。
#
# ### 练习
#
# :::{exercise}
# :label: ex-dpo-1
# 算一算：手算的例子里，若 $\beta = 1$，间隔和损失是多少？要让 $\beta = 0.1$ 时的损失降到同样的数，两个对数比之差要有多大？
# :::
#
# :::{solution} ex-dpo-1
# :class: dropdown
# $m = 1 \times 3.0 = 3.0$，$L = \ln(1 + e^{-3}) = 0.049$。$\beta = 0.1$ 时要 $m = 3.0$，差就得是 30 个奈特：$\beta$ 越小，模型要离参考模型越远，才算“分清了”，所以说小的 $\beta$ 是松的缰绳。
# :::
#
# :::{exercise}
# :label: ex-dpo-2
# 写代码：如果把和换成平均，被拒绝的回答的每个词元受的力，是选中的回答的每个词元的几倍？用“对而不客气”的留出对子算出平均数和最大的倍数。
# :::
#
# :::{solution-start} ex-dpo-2
# :class: dropdown
# :::
#
# 用和，每个词元受的力都是 $\beta(1-\sigma(m))$；用平均，要再除以回答的长度，所以倍数是 $|y_w| / |y_l|$。


# %%
def answer_length(conversation):
    _, mask = tokenizer.render_conversation(conversation)
    return sum(mask)


ratios = np.array(
    [
        answer_length(p["chosen"]) / answer_length(p["rejected"])
        for p in pairs
        if not world.is_polite(p["rejected"][-1]["content"])
    ]
)
assert ratios.mean() > 2
print(f"mean {ratios.mean():.2f}, largest {ratios.max():.2f}")

# %% [markdown]
# 用平均，短回答的每个词元平均被压得约三倍狠，最极端的对子六倍多。短回答里占比最大的又是结束标记，正是“弄坏它”里被压得最低的地方。
#
# :::{solution-end}
# :::
#
# :::{exercise}
# :label: ex-dpo-3
# 弄坏它：问“弄坏它”一节的三个模型“你是谁？”。偏好对里没有一个身份问题，为什么学习率放大二十倍的两份，在这里也客气起来？这是好事吗？
# :::
#
# :::{solution-start} ex-dpo-3
# :class: dropdown
# :::

# %% tags=["nbval-ignore-output"]
show.table(["", "你是谁？"], [[n, e.ask(["你是谁？"])[0]] for n, e in evaluators.items()])

# %% [markdown]
# 三份都还认得自己的名字。不同的是结尾：正式的 DPO 步子小，“说完先别停”没有传到身份问题上；步子大了二十倍，就传了过去。保留那一项的一份，传过去的是一句客气话，无害；去掉它的一份，说完名字停不下来，先重复半句，再接客气话。没有什么保证副作用总是无害：负对数似然只保护数据里出现过的那一类回答，偏好对里没有身份问题，副作用到了那里没有任何东西拦着。要保护一种能力，就得让它出现在训练数据里，或者少走几步、走小一点。
#
# :::{solution-end}
# :::
#
# :::{exercise}
# :label: ex-dpo-4
# 想一想：有人把数据里的 `chosen` 和 `rejected` 两列弄反了。训练会报错吗？损失、间隔和准确率的曲线看得出来吗？怎样才能发现？
# :::
#
# :::{solution} ex-dpo-4
# :class: dropdown
# 不会报错，曲线也看不出来：损失照样从 $\ln 2$ 下降，间隔照样上升，因为它们只知道哪一列叫 `chosen`。模型会学成“生硬，有时还故意答错”。只有读几行数据、看几个真实的回答，或者在独立的测试（如礼貌率、正确率）上打分，才能发现。
# :::
#
# ### 延伸阅读
#
# - {cite:t}`rafailov2023dpo`：DPO 的原文，推导在第 4 节和附录 A；本章的 {eq}`eq-dpo-loss` 是其中的式 (7)。
# - {cite:t}`pang2024irpo`：给 DPO 加上负对数似然，并量出没有它时选中的回答的概率怎样下降。
# - {cite:t}`ouyang2022instructgpt`：先训练奖励模型、再用强化学习的做法；读它可以知道 DPO 省掉了什么。
# - {cite:t}`cui2023ultrafeedback`：真实的偏好数据从哪里来。
