"""The reference trainer against hand-computed merges, a brute-force trainer and Hugging Face's."""

from __future__ import annotations

import doctest
import gc
import random
from collections import Counter
from itertools import pairwise

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as PreTokenizers
from tokenizers.trainers import BpeTrainer

from minillm.tokenizer import bpe
from minillm.tokenizer.vocabulary import SPLIT_PATTERN

WORDS = r"\S+"
# Few letters make many ties and runs, the hard cases; 中 and 丁 share their first two bytes.
few_letters = st.lists(st.text("ab c中丁", max_size=12), max_size=8)


def merged(texts: list[str], vocab_size: int, pattern: str = WORDS) -> list[bytes]:
    return list(bpe.train_bpe(texts, vocab_size, pattern))[256:]


def brute_force(texts: list[str], vocab_size: int, pattern: str) -> list[bytes]:
    """Counts everything anew for every merge, and spells tokens as bytes, not ids."""
    words = [
        tuple(bytes([byte]) for byte in chunk.encode())
        for chunk in bpe.count_chunks(texts, pattern).elements()
    ]
    vocab = [bytes([byte]) for byte in range(256)]
    while len(vocab) < vocab_size:
        pairs = Counter(pair for word in words for pair in pairwise(word))
        if not pairs:
            break
        most = max(pairs.values())
        left, right = min(
            (pair for pair, count in pairs.items() if count == most),
            key=lambda pair: (vocab.index(pair[0]), vocab.index(pair[1])),
        )
        vocab.append(left + right)
        for i, word in enumerate(words):
            rest, new = list(word), []
            while rest:
                if rest[:2] == [left, right]:
                    new.append(left + right)
                    del rest[:2]
                else:
                    new.append(rest.pop(0))
            words[i] = tuple(new)
    return vocab


def test_the_bytes_come_first_then_the_merges_in_order() -> None:
    ranks = bpe.train_bpe(["aab " * 5, "ab ab b"], 300, WORDS)
    assert list(ranks)[:256] == [bytes([byte]) for byte in range(256)]
    assert list(ranks)[256:] == [b"ab", b"aab"]  # the example in the module's docstring
    assert list(ranks.values()) == list(range(258))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["ba", "ab"], [b"ab", b"ba"]),  # (97,98) before (98,97)
        (["cd ab"], [b"ab", b"cd"]),  # the smaller left id
        (["ac", "ab"], [b"ab", b"ac"]),  # the same left, the smaller right id
        (["abc", "bc"], [b"bc", b"abc"]),  # (b,c) twice; then (a,256)
        (["xyab", "xycd"], [b"xy", b"ab", b"cd", b"xyab", b"xycd"]),  # 256 is larger than a, c
    ],
)
def test_ties_go_to_the_smallest_pair(texts: list[str], expected: list[bytes]) -> None:
    assert merged(texts, 300) == expected


def test_a_run_is_merged_from_left_to_right() -> None:
    assert merged(["aaaa"], 300) == [b"aa", b"aaaa"]  # 256 256, then 257
    # 256 256 a: of (256,256) and (256,97), which both count 1, the second is smaller.
    assert merged(["aaaaa"], 300) == [b"aa", b"aaa", b"aaaaa"]


def test_chunks_do_not_merge_with_each_other() -> None:
    assert merged(["12 12 12"], 300, r"\d") == []
    assert merged(["ab", "ab"], 300) == [b"ab"]


def test_training_stops_at_the_size_asked_for_or_when_nothing_is_left() -> None:
    assert merged(["abcdef"], 258) == [b"ab", b"cd"]
    assert merged([], 300) == []
    assert merged(["", " \n", "a"], 300) == []


def test_fewer_than_256_tokens_are_an_error() -> None:
    assert len(bpe.train_bpe(["ab"], 256, WORDS)) == 256
    with pytest.raises(ValueError, match="at least 256"):
        bpe.train_bpe(["ab"], 255, WORDS)


@given(few_letters, st.integers(256, 290), st.sampled_from([WORDS, SPLIT_PATTERN]))
def test_equals_brute_force(texts: list[str], vocab_size: int, pattern: str) -> None:
    expected = brute_force(texts, vocab_size, pattern)
    assert list(bpe.train_bpe(iter(texts), vocab_size, pattern)) == expected


@given(few_letters)
def test_every_token_joins_two_earlier_ones(texts: list[str]) -> None:
    tokens = list(bpe.train_bpe(texts, 300, SPLIT_PATTERN))
    for rank, token in enumerate(tokens[256:], 256):
        earlier = set(tokens[:rank])
        assert any({token[:i], token[i:]} <= earlier for i in range(1, len(token)))
    assert len(set(tokens)) == len(tokens)


def test_equals_hugging_face_where_the_tie_rules_agree() -> None:
    # Hugging Face orders bytes by a table of its own, but visible ASCII as it is.
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshr!?-", k=rng.randint(1, 9))) for _ in range(400)]
    text = " ".join(rng.choices(words, k=3000))
    theirs = Tokenizer(BPE())
    theirs.pre_tokenizer = PreTokenizers(
        [Split(Regex(r"\s+"), "removed"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = BpeTrainer(vocab_size=600, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    theirs.train_from_iterator([text], trainer)
    vocab = sorted(theirs.get_vocab().items(), key=lambda item: item[1])
    assert merged([text], 600) == [token.encode() for token, _ in vocab[256:]]


@given(st.text(), st.text("ab c中丁1２'\n", max_size=40))
def test_encode_equals_tiktoken(anything: str, similar: str) -> None:
    ranks = bpe.train_bpe(["ab abc cab 中丁 中中 丁丁丁 a1 11 22 's 'll"] * 2, 300, SPLIT_PATTERN)
    encoding = tiktoken.Encoding(
        "test", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={}
    )
    for text in (anything, similar):
        assert bpe.encode(text, ranks, SPLIT_PATTERN) == encoding.encode_ordinary(text)


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_left_as_it_was(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    try:
        bpe.train_bpe(["ab"], 300, WORDS)
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_the_examples_in_the_docstrings() -> None:
    assert doctest.testmod(bpe) == doctest.TestResults(failed=0, attempted=3)
