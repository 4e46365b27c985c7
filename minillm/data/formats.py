"""The formats that Chinese training data comes in: one small reader each, and a table of them all.

To add a format, write a function from its row to one of the three types of
``minillm.data.rows`` and give it a line in ``FORMATS``. What may stand beside the fields of any
format (a system prompt, earlier turns, marks, pictures) is the business of ``convert``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from string import ascii_uppercase
from typing import Any, NamedTuple, TypeAlias

import msgspec

from minillm.data.rows import (
    MARKS,
    MEDIA,
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
    check_order,
    json_text_of,
    kind_of,
    mark_of,
    messages_of,
    optional_text,
    refuse_media,
    strings_of,
    text_of,
)

Reader: TypeAlias = Callable[[Raw], Row]
Options: TypeAlias = dict[str, Any]
"""The options of a multiple-choice question by their letters: each a string or a number."""
LETTERS = "ABCDEFGH"
"""Columns that may hold an option each."""


def question_and_answer(question: str, answer: str) -> Chat:
    """A conversation of one question and its answer."""
    return Chat([Message("user", question), Message("assistant", answer)])


def read_text(raw: Raw) -> Row:
    """Plain text."""
    return Text(text_of(raw, "text"))


def read_chat(field: str) -> Reader:
    """A conversation as an array of turns."""
    return lambda raw: Chat(messages_of(raw[field], field))


def read_rounds(raw: Raw) -> Row:
    """Firefly, ShareGPT-90k: ``conversation`` as rounds of {"human", "assistant"}."""
    messages: list[Message] = []
    for i, turn in enumerate(array_of(raw, "conversation")):
        if type(turn) is not dict:
            raise BadRow(f"conversation[{i}] must be an object, not {kind_of(turn)}")
        if mark := mark_of(turn):
            raise BadRow(f"conversation[{i}].{mark}")
        said = {f"conversation[{i}].{who}": turn.get(who) for who in ("human", "assistant")}
        messages += question_and_answer(*(text_of(said, field) for field in said)).messages
    if not messages:
        raise BadRow("conversation is empty")
    return Chat(messages)


def read_alpaca(raw: Raw) -> Row:
    """The task in ``instruction``, what it is about in ``input``, the answer in ``output``."""
    prompt = prompt_of(raw, "instruction", "input")
    return Chat([*prompt, Message("assistant", text_of(raw, "output"))])


def read_question(question: str, answer: str) -> Reader:
    """A question and its answer; a multiple-choice question where the row has options."""

    def read(raw: Raw) -> Row:
        prompt = prompt_of(raw, question)
        if options := options_of(raw):
            letter = letter_of(raw, answer, options)
            return multiple_choice(prompt, options, letter, optional_text(raw, "explanation"))
        return Chat([*prompt, Message("assistant", answer_of(raw, answer))])

    return read


def multiple_choice(
    prompt: list[Message], options: Options, letter: str, explanation: str = ""
) -> Chat:
    """The options below the question; the answer repeats the right one's letter and text."""
    lines = {key: f"{key}. {text}" for key, text in options.items()}
    if all(re.match(rf"{re.escape(key)}\s*[.．、:：)）]", str(options[key])) for key in options):
        lines = options  # which bear their letters already
    question = "\n".join([prompt[-1].content, *lines.values(), "请选出正确的选项。"])
    answer = lines[letter] + (f"\n解析：{explanation}" if explanation else "")
    return Chat([*prompt[:-1], Message("user", question), Message("assistant", answer)])


# --- Questions ------------------------------------------------------------------------------------


def prompt_of(raw: Raw, *fields: str) -> list[Message]:
    """The question in ``fields``, one below the other, after the passage that it is about.

    One message of the user; several, the user's last, if the question tells a dialogue. Raises
    BadRow.
    """
    question = "\n".join(filter(None, [optional_text(raw, field) for field in fields]))
    prompt = dialogue_of(question or text_of(raw, fields[0]), fields[0])
    for field in ("context", "passage"):
        is_list = type(raw.get(field)) is list
        lines = strings_of(raw, field) if is_list else [optional_text(raw, field)]
        if (passage := "\n".join(lines)) not in question:
            prompt[0] = Message("user", f"{passage}\n\n{prompt[0].content}")
    return prompt


_SPEAKER = re.compile(r"(?:^|[\r\n]|\\n)[ \t\u3000]*(Human|Assistant)[ \t\u3000]*[:：]")


def dialogue_of(question: str, field: str) -> list[Message]:
    """The turns of a question that tells them, each on its line, as BELLE does:

        Human:… Assistant:… Human:… Assistant:

    Any other question is one turn. Raises BadRow where Human and Assistant do not take turns.
    """
    told = question.strip()
    if not told.startswith("Human") or "Assistant" not in told:
        return [Message("user", question)]
    before, *pieces = _SPEAKER.split(told)
    speakers, said = pieces[::2], [piece.strip() for piece in pieces[1::2]]
    if before or "Assistant" not in speakers:
        return [Message("user", question)]
    if speakers[-1] == "Assistant" and not said[-1]:  # the answer stands in another field
        speakers.pop()
    prompt: list[Message] = []
    previous = ""
    for speaker, text in zip(speakers, said, strict=False):
        role, where = ROLES[speaker.lower()], f"{field}, turn {len(prompt) + 1} of its dialogue"
        check_order(role, previous, where)
        prompt.append(Message(role, text_of({where: text}, where)))
        previous = role
    check_order("assistant", previous, f"{field}, the answer to its dialogue")
    return prompt


def options_of(raw: Raw) -> Options:
    """The options in ``choices``, ``options`` or ``choice``, or in columns A, B, …; perhaps none.

    Raises BadRow.
    """
    options: Options = {}
    where = "{}"
    if raw.keys() >= {"A", "B"}:
        columns = [letter for letter in LETTERS if letter in raw]
        while len(columns) > 2 and not str(raw[columns[-1]]).strip():
            columns.pop()  # a table has as many columns as its longest question has options
        options = {letter: raw.get(letter) for letter in LETTERS[: len(columns)]}
    for field in ("choices", "options", "choice"):
        value = raw.get(field)
        if options or not value:
            continue
        where = f"{field}[{{}}]"
        named = type(value) is dict
        options = value if named else dict(zip(ascii_uppercase, array_of(raw, field), strict=False))
        if not 2 <= len(value) <= len(ascii_uppercase):
            raise BadRow(f"{field} must hold 2 to {len(ascii_uppercase)} options, not {len(value)}")
    for letter, option in options.items():
        answer_of({where.format(letter): option}, where.format(letter))
    return options


def letter_of(raw: Raw, field: str, options: Options) -> str:
    """The option that the answer means: by its letter, its text, or its index, counted from 0.

    Raises BadRow if it means none, or could mean two.
    """
    answer = raw[field]
    if type(answer) is int:
        texts = [letter for letter, option in options.items() if option == answer]
        named = str(answer) in options
        letters = [str(answer)] if named else list(options)[max(0, answer) : answer + 1]
    else:
        word = text_of(raw, field).strip()
        texts = [letter for letter, option in options.items() if str(option).strip() == word]
        bare = word.strip(" .。、()（）").upper()
        letters = [letter for letter in options if letter.upper() == bare]
        if letters and "A" in raw:
            return letters[0]  # beside columns A, B, … it is never a text
    found = {*texts[:1], *letters}
    if not found:
        raise BadRow(f"{field} is {answer!r:.40}, not one of {', '.join(options):.100}")
    if len(found) > 1:
        raise BadRow(f"{field} is {answer!r:.40}, which may mean {' or '.join(sorted(found))}")
    return found.pop()


def read_squad(raw: Raw) -> Row:
    """CMRC2018, DRCD: a question on a passage; the first answer counts."""
    answers = raw["answers"]
    if type(answers) is dict:  # as the Hugging Face hub stores them: {"text": [...], ...}
        answers = [{"text": text} for text in array_of(answers, "text")]
    if type(answers) is not list or not answers or type(answers[0]) is not dict:
        raise BadRow("answers must be an array of {text, ...}")
    question = f"{text_of(raw, 'context')}\n\n根据上文回答：{text_of(raw, 'question')}"
    return question_and_answer(question, text_of(answers[0], "text"))


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
        return question_and_answer(question.format_map(texts), answer)

    return read


def read_topic(raw: Raw) -> Row:
    """IFLYTEK: like TNEWS, but the label is in words already."""
    topic = text_of(raw, "label_des")
    return question_and_answer(TOPIC.format(sentence=text_of(raw, "sentence")), topic)


def read_word_problem(raw: Raw) -> Row:
    """Math23K, Ape210K: the equation first, then the number."""
    equation, answer = optional_text(raw, "equation"), answer_of(raw, "ans")
    steps = f"{equation}\n" if equation else ""
    return question_and_answer(text_of(raw, "original_text"), f"{steps}答案：{answer}")


def read_pair(chosen: str, rejected: str) -> Reader:
    """Each side is a whole conversation, or a reply (text or turns) to a prompt in other fields."""

    def read(raw: Raw) -> Row:
        pair = Pair(_side(raw, chosen), _side(raw, rejected, heed_marks=False))
        if pair.chosen == pair.rejected:
            raise BadRow(f"{chosen} and {rejected} are the same")
        # What is preferred is an answer, so all that is asked must be the same.
        asked = [
            [message for message in side if message.role in ("system", "user")]
            for side in (pair.chosen, pair.rejected)
        ]
        if asked[0] != asked[1]:
            both = list(zip(*asked, strict=False))
            place = next((i for i, (one, other) in enumerate(both) if one != other), len(both))
            raise BadRow(
                f"{chosen} and {rejected} do not ask the same: prompt {place + 1} of "
                f"{max(map(len, asked))} differs"
            )
        return pair

    return read


def _side(raw: Raw, field: str, heed_marks: bool = True) -> list[Message]:
    turns = raw[field]
    if type(turns) is str:
        turns = [{"role": "assistant", "content": text_of(raw, field)}]
    elif type(turns) is dict:
        turns = [turns]
    if type(turns) is list and turns and _is_reply(turns[0]):
        turns = [*_prompt(raw, field), *turns]
    return messages_of(turns, field, heed_marks=heed_marks)


def _is_reply(turn: Any) -> bool:
    return (
        type(turn) is dict and ROLES.get(str(turn.get("role") or turn.get("from"))) == "assistant"
    )


def _prompt(raw: Raw, side: str) -> list[Raw]:
    """The turns that both sides of a pair reply to."""
    for field in ("conversations", "messages", "prompt"):
        if type(raw.get(field)) is list:
            return list(raw[field])
    for field in ("question", "prompt", "query", "instruction", "input"):
        if field in raw:
            fields = dict.fromkeys((field, "input"))
            return [msgspec.structs.asdict(message) for message in prompt_of(raw, *fields)]
    raise BadRow(
        f"{side} is a reply, and what it replies to is missing: there is no conversations, "
        "messages, prompt, question, query or instruction"
    )


# --- What may stand beside the fields of any format -----------------------------------------------

BESIDE = {"system", "tools", "history", *MEDIA, *MARKS}


def heed_beside(raw: Raw, row: Row) -> Row:
    """The row after what is said before it in other fields (``context_of``).

    Raises BadRow if the row is more than text, or marked as not to be learned.
    """
    is_text = isinstance(row, Text)  # a text may have a label, or the address of a picture
    refuse_media(raw, MEDIA[:3] if is_text else MEDIA)
    if mark := mark_of(raw, MARKS[2:] if is_text else MARKS):
        raise BadRow(mark)
    if isinstance(row, Chat):
        return Chat(_in_context(raw, row.messages))
    if isinstance(row, Pair):
        return Pair(_in_context(raw, row.chosen), _in_context(raw, row.rejected))
    return row


def context_of(raw: Raw) -> dict[str, Any]:
    """What is said before a row's own turns: ``system``, ``tools`` as JSON text, and ``history``
    as messages, made of [question, answer] pairs. Only what is not empty. Raises BadRow.
    """
    history: list[Message] = []
    for i, turn in enumerate(array_of(raw, "history") if raw.get("history") else ()):
        if type(turn) is not list or len(turn) != 2:
            raise BadRow(f"history[{i}] must be [question, answer]")
        said = {f"history[{i}][{j}]": text for j, text in enumerate(turn)}
        history += question_and_answer(*(text_of(said, field) for field in said)).messages
    context = {
        "system": optional_text(raw, "system"),
        "tools": json_text_of(raw, "tools"),
        "history": history,
    }
    return {field: value for field, value in context.items() if value}


def _in_context(raw: Raw, messages: list[Message]) -> list[Message]:
    """The messages after the row's context, of which they may say a part already."""
    context = context_of(raw)
    system, tools = context.get("system", ""), context.get("tools", "")
    said = messages[0].content if messages[0].role == "system" else ""
    turns = messages[1:] if said else messages
    if said and system not in said:
        raise BadRow("system says something else than the system turn")
    said = said or system
    if tools not in said:
        said = f"{said}\n\n{tools}" if said else tools
    history = context.get("history", [])
    if turns[: len(history)] != history:
        turns = history + turns
    return [Message("system", said), *turns] if said else turns


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
        ("Question", "A", "B", "Answer"),
        read_question("Question", "Answer"),
        drop=("Question", *LETTERS),
    ),
    Format(
        "C-Eval",
        ("question", "A", "B", "answer"),
        read_question("question", "answer"),
        drop=("question", *LETTERS, "explanation"),
    ),
    Format(
        "C3",
        ("context", "question", "choice", "answer"),
        read_question("question", "answer"),
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


def present(raw: Raw) -> Raw:
    """The row without the fields that are null: a table has them for other rows' sake."""
    return {field: value for field, value in raw.items() if value is not None}


def convert(raw: Raw) -> Row:
    """What a row of any format means. Raises BadRow."""
    raw = present(raw)
    row = format_of(tuple(raw)).read(raw)
    return row if raw.keys().isdisjoint(BESIDE) else heed_beside(raw, row)


def canonical(raw: Raw, row: Row) -> Raw:
    """The row to write: the canonical fields, then the original ones.

    Turns, passages and options now stand in the messages and are not written a second time.
    """
    drop: set[str] = set(format_of(tuple(present(raw))).drop)
    if not isinstance(row, Text):
        drop.update(context_of(raw))
    # Null, these would make the row look like one of another kind.
    drop.update(name for name in ("messages", "chosen", "rejected") if raw.get(name) is None)
    out: Raw = msgspec.structs.asdict(row)
    out.update((key, value) for key, value in raw.items() if key not in out and key not in drop)
    return out
