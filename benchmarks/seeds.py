"""What the tiny preset learns under other seeds and arithmetic: the book's claims rest on it.

    python benchmarks/seeds.py    # goes on where it was stopped: runs are taken from the cache

Another processor rounds differently, which changes the outcome of training as another seed does. So
each seed is trained twice, with PyTorch's plain kernels (ATEN_CPU_CAPABILITY=default) and with
those that it chooses for this machine, each on one thread. Writes ``book/results/seeds.json``: for
every score after every stage its mean, its standard deviation, its lowest and its highest value,
and the value of each run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from setting import machine, start

from minillm import lab
from minillm.checkpoint import write_atomically

REPORT = (
    "import msgspec; from minillm import lab; print(msgspec.json.encode(lab.report()).decode())"
)

Report = dict[str, dict[str, float]]
"""Stage → score → value."""


@dataclass(frozen=True)
class Options:
    """Train the book's models under several seeds and two arithmetics."""

    seeds: tuple[int, ...] = (42, 1, 2, 3, 7)
    out: Path = lab.RESULTS
    processes: int = 2
    """Trained at a time, each on one thread."""


def train(seed: int, capability: str) -> Report:
    """All scores of one run; from the cache where there is one."""
    environment = {**os.environ, "MINILLM_SEED": str(seed), "MINILLM_QUIET": "1"}
    environment |= {"OMP_NUM_THREADS": "1"}
    environment.pop("ATEN_CPU_CAPABILITY", None)
    if capability == "default":
        environment["ATEN_CPU_CAPABILITY"] = capability
    command = [sys.executable, "-c", REPORT]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    print(f"seed {seed}, {capability}: done", file=sys.stderr, flush=True)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Report)


def summary(reports: list[Report]) -> dict[str, dict[str, dict[str, object]]]:
    """Stage → score → mean, std (of a sample), min, max, and the values in the order of runs."""
    found: dict[str, dict[str, dict[str, object]]] = {}
    for stage, scores in reports[0].items():
        found[stage] = {}
        for name in scores:
            values = [report[stage][name] for report in reports]
            found[stage][name] = {
                "mean": round(statistics.fmean(values), 4),
                "std": round(statistics.stdev(values), 4),
                "min": round(min(values), 4),
                "max": round(max(values), 4),
                "values": [round(value, 4) for value in values],
            }
    return found


def main(options: Options) -> None:
    native = torch.backends.cpu.get_cpu_capability()
    runs = [(seed, c) for seed in options.seeds for c in ("default", native)]
    lab.tokenizer()  # before several processes ask for it
    with ThreadPoolExecutor(options.processes) as pool:
        reports = list(pool.map(lambda run: train(*run), runs))
    content = {
        "machine": machine(),
        "torch": torch.__version__,
        "runs": [{"seed": seed, "arithmetic": capability} for seed, capability in runs],
        "scores": summary(reports),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out, msgspec.json.format(msgspec.json.encode(content), indent=1))
    print(f"{len(runs)} runs: {options.out}")


if __name__ == "__main__":
    start(main, Options)
