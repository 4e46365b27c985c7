"""Learning rates of the tiny preset's stages, each for a short run: where its defaults come from.

    python benchmarks/sweep.py                     # pretrain, Muon and AdamW
    python benchmarks/sweep.py --stage sft

Trains from the same start with each learning rate, everything else as in the preset, the schedule
shortened to ``--steps``, and prints the validation loss at the end.
"""

from __future__ import annotations

import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Literal

import msgspec
from setting import machine, start

from minillm import lab
from minillm.config import PREVIOUS_STAGE, TRAINING, Stage, UserError
from minillm.trainer import train


@dataclass(frozen=True)
class Options:
    """Try learning rates."""

    stage: Stage = "pretrain"
    steps: int = 200
    optimizers: tuple[Literal["muon", "adamw"], ...] = ("muon", "adamw")
    learning_rates: tuple[float, ...] = (1e-3, 2e-3, 3e-3, 6e-3, 1.2e-2, 2.4e-2)


def main(options: Options) -> None:
    previous = PREVIOUS_STAGE[options.stage]
    base = replace(
        TRAINING["tiny"][options.stage],
        data_path=lab.data() / f"{options.stage}_chinese.jsonl",
        tokenizer_path=lab.ladder("pretrain").folder / "tokenizer",
        init_from=lab.ladder(previous).weights if previous else None,
        max_steps=options.steps,
        eval_every=10**6,
        device="cpu",
    )
    print(f"{machine()}; {options.stage}, {options.steps} steps, validation loss at the end\n")
    print("| learning rate | " + " | ".join(options.optimizers) + " |")
    print("| --- |" + " --- |" * len(options.optimizers))
    for rate in options.learning_rates:
        cells = []
        for optimizer in options.optimizers:
            with tempfile.TemporaryDirectory() as name, redirect_stdout(StringIO()):
                config = replace(
                    base,
                    out_dir=Path(name),
                    tf_dir=Path(name) / "tf_dir",
                    optimizer=optimizer,
                    learning_rate=rate,
                )
                try:
                    train(config, options.stage)
                except UserError as error:
                    cells.append(f"{error}")
                else:
                    lines = (Path(name) / f"{options.stage}_log.jsonl").read_bytes().splitlines()
                    cells.append(f"{msgspec.json.decode(lines[-1])['val_loss']:.3f}")
        print(f"| {rate:g} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    start(main, Options)
