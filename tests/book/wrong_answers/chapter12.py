"""Answers to the build tasks of chapter 12 that readers give and that are wrong."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

Ring = list[list[float]]


def averages_averages(
    weight: torch.Tensor, x: torch.Tensor, labels: torch.Tensor, sizes: list[int]
) -> torch.Tensor:
    gradient = torch.zeros_like(weight)
    for part, wanted in zip(x.split(sizes), labels.split(sizes), strict=True):
        gradient += torch.autograd.grad(cross_entropy(part @ weight, wanted), weight)[0]
    return gradient / len(sizes)


def divides_by_all_positions(
    weight: torch.Tensor, x: torch.Tensor, labels: torch.Tensor, sizes: list[int]
) -> torch.Tensor:
    gradient = torch.zeros_like(weight)
    for part, wanted in zip(x.split(sizes), labels.split(sizes), strict=True):
        loss = cross_entropy(part @ weight, wanted, reduction="sum")
        gradient += torch.autograd.grad(loss / len(labels), weight)[0]
    return gradient


def takes_all_rows_at_once(
    weight: torch.Tensor, x: torch.Tensor, labels: torch.Tensor, sizes: list[int]
) -> torch.Tensor:
    return torch.autograd.grad(cross_entropy(x @ weight, labels), weight)[0]


def always_adds(pieces: Ring, step: int) -> Ring:
    size = len(pieces)
    new = [list(own) for own in pieces]
    for rank, own in enumerate(pieces):
        k, right = (rank - step) % size, (rank + 1) % size
        new[right][k] = own[k] + pieces[right][k]
    return new


def sends_the_next_piece(pieces: Ring, step: int) -> Ring:
    size = len(pieces)
    new = [list(own) for own in pieces]
    for rank, own in enumerate(pieces):
        k, right = (rank + step) % size, (rank + 1) % size
        new[right][k] = own[k] + (pieces[right][k] if step < size - 1 else 0)
    return new


def adds_in_the_given_lists(pieces: Ring, step: int) -> Ring:
    size = len(pieces)
    for rank, own in enumerate(pieces):
        k, right = (rank - step) % size, (rank + 1) % size
        pieces[right][k] = own[k] + (pieces[right][k] if step < size - 1 else 0)
    return pieces


WRONG = {
    "12.1": [averages_averages, divides_by_all_positions, takes_all_rows_at_once],
    "12.2": [always_adds, sends_the_next_piece, adds_in_the_given_lists],
}
