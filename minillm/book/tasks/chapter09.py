"""Build tasks of chapter 9: the policy gradient of a group, and GRPO's clipped loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor, tensor

from minillm.book.tasks.attempt import Attempt, task


@task("9.1")
def _policy_gradient(attempt: Attempt) -> None:
    """``policy_gradient(z, drawn, rewards)``: the mean reward's gradient with respect to the
    scores ``[K]`` of K answers, by a group that was drawn; its mean reward is the baseline."""
    z = tensor([math.log(3), 0.0])
    drawn = tensor([0, 0, 1, 0, 0, 0, 1, 0])
    attempt.gives(
        tensor([-0.1875, 0.1875]),
        z,
        drawn,
        drawn.float(),
        hint="这是正文里的那一组：八个乘积取平均，往奖励高的方向。",
    )
    attempt.gives(
        torch.zeros(2),
        z,
        tensor([0, 1, 0]),
        torch.ones(3),
        hint="全对的一组没有信号：先减去平均分。",
    )
    attempt.gives(
        tensor([0.5, -0.5]) * 0.5,
        torch.zeros(2),
        tensor([0, 1]),
        tensor([10.0, 9.0]),
        hint="奖励都加 9，优势不变。",
    )
    z, drawn, rewards = tensor([0.0, 1, -1]), tensor([0, 2, 1, 1]), tensor([1.0, 0, 0.5, 0])
    attempt.gives(
        _by_autograd(z, drawn, rewards),
        z,
        drawn,
        rewards,
        hint="每个分量都有：抽到的那个是 1 − π，没抽到的是 −π。",
    )
    attempt.leaves(z, drawn, rewards)


def _by_autograd(z: Tensor, drawn: Tensor, rewards: Tensor) -> Tensor:
    scores = z.clone().requires_grad_()
    better = rewards - rewards.mean()
    gain = (better * scores.log_softmax(0)[drawn]).mean()
    return torch.autograd.grad(gain, scores)[0]


@task("9.2")
def _grpo_loss(attempt: Attempt) -> None:
    """``grpo_loss(rewards, new, old, lengths, epsilon)``: of one group, its answers' tokens one
    after the other."""
    same = torch.zeros(4)
    attempt.gives(
        -0.25,
        tensor([1.0, 0.0]),
        same,
        same,
        [3, 1],
        0.2,
        hint="每个词元拿整个回答的优势，加起来，除以全部词元数；奖励要变大，损失是它的相反数。",
    )
    for rewards, ratio, wanted, hint in (
        ([1.0, 0.0], 1.1, -0.025, "概率只涨了一成，还没到裁剪的界。"),
        ([1.0, 0.0], 1.5, -0.05, "好的回答已经涨过了界，就不再推。"),
        ([0.0, 1.0], 1.5, 0.125, "坏的回答反而涨了，不能裁：两者取小的。"),
        ([0.0, 1.0], 0.5, -0.05, "坏的回答已经压过了界，就不再压。"),
        ([1.0, 0.0], 0.5, 0.125, "好的回答反而跌了，不能裁：两者取小的。"),
    ):
        new = tensor([math.log(ratio), 0.0])
        attempt.gives(wanted, tensor(rewards), new, torch.zeros(2), [1, 1], 0.2, hint=hint)
    new = tensor([-1.0, -2, -3])
    attempt.gives(
        0.0, torch.ones(3), new, new - 0.1, [1, 1, 1], 0.2, hint="全对的一组，优势全是 0。"
    )
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand(9, generator=generator)
    new = old + torch.randn(9, generator=generator) / 2
    given, lengths = tensor([1.0, 0, 0, 1]), [2, 4, 1, 2]
    attempt.gives(
        _token_by_token(given, new, old, lengths, 0.1),
        given,
        new,
        old,
        lengths,
        0.1,
        hint="词元按回答的长短，依次归到各个回答。",
    )
    attempt.leaves(given, new, old, lengths, 0.1)


def _token_by_token(
    rewards: Tensor, new: Tensor, old: Tensor, lengths: list[int], epsilon: float
) -> float:
    """By the four cases: what may still move, and what has moved enough."""
    scores = rewards.tolist()
    owners = [i for i, length in enumerate(lengths) for _ in range(length)]
    total = 0.0
    for i, now, before in zip(owners, new.tolist(), old.tolist(), strict=True):
        better = scores[i] - sum(scores) / len(scores)
        ratio = math.exp(now - before)
        if better > 0 and ratio > 1 + epsilon:
            ratio = 1 + epsilon
        if better < 0 and ratio < 1 - epsilon:
            ratio = 1 - epsilon
        total += ratio * better
    return -total / len(owners)
