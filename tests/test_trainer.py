"""The loop: all stages learn, equal splits of the work give equal weights, and errors cost
nothing."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import pytest
import small
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from minillm import trainer
from minillm.checkpoint import load_checkpoint
from minillm.config import STAGES, Stage, TrainConfig, UserError
from minillm.tensors import PackedRows, load_dataset
from minillm.trainer import learning_rate_factor, train


def log(config: TrainConfig, stage: Stage) -> list[dict[str, Any]]:
    lines = (config.out_dir / f"{stage}_log.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line) for line in lines]


def weights(config: TrainConfig, stage: Stage) -> dict[str, torch.Tensor]:
    return load_file(config.out_dir / f"{stage}.safetensors")


def assert_close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], atol: float) -> None:
    for name, value in a.items():
        assert torch.allclose(value, b[name], rtol=0, atol=atol), name


def train_previous_stages(folder: Path, stage: Stage) -> None:
    for previous in STAGES[: STAGES.index(stage)]:
        train(small.train_config(folder, previous, max_steps=2), previous)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_all_stages_learn_one_after_the_other(
    tmp_path: Path, optimizer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in STAGES:
        config = small.train_config(
            tmp_path, stage, epochs=30, max_steps=60, learning_rate=5e-3, optimizer=optimizer
        )
        path = train(config, stage)
        first, last = log(config, stage)[0], log(config, stage)[-1]
        assert last["loss"] < 0.7 * first["loss"], stage
        assert last["step"] == 60
        model, metadata = load_checkpoint(path)
        assert (metadata.stage, metadata.step) == (stage, 60)
        assert metadata.train["learning_rate"] == 5e-3
        output = capsys.readouterr().out
        assert f"{stage}: {model.num_parameters():,} trainable parameters" in output
    assert log(config, "dpo")[0]["loss"] > math.log(2) - 1e-3
    assert last["accuracy"] == 1
    assert last["margin"] > 0.5
    assert last["val_accuracy"] > 0.5
    assert list((tmp_path / "tf_dir").glob("*/events.out.tfevents.*"))


def test_validation_rows_are_used(tmp_path: Path) -> None:
    config = small.train_config(tmp_path, "pretrain", max_steps=4, eval_every=2)
    train(config, "pretrain")
    assert ["val_loss" in line for line in log(config, "pretrain")] == [False, True, False, True]


@pytest.mark.parametrize("stage", STAGES)
def test_accumulation_equals_one_large_batch(tmp_path: Path, stage: Stage) -> None:
    results = []
    for batch_size, steps in ((8, 1), (2, 4)):
        train_previous_stages(tmp_path, stage)
        config = small.train_config(
            tmp_path, stage, batch_size=batch_size, accumulation_steps=steps, epochs=9, max_steps=5
        )
        train(config, stage)
        results.append(weights(config, stage))
    assert_close(*results, atol=1e-5)


def test_the_gradient_is_that_of_the_mean_over_tokens(tmp_path: Path) -> None:
    # Neither clipping nor AdamW would show a wrong scale; the norm that is logged does.
    config = small.train_config(tmp_path, "sft", batch_size=2, accumulation_steps=4, max_steps=1)
    train_previous_stages(tmp_path, "sft")
    train(config, "sft")
    model, _ = load_checkpoint(config.out_dir / "pretrain.safetensors")
    data = load_dataset(config.data_path, "sft", small.tokenizer(), 48, tmp_path / "cache")
    batch = PackedRows(data, 48, config.epochs, config.seed).batch(range(8))
    logits = model(batch.input_ids, batch.position_ids, batch.document_ids)
    F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten()).backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    assert log(config, "sft")[0]["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)


@pytest.mark.parametrize("stage", STAGES)
def test_resume_gives_the_same_bytes(tmp_path: Path, stage: Stage) -> None:
    train_previous_stages(tmp_path, stage)
    settings = {"epochs": 9, "max_steps": 6, "save_every": 3, "optimizer": "muon"}
    config = small.train_config(tmp_path, stage, **settings)
    train(config, stage)
    straight, curve = weights(config, stage), log(config, stage)
    (config.out_dir / f"{stage}.safetensors").unlink()
    train(small.train_config(tmp_path, stage, **settings, resume=True), stage)
    assert_close(straight, weights(config, stage), atol=0)
    assert log(config, stage)[:3] == curve[:3]
    assert [line["loss"] for line in log(config, stage)] == [line["loss"] for line in curve]


def test_resume_passes_over_a_damaged_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small.train_config(tmp_path, "pretrain", epochs=9, max_steps=6, save_every=2)
    train(config, "pretrain")
    newest = sorted((config.out_dir / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    train(small.train_config(tmp_path, "pretrain", epochs=9, max_steps=6, resume=True), "pretrain")
    output = capsys.readouterr().out
    assert "passing over a damaged checkpoint" in output
    assert "going on from" in output


DDP = """
import sys
import msgspec, small
from pathlib import Path
from minillm.trainer import train
settings = msgspec.json.decode(sys.argv[3])
train(small.train_config(Path(sys.argv[1]), sys.argv[2], **settings), sys.argv[2])
"""


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_equal_one(tmp_path: Path, stage: Stage) -> None:
    train_previous_stages(tmp_path, stage)
    settings = {"epochs": 9, "max_steps": 5}
    one = small.train_config(tmp_path, stage, **settings, batch_size=8)
    train(one, stage)
    alone, curve = weights(one, stage), log(one, stage)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    arguments = [str(tmp_path), stage, msgspec.json.encode({**settings, "batch_size": 4}).decode()]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DDP, *arguments],
            env=os.environ
            | {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "OMP_NUM_THREADS": "1",
            }
            | {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "PYTHONPATH": str(Path(__file__).parent),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    assert "trainable parameters" in outputs[0]
    assert "trainable parameters" not in outputs[1]
    assert_close(alone, weights(one, stage), atol=1e-5)
    for a, b in zip(curve, log(one, stage), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)


def test_learning_rate_rises_stays_and_falls() -> None:
    factors = [learning_rate_factor(step, 100, 0.1, 0.2) for step in range(100)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[9] == pytest.approx(10 / 11)
    assert set(factors[10:80]) == {1.0}
    assert factors[80] == pytest.approx(20 / 21)
    assert factors[99] == pytest.approx(1 / 21)
    assert [learning_rate_factor(step, 1, 0.02, 0.4) for step in range(1)] == [1.0]


def test_a_loss_that_is_not_finite_stops_and_damages_nothing(tmp_path: Path) -> None:
    config = small.train_config(tmp_path, "pretrain", max_steps=4, save_every=1)
    path = train(config, "pretrain")
    before = path.read_bytes()
    wild = small.train_config(tmp_path, "pretrain", max_steps=4, learning_rate=1e38)
    with pytest.raises(UserError, match=r"pretrain step \d: .*not finite.*--learning_rate"):
        train(wild, "pretrain")
    assert path.read_bytes() == before


def test_a_batch_without_targets_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small.train_config(tmp_path, "pretrain", max_steps=2, weight_decay=0.0)
    batch = trainer.MicroBatches.__getitem__

    def without_labels(self: trainer.MicroBatches, index: int) -> Any:
        result = batch(self, index)
        result.labels.fill_(-100)
        return result

    monkeypatch.setattr(trainer.MicroBatches, "__getitem__", without_labels)
    train(config, "pretrain")
    torch.manual_seed(config.seed)
    fresh = trainer.Transformer(config.model).state_dict()
    for name, value in weights(config, "pretrain").items():
        assert torch.equal(value, fresh[name]), name


def test_a_missing_previous_stage_names_its_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trainer/train_pretrain\.py"):
        train(small.train_config(tmp_path, "sft"), "sft")


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    train(small.train_config(tmp_path, "pretrain", max_steps=1), "pretrain")
    config = small.train_config(tmp_path, "sft")
    other = {**asdict(small.CONFIG), "hidden_size": 64}
    with pytest.raises(UserError, match=r"pretrain\.safetensors: has hidden_size 32, this run 64"):
        train(small.train_config(tmp_path, "sft", model=type(small.CONFIG)(**other)), "sft")
    tokenizer = small.RustBPETokenizer.train(["另一个"], vocab_size=266, use_rust=False)
    tokenizer.save(tmp_path / "other")
    with pytest.raises(UserError, match="trained with another tokenizer"):
        train(small.train_config(tmp_path, "sft", tokenizer_path=tmp_path / "other"), "sft")
    assert not (config.out_dir / "sft.safetensors").exists()


def test_devices_and_dtypes_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"--device cuda: .*--device cpu"):
        trainer.set_up_process("cuda", "auto")
    with pytest.raises(UserError, match="--dtype bfloat16 is not for a CPU; use --dtype float32"):
        trainer.set_up_process("auto", "bfloat16")


def test_out_of_memory_says_what_to_lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(trainer, "next_token_loss", explode)
    with pytest.raises(UserError, match=r"lower --batch_size 2 and raise --accumulation_steps 1"):
        train(small.train_config(tmp_path, "pretrain"), "pretrain")
