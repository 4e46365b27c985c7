"""The data mix: ``data/chinese/*.jsonl`` → the files that the three stages are trained on.

Each category of rows is sampled down or repeated up to its target, so that the proportions hold
whatever data there is. Rows keep their fields and say where they come from (``source``), exact
duplicates count once, and no document that is held out for validation is trained on. What cannot
be used is set aside in ``quarantine.jsonl``, with the reason.

The parts stand in the order in which a row meets them:

    scan    decides what each row means, once, and leaves a note: where it stands, what it hashes to
    choose  decides by the notes alone which rows are written, how often, and in which order
    write   fetches these rows by their places and writes them

Memory holds notes, never the text: some 80 bytes a row, however long the rows are. The same data,
options and seed give the same bytes.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from hashlib import blake2b
from math import ceil
from pathlib import Path
from random import Random
from typing import Annotated, Any, BinaryIO, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from minillm.config import STAGES, Preset, Range, Seed, check_ranges
from minillm.data.categories import CATEGORIES, category_in, category_of
from minillm.data.formats import canonical, convert
from minillm.data.readers import MAX_ROW_BYTES, Quarantined, decode, parse_line
from minillm.data.report import CategoryReport, FileReport, MixReport
from minillm.data.rows import BadRow, Chat, Message, Raw, Row, Text, in_a_chat, plain_text
from minillm.errors import UserError
from minillm.files import encode_line
from minillm.microworld import lessons
from minillm.microworld.identity import Persona, fill

OUTPUTS = tuple(f"{stage}_chinese{end}.jsonl" for stage in STAGES for end in ("", "_val"))
BUILT_IN_ROWS = 20_000
"""Most built-in rows of a category (other than text) that are generated; more are repeats."""
MAX_VALIDATION_ROWS = 2_000
"""Most validation rows of a category."""
TOKEN_SAMPLE_ROWS = 200
"""Rows of a category that its number of tokens is estimated from."""
MAX_SOURCES = 1000
"""A category with more different source tags than this is not counted by source."""
SHORT_BYTES = 400
"""Longest row that may stand before another one in a chat."""
OPEN_FILES = 64
"""Most input files that are open at once while rows are written."""
PIECE = 10_000
"""Notes that are turned from Python objects into an array, or back, at once."""

_Array: TypeAlias = npt.NDArray[Any]
Rows: TypeAlias = Annotated[int, Range(0, 10**9)]
"""How many rows of a category."""
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class MixOptions:
    """Mix DATA_DIR/*.jsonl, files named by their category, into training and validation data."""

    data_dir: Path = Path("data/chinese")
    """Folder of the *.jsonl files to mix; each file's name begins with the category of its rows."""
    out_dir: Path = Path("data/processed")
    """Folder for {pretrain,sft,dpo}_chinese{,_val}.jsonl, quarantine.jsonl and mix_report.json."""
    general: Rows = 460_000
    """Training rows of general dialogue (0: leave them out; likewise for the other categories)."""
    knowledge: Rows = 100_000
    """Training rows of knowledge quizzes."""
    math: Rows = 8_000
    """Training rows of mathematics."""
    identity: Rows = 1_000
    """Training rows about the persona, before --identity_repeat."""
    preference: Rows = 60_000
    """Training pairs of a chosen and a rejected answer."""
    text: Rows | None = None
    """Training texts from text_*.jsonl; None: all of them."""
    built_in: Literal["sample", "none"] = "sample"
    """What stands in where DATA_DIR has no rows of a category: sample rows that come with the
    package, most of them about its micro-world, or none, so that it is left out."""
    built_in_text: Rows = 60_000
    """Built-in texts, which are taken if DATA_DIR has no rows but identity."""
    identity_repeat: Annotated[int, Range(1, 1000)] = 2
    """Times that every identity row comes."""
    identity_in_chats: bool = False
    """After the first time it comes at the end of a chat, behind other conversations, so that the
    model also says who it is when it has been asked other things before."""
    persona_name: str = Persona.name
    """What {{name}} in identity rows is replaced by."""
    persona_author: str = Persona.author
    """What {{author}} in identity rows is replaced by."""
    val_fraction: Annotated[float, Range(0, 0.5)] = 0.01
    """Share of the documents that is held out, of which at most 2,000 a category are written."""
    seed: Seed = 42
    """Decides which rows are sampled, and their order."""
    strict: bool = False
    """Stop at the first bad row instead of setting it aside in quarantine.jsonl."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.data_dir.resolve() == self.out_dir.resolve():
            raise UserError(f"--out_dir and --data_dir must differ, both are {self.out_dir}")

    @property
    def persona(self) -> Persona:
        return Persona(self.persona_name, self.persona_author)

    def target(self, category: str) -> int | None:
        """Training rows before repeats; None: all there are."""
        return self.text if category == "text" else int(getattr(self, category))


MIX_PRESETS: dict[Preset, MixOptions] = {
    "default": MixOptions(),
    # What `minillm download poetry --out_dir data/poetry` writes, and a persona; nothing else that
    # lies in data/chinese.
    "small": MixOptions(
        data_dir=Path("data/poetry"),
        out_dir=Path("data/processed/small"),
        general=20_000,
        knowledge=0,
        math=0,
        identity=150,
        preference=0,
        built_in="none",
    ),
    "tiny": MixOptions(
        out_dir=Path("data/processed/tiny"),
        general=9_000,
        knowledge=9_000,
        math=8_000,
        identity=200,
        identity_in_chats=True,
        preference=1_500,
    ),
    "smoke": MixOptions(
        out_dir=Path("data/processed/smoke"),
        general=400,
        knowledge=100,
        math=50,
        identity=50,
        preference=100,
        text=400,
        built_in_text=400,
        val_fraction=0.05,
    ),
}


def build(options: MixOptions, count_tokens: Callable[[str], int] | None = None) -> MixReport:
    """Mixes the data. Files of OUT_DIR are replaced only when all the new ones are complete.

    ``count_tokens`` is asked about a sample of rows; without it the report has no tokens.

    Raises:
        UserError: a bad row with ``strict``, no rows at all, no space on disk, a file that changes
            meanwhile.
    """
    work = options.out_dir / ".building"
    try:
        work.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(work)  # of a build that was killed
        work.mkdir()
        try:
            report = _build(options, work, count_tokens)
            publish(report, work, options.out_dir)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        problem = f"{where}{error.strerror}"
        if error.errno == errno.ENOSPC:
            problem = "no space left on disk: free some, or choose another --out_dir"
        raise UserError(f"{problem}; nothing was changed") from None
    return report


def _build(options: MixOptions, work: Path, count_tokens: Callable[[str], int] | None) -> MixReport:
    files, unreadable, remarks = find_files(options.data_dir)
    if unreadable and options.strict:
        raise UserError(f"{unreadable[0].path}: {unreadable[0].reason}")
    size = sum(file.size for file in files) / 1e6
    _say(f"reading {len(files)} file{'s' * (len(files) != 1)}, {size:,.1f} MB")
    with Scan(options, work) as scan:
        for bad in unreadable:
            scan.set_aside(bad)
        reports = [scan.read(file) for file in files]
        missing = missing_categories(scan.rows, options)
        built_in = missing if options.built_in == "sample" else []
        for name in built_in:
            scan.read(write_built_in(name, options, work))

    notes = distinct(np.fromfile(work / "notes", NOTE))
    categories = {
        name: CategoryReport(options.target(name), name in built_in, scan.rows[name])
        for name in CATEGORIES
    }
    copies, held_out = choose_copies(notes, categories, options)
    total = sum(category.rows for category in categories.values())
    if options.built_in == "none" and not total:
        bad_rows = f" ({scan.quarantined:,} cannot be used: --strict names one)"
        raise UserError(
            f"{options.data_dir}: no rows to train on{bad_rows if scan.quarantined else ''}, and "
            "--built_in none leaves out those that are built in"
        )
    if missing:
        remarks.append(absent(missing, categories, options))

    _say(f"writing {total:,} training rows")
    with Fetcher(scan.files) as fetch:
        chats = Chats(notes, copies * ~held_out * options.identity_in_chats, fetch, options.seed)
        order = shuffled(copies, options.seed)
        outputs, sources = write(notes, held_out, order, fetch, chats, work)
        for number, (name, category) in enumerate(categories.items()):
            category.share = category.rows / max(1, total)
            category.sources = sources[name] if len(sources[name]) <= MAX_SOURCES else None
            if count_tokens is not None:
                mine = (notes["category"] == number) & ~held_out & (copies > 0)
                category.tokens = estimate_tokens(notes[mine], copies[mine], fetch, count_tokens)
    return MixReport(
        options={k: str(v) if isinstance(v, Path) else v for k, v in asdict(options).items()},
        files=[*reports, *(FileReport(bad.path, None, 0, 1) for bad in unreadable)],
        categories=categories,
        outputs=outputs,
        quarantined=scan.quarantined,
        notes=remarks + too_few(categories, outputs),
    )


def publish(report: MixReport, work: Path, out_dir: Path) -> None:
    """Moves the finished files to their places."""
    text = msgspec.json.format(msgspec.json.encode(report), indent=2)
    (work / "mix_report.json").write_bytes(text + b"\n")
    for name in [*OUTPUTS, "quarantine.jsonl", "mix_report.json"]:
        if name.endswith("_val.jsonl") and not report.outputs[name]:
            # What an earlier mix held out may be trained on now.
            (out_dir / name).unlink(missing_ok=True)
        else:
            os.replace(work / name, out_dir / name)


def _say(message: str) -> None:
    print(f"mix: {message}", file=sys.stderr, flush=True)


# --- Files ----------------------------------------------------------------------------------------


class InputFile(NamedTuple):
    """A file to read."""

    path: Path
    category: str | None
    """None: each row's own kind decides."""
    source: str
    """Tag of rows that carry none."""
    size: int = 0
    """Bytes."""


def find_files(data_dir: Path) -> tuple[list[InputFile], list[Quarantined], list[str]]:
    """The *.jsonl files that can be read, those that cannot, and what the user should know."""
    files: list[InputFile] = []
    unreadable: list[Quarantined] = []
    remarks: list[str] = []
    if not data_dir.exists():
        return files, unreadable, [f"{data_dir}: no such folder"]
    for path in sorted(data_dir.iterdir()):
        if path.suffix in (".json", ".csv", ".parquet"):
            remarks.append(f"{path}: not read; `minillm import` turns it into JSON Lines")
        if path.suffix != ".jsonl":
            continue
        try:
            with path.open("rb"):
                size = path.stat().st_size
            reason = "" if size else "the file is empty"
        except OSError as error:
            size, reason = 0, f"cannot be read: {error.strerror}"
        if reason:
            unreadable.append(Quarantined(str(path), 0, reason, ""))
            remarks.append(f"{path}: {reason}")
            continue
        category = category_in(path.name)
        if category is None:
            remarks.append(
                f"{path}: its name begins with none of {'_, '.join(CATEGORIES)}_, so its "
                "conversations count as general, its pairs as preference, its texts as text"
            )
        files.append(InputFile(path, category, path.stem, size))
    return files, unreadable, remarks


def missing_categories(read: Counter[str], options: MixOptions) -> list[str]:
    """Categories that rows are wanted of and that have none."""
    missing = [name for name in CATEGORIES if options.target(name) and not read[name]]
    others = any(read[name] for name in CATEGORIES if name != "identity")
    if options.built_in_text and not others and "text" not in missing:
        missing.insert(0, "text")
    return missing


def absent(missing: list[str], categories: dict[str, CategoryReport], options: MixOptions) -> str:
    """Says what became of each category without rows: now, and in a remark for the report."""
    sample = options.built_in == "sample"
    for name in missing:
        what = (
            f"{categories[name].rows:,} BUILT-IN rows stand in (--built_in none leaves them out)"
            if sample
            else "left out (--built_in none)"
        )
        _say(f"no rows of {name} in {options.data_dir}: {what}")
    if not sample:
        return (
            f"left out (--built_in none), since {options.data_dir} has none: {', '.join(missing)}"
        )
    counts = ", ".join(f"{name} {categories[name].rows:,}" for name in missing)
    return (
        f"built-in rows (*) stand in where {options.data_dir} has none: {counts}; "
        "--built_in none leaves them out"
    )


def too_few(categories: dict[str, CategoryReport], outputs: dict[str, int]) -> list[str]:
    """What the user should know of repeated rows and of stages without any."""
    remarks = []
    for name, category in categories.items():
        different = category.distinct - category.held_out
        if category.target and 0 < different < category.target and not category.built_in:
            remarks.append(
                f"{name}: {different:,} different rows for a target of {category.target:,}, "
                "so rows are repeated; more data would be better"
            )
    return remarks + [
        f"{name} has no rows, so there is nothing to train this stage on"
        for name, rows in outputs.items()
        if not rows and not name.endswith("_val.jsonl")
    ]


def write_built_in(category: str, options: MixOptions, work: Path) -> InputFile:
    """Built-in rows, as a file like the user's."""
    rows = min(options.target(category) or 0, BUILT_IN_ROWS)
    if category == "text":
        rows = options.built_in_text
    path = work / f"builtin_{category}.jsonl"
    with path.open("wb") as file:
        file.writelines(map(encode_line, lessons.rows(category, rows, options.seed)))
    return InputFile(path, category, f"builtin:{category}")


# --- Scan: every row once -------------------------------------------------------------------------


class Note(NamedTuple):
    """What is remembered of a row."""

    content: int
    """Hash of all that is said: rows that share it are duplicates."""
    document: int
    """Hash of the document: rows that share it are all for training or all for validation."""
    category: int
    """Index in CATEGORIES."""
    file: int
    """Index of the file where the row stands in canonical form, ..."""
    offset: int
    """... the byte where its line begins there ..."""
    length: int
    """... and how many bytes the line has."""
    bytes_read: int
    """Bytes of the line that the row was read from."""


NOTE = np.dtype(list(zip(Note._fields, ("u8", "u8", "u1", "u4", "u8", "u4", "u4"), strict=True)))
"""A note on disk and in memory: 37 bytes."""


class Scan(ExitStack):
    """Reads rows. Of the good ones it leaves notes in WORK/notes, and WORK/quarantine.jsonl gets
    the bad ones.

    A good row whose line is not in canonical form is written in that form to WORK/canonical.jsonl.
    So whoever follows a note finds a row that need not be understood again.
    """

    def __init__(self, options: MixOptions, work: Path) -> None:
        super().__init__()
        self.options = options
        self.files = [InputFile(work / "canonical.jsonl", None, "")]
        """The files that notes point to."""
        self.rows: Counter[str] = Counter()
        """Good rows by category."""
        self.quarantined = 0
        self._quarantine, self._notes, self._canonical = (
            self.enter_context((work / name).open("wb"))
            for name in ("quarantine.jsonl", "notes", "canonical.jsonl")
        )
        self._waiting: list[Note] = []
        self.callback(self._write_notes)

    def read(self, file: InputFile) -> FileReport:
        """Reads all rows of a file. Raises UserError for a bad one with ``strict``."""
        report = FileReport(str(file.path), file.category)
        self.files.append(file)
        with file.path.open("rb") as stream:
            for number, (offset, line) in enumerate(lines_of(stream), 1):
                if line.isspace():
                    continue
                try:
                    self._take(file, offset, line)
                    report.rows += 1
                except BadRow as error:
                    start = line[:1000].decode(errors="replace").strip()[:200]
                    self.set_aside(Quarantined(str(file.path), number, str(error), start))
                    report.quarantined += 1
        return report

    def set_aside(self, bad: Quarantined) -> None:
        if self.options.strict:
            raise UserError(str(bad))
        self._quarantine.write(encode_line(bad))
        self.quarantined += 1

    def _take(self, file: InputFile, offset: int, line: bytes) -> None:
        category, raw, row = recognise(line, file.category, self.options.persona)
        place = len(self.files) - 1, offset, len(line)
        if not is_canonical(line, raw, row):
            rewritten = canonical(raw, row)
            if rewritten.get("source") is None:
                rewritten["source"] = file.source
            data = encode_line(rewritten)
            if len(data) > MAX_ROW_BYTES:
                raise BadRow(f"in canonical form the row is longer than {MAX_ROW_BYTES >> 20} MiB")
            place = 0, self._canonical.tell(), len(data)
            self._canonical.write(data)
        content, document = (int.from_bytes(h, "big") for h in fingerprints(row, self.options.seed))
        note = Note(content, document, CATEGORIES.index(category), *place, len(line))
        self._waiting.append(note)
        self.rows[category] += 1
        if len(self._waiting) == PIECE:
            self._write_notes()

    def _write_notes(self) -> None:
        np.array(self._waiting, NOTE).tofile(self._notes)
        self._waiting.clear()


def lines_of(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of every line, the first one without a byte order mark.

    Of a line with more than MAX_ROW_BYTES before its end only the beginning is given, for
    ``decode`` to reject.
    """
    mark = b"\xef\xbb\xbf"
    longest = len(mark) + MAX_ROW_BYTES + len(b"\r\n")
    position = 0
    while line := file.readline(longest):
        offset, position = position, position + len(line)
        rest = line
        while not rest.endswith(b"\n") and (rest := file.readline(1 << 20)):
            position += len(rest)
        if offset == 0 and line.startswith(mark):
            offset, line = len(mark), line[len(mark) :]
        if len(line) > MAX_ROW_BYTES:
            line = line.rstrip(b"\r\n")
        yield offset, line


def recognise(line: bytes, category: str | None, persona: Persona) -> tuple[str, Raw, Row]:
    """A row's category, the row as it stands, and what it means. Raises BadRow."""
    raw, row = parse_line(line)
    category = category_of(row, category)
    if category == "identity" and b"{{" in line:
        if isinstance(row, Chat):
            row = Chat([Message(m.role, fill(m.content, persona)) for m in row.messages])
        elif isinstance(row, Text):
            row = Text(fill(row.text, persona))
    return category, raw, row


def is_canonical(line: bytes, raw: Raw, row: Row) -> bool:
    """Whether a line is an object that says under the canonical fields what the row means."""
    if not line.startswith(b"{") or b'paragraphs"' in line:  # perhaps only a part of it is the row
        return False
    fields = msgspec.to_builtins(row).items()
    return all(raw.get(name) == value for name, value in fields)


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


# --- Choose: by the notes alone -------------------------------------------------------------------


def distinct(notes: _Array) -> _Array:
    """The notes in the order of their hashes, each content once in a category: the first one read.

    Args:
        notes: NOTE records.
    """
    notes = notes[np.lexsort((notes["category"], notes["content"]))]
    content, category = notes["content"], notes["category"]
    is_first = np.ones(len(notes), bool)
    is_first[1:] = (content[1:] != content[:-1]) | (category[1:] != category[:-1])
    return notes[is_first]


def choose_copies(
    notes: _Array, reports: dict[str, CategoryReport], options: MixOptions
) -> tuple[_Array, _Array]:
    """How many times each row is written, and whether it is held out from training.

    Documents are held out first and copied then, so that no copy of one is trained on. All that is
    decided is counted in ``reports``.

    Args:
        notes: NOTE records, as ``distinct`` gives them.
        reports: by category; the targets are read from them.
    """
    document = notes["document"]
    on_validation_side = document < np.uint64(int(options.val_fraction * 2**64))
    held_out = on_validation_side.copy()
    of_category = {name: notes["category"] == i for i, name in enumerate(CATEGORIES)}
    for mine in of_category.values():
        if held_out[mine].all():  # a handful of rows: they are needed for training
            held_out[mine] = False
    trained_on = np.isin(document, document[on_validation_side & ~held_out])

    copies = np.zeros(len(notes), np.int64)
    for name, mine in of_category.items():
        report = reports[name]
        training = np.flatnonzero(mine & ~held_out)
        target = len(training) if report.target is None else report.target
        repeat = options.identity_repeat if name == "identity" else 1
        copies[training] = repeat * even_copies(len(training), target)
        most = min(MAX_VALIDATION_ROWS, ceil(options.val_fraction * target))
        validation = np.flatnonzero(mine & held_out & ~trained_on)[:most]
        copies[validation] = 1

        report.distinct = int(mine.sum())
        report.duplicates = report.read - report.distinct
        report.held_out = report.distinct - len(training)
        report.rows = int(copies[training].sum())
        report.repeats = report.rows - min(target, len(training))
        report.validation_rows = len(validation)
    return copies, held_out


def even_copies(different: int, target: int) -> _Array:
    """How many times each of ``different`` rows comes so that they make ``target`` rows.

    The counts differ by one at most: the first rows come once more than the others.
    """
    rounds, extra = divmod(target, max(1, different))
    return rounds + (np.arange(different) < extra)


def shuffled(copies: _Array, seed: int) -> _Array:
    """Every index i of ``copies`` copies[i] times, in random order.

    Each draws 64 random bits, and they are sorted by what they drew.
    """
    indices = np.repeat(np.arange(len(copies)), copies)
    drawn = np.frombuffer(Random(seed).randbytes(8 * len(indices)), ">u8")
    return indices[np.argsort(drawn.astype("u8"), kind="stable")]


# --- Write: only what was chosen ------------------------------------------------------------------


class Fetcher(ExitStack):
    """Finds rows by their notes. At most OPEN_FILES files are open at once."""

    def __init__(self, files: Sequence[InputFile]) -> None:
        super().__init__()
        self.files = files
        self.open: dict[int, BinaryIO] = {}

    def __call__(self, note: Note) -> Raw:
        """The row in canonical form, with its source.

        Raises UserError if it does not stand there any more.
        """
        if note.file not in self.open:
            if len(self.open) == OPEN_FILES:
                self.close()
                self.open.clear()
            stream = self.files[note.file].path.open("rb", buffering=0)
            self.open[note.file] = self.enter_context(stream)
        self.open[note.file].seek(note.offset)
        try:
            row: Raw = decode(self.open[note.file].read(note.length))
            if row.get("source") is None:
                row["source"] = self.files[note.file].source
        except (BadRow, AttributeError):
            path = self.files[note.file].path
            raise UserError(f"{path}: changed while it was read; run again") from None
        return row


class Chats:
    """Puts an identity row that has come before after other conversations that are trained on."""

    def __init__(
        self, notes: _Array, copies: _Array, fetch: Callable[[Note], Raw], seed: int
    ) -> None:
        talks = [CATEGORIES.index(name) for name in ("general", "knowledge", "math")]
        short = notes["bytes_read"] <= SHORT_BYTES
        self.short = notes[np.isin(notes["category"], talks) & short & (copies > 0)]
        self.fetch = fetch
        self.random = Random(f"chats {seed}")
        self.met: set[int] = set()

    def __call__(self, note: Note, row: Raw) -> Raw:
        if CATEGORIES[note.category] != "identity" or row.get("messages") is None:
            return row
        if note.content not in self.met or not len(self.short):
            self.met.add(note.content)
            return row
        drawn = self.short[self.random.sample(range(len(self.short)), min(4, len(self.short)))]
        others = [convert(self.fetch(Note._make(other))) for other in drawn.tolist()]
        mine = msgspec.convert(row["messages"], list[Message])
        chat = in_a_chat(mine, [other.messages for other in others if isinstance(other, Chat)])
        return {**row, "messages": msgspec.to_builtins(chat)}


def write(
    notes: _Array,
    held_out: _Array,
    order: _Array,
    fetch: Callable[[Note], Raw],
    chats: Callable[[Note, Raw], Raw],
    folder: Path,
) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """Writes rows as OUTPUTS into ``folder``.

    Returns the rows of each file, and by category the training rows of each source tag; where there
    are more than MAX_SOURCES tags, counting has stopped.

    Args:
        notes: NOTE records.
        held_out: for each note, whether its row goes to the validation files.
        order: indices of the notes whose rows are written.
        chats: what becomes of a row for training that was fetched.
    """
    outputs = dict.fromkeys(OUTPUTS, 0)
    sources: dict[str, dict[str, int]] = {name: {} for name in CATEGORIES}
    with ExitStack() as stack:
        streams = {name: stack.enter_context((folder / name).open("wb")) for name in OUTPUTS}
        for piece in np.split(order, range(PIECE, len(order), PIECE)):
            places = map(Note._make, notes[piece].tolist())
            for note, validation in zip(places, held_out[piece].tolist(), strict=True):
                row = fetch(note)
                counts, tag = sources[CATEGORIES[note.category]], str(row["source"])
                if not validation:
                    row = chats(note, row)
                    if len(counts) <= MAX_SOURCES:
                        counts[tag] = counts.get(tag, 0) + 1
                for stage, out in stage_rows(row):
                    name = f"{stage}_chinese{'_val' if validation else ''}.jsonl"
                    streams[name].write(encode_line(out))
                    outputs[name] += 1
    return outputs, sources


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


def estimate_tokens(
    notes: _Array,
    copies: _Array,
    fetch: Callable[[Note], Raw],
    count_tokens: Callable[[str], int],
) -> int:
    """Tokens of rows that come ``copies`` times: counted in the first SAMPLE_ROWS of them, for the
    others in proportion to their bytes."""
    sample = list(map(Note._make, notes[:TOKEN_SAMPLE_ROWS].tolist()))
    tokens = sum(count_tokens(plain_text(convert(fetch(note)))) for note in sample)
    per_byte = tokens / max(1, sum(note.bytes_read for note in sample))
    return round(int((copies * notes["bytes_read"]).sum()) * per_byte)
