"""What the first two chapters draw says in words what it shows, and is the same each time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from minillm.book.canvas import Picture
from minillm.book.drawings.data import (
    ASKED_KIND,
    HELD_KIND,
    bigram_layer,
    falling_to,
    held_out_cells,
    paired_shares,
    two_splits,
)
from minillm.errors import UserError


def layer(counted: list[float] | None = None) -> Picture:
    logits = np.log([[1.0, 1.0, 2.0], [1.0, 1.0, 1.0]])
    return bigram_layer(logits, np.array(counted or [0.5, 0.0, 0.5]), "甲乙", "丙丁戊", "甲")


def cells() -> Picture:
    kinds = {("甲", "丙"): ASKED_KIND, ("乙", "丙"): HELD_KIND, ("乙", "丁"): ASKED_KIND}
    return held_out_cells("甲乙", "丙丁", kinds, ("乙", "丙"))


def splits() -> Picture:
    return two_splits("甲乙丙", {"先重复": ("甲乙甲", "乙丙"), "先切开": ("乙丙", "甲")})


def falling() -> Picture:
    return falling_to([0, 1, 2], {"学出来的": [3.0, 2.0, 1.5]}, {"数出来的": 1.4})


def shares() -> Picture:
    return paired_shares({"文档": (99.5, 99.25), "身份": (0.5, 0.75)}, ("行", "词元"))


@pytest.mark.parametrize("draw", [layer, cells, splits, falling, shares])
def test_a_drawing_is_the_same_bytes_each_time(draw: Callable[[], Picture]) -> None:
    assert draw()._repr_png_() == draw()._repr_png_()


def test_a_layer_says_what_it_guesses_and_what_was_counted() -> None:
    told = "“甲”后面：丙 猜 0.25，数 0.50；丁 猜 0.25，数 0.00；戊 猜 0.50，数 0.50"
    assert layer().data == told


def test_a_layer_draws_no_arrow_where_the_guess_is_right() -> None:
    def arrows(picture: Picture) -> int:
        (axes,) = picture.figure.axes
        return sum(type(patch).__name__ == "FancyArrowPatch" for patch in axes.patches)

    right = layer([0.25, 0.25, 0.5])
    assert arrows(right) == 1  # from the row to the bars
    assert arrows(layer()) == 3


def test_a_layer_of_other_shapes_is_refused() -> None:
    with pytest.raises(UserError, match="do not belong to 2 contexts and 3 targets"):
        layer([0.5, 0.5])


def test_cells_are_counted_by_kind() -> None:
    assert cells().data == "训练会问 2 格，留出 1 格；圈出的是 乙 和 丙，留出"


def test_a_ring_around_no_cell_is_refused() -> None:
    with pytest.raises(UserError, match="no cell of the grid"):
        held_out_cells("甲", "丙", {}, ("甲", "丙"))


def test_shares_are_told_as_numbers_too() -> None:
    told = "文档：行 99.5%，词元 99.2%；身份：行 0.5%，词元 0.8%"
    assert shares().data == told
    (axes,) = shares().figure.axes
    assert {"99.5", "0.5", "行", "词元"} <= {text.get_text() for text in axes.texts}
    with pytest.raises(UserError, match="a share of nothing"):
        paired_shares({"文档": (1.0, 0.0)}, ("行", "词元"))


def test_bands_lie_below_each_other() -> None:
    kinds = {(i, 1): ASKED_KIND for i in range(6)}
    one, two = (held_out_cells(range(6), [1], kinds, (0, 1), bands=n) for n in (1, 2))
    (wide, flat), (narrow, high) = (p.figure.get_size_inches() for p in (one, two))
    assert narrow < wide
    assert high > flat


def test_splits_say_what_leaked() -> None:
    assert splits().data == (
        "先重复：训练 甲乙甲，验证 乙丙，其中 1 条训练里也有；"
        "先切开：训练 乙丙，验证 甲，其中 0 条训练里也有"
    )


def test_a_falling_loss_says_where_it_ends() -> None:
    assert falling().data == "学出来的从 3.00 到 1.50；数出来的 1.40"
    (axes,) = falling().figure.axes
    assert [line.get_linestyle() for line in axes.lines] == ["-", ":"]
