"""Which files a path of training rows means: a file, a folder of shards, or a pattern of them.

A shard is a file of rows like any other. All shards are read as if they were one file, in the
order of their names; those whose name ends in ``_val`` are held out for validation.
"""

from __future__ import annotations

from glob import glob
from pathlib import Path
from typing import NamedTuple

from minillm.data.readers import SUFFIXES
from minillm.errors import UserError


class Shards(NamedTuple):
    """Files of rows, each list in the order of their names."""

    train: list[Path]
    """To train on; at least one."""
    validation: list[Path]
    """Never trained on; perhaps none."""


def find_shards(data_path: Path) -> Shards:
    """The files that ``--data_path`` means.

    That is a file; all files of rows in a folder, but not in folders below it; or all that a
    pattern like ``shards/**/part-*.jsonl`` matches. Held out are, of a folder or pattern, the files
    whose name ends in ``_val``, and in any case ``NAME_val.jsonl`` beside ``NAME.jsonl``.

    Raises:
        UserError: there is no such file, nothing matches, all that does is for validation, or a
            folder holds a file of rows that is compressed or not yet complete.
    """
    if data_path.is_file():
        train = [data_path]
    else:
        found = _in_folder(data_path) if data_path.is_dir() else _matching(data_path)
        train = [path for path in found if not path.stem.endswith("_val")]
        if not train:
            raise UserError(f"{data_path}: only files for validation ({found[0].name}, ...)")
    beside = [path for path in map(validation_path, train) if path.is_file()]
    held_out = [] if train == [data_path] else [path for path in found if path not in train]
    return Shards(train, sorted({*beside, *held_out}))


def validation_path(data_path: Path) -> Path:
    """``sft_chinese.jsonl`` → ``sft_chinese_val.jsonl``, which the data mix writes beside it."""
    return data_path.with_name(f"{data_path.stem}_val{data_path.suffix}")


def _in_folder(folder: Path) -> list[Path]:
    """What looks like a file of rows, be it compressed: to leave that out would lose its rows."""
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and not path.name.startswith(".")
        and any(suffix.lower() in SUFFIXES for suffix in path.suffixes)
    ]
    if not found:
        raise UserError(
            f"{folder}: no file of rows ({', '.join(SUFFIXES)}) in this folder; for those in "
            f"folders below it, name a pattern in quotes: '{folder}/**/*.jsonl'"
        )
    for path in found:
        if path.suffix.lower() not in SUFFIXES:
            raise UserError(
                f"{path}: compressed or not complete: unpack it or move it away, or name the other "
                f"shards by a pattern in quotes, as '{folder}/*.jsonl'"
            )
    return found


def _matching(pattern: Path) -> list[Path]:
    if not any(sign in str(pattern) for sign in "*?["):
        raise UserError(f"{pattern}: no such file; `python scripts/build_chinese_mix.py` makes it")
    found = sorted(
        path for path in map(Path, set(glob(str(pattern), recursive=True))) if path.is_file()
    )
    if not found:
        raise UserError(f"{pattern}: no file matches this pattern")
    return found
