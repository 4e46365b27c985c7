"""Raw downloads → ``data/chinese/<category>_<name>.jsonl``, where the mix finds them.

``run_import`` turns files and folders of any known format into canonical rows; ``run_download``
first fetches a well-known data set from a hub. Every row is accounted for: it is in the output, or
in the quarantine with its reason.
"""

from __future__ import annotations

import filecmp
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, TypeAlias

import msgspec
from tyro.conf import Positional

from minillm.data.categories import MAY_HOLD, category_of
from minillm.data.formats import canonical, convert
from minillm.data.readers import MAX_ROW_BYTES, SUFFIXES, TOO_LONG, Entry, Quarantined, entries
from minillm.data.rows import BadRow
from minillm.errors import UserError
from minillm.files import atomic_file, atomic_folder, encode_line
from minillm.progress import Progress
from minillm.text_table import aligned

Category = Literal["text", "general", "knowledge", "math", "identity", "preference"]


@dataclass(frozen=True)
class ImportOptions:
    """Turn raw downloads into OUT_DIR/CATEGORY_NAME.jsonl, one output for each PATH."""

    paths: Positional[tuple[Path, ...]] = ()
    """Files, or folders to search for .jsonl, .json, .csv and .parquet files."""
    category: Category | None = None
    """What the rows are for (required)."""
    name: str = ""
    """NAME of the output (default: that of PATH)."""
    out_dir: Path = Path("data/chinese")
    """Folder of the files to mix."""
    quarantine: Path = Path("data/processed/import_quarantine.jsonl")
    """File for the rows that cannot be used, with the reasons."""
    strict: bool = False
    """Stop at the first row that cannot be used, and write nothing."""


class Counts(NamedTuple):
    """What became of one file's rows; ``rows_in == rows_out + quarantined``."""

    file: Path
    rows_in: int
    rows_out: int
    quarantined: int


Plan: TypeAlias = dict[Path, list[tuple[Path, str]]]
"""Output → the files that its rows come from, each with their source tag."""


def run_import(options: ImportOptions) -> list[Counts]:
    """Imports every PATH; prints and returns a table of the files read.

    The outputs appear together, once everything is read. An output that is there already is never
    replaced by other rows: they may come from another file of the same name.

    Raises UserError for options that make no sense, a file that cannot be read or written, an
    output in the way, an output without rows (the quarantine is written) and, with ``strict``, the
    first row that cannot be used.
    """
    if not options.paths:
        raise UserError("no PATH: minillm import PATH... --category CATEGORY")
    if options.category is None:
        raise UserError(f"--category is missing: {', '.join(MAY_HOLD)}")
    plan = _plan(options)
    tables: dict[Path, list[Counts]] = {}
    with atomic_folder(options.out_dir) as folder, atomic_file(options.quarantine) as bad_file:
        bad_file.writelines(_others(options.quarantine, plan))
        importer = _Importer(options.category, options.strict, bad_file)
        for target, files in plan.items():
            written = folder / target.name
            with written.open("wb") as file:
                tables[target] = [importer.run(*part, file) for part in files]
            _check(written, target, tables[target])
            if not written.stat().st_size:
                written.unlink()
    if not options.quarantine.stat().st_size:
        options.quarantine.unlink()
    print(_report(tables, options.quarantine))
    for target, table in tables.items():
        if not any(counts.rows_out for counts in table):
            raise UserError(f"{target}: not written, no row can be used; see {options.quarantine}")
    return [counts for table in tables.values() for counts in table]


def _plan(options: ImportOptions) -> Plan:
    plan: Plan = {}
    for path in options.paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        name = options.name or (path.resolve().name if path.is_dir() else path.stem)
        safe_name = re.sub(r"[^\w.-]+", "_", name)
        target = options.out_dir / f"{options.category}_{safe_name}.jsonl"
        if target in plan:
            raise UserError(
                f"{path}: there is an output {target} already; import it alone, with a --name"
            )
        plan[target] = [(path, name)] if path.is_file() else _files_in(path, name)
    return plan


def files_in(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """The files of these kinds in a folder and the folders in it, but for hidden ones.

    Raises UserError if there are none.
    """
    found = []
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.suffix.lower() in suffixes and file.is_file() and not hidden:
            found.append(file)
    if not found:
        raise UserError(f"{folder}: no {', '.join(suffixes)} files in this folder")
    return found


def _files_in(folder: Path, name: str) -> list[tuple[Path, str]]:
    inside = ((file, file.relative_to(folder)) for file in files_in(folder))
    return [(file, Path(name, part).with_suffix("").as_posix()) for file, part in inside]


class _Importer(NamedTuple):
    category: Category
    strict: bool
    quarantine: BinaryIO

    def run(self, path: Path, source: str, output: BinaryIO) -> Counts:
        """Writes the rows of a file to ``output``, and those that cannot be used to quarantine."""
        size, rows_in, rows_out, bad = path.stat().st_size, 0, 0, 0
        with Progress(path.name, size, "bytes") as bar:
            for entry in entries(path):
                rows_in += 1
                bar.update(entry.end - bar.count)
                try:
                    line = self.line(entry, source)
                except BadRow as error:
                    rejected = entry.rejected(path, str(error))
                    if self.strict:
                        raise UserError(str(rejected)) from None
                    self.quarantine.write(encode_line(rejected))
                    bad += 1
                else:
                    output.write(line)
                    rows_out += 1
        return Counts(path, rows_in, rows_out, bad)

    def line(self, entry: Entry, source: str) -> bytes:
        """The line to write for a row. Raises BadRow."""
        if entry.problem:
            raise BadRow(entry.problem)
        row = convert(entry.raw)
        category_of(row, self.category)
        record = canonical(entry.raw, row)
        if record.get("source") is None:
            record["source"] = source
        line = encode_line(record)
        if self.category == "identity":  # some write the mix's placeholders in capitals
            line = line.replace(b"{{NAME}}", b"{{name}}").replace(b"{{AUTHOR}}", b"{{author}}")
        if len(line) > MAX_ROW_BYTES:  # the mix would not read it
            raise BadRow(TOO_LONG)
        return line


def _check(written: Path, target: Path, table: list[Counts]) -> None:
    """That no row got lost, and that the output is not in the way of another."""
    with written.open("rb") as file:
        lines = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
    assert lines == sum(counts.rows_in - counts.quarantined for counts in table), target
    if target.exists() and not filecmp.cmp(written, target, shallow=False):
        raise UserError(f"{target} exists, with other rows: remove it, or choose another --name")


def _others(quarantine: Path, plan: Plan) -> list[bytes]:
    """What the quarantine holds from files other than those that are imported now."""
    if not quarantine.exists():
        return []
    again = {str(path) for files in plan.values() for path, _ in files}
    kept = []
    for line in quarantine.read_bytes().splitlines(keepends=True):
        try:
            if msgspec.json.decode(line, type=Quarantined).path in again:
                continue
        except ValueError:
            pass  # not one of ours: it stays
        kept.append(line)
    return kept


def _report(tables: dict[Path, list[Counts]], quarantine: Path) -> str:
    """A line for each file, and one for each output with the sums."""
    lines: list[tuple[str, ...]] = [("file", "rows in", "rows out", "quarantined")]
    for target, table in tables.items():
        lines += [(str(path), *map("{:,}".format, numbers)) for path, *numbers in table]
        _, *columns = zip(*table, strict=True)
        lines.append((f"→ {target}", *(f"{sum(column):,}" for column in columns)))
    report = [aligned(lines, least=11)]
    if any(counts.quarantined for table in tables.values() for counts in table):
        report.append(f"quarantined rows and the reasons: {quarantine}")
    return "\n".join(report)
