"""The drawings of chapter 6 are the same each time, and say what they show."""

from __future__ import annotations

import numpy as np
import pytest

from minillm.book.canvas import Picture
from minillm.book.drawings.optimisation import (
    backward_graph,
    copying_courses,
    descents,
    equalized_axes,
)

VALLEY = ((1.0, 0.0), (0.0, 50.0))
WALK = ((-4.0, 1.0), (-2.0, 0.1), (-1.0, 0.0))


def graph() -> Picture:
    return backward_graph(2, 0.5, [1, 0, -1], ["甲", "乙", "丙"], correct=1)


def courses() -> Picture:
    losses = {"找地点": ([5.0, 3.0], [5.0, 0.25])}
    return copying_courses([25, 1500], losses, {"找地点": [0.0, 0.75]})


@pytest.mark.parametrize(
    "draw",
    [
        graph,
        lambda: descents({"谷": (VALLEY, WALK), "又一次": (VALLEY, WALK)}),
        lambda: equalized_axes([[3, 0], [4, 5]]),
        courses,
    ],
)
def test_a_drawing_is_the_same_each_time(draw: object) -> None:
    assert callable(draw)
    first, again = draw(), draw()
    assert first._repr_png_() == again._repr_png_()
    assert first._repr_png_()[0].startswith(b"\x89PNG")


def test_a_graph_holds_the_values_and_the_gradients() -> None:
    told = graph().data
    for part in ("乙：分数 0，概率 0.245，分数的梯度 −0.755", "损失 1.408", "w 的梯度 1.15"):
        assert part in told
    with pytest.raises(ValueError, match="the correct one number 3"):
        backward_graph(2, 0.5, [1, 0, -1], ["甲", "乙", "丙"], correct=3)


def test_a_graph_adds_the_gradients_of_all_ways() -> None:
    """Scores that move together do not change the softmax: nothing comes back to h."""
    assert "h 的梯度 0，w 的梯度 0" in backward_graph(1, 1, [2, 2], ["甲", "乙"], 0).data


def test_a_walk_is_told_by_its_losses() -> None:
    assert descents({"谷": (VALLEY, WALK)}).data == "谷：走 2 步，损失从 33 到 0.5，停在（−1，0）"
    with pytest.raises(ValueError, match="positive definite"):
        descents({"山脊": (((1.0, 0.0), (0.0, -1.0)), WALK)})


def test_axes_are_the_singular_values() -> None:
    told = equalized_axes([[3, 0], [4, 5]]).data
    assert told == "梯度：半轴长 0.95 和 0.32；Muon 的步子：半轴长 1.00 和 1.00"
    turned = np.array([[0.6, -0.8], [0.8, 0.6]]) @ np.array([[3, 0], [4, 5]])
    assert equalized_axes(turned.tolist()).data == told
    with pytest.raises(ValueError, match="only one direction"):
        equalized_axes([[1, 2], [2, 4]])


def test_courses_are_told_from_first_to_last() -> None:
    told = "找地点：第一遍的损失从 5.00 到 3.00，第二遍从 5.00 到 0.25，注意力从 0.00 到 0.75"
    assert courses().data == told
    with pytest.raises(ValueError, match="other kinds"):
        copying_courses([25], {"找地点": ([5.0], [5.0])}, {"照抄": [0.0]})
