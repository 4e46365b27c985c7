"""Conversations as token ids: special tokens around each turn, a mask of what is to be learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, get_args

from minillm.data.rows import Message, Role, check_order

SPECIAL_TOKENS = (
    "<|bos|>",  # begins every document
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",  # the assistant calls a tool …
    "<|python_end|>",
    "<|output_start|>",  # … and reads what it put out
    "<|output_end|>",
)
"""nanochat's nine. Their ids follow those of the mergeable tokens, in this order."""


PARTS = ("text", "python", "python_output")
"""What an assistant's turn may consist of."""


Conversation: TypeAlias = Sequence[Message | Mapping[str, Any]] | Mapping[str, Any]
"""Messages, or nanochat's ``{"messages": [...]}``."""


def turns_of(conversation: Conversation) -> list[tuple[str, Any]]:
    """Checked (role, content); the system turn merged, the assistant's content as (kind, text)."""
    messages = conversation.get("messages") if isinstance(conversation, Mapping) else conversation
    turns: list[tuple[str, Any]] = []
    system = previous = ""
    for i, message in enumerate(messages or ()):
        role: Any
        content: Any
        if isinstance(message, Message):
            role, content = message.role, message.content
        elif isinstance(message, Mapping):
            role, content = message.get("role"), message.get("content")
        else:
            raise ValueError(f"message {i}: must have a role and content, but is {message!r:.40}")
        if role not in get_args(Role):
            raise ValueError(f"message {i}: unknown role {role!r:.40}")
        check_order(role, previous, f"message {i}")
        previous = role
        if role == "assistant":
            turns.append((role, _parts(content, i)))
        elif not isinstance(content, str):
            raise ValueError(f"message {i}: the content of {role} must be a string")
        elif role == "system":
            system = f"{content}\n\n"
        else:
            turns.append((role, system + content))
            system = ""
    if not turns:
        raise ValueError("the conversation is empty")
    return turns


def _parts(content: Any, i: int) -> list[tuple[str, str]]:
    if isinstance(content, str):
        return [("text", content)]
    try:
        parts = [(part["type"], part["text"]) for part in content]
    except (TypeError, KeyError):
        parts = [("", "")]
    if not all(kind in PARTS and isinstance(text, str) for kind, text in parts):
        raise ValueError(
            f"message {i}: content must be a string or a list of parts with a text and a type "
            f"({', '.join(PARTS)})"
        )
    joined: list[tuple[str, str]] = []
    for kind, text in parts:
        if kind == "text" and joined and joined[-1][0] == "text":
            joined[-1] = (kind, joined[-1][1] + text)  # the model's own text has no seams
        else:
            joined.append((kind, text))
    return joined


def render(
    turns: list[tuple[str, Any]],
    encode: Callable[[str], list[int]],
    special: Mapping[str, int],
) -> tuple[list[int], list[int]]:
    """The turns of ``turns_of`` as (ids, mask), in the form that
    ``RustBPETokenizer.render_conversation`` draws.

    Args:
        encode: text → ids, none of them special.
        special: a special token's name → its id.
    """
    ids: list[int] = []
    mask: list[int] = []

    def add(token_ids: list[int], learn: int) -> None:
        ids.extend(token_ids)
        mask.extend([learn] * len(token_ids))

    def between(kind: str, text: str) -> list[int]:
        return [special[f"<|{kind}_start|>"], *encode(text), special[f"<|{kind}_end|>"]]

    add([special["<|bos|>"]], 0)
    for role, content in turns:
        if role == "user":
            add(between("user", content), 0)
        elif role == "tool":
            add(between("output", content), 0)
        else:
            add([special["<|assistant_start|>"]], 0)
            for kind, text in content:
                if kind == "text":
                    add(encode(text), 1)
                elif kind == "python":
                    add(between("python", text), 1)
                else:  # what a tool said, the model need not learn to say
                    add(between("output", text), 0)
            add([special["<|assistant_end|>"]], 1)
    return ids, mask
