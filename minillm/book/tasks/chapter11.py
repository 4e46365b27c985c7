"""Build tasks of chapter 11: evaluation."""

from __future__ import annotations

import numpy as np

from minillm.book.tasks.attempt import Attempt, demand, task

_Z = 1.96


@task("11.1")
def _wilson(attempt: Attempt) -> None:
    """``wilson(correct, n)``: the ends of Wilson's interval, which are by definition the two shares
    p with (correct / n - p)² = z² p (1 - p) / n."""
    _interval(attempt, 54, 60, "核对一下：分母是 1 + z²/n，根号里的第二项是 z²/(4n²)。")
    _interval(attempt, 22, 24, "题数换了，看看是不是写死了 60。")
    _interval(attempt, 30, 60, "正确率一半时，区间的中间也是一半。")
    _interval(attempt, 60, 60, "满分的区间也有宽度，上限正好是 1。")
    _interval(attempt, 0, 24, "一题不对时，下限正好是 0，上限大于 0。")
    _interval(attempt, 355, 1346, "题多的时候，它与朴素的区间差不多。")


def _interval(attempt: Attempt, correct: int, n: int, hint: str) -> None:
    share, a = correct / n, _Z * _Z / n
    low, high = sorted(np.roots([1 + a, -(2 * share + a), share * share]).real.tolist())
    attempt.gives((max(low, 0.0), min(high, 1.0)), correct, n, hint=hint)


@task("11.2")
def _judge(attempt: Attempt) -> None:
    """``judge(reply, answer, options)``: whether a reply names the answer and no other option."""
    food = ["鸡蛋", "火锅", "牛肉", "牛肉面"]
    attempt.gives(True, "鸡蛋。", "鸡蛋", food)
    attempt.gives(True, "林兰爱吃鸡蛋。", "鸡蛋", food, hint="选项可以在句子中间。")
    attempt.gives(False, "林兰爱吃火锅。", "鸡蛋", food)
    attempt.gives(False, "不知道。", "鸡蛋", food, hint="一个选项也没有说，不算对。")
    attempt.gives(False, "鸡蛋或者火锅。", "鸡蛋", food, hint="说了两个，不算对。")
    attempt.gives(True, "鸡蛋，就是鸡蛋。", "鸡蛋", food, hint="同一个选项说两遍，还是一个。")
    attempt.gives(False, "林兰爱吃牛肉面。", "牛肉", food, hint="同一个位置取最长的。")
    attempt.gives(True, "林兰爱吃牛肉面。", "牛肉面", food, hint="里面的“牛肉”不算另一个选项。")
    attempt.gives(False, "牛肉和牛肉面。", "牛肉面", food, hint="单独说的“牛肉”要算。")
    attempt.gives(True, "等于11。", "11", ["1", "11"], hint="取最长的，与选项的次序无关。")
    attempt.gives(False, "林兰不爱吃鸡蛋。", "鸡蛋", food, hint="前面有“不”，这一处不算数。")
    attempt.gives(False, "她没吃过鸡蛋。", "鸡蛋", food, hint="前面有“没”，这一处不算数。")
    attempt.gives(True, "不是火锅，是鸡蛋。", "鸡蛋", food, hint="“不”只管它所在的分句。")
    attempt.gives(True, "没错；她爱吃鸡蛋。", "鸡蛋", food, hint="分号也切开分句。")
    attempt.gives(True, "她爱吃鸡蛋不爱吃火锅。", "鸡蛋", food, hint="“不”在选项后面，不碍事。")
    options = list(food)
    demand(
        attempt("火锅", "火锅", options) is True and attempt("", "火锅", options) is False,
        "回答没有标点，或者一个字也没有时，也要判得了",
    )
