"""Answers to the build tasks of chapter 14 that readers give and that are wrong."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

Faults = list[tuple[int, str]]


def takes_what_can_be_either_for_a_tone(lines: list[str]) -> Faults:
    found = []
    for i in range(1, len(lines)):
        before, line = lines[i - 1], lines[i]
        if i % 2 and any(before[p] == line[p] for p in range(1, len(line), 2)):
            found.append((i, "对"))
        if i % 2 == 0 and before[1] != line[1]:
            found.append((i, "粘"))
    return found


def looks_at_the_second_only(lines: list[str]) -> Faults:
    found = []
    for i in range(1, len(lines)):
        pair = (lines[i - 1][1], lines[i][1])
        if "中" not in pair and (pair[0] == pair[1]) == bool(i % 2):
            found.append((i, "对" if i % 2 else "粘"))
    return found


def wants_all_places_alike(lines: list[str]) -> Faults:
    found = []
    for i in range(1, len(lines)):
        pairs = [(lines[i - 1][p], lines[i][p]) for p in range(1, len(lines[i]), 2)]
        if any("中" not in p and (p[0] == p[1]) == bool(i % 2) for p in pairs):
            found.append((i, "对" if i % 2 else "粘"))
    return found


def mixed(texts: list[str], before: str, char: str, d: float, lower: float) -> float:
    pairs = Counter(pair for text in texts for pair in pairwise("\n" + text + "\n"))
    after = [count for (first, _), count in pairs.items() if first == before]
    kept = max(pairs[before, char] - d, 0)
    return (kept + d * len(after) * lower) / sum(after) if after else lower


def counts_how_often(texts: list[str], before: str, char: str, d: float) -> float:
    ends = Counter(end for text in texts for end in text + "\n")
    size = len(set("".join(texts))) + 2
    p = (max(ends[char] - d, 0) + d * len(ends) / size) / sum(ends.values())
    return mixed(texts, before, char, d, p)


def forgets_unknown_characters(texts: list[str], before: str, char: str, d: float) -> float:
    pairs = {pair for text in texts for pair in pairwise("\n" + text + "\n")}
    ends = Counter(end for _, end in pairs)
    p = (max(ends[char] - d, 0) + d) / len(pairs) if char in ends else 0.0
    return mixed(texts, before, char, d, p)


def divides_by_0(texts: list[str], before: str, char: str, d: float) -> float:
    pairs = Counter(pair for text in texts for pair in pairwise("\n" + text + "\n"))
    ends = Counter(end for _, end in pairs)
    size = len(set("".join(texts))) + 2
    p = (max(ends[char] - d, 0) + d * len(ends) / size) / len(pairs)
    after = [count for (first, _), count in pairs.items() if first == before]
    return (max(pairs[before, char] - d, 0) + d * len(after) * p) / sum(after)


WRONG = {
    "14.1": [
        takes_what_can_be_either_for_a_tone,
        looks_at_the_second_only,
        wants_all_places_alike,
    ],
    "14.2": [counts_how_often, forgets_unknown_characters, divides_by_0],
}
