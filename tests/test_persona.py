"""Another persona for a trained model: what it learns, what it learns again, and what it says."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import small

from minillm import cli, persona
from minillm.book import lab
from minillm.data.rows import Message
from minillm.errors import UserError
from minillm.microworld import identity
from minillm.microworld.identity import Persona
from minillm.persona import PersonaOptions, run_persona
from minillm.training import checkpoint
from minillm.training.checkpoint import Metadata, load_checkpoint, save_checkpoint, weights_path

ME = Persona("小鸟", "公园")
"""Of characters that the small texts have."""


@pytest.fixture
def trained(tmp_path: Path) -> PersonaOptions:
    """A small model as DPO leaves it, with its data, and options for a short run."""
    out, data = tmp_path / "out", tmp_path / "data"
    small.tokenizer().save(out / "tokenizer")
    about = Metadata("dpo", 3, small.CONFIG, small.tokenizer().fingerprint, "", {})
    save_checkpoint(weights_path(out, "dpo"), small.model(), about)
    for stage in ("pretrain", "dpo"):
        small.write_rows(data / f"{stage}_chinese.jsonl", small.rows(stage))
    old = [{"messages": small.conversation("谁？", "旧名。"), "source": "identity_conversations"}]
    built_in = [{**old[0], "source": "builtin:identity"}]
    small.write_rows(data / "sft_chinese.jsonl", old + built_in + small.rows("sft"))
    own = [{"messages": small.conversation(f"{i}？", "我是{{name}}。")} for i in range(3)]
    return PersonaOptions(
        name=ME.name,
        author=ME.author,
        data_path=small.write_rows(tmp_path / "three.jsonl", own),
        rows=8,
        replay_chosen=5,
        replay_own=3,
        out_dir=out,
        data_dir=data,
        tf_dir=tmp_path / "tf_dir",
        learning_rate=1e-2,
        batch_size=1,
        max_seq_len=128,
        device="cpu",
    )


def conversations(path: Path) -> list[list[dict[str, str]]]:
    return [msgspec.json.decode(line)["messages"] for line in path.read_bytes().splitlines()]


def with_options(options: PersonaOptions, **changes: object) -> PersonaOptions:
    return PersonaOptions(**{**vars(options), **changes})  # type: ignore[arg-type]


def test_it_trains_on_the_persona_among_what_it_is_to_keep(
    trained: PersonaOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chat(_: Any, asked: list[list[Message]]) -> list[str]:
        return [f"我说：{turns[-1].content}" for turns in asked]

    monkeypatch.setattr(persona.Evaluator, "chat", chat)
    folder = run_persona(trained)
    assert folder == trained.out_dir / "persona"
    rows = conversations(folder / "rows.jsonl")
    about, kept = [small.conversation(f"{i % 3}？", "我是小鸟。") for i in range(8)], rows[8:]
    assert [row[-2:] for row in rows[:8]] == about
    assert rows[:8:2] == about[::2]
    for row in rows[1:8:2]:  # in the middle of a chat
        assert 2 < len(row) <= 10
        assert all(row[i : i + 2] in kept for i in range(0, len(row) - 2, 2))
    assert rows[8:13] == [pair["chosen"] for pair in small.rows("dpo")[:5]]
    # Its own answers; and not to the questions about the old persona, which come first in the file.
    assert rows[13:] == [small.conversation(f"{i}加1？", f"我说：{i}加1？") for i in range(3)]

    model, metadata = load_checkpoint(weights_path(folder, "sft"))
    assert metadata.train["init_from"] == str(weights_path(trained.out_dir, "dpo"))
    log = [msgspec.json.decode(x) for x in (folder / "sft_log.jsonl").read_bytes().splitlines()]
    assert metadata.step == len(log) > 1
    assert log[-1]["loss"] < log[0]["loss"]
    assert metadata.model == small.CONFIG
    before, _ = load_checkpoint(weights_path(trained.out_dir, "dpo"))
    assert not model.lm_head.weight.equal(before.lm_head.weight)


def test_where_there_were_no_preferences_it_starts_from_sft(
    trained: PersonaOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persona.Evaluator, "chat", lambda _, asked: ["好。"] * len(asked))
    dpo = weights_path(trained.out_dir, "dpo")
    model, about = load_checkpoint(dpo)
    save_checkpoint(weights_path(trained.out_dir, "sft"), model, replace(about, stage="sft"))
    dpo.unlink()
    pairs = trained.data_dir / "dpo_chinese.jsonl"
    with pytest.raises(UserError, match=r"no dpo weights; run `python trainer/train_dpo\.py`"):
        run_persona(trained)
    for none in (pairs.write_bytes, lambda _: pairs.unlink()):  # as an empty mix, or without one
        none(b"")
        folder = run_persona(trained)
        _, metadata = load_checkpoint(weights_path(folder, "sft"))
        assert metadata.train["init_from"] == str(weights_path(trained.out_dir, "sft"))
        assert len(conversations(folder / "rows.jsonl")) == trained.rows + trained.replay_own


def test_the_last_line_is_a_chat_that_works(
    trained: PersonaOptions, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_persona(
        with_options(trained, out_dir=trained.out_dir.rename(trained.out_dir.parent / "o ut"))
    )
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("Talk to 小鸟: minillm chat --out_dir '")
    command = line.partition(": minillm ")[2].replace("'", "")
    name, flag, path = command.split(" ", 2)
    cli.main([name, flag, path, "--prompt", "你是谁？", "--max_new_tokens", "3", "--device", "cpu"])
    assert checkpoint.load_for_inference(Path(path), None, None, "cpu")[2].stage == "sft"


def test_its_own_answers_are_given_turn_by_turn_and_have_an_end(
    trained: PersonaOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def chat(_: Any, conversations: list[list[Message]]) -> list[str]:
        asked.extend([turn.content for turn in turns] for turns in conversations)
        return [answers[turns[-1].content] for turns in conversations]

    answers = {"甲？": "一", "乙？": "二" * 30, "丙？": " ", "丁？": "四"}
    monkeypatch.setattr(persona.Evaluator, "chat", chat)
    system = {"role": "system", "content": "短"}
    rows = [
        [system, *small.conversation("甲？", "？"), *small.conversation("丁？", "？")],
        [*small.conversation("甲？", "？"), *small.conversation("乙？", "？")],
        [*small.conversation("丙？", "？"), *small.conversation("丁？", "？")],
    ]
    path = trained.data_dir / "sft_chinese.jsonl"
    small.write_rows(path, [{"messages": turns} for turns in rows])
    told = persona.own_answers(small.model(), small.tokenizer(), trained.data_dir, 3, 40)
    assert [[turn.content for turn in turns] for turns in told] == [
        ["短", "甲？", "一", "丁？", "四"],
        ["甲？", "一"],
    ]
    assert asked[-1] == ["短", "甲？", "一", "丁？"]


def test_conversations_are_repeated_in_turn_and_none_is_left_out() -> None:
    def turns(text: str) -> list[Message]:
        return [Message("user", "?"), Message("assistant", text)]

    def count(rows: int) -> Counter[str]:
        content = persona.training_rows([turns("a"), turns("b"), turns("c")], [turns("d")], rows)
        lines = [msgspec.json.decode(line)["messages"][-1]["content"] for line in content.split()]
        return Counter(lines)

    assert count(7) == {"a": 3, "b": 2, "c": 2, "d": 1}
    assert count(1) == {"a": 1, "b": 1, "c": 1, "d": 1}


def test_the_packages_own_conversations_are_the_shipped_ones(repo: Path) -> None:
    sample = repo / "dataset" / "identity_cn_sample.jsonl"
    assert persona.about(ME) == persona.about(ME, sample)
    assert len(persona.about(ME)) == identity.SAMPLE_ROWS


def test_own_conversations_are_filled_in(trained: PersonaOptions, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    chat = small.conversation("你好{{author}}", "我是{{name}}，{x}")
    small.write_rows(own, [{"messages": chat}])
    folder = run_persona(with_options(trained, data_path=own, rows=2))
    assert [row[-2:] for row in conversations(folder / "rows.jsonl")[:3]] == [
        small.conversation("你好公园", "我是小鸟，{x}"),
        small.conversation("你好公园", "我是小鸟，{x}"),
        small.rows("dpo")[0]["chosen"],
    ]


def test_the_book_and_the_command_learn_the_same_rows(
    trained: PersonaOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINILLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lab, "data", lambda: trained.data_dir)
    monkeypatch.setattr(lab, "tokenizer", small.tokenizer)
    monkeypatch.setattr(lab, "ladder", lambda stage: lab.Run(stage, stage, trained.out_dir))
    monkeypatch.setattr(lab, "variant", lambda name, stage, start, path, **_: (start, path))
    monkeypatch.setattr(persona.Evaluator, "chat", lambda _, asked: ["好。"] * len(asked))
    monkeypatch.setattr(persona.loop, "train", lambda config, stage: config.out_dir)
    start, path = lab.identity(ME, replay_own=1500)  # type: ignore[misc]
    assert start.stage == "dpo"
    folders = {"out_dir": trained.out_dir, "data_dir": trained.data_dir}
    options = PersonaOptions(ME.name, ME.author, **folders, max_seq_len=128)  # type: ignore[arg-type]
    written = (run_persona(options) / "rows.jsonl").read_bytes()
    assert written == path.read_bytes()
    assert len(written.splitlines()) == 800 + 24 + 24


def test_characters_that_pretraining_never_saw_are_named(
    trained: PersonaOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    run_persona(trained)
    assert "garbled" not in capsys.readouterr().err
    run_persona(with_options(trained, name="小禾"))
    (warning,) = [x for x in capsys.readouterr().err.splitlines() if "garbled" in x]
    assert "pretrain_chinese.jsonl never shows 禾: the name may come out garbled" in warning
    os.remove(trained.data_dir / "pretrain_chinese.jsonl")
    run_persona(with_options(trained, name="小禾"))
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": " "}, "--name is missing"),
        ({"out_dir": Path("none")}, r"^none/dpo\.safetensors: no dpo weights; run"),
        ({"data_dir": Path("none")}, r"^none/dpo_chinese\.jsonl: no such file; name .* --data_dir"),
        ({"data_path": Path("none.jsonl")}, r"^none\.jsonl: "),
    ],
)
def test_what_is_missing_is_named(
    trained: PersonaOptions, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run_persona(with_options(trained, **changes))
    assert not (trained.out_dir / "persona").exists()


def test_own_rows_that_teach_no_name_are_refused(trained: PersonaOptions, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    small.write_rows(own, [{"messages": small.conversation("小鸟是谁？", "我是小狗。")}])
    with pytest.raises(UserError, match=r"own.jsonl: no answer says 小鸟; write \{\{name\}\} "):
        run_persona(with_options(trained, data_path=own))
    small.write_rows(own, [{"text": "我是小鸟。"}])
    with pytest.raises(UserError, match=r"own.jsonl:1: .* conversations, this is a text"):
        run_persona(with_options(trained, data_path=own))


@pytest.mark.parametrize("flag", ["rows", "replay_chosen", "replay_own"])
def test_counts_are_checked(flag: str) -> None:
    with pytest.raises(UserError, match=f"--{flag} must be at least"):
        PersonaOptions(**{flag: -1})  # type: ignore[arg-type]


def test_stopped_it_has_nothing_to_resume(
    trained: PersonaOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> Path:
        raise KeyboardInterrupt("go on with --resume")

    monkeypatch.setattr(persona.loop, "train", stopped)
    with pytest.raises(KeyboardInterrupt, match=r"^persona: stopped; start it again$"):
        run_persona(trained)
