"""Answers to the build tasks of chapter 16 that readers give and that are wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

Choose = Callable[[str, list[str]], int]
Questions = list[tuple[str, list[str]]]


def right(chosen: str, answers: str) -> float:
    return sum(map(str.__eq__, chosen, answers)) / len(answers)


def takes_a_quarter_for_luck(chosen: str, answers: str) -> float:
    return (right(chosen, answers) - 0.25) / 0.75


def looks_at_what_was_chosen_only(chosen: str, answers: str) -> float:
    luck = sum((count / len(chosen)) ** 2 for count in Counter(chosen).values())
    return (right(chosen, answers) - luck) / (1 - luck) if luck < 1 else 0.0


def does_not_divide(chosen: str, answers: str) -> float:
    ours, theirs = Counter(chosen), Counter(answers)
    return right(chosen, answers) - sum(ours[x] * theirs[x] for x in ours) / len(answers) ** 2


def turns(options: list[str]) -> list[list[str]]:
    return [options[k:] + options[:k] for k in range(4)]


def compares_letters(choose: Choose, questions: Questions) -> float:
    held = [len({choose(q, order) for order in turns(options)}) == 1 for q, options in questions]
    return sum(held) / len(held)


def asks_twice(choose: Choose, questions: Questions) -> float:
    held = [
        len({order[choose(q, order)] for order in turns(options)[:2]}) == 1
        for q, options in questions
    ]
    return sum(held) / len(held)


def counts_the_turns(choose: Choose, questions: Questions) -> float:
    same = [
        order[choose(q, order)] == options[choose(q, options)]
        for q, options in questions
        for order in turns(options)
    ]
    return sum(same) / len(same)


WRONG = {
    "16.1": [takes_a_quarter_for_luck, looks_at_what_was_chosen_only, does_not_divide],
    "16.2": [compares_letters, asks_twice, counts_the_turns],
}
