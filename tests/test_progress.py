from __future__ import annotations

import sys

import pytest

from minillm import progress
from minillm.progress import Progress, counted


def test_a_log_gets_lines_of_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with Progress("pretrain", 4, "steps", start=1) as bar:
        bar.update(1, loss="2.500")
        bar.update(2)
    assert list(counted("ab", "read x.jsonl")) == ["a", "b"]
    output = capsys.readouterr()
    assert output.err.splitlines() == [
        "pretrain: 2 of 4 steps (50%), loss 2.500",
        "pretrain: 4 of 4 steps (100%), loss 2.500",
        "read x.jsonl: 1 rows",
        "read x.jsonl: 2 rows",
    ]
    assert not output.out


def test_lines_come_only_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(counted(range(1000), "read")) == list(range(1000))
    with Progress("hidden", 5, quiet=True) as bar:
        bar.update(5)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("pretrain", 4, "steps", keep=True) as bar:
        bar.update(4, loss="2.500")
    shown = capsys.readouterr().err
    assert "\r" in shown
    assert "4/4" in shown
    assert "loss=2.500" in shown
