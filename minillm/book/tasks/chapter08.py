"""Build tasks of chapter 8: the loss of pairs, and DPO on a model of a few answers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, tensor

from minillm.book.tasks.attempt import Attempt, demand, task


@task("8.1")
def _pair_losses(attempt: Attempt) -> None:
    """``pair_losses(policy, reference, mask, beta)``: the DPO loss of each pair, from the
    log-probabilities of tokens ``[2 pairs, T]``, chosen and rejected answers in turn."""
    reference = tensor([[-0.2, -2.0, -0.8], [-0.2, -0.5, -0.3]])
    policy = tensor([[-0.2, -1.2, -0.6], [-0.2, -1.9, -0.9]])
    ones = torch.ones(2, 3)
    attempt.gives(
        tensor([math.log(2)]),
        reference,
        reference,
        ones,
        0.1,
        hint="策略就是参考模型时，间隔是 0，损失是 ln 2。",
    )
    attempt.gives(
        tensor([math.log(1 + math.exp(-0.3))]),
        policy,
        reference,
        ones,
        0.1,
        hint="各词元的对数概率相加，不取平均；间隔是选中的减被拒绝的。",
    )
    asked = tensor([[-9.0, -8.0], [-1.0, -2.0]])  # the question's tokens, which differ
    never = torch.zeros(2, 2)
    attempt.gives(
        tensor([math.log(1 + math.exp(-0.3))]),
        torch.cat([asked, policy], dim=1),
        torch.cat([never, reference], dim=1),
        torch.cat([never, ones], dim=1),
        0.1,
        hint="问题的词元，掩码是 0，不算。",
    )
    four = tensor([[-1.0, -1, -1, -1], [-3, -9, -9, -9]])
    short = tensor([[1.0, 1, 1, 1], [1, 0, 0, 0]])
    attempt.gives(
        tensor([math.log(1 + math.exp(-1.0))]),
        four,
        tensor([[-2.0, -2, -2, -2], [-6, 0, 0, 0]]),
        short,
        1.0,
        hint="两个回答长短不同，仍是相加。",
    )
    attempt.gives(
        tensor([math.log(1 + math.exp(-0.3)), math.log(1 + math.exp(0.3))]),
        torch.cat([policy, policy.flip(0)]),
        torch.cat([reference, reference.flip(0)]),
        torch.ones(4, 3),
        0.1,
        hint="第 0、2 行是选中的，第 1、3 行是被拒绝的。",
    )
    attempt.gives(
        tensor([500.0]),
        tensor([[-5000.0], [0.0]]),
        torch.zeros(2, 1),
        torch.ones(2, 1),
        0.1,
        hint="间隔很负时，σ 下溢成 0，再取对数就是无穷：想想怎样一步算完。",
    )
    generator = torch.Generator().manual_seed(0)
    new, old = torch.randn(2, 6, 5, generator=generator)
    mask = (torch.rand(6, 5, generator=generator) < 0.6).float()
    gain = ((new - old) * mask).sum(1)
    attempt.gives(-F.logsigmoid(0.5 * (gain[0::2] - gain[1::2])), new, old, mask, 0.5)
    attempt.leaves(new, old, mask, 0.5)


@task("8.2")
def _train_dpo(attempt: Attempt) -> None:
    """``train_dpo(reference, pairs, beta)``: the probabilities of K answers that DPO brings about.

    Where the pairs come as by Bradley and Terry, that is reference × exp(reward / β).
    """
    won, lost = (0, 1), (1, 0)  # three to one: a difference of ln 3 in reward
    pairs = [won, won, lost, won]
    half, few = tensor([0.5, 0.5]), tensor([0.2, 0.8])
    _near(attempt, [3.0, 1.0], half, pairs, 1.0, "三比一，奖励差 ln 3。")
    _near(attempt, [0.6, 0.8], few, pairs, 1.0, "从参考模型出发，也以它为尺。")
    _near(attempt, [1.8, 0.8], few, pairs, 0.5, "β 小一半，奖励除以 β，差得更多。")
    scores = tensor([4.0, 2.0, 1.0])
    three = [(0, 1)] * 2 + [(1, 0)] + [(1, 2)] * 2 + [(2, 1)] + [(0, 2)] * 4 + [(2, 0)]
    third = torch.full((3,), 1 / 3)
    _near(attempt, scores.tolist(), third, three, 1.0, "每一对都受力，推力是 β(1 − σ(m))。")
    root = math.sqrt(3)
    aside = tensor([0.4, 0.4, 0.2])
    _near(attempt, [0.4 * root, 0.4 / root, 0.2], aside, pairs, 1.0, "没有比过的回答不受力。")
    attempt.leaves(half, pairs, 1.0)


def _near(
    attempt: Attempt,
    shares: list[float],
    reference: Tensor,
    pairs: list[tuple[int, int]],
    beta: float,
    hint: str,
) -> None:
    """Demands these shares to two decimals: nobody's training ends exactly there."""
    wanted = tensor(shares) / sum(shares)
    got = attempt(reference, pairs, beta)
    call = attempt.call(reference, pairs, beta)
    demand(
        isinstance(got, Tensor) and got.shape == wanted.shape,
        f"{call} 应该是形状 {list(wanted.shape)} 的张量",
    )
    demand(abs(float(got.sum()) - 1) < 0.001, f"{call} 是概率，加起来应该是 1")
    close = bool(((got - wanted).abs() < 0.01).all())
    rounded = [[round(x, 3) for x in values.tolist()] for values in (wanted, got)]
    demand(
        close,
        f"{call} 应该接近 {rounded[0]}，你的是 {rounded[1]}。{hint}也可能是步数不够，还没走到底。",
    )
