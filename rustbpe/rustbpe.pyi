"""Exact byte-level BPE training and encoding."""

import os
from collections.abc import Callable, Iterable, Sequence

__version__: str

class Tokenizer:
    """A byte-level BPE tokenizer. Fresh, it holds the 256 bytes and GPT-4's split pattern."""

    def __init__(self) -> None: ...
    def train_from_iterator(
        self,
        iterator: Iterable[str],
        vocab_size: int,
        buffer_size: int = 8192,
        pattern: str | None = None,
        *,
        sample: float = 1.0,
        num_threads: int | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        """Learn ``vocab_size`` tokens: 256 bytes and the merges; fewer if the text is used up.

        Texts are taken ``buffer_size`` at a time, split and counted in parallel. ``pattern`` is
        GPT-4's if None. ``progress`` is called now and then with the bytes read and the merges
        made. The merges do not depend on buffers, threads or the order of the texts. On any error
        the tokenizer stays as it was.

        Memory grows with the different chunks, not with the text: for Chinese about 7 bytes for
        each byte of new text, as whole clauses seldom come twice. For a corpus too large for that,
        ``sample`` takes only this share of the texts, chosen by their hash: equal texts are all
        taken or none, and ``sample=0.1`` of a corpus is the same tenth every time.

        Raises:
            ValueError: ``vocab_size`` < 256, ``buffer_size`` < 1, ``num_threads`` < 1, ``sample``
                not in (0, 1], a pattern that does not compile or gives up on a text, or a buffer of
                texts (of a file: a line) that is longer than 2 GB.
            TypeError: an item of ``iterator`` is not a ``str``.
        """

    def train_from_files(
        self,
        paths: Sequence[str | os.PathLike[str]],
        vocab_size: int,
        pattern: str | None = None,
        *,
        sample: float = 1.0,
        num_threads: int | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        """Learn from files of UTF-8 text; each line, with its line end, is a text.

        The same as ``train_from_iterator(open(path, encoding="utf-8", newline="\\n"), ...)``, but
        no line becomes a Python object.

        Raises:
            OSError: a file that cannot be read.
            ValueError: text that is not UTF-8 (file and line are named), and as above.
        """

    def train_from_file(
        self,
        path: str | os.PathLike[str],
        vocab_size: int,
        pattern: str | None = None,
        *,
        sample: float = 1.0,
        num_threads: int | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        """``train_from_files`` with one file."""

    def get_pattern(self) -> str: ...
    def get_mergeable_ranks(self) -> list[tuple[bytes, int]]:
        """The tokens as ``(bytes, rank)``, by rank; ``dict()`` of it is what tiktoken takes."""

    @property
    def vocab_size(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def batch_encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, in parallel."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids. Bytes that are not valid UTF-8 become U+FFFD, as in tiktoken.

        Raises:
            ValueError: an id that is not in the vocabulary.
        """
