"""Bits of the reader's own texts: against one forward pass over the whole text, and by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import nasty
import pytest
import small
import torch
from hypothesis import given
from hypothesis import strategies as st

from minillm.errors import UserError
from minillm.evaluate import Evaluator
from minillm.own.text import (
    Bits,
    OwnText,
    compared_texts,
    measure,
    read_texts,
    split_characters,
    text_scores,
    windows,
)
from minillm.tokenizer.vocabulary import RustBPETokenizer

TOKENIZER = small.tokenizer()
TEXT = "小猫看见12只鸟。\nIt flew away, 龘！"


def bits_of(model: Any, context: list[int], ids: list[int]) -> float:
    """-log2 p of tokens after others, by transformers' rule: the last rows of a softmax."""
    with torch.no_grad():
        log_probs = model(torch.tensor([context + ids[:-1]]))[0].log_softmax(-1)
    start = len(context) - 1
    return -sum(float(log_probs[start + k, token]) for k, token in enumerate(ids)) / math.log(2)


def texts(*contents: str) -> list[OwnText]:
    return [OwnText(Path("a.txt"), 1, content) for content in contents]


# ---- windows ----


@given(st.integers(1, 400), st.integers(1, 70))
def test_each_token_is_predicted_once_after_as_much_as_fits(tokens: int, longest: int) -> None:
    found = windows(tokens, longest)
    predicted = [place for window in found for place in range(window.first, window.end)]
    assert predicted == list(range(1, tokens))
    for start, first, end in found:
        assert 0 <= start < first < end
        assert end - 1 - start <= longest, "the last one is only predicted"
        assert start == 0 or end - 1 - start == longest
        # The first that it predicts has the least before it.
        assert first - start >= min(first, longest // 2)


def test_windows_by_hand() -> None:
    assert windows(5, 4) == [(0, 1, 5)]
    assert windows(10, 4) == [(0, 1, 5), (2, 5, 7), (4, 7, 9), (5, 9, 10)]
    assert windows(1, 4) == []


# ---- bits ----


def test_a_text_that_fits_is_predicted_at_once() -> None:
    model = small.model()
    evaluator = Evaluator(model, TOKENIZER)
    both = measure(evaluator, texts(TEXT, "鸟"), 128)
    for found, text in zip(both, (TEXT, "鸟"), strict=True):
        ids = TOKENIZER.encode(text)
        assert len(ids) < 128
        assert found.bits == pytest.approx(bits_of(model, [TOKENIZER.bos_id], ids), rel=1e-4)
        assert found[:3] == (len(text), len(text.encode()), len(ids))


def test_a_long_text_is_predicted_window_by_window() -> None:
    model = small.model(config=replace(small.CONFIG, max_position_embeddings=16))
    text = TEXT * 4
    (found,) = measure(Evaluator(model, TOKENIZER), texts(text), 16)
    ids = [TOKENIZER.bos_id, *TOKENIZER.encode(text)]
    assert len(ids) > 64
    total = bits_of(model, ids[:1], ids[1:17])
    for first in range(17, len(ids), 8):
        end = min(first + 8, len(ids))
        total += bits_of(model, ids[end - 17 : first], ids[first:end])
    assert found.bits == pytest.approx(total, rel=1e-4)


def test_more_context_than_the_model_was_asked_for_is_not_read() -> None:
    model = small.model()
    one = measure(Evaluator(model, TOKENIZER), texts(TEXT * 3), 8)
    other = measure(Evaluator(model, TOKENIZER), texts(TEXT * 3), 128)
    assert one[0].tokens == other[0].tokens
    assert one[0].bits != pytest.approx(other[0].bits, rel=1e-6)


def pieces(tokenizer: RustBPETokenizer, text: str) -> int:
    """Characters in several tokens, by their definition: one byte after the other."""
    token_of_byte = [
        number for number, i in enumerate(tokenizer.encode(text)) for _ in tokenizer.token_bytes(i)
    ]
    place, split = 0, 0
    for character in text:
        size = len(character.encode())
        split += len(set(token_of_byte[place : place + size])) > 1
        place += size
    assert place == len(token_of_byte)
    return split


@given(st.lists(st.sampled_from([*nasty.NASTY, *TEXT]), min_size=1).map("".join))
def test_split_characters_by_definition(text: str) -> None:
    for tokenizer in (TOKENIZER, nasty.sharp()):
        assert split_characters(tokenizer, tokenizer.encode(text), text) == pieces(tokenizer, text)


def test_unknown_characters_cost_three_tokens_each() -> None:
    (found,) = measure(Evaluator(small.model(), TOKENIZER), texts("龘龘龘"), 128)
    assert (found.characters, found.tokens, found.split) == (3, 9, 3)


# ---- scores ----


def test_scores_by_hand() -> None:
    scores = text_scores([Bits(10, 30, 8, 40.0, 1), Bits(30, 50, 12, 80.0, 3)])
    # Residuals: 40 - 3·10 = 10, 80 - 3·30 = -10; √(2/1 · 200) / 40
    assert scores == pytest.approx(
        {
            "documents": 2, "characters": 40, "bytes": 80, "tokens": 20,
            "bits_per_character": 3.0, "standard_error": math.sqrt(400) / 40,
            "bits_per_byte": 1.5, "tokens_per_character": 0.5, "perplexity": 2**6,
            "split_characters": 0.1,
        }
    )  # fmt: skip
    assert math.isnan(text_scores([Bits(1, 1, 1, 1.0, 0)])["standard_error"])
    assert text_scores([Bits(1, 1, 1, 1e6, 0)])["perplexity"] == math.inf


def test_compared_by_hand() -> None:
    ours = [Bits(10, 30, 8, 40.0, 1), Bits(30, 50, 12, 80.0, 3)]
    theirs = [ours[0]._replace(bits=42.0), ours[1]._replace(bits=76.0)]
    found = compared_texts(ours, theirs)
    # Differences -2 and +4 over 40 characters: 0.05; residuals -2.5 and 2.5.
    error = math.sqrt(2 * 2 * 2.5**2) / 40
    assert found["difference"] == pytest.approx(0.05)
    assert found["fewer_bits"] == 1
    assert found["standard_error"] == pytest.approx(error)
    assert found["interval"] == pytest.approx((0.05 - 1.96 * error, 0.05 + 1.96 * error))
    assert set(compared_texts(ours[:1], ours[:1])) == {"difference", "fewer_bits"}


# ---- files ----


def test_files_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + "小猫\r\n小狗\n".encode())
    rows = b'{"text": "x"}\n\n{"text": "y"}\n'
    (tmp_path / "b.jsonl").write_bytes(rows)
    (tmp_path / "c.csv").write_bytes("text\n鸟\n".encode())
    found = read_texts(sorted(tmp_path.iterdir()))
    assert [(one.file.name, one.line, one.text) for one in found] == [
        ("a.txt", 1, "小猫\n小狗\n"),
        ("b.jsonl", 1, "x"),
        ("b.jsonl", 3, "y"),
        ("c.csv", 2, "鸟"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", r"a\.txt: there is no text in this file; name one that has some"),
        ("a.txt", b" \n\n", r"a\.txt: there is no text in this file"),
        ("a.txt", "小猫\n".encode() + "小狗".encode("gbk"),
         r"a\.txt:2: not UTF-8 \(byte 0xb9\); save the file as UTF-8"),
        ("a.jsonl", b"", r"a\.jsonl:1: there are no rows in this file; name a file that has some"),
        ("a.jsonl", b'{"text": "x"}\n{"text": ""}', r"a\.jsonl:2: text is empty; correct this row"),
        ("a.jsonl", b'{"body": "x"}', r"a\.jsonl:1: no known .*; a text stands in the field text"),
        ("a.jsonl", json.dumps({"messages": small.conversation("a", "b")}).encode(),
         r"a\.jsonl:1: this row is no text, but a conversation; --questions scores questions"),
        ("a.jsonl", json.dumps({"chosen": small.conversation("a", "b"),
                                "rejected": small.conversation("a", "c")}).encode(),
         r"a\.jsonl:1: this row is no text, but a preference pair"),
    ],
)  # fmt: skip
def test_what_is_no_text(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_texts([tmp_path / name])
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(UserError, match=r"a\.txt: Is a directory"):
        read_texts([tmp_path / "a.txt"])
