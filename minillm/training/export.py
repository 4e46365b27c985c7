"""Rows to padded tensors in a file: what a DataLoader of your own reads.

Training does not need this: it packs rows by itself, without padding. The file shows plainly what
the model is given, one row of the data in each row of the tensors.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, TypeAlias

import numpy as np
import torch

from minillm.config import DataStage, Range, check_ranges
from minillm.errors import UserError
from minillm.files import atomic_file
from minillm.tokenizer.vocabulary import RustBPETokenizer, find_tokenizer
from minillm.training.dataset import TokenSequence, tokenize_file
from minillm.training.packing import IGNORE_INDEX

WARNINGS_SHOWN = 5


@dataclass(frozen=True)
class ExportOptions:
    """Turn JSON Lines into a file of token tensors (read it by torch.load(FILE,
    weights_only=True))."""

    format: DataStage = "pretrain"
    """pretrain: input_ids, labels; sft: input_ids, loss_mask; dpo: both of chosen and of
    rejected."""
    data_path: Path | None = None
    """Rows to export; None: data/processed/FORMAT_chinese.jsonl."""
    output: Path | None = None
    """File to write; None: data/processed/FORMAT_tensors.pt."""
    tokenizer_path: Path | None = None
    """Folder of the tokenizer; None: out/tokenizer if it exists, else the built-in one."""
    max_length: Annotated[int, Range(2, 2**20)] = 2048
    """Tokens in a row: longer ones are cut with a warning, shorter ones padded."""
    bos_token: str = "<|bos|>"
    """Special token that every row starts with."""
    append_eos: bool = False
    """End every pretraining text with <|assistant_end|>, where chat models stop."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.append_eos and self.format != "pretrain":
            raise UserError(
                f"--append_eos is for --format pretrain; in {self.format} every answer ends with "
                "<|assistant_end|> anyway"
            )


Columns: TypeAlias = dict[str, tuple[type[np.generic], int]]
_SFT: Columns = {"input_ids": (np.int32, 0), "loss_mask": (np.int32, 0)}
COLUMNS: dict[DataStage, Columns] = {
    "pretrain": {"input_ids": (np.int32, 0), "labels": (np.int64, IGNORE_INDEX)},
    "sft": _SFT,
    "dpo": {f"{side}_{name}": _SFT[name] for side in ("chosen", "rejected") for name in _SFT},
}
"""Of each format: the names of the tensors ``[rows, max_length]``, their dtypes and padding."""


def row_tensors(
    sequences: list[TokenSequence], options: ExportOptions, tokenizer: RustBPETokenizer
) -> list[list[int]]:
    """A row's values for each column, not yet cut or padded.

    ``labels[t]`` is the token after ``input_ids[t]``, already shifted; ``loss_mask[t]`` says of
    ``input_ids[t]`` itself whether it is to be learned.
    """
    bos = tokenizer.special_id(options.bos_token)
    if options.format != "pretrain":
        return [part for ids, mask in sequences for part in ([bos, *ids[1:]], mask)]
    # Here a text stands alone, so no <|bos|> of a next one follows it.
    ids = [bos, *sequences[0][0][1:-1]]
    if options.append_eos:
        ids.append(tokenizer.special_id("<|assistant_end|>"))
    return [ids, ids[1:]]


def export(options: ExportOptions) -> tuple[Path, dict[str, torch.Tensor]]:
    """Writes the tensors and returns the file's path and what is in it.

    Raises:
        UserError: no such file, a row that cannot be used (names file and line), no row at all, or
            a place that cannot be written; an older output stays.
    """
    path = options.data_path or Path(f"data/processed/{options.format}_chinese.jsonl")
    output = options.output or Path(f"data/processed/{options.format}_tensors.pt")
    if not path.is_file():
        raise UserError(f"{path}: no such file; `python scripts/build_chinese_mix.py` makes it")
    tokenizer = find_tokenizer(options.tokenizer_path, Path("out"))
    if options.bos_token not in (known := tokenizer.special_tokens):
        raise UserError(
            f"--bos_token {options.bos_token!r} is no special token; there are {', '.join(known)}"
        )
    with atomic_file(output) as file, TemporaryDirectory(dir=output.parent) as folder:
        # Columns grow on disk and are mapped from there, so memory does not grow with the data.
        columns, shape = COLUMNS[options.format], (-1, options.max_length)
        _write_columns(path, Path(folder), options, tokenizer)
        tensors = {
            name: torch.from_numpy(np.memmap(Path(folder, name), dtype, "r+").reshape(shape))
            for name, (dtype, _) in columns.items()
        }
        torch.save(tensors, file)
    return output, tensors


def _write_columns(
    path: Path, folder: Path, options: ExportOptions, tokenizer: RustBPETokenizer
) -> None:
    columns, length, rows, cut = COLUMNS[options.format], options.max_length, 0, 0
    with ExitStack() as stack:
        files = [stack.enter_context(Path(folder, name).open("wb")) for name in columns]
        for record, sequences in tokenize_file(path, options.format, tokenizer):
            row = row_tensors(sequences, options, tokenizer)
            rows += 1
            if (longest := max(map(len, row))) > length:
                cut += 1
                if cut <= WARNINGS_SHOWN:
                    _warn(f"{path}:{record.line}: {longest} tokens, cut to {length}")
            for file, (dtype, fill), values in zip(files, columns.values(), row, strict=True):
                padded = np.full(length, fill, dtype)
                padded[: len(values)] = values[:length]
                file.write(padded.tobytes())
    if not rows:
        raise UserError(f"{path}: no rows to export")
    if cut:
        _warn(f"{cut} of {rows} rows were cut; raise --max-length or cut the data beforehand")


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def run_export(options: ExportOptions) -> None:
    """`minillm export`."""
    path, tensors = export(options)
    for name, tensor in tensors.items():
        print(f"{name:18} {str(tensor.dtype).removeprefix('torch.'):6} {tuple(tensor.shape)}")
    print(f"wrote {path}")
