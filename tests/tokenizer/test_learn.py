"""The ``tokenizer`` command: what it reads, what it says, what it writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from minillm.cli import main
from minillm.config import MODELS, PRESETS, STAGES, TRAINING
from minillm.errors import UserError
from minillm.tokenizer import learn
from minillm.tokenizer.learn import TokenizerOptions, run_tokenizer
from minillm.tokenizer.vocabulary import RustBPETokenizer

QUESTION = {"role": "user", "content": "一加一等于几？"}
ANSWER = {"role": "assistant", "content": "一加一等于二。"}
WORSE = {"role": "assistant", "content": "三"}
TEXT_ROW = {"text": "小猫在河边钓鱼。"}
CHAT_ROW = {"messages": [QUESTION, ANSWER]}
PAIR_ROW = {"chosen": [QUESTION, ANSWER], "rejected": [QUESTION, WORSE]}
TEXTS = ["小猫在河边钓鱼。", "一加一等于几？\n一加一等于二。"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENABLE_RUSTBPE", raising=False)


def write(path: str, *rows: Any) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return Path(path)


def options(*paths: Path, vocab_size: int = 270) -> TokenizerOptions:
    return TokenizerOptions(paths, vocab_size, Path("out"))


def test_the_presets_fit_the_models_and_the_mix() -> None:
    for preset in PRESETS:
        found = learn.TOKENIZER_PRESETS[preset]
        assert found.vocab_size == MODELS[preset].vocab_size
        assert found.data_path == tuple(TRAINING[preset][stage].data_path for stage in STAGES)
        assert found.out_dir == TRAINING[preset]["pretrain"].out_dir / "tokenizer"


def test_all_three_formats_become_text() -> None:
    files = write("a.jsonl", TEXT_ROW), write("b.jsonl", CHAT_ROW), write("c.jsonl", PAIR_ROW)
    tokenizer = run_tokenizer(options(*files))
    expected = [*TEXTS, "一加一等于几？\n一加一等于二。\n三"]
    assert tokenizer.fingerprint == RustBPETokenizer.train(expected, 270).fingerprint
    assert tokenizer.statistics["corpus_rows"] == 3
    assert tokenizer.statistics["corpus_characters"] == sum(map(len, expected))
    assert tokenizer.statistics["corpus_bytes"] == sum(len(text.encode()) for text in expected)


def test_rows_of_one_file_may_differ() -> None:
    tokenizer = run_tokenizer(options(write("a.jsonl", TEXT_ROW, CHAT_ROW)))
    assert tokenizer.mergeable_ranks == RustBPETokenizer.train(TEXTS, 270).mergeable_ranks


def test_what_is_printed_and_saved(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = run_tokenizer(options(write("a.jsonl", TEXT_ROW, CHAT_ROW)))
    tokens = sum(len(tokenizer.encode(text)) for text in TEXTS)
    characters, size = sum(map(len, TEXTS)), sum(len(text.encode()) for text in TEXTS)
    out = capsys.readouterr().out
    assert f"from 2 rows ({characters} characters, {size} bytes)" in out
    assert "270 tokens: 261 mergeable, 9 special" in out
    assert f"{characters / tokens:.3f} characters, {size / tokens:.3f} bytes on average" in out
    assert "note" not in out
    loaded = RustBPETokenizer.load(Path("out"))
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.statistics == tokenizer.statistics
    assert loaded.statistics["characters_per_token"] == round(characters / tokens, 4)


def test_the_same_rows_give_the_same_files() -> None:
    file = write("a.jsonl", TEXT_ROW, CHAT_ROW)
    run_tokenizer(options(file))
    first = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    run_tokenizer(options(file))
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == first


def test_a_small_corpus_says_how_many_tokens_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = run_tokenizer(options(write("a.jsonl", {"text": "abab"}), vocab_size=6400))
    assert tokenizer.vocab_size == 256 + 2 + 9
    out = capsys.readouterr().out
    assert "the vocabulary has 267 tokens, not --vocab_size 6,400" in out
    assert json.loads(Path("out/tokenizer_meta.json").read_text("utf-8"))["vocab_size"] == 267


def test_files_of_the_mix_may_be_missing(capsys: pytest.CaptureFixture[str]) -> None:
    write("data/processed/sft_chinese.jsonl", CHAT_ROW)
    run_tokenizer(TokenizerOptions(vocab_size=270))
    out = capsys.readouterr().out
    assert "data/processed/pretrain_chinese.jsonl: no such file, left out" in out
    assert "data/processed/dpo_chinese.jsonl: no such file, left out" in out
    assert Path("out/tokenizer/tokenizer_meta.json").exists()


def test_but_not_all_of_them() -> None:
    with pytest.raises(UserError, match=r"nothing to learn from: run `python scripts/build_ch"):
        run_tokenizer(TokenizerOptions())


def test_a_file_that_was_named_must_exist() -> None:
    with pytest.raises(UserError, match=r"--data_path: nowhere.jsonl: no such file"):
        run_tokenizer(options(write("a.jsonl", TEXT_ROW), Path("nowhere.jsonl")))
    assert not Path("out").exists()


def test_a_row_that_cannot_be_used_is_named_and_nothing_is_written() -> None:
    run_tokenizer(options(write("a.jsonl", TEXT_ROW)))
    before = Path("out/tokenizer_meta.json").read_bytes()
    bad = write("b.jsonl", TEXT_ROW, {"text": ""})
    with pytest.raises(UserError, match=r"b.jsonl:2: text is empty"):
        run_tokenizer(options(bad))
    assert Path("out/tokenizer_meta.json").read_bytes() == before


def test_an_empty_file() -> None:
    with pytest.raises(UserError, match=r"nothing to learn from.*missing or empty: a.jsonl"):
        run_tokenizer(options(write("a.jsonl")))


@pytest.mark.parametrize("folder", ["data/processed", "elsewhere"])
def test_the_mix_may_have_no_pairs(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`minillm mix --preference 0` writes an empty file of pairs."""
    nothing = write("none.jsonl")
    mixed = [write(f"{folder}/{stage}_chinese.jsonl", TEXT_ROW) for stage in ("pretrain", "sft")]
    empty = write(f"{folder}/dpo_chinese.jsonl")
    tokenizer = run_tokenizer(options(*mixed, empty))
    assert f"{empty}: no rows in it, left out\n" in capsys.readouterr().out
    assert tokenizer.statistics["corpus_rows"] == 2
    with pytest.raises(UserError, match=r"nothing to learn from"):
        run_tokenizer(options(empty, nothing))


def test_a_vocabulary_without_room_for_the_bytes() -> None:  # [3.2]
    with pytest.raises(UserError, match=r"--vocab_size 264 .* at least 265"):
        run_tokenizer(options(write("a.jsonl", TEXT_ROW), vocab_size=264))


def test_enable_rustbpe_wants_rust(monkeypatch: pytest.MonkeyPatch) -> None:  # [1.4] [9.1]
    monkeypatch.setenv("ENABLE_RUSTBPE", "1")
    monkeypatch.setitem(sys.modules, "rustbpe", None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="uv tool install maturin"):
        run_tokenizer(options(write("a.jsonl", TEXT_ROW)))
    monkeypatch.setenv("ENABLE_RUSTBPE", "0")
    run_tokenizer(options(Path("a.jsonl")))


def test_a_large_corpus_hears_of_rust(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_tokenizer(options(write("a.jsonl", TEXT_ROW)))
    assert "ENABLE_RUSTBPE" not in capsys.readouterr().err  # [1.4] not needed
    monkeypatch.setattr(learn, "SLOW_BYTES", 10)
    run_tokenizer(options(Path("a.jsonl")))
    assert "ENABLE_RUSTBPE=1 learns the same vocabulary" in capsys.readouterr().err


def test_rows_are_read_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    file = write("a.jsonl", *[TEXT_ROW] * 50)
    read, ahead = learn.read, []
    taken = 0

    def counted(path: Path) -> Any:
        for record in read(path):
            ahead.append(taken)
            yield record

    monkeypatch.setattr(learn, "read", counted)
    for text in learn.Corpus([file]):
        assert text == TEXT_ROW["text"]
        taken += 1
    assert ahead == list(range(50))


def test_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    write("a.jsonl", TEXT_ROW), write("b.jsonl", CHAT_ROW)
    flags = ["--data_path", "a.jsonl", "b.jsonl", "--vocab-size", "270", "--out_dir", "mine"]
    main(["tokenizer", *flags])
    assert RustBPETokenizer.load(Path("mine")).vocab_size == 270
    with pytest.raises(SystemExit):
        main(["tokenizer", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "(default: 6400)" in shown
    assert "out/tokenizer" in shown
