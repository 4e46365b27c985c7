"""What the book draws says what it is given, is the same on every run, and harms no page."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import pytest
import small
import torch
from matplotlib import rcParams

from minillm.book import show
from minillm.microworld import scoring
from minillm.model.generate import generate
from minillm.model.transformer import MLP, Transformer
from minillm.tokenizer.vocabulary import RustBPETokenizer
from minillm.training import objectives
from minillm.training.dataset import TokenDataset, load_dataset
from minillm.training.packing import PackedRows

PNG = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
def tokenizer() -> RustBPETokenizer:
    return small.tokenizer()


def text_of(html: str) -> str:
    return re.sub("<[^>]*>", "", html)


# ---- source ----


def test_source_is_the_code_itself() -> None:
    shown = show.source(objectives.next_token_loss).data
    assert shown.startswith("`minillm/training/objectives.py`")
    assert "def next_token_loss(model: Model, batch: Batch) -> Loss:" in shown
    assert "Cross-entropy of the next token" in shown
    assert show.source(generate).data.startswith("`minillm/model/generate.py`")  # decorated


def test_source_keeps_no_words_to_the_type_checker() -> None:
    assert "type: ignore" in inspect.getsource(MLP)
    assert "type: ignore" not in show.source(MLP).data


def test_source_without_docstrings_is_still_python() -> None:
    shown = show.source(objectives.next_token_loss, objectives.Loss, Transformer, doc=False).data
    assert "Cross-entropy of the next token" not in shown
    for block in re.findall("```python\n(.*?)\n```", shown, re.DOTALL):
        compile(block, "shown", "exec")


def test_excerpt_shows_whole_lines_and_says_when_they_are_gone() -> None:
    shown = show.excerpt(objectives.per_document, "sums = ", "return sums").data
    assert shown == (
        "`minillm/training/objectives.py`\n\n```python\n"
        "sums = values.new_zeros(batch.num_documents + 1)\n```"
    )
    with pytest.raises(ValueError, match="not found"):
        show.excerpt(objectives.per_document, "no such line", "return sums")


# ---- text ----


def test_tokens_show_every_token_under_every_vocabulary(tokenizer: RustBPETokenizer) -> None:
    text = "小猫看见3只鸟。"
    html = show.tokens(text, {"small": tokenizer, "again": tokenizer}).data
    count = len(tokenizer.encode(text))
    assert html.count("<span") == 2 * count
    assert html.count(f"{count} 个词元") == 2


def test_half_a_character_is_shown_as_its_bytes(tokenizer: RustBPETokenizer) -> None:
    assert "E7" in text_of(show.tokens("画", {"small": tokenizer}).data)


def test_loss_mask_colours_what_is_learned(tokenizer: RustBPETokenizer) -> None:
    ids, mask = tokenizer.render_conversation(small.conversation("1加1？", "等于2。"))
    html = show.loss_mask(ids, mask, tokenizer).data
    legend = 2
    assert len(re.findall(r"mask 1", html)) == sum(mask)
    assert len(re.findall(r"mask 0", html)) == len(mask) - sum(mask)
    assert html.count("0.45") == sum(mask) + legend // 2
    assert "&lt;|assistant_start|&gt;" in html


def test_what_a_model_says_cannot_become_html() -> None:
    html = show.spine({"fresh": ["<script>alert(1)</script>", "a\x00b", "长" * 100]}).data
    assert "<script" not in html
    assert "\x00" not in html
    assert "长" * 60 + "…" in html
    for prompt in scoring.SHOWCASE:
        assert prompt in html


def test_table_shades_by_number_and_marks_what_is_missing() -> None:
    html = show.table(
        ["", "score"], [["a", 1.0], ["b", 0.5], ["c", float("nan")]], [None, "#0072B2"]
    )
    assert "rgba(0,114,178,0.40)" in html.data
    assert "rgba(0,114,178,0.20)" in html.data
    assert text_of(html.data).endswith("a1.00b0.50c–")


def test_skills_have_a_column_for_each_stage() -> None:
    result = {
        "continuations": {"fact": 0.25},
        "accuracy": {"fact": 0.5},
        "multiple_choice": {"accuracy": 0.75},
        "polite": 0.0,
        "identity_hit_rate": 1.0,
    }
    text = text_of(
        show.skills({"pretrain": result, "dpo": {**result, "dpo": {"accuracy": 0.9}}}).data
    )
    assert text.startswith("预训练DPO")
    assert "continue fact0.250.25" in text
    assert "DPO accuracy–0.90" in text


def test_spread_shows_the_mean_above_the_lowest_and_the_highest() -> None:
    runs = {"mean": 0.5, "std": 0.2, "min": 0.25, "max": 0.875, "values": [0.25, 0.375, 0.875]}
    scores = {"pretrain": {"polite": runs}, "dpo": {"polite": runs, "answer add": runs}}
    html = show.spread(scores, {"回答得客气": "polite", "加": "answer add"}).data
    assert text_of(html.replace("<br>", " ")) == (
        "预训练DPO回答得客气0.50 0.25–0.880.50 0.25–0.88加–0.50 0.25–0.88"
    )
    assert html.count(show._rgba(show.COLOURS["dpo"], 0.2)) == 2, "shaded by the mean"


# ---- attention ----


def test_attention_weights_give_the_models_own_attention_output() -> None:
    """Checked against the output that ``scaled_dot_product_attention`` gives inside the model."""
    model = small.model()
    ids = list(range(10))
    outputs: list[torch.Tensor] = []
    inputs: list[torch.Tensor] = []
    attention = model.model.layers[1].self_attn
    attention.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    attention.register_forward_hook(lambda *args: outputs.append(args[2]))
    with torch.no_grad():
        weights = show.attention_weights(model, ids)
        v = attention.v_proj(inputs[0]).view(1, 10, -1, model.config.head_dim).transpose(1, 2)
        y = weights[1] @ v.repeat_interleave(2, dim=1)[0]
        expected = attention.o_proj(y.transpose(0, 1).reshape(1, 10, -1))
    torch.testing.assert_close(outputs[0], expected)
    assert weights.shape == (2, 4, 10, 10)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 10))
    assert weights.triu(1).abs().max() == 0


def test_attention_weights_are_the_softmax_by_hand() -> None:
    """Of the first layer's first and last head, which read different keys."""
    model, ids = small.model(), list(range(5, 14))
    layer, D = model.model.layers[0], model.config.head_dim
    with torch.no_grad():
        x = layer.input_layernorm(model.model.embed_tokens(torch.tensor([ids])))[0]
        weights = show.attention_weights(model, ids)[0]
        q, k = layer.self_attn.q_proj(x), layer.self_attn.k_proj(x)
    for head, key_head in ((0, 0), (3, 1)):
        for t in range(len(ids)):
            scores = []
            for s in range(t + 1):
                score = 0.0
                for i in range(D // 2):  # the angle between q and k is that of their distance
                    pair = [head * D + i, head * D + i + D // 2]
                    a = torch.complex(*q[t, pair])
                    pair = [key_head * D + i, key_head * D + i + D // 2]
                    b = torch.complex(*k[s, pair])
                    angle = (t - s) / model.config.rope_theta ** (2 * i / D)
                    turn = torch.polar(torch.tensor(1.0), torch.tensor(angle))
                    score += float((a * turn * b.conj()).real)
                scores.append(score / D**0.5)
            expected = torch.tensor(scores).softmax(-1)
            torch.testing.assert_close(weights[head, t, : t + 1], expected, atol=1e-5, rtol=1e-4)


def test_looking_at_attention_changes_nothing(tokenizer: RustBPETokenizer) -> None:
    model, ids = small.model(), torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        alone = model(ids)
        with show._Weights() as weights:
            assert torch.equal(model(ids), alone)
        model(ids)
    assert len(weights.found) == model.config.num_hidden_layers
    html = show.attention(model, tokenizer, "小猫", layer=0, head=0).data
    assert html.count("<td") == (1 + len(tokenizer.encode("小猫"))) ** 2
    assert text_of(html).endswith("注意力： 0　 0.25　 0.5　 0.75　 1"), "a key to the shades"


# ---- figures ----


def log(steps: int) -> list[dict[str, float]]:
    entries: list[dict[str, float]] = [
        {"step": i + 1, "loss": 5 / (i + 1), "learning_rate": 0.1} for i in range(steps)
    ]
    entries[-1]["val_loss"] = 0.5
    return entries


def packed(tmp_path_factory: pytest.TempPathFactory) -> TokenDataset:
    folder = tmp_path_factory.mktemp("rows")
    path = small.write_rows(folder / "sft.jsonl", small.rows("sft"))
    return load_dataset(path, "sft", small.tokenizer(), 32, folder / "cache")


FIGURES: dict[str, Callable[[], show.Picture]] = {
    "bars": lambda: show.bars({"text": 57_920, "math": 8_000}, "rows"),
    "lines": lambda: show.lines({"a": ([1, 2], [3, 4])}, "step", "loss", log_x=True, marker="o"),
    "listed": lambda: show.lines({"a": ([1, 2], [3, 4])}, "step", "loss", legend=True),
    "points": lambda: show.points(
        {"small": ([1, 10], [4, 3])},
        "parameters",
        "loss",
        {"small": ([1, 10], [4, 3]), "law": ([1, 100], [4, 2.5])},
        {"forecast": (100, 2.5, 2.25, 3.0)},
    ),
    "panels": lambda: show.panels({"loss": {"a": ([1, 2], [3, 4])}, "length": {}}, "step"),
    "curves": lambda: show.curves({"pretrain": log(5), "dpo": log(3)}),
    "histogram": lambda: show.histogram({"before": [-1.0, 0.0], "after": [1.0, 2.0]}, "margin"),
    "intervals": lambda: show.intervals(
        {
            "整齐": {"诗人": (0.9, 0.8, 0.95), "打乱": (0.1, 0.0, 0.2)},
            "押韵": {"诗人": (1, 0.9, 1)},
        },
        {"诗人": show.GREY},
    ),
    "intervals of bits": lambda: show.intervals(
        {"留出": {"诗": (7.75, 7.5, 8.0)}}, {}, limits=(4, 8), unit="比特/字", line=6
    ),
    "flow": lambda: show.flow([("rows", "JSONL"), ("batch", "[B, T]")]),
    "skip": lambda: show.flow([("x", ""), ("MLP", "[C]"), ("+", "")], skips=[(0, 2)]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_a_png_and_the_same_on_every_run(name: str) -> None:
    before = dict(rcParams)
    (first, told), second = (FIGURES[name]()._repr_png_() for _ in range(2))
    assert first.startswith(PNG)
    assert (first, told) == second
    assert dict(rcParams) == before, "the reader's own plots keep their style"


@pytest.mark.filterwarnings("error::UserWarning")  # matplotlib's: a glyph is missing
def test_labels_are_chinese_where_they_need_to_be() -> None:
    show.bars({"床前明月光，疑是地上霜。": 2.0, "loss": 1.0}, "词元（千）")._repr_png_()
    with pytest.raises(UserWarning, match="missing"):
        show.bars({"\ue000": 1.0}, "")._repr_png_()  # a sign that no font has


def test_a_figure_tells_its_data_to_those_who_cannot_see_it() -> None:
    told = {name: draw()._repr_png_()[1]["alt"] for name, draw in FIGURES.items()}
    assert told["bars"] == "text 57,920，math 8,000"
    assert told["lines"] == told["listed"] == "a 从 3 到 4"
    assert told["points"] == "small 从 4 到 3；law 从 4 到 2.5；forecast 2.5，从 2.25 到 3"
    assert told["curves"].startswith(
        "预训练 的损失从 5 到 2.28，学习率最高 0.1；第 5 步验证 0.5；DPO 的损失从 5"
    )
    assert told["histogram"] == "before 的平均数 -0.5，从 -1 到 0；after 的平均数 1.5，从 1 到 2"
    assert told["intervals"] == "整齐：诗人 90%，打乱 10%；押韵：诗人 100%"
    assert told["intervals of bits"] == "留出：诗 7.75"
    assert told["flow"] == "rows JSONL → batch [B, T]"
    assert told["skip"] == "x → MLP [C] → +；绕过中间，第 1 个 x → 第 3 个 +"
    swing = show.lines({"b": ([1, 2, 3], [0.5, 0.125, 1])}, "step", "loss")
    assert swing.data == "b 从 0.5 到 1，其间最低 0.125，最高 1"
    beside = show.panels({"loss": {"b": ([1, 2], [2, 1])}, "length": {"b": ([1, 2], [3, 4])}}, "x")
    assert beside.data == "loss，b 从 2 到 1；length，b 从 3 到 4"


def test_chance_is_a_line_through_all_rows() -> None:
    picture = show.intervals({"题": {"一": (0.3, 0.2, 0.4)}}, {}, limits=(0, 0.5), line=0.25)
    (axes,) = picture.figure.axes
    assert [list(line.get_xdata()) for line in axes.lines][-1] == [0.25, 0.25]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "25%", "50%"]


def test_an_interval_that_would_be_cut_off_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"二: 2\.5 to 3 is beyond 4 to 8"):
        show.intervals({"": {"一": (5, 4, 6), "二": (2.7, 2.5, 3)}}, {}, (4, 8), "比特/字")


def test_a_sentence_quotes_a_model_without_its_markup() -> None:
    said = show.say(f"它说{show.quote('*8* | <b>$2$</b> [a](b)')}，", f"对了 {7 / 8:.2f}。")
    assert said.data == r"它说“\*8\* \| \<b\>\$2\$\</b\> \[a\]\(b\)”，对了 0.88。"


def test_what_skips_boxes_of_a_flow_ends_above_the_place_where_it_is_added() -> None:
    axes = FIGURES["skip"]().figure.axes[0]
    circle, stream = axes.lines
    arrow = axes.texts[-1]
    assert list(stream.get_xdata())[-1] == circle.get_xdata()[0] == arrow.xy[0]
    box = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert stream.get_xdata()[0] > box.x1, "it leaves after the first box"
    assert min(stream.get_ydata()[1:]) > box.y1, "and passes above the others"


def test_steps_are_whole_on_the_axis() -> None:
    steps = range(1, 21)  # matplotlib alone would say 2.5, 5.0, 7.5
    curve = {"a": (steps, list(steps))}
    for picture in (show.lines(curve, "step", "y"), show.panels({"y": curve}, "step")):
        assert all(float(tick).is_integer() for tick in picture.figure.axes[0].get_xticks())
    halves = show.lines({"a": ([0.25, 0.5, 1.0], [1, 2, 3])}, "share", "y")
    assert not all(float(tick).is_integer() for tick in halves.figure.axes[0].get_xticks())


def test_names_of_lines_that_end_together_do_not_overlap() -> None:
    picture = show.lines(
        {"a": (["x", "y"], [0, 1.0]), "b": (["x", "y"], [0, 0.99]), "c": (["x", "y"], [0, 0.0])},
        "stage",
        "score",
    )
    a, b, c = (text.xyann[1] for text in picture.figure.axes[0].texts)
    assert a - b >= 10
    assert c == 0
    assert show._spread([0.0, 5.0, 100.0], gap=12.0) == [-3.5, 8.5, 100.0]


def test_a_line_that_covers_another_leaves_its_edges_seen() -> None:
    same = ([1, 2], [0.5, 0.0])
    axes = show.lines({"a": same, "b": same}, "x", "y", legend=True).figure.axes[0]
    under, over = (line.get_linewidth() for line in axes.lines)
    assert under >= over + 1
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]


def test_packing_draws_each_document_and_its_learned_part(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    batch = PackedRows(packed(tmp_path_factory), 32, 1, 0).batch(range(3))
    picture = show.packing(batch)
    axes = picture.figure.axes[0]
    widths = [patch.get_width() for patch in axes.patches]
    assert sum(w for w in widths if w > 1) >= int((batch.document_ids >= 0).sum())
    assert len(axes.lines) == batch.num_documents
    assert picture._repr_png_()[0].startswith(PNG)


def test_smoothing_is_the_mean_of_the_last_values() -> None:
    assert show.smooth([1.0, 2.0, 3.0, 4.0], window=2) == [1.0, 1.5, 2.5, 3.5]


def test_characters_are_spelled_in_bytes_with_the_shared_ones_coloured(
    tokenizer: RustBPETokenizer,
) -> None:
    assert {c: tokenizer.encode(c) for c in "禾烦"} == {c: list(c.encode()) for c in "禾烦"}
    html = show.spelled("禾烦猫", tokenizer, {"烦": 1234}).data
    rows = [text_of(row) for row in html.split("<tr>")[1:]]
    assert [row.replace(" ", "") for row in rows] == [
        "禾E7A6BE0次",
        "烦E783A61,234次",
        "猫E78CAB0次",
    ]
    shown = re.findall(r"background:(rgba\([^)]*\))[^>]*>([^<]+)<", html)
    assert len({colour for colour, code in shown if code in ("E7", "A6")}) == 1
    (grey,) = {colour for colour, code in shown if code in ("BE", "83", "8C", "AB")}
    assert grey not in {colour for colour, code in shown if code in ("E7", "A6")}


def test_large_numbers_are_said_in_chinese() -> None:
    said = {n: show.in_words(n) for n in (5, 1_000, 20_000, 25_829_888, 3e8, 2e12, 1e16)}
    assert list(said.values()) == [
        "5",
        "1,000",
        "2 万",
        "2,583 万",
        "3 亿",
        "2 万亿",
        "10,000 万亿",
    ]
