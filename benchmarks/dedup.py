"""Near duplicates by datatrove's MinHash and by ``minillm.data.near``, in the same texts.

    python benchmarks/dedup.py --name modern --data FILE
    python benchmarks/dedup.py --name poems --data data/chinese/text_poetry.jsonl \\
        --dropped data/raw/poetry/dropped.jsonl

Takes a sample of the rows, cuts it into files, lets scripts/pipeline_datatrove.py work on it, and
looks for near duplicates itself in what the pipeline's filters left. The two differ: to datatrove,
two texts are duplicates when they agree in one of 14 bands of 8 numbers; to ours, when
they agree in one of 16 bands of 2 and then have enough runs in common, which are counted. datatrove
leaves punctuation out. Of a chain of texts, each like the next, datatrove keeps one, ours all that
are unlike those kept before. Writes the numbers into book/results/dedup.json.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from setting import CACHE, start

import msgspec

from minillm.data.near import near_duplicates
from minillm.data.readers import read
from minillm.data.rows import plain_text
from minillm.files import encode_line, write_atomically

REPO = Path(__file__).resolve().parents[1]
RESULTS = REPO / "book" / "results" / "dedup.json"
THRESHOLDS = (0.4, 0.65, 0.8)
FILES = 4


@dataclass(frozen=True)
class Options:
    """Compare datatrove's near duplicates with ours."""

    name: str
    """What the result is called."""
    data: Path
    """Rows to take texts from."""
    dropped: Path | None = None
    """``dropped.jsonl`` of `minillm download poetry`: a fifth of the texts are copies in it, and a
    fifth what they are copies of."""
    rows: int = 20_000
    """Texts in the sample."""
    workers: int = 2
    """Processes of datatrove."""


def sample(options: Options) -> list[str]:
    """Texts, in random order."""
    rng = random.Random(0)
    texts = []
    if options.dropped is not None:
        rows = map(msgspec.json.decode, options.dropped.read_bytes().splitlines())
        copies = [row for row in rows if row.get("like")]
        for row in rng.sample(copies, options.rows // 5):
            texts += [row["body"], row["like"]]
        whole = ["\n".join(record.raw["paragraphs"]) for record in read(options.data)]
    else:
        whole = [plain_text(record.row) for record in read(options.data)]
    texts += rng.sample(whole, options.rows - len(texts))
    rng.shuffle(texts)
    return texts


def by_datatrove(texts: list[str], folder: Path, workers: int) -> dict[str, int]:
    """Writes the texts as FILES files and runs the pipeline; returns its report."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "raw").mkdir(parents=True)
    for i in range(FILES):
        lines = (encode_line({"text": text}) for text in texts[i::FILES])
        (folder / "raw" / f"part-{i}.jsonl").write_bytes(b"".join(lines))
    command = [sys.executable, str(REPO / "scripts" / "pipeline_datatrove.py")]
    flags = {"raw_dir": folder / "raw", "out_dir": folder / "out", "tasks": FILES}
    flags |= {"workers": workers, "val_fraction": 0}
    arguments = [str(part) for name, value in flags.items() for part in (f"--{name}", value)]
    subprocess.run([*command, *arguments], check=True, stderr=subprocess.DEVNULL)
    report: dict[str, int] = json.loads((folder / "out" / "report.json").read_bytes())
    return report


def rows_in(folder: Path) -> dict[str, str]:
    """Texts by their id, in the order of the files."""
    lines = (line for path in sorted(folder.glob("*")) for line in path.read_bytes().splitlines())
    return {row["id"]: row["text"] for row in map(msgspec.json.decode, lines)}


def compare(filtered: dict[str, str], removed: set[str]) -> dict[str, Any]:
    """What each takes away, and how like its next of kin is what only one of them does."""
    ids, texts = list(filtered), list(filtered.values())
    found: dict[str, Any] = {"texts": len(texts), "datatrove": len(removed)}
    # All that is like something else, whichever of the two is left out.
    alike = near_duplicates(texts, THRESHOLDS[0])
    found[f"ours {THRESHOLDS[0]}"] = len(alike)
    for threshold in THRESHOLDS[1:]:
        found[f"ours {threshold}"] = len(near_duplicates(texts, threshold))
    share: dict[str, float] = {}
    for i, (like, value) in alike.items():
        for place in (i, like):
            share[ids[place]] = max(value, share.get(ids[place], 0))
    found["datatrove, share below 0.4"] = sum(share.get(i, 0) < THRESHOLDS[0] for i in removed)
    for low, high in ((0.4, 0.5), (0.5, 0.65), (0.65, 0.8), (0.8, 0.9), (0.9, 1.01)):
        pairs = [(i, like) for i, (like, value) in alike.items() if low <= value < high]
        hit = sum(ids[i] in removed or ids[like] in removed for i, like in pairs)
        found[f"pairs {low} to {min(high, 1)}"] = [len(pairs), hit]
    return found


def main(options: Options) -> None:
    folder = CACHE / "dedup" / options.name
    began = time.perf_counter()
    report = by_datatrove(sample(options), folder, options.workers)
    seconds = time.perf_counter() - began
    removed = folder / "out" / "removed" / "near_duplicates"
    found = compare(rows_in(folder / "out" / "work" / "filtered"), set(rows_in(removed)))
    result = {"pipeline": report, "near": found, "seconds": round(seconds)}
    results = msgspec.json.decode(RESULTS.read_bytes()) if RESULTS.exists() else {}
    text = json.dumps({**results, options.name: result}, indent=2, sort_keys=True)
    write_atomically(RESULTS, text.encode() + b"\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    start(main, Options)
