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
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import msgspec

from minillm.data.formats import convert, format_of, present
from minillm.data.rows import BadRow, Raw, Row, kind_of
from minillm.errors import UserError

if TYPE_CHECKING:
    import pyarrow

MAX_ROW_BYTES = 16 << 20
"""Longest row that is read, 16 MiB; a longer one is passed over and reported."""
TOO_LONG = f"the row is longer than {MAX_ROW_BYTES >> 20} MiB"
_BOM = b"\xef\xbb\xbf"
_decoder = msgspec.json.Decoder()
_array_decoder = msgspec.json.Decoder(list[msgspec.Raw])


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


def decode(data: bytes) -> Any:
    """One JSON value of at most MAX_ROW_BYTES. Raises BadRow."""
    if len(data) > MAX_ROW_BYTES:
        raise BadRow(TOO_LONG)
    return _parse(data, _decoder)


def _parse(data: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    try:
        return decoder.decode(data)
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
    if line.strip() in (b"[", b"{"):
        raise BadRow("here begins a JSON document of many lines: `minillm import` reads it")
    raws = unfold(decode(line))
    if len(raws) != 1:
        raise BadRow(f"{len(raws)} rows in one line: `minillm import` gives each its own")
    return raws[0], convert(raws[0])


class _Paragraph(msgspec.Struct):
    context: str
    qas: list[Raw]


class _Article(msgspec.Struct):
    paragraphs: list[_Paragraph]
    title: Any = None


def unfold(value: Any) -> list[Raw]:
    """The rows in one JSON value, at least one.

    That is itself, if its fields are those of a format. An array holds rows, bare or in ``data``;
    nanochat's array of messages is one row. In reading comprehension each question is a row: SQuAD
    nests ``{"data": [{"title", "paragraphs": [{"context", "qas": [question, ...]}]}]}``, C3
    ``[[line, ...], [question, ...], id]``.

    Raises BadRow.
    """
    if type(value) is dict:
        nested = type(value.get("data")) is list and not _is_row(value)
        items = _objects(value["data"], "data") if nested else [value]
    elif type(value) is not list:
        raise BadRow(f"a row must be an object, not {kind_of(value)}")
    elif len(value) > 1 and type(value[0]) is list:
        context, questions, *rest = value
        shared = {"id": rest[0] if rest else None, "context": context}
        items = [{**question, **shared} for question in _objects(questions, "C3's questions")]
    else:
        items = _objects(value, "the array")
        if items and ("role" in items[0] or {"from", "value"} <= items[0].keys()):
            items = [{"messages": items}]
    rows: list[Raw] = []
    for item in items:
        is_article = "paragraphs" in item and not _is_row(item)
        rows += _questions(item) if is_article else [item]
    if not rows:
        raise BadRow("there are no rows in it")
    return rows


def _is_row(value: Raw) -> bool:
    try:
        format_of(tuple(present(value)))
    except BadRow:
        return False
    return True


def _questions(article: Raw) -> list[Raw]:
    try:
        read = msgspec.convert(article, _Article)
    except msgspec.ValidationError as error:
        raise BadRow(f"not an article of SQuAD: {error}") from None
    return [
        {**question, "title": read.title, "context": paragraph.context}
        for paragraph in read.paragraphs
        for question in paragraph.qas
    ]


def _objects(value: Any, name: str) -> list[Raw]:
    """The value, if it is an array of objects. Raises BadRow."""
    if type(value) is not list:
        raise BadRow(f"{name} must be an array, not {kind_of(value)}")
    for i, item in enumerate(value):
        if type(item) is not dict:
            raise BadRow(f"{name}[{i}] must be an object, not {kind_of(item)}")
    return value


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
    """JSON Lines; or a document, which is an array of rows or one object. Either suffix will do."""
    head = [_ends(entry.raw) for entry in islice(_lines(path), 2)]
    if path.suffix.lower() == ".json":
        is_document = len(head) < 2 or head[0] not in (b"{}", b"[]")
    else:  # where a row that is cut off must not be taken for the beginning of a document
        opening = (b"[", b"{", b"[{", b"[,")
        is_document = head == [b"[..."] or (bool(head) and head[0] in opening)
    if not is_document:
        yield from _lines(path)
        return
    data = path.read_bytes().removeprefix(_BOM)
    if not data.strip():
        return
    is_array = data.lstrip().startswith(b"[")
    try:
        document = _parse(data, _array_decoder if is_array else _decoder)
    except BadRow as error:
        at = re.search(r"\(byte (\d+)\)", str(error))
        line = 1 + data.count(b"\n", 0, int(at[1]) if at else len(data))
        lost = "; no row of the array is read" if is_array else ""
        yield Entry(line, len(data), data[:800], f"{error}{lost}")
        return
    if not is_array:
        yield Entry(1, len(data), document)
        return
    line, end = 1, 0
    for item in map(bytes, document):
        start = data.index(item, end)
        line += data.count(b"\n", end, start)
        end = start + len(item)
        yield Entry(line, end, item)
        line += item.count(b"\n")


def _ends(line: bytes) -> bytes:
    """A line's first and last character, "..." for an end that is out of reach."""
    line = line.strip()
    return line[:1] + (b"..." if len(line) > MAX_ROW_BYTES else line[1:][-1:])


_INNER = re.compile(r'(?<=[^"\r\n])[^"\r\n]+(?=[^"\r\n])')
"""What stands between quotes, but for its first and last character."""


class _CsvLines:
    """The lines of a CSV file, for ``csv.reader``.

    Of a row longer than MAX_ROW_BYTES only what shows where it ends is kept, so that a quote that
    is never closed fills no memory, and what it holds does not become rows.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.size = 0
        """Characters of the row so far; to be set to 0 before each row."""
        self.is_cut = False
        """Whether the file ended in the middle of a row."""

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        piece = self._file.readline(MAX_ROW_BYTES)
        if not piece:
            self.is_cut = self.size > 0
            raise StopIteration
        line = ""
        while piece:
            if self.size <= MAX_ROW_BYTES:
                line += piece
            elif line or '"' in piece:  # a line that only goes on with a quoted text is left out
                line += _INNER.sub("", piece)
            self.size += len(piece)
            piece = "" if piece[-1] in "\r\n" else self._file.readline(1 << 20)
        return line


def _csv(path: Path) -> Iterator[Entry]:
    # Bytes that are not UTF-8 become lone surrogates, so that only their own row is lost.
    with (
        path.open("rb") as binary,
        io.TextIOWrapper(binary, "utf-8-sig", errors="surrogateescape", newline="") as file,
    ):
        csv.field_size_limit(2**31 - 1)  # the process's; here it is the row that has a limit
        lines = _CsvLines(file)
        rows = csv.reader(lines)
        header: list[str] = []
        while True:
            line, problem, lines.size = rows.line_num + 1, "", 0
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
            if lines.is_cut:
                problem = "broken CSV: a quote that is opened here is never closed"
            elif lines.size > MAX_ROW_BYTES:
                cells, problem = [cell[:200] for cell in cells], TOO_LONG
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
        raise UserError(f"{path}: parquet needs pyarrow: pip install -e '.[hub]'") from None
    number, size = 0, path.stat().st_size
    try:
        table = parquet.ParquetFile(path)
        labels = _class_labels(table.schema_arrow.metadata or {})
        for batch in table.iter_batches(batch_size=1024):
            columns = map(_column_values, batch.columns)
            for values in zip(*columns, strict=True):
                number += 1
                raw = present(dict(zip(batch.schema.names, values, strict=True)))
                for name, words in labels.items():
                    if type(raw.get(name)) is int and 0 <= raw[name] < len(words):
                        raw[name] = words[raw[name]]
                bad = [f"{name}: {value}" for name, value in raw.items() if type(value) is BadRow]
                # JSON makes text of dates and decimals, and null of a number that is none.
                line = msgspec.json.encode(raw, enc_hook=str)
                yield Entry(number, size, line, bad[0] if bad else "")
    except (pyarrow.ArrowException, ValueError) as error:
        yield Entry(number + 1, size, b"", f"broken parquet: {' '.join(str(error).split())}")


def _column_values(column: pyarrow.Array) -> list[Any]:
    """The values of a column; in the place of one that cannot be read, a BadRow."""
    import pyarrow

    try:
        values: list[Any] = column.cast(_readable(column.type)).to_pylist()
        return values
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        if len(column) == 1:
            return [BadRow(str(error))]
        return [value for i in range(len(column)) for value in _column_values(column.slice(i, 1))]


def _readable(kind: pyarrow.DataType) -> pyarrow.DataType:
    """The type to read a column as: bytes as UTF-8, and as text too what has nanoseconds, which
    Python's own times cannot hold.
    """
    import pyarrow

    is_a = pyarrow.types
    if is_a.is_dictionary(kind):
        return _readable(kind.value_type)
    if is_a.is_list(kind) or is_a.is_large_list(kind) or is_a.is_fixed_size_list(kind):
        return pyarrow.list_(_readable(kind.value_type))
    if is_a.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        return pyarrow.struct([field.with_type(_readable(field.type)) for field in fields])
    if is_a.is_map(kind):
        return pyarrow.map_(_readable(kind.key_type), _readable(kind.item_type))
    if getattr(kind, "unit", "") == "ns" or "binary" in str(kind):
        return pyarrow.string()
    return kind


class _Feature(msgspec.Struct):
    type: str = msgspec.field(name="_type", default="")
    names: list[str] = []


class _Features(msgspec.Struct):
    features: dict[str, _Feature | list[Any]] = {}


class _Notes(msgspec.Struct):
    info: _Features = msgspec.field(default_factory=_Features)


def _class_labels(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Columns that hold the number of a label, with the labels, as ``datasets`` notes them."""
    try:
        notes = msgspec.json.decode(metadata.get(b"huggingface", b"{}"), type=_Notes)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return {
        name: feature.names
        for name, feature in notes.info.features.items()
        if isinstance(feature, _Feature) and feature.type == "ClassLabel"
    }


_READERS: dict[str, Callable[[Path], Iterator[Entry]]] = {
    ".jsonl": _json,
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
