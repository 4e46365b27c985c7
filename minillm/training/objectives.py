"""What each stage minimises: next-token loss, the same on the assistant's words only, and DPO.

An objective returns a *sum* and a *count*, never a mean: the trainer adds up both over
micro-batches and processes and divides once. So a token (for DPO: a pair) weighs the same
wherever it stands, and a batch without any target contributes nothing instead of NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minillm.training.packing import IGNORE_INDEX, Batch

Model = Callable[..., Tensor]
"""A ``Transformer``, or one wrapped for speed or for several processes."""


@dataclass
class Loss:
    """``total``: scalar with a gradient, to be divided by the sum of all ``count``s; ``metrics``:
    sums without a gradient, to be divided by the same number."""

    total: Tensor
    count: int
    metrics: dict[str, Tensor]


Objective = Callable[[Model, Batch], Loss]


SCORES_AT_ONCE = 2**24
"""So many scores are turned to fp32 together: 64 MB. A batch of the tiny preset has 1 million (DPO:
2), one of the smoke preset 3 (DPO: 7): they stay whole. One of the default preset has 105."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(logits)[label] of each position, in nats.

    A position's scores have nothing to do with the others'. So where there are many, they are
    turned to fp32 part by part, and once more in the backward pass; all that is kept until then is
    the ``logits`` in their own dtype. Of N V scores in bfloat16, 32 rows of 512 positions and 6,400
    tokens, the backward pass at its worst would hold 12 N V bytes, 1.3 GB: log softmax and two
    gradients in fp32. In parts it holds 4 N V, the scores and their gradient, and 0.2 GB for the
    part at hand: 0.6 GB. ``torch.compile`` makes no whole copy either, and is left to its own ways.

    Args:
        logits: ``[N, V]``, any float dtype.
        labels: ``[N]`` int64; -100 where nothing is learned.

    Returns:
        fp32 ``[N]``, 0 where nothing is learned: bit for bit what one part would give.
    """
    rows = max(1, SCORES_AT_ONCE // logits.shape[1])
    if len(logits) <= rows or torch.compiler.is_compiling():
        return _in_fp32(logits, labels)
    return _InParts.apply(logits, labels, rows)  # type: ignore[no-any-return]


def _in_fp32(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), labels, ignore_index=IGNORE_INDEX, reduction="none")


class _InParts(torch.autograd.Function):
    """``_in_fp32`` of so many rows at a time, forward and backward."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, rows: int) -> Tensor:
        ctx.save_for_backward(logits, labels)
        ctx.rows = rows
        parts = zip(torch.split(logits, rows), torch.split(labels, rows), strict=True)
        return torch.cat([_in_fp32(*part) for part in parts])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        logits, labels = ctx.saved_tensors
        result = torch.empty_like(logits)
        tensors = (logits, labels, gradient, result)
        for part in zip(*(torch.split(t, ctx.rows) for t in tensors), strict=True):
            scores = part[0].detach().requires_grad_()
            with torch.enable_grad():
                losses = _in_fp32(scores, part[1])
            part[3].copy_(torch.autograd.grad(losses, scores, part[2])[0])
        return result, None, None


def token_losses(model: Model, batch: Batch) -> Tensor:
    """-log p(label | earlier tokens of its document) in nats, fp32 ``[B, T]``; 0 where nothing is
    learned."""
    logits = model(batch.input_ids, batch.position_ids, batch.document_ids)  # [B, T, V]
    return cross_entropy(logits.flatten(0, 1), batch.labels.flatten()).view_as(batch.labels)


def next_token_loss(model: Model, batch: Batch) -> Loss:
    """Cross-entropy of the next token. Pretraining has a label everywhere; in SFT the loss mask
    has left labels on the assistant's tokens alone, so the same sum is the masked SFT loss."""
    return Loss(token_losses(model, batch).sum(), batch.num_targets, {})


def per_document(values: Tensor, batch: Batch) -> Tensor:
    """``[B, T]`` → the sum over the positions of each document, ``[documents]``."""
    # Padding counts as one document more. To leave it out by its mask would make a GPU wait for
    # the number of positions.
    documents = torch.where(batch.document_ids < 0, batch.num_documents, batch.document_ids)
    sums = values.new_zeros(batch.num_documents + 1)
    return sums.scatter_add(0, documents.flatten(), values.flatten())[:-1]


def sequence_log_probs(model: Model, batch: Batch) -> Tensor:
    """log p(answer | prompt) of every document: the *sum* over its predicted tokens, fp32
    ``[documents]``.

    Not the mean: DPO's implicit reward is β log π(y|x) / π_ref(y|x) of whole answers, and a mean
    would make it depend on their length.
    """
    return per_document(-token_losses(model, batch), batch)


def dpo_loss(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290, equation 7), for
    each pair.

    ``-log σ(β [(log π(y_w|x) - log π_ref(y_w|x)) - (log π(y_l|x) - log π_ref(y_l|x))])``

    Args:
        chosen, rejected: summed log-probabilities under the policy, ``[pairs]``.
        ref_chosen, ref_rejected: the same under the reference model.
        beta: how strongly the policy is held to the reference.

    Returns:
        losses ``[pairs]`` and margins ``[pairs]``: reward of the chosen answer less that of the
        rejected.
    """
    margins = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    return -F.logsigmoid(margins), margins


def make_dpo_objective(reference: Model, beta: float, nll_weight: float) -> Objective:
    """DPO against a frozen reference, plus ``nll_weight`` × the chosen answer's loss per token
    (Pang et al. 2024, arXiv:2404.19733): DPO alone is content to make both answers unlikely, and
    forgets skills."""

    def objective(model: Model, batch: Batch) -> Loss:
        with torch.no_grad():
            ref = sequence_log_probs(reference, batch)
        policy = sequence_log_probs(model, batch)
        losses, margins = dpo_loss(policy[0::2], policy[1::2], ref[0::2], ref[1::2], beta)
        lengths = per_document((batch.labels != IGNORE_INDEX).float(), batch)
        nll = -policy[0::2] / lengths[0::2]
        total = (losses + nll_weight * nll).sum()
        with torch.no_grad():
            metrics = {
                "accuracy": (margins > 0).float().sum(),
                "margin": margins.sum(),
                "prefers_chosen": (policy[0::2] > policy[1::2]).float().sum(),
            }
        return Loss(total, batch.num_documents // 2, metrics)

    return objective


@torch.no_grad()
def validation_loss(
    objective: Objective, model: Model, batches: Iterable[Batch]
) -> dict[str, float]:
    """Means over a whole data set, under the key ``loss`` and those of the objective's metrics."""
    sums: dict[str, float] = {}
    count = 0
    for batch in batches:
        loss = objective(model, batch)
        count += loss.count
        for name, value in {"loss": loss.total, **loss.metrics}.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    return {name: value / count if count else math.nan for name, value in sums.items()}
