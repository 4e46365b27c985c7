"""From rows to tokens, and from tokens to packed batches: the one place that does either.

A *sequence* is what the model reads as one document: a text, a conversation, or one answer of a
preference pair, as token ids and a 0/1 mask that says which of them are to be predicted. A
sequence of n tokens takes n - 1 positions of a row: token t is the input of position t and token
t + 1 is its label. So the sequences of a pretraining text are ``<|bos|> text <|bos|>``: the
closing one is only ever a label, and teaches the model where a document ends.

Training packs sequences into rows of fixed length, whole: no padding to speak of and nothing
thrown away. Document numbers keep attention from crossing from one sequence into the next.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from array import array
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from minillm.config import Stage, UserError
from minillm.rows import Chat, Pair, Row, plain_text
from minillm.sources import read
from minillm.tokenizer import RustBPETokenizer

IGNORE_INDEX = -100  # cross_entropy's default: a label that is not to be learned
CACHE_VERSION = 1
TokenSequence = tuple[list[int], list[int]]
"""Token ids and their mask."""


def tokenize_row(stage: Stage, row: Row, tokenizer: RustBPETokenizer) -> list[TokenSequence]:
    """The sequences of one row, uncut: (ids, mask) once, or for a preference pair twice, chosen
    first."""
    if stage == "pretrain":
        ids = [tokenizer.bos_id, *tokenizer.encode(plain_text(row)), tokenizer.bos_id]
        return [(ids, [0] + [1] * (len(ids) - 1))]
    if stage == "sft" and isinstance(row, Chat):
        return [tokenizer.render_conversation(row.messages)]
    if stage == "dpo" and isinstance(row, Pair):
        return [tokenizer.render_conversation(answer) for answer in (row.chosen, row.rejected)]
    wanted = "a conversation" if stage == "sft" else "a preference pair"
    raise ValueError(f"{stage} needs {wanted}, this row is a {type(row).__name__.lower()}")


def fit(stage: Stage, sequences: list[TokenSequence], max_seq_len: int) -> list[TokenSequence]:
    """Sequences of at most max_seq_len positions. Pretraining splits long ones and loses nothing:
    a piece begins with the last token of the piece before. SFT and DPO cut, since half an answer
    without its question teaches nothing; what is left without a token to predict is dropped, for
    DPO with its pair."""
    if stage == "pretrain":
        return [
            (ids[i : i + max_seq_len + 1], mask[i : i + max_seq_len + 1])
            for ids, mask in sequences
            for i in range(0, len(ids) - 1, max_seq_len)
        ]
    cut = [(ids[: max_seq_len + 1], mask[: max_seq_len + 1]) for ids, mask in sequences]
    return cut if all(any(mask[1:]) for _, mask in cut) else []


@dataclass(frozen=True)
class TokenDataset:
    """The sequences of one file, memory-mapped, so that memory does not grow with the data.

    ``ids`` int32 and ``mask`` uint8, both ``[tokens]``; sequence i is ``[offsets[i] : offsets[i +
    1]]``. ``unit`` sequences belong together: 2 for preference pairs, else 1. ``sha256`` is the
    file's; ``rows`` were read from it, ``cut`` of them were longer than the limit (and split, in
    pretraining), and ``dropped`` had nothing to learn.
    """

    ids: NDArray[np.int32]
    mask: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    unit: int
    sha256: str = ""
    rows: int = 0
    cut: int = 0
    dropped: int = 0

    def __len__(self) -> int:
        """Units: sequences, or pairs of them."""
        return (len(self.offsets) - 1) // self.unit

    def positions(self) -> NDArray[np.int64]:
        """Positions that each unit takes in a row, ``[units]``."""
        lengths = np.diff(self.offsets) - 1
        sums: NDArray[np.int64] = lengths.reshape(-1, self.unit).sum(axis=1)
        return sums


def load_dataset(
    path: Path, stage: Stage, tokenizer: RustBPETokenizer, max_seq_len: int, cache_dir: Path
) -> TokenDataset:
    """Tokenizes a file of rows, or takes its tokens from the cache.

    The cache is keyed by the file's content, the tokenizer and the length, so it is never stale,
    and moved into place whole, so that two processes may build it at once.

    Raises:
        UserError: a row cannot be used (names file and line), or the file has none.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; `python scripts/build_chinese_mix.py` makes it")
    sha256 = file_sha256(path)
    key = f"{CACHE_VERSION} {sha256} {tokenizer.fingerprint} {max_seq_len}"
    folder = cache_dir / f"{stage}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if not folder.is_dir():
        temporary = folder
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=folder.name, dir=cache_dir))
            _tokenize_file(path, stage, tokenizer, max_seq_len, temporary)
            temporary.rename(folder)
        except OSError as error:
            if not folder.is_dir():  # else another process was first, with the same content
                raise UserError(
                    f"{cache_dir}: cannot write the tokens of {path.name}: {error.strerror}; free "
                    "some space or choose another --out_dir"
                ) from None
        finally:
            if temporary != folder:
                shutil.rmtree(temporary, ignore_errors=True)
    meta = msgspec.json.decode((folder / "meta.json").read_bytes())
    return TokenDataset(
        ids=np.memmap(folder / "ids.bin", np.int32, "r"),
        mask=np.memmap(folder / "mask.bin", np.uint8, "r"),
        offsets=np.fromfile(folder / "offsets.bin", np.int64),
        sha256=sha256,
        **meta,
    )


def file_sha256(path: Path) -> str:
    """Hash of a file's content, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _tokenize_file(
    path: Path, stage: Stage, tokenizer: RustBPETokenizer, max_seq_len: int, folder: Path
) -> None:
    offsets = array("q", [0])
    rows = cut = dropped = 0
    with (folder / "ids.bin").open("wb") as ids_file, (folder / "mask.bin").open("wb") as mask_file:
        for _, sequences in tokenize_file(path, stage, tokenizer):
            fitted = fit(stage, sequences, max_seq_len)
            rows += 1
            cut += any(len(ids) > max_seq_len + 1 for ids, _ in sequences)
            dropped += not fitted
            for ids, mask in fitted:
                ids_file.write(np.asarray(ids, np.int32).tobytes())
                mask_file.write(np.asarray(mask, np.uint8).tobytes())
                offsets.append(offsets[-1] + len(ids))
    if len(offsets) == 1:
        raise UserError(
            f"{path}: no row to train on (rows read: {rows}, nothing to learn in: {dropped})"
        )
    if cut and stage != "pretrain":
        lost = f"; {dropped} have no answer left and are dropped" if dropped else ""
        print(
            f"warning: {path}: {cut} of {rows} rows are longer than --max_seq_len {max_seq_len} "
            f"and are cut{lost}",
            file=sys.stderr,
        )
    np.asarray(offsets, np.int64).tofile(folder / "offsets.bin")
    meta = {"unit": 2 if stage == "dpo" else 1, "rows": rows, "cut": cut, "dropped": dropped}
    (folder / "meta.json").write_bytes(msgspec.json.encode(meta))


def tokenize_file(
    path: Path, stage: Stage, tokenizer: RustBPETokenizer
) -> Iterator[tuple[int, list[TokenSequence]]]:
    """(line, sequences) of every row, with a progress bar.

    Raises:
        UserError: a row cannot be used; names file and line.
    """
    records = tqdm(read(path), desc=f"tokenize {path.name}", unit=" rows", leave=False)
    for record in records:
        try:
            yield record.line, tokenize_row(stage, record.row, tokenizer)
        except ValueError as error:
            raise UserError(f"{path}:{record.line}: {error}") from None


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
    file.
    """

    WINDOW = 8192
    """Units that are packed together. A window is a random sample of the data, and so is a row."""

    def __init__(
        self, data: TokenDataset, max_seq_len: int, epochs: int, seed: int, shuffle: bool = True
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
        return collate(self.data, [self[i] for i in rows if i < len(self)], self.row_length)

    def fill(self) -> float:
        """Share of all positions that hold a token."""
        used = int(self.data.positions()[self.units].sum())
        return used / (len(self) * self.row_length)
