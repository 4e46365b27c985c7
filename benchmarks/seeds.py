"""What the tiny preset learns under other seeds and arithmetic: the book's claims rest on it.

    python benchmarks/seeds.py             # a run that was made before is in the cache
    python benchmarks/seeds.py --no-plain  # each seed once, with this machine's kernels only
    python benchmarks/seeds.py --no-train  # only writes the tables of the documents from the file

Another processor rounds differently, which moves most scores as much as another seed does. So each
seed is trained twice, with PyTorch's plain kernels (ATEN_CPU_CAPABILITY=default) and with those
that it chooses for this machine, each on one thread (once where these are the same). Writes
``book/results/seeds.json``: for every score after every stage its mean, its standard deviation, its
lowest and its highest value, and the value of each run. The table of benchmarks/README.md, and its
most telling rows in README.md and README.zh.md, are written from that file.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from setting import machine, start

import msgspec
import torch

from minillm.book import lab
from minillm.errors import UserError
from minillm.files import write_atomically

REPORT = """
import msgspec
from minillm.book import lab
print(msgspec.json.encode(lab.report()).decode())
"""

Report = dict[str, dict[str, float]]
"""Stage → score → value."""
Summary = dict[str, dict[str, dict[str, Any]]]
"""Stage → score → mean, std, min, max, values."""


ROWS = {
    "answer fact": "facts about people",
    "answer phrasing": "facts, asked in phrasings never seen",
    "answer reading": "reading a story",
    "answer multi_turn": "second question of a conversation",
    "answer choice": "multiple choice, answered",
    "answer calendar": "calendar",
    "answer add": "sums without counting",
    "answer sub": "differences without counting",
    "answer chain": "sums and differences, step by step",
    "answer shop": "shopping",
    "multiple choice": "multiple choice, the likeliest option",
    "polite": "polite style (what DPO teaches)",
    "question 2": "second question of a chat of all kinds",
    "question 10": "tenth question of that chat",
    "identity": "who are you, in paraphrases never seen",
    "identity in a chat": "the same, at the end of that chat",
}
"""Score → its name in English, in the order of the full table."""
TELLING = {
    "answer fact": "人物的事实",
    "answer chain": "一步一步数着算加减",
    "answer sub": "直接问减法",
    "polite": "礼貌的风格（DPO 要教的）",
}
"""Score → its name in Chinese: the rows that the READMEs show."""


class Table(NamedTuple):
    """A document's table of scores: the head of its first column, and its rows."""

    document: Path
    head: str
    rows: Mapping[str, str]
    """Score → what it is called there."""


TABLES = (
    Table(lab.ROOT / "benchmarks" / "README.md", "held-out test", ROWS),
    Table(lab.ROOT / "README.md", "held-out test", {score: ROWS[score] for score in TELLING}),
    Table(lab.ROOT / "README.zh.md", "留出测试", TELLING),
)
MARKED = re.compile(r"(<!-- seeds -->\n).*?(<!-- /seeds -->)", re.S)


@dataclass(frozen=True)
class Options:
    """Train the book's models under several seeds and two arithmetics."""

    seeds: tuple[int, ...] = (42, 7, 1, 2, 3)
    out: Path = lab.RESULTS
    processes: int = 2
    """Trained at a time, each on one thread."""
    plain: bool = True
    """Train each seed with PyTorch's plain kernels too: slower, and as good as another seed."""
    train: bool = True
    """With --no-train only the tables of the documents are written."""


def train(seed: int, capability: str) -> Report:
    """All scores of one run; from the cache where there is one.

    Raises:
        UserError: the training failed.
    """
    environment = {**os.environ, "MINILLM_SEED": str(seed), "MINILLM_QUIET": "1"}
    environment |= {"OMP_NUM_THREADS": "1"}
    environment.pop("ATEN_CPU_CAPABILITY", None)
    if capability == "default":
        environment["ATEN_CPU_CAPABILITY"] = capability
    command = [sys.executable, "-c", REPORT]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"training with seed {seed} ({capability}) failed: {reason}")
    print(f"seed {seed}, {capability}: done", file=sys.stderr, flush=True)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Report)


def arithmetics() -> list[str]:
    """PyTorch's plain kernels, and those that it chooses here where they are others."""
    native = torch.backends.cpu.get_cpu_capability()
    if native != "DEFAULT":
        return ["default", native]
    print(
        "note: PyTorch has only its plain kernels here (the processor has no others, or "
        "ATEN_CPU_CAPABILITY is set), so each seed is trained once",
        file=sys.stderr,
    )
    return ["default"]


def summary(reports: list[Report]) -> Summary:
    """Stage → score → mean, std (of a sample; None of one run), min, max, and the values in the
    order of runs."""
    found: Summary = {}
    for stage, scores in reports[0].items():
        found[stage] = {}
        for name in scores:
            values = [report[stage][name] for report in reports]
            found[stage][name] = {
                "mean": round(statistics.fmean(values), 4),
                "std": round(statistics.stdev(values), 4) if len(values) > 1 else None,
                "min": round(min(values), 4),
                "max": round(max(values), 4),
                "values": [round(value, 4) for value in values],
            }
    return found


def with_table(text: str, table: Table, scores: Summary) -> str:
    """A document with its table of scores: the mean of all runs, and the lowest and the highest."""
    stages = ("pretrain", "sft", "dpo", "grpo")
    lines = [f"| {table.head} | pretrain | SFT | DPO | GRPO |", "| --- | --- | --- | --- | --- |"]
    for score, name in table.rows.items():
        found = [scores[stage][score] for stage in stages]
        cells = [f"{s['mean']:.2f} ({s['min']:.2f}–{s['max']:.2f})" for s in found]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    written = "\n".join(lines)
    return MARKED.sub(lambda m: f"{m[1]}\n{written}\n\n{m[2]}", text)


def write_tables(path: Path) -> None:
    scores = msgspec.json.decode(path.read_bytes())["scores"]
    for table in TABLES:
        text = with_table(table.document.read_text(encoding="utf-8"), table, scores)
        write_atomically(table.document, text.encode())


def main(options: Options) -> None:
    if not options.train:
        write_tables(options.out)
        return
    kinds = arithmetics() if options.plain else [torch.backends.cpu.get_cpu_capability()]
    runs = [(seed, arithmetic) for seed in options.seeds for arithmetic in kinds]
    lab.tokenizer()  # before several processes ask for it
    with ThreadPoolExecutor(options.processes) as pool:
        reports = list(pool.map(lambda run: train(*run), runs))
    content = {
        "machine": machine(),
        "torch": str(torch.__version__),
        "runs": [{"seed": seed, "arithmetic": capability} for seed, capability in runs],
        "scores": summary(reports),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out, msgspec.json.format(msgspec.json.encode(content), indent=1))
    if options.out == lab.RESULTS:
        write_tables(options.out)
    print(f"{len(runs)} runs: {options.out}")


if __name__ == "__main__":
    start(main, Options)
