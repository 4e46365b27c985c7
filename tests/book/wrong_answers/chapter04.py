"""Answers to the build tasks of chapter 4 that readers give and that are wrong."""

from __future__ import annotations

from torch import Tensor, full, int64, tensor, zeros

Rows = list[tuple[list[int], list[int]]]


def filled(rows: Rows, T: int, shift: int, mask_shift: int, room: int, nothing: int) -> object:
    inputs = zeros((len(rows), T), dtype=int64)
    labels = full((len(rows), T), nothing)
    for b, (ids, mask) in enumerate(rows):
        ids, mask = ids[:room], mask[:room]
        for t in range(min(T, len(ids) - 1)):
            inputs[b, t] = ids[t]
            labels[b, t] = ids[t + shift] if mask[t + mask_shift] else nothing
    return inputs, labels


def forgets_to_shift(rows: Rows, T: int) -> object:
    return filled(rows, T, 0, 0, T + 1, -100)


def forgets_to_shift_the_mask(rows: Rows, T: int) -> object:
    return filled(rows, T, 1, 0, T + 1, -100)


def learns_to_say_padding(rows: Rows, T: int) -> object:
    return filled(rows, T, 1, 1, T + 1, 0)


def cuts_one_too_many(rows: Rows, T: int) -> object:
    return filled(rows, T, 1, 1, T, -100)


def numbered(lengths: list[int], capacity: int, rows: list[list[int]], restart: bool) -> object:
    positions, documents = [], []
    for row in rows:
        left = capacity - sum(lengths[d] for d in row)
        numbers = [i for d in row for i in range(lengths[d])]
        if not restart:
            numbers = list(range(len(numbers)))
        positions.append(numbers + [0] * left)
        documents.append([d for d in row for _ in range(lengths[d])] + [-1] * left)
    return tensor(positions), tensor(documents)


def packed(lengths: list[int], capacity: int, order: list[int], which: str) -> list[list[int]]:
    rows: list[list[int]] = []
    room: list[int] = []
    for d in order:
        fits = [r for r in range(len(rows)) if room[r] >= lengths[d]]
        if which == "last":
            fits = [r for r in fits if r == len(rows) - 1]
        if not fits:
            fits = [len(rows)]
            rows.append([])
            room.append(capacity)
        r = fits[0] if which == "first" else min(fits, key=lambda r: room[r])
        rows[r].append(d)
        room[r] -= lengths[d]
    return rows


def longest_first(lengths: list[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda d: -lengths[d])


def in_the_order_of_the_file(lengths: list[int], capacity: int) -> object:
    rows = packed(lengths, capacity, list(range(len(lengths))), "best")
    return numbered(lengths, capacity, rows, restart=True)


def the_first_row_that_fits(lengths: list[int], capacity: int) -> object:
    rows = packed(lengths, capacity, longest_first(lengths), "first")
    return numbered(lengths, capacity, rows, restart=True)


def never_looks_back(lengths: list[int], capacity: int) -> object:
    rows = packed(lengths, capacity, longest_first(lengths), "last")
    return numbered(lengths, capacity, rows, restart=True)


def positions_of_the_row(lengths: list[int], capacity: int) -> object:
    rows = packed(lengths, capacity, longest_first(lengths), "best")
    return numbered(lengths, capacity, rows, restart=False)


def forgets_the_documents(lengths: list[int], capacity: int) -> Tensor:
    return tensor([[0] * capacity])


WRONG = {
    "4.1": [
        forgets_to_shift,
        forgets_to_shift_the_mask,
        learns_to_say_padding,
        cuts_one_too_many,
    ],
    "4.2": [
        in_the_order_of_the_file,
        the_first_row_that_fits,
        never_looks_back,
        positions_of_the_row,
        forgets_the_documents,
    ],
}
