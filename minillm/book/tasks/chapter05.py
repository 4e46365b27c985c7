"""Build tasks of chapter 5: attention, of one kind of vectors and as a whole layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from minillm.book.tasks.attempt import Attempt, task


@task("5.1")
def _attend(attempt: Attempt) -> None:
    """``attend(q, k, v)``: causal attention, ``[B, H, T, D]``."""

    def gives(q: Tensor, k: Tensor, v: Tensor, hint: str = "") -> None:
        wanted = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        attempt.gives(wanted, q, k, v, hint=hint)

    q = torch.tensor([[[[1.0, 1], [0, 1], [2, 0]]]])  # by hand, in the chapter
    k = torch.tensor([[[[1.0, 0], [0, 1], [0, 0]]]])
    v = torch.tensor([[[[1.0, 0], [0, 1], [1, 1]]]])
    gives(q[:, :, :1], k[:, :, :1], v[:, :, :1], hint="只有自己，权重就是 1：自己看得见自己。")
    gives(
        q[:, :, :2],
        k[:, :, :2],
        v[:, :, :2],
        hint="第 0 个位置看不见第 1 个，在 softmax 之前就要遮住；打分除以 √D。",
    )
    gives(q, k, v, hint="先遮住后文再做 softmax，一行的权重加起来才是 1。")
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 5, 4, generator=generator)
    gives(q, k, v, hint="转置和 softmax 只动末尾两维，前面的 B 和 H 各算各的。")
    gives(100 * q, k, v, hint="打分很大时指数会溢出：用 torch.softmax，或者先减去最大的。")


@task("5.2")
def _attention(attempt: Attempt) -> None:
    """``attention(x, w_q, w_k, w_v, w_o, heads, groups)``: a layer of grouped-query attention
    without rotation, ``[B, T, C]``."""
    generator = torch.Generator().manual_seed(0)

    def gives(B: int, T: int, C: int, heads: int, groups: int, hint: str) -> None:
        narrow = C // heads * groups
        x = torch.randn(B, T, C, generator=generator)
        w_q, w_k, w_v, w_o = (
            torch.randn(rows, C, generator=generator) / C**0.5 for rows in (C, narrow, narrow, C)
        )
        wanted = _by_pytorch(x, w_q, w_k, w_v, w_o, heads, groups)
        attempt.gives(wanted, x, w_q, w_k, w_v, w_o, heads, groups, hint=hint)

    gives(1, 4, 4, 1, 1, "一个头：矩阵是 [出, 入]，乘的是它的转置；别忘了 w_o 和因果掩码。")
    gives(1, 4, 4, 2, 2, "先分成 [B, T, H, D]，再对调 T 和 H；算完对调回来，再接成 C。")
    gives(1, 5, 8, 4, 2, "第 0、1 个查询头用第 0 组键值，第 2、3 个用第 1 组。")
    gives(2, 4, 12, 6, 2, "行与行之间各算各的。")


def _by_pytorch(
    x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, heads: int, groups: int
) -> Tensor:
    """PyTorch's own multi-head attention, in which each head of a group has a copy of its keys."""
    T, C = x.shape[1:]
    w_k, w_v = (
        w.view(groups, -1, C).repeat_interleave(heads // groups, dim=0).reshape(C, C)
        for w in (w_k, w_v)
    )
    rows = x.transpose(0, 1)  # it wants [T, B, C]
    y, _ = F.multi_head_attention_forward(
        rows, rows, rows, C, heads, None, None, None, None, False, 0.0, w_o, None,
        need_weights=False, attn_mask=torch.ones(T, T, dtype=torch.bool).triu(1),
        use_separate_proj_weight=True, q_proj_weight=w_q, k_proj_weight=w_k, v_proj_weight=w_v,
    )  # fmt: skip
    return y.transpose(0, 1)
