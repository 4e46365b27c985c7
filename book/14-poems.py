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
# (sec-poems)=
# # 真实的中文：三十二万首诗
#
# :::{admonition} 本章
# :class: tip
#
# - **你将学会**：看出真实的文字和造出来的有什么不同；用数数的模型和压缩程序给神经网络作对照；把“像不像诗”拆成句长、押韵、平仄三件能数的事；量出它抄了多少、背了多少；说清它不懂什么。
# - **需要时间**：阅读 40 分钟，运行约半分钟。
# - **需要内存**：1 GB。
# - **需要安装**：在项目的文件夹里 `pip install -e ".[poetry]"`，装的是 `opencc`、`datasketch` 和 `pypinyin`。
# - **用到的模块**：`minillm.data.verse`、`minillm.data.tones`、`minillm.data.near`、`minillm.book.ngram`、`minillm.book.copies`。
# :::

# %%
import json
from itertools import permutations

from minillm import RustBPETokenizer
from minillm.book import copies, lab, ngram, show, tasks
from minillm.book.drawings import scale
from minillm.data import classical, near, tones, verse

import numpy as np

lab.start()

# %% [markdown]
# ## 开场
#
# 前面十三章，模型读的每一句话都是程序造的。这一章换成真的：321,723 篇古诗词，一千多年里许多人写的。模型也大一些：宽 192，6 层，3,590,592 个参数，预设的名字叫 `small`，两个 CPU 核训练约一个小时。先预训练，再用“写一首《题目》”这样的问答做监督微调。<!-- by: book/results/poetry.json --><!-- by: minillm/config.py -->
#
# 本页不下载，也不训练。凡是要用到那三十二万首诗或这个模型的，都取自 `book/results/poems.json`，是下面最后一条命令写的；其余的单元格现场运行。想从头做一遍：<!-- by: benchmarks/README.md -->
#
# ```bash
# bash scripts/run.sh --preset small
# python benchmarks/poems.py
# ```
#
# 数据从哪里来，清洗时去掉了什么，怎样训练，见{ref}`sec-sources`。先听听它写的。题目是《秋夜》，左边是预训练刚走了一百步的时候，右边是监督微调以后：

# %%
FOUND = json.loads(lab.RESULTS.with_name("poems.json").read_bytes())
CLEANED = json.loads(lab.RESULTS.with_name("poetry.json").read_bytes())
assert FOUND["parameters"] == 3_590_592
assert CLEANED["total"]["rows"] == 321_723
stages = FOUND["showcase"]["stages"]
first = str(FOUND["steps"][0])
show.table([f"第 {first} 步", "监督微调以后"], [[stages[first][0], stages["sft"][0]]])

# %% [markdown]
# 右边的像一首诗。可是“像”是感觉，不是测量。这一章问四个问题，每一个都能数出来：
#
# 1. 下一个字，它猜得比数数的办法好多少？
# 2. 句子齐不齐，韵押不押，平仄对不对？
# 3. 这些句子是它写的，还是抄的？
# 4. 它懂不懂题目？
#
# ## 手算
#
# ### 只靠数数，下一个字能猜多准
#
# 神经网络要有对手才知道好坏。最老的对手是 **n 元模型**（n-gram model）：数一数，前面这几个字以后，来过哪些字。
#
# 语料只有两句：“春眠不觉晓”“春风吹又生”。“春”后面是“眠”的概率是多少？“春”出现两次，“眠”跟着一次，直接相除得二分之一。“春”后面是“生”呢？没有见过，得 0；真遇上一次，整首诗的概率就是 0。所以要**插值**（interpolation）：每种见过的扣下 $D$ 次，扣下来的，按少看一个字时的概率分给所有的字。<!-- by: reasoning -->
#
# ```{math}
# :label: eq-poems-kn
# p(w \mid h) = \frac{\max(c(hw) - D,\, 0) + D\,t(h)\,p(w \mid h')}{c(h)}
# ```
#
# $h$ 是前文，$h'$ 是去掉头一个字的前文；$c(hw)$ 是 $w$ 跟在 $h$ 后面几次，$t(h)$ 是 $h$ 后面见过几种字。取 $D = 0.5$，“春”的 $c = 2$，$t = 2$。
#
# 少看一个字，就是什么都不看。这一级数的不是一个字出现几次，而是它**前面有过几种不同的字**：“鹳”不算太罕见，可它前面总是那几个字，换一个前文就不该猜它。所以把两句拆成相邻的对来数，⊢ 是句首，⊣ 是句尾：⊢春、春眠、眠不、不觉、觉晓、晓⊣，春风、风吹、吹又、又生、生⊣。<!-- by: reasoning -->
#
# - 不同的对有 11 种，这一级的 $c(h)$ 就是 11。
# - “眠”前面只有“春”，$c(hw)$ 是 1。
# - 当过后一个字的有 10 种，九个汉字和句尾，这是 $t(h)$。
# - 再往下一级，什么也不数，每个候选一样可能：九个汉字、句尾，再加一个代表一切没见过的字，也是 11 个，各得 $1/11$。<!-- by: assert [round(p, 4) for p in (alone, *by_hand)] == [0.0868, 0.2934, 0.0434] -->
#
# 代进 {eq}`eq-poems-kn`，先算什么都不看的，再算前面有“春”的：
#
# - $p(眠) = (1 - 0.5 + 0.5 \times 10 / 11) / 11 = 0.0868$；“生”前面也只来过一种字，“又”，所以 $p(生)$ 相同。
# - $p(眠 \mid 春) = (1 - 0.5 + 0.5 \times 2 \times 0.0868) / 2 = 0.293$，即 1.77 比特。
# - $p(生 \mid 春) = (0 + 0.5 \times 2 \times 0.0868) / 2 = 0.0434$，即 4.53 比特。
#
# 没有见过，只是更贵，不是不可能。

# %%
two = ngram.NGram(["春眠不觉晓", "春风吹又生"], order=2, tuning=["春眠不觉晓"])
two.discounts = [0.5, 0.5]
alone = (1 - 0.5 + 0.5 * 10 / 11) / 11
by_hand = [(1 - 0.5 + 0.5 * 2 * alone) / 2, (0 + 0.5 * 2 * alone) / 2]
bits = [float(two.bits(line)[1]) for line in ("春眠", "春生")]
assert np.allclose(bits, -np.log2(by_hand))
assert [round(p, 4) for p in (alone, *by_hand)] == [0.0868, 0.2934, 0.0434]
[round(b, 2) for b in bits]

# %% [markdown]
# 这叫 Kneser–Ney 平滑 {cite:p}`kneser1995backing`，{cite:t}`chen1999smoothing` 把各种办法比了一遍，最好的是它的一个改进。<!-- by: @chen1999smoothing -->比特加起来除以字数，就是每字比特数，与分词器无关，所以能拿来和任何模型比。{numref}`第 %s 章 <sec-environment>`用的是同一个数，只是按字节平均；一个汉字三个字节，每字 6 比特就是每字节 2 比特。<!-- by: 6 / 3 == 2 --><!-- by: reasoning -->
#
# 那一章的插值简单些：不管什么前文，一律给短的一级 5 票（{eq}`eq-environment-smooth`）。这里给 $D\,t(h)$ 票，从见过的那里扣来：后面来过的字越是五花八门，没见过的就越可能再来一个，票也就越多。<!-- by: reasoning -->
#
# ### 两个版本，算一首还是两首
#
# 古诗有许多版本，也常被改写。王驾的《春晴》开头是“雨前初见花间蕊”；王安石改过它，成了《晴景》，开头是“雨来未见花间蕊”。去重时，这样的两首算不算一首？把七个字拆成相邻的三个字一串，各有五串；共有的是见花间、花间蕊 2 串，任何一边有的 8 串，2/8 = 0.25。这叫 **Jaccard 系数**（Jaccard index）。

# %%
one, other = near.shingles("雨前初见花间蕊"), near.shingles("雨来未见花间蕊")
assert one & other == {"见花间", "花间蕊"}
assert (len(one), len(other), len(one | other)) == (5, 5, 8)
near.jaccard(one, other)

# %% [markdown]
# 三十多万首，两两都比要几百亿次。**MinHash** 给每首诗算 32 个数，比这 32 个数就够了。
#
# 第一个数是这样来的：用一个哈希函数，给诗里三个字的每一串编一个号，只留下最小的号。下面是四个哈希函数，各把刚才的 8 串按号排了队：<!-- by: minillm/data/near.py -->

# %% tags=["hide-input"] mystnb={"figure": {"caption": "四个哈希函数给同样 8 串各编了号，从小到大排。每首诗只留下自己的串里排在头一个的号（颜色深的格子）。", "name": "fig-poems-minhash"}, "image": {"alt": "四排格子，每排 8 串，次序各不相同；绿的两首都有，蓝的和橙的只有一首有。排头是绿的那一排，两首留下的号相同；排头是蓝的或橙的，就不同"}}
scale.smallest_numbers({"《春晴》": one, "《晴景》": other})

# %% [markdown]
# 排头的串是谁，机会均等。排头是共有的，两首留下的号就相同；是只有一首才有的，就不同。所以两个号相同的概率，正好是共有的占全部的几分之几，也就是 Jaccard 系数。四个函数太少，几个相同全凭运气；换 32 个各做一遍，数一数有几个相同，就知道大概有多像。用整首诗试，第三首是《春晴》的另一个版本，题目叫《雨晴》：<!-- by: minillm/data/near.py --><!-- by: reasoning -->

# %%
editions = {
    "春晴": "雨前初见花间蕊，雨后全无叶底花。\n蜂蝶纷纷过墙去，却疑春色在邻家。",
    "晴景": "雨来未见花间蕊，雨后全无叶底花。\n蜂蝶纷纷过墙去，却疑春色在邻家。",
    "雨晴": "雨前初见花间蕊，雨后兼无叶里花。\n蛱蝶飞来过墙去，却疑春色在邻家。",
}
bare = [classical.bare(text) for text in editions.values()]
exact = [near.jaccard(near.shingles(bare[0]), near.shingles(text)) for text in bare]
hashes = near.signatures(bare)
assert hashes.shape == (3, 32)
assert [round(value, 3) for value in exact] == [1, 0.793, 0.405]
rows = zip(editions, exact, (float((row == hashes[0]).mean()) for row in hashes), strict=True)
show.table(["与《春晴》比", "Jaccard 系数", "MinHash 估的"], rows)

# %% [markdown]
# 只有 32 个数，估得粗，《雨晴》就估低了。所以挑的时候不看估出来的份额：32 个数分成 16 段，每段两个，有一段全同，就拿来精确地算。系数是 0.4 的一对，这样有 94% 的机会被挑出来。<!-- by: round(1 - (1 - 0.4**2) ** 16, 2) == 0.94 -->
#
# 门槛定在 0.4，两首都算《春晴》的重复，《雨晴》只差一点就漏过了：它改了五个字，散在四处，26 串里断了 11 串，剩下的 15 串要除以两边合起来的 37 串。<!-- by: round(15 / 37, 3) == 0.405 --><!-- by: 26 - 11 == 15 --><!-- by: 26 + 26 - 15 == 37 -->门槛怎样定，见{ref}`sec-sources`。<!-- by: minillm/data/near.py --><!-- by: assert [round(value, 3) for value in exact] == [1, 0.793, 0.405] -->
#
# ## 真实代码
#
# ### 一首诗的形式
#
# 句长、体裁和押韵，各是一个函数：

# %%
show.source(verse.metre, verse.kind, verse.rhymes)

# %% [markdown]
# 押韵该看古代的韵，可是手边只有今天的音，所以由今天的韵母去猜：`groups_of` 查出一个字的韵母（取自 pypinyin，多音字的每个读音都算）属于哪几个韵部，偶数句末字有共同的韵部，就算押韵。两头都有错：古人分得更细的，这里混在一起，偏松；古今读音变得太远的，会漏掉，偏严。<!-- by: minillm/data/verse.py -->
#
# 平仄不能看今天的声调：“白”“国”“一”今天念平声，古代是入声，属仄。chinese-poetry 的压缩包里，唐宋诗旁边有一份**平仄**（tonal pattern）谱，一字一个记号；把谱与诗对齐，就得到一张“这个字是平是仄”的表，两可的算两可。这里只查一条规矩：每句的第二、第四个字（七言还有第六个），平仄要一个隔一个。句与句之间的“对”和“粘”不查，所以这把尺子也偏松。<!-- by: minillm/data/tones.py --><!-- by: minillm/data/tones.py -->

# %%
show.source(tones.tone, tones.alternates)

# %% [markdown]
# 拿四首人人会背的试一试。平仄表取自存好的结果：

# %%
levels = {c: float(sign == "平") for sign, found in FOUND["tones"].items() for c in found}
famous = {
    "登鹳雀楼": "白日依山尽，黄河入海流。\n欲穷千里目，更上一层楼。",
    "春晓": "春眠不觉晓，处处闻啼鸟。\n夜来风雨声，花落知多少。",
    "静夜思": "床前明月光，疑是地上霜。\n举头望明月，低头思故乡。",
    "声声慢": "寻寻觅觅，冷冷清清，凄凄惨惨戚戚。",
}
YES = {True: "是", False: "否", None: "–"}
rows = {
    title: [verse.kind(body), verse.rhymes(body), tones.alternates(body, levels)]
    for title, body in famous.items()
}
assert rows["登鹳雀楼"] == rows["春晓"] == ["五言绝句", True, True]
assert rows["静夜思"] == ["五言绝句", True, False]
shown = [[t, kind or "–", YES[rhymes], YES[even]] for t, (kind, rhymes, even) in rows.items()]
show.table(["题目", "体裁", "偶句押韵", "平仄相间"], shown)

# %% [markdown]
# 《静夜思》平仄不合，因为它是古体诗，不按律。《声声慢》是词，长短句，没有“五言”“七言”可谈。所以拿不到 100% 不说明写得差，要与真诗比。<!-- by: assert rows["静夜思"] == ["五言绝句", True, False] -->
#
# ### 数数的模型
#
# {eq}`eq-poems-kn` 写成代码，从最短的一级算到最长的一级：

# %%
show.source(ngram.NGram._mixed)

# %% [markdown]
# 每一级的计数排成有序的数组：字编成 14 位的号，四个字 56 位，一个 64 位的整数就装得下，查一次就是一次二分。<!-- by: 4 * 14 == 56 --><!-- by: minillm/book/ngram.py -->
#
# ### 抄了多长
#
# 一首写出来的诗，与全部训练诗相同的最长一段有几个字？办法是一个字一个字地加长，每一步只看上一步还有共同之处的位置：

# %%
show.source(copies._in_common)

# %%
corpus = ["白日依山尽黄河入海流", "春眠不觉晓处处闻啼鸟"]
copied = copies.longest_copies(["白日依山近黄河", "觉晓处处是春风", "床前"], corpus)
assert copied == [4, 4, 0]
copied

# %% [markdown]
# ## 实验
#
# ### 真实的文字长什么样
#
# 先看字。微世界用到的字不多，个个常见。真诗呢？把每个字按出现次数排队：

# %% tags=["hide-input"] mystnb={"figure": {"caption": "训练诗里每个字的名次和出现次数，两根轴都是对数刻度。灰线是齐夫定律：次数与名次成反比。", "name": "fig-poems-zipf"}, "image": {"alt": "两条线，横轴是字的名次，纵轴是出现次数。实测的线起初在反比例的灰线上方，最后几千名落到下方"}}
zipf = FOUND["zipf"]
law = [zipf["count"][0] / rank for rank in zipf["rank"]]
assert zipf["count"][10] > law[10]
assert zipf["count"][-1] < law[-1]
show.lines(
    {"诗里的字": (zipf["rank"], zipf["count"]), "齐夫定律": (zipf["rank"], law)},
    "名次",
    "出现次数",
    [show.COLOURS["pretrain"], show.GREY],
    log_x=True,
    log_y=True,
)

# %% tags=["remove-input"]
cover = zipf["cover"]
hundred, thousand, three = (cover[k] for k in ("100", "1000", "3000"))
assert hundred < 0.5 < thousand
assert zipf["once"] > 0.05 * zipf["distinct"]
show.say(
    f"训练诗去掉标点有 {zipf['characters']:,} 个字，{zipf['distinct']:,} 种。",
    f"最常用的 20 个是“{zipf['most']}”。",
    f"前 100 种占全部的 {hundred:.0%}，前 1,000 种占 {thousand:.0%}，前 3,000 种占 {three:.1%}；"
    f"另一头，有 {zipf['once']:,} 种只出现过一次。",
)

# %% [markdown]
# 一个词的次数大致与名次成反比，叫**齐夫定律**（Zipf's law）{cite:p}`zipf1949`，在这张图上是一条直线。它说的是词。字不照办：前几千名降得慢，因为常用的字就那么多，谁都要用；再往后陡降。这条长尾对模型意味着两件事：常用字它见过成千上万次，学得很好；还有几千种字，整个训练里只见几面，学不会。<!-- by: @zipf1949 --><!-- by: assert zipf["once"] > 0.05 * zipf["distinct"] -->
#
# 再看脏。真实的文字带着传抄和录入的痕迹。`tidy` 修得好的修，修不好的整首不要。下面四段都出自那个压缩包（《古意》里的“？”是缺了的字，宋诗那一部分用它占位）：

# %%
dirty = {
    "秋雨歎": "闌風長雨（一作「東風細雨」）秋紛紛，四海（一作「萬里」）八荒同一雲。去馬來牛不復辨，濁涇清渭何當分？",
    "守歲": "綬吐芽猶嫩，冰□已鏤津。薄紅梅色冷，淺綠柳輕春。",
    "古意": "平生？偃蹇，今逐梁君鴻。既甘布裙績，寧厭短褐舂。",
    "靖州歌": "小娘子，葉底花，無事出來吃盞茶。",
}
simplify = classical.simplifier()
verdicts = {"": "留下", "missing": "缺字，不要", "fragment": "残句，不要"}
rows = []
for title, text in dirty.items():
    lost = "？" if title == "古意" else ""  # in the poems of the Song, it stands for a character
    tidied = classical.tidy(simplify(text), verse=True)
    rows.append([text, tidied, verdicts[classical.problem(title, tidied, True, lost)]])
assert [row[2][:2] for row in rows] == ["留下", "缺字", "缺字", "残句"]
show.table(["原来", "修过", "结果"], rows)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "347,084 篇里去掉的，按原因数。", "name": "fig-poems-cleaning"}, "image": {"alt": "五根横条：缺字、怪符号、残句、重复、近似重复各去掉多少篇；残句的一根长得多"}}
reasons = {
    "缺字": "missing",
    "怪符号": "signs",
    "残句": "fragment",
    "重复": "copy",
    "近似重复": "near copy",
}
total = CLEANED["total"]
assert total["read"] == 347_084 == total["rows"] + sum(total[reason] for reason in reasons.values())
assert total["fragment"] == max(total[reason] for reason in reasons.values())
show.bars({name: total[reason] for name, reason in reasons.items()}, "篇")

# %% [markdown]
# 清洗去掉的不到一成；怎样判断，见{ref}`sec-sources`。<!-- by: round((347084 - 321723) / 347084, 2) == 0.07 -->
#
# ### 分词器
#
# 模型用的是内置的 6,400 个词元的分词器，它学自今天的中文和微世界的句子。合不合用，看留出的诗里每个字要几个词元。学自这些诗的更省；`run.sh` 不写明就用内置的，这里照它：<!-- by: minillm/assets/README.md -->

# %% tags=["hide-input"]
names = {"built-in": "内置（模型用的）", "poems": "学自这些诗", "micro-world": "微世界的"}
counted = FOUND["tokenizers"]
rows = [
    [
        name,
        f"{counted[key]['vocabulary']:,}",
        counted[key]["tokens_per_character"],
        f"{counted[key]['split_characters']:.1%}",
    ]
    for key, name in names.items()
    if key in counted
]
show.table(["分词器", "词表", "每字词元", "拆开的字"], rows)

# %% tags=["remove-input"]
mine, world = counted["built-in"], counted["micro-world"]
assert mine["tokens_per_character"] * 1.5 < world["tokens_per_character"]
show.say(
    f"内置的分词器，每个字 {mine['tokens_per_character']:.2f} 个词元，"
    f"{mine['split_characters']:.1%} 的字要拆成几个词元来写。",
    f"微世界的分词器要 {world['tokens_per_character']:.2f} 个，后面“弄坏它”会细看。",
)

# %% [markdown]
# ### 每个字几比特
#
# 现在比第一件事。留出的 2,000 首诗，连题目、作者和标点，每个字要几比特？几个对手：不同长度的 n 元模型，折扣 $D$ 用另一批训练诗挑；压缩程序 xz，单独压，和先让它读 4 MB 训练诗再压；还有微世界的小模型，它没有读过诗。下面括号里的标准误，是说换 2,000 首别的诗，这个平均数大约会变多少。<!-- by: benchmarks/poems.py -->

# %% tags=["hide-input"] mystnb={"figure": {"caption": "留出的诗每个字要几比特（越少越好）。微世界的小模型太差，不在图中。", "name": "fig-poems-bits"}, "image": {"alt": "横条图：一元到四元模型、xz 单独压、xz 读过训练诗、small 模型，每个字的比特数；small 的一根最短"}}
bits = FOUND["bits"]
grams = [bits[f"{n}-gram"]["bits_per_character"] for n in (1, 2, 3, 4)]
small, error = bits["small"]["bits_per_character"], bits["small"]["standard_error"]
bars = {f"{n}元模型": value for n, value in zip("一二三四", grams, strict=True)}
bars |= {"xz": bits["xz"]["alone"], "xz，读过训练诗": bits["xz"]["after"], "small": small}
assert grams[0] - grams[1] > grams[1] - grams[2] > grams[2] - grams[3] > 0
assert small + 3 * error < min(grams)
assert min(bars.values()) == small
colours = [show.COLOURS["other"]] * 4 + [show.GREY] * 2 + [show.COLOURS["pretrain"]]
show.bars(bars, "每字比特数", colours)

# %% tags=["remove-input"]
tiny = bits["tiny"]["bits_per_character"]
best = min(grams)
assert tiny > bits["1-gram"]["bits_per_character"]
assert best - small > 0.2
show.say(
    f"small 每个字 {small:.2f} 比特（标准误 {error:.2f}），最好的 n 元模型 {best:.2f}，"
    f"相差 {best - small:.2f}。比特是对数：{small:.2f} 比特相当于在 {2**small:.0f} 个字里瞎猜一个，"
    f"{best:.2f} 比特相当于 {2**best:.0f} 个。",
    f"xz 单独压要 {bits['xz']['alone']:.2f}，读过训练诗也要 {bits['xz']['after']:.2f}："
    "它靠整段的重复省地方，诗里整段的重复很少。",
    f"没有读过诗的小模型要 {tiny:.1f}，还不如只数字频的一元模型。",
)

# %% [markdown]
# n 元模型每多看一个字，好处就少一截：前文越长，语料里见过的越少。神经网络看得到整首诗，用得上这一首是五言还是七言、押什么韵、写到第几句。它赢的也不是读得多：n 元模型数遍了训练诗，它只读了其中三成（后面说它背不背得出时有数）。<!-- by: benchmarks/poems.py --><!-- by: book/results/poems.json --><!-- by: assert grams[0] - grams[1] > grams[1] - grams[2] > grams[2] - grams[3] > 0 -->
#
# ### 句长、押韵、平仄
#
# 第二件事。从留出的诗里取 200 个题目和作者，让各个阶段的模型从“《题目》作者”往下写，温度 1，也就是照它自己的概率抽；监督微调以后的模型用“写一首《题目》”问。对照有三个：这 200 首真诗；把每首真诗的字打乱（标点不动），这是碰巧的水平；三元模型写的。线是 95% 区间。<!-- by: benchmarks/poems.py -->

# %% tags=["hide-input"] mystnb={"figure": {"caption": "各自写的诗：全首五言或七言的占多少；其中偶句押韵的，每句平仄相间的，各占多少；没有一首整齐的，后两栏空着。", "name": "fig-poems-form"}, "image": {"alt": "三栏点图，栏目是句长整齐、偶句押韵、平仄相间，每行一个作者：真诗、打乱的真诗、三元模型、预训练各步、监督微调；随着步数，点往右移，向真诗靠近"}}
form = FOUND["form"]
names = {"real": "真诗", "shuffled": "真诗打乱", "ngram": "三元模型"}
names |= {f"step {step}": f"第 {step:,} 步" for step in FOUND["steps"]}
names |= {"sft": "监督微调", "sft, 0.7": "微调，温度 0.7"}
panels = {"metre": "句长整齐", "rhymes": "偶句押韵", "tones": "平仄相间"}
scores = {
    title: {
        names[row]: (found[panel]["share"], *found[panel]["interval"])
        for row, found in form.items()
        if found[panel]["n"]
    }
    for panel, title in panels.items()
}
colours = {
    "真诗": show.COLOURS["dpo"],
    "监督微调": show.COLOURS["sft"],
    "微调，温度 0.7": show.COLOURS["sft"],
}
colours |= {names[f"step {step}"]: show.COLOURS["pretrain"] for step in FOUND["steps"]}
show.intervals(scores, colours)

# %% tags=["remove-input"]
early, before, last = (form[f"step {FOUND['steps'][i]}"] for i in (0, -2, -1))
real, mixed, counting, cool = (form[name] for name in ("real", "shuffled", "ngram", "sft, 0.7"))
rhymed, level = ([one[what]["share"] for one in (before, last)] for what in ("rhymes", "tones"))
assert last["metre"]["share"] > max(early["metre"]["share"], counting["metre"]["share"]) + 0.3
assert rhymed[0] < mixed["rhymes"]["share"] + 0.1 < rhymed[1] - 0.2
assert level[0] > mixed["tones"]["share"] + 0.1
show.say(
    f"句长最先学会，从 {early['metre']['share']:.0%} 到 {last['metre']['share']:.0%}；"
    f"真诗是 {real['metre']['share']:.0%}，其余多半是词曲；三元模型是 {counting['metre']['share']:.0%}，它数不到五。",
    f"平仄其次：第 {FOUND['steps'][-2]:,} 步已有 {level[0]:.0%}，碰巧只有 {mixed['tones']['share']:.0%}。"
    f"韵来得最晚：那时 {rhymed[0]:.0%}，还是碰巧的水平（{mixed['rhymes']['share']:.0%}），"
    f"到第 {FOUND['steps'][-1]:,} 步是 {rhymed[1]:.0%}。平仄隔一个字就用得上，韵要记住隔了一整句的字。",
)

# %% tags=["remove-input"]
warm = form["sft"]
assert all(cool[what]["share"] > warm[what]["share"] + 0.1 for what in panels)
show.say(
    "把温度从 1 降到 0.7，只挑把握大的字，三样都更像真诗：",
    "、".join(f"{title} {cool[what]['share']:.0%}" for what, title in panels.items()),
    "；真诗依次是 " + "、".join(f"{real[what]['share']:.0%}" for what in panels) + "。",
)

# %% [markdown]
# 没有人告诉模型什么是五言，什么是韵。它只是猜下一个字；而真诗里，下一个字是什么，取决于这是第几个字、该押什么韵。<!-- by: reasoning -->
#
# 监督微调以后，指定体裁，它照办吗？

# %% tags=["hide-input"]
rows = [
    [form, *(found[key]["share"] or 0.0 for key in ("obeyed", "rhymes", "tones"))]
    for form, found in FOUND["asked"].items()
]
green = show.COLOURS["sft"]
show.table(["要的体裁", "照办", "偶句押韵", "平仄相间"], rows, [None, green, green, green])

# %% [markdown]
# 六成上下照办。律诗的韵和平仄偏低：句数多一倍，一处不合，整首就不算。<!-- by: book/results/poems.json -->
#
# 每种问 50 次，所以每个数的 95% 区间有正负十来个百分点。<!-- by: round(1.96 * math.sqrt(0.25 / 50), 2) == 0.14 -->
#
# ### 写的，还是抄的
#
# 第三件事。每首写出来的诗，去掉标点，找它与全部训练诗相同的最长一段。对照还是真诗：留出的诗没有训练过，可是诗人也用典、也借前人的句子。

# %% tags=["hide-input"] mystnb={"figure": {"caption": "与某首训练诗有至少这么长一段相同的诗，占多少。五个字是一句五言，十个字是一联。蓝线和绿线叠在一起，所以一粗一细。", "name": "fig-poems-copies"}, "image": {"alt": "几条下降的曲线，横轴是相同的字数，纵轴是诗的比例：留出的真诗、三元模型、预训练的模型、监督微调的模型"}}
histograms = FOUND["memory"]["copied"]
chosen = {
    "real": "留出的真诗",
    "ngram": "三元模型",
    f"step {FOUND['steps'][-1]}": "预训练",
    "sft": "监督微调",
}


def at_least(histogram, k):
    """The share of poems whose longest copy has k characters or more."""
    return sum(n for length, n in histogram.items() if int(length) >= k) / sum(histogram.values())


lengths = list(range(1, 11))
courses = {n: (lengths, [at_least(histograms[h], k) for k in lengths]) for h, n in chosen.items()}
colours = [show.COLOURS[c] for c in ("dpo", "other", "pretrain", "sft")]
show.lines(courses, "相同的字数（至少）", "诗的比例", colours, legend=True)

# %% tags=["remove-input"]
written, poets, cooler = (
    [at_least(histograms[name], k) for k in (5, 10)]
    for name in (f"step {FOUND['steps'][-1]}", "real", "sft, 0.7")
)
assert written[1] < 0.05
assert max(written[0], cooler[0]) < poets[0] - 0.05
show.say(
    f"预训练的模型写的诗，有五个字（一句五言）与某首训练诗相同的占 {written[0]:.0%}，"
    f"有十个字（一联）相同的占 {written[1]:.1%}；留出的真诗是 {poets[0]:.0%} 和 {poets[1]:.1%}。",
    f"抄得比诗人少得多。温度 0.7 时，五个字相同的是 {cooler[0]:.1%}，仍然少于诗人。",
)

# %% [markdown]
# 诗人为什么“抄”得多？他们用典，借前人的句子，也用“不知何处是”这样的熟语；还可能是去重漏过的另一个版本（{ref}`sec-sources`）。<!-- by: minillm/data/near.py --><!-- by: assert max(written[0], cooler[0]) < poets[0] - 0.05 -->
#
# 抄得少，不等于写得好。第 100 步的模型一首也没有抄到五个字，因为它满口胡话。<!-- by: book/results/poems.json -->温度 1 时每个字都掷一次骰子，要一路掷中五个字的熟语，机会很小。三元模型抄得比神经网络多：它只看前两个字，若这两个字少见，后面来过的就那么一两种，它多半照着接下去。所以这张图只说明一件事：它的句子不是从训练诗里搬来的。<!-- by: book/results/poems.json -->
#
# 反过来问：给它一首读过的诗的第一句，它背得出第二句吗？有名的诗会不会背得好些？<!-- by: reasoning -->

# %% tags=["hide-input"]
memory = FOUND["memory"]
groups = {
    "famous": f"读过的，在原来的集子里出现 {memory['famous']} 次以上",
    "once": "读过的，只出现一次",
    "held out": "没有读过的",
}
rows = []
for key, name in groups.items():
    recited = memory["recited"][key]["next"]
    low, high = recited["interval"]
    rows.append([name, recited["n"], f"{recited['share'] or 0:.1%}", f"{low:.1%}–{high:.1%}"])
show.table(["给出题目、作者和第一句", "首数", "下一分句一字不差", "95% 区间"], rows)

# %% tags=["remove-input"]
shares = {key: found["next"]["share"] or 0 for key, found in memory["recited"].items()}
asked = memory["asked"]
assert max(shares["once"], shares["held out"]) < 0.05
assert asked["held out"]["share"] < 0.05
show.say(
    "一首也背不出。" if not max(shares.values()) else "几乎背不出。",
    f"训练诗有 {memory['train']:,} 首，训练的步数只够读到其中 {memory['seen']:,} 首"
    f"（{memory['seen'] / memory['train']:.0%}），每首一遍；去重以后，有名的诗也只剩一份。",
    f"监督微调时问过的题目再问一次，头一个分句与原诗相同的占 {asked['trained']['share']:.1%}"
    f"（{asked['trained']['n']} 道），没有问过的占 {asked['held out']['share']:.1%}。",
)

# %% [markdown]
# {cite:t}`carlini2023memorization` 量过大得多的模型：参数越多、重复越多、给的前文越长，背得越多，都是按对数增长。{cite:t}`lee2022dedup` 发现，去重以后训练的模型，吐出原文的次数只有原来的十分之一。我们的模型小，数据去过重，只读一遍，三样都站在“不背”的一边。<!-- by: @carlini2023memorization --><!-- by: @lee2022dedup -->
#
# :::{admonition} 真实世界
# :class: real-world
#
# 大模型的语料，清洗的规矩也是一条一条写的。C4（2020）只留以句号、问号、叹号或引号收尾的行，有脏词的网页整页不要，三句连着重复的只留一份 {cite:p}`raffel2020t5`；即便如此，其中仍有一句 61 个词的话出现了六万多次 {cite:p}`lee2022dedup`。FineWeb（2024）也用 MinHash，14 段，每段 8 个数，正是{numref}`第 %s 章 <sec-scale>`的那一种。它把各次抓取的网页合在一起去重，几乎没有好处；每次抓取各自去重，好处才出来 {cite:p}`penedo2024fineweb`。DeepSeek LLM（2024）走的是另一条路：91 次抓取合起来去，去掉的是单独去的四倍 {cite:p}`bi2024deepseek`。<!-- by: @raffel2020t5 --><!-- by: @lee2022dedup --><!-- by: @penedo2024fineweb --><!-- by: @bi2024deepseek -->
#
# 背了多少，量法和本章一样：给一段开头，贪心解码，接下去的 50 个词元一字不差，就算背下了。照这样量，60 亿参数的 GPT-J 至少背下了训练数据的 1% {cite:p}`carlini2023memorization`。{cite:t}`cooper2025books` 查了 200 本书、14 个公开权重的模型：多数模型背不出多数书；可是 Llama 3.1 70B，给《哈利·波特》第一本的头几个词，就能把整本几乎一字不差地说完。（2026 年 11 月核对。）<!-- by: @carlini2023memorization --><!-- by: @cooper2025books -->
# :::
#
# ### 给爸爸妈妈看的
#
# 三个训练诗里有的题目，三个没有的。贪心解码（每次取最可能的词元）各一首，温度 0.7 各抽一首。种子是事先定的，没有挑过：<!-- by: benchmarks/poems.py -->

# %% tags=["hide-input"]
rows = [
    [
        f"《{one['title']}》（训练诗里 {one['poems']} 首）",
        one["greedy"],
        one["sampled"][f"写一首《{one['title']}》"],
    ]
    for one in FOUND["showcase"]["asked"]
]
show.table(["题目", "贪心", "温度 0.7"], rows)

# %%
greedy = {one["title"]: verse.clauses(one["greedy"]) for one in FOUND["showcase"]["asked"]}
loops = [title for title, lines in greedy.items() if len(set(lines)) < len(lines)]
assert loops
loops

# %% [markdown]
# 上面列出题目的几首，贪心写着写着绕起了圈子，同一句来了又来。每一步都取最可能的，整首反而不像话；抽一抽，才有变化。<!-- by: assert loops -->
#
# 也可以连体裁一起要：

# %% tags=["hide-input"]
questions = [
    (q, a) for one in FOUND["showcase"]["asked"] for q, a in one["sampled"].items() if "绝句" in q
]
show.table(["问", "答（温度 0.7）"], questions[:2] + questions[-4:])

# %% [markdown]
# 自己训练过的，在终端里问它：`minillm chat --preset small --prompt 写一首五言绝句《春夜》 --temperature 0.7 --seed 1`。种子换一个，诗就换一首。
#
# ### 它不懂什么
#
# 第四件事。题目是《地铁》，它照样写山水。<!-- by: book/results/poems.json -->怎样数“懂不懂题目”？一个很粗的办法：题目里的字，诗里出现了吗？碰巧的水平，是拿别的诗的题目来对。

# %% tags=["hide-input"]
shown = ("real", "ngram", f"step {FOUND['steps'][-1]}", "sft", "sft, 0.7")
found = FOUND["form"]
rows = [
    [names[key], found[key]["title"]["share"], found[key]["other_title"]["share"]] for key in shown
]
blue = show.COLOURS["pretrain"]
show.table(["诗里有题目中的字", "自己的题目", "别人的题目"], rows, [None, blue, show.GREY])

# %% tags=["remove-input"]
title = {key: found[key]["title"]["share"] - found[key]["other_title"]["share"] for key in shown}
assert title["real"] > 0.1
show.say(
    f"真诗比碰巧高出 {title['real'] * 100:.0f} 个百分点，监督微调以后的模型高出 {title['sft'] * 100:.0f} 个，"
    f"三元模型 {title['ngram'] * 100:.0f} 个。",
    "模型看了题目，用上其中的字。"
    if title["sft"] > title["ngram"] + 0.03
    else "模型没有比数数的更照顾题目。",
)

# %% [markdown]
# 用上题目里的字，离懂还远。它不懂的，一条一条说：<!-- by: reasoning -->
#
# - **没有人，没有事**。真诗里有一个人在一个晚上想起另一个人；它只有“诗里这时候常来什么字”。上一句下雨，下一句可以有月亮，它不觉得有什么不对。
# - **一首诗没有中心**。两句之间接得上，四句合起来在说什么，说不出来。
# - **典故只是字串**。“灞桥”“南浦”对它是常在送别诗里出现的两个字。
# - **世界停在古代**。地铁、程序、冰箱不在它的世界里，它也不会说“我不知道”。
#
# 这些不是再训练一个小时能补上的。形式可以从一千多万个字里数出来，意思不能。<!-- by: book/results/poems.json -->
#
# ## 弄坏它
#
# ### 拿错了分词器
#
# 最容易犯的错：换了数据，没有换分词器。微世界的分词器只有 1,024 个词元，学自微世界的句子，诗里的字它多半没有见过，只能一个字节一个字节地写。看同一句：

# %%
built_in, micro = RustBPETokenizer.load(), lab.tokenizer()
assert micro.vocab_size == 1_024
line = "欲穷千里目，更上一层楼。"
show.tokens(line, {"内置的 6,400": built_in, "微世界的 1,024": micro})

# %%
spent = {name: len(t.encode(line)) for name, t in (("内置", built_in), ("微世界", micro))}
assert spent["微世界"] > 1.5 * spent["内置"]
unknown = [c for c in classical.bare(line) if len(micro.encode(c)) > 1]
assert all(len(micro.encode(c)) <= len(c.encode()) == 3 for c in unknown)
print(f"{len(line)} characters: {spent}; in several tokens: {''.join(unknown)}")

# %% tags=["remove-input"]
assert world["tokens_per_character"] > 1.5 * mine["tokens_per_character"]
show.say(
    f"在 2,000 首留出的诗上，微世界的分词器每个字要 {world['tokens_per_character']:.2f} 个词元，"
    f"{world['split_characters']:.0%} 的字是拆开写的，内置的是 {mine['tokens_per_character']:.2f} 个和 "
    f"{mine['split_characters']:.1%}。",
    f"窗口是 256 个词元，内置的装得下 {256 / mine['tokens_per_character']:.0f} 个字，"
    f"微世界的只装得下 {256 / world['tokens_per_character']:.0f} 个；"
    f"写一首诗，要的时间是 {world['tokens_per_character'] / mine['tokens_per_character']:.1f} 倍。",
)

# %% [markdown]
# 不报错，也训练得下去，损失甚至更好看：拆成字节以后，同一个字的第二、第三个字节很好猜，每个**词元**的损失就低。所以换分词器以后，每词元的损失不能比，要比每字比特数。先看一眼“拆开的字”占多少，是最便宜的检查：`minillm evaluate --text` 会数，超过两成就警告。<!-- by: minillm/own/text.py -->
#
# ### 平仄看今天的声调
#
# 另一种错：拿今天的拼音判断平仄，一声二声算平，三声四声算仄。许多入声字就判反了。

# %%
entering = "白日一国月竹石不独客"
today = {"平": "一国竹石独白", "仄": "日月不客"}
assert all(tones.tone(c, levels) == "仄" for c in entering)
assert sorted(entering) == sorted("".join(today.values()))
{sign: [c for c in entering if c in found] for sign, found in today.items()}

# %% [markdown]
# 十个入声字，今天有六个念一声或二声。用错了表，合律的真诗也会判成不合，模型写的也是，看起来像是模型不行。量之前，先拿真诗试一试尺子。<!-- by: assert all(tones.tone(c, levels) == "仄" for c in entering) -->
#
# ## 收尾
#
# 三个固定的题目，从第一个检查点到监督微调。每一步都用同一个温度 0.7：

# %% tags=["hide-input"]
label = {str(step): f"第 {step:,} 步" for step in FOUND["steps"]} | {"sft": "监督微调"}
header = ["", *(f"《{title}》" for title in FOUND["showcase"]["titles"])]
show.table(header, [[label[stage], *poems] for stage, poems in stages.items()])

# %% tags=["remove-input"]
steps = [form[f"step {step}"]["metre"]["share"] for step in FOUND["steps"]]
assert steps[-1] > steps[0] + 0.3
show.say(
    "往下读这张表：先有标点，再有齐整的句子，平仄跟着来，最后才有韵。"
    f"句长整齐的比例，各步依次是 {'、'.join(f'{value:.0%}' for value in steps)}。"
)

# %% [markdown]
# ### 小结
#
# - 真实的文字有长尾：前一千种字占了大半，还有几千种几乎不出现。<!-- by: assert hundred < 0.5 < thousand -->
# - 每字比特数与分词器无关，可以和 n 元模型、压缩程序比；small 比它们都好。<!-- by: assert min(bars.values()) == small -->
# - “像诗”可以拆成能数的：句长、押韵、平仄，各有真诗和碰巧两个对照。
# - 它不抄，也背不出；小模型、去过重、只读一遍。<!-- by: assert written[1] < 0.05 --><!-- by: assert max(shares["once"], shares["held out"]) < 0.05 -->
# - 形式学得到，意思学不到。<!-- by: reasoning -->
#
# ### 练习
#
# :::{exercise} ★☆☆
# :label: ex-poems-1
# 算一算：每字 6 比特，相当于在多少个字里瞎猜一个？一首二十个字的绝句（不算标点）一共多少比特，等于多少个汉字的 UTF-8 编码？
# :::
#
# :::{solution} ex-poems-1
# :class: dropdown
# $2^6 = 64$ 个字。二十个字 $20 \times 6 = 120$ 比特，也就是 15 字节；一个汉字的 UTF-8 编码是 3 字节，所以一首诗等于五个汉字。无损压缩，用这个模型只要这么多。<!-- by: 20 * 6 / 8 == 15 -->
# :::
#
# :::{exercise} ★★☆
# :label: ex-poems-2
# 写代码：把《静夜思》的四句打乱次序，二十四种排法里，有几种偶句还押韵？这说明“碰巧押韵”有多容易？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# `itertools.permutations` 列出全部排法，用“，”接起来交给 `verse.rhymes`。动手之前先猜一个数。
# :::
#
# :::{solution-start} ex-poems-2
# :class: dropdown
# :::

# %%
lines = verse.clauses(famous["静夜思"])
orders = ["，".join(order) for order in permutations(lines)]
rhyming = sum(verse.rhymes(order) for order in orders)
assert (len(orders), rhyming) == (24, 12)
rhyming

# %% [markdown]
# 光、霜、乡同韵，“月”不同。偶句的两个末字要从三个里挑，$3 \times 2 = 6$ 种，另外两句怎样排都行，再乘 2，得 12 种，一半。这首诗四句有三句同韵，所以容易；对照要把字打乱，不能只把句子打乱。<!-- by: assert (len(orders), rhyming) == (24, 12) -->
#
# :::{solution-end}
# :::
#
# :::{exercise} ★☆☆
# :label: ex-poems-3
# 弄坏它：把手算里的两个折扣都设成 0，“春生”要多少比特？
# :::
#
# :::{solution-start} ex-poems-3
# :class: dropdown
# :::

# %%
two.discounts = [0.0, 0.0]
with np.errstate(divide="ignore"):
    broken = [float(two.bits(line)[1]) for line in ("春眠", "春生")]
assert broken == [1.0, np.inf]
broken

# %% [markdown]
# 不扣就没有东西可分。见过的“春眠”便宜了，1 比特；没见过的要无穷多比特，一首诗里有一处，整首就是无穷。<!-- by: assert broken == [1.0, np.inf] -->
#
# :::{solution-end}
# :::
#
# :::{exercise} ★★☆
# :label: ex-poems-4
# 想一想：留出集是按篇随机抽的，同一个诗人的其他诗在训练里。若想知道模型能不能写出没有读过的*诗人*，该怎样留出？再想知道它懂不懂“时代”呢？
# :::
#
# :::{admonition} 提示
# :class: dropdown
# 留出来的与训练过的，隔得近的是同一个人的另一首。怎样划，才隔得更远？
# :::
#
# :::{solution} ex-poems-4
# :class: dropdown
# 按诗人留出：一个诗人的全部诗要么都训练，要么都留出。再按朝代留出，例如训练只用唐诗，留出清代的词。留得越远，分数越低；差多少，就是“见过同一个人”“见过同一个时代”值多少。只按篇抽，量不出这个差别。
# :::
#
# :::{exercise} ★★☆ 动手：粘和对
# :label: ex-poems-faults
# 本章的“平仄相间”只看一句之内。格律诗还管句与句之间，两条规则：
#
# - “对”：一联两句，第 2、4 字（七言还有第 6 字）的平仄都要相反。
# - “粘”：后一联的头一句，第 2 字的平仄要与前一联的末句相同。
#
# 写出 `faults(lines)`：`lines` 是一首诗各句的平仄，例如 `["仄仄平平仄", "平平仄仄平", …]`，两可的字写作“中”，它与什么都合。从头到尾找出不合的地方：第 $i$ 句（从 0 数起）与前一句不对，记 `(i, "对")`；不粘，记 `(i, "粘")`。返回这样的列表，没有就是空的。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# $i$ 是奇数时，第 $i$ 句与前一句是一联，看“对”；是偶数时看“粘”。第 2、4、6 字的下标是 1、3、5，`range(1, len(line), 2)` 对五言和七言都对。
# :::


# %%
def faults(lines: list[str]) -> list[tuple[int, str]]:
    return ...


tasks.check("14.1", faults)

# %% [markdown]
# :::{solution} ex-poems-faults
# :class: dropdown
# ```python
# def faults(lines):
#     found = []
#     for i in range(1, len(lines)):
#         rule, places = ("对", range(1, len(lines[i]), 2)) if i % 2 else ("粘", [1])
#         pairs = [(lines[i - 1][place], lines[i][place]) for place in places]
#         if any("中" not in pair and (pair[0] == pair[1]) == (rule == "对") for pair in pairs):
#             found.append((i, rule))
#     return found
# ```
# 检查用的是五首名篇。《春晓》每句之内平仄相间，却失粘；王维的“渭城朝雨”也失粘，照样传诵。想数一数模型写的诗，先用 `tones.tone(c, levels) or "中"` 把字变成平仄。
# :::
#
# :::{exercise} ★★★ 动手：自己写 Kneser–Ney
# :label: ex-poems-kn
# 把手算写成程序。每条文字的前后各有一个换行符 `"\n"`，当作句首和句尾。写出 `probability(texts, before, char, d)`：按 {eq}`eq-poems-kn`，在 `texts` 里数数，折扣都是 `d`，返回 `before` 后面是 `char` 的概率。
#
# - 上面一级：$c$ 数相邻的对出现几次，$t$ 数 `before` 后面见过几种。
# - 下面一级：*不同的*对一共 $M$ 种，其中以 `char` 结尾的 $m$ 种；后一个字一共 $K$ 种；字表有 $V$ 个，即不同的字的个数，加上句尾和生字。$p = (\max(m - d, 0) + d K / V) / M$。
# - `before` 从没见过，就只用下面一级。
# :::
#
# :::{admonition} 提示
# :class: dropdown
# `Counter` 数相邻的对，它的键就是不同的对，再用一个 `Counter` 数这些键的后一个字。手算的那两句，$M$ 是 11，$K$ 是 10，$V$ 是 11，先核对这三个数。
# :::


# %%
def probability(texts: list[str], before: str, char: str, d: float) -> float:
    return ...


tasks.check("14.2", probability)

# %% [markdown]
# :::{solution} ex-poems-kn
# :class: dropdown
# ```python
# from collections import Counter
# from itertools import pairwise
#
#
# def probability(texts, before, char, d):
#     pairs = Counter(pair for text in texts for pair in pairwise("\n" + text + "\n"))
#     ends = Counter(end for _, end in pairs)
#     size = len(set("".join(texts))) + 2
#     p = (max(ends[char] - d, 0) + d * len(ends) / size) / len(pairs)
#     after = [count for (first, _), count in pairs.items() if first == before]
#     if not after:
#         return p
#     return (max(pairs[before, char] - d, 0) + d * len(after) * p) / sum(after)
# ```
# 一个字的概率加起来要等于 1，这是最有用的检查：扣下的和分出去的必须一样多，折扣写错一处，和就不是 1。接下去可以自己写三元：下面一级换成这个函数。
# :::
#
# ### 延伸阅读
#
# - {cite:t}`chen1999smoothing`：n 元模型的平滑，方法和比较都写得清楚，今天仍是做对照的好办法。
# - {cite:t}`carlini2023memorization`：大模型背了多少，怎样量。
# - {cite:t}`lee2022dedup`：去重为什么要紧。
# - {cite:t}`zhang2014poetry`：用循环网络一句一句写绝句，读读十几年前怎样处理押韵和平仄。
