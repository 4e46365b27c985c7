"""Answers to the build tasks of chapter 3 that readers give and that are wrong."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from minillm.tokenizer import bpe

Ids = list[int]
Pair = tuple[int, int]


def forgets_the_last(ids: Ids, pair: Pair, new_id: int) -> Ids:
    out, i = [], 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) == pair:
            out.append(new_id)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def uses_a_token_twice(ids: Ids, pair: Pair, new_id: int) -> Ids:
    out: Ids = []
    for i, token in enumerate(ids):
        if tuple(ids[i : i + 2]) == pair:
            out.append(new_id)
        elif i == 0 or tuple(ids[i - 1 : i + 1]) != pair:
            out.append(token)
    return out


def changes_the_list(ids: Ids, pair: Pair, new_id: int) -> Ids:
    i = 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) == pair:
            ids[i : i + 2] = [new_id]
        i += 1
    return ids


def learned(
    rows: list[tuple[Ids, int]], merges: int, by_bytes: bool = False, latest: bool = False
) -> list[bytes]:
    tokens = [bytes([i]) for i in range(256)]

    def order(pair: Pair) -> object:
        sign = -1 if latest else 1
        return [tokens[i] for i in pair] if by_bytes else [sign * i for i in pair]

    for new_id in range(256, 256 + merges):
        counts: Counter[Pair] = Counter()
        for ids, times in rows:
            for pair in pairwise(ids):
                counts[pair] += times
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], order(pair)))
        tokens.append(tokens[best[0]] + tokens[best[1]])
        for ids, _ in rows:
            bpe.merge(ids, best, new_id)
    return tokens[256:]


def counts_each_chunk_once(words: dict[str, int], merges: int) -> list[bytes]:
    return learned([(list(word.encode()), 1) for word in words], merges)


def strings_chunks_together(words: dict[str, int], merges: int) -> list[bytes]:
    text = "".join(word * times for word, times in words.items())
    return learned([(list(text.encode()), 1)], merges)


def breaks_ties_by_the_highest(words: dict[str, int], merges: int) -> list[bytes]:
    rows = [(list(word.encode()), times) for word, times in words.items()]
    return learned(rows, merges, latest=True)


def breaks_ties_by_bytes(words: dict[str, int], merges: int) -> list[bytes]:
    rows = [(list(word.encode()), times) for word, times in words.items()]
    return learned(rows, merges, by_bytes=True)


WRONG = {
    "3.1": [forgets_the_last, uses_a_token_twice, changes_the_list],
    "3.2": [
        counts_each_chunk_once,
        strings_chunks_together,
        breaks_ties_by_the_highest,
        breaks_ties_by_bytes,
    ],
}
