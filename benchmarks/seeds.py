"""What the tiny preset learns under other seeds and arithmetic: the book's claims rest on it.

    python benchmarks/seeds.py             # a run that was made before is in the cache
    python benchmarks/seeds.py --no-plain  # each seed once, with this machine's kernels only
    python benchmarks/seeds.py --no-train  # only writes the READMEs' tables from the file

Another processor rounds differently, which moves most scores as much as another seed does. So each
seed is trained twice, with PyTorch's plain kernels (ATEN_CPU_CAPABILITY=default) and with those
that it chooses for this machine, each on one thread (once where these are the same). Writes
``book/results/seeds.json``: for every score after every stage its mean, its standard deviation, its
lowest and its highest value, and the value of each run. The tables of README.md and README.zh.md
are written from that file.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    "answer fact": ("facts about people", "人物的事实"),
    "answer phrasing": ("facts, asked in phrasings never seen", "换一种从没见过的问法"),
    "answer reading": ("reading a story", "读故事回答问题"),
    "answer multi_turn": ("second question of a conversation", "多轮对话的第二问"),
    "answer choice": ("multiple choice, answered", "选择题（回答内容）"),
    "answer calendar": ("calendar", "日历推算"),
    "answer add": ("sums without counting", "直接算加法"),
    "answer sub": ("differences without counting", "直接算减法"),
    "answer chain": ("sums and differences, step by step", "一步一步数着算"),
    "answer shop": ("shopping", "购物算账"),
    "multiple choice": ("multiple choice, the likeliest option", "选择题（按似然选）"),
    "polite": ("polite style (what DPO teaches)", "礼貌的风格（DPO 要教的）"),
    "question 2": ("second question of a chat of all kinds", "一次聊天里，各类题混着问：第 2 问"),
    "question 10": ("tenth question of that chat", "同一次聊天：第 10 问"),
    "identity": ("who are you, in paraphrases never seen", "“你是谁”的新问法"),
    "identity in a chat": ("the same, at the end of that chat", "同一次聊天的最后，再这样问"),
}
"""Score → its name in README.md and in README.zh.md."""
READMES = {lab.ROOT / "README.md": "held-out test", lab.ROOT / "README.zh.md": "留出测试"}
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
    """With --no-train only the READMEs' tables are written."""


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


def with_table(text: str, language: int, head: str, scores: Summary) -> str:
    """A README with its table of scores: the mean of all runs, and the lowest and the highest."""
    stages = ("pretrain", "sft", "dpo", "grpo")
    lines = [f"| {head} | pretrain | SFT | DPO | GRPO |", "| --- | --- | --- | --- | --- |"]
    for score, names in ROWS.items():
        found = [scores[stage][score] for stage in stages]
        cells = [f"{s['mean']:.2f} ({s['min']:.2f}–{s['max']:.2f})" for s in found]
        lines.append(f"| {names[language]} | {' | '.join(cells)} |")
    table = "\n".join(lines)
    return MARKED.sub(lambda m: f"{m[1]}\n{table}\n\n{m[2]}", text)


def write_tables(path: Path) -> None:
    scores = msgspec.json.decode(path.read_bytes())["scores"]
    for language, (readme, head) in enumerate(READMES.items()):
        text = with_table(readme.read_text(encoding="utf-8"), language, head, scores)
        write_atomically(readme, text.encode())


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
