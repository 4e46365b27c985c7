"""Alt texts with figures: what the cell says of a picture, and the data that its output tells.

The words are typed into the cell and know no figure of a run; ``minillm.book.show.Picture`` tells the
figures in the metadata of the output, so that both are true of whoever ran the page.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from myst_nb.core.render import MimeData, NbElementRenderer

render_image = NbElementRenderer.render_image


def render_with_data(self: NbElementRenderer, data: MimeData) -> list[nodes.Element]:
    images = render_image(self, data)
    told = data.output_metadata.get(data.mime_type, {}).get("alt")
    for image in images:
        if told:
            image["alt"] = "。".join([*filter(None, [image.get("alt")]), f"数据：{told}"])
    return images


def setup(app: Any) -> dict[str, bool]:
    NbElementRenderer.render_image = render_with_data  # type: ignore[method-assign]
    return {"parallel_read_safe": True, "parallel_write_safe": True}
