"""Files: written whole or not at all, and recognised by their content.

``atomic_file``        one file, written piece by piece
``write_atomically``   one file, from its content
``atomic_folder``      files that belong together
``appending``          more lines for a file that is there
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

import msgspec

from minillm.errors import UserError

_encode = msgspec.json.Encoder().encode
_NO_SPACE = "free some space and start again (training: with --resume)"
_IN_THE_WAY = "a file is in the place of a folder: move it away or choose another place"
_ADVICE = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EACCES: "make the folder writable or choose another",
    errno.EPERM: "make the folder writable or choose another",
    errno.EROFS: "choose a folder that is not read-only",
    errno.EISDIR: "there is a folder of this name: move it away or choose another name",
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
}


def cannot_write(path: Path, error: OSError) -> UserError:
    """The error for a file or folder that could not be written: says why, and what to do."""
    advice = _ADVICE.get(error.errno or 0, "check the path")
    return UserError(f"{path}: cannot write: {error.strerror or error}; {advice}")


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of ``path`` when the block ends.

    At any moment, also after a crash, there is the old file or the new one. A block that raises
    leaves the old one, and nothing else. Missing folders are made.

    Raises:
        UserError: ``path`` cannot be written; where that is known beforehand, before the block.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise cannot_write(path, error) from None


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file of this content: see ``atomic_file``."""
    with atomic_file(path) as file:
        file.write(content)


@contextmanager
def atomic_folder(folder: Path, last: str = "") -> Iterator[Path]:
    """An empty folder to write files to, which appear in ``folder`` when the block ends.

    A ``folder`` that is not there yet appears in one step. In one that is there, each file takes
    the place of the one of its name, and ``last`` comes last: who sees the new one sees all of
    them. Other files stay. A block that raises changes nothing. Where two processes write the same
    folder, the later one wins.

    Raises:
        UserError: ``folder`` cannot be written.
    """
    place = folder if folder.exists() else folder.parent
    unfinished = place / f".unfinished-{folder.name}-{token_hex(4)}"
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        made = sorted(unfinished.iterdir(), key=lambda file: (file.name == last, file.name))
        for file in made:
            with file.open("rb+") as written:
                os.fsync(written.fileno())
        with suppress(OSError):  # there is a folder already
            unfinished.rename(folder)
            return
        for file in made:
            os.replace(file, folder / file.name)
    except OSError as error:
        raise cannot_write(folder, error) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def appending(path: Path) -> Iterator[BinaryIO]:
    """A file whose lines come after those of ``path``: all of them, or none if the block raises.

    It is open from the start, so work whose result could not be written is not begun.

    Raises:
        UserError: ``path`` cannot be written; its old lines are untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
        before = file.tell()
        try:
            with file:
                yield file
        except BaseException:
            with suppress(OSError):
                os.truncate(path, before)
                if not before:
                    path.unlink()
            raise
    except OSError as error:
        raise cannot_write(path, error) from None


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
