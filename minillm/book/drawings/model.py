"""How the model is built: the stream that all layers add to, heads that share keys and values,
rotation as the hands of clocks, and the cache that grows; and what a part is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from minillm.book.canvas import COLOURS, GREY, WIDTH, Canvas, Picture, drawn
from minillm.config import ModelConfig

_BLUE, _GREEN, _ORANGE = COLOURS["pretrain"], COLOURS["sft"], COLOURS["bad"]


def residual_stream(layers: int) -> Picture:
    """The stream of a model from top to bottom: every layer reads it and adds to it, attention on
    its left, the feed-forward network on its right."""
    step, top = 0.72, 0.95
    height = top + layers * step + 0.75
    canvas = Canvas(4.6, height)
    stream = 2.3
    canvas.box(stream - 0.75, 0.1, 1.5, 0.38, "嵌入", GREY)
    canvas.text(1.82, 0.82, "读", size=11)
    canvas.text(1.82, 1.36, "加", _GREEN, 11)
    above = 0.48
    for layer in range(layers):
        y = top + layer * step
        for side, name, colour, at in (
            (-1, "注意力", _GREEN, y + 0.12),
            (1, "前馈网络", COLOURS["dpo"], y + 0.48),
        ):
            box = 0.2 if side < 0 else 3.3
            edge = box + 1.1 if side < 0 else box
            canvas.box(box, at - 0.15, 1.1, 0.3, name, colour, 0.12, 11)
            canvas.arrow((stream, at - 0.18), (edge, at - 0.07), bend=0.12 * side)
            plus = at + 0.12
            canvas.arrow((edge, at + 0.07), (stream + side * 0.12, plus), colour, 0.12 * side)
            canvas.line([(stream, above), (stream, plus - 0.12)], _BLUE, 4)
            canvas.circle(stream, plus, 0.11, "+", colour, 0.15)
            above = plus + 0.12
    for layer in (0, layers - 1):
        canvas.text(0.2, top + layer * step - 0.2, f"第 {layer + 1} 层", align="left", size=11)
    canvas.line([(stream, above), (stream, height - 0.55)], _BLUE, 4)
    canvas.arrow((stream, height - 0.6), (stream, height - 0.44), _BLUE, width=4)
    canvas.box(stream - 0.95, height - 0.44, 1.9, 0.38, "归一化，输出层", GREY)
    return canvas.picture(
        f"一条流从嵌入直通输出层，{layers} 层各读它两次、往里加两次，一共加 {2 * layers} 次"
    )


def head_groups(config: ModelConfig) -> Picture:
    """Which query heads share which keys and values, from the vector of one position down to the
    output matrix. Raises ValueError for more heads than can be drawn."""
    heads, groups, size = (
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
    )
    if heads > 8:
        raise ValueError(f"{heads} heads: at most 8 fit on the sheet")
    pitch, left = 4.0 / heads, 1.0
    canvas = Canvas(left + 4.0, 3.75)
    rows = {"向量": 0.12, "查询": 0.95, "键和值": 1.85, "取到的": 2.65}
    for name, y in rows.items():
        canvas.text(0.05, y + 0.18, name, align="left", size=12)
    canvas.box(left, rows["向量"], 3.9, 0.36, f"x：{config.hidden_size} 个数", GREY, size=12)
    colours = [_BLUE, _ORANGE, _GREEN, COLOURS["grpo"], COLOURS["dpo"], GREY, GREY, GREY]
    share = heads // groups
    for head in range(heads):
        group = head // share
        colour, x = colours[group], left + head * pitch
        middle, wide = x + pitch * 0.46, pitch * 0.88
        canvas.arrow((middle, 0.48), (middle, rows["查询"] - 0.02))
        canvas.box(x + 0.02, rows["查询"], wide, 0.38, f"q{head}", colour, size=12)
        canvas.box(x + 0.02, rows["取到的"], wide, 0.38, f"y{head}", colour, size=12)
        around = left + (group + 0.5) * share * pitch - pitch * 0.04
        near = around + (middle - around) * 0.55
        canvas.arrow((middle, 1.33), (near, rows["键和值"] - 0.02), colour)
        canvas.arrow((near, 2.23), (middle, rows["取到的"] - 0.02), colour)
        canvas.arrow((middle, 3.03), (middle, 3.3))
    for group in range(groups):
        wide = pitch * share * 0.62
        middle = left + (group + 0.5) * share * pitch - pitch * 0.04
        box = middle - wide / 2, rows["键和值"]
        canvas.box(*box, wide, 0.38, f"k{group}，v{group}", colours[group], 0.3, 12)
    canvas.box(
        left, 3.32, 3.9, 0.36, f"接起来，乘 o_proj：{config.hidden_size} 个数", GREY, size=12
    )
    shared = "；".join(
        f"第 {g} 组由第 {'、'.join(map(str, range(g * share, g * share + share)))} 个查询头共用"
        for g in range(groups)
    )
    return canvas.picture(f"{heads} 个查询头，{groups} 组键值，每个 {size} 个数；{shared}")


def _hand(
    canvas: Canvas, x: float, y: float, radius: float, angle: float, colour: str, width: float = 2.0
) -> None:
    """A hand that points up at angle 0 and turns clockwise."""
    tip = x + 0.9 * radius * math.sin(angle), y - 0.9 * radius * math.cos(angle)
    canvas.arrow((x, y), tip, colour, width=width)


def clock_hands(config: ModelConfig, pairs: tuple[int, int], distance: int = 2) -> Picture:
    """Two pairs of numbers of a head as hands: by position, and then q and k of the first pair at
    three places that are equally far apart.

    Args:
        pairs: their numbers, from 0 to D/2 - 1; the first one turns faster.
    """
    turns = [config.rope_theta ** (-2 * pair / config.head_dim) for pair in pairs]
    radius, left, pitch = 0.3, 1.3, 0.68
    canvas = Canvas(left + 6 * pitch - 0.05, 4.15)
    for position in range(6):
        canvas.text(left + pitch * (position + 0.45), 0.16, f"{position}", size=11)
    canvas.text(0.05, 0.16, "位置", align="left", size=11)
    for row, (pair, turn) in enumerate(zip(pairs, turns, strict=True)):
        y, colour = 0.72 + 0.86 * row, (_BLUE, COLOURS["dpo"])[row]
        canvas.text(0.05, y - 0.12, f"第 {pair} 对", align="left", size=11)
        canvas.text(0.05, y + 0.13, f"一步转 {math.degrees(turn):.0f}°", colour, 11, "left")
        for position in range(6):
            x = left + pitch * (position + 0.45)
            canvas.circle(x, y, radius)
            _hand(canvas, x, y, radius, position * turn, colour)
    canvas.line([(0.05, 2.12), (left + 6 * pitch - 0.15, 2.12)], GREY, 0.8)
    y, big = 2.9, 0.55
    canvas.text(0.05, y - 0.45, f"第 {pairs[0]} 对", align="left", size=11)
    canvas.text(0.05, y - 0.15, "蓝针 q", _BLUE, 11, "left")
    canvas.text(0.05, y + 0.12, "橙针 k", _ORANGE, 11, "left")
    places = [(there + distance, there) for there in (0, 1, 3)]
    angle = distance * turns[0]
    for i, (here, there) in enumerate(places):
        x = left + pitch * (2 * i + 0.95)
        canvas.circle(x, y, big)
        arc = [there * turns[0] + angle * part / 20 for part in range(21)]
        inner = 0.3 * big
        canvas.line([(x + inner * math.sin(a), y - inner * math.cos(a)) for a in arc], GREY, 1.4)
        _hand(canvas, x, y, big, there * turns[0], _ORANGE)
        _hand(canvas, x, y, big, here * turns[0], _BLUE)
        canvas.text(x, y + big + 0.18, f"q 在 {here}，k 在 {there}", size=11)
    between = math.degrees(angle) % 360
    said = f"三处都差 {distance} 个位置，夹角都是 {between:.0f}°"
    canvas.text(left + 2.95 * pitch, 3.98, said, size=11)
    told = "，".join(
        f"第 {pair} 对一步转 {math.degrees(turn):.1f}°"
        for pair, turn in zip(pairs, turns, strict=True)
    )
    at = "、".join(f"({here}, {there})" for here, there in places)
    return canvas.picture(f"{told}；q 和 k 在 {at} 时，夹角都是 {between:.0f}°")


def growing_cache(pieces: Sequence[str]) -> Picture:
    """Whose keys and values are computed in each step of writing: without a cache those of all
    tokens so far, with one only those of the newest.

    Args:
        pieces: the tokens as text, up to five of them; each step reads one more.
    """
    count, cell, gap = len(pieces), min(0.56, 2.3 / len(pieces)), 0.35
    if not 2 <= count <= 5:
        raise ValueError(f"{count} tokens: 2 to 5 fit on the sheet")
    left, wide = 0.75, count * cell
    canvas = Canvas(left + 2 * wide + gap + 0.1, 0.75 + 0.5 * count + 0.75)
    starts = {"没有缓存": left, "有缓存": left + wide + gap}
    for name, x in starts.items():
        canvas.text(x + wide / 2, 0.2, name, size=11.5)
    for step in range(count):
        y = 0.5 + 0.5 * step
        canvas.text(0.05, y + 0.18, f"第 {step + 1} 步", align="left", size=11)
        shown = list(pieces[: step + 1])
        options = {"width": cell, "height": 0.36, "size": 11.0}
        for name, x in starts.items():
            new = [name == "没有缓存" or place == step for place in range(step + 1)]
            colours = [_ORANGE if fresh else GREY for fresh in new]
            fill = [0.35 if fresh else 0.1 for fresh in new]
            canvas.cells(x, y, shown, colours, fill=fill, **options)
    y = 0.5 + 0.5 * count + 0.12
    total = count * (count + 1) // 2
    for name, number in (("没有缓存", total), ("有缓存", count)):
        canvas.text(starts[name] + wide / 2, y, f"共算 {number} 个", _ORANGE, 11.5)
    y += 0.4
    middle = left + wide + gap / 2
    canvas.cells(middle - 1.9, y - 0.12, [""], [_ORANGE], 0.3, 0.24, 0.35)
    canvas.text(middle - 1.5, y, "这一步算的", align="left", size=10.5)
    canvas.cells(middle + 0.2, y - 0.12, [""], [GREY], 0.3, 0.24, 0.1)
    canvas.text(middle + 0.6, y, "从缓存里取的", align="left", size=10.5)
    return canvas.picture(
        f"{'、'.join(pieces)}，一步多读一个：没有缓存，{count} 步一共算 {total} 个词元的键和值；"
        f"有缓存，每步只算新来的，一共 {count} 个"
    )


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} 到 {high}"


@drawn
def seed_dots(
    losses: Mapping[str, Sequence[float]],
    base: str,
    judged: Mapping[str, str],
    xlabel: str,
    most: float,
) -> Picture:
    """A dot for each run, a row for each change; the range of the unchanged runs as a band. A row
    that was judged 变差 is orange, 变好 green, others grey.

    Args:
        losses: name of the row → its runs, from top to bottom.
        base: the row that nothing was changed in.
        judged: name of a row → what was said of it.
        most: where the axis ends; runs beyond it are named in words at its end.
    """
    figure = Figure(figsize=(WIDTH, 0.34 * len(losses) + 0.8), layout="constrained")
    axes = figure.add_subplot()
    low, high = min(losses[base]), max(losses[base])
    axes.axvspan(low, high, color=_BLUE, alpha=0.2, linewidth=0)
    told = []
    for place, (name, values) in enumerate(losses.items()):
        colour = {"变差": _ORANGE, "变好": _GREEN}.get(judged.get(name, ""), GREY)
        colour = _BLUE if name == base else colour
        inside = [value for value in values if value <= most]
        axes.plot(inside, [place] * len(inside), "o", color=colour, markersize=6, alpha=0.8)
        beyond = [value for value in values if value > most]
        if beyond:
            axes.text(
                most,
                place,
                f"{_range(beyond)} →",
                color=colour,
                ha="right",
                va="center",
                fontsize=10.5,
            )
        told.append(" ".join([name, _range(values), judged.get(name, "")]).rstrip())
    axes.set_yticks(range(len(losses)), list(losses), fontsize=10.5)
    axes.set_ylim(len(losses) - 0.5, -0.5)
    least = min(min(values) for values in losses.values())
    axes.set_xlim(least - 0.06 * (most - least), most)
    axes.set_xlabel(xlabel, fontsize=10.5)
    axes.grid(axis="x", alpha=0.25)
    return Picture(figure, "；".join(told))
