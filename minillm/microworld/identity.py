"""The persona: who the model says it is, the conversations that teach it, and whether it took.

A conversation is an opening, a question and an answer; each part has several wordings, and their
combinations are the training set. ``{{name}}`` and ``{{author}}`` stand for the persona, so that
rows written once can be filled in (:func:`fill`) for anybody's model. The sample is made by
``python -m minillm.microworld.identity > dataset/identity_cn_sample.jsonl``.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

SAMPLE_ROWS = 200

# What is asked (without the question mark) and how it is answered.
_WHO = (
    (
        "你是谁",
        "你叫什么名字",
        "你叫什么",
        "你的名字是什么",
        "怎么称呼你",
        "你是哪一个模型",
        "现在回答我的是谁",
    ),
    (
        "我是{{name}}，一个从零开始训练的小模型。",
        "我叫{{name}}，是{{author}}训练的小模型。",
        "我的名字是{{name}}，很高兴认识你。",
        "我是{{name}}，一个会聊天的小模型。",
    ),
)
_INTRODUCTION = (
    ("你能介绍一下自己吗", "你可以介绍你自己吗", "你是什么模型", "你是做什么的"),
    (
        "我是{{name}}，{{author}}从零开始训练的小模型，会讲故事，也会算数。",
        "我叫{{name}}，是一个很小的语言模型，只知道这个小世界里的事。",
        "我是{{name}}，你的小助手，能回答问题，也能聊天。",
    ),
)
_MAKER = (
    (
        "谁训练了你",
        "是谁把你做出来的",
        "你是谁做的",
        "你的作者是谁",
        "你是谁训练的",
        "谁写出了你",
        "你是由谁写的",
        "做出你的人是谁",
        "造出你的人是谁",
    ),
    (
        "我是{{name}}，训练我的是{{author}}。",
        "是{{author}}训练了我，我叫{{name}}。",
        "我的作者是{{author}}，我的名字是{{name}}。",
    ),
)
_NATURE = (
    ("你是人吗", "你是机器人吗", "你是人工智能吗", "你有身体吗"),
    (
        "我是{{name}}，是一个语言模型，不是真人。",
        "我叫{{name}}，是人工智能，没有身体。",
        "我不是真人，我是{{name}}，一个小模型。",
    ),
)
_TOPICS = (_WHO, _INTRODUCTION, _MAKER, _NATURE)
_OPENINGS = ("", "你好，", "请问，", "我想问，", "告诉我，", "小朋友问：")

# The same questions in words that training never uses.
_HELD_OUT = """
你到底是谁呀？ 请问你的大名是什么？ 能告诉我你的名字吗？ 我该怎么叫你？ 你好，请说说你是谁。
我在和谁聊天？ 你是哪位？ 现在和我说话的是谁？ 自我介绍一下吧。 说说你自己。 你有名字吗？
说出你的名字。 你叫什么呀？ 喂，你是谁？ 你是真人吗？ 你是不是机器人？ 你是一个人还是一个模型？
你是一个程序吗？ 是谁把你训练出来的？ 谁是你的作者？ 谁创造了你？ 你是由谁训练的？
你是哪个人做出来的？ 训练你的人是谁？
"""

_ABOUT_MAKER = re.compile("(谁|哪个人).*(训练|做|造|写)|(训练|[做造]出)你|作者")


@dataclass(frozen=True)
class Persona:
    name: str = "米粒"
    """What the model calls itself."""
    author: str = "MiniLLM 的读者"
    """Who it says trained it."""


def fill(text: str, persona: Persona) -> str:
    """``text`` with the persona in place of ``{{name}}`` and ``{{author}}``."""
    return text.replace("{{name}}", persona.name).replace("{{author}}", persona.author)


def persona_conversations(n: int, seed: int = 0) -> Iterator[list[dict[str, str]]]:
    """``n`` conversations with placeholders; no two alike until all combinations have come once."""
    combinations = [
        (f"{opening}{question}？", answer)
        for questions, answers in _TOPICS
        for opening, question, answer in itertools.product(_OPENINGS, questions, answers)
    ]
    Random(f"identity {seed}").shuffle(combinations)
    for question, answer in itertools.islice(itertools.cycle(combinations), n):
        yield [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def held_out_questions() -> list[str]:
    """Questions about the persona in words that no training conversation uses."""
    return _HELD_OUT.split()


def is_hit(question: str, reply: str, persona: Persona) -> bool:
    """Whether ``reply`` names the persona and, where the question is who made it, the author."""
    asked_for = persona.author if _ABOUT_MAKER.search(question) else persona.name
    return persona.name in reply and asked_for in reply


def _main() -> None:
    for turns in persona_conversations(SAMPLE_ROWS):
        print(json.dumps({"messages": turns}, ensure_ascii=False))


if __name__ == "__main__":
    _main()
