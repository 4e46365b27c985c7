"""Texts of the reader's own, and how well a model predicts them.

The model reads ``<|bos|>`` and then the text; each token of the text is predicted exactly once, and
-log2 p of all of them are the text's bits: what it would take to send it to somebody who has the
model too. The end of a document is not predicted, which `val_loss` and its `bits_per_byte` count as
one token more.

A document that is longer than the model's window is read in several windows, each as long as it can
be. The first predicts all of its tokens; each later one predicts half a window of new ones, after
the half window before them, which it reads a second time. So a token is predicted from all that
stands before it, or at least from half a window. lm-evaluation-harness lets its windows share one
token only, which is twice as fast, and costs bits at the beginning of each.

Bits per byte and per character can be compared between models of different tokenizers; perplexity,
which is per token, cannot.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minillm.data.formats import convert
from minillm.data.readers import SUFFIXES
from minillm.data.rows import BadRow, Raw, Text
from minillm.errors import UserError
from minillm.evaluate import BATCH_SIZE, Evaluator
from minillm.own.files import general_advice, own_rows
from minillm.own.paired import Z, ratio_error
from minillm.progress import Progress
from minillm.tokenizer.vocabulary import RustBPETokenizer

TEXT_SUFFIXES = (".txt", *SUFFIXES)
"""Files that texts can be read from."""
MANY_SPLIT = 0.2
"""Share of characters in several tokens above which a tokenizer is said not to know a text."""


# --- Documents ------------------------------------------------------------------------------------


class OwnText(NamedTuple):
    """A document from a file."""

    file: Path
    line: int
    text: str


def read_texts(files: Iterable[Path]) -> list[OwnText]:
    """The documents of all files, in order: a .txt file is one, with its line ends as ``\\n``; of
    other files each row.

    Raises:
        UserError: a row is no text; a file has none, or is not UTF-8.
    """
    texts: list[OwnText] = []
    for path in files:
        if path.suffix.lower() == ".txt":
            texts.append(OwnText(path, 1, _content(path)))
        else:
            texts += own_rows(path, _own_text, _advice)
    return texts


def _content(path: Path) -> str:
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        line = 1 + error.object[: error.start].count(b"\n")
        byte = error.object[error.start]
        raise UserError(
            f"{path}:{line}: not UTF-8 (byte {byte:#04x}); save the file as UTF-8"
        ) from None
    if not text.strip():
        raise UserError(f"{path}: there is no text in this file; name one that has some")
    return text


def _own_text(path: Path, line: int, raw: Raw) -> OwnText:
    row = convert(raw)
    if not isinstance(row, Text):
        kind = "conversation" if hasattr(row, "messages") else "preference pair"
        raise BadRow(f"this row is no text, but a {kind}")
    return OwnText(path, line, row.text)


def _advice(problem: str, raw: Any) -> str:
    if problem.startswith("this row is no text"):
        return "--questions scores questions with their answers"
    if problem.startswith("no known format"):
        return "a text stands in the field text"
    return general_advice(problem)


# --- Bits -----------------------------------------------------------------------------------------


class Bits(NamedTuple):
    """What a model says of a document."""

    characters: int
    bytes: int
    tokens: int
    bits: float
    """-log2 p of all its tokens."""
    split: int
    """Characters that are spelled in several tokens."""


class Window(NamedTuple):
    """Places among a document's tokens, of which number 0 is ``<|bos|>``: those from ``start`` to
    ``first`` are context, those from ``first`` up to ``end`` are predicted."""

    start: int
    first: int
    end: int


def windows(tokens: int, longest: int) -> list[Window]:
    """Windows that predict each of the tokens from number 1 on once, and read at most ``longest``
    tokens each: the last that a window predicts is not read in it."""
    found: list[Window] = []
    first = 1
    while first < tokens:
        new = longest - longest // 2 if found else longest
        end = min(tokens, first + new)
        found.append(Window(max(0, end - 1 - longest), first, end))
        first = end
    return found


def measure(evaluator: Evaluator, texts: Sequence[OwnText], longest: int) -> list[Bits]:
    """The bits of each document.

    Args:
        longest: tokens that the model reads at once.
    """
    tokenizer = evaluator.tokenizer
    ids = [[tokenizer.bos_id, *tokenizer.encode(one.text)] for one in texts]
    jobs = [(i, window) for i, one in enumerate(ids) for window in windows(len(one), longest)]
    jobs.sort(key=lambda job: job[1].end - job[1].start)  # little padding
    nats = [0.0] * len(texts)
    with Progress("read", sum(map(len, ids)) - len(ids), "tokens") as bar:
        for at in range(0, len(jobs), BATCH_SIZE):
            part = jobs[at : at + BATCH_SIZE]
            pairs = [(ids[i][w.start : w.first], ids[i][w.first : w.end]) for i, w in part]
            for (i, window), log_prob in zip(part, evaluator.log_probs(pairs), strict=True):
                nats[i] -= log_prob
                bar.update(window.end - window.first)
    return [
        Bits(
            characters=len(one.text),
            bytes=len(one.text.encode()),
            tokens=len(tokens) - 1,
            bits=total / math.log(2),
            split=split_characters(tokenizer, tokens[1:], one.text),
        )
        for one, tokens, total in zip(texts, ids, nats, strict=True)
    ]


def split_characters(tokenizer: RustBPETokenizer, ids: Sequence[int], text: str) -> int:
    """How many characters of a text are spelled in several of its tokens, byte by byte or nearly
    so: those that the tokenizer has seldom or never seen."""
    starts = np.cumsum([0, *(len(tokenizer.token_bytes(i)) for i in ids)])[:-1]
    content = np.frombuffer(text.encode(), np.uint8)
    begins = (content & 0xC0) != 0x80  # UTF-8: all other bytes of a character are 0b10……
    character = np.cumsum(begins) - 1
    return len(np.unique(character[starts][~begins[starts]]))


# --- Scores ---------------------------------------------------------------------------------------


def text_scores(measured: Sequence[Bits]) -> dict[str, Any]:
    """Over all documents, as plain JSON values. ``standard_error`` is that of bits per character
    over documents, where there are several."""
    documents = len(measured)
    characters, size, tokens, bits, split = (sum(column) for column in zip(*measured, strict=True))
    return {
        "documents": documents,
        "characters": characters,
        "bytes": size,
        "tokens": tokens,
        "bits_per_character": bits / characters,
        "standard_error": ratio_error(
            [one.bits for one in measured], [one.characters for one in measured]
        ),
        "bits_per_byte": bits / size,
        "tokens_per_character": tokens / characters,
        "perplexity": _power(bits / tokens),
        "split_characters": split / characters,
    }


def _power(bits: float) -> float:
    return 2**bits if bits < 1000 else math.inf


def compared_texts(measured: Sequence[Bits], others: Sequence[Bits]) -> dict[str, Any]:
    """The difference of bits per character on the same documents (the first model's less the
    second's: below 0 the first is better), in how many documents it is below 0, and, where there
    are several, its standard error and 95% interval."""
    less = [one.bits - other.bits for one, other in zip(measured, others, strict=True)]
    characters = [one.characters for one in measured]
    difference, error = sum(less) / sum(characters), ratio_error(less, characters)
    found: dict[str, Any] = {"difference": difference, "fewer_bits": sum(bits < 0 for bits in less)}
    if len(less) > 1:
        found["standard_error"] = error
        found["interval"] = (difference - Z * error, difference + Z * error)
    return found
