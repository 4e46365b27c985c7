"""Build tasks of chapter 1: models that count, and the ruler that measures them."""

from __future__ import annotations

import math
from fractions import Fraction

from minillm.book.tasks.attempt import Attempt, demand, task

FIVE = ["我爱苹果。", "我爱西瓜。", "他爱苹果。", "我吃苹果。", "他吃西瓜。"]
"""The five sentences that the chapter counts by hand."""


@task("1.1")
def _measure(attempt: Attempt) -> None:
    """``measure(texts, p)``: bits per byte of all texts together, where ``p(before, character)`` is
    a model's probability."""

    def one_half(before: str, character: str) -> float:
        return 0.5

    def one_ninth(before: str, character: str) -> float:
        return 1 / 9

    def farther_is_rarer(before: str, character: str) -> float:
        return 0.5 ** len(before)

    attempt.gives(1 / 3, ["猫"], one_half, hint="一个汉字是三个字节，对数以 2 为底。")
    attempt.gives(5 * math.log2(9) / 15, ["他爱西瓜。"], one_ninth)
    attempt.gives(2 / 4, ["a猫"], one_half, hint="字母只有一个字节。")
    attempt.gives(5 / 7, ["猫", "aaaa"], one_half, hint="先把各篇的比特和字节分别加起来，再除。")
    attempt.gives(
        6 / 12,
        ["甲乙丙丁"],
        farther_is_rarer,
        hint="before 是它前面的全部的字，第一个字前面是空串。",
    )
    attempt.gives(2 / 12, ["甲乙", "丙丁"], farther_is_rarer, hint="换了一篇，before 要从头来。")
    attempt.gives(1.0, ["a" * 1200], one_half, hint="先取对数，再相加。")


@task("1.2")
def _kneser_ney(attempt: Attempt) -> None:
    """``kneser_ney(texts, h, c, d)``: the probability of c after h, where each kind of pair gives
    up d of its count and characters that follow many others share what was given up."""
    sixth = Fraction(1, 6)  # 爱, 吃, 苹, 西 and 。 each end 2 of the 12 kinds of pairs

    def gives(wanted: Fraction, h: str, c: str, hint: str) -> None:
        attempt.gives(float(wanted), FIVE, h, c, 0.5, hint=hint)

    gives(
        Fraction(3, 2) / 3 + sixth / 3,
        "我",
        "爱",
        "“我”后面有两种字，各让出 d；让出的按种类分，不按次数。",
    )
    gives(Fraction(5, 2) / 3 + Fraction(1, 72), "苹", "果", "“果”虽然有三次，前面只有一种字。")
    gives(sixth / 6, "苹", "西", "没有见过的对，前一项是 0，不是负数。")
    gives(sixth, "。", "苹", "“。”从来不是一对里的前一个字：只剩兜底的一份。")
    gives(Fraction(1, 12), "猫", "瓜", "没有见过的 h：只剩兜底的一份。")
    attempt.gives(
        (2 - 0.5) / 2 + 0.5 / 2, ["哈哈哈"], "哈", "哈", 0.5, hint="“哈哈哈”里有两对，互相重叠。"
    )
    texts = ["甲乙甲", "乙丙"]
    attempt.gives(
        0.5 / 2 + 0.5 / 3, texts, "乙", "甲", 0.5, hint="对不跨篇，次数只数 h 后面还有字的。"
    )
    for h in "我他爱果猫":
        total = sum(attempt(FIVE, h, c, 0.75) for c in sorted(set("".join(FIVE))))
        demand(
            math.isclose(total, 1, rel_tol=1e-6), f"“{h}”之后各字的概率加起来是 {total:.4f}，不是 1"
        )
