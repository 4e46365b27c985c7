"""Takes the picture of the book's first page that the READMEs show.

    bash scripts/book.sh && python scripts/screenshot.py

The picture holds what the page's cells put out, and knows which outputs those were: when the page
has others, tests/test_book.py asks for a new picture.
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


def outputs_hash() -> str:
    """SHA-256 of what the cells of the first page put out."""
    cells = json.loads((ROOT / "book" / "index.ipynb").read_bytes())["cells"]
    texts = [
        output.get("data", output.get("text")) for c in cells for output in c.get("outputs", [])
    ]
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()


def main() -> int:
    from PIL import Image, PngImagePlugin
    from playwright.sync_api import sync_playwright

    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    browser = next((found for name in names if name and (found := shutil.which(name))), None)
    if not browser or not PAGE.exists():
        what = (
            "no Chromium: set CHROMIUM to one" if not browser else "run bash scripts/book.sh first"
        )
        print(f"error: {what}", file=sys.stderr)
        return 2
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = chromium.new_page(viewport=SIZE, color_scheme="light")  # type: ignore[arg-type]
        tab.goto(PAGE.as_uri())
        shot = tab.screenshot()
        chromium.close()
    about = PngImagePlugin.PngInfo()
    about.add_text(KEY, outputs_hash())
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(64).save(
        PICTURE, optimize=True, pnginfo=about
    )
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
