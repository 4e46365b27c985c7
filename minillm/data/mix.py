"""The data mix: ``data/chinese/*.jsonl`` → the files that the three stages are trained on.

Each category of rows is sampled down or repeated up to its target, so that the proportions hold
whatever data there is. Rows keep their fields and say where they come from (``source``), exact
duplicates count once, and no document that is held out for validation is trained on. What cannot
be used is set aside in ``quarantine.jsonl``, with the reason.

Memory does not grow with the data (``shuffle`` reads and writes the rows), and the same
data, options and seed give the same bytes.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import msgspec

from minillm.config import Preset
from minillm.data import workers
from minillm.data.categories import CATEGORIES
from minillm.data.quotas import choose
from minillm.data.readers import Quarantined
from minillm.data.report import CategoryReport, FileReport, MixReport
from minillm.data.rows import plain_text
from minillm.data.shuffle import NOTE, OUTPUTS, Buckets, Fetcher, InputFile, load
from minillm.errors import UserError
from minillm.files import encode_line
from minillm.microworld import lessons
from minillm.microworld.identity import Persona

BUILT_IN_ROWS = 20_000
"""Most built-in rows of a category (other than text) that are generated; more are repeats."""


@dataclass(frozen=True)
class MixOptions:
    """Mix DATA_DIR/*.jsonl, files named by their category, into training and validation data."""

    data_dir: Path = Path("data/chinese")
    """Folder of the *.jsonl files to mix; each file's name begins with the category of its rows."""
    out_dir: Path = Path("data/processed")
    """Folder for {pretrain,sft,dpo}_chinese{,_val}.jsonl, quarantine.jsonl and mix_report.json."""
    general: int = 460_000
    """Training rows of general dialogue (0: leave them out; likewise for the other categories)."""
    knowledge: int = 100_000
    """Training rows of knowledge quizzes."""
    math: int = 8_000
    """Training rows of mathematics."""
    identity: int = 1_000
    """Training rows about the persona, before --identity_repeat."""
    preference: int = 60_000
    """Training pairs of a chosen and a rejected answer."""
    text: int | None = None
    """Training texts from text_*.jsonl; None: all of them."""
    built_in: Literal["sample", "none"] = "sample"
    """What stands in where DATA_DIR has no rows of a category: sample rows that come with the
    package, most of them about its micro-world, or none, so that it is left out."""
    built_in_text: int = 60_000
    """Built-in texts, which are taken if DATA_DIR has no rows but identity."""
    identity_repeat: int = 2
    """Times that every identity row comes."""
    persona_name: str = Persona.name
    """What {{name}} in identity rows is replaced by."""
    persona_author: str = Persona.author
    """What {{author}} in identity rows is replaced by."""
    val_fraction: float = 0.01
    """Share of the documents that is held out, of which at most 2,000 a category are written."""
    seed: int = 42
    """Decides which rows are sampled, and their order."""
    strict: bool = False
    """Stop at the first bad row instead of setting it aside in quarantine.jsonl."""

    def __post_init__(self) -> None:
        for name in ("general", "knowledge", "math", "identity", "preference", "built_in_text"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name} must be at least 0, not {getattr(self, name)}")
        if self.text is not None and self.text < 0:
            raise UserError(f"--text must be at least 0, not {self.text}")
        if self.identity_repeat < 1:
            raise UserError(f"--identity_repeat must be at least 1, not {self.identity_repeat}")
        if not 0 <= self.val_fraction <= 0.5:
            raise UserError(f"--val_fraction must be from 0 to 0.5, not {self.val_fraction}")
        if self.data_dir.resolve() == self.out_dir.resolve():
            raise UserError(f"--out_dir and --data_dir must differ, both are {self.out_dir}")

    @property
    def persona(self) -> Persona:
        return Persona(self.persona_name, self.persona_author)

    def target(self, category: str) -> int | None:
        """Training rows before repeats; None: all there are."""
        return self.text if category == "text" else int(getattr(self, category))


PRESETS: dict[Preset, MixOptions] = {
    "default": MixOptions(),
    "tiny": MixOptions(
        out_dir=Path("data/processed/tiny"),
        general=9_000,
        knowledge=9_000,
        math=8_000,
        identity=200,
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
        raise UserError(workers.explain(error)) from None
    return report


def _build(options: MixOptions, work: Path, count_tokens: Callable[[str], int] | None) -> MixReport:
    files, unreadable, notes = find_files(options.data_dir)
    if unreadable and options.strict:
        raise UserError(f"{unreadable[0].path}: {unreadable[0].reason}")
    _say(f"reading {len(files)} files, {sum(file.size for file in files) / 1e6:,.1f} MB")
    how = (options.seed, options.persona, options.strict)
    scan = workers.scan(files, 0, work / "scan", *how)
    quarantined = 0
    with (work / "quarantine.jsonl").open("wb") as quarantine:
        for bad in chain(unreadable, scan.bad_rows()):
            if options.strict:
                raise UserError(str(bad))
            quarantine.write(encode_line(bad))
            quarantined += 1

    read, folders = scan.rows(), scan.folders
    missing = missing_categories(read, options)
    built_in = missing if options.built_in == "sample" else []
    if built_in:
        files += [write_built_in(category, options, work) for category in built_in]
        extra = workers.scan(files, len(files) - len(built_in), work / "built_in", *how)
        read, folders = read + extra.rows(), folders + extra.folders

    categories = {
        name: CategoryReport(options.target(name), name in built_in, read[name])
        for name in CATEGORIES
    }
    order = Buckets(work / "order")
    samples = choose(
        [folder / "notes" for folder in folders],
        list(categories.values()),
        [options.identity_repeat if name == "identity" else 1 for name in CATEGORIES],
        options.val_fraction,
        options.seed,
        order,
    )
    order.close()
    total = sum(category.rows for category in categories.values())
    if options.built_in == "none" and not total:
        unusable = f" ({quarantined:,} cannot be used: --strict names one)" if quarantined else ""
        raise UserError(
            f"{options.data_dir}: no rows to train on{unusable}, and --built_in none leaves out "
            "those that are built in"
        )
    if missing:
        notes.append(absent(missing, categories, options))
    _say(f"writing {total:,} training rows")
    written = workers.write(files, order.folder, total, work, options.persona)

    for (name, category), sample in zip(categories.items(), samples, strict=True):
        category.share = category.rows / max(1, total)
        category.sources = written.sources[name]
        if count_tokens is not None:
            per_byte = tokens_per_byte(sample, files, options.persona, count_tokens)
            category.tokens = round(written.sizes[name] * per_byte)
        distinct = category.distinct - category.held_out
        if category.target and 0 < distinct < category.target and not category.built_in:
            notes.append(
                f"{name}: {distinct:,} different rows for a target of {category.target:,}, "
                "so rows are repeated; more data would be better"
            )
    notes += [
        f"{name} has no rows, so there is nothing to train this stage on"
        for name in OUTPUTS
        if not written.outputs[name] and not name.endswith("_val.jsonl")
    ]
    return MixReport(
        options={k: str(v) if isinstance(v, Path) else v for k, v in asdict(options).items()},
        files=[*scan.reports(), *(FileReport(bad.path, None, 0, 1) for bad in unreadable)],
        categories=categories,
        outputs=written.outputs,
        quarantined=quarantined,
        notes=notes,
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


# --- What to read ---------------------------------------------------------------------------------


def find_files(data_dir: Path) -> tuple[list[InputFile], list[Quarantined], list[str]]:
    """The *.jsonl files that can be read, those that cannot, and what the user should know."""
    files: list[InputFile] = []
    unreadable: list[Quarantined] = []
    notes: list[str] = []
    if not data_dir.exists():
        return files, unreadable, [f"{data_dir}: no such folder"]
    for path in sorted(data_dir.iterdir()):
        if path.suffix in (".json", ".csv", ".parquet"):
            notes.append(f"{path}: not read; `minillm import` turns it into JSON Lines")
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
            notes.append(f"{path}: {reason}")
            continue
        category = next((name for name in CATEGORIES if path.name.startswith(name)), None)
        if category is None:
            notes.append(
                f"{path}: its name begins with no category ({', '.join(CATEGORIES)}), so its "
                "conversations count as general, its pairs as preference, its texts as text"
            )
        files.append(InputFile(str(path), category, path.stem, size))
    return files, unreadable, notes


def missing_categories(read: Counter[str], options: MixOptions) -> list[str]:
    """Categories that rows are wanted of and that have none."""
    missing = [name for name in CATEGORIES if options.target(name) and not read[name]]
    others = any(read[name] for name in CATEGORIES if name != "identity")
    if options.built_in_text and not others and "text" not in missing:
        missing.insert(0, "text")
    return missing


def absent(missing: list[str], categories: dict[str, CategoryReport], options: MixOptions) -> str:
    """Says what became of each category without rows: now, and in a note for the report."""
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


def write_built_in(category: str, options: MixOptions, work: Path) -> InputFile:
    """Built-in rows, as a file like the user's."""
    rows = min(options.target(category) or 0, BUILT_IN_ROWS)
    if category == "text":
        rows = options.built_in_text
    path = work / f"builtin_{category}.jsonl"
    with path.open("wb") as file:
        file.writelines(map(encode_line, lessons.rows(category, rows, options.seed)))
    return InputFile(str(path), category, f"builtin:{category}", path.stat().st_size)


def tokens_per_byte(
    notes: list[bytes],
    files: list[InputFile],
    persona: Persona,
    count_tokens: Callable[[str], int],
) -> float:
    """Tokens in the text of these rows, by the bytes that they take in the input."""
    tokens = size = 0
    with Fetcher(files) as fetch:
        for note in notes:
            _, number, file, offset, length, _, _ = NOTE.unpack(note)
            _, _, row = load(fetch(file, offset, length), CATEGORIES[number], persona)
            tokens += count_tokens(plain_text(row))
            size += length
    return tokens / max(1, size)
