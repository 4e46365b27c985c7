"""Exact byte-level BPE training and encoding."""

from collections.abc import Iterable, Sequence

__version__: str

class Tokenizer:
    """A byte-level BPE tokenizer. Fresh, it holds the 256 bytes and GPT-4's split pattern."""

    def __new__(cls) -> Tokenizer: ...
    def train_from_iterator(
        self,
        iterator: Iterable[str],
        vocab_size: int,
        buffer_size: int = 8192,
        pattern: str | None = None,
    ) -> None:
        """Learn ``vocab_size`` tokens: 256 bytes and the merges; fewer if the text is used up.

        Texts are taken ``buffer_size`` at a time, split and counted in parallel. ``pattern`` is
        GPT-4's if None. On any error the tokenizer stays as it was.

        Raises:
            ValueError: ``vocab_size`` < 256, ``buffer_size`` < 1, or a pattern that does not
                compile or gives up on a text.
            TypeError: an item of ``iterator`` is not a ``str``.
        """

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
