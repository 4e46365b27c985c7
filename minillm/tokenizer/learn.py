"""The ``tokenizer`` command: learn a vocabulary from the data mix and say how good it is."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from minillm.config import STAGES, Preset, Size, check_ranges
from minillm.data.readers import read
from minillm.data.rows import plain_text
from minillm.errors import UserError
from minillm.progress import counted
from minillm.tokenizer.vocabulary import RustBPETokenizer

SLOW_BYTES = 50_000_000
"""Corpus size from which on the Python reference takes a minute and more."""
PYTHON_BYTES_PER_BYTE = 80
"""Memory that the Python reference needs for each byte of varied Chinese text."""
COMPRESSION_SAMPLE_ROWS = 500
"""Rows of each file that compression is measured on."""


def _mix(folder: str) -> tuple[Path, ...]:
    return tuple(Path(folder) / f"{stage}_chinese.jsonl" for stage in STAGES)


@dataclass(frozen=True)
class TokenizerOptions:
    """What to learn a vocabulary from. ENABLE_RUSTBPE=1 in the environment: by the Rust trainer."""

    data_path: tuple[Path, ...] = _mix("data/processed")
    """Files of rows to learn from: texts, conversations or preference pairs."""
    vocab_size: Size = 6400
    """Tokens in the vocabulary, the 9 special ones included."""
    out_dir: Path = Path("out/tokenizer")
    """Folder that the tokenizer is written to."""

    def __post_init__(self) -> None:
        check_ranges(self)


TOKENIZER_PRESETS: dict[Preset, TokenizerOptions] = {
    "default": TokenizerOptions(),
    "small": TokenizerOptions(_mix("data/processed/small"), 6400, Path("out/small/tokenizer")),
    "tiny": TokenizerOptions(_mix("data/processed/tiny"), 1024, Path("out/tiny/tokenizer")),
    "smoke": TokenizerOptions(_mix("data/processed/smoke"), 6400, Path("out/smoke/tokenizer")),
}


class Corpus:
    """The rows of some files as plain text, read one at a time; keeps count, and a sample."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.rows = self.characters = self.bytes = 0
        self.sample: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for path in self.paths:
            for number, record in enumerate(counted(read(path), f"read {path.name}")):
                text = plain_text(record.row)
                self.rows += 1
                self.characters += len(text)
                self.bytes += len(text.encode())
                if number < COMPRESSION_SAMPLE_ROWS:
                    self.sample.append(text)
                yield text


def run_tokenizer(options: TokenizerOptions) -> RustBPETokenizer:
    """Learn a vocabulary, save it, print what it is like.

    Raises:
        UserError: a file is missing or has a row that cannot be used, no file has rows, the
            vocabulary is too small for the 256 bytes, or the Rust trainer is wanted and not there.
    """
    corpus = Corpus(_with_rows(options.data_path))
    use_rust = os.environ.get("ENABLE_RUSTBPE") == "1"
    size = sum(path.stat().st_size for path in corpus.paths)
    if size > SLOW_BYTES and not use_rust:
        print(
            f"note: {size / 1e6:,.0f} MB will take the Python trainer minutes and up to "
            f"{size * PYTHON_BYTES_PER_BYTE / 1e9:,.1f} GB of memory; ENABLE_RUSTBPE=1 learns the "
            f"same vocabulary with far less of both",
            file=sys.stderr,
        )
    start = time.perf_counter()
    tokenizer = RustBPETokenizer.train(corpus, options.vocab_size, use_rust=use_rust)
    seconds = time.perf_counter() - start

    sample_tokens = sum(map(len, tokenizer.encode_batch(corpus.sample)))
    tokenizer.statistics.update(
        corpus_rows=corpus.rows,
        corpus_characters=corpus.characters,
        corpus_bytes=corpus.bytes,
        characters_per_token=round(sum(map(len, corpus.sample)) / sample_tokens, 4),
        bytes_per_token=round(sum(len(s.encode()) for s in corpus.sample) / sample_tokens, 4),
    )
    tokenizer.save(options.out_dir)
    _report(tokenizer, options, seconds, "rustbpe" if use_rust else "the Python reference")
    return tokenizer


def _with_rows(paths: Sequence[Path]) -> list[Path]:
    """The files that are not empty. Of the mix's own files any may be missing, of others none."""
    defaults = {path for preset in TOKENIZER_PRESETS.values() for path in preset.data_path}
    found = []
    for path in paths:
        if not path.is_file():
            if path not in defaults:
                raise UserError(f"--data_path: {path}: no such file")
            print(f"{path}: no such file, left out")
        elif not path.stat().st_size:  # the mix writes one for a stage without rows
            print(f"{path}: no rows in it, left out")
        else:
            found.append(path)
    if not found:
        raise UserError(
            "nothing to learn from: run `python scripts/build_chinese_mix.py` or name --data_path; "
            f"missing or empty: {', '.join(map(str, paths))}"
        )
    return found


def _report(
    tokenizer: RustBPETokenizer, options: TokenizerOptions, seconds: float, trainer: str
) -> None:
    found = tokenizer.statistics
    if tokenizer.vocab_size < options.vocab_size:
        print(
            f"note: no pair is left to merge: the vocabulary has {tokenizer.vocab_size:,} tokens, "
            f"not --vocab_size {options.vocab_size:,}; more text, or more varied text, gives more"
        )
    print(
        f"learned     by {trainer} in {seconds:.1f} s from {found['corpus_rows']:,} rows "
        f"({found['corpus_characters']:,} characters, {found['corpus_bytes']:,} bytes)\n"
        f"vocabulary  {tokenizer.vocab_size:,} tokens: {found['mergeable_tokens']:,} mergeable, "
        f"{len(tokenizer.special_tokens)} special; "
        f"{found['tokens_not_utf8']:,} are not valid UTF-8 by themselves\n"
        f"a token is  {found['characters_per_token']:.3f} characters, "
        f"{found['bytes_per_token']:.3f} bytes on average "
        f"(first {COMPRESSION_SAMPLE_ROWS} rows of each file)\n"
        f"written to  {options.out_dir}"
    )
