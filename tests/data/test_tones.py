"""The table of tones, from an archive made for the test; tones of famous poems by hand."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from minillm.data import tones
from minillm.errors import UserError


def archive(path: Path, files: dict[str, Any]) -> Path:
    with tarfile.open(path, "w:gz") as members:
        for name, content in files.items():
            data = json.dumps(content, ensure_ascii=False).encode()
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(data)
            members.addfile(member, io.BytesIO(data))
    return path


def poem(number: int, *lines: str) -> dict[str, Any]:
    return {"id": str(number), "title": "", "author": "", "paragraphs": list(lines)}


def pattern(number: int, *lines: str) -> dict[str, Any]:
    return {"id": str(number), "strains": list(lines)}


def test_the_table_is_made_of_poems_and_their_patterns(tmp_path: Path) -> None:
    made = archive(
        tmp_path / "poems.tgz",
        {
            "quantangshi/poet.tang.0.json": [poem(1, "白日依山盡，", "看看"), poem(2, "看雲")],
            "strains/json/poet.song.0.json": [pattern(3, "平仄")],  # may stand before its poem
            "quantangshi/poet.song.0.json": [poem(3, "雲鴈"), poem(4, "無")],
            "strains/json/poet.tang.0.json": [
                pattern(1, "仄仄平平仄，", "平○"),
                pattern(2, "仄平平"),  # of another length
            ],
            "ci/ci.song.0.json": [poem(1, "白")],
        },
    )
    assert tones.tones_in(made) == {
        "白": 0.0,
        "日": 0.0,
        "依": 1.0,
        "山": 1.0,
        "尽": 0.0,
        "看": 0.75,
        "云": 1.0,
        "雁": 0.0,
    }


def test_an_archive_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.tgz: cannot be read .* minillm download poetry"):
        tones.tones_in(tmp_path / "none.tgz")
    (tmp_path / "text.tgz").write_text("no archive")
    with pytest.raises(UserError, match=r"text\.tgz: cannot be read"):
        tones.tones_in(tmp_path / "text.tgz")
    with pytest.raises(UserError, match="has no tonal patterns"):
        tones.tones_in(archive(tmp_path / "empty.tgz", {}))


LEVELS = dict.fromkeys("依山河流穷千层楼床前明光霜头乡", 1.0)
LEVELS |= dict.fromkeys("白日尽入海欲里目更一上月是地举望低故", 0.0)
LEVELS |= {"黄": 0.95, "疑": 0.9, "思": 0.6}


def test_regulated_verse_alternates() -> None:
    # 仄仄平平仄 平平仄仄平 twice, the second time with an exception at odd places.
    poem = "白日依山尽，黄河入海流。\n欲穷千里目，更上一层楼。"
    assert tones.alternates(poem, LEVELS)
    # 举头望明月: the second and the fourth character are both level.
    assert not tones.alternates("床前明月光，疑是地上霜。\n举头望明月，低头思故乡。", LEVELS)


def test_a_character_that_can_be_either_fits_everywhere() -> None:
    assert tones.tone("思", LEVELS) == tones.tone("?", LEVELS) == ""
    assert (tones.tone("黄", LEVELS), tones.tone("疑", LEVELS)) == ("平", "平")
    wild = {character: share for character, share in LEVELS.items() if character != "明"}
    assert tones.alternates("举头望明月，床前明月光。\n举头望明月，床前明月光。", wild)


def test_seven_characters_have_three_places() -> None:
    levels = dict.fromkeys("平", 1.0) | dict.fromkeys("仄", 0.0)
    right, wrong = "平平仄仄仄平平", "平平仄仄平仄仄"
    assert tones.alternates(f"{right}，{right}。\n{right}，{right}。", levels)
    assert not tones.alternates(f"{right}，{right}。\n{right}，{wrong}。", levels)


def test_what_has_no_metre_has_no_tones() -> None:
    assert tones.alternates("寻寻觅觅，冷冷清清，凄凄惨惨戚戚。", LEVELS) is None
