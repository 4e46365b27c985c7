"""What a row is: three types that every format is turned into, and the checks they must pass.

``data/chinese/*.jsonl`` may hold them as such, one a line:

    {"text": "..."}                                            plain text to pretrain on
    {"messages": [{"role": "user", "content": "..."}, ...]}    a conversation
    {"chosen": [...messages], "rejected": [...messages]}       two conversations, one preferred
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

Raw: TypeAlias = dict[str, Any]
"""A row as it stands in its file."""
Role = Literal["system", "user", "assistant", "tool"]


class Message(msgspec.Struct, gc=False):
    """One turn of a conversation; never empty."""

    role: Role
    content: str


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
    """This row cannot be used. The message is the reason and names the field."""


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


def messages_of(turns: Any, field: str) -> list[Message]:
    """Checked messages from turns as ``{"role", "content"}`` or ``{"from", "value"}``.

    What follows the last answer teaches nothing and is cut off, and so is a blank system turn.
    Raises BadRow, naming the turn, for an unknown role, no content, or turns out of order.
    """
    if type(turns) is not list:
        raise BadRow(f"{field} must be an array, not {kind_of(turns)}")
    messages: list[Message] = []
    previous = ""
    for i, turn in enumerate(turns):
        if type(turn) is not dict:
            raise BadRow(f"{field}[{i}] must be an object, not {kind_of(turn)}")
        speaker, said = ("role", "content") if "role" in turn else ("from", "value")
        name, content = turn.get(speaker), turn.get(said)
        role = ROLES.get(name) if type(name) is str else None
        if role is None:
            raise BadRow(f"{field}[{i}].{speaker} is {name!r:.40}, not one of {', '.join(ROLES)}")
        if type(content) is not str or not content or content.isspace():
            if role == "system" and (content is None or type(content) is str):
                continue
            content = _other_content(turn, said, f"{field}[{i}]")
        if role not in MAY_FOLLOW[previous]:
            where = f"after {previous}" if previous else "first"
            raise BadRow(f"{field}[{i}].{speaker}: {role} cannot come {where}")
        messages.append(Message(role, content))
        previous = role
    while messages and messages[-1].role != "assistant":
        messages.pop()
    if not messages:
        raise BadRow(f"{field} has no assistant reply")
    return messages


def _other_content(turn: Raw, said: str, where: str) -> str:
    """OpenAI's other contents: a list of text parts; nothing but tool calls (kept as JSON text)."""
    content = turn.get(said)
    if not content and (calls := turn.get("tool_calls")):
        return calls if type(calls) is str else msgspec.json.encode(calls).decode()
    if type(content) is list and content:
        if all(type(part) is dict and part.get("type") == "text" for part in content):
            return "".join(text_of(part, "text") for part in content)
        raise BadRow(f"{where}.{said} has parts that are not text")
    try:
        return text_of(turn, said)
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
