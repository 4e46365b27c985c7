"""Widgets in which the book's model answers, and their scripts on the pages that have one.

    :::{minillm} chat
    :questions: 张静住在哪里？|你是谁？
    :alt: 聊天的窗口：……

    What is shown in print and without scripts, under the widget's picture.
    :::

``:alt:`` tells the picture in words: ``images/widgets/PAGE-NAME.png`` beside the page, taken by
``scripts/screenshot.py``. A page without it is built all the same, and the log says so.

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
from sphinx.util.images import get_image_size

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
            *("after", "alt", "before", "model", "models", "plain", "question", "questions"),
            *("start", "text", "vocabulary"),
        ),
        directives.unchanged,
    )

    def run(self) -> list[nodes.Node]:
        settings = {key: value for key, value in self.options.items() if key != "alt"}
        try:
            html = page.element(self.arguments[0], "|", settings)
        except UserError as error:
            raise self.error(str(error)) from None
        start, end = html.rsplit("|", 1)
        return [
            nodes.raw("", start, format="html"),
            *self.picture(),
            *self.parse_content_to_nodes(allow_section_headings=False),
            nodes.raw("", end, format="html"),
        ]

    def picture(self) -> list[nodes.Node]:
        """It stands in a box of its shape, so that nothing moves when it arrives."""
        source, alt = Path(self.env.doc2path(self.env.docname)), self.options.get("alt")
        path = page.picture_path(source, self.arguments[0])
        self.env.note_dependency(str(path))
        if not path.exists():
            message = (
                "Note: %s has no picture %s: run python scripts/screenshot.py, then build again"
            )
            logging.getLogger(__name__).info(message, source.name, path.name)
            return []
        if not alt:
            raise self.error(f"{path.name} is not told in words: give :alt: to the widget")
        width, height = get_image_size(str(path)) or (1, 1)
        box = f'<div class="minillm-picture" style="aspect-ratio: {width} / {height}">'
        image = nodes.image(uri=path.relative_to(source.parent).as_posix(), alt=alt, loading="lazy")
        image["classes"].append("dark-light")  # the theme's word for: the same on a dark page
        return [
            nodes.raw("", box, format="html"),
            image,
            nodes.raw("", "</div>", format="html"),
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
