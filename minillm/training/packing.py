"""From tokens to packed batches: the one place that packs.

Sequences (see ``minillm.training.dataset``) are packed into rows of fixed length, whole: no padding
to speak of and nothing thrown away. Document numbers keep attention from crossing from one sequence
into the next.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minillm.training.dataset import TokenDataset

IGNORE_INDEX = -100  # cross_entropy's default: a label that is not to be learned


def pack(
    lengths: NDArray[np.int64], capacity: int, order: Sequence[int] | NDArray[np.int64]
) -> list[list[int]]:
    """Packs the units that ``order`` names into rows of ``capacity`` positions, each whole;
    returns the units of each row.

    Best fit decreasing (Johnson 1973): the longest unit first, each into the row that it leaves
    the least room in.
    """
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # (room left, row), sorted
    units = np.asarray(order)
    for unit in units[np.argsort(-lengths[units], kind="stable")].tolist():
        need = int(lengths[unit])
        place = bisect_left(open_rows, (need, -1))
        if place < len(open_rows):
            room, row = open_rows.pop(place)
        else:
            room, row = capacity, len(rows)
            rows.append([])
        rows[row].append(unit)
        if room > need:
            insort(open_rows, (room - need, row))
    return rows


@dataclass
class Batch:
    """Packed rows. All ``[B, T]`` int64.

    ``labels[b, t]`` is the token that follows ``input_ids[b, t]`` in its document (already
    shifted), or -100 where none is to be learned. ``position_ids`` start at 0 in each document.
    ``document_ids`` number the documents through the whole batch, 0 to ``num_documents`` - 1, and
    are -1 in padding; of a preference pair, the chosen one is even and the rejected one is the
    odd one after it. ``num_targets`` counts the labels that are to be learned, so that nobody has
    to ask a GPU for it.
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    document_ids: Tensor
    num_documents: int
    num_targets: int

    def to(self, device: torch.device) -> Batch:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """In memory that a GPU can fetch from while it computes; a ``DataLoader`` calls it."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            input_ids=change(self.input_ids),
            labels=change(self.labels),
            position_ids=change(self.position_ids),
            document_ids=change(self.document_ids),
        )


def collate(data: TokenDataset, rows: Sequence[Sequence[int]], row_length: int) -> Batch:
    """Lays the units of each row one after the other into a batch ``[len(rows), row_length]``."""
    shape = (len(rows), row_length)
    input_ids = np.zeros(shape, np.int64)
    labels = np.full(shape, IGNORE_INDEX, np.int64)
    position_ids = np.zeros(shape, np.int64)
    document_ids = np.full(shape, -1, np.int64)
    document = 0
    for b, units in enumerate(rows):
        at = 0
        for sequence in (u * data.unit + k for u in units for k in range(data.unit)):
            start, end = data.offsets[sequence], data.offsets[sequence + 1]
            to = at + end - start - 1
            input_ids[b, at:to] = data.ids[start : end - 1]
            labels[b, at:to] = np.where(
                data.mask[start + 1 : end], data.ids[start + 1 : end], IGNORE_INDEX
            )
            position_ids[b, at:to] = np.arange(end - start - 1)
            document_ids[b, at:to] = document
            document += 1
            at = to
    tensor, num_targets = torch.from_numpy, int((labels != IGNORE_INDEX).sum())
    return Batch(
        tensor(input_ids),
        tensor(labels),
        tensor(position_ids),
        tensor(document_ids),
        document,
        num_targets,
    )


class PackedRows:
    """The rows of all epochs, in the order in which training reads them.

    A function of (data, row length, epochs, seed) and nothing else: where training stands in its
    data is one number, the next row, which is why it can go on exactly where it stopped. Each
    epoch has every unit once, shuffled and packed anew; ``shuffle=False`` keeps the order of the
    file. Epochs that begin after ``most`` rows are left out.
    """

    WINDOW = 8192
    """Units that are packed together. A window is a random sample of the data, and so is a row."""

    def __init__(
        self,
        data: TokenDataset,
        max_seq_len: int,
        epochs: int,
        seed: int,
        shuffle: bool = True,
        most: int | None = None,
    ) -> None:
        self.data = data
        # A pair must fit into one row, since DPO compares its two answers.
        self.row_length = max_seq_len * data.unit
        lengths = data.positions()
        # Row i holds units[starts[i] : ends[i]]: a list of lists would be larger than the tokens.
        units, starts, ends, filled = [], [], [], 0
        for epoch in range(epochs):
            rng = np.random.default_rng((seed, epoch))
            order = rng.permutation(len(data)) if shuffle else np.arange(len(data))
            sizes = []
            for at in range(0, len(order), self.WINDOW):
                rows = pack(lengths, self.row_length, order[at : at + self.WINDOW])
                units.append(np.concatenate(rows).astype(np.int32))
                sizes.append(np.array([len(row) for row in rows]))
            last = filled + np.cumsum(np.concatenate(sizes))
            first = last - np.concatenate(sizes)
            filled += len(order)
            # Best fit leaves the long units' rows first and the short ones' last.
            new_order = rng.permutation(len(last)) if shuffle else np.arange(len(last))
            starts.append(first[new_order])
            ends.append(last[new_order])
            if most is not None and sum(map(len, starts)) >= most:
                break
        self.units: NDArray[np.int32] = np.concatenate(units)
        self.starts, self.ends = np.concatenate(starts), np.concatenate(ends)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, row: int) -> list[int]:
        """The units of a row."""
        units: list[int] = self.units[self.starts[row] : self.ends[row]].tolist()
        return units

    def batch(self, rows: range) -> Batch:
        """The rows with these numbers, as one batch; numbers past the end give fewer or no rows."""
        there = range(rows.start, min(rows.stop, len(self)), rows.step)
        return collate(self.data, [self[i] for i in there], self.row_length)

    def fill(self) -> float:
        """Share of all positions that hold a token."""
        used = int(self.data.positions()[self.units].sum())
        return used / (len(self) * self.row_length)
