"""Scores: statistics by hand, and an oracle that answers everything gets full marks."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import small
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from minillm.config import STAGES
from minillm.data.rows import Message
from minillm.evaluate import PRESETS, Evaluator, git_revision, run_evaluate, table, wilson_interval
from minillm.microworld import exercises, identity, scoring
from minillm.training.checkpoint import Metadata, save_checkpoint
from minillm.training.loop import train

TOKENIZER = small.tokenizer()


def test_wilson_interval_by_hand() -> None:
    # 40 of 60: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    assert wilson_interval(40, 60) == pytest.approx((0.5406, 0.7727), abs=1e-4)
    assert wilson_interval(0, 10)[0] == pytest.approx(0, abs=1e-12)
    assert wilson_interval(10, 10)[1] == pytest.approx(1)
    assert wilson_interval(0, 0) == (0.0, 1.0)


@given(st.integers(1, 500), st.data())
def test_wilson_interval_holds_the_proportion(n: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, n))
    low, high = wilson_interval(correct, n)
    assert -1e-9 <= low <= correct / n + 1e-9
    assert correct / n - 1e-9 <= high <= 1 + 1e-9


def test_log_probs_are_those_of_the_answer_alone() -> None:
    model = small.model()
    pairs = [([1, 2, 3], [4, 5]), ([6], [7]), ([8, 9], [10, 11, 12, 13])]
    scores = Evaluator(model, TOKENIZER).log_probs(pairs)
    for (prompt, answer), score in zip(pairs, scores, strict=True):
        logits = model(torch.tensor([prompt + answer[:-1]]))[0, len(prompt) - 1 :]
        expected = -F.cross_entropy(logits, torch.tensor(answer), reduction="sum").item()
        assert score == pytest.approx(expected, rel=1e-4)


class Oracle(Evaluator):
    """Answers from a table instead of a model."""

    def __init__(self, known: dict[str, str]) -> None:
        super().__init__(small.model(), TOKENIZER)
        self.known = known

    def answers(self, prompts):  # type: ignore[no-untyped-def]
        return [self.known.get(TOKENIZER.decode(ids), "不知道") for ids in prompts]


@pytest.mark.parametrize("kind", exercises.KINDS)
def test_right_answers_score_one_and_wrong_ones_zero(kind: str) -> None:
    questions = scoring.questions(kind, 10)
    known = {
        TOKENIZER.decode(
            TOKENIZER.render_for_completion([Message(r, t) for r, t in q.messages])  # type: ignore[arg-type]
        ): q.answer
        for q in questions
    }
    assert Oracle(known).question_accuracy(kind, 10) == 1
    assert Oracle({}).question_accuracy(kind, 10) == 0


@pytest.mark.parametrize("kind", scoring.SAYINGS)
def test_right_continuations_score_one_and_wrong_ones_zero(kind: str) -> None:
    sentences = scoring.continuations(kind, 10)
    known = {
        TOKENIZER.decode([TOKENIZER.bos_id, *TOKENIZER.encode(s.prompt)]): s.answer + "。"
        for s in sentences
    }
    assert Oracle(known).continuation_accuracy(kind, 10) == 1
    assert Oracle({}).continuation_accuracy(kind, 10) == 0


def test_identity_is_measured_on_held_out_questions() -> None:
    persona = identity.Persona("阿秤", "王先生")
    known = {
        TOKENIZER.decode(
            TOKENIZER.render_for_completion([Message("user", q)])
        ): "我是阿秤，由王先生训练。"
        for q in identity.held_out_questions()
    }
    assert Oracle(known).identity_hit_rate(persona) == 1
    assert Oracle({}).identity_hit_rate(persona) == 0


def test_multiple_choice_takes_the_likeliest_option(monkeypatch: pytest.MonkeyPatch) -> None:
    questions = [q for kind in exercises.KINDS for q in scoring.questions(kind, 5) if q.options]
    assert questions
    right = {tuple(TOKENIZER.encode(q.answer)) for q in questions}
    evaluator = Evaluator(small.model(), TOKENIZER)
    monkeypatch.setattr(
        evaluator, "log_probs", lambda pairs: [float(tuple(a) in right) for _, a in pairs]
    )
    rate, asked = evaluator.choice_accuracy(5)
    assert asked == len(questions)
    assert rate > 0.5  # an option may be the right answer of another question
    monkeypatch.setattr(
        evaluator, "log_probs", lambda pairs: [-float(tuple(a) in right) for _, a in pairs]
    )
    assert evaluator.choice_accuracy(5)[0] == 0


def test_a_line_for_each_stage_with_all_fields(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in STAGES:
        config = small.train_config(tmp_path, stage, max_steps=2)
        train(config, stage)
        options = replace(
            PRESETS["smoke"], stage=stage, out_dir=config.out_dir, data_dir=tmp_path / "data",
            tf_dir=tmp_path / "tf_dir", max_seq_len=64,
        )  # fmt: skip
        run_evaluate(options)
    lines = (tmp_path / "tf_dir" / "eval_results.jsonl").read_bytes().splitlines()
    results = [msgspec.json.decode(line) for line in lines]
    assert [r["stage"] for r in results] == list(STAGES)
    for result in results:
        assert result["step"] == 2
        assert 0 < result["val_loss"] < 7
        # Byte-level tokens of 1 to 3 bytes: bits per byte is loss / ln 2 / bytes per token.
        assert result["val_loss"] / math.log(2) / 4 < result["bits_per_byte"]
        assert set(result["accuracy"]) == set(exercises.KINDS)
        assert result["multiple_choice"]["n"] > 0
        assert len(result["samples"]) == 3
        assert result["parameters"] == small.model().num_parameters()
        assert result["config"]["max_steps"] == 2
        assert len(result["data_sha256"]) == 64
        assert result["seconds"] > 0
    assert set(results[2]["dpo"]) == {"accuracy", "margin", "prefers_chosen"}
    assert "dpo" not in results[0]
    output = capsys.readouterr().out
    assert "bits_per_byte" in output
    shown = table(results)
    assert shown.splitlines()[0].split() == list(STAGES)
    assert f"{results[1]['val_loss']:.3f}" in shown


def test_bits_per_byte_by_hand(tmp_path: Path) -> None:
    path = small.write_rows(tmp_path / "rows.jsonl", [{"text": "小猫"}])
    evaluator = Evaluator(small.model(), TOKENIZER)
    options = replace(PRESETS["smoke"], out_dir=tmp_path, max_seq_len=64)
    values = evaluator.validation(path, "pretrain", options)
    ids = [TOKENIZER.bos_id, *TOKENIZER.encode("小猫"), TOKENIZER.bos_id]
    logits = small.model()(torch.tensor([ids[:-1]]))[0]
    nats = F.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum").item()
    assert values["bits_per_byte"] == pytest.approx(
        nats / math.log(2) / len("小猫".encode()), rel=1e-5
    )


def test_bits_per_byte_counts_the_bytes_of_the_rows_that_the_loss_is_of(tmp_path: Path) -> None:
    # Chinese characters have more bytes in a token than Latin letters: the measure depends on which
    # rows it is of, so loss and bytes must be those of the same.
    texts = [{"text": "小猫和小狗" * 12}] * 5 + [{"text": "x" * 63}] * 5
    path = small.write_rows(tmp_path / "rows.jsonl", texts)
    evaluator = Evaluator(small.model(), TOKENIZER)
    options = replace(PRESETS["smoke"], out_dir=tmp_path, max_seq_len=64, max_val_rows=1)
    seen = evaluator.validation(path, "pretrain", options)
    ratios = []
    for text in texts[0]["text"], texts[5]["text"]:
        tokens = len(TOKENIZER.encode(text)) + 1
        ratios.append(len(text.encode()) / tokens)
    ratio = seen["loss"] / math.log(2) / seen["bits_per_byte"]
    assert min(abs(ratio - r) for r in ratios) < 1e-4 < abs(ratios[0] - ratios[1])


def test_the_first_rows_are_a_sample_of_all(tmp_path: Path) -> None:
    # Packing puts the ten long texts, each as long as a row, into the first ten rows, and the short
    # ones into ten more.
    texts = [{"text": "小猫和小狗" * 21}] * 10 + [{"text": "x"}] * 320
    path = small.write_rows(tmp_path / "rows.jsonl", texts)
    evaluator = Evaluator(small.model(), TOKENIZER)
    options = replace(PRESETS["smoke"], out_dir=tmp_path, max_seq_len=64, max_val_rows=10)
    seen = evaluator.validation(path, "pretrain", options)
    bytes_per_token = seen["loss"] / math.log(2) / seen["bits_per_byte"]
    long = texts[0]["text"]
    assert len(TOKENIZER.encode(long)) + 1 == options.max_seq_len
    assert 0.55 < bytes_per_token < 0.9 * len(long.encode()) / options.max_seq_len


def test_git_revision_is_a_commit_or_none() -> None:
    revision = git_revision()
    assert revision is None or len(revision.rstrip("+")) >= 7


def test_evaluation_of_the_wrong_tokenizer_is_refused(tmp_path: Path) -> None:
    save_checkpoint(
        tmp_path / "sft.safetensors",
        small.model(),
        Metadata("sft", 1, small.CONFIG, "else", "", {}),
    )
    with pytest.raises(Exception, match="trained with another tokenizer"):
        run_evaluate(replace(PRESETS["smoke"], stage="sft", out_dir=tmp_path))
