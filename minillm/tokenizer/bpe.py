"""Byte-pair encoding in plain Python: the trainer to read, and the oracle of the Rust one.

The idea is a compression scheme (Gage, "A New Algorithm for Data Compression", 1994) that Sennrich,
Haddow and Birch brought to language ("Neural Machine Translation of Rare Words with Subword Units",
2016, arXiv:1508.07909): start from the 256 bytes, so that every text can be written, then join the
pair of neighbouring tokens that occurs most often into a new token, again and again.

A worked example: two merges on the chunks ``aab`` (5 times), ``ab`` (2) and ``b`` (1):

    chunks as tokens           pairs and their counts      merge
    a a b ×5   a b ×2   b ×1   (a,b) 7, (a,a) 5            (a,b) → 256
    a 256 ×5   256 ×2   b ×1   (a,256) 5                   (a,256) → 257
    257 ×5     256 ×2   b ×1   none: the vocabulary ends at 258 tokens

Two rules make the result the same in every implementation:

* Text is first cut into chunks by a regular expression, and no pair crosses from one chunk to the
  next. So a chunk that occurs a million times is stored once, with its count.
* Ties: among the pairs of the highest count, the numerically smallest ``(left id, right id)`` wins.
"""

from __future__ import annotations

import gc
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise

import regex

TokenPair = tuple[int, int]


def train_bpe(texts: Iterable[str], vocab_size: int, pattern: str) -> dict[bytes, int]:
    """Learn a vocabulary: the 256 bytes, then one token for each merge, in the order of merging.

    Counting all pairs anew for every merge would read the whole corpus thousands of times. Instead
    the counts are kept, and a merge visits only the chunks that hold its pair (``where``). The next
    pair comes from a heap whose entries may be out of date. That is safe: once a pair exists its
    count can only fall, because all its places arise in the one merge that makes the newer of its
    two tokens. So an entry never claims too little; one that claims too much goes back, corrected.

    Args:
        texts: the corpus, read once; only its distinct chunks are kept in memory.
        vocab_size: how many tokens to learn, the 256 bytes included. A small corpus gives fewer:
            training ends when no chunk has two tokens left.
        pattern: how to cut text into chunks, in the syntax of the ``regex`` module.

    Returns:
        token bytes → id (its *rank*: the lower, the earlier it was merged), in the order of ids.

    Raises:
        ValueError: ``vocab_size`` leaves no room for the 256 bytes.
    """
    if vocab_size < 256:
        raise ValueError(f"vocab_size must be at least 256 (one for each byte), got {vocab_size}")
    chunk_counts = count_chunks(texts, pattern)
    with _no_garbage_collection():
        vocab = _learn_merges(chunk_counts, vocab_size)
    # No two merges spell the same bytes: as long as nothing outside joins them, the same bytes
    # are merged in the same steps wherever they stand. So a dictionary loses nothing.
    return {token: rank for rank, token in enumerate(vocab)}


def _learn_merges(chunk_counts: Mapping[str, int], vocab_size: int) -> list[bytes]:
    words = [list(chunk.encode()) for chunk in chunk_counts]
    weights = list(chunk_counts.values())
    counts: defaultdict[TokenPair, int] = defaultdict(int)
    where: defaultdict[TokenPair, set[int]] = defaultdict(
        set
    )  # pair → indices of words that hold it
    for index, word in enumerate(words):
        for pair in pairwise(word):
            counts[pair] += weights[index]
            where[pair].add(index)

    # Tuples compare element by element: the highest count first, then the smallest pair.
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    vocab = [bytes([byte]) for byte in range(256)]
    while heap and len(vocab) < vocab_size:
        claimed, pair = heapq.heappop(heap)
        if counts[pair] != -claimed:  # out of date
            if counts[pair] > 0:
                heapq.heappush(heap, (-counts[pair], pair))
            continue
        new_id = len(vocab)
        vocab.append(vocab[pair[0]] + vocab[pair[1]])
        born: set[TokenPair] = set()
        for index in where.pop(pair):
            for changed, difference in merge(words[index], pair, new_id):
                counts[changed] += difference * weights[index]
                if difference > 0:
                    born.add(changed)
                    where[changed].add(index)
        for new_pair in born:
            if counts[new_pair] > 0:  # (new_id, a) of "aaaa" was born and merged away at once
                heapq.heappush(heap, (-counts[new_pair], new_pair))
    return vocab


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Millions of small objects and no cycles: looking for cycles would double the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def count_chunks(texts: Iterable[str], pattern: str) -> Counter[str]:
    """Cut ``texts`` by ``pattern`` and count each distinct chunk."""
    compiled = regex.compile(pattern)
    chunk_counts: Counter[str] = Counter()
    for text in texts:
        chunk_counts.update(match.group() for match in compiled.finditer(text))
    return chunk_counts


def merge(word: list[int], pair: TokenPair, new_id: int) -> list[tuple[TokenPair, int]]:
    """Replace ``pair`` by ``new_id`` in ``word``, in place, from left to right.

    Returns what this did to the number of pairs in the word, as (pair, +1 or -1):

    >>> word = [1, 2, 3]
    >>> merge(word, (2, 3), 9)
    [((2, 3), -1), ((1, 2), -1), ((1, 9), 1)]
    >>> word
    [1, 9]
    """
    left, right = pair
    changes: list[tuple[TokenPair, int]] = []
    position = -1
    for _ in range(word.count(left)):
        try:
            position = word.index(left, position + 1)
        except ValueError:  # the merge before has taken the last one, as in "aa"
            break
        if word[position + 1 : position + 2] != [right]:
            continue
        changes.append((pair, -1))
        if position > 0:
            before = word[position - 1]
            changes += [((before, left), -1), ((before, new_id), 1)]
        if position + 2 < len(word):
            after = word[position + 2]
            changes += [((right, after), -1), ((new_id, after), 1)]
        word[position : position + 2] = [new_id]
    return changes


def encode(text: str, ranks: dict[bytes, int], pattern: str) -> list[int]:
    """Encode ``text`` as the merges would have, the earliest learned first; tiktoken's reference.

    Every step looks at all neighbours again, so it is slow on long chunks: for reading and testing.
    """
    ids: list[int] = []
    for match in regex.finditer(pattern, text):
        tokens = [bytes([byte]) for byte in match.group().encode()]
        while len(tokens) > 1:
            joined = [left + right for left, right in pairwise(tokens)]
            best = min(range(len(joined)), key=lambda i: ranks.get(joined[i], len(ranks)))
            if joined[best] not in ranks:
                break
            tokens[best : best + 2] = [joined[best]]
        ids += [ranks[token] for token in tokens]
    return ids
