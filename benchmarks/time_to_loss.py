"""How long until the loss is the same? The recipes of two published trainers beside this one's.

    python benchmarks/time_to_loss.py                  # the tiny model on the built-in micro-world
    python benchmarks/time_to_loss.py --data FILE      # on rows of your own (FILE_val beside it)

Same model, weights, data, tokenizer, machine and training loop; what differs is how rows are made
of documents, how many there are to a step, and optimizer and schedule. The first recipe runs for
``--minutes``; its loss at the end is the goal, and every other one stops when it is there. Then
this project's recipe again, with one thing changed at a time. Time is that of training: the
validation that tells the loss is not counted.
"""

from __future__ import annotations

import math
import tempfile
import time
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from setting import machine, start

from minillm import lab, trainer
from minillm.checkpoint import load_checkpoint
from minillm.config import TRAINING, TrainConfig, UserError
from minillm.model import Transformer
from minillm.objectives import next_token_loss, validation_loss
from minillm.tensors import PackedRows, TokenDataset, load_dataset


@dataclass(frozen=True)
class Options:
    """Measure the time to a loss."""

    data: Path | None = None
    """Rows to pretrain on; none: the micro-world's."""
    minutes: float = 6.0
    """For which the first recipe runs."""
    validation_rows: int = 64
    """Packed rows that the loss is measured on."""
    seed: int = 42


class PaddedRows(PackedRows):
    """One document a row, the rest is padding: MiniMind's dataset."""

    def __init__(
        self, data: TokenDataset, max_seq_len: int, epochs: int, seed: int, shuffle: bool = True
    ) -> None:
        self.data, self.row_length = data, max_seq_len
        rng = np.random.default_rng(seed)
        self.rows = [[int(unit)] for _ in range(epochs) for unit in rng.permutation(len(data))]


class CroppedRows(PackedRows):
    """Rows filled to the brim; of the document that no longer fits the end is thrown away:
    nanochat's loader. It looks for the longest that fits, and crops the shortest if none does."""

    LOOK_AT = 1000

    def __init__(
        self, data: TokenDataset, max_seq_len: int, epochs: int, seed: int, shuffle: bool = True
    ) -> None:
        offsets: list[int] = []
        ends: list[int] = []
        rows: list[list[int]] = []
        for epoch in range(epochs):
            rng = np.random.default_rng((seed, epoch))
            queue = rng.permutation(len(data)).tolist()
            lengths = data.positions()
            waiting: list[tuple[int, int]] = []  # (length, document), sorted
            while queue or waiting:
                row: list[int] = []
                room = max_seq_len
                while room and (queue or waiting):
                    while queue and len(waiting) < self.LOOK_AT:
                        unit = queue.pop()
                        insort(waiting, (int(lengths[unit]), unit))
                    fitting = bisect_left(waiting, (room + 1, -1))
                    _, unit = waiting.pop(fitting - 1 if fitting else 0)
                    taken = min(int(lengths[unit]), room)
                    start = int(data.offsets[unit])
                    row.append(len(offsets))
                    offsets.append(start)
                    ends.append(start + taken + 1)
                    room -= taken
                rows.append(row)
        # A dataset whose documents are the pieces: each begins and ends anywhere in the tokens.
        pieces = [data.ids[a:b] for a, b in zip(offsets, ends, strict=True)]
        masks = [data.mask[a:b] for a, b in zip(offsets, ends, strict=True)]
        self.data = replace(
            data,
            ids=np.concatenate(pieces),
            mask=np.concatenate(masks),
            offsets=np.cumsum([0, *(len(piece) for piece in pieces)]),
        )
        self.rows, self.row_length = rows, max_seq_len


def cosine(step: int, total: int, warmup_fraction: float, decay_fraction: float) -> float:
    """From 1 to 0.1 along half a cosine, without a warm-up."""
    return 0.1 + 0.45 * (1 + math.cos(math.pi * step / total))


@dataclass(frozen=True)
class Recipe:
    name: str
    rows: type[PackedRows] = PackedRows
    schedule: Callable[[int, int, float, float], float] = trainer.learning_rate_factor
    changes: tuple[tuple[str, Any], ...] = ()


ADAMW = (("optimizer", "adamw"), ("learning_rate", 3e-3))
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
            ("max_steps", 100_000),
        ),
    ),
    Recipe("nanochat's rows: best fit, cropped; otherwise ours", CroppedRows),
    Recipe("ours: packed whole, 1,024 tokens a step, Muon, warmup-stable-decay"),
    Recipe("ours, but one document a row, padded", PaddedRows),
    Recipe("ours, but a cosine to 10%, no warm-up", schedule=cosine),
    Recipe("ours, but AdamW at 3e-3", changes=ADAMW),
    Recipe("ours, but 8 times the rows in a step", changes=(("accumulation_steps", 8),)),
)


class Reached(Exception):
    """The loss is as low as wanted, or the time is over."""


@dataclass
class Clock:
    """Looks at the validation loss now and then, and keeps the time between."""

    measure: Callable[[Transformer], float]
    goal: float
    seconds_left: float
    every: float = 2.0
    training: float = 0.0
    steps: int = 0
    loss: float = math.inf

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.next_look = self.every

    def look(self, step: int, model: Transformer) -> None:
        now = time.monotonic()
        self.training += now - self.started
        self.steps = step
        if self.training >= self.next_look or self.training >= self.seconds_left:
            self.loss = self.measure(model)
            # A goal is seen half a second and a few percent late at most.
            self.next_look = self.training * 1.03 + 0.5
            if self.loss <= self.goal or self.training >= self.seconds_left:
                raise Reached
        self.started = time.monotonic()


def run(
    recipe: Recipe, config: TrainConfig, measure: Callable[[Transformer], float], clock: Clock
) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        patch.object(trainer, "PackedRows", recipe.rows),
        patch.object(trainer, "learning_rate_factor", recipe.schedule),
    ):
        folder = Path(name)
        config = replace(
            config,
            out_dir=folder / "out",
            tf_dir=folder / "tf_dir",
            save_every=10**9,
            eval_every=10**9,
            **dict(recipe.changes),
        )
        try:
            trainer.train(config, "pretrain", clock.look)
        except Reached:
            return
        # The run came to its end.
        clock.loss = measure(load_checkpoint(folder / "out" / "pretrain.safetensors")[0])


def main(options: Options) -> None:
    if options.data and not options.data.is_file():
        raise UserError(f"--data {options.data}: no such file")
    config = replace(
        TRAINING["tiny"]["pretrain"],
        data_path=options.data or lab.data() / "pretrain_chinese.jsonl",
        tokenizer_path=lab.ladder("pretrain").folder / "tokenizer",
        seed=options.seed,
        device="cpu",
    )
    tokenizer = lab.tokenizer()
    val_path = trainer.validation_path(config.data_path)
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
    print(
        "| recipe | steps | seconds | bits per byte | times ours |\n| --- | --- | --- | --- | --- |"
    )
    goal = -math.inf
    results = []
    for recipe in RECIPES:
        clock = Clock(measure, goal, options.minutes * 60)
        run(recipe, config, measure, clock)
        if goal == -math.inf:
            goal = clock.loss
        results.append((recipe, clock))
    ours = next(clock.training for recipe, clock in results if recipe.name.startswith("ours: "))
    for recipe, clock in results:
        reached = "" if clock.loss <= goal else "more than "
        print(
            f"| {recipe.name} | {clock.steps:,} | {clock.training:.0f} | {clock.loss:.3f} | "
            f"{reached}{clock.training / ours:.1f} |"
        )


if __name__ == "__main__":
    start(main, Options)
