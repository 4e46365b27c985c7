"""Muon: momentum, orthogonalized (Jordan et al. 2024, kellerjordan.github.io/posts/muon)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from minillm.config import TrainConfig
from minillm.model.transformer import Transformer

# The quintic x (a + b x² + c x⁴): steep at 0, so that five rounds bring singular values of 0.002
# and more near 1. They end between 0.7 and 1.2, which is as good as exactly 1 (Jordan et al. 2024).
A, B, C = 3.4445, -4.7750, 2.0315
ROUNDS = 5


def orthogonalize(matrices: Tensor) -> Tensor:
    """U Vᵀ, nearly, of each matrix U S Vᵀ of ``[n, rows, columns]``, rows ≤ columns.

    A matrix divided by its norm has singular values of at most 1, and a polynomial in X Xᵀ moves
    them without touching U and V: no singular value decomposition is needed, only products.
    bfloat16 is precise enough and on a GPU far quicker; on a CPU it is slower than float32.
    """
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.mT  # [n, rows, rows]
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return x.to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Gradient descent with momentum, in which every direction of a matrix moves equally far.

    The update of a matrix ``[rows, columns]`` is the orthogonalized momentum (0.95, Nesterov) times
    0.2 sqrt(max(rows, columns)): as large as AdamW's updates usually are, so that both take the
    same learning rate (Liu et al. 2025, arXiv:2502.16982). The rule and the state are those of
    ``torch.optim.Muon(adjust_lr_fn="match_rms_adamw")``, which goes through the matrices one by
    one and in bfloat16 everywhere; here matrices of one shape go together.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all matrices that have a gradient."""
        for group in self.param_groups:
            # A tall matrix is turned, so it goes with the wide ones of the same two sizes.
            by_shape: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[tuple(sorted(parameter.shape))].append(parameter)
            for shape, parameters in by_shape.items():
                updates = [
                    turned(self._momentum(parameter, group["momentum"])) for parameter in parameters
                ]
                step = group["lr"] * 0.2 * math.sqrt(max(shape))
                decay = 1 - group["lr"] * group["weight_decay"]
                for parameter, update in zip(
                    parameters, orthogonalize(torch.stack(updates)), strict=True
                ):
                    update = update if parameter.shape == update.shape else update.mT
                    parameter.mul_(decay).sub_(update, alpha=step)

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """The gradient, leaning towards those of earlier steps."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        buffer.lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(buffer, momentum)


def turned(matrix: Tensor) -> Tensor:
    """The matrix, or if it is tall its transpose."""
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT


def learning_rate_factor(
    step: int, total: int, warmup_fraction: float, decay_fraction: float
) -> float:
    """Share of the peak learning rate at a step (from 0): a linear rise, a plateau, a linear fall.

    Warmup-stable-decay (Hu et al. 2024, arXiv:2404.06395). Never 0, so no step is wasted.
    """
    warmup, decay = round(total * warmup_fraction), round(total * decay_fraction)
    return min(1.0, (step + 1) / (warmup + 1), (total - step) / (decay + 1))


def make_optimizers(model: Transformer, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), or Muon for the matrices of the blocks
    with AdamW for the embeddings and the norms. Norms do not decay."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    embeddings = [model.model.embed_tokens.weight]
    if model.lm_head.weight is not model.model.embed_tokens.weight:
        embeddings.append(model.lm_head.weight)
    vectors = [p for p in model.parameters() if p.ndim < 2]
    muon = config.optimizer == "muon"
    decayed = embeddings if muon else matrices + embeddings
    adamw = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(0.9, 0.95),
        fused=True,
    )
    if not muon:
        return [adamw]
    return [Muon(matrices, config.learning_rate, config.weight_decay), adamw]
