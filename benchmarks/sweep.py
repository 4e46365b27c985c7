"""Learning rates of a preset's stages: where its defaults come from.

    python benchmarks/sweep.py                     # pretrain, 200 steps, Muon and AdamW
    python benchmarks/sweep.py --stage sft --steps 800 --optimizers muon --seeds 1 2 3
    python benchmarks/sweep.py --preset default --data FILE    # FILE_val beside it; on a GPU

Trains from the same start with each learning rate, everything else as in the preset, with its
schedule over ``--steps``. Prints the validation loss at the end, and for SFT and DPO what the model
can do then: its mean accuracy over the kinds of questions, and after DPO the share of answers that
are polite. Of several seeds it prints the mean, and in brackets the lowest and the highest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import Literal

from setting import machine, start

import msgspec

from minillm.book import lab
from minillm.config import PREVIOUS_STAGE, TRAINING, DataStage, TrainConfig
from minillm.data.shards import validation_path
from minillm.errors import UserError
from minillm.evaluate import EvaluateOptions, evaluate
from minillm.training.loop import train


@dataclass(frozen=True)
class Options:
    """Try learning rates."""

    preset: Literal["tiny", "default"] = "tiny"
    stage: DataStage = "pretrain"
    steps: int = 200
    optimizers: tuple[Literal["muon", "adamw"], ...] = ("muon", "adamw")
    learning_rates: tuple[float, ...] = (1e-3, 2e-3, 3e-3, 6e-3, 1.2e-2, 2.4e-2)
    seeds: tuple[int, ...] = (42,)
    """Each is a run of its own."""
    data: Path | None = None
    """Rows to train on, those of FILE_val beside it to validate; none: the micro-world's."""
    init_from: Path | None = None
    """Weights that SFT or DPO starts from; none: those of the book's tiny model."""
    max_seq_len: int | None = None
    """Instead of the preset's, as are the next two."""
    batch_size: int | None = None
    accumulation_steps: int | None = None


def result(config: TrainConfig, stage: DataStage) -> dict[str, float]:
    """Trains, and says how it went."""
    train(config, stage)
    lines = (config.out_dir / f"{stage}_log.jsonl").read_bytes().splitlines()
    values = {"loss": msgspec.json.decode(lines[-1])["val_loss"]}
    if config.init_from is None:
        return values
    scores = evaluate(
        EvaluateOptions(
            stage=stage,
            out_dir=config.out_dir,
            data_dir=lab.data(),
            tokenizer_path=config.tokenizer_path,
            items=60,
            max_seq_len=config.max_seq_len,
        )
    )
    values["accuracy"] = fmean(scores["accuracy"].values())
    if stage == "dpo":
        values["polite"] = scores["polite"]
    return values


def cell(results: Sequence[dict[str, float]]) -> str:
    """The mean of every value; of several results also the lowest and the highest."""
    parts = []
    for name in results[0]:
        values = [result[name] for result in results]
        digits = 3 if name == "loss" else 2
        text = f"{fmean(values):.{digits}f}"
        if len(values) > 1:
            text += f" ({min(values):.{digits}f}-{max(values):.{digits}f})"
        parts.append(text if name == "loss" else f"{name} {text}")
    return ", ".join(parts)


def main(options: Options) -> None:
    stage, tiny = options.stage, options.preset == "tiny"
    before = PREVIOUS_STAGE[stage]
    init_from = options.init_from
    if before and init_from is None:
        if not tiny:
            raise UserError(f"--init_from: name weights of the {before} stage to start from")
        init_from = lab.ladder(before).weights
    preset = TRAINING[options.preset][stage]
    base = replace(
        preset,
        data_path=options.data or lab.data() / f"{stage}_chinese.jsonl",
        tokenizer_path=lab.tokenizer_path() if tiny else None,
        init_from=init_from,
        max_steps=options.steps,
        eval_every=10**6,
        save_every=10**6,
        max_seq_len=options.max_seq_len or preset.max_seq_len,
        batch_size=options.batch_size or preset.batch_size,
        accumulation_steps=options.accumulation_steps or preset.accumulation_steps,
    )
    if not validation_path(base.data_path).is_file():
        raise UserError(f"{validation_path(base.data_path)}: no such file, to validate on")
    positions = base.batch_size * base.accumulation_steps * base.max_seq_len
    print(
        f"{machine()}; {options.preset}, {stage}, at most {options.steps} steps of {positions:,} "
        f"positions, seeds {options.seeds}: validation loss at the end\n"
    )
    print("| learning rate | " + " | ".join(options.optimizers) + " |")
    print("| --- |" + " --- |" * len(options.optimizers))
    for rate in options.learning_rates:
        cells = []
        for optimizer in options.optimizers:
            results = []
            try:
                for seed in options.seeds:
                    with tempfile.TemporaryDirectory() as name, redirect_stdout(StringIO()):
                        config = replace(
                            base,
                            out_dir=Path(name),
                            tf_dir=Path(name) / "tf_dir",
                            optimizer=optimizer,
                            learning_rate=rate,
                            seed=seed,
                        )
                        results.append(result(config, stage))
                cells.append(cell(results))
            except UserError as error:
                cells.append(f"{error}")
        print(f"| {rate:g} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    start(main, Options)
