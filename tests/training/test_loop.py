"""The loop: all stages learn, equal splits of the work give equal weights, and errors cost
nothing."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import small
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from minillm.config import STAGES, Stage, TrainConfig
from minillm.errors import UserError
from minillm.training import loop
from minillm.training.checkpoint import load_checkpoint, weights_path
from minillm.training.dataset import load_dataset
from minillm.training.devices import StopRequest
from minillm.training.loop import train
from minillm.training.optimizers import learning_rate_factor
from minillm.training.packing import PackedRows


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
    assert log(config, stage) == curve


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"seed": 7},
            r"0000004\.safetensors: was trained with --seed 42, not 7; .*without --resume",
        ),
        ({"max_seq_len": 40}, "with --max_seq_len 48, not 40"),
        ({"optimizer": "muon"}, "with --optimizer adamw, not muon"),
        ({"batch_size": 1}, r"with --batch_size x --accumulation_steps x processes = 2, not 1"),
        ({"model": replace(small.CONFIG, hidden_size=64)}, "has hidden_size 32, this run 64"),
    ],
)
def test_another_run_cannot_be_gone_on_with(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    config = small.train_config(tmp_path, "pretrain", epochs=9, max_steps=6, save_every=2)
    config = replace(config, optimizer="adamw")
    train(config, "pretrain")
    before = {path: path.read_bytes() for path in config.out_dir.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=message):
        train(replace(config, resume=True, **changes), "pretrain")
    small.write_rows(config.data_path, small.rows("pretrain", 9))
    with pytest.raises(UserError, match="--data_path held other rows"):
        train(replace(config, resume=True), "pretrain")
    assert all(path.read_bytes() == content for path, content in before.items())


def in_shards(config: TrainConfig, *sizes: int) -> Path:
    """A folder of the rows that the settings name, cut into files of so many lines."""
    folder = config.data_path.parent / "shards"
    lines = config.data_path.read_bytes().splitlines(keepends=True)
    assert len(lines) == sum(sizes)
    folder.mkdir()
    for i, size in enumerate(sizes):
        (folder / f"{i:05d}.jsonl").write_bytes(b"".join(lines[:size]))
        del lines[:size]
    held_out = config.data_path.with_name(f"{config.data_path.stem}_val.jsonl")
    (folder / "00000_val.jsonl").write_bytes(held_out.read_bytes())
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_shards_train_like_one_file(
    tmp_path: Path, stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    train_previous_stages(tmp_path, stage)
    config = small.train_config(tmp_path, stage, epochs=9, max_steps=6)
    train(config, stage)
    alone, curve = weights(config, stage), log(config, stage)
    folder = in_shards(config, 5, 1, 18)
    train(replace(config, data_path=folder), stage)
    assert_close(alone, weights(config, stage), atol=0)
    assert log(config, stage) == curve
    assert "val_loss" in curve[-1]
    said = f"{stage}: 3 shards, {folder / '00000.jsonl'} to 00002.jsonl, and 1 for validation"
    assert said in capsys.readouterr().out.splitlines()


def test_a_shard_of_another_format_is_named_with_its_line(tmp_path: Path) -> None:
    config = small.train_config(tmp_path, "pretrain")
    folder = in_shards(config, 12, 12)
    small.write_rows(folder / "00002.jsonl", [*small.rows("pretrain", 2), {"chosen": 1}])
    with pytest.raises(UserError, match=r"00002\.jsonl:3: no known format has the fields 'chosen'"):
        train(replace(config, data_path=folder), "pretrain")
    assert not weights_path(config.out_dir, "pretrain").exists()


def test_a_run_goes_on_with_the_same_shards_only(tmp_path: Path) -> None:
    config = small.train_config(tmp_path, "pretrain", epochs=9, max_steps=6, save_every=2)
    folder = in_shards(config, 4, 20)
    config = replace(config, data_path=folder)
    train(config, "pretrain")
    expected = weights(config, "pretrain")
    config = replace(config, resume=True)
    (folder / "00001.jsonl").rename(folder / "00002.jsonl")  # in the same order still
    train(config, "pretrain")
    assert_close(expected, weights(config, "pretrain"), atol=0)
    (folder / "00002.jsonl").rename(folder / "!.jsonl")
    with pytest.raises(UserError, match=r"--data_path held other rows then; .*without --resume"):
        train(config, "pretrain")
    (folder / "!.jsonl").rename(folder / "00001.jsonl")
    small.write_rows(folder / "00003.jsonl", small.rows("pretrain", 1))
    with pytest.raises(UserError, match="--data_path held other rows then"):
        train(config, "pretrain")
    assert_close(expected, weights(config, "pretrain"), atol=0)


def test_a_resumed_run_may_be_longer_and_split_otherwise(tmp_path: Path) -> None:
    config = small.train_config(tmp_path, "pretrain", epochs=9, max_steps=4, save_every=2)
    train(replace(config, batch_size=4), "pretrain")
    changes = {"batch_size": 2, "accumulation_steps": 2, "max_steps": 8, "learning_rate": 1e-3}
    train(replace(config, resume=True, **changes), "pretrain")
    assert [entry["step"] for entry in log(config, "pretrain")] == list(range(1, 9))


def test_a_run_that_is_further_already_is_not_shortened(tmp_path: Path) -> None:
    config = small.train_config(tmp_path, "pretrain", epochs=9, max_steps=6, save_every=2)
    train(config, "pretrain")
    finished = weights(config, "pretrain")
    for steps in (3, 4):  # the newest checkpoint is of step 4
        with pytest.raises(
            UserError, match=rf"at step 4 already, and this run ends after {steps}: .*--max_steps"
        ):
            train(replace(config, resume=True, max_steps=steps), "pretrain")
    assert_close(finished, weights(config, "pretrain"), atol=0)
    assert len(log(config, "pretrain")) == 6


def test_sft_goes_on_without_the_weights_that_it_started_from(tmp_path: Path) -> None:
    train_previous_stages(tmp_path, "sft")
    config = small.train_config(tmp_path, "sft", epochs=9, max_steps=6, save_every=2)
    train(config, "sft")
    finished = weights(config, "sft")
    (config.out_dir / "pretrain.safetensors").unlink()
    train(replace(config, resume=True), "sft")
    assert_close(finished, weights(config, "sft"), atol=0)


def test_dpo_goes_on_only_with_the_reference_that_it_had(tmp_path: Path) -> None:
    train_previous_stages(tmp_path, "dpo")
    config = small.train_config(tmp_path, "dpo", epochs=9, max_steps=6, save_every=2)
    train(config, "dpo")
    train(small.train_config(tmp_path, "sft", max_steps=3), "sft")
    with pytest.raises(UserError, match=r"dpo-0000004\.safetensors: began with other SFT weights"):
        train(replace(config, resume=True), "dpo")


def test_weights_say_how_far_back_a_chat_may_reach(tmp_path: Path) -> None:
    """As far as nearly all conversations of SFT; DPO's shorter ones do not shrink it."""
    train_previous_stages(tmp_path, "dpo")
    config = small.train_config(tmp_path, "dpo", epochs=9, max_steps=4, save_every=2)
    train(config, "dpo")

    def longest(stage: Stage, key: str) -> int:
        render = small.tokenizer().render_conversation
        return max(len(render(row[key])[0]) for row in small.rows(stage))

    window = longest("sft", "messages")
    assert longest("dpo", "chosen") < window
    for stage in ("sft", "dpo"):
        assert load_checkpoint(weights_path(config.out_dir, stage))[1].window == window
    train(replace(config, resume=True, max_steps=6), "dpo")
    assert load_checkpoint(weights_path(config.out_dir, "dpo"))[1].window == window


def test_a_step_may_be_larger_than_the_data(tmp_path: Path) -> None:
    config = small.train_config(tmp_path, "pretrain", batch_size=2**20, epochs=1)
    train(config, "pretrain")
    assert len(log(config, "pretrain")) == 1


def test_epochs_that_are_never_reached_take_no_time(tmp_path: Path) -> None:
    config = small.train_config(tmp_path, "pretrain", epochs=1000, max_steps=3)
    train(config, "pretrain")
    few = small.train_config(tmp_path / "few", "pretrain", epochs=9, max_steps=3)
    train(few, "pretrain")
    assert log(config, "pretrain") == log(few, "pretrain")


DDP = """
import sys
import msgspec, small
from pathlib import Path
from minillm.training.loop import train
settings = msgspec.json.decode(sys.argv[3])
if "data_path" in settings:
    settings["data_path"] = Path(settings["data_path"])
train(small.train_config(Path(sys.argv[1]), sys.argv[2], **settings), sys.argv[2])
"""


def two_processes(tmp_path: Path, stage: Stage, **settings: Any) -> list[subprocess.Popen[str]]:
    """One training in two processes, as torchrun would start them."""
    run = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        run_in_process(
            tmp_path, stage, run | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, **settings
        )
        for rank in range(2)
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_equal_one(tmp_path: Path, stage: Stage) -> None:
    train_previous_stages(tmp_path, stage)
    settings = {"epochs": 9, "max_steps": 20}
    one = small.train_config(tmp_path, stage, **settings, batch_size=8)
    train(one, stage)
    alone, curve = weights(one, stage), log(one, stage)
    processes = two_processes(tmp_path, stage, **settings, batch_size=2, accumulation_steps=2)
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    assert "trainable parameters" in outputs[0]
    assert "trainable parameters" not in outputs[1]
    assert_close(alone, weights(one, stage), atol=1e-5)
    for a, b in zip(curve, log(one, stage), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)


def test_one_process_can_be_gone_on_with_in_two(tmp_path: Path) -> None:
    settings = {"epochs": 9, "max_steps": 12, "save_every": 5}
    one = small.train_config(tmp_path, "pretrain", **settings, batch_size=8)
    train(one, "pretrain")
    alone, curve = weights(one, "pretrain"), log(one, "pretrain")
    (one.out_dir / "pretrain.safetensors").unlink()
    processes = two_processes(tmp_path, "pretrain", **settings, batch_size=4, resume=True)
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    assert "pretrain: going on from" in outputs[0]
    assert "pretrain-0000010" in outputs[0]
    assert_close(alone, weights(one, "pretrain"), atol=1e-5)
    assert [entry["step"] for entry in log(one, "pretrain")] == [entry["step"] for entry in curve]


def test_two_processes_share_the_shards(tmp_path: Path) -> None:
    settings = {"epochs": 9, "max_steps": 6}
    one = small.train_config(tmp_path, "pretrain", **settings, batch_size=8)
    train(one, "pretrain")
    alone = weights(one, "pretrain")
    shutil.rmtree(one.out_dir / "cache")
    settings |= {"data_path": str(in_shards(one, 7, 9, 8))}
    processes = two_processes(tmp_path, "pretrain", **settings, batch_size=4)
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    assert len([*(one.out_dir / "cache").glob("[!.]*")]) == 4  # the shards, and to validate
    assert_close(alone, weights(one, "pretrain"), atol=1e-5)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.parametrize("stage", ["pretrain", "dpo"])
def test_a_compiled_run_resumes_in_the_same_bits(tmp_path: Path, stage: Stage) -> None:
    settings = {"epochs": 9, "max_steps": 6, "save_every": 4}
    train_previous_stages(tmp_path, stage)
    eager = small.train_config(tmp_path, stage, **settings)
    train(eager, stage)
    expected = weights(eager, stage)
    config = replace(eager, compile=True)
    train(config, stage)
    straight, curve = weights(config, stage), log(config, stage)
    assert_close(straight, expected, atol=1e-4)
    (config.out_dir / f"{stage}.safetensors").unlink()
    train(replace(config, resume=True), stage)
    assert_close(straight, weights(config, stage), atol=0)
    assert log(config, stage) == curve


def run_in_process(
    tmp_path: Path, stage: Stage, environment: dict[str, str] | None = None, **settings: Any
) -> subprocess.Popen[str]:
    """Trains in a process of its own, by the code that several processes run."""
    arguments = [str(tmp_path), stage, msgspec.json.encode(settings).decode()]
    return subprocess.Popen(
        [sys.executable, "-c", DDP, *arguments],
        env=os.environ
        | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
        | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_steps(config: TrainConfig, stage: Stage, steps: int) -> None:
    path = config.out_dir / f"{stage}_log.jsonl"
    deadline = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < steps:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_saves_it(tmp_path: Path, number: signal.Signals) -> None:
    config = small.train_config(tmp_path, "pretrain")
    settings = {"epochs": 99, "max_steps": 300, "save_every": 1000}
    straight = small.train_config(tmp_path / "straight", "pretrain", **settings)
    train(straight, "pretrain")
    process = run_in_process(tmp_path, "pretrain", **settings)
    wait_for_steps(config, "pretrain", 3)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    (stopped,) = re.findall(r"KeyboardInterrupt: (.*)", output)
    step = int(re.search(r"pretrain: stopped after step (\d+) of 300", stopped)[1])  # type: ignore[index]
    assert stopped.endswith("which is saved; go on with --resume")
    saved = [path.name for path in (config.out_dir / "checkpoints").iterdir()]
    assert saved == [f"pretrain-{step:07}.safetensors"]
    train(small.train_config(tmp_path, "pretrain", **settings, resume=True), "pretrain")
    assert_close(weights(straight, "pretrain"), weights(config, "pretrain"), atol=0)
    assert log(straight, "pretrain") == log(config, "pretrain")


def test_the_handlers_of_signals_come_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(small.train_config(tmp_path, "pretrain", max_steps=1), "pretrain")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_second_ctrl_c_does_not_wait() -> None:
    with StopRequest() as stop:
        stop.deferred = True
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_first_step_does_not_wait(number: signal.Signals) -> None:
    # Reading and tokenizing may take minutes, and there is nothing to save yet.
    with StopRequest(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)


def test_other_errors_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(loop, "next_token_loss", explode)
    with pytest.raises(RuntimeError, match=r"^a bug$") as error:
        train(small.train_config(tmp_path, "pretrain"), "pretrain")
    assert error.value.__cause__ is None


def test_half_a_line_in_the_log_is_no_obstacle(tmp_path: Path) -> None:
    settings = {"epochs": 9, "max_steps": 6, "save_every": 2}
    config = small.train_config(tmp_path, "pretrain", **settings)
    train(config, "pretrain")
    curve = log(config, "pretrain")
    path = config.out_dir / "pretrain_log.jsonl"
    path.write_bytes(path.read_bytes()[:-20])  # killed while it wrote
    train(small.train_config(tmp_path, "pretrain", **settings, resume=True), "pretrain")
    assert log(config, "pretrain") == curve


FULL = Path("/dev/full")
needs_full_disk = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@needs_full_disk
def test_a_full_disk_while_saving(tmp_path: Path) -> None:
    settings = {"epochs": 9, "max_steps": 6, "save_every": 2}
    config = small.train_config(tmp_path, "pretrain", **settings)
    folder = config.out_dir / "checkpoints"

    def fill(step: int, _: object) -> None:
        if step == 3:
            (folder / "pretrain-0000004.safetensors.tmp").symlink_to(FULL)

    with pytest.raises(UserError, match=r"0000004\.safetensors: cannot write: No space left.*free"):
        train(config, "pretrain", fill)
    assert [path.name for path in folder.iterdir()] == ["pretrain-0000002.safetensors"]
    train(small.train_config(tmp_path, "pretrain", **settings, resume=True), "pretrain")
    assert len(log(config, "pretrain")) == 6


@needs_full_disk
def test_a_full_disk_while_logging(tmp_path: Path) -> None:
    config = small.train_config(tmp_path, "pretrain", max_steps=2)
    path = config.out_dir / "pretrain_log.jsonl"

    def fill(step: int, _: object) -> None:
        path.unlink()
        path.symlink_to(FULL)

    with pytest.raises(
        UserError, match=r"pretrain_log\.jsonl: cannot write: No space left.*--resume"
    ):
        train(config, "pretrain", fill)


@needs_full_disk
def test_a_full_disk_when_going_on_loses_no_line_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"epochs": 9, "max_steps": 6, "save_every": 2}
    config = small.train_config(tmp_path, "pretrain", **settings)
    train(config, "pretrain")
    path = config.out_dir / "pretrain_log.jsonl"
    curve = path.read_bytes()
    path.with_name(path.name + ".tmp").symlink_to(FULL)
    with pytest.raises(UserError, match=r"pretrain_log\.jsonl: cannot write: No space left"):
        train(replace(config, resume=True), "pretrain")
    assert path.read_bytes() == curve


@pytest.mark.parametrize("folder", ["out_dir", "tf_dir"])
def test_folders_that_cannot_be_written(tmp_path: Path, folder: str) -> None:
    config = small.train_config(tmp_path, "pretrain", max_steps=1)
    tokenizer_path = config.out_dir / "tokenizer"
    (tmp_path / "file").write_text("not a folder")
    wrong = replace(config, tokenizer_path=tokenizer_path, **{folder: tmp_path / "file" / "out"})
    with pytest.raises(UserError, match=r"file.*Not a directory"):
        train(wrong, "pretrain")


class Killed(loop.MicroBatches):
    """Its process dies, as the kernel kills one when memory runs out."""

    def __getitem__(self, index: int) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_dead_data_worker_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "MicroBatches", Killed)
    monkeypatch.setattr(loop, "data_workers", lambda process: 1)
    with pytest.raises(UserError, match=r"prepares batches was killed.*--resume"):
        train(small.train_config(tmp_path, "pretrain"), "pretrain")


def test_data_workers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"epochs": 9, "max_steps": 6, "save_every": 3}
    config = small.train_config(tmp_path, "pretrain", **settings)
    train(config, "pretrain")
    expected = weights(config, "pretrain"), log(config, "pretrain")
    monkeypatch.setattr(loop, "data_workers", lambda process: 2)
    train(small.train_config(tmp_path, "pretrain", **settings, resume=True), "pretrain")
    assert_close(expected[0], weights(config, "pretrain"), atol=0)
    assert log(config, "pretrain") == expected[1]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_out_of_memory_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def explode(*_: object) -> None:
        raise error

    monkeypatch.setattr(loop, "next_token_loss", explode)
    with pytest.raises(UserError, match="out of memory: lower --batch_size 2"):
        train(small.train_config(tmp_path, "pretrain"), "pretrain")


def test_a_killed_training_ends_in_the_same_bits() -> None:
    """The drill of benchmarks/crash.py, a few times."""
    script = Path(__file__).parents[2] / "benchmarks" / "crash.py"
    result = subprocess.run(
        [sys.executable, script, "--kills", "2", "--steps", "12", "--seed", "1"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("2/2") == 3


def torchrun(
    arguments: list[str], port: int, node: int | None, cwd: Path | None = None
) -> subprocess.Popen[str]:
    """torchrun with two processes, or one of two that run one each, as on two machines."""
    if node is None:
        nodes = ["--nproc_per_node", "2", "--master_port", str(port)]
    else:
        nodes = ["--nnodes", "2", "--node_rank", str(node), "--nproc_per_node", "1"]
        nodes += ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{port}"]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *nodes, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.parametrize("stage", STAGES)
def test_two_machines_equal_one_process(tmp_path: Path, stage: Stage) -> None:
    train_previous_stages(tmp_path, stage)
    settings = {"epochs": 9, "max_steps": 20}
    one = small.train_config(tmp_path, stage, **settings, batch_size=8)
    train(one, stage)
    alone = weights(one, stage)
    script = tmp_path / "node.py"
    script.write_text(DDP)
    arguments = [str(script), str(tmp_path), stage]
    arguments.append(msgspec.json.encode({**settings, "batch_size": 4}).decode())
    port = free_port()
    agents = [torchrun(arguments, port, node) for node in range(2)]
    outputs = [agent.communicate(timeout=180)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], "\n".join(outputs)
    assert_close(alone, weights(one, stage), atol=1e-5)


def test_a_process_that_lost_the_other_says_so(tmp_path: Path) -> None:
    config = small.train_config(tmp_path, "pretrain")
    first, second = two_processes(tmp_path, "pretrain", epochs=999, max_steps=3000)
    wait_for_steps(config, "pretrain", 3)
    second.kill()
    output, _ = first.communicate(timeout=90)
    second.communicate()
    assert first.returncode != 0
    assert "UserError: the processes of this run lost each other, since one has ended" in output
    assert "see its message, and go on with --resume" in output


def test_a_killed_process_under_torchrun_ends_the_run(tmp_path: Path) -> None:
    config = small.train_config(tmp_path, "pretrain")
    settings = {"epochs": 999, "max_steps": 3000, "save_every": 5}
    script = tmp_path / "node.py"
    # In files: what two processes print on one pipe may come out mixed.
    script.write_text(
        "import os\nopen(os.environ['RANK'] + '.pid', 'w').write(str(os.getpid()))\n" + DDP
    )
    arguments = [str(script), str(tmp_path), "pretrain", msgspec.json.encode(settings).decode()]
    agent = torchrun(arguments, free_port(), None, cwd=tmp_path)
    wait_for_steps(config, "pretrain", 12)
    os.kill(int((tmp_path / "1.pid").read_text()), signal.SIGKILL)
    agent.communicate(timeout=90)
    assert agent.returncode != 0
    settings |= {"max_steps": 30, "resume": True, "batch_size": 4}  # one process for two
    train(small.train_config(tmp_path, "pretrain", **settings), "pretrain")
    assert log(config, "pretrain")[-1]["step"] >= 30


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
    with pytest.raises(UserError, match=r"pretrain step (\d), packed rows .*not finite") as e:
        train(wild, "pretrain")
    step, first = map(int, re.findall(r"\d+", str(e.value))[:2])
    assert first == (step - 1) * wild.batch_size * wild.accumulation_steps + 1
    assert "--learning_rate" in str(e.value)
    assert path.read_bytes() == before


def test_a_batch_without_targets_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small.train_config(tmp_path, "pretrain", max_steps=2, weight_decay=0.0)
    batch = loop.MicroBatches.__getitem__

    def without_labels(self: loop.MicroBatches, index: int) -> Any:
        result = batch(self, index)
        result.labels.fill_(-100)
        return replace(result, num_targets=0)

    monkeypatch.setattr(loop.MicroBatches, "__getitem__", without_labels)
    train(config, "pretrain")
    torch.manual_seed(config.seed)
    fresh = loop.Transformer(config.model).state_dict()
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


def test_bfloat16_learns_nearly_the_same(tmp_path: Path) -> None:
    config = small.train_config(tmp_path, "pretrain", epochs=9, max_steps=20, learning_rate=5e-3)
    train(config, "pretrain")
    exact = log(config, "pretrain")
    train(replace(config, dtype="bfloat16"), "pretrain")
    rounded = log(config, "pretrain")
    assert [entry["loss"] for entry in rounded] != [entry["loss"] for entry in exact]
    for a, b in zip(exact, rounded, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=0.02)
    assert {v.dtype for v in weights(config, "pretrain").values()} == {torch.float32}


def test_out_of_memory_says_what_to_lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(loop, "next_token_loss", explode)
    with pytest.raises(UserError, match=r"lower --batch_size 2 and raise --accumulation_steps 1"):
        train(small.train_config(tmp_path, "pretrain"), "pretrain")
