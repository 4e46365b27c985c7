"""Chinese for the labels that Sphinx and the theme have no translation of."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

LABELS = {
    "Link to this heading": "本节的链接",
    "Link to this equation": "这个公式的链接",
    "Link to this image": "这张图的链接",
    "Link to this table": "这张表的链接",
    "Link to this term": "这个术语的链接",
    "Link to this code": "这段代码的链接",
    "Toggle primary sidebar": "显示或隐藏目录",
    "Toggle secondary sidebar": "显示或隐藏本页目录",
    "Toggle hidden content": "展开或收起",
    "Main": "全书目录",
    "Page": "本页目录",
    "Color mode": "明暗",
    "System Settings": "跟随系统",
    "Light": "浅色",
    "Dark": "深色",
}
ATTRIBUTE = re.compile(rf'(title|aria-label)="({"|".join(LABELS)})"')


def translate(app: Sphinx, error: Exception | None) -> None:
    """Replaces the labels in the pages that were written."""
    if error or app.builder.format != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        chinese = ATTRIBUTE.sub(lambda m: f'{m[1]}="{LABELS[m[2]]}"', text)
        if chinese != text:
            path.write_text(chinese, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", translate)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
