"""Answers to the build tasks of chapter 5 that readers give and that are wrong."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def future(T: int) -> Tensor:
    return torch.ones(T, T, dtype=torch.bool).triu(1)


def forgets_the_scale(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = (q @ k.transpose(-1, -2)).masked_fill(future(q.shape[-2]), -torch.inf)
    return scores.softmax(-1) @ v


def forgets_the_mask(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v


def hides_after_the_softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    return weights.masked_fill(future(q.shape[-2]), 0) @ v


def softmax_down_the_columns(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return scores.masked_fill(future(q.shape[-2]), -torch.inf).softmax(-2) @ v


def hides_itself(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    T = q.shape[-2]
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return scores.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(), -torch.inf).softmax(-1) @ v


def without_the_maximum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).exp()
    scores = scores.masked_fill(future(q.shape[-2]), 0)
    return scores / scores.sum(-1, keepdim=True) @ v


def layer(
    arguments: tuple[Tensor, ...],
    heads: int,
    groups: int,
    *,
    split: str = "transpose",
    join: str = "transpose",
    share: str = "interleave",
) -> Tensor:
    x, w_q, w_k, w_v, w_o = arguments
    B, T, C = x.shape

    def parts(w: Tensor, n: int) -> Tensor:
        y = x @ w.T
        if split == "view":
            return y.view(B, n, T, C // heads)
        return y.view(B, T, n, C // heads).transpose(1, 2)

    q, k, v = parts(w_q, heads), parts(w_k, groups), parts(w_v, groups)
    times = heads // groups
    if share == "interleave":
        k, v = (z.repeat_interleave(times, dim=1) for z in (k, v))
    else:
        k, v = (z.repeat(1, times, 1, 1) for z in (k, v))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    y = y.transpose(1, 2) if join == "transpose" else y
    return y.reshape(B, T, C) @ w_o.T


def views_without_a_transpose(*arguments: Tensor) -> Tensor:
    return layer(arguments[:5], *map(int, arguments[5:]), split="view")


def joins_without_a_transpose(*arguments: Tensor) -> Tensor:
    return layer(arguments[:5], *map(int, arguments[5:]), join="view")


def repeats_the_groups_in_turn(*arguments: Tensor) -> Tensor:
    return layer(arguments[:5], *map(int, arguments[5:]), share="repeat")


def forgets_the_output(*arguments: Tensor) -> Tensor:
    x, w_q, w_k, w_v, w_o, heads, groups = arguments
    same = torch.eye(len(w_o))
    return layer((x, w_q, w_k, w_v, same), int(heads), int(groups))


def forgets_to_turn_the_matrix(*arguments: Tensor) -> Tensor:
    x, w_q, w_k, w_v, w_o, heads, groups = arguments
    return layer((x, w_q.T, w_k, w_v, w_o), int(heads), int(groups))


WRONG = {
    "5.1": [
        forgets_the_scale,
        forgets_the_mask,
        hides_after_the_softmax,
        softmax_down_the_columns,
        hides_itself,
        without_the_maximum,
    ],
    "5.2": [
        views_without_a_transpose,
        joins_without_a_transpose,
        repeats_the_groups_in_turn,
        forgets_the_output,
        forgets_to_turn_the_matrix,
    ],
}
