"""The stage that learns from its own answers: it learns, goes on in the same bits, and says what is
wrong."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
import small
import torch
from safetensors.torch import load_file
from test_loop import free_port

from minillm.config import GRPO_PRESETS, GRPOConfig
from minillm.data.rows import to_messages
from minillm.errors import UserError
from minillm.microworld import scoring
from minillm.microworld.scoring import Question
from minillm.model.transformer import Transformer
from minillm.tokenizer.vocabulary import RustBPETokenizer
from minillm.training import grpo
from minillm.training.checkpoint import load, load_checkpoint, load_for_inference
from minillm.training.devices import Process, StopRequest
from minillm.training.grpo import GRPOTrainer, train_grpo
from minillm.training.loop import advice_on, train
from minillm.training.reinforcement import Rollout


def log(config: GRPOConfig) -> list[dict[str, Any]]:
    lines = (config.out_dir / "grpo_log.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line) for line in lines]


def weights(config: GRPOConfig, stage: str = "grpo") -> dict[str, torch.Tensor]:
    return load_file(config.out_dir / f"{stage}.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, b[name]) for name, value in a.items())


def train_start(folder: Path) -> None:
    """Weights of the stages before, which begin to know how an answer looks."""
    for stage in ("pretrain", "sft", "dpo"):
        config = small.train_config(folder, stage, epochs=9, max_steps=8)
        train(config, stage)


def varied(question: Question, reply: str) -> float:
    """Nearly every group has different ones of these, even of a model that knows nothing."""
    return len(set(reply)) / 8


def brief(question: Question, reply: str) -> float:
    return -len(reply)


def test_it_learns_what_is_rewarded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_start(tmp_path)
    config = small.grpo_config(
        tmp_path, max_steps=40, learning_rate=3e-3, questions=4, group_size=8, eval_every=20
    )
    seen: list[int] = []
    path = train_grpo(config, lambda step, model: seen.append(step), brief)
    assert seen == list(range(1, 41))
    entries = log(config)
    first, last = entries[:5], entries[-5:]
    assert sum(e["reward"] for e in last) / 5 > sum(e["reward"] for e in first) / 5 + 1
    assert sum(e["length"] for e in last) < sum(e["length"] for e in first)
    measured = {
        "step", "loss", "entropy", "grad_norm", "learning_rate", "tokens",
        "reward", "accuracy", "length", "informative",
    }  # fmt: skip
    assert first[0].keys() == measured
    assert [e["step"] for e in entries if "val_accuracy" in e] == [20, 40]
    assert all(math.isfinite(value) for entry in entries for value in entry.values())
    assert list((tmp_path / "tf_dir" / "grpo").glob("events.out.tfevents.*"))
    _, metadata = load_checkpoint(path)
    assert (metadata.stage, metadata.step) == ("grpo", 40)
    assert metadata.train["group_size"] == 8
    assert metadata.window == load_checkpoint(tmp_path / "out" / "dpo.safetensors")[1].window
    output = capsys.readouterr().out
    assert f"grpo: starting from {tmp_path / 'out' / 'dpo.safetensors'}" in output
    assert "8 answers to each of 4 questions a step, from the 6 in " in output
    assert (tmp_path / "out" / "grpo" / "model.safetensors").samefile(path)


def test_it_is_the_newest_stage(tmp_path: Path) -> None:
    train_start(tmp_path)
    config = small.grpo_config(tmp_path, max_steps=2)
    train_grpo(config, reward=varied)
    assert load_for_inference(config.out_dir, None, None, "cpu")[2].stage == "grpo"
    for model in (load(config.out_dir)[0], load(config.out_dir, "grpo")[0]):
        assert same(dict(model.state_dict()), {**model.state_dict(), **weights(config)})


def test_the_built_in_world_needs_no_file(tmp_path: Path) -> None:
    train_start(tmp_path)
    config = small.grpo_config(tmp_path, data_path=None, max_seq_len=100, max_steps=1)
    train_grpo(config, reward=varied)
    (entry,) = log(config)
    assert {"val_accuracy", "val_add", "val_sub"} <= entry.keys()
    assert entry["val_accuracy"] == (entry["val_add"] + entry["val_sub"]) / 2


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"updates": 3, "clip": 0.05, "learning_rate": 3e-3},
        {"kl_weight": 0.1, "divide_by_std": True},
        {"optimizer": "muon", "data_path": None, "max_seq_len": 100},
    ],
)
def test_resume_gives_the_same_bytes(tmp_path: Path, changes: dict[str, Any]) -> None:
    train_start(tmp_path)
    config = small.grpo_config(tmp_path, max_steps=5, save_every=3, **changes)
    train_grpo(config, reward=varied)
    straight, curve = weights(config), log(config)
    if config.updates > 1:
        assert any(entry["clipped"] > 0 for entry in curve)
    if config.kl_weight:
        assert curve[0]["kl"] == pytest.approx(0, abs=1e-6)
        assert curve[-1]["kl"] > 0
    (config.out_dir / "grpo.safetensors").unlink()
    train_grpo(replace(config, resume=True), reward=varied)
    assert same(straight, weights(config))
    assert log(config) == curve
    assert not same(straight, weights(config, "dpo"))


def test_a_signal_finishes_the_step_and_saves_it(tmp_path: Path) -> None:
    """All updates of the step, not the one that it arrived in."""
    train_start(tmp_path)
    config = small.grpo_config(tmp_path, max_steps=5, updates=2, save_every=100)
    train_grpo(config, reward=varied)
    straight = weights(config)
    process = Process(0, 1, torch.device("cpu"), torch.float32)
    stop = StopRequest()

    def interrupt(step: int, model: Transformer) -> None:
        stop.received = step == 2

    with pytest.raises(KeyboardInterrupt, match="stopped after step 3 of 5, which is saved"):
        GRPOTrainer(config, process, stop, interrupt, varied).run()
    train_grpo(replace(config, resume=True), reward=varied)
    assert same(straight, weights(config))


def test_seeds_and_steps_decide_the_answers(tmp_path: Path) -> None:
    train_start(tmp_path)
    config = small.grpo_config(tmp_path)
    process = Process(0, 1, torch.device("cpu"), torch.float32)

    def answers(step: int, **changes: Any) -> list[Rollout]:
        trainer = GRPOTrainer(replace(config, **changes), process, StopRequest())
        return trainer.sample(step)

    assert answers(0) == answers(0)
    different = [answers(0), answers(1), answers(0, seed=7)]
    for i, one in enumerate(different):
        for other in different[:i]:
            assert [r.answer for r in one] != [r.answer for r in other]


def test_without_anything_to_compare_the_weights_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even AdamW's momentum and decay move them."""
    train_start(tmp_path)
    config = small.grpo_config(tmp_path, weight_decay=0.1, max_steps=3)
    done = 0
    kept: list[dict[str, torch.Tensor]] = []

    def keep(step: int, model: Transformer) -> None:
        nonlocal done
        done = step
        kept.append({name: value.clone() for name, value in model.state_dict().items()})

    train_grpo(config, keep, lambda q, reply: 0.1 if done == 1 else varied(q, reply))
    first, second, third = kept
    assert same(first, second)
    assert not same(second, third)
    assert [entry["informative"] > 0 for entry in log(config)] == [True, False, True]
    assert log(config)[1]["grad_norm"] == 0
    output = capsys.readouterr().out
    assert output.count("step 2: the answers to each question were all worth the same") == 1
    assert output.count("all worth the same") == 1


def test_all_rewards_alike_is_a_whole_run_without_effect(tmp_path: Path) -> None:
    train_start(tmp_path)
    config = small.grpo_config(tmp_path, divide_by_std=True, updates=2)
    train_grpo(config, reward=lambda question, reply: 1.0)
    assert same(weights(config, "dpo"), weights(config))
    assert all(math.isfinite(value) for entry in log(config) for value in entry.values())


def test_micro_batches_equal_one_large_batch(tmp_path: Path) -> None:
    train_start(tmp_path)
    results = []
    for batch_size in (1, 64):
        config = small.grpo_config(tmp_path, batch_size=batch_size, max_steps=2)
        train_grpo(config, reward=varied)
        results.append(weights(config))
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], rtol=0, atol=1e-5)


DDP = """
import sys
import small
from pathlib import Path
from random import Random
from test_grpo import varied
from minillm.training.grpo import train_grpo
train_grpo(small.grpo_config(Path(sys.argv[1]), max_steps=3, updates=2), reward=varied)
"""


def test_two_processes_equal_one(tmp_path: Path) -> None:
    train_start(tmp_path)
    config = small.grpo_config(tmp_path, max_steps=3, updates=2)
    train_grpo(config, reward=varied)
    alone, curve = weights(config), log(config)
    run = {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)]),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DDP, str(tmp_path)],
            env=os.environ | run | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    for name, value in alone.items():
        torch.testing.assert_close(value, weights(config)[name], rtol=0, atol=1e-5)
    for a, b in zip(curve, log(config), strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5)


# --- What cannot be used --------------------------------------------------------------------------


def test_there_must_be_weights_to_start_from(tmp_path: Path) -> None:
    config = small.grpo_config(tmp_path)
    with pytest.raises(UserError, match=r"no dpo weights; run `python trainer/train_dpo.py` first"):
        train_grpo(config)
    with pytest.raises(UserError, match=r"mine\.safetensors: no such file"):
        train_grpo(replace(config, init_from=tmp_path / "mine.safetensors"))


def test_sft_weights_will_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_start(tmp_path)
    (tmp_path / "out" / "dpo.safetensors").unlink()
    start = tmp_path / "out" / "sft.safetensors"
    train_grpo(small.grpo_config(tmp_path, init_from=start, max_steps=1), reward=varied)
    assert f"starting from {start} (sft, step 8)" in capsys.readouterr().out


@pytest.mark.parametrize("reward", [math.nan, math.inf])
def test_a_reward_that_is_not_finite_names_question_and_step(tmp_path: Path, reward: float) -> None:
    train_start(tmp_path)
    config = small.grpo_config(tmp_path, save_every=1)
    done = 0

    def note(step: int, model: Transformer) -> None:
        nonlocal done
        done = step

    with pytest.raises(
        UserError,
        match=rf"^grpo step 2, question '\d加1？': the reward of .* is {reward}, and must",
    ):
        train_grpo(
            config, note, lambda question, reply: reward if done else varied(question, reply)
        )
    assert not (config.out_dir / "grpo.safetensors").exists()
    assert (config.out_dir / "checkpoints" / "grpo-0000001.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_size": 1}, "--group_size 1: .*, so there must be at least 2"),
        ({"max_new_tokens": 48}, "--max_new_tokens 48 leaves no room for a question in --max_seq"),
        ({"max_steps": 0}, "--max_steps must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        small.grpo_config(tmp_path, **changes)


def test_what_only_rows_need_is_no_setting() -> None:
    with pytest.raises((TypeError, ValueError), match="epochs"):
        replace(GRPO_PRESETS["tiny"], epochs=2)


def test_too_long_a_question_is_refused(tmp_path: Path) -> None:
    train_start(tmp_path)
    config = small.grpo_config(tmp_path, max_seq_len=16)
    with pytest.raises(UserError, match=r"questions\.jsonl:1: the question is \d+ tokens long"):
        train_grpo(config)
    with pytest.raises(UserError, match=r"grpo step 1, question .* and there is room for 8: raise"):
        train_grpo(replace(config, data_path=None))


def test_a_file_without_answers_is_refused(tmp_path: Path) -> None:
    train_start(tmp_path)
    config = small.grpo_config(tmp_path)
    assert config.data_path is not None
    small.write_rows(config.data_path, [{"question": "1加1？"}])
    with pytest.raises(UserError, match=r"questions\.jsonl:1: "):
        train_grpo(config)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_too_little_memory_for_the_answers(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_start(tmp_path)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(grpo, "roll_out", fail)
    with pytest.raises(
        UserError,
        match="out of memory while sampling 12 answers at once: lower --questions 3, "
        "--group_size 4 or --max_new_tokens 8",
    ):
        train_grpo(small.grpo_config(tmp_path))


def test_too_little_memory_to_learn_from_them() -> None:
    advice = advice_on(MemoryError(), GRPO_PRESETS["tiny"])
    assert advice == "out of memory: lower --batch_size 8: the result is the same, the memory less"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"questions": 2}, r"grpo-0000002\.safetensors: was trained with --questions 3, not 2"),
        ({"group_size": 2}, "was trained with --group_size 4, not 2"),
        ({"seed": 7}, "was trained with --seed 42, not 7"),
        ({"data_path": None, "max_seq_len": 48}, "--data_path held other rows then"),
        ({"max_steps": 2}, "and this run ends after 2: raise --max_steps, or start anew"),
    ],
)
def test_another_run_cannot_be_gone_on_with(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    train_start(tmp_path)
    config = small.grpo_config(tmp_path, max_steps=3, save_every=2)
    train_grpo(config, reward=varied)
    with pytest.raises(UserError, match=message):
        train_grpo(replace(config, resume=True, **changes), reward=varied)


@pytest.mark.parametrize("kl_weight", [0.0, 0.1])
def test_only_the_divergence_needs_the_start_again(tmp_path: Path, kl_weight: float) -> None:
    train_start(tmp_path)
    config = small.grpo_config(tmp_path, max_steps=3, save_every=2, kl_weight=kl_weight)
    train_grpo(config, reward=varied)
    finished = weights(config)
    train(small.train_config(tmp_path, "dpo", epochs=9, max_steps=9), "dpo")
    resumed = replace(config, resume=True)
    if kl_weight:
        with pytest.raises(UserError, match=r"began with other DPO weights .* and GRPO compares"):
            train_grpo(resumed, reward=varied)
    else:
        (config.out_dir / "dpo.safetensors").unlink()
        train_grpo(resumed, reward=varied)
        assert same(finished, weights(config))


def test_every_question_of_the_world_fits_into_the_presets() -> None:
    tokenizer = RustBPETokenizer.load()
    rng = Random(0)
    asked = [scoring.question_to_explore(rng) for _ in range(500)]
    longest = max(len(tokenizer.render_for_completion(to_messages(q.messages))) for q in asked)
    for config in GRPO_PRESETS.values():
        assert longest <= config.max_seq_len - config.max_new_tokens
