"""Scores: statistics by hand, and an oracle that answers everything gets full marks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import small
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from minillm import evaluate as scores
from minillm.config import STAGES, Stage
from minillm.data.mix import MIX_PRESETS, build
from minillm.data.rows import Message
from minillm.errors import UserError
from minillm.evaluate import (
    EVALUATE_PRESETS,
    EvaluateOptions,
    Evaluator,
    evaluate,
    flatten,
    git_revision,
    run_evaluate,
    score_table,
    wilson_interval,
)
from minillm.files import file_sha256
from minillm.microworld import exercises, identity, scoring
from minillm.model.transformer import Transformer
from minillm.training.checkpoint import Metadata, save_checkpoint
from minillm.training.loop import train

TOKENIZER = small.tokenizer()


def saved(path: Path, model: Transformer, **settings: Any) -> Path:
    """Weights in a file, as of a run with these settings."""
    about = Metadata("dpo", 7, model.config, TOKENIZER.fingerprint, "", settings)
    save_checkpoint(path, model, about)
    return path


def options_for(folder: Path, **changes: Any) -> EvaluateOptions:
    """A short evaluation of FOLDER/out on FOLDER/data."""
    TOKENIZER.save(folder / "out" / "tokenizer")
    places = {"out_dir": folder / "out", "data_dir": folder / "data", "tf_dir": folder / "tf_dir"}
    short = {"items": 1, "max_new_tokens": 1, "max_seq_len": 64, "max_val_rows": 100}
    return replace(EVALUATE_PRESETS["smoke"], **{**places, **short, **changes})


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


def test_sessions_are_scored_by_place_and_read_back_as_far_as_the_window() -> None:
    asked = {text: q for session in scoring.sessions(10) for text, q in session}

    class Forgetful(Evaluator):
        """Answers nothing right as soon as it reads an earlier question."""

        read = 0

        def chat(self, conversations):  # type: ignore[no-untyped-def]
            self.read = max(self.read, *map(len, conversations))
            questions = [asked[c[-1].content] for c in conversations]
            return [
                q.answer if q and len(c) == 1 else "不知道"
                for q, c in zip(questions, conversations, strict=True)
            ]

    model = Forgetful(small.model(), TOKENIZER)
    assert model.session_accuracy(10, 10_000) == [0.9, *[0] * 9]  # a follow-up never is first
    assert model.read > 20
    assert model.session_accuracy(10, 1) == [1] * 10


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
    chat = [Message("user", "你好！"), Message("assistant", "你好。")]
    assert Oracle(known).identity_hit_rate(persona, [chat] * 30, window=10_000) == 0
    assert Oracle(known).identity_hit_rate(persona, [chat] * 30, window=1) == 1


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
            EVALUATE_PRESETS["smoke"], stage=stage, out_dir=config.out_dir,
            data_dir=tmp_path / "data", tf_dir=tmp_path / "tf_dir", max_seq_len=64,
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
        assert list(result["session"]) == [str(place) for place in range(1, 11)]
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
    shown = score_table(results)
    assert shown.splitlines()[0].split() == list(STAGES)
    assert f"{results[1]['val_loss']:.3f}" in shown


def test_bits_per_byte_by_hand(tmp_path: Path) -> None:
    path = small.write_rows(tmp_path / "rows.jsonl", [{"text": "小猫"}])
    evaluator = Evaluator(small.model(), TOKENIZER)
    options = replace(EVALUATE_PRESETS["smoke"], out_dir=tmp_path, max_seq_len=64)
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
    options = replace(EVALUATE_PRESETS["smoke"], out_dir=tmp_path, max_seq_len=64, max_val_rows=1)
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
    options = replace(EVALUATE_PRESETS["smoke"], out_dir=tmp_path, max_seq_len=64, max_val_rows=10)
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
        run_evaluate(replace(EVALUATE_PRESETS["smoke"], stage="sft", out_dir=tmp_path))


# ---- what DPO is measured with ----


def log_prob(model: Transformer, turns: list[dict[str, str]]) -> float:
    """log p of the answer's tokens, one conversation at a time."""
    ids, mask = TOKENIZER.render_conversation(turns)
    with torch.no_grad():
        log_probs = model(torch.tensor([ids[:-1]]))[0].log_softmax(-1)
    return sum(float(log_probs[t, ids[t + 1]]) for t in range(len(ids) - 1) if mask[t + 1])


def by_hand(policy: Transformer, reference: Transformer, beta: float) -> dict[str, float]:
    margins, preferred = [], []
    for row in small.rows("dpo", 6):
        chosen, rejected = (log_prob(policy, row[side]) for side in ("chosen", "rejected"))
        before = [log_prob(reference, row[side]) for side in ("chosen", "rejected")]
        margins.append(beta * ((chosen - before[0]) - (rejected - before[1])))
        preferred.append(chosen > rejected)
    return {
        "accuracy": sum(margin > 0 for margin in margins) / 6,
        "margin": sum(margins) / 6,
        "prefers_chosen": sum(preferred) / 6,
    }


def test_the_margin_is_that_of_the_runs_own_reference_and_beta(tmp_path: Path) -> None:
    policy, reference, decoy = (small.model(seed) for seed in (1, 2, 3))
    start = saved(tmp_path / "elsewhere.safetensors", reference)
    saved(tmp_path / "out" / "sft.safetensors", decoy)
    small.write_rows(tmp_path / "data" / "dpo_chinese_val.jsonl", small.rows("dpo", 6))
    options = options_for(tmp_path, stage="dpo")
    assert by_hand(policy, decoy, 0.5) != pytest.approx(by_hand(policy, reference, 0.5), rel=0.01)
    for settings, model, beta in (
        ({"beta": 0.5, "init_from": str(start)}, reference, 0.5),
        ({"beta": 0.02, "init_from": None}, decoy, 0.02),
        ({}, decoy, 0.1),
    ):
        saved(tmp_path / "out" / "dpo.safetensors", policy, **settings)
        assert evaluate(options)["dpo"] == pytest.approx(by_hand(policy, model, beta), rel=1e-4)


@pytest.mark.parametrize("named", [True, False])
def test_a_reference_that_is_gone_is_named(tmp_path: Path, named: bool) -> None:
    gone = tmp_path / "gone.safetensors"
    settings = {"init_from": str(gone)} if named else {}
    saved(tmp_path / "out" / "dpo.safetensors", small.model(), **settings)
    small.write_rows(tmp_path / "data" / "dpo_chinese_val.jsonl", small.rows("dpo", 6))
    wanted = (
        r"gone\.safetensors: no such file; DPO" if named else r"sft\.safetensors: no sft weights"
    )
    with pytest.raises(UserError, match=wanted):
        evaluate(options_for(tmp_path, stage="dpo"))


def test_a_reference_of_another_shape_is_refused(tmp_path: Path) -> None:
    other = small.model(config=replace(small.CONFIG, num_hidden_layers=1))
    start = saved(tmp_path / "elsewhere.safetensors", other)
    saved(tmp_path / "out" / "dpo.safetensors", small.model(), init_from=str(start))
    small.write_rows(tmp_path / "data" / "dpo_chinese_val.jsonl", small.rows("dpo", 6))
    with pytest.raises(UserError, match=r"elsewhere\.safetensors: has num_hidden_layers 1"):
        evaluate(options_for(tmp_path, stage="dpo"))


# ---- a model that is too short ----


def test_documents_are_fitted_to_a_model_with_fewer_positions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = small.model(config=replace(small.CONFIG, max_position_embeddings=24))
    saved(tmp_path / "out" / "dpo.safetensors", short)
    saved(tmp_path / "out" / "sft.safetensors", short)
    for stage in ("sft", "dpo"):
        small.write_rows(tmp_path / "data" / f"{stage}_chinese_val.jsonl", small.rows(stage))
    found = evaluate(options_for(tmp_path, stage="dpo", max_seq_len=512))
    assert found["dpo"]["margin"] == pytest.approx(0, abs=1e-6)
    same = evaluate(options_for(tmp_path, stage="dpo", max_seq_len=24))
    assert found["val_loss"] == same["val_loss"] > 0
    warnings = [
        line for line in capsys.readouterr().err.splitlines() if "--max_seq_len 512" in line
    ]
    assert [w.split(": --")[0].rpartition("/")[2] for w in warnings] == [
        "sft_chinese_val.jsonl",
        "dpo_chinese_val.jsonl",
    ]
    assert "512 is more than the model's 24 positions" in warnings[0]


def test_a_question_that_is_too_long_is_not_answered() -> None:
    short = small.model(config=replace(small.CONFIG, max_position_embeddings=8))
    rate, asked = Evaluator(short, TOKENIZER).choice_accuracy(10)
    assert rate == 0
    assert asked > 0


# ---- values that make no sense ----


@pytest.mark.parametrize("name", ["items", "max_new_tokens", "max_val_rows", "max_seq_len"])
@pytest.mark.parametrize("value", [0, -1])
def test_numbers_that_leave_nothing_to_score(name: str, value: int) -> None:
    with pytest.raises(UserError, match=f"--{name} must be at least 1, not {value}"):
        replace(EVALUATE_PRESETS["smoke"], **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["persona_name", "persona_author"])
def test_a_name_that_every_answer_holds(name: str) -> None:
    with pytest.raises(UserError, match=f"--{name} is empty"):
        replace(EVALUATE_PRESETS["smoke"], **{name: " "})  # type: ignore[arg-type]


# ---- where the results go ----


def fail(_: object) -> None:
    raise AssertionError("scores were computed for nothing")


def test_a_place_that_cannot_be_written_is_known_before_the_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = options_for(tmp_path)
    monkeypatch.setattr(scores, "evaluate", fail)
    options.tf_dir.write_bytes(b"a file")
    with pytest.raises(
        UserError, match=r"eval_results\.jsonl: cannot write: .*a file is in the pl"
    ):
        run_evaluate(options)
    options.tf_dir.unlink()
    (options.tf_dir / "eval_results.jsonl").mkdir(parents=True)
    with pytest.raises(UserError, match=r"eval_results\.jsonl: cannot write: Is a directory"):
        run_evaluate(options)


def test_an_evaluation_that_fails_leaves_no_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no pretrain weights"):
        run_evaluate(options_for(tmp_path, stage="pretrain"))
    assert list((tmp_path / "tf_dir").iterdir()) == []


def nulls(value: Any, place: str = "") -> list[str]:
    """Where a decoded JSON value holds null."""
    if isinstance(value, dict):
        return [found for name in value for found in nulls(value[name], f"{place}.{name}")]
    return [place] if value is None else []


def test_what_cannot_be_scored_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model whose weights are no numbers, and no question with options."""
    broken = small.model()
    with torch.no_grad():
        broken.model.norm.weight.fill_(math.nan)
    saved(tmp_path / "out" / "sft.safetensors", broken, max_steps=None)
    small.write_rows(tmp_path / "data" / "sft_chinese_val.jsonl", small.rows("sft"))
    plain = [replace(q, options=()) for q in scoring.questions("fact", 3)]
    monkeypatch.setattr(scoring, "questions", lambda *_: plain)
    monkeypatch.setattr(scores, "git_revision", lambda: None)
    run_evaluate(options_for(tmp_path, stage="sft"))
    line = (tmp_path / "tf_dir" / "eval_results.jsonl").read_bytes()
    result = msgspec.json.decode(line)
    assert nulls(result) == [".config.max_steps"]  # a setting, not a score
    assert "val_loss" not in result
    assert result["multiple_choice"] == {"interval": [0.0, 1.0], "n": 0}
    assert "multiple choice" not in flatten(result)
    assert "answer fact" in capsys.readouterr().out


# ---- a model that read nothing of the micro-world ----


def trained_on_a_mix(folder: Path, stage: Stage = "sft", **changes: Any) -> EvaluateOptions:
    """Weights that name the rows which a mix of a few files of one's own wrote."""
    rows = [{"messages": small.conversation(f"第{n}问？", f"第{n}答。")} for n in range(30)]
    small.write_rows(folder / "own" / "general_mine.jsonl", rows)
    options = {"data_dir": folder / "own", "out_dir": folder / "data", "general": 30, **changes}
    build(replace(MIX_PRESETS["smoke"], **options))
    rows_sha256 = file_sha256(folder / "data" / f"{stage}_chinese.jsonl")
    about = Metadata(stage, 7, small.CONFIG, TOKENIZER.fingerprint, rows_sha256, {})
    save_checkpoint(folder / "out" / f"{stage}.safetensors", small.model(), about)
    return options_for(folder, stage=stage)


WORLD = {"continuations", "accuracy", "session", "multiple_choice", "polite", "identity_in_a_chat"}


def test_what_the_model_never_read_of_is_left_out_and_not_scored_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = trained_on_a_mix(tmp_path, built_in="none")
    run_evaluate(options)
    result = msgspec.json.decode((tmp_path / "tf_dir" / "eval_results.jsonl").read_bytes())
    assert not WORLD & result.keys()
    assert set(result["left_out"]) == {*WORLD, "identity_hit_rate"}
    assert "identity_hit_rate" not in result
    assert result["val_loss"] > 0
    assert set(flatten(result)) == {"val_loss", "bits_per_byte"}
    held_out = [
        msgspec.json.decode(line)["messages"][0]["content"]
        for line in (tmp_path / "data" / "sft_chinese_val.jsonl").read_bytes().splitlines()
    ]
    assert 0 < len(result["samples"]) <= 3  # not about people of whom it knows nothing
    assert [sample["prompt"] for sample in result["samples"]] == held_out[:3]
    said = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert said == [
        "left out: continuations, accuracy, session, multiple_choice, polite, identity_in_a_chat, "
        f"identity_hit_rate; by {tmp_path / 'data' / 'mix_report.json'}, the model read nothing of "
        "what they ask about: score questions of your own by --questions FILE"
    ]


def test_who_it_is_can_be_asked_where_it_was_told(tmp_path: Path) -> None:
    rows = [{"messages": small.conversation("你是谁？", f"我是{n}。")} for n in range(9)]
    small.write_rows(tmp_path / "own" / "identity_conversations.jsonl", rows)
    result = evaluate(trained_on_a_mix(tmp_path, built_in="none"))
    assert result["identity_hit_rate"] == 0
    assert set(result["left_out"]) == WORLD


def test_one_category_of_the_micro_world_is_enough(tmp_path: Path) -> None:
    sample = {"knowledge": 0, "math": 20, "preference": 0, "text": 0, "identity": 0}
    result = evaluate(trained_on_a_mix(tmp_path, **sample))
    assert result.keys() >= WORLD | {"identity_hit_rate"}
    assert "left_out" not in result


def test_built_in_rows_that_came_in_a_file_are_the_micro_world_too(tmp_path: Path) -> None:
    rows = [{"messages": small.conversation("几？", "三。"), "source": "builtin:math"}]
    small.write_rows(tmp_path / "own" / "math_again.jsonl", rows)
    assert "left_out" not in evaluate(trained_on_a_mix(tmp_path, built_in="none"))


def forget(report: Path, weights: Path) -> None:
    report.unlink()


def spoil(report: Path, weights: Path) -> None:
    report.write_bytes(b'{"files": []}')


def train_on_others(report: Path, weights: Path) -> None:
    saved(weights, small.model())


@pytest.mark.parametrize("change", [forget, spoil, train_on_others])
def test_where_nobody_knows_what_was_read_all_is_asked(
    tmp_path: Path, change: Callable[[Path, Path], None]
) -> None:
    options = trained_on_a_mix(tmp_path, built_in="none")
    change(tmp_path / "data" / "mix_report.json", tmp_path / "out" / "sft.safetensors")
    assert evaluate(options).keys() >= WORLD


@pytest.mark.parametrize("own", [True, False])
def test_grpo_asks_the_micro_worlds_sums_unless_it_had_others(tmp_path: Path, own: bool) -> None:
    options = trained_on_a_mix(tmp_path, built_in="none")
    train_settings = {"data_path": "mine.jsonl" if own else None}
    about = Metadata("grpo", 7, small.CONFIG, TOKENIZER.fingerprint, "", train_settings)
    save_checkpoint(tmp_path / "out" / "grpo.safetensors", small.model(), about)
    assert ("left_out" in evaluate(replace(options, stage="grpo"))) == own


# ---- the table ----


def test_the_table_by_hand() -> None:
    first = {
        "stage": "pretrain",
        "val_loss": 1.5,
        "continuations": {"fact": 0.25},
        "accuracy": {"fact": 0.5},
        "multiple_choice": {"accuracy": 1.0, "n": 3},
        "polite": 0,
        "identity_hit_rate": 0.125,
    }
    second = {**first, "stage": "dpo", "dpo": {"margin": -12.25}}
    assert score_table([first]).splitlines() == [
        "                 pretrain",
        "val_loss            1.500",
        "continue fact       0.250",
        "answer fact         0.500",
        "multiple choice     1.000",
        "polite              0.000",
        "identity            0.125",
    ]
    assert score_table([first, second]).splitlines()[0] == "                 pretrain       dpo"
    assert score_table([first, second]).splitlines()[-1] == "DPO margin              -   -12.250"
    assert score_table([second]).splitlines()[0] == "                      dpo"


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"stage": "sft"},
        {"stage": None, "val_loss": None, "bits_per_byte": None},
        {"stage": "sft", "continuations": None, "accuracy": [0.5], "multiple_choice": 0.5},
        {"stage": "dpo", "dpo": {"accuracy": None, "margin": math.nan}, "polite": "0.5"},
        {"stage": "sft", "accuracy": {"fact": None}, "identity_hit_rate": math.inf},
    ],
)
def test_a_stored_line_without_scores_is_shown_without_them(line: dict[str, Any]) -> None:
    whole = {"stage": "pretrain", "polite": 0.5, "accuracy": {"fact": 0.25}}
    assert flatten(line) == {}
    shown = score_table([whole, line]).splitlines()
    assert [row.split()[-1] for row in shown[1:]] == ["-", "-"]
    assert len(score_table([line]).splitlines()) == 1


@pytest.mark.parametrize("n", range(1, 60))
def test_a_shares_interval_stays_between_0_and_1(n: int) -> None:
    assert wilson_interval(0, n)[0] >= 0
    assert wilson_interval(n, n)[1] <= 1
    assert f"{wilson_interval(0, n)[0]:.3f}" == "0.000"
