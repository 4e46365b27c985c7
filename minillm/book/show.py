"""What the book shows: token and mask pictures, tables, curves, and the package's own source.

Pictures of text are HTML with real text, which can be selected and searched; figures are drawn in
the style of ``canvas``.
"""

from __future__ import annotations

import inspect
import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import HTML, Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from torch.overrides import TorchFunctionMode

from minillm import evaluate
from minillm.book.canvas import COLOURS, GREY, WIDTH, Picture, drawn
from minillm.microworld import scoring
from minillm.model.transformer import Transformer
from minillm.tokenizer.vocabulary import RustBPETokenizer
from minillm.training.packing import IGNORE_INDEX, Batch

STAGE_NAMES = {
    "fresh": "随机权重",
    "pretrain": "预训练",
    "sft": "SFT",
    "dpo": "DPO",
    "grpo": "强化学习",
    "identity": "身份",
}
_CYCLE = [c for name, c in COLOURS.items() if name != "fresh"]


def _figure(height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, [figure.add_subplot(1, columns, i + 1) for i in range(columns)]


# --- Sentences from figures -----------------------------------------------------------------------


def say(*sentences: str) -> Markdown:
    """A paragraph of the book that speaks of this very run: f-strings, filled in by the cell.

    What is typed into Markdown stays when the outputs change. So whatever another run could make
    untrue is written by code, and what the sentences claim is asserted in the same cell.
    """
    return Markdown("".join(sentences))  # type: ignore[no-untyped-call]


def quote(text: str) -> str:
    """What a model said, in quotation marks, for ``say``: none of its characters is markup."""
    return "“" + re.sub(r"([\\`*_{}\[\]<>()#+.!|~$&-])", r"\\\1", _clean(text)) + "”"


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3g}"


def in_words(value: float) -> str:
    """A large number as Chinese says it: 25,829,888 is 2,583 万."""
    for size, unit in ((1e12, "万亿"), (1e8, "亿"), (1e4, "万")):
        if value >= size:
            number = f"{value / size:,.4g}" if value < 1e4 * size else f"{value / size:,.0f}"
            return f"{number} {unit}"
    return f"{value:,.4g}"


def _course(y: Sequence[float]) -> str:
    """How a line runs, in words."""
    low, high = min(y), max(y)
    words = f"从 {_number(y[0])} 到 {_number(y[-1])}"
    if low < min(y[0], y[-1]) or high > max(y[0], y[-1]):
        words += f"，其间最低 {_number(low)}，最高 {_number(high)}"
    return words


# --- The package's own source ---------------------------------------------------------------------


def source(*objects: Any, doc: bool = True) -> Markdown:
    """The source of functions and classes, as it stands in the package, without what is said to
    the type checker; with ``doc=False`` without docstrings.
    """
    parts = []
    for thing in objects:
        code = textwrap.dedent(inspect.getsource(thing))
        if not doc and thing.__doc__:
            start = code.index('"""')
            end = code.index('"""', start + 3) + 3
            code = code[:start].rstrip() + code[end:]
        parts.append(_code(thing, code).data)
    return Markdown("\n\n".join(parts))  # type: ignore[no-untyped-call]


def excerpt(thing: Any, first: str, end: str) -> Markdown:
    """The lines of an object's source from the one with ``first`` up to the one with ``end``.

    Raises ValueError when the source has no such lines (any more).
    """
    code = inspect.getsource(thing)
    start = code.rindex("\n", 0, code.index(first)) + 1
    return _code(thing, code[start : code.rindex("\n", 0, code.index(end, start))])


def _code(thing: Any, code: str) -> Markdown:
    file = Path(inspect.getsourcefile(inspect.unwrap(thing)) or "")
    shown = re.sub(r"  # type: ignore\[[\w-]+\]", "", textwrap.dedent(code).strip())
    return Markdown(  # type: ignore[no-untyped-call]
        f"`{_place(file)}`\n\n```python\n{shown}\n```"
    )


def _place(file: Path) -> str:
    """Where a file stands in the project; of another one its last two parts."""
    root = Path(__file__).parents[2]
    place = file.relative_to(root) if file.is_relative_to(root) else Path(*file.parts[-2:])
    return place.as_posix()


# --- Text in colours ------------------------------------------------------------------------------


def _rgba(colour: str, alpha: float) -> str:
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},{alpha:.2f})"


def piece(tokenizer: RustBPETokenizer, token_id: int) -> str:
    """A token as text; bytes that are no whole characters as hex, a line break as ⏎."""
    try:
        text = tokenizer.token_bytes(token_id).decode() or tokenizer.decode([token_id])
    except UnicodeDecodeError:
        return " ".join(f"{byte:02X}" for byte in tokenizer.token_bytes(token_id))
    return text.replace("\n", "⏎").replace(" ", "␣")


def span(text: str, colour: str, alpha: float, title: str = "") -> str:
    """HTML of a piece of text on a colour, 0 < alpha <= 1; a pointer on it reads the title."""
    return (
        f'<span title="{escape(title)}" style="background:{_rgba(colour, alpha)};color:inherit;'
        'border-radius:3px;padding:1px 2px;margin:1px;display:inline-block;white-space:pre">'
        f"{escape(text)}</span>"
    )


def boxed(content: str) -> HTML:
    """HTML as it stands on a page: with room between its lines, scrolled where it is too wide."""
    return HTML(  # type: ignore[no-untyped-call]
        '<div class="minillm-show" style="line-height:1.9;max-width:100%;overflow-x:auto">'
        f"{content}</div>"
    )


def tokens(text: str, tokenizers: Mapping[str, RustBPETokenizer]) -> HTML:
    """One text under several vocabularies: each token a coloured piece, with the number of them.

    A token that is no whole character shows its bytes.
    """
    lines = []
    for name, tokenizer in tokenizers.items():
        ids = tokenizer.encode(text)
        spans = [
            span(piece(tokenizer, t), _CYCLE[i % 4], 0.3, f"id {t}") for i, t in enumerate(ids)
        ]
        lines.append(f"<div><b>{escape(name)}</b> · {len(ids)} 个词元<br>{''.join(spans)}</div>")
    return boxed("".join(lines))


def loss_mask(
    ids: Sequence[int],
    mask: Sequence[int],
    tokenizer: RustBPETokenizer,
    colour: str = COLOURS["sft"],
) -> HTML:
    """Tokens coloured by their loss mask: what is learned in colour, what is only read in grey."""
    spans = []
    for token, learn in zip(ids, mask, strict=True):
        shown = (colour, 0.45) if learn else (GREY, 0.18)
        line_break = "<br>" if piece(tokenizer, token) in ("<|user_end|>",) else ""
        spans.append(span(piece(tokenizer, token), *shown, f"id {token}, mask {learn}"))
        spans.append(line_break)
    legend = span("算损失", colour, 0.45) + span("只读，不算", GREY, 0.18)
    return boxed(f"<div>{''.join(spans)}</div><div><small>{legend}</small></div>")


def spelled(
    characters: Iterable[str], tokenizer: RustBPETokenizer, counts: Mapping[str, int]
) -> HTML:
    """Characters as the bytes of the tokens that they are written with; a token that several of
    them share is coloured, the others are grey.

    Args:
        counts: how often a text has each character.
    """
    pieces = {character: tokenizer.encode(character) for character in characters}
    used = Counter(token for ids in pieces.values() for token in set(ids))
    lines = []
    for character, ids in pieces.items():
        spans = []
        for token in ids:
            code = tokenizer.token_bytes(token).hex(" ").upper()
            shown = (COLOURS["bad"], 0.45) if used[token] > 1 else (GREY, 0.18)
            spans.append(span(code, *shown, f"id {token}"))
        cells = (escape(character), "".join(spans), f"{counts.get(character, 0):,} 次")
        lines.append("<tr>" + "".join(f"<td style='{_CELL}'>{c}</td>" for c in cells) + "</tr>")
    return boxed(f"<table style='border-collapse:collapse;color:inherit'>{''.join(lines)}</table>")


# --- Tables ---------------------------------------------------------------------------------------

_CELL = "padding:3px 8px;border-bottom:1px solid rgba(128,128,128,.3);text-align:left"


class _Scores(NamedTuple):
    """A cell for several runs."""

    mean: float
    low: float
    high: float


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[Any]],
    colours: Sequence[str | None] | None = None,
) -> HTML:
    """A table; a column with a colour is shaded by its numbers, from 0 (clear) to 1 (full)."""
    head = "".join(f'<th style="{_CELL}">{escape(h)}</th>' for h in header)
    lines = []
    for row in rows:
        cells = []
        for i, value in enumerate(row):
            style, below = _CELL, ""
            colour = colours[i] if colours else None
            if isinstance(value, _Scores):
                value, low, high = value
                style += ";line-height:1.3;white-space:nowrap"
                below = f"<br><small>{low:.2f}–{high:.2f}</small>"
            if isinstance(value, float):
                if colour and not math.isnan(value):
                    style += f";background:{_rgba(colour, 0.4 * min(max(value, 0.0), 1.0))}"
                value = "–" if math.isnan(value) else f"{value:.2f}"
            elif i == 0 and len(str(value)) <= 12:
                style += ";white-space:nowrap"
            elif "\n" in str(value):
                style += ";white-space:pre-line;vertical-align:top"
            cells.append(f'<td style="{style}">{escape(str(value))}{below}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return boxed(
        '<table style="border-collapse:collapse;color:inherit">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def spine(replies: Mapping[str, Sequence[str]]) -> HTML:
    """The book's three questions, and what the model answers to them after each stage.

    Args:
        replies: stage (a key of ``COLOURS``) → its answers to ``world.SHOWCASE``.
    """
    rows = [[STAGE_NAMES[stage], *map(_clean, said)] for stage, said in replies.items()]
    return table(["", *scoring.SHOWCASE], rows)


def _clean(text: str) -> str:
    """One line that cannot break the page: no control characters, cut after 60 characters."""
    line = "".join(c if c.isprintable() else "·" for c in text.strip())
    return line if len(line) <= 60 else line[:60] + "…"


def skills(results: Mapping[str, Mapping[str, Any]]) -> HTML:
    """Scores (``minillm.evaluate``) of several stages side by side, shaded by stage.

    Args:
        results: stage (a key of ``COLOURS``) → its result.
    """
    scores = {stage: evaluate.flatten(dict(r)) for stage, r in results.items()}
    names = dict.fromkeys(
        n for s in scores.values() for n in s if n not in ("val_loss", "DPO margin")
    )
    rows = [
        [name, *(float(s[name]) if name in s else math.nan for s in scores.values())]
        for name in names
    ]
    header = ["", *(STAGE_NAMES[stage] for stage in scores)]
    return table(header, rows, [None, *(COLOURS[stage] for stage in scores)])


def spread(scores: Mapping[str, Mapping[str, Mapping[str, Any]]], names: Mapping[str, str]) -> HTML:
    """Scores of many training runs: their mean, and below it the lowest and the highest.

    Args:
        scores: stage (a key of ``COLOURS``) → score → "mean", "min" and "max", as
            ``benchmarks/seeds.py`` writes them.
        names: of the rows → of the scores.
    """
    rows = [
        [
            name,
            *(
                _Scores(*(stage[score][of] for of in ("mean", "min", "max")))
                if score in stage
                else math.nan
                for stage in scores.values()
            ),
        ]
        for name, score in names.items()
    ]
    header = ["", *(STAGE_NAMES[stage] for stage in scores)]
    return table(header, rows, [None, *(COLOURS[stage] for stage in scores)])


def matrix(
    values: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    colour: str = COLOURS["pretrain"],
    digits: int | None = 2,
) -> HTML:
    """A grid of numbers from 0 to 1 as shades, with text at its sides; ``digits=None``: no numbers.

    Args:
        values: ``[rows, columns]``, array or tensor.
    """
    grid = np.asarray(values, dtype=float)
    full = 1.0 if digits is None else 0.45  # text on a shade must stay readable
    cell = "width:2.2em;height:1.7em;text-align:center;border:1px solid rgba(128,128,128,.25)"
    head = "".join(f'<th style="{cell};font-weight:normal">{escape(c)}</th>' for c in columns)
    lines = []
    for name, line in zip(rows, grid, strict=True):
        cells = "".join(
            f'<td title="{v:.3f}" style="{cell};'
            f'background:{_rgba(colour, full * min(max(v, 0), 1))}">'
            f"{'' if digits is None else f'{v:.{digits}f}'}</td>"
            for v in line
        )
        lines.append(
            f'<tr><th style="{cell};font-weight:normal;white-space:nowrap">{escape(name)}</th>'
            f"{cells}</tr>"
        )
    return boxed(
        '<table style="border-collapse:collapse;font-size:.85em;color:inherit">'
        f"<tr><th></th>{head}</tr>{''.join(lines)}</table>"
    )


# --- The model from inside ------------------------------------------------------------------------


class _Weights(TorchFunctionMode):
    """Keeps the weights of every attention that is computed inside it, ``[heads, T, T]`` each.

    ``scaled_dot_product_attention`` returns weights @ V only. So it is called once more, on the
    same queries and keys, with the identity for V: weights @ I are the weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[torch.Tensor] = []

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function is F.scaled_dot_product_attention:
            q, k, _ = args  # [B, H, T, D], [B, K, T, D]
            identity = torch.eye(k.shape[-2]).expand(*k.shape[:-1], -1)  # [B, K, T, T]
            self.found.append(function(q, k, identity, **kwargs)[0])
        return function(*args, **kwargs or {})


@torch.no_grad()
def attention_weights(model: Transformer, ids: Sequence[int]) -> torch.Tensor:
    """softmax(QKᵀ/√D) of every layer and head, ``[layers, heads, T, T]``; row t is what token t
    attends to."""
    with _Weights() as weights:
        model(torch.tensor([list(ids)]))
    return torch.stack(weights.found)


def attention(
    model: Transformer, tokenizer: RustBPETokenizer, text: str, layer: int, head: int
) -> HTML:
    """What each token (row) of a text attends to (columns), for one layer and head, with a key to
    the shades."""
    ids = [tokenizer.bos_id, *tokenizer.encode(text)]
    labels = [piece(tokenizer, t) for t in ids]
    labels[0] = "bos"
    weights = attention_weights(model, ids)[layer, head]
    patch = "display:inline-block;width:1.4em;height:1em;border:1px solid rgba(128,128,128,.25)"
    key = "　".join(
        f'<span style="{patch};background:{_rgba(COLOURS["pretrain"], share)}"></span> {share:g}'
        for share in (0, 0.25, 0.5, 0.75, 1)
    )
    grid = matrix(weights, labels, labels, digits=None).data
    return boxed(f"{grid}<div><small>注意力：{key}</small></div>")


# --- Figures --------------------------------------------------------------------------------------


@drawn
def bars(
    values: Mapping[str, float], xlabel: str, colours: Sequence[str] | str = COLOURS["pretrain"]
) -> Picture:
    """Horizontal bars, the first on top, each with its number."""
    figure, (axes,) = _figure(0.35 * len(values) + 0.6)
    names, numbers = list(values)[::-1], list(values.values())[::-1]
    shown = colours if isinstance(colours, str) else list(colours)[::-1]
    drawn = axes.barh(names, numbers, color=shown, height=0.65)
    whole = all(float(n).is_integer() for n in numbers)
    labels = [f"{n:,.0f}" if whole else f"{n:,.3g}" for n in numbers]
    axes.bar_label(drawn, labels, padding=3)
    axes.set_xlabel(xlabel)
    axes.margins(x=0.12)
    told = [f"{name} {label}" for name, label in zip(names, labels, strict=True)][::-1]
    return Picture(figure, "，".join(told))


@drawn
def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    colours: Sequence[str] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    marker: str | None = None,
    legend: bool = False,
) -> Picture:
    """Lines ``name → (x, y)``, each named at its end; with ``legend`` in a list, where the ends
    meet: each line is then thinner than the one before, which it may cover."""
    figure, (axes,) = _figure(3.0)
    palette = colours or _CYCLE
    widths = np.linspace(3.8, 1.4, len(series)) if legend else [1.8] * len(series)
    for i, (name, (x, y)) in enumerate(series.items()):
        style: Any = {"marker": marker, "markersize": 4, "linewidth": widths[i], "label": name}
        axes.plot(x, y, color=palette[i % len(palette)], **style)
    if log_x:
        axes.set_xscale("log")
        places = sorted({place for x, _ in series.values() for place in x})
        if len(places) <= 10:
            axes.set_xticks(places, [f"{place:,}" for place in places])
            axes.minorticks_off()
    if log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    _whole_ticks(axes)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    told = "；".join(f"{name} {_course(list(y))}" for name, (_, y) in series.items())
    if legend:
        axes.legend(fontsize=11)
        return Picture(figure, told)

    ends = [np.asarray(line.get_xydata())[-1].tolist() for line in axes.lines]
    data_to_axes = axes.transData + axes.transAxes.inverted()
    heights = [_AXES_HEIGHT * data_to_axes.transform(end)[1] for end in ends]
    for i, (name, shift) in enumerate(zip(series, _spread(heights), strict=True)):
        axes.annotate(
            name,
            (ends[i][0], ends[i][1]),
            xytext=(5, shift - heights[i]),
            textcoords="offset points",
            color=palette[i % len(palette)],
            va="center",
        )
    return Picture(figure, told)


@drawn
def points(
    measured: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    through: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    forecasts: Mapping[str, tuple[float, float, float, float]] | None = None,
) -> Picture:
    """Measured points, ``name → (x, y)``, on a logarithmic x.

    Args:
        through: curves. One that has the name of points has their colour; others are dashed.
        forecasts: ``name → (x, value, low, high)``, as bars.
    """
    figure, (axes,) = _figure(3.2)
    colours = dict(zip(measured, _CYCLE, strict=False))
    told = []
    for name, (x, y) in measured.items():
        axes.plot(x, y, "o", color=colours[name], markersize=5, label=name)
        told.append(f"{name} {_course(list(y))}")
    for name, (x, y) in (through or {}).items():
        known = name in colours
        style: Any = {"color": colours.get(name, GREY), "linewidth": 1.2}
        axes.plot(x, y, "-" if known else "--", label=None if known else name, **style)
        told += [] if known else [f"{name} {_course(list(y))}"]
    for name, (place, value, low, high) in (forecasts or {}).items():
        bar = [[value - low], [high - value]]
        style = {"color": COLOURS["bad"], "capsize": 4, "markersize": 6, "label": name}
        axes.errorbar([place], [value], bar, fmt="_", **style)
        told.append(f"{name} {_number(value)}，从 {_number(low)} 到 {_number(high)}")
    axes.set_xscale("log")
    places = [place for x, _ in measured.values() for place in x]
    wide = max(places) / min(places) > 300  # too wide for a label at each 1, 2 and 5
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda x, _: in_words(x))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.legend(fontsize=8)
    return Picture(figure, "；".join(told))


@drawn
def intervals(
    scores: Mapping[str, Mapping[str, tuple[float, float, float]]],
    colours: Mapping[str, str],
    limits: tuple[float, float] = (0, 1),
    unit: str = "",
    line: float | None = None,
) -> Picture:
    """Shares with their intervals, ``title of a panel → row → (share, low, high)``: panels side by
    side, a dot for each share on a line from low to high; the first row on top. The first panel has
    all rows; one that another panel lacks is empty there.

    Args:
        colours: of rows; the others are grey.
        limits: of the x axis.
        unit: of numbers that are not shares.
        line: where a dashed line goes down, such as chance.

    Raises:
        ValueError: an interval goes beyond the limits.
    """
    rows = list(next(iter(scores.values())))
    figure, panels_ = _figure(0.3 * len(rows) + 0.8, len(scores))
    told = []
    for axes, (title, found) in zip(panels_, scores.items(), strict=True):
        for place, row in enumerate(rows):
            if row not in found:
                continue
            value, low, high = found[row]
            if low < limits[0] or high > limits[1]:
                raise ValueError(f"{row}: {low} to {high} is beyond {limits[0]} to {limits[1]}")
            colour = colours.get(row, GREY)
            axes.plot([low, high], [place, place], color=colour, linewidth=2, alpha=0.5)
            axes.plot(value, place, "o", color=colour, markersize=5)
        low, high = limits
        axes.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
        if unit:
            axes.set_xlabel(unit)
        else:
            ticks = (low, (low + high) / 2, high)
            axes.set_xticks(ticks, [f"{tick:.0%}" if tick else "0" for tick in ticks])
        if line is not None:
            axes.axvline(line, color=GREY, linewidth=1, linestyle="--")
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), rows if axes is panels_[0] else [""] * len(rows))
        axes.set_title(title, fontsize=10)
        axes.grid(axis="x", alpha=0.3)
        form = ".2f" if unit else ".0%"
        told.append(f"{title}：" + "，".join(f"{row} {found[row][0]:{form}}" for row in found))
    return Picture(figure, "；".join(told))


_AXES_HEIGHT = 165.0
"""Of a figure of lines, in points; about."""


@drawn
def panels(
    courses: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    xlabel: str,
    colours: Sequence[str] | None = None,
) -> Picture:
    """Several figures of lines side by side, ``label of y → name → (x, y)``, on the same x; the
    last one names the lines."""
    figure, axes = _figure(2.3, len(courses))
    palette = colours or _CYCLE
    told = []
    for place, (ylabel, series) in zip(axes, courses.items(), strict=True):
        for i, (name, (x, y)) in enumerate(series.items()):
            place.plot(x, y, color=palette[i % len(palette)], label=name)
            told.append(f"{ylabel}，{name} {_course(list(y))}")
        _whole_ticks(place)
        place.set_xlabel(xlabel)
        place.set_ylabel(ylabel)
    axes[-1].legend(fontsize=8)
    return Picture(figure, "；".join(told))


def _whole_ticks(axes: Axes) -> None:
    """No ticks between whole numbers of steps."""
    locator = axes.xaxis.get_major_locator()
    places = [place for line in axes.lines for place in np.asarray(line.get_xdata()).tolist()]
    if isinstance(locator, MaxNLocator) and all(float(place).is_integer() for place in places):
        locator.set_params(integer=True)


def _spread(heights: Sequence[float], gap: float = 12.0) -> list[float]:
    """Heights of labels, moved apart as little as is needed for ``gap`` between neighbours."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed = list(heights)
    for _ in range(100):
        for lower, upper in pairwise(order):
            overlap = gap - (placed[upper] - placed[lower])
            if overlap > 0:
                placed[lower] -= overlap / 2
                placed[upper] += overlap / 2
    return placed


def smooth(values: Sequence[float], window: int = 20) -> list[float]:
    """The mean of each value and those before it, up to ``window`` of them."""
    sums = np.cumsum([0.0, *values])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    means: list[float] = ((sums[ends] - sums[starts]) / (ends - starts)).tolist()
    return means


@drawn
def curves(logs: Mapping[str, Sequence[Mapping[str, float]]], window: int = 20) -> Picture:
    """Training loss (smoothed; dots: validation) and learning rate by step, of one or several runs.

    Args:
        logs: name → ``Run.log``; a stage, that is a key of ``COLOURS``, gets its colour and its
            Chinese name.
    """
    figure, (left, right) = _figure(2.8, 2)
    for i, (name, log) in enumerate(logs.items()):
        colour = COLOURS.get(name, _CYCLE[i % len(_CYCLE)])
        steps = [entry["step"] for entry in log]
        shown = STAGE_NAMES.get(name, name)
        left.plot(steps, smooth([e["loss"] for e in log], window), color=colour, label=shown)
        validated = [entry for entry in log if "val_loss" in entry]
        left.plot(
            [e["step"] for e in validated],
            [e["val_loss"] for e in validated],
            "o",
            color=colour,
            markersize=5,
        )
        right.plot(steps, [e["learning_rate"] for e in log], color=colour, label=shown)
    left.set_xlabel("步")
    left.set_ylabel("损失（奈特）")
    left.legend()
    right.set_xlabel("步")
    right.set_ylabel("学习率")
    told = []
    for name, log in logs.items():
        losses = smooth([entry["loss"] for entry in log], window)
        peak = max(entry["learning_rate"] for entry in log)
        shown = STAGE_NAMES.get(name, name)
        told.append(f"{shown} 的损失{_course(losses)}，学习率最高 {peak:g}")
        told += [
            f"第 {e['step']:.0f} 步验证 {_number(e['val_loss'])}" for e in log if "val_loss" in e
        ]
    return Picture(figure, "；".join(told))


@drawn
def histogram(
    groups: Mapping[str, Sequence[float]],
    xlabel: str,
    ylabel: str = "多少对",
    colours: Sequence[str] | None = None,
    bins: int = 30,
) -> Picture:
    """Histograms over each other, on common bins; a dotted line at 0 where it lies inside."""
    figure, (axes,) = _figure(2.8)
    edges = np.histogram_bin_edges(np.concatenate([np.asarray(g) for g in groups.values()]), bins)
    for i, (name, values) in enumerate(groups.items()):
        colour = (colours or _CYCLE)[i]
        axes.hist(values, edges.tolist(), color=colour, alpha=0.6, label=name)
    if edges[0] < 0 < edges[-1]:
        axes.axvline(0, color=GREY, linestyle=":")
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.legend()
    told = [
        f"{name} 的平均数 {_number(float(np.mean(values)))}，从 {_number(min(values))} 到 "
        f"{_number(max(values))}"
        for name, values in groups.items()
    ]
    return Picture(figure, "；".join(told))


@drawn
def packing(batch: Batch) -> Picture:
    """Packed rows: each document a bar, pale where nothing is learned; padding is left empty."""
    rows, width = batch.input_ids.shape
    figure, (axes,) = _figure(0.3 * rows + 0.7)
    for row in range(rows):
        ids = batch.document_ids[row]
        for document in sorted(set(ids[ids >= 0].tolist())):
            places = (ids == document).nonzero()[:, 0]
            start, end = int(places[0]), int(places[-1]) + 1
            colour = _CYCLE[document % len(_CYCLE)]
            axes.barh(row, end - start, left=start, color=colour, alpha=0.35, height=0.8)
            learned = batch.labels[row, start:end] != IGNORE_INDEX
            for place in learned.nonzero()[:, 0].tolist():
                axes.barh(row, 1, left=start + place, color=colour, height=0.8)
            axes.plot([end, end], [row - 0.4, row + 0.4], color=GREY, linewidth=1)
    axes.set_xlim(0, width)
    axes.set_yticks(range(rows))
    axes.invert_yaxis()
    axes.set_xlabel("行内位置（词元）")
    axes.set_ylabel("行")
    filled = int((batch.document_ids >= 0).sum())
    told = f"{rows} 行，{batch.num_documents} 个序列，{rows * width} 个位置中 {filled} 个有词元"
    return Picture(figure, told)


@drawn
def flow(
    boxes: Sequence[tuple[str, str]],
    colours: Sequence[str] | None = None,
    skips: Sequence[tuple[int, int]] = (),
) -> Picture:
    """A chain of boxes with arrows: (title, what it holds, such as a shape), from left to right.

    Args:
        boxes: ``("+", "")`` is a small circle, where a second arrow comes in.
        colours: of each box.
        skips: (from, to), numbers of boxes: what leaves the one also goes, past those between, to
            the other.
    """
    widths = [0.35 if title == "+" else 0.8 for title, _ in boxes]
    gaps = [0.3 if i in dict(skips) else 0.2 for i in range(len(boxes))]
    lefts = [0.03 + sum(widths[:i]) + sum(gaps[:i]) for i in range(len(boxes))]
    middles = [left + width / 2 for left, width in zip(lefts, widths, strict=True)]
    whole = sum(widths) + sum(gaps)
    figure, (axes,) = _figure(1.5 if skips else 1.1)
    axes.set_axis_off()
    axes.set_xlim(0, whole)
    axes.set_ylim(0, 1.4 if skips else 1)
    arrow = {"arrowstyle": "->", "color": GREY}
    for i, (title, detail) in enumerate(boxes):
        x, colour = middles[i], colours[i] if colours else COLOURS["pretrain"]
        if title == "+":
            axes.plot(x, 0.5, "o", markersize=18, mec=colour, mfc="none", mew=1.5)
        else:
            corner, style = (lefts[i] + 0.03, 0.15), "round,pad=0.03"
            axes.add_patch(FancyBboxPatch(corner, 0.74, 0.7, style, fc="none", ec=colour, lw=1.5))
        text: Any = {"ha": "center", "va": "center"}
        size = min(10.0, 60 / whole)
        y = 0.62 if detail else 0.49
        axes.text(x, y, title, **text, color=colour, weight="bold", fontsize=size)
        axes.text(x, 0.34, detail, **text, fontsize=8)
        if i + 1 < len(boxes):
            end = lefts[i] + widths[i]
            axes.annotate("", (lefts[i + 1] - 0.01, 0.5), (end + 0.02, 0.5), arrowprops=arrow)
    for first, last in skips:
        leaves, x = lefts[first] + widths[first] + 0.12, middles[last]
        axes.plot([leaves, leaves, x], [0.5, 1.2, 1.2], color=GREY, linewidth=1)
        axes.annotate("", (x, 0.72), (x, 1.22), arrowprops=arrow)
    told = " → ".join(f"{title} {detail}".strip() for title, detail in boxes)
    for first, last in skips:
        told += (
            f"；绕过中间，第 {first + 1} 个 {boxes[first][0]} → 第 {last + 1} 个 {boxes[last][0]}"
        )
    return Picture(figure, told)
