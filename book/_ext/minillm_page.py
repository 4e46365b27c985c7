"""Widgets in which the book's model answers, and their scripts on the pages that have one.

    :::{minillm} chat
    :questions: 张静住在哪里？|你是谁？

    What is shown in print and without scripts.
    :::

A cell whose output is such an element (``minillm.book.page.widget``) has the same effect. The weights
come from the cache of trained models; without it the pages are built all the same, and say so.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from minillm.book import lab, page
from minillm.errors import UserError

FOLDER = "minillm"
"""Of the scripts, in the site's ``_static``."""
NOTE = (
    '<p class="minillm-note">这里本来可以和模型互动。这个网页生成的时候，没有训练好的模型：先运行 '
    "<code>python -m minillm.book.lab</code>，再运行 <code>bash scripts/book.sh</code>。</p>"
)


class Widget(SphinxDirective):
    required_arguments = 1
    has_content = True
    option_spec: ClassVar[Any] = dict.fromkeys(
        (
            *("after", "before", "model", "models", "plain", "question", "questions"),
            *("text", "vocabulary"),
        ),
        directives.unchanged,
    )

    def run(self) -> list[nodes.Node]:
        try:
            html = page.element(self.arguments[0], "|", self.options)
        except UserError as error:
            raise self.error(str(error)) from None
        start, end = html.rsplit("|", 1)
        return [
            nodes.raw("", start, format="html"),
            *self.parse_content_to_nodes(allow_section_headings=False),
            nodes.raw("", end, format="html"),
        ]


def widgets(doctree: nodes.document | None) -> list[nodes.raw]:
    """The places of a page where an element of a widget ends."""
    found = doctree.findall(nodes.raw) if doctree else []
    return [raw for raw in found if "</minillm-" in raw.astext()]


def weights(app: Sphinx) -> Path:
    """Their folder in the site."""
    return Path(app.outdir) / "_static" / FOLDER / "weights"


def is_alive(app: Sphinx, widget: nodes.raw) -> bool:
    """Whether the site has what the widget computes with."""
    name = re.findall(r"</minillm-(\w+)>", widget.astext())[-1]
    return name in page.WITHOUT_MODEL or (weights(app) / "fresh.js").exists()


def write_weights(app: Sphinx) -> None:
    """Before the pages, which have to know whether there are any."""
    if app.builder.format != "html":
        return
    with lab.from_the_cache():
        page.write_vocabularies(weights(app))
    try:
        with lab.from_the_cache():
            page.write_site(weights(app))
    except UserError as error:
        page.write_index(weights(app), {})
        logging.getLogger(__name__).info("Note: the widgets of the pages do not move: %s", error)


def add_note(app: Sphinx, doctree: nodes.document, name: str) -> None:
    for raw in widgets(doctree):
        if is_alive(app, raw):
            continue
        html = raw.astext()
        place = html.rindex("</minillm-")
        raw.replace_self(nodes.raw("", html[:place] + NOTE + html[place:], format="html"))


def add_scripts(
    app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    found = widgets(doctree)
    if not found:
        return
    app.add_css_file(f"{FOLDER}/widgets.css")
    if any(is_alive(app, raw) for raw in found):
        app.add_js_file(f"{FOLDER}/start.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("minillm", Widget)
    app.connect("builder-inited", write_weights)
    app.connect("doctree-resolved", add_note)
    app.connect("html-page-context", add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
