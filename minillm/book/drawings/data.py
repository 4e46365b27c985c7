"""What the first two chapters draw: the table that a bigram model learns, a loss that falls to the
one that counting gives, the cells that training never asks for, how much of each kind is read, and
two ways to divide data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from minillm.book.canvas import COLOURS, GREY, WIDTH, Canvas, Picture, drawn
from minillm.errors import UserError

_Floats = npt.NDArray[np.float64]
_ASKED, _ALARM = COLOURS["pretrain"], COLOURS["bad"]


# --- Chapter 1 ---


def bigram_layer(
    logits: _Floats, counted: _Floats, contexts: Sequence[str], targets: Sequence[str], row: str
) -> Picture:
    """How a table of logits guesses what follows a character, and where its training pulls: the row
    of that character, its softmax as bars, and beside each bar what was counted.

    Args:
        logits: ``[contexts, targets]``.
        counted: the shares of what followed ``row``, ``[targets]``.
        row: one of ``contexts``.
    """
    if logits.shape != (len(contexts), len(targets)) or counted.shape != (len(targets),):
        raise UserError(
            f"a table of {logits.shape} and {counted.shape} shares do not belong to "
            f"{len(contexts)} contexts and {len(targets)} targets"
        )
    size, left, top, bars, floor = 0.22, 0.34, 0.72, 3.0, 2.6
    canvas = Canvas(5.2, 3.3)
    canvas.text(left + len(targets) * size / 2, 0.12, "表：前一个字，各占一行", size=11)
    chosen = contexts.index(row)
    for j, name in enumerate(targets):
        canvas.text(left + (j + 0.5) * size, top - 0.16, name, size=11)
    strongest = float(np.abs(logits).max()) or 1.0
    for i, context in enumerate(contexts):
        colour = _ASKED if i == chosen else GREY
        y = top + i * size
        canvas.text(left - 0.16, y + size / 2, context, colour, 11)
        shades = [0.05 + 0.45 * max(0.0, float(z)) / strongest for z in logits[i]]
        canvas.cells(left, y, [""] * len(targets), [colour] * len(targets), size, size, shades)
    end, y = left + len(targets) * size, top + (chosen + 0.5) * size
    canvas.arrow((end + 0.06, y), (bars - 0.06, y), _ASKED)
    canvas.text((end + bars) / 2, y - 0.16, "softmax", _ASKED, 10)
    powers = np.exp(logits[chosen] - logits[chosen].max())
    guessed = powers / powers.sum()
    canvas.text(bars + len(targets) * size / 2, 0.66, f"“{row}”后面是什么", size=11)
    canvas.line([(bars, floor), (bars + len(targets) * size, floor)])
    for j, name in enumerate(targets):
        x, p, share = bars + j * size, 1.8 * float(guessed[j]), 1.8 * float(counted[j])
        canvas.box(x + 0.03, floor - p, size - 0.06, p, colour=_ASKED, fill=0.5, square=True)
        if share:
            canvas.box(x + 0.03, floor - share, size - 0.06, share, fill=0, square=True)
        up = share > p
        if abs(share - p) > 0.03:
            middle, colour = x + size / 2, COLOURS["sft"] if up else _ALARM
            canvas.arrow((middle, floor - p), (middle, floor - share), colour)
        canvas.text(x + size / 2, floor + 0.16, name, size=11)
    canvas.text(bars + len(targets) * size / 2, floor + 0.48, "蓝：猜的　灰框：数出来的", size=11)
    pairs = zip(targets, guessed, counted, strict=True)
    told = "；".join(f"{name} 猜 {p:.2f}，数 {share:.2f}" for name, p, share in pairs)
    return canvas.picture(f"“{row}”后面：{told}")


@drawn
def falling_to(
    steps: Sequence[float], losses: Mapping[str, Sequence[float]], goals: Mapping[str, float]
) -> Picture:
    """Losses by step, ``name → one for each step``, and dotted lines at what they come near,
    ``name → value``, in the same order of colours."""
    figure = Figure(figsize=(5.6, 3.0), layout="constrained")
    axes = figure.add_subplot()
    palette = [COLOURS["pretrain"], COLOURS["other"]]
    told = []
    for (name, values), colour in zip(losses.items(), palette, strict=False):
        axes.plot(steps, values, color=colour, label=name)
        told.append(f"{name}从 {values[0]:.2f} 到 {values[-1]:.2f}")
    for (name, value), colour in zip(goals.items(), palette, strict=False):
        axes.axhline(value, color=colour, linestyle=":", linewidth=1.5, label=name)
        told.append(f"{name} {value:.2f}")
    axes.set_xlabel("步", fontsize=11)
    axes.set_ylabel("每字节比特数", fontsize=11)
    axes.legend(fontsize=11)
    return Picture(figure, "；".join(told))


# --- Chapter 2 ---


class CellKind(NamedTuple):
    """One kind of cells in ``held_out_cells``: what it is called, and how its cells look."""

    name: str
    colour: str
    fill: float


ASKED_KIND = CellKind("训练会问", _ASKED, 0.5)
BOTH_KIND = CellKind("两种问法都有", _ASKED, 0.5)
COUNTED_KIND = CellKind("只请它数着算", COLOURS["other"], 0.15)
HELD_KIND = CellKind("留出", _ALARM, 0.0)


def held_out_cells(
    columns: Sequence[Any],
    rows: Sequence[Any],
    kinds: Mapping[tuple[Any, Any], CellKind],
    ring: tuple[Any, Any],
    bands: int = 1,
    size: float = 0.24,
) -> Picture:
    """A space of questions as a grid, each cell by whether training asks for it.

    Args:
        kinds: ``(column, row) → kind``; where there is none, nothing can be asked.
        ring: the cell that the text speaks of, with a thick frame.
        bands: the columns are broken into so many grids, one below the other.
    """
    if ring not in kinds:
        raise UserError(f"{ring} is no cell of the grid")
    wide = -(-len(columns) // bands)
    tallest = max(len(str(c)) for c in columns)
    upright = tallest > 1 and not isinstance(columns[0], int)
    head = 0.2 * tallest if upright else 0.24
    left = 0.1 + 0.17 * max(len(str(r)) for r in rows)
    band = head + len(rows) * size + 0.2
    canvas = Canvas(left + wide * size + 0.12, bands * band + 0.36)
    for i, column in enumerate(columns):
        x, top = left + i % wide * size, i // wide * band + head + 0.1
        name = "\n".join(str(column)) if upright else str(column)
        canvas.text(x + size / 2, top - head / 2 - 0.02, name, size=10)
        for j, row in enumerate(rows):
            if i % wide == 0:
                canvas.text(left - 0.06, top + (j + 0.5) * size, str(row), size=10, align="right")
            if kind := kinds.get((column, row)):
                at, width = (x + 0.025, top + j * size + 0.025), size - 0.05
                canvas.box(*at, width, width, "", kind.colour, kind.fill, square=True)
            if (column, row) == ring:
                canvas.box(x, top + j * size, size, size, colour=_ALARM, fill=0.0)
                canvas.circle(x + size / 2, top + (j + 0.5) * size, 0.05, "", _ALARM, 1.0)
    used = list(dict.fromkeys(kinds.values()))
    order = [kind for kind in (ASKED_KIND, BOTH_KIND, COUNTED_KIND, HELD_KIND) if kind in used]
    x, y = left, bands * band + 0.16
    for kind in order:
        canvas.box(x, y - 0.08, 0.16, 0.16, "", kind.colour, kind.fill, square=True)
        canvas.text(x + 0.24, y, kind.name, size=11, align="left")
        x += 0.5 + 0.17 * len(kind.name)
    found = list(kinds.values())
    told = "，".join(f"{kind.name} {found.count(kind)} 格" for kind in order)
    return canvas.picture(f"{told}；圈出的是 {ring[0]} 和 {ring[1]}，{kinds[ring].name}")


@drawn
def paired_shares(shares: Mapping[str, tuple[float, float]], names: tuple[str, str]) -> Picture:
    """Two shares of each kind, in percent, on a logarithmic axis, on which the small ones can be
    told apart too: a grey ring and a blue dot in it or beside it, and both as numbers.

    Args:
        shares: kind → the two, from top to bottom.
        names: what the one and the other is a share of.
    """
    if min(min(pair) for pair in shares.values()) <= 0:
        raise UserError("a share of nothing has no place on a logarithmic axis")
    figure = Figure(figsize=(WIDTH, 0.36 * len(shares) + 0.85), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    told = []
    for place, (kind, pair) in enumerate(shares.items()):
        axes.plot(pair, [place, place], color=GREY, linewidth=1.2)
        axes.plot(pair[0], place, "o", color=GREY, markersize=10, mfc="none", mew=1.8)
        axes.plot(pair[1], place, "o", color=COLOURS["pretrain"], markersize=5.5)
        for x, share, colour in zip((1.1, 1.25), pair, (GREY, COLOURS["pretrain"]), strict=True):
            style: Any = {"color": colour, "ha": "right", "va": "center", "fontsize": 11}
            axes.text(x, place, f"{share:.1f}", transform=axes.get_yaxis_transform(), **style)
        told.append(f"{kind}：{names[0]} {pair[0]:.1f}%，{names[1]} {pair[1]:.1f}%")
    for x, name, colour in zip((1.1, 1.25), names, (GREY, COLOURS["pretrain"]), strict=True):
        style = {"color": colour, "ha": "right", "va": "center", "fontsize": 11}
        axes.text(x, -0.95, name, transform=axes.get_yaxis_transform(), **style)
    ticks = (0.5, 1, 2, 5, 10, 20, 50)
    axes.set_xticks(ticks, [f"{tick:g}%" for tick in ticks], fontsize=11)
    axes.minorticks_off()
    axes.set_yticks(range(len(shares)), list(shares), fontsize=11)
    axes.set_ylim(len(shares) - 0.5, -0.6)
    axes.grid(axis="x", alpha=0.25)
    return Picture(figure, "；".join(told))


_LETTERS = [COLOURS[name] for name in ("pretrain", "sft", "dpo", "identity", "grpo", "other")]


def two_splits(
    documents: Sequence[str], splits: Mapping[str, tuple[Sequence[str], Sequence[str]]]
) -> Picture:
    """Where the copies of documents land: for each way, ``name → (train, validation)``, a row of
    cells, those for validation behind the cut; what is on both sides is framed.

    Args:
        documents: short names, each with a colour of its own.
    """
    longest = max(len(train) + len(val) for train, val in splits.values())
    size, gap = min(0.3, 4.6 / longest), 0.35
    canvas = Canvas(longest * size + gap + 0.2, 0.95 * len(splits))
    colours = dict(zip(documents, _LETTERS, strict=False))
    told = []
    for i, (name, (train, val)) in enumerate(splits.items()):
        y = 0.95 * i + 0.42
        leaked = sum(v in train for v in val)
        canvas.text(0.1, y - 0.24, name, size=11, align="left")
        canvas.cells(0.1, y, train, [colours[t] for t in train], size, size, 0.25, 11)
        x = 0.1 + len(train) * size + gap
        canvas.line([(x - gap / 2, y - 0.06), (x - gap / 2, y + size + 0.06)])
        canvas.text(x, y - 0.24, "验证", size=11, align="left")
        canvas.cells(x, y, val, [colours[v] for v in val], size, size, 0.25, 11)
        for j, v in enumerate(val):
            if v in train:
                canvas.box(x + j * size, y - 0.03, size, size + 0.06, colour=_ALARM, fill=0)
        told.append(
            f"{name}：训练 {''.join(train)}，验证 {''.join(val)}，其中 {leaked} 条训练里也有"
        )
    return canvas.picture("；".join(told))
