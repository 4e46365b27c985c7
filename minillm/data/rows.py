"""What a row is: three types that every format is turned into, and the checks they must pass.

``data/chinese/*.jsonl`` may hold them as such, one a line:

    {"text": "..."}                                            plain text to pretrain on
    {"messages": [{"role": "user", "content": "..."}, ...]}    a conversation
    {"chosen": [...messages], "rejected": [...messages]}       two conversations, one preferred
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import msgspec

Raw: TypeAlias = dict[str, Any]
"""A row as it stands in its file."""
Role = Literal["system", "user", "assistant", "tool"]


class Message(msgspec.Struct, gc=False):
    """One turn of a conversation; never empty."""

    role: Role
    content: str


def to_messages(turns: Iterable[tuple[str, str]]) -> list[Message]:
    """(role, content) pairs as messages."""
    return msgspec.convert([{"role": r, "content": c} for r, c in turns], list[Message])


class Text(msgspec.Struct):
    """Plain text for pretraining."""

    text: str


class Chat(msgspec.Struct):
    """Perhaps a system message, then user and assistant by turns; the last is the assistant."""

    messages: list[Message]


class Pair(msgspec.Struct):
    """Two whole conversations that begin with the same question; both end with the assistant."""

    chosen: list[Message]
    rejected: list[Message]


Row: TypeAlias = Text | Chat | Pair


class BadRow(ValueError):
    """This row cannot be used. The message is the reason and names the field, on one short line."""

    def __init__(self, reason: str) -> None:
        super().__init__(" ".join(reason.split())[:400])


# --- Chats ----------------------------------------------------------------------------------------

CHAT = 115
"""Most characters of a chat, three for each turn included: a row of the tiny preset holds it."""


def in_a_chat(dialogue: list[Message], others: Iterable[list[Message]]) -> list[Message]:
    """The conversation after others, as when somebody has already talked of other things: as many
    as fit into a chat of ``CHAT`` characters.

    Only turns of user and assistant stand before it. A conversation with a system message must
    begin with that, and stays alone.
    """
    if dialogue[0].role == "system":
        return dialogue
    earlier: list[Message] = []
    for other in others:
        size = sum(3 + len(turn.content) for turn in earlier + other + dialogue)
        if size <= CHAT and all(turn.role in ("user", "assistant") for turn in other):
            earlier += other
    return earlier + dialogue


# --- Fields ---------------------------------------------------------------------------------------


def text_of(raw: Raw, field: str) -> str:
    """The field's text. Raises BadRow if it is missing, blank or not text."""
    value = raw.get(field)
    if type(value) is str:
        if value and not value.isspace():
            return value
        raise BadRow(f"{field} is empty")
    if field not in raw:
        raise BadRow(f"{field} is missing")
    raise BadRow(f"{field} must be a string, not {kind_of(value)}")


def optional_text(raw: Raw, field: str) -> str:
    """The field's text, "" where it is missing, null or blank. Raises BadRow if it is not text."""
    value = raw.get(field)
    if value is None or (type(value) is str and not value.strip()):
        return ""
    return text_of(raw, field)


def answer_of(raw: Raw, field: str) -> str:
    """Like ``text_of``, but a number will do: 18 means "18"."""
    value = raw.get(field)
    return str(value) if type(value) in (int, float) else text_of(raw, field)


def array_of(raw: Raw, field: str) -> list[Any]:
    """The field's array. Raises BadRow if it is anything else."""
    value = raw.get(field)
    if type(value) is not list:
        raise BadRow(f"{field} must be an array, not {kind_of(value)}")
    return value


def strings_of(raw: Raw, field: str) -> list[str]:
    """The field's array of strings, none of them blank. Raises BadRow."""
    named = {f"{field}[{i}]": value for i, value in enumerate(array_of(raw, field))}
    return [text_of(named, name) for name in named]


def json_text_of(raw: Raw, field: str) -> str:
    """The field as JSON text, which it may be already; "" where it is empty. Raises BadRow."""
    value = raw.get(field)
    if type(value) is str:
        return "" if value.strip() in ("", "[]", "{}", "null") else value
    if value and type(value) not in (list, dict):
        raise BadRow(f"{field} must be an array, not {kind_of(value)}")
    return msgspec.json.encode(value).decode() if value else ""


MARKS = ("label", "kto_tag", "weight", "loss", "train")


def mark_of(raw: Raw, names: tuple[str, ...] = MARKS) -> str:
    """Which field of a row, turn or part says that it is not to be learned; "" if none does.

    ``label`` and ``kto_tag`` must be false to say so: as a number, a label names a class.
    """
    for name in names:
        value = str(raw.get(name)).lower()
        if value == "false" or (value in ("0", "0.0") and name not in ("label", "kto_tag")):
            return f"{name} is {value}: marked as not to be learned"
    return ""


MEDIA = ("images", "audios", "videos", "image", "audio", "video")


def refuse_media(raw: Raw, names: tuple[str, ...] = MEDIA) -> None:
    """Raises BadRow for a row or turn with pictures, sound or film: its text is not all of it."""
    for field in names:
        if not _is_empty(raw.get(field)):
            raise BadRow(f"{field} is not empty, and only text can be learned")


def _is_empty(value: Any) -> bool:
    if type(value) in (list, dict):
        return all(map(_is_empty, value.values() if type(value) is dict else value))
    return not value


def kind_of(value: object) -> str:
    """What JSON calls a value of this type."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return names.get(type(value), "null" if value is None else "a number")


# --- Conversations --------------------------------------------------------------------------------

ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "function_call": "assistant",  # the assistant's turn is a call, as JSON text
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
}
MAY_FOLLOW: dict[str, tuple[Role, ...]] = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


def check_order(role: Role, previous: str, where: str) -> None:
    """Raises BadRow if a turn of ``role`` cannot follow one of ``previous`` ("": be first)."""
    if role not in MAY_FOLLOW[previous]:
        place = f"after {previous}" if previous else "first"
        raise BadRow(f"{where}: {role} cannot come {place}")


def messages_of(turns: Any, field: str, *, heed_marks: bool = True) -> list[Message]:
    """Checked messages from turns as ``{"role", "content"}`` or ``{"from", "value"}``.

    What follows the last answer teaches nothing and is cut off, and so is a blank system turn. An
    answer that is marked as not to be learned counts as none, unless ``heed_marks`` is off.

    Raises BadRow, naming the turn, for an unknown role, no content, content that text cannot hold,
    turns out of order, or a marked answer that others follow.
    """
    if type(turns) is not list:
        raise BadRow(f"{field} must be an array, not {kind_of(turns)}")
    messages: list[Message] = []
    marked: dict[int, str] = {}
    previous = ""
    for i, turn in enumerate(turns):
        if type(turn) is not dict:
            raise BadRow(f"{field}[{i}] must be an object, not {kind_of(turn)}")
        speaker, said = ("role", "content") if turn.get("role") is not None else ("from", "value")
        name, content = turn.get(speaker), turn.get(said)
        role = ROLES.get(name) if type(name) is str else None
        if role is None:
            raise BadRow(f"{field}[{i}].{speaker} is {name!r:.40}, not one of {', '.join(ROLES)}")
        if len(turn) > 2 or type(content) is not str or not content or content.isspace():
            try:
                content = _whole_content(turn, said, role)
            except BadRow as error:
                raise BadRow(f"{field}[{i}].{error}") from None
            if not content:
                continue
            if role == "assistant" and heed_marks and (mark := mark_of(turn)):
                marked[len(messages)] = f"{field}[{i}].{mark}"
        if role not in MAY_FOLLOW[previous]:
            check_order(role, previous, f"{field}[{i}].{speaker}")
        messages.append(Message(role, content))
        previous = role
    while messages and (messages[-1].role != "assistant" or len(messages) - 1 in marked):
        messages.pop()
    # Every answer of a conversation is learned, so a marked one cannot stay; nor can it be taken
    # out where later turns build on it.
    for place, mark in marked.items():
        if place < len(messages) or not messages:
            raise BadRow(mark)
    if not messages:
        raise BadRow(f"{field} has no assistant reply")
    return messages


_EXTRAS: dict[str, tuple[Role, str]] = {
    "tools": ("system", "{content}\n\n{extra}"),
    "tool_calls": ("assistant", "{content}\n{extra}"),
    "function_call": ("assistant", "{content}\n{extra}"),
}
"""What says something beside a turn's content: in whose turn, and where it stands in the text."""
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")


def _whole_content(turn: Raw, said: str, role: Role) -> str:
    """All that a turn says, as one text; "" for a system turn that says nothing. Raises BadRow.

    Tools and calls are kept as JSON text, reasoning as Qwen's and DeepSeek's templates write it:
    between ``<think>`` and ``</think>``, before the answer.
    """
    refuse_media(turn)
    content = turn.get(said)
    if type(content) is list:
        content = "".join(_part(part, f"{said}[{i}]", role) for i, part in enumerate(content))
    elif content is None:
        content = ""
    elif type(content) is not str:
        raise BadRow(f"{said} must be a string, not {kind_of(content)}")
    for field, (owner, form) in _EXTRAS.items():
        extra = json_text_of(turn, field)
        if extra and role != owner:
            raise BadRow(f"{field} belongs to a turn of {owner}, not of {role}")
        if extra and extra not in content:
            content = form.format(content=content, extra=extra) if content.strip() else extra
    if not content.strip():
        if role == "system":
            return ""
        raise BadRow(f"{said} is {'empty' if turn.get(said) is not None else 'missing'}")
    for field in _THOUGHTS:
        thought = optional_text(turn, field)
        if thought and role != "assistant":
            raise BadRow(f"{field} belongs to a turn of assistant, not of {role}")
        if thought and thought not in content:
            content = f"<think>\n{thought.strip()}\n</think>\n\n{content}"
    return content


def _part(part: Any, where: str, role: Role) -> str:
    """The text of one of the parts that a turn's content is split into."""
    if type(part) is not dict:
        raise BadRow(f"{where} must be an object, not {kind_of(part)}")
    if part.get("type") != "text":
        raise BadRow(f"{where} is of type {part.get('type')!r:.40}, not text")
    if role == "assistant" and (mark := mark_of(part)):
        raise BadRow(f"{where}.{mark}")
    try:
        return text_of(part, "text")
    except BadRow as error:
        raise BadRow(f"{where}.{error}") from None


def plain_text(row: Row) -> str:
    """What a row says, without who says it: its text, or its messages one below the other.

    Of a pair's rejected side only what the chosen one does not say already.
    """
    if isinstance(row, Text):
        return row.text
    if isinstance(row, Chat):
        return "\n".join(message.content for message in row.messages)
    rejected = [message for message in row.rejected if message not in row.chosen]
    return "\n".join(message.content for message in [*row.chosen, *rejected])
