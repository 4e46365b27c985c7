"""Rows to sequences, sequences to packed batches: nothing lost, nothing leaked."""

from __future__ import annotations

import hashlib
import multiprocessing
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from hypothesis import given
from hypothesis import strategies as st

from minillm.config import STAGES, Stage
from minillm.data.rows import Chat, Message, Pair, Text
from minillm.errors import UserError
from minillm.training import dataset
from minillm.training.dataset import (
    Joined,
    TokenDataset,
    fit,
    load_dataset,
    load_shards,
    tokenize_row,
)
from minillm.training.objectives import next_token_loss
from minillm.training.packing import IGNORE_INDEX, PackedRows, collate, pack

TOKENIZER = small.tokenizer()
BOS = TOKENIZER.bos_id


def load(path: Path, stage: Stage, max_seq_len: int = 48) -> TokenDataset:
    return load_dataset(path, stage, TOKENIZER, max_seq_len, path.parent / "cache")


def sequences(data: TokenDataset) -> list[list[int]]:
    return [
        data.ids[a:b].tolist() for a, b in zip(data.offsets[:-1], data.offsets[1:], strict=True)
    ]


def test_pretraining_text_stands_between_two_bos() -> None:
    ((ids, mask),) = tokenize_row("pretrain", Text("小猫"), TOKENIZER)
    assert ids == [BOS, *TOKENIZER.encode("小猫"), BOS]
    assert mask == [0] + [1] * (len(ids) - 1)


def test_conversations_and_pairs_are_rendered() -> None:
    chat = [Message("user", "你好"), Message("assistant", "好")]
    bad = [Message("user", "你好"), Message("assistant", "不")]
    assert tokenize_row("sft", Chat(chat), TOKENIZER) == [TOKENIZER.render_conversation(chat)]
    assert tokenize_row("dpo", Pair(chat, bad), TOKENIZER) == [
        TOKENIZER.render_conversation(chat),
        TOKENIZER.render_conversation(bad),
    ]


@pytest.mark.parametrize(
    ("stage", "row"), [("sft", Text("文")), ("dpo", Chat([Message("user", "问")]))]
)
def test_a_row_of_another_stage_is_refused(stage: Stage, row: Text | Chat) -> None:
    with pytest.raises(ValueError, match=f"{stage} needs a "):
        tokenize_row(stage, row, TOKENIZER)


@given(st.integers(2, 60), st.integers(1, 20))
def test_splitting_keeps_every_label(length: int, limit: int) -> None:
    ids, mask = list(range(length)), [0] + [1] * (length - 1)
    pieces = fit("pretrain", [(ids, mask)], limit)
    assert all(2 <= len(piece) <= limit + 1 for piece, _ in pieces)
    assert [label for piece, _ in pieces for label in piece[1:]] == ids[1:]
    assert [token for piece, _ in pieces for token in piece[:-1]] == ids[:-1]


def test_cutting_drops_what_has_nothing_to_learn() -> None:
    long = (list(range(10)), [0] * 6 + [1] * 4)
    assert fit("sft", [long], 7) == [(list(range(8)), [0] * 6 + [1] * 2)]
    assert fit("sft", [long], 5) == []
    assert fit("dpo", [long, ([0, 1], [0, 1])], 5) == []


@given(st.lists(st.integers(1, 30), min_size=1, max_size=200), st.integers(30, 64))
def test_packing_places_each_unit_once_and_fills_rows(lengths: list[int], capacity: int) -> None:
    sizes = np.array(lengths)
    rows = pack(sizes, capacity, range(len(lengths)))
    assert Counter(u for row in rows for u in row) == Counter(range(len(lengths)))
    assert all(sizes[row].sum() <= capacity for row in rows)
    # A row is only opened for a unit that no open row has room for, so no two rows fit into one.
    filled = sorted(sizes[row].sum() for row in rows)
    assert len(rows) == 1 or filled[0] + filled[1] > capacity


def test_collate_by_hand() -> None:
    data = TokenDataset(
        ids=np.array([1, 2, 3, 4, 5, 6], np.int32),
        mask=np.array([0, 1, 1, 0, 0, 1], np.uint8),
        offsets=np.array([0, 3, 6]),
        unit=1,
    )
    batch = collate(data, [[1, 0], [0]], 5)
    assert batch.input_ids.tolist() == [[4, 5, 1, 2, 0], [1, 2, 0, 0, 0]]
    no = IGNORE_INDEX
    assert batch.labels.tolist() == [[no, 6, 2, 3, no], [2, 3, no, no, no]]
    assert batch.position_ids.tolist() == [[0, 1, 0, 1, 0], [0, 1, 0, 0, 0]]
    assert batch.document_ids.tolist() == [[0, 0, 1, 1, -1], [2, 2, -1, -1, -1]]
    assert batch.num_documents == 3


def test_packed_loss_and_gradients_equal_those_of_single_documents(tmp_path: Path) -> None:
    data = load(small.write_rows(tmp_path / "a.jsonl", small.rows("sft")), "sft")
    gradients = []
    for length, rows in (
        (48, pack(data.positions(), 48, range(len(data)))),
        (48, [[i] for i in range(len(data))]),
    ):
        model = small.model()
        loss = next_token_loss(model, collate(data, rows, length))
        loss.total.backward()
        gradients.append([loss.total.detach(), *(p.grad for p in model.parameters())])
    for packed, alone in zip(*gradients, strict=True):
        assert torch.allclose(packed, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stage", ["pretrain", "sft", "dpo"])
def test_datasets_hold_the_rows_of_the_file(tmp_path: Path, stage: Stage) -> None:
    rows = small.rows(stage)
    data = load(small.write_rows(tmp_path / "rows.jsonl", rows), stage, 100)
    assert len(data) == data.rows == len(rows)
    assert data.cut == data.dropped == 0
    if stage == "pretrain":
        texts = [TOKENIZER.decode(ids[1:-1]) for ids in sequences(data)]
        assert texts == [row["text"] for row in rows]
    else:
        sides = [
            [row["messages"]] if stage == "sft" else [row["chosen"], row["rejected"]]
            for row in rows
        ]
        assert sequences(data) == [
            TOKENIZER.render_conversation(m)[0] for side in sides for m in side
        ]


def test_long_answers_are_cut_with_a_warning_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"messages": small.conversation("短", "短")},
        {"messages": small.conversation("短", "很长" * 60)},
        {"messages": small.conversation("很长" * 60, "短")},
    ]
    data = load(small.write_rows(tmp_path / "rows.jsonl", rows), "sft")
    assert (data.rows, data.cut, data.dropped, len(data)) == (3, 2, 1, 2)
    warning = capsys.readouterr().err
    assert "2 of 3 rows are longer than --max_seq_len 48 and are cut" in warning
    assert "1 have no answer left and are dropped" in warning


def test_the_cache_follows_content_tokenizer_and_length(tmp_path: Path) -> None:
    path = small.write_rows(tmp_path / "rows.jsonl", small.rows("pretrain"))
    cache = tmp_path / "cache"
    load(path, "pretrain")
    load(path, "pretrain")
    assert len(list(cache.glob("[!.]*"))) == 1
    load(path, "pretrain", 32)
    small.write_rows(path, small.rows("pretrain", 3))
    assert len(load(path, "pretrain")) == 3
    assert len(list(cache.glob("[!.]*"))) == 3


def test_two_processes_may_build_the_cache_at_once(tmp_path: Path) -> None:
    path = small.write_rows(tmp_path / "rows.jsonl", small.rows("pretrain", 500))
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=load, args=(path, "pretrain")) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list((tmp_path / "cache").glob("[!.]*"))) == 1


def test_what_a_killed_run_left_in_the_cache_goes(tmp_path: Path) -> None:
    path = small.write_rows(tmp_path / "rows.jsonl", small.rows("pretrain"))
    load(path, "pretrain")
    (folder,) = (tmp_path / "cache").glob("[!.]*")
    folder.rename(folder.with_name(f"{folder.name}.tmp"))
    (folder.with_name(f"{folder.name}.tmp") / "ids.bin").write_bytes(b"half")
    assert len(load(path, "pretrain")) == 24
    assert list((tmp_path / "cache").glob("[!.]*")) == [folder]


def test_of_several_processes_one_tokenizes(tmp_path: Path) -> None:
    path = small.write_rows(tmp_path / "rows.jsonl", small.rows("pretrain", 100))
    calls = tmp_path / "calls"

    def counted(*arguments: Any) -> Any:
        with calls.open("a") as file:
            file.write("x")
        time.sleep(0.3)
        return tokenize(*arguments)

    tokenize = dataset.tokenize_file
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "tokenize_file", counted)
        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=load, args=(path, "pretrain")) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    assert calls.read_text() == "x"


def test_bad_rows_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "好"}\n{"text": 3}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"rows\.jsonl:2: .*text"):
        load(path, "pretrain")
    path.write_text('{"text": "好"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"rows\.jsonl:1: sft needs a conversation"):
        load(path, "sft")
    assert list((tmp_path / "cache").glob("[!.]*")) == []


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl: no such file.*build_chinese_mix"):
        load(tmp_path / "none.jsonl", "pretrain")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UserError, match=r"empty\.jsonl"):
        load(tmp_path / "empty.jsonl", "pretrain")


def in_shards(folder: Path, stage: Stage, *sizes: int) -> list[Path]:
    """The rows of a stage, cut into files of so many rows."""
    ends = np.cumsum(sizes).tolist()
    rows = small.rows(stage, ends[-1])
    return [
        small.write_rows(folder / f"part-{end}.jsonl", rows[end - size : end])
        for size, end in zip(sizes, ends, strict=True)
    ]


def load_all(paths: list[Path], stage: Stage, **processes: int) -> TokenDataset:
    return load_shards(paths, stage, TOKENIZER, 48, paths[0].parent / "cache", **processes)


@pytest.mark.parametrize("stage", STAGES)
def test_shards_give_the_batches_of_one_file(tmp_path: Path, stage: Stage) -> None:
    one = load(small.write_rows(tmp_path / "one.jsonl", small.rows(stage, 60)), stage)
    several = load_all(in_shards(tmp_path, stage, 17, 1, 42), stage)
    assert (several.rows, several.cut, several.unit) == (one.rows, one.cut, one.unit)
    assert several.offsets.tolist() == one.offsets.tolist()
    assert several.usual_length() == one.usual_length()
    rows = [PackedRows(data, 48, epochs=2, seed=3) for data in (one, several)]
    assert [*rows[0]] == [*rows[1]]
    for i in range(0, len(rows[0]), 7):
        a, b = (part.batch(range(i, i + 7)) for part in rows)
        for name in ("input_ids", "labels", "position_ids", "document_ids"):
            assert torch.equal(getattr(a, name), getattr(b, name))


def test_the_hash_of_shards_is_that_of_their_hashes_in_order(tmp_path: Path) -> None:
    paths = in_shards(tmp_path, "pretrain", 9, 15)
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    expected = hashlib.sha256("".join(hashes).encode()).hexdigest()
    assert load_all(paths, "pretrain").sha256 == expected
    assert load_all(paths[::-1], "pretrain").sha256 != expected
    assert load_all(paths[:1], "pretrain").sha256 == hashes[0]


def test_another_shard_is_the_only_one_to_be_tokenized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *paths, added = in_shards(tmp_path, "sft", 9, 9, 6)
    load_all(paths, "sft")
    tokenized = []
    tokenize = dataset.tokenize_file
    monkeypatch.setattr(
        dataset,
        "tokenize_file",
        lambda path, *rest: tokenized.append(path) or tokenize(path, *rest),
    )
    assert len(load_all([*paths, added], "sft")) == 24
    assert tokenized == [added]


def test_processes_begin_at_different_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = in_shards(tmp_path, "pretrain", 3, 4, 5, 6)
    order: list[Path] = []
    load_one = dataset.load_dataset

    def noted(path: Path, *rest: Any) -> TokenDataset:
        order.append(path)
        return load_one(path, *rest)

    monkeypatch.setattr(dataset, "load_dataset", noted)
    whole = load_all(paths, "pretrain")
    of_the_second = load_all(paths, "pretrain", rank=1, world_size=2)
    assert order == [*paths, *paths[2:], *paths[:2]]
    assert of_the_second.sha256 == whole.sha256
    assert of_the_second.offsets.tolist() == whole.offsets.tolist()


def test_shards_are_of_one_kind(tmp_path: Path) -> None:
    texts, chats = [{"text": "小猫"}] * 3, small.rows("sft", 2)
    one = small.write_rows(tmp_path / "a.jsonl", texts)
    two = small.write_rows(tmp_path / "b.jsonl", [{"text": "小狗"}, *chats])
    with pytest.raises(UserError, match=r"/b\.jsonl:2: this row is a chat, .*/a\.jsonl:1 a text;"):
        load_all([one, two], "pretrain")
    assert load_all([two], "pretrain").rows == 3  # as ever in a file by itself
    with pytest.raises(UserError, match=r"/a\.jsonl:1: sft needs a conversation, .* is a text"):
        load_all([small.write_rows(tmp_path / "0.jsonl", chats), one], "sft")


def test_a_shard_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    (one,) = in_shards(tmp_path, "pretrain", 5)
    copy = small.write_rows(tmp_path / "copy.jsonl", small.rows("pretrain", 5))
    with pytest.raises(UserError, match=r"/copy\.jsonl: the same bytes as .*/part-5\.jsonl;"):
        load_all([one, copy], "pretrain")


def test_joined_arrays_read_as_one() -> None:
    arrays = [np.arange(3), np.arange(3, 4), np.arange(4, 9)]
    joined = Joined(arrays)
    assert len(joined) == 9
    for at, end in ((0, 3), (3, 4), (4, 9)):
        for a in range(at, end):
            for b in range(a + 1, end + 1):
                assert joined[a:b].tolist() == [*range(a, b)]
    with pytest.raises(IndexError):
        joined[2:4]
    assert Joined([joined, np.arange(9, 12)])[5:9].tolist() == [5, 6, 7, 8]


def test_an_epoch_has_every_unit_once_in_another_order(tmp_path: Path) -> None:
    data = load(small.write_rows(tmp_path / "rows.jsonl", small.rows("dpo")), "dpo")
    rows = PackedRows(data, 48, epochs=2, seed=1)
    assert rows.row_length == 96
    half = len(rows) // 2
    epochs = [[u for i in part for u in rows[i]] for part in (range(half), range(half, len(rows)))]
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    again, other = (PackedRows(data, 48, epochs=2, seed=seed) for seed in (1, 2))
    assert [*rows] == [*again]
    assert [*rows] != [*other]


def test_batches_past_the_end_are_empty(tmp_path: Path) -> None:
    data = load(small.write_rows(tmp_path / "rows.jsonl", small.rows("sft", 3)), "sft")
    rows = PackedRows(data, 48, epochs=1, seed=0)
    assert rows.batch(range(100, 104)).input_ids.shape == (0, 48)
