"""Build tasks of chapter 15: scaling laws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minillm.book.tasks.attempt import Attempt, demand, task


@task("15.1")
def _best_size(attempt: Attempt) -> None:
    """``best_size(sizes, losses)``: the bottom of the parabola over ln N, if it is among them."""
    _bowl(attempt, [2.5e5, 1e6, 4e6], 1e6, "碗底在 ln N 的抛物线的顶点，最后要用 exp 变回来。")
    _bowl(attempt, [2e5, 5e5, 1e6, 3e6], 7e5, "碗底在点和点之间，不是损失小的那个点。")
    _bowl(attempt, [3e6, 2e5, 1e6, 5e5], 7e5, "大小不一定从小到大排好。")
    _bowl(attempt, [1e5, 1e6, 1e7], 3e5, "横轴是 ln N，不是 N。")
    sizes = [1e6, 2e6, 4e6, 8e6]
    attempt.gives(None, sizes, _losses(sizes, 2e7), hint="碗底比试过的都大：要返回 None。")
    attempt.gives(None, sizes, _losses(sizes, 3e5), hint="碗底比试过的都小：要返回 None。")
    turned = [8 - loss for loss in _losses(sizes, 3e6)]
    attempt.gives(None, sizes, turned, hint="开口朝下，顶点是山顶：要返回 None。")


def _losses(sizes: list[float], best: float) -> list[float]:
    return [4 + 0.3 * math.log(size / best) ** 2 for size in sizes]


def _bowl(attempt: Attempt, sizes: list[float], best: float, hint: str) -> None:
    attempt.gives(best, sizes, _losses(sizes, best), hint=hint)


@task("15.2")
def _fit(attempt: Attempt) -> None:
    """``fit(n, d, losses, exponents)``: E, A, B, alpha, beta of a law, which losses without noise
    give away."""
    by_hand = (3.0, 600.0, 1200.0, 0.5, 0.5)
    attempt.gives(by_hand, *_ladder(*by_hand), [0.3, 0.5, 0.7], hint="手算里的那条定律。")
    published = (1.69, 406.4, 410.7, 0.34, 0.28)  # Hoffmann et al. 2022, approach 3
    exponents = [round(0.22 + 0.02 * i, 2) for i in range(10)]
    attempt.gives(
        published,
        *_ladder(*published),
        exponents,
        hint="Chinchilla 公布的常数。两个指数不相等，每一种组合都要试。",
    )
    n, d, _ = _ladder(*by_hand)
    straight = 8 - 0.2 * np.log(n) - 0.2 * np.log(d)
    e, a, b, alpha, beta = _five(attempt(n, d, straight, [0.1, 0.2, 0.3]))
    demand(
        min(e, a, b) >= 0,
        f"损失是对数的直线时，你的 E、A、B 是 {e:.4g}、{a:.4g}、{b:.4g}：解出负数的组合不要",
    )
    demand({alpha, beta} <= {0.1, 0.2, 0.3}, "指数要从 exponents 里取")


def _ladder(e: float, a: float, b: float, alpha: float, beta: float) -> tuple[Any, Any, Any]:
    n = np.array([1e5, 1e6, 1e7] * 3)
    d = np.array([1e6] * 3 + [1e7] * 3 + [1e8] * 3)
    return n, d, e + a / n**alpha + b / d**beta


def _five(found: Any) -> list[float]:
    try:
        five = [float(number) for number in found]
    except TypeError:
        five = []
    demand(len(five) == 5, "要返回五个数：E、A、B、alpha、beta")
    return five
