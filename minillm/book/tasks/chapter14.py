"""Build tasks of chapter 14: classical verse, and counting what comes next."""

from __future__ import annotations

import math

from minillm.book.tasks.attempt import Attempt, demand, task

_TOWER = ["仄仄平平仄", "平平仄仄平", "仄平平仄仄", "仄仄仄平平"]  # 登鹳雀楼
_DAWN = ["平平仄仄仄", "仄仄平平仄", "仄平平仄平", "平仄平平仄"]  # 春晓
_NIGHT = ["平平平仄平", "平仄仄仄平", "仄平中平仄", "平平平仄平"]  # 静夜思
_BAIDI = ["平平仄仄仄平平", "平仄平平仄仄平", "仄仄平平平仄仄", "平平仄仄仄平平"]  # 早发白帝城
_WEICHENG = ["仄平平仄仄平平", "仄仄平平仄仄平", "仄平仄仄仄平仄", "平仄平平平仄平"]  # 渭城曲


@task("14.1")
def _faults(attempt: Attempt) -> None:
    """``faults(lines)``: where lines are not opposite in a couplet, or not alike between couplets;
    known of famous poems."""
    attempt.gives([], _TOWER, hint="《登鹳雀楼》粘对都合。")
    attempt.gives([], _BAIDI, hint="《早发白帝城》是七言，粘对都合。")
    attempt.gives([(2, "粘")], _DAWN, hint="《春晓》第 2 句（从 0 数起）失粘，两联都对。")
    attempt.gives([(2, "粘")], _WEICHENG, hint="“渭城朝雨”失粘。粘只看第 2 字。")
    attempt.gives(
        [(1, "对"), (2, "粘"), (3, "对")],
        _NIGHT,
        hint="《静夜思》是古体诗：第 4 字不对，也算失对；一句里不合几处，只记一次。",
    )
    attempt.gives([(1, "对")], [_BAIDI[0], "平仄平平仄平平"], hint="七言的第 6 字也要看。")
    attempt.gives(
        [], ["平平平仄平", "平仄平平仄", "平仄平仄平", "平平平平平"], hint="粘只看第 2 字。"
    )
    attempt.gives([], ["平平中仄平", "仄中仄平平"], hint="第 4 字一仄一平。")
    attempt.gives(
        [], ["平中平仄平", "仄平仄中平", "仄中仄仄仄", "平仄平平平"], hint="中与什么都合。"
    )
    attempt.gives([], [])


@task("14.2")
def _probability(attempt: Attempt) -> None:
    """``probability(texts, before, char, d)``: interpolated Kneser-Ney of two characters, as worked
    out by hand."""
    spring = ["春眠不觉晓", "春风吹又生"]
    alone = (1 - 0.5 + 0.5 * 10 / 11) / 11
    attempt.gives((0 + 0.5 * 2 * alone) / 2, spring, "春", "生", 0.5, hint="手算里的 0.0434。")
    attempt.gives((1 - 0.5 + 0.5 * 2 * alone) / 2, spring, "春", "眠", 0.5, hint="手算里的 0.293。")
    attempt.gives(alone, spring, "山", "眠", 0.5, hint="“山”没有见过，只用下面一级。")
    attempt.gives(0.5 * 10 / 11 / 11, spring, "山", "鹳", 0.5, hint="生字也有一点概率。")
    cranes = ["黄鹤楼", "黄鹤去", "黄鹤飞", "白云飞"]  # 11 pairs, 8 second characters, 9 in all
    crane, fly = (1 - 0.5 + 0.5 * 8 / 9) / 11, (2 - 0.5 + 0.5 * 8 / 9) / 11
    attempt.gives(
        crane, cranes, "山", "鹤", 0.5, hint="“鹤”出现三次，前面却只有“黄”：下面一级只算一种。"
    )
    attempt.gives(fly, cranes, "山", "飞", 0.5, hint="“飞”前面有“鹤”和“云”两种。")
    attempt.gives((3 - 0.5 + 0.5 * crane) / 3, cranes, "黄", "鹤", 0.5, hint="上面一级数次数。")
    attempt.gives((1 - 0.2 + 0.2 * 2 * _start(0.2)) / 4, cranes, "\n", "白", 0.2, hint="句首也算。")
    for before in ("鹤", "飞", "\n"):
        characters = [*"黄鹤楼去飞白云", "\n", "鹳"]
        total = math.fsum(attempt(cranes, before, char, 0.7) for char in characters)
        demand(
            math.isclose(total, 1, rel_tol=1e-6),
            f"{before!r} 后面各字（连同句尾和一个生字）的概率加起来是 {total:.4f}，应该是 1",
        )


def _start(d: float) -> float:
    """p(白) with one character before it, of the four lines of cranes."""
    return (1 - d + d * 8 / 9) / 11
