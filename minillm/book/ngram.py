"""Interpolated n-grams of characters: what counting alone can predict.

The next character is predicted from the n - 1 before it, by how often it came after them. What was
never seen after these is not impossible: each count gives up a discount D, and what was given up is
shared out as n - 1 characters would have it, and so on, down to one character and none
(interpolated Kneser-Ney: Kneser & Ney 1995, in the form of Chen & Goodman 1999). With c(h w) the
count of w after h, and t(h) the number of different characters after h:

    p(w | h) = (max(c(h w) - D, 0) + D t(h) p(w | h')) / c(h),    h' = h without its first character

Below the longest n-gram, c counts how many different characters stand before: 鹳 is not rare, but
comes only before 雀, and nobody should expect it elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minillm.errors import UserError

BITS = 14
"""Bits of a character's number: four characters are one key of 56 bits."""
BOUNDARY, UNKNOWN = 0, 1
"""Numbers of what stands before and after a text, and of a character that training did not have."""
NUL = "\0"
"""The character that stands for boundaries; a text cannot have it."""
UNKNOWN_BITS = 17.0
"""To say which one an unknown character is: Unicode has some 98,000 of them."""
DISCOUNTS = np.arange(0.05, 1.0, 0.05)

Keys = NDArray[np.int64]


class Level(NamedTuple):
    """The n-grams of one length: ``keys`` [grams], sorted, with their ``counts``; ``contexts``, the
    keys of what stands before the last character, with the sum of counts and number of grams."""

    keys: Keys
    counts: NDArray[np.int64]
    contexts: Keys
    totals: NDArray[np.int64]
    types: NDArray[np.int64]

    def features(self, keys: Keys) -> NDArray[np.int64]:
        """c(h w), c(h) and t(h) of n-grams, ``[3, len(keys)]``; 0 for what was never seen."""
        gram, seen = _find(self.keys, keys)
        context, known = _find(self.contexts, keys >> BITS)
        return np.stack(
            [self.counts[gram] * seen, self.totals[context] * known, self.types[context] * known]
        )


def _find(keys: Keys, wanted: Keys) -> tuple[Keys, NDArray[np.bool_]]:
    places = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return places, keys[places] == wanted


def tally(keys: Keys) -> tuple[Keys, NDArray[np.int64]]:
    """The different keys, sorted, and how often each is there. Sorts ``keys`` in place."""
    keys.sort()
    first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    return keys[first], np.diff(first, append=len(keys))


def level(keys: Keys, counts: NDArray[np.int64]) -> Level:
    """A level of sorted, different keys."""
    contexts = keys >> BITS
    first = np.flatnonzero(np.append(True, contexts[1:] != contexts[:-1]))
    types = np.diff(first, append=len(keys))
    return Level(keys, counts, contexts[first], np.add.reduceat(counts, first), types)


class NGram:
    """A model of characters.

    Args:
        texts: to count in.
        order: characters of the longest n-gram, 1 to 4.
        tuning: other texts; the discounts are those under which they take the fewest bits.

    Raises:
        UserError: more than 16,382 different characters, which do not fit into a key.
    """

    def __init__(self, texts: Sequence[str], order: int, tuning: Sequence[str]) -> None:
        self.order = order
        self.alphabet = sorted(set().union(*texts) - {NUL})
        size = len(self.alphabet) + 2
        if size > 1 << BITS:
            raise UserError(f"{len(self.alphabet):,} different characters are too many to count")
        self.numbers = np.full(0x110000, UNKNOWN, np.int64)  # by code point
        self.numbers[[ord(c) for c in (NUL, *self.alphabet)]] = [BOUNDARY, *range(2, size)]
        stream, places = self._stream(texts, end=True)
        keys, counts = tally(_keys(stream, places, order))
        self.levels = [level(keys, counts)]
        for n in range(order - 1, 0, -1):
            keys, counts = tally(keys & (1 << n * BITS) - 1)
            self.levels.insert(0, level(keys, counts))
        self.discounts = [0.5] * order
        self._tune(tuning)

    def _stream(self, texts: Sequence[str], end: bool) -> tuple[Keys, Keys]:
        """Texts as numbers, boundaries between them, and the places of what is predicted."""
        boundary = NUL * max(1, self.order - 1)
        joined = boundary.join(["", *texts, ""])
        stream = self.numbers[np.frombuffer(joined.encode("utf-32-le"), np.uint32)]
        inside = stream != BOUNDARY
        if end:
            inside[1:] |= inside[:-1]
        return stream, np.flatnonzero(inside)

    def _features(self, stream: Keys, places: Keys) -> list[NDArray[np.int64]]:
        """Of each level, for each place: see ``Level.features``."""
        return [each.features(_keys(stream, places, n)) for n, each in enumerate(self.levels, 1)]

    def _tune(self, texts: Sequence[str]) -> None:
        features = self._features(*self._stream(texts, end=True))
        for n in [*range(self.order), *range(self.order)]:  # twice: one depends on the others
            choices = [[*self.discounts[:n], d, *self.discounts[n + 1 :]] for d in DISCOUNTS]
            bits = [-np.log2(self._mixed(features, choice)).sum() for choice in choices]
            self.discounts = [float(d) for d in choices[int(np.argmin(bits))]]

    def _mixed(
        self, features: Sequence[NDArray[np.int64]], discounts: Sequence[float]
    ) -> NDArray[np.float64]:
        """p(w | h) from the shortest n-gram to the longest."""
        p = np.full(features[0].shape[1], 1 / (len(self.alphabet) + 2))
        for (count, total, types), d in zip(features, discounts, strict=True):
            kept = np.maximum(count - d, 0)
            p = np.where(total > 0, (kept + d * types * p) / np.maximum(total, 1), p)
        return p

    def bits(self, text: str) -> NDArray[np.float64]:
        """-log2 p of each character of a text, ``[len(text)]``; its end is not predicted."""
        stream, places = self._stream([text], end=False)
        p = self._mixed(self._features(stream, places), self.discounts)
        bits: NDArray[np.float64] = -np.log2(p) + UNKNOWN_BITS * (stream[places] == UNKNOWN)
        return bits

    def write(self, start: str, most: int, random: Random) -> str:
        """Goes on from a beginning, each character drawn with its probability, to the end of the
        text or ``most`` characters; returns what is new."""
        past = [BOUNDARY] * (self.order - 1) + [int(self.numbers[ord(c)]) for c in start]
        written: list[str] = []
        while len(written) < most and (number := self._draw(past, random)) != BOUNDARY:
            past.append(number)
            written.append("□" if number == UNKNOWN else self.alphabet[number - 2])
        return "".join(written)

    def _draw(self, past: Sequence[int], random: Random) -> int:
        """One character: at each level either one that was seen there, or a level lower."""
        for n in range(self.order, 0, -1):
            each, d, context = self.levels[n - 1], self.discounts[n - 1], 0
            for number in past[len(past) - n + 1 :]:
                context = context << BITS | number
            i = int(np.searchsorted(each.contexts, context))
            if i == len(each.contexts) or each.contexts[i] != context:
                continue
            first = int(np.searchsorted(each.keys, context << BITS))
            weights = np.cumsum(each.counts[first : first + each.types[i]] - d)
            drawn = random.random() * float(each.totals[i])
            if drawn < weights[-1]:
                gram = each.keys[first + int(np.searchsorted(weights, drawn, side="right"))]
                return int(gram) & (1 << BITS) - 1
        return random.randrange(len(self.alphabet) + 2)


def _keys(stream: Keys, places: Keys, n: int) -> Keys:
    """The n characters that end at each place, as one number."""
    keys = np.zeros(len(places), np.int64)
    for back in range(n):
        keys |= stream[places - back] << back * BITS
    return keys
