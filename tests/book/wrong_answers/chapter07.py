"""Answers to the build tasks of chapter 7 that readers give and that are wrong."""

from __future__ import annotations

import torch
from torch import Tensor


def loses_the_order(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    if temperature == 0:
        return (torch.arange(len(logits)) == logits.argmax()).float()
    p = (logits / temperature).softmax(0).sort(descending=True).values
    p[p.cumsum(0) - p >= top_p] = 0
    return p / p.sum()


def cuts_one_too_many(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    p, places = (logits / temperature).softmax(0).sort(descending=True)
    p[p.cumsum(0) > top_p + 1e-6] = 0
    return torch.zeros_like(p).scatter(0, places, p / p.sum())


def cuts_before_the_temperature(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    p, places = logits.softmax(0).sort(descending=True)
    kept = places[p.cumsum(0) - p < top_p]
    cut = torch.full_like(logits, -torch.inf)
    cut[kept] = logits[kept]
    return (cut / temperature).softmax(0)


def does_not_add_up_to_one(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    p, places = (logits / temperature).softmax(0).sort(descending=True)
    p[p.cumsum(0) - p >= top_p] = 0
    return torch.zeros_like(p).scatter(0, places, p)


def divides_by_zero(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    p, places = (logits / temperature).softmax(0).sort(descending=True)
    p[p.cumsum(0) - p >= top_p] = 0
    return torch.zeros_like(p).scatter(0, places, p / p.sum())


Ids = list[int]
Found = dict[str, int]


def faults(ids: Ids, labels: Ids, special: dict[str, int], shift: int, stops: bool) -> Found:
    """With a label compared to the token ``shift`` places on, and answers that end, or do not."""
    start, end = special["<|assistant_start|>"], special["<|assistant_end|>"]
    found = {"错位": 0, "多学": 0, "漏学": 0, "没学停": 0}
    answering = False
    for t, label in enumerate(labels):
        if ids[t] == start:
            answering = True
        elif ids[t] == end and stops:
            answering = False
        found["错位"] += label not in (-100, ids[t + shift])
        found["多学"] += not answering and label != -100
        if answering and label == -100:
            found["没学停" if ids[t + 1] == end else "漏学"] += 1
    return found


def compares_with_the_token_itself(ids: Ids, labels: Ids, special: dict[str, int]) -> Found:
    return faults(ids, labels, special, shift=0, stops=True)


def never_leaves_the_answer(ids: Ids, labels: Ids, special: dict[str, int]) -> Found:
    return faults(ids, labels, special, shift=1, stops=False)


def thinks_the_end_is_read_only(ids: Ids, labels: Ids, special: dict[str, int]) -> Found:
    found = faults(ids, labels, special, shift=1, stops=True)
    found["没学停"] = 0
    found["多学"] += special["<|assistant_end|>"] in labels
    return found


def looks_at_the_last_answer_alone(ids: Ids, labels: Ids, special: dict[str, int]) -> Found:
    last = max(i for i, token in enumerate(ids) if token == special["<|assistant_start|>"])
    return faults(ids[last:], labels[last:], special, shift=1, stops=True)


WRONG = {
    "7.1": [
        loses_the_order,
        cuts_one_too_many,
        cuts_before_the_temperature,
        does_not_add_up_to_one,
        divides_by_zero,
    ],
    "7.2": [
        compares_with_the_token_itself,
        never_leaves_the_answer,
        thinks_the_end_is_read_only,
        looks_at_the_last_answer_alone,
    ],
}
