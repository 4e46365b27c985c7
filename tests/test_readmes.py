"""The READMEs: what they show is what the project's files say, and their picture what was recorded.

That their commands are the same, and that the files and the rooms of the package that they name are
there, is in test_scripts.py; that the scores are those of all seeds, in test_book.py.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import moving_picture
import pybtex.database
import pytest
import words
import yaml

import minillm
from minillm.book import lab

REPO = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "README.zh.md")
SVG = "{http://www.w3.org/2000/svg}"
documents = pytest.mark.parametrize("document", DOCUMENTS)
languages = pytest.mark.parametrize("language", moving_picture.PICTURES)


def text_of(document: str) -> str:
    return (REPO / document).read_text(encoding="utf-8")


# --- Words and figures ---


@documents
def test_figures_rest_on_their_evidence(document: str, tmp_path: Path) -> None:
    """As in the book, see CONTRIBUTING.md; the table of scores is written from seeds.json."""
    text = re.sub(r"<!-- seeds -->.*?<!-- /seeds -->", "", text_of(document), flags=re.S)
    text = re.sub(r"^\| \d+ \|", "| |", text, flags=re.M)  # the numbers of the chapters
    copy = tmp_path / document
    copy.write_text(text, encoding="utf-8")
    assert not (found := words.complaints(copy)), "\n".join(map(str, found))


@documents
def test_nothing_is_left_to_be_filled_in(document: str) -> None:
    assert not re.findall(r"@[A-Z_]+@", text_of(document))


@documents
def test_the_conversation_is_the_recorded_one(document: str) -> None:
    talk = moving_picture.load().talk
    said = "".join(f"> {question}\n{answer}\n" for question, answer in talk)
    assert f"```text\n{said}```\n" in text_of(document)


def test_the_default_takes_as_long_as_the_script_says() -> None:
    said = re.search(
        r"about (\d+) hours on 2 cores .*\((\d+) million tokens at some (\d+) a second\)",
        (REPO / "scripts" / "run.sh").read_text(encoding="utf-8"),
    )
    assert said
    hours, millions, rate = map(int, said.groups())
    assert round(millions * 1e6 / rate / 3600) in (hours - 1, hours)
    english, chinese = (text_of(document).replace("\n", " ") for document in DOCUMENTS)
    assert f"about {hours} hours: {millions} million tokens at some {rate} a second" in english
    assert f"要 {hours} 小时左右：{millions}00 万个词元，每秒约 {rate} 个" in chinese


# --- Links ---


@documents
def test_every_chapter_is_listed_once_and_in_order(document: str) -> None:
    chapters = sorted(path.name for path in (REPO / "book").glob("[0-9][0-9]-*.ipynb"))
    rows = re.findall(r"^\| (\d+) \| \[[^\]]+\]\(book/([\w.-]+)\) \|", text_of(document), re.M)
    assert [int(number) for number, _ in rows] == list(range(1, len(chapters) + 1))
    assert [name for _, name in rows] == chapters


def anchors(path: Path) -> set[str]:
    """What GitHub calls the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "document", [*DOCUMENTS, "CONTRIBUTING.md", "benchmarks/README.md", "rustbpe/README.md"]
)
def test_links_lead_somewhere(document: str) -> None:
    path = REPO / document
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(document)):
        if not target.startswith("https://"):
            file, _, anchor = target.partition("#")
            there = path.parent / file if file else path
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


# --- Citation ---


def test_the_citation_is_of_this_version() -> None:
    about = yaml.safe_load(text_of("CITATION.cff"))
    assert about["version"] == minillm.__version__
    assert about["license"] == "MIT"
    for document in DOCUMENTS:
        fence = re.search(r"```bibtex\n(.*?)```", text_of(document), re.S)
        assert fence
        (entry,) = pybtex.database.parse_string(fence[1], "bibtex").entries.values()
        assert {key: entry.fields[key] for key in ("title", "version", "license")} == {
            key: about[key] for key in ("title", "version", "license")
        }
        assert entry.fields["year"] == str(about["date-released"].year)
        assert str(entry.persons["author"][0]) == f"{{{about['authors'][0]['name']}}}"


# --- The moving picture ---


@languages
def test_the_stored_picture_is_drawn_from_the_recording(language: str) -> None:
    stored = moving_picture.PICTURES[language].read_text(encoding="utf-8")
    drawn = moving_picture.draw(moving_picture.load(), language)
    assert stored == drawn, "run: python scripts/moving_picture.py"


@languages
def test_the_picture_is_small_and_loads_nothing(language: str) -> None:
    content = moving_picture.PICTURES[language].read_bytes()
    assert len(content) < 100_000
    assert not re.findall(rb"<script|href|url\(|@import|\bon\w+=", content)


@languages
def test_what_was_said_is_real_text_in_the_picture(language: str) -> None:
    recording = moving_picture.load()
    tree = ElementTree.fromstring(moving_picture.draw(recording, language))
    lines = [element.text or "" for element in tree.iter(f"{SVG}text")]
    for question, answer in recording.talk:
        assert f"> {question}" in lines
        assert answer in "".join(lines)
    for moment in recording.moments[1:]:
        assert any(f"{moment.step:,}" in line for line in lines)


def test_every_rule_of_motion_fills_one_cycle() -> None:
    drawn = moving_picture.draw(moving_picture.load(), "zh")
    tree = ElementTree.fromstring(drawn)
    used = {
        name
        for element in tree.iter()
        for name in element.get("class", "").split()
        if re.fullmatch(r"m\d+", name)
    }
    rules = dict(re.findall(r"@keyframes (m\d+) \{(.*)\}\n", drawn))
    assert used == set(rules)
    for frames in rules.values():
        at = [float(percent) for percent in re.findall(r"([\d.]+)% \{", frames)]
        assert at == sorted(set(at))
        assert at[0] == 0
        assert at[-1] <= 100
    assert len(set(re.findall(r"animation: m\d+ ([\d.]+)s", drawn))) == 1
    assert "prefers-reduced-motion" in drawn


def test_the_recording_is_of_the_stages_in_order() -> None:
    recording = moving_picture.load()
    assert [curve.stage for curve in recording.curves] == ["pretrain", "sft", "dpo"]
    came = moving_picture.times(recording)
    assert came[0] == 0
    assert came == sorted(set(came))
    for curve in recording.curves:
        steps = [step for step, _ in curve.points]
        assert steps == sorted(set(steps))
        assert steps[0] == 1
        assert steps[-1] == curve.steps
        assert curve.points[-1][1] < curve.points[0][1]
    assert recording.parameters == lab.fresh().num_parameters()


@pytest.mark.usefixtures("small_lab")
def test_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving_picture, "ASKED_AT", {"pretrain": (1,), "sft": (), "dpo": ()})
    recording = moving_picture.record()
    assert [(m.stage, m.step) for m in recording.moments] == [
        *[("pretrain", 0), ("pretrain", 1), ("pretrain", 3), ("sft", 3), ("dpo", 3)]
    ]
    assert [question for question, _ in recording.talk] == list(moving_picture.QUESTIONS)
    log = lab.ladder("pretrain").log
    means = [sum(e["loss"] for e in log[:n]) / n for n in (1, 2, 3)]
    assert recording.curves[0].points == [(n + 1, round(m, 3)) for n, m in enumerate(means)]
    for language in moving_picture.PICTURES:
        ElementTree.fromstring(moving_picture.draw(recording, language))


def test_lines_are_as_wide_as_they_may_be() -> None:
    assert moving_picture.wrapped("一二三四五六", 4) == ["一二三四", "五六"]
    assert moving_picture.wrapped("一二三四。五", 4) == ["一二三四。", "五"]
    assert moving_picture.wrapped("ab一", 2.2) == ["ab一"]
    assert moving_picture.cut("一二三四五", 4) == "一二三…"
    assert moving_picture.cut("一\n二", 4) == "一 二…"
