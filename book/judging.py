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
# (sec-judging)=
# # 怎样知道它变好了
#
# 前面各章报过很多分数：学习率换一个，分数升了一点；DPO 之后，某一类题掉了一点。哪些是真的，哪些只是运气？第三部分要比较更多的模型，先停下来回答这个问题。
#
# :::{admonition} 这一页
# :class: tip
#
# - **你将学会**：看见一个分数，说出它有多可信；比较两个模型，说出差别是不是运气，要考多少题才看得出来；认出挑出来的高分。
# - **需要时间**：阅读 40 分钟，运行不到 1 分钟。
# - **需要内存**：1 GB。
# - **用到的模块**：`minillm.evaluate`、`minillm.microworld.scoring`。
# :::
#
# 先看图，再列式子。会用到的只有抛硬币。

# %%
import json
import math

from minillm import evaluate
from minillm.book import lab, show
from minillm.book.drawings import judging
from minillm.data.rows import to_messages
from minillm.microworld import scoring

import numpy as np

lab.start()

# %% [markdown]
# ## 考试就是抛硬币
#
# ### 同一个模型，换一张卷子，分数就变
#
# 设想一个模型，随便抽一道题问它，十次里有九次答对。这个 0.9 是它真正的水平，叫**真值**。真值看不见，看得见的只有某一张卷子上的分数。<!-- by: reasoning -->
#
# 出一张三道题的卷子。每道题答对的概率是 0.9，像抛一枚不公正的硬币，三道题就是抛三次：<!-- by: 0.9**3 > 0.7 -->
#
# - 三道都没有错：$0.9^3 = 0.729$；<!-- by: round(0.9**3, 3) == 0.729 -->
# - 对两道：错的可以是第一、第二或第三道，三种情形，$3 \times 0.9^2 \times 0.1 = 0.243$；
# - 对一道：$3 \times 0.9 \times 0.1^2 = 0.027$；
# - 一道也不对：$0.1^3 = 0.001$。<!-- by: round(0.1**3, 3) == 0.001 -->
#
# 同一个模型，有七成多的机会得满分，有两成多的机会只得 0.67。模型没有变，变的是卷子。<!-- by: round(3 * 0.9**2 * 0.1, 3) == 0.243 --><!-- by: round(2 / 3, 2) == 0.67 -->
#
# 本书的卷子每类 60 题。道理一样，只是情形多，请代码把每一种的概率算出来：


# %%
def chance(k, n, truth):
    """The probability of k right answers to n questions."""
    return math.comb(n, k) * truth**k * (1 - truth) ** (n - k)


assert [round(chance(k, 3, 0.9), 3) for k in (3, 2, 1, 0)] == [0.729, 0.243, 0.027, 0.001]
usual = sum(chance(k, 60, 0.9) for k in range(50, 59))
assert 0.94 < usual < 0.96
print(f"50 to 58 right: {usual:.2f}")

# %% tags=["nbval-ignore-output"] mystnb={"figure": {"caption": "真值 0.9 的模型考 60 题。柱子是得这个分的概率；蓝色的合起来占 95%，橙红的是少见的好运气和坏运气。", "name": "fig-judging-exam"}, "image": {"alt": "柱状图，横轴是 60 题里对几题，柱子在 54 附近隆起，像一口钟；中间的柱子是蓝色，两头的是橙红色"}}
judging.exam_scores(0.9, 60)

# %% [markdown]
# 在{numref}`fig-judging-exam`里，答对 54 题只是平均的结果；50 到 58 题都平常，也就是 0.83 到 0.97。所以模型甲考 0.85，模型乙考 0.95，甲和乙可能一样好。<!-- by: round(50 / 60, 2) == 0.83 --><!-- by: round(58 / 60, 2) == 0.97 --><!-- by: assert 0.94 < usual < 0.96 -->
#
# 这口钟有多宽，有一个数来说：**标准差**（standard deviation），分数平常离平均多远。先算方差，离平均的距离的平方的平均：一道题对是 1，错是 0，平均是 $p$，所以方差是 $p(1-p)^2 + (1-p)p^2 = p(1-p)$。$n$ 道题取平均，好运气和坏运气互相抵消，方差除以 $n$。再开方，就是分数的标准差：
#
# $$\sigma = \sqrt{\frac{p(1-p)}{n}}$$
#
# 代入 $p = 0.9$、$n = 60$：$\sqrt{0.09/60} = 0.039$。钟形的分布里，95% 的时候离平均不超过 1.96 个标准差，这里是 0.076：从 0.824 到 0.976，正是图里那一段蓝色。<!-- by: round(math.sqrt(0.09 / 60), 3) == 0.039 --><!-- by: round(1.96 * math.sqrt(0.09 / 60), 3) == 0.076 --><!-- by: round(0.9 - 1.96 * math.sqrt(0.09 / 60), 3) == 0.824 --><!-- by: round(0.9 + 1.96 * math.sqrt(0.09 / 60), 3) == 0.976 -->
#
# ### 倒过来问：看到 54 题，真值可能是多少
#
# 上面从真值猜分数。真正的问题是反的：分数知道，60 题对 54 题；真值不知道。
#
# 办法是逐个试。假设真值是 0.75，画出它的那口钟：54 题远在右边，答对这么多要极好的运气，所以 0.75 说不通。假设真值是 0.85：54 题在平常的范围里，说得通。一个一个试过去，说得通的真值连成一段，这一段就是**置信区间**（confidence interval）。<!-- by: reasoning -->

# %% tags=["nbval-ignore-output"] mystnb={"figure": {"caption": "60 题对 54 题，六个真值各画一口钟。粗线是这个真值平常会得的分，左右各 1.96 个标准差。虚线落在粗线里的，是蓝色，说得通；落在外面的，是灰色，说不通。", "name": "fig-judging-truths"}, "image": {"alt": "六行小柱状图，从下往上真值是 0.75 到 0.97，越往上越靠右；一条竖的虚线在 54 题处。中间四行是蓝色，最下和最上两行是灰色"}}
judging.possible_truths(54, 60, [0.75, 0.80, 0.85, 0.90, 0.95, 0.97])

# %% [markdown]
# 看{numref}`fig-judging-truths`的两头。0.80 的粗线右端只比 54 多一点，0.95 的粗线左端只比 54 少一点：再往外，就说不通了。真值试得再密一些，就得到区间的两个端点：<!-- by: assert (possible[0], possible[-1]) == (0.799, 0.953) -->


# %%
def makes_sense(truth, correct, n, z=1.96):
    """Whether the score lies within z standard deviations of the truth."""
    return abs(correct / n - truth) <= z * math.sqrt(truth * (1 - truth) / n)


grid = [i / 1000 for i in range(1001)]
possible = [truth for truth in grid if makes_sense(truth, 54, 60)]
assert (possible[0], possible[-1]) == (0.799, 0.953)
assert len(possible) == 953 - 799 + 1
possible[0], possible[-1]

# %% [markdown]
# 60 题对 54 题，说得通的真值从 0.80 到 0.95。区间不对称：往下伸 0.10，往上只伸 0.05，因为越靠近 1，钟越窄。<!-- by: assert (possible[0], possible[-1]) == (0.799, 0.953) -->
#
# ### 同一件事，写成一个式子
#
# 不必逐个试。“说得通”是一个不等式，$|\hat p - p| \le z\sqrt{p(1-p)/n}$，其中 $\hat p$ 是看到的分数，$p$ 是真值，$z = 1.96$。两边平方，得到 $p$ 的一个二次不等式，它的两个根就是区间的两头。这是 {cite:t}`wilson1927` 的办法，叫**威尔逊区间**，{numref}`第 %s 章 <sec-sft>`的图里画过：
#
# ```{math}
# :label: eq-pipeline-wilson
# \frac{\hat p + \dfrac{z^2}{2n} \;\pm\; z\sqrt{\dfrac{\hat p(1-\hat p)}{n} + \dfrac{z^2}{4n^2}}}{1 + \dfrac{z^2}{n}}
# ```
#
# 代入 54/60，$z^2 = 3.8416$：分子的中间是 $0.9 + 3.8416/120 = 0.9320$，根号里是 $0.0015 + 0.000267 = 0.001767$，根号乘 1.96 得 0.0824，分母是 1.0640。区间是 $(0.9320 \pm 0.0824)/1.0640$，即 **0.799 到 0.953**，和逐个试出来的一样。
#
# 60/60：中间是 $1.0320$，根号里是 $0.000267$，乘 1.96 得 0.0320。区间是 $(1.0320 \pm 0.0320)/1.0640$，即 **0.940 到 1.000**。满分也只能说，真值大概不低于 0.94。

# %%
assert np.allclose(evaluate.wilson_interval(54, 60), (0.799, 0.953), atol=0.001)
assert np.allclose(evaluate.wilson_interval(60, 60), (0.940, 1.000), atol=0.001)
[round(x, 3) for x in evaluate.wilson_interval(54, 60)]

# %% [markdown]
# ### 省一步，就会说大话
#
# 课本上还有一个更短的式子：$\hat p \pm z\sqrt{\hat p(1-\hat p)/n}$。它跳过“逐个试真值”这一步，用看到的 $\hat p$ 当作真值去算钟的宽度。54/60 时，它给 0.824 到 0.976，也还像样。60/60 时就荒唐了：$\hat p(1-\hat p)=0$，区间是 1.00 到 1.00，60 道题就断定模型永远不错。<!-- by: assert naive_interval(60, 60) == (1.0, 1.0) --><!-- by: assert np.allclose(naive_interval(54, 60), (0.824, 0.976), atol=0.001) -->
#
# 两个区间都自称 95%，意思是：反复考试，100 次里约有 95 次套得住真值。这可以检验，不用模拟：真值取定，每一种得分的概率前面算过，把区间套得住的那些加起来。


# %%
def naive_interval(correct, n, z=1.96):
    p = correct / n
    half = z * math.sqrt(p * (1 - p) / n)
    return p - half, p + half


def coverage(interval, truth, n=60):
    inside = [k for k in range(n + 1) if interval(k, n)[0] <= truth <= interval(k, n)[1]]
    return sum(chance(k, n, truth) for k in inside)


assert np.allclose(naive_interval(54, 60), (0.824, 0.976), atol=0.001)
assert naive_interval(60, 60) == (1.0, 1.0)
intervals, truths = (naive_interval, evaluate.wilson_interval), (0.5, 0.8, 0.9, 0.98)
rows = [[truth, *(coverage(each, truth) for each in intervals)] for truth in truths]
assert rows[-1][1] < 0.75
assert min(row[2] for row in rows) > 0.92
show.table(["真值", "短式子套得住", "威尔逊区间套得住"], rows)

# %% [markdown]
# 真值 0.98 时，号称 95% 的短式子只有 0.70 的概率套得住；威尔逊区间一直在 0.92 以上。本书的分数常常靠近 0 或 1，所以都用它。<!-- by: assert min(row[2] for row in rows) > 0.92 -->
#
# ### 题数变成四倍，区间才窄一半
#
# 要窄，就多出题。标准差里的 $n$ 在根号下，所以 60 题变成 240 题，宽度只减一半。<!-- by: math.isclose(math.sqrt(0.09 / 240), math.sqrt(0.09 / 60) / 2) -->

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"figure": {"caption": "正确率为 0.9 时，威尔逊区间（{eq}`eq-pipeline-wilson`）随题数变窄。横轴每往右一格，题数乘 2。", "name": "fig-pipeline-width"}, "image": {"alt": "两条曲线形成一个漏斗：题越多，区间的上限和下限靠得越近"}}
numbers = [15, 30, 60, 120, 240, 480, 960, 1920]
bounds = [evaluate.wilson_interval(0.9 * n, n) for n in numbers]
show.lines(
    {"上限": (numbers, [b[1] for b in bounds]), "下限": (numbers, [b[0] for b in bounds])},
    "题数",
    "95% 的区间",
    [show.COLOURS["pretrain"]] * 2,
    log_x=True,
    marker="o",
)

# %% [markdown]
# 给 DPO 模型的五个分数配上区间。两个分数写出来都是两位小数，题数不同，分量就不同：

# %% tags=["nbval-ignore-output"]
final = lab.ladder("dpo").scores()
asked = {
    "事实": (final["accuracy"]["fact"], 60),
    "直接算加法": (final["accuracy"]["add"], 60),
    "礼貌": (final["polite"], 60),
    "名字": (final["identity_hit_rate"], 24),
    "偏好对": (final["dpo"]["accuracy"], 15),
}
rows = []
for name, (share, n) in asked.items():
    rows.append([name, n, round(share * n), share, *evaluate.wilson_interval(share * n, n)])
show.table(["考什么", "题数", "答对", "正确率", "下限", "上限"], rows)

# %% tags=["remove-input", "nbval-ignore-output"]
width = {row[0]: row[5] - row[4] for row in rows}
assert max(width.values()) <= 0.5
show.say(
    f"事实有 60 题，对 {rows[0][2]} 题，区间宽 {width['事实']:.2f}。"
    f"偏好对只有 15 对留出的数据，选对 {rows[-1][2]} 对，区间宽 {width['偏好对']:.2f}，"
    f"下限是 {rows[-1][4]:.2f}。"
)

# %% [markdown]
# ## 两口钟：差别看得出来吗
#
# ### 差一点，就要很多题
#
# 一个分数会晃，两个分数的差也会晃。甲真正的正确率是 0.85，乙是 0.90，真的差 0.05。考 60 题，看得出来吗？
#
# 画两口钟（{numref}`fig-judging-bells`）。灰的：假如两个模型其实一样好，量到的差会是多少，它围着 0。蓝的：乙其实好 0.05，量到的差围着 0.05。一次考试，只从其中一口钟里抽到一个数，我们要猜它是从哪一口里抽的。
#
# 约定一条线：量到的差比 0 高出 1.96 个标准差，才算看得出。一样好的时候，越过这条线的机会只有百分之二点五，所以不常冤枉人。乙真的好的时候，越过线的机会，是蓝钟在线右边的那一块，叫**功效**（power）。<!-- by: round(0.5 * math.erfc(1.96 / math.sqrt(2)), 3) == 0.025 -->

# %% tags=["nbval-ignore-output"] mystnb={"figure": {"caption": "真正的差是 0.05。灰钟：其实一样好；蓝钟：其实好 0.05；虚线：看得出的界限；涂色的一块：看得出的机会。上：60 题，两口钟叠在一起。下：337 题，两口钟窄了，分得开。", "name": "fig-judging-bells"}, "image": {"alt": "上下两幅，各有一灰一蓝两条钟形曲线和一条竖的虚线。上面的钟宽，蓝钟只有右边一小块在虚线右侧；下面的钟窄，蓝钟的大半在虚线右侧"}}
deviations = {f"{n} 题": math.sqrt(0.1075 / n) for n in (60, 337)}
judging.two_bells(0.05, deviations)

# %% [markdown]
# 60 题时两口钟几乎叠在一起，真的好 0.05，也只有两成的机会看得出来。看不出来，不等于没有差别。题多了，钟窄了，337 题才有八成的机会。<!-- by: assert 0.15 < power[numbers.index(60)][0] < 0.25 --><!-- by: assert abs(detected(337)[0] - 0.8) < 0.03 -->
#
# 337 是怎样来的？要蓝钟有八成在线的右边，它的中心就得在线右边 0.84 个标准差处：钟形分布里，从比平均低 0.84 个标准差的地方往右数，正好是八成。线在 1.96 个标准差处，所以真正的差 $d$ 要等于 $1.96 + 0.84 = 2.8$ 个标准差。图里一道题的方差是 0.1075（下一节算它），于是 $d = 2.8\sqrt{0.1075/n}$，解出 $n = 2.8^2 \times 0.1075/0.05^2 = 337$。<!-- by: math.floor(2.8**2 * 0.1075 / 0.05**2) == 337 --><!-- by: round(0.5 * math.erfc(0.84 / math.sqrt(2)), 1) == 0.2 -->
#
# ### 考同样的题，省一半的题
#
# 两个模型各考各的题，两张卷子的运气都算在差里。一道题的方差是 $p(1-p)$，相减的时候方差相加：$0.85 \times 0.15 + 0.9 \times 0.1 = 0.2175$。
#
# 考**同样的题**，卷子难就一起难，运气抵消掉一部分。这叫**配对比较**（paired comparison）。两个都对、两个都错的题，说不出谁好；只有一个对的题才说得出。假设只有甲对的题占 0.03，只有乙对的占 0.08，差还是 0.05。一道题的差是 $+1$、$-1$ 或 0，平方的平均是 $0.03 + 0.08$，减去平均的平方，方差是 $0.03 + 0.08 - 0.05^2 = 0.1075$，约是 0.2175 的一半。要的题也就少一半：各考各的，$2.8^2 \times 0.2175/0.05^2 = 682$。<!-- by: math.floor(2.8**2 * 0.2175 / 0.05**2) == 682 --><!-- by: round(0.1075 / 0.2175, 1) == 0.5 -->
#
# 这里面用了近似（两口钟画得一样宽，题少时也不真是钟形），所以再模拟一遍：按上面的份额造 4,000 次考试，数一数有多少次看得出。60 题的那个数会和{numref}`fig-judging-bells`上的略有出入。<!-- by: reasoning -->

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

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"figure": {"caption": "真值 0.85 与 0.90 的两个模型，考多少题能看出差别。纵轴是 4,000 次模拟里看出差别的份额；虚线从 80% 的高度垂下来，标出要多少题。", "name": "fig-pipeline-power"}, "image": {"alt": "两条随题数上升的曲线：考同样的题的一条在上，各考各的题的一条在下；横的点线在 80% 处，两条竖的虚线落在横轴上，写着 337 题和 682 题"}}
same, different = zip(*power, strict=True)
judging.power_curves(
    numbers,
    {"考同样的题": same, "各考各的题": different},
    {"考同样的题": 337, "各考各的题": 682},
)

# %% [markdown]
# 在{numref}`fig-pipeline-power`上找八成的高度：考同样的题，337 题就到；各考各的，要 682 题。<!-- by: assert abs(detected(337)[0] - 0.8) < 0.03 --><!-- by: assert abs(detected(682)[1] - 0.8) < 0.03 -->60 题时，即使配对，也只有约五分之一的机会看出 5 个百分点的差别。所以看本书的成绩，差两三个百分点不说明什么，差出二三十个百分点才说明问题。<!-- by: assert 0.15 < power[numbers.index(60)][0] < 0.25 -->
#
# ### 真的比一次：DPO 教会了加法吗
#
# SFT 和 DPO 做同样 60 道留出的加法，直接写得数。DPO 教的是客气，不是加法，分数却常常不一样。先看是哪些题不一样：


# %% tags=["nbval-ignore-output"] mystnb={"figure": {"caption": "60 道留出的加法，一格一题。灰格：两个模型的回答都是对的；空格：都不对；有颜色的：只有一个是对的。比较两个模型，只有有颜色的格子说得上话。", "name": "fig-judging-same"}, "image": {"alt": "四行十五列的格子，有灰的，有空的，有绿色（只有 SFT 对）或橙色（只有 DPO 对）；下面写着四种格子各有多少"}}
def marks(stage, kind):
    """Which of the 60 held-out questions of a kind a stage answers rightly."""
    questions = scoring.questions(kind, 60)
    replies = lab.ladder(stage).evaluator().chat([to_messages(q.messages) for q in questions])
    return np.array([q.is_correct(r) for q, r in zip(questions, replies, strict=True)])


sft, dpo = marks("sft", "add"), marks("dpo", "add")
judging.same_questions(sft, dpo, ("SFT", "DPO"), (show.COLOURS["sft"], show.COLOURS["dpo"]))

# %% [markdown]
# 只有 SFT 对的有 $b$ 道，只有 DPO 对的有 $c$ 道。假如两个模型一样好，一道不一致的题偏向谁，就像抛一枚公正的硬币，一次是 $+1$ 或 $-1$。抛了 $b + c$ 次，$c - b$ 平均是 0，标准差是 $\sqrt{b+c}$。所以看
#
# $$z = \frac{c - b}{\sqrt{b + c}}$$
#
# 它说差出了几个标准差。$|z|$ 超过 1.96，纯靠运气只有 5% 的机会。例如 $b = 3$、$c = 12$：$z = 9/\sqrt{15} = 2.32$，过了线。<!-- by: round(9 / math.sqrt(15), 2) == 2.32 -->
#
# 不一致的题很少时，$z$ 不准，可以老老实实地数：抛 $b + c$ 次硬币，至少这么一边倒的概率是多少？这个概率习惯上记作 $p$（和前面当真值用的 $p$ 不是一回事），怎样算留作练习。

# %% tags=["remove-input", "nbval-ignore-output"]
only_sft, only_dpo = int((sft & ~dpo).sum()), int((dpo & ~sft).sum())
odd = only_sft + only_dpo
z = (only_dpo - only_sft) / math.sqrt(max(odd, 1))
tail = sum(math.comb(odd, k) for k in range(min(only_sft, only_dpo) + 1))
p_value = min(1.0, 2 * tail / 2**odd)
shown = f"= {p_value:.3f}" if p_value >= 0.001 else "< 0.001"
assert only_dpo - only_sft == int(dpo.sum()) - int(sft.sum())
gained = f"多对 {only_dpo - only_sft} 题" if only_dpo >= only_sft else "少对几题"
show.say(
    f"这次运行里，不一致的有 {odd} 题：只有 SFT 对的 {only_sft} 题，只有 DPO 对的 {only_dpo} 题。",
    f"DPO {gained}，$z$ 是 {z:.2f}，{'过了线' if abs(z) > 1.96 else '没有过线'}；"
    f"精确地数，$p$ {shown}，{'也' if (p_value < 0.05) == (abs(z) > 1.96) else '却'}"
    f"{'过了' if p_value < 0.05 else '没有过'} 0.05 的线。",
)

# %% [markdown]
# (sec-pipeline-seeds)=
# ## 换一个种子，分数变多少
#
# 到这里为止，只有一种运气：题是抽出来的。还有另一种：训练出来的**模型**也是抽签抽到的。初始的权重、行的次序都由种子决定，种子不同，就是另一个模型；处理器不同，每次舍入差一点点，一千多步之后也是另一个模型。这一份运气有多大，只有多训练几次才知道。
#
# `python benchmarks/seeds.py` 把五个阶段各走完几遍，记进 `book/results/seeds.json`。各遍考的是**同样的** 60 题，所以分数不同，全是训练的运气。它算大还是小？拿抽题的运气作尺子：另抽 60 道，分数的标准差是 $\sqrt{p(1-p)/60}$。<!-- by: book/results/seeds.json -->

# %% mystnb={"figure": {"caption": "SFT 之后的分数。点：同一份配方，每训练一次一个点。灰带：点的平均左右各 1.96 个抽题的标准差。点若挤在灰带中间，训练的运气小于抽题的运气；点若散到灰带的边上或外面，训练的运气就不小。", "name": "fig-judging-luck"}, "image": {"alt": "四行，每行一条灰带和几个蓝点，从上往下是事实、数着算、直接算加法、读故事；各行的点散开的程度不一样"}} tags=["nbval-ignore-output"]
study = json.loads(lab.RESULTS.read_bytes())
kinds = {"事实": "fact", "数着算": "chain", "直接算加法": "add", "读故事": "reading"}
luck, rows = {}, []
for name, kind in kinds.items():
    found = study["scores"]["sft"][f"answer {kind}"]
    by_questions = math.sqrt(found["mean"] * (1 - found["mean"]) / 60)
    luck[name] = found["values"], by_questions
    rows.append([name, found["mean"], found["std"], by_questions])
judging.training_luck(luck)

# %%
show.table(["SFT 之后", "平均", "各次训练的标准差", "抽题的标准差"], rows)

# %% tags=["remove-input"]
wide = [row[0] for row in rows if row[2] > row[3]]
narrow = [row[0] for row in rows if row[2] <= row[3]]
assert len(wide) + len(narrow) == 4
show.say(
    f"一共训练了 {len(study['runs'])} 次。",
    f"训练的运气不比抽题的大的，有{'、'.join(narrow)}。" if narrow else "",
    f"更大的，有{'、'.join(wide)}：这样的题，只训练一次、只报一个数，真正的误差比那一个区间宽得多。"
    if wide
    else "四类题里，没有一类的训练的运气更大。",
)

# %% [markdown]
# 全部的分数都在下面。每格是各遍的平均，小字从最低的到最高的；预训练以后的问答最能碰运气，因为那时它还没有学过回答，碰巧续写成回答的样子就算对。你的某一格落在小字之外，不奇怪；一大片都在外面，才要查。<!-- by: reasoning -->

# %%
spread = lab.seeds()
names = [name for name in spread["sft"] if name != "val_loss"] + ["DPO accuracy"]
show.spread(spread, dict(zip(names, names, strict=True)))

# %% [markdown]
# 所以本书凡是下结论，都先问过所有这些运行；只在一次运行里看到的，由代码写进句子里，说的是你正在看的这一次。<!-- by: reasoning -->
#
# ## 挑最好的那次，分数就虚高
#
# 还有一种错误不需要作弊：训练 20 个版本，每个考同样大小的一份卷子，报分数排在第一的那个。假设 20 个版本其实一样好，真值都是 0.80，每次考 60 题：

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
    {"单次": papers[:, 0], "20 次里的第一名": best},
    "60 题的分数（真值都是 0.80）",
    "重复的次数",
    [show.COLOURS["pretrain"], show.COLOURS["bad"]],
    bins=list(np.arange(0.575, 1.01, 1 / 60)),
)

# %% [markdown]
# 版本都一样好，最高分平均却是 0.89，高出 9 个百分点。<!-- by: assert 0.87 < best.mean() < 0.92 -->20 次里总有一次运气好，挑最高分，就是专门去挑运气。挑**检查点**（checkpoint）、挑种子、挑提示词，都会这样。
#
# 补救很简单：用一份卷子挑，用另一份没用过的卷子报。上面的 `again` 就是胜者的第二次考试，它回到 0.80。在微世界里换一份卷子只要换种子：`scoring.questions(kind, 60, seed=1)`。<!-- by: assert abs(fresh.mean() - 0.80) < 0.005 -->
#
# :::{admonition} 真实世界
# :class: real-world
#
# - **题太少**。AIME 2024 只有 30 题，一题 3.3 分。答对 24 题，威尔逊区间是 0.63 到 0.90。<!-- by: round(100 / 30, 1) == 3.3 --><!-- by: round((24 / 30 + 1.96**2 / 60 - 1.96 * math.sqrt(0.16 / 30 + 1.96**2 / 3600)) / (1 + 1.96**2 / 30), 2) == 0.63 --><!-- by: round((24 / 30 + 1.96**2 / 60 + 1.96 * math.sqrt(0.16 / 30 + 1.96**2 / 3600)) / (1 + 1.96**2 / 30), 2) == 0.90 -->
# - **挑最好的那次**。{cite:t}`singh2025leaderboard` 查出，Llama 4 发布之前，Meta 在排行榜 Chatbot Arena 上私下测过 27 个版本，不好看的分数可以不公布。<!-- by: @singh2025leaderboard -->
#
# {cite:t}`miller2024errorbars` 的建议与这一页相近：每个分数都附上标准误，比较两个模型就一题一题配对。（2026 年 11 月核对。）<!-- by: @miller2024errorbars -->
# :::
#
# ## 一个可以引用的分数
#
# 一个模型会不会某件事，怎样写成一句站得住的话？以事实题为例：

# %% tags=["nbval-ignore-output"]
share = final["accuracy"]["fact"]
low, high = evaluate.wilson_interval(share * 60, 60)
show.say(
    f"训练里没有问过的事实，60 题对 {share * 60:.0f} 题，95% 的区间是 {low:.2f} 到 {high:.2f}。"
)

# %% [markdown]
# 它说了考的是什么、训练是否见过、对几题、一共几题、区间多宽；要是拿它下结论，还要说训练了几次。
#
# ### 小结
#
# - 分数是抽出来的：60 题的误差约有 ±0.1。真值说得通的一段，就是置信区间；靠近 0 和 1 时用威尔逊区间。<!-- by: assert (possible[0], possible[-1]) == (0.799, 0.953) -->
# - 看不出差别，常常只是题太少：真的好 0.05，60 题只有约五分之一的机会看出来。<!-- by: assert 0.15 < power[numbers.index(60)][0] < 0.25 -->
# - 比较两个模型，考同样的题，只看不一致的题，题数省一半。<!-- by: round(0.1075 / 0.2175, 1) == 0.5 -->
# - 训练的运气是另一份误差，要多训练几次才量得到。<!-- by: reasoning -->
# - 挑出来的最高分，换一份卷子就掉回去。<!-- by: assert abs(fresh.mean() - 0.80) < 0.005 -->
#
# 下一章（{numref}`第 %s 章 <sec-pipeline>`）把全部步骤合成一条命令，再读它打印的成绩单：那里的每个分数各考的是什么，又在什么时候会骗人。
#
# ### 练习
#
# :::{exercise} ★☆☆
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
# :::{exercise} ★★☆
# :label: ex-pipeline-2
# 写一写：不一致的题很少时，$z$ 不准。写一个精确的检验：如果两个模型一样好，$b+c$ 道不一致的题里，每一道偏向谁都是抛硬币。“只有甲对”的 3 道、“只有乙对”的 12 道，至少这么悬殊的概率是多少？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 抛 15 次硬币，恰好 $k$ 次正面的概率是 `math.comb(15, k) / 2**15`。“至少这么悬殊”包括更悬殊的，也包括偏向另一边的。
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
# :::{exercise} ★☆☆
# :label: ex-judging-bells
# 想一想：有人说，两个模型各考 60 题，$|z|$ 没有过 1.96，所以“两个模型一样好”。错在哪里？看着{numref}`fig-judging-bells`的上一幅说。
# :::
#
# :::{solution} ex-judging-bells
# :class: dropdown
# 没有过线，只说明抽到的数在虚线左边。灰钟的大半在左边，蓝钟的大半也在左边：一样好会这样，真的好 0.05 也会这样，这次考试分不清是哪一口钟。所以结论只能是没有看出差别，再附上差的区间：它有多宽，就还有多大的差别藏得住。<!-- by: assert 0.15 < power[numbers.index(60)][0] < 0.25 -->
# :::
