"""The chapters' build tasks: the reader writes a function in a cell, and ``check`` says whether it
is right.

    tasks.check("3.1", most_frequent)

prints one line: 通过, 还没有写 while the function still returns ``...``, or 还不对 with the first
case that goes wrong. A task is a function of ``chapterNN.py`` beside this file, under the
decorator ``task``: it is given the reader's function as an ``Attempt`` and returns if all is well.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules

from minillm.book.tasks.attempt import Attempt, Unwritten, Wrong
from minillm.errors import UserError

__all__ = ["check", "names"]


def names() -> list[str]:
    """All tasks, in the order of the chapters."""
    found = [name for module in iter_modules(__path__) for name in _tasks_of(module.name)]
    return sorted(found, key=lambda name: [int(part) for part in name.split(".")])


def check(name: str, answer: Callable[..., object]) -> None:
    """Prints whether the reader's function solves the task, and if not, where it goes wrong.

    Raises:
        UserError: there is no such task.
    """
    chapter = name.split(".")[0]
    found = _tasks_of(f"chapter{chapter:0>2}").get(name)
    if found is None:
        raise UserError(f"there is no task {name!r}: choose one of {', '.join(names())}")
    try:
        found(Attempt(answer))
    except Unwritten:
        print(f"{name} 还没有写：把 ... 换成你的代码，再运行这一格。")
    except Wrong as wrong:
        print(f"{name} 还不对：{wrong}")
    else:
        print(f"{name} 通过。")


def _tasks_of(module: str) -> dict[str, Callable[[Attempt], None]]:
    if not module.startswith("chapter") or find_spec(f"{__name__}.{module}") is None:
        return {}
    content = vars(import_module(f"{__name__}.{module}"))
    return {value.task: value for value in content.values() if hasattr(value, "task")}
