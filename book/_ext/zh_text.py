"""Joins lines of Chinese: a line break in the source must not become a space in the page.

Comments, which name what a sentence rests on (see CONTRIBUTING.md), are left out before that.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes

WIDE = re.compile(
    r"[\u2014\u2018-\u201d\u2026\u3000-\u303f\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]"
)


def join_lines(app: Any, doctree: nodes.document) -> None:
    """MyST gives each line break a text node of its own."""
    for raw in list(doctree.findall(nodes.raw)):
        if raw.astext().startswith("<!--"):
            raw.parent.remove(raw)
    for element in doctree.findall(nodes.TextElement):
        children = element.children
        breaks = [
            i
            for i in range(1, len(children) - 1)
            if isinstance(children[i], nodes.Text)
            and children[i] == "\n"
            and WIDE.match(children[i - 1].astext()[-1:])
            and WIDE.match(children[i + 1].astext()[:1])
        ]
        for i in reversed(breaks):
            del element[i]


def setup(app: Any) -> dict[str, Any]:
    app.connect("doctree-read", join_lines)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
