"""The data mix, against the json module and collections.Counter. [Numbers] are handbook rows."""

from __future__ import annotations

import errno
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data import mix
from minillm.data.categories import category_in
from minillm.data.importer import ImportOptions, run_import
from minillm.data.mix import CATEGORIES, MIX_PRESETS, MixOptions, build
from minillm.data.readers import MAX_ROW_BYTES, parse_line
from minillm.data.rows import Message, Role, in_a_chat
from minillm.errors import UserError
from minillm.microworld.identity import Persona

Rows = list[dict[str, Any]]
HAN = [chr(c) for c in range(0x4E00, 0x4E00 + 2000)]


def words(seed: object, n: int = 12) -> str:
    return "".join(random.Random(str(seed)).choices(HAN, k=n))


def chat(question: str, answer: str = "好。", **fields: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **fields}


def chats(name: str, n: int) -> Rows:
    return [chat(words((name, i)), words((name, i, "answer")), id=f"{name}{i}") for i in range(n)]


def pairs(n: int) -> Rows:
    good, bad = chats("pair", n), chats("pair", n)
    for i, row in enumerate(bad):
        row["messages"][1]["content"] = words(("bad", i))
    return [
        {"chosen": g["messages"], "rejected": b["messages"], "id": f"pair{i}"}
        for i, (g, b) in enumerate(zip(good, bad, strict=True))
    ]


def save(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return path


def read(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


@pytest.fixture
def options(tmp_path: Path) -> MixOptions:
    """No category is asked for, so that tests can ask for theirs; nothing is held out."""
    return MixOptions(
        data_dir=tmp_path / "chinese",
        out_dir=tmp_path / "processed",
        **dict.fromkeys(["general", "knowledge", "math", "identity", "preference"], 0),
        built_in_text=0,
        val_fraction=0,
    )


@pytest.fixture
def mixed(options: MixOptions) -> MixOptions:
    """Some of everything, with duplicates across files and bad rows."""
    data = options.data_dir
    save(data / "general_a.jsonl", chats("a", 60))
    save(data / "general_b.jsonl", chats("b", 60) + chats("a", 20))
    save(data / "knowledge.jsonl", chats("a", 30) + chats("k", 10))
    save(data / "math401.jsonl", chats("m", 5))
    save(data / "identity_conversations.jsonl", chats("i", 8))
    save(data / "preference_x.jsonl", [*pairs(40), {"chosen": 1, "rejected": 2}])
    save(data / "text_books.jsonl", [{"text": words(("t", i), 30)} for i in range(20)])
    with (data / "general_b.jsonl").open("ab") as file:
        file.write(b'{"messages": [\n\xff\n')
    return replace(
        options, general=100, knowledge=90, math=11, identity=6, preference=30, val_fraction=0.1
    )


def content(row: dict[str, Any]) -> str:
    """A row without its metadata."""
    return json.dumps([row.get(name) for name in ("text", "messages", "chosen", "rejected")])


def outputs(out_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out_dir.iterdir()}


# --- Quotas, repeats and proportions --------------------------------------------------------------


def test_targets_are_met_exactly(options: MixOptions) -> None:
    """[2.1] [2.5] Down to the target without repeats, up to it with copies as even as can be."""
    save(options.data_dir / "general_a.jsonl", chats("a", 150))
    save(options.data_dir / "general_b.jsonl", chats("b", 150))
    save(options.data_dir / "knowledge.jsonl", chats("k", 7))
    save(options.data_dir / "math.jsonl", chats("m", 20))
    save(options.data_dir / "preference.jsonl", pairs(9))
    report = build(replace(options, general=120, knowledge=50, math=20, preference=40))
    ids = Counter(row["id"] for row in read(options.out_dir / "sft_chinese.jsonl"))
    by_category = Counter[str]()
    for name, count in ids.items():
        by_category[{"a": "general", "b": "general"}.get(name[0], name[0])] += count
    assert by_category == {"general": 120, "k": 50, "m": 20}
    assert {ids[f"k{i}"] for i in range(7)} == {7, 8}
    assert {count for name, count in ids.items() if name[0] in "abm"} == {1}
    dpo = Counter(row["id"] for row in read(options.out_dir / "dpo_chinese.jsonl"))
    assert sum(dpo.values()) == 40
    assert set(dpo.values()) == {4, 5}
    assert {name: c.rows for name, c in report.categories.items() if c.rows} == {
        "general": 120,
        "knowledge": 50,
        "math": 20,
        "preference": 40,
    }
    assert report.categories["knowledge"].repeats == 43
    assert report.categories["general"].share == pytest.approx(120 / 230)
    # [9.2] Too little data is no error, but is said.
    advice = [note for note in report.notes if "more data" in note]
    assert len(advice) == 2
    assert "knowledge" in advice[0]
    assert "preference" in advice[1]


def test_sample_is_spread_over_the_files(options: MixOptions) -> None:
    save(options.data_dir / "general_a.jsonl", chats("a", 300))
    save(options.data_dir / "general_b.jsonl", chats("b", 300))
    build(replace(options, general=200))
    ids = [row["id"][0] for row in read(options.out_dir / "sft_chinese.jsonl")]
    assert 70 < ids.count("a") < 130  # 100 ± 4.5 standard deviations (hypergeometric: 5.8 each)
    assert 70 < ids[:100].count("a") + ids[100:].count("b") < 130  # and shuffled


def test_identity_comes_twice(options: MixOptions) -> None:
    """[2.6] [7.2]"""
    save(options.data_dir / "identity_conversations.jsonl", chats("i", 30))
    build(replace(options, identity=20))
    for name in ("sft", "pretrain"):
        ids = Counter(row["id"] for row in read(options.out_dir / f"{name}_chinese.jsonl"))
        assert len(ids) == 20
        assert set(ids.values()) == {2}
    build(replace(options, identity=20, identity_repeat=3))
    ids = Counter(row["id"] for row in read(options.out_dir / "sft_chinese.jsonl"))
    assert len(ids) == 20
    assert set(ids.values()) == {3}


def test_identity_comes_in_a_chat_too(options: MixOptions) -> None:
    talks = [chat(words(("g", i), 4)) for i in range(200)]
    wanted: dict[str, Any] = {"identity": 20, "general": 150, "val_fraction": 0.2}
    save(options.data_dir / "identity_conversations.jsonl", chats("i", 30))
    save(options.data_dir / "general.jsonl", [*talks, chat("长" * 200), *chats("g", 3)])
    build(replace(options, identity_in_chats=True, **wanted))
    trained = read(options.out_dir / "sft_chinese.jsonl")
    mine = [row for row in trained if str(row.get("id")).startswith("i")]
    alone, last = ([r for r in mine if (len(r["messages"]) > 2) == way] for way in (False, True))
    assert {row["id"] for row in alone} == {row["id"] for row in last}
    assert len(alone) == len(last) == 20
    own = {row["id"]: row["messages"] for row in alone}
    others = [row["messages"] for row in trained if row not in mine]
    for row in last:
        *earlier, question, answer = row["messages"]
        assert [question, answer] == own[row["id"]]
        assert sum(3 + len(turn["content"]) for turn in row["messages"]) <= 115
        assert all(earlier[i : i + 2] in others for i in range(0, len(earlier), 2))
    held_out = read(options.out_dir / "sft_chinese_val.jsonl")
    assert all(len(row["messages"]) == 2 for row in held_out)
    before = (options.out_dir / "sft_chinese.jsonl").read_bytes()
    build(replace(options, identity_in_chats=True, **wanted))
    assert (options.out_dir / "sft_chinese.jsonl").read_bytes() == before


def test_what_stands_before_a_conversation_fits_into_a_chat() -> None:
    def turns(size: int, role: Role = "user") -> list[Message]:
        return [Message(role, "长" * (size - 6 - 10)), Message("assistant", "好" * 10)]

    mine = turns(35)
    assert in_a_chat(mine, [turns(40), turns(41), turns(40)]) == turns(40) + turns(40) + mine  # 115
    assert in_a_chat(mine, [turns(81), turns(30, "tool")]) == mine
    assert in_a_chat([Message("system", "短"), *mine], [turns(30)])[1:] == mine


def test_a_system_message_stays_the_first(options: MixOptions) -> None:
    talk = chat("在吗", "在")
    system = {"role": "system", "content": "你是助手"}
    mine = {"messages": [system, *chat("你是谁", "阿秤")["messages"]], "id": "i"}
    save(options.data_dir / "identity_conversations.jsonl", [mine])
    save(options.data_dir / "general.jsonl", [talk, {"messages": [system, *talk["messages"]]}])
    build(replace(options, identity_in_chats=True, identity=1, general=2))
    roles = [
        [turn["role"] for turn in row["messages"]]
        for row in read(options.out_dir / "sft_chinese.jsonl")
        if row.get("id") == "i"
    ]
    assert roles == [["system", "user", "assistant"]] * 2


def test_defaults_are_the_handbook_s() -> None:
    """[2.1] [2.6]"""
    default = MIX_PRESETS["default"]
    assert [default.target(name) for name in CATEGORIES] == [
        None,
        460_000,
        100_000,
        8_000,
        1_000,
        60_000,
    ]
    assert default.identity_repeat == 2
    assert not default.identity_in_chats
    assert default.data_dir == Path("data/chinese")
    assert default.out_dir == Path("data/processed")


# --- What is written ------------------------------------------------------------------------------


def test_rows_keep_their_fields_and_carry_a_source(options: MixOptions) -> None:
    """[2.3] [2.7]"""
    fields = {
        "id": 2**63 - 1,
        "score": 0.1,
        "none": None,
        "nested": {"标签": ["闲聊", {"x": [1, 2.5, True]}], "emoji": "\U0001f600"},
    }
    question, answer = "一加一？\n“二”\\", "2\t\u2028 <|bos|>"
    alpaca = {"instruction": "问", "input": "题", "output": "答", "lang": "zh"}
    own_source = chat("有来源", source="belle/3", **fields)
    save(options.data_dir / "general_x.jsonl", [chat(question, answer, **fields), own_source])
    save(options.data_dir / "math_y.jsonl", [alpaca, chat("空来源", source=None, text="a field")])
    save(options.data_dir / "preference_z.jsonl", [{**pairs(1)[0], **fields}])
    build(replace(options, general=2, math=2, preference=1))
    sft = {
        row["messages"][0]["content"]: row for row in read(options.out_dir / "sft_chinese.jsonl")
    }
    assert sft[question] == {**chat(question, answer), **fields, "source": "general_x"}
    assert sft["有来源"] == own_source
    assert sft["问\n题"] == {**chat("问\n题", "答"), **alpaca, "source": "math_y"}
    assert sft["空来源"]["source"] == "math_y"
    assert sft["空来源"]["text"] == "a field"
    pretrain = {row["text"]: row for row in read(options.out_dir / "pretrain_chinese.jsonl")}
    assert set(pretrain) == {f"{question}\n{answer}", "有来源\n好。", "问\n题\n答", "空来源\n好。"}
    assert pretrain[f"{question}\n{answer}"] == {
        "text": f"{question}\n{answer}",
        **fields,
        "source": "general_x",
    }
    assert pretrain["有来源\n好。"]["source"] == "belle/3"
    (pair,) = read(options.out_dir / "dpo_chinese.jsonl")
    assert pair == {**pairs(1)[0], **fields, "source": "preference_z"}


def test_texts_are_for_pretraining_only(options: MixOptions) -> None:
    texts = [{"text": words(("t", i)), "n": i} for i in range(50)]
    save(options.data_dir / "text_books.jsonl", texts)
    save(options.data_dir / "general_x.jsonl", [{"text": "对话里的文本"}, chat("问", "答")])
    report = build(replace(options, general=2))
    written = read(options.out_dir / "pretrain_chinese.jsonl")
    expected = {row["text"] for row in texts} | {"对话里的文本", "问\n答"}
    assert sorted(row["text"] for row in written) == sorted(expected)
    assert [row["messages"] for row in read(options.out_dir / "sft_chinese.jsonl")] == [
        chat("问", "答")["messages"]
    ]
    assert report.categories["text"].rows == 50
    assert report.categories["general"].rows == 2


def test_every_output_can_be_read_again(mixed: MixOptions) -> None:
    build(mixed)
    for stage, kind in (("pretrain", "Text"), ("sft", "Chat"), ("dpo", "Pair")):
        for line in (mixed.out_dir / f"{stage}_chinese.jsonl").read_bytes().splitlines():
            raw, row = parse_line(line)
            assert type(row).__name__ == kind
            assert raw["source"]


def test_persona_is_filled_in(options: MixOptions) -> None:
    rows = [chat("你是谁？", "我是{{name}}，{{author}}训练的。"), {"text": "{{name}}是个模型。"}]
    save(options.data_dir / "identity_conversations.jsonl", rows)
    save(options.data_dir / "general.jsonl", [chat("模板怎么写？", "写 {{name}}。")])
    build(replace(options, identity=2, general=1, persona_name="小米", persona_author="李雷"))
    text = (options.out_dir / "pretrain_chinese.jsonl").read_text("utf-8")
    assert text.count("我是小米，李雷训练的。") == 2
    assert text.count("小米是个模型。") == 2
    assert text.count("{{") == text.count("写 {{name}}。") == 1
    assert "我是小米，李雷训练的。" in (options.out_dir / "sft_chinese.jsonl").read_text("utf-8")


# --- Determinism ----------------------------------------------------------------------------------


def test_same_seed_same_bytes(mixed: MixOptions) -> None:
    build(mixed)
    first = outputs(mixed.out_dir)
    build(mixed)
    assert outputs(mixed.out_dir) == first
    build(replace(mixed, seed=7))
    second = outputs(mixed.out_dir)
    assert second["sft_chinese.jsonl"] != first["sft_chinese.jsonl"]
    assert {content(row) for row in read(mixed.out_dir / "sft_chinese.jsonl")} != {
        content(json.loads(line)) for line in first["sft_chinese.jsonl"].splitlines()
    }, "another seed must take another sample, not only another order"


def test_pieces_do_not_change_the_result(
    mixed: MixOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Notes are stored, and rows written, many at once; how many makes no difference."""
    build(mixed, len)
    whole = outputs(mixed.out_dir)
    monkeypatch.setattr(mix, "PIECE", 7)
    build(mixed, len)
    assert outputs(mixed.out_dir) == whole
    assert set(whole) == {*mix.OUTPUTS, "quarantine.jsonl", "mix_report.json"}


@settings(deadline=None)
@given(st.lists(st.binary(max_size=12)), st.booleans())
def test_lines_are_found_where_they_stand(parts: list[bytes], bom: bool) -> None:
    data = b"\xef\xbb\xbf" * bom + b"\n".join(parts)
    found = list(mix.lines_of(BytesIO(data)))
    split = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    expected = [line + b"\n" for line in split[:-1]] + ([split[-1]] if split[-1] else [])
    if data == b"\xef\xbb\xbf":
        expected = [b""]
    assert [line for _, line in found] == expected
    assert all(data[offset : offset + len(line)] == line for offset, line in found)


def test_few_files_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mix, "OPEN_FILES", 2)
    paths = [save(tmp_path / f"{i}.jsonl", [{"text": str(i)}]) for i in range(5)]
    files = [mix.InputFile(path, None, f"source {i}") for i, path in enumerate(paths)]
    with mix.Fetcher(files) as fetch:
        for i in (0, 1, 2, 0, 4, 3, 3):
            note = mix.Note(0, 0, 0, file=i, offset=0, length=13, bytes_read=0)
            assert fetch(note) == {"text": str(i), "source": f"source {i}"}
            assert len(fetch.open) <= 2


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(0, 200))
def test_copies_are_even(different: int, target: int) -> None:
    copies = mix.even_copies(different, target).tolist()
    assert len(copies) == different
    assert copies == sorted(copies, reverse=True)
    if different:
        assert sum(copies) == target
        assert copies[0] - copies[-1] <= 1


def test_shuffling_keeps_every_copy() -> None:
    copies = np.array([2, 0, 1, 300])
    order = mix.shuffled(copies, seed=0).tolist()
    assert Counter(order) == {0: 2, 2: 1, 3: 300}
    assert order != sorted(order)
    assert order == mix.shuffled(copies, seed=0).tolist() != mix.shuffled(copies, seed=1).tolist()


# --- Validation -----------------------------------------------------------------------------------


def documents(path: Path) -> set[str]:
    """The texts of a file's rows; of a pair, of its chosen side."""
    if not path.exists():
        return set()
    return {
        row.get("text")
        or "\n".join(turn["content"] for turn in row.get("messages") or row["chosen"])
        for row in read(path)
    }


def test_no_validation_document_is_trained_on(mixed: MixOptions) -> None:
    """Not even where the same document is in another file, another category or another format."""
    texts = [{"text": "\n".join(t["content"] for t in row["messages"])} for row in chats("a", 60)]
    save(mixed.data_dir / "text_same.jsonl", texts)
    save(mixed.data_dir / "math_few.jsonl", chats("a", 2))
    for seed in range(5):
        report = build(replace(mixed, val_fraction=0.3, seed=seed))
        trained, held_out = set[str](), set[str]()
        for stage in ("pretrain", "sft", "dpo"):
            trained |= documents(mixed.out_dir / f"{stage}_chinese.jsonl")
            held_out |= documents(mixed.out_dir / f"{stage}_chinese_val.jsonl")
        assert held_out
        assert not held_out & trained
        for category in report.categories.values():
            assert 0.1 < category.held_out / category.distinct < 0.5 or category.distinct < 20


def test_validation_rows_are_few_and_come_once(
    options: MixOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(options.data_dir / "general.jsonl", chats("g", 1000))
    report = build(replace(options, general=3000, val_fraction=0.1))
    ids = Counter(row["id"] for row in read(options.out_dir / "sft_chinese_val.jsonl"))
    assert set(ids.values()) == {1}
    assert 60 < len(ids) < 140  # 100 ± 4 standard deviations
    assert report.categories["general"].validation_rows == len(ids)
    assert report.outputs["sft_chinese_val.jsonl"] == len(ids)
    build(replace(options, general=200, val_fraction=0.1))
    assert len(read(options.out_dir / "sft_chinese_val.jsonl")) == 20  # in proportion to the target
    monkeypatch.setattr(mix, "MAX_VALIDATION_ROWS", 5)
    build(replace(options, general=3000, val_fraction=0.1))
    assert len(read(options.out_dir / "sft_chinese_val.jsonl")) == 5
    assert report.categories["general"].rows == 3000
    build(replace(options, general=3000))
    assert not (options.out_dir / "sft_chinese_val.jsonl").exists()  # stale ones would mislead


def test_held_out_documents_stay_so_whatever_the_seed(options: MixOptions) -> None:
    save(options.data_dir / "general.jsonl", chats("g", 300))
    held_out = set[str]()
    for seed in range(3):
        build(replace(options, general=300, val_fraction=0.1, seed=seed))
        held_out |= documents(options.out_dir / "sft_chinese_val.jsonl")
    assert not held_out & documents(options.out_dir / "sft_chinese.jsonl")


def test_category_of_nothing_but_held_out_rows_is_trained_on(options: MixOptions) -> None:
    """The user's only two identity rows must not both vanish into validation."""
    rows = chats("g", 200)
    save(options.data_dir / "general.jsonl", rows)
    build(replace(options, general=200, val_fraction=0.2))
    held_out = read(options.out_dir / "sft_chinese_val.jsonl")
    few = [row for row in rows if row["id"] in {h["id"] for h in held_out[:2]}]
    save(options.data_dir / "identity_conversations.jsonl", few)
    report = build(replace(options, general=200, identity=2, val_fraction=0.2))
    trained = Counter(row["id"] for row in read(options.out_dir / "sft_chinese.jsonl"))
    assert [trained[row["id"]] for row in few] == [2, 2]
    held_out_ids = {row["id"] for row in read(options.out_dir / "sft_chinese_val.jsonl")}
    assert held_out_ids
    assert not held_out_ids & set(trained)
    assert report.categories["identity"].held_out == 0


# --- Duplicates -----------------------------------------------------------------------------------

small_chats = st.lists(st.text("一二\n", min_size=1, max_size=2), min_size=1, max_size=3).map(
    lambda said: {
        "messages": [
            {"role": role, "content": text + "。"}
            for answer in said
            for role, text in (("user", "问"), ("assistant", answer))
        ]
    }
)


@settings(max_examples=25, deadline=None)
@given(st.lists(small_chats, min_size=1, max_size=40), st.integers(0, 2**32))
def test_duplicates_are_counted_exactly(
    tmp_path_factory: pytest.TempPathFactory, rows: Rows, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("mix")
    half = len(rows) // 2
    save(folder / "general_a.jsonl", [{**row, "id": i} for i, row in enumerate(rows[:half])])
    save(folder / "general_b.jsonl", [{"n": 1.5, **row} for row in rows[half:]])
    zero = dict.fromkeys(["knowledge", "math", "identity", "preference"], 0)
    options = MixOptions(folder, folder / "out", general=100, val_fraction=0, seed=seed, **zero)
    report = build(replace(options, built_in_text=0)).categories["general"]
    different = {content(row) for row in rows}
    assert report.read == len(rows)
    assert report.distinct == len(different)
    assert report.duplicates == len(rows) - len(different)
    copies = Counter(content(row) for row in read(folder / "out" / "sft_chinese.jsonl"))
    assert set(copies) == different
    assert max(copies.values()) - min(copies.values()) <= 1


def test_duplicates_are_the_category_s_own(options: MixOptions) -> None:
    rows = chats("a", 10)
    save(options.data_dir / "general_a.jsonl", rows + rows[:4])
    save(options.data_dir / "general_b.jsonl", [{**row, "id": "other"} for row in rows[:3]])
    save(options.data_dir / "math.jsonl", rows)
    report = build(replace(options, general=10, math=10))
    assert report.categories["general"].duplicates == 7
    assert report.categories["math"].duplicates == 0
    ids = {row["id"] for row in read(options.out_dir / "sft_chinese.jsonl")}
    assert ids == {f"a{i}" for i in range(10)}  # the first of equal rows is kept


def test_same_words_in_other_roles_are_no_duplicate(options: MixOptions) -> None:
    turns = [("user", "一"), ("assistant", "二"), ("user", "三"), ("assistant", "四")]
    as_system = [("system", "一"), ("user", "二\n三"), ("assistant", "四")]
    rows = [
        {"messages": [{"role": role, "content": text} for role, text in said]}
        for said in (turns, as_system)
    ]
    save(options.data_dir / "general.jsonl", [*rows, {"text": "一\n二\n三\n四"}])
    report = build(replace(options, general=3)).categories["general"]
    assert (report.distinct, report.duplicates) == (3, 0)


# --- Bad input ------------------------------------------------------------------------------------

BAD_LINES = {
    "broken JSON": (b'{"messages": [', "JSON"),
    "not UTF-8": (b'{"text": "\xff\xfe"}', "UTF-8"),
    "lone surrogate": (rb'{"text": "\ud800"}', "JSON"),
    "no object": (b"42", "object"),
    "no known format": (b'{"foo": 1}', "foo"),
    "wrong type": (b'{"messages": {"role": "user"}}', "array"),
    "empty text": (b'{"text": "  "}', "empty"),
    "empty content": (
        b'{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "x"}]}',
        "messages[0].content",
    ),
    "unknown role": (b'{"messages": [{"role": "robot", "content": "x"}]}', "robot"),
    "no reply": (b'{"messages": [{"role": "user", "content": "x"}]}', "reply"),
    "a pair": (json.dumps(pairs(1)[0]).encode(), "preference pair"),
}


@pytest.mark.parametrize("kind", BAD_LINES)
def test_bad_rows_are_set_aside(options: MixOptions, kind: str) -> None:
    line, reason = BAD_LINES[kind]
    rows = chats("g", 40)
    path = save(options.data_dir / "general_x.jsonl", rows[:30])
    with path.open("ab") as file:
        file.write(b"\r\n  \n" + line + b"\n")
        file.writelines(json.dumps(row).encode() + b"\r\n" for row in rows[30:])
        file.write(line)
    options = replace(options, general=40)
    report = build(options)
    assert sorted(r["id"] for r in read(options.out_dir / "sft_chinese.jsonl")) == sorted(
        row["id"] for row in rows
    )
    assert report.quarantined == report.files[0].quarantined == 2
    assert report.files[0].rows == report.categories["general"].read == 40
    bad = read(options.out_dir / "quarantine.jsonl")
    assert [(row["path"], row["line"]) for row in bad] == [(str(path), 33), (str(path), 44)]
    assert all(
        reason in row["reason"] and set(row) == {"path", "line", "reason", "raw"} for row in bad
    )
    assert bad[0]["raw"] == line.decode(errors="replace")[:200]

    before = outputs(options.out_dir)
    with pytest.raises(UserError, match=r"general_x\.jsonl:33: .*") as error:
        build(replace(options, strict=True, seed=1))
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
    assert outputs(options.out_dir) == before


def test_conversation_among_pairs_and_texts(options: MixOptions) -> None:
    save(options.data_dir / "preference.jsonl", [*pairs(2), chat("问"), {"text": "文"}])
    save(options.data_dir / "text.jsonl", [{"text": "文"}, chat("问")])
    report = build(replace(options, preference=2))
    assert report.categories["preference"].read == 2
    assert report.categories["text"].rows == 1
    assert [
        (r["line"], r["reason"].split()[0]) for r in read(options.out_dir / "quarantine.jsonl")
    ] == [
        (3, "preference"),
        (4, "preference"),
        (2, "text"),
    ]


def test_very_long_line_and_bom(options: MixOptions) -> None:
    path = options.data_dir / "general_x.jsonl"
    path.parent.mkdir()
    rows = [json.dumps(row).encode() for row in chats("g", 3)]
    long = b'{"text": "' + b"x" * (50 << 20) + b'"}'
    path.write_bytes(b"\xef\xbb\xbf" + rows[0] + b"\n" + long + b"\n" + rows[1] + b"\n\n" + rows[2])
    report = build(replace(options, general=3))
    assert report.categories["general"].read == 3
    (bad,) = read(options.out_dir / "quarantine.jsonl")
    assert bad["line"] == 2
    assert "longer than 16 MiB" in bad["reason"]
    assert len(bad["raw"]) == 200
    ids = {row["id"] for row in read(options.out_dir / "sft_chinese.jsonl")}
    assert ids == {"g0", "g1", "g2"}


def test_files_that_cannot_be_read(options: MixOptions) -> None:
    save(options.data_dir / "general.jsonl", chats("g", 3))
    (options.data_dir / "math_empty.jsonl").touch()
    (options.data_dir / "math_folder.jsonl").mkdir()
    (options.data_dir / "belle.json").write_text("[]")
    report = build(replace(options, general=3))
    assert report.quarantined == 2
    assert {
        Path(row["path"]).name: row["line"] for row in read(options.out_dir / "quarantine.jsonl")
    } == {
        "math_empty.jsonl": 0,
        "math_folder.jsonl": 0,
    }
    said = "\n".join(report.notes)
    assert "math_empty.jsonl: the file is empty" in said
    assert "math_folder.jsonl: cannot be read" in said
    assert "belle.json: not read; `minillm import`" in said
    with pytest.raises(UserError, match=r"math_empty\.jsonl: the file is empty"):
        build(replace(options, general=3, strict=True))


def test_file_whose_name_says_no_category(options: MixOptions) -> None:
    save(options.data_dir / "misc.jsonl", [chat("问"), *pairs(2), {"text": "文本"}])
    report = build(replace(options, general=1, preference=2))
    assert {name: c.read for name, c in report.categories.items() if c.read} == {
        "text": 1,
        "general": 1,
        "preference": 2,
    }
    assert any("misc.jsonl" in note and "general" in note for note in report.notes)


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("text.jsonl", "text"),
        ("text_books.jsonl", "text"),
        ("text-books.jsonl", "text"),
        ("text.books.jsonl", "text"),
        ("text小说.jsonl", "text"),
        ("math401.jsonl", "math"),
        ("identity_conversations.jsonl", "identity"),
        ("textbook_qa.jsonl", None),
        ("textbook-text.jsonl", None),
        ("mathematics.jsonl", None),
        ("generally.jsonl", None),
        ("my_math.jsonl", None),
        ("2024.jsonl", None),
        (".jsonl", None),
    ],
)
def test_category_in_a_file_s_name(name: str, category: str | None) -> None:
    assert category_in(name) == category


def test_name_that_only_sounds_like_a_category(options: MixOptions) -> None:
    """Its conversations are not texts; nothing of it is lost, and what it counts as is said."""
    for name in ("textbook_qa", "mathematics", "generally"):
        save(options.data_dir / f"{name}.jsonl", [*chats(name, 3), {"text": words(name)}])
    save(options.data_dir / "identity_conversations.jsonl", chats("i", 2))
    report = build(replace(options, general=9, identity=2))
    assert report.quarantined == 0
    assert {name: c.read for name, c in report.categories.items() if c.read} == {
        "general": 9,
        "text": 3,
        "identity": 2,
    }
    for name in ("textbook_qa", "mathematics", "generally"):
        (note,) = (note for note in report.notes if f"{name}.jsonl" in note)
        assert "its name begins with none of text_" in note
        assert "conversations count as general, its pairs as preference, its texts as text" in note


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_longest_row(options: MixOptions, mark: bytes, end: bytes) -> None:
    """What ends a line and what marks a file are no part of the row."""
    row = b'{"text":"%s"}' % (b"x" * (MAX_ROW_BYTES - 11))
    assert len(row) == MAX_ROW_BYTES
    path = options.data_dir / "general_x.jsonl"
    path.parent.mkdir()
    path.write_bytes(mark + row + end)
    report = build(replace(options, general=1))
    assert (report.categories["general"].rows, report.quarantined) == (1, 0)
    path.write_bytes(mark + row[:-2] + b'y"}' + end)
    report = build(replace(options, general=1))
    assert report.quarantined == 1


def test_row_that_becomes_too_long(options: MixOptions) -> None:
    """It would end the stage that reads it."""
    half = "x" * (MAX_ROW_BYTES // 2)
    row = {"instruction": "q", "output": half, "note": half[:-100]}
    save(options.data_dir / "general.jsonl", [row, chat("q", "a")])
    report = build(replace(options, general=1))
    assert (report.categories["general"].rows, report.quarantined) == (1, 1)
    (bad,) = read(options.out_dir / "quarantine.jsonl")
    assert "longer than 16 MiB" in bad["reason"]


def test_imported_rows_are_never_set_aside(options: MixOptions, tmp_path: Path) -> None:
    """A row of every format that the readers know, as `minillm import` writes it."""
    raws: Rows = [
        {"instruction": "q", "input": "i", "output": "a", "history": [["q", "a"]], "system": "s"},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"conversation": [{"human": "q", "assistant": "a"}]},
        {"question": "q", "A": "1", "B": 2, "C": "3", "D": "4", "answer": "C"},
        {"context": "c", "question": "q", "answers": [{"text": "a"}]},
        {"sentence": "s", "label": "Positive"},
        {"original_text": "q", "equation": "x=1", "ans": 1},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"text": "t"},
    ]
    save(tmp_path / "raw.jsonl", raws)
    paths = (tmp_path / "raw.jsonl",)
    quarantine = tmp_path / "bad.jsonl"
    run_import(ImportOptions(paths, "general", "raw", options.data_dir, quarantine))
    report = build(replace(options, general=len(raws)))
    assert report.quarantined == 0
    assert report.categories["general"].read == len(raws)


def test_row_nested_in_another_format(options: MixOptions) -> None:
    """What is written is the row, not what it was wrapped in."""
    question = {"text": "只有文字", "id": 7}
    nested = {"data": [{"title": "t", "paragraphs": [{"context": "c", "qas": [question]}]}]}
    save(options.data_dir / "general.jsonl", [nested])
    build(replace(options, general=1))
    (row,) = read(options.out_dir / "pretrain_chinese.jsonl")
    assert row["text"] == "只有文字"
    assert "data" not in row


@pytest.mark.parametrize(
    ("row", "stages"),
    [
        ({"messages": None, "text": "文"}, ["pretrain"]),
        ({"chosen": None, "rejected": None, "text": "文"}, ["pretrain"]),
        ({**chat("问"), "chosen": None, "rejected": None}, ["sft", "pretrain"]),
        (chat("问", text="own"), ["sft", "pretrain"]),
        ({**pairs(1)[0], "messages": None}, ["dpo"]),
    ],
)
def test_null_fields_decide_nothing(row: dict[str, Any], stages: list[str]) -> None:
    written = mix.stage_rows(row)
    assert [stage for stage, _ in written] == stages
    assert all(out.get("text") for stage, out in written if stage == "pretrain")


@pytest.mark.parametrize(
    ("wrong", "flag"),
    [
        ({"general": -1}, "--general"),
        ({"identity_repeat": 0}, "--identity_repeat"),
        ({"val_fraction": 0.6}, "--val_fraction"),
        ({"out_dir": Path("data/../data/chinese")}, "--out_dir"),
    ],
)
def test_wrong_options(wrong: dict[str, Any], flag: str) -> None:
    with pytest.raises(UserError, match=flag):
        MixOptions(**wrong)


# --- Interruptions --------------------------------------------------------------------------------


def test_no_space_leaves_earlier_files(mixed: MixOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    build(mixed)
    before = outputs(mixed.out_dir)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mix, "write", full)
    with pytest.raises(UserError, match="no space left"):
        build(replace(mixed, seed=1))
    assert outputs(mixed.out_dir) == before


def test_what_a_killed_build_left_behind_is_removed(mixed: MixOptions) -> None:
    (mixed.out_dir / ".building" / "notes").mkdir(parents=True)
    (mixed.out_dir / ".building" / "notes" / "00").write_bytes(b"junk")
    build(mixed)
    assert set(outputs(mixed.out_dir)) >= {"sft_chinese.jsonl", "mix_report.json"}
    assert not (mixed.out_dir / ".building").exists()


@pytest.mark.parametrize("now", [b"", b"4" * 100_000, b"[]" + b" " * 100_000])
def test_file_that_changes_meanwhile(
    mixed: MixOptions, monkeypatch: pytest.MonkeyPatch, now: bytes
) -> None:
    original = mix.choose_copies

    def change_and_choose(*arguments: Any) -> Any:
        (mixed.data_dir / "general_a.jsonl").write_bytes(now)
        return original(*arguments)

    monkeypatch.setattr(mix, "choose_copies", change_and_choose)
    with pytest.raises(UserError, match=r"general_a\.jsonl: changed while it was read"):
        build(mixed)
    assert outputs(mixed.out_dir) == {}


def test_file_that_vanishes_meanwhile(mixed: MixOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    find = mix.find_files

    def find_and_lose(folder: Path) -> Any:
        found = find(folder)
        (folder / "general_b.jsonl").unlink()
        return found

    monkeypatch.setattr(mix, "find_files", find_and_lose)
    with pytest.raises(UserError, match=r"general_b\.jsonl: No such file"):
        build(mixed)


# --- Built-in rows --------------------------------------------------------------------------------


def test_built_in_rows_where_there_is_no_data(options: MixOptions) -> None:
    """[2.2]"""
    options = replace(
        options, general=50, knowledge=30, math=20, identity=10, preference=15, built_in_text=40
    )
    report = build(options, len)
    assert "no such folder" in report.notes[0]
    assert all(category.built_in for category in report.categories.values())
    rows = read(options.out_dir / "sft_chinese.jsonl")
    assert Counter(row["source"] for row in rows) == {
        "builtin:general": 50,
        "builtin:knowledge": 30,
        "builtin:math": 20,
        "builtin:identity": 20,
    }
    assert len(read(options.out_dir / "dpo_chinese.jsonl")) == 15
    text = (options.out_dir / "pretrain_chinese.jsonl").read_text("utf-8")
    assert Persona.name in text
    assert "{{" not in text
    assert report.quarantined == 0
    assert report.files == []

    # An identity file of one's own changes nothing for the others ...
    save(options.data_dir / "identity_conversations.jsonl", chats("i", 10))
    report = build(options)
    assert {name for name, c in report.categories.items() if not c.built_in} == {"identity"}
    # ... but with any other data, the built-in texts stay out.
    save(options.data_dir / "general.jsonl", chats("g", 50))
    report = build(options)
    assert {name for name, c in report.categories.items() if c.built_in} == {
        "knowledge",
        "math",
        "preference",
    }
    assert report.categories["text"].rows == 0


def test_built_in_rows_are_announced(
    options: MixOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each category, with the number of rows, and a note in the report."""
    save(options.data_dir / "general.jsonl", chats("g", 50))
    options = replace(options, general=50, knowledge=30, math=20, identity=10)
    report = build(options)
    lines = capsys.readouterr().err.splitlines()
    for name, rows in (("knowledge", 30), ("math", 20), ("identity", 20)):
        (line,) = (line for line in lines if f"no rows of {name} in {options.data_dir}" in line)
        assert f"{rows} BUILT-IN rows" in line
        assert "--built_in none" in line
        assert report.categories[name].rows == rows
    assert not any("no rows of general" in line for line in lines)
    (note,) = (note for note in report.notes if "built-in" in note)
    assert "knowledge 30, math 20, identity 20" in note
    assert note in report.table()


def test_without_built_in_rows(options: MixOptions, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the user has no rows of is left out, identity and texts included, and said so."""
    save(options.data_dir / "general.jsonl", chats("g", 50))
    wanted = replace(
        options, general=50, knowledge=30, math=20, identity=10, preference=15, built_in_text=40
    )
    report = build(replace(wanted, built_in="none"))
    assert not any(category.built_in for category in report.categories.values())
    assert {name for name, c in report.categories.items() if c.rows} == {"general"}
    for stage, rows in (("pretrain", 50), ("sft", 50), ("dpo", 0)):
        written = read(options.out_dir / f"{stage}_chinese.jsonl")
        assert len(written) == rows
        assert not any(row["source"].startswith("builtin:") for row in written)
    said = capsys.readouterr().err
    for name in ("knowledge", "math", "identity", "preference"):
        assert f"no rows of {name} in {options.data_dir}: left out" in said
    assert "BUILT-IN" not in said
    (note,) = (note for note in report.notes if "left out" in note)
    assert note.endswith("knowledge, math, identity, preference")
    assert any("dpo_chinese.jsonl has no rows" in note for note in report.notes)
    assert not any("rows are repeated" in note for note in report.notes)
    # The user's own rows are the same as beside built-in ones.
    build(wanted)
    own = [row for row in read(options.out_dir / "sft_chinese.jsonl") if "id" in row]
    assert {row["id"] for row in own} == {f"g{i}" for i in range(50)}


@pytest.mark.parametrize("bad_rows", [0, 2])
def test_nothing_to_train_on(options: MixOptions, bad_rows: int) -> None:
    options.data_dir.mkdir()
    if bad_rows:
        (options.data_dir / "general.jsonl").write_text("nonsense\n" * bad_rows)
    options = replace(options, general=50, built_in_text=40)
    build(options)
    before = outputs(options.out_dir)
    with pytest.raises(UserError, match=r"no rows to train on.* --built_in none") as error:
        build(replace(options, built_in="none"))
    assert ("2 cannot be used" in str(error.value)) == bool(bad_rows)
    assert outputs(options.out_dir) == before


def test_texts_stand_in_once(options: MixOptions) -> None:
    """Also where the target of texts is a number, as in the smoke preset."""
    report = build(replace(options, text=40, built_in_text=40))
    assert (report.categories["text"].read, report.categories["text"].duplicates) == (40, 0)


def test_file_of_bad_rows_counts_as_no_data(options: MixOptions) -> None:
    options.data_dir.mkdir()
    (options.data_dir / "math.jsonl").write_text("nonsense\n")
    report = build(replace(options, math=5))
    assert report.categories["math"].built_in
    assert report.categories["math"].rows == 5
    assert report.quarantined == 1


def test_few_built_in_rows_are_generated_and_repeated(
    options: MixOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mix, "BUILT_IN_ROWS", 10)
    report = build(replace(options, general=100)).categories["general"]
    assert (report.read, report.rows) == (10, 100)


def test_smoke_preset(tmp_path: Path) -> None:
    smoke = replace(MIX_PRESETS["smoke"], data_dir=tmp_path / "none", out_dir=tmp_path / "out")
    report = build(smoke)
    assert report.outputs["sft_chinese.jsonl"] == 400 + 100 + 50 + 2 * 50
    assert all(report.outputs.values()), "every stage has something to validate on"


# --- Report ---------------------------------------------------------------------------------------


def test_report(mixed: MixOptions) -> None:
    report = build(mixed, len)
    written = msgspec.json.decode(
        (mixed.out_dir / "mix_report.json").read_bytes(), type=mix.MixReport
    )
    assert written == report
    rows = {name: read(mixed.out_dir / name) for name in report.outputs}
    assert {name: len(found) for name, found in rows.items()} == report.outputs
    sources = Counter(
        row["source"]
        for name in ("pretrain", "dpo")  # every row of sft is in pretrain too
        for row in rows[f"{name}_chinese.jsonl"]
    )
    counted = sum(
        (Counter(category.sources) for category in report.categories.values()), Counter[str]()
    )
    assert counted == sources
    assert sum(category.share for category in report.categories.values()) == pytest.approx(1)
    assert report.quarantined == 3
    table = report.table()
    assert "~" in table
    table.encode("ascii")  # so any terminal can show it
    assert "preference_x" in table
    assert "rows quarantined: 3" in table
    assert {file.path.rsplit("/")[-1]: (file.rows, file.quarantined) for file in report.files} == {
        "general_a.jsonl": (60, 0),
        "general_b.jsonl": (80, 2),
        "identity_conversations.jsonl": (8, 0),
        "knowledge.jsonl": (40, 0),
        "math401.jsonl": (5, 0),
        "preference_x.jsonl": (40, 1),
        "text_books.jsonl": (20, 0),
    }


def test_estimate_of_tokens(options: MixOptions) -> None:
    lengths = random.Random(0).choices(range(5, 300), k=2000)
    rows = [chat(words(i), words(-i, n)) for i, n in enumerate(lengths)]
    save(options.data_dir / "general.jsonl", rows)
    report = build(replace(options, general=1500), len).categories["general"]
    written = read(options.out_dir / "pretrain_chinese.jsonl")
    assert report.tokens == pytest.approx(sum(len(row["text"]) for row in written), rel=0.02)
    assert build(replace(options, general=1500)).categories["general"].tokens is None


def test_too_many_sources_are_not_counted(
    options: MixOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mix, "MAX_SOURCES", 5)
    save(options.data_dir / "general.jsonl", [chat(str(i), source=f"page {i}") for i in range(9)])
    save(options.data_dir / "math.jsonl", chats("m", 9))
    report = build(replace(options, general=9, math=9))
    assert report.categories["general"].sources is None
    assert report.categories["math"].sources == {"math": 9}
    assert "(general: many)" in report.table()


# --- Memory ---------------------------------------------------------------------------------------


def peak_memory(options: MixOptions) -> int:
    """Bytes that a process needs at most to build the mix."""
    code = (
        "import sys; from pathlib import Path; from minillm.data.mix import MixOptions, build;"
        "build(MixOptions(Path(sys.argv[1]), Path(sys.argv[2]), general=2000, knowledge=0, math=0,"
        " identity=0, preference=0));"
        "print(Path('/proc/self/status').read_text())"
    )
    command = [sys.executable, "-c", code, str(options.data_dir), str(options.out_dir)]
    status = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # Not ru_maxrss: that counts what the parent, which is larger, held when it started the process.
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_data(options: MixOptions) -> None:
    """[2.4]"""

    def rows(n: int) -> Iterator[str]:
        text = words("long", 20_000)
        for i in range(n):
            yield json.dumps(chat(str(i), text[i % 19_000 :][:1000]), ensure_ascii=False) + "\n"

    options.data_dir.mkdir()
    path = options.data_dir / "general.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(rows(4000))
    small = peak_memory(options)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(rows(20_000))
    assert path.stat().st_size > 58e6
    assert peak_memory(options) < small + 12e6


def test_texts_can_be_limited(options: MixOptions) -> None:
    save(options.data_dir / "text_a.jsonl", [{"text": f"第{i}篇"} for i in range(300)])
    report = build(replace(options, text=40, val_fraction=0.1))
    assert (report.categories["text"].rows, report.categories["text"].repeats) == (40, 0)
    with pytest.raises(UserError, match="--text must be at least 0, not -1"):
        replace(options, text=-1)
