"""Answers to the build tasks of chapter 9 that readers give and that are wrong."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def forgets_the_baseline(z: Tensor, drawn: Tensor, rewards: Tensor) -> Tensor:
    return (rewards[:, None] * (F.one_hot(drawn, len(z)) - z.softmax(0))).mean(0)


def adds_instead_of_averaging(z: Tensor, drawn: Tensor, rewards: Tensor) -> Tensor:
    better = rewards - rewards.mean()
    return (better[:, None] * (F.one_hot(drawn, len(z)) - z.softmax(0))).sum(0)


def moves_what_was_drawn_alone(z: Tensor, drawn: Tensor, rewards: Tensor) -> Tensor:
    better = rewards - rewards.mean()
    return (better[:, None] * F.one_hot(drawn, len(z)) * (1 - z.softmax(0))).mean(0)


def goes_downhill(z: Tensor, drawn: Tensor, rewards: Tensor) -> Tensor:
    better = rewards - rewards.mean()
    return -(better[:, None] * (F.one_hot(drawn, len(z)) - z.softmax(0))).mean(0)


def parts(
    rewards: Tensor, new: Tensor, old: Tensor, lengths: list[int], epsilon: float
) -> tuple[Tensor, Tensor]:
    """What each token would gain, and what it would gain clipped."""
    better = (rewards - rewards.mean()).repeat_interleave(torch.tensor(lengths))
    ratio = (new - old).exp()
    return ratio * better, ratio.clamp(1 - epsilon, 1 + epsilon) * better


def clips_always(
    rewards: Tensor, new: Tensor, old: Tensor, lengths: list[int], epsilon: float
) -> float:
    return -float(parts(rewards, new, old, lengths, epsilon)[1].mean())


def clips_never(
    rewards: Tensor, new: Tensor, old: Tensor, lengths: list[int], epsilon: float
) -> float:
    return -float(parts(rewards, new, old, lengths, epsilon)[0].mean())


def averages_each_answer_first(
    rewards: Tensor, new: Tensor, old: Tensor, lengths: list[int], epsilon: float
) -> float:
    least = torch.minimum(*parts(rewards, new, old, lengths, epsilon))
    return -sum(float(part.mean()) for part in least.split(lengths)) / len(lengths)


def forgets_the_sign(
    rewards: Tensor, new: Tensor, old: Tensor, lengths: list[int], epsilon: float
) -> float:
    return float(torch.minimum(*parts(rewards, new, old, lengths, epsilon)).mean())


WRONG = {
    "9.1": [
        forgets_the_baseline,
        adds_instead_of_averaging,
        moves_what_was_drawn_alone,
        goes_downhill,
    ],
    "9.2": [clips_always, clips_never, averages_each_answer_first, forgets_the_sign],
}
