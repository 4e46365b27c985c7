"""The reader's own files: which ones a flag names, and their rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from minillm.data.formats import present
from minillm.data.importer import files_in
from minillm.data.readers import entries
from minillm.data.rows import BadRow, Raw
from minillm.errors import UserError

_T = TypeVar("_T")


def own_files(paths: Sequence[Path], suffixes: tuple[str, ...], flag: str) -> dict[Path, str]:
    """The files that a flag names, those in its folders included, each once; and names for a table,
    as long as is needed to tell them apart.

    Raises:
        UserError: there is no such file, or it is of another kind; a folder has none.
    """
    files: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            files |= dict.fromkeys(files_in(path, suffixes))
        elif not path.is_file():
            raise UserError(f"--{flag}: {path}: no such file or folder")
        elif path.suffix.lower() not in suffixes:
            raise UserError(f"--{flag}: {path}: unknown kind of file, not {', '.join(suffixes)}")
        else:
            files[path] = None
    if len({file.name for file in files}) == len(files):
        return {file: file.name for file in files}
    folder = os.path.commonpath([file.absolute().parent for file in files])
    return {file: file.absolute().relative_to(folder).as_posix() for file in files}


def own_rows(
    path: Path, make: Callable[[Path, int, Raw], _T], advice: Callable[[str, Any], str]
) -> list[_T]:
    """What ``make`` makes of each row of a file, of its line and its fields; it raises BadRow.

    A row that cannot be used ends it: scores of a part of a test would not be those of the test.

    Args:
        advice: a row's problem, and the row as it stands → what to do about it.

    Raises:
        UserError: a row cannot be used, or there are none; names file, line and field, and says
            what to do.
    """
    made = []
    for entry in entries(path):
        try:
            if entry.problem:
                raise BadRow(entry.problem)
            made.append(make(path, entry.line, present(entry.raw)))
        except BadRow as error:
            what = advice(str(error), entry.raw)
            raise UserError(f"{path}:{entry.line}: {error}; {what}") from None
    return made


def general_advice(problem: str) -> str:
    """What to do about a row that cannot be used, whatever it was to be."""
    if "UTF-8" in problem:
        return "save the file as UTF-8"
    if problem.startswith("there are no rows"):
        return "name a file that has some"
    return "correct this row or take it out"
