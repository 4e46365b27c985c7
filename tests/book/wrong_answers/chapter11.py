"""Answers to the build tasks of chapter 11 that readers give and that are wrong."""

from __future__ import annotations

import math
import re

Interval = tuple[float, float]


def forgets_the_denominator(correct: int, n: int, z: float = 1.96) -> Interval:
    p = correct / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return middle - half, middle + half


def divides_by_n_once(correct: int, n: int, z: float = 1.96) -> Interval:
    p, a = correct / n, z * z / n
    half = z * math.sqrt(p * (1 - p) / n + a / 4)
    return (p + a / 2 - half) / (1 + a), (p + a / 2 + half) / (1 + a)


def is_the_naive_one(correct: int, n: int, z: float = 1.96) -> Interval:
    p = correct / n
    half = z * math.sqrt(p * (1 - p) / n)
    return p - half, p + half


def looks_for_the_answer_only(reply: str, answer: str, options: list[str]) -> bool:
    return answer in reply


def takes_every_option_that_is_in_it(reply: str, answer: str, options: list[str]) -> bool:
    said = {
        option
        for clause in re.split("[，。；？]", reply)
        for option in options
        if option in clause and not re.search("[不没]", clause[: clause.index(option)])
    }
    return said == {answer}


def refuses_every_no(reply: str, answer: str, options: list[str]) -> bool:
    found = re.findall("|".join(sorted(options, key=len, reverse=True)), reply)
    return set(found) == {answer} and not re.search("[不没]", reply)


WRONG = {
    "11.1": [forgets_the_denominator, divides_by_n_once, is_the_naive_one],
    "11.2": [looks_for_the_answer_only, takes_every_option_that_is_in_it, refuses_every_no],
}
