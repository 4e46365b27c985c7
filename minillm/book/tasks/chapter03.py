"""Build tasks of chapter 3: byte pair encoding."""

from __future__ import annotations

from minillm.book.tasks.attempt import Attempt, task


@task("3.1")
def _merge(attempt: Attempt) -> None:
    """``merge(ids, pair, new_id)``: the list with each occurrence of the pair replaced, from left
    to right."""
    attempt.gives([9, 3], [1, 2, 3], (1, 2), 9)
    attempt.gives([7, 9], [7, 1, 2], (1, 2), 9, hint="最后一对也要合并。")
    attempt.gives([9, 9], [1, 1, 1, 1], (1, 1), 9, hint="合并过的不能再用一次。")
    attempt.gives([9, 1], [1, 1, 1], (1, 1), 9, hint="从左到右，先到先得。")
    attempt.gives([2, 1], [2, 1], (1, 2), 9, hint="(2, 1) 和 (1, 2) 是两个对。")
    attempt.gives([], [], (1, 2), 9)
    attempt.leaves([1, 2, 3], (1, 2), 9)


@task("3.2")
def _learn(attempt: Attempt) -> None:
    """``learn(words, merges)``: the bytes of the tokens that are merged, in their order, from
    chunks and how often each occurs."""
    cat = "8C AB|8F E7|B0 8F E7|E5 B0 8F E7|E5 B0 8F E7 8C AB"  # by hand, in the chapter
    attempt.gives([b"ab"], {"ab": 1}, 1)
    attempt.gives(
        [bytes.fromhex(token) for token in cat.split("|")],
        {"小猫看小猫": 1},
        5,
        hint="次数最多的先合并；打平取编号小的一对。",
    )
    attempt.gives(
        [b"\x93\x88", "哈".encode(), "哈哈".encode(), "哈哈哈哈".encode()],
        {"哈哈哈哈": 1},
        44,
        hint="没有对可以合并了，就停下。",
    )
    attempt.gives([b"zy"], {"ba": 1, "bc": 1, "zy": 3}, 1, hint="一个块出现几次，它的对就算几次。")
    attempt.gives([b"ab"], {"ab": 3}, 5, hint="合并不跨块。")
    attempt.gives(
        [b"aa", b"bc"], {"aaa": 2, "bc": 3}, 2, hint="aaa 里 (a, a) 有两对，虽然重叠，都要数。"
    )
    attempt.gives(
        [b"ab", b"cy", b"abx"],
        {"abx": 2, "cy": 2},
        3,
        hint="打平时比编号，不比字节：ab 是 256，c 是 99。",
    )
    attempt.leaves({"ab": 2}, 1)
