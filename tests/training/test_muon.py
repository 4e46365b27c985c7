"""Muon, beside PyTorch's own and beside singular values [5.7]."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from minillm.training.optimizers import ROUNDS, A, B, C, Muon, orthogonalize


@pytest.mark.parametrize("shape", [(8, 8), (5, 9), (64, 176)])
def test_only_the_singular_values_change(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape) * torch.tensor([1e-3, 1.0, 1e3]).view(3, 1, 1)
    u, s, vh = torch.linalg.svd(matrices.double(), full_matrices=False)
    s = s / s.norm(dim=1, keepdim=True)
    for _ in range(ROUNDS):
        s = A * s + B * s**3 + C * s**5
    torch.testing.assert_close(
        orthogonalize(matrices).double(), u @ torch.diag_embed(s) @ vh, atol=1e-4, rtol=1e-3
    )


def test_a_zero_gradient_moves_nothing() -> None:
    assert not orthogonalize(torch.zeros(1, 4, 6)).any()


def test_steps_are_those_of_torch() -> None:
    """PyTorch computes in bfloat16, so the single step differs by a percent or so."""
    shapes = [(32, 32), (16, 32), (88, 32), (32, 88), (32, 32)]
    torch.manual_seed(0)
    weights = [torch.randn(shape) * 0.1 for shape in shapes]
    ours = [nn.Parameter(weight.clone()) for weight in weights]
    theirs = [nn.Parameter(weight.clone()) for weight in weights]
    options = {"lr": 0.02, "weight_decay": 0.1}
    optimizers = (
        Muon(ours, **options),
        torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **options),
    )
    for _ in range(4):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for mine, other, start in zip(ours, theirs, weights, strict=True):
        moved = (mine - start).norm()
        assert (mine - other).norm() < 0.02 * moved
        torch.testing.assert_close(
            optimizers[0].state[mine]["momentum_buffer"],
            optimizers[1].state[other]["momentum_buffer"],
        )


def test_a_matrix_without_a_gradient_stays() -> None:
    used, unused = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2, 3))
    used.grad = torch.randn(2, 3)
    Muon([used, unused], lr=0.1, weight_decay=0.1).step()
    assert torch.equal(unused, torch.ones(2, 3))
    assert not torch.equal(used, torch.ones(2, 3))
