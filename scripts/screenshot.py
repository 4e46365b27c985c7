"""Takes the picture of the book's first page that the READMEs show.

    bash scripts/book.sh && python scripts/screenshot.py

The picture holds what the page's cells put out, and a talk with its model. It knows which outputs
those were: when the page has others, tests/test_book.py asks for a new picture.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "book" / "_static" / "screenshot.png"
PAGE = ROOT / "_build" / "html" / "book" / "index.html"
SIZE = {"width": 1040, "height": 1180}
"""CSS pixels."""
KEY = "outputs"
"""Of the text in the PNG file that ``outputs_hash`` gave."""

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


def main() -> None:
    from PIL import Image, PngImagePlugin
    from playwright.sync_api import sync_playwright

    browser = find_browser()
    if not browser:
        sys.exit("error: no Chromium or Chrome: install one, or set CHROMIUM to its path")
    if not PAGE.exists():
        sys.exit("error: no page to show: run bash scripts/book.sh first")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = chromium.new_page(viewport=SIZE, color_scheme="light")  # type: ignore[arg-type]
        tab.goto(PAGE.as_uri())
        if tab.evaluate(LOOKS_ALIKE, ["中", "文"]):
            sys.exit("error: no Chinese font, the page is full of boxes: install fonts-noto-cjk")
        if not tab.locator("script[src*='minillm/start.js']").count():
            sys.exit("error: the page has no model: run python -m minillm.book.lab, then build it")
        for number in range(3):
            tab.locator("minillm-chat .minillm-chip").nth(number).click()
            tab.locator("minillm-chat .minillm-log[aria-busy=false]").wait_for()
        tab.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
        shot = tab.screenshot()
        chromium.close()
    about = PngImagePlugin.PngInfo()
    about.add_text(KEY, outputs_hash())
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(64).save(
        PICTURE, optimize=True, pnginfo=about
    )
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
