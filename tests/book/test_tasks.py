"""The build tasks: each stands on its chapter's page, blank and with a solution, and is told apart
from three wrong answers."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import jupytext
import pytest

from minillm.book import tasks
from minillm.errors import UserError

BOOK = Path(__file__).resolve().parents[2] / "book"
NAMES = tasks.names()
CHECK = re.compile(r'^tasks\.check\("([\d.]+)", (\w+)\)$', re.M)


def imports_of(code: list[str]) -> str:
    """The import statements of a page's cells."""
    nodes = [node for source in code for node in ast.parse(source).body]
    return "\n".join(ast.unparse(n) for n in nodes if isinstance(n, ast.Import | ast.ImportFrom))


def on_pages() -> dict[str, tuple[str, str, str]]:
    """Of each task on the pages: the page's imports, the blank cell, the solution below it."""
    found = {}
    for path in sorted(BOOK.glob("[0-9][0-9]-*.py")):
        cells = jupytext.read(path).cells
        code = [cell.source for cell in cells if cell.cell_type == "code"]
        imports = imports_of(code)
        for place, cell in enumerate(cells):
            if cell.cell_type != "code" or not (match := CHECK.search(cell.source)):
                continue
            name, function = match.groups()
            assert name not in found, f"{name} stands on two pages"
            assert int(name.split(".")[0]) == int(path.name[:2]), f"{path.name} asks for {name}"
            below = cells[place + 1].source
            solution = re.search(r"^```python\n(.*?)^```$", below, re.M | re.S)
            assert solution, f"{name}: no ```python block in the solution below its cell"
            assert f"def {function}(" in solution[1], name
            found[name] = (imports, cell.source, solution[1])
    return found


ON_PAGES = on_pages()


def said(name: str, answer: Callable[..., object], capsys: pytest.CaptureFixture[str]) -> str:
    tasks.check(name, answer)
    line = capsys.readouterr().out
    assert line.startswith(f"{name} ")
    assert line.count("\n") == 1
    return line


def test_each_task_stands_on_its_page() -> None:
    assert set(ON_PAGES) == set(NAMES)
    assert sorted(NAMES) == sorted(set(NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_the_page_asks_and_does_not_answer(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    imports, blank, _ = ON_PAGES[name]
    exec(f"{imports}\n{blank}", {})
    assert capsys.readouterr().out.startswith(f"{name} 还没有写：")


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_passes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    imports, blank, solution = ON_PAGES[name]
    content: dict[str, Any] = {}
    exec(f"{imports}\n{solution}", content)
    match = CHECK.search(blank)
    assert match
    assert said(name, content[match[2]], capsys) == f"{name} 通过。\n"


@pytest.mark.parametrize("name", NAMES)
def test_wrong_answers_are_told_what_is_wrong(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chapter = f"chapter{int(name.split('.')[0]):02}"
    answers = import_module(f"wrong_answers.{chapter}").WRONG[name]
    assert len(answers) >= 3
    lines = [said(name, answer, capsys) for answer in answers]
    assert all(line.startswith(f"{name} 还不对：") for line in lines), lines


def test_an_answer_that_fails_is_told_how(capsys: pytest.CaptureFixture[str]) -> None:
    def merge(ids: list[int], pair: tuple[int, int], new_id: int) -> list[int]:
        raise ValueError("two\nlines")

    assert said("3.1", merge, capsys) == (
        "3.1 还不对：merge([1, 2, 3], (1, 2), 9) 出错了：ValueError：two lines\n"
    )


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(UserError, match=r"no task '99\.1': choose one of .*3\.1"):
        tasks.check("99.1", print)
