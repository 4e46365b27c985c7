"""What the data mix reports: as ``mix_report.json`` and as a table in the terminal."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

SOURCES_SHOWN = 20
HEADINGS = (
    *("category", "read", "duplicates", "held out", "target"),
    *("rows", "share", "repeats", "validation", "tokens"),
)


class CategoryReport(msgspec.Struct):
    target: int | None
    """Training rows asked for, before repeats; None: all."""
    built_in: bool = False
    """The rows are the micro-world's."""
    read: int = 0
    """Good rows in the input."""
    duplicates: int = 0
    """Of these, copies of another in everything but metadata."""
    distinct: int = 0
    held_out: int = 0
    """Of the distinct ones, those kept from training."""
    rows: int = 0
    """Training rows written."""
    repeats: int = 0
    """Of these, copies of another."""
    share: float = 0.0
    """Of all training rows."""
    validation_rows: int = 0
    tokens: int | None = None
    """Of the training rows' text, estimated from a sample."""
    sources: dict[str, int] | None = None
    """Training rows by source tag; None: too many different tags."""


class FileReport(msgspec.Struct):
    path: str
    category: str | None
    """None: its name begins with none, so each row's own kind decides."""
    rows: int = 0
    """Good ones."""
    quarantined: int = 0


class MixReport(msgspec.Struct):
    options: dict[str, Any]
    files: list[FileReport]
    categories: dict[str, CategoryReport]
    outputs: dict[str, int]
    """Rows of each file."""
    quarantined: int
    notes: list[str]
    """What the user should know."""

    def table(self) -> str:
        """The report for the terminal."""
        lines = [list(HEADINGS)]
        sources: Counter[str] = Counter()
        for name, c in self.categories.items():
            counts = [c.read, c.duplicates, c.held_out, "all" if c.target is None else c.target]
            counts += [c.rows, f"{c.share:.1%}", c.repeats, c.validation_rows]
            counts += ["" if c.tokens is None else f"≈{c.tokens:,}"]
            lines.append([name + "*" * c.built_in, *map(_cell, counts)])
            sources.update({f"({name}: many)": c.rows} if c.sources is None else c.sources)
        total = max(1, sum(sources.values()))
        by_source = [["source", "rows", "share"]]
        by_source += [
            [source[:40], f"{rows:,}", f"{rows / total:.1%}"]
            for source, rows in sources.most_common(SOURCES_SHOWN)
        ]
        if len(sources) > SOURCES_SHOWN:
            by_source.append([f"{len(sources) - SOURCES_SHOWN} more, see mix_report.json", "", ""])
        files = ", ".join(f"{name} {rows:,}" for name, rows in self.outputs.items())
        notes = [f"rows written: {files}", f"rows quarantined: {self.quarantined:,}", *self.notes]
        return "\n".join([_aligned(lines), "", _aligned(by_source), "", *notes])


def _cell(value: str | int) -> str:
    return value if isinstance(value, str) else f"{value:,}"


def _aligned(lines: list[list[str]]) -> str:
    """A table as text, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    )
