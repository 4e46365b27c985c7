"""Answers to the build tasks of chapter 2 that readers give and that are wrong."""

from __future__ import annotations

from collections.abc import Callable

Rows = list[str]
Held = Callable[[str], bool]


def repeats_what_was_not_distinct(documents: Rows, is_held_out: Held, target: int) -> object:
    train = [d for d in documents if not is_held_out(d)]
    val = [d for d in documents if is_held_out(d)]
    q, r = divmod(target, len(train)) if train else (0, 0)
    return [d for i, d in enumerate(train) for _ in range(q + (i < r))], val


def all_of_the_rest_to_the_first(documents: Rows, is_held_out: Held, target: int) -> object:
    different = list(dict.fromkeys(documents))
    train = [d for d in different if not is_held_out(d)]
    val = [d for d in different if is_held_out(d)]
    q, r = divmod(target, len(train)) if train else (0, 0)
    return [d for i, d in enumerate(train) for _ in range(q + (r if i == 0 else 0))], val


def a_share_for_what_is_held_out(documents: Rows, is_held_out: Held, target: int) -> object:
    different = list(dict.fromkeys(documents))
    q, r = divmod(target, len(different)) if different else (0, 0)
    rows = [d for i, d in enumerate(different) for _ in range(q + (i < r))]
    return [d for d in rows if not is_held_out(d)], [d for d in different if is_held_out(d)]


def divides_by_nothing(documents: Rows, is_held_out: Held, target: int) -> object:
    different = list(dict.fromkeys(documents))
    train = [d for d in different if not is_held_out(d)]
    q, r = divmod(target, len(train))
    rows = [d for i, d in enumerate(train) for _ in range(q + (i < r))]
    return rows, [d for d in different if is_held_out(d)]


def runs(text: str) -> set[str]:
    text = "".join(filter(str.isalnum, text))
    return {text[i : i + 3] for i in range(len(text) - 2)}


def letter_by_letter(train: Rows, quiz: Rows, threshold: float) -> Rows:
    return [question for question in quiz if any(question in d for d in train)]


def how_like_they_are(train: Rows, quiz: Rows, threshold: float) -> Rows:
    def share(question: str, document: str) -> float:
        one, other = runs(question), runs(document)
        return len(one & other) / len(one | other)

    return [q for q in quiz if any(share(q, d) >= threshold for d in train)]


def from_all_documents_together(train: Rows, quiz: Rows, threshold: float) -> Rows:
    known = {run for document in train for run in runs(document)}
    return [q for q in quiz if len(runs(q) & known) / len(runs(q)) >= threshold]


def with_its_punctuation(train: Rows, quiz: Rows, threshold: float) -> Rows:
    def raw(text: str) -> set[str]:
        return {text[i : i + 3] for i in range(len(text) - 2)}

    return [q for q in quiz if any(len(raw(q) & raw(d)) / len(raw(q)) >= threshold for d in train)]


WRONG = {
    "2.1": [
        repeats_what_was_not_distinct,
        all_of_the_rest_to_the_first,
        a_share_for_what_is_held_out,
        divides_by_nothing,
    ],
    "2.2": [
        letter_by_letter,
        how_like_they_are,
        from_all_documents_together,
        with_its_punctuation,
    ],
}
