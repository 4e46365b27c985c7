"""Build tasks of chapter 13: what a model is taken away in."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from minillm.book.tasks.attempt import Attempt, task

_NAMES = {"<|bos|>": 1, "<|user_start|>": 2, "<|user_end|>": 3, "<|assistant_start|>": 4}


@task("13.1")
def _forgeable(attempt: Attempt) -> None:
    """``forgeable(render, names)``: the special tokens that a user's text can become."""
    hint = "模板自己写的不算：要比个数，不能只看有没有。"
    attempt.gives([], _safe, _NAMES, hint=hint)
    attempt.gives(sorted(_NAMES), _plain, _NAMES, hint="原样打出来的名字就变成了特殊词元。")
    attempt.gives(
        ["<|bos|>", "<|user_end|>"],
        _knows_two,
        _NAMES,
        hint="只有一部分打得出来：每个名字单独试。",
    )
    attempt.gives(sorted(_NAMES), _strips_once, _NAMES, hint="把 <| 换成 <<|| 再试一次。")
    names = dict(reversed(_NAMES.items()))
    attempt.gives(sorted(_NAMES), _plain, names, hint="返回的名字要排好序。")
    attempt.gives([], _plain, {})


def _tokens(text: str, known: Sequence[str]) -> list[int]:
    """The numbers of the known names, and 1,000 and more for all other characters."""
    pieces = re.split(f"({'|'.join(map(re.escape, known))})", text)
    found: list[int] = []
    for piece in pieces:
        found += [_NAMES[piece]] if piece in known else [1000 + ord(c) for c in piece]
    return found


def _chat(inside: list[int]) -> list[int]:
    return [1, 2, *inside, 3, 4]


def _safe(text: str) -> list[int]:
    return _chat([1000 + ord(character) for character in text])


def _plain(text: str) -> list[int]:
    return _chat(_tokens(text, list(_NAMES)))


def _knows_two(text: str) -> list[int]:
    return _chat(_tokens(text, ["<|bos|>", "<|user_end|>"]))


def _strips_once(text: str) -> list[int]:
    return _chat(_tokens(text.replace("<|", ""), list(_NAMES)))


@task("13.2")
def _q4_0(attempt: Attempt) -> None:
    """``q4_0(x)``: a block of GGUF's Q4_0; the wanted bytes are those of the package gguf."""
    four = [0.34, -1.6, 0.72, 1.2]
    _block(attempt, four * 8, "6632aa00cceeaa00cceeaa00cceeaa00ccee", "手算的四个数，重复八遍。")
    _block(
        attempt,
        [-2.0, 2.0, *[0.5] * 14, *[1.0] * 16],
        "0034c0cfcacacacacacacacacacacacacaca",
        "超过 7 的要算 7。",
    )
    _block(
        attempt,
        list(range(-16, 16)),
        "0040809191a2a2b3b3c4c4d5d5e6e6f7f7f8",
        "第 j 个字节，低 4 位是第 j 个数，高 4 位是第 j + 16 个数。",
    )
    _block(
        attempt,
        [round(0.1 * i - 0.9, 2) for i in range(32)],
        "66b45b5b5b4a4a4939393828281717170606",
        "绝对值排头的是正数时，d 是负数。",
    )
    _block(attempt, [0.0] * 32, "0080" + "88" * 16, "全是 0 时 d 是 −0，q 都是 0，加 8 就是 8。")


def _block(attempt: Attempt, x: Sequence[float], wanted: str, hint: str) -> None:
    attempt.gives(bytes.fromhex(wanted), np.array(x, dtype=np.float32), hint=hint)
