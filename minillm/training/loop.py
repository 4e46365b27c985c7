"""One training loop for all stages. A stage differs in its rows, its starting weights and its
objective. (GRPO has no rows: ``minillm.training.grpo`` makes its batches.)

    rows → packed batches → objective → gradients → clip → optimizer → log, validate, save

Everything that decides the result is a function of the settings and of the step number: the order
of the rows, the packing, the learning rate. So a run can be split over processes, or stopped and
gone on with, without changing what it computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from minillm.config import DataStage, GRPOConfig, Stage, TrainConfig
from minillm.data.shards import find_shards
from minillm.errors import UserError
from minillm.model.transformer import Transformer
from minillm.progress import Progress
from minillm.training.checkpoint import (
    Metadata,
    check_continues,
    keep_tokenizer,
    load_optimizers,
    newest_checkpoint,
    save_training_checkpoint,
    settle,
    starting_model,
    weights_path,
)
from minillm.training.dataset import load_shards
from minillm.training.devices import (
    Process,
    StopRequest,
    set_up_process,
    warning_of_attention,
)
from minillm.training.log import RunLog
from minillm.training.model_folder import model_folder, save_stage
from minillm.training.objectives import (
    Objective,
    make_dpo_objective,
    next_token_loss,
    validation_loss,
)
from minillm.training.optimizers import learning_rate_factor, make_optimizers
from minillm.training.packing import Batch, PackedRows

AfterStep = Callable[[int, Transformer], None]
"""Looks at the model after an optimizer step (from 1), in the process that saves."""


def train(config: TrainConfig, stage: DataStage, after_step: AfterStep | None = None) -> Path:
    """Trains one stage and returns the path of its weights, ``<out_dir>/<stage>.safetensors``; the
    folder ``<out_dir>/<stage>`` beside them is for Hugging Face's `transformers`.

    Raises:
        UserError: data, weights, device or settings cannot be used, the loss is not finite,
            memory or disk ran out, or another process of the run ended. Files that were complete
            before stay as they were.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a step that had begun was finished and saved for
            ``--resume``.
    """
    return run_trainer(
        config, lambda process, stop: Trainer(config, stage, process, stop, after_step)
    )


def run_trainer(config: TrainConfig, make: Callable[[Process, StopRequest], Trainer]) -> Path:
    """Makes a trainer in this process, which it prepares, and runs it. See ``train``."""
    process = set_up_process(config.device, config.dtype)
    try:
        with StopRequest() as stop:
            return make(process, stop).run()
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
    if out_of_memory(error):
        if config.batch_size == 1:
            return (
                "out of memory with one packed row at a time: lower --max_seq_len, or choose a "
                "smaller model or another --device"
            )
        more = (
            f" and raise --accumulation_steps {config.accumulation_steps} by the same factor"
            if not isinstance(config, GRPOConfig)  # which goes through its rows, however many
            else ""
        )
        return (
            f"out of memory: lower --batch_size {config.batch_size}{more}: the result is the same, "
            "the memory less"
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


def out_of_memory(error: Exception) -> bool:
    """Whether there was too little memory, of a GPU or of the machine."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    said = ("can't allocate memory", "MPS backend out of memory")
    return isinstance(error, kinds) or any(text in str(error) for text in said)


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


def objective_of(stage: Stage, config: TrainConfig, start: Transformer) -> Objective:
    """What a stage minimises. DPO compares with a frozen copy of the weights that it starts from:
    the reference."""
    if stage != "dpo":
        return next_token_loss
    reference = Transformer(start.config).to(start.lm_head.weight.device)
    reference.load_state_dict(start.state_dict())
    reference.requires_grad_(False)
    return make_dpo_objective(reference, config.beta, config.nll_weight)


class Trainer:
    """One run of one stage: what it needs, and what is done in every step."""

    def __init__(
        self,
        config: TrainConfig,
        stage: Stage,
        process: Process,
        stop: StopRequest,
        after_step: AfterStep | None = None,
    ) -> None:
        config, self.tokenizer = settle(config)
        self.config, self.stage, self.process = config, stage, process
        self.stop, self.after_step = stop, after_step
        self.rows_per_step = config.batch_size * config.accumulation_steps * process.world_size
        torch.manual_seed(config.seed)
        self.set_up_model()
        self.set_up_data()
        self.go_on()
        self.forward: nn.Module = self.model
        if process.world_size > 1:
            self.forward = DistributedDataParallel(self.model)
        # With the objective the loss is compiled too, and its fp32 copy of all scores never exists.
        self.learn = torch.compile(self.objective) if config.compile else self.objective
        self.autocast = torch.autocast(
            process.device.type, process.dtype, enabled=process.dtype != torch.float32
        )

    def say(self, message: str) -> None:
        """Prints, once for all processes."""
        if self.process.is_main:
            print(f"{self.stage}: {message}", flush=True)

    # --- Before the first step --------------------------------------------------------------------

    def set_up_model(self) -> None:
        """The weights to train, and the objective: those of the newest checkpoint with --resume,
        else those that the stage starts from, which an objective may need either way, as its
        reference."""
        config, stage = self.config, self.stage
        self.checkpoint = None
        if config.resume:
            self.checkpoint = newest_checkpoint(config, stage, self.tokenizer, self.say)
        self.started_from = ""
        if self.checkpoint is None or self.compares():
            start = starting_model(config, stage, self.tokenizer, self.say)
            model, self.started_from, self.window = start
        else:
            model, self.window = self.checkpoint.model, self.checkpoint.metadata.window
        self.model = model.to(self.process.device)
        self.objective = self.make_objective()
        self.say(f"{self.model.num_parameters():,} trainable parameters, on {self.process.device}")
        if warning := warning_of_attention(self.model.config, self.process):
            self.say(warning)

    def compares(self) -> bool:
        """Whether the objective compares with the weights that the stage starts from."""
        return self.stage == "dpo"

    def make_objective(self) -> Objective:
        """What is minimised. It is called with the weights that the stage starts from, or if it
        does not compare with them, with any."""
        return objective_of(self.stage, self.config, self.model)

    def set_up_data(self) -> None:
        """Rows to train on, rows to validate on where there are some, and the number of steps."""
        config, stage = self.config, self.stage

        def packed(paths: list[Path], epochs: int, shuffle: bool) -> PackedRows:
            data = load_shards(
                paths,
                stage,
                self.tokenizer,
                config.max_seq_len,
                config.out_dir / "cache",
                self.process.rank,
                self.process.world_size,
            )
            most = config.max_steps and config.max_steps * self.rows_per_step
            return PackedRows(data, config.max_seq_len, epochs, config.seed, shuffle, most)

        shards, held_out = find_shards(config.data_path)
        if len(shards) > 1:
            self.say(
                f"{len(shards)} shards, {shards[0]} to {shards[-1].name}, and {len(held_out)} for "
                "validation"
            )
        rows = self.rows = packed(shards, config.epochs, True)
        self.val_rows = packed(held_out, 1, False) if held_out else None
        self.data_sha256 = rows.data.sha256
        self.window = max(self.window, rows.data.usual_length())
        self.total_steps = math.ceil(len(rows) / self.rows_per_step)
        if config.max_steps is not None:
            self.total_steps = min(self.total_steps, config.max_steps)
        self.say(
            f"{len(rows.data):,} {'pairs' if stage == 'dpo' else 'sequences'} packed into "
            f"{len(rows):,} rows of {rows.row_length} tokens ({rows.fill():.1%} full), "
            f"{self.total_steps:,} steps"
        )

    def go_on(self) -> None:
        """Makes the optimizers, and with a checkpoint puts model and optimizers back to where it
        was saved."""
        self.optimizers = make_optimizers(self.model, self.config)
        self.start_step = 0
        if self.checkpoint is not None:
            path, saved, metadata = self.checkpoint
            check_continues(path, metadata, self.metadata(0), self.total_steps)
            self.model.load_state_dict(saved.state_dict())
            load_optimizers(path, self.optimizers)
            self.start_step = metadata.step
            self.started_from = metadata.train.get("started_from", "")
            self.checkpoint = None  # its memory is needed

    def metadata(self, step: int) -> Metadata:
        """What the files of weights say of themselves."""
        train = self.config.to_dict() | {
            "rows_per_step": self.rows_per_step,
            "started_from": self.started_from,
            "window": self.window,
        }
        return Metadata(
            self.stage,
            step,
            self.model.config,
            self.tokenizer.fingerprint,
            self.data_sha256,
            train,
        )

    # --- The loop ---------------------------------------------------------------------------------

    def run(self) -> Path:
        """All steps; returns the path of the finished weights."""
        keep_tokenizer(self.config, self.tokenizer, self.process.is_main)
        log = RunLog(self.config, self.stage, self.start_step) if self.process.is_main else None
        self.stop.deferred = True
        values: dict[str, float] = {}
        with Progress(
            self.stage, self.total_steps, "steps", self.start_step, keep=True, quiet=log is None
        ) as progress:
            for step, batches in enumerate(self.batches(), self.start_step):
                values = self.step(step, batches)
                # All processes must leave after the same step, so any one's signal counts for all.
                stopping = values.pop("stop") > 0
                if log:
                    self.after(step + 1, values, log, progress, stopping)
                if stopping and step + 1 < self.total_steps:
                    raise KeyboardInterrupt(
                        f"{self.stage}: stopped after step {step + 1} of {self.total_steps}, "
                        "which is saved; go on with --resume"
                    )
        path = weights_path(self.config.out_dir, self.stage)
        if log:
            save_stage(path, self.model, self.metadata(self.total_steps), self.tokenizer)
            log.close()
            last = [f"{k} {values[k]:.4f}" for k in SAID_LAST if k in values]
            folder = model_folder(path)
            self.say(f"{', '.join(last)}; weights in {path}, for transformers in {folder}")
        return path

    def batches(self) -> Iterator[list[Batch]]:
        """For each step the batches whose gradients it adds up."""
        size = self.config.accumulation_steps
        loader = iter(
            DataLoader(
                MicroBatches(self.rows, self.config.batch_size, self.process),
                batch_size=None,
                sampler=range(self.start_step * size, self.total_steps * size),
                num_workers=data_workers(self.process),
                pin_memory=self.process.device.type == "cuda",
            )
        )
        while batches := list(islice(loader, size)):
            yield batches

    def step(self, step: int, batches: list[Batch]) -> dict[str, float]:
        """One optimizer step, counted from 0; returns what it measured, per target."""
        rate = self.set_rate(step)
        sums = self.accumulate(batches)
        totals, norm = self.update(sums)
        # Only now is the result asked for: until here a GPU had the next operation waiting.
        values = dict(zip(sums, totals.tolist(), strict=True))
        count = max(values.pop("count"), 1)
        apart = {name: values.pop(name) for name in ("tokens", "stop")}
        values = {name: value / count for name, value in values.items()}
        values |= {"grad_norm": float(norm), "learning_rate": rate, **apart}
        self.check_finite(step, values)
        return values

    def set_rate(self, step: int) -> float:
        """Sets the step's learning rate, clears the gradients, returns the rate."""
        config = self.config
        rate = config.learning_rate * learning_rate_factor(
            step, self.total_steps, config.warmup_fraction, config.decay_fraction
        )
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
        return rate

    def accumulate(self, batches: list[Batch]) -> dict[str, Any]:
        """Adds up the gradients of the batches' losses, which are sums, and returns the sums: of
        losses and other values, of targets (``count``), tokens, and signals to stop."""
        sums: dict[str, Any] = {}
        for i, batch in enumerate(batches):
            tokens = int((batch.document_ids >= 0).sum())
            batch = batch.to(self.process.device)
            # Processes exchange their gradients once a step, with the last batch.
            alone = self.process.world_size > 1 and i < len(batches) - 1
            with self.forward.no_sync() if alone else nullcontext():  # type: ignore[operator]
                with self.autocast:
                    loss = self.learn(self.forward, batch)
                loss.total.backward()  # type: ignore[no-untyped-call]
            counted = {
                "count": loss.count,
                "tokens": tokens,
                "stop": self.stop.received,
                "loss": loss.total.detach(),
                **loss.metrics,
            }
            for name, value in counted.items():
                sums[name] = sums.get(name, 0) + value
        return sums

    def update(self, sums: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Divides the gradients once by the targets of all processes, clips, and steps; returns the
        sums over all processes, in the order of ``sums``, and the norm of the gradient."""
        device, processes = self.process.device, self.process.world_size
        values = sums.values()  # "count" is the first
        # A Mac's GPU has no float64.
        wide = torch.float32 if device.type == "mps" else torch.float64
        totals = torch.stack([torch.as_tensor(v, dtype=wide, device=device) for v in values])
        if processes > 1:
            dist.all_reduce(totals)
        scale = processes / totals[0].clamp(min=1)  # DDP has averaged over processes
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(scale)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        return totals, norm

    def after(
        self, done: int, values: dict[str, float], log: RunLog, progress: Progress, stopping: bool
    ) -> None:
        """Logs a step, counted from 1, and when it is time validates and saves."""
        config, tokens = self.config, int(values.pop("tokens"))
        if self.val_rows and (done % config.eval_every == 0 or done == self.total_steps):
            values |= self.validate(self.val_rows)
        log.add(done, values, tokens)
        shown = {k: f"{values[k]:.3f}" for k in ("loss", "accuracy", "val_loss") if k in values}
        progress.update(1, **shown, **{"tokens/s": f"{log.speed():,.0f}"})
        if (done % config.save_every == 0 or stopping) and done < self.total_steps:
            save_training_checkpoint(
                config.out_dir, self.model, self.metadata(done), self.optimizers
            )
        if self.after_step:
            self.after_step(done, self.model)

    def validate(self, rows: PackedRows) -> dict[str, float]:
        """The objective's values on held-out rows, under names that begin with ``val_``."""
        size = self.config.batch_size
        batches = (
            rows.batch(range(i, i + size)).to(self.process.device)
            for i in range(0, len(rows), size)
        )
        with self.autocast:
            values = validation_loss(self.objective, self.model, batches)
        return {f"val_{name}": value for name, value in values.items()}

    def check_finite(self, step: int, values: dict[str, float]) -> None:
        """Raises UserError where the loss or its gradient is infinite or not a number."""
        if math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"]):
            return
        raise UserError(
            f"{self.stage} step {step + 1}, {self.learned_from(step)}: "
            f"loss {values['loss']}, gradient norm {values['grad_norm']}: not finite, so training "
            f"stops; lower --learning_rate {self.config.learning_rate} (nothing that was saved is "
            "lost)"
        )

    def learned_from(self, step: int) -> str:
        """What a step (from 0) learns from, in words."""
        first = step * self.rows_per_step
        last = min(first + self.rows_per_step, len(self.rows))
        return f"packed rows {first + 1} to {last} of {len(self.rows)}"


SAID_LAST = ("loss", "reward", "val_loss", "val_accuracy")
"""Values of the last step that are printed."""
