"""Build tasks of chapter 6: the loss's gradient, and one update of the weights."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, tensor

from minillm.book.tasks.attempt import Attempt, task


@task("6.1")
def _loss_gradient(attempt: Attempt) -> None:
    """``loss_gradient(logits, labels)``: of the mean cross-entropy, over the labels that are not
    -100, with respect to the scores ``[N, V]``."""
    third = 1 / 3
    attempt.gives(tensor([[third, third, third - 1]]), torch.zeros(1, 3), tensor([2]))
    attempt.gives(
        tensor([[0.25, -0.25], [-0.25, 0.25]]),
        torch.zeros(2, 2),
        tensor([1, 0]),
        hint="损失是平均，梯度也要除以词元数。",
    )
    attempt.gives(
        tensor([[0.0, 0, 0], [third, third - 1, third]]),
        tensor([[5.0, 0, 0], [0, 0, 0]]),
        tensor([-100, 1]),
        hint="标签是 −100 的那一行，梯度是 0，也不计入个数。",
    )
    attempt.gives(
        tensor([[1.0, -1, 0]]),
        tensor([[1000.0, 0, 0]]),
        tensor([1]),
        hint="打分很大时，指数会溢出：每一行先减去自己的最大值。",
    )
    attempt.gives(
        torch.zeros(2, 3),
        torch.ones(2, 3),
        tensor([-100, -100]),
        hint="一个词元也不学时，不要除以 0。",
    )
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, generator=generator)
    labels = tensor([4, -100, 0, 2, -100, 2])
    attempt.gives(_by_autograd(logits, labels), logits, labels)
    attempt.leaves(logits, labels)


def _by_autograd(logits: Tensor, labels: Tensor) -> Tensor:
    scores = logits.clone().requires_grad_()
    loss = F.cross_entropy(scores, labels, ignore_index=-100)
    return torch.autograd.grad(loss, scores)[0]


_Step = list[tuple[Tensor, int]]
"""The micro-batches of a step: of each the sum of its tokens' gradients, and their number."""


@task("6.2")
def _adamw(attempt: Attempt) -> None:
    """``adamw(w, steps, rate)``: the weights after all steps of accumulation, clipping, AdamW."""
    hint = "第一步恰好走一个学习率：m 和 v 都要修正；先衰减，再走步。"
    by_hand = tensor([0.5 * (1 - 0.006 * 0.1) - 0.006])
    attempt.gives(by_hand, tensor([0.5]), [[(tensor([0.2]), 1)]], 0.006, hint=hint)
    cases: list[tuple[list[float], list[list[tuple[list[float], int]]], str]] = [
        ([0.0], [[([3.0], 3), ([-2.0], 1)]], "先把梯度都加起来，再除以全部词元数，只除一次。"),
        ([1.0, -2.0], [[([0.0, 0.0], 4)]], "权重衰减另算，不进 m 和 v。"),
        (
            [1.0, 1.0],
            [[([30.0, 40.0], 1)], [([0.3, -0.4], 1)]],
            "梯度的长度超过 1，就整个缩到 1，再交给 m 和 v。",
        ),
        (
            [1.0, 1.0],
            [[([0.03, 0.04], 1)], [([0.3, -0.4], 1)]],
            "长度不到 1 的梯度不动；第 t 步的修正用 t 次方。",
        ),
    ]
    for weights, numbers, hint in cases:
        w = tensor(weights)
        steps = [[(tensor(g), n) for g, n in step] for step in numbers]
        attempt.gives(_by_torch(w, steps, 0.1), w, steps, 0.1, hint=hint)
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(5, generator=generator)
    steps = [
        [(torch.randn(5, generator=generator) * n / (k + 1), n) for n in (1, 4)] for k in range(6)
    ]
    attempt.gives(_by_torch(w, steps, 0.02), w, steps, 0.02)


def _by_torch(w: Tensor, steps: list[_Step], rate: float) -> Tensor:
    parameter = torch.nn.Parameter(w.clone())
    optimizer = torch.optim.AdamW([parameter], lr=rate, betas=(0.9, 0.95), weight_decay=0.1)
    for step in steps:
        gradients, counts = zip(*step, strict=True)
        parameter.grad = torch.stack(gradients).sum(0) / math.fsum(counts)
        torch.nn.utils.clip_grad_norm_([parameter], 1.0)
        optimizer.step()
    return parameter.detach()
