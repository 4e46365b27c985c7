"""The book's workbench: trained once, then taken from the cache, and never stale."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from minillm.book import lab
from minillm.errors import UserError
from minillm.microworld import exercises, scoring
from minillm.training import loop
from minillm.training.checkpoint import weights_path


def untrainable(*_: object, **__: object) -> Path:
    raise AssertionError("trained what the cache holds")


def test_the_ladder_trains_what_is_missing_and_only_that(
    small_lab: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.ladder("dpo")
    assert [line.split(" (")[0] for line in capsys.readouterr().out.splitlines()] == [
        "pretrain: 3 steps",
        "sft: 3 steps",
        "dpo: 3 steps",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train", untrainable)
        run = lab.ladder("dpo")
        assert "from the cache" in capsys.readouterr().out
    assert run.weights.exists()
    assert [entry["step"] for entry in run.log] == [1, 2, 3]
    assert {"val_loss", "val_margin"} <= run.log[-1].keys()


def length(question: scoring.Question, reply: str) -> float:
    return len(reply)


def test_grpo_stands_on_the_ladder_and_is_keyed_by_its_reward(
    small_lab: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = lab.ladder("grpo")
    assert run.steps == [1, 2]
    assert {"reward", "accuracy", "val_add", "val_sub"} <= run.log[-1].keys()
    assert f"starting from {lab.ladder('dpo').weights}" in (run.folder / "messages.txt").read_text(
        encoding="utf-8"
    )
    scores = run.scores(items=1)
    assert scores["stage"] == "grpo"
    assert lab.ladder("grpo").folder == run.folder
    assert capsys.readouterr().out.splitlines()[-1] == "grpo: 2 steps (from the cache)"
    long = lab.variant("long", "grpo", lab.ladder("sft"), reward=length, max_steps=1)
    assert long.log[0]["reward"] > 0.5
    assert lab.variant("long", "grpo", lab.ladder("sft"), max_steps=1).folder != long.folder
    again = lab.variant("long", "grpo", lab.ladder("sft"), reward=length, max_steps=1)
    assert again.folder == long.folder


def test_grpo_does_not_decide_the_keys_of_the_other_stages() -> None:
    assert "training.reinforcement" in lab.imported("training.grpo")
    assert not {"training.grpo", "training.reinforcement"} & lab.imported("training.loop")


def test_snapshots_hold_the_weights_of_their_step(small_lab: pytest.MonkeyPatch) -> None:
    run = lab.ladder("pretrain")
    assert run.steps == [1, 3]
    first, last, start = run.model(1), run.model(3), lab.fresh()
    ids = torch.tensor([[lab.tokenizer().bos_id]])
    outputs = [model(ids) for model in (start, first, last)]
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[1], outputs[2])
    torch.testing.assert_close(run.model()(ids), outputs[2])


def test_a_run_that_ends_on_a_snapshot_names_the_step_once(small_lab: pytest.MonkeyPatch) -> None:
    assert lab.variant("one", "pretrain", max_steps=1).steps == [1]


def test_fresh_weights_are_those_that_pretraining_starts_from(
    small_lab: pytest.MonkeyPatch,
) -> None:
    """With a learning rate of next to nothing, three steps change next to nothing."""
    run = lab.variant("still", "pretrain", learning_rate=1e-12, weight_decay=0.0)
    for trained, fresh in zip(run.model().parameters(), lab.fresh().parameters(), strict=True):
        torch.testing.assert_close(trained, fresh, atol=1e-6, rtol=0)


def test_a_variant_is_keyed_by_settings_and_data(
    small_lab: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = lab.variant("short", "sft", max_steps=2)
    assert len(first.log) == 2
    assert lab.variant("short", "sft", max_steps=2).folder == first.folder
    assert capsys.readouterr().out.splitlines()[-1] == "short: 2 steps (from the cache)"
    assert lab.variant("short", "sft", max_steps=1).folder != first.folder
    data = tmp_path / "rows.jsonl"
    data.write_bytes(b"".join((lab.data() / "sft_chinese.jsonl").read_bytes().splitlines(True)[:9]))
    other = lab.variant("short", "sft", data_path=data, max_steps=2)
    assert other.folder != first.folder
    start = lab.ladder("dpo")
    assert lab.variant("short", "sft", start, data, max_steps=2).folder != other.folder


def test_a_variant_may_have_another_vocabulary(small_lab: pytest.MonkeyPatch) -> None:
    run = lab.variant("coarse", "pretrain", vocab_size=300)
    assert run.folder != lab.variant("coarse", "pretrain").folder
    coarse, ladder = lab.tokenizer(300), lab.tokenizer()
    assert coarse.vocab_size == run.model().config.vocab_size == run.model(1).config.vocab_size
    assert list(coarse.mergeable_ranks) == list(ladder.mergeable_ranks)[:291]
    asked = run.evaluator()
    assert asked.tokenizer.fingerprint == coarse.fingerprint
    assert 0 <= asked.continuation_accuracy("add", 2) <= 1
    assert run.scores(items=1)["tokenizer"] == coarse.fingerprint
    assert lab.tokenizer_path(ladder.vocab_size) == lab.tokenizer_path()


def test_changed_code_makes_a_new_key_and_changed_words_do_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "minillm"
    for room in ("model", "training"):
        (package / room).mkdir(parents=True)
    monkeypatch.setattr(lab.minillm, "__file__", str(package / "__init__.py"))

    def key(loop: str, model: str = "b = 1\n") -> str:
        (package / "training" / "loop.py").write_text(loop, encoding="utf-8")
        (package / "model" / "transformer.py").write_text(model, encoding="utf-8")
        (package / "other.py").write_text("from minillm.training.loop import f\n", encoding="utf-8")
        lab._code.cache_clear()
        lab._key.cache_clear()
        return lab._key("training.loop", 1)

    code = (
        '"""Trains."""\nfrom minillm.model.transformer import b\n\n'
        'def f():\n    """Steps."""\n    return b\n'
    )
    before = key(code)
    assert key(code.replace("Trains", "Teaches").replace("Steps", "Walks")) == before
    assert key(code.replace('    """Steps."""\n', "    # why\n")) == before
    assert key(code, "b = 1  # one\n") == before
    assert key(code.replace("return b", "return b + 1")) != before
    assert key(code, "b = 2\n") != before, "what it imports counts"
    assert lab._key("training.loop", 2) != before
    lab._code.cache_clear()
    lab._key.cache_clear()


def test_another_seed_and_other_arithmetic_have_models_of_their_own(
    small_lab: pytest.MonkeyPatch,
) -> None:
    data, ladder, start = lab.data(), lab._ladder_dir(), lab.fresh()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab, "SEED", 7)
        lab._ladder_dir.cache_clear()
        assert lab.training("sft").seed == 7
        assert lab.data() == data
        assert lab._ladder_dir() != ladder
        other = lab.fresh()
        assert not torch.equal(start.lm_head.weight, other.lm_head.weight)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab, "_ARITHMETIC", "default")
        lab._ladder_dir.cache_clear()
        assert lab._ladder_dir() != ladder
    lab._ladder_dir.cache_clear()
    assert lab._ladder_dir() == ladder


def test_a_seed_is_a_whole_number() -> None:
    assert lab._seed("7") == 7
    with pytest.raises(UserError, match="MINILLM_SEED=x: a seed is a whole number, such as 7"):
        lab._seed("x")


def test_another_persona_in_the_dataset_makes_other_data(
    small_lab: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = lab.data()
    sample = tmp_path / "identity_cn_sample.jsonl"
    sample.write_bytes(b"".join(lab.SAMPLE.read_bytes().splitlines(keepends=True)[:50]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab, "SAMPLE", sample)
        lab.data.cache_clear()
        assert lab.data() != before
        patch.setattr(lab, "SAMPLE", tmp_path / "gone.jsonl")
        lab.data.cache_clear()
        with pytest.raises(UserError, match=r"gone.jsonl is missing: run the chapters in"):
            lab.data()
    lab.data.cache_clear()
    assert lab.data() == before


def test_scores_are_computed_once_and_include_the_references(small_lab: pytest.MonkeyPatch) -> None:
    run = lab.variant("odd", "dpo", max_steps=1)
    scores = run.scores(items=2)
    assert set(scores["accuracy"]) == set(exercises.KINDS)
    assert not weights_path(run.folder, "sft").exists(), "the reference is where it was trained"
    assert 0 <= scores["dpo"]["accuracy"] <= 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab.evaluate, "evaluate", untrainable)
        assert run.scores(items=2) == scores


def test_it_answers_the_three_questions(small_lab: pytest.MonkeyPatch) -> None:
    replies = lab.showcase(lab.ladder("sft").model())
    assert len(replies) == len(scoring.SHOWCASE)
    assert lab.ask(lab.ladder("sft").model(), scoring.SHOWCASE[0]) == replies[0]
