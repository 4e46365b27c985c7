"""The data mix against Hugging Face datasets: time and memory for 630,000 rows out of 450 MB.

    python benchmarks/mix.py

Makes the input (in .cache/bench, once), lets both build the three training files from it in fresh
processes, and prints a Markdown table. Both sample or repeat every category to the default target,
tag each row with its source, shuffle, and write the pretraining, SFT and DPO files. Only MiniLLM
also checks every row, removes duplicates, holds out validation documents and counts tokens.
The last row is MiniLLM on several times the input: its memory may grow by 80 bytes a row, for where
each stands and what it hashes to, not by the text.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from setting import CACHE, machine, start

import msgspec
import psutil  # type: ignore[import-untyped]

from minillm.cli import run_mix
from minillm.data.mix import MixOptions

ROWS = {
    "general": 380_000,
    "knowledge": 120_000,
    "math": 8_000,
    "identity": 1_000,
    "preference": 60_000,
}
EXPECTED = {"pretrain": 570_000, "sft": 570_000, "dpo": 60_000}
INPUTS = CACHE / "bench"


@dataclass(frozen=True)
class Options:
    """Compare the data mix with Hugging Face datasets."""

    repeats: int = 3
    """Runs of each; the median counts."""
    larger: int = 4
    """How many times the input for the last row is larger."""
    processes: int = 2
    """num_proc of datasets."""
    run: str = ""
    """Internal: run one contender in this process."""
    data: Path = Path()
    out: Path = Path()


# --- Input ----------------------------------------------------------------------------------------


def rows(category: str, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Conversations of random Han characters, as long as real ones; every hundredth comes twice."""
    rng = random.Random(f"{category} {seed}")
    pool = "".join(rng.choices([chr(c) for c in range(0x4E00, 0x4E00 + 3000)], k=400_000))

    def text(shortest: int, longest: int) -> str:
        length = rng.randint(shortest, longest)
        start = rng.randrange(len(pool) - length)
        return pool[start : start + length] + "。"

    def turns(longest: int, rounds: int = 1) -> list[dict[str, str]]:
        return [
            {"role": role, "content": text(10, 60 if role == "user" else longest)}
            for _ in range(rounds)
            for role in ("user", "assistant")
        ]

    row: dict[str, Any] = {}
    for i in range(count):
        if i % 100 != 1:
            if category == "preference":
                chosen = turns(300)
                row = {"chosen": chosen, "rejected": [chosen[0], turns(300)[1]]}
            else:
                long = category == "general"
                row = {"messages": turns(300 if long else 60, 2 if long and i % 4 == 0 else 1)}
        yield {**row, "id": i, "topic": "闲聊"}


def make_input(times: int) -> Path:
    """A folder of *.jsonl, ``times`` files of each category."""
    folder = INPUTS / f"mix-{times}"
    if not folder.exists():
        work = folder.with_name(folder.name + ".part")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        for category, count in ROWS.items():
            for part in range(times):
                with (work / f"{category}_{part}.jsonl").open("wb") as file:
                    for row in rows(category, count, part):
                        file.write(msgspec.json.encode(row) + b"\n")
        work.rename(folder)
    return folder


# --- Contenders -----------------------------------------------------------------------------------


def run_minillm(options: Options) -> None:
    run_mix(MixOptions(options.data, options.out))


def run_datasets(options: Options) -> None:
    """The same three files as one would write them with Hugging Face datasets."""
    import datasets
    from datasets import Dataset, concatenate_datasets, load_dataset

    datasets.disable_progress_bars()
    targets = MixOptions()
    parts: dict[str, Dataset] = {}
    for category in ROWS:
        files = sorted(map(str, options.data.glob(f"{category}_*.jsonl")))
        part = load_dataset(
            "json", data_files=files, split="train", cache_dir=str(options.out / "cache")
        )
        target = targets.target(category)
        assert target is not None
        target *= targets.identity_repeat if category == "identity" else 1
        order = list(range(len(part)))
        random.Random(0).shuffle(order)
        part = part.select([order[i % len(order)] for i in range(target)])
        parts[category] = part.add_column("source", [category] * target)

    def as_text(batch: dict[str, list[Any]]) -> dict[str, list[str]]:
        return {"text": ["\n".join(m["content"] for m in turns) for turns in batch["messages"]]}

    def write(data: Dataset, stage: str) -> None:
        path = options.out / f"{stage}_chinese.jsonl"
        data.to_json(path, num_proc=options.processes, force_ascii=False)

    write(parts.pop("preference").shuffle(seed=0), "dpo")
    chats = concatenate_datasets(list(parts.values())).shuffle(seed=0)
    write(chats, "sft")
    texts = chats.map(
        as_text, batched=True, remove_columns=["messages"], num_proc=options.processes
    )
    write(texts, "pretrain")
    shutil.rmtree(options.out / "cache")


CONTENDERS: dict[str, Callable[[Options], None]] = {
    "minillm": run_minillm,
    "datasets": run_datasets,
}


# --- Measuring ------------------------------------------------------------------------------------


def measure(name: str, data: Path, options: Options) -> tuple[float, float]:
    """Seconds, and the largest sum of memory (RSS) over all processes in MB, of one run."""
    with tempfile.TemporaryDirectory(dir=INPUTS) as out:
        command = [sys.executable, __file__, "--run", name, "--data", str(data), "--out", out]
        command += ["--processes", str(options.processes)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        start = time.perf_counter()
        process = psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        peak = 0
        while process.poll() is None:
            peak = max(peak, memory(process))
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        if process.returncode:
            sys.exit(f"{name} ended with exit code {process.returncode}")
        for stage, expected in EXPECTED.items():
            with (Path(out) / f"{stage}_chinese.jsonl").open("rb") as file:
                count = sum(1 for _ in file)
            if count != expected:
                sys.exit(f"{name}: {stage} has {count} rows, not {expected}")
    return seconds, peak / 1e6


def memory(process: psutil.Process) -> int:
    """Bytes of resident memory of a process and all below it."""
    total = 0
    try:
        for one in [process, *process.children(recursive=True)]:
            total += one.memory_info().rss
    except psutil.Error:  # it has just ended
        pass
    return total


def main(options: Options) -> None:
    if options.run:
        CONTENDERS[options.run](options)
        return
    inputs = {times: make_input(times) for times in (1, options.larger)}
    plans = [("minillm", 1), ("datasets", 1), ("minillm", options.larger)]
    # In turn, so that a busy minute of the machine meets all.
    runs = [
        [measure(n, inputs[times], options) for n, times in plans] for _ in range(options.repeats)
    ]
    results = [
        tuple(map(median, zip(*of_plan, strict=True))) for of_plan in zip(*runs, strict=True)
    ]
    print(f"{machine()}; median of {options.repeats}\n")
    print("| | input | seconds | ratio | peak memory |\n| --- | --- | --- | --- | --- |")
    for (name, times), (seconds, peak) in zip(plans, results, strict=True):
        size = sum(path.stat().st_size for path in inputs[times].iterdir()) / 1e6
        ratio = seconds / results[0][0]
        print(f"| {name} | {size:,.0f} MB | {seconds:.1f} | {ratio:.1f} | {peak:,.0f} MB |")


if __name__ == "__main__":
    start(main, Options)
