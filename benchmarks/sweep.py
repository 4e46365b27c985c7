"""Learning rates of the tiny preset's stages: where its defaults come from.

    python benchmarks/sweep.py                     # pretrain, 200 steps, Muon and AdamW
    python benchmarks/sweep.py --stage sft --steps 800 --optimizers muon

Trains from the same start with each learning rate, everything else as in the preset, with its
schedule over ``--steps``. Prints the validation loss at the end, and for SFT and DPO what the model
can do then: its mean accuracy over the kinds of questions, and after DPO the share of answers that
are polite.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import Literal

import msgspec
from setting import machine, start

from minillm import lab
from minillm.config import PREVIOUS_STAGE, TRAINING, Stage, TrainConfig, UserError
from minillm.evaluate import EvaluateOptions, evaluate
from minillm.trainer import train


@dataclass(frozen=True)
class Options:
    """Try learning rates."""

    stage: Stage = "pretrain"
    steps: int = 200
    optimizers: tuple[Literal["muon", "adamw"], ...] = ("muon", "adamw")
    learning_rates: tuple[float, ...] = (1e-3, 2e-3, 3e-3, 6e-3, 1.2e-2, 2.4e-2)


def result(config: TrainConfig, stage: Stage, previous: Path | None) -> str:
    """Trains, and says how it went: one cell of the table."""
    train(config, stage)
    lines = (config.out_dir / f"{stage}_log.jsonl").read_bytes().splitlines()
    cell = f"{msgspec.json.decode(lines[-1])['val_loss']:.3f}"
    if previous is None:
        return cell
    shutil.copy(previous, config.out_dir)  # DPO's reference
    scores = evaluate(
        EvaluateOptions(
            stage=stage,
            out_dir=config.out_dir,
            data_dir=config.data_path.parent,
            tokenizer_path=config.tokenizer_path,
            items=60,
            max_seq_len=config.max_seq_len,
            device="cpu",
        )
    )
    cell += f", accuracy {fmean(scores['accuracy'].values()):.2f}"
    return cell + (f", polite {scores['polite']:.2f}" if stage == "dpo" else "")


def main(options: Options) -> None:
    stage = options.stage
    before = PREVIOUS_STAGE[stage]
    previous = lab.ladder(before).weights if before else None
    base = replace(
        TRAINING["tiny"][stage],
        data_path=lab.data() / f"{stage}_chinese.jsonl",
        tokenizer_path=lab.ladder("pretrain").folder / "tokenizer",
        init_from=previous,
        max_steps=options.steps,
        eval_every=10**6,
        device="cpu",
    )
    print(f"{machine()}; {stage}, at most {options.steps} steps, validation loss at the end\n")
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
                    cells.append(result(config, stage, previous))
                except UserError as error:
                    cells.append(f"{error}")
        print(f"| {rate:g} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    start(main, Options)
