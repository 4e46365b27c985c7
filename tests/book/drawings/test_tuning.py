"""The drawings of fine-tuning say in words what they show, and refuse what they cannot draw."""

from __future__ import annotations

import pytest

from minillm import RustBPETokenizer
from minillm.book.drawings import tuning

PUSHED = [("很高兴", 0.05), ("为你", 0.01), ("结束", 0.0)]
PRESSED = [("结束", 0.05)]


def test_an_adapter_counts_its_numbers() -> None:
    picture = tuning.low_rank(128, 64, 4)
    assert picture._repr_png_() == tuning.low_rank(128, 64, 4)._repr_png_()
    assert "128 × 64，8,192 个数" in picture.data
    assert f"{4 * (128 + 64)} 个数，是 W 的 9.4%" in picture.data


@pytest.mark.parametrize("rank", [0, 65])
def test_a_rank_must_fit(rank: int) -> None:
    with pytest.raises(ValueError, match="rank"):
        tuning.low_rank(128, 64, rank)


def test_a_tug_of_war_tells_all_forces() -> None:
    picture = tuning.tug_of_war(["北京", "。"], PUSHED, PRESSED)
    assert picture._repr_png_() == tuning.tug_of_war(["北京", "。"], PUSHED, PRESSED)._repr_png_()
    assert "开头都是“北京。”" in picture.data
    assert "往上推：很高兴 0.050，为你 0.010，结束 0.000" in picture.data
    assert picture.data.endswith("往下压：结束 0.050")


def test_answers_that_go_on_alike_have_not_forked() -> None:
    with pytest.raises(ValueError, match="differently"):
        tuning.tug_of_war(["北京"], PUSHED, PUSHED)
    with pytest.raises(ValueError, match="0 or more"):
        tuning.tug_of_war(["北京"], PUSHED, [("结束", -0.05)])


def test_parts_of_a_character_are_joined() -> None:
    tokenizer = RustBPETokenizer.load()
    ids = [*tokenizer.encode("饕餮。"), tokenizer.special_id("<|assistant_end|>")]
    found = tuning.whole_characters(tokenizer, ids, [1.0] * len(ids))
    assert "".join(text for text, _ in found) == "饕餮。结束"
    assert sum(value for _, value in found) == len(ids) > len(found)
