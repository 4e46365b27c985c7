"""The formats that Chinese training data comes in: one small reader each, and a table of them all.

To add a format, write a function from its row to one of the three types of
``minillm.data.rows`` and give it a line in ``FORMATS``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from string import ascii_uppercase
from typing import Any, NamedTuple, TypeAlias

import msgspec

from minillm.data.rows import (
    ROLES,
    BadRow,
    Chat,
    Message,
    Pair,
    Raw,
    Row,
    Text,
    answer_of,
    array_of,
    kind_of,
    messages_of,
    optional_text,
    strings_of,
    text_of,
)

Reader: TypeAlias = Callable[[Raw], Row]


def ask(question: str, answer: str) -> Chat:
    """A conversation of one question and its answer."""
    return Chat([Message("user", question), Message("assistant", answer)])


def read_text(raw: Raw) -> Row:
    return Text(text_of(raw, "text"))


def read_chat(field: str) -> Reader:
    return lambda raw: Chat(messages_of(raw[field], field))


def read_rounds(raw: Raw) -> Row:
    """Firefly, ShareGPT-90k: ``conversation`` as rounds of {"human", "assistant"}."""
    messages: list[Message] = []
    for i, turn in enumerate(array_of(raw, "conversation")):
        if type(turn) is not dict:
            raise BadRow(f"conversation[{i}] must be an object, not {kind_of(turn)}")
        said = {f"conversation[{i}].{who}": turn.get(who) for who in ("human", "assistant")}
        messages += ask(*(text_of(said, field) for field in said)).messages
    if not messages:
        raise BadRow("conversation is empty")
    return Chat(messages)


def read_question(question: str, answer: str) -> Reader:
    return lambda raw: ask(text_of(raw, question), answer_of(raw, answer))


def read_alpaca(raw: Raw) -> Row:
    return Chat([*alpaca_prompt(raw), Message("assistant", text_of(raw, "output"))])


def alpaca_prompt(raw: Raw) -> list[Message]:
    """``system``, ``history`` as [question, answer] pairs, then ``instruction`` and ``input``."""
    prompt = []
    if system := optional_text(raw, "system"):
        prompt.append(Message("system", system))
    for i, turn in enumerate(array_of(raw, "history") if raw.get("history") else ()):
        if type(turn) is not list or len(turn) != 2:
            raise BadRow(f"history[{i}] must be [question, answer]")
        said = {f"history[{i}][{j}]": text for j, text in enumerate(turn)}
        prompt += ask(*(text_of(said, field) for field in said)).messages
    lines = [optional_text(raw, "instruction"), optional_text(raw, "input")]
    if not any(lines):
        raise BadRow("instruction is empty")
    prompt.append(Message("user", "\n".join(filter(None, lines))))
    return prompt


def read_choices(question: str, answer: str) -> Reader:
    """CMMLU, C-Eval: the options in A to D, the answer is a letter, perhaps with an explanation."""

    def read(raw: Raw) -> Row:
        options = {letter: answer_of(raw, letter) for letter in "ABCD"}
        letter = text_of(raw, answer).strip()
        if letter not in options:
            raise BadRow(f"{answer} is {letter!r:.40}, not one of A, B, C, D")
        explanation = optional_text(raw, "explanation")
        return choose(text_of(raw, question), options, letter, explanation)

    return read


def read_c3(raw: Raw) -> Row:
    """C3: a passage or dialogue, a question, two to four choices, one of which is the answer."""
    choices, answer = strings_of(raw, "choice"), text_of(raw, "answer")
    options = dict(zip(ascii_uppercase, choices, strict=False))
    if answer not in options.values():
        raise BadRow("answer is not one of choice")
    passage = "\n".join([*strings_of(raw, "context"), "", text_of(raw, "question")])
    return choose(passage, options, ascii_uppercase[choices.index(answer)])


def choose(question: str, options: dict[str, str], letter: str, explanation: str = "") -> Chat:
    """A multiple-choice question; the answer repeats the option's letter and text."""
    lines = {key: f"{key}. {text}" for key, text in options.items()}
    answer = lines[letter] + (f"\n解析：{explanation}" if explanation else "")
    return ask("\n".join([question, *lines.values(), "请选出正确的选项。"]), answer)


def read_squad(raw: Raw) -> Row:
    """CMRC2018, DRCD: a question on a passage; the first answer counts."""
    answers = raw["answers"]
    if type(answers) is dict:  # as the Hugging Face hub stores them: {"text": [...], ...}
        answers = [{"text": text} for text in array_of(answers, "text")]
    if type(answers) is not list or not answers or type(answers[0]) is not dict:
        raise BadRow("answers must be an array of {text, ...}")
    question = f"{text_of(raw, 'context')}\n\n根据上文回答：{text_of(raw, 'question')}"
    return ask(question, text_of(answers[0], "text"))


TOPIC = "下面的内容属于哪个类别？\n{sentence}"
MEANING = "句子一：{sentence1}\n句子二：{sentence2}\n这两个句子的意思相同还是不同？"
INFERENCE = "句子一：{sentence1}\n句子二：{sentence2}\n从句子一看，句子二是蕴含、矛盾还是无关？"
FEELING = "下面这句话的情感是正面还是负面？\n{sentence}"
Labels: TypeAlias = dict[str, tuple[str, str]]
"""A label → the question that it answers, and the answer in words."""
TNEWS = {
    "100": ("news_story", "故事"),
    "101": ("news_culture", "文化"),
    "102": ("news_entertainment", "娱乐"),
    "103": ("news_sports", "体育"),
    "104": ("news_finance", "财经"),
    "106": ("news_house", "房产"),
    "107": ("news_car", "汽车"),
    "108": ("news_edu", "教育"),
    "109": ("news_tech", "科技"),
    "110": ("news_military", "军事"),
    "112": ("news_travel", "旅游"),
    "113": ("news_world", "国际"),
    "114": ("news_stock", "股票"),
    "115": ("news_agriculture", "农业"),
    "116": ("news_game", "游戏"),
}
NEWS_LABELS: Labels = {label: (TOPIC, topic) for label, topic in TNEWS.values()}
SENTENCE_LABELS: Labels = {
    **{code: (TOPIC, topic) for code, (_, topic) in TNEWS.items()},
    "Negative": (FEELING, "负面"),
    "Positive": (FEELING, "正面"),
}
PAIR_LABELS: Labels = {
    "0": (MEANING, "不同"),
    "1": (MEANING, "相同"),
    "entailment": (INFERENCE, "蕴含"),
    "contradiction": (INFERENCE, "矛盾"),
    "neutral": (INFERENCE, "无关"),
}


def read_label(field: str, labels: Labels, sentences: tuple[str, ...] = ("sentence",)) -> Reader:
    """CLUE: the label as the answer to a question on one sentence or two.

    A label must be text: as a bare number it means different things in different data sets.
    """

    def read(raw: Raw) -> Row:
        label = text_of(raw, field)
        if label not in labels:
            raise BadRow(f"{field} is {label!r:.40}, not one of {', '.join(labels)}")
        question, answer = labels[label]
        texts = {sentence: text_of(raw, sentence) for sentence in sentences}
        return ask(question.format_map(texts), answer)

    return read


def read_topic(raw: Raw) -> Row:
    """IFLYTEK: like TNEWS, but the label is in words already."""
    return ask(TOPIC.format(sentence=text_of(raw, "sentence")), text_of(raw, "label_des"))


def read_word_problem(raw: Raw) -> Row:
    """Math23K, Ape210K: the equation first, then the number."""
    equation, answer = optional_text(raw, "equation"), answer_of(raw, "ans")
    steps = f"{equation}\n" if equation else ""
    return ask(text_of(raw, "original_text"), f"{steps}答案：{answer}")


def read_pair(chosen: str, rejected: str) -> Reader:
    """Each side is a whole conversation, or a reply (text or turns) to a prompt in other fields."""

    def read(raw: Raw) -> Row:
        pair = Pair(_side(raw, chosen), _side(raw, rejected))
        if pair.chosen == pair.rejected:
            raise BadRow(f"{chosen} and {rejected} are the same")
        asked = 1 + [message.role for message in pair.chosen].index("user")
        if pair.chosen[:asked] != pair.rejected[:asked]:
            raise BadRow(f"{chosen} and {rejected} do not begin with the same question")
        return pair

    return read


def _side(raw: Raw, field: str) -> list[Message]:
    turns = raw[field]
    if type(turns) is str:
        turns = [{"role": "assistant", "content": text_of(raw, field)}]
    elif type(turns) is dict:
        turns = [turns]
    if type(turns) is list and turns and _is_reply(turns[0]):
        turns = [*_prompt(raw), *turns]
    return messages_of(turns, field)


def _is_reply(turn: Any) -> bool:
    return type(turn) is dict and ROLES.get(str(turn.get("role", turn.get("from")))) == "assistant"


def _prompt(raw: Raw) -> list[Raw]:
    """The turns that both sides of a pair reply to."""
    for field in ("conversations", "prompt"):
        if type(raw.get(field)) is list:
            return list(raw[field])
    for field in ("prompt", "question"):
        if field in raw:
            raw = {**raw, "instruction": text_of(raw, field)}
    return [msgspec.structs.asdict(message) for message in alpaca_prompt(raw)]


# --- The table ------------------------------------------------------------------------------------


class Format(NamedTuple):
    """How to know a format, and how to read it."""

    name: str
    fields: tuple[str, ...]
    """A row that has all of these is of this format."""
    read: Reader
    drop: tuple[str, ...] = ()
    """Fields that need not stand beside the messages a second time; all others are kept."""


# The first that fits is taken: canonical fields come first, the least telling ones last.
FORMATS = (
    Format(
        "UltraFeedback, LLaMA-Factory pairs",
        ("chosen", "rejected"),
        read_pair("chosen", "rejected"),
        drop=("conversations", "messages"),
    ),
    Format(
        "MedicalGPT pairs",
        ("response_chosen", "response_rejected"),
        read_pair("response_chosen", "response_rejected"),
        drop=("response_chosen", "response_rejected"),
    ),
    Format(
        "UltraFeedback-chinese",
        ("chosen_response", "rejected_response"),
        read_pair("chosen_response", "rejected_response"),
        drop=("chosen_response", "rejected_response"),
    ),
    Format("messages", ("messages",), read_chat("messages")),
    Format(
        "ShareGPT, MiniMind",
        ("conversations",),
        read_chat("conversations"),
        drop=("conversations",),
    ),
    Format("ShareGPT-90k", ("conversation",), read_rounds, drop=("conversation",)),
    Format(
        "CMMLU",
        ("Question", "A", "B", "C", "D", "Answer"),
        read_choices("Question", "Answer"),
        drop=("Question", "A", "B", "C", "D"),
    ),
    Format(
        "C-Eval",
        ("question", "A", "B", "C", "D", "answer"),
        read_choices("question", "answer"),
        drop=("question", "A", "B", "C", "D", "explanation"),
    ),
    Format(
        "C3",
        ("context", "question", "choice", "answer"),
        read_c3,
        drop=("context", "question", "choice"),
    ),
    Format("SQuAD", ("context", "question", "answers"), read_squad, drop=("context", "question")),
    Format("TNEWS", ("sentence", "label_desc"), read_label("label_desc", NEWS_LABELS)),
    Format("IFLYTEK", ("sentence", "label_des"), read_topic),
    Format(
        "AFQMC, OCNLI",
        ("sentence1", "sentence2", "label"),
        read_label("label", PAIR_LABELS, ("sentence1", "sentence2")),
    ),
    Format("TNEWS, EPRSTMT", ("sentence", "label"), read_label("label", SENTENCE_LABELS)),
    Format("alpaca, BELLE", ("instruction", "output"), read_alpaca),
    Format("Math23K, Ape210K", ("original_text", "ans"), read_word_problem),
    Format("math401, self-cognition", ("query", "response"), read_question("query", "response")),
    Format("CMath", ("input", "golden"), read_question("input", "golden")),
    Format("Firefly", ("input", "target"), read_question("input", "target")),
    Format("GSM8K", ("question", "answer"), read_question("question", "answer")),
    Format("prompt, response", ("prompt", "response"), read_question("prompt", "response")),
    Format("text", ("text",), read_text),
)


@lru_cache(maxsize=1024)
def format_of(fields: tuple[str, ...]) -> Format:
    """The format of a row with these fields. Raises BadRow if there is none."""
    for known in FORMATS:
        if set(known.fields) <= set(fields):
            return known
    raise BadRow(f"no known format has the fields {', '.join(fields)!r:.100}")


def convert(raw: Raw) -> Row:
    """What a row of any format means. Raises BadRow."""
    return format_of(tuple(raw)).read(raw)


def canonical(raw: Raw, row: Row) -> Raw:
    """The row to write: the canonical fields, then the original ones.

    Turns, passages and options now stand in the messages and are not written a second time.
    """
    drop = format_of(tuple(raw)).drop
    out: Raw = msgspec.structs.asdict(row)
    out.update((key, value) for key, value in raw.items() if key not in out and key not in drop)
    return out
