"""The reader's own questions: against transformers' Llama and its chat template, and by hand."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from minillm.errors import UserError
from minillm.evaluate import Evaluator, wilson_interval
from minillm.own.files import own_files
from minillm.own.questions import (
    Asked,
    Verdict,
    ask_questions,
    compared,
    is_contained,
    is_exact,
    normalised,
    question_scores,
    read_questions,
)
from minillm.training.checkpoint import Metadata
from minillm.training.model_folder import save_stage

CMMLU = """,Question,A,B,C,D,Answer
0,小猫吃什么,鱼,"石头，
和土",木头,铁,A
1,一加一等于几,一,三,二,四,C
2,"小狗说""你好""吗",说,不说,有时说,谁知道,D
"""
C_EVAL = """id,question,A,B,C,D,answer,explanation
0,公园里有几只鸟？,1,2,3,4,B,数一数便知。
"""
Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to(name: str, content: str) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode())
        return path

    return to


def sharper(seed: int = 0) -> Any:
    """Random weights, larger than fresh ones, so that the options differ."""
    model = small.model(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


# ---- what is read ----


def test_a_multiple_choice_question_is_asked_as_the_mix_writes_it(write: Write) -> None:
    first, second, third, fourth = read_questions(
        [write("cmmlu.csv", "\ufeff" + CMMLU), write("val.csv", C_EVAL)]
    )
    assert first.messages[0].content == (
        "小猫吃什么\nA. 鱼\nB. 石头，\n和土\nC. 木头\nD. 铁\n请选出正确的选项。"
    )
    assert (first.question, first.answer, first.line) == ("小猫吃什么", "A", 2)
    assert first.options == {"A": "鱼", "B": "石头，\n和土", "C": "木头", "D": "铁"}
    assert (second.answer, second.line, third.line) == ("C", 4, 5)
    assert third.question == '小狗说"你好"吗'
    assert (fourth.answer, fourth.options["B"]) == ("B", "2")
    assert fourth.said("B") == "B. 2"
    assert fourth.said("") == ""


def test_options_in_other_formats(write: Write) -> None:
    rows = [
        {"question": "几？", "choices": ["一", "二", "三"], "answer": 1},
        {"question": "几？", "options": {"甲": "一", "乙": "二"}, "answer": "乙"},
        {"question": "几？", "options": ["A. 一", "B. 二"], "answer": "B"},
        {"context": ["男：一。"], "question": "几？", "choice": ["一", "二"], "answer": "一"},
        # What a table calls options is none of this format: it is asked in words.
        {"instruction": "几？", "output": "二", "options": ["一", "二"]},
    ]
    path = write("rows.jsonl", "\n".join(json.dumps(row) for row in rows))
    found = read_questions([path])
    assert [one.answer for one in found] == ["B", "乙", "B", "A", "二"]
    assert [list(one.options) for one in found] == [[*"ABC"], [*"甲乙"], [*"AB"], [*"AB"], []]
    assert found[2].messages[0].content == "几？\nA. 一\nB. 二\n请选出正确的选项。"


def test_questions_with_answers_in_words(write: Write) -> None:
    rows = [
        {"question": "1加1？", "answer": 2},
        {"instruction": "翻译", "input": "cat", "output": "猫"},
        {"question": "How many?", "answer": "3 and 4 make 7.\n#### 7"},
        {"messages": [*small.conversation("你好", "好"), *small.conversation("几？", "三")]},
    ]
    path = write("rows.json", json.dumps(rows))
    found = read_questions([path])
    assert [one.answer for one in found] == ["2", "猫", "7", "三"]
    assert [one.question for one in found] == ["1加1？", "翻译\ncat", "How many?", "几？"]
    assert len(found[3].messages) == 3
    assert not any(one.options for one in found)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", r"a\.csv:1: there are no rows in this file; name a file that has some"),
        ("a.csv", ",Question,A,B,C,D,Answer\n", r"a\.csv:1: there are no rows in this file"),
        ("a.csv", CMMLU.replace("铁,A", "铁,E"),
         r"a\.csv:2: Answer is 'E', not one of A, B, C, D; correct this row or take it out"),
        ("a.csv", CMMLU.replace("一,三,二", "一,,二"), r"a\.csv:4: B is empty; correct"),
        ("a.csv", CMMLU.replace("四,C", "四,"), r"a\.csv:4: Answer is empty; name a file that has"),
        ("a.csv", CMMLU.replace("四,C", "四"), r"a\.csv:4: 6 fields, the header has 7; "),
        ("a.csv", CMMLU.replace("二,四", ",").replace("四,C", "四"), r"a\.csv:4: "),
        ("a.csv", "id,question,A,B,C,D\n0,几？,1,2,3,4\n",
         r"a\.csv:2: no known format .*; name a file that has the answers: C-Eval's test files"),
        ("a.csv", CMMLU.replace("Question", "Frage"),
         r"a\.csv:2: no known format has the fields .*; a question needs the fields question and"),
        ("a.jsonl", '{"text": "小猫"}', r"a\.jsonl:1: this row is no question with its answer, but "
         r"a text; --text scores texts"),
        ("a.jsonl", '{"question": "几？", "answer": "二"}\n{"question": "几？"}\n',
         r"a\.jsonl:2: no known format"),
        ("a.jsonl", '{"question": "几？", "answer": " "}', r"a\.jsonl:1: answer is empty; correct"),
        ("a.jsonl", '{"question": "几？", "answer": "1 ####"}', r"a\.jsonl:1: the answer is empty"),
        ("a.jsonl", '{"question": ', r"a\.jsonl:1: broken JSON"),
        ("a.jsonl", json.dumps({"chosen": small.conversation("几？", "二"),
                                "rejected": small.conversation("几？", "三")}),
         r"a\.jsonl:1: this row is no question with its answer, but a pair"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(name: str, content: str, message: str, write: Write) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_questions([write(name, content)])
    assert "\n" not in str(error.value)


def test_a_table_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "gbk.csv"
    path.write_bytes(CMMLU.encode("gbk"))
    with pytest.raises(UserError, match=r"gbk\.csv:2: not UTF-8; save the file as UTF-8"):
        read_questions([path])


def test_files_of_folders(tmp_path: Path) -> None:
    for name in ("dev/arts.csv", "test/arts.csv", "test/.hidden/x.csv", "test/notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    dev, test = tmp_path / "dev" / "arts.csv", tmp_path / "test" / "arts.csv"
    suffixes = (".csv",)
    assert own_files([tmp_path], suffixes, "text") == {dev: "dev/arts.csv", test: "test/arts.csv"}
    assert own_files([dev, tmp_path / "dev"], suffixes, "text") == {dev: "arts.csv"}
    assert own_files([], suffixes, "text") == {}
    for path, message in (
        (tmp_path / "none", "--text: .*none: no such file or folder"),
        (tmp_path / "test" / "notes.md", r"--text: .*notes\.md: unknown kind of file, not \.csv"),
        (tmp_path / "test" / ".hidden", None),
    ):
        if message:
            with pytest.raises(UserError, match=message):
                own_files([path], suffixes, "text")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no \.csv files in this folder"):
        own_files([tmp_path / "empty"], suffixes, "text")


# ---- what is answered ----


def test_the_likeliest_letter_is_that_of_transformers(tmp_path: Path, write: Write) -> None:
    """Hugging Face's Llama reads the question in its own chat template, one letter at a time."""
    model, tokenizer = sharper(), small.tokenizer()
    about = Metadata("sft", 1, model.config, tokenizer.fingerprint, "", {})
    save_stage(tmp_path / "sft.safetensors", model, about, tokenizer)
    llama = AutoModelForCausalLM.from_pretrained(tmp_path / "sft")
    hugging_face = AutoTokenizer.from_pretrained(tmp_path / "sft")
    path = write("cmmlu.csv", CMMLU)
    verdicts = ask_questions(Evaluator(model, tokenizer), read_questions([path]))
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(verdicts) == len(rows) == 3
    for row, verdict in zip(rows, verdicts, strict=True):
        options = "\n".join(f"{letter}. {row[letter]}" for letter in "ABCD")
        chat = [{"role": "user", "content": f"{row['Question']}\n{options}\n请选出正确的选项。"}]
        prompt = hugging_face.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
        with torch.no_grad():
            log_probs = llama(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
        letters = {x: hugging_face(x, add_special_tokens=False)["input_ids"] for x in "ABCD"}
        expected = {letter: float(log_probs[i]) for letter, (i,) in letters.items()}
        assert verdict.log_probs == pytest.approx(expected, rel=1e-4)
        assert verdict.reply == max(expected, key=lambda letter: expected[letter])
        assert verdict.right == {"accuracy": verdict.reply == row["Answer"]}
    assert len({tuple(verdict.log_probs.values()) for verdict in verdicts}) == 3


class Oracle(Evaluator):
    """Answers from a table, and thinks one letter the likeliest."""

    def __init__(self, known: dict[str, str], letter: str) -> None:
        super().__init__(small.model(), small.tokenizer())
        self.known, self.letter = known, letter

    def answers(self, prompts):  # type: ignore[no-untyped-def]
        texts = [self.tokenizer.decode(ids) for ids in prompts]
        return [next((a for q, a in self.known.items() if q in text), "") for text in texts]

    def next_log_probs(self, prompts):  # type: ignore[no-untyped-def]
        scores = torch.zeros(len(prompts), self.tokenizer.vocab_size)
        scores[:, self.tokenizer.encode(self.letter)] = 1
        return scores


def test_answers_come_in_the_order_of_the_questions(write: Write) -> None:
    rows = [{"question": f"问{i}？" + "长" * (i * 7 % 5), "answer": f"答{i}"} for i in range(40)]
    rows[1::2] = [{**row, "A": "甲", "B": "乙", "answer": "AB"[i % 2]} for i, row in
                  enumerate(rows[1::2])]  # fmt: skip
    asked = read_questions([write("a.jsonl", "\n".join(json.dumps(row) for row in rows))])
    known = {f"问{i}？": f"答{i}" for i in range(0, 40, 4)}
    verdicts = ask_questions(Oracle(known, "B"), asked)
    for i, verdict in enumerate(verdicts):
        if i % 2:
            assert verdict.reply == "B"
            assert verdict.right == {"accuracy": i % 4 == 3}
        else:
            assert verdict.right == {"exact": i % 4 == 0, "contained": i % 4 == 0}
    scores = question_scores(asked, verdicts)
    assert scores["accuracy"] == {
        "n": 20, "share": 0.5, "interval": wilson_interval(10, 20), "chance": 0.5,
        "chosen": {"B": 20}, "answers": {"A": 10, "B": 10},
    }  # fmt: skip
    assert scores["exact"]["n"] == 20
    assert scores["contained"]["share"] == 0.5


def test_too_long_a_question_is_wrong_and_counted(write: Write) -> None:
    asked = read_questions(
        [write("a.csv", CMMLU), write("a.jsonl", '{"question": "' + "长" * 30 + '", "answer": 1}')]
    )
    positions = 40
    model = small.model(config=replace(small.CONFIG, max_position_embeddings=positions))
    verdicts = ask_questions(Evaluator(model, small.tokenizer(), 1), asked)
    lengths = [len(small.tokenizer().render_for_completion(one.messages)) for one in asked]
    assert min(lengths) >= positions
    for verdict in verdicts:
        assert verdict.too_long
        assert verdict.reply == ""
        assert not any(verdict.right.values())
    scores = question_scores(asked, verdicts)
    assert scores["too_long"] == 4
    assert scores["accuracy"]["share"] == scores["exact"]["share"] == 0
    assert scores["accuracy"]["chosen"] == {}


def test_the_last_position_is_enough_for_a_letter(write: Write) -> None:
    asked = read_questions([write("a.csv", CMMLU)])[1:2]
    length = len(small.tokenizer().render_for_completion(asked[0].messages))
    for room in (length, length + 1):
        model = small.model(config=replace(small.CONFIG, max_position_embeddings=room))
        (verdict,) = ask_questions(Evaluator(model, small.tokenizer()), asked)
        assert verdict.too_long == (room == length)


def test_weights_that_are_no_numbers_choose_nothing(write: Write) -> None:
    model = small.model()
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    asked = read_questions([write("a.csv", CMMLU)])
    verdicts = ask_questions(Evaluator(model, small.tokenizer()), asked)
    assert verdicts == [Verdict("", {"accuracy": False})] * 3


# ---- what counts as right ----


@pytest.mark.parametrize(
    ("reply", "answer", "exact", "contained"),
    [
        ("北京", "北京", True, True),
        ("北京。", "北京", True, True),
        ("北 京！", "北京。", True, True),
        ("是北京。", "北京", False, True),
        ("南京", "北京", False, False),
        ("１２", "12", True, True),
        ("12 月", "12月", True, True),
        ("答案是12。", "12", False, True),
        ("答案是128。", "12", False, False),
        ("答案是3.12", "12", False, False),
        ("12.5", "12", False, False),
        ("12.", "12", True, True),
        ("I know.", "no", False, False),
        ("Oh  no, dear", "no", False, True),
        ("the cat", "thecat", False, False),
        ("ＡＢ（甲）", "AB(甲)", True, True),
        ("“北京”", "北京", False, True),
        ("？", "？", True, True),
        ("真的？", "？", False, True),
        ("", "北京", False, False),
        ("a+b", "a+b", True, True),
        ("aab", "a+b", False, False),
    ],
)
def test_matches_by_hand(reply: str, answer: str, exact: bool, contained: bool) -> None:
    assert is_exact(reply, answer) == exact
    assert is_contained(reply, answer) == contained


@given(st.text(), st.text())
@example("O¯", "")  # without its space, the accent joins the letter
def test_what_is_exact_is_contained(reply: str, answer: str) -> None:
    assert is_exact(answer, answer)
    assert normalised(normalised(reply)) == normalised(reply)
    if is_exact(reply, answer):
        assert is_contained(reply, answer)


# ---- scores ----


def test_compared_by_hand() -> None:
    def given_(marks: str) -> list[Verdict]:
        return [Verdict("A", {"accuracy": mark == "x"}) for mark in marks]

    found = compared(given_("xxx..x"), given_("x..x.."))
    assert set(found) == {"accuracy"}
    one = found["accuracy"]
    assert (one["only_this"], one["only_against"]) == (3, 1)
    assert one["difference"] == pytest.approx(2 / 6)
    assert one["p"] == 2 * (1 + 4) / 16
    assert one["interval"][0] < 2 / 6 < one["interval"][1]


def test_chance_is_that_of_the_options_there_are() -> None:
    def with_options(letters: str) -> Asked:
        return Asked(Path("a"), 1, [], "?", "A", dict.fromkeys(letters, "x"))

    asked = [with_options("ABCD"), with_options("AB")]
    scores = question_scores(asked, [Verdict("A", {"accuracy": True})] * 2)
    assert scores["accuracy"]["chance"] == (1 / 4 + 1 / 2) / 2


# ---- the real thing ----


def test_every_question_of_cmmlu_is_read(real_data: Path) -> None:
    files = own_files([real_data / "raw" / "knowledge" / "cmmlu" / "test"], (".csv",), "questions")
    asked = read_questions(files)
    rows = []
    for file in files:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows += list(csv.DictReader(stream))
    assert len(asked) == len(rows) > 1000
    for one, row in zip(asked, rows, strict=True):
        assert one.question.strip() == row["Question"].strip()
        assert (one.answer, dict(one.options)) == (row["Answer"], {x: row[x] for x in "ABCD"})
    letters = Counter(one.answer for one in asked)
    assert max(letters.values()) / len(asked) < 0.3
