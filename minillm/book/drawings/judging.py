"""How far a score can be trusted: drawings of the chance of an exam, of an interval, of a
comparison, and of the chance of training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minillm.book.canvas import COLOURS, GREY, Canvas, Picture, drawn

_SIZE = 11
_RIGHT, _LEFT = COLOURS["pretrain"], COLOURS["bad"]


def _panels(width: float, height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = [figure.add_subplot(rows, 1, i + 1) for i in range(rows)]
    for axes in panels:
        axes.tick_params(labelsize=_SIZE)
    return figure, panels


def _chances(n: int, truth: float) -> np.ndarray:
    """Of each number of right answers, ``[n + 1]``."""
    return np.array([math.comb(n, k) * truth**k * (1 - truth) ** (n - k) for k in range(n + 1)])


def _usual(n: int, truth: float, z: float = 1.96) -> tuple[float, float]:
    """Between which numbers of right answers nothing surprises."""
    half = z * math.sqrt(truth * (1 - truth) * n)
    return truth * n - half, truth * n + half


@drawn
def exam_scores(truth: float, n: int) -> Picture:
    """How likely each score is in an exam of ``n`` questions, when each answer is right with
    probability ``truth``: a bar for each number of right answers, in colour within 1.96 standard
    deviations of the middle.

    Args:
        truth: strictly between 0 and 1.
    """
    if not 0 < truth < 1:
        raise ValueError(f"truth={truth}: it must lie between 0 and 1")
    figure, (axes,) = _panels(5.2, 2.7)
    chances, (low, high) = _chances(n, truth), _usual(n, truth)
    inside = np.array([low <= k <= high for k in range(n + 1)])
    shown = np.flatnonzero(chances > 5e-4)
    for k in shown:
        axes.bar(k, chances[k], 0.85, color=_RIGHT if inside[k] else _LEFT)
    first, last = np.flatnonzero(inside)[[0, -1]]
    share = float(chances[inside].sum())
    top = float(chances.max())
    axes.plot([first - 0.4, last + 0.4], [1.14 * top] * 2, color=_RIGHT)
    words = f"{share:.0%} 的卷子：{first} 到 {last} 题"
    axes.text((first + last) / 2, 1.2 * top, words, color=_RIGHT, ha="center", fontsize=_SIZE)
    axes.set_ylim(0, 1.4 * top)
    axes.set_xlabel(f"{n} 题里答对几题", fontsize=_SIZE)
    axes.set_ylabel("概率", fontsize=_SIZE)
    told = f"真值 {truth:g}，考 {n} 题：常见的是答对 {int(np.argmax(chances))} 题，{words}"
    return Picture(figure, told)


@drawn
def possible_truths(correct: int, n: int, truths: Sequence[float]) -> Picture:
    """Which truths an exam of ``correct`` out of ``n`` leaves possible: a row for each of
    ``truths``, with the scores that it would lead to; in colour when ``correct`` is among the usual
    ones, grey when it would be a surprise. A line marks ``correct``.

    Args:
        truths: each strictly between 0 and 1; the first in the lowest row.
    """
    figure, (axes,) = _panels(5.2, 0.55 * len(truths) + 0.9)
    start, told = n, []
    for row, truth in enumerate(truths):
        chances, (low, high) = _chances(n, truth), _usual(n, truth)
        possible = low <= correct <= high
        colour = _RIGHT if possible else GREY
        shown = np.flatnonzero(chances > 2e-3)
        start = min(start, int(shown[0]))
        heights = 0.8 * chances[shown] / chances.max()
        axes.bar(shown, heights, 0.85, bottom=row, color=colour, alpha=0.65)
        axes.plot([low, min(high, n)], [row - 0.07] * 2, color=colour, linewidth=3)
        told.append(f"真值 {truth:g} {'说得通' if possible else '说不通'}")
    axes.axvline(correct, color=_LEFT, linestyle="--", linewidth=1.4)
    words = f"看到的：{correct} 题 "
    axes.text(correct, len(truths) + 0.02, words, color=_LEFT, ha="right", fontsize=_SIZE)
    axes.set_yticks(range(len(truths)), [f"真值 {truth:.2f}" for truth in truths])
    axes.set_ylim(-0.25, len(truths) + 0.35)
    axes.set_xlim(start - 0.6, n + 0.6)
    axes.set_xlabel(f"{n} 题里答对几题（粗线：平常的范围）", fontsize=_SIZE)
    return Picture(figure, f"{n} 题对 {correct} 题：" + "，".join(told))


def _bell(x: np.ndarray, middle: float, deviation: float) -> np.ndarray:
    """Of height 1."""
    height: np.ndarray = np.exp(-0.5 * ((x - middle) / deviation) ** 2)
    return height


@drawn
def two_bells(difference: float, deviations: Mapping[str, float]) -> Picture:
    """What a comparison of two models measures, as bells: one around 0, if they are equally good,
    one around ``difference``, if the second is better by so much. Shaded: the share of the second
    bell beyond 1.96 standard deviations, where the difference is seen.

    Args:
        deviations: name of a panel → the standard deviation of the measured difference.
    """
    figure, panels = _panels(5.2, 1.55 * len(deviations) + 0.5, len(deviations))
    widest = max(deviations.values())
    x = np.linspace(-3 * widest, difference + 3 * widest, 600)
    told = []
    for axes, (name, deviation) in zip(panels, deviations.items(), strict=True):
        line = 1.96 * deviation
        power = 0.5 * math.erfc((line - difference) / deviation / math.sqrt(2))
        equal, better = _bell(x, 0, deviation), _bell(x, difference, deviation)
        axes.plot(x, equal, color=GREY)
        axes.plot(x, better, color=_RIGHT)
        axes.fill_between(x, better, where=(x >= line).tolist(), color=_RIGHT, alpha=0.35)
        axes.axvline(line, color=_LEFT, linestyle="--", linewidth=1.4)
        axes.text(line, 1.22, " 1.96 个标准差", color=_LEFT, ha="left", fontsize=_SIZE)
        axes.text(x[0], 1.05, name, ha="left", fontsize=_SIZE)
        words = f"看得出 {power:.0%}"
        axes.text(x[-1], 0.75, words, color=_RIGHT, ha="right", fontsize=_SIZE)
        axes.set_ylim(0, 1.45)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlim(x[0], x[-1])
        told.append(f"{name}{words}")
    panels[-1].set_xlabel("量到的差（灰：其实一样好，蓝：其实好这么多）", fontsize=_SIZE)
    return Picture(figure, f"真正的差 {difference:g}：" + "；".join(told))


@drawn
def power_curves(
    numbers: Sequence[int],
    shares: Mapping[str, Sequence[float]],
    needed: Mapping[str, int],
    level: float = 0.8,
) -> Picture:
    """How often a difference is seen, by the number of questions; for each way of asking the
    number that is needed for ``level``.

    Args:
        shares: way of asking → share of comparisons, one for each of ``numbers``.
        needed: the same ways → number of questions.
    """
    figure, (axes,) = _panels(5.4, 3.0)
    axes.axhline(level, color=GREY, linestyle=":", linewidth=1.2)
    axes.text(numbers[-1] * 1.33, level - 0.08, f"{level:.0%}", fontsize=_SIZE, ha="right")
    told = []
    for (name, line), colour in zip(shares.items(), (_RIGHT, _LEFT), strict=False):
        axes.plot(numbers, line, "o-", color=colour, markersize=4, label=name)
        axes.plot([needed[name]] * 2, [0, level], color=colour, linestyle="--", linewidth=1.2)
        words = f"{needed[name]} 题"
        axes.text(needed[name] * 1.03, 0.03, words, color=colour, fontsize=_SIZE)
        told.append(f"{name}要 {words}才到 {level:.0%}")
    axes.set_xscale("log")
    axes.set_xticks(list(numbers), [f"{n}" for n in numbers])
    axes.minorticks_off()
    axes.set_xlim(right=numbers[-1] * 1.35)
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("每个模型考几题", fontsize=_SIZE)
    axes.set_ylabel("看得出差别的份额", fontsize=_SIZE)
    axes.legend(fontsize=_SIZE, loc="upper left")
    return Picture(figure, "；".join(told))


def same_questions(
    first: Sequence[bool], second: Sequence[bool], names: tuple[str, str], colours: tuple[str, str]
) -> Picture:
    """Two models on the same questions, a cell for each: pale where both are right, empty where
    neither is, and in full colour where only one is. Only those tell the models apart.

    Args:
        first: whether the first model is right, one for each question.
        second: the same of the second model.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} answers of {names[0]} and {len(second)} of {names[1]}")
    columns, side = 15, 0.33
    rows = math.ceil(len(first) / columns)
    canvas = Canvas(columns * side + 0.2, rows * side + 0.85)
    marks = {(True, True): "", (False, False): ""}
    marks |= {(True, False): names[0][0], (False, True): names[1][0]}
    counts = dict.fromkeys(marks, 0)
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        key = bool(a), bool(b)
        counts[key] += 1
        colour = GREY if a == b else colours[0] if a else colours[1]
        fill = (0.35 if a else 0.0) if a == b else 0.5
        x, y = 0.1 + side * (i % columns), 0.1 + side * (i // columns)
        canvas.box(x, y, side - 0.03, side - 0.03, "", colour, fill, square=True)
    y = rows * side + 0.32
    texts = [(f"只有 {names[0]} 对：{counts[True, False]}", colours[0])]
    texts.append((f"只有 {names[1]} 对：{counts[False, True]}", colours[1]))
    texts.append((f"都对（灰）：{counts[True, True]}", GREY))
    texts.append((f"都错（空）：{counts[False, False]}", GREY))
    for i, (text, colour) in enumerate(texts):
        canvas.text(0.1 + 2.6 * (i % 2), y + 0.28 * (i // 2), text, colour, _SIZE, "left")
    return canvas.picture("，".join(text for text, _ in texts))


@drawn
def training_luck(rows: Mapping[str, tuple[Sequence[float], float]]) -> Picture:
    """Two kinds of luck: for each score a dot for every run of the same recipe, over a band as wide
    as the choice of the questions alone would scatter them.

    Args:
        rows: name of a score → its value in each run, and the standard deviation by the choice of
            questions.
    """
    figure, (axes,) = _panels(5.2, 0.5 * len(rows) + 0.8)
    told = []
    for place, (name, (values, deviation)) in enumerate(rows.items()):
        mean = float(np.mean(values))
        low, high = max(0.0, mean - 1.96 * deviation), min(1.0, mean + 1.96 * deviation)
        axes.barh(place, high - low, 0.5, left=low, color=GREY, alpha=0.4)
        axes.plot(values, [place] * len(values), "o", color=_RIGHT, markersize=6, alpha=0.75)
        words = f"{name}从 {min(values):.2f} 到 {max(values):.2f}"
        told.append(f"{words}，灰带 {low:.2f} 到 {high:.2f}")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("正确率（点：每次训练；灰带：抽题的运气）", fontsize=_SIZE)
    return Picture(figure, "；".join(told))


def same_loss(tokens: Sequence[bytes], nats: float) -> Picture:
    """One sentence cut into tokens and cut into bytes, at the same scale: the loss of the whole is
    the same, that of a piece is not.

    Args:
        tokens: the bytes of each token; those that are no whole character are shown as hex.
        nats: the loss of the whole sentence.
    """
    size = sum(map(len, tokens))
    side = 0.28
    canvas = Canvas(size * side + 0.2, 1.75)
    x = 0.1
    for token in tokens:
        try:
            text = token.decode()
        except UnicodeDecodeError:
            text = token.hex(" ").upper()
        canvas.box(x, 0.1, side * len(token), 0.36, text, _RIGHT, 0.2, _SIZE, square=True)
        x += side * len(token)
    codes = [f"{byte:02X}" for byte in b"".join(tokens)]
    canvas.cells(0.1, 1.0, codes, width=side, height=0.36, size=9)
    told = []
    ways = ((len(tokens), "个词元", 0.66, _RIGHT), (size, "个字节", 1.56, GREY))
    for count, unit, y, colour in ways:
        words = f"{count} {unit}，每个 {nats / count:.2f} 奈特，一共 {nats:.2f} 奈特"
        canvas.text(0.1, y, words, colour, _SIZE, "left")
        told.append(words)
    return canvas.picture("；".join(told))


def pushes(answers: Sequence[str], weights: Mapping[str, Sequence[float]]) -> Picture:
    """What a step of the policy gradient does with each answer of a group: an arrow up makes it
    likelier, an arrow down less likely, as long as its weight; no arrow: it stays as it is.

    Args:
        answers: a short name of each.
        weights: name of a row → the weight of each answer, from -1 to 1.
    """
    if any(len(row) != len(answers) for row in weights.values()):
        raise ValueError(f"a row of weights must have {len(answers)} numbers")
    left, side, tall = 1.15, 0.5, 1.3
    canvas = Canvas(left + side * len(answers) + 0.1, tall * len(weights) + 0.1)
    told = []
    for place, (name, row) in enumerate(weights.items()):
        middle = 0.85 + tall * place
        canvas.text(0.05, middle, name, GREY, _SIZE, "left")
        for i, (answer, weight) in enumerate(zip(answers, row, strict=True)):
            x = left + side * (i + 0.5)
            colour = GREY if not weight else _RIGHT if weight > 0 else _LEFT
            canvas.box(x - 0.19, middle - 0.16, 0.38, 0.32, answer, colour, 0.2, _SIZE, square=True)
            edge = middle - math.copysign(0.19, weight)
            if weight:
                canvas.arrow((x, edge), (x, edge - 0.6 * weight), colour, width=2)
        shown = "、".join(f"{weight:+.2f}" if weight else "0" for weight in row)
        told.append(f"{name}：{shown}")
    return canvas.picture("；".join(told))
