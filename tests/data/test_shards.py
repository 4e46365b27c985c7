"""Which files a path of training rows means."""

from __future__ import annotations

from pathlib import Path

import pytest
import small

from minillm.data.shards import find_shards
from minillm.errors import UserError


def names(folder: Path, *wanted: str) -> list[Path]:
    """Files of one row each, in the order of the arguments."""
    return [small.write_rows(folder / name, [{"text": name}]) for name in wanted]


def test_a_file_is_itself_and_its_neighbour_is_held_out(tmp_path: Path) -> None:
    other, held_out, data = names(tmp_path, "a.jsonl", "rows_val.jsonl", "rows.jsonl")
    assert find_shards(data) == ([data], [held_out])
    assert find_shards(other) == ([other], [])
    assert find_shards(held_out) == ([held_out], [])  # who names it means it


def test_a_folder_is_its_files_of_rows_by_name(tmp_path: Path) -> None:
    made = names(tmp_path, "10.jsonl", "2.csv", "b.parquet", "c.JSON", "a_val.jsonl", "10_val.json")
    names(tmp_path, "README.md", ".hidden.jsonl", "below/x.jsonl")
    assert find_shards(tmp_path) == (made[:4], [made[5], made[4]])


def test_a_pattern_is_all_that_it_matches(tmp_path: Path) -> None:
    one, two, _ = names(tmp_path, "part-1.jsonl", "part-2.jsonl", "other.jsonl")
    (beside,) = names(tmp_path, "part-1_val.jsonl")
    assert find_shards(tmp_path / "part-*.jsonl") == ([one, two], [beside])
    assert find_shards(tmp_path / "part-?.jsonl") == ([one, two], [beside])
    assert find_shards(tmp_path / "part-1*.jsonl") == ([one], [beside])
    (deep,) = names(tmp_path, "a/b/part-0.jsonl")
    assert find_shards(tmp_path / "**" / "part-?.jsonl").train == [deep, one, two]


def test_a_file_that_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    (data,) = names(tmp_path, "rows[1].jsonl")
    assert find_shards(data) == ([data], [])


@pytest.mark.parametrize(
    ("there", "asked", "message"),
    [
        ([], "none.jsonl", r"none\.jsonl: no such file; .*build_chinese_mix"),
        ([], "*.jsonl", r"\*\.jsonl: no file matches this pattern$"),
        (["below/a.jsonl"], "", r": no file of rows \(\.jsonl, .* in quotes: '.*/\*\*/\*\.jsonl'$"),
        (["a_val.jsonl"], "", r": only files for validation \(a_val\.jsonl, \.\.\.\)$"),
        (["a_val.jsonl"], "a*", r"a\*: only files for validation"),
        (["a.jsonl", "b.jsonl.gz"], "", r"b\.jsonl\.gz: compressed or not complete: .* move it"),
        (["a.jsonl", "b.jsonl.tmp"], "", r"b\.jsonl\.tmp: compressed or not complete"),
    ],
)
def test_what_cannot_be_meant(tmp_path: Path, there: list[str], asked: str, message: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    names(folder, *there)
    with pytest.raises(UserError, match=message) as caught:
        find_shards(folder / asked)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)
