"""Takes the pictures of the built book: its first page for the READMEs, and each of its widgets.

    bash scripts/book.sh && python scripts/screenshot.py [PAGE...]

Without a name, of all pages; ``index`` is the first one. That picture holds what the page's cells
put out, and a talk with its model. A widget's picture, ``book/images/widgets/PAGE-NAME.png``,
stands in its place in print, while it loads and where no script runs: build the book again to see
it there. A picture knows which outputs or settings it was taken of: when the page has others,
tests/test_book.py asks for a new one.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "book" / "_static" / "screenshot.png"
SITE = ROOT / "_build" / "html" / "book"
SIZE = {"width": 1040, "height": 1180}
"""CSS pixels."""
KEY = "outputs"
"""Of the text in the PNG file that ``outputs_hash`` gave, or for a widget ``settings_hash``."""

WIDGET_WIDTH = 700
"""CSS pixels; the same in widgets.css."""
WIDGET_SCALE = 1.5
WIDGET_BYTES = 60_000
"""At most, for each picture."""
WIDGET_HEIGHT = 950
"""CSS pixels, at most: what a sheet of paper has room for."""
WIDGET_SIZE = {"width": 1280, "height": 2400}
"""Of the window: high enough for all of a widget."""
PATIENCE = 180_000
"""Milliseconds: a group of answers takes some seconds, and more on a busy machine."""
ALONE = f"""
  body :not(.pictured, .pictured *, :has(.pictured)) {{ display: none !important; }}
  .pictured .minillm-live {{ box-sizing: border-box; width: {WIDGET_WIDTH}px; padding: 4px; }}
  .pictured .minillm-live > :first-child {{ margin-top: 0; }}
"""
"""The style in which a widget is seen without the page around it, as wide as it is to be."""

LOOKS_ALIKE = """([one, other]) => {
  const drawn = (text) => {
    const canvas = document.createElement("canvas");
    const pen = canvas.getContext("2d");
    pen.font = "40px sans-serif";
    pen.fillText(text, 10, 60);
    return canvas.toDataURL();
  };
  return drawn(one) === drawn(other);
}"""
"""Whether two characters are drawn in the same way: what no font holds is a box."""


def find_browser() -> str | None:
    """The Chromium or Chrome of this machine, for the picture and for tests of the book; that of
    ``$CHROMIUM`` comes first."""
    names = [os.environ.get("CHROMIUM"), "chromium", "chromium-browser"]
    names += ["google-chrome", "google-chrome-stable"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


def outputs_hash() -> str:
    """SHA-256 of what the cells of the first page put out."""
    cells = json.loads((ROOT / "book" / "index.ipynb").read_bytes())["cells"]
    texts = [
        output.get("data", output.get("text")) for c in cells for output in c.get("outputs", [])
    ]
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()


def settings_hash(settings: Mapping[str, str]) -> str:
    """SHA-256 of what a widget begins with."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def save(shot: bytes, path: Path, about: str, colours: int, limit: float = math.inf) -> None:
    """Stores a PNG of so many colours that knows what it is about; of fewer, as long as it has more
    bytes than the limit."""
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text(KEY, about)
    image = Image.open(io.BytesIO(shot)).convert("RGB")
    for number in range(colours, 15, -16):
        content = io.BytesIO()
        image.quantize(number).save(content, "PNG", optimize=True, pnginfo=info)
        if content.tell() <= limit:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getvalue())
    print(f"{path}: {content.tell() / 1000:.0f} KB, {number} colours")


# --- The first page ---


def take_first_page(tab: Any) -> None:
    tab.goto((SITE / "index.html").as_uri())
    for number in range(3):
        tab.locator("minillm-chat .minillm-chip").nth(number).click()
        tab.locator("minillm-chat .minillm-log[aria-busy=false]").wait_for()
    tab.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
    save(tab.screenshot(), PICTURE, outputs_hash(), 64)


# --- The widgets, each in a state that tells what it does ---


def chat(widget: Any) -> None:
    widget.locator(".minillm-chip").first.click()
    widget.locator(".minillm-log[aria-busy=false] .minillm-assistant").wait_for()


def stages(widget: Any) -> None:
    widget.get_by_role("button", name="问一问").click()
    widget.locator("section").last.locator("p[aria-busy=false]").wait_for()


def ngram(widget: Any) -> None:
    widget.get_by_role("button", name="写一句").click()


def merges(widget: Any) -> None:
    for _ in range(3):
        widget.get_by_role("button", name="下一次").click()


def mask(widget: Any) -> None:
    """A token in the answer of a conversation that does not begin its row."""
    widget.locator(".minillm-first ~ .minillm-first ~ .minillm-learned").nth(1).click()


def samples(widget: Any) -> None:
    """Three right answers and three wrong ones of each group."""
    widget.get_by_role("button", name="遍").click()
    for column in widget.locator("section").all():
        column.locator("tbody tr").nth(15).wait_for()
        column.locator("[aria-busy=false]").wait_for()
    # A picture of all would be higher than a sheet of paper.
    widget.locator("tbody").evaluate_all(
        """(tables) => {
          for (const table of tables) {
            for (const kind of [".minillm-right", ".minillm-wrong"])
              for (const row of [...table.rows].filter((row) => row.querySelector(kind)).slice(3))
                row.remove();
            table.insertRow().insertCell().textContent = "……";
          }
        }"""
    )


STATES: dict[str, Callable[[Any], None]] = {
    state.__name__: state for state in (chat, stages, ngram, merges, mask, samples)
}
"""The others, as they begin."""


def take_widgets(tab: Any, page: str) -> None:
    from minillm.book.page import picture_path

    address = (SITE / f"{page}.html").as_uri()
    tab.goto(address)
    widgets = tab.locator(".minillm:not(.cell_output *)")
    for number in range(widgets.count()):
        tab.goto(address)
        tab.add_style_tag(content=ALONE)
        widget = widgets.nth(number)
        settings = widget.evaluate("(widget) => ({...widget.dataset})")
        widget.evaluate("(widget) => widget.classList.add('pictured')")
        live = widget.locator(".minillm-live")
        live.wait_for()
        name = widget.evaluate("(widget) => widget.localName").removeprefix("minillm-")
        STATES.get(name, lambda widget: None)(widget)
        tab.evaluate("() => document.activeElement.blur()")
        path = picture_path(ROOT / "book" / f"{page}.py", name)
        shot = live.screenshot(animations="disabled")
        save(shot, path, settings_hash(settings), 128, WIDGET_BYTES)


def main() -> None:
    from playwright.sync_api import sync_playwright

    browser = find_browser()
    if not browser:
        sys.exit("error: no Chromium or Chrome: install one, or set CHROMIUM to its path")
    pages = sys.argv[1:] or sorted(path.stem for path in SITE.glob("*.html"))
    if not pages:
        sys.exit("error: no page to show: run bash scripts/book.sh first")
    for page in pages:
        if not (SITE / f"{page}.html").exists():
            sys.exit(f"error: no page {page} in {SITE}: run bash scripts/book.sh first")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])

        def new_tab(**options: Any) -> Any:
            tab = chromium.new_page(color_scheme="light", **options)
            tab.set_default_timeout(PATIENCE)
            return tab

        tab = new_tab(viewport=SIZE)
        tab.goto((SITE / "index.html").as_uri())
        if tab.evaluate(LOOKS_ALIKE, ["中", "文"]):
            sys.exit("error: no Chinese font, the page is full of boxes: install fonts-noto-cjk")
        if not tab.locator("script[src*='minillm/start.js']").count():
            sys.exit("error: the page has no model: run python -m minillm.book.lab, then build it")
        if "index" in pages:
            take_first_page(tab)
        tab = new_tab(viewport=WIDGET_SIZE, device_scale_factor=WIDGET_SCALE)
        for page in pages:
            take_widgets(tab, page)
        chromium.close()


if __name__ == "__main__":
    main()
