"""Finds words of the book that could part from their evidence: see CONTRIBUTING, "Three kinds of
statement".

What it looks at: Markdown, captions, alt texts, and the paragraphs that cells write by
``show.say``. What it complains about:

- a *figure* that no cell nearby asserts, or prints as an output that is the same in every run;
- a *claim*: words that compare, count or generalise ("近九成", "几乎没有", "这一次") beside outputs
  that differ from run to run;
- a *quotation* of what some run answered.

A passage is left alone where an HTML comment in it names what it rests on:

- ``<!-- by: assert ... -->``: the beginning of an ``assert`` statement in a cell of this page;
- ``<!-- by: 60 * 0.9 == 54 -->``: arithmetic that is true, also with values of ``config``;
- ``<!-- by: benchmarks/README.md -->``: a file in which its figures stand;
- ``<!-- by: @rafailov2023dpo -->``: a work of the bibliography that says so;
- ``<!-- by: reasoning -->``: it tells of no run; this must not cover a figure or a quotation.

In a cell that calls ``show.say``, an ``assert`` in the same cell is what its claims rest on.

What it cannot see: whether an assertion says the same as the words that rest on it; a claim made
without any of the words below; a wrong explanation; a small number that happens to stand nearby.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pages

from minillm import config

REPO = Path(__file__).resolve().parent.parent

NUMBER = re.compile(r"(?<![\w.{])\d[\d,_]*(?:\.\d+)?%?")
FUNCTIONS = {"round": round, "abs": abs, "sum": sum, "len": len}
ARITHMETIC = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Call),
    *(ast.Tuple, ast.List, ast.Load, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare),
    *(ast.unaryop, ast.operator, ast.boolop, ast.cmpop),
)
"""What a ``by`` in Python may be made of."""
HAN_NUMBER = "[一二两三四五六七八九十百千万几]"

RUN = re.compile(
    "|".join(
        [
            r"这一次|另一次|换一次|有一次|书上的|我们的?这次|换一[种个](?:种子|处理器|舍入)|都见过",
            rf"{HAN_NUMBER}成(?!个|员|本|绩|品|语|熟|对|年)|{HAN_NUMBER}分之{HAN_NUMBER}|一半|过半",
            rf"{HAN_NUMBER}倍|{HAN_NUMBER}个数量级|十来[道题]",
            r"几乎|全[对错](?!的类)|[近约不足到]{1,2}[一二三四五六七八九两]成",
            r"\d[^，。；]{0,6}(?:左右|上下)",
        ]
    )
)
"""Claims wherever they stand."""
BESIDE = re.compile(
    "|".join(
        [
            r"大多|多半|多数|大部分|最[多少高低大小好差晚早难窄快慢]|最集中|只[对剩答]|都[没对错差]",
            r"[掉降升涨跌冲]到|[掉降升涨跌]了|翻了|丢[了得]|忘[了掉]|高出|低了|多了|少了|差[了得]",
            r"约 ?\d|不到|超过|接近|\d[^，。；]{0,6}以[上下]|贴着|突然",
            r"明显|平滑|稳|起伏|越来越|一路",
            r"更[高低好差多少客愿]|反而|仍[然旧]?|照样|变[好差得了]|没有变|差不多|绝无|无害|露了馅|不剩",
            r"学会了|学不会|没学|还不会|会说|会写|说乱|说歪|说错|答[对错]|对了|错了|猜对|慢慢|急降|陡",
            rf"第{HAN_NUMBER}[题句列行份]|前两|每次都|{HAN_NUMBER}[题份句]都|{HAN_NUMBER}类题|没有列到|这张表|两份",
            r"分到|指向|聚在|找到时|比(?![较例特])[^，。；]{1,24}[好高低差多少]",
        ]
    )
)
"""Claims beside outputs that differ from run to run."""
SAYS = re.compile(r"(?:[说答写念编接报唱讲冒喊]|回答|自称|开口|成了?)[^“]{0,8}“([^”]{2,})”")


@dataclass(frozen=True)
class Complaint:
    page: str
    line: int
    kind: str
    what: str
    passage: str

    def __str__(self) -> str:
        return f"book/{self.page}:{self.line}: {self.kind} {self.what!r} in: {self.passage[:90]}"


@dataclass
class Cell:
    """A code cell with what it put out."""

    asserts: list[str]
    differs: bool
    """Its output is another in every run."""
    fixed: str
    """What it asserts, sets, or prints alike in every run."""
    part: int
    """Which of the page's parts (``##``) it stands in."""
    output: str = ""


@dataclass
class Passage:
    line: int
    text: str
    where: str
    """``text``, ``caption``, ``alt`` or ``say``."""
    nearest: int
    """Number of code cells before it."""
    part: int = 0
    by: list[str] = field(default_factory=list)
    asserted: bool = False


def plain(text: str) -> str:
    """A passage without code, formulas, links and markup: what is left are words and figures."""
    text = pages.COMMENT.sub("", text)
    text = re.sub(r"\{(?:cite|numref|ref|eq)[\w:]*\}`[^`]*`", "", text)
    text = re.sub(r"(`+)(?!`).+?\1", "C", text)
    text = re.sub(r"(?<!\\)\$\$?[^$]+\$\$?", "F", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"<[^>]+>", "", text).replace("*", "")


def blocks(lines: Iterable[pages.Line]) -> Iterator[pages.Line]:
    """Paragraphs and list items of Markdown, with the numbers of their first lines."""
    start, block = 0, ""
    for number, line in [*pages.prose(lines), (0, "")]:
        if block and (not line.strip() or re.match(r"\s*(?:[-|:#]|\d+\.) ?", line)):
            yield start, block
            block = ""
        if line.strip():
            start, block = (start, f"{block}\n{line}") if block else (number, line)


def _output(outputs: list[Any]) -> str:
    texts = []
    for output in outputs:
        texts.append(output.get("text", ""))
        for mime, value in output.get("data", {}).items():
            if mime.startswith("text/"):
                texts.append(re.sub(r"<[^>]+>", " ", value))
    return "\n".join(texts)


def _said(source: str) -> str:
    """The words of a cell's calls of ``show.say``, apart from what code fills in."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("say"):
            for part in node.args:
                for inner in ast.walk(part):
                    if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                        found.append(inner.value)
                found.append("\n")
    return "".join(found)


@cache
def read(path: Path) -> tuple[list[Cell], list[Passage]]:
    """The code cells and the passages of a page."""
    stored: list[Any] = []
    notebook = path.with_suffix(".ipynb")
    if notebook.exists():
        code = [c for c in nbformat.read(notebook, as_version=4).cells if c.cell_type == "code"]
        stored = [c.outputs for c in code]
    meta = []
    if path.suffix == ".py":
        meta = [c for c in jupytext.read(path).cells if c.cell_type == "code"]
    cells: list[Cell] = []
    passages: list[Passage] = []
    part = 0
    for kind, lines in pages.cells(path):
        if kind == "markdown":
            for number, text in blocks(lines[1:]):
                part += text.startswith("## ")
                by = pages.COMMENT.findall(text)
                passages.append(Passage(number, text, "text", len(cells), part, by))
            continue
        index, first = len(cells), lines[0][0]
        source, about = meta[index].source, meta[index].metadata
        output = _output(stored[index]) if index < len(stored) else ""
        mystnb = about.get("mystnb", {})
        picture = "figure" in mystnb or "image" in mystnb
        differs = "nbval-ignore-output" in about.get("tags", [])
        said = _said(source)
        code = re.sub(r"\bsay\((.*)\)", "", source, flags=re.S) if said else source
        fixed = code if differs else f"{code}\n{output}"
        asserts = _asserts(source)
        cells.append(Cell(asserts, differs or picture, fixed, part, output))
        for where, text in (
            ("caption", mystnb.get("figure", {}).get("caption", "")),
            ("alt", mystnb.get("image", {}).get("alt", "")),
            ("say", said),
        ):
            if text:
                passages.append(Passage(first, text, where, index, part, asserted=bool(asserts)))
    return cells, passages


@cache
def constants() -> list[float]:
    """Numbers of the configuration, and those of the world that the whole book names."""
    text = Path(str(config.__file__)).read_text(encoding="utf-8")
    others = " 3.10 0.05 0.95 95 100 256 0.13 0.19 2,583 25.8"
    world = " 25,829,888 869,504 48 20 60 24 1,024 6,400"
    return [value for value, _ in _numbers(text + others + world)]


def _numbers(text: str) -> list[tuple[float, int]]:
    """(value, decimals) of each figure; a share for a percentage."""
    found = []
    for match in NUMBER.findall(text):
        digits = match.rstrip("%").replace(",", "").replace("_", "").rstrip(".")
        if not digits:
            continue
        decimals = len(digits.partition(".")[2])
        value = float(digits)
        found.append((value / 100, decimals + 2) if match.endswith("%") else (value, decimals))
    return found


def _supported(value: float, decimals: int, evidence: list[float]) -> bool:
    return any(math.isclose(round(e, decimals), value, abs_tol=1e-9) for e in evidence)


def _asserts(source: str) -> list[str]:
    """The assertions of a cell, each as one line."""
    tree = ast.parse(source)
    found = [ast.get_source_segment(source, n) for n in ast.walk(tree) if isinstance(n, ast.Assert)]
    return [_one_line(text or "") for text in found]


def _one_line(code: str) -> str:
    return re.sub(r"\s+", " ", code)


@cache
def _cited() -> set[str]:
    """The keys of the bibliography."""
    text = (REPO / "book" / "refs.bib").read_text(encoding="utf-8")
    return set(re.findall(r"^@\w+\{([^,]+),", text, re.M))


def is_true(text: str) -> bool:
    """Whether Python arithmetic is true, with ``math``, the configuration, round, abs, sum and len.

    Raises:
        SyntaxError, ValueError: it is something else.
    """
    tree = ast.parse(text, mode="eval")
    for node in ast.walk(tree):
        name = getattr(node, "id", "") or getattr(node, "attr", "")
        if not isinstance(node, ARITHMETIC) or name.startswith("_"):
            raise ValueError(f"{ast.unparse(node)}: neither arithmetic nor the configuration")
        if isinstance(node, ast.Call) and not re.fullmatch(
            rf"(math\.\w+|{'|'.join(FUNCTIONS)})", ast.unparse(node.func)
        ):
            raise ValueError(f"{ast.unparse(node.func)}: no function of arithmetic")
    names = {"__builtins__": {}, "config": config, "math": math, **FUNCTIONS}
    return eval(compile(tree, "<by>", "eval"), names) is True


def _rests(by: str, cells: list[Cell]) -> str | None:
    """What is wrong with what a passage says that it rests on; None: nothing."""
    if by.startswith("assert "):
        # To the end of a number or a name: 0.2 is not the beginning of 0.25.
        beginning = re.compile(re.escape(_one_line(by)) + r"(?![\w.])")
        found = any(beginning.match(line) for cell in cells for line in cell.asserts)
        return None if found else "no such assert"
    if by == "reasoning":
        return None
    if by.startswith("@"):
        return None if by[1:] in _cited() else "not in book/refs.bib"
    if re.fullmatch(r"[\w./-]+\.(?:md|json|py|toml|sh|rs)", by):
        return None if (REPO / by).exists() else "no such file"
    try:
        return None if is_true(by) else "not true"
    except Exception as error:  # whatever is written there
        return f"{type(error).__name__}: {error}"


def complaints(path: Path) -> list[Complaint]:
    """All complaints about a page."""
    cells, passages = read(path)
    found: list[Complaint] = []
    everywhere = [v for cell in cells for v, _ in _numbers(cell.fixed) if v.is_integer()]
    for passage in passages:
        words = plain(passage.text)
        if re.match(r"\s*#|- \*\*(?:你将学会|需要|用到)", passage.text):
            continue

        def complain(kind: str, what: str, passage: Passage = passage, words: str = words) -> None:
            line = passage.line
            found.append(Complaint(path.name, line, f"{passage.where} {kind}", what, words.strip()))

        for by in passage.by:
            if wrong := _rests(by, cells):
                complain("evidence", f"{by}: {wrong}")
        near = cells[max(0, passage.nearest - 6) : passage.nearest + 5]
        beside = passage.where in ("caption", "alt", "say") or any(
            cell.differs and cell.part == passage.part
            for cell in cells[max(0, passage.nearest - 3) : passage.nearest + 2]
        )
        files = [by for by in passage.by if (REPO / by).is_file()]
        known = constants() + [
            value
            for text in [
                *(cell.fixed for cell in near),
                *(by for by in passage.by if by != "reasoning"),
                *re.findall(r"(?<!\\)\$[^$]+\$", passage.text),
                *((REPO / file).read_text(encoding="utf-8") for file in files),
            ]
            for value, _ in _numbers(text)
        ]
        known += everywhere
        cited = "{cite" in passage.text or any(by.startswith("@") for by in passage.by)
        lost = []
        counted = {float(n) for n in re.findall(r"(\d+) [道题句份]", words)} if beside else set()
        for value, decimals in _numbers(words):
            small = decimals == 0 and value <= 12 and value not in counted
            year = decimals == 0 and 1900 <= value <= 2030
            if not (small or year or cited or _supported(value, decimals, known)):
                lost.append(f"{value:g}")
        if lost:
            complain("figure", " ".join(dict.fromkeys(lost)))
        rests = passage.by or (passage.asserted and passage.where != "text")
        if not rests:
            claims = RUN.findall(words) + (BESIDE.findall(words) if beside else [])
            if claims:
                complain("claim", " ".join(dict.fromkeys(claims)))
        if beside and passage.where != "say":
            stable = "\n".join(cell.fixed for cell in cells)
            run = "\n".join(cell.output for cell in cells if cell.differs)
            for quoted in re.findall("“([^”]{3,})”", words):
                of_a_run = quoted in run and quoted not in stable
                if of_a_run or (quoted in SAYS.findall(words) and quoted not in stable):
                    complain("quotation", quoted)
    return found
