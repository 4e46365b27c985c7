"""MiniLLM: learn how a Chinese language model is trained by training one.

    from minillm import load, reply

    model, tokenizer = load("out/tiny")
    print("".join(reply(model, tokenizer, "张静住在哪里？")))

The package is a house of rooms. A room knows only those above it:

    errors, files, text_table, config, progress
                            what all share: every default stands in config
    microworld/             a small world in Chinese: texts, conversations, and what counts as right
    data/                   rows of any format, and the mix that the stages are trained on
    tokenizer/              byte-pair encoding, and conversations as token ids
    model/                  the Transformer, and how it writes
    training/               packed batches, objectives, optimizers, and one loop for all stages
    evaluate, chat, persona what is done with a trained model
    own/                    scores for the reader's own questions and texts
    cli, book/              the command line; what the chapters show and train

The names below are for users of the library; everything else is imported from its module.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minillm.config import ModelConfig, TrainConfig
    from minillm.errors import UserError
    from minillm.model.generate import Sampling, complete, generate, reply
    from minillm.model.transformer import Transformer
    from minillm.tokenizer.vocabulary import RustBPETokenizer
    from minillm.training.checkpoint import load
    from minillm.training.loop import train

__version__ = "0.1.0"

# PyTorch's threads wait for each other thousands of times a second, by default in a loop that keeps
# its core from any other process, and from the very thread that is waited for. Threads that sleep
# at once (OMP_WAIT_POLICY=PASSIVE) make a small model much slower when nobody else wants the core.
# So they try for a moment, then sleep: `benchmarks/speed.py --busy` compares the three. OpenMP
# reads this while PyTorch is loaded, so it is set before any module imports that.
if "OMP_WAIT_POLICY" not in os.environ:  # a setting of the user stays
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # GNU: looks, some 0.1 ms
    os.environ.setdefault("KMP_BLOCKTIME", "1")  # LLVM: ms

__all__ = [
    "ModelConfig",
    "RustBPETokenizer",
    "Sampling",
    "TrainConfig",
    "Transformer",
    "UserError",
    "complete",
    "generate",
    "load",
    "reply",
    "train",
]

_PLACES = {
    "ModelConfig": "config",
    "RustBPETokenizer": "tokenizer.vocabulary",
    "Sampling": "model.generate",
    "TrainConfig": "config",
    "Transformer": "model.transformer",
    "UserError": "errors",
    "complete": "model.generate",
    "generate": "model.generate",
    "load": "training.checkpoint",
    "reply": "model.generate",
    "train": "training.loop",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: PyTorch takes seconds, and `minillm mix` does without it.
    if name not in _PLACES:
        raise AttributeError(f"module 'minillm' has no attribute {name!r}")
    return getattr(import_module(f"minillm.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
