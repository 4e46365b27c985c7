"""Loss beside compute: a ladder of small models on the poems of the preset small, which a chapter
draws and fits a law to.

    bash scripts/run.sh --preset small           # the data, and the run that the forecast is about
    python benchmarks/scaling.py                 # learning rates and ladder, then the forecast
    python benchmarks/scaling.py --outcome       # puts the loss of that run beside it

No run reads a row twice, and each has the whole schedule of its own length. Runs go side by side,
one a core. They are kept in .cache/scaling, and one that is there is not made again. Results are
written to book/results/scaling.json.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from setting import CACHE, machine, start

import msgspec
import torch

from minillm.book.laws import COUNTS, INTERVAL, ladder_runs, predict
from minillm.config import MODELS, TRAINING, ModelConfig, TrainConfig
from minillm.data.shards import validation_path
from minillm.errors import UserError
from minillm.files import file_sha256, write_atomically
from minillm.model.transformer import Transformer
from minillm.training.loop import train

RESULTS = Path(__file__).resolve().parents[1] / "book" / "results" / "scaling.json"
ROW = 256
"""Positions of a packed row."""
LAYERS = {32: 2, 64: 2, 96: 3, 128: 4, 160: 5, 192: 6}
"""By hidden size."""
LADDER = {
    (2e12, 4): (32, 64, 96, 128),
    (6e12, 6): (32, 64, 96, 128, 160),
    (1.8e13, 8): (64, 96, 128, 160, 192),
}
"""Compute in FLOPs and packed rows in a step → hidden sizes. Rows grow by about the third root of
the compute, as batches do in DeepSeek LLM (arXiv:2401.02954, section 3.1)."""
RATES = (1.25e-3, 2.5e-3, 5e-3, 1e-2, 2e-2)
RATE_SIZES = (64, 128, 192)
RATE_STEPS = 200
"""Steps, of 4 rows each, of the runs that differ in nothing but their learning rate."""
SEEDS = (42, 7)
"""The second one is for the lowest budget, to see how much of a loss is chance."""


@dataclass(frozen=True)
class Options:
    """Train the ladder, or put the outcome beside the forecast."""

    data: Path = Path("data/processed/small/pretrain_chinese.jsonl")
    """Rows to train on; those of FILE_val beside it are for validation."""
    outcome: bool = False
    """Read the loss of the finished run of the preset small instead."""
    out_dir: Path = Path("out/small")
    """Where that run is."""
    processes: int = 2
    """Runs at a time, of one thread each."""


def shape(hidden: int) -> ModelConfig:
    """A model in the preset small's proportions."""
    heads = hidden // 32
    return replace(
        MODELS["small"],
        hidden_size=hidden,
        intermediate_size=round(hidden * 8 / 3 / 32) * 32,
        num_hidden_layers=LAYERS[hidden],
        num_attention_heads=heads,
        num_key_value_heads=2 if heads % 2 == 0 else 1,
    )


@dataclass(frozen=True)
class Run:
    """One model's training."""

    kind: Literal["ladder", "rate"]
    hidden: int
    rows: int
    steps: int
    rate: float
    seed: int = SEEDS[0]

    @property
    def name(self) -> str:
        return f"{self.hidden}-{self.rows}x{self.steps}-{self.rate:g}-{self.seed}"

    def config(self, data: Path, folder: Path) -> TrainConfig:
        return replace(
            TRAINING["small"]["pretrain"],
            model=shape(self.hidden),
            data_path=data,
            out_dir=folder,
            tf_dir=folder / "tf_dir",
            max_seq_len=ROW,
            batch_size=self.rows,
            max_steps=self.steps,
            learning_rate=self.rate,
            seed=self.seed,
            eval_every=10**6,
            save_every=10**6,
        )


def rate_of(hidden: int) -> float:
    """The preset small's learning rate, carried over to another width by what RATES showed: the
    best of them falls from 1e-2 at 64 to between 2.5e-3 and 5e-3 at 192."""
    small = TRAINING["small"]["pretrain"].learning_rate
    return float(f"{small * (MODELS['small'].hidden_size / hidden) ** (2 / 3):.2g}")


def flops_per_token(model: ModelConfig) -> tuple[int, int, int]:
    """Parameters in the blocks and norms, parameters of the embedding table, and FLOPs of training
    on a token: 6 for each parameter that it is multiplied with. The table is, as the output layer;
    looking up the input is free. Attention's own products, 12 layers x hidden x distance, are
    left out: at 128 tokens of distance they would be some 6% more."""
    with torch.device("meta"):
        total = Transformer(model).num_parameters()
    table = model.vocab_size * model.hidden_size
    return total - table, table, 6 * total


def runs() -> Iterator[Run]:
    """All of them, the longest first, so that the cores end together."""
    for (compute, rows), sizes in reversed(LADDER.items()):
        for hidden in reversed(sizes):
            tokens = compute / flops_per_token(shape(hidden))[2]
            run = Run("ladder", hidden, rows, round(tokens / (rows * ROW)), rate_of(hidden))
            yield run
            if compute == min(budget for budget, _ in LADDER):
                yield replace(run, seed=SEEDS[1])
    for hidden in reversed(RATE_SIZES):
        for rate in RATES:
            yield Run("rate", hidden, 4, RATE_STEPS, rate)


def result(run: Run, data: Path, folder: Path) -> dict[str, Any]:
    """Trains, and says how it went: the log's last line, with what the run was."""
    torch.set_num_threads(1)
    config = run.config(data, folder)
    (folder / "cache").parent.mkdir(parents=True, exist_ok=True)
    if not (folder / "cache").exists():
        (folder / "cache").symlink_to(folder.parent / "tokens", target_is_directory=True)
    began, cpu = time.monotonic(), time.process_time()
    with redirect_stdout(StringIO()):
        train(config, "pretrain")
    last = msgspec.json.decode((folder / "pretrain_log.jsonl").read_bytes().splitlines()[-1])
    blocks, table, flops = flops_per_token(config.model)
    return {
        "kind": run.kind,
        "hidden": run.hidden,
        "layers": LAYERS[run.hidden],
        "rows": run.rows,
        "steps": last["step"],
        "learning_rate": run.rate,
        "seed": run.seed,
        "non_embedding": blocks,
        "embedding": table,
        "tokens": last["tokens"],
        "flops": flops * last["tokens"],
        "val_loss": last["val_loss"],
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }


def outcome(options: Options) -> dict[str, Any]:
    """What the preset small came to. Raises UserError: it is not there, or read other rows."""
    path = options.out_dir / "pretrain_log.jsonl"
    if not path.exists():
        raise UserError(f"{path}: no such file; `bash scripts/run.sh --preset small` makes it")
    last = msgspec.json.decode(path.read_bytes().splitlines()[-1])
    if "val_loss" not in last:
        raise UserError(f"{path}: the run is not finished: its last step has no val_loss")
    blocks, table, flops = flops_per_token(MODELS["small"])
    return {
        "non_embedding": blocks,
        "embedding": table,
        "steps": last["step"],
        "tokens": last["tokens"],
        "flops": flops * last["tokens"],
        "val_loss": last["val_loss"],
    }


def trained(options: Options) -> list[dict[str, Any]]:
    """The results of all runs, in the order of ``runs``."""
    data = options.data.resolve()
    if not data.is_file() or not validation_path(data).is_file():
        raise UserError(
            f"{options.data} and {validation_path(data).name} beside it must be there: `minillm "
            "download poetry`, then `minillm mix --preset small` makes them"
        )
    home = CACHE / "scaling" / file_sha256(data)[:12]
    (home / "tokens").mkdir(parents=True, exist_ok=True)
    done: dict[str, dict[str, Any]] = {}
    context = get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(options.processes, context) as pool:
        waiting = {}
        for run in runs():
            kept = home / run.name / "result.json"
            if kept.exists():
                done[run.name] = msgspec.json.decode(kept.read_bytes()) | {"kind": run.kind}
            else:
                waiting[pool.submit(result, run, data, home / run.name)] = (run, kept)
        for future in as_completed(waiting):
            run, kept = waiting[future]
            done[run.name] = future.result()
            write_atomically(kept, msgspec.json.encode(done[run.name]))
            print(f"{run.name}: {done[run.name]}", flush=True)
    return [done[run.name] for run in runs()]


def prediction(results: list[dict[str, Any]]) -> dict[str, Any]:
    """What the ladder says of the preset small's pretraining, which is none of its runs."""
    small = TRAINING["small"]["pretrain"]
    assert small.max_steps is not None
    ladder = ladder_runs(results)
    fill = sum(run["tokens"] for run in ladder) / sum(
        run["steps"] * run["rows"] * ROW for run in ladder
    )
    blocks, table, flops = flops_per_token(MODELS["small"])
    tokens = round(small.max_steps * small.batch_size * ROW * fill)
    n = {"blocks": blocks, "total": blocks + table, "untied": blocks + 2 * table}
    by_count = {
        count: dict(
            zip(("val_loss", "low", "high"), predict(results, n[count], tokens, count), strict=True)
        )
        for count in COUNTS
    }
    return {
        "non_embedding": blocks,
        "embedding": table,
        "tokens": tokens,
        "flops": flops * tokens,
        "interval": INTERVAL,
        **by_count["total"],
        "by_count": by_count,
    }


def main(options: Options) -> None:
    content = msgspec.json.decode(RESULTS.read_bytes()) if RESULTS.exists() else {}
    if not options.outcome:
        results, data = trained(options), file_sha256(options.data)
        if content.get("data_sha256") != data:
            content.pop("outcome", None)  # that of other rows
        content |= {
            "machine": machine(),
            "torch": str(torch.__version__),
            "data_sha256": data,
            "runs": results,
            "prediction": prediction(results),
        }
    elif "prediction" not in content:
        raise UserError(f"{RESULTS}: there is no forecast yet: run this without --outcome first")
    else:
        content["outcome"] = outcome(options)
    said = content["prediction"]
    print(f"forecast {said['val_loss']:.3f} ({said['low']:.3f} to {said['high']:.3f})", end="")
    print(f", outcome {content['outcome']['val_loss']:.3f}" if "outcome" in content else "")
    write_atomically(RESULTS, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    start(main, Options)
