"""The model in the page: weights as the browser reads them, and the elements that it answers in.

``book/_static/minillm/minillm.js`` does in a browser what ``minillm.model`` does here. A page that
was opened from a file may fetch nothing but scripts, so weights are scripts too: one safetensors
file each, in base64, with its tokenizer in the header.
"""

from __future__ import annotations

import base64
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from minillm.errors import UserError
from minillm.model.transformer import Transformer
from minillm.tokenizer.vocabulary import SPLIT_PATTERN, RustBPETokenizer

Kind = Literal["F32", "F16", "I8"]


def page_weights(
    model: Transformer, tokenizer: RustBPETokenizer, stage: str, step: int, kind: Kind = "I8"
) -> bytes:
    """A model and its tokenizer as one safetensors file.

    Args:
        stage, step: what the page says of the model.
        kind: of the numbers in matrices. I8: whole numbers from -127 to 127; ``NAME.scale`` holds
            by what each row is to be multiplied.

    Raises:
        UserError: the tokenizer cuts text in another way than the page does.
    """
    if tokenizer.pattern != SPLIT_PATTERN:
        raise UserError("a page can only use a tokenizer with minillm's own split pattern")
    tensors: dict[str, NDArray[np.generic]] = {}
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        if name == "lm_head.weight":  # the same tensor as the embedding
            continue
        if array.ndim == 2 and kind == "F16":
            array = array.astype(np.float16)
        elif array.ndim == 2 and kind == "I8":
            array, tensors[f"{name}.scale"] = quantized(array)
        tensors[name] = array
    about = {
        "stage": stage,
        "step": step,
        "model": vars(model.config),
        "tokenizer": {
            "tokens": [base64.b64encode(token).decode() for token in tokenizer.mergeable_ranks],
            "special_tokens": tokenizer.special_tokens,
        },
    }
    return save(tensors, {"minillm": msgspec.json.encode(about).decode()})


def quantized(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """``[rows, columns]`` as int8 and the scale ``[rows]`` of each row: a row's largest number
    becomes 127 or -127."""
    scales = np.abs(matrix).max(axis=1) / 127
    scales[scales == 0] = 1
    return np.rint(matrix / scales[:, None]).astype(np.int8), scales
