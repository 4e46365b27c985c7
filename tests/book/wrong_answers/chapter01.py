"""Answers to the build tasks of chapter 1 that readers give and that are wrong."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

Model = Callable[[str, str], float]


def per_character(texts: list[str], p: Model) -> float:
    bits = [-math.log2(p(t[:i], c)) for t in texts for i, c in enumerate(t)]
    return sum(bits) / len(bits)


def in_nats(texts: list[str], p: Model) -> float:
    bits = [-math.log(p(t[:i], c)) for t in texts for i, c in enumerate(t)]
    return sum(bits) / sum(len(t.encode()) for t in texts)


def mean_of_the_texts(texts: list[str], p: Model) -> float:
    each = [sum(-math.log2(p(t[:i], c)) for i, c in enumerate(t)) / len(t.encode()) for t in texts]
    return sum(each) / len(each)


def only_the_last_character(texts: list[str], p: Model) -> float:
    bits = [-math.log2(p(t[i - 1 : i], c)) for t in texts for i, c in enumerate(t)]
    return sum(bits) / sum(len(t.encode()) for t in texts)


def multiplies_first(texts: list[str], p: Model) -> float:
    product = math.prod(p(t[:i], c) for t in texts for i, c in enumerate(t))
    return -math.log2(product) / sum(len(t.encode()) for t in texts)


def shares_by_frequency(texts: list[str], h: str, c: str, d: float) -> float:
    pairs = Counter(pair for text in texts for pair in pairwise(text))
    base = sum(n for pair, n in pairs.items() if pair[1] == c) / pairs.total()
    after = {pair: n for pair, n in pairs.items() if pair[0] == h}
    if not after:
        return base
    total = sum(after.values())
    return float(max(pairs[h, c] - d, 0) / total + d * len(after) / total * base)


def counts_h_at_the_end(texts: list[str], h: str, c: str, d: float) -> float:
    pairs = Counter(pair for text in texts for pair in pairwise(text))
    base = sum(pair[1] == c for pair in pairs) / len(pairs)
    total = sum(text.count(h) for text in texts)
    if not total:
        return base
    kinds = sum(pair[0] == h for pair in pairs)
    return float(max(pairs[h, c] - d, 0) / total + d * kinds / total * base)


def gives_up_d_once(texts: list[str], h: str, c: str, d: float) -> float:
    pairs = Counter(pair for text in texts for pair in pairwise(text))
    base = sum(pair[1] == c for pair in pairs) / len(pairs)
    total = sum(n for pair, n in pairs.items() if pair[0] == h)
    return float(max(pairs[h, c] - d, 0) / total + d / total * base) if total else base


def divides_by_nothing(texts: list[str], h: str, c: str, d: float) -> float:
    pairs = Counter(pair for text in texts for pair in pairwise(text))
    after = {pair: n for pair, n in pairs.items() if pair[0] == h}
    base = sum(pair[1] == c for pair in pairs) / len(pairs)
    total = sum(after.values())
    return float(max(pairs[h, c] - d, 0) / total + d * len(after) / total * base)


WRONG = {
    "1.1": [
        per_character,
        in_nats,
        mean_of_the_texts,
        only_the_last_character,
        multiplies_first,
    ],
    "1.2": [shares_by_frequency, counts_h_at_the_end, gives_up_d_once, divides_by_nothing],
}
