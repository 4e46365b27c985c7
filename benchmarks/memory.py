"""Memory beside the size of the data: exporting tensors, and what training holds of its rows.

    python benchmarks/memory.py                    # files of 10, 40 and 160 MB
    python benchmarks/memory.py --megabytes 10000 --no-training    # an hour, and 50 GB of disk

Runs each on files of several sizes, in a process of its own, and prints the most memory that the
process held by itself. Pages of mapped files are not counted: the system takes them back when it
needs them. Linux only.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from setting import machine, start

import msgspec

from minillm.book import lab
from minillm.errors import UserError

EXPORT = """
import sys
from pathlib import Path
from minillm.training.export import ExportOptions, export
data, output, tokenizer = map(Path, sys.argv[1:])
export(ExportOptions(
    data_path=data, output=output / "tensors.pt", tokenizer_path=tokenizer, max_length=128
))
"""
TRAINING = """
import sys
from pathlib import Path
from minillm.training.dataset import load_dataset
from minillm.training.packing import PackedRows
from minillm.tokenizer.vocabulary import RustBPETokenizer
data, output, tokenizer = map(Path, sys.argv[1:])
rows = PackedRows(
    load_dataset(data, "pretrain", RustBPETokenizer.load(tokenizer), 512, output), 512, 2, 42
)
for i in range(0, len(rows), 1 + len(rows) // 1000):
    rows.batch(range(i, i + 8))
"""


@dataclass(frozen=True)
class Options:
    """Measure how memory grows with the data."""

    megabytes: tuple[int, ...] = (10, 40, 160)
    training: bool = True
    """Also measure what training holds, not only the export."""


def write_rows(path: Path, size: int) -> int:
    """At least ``size`` bytes of rows, no two of them equal; returns how many rows."""
    texts = [
        msgspec.json.decode(line)["text"]
        for line in (lab.data() / "pretrain_chinese.jsonl").read_bytes().splitlines()
    ]
    rows = 0
    with path.open("wb") as file:
        while file.tell() < size:
            words = "".join(texts[(rows * 7 + i * 13) % len(texts)] for i in range(8))
            file.write(msgspec.json.encode({"text": f"{rows}{words}"}) + b"\n")
            rows += 1
    return rows


def most_memory(code: str, *paths: Path) -> float:
    """Megabytes that a process held at most, of its own."""
    # A pipe that nobody reads would stop the process once its progress bar had filled it.
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-c", code, *map(str, paths)],
            stdout=subprocess.DEVNULL,
            stderr=errors,
        ) as process,
    ):
        most = 0
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text("utf-8")
            if found := re.search(r"RssAnon:\s+(\d+) kB", status):
                most = max(most, int(found[1]))
            time.sleep(0.01)
        if process.returncode:
            errors.seek(0)
            raise UserError(errors.read())
    return most / 1000


def main(options: Options) -> None:
    if not Path("/proc/self/status").exists():
        raise UserError("memory is read from /proc, which only Linux has")
    tokenizer = lab.tokenizer_path()
    print(f"{machine()}\n")
    names = ["data, MB", "rows", "export, MB", "tokens and rows of training, MB"]
    names = names[: 3 + options.training]
    print(f"| {' | '.join(names)} |")
    print("| --- |" + " --- |" * (len(names) - 1))
    for size in options.megabytes:
        with tempfile.TemporaryDirectory() as name:
            data = Path(name) / "rows.jsonl"
            rows = write_rows(data, size * 1_000_000)
            cells = [
                f"{most_memory(code, data, Path(name), tokenizer):,.0f}"
                for code in (EXPORT, TRAINING)[: 1 + options.training]
            ]
        print(f"| {size} | {rows:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    start(main, Options)
