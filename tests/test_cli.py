"""The command line: presets, both spellings, help with defaults, one line for an error."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minillm import cli
from minillm.cli import COMMANDS, main
from minillm.config import GRPO_PRESETS, MODELS, TRAINING


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a command would run with, instead of running it."""
    seen: dict[str, Any] = {}
    load = cli._load

    def fake(place: str) -> Any:
        if place in {command.run for command in COMMANDS.values()}:
            return lambda options, **more: seen.update(options=options, **more)
        return load(place)

    monkeypatch.setattr(cli, "_load", fake)
    return seen


@pytest.mark.parametrize("spelling", ["--max_seq_len", "--max-seq-len"])
def test_both_spellings_work(ran: dict[str, Any], spelling: str) -> None:
    main(["sft", spelling, "77"])
    assert ran["options"].max_seq_len == 77
    assert ran["stage"] == "sft"


@pytest.mark.parametrize("stage", ["pretrain", "sft", "dpo"])
def test_presets_choose_all_defaults(ran: dict[str, Any], stage: str) -> None:
    main([stage])
    assert ran["options"] == TRAINING["default"][stage]  # type: ignore[index]
    main([stage, "--batch_size", "3", "--preset", "tiny", "--hidden-size", "64"])
    assert ran["options"].batch_size == 3
    assert ran["options"].model.hidden_size == 64
    assert ran["options"].model.num_hidden_layers == MODELS["tiny"].num_hidden_layers
    main([stage, "--preset=smoke"])
    assert ran["options"] == TRAINING["smoke"][stage]  # type: ignore[index]
    main([stage, "--preset", "smoke", "--preset=default", "--preset", "tiny"])  # the last counts
    assert ran["options"] == TRAINING["tiny"][stage]  # type: ignore[index]


def test_grpo_has_presets_and_flags_of_its_own(ran: dict[str, Any]) -> None:
    for preset, config in GRPO_PRESETS.items():
        main(["grpo", "--preset", preset])
        assert ran == {"options": config}
    main(
        ["grpo", "--preset", "tiny", "--group-size", "4", "--kl_weight", "0.1", "--hidden_size=64"]
    )
    assert (ran["options"].group_size, ran["options"].kl_weight) == (4, 0.1)
    assert ran["options"].model.hidden_size == 64


@pytest.mark.parametrize("command", ["pretrain", "sft", "dpo", "grpo"])
def test_a_stage_shows_no_flags_of_others_that_it_has_not(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    for flag in ("--group_size", "--clip ", "--length_penalty"):
        assert (flag in text) == (command == "grpo")
    for flag in ("--epochs", "--accumulation_steps", "--beta"):
        assert (flag in text) == (command != "grpo")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_every_flag_with_its_default(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    options = cli._load(COMMANDS[command].options)
    if isinstance(options, dict):
        options = options["default"]
        assert "--preset" in text
    if isinstance(options, dict):
        options = options[command]
    fields = [name for name, field in options.__dataclass_fields__.items() if field.init]
    positional = {"import": {"paths"}, "download": {"name"}}.get(command, set())
    for field in set(fields) - {"model", "sampling"} - positional:
        assert f"--{field}" in text, field
    assert text.count("(default:") >= len(fields) - 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "no command 'train'; there are import, "),
        (["sft", "--batchsize", "3"], "sft: unknown flag --batchsize; did you mean --batch_size?"),
        (["chat", "--temprature", "1"], "unknown flag --temprature; did you mean --temperature?"),
        (["dpo", "--num-layers", "2"], "--num-layers; did you mean --num_hidden_layers?"),
        (["chat", "你好"], "chat: unknown argument 你好; `minillm chat --help` lists"),
        (["sft", "--preset", "big"], "--preset 'big': choose one of default, small, tiny, smoke"),
        (["sft", "--preset"], "--preset '': choose one of default, small, tiny, smoke"),
        (["pretrain", "--batch_size", "0"], "--batch_size must be at least 1, not 0"),
        (["pretrain", "--learning_rate", "-1"], "--learning_rate must be above 0, not -1.0"),
        (["pretrain", "--learning_rate", "nan"], "--learning_rate must be a finite number"),
        (["pretrain", "--num_hidden_layers", "0"], "--num_hidden_layers must be at least 1"),
        (["dpo", "--beta=-1"], "--beta must be above 0, not -1.0"),
        (["grpo", "--group_size", "1"], "--group_size 1: an answer counts by how much better it"),
        (["grpo", "--clip", "0"], "--clip must be above 0, not 0.0"),
        (["grpo", "--epochs", "2"], "grpo: unknown flag --epochs; `minillm grpo --help` lists"),
        (["grpo", "--max_new_tokens", "600"], "--max_new_tokens 600 leaves no room for a question"),
        (["grpo", "--init_from", "none.safetensors"], "none.safetensors: no such file"),
        (["grpo"], "no dpo weights; run `python trainer/train_dpo.py` first"),
        (["chat", "--temperature", "inf"], "--temperature must be a finite number, not inf"),
        (["chat", "--max_new_tokens", "0"], "--max_new_tokens must be at least 1, not 0"),
        (["tokenizer", "--vocab_size", "-1"], "--vocab_size must be at least 1, not -1"),
        (["persona", "--batch_size", "0"], "--batch_size must be at least 1, not 0"),
        (["pretrain", "--hidden_size", "500"], "--hidden_size 500 must be a multiple of"),
        (["pretrain", "--data_path", "none.jsonl"], "none.jsonl: no such file"),
        (["pretrain", "--data_path", "none-*.jsonl"], "none-*.jsonl: no file matches this pattern"),
        (
            ["pretrain", "--data_path", "a.jsonl", __file__],
            "test_cli.py; a pattern of files must stand in quotes; `minillm pretrain --help` lists",
        ),
        (["chat", "--out_dir", "none"], "no pretrain weights"),
    ],
)
def test_errors_are_one_line_and_exit_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_DIR", str(tmp_path))
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("minillm: error: ")
    assert message in line


def test_a_value_of_the_wrong_type_names_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["sft", "--batch_size", "many"])
    assert stop.value.code == 2
    assert "--batch_size" in capsys.readouterr().err


def test_no_command_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    output = capsys.readouterr().out
    assert all(f"  {command} " in output for command in COMMANDS)


def test_data_commands_do_not_load_torch() -> None:
    modules = "minillm, minillm.data.mix, minillm.data.importer, minillm.cli"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- Terminals, pipes, and Ctrl-C -----------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("encoding", ["gbk", "cp1252", "ascii"])
def test_what_a_terminal_cannot_show_ends_no_command(
    command: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n"), encoding=encoding))
    load, said = cli._load, "≈ → é 猫 🐦 \ufffd \udcff"
    heard = []

    def fake(place: str) -> Any:
        if place in {command.run for command in COMMANDS.values()}:
            return lambda *_, **__: (print(said), heard.append(sys.stdin.readline()))
        return load(place)

    monkeypatch.setattr(cli, "_load", fake)
    main([command])
    output.seek(0)
    assert output.read() == said.encode(encoding, "replace").decode(encoding) + "\n"
    assert len(heard) == 1


MINILLM = [sys.executable, "-c", "from minillm.cli import main; main()"]


@pytest.mark.parametrize("encoding", ["gbk", "ascii"])
def test_a_finished_command_is_told_on_any_terminal(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "é🐦.jsonl").write_text('{"text": "小猫"}\n', encoding="utf-8")
    done = subprocess.run(
        [*MINILLM, "import", "é🐦.jsonl", "--category", "text"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert "?" in done.stdout.decode(encoding)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments", [["--help"], ["mix", "--help"], ["download"], ["import", "a.jsonl"]]
)
def test_a_reader_that_leaves_gets_no_traceback(
    arguments: list[str], unbuffered: str, tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    os.close(reader)  # as `| head` does
    (tmp_path / "a.jsonl").write_text('{"text": "小猫"}\n', encoding="utf-8")
    category = ["--category", "text"] if arguments[0] == "import" else []
    done = subprocess.run(
        [*MINILLM, *arguments, *category],
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize(
    ("stopped", "said"), [("", "minillm: stopped"), ("sft: stopped", "minillm: sft: stopped")]
)
def test_ctrl_c_ends_a_command_with_one_line(
    stopped: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any) -> None:
        raise KeyboardInterrupt(*filter(None, [stopped]))

    monkeypatch.setattr(cli, "_run", run)
    with pytest.raises(SystemExit) as stop:
        main(["sft"])
    assert stop.value.code == 130
    assert capsys.readouterr().err == f"{said}\n"
