"""Joins lines of Chinese: a line break in the source must not become a space in the page."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes

WIDE = r"\u3000-\u303f\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\u201c\u201d\u2018\u2019\u2026\u2014"
BREAK = re.compile(rf"(?<=[{WIDE}])\n(?=[{WIDE}])")


def join_lines(app: Any, doctree: nodes.document) -> None:
    for text in list(doctree.findall(nodes.Text)):
        if "\n" in text and not isinstance(text.parent, nodes.FixedTextElement | nodes.literal):
            joined = BREAK.sub("", str(text))
            if joined != str(text):
                text.parent.replace(text, nodes.Text(joined))


def setup(app: Any) -> dict[str, Any]:
    app.connect("doctree-read", join_lines)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
