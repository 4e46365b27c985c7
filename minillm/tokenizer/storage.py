"""The three files of a tokenizer: written whole, checked when read, and never trusted.

``tokenizer_meta.json``  split pattern, special tokens, statistics, SHA-256 of the ranks
``tokenizer.tiktoken``   the ranks, one token a line: its bytes in base64, its rank
``tokenizer.pkl``        all of this as one pickled dict of plain data; it is read only where there
                         is no ``tokenizer_meta.json``, and nothing in it can run
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from minillm.errors import UserError

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
    files = {
        RANKS_FILE: ranks_content(tokens),
        PICKLE_FILE: pickle.dumps(plain, protocol=4),
        META_FILE: msgspec.json.format(msgspec.json.encode(meta), indent=2) + b"\n",
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=directory) as unfinished:
            for name, content in files.items():
                Path(unfinished, name).write_bytes(content)
            for name in files:
                os.replace(Path(unfinished, name), directory / name)
    except OSError as error:
        raise UserError(
            f"{directory}: cannot write the tokenizer: {error.strerror}; free some space or choose "
            f"another --out_dir"
        ) from None


def read_files(directory: Path) -> tuple[Path, Meta, list[bytes]]:
    """The file that describes the tokenizer, what it says, and the tokens in order of their ranks.

    Raises:
        UserError: a file is missing, damaged or changed; names it.
    """
    path, ranks_path = directory / META_FILE, directory / RANKS_FILE
    if not path.exists():
        path = directory / PICKLE_FILE
    if not path.exists():
        raise UserError(
            f"{directory}: no {META_FILE} in this folder; "
            f"`minillm tokenizer --out_dir {directory}` trains a tokenizer"
        )
    content = _read(path)
    try:
        if path.name == PICKLE_FILE:
            plain = _PlainUnpickler(io.BytesIO(content)).load()
            tokens = msgspec.convert(plain["tokens"], list[bytes])
            return path, msgspec.convert(plain, Meta), tokens
        meta = msgspec.json.decode(content, type=Meta)
    except Exception as error:  # a damaged pickle can raise almost anything
        raise damaged(path, f"{type(error).__name__}: {error}") from None
    ranks = _read(ranks_path)
    if hashlib.sha256(ranks).hexdigest() != meta.ranks_sha256:
        raise damaged(ranks_path, f"its SHA-256 is not the one in {META_FILE}")
    return path, meta, _parse_ranks(ranks_path, ranks)


class _PlainUnpickler(pickle.Unpickler):
    """Reads dicts, lists, strings, bytes and numbers, and no class or function: nothing can run."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not plain data")


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
