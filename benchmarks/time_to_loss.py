"""How long until the loss is the same? The recipes of two published trainers beside this one's.

    python benchmarks/time_to_loss.py                  # the tiny model on the built-in micro-world
    python benchmarks/time_to_loss.py --data FILE      # on rows of your own (FILE_val beside it)

Same model, weights, data, tokenizer, machine and training loop; what differs is how rows are made
of documents, how many there are to a step, and optimizer and schedule. The first recipe runs for
``--steps``, the others to the end of the preset's schedule; the last ones are this project's recipe
with one thing changed at a time. The table says when each was at the loss that the first recipe
ended at, and at some lower ones. Time is that of training: the validation that tells the loss is
not counted.
"""

from __future__ import annotations

import math
import tempfile
import time
from bisect import bisect_left, insort
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from setting import machine, start

import msgspec
import numpy as np

from minillm.book import lab
from minillm.config import TRAINING, TrainConfig
from minillm.data.shards import validation_path
from minillm.errors import UserError
from minillm.model.transformer import Transformer
from minillm.training import loop, optimizers
from minillm.training.dataset import TokenDataset, load_dataset
from minillm.training.objectives import next_token_loss, validation_loss
from minillm.training.packing import PackedRows


@dataclass(frozen=True)
class Options:
    """Measure the time to a loss."""

    data: Path | None = None
    """Rows to pretrain on; none: the micro-world's."""
    steps: int = 60
    """For which the first recipe runs, 256 documents each."""
    validation_rows: int = 64
    """Packed rows that the loss is measured on."""
    seed: int = 42


class PaddedRows(PackedRows):
    """One document a row, the rest is padding: MiniMind's dataset."""

    def __init__(
        self,
        data: TokenDataset,
        max_seq_len: int,
        epochs: int,
        seed: int,
        shuffle: bool = True,
        most: int | None = None,
    ) -> None:
        self.data, self.row_length = data, max_seq_len
        rng = np.random.default_rng(seed)
        orders = [rng.permutation(len(data)) for _ in range(epochs)]
        self.units = np.concatenate(orders).astype(np.int32)
        self.starts = np.arange(len(self.units))
        self.ends = self.starts + 1


class CroppedRows(PackedRows):
    """Rows filled to the brim; of the document that no longer fits the end is thrown away:
    nanochat's loader. It looks for the longest that fits, and crops the shortest if none does."""

    LOOK_AT = 1000

    def __init__(
        self,
        data: TokenDataset,
        max_seq_len: int,
        epochs: int,
        seed: int,
        shuffle: bool = True,
        most: int | None = None,
    ) -> None:
        offsets: list[int] = []
        ends: list[int] = []
        row_ends: list[int] = []
        for epoch in range(epochs):
            rng = np.random.default_rng((seed, epoch))
            queue = rng.permutation(len(data)).tolist()
            lengths = data.positions()
            waiting: list[tuple[int, int]] = []  # (length, document), sorted
            while queue or waiting:
                room = max_seq_len
                while room and (queue or waiting):
                    while queue and len(waiting) < self.LOOK_AT:
                        unit = queue.pop()
                        insort(waiting, (int(lengths[unit]), unit))
                    fitting = bisect_left(waiting, (room + 1, -1))
                    _, unit = waiting.pop(fitting - 1 if fitting else 0)
                    taken = min(int(lengths[unit]), room)
                    start = int(data.offsets[unit])
                    offsets.append(start)
                    ends.append(start + taken + 1)
                    room -= taken
                row_ends.append(len(offsets))
        # A dataset whose documents are the pieces: each begins and ends anywhere in the tokens.
        pieces = [data.ids[a:b] for a, b in zip(offsets, ends, strict=True)]
        masks = [data.mask[a:b] for a, b in zip(offsets, ends, strict=True)]
        self.data = replace(
            data,
            ids=np.concatenate(pieces),
            mask=np.concatenate(masks),
            offsets=np.cumsum([0, *(len(piece) for piece in pieces)]),
        )
        self.row_length = max_seq_len
        self.units = np.arange(len(offsets), dtype=np.int32)
        self.ends = np.array(row_ends)
        self.starts = np.array([0, *row_ends[:-1]])


def cosine(step: int, total: int, warmup_fraction: float, decay_fraction: float) -> float:
    """From 1 to 0.1 along half a cosine, without a warm-up."""
    return 0.1 + 0.45 * (1 + math.cos(math.pi * step / total))


@dataclass(frozen=True)
class Recipe:
    name: str
    rows: type[PackedRows] = PackedRows
    schedule: Callable[[int, int, float, float], float] = optimizers.learning_rate_factor
    changes: tuple[tuple[str, Any], ...] = ()


LOWER = (1.0, 0.5, 0.3)
"""Bits per byte."""
ADAMW = (("optimizer", "adamw"), ("learning_rate", 2e-3))
RECIPES = (
    Recipe(
        "MiniMind's: padded to 340, 256 documents a step, AdamW 5e-4, cosine",
        PaddedRows,
        cosine,
        (
            ("max_seq_len", 340),
            ("batch_size", 32),
            ("accumulation_steps", 8),
            ("optimizer", "adamw"),
            ("learning_rate", 5e-4),
        ),
    ),
    Recipe("nanochat's rows: best fit, cropped; otherwise ours", CroppedRows),
    Recipe("ours: packed whole, 1,024 tokens a step, Muon, warmup-stable-decay"),
    Recipe("ours, but one document a row, padded", PaddedRows),
    Recipe("ours, but a cosine to 10%, no warm-up", schedule=cosine),
    Recipe("ours, but AdamW at 2e-3", changes=ADAMW),
    Recipe(
        "ours, but 8 times the rows in a step, an eighth of the steps",
        changes=(("accumulation_steps", 8), ("max_steps", 187)),
    ),
)


@dataclass
class Clock:
    """Looks at the validation loss now and then, and keeps the time between."""

    measure: Callable[[Transformer], float]
    last_step: int
    training: float = 0.0
    loss: float = math.inf
    seen: list[tuple[float, int, float]] = field(default_factory=list)
    """Loss, step and seconds of every look."""

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.next_look = 0.0

    def look(self, step: int, model: Transformer) -> None:
        self.training += time.monotonic() - self.started
        if self.training >= self.next_look or step == self.last_step:
            self.loss = self.measure(model)
            self.seen.append((self.loss, step, self.training))
            # A loss is seen half a second and a few percent late at most.
            self.next_look = self.training * 1.03 + 0.5
        self.started = time.monotonic()

    def first(self, goal: float) -> tuple[int, float] | None:
        """Step and seconds at which the loss was first seen at the goal."""
        return next(((step, taken) for loss, step, taken in self.seen if loss <= goal), None)


def run(recipe: Recipe, config: TrainConfig, clock: Clock) -> list[int]:
    """Trains; returns the number of tokens learned from by the end of each step."""
    with (
        tempfile.TemporaryDirectory() as name,
        patch.object(loop, "PackedRows", recipe.rows),
        patch.object(loop, "learning_rate_factor", recipe.schedule),
        redirect_stdout(StringIO()),
    ):
        config = replace(
            config,
            out_dir=Path(name),
            tf_dir=Path(name) / "tf_dir",
            save_every=10**9,
            eval_every=10**9,
        )
        loop.train(config, "pretrain", clock.look)
        lines = (Path(name) / "pretrain_log.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line)["tokens"] for line in lines]


def main(options: Options) -> None:
    if options.data and not options.data.is_file():
        raise UserError(f"--data {options.data}: no such file")
    config = replace(
        TRAINING["tiny"]["pretrain"],
        data_path=options.data or lab.data() / "pretrain_chinese.jsonl",
        tokenizer_path=lab.tokenizer_path(),
        seed=options.seed,
        device="cpu",
    )
    tokenizer = lab.tokenizer()
    val_path = validation_path(config.data_path)
    cache = lab.cache_dir() / "tokens"
    data = load_dataset(val_path, "pretrain", tokenizer, config.max_seq_len, cache)
    rows = PackedRows(data, config.max_seq_len, 1, 0, True)
    number = min(options.validation_rows, len(rows))
    batches = [rows.batch(range(i, min(i + 8, number))) for i in range(0, number, 8)]
    # Bits per byte: nats per token over bits and bytes per token of these very rows.
    tokens = sum(int((batch.labels >= 0).sum()) for batch in batches)
    text = sum(
        len(tokenizer.token_bytes(label))
        for batch in batches
        for label in batch.labels[batch.labels >= 0].tolist()
    )

    def measure(model: Transformer) -> float:
        nats = validation_loss(next_token_loss, model, batches)["loss"]
        return nats * tokens / math.log(2) / text

    print(f"{machine()}; tiny model; bits per byte on {tokens:,} held-out tokens\n")
    results: list[tuple[Recipe, Clock, list[int]]] = []
    for recipe in RECIPES:
        changed = replace(config, **dict(recipe.changes))
        if not results:
            changed = replace(changed, max_steps=options.steps, epochs=10)
        assert changed.max_steps is not None
        clock = Clock(measure, changed.max_steps)
        results.append((recipe, clock, run(recipe, changed, clock)))
    goals = (results[0][1].loss, *LOWER)
    cells = [f"to {goal:.3f}: s, tokens" for goal in goals]
    print(f"| recipe | {' | '.join(cells)} | whole run: s, loss |")
    print("| --- |" + " --- |" * (len(goals) + 1))
    for recipe, clock, learned in results:
        cells = []
        for goal in goals:
            found = clock.first(goal)
            cells.append(f"{found[1]:.0f}, {learned[found[0] - 1]:,}" if found else "")
        cells.append(f"{clock.training:.0f}, {clock.loss:.3f}")
        print(f"| {recipe.name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    start(main, Options)
