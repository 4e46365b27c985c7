"""The drawings of chapters 12 to 16 show what they are given, the same each time."""

from __future__ import annotations

import numpy as np
import pytest
import small

from minillm.book.canvas import Picture
from minillm.book.drawings import scale
from minillm.training.gguf_export import neighbours

PIECES = [[1, 2, 3], [10, 20, 30], [100, 200, 300]]
FOUR = [0.34, -1.6, 0.72, 1.2]
STEP = ([2, 2], [6, 2], [1.2, -0.4], 0.5, 1.0)
BARS = {"tiny": {"权重": 3e6, "激活": 7e6}, "default": {"权重": 1e9, "激活": 3e9}}


def futures() -> Picture:
    curves = {"弯": ([1e12, 1e16], [5.0, 4.0]), "直": ([1e12, 1e16], [5.0, 3.0])}
    return scale.two_futures([(1e12, 5.0), (1e13, 4.5)], curves, (1e14, 4.1), 3.8)


def forecast() -> Picture:
    law = ([1e12, 1e13, 1e14], [5.0, 4.5, 4.2])
    return scale.forecast([(1e12, 5.1), (1e13, 4.4)], law, (1e14, 4.25, 4.1, 4.4), 4.0)


DRAWN = {
    "together": lambda: scale.together(*STEP),
    "in_turns": lambda: scale.in_turns(*STEP),
    "around_the_ring": lambda: scale.around_the_ring(PIECES),
    "memory_shares": lambda: scale.memory_shares(BARS),
    "smallest_numbers": lambda: scale.smallest_numbers({"甲": {"春", "风"}, "乙": {"风", "雨"}}),
    "three_splits": scale.three_splits,
    "rulers": lambda: scale.rulers({"4 位": (FOUR, [2, -8, 4, 6], 0.2, (-8, 7))}),
    "rotated_pairs": lambda: scale.rotated_pairs(lambda rows: neighbours(rows, 1)),
    "forecast": forecast,
    "two_futures": futures,
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_drawing_is_the_same_each_time(name: str) -> None:
    assert DRAWN[name]()._repr_png_() == DRAWN[name]()._repr_png_()


def test_the_words_say_what_is_shown() -> None:
    told = {name: draw().data for name, draw in DRAWN.items()}
    assert "1.2 − 0.4 = 0.8，6 + 2 = 8 个；各自除以 8，权重都变成 0.40" in told["together"]
    assert "0.8 ÷ 8 = 0.1，权重 0.50 变成 0.40" in told["in_turns"]
    assert "第 0 步 1 2 303、11 20 30、100 220 300" in told["around_the_ring"]
    assert told["around_the_ring"].endswith("111 222 333、111 222 333、111 222 333")
    assert told["memory_shares"].startswith("tiny 共 10 MB：权重 30%，激活 70%；default 共 4 GB")
    assert "流水线并行，一张卡有第 1、2 层" in told["three_splits"]
    assert told["rulers"].startswith("4 位：16 条刻度，4 个数落在其中 4 条上")
    assert "0 和 4" in told["rotated_pairs"]
    assert "0 4 1 5 2 6 3 7" in told["rotated_pairs"]
    assert told["forecast"] == (
        "梯子从 5.10 到 4.40；定律从 5.00 到 4.20；预言 4.25，从 4.10 到 4.40；结果 4.00"
    )
    assert (
        told["two_futures"]
        == "弯，从 5.00 到 4.00；直，从 5.00 到 3.00；后来的结果 4.10，虚线趋向的底 3.80"
    )


def test_every_process_ends_with_the_sums() -> None:
    *_, (held, _) = scale._courses(PIECES)
    assert held == [[111, 222, 333]] * 3
    for size in (2, 5):
        numbers = np.arange(size * size).reshape(size, size)
        *_, (held, _) = scale._courses(numbers.tolist())
        assert held == [numbers.sum(0).tolist()] * size


def test_equal_numbers_are_those_of_a_common_piece() -> None:
    texts = {"甲": {"春", "风"}, "乙": {"风", "雨"}}
    told = scale.smallest_numbers(texts, functions=6).data.split("；")
    for function, line in enumerate(told):
        numbers = [min(scale._hash(piece, function) for piece in own) for own in texts.values()]
        same = "相同" if numbers[0] == numbers[1] else "不同"
        assert line.endswith(f"甲留下 {numbers[0]}，乙留下 {numbers[1]}：{same}")
    assert len({line[-2:] for line in told}) == 2


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="two processes"):
        scale.together([2], [6], [1.2], 0.5, 1.0)
    with pytest.raises(ValueError, match="two parts"):
        scale.in_turns([2, 2, 2], [6, 2], [1.2, -0.4], 0.5, 1.0)
    with pytest.raises(ValueError, match="in common"):
        scale.smallest_numbers({"甲": {"春"}, "乙": {"雨"}})
    with pytest.raises(ValueError, match="three processes"):
        scale.around_the_ring([[1, 2], [3, 4]])
    with pytest.raises(ValueError, match="the same parts"):
        scale.memory_shares({"a": {"权重": 1}, "b": {"激活": 1}})
    with pytest.raises(ValueError, match="a whole number for each weight"):
        scale.rulers({"4 位": (FOUR, [1], 0.2, (-8, 7))})
    with pytest.raises(ValueError, match="keeps each"):
        scale.rotated_pairs(lambda rows: rows[:1])


def test_special_tokens_are_coloured_by_who_wrote_them() -> None:
    tokenizer = small.tokenizer()
    special = list(tokenizer.special_tokens.values())
    bos, start, end, answer = special[:4]
    ids = [bos, start, *tokenizer.encode("我"), end, answer, end, answer]
    text = scale.who_wrote({"朴素的": ids}, tokenizer).data
    body, legend = text.split("<small>")
    green, red = "rgba(0,158,115,0.45)", "rgba(213,94,0,0.45)"
    assert (body.count(green), body.count(red)) == (4, 2)
    assert "用户打出来的特殊词元" in legend
