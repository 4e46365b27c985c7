"""From rows to tokens: the one place that tokenizes.

A *sequence* is what the model reads as one document: a text, a conversation, or one answer of a
preference pair, as token ids and a 0/1 mask that says which of them are to be predicted. A
sequence of n tokens takes n - 1 positions of a row: token t is the input of position t and token
t + 1 is its label. So the sequences of a pretraining text are ``<|bos|> text <|bos|>``: the
closing one is only ever a label, and teaches the model where a document ends.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from minillm.config import Stage
from minillm.data.readers import Record, read
from minillm.data.rows import Chat, Pair, Row, plain_text
from minillm.errors import UserError
from minillm.files import file_sha256
from minillm.progress import counted
from minillm.tokenizer.vocabulary import RustBPETokenizer

CACHE_VERSION = 2
_Number = TypeVar("_Number", bound=np.generic)


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


class Joined(Generic[_Number]):
    """Arrays one after the other, read as if they were one, but never copied into one.

    Of each a piece can be read, ``[from : to]``, which must not reach into the next array.
    """

    def __init__(self, arrays: Sequence[NDArray[_Number] | Joined[_Number]]) -> None:
        self.arrays: list[NDArray[_Number] | Joined[_Number]] = [*arrays]
        self.starts = np.cumsum([0, *map(len, arrays)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, piece: slice) -> NDArray[_Number]:
        at = int(np.searchsorted(self.starts, piece.start, side="right")) - 1
        start, end = self.starts[at : at + 2]
        if piece.stop > end:
            raise IndexError(f"{piece} reaches over the end of an array, {end}")
        found: NDArray[_Number] = self.arrays[at][piece.start - start : piece.stop - start]
        return found


@dataclass(frozen=True)
class TokenDataset:
    """The sequences of a file or of several shards, memory-mapped, so that memory does not grow
    with the data.

    ``ids`` int32 and ``mask`` uint8, both ``[tokens]``; sequence i is ``[offsets[i] : offsets[i +
    1]]``. ``unit`` sequences belong together: 2 for preference pairs, else 1. ``sha256`` is the
    file's, or that of the shards' in their order; ``rows`` were read from them, ``cut`` of these
    were longer than the limit (and split, in pretraining), and ``dropped`` had nothing to learn.
    ``kinds`` says for each kind of row (text, chat, pair) in which line the first one stands.
    """

    ids: NDArray[np.int32] | Joined[np.int32]
    mask: NDArray[np.uint8] | Joined[np.uint8]
    offsets: NDArray[np.int64]
    unit: int
    sha256: str = ""
    rows: int = 0
    cut: int = 0
    dropped: int = 0
    kinds: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """Units: sequences, or pairs of them."""
        return (len(self.offsets) - 1) // self.unit

    def usual_length(self) -> int:
        """Tokens that 95 in 100 sequences do not exceed."""
        return int(np.quantile(np.diff(self.offsets), 0.95))

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
    and moved into place whole. Of processes that want the same at once, one tokenizes.

    Raises:
        UserError: a row cannot be used (names file and line), or the file has none.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; `python scripts/build_chinese_mix.py` makes it")
    sha256 = file_sha256(path)
    key = f"{CACHE_VERSION} {sha256} {tokenizer.fingerprint} {max_seq_len}"
    folder = cache_dir / f"{stage}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if not folder.is_dir():
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(cache_dir / f".{folder.name}.lock"):
                if not folder.is_dir():  # else another process was first
                    _fill_cache(folder, path, stage, tokenizer, max_seq_len)
        except OSError as error:
            raise UserError(
                f"{cache_dir}: cannot write the tokens of {path.name}: {error.strerror}; free some "
                "space or choose another --out_dir"
            ) from None
    meta = msgspec.json.decode((folder / "meta.json").read_bytes())
    return TokenDataset(
        ids=np.memmap(folder / "ids.bin", np.int32, "r"),
        mask=np.memmap(folder / "mask.bin", np.uint8, "r"),
        offsets=np.fromfile(folder / "offsets.bin", np.int64),
        sha256=sha256,
        **meta,
    )


def load_shards(
    paths: Sequence[Path],
    stage: Stage,
    tokenizer: RustBPETokenizer,
    max_seq_len: int,
    cache_dir: Path,
    rank: int = 0,
    world_size: int = 1,
) -> TokenDataset:
    """The rows of several files as if they stood in one; of a single one, ``load_dataset``'s.

    Each file has its place in the cache, so one more file costs no more than its own tokens.

    Args:
        paths: in the order in which their rows come.
        rank: number of this process among ``world_size`` that want the same. Each begins at another
            file, so that they share the work before they meet.

    Raises:
        UserError: like ``load_dataset``; rows of different kinds in different files, which names
            file and line; two files of the same content.
    """
    first = len(paths) * rank // world_size
    loaded = {
        path: load_dataset(path, stage, tokenizer, max_seq_len, cache_dir)
        for path in [*paths[first:], *paths[:first]]
    }
    shards = [loaded[path] for path in paths]
    if len(shards) == 1:
        return shards[0]
    _check_they_agree(dict(zip(paths, shards, strict=True)))
    lengths = np.concatenate([np.diff(shard.offsets) for shard in shards])
    return TokenDataset(
        ids=Joined([shard.ids for shard in shards]),
        mask=Joined([shard.mask for shard in shards]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        unit=shards[0].unit,
        sha256=hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest(),
        rows=sum(shard.rows for shard in shards),
        cut=sum(shard.cut for shard in shards),
        dropped=sum(shard.dropped for shard in shards),
    )


def _check_they_agree(shards: dict[Path, TokenDataset]) -> None:
    """Raises UserError where a shard holds rows of another kind than the first one, or the same
    ones as another."""
    example, first = next(iter(shards.items()))
    (kind, line), *_ = first.kinds.items()
    seen: dict[str, Path] = {}
    for path, shard in shards.items():
        for other, place in shard.kinds.items():
            if other != kind:
                raise UserError(
                    f"{path}:{place}: this row is a {other}, that of {example}:{line} a {kind}; "
                    "shards hold rows of one kind: move some away, or name the others by a pattern"
                )
        if same := seen.get(shard.sha256):
            raise UserError(
                f"{path}: the same bytes as {same}; move one of them away (to read rows several "
                "times, raise --epochs)"
            )
        seen[shard.sha256] = path


def _fill_cache(
    folder: Path, path: Path, stage: Stage, tokenizer: RustBPETokenizer, max_seq_len: int
) -> None:
    unfinished = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    unfinished.mkdir()
    try:
        _tokenize_file(path, stage, tokenizer, max_seq_len, unfinished)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _tokenize_file(
    path: Path, stage: Stage, tokenizer: RustBPETokenizer, max_seq_len: int, folder: Path
) -> None:
    offsets = array("q", [0])
    rows = cut = dropped = 0
    kinds: dict[str, int] = {}
    with (folder / "ids.bin").open("wb") as ids_file, (folder / "mask.bin").open("wb") as mask_file:
        for record, sequences in tokenize_file(path, stage, tokenizer):
            kinds.setdefault(type(record.row).__name__.lower(), record.line)
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
    unit = 2 if stage == "dpo" else 1
    meta = {"unit": unit, "rows": rows, "cut": cut, "dropped": dropped, "kinds": kinds}
    (folder / "meta.json").write_bytes(msgspec.json.encode(meta))


def tokenize_file(
    path: Path, stage: Stage, tokenizer: RustBPETokenizer
) -> Iterator[tuple[Record, list[TokenSequence]]]:
    """(row as it was read, sequences) of every row, with a progress bar.

    Raises:
        UserError: a row cannot be used; names file and line.
    """
    for record in counted(read(path), f"tokenize {path.name}"):
        try:
            yield record, tokenize_row(stage, record.row, tokenizer)
        except ValueError as error:
            raise UserError(f"{path}:{record.line}: {error}") from None
