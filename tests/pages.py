"""The lines of the book's pages, as the tests of its words read them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

Line: TypeAlias = tuple[int, str]
"""A line with its number in the file."""

COMMENT = re.compile(r"<!--\s*by:\s*(.*?)\s*-->", re.S)
"""What a passage rests on: see ``words``."""
OPTION = re.compile(r"\s*(:[\w-]+:|\([\w-]+\)=|:{3,}\s*$|%|:{3,}\{(glossary|exercise|solution))")
"""Lines of MyST that are no words: options, labels, comments, and where a directive ends."""


def cells(path: Path) -> Iterator[tuple[str, list[Line]]]:
    """("markdown" or "code", its lines) of each cell of a page; the first line of a cell of a .py
    page is its marker. A .md page is one cell of Markdown."""
    lines = list(enumerate(path.read_text(encoding="utf-8").splitlines(), 1))
    if path.suffix == ".md":
        yield "markdown", [(0, ""), *lines]
        return
    kind, found = "", []
    for number, line in lines:
        if line.startswith("# %%"):
            if kind:
                yield kind, found
            kind, found = "markdown" if "[markdown]" in line else "code", [(number, line)]
        elif kind:
            found.append((number, line[2:] if kind == "markdown" else line))
    if kind:
        yield kind, found


def markdown(path: Path) -> Iterator[Line]:
    """All lines of a page's Markdown."""
    for kind, lines in cells(path):
        if kind == "markdown":
            yield from lines[1:]


def outside_code(lines: Iterable[Line]) -> Iterator[Line]:
    """The same lines, those of code blocks left empty."""
    fence = ""
    for number, line in lines:
        mark = re.match(r"\s*(`{3,}|~{3,})", line)
        yield number, "" if fence or mark else line
        if fence:
            fence = "" if mark and line.strip() == fence else fence
        elif mark:
            fence = mark[1]


def prose(lines: Iterable[Line]) -> Iterator[Line]:
    """The same lines, those of code, formulas and options left empty."""
    formula = False
    for number, line in outside_code(lines):
        if line.strip().startswith("$$") or formula:
            formula ^= line.count("$$") == 1
            line = ""
        line = "" if OPTION.match(line) else line
        yield number, re.sub(r"^\s*:{3,}\{[\w:-]+\}", "", line)
