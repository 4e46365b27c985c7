"""Answers to the build tasks of chapter 8 that readers give and that are wrong."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Pairs = list[tuple[int, int]]


def takes_the_mean(policy: Tensor, reference: Tensor, mask: Tensor, beta: float) -> Tensor:
    gain = ((policy - reference) * mask).sum(1) / mask.sum(1)
    return -F.logsigmoid(beta * (gain[0::2] - gain[1::2]))


def forgets_the_reference(policy: Tensor, reference: Tensor, mask: Tensor, beta: float) -> Tensor:
    p = (policy * mask).sum(1)
    return -F.logsigmoid(beta * (p[0::2] - p[1::2]))


def forgets_the_mask(policy: Tensor, reference: Tensor, mask: Tensor, beta: float) -> Tensor:
    gain = (policy - reference).sum(1)
    return -F.logsigmoid(beta * (gain[0::2] - gain[1::2]))


def halves_the_batch(policy: Tensor, reference: Tensor, mask: Tensor, beta: float) -> Tensor:
    gain = ((policy - reference) * mask).sum(1)
    return -F.logsigmoid(beta * (gain[: len(gain) // 2] - gain[len(gain) // 2 :]))


def underflows(policy: Tensor, reference: Tensor, mask: Tensor, beta: float) -> Tensor:
    gain = ((policy - reference) * mask).sum(1)
    return -torch.sigmoid(beta * (gain[0::2] - gain[1::2])).log()


def train(start: Tensor, reference: Tensor, pairs: Pairs, beta: float, steps: int) -> Tensor:
    z = start.log()
    won, lost = torch.tensor(pairs).T
    for _ in range(steps):
        moved = z - reference.log()
        push = torch.sigmoid(beta * (moved[lost] - moved[won])) * 2 / beta / len(pairs)
        z = z.index_add(0, won, push).index_add(0, lost, -push)
    return z.softmax(0)


def starts_from_nothing(reference: Tensor, pairs: Pairs, beta: float) -> Tensor:
    even = torch.full_like(reference, 1 / len(reference))
    return train(even, even, pairs, beta, 400)


def stops_too_early(reference: Tensor, pairs: Pairs, beta: float) -> Tensor:
    return train(reference, reference, pairs, beta, 3)


def forgets_beta(reference: Tensor, pairs: Pairs, beta: float) -> Tensor:
    return train(reference, reference, pairs, 1.0, 400)


def gives_scores(reference: Tensor, pairs: Pairs, beta: float) -> Tensor:
    return train(reference, reference, pairs, beta, 400).log()


WRONG = {
    "8.1": [takes_the_mean, forgets_the_reference, forgets_the_mask, halves_the_batch, underflows],
    "8.2": [starts_from_nothing, stops_too_early, forgets_beta, gives_scores],
}
