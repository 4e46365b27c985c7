"""The tokenizer: text → token ids and back, and conversations → ids with a loss mask.

A vocabulary is *learned* by byte-pair encoding, either by the Rust crate or by the plain Python of
``minillm.tokenizer.bpe`` (both learn the same merges), and *used* through tiktoken, which encodes
fast.

    text ── SPLIT_PATTERN ──▶ chunks ── merges (mergeable_ranks) ──▶ ids 0 … 6390
    conversation ── render_conversation ──▶ the same, between special tokens (ids 6391 … 6399)

Text never becomes a special token: whoever types ``<|assistant_start|>`` gets these 19 characters.
Only ``render_conversation`` puts special ids in, so nobody can forge a turn of a conversation.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import regex
import tiktoken

from minillm.errors import UserError
from minillm.progress import Progress
from minillm.tokenizer import bpe
from minillm.tokenizer.chat_format import SPECIAL_TOKENS, Conversation, render, turns_of
from minillm.tokenizer.storage import (
    META_FILE,
    Meta,
    damaged,
    ranks_content,
    read_files,
    write_files,
)
from minillm.tokenizer.tokenizer_json import TOKENIZER_JSON, read_tokenizer_json

SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)"  # English contractions: 's, 'll …
    r"|[^\r\n\p{L}\p{N}]?+\p{L}+"  # letters of any script, with one sign or space before them
    r"|\p{N}{1,3}"  # up to three digits
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*"  # punctuation
    r"|\s*[\r\n]|\s+(?!\S)|\s+"  # white space; the last space stays with the word after it
)
"""GPT-4's pattern: it cuts text into the chunks inside which pairs are merged."""


LONGEST_FOR_TIKTOKEN = 500_000
"""Characters. tiktoken's regular expressions overflow their stack on a million spaces in a row."""

SHIPPED = Path(__file__).parents[1] / "assets"


class RustBPETokenizer:
    """A byte-level BPE vocabulary and its special tokens.

    The name is that of nanochat's class, whose interface this has. By default it does without the
    crate ``rustbpe``: ``train`` learns in plain Python unless told ``use_rust``; tiktoken encodes.

    ``mergeable_ranks`` are token bytes → id; ``special_tokens`` are name → id, above those;
    ``vocab_size`` counts both. ``fingerprint`` is a SHA-256 of all that decides which ids a text
    gets (ranks, pattern, special tokens): equal fingerprints, equal ids. ``statistics`` describe
    the vocabulary and the corpus that it was learned from.
    """

    def __init__(
        self,
        mergeable_ranks: dict[bytes, int],
        pattern: str = SPLIT_PATTERN,
        statistics: Mapping[str, int | float] | None = None,
    ) -> None:
        tokens = list(mergeable_ranks)
        if list(mergeable_ranks.values()) != list(range(len(tokens))):
            raise ValueError("ranks must be 0, 1, 2 … in order")
        if tokens[:256] != [bytes([byte]) for byte in range(256)]:
            raise ValueError("the first 256 tokens must be the single bytes")
        for name in SPECIAL_TOKENS:  # other programs would take the one for the other
            if name.encode() in mergeable_ranks:
                raise ValueError(f"a mergeable token is spelled like the special token {name}")
        self.mergeable_ranks = mergeable_ranks
        self.pattern = pattern
        self.special_tokens = {name: len(tokens) + i for i, name in enumerate(SPECIAL_TOKENS)}
        self.vocab_size = len(tokens) + len(SPECIAL_TOKENS)
        self.statistics = {**vocabulary_statistics(tokens), **(statistics or {})}
        identity = ranks_content(tokens) + json.dumps([pattern, self.special_tokens]).encode()
        self.fingerprint = hashlib.sha256(identity).hexdigest()
        self._tokens = tokens
        self._encoding = tiktoken.Encoding(
            "minillm",
            pat_str=pattern,
            mergeable_ranks=mergeable_ranks,
            special_tokens=self.special_tokens,
        )

    # --- Learning, saving, loading ----------------------------------------------------------------

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int = 6400,
        *,
        use_rust: bool = False,
        pattern: str = SPLIT_PATTERN,
    ) -> RustBPETokenizer:
        """Learn a vocabulary of ``vocab_size`` tokens, special ones included, from ``texts``.

        A small corpus gives fewer tokens: see ``vocab_size`` of the result.

        Raises:
            UserError: the vocabulary is too small, or ``use_rust`` and the crate is not installed.
        """
        mergeable = vocab_size - len(SPECIAL_TOKENS)
        if mergeable < 256:
            raise UserError(
                f"--vocab_size {vocab_size} less {len(SPECIAL_TOKENS)} special tokens leaves "
                f"{mergeable} tokens, but the 256 bytes need one each: it must be at least "
                f"{256 + len(SPECIAL_TOKENS)}"
            )
        if not use_rust:
            return cls(bpe.train_bpe(texts, mergeable, pattern), pattern)
        trainer = import_rustbpe().Tokenizer()
        with Progress("merge", mergeable - 256, "merges") as bar:
            trainer.train_from_iterator(
                iter(texts),
                mergeable,
                pattern=pattern,
                progress=lambda _, merges: bar.update(merges - bar.count),
            )
        return cls({bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}, pattern)

    @classmethod
    def load(cls, path: Path | None = None) -> RustBPETokenizer:
        """Load the tokenizer in the folder ``path``; None: the one that ships with the package.

        A folder in Hugging Face's format does too, where its ``tokenizer.json`` describes a
        tokenizer of this class.

        Raises:
            UserError: a file is missing, damaged or changed, or describes another kind of
                tokenizer; names it.
        """
        folder = SHIPPED if path is None else path
        hugging_face = folder / TOKENIZER_JSON
        if hugging_face.exists() and not (folder / META_FILE).exists():
            tokens = read_tokenizer_json(hugging_face, SPLIT_PATTERN, SPECIAL_TOKENS)
            return cls({token: rank for rank, token in enumerate(tokens)})
        meta_path, meta, tokens = read_files(folder)
        try:
            ranks = {token: rank for rank, token in enumerate(tokens)}
            tokenizer = cls(ranks, meta.pattern, meta.statistics)
        except ValueError as error:  # ranks or pattern make no sense
            raise damaged(meta_path, str(error)) from None
        if tokenizer.special_tokens != meta.special_tokens:
            raise damaged(meta_path, "its special tokens are not MiniLLM's")
        if tokenizer.fingerprint != meta.fingerprint:
            raise damaged(meta_path, "pattern and ranks do not match its fingerprint")
        return tokenizer

    def save(self, directory: Path) -> None:
        """Write ``tokenizer_meta.json``, ``tokenizer.tiktoken`` and ``tokenizer.pkl``.

        Raises:
            UserError: the folder cannot be written to; what was there is untouched.
        """
        ranks_sha256 = hashlib.sha256(ranks_content(self._tokens)).hexdigest()
        meta = Meta(
            self.pattern,
            self.special_tokens,
            self.vocab_size,
            self.statistics,
            ranks_sha256,
            self.fingerprint,
        )
        write_files(directory, meta, self._tokens)

    # --- Tokens -----------------------------------------------------------------------------------

    @property
    def bos_id(self) -> int:
        """The id of ``<|bos|>``, which begins every document."""
        return self.special_tokens["<|bos|>"]

    def special_id(self, name: str) -> int:
        """The id of a special token, as in ``special_id("<|user_start|>")``. Raises KeyError."""
        return self.special_tokens[name]

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of text that a token stands for: none for a special one. Raises ValueError."""
        if not 0 <= token_id < self.vocab_size:
            raise ValueError(f"token ids must be in 0 … {self.vocab_size - 1}, not {token_id}")
        return self._tokens[token_id] if token_id < len(self._tokens) else b""

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``, never a special one; ``decode`` gives the text back.

        Half a character (a lone surrogate) becomes U+FFFD, since it has no bytes.
        """
        if len(text) <= LONGEST_FOR_TIKTOKEN:
            return self._encoding.encode_ordinary(text)
        # As tiktoken does it: two halves side by side are a character.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        chunks = (match.group() for match in regex.finditer(self.pattern, text))
        return [i for chunk in chunks for i in self._encoding._encode_single_piece(chunk)]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """``encode`` for many texts at once, on all cores."""
        if any(len(text) > LONGEST_FOR_TIKTOKEN for text in texts):
            return [self.encode(text) for text in texts]
        return self._encoding.encode_ordinary_batch(texts, num_threads=os.cpu_count() or 1)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``; special tokens by their names, parts of characters as U+FFFD.

        Raises ValueError for an id that is not in the vocabulary.
        """
        try:
            return self._encoding.decode(ids)
        except (KeyError, OverflowError):
            raise ValueError(f"token ids must be in 0 … {self.vocab_size - 1}") from None

    # --- Conversations ----------------------------------------------------------------------------

    def render_conversation(
        self, messages: Conversation, max_tokens: int | None = None
    ) -> tuple[list[int], list[int]]:
        """One conversation as token ids, and which of them the model shall learn to say.

        nanochat's rules, with the mask on the right:

            <|bos|>                                                        0
            <|user_start|> text <|user_end|>                               0
            <|assistant_start|>                                            0
                text                                                       1
                <|python_start|> call <|python_end|>                       1
                <|output_start|> what the call put out <|output_end|>      0
            <|assistant_end|>                                              1

        A system message is put before the text of the first user turn, with an empty line between.

        Args:
            messages: perhaps a system message, then user and assistant by turns; the assistant has
                the last word. Content is a string or, for the assistant, nanochat's list of parts
                ``{"type": "text" | "python" | "python_output", "text": ...}``; texts side by side
                are one text. Between two turns of the assistant, messages of role ``tool`` may
                stand, rendered as an output.
            max_tokens: cut after so many tokens.

        Returns:
            (ids, mask) of equal length; a mask of 1 says that this token is to be predicted.

        Raises:
            ValueError: the conversation breaks these rules; says which message and why.
        """
        turns = turns_of(messages)
        last = turns[-1][0]
        if last != "assistant":
            raise ValueError(f"the last message is from {last}, but the assistant has to answer")
        ids, mask = render(turns, self.encode, self.special_tokens)
        return ids[:max_tokens], mask[:max_tokens]

    def render_for_completion(self, messages: Conversation) -> list[int]:
        """The conversation up to ``<|assistant_start|>``, for the model to go on from there.

        A last message from the assistant is left out: it is the one to be said anew.
        Raises ValueError like ``render_conversation``.
        """
        turns = turns_of(messages)
        if turns[-1][0] == "assistant":
            turns.pop()
        ids, _ = render(turns, self.encode, self.special_tokens)
        return [*ids, self.special_tokens["<|assistant_start|>"]]


# --- The trainer and the tokenizer in use ---------------------------------------------------------


def import_rustbpe() -> Any:
    """The Rust trainer's module.

    Raises:
        UserError: there is none, or another of the same name; says how to build it.
    """
    problem = ""
    try:
        import rustbpe
    except ImportError as error:
        problem = str(error)
    else:
        # In the project's root, Python takes the crate's source folder for an empty package.
        if not hasattr(getattr(rustbpe, "Tokenizer", None), "train_from_iterator"):
            place = getattr(rustbpe, "__file__", None) or "the folder ./rustbpe"
            problem = f"{place} is not the built module"
    if problem:
        raise UserError(
            f"rustbpe cannot be imported ({problem}): set ENABLE_RUSTBPE=1, run "
            f"`uv tool install maturin`, then "
            f"`uv run maturin develop --release --manifest-path rustbpe/Cargo.toml` in the same "
            f"environment; or unset ENABLE_RUSTBPE to train with the Python reference"
        )
    return rustbpe


def find_tokenizer(path: Path | None, out_dir: Path) -> RustBPETokenizer:
    """The tokenizer in ``path``; None: the one in ``out_dir/tokenizer``, else the shipped one.

    Raises UserError like ``RustBPETokenizer.load``.
    """
    trained = out_dir / "tokenizer"
    if path is None and trained.is_dir():
        path = trained
    return RustBPETokenizer.load(path)


def vocabulary_statistics(tokens: Sequence[bytes]) -> dict[str, int | float]:
    """What can be said of mergeable tokens without a text."""
    return {
        "mergeable_tokens": len(tokens),
        "tokens_not_utf8": sum(token.decode(errors="ignore").encode() != token for token in tokens),
        "mean_token_bytes": round(sum(map(len, tokens)) / len(tokens), 3),
        "longest_token_bytes": max(map(len, tokens)),
    }
