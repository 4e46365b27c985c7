"""The tokenizer in Hugging Face's files, which give the same ids without this package.

``tokenizer.json``         what the library `tokenizers` does with a text, step by step:

    special tokens cut out ─▶ normalizer ─▶ SPLIT_PATTERN ─▶ bytes as letters ─▶ merges ─▶ ids

``tokenizer_config.json``  the special tokens that have a role there
``chat_template.jinja``    Jinja: ``render_conversation`` and ``render_for_completion``

There, special tokens are looked for in any text, so one that a user types would become one. The
template therefore writes each ``<|`` of what people and tools say as ``<``, U+FFFF, ``|``, and a
U+FFFF that follows a ``<`` already twice. The normalizer takes one U+FFFF after a ``<`` away, and
its turn comes after special tokens were looked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from minillm.tokenizer.tokenizer_json import (
    NORMALIZER,
    TOKENIZER_JSON,
    as_letters,
    merge_pairs,
)
from minillm.tokenizer.vocabulary import SHIPPED, RustBPETokenizer

TEMPLATE_FILE = "chat_template.jinja"


def chat_template() -> str:
    """The Jinja template of conversations, the same for every vocabulary."""
    return (SHIPPED / TEMPLATE_FILE).read_text(encoding="utf-8")


def tokenizer_files(tokenizer: RustBPETokenizer, max_length: int) -> dict[str, bytes]:
    """The content of each file, by name.

    Args:
        max_length: how many tokens the model can read; longer texts give a warning there.
    """
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|bos|>",
        "eos_token": "<|assistant_end|>",
        "pad_token": "<|assistant_end|>",
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
    }
    return {
        TOKENIZER_JSON: json_file(_tokenizer_json(tokenizer)),
        "tokenizer_config.json": json_file(config),
        TEMPLATE_FILE: chat_template().encode(),
    }


def json_file(content: Mapping[str, Any]) -> bytes:
    """JSON to be read by people too."""
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _tokenizer_json(tokenizer: RustBPETokenizer) -> dict[str, Any]:
    ranks, bos = tokenizer.mergeable_ranks, "<|bos|>"
    # "normalized": false looks for them in the raw text, before the normalizer.
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    split = {"type": "Split", "pattern": {"Regex": tokenizer.pattern}, "behavior": "Isolated"}
    letters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    letters |= {"use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": token_id, "content": name, **flags, "special": True}
            for name, token_id in tokenizer.special_tokens.items()
        ],
        "normalizer": NORMALIZER,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{**split, "invert": False}, letters],
        },
        # A document begins with <|bos|>. The template's text has its own: this is not done to it.
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": bos, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": bos, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": bos, "type_id": 1}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {bos: {"id": bos, "ids": [tokenizer.bos_id], "tokens": [bos]}},
        },
        "decoder": letters,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,  # as in tiktoken, a chunk that is a token needs no merges
            "vocab": {as_letters(token): rank for token, rank in ranks.items()},
            "merges": [[as_letters(left), as_letters(right)] for left, right in merge_pairs(ranks)],
        },
    }
