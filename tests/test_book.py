"""The book: each notebook belongs to its Python file and was run, the prose keeps to its rules.

What needs a built site is in test_site.py; scripts/test.sh runs the chapters.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pages
import pytest
import screenshot
import seeds as benchmark_seeds
import words
import yaml
from PIL import Image

import minillm
from minillm.book import lab
from minillm.book.page import picture_path

REPO = Path(__file__).resolve().parent.parent
BOOK = REPO / "book"
SCRIPT = REPO / "scripts" / "run_notebooks.py"
SANITIZE = REPO / "tests" / "nbval_sanitize.cfg"

SOURCES = sorted(BOOK.glob("*.py"))
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))
CHAPTERS = [path for path in SOURCES if re.match(r"\d\d-", path.name)]
PROSE = [*SOURCES, *(p for p in sorted(BOOK.glob("*.md")) if p.stem != "bibliography")]

PARTS = ["开场", "手算", "真实代码", "实验", "弄坏它", "收尾"]
LAST_PARTS = ["小结", "练习", "延伸阅读"]
BOX = ["你将学会", "需要时间", "需要内存", "用到的模块"]
CELL_LINES = 22

# Wrong or second names of the glossary's terms, and phrases that say nothing.
BANNED = {
    "令牌": "词元",
    "词符": "词元",
    "标记化": "分词",
    "分词机": "分词器",
    "词汇表": "词表",
    "语料库": "语料",
    "掩膜": "掩码",
    "掩模": "掩码",
    "遮罩": "掩码",
    "预训炼": "预训练",
    "微调训练": "微调",
    "有监督微调": "监督微调",
    "指令微调": "监督微调",
    "直接偏好最优化": "直接偏好优化",
    "嵌入式层": "嵌入层",
    "旋转位置嵌入": "旋转位置编码",
    "前馈神经网络": "前馈网络",
    "交叉墒": "交叉熵",
    "困惑程度": "困惑度",
    "学习速率": "学习率",
    "热身": "预热",
    "梯度累计": "梯度累积",
    "梯度剪裁": "梯度裁剪",
    "检查站": "检查点",
    "断点恢复": "断点续训",
    "KV 缓存": "键值缓存",
    "贪婪解码": "贪心解码",
    "吞吐率": "吞吐量",
    "置信度区间": "置信区间",
    "思考链": "思维链",
    "思维链条": "思维链",
    "显然": "(leave it out)",
    "众所周知": "(leave it out)",
    "赋能": "(say what it does)",
    "强大的": "(say what it does)",
    "大幅提升": "(give the numbers)",
}

HAN = "\u4e00-\u9fff"
NEUTRAL = "〇"
"""Stands for what no rule looks at."""
PATHS = re.compile(r"(?<![\w.~*])/(?:home|work|tmp|root|Users|mnt|opt)/")


@dataclass(frozen=True)
class Page:
    """One page, as the rules see it."""

    path: Path

    @property
    def cells(self) -> list[Any]:
        return list(_read(self.path).cells)

    @property
    def code(self) -> list[Any]:
        return [c for c in self.cells if c.cell_type == "code" and c.source.strip()]

    @property
    def markdown(self) -> str:
        if self.path.suffix == ".md":
            return self.path.read_text(encoding="utf-8")
        return "\n\n".join(c.source for c in self.cells if c.cell_type == "markdown")

    def headings(self, level: int, below: str = "") -> list[str]:
        """Headings of a level; those below one of the level above it."""
        found, inside = [], not below
        for _, line in pages.outside_code(enumerate(self.markdown.splitlines())):
            if below and re.match(rf"#{{1,{level - 1}}} ", line):
                inside = line.lstrip("# ").strip() == below
            if inside and line.startswith("#" * level + " "):
                found.append(line[level + 1 :].strip())
        return found


@cache
def _read(path: Path) -> Any:
    return jupytext.read(path)


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of prose: without code, formulas, options, evidence and markup. What stands in their
    place is a letter where a space belongs beside it, else ``NEUTRAL``."""
    for number, line in pages.prose(pages.markdown(path)):
        line = pages.COMMENT.sub("", line)
        line = re.sub(r"\{[\w:]+\}`[^`]*`", NEUTRAL, line)
        line = re.sub(r"(`+)(?!`).+?\1", "A", line)
        line = re.sub(r"(?<!\\)\$[^$]+\$", "A", line)
        line = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", line)
        line = re.sub(r"<[^>]+>", NEUTRAL, line)
        # What a user or a model said is quoted as it was.
        line = re.sub(r"“[^”]*”|「[^」]*」", NEUTRAL, line)
        yield number, line.replace("*", "")


def complaints(find: Callable[[str], Iterator[str]], paths: list[Path] | None = None) -> str:
    return "\n".join(
        f"{path.relative_to(REPO)}:{number}: {what}"
        for path in (PROSE if paths is None else paths)
        for number, line in prose(path)
        for what in find(line)
    )


@cache
def glossary() -> dict[str, list[str]]:
    """Chinese term → its other names, the English one first."""
    entries: dict[str, list[str]] = {}
    block: list[str] = []
    path = BOOK / "glossary.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    inside = re.search(r"^(:{3,}|`{3,})\{glossary\}.*?\n(.*?)^\1$", text, re.M | re.S)
    for line in inside[2].splitlines() if inside else []:
        if line.startswith(" "):
            if block:
                entries[block[0]] = block[1:]
            block = []
        elif line.strip() and not line.startswith(":"):
            block.append(line.strip())
    return entries


# --- Notebooks and their Python files ---


def test_table_of_contents_lists_every_page() -> None:
    toc = yaml.safe_load((REPO / "_toc.yml").read_text(encoding="utf-8"))
    listed = [toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"])]
    assert sorted(listed) == sorted({f"book/{p.stem}" for p in [*PROSE, BOOK / "bibliography.md"]})


def test_each_notebook_has_its_python_file() -> None:
    assert [p.stem for p in SOURCES] == [p.stem for p in NOTEBOOKS]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_notebook_has_the_cells_of_its_python_file(path: Path) -> None:
    def inputs(cells: list[Any]) -> list[tuple[str, str, Any, Any]]:
        return [
            (c.cell_type, c.source, c.metadata.get("tags", []), c.metadata.get("mystnb", {}))
            for c in cells
        ]

    stored = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    assert inputs(stored.cells) == inputs(Page(path).cells), (
        f"run: bash scripts/book.sh --execute {path.stem}"
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_python_file_is_as_people_write_it(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    header = "\n".join(lines[: lines.index("# ---", 1)])
    assert "formats: ipynb,py:percent" in header
    assert "name: python3" in header
    assert "_filter:" not in header, "run scripts/run_notebooks.py, which takes this out"
    assert not [line for line in lines if line.startswith("# %%") and "\\u" in line]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_cell_was_run_in_order(path: Path) -> None:
    cells = [
        cell
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "code" and cell.source.strip()
    ]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        failed = any(output.output_type == "error" for output in cell.outputs)
        meant = "raises-exception" in cell.metadata.get("tags", [])
        assert failed == meant, f"cell {cell.execution_count}: {cell.source[:60]}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_pictures_say_what_they_show(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        if any(m.startswith("image/") for o in cell.get("outputs", []) for m in o.get("data", ())):
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert re.search(f"[{HAN}]", alt), f"no mystnb.image.alt: {cell.source[:60]}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_names_no_folder_of_a_machine(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        texts = [cell.source]
        for output in cell.get("outputs", []):
            texts += [output.get("text", ""), *output.get("traceback", [])]
            data = output.get("data", {})
            texts += [str(value) for mime, value in data.items() if not mime.startswith("image/")]
        for text in texts:
            found = PATHS.search(text)
            assert not found, f"{text[max(0, found.start() - 30) : found.end() + 40]!r}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_cells_are_short_and_plain(path: Path) -> None:
    for number, cell in enumerate(Page(path).code, 1):
        where = f"{path.name}, code cell {number}: {cell.source[:60]}"
        lines = cell.source.splitlines()
        # Imports are a list, not something to be understood line by line.
        assert sum(not line.startswith(("import ", "from ")) for line in lines) <= CELL_LINES, where
        assert not re.search(r"^\s*[!%]\s*(pip|conda|uv)\b", cell.source, re.M), where
        assert "filterwarnings" not in cell.source, where
        assert not re.search(r"tqdm\.(auto|notebook)", cell.source), where
        assert not re.search(r"#\s*(NBVAL_|PYTEST_VALIDATE)", cell.source), where
        tags = cell.metadata.get("tags", [])
        assert not {"nbval-skip", "nbval-raises-exception"} & set(tags), where


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_page_is_also_a_script(path: Path) -> None:
    """`python book/PAGE.py` runs it: no magics, nothing of IPython's that a script lacks."""
    ast.parse(path.read_text(encoding="utf-8"))
    for cell in Page(path).code:
        assert not re.search(r"^\s*[%!?]|get_ipython|^\s*display\(", cell.source, re.M), cell.source


def test_most_outputs_are_compared() -> None:
    # Sentences that code writes and figures speak of one run; what they claim is asserted.
    cells = [
        c
        for path in SOURCES
        for c in Page(path).code
        if "show.say(" not in c.source and "figure" not in c.metadata.get("mystnb", {})
    ]
    ignored = [c for c in cells if "nbval-ignore-output" in c.metadata.get("tags", [])]
    assert len(ignored) <= len(cells) // 5


# --- Parts of a chapter ---


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_chapter_has_its_parts(path: Path) -> None:
    page = Page(path)
    assert page.headings(2) == PARTS
    assert [h for h in page.headings(3, below="收尾") if h in LAST_PARTS] == LAST_PARTS
    assert len(page.headings(1)) == 1
    start = page.cells[0].source
    assert re.match(r"\(sec-[\w-]+\)=\n# \S", start), "the first cell: (sec-…)= and the title"
    box = re.search(r"^:{3,}\{admonition\} 本章\n:class: tip\n(.*?)^:{3,}$", start, re.M | re.S)
    assert box, "no box 本章 below the title"
    assert [item for item in BOX if f"**{item}**：" in box[1]] == BOX


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_chapter_has_exercises_with_folded_solutions(path: Path) -> None:
    text = Page(path).markdown
    blocks = re.findall(
        r"^:{3,}\{(exercise|solution|solution-start)\}(.*)\n:(\w+): (.*)", text, re.M
    )
    labels = [
        value for kind, _, option, value in blocks if kind == "exercise" and option == "label"
    ]
    solved = [label.strip() for kind, label, *_ in blocks if kind != "exercise"]
    assert 3 <= len(labels) <= 8
    assert all(label.startswith("ex-") for label in labels)
    assert solved == labels, "each exercise is followed by its solution"
    folded = [(option, value) for kind, _, option, value in blocks if kind != "exercise"]
    assert set(folded) == {("class", "dropdown")}
    assert text.count("{solution-start}") == text.count("{solution-end}")


def test_each_symptom_leads_to_a_section_that_says_what_to_do() -> None:
    text = Page(BOOK / "normal.py").markdown
    listed = re.findall(r"^\|.*\]\((sec-normal-[\w-]+)\) \|$", text, re.M)
    found = re.split(r"^\((sec-normal-[\w-]+)\)=$", text, flags=re.M)
    sections = dict(zip(found[1::2], found[2::2], strict=True))
    assert len(listed) >= 10
    assert set(listed) == set(sections)
    for label, section in sections.items():
        section = re.split("^## ", section, maxsplit=1, flags=re.M)[0]
        parts = re.findall(r"^\*\*(看到|为什么|确认|怎么办)\*\*：", section, re.M)
        assert parts == ["看到", "为什么", "确认", "怎么办"], label


def test_labels_are_used_once() -> None:
    seen: dict[str, str] = {}
    for path in PROSE:
        text = path.read_text(encoding="utf-8")
        labels = re.findall(r"^(?:# )?\(([\w-]+)\)=$", text, re.M)
        labels += re.findall(r"^(?:# )?:(?:label|name): (\S+)", text, re.M)
        labels += [
            c.metadata["mystnb"]["figure"]["name"]
            for c in (Page(path).cells if path.suffix == ".py" else [])
            if "name" in c.metadata.get("mystnb", {}).get("figure", {})
        ]
        for label in labels:
            assert label not in seen, f"{label}: in {seen[label]} and {path.name}"
            seen[label] = path.name


def test_citations_are_in_the_bibliography() -> None:
    keys = re.findall(r"^@\w+\{([^,]+),", (BOOK / "refs.bib").read_text(encoding="utf-8"), re.M)
    assert len(keys) == len(set(keys))
    uncited = set(keys)
    for path in PROSE:
        for cited in re.findall(r"\{cite[\w:]*\}`([^`]+)`", path.read_text(encoding="utf-8")):
            found = {key.strip() for key in cited.split(",")}
            assert found <= set(keys), f"{path.name}: {cited}"
            uncited -= found
    assert not uncited


# --- Words ---


def test_glossary_gives_english_names() -> None:
    missing = [
        term for term, names in glossary().items() if not re.match("[A-Za-z]", "".join(names[:1]))
    ]
    assert not missing


def test_new_terms_are_in_the_glossary() -> None:
    wrong = []
    for path in CHAPTERS:
        for number, line in pages.markdown(path):
            for term, name in re.findall(rf"\*\*([^*]*[{HAN}][^*]*)\*\*（([A-Za-z][^）]*)）", line):
                names = [n.casefold() for n in glossary().get(term, [])]
                english = re.split("[，、；,(]", name)[0].strip().casefold()
                if english not in [re.split(r" ?\(", n)[0] for n in names]:
                    wrong.append(f"{path.name}:{number}: {term}（{name}）: glossary has {names}")
    assert not wrong, "\n".join(wrong)


def test_terms_have_one_name() -> None:
    def find(line: str) -> Iterator[str]:
        for wrong, right in BANNED.items():
            if wrong in line:
                yield f"{wrong}: write {right}"

    assert not (said := complaints(find)), said


def test_no_exclamation_marks() -> None:
    def find(line: str) -> Iterator[str]:
        if "！" in line and not line.lstrip().startswith("|"):
            yield "！"

    assert not (said := complaints(find)), said


def test_full_width_punctuation() -> None:
    def find(line: str) -> Iterator[str]:
        for found in re.finditer(rf"[{HAN}][,.:;!?()]|[,;:!?()][{HAN}]", line):
            yield f"half-width punctuation in {line[max(0, found.start() - 5) : found.end() + 5]!r}"

    assert not (said := complaints(find)), said


def test_space_between_chinese_and_latin() -> None:
    def find(line: str) -> Iterator[str]:
        for found in re.finditer(rf"[{HAN}][A-Za-z0-9]|[A-Za-z0-9%][{HAN}]", line):
            yield f"no space in {line[max(0, found.start() - 5) : found.end() + 5]!r}"

    assert not (said := complaints(find)), said


@pytest.mark.parametrize("path", PROSE, ids=lambda p: p.stem)
def test_words_rest_on_their_evidence(path: Path) -> None:
    """Three kinds of statement: see CONTRIBUTING.md."""
    assert not (found := words.complaints(path)), "\n".join(map(str, found))


def test_documents_show_the_scores_of_all_seeds() -> None:
    seeds = json.loads((BOOK / "results" / "seeds.json").read_bytes())
    seen = {(run["seed"], run["arithmetic"]) for run in seeds["runs"]}
    assert len(seen) == len(seeds["runs"])
    assert len({seed for seed, _ in seen}) >= 2
    assert len({arithmetic for _, arithmetic in seen}) == 2
    for table in benchmark_seeds.TABLES:
        text = table.document.read_text(encoding="utf-8")
        assert text.count("<!-- seeds -->") == text.count("<!-- /seeds -->") == 1, table.document
        written = benchmark_seeds.with_table(text, table, seeds["scores"])
        assert text == written, "run: python benchmarks/seeds.py --no-train"


def test_the_picture_in_the_readmes_is_of_the_stored_outputs() -> None:
    taken = Image.open(screenshot.PICTURE).info.get(screenshot.KEY)
    assert taken == screenshot.outputs_hash(), (
        "run: bash scripts/book.sh && python scripts/screenshot.py"
    )


def widgets_of(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The names and options of the widgets that a page has as directives."""
    lines = [line for _, line in pages.markdown(path)]
    for found in re.finditer(r"^:::\{minillm\} (\w+)\n((?::\w+:.*\n)*)", "\n".join(lines), re.M):
        options = re.findall(r"^:(\w+):(.*)$", found[2], re.M)
        yield found[1], {key: value.strip() for key, value in options}


def test_every_widget_has_a_picture_of_what_it_begins_with() -> None:
    found = [(path, *widget) for path in PROSE for widget in widgets_of(path)]
    expected = [picture_path(path, name) for path, name, _ in found]
    assert len(expected) >= 7
    assert sorted(expected) == sorted((BOOK / "images").rglob("*.png"))
    for picture, (_, _, options) in zip(expected, found, strict=True):
        alt = options.pop("alt", "")
        assert re.fullmatch(f"(?=.*[{HAN}]{{10}}).*。", alt), f"no :alt: for {picture.name}"
        assert picture.stat().st_size <= screenshot.WIDGET_BYTES, picture.name
        image = Image.open(picture)
        width, height = (pixels / screenshot.WIDGET_SCALE for pixels in image.size)
        assert width == screenshot.WIDGET_WIDTH, picture.name
        assert height <= screenshot.WIDGET_HEIGHT, picture.name
        assert image.info.get(screenshot.KEY) == screenshot.settings_hash(options), (
            f"run: bash scripts/book.sh && python scripts/screenshot.py {picture.stem}"
        )


def test_floors_of_the_book_are_below_every_run() -> None:
    scores = json.loads((BOOK / "results" / "seeds.json").read_bytes())["scores"]
    for stage in ("sft", "dpo", "identity"):
        for kind, floor in lab.FLOORS.items():
            assert scores[stage][f"answer {kind}"]["min"] >= floor, (stage, kind)


# --- The tools ---

HEADER = """# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb,-all
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

"""
SAMPLE = """# %% mystnb={"image": {"alt": "\\u635f\\u5931"}}
import sys, time
print(time.perf_counter(), "s")
print("\\r 50%|#    | 1/2 [00:01<00:01]", end="", file=sys.stderr)
print("\\r100%|#####| 2/2 [00:02<00:00]", file=sys.stderr)

# %% tags=["raises-exception"]
import json
json.loads("[")
"""


def run_page(folder: Path, code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs a page of a small book of its own."""
    for source in (SCRIPT, SANITIZE):
        (folder / source.parent.name).mkdir(exist_ok=True)
        shutil.copy(source, folder / source.parent.name)
    for name in ("_config.yml", "_toc.yml"):
        (folder / name).touch()
    (folder / "book").mkdir(exist_ok=True)
    (folder / "book" / "page.py").write_text(HEADER + code, encoding="utf-8")
    script = folder / SCRIPT.parent.name / SCRIPT.name
    # As from a shell: minillm.book.lab also keeps quiet under pytest.
    shell = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    command = [sys.executable, script, *options, "page"]
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=shell)


def test_running_a_page_again_changes_no_byte(tmp_path: Path) -> None:
    notebook = tmp_path / "book" / "page.ipynb"
    assert run_page(tmp_path, SAMPLE).returncode == 0
    first = notebook.read_bytes()
    outputs = [cell["outputs"] for cell in json.loads(first)["cells"]]
    assert outputs[0][1]["text"] == ["100%|#####| 2/2\n"]
    assert str(tmp_path) not in first.decode()
    assert sys.base_prefix not in first.decode()
    source = (tmp_path / "book" / "page.py").read_text(encoding="utf-8")
    assert '"alt": "损失"' in source
    assert "filter" not in source

    assert run_page(tmp_path, SAMPLE).returncode == 0
    assert notebook.read_bytes() == first


OF_A_RUN = """# %%
from minillm.book import lab

lab.start()
assert lab.SEED > 0

# %% tags=["nbval-ignore-output"]
lab.SEED

# %%
1024
"""


def test_another_seed_runs_a_second_book(tmp_path: Path) -> None:
    assert run_page(tmp_path, OF_A_RUN).returncode == 0
    notebook = tmp_path / "book" / "page.ipynb"
    first = notebook.read_bytes()
    done = run_page(tmp_path, OF_A_RUN, "--seed", "7")
    assert done.returncode == 0, done.stderr
    assert "1 assertions hold" in done.stdout
    assert notebook.read_bytes() == first
    second = tmp_path / ".cache" / "book-seed-7" / "book" / "page.ipynb"
    cells = json.loads(second.read_bytes())["cells"]
    assert cells[0]["outputs"][0]["text"][-1] == f"minillm {minillm.__version__}, seed 7\n"
    assert cells[1]["outputs"][0]["data"]["text/plain"] == ["7"]

    kept = second.with_name("other.ipynb")
    for book in (notebook.parent, second.parent):
        (book / "other.py").write_text("# %%\n1\n", encoding="utf-8")
    kept.write_text("run before", encoding="utf-8")
    notebook.with_name("other.ipynb").write_text("of seed 42", encoding="utf-8")
    assert run_page(tmp_path, OF_A_RUN, "--seed", "7").returncode == 0
    assert kept.read_text("utf-8") == "run before"
    notebook.with_name("other.py").write_text("# %%\n2\n", encoding="utf-8")
    assert run_page(tmp_path, OF_A_RUN, "--seed", "7").returncode == 0
    assert kept.read_text("utf-8") == "of seed 42"


@pytest.mark.parametrize("shown", ["lab.SEED", 'show.bars({"a": float(lab.SEED)}, "steps")'])
def test_an_output_that_depends_on_the_seed_must_say_so(tmp_path: Path, shown: str) -> None:
    code = OF_A_RUN.replace("import lab\n", "import lab, show\n")
    code = code.replace(' tags=["nbval-ignore-output"]\nlab.SEED', f"\n{shown}")
    assert run_page(tmp_path, code).returncode == 0
    done = run_page(tmp_path, code, "--seed", "7")
    assert done.returncode == 1
    assert done.stderr.strip().startswith(
        f"error: page.py, code cell 2 ({shown}): its output depends on the seed"
    )


def test_every_assertion_must_hold_under_another_seed(tmp_path: Path) -> None:
    code = OF_A_RUN.replace("lab.SEED > 0", "lab.SEED == 42")
    assert run_page(tmp_path, code).returncode == 0
    done = run_page(tmp_path, code, "--seed", "7")
    assert done.returncode == 1
    assert done.stderr.strip().startswith(
        "error: page.py, code cell 1 (from minillm.book import lab)"
    )


def test_a_page_does_not_store_whether_a_model_was_trained(tmp_path: Path) -> None:
    code = "# %%\nfrom minillm.book import lab\n\nassert lab.QUIET\n"
    assert run_page(tmp_path, code).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--exectue"], "unknown argument --exectue: see bash scripts/book.sh --help"),
        (["--serve", "http"], "--serve 'http': a port is a number up to 65535"),
        (["--serve", "70000"], "--serve '70000': a port is a number up to 65535"),
        (["--serve", "1", "2"], "--serve takes one port: see bash scripts/book.sh --help"),
        (["--execute", "--seed"], "--seed '': a seed is a whole number, such as --seed 7"),
        (["--execute", "--seed", "07-sft"], "--seed '07-sft': a seed is a whole number"),
        (["--execute", "--seed", "7", "03-bpe"], "no page 03-bpe: choose from 01-environment.py "),
        (["--execute", "03-bpe"], "no page 03-bpe: choose from 01-environment.py "),
    ],
)
def test_book_sh_says_what_is_wrong_with_an_argument(arguments: list[str], message: str) -> None:
    command = ["bash", str(REPO / "scripts" / "book.sh"), *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stdout == ""


def test_book_sh_says_at_once_that_a_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = ["bash", str(REPO / "scripts" / "book.sh"), "--serve", port]
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --serve {port}: another program uses this port")
    assert done.stdout == ""


def test_unknown_page_is_named(tmp_path: Path) -> None:
    run_page(tmp_path, "# %%\n1\n")
    script = tmp_path / SCRIPT.parent.name / SCRIPT.name
    done = subprocess.run([sys.executable, script, "pag"], capture_output=True, encoding="utf-8")
    assert done.returncode == 1
    assert done.stderr.strip() == "error: no page pag in book/: choose from page"


def test_failing_page_keeps_its_notebook(tmp_path: Path) -> None:
    notebook = tmp_path / "book" / "page.ipynb"
    notebook.parent.mkdir()
    notebook.write_text(
        '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', encoding="utf-8"
    )
    before = notebook.read_bytes()
    done = run_page(tmp_path, "# %%\nx = 1\n\n# %%\nassert x == 2, 'two'\n")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "error: page.py, code cell 2 (assert x == 2, 'two'): AssertionError: two"
    )
    assert notebook.read_bytes() == before


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("torch 2.10.0+cpu", "torch 2.12.1", True),
        ("numpy 2.2.6\nminillm 0.1.0", "numpy 2.4.6\nminillm 0.2.0", True),
        ("<object at 0x7f0cf12b8710>", "<object at 0x7effaa2b8710>", True),
        (" 12%|█ | 3/25 [00:01<00:09, 2.3it/s]", "100%|██| 25/25", True),
        ("took 12.3 s", "took 7 s", True),
        ("1,204 tokens/s", "88 tokens/s", True),
        ("0.12345678", "0.12345699", True),
        ("0.123456", "0.123457", False),
        ("loss 2.31", "loss 2.32", False),
        ("6400 tokens", "6391 tokens", False),
        ("<b>词元</b>", "<b>词</b>", False),
        ("0x1F600", "0x1F601", False),
    ],
)
def test_sanitizers_let_through_what_matters(one: str, other: str, equal: bool) -> None:
    import re as regex

    pairs = regex.findall(
        r"^regex: (.*)$\n^replace: (.*)$", SANITIZE.read_text(encoding="utf-8"), regex.M
    )
    for pattern, replacement in pairs:
        one, other = regex.sub(pattern, replacement, one), regex.sub(pattern, replacement, other)
    assert (one == other) == equal
