"""How near models come to the entropy of the micro-world, which is known.

    python benchmarks/world_entropy.py     # about 10 minutes on one core

Trains models of several sizes for several numbers of steps on documents of the micro-world, each
seen once, and measures on held-out documents the bits that the model needs for a whole document
and its end, by kind, beside the bits that the document holds (``minillm.microworld.entropy``).
Writes ``book/results/world.json`` after each run; a run that the file has is not made again.
``on_the_way`` are a run's bits after the steps at which shorter ones end, where its own learning
rate is still high.
"""

from __future__ import annotations

import math
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from setting import machine, start

import msgspec
import numpy as np
import torch

from minillm.book import lab
from minillm.config import TRAINING, ModelConfig, TrainConfig
from minillm.files import write_atomically
from minillm.microworld.documents import documents
from minillm.microworld.entropy import Measured, measured_documents
from minillm.model.transformer import Transformer
from minillm.training.checkpoint import load_checkpoint
from minillm.training.dataset import TokenDataset, load_dataset
from minillm.training.loop import train
from minillm.training.objectives import per_document, token_losses
from minillm.training.packing import collate

RESULTS = Path(__file__).resolve().parents[1] / "book" / "results" / "world.json"
LENGTH, ROWS = 256, 4
"""Positions in a row, which hold every document whole, and rows in a step."""
HELD_OUT = 10_000
"""Seed of the documents to measure on."""


@dataclass(frozen=True)
class Options:
    """Train models on the micro-world, and measure how far they are from its entropy."""

    out: Path = RESULTS
    sizes: tuple[int, ...] = (32, 64, 128)
    """Widths of the residual stream."""
    steps: tuple[int, ...] = (300, 1000, 3000)
    """Optimizer steps, of 1,024 positions each. The longest are only made of the widest model."""
    held_out: int = 1000
    """Documents."""
    seed: int = 42


def shape(hidden: int) -> ModelConfig:
    """The tiny preset's model with another width."""
    tiny = TRAINING["tiny"]["pretrain"].model
    inner = tiny.intermediate_size * hidden // tiny.hidden_size
    return replace(tiny, hidden_size=hidden, intermediate_size=inner)


def settings(options: Options, hidden: int, steps: int, folder: Path) -> TrainConfig:
    """The tiny preset's pretraining, on the documents of this folder."""
    return replace(
        TRAINING["tiny"]["pretrain"],
        model=shape(hidden),
        data_path=folder / "documents.jsonl",
        out_dir=folder / f"{hidden}-{steps}",
        tf_dir=folder / "tf_dir",
        tokenizer_path=lab.tokenizer_path(),
        max_seq_len=LENGTH,
        batch_size=ROWS,
        max_steps=steps,
        save_every=10**6,
        seed=options.seed,
        device="cpu",
    )


def write_documents(folder: Path, steps: int, held_out: list[Measured]) -> None:
    """Enough to train on for so many steps, each document once: they have about 35 tokens."""
    texts = documents(steps * ROWS * LENGTH // 20, seed=0)
    rows = {"documents": texts, "held_out": (document.text for document in held_out)}
    for name, kept in rows.items():
        lines = b"".join(msgspec.json.encode({"text": text}) + b"\n" for text in kept)
        write_atomically(folder / f"{name}.jsonl", lines)


@torch.no_grad()
def bits_of(model: Transformer, data: TokenDataset) -> np.ndarray[Any, np.dtype[np.float64]]:
    """-log2 p of each document with its end, ``[documents]``."""
    parts = []
    for first in range(0, len(data), 50):
        rows = [[i] for i in range(first, min(first + 50, len(data)))]
        batch = collate(data, rows, LENGTH)
        parts.append(per_document(token_losses(model, batch), batch).double().numpy())
    return np.asarray(np.concatenate(parts) / math.log(2))


def row_of(
    config: TrainConfig, model: Transformer, held_out: list[Measured], data: TokenDataset
) -> dict[str, Any]:
    """What one run has to report, time apart."""
    bits, tokens = bits_of(model, data), config.max_steps * ROWS * LENGTH  # type: ignore[operator]
    kinds: dict[str, list[float]] = {}
    for document, one in zip(held_out, bits.tolist(), strict=True):
        kinds.setdefault(document.kind, []).append(one)
    table = model.lm_head.weight.numel()
    total = model.num_parameters()
    return {
        "hidden": config.model.hidden_size,
        "layers": config.model.num_hidden_layers,
        "non_embedding": total - table,
        "embedding": table,
        "total": total,
        "tokens": tokens,
        "steps": config.max_steps,
        "flops": 6 * total * tokens,
        "learning_rate": config.learning_rate,
        "seed": config.seed,
        "val_loss": float(bits.sum() * math.log(2) / data.positions().sum()),
        "bits_per_byte": float(bits.sum() / sum(len(d.text.encode()) for d in held_out)),
        "bits_per_document": float(bits.mean()),
        "by_kind": {kind: sum(found) / len(found) for kind, found in sorted(kinds.items())},
    }


def main(options: Options) -> None:
    runs = msgspec.json.decode(options.out.read_bytes())["runs"] if options.out.exists() else []
    made = {(run["hidden"], run["steps"]) for run in runs}
    wanted = [
        (hidden, steps)
        for steps in sorted(options.steps)
        for hidden in sorted(options.sizes)
        if steps < max(options.steps) or hidden == max(options.sizes) or len(options.steps) == 1
    ]
    held_out = list(measured_documents(options.held_out, HELD_OUT))
    holds = sum(document.bits for document in held_out) / len(held_out)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_documents(folder, max(options.steps), held_out)
        data = load_dataset(
            folder / "held_out.jsonl", "pretrain", lab.tokenizer(), LENGTH, folder / "cache"
        )
        for hidden, steps in wanted:
            if (hidden, steps) in made:
                continue
            config, started = settings(options, hidden, steps, folder), time.perf_counter()
            on_the_way: dict[str, float] = {}

            def look(step: int, model: Transformer, found: dict[str, float] = on_the_way) -> None:
                if step in options.steps:
                    found[str(step)] = float(bits_of(model, data).mean())

            with redirect_stdout(StringIO()):
                path = train(config, "pretrain", look)
            seconds = time.perf_counter() - started
            row = row_of(config, load_checkpoint(path)[0].eval(), held_out, data)
            row |= {"on_the_way": on_the_way, "seconds": round(seconds, 1)}
            runs.append(row)
            content = {"machine": machine(), "torch": str(torch.__version__), "runs": runs}
            text = msgspec.json.format(msgspec.json.encode(content), indent=1)
            write_atomically(options.out, text + b"\n")
            said = f"{row['bits_per_document']:.2f} bits a document, which holds {holds:.2f}"
            print(f"hidden {hidden}, {steps} steps: {said}", flush=True)


if __name__ == "__main__":
    start(main, Options)
