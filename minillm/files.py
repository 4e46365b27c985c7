"""Files: written whole or not at all, and recognised by their content."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import msgspec

from minillm.errors import UserError

_encode = msgspec.json.Encoder().encode


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that at any moment, also after a crash, there is the old one or the new one.

    Raises:
        UserError: no space, or no permission; the old file is untouched.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        advice = {
            errno.ENOSPC: "free some space and go on with --resume",
            errno.EACCES: "make the folder writable or choose another --out_dir",
            errno.EROFS: "choose an --out_dir that is not read-only",
        }.get(error.errno or 0, "check the path")
        raise UserError(f"{path}: cannot write: {error.strerror}; {advice}") from None


def file_sha256(path: Path) -> str:
    """Hash of a file's content, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def encode_line(row: object) -> bytes:
    """One line of JSON Lines."""
    return _encode(row) + b"\n"
