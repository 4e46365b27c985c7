"""Padded tensors in a file, for DataLoaders of one's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import small
import torch
from torch.utils.data import DataLoader, TensorDataset

from minillm.errors import UserError
from minillm.training import export as module
from minillm.training.export import ExportOptions, export

TOKENIZER = small.tokenizer()


@pytest.fixture
def options(tmp_path: Path) -> ExportOptions:
    TOKENIZER.save(tmp_path / "tokenizer")
    return ExportOptions(
        data_path=tmp_path / "rows.jsonl",
        output=tmp_path / "tensors.pt",
        tokenizer_path=tmp_path / "tokenizer",
        max_length=32,
    )


def exported(
    options: ExportOptions, rows: list[dict[str, object]], **changes: object
) -> dict[str, torch.Tensor]:
    assert options.data_path is not None
    small.write_rows(options.data_path, rows)
    path, _ = export(type(options)(**{**vars(options), **changes}))  # type: ignore[arg-type]
    return torch.load(path, weights_only=True)  # type: ignore[no-any-return]


def test_pretrain(options: ExportOptions) -> None:
    tensors = exported(options, [{"text": "小猫"}, {"text": "小狗和小猫去公园"}])
    assert {n: (t.dtype, tuple(t.shape)) for n, t in tensors.items()} == {
        "input_ids": (torch.int32, (2, 32)),
        "labels": (torch.int64, (2, 32)),
    }
    ids = [TOKENIZER.bos_id, *TOKENIZER.encode("小猫")]
    n = len(ids)
    assert tensors["input_ids"][0].tolist() == ids + [0] * (32 - n)
    assert tensors["labels"][0].tolist() == ids[1:] + [-100] * (33 - n)
    (batch,) = DataLoader(TensorDataset(*tensors.values()), batch_size=2)
    assert torch.equal(batch[0], tensors["input_ids"])


def test_append_eos_and_bos_token(options: ExportOptions) -> None:
    tensors = exported(options, [{"text": "小猫"}], append_eos=True, bos_token="<|user_start|>")
    eos = TOKENIZER.special_id("<|assistant_end|>")
    ids = [TOKENIZER.special_id("<|user_start|>"), *TOKENIZER.encode("小猫"), eos]
    assert tensors["input_ids"][0, : len(ids)].tolist() == ids
    assert tensors["labels"][0, : len(ids)].tolist() == [*ids[1:], -100]


def test_sft(options: ExportOptions) -> None:
    row = {"messages": small.conversation("你好", "好")}
    tensors = exported(options, [row], format="sft")
    ids, mask = TOKENIZER.render_conversation(row["messages"])
    assert tensors["input_ids"][0, : len(ids)].tolist() == ids
    assert tensors["loss_mask"][0].tolist() == mask + [0] * (32 - len(ids))


def test_dpo(options: ExportOptions) -> None:
    row = small.rows("dpo", 1)[0]
    tensors = exported(options, [row], format="dpo")
    assert list(tensors) == [
        "chosen_input_ids", "chosen_loss_mask", "rejected_input_ids", "rejected_loss_mask"
    ]  # fmt: skip
    for side in ("chosen", "rejected"):
        ids, mask = TOKENIZER.render_conversation(row[side])
        assert tensors[f"{side}_input_ids"][0, : len(ids)].tolist() == ids
        assert tensors[f"{side}_loss_mask"][0, : len(ids)].tolist() == mask
        assert tensors[f"{side}_input_ids"].dtype in (torch.int32, torch.int64)


def test_long_rows_are_cut_with_a_warning(
    options: ExportOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = exported(options, [{"text": "短"}, *[{"text": "很长" * 40}] * 7])
    assert (tensors["labels"][1:] != -100).all()
    warnings = capsys.readouterr().err.splitlines()
    assert [w for w in warnings if "rows.jsonl:2: " in w and "cut to 32" in w]
    assert not [w for w in warnings if "rows.jsonl:7: " in w]
    assert "7 of 8 rows were cut; raise --max-length" in warnings[-1]


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        ('{"text": "好"}\n{"text": 1}\n', {}, r"rows\.jsonl:2: "),
        ("", {}, r"rows\.jsonl"),
        (
            '{"text": "好"}\n',
            {"bos_token": "<|start|>"},
            r"--bos_token '<\|start\|>' is no special token",
        ),
        ('{"text": "好"}\n', {"max_length": 1}, "--max_length must be at least 2"),
        ('{"text": "好"}\n', {"max_length": 0}, "--max_length must be at least 2, not 0"),
        ('{"text": "好"}\n', {"max_length": -1}, "--max_length must be at least 2, not -1"),
        ("", {"format": "sft", "append_eos": True}, "--append_eos is for --format pretrain"),
        ("", {"format": "dpo", "append_eos": True}, "--append_eos is for --format pretrain"),
    ],
)
def test_errors_leave_the_old_file(
    options: ExportOptions, content: str, changes: dict[str, object], message: str
) -> None:
    exported(options, [{"text": "小猫"}])
    assert options.output is not None
    assert options.data_path is not None
    before = options.output.read_bytes()
    options.data_path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        export(type(options)(**{**vars(options), **changes}))  # type: ignore[arg-type]
    assert options.output.read_bytes() == before
    assert sorted(p.name for p in options.output.parent.iterdir()) == [
        "rows.jsonl",
        "tensors.pt",
        "tokenizer",
    ]


def test_the_longest_row_that_is_not_cut(
    options: ExportOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [TOKENIZER.bos_id, *TOKENIZER.encode("小猫和小狗")]
    for length, cut in ((len(ids), 0), (len(ids) - 1, 1)):
        tensors = exported(options, [{"text": "小猫和小狗"}], max_length=length)
        assert tensors["input_ids"][0].tolist() == ids[:length]
        # The label of the last position is the token that did not fit.
        assert tensors["labels"][0].tolist() == (ids[1:] if cut else [*ids[1:], -100])
        assert capsys.readouterr().err.count("cut to") == cut


@pytest.mark.parametrize("place", ["file/tensors.pt", "file/deep/tensors.pt", "folder"])
def test_a_place_that_cannot_be_written_is_known_before_a_row_is_read(
    options: ExportOptions, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    assert options.data_path is not None
    here = small.write_rows(options.data_path, [{"text": "小猫"}]).parent
    (here / "file").write_bytes(b"")
    (here / "folder").mkdir()
    before = sorted(here.rglob("*"))
    monkeypatch.setattr(module, "tokenize_file", lambda *_: pytest.fail("read for nothing"))
    with pytest.raises(UserError, match=rf"{place}: cannot write: .*; .* move it away"):
        export(replace(options, output=here / place))
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    options: ExportOptions, share: float
) -> None:
    """The limit is met while columns are written (of 32 and of 64 bits), and while tensors are."""
    resource = pytest.importorskip("resource")
    rows = [{"text": "小猫和小狗"}] * 500
    exported(options, rows)
    assert options.output is not None
    before = options.output.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * 500 * 32 * (4 + 8)), limits[1]))
    try:
        with pytest.raises(UserError, match=r"tensors\.pt: cannot write: File too large"):
            export(options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert options.output.read_bytes() == before
    names = sorted(path.name for path in options.output.parent.iterdir())
    assert names == ["rows.jsonl", "tensors.pt", "tokenizer"]
