"""The widgets that show what is inside show what the package computes."""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from PIL import Image
from test_page import SCRIPTS, as_stored, lively
from visitor import Visitor

from minillm.book import page
from minillm.microworld import exercises, scoring, words
from minillm.model import generate
from minillm.model.generate import Sampling
from minillm.model.transformer import Transformer, document_mask
from minillm.tokenizer import bpe
from minillm.tokenizer.vocabulary import SPLIT_PATTERN, RustBPETokenizer
from minillm.training import dataset, packing, reinforcement

PAGE = """<!DOCTYPE html><html lang="zh" data-theme="light"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>t</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="minillm/widgets.css"><script defer src="minillm/start.js"></script>
{elements}</html>"""
NAMES = ("ngram", "merges", "mask", "glass", "sampler", "samples")
TEXT = "小猫和小狗一起去公园玩，看见6只鸟。"
LINES = ("小熊去公园。", "小熊看见帽子。", "小鸭去河边。", "小鸭看见勺子。", "小熊看见勺子。")


def random_texts(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    pieces = [
        *"小猫狗看见鸟公园去玩一起",
        "，",
        "。",
        "12",
        "345",
        " a",
        "cat",
        "it's",
        "\U0001f430",
        "龘",
    ]
    return ["".join(draw.choices(pieces, k=draw.randint(1, 14))) for _ in range(count)]


@pytest.fixture(scope="module")
def shipped() -> RustBPETokenizer:
    """A vocabulary that stands in for the shipped one: other texts, other merges."""
    return RustBPETokenizer.train(random_texts(300, seed=1), 500)


@pytest.fixture(scope="module")
def model() -> Transformer:
    return as_stored(lively(), "I8")


@pytest.fixture(scope="module")
def island(
    tmp_path_factory: pytest.TempPathFactory, shipped: RustBPETokenizer, model: Transformer
) -> Path:
    """A page with the widgets, on a lively random model."""
    folder = tmp_path_factory.mktemp("island")
    shutil.copytree(SCRIPTS, folder / "minillm")
    weights = folder / "minillm" / "weights"
    tokenizers = {"tiny": small.tokenizer(), "shipped": shipped}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page.lab, "tokenizer", small.tokenizer)
        patch.setattr(RustBPETokenizer, "load", lambda: shipped)
        page.write_vocabularies(weights)
    written = weights.joinpath("vocabularies.js").read_text(encoding="utf-8")
    assert list(json.loads(written.partition("=")[2].rstrip("\n;"))) == list(tokenizers)
    names = ("fresh", "pretrain", "sft")
    page.write_index(weights, {name: {"stage": name, "step": None} for name in names})
    for name in names:
        content = page.page_weights(lively(), small.tokenizer())
        page._write_script(weights / f"{name}.js", f"MiniLLM.models['{name}'].weights", content)
    page.write_verifier(weights)
    settings = {
        "ngram": {"text": "|".join(LINES), "start": "小熊"},
        "merges": {"text": TEXT, "vocabulary": "tiny"},
        "glass": {"text": TEXT, "model": "pretrain", "plain": ""},
        "sampler": {"text": "小猫", "model": "sft"},
        "samples": {"question": "3减1等于多少？", "before": "pretrain", "after": "sft"},
    }
    Image.new("RGB", (30, 20), "red").save(folder / "picture.png")
    still = '<img src="picture.png" alt="一张画" loading="lazy"><p>静止的画面</p>'
    elements = [page.element(n, still, settings.get(n, {})) for n in NAMES]
    text = PAGE.replace("{elements}", "\n".join(elements))
    (folder / "page.html").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def visitor(browser: Any, island: Path) -> Iterator[Visitor]:
    """Opened from a file, where scripts may fetch nothing."""
    visitor = Visitor(browser, island.as_uri(), viewport={"width": 1000, "height": 700})
    visitor.open("page.html")
    yield visitor
    assert not visitor.trouble
    visitor.context.close()


def ids_in(widget: Any, kind: str = ".minillm-token") -> list[int]:
    found: list[int] = widget.locator(kind).evaluate_all("all => all.map((e) => +e.dataset.id)")
    return found


def slider(widget: Any, name: str) -> Any:
    return widget.locator(".minillm-slider", has_text=name).locator("input")


def at_depths(widget: Any, depths: list[int]) -> list[list[int]]:
    """The ids of the tokens after so many merges."""
    found: list[list[int]] = slider(widget, "合并").evaluate(
        """(e, depths) => depths.map((depth) => {
          e.value = depth;
          e.dispatchEvent(new Event("input"));
          const chips = e.closest(".minillm").querySelectorAll(".minillm-token");
          return [...chips].map((chip) => +chip.dataset.id);
        })""",
        depths,
    )
    return found


def drag(widget: Any, name: str, value: float) -> None:
    slider(widget, name).evaluate(
        "(e, value) => { e.value = value; e.dispatchEvent(new Event('input')); }", value
    )


# --- N-grams ---


def after(before: str, order: int, lines: tuple[str, ...] = LINES) -> dict[str, float]:
    """p(next | before) of an n-gram model without smoothing: of the longest context that was seen,
    at most ``order - 1`` characters."""
    texts = [f"^{line}$" for line in lines]
    context = f"^{before}"[-(order - 1) :] if order > 1 else ""
    while True:
        found = Counter(
            text[i + len(context)]
            for text in texts
            for i in range(len(text) - len(context))
            if text.startswith(context, i) and i + len(context) > 0
        )
        if found:
            return {character: count / found.total() for character, count in found.items()}
        context = context[1:]


def ngram_bars(widget: Any) -> dict[str, float]:
    found = widget.locator(".minillm-bar").evaluate_all(
        "all => all.map((e) => [e.dataset.id, +e.dataset.p])"
    )
    return dict(found)


@pytest.mark.parametrize("order", [1, 2, 3, 6])
def test_the_next_characters_are_counted(visitor: Visitor, order: int) -> None:
    widget = visitor.widget("ngram")
    drag(widget, "n", order)
    for before in ("", "小", "小熊", "小熊看见", "小鸭看见帽子。", "小猫看见", "龘"):
        widget.get_by_label("开头").fill(before)
        expected = after(before, order)
        assert (
            ngram_bars(widget).items() <= {c: pytest.approx(p) for c, p in expected.items()}.items()
        )
        assert len(ngram_bars(widget)) == min(8, len(expected))


def test_what_was_never_seen_is_asked_of_fewer_characters(visitor: Visitor) -> None:
    widget = visitor.widget("ngram")
    drag(widget, "n", 4)
    widget.get_by_label("开头").fill("小猫看见")
    assert "“猫看见”没有出现过，退一步：“看见”后面数到 3 次，2 种字" in widget.inner_text()
    widget.get_by_role("button", name="帽").click()
    assert widget.get_by_label("开头").input_value() == "小猫看见帽"
    widget.get_by_label("要数的文字").fill("大猫看见月亮。")
    assert "“猫看见”后面数到 1 次，1 种字" not in widget.inner_text()
    widget.get_by_label("开头").fill("小猫看见")
    assert "“猫看见”后面数到 1 次，1 种字" in widget.inner_text()
    widget.get_by_label("要数的文字").fill("  \n ^$ ")
    widget.get_by_label("开头").fill("")
    assert "“（句首）”后面数到 1 次" in widget.inner_text()  # an empty text ends at once
    widget.get_by_label("要数的文字").fill("")
    assert "先在上面的框里写一行字" in widget.inner_text()
    widget.get_by_role("button", name="写一句").click()
    assert not visitor.trouble


@pytest.mark.parametrize("order", [2, 3, 6])
def test_written_sentences_can_be_written_and_copies_are_told(visitor: Visitor, order: int) -> None:
    widget = visitor.widget("ngram")
    drag(widget, "n", order)
    widget.get_by_label("开头").fill("小")
    widget.get_by_role("button", name="写 20 句").click()
    lines = [line.inner_text() for line in widget.locator(".minillm-tally li").all()]
    assert len(lines) == 20
    for line in lines:
        kind, text = line[:3].strip(), line[3:]
        assert kind == ("照抄" if text in LINES else "新的")
        for i in range(1, len(text)):
            assert text[i] in after(text[:i], order), (text, i)
        assert "$" in after(text, order)
    copied = sum(line.startswith("照抄") for line in lines)
    assert f"照抄的 {copied} 句，占 {copied / 20:.1%}" in widget.inner_text()
    assert len(set(lines)) > 1


# --- Merges ---


def depths(tokenizer: RustBPETokenizer) -> list[int]:
    merges = len(tokenizer.mergeable_ranks) - 256
    return [0, 1, 2, merges // 3, merges - 1, merges]


@pytest.mark.parametrize("name", ["tiny", "shipped"])
def test_merges_are_those_of_the_package(
    visitor: Visitor, shipped: RustBPETokenizer, name: str
) -> None:
    tokenizer = {"tiny": small.tokenizer(), "shipped": shipped}[name]
    widget = visitor.widget("merges")
    widget.get_by_label("词表").select_option(name)
    different = 0
    for text in [TEXT, *random_texts(12)]:
        widget.get_by_label("一句话").fill(text)
        found = at_depths(widget, depths(tokenizer))
        for depth, ids in zip(depths(tokenizer), found, strict=True):
            ranks = dict(list(tokenizer.mergeable_ranks.items())[: 256 + depth])
            assert ids == bpe.encode(text, ranks, SPLIT_PATTERN), (text, depth)
        assert found[-1] == tokenizer.encode(text)
        different += len(tokenizer.encode(text)) < len(text.encode())
    assert different > 6


def test_a_sentence_alone_teaches_what_train_bpe_learns_from_it(visitor: Visitor) -> None:
    widget = visitor.widget("merges")
    widget.get_by_label("词表").select_option("own")
    for text in ["小猫看小猫", "哈哈哈哈", "aaab", *random_texts(12, seed=2)]:
        widget.get_by_label("一句话").fill(text)
        ranks = bpe.train_bpe([text], 10_000, SPLIT_PATTERN)
        assert int(slider(widget, "合并").get_attribute("max")) == len(ranks) - 256
        every = [*range(len(ranks) - 256 + 1)]
        for depth, ids in zip(every, at_depths(widget, every), strict=True):
            known = dict(list(ranks.items())[: 256 + depth])
            assert ids == bpe.encode(text, known, SPLIT_PATTERN), (text, depth)


def test_the_hand_worked_merges_and_why(visitor: Visitor) -> None:
    """The table of chapter 3."""
    widget = visitor.widget("merges")
    widget.get_by_label("词表").select_option("own")
    widget.get_by_label("一句话").fill("小猫看小猫")
    assert "第 1 次合并" in widget.inner_text()
    assert "有 2 处，一样多的有 5 对，取编号最小的" in widget.inner_text()
    widget.get_by_role("button", name="下一次改动").click()
    assert "一样多的有 4 对" in widget.inner_text()
    assert "15 个字节，现在是 11 个词元" in widget.inner_text()
    for _ in range(3):
        widget.get_by_role("button", name="下一次改动").click()
    assert ids_in(widget) == [260, 231, 156, 139, 260]
    assert "「小猫」和「猫」成为「小猫」，编号 260" in widget.inner_text().replace("\n", "")
    widget.get_by_role("button", name="上一次改动").click()
    assert ids_in(widget) == [259, 256, 231, 156, 139, 259, 256]


def test_the_arrows_stop_where_the_sentence_changes(visitor: Visitor) -> None:
    tokenizer = small.tokenizer()
    widget = visitor.widget("merges")
    place, merges = slider(widget, "合并"), len(tokenizer.mergeable_ranks) - 256
    ranks = list(tokenizer.mergeable_ranks.items())
    widget.get_by_label("一句话").fill("小猫去公园")
    states = [
        bpe.encode("小猫去公园", dict(ranks[: 256 + n]), SPLIT_PATTERN) for n in range(merges + 1)
    ]
    changes = [n for n in range(1, merges + 1) if states[n] != states[n - 1]]
    assert len(changes) < merges
    seen = [int(place.input_value())]
    for _ in changes[1:]:
        widget.get_by_role("button", name="下一次改动").click()
        seen.append(int(place.input_value()))
    assert seen == changes


def test_a_token_in_the_middle_of_a_character_shows_the_character(visitor: Visitor) -> None:
    widget = visitor.widget("merges")
    widget.get_by_label("词表").select_option("own")
    widget.get_by_label("一句话").fill("小猫看小猫")
    drag(widget, "合并", 2)  # 8F E7: the end of one character and the beginning of the next
    chip = widget.locator(".minillm-token", has_text="8F E7").first
    shares = chip.locator(".minillm-part").evaluate_all(
        "all => all.map((e) => [e.textContent, e.style.getPropertyValue('--from'), "
        "e.style.getPropertyValue('--to')])"
    )
    assert [(text, round(float(a[:-1])), round(float(b[:-1]))) for text, a, b in shares] == [
        ("小", 67, 100),
        ("猫", 0, 33),
    ]
    assert chip.get_attribute("title") == "（“小”的一部分）（“猫”的一部分），编号 257，字节 8F E7"


def test_neighbours_never_have_the_same_colour(visitor: Visitor) -> None:
    widget = visitor.widget("merges")
    for text in random_texts(10, seed=3):
        widget.get_by_label("一句话").fill(text)
        drag(widget, "合并", 0)
        colours = widget.locator(".minillm-token").evaluate_all(
            "all => all.map((e) => getComputedStyle(e).backgroundColor)"
        )
        assert all(a != b for a, b in pairwise(colours))


# --- Mask ---

CONVERSATIONS = [
    ["8加4等于多少？", "12。"],
    ["你好。", "你好，我是米粒。", "张静住在哪里？", "张静住在北京。"],
    [
        "小兔把红色的雨伞放在桌子上。小兔去了公园。小狗把雨伞拿到了箱子里。雨伞在哪里？",
        "在箱子里。",
    ],
    ["你是谁？", "我是米粒。"],
]
"""Those of the widget."""


def sequences(conversations: list[list[str]]) -> list[dataset.TokenSequence]:
    roles = ("user", "assistant")
    return [
        small.tokenizer().render_conversation(
            [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]
        )
        for turns in conversations
    ]


def batch_of(found: list[dataset.TokenSequence], length: int, packed: bool) -> packing.Batch:
    kept = [sequence for one in found for sequence in dataset.fit("sft", [one], length)]
    data = dataset.TokenDataset(
        np.array([i for ids, _ in kept for i in ids], np.int32),
        np.array([m for _, mask in kept for m in mask], np.uint8),
        np.cumsum([0, *(len(ids) for ids, _ in kept)]),
        1,
    )
    units = packing.pack(data.positions(), length, range(len(kept)))
    return packing.collate(data, units if packed else [[i] for i in range(len(kept))], length)


def rows_in(widget: Any) -> dict[str, list[list[int]]]:
    found: dict[str, list[list[int]]] = widget.locator(".minillm-batch-row").evaluate_all(
        """rows => Object.fromEntries(["id", "mask", "label", "position", "document"].map((key) =>
          [key, rows.map((row) => [...row.querySelectorAll("button")]
            .map((e) => e.dataset[key] === undefined ? 0 : +e.dataset[key]))]))"""
    )
    return found


@pytest.mark.parametrize("length", [64, 63, 47, 30, 24])
@pytest.mark.parametrize("packed", [True, False])
def test_the_mask_is_that_of_render_conversation(
    visitor: Visitor, length: int, packed: bool
) -> None:
    """And rows are packed as training packs them."""
    widget = visitor.widget("mask")
    slider(widget, "行长").evaluate(
        "(e) => { e.max = 200; }"
    )  # this vocabulary is small, its sequences long
    length *= 3
    widget.get_by_label("打包").set_checked(packed)
    for first in CONVERSATIONS[0], ["<|assistant_end|>？", "好 的\U0001f430"]:
        for place, text in zip(("用户", "助手"), first, strict=True):
            widget.get_by_label(f"第一段对话里{place}的话").fill(text)
        drag(widget, "行长", length)
        rendered = sequences([first, *CONVERSATIONS[1:]])
        batch, rows = batch_of(rendered, length, packed), rows_in(widget)
        assert rows["id"] == batch.input_ids.tolist()
        assert rows["label"] == batch.labels.tolist()
        assert rows["position"] == batch.position_ids.tolist()
        assert rows["document"] == batch.document_ids.tolist()
        kept = [s for one in rendered for s in dataset.fit("sft", [one], length)]
        masks = {tuple(ids[:-1]): mask[:-1] for ids, mask in kept}
        for ids, mask, documents in zip(rows["id"], rows["mask"], rows["document"], strict=True):
            for document in set(documents) - {-1}:
                places = [i for i, d in enumerate(documents) if d == document]
                learned = [mask[i] for i in places]
                assert learned == masks[tuple(ids[i] for i in places)]
                assert learned[1:] != [0] * (len(learned) - 1)


def test_what_a_token_may_look_at(visitor: Visitor) -> None:
    widget = visitor.widget("mask")
    slider(widget, "行长").evaluate("(e) => { e.max = 200; }")
    drag(widget, "行长", 150)
    batch = batch_of(sequences(CONVERSATIONS), 150, packed=True)
    documents, width = batch.document_ids, batch.document_ids.shape[1]
    assert max(len(set(row.tolist()) - {-1}) for row in documents) > 1
    apart = document_mask(documents)[:, 0]
    together = torch.ones(width, width).tril().bool()
    buttons = widget.locator(".minillm-batch button")
    for checked in (True, False):
        widget.get_by_label("按对话隔开").set_checked(checked)
        for row, t in ((0, 0), (0, 100), (0, width - 1), (len(documents) - 1, 90)):
            buttons.nth(row * width + t).click()
            seen = buttons.evaluate_all("all => all.map((e) => e.matches('.minillm-seen'))")
            expected = torch.zeros_like(documents).bool()
            expected[row] = (apart[row] if checked else together)[t]
            assert seen == expected.flatten().tolist(), (checked, row, t)
            leaked = widget.locator(".minillm-leak").count()
            assert leaked == int((expected[row] & (documents[row] != documents[row, t])).sum())


def test_the_keyboard_walks_along_the_tokens(visitor: Visitor) -> None:
    widget = visitor.widget("mask")
    widget.locator(".minillm-batch button").nth(3).focus()
    assert widget.locator(".minillm-batch button[tabindex='0']").count() == 1
    for _ in range(2):
        visitor.tab.keyboard.press("ArrowRight")
    assert widget.locator(".minillm-batch button").nth(5).get_attribute("aria-pressed") == "true"
    assert "position_ids 5" in widget.inner_text()
    visitor.tab.keyboard.press("Tab")  # leaves the row
    assert not widget.locator(".minillm-batch :focus").count()


# --- Glass ---


def bars_in(widget: Any) -> dict[int, float]:
    return {
        int(id): float(p)
        for id, p in widget.locator(".minillm-bar").evaluate_all(
            "all => all.map((e) => [e.dataset.id, e.dataset.p])"
        )
    }


def prompt() -> list[int]:
    return [small.tokenizer().bos_id, *small.tokenizer().encode(TEXT)]


@torch.no_grad()
def masses(model: Transformer, ids: list[int]) -> torch.Tensor:
    logits = model(torch.tensor([ids]))[0, -1, : small.tokenizer().vocab_size]
    return logits.softmax(-1)


def best(masses: torch.Tensor, count: int) -> dict[int, float]:
    found = masses.topk(count)
    return dict(zip(found.indices.tolist(), found.values.tolist(), strict=True))


def without(model: Transformer, heads: list[tuple[int, int]]) -> Transformer:
    """The model whose heads are silenced by hooks on what ``o_proj`` reads."""
    changed = Transformer(model.config).eval()
    changed.load_state_dict(model.state_dict())
    D = model.config.head_dim
    for layer, head in heads:

        def silence(_: Any, args: Any, head: int = head) -> Any:
            heard = args[0].clone()
            heard[..., head * D : (head + 1) * D] = 0
            return (heard,)

        changed.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(silence)
    return changed


def test_bars_are_the_model_s_and_a_click_writes(visitor: Visitor, model: Transformer) -> None:
    widget, ids = visitor.widget("glass"), prompt()
    for _ in range(3):
        expected = best(masses(model, ids), 8)
        assert bars_in(widget) == pytest.approx(expected, abs=1e-4)
        assert ids_in(widget) == ids
        chosen = list(expected)[1]
        widget.locator(".minillm-bar").nth(1).click()
        ids.append(chosen)
    assert ids_in(widget) == ids
    widget.locator(".minillm-token").nth(4).click()
    assert bars_in(widget) == pytest.approx(best(masses(model, ids[:5]), 8), abs=1e-4)
    widget.locator(".minillm-bar").nth(0).click()  # in the place of what stood there
    assert ids_in(widget) == [*ids[:5], *best(masses(model, ids[:5]), 1)]


def test_a_head_that_is_off_changes_the_answer_as_a_hook_does(
    visitor: Visitor, model: Transformer
) -> None:
    widget, ids, heads = visitor.widget("glass"), prompt(), []
    whole = bars_in(widget)
    for layer, head in ((0, 1), (1, 3)):
        switch = widget.get_by_role("switch", name=f"第 {layer + 1} 层第 {head + 1} 个头")
        switch.click()
        assert switch.get_attribute("aria-checked") == "false"
        heads.append((layer, head))
        expected = masses(without(model, heads), ids)
        assert bars_in(widget) == pytest.approx(best(expected, 8), abs=1e-4)
        assert bars_in(widget) != pytest.approx(whole, abs=1e-3)
    # Without a cache, since the decoder with one does not call the modules that have the hooks.
    said = [*generate.generate(without(model, heads), [ids], 16, (), Sampling(), False, 300)]
    written = small.tokenizer().decode([step[0] for step in said])
    end = small.tokenizer().special_id("<|assistant_end|>")
    assert end not in [step[0] for step in said]
    assert widget.locator("dd").all_inner_texts()[1] == written.rstrip("\ufffd") + "……"
    widget.get_by_role("button", name="全部打开").click()
    assert bars_in(widget) == pytest.approx(whole, abs=1e-6)


def test_every_layer_says_what_the_last_one_would(visitor: Visitor, model: Transformer) -> None:
    widget, ids = visitor.widget("glass"), prompt()
    streams: list[torch.Tensor] = []
    hooks = [
        part.register_forward_hook(lambda *a: streams.append(a[-1][0, -1]))
        for part in (model.model.embed_tokens, *model.model.layers)
    ]
    last = int(masses(model, ids).argmax())
    for hook in hooks:
        hook.remove()
    rows = [row.split("\t") for row in widget.locator("tbody").inner_text().split("\n")]
    assert [row[0].strip() for row in rows] == ["嵌入", "第 1 层后", "第 2 层后"]
    for row, stream in zip(rows, streams, strict=True):
        with torch.no_grad():
            early = model.lm_head(model.model.norm(stream))[:300].softmax(-1)
        assert row[2] == f"{early.max():.1%}"
        assert row[3] == f"第 {int((early > early[last]).sum()) + 1}"
        assert row[4] == f"{early[last]:.1%}"


def test_attention_is_drawn_for_every_head(visitor: Visitor, model: Transformer) -> None:
    from minillm.book import show

    widget, ids = visitor.widget("glass"), prompt()
    expected = show.attention_weights(model, ids)  # [L, H, T, T]
    pictures = widget.locator("canvas").evaluate_all(
        """all => all.map((e) => [...e.getContext("2d").getImageData(0, 0, e.width, e.height).data]
          .filter((_, i) => i % 4 === 3))"""
    )
    found = torch.tensor(pictures).view(expected.shape) / 255
    torch.testing.assert_close(found, expected.sqrt(), atol=0.01, rtol=0)
    widget.locator(".minillm-map").nth(6).click()  # layer 2, head 3
    shares = widget.locator(".minillm-token").evaluate_all(
        "all => all.map((e) => +e.style.getPropertyValue('--seen'))"
    )
    assert shares == pytest.approx(expected[1, 2, -1].tolist(), abs=1e-4)
    assert "第 2 层第 3 个头" in widget.inner_text()


# --- Sampler ---


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(1.0),
        Sampling(0.0),
        Sampling(0.5, top_k=7),
        Sampling(1.5, top_p=0.9),
        Sampling(2.0, top_k=30, top_p=0.5),
    ],
    ids=str,
)
def test_the_sampler_s_masses_are_the_package_s(
    visitor: Visitor, model: Transformer, monkeypatch: pytest.MonkeyPatch, sampling: Sampling
) -> None:
    ids = small.tokenizer().render_for_completion([{"role": "user", "content": "小猫"}])
    with torch.no_grad():
        logits = model(torch.tensor([ids]))[:, -1, :300]
    seen: list[torch.Tensor] = []

    def first(masses: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(masses[0] / masses.sum())
        return torch.zeros(1, 1, dtype=torch.long)

    monkeypatch.setattr(torch, "multinomial", first)
    order = logits[0].argsort(descending=True).tolist()
    chosen = int(generate.choose(logits, sampling, torch.Generator()))
    package = dict(zip(order, seen[0].tolist(), strict=True)) if seen else {chosen: 1.0}

    widget = visitor.widget("sampler")
    drag(widget, "温度", sampling.temperature)
    drag(widget, "top-k", sampling.top_k)
    drag(widget, "top-p", sampling.top_p)
    assert bars_in(widget) == pytest.approx({i: package.get(i, 0) for i in order[:10]}, abs=1e-4)
    kept = [i for i, p in package.items() if p]
    before = logits[0].softmax(-1)
    assert f"留下 {len(kept)} 个，它们原来占 {before[kept].sum():.1%}" in widget.inner_text()


def test_twenty_answers_are_counted(visitor: Visitor) -> None:
    widget = visitor.widget("sampler")
    ask = widget.get_by_role("button", name="20 遍")
    ask.click()
    widget.get_by_text("20 遍，").wait_for()
    counts = widget.locator(".minillm-tally b").all_inner_texts()
    assert sum(int(text.split()[0]) for text in counts) == 20
    assert len(counts) > 1
    drag(widget, "温度", 0)
    ask.click()
    widget.get_by_text("20 遍，1 种").wait_for()


def first_learned_with(byte: bytes) -> dict[str, Any]:
    """The character with this byte in the first merged token that has the whole of it."""
    for token in list(small.tokenizer().mergeable_ranks)[256:]:
        for start in range(len(token)):
            character, at = token[start : start + 3], token.find(byte) - start
            if 0 <= at < 3 == len(character) and character.decode(errors="ignore"):
                share = {"from": pytest.approx(at / 3), "to": pytest.approx((at + 1) / 3)}
                return {"text": character.decode(), **share}
    raise AssertionError(byte)


def test_a_part_of_a_character_shows_the_likeliest_whole_one(visitor: Visitor) -> None:
    """A model that always goes on with 龘 after its first byte, although 。 has the same one."""
    visitor.open("page.html")
    visitor.widget("sampler")
    found = visitor.tab.evaluate(
        """async () => {
          const {tokenizer} = await MiniLLM.language("sft");
          const [bytes, other] = ["龘", "龙"].map((text) => [...new TextEncoder().encode(text)]);
          const likely = {[bytes[0]]: bytes[1], [bytes[1]]: bytes[2]}, {vocab_size} = tokenizer;
          const model = {
            config: {
              num_hidden_layers: 0, hidden_size: 4, num_attention_heads: 1,
              max_position_embeddings: 9, num_key_value_heads: 1,
            },
            forward(id, cache) {
              cache.ids.push(id);
              const logits = new Float32Array(vocab_size);
              logits[300 - 1] = 9; // no character goes on with it
              logits[other[1]] = 3;
              logits[likely[id] ?? 0] = 5;
              return logits;
            },
          };
          const cache = new MiniLLM.KVCache(model.config);
          const whole = MiniLLM.glyphs_after({model, tokenizer}, [], bytes[0], cache);
          const middle = MiniLLM.glyphs_after({model, tokenizer}, [bytes[0]], bytes[1], cache);
          const [known] = new TextEncoder().encode("猫").slice(1); // a character of the vocabulary
          const loose = MiniLLM.glyphs_after({model, tokenizer}, [], known, cache);
          const [unknown] = MiniLLM.completed(tokenizer, [{byte: 0xf8}]);
          return [whole, middle, loose, [unknown]];
        }"""
    )
    assert found[0] == [{"text": "龘", "from": 0, "to": pytest.approx(1 / 3)}]
    assert found[1] == [{"text": "龘", "from": pytest.approx(1 / 3), "to": pytest.approx(2 / 3)}]
    [loose] = found[2]
    assert "猫".encode()[1] == 0x8C
    assert loose == first_learned_with(b"\x8c")
    assert found[3] == [{"byte": 0xF8}]  # no character has it


def test_the_likeliest_character_need_not_begin_with_the_likeliest_byte(visitor: Visitor) -> None:
    """BE comes a little more often after E9 than A9, but a dozen bytes are as likely after that,
    while only AC (E9 A9 AC: 马) comes after A9."""
    visitor.widget("sampler")
    shown = visitor.tab.evaluate(
        """async () => {
          const {tokenizer} = await MiniLLM.language("sft");
          const model = {
            config: {
              num_hidden_layers: 0, hidden_size: 4, num_attention_heads: 1,
              max_position_embeddings: 9, num_key_value_heads: 1,
            },
            forward(id, cache) {
              cache.ids.push(id);
              const logits = new Float32Array(tokenizer.vocab_size).fill(-9);
              if (id === 0xe9) [logits[0xbe], logits[0xa9]] = [5.2, 5];
              if (id === 0xbe) for (let byte = 0x90; byte < 0x9c; byte++) logits[byte] = 4;
              if (id === 0xa9) logits[0xac] = 9;
              return logits;
            },
          };
          const cache = new MiniLLM.KVCache(model.config);
          return MiniLLM.glyphs_after({model, tokenizer}, [], 0xe9, cache);
        }"""
    )
    assert shown == [{"text": "马", "from": 0, "to": pytest.approx(1 / 3)}]


# --- Samples ---


def mutations(text: str, draw: random.Random) -> Iterator[str]:
    """A reply, and what a model may make of it: other numbers, other words, another end."""
    number = str(draw.randint(0, 20))
    yield text
    yield text.rstrip("。")
    yield re.sub(r"\d+(?=\D*$)", number, text)  # another result
    yield re.sub(r"\d+", number, text, count=1)
    yield text + draw.choice(words.CLOSINGS)
    yield draw.choice(words.CLOSINGS) + text
    yield draw.choice(["不是", "没有", "并非", "不，", "不知道。", "不对\n", "5\n"]) + text
    yield text + draw.choice(["不对。", "\n", " \u3000", "\x1c", "\ufeff", f"{number}。", "对吗？"])
    yield draw.choice(["小猫：", "张静说", "星期一，", "1月", "苹果", "第１题，", "好！"]) + text
    yield text.replace("加", "+").replace("减", "-").replace("等于", "=")
    yield text.translate(str.maketrans("0123456789", "０１２３４５６７８９"))
    yield text[: draw.randrange(len(text) + 1)]
    yield "".join(draw.choices([*text, "。", " ", number], k=draw.randint(0, 12)))


def replies() -> Iterator[tuple[str, str, bool]]:
    """Questions for sums and differences, answers to them, and whether they are right: curt, full,
    counted and polite answers, and what is a little different."""
    draw, kinds = random.Random(0), {"add": exercises.add, "sub": exercises.sub}
    for kind, pool in itertools.product(kinds, exercises.SUM_POOLS.values()):
        for _ in range(30):
            asked = kinds[kind](draw, pool)
            question = scoring.Question(kind, (("user", asked.question),), asked.answer)
            swapped = re.sub(r"(\d+)(\D)(\d+)", r"\3\2\1", asked.right, count=1)
            for text in (asked.right, asked.wrong, asked.curt, asked.counted, swapped):
                for reply in mutations(text, draw):
                    yield asked.question, reply, question.is_correct(reply)


GROUPS = [
    [0.0] * 15 + [1.0],
    [1.0, 0.0, 1.0, 1.0],
    [1.0, 0.0],
    [0.0] * 16,
    [1.0] * 7,
    [0.5, -1.0, 2.0],
]


def advantages(rewards: list[float], divide_by_std: bool) -> list[float]:
    """The package's, which equal TRL's."""
    group = torch.tensor([rewards], dtype=torch.float64)
    found: list[float] = reinforcement.advantages(group, divide_by_std)[0].tolist()
    return found


class Judge:
    """The functions of the widget, and answers for them to judge."""

    def __init__(self, browser: Any) -> None:
        self.tab = browser.new_page()
        self.text = (SCRIPTS / "widgets" / "samples.js").read_text(encoding="utf-8")
        for name in ("minillm", "widgets"):
            self.tab.add_script_tag(path=SCRIPTS / f"{name}.js")
        asked, replied, self.right = (list(part) for part in zip(*replies(), strict=True))
        given = [page.verifier(), asked, replied, GROUPS]
        self.tab.evaluate("(all) => { [MiniLLM.verifier, ...globalThis.given] = all; }", given)
        self.change()

    def change(self, old: str = "", new: str = "") -> None:
        """Runs the widget's script, ``old`` in it made ``new``."""
        assert not old or self.text.count(old) == 1, old
        self.tab.add_script_tag(content=self.text.replace(old, new) if old else self.text)

    def differences(self) -> int:
        """How many verdicts and advantages are not the package's."""
        verdicts, better = self.tab.evaluate(
            """() => {
              const [asked, replied, groups] = given, {is_correct, exercise, advantages} = MiniLLM;
              const verdicts = replied.map((reply, i) => is_correct(exercise(asked[i]), reply));
              const both = groups.map((group) => [advantages(group), advantages(group, true)]);
              return [verdicts, both];
            }"""
        )
        wrong = sum(a != b for a, b in zip(verdicts, self.right, strict=True))
        for rewards, (plain, divided) in zip(GROUPS, better, strict=True):
            wrong += plain != pytest.approx(advantages(rewards, False), abs=1e-9)
            wrong += divided != pytest.approx(advantages(rewards, True), abs=1e-9)
        return wrong


@pytest.fixture(scope="module")
def judge(browser: Any) -> Iterator[Judge]:
    judge = Judge(browser)
    yield judge
    judge.tab.close()


def test_the_verdict_and_the_advantages_are_the_package_s(judge: Judge) -> None:
    assert len(judge.right) > 10_000
    assert 0.2 < sum(judge.right) / len(judge.right) < 0.8
    judge.change()
    assert judge.differences() == 0


BROKEN = {
    "closings": ('reply = reply.replaceAll(closing, "")', ""),
    "sentences": ("split(/[。！？\\n]/)", "split(/[。！？]/)"),
    "white space": (r"[^\p{White_Space}\x1c-\x1f]", r"[^\p{White_Space}]"),
    "the last sentence": ("sentences.pop()", "sentences[0]"),
    "denials": ("new RegExp(denial).test(sentence)", "false"),
    "digits": (r"sentence.match(/\p{Nd}+/gu)", "sentence.match(/[0-9]+/g)"),
    "the last number": ("said[said.length - 1] !== answer", "!said.includes(answer)"),
    "strangers": ("!question.includes(each)", "false"),
    "sums in any order": ("[asked, [...asked].reverse()] :", "[asked] :"),
    "differences in any order": (": [asked]; //", ": [asked, [...asked].reverse()]; //"),
    "the first numbers": ("said[0] === x && said[1] === y", "true"),
    "curt replies": ("said.length === 1 ||", ""),
    "the mean": ("better = rewards.map((reward) => reward - mean(rewards))", "better = rewards"),
    "the deviation": ("(rewards.length - 1)", "rewards.length"),
    "a little added": (" + 1e-4", ""),
}


@pytest.mark.parametrize("part", BROKEN)
def test_a_wrong_verdict_or_advantage_would_show(judge: Judge, part: str) -> None:
    judge.change(*BROKEN[part])
    assert judge.differences() > 0
    judge.change()


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("13加4等于多少？", "17"),
        ("请问17 - 9是多少？请数着算。", "8"),
        ("5减5", "0"),
        ("9007199254740993+1等于几", "9007199254740994"),
        ("3减8等于多少？", None),
        ("3加4加5等于多少？", None),
        ("3乘4等于多少？", None),
        ("3加4的两倍是多少？", None),
        ("1.5加2等于多少？", None),
        ("-3加4等于多少？", None),
        ("3加２等于多少？", None),
        ("你是谁？", None),
        ("", None),
    ],
)
def test_what_counts_as_a_sum_or_difference(
    judge: Judge, question: str, answer: str | None
) -> None:
    found = judge.tab.evaluate("(asked) => MiniLLM.exercise(asked)?.answer ?? null", question)
    assert found == answer


SAY = """([name, replies]) => MiniLLM.language(name).then(({tokenizer}) => {
  let time = -1, length = 0; // of the prompt
  const [start, end] = ["start", "end"].map((at) => tokenizer.special_id(`<|assistant_${at}|>`));
  const config = {
    num_hidden_layers: 0, hidden_size: 4, num_attention_heads: 1, num_key_value_heads: 1,
    max_position_embeddings: 512,
  };
  const forward = (id, cache) => { // says one reply after the other
    cache.ids.push(id);
    if (id === start) [length, time] = [cache.length, time + 1];
    const reply = tokenizer.encode(replies[Math.max(0, time) % replies.length]);
    const logits = new Float32Array(tokenizer.vocab_size);
    logits[reply[cache.length - length] ?? end] = 99;
    return logits;
  };
  MiniLLM.models[name].loading = Promise.resolve({model: {config, forward}, tokenizer});
})"""
"""Makes a model of the page say these replies, in this order."""
COUNTED = "3减1：从3往前走1步，1步到2，等于2。"
BEFORE = ["3减1等于1。"] * 7 + [COUNTED] + ["3。"] * 7 + [""]
AFTER = [COUNTED]


def answered(widget: Any) -> list[tuple[list[str], list[list[str]]]]:
    """What stands above each group once it is complete, and its rows."""
    for i in range(2):
        column = widget.locator("section").nth(i)
        column.locator("[aria-busy=false]").wait_for()
        column.locator("tbody tr").nth(15).wait_for()
        column.locator(".minillm-note", has_text="优势").wait_for()
    found = []
    for column in widget.locator("section").all():
        rows = [row.locator("td").all_inner_texts() for row in column.locator("tbody tr").all()]
        found.append((column.locator("p").all_inner_texts(), rows))
    return found


def test_one_counted_answer_among_sixteen_gets_the_advantage(visitor: Visitor) -> None:
    widget = visitor.widget("samples")
    assert not widget.locator("table:visible").count()
    visitor.tab.evaluate(SAY, ["pretrain", BEFORE])
    visitor.tab.evaluate(SAY, ["sft", AFTER])
    widget.get_by_label("问题").press("Enter")
    (above, rows), (above_after, rows_after) = answered(widget)
    sizes = [len(small.tokenizer().encode(reply)) + 1 for reply in BEFORE]
    assert above == [
        f"16 个回答：平均奖励 0.06，数着算的占 6%，平均 {sum(sizes) / 16:.1f} 个词元。",
        "优势 = 奖励 − 0.06",
    ]
    for i, (reward, advantage, reply, length) in enumerate(rows):
        right = i == 7
        assert reward == ("✓ 1" if right else "✗ 0")
        assert advantage == ("+0.94" if right else "−0.06")
        assert reply == (BEFORE[i] or "（什么也没有说）")
        assert int(length) == sizes[i]
    size = f"{len(small.tokenizer().encode(COUNTED)) + 1}.0"
    assert above_after == [
        f"16 个回答：平均奖励 1.00，数着算的占 100%，平均 {size} 个词元。",
        "奖励全是 1，优势也就全是 0：从这道题什么也学不到。",
    ]
    assert [row[:2] for row in rows_after] == [["✓ 1", "0.00"]] * 16
    widget.get_by_label("除以标准差").check()
    (above, rows), (above_after, rows_after) = answered(widget)
    assert above[1] == "优势 =（奖励 − 0.06）÷ 0.25"
    expected = advantages([float(row[0] == "✓ 1") for row in rows], True)
    assert [row[1].replace("−", "-") for row in rows] == [f"{number:+.2f}" for number in expected]
    assert [row[1] for row in rows_after] == ["0.00"] * 16


def test_what_is_no_sum_is_not_asked(visitor: Visitor) -> None:
    widget = visitor.widget("samples")
    widget.get_by_label("问题").fill("你是谁？")
    widget.get_by_role("button", name="各答 16 遍").click()
    widget.get_by_text("这里只判两个整数的加法和减法").wait_for()
    assert not widget.locator("tbody tr").count()


def test_answers_are_the_model_s_own(visitor: Visitor) -> None:
    """Those that ``generate`` samples at temperature 1, another one each time; long ones are cut
    off, and right where the package says so."""
    widget, question = visitor.widget("samples"), "3减1等于多少？"
    widget.get_by_role("button", name="各答 16 遍").click()
    texts: list[str] = []
    for (_, rows), seed in zip(answered(widget), (0, 16), strict=True):
        expected = visitor.tab.evaluate(
            """([question, seed]) => MiniLLM.language("sft").then(({model, tokenizer}) => {
              const prompt = tokenizer.render_for_completion([{role: "user", content: question}]);
              const stop_ids = [tokenizer.special_id("<|assistant_end|>"), tokenizer.bos_id];
              return Array.from({length: 16}, (_, i) => {
                const sampling = {temperature: 1, seed: seed + i};
                const options = {max_new_tokens: 96, stop_ids, vocab_size: 300, sampling};
                const ids = [...MiniLLM.generate(model, prompt, options)].map(({id}) => id);
                return [tokenizer.decode(ids), ids.length];
              });
            })""",
            [question, seed],
        )
        asked = scoring.Question("sub", (("user", question),), "2")
        for (reward, _, _, length), (text, size) in zip(rows, expected, strict=True):
            assert int(length) == size + (size < 96)
            assert reward == ("✓ 1" if asked.is_correct(text) else "✗ 0")
            texts.append(text)
    shown = [e.text_content() for e in widget.locator("td:nth-child(3)").all()]
    assert shown == [text or "（什么也没有说）" for text in texts]
    assert len(set(texts)) > 16


# --- All of them ---


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_stands_there_until_the_widget_lives(
    browser: Any, island: Path, name: str
) -> None:
    """Without scripts; and while what the widget computes with is on its way."""
    for options in ({"java_script_enabled": False}, {}):
        visitor = Visitor(browser, island.as_uri(), **options)
        if not options:
            visitor.context.route("**/weights/*", lambda route: None)  # no answer
        visitor.tab.goto(f"{island.as_uri()}/page.html", wait_until="commit")
        widget = visitor.tab.locator(f"minillm-{name}")
        widget.scroll_into_view_if_needed()
        if not options:
            visitor.tab.wait_for_timeout(300)
        assert widget.locator("img").is_visible()
        assert widget.get_by_text("静止的画面").is_visible()
        assert not widget.locator(".minillm-live").count()
        visitor.context.close()


@pytest.mark.parametrize("name", NAMES)
def test_widgets_fit_a_phone_and_have_names(browser: Any, island: Path, name: str) -> None:
    visitor = Visitor(browser, island.as_uri(), viewport={"width": 390, "height": 800})
    widget = visitor.widget(name)
    assert visitor.tab.evaluate("() => document.scrollingElement.scrollWidth") <= 390
    unnamed = widget.locator(":is(input, select, button):visible").evaluate_all(
        "all => all.filter(e => !(e.textContent || e.ariaLabel || e.labels?.length)).length"
    )
    assert unnamed == 0
    still, picture = widget.get_by_text("静止的画面"), widget.locator(".minillm-still > img")
    assert not still.is_visible()
    assert not picture.is_visible()
    # Hidden, it has to be there before the page is printed.
    visitor.tab.wait_for_function("(e) => e.naturalWidth === 30", arg=picture.element_handle())
    assert picture.get_attribute("loading") == "eager"
    visitor.tab.emulate_media(media="print")
    assert still.is_visible()
    assert picture.is_visible()
    assert not widget.locator(".minillm-live").is_visible()
    assert not visitor.trouble
    visitor.context.close()


def test_in_jupyter_they_show_the_readers_weights(
    browser: Any, small_lab: pytest.MonkeyPatch, tmp_path: Path, model: Transformer
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page.lab, "QUIET", False)
        options = {"tokenizer": small.tokenizer(), "text": TEXT, "plain": ""}
        outputs = [
            page.widget(name, "", {"我的": lively()}, **options) for name in ("glass", "sampler")
        ]
        outputs += [page.widget("merges", text=TEXT, vocabulary="shipped"), page.widget("mask")]
        outputs.append(page.widget("ngram", text="|".join(LINES)))
        pair = {"我的": lively(), "grpo": lively(1)}
        outputs.append(page.widget("samples", "", pair, small.tokenizer(), question="3加1是几？"))
    text = "<!DOCTYPE html><meta charset='utf-8'>" + "\n".join(html.data for html in outputs)
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    visitor = Visitor(browser, tmp_path.as_uri(), viewport={"width": 1000, "height": 700})
    expected = best(masses(model, prompt()), 8)
    assert bars_in(visitor.widget("glass")) == pytest.approx(expected, abs=1e-4)
    shown = list(bars_in(visitor.widget("sampler")))[:8]
    assert shown == list(expected)
    merges = visitor.widget("merges")
    depth = len(RustBPETokenizer.load().mergeable_ranks) - 256
    assert at_depths(merges, [depth]) == [RustBPETokenizer.load().encode(TEXT)]
    assert visitor.widget("mask").locator(".minillm-learned").count() > 10
    assert ngram_bars(visitor.widget("ngram")) == {"小": 1}
    samples = visitor.widget("samples")
    assert samples.locator("section > b").all_inner_texts()[0] == "之前：我的"
    samples.get_by_role("button", name="各答 16 遍").click()
    assert [len(rows) for _, rows in answered(samples)] == [16, 16]
    assert not visitor.trouble
    visitor.context.close()


CONTRAST = """(widget) => {
  const rgba = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const [r, g, b, a = 1] = rgba(getComputedStyle(e).backgroundColor);
      layers.push([r, g, b, a]);
      if (a === 1) break;
    }
    const over = (under, [r, g, b, a]) => [r, g, b].map((v, i) => a * v + (1 - a) * under[i]);
    return layers.reverse().reduce(over, [255, 255, 255]);
  };
  const luminance = (c) => {
    const [r, g, b] = c.map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return [...widget.querySelectorAll("*")]
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()))
    .filter((e) => !e.closest(":disabled"))
    .map((e) => {
      const [a, b] = [rgba(getComputedStyle(e).color).slice(0, 3), behind(e)].map(luminance);
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML.slice(0, 100)];
    }).sort((a, b) => a[0] - b[0])[0];
}"""


@pytest.mark.parametrize("name", NAMES)
def test_text_stands_out_in_light_and_dark(visitor: Visitor, name: str) -> None:
    widget = visitor.widget(name)
    if name == "samples":
        visitor.tab.evaluate(SAY, ["pretrain", BEFORE])
        widget.get_by_role("button", name="各答 16 遍").click()
        answered(widget)
    dark = {"text-base": "#ced6dd", "text-muted": "#9ca4af", "surface": "#29313d"}
    dark |= {"background": "#14181e", "border": "#48566b"}
    for theme, colours in (("light", {}), ("dark", dark)):
        style = "".join(f"--pst-color-{key}: {value};" for key, value in colours.items())
        visitor.tab.evaluate(
            """([theme, style]) => {
              document.documentElement.dataset.theme = theme;
              document.documentElement.style = style;
            }""",
            [theme, style],
        )
        worst = widget.locator(".minillm-live").evaluate(CONTRAST)
        assert worst[0] >= 4.5, (theme, worst)
