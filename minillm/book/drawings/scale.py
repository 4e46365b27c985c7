"""Mechanisms of chapters 12 to 16: one step shared by processes or done in turns, a ring that adds
gradients, what fills the memory, three ways to split a model, weights on rulers, pairs that rotate,
the smallest number of a set, who wrote a special token, a forecast and what came of it, two ways to
extrapolate."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from IPython.display import HTML
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike

from minillm.book.canvas import COLOURS, GREY, WIDTH, Canvas, Picture, drawn
from minillm.book.show import boxed, in_words, piece, span
from minillm.tokenizer.vocabulary import RustBPETokenizer

_PARTS = (COLOURS["pretrain"], COLOURS["dpo"], COLOURS["sft"], COLOURS["identity"])
"""Of processes, or of what one process does in turns."""


def _signed(value: float) -> str:
    """A number with its sign, as it is written in a sum."""
    return f"{value:+g}".replace("-", "−")


def _sum(numbers: Sequence[str]) -> str:
    """Numbers with signs as a sum; the first one without its plus."""
    return " ".join(f"{n[0]} {n[1:]}" for n in numbers).removeprefix("+ ")


# --- One step of several processes ----------------------------------------------------------------


def together(
    rows: Sequence[int], tokens: Sequence[int], sums: Sequence[float], weight: float, rate: float
) -> Picture:
    """One step of data parallelism: two processes have the same weight and rows of their own; what
    they add up is divided once, and both have the same weight again.

    Args:
        rows: how many each process reads.
        tokens: how many each of them learns from.
        sums: the gradient of one weight, summed over these tokens.
    """
    if not len(rows) == len(tokens) == len(sums) == 2:
        raise ValueError("two processes, each with its tokens and its sum")
    total, whole = sum(tokens), round(sum(sums), 10)
    canvas = Canvas(4.8, 4.5)
    start = 0
    for place, (own, learned, gradient) in enumerate(zip(rows, tokens, sums, strict=True)):
        colour, x = _PARTS[place], 1.2 + 2.4 * place
        canvas.text(x, 0.15, f"{place} 号进程", colour, 11)
        names = [f"第 {start + i} 行" for i in range(own)]
        start += own
        wide = min(0.72, 2.3 / own)
        canvas.cells(x - own * wide / 2, 0.36, names, [colour] * own, wide, 0.34)
        canvas.arrow((x, 0.72), (x, 1.02), colour)
        canvas.box(x - 0.75, 1.04, 1.5, 0.36, f"权重 {weight:.2f}", GREY, 0.1, 11)
        canvas.arrow((x, 1.42), (x, 1.74), colour)
        canvas.box(x - 0.75, 1.76, 1.5, 0.62, "", colour)
        canvas.text(x, 1.94, f"梯度的和 {_signed(gradient)}", colour, 11)
        canvas.text(x, 2.2, f"词元 {learned} 个", colour, 11)
        canvas.arrow((x, 2.4), (x, 2.72), colour)
        canvas.arrow((x, 3.38), (x, 3.7), COLOURS["sft"])
        canvas.box(x - 0.85, 3.72, 1.7, 0.68, "", GREY, 0.1)
        step = whole / total
        canvas.text(x, 3.92, f"{whole:g} ÷ {total} = {step:g}", GREY, 11)
        canvas.text(x, 4.2, f"权重 {weight:.2f} → {weight - rate * step:.2f}", GREY, 11)
    canvas.box(0.1, 2.74, 4.6, 0.62, "", COLOURS["sft"])
    canvas.text(2.4, 2.92, "全规约：大家的加起来，人人得到总数", COLOURS["sft"], 11)
    added = _sum([_signed(s) for s in sums])
    sentence = f"{added} = {whole:g}，{' + '.join(map(str, tokens))} = {total} 个"
    canvas.text(2.4, 3.19, sentence, COLOURS["sft"], 11)
    canvas.text(2.4, 1.22, "=", GREY, 14)
    canvas.text(2.4, 4.06, "=", GREY, 14)
    told = "；".join(
        f"{place} 号进程读 {own} 行，梯度的和 {_signed(gradient)}，词元 {learned} 个"
        for place, (own, learned, gradient) in enumerate(zip(rows, tokens, sums, strict=True))
    )
    return canvas.picture(
        f"开头权重都是 {weight:.2f}；{told}；全规约：{sentence}；各自除以 {total}，"
        f"权重都变成 {weight - rate * whole / total:.2f}"
    )


def in_turns(
    rows: Sequence[int], tokens: Sequence[int], sums: Sequence[float], weight: float, rate: float
) -> Picture:
    """One step of gradient accumulation: the same parts as those of ``together``, one after the
    other in a single process.

    Args:
        rows: how many each part has, of 2 parts.
        tokens: how many each of them learns from.
        sums: the gradient of one weight, summed over these tokens.
    """
    if not len(rows) == len(tokens) == len(sums) == 2:
        raise ValueError("two parts, each with its tokens and its sum")
    canvas = Canvas(5.6, 3.05)
    canvas.text(0.42, 0.18, "时间", GREY, 11)
    canvas.arrow((0.75, 0.18), (5.55, 0.18))
    for y, name in ((1.21, "激活"), (1.96, "梯度的和"), (2.68, "词元个数")):
        canvas.text(0.42, y, name, GREY, 10.5)
    whole, total, start = 0.0, 0, 0
    lines = []
    for place, (own, learned, gradient) in enumerate(zip(rows, tokens, sums, strict=True)):
        colour, x = _PARTS[place], 0.9 + 1.65 * place
        names = [f"第 {start + i} 行" for i in range(own)]
        start += own
        canvas.cells(x, 0.36, names, [colour] * own, 1.4 / own, 0.34)
        canvas.arrow((x + 0.7, 0.72), (x + 0.7, 1.0), colour)
        canvas.box(x, 1.02, 1.4, 0.38, "用完就丢", colour, 0.35, 11)
        canvas.arrow((x + 0.7, 1.42), (x + 0.7, 1.75), colour)
        new, more = round(whole + gradient, 10), total + learned
        first = f"{new:g}" if not place else f"{_sum([f'+{whole:g}', _signed(gradient)])} = {new:g}"
        second = f"{more}" if not place else f"{total} + {learned} = {more}"
        canvas.box(x, 1.77, 1.4, 0.38, first, colour, 0.15, 11)
        canvas.box(x, 2.49, 1.4, 0.38, second, colour, 0.15, 11)
        lines.append(f"第 {place + 1} 份之后，梯度的和 {first}，词元 {second}")
        whole, total = new, more
        for y in (1.96, 2.68):
            canvas.arrow((x + 1.42, y), (x + 1.63, y), colour)
    step = whole / total
    canvas.box(4.2, 1.6, 1.35, 1.44, "", GREY, 0.1)
    for y, text in (
        (1.82, "走一步"),
        (2.16, f"{whole:g} ÷ {total} = {step:g}"),
        (2.52, f"权重 {weight:.2f}"),
        (2.8, f"→ {weight - rate * step:.2f}"),
    ):
        canvas.text(4.875, y, text, GREY, 11)
    return canvas.picture(
        f"一个进程，先后两份，激活用完就丢；{'；'.join(lines)}；最后走一步："
        f"{whole:g} ÷ {total} = {step:g}，权重 {weight:.2f} 变成 {weight - rate * step:.2f}"
    )


# --- The ring -------------------------------------------------------------------------------------


def _courses(pieces: Sequence[Sequence[int]]) -> list[tuple[list[list[int]], set[tuple[int, int]]]]:
    """What all processes hold before the first step and after each, and which pieces are new."""
    size = len(pieces)
    held = [list(own) for own in pieces]
    found: list[tuple[list[list[int]], set[tuple[int, int]]]] = [(held, set())]
    for step in range(2 * (size - 1)):
        new, touched = [list(own) for own in held], set()
        for rank in range(size):
            piece, right = (rank - step) % size, (rank + 1) % size
            kept = held[right][piece] if step < size - 1 else 0
            new[right][piece] = held[rank][piece] + kept
            touched.add((right, piece))
        found.append((new, touched))
        held = new
    return found


def around_the_ring(pieces: Sequence[Sequence[int]]) -> Picture:
    """Three processes in a ring add up their gradients: a table before the first step and one after
    each, a line for each process, a column for each piece.

    Args:
        pieces: ``pieces[process][piece]``, three of three.
    """
    size = len(pieces)
    if size != 3 or any(len(own) != size for own in pieces):
        raise ValueError("three processes with three pieces each")
    sums = [sum(own[k] for own in pieces) for k in range(size)]
    courses = _courses(pieces)
    titles = ["开始", "第 0 步", "第 1 步", "第 2 步", "第 3 步"]
    wide, high = 0.5, 0.36
    canvas = Canvas(5.5, 3.2)
    for number, (held, new) in enumerate(courses):
        x, y = 0.25 + 1.8 * (number % 3), 0.32 + 1.62 * (number // 3)
        canvas.text(x + 1.5 * wide, y - 0.15, titles[number], GREY, 11)
        for rank, own in enumerate(held):
            for part, value in enumerate(own):
                done, fresh = value == sums[part], (rank, part) in new
                colour = COLOURS["sft"] if done else COLOURS["dpo"] if fresh else GREY
                at = (x + part * wide, y + rank * high)
                strength = 0.35 if fresh else 0.2 if done else 0.06
                canvas.box(*at, wide, high, str(value), colour, strength, 11, square=True)
        for rank in range(size):
            canvas.text(x - 0.13, y + (rank + 0.5) * high, str(rank), GREY, 10)
    for y, colour, text in (
        (2.15, COLOURS["dpo"], "刚收到，加上"),
        (2.47, COLOURS["sft"], "已经加全"),
    ):
        canvas.box(3.85, y - 0.11, 0.22, 0.22, "", colour, 0.35, square=True)
        canvas.text(4.15, y, text, colour, 11, "left")
    canvas.text(3.85, 2.79, "进程 0 → 1 → 2 → 0", GREY, 11, "left")
    told = "；".join(
        f"{title} {'、'.join(' '.join(map(str, own)) for own in held)}"
        for title, (held, _) in zip(titles, courses, strict=True)
    )
    return canvas.picture(f"三个进程各三块：{told}")


# --- Memory ---------------------------------------------------------------------------------------


@drawn
def memory_shares(parts: Mapping[str, Mapping[str, float]]) -> Picture:
    """What fills the memory in training, as one bar of shares for each way to train, with its total
    in bytes at the end: ``name → part → bytes``; all have the same parts."""
    kinds = list(next(iter(parts.values())))
    if any(list(own) != kinds for own in parts.values()):
        raise ValueError("all bars need the same parts")
    palette = [COLOURS[c] for c in ("pretrain", "other", "identity", "dpo")]
    figure = Figure(figsize=(5.6, 0.5 * len(parts) + 0.75), layout="constrained")
    axes = figure.add_subplot()
    told = []
    for place, (name, own) in enumerate(parts.items()):
        total, left = sum(own.values()), 0.0
        for colour, (kind, size) in zip(palette, own.items(), strict=False):
            label = kind if not place else None
            axes.barh(place, size / total, left=left, color=colour, height=0.62, label=label)
            left += size / total
        unit, text = (1e9, "GB") if total >= 1e9 else (1e6, "MB")
        axes.text(1.02, place, f"{total / unit:.3g} {text}", va="center", fontsize=11)
        shares = "，".join(f"{kind} {size / total:.0%}" for kind, size in own.items())
        told.append(f"{name} 共 {total / unit:.3g} {text}：{shares}")
    axes.set_yticks(range(len(parts)), list(parts), fontsize=11)
    axes.set_xticks([0, 0.5, 1], ["0", "50%", "100%"])
    axes.set_ylim(len(parts) - 0.5, -0.5)
    axes.set_xlim(0, 1.18)
    axes.spines["bottom"].set_bounds(0, 1)
    figure.legend(loc="outside upper center", ncols=len(kinds), fontsize=10.5, handlelength=1)
    return Picture(figure, "；".join(told))


# --- Three ways to split --------------------------------------------------------------------------


def three_splits() -> Picture:
    """What two cards share in data, pipeline and tensor parallelism, and what they send: rows,
    layers or the two halves of every matrix; each card has its colour."""
    canvas = Canvas(5.4, 3.5)
    first, second = _PARTS[:2]
    columns = ("数据并行", "流水线并行", "张量并行")
    notes = (
        ("切的是行", "每步一次：梯度"),
        ("切的是层", "每份一次：激活"),
        ("切的是矩阵", "每层几次：部分和"),
    )
    for place, (title, (what, sent)) in enumerate(zip(columns, notes, strict=True)):
        x = 0.9 + 1.8 * place
        canvas.text(x, 0.16, title, GREY, 12)
        canvas.text(x, 0.44, what, GREY, 11)
        canvas.text(x, 3.3, sent, GREY, 11)
    names = [f"第 {layer} 层" for layer in (4, 3, 2, 1)]
    for row, name in enumerate(names):
        y = 0.7 + 0.56 * row
        for side, colour in enumerate((first, second)):
            canvas.box(0.1 + 0.82 * side, y, 0.76, 0.4, name, colour)
            canvas.box(3.72 + 0.78 * side, y, 0.78, 0.4, "半层", colour, square=True)
        canvas.box(2.2, y, 1.0, 0.4, name, second if row < 2 else first)
        if row:
            colour, width = (COLOURS["sft"], 2.5) if row == 2 else (GREY, 1.2)
            canvas.arrow((2.7, y - 0.02), (2.7, y - 0.14), colour, width=width)
        canvas.line([(4.3, y + 0.48), (4.7, y + 0.48)], COLOURS["sft"], 2.5)
    canvas.line([(0.48, 2.94), (0.48, 3.06), (1.3, 3.06), (1.3, 2.94)], COLOURS["sft"], 2.5)
    return canvas.picture(
        "四层的模型，两张卡，三种切法：数据并行，两张卡各有四层，每步搬一次梯度；"
        "流水线并行，一张卡有第 1、2 层，另一张有第 3、4 层，搬交界处的激活；"
        "张量并行，每一层两张卡各有一半，每一层都要把结果加起来"
    )


# --- Weights on rulers ----------------------------------------------------------------------------


def rulers(groups: Mapping[str, tuple[ArrayLike, ArrayLike, float, Sequence[int]]]) -> Picture:
    """Groups of weights, each above the marks of a ruler: a line leads every weight to the mark
    that stands for it. The error beside it is that of all but the largest, relative to their size.

    Args:
        groups: ``name → (weights [G], whole numbers [G], scale, (lowest, highest) whole number)``.
    """
    canvas = Canvas(5.6, 1.42 * len(groups))
    told = []
    for place, (name, (weights, whole, scale, ends)) in enumerate(groups.items()):
        x, q = np.asarray(weights, float).ravel(), np.asarray(whole, float).ravel()
        if x.shape != q.shape:
            raise ValueError(f"{name}: a whole number for each weight")
        marks = scale * np.arange(ends[0], ends[1] + 1)
        reach = float(max(np.abs(x).max(), np.abs(marks).max()))
        top = 1.42 * place + 0.08

        def across(value: float, reach: float = reach) -> float:
            return 2.8 + 2.6 * value / reach

        small = np.abs(x) < np.abs(x).max()
        error = (scale * q - x)[small]
        many = len(marks) > 40
        for mark in marks.tolist():
            line = [(across(mark), top + 0.98), (across(mark), top + 1.1)]
            canvas.line(line, GREY, 0.4 if many else 1.3)
        canvas.line([(0.2, top + 1.1), (5.4, top + 1.1)], GREY, 0.8)
        for value, level in zip(x.tolist(), (scale * q).tolist(), strict=True):
            far = abs(level - value) > 0.25 * abs(scale)
            colour = COLOURS["bad"] if far and not many else COLOURS["identity"]
            canvas.line([(across(value), top + 0.5), (across(level), top + 0.98)], colour, 0.9)
            canvas.circle(across(value), top + 0.46, 0.035, "", colour, 0.9)
        canvas.text(0.1, top + 0.12, name, GREY, 11, "left")
        relative = float(np.sqrt((error**2).mean() / (x[small] ** 2).mean()))
        canvas.text(5.5, top + 0.12, f"误差 {relative:.1%}", GREY, 11, "right")
        used = len(np.unique(q))
        told.append(
            f"{name}：{len(marks)} 条刻度，{len(x)} 个数落在其中 {used} 条上，"
            f"除了离 0 最远的，误差 {relative:.1%}"
        )
    return canvas.picture("；".join(told))


# --- Pairs that rotate ----------------------------------------------------------------------------


def rotated_pairs(move: Callable[[Any], Any], size: int = 8) -> Picture:
    """Which numbers of a head rotate together, before and after their rows are moved.

    Args:
        move: rows ``[size, 1]`` in their new order.
    """
    after = [int(n) for n in np.asarray(move(np.arange(size)[:, None])).ravel()]
    if sorted(after) != list(range(size)):
        raise ValueError("moving rows keeps each of them")
    half, wide = size // 2, 0.56
    canvas = Canvas(wide * size + 0.3, 2.9)

    def colour(number: int) -> str:
        return _PARTS[number % half % len(_PARTS)]

    def middle(place: int) -> float:
        return 0.15 + (place + 0.5) * wide

    numbers = list(range(size))
    canvas.text(middle(0) - 0.25, 0.14, "Hugging Face：隔一半，配一对", GREY, 11, "left")
    for n in range(half):
        y = 0.42 + 0.07 * n
        points = [(middle(n), 0.8), (middle(n), y), (middle(n + half), y), (middle(n + half), 0.8)]
        canvas.line(points, colour(n), 1.6)
    for y, order in ((0.8, numbers), (1.95, after)):
        canvas.cells(0.15, y, list(map(str, order)), [colour(n) for n in order], wide, size=12)
    for place, n in enumerate(after):
        canvas.arrow((middle(n), 1.17), (middle(place), 1.92), colour(n))
    for place in range(0, size, 2):
        a, b = middle(place), middle(place + 1)
        canvas.line([(a, 2.32), (a, 2.46), (b, 2.46), (b, 2.32)], colour(after[place]), 1.6)
    canvas.text(middle(0) - 0.25, 2.72, "llama.cpp：挨着的，配一对", GREY, 11, "left")
    pairs = "、".join(f"{n} 和 {n + half}" for n in range(half))
    said = " ".join(map(str, after))
    return canvas.picture(f"一个头的 {size} 行，{pairs} 配对；换成 {said} 的次序，相邻的配对")


# --- A forecast -----------------------------------------------------------------------------------


@drawn
def forecast(
    ladder: Sequence[tuple[float, float]],
    law: tuple[Sequence[float], Sequence[float]],
    foretold: tuple[float, float, float, float],
    outcome: float,
) -> Picture:
    """What a law foretold for a run, with its interval, and what came of it, each named beside it.

    Args:
        ladder: (compute, loss) of the runs that the law is fitted to.
        law: (compute, loss), as a dashed line.
        foretold: (compute, loss, low, high).
        outcome: the loss at that compute.
    """
    figure = Figure(figsize=(WIDTH - 1.1, 3.3), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*law, "--", color=GREY, linewidth=1.2)
    axes.plot(*zip(*ladder, strict=True), "o", color=COLOURS["pretrain"], markersize=5)
    place, value, low, high = foretold
    bar = [[value - low], [high - value]]
    style: Any = {"color": COLOURS["bad"], "fmt": "_", "capsize": 5, "markersize": 9}
    axes.errorbar([place], [value], bar, linewidth=2.5, **style)
    axes.plot([place], [outcome], "o", color=COLOURS["sft"], markersize=7)
    middle = len(law[0]) // 2
    first = min(x for x, _ in ladder)
    top = max(y for _, y in ladder)
    for name, point, shift, colour, side in (
        ("梯子", (first, top), (8, -4), "pretrain", "left"),
        ("定律", (law[0][middle], law[1][middle]), (6, 6), "fresh", "left"),
        (f"预言 {value:.2f}", (place, high), (0, 20), "bad", "center"),
        (f"{low:.2f} 到 {high:.2f}", (place, high), (0, 6), "bad", "center"),
        (f"结果 {outcome:.2f}", (place, outcome), (-8, -4), "sft", "right"),
    ):
        axes.annotate(
            name,
            point,
            shift,
            textcoords="offset points",
            color=COLOURS[colour],
            ha=side,
            fontsize=11.5,
        )
    axes.set_xscale("log")
    axes.set_xlim(0.8 * first, 2.6 * place)
    axes.xaxis.set_major_locator(LogLocator(subs=(2, 6)))
    axes.xaxis.set_major_formatter(lambda x, _: in_words(x))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("计算量 6ND（次运算，对数刻度）")
    axes.set_ylabel("损失（奈特/词元）")
    told = (
        f"梯子从 {top:.2f} 到 {min(y for _, y in ladder):.2f}；"
        f"定律从 {law[1][0]:.2f} 到 {law[1][-1]:.2f}；"
        f"预言 {value:.2f}，从 {low:.2f} 到 {high:.2f}；结果 {outcome:.2f}"
    )
    return Picture(figure, told)


# --- Two ways to extrapolate ----------------------------------------------------------------------


@drawn
def two_futures(
    measured: Sequence[tuple[float, float]],
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    outcome: tuple[float, float],
    floor: float,
) -> Picture:
    """Two curves through the same measured points, on logarithms of both: a straight one and one
    that bends towards a floor.

    Args:
        measured: (compute, loss) of the best of each budget.
        curves: ``name → (compute, loss)``, named at their ends.
        outcome: what was measured later.
        floor: what the bent one ends at, as a dotted line.
    """
    figure = Figure(figsize=(WIDTH - 0.7, 3.3), layout="constrained")
    axes = figure.add_subplot()
    told = []
    palette = (GREY, COLOURS["dpo"])
    for colour, (name, (x, y)) in zip(palette, curves.items(), strict=True):
        axes.plot(x, y, "--", color=colour)
        axes.annotate(
            name,
            (x[-1], y[-1]),
            (6, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            fontsize=11,
        )
        told.append(f"{name}，从 {y[0]:.2f} 到 {y[-1]:.2f}")
    axes.axhline(floor, color=GREY, linestyle=":", linewidth=1)
    axes.text(measured[0][0], floor, f"E = {floor:.2f}", va="bottom")
    axes.plot(*zip(*measured, strict=True), "o", color=COLOURS["pretrain"], markersize=6)
    axes.plot(*outcome, "o", color=COLOURS["sft"], markersize=6)
    for point, shift, name, colour in (
        (measured[0], (7, 5), "碗底", COLOURS["pretrain"]),
        (outcome, (-8, -14), "结果", COLOURS["sft"]),
    ):
        side = "left" if shift[0] > 0 else "right"
        axes.annotate(
            name, point, shift, textcoords="offset points", color=colour, ha=side, fontsize=11
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    low = min([floor, *(min(y) for _, y in curves.values())])
    ticks = [t / 2 for t in range(math.ceil(2 * low), math.ceil(2 * measured[0][1]) + 1)]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    first, last = (next(iter(curves.values()))[0][i] for i in (0, -1))
    powers = range(math.ceil(math.log10(first)), math.floor(math.log10(last)) + 1)
    axes.xaxis.set_major_locator(FixedLocator([10.0**p for p in powers]))
    axes.xaxis.set_major_formatter(lambda x, _: in_words(x))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("计算量 6ND（次运算，对数刻度）")
    axes.set_ylabel("损失（奈特/词元，对数刻度）")
    told.append(f"后来的结果 {outcome[1]:.2f}，虚线趋向的底 {floor:.2f}")
    return Picture(figure, "；".join(told))


# --- The smallest number of a set -----------------------------------------------------------------


def _hash(piece: str, function: int) -> int:
    """A number below 1,000 for a piece of text, another one for each function."""
    digest = hashlib.blake2b(f"{function} {piece}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % 1000


def smallest_numbers(texts: Mapping[str, set[str]], functions: int = 4) -> Picture:
    """How MinHash compares two texts: under each hash function their pieces in the order of their
    numbers, and the smallest number of each text.

    Args:
        texts: ``name → pieces``, of two texts that have a piece in common.
    """
    if len(texts) != 2 or not set.intersection(*texts.values()):
        raise ValueError("two texts that have a piece in common")
    (one, first), (other, second) = texts.items()
    pieces = sorted(first | second)
    wide = 0.62
    canvas = Canvas(wide * len(pieces) + 0.3, 0.98 * functions + 0.4)
    legend = ((f"只有{one}", 0), (f"只有{other}", 1), ("都有", 2))
    for place, (text, colour) in enumerate(legend):
        canvas.text(0.2 + 1.5 * place, 0.16, f"■ {text}", _PARTS[colour], 11, "left")
    told = []
    for function in range(functions):
        y = 0.4 + 0.98 * function
        order = sorted(pieces, key=lambda piece: _hash(piece, function))
        colours = [_PARTS[2 if p in first & second else 0 if p in first else 1] for p in order]
        kept = [next(p for p in order if p in own) for own in (first, second)]
        strong = [0.5 if p in kept else 0.12 for p in order]
        canvas.cells(0.15, y, order, colours, wide, 0.34, strong, 10.5)
        for place, string in enumerate(order):
            number = str(_hash(string, function))
            canvas.text(0.15 + (place + 0.5) * wide, y + 0.47, number, colours[place], 10.5)
        numbers = [_hash(piece, function) for piece in kept]
        same = "相同" if kept[0] == kept[1] else "不同"
        line = f"{one}留下 {numbers[0]}，{other}留下 {numbers[1]}：{same}"
        canvas.text(0.2, y + 0.73, line, GREY, 11, "left")
        told.append(f"第 {function + 1} 个哈希函数，{line}")
    return canvas.picture("；".join(told))


# --- Who wrote a special token --------------------------------------------------------------------


def who_wrote(
    prompts: Mapping[str, Sequence[int]],
    tokenizer: RustBPETokenizer,
    ends: tuple[int, int] = (2, 2),
) -> HTML:
    """Prompts as tokens: special ones that the template wrote in colour, those that the user typed
    in another, all others grey.

    Args:
        prompts: ``name → ids``.
        ends: how many of the first and of the last special tokens are the template's.
    """
    special = set(tokenizer.special_tokens.values())
    lines = []
    for name, ids in prompts.items():
        places = [i for i, token in enumerate(ids) if token in special]
        own = {*places[: ends[0]], *places[len(places) - ends[1] :]}
        spans = [
            span(
                piece(tokenizer, token),
                GREY if token not in special else COLOURS["sft"] if i in own else COLOURS["bad"],
                0.18 if token not in special else 0.45,
            )
            for i, token in enumerate(ids)
        ]
        lines.append(f"<div><b>{escape(name)}</b><br>{''.join(spans)}</div>")
    legend = "".join(
        span(text, colour, strength)
        for text, colour, strength in (
            ("模板写的特殊词元", COLOURS["sft"], 0.45),
            ("用户打出来的特殊词元", COLOURS["bad"], 0.45),
            ("平常的词元", GREY, 0.18),
        )
    )
    return boxed("".join(lines) + f"<div><small>{legend}</small></div>")
