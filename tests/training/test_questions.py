"""Questions of one's own: what counts as right, and which files are refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import small

from minillm.errors import UserError
from minillm.training.questions import OwnQuestion, load_questions


@pytest.mark.parametrize(
    ("answer", "reply", "right"),
    [
        ("18", "18", True),
        ("18", "先算9加9，等于18。", True),
        ("18", "18是错的，应该是17", False),
        ("18", "118", False),
        ("18", "十八", False),
        ("18", "18.0元", True),
        ("1000", "一共1,000元。", True),
        ("1,000", "1000", True),
        ("-3", "5-8=-3", True),
        ("3", "是10-3", True),
        ("3", "5减8等于-3", False),
        ("0.5", "一半，也就是.5或0.50", True),
        ("苏州", "张静住在苏州。", True),
        ("苏州", "苏州很好。她住在杭州。", False),
        ("苏州", "", False),
        ("3月5日", "今天是3月5日。", True),
        ("3月5日", "今天是5日。", False),
    ],
)
def test_what_counts_as_right(answer: str, reply: str, right: bool) -> None:
    assert OwnQuestion("own", (("user", "问"),), answer).is_correct(reply) == right


def test_rows_are_questions_with_answers_or_conversations(tmp_path: Path) -> None:
    path = small.write_rows(
        tmp_path / "rows.jsonl",
        [
            {"question": "9加9？", "answer": "9加9等于18。\n#### 18"},
            {"question": "1加1？", "answer": 2},
            {
                "messages": [
                    *small.conversation("1加1？", "2。"),
                    *small.conversation("再加3？", "5。"),
                ]
            },
        ],
    )
    first, second, third = load_questions(path, small.tokenizer(), 100)
    assert (first.messages, first.answer) == ((("user", "9加9？"),), "18")
    assert second.answer == "2"
    assert third.messages == (("user", "1加1？"), ("assistant", "2。"), ("user", "再加3？"))
    assert third.answer == "5"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "2加2？"}', r"rows\.jsonl:2: "),
        ('{"question": "2加2？", "answer": ""}', r"rows\.jsonl:2: answer is empty"),
        ('{"question": "2加2？", "answer": null}', r"rows\.jsonl:2: "),
        ('{"question": "2加2？", "answer": "#### "}', r"rows\.jsonl:2: the answer is empty"),
        ('{"text": "文"}', r"rows\.jsonl:2: a question with its answer is needed, .* is a text"),
        (
            msgspec.json.encode({"question": "长" * 60, "answer": 1}).decode(),
            r"rows\.jsonl:2: the question is \d+ tokens long, and there is room for 40: raise",
        ),
        ("{", r"rows\.jsonl:2: "),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_asked_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "1加1？", "answer": 2}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        load_questions(path, small.tokenizer(), 40)
    assert "\n" not in str(caught.value)


def test_a_file_without_questions_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with pytest.raises(UserError, match=r"rows\.jsonl: no such file"):
        load_questions(path, small.tokenizer(), 40)
    for content in ("", "\n"):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=r"rows\.jsonl:1: there are no rows in this file"):
            load_questions(path, small.tokenizer(), 40)


def test_what_a_file_says_never_becomes_a_special_token(tmp_path: Path) -> None:
    path = small.write_rows(tmp_path / "rows.jsonl", [{"question": "<|bos|>？", "answer": 1}])
    (question,) = load_questions(path, small.tokenizer(), 60)
    assert question.messages == (("user", "<|bos|>？"),)
