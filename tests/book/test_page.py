"""The model in the page computes what the package computes, and its widgets can be used by all."""

from __future__ import annotations

import base64
import io
import json
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from PIL import Image
from sphinx.application import Sphinx
from visitor import Visitor, served

from minillm.book import lab, page, show
from minillm.config import ALL_STAGES
from minillm.data.rows import Message
from minillm.errors import UserError
from minillm.model import generate
from minillm.model.generate import Sampling
from minillm.model.transformer import Transformer
from minillm.tokenizer import bpe
from minillm.tokenizer.vocabulary import SPLIT_PATTERN, RustBPETokenizer

SCRIPTS = lab.ROOT / "book" / "_static" / "minillm"
ENGINE = SCRIPTS / "minillm.js"
MAX_ENGINE = 20_000  # bytes
MAX_WEIGHTS = 1_300_000  # bytes, as a script


@pytest.fixture(scope="module")
def tab(browser: Any) -> Iterator[Any]:
    tab = browser.new_page()
    tab.add_script_tag(path=ENGINE)
    yield tab
    tab.close()


def put(tab: Any, model: Transformer, tokenizer: RustBPETokenizer, kind: page.Kind = "F32") -> None:
    """Gives a model to the page, as ``loaded``."""
    weights = base64.b64encode(page.page_weights(model, tokenizer, kind)).decode()
    tab.evaluate("(weights) => { window.loaded = MiniLLM.load(weights); }", weights)


def lively(seed: int = 0) -> Transformer:
    """A random model whose attention and scores are far from uniform."""
    model = small.model(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * (0.25 if parameter.ndim == 2 else 0.3)
    return model


IDS = [t % 300 for t in range(7, 7 * 60, 7)]


@torch.no_grad()
def logits_of(model: Transformer) -> torch.Tensor:
    return model(torch.tensor([IDS]))[0]


READ_ALL = """(ids) => {
  const cache = new MiniLLM.KVCache(loaded.model.config);
  return ids.map((id) => [...loaded.model.forward(id, cache)]);
}"""


def test_the_engine_is_small() -> None:
    assert ENGINE.stat().st_size < MAX_ENGINE


# --- Tokenizer ---

CONTRACTIONS = "'s 'S 'ſ 'll 'LL 'lL 've 're 'RE 'd 'm 'T 'x l'"
OTHERS = (
    "1 12 1234 ９ ⅷ ½ ² ๓ _ -- !! ... # <|bos|> <|user_start|> <|assistant_end|> word 小兔 的雨伞"
)
PIECES = [
    *"aZſKéЖß张静在，。！？…「」、·—",
    *CONTRACTIONS.split(),
    *(" ", "  ", "\t", "\n", "\r\n", "\n\n", "\r", "\x0b", "\x0c", "\x1c", "\x1f", "\x85", "\xa0"),
    *("\u1680", "\u180e", "\u2003", "\u200b", "\u2028", "\u2029", "\u3000", "\ufeff", "\u2060"),
    *("👍🏽", "👨\u200d👩", "e\u0301", "\u0301", "क्षि", "ﬁ", "\0", "\ufffd", "\uffff"),
    *OTHERS.split(),
]
WRONG_PATTERNS = {
    "capitals": SPLIT_PATTERN.replace("(?i:", "(?:"),
    "s without ſ": SPLIT_PATTERN.replace("(?i:[sdmt]", "(?:[sSdDmMtT]"),
    "digits": SPLIT_PATTERN.replace("{1,3}", "{1,2}"),
    "U+FEFF": SPLIT_PATTERN.replace(r"\s", r"[\s\uFEFF]").replace(r"[^[\s\uFEFF]", r"[^\s\uFEFF"),
    "U+0085": SPLIT_PATTERN.replace(r"[^\s\p{L}\p{N}]", r"(?:\x85|[^\s\p{L}\p{N}])"),
    "space before punctuation": SPLIT_PATTERN.replace("| ?[", "|["),
    "space before words": SPLIT_PATTERN.replace(r"[^\r\n\p{L}\p{N}]?+", ""),
    "line breaks after punctuation": SPLIT_PATTERN.replace(r"++[\r\n]*", "++"),
    "line breaks alone": SPLIT_PATTERN.replace(r"\s*[\r\n]|", ""),
    "the last space": SPLIT_PATTERN.replace(r"|\s+(?!\S)", ""),
}


def nasty(count: int) -> list[str]:
    draw = random.Random(1)
    return ["".join(draw.choices(PIECES, k=draw.randint(1, 12))) for _ in range(count)]


@pytest.fixture(scope="module")
def sharp() -> RustBPETokenizer:
    """A vocabulary whose tokens go across every border of ``nasty``: a wrong cut shows."""
    # No token may be spelled like a special one.
    texts = [re.sub(r"<\|\w+\|>", "<bos>", text) for text in nasty(600)]
    whole = RustBPETokenizer.train(texts, 2000, pattern="(?s:.+)")
    return RustBPETokenizer(whole.mergeable_ranks)


def test_ids_are_those_of_the_package(tab: Any, sharp: RustBPETokenizer) -> None:
    texts = nasty(2000)
    put(tab, small.model(config=replace(small.CONFIG, vocab_size=sharp.vocab_size)), sharp)
    ids = [sharp.encode(text) for text in texts]
    assert tab.evaluate("(all) => all.map((text) => loaded.tokenizer.encode(text))", texts) == ids
    assert tab.evaluate("(all) => all.map((ids) => loaded.tokenizer.decode(ids))", ids) == texts
    assert tab.evaluate("() => loaded.tokenizer.vocab_size") == sharp.vocab_size


@pytest.mark.parametrize("wrong", WRONG_PATTERNS)
def test_the_texts_would_show_a_wrong_pattern(sharp: RustBPETokenizer, wrong: str) -> None:
    pattern = WRONG_PATTERNS[wrong]
    assert pattern != SPLIT_PATTERN
    assert any(
        bpe.encode(text, sharp.mergeable_ranks, pattern)
        != bpe.encode(text, sharp.mergeable_ranks, SPLIT_PATTERN)
        for text in nasty(2000)
    )


def test_half_a_character_is_read_as_the_package_reads_it(
    tab: Any, sharp: RustBPETokenizer
) -> None:
    put(tab, small.model(config=replace(small.CONFIG, vocab_size=sharp.vocab_size)), sharp)
    found = tab.evaluate("() => loaded.tokenizer.encode('a' + String.fromCharCode(0xd83d) + '好')")
    assert found == sharp.encode("a\ud83d好")


def test_the_first_merges_alone_are_a_smaller_vocabulary(tab: Any, sharp: RustBPETokenizer) -> None:
    put(tab, small.model(config=replace(small.CONFIG, vocab_size=sharp.vocab_size)), sharp)
    texts = nasty(50)
    for merges in (0, 1, 100):
        ranks = dict(list(sharp.mergeable_ranks.items())[: 256 + merges])
        encode = "([all, merges]) => all.map((text) => loaded.tokenizer.encode(text, merges))"
        assert tab.evaluate(encode, [texts, merges]) == [
            bpe.encode(text, ranks, SPLIT_PATTERN) for text in texts
        ]


CONVERSATIONS = [
    [("user", "你是谁？"), ("assistant", "我是小灵。")],
    [("system", "说短一点。"), ("user", "<|assistant_end|>"), ("assistant", "<|bos|>好")],
    [("user", "a"), ("assistant", ""), ("user", "\n\n"), ("assistant", "<|user_start|>")],
]


def test_conversations_are_rendered_as_by_the_package(tab: Any) -> None:
    tokenizer = small.tokenizer()
    put(tab, small.model(), tokenizer)
    for turns in CONVERSATIONS:
        messages = [{"role": role, "content": content} for role, content in turns]
        found = tab.evaluate("(all) => loaded.tokenizer.render_conversation(all)", messages)
        assert (found["ids"], found["mask"]) == tokenizer.render_conversation(messages)
        asked = tab.evaluate("(all) => loaded.tokenizer.render_for_completion(all)", messages[:-1])
        assert asked == tokenizer.render_for_completion(messages[:-1])


# --- Transformer ---


def test_logits_are_those_of_the_package(tab: Any) -> None:
    model = lively()
    put(tab, model, small.tokenizer())
    logits = logits_of(model)
    assert logits.std() > 1
    torch.testing.assert_close(torch.tensor(tab.evaluate(READ_ALL, IDS)), logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["F16", "I8"])
def test_smaller_numbers_are_read_as_they_were_rounded(tab: Any, kind: page.Kind) -> None:
    model = lively()
    put(tab, model, small.tokenizer(), kind)
    exact, rounded = logits_of(model), logits_of(as_stored(model, kind))
    assert (rounded - exact).abs().max() > 1e-3
    found = torch.tensor(tab.evaluate(READ_ALL, IDS))
    torch.testing.assert_close(found, rounded, atol=1e-4, rtol=0)


def as_stored(model: Transformer, kind: page.Kind) -> Transformer:
    """The model with the numbers that a file of this kind holds."""
    stored = Transformer(model.config).eval()
    stored.load_state_dict(model.state_dict())
    with torch.no_grad():
        for name, parameter in stored.named_parameters():
            if parameter.ndim == 2 and kind == "F16":
                parameter.copy_(parameter.half())
            elif parameter.ndim == 2:
                whole, scales = page.quantized(parameter.numpy(), page.largest(name))
                parameter.copy_(torch.from_numpy(whole.astype(np.float32) * scales[:, None]))
    return stored


@pytest.mark.parametrize(
    "change", [{"tie_word_embeddings": False}, {"attention_hidden_size": 64}], ids=str
)
def test_a_model_that_the_page_does_not_compute_is_refused(change: dict[str, Any]) -> None:
    model = small.model(config=replace(small.CONFIG, **change))
    with pytest.raises(UserError, match="can only run a model whose output layer is its embedding"):
        page.page_weights(model, small.tokenizer())


def test_half_precision_has_small_and_large_numbers(tab: Any) -> None:
    model = small.model()
    values = [0.0, -0.0, 6e-8, -6e-8, 1e-5, 6.1e-5, 0.1, -1.0, 1.5, 65504.0, -65504.0, 2048.0]
    with torch.no_grad():
        model.model.embed_tokens.weight[0, : len(values)] = torch.tensor(values)
    put(tab, model, small.tokenizer(), "F16")
    found = tab.evaluate("(n) => [...loaded.model.embed_tokens.slice(0, n)]", len(values))
    assert found == torch.tensor(values).half().tolist()


def test_a_row_of_zeros_stays_zero() -> None:
    whole, scales = page.quantized(np.array([[0, 0], [-2.54, 1.27]], np.float32), 127)
    assert whole.tolist() == [[0, 0], [-127, 64]]
    assert scales.tolist() == pytest.approx([1, 0.02])


WATCH = """([ids, off]) => {
  const {model} = loaded, cache = new MiniLLM.KVCache(model.config);
  const weights = [], streams = [];
  let logits;
  for (const [t, id] of ids.entries()) {
    logits = model.forward(id, cache, {
      attention: (layer, head, w) => weights.push([layer, head, t, [...w]]),
      off: (layer, head) => `${layer} ${head}` === off,
      residual: (layer, x) => { if (t === ids.length - 1) streams[layer] = [...x]; },
    });
  }
  const last = Float32Array.from(streams[streams.length - 1]);
  return {weights, streams, logits: [...logits], read: [...model.logits(last)]};
}"""


def test_attention_can_be_watched(tab: Any) -> None:
    model = lively()
    put(tab, model, small.tokenizer())
    expected = show.attention_weights(model, IDS)
    seen = torch.zeros_like(expected)
    for layer, head, t, weights in tab.evaluate(WATCH, [IDS, ""])["weights"]:
        seen[layer, head, t, : len(weights)] = torch.tensor(weights)
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=0)


def test_a_head_can_be_switched_off(tab: Any) -> None:
    """As if the columns of o_proj that read it were zero."""
    model = lively()
    put(tab, model, small.tokenizer())
    found = tab.evaluate(WATCH, [IDS, "1 2"])["logits"]
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight[:, 2 * 8 : 3 * 8] = 0
    torch.testing.assert_close(torch.tensor(found), logits_of(model)[-1], atol=1e-4, rtol=0)


def test_the_residual_stream_can_be_read_after_each_layer(tab: Any) -> None:
    model = lively()
    put(tab, model, small.tokenizer())
    streams: list[torch.Tensor] = []
    hooks = [
        model.model.embed_tokens.register_forward_hook(lambda *a: streams.append(a[-1])),
        *(
            layer.register_forward_hook(lambda *a: streams.append(a[-1]))
            for layer in model.model.layers
        ),
    ]
    logits = logits_of(model)
    for hook in hooks:
        hook.remove()
    found = tab.evaluate(WATCH, [IDS, ""])
    expected = torch.stack([stream[0, -1] for stream in streams])
    torch.testing.assert_close(torch.tensor(found["streams"]), expected, atol=1e-4, rtol=0)
    assert found["read"] == found["logits"]
    torch.testing.assert_close(torch.tensor(found["read"]), logits[-1], atol=1e-4, rtol=0)


# --- Sampling and generation ---


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(0.0),
        Sampling(1.0),
        Sampling(0.5, top_k=7),
        Sampling(1.5, top_p=0.9),
        Sampling(2.0, top_k=50, top_p=0.5),
        Sampling(1.0, top_k=10_000),
        Sampling(1.0, top_p=1e-9),
    ],
    ids=str,
)
def test_masses_are_those_of_the_package(
    tab: Any, monkeypatch: pytest.MonkeyPatch, sampling: Sampling
) -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 300) * 3
    seen: list[torch.Tensor] = []

    def first(masses: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(masses)
        return torch.zeros(1, 1, dtype=torch.long)

    monkeypatch.setattr(torch, "multinomial", first)
    best = generate.choose(logits, sampling, torch.Generator())
    expected = {int(best): 1.0}
    if seen:
        order = logits[0].argsort(descending=True)
        masses = seen[0][0] / seen[0].sum()
        expected = {int(order[i]): float(masses[i]) for i in masses.nonzero()[:, 0]}
    options = {name: getattr(sampling, name) for name in ("temperature", "top_k", "top_p")}
    found = tab.evaluate(
        "([logits, s]) => MiniLLM.probabilities(Float32Array.from(logits), s)",
        [logits[0].tolist(), options],
    )
    assert [option["id"] for option in found] == list(expected)
    assert [option["p"] for option in found] == pytest.approx(list(expected.values()), abs=1e-6)


def test_tokens_are_drawn_by_their_masses_and_a_seed_repeats(tab: Any) -> None:
    count = """([logits, n, seed]) => {
      const random = MiniLLM.random_numbers(seed), counts = logits.map(() => 0);
      for (let i = 0; i < n; i++)
        counts[MiniLLM.choose(Float32Array.from(logits), {temperature: 1}, random)]++;
      return counts;
    }"""
    masses = np.array([0.5, 0.3, 0.15, 0.05])
    arguments = [np.log(masses).tolist(), 20_000, 1]
    counts = np.array(tab.evaluate(count, arguments))
    assert np.abs(counts / 20_000 - masses).max() < 0.015
    assert tab.evaluate(count, arguments) == counts.tolist()
    assert tab.evaluate(count, [*arguments[:2], 2]) != counts.tolist()


GENERATE = """([prompt, options]) =>
  [...MiniLLM.generate(loaded.model, prompt, options)].map(({id}) => id)"""


@pytest.mark.parametrize("length", [5, 120, 127])
def test_greedy_continuations_are_those_of_the_package(tab: Any, length: int) -> None:
    """Also where the model has more rows than the tokenizer, and where its positions run out."""
    for seed in range(3):
        model = lively(seed)
        put(tab, model, small.tokenizer())
        prompt = [(seed + t * t) % 290 for t in range(length)]
        (expected,) = generate.complete(model, [prompt], 20, vocab_size=300)
        options = {"max_new_tokens": 20, "vocab_size": 300}
        assert tab.evaluate(GENERATE, [prompt, options]) == expected
        stop = expected[-1]
        until = expected[: expected.index(stop)]
        assert tab.evaluate(GENERATE, [prompt, {**options, "stop_ids": [stop]}]) == until


def test_a_cache_goes_on_from_what_it_holds(tab: Any) -> None:
    """Whatever the cache has seen before, an answer is what it would be without."""
    put(tab, lively(), small.tokenizer())
    prompts = [IDS[:20], IDS[:30], IDS[:30], [*IDS[:10], 3, *IDS[11:25]], IDS[:9]]
    found = tab.evaluate(
        """(prompts) => {
          const {model} = loaded, cache = new MiniLLM.KVCache(model.config);
          const run = (prompt, options) =>
            [...MiniLLM.generate(model, prompt, {max_new_tokens: 8, ...options})].map(({id}) => id);
          return prompts.map((prompt) => [run(prompt, {cache}), run(prompt)]);
        }""",
        prompts,
    )
    assert all(cached == fresh for cached, fresh in found)
    computed = tab.evaluate(
        """(ids) => {
          const {model} = loaded, cache = new MiniLLM.KVCache(model.config);
          const count = () => {
            let tokens = 0;
            MiniLLM.read(model, ids, cache, {residual: (layer) => { tokens += layer === 0; }});
            return tokens;
          };
          return [count(), count()];
        }""",
        IDS,
    )
    assert computed == [len(IDS), 1]


REPLY = """(ids) => {
  const {tokenizer} = loaded;
  const model = {
    config: loaded.model.config,
    forward(id, cache) { // says the ids, one after the other, once the question is read
      cache.ids.push(id);
      const logits = new Float32Array(tokenizer.vocab_size);
      const next = ids[Math.max(0, cache.length - length)];
      logits[next ?? tokenizer.special_id("<|assistant_end|>")] = 1;
      return logits;
    },
  };
  const messages = [{role: "user", content: "好"}];
  const {length} = tokenizer.render_for_completion(messages);
  return [...MiniLLM.reply(model, tokenizer, messages)];
}"""


def test_an_answer_grows_by_whole_characters(tab: Any) -> None:
    tokenizer = small.tokenizer()
    put(tab, small.model(), tokenizer)
    text = "好🐰\ufeff的，龘"
    pieces = tab.evaluate(REPLY, tokenizer.encode(text))
    assert "".join(pieces) == text
    assert len(pieces) > len(text)
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(tab.evaluate(REPLY, tokenizer.encode(text)[:-1])) == text[:-1] + "\ufffd"


def test_what_cannot_be_read_is_named(tab: Any) -> None:
    strange = page.page_weights(small.model(), small.tokenizer()).replace(b'"I8"', b'"I4"')
    message = tab.evaluate(
        "(w) => { try { MiniLLM.load(w); } catch (error) { return error.message; } }",
        base64.b64encode(strange).decode(),
    )
    assert "no way to read I4" in message
    other = RustBPETokenizer(small.tokenizer().mergeable_ranks, r"\S+|\s+")
    with pytest.raises(UserError, match="split pattern"):
        page.page_weights(small.model(), other)


# --- Widgets ---

PAGE = """<!DOCTYPE html><html lang="zh" data-theme="light"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>t</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="minillm/widgets.css"><script defer src="minillm/start.js"></script>
<p>上文</p><div id="far" style="height: 3000px"></div>{elements}</html>"""
QUESTIONS = "张静住在哪里？|你是谁？"
TIMEOUT = 180_000
"""Milliseconds for an answer: one that knows no end has 256 tokens, and the machine may be busy."""


@pytest.fixture(scope="module")
def island(
    small_lab: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A page with a widget of each kind far down, and barely trained models."""
    small_lab.setattr(lab, "identity", lambda: lab.variant("identity", "sft", max_steps=2))
    folder = tmp_path_factory.mktemp("island")
    shutil.copytree(SCRIPTS, folder / "minillm")
    page.write_site(folder / "minillm" / "weights")
    settings = {"question": "你是谁？", "questions": QUESTIONS}
    elements = [page.element(name, "<p>静止的画面</p>", settings) for name in ("chat", "stages")]
    text = PAGE.replace("{elements}", "\n".join(elements))
    (folder / "page.html").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(params=["http", "file"])
def visitor(request: pytest.FixtureRequest, browser: Any, island: Path) -> Iterator[Visitor]:
    with served(island) as http:
        address = {"http": http, "file": island.as_uri()}[request.param]
        visitor = Visitor(browser, address, viewport={"width": 1000, "height": 700})
        yield visitor
        visitor.context.close()


@pytest.fixture
def here(browser: Any, island: Path) -> Iterator[Visitor]:
    visitor = Visitor(browser, island.as_uri(), viewport={"width": 390, "height": 800})
    yield visitor
    visitor.context.close()


@pytest.fixture(scope="module")
def models(island: Path) -> dict[str, Transformer]:
    """The models of the page, in the numbers that it has."""
    return {m.name: as_stored(m.model, "I8") for m in page.models_of_the_book()}


def answer_of(model: Transformer, question: str, max_new_tokens: int = 256) -> str:
    return "".join(generate.reply(model, lab.tokenizer(), question, max_new_tokens))


def finished(widget: Any) -> None:
    widget.locator(".minillm-log[aria-busy=false]").wait_for(timeout=TIMEOUT)


def test_the_models_of_the_site(island: Path) -> None:
    weights = island / "minillm" / "weights"
    index = weights.joinpath("index.js").read_text(encoding="utf-8")
    listed = json.loads(index.removeprefix("MiniLLM.models = ").removesuffix(";\n"))
    trained = [f"{stage}{end}" for stage in ALL_STAGES for end in ("-1", "")]
    names = ["fresh", *trained, "identity"]
    assert list(listed) == names
    assert listed["sft-1"]["stage"] == "sft"
    assert [entry["step"] for entry in listed.values()] == [0, 1, 3, 1, 3, 1, 3, 1, 2, 2]
    assert {path.stem for path in weights.iterdir()} == {*names, "index", "verifier"}
    assert max(path.stat().st_size for path in weights.iterdir()) < MAX_WEIGHTS


@pytest.fixture
def untrained(small_lab: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache."""
    made = (lab.data, lab.tokenizer_path, lab.tokenizer, lab._ladder_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINILLM_CACHE", str(tmp_path / "cache"))
        for function in made:
            function.cache_clear()
        yield tmp_path / "cache"
    for function in made:
        function.cache_clear()


def test_without_trained_models_nothing_is_written(untrained: Path, tmp_path: Path) -> None:
    with lab.from_the_cache(), pytest.raises(UserError, match=r"python -m minillm\.book\.lab"):
        page.write_site(tmp_path / "site")
    assert not (tmp_path / "site").exists()
    assert not list(untrained.glob("[!.]*"))


def test_nothing_is_loaded_before_it_is_needed(visitor: Visitor) -> None:
    requested: list[str] = []
    visitor.tab.on("request", lambda request: requested.append(request.url.rpartition("/")[2]))
    tab = visitor.open("page.html")
    tab.wait_for_timeout(300)
    assert requested == ["page.html", "widgets.css", "start.js"]
    assert tab.locator("minillm-chat p").inner_text() == "静止的画面"
    chat = visitor.widget("chat")
    assert "widgets.js" in requested
    assert "identity.js" not in requested
    chat.get_by_role("button", name="你是谁？").click()
    finished(chat)
    assert requested.count("identity.js") == 1
    assert "sft.js" not in requested
    assert not visitor.trouble


def test_a_conversation(visitor: Visitor, models: dict[str, Transformer]) -> None:
    chat = visitor.widget("chat")
    log = chat.get_by_role("log")
    chat.get_by_label("训练到").select_option("偏好优化（DPO）")
    chat.get_by_label("说一句话").fill("张静住在哪里？")
    chat.get_by_label("说一句话").press("Enter")
    finished(chat)
    answer = answer_of(models["dpo"], "张静住在哪里？")
    assert answer
    assert log.inner_text().split("\n\n") == ["你：张静住在哪里？", f"它：{answer}"]
    assert chat.get_by_label("说一句话").input_value() == ""
    chat.get_by_label("训练到").select_option("预训练")
    assert log.inner_text() == ""
    assert not visitor.trouble


def test_a_long_conversation_forgets_the_oldest_turns_and_says_so(here: Visitor) -> None:
    """As ``minillm chat`` does, in the same place."""
    chat = here.widget("chat")
    tokenizer, window = lab.tokenizer(), lab.identity().window
    question = "小兔" * 18
    assert window / 3 > len(tokenizer.render_for_completion([Message("user", question)])) > 15
    for _ in range(4):
        chat.get_by_label("说一句话").fill(question)
        chat.get_by_role("button", name="发送").click()
        finished(chat)
    forgotten = chat.locator(".minillm-forgotten")
    said = chat.locator(".minillm-log > p:not(.minillm-note)")
    assert said.count() == 8
    assert 2 <= forgotten.count() <= 6
    assert forgotten.count() % 2 == 0
    assert chat.locator(".minillm-log .minillm-note").all_inner_texts() == [
        "↑ 对话太长，以上的话它已经忘了。"
    ]
    assert "minillm-note" in said.nth(forgotten.count() - 1).evaluate(
        "p => p.nextSibling.className"
    )
    assert not here.trouble


def test_a_question_that_is_too_long_is_left_in_place(here: Visitor) -> None:
    chat = here.widget("chat")
    chat.get_by_label("说一句话").fill("龘" * 200)
    chat.get_by_label("说一句话").press("Enter")
    chat.get_by_text("说短一点").wait_for()
    length = len(lab.tokenizer().render_for_completion([Message("user", "龘" * 200)]))
    assert f"有 {length} 个词元，它最多读 511 个" in chat.inner_text()
    assert chat.get_by_label("说一句话").input_value() == "龘" * 200
    assert chat.get_by_role("log").inner_text() == ""


def test_an_answer_can_be_stopped_and_a_conversation_begun_anew(
    here: Visitor, models: dict[str, Transformer]
) -> None:
    chat = here.widget("chat")
    stop = chat.get_by_role("button", name="停下")
    assert not stop.is_visible()
    chat.get_by_label("说一句话").fill("你是谁？")
    chat.get_by_label("说一句话").press("Enter")
    stop.click()
    finished(chat)
    assert not stop.is_visible()
    chat.get_by_role("button", name="你是谁？").click()
    chat.get_by_role("button", name="重新开始").click()
    finished(chat)
    assert chat.get_by_role("log").inner_text() == ""
    chat.get_by_role("button", name="你是谁？").click()
    finished(chat)
    answer = answer_of(models["identity"], "你是谁？")
    assert chat.locator(".minillm-assistant").all_inner_texts() == [f"它：{answer}"]


def test_one_question_to_every_stage_and_to_every_step(
    visitor: Visitor, models: dict[str, Transformer]
) -> None:
    stages = visitor.widget("stages")
    columns = stages.locator("section")
    titles = ["预训练", "SFT", "DPO", "强化学习", "身份"]
    assert [text.strip() for text in columns.all_inner_texts()] == titles
    stages.get_by_role("button", name="问一问").click()
    columns.last.locator("p[aria-busy=false]").wait_for(timeout=TIMEOUT)
    shown = columns.locator("p").all_inner_texts()
    for name, answer in zip((*ALL_STAGES, "identity"), shown, strict=True):
        said = answer_of(models[name], "你是谁？", max_new_tokens=64).strip()
        assert answer.strip() == (said or "（什么也没有说）")
    slider = stages.get_by_label("训练到")
    slider.press("ArrowRight")
    row = stages.locator("tr", has_text="预训练，第 1 步")
    row.locator("td[aria-busy=false]").wait_for(timeout=TIMEOUT)
    slider.press("End")
    stages.locator("tr", has_text="身份").locator("td[aria-busy=false]").wait_for(timeout=TIMEOUT)
    assert stages.locator("tr").count() == 2
    assert slider.get_attribute("aria-valuetext") == "身份"
    assert not visitor.trouble


@pytest.mark.parametrize("name", ["chat", "stages"])
def test_widgets_fit_a_phone_and_print_their_picture(here: Visitor, name: str) -> None:
    widget = here.widget(name)
    tab = here.tab
    assert tab.evaluate("() => document.scrollingElement.scrollWidth") <= 390
    unnamed = widget.locator(":is(input, select, button):visible").evaluate_all(
        "all => all.filter(e => !(e.textContent || e.ariaLabel || e.labels?.length)).length"
    )
    assert unnamed == 0
    still = widget.get_by_text("静止的画面")
    assert not still.is_visible()
    tab.emulate_media(media="print")
    assert still.is_visible()
    assert not widget.locator(".minillm-live").is_visible()


def test_an_old_browser_is_told_so_and_keeps_the_picture(here: Visitor) -> None:
    here.tab.add_init_script("delete window.IntersectionObserver")
    tab = here.open("page.html")
    assert tab.get_by_text("这个浏览器太旧").count() == 2
    assert tab.get_by_text("静止的画面").count() == 2


def test_weights_that_do_not_arrive_are_named(here: Visitor, island: Path) -> None:
    weights = island / "minillm" / "weights"
    content = weights.joinpath("sft.js").read_bytes()
    weights.joinpath("sft.js").unlink()
    chat = here.widget("chat")
    chat.get_by_label("训练到").select_option("监督微调（SFT）")
    chat.get_by_role("button", name="你是谁？").click()
    chat.get_by_text("权重没有载入").wait_for()
    weights.joinpath("sft.js").write_bytes(content)
    chat.get_by_role("button", name="你是谁？").click()
    finished(chat)
    assert chat.locator(".minillm-assistant").count() == 1


def test_a_notebook_stores_the_bare_element(small_lab: pytest.MonkeyPatch) -> None:
    models = {"sft": small.model()}
    html = page.widget("chat", show.table(["<"], [["a"]]), models, question='"<你>"').data
    assert html.startswith(
        '<minillm-chat class="minillm" data-question="&quot;&lt;你&gt;&quot;" '
        'data-models="[&quot;sft&quot;]">'
    )
    assert show.table(["<"], [["a"]]).data in html
    assert "script" not in html
    with pytest.raises(UserError, match="no widget talk: choose from chat, "):
        page.widget("talk", models=models)


def test_in_jupyter_it_answers_on_the_readers_weights(
    browser: Any, small_lab: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    models = {"我的": lively(), "sft": lively(1)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab, "QUIET", False)
        outputs = [
            page.widget(name, "", models, small.tokenizer(), questions="好")
            for name in ("chat", "chat", "stages")
        ]
    text = "<!DOCTYPE html><meta charset='utf-8'>" + "\n".join(html.data for html in outputs)
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    visitor = Visitor(browser, tmp_path.as_uri(), viewport={"width": 1000, "height": 2000})
    tab = visitor.open("page.html")
    for chat in tab.locator("minillm-chat").all():
        assert chat.locator("option").all_inner_texts() == ["我的", "监督微调（SFT）"]
        chat.get_by_label("训练到").select_option("我的")
        chat.get_by_role("button", name="好").click()
        finished(chat)
        assert chat.locator(".minillm-assistant").inner_text().startswith("它：")
    assert tab.locator("minillm-stages section").count() == 2
    assert tab.locator("minillm-stages input[type=range]").count() == 0
    assert not visitor.trouble
    visitor.context.close()


# --- Sphinx ---

SITE = """:orphan:

# 题

:::{minillm} chat
:questions: 一|二
:alt: 一个窗口

静止的**画面**
:::
"""


def built(folder: Path, page_text: str = SITE, picture: bool = True) -> dict[str, str]:
    """The pages of a small site: one with a widget, one without, and one with a cell's output."""
    source = folder / "source"
    source.mkdir(parents=True)
    (source / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(lab.ROOT / 'book' / '_ext')!r})\n"
        "extensions = ['myst_parser', 'minillm_page']\nmyst_enable_extensions = ['colon_fence']\n"
        f"html_static_path = [{str(lab.ROOT / 'book' / '_static')!r}]\n",
        encoding="utf-8",
    )
    html = page.element("stages", "<p>cell</p>", {})
    texts = {
        "index": page_text,
        "plain": ":orphan:\n\n# 无\n",
        "cell": f":orphan:\n\n# 格\n\n{html}\n",
    }
    for name, text in texts.items():
        (source / f"{name}.md").write_text(
            text.replace(":orphan:", "---\norphan: true\n---"), "utf-8"
        )
    if picture:
        path = page.picture_path(source / "index.md", "chat")
        path.parent.mkdir(parents=True)
        Image.new("RGB", (30, 20)).save(path)
    messages, warnings = io.StringIO(), io.StringIO()
    app = Sphinx(
        source,
        source,
        folder / "html",
        folder / "doctrees",
        "html",
        status=messages,
        warning=warnings,
        freshenv=True,
    )
    app.build()
    found = {name: (folder / "html" / f"{name}.html").read_text("utf-8") for name in texts}
    # Another site was built in this process.
    wrong = [w for w in warnings.getvalue().splitlines() if "is already registered" not in w]
    return {**found, "messages": messages.getvalue(), "warnings": "\n".join(wrong)}


def test_a_page_with_a_widget_gets_its_script(island: Path, tmp_path: Path) -> None:
    pages = built(tmp_path)
    start = '<minillm-chat class="minillm" data-questions="一|二">'
    still = "<p>静止的<strong>画面</strong></p>"
    box = r'<div class="minillm-picture" style="aspect-ratio: 30 / 20">\s*<img (.*?) />\s*</div>'
    found = re.search(
        rf"{re.escape(start)}\s*{box}\s*{still}\s*</minillm-chat>", pages["index"], re.S
    )
    assert found
    assert 'alt="一个窗口"' in found[1]
    assert 'loading="lazy"' in found[1]
    assert 'src="_images/index-chat.png"' in found[1]
    assert (tmp_path / "html" / "_images" / "index-chat.png").exists()
    for name in ("index", "cell"):
        assert pages[name].count("minillm/start.js") == 1
        assert pages[name].count("minillm/widgets.css") == 1
        assert "minillm.book.lab" not in pages[name]
    assert "minillm/" not in pages["plain"]
    written = tmp_path / "html" / "_static" / "minillm"
    assert (written / "weights" / "identity.js").exists()
    assert (written / "minillm.js").exists()
    assert "Note" not in pages["messages"]
    assert pages["warnings"] == ""


def test_a_widget_without_a_picture_is_named(island: Path, tmp_path: Path) -> None:
    pages = built(tmp_path, picture=False)
    assert "Note: index.md has no picture index-chat.png: run python scr" in pages["messages"]
    assert "<img" not in pages["index"]
    assert "静止的" in pages["index"]
    assert pages["warnings"] == ""


def test_a_picture_is_told_in_words(island: Path, tmp_path: Path) -> None:
    pages = built(tmp_path, SITE.replace(":alt: 一个窗口\n", ""))
    assert "index-chat.png is not told in words: give :alt: to the widget" in pages["warnings"]


def test_without_trained_models_a_page_says_which_command_makes_them(
    untrained: Path, tmp_path: Path
) -> None:
    pages = built(tmp_path)
    for name in ("index", "cell"):
        assert "start.js" not in pages[name]
        assert pages[name].count("<code>python -m minillm.book.lab</code>") == 1
    assert re.search(r"(?m)^Note: .*: run `python -m minillm\.book\.lab`", pages["messages"])
    weights = tmp_path / "html" / "_static" / "minillm" / "weights"
    assert {path.name for path in weights.iterdir()} == {"index.js", "vocabularies.js"}
    assert (weights / "index.js").read_text(encoding="utf-8") == "MiniLLM.models = {};\n"


@pytest.mark.parametrize("name", page.WITHOUT_MODEL)
def test_without_trained_models_what_needs_none_is_alive(
    browser: Any, untrained: Path, tmp_path: Path, name: str
) -> None:
    pages = built(
        tmp_path, SITE.replace("chat", name).replace("questions: 一|二", "text: 一二|一三")
    )
    assert "minillm.book.lab" not in pages["index"]
    assert "minillm.book.lab" in pages["cell"]
    visitor = Visitor(browser, (tmp_path / "html").as_uri())
    tab = visitor.open("index.html")
    drawn = ".minillm-bars" if name == "ngram" else ".minillm-token"
    tab.locator(f"minillm-{name} .minillm-live {drawn}").first.wait_for()
    assert not visitor.trouble
    visitor.context.close()


def test_an_unknown_widget_is_an_error(island: Path, tmp_path: Path) -> None:
    pages = built(tmp_path, SITE.replace("chat", "chart"))
    assert re.search(
        r"index.md:\d+: ERROR: .*no widget chart: choose from chat, ", pages["warnings"]
    )
