"""Kills training at random moments and checks that it goes on as if nothing had happened.

    python benchmarks/crash.py

Each stage trains a small model for some steps, saving after each, so that many kills fall into the
writing of a checkpoint. Then the same run is killed by SIGKILL at a random moment, resumed, perhaps
killed again, and resumed to the end. Final weights, the last checkpoint with the optimizer's state,
and every logged value must be the same bits as in the run that nobody killed.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from setting import machine, start

import msgspec
import torch
from safetensors.torch import load_file

from minillm.config import STAGES, TRAINING, DataStage, ModelConfig, TrainConfig
from minillm.training.checkpoint import checkpoint_paths, weights_path
from minillm.training.loop import train


@dataclass(frozen=True)
class Options:
    """Kill training at random moments, resume, and compare with a run that nobody killed."""

    kills: int = 20
    """Runs of each stage that are killed."""
    steps: int = 30
    """Optimizer steps of a run."""
    seed: int = 0
    """Of the moments."""


def row(stage: DataStage, i: int) -> dict[str, Any]:
    def chat(answer: str) -> list[dict[str, str]]:
        question = {"role": "user", "content": f"{i}加{i % 7}等于多少？"}
        return [question, {"role": "assistant", "content": answer}]

    if stage == "pretrain":
        return {"text": f"{i}加{i % 7}等于{i + i % 7}。" * (1 + i % 5)}
    if stage == "sft":
        return {"messages": chat(f"等于{i + i % 7}。")}
    return {"chosen": chat(f"等于{i + i % 7}，请收好。"), "rejected": chat(str(i))}


def settings(stage: DataStage, folder: Path, steps: int) -> TrainConfig:
    """A small model, and rows for it."""
    data_path = folder / f"{stage}.jsonl"
    data_path.write_bytes(b"".join(msgspec.json.encode(row(stage, i)) + b"\n" for i in range(300)))
    return replace(
        TRAINING["smoke"][stage],
        data_path=data_path,
        out_dir=folder / "out",
        tf_dir=folder / "tf_dir",
        model=ModelConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
        ),
        optimizer="adamw" if stage == "dpo" else "muon",
        max_seq_len=32,
        batch_size=2,
        epochs=9,
        max_steps=steps,
        save_every=1,
        eval_every=10,
    )


def begin(config: TrainConfig, stage: DataStage) -> int:
    """Trains in a process of its own and returns its number. A fork, so that nothing is imported
    again; this process never computes anything, so it has no threads that a fork would lose."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        silent = os.open(config.out_dir.parent / "messages.txt", os.O_CREAT | os.O_RDWR)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        try:
            train(config, stage)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return child


def finish(config: TrainConfig, stage: DataStage) -> float:
    """Trains to the end; returns the seconds it took."""
    started = time.monotonic()
    _, status = os.waitpid(begin(config, stage), 0)
    if status:
        sys.exit(f"{stage} failed:\n{(config.out_dir.parent / 'messages.txt').read_text('utf-8')}")
    return time.monotonic() - started


def result(config: TrainConfig, stage: DataStage) -> dict[str, Any]:
    """All that must be the same."""
    newest = checkpoint_paths(config.out_dir, stage)[-1]
    lines = (config.out_dir / f"{stage}_log.jsonl").read_bytes()
    return {
        **{f"final {k}": v for k, v in load_file(weights_path(config.out_dir, stage)).items()},
        **{f"{newest.name} {k}": v for k, v in load_file(newest).items()},
        "log": lines,
    }


def writing(config: TrainConfig) -> bool:
    """Whether there is half a checkpoint."""
    return any((config.out_dir / "checkpoints").glob("*.tmp"))


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(value, b[name]) if isinstance(value, torch.Tensor) else value == b[name]
        for name, value in a.items()
    )


def drill(stage: DataStage, options: Options, say: Callable[[str], object]) -> bool:
    """Whether every killed run of a stage ended like the one that was not killed."""
    rng = random.Random(f"{stage} {options.seed}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for previous in STAGES[: STAGES.index(stage)]:
            finish(settings(previous, folder, 2), previous)
        config = settings(stage, folder, options.steps)
        seconds = finish(config, stage)
        expected = result(config, stage)
        good = cut = 0
        for _ in range(options.kills):
            weights_path(config.out_dir, stage).unlink()
            shutil.rmtree(config.out_dir / "checkpoints")
            for kill in range(rng.choice((1, 2))):
                child = begin(replace(config, resume=kill > 0), stage)
                time.sleep(rng.uniform(0.1, 0.9) * seconds)
                # Every other time at the next moment at which a checkpoint is being written.
                wait = time.monotonic() + rng.choice((0.0, 1.0))
                while not writing(config) and time.monotonic() < wait:
                    pass
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            cut += writing(config)
            finish(replace(config, resume=True), stage)
            good += same(result(config, stage), expected)
            assert not list(config.out_dir.glob("**/*.tmp"))
    say(f"| {stage} | {options.steps} | {good}/{options.kills} | {cut} |")
    return good == options.kills


def main(options: Options) -> None:
    print(f"{machine()}\n")
    print("| stage | steps | killed runs that ended in the same bits | killed while writing |")
    print("| --- | --- | --- | --- |")
    passed = [drill(stage, options, lambda x: print(x, flush=True)) for stage in STAGES]
    if not all(passed):
        sys.exit("some runs ended differently")


if __name__ == "__main__":
    start(main, Options)
