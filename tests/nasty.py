"""Text that tokenizers trip over, and a vocabulary that notices when they do."""

from __future__ import annotations

import itertools
import random
from functools import cache

from minillm.tokenizer import bpe
from minillm.tokenizer.vocabulary import RustBPETokenizer

NASTY = [
    *"abzSſıßKé'\"’<|>_-.,!?/\\{}0123٣²½Ⅷ〇零 \t\n\r\v\f\x00\x1c\x1f\x7f\x85\xa0\xad",
    *"\u0300\u200b\u200d\u2028\u2029\u202f\u3000\ufeff\ufffd\ufffe\uffff。，、「」小猫好龘ーｱ한ไทยع",
    *"🐦👩🏽🇨🇳\U00020000\U000e0001\U0010ffff",
    *("'s", "'LL", "'ſ", "<|", "|>", "<\uffff", "\uffff|", "\r\n", "  ", "好。"),
]
"""What tokenizers trip over: each kind of character that the pattern knows, and look-alikes."""


@cache
def sharp() -> RustBPETokenizer:
    """9,000 tokens that notice every wrong split: they were learned from nasty text that was not
    split, so that many of them reach over a boundary, and others end at none."""
    rng = random.Random(0)
    corpus = ["".join(pair) for pair in itertools.product(NASTY, NASTY)]
    corpus += ["".join(rng.choices(NASTY, k=8)) for _ in range(1500)]
    return RustBPETokenizer(bpe.train_bpe(corpus, 9000, r"(?s:.+)"))
