"""Raw files through datatrove: what must go goes, and nothing else is lost."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import small

from minillm.data.near import jaccard, shingles
from minillm.data.shards import find_shards
from minillm.errors import UserError
from minillm.training.dataset import load_shards

pytest.importorskip("datatrove")
pipeline = pytest.importorskip("pipeline_datatrove")

SIGNS = "".join(chr(0x4E00 + 7 * i) for i in range(1500))
BROKEN = b'{"text": "no end\n'


def text(seed: int) -> str:
    """60 characters at random: no two such texts have a run of 3 in common, or hardly."""
    letters = random.Random(seed).sample(SIGNS, 60)
    return "，".join("".join(letters[i : i + 10]) for i in range(0, 60, 10)) + "。"


GOOD = [text(i) for i in range(300)]
SHORT = ["太短。", "一二三四五六七八九十"]
ENGLISH = "This is a sentence in English with a few Chinese words, which are too few: number "
NOT_CHINESE = [f"{ENGLISH}{i}。这里有十几个汉字，可是远远不到一半。" for i in range(3)]
REPEATED = ["买一送一，今天最后一天，快来抢购。" * 5 + text(1000 + i) for i in range(2)]
EQUAL = GOOD[:5]
NEAR = [one[:-1] + "了。" for one in GOOD[5:10]]
SUMS = [
    f"小明有{n}个苹果，又买来了{n + 1}个苹果，现在他一共有多少个苹果？答案是{2 * n + 1}个苹果。"
    for n in (3, 812)
]


def raw(folder: Path) -> Path:
    """Three files of different formats, one of them with a line that is no JSON."""
    texts = [*GOOD, *SHORT, *NOT_CHINESE, *REPEATED, *EQUAL, *NEAR]
    random.Random(0).shuffle(texts)
    rows: list[dict[str, Any]] = [{"text": one, "source": "test"} for one in texts]
    small.write_rows(folder / "a.jsonl", rows[:100])
    small.write_rows(folder / "below" / "b.jsonl", rows[100:])
    with (folder / "a.jsonl").open("ab") as file:
        file.write(BROKEN)
    return folder


def options(folder: Path, **changes: Any) -> Any:
    settings = {"raw_dir": raw(folder / "raw"), "out_dir": folder / "out", "workers": 1}
    return pipeline.Options(**{**settings, "tasks": 3, "val_fraction": 0.1, **changes})


def lines(paths: list[Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]


def test_what_is_left_and_what_was_taken(tmp_path: Path) -> None:
    counts = pipeline.run(options(tmp_path))
    assert counts == {
        "read": 300 + 2 + 3 + 2 + 5 + 5 + 1,
        "unreadable": 1,
        "short": 2,
        "not Chinese": 3,
        "repetition": 2,
        "near duplicates": 10,
        "written": 300 - counts["held out"],
        "held out": counts["held out"],
    }
    assert json.loads((tmp_path / "out" / "report.json").read_bytes()) == counts
    train, held_out = find_shards(tmp_path / "out" / "shards")
    kept = lines([*train, *held_out])
    assert len(lines(held_out)) == counts["held out"] > 10
    assert {tuple(row) for row in kept} == {("text", "source")}
    assert {row["source"] for row in kept} == {"test"}
    texts = [row["text"] for row in kept]
    assert len(texts) == len({*texts}) == 300
    for original, copy in zip(GOOD[5:10], NEAR, strict=True):
        assert (original in texts) != (copy in texts)
    assert {*GOOD[:5], *GOOD[10:]} < {*texts}
    removed = lines(sorted((tmp_path / "out" / "removed").rglob("*.jsonl")))
    assert len(removed) + len(kept) == counts["read"]
    (unreadable,) = lines([*(tmp_path / "out" / "removed" / "unreadable").glob("*")])
    assert unreadable["source"].endswith("/a.jsonl:101")
    assert unreadable["reason"].startswith("broken JSON")
    assert unreadable["text"] == BROKEN.decode().strip()


def test_the_trainer_reads_the_shards(tmp_path: Path) -> None:
    counts = pipeline.run(options(tmp_path))
    train, _ = find_shards(tmp_path / "out" / "shards")
    assert len(train) > 1
    data = load_shards(train, "pretrain", small.tokenizer(), 128, tmp_path / "cache")
    assert data.rows == counts["written"]


def test_numbers_make_a_difference(tmp_path: Path) -> None:
    assert jaccard(*map(shingles, SUMS)) < 0.7
    folder = tmp_path / "raw"
    small.write_rows(folder / "sums.jsonl", [{"text": one} for one in SUMS])
    made = pipeline.run(pipeline.Options(folder, tmp_path / "out", workers=1, val_fraction=0))
    assert (made["written"], made["near duplicates"]) == (2, 0)


def test_done_work_is_not_done_again_nor_taken_for_that_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = options(tmp_path)
    counts = pipeline.run(settings)
    shard = tmp_path / "out" / "shards" / "00000.jsonl"
    before = shard.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "read", lambda *_: pytest.fail("read again"))
        assert pipeline.run(settings) == counts
    assert shard.stat().st_mtime_ns == before
    small.write_rows(settings.raw_dir / "c.jsonl", [{"text": GOOD[0]}])
    with pytest.raises(UserError, match="/out: holds the work on other files or with other flags"):
        pipeline.run(settings)


def test_a_task_that_failed_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = options(tmp_path)
    read = pipeline.read

    def fails(path: Path, *rest: Any) -> Any:
        if path.name == "b.jsonl":
            raise OSError("the disk is gone")
        return read(path, *rest)

    monkeypatch.setattr(pipeline, "read", fails)
    with pytest.raises(OSError, match="the disk is gone"):
        pipeline.run(settings)
    monkeypatch.setattr(pipeline, "read", read)
    assert pipeline.run(settings)["near duplicates"] == 10


def test_a_cluster_reports_when_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    submitted: list[dict[str, Any]] = []

    class Cluster:
        """Takes what all of datatrove's executors take, and does nothing yet."""

        def __init__(self, _: list[Any], **settings: Any) -> None:
            self.settings = settings

        def run(self) -> None:
            submitted.append(self.settings)

    settings = options(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "LocalPipelineExecutor", Cluster)
        assert pipeline.run(settings) == {}
    assert "submitted" in capsys.readouterr().out
    (last,) = submitted  # the others are what it depends on
    names = []
    while last:
        names.append(Path(last["logging_dir"]).name)
        last = last["depends"].settings if last["depends"] else {}
    assert names == ["shards", "clusters", "buckets", "signatures", "filter"]
    assert pipeline.run(settings)["near duplicates"] == 10


def test_a_folder_without_rows(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("#")
    with pytest.raises(UserError, match=r": no file of rows in it \(\.jsonl, "):
        pipeline.run(pipeline.Options(tmp_path, tmp_path / "out"))


@pytest.mark.parametrize(
    ("share", "told"), [(0.65, "0.36"), (0.75, "0.77"), (0.8, "0.92"), (0.9, "0.9996")]
)
def test_the_probabilities_are_those_that_are_told(share: float, told: str) -> None:
    bands, numbers = pipeline.MINHASH.num_buckets, pipeline.MINHASH.hashes_per_bucket
    found = 1 - (1 - share**numbers) ** bands
    assert f"{found:.{len(told) - 2}f}" == told
    assert f"{told} for {share}" in Path(pipeline.__file__).read_text("utf-8")
