"""The drawings of the model say what it is: how many layers add, who shares, how far hands turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from minillm.book.canvas import COLOURS, GREY, Picture
from minillm.book.drawings.model import (
    clock_hands,
    growing_cache,
    head_groups,
    residual_stream,
    seed_dots,
)
from minillm.config import MODELS

TINY = MODELS["tiny"]
JUDGED = {"没有旋转": "变差", "没有注意力": "变差", "好": "变好"}
LOSSES = {"原样": [1.0, 1.1], "没有旋转": [1.3, 1.4], "没有注意力": [3.0, 3.001], "好": [0.5, 0.6]}
DRAWINGS: dict[str, Callable[[], Picture]] = {
    "stream": lambda: residual_stream(8),
    "heads": lambda: head_groups(TINY),
    "hands": lambda: clock_hands(TINY, (0, 4)),
    "cache": lambda: growing_cache(["张", "静", "住在"]),
    "dots": lambda: seed_dots(LOSSES, "原样", JUDGED, "验证损失", 2.0),
}


def words(picture: Picture) -> list[str]:
    """All text on a sheet."""
    (axes,) = picture.figure.axes
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_the_same_bytes_each_time(name: str) -> None:
    assert DRAWINGS[name]()._repr_png_() == DRAWINGS[name]()._repr_png_()


def test_every_layer_adds_twice() -> None:
    picture = residual_stream(3)
    assert words(picture).count("+") == 6
    assert words(picture).count("注意力") == words(picture).count("前馈网络") == 3
    assert "3 层各读它两次、往里加两次，一共加 6 次" in picture.data


def test_which_heads_share() -> None:
    assert "第 0 组由第 0、1 个查询头共用；第 1 组由第 2、3 个查询头共用" in head_groups(TINY).data
    alone = head_groups(replace(TINY, num_key_value_heads=4))
    assert {f"k{i}，v{i}" for i in range(4)} <= set(words(alone))
    with pytest.raises(ValueError, match="16 heads"):
        head_groups(replace(TINY, num_attention_heads=16))


def test_hands_turn_by_their_wavelengths() -> None:
    picture = clock_hands(TINY, (0, 4))  # 1 and 10000 ** (-8 / 32) = 0.1 radians
    assert picture.data.startswith("第 0 对一步转 57.3°，第 4 对一步转 5.7°；")
    assert "夹角都是 115°" in picture.data
    assert "夹角都是 57°" in clock_hands(TINY, (0, 4), distance=1).data


def test_a_cache_saves_what_was_computed() -> None:
    picture = growing_cache(["张", "静", "住在"])
    assert {"共算 6 个", "共算 3 个"} <= set(words(picture))
    assert words(picture).count("张") == 6
    with pytest.raises(ValueError, match="6 tokens"):
        growing_cache(list("一二三四五六"))


def test_runs_beyond_the_axis_are_named() -> None:
    picture = seed_dots(LOSSES, "原样", JUDGED, "验证损失", 2.0)
    assert picture.data == (
        "原样 1.00 到 1.10；没有旋转 1.30 到 1.40 变差；没有注意力 3.00 变差；好 0.50 到 0.60 变好"
    )
    assert words(picture) == ["3.00 →"]
    (axes,) = picture.figure.axes
    assert axes.get_xlim()[0] < 0.5


def test_runs_have_the_colour_of_what_was_judged() -> None:
    """Not of the side on which they lie: a little lower may still be too little to be sure of."""
    unsure = seed_dots(LOSSES, "原样", JUDGED | {"好": "分不出"}, "验证损失", 2.0)
    sure = seed_dots(LOSSES, "原样", JUDGED, "验证损失", 2.0)
    green, grey = (picture.figure.axes[0].lines[-1].get_color() for picture in (sure, unsure))
    assert (green, grey) == (COLOURS["sft"], GREY)
