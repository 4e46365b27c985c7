"""The two passes over the data that the mix is made of; their memory does not grow with the data.

``ScanJob`` reads and checks every row once and leaves a note of 34 bytes: where the row stands and
what its content hashes to. By the notes alone ``mix`` chooses. ``WriteJob`` then fetches
the chosen rows by their places, in shuffled order, and writes them.

Notes wait on disk in 256 files by their first byte. Since that is the byte of a hash, the files are
about equal and each is small enough to be sorted in memory; file after file, all are in order.

A job says all that there is to know, so that processes can share the work (``workers``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO

import msgspec

from minillm.data.categories import CATEGORIES, category_of
from minillm.data.formats import canonical
from minillm.data.readers import MAX_ROW_BYTES, Quarantined, decode, parse_line
from minillm.data.rows import BadRow, Chat, Message, Raw, Row, Text
from minillm.errors import UserError
from minillm.files import encode_line
from minillm.microworld.identity import Persona, fill

OUTPUTS = tuple(
    f"{stage}_chinese{suffix}.jsonl"
    for stage in ("pretrain", "sft", "dpo")
    for suffix in ("", "_val")
)
MAX_SOURCES = 1000
"""A category with more different source tags than this is not counted by source."""
OPEN_FILES = 64
"""Most input files that are open at once in the second pass."""

NOTE = struct.Struct(">8sBLQL?8s")
"""Content's hash, category, file, offset, length, ready, document's hash: equal contents are
neighbours when sorted. ``ready``: the line can be written without being understood again."""
ORDER = struct.Struct(">Q?BLQL?")
"""Place in the shuffled output, for validation; then as in NOTE category, file, ... ready."""

_encode = msgspec.json.Encoder().encode


class Buckets:
    """Records of one size on disk, in 256 files by their first byte."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._waiting = [bytearray() for _ in range(256)]

    def add(self, record: bytes) -> None:
        waiting = self._waiting[record[0]]
        waiting += record
        if len(waiting) >= 1 << 15:
            self._write(record[0])

    def close(self) -> None:
        for first_byte in range(256):
            self._write(first_byte)

    def _write(self, first_byte: int) -> None:
        if self._waiting[first_byte]:
            with (self.folder / f"{first_byte:02x}").open("ab") as file:
                file.write(self._waiting[first_byte])
            self._waiting[first_byte].clear()


def in_order(folders: Iterable[Path], size: int, buckets: Iterable[int]) -> Iterator[list[bytes]]:
    """The sorted records of ``size`` bytes of all folders, bucket after bucket."""
    folders = list(folders)
    for bucket in buckets:
        paths = [folder / f"{bucket:02x}" for folder in folders]
        data = b"".join(path.read_bytes() for path in paths if path.exists())
        yield sorted([data[i : i + size] for i in range(0, len(data), size)])


# --- Rows -----------------------------------------------------------------------------------------


class InputFile(msgspec.Struct):
    """A file to read."""

    path: str
    category: str | None
    """None: each row's own kind decides."""
    source: str
    """Tag of rows that carry none."""
    size: int
    """Bytes."""


def load(line: bytes, category: str | None, persona: Persona) -> tuple[str, Raw, Row]:
    """A row's category, the row as it stands, and what it means. Raises BadRow."""
    raw, row = parse_line(line)
    category = category_of(row, category)
    if category == "identity" and b"{{" in line:
        if isinstance(row, Chat):
            row = Chat([Message(m.role, fill(m.content, persona)) for m in row.messages])
        elif isinstance(row, Text):
            row = Text(fill(row.text, persona))
    return category, raw, row


def fingerprints(row: Row, seed: int) -> tuple[bytes, bytes]:
    """64-bit hashes of a row's content (roles and words, with the seed) and of its document.

    By the first, rows come in random order and duplicates are neighbours. The second says whether a
    document is for training or for validation, whatever its category, other fields and the seed.
    The document of a conversation is its text as pretraining reads it; a pair's is that of its
    chosen conversation.
    """
    if isinstance(row, Text):
        text, shape, rejected = row.text, None, None
    else:
        turns, rejected = (
            (row.messages, None) if isinstance(row, Chat) else (row.chosen, row.rejected)
        )
        text = "\n".join([turn.content for turn in turns])
        shape = [(turn.role, len(turn.content)) for turn in turns]
    hashed = blake2b(text.encode(), digest_size=8)
    document = hashed.digest()
    hashed.update(_encode((seed, shape, rejected)))
    return hashed.digest(), document


def is_ready(line: bytes, raw: Raw, row: Row) -> bool:
    """Whether a line already is what is to be written."""
    fields = msgspec.to_builtins(row).items()
    return line.startswith(b"{") and all(raw.get(name) == value for name, value in fields)


# --- First pass -----------------------------------------------------------------------------------


class Range(msgspec.Struct):
    """The lines that begin in bytes [start, end) of a file."""

    number: int
    file: int
    start: int
    end: int


class Scanned(msgspec.Struct):
    """What a range held."""

    number: int
    lines: int = 0
    bad: int = 0
    rows: dict[str, int] = msgspec.field(default_factory=dict)
    """Good ones by category."""


class Bad(msgspec.Struct):
    """A bad row; its line is counted from the beginning of the range."""

    range: int
    row: Quarantined


class ScanJob(msgspec.Struct, tag="scan"):
    """Reads ranges of files."""

    files: list[InputFile]
    ranges: list[Range]
    folder: str
    """Gets notes/* and bad.jsonl."""
    seed: int
    persona: Persona
    strict: bool
    """Stop at the first bad row."""

    def run(self) -> list[Scanned]:
        notes = Buckets(Path(self.folder) / "notes")
        results: list[Scanned] = []
        with (Path(self.folder) / "bad.jsonl").open("wb") as bad_rows:
            for part in self.ranges:
                results.append(self._scan(part, notes, bad_rows))
                if self.strict and results[-1].bad:
                    break
        notes.close()
        return results

    def _scan(self, part: Range, notes: Buckets, bad_rows: IO[bytes]) -> Scanned:
        result = Scanned(part.number, rows=dict.fromkeys(CATEGORIES, 0))
        source = self.files[part.file]
        with open(source.path, "rb") as file:
            for offset, line in lines_between(file, part.start, part.end):
                result.lines += 1
                if line.isspace():
                    continue
                try:
                    category, raw, row = load(line, source.category, self.persona)
                except BadRow as error:
                    start = line[:1000].decode(errors="replace").strip()[:200]
                    bad = Quarantined(source.path, result.lines, str(error), start)
                    bad_rows.write(encode_line(Bad(part.number, bad)))
                    result.bad += 1
                    if self.strict:
                        break
                    continue
                content, document = fingerprints(row, self.seed)
                ready = is_ready(line, raw, row)
                number = CATEGORIES.index(category)
                notes.add(NOTE.pack(content, number, part.file, offset, len(line), ready, document))
                result.rows[category] += 1
        return result


def lines_between(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of the lines that begin in bytes [start, end), without a BOM.

    Of a line longer than MAX_ROW_BYTES only the beginning is given, for ``parse_line`` to reject.
    """
    position = start
    if start:  # the line that byte start - 1 belongs to began in an earlier range
        position = file.seek(start - 1)
        while position < end and (rest := file.readline(1 << 20)):
            position += len(rest)
            if rest.endswith(b"\n"):
                break
    while position < end and (line := file.readline(MAX_ROW_BYTES + 1)):
        offset, position = position, position + len(line)
        rest = line
        while not rest.endswith(b"\n") and (rest := file.readline(1 << 20)):
            position += len(rest)
        if offset == 0 and line.startswith(b"\xef\xbb\xbf"):
            offset, line = 3, line[3:]
        yield offset, line


# --- Second pass ----------------------------------------------------------------------------------


class Written(msgspec.Struct):
    """What was written."""

    outputs: dict[str, int]
    """Rows of each of OUTPUTS."""
    sizes: dict[str, int]
    """Bytes of the training rows as they were read, by category."""
    sources: dict[str, dict[str, int] | None]
    """Training rows by source tag, by category; None: more than MAX_SOURCES tags."""

    def count(self, category: str, source: str, size: int) -> None:
        """Counts a training row."""
        self.sizes[category] += size
        counts = self.sources[category]
        if counts is not None:
            counts[source] = counts.get(source, 0) + 1
            if len(counts) > MAX_SOURCES:
                self.sources[category] = None

    def add(self, other: Written) -> None:
        for name, rows in other.outputs.items():
            self.outputs[name] += rows
        for category, size in other.sizes.items():
            self.sizes[category] += size
        for category, sources in other.sources.items():
            mine = self.sources[category]
            if mine is None or sources is None or len(mine | sources) > MAX_SOURCES:
                self.sources[category] = None
                continue
            for source, rows in sources.items():
                mine[source] = mine.get(source, 0) + rows


class WriteJob(msgspec.Struct, tag="write"):
    """Writes chosen rows."""

    files: list[InputFile]
    folder: str
    """Gets OUTPUTS."""
    order: str
    """Folder of ORDER records."""
    first: int
    end: int
    """Buckets of them to write: first, first + 1, ... end - 1."""
    persona: Persona

    def run(self) -> Written:
        result = Written(
            outputs=dict.fromkeys(OUTPUTS, 0),
            sizes=dict.fromkeys(CATEGORIES, 0),
            sources={category: {} for category in CATEGORIES},
        )
        with Fetcher(self.files) as fetch, ExitStack() as stack:
            streams = {
                name: stack.enter_context((Path(self.folder) / name).open("wb", buffering=1 << 18))
                for name in OUTPUTS
            }
            buckets = in_order([Path(self.order)], ORDER.size, range(self.first, self.end))
            for record in chain.from_iterable(buckets):
                _, validation, number, file, offset, length, ready = ORDER.unpack(record)
                category = CATEGORIES[number]
                try:
                    line = fetch(file, offset, length)
                    row: Raw = decode(line) if ready else self._canonical(line, category)
                except BadRow:
                    path = self.files[file].path
                    raise UserError(f"{path}: changed while it was read; run again") from None
                if row.get("source") is None:
                    row["source"] = self.files[file].source
                if not validation:
                    result.count(category, str(row["source"]), length)
                suffix = "_val" if validation else ""
                for stage, out in stage_rows(row):
                    name = f"{stage}_chinese{suffix}.jsonl"
                    streams[name].write(encode_line(out))
                    result.outputs[name] += 1
        return result

    def _canonical(self, line: bytes, category: str) -> Raw:
        _, raw, row = load(line, category, self.persona)
        out: Raw = msgspec.to_builtins(canonical(raw, row))
        return out


def stage_rows(row: Raw) -> list[tuple[str, Raw]]:
    """(stage, row to write) for every stage that learns from a canonical row."""
    if row.get("chosen") is not None and row.get("rejected") is not None:
        return [("dpo", row)]
    if row.get("messages") is None:
        return [("pretrain", row)]
    # The pretraining file has one format: there the text stands in the place of the messages.
    pretrain = {"text": "", **row}
    pretrain["text"] = "\n".join([turn["content"] for turn in pretrain.pop("messages")])
    return [("sft", row), ("pretrain", pretrain)]


class Fetcher:
    """Pieces of the input files by their place."""

    def __init__(self, files: Sequence[InputFile]) -> None:
        self._files = files
        self._open: dict[int, BinaryIO] = {}

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def __call__(self, file: int, offset: int, length: int) -> bytes:
        stream = self._open.get(file)
        if stream is None:
            if len(self._open) == OPEN_FILES:
                self.__exit__()
            stream = self._open[file] = open(self._files[file].path, "rb", buffering=0)  # noqa: SIM115
        stream.seek(offset)
        return stream.read(length)
