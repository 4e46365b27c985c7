"""Which rows of the mix are written, how many times, and where: decided by their notes alone."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from pathlib import Path
from random import Random

import msgspec

from minillm.data.categories import CATEGORIES
from minillm.data.report import CategoryReport
from minillm.data.shuffle import NOTE, Buckets, in_order

MAX_VALIDATION_ROWS = 2_000
"""Most validation rows of a category."""
SAMPLE_ROWS = 200
"""Notes of a category that are returned, for an estimate of its tokens."""


class Quota(msgspec.Struct):
    """What is still to be taken of a category, whose documents come one by one, in random order."""

    rounds: int
    """Copies of every training document ..."""
    extra: int
    """... and of how many there is one more."""
    repeat: int
    """Copies of each of these copies."""
    validation: int
    """Documents for validation."""
    kept: set[bytes]
    """Documents that are for training although they are on the validation side."""
    sample: list[bytes] = msgspec.field(default_factory=list)
    """Notes of some training rows."""

    def copies(self) -> int:
        """Of the next training document."""
        self.extra -= 1
        return self.repeat * (self.rounds + (self.extra >= 0))


def choose(
    folders: list[Path],
    reports: list[CategoryReport],
    repeats: list[int],
    val_fraction: float,
    seed: int,
    order: Buckets,
) -> list[list[bytes]]:
    """Chooses rows from the notes in ``folders``, and gives every copy a random place in ``order``.

    ``reports`` and ``repeats`` are those of CATEGORIES: the targets are read from the reports, and
    all that is decided is counted in them. Returns notes of some training rows for each of them.
    """
    boundary = int(val_fraction * 2**64).to_bytes(8, "big")
    only_held_out: list[set[bytes]] = [
        set() for _ in CATEGORIES
    ]  # as long as there is nothing else
    for note in distinct(folders):
        number, document = note[8], note[-8:]
        report = reports[number]
        if document < boundary:
            if report.held_out == report.distinct:
                only_held_out[number].add(document)
            report.held_out += 1
        report.distinct += 1

    quotas = []
    for report, repeat, kept in zip(reports, repeats, only_held_out, strict=True):
        if report.held_out < report.distinct:
            kept.clear()
        else:  # a handful of rows, all on the validation side: they are needed for training
            report.held_out = 0
        different = report.distinct - report.held_out
        target = different if report.target is None else report.target
        report.duplicates = report.read - report.distinct
        report.rows = repeat * target if different else 0
        report.repeats = report.rows - min(target, different)
        most = min(MAX_VALIDATION_ROWS, ceil(val_fraction * target))
        quotas.append(Quota(*divmod(target, max(1, different)), repeat, most, kept))

    random = Random(seed)
    in_training = set[bytes]().union(*only_held_out)
    for note in distinct(folders):
        number, document = note[8], note[-8:]
        quota = quotas[number]
        validation = document < boundary and document not in quota.kept
        if not validation:
            copies = quota.copies()
            if copies and len(quota.sample) < SAMPLE_ROWS:
                quota.sample.append(note)
        elif quota.validation and document not in in_training:
            copies = 1
            quota.validation -= 1
            reports[number].validation_rows += 1
        else:
            continue
        for _ in range(copies):
            order.add(random.randbytes(8) + bytes([validation]) + note[8:-8])
    return [quota.sample for quota in quotas]


def distinct(folders: list[Path]) -> Iterator[bytes]:
    """The notes in order, each content once in a category."""
    previous = b""
    for notes in in_order(folders, NOTE.size, range(256)):
        for note in notes:
            if note[:9] != previous:  # content, category
                previous = note[:9]
                yield note
