"""What the drawings of judging show, in words; the same each time; and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from minillm.book.canvas import Picture
from minillm.book.drawings import judging

COLOURS = ("#009E73", "#E69F00")
DRAWINGS: dict[str, Callable[[], Picture]] = {
    "真值 0.9，考 60 题：常见的是答对 54 题，95% 的卷子：50 到 58 题": lambda: judging.exam_scores(
        0.9, 60
    ),
    "60 题对 54 题：真值 0.75 说不通，真值 0.8 说得通，真值 0.97 说不通": lambda: (
        judging.possible_truths(54, 60, [0.75, 0.80, 0.97])
    ),
    "真正的差 0.05：60 题看得出 22%；337 题看得出 80%": lambda: judging.two_bells(
        0.05, {f"{n} 题": math.sqrt(0.1075 / n) for n in (60, 337)}
    ),
    "同样的题要 20 题才到 80%；各考各的要 40 题才到 80%": lambda: judging.power_curves(
        [10, 20, 40],
        {"同样的题": [0.5, 0.8, 0.9], "各考各的": [0.3, 0.5, 0.8]},
        {"同样的题": 20, "各考各的": 40},
    ),
    "只有 甲 对：1，只有 乙 对：2，都对（灰）：1，都错（空）：1": lambda: judging.same_questions(
        [True, True, False, False, False], [True, False, True, True, False], ("甲", "乙"), COLOURS
    ),
    "事实从 0.90 到 1.00，灰带 0.85 到 1.00": lambda: judging.training_luck(
        {"事实": ([0.9, 1.0], 0.05)}
    ),
    "2 个词元，每个 2.00 奈特，一共 4.00 奈特；4 个字节，每个 1.00 奈特，一共 4.00 奈特": lambda: (
        judging.same_loss(["张".encode(), b"\xe9"], 4.0)
    ),
    "不减：0、+1.00；减去平均：-0.50、+0.50": lambda: judging.pushes(
        ["写", "数"], {"不减": [0, 1], "减去平均": [-0.5, 0.5]}
    ),
}


@pytest.mark.parametrize("words", DRAWINGS)
def test_a_drawing_says_what_it_shows_and_is_the_same_each_time(words: str) -> None:
    first, again = DRAWINGS[words](), DRAWINGS[words]()
    assert first.data == words
    assert first._repr_png_() == again._repr_png_()


def test_a_model_that_is_always_right_leaves_nothing_to_chance() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        judging.exam_scores(1.0, 60)


def test_two_models_must_have_sat_the_same_exam() -> None:
    with pytest.raises(ValueError, match="2 answers of SFT and 1 of DPO"):
        judging.same_questions([True, False], [True], ("SFT", "DPO"), COLOURS)


def test_every_answer_has_its_weight() -> None:
    with pytest.raises(ValueError, match="must have 2 numbers"):
        judging.pushes(["写", "数"], {"不减": [0]})
