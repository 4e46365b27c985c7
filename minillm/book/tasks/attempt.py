"""A reader's function under examination."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

Check = TypeVar("Check", bound=Callable[..., None])
LONGEST = 120
"""Characters of a value that is shown."""
MOST_NUMBERS = 12
"""Numbers of a tensor that are shown; of a larger one only the shape is."""


class Wrong(Exception):
    """The function does not do what the task asks; the message, in Chinese, says in which case."""


class Unwritten(Exception):
    """The function returns ``...``: nobody has written it yet."""


def task(name: str) -> Callable[[Check], Check]:
    """Marks the check of the task ``name``, as "3.1": chapter, number."""

    def mark(check: Check) -> Check:
        vars(check)["task"] = name
        return check

    return mark


class Attempt:
    """The reader's function. It is called on copies of its arguments, and what it raises becomes
    ``Wrong``."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function
        self.name = getattr(function, "__name__", "函数")

    def __call__(self, *arguments: Any) -> Any:
        return self._run(copy.deepcopy(arguments), self.call(*arguments))

    def _run(self, arguments: tuple[Any, ...], call: str) -> Any:
        try:
            result = self.function(*arguments)
        except Exception as error:
            what = " ".join(str(error).split())
            raise Wrong(
                f"{call} 出错了：{type(error).__name__}" + (f"：{_short(what)}" if what else "")
            ) from error
        if result is ...:
            raise Unwritten
        return result

    def gives(self, wanted: object, *arguments: Any, hint: str = "") -> Any:
        """Calls it and demands this result; numbers and tensors may differ by rounding. Returns
        what it gave. ``hint`` is said where it gives something else."""
        got = self(*arguments)
        if reason := difference(got, wanted):
            raise Wrong(f"{self.call(*arguments)} {reason}。{hint}")
        return got

    def leaves(self, *arguments: Any) -> None:
        """Demands that it changes none of its arguments."""
        given, call = copy.deepcopy(arguments), self.call(*arguments)
        self._run(given, call)
        if any(difference(now, before) for now, before in zip(given, arguments, strict=True)):
            raise Wrong(f"{call} 改动了传进来的值：返回新的，不要动它")

    def call(self, *arguments: Any) -> str:
        """How the call is written."""
        return f"{self.name}({', '.join(map(show, arguments))})"


def demand(condition: object, message: str) -> None:
    """Raises Wrong with this message unless the condition holds."""
    if not condition:
        raise Wrong(message)


def show(value: object) -> str:
    """A value, short: of a tensor or array its shape and, where there are few, its numbers."""
    if isinstance(value, torch.Tensor | np.ndarray):
        few = f" {_short(str(value.tolist()))}" if math.prod(value.shape) <= MOST_NUMBERS else ""
        return f"{_kind(value)}{list(value.shape)}{few}"
    if callable(value):
        return getattr(value, "__name__", "函数")
    return _short(repr(value))


def difference(got: object, wanted: object) -> str:
    """In which way a result is another than the wanted one, in Chinese; "": in none."""
    if isinstance(wanted, torch.Tensor | np.ndarray):
        return _tensor_difference(got, wanted)
    if not _same(got, wanted):
        return f"应该是 {show(wanted)}，你的是 {show(got)}"
    return ""


def _tensor_difference(got: object, wanted: torch.Tensor | np.ndarray) -> str:
    if not isinstance(got, type(wanted)):
        return f"应该是{_kind(wanted)}，你的是 {type(got).__name__}"
    if got.shape != wanted.shape:
        return f"的形状应该是 {list(wanted.shape)}，你的是 {list(got.shape)}"
    mine, right = (np.array(x.tolist(), float) for x in (got, wanted))
    close = np.isclose(mine, right, rtol=1e-4, atol=1e-5, equal_nan=True)
    if close.all():
        return ""
    place = tuple(int(i) for i in np.argwhere(~close)[0])
    where = f"[{', '.join(map(str, place))}]" if place else ""
    return f"{where} 应该是 {_number(right[place])}，你的是 {_number(mine[place])}"


def _same(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, bool) or isinstance(got, bool):
        return got is wanted or (isinstance(got, np.bool_) and bool(got) == wanted)
    if isinstance(wanted, float):
        return isinstance(got, int | float | np.number | torch.Tensor) and math.isclose(
            float(got), wanted, rel_tol=1e-5, abs_tol=1e-7
        )
    if isinstance(wanted, Mapping):
        return (
            isinstance(got, Mapping)
            and got.keys() == wanted.keys()
            and all(_same(got[key], wanted[key]) for key in wanted)
        )
    if isinstance(wanted, Sequence) and not isinstance(wanted, str | bytes):
        return (
            isinstance(got, Sequence) and len(got) == len(wanted) and all(map(_same, got, wanted))
        )
    return bool(got == wanted)


def _kind(value: object) -> str:
    return "张量" if isinstance(value, torch.Tensor) else "数组"


def _number(value: Any) -> str:
    return f"{float(value):.4g}"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
