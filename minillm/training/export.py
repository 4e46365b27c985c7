"""Rows to padded tensors in a file: what a DataLoader of your own reads.

Training does not need this: it packs rows by itself, without padding. The file shows plainly what
the model is given, one row of the data in each row of the tensors.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from minillm.config import Stage
from minillm.errors import UserError
from minillm.tokenizer.vocabulary import RustBPETokenizer, find_tokenizer
from minillm.training.dataset import TokenSequence, tokenize_file
from minillm.training.packing import IGNORE_INDEX

WARNINGS_SHOWN = 5


@dataclass(frozen=True)
class ExportOptions:
    """Turn JSON Lines into a file of token tensors (read it by torch.load(FILE,
    weights_only=True))."""

    format: Stage = "pretrain"
    """pretrain: input_ids, labels; sft: input_ids, loss_mask; dpo: both of chosen and of
    rejected."""
    data_path: Path | None = None
    """Rows to export; None: data/processed/FORMAT_chinese.jsonl."""
    output: Path | None = None
    """File to write; None: data/processed/FORMAT_tensors.pt."""
    tokenizer_path: Path | None = None
    """Folder of the tokenizer; None: out/tokenizer if it exists, else the built-in one."""
    max_length: int = 2048
    """Tokens in a row: longer ones are cut with a warning, shorter ones padded."""
    bos_token: str = "<|bos|>"
    """Special token that every row starts with."""
    append_eos: bool = False
    """End every pretraining text with <|assistant_end|>, where chat models stop."""


def sequences_of(
    sequences: list[TokenSequence], options: ExportOptions, tokenizer: RustBPETokenizer
) -> list[TokenSequence]:
    """A row's sequences with the special tokens that were asked for."""
    bos = tokenizer.special_id(options.bos_token)
    result = [([bos, *ids[1:]], mask) for ids, mask in sequences]
    if options.format == "pretrain":
        # Here a row stands alone, so no <|bos|> of a next document follows its text.
        end = [tokenizer.special_id("<|assistant_end|>")] if options.append_eos else []
        result = [([*ids[:-1], *end], [1] * (len(ids) - 1 + len(end))) for ids, _ in result]
    return result


def columns(options: ExportOptions) -> dict[str, type[np.generic]]:
    """Names and dtypes of the tensors, ``[rows, max_length]`` each."""
    if options.format == "pretrain":
        return {"input_ids": np.int32, "labels": np.int64}
    sides = [""] if options.format == "sft" else ["chosen_", "rejected_"]
    kinds = {"input_ids": np.int32, "loss_mask": np.int32}
    return {side + name: dtype for side in sides for name, dtype in kinds.items()}


def row_tensors(sequences: list[TokenSequence], options: ExportOptions) -> list[Sequence[int]]:
    """The row's values for each column, cut to max_length and not yet padded.

    ``labels[t]`` is the token after ``input_ids[t]``, already shifted; ``loss_mask[t]`` says of
    ``input_ids[t]`` itself whether it is to be learned.
    """
    if options.format == "pretrain":
        ids = sequences[0][0]
        return [ids[: options.max_length], ids[1 : options.max_length + 1]]
    return [part[: options.max_length] for sequence in sequences for part in sequence]


def export(options: ExportOptions) -> tuple[Path, dict[str, torch.Tensor]]:
    """Writes the tensors and returns the file's path and what is in it.

    Raises:
        UserError: no such file, a row that cannot be used (names file and line), or no row at all.
    """
    if options.max_length < 2:
        raise UserError(f"--max_length must be at least 2, not {options.max_length}")
    path = options.data_path or Path(f"data/processed/{options.format}_chinese.jsonl")
    output = options.output or Path(f"data/processed/{options.format}_tensors.pt")
    if not path.is_file():
        raise UserError(f"{path}: no such file; `python scripts/build_chinese_mix.py` makes it")
    tokenizer = find_tokenizer(options.tokenizer_path, Path("out"))
    if options.bos_token not in tokenizer.special_tokens:
        raise UserError(
            f"--bos_token {options.bos_token!r} is no special token; there are "
            + ", ".join(tokenizer.special_tokens)
        )
    fill = {"labels": IGNORE_INDEX}
    rows = cut = 0
    output.parent.mkdir(parents=True, exist_ok=True)
    # Columns grow on disk and are mapped from there, so memory does not grow with the data.
    with TemporaryDirectory(dir=output.parent) as folder:
        names = columns(options)
        files = {name: (Path(folder) / name).open("wb") for name in names}
        for line, sequences in tokenize_file(path, options.format, tokenizer):
            sequences = sequences_of(sequences, options, tokenizer)
            longest = max(len(ids) for ids, _ in sequences)
            if longest > options.max_length:
                cut += 1
                if cut <= WARNINGS_SHOWN:
                    warn(f"{path}:{line}: {longest} tokens, cut to {options.max_length}")
            for (name, dtype), values in zip(
                names.items(), row_tensors(sequences, options), strict=True
            ):
                padded = np.full(options.max_length, fill.get(name, 0), dtype)
                padded[: len(values)] = values
                files[name].write(padded.tobytes())
            rows += 1
        for file in files.values():
            file.close()
        if not rows:
            raise UserError(f"{path}: no rows to export")
        if cut:
            warn(f"{cut} of {rows} rows were cut; raise --max-length or cut the data beforehand")
        tensors = {
            name: torch.from_numpy(
                np.memmap(Path(folder) / name, dtype, "r+", shape=(rows, options.max_length))
            )
            for name, dtype in names.items()
        }
        temporary = output.with_name(output.name + ".tmp")
        torch.save(tensors, temporary)
        temporary.replace(output)
    return output, tensors


def warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def run_export(options: ExportOptions) -> None:
    """`minillm export`."""
    path, tensors = export(options)
    for name, tensor in tensors.items():
        print(f"{name:18} {str(tensor.dtype).removeprefix('torch.'):6} {tuple(tensor.shape)}")
    print(f"wrote {path}")
