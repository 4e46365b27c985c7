"""Answers to the build tasks of chapter 13 that readers give and that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Render = Callable[[str], list[int]]
Numbers = NDArray[Any]


def asks_only_whether_it_is_there(render: Render, names: dict[str, int]) -> list[str]:
    return sorted(name for name, number in names.items() if number in render(name))


def does_not_try_twice(render: Render, names: dict[str, int]) -> list[str]:
    usual = render("你好")
    return sorted(n for n, i in names.items() if render(n).count(i) > usual.count(i))


def keeps_the_given_order(render: Render, names: dict[str, int]) -> list[str]:
    usual = render("你好")
    return [
        name
        for name, number in names.items()
        for typed in (name, name.replace("<|", "<<||"))
        if render(typed).count(number) > usual.count(number)
    ]


def puts_neighbours_together(x: Numbers) -> bytes:
    d = x[np.abs(x).argmax()] / -8
    q = np.floor(x / d + 0.5) if d else np.zeros(32)
    u: Numbers = (np.minimum(q, 7) + 8).astype(np.uint8)
    return bytes(np.float16(d).tobytes() + (u[::2] | u[1::2] << 4).tobytes())


def has_a_scale_above_0(x: Numbers) -> bytes:
    d = np.abs(x).max() / 8
    q = np.floor(x / d + 0.5) if d else np.zeros(32)
    u: Numbers = (np.minimum(q, 7) + 8).astype(np.uint8)
    return bytes(np.float16(d).tobytes() + (u[:16] | u[16:] << 4).tobytes())


def forgets_the_limit(x: Numbers) -> bytes:
    d = x[np.abs(x).argmax()] / -8
    q = np.floor(x / d + 0.5) if d else np.zeros(32)
    u: Numbers = (q + 8).astype(np.uint8)
    return bytes(np.float16(d).tobytes() + (u[:16] | u[16:] << 4).tobytes())


WRONG = {
    "13.1": [asks_only_whether_it_is_there, does_not_try_twice, keeps_the_given_order],
    "13.2": [puts_neighbours_together, has_a_scale_above_0, forgets_the_limit],
}
