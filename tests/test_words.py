"""The check finds words of the book that have parted from their evidence, and only those."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
import words
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

TABLE = {"tags": ["nbval-ignore-output"]}
SAY = {"tags": ["remove-input", "nbval-ignore-output"]}


def page(folder: Path, *cells: Any) -> list[str]:
    """Kinds of complaints about a page of these cells: Markdown, or (code, output, metadata)."""
    notebook = new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python"}})
    for cell in cells:
        if isinstance(cell, str):
            notebook.cells.append(new_markdown_cell(cell))
        else:
            code, output, metadata = cell
            made = new_code_cell(code, metadata=metadata)
            made.outputs = [new_output("stream", text=output)] if output else []
            notebook.cells.append(made)
    path = folder / "page.py"
    jupytext.write(notebook, path, fmt="py:percent")
    nbformat.write(notebook, path.with_suffix(".ipynb"))
    words.read.cache_clear()
    return [complaint.kind for complaint in words.complaints(path)]


RUN = ("show.table(rows)", "chain 0.80\nadd 0.53\n我是小满。", TABLE)


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("直接做减法，四题要错三题左右，加法也只对七到九成。", "text claim"),
        ("写成文本，答对率约 0.98；写成对话，几乎一题不对。", "text figure"),
        ("`chain` 对了近九成，`add` 只有一半。", "text claim"),
        ("掉 2 到 5 个奈特都有可能，换一次运行还会不同。", "text claim"),
        ("加法直接给出 16 道，数着算给出 23 道。", "text figure"),
        ("它的回答是“我是小满。”", "text quotation"),
        ("它编了一句“王芳住在月亮上”，又停了。", "text quotation"),
        ("从 400 步到 800 步之间突然学会了。", "text claim"),
        ("- 第三题说起了星期。", "text claim"),
        ("数着算比直接算好得多。", "text claim"),
    ],
)
def test_words_about_one_run_are_found(tmp_path: Path, sentence: str, kind: str) -> None:
    assert kind in page(tmp_path, "## 实验", RUN, sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "数着算用更长的回答换计算。",
        "词表有 1,024 个词元，模型有 869,504 个参数，2026 年训练，每步 8 行。",
        "和是 $0.9 + 0.05 = 0.95$。",
        "掩码是 1 的词元要学着说。",
        "`0.123` 是代码。",
    ],
)
def test_other_words_are_left_alone(tmp_path: Path, sentence: str) -> None:
    assert page(tmp_path, "## 实验", RUN, sentence) == []


def test_beside_outputs_that_are_always_the_same_words_may_compare(tmp_path: Path) -> None:
    exact = ("print(counts)", "2.06 bits", {})
    assert page(tmp_path, "## 手算", exact, "一元模型是 2.06 比特，仍比均匀的低。") == []
    assert page(tmp_path, "## 手算", exact, "一元模型是 2.07 比特。") == ["text figure"]
    assert page(tmp_path, "## 手算", RUN, "## 实验", exact, "它仍比均匀的低。") == []


def test_a_claim_rests_on_an_assertion_that_the_page_makes(tmp_path: Path) -> None:
    check = ("assert chain >= add + 0.2", "", {})
    claim = "数着算仍旧好得多。<!-- by: assert {} -->"
    assert page(tmp_path, "## 实验", RUN, check, claim.format("chain >= add + 0.2")) == []
    assert page(tmp_path, "## 实验", RUN, check, claim.format("chain >= add + 0.3")) == [
        "text evidence"
    ]


@pytest.mark.parametrize(
    "code",
    [
        "# assert chain >= add + 0.2",
        'print("assert chain >= add + 0.2")',
        "assert chain >= add + 0.25",
        "assert chain >= add + 0.2.real",
        "if chain:\n    print('assert chain >= add + 0.2')",
    ],
)
def test_what_only_looks_like_the_assertion_is_none(tmp_path: Path, code: str) -> None:
    claim = "数着算仍旧好得多。<!-- by: assert chain >= add + 0.2 -->"
    assert page(tmp_path, "## 实验", RUN, (code, "", {}), claim) == ["text evidence"]


def test_an_assertion_may_stand_anywhere_and_on_several_lines(tmp_path: Path) -> None:
    code = "for chain, add in pairs:\n    assert (\n        chain >= add + 0.2\n    ), 'why'"
    claim = "数着算仍旧好得多。<!-- by: assert ( chain >= add + 0.2 ) -->"
    assert page(tmp_path, "## 实验", RUN, (code, "", {}), claim) == []


@pytest.mark.parametrize(
    "text",
    [
        "open('x')",
        "config.os.system('true') == 0",
        "config.__name__ == 'minillm.config'",
        "math.__loader__ == 1",
        "().__class__ == 1",
        "[x for x in (1,)] == [1]",
        "(lambda: True)()",
        "__import__('os') == 1",
        "math.sqrt(4).real == 2 and round.__self__",
        "(x := 1) == 1",
        "f'{1}' == '1'",
        "max(1, 2) == 2",
        "import os",
    ],
)
def test_evidence_in_python_is_arithmetic_and_nothing_else(text: str) -> None:
    with pytest.raises((ValueError, SyntaxError)):
        words.is_true(text)


def test_arithmetic_may_use_the_configuration() -> None:
    assert words.is_true('config.TRAINING["default"]["pretrain"].accumulation_steps == 4')
    assert words.is_true("sum([1, 2]) == len((1, 2, 3)) and abs(-round(math.exp(1))) == 3")
    assert not words.is_true("60 * 0.9 == 55")
    assert not words.is_true("54")  # true to Python, but says nothing


def test_a_sentence_may_rest_on_a_work_of_the_bibliography(tmp_path: Path) -> None:
    def of(sentence: str) -> list[str]:
        return page(tmp_path, "## 实验", RUN, sentence)

    assert of("它把计算量减到一半，约 7.5 小时。<!-- by: @liu2025muon -->") == []
    assert of("它把计算量减到一半。<!-- by: @nobody2025 -->") == ["text evidence"]


def test_evidence_is_arithmetic_or_a_file_and_reasoning_covers_no_figure(tmp_path: Path) -> None:
    def of(sentence: str) -> list[str]:
        return page(tmp_path, "## 实验", RUN, sentence)

    assert of("一共 54 题，仍旧不多。<!-- by: 60 * 0.9 == 54 -->") == []
    assert of("一共 54 题，仍旧不多。<!-- by: 60 * 0.9 == 55 -->") == [
        "text evidence",
        "text figure",
    ]
    assert of("仍旧不多。<!-- by: open('x') -->") == ["text evidence"]
    assert of("仍旧不多。<!-- by: nonsense here -->") == ["text evidence"]
    assert of("三千分之一，3.14159。<!-- by: benchmarks/README.md -->") == ["text figure"]
    assert of("仍旧不多。<!-- by: benchmarks/NONE.md -->") == ["text evidence"]
    assert of("流畅仍旧不等于正确。<!-- by: reasoning -->") == []
    assert of("仍旧对 0.37。<!-- by: reasoning -->") == ["text figure"]


def test_sentences_of_code_assert_what_they_claim_and_type_no_figure(tmp_path: Path) -> None:
    def of(code: str) -> list[str]:
        return page(tmp_path, "## 实验", RUN, (code, "", SAY))

    assert of('show.say(f"`chain` 对了 {chain:.2f}。")') == ["say claim"]
    assert of('assert chain > add\nshow.say(f"`chain` 对了 {chain:.2f}，仍高于 {add:.2f}。")') == []
    assert of('assert chain > add\nshow.say("`chain` 对了 0.87。")') == ["say figure"]


def test_the_book_notices_what_is_taken_from_it(tmp_path: Path) -> None:
    """A copy of a chapter without one of its assertions, or with another figure, is no longer in
    order; the chapter itself is."""
    source = words.REPO / "book" / "05-model.py"
    text = source.read_text(encoding="utf-8")

    def of(changed: str) -> list[str]:
        copy = tmp_path / source.name
        copy.write_text(changed, encoding="utf-8")
        shutil.copy(source.with_suffix(".ipynb"), copy.with_suffix(".ipynb"))
        words.read.cache_clear()
        return [complaint.kind for complaint in words.complaints(copy)]

    assert of(text) == []
    lines = re.findall(r"^assert .*", text, re.M)
    bound = next(line for line in lines if f"<!-- by: {line} -->" in text)
    assert of(text.replace(f"\n{bound}\n", "\n")) == ["text evidence"]
    figure = "869,504"
    assert figure in text
    mutated = re.sub(rf"(?m)^(# .*){figure}", r"\g<1>869,514", text)
    assert set(of(mutated)) == {"text figure"}


@pytest.mark.parametrize("key", ["caption", "alt"])
def test_captions_and_alt_texts_know_no_figure_of_a_run(tmp_path: Path, key: str) -> None:
    def of(text: str, code: str = "show.bars(rates)") -> list[str]:
        figure = {"image": {"alt": "横条图"}, "figure": {"name": "fig-x", "caption": "两种问法"}}
        figure["figure" if key == "caption" else "image"][key] = text
        return page(tmp_path, "## 实验", (code, "", {"mystnb": figure}))

    assert of("两种问法的正确率") == []
    assert of("写成文本 0.98，写成对话接近 0") == [f"{key} figure", f"{key} claim"]
    assert of("写成文本的高出一截", "assert text > chat + 0.2\nshow.bars(rates)") == []
