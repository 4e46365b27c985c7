"""What the data mix reports: as ``mix_report.json`` and as a table in the terminal."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from minillm.text_table import aligned

SOURCES_SHOWN = 20
HEADINGS = (
    *("category", "read", "duplicates", "held out", "target"),
    *("rows", "share", "repeats", "validation", "tokens"),
)


class CategoryReport(msgspec.Struct):
    target: int | None
    """Training rows asked for, before ``identity_repeat``; None: all there are."""
    built_in: bool = False
    """Whether the rows come with the package, for want of others."""
    read: int = 0
    """Rows read, without those that cannot be used."""
    duplicates: int = 0
    """Rows read that say the same as an earlier one of the category."""
    distinct: int = 0
    """Rows read that are no duplicates."""
    held_out: int = 0
    """Distinct rows that are not trained on, because their documents are for validation."""
    rows: int = 0
    """Training rows written."""
    repeats: int = 0
    """Training rows written that are a second or later copy of a row."""
    share: float = 0.0
    """The part of the training rows of all categories that these are."""
    validation_rows: int = 0
    """Rows written to the validation files."""
    tokens: int | None = None
    """Tokens in the training rows' text, estimated from a sample; None: not counted."""
    sources: dict[str, int] | None = None
    """Training rows by source tag; None: too many different tags."""


class FileReport(msgspec.Struct):
    path: str
    category: str | None
    """What the file is named after; None: no category, so each row's own kind decides."""
    rows: int = 0
    """Rows that can be used."""
    quarantined: int = 0
    """Rows that cannot."""


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
            counts += ["" if c.tokens is None else f"~{c.tokens:,}"]
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
        return "\n".join([aligned(lines), "", aligned(by_source), "", *notes])


def _cell(value: str | int) -> str:
    return value if isinstance(value, str) else f"{value:,}"
