"""Files of any known format → rows, one at a time.

``read`` takes a whole file: JSON Lines, a JSON document, CSV or parquet; ``parse_line`` takes one
line of JSON Lines. What cannot be used is never skipped in silence: ``BadRow`` says why, and the
caller stops or sets the row aside.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from minillm.data.formats import canonical, convert
from minillm.data.rows import BadRow, Chat, Message, Pair, Raw, Row, Text, kind_of, plain_text
from minillm.errors import UserError

__all__ = [
    "MAX_ROW_BYTES",
    "SUFFIXES",
    "BadRow",
    "Chat",
    "Entry",
    "Message",
    "Pair",
    "Quarantined",
    "Raw",
    "Record",
    "Row",
    "Text",
    "canonical",
    "convert",
    "decode",
    "entries",
    "parse_line",
    "plain_text",
    "read",
]

MAX_ROW_BYTES = 16 << 20
"""Longest row that is read, 16 MiB; a longer one is passed over and reported."""
_BOM = b"\xef\xbb\xbf"
_decoder = msgspec.json.Decoder()
_BRACKETS = re.compile(rb'[\[\]{},]|"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
"""What the structure of JSON hangs on; strings too, so that brackets in them do not count."""


class Record(NamedTuple):
    """A row that can be used."""

    line: int
    """Where it begins, from 1: the line of the file; in parquet, which has no lines, the row."""
    row: Row
    """What it means."""
    raw: Raw
    """How it stands in the file."""


class Quarantined(msgspec.Struct):
    """A row that cannot be used, as one line of ``quarantine.jsonl``."""

    path: str
    line: int
    reason: str
    raw: str
    """The row's first 200 characters."""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


# --- From values to rows --------------------------------------------------------------------------


def decode(data: bytes, limit: int = MAX_ROW_BYTES) -> Any:
    """One JSON value of at most ``limit`` bytes. Raises BadRow."""
    if len(data) > limit:
        raise BadRow(f"the row is longer than {limit >> 20} MiB")
    try:
        return _decoder.decode(data)
    except UnicodeDecodeError as error:
        raise BadRow(f"not UTF-8 (byte {error.object[error.start]:#04x})") from None
    except msgspec.DecodeError as error:
        raise BadRow(f"broken JSON: {error}") from None
    except RecursionError:
        raise BadRow("broken JSON: nested too deeply") from None


def parse_line(line: bytes) -> tuple[Raw, Row]:
    """One line of JSON Lines in any format: the row as it stands, and what it means.

    Raises BadRow.
    """
    raws = unfold(decode(line))
    if len(raws) != 1:
        raise BadRow(f"one row was expected, not {len(raws)}")
    return raws[0], convert(raws[0])


class _Paragraph(msgspec.Struct):
    context: str
    qas: list[Raw]


class _Article(msgspec.Struct):
    paragraphs: list[_Paragraph]
    title: Any = None


def unfold(value: Any) -> list[Raw]:
    """The rows in one JSON value: itself; or in reading comprehension, one for each question.

    SQuAD nests ``{"data": [{"title", "paragraphs": [{"context", "qas": [question, ...]}]}]}``, C3
    ``[[line, ...], [question, ...], id]``; nanochat writes a bare list of messages. Raises BadRow.
    """
    try:
        if type(value) is dict:
            if "paragraphs" not in value and type(value.get("data")) is not list:
                return [value]
            articles = msgspec.convert(value.get("data", [value]), list[_Article])
            return [
                {**question, "title": article.title, "context": paragraph.context}
                for article in articles
                for paragraph in article.paragraphs
                for question in paragraph.qas
            ]
        if type(value) is list:
            if len(value) < 2 or type(value[0]) is not list:
                return [{"messages": value}]
            context, questions, *rest = value
            shared = {"id": rest[0] if rest else None, "context": context}
            return [{**question, **shared} for question in msgspec.convert(questions, list[Raw])]
    except msgspec.ValidationError as error:
        raise BadRow(f"neither SQuAD nor C3: {error}") from None
    raise BadRow(f"a row must be an object, not {kind_of(value)}")


# --- From files to values -------------------------------------------------------------------------


class Entry(NamedTuple):
    """A row as it stands in a file, before anyone asks what it means."""

    line: int
    """Where it begins, from 1: the line of the file; in parquet, which has no lines, the row."""
    end: int
    """Bytes of the file read so far, for progress bars."""
    raw: Any
    """The row; JSON that is not decoded yet, as bytes."""
    problem: str = ""
    """Why it cannot be read."""

    def rejected(self, path: Path, reason: str) -> Quarantined:
        """This row for the quarantine."""
        text = self.raw if isinstance(self.raw, bytes) else msgspec.json.encode(self.raw)
        excerpt = text[:800].decode("utf-8", "replace").strip(" \r\n")[:200]
        return Quarantined(str(path), self.line, reason, excerpt)


def _lines(path: Path) -> Iterator[Entry]:
    """The lines that are not blank, without a BOM, one at a time.

    Of a line longer than MAX_ROW_BYTES only the beginning is kept, for ``decode`` to reject.
    """
    with path.open("rb") as file:
        number = end = 0
        while line := file.readline(MAX_ROW_BYTES + 1):
            rest = line
            while not rest.endswith(b"\n") and (rest := file.readline(1 << 20)):
                end += len(rest)
            number, end = number + 1, end + len(line)
            if number == 1:
                line = line.removeprefix(_BOM)
            if line and not line.isspace():
                yield Entry(number, end, line)


def _json(path: Path) -> Iterator[Entry]:
    """An array of rows, one object, or JSON Lines under the wrong name."""
    head = [entry.raw.strip() for entry in islice(_lines(path), 2)]
    if len(head) == 2 and (head[0][:1] + head[0][-1:]) in (b"{}", b"[]"):
        yield from _lines(path)
        return
    data = path.read_bytes().removeprefix(_BOM)
    if data.lstrip().startswith(b"["):
        yield from _array(data)
    elif data.strip():
        try:
            yield Entry(1, len(data), decode(data, limit=len(data)))
        except BadRow as error:
            at = re.search(r"\(byte (\d+)\)", str(error))
            line = 1 + data.count(b"\n", 0, int(at[1]) if at else len(data))
            yield Entry(line, len(data), data[:800], str(error))


def _array(data: bytes) -> Iterator[Entry]:
    """The items of a JSON array, not decoded yet: a broken one spoils no other."""
    depth, start, line = 0, 0, 1
    for match in _BRACKETS.finditer(data):
        mark = match[0]
        if mark in (b"[", b"{"):
            depth += 1
            item_ends = depth == 1  # only white space, before the array
        elif mark in (b"]", b"}"):
            depth -= 1
            item_ends = depth == 0
        else:
            item_ends = depth == 1 and mark == b","
        if not item_ends:
            continue
        item = data[start : match.start()]
        if item.strip() or mark == b",":
            yield Entry(line + _lines_before(item), match.end(), item.strip())
        line += item.count(b"\n")
        start = match.end()
        if depth == 0:
            break
    rest = data[start:]
    if rest.strip():
        problem = "the array does not end" if depth else "something follows the array"
        first = line + _lines_before(rest)
        yield Entry(first, len(data), rest.strip()[:800], f"broken JSON: {problem}")


def _lines_before(text: bytes) -> int:
    """How many blank lines a text begins with."""
    return text.count(b"\n", 0, len(text) - len(text.lstrip()))


def _csv(path: Path) -> Iterator[Entry]:
    # Bytes that are not UTF-8 become lone surrogates, so that only their own row is lost.
    with (
        path.open("rb") as binary,
        io.TextIOWrapper(binary, "utf-8-sig", errors="surrogateescape", newline="") as file,
    ):
        rows = csv.reader(file)
        header: list[str] = []
        while True:
            line, problem = rows.line_num + 1, ""
            try:
                cells = next(rows)
                "".join(cells).encode()
            except StopIteration:
                return
            except csv.Error as error:
                cells, problem = [], f"broken CSV: {error}"
            except UnicodeEncodeError:
                problem = "not UTF-8"
                cells = [cell.encode("utf-8", "replace").decode() for cell in cells]
            if not header and not problem:
                header = [name or "id" for name in cells]  # pandas gives its index no name
                continue
            if not cells and not problem:
                continue
            if len(cells) != len(header):
                problem = problem or f"{len(cells)} fields, the header has {len(header)}"
            raw = {"subject": path.stem, **dict(zip(header, cells, strict=False))}
            yield Entry(line, binary.tell(), raw, problem)


def _parquet(path: Path) -> Iterator[Entry]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(f"{path}: parquet needs pyarrow: pip install 'minillm[hub]'") from None
    number, size = 0, path.stat().st_size
    try:
        table = parquet.ParquetFile(path)
        labels = _class_labels(table.schema_arrow.metadata or {})
        for batch in table.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                raw = {name: value for name, value in row.items() if value is not None}
                for name, words in labels.items():
                    if type(raw.get(name)) is int and 0 <= raw[name] < len(words):
                        raw[name] = words[raw[name]]
                yield Entry(number, size, raw)
    except (pyarrow.ArrowException, ValueError) as error:
        yield Entry(number + 1, size, b"", f"broken parquet: {error}")


def _class_labels(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Columns that hold the number of a label, with the labels, as ``datasets`` notes them."""
    info = msgspec.json.decode(metadata.get(b"huggingface", b"{}"))
    features = info.get("info", {}).get("features", {})
    return {
        name: feature["names"]
        for name, feature in features.items()
        if type(feature) is dict and feature.get("_type") == "ClassLabel"
    }


_READERS: dict[str, Callable[[Path], Iterator[Entry]]] = {
    ".jsonl": _lines,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
SUFFIXES = tuple(_READERS)
"""Files that can be read."""


def entries(path: Path) -> Iterator[Entry]:
    """Every row of a file, also those that cannot be used; a file without rows has one of these.

    Raises UserError for a file that cannot be opened or is of no known kind.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: unknown kind of file, not one of {', '.join(SUFFIXES)}")
    entry = None
    try:
        for entry in reader(path):
            if entry.problem:
                yield entry
                continue
            raw = entry.raw
            try:
                raws = unfold(decode(raw) if type(raw) is bytes else raw)
            except BadRow as error:
                yield entry._replace(problem=str(error))
                continue
            for raw in raws:
                yield Entry(entry.line, entry.end, raw)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    if entry is None:
        yield Entry(1, 0, b"", "there are no rows in this file")


def read(path: Path, on_bad: Callable[[Quarantined], None] | None = None) -> Iterator[Record]:
    """The rows of a file in any known format, in order.

    JSON Lines, CSV and parquet are read piece by piece: memory does not grow with the file. A JSON
    array is held as bytes, and its rows are decoded one by one.

    A row that cannot be used goes to ``on_bad``; without it, the first one raises UserError with
    ``file:line: reason``. So does any file that cannot be opened or is of no known kind.
    """
    for entry in entries(path):
        try:
            if entry.problem:
                raise BadRow(entry.problem)
            row = convert(entry.raw)
        except BadRow as error:
            bad = entry.rejected(path, str(error))
            if on_bad is None:
                raise UserError(str(bad)) from None
            on_bad(bad)
        else:
            yield Record(entry.line, row, entry.raw)
