"""The three files of a tokenizer: written together, checked when read, and never trusted.

``tokenizer_meta.json``  split pattern, special tokens, statistics, SHA-256 of the ranks
``tokenizer.tiktoken``   the ranks, one token a line: its bytes in base64, its rank
``tokenizer.pkl``        all of this as one pickled dict of plain data, for other programs: to read
                         a pickle is to run what it says, so MiniLLM never does
"""

from __future__ import annotations

import base64
import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path

import msgspec

from minillm.errors import UserError
from minillm.files import atomic_folder

META_FILE = "tokenizer_meta.json"
RANKS_FILE = "tokenizer.tiktoken"
PICKLE_FILE = "tokenizer.pkl"


class Meta(msgspec.Struct):
    """All that is to be known of a tokenizer but its mergeable tokens."""

    pattern: str
    """How text is cut into chunks."""
    special_tokens: dict[str, int]
    vocab_size: int
    """All tokens, special ones included."""
    statistics: dict[str, int | float]
    ranks_sha256: str
    """SHA-256 of ``tokenizer.tiktoken``."""
    fingerprint: str
    """See ``RustBPETokenizer``."""


def write_files(directory: Path, meta: Meta, tokens: Sequence[bytes]) -> None:
    """Write all three files; none replaces an older one before all are complete.

    Raises:
        UserError: the folder cannot be written to; what was there is untouched.
    """
    plain = {**msgspec.structs.asdict(meta), "tokens": list(tokens)}
    with atomic_folder(directory, last=META_FILE) as unfinished:
        (unfinished / RANKS_FILE).write_bytes(ranks_content(tokens))
        (unfinished / PICKLE_FILE).write_bytes(pickle.dumps(plain, protocol=4))
        text = msgspec.json.format(msgspec.json.encode(meta), indent=2)
        (unfinished / META_FILE).write_bytes(text + b"\n")


def read_files(directory: Path) -> tuple[Path, Meta, list[bytes]]:
    """The file that describes the tokenizer, what it says, and the tokens in order of their ranks.

    Raises:
        UserError: a file is missing, damaged or changed; names it.
    """
    path, ranks_path = directory / META_FILE, directory / RANKS_FILE
    if not path.exists():
        alone = f", and its {PICKLE_FILE} is not read" if (directory / PICKLE_FILE).exists() else ""
        raise UserError(
            f"{directory}: no {META_FILE} in this folder{alone}; copy {META_FILE} and {RANKS_FILE} "
            f"there, or train a tokenizer by `minillm tokenizer --out_dir {directory}`"
        )
    try:
        meta = msgspec.json.decode(_read(path), type=Meta)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise damaged(path, str(error)) from None
    ranks = _read(ranks_path)
    if hashlib.sha256(ranks).hexdigest() != meta.ranks_sha256:
        raise damaged(ranks_path, f"its SHA-256 is not the one in {META_FILE}")
    return path, meta, _parse_ranks(ranks_path, ranks)


def ranks_content(tokens: Sequence[bytes]) -> bytes:
    """tiktoken's format: a line is a token in base64 and its rank."""
    return b"".join(b"%s %d\n" % (base64.b64encode(t), rank) for rank, t in enumerate(tokens))


def _parse_ranks(path: Path, content: bytes) -> list[bytes]:
    tokens = []
    for number, line in enumerate(content.splitlines()):
        try:
            token, rank = line.split()
            tokens.append(base64.b64decode(token, validate=True))
        except ValueError:
            rank = b""
        if rank != b"%d" % number:
            raise damaged(path, f"line {number + 1} is not a token in base64 and rank {number}")
    return tokens


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}") from None


def damaged(path: Path, reason: str) -> UserError:
    """The error for a file that is not what it was."""
    return UserError(
        f"{path}: damaged or not a tokenizer's file ({reason}); copy its folder anew or train the "
        f"tokenizer again"
    )
