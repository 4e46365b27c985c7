"""One training loop for all stages. A stage differs in its rows, its starting weights and its
objective.

    rows → packed batches → objective → gradients → clip → optimizer → log, validate, save

Everything that decides the result is a function of the settings and of the step number: the order
of the rows, the packing, the learning rate. So a run can be split over processes, or stopped and
gone on with, without changing what it computes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from minillm.config import Stage, TrainConfig
from minillm.errors import UserError
from minillm.model.transformer import Transformer
from minillm.progress import Progress
from minillm.tokenizer.vocabulary import find_tokenizer
from minillm.training.checkpoint import (
    Metadata,
    resume,
    save_checkpoint,
    save_training_checkpoint,
    starting_model,
    weights_path,
)
from minillm.training.dataset import load_dataset, validation_path
from minillm.training.devices import Process, StopRequest, set_up_process
from minillm.training.log import RunLog
from minillm.training.objectives import (
    Objective,
    make_dpo_objective,
    next_token_loss,
    validation_loss,
)
from minillm.training.optimizers import learning_rate_factor, make_optimizers
from minillm.training.packing import Batch, PackedRows


class MicroBatches(Dataset[Batch]):
    """The batches of one process: item ``step * accumulation_steps + i``, of the same rows in total
    however many processes share them."""

    def __init__(self, rows: PackedRows, batch_size: int, process: Process) -> None:
        self.rows, self.batch_size = rows, batch_size
        self.rank, self.world_size = process.rank, process.world_size

    def __getitem__(self, index: int) -> Batch:
        start = (index * self.world_size + self.rank) * self.batch_size
        return self.rows.batch(range(start, start + self.batch_size))


def data_workers(process: Process) -> int:
    """Processes that prepare batches. A CPU has better things to do; a GPU must not wait."""
    return 2 if process.device.type == "cuda" else 0


AfterStep = Callable[[int, Transformer], None]
"""Looks at the model after an optimizer step (from 1), in the process that saves."""


def train(config: TrainConfig, stage: Stage, after_step: AfterStep | None = None) -> Path:
    """Trains one stage and returns the path of its weights, ``<out_dir>/<stage>.safetensors``.

    Raises:
        UserError: data, weights, device or settings cannot be used, the loss is not finite,
            memory or disk ran out, or another process of the run ended. Files that were complete
            before stay as they were.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a step that had begun was finished and saved for
            ``--resume``.
    """
    process = set_up_process(config.device, config.dtype)
    try:
        with StopRequest() as stop:
            return _train(config, stage, process, stop, after_step)
    except (RuntimeError, MemoryError) as error:
        if advice := advice_on(error, config):
            raise UserError(advice) from error
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def advice_on(error: Exception, config: TrainConfig) -> str | None:
    """What a user can do about an error that PyTorch raised; None: it is not one of these."""
    text = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
        return (
            f"out of memory: lower --batch_size {config.batch_size} and raise "
            f"--accumulation_steps {config.accumulation_steps} by the same factor: the result is "
            "the same, the memory less"
        )
    if "DataLoader worker" in text:
        return (
            f"a process that prepares batches was killed, often for lack of memory ({text:.100}); "
            "go on with --resume"
        )
    if isinstance(error, dist.DistError) or "gloo" in text or "NCCL" in text:
        return (
            f"the processes of this run lost each other, since one has ended ({text:.100}); see "
            "its message, and go on with --resume"
        )
    return None


def _train(
    config: TrainConfig,
    stage: Stage,
    process: Process,
    stop: StopRequest,
    after_step: AfterStep | None,
) -> Path:
    say = print if process.is_main else _silent
    torch.manual_seed(config.seed)

    # --- Model ---
    tokenizer = find_tokenizer(config.tokenizer_path, config.out_dir)
    model = starting_model(config, stage, tokenizer, say).to(process.device)
    say(
        f"{stage}: {model.num_parameters():,} trainable parameters, on {process.device}", flush=True
    )
    objective: Objective = next_token_loss
    if stage == "dpo":
        # The policy starts as a copy of the reference, so loading twice would be waste.
        reference = Transformer(model.config).to(process.device)
        reference.load_state_dict(model.state_dict())
        reference.requires_grad_(False)
        objective = make_dpo_objective(reference, config.beta, config.nll_weight)

    # --- Data ---
    def rows_of(path: Path, epochs: int, shuffle: bool) -> PackedRows:
        data = load_dataset(path, stage, tokenizer, config.max_seq_len, config.out_dir / "cache")
        return PackedRows(data, config.max_seq_len, epochs, config.seed, shuffle)

    rows = rows_of(config.data_path, config.epochs, True)
    val_path = validation_path(config.data_path)
    val_rows = rows_of(val_path, 1, False) if val_path.exists() else None
    rows_per_step = config.batch_size * config.accumulation_steps * process.world_size
    total_steps = math.ceil(len(rows) / rows_per_step)
    if config.max_steps is not None:
        total_steps = min(total_steps, config.max_steps)
    say(
        f"{stage}: {len(rows.data):,} {'pairs' if stage == 'dpo' else 'sequences'} packed into "
        f"{len(rows):,} rows of {rows.row_length} tokens ({rows.fill():.1%} full), "
        f"{total_steps:,} steps",
        flush=True,
    )

    # --- Optimizer, and where to start ---
    def metadata(step: int) -> Metadata:
        train = config.to_dict() | {"rows_per_step": rows_per_step}
        return Metadata(stage, step, model.config, tokenizer.fingerprint, rows.data.sha256, train)

    optimizers = make_optimizers(model, config)
    start_step = 0
    if config.resume:
        start_step = resume(config, metadata(0), tokenizer, model, optimizers, say)
    forward: nn.Module = model
    if process.world_size > 1:
        forward = DistributedDataParallel(model)
    # With the objective the loss is compiled too, and its fp32 copy of all scores never exists.
    learn = torch.compile(objective) if config.compile else objective
    autocast = torch.autocast(
        process.device.type, process.dtype, enabled=process.dtype != torch.float32
    )

    def validate() -> dict[str, float]:
        assert val_rows is not None
        batches = (
            val_rows.batch(range(i, i + config.batch_size)).to(process.device)
            for i in range(0, len(val_rows), config.batch_size)
        )
        with autocast:
            values = validation_loss(objective, model, batches)
        return {f"val_{name}": value for name, value in values.items()}

    # --- The loop ---
    accumulation = config.accumulation_steps
    loader = DataLoader(
        MicroBatches(rows, config.batch_size, process),
        batch_size=None,
        sampler=range(start_step * accumulation, total_steps * accumulation),
        num_workers=data_workers(process),
        pin_memory=process.device.type == "cuda",
    )
    log = RunLog(config, stage, start_step) if process.is_main else None
    bar = Progress(stage, total_steps, "steps", start_step, keep=True, quiet=not process.is_main)
    stop.deferred = True
    started, tokens = time.monotonic(), 0
    values: dict[str, float] = {}
    for step, batches in enumerate(chunks(iter(loader), accumulation), start_step):
        factor = learning_rate_factor(
            step, total_steps, config.warmup_fraction, config.decay_fraction
        )
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * factor
            optimizer.zero_grad(set_to_none=True)

        # Sums of losses and counts first, one division after: see minillm.training.objectives.
        sums: dict[str, Any] = {}
        for i, batch in enumerate(batches):
            last = i == accumulation - 1
            sync = nullcontext() if last or process.world_size == 1 else forward.no_sync()  # type: ignore[operator]
            tokens_here = int((batch.document_ids >= 0).sum())
            batch = batch.to(process.device)
            with sync:
                with autocast:
                    loss = learn(forward, batch)
                loss.total.backward()  # type: ignore[no-untyped-call]
            counted = {
                "count": loss.count,
                "tokens": tokens_here,
                "stop": stop.received,
                "loss": loss.total.detach(),
                **loss.metrics,
            }
            for name, value in counted.items():
                sums[name] = sums.get(name, 0) + value
        totals = torch.stack(
            [torch.as_tensor(v, dtype=torch.float64, device=process.device) for v in sums.values()]
        )
        if process.world_size > 1:
            dist.all_reduce(totals)
        scale = process.world_size / totals[0].clamp(min=1)
        for parameter in model.parameters():
            if parameter.grad is not None:  # DDP has averaged over processes
                parameter.grad.mul_(scale)
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        for optimizer in optimizers:
            optimizer.step()

        # Only now is the result asked for: until here a GPU had the next operation waiting.
        values = dict(zip(sums, totals.tolist(), strict=True))
        count = max(values.pop("count"), 1)
        step_tokens = int(values.pop("tokens"))
        tokens += step_tokens
        # All processes must leave the loop after the same step, so any one's signal counts for all.
        stopping = values.pop("stop") > 0
        values = {name: value / count for name, value in values.items()}
        values |= {"grad_norm": float(norm), "learning_rate": config.learning_rate * factor}
        if not math.isfinite(values["loss"]) or not math.isfinite(values["grad_norm"]):
            bar.close()
            first = step * rows_per_step
            raise UserError(
                f"{stage} step {step + 1}, packed rows {first + 1} to "
                f"{min(first + rows_per_step, len(rows))} of {len(rows)}: loss {values['loss']}, "
                f"gradient norm {values['grad_norm']}: not finite, so training stops; lower "
                f"--learning_rate {config.learning_rate} (nothing that was saved is lost)"
            )

        done = step + 1
        speed = tokens / (time.monotonic() - started)
        if log:
            if val_rows and (done % config.eval_every == 0 or done == total_steps):
                values |= validate()
            log.add(done, values, step_tokens)
            shown = {k: f"{values[k]:.3f}" for k in ("loss", "accuracy", "val_loss") if k in values}
            bar.update(1, **shown, **{"tokens/s": f"{speed:,.0f}"})
            if (done % config.save_every == 0 or stopping) and done < total_steps:
                save_training_checkpoint(config.out_dir, model, metadata(done), optimizers)
            if after_step:
                after_step(done, model)
        if stopping and done < total_steps:
            bar.close()
            raise KeyboardInterrupt(
                f"{stage}: stopped after step {done} of {total_steps}, which is saved; go on with "
                "--resume"
            )
    bar.close()

    path = weights_path(config.out_dir, stage)
    if log:
        save_checkpoint(path, model, metadata(total_steps))
        log.writer.close()
        parts = [
            f"{k} {v:.4f}" for k, v in values.items() if k in ("loss", "val_loss", "val_accuracy")
        ]
        say(f"{stage}: {', '.join(parts)}; weights in {path}", flush=True)
    return path


def _silent(*_: object, **__: object) -> None:
    """Stands in for print on all processes but the first."""


def chunks(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of ``size`` batches."""
    while chunk := list(islice(batches, size)):
        yield chunk
