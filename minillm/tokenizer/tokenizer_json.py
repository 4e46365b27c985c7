"""Hugging Face's ``tokenizer.json``, read where it says what a ``RustBPETokenizer`` does.

That file can describe any tokenizer, and a model understands the ids of one only. So all that
decides ids must be as here; anything else is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from minillm.errors import UserError

TOKENIZER_JSON = "tokenizer.json"

# Only the U+FFFF is matched, so that the "<" keeps its place in the text, which masks need.
NORMALIZER = {"type": "Replace", "pattern": {"Regex": "(?<=<)\uffff"}, "content": ""}
"""The step that takes the chat template's escapes away again: see ``hugging_face``."""

_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
BYTE_LETTERS = [
    chr(byte if byte in _PRINTABLE else 256 + _OTHERS.index(byte)) for byte in range(256)
]
"""GPT-2's letter for each byte: printable Latin-1 is itself, any other byte one from U+0100 on."""


def as_letters(token: bytes) -> str:
    """A token's bytes as letters, as vocabularies in JSON and GGUF have them: ``b" a"`` is "Ġa"."""
    return "".join(BYTE_LETTERS[byte] for byte in token)


def merge_pairs(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The two tokens that each merged token was made of, in the order of ranks.

    Ranks do not say that, but the merges before a token's own, done to its bytes, leave just these
    two. Where they do not, no merge makes the token: only a chunk that is it gives its id, here and
    in tiktoken, and it has no pair.

    Args:
        ranks: token bytes → rank, in the order of ranks.
    """
    pairs = []
    for token, rank in ranks.items():
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:
            joined = [ranks.get(left + right, rank) for left, right in pairwise(parts)]
            if (lowest := min(joined)) == rank:
                break
            place = joined.index(lowest)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        if len(parts) == 2:
            pairs.append((parts[0], parts[1]))
    return pairs


class BPEModel(msgspec.Struct):
    """``model`` of the file: the vocabulary, and the pairs that are merged, first ones first."""

    vocab: dict[str, int]
    merges: list[str | tuple[str, str]]
    """A pair is one string with a space in it in files of older versions."""
    dropout: float | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None
    byte_fallback: bool = False
    ignore_merges: bool = False

    def pairs(self) -> list[tuple[str, str]]:
        """The merges."""
        found = (tuple(m.split(" ")) if isinstance(m, str) else m for m in self.merges)
        return [(left, right) for left, right in found]


class AddedToken(msgspec.Struct):
    id: int
    content: str


def read_tokenizer_json(path: Path, pattern: str, special_tokens: Sequence[str]) -> list[bytes]:
    """The mergeable tokens of a byte-level BPE tokenizer, in the order of their ids.

    Args:
        pattern: how the tokenizer must cut text into chunks.
        special_tokens: those that it must have, in the order of their ids, after all others.

    Raises:
        UserError: the file cannot be read, or describes another kind of tokenizer; says what is
            different.
    """
    try:
        file = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        kind = file["model"].get("type", "BPE")
        if kind != "BPE":
            raise _unsupported(path, f"its model is {kind}, not byte-level BPE")
        model = msgspec.convert(file["model"], BPEModel)
        added = msgspec.convert(file.get("added_tokens") or [], list[AddedToken])
        pairs = model.pairs()
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}") from None
    except (msgspec.MsgspecError, KeyError, AttributeError, ValueError) as error:
        raise _unsupported(path, f"it is damaged or in an unknown format: {error}") from None
    _check_steps(path, file, model, pattern)
    special = [token.content for token in sorted(added, key=lambda token: token.id)]
    if special != list(special_tokens):
        missing = [name for name in special_tokens if name not in special]
        raise _unsupported(
            path,
            f"it has no special token {missing[0]}, and conversations are written with "
            f"{len(special_tokens)} of them"
            if missing
            else f"its special tokens are {', '.join(special):.80}",
        )
    letters = {letter: byte for byte, letter in enumerate(BYTE_LETTERS)}
    by_id = sorted(
        (token_id, token) for token, token_id in model.vocab.items() if token not in special
    )
    try:
        tokens = [bytes(letters[letter] for letter in token) for _, token in by_id]
    except KeyError as error:
        raise _unsupported(path, f"a token has the letter {error}, which is no byte's") from None
    ids = [token_id for token_id, _ in by_id] + sorted(token.id for token in added)
    if ids != list(range(len(ids))):
        raise _unsupported(path, "its ids are not 0, 1, 2 … with the special tokens last")
    if tokens[:256] != [bytes([byte]) for byte in range(256)]:
        raise _unsupported(path, "its first 256 tokens are not the bytes in order")
    expected = merge_pairs({token: rank for rank, token in enumerate(tokens)})
    if pairs != [(as_letters(left), as_letters(right)) for left, right in expected]:
        raise _unsupported(path, "its merges are not those that the order of its tokens implies")
    if not model.ignore_merges and 256 + len(expected) < len(tokens):
        raise _unsupported(path, "it has a token that no merge makes")
    return tokens


def _check_steps(path: Path, file: dict[str, Any], model: BPEModel, pattern: str) -> None:
    """What is done to a text before its merges."""
    if model.dropout or model.byte_fallback:
        raise _unsupported(path, "it uses dropout or byte_fallback")
    if model.continuing_subword_prefix or model.end_of_word_suffix:
        raise _unsupported(path, "its tokens have a prefix or suffix inside words")
    if file.get("normalizer") not in (None, NORMALIZER):
        raise _unsupported(path, "it changes text by a normalizer")
    match file.get("pre_tokenizer"):
        case {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": str(found)},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            if found != pattern:
                raise _unsupported(path, f"it splits text by another pattern, {found:.60}")
        case _:
            raise _unsupported(path, "it does not split text by a pattern into bytes")


def _unsupported(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path}: not a tokenizer that minillm can use: {reason}; name one of its own by "
        "--tokenizer_path"
    )
