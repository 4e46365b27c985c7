"""Mechanisms of fine-tuning: a low-rank adapter beside a frozen layer, and where DPO pulls."""

from __future__ import annotations

from collections.abc import Sequence

from minillm.book.canvas import COLOURS, GREY, Canvas, Picture
from minillm.tokenizer.vocabulary import RustBPETokenizer

_ACROSS = 1.25
"""Of the longer side of a matrix, in inches."""
_FULL = 0.5
"""Of the arrow of the strongest force, in inches."""


def low_rank(outputs: int, inputs: int, rank: int) -> Picture:
    """A linear layer with an adapter, its matrices to scale: the input goes through the frozen W
    and, past it, through A and B, and the two results are added.

    Args:
        outputs, inputs: W is ``[outputs, inputs]``, A ``[rank, inputs]``, B ``[outputs, rank]``.
        rank: at most the shorter side of W.

    Raises:
        ValueError: the rank is not between 1 and the shorter side.
    """
    if not 1 <= rank <= min(outputs, inputs):
        raise ValueError(f"rank {rank} of a matrix {outputs} × {inputs}")
    scale = _ACROSS / max(outputs, inputs)
    high, wide, thin = (scale * n for n in (outputs, inputs, rank))
    train, left, top, below = COLOURS["sft"], 0.95, 0.45, 2.55
    canvas = Canvas(5.0, 3.5)
    middle = top + high / 2
    canvas.circle(0.25, middle, 0.2, "x")

    canvas.text(left + wide / 2, top - 0.25, f"W：{outputs} × {inputs}", size=12)
    canvas.box(left, top, wide, high, "冻住", GREY, 0.25, 12, square=True)
    canvas.arrow((0.48, middle), (left - 0.06, middle))

    canvas.box(left, below - thin / 2, wide, thin, "", train, 0.5, square=True)
    canvas.text(left + wide / 2, below + thin / 2 + 0.22, f"A：{rank} × {inputs}", train, 12)
    canvas.text(left + wide / 2, below + thin / 2 + 0.46, "随机开始", train, 12)
    canvas.line([(0.25, middle + 0.23), (0.25, below)])
    canvas.arrow((0.25, below), (left - 0.06, below))

    at = left + wide + 0.85
    canvas.arrow((left + wide + 0.08, below), (at - 0.08, below), train)
    canvas.text(left + wide + 0.42, below - 0.2, f"{rank} 个数", train, 12)
    canvas.box(at, below - high / 2, thin, high, "", train, 0.5, square=True)
    canvas.text(at + thin + 0.15, below + 0.34, f"B：{outputs} × {rank}", train, 12, "left")
    canvas.text(at + thin + 0.15, below + 0.58, "从 0 开始", train, 12, "left")

    plus = at + 0.95
    canvas.circle(plus, middle, 0.2, "+")
    canvas.arrow((left + wide + 0.08, middle), (plus - 0.23, middle))
    canvas.line([(at + thin + 0.08, below), (plus, below)], train)
    canvas.arrow((plus, below), (plus, middle + 0.23), train)
    canvas.arrow((plus + 0.23, middle), (plus + 0.5, middle))
    canvas.text(plus + 0.55, middle, "Wx+BAx", size=12, align="left")

    new, whole = rank * (inputs + outputs), inputs * outputs
    return canvas.picture(
        f"x 分两路。一路乘冻住的 W，{outputs} × {inputs}，{whole:,} 个数；"
        f"另一路先乘 A，{rank} × {inputs}，只剩 {rank} 个数，"
        f"再乘 B，{outputs} × {rank}，回到 {outputs} 个数。两路相加。"
        f"训练的只有 A 和 B，{new:,} 个数，是 W 的 {new / whole:.1%}"
    )


def tug_of_war(
    shared: Sequence[str],
    chosen: Sequence[tuple[str, float]],
    rejected: Sequence[tuple[str, float]],
) -> Picture:
    """What DPO does to one pair: the tokens that both answers begin with, on which the forces
    cancel, and after the fork the chosen answer's tokens, pushed up, and the rejected one's, pushed
    down; the arrows are as long as the forces are strong.

    Args:
        shared: texts of the tokens before the fork.
        chosen, rejected: (text, force on this token's score) after it; a force is 0 or more.

    Raises:
        ValueError: the answers go on alike, or a force is negative.
    """
    if not chosen or not rejected or chosen[0][0] == rejected[0][0]:
        raise ValueError("after the fork the two answers must go on differently")
    forces = [force for _, force in (*chosen, *rejected)]
    if min(forces) < 0 or max(forces) == 0:
        raise ValueError(f"forces must be 0 or more, and not all 0: {forces}")
    start = [_cell(text, 0.28) for text in shared]
    fork = 0.1 + sum(start) + 0.38
    widths = [[_cell(text, 0.58) for text, _ in answer] for answer in (chosen, rejected)]
    canvas = Canvas(max(5.4, fork + max(map(sum, widths)) + 0.1), 3.6)
    middle, height = 1.8, 0.36

    x = 0.1
    for text, width in zip(shared, start, strict=True):
        canvas.box(x, middle - height / 2, width, height, text, GREY, 0.15, 12, square=True)
        x += width
    if shared:
        canvas.text((0.1 + x) / 2, middle + 0.4, "一推一压，抵消", size=12)

    both = ((chosen, COLOURS["dpo"], -1), (rejected, COLOURS["bad"], 1))
    for (answer, colour, down), row in zip(both, widths, strict=True):
        line = middle + down * 0.55
        canvas.arrow((x + 0.06, middle + down * 0.1), (fork - 0.06, line), colour)
        place = fork
        for (text, force), width in zip(answer, row, strict=True):
            canvas.box(place, line - height / 2, width, height, text, colour, 0.2, 12, square=True)
            near = line + down * (height / 2 + 0.06)
            far = near + down * _FULL * force / max(forces)
            if abs(far - near) > 0.12:
                canvas.arrow((place + width / 2, near), (place + width / 2, far), colour, width=2)
            told = f"{'+' if down < 0 else '−'}{force:.3f}" if force >= 0.0005 else "0"
            canvas.text(place + width / 2, far + down * 0.14, told, colour, 10.5)
            place += width
    for y, name, (_, colour, _) in ((0.75, "选中的：推", both[0]), (2.85, "被拒绝的：压", both[1])):
        canvas.text(0.1, y, name, colour, 12, "left")
    return canvas.picture(
        f"两个回答开头都是“{''.join(shared)}”，推和压抵消。分叉以后，选中的往上推："
        + "，".join(f"{text} {force:.3f}" for text, force in chosen)
        + "；被拒绝的往下压："
        + "，".join(f"{text} {force:.3f}" for text, force in rejected)
    )


def whole_characters(
    tokenizer: RustBPETokenizer, ids: Sequence[int], values: Sequence[float]
) -> list[tuple[str, float]]:
    """Tokens as texts to draw, each with its value. Tokens that hold a part of a character are
    joined with the next ones, and their values added; the end of an answer is called 结束.

    Args:
        ids, values: one value for each token.
    """
    found: list[tuple[str, float]] = []
    piece, value = b"", 0.0
    for token, more in zip(ids, values, strict=True):
        end = token == tokenizer.special_id("<|assistant_end|>")
        piece += "结束".encode() if end else tokenizer.token_bytes(token)
        value += more
        try:
            found.append((piece.decode(), value))
        except UnicodeDecodeError:
            continue
        piece, value = b"", 0.0
    return found


def _cell(text: str, least: float) -> float:
    """The width of a cell for this text, in inches."""
    return max(least, 0.17 * len(text) + 0.1)
