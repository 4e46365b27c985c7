"""A model with one part taken out or exchanged: what each part is good for.

    python benchmarks/ablations.py         # some 8 minutes on one core

The model is half as wide and half as deep as the tiny one. Each change is trained from scratch on
the book's pretraining data, under several seeds, by the tiny preset's recipe with 150 steps and a
learning rate for this size; some once more with 600 steps, since the order may change. The held-out
loss is measured with the same change in place. ``Transformer`` has no options for any of this: each
model is made as usual, then a part of this one instance is exchanged. Writes
``book/results/ablations.json`` after every run; a run that the file has is not made again, so
delete the file to measure anew.

What no field of ModelConfig can change is changed by these classes, and by ``changed``.
"""

from __future__ import annotations

import math
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from setting import CACHE, machine, start

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minillm.book import lab
from minillm.config import TRAINING, ModelConfig
from minillm.errors import UserError
from minillm.files import file_sha256, write_atomically
from minillm.model.transformer import MLP, Block, KVCache, Transformer
from minillm.training.devices import StopRequest, set_up_process
from minillm.training.loop import Trainer

RESULTS = Path(__file__).resolve().parents[1] / "book" / "results" / "ablations.json"
BASE = replace(
    TRAINING["tiny"]["pretrain"].model,
    hidden_size=64,
    intermediate_size=176,
    num_hidden_layers=2,
)
LEARNING_RATE = 2e-2
SHAPES: dict[str, ModelConfig] = {
    "mha": replace(BASE, num_key_value_heads=4),
    "untied": replace(BASE, tie_word_embeddings=False),
    # Depth against width, with the same number of parameters, but for some hundred.
    "1 layer": replace(BASE, num_hidden_layers=1, hidden_size=80, intermediate_size=236),
    "4 layers": replace(BASE, num_hidden_layers=4, hidden_size=48, intermediate_size=140),
}
"""Changes that another shape makes."""
CHANGES = (
    *("base", "no residual", "no rope", "relu", "no attention", "no norm", "1 layer", "mha"),
    *("unscaled", "untied", "4 layers", "no ffn"),
)
"""In the order in which they are made; base is the model as it is."""
LONGER = ("base", "no ffn", "relu", "untied", "1 layer")
"""What is trained once more, for more steps: does the order stay?"""


@dataclass(frozen=True)
class Options:
    """Train a small model with one part changed, for each part and seed."""

    changes: tuple[str, ...] = CHANGES
    seeds: tuple[int, ...] = (42, 7)
    steps: int = 150
    longer: int = 600
    """Steps of the longer runs."""
    out: Path = RESULTS


class Nothing(nn.Module):
    """In place of attention or of the feed-forward network: adds nothing to the stream."""

    def forward(self, x: Tensor, *_: object) -> Tensor:
        return torch.zeros_like(x)


class PlainMLP(nn.Module):
    """Two matrices with a ReLU between them, of as many parameters as SwiGLU's three."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        inner = config.intermediate_size * 3 // 2
        self.up_proj = nn.Linear(config.hidden_size, inner, bias=False)
        self.down_proj = nn.Linear(inner, config.hidden_size, bias=False)
        nn.init.normal_(self.up_proj.weight, std=0.02)
        layers = config.num_hidden_layers
        nn.init.normal_(self.down_proj.weight, std=0.02 / math.sqrt(2 * layers))

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.relu(self.up_proj(x)))  # type: ignore[no-any-return]


class NoStream(Block):
    """A block that hands on what it computes, and not what it was given."""

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        x = self.self_attn(self.input_layernorm(x), cos, sin, mask, cache)
        return self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


def changed(model: Transformer, change: str) -> Transformer:
    """The same model with a part exchanged, in place. What a shape changes is changed before."""
    blocks = [block for block in model.model.layers if isinstance(block, Block)]
    if change == "no rope":  # turned by 0 everywhere
        model.model.cos.fill_(1.0)
        model.model.sin.fill_(0.0)
    elif change == "no norm":
        model.model.norm = nn.Identity()  # type: ignore[assignment]
    for block in blocks:
        if change == "no attention":
            block.self_attn = Nothing()  # type: ignore[assignment]
        elif change == "no ffn":
            block.mlp = Nothing()  # type: ignore[assignment]
        elif change == "relu":
            block.mlp = PlainMLP(model.config)  # type: ignore[assignment]
        elif change == "no residual":
            block.__class__ = NoStream
        elif change == "no norm":
            block.input_layernorm = nn.Identity()  # type: ignore[assignment]
            block.post_attention_layernorm = nn.Identity()  # type: ignore[assignment]
        elif change == "unscaled":
            assert isinstance(block.mlp, MLP)
            for matrix in (block.self_attn.o_proj, block.mlp.down_proj):
                nn.init.normal_(matrix.weight, std=0.02)
    return model


class Changed(Trainer):
    """The book's trainer, of a model with one part changed; it saves nothing."""

    change: str

    def set_up_model(self) -> None:
        super().set_up_model()
        self.model = changed(self.model, self.change)


def run(change: str, seed: int, steps: int) -> dict[str, Any]:
    """Trains one model, and says how it went; a loss that is not finite is None."""
    config = replace(
        TRAINING["tiny"]["pretrain"],
        model=SHAPES.get(change, BASE),
        data_path=lab.data() / "pretrain_chinese.jsonl",
        tokenizer_path=lab.tokenizer_path(),
        out_dir=CACHE / "ablations",
        learning_rate=LEARNING_RATE,
        max_steps=steps,
        seed=seed,
        device="cpu",
        dtype="float32",
    )
    began = time.process_time()
    kind = type("Kind", (Changed,), {"change": change})
    with StopRequest() as stop, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        trainer: Trainer = kind(config, "pretrain", set_up_process("cpu", "float32"), stop)
        tokens = 0.0
        try:
            for step, batches in enumerate(trainer.batches()):
                tokens += trainer.step(step, batches)["tokens"]
            assert trainer.val_rows is not None
            loss: float | None = trainer.validate(trainer.val_rows)["val_loss"]
        except UserError:  # not finite
            loss = None
    finite = loss is not None and math.isfinite(loss)
    return {
        "change": change,
        "seed": seed,
        "steps": steps,
        "parameters": trainer.model.num_parameters(),
        "tokens": int(tokens),
        "val_loss": round(loss, 4) if finite and loss is not None else None,
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def main(options: Options) -> None:
    torch.set_num_threads(1)
    data = file_sha256(lab.data() / "pretrain_chinese.jsonl")
    content: dict[str, Any] = {}
    if options.out.exists():
        content = msgspec.json.decode(options.out.read_bytes())
    if content.get("data_sha256") != data:
        content = {"data_sha256": data, "runs": []}
    content |= {"machine": machine(), "torch": str(torch.__version__)}
    done = {(found["change"], found["steps"], found["seed"]) for found in content["runs"]}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    plan = [(change, options.steps) for change in options.changes]
    plan += [(change, options.longer) for change in LONGER if change in options.changes]
    for change, steps in plan:
        for seed in options.seeds:
            if (change, steps, seed) in done:
                continue
            content["runs"].append(found := run(change, seed, steps))
            print(found, flush=True)
            text = msgspec.json.format(msgspec.json.encode(content), indent=1)
            write_atomically(options.out, text + b"\n")
    print(f"{len(content['runs'])} runs: {options.out}")


if __name__ == "__main__":
    start(main, Options)
