"""`minillm evaluate --questions` and `--text`, as the reader calls them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from transformers import AutoModelForCausalLM

from minillm.cli import main
from minillm.evaluate import flatten
from minillm.own.paired import mcnemar
from minillm.tokenizer.vocabulary import RustBPETokenizer
from minillm.training.checkpoint import Metadata, load_checkpoint, save_checkpoint
from minillm.training.model_folder import save_stage

Run = Callable[..., dict[str, Any]]
HEADER = "id,question,A,B,C,D,answer\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls the command in a folder with two models of random weights, as stages sft and dpo."""
    monkeypatch.chdir(tmp_path)
    tokenizer = small.tokenizer()
    tokenizer.save(Path("out/tokenizer"))
    for stage, seed in (("sft", 1), ("dpo", 2)):
        model = small.model(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(4)
        about = Metadata(stage, 7, model.config, tokenizer.fingerprint, "abc", {})  # type: ignore[arg-type]
        save_checkpoint(Path("out") / f"{stage}.safetensors", model, about)

    def call(*arguments: str) -> dict[str, Any]:
        capsys.readouterr()
        given = ["--out_dir", "out", "--stage", "dpo", "--tf_dir", "tf", "--max_new_tokens", "4"]
        main(["evaluate", *given, *arguments])
        lines = Path("tf/eval_results.jsonl").read_bytes().splitlines()
        said = capsys.readouterr()
        return {**json.loads(lines[-1]), "out": said.out, "err": said.err}

    return call


def quiz(name: str, count: int) -> Path:
    """A table of ``count`` questions."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{i},{i}加{i}得几？,{i},{2 * i},{3 * i},无,{'ABCD'[i % 4]}\n" for i in range(count)]
    path.write_text(HEADER + "".join(rows), encoding="utf-8")
    return path


def test_questions_alone_are_scored(run: Run) -> None:
    one, other = quiz("exam/one.csv", 8), quiz("exam/two/other.csv", 4)
    found = run("--questions", "exam", "--predictions", "exam/said.jsonl")
    assert found["stage"] == "dpo"
    assert found["step"] == 7
    assert found["data_sha256"] == "abc"
    assert found["parameters"] == small.model().num_parameters()
    assert flatten(found) == {}, "none of the micro-world's scores"
    files = found["questions"]["files"]
    assert [file["file"] for file in files] == [str(one), str(other)]
    assert files[0]["sha256"] == hashlib.sha256(one.read_bytes()).hexdigest()
    assert [file["accuracy"]["n"] for file in files] == [8, 4]
    total = found["questions"]["accuracy"]
    assert total["n"] == 12
    assert total["chance"] == 0.25
    lines = Path("exam/said.jsonl").read_bytes().splitlines()
    said = [json.loads(line) for line in lines]
    assert sum(line["accuracy"] for line in said) / 12 == total["share"]
    for line in said:
        assert line["accuracy"] == (line["reply"] == line["answer"])
        assert line["reply"] == max(line["log_probs"], key=line["log_probs"].get)
    assert said[1] | {"log_probs": 0, "reply": 0, "accuracy": 0} == {
        "file": "exam/one.csv", "line": 3, "question": "1加1得几？", "answer": "B", "reply": 0,
        "accuracy": 0, "options": {"A": "1", "B": "2", "C": "3", "D": "无"}, "log_probs": 0,
    }  # fmt: skip
    table = found["out"].splitlines()
    assert table[0].split() == ["questions", "accuracy", "95%", "interval", "chance"]
    assert [line.split()[:2] for line in table[1:4]] == [
        ["one.csv", "8"], ["other.csv", "4"], ["all", "12"],
    ]  # fmt: skip
    assert f"{total['share']:.3f}" in table[3]
    assert table[5].startswith("letters chosen: ")
    assert table[5].endswith("right: A 3 B 3 C 3 D 3")
    assert table[-1] == "appended to tf/eval_results.jsonl"


def test_samples_say_what_would_have_been_right(run: Run) -> None:
    rows = [{"question": "小猫和小狗一起去哪里？" * 4, "answer": "公园"}]
    small.write_rows(Path("q.jsonl"), rows)
    found = run("--questions", "q.jsonl")
    assert found["questions"]["exact"]["n"] == found["questions"]["contained"]["n"] == 1
    assert "accuracy" not in found["questions"]
    (sample,) = [line for line in found["out"].splitlines() if "wrong: " in line]
    question, shown = rows[0]["question"], sample.removeprefix("  wrong: ")
    assert shown.startswith(f"{question[:39]}… → ")
    assert sample.endswith(" (right: 公园)")


def test_against_a_stage_a_file_a_folder_and_transformers(run: Run, tmp_path: Path) -> None:
    quiz("q.csv", 40)
    save_again(tmp_path)
    results = [
        run("--questions", "q.csv", "--against", name, "--predictions", "said.jsonl")
        for name in ("sft", "out/sft.safetensors", "other", "other/dpo")
    ]
    said = [json.loads(line) for line in Path("said.jsonl").read_bytes().splitlines()]
    pairs = [(line["accuracy"], line["against"]["accuracy"]) for line in said]
    only = pairs.count((True, False)), pairs.count((False, True))
    assert min(only) > 0
    for found in results:
        against = found["questions"]["against"]
        one = against["accuracy"]
        assert (one["only_this"], one["only_against"]) == only
        assert one["p"] == pytest.approx(mcnemar(*only))
        assert one["difference"] == pytest.approx((only[0] - only[1]) / 40)
        theirs = against["scores"]["accuracy"]["share"]
        assert found["questions"]["accuracy"]["share"] - theirs == pytest.approx(one["difference"])
        assert found["against"] in found["out"]
        assert "exact McNemar test: p = " in found["out"]
    assert [found["against"] for found in results[:2]] == ["sft", "out/sft.safetensors"]


def save_again(tmp_path: Path) -> None:
    """The weights of sft as those of dpo in another folder, and as a folder for transformers."""
    model, about = load_checkpoint(Path("out/sft.safetensors"))
    tokenizer = small.tokenizer()
    tokenizer.save(Path("other/tokenizer"))
    save_stage(tmp_path / "other" / "dpo.safetensors", model, about, tokenizer)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "other" / "dpo") is not None


def test_against_itself_nothing_differs(run: Run) -> None:
    quiz("q.csv", 8)
    Path("a.txt").write_text("小猫和小狗。", encoding="utf-8")
    found = run("--questions", "q.csv", "--text", "a.txt", "--against", "dpo")
    one = found["questions"]["against"]["accuracy"]
    assert (one["only_this"], one["only_against"], one["difference"], one["p"]) == (0, 0, 0, 1)
    assert found["text"]["against"]["difference"] == 0
    assert "how sure that is, one document cannot tell" in found["out"]


def test_a_text_alone_is_scored(run: Run) -> None:
    Path("a.txt").write_text("小猫和小狗一起去公园玩。" * 20, encoding="utf-8")
    small.write_rows(Path("b.jsonl"), small.rows("pretrain", 6))
    found = run(
        "--text", "a.txt", "b.jsonl", "--max_seq_len", "32", "--predictions", "p.jsonl",
        "--against", "sft",
    )  # fmt: skip
    text = found["text"]
    assert flatten(found) == {}
    assert text["window"] == 32
    assert text["documents"] == 7
    assert [file["documents"] for file in text["files"]] == [1, 6]
    assert "standard_error" not in text["files"][0]
    assert text["files"][1]["standard_error"] > 0
    lines = [json.loads(line) for line in Path("p.jsonl").read_bytes().splitlines()]
    bits, characters = (sum(line[name] for line in lines) for name in ("bits", "characters"))
    assert text["bits_per_character"] == pytest.approx(bits / characters)
    assert text["perplexity"] == pytest.approx(2 ** (bits / sum(line["tokens"] for line in lines)))
    theirs = sum(line["against"]["bits"] for line in lines)
    assert text["against"]["difference"] == pytest.approx((bits - theirs) / characters)
    table = found["out"].splitlines()
    assert [line.split()[0] for line in table[1:4]] == ["a.txt", "b.jsonl", "all"]
    assert "each token predicted once, from at most 32 before it" in table[4]
    assert "fewer bits in" in found["out"]
    assert found["err"] == ""


def test_a_model_with_fewer_positions_decides_the_window(run: Run) -> None:
    Path("a.txt").write_text("小猫和小狗一起去公园玩。" * 20, encoding="utf-8")
    assert run("--text", "a.txt", "--max_seq_len", "512")["text"]["window"] == 128


def test_a_tokenizer_that_does_not_know_the_text_is_told_with_a_number(run: Run) -> None:
    Path("a.txt").write_text("龘靐齉爨a", encoding="utf-8")
    found = run("--text", "a.txt")
    assert found["text"]["split_characters"] == 0.8
    (warning,) = found["err"].splitlines()
    assert warning == (
        "warning: dpo: 80% of the characters are spelled in several tokens each (2.60 tokens per "
        "character in all): its tokenizer has not learned this kind of text"
    )


def test_each_model_reads_by_its_own_tokenizer(run: Run) -> None:
    Path("a.txt").write_text("龘靐齉爨", encoding="utf-8")
    other = RustBPETokenizer.train(["龘靐齉爨龘靐齉爨"] * 2, vocab_size=268)
    other.save(Path("other/tokenizer"))
    model = small.model(3)
    about = Metadata("sft", 1, model.config, other.fingerprint, "", {})
    save_checkpoint(Path("other/sft.safetensors"), model, about)
    found = run("--text", "a.txt", "--against", "other/sft.safetensors")
    theirs = found["text"]["against"]["scores"]
    assert theirs["characters"] == found["text"]["characters"] == 4
    assert theirs["tokens"] < found["text"]["tokens"] == 12


def test_long_questions_are_told(run: Run) -> None:
    small.write_rows(Path("q.jsonl"), [{"question": "长" * 50, "answer": "1"}] * 2)
    found = run("--questions", "q.jsonl")
    assert found["questions"]["too_long"] == 2
    assert found["err"] == (
        "warning: dpo: 2 of 2 questions leave no room for an answer in the model's 128 positions, "
        "and count as wrong\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--questions"], "--questions names no file: write its path behind it"),
        (["--text"], "--text names no file"),
        (["--against", "sft"], "--against needs --questions or --text"),
        (["--predictions", "p.jsonl"], "--predictions needs --questions or --text"),
        (["--questions", "none.csv"], "--questions: none.csv: no such file or folder"),
        (["--text", "q.pdf"], "--text: q.pdf: unknown kind of file, not .txt, .jsonl, .json, "),
        (["--questions", "q.csv", "--against", "grpo"], "out/grpo.safetensors: no grpo weights"),
        (["--questions", "q.csv", "--against", "nobody"],
         "--against: nobody: no such file or folder, nor a stage of out"),
        (["--questions", "q.csv", "--against", "q.csv"], "q.csv: not a complete safetensors file"),
        (["--questions", "q.csv", "--predictions", "out"], "out: cannot write: Is a directory"),
        (["--questions", "bad.csv"], "bad.csv:2: answer is 'E', not one of A, B, C, D; correct"),
    ],
)  # fmt: skip
def test_what_can_be_mended_is_one_line_and_leaves_no_result(
    arguments: list[str], message: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    quiz("q.csv", 2)
    Path("q.pdf").write_bytes(b"%PDF")
    Path("bad.csv").write_text(HEADER + "0,几？,1,2,3,4,E\n", encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path("tf/eval_results.jsonl").exists()


def test_cmmlu_at_chance(run: Run, real_data: Path) -> None:
    """A model of random weights knows nothing, and the interval says so."""
    folder = real_data / "raw" / "knowledge" / "cmmlu" / "dev"
    found = run("--questions", str(folder))
    scores = found["questions"]["accuracy"]
    assert scores["n"] == sum(file["accuracy"]["n"] for file in found["questions"]["files"]) > 40
    low, high = scores["interval"]
    assert low < 0.25 < high or found["questions"].get("too_long")
    assert scores["chance"] == 0.25
    subjects = [line.split()[0] for line in found["out"].splitlines()[1:12]]
    assert subjects[:2] == ["agronomy.csv", "anatomy.csv"]
