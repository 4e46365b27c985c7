"""Answers to the build tasks of chapter 6 that readers give and that are wrong."""

from __future__ import annotations

import torch
from torch import Tensor

Steps = list[list[tuple[Tensor, int]]]


def divides_by_all(logits: Tensor, labels: Tensor) -> Tensor:
    p = logits.softmax(1)
    p[labels == -100] = 0
    learned = labels != -100
    p[learned, labels[learned]] -= 1
    return p / len(labels)


def adds_instead_of_averaging(logits: Tensor, labels: Tensor) -> Tensor:
    p = logits.softmax(1)
    learned = labels != -100
    p[learned, labels[learned]] -= 1
    return p * learned[:, None]


def overflows(logits: Tensor, labels: Tensor) -> Tensor:
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    learned = labels != -100
    p[learned, labels[learned]] -= 1
    return p * learned[:, None] / max(1, int(learned.sum()))


def divides_by_nothing(logits: Tensor, labels: Tensor) -> Tensor:
    p = logits.softmax(1)
    learned = labels != -100
    p[learned, labels[learned]] -= 1
    return p * learned[:, None] / learned.sum()


def adamw(
    w: Tensor,
    steps: Steps,
    rate: float,
    corrected: bool = True,
    mean_of_means: bool = False,
    coupled: bool = False,
    clip: str = "above 1",
) -> Tensor:
    m = v = torch.zeros_like(w)
    for t, step in enumerate(steps, 1):
        if mean_of_means:
            g = torch.stack([gradient / n for gradient, n in step]).mean(0)
        else:
            g = torch.stack([gradient for gradient, _ in step]).sum(0) / sum(n for _, n in step)
        if (clip == "always" and g.norm() > 0) or (clip == "above 1" and g.norm() > 1):
            g = g / g.norm()
        if coupled:
            g = g + 0.1 * w
        else:
            w = w * (1 - rate * 0.1)
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        by = (1 - 0.9**t, 1 - 0.95**t) if corrected else (1.0, 1.0)
        w = w - rate * (m / by[0]) / ((v / by[1]).sqrt() + 1e-8)
    return w


def forgets_the_correction(w: Tensor, steps: Steps, rate: float) -> Tensor:
    return adamw(w, steps, rate, corrected=False)


def averages_the_averages(w: Tensor, steps: Steps, rate: float) -> Tensor:
    return adamw(w, steps, rate, mean_of_means=True)


def decays_by_the_gradient(w: Tensor, steps: Steps, rate: float) -> Tensor:
    return adamw(w, steps, rate, coupled=True)


def clips_never(w: Tensor, steps: Steps, rate: float) -> Tensor:
    return adamw(w, steps, rate, clip="never")


def clips_always(w: Tensor, steps: Steps, rate: float) -> Tensor:
    return adamw(w, steps, rate, clip="always")


WRONG = {
    "6.1": [divides_by_all, adds_instead_of_averaging, overflows, divides_by_nothing],
    "6.2": [
        forgets_the_correction,
        averages_the_averages,
        decays_by_the_gradient,
        clips_never,
        clips_always,
    ],
}
