"""The built book: complete, offline, and usable in a browser, in light and dark, on a phone.

The site in ``MINILLM_SITE`` is tested, which scripts/test.sh has just built; without it, one is
built for the tests.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup
from visitor import Visitor, served

from minillm.book import lab
from minillm.book.page import WITHOUT_MODEL
from minillm.config import ALL_STAGES, Stage
from minillm.data.rows import to_messages
from minillm.microworld import scoring

REPO = Path(__file__).resolve().parent.parent
TOC = yaml.safe_load((REPO / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [TOC["root"], *(c["file"] for part in TOC["parts"] for c in part["chapters"])]
"""In reading order."""

MAX_HTML = 1_000_000  # bytes
MAX_PAINT = 1.5  # seconds
MAX_PAINT_SLOW = 6.0
"""On a busy machine, the first page may take longer: the fastest of all must keep ``MAX_PAINT``."""
MAX_WEIGHTS = 1_300_000  # bytes
MIN_CONTRAST = 4.5
PHONE = 390  # CSS pixels
LAPTOPS = (1280, 1440)
DESKTOP = {"width": 1280, "height": 900}


# --- The site as files ---


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built pages."""
    if built := os.environ.get("MINILLM_SITE"):
        return REPO / built
    folder = tmp_path_factory.mktemp("book")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(REPO / name, folder)
    shutil.copytree(REPO / "book", folder / "book")
    # A console script, which need not be on the PATH; the package does not run by python -m.
    program = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", program, "build", ".", "-W", "--keep-going", "-n"]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(folder.glob("_build/html/**/*.html")), "nothing was built"
    return folder / "_build" / "html"


@pytest.fixture(scope="session")
def documents(site: Path) -> dict[str, BeautifulSoup]:
    """Every page, also the search and the index, by its path."""
    return {
        path.relative_to(site).as_posix(): BeautifulSoup(path.read_text("utf-8"), "html.parser")
        for path in sorted(site.rglob("*.html"))
        if "_static" not in path.relative_to(site).parts
    }


def test_every_page_was_built(documents: dict[str, BeautifulSoup]) -> None:
    assert {f"{page}.html" for page in PAGES} <= set(documents)


def test_pages_are_small(site: Path) -> None:
    for page in PAGES:
        assert (site / f"{page}.html").stat().st_size < MAX_HTML, page


def test_nothing_is_loaded_from_another_host(
    site: Path, documents: dict[str, BeautifulSoup]
) -> None:
    def remote(address: str) -> bool:
        return bool(re.match(r"\s*(https?:)?//", address))

    loaded = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}
    for name, document in documents.items():
        for tag in document.find_all(list(loaded)):
            if tag.name == "link" and "canonical" in (tag.get("rel") or []):
                continue
            assert not remote(tag.get(loaded[tag.name]) or ""), f"{name}: {tag}"
        for style in document.find_all("style"):
            assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", style.text), name
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import\s+['\"](https?:)?//", text), path


def test_links_lead_somewhere(site: Path, documents: dict[str, BeautifulSoup]) -> None:
    anchors = {
        name: {t["id"] for t in d.find_all(id=True)}
        | {t["name"] for t in d.find_all("a", attrs={"name": True})}
        for name, d in documents.items()
    }
    broken = []
    for name, document in documents.items():
        for tag in document.find_all("a", href=True):
            link = urlsplit(urljoin(f"http://site/{name}", tag["href"]))
            if link.netloc != "site" or link.scheme != "http" or tag["href"] == "#":
                continue
            target = unquote(link.path).lstrip("/") or "index.html"
            anchor = unquote(link.fragment)
            if not (site / target).is_file() or (
                anchor and target in anchors and anchor not in anchors[target]
            ):
                broken.append(f"{name}: {tag['href']}")
    assert not broken, "\n".join(broken)


def test_markup_was_understood(documents: dict[str, BeautifulSoup]) -> None:
    """CommonMark leaves ** standing beside some full-width punctuation, and a line break between
    two Chinese characters, which a browser shows as a space."""
    for page in PAGES:
        for text in documents[f"{page}.html"].select_one("article").find_all(string=True):
            if re.search(r"\*\*|:::|\{\w+\}`|\]\(|[\u4e00-\u9fff。，]\n[\u4e00-\u9fff]", text):
                shown = [*text.parents]
                code = [t for t in shown if t.name in ("pre", "code", "script", "style")]
                classes = {c for t in shown for c in t.get("class", [])}
                assert code or classes & {"math", "cell_output"}, f"{page}: {text}"


def test_pictures_have_texts(documents: dict[str, BeautifulSoup]) -> None:
    for page in PAGES:
        for image in documents[f"{page}.html"].select("article img"):
            text = image.get("alt") or ""
            assert re.search("[\u4e00-\u9fff]", text), f"{page}: {image}"
            of_a_widget = image.find_parent(class_="minillm-picture")
            if (
                "_images" in image["src"] and not of_a_widget
            ):  # drawn by a cell, whose figures follow its words
                assert "。数据：" in text, f"{page}: {text}"


@pytest.fixture(scope="session")
def weights(site: Path) -> Path:
    """The folder of the models that the site's widgets answer with."""
    folder = site / "_static" / "minillm" / "weights"
    if not (folder / "fresh.js").exists():
        message = (
            "built without trained models: run python -m minillm.book.lab, then build the book"
        )
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


def test_only_pages_with_a_widget_load_its_scripts(
    site: Path, documents: dict[str, BeautifulSoup]
) -> None:
    trained = (site / "_static" / "minillm" / "weights" / "fresh.js").exists()
    with_widgets = set()
    for name, document in documents.items():
        scripts = [tag["src"].split("?")[0] for tag in document.find_all("script", src=True)]
        found = [script for script in scripts if "/minillm/" in script]
        kinds = {tag.name.removeprefix("minillm-"): tag for tag in document.select(".minillm")}
        if kinds:
            with_widgets.add(name)
            alive = trained or bool(set(kinds) & set(WITHOUT_MODEL))
            assert [s.rpartition("/")[2] for s in found] == ["start.js"] * alive, name
            for kind, tag in kinds.items():
                told = "python -m minillm.book.lab" in tag.text
                assert told == (not trained and kind not in WITHOUT_MODEL), (name, kind)
        else:
            assert not found, name
    chapters = (
        "index",
        "03-rustbpe",
        "04-tensors",
        "05-model",
        "07-sft",
        "09-thinking",
        "10-identity",
    )
    assert {f"book/{chapter}.html" for chapter in chapters} <= with_widgets


def test_every_stage_is_there_and_weights_are_small(weights: Path) -> None:
    sizes = {path.stem: path.stat().st_size for path in weights.glob("*.js")}
    assert {
        "fresh",
        *ALL_STAGES,
        "identity",
        *(f"sft-{step}" for step in lab.SNAPSHOTS[:5]),
    } <= set(sizes)
    assert max(sizes.values()) < MAX_WEIGHTS


def test_every_widget_has_its_picture(
    site: Path, documents: dict[str, BeautifulSoup], pictured: dict[str, list[str]]
) -> None:
    assert sum(map(len, pictured.values())) >= 7
    for name, kinds in pictured.items():
        for kind in kinds:
            widget = documents[name].select_one(f"minillm-{kind}")
            (picture,) = widget.select("img")
            assert (site / name).parent.joinpath(unquote(picture["src"])).is_file(), picture
            assert picture["loading"] == "lazy"
            assert picture.find_parent("a") is None
            assert widget.find("p"), "a sentence stands under it"


# --- The site in a browser ---


@pytest.fixture(scope="session")
def pictured(documents: dict[str, BeautifulSoup]) -> dict[str, list[str]]:
    """The widgets of the pages that have any, without those that cells put out."""
    found = {
        name: [
            tag.name.removeprefix("minillm-")
            for tag in document.select("article .minillm:not(.cell_output *)")
        ]
        for name, document in documents.items()
    }
    return {name: kinds for name, kinds in found.items() if kinds}


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Where a local server gives out the site."""
    with served(site) as address:
        yield address


@pytest.fixture(scope="session")
def desktop(browser: Any, address: str) -> Iterator[Visitor]:
    visitor = Visitor(
        browser,
        address,
        viewport=DESKTOP,
        permissions=["clipboard-read", "clipboard-write"],
        color_scheme="light",
    )
    yield visitor
    visitor.context.close()


COLOURS = """() => {
  const rgba = colour => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const behind = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      layers.push(rgba(getComputedStyle(e).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    const over = (under, [r, g, b, a]) => [r, g, b].map((v, i) => a * v + (1 - a) * under[i]);
    return layers.reverse().reduce(over, [255, 255, 255]);
  };
  const luminance = c => {
    const [r, g, b] = c.map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = element => {
    const text = rgba(getComputedStyle(element).color).slice(0, 3);
    const [a, b] = [text, behind(element)].map(luminance);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const all = selector => [...document.querySelectorAll('article ' + selector)];
  const worst = selector => all(selector).filter(e => e.textContent.trim())
    .map(e => [contrast(e), e.outerHTML.slice(0, 120)]).sort((a, b) => a[0] - b[0])[0];
  return {
    background: behind(document.querySelector('article')).join(),
    text: worst('p'),
    html: worst('.text_html :is(td, th, span)') || [99, ''],
    cards: all('.cell_output img, .cell_output .text_html').filter(e => {
      const style = getComputedStyle(e);
      return rgba(style.backgroundColor)[3] > 0 || style.filter !== 'none';
    }).length,
  };
}"""

UNFOLDED_WIDTH = """() => {
  document.querySelectorAll('details').forEach(e => e.open = true);
  document.querySelectorAll('.toggle-hidden').forEach(e => e.classList.remove('toggle-hidden'));
  return document.scrollingElement.scrollWidth;
}"""

CUT_OFF = """() => {
  document.querySelectorAll('details').forEach(e => e.open = true);
  document.querySelectorAll('.toggle-hidden').forEach(e => e.classList.remove('toggle-hidden'));
  return [...document.querySelectorAll('article pre')]
    .filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1)
    .map(e => e.textContent.slice(0, 80));
}"""

PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime / 1000"


@pytest.fixture(scope="session")
def visits(desktop: Visitor) -> dict[str, dict[str, Any]]:
    """What was seen on each page: opened once, looked at in light, in dark and on a phone."""
    seen = {}
    for page in PAGES:
        desktop.trouble.clear()
        tab = desktop.open(f"{page}.html")
        seen[page] = {
            "paint": tab.wait_for_function(PAINT).json_value(),
            "formulas": tab.locator("article .math").count(),
            "typeset": tab.locator("article .math mjx-container").count(),
            "wrong": tab.locator("mjx-merror, [data-mjx-error], [mathcolor=red]").count(),
            "light": tab.evaluate(COLOURS),
        }
        tab.emulate_media(color_scheme="dark")
        tab.wait_for_function("() => document.documentElement.dataset.theme === 'dark'")
        seen[page]["dark"] = tab.evaluate(COLOURS)
        tab.emulate_media(color_scheme="light")
        seen[page]["cut off"] = []
        for width in LAPTOPS:
            tab.set_viewport_size({"width": width, "height": 900})
            seen[page]["cut off"] += [f"{width}: {line}" for line in tab.evaluate(CUT_OFF)]
        tab.set_viewport_size({"width": PHONE, "height": 844})
        seen[page]["width"] = tab.evaluate(UNFOLDED_WIDTH)
        tab.set_viewport_size(DESKTOP)
        seen[page]["trouble"] = list(desktop.trouble)
    return seen


def test_every_page_opens_without_trouble(visits: dict[str, dict[str, Any]]) -> None:
    """No error on the console, no failed request, and none to another host."""
    assert not {page: seen["trouble"] for page, seen in visits.items() if seen["trouble"]}


def test_pages_appear_quickly(visits: dict[str, dict[str, Any]]) -> None:
    paints = {page: seen["paint"] for page, seen in visits.items()}
    assert min(paints.values()) < MAX_PAINT, paints
    assert max(paints.values()) < MAX_PAINT_SLOW, paints


def test_formulas_are_typeset(visits: dict[str, dict[str, Any]]) -> None:
    for page, seen in visits.items():
        assert seen["typeset"] >= seen["formulas"], page
        assert seen["wrong"] == 0, page
    assert any(seen["formulas"] for seen in visits.values())


def test_no_code_is_cut_off_on_a_laptop(visits: dict[str, dict[str, Any]]) -> None:
    assert not {page: seen["cut off"] for page, seen in visits.items() if seen["cut off"]}


def test_nothing_scrolls_sideways_on_a_phone(visits: dict[str, dict[str, Any]]) -> None:
    assert not {page: seen["width"] for page, seen in visits.items() if seen["width"] > PHONE}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out(visits: dict[str, dict[str, Any]], theme: str) -> None:
    for page, seen in visits.items():
        assert seen[theme]["text"][0] >= MIN_CONTRAST, f"{page}: {seen[theme]}"
        assert seen[theme]["html"][0] >= MIN_CONTRAST, f"{page}: {seen[theme]}"
    assert len({seen["light"]["background"] for seen in visits.values()}) == 1
    assert {seen["light"]["background"] for seen in visits.values()}.isdisjoint(
        seen["dark"]["background"] for seen in visits.values()
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pictures_stand_on_no_card(visits: dict[str, dict[str, Any]], theme: str) -> None:
    assert not {page for page, seen in visits.items() if seen[theme]["cards"]}


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ("字节对编码", "book/03-rustbpe"),
        ("损失掩码", "book/07-sft"),
        ("DPO", "book/08-dpo"),
        ("词", "book/03-rustbpe"),
        ("render_conversation", "book/07-sft"),
    ],
)
def test_search_finds(desktop: Visitor, query: str, page: str) -> None:
    tab = desktop.open(f"search.html?q={query}")
    tab.wait_for_selector("#search-results ul.search li a")
    tab.wait_for_function(
        "() => !document.querySelector('#search-progress')?.textContent.includes('.')"
    )
    hits = tab.eval_on_selector_all("#search-results ul.search li a", "all => all.map(a => a.href)")
    assert any(f"/{page}.html" in hit for hit in hits), hits


def test_search_finds_nothing_for_nonsense(desktop: Visitor) -> None:
    tab = desktop.open("search.html?q=龘鱻麤")
    tab.wait_for_function(
        "() => document.querySelector('#search-results p.search-summary')?.textContent"
    )
    assert tab.locator("#search-results ul.search li").count() == 0


def first_page_with(documents: dict[str, BeautifulSoup], selector: str) -> str:
    for page in PAGES:
        if documents[f"{page}.html"].select_one(selector):
            return f"{page}.html"
    pytest.fail(f"no page has {selector}")


def test_copy_button_copies_the_code(desktop: Visitor, documents: dict[str, BeautifulSoup]) -> None:
    tab = desktop.open(first_page_with(documents, ".cell_input pre"))
    block = tab.locator(".cell:not(:has(details)) .cell_input .highlight").first
    block.hover()
    block.locator("button.copybtn").click()
    copied = tab.evaluate("() => navigator.clipboard.readText()")
    assert copied.strip() == block.locator("pre").inner_text().strip()


def test_solutions_open(desktop: Visitor, documents: dict[str, BeautifulSoup]) -> None:
    tab = desktop.open(first_page_with(documents, ".solution.dropdown .cell"))
    solution = tab.locator(".solution.dropdown:has(.cell)").first
    code = solution.locator(".cell_input").first
    assert not code.is_visible()
    solution.locator("button.toggle-button").click()
    code.wait_for(state="visible")


def test_next_leads_through_the_whole_book(documents: dict[str, BeautifulSoup]) -> None:
    def leads(page: str, selector: str) -> str | None:
        link = documents[f"{page}.html"].select_one(selector)
        return link and urljoin(f"{page}.html", str(link["href"])).removesuffix(".html")

    assert [leads(page, "a.right-next") for page in PAGES] == [*PAGES[1:], None]
    assert [leads(page, "a.left-prev") for page in PAGES] == [None, *PAGES[:-1]]


def test_next_can_be_clicked(desktop: Visitor) -> None:
    tab = desktop.open(f"{PAGES[0]}.html")
    tab.locator("a.right-next").click()
    tab.wait_for_url(f"**/{PAGES[1]}.html")
    tab.locator("a.left-prev").click()
    tab.wait_for_url(f"**/{PAGES[0]}.html")


def test_sidebar_lists_every_page(desktop: Visitor) -> None:
    tab = desktop.open(f"{PAGES[0]}.html")
    links = tab.eval_on_selector_all("nav.bd-docs-nav a", "all => all.map(a => a.pathname)")
    assert [link for link in links if link != f"/{PAGES[0]}.html"] == [
        f"/{page}.html" for page in PAGES[1:]
    ]
    tab.locator("nav.bd-docs-nav a").last.click()
    tab.wait_for_url(f"**/{PAGES[-1]}.html")


def test_notebook_can_be_downloaded(desktop: Visitor) -> None:
    page = next(page for page in PAGES if (REPO / f"{page}.ipynb").exists())
    tab = desktop.open(f"{page}.html")
    tab.locator(".dropdown-download-buttons > button").click()
    link = tab.locator("a.btn-download-source-button")
    link.wait_for(state="visible")
    response = desktop.context.request.get(link.evaluate("a => a.href"))
    assert response.ok
    assert response.body() == (REPO / f"{page}.ipynb").read_bytes()


# --- Pictures of widgets ---

IS_LOADED = "(image) => image.complete && image.naturalWidth > 0"


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_without_scripts_a_picture_stands_for_a_widget(
    browser: Any, address: str, site: Path, pictured: dict[str, list[str]], scheme: str
) -> None:
    root = address if scheme == "http" else site.as_uri()
    visitor = Visitor(browser, root, viewport=DESKTOP, java_script_enabled=False)
    for name, kinds in pictured.items():
        visitor.tab.goto(f"{root}/{name}")
        for kind in kinds:
            picture = visitor.tab.locator(f"minillm-{kind} img")
            before = picture.bounding_box()
            picture.scroll_into_view_if_needed()
            until(visitor.tab, picture, IS_LOADED)
            after = picture.bounding_box()
            assert [after[key] for key in ("width", "height")] == pytest.approx(
                [before[key] for key in ("width", "height")], abs=1
            )
            width, height = picture.evaluate("(e) => [e.naturalWidth, e.naturalHeight]")
            assert after["width"] / after["height"] == pytest.approx(width / height, rel=0.01)
            assert visitor.tab.locator(f"minillm-{kind} p").last.is_visible()
    # Some versions of Chromium call a script that may not run a failed request.
    assert not [trouble for trouble in visitor.trouble if ".js" not in trouble]
    visitor.context.close()


def until(tab: Any, element: Any, condition: str) -> None:
    """Waits, also where the page's own scripts may not run."""
    for _ in range(300):
        if element.evaluate(condition):
            return
        tab.wait_for_timeout(100)
    pytest.fail(f"never {condition}")


def test_a_living_widget_takes_the_place_of_its_picture_but_in_print(
    desktop: Visitor, pictured: dict[str, list[str]], site: Path
) -> None:
    trained = (site / "_static" / "minillm" / "weights" / "fresh.js").exists()
    desktop.trouble.clear()
    for name, kinds in pictured.items():
        for kind in kinds:
            if not trained and kind not in WITHOUT_MODEL:
                continue
            tab = desktop.open(name)
            widget = tab.locator(f"minillm-{kind}")
            picture, live = widget.locator("img"), widget.locator(".minillm-live")
            widget.scroll_into_view_if_needed()
            live.wait_for()
            assert not picture.is_visible()
            tab.emulate_media(media="print")
            assert picture.is_visible()
            assert not live.is_visible()
            assert widget.locator(".minillm-still p").last.is_visible()
            until(tab, picture, IS_LOADED)
            tab.emulate_media(media="screen")
            assert live.is_visible()
    assert not desktop.trouble


def test_a_picture_on_a_dark_page_is_a_light_card(
    browser: Any, address: str, pictured: dict[str, list[str]]
) -> None:
    visitor = Visitor(
        browser, address, viewport=DESKTOP, java_script_enabled=False, color_scheme="dark"
    )
    visitor.tab.goto(f"{address}/{next(iter(pictured))}")
    visitor.tab.evaluate("() => { document.documentElement.dataset.theme = 'dark'; }")
    box = visitor.tab.locator(".minillm-picture").first
    assert box.evaluate("(e) => getComputedStyle(e).backgroundColor") == "rgb(243, 244, 245)"
    assert box.locator("img").evaluate("(e) => getComputedStyle(e).filter") == "none"
    visitor.context.close()


# --- The model in the page ---

KINDS = ("fact", "phrasing", "reading", "chain", "shop", "multi_turn")

ASK_ALL = """([name, conversations]) => MiniLLM.language(name).then(({model, tokenizer}) =>
  conversations.map((messages) =>
    [...MiniLLM.reply(model, tokenizer, messages, {max_new_tokens: 64})].join("")))"""


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_the_page_answers_what_the_package_answers(
    desktop: Visitor, weights: Path, stage: Stage
) -> None:
    """Held-out questions, greedily: int8 instead of float32 changes 5% of the answers at most."""
    questions = [q for kind in KINDS for q in scoring.questions(kind, 10)]
    conversations = [to_messages(q.messages) for q in questions]
    expected = lab.ladder(stage).evaluator().chat(conversations)
    tab = desktop.open("book/index.html")
    tab.locator("minillm-chat").scroll_into_view_if_needed()
    tab.locator("minillm-chat .minillm-live").wait_for()
    asked = [[{"role": m.role, "content": m.content} for m in c] for c in conversations]
    found = tab.evaluate(ASK_ALL, [stage, asked])
    assert len(expected) == 60
    equal = sum(a == b for a, b in zip(found, expected, strict=True))
    assert equal >= 0.95 * len(expected)


@pytest.mark.parametrize("scheme", ["http", "file"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_first_page_answers(
    browser: Any, address: str, site: Path, weights: Path, scheme: str, theme: str
) -> None:
    """On a phone, over http and from a file, in light and dark, with nothing from elsewhere."""
    root = address if scheme == "http" else site.as_uri()
    options = {"viewport": {"width": PHONE, "height": 844}, "color_scheme": theme}
    visitor = Visitor(browser, root, **options)
    tab = visitor.open("book/index.html")
    chat = tab.locator("minillm-chat")
    chat.scroll_into_view_if_needed()
    chat.get_by_role("button", name="你是谁？").click()
    chat.locator(".minillm-log[aria-busy=false] .minillm-assistant").wait_for()
    assert lab.READER.name in chat.get_by_role("log").inner_text()
    assert tab.evaluate("() => document.scrollingElement.scrollWidth") <= PHONE
    seen = tab.evaluate(COLOURS)
    assert seen["text"][0] >= MIN_CONTRAST, seen["text"]
    assert not visitor.trouble
    visitor.context.close()
