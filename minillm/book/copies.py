"""The longest string that a text has in common with a corpus: what may be copied.

All runs of k characters of all texts get a number; a run of k + 1 is the number of its first k and
one character more. So each step compares whole numbers, only looks at places where k characters
were found in common, and ends when none are left.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

AT_A_TIME = 4_000_000
"""Characters of the corpus that are searched at a time."""


def longest_copies(texts: Sequence[str], corpus: Sequence[str]) -> list[int]:
    """For each text the length of its longest string that some document of the corpus has too.

    Memory grows with the texts and with AT_A_TIME, not with the corpus.
    """
    longest = np.zeros(len(texts), np.int64)
    stream, owners = _codes(texts)
    piece: list[str] = []
    size = 0
    for i, document in enumerate(corpus):
        piece.append(document)
        size += len(document)
        if size >= AT_A_TIME or i + 1 == len(corpus):
            found = _in_common(stream, _codes(piece)[0])
            np.maximum.at(longest, owners, found)
            piece, size = [], 0
    return [int(length) for length in longest]


def _codes(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The characters' code points, 0 after each text; and to which text each of them belongs."""
    joined = "\0".join([*texts, ""])
    lengths = [len(text) + 1 for text in texts]
    codes = np.frombuffer(joined.encode("utf-32-le"), np.uint32).astype(np.int64)
    return codes, np.repeat(np.arange(len(texts)), lengths)


def _in_common(stream: NDArray[np.int64], corpus: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each place of a stream, how many characters from there on stand somewhere in the corpus.

    Both end with 0, which is never in common.
    """
    found = np.zeros(len(stream), np.int64)
    places, others = np.arange(len(stream)), np.arange(len(corpus))  # where a run in common begins
    names, other_names = np.zeros((2, 1), np.int64)  # of these runs: all of them are the empty one
    k = 0
    while len(places):
        # A run and its next character in one number; 21 bits hold every code point.
        keys = names << 21 | stream[places + k]
        other_keys = other_names << 21 | corpus[others + k]
        both = np.intersect1d(keys[stream[places + k] > 0], other_keys)
        places, names = _kept(places, keys, both)
        others, other_names = _kept(others, other_keys, both)
        k += 1
        found[places] = k
    return found


def _kept(
    places: NDArray[np.int64], keys: NDArray[np.int64], both: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The places whose runs are in common, and the new names of these runs."""
    if not len(both):
        return places[:0], keys[:0]
    names = np.searchsorted(both, keys).clip(max=len(both) - 1)
    same = both[names] == keys
    return places[same], names[same]
