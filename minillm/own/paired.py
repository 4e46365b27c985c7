"""Is one model better than another, or was it luck? Both answered the same questions, so each
question is compared with itself, which says more than two intervals side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z = 1.96
"""Standard errors on either side of a 95% confidence interval."""


def mcnemar(only_first: int, only_second: int) -> float:
    """p-value of the exact two-sided test of McNemar (1947): were both equally good, how often
    would the questions that only one of them got right be shared as unevenly as this, or more?

    It is the sign test: heads and tails of ``only_first + only_second`` tosses of a coin.
    """
    tosses = only_first + only_second
    ways = tail = 1
    for heads in range(min(only_first, only_second)):
        ways = ways * (tosses - heads) // (heads + 1)
        tail += ways
    return min(1.0, 2 * tail / (1 << tosses))  # whole numbers: nothing overflows


def difference_interval(only_first: int, only_second: int, n: int) -> tuple[float, float]:
    """95% confidence interval of the first's share of right answers less the second's, of ``n``
    questions that both answered (Agresti & Min 2005: half a question more in each of the four
    cells, which keeps it honest where few differ)."""
    first, second, total = only_first + 0.5, only_second + 0.5, n + 2.0
    middle = (first - second) / total
    half = Z * math.sqrt(first + second - (first - second) ** 2 / total) / total
    return max(-1.0, middle - half), min(1.0, middle + half)


def ratio_error(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Standard error of ``sum(numerators) / sum(denominators)`` over documents, each of which has
    one of both: bits and characters, say (the ratio estimator: Cochran 1977, chapter 6). NaN for
    fewer than two.

    Long documents weigh more, as they do in the ratio.
    """
    n, whole = len(numerators), sum(denominators)
    if n < 2:
        return math.nan
    ratio = sum(numerators) / whole
    pairs = zip(numerators, denominators, strict=True)
    squares = sum((top - ratio * bottom) ** 2 for top, bottom in pairs)
    return math.sqrt(squares * n / (n - 1)) / whole
