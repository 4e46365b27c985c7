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
# (sec-scaling)=
# # 缩放定律：先预言，再验证
#
# :::{admonition} 本章
# :class: tip
#
# - **你将学会**：数清一次训练的计算量，看出输出矩阵占了多少；从一架小模型的梯子拟合一条缩放定律；给没做过的训练写下带区间的预言，再拿结果对照；算出数据本身的不确定有多大。
# - **需要时间**：阅读 40 分钟，运行约 1 分钟。梯子是事先训练好的，结果在 `book/results/scaling.json`。
# - **需要内存**：1 GB。
# - **用到的模块**：`minillm.book.laws`、`minillm.microworld.entropy`。
# :::

# %%
import json
import math
from collections import defaultdict

from minillm import ModelConfig, Transformer
from minillm.book import lab, laws, show, tasks
from minillm.book.drawings import scale
from minillm.config import MODELS
from minillm.microworld import entropy, words
from minillm.microworld.documents import documents

import numpy as np

lab.start()

# %% [markdown]
# ## 开场
#
# 你有一台两核的电脑和一个小时。该训练多大的模型？大的学得多，可是慢，一个小时里读不了多少字；小的读得多，可是装不下。有十个小时呢？模型放大，还是让它多读，还是两样各放一点？
#
# 试一遍再说，一个小时就花完了。更好的办法是先训练几个小的，找出规律，再推到大的。这条规律叫**缩放定律**（scaling law）：损失随模型大小和数据多少怎样下降。
#
# 规律对不对，要看它能不能预言没见过的事。所以这一章按这个次序做：训练一架“梯子”，即三级计算量，一级比一级高，每一级上有大小不同的几个小模型；拟合；写下预言和它的区间，提交到版本库；然后才训练要预言的那个模型。预言不准，也照样写在这里。
#
# 文字是{numref}`第 %s 章 <sec-poems>`的古诗，分词器是内置的，6,400 个词元。梯子由 `python benchmarks/scaling.py` 训练，要先下载古诗。没有下载也能读这一章：结果都存在 `book/results/scaling.json` 里，下面的计算都从那里开始。

# %%
study = json.loads((lab.RESULTS.parent / "scaling.json").read_bytes())
runs = study["runs"]
ladder = laws.ladder_runs(runs)
groups = laws.budgets(runs)
test, written = study["outcome"], study["prediction"]
for run in [*ladder, test]:
    run["total"] = laws.count_parameters(run, "total")
print(f"{len(ladder)} runs, {sum(run['seconds'] for run in ladder) / 60:.0f} core-minutes")
print(study["machine"])
show.table(
    ["宽度", "层数", "参数", "词元", "步数", "损失（奈特/词元）"],
    [
        [
            *(f"{r[name]:,}" for name in ("hidden", "layers", "total", "tokens", "steps")),
            f"{r['val_loss']:.3f}",
        ]
        for r in groups[-1]
    ],
)

# %% tags=["remove-input"]
top = groups[-1]
best = min(top, key=lambda run: run["val_loss"])
assert len({run["total"] for run in top}) == len(top)
place = {top[0]["total"]: "最小的那个", top[-1]["total"]: "最大的那个"}.get(
    best["total"], "不大不小的那个"
)
show.say(
    f"上表是梯子最高的一级：{len(top)} 次训练，花的计算一样多，模型越大，读的词元越少。"
    f"损失最低的是{place}，{best['total']:,} 个参数，{best['val_loss']:.3f}。"
)

# %% [markdown]
# ## 手算
#
# ### 一次训练要多少计算
#
# {numref}`第 %s 章 <sec-scale>` 算过：每个参数、每个词元，前向乘一次加一次，反向再加 4 次，共 6 次运算。$N$ 个参数读 $D$ 个词元，就是 $C = 6ND$。
#
# 哪些参数算在 $N$ 里？对大模型这不要紧，对小模型要紧。看一个宽 64、两层的模型：嵌入表有 $6400 \times 64 = 409600$ 个数；两层的注意力和前馈网络，连同归一化，一共只有 92,480 个。表占了 $409600 / 502080 = 82\%$。（上表里宽 64 的那个有 504,128 个：它的前馈网络窄一点，键和值多一组，份额差不多。）<!-- by: round(409600 / 504128, 2) == 0.81 -->
#
# 这张表用两次。输入时查表，取出一行，什么也不乘。输出时它是输出矩阵，每个位置都要和全部 6,400 行相乘，$2 \times 409600$ 次运算，一次不少。两处用的是同一张表（{numref}`第 %s 章 <sec-model>`），所以参数只存一份，计算也只算一次。
#
# 读 100 万个词元，要 $6 \times 502080 \times 10^6 = 3.0 \times 10^{12}$ 次运算，其中 82% 花在输出矩阵上。默认模型宽 512、八层，同样的表只占 $3276800 / 25829888 = 13\%$。


# %%
def sizes(config):
    """Parameters of a model: in its table, and in all."""
    return config.vocab_size * config.hidden_size, Transformer(config).num_parameters()


narrow = ModelConfig(
    hidden_size=64,
    intermediate_size=176,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
)
(table, total), (default_table, default_total) = sizes(narrow), sizes(ModelConfig())
assert (table, total - table, total) == (409_600, 92_480, 502_080)
assert (default_table, default_total) == (3_276_800, 25_829_888)
assert (round(table / total, 2), round(default_table / default_total, 2)) == (0.82, 0.13)
assert round(6 * total * 1e6 / 1e12, 1) == 3.0
[f"{share:.0%}" for share in (table / total, default_table / default_total)]

# %% [markdown]
# ### 一样多的计算，怎样分最好
#
# 假设损失是三部分之和：
#
# ```{math}
# :label: eq-scaling-law
# L(N, D) = E + \frac{A}{N^{\alpha}} + \frac{B}{D^{\beta}}
# ```
#
# $E$ 是再大的模型、再多的数据也去不掉的，叫**不可约损失**（irreducible loss）：文字本身就不能完全猜中。第二项是模型不够大的代价，第三项是读得不够多的代价。这是 {cite:t}`hoffmann2022chinchilla` 的写法。
#
# 取一组好算的数：$E=3$，$A=600$，$B=1200$，$\alpha=\beta=0.5$，计算量 $6ND = 2.4 \times 10^{13}$。
#
# - $N = 10^6$ 时 $D = 4 \times 10^6$，$L = 3 + 600/1000 + 1200/2000 = 4.2$。
# - $N = 4 \times 10^6$ 时 $D = 10^6$，$L = 3 + 0.3 + 1.2 = 4.5$：模型太大，读得太少。
# - $N = 2.5 \times 10^5$ 时 $D = 1.6 \times 10^7$，$L = 3 + 1.2 + 0.3 = 4.5$：正好反过来。
#
# 最好的地方，多一点模型的好处正好抵上少一点数据的坏处。这一句能写成等式。把 $N$ 放大一点点，比例是 $\varepsilon$，第二项就缩小 $\alpha\varepsilon$ 那么大的比例：放大 1%，指数是 0.5，就缩小约 0.5%。所以省下 $\varepsilon \cdot \alpha A/N^{\alpha}$。计算量不变，$D$ 要缩小同样的比例，第三项因此多付 $\varepsilon \cdot \beta B/D^{\beta}$。省的比付的多，就接着放大；付的比省的多，就缩小；两边一样多，才到了碗底：<!-- by: round(1 - 1.01 ** -0.5, 3) == 0.005 -->
#
# $$\frac{\alpha A}{N^{\alpha}} = \frac{\beta B}{D^{\beta}}$$
#
# 这里两个指数相等，两项也相等，都是 0.6。
#
# 计算量变成 100 倍呢？两个指数相等时，$N$ 和 $D$ 各变成 10 倍，两项都从 0.6 变成 $0.6/\sqrt{10} = 0.19$，损失是 $3 + 0.19 + 0.19 = 3.38$。
#
# 再变成 100 倍，两项各是 0.06，损失 3.12；再 100 倍，3.04。每一次花的钱是前一次的一百倍，降得却越来越少：4.2、3.38、3.12、3.04，都在往 3 靠，永远到不了。把 $E$ 减掉，剩下的 1.2、0.379、0.12、0.038 倒是每次都除以同一个数，$\sqrt{10}$。减去 $E$ 以后，在双对数的图（横轴、纵轴都取对数）上是一条直线；不减，就是一条渐渐放平的曲线。记住这两个样子，后面要用。<!-- by: 1.2 / 10 == 0.12 --><!-- by: round(3 + 0.12, 2) == 3.12 --><!-- by: 0.12 / 2 == 0.06 --><!-- by: round(1.2 / 10**0.5, 3) == 0.379 --><!-- by: round(0.12 / 10**0.5, 3) == 0.038 --><!-- by: round(3 + 0.12 / 10**0.5, 2) == 3.04 -->
#
# 指数不等时，上面的等式说 $N^{\alpha}$ 与 $D^{\beta}$ 成正比。$D$ 就是 $C/6N$，代进去，$N^{\alpha+\beta}$ 与 $C^{\beta}$ 成正比，所以 $N$ 按计算量的 $\beta / (\alpha + \beta)$ 次方增长。$\alpha$ 大，是说模型不够大的代价掉得快，稍微放大就补上了，多出来的计算就该多给数据。<!-- by: reasoning -->

# %%
toy = laws.Law(E=3, A=600, B=1200, alpha=0.5, beta=0.5)
by_hand = [toy.loss(n, 2.4e13 / (6 * n)) for n in (1e6, 4e6, 2.5e5)]
assert np.allclose(by_hand, [4.2, 4.5, 4.5])
assert np.allclose(toy.optimum(2.4e13), (1e6, 4e6))
assert np.allclose(toy.optimum(2.4e15), (1e7, 4e7))
more = toy.loss(1e7, 4e7)
assert (round(0.6 / 10**0.5, 2), round(more, 2)) == (0.19, 3.38)
by_hand, more

# %% [markdown]
# ### 一段文字里有多少比特
#
# 古诗的 $E$ 只能拟合出来，没有人知道真值。微世界的文字是程序写的，程序做了哪些选择，数得清。
#
# 拿问候来数。48 个人里抽两个，有次序：$48 \times 47 = 2256$ 种。11 句招呼里选一句，15 句结尾里选一句：$2256 \times 11 \times 15 = 372240$ 种，都同样可能，要 $\log_2 372240 = 18.5$ 比特才说得清是哪一种。预训练的文字里问候占 0.02，说明“这是一段问候”还要 $\log_2 (1/0.02) = 5.6$ 比特。共 24.1 比特。
#
# 一个模型就算背下了整个微世界，平均也要付出这么多：它猜不到程序抽的签。这就是这种文字的**熵**（entropy）{cite:p}`shannon1948`，也就是它的 $E$。

# %%
ways = 48 * 47 * len(words.CHATS) * len(words.ABOUT)
assert (len(words.PEOPLE), ways) == (48, 372_240)
bits = math.log2(ways) + math.log2(1 / 0.02)
assert [round(x, 1) for x in (math.log2(ways), math.log2(1 / 0.02), bits)] == [18.5, 5.6, 24.1]
greeting = next(d for d in entropy.measured_documents(200) if d.kind == "greeting")
assert round(greeting.bits, 1) == 24.1
print(greeting.text, round(greeting.bits, 1))

# %% [markdown]
# ## 真实代码
#
# 定律是一个小小的类，损失是一行：

# %%
show.source(laws.Law.loss, laws.Law.optimum)

# %% [markdown]
# 五个未知数怎样求？原来的做法是从许多起点出发，用优化器找。{cite:t}`besiroglu2024replication` 重做时发现，那个优化器停得太早，公布的常数不是最好的，算出来的区间也窄得不可能。<!-- by: @besiroglu2024replication -->
#
# 有一条不会停早的路。指数 $\alpha$、$\beta$ 定下来以后，{eq}`eq-scaling-law` 对 $E$、$A$、$B$ 是线性的。使误差的平方和降到底的那三个数，解一次线性方程就得到（最小二乘），不用从哪里出发慢慢找。所以把两个指数的每一种组合都试一遍：

# %% tags=["hide-input"]
show.source(laws._solve)

# %% [markdown]
# `columns` 是 `[G, P, 3]`：$G$ 种指数组合，$P$ 次训练，三列是 $1$、$N^{-\alpha}$、$D^{-\beta}$。三个系数都不许是负的；哪个要变负，就让它等于 0。`losses` 是 `[R, P]`：一次可以拟合 $R$ 架梯子，下面的区间要用。
#
# 预言和区间：

# %%
show.source(laws.predict)

# %% [markdown]
# 区间是 90% 的：这样写下的十个预言，平均该有九个套得住结果。它要容得下两种不确定。<!-- by: minillm/book/laws.py -->
#
# 一是定律本身。量到的损失减去定律说的，叫残差，它是梯子的运气。从这些残差里随机地抽，加到定律说的损失上，就得到一架运气不同的梯子；这样重新拟合许多遍，看预言散得多开。
#
# 二是那一次训练：就算定律没有错，单独一次训练也不会正好落在定律上。差多少，有两个办法估。一是看梯子上的点平均离定律多远，这是近处的错。二是考它一次：只用较小的两个预算拟合，去预言最大的预算，看错多少，这是往外推三倍的错。两个里取大的。真要推的是十倍，只会更不准；区间不知道这一点。<!-- by: reasoning -->
#
# 这些规则在看到结果之前就定下来，写在函数的说明里。看到结果再挑规则，总能挑到一条“预言对了”的。
#
# 数微世界的熵，办法是记下程序的每一次选择。概率为 $p$ 的选择要 $-\log_2 p$ 比特。有的选择在文字里看不出来：抽了一个人名，这一句却没有用到。所以还要把每一次选择换一换，其余照旧，文字不变的，合起来算一种：

# %%
show.source(entropy._same)

# %% [markdown]
# ## 实验
#
# ### 每个预算都有一个最好的大小
#
# 三个计算预算，每个预算训练几种大小。每一次训练都走完自己的学习率表，只看最后的损失。横轴是参数，一个预算的点连成一个碗，太小太大都吃亏，碗底就是这个预算该训练的大小。看图时留意两处：最小的预算，碗几乎没有左壁，碗底靠抛物线猜；最大的预算，最低的那一点在曲线下面。所以碗底的位置只能当作大概：<!-- by: book/results/scaling.json -->

# %%
names = [f"{round(laws.compute(group[0]) / 1e12)} 万亿次运算" for group in groups]
curves = {}
for name, group in zip(names, groups, strict=True):
    x = np.log([run["total"] for run in group])
    bend = np.polyfit(x, [run["val_loss"] for run in group], 2)
    grid = np.linspace(x[0], x[-1], 50)
    curves[name] = np.exp(grid).tolist(), np.polyval(bend, grid).tolist()

# %% tags=["hide-input"] mystnb={"figure": {"caption": "三个计算预算下的最终损失。每个点是一次走完的训练；曲线是对数参数的抛物线。", "name": "fig-scaling-bowls"}, "image": {"alt": "三组点，横轴是参数（对数），纵轴是留出的古诗上的损失；每组点上有一条抛物线，计算预算越大，整条曲线越低"}}
dots = {
    name: ([run["total"] for run in group], [run["val_loss"] for run in group])
    for name, group in zip(names, groups, strict=True)
}
show.points(dots, "参数（嵌入表算一次）", "损失（奈特/词元）", curves)

# %% tags=["remove-input"]
lowest = [min(run["val_loss"] for run in group) for group in groups]
valleys = [laws.valley(group) for group in groups]
assert lowest == sorted(lowest, reverse=True)
assert valleys == sorted(valleys)
show.say(
    "碗底依次在 " + "、".join(f"{n / 1e4:.0f}" for n, _ in valleys) + " 万参数，",
    "每个参数读了 " + "、".join(f"{d / n:.1f}" for n, d in valleys) + " 个词元。",
    "计算多了，模型和数据都要长。",
)

# %% [markdown]
# ### 三种数法，三个指数
#
# 碗底随计算量怎样移动？在双对数的图上拟合一条直线，斜率就是 $N \propto C^{a}$ 里的 $a$。只是 $N$ 有三种数法：
#
# - 只数各层，不数嵌入表，这是 {cite:t}`kaplan2020scaling` 的数法；
# - 全部都数，表算一次，这正是每个词元要乘的数；
# - 表算两次，好像输入和输出各有一张。
#
# $C$ 也用各自的 $N$ 算，$C = 6ND$，因为写论文的人手里只有自己的数法。表里的碗底以百万参数计。

# %%
labels = {"blocks": "只数各层", "total": "全部，表算一次", "untied": "表算两次"}
slopes, rows = {}, []
for count, label in labels.items():
    n, d = np.array([laws.valley(group, count) for group in groups]).T
    slopes[count] = float(np.polyfit(np.log(6 * n * d), np.log(n), 1)[0])
    rows.append([label, *(f"{x / 1e6:.2f}" for x in n), f"{slopes[count]:.2f}"])
show.table(["数法", *(f"碗底，{name}" for name in names), "指数 a"], rows)

# %% tags=["remove-input"]
assert slopes["blocks"] > slopes["total"] + 0.05 > slopes["untied"]
show.say(
    f"同样的训练，三个指数：{slopes['blocks']:.2f}、{slopes['total']:.2f}、{slopes['untied']:.2f}。",
    f"计算量变成 100 倍，只数各层的人说模型该变成 {100 ** slopes['blocks']:.0f} 倍，"
    f"全部都数的人说 {100 ** slopes['total']:.0f} 倍。",
    "小模型的表占得多，越大占得越少，所以不数表的人看见模型长得更快。",
)

# %% [markdown]
# 这不是小模型才有的怪事。{cite:t}`kaplan2020scaling` 得出 $N \propto C^{0.73}$，说该把计算大部分花在更大的模型上；{cite:t}`hoffmann2022chinchilla` 得出约 0.5，说模型和数据该一起长。{cite:t}`pearce2024reconciling` 和 {cite:t}`porian2024resolving` 后来查出了差别从哪里来：不数嵌入和输出层，又只训练小模型，是主要的原因之一。<!-- by: @pearce2024reconciling --><!-- by: @porian2024resolving -->
#
# 本书以“全部，表算一次”为准：只有这样数，$6ND$ 才是真正的计算量。三个碗底定出的斜率也只能当作大概。
#
# 再拟合整条定律 {eq}`eq-scaling-law`。表里“由此 a”是 $\beta/(\alpha+\beta)$，最后一列是梯子上的点离定律平均多远：

# %%
found = {count: laws.fit_law(runs, count) for count in laws.COUNTS}
law = found["total"]
show.table(
    ["数法", "E", "α", "β", "由此 a", "梯子离定律"],
    [
        [
            labels[count],
            *(f"{x:.2f}" for x in (one.E, one.alpha, one.beta, one.growth)),
            f"{one.spread:.1%}",
        ]
        for count, one in found.items()
    ],
)

# %% tags=["remove-input"]
assert not law.at_bound
gap = abs(law.growth - slopes["total"])
show.say(
    f"定律离梯子只有 {law.spread:.1%}，可是由它的两个指数算出的 $a$ 是 {law.growth:.2f}，"
    f"碗底给出的是 {slopes['total']:.2f}。",
    "同样的点，两种办法，差得不小：五个未知数可以互相迁就，梯子上的损失说得准，指数说不准。"
    if gap > 0.05
    else "两种办法差不多。",
)

# %% [markdown]
# ### 学习率不能照搬
#
# 梯子上的模型大小不同，能不能都用同一个学习率？要试：三种宽度，每种五个学习率，步数和批大小相同。

# %%
swept = defaultdict(dict)
for run in runs:
    if run["kind"] == "rate":
        swept[run["hidden"]][run["learning_rate"]] = run["val_loss"]
rates = sorted({rate for losses in swept.values() for rate in losses})
show.table(
    ["宽度", *(f"{rate:g}" for rate in rates)],
    [[h, *(f"{losses[r]:.3f}" for r in rates)] for h, losses in sorted(swept.items())],
)

# %% tags=["remove-input"]
favourite = {h: min(losses, key=losses.get) for h, losses in sorted(swept.items())}
narrowest, widest = min(swept), max(swept)
lost = swept[widest][favourite[narrowest]] - min(swept[widest].values())
assert favourite[narrowest] > favourite[widest]
show.say(
    "各自最好的学习率：" + "，".join(f"宽 {h} 是 {rate:g}" for h, rate in favourite.items()) + "。",
    f"把宽 {narrowest} 的最好的照搬到宽 {widest}，损失多 {lost:.3f}。",
)

# %% [markdown]
# Muon 的每一步已经按矩阵的大小缩放（{numref}`第 %s 章 <sec-pretrain>`），嵌入表归 AdamW，没有缩放，宽的模型要小一些的学习率，也许就是这个缘故。<!-- by: minillm/training/optimizers.py --> 梯子上的学习率由更早的一次同样的试验定下（数据略有不同，上表是在梯子之后重做的）：按宽度的 $-2/3$ 次方取，宽 192 时是 0.005。<!-- by: assert abs(run["learning_rate"] / rule - 1) < 0.04 -->
#
# 运气有多大？最低的一级，每个模型用两个种子各训练一次：

# %%
for run in ladder:
    rule = 0.005 * (192 / run["hidden"]) ** (2 / 3)
    assert abs(run["learning_rate"] / rule - 1) < 0.04
twice = defaultdict(list)
for run in groups[0]:
    twice[run["hidden"]].append(run["val_loss"])
apart = {h: abs(a - b) / (a + b) * 2 for h, (a, b) in sorted(twice.items())}
chance = math.sqrt(sum(share**2 for share in apart.values()) / 2 / len(apart))
print({h: f"{share:.2%}" for h, share in apart.items()}, f"standard deviation {chance:.2%}")

# %% tags=["remove-input"]
assert law.spread > chance
show.say(
    f"换一个种子，损失的标准差是 {chance:.2%}。梯子离定律是 {law.spread:.2%}，",
    "大出许多：主要不是运气，是定律本身只是近似。" if law.spread > 2 * chance else "只大一点。",
)

# %% [markdown]
# ### 预言，然后才是结果
#
# 先看成绩单：用较小的两个预算拟合，预言最大的预算。

# %%
errors = laws.held_out_errors(runs)
print("relative errors on the largest budget:", [f"{error:+.1%}" for error in errors])

# %% tags=["remove-input"]
above = sum(error > 0 for error in errors)
assert 0 <= above <= len(errors)
show.say(
    f"{len(errors)} 个里有 {above} 个是正的：定律说的损失比真的高。"
    if 2 * above > len(errors)
    else f"{len(errors)} 个里有 {len(errors) - above} 个是负的：定律说的损失比真的低。",
    f"最大的错 {max(map(abs, errors)):.1%}。记住这个方向，再看下面的预言。",
)

# %% [markdown]
# 再写预言。要预言的是{numref}`第 %s 章 <sec-poems>`的模型，宽 192、六层，训练 2,000 步。它的计算量比梯子的最高一级大了一个数量级。<!-- by: assert 8 < laws.compute(test) / laws.compute(groups[-1][0]) < 12 --> 预言在提交 de5ff6f 里，结果在它之后的提交里，`git show de5ff6f:book/results/scaling.json` 看得到前者。（这样的模型，作者在做梯子以前试过一次，数据略有不同，只量了每字比特数；定规则的时候没有用到它。）<!-- by: book/results/scaling.json --> 下面先读出提交到版本库里的预言，再用同样的梯子重算一遍，两者必须一样：

# %%
mean, low, high = (written[name] for name in ("val_loss", "low", "high"))
size = laws.count_parameters(written, "total")
again = laws.predict(runs, size, written["tokens"])
assert np.allclose(again, [mean, low, high], atol=2e-3)
assert (size, test["steps"]) == (sizes(MODELS["small"])[1], 2_000)
assert 8 < laws.compute(test) / laws.compute(groups[-1][0]) < 12
print(f"{laws.compute(test) / laws.compute(groups[-1][0]):.1f} times the largest budget")
print(f"{size:,} parameters, {written['tokens']:,} tokens:")
print(f"{mean:.3f}, from {low:.3f} to {high:.3f}")

# %% tags=["hide-input"] mystnb={"figure": {"caption": "最终损失对计算量。蓝点是梯子，三个预算各一列；虚线是拟合的定律，在每个计算量上配最合适的大小。橙色的横杠是预言，竖线是它的 90% 区间：那个模型不是最合适的大小，所以横杠在虚线上方。绿点是后来的结果。", "name": "fig-scaling-forecast"}, "image": {"alt": "横轴是计算量（对数），纵轴是损失：左边是梯子的点，一条向下弯的虚线穿过它们伸到右边；右边有一根竖线是预言的区间，旁边一个点是真正训练的结果"}}
budget = np.geomspace(laws.compute(groups[0][0]), 2 * laws.compute(test), 40).tolist()
frontier = [law.loss(*law.optimum(c)) for c in budget]
ladder_points = [(laws.compute(run), run["val_loss"]) for run in ladder]
bar = (laws.compute(test), mean, low, high)
scale.forecast(ladder_points, (budget, frontier), bar, test["val_loss"])

# %% tags=["remove-input"]
outcome = test["val_loss"]
held = low <= outcome <= high
assert held or outcome < low or outcome > high
verdict = "预言对了：结果落在区间里" if held else "预言错了：结果落在区间外"
show.say(
    f"预言是 {mean:.3f}，区间从 {low:.3f} 到 {high:.3f}。结果是 {outcome:.3f}，"
    f"比预言{'高' if outcome > mean else '低'} {abs(outcome / mean - 1):.1%}。**{verdict}。**",
)

# %% [markdown]
# ### 错在哪里
#
# 下面都是看到结果以后才想的，不算预言。<!-- by: assert not held -->
#
# 90% 的区间，十次里本来就允许错一次。但这一次错得有原因，不能都算在运气上。<!-- by: assert not held -->
#
# 定律假定损失降得渐渐慢下来，最后停在 $E$；{numref}`fig-scaling-forecast` 里的虚线往右渐渐变平，就是 $E$ 在下面托着。梯子里看得出它慢下来吗？看三个碗底的损失：<!-- by: reasoning -->

# %%
assert not held
bottoms = [min(losses) for _, losses in curves.values()]
costs = [laws.compute(group[0]) for group in groups]
slope, start = np.polyfit(np.log(costs), np.log(bottoms), 1)
straight = math.exp(start + slope * math.log(laws.compute(test)))
known = [*ladder, test | {"kind": "ladder"}]
learned = laws.fit_law(known)
print("bottoms:", [round(x, 3) for x in bottoms], "drops:", np.round(-np.diff(bottoms), 3).tolist())
print(f"a straight line in logarithms, without E: {straight:.3f}")
print(f"E fitted to the ladder: {law.E:.2f}; with the outcome: {learned.E:.2f}")

# %% tags=["hide-input"] mystnb={"figure": {"caption": "同样三个碗底，两种往外推的办法，纵轴也是对数刻度。没有 $E$ 的幂律是直线；定律渐渐放平，点线是它要停下的地方。绿点是后来的结果。", "name": "fig-scaling-futures"}, "image": {"alt": "左边是三个碗底，两条虚线穿过它们；往右，定律的那条渐渐放平，趋向一条水平的点线，直线一直往下；结果的点在曲线下面，挨着直线"}}
far = np.geomspace(costs[0], 100 * laws.compute(test), 60)
bent = [law.loss(*law.optimum(c)) for c in far]
ruled = np.exp(start + slope * np.log(far)).tolist()
two = {"定律，有 E": (far.tolist(), bent), "直线，没有 E": (far.tolist(), ruled)}
found_later = (laws.compute(test), outcome)
scale.two_futures(list(zip(costs, bottoms, strict=True)), two, found_later, law.E)

# %% tags=["remove-input"]
drops = -np.diff(bottoms)
assert abs(drops[0] / drops[1] - 1) < 0.1
assert abs(straight - outcome) < abs(mean - outcome)
show.say(
    f"计算量每变成三倍，碗底降 {drops[0]:.2f}，再降 {drops[1]:.2f}：没有变慢。",
    f"定律却要一个 {law.E:.2f} 的 $E$，才配得上同一级里大小模型的差别，于是以为快到底了。",
    f"最朴素的办法，双对数图上画一条直线，说 {straight:.2f}，反而近得多。",
    f"把结果当作梯子的第 {len(known)} 次训练放进去，$E$ 就从 {law.E:.2f} 掉到 {learned.E:.2f}。",
)

# %% [markdown]
# 两种样子在梯子上几乎分不开，{numref}`fig-scaling-futures` 里，两条虚线在碗底那一段叠在一起；推到十倍，差出一截；再推一百倍，差得更远。近处的点决定不了远处走哪一条。<!-- by: assert abs(straight - outcome) < abs(mean - outcome) -->
#
# 那么直线是更好的规则吗？不能这样说：同一个结果，不能既用来挑规则，又用来夸规则。直线迟早也要错：它一路降到 0，好像文字可以完全猜中。要知道，得再做一次没做过的训练。错的原因也未必只有 $E$：被预言的模型每步读的行比梯子上的多，没有对照，不知道这占多少。<!-- by: reasoning -->
#
# 留下的教训有三条。一，成绩单上五个误差都在同一边，都是定律说高了：那就是警报，区间却把它当作左右对称的运气；结果果然错在这一边，而且更远，比预言低 5.5%。二，五个未知数，三个预算，近处拟合得好不等于远处说得准。三，写下来的预言才会错；没有写下来的，事后总是对的。<!-- by: reasoning -->
#
# ### 默认模型会怎样
#
# 没有人在古诗上训练过默认模型（{numref}`第 %s 章 <sec-default>`用的是另一种文字）。现在有了一个远处的点，就用上它：19 次训练一起拟合，设默认模型读 1,000 万个词元，每个只读一遍。

# %%
big = laws.predict(known, 25_829_888, 10_000_000)
n_term, d_term = learned.A / 25_829_888**learned.alpha, learned.B / 10_000_000**learned.beta
assert len(known) == 19
print(f"{big[0]:.2f}, from {big[1]:.2f} to {big[2]:.2f}; of it {learned.E:.2f} is E")
print(f"too few parameters: {n_term:.2f}; too few tokens: {d_term:.2f}")

# %% tags=["remove-input"]
assert d_term > 2 * n_term
show.say(
    f"定律说 {big[0]:.2f}，区间从 {big[1]:.2f} 到 {big[2]:.2f}，宽得很：刚刚错过的，算进了区间。",
    f"缺的是数据，不是参数：词元太少的代价是 {d_term:.2f}，参数太少的只有 {n_term:.2f}。",
    f"小得多的模型读 {test['tokens'] / 1e4:.0f} 万个词元，已经到了 {outcome:.2f}。",
)

# %% [markdown]
# ### 26M、100M、1B 各要多少计算
#
# 这里只算 $6ND$，没有算注意力那一项，所以比{numref}`第 %s 章 <sec-scale>`的账少：26M 少一成多，模型越宽，少得越少。<!-- by: round(25165824 / 180145152, 2) == 0.14 -->
#
# 要先知道配多少词元。一种办法是把碗底的直线推到那么远；另一种是 {cite:t}`hoffmann2022chinchilla` 的经验，每个参数 20 个。时间用两个速度算：梯子上量到的一个核；一张 H100，峰值 $989 \times 10^{12}$ 次/秒，假设用上 40%（{numref}`第 %s 章 <sec-scale>`）。

# %%
n, d = np.log(np.array(valleys)).T
slope, start = np.polyfit(n, d, 1)
speed = float(np.median([laws.compute(r) / r["cpu_seconds"] for r in ladder]))
card = 0.40 * 989e12


def readable(seconds):
    for unit, size in (("年", 365 * 86400), ("天", 86400), ("小时", 3600)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds / 60:.1f} 分钟"


# %%
rows = []
for size in (26e6, 100e6, 1e9):
    for rule, tokens in (("碗底", math.exp(start) * size**slope), ("20 个/参数", 20 * size)):
        flops = 6 * size * tokens
        times = [readable(flops / rate) for rate in (speed, card)]
        rows.append([f"{size / 1e6:,.0f}M", rule, f"{tokens / 1e8:.1f}", f"{flops:.1e}", *times])
print(f"one core: {speed / 1e9:.0f} GFLOP/s; the card: {card / 1e12:.0f} TFLOP/s")
show.table(["参数", "词元按", "词元（亿）", "运算", "一个核", "一张卡"], rows)

# %% tags=["remove-input"]
ours, absurd = math.exp(start) * 1e9**slope / 1e9, learned.tokens_for(1e9) / 1e9
assert 200 < 1e9 / max(run["total"] for run in ladder) < 400
show.say(
    f"对 10 亿参数，碗底说每个参数 {ours:.2g} 个词元，经验说 20 个。",
    f"拟合的定律呢？它说 {absurd:,.2g} 个。" if not 1 < absurd < 400 else "",
    "从梯子上最大的模型推到它的几百倍，这些数只好当作笑话听；要信哪一个，得先在那么大的模型上量过。",
)

# %% [markdown]
# 拟合的定律为什么说出那样的数？照它，最合适的词元数按参数的 $\alpha/\beta$ 次方增长。两个指数相等，就是一比一地长；$\alpha$ 若是 $\beta$ 的三倍，参数变成 300 倍，词元就要变成 $300^3$ 倍，即两千七百万倍。指数差一点，近处看不出来，推到几百倍以外就成了天文数字。<!-- by: 300**3 == 27000000 --><!-- by: reasoning -->
#
# :::{admonition} 真实世界
# :class: real-world
#
# 先预言，再训练，大模型也这样做。GPT-4（2023）拟合的是 $L(C) = aC^b + c$，末一项就是不可约损失；梯子上的模型，计算量都不超过它的千分之一。训练开始不久就写下最后的损失，报告说预言得很准 {cite:p}`openai2023gpt4`。DeepSeek LLM（2024）用千分之一的计算预言了自己的 7B 和 67B。它也遇到了“怎样数”的问题，索性不数参数，数每个词元的运算次数：注意力算在内，词表不算。它还发现指数跟着数据走：数据越好，多出来的计算越该给模型 {cite:p}`bi2024deepseek`。<!-- by: @openai2023gpt4 --><!-- by: @bi2024deepseek -->
#
# 一个参数配几个词元，各家量出来的不同。Chinchilla（2022）70B，读 1.4 万亿个，配 20 个 {cite:p}`hoffmann2022chinchilla`。Llama 3（2024）的梯子从 $6 \times 10^{18}$ 搭到 $10^{22}$ 次运算，推到 $3.8 \times 10^{25}$，说该训练 402B，读 16.55 万亿个，即配 41 个；最后训练的是 405B，15.6 万亿个；它在 ARC Challenge 这份考卷上的成绩也是这样推出来的，只低估了一点 {cite:p}`grattafiori2024llama3`。MiniCPM（2024）说平均要配 192 个 {cite:p}`hu2024minicpm`。<!-- by: 1.4e12 / 70e9 == 20 --><!-- by: round(16.55e12 / 402e9) == 41 --><!-- by: @grattafiori2024llama3 --><!-- by: @hu2024minicpm -->
#
# 这些都只问训练怎样最省。训练一次，要用许多次，小模型用起来便宜，所以宁可让它多读：Llama 3 8B 照 Chinchilla 只该读约 2,000 亿个，实际读了 15 万亿个，一个参数配 1,875 个，还在变好 {cite:p}`meta2024llama3`。（2026 年 11 月核对。）<!-- by: 15e12 / 8e9 == 1875 --><!-- by: @meta2024llama3 -->
# :::
#
# ### 去不掉的损失：一处拟合，一处算得出
#
# 古诗的 $E$ 是拟合出来的。让 $N$ 和 $D$ 都趋于无穷，`predict` 给出的就是 $E$ 和它的区间：

# %%
floors = [laws.predict(some, math.inf, math.inf) for some in (ladder, known)]
for name, floor in zip(("the ladder", "with the outcome"), floors, strict=True):
    print(f"{name}: E {floor[0]:.2f}, from {floor[1]:.2f} to {floor[2]:.2f} nats per token")

# %% tags=["remove-input"]
(first, first_low, first_high), (second, _, _) = floors
assert second < first_low
show.say(
    f"从梯子拟合，$E$ 是 {first:.2f}，区间从 {first_low:.2f} 到 {first_high:.2f}；"
    f"多了一次训练，它就到了 {second:.2f}，在那个区间之外。",
    "所以谁要是说真实文字的熵是多少，先问他的 $E$ 是从多大的模型拟合来的。",
)

# %% [markdown]
# 微世界不用拟合。下面是 1,000 篇留出的文字：程序一共做了多少比特的选择；其中文字看得出来的有多少；以及训练过的模型说出一篇文字（连同它在哪里结束）要多少比特。

# %%
world = json.loads((lab.RESULTS.parent / "world.json").read_bytes())["runs"]
held_out = list(entropy.measured_documents(1000, seed=10_000))
assert [d.text for d in held_out[:50]] == list(documents(50, seed=10_000))
choices, bits, size = (
    sum(part) / len(held_out)
    for part in zip(*((d.choices, d.bits, len(d.text.encode())) for d in held_out), strict=True)
)
assert bits < choices
assert all(run["bits_per_document"] > bits for run in world)
print(f"bits a document: {choices:.2f} chosen, {bits:.2f} of them show; {bits / size:.3f} a byte")

# %% tags=["hide-input"] mystnb={"figure": {"caption": "说出微世界的一篇文字平均要多少比特。灰色是程序的选择里看得出来的，即熵的上界；其余是各种大小的模型。", "name": "fig-scaling-world"}, "image": {"alt": "横条：最上面灰色的是熵，下面每条是一个模型，标着宽度和训练的步数"}}
world.sort(key=lambda run: -run["bits_per_document"])
bars = {"熵（上界）": round(bits, 2)}
bars |= {f"宽 {r['hidden']}，{r['steps']} 步": round(r["bits_per_document"], 2) for r in world}
show.bars(bars, "比特/篇", [show.GREY, *[show.COLOURS["other"]] * len(world)])

# %% tags=["remove-input"]
closest = world[-1]
excess = closest["bits_per_document"] - bits
assert 0 < excess < bits / 10
show.say(
    f"最好的模型（宽 {closest['hidden']}，{closest['steps']:,} 步）平均每篇用 {closest['bits_per_document']:.2f} 比特，"
    f"比熵多 {excess:.2f} 比特。",
    f"也就是说，它的损失里有 {bits / closest['bits_per_document']:.0%} 是谁也去不掉的。",
)

# %% [markdown]
# 差在哪里？分种类看：

# %%
kind_bits = defaultdict(list)
for document in held_out:
    kind_bits[document.kind].append(document.bits)
chinese = {"biography": "人物", "numbers": "数数和加减", "days": "日子", "prices": "价钱"}
chinese |= {"story": "故事", "echo": "复述", "dialogue": "对话", "greeting": "问候"}
chinese |= {"about": "杂谈", "practice": "习题"}
parts = {kind: sum(found) / len(found) for kind, found in kind_bits.items()}
show.table(
    ["种类", "篇", "熵（比特）", "模型（比特）", "多出"],
    [
        [name, len(kind_bits[kind]), *(f"{x:.1f}" for x in (parts[kind], m, m - parts[kind]))]
        for kind, name in chinese.items()
        for m in [closest["by_kind"][kind]]
    ],
)

# %% [markdown]
# 没有哪一种是特别没学会的：每种都只多出 0.9 到 2.5 比特，习题最多。<!-- by: book/results/world.json -->
#
# 这个熵是上界还是恰好？问候、日子、人物，用手算的公式核对过，恰好相等。<!-- by: tests/microworld/test_entropy.py --> 别的种类里，可能还有两串不同的选择写出同一篇文字，那么真正的熵比表里的略低。真正的熵不会更高，所以上面那个“去不掉”的份额，也是至多。<!-- by: reasoning -->
#
# ## 弄坏它
#
# ### 没走完的训练不能算数
#
# 想省事：训练一个长的，在半路上看几眼损失，不就有了几个短的？不行。半路上学习率还在高处，损失也就降不下来；短的训练在同样的步数已经把学习率降到底了。

# %%
cut = []
for run in sorted(world, key=lambda run: (run["hidden"], run["steps"])):
    for short in world:
        step = str(short["steps"])
        if short["hidden"] == run["hidden"] and step in run["on_the_way"] and short is not run:
            pair = (short["bits_per_document"], run["on_the_way"][step])
            cut.append([run["hidden"], step, run["steps"], *(f"{x:.2f}" for x in pair)])
assert cut
assert all(float(row[4]) > float(row[3]) for row in cut)
show.table(["宽度", "第几步", "长的共几步", "短的，走完（比特/篇）", "长的，半路"], cut)

# %% [markdown]
# 半路上的每一个都更差。<!-- by: assert all(float(row[4]) > float(row[3]) for row in cut) --> 用半路的点去拟合，就低估了只读少量数据的训练。{cite:t}`hoffmann2022chinchilla` 认为，Kaplan 等人得出“模型该长得更快”，这是原因之一：他们的学习率表没有随训练的长短调整。<!-- by: @hoffmann2022chinchilla -->
#
# ### 嵌入表数错
#
# 同一次训练，用三种数法各预言一遍：

# %%
counted = {c: laws.predict(runs, laws.count_parameters(test, c), test["tokens"], c) for c in found}
show.table(
    ["数法", "预言", "从", "到", "结果"],
    [[labels[c], *(f"{x:.3f}" for x in (*p, test["val_loss"]))] for c, p in counted.items()],
)

# %% tags=["remove-input"]
told = [prediction for prediction, *_ in counted.values()]
assert all(outcome < p_low for _, p_low, _ in counted.values())
show.say(
    f"三个预言相差只有 {max(told) - min(told):.3f}，结果都在区间之外：数法救不了这条定律，也害不了近处的损失。",
    "数法改变的是“该训练多大的”：上面的三个指数，就是三种不同的花钱办法。",
)

# %% [markdown]
# ### 把同样的文字再读一遍
#
# 定律里的 $D$ 是没有读过的词元。数据用完了，再读一遍算多少？{cite:t}`muennighoff2023repeat` 用 400 次训练量出：$U$ 个不同的词元，除第一遍以外再读 $R$ 遍，相当于
#
# $$D' = U + U R^{*} (1 - e^{-R/R^{*}}), \qquad R^{*} = 15.4$$
#
# 个新的。读四遍（$R=3$）相当于 3.73 份新的，几乎不亏；读 40 遍（$R=39$）只相当于 15.2 份；再读多少遍也到不了 16.4 份。所以梯子和预言都没有让文字重复；前面那张表里，10 亿参数要的词元，全部古诗远远不够，拿古诗重复着读，定律就不再成立。<!-- by: @muennighoff2023repeat -->


# %%
def worth(epochs, star=15.387756):
    """How many times the text's tokens new ones would have to be, to teach as much."""
    return 1 + star * (1 - math.exp(-(epochs - 1) / star))


assert [round(worth(e), 1) for e in (4, 40, 1e9)] == [3.7, 15.2, 16.4]
assert round(worth(4), 2) == 3.73
[round(worth(e), 2) for e in (1, 2, 4, 8, 16, 40)]

# %% [markdown]
# ## 收尾
#
# ### 小结
#
# - 一次训练的计算量是 $6ND$。模型小的时候，输出矩阵占去大半，数不数它，得出的定律不同。
# - 一样多的计算，有一个最好的大小；更大的读得太少，更小的装不下。怎样数参数，决定了这个大小看起来长得多快。
# - 拟合五个未知数，两个用格点，三个用最小二乘，不会停早；指数仍然说不准。区间要把往外推的成绩算进去。
# - 先提交预言，再训练。落在区间外就是错了，写出来，再想为什么；事后想出来的不算预言。
# - 真实文字的不可约损失只能拟合，换几个点就变；微世界的可以数出来，模型离它还有多远也就清楚了。
#
# ### 练习
#
# :::{exercise} ★☆☆
# :label: ex-scaling-1
#
# （计算）一条定律的 $\alpha = 0.35$，$\beta = 0.37$。计算量变成 100 倍，最好的参数变成多少倍？词元呢？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 最好的 $N$ 按计算量的 $\beta / (\alpha + \beta)$ 次方增长，而 $D = C / 6N$。
# :::
#
# :::{solution} ex-scaling-1
# :class: dropdown
#
# $0.37 / 0.72 = 0.514$，$100^{0.514} = 10.7$ 倍；词元是 $100^{0.35/0.72} = 9.4$ 倍。两个指数差不多时，模型和数据差不多一起长。<!-- by: round(100 ** (0.37 / 0.72), 1) == 10.7 --><!-- by: round(100 ** (0.35 / 0.72), 1) == 9.4 -->
# :::
#
# :::{exercise} ★★☆
# :label: ex-scaling-2
#
# （写代码）把梯子里每个预算最低的点拿掉，重新拟合。预言变了多少？还在原来的区间里吗？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# `laws.fit_law` 收一串训练，`Law.loss` 给出一个点的预言。`groups` 里每一组是一个预算。
# :::
#
# :::{solution-start} ex-scaling-2
# :class: dropdown
# :::

# %%
lowest_runs = [min(group, key=lambda run: run["val_loss"]) for group in groups]
rest = [run for run in ladder if run not in lowest_runs]
without = laws.fit_law(rest).loss(laws.count_parameters(test, "total"), test["tokens"])
print(f"with all: {mean:.3f}; without the best: {without:.3f}; interval {low:.3f} to {high:.3f}")

# %% [markdown]
# 高了 0.02，还在区间里。拿掉三个最低的点，碗浅了，远处的预言只动了一点：定律不是靠哪一个点撑着的。它错，是整架梯子一起看不到远处。<!-- by: round(4.640 - 4.618, 2) == 0.02 -->
#
# :::{solution-end}
# :::
#
# :::{exercise} ★★☆
# :label: ex-scaling-3
#
# （弄坏它）给梯子里最大的那个模型的损失加上 0.1，好像它的学习率设错了。三个常数 $E$、$\alpha$、$\beta$ 各变成多少？区间呢？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 先把每次训练的字典各复制一份，不要改动原来的；再改一个 `val_loss`，重新拟合、重新预言。
# :::
#
# :::{solution-start} ex-scaling-3
# :class: dropdown
# :::

# %%
wrong = [dict(run) for run in ladder]
biggest = max(wrong, key=lambda run: (run["total"], run["tokens"]))
biggest["val_loss"] += 0.1
bad = laws.fit_law(wrong)
_, bad_low, bad_high = laws.predict(wrong, test["total"], test["tokens"])
assert abs(bad.alpha - law.alpha) > 0.02
print({k: (round(getattr(law, k), 2), round(getattr(bad, k), 2)) for k in ("E", "alpha", "beta")})
print(f"interval: {high - low:.3f} wide before, {bad_high - bad_low:.3f} now")

# %% [markdown]
# 一个坏点就改得动指数。<!-- by: assert abs(bad.alpha - law.alpha) > 0.02 --> 所以梯子上的每一次训练都要看一眼曲线，也值得多做几次。
#
# :::{solution-end}
# :::
#
# :::{exercise} ★★☆
# :label: ex-scaling-4
#
# （想一想）分词器的词表从 6,400 换成大得多的，其余不变。梯子上最小的模型会怎样？$E$（奈特/词元）还能和原来的比吗？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 嵌入表有“词表 × 宽度”个数，先算它占了多少；再想一个词元代表几个字。
# :::
#
# :::{solution} ex-scaling-4
# :class: dropdown
#
# 嵌入表跟着变大，最小的模型只剩一张表了，同样的计算量读不了几个词元。每个词元代表的字更多，更难猜，$E$ 按词元算会变大，所以不能直接比；要换成每字比特数。<!-- by: reasoning -->
# :::
#
# :::{exercise} ★★☆ 动手：碗底在哪里
# :label: ex-scaling-valley
# 同一个预算，几种大小，各有一个损失。写出 `best_size(sizes, losses)`：在横轴是 $\ln N$ 的图上，过这些点拟合一条抛物线，返回碗底的 $N$。开口朝下，或者碗底不在试过的大小之间，就没有资格说哪里最好，返回 `None`。大小不一定从小到大排好。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# `np.polyfit(x, y, 2)` 给出 $ax^2 + bx + c$ 的三个系数，顶点在 $-b/2a$。它是 $\ln N$，不是 $N$。
# :::


# %%
def best_size(sizes: list[float], losses: list[float]) -> float | None:
    return ...


tasks.check("15.1", best_size)

# %% [markdown]
# :::{solution} ex-scaling-valley
# :class: dropdown
# ```python
# def best_size(sizes, losses):
#     x = np.log(sizes)
#     a, b, _ = np.polyfit(x, losses, 2)
#     lowest = -b / (2 * a)
#     if a <= 0 or not x.min() < lowest < x.max():
#         return None
#     return float(np.exp(lowest))
# ```
# 大小是成倍地取的，所以横轴取对数，点才分布均匀。碗底在边上时，抛物线照样给得出一个数，那个数是编的：再训练一个更大或更小的，才知道。
# :::
#
# :::{exercise} ★★★ 动手：拟合一条定律
# :label: ex-scaling-fit
# 不用 `laws`，自己拟合 {eq}`eq-scaling-law`。写出 `fit(n, d, losses, exponents)`：前三个是一样长的 NumPy 数组，每次训练一项。$\alpha$ 和 $\beta$ 各从 `exponents` 里取，两个都试遍；每一种组合，用最小二乘解出 $E$、$A$、$B$，解出负数的组合不要。返回误差的平方和最小的那一组 `(E, A, B, alpha, beta)`。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 把 1、$N^{-\alpha}$、$D^{-\beta}$ 叠成 `[P, 3]` 的矩阵，`np.linalg.lstsq(columns, losses, rcond=None)[0]` 就是三个系数。两重循环，记住到目前为止误差最小的一组。
# :::


# %%
def fit(
    n: np.ndarray, d: np.ndarray, losses: np.ndarray, exponents: list[float]
) -> tuple[float, float, float, float, float]:
    return ...


tasks.check("15.2", fit)

# %% [markdown]
# :::{solution} ex-scaling-fit
# :class: dropdown
# ```python
# def fit(n, d, losses, exponents):
#     least, best = math.inf, None
#     for alpha in exponents:
#         for beta in exponents:
#             columns = np.stack([np.ones(len(n)), n**-alpha, d**-beta], 1)
#             found = np.linalg.lstsq(columns, losses, rcond=None)[0]
#             error = ((columns @ found - losses) ** 2).sum()
#             if (found >= 0).all() and error < least:
#                 least, best = error, (*found, alpha, beta)
#     return best
# ```
# 指数定下来，其余三个一步解出，没有起点，也没有“停得太早”。它与 `laws._solve` 差在两处：那里的误差是相对的，要变负的系数设成 0；所以在梯子上拟合出的数会略有不同。
# :::
#
# #### 第三部分的小项目
#
# 一个晚上，交一页纸的报告：一个预言和它的结果，三类题的成绩，量化改变了什么，一份账单。每个数都让别人能重做。文字用微世界的，没有读过的要多少有多少；分词器和会聊天的模型，用 `bash scripts/run.sh --preset tiny` 留在 `out/tiny` 里的。
#
# **一、写文字。** 训练的写二十万篇，留出的一千篇：<!-- by: reasoning -->
#
# ```python
# folder = lab.ROOT / "data" / "ladder"
# folder.mkdir(parents=True, exist_ok=True)
# for name, count, seed in (("world", 200_000, 0), ("world_val", 1_000, 10_000)):
#     with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
#         for text in documents(count, seed=seed):
#             file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
# ```
#
# **二、搭梯子。** 三个预算，例如 $2 \times 10^{11}$、$6 \times 10^{11}$、$1.8 \times 10^{12}$ 次运算，每个预算至少三种大小，从宽 16、32、64 试起。前馈网络的内宽是宽度的 2.75 倍，学习率按宽度的 $-2/3$ 次方取，宽 128 时是 0.006。步数由 $C = 6ND$ 算出来，每步 1,024 个词元。每一次都走完自己的学习率表，损失在它的 `pretrain_log.jsonl` 的末一行。宽 32 的一次是这样的：<!-- by: 88 / 32 == 2.75 --><!-- by: 4 * 256 == 1024 --><!-- by: round(0.006 * (128 / 32) ** (2 / 3), 3) == 0.015 --><!-- by: 16 * 4 == 64 -->
#
# ```bash
# python trainer/train_pretrain.py --preset tiny --data_path data/ladder/world.jsonl \
#     --tokenizer_path out/tiny/tokenizer --max_seq_len 256 --batch_size 4 \
#     --hidden_size 32 --intermediate_size 88 --learning_rate 0.015 \
#     --max_steps 400 --out_dir out/ladder/32-400
# ```
#
# 哪个预算的 `best_size` 返回 `None`，就往碗底那一边再添一个大小。
#
# **三、写下预言。** 用你的 `fit` 拟合，预言宽 128、3,000 步的损失，连同区间；它的计算量比最高的预算又大了好几倍。区间怎样定，先写规则，再算。写进文件，`git commit`。然后才训练它。<!-- by: book/results/world.json -->
#
# **四、认真考。** 取 `out/tiny` 里 DPO 以后的模型，换一份没有用过的卷子：`scoring.questions(kind, 60, seed=1)`，挑三类，每类配上你的 `wilson`。
#
# **五、带走它。** `minillm gguf --preset tiny --type Q4_0`。量化前后的模型答同一份卷子（{numref}`第 %s 章 <sec-takeaway>`的 `as_in_the_file`），数出改对几题、改错几题，用{ref}`sec-judging`里{numref}`ex-pipeline-2` 的 `sign_test` 问是不是运气。再用你的 `forgeable` 查自己的对话模板。
#
# **六、算账。** 从梯子量出这台机器每秒的运算次数，算出默认模型按每个参数 20 个词元要多久，再用 {eq}`eq-scale-bill` 算租一张卡要多少钱。
#
# :::{admonition} 怎样算做完
# :class: dropdown
#
# - 梯子至少九次训练，三个预算的 `best_size` 都不是 `None`，而且一级比一级大。<!-- by: reasoning -->
# - 预言的提交在结果之前，`git log` 看得出来。结果落在区间里，或者你写出了错在哪里；两种都算做完。书上的同一个训练，损失是 0.571，你的应当离它不远；差出一成以上，先查数据和学习率。<!-- by: book/results/world.json -->
# - 用 `ngram.NGram` 在同样的文字上数出三元模型，留出的每篇几比特；你的模型要在它和熵（`entropy.measured_documents(1000, seed=10_000)` 的平均）之间。比熵还低，是哪里漏了题。<!-- by: reasoning -->
# - 三类题，每类都写成“60 题对几题，区间从几到几”。这份卷子只考了一次。
# - `Q4_0` 的文件约 0.6 MB；改对、改错的题数和 $p$ 都写着。`forgeable` 对自己的模板返回空列表，对{numref}`第 %s 章 <sec-takeaway>`的 `PLAIN` 返回的不空。<!-- by: round((1024 * 128 * 8.5 + 9 * 128 * 32 + 737280 * 4.5) / 8 / 1e6, 1) == 0.6 -->
# - 账单写明峰值、MFU、价钱各是量的、标称的还是假设的。
#
# 往下走：把微世界换成你自己的文字，`minillm import` 收进来，照样搭梯子；`minillm evaluate --text` 给出每字比特数，还会说有多少字是拆开写的。
# :::
#
# ### 延伸阅读
#
# - {cite:t}`kaplan2020scaling`：第一次把语言模型的损失写成幂律，横跨七个数量级。读它的图，也读它怎样数参数。<!-- by: @kaplan2020scaling -->
# - {cite:t}`hoffmann2022chinchilla`：三种办法求同一个答案，改写了大模型的配方。本章用的是第三种。
# - {cite:t}`porian2024resolving`：两家的结论为什么不同，一条一条地排除。
# - {cite:t}`besiroglu2024replication`：从别人的图上量出数据重新拟合，看得到一个区间怎样会窄得不可信。
# - {cite:t}`muennighoff2023repeat`：数据不够用的时候，重复几遍还划算。
