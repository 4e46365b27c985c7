"""The categories of the mix: what each may hold, and which one a row belongs to."""

from __future__ import annotations

import re

from minillm.data.rows import BadRow, Chat, Pair, Row, Text

CATEGORIES = ("text", "general", "knowledge", "math", "identity", "preference")
MAY_HOLD: dict[str, tuple[type[Row], ...]] = {
    **dict.fromkeys(CATEGORIES, (Text, Chat)),
    "text": (Text,),
    "preference": (Pair,),
}
CATEGORY_OF = {Text: "text", Chat: "general", Pair: "preference"}
"""The category of a row in a file whose name says none."""
KIND_NAMES = {Text: "plain text", Chat: "a conversation", Pair: "a preference pair"}


def category_in(file_name: str) -> str | None:
    """The category that a file's name begins with, None if it begins with none.

    What follows must not be a Latin letter: ``text.jsonl``, ``text-news.jsonl`` and
    ``math401.jsonl`` name one, ``textbook.jsonl`` does not.
    """
    word = re.split("[^A-Za-z]", file_name, maxsplit=1)[0]
    return word if word in CATEGORIES else None


def category_of(row: Row, named: str | None) -> str:
    """The category of a row: ``named``, or where that is None, the one of its kind.

    Raises BadRow if a category is named that may not hold such rows.
    """
    if named is None:
        return CATEGORY_OF[type(row)]
    if not isinstance(row, MAY_HOLD[named]):
        wanted = " or ".join(KIND_NAMES[kind] for kind in MAY_HOLD[named])
        raise BadRow(f"{named} rows are {wanted}, this is {KIND_NAMES[type(row)]}")
    return named
