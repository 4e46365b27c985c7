"""A conversation in the terminal: what does not end it, and what does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import small
import torch

from minillm import chat
from minillm.chat import ChatOptions, run_chat
from minillm.config import ModelConfig
from minillm.data.rows import Message
from minillm.errors import UserError
from minillm.model.generate import Sampling, reply
from minillm.training.checkpoint import Metadata, save_checkpoint

TOKENIZER = small.tokenizer()


def save(folder: Path, config: ModelConfig = small.CONFIG) -> Path:
    """A model that has learned nothing: it answers nonsense, and does not stop by itself."""
    TOKENIZER.save(folder / "tokenizer")
    model = small.model(config=config)
    with torch.no_grad():
        model.lm_head.weight[256:] *= 0.01  # nearly all it says is bytes
    metadata = Metadata("sft", 1, config, TOKENIZER.fingerprint, "", {})
    save_checkpoint(folder / "sft.safetensors", model, metadata)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model"))


def type_in(monkeypatch: pytest.MonkeyPatch, *questions: str | BaseException) -> Iterator[Any]:
    """Answers every prompt of the chat; an exception is raised there. Returns what is left."""
    left = iter(questions)

    def ask(_: str) -> str:
        if isinstance(typed := next(left), BaseException):
            raise typed
        return typed

    monkeypatch.setattr("builtins.input", ask)
    return left


# --- In one process -------------------------------------------------------------------------------


def test_chat_answers_until_an_empty_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = type_in(monkeypatch, "你好", "小猫在哪里？" * 6, "再见", "", "not read")
    run_chat(ChatOptions(out_dir=folder, max_new_tokens=8))
    output = capsys.readouterr().out.splitlines()
    assert output[0].startswith("sft model, 28,832 parameters")
    assert len(output) >= 4
    assert list(left) == ["not read"]


@pytest.mark.parametrize("end", [EOFError(), KeyboardInterrupt()])
def test_chat_ends_where_questions_end(
    folder: Path,
    end: BaseException,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    type_in(monkeypatch, end)
    run_chat(ChatOptions(out_dir=folder))
    assert capsys.readouterr().out.endswith("ends the chat\n\n")


def test_one_question_needs_no_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_chat(ChatOptions(prompt="你好", out_dir=folder, max_new_tokens=4))
    model, tokenizer, _ = chat.load_for_inference(folder, None, None, "cpu")
    assert capsys.readouterr().out == "".join(reply(model, tokenizer, "你好", 4)) + "\n"


def test_chat_without_weights_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train_pretrain\.py"):
        run_chat(ChatOptions(out_dir=tmp_path))


def test_answers_of_no_tokens_are_refused() -> None:
    with pytest.raises(UserError, match="--max_new_tokens must be at least 1, not 0"):
        ChatOptions(max_new_tokens=0)


TOO_LONG = "小猫和小狗在哪里？" * 40


def test_a_question_that_is_too_long_is_refused_alone(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = type_in(monkeypatch, "你好", TOO_LONG, "再见", "")
    asked = heard(monkeypatch)
    run_chat(ChatOptions(out_dir=folder, max_new_tokens=4))
    (line,) = capsys.readouterr().err.splitlines()
    assert "tokens long" in line
    assert "127" in line
    assert "shorter" in line
    assert not list(left)
    assert asked[-1] == ["你好", "再见"]


def test_the_only_question_is_too_long(folder: Path) -> None:
    with pytest.raises(UserError, match=r"tokens long.*127.*shorter"):
        run_chat(ChatOptions(prompt=TOO_LONG, out_dir=folder))


def heard(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The user's messages that the model is given for each answer."""
    asked: list[list[str]] = []
    real = chat.reply

    def listen(model: Any, tokenizer: Any, messages: list[Message], *more: Any) -> Iterator[str]:
        asked.append([m.content for m in messages if m.role == "user"])
        return real(model, tokenizer, messages, *more)

    monkeypatch.setattr(chat, "reply", listen)
    return asked


def test_a_long_chat_forgets_its_oldest_questions_and_says_so_once(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = [f"{i}号小猫在哪里？" for i in range(25)]
    type_in(monkeypatch, *questions, "")
    asked = heard(monkeypatch)
    run_chat(ChatOptions(out_dir=folder, max_new_tokens=6))
    assert [turns[-1] for turns in asked] == questions
    assert asked[1] == questions[:2]
    for i, turns in enumerate(asked):
        assert turns == questions[: i + 1][-len(turns) :]
    assert questions[0] not in asked[-1]
    (line,) = capsys.readouterr().err.splitlines()
    assert "forgotten" in line


def test_ctrl_c_stops_one_answer(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = count()

    def interrupted(*_: Any) -> Iterator[str]:
        number = next(answers)
        yield f"answer {number}"
        if number == 0:
            raise KeyboardInterrupt
        yield " whole"

    monkeypatch.setattr(chat, "reply", interrupted)
    type_in(monkeypatch, "你好", "再见", "")
    run_chat(ChatOptions(out_dir=folder))
    output = capsys.readouterr().out.splitlines()
    assert output[1:] == ["answer 0", "answer 1 whole"]


def test_ctrl_c_stops_the_only_answer_and_the_command(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Iterator[str]:
        yield "begun"
        raise KeyboardInterrupt

    monkeypatch.setattr(chat, "reply", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_chat(ChatOptions(prompt="你好", out_dir=folder))
    assert capsys.readouterr().out == "begun\n"  # whatever is said next begins a line


def test_a_model_with_more_ids_than_its_tokenizer_never_says_them(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    TOKENIZER.save(tmp_path / "tokenizer")
    model, _, metadata = chat.load_for_inference(folder, None, None, "cpu")
    with torch.no_grad():
        model.lm_head.weight[TOKENIZER.vocab_size :] *= 100
    save_checkpoint(tmp_path / "sft.safetensors", model, metadata)
    for sampling in (Sampling(), Sampling(temperature=1.3, seed=2)):
        run_chat(ChatOptions("你好", tmp_path, max_new_tokens=64, sampling=sampling))
    assert capsys.readouterr().out.count("\n") >= 2


# --- As a command ---------------------------------------------------------------------------------

COMMAND = [sys.executable, "-c", "from minillm.cli import main; main()", "chat"]


def start(folder: Path, *flags: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, "--out_dir", str(folder), *flags],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("encoding", ["gbk", "ascii", "utf-8"])
def test_no_byte_that_is_typed_or_said_ends_a_chat(tmp_path: Path, encoding: str) -> None:
    save(tmp_path, replace(small.CONFIG, max_position_embeddings=512))
    process = start(tmp_path, "--max_new_tokens", "9", PYTHONIOENCODING=encoding)
    # No text in any of the encodings; then a question.
    output, errors = process.communicate(b"\xff\xfe\x81 \x80\n\xe4\xbd\nhello\n\n")
    assert process.returncode == 0, errors
    assert errors == b""
    assert output.count(b"> ") == 4
    output.decode(encoding)


def test_ctrl_c_is_heard_while_the_model_answers(tmp_path: Path) -> None:
    save(tmp_path, replace(small.CONFIG, max_position_embeddings=100_000))
    process = start(tmp_path, "--max_new_tokens", "90000", PYTHONIOENCODING="utf-8")
    assert process.stdin
    assert process.stdout
    process.stdin.write("小猫\n".encode())
    process.stdin.flush()
    assert process.stdout.readline().startswith(b"sft model")
    assert len(process.stdout.read(20)) == 20  # the answer has begun
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(b"\n", timeout=60)
    assert process.returncode == 0
    assert output.endswith(b"\n> ")
    assert errors == b""
