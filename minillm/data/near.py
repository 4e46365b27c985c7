"""Near duplicates: texts that have most of their runs of characters in common.

The share of runs in common (Jaccard) of all pairs would take days. A MinHash (Broder 1997) is a
handful of numbers that agree between two texts with just that share as probability; texts whose
numbers agree in some band of neighbours become candidates, and only these are compared exactly.
The hashes are datasketch's. Its index, ``MinHashLSH``, gives the same candidates, but keeps some
3 KB for each text in dictionaries; here they are found by sorting, with some 150 bytes a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from minillm.errors import UserError
from minillm.progress import Progress

SHINGLE = 3
"""Characters in a run."""
PERMUTATIONS, BAND = 32, 2
"""Numbers of a MinHash, and how many of them make a band. A pair with a share of 0.4 is found with
probability 1 - (1 - 0.4²)¹⁶ = 0.94, one with 0.5 with 0.99; one with 0.1 is compared in vain with
0.15."""


class Near(NamedTuple):
    """A text that says nearly the same as an earlier one that is kept."""

    like: int
    """Index of that one."""
    share: float
    """Of all the runs of both, those in common: 0 to 1."""


def near_duplicates(texts: Sequence[str], threshold: float) -> dict[int, Near]:
    """Which texts to leave out so that hardly any two of the others share ``threshold`` or more.

    Texts are looked at in their order: one is left out if an earlier one that is kept is like it.
    """
    found: dict[int, Near] = {}
    for later, earlier in candidates(signatures(texts)):
        if later not in found and earlier not in found:
            share = jaccard(shingles(texts[later]), shingles(texts[earlier]))
            if share >= threshold:
                found[later] = Near(earlier, share)
    return found


def shingles(text: str) -> set[str]:
    """The runs of SHINGLE characters in a text; a shorter text is its only one."""
    return {text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1))}


def jaccard(one: set[str], other: set[str]) -> float:
    """What two sets have in common, as a share of what is in any of them."""
    return len(one & other) / len(one | other)


def signatures(texts: Sequence[str]) -> npt.NDArray[np.uint32]:
    """The texts' MinHashes: ``[len(texts), PERMUTATIONS]``."""
    sets = ([run.encode() for run in shingles(text)] for text in texts)
    made = minhash().generator(sets, num_perm=PERMUTATIONS, seed=1)
    rows = np.empty((len(texts), PERMUTATIONS), np.uint32)
    with Progress("MinHash", len(texts), "texts") as bar:
        for row, each in zip(rows, made, strict=True):
            row[:] = each.hashvalues
            bar.update()
    return rows


def minhash() -> Any:
    """datasketch's class. Raises UserError if it is not installed."""
    try:
        from datasketch import MinHash
    except ImportError as error:
        raise UserError(
            f"near duplicates need datasketch: pip install -e '.[poetry]' ({error})"
        ) from None
    return MinHash


def candidates(hashes: npt.NDArray[np.uint32]) -> Iterator[tuple[int, int]]:
    """(later, earlier) for every two rows that agree in a band, in this order, each pair once.

    Args:
        hashes: ``[texts, PERMUTATIONS]``.
    """
    pairs = [np.empty(0, np.uint64)]
    for start in range(0, PERMUTATIONS, BAND):
        band = np.ascontiguousarray(hashes[:, start : start + BAND]).view(np.uint64)[:, 0]
        order = np.argsort(band, kind="stable").astype(np.uint64)  # equal ones in their order
        band = band[order]
        for step in count(1):  # neighbours, then those two places apart, ...
            same = np.flatnonzero(band[step:] == band[:-step])
            if not len(same):
                break
            pairs.append(order[same + step] << np.uint64(32) | order[same])
    for pair in np.unique(np.concatenate(pairs)).tolist():
        yield pair >> 32, pair & 0xFFFFFFFF
