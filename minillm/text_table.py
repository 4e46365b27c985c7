"""Tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import east_asian_width


def aligned(rows: Sequence[Sequence[str]], left: int = 1, least: int = 0) -> str:
    """Rows of equally many cells as lines, their columns two spaces apart.

    The first ``left`` columns begin at the left, the others end at the right and are at least
    ``least`` wide. Chinese characters are twice as wide as letters, as terminals show them.
    """
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for i, (cell, width) in enumerate(zip(row, widths, strict=True)):
            room = " " * (max(width, least if i >= left else 0) - _width(cell))
            cells.append(cell + room if i < left else room + cell)
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _width(text: str) -> int:
    return len(text) + sum(east_asian_width(character) in "FW" for character in text)
