"""Build tasks of chapter 12: training in parts."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from minillm.book.tasks.attempt import Attempt, demand, task

_Ring = list[list[float]]


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the longest side of any matrix that is multiplied."""

    longest = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if "mm" in str(operation):
            sides = [side for a in args if isinstance(a, torch.Tensor) for side in a.shape]
            self.longest = max([self.longest, *sides])
        return operation(*args, **(kwargs or {}))


@task("12.1")
def _accumulate(attempt: Attempt) -> None:
    """``accumulate(weight, x, labels, sizes)``: the gradient of the mean over all that is learned,
    as PyTorch has it for all rows at once."""
    _parts(attempt, [1, 0, 2], [3], "只有一份的时候，就是普通的梯度。")
    _parts(attempt, [1, 0, 2, 2, 1, 0], [3, 3], "要除以全部的个数，不是一份的个数。")
    _parts(attempt, [1, 0, 2, 1, 1, 2], [5, 1], "各份不一样多：平均的平均不是全部的平均。")
    _parts(attempt, [-100, 0, -100, 1, 2, 1], [4, 2], "−100 的位置不学，也不算在个数里。")
    _parts(attempt, [-100, -100, 2, 1, 0], [2, 3], "一份里可以一个要学的也没有：用和，不用平均。")


def _parts(attempt: Attempt, labels: list[int], sizes: list[int], hint: str) -> None:
    generator = torch.Generator().manual_seed(len(labels))
    weight = torch.randn(2, 3, generator=generator).requires_grad_()
    x, y = torch.randn(len(labels), 2, generator=generator), torch.tensor(labels)
    loss = torch.nn.functional.cross_entropy(x @ weight, y, ignore_index=-100)
    (wanted,) = torch.autograd.grad(loss, weight)
    with _Products() as products:  # type: ignore[no-untyped-call]
        got = attempt.gives(wanted, weight, x, y, sizes, hint=hint)
    demand(not got.requires_grad, "返回的是梯度，它自己不要再求梯度")
    demand(
        products.longest <= max(3, *sizes),
        f"分成 {sizes} 时，你一次乘了 {products.longest} 行：一次只算一份",
    )


@task("12.2")
def _ring(attempt: Attempt) -> None:
    """``ring_step(pieces, step)``: one step of a ring all-reduce."""
    attempt.gives(
        [[1, 6], [4, 4]], [[1, 2], [3, 4]], 0, hint="第 r 个送的是第 (r − step) mod P 块。"
    )
    attempt.gives([[4, 6], [4, 6]], [[1, 6], [4, 4]], 1, hint="后一半收到的是换掉，不是加上。")
    three: _Ring = [[1, 2, 3], [10, 20, 30], [100, 200, 300]]
    attempt.gives(
        [[1, 2, 303], [11, 20, 30], [100, 220, 300]],
        three,
        0,
        hint="送给右边，第 2 个的右边是第 0 个。",
    )
    attempt.gives(
        [[1, 222, 303], [11, 20, 333], [111, 220, 300]],
        [[1, 2, 303], [11, 20, 30], [100, 220, 300]],
        1,
        hint="三个进程，前两步都是加：第 0 步和第 1 步。",
    )
    attempt.leaves(three, 0)
    for size in (1, 4, 5):
        pieces: _Ring = [[10.0**r + k for k in range(size)] for r in range(size)]
        wanted = [sum(column) for column in zip(*pieces, strict=True)]
        for step in range(2 * (size - 1)):
            pieces = attempt(pieces, step)
        demand(
            pieces == [wanted] * size,
            f"{size} 个进程走完 {2 * (size - 1)} 步，应该都是 {wanted}，你的是 {pieces}",
        )
