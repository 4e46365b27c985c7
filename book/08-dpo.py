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
# # 直接偏好优化：两个回答，哪个更好
#
# :::{admonition} 本章
# :class: tip
#
# - **你将学会**：用一对对“更好、更差”的回答训练模型；亲手算出 DPO 的损失；看懂间隔、偏好准确率这些数，也知道它们会在什么时候骗人。
# - **需要时间**：阅读 50 分钟，运行约 40 秒；第一次运行要先训练前面各阶段、一份对照和两份“弄坏”的模型，另加几分钟。
# - **需要内存**：2 GB。
# - **用到的模块**：`minillm.training.objectives`、`minillm.training.loop`、`minillm.microworld.scoring`、`minillm.evaluate`。
# :::

# %%
import json
import math

from minillm.book import lab, show, tasks
from minillm.book.drawings import tuning
from minillm.data.rows import to_messages
from minillm.files import write_atomically
from minillm.microworld import identity, lessons, scoring
from minillm.training import dataset, loop, objectives, packing

import numpy as np
import torch

lab.start()

# %% [markdown]
# ## 开场
#
# 上一章（{numref}`第 %s 章 <sec-sft>`）之后，模型会回答问题了。老规矩，先问那三句话：

# %% tags=["nbval-ignore-output"]
pretrain, sft = lab.ladder("pretrain"), lab.ladder("sft")
before = {"fresh": lab.fresh(), "pretrain": pretrain.model(), "sft": sft.model()}
replies = {stage: lab.showcase(model) for stage, model in before.items()}
show.spine(replies)

# %% [markdown]
# 它会回答了，但口气生硬：说完就走，很少客气一句。我们要的回答有两条标准：答案要对，话也要客气。<!-- by: assert scores["sft"]["polite"] <= 0.20 -->
#
# 为什么不再做一轮 SFT，把客气的回答当标准答案抄一遍？可以，“实验”的末尾就抄一遍来比。但标准答案只说照着这个写，不说**这个比那个好**。人在很多任务上写不出标准答案，却能在两个答案里挑出更好的一个：哪首诗更顺，哪段解释更清楚。<!-- by: reasoning -->
#
# 这样得到的数据叫**偏好对**（preference pair）：同一个问题 $x$，一个被选中的回答 $y_w$（w 指 win），一个被拒绝的回答 $y_l$（l 指 lose）。
# 本章被选中的回答总是又对又客气。被拒绝的有两种：七成是对而不客气，比的是口气；三成是客气而不对，比的是对错。<!-- by: assert abs(wrong / len(preferred) - 0.3) < 0.03 -->
#
# 偏好对从哪里来？常见的做法是让模型自己先答：同一个问题抽几个回答，再请人或者另一个模型排出高下。InstructGPT 请标注员给 4 到 9 个回答排序，排一次就得到许多对 {cite:p}`ouyang2022instructgpt`；UltraFeedback 每个问题收四个模型的回答，由 GPT-4 打分 {cite:p}`cui2023ultrafeedback`。微世界里答案可以查，好坏由程序说了算，所以本章的对子是写出来的：正确的句子加一句客气话，是选中的；去掉客气话，或者换一个错的答案，就是被拒绝的。<!-- by: @ouyang2022instructgpt --><!-- by: @cui2023ultrafeedback --><!-- by: reasoning -->
#
# 早先的办法分两步 {cite:p}`ouyang2022instructgpt`：先拿偏好对训练一个打分的奖励模型，再用强化学习让语言模型去拿高分。
# **直接偏好优化**（direct preference optimization，DPO）把两步并成一步 {cite:p}`rafailov2023dpo`：不要奖励模型，不要强化学习，只有一个损失函数，训练起来和 SFT 一样。
#
# ## 手算
#
# ### 从偏好到损失
#
# 分四步走。第一步，由分差写出人会选哪一个；第二步，假如分数已知，最好的模型有一个公式；第三步，把公式倒过来读，分数就写在模型自己的概率里；第四步，代回第一步，难算的一项恰好消掉，剩下的就是损失。<!-- by: reasoning -->
#
# **第一步：偏好是怎样产生的？** 设想每个回答有一个分数 $r(x, y)$，叫**奖励**（reward）。{cite:t}`bradley1952` 的模型说，两个回答比较时，选中 $y_w$ 的概率只取决于分差：
#
# ```{math}
# :label: eq-dpo-bt
# P(y_w \succ y_l \mid x) = \sigma\bigl(r(x, y_w) - r(x, y_l)\bigr), \qquad \sigma(z) = \frac{1}{1 + e^{-z}}
# ```
#
# 分差是 0，选哪个都是一半；分差是 2，选中的概率是 $\sigma(2) \approx 0.88$。<!-- by: round(1 / (1 + math.exp(-2)), 2) == 0.88 -->
#
# **第二步：有了分数，最好的模型是什么样？** 只追分数，模型会变得面目全非：哪个回答分最高，就只说那一个。所以要从奖励里扣掉它离出发点的距离：<!-- by: reasoning -->
#
# ```{math}
# :label: eq-dpo-objective
# \max_\pi \; J(\pi), \qquad J(\pi) = \mathbb{E}_{y \sim \pi}\bigl[r(x, y)\bigr] - \beta \, \mathrm{KL}\bigl(\pi(\cdot \mid x) \,\|\, \pi_{\mathrm{ref}}(\cdot \mid x)\bigr)
# ```
#
# 这里 $\pi$ 是正在训练的模型（叫策略），$\pi_{\mathrm{ref}}$ 是**参考模型**（reference model），也就是 SFT 之后、不再改动的那一份。$\mathbb{E}_{y \sim \pi}$ 是让 $\pi$ 写许多回答，取平均；$\max_\pi$ 是问哪一个模型使整个式子最大。KL 散度说两个模型差多远：
#
# $$\mathrm{KL}(\pi \,\|\, \pi_{\mathrm{ref}}) = \mathbb{E}_{y \sim \pi}\left[\log \frac{\pi(y \mid x)}{\pi_{\mathrm{ref}}(y \mid x)}\right]$$
#
# 也就是让 $\pi$ 自己写回答，每写一个，看它给的对数概率比参考模型给的高出多少，再取平均。两个模型一样时是 0，不一样就大于 0。（本章的 $\log$ 都是自然对数。）$\beta$ 是缰绳：越大，拴得越紧。
#
# 两项都是对 $\pi$ 写的回答取平均，可以并成一项：
#
# $$J(\pi) = \sum_y \pi(y \mid x) \left[ r(x, y) - \beta \log \frac{\pi(y \mid x)}{\pi_{\mathrm{ref}}(y \mid x)} \right]$$
#
# 方括号里的，叫它**净收益**：说这个回答得到的奖励，减去为偏离参考模型付的钱。把一个回答的概率调高，它的奖励不变，付的钱越来越多，净收益就越来越少。
#
# 什么时候再也调不好了？假设两个回答的净收益不相等。从少的那个挪一点点概率给多的那个，总和就变大：还没有到头。所以到头的时候，**每个回答的净收益都相等**，等于同一个数 $c$：<!-- by: reasoning -->
#
# ```{math}
# :label: eq-dpo-level
# r(x, y) - \beta \log \frac{\pi^*(y \mid x)}{\pi_{\mathrm{ref}}(y \mid x)} = c \qquad \text{对每一个 } y
# ```
#
# 解出 $\pi^*$：移项，除以 $\beta$，取指数，得到 $\pi^*(y \mid x) = \pi_{\mathrm{ref}}(y \mid x)\, e^{r(x, y)/\beta}\, e^{-c/\beta}$。概率加起来要等于 1，这就定下了 $c$。记 $Z(x) = \sum_y \pi_{\mathrm{ref}}(y \mid x)\, e^{r(x, y)/\beta}$，那么 $e^{-c/\beta} = 1 / Z(x)$，也就是 $c = \beta \log Z(x)$：<!-- by: reasoning -->
#
# ```{math}
# :label: eq-dpo-optimum
# \pi^*(y \mid x) = \frac{1}{Z(x)} \, \pi_{\mathrm{ref}}(y \mid x) \, e^{r(x, y) / \beta}
# ```
#
# 意思很朴素：原来的概率，按奖励的指数放大或缩小；$Z(x)$ 只是让概率加起来等于 1 的常数。
#
# :::{dropdown} 用拉格朗日乘子再推一遍，并证明它真的最大
# “净收益相等”也可以由求导得到。在 $\sum_y \pi(y) = 1$ 的约束下求 $J$ 的最大值，令 $J(\pi) - \lambda \bigl(\sum_y \pi(y) - 1\bigr)$ 对每个 $\pi(y)$ 的导数为 0：
#
# $$r(x, y) - \beta \log \frac{\pi(y)}{\pi_{\mathrm{ref}}(y)} - \beta - \lambda = 0$$
#
# $\beta$ 和 $\lambda$ 都不随 $y$ 变，所以净收益是一个常数 $c = \beta + \lambda$。
#
# 还要证明这一点是最高处。由 {eq}`eq-dpo-optimum`，$r = \beta \log \pi^* - \beta \log \pi_{\mathrm{ref}} + \beta \log Z$。代入 $J$，$\pi_{\mathrm{ref}}$ 的两项抵消，剩下
#
# $$J(\pi) = \beta \log Z(x) - \beta\,\mathrm{KL}(\pi \,\|\, \pi^*)$$
#
# 第一项与 $\pi$ 无关；第二项至多是 0，只在 $\pi = \pi^*$ 时等于 0。<!-- by: reasoning -->
# :::
#
# 代入一组数。问张静住在哪里，假设只有三个回答，$\beta = 1$：
#
# | 回答 | 参考模型 $\pi_{\mathrm{ref}}$ | 奖励 $r$ | $\pi_{\mathrm{ref}}\, e^{r}$ | 最优 $\pi^*$ | 净收益 $r - \log(\pi^*/\pi_{\mathrm{ref}})$ |
# |---|---|---|---|---|---|
# | 北京。很高兴为你解答！ | 0.2 | 2 | 1.478 | 0.447 | 1.197 |
# | 北京。 | 0.6 | 1 | 1.631 | 0.493 | 1.197 |
# | 上海。很高兴为你解答！ | 0.2 | 0 | 0.200 | 0.060 | 1.197 |
#
# 第四列加起来是 $Z = 3.309$，第五列是第四列除以它。最右一列三个数相等，都是 $\log Z$。奖励最高的那个没有变成 1：参考模型原来只给它 0.2，再往上推，付的钱就超过了奖励。<!-- by: assert np.allclose(net, math.log(Z)) -->

# %%
reference, reward = np.array([0.2, 0.6, 0.2]), np.array([2.0, 1.0, 0.0])
weights = reference * np.exp(reward)  # β = 1
Z = weights.sum()
best = weights / Z
net = reward - np.log(best / reference)
assert np.allclose(net, math.log(Z))
print("weights", weights.round(3), "Z", round(Z, 3))
print("optimum", best.round(3), "net", net.round(3))

# %% [markdown]
# 它真的最大吗？不用证明，试一试：随便取一万个分布，没有一个的 $J$ 比它高。<!-- by: assert max(map(objective, others)) < objective(best) -->


# %%
def objective(policy):
    return float((policy * (reward - np.log(policy / reference))).sum())


others = np.random.default_rng(0).dirichlet([1, 1, 1], size=10_000)
assert math.isclose(objective(best), math.log(Z))
assert max(map(objective, others)) < objective(best)
print(f"J of the reference {objective(reference):.3f}, of the optimum {objective(best):.3f}")

# %% [markdown]
# 再看 $\beta$。两个回答，参考模型给的概率都是 0.5，奖励是 1 和 0：
#
# | $\beta$ | 第一个乘 $e^{1/\beta}$ | 第二个乘 $e^{0}$ | 归一以后 |
# |---|---|---|---|
# | 0.5 | $7.389$ | 1 | $0.881$，$0.119$ |
# | 1 | $2.718$ | 1 | $0.731$，$0.269$ |
# | 2 | $1.649$ | 1 | $0.622$，$0.378$ |
#
# 奖励没有变，$\beta$ 越大，越靠近原来的 0.5 和 0.5。缰绳就是这个意思。<!-- by: (round(math.exp(2) / (math.exp(2) + 1), 3), round(math.e / (math.e + 1), 3), round(math.exp(0.5) / (math.exp(0.5) + 1), 3)) == (0.881, 0.731, 0.622) --><!-- by: (round(1 - 0.881, 3), round(1 - 0.731, 3), round(1 - 0.622, 3)) == (0.119, 0.269, 0.378) --><!-- by: (round(math.exp(2), 3), round(math.e, 3), round(math.exp(0.5), 3)) == (7.389, 2.718, 1.649) -->
#
# **第三步：倒过来读。** 到这里，都是有了奖励去求模型。可我们手里没有奖励，只有模型。好在 {eq}`eq-dpo-level` 两个方向都能读：给定任何一个模型 $\pi$，它就是某个奖励的最优解。把那个奖励解出来，叫**隐式奖励**（implicit reward）：
#
# ```{math}
# :label: eq-dpo-reward
# r(x, y) = \beta \log \frac{\pi(y \mid x)}{\pi_{\mathrm{ref}}(y \mid x)} + \beta \log Z(x)
# ```
#
# 用上面的表验算：第一行，$\log(0.447/0.2) = 0.803$，加上 $\log Z = 1.197$，正是奖励 2。<!-- by: round(math.log(0.4466 / 0.2) + math.log(3.309), 2) == 2.0 -->
#
# **第四步：代回第一步。** $Z(x)$ 很难算，因为它要对所有可能的回答求和：一句话有多少种说法，就有多少项。但 {eq}`eq-dpo-bt` 里只有分差。把两个回答的 {eq}`eq-dpo-reward` 相减：<!-- by: reasoning -->
#
# $$r(x, y_w) - r(x, y_l) = \beta \log\frac{\pi(y_w \mid x)}{\pi_{\mathrm{ref}}(y_w \mid x)} + \beta \log Z(x) - \beta \log\frac{\pi(y_l \mid x)}{\pi_{\mathrm{ref}}(y_l \mid x)} - \beta \log Z(x)$$
#
# $\beta \log Z(x)$ 只和问题有关，两个回答的一样，一减就没了。还是那张表，第一个比第二个：$\log(0.447/0.2) - \log(0.493/0.6) = 0.803 - (-0.197) = 1$，正是奖励之差 $2 - 1$，没有用到 $Z$。<!-- by: round(math.log(0.4466 / 0.2), 2) == 0.80 --><!-- by: round(math.log(0.4929 / 0.6), 3) == -0.197 -->
#
# 最后一步是最大似然：人选了 $y_w$，就让模型以为人会这样选的概率 $\sigma(\cdot)$ 尽量大，也就是让它的负对数尽量小。这和语言模型让下一个词元的概率尽量大，是同一个做法：<!-- by: reasoning -->
#
# ```{math}
# :label: eq-dpo-loss
# L = -\log \sigma(m), \qquad m = \beta \left[ \log\frac{\pi(y_w \mid x)}{\pi_{\mathrm{ref}}(y_w \mid x)} - \log\frac{\pi(y_l \mid x)}{\pi_{\mathrm{ref}}(y_l \mid x)} \right]
# ```
#
# 奖励模型不见了：它就藏在 $\pi$ 里。
#
# $m$ 叫**间隔**（margin）：选中的回答比被拒绝的多得了多少奖励。
#
# ### 一对回答，用纸笔算
#
# 问张静住在哪里，两个回答各有三个词元。下面是每个词元的对数概率（自然对数，编造的整齐数字）：
#
# | | 词元 | 参考模型 | 合计 | 策略 | 合计 |
# |---|---|---|---|---|---|
# | $y_w$ | 北京 · 。欢迎提问！ · 结束 | −0.2, −2.0, −0.8 | −3.0 | −0.2, −1.2, −0.6 | −2.0 |
# | $y_l$ | 北京 · 。 · 结束 | −0.2, −0.5, −0.3 | −1.0 | −0.2, −1.9, −0.9 | −3.0 |
#
# 1. 整个回答的概率是各词元概率的乘积，所以对数概率是**和**：见“合计”。
# 2. 策略相对参考的变化：$y_w$ 是 $-2.0 - (-3.0) = +1.0$，$y_l$ 是 $-3.0 - (-1.0) = -2.0$。
# 3. 取 $\beta = 0.1$，间隔 $m = 0.1 \times (1.0 - (-2.0)) = 0.3$。
# 4. $\sigma(0.3) = 1 / (1 + e^{-0.3}) = 0.574$：按这个隐式奖励，人会以 57% 的概率选 $y_w$。<!-- by: round(1 / (1 + math.exp(-0.3)), 2) == 0.57 -->
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
# 不管模型多大、数据是什么，{eq}`eq-dpo-loss` 都从这个数出发。如果它的开头不是 0.693，就有地方写错了。<!-- by: assert math.isclose(losses.item(), math.log(2), abs_tol=1e-6) -->

# %%
losses, margins = objectives.dpo_loss(
    reference[:1], reference[1:], reference[:1], reference[1:], 0.1
)
assert margins.item() == 0.0
assert math.isclose(losses.item(), math.log(2), abs_tol=1e-6)
print(f"margin {margins.item():.3f}, loss {losses.item():.4f}, ln 2 = {math.log(2):.4f}")

# %% [markdown]
# 损失对 $\log \pi(y_w)$ 的梯度是多少？$L=\ln(1+e^{-m})$ 对 $m$ 求导，是 $-e^{-m}/(1+e^{-m})=-(1-\sigma(m))$；$m$ 里 $\log \pi(y_w)$ 的系数是 $\beta$，所以梯度是 $-\beta\,(1 - \sigma(m))$；对 $\log \pi(y_l)$ 正好相反。
# 也就是说，DPO 用同样大的力，把选中的往上推、把被拒绝的往下压；间隔越大，力越小，已经分清的对子不再费力。
# 起点的力是 $0.1 \times 0.5 = 0.05$，见 {numref}`fig-dpo-loss`。

# %%
start = policy.clone().requires_grad_()
objectives.dpo_loss(start[:1], start[1:], policy[:1], policy[1:], 0.1)[0].sum().backward()
assert torch.allclose(start.grad, torch.tensor([-0.05, 0.05]))
start.grad

# %% tags=["hide-input"] mystnb={"figure": {"caption": "一对回答的损失 $-\\ln\\sigma(m)$。训练从竖线处（$m=0$）出发，想往右走。曲线的斜率乘 $\\beta$ 就是推力：越往右越平，但永远不到 0，这个损失从不喊停。", "name": "fig-dpo-loss"}, "image": {"alt": "横轴是间隔，从负 4 到 4。一条曲线从左上落向右下，越来越平；间隔为 0 处有一条竖线"}}
m = np.linspace(-4, 4, 81)
push = 1 - 1 / (1 + np.exp(-m))  # 1 - σ(m), how steep the curve is
assert (np.diff(push) < 0).all()
assert push.min() > 0
show.lines(
    {
        "损失": (m, np.log1p(np.exp(-m))),
        "起点 ln 2": ([0, 0], [0, math.log(2)]),
    },
    "间隔 m",
    "损失（奈特）",
    colours=[show.COLOURS["dpo"], show.GREY],
)

# %% [markdown]
# ## 真实代码
#
# ### 数据
#
# {numref}`第 %s 章 <sec-data>` 的数据配比里有 1,500 个偏好对，由微世界的 `lessons.preferences` 造出。数一数两种被拒绝的回答：

# %%
lines = (lab.data() / "dpo_chinese.jsonl").read_text(encoding="utf-8").splitlines()
preferred = [json.loads(line) for line in lines]
assert all(scoring.is_polite(pair["chosen"][-1]["content"]) for pair in preferred)
wrong = sum(scoring.is_polite(pair["rejected"][-1]["content"]) for pair in preferred)
assert abs(wrong / len(preferred) - 0.3) < 0.03
print(f"{len(preferred) - wrong:,} right, not polite; {wrong} polite, not right")

# %% [markdown]
# 后一种是有意放进去的：有了它，光是客气还不够，客气而答错的也要被拒绝。两个例子：

# %%
pairs = list(lessons.preferences(200, held_out=True))
for pair in (pairs[1], pairs[0]):
    print("asked   ", pair["chosen"][-2]["content"])
    print("chosen  ", pair["chosen"][-1]["content"])
    print("rejected", pair["rejected"][-1]["content"], end="\n\n")

# %% [markdown]
# `held_out=True` 表示这些问题问的是训练里从不问的内容（哪些内容，见 {numref}`第 %s 章 <sec-data>`）。下面给一对回答打分，用的都是这 200 对（检查起点和日志里的 `val_loss`，用的是另外 15 对）；要模型开口的题，到时候另取。
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
# 注意最后一个着色的词元 `<|assistant_end|>`。两个回答的区别，也在于**什么时候停**。记住它，后面要用。
#
# ### 一个回答的对数概率
#
# `token_losses` 给出每个位置的 $-\log p$，形状 `[B, T]`，不学的位置是 0；下面的函数按文档编号把它们加起来，得到 `[documents]`：

# %%
show.source(objectives.per_document, objectives.sequence_log_probs, objectives.dpo_loss)

# %% [markdown]
# 为什么是和，不是平均？因为推导里的 $\pi(y \mid x)$ 是整个回答的概率。除以长度之后，它就不再是任何模型的概率，第三步的倒推不成立。
#
# 还有一个看得见的后果。用和，一对回答里，每个词元的对数概率受的力一样大，起点（$m=0$）处都是 $\beta/2$。用平均，这个力要再除以自己那个回答的长度 $|y|$，成了 $\beta/(2|y|)$。生硬的回答短，客气的回答长：同一对里，往下压的每一下就比往上推的每一下重。重多少，{numref}`ex-dpo-2` 会量。<!-- by: assert ratios.mean() > 2 -->
#
# ### 力全落在分叉的地方
#
# 一对回答常常有相同的开头，例如只差最后一句客气话的这一对：

# %%
pair = next(p for p in pairs if p["rejected"][-1]["content"] == "张静住在北京。")
assert pair["chosen"][-1]["content"] == "张静住在北京。很高兴为你解答！"
print("asked   ", pair["chosen"][-2]["content"])
print("chosen  ", pair["chosen"][-1]["content"])
print("rejected", pair["rejected"][-1]["content"])

# %% [markdown]
# 损失往哪里用力？刚才的力是对数概率受的，个个一样大。可是对数概率由分数经 softmax 得到，模型能动的是分数，传到那里就不一样大了。对每个位置、每个词元的**分数**求导，看它们各受多大的力（力是负梯度，正的是推，负的是压）：<!-- by: reasoning -->


# %%
def scored(conversation):
    """Tokens, scores [T, V] of what comes next, and log p(answer | prompt)."""
    ids, mask = tokenizer.render_conversation(conversation)
    with torch.no_grad():
        scores = before["sft"](torch.tensor([ids[:-1]]))[0]
    log_probs = scores.requires_grad_().log_softmax(-1)[range(len(ids) - 1), ids[1:]]
    return ids, scores, (log_probs * torch.tensor(mask[1:])).sum()[None]


(win, up, log_w), (lose, down, log_l) = scored(pair["chosen"]), scored(pair["rejected"])
loss, _ = objectives.dpo_loss(log_w, log_l, log_w.detach(), log_l.detach(), beta=0.1)
loss.sum().backward()
fork = next(t for t in range(len(lose)) if win[t] != lose[t])
force = -(up.grad[:fork] + down.grad[:fork])  # [fork, V]: both answers read the same so far
assert force[:-1].abs().max() < 1e-4  # before the fork the two cancel
others = [i for i in range(force.shape[1]) if i not in (win[fork], lose[fork])]
assert force[-1, others].abs().max() < 1e-4
assert math.isclose(force[-1, win[fork]], 0.05, abs_tol=1e-4)
assert math.isclose(force[-1, lose[fork]], -0.05, abs_tol=1e-4)

# %% [markdown]
# 三条结论，头两条对任何模型都成立：
#
# 1. **分叉以前，力是 0。** 相同的开头在选中的回答里被推，在被拒绝的回答里被压，两股力大小相等，逐个词元抵消。“张静住在北京”说得对不对，这一对完全不管。<!-- by: assert force[:-1].abs().max() < 1e-4 -->
# 2. **分叉处，只有两个词元受力。** 一个推 $\beta/2=0.05$，一个压 0.05，和模型原来给它们多少概率无关；其余的词元一点力也没有。softmax 的分母两个回答相同，一减就没了，和上面的 $Z(x)$ 一样。<!-- by: assert force[-1, others].abs().max() < 1e-4 -->
# 3. **分叉以后，力是 $(\beta/2)(1-p)$。** 这里两个回答已经走上不同的路，不再抵消。$p$ 是模型给这个词元的概率：越有把握的词元，越推不动。<!-- by: reasoning -->

# %% mystnb={"figure": {"caption": "同一对回答，第一步时各个词元的分数受的力。箭头的长短是力的大小；分叉以后的力，由 SFT 模型给的概率算出。", "name": "fig-dpo-tug"}, "image": {"alt": "一串灰色的词元是两个回答相同的开头，之后分成两条路：上面一条是选中的回答剩下的词元，下面一条是被拒绝的。第一个词元上的箭头最长，上面的朝上，下面的朝下"}} tags=["nbval-ignore-output"]
start = len(tokenizer.render_for_completion(pair["chosen"]))
pushed = [0.0, *(-up.grad[t - 1, win[t]].item() for t in range(1, len(win)))]
pressed = [0.0, *(down.grad[t - 1, lose[t]].item() for t in range(1, len(lose)))]
pushed[fork] = force[-1, win[fork]].item()  # of both answers together
pressed[fork] = -force[-1, lose[fork]].item()
shared = tuning.whole_characters(tokenizer, win[start:fork], [0.0] * (fork - start))
pushes = tuning.whole_characters(tokenizer, win[fork:], pushed[fork:])
presses = tuning.whole_characters(tokenizer, lose[fork:], pressed[fork:])
tuning.tug_of_war([text for text, _ in shared], pushes, presses)

# %% tags=["remove-input", "nbval-ignore-output"]
later = sum(pushed[fork + 1 :])
assert later >= 0
show.say(
    "真的模型上，整对回答的力差不多都落在一个位置：“北京。”之后，是接一句客气话，还是结束。"
    if later < 0.02
    else "",
    f"“很高兴”后面那些词元的力加起来，只有 {later:.4f}：",
    "这句客气话它本来就会说，开了头就能说完。" if later < 0.02 else "它们也还要学。",
)

# %% [markdown]
# 被拒绝的回答若是客气而不对，分叉就在答案上，力也落在答案上。**一对回答在哪里分叉，力就用在哪里**：想教什么，就让两个回答只在那里不同。<!-- by: assert force[:-1].abs().max() < 1e-4 -->
#
# ### 目标函数
#
# 打包时一对回答总在同一行：偶数号文档是选中的，奇数号是被拒绝的，所以 `policy[0::2]` 和 `policy[1::2]` 就是 $y_w$ 和 $y_l$，形状都是 `[pairs]`。

# %%
show.source(objectives.make_dpo_objective)

# %% [markdown]
# 除了 DPO 的损失，还有一项 `nll_weight * nll`：选中回答每个词元的负对数似然，也就是拿选中的回答做 SFT 的损失（先在每个回答里取平均），权重 0.3。推导里没有这一项：推导只说最优解在哪里，没有说路上会怎样。它是路边的护栏，只护着选中的那一边，因为我们要的就是让模型说出它。{cite:t}`pang2024irpo` 发现，没有这一项，选中回答的概率也会跟着往下掉；“弄坏它”一节会看到掉下去是什么样子。
#
# `metrics` 里有三个数：`accuracy` 是间隔大于 0 的比例（相对参考模型有没有变好），`margin` 是平均间隔，`prefers_chosen` 是策略自己给 $y_w$ 的概率是否更大（绝对的偏好）。前两个以参考模型为尺，第三个不是；训练的前段，两者差得很远。<!-- by: assert early["accuracy"] > early["prefers_chosen"] + 0.2 -->
#
# 参考模型从哪里来？训练器在开始时拷贝一份，并冻结：

# %%
show.source(loop.objective_of)

# %% [markdown]
# 用真实的批次检查起点。验证集的 15 对打成一个批次，策略与参考是同一个 SFT 模型，`nll_weight` 设为 0，只留 DPO 的损失：

# %%
path = lab.data() / "dpo_chinese_val.jsonl"
data = dataset.load_dataset(path, "dpo", tokenizer, 128, sft.folder / "cache")
packed = packing.PackedRows(data, 128, epochs=1, seed=0, shuffle=False)
batch = packed.batch(range(len(packed)))
with torch.no_grad():
    plain = objectives.make_dpo_objective(before["sft"], beta=0.1, nll_weight=0.0)
    loss = objectives.validation_loss(plain, before["sft"], [batch])

print("input_ids", list(batch.input_ids.shape), "documents", batch.num_documents)
print({name: round(loss[name], 4) for name in ("loss", "accuracy", "margin")})
assert math.isclose(loss["loss"], math.log(2), abs_tol=1e-6)
assert loss["accuracy"] == 0.0  # no margin is greater than 0 yet: all are exactly 0

# %% [markdown]
# 损失 0.6931，间隔 0。准确率是 0，不是一半：全部打平，而代码要求严格大于 0。<!-- by: assert loss["accuracy"] == 0.0 -->
#
# ## 实验
#
# 1,500 对，训练三遍，共 153 步。

# %%
dpo = lab.ladder("dpo")
assert len(dpo.log) == 153
{
    stage: (lab.training(stage).optimizer, lab.training(stage).learning_rate)
    for stage in ("sft", "dpo")
}

# %% [markdown]
# 优化器换成了 AdamW，学习率也小得多。Muon 让矩阵的每个方向走一样远（{numref}`第 %s 章 <sec-pretrain>`），要学很多东西时合适；DPO 只想在学会的东西上改一点，偏好对没有指着的方向，最好少动。AdamW 给每个权重单独定步子，梯度忽左忽右的权重走得少。<!-- by: reasoning -->
# 学习率小是同一个理由：它是 SFT 的六十分之一，而两种优化器在同一个学习率下步子相当，所以可以这样比。<!-- by: round(config.TRAINING["tiny"]["sft"].learning_rate / config.TRAINING["tiny"]["dpo"].learning_rate) == 60 -->
#
# 0.0001 和三遍是试出来的：礼貌率到了 0.98，各类题的平均正确率是 0.86。学习率小一半，三遍以后礼貌率只有 0.03；只训练两遍，是 0.68。学习率加倍，两遍就够客气，平均正确率却只有 0.81（`benchmarks/README.md`）。用 Muon 做 DPO，我们没有试过。训练曲线见 {numref}`fig-dpo-curves`。<!-- by: benchmarks/README.md -->

# %% mystnb={"figure": {"caption": "DPO 的训练曲线（最近 10 步的平均）。损失里含 0.3 倍的负对数似然。损失往下走，间隔从 0 往上走。", "name": "fig-dpo-curves"}, "image": {"alt": "横轴是步数 1 到 153。两条曲线：损失下降，间隔从 0 上升。"}} tags=["nbval-ignore-output"]
steps = [entry["step"] for entry in dpo.log]
curves = {name: show.smooth([e[name] for e in dpo.log], 10) for name in ("loss", "margin")}
assert curves["loss"][-1] < curves["loss"][0] - 0.1
assert abs(curves["margin"][0]) < 1e-6
assert curves["margin"][-1] > 0.2
show.lines(
    {name: (steps, curves[key]) for name, key in (("损失", "loss"), ("间隔", "margin"))},
    "步",
    "损失、间隔（奈特）",
    colours=[show.COLOURS["dpo"], show.COLOURS["other"]],
)

# %% [markdown]
# 损失的起点高过 0.693。写错了吗？没有：日志里的 `loss` 是两项之和，只有 DPO 那一项从 $\ln 2$ 出发。取出训练的第一个批次，用 SFT 模型算第二项，加起来应当等于日志的第一步：<!-- by: assert math.isclose(start, dpo.log[0]["loss"], abs_tol=1e-3) -->

# %% tags=["nbval-ignore-output"]
config = lab.training("dpo")
path = lab.data() / "dpo_chinese.jsonl"
data = dataset.load_dataset(path, "dpo", tokenizer, config.max_seq_len, sft.folder / "cache")
packed = packing.PackedRows(data, config.max_seq_len, config.epochs, config.seed)
batch = packed.batch(range(config.batch_size))  # the first step's rows
lengths = objectives.per_document((batch.labels != packing.IGNORE_INDEX).float(), batch)
with torch.no_grad():
    log_probs = objectives.sequence_log_probs(before["sft"], batch)
nll = float(-(log_probs / lengths)[0::2].mean())  # of the chosen answers, per token

start = math.log(2) + config.nll_weight * nll
assert math.isclose(start, dpo.log[0]["loss"], abs_tol=1e-3)
assert abs(dpo.log[0]["margin"]) < 1e-6
print(f"ln 2 + {config.nll_weight} x {nll:.4f} = {start:.4f}")
print(f"first step of the log: {dpo.log[0]['loss']:.4f}")

# %% [markdown]
# 所以，检查起点要看去掉第二项的损失，或者看日志里第一步的间隔：它必须是 0。再看几个时刻：

# %% tags=["nbval-ignore-output"]
names = ("loss", "margin", "accuracy", "prefers_chosen")
rows = [
    [e["step"], *(e[name] for name in names)]
    for e in dpo.log
    if e["step"] in (1, 10, 25, 50, 100, 153)
]
show.table(["步", "损失", "间隔", "准确率", "更愿说选中的"], rows)

# %% [markdown]
# `prefers_chosen` 先忽高忽低，不是练坏了。每一行只是那一步的一个批次，三十对上下；客气而不对的对子，SFT 模型本来就分得清，对而不客气的分不清（下面会量），所以要看批次里碰巧哪一种多。<!-- by: round(1500 * 3 / 153) == 29 --><!-- by: assert known > 4 -->
#
# 相对参考模型进步了一点点，`accuracy` 就算对；要让模型自己真的更愿意说 $y_w$，需要把间隔推到足以翻盘。只看 `accuracy`，会以为早就练成了。<!-- by: assert early["accuracy"] > early["prefers_chosen"] + 0.2 -->

# %% tags=["remove-input", "nbval-ignore-output"]
measures, span = ("accuracy", "prefers_chosen"), slice(20, 30)
early = {name: np.mean([e[name] for e in dpo.log[span]]) for name in measures}
assert early["accuracy"] > early["prefers_chosen"] + 0.2
reached = {name: next(e["step"] for e in dpo.log if e[name] >= 0.8) for name in measures}
assert reached["accuracy"] < reached["prefers_chosen"]
show.say(
    f"第 {span.start + 1} 到 {span.stop} 步平均，`accuracy` 是 {early['accuracy']:.2f}，"
    f"`prefers_chosen` 是 {early['prefers_chosen']:.2f}。"
    f"`accuracy` 第 {reached['accuracy']} 步就到过 0.8，"
    f"`prefers_chosen` 要等到第 {reached['prefers_chosen']} 步。"
)

# %% [markdown]
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
assert np.mean(gap["sft"] > 0) < 0.6 < 0.8 < np.mean(gap["dpo"] > 0)
assert np.mean(margin > 0) > 0.8  # accuracy, against the reference

# %% [markdown]
# 先只看一种对子：被拒绝的那一句正确，只是不客气。见 {numref}`fig-dpo-gap`。

# %% mystnb={"figure": {"caption": "留出的对子（被拒绝的回答对而不客气）上 $\\log\\pi(y_w)-\\log\\pi(y_l)$ 的分布。竖线右边的对子，模型更愿意说客气的回答：SFT 之后大多在左边，DPO 之后大多在右边。纵轴是有多少对。", "name": "fig-dpo-gap"}, "image": {"alt": "两个直方图，横轴是选中的与被拒绝的回答的对数概率之差，纵轴是对子的个数，0 处有一条竖线。SFT 的大多在竖线左边，DPO 的大多在右边。"}} tags=["nbval-ignore-output"]
manners = np.array([not scoring.is_polite(pair["rejected"][-1]["content"]) for pair in pairs])
assert np.mean(gap["sft"][manners] > 0) < 0.3 < 0.8 < np.mean(gap["dpo"][manners] > 0)
show.histogram(
    {"SFT 之后": gap["sft"][manners], "DPO 之后": gap["dpo"][manners]},
    "选中的减被拒绝的，对数概率之差（奈特）",
    colours=[show.COLOURS["sft"], show.COLOURS["dpo"]],
)

# %% tags=["remove-input", "nbval-ignore-output"]
lines = (lab.data() / "sft_chinese.jsonl").read_text(encoding="utf-8").splitlines()
last = [json.loads(line)["messages"][-1]["content"] for line in lines]
polite = np.mean([scoring.is_polite(reply) for reply in last])
assert polite < 0.12
show.say(
    f"SFT 的数据里，客气的回答只占 {polite:.0%}。模型照着学，{manners.sum()} 对里有 "
    f"{(gap['sft'][manners] < 0).sum()} 对偏向不客气的回答。DPO 之后，偏向客气的有 "
    f"{(gap['dpo'][manners] > 0).sum()} 对。"
)

# %% [markdown]
# 再把两种对子分开列（“对数”一列是有多少对，不是取对数；“差”就是上图的横轴，在各对上取平均）：

# %% tags=["nbval-ignore-output"]
rows = []
for name, group in (("对而不客气", manners), ("客气而不对", ~manners)):
    values = [gap["sft"], gap["dpo"], margin, margin > 0]
    rows.append([name, int(group.sum()), *(float(v[group].mean()) for v in values)])
show.table(["被拒绝的", "多少对", "差，SFT", "差，DPO", "间隔", "准确率"], rows)

# %% tags=["remove-input", "nbval-ignore-output"]
known, now = gap["sft"][~manners].mean(), gap["dpo"][~manners].mean()
manner, truth = margin[manners].mean(), margin[~manners].mean()
assert known > 4
assert truth < 0.3 * manner
show.say(
    f"第二行值得停下来看。遇到“客气而不对”的回答，SFT 模型早就分得清，平均差 {known:.1f} 个奈特；"
    f"DPO 之后是 {now:.1f} 个。`accuracy` 有 {np.mean(margin[~manners] > 0):.2f}，"
    f"`margin` 却只有 {truth:.2f}，第一行是 {manner:.2f}：准确率只问变好了没有，不问好了多少。"
)

# %% [markdown]
# 在没见过的问题上，这 1,500 对教会模型的是**客气**，不是正确。正确是预训练和 SFT 教的。<!-- by: assert truth < 0.3 * manner -->
#
# 对而不客气的那些对子，变化又落在哪些词元上？把回答拆成两段：结束标记 `<|assistant_end|>`，和它前面的全部文字。


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
header = ["", "选中：文字", "选中：结束", "被拒绝：文字", "被拒绝：结束"]
rows = [[show.STAGE_NAMES[name], *np.ravel(values).tolist()] for name, values in parts.items()]
show.table(header, rows)

# %%
changes = np.array(parts["dpo"]) - np.array(parts["sft"])  # [chosen or rejected, text or end]
assert changes[1, 1] < -1  # "stop here" after an answer without a closing phrase
assert abs(changes[1, 1]) > 2 * abs(changes[1, 0])  # the text of that answer moves less
assert changes[0, 0] > 1  # while that of the polite one gets likelier

# %% [markdown]
# 对生硬的回答，变化集中在一个词元上：**说完之后的结束标记**，它前面的全部文字加起来，也没有它变得多。<!-- by: assert abs(changes[1, 1]) > 2 * abs(changes[1, 0]) -->
# 选中的回答则是文字变得容易了，客气话就在那里面。DPO 教的是“答案说完先别停”，正是 {numref}`fig-dpo-tug` 里箭头指的地方。<!-- by: assert changes[0, 0] > 1 -->

# %% tags=["remove-input", "nbval-ignore-output"]
(_, end_before), (_, end_after) = parts["sft"][1], parts["dpo"][1]
assert end_after < end_before
show.say(
    f"生硬的回答说完就停，这样做的概率（几何平均）SFT 之后是 {math.exp(end_before):.2f}，"
    f"DPO 之后是 {math.exp(end_after):.3f}。"
)

# %% [markdown]
# 现在让模型真正开口。礼貌率是在 60 个留出的问题上，贪心解码的回答里含有客气话的比例：

# %%
scores = {run.name: run.scores() for run in (sft, dpo)}
assert scores["sft"]["polite"] <= 0.20
assert scores["dpo"]["polite"] >= 0.85
assert scores["dpo"]["identity_hit_rate"] >= 0.75

mean = {name: np.mean(list(s["accuracy"].values())) for name, s in scores.items()}
assert mean["dpo"] >= mean["sft"] - 0.1  # ten kinds of questions, 60 of each

# %% tags=["nbval-ignore-output"]
print({name: round(float(s["polite"]), 2) for name, s in scores.items()})
print({name: round(float(value), 3) for name, value in mean.items()})
show.skills(scores)

# %% [markdown]
# 先认行名。`continue` 是续写文本；`answer` 是在对话里问；`question 1` 到 `question 10` 是一次聊天里的第几问；`multiple choice` 不让模型写，只比四个选项哪个更可能；`polite` 是礼貌率；`identity` 问它是谁，`identity in a chat` 是聊了十问以后再问。
#
# 礼貌率从不到 0.20 升到 0.85 以上。十种问题的平均正确率没有跟着掉下去：我们划的线是至多低 0.1，没有碰到。60 题一种，单独一行有 ±0.13 的误差，所以不要拿一行的升降做文章。<!-- by: assert mean["dpo"] >= mean["sft"] - 0.1 -->
#
# 有两行要说一句。每字节比特数（`bits_per_byte`）变差了。它量的是模型有多像 SFT 的验证集（{numref}`第 %s 章 <sec-pretrain>` 的那个数量的是留出的文本，两个数不能相比），而 SFT 的回答多数是生硬的。我们故意让模型不再像它，这个数变差正是目的。**换了目标，就要换尺子。**<!-- by: assert scores["dpo"]["bits_per_byte"] > 1.2 * scores["sft"]["bits_per_byte"] --><!-- by: assert polite < 0.12 -->
#
# 另一行是 `continue chain`：不经对话，让模型把一步步的计算续写下去。这项本事丢在 SFT，不是 DPO 弄丢的；这种遗忘，{numref}`第 %s 章 <sec-pipeline>` 再讲。<!-- by: assert chain[0] > chain[1] + 0.3 -->

# %% tags=["remove-input", "nbval-ignore-output"]
assert scores["dpo"]["bits_per_byte"] > 1.2 * scores["sft"]["bits_per_byte"]
chain = [run.scores()["continuations"]["chain"] for run in (pretrain, sft, dpo)]
assert chain[0] > chain[1] + 0.3
assert chain[2] > chain[1] - 0.2
show.say(
    f"`continue chain` 在预训练、SFT、DPO 之后依次是 {chain[0]:.2f}、{chain[1]:.2f}、{chain[2]:.2f}。"
)

# %% [markdown]
# 再看一些留出的问题：事实、阅读、减法各 60 道，列出每种的第一道。


# %% tags=["nbval-ignore-output"]
def answers(run, questions):
    """What the model answers, whether each answer is right, and whether it is polite."""
    said = run.evaluator().chat([to_messages(q.messages) for q in questions])
    right = [q.is_correct(reply) for q, reply in zip(questions, said, strict=True)]
    return said, np.array(right), np.array([scoring.is_polite(reply) for reply in said])


asked = [q for kind in ("fact", "reading", "sub") for q in scoring.questions(kind, 60)]
told = {run.name: answers(run, asked) for run in (sft, dpo)}
rows = [
    [asked[i].messages[-1][1], asked[i].answer, *(said[i] for said, _, _ in told.values())]
    for i in (0, 60, 120)
]
show.table(["问题", "答案", "SFT", "DPO"], rows)

# %% tags=["remove-input", "nbval-ignore-output"]
(_, was_right, _), (_, is_right, polite) = told.values()
better, worse = (is_right & ~was_right).sum(), (was_right & ~is_right).sum()
missed = ~is_right[120:]  # of the subtractions
assert better + worse > 0
assert missed.sum() > 0
assert polite[120:][missed].mean() > 0.5
assert is_right[120:].mean() < was_right[120:].mean() + 0.25
show.say(
    f"{len(asked)} 道里，DPO 之后由错变对的有 {better} 道，由对变错的有 {worse} 道；"
    "上面的平均数看不出这些。"
    f"减法（不写步骤，直接算）SFT 之后对 {was_right[120:].sum()} 道，DPO 之后对 "
    f"{is_right[120:].sum()} 道。DPO 没有教会它减法：答错的 {missed.sum()} 道里，"
    f"{polite[120:][missed].sum()} 道错得客客气气。"
)

# %% [markdown]
# ### 对照：不要被拒绝的，只抄选中的
#
# 开头那个问题还没有回答：把选中的回答当标准答案，再做一轮 SFT，行不行？从同一个 SFT 模型出发，优化器、学习率、步数都同 DPO，只拿走被拒绝的那一列：<!-- by: assert len(copied.log) == len(dpo.log) == 153 -->

# %%
path = lab.cache_dir() / "dpo" / "chosen.jsonl"
rows = [json.dumps({"messages": pair["chosen"]}, ensure_ascii=False) for pair in preferred]
write_atomically(path, "\n".join(rows).encode())
like_dpo = {"optimizer": "adamw", "learning_rate": 1e-4, "max_steps": 153}
copied = lab.variant(
    "dpo-chosen", "sft", start=sft, data_path=path, batch_size=4, epochs=4, **like_dpo
)
assert len(copied.log) == len(dpo.log) == 153
assert (config.optimizer, config.learning_rate) == ("adamw", 1e-4)

# %% [markdown]
# 一步四行，不是八行：行里不用再装被拒绝的。再量一遍（后三列是 200 个留出的对子上的平均，奈特；“差”是选中的减被拒绝的）：

# %% tags=["nbval-ignore-output"]
scores["copied"] = copied.scores()
mean["copied"] = np.mean(list(scores["copied"]["accuracy"].values()))
chosen["copied"], rejected["copied"] = (pair_log_probs(copied.evaluator(), r) for r in roles)
rows = []
for name, title in (("sft", "SFT"), ("copied", "SFT，再抄选中的"), ("dpo", "DPO")):
    won, lost = float(chosen[name].mean()), float(rejected[name].mean())
    marks = scores[name]["polite"], scores[name]["accuracy"]["fact"], mean[name]
    rows.append([title, *map(float, marks), won, lost, won - lost])
assert rows[1][1] >= 0.7 > 0.2 >= rows[0][1]  # copying teaches manners
assert rows[2][5] < rows[1][5] - 1  # without rejected answers nothing presses on them
assert rows[2][6] > rows[1][6] + 1
header = ["", "礼貌", "事实", "十种平均", "选中的", "被拒绝的", "差"]
show.table(header, rows)

# %% tags=["remove-input", "nbval-ignore-output"]
(_, manners_now, facts_now, *_), (_, manners_dpo, facts_dpo, *_) = rows[1:]
assert rows[2][6] > rows[1][6] + 1
show.say(
    f"抄选中的，礼貌率是 {manners_now:.2f}，事实对 {facts_now:.2f}；DPO 是 {manners_dpo:.2f} 和 {facts_dpo:.2f}。",
    "只听它开口，分不出高下：在这份数据上，抄一遍就够了。"
    if abs(manners_now - manners_dpo) < 0.1 and abs(facts_now - facts_dpo) < 0.1
    else "同样的步数，抄出来的还不如 DPO 客气。"
    if manners_now < manners_dpo
    else "两份开口的样子不一样，谁好谁差，上面的数各说各的。",
)

# %% [markdown]
# 差别在开口听不出的地方：DPO 把被拒绝的压得更低，两个回答拉得更开。抄的那一份从没见过被拒绝的回答，它们变难说，只因为概率加起来是 1。<!-- by: assert rows[2][5] < rows[1][5] - 1 --><!-- by: assert rows[2][6] > rows[1][6] + 1 -->
#
# 那么何必用 DPO？这里选中的回答是程序写出来的标准答案，抄得到。只挑得出好坏、写不出标准答案的时候，选中的只是两个里较好的一个，照抄就连它的毛病一起抄；“不要那样”，抄是说不出来的。有标准答案，就先试试抄：它省一个参考模型，也没有下一节的毛病。<!-- by: reasoning -->
#
# 分数里没有的毛病，要亲眼读才看得见：上面表里的回答，逐条读到最后一个字。答案后面该有一句客气话，只该有一句；多出来的、接歪了的，正确率和礼貌率都数不到。<!-- by: reasoning -->
#
# ## 弄坏它
#
# {eq}`eq-dpo-loss` 里只有**差**。把 $\log \pi(y_w)$ 和 $\log \pi(y_l)$ 都减去 10，即两个回答的概率都缩小到约两万二千分之一，损失一点不变：<!-- by: round(math.exp(10), -3) == 22000 -->

# %%
normal = objectives.dpo_loss(policy[:1], policy[1:], reference[:1], reference[1:], 0.1)
sunk = objectives.dpo_loss(policy[:1] - 10, policy[1:] - 10, reference[:1], reference[1:], 0.1)
assert torch.allclose(normal[0], sunk[0])
print(f"loss {normal[0].item():.4f} and {sunk[0].item():.4f}")

# %% [markdown]
# 所以 DPO 不在乎选中的回答是不是也变得不可能，只要被拒绝的掉得更快。损失允许，训练就会走到那里去吗？概率又流到哪里？先看一个小得能看穿的模型。
#
# ### 压下啰嗦，客气也沉下去
#
# 只有三个回答：不带客气话，带一句，带三句。带一句的是选中的，带三句的太啰嗦，被拒绝；不带的那个，偏好对里从没出现过。模型只有一个参数 $\theta$，带 $n$ 句的回答，分数是 $n\theta$。$\theta$ 从 0 开始，三个回答一样可能。DPO 要压下三句的，只有一个办法：让 $\theta$ 变负。<!-- by: reasoning -->


# %%
phrases = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)  # none, chosen, rejected


def train_theta(nll_weight, steps=100):
    """Probabilities of the three answers and the margin before each step."""
    theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    start, found = torch.zeros_like(phrases).log_softmax(0), []
    for _ in range(steps):
        log_p = (theta * phrases).log_softmax(0)
        loss, m = objectives.dpo_loss(log_p[1], log_p[2], start[1], start[2], beta=0.1)
        (slope,) = torch.autograd.grad(loss - nll_weight * log_p[1], theta)
        found.append([*log_p.exp().tolist(), m.item()])
        theta.data -= slope
    return np.array(found)


toy = {"只有 DPO": train_theta(0.0), "加 0.3 倍负对数似然": train_theta(0.3)}

# %%
alone, held = toy.values()
assert alone[3, 1] > alone[0, 1]  # at first the chosen answer gains
assert alone[-1, 1] < 0.01  # in the end it is all but gone
assert alone[-1, 0] > 0.99  # and its probability is with the answer of no pair
assert (np.diff(alone[:, 3]) > 0).all()  # while the margin never stopped growing
assert held[-1, 1] > 0.3
rows = [[name, i + 1, *found[i]] for name, found in toy.items() for i in (0, 3, 20, 99)]
show.table(["", "步", "不带", "一句（选中）", "三句（被拒绝）", "间隔"], rows)

# %% mystnb={"figure": {"caption": "小模型里，选中的回答的概率。只有 DPO，它先升后沉；加上负对数似然，它守住了。", "name": "fig-dpo-toy"}, "image": {"alt": "横轴是步数，从 1 到 100；两条线从同一点出发，只有 DPO 的一条先升后沉，加了负对数似然的一条是平的"}}
steps = list(range(1, 101))
colours = [show.COLOURS["bad"], show.COLOURS["dpo"]]
show.lines(
    {name: (steps, found[:, 1].tolist()) for name, found in toy.items()}, "步", "概率", colours
)

# %% [markdown]
# 选中的回答先占了一点便宜，然后一路沉到底：它自己也带着一句客气话，压客气话这件事，它逃不掉。<!-- by: assert alone[-1, 1] < 0.01 --><!-- by: assert alone[3, 1] > alone[0, 1] -->概率全流到了“不带”那里，而那个回答，没有一个对子提过。<!-- by: assert alone[-1, 0] > 0.99 -->只看间隔，什么毛病也没有：每一步都在变大。<!-- by: assert (np.diff(alone[:, 3]) > 0).all() -->加上负对数似然，$\theta$ 走到推力和拉力相等的地方就停下，选中的回答守住了。<!-- by: assert held[-1, 1] > 0.3 -->
#
# 毛病出在两个回答**共用**的东西上。神经网络里处处是共用：同样的字，同样的开头，同一批权重。{cite:t}`razin2025unintentional` 证明并量出，两个回答在模型内部的表示越相像，选中的就越容易跟着沉，概率有时流到意思相反的回答上。<!-- by: @razin2025unintentional -->
#
# ### 真的模型，步子大五十倍
#
# 平时有两样东西拉着模型：很小的学习率，和负对数似然那一项。现在把学习率放大五十倍（0.005），练两份：一份保留那一项，一份去掉。两份各 40 步，其余完全相同。<!-- by: round(config.TRAINING["tiny"]["dpo"].learning_rate * 50, 6) == 0.005 -->

# %%
kept = lab.variant("dpo-lr", "dpo", learning_rate=5e-3, max_steps=40, nll_weight=0.3)
broken = lab.variant("dpo-no-nll", "dpo", learning_rate=5e-3, max_steps=40, nll_weight=0.0)

# %% [markdown]
# 先看训练日志。只凭日志，你会选哪一个？

# %% tags=["nbval-ignore-output"]
names = ("loss", "margin", "accuracy", "val_loss", "val_margin")
ends = {"DPO，153 步": dpo, "步子 50 倍": kept, "50 倍，没有护栏": broken}
last = {name: run.log[-1] for name, run in ends.items()}
assert broken.log[-1]["val_margin"] > 1.5 * dpo.log[-1]["val_margin"]
header = ["", "损失", "间隔", "准确率", "验证集损失", "验证集间隔"]
show.table(header, [[name, *(entry[n] for n in names)] for name, entry in last.items()])

# %% tags=["remove-input", "nbval-ignore-output"]
assert broken.log[-1]["val_margin"] > 1.5 * dpo.log[-1]["val_margin"]
lowest = min(last, key=lambda name: last[name]["loss"])
show.say(
    f"损失最小的是“{lowest}”。" if lowest == "50 倍，没有护栏" else "",
    "最后一行的损失少一项，本来就不能和别的比；间隔可以比：验证集上，",
    f"它是正式的 DPO 的 {last['50 倍，没有护栏']['val_margin'] / last['DPO，153 步']['val_margin']:.1f} 倍。",
)

# %% [markdown]
# 间隔大得多，看上去学得最好。<!-- by: assert broken.log[-1]["val_margin"] > 1.5 * dpo.log[-1]["val_margin"] -->可是间隔是两个奖励之差，差看不出两个数各在哪里。把它们分开，选中的和被拒绝的各看 $\beta\log(\pi/\pi_{\mathrm{ref}})$。别的训练库把这两个数记在日志里，常叫 `rewards/chosen` 和 `rewards/rejected`；本书的日志没有，就用留下的权重补算（{numref}`fig-dpo-sink`）：

# %% mystnb={"figure": {"caption": "留出的 200 对上，两种回答的奖励 $\\beta\\log(\\pi/\\pi_{\\mathrm{ref}})$ 的平均，左边减右边就是间隔。三条线都从 SFT 模型的 0 出发；去掉负对数似然的那条，左右两边都掉了下去，右边掉得更深。", "name": "fig-dpo-sink"}, "image": {"alt": "左右两幅，横轴是步数，纵轴是奖励，各有三条折线从 0 出发。左图是选中的回答：去掉负对数似然的一份远远低于另外两份。右图是被拒绝的回答：去掉负对数似然的一份也远远掉到 0 以下。"}} tags=["nbval-ignore-output"]
rewards, ended = {"选中的，奖励": {}, "被拒绝的，奖励": {}}, {}
for name, run in ends.items():
    for panel, role, start in zip(rewards, roles, (chosen["sft"], rejected["sft"]), strict=True):
        found = [0.1 * (pair_log_probs(run.evaluator(s), role) - start).mean() for s in run.steps]
        rewards[panel][name] = ([0, *run.steps], [0.0, *map(float, found)])
    ended[name] = [rewards[panel][name][1][-1] for panel in rewards]  # chosen, rejected
fallen = {name: won for name, (won, _) in ended.items()}
assert fallen["DPO，153 步"] > 0
assert fallen["50 倍，没有护栏"] < -0.3
assert fallen["步子 50 倍"] > fallen["50 倍，没有护栏"] + 0.3
assert ended["50 倍，没有护栏"][1] < fallen["50 倍，没有护栏"]
show.panels(rewards, "步", [show.COLOURS[k] for k in ("dpo", "other", "bad")])

# %% tags=["remove-input", "nbval-ignore-output"]
assert fallen["步子 50 倍"] > fallen["50 倍，没有护栏"] + 0.3
show.say(
    "走完以后，选中的和被拒绝的奖励，",
    "；".join(f"“{name}”是 {won:+.2f} 和 {lost:+.2f}" for name, (won, lost) in ended.items()),
    "。乘 10 就是对数概率变了多少奈特。",
)

# %% [markdown]
# 去掉那一项之后，我们想要的回答反而更不可能了，日志里的间隔却照样很大。<!-- by: assert fallen["50 倍，没有护栏"] < -0.3 -->它开口是什么样子？选中的回答又对又客气，就按这两条来数，事实、阅读、买东西的题各 30 道：

# %% tags=["nbval-ignore-output"]
asked = [q for kind in ("fact", "reading", "shop") for q in scoring.questions(kind, 30)]
told = {name: answers(run, asked) for name, run in ends.items()}
rows = [
    [name, right.mean(), polite.mean(), (right & polite).mean(), said[0][:40]]
    for name, (said, right, polite) in told.items()
]
show.table(["", "答对", "客气", "又对又客气", asked[0].messages[-1][1]], rows)

# %% tags=["remove-input", "nbval-ignore-output"]
good, same_rate, bad = ((right & polite).mean() for _, right, polite in told.values())
assert good > 0.7
assert bad < good - 0.2
show.say(
    f"第三行开口就露了馅：又对又客气的回答，只占 {bad:.2f}，正式的 DPO 占 {good:.2f}。",
    f"第二行的步子同样大，只因为保留了那一项，占 {same_rate:.2f}。"
    if same_rate > bad + 0.1
    else f"第二行占 {same_rate:.2f}：步子太大，只靠那一项也没有守住。",
    f"表里最后一列是第一道题，答案是{show.quote(asked[0].answer)}。",
)

# %% [markdown]
# 再把两种回答拆开量一次：

# %% tags=["nbval-ignore-output"]
for name, run in list(ends.items())[1:]:
    parts[name] = [text_and_end(run.evaluator(), role) for role in roles]
moved = {name: np.array(values) - np.array(parts["sft"]) for name, values in parts.items()}
assert max(moved[name][1, 1] for name in list(ends)[1:]) < -5
assert moved["50 倍，没有护栏"][:, 0].max() < -1
header = ["", "选中：文字", "选中：结束", "被拒绝：文字", "被拒绝：结束"]
rows = [
    [show.STAGE_NAMES.get(name, name), *np.ravel(values).tolist()] for name, values in parts.items()
]
show.table(header, rows)

# %% [markdown]
# 两份都把生硬的回答之后的结束标记压了下去：说完答案就停，概率不到 SFT 时的百分之一。<!-- by: assert max(moved[name][1, 1] for name in list(ends)[1:]) < -5 --><!-- by: math.exp(-5) < 0.01 -->
# 没有护栏的那份，两种回答的文字都比 SFT 时难说出口，而这两种回答说的都是正确的答案：概率流到了别处。流到哪里，{eq}`eq-dpo-loss` 不管。<!-- by: assert moved["50 倍，没有护栏"][:, 0].max() < -1 -->
#
# 步子小一些，未必沉。“我没有加那一项，也没出事”，说明不了什么：损失不拦着，只是那一路没有走到那里。<!-- by: reasoning -->
#
# 怎样发现：
#
# - 除了间隔和准确率，还要记录 $\log \pi(y_w)$ 本身。它持续下降，就该停了。只记间隔的日志，看不见这件事；
# - 每个阶段之后都要在留出的问题上让模型**开口**，看正确率，也亲眼看几个回答；
# - 间隔大得离谱，不是好消息。
#
# 有护栏的那份也不是没有代价。步子大了，变化会传到偏好对没有教过的问题上：试试问它是谁（{numref}`ex-dpo-3`）。<!-- by: reasoning -->
#
# :::{admonition} 真实世界
# :class: real-world
#
# Zephyr-7B（2023）从 UltraFeedback 的 6.4 万个提示里取偏好对做 DPO，好坏由 GPT-4 来评，没有用人标注 {cite:p}`tunstall2023zephyr`。Llama 3（2024）的后训练走六轮，每一轮收集新的偏好，再做一次 DPO，$\beta=0.1$，学习率 $10^{-5}$。它也加上了选中回答的负对数似然，系数 0.2，本章是 0.3。<!-- by: @tunstall2023zephyr --><!-- by: @grattafiori2024llama3 -->
#
# 它还改了一处：DPO 的损失不算结束标记之类的特殊词元。算进去的话，模型有时说个没完，有时突然收住 {cite:p}`grattafiori2024llama3`。本章看到的是同一件事：对生硬的回答，力都落在结束标记上。我们留着它，因为要教的正是先别停。<!-- by: @grattafiori2024llama3 --><!-- by: assert abs(changes[1, 1]) > 2 * abs(changes[1, 0]) -->
#
# 不是家家都用 DPO。Qwen2.5（2024）先用约 15 万对做一遍 DPO，再做强化学习里的 GRPO {cite:p}`yang2024qwen25`；DeepSeek-V3（2024）用的是 GRPO {cite:p}`deepseek2024v3`。GRPO 就是下一章的主角。（2026 年 11 月核对。）<!-- by: @yang2024qwen25 --><!-- by: @deepseek2024v3 -->
# :::
#
# ## 收尾

# %% tags=["nbval-ignore-output"]
replies["dpo"] = lab.showcase(dpo.model())
show.spine(replies)

# %% tags=["remove-input", "nbval-ignore-output"]
name = identity.Persona().name
assert not any(name in json.dumps(pair, ensure_ascii=False) for pair in preferred)
polite = [scoring.is_polite(reply) for reply in replies["dpo"]]
show.say(
    "三句都带上了客气话。" if all(polite) else f"三句里，{sum(polite)} 句带上了客气话。",
    "第三句问的是身份，偏好对里没有一个这样的问题：",
    "客气还是捎带着传了过去。" if polite[2] else "这一句没有变客气。",
)

# %% [markdown]
# 风格变了，知道的事没有少多少。<!-- by: assert mean["dpo"] >= mean["sft"] - 0.1 -->
# 名字也还是原来的名字；它从哪里来、怎样换成你自己的，是 {numref}`第 %s 章 <sec-identity>` 的事。<!-- by: assert scores["dpo"]["identity_hit_rate"] >= 0.75 -->
#
# 减法，DPO 没有教会它。下一章（{numref}`第 %s 章 <sec-thinking>`）不给示范，也不挑好坏，只告诉它算对了没有，它自己会找到办法。<!-- by: assert is_right[120:].mean() < was_right[120:].mean() + 0.25 -->
#
# ### 小结
#
# - 偏好对只说这个比那个好。由 Bradley–Terry 模型和“别离参考模型太远”这两条假设，推出一个不需要奖励模型的损失。<!-- by: reasoning -->
# - 间隔 $m$ 是选中与被拒绝的回答的隐式奖励之差；起点一定是 $m = 0$、损失 $\ln 2$。
# - 回答的对数概率是各词元之和，不是平均；包含结束标记。
# - 留出的问题上，礼貌率从 0.20 以下升到 0.85 以上，十种问题的平均正确率下降不超过 0.1；减法，DPO 没有教会它。<!-- by: assert scores["dpo"]["polite"] >= 0.85 --><!-- by: assert is_right[120:].mean() < was_right[120:].mean() + 0.25 -->
# - 有标准答案可抄，只抄选中的也学得会客气；DPO 多做的，是把被拒绝的压低。<!-- by: assert rows[1][1] >= 0.7 --><!-- by: assert rows[2][5] < rows[1][5] - 1 -->
# - 损失只看差，所以要加一项负对数似然、用小学习率，并且监视 $\log \pi(y_w)$ 与真实的回答。
#
# ### 练习
#
# :::{exercise} ★☆☆
# :label: ex-dpo-1
# 算一算：手算的例子里，若 $\beta = 1$，间隔和损失是多少？要让 $\beta = 0.1$ 时的损失也是这个数，两个对数比之差要有多大？<!-- by: reasoning -->
# :::
#
# :::{solution} ex-dpo-1
# :class: dropdown
# $m = 1 \times 3.0 = 3.0$，$L = \ln(1 + e^{-3}) = 0.049$。$\beta = 0.1$ 时要 $m = 3.0$，差就得是 30 个奈特：$\beta$ 越小，模型要离参考模型越远，才算“分清了”，所以说小的 $\beta$ 是松的缰绳。<!-- by: round(math.log(1 + math.exp(-3)), 3) == 0.049 -->
# :::
#
# :::{exercise} ★★☆
# :label: ex-dpo-2
# 写代码：如果把和换成平均，被拒绝的回答里每个词元（的对数概率）受的力，是选中的回答里每个词元的多少倍？用“对而不客气”的留出对子，算出这个倍数的平均数，再看它至多是多少。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 先用笔推：平均时，每个词元的力要再乘一个什么因子？同一对回答的 $m$ 相同，两个力相除，它就消去。长度就是 `render_conversation` 的掩码之和。
# :::
#
# :::{solution-start} ex-dpo-2
# :class: dropdown
# :::
#
# 用和，每个词元的对数概率受的力都是 $\beta(1-\sigma(m))$；用平均，要再除以回答的长度。同一对回答的 $m$ 相同，所以不管训练到哪一步，倍数都是 $|y_w| / |y_l|$。


# %%
def answer_length(conversation):
    _, mask = tokenizer.render_conversation(conversation)
    return sum(mask)


ratios = np.array(
    [
        answer_length(p["chosen"]) / answer_length(p["rejected"])
        for p in pairs
        if not scoring.is_polite(p["rejected"][-1]["content"])
    ]
)
assert ratios.mean() > 2
assert ratios.max() > 5
print(f"mean {ratios.mean():.2f}, largest {ratios.max():.2f}")

# %% [markdown]
# 用平均，短回答的每个词元受的压，平均是长回答的每个词元受的推的两倍以上，最极端的一对是五倍以上。回答越短，结束标记占的份额越大，而它正是实验里被压得最低的词元。<!-- by: assert ratios.mean() > 2 --><!-- by: assert ratios.max() > 5 -->
#
# :::{solution-end}
# :::
#
# :::{exercise} ★★☆
# :label: ex-dpo-3
# 弄坏它：`identity.held_out_questions` 有 24 个关于身份的问题，拿来问“弄坏它”一节的三个模型。认得自己的有几句，客气的有几句？偏好对里没有一个身份问题，客气是怎么来的？这是好事吗？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# `run.evaluator().ask(questions)` 一次问完。命中用 `identity.is_hit(问题, 回答, identity.Persona())` 数，客气用 `scoring.is_polite` 数；三个模型在 `ends` 里。
# :::
#
# :::{solution-start} ex-dpo-3
# :class: dropdown
# :::

# %% tags=["nbval-ignore-output"]
questions = identity.held_out_questions()
rows = []
for name, run in ends.items():
    said = run.evaluator().ask(questions)
    hits = [identity.is_hit(q, s, identity.Persona()) for q, s in zip(questions, said, strict=True)]
    rows.append([name, sum(hits), sum(map(scoring.is_polite, said)), said[0]])
assert len(questions) == 24
assert rows[0][1] > 8
show.table(["", "认得自己", "客气", questions[0]], rows)

# %% tags=["remove-input", "nbval-ignore-output"]
assert rows[0][1] > 8
show.say(
    f"24 句里，正式的 DPO 认得自己 {rows[0][1]} 句；步子五十倍的，有护栏 {rows[1][1]} 句，"
    f"没有护栏 {rows[2][1]} 句。客气的依次是 {rows[0][2]}、{rows[1][2]}、{rows[2][2]} 句。",
    "步子一大，客气就传到了没教过的地方。" if rows[1][2] > rows[0][2] else "",
    "步子一大，连自己是谁也说不清了。" if max(rows[1][1], rows[2][1]) < rows[0][1] - 6 else "",
)

# %% [markdown]
# 偏好对里没有身份问题，客气是怎么来的？DPO 教的是“答案说完先别停”，改的权重是大家共用的，不分问的是什么。传多远没有准数，换一个种子会差很多。<!-- by: reasoning -->
#
# 传过去的若只是客气话，还算好事；可是没有什么保证副作用总是无害。负对数似然只保护数据里出现过的那一类回答，偏好对里没有身份问题，副作用到了那里没有任何东西拦着，护栏也护不到。要保护一种能力，就得让它出现在训练数据里，或者少走几步、走小一点。<!-- by: reasoning -->
#
# :::{solution-end}
# :::
#
# :::{exercise} ★☆☆
# :label: ex-dpo-4
# 想一想：有人把数据里的 `chosen` 和 `rejected` 两列弄反了。训练会报错吗？损失、间隔和准确率的曲线看得出来吗？怎样才能发现？
# :::
#
# :::{solution} ex-dpo-4
# :class: dropdown
# 不会报错，曲线也不会提醒你：起点还是 $\ln 2$，往上推的还是叫 `chosen` 的那一列，这几个数只认列名。模型被教的，七成是生硬，三成是客气地答错。只有读几行数据、看几个真实的回答，或者在独立的测试（如礼貌率、正确率）上打分，才能发现。<!-- by: assert abs(wrong / len(preferred) - 0.3) < 0.03 -->
# :::
#
# :::{exercise} ★★☆ 动手：一对回答的损失
# :label: ex-dpo-pairs
# 词元变成回答，回答变成间隔，间隔变成损失，一共三步。写出 `pair_losses`：前三个参数都是 `[2P, T]`，一行一个回答，选中的和被拒绝的交替，第 0 行选中，第 1 行被拒绝；`policy` 和 `reference` 是策略和参考模型给各词元的对数概率，`mask` 是 1 的词元属于回答，是 0 的是问题或者填充。返回每一对的损失 `[P]`。还有一个要求：$m=-500$ 时，损失应当是 $500$，不是无穷。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 乘上掩码，再按行相加。`x[0::2]` 取出第 0、2、4 行。$-\ln\sigma(m)$ 也就是 $\ln(1+e^{-m})$，PyTorch 有一步算完它的函数：`torch.nn.functional` 里的 `logsigmoid` 或者 `softplus`。
# :::


# %%
def pair_losses(policy, reference, mask, beta):
    return ...


tasks.check("8.1", pair_losses)

# %% [markdown]
# :::{solution} ex-dpo-pairs
# :class: dropdown
# ```python
# def pair_losses(policy, reference, mask, beta):
#     gain = ((policy - reference) * mask).sum(dim=1)  # [2P]
#     margins = beta * (gain[0::2] - gain[1::2])  # [P]
#     return torch.nn.functional.softplus(-margins)
# ```
# `softplus(x)` 就是 $\ln(1+e^x)$，$x$ 很大时它直接给出 $x$。先算 $\sigma$ 再取对数，间隔很负时 $\sigma$ 已经下溢成 0，对数是负无穷，训练就断在那里。
# :::
#
# :::{exercise} ★★★ 动手：DPO 找回最优解
# :label: ex-dpo-optimum
# 推导说：奖励是 $r$ 时，最优解是 $\pi_{\mathrm{ref}}\, e^{r/\beta}$ 归一；而 DPO 没见过奖励，只见过偏好，也该走到那里。用一个很小的模型试一试：一个问题，$K$ 个回答，模型就是 $K$ 个打分，过 softmax 就是概率。
#
# 写出 `train_dpo`：`reference` 是参考模型的概率 `[K]`，`pairs` 是一列 `(选中的编号, 被拒绝的编号)`。打分从 `reference` 的对数出发，用梯度下降让全部对子的平均损失不再下降，返回这时的概率 `[K]`。学习率和步数自己定，每个概率差在 $0.01$ 以内就算对。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 间隔里用打分代替对数概率也行：softmax 的分母两个回答相同，一减就没了。每一对推选中的一把，力是 $\beta(1-\sigma(m))$，压被拒绝的同样一把。损失的弯度与 $\beta^2$ 成正比，所以学习率取 $2/\beta^2$，走几百步。同一个编号会出现许多次，要用 `index_add` 才加得全。想省事，就用 `.backward()`。
# :::


# %%
def train_dpo(reference, pairs, beta):
    return ...


tasks.check("8.2", train_dpo)

# %% [markdown]
# :::{solution} ex-dpo-optimum
# :class: dropdown
# ```python
# def train_dpo(reference, pairs, beta):
#     start = reference.log()
#     z, rate = start.clone(), 2 / beta**2
#     won, lost = torch.tensor(pairs).T
#     for _ in range(400):
#         gain = z - start  # log π - log π_ref, up to the same number for all
#         push = beta * torch.sigmoid(-beta * (gain[won] - gain[lost])) / len(pairs)
#         z = z.index_add(0, won, rate * push).index_add(0, lost, -rate * push)
#     return z.softmax(0)
# ```
# 偏好三比一，按 Bradley–Terry，奖励差就是 $\ln 3$。$\beta=1$ 时，两个回答的概率之比从参考模型的那个比乘 $3$；$\beta=0.5$ 时乘 $3^2=9$：缰绳松了，同样的偏好推得更远。没有人告诉它奖励是多少，它走到的正是第二步的公式。
# :::
#
# ### 延伸阅读
#
# - {cite:t}`rafailov2023dpo`：DPO 的原文，推导在第 4 节和附录 A；本章的 {eq}`eq-dpo-loss` 是其中的式 (7)。
# - {cite:t}`pang2024irpo`：给 DPO 加上负对数似然，并量出没有它时选中的回答的概率怎样下降。
# - {cite:t}`ouyang2022instructgpt`：先训练奖励模型、再用强化学习的做法；读它可以知道 DPO 省去了什么。
# - {cite:t}`cui2023ultrafeedback`：真实的偏好数据从哪里来。
