"""What the mix of its data does to a model: chapter 2 draws what this measures.

    python benchmarks/mixes.py     # about 10 minutes on one idle core

All start from the book's pretrained model, which has read everything as text, arithmetic included.
They are fine-tuned as the tiny preset is, on 4,000 conversations, each read once. Mixes differ:

    sums 0%, 1%, 20%           how many of the rows ask for sums; the others ask for all else
    sums 20%, half leaked      half of the held-out pairs of numbers are among those that are asked
    sums 20%, each 4 times     a quarter as many different rows about sums, four times each;
                               likewise a hundredth as many, 100 times each

Each model sits the same exams, whose cells none of the mixes but the leaked one asks for. Each seed
has other conversations in another order. Writes ``book/results/mixes.json`` after each run; a run
that the file has is not made again, so delete the file to measure anew.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from setting import machine, start

import msgspec
import torch

from minillm.book import lab
from minillm.config import TRAINING
from minillm.data.rows import to_messages
from minillm.evaluate import Evaluator
from minillm.files import write_atomically
from minillm.microworld import exercises, scoring
from minillm.training.checkpoint import load_checkpoint
from minillm.training.loop import train

RESULTS = Path(__file__).resolve().parents[1] / "book" / "results" / "mixes.json"
OTHERS = {"fact": 0.5, "reading": 0.2, "choice": 0.15, "calendar": 0.15}
"""What the rows without sums ask, by weight."""
LEAKED, CLEAN = exercises.SUMS.held_out[::2], exercises.SUMS.held_out[1::2]
"""Halves of the held-out pairs of numbers."""
Cells = tuple[tuple[int, int], ...]


class Mix(NamedTuple):
    """How many of the rows ask for sums, and for which."""

    share: float
    times: int = 1
    """Each row about sums comes so often; the fewer different ones there are."""
    leaked: bool = False


MIXES = {
    "sums 0%": Mix(0),
    "sums 1%": Mix(0.01),
    "sums 20%": Mix(0.2),
    "sums 20%, half leaked": Mix(0.2, leaked=True),
    "sums 20%, each 100 times": Mix(0.2, times=100),
    "sums 20%, each 4 times": Mix(0.2, times=4),
}


@dataclass(frozen=True)
class Options:
    """Fine-tune models on several mixes, and score each on the same exams."""

    out: Path = RESULTS
    seeds: tuple[int, ...] = (42, 7)
    rows: int = 4_000
    """Conversations to fine-tune on."""
    items: int = 60
    """Questions in an exam."""


def conversation(rng: Random, asked: exercises.Exercise) -> dict[str, Any]:
    turns = (
        *asked.history,
        ("user", asked.question),
        ("assistant", exercises.reply_to(rng, asked)),
    )
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def sums(rng: Random, n: int, cells: Cells) -> list[dict[str, Any]]:
    """Half of them asked directly, of ``cells``; half to be counted, of those that training may
    ask for."""
    makers = (lambda: exercises.add(rng, cells), lambda: exercises.MAKERS["chain"](rng, False))
    return [conversation(rng, makers[i % 2]()) for i in range(n)]


def rows_of(mix: Mix, total: int, seed: int) -> list[dict[str, Any]]:
    """The conversations of a mix, shuffled."""
    rng = Random(f"{mix} {seed}")
    cells = exercises.SUM_POOLS["sft"] + (LEAKED if mix.leaked else ())
    found = sums(rng, round(total * mix.share / mix.times), cells) * mix.times
    while len(found) < total:
        found.append(conversation(rng, exercises.draw(rng, OTHERS)))
    rng.shuffle(found)
    return found


def exam(cells: Cells, items: int) -> list[scoring.Question]:
    """Different questions for the sums of these cells, as many of each."""
    found: dict[str, scoring.Question] = {}
    rng = Random("exam")
    for i in range(50 * items):
        asked = exercises.add(rng, (cells[i % len(cells)],))
        if len(found) < items:
            question = scoring.Question("add", (("user", asked.question),), asked.answer)
            found[asked.question] = question
    return list(found.values())


def exams(items: int) -> dict[str, list[scoring.Question]]:
    """Name → questions."""
    return {
        "fact": scoring.questions("fact", items),
        "chain": scoring.questions("chain", items),
        "add leaked": exam(LEAKED, items),
        "add clean": exam(CLEAN, items),
    }


def trained(rows: Sequence[dict[str, Any]], folder: Path, start: Path, seed: int) -> Path:
    """The weights after fine-tuning on these rows, each read once."""
    data = folder / "rows.jsonl"
    write_atomically(data, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    config = replace(
        TRAINING["tiny"]["sft"],
        data_path=data,
        out_dir=folder,
        tf_dir=folder / "tf_dir",
        tokenizer_path=lab.tokenizer_path(),
        init_from=start,
        max_steps=None,
        save_every=10**6,
        seed=seed,
        device="cpu",
    )
    with redirect_stdout(StringIO()):
        return train(config, "sft")


def score(weights: Path, items: int) -> dict[str, float]:
    """Exam → share of right answers."""
    evaluator = Evaluator(load_checkpoint(weights)[0].eval(), lab.tokenizer())
    found = {}
    for name, questions in exams(items).items():
        replies = evaluator.chat([to_messages(q.messages) for q in questions])
        right = [q.is_correct(reply) for q, reply in zip(questions, replies, strict=True)]
        found[name] = round(sum(right) / len(right), 4)
    return found


def main(options: Options) -> None:
    content: dict[str, Any] = {}
    if options.out.exists():
        content = msgspec.json.decode(options.out.read_bytes())
    size = {"rows": options.rows, "items": options.items}
    if any(content.get(name) != value for name, value in size.items()):
        content = {"runs": []}  # of other exams, or of less to learn from
    runs = content["runs"]
    made = {(run["mix"], run["seed"]) for run in runs}
    base = lab.ladder("pretrain").weights
    for name, seed in product(MIXES, options.seeds):
        if (name, seed) in made:
            continue
        rows = rows_of(MIXES[name], options.rows, seed)
        with tempfile.TemporaryDirectory() as folder:
            weights = trained(rows, Path(folder), base, seed)
            scores = score(weights, options.items)
        runs.append({"mix": name, "seed": seed, "scores": scores})
        content = {
            "machine": machine(),
            "torch": str(torch.__version__),
            **size,
            "runs": runs,
        }
        text = msgspec.json.format(msgspec.json.encode(content), indent=1)
        write_atomically(options.out, text + b"\n")
        print(f"{name}, seed {seed}: {scores}", flush=True)
    print(f"{len(runs)} runs: {options.out}")


if __name__ == "__main__":
    start(main, Options)
