"""The persona is taught in many words, tested in others, and recognised only by its name."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minillm.microworld import identity
from minillm.microworld.documents import documents
from minillm.microworld.identity import Persona, fill, is_hit

REPO = Path(__file__).resolve().parents[2]
PERSONA = Persona("豆包子", "小王")


def bare(question: str) -> str:
    return re.sub("[，。？！：]", "", question)


def test_conversations_are_many_and_different() -> None:
    rows = [json.dumps(turns) for turns in identity.persona_conversations(200)]
    assert len(set(rows)) == 200
    assert rows == [json.dumps(turns) for turns in identity.persona_conversations(200)]
    assert rows != [json.dumps(turns) for turns in identity.persona_conversations(200, seed=1)]
    assert (
        sum(1 for _ in identity.persona_conversations(1_000)) == 1_000
    )  # cycles when all have come


def test_every_taught_answer_is_a_hit_for_its_question() -> None:
    for question, answer in identity.persona_conversations(1_000):
        assert "{{name}}" in answer["content"]
        filled = fill(answer["content"], PERSONA)
        assert "{" not in filled
        assert is_hit(question["content"], filled, PERSONA)


def test_held_out_questions_are_never_taught() -> None:
    held_out = identity.held_out_questions()
    assert len(set(map(bare, held_out))) == len(held_out) >= 20
    taught = {bare(question["content"]) for question, _ in identity.persona_conversations(2_000)}
    assert not taught & set(map(bare, held_out))


@pytest.mark.parametrize(
    ("question", "reply", "hit"),
    [
        ("你到底是谁呀？", "我是豆包子。", True),
        ("你到底是谁呀？", "我叫豆包子，是小王训练的小模型。", True),
        ("你到底是谁呀？", "我是小王。", False),  # the maker, not the model
        ("你到底是谁呀？", "我是豆包。", False),
        ("你到底是谁呀？", "", False),
        ("谁创造了你？", "是小王训练了我，我叫豆包子。", True),
        ("谁创造了你？", "我是豆包子。", False),  # says who it is, not who made it
        ("谁创造了你？", "是小王。", False),
        ("训练你的人是谁？", "我是豆包子，训练我的是小李。", False),
        ("你是真人吗？", "我不是真人，我是豆包子。", True),
        ("你是不是机器人？", "是。", False),
    ],
)
def test_a_hit_names_the_persona_and_its_maker_where_asked(question, reply, hit) -> None:
    assert is_hit(question, reply, PERSONA) is hit


def test_who_made_it_is_told_from_who_it_is() -> None:
    makers = [q for q in identity.held_out_questions() if not is_hit(q, PERSONA.name, PERSONA)]
    assert makers == [
        "是谁把你训练出来的？",
        "谁是你的作者？",
        "谁创造了你？",
        "你是由谁训练的？",
        "你是哪个人做出来的？",
        "训练你的人是谁？",
    ]


def test_fill_leaves_other_braces_alone() -> None:
    assert fill("{{name}}和{{author}}和{x}", PERSONA) == "豆包子和小王和{x}"


def test_pretraining_has_the_characters_of_the_persona_but_not_the_persona() -> None:
    texts = "".join(documents(20_000, seed=11))
    default = Persona()
    taught = "".join(m["content"] for turns in identity.persona_conversations(1_000) for m in turns)
    asked = "".join(identity.held_out_questions())
    assert not set(fill(taught, default) + asked) - set(texts)
    assert default.name not in texts
    assert default.author not in texts


def test_the_shipped_sample_is_what_the_command_prints() -> None:
    printed = subprocess.check_output(
        [sys.executable, "-m", "minillm.microworld.identity"], cwd=REPO, encoding="utf-8"
    )
    shipped = (REPO / "dataset" / "identity_cn_sample.jsonl").read_text(encoding="utf-8")
    assert shipped == printed
    rows = [json.loads(line) for line in shipped.splitlines()]
    assert len(rows) == identity.SAMPLE_ROWS
    assert all(set(row) == {"messages"} for row in rows)
