"""Statistics of two models on the same questions: by counting all that can happen, and by hand."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.own.paired import difference_interval, mcnemar, ratio_error


@pytest.mark.parametrize("tosses", range(11))
def test_mcnemar_is_the_share_of_all_tosses_that_are_as_uneven(tosses: int) -> None:
    heads = [sum(toss) for toss in itertools.product((0, 1), repeat=tosses)]
    for first in range(tosses + 1):
        uneven = abs(2 * first - tosses)
        share = sum(abs(2 * head - tosses) >= uneven for head in heads) / len(heads)
        assert mcnemar(first, tosses - first) == pytest.approx(share, rel=1e-12)


def test_mcnemar_by_hand_and_with_many_questions() -> None:
    # 2 · (1 + 12 + 12·11/2) / 2¹²
    assert mcnemar(10, 2) == mcnemar(2, 10) == 158 / 4096
    assert mcnemar(0, 0) == 1
    # Near the normal distribution, with half a question of continuity.
    z = (300 - 1) / math.sqrt(10_300)
    assert mcnemar(5_000, 5_300) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-3)
    assert mcnemar(0, 20_000) == 0


def test_difference_interval_by_hand() -> None:
    # (10.5 - 2.5) / 102 ± 1.96 √(13 - 8²/102) / 102
    half = 1.96 * math.sqrt(13 - 64 / 102) / 102
    assert difference_interval(10, 2, 100) == pytest.approx((8 / 102 - half, 8 / 102 + half))


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 100))
def test_difference_interval_turns_with_the_models(first: int, second: int, more: int) -> None:
    n = first + second + more
    low, high = difference_interval(first, second, n)
    assert -1 <= low < high <= 1
    assert difference_interval(second, first, n) == pytest.approx((-high, -low))


def test_difference_interval_holds_the_truth_in_95_of_100_tests() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for only_first, only_second in rng.multinomial(60, (0.15, 0.05, 0.8), 4000)[:, :2].tolist():
        low, high = difference_interval(only_first, only_second, 60)
        held += low <= 0.10 <= high
    assert 0.93 < held / 4000 < 0.98


def test_ratio_error_of_equally_long_documents_is_that_of_a_mean() -> None:
    bits = [30.0, 41.0, 35.0, 28.0]
    expected = statistics.stdev(bits) / math.sqrt(4) / 10
    assert ratio_error(bits, [10] * 4) == pytest.approx(expected)
    assert math.isnan(ratio_error(bits[:1], [10]))
    assert ratio_error([20.0, 40.0], [5, 10]) == 0  # 4 bits a character in both


def test_ratio_error_is_how_far_the_ratio_strays() -> None:
    """Against its definition: the spread of the ratio over samples of documents."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 200, (3000, 50))
    bits = lengths * 3 + rng.normal(0, 1, lengths.shape) * lengths**0.5 * 4
    ratios = bits.sum(1) / lengths.sum(1)
    errors = [ratio_error(b.tolist(), c.tolist()) for b, c in zip(bits, lengths, strict=True)]
    assert np.mean(errors) == pytest.approx(ratios.std(), rel=0.05)
