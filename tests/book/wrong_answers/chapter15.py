"""Answers to the build tasks of chapter 15 that readers give and that are wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def has_no_logarithm(sizes: list[float], losses: list[float]) -> float | None:
    a, b, _ = np.polyfit(sizes, losses, 2)
    lowest = float(-b / (2 * a))
    return lowest if a > 0 and min(sizes) < lowest < max(sizes) else None


def takes_the_lowest_point(sizes: list[float], losses: list[float]) -> float | None:
    place = min(range(len(losses)), key=losses.__getitem__)
    return sizes[place] if 0 < place < len(sizes) - 1 else None


def always_knows(sizes: list[float], losses: list[float]) -> float | None:
    a, b, _ = np.polyfit(np.log(sizes), losses, 2)
    return float(np.exp(-b / (2 * a)))


def solve(columns: list[Floats], losses: Floats) -> tuple[Any, float]:
    matrix = np.stack(columns, 1)
    found = np.linalg.lstsq(matrix, losses, rcond=None)[0]
    return found, float(((matrix @ found - losses) ** 2).sum())


def has_no_floor(n: Floats, d: Floats, losses: Floats, exponents: list[float]) -> Any:
    least, best = math.inf, None
    for alpha in exponents:
        for beta in exponents:
            found, error = solve([n**-alpha, d**-beta], losses)
            if (found >= 0).all() and error < least:
                least, best = error, (0.0, *found, alpha, beta)
    return best


def tries_equal_exponents(n: Floats, d: Floats, losses: Floats, exponents: list[float]) -> Any:
    least, best = math.inf, None
    for alpha in exponents:
        found, error = solve([np.ones(len(n)), n**-alpha, d**-alpha], losses)
        if (found >= 0).all() and error < least:
            least, best = error, (*found, alpha, alpha)
    return best


def allows_negative_numbers(n: Floats, d: Floats, losses: Floats, exponents: list[float]) -> Any:
    least, best = math.inf, None
    for alpha in exponents:
        for beta in exponents:
            found, error = solve([np.ones(len(n)), n**-alpha, d**-beta], losses)
            if error < least:
                least, best = error, (*found, alpha, beta)
    return best


WRONG = {
    "15.1": [has_no_logarithm, takes_the_lowest_point, always_knows],
    "15.2": [has_no_floor, tries_equal_exponents, allows_negative_numbers],
}
