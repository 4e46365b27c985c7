"""N-grams: probabilities, checked against sums by hand and against the formula written with
dictionaries."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.book import ngram
from minillm.book.ngram import NGram
from minillm.errors import UserError

TEXTS = ["春风又绿", "春风春雨", "又绿江南", "江南春", "雨"]


def with_discounts(order: int, *discounts: float, texts: list[str] = TEXTS) -> NGram:
    model = NGram(texts, order, texts)
    model.discounts = list(discounts)
    return model


def expected(texts: list[str], order: int, discounts: list[float], text: str) -> list[float]:
    """-log2 p of each character, after Chen & Goodman (1999), eq. 4.37 with one discount a level,
    with dictionaries of strings; ^ stands for boundaries."""
    pad = "^" * (order - 1)
    grams = Counter(
        (pad + t + "^")[i - order + 1 : i + 1]
        for t in texts
        for i in range(order - 1, order + len(t))
    )
    levels = [grams]
    for _ in range(order - 1):
        levels.insert(0, Counter(gram[1:] for gram in levels[0]))
    size = len(set("".join(texts))) + 2

    def p(gram: str) -> float:
        if not gram:
            return 1 / size
        counts, d = levels[len(gram) - 1], discounts[len(gram) - 1]
        after: dict[str, int] = defaultdict(int)
        for other, count in counts.items():
            if other[:-1] == gram[:-1]:
                after[other[-1]] += count
        lower = p(gram[1:])
        if not after:
            return lower
        rest = d * len(after) * lower
        return (max(after[gram[-1]] - d, 0) + rest) / sum(after.values())

    padded = pad + text
    places = range(order - 1, len(padded))
    return [-math.log2(p(padded[i - order + 1 : i + 1])) for i in places]


def test_two_characters_by_hand() -> None:
    # 春风 twice, 春雨 once, 春 and the end once: c = 4, t = 3. After what different characters does
    # 风 come? After 春 only: 1 of the 16 different pairs, which have 8 different last characters
    # (the seven of the alphabet and the end).
    model = with_discounts(2, 0.5, 0.5)
    assert len(model.alphabet) == 7
    pairs = [
        "^春",
        "春风",
        "风又",
        "又绿",
        "绿^",
        "风春",
        "春雨",
        "雨^",
        "^又",
        "绿江",
        "江南",
        "南^",
        "^江",
        "南春",
        "春^",
        "^雨",
    ]
    assert len(pairs) == 16
    assert len({pair[1] for pair in pairs}) == 8
    unigram = (1 - 0.5 + 0.5 * 8 / 9) / 16
    by_hand = (2 - 0.5 + 0.5 * 3 * unigram) / 4
    assert 2 ** -model.bits("春风")[1] == pytest.approx(by_hand)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_it_is_the_formula(order: int) -> None:
    discounts = [0.75, 0.5, 0.4, 0.9][:order]
    model = with_discounts(order, *discounts)
    for text in ("春风又绿江南", "雨又春", "江"):
        found = model.bits(text)
        assert found == pytest.approx(expected(TEXTS, order, discounts, text))


@given(
    st.lists(st.text("甲乙丙", max_size=6), min_size=1),
    st.text("甲乙丙", min_size=1, max_size=4),
)
def test_all_that_may_follow_adds_up_to_one(texts: list[str], context: str) -> None:
    texts = [*texts, "甲"]
    model = NGram(texts, 3, texts)
    after = [2 ** -model.bits(context + c)[-1] for c in model.alphabet]
    unknown = 2 ** -(model.bits(context + "丁")[-1] - ngram.UNKNOWN_BITS)
    stream, places = model._stream([context], end=True)
    end = model._mixed(model._features(stream, places), model.discounts)[-1]
    assert sum(after) + unknown + end == pytest.approx(1)


def test_unknown_characters_cost_many_bits() -> None:
    model = with_discounts(2, 0.5, 0.5)
    assert model.bits("春龘")[1] > 17 + 2


def test_discounts_are_those_with_the_fewest_bits_on_the_texts_for_tuning() -> None:
    tuning = ["春风江南", "又绿春雨"]
    model = NGram(TEXTS, 1, tuning)

    def bits(discount: float) -> float:
        # Bits of characters and ends, by the formula: an end is what no other character is.
        return sum(
            sum(expected(TEXTS, 1, [discount], text)) - math.log2(end(discount)) for text in tuning
        )

    def end(discount: float) -> float:
        counts = Counter("".join(TEXTS))
        total, types = sum(counts.values()) + len(TEXTS), len(counts) + 1
        return (len(TEXTS) - discount + discount * types / (len(counts) + 2)) / total

    assert model.discounts == [min(map(float, ngram.DISCOUNTS), key=bits)]
    # With nothing new in the texts, nothing needs to be kept for it.
    assert NGram(["甲" * 50], 1, ["甲" * 50]).discounts == [pytest.approx(0.05)]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_it_writes_with_its_probabilities(order: int) -> None:
    model = with_discounts(order, *[0.5] * order)
    random = Random(1)
    after = Counter(model.write("春", 1, random) for _ in range(4_000))
    for character in model.alphabet:
        wanted = 2 ** -model.bits("春" + character)[1]
        error = 4 * math.sqrt(wanted * (1 - wanted) / 4_000)
        assert after[character] / 4_000 == pytest.approx(wanted, abs=error)
    assert after[""] > 0  # the end


def test_it_writes_the_same_with_the_same_random_numbers_and_no_more_than_asked() -> None:
    model = NGram(TEXTS, 3, TEXTS)
    texts = [model.write("江", 5, Random(i)) for i in range(20)]
    assert texts == [model.write("江", 5, Random(i)) for i in range(20)]
    assert all(len(text) <= 5 for text in texts)
    assert len(set(texts)) > 1


def test_it_counts_each_text_for_itself() -> None:
    # The last character of one text and the first of the next are no pair.
    model = with_discounts(2, 0.5, 0.5, texts=["甲乙", "丙丁"])
    assert model.bits("乙丙")[1] > model.bits("丙丁")[1] + 1


def test_too_many_different_characters() -> None:
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 16_383)))
    with pytest.raises(UserError, match="16,383 different characters are too many"):
        NGram([text], 1, [text])
    assert np.isfinite(NGram([text[1:]], 2, [text[1:]]).bits(text[:9])).all()
