"""Build tasks of chapter 4: from sequences to rows of tensors."""

from __future__ import annotations

from typing import Any

import torch

from minillm.book.tasks.attempt import Attempt, Wrong, demand, difference, task


def _gives_two(
    attempt: Attempt,
    names: tuple[str, str],
    wanted: tuple[list[list[int]], list[list[int]]],
    *arguments: Any,
    hint: str = "",
) -> None:
    """Demands two tensors of whole numbers."""
    got, call = attempt(*arguments), attempt.call(*arguments)
    demand(
        isinstance(got, tuple | list) and len(got) == 2,
        f"{call} 要返回两个张量：{', '.join(names)}",
    )
    for name, mine, right in zip(names, got, wanted, strict=True):
        if reason := difference(mine, torch.tensor(right)):
            raise Wrong(f"{call} 的 {name} {reason}。{hint}")
        demand(mine.dtype == torch.int64, f"{name} 应该是 torch.int64，你的是 {mine.dtype}")


@task("4.1")
def _to_tensors(attempt: Attempt) -> None:
    """``to_tensors(rows, T)``: ``input_ids`` and ``labels`` ``[B, T]`` of (ids, mask) sequences,
    shifted, cut and padded."""

    def gives(
        inputs: list[list[int]],
        labels: list[list[int]],
        rows: list[tuple[list[int], list[int]]],
        T: int,
        hint: str = "",
    ) -> None:
        _gives_two(attempt, ("input_ids", "labels"), (inputs, labels), rows, T, hint=hint)

    gives(
        [[1, 5, 6]],
        [[5, 6, 7]],
        [([1, 5, 6, 7], [1, 1, 1, 1])],
        3,
        hint="标签是下一个词元；T 个位置要 T + 1 个词元。",
    )
    all_learned = ([1, 5, 6, 7], [0, 1, 1, 1])
    gives(
        [[1, 5, 6, 7, 8]],
        [[-100, -100, 7, 8, -100]],
        [([1, 5, 6, 7, 8, 9], [0, 0, 0, 1, 1, 0])],
        5,
        hint="位置 t 学不学，看第 t + 1 个词元的掩码；不学的写 -100。",
    )
    gives(
        [[1, 5, 6, 0, 0]],
        [[5, 6, 7, -100, -100]],
        [all_learned],
        5,
        hint="右边补齐：输入补 0，标签补 -100；末尾的词元只当答案。",
    )
    gives(
        [[1, 5]], [[5, 6]], [all_learned], 2, hint="T 个位置要 T + 1 个词元：最后一个位置也有答案。"
    )
    gives(
        [[1, 5, 6], [2, 0, 0]],
        [[5, 6, 7], [-100, -100, -100]],
        [all_learned, ([2, 3], [0, 0])],
        3,
        hint="每个序列占一行。",
    )
    attempt.leaves([all_learned], 5)


@task("4.2")
def _pack(attempt: Attempt) -> None:
    """``pack(lengths, capacity)``: ``position_ids`` and ``document_ids`` ``[rows, capacity]`` of
    best fit decreasing."""

    def gives(
        rows: list[list[tuple[int, int]]], lengths: list[int], capacity: int, hint: str = ""
    ) -> None:
        """``rows``: in each the documents, with their lengths."""
        positions, documents = [], []
        for row in rows:
            left = capacity - sum(length for _, length in row)
            positions.append([i for _, length in row for i in range(length)] + [0] * left)
            documents.append([d for d, length in row for _ in range(length)] + [-1] * left)
        names = ("position_ids", "document_ids")
        _gives_two(attempt, names, (positions, documents), lengths, capacity, hint=hint)

    gives([[(0, 3)]], [3], 3)
    gives([[(0, 3)]], [3], 5, hint="填充处 position_ids 是 0，document_ids 是 -1。")
    gives([[(0, 3), (1, 2)]], [3, 2], 6, hint="每个序列的位置各自从 0 数起。")
    gives([[(0, 8), (2, 4)], [(1, 6)]], [8, 6, 4], 12, hint="前面的行还有空位，也要看。")
    gives([[(1, 5), (0, 3)], [(3, 4), (2, 2)]], [3, 5, 2, 4], 8, hint="长的先放。")
    gives([[(0, 4), (1, 4)], [(2, 4)]], [4, 4, 4], 8, hint="一样长的，排在前面的先放。")
    gives(
        [[(0, 8)], [(1, 6), (2, 5), (3, 1)]],
        [8, 6, 5, 1],
        12,
        hint="长 1 的那个两行都放得下，要选剩得最少的第 1 行。",
    )
    lengths = [70, 60, 50, 40, 30, 6]  # by hand, in the chapter
    rows = [[0, 2, 5], [1, 3], [4]]
    gives([[(d, lengths[d]) for d in row] for row in rows], lengths, 128)
    attempt.leaves([3, 5, 2, 4], 8)
