"""What a GPU computes, how fast, with which kernels and how much memory: one command on a machine
that nobody has seen before.

    bash scripts/gpu_check.sh                          # at most 8 minutes, no network
    bash scripts/gpu_check.sh --device cpu --quick     # proves that the code runs, nothing else

Each step is a process of its own, so that one that fails, hangs or runs out of memory takes no
other with it. What it measured, or why it failed, is in the JSON file, ``book/results/gpu.json``:

    {"ok": …, "machine": {"gpu": …, "driver": …, "torch": …, "date": …, "git": …},
     "steps": {"equality": {"ok": true, "seconds": …, "values": {…}},
               "speed": {"ok": false, "seconds": …, "error": "…"}, …}}

Exit code 0: every step did well; 1: some did not; 2: there is no such GPU.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

from setting import machine as host

import speed
import torch
import tyro
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from minillm.config import MODELS, TRAINING, DataStage, ModelConfig
from minillm.errors import UserError
from minillm.evaluate import git_revision
from minillm.files import write_atomically
from minillm.model import transformer
from minillm.model.transformer import Transformer
from minillm.training import objectives
from minillm.training.devices import Process, warning_of_attention
from minillm.training.objectives import Objective, make_dpo_objective, next_token_loss
from minillm.training.optimizers import make_optimizers
from minillm.training.packing import IGNORE_INDEX, Batch

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Options:
    """Check a GPU and write what it did to a JSON file."""

    device: Literal["cuda", "cpu"] = "cuda"
    quick: bool = False
    """Toy sizes, which measure nothing."""
    out: Path = ROOT / "book" / "results" / "gpu.json"
    """The file to write."""
    seconds: float = 460
    """For all steps together; one that has not ended by then has failed."""
    step: str = ""
    """Only this step, in this process; its values go to --out as they are."""

    @property
    def rows(self) -> tuple[int, int]:
        """Of a batch that fills a large GPU, and of the default preset's."""
        return (2, 2) if self.quick else (128, TRAINING["default"]["pretrain"].batch_size)

    @property
    def model(self) -> ModelConfig:
        return SMALL if self.quick else MODELS["default"]

    @property
    def dtype(self) -> torch.dtype:
        """That of ``--dtype auto``."""
        fast = self.device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32


SMALL = ModelConfig(
    vocab_size=512,
    hidden_size=128,
    intermediate_size=352,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
)
LENGTH = 512


def packed_batch(rows: int, length: int, vocab_size: int, device: torch.device) -> Batch:
    """Random tokens, four documents a row, of which a prompt of two tokens is not learned; the last
    position of each row is padding."""
    ids = torch.randint(vocab_size, (rows, length), device=device)
    labels = torch.randint(vocab_size, (rows, length), device=device)
    positions, documents = speed.four_documents(rows, length, device)
    documents = documents + 4 * torch.arange(rows, device=device)[:, None]
    labels[positions < 2] = IGNORE_INDEX
    labels[:, -1] = IGNORE_INDEX
    documents[:, -1] = -1
    return Batch(ids, labels, positions, documents, 4 * rows, int((labels >= 0).sum()))


def mean_loss(batch: Batch) -> Callable[[Any], Tensor]:
    return lambda model: next_token_loss(model, batch).total / batch.num_targets


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def autocast(device: str, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device, dtype, enabled=dtype != torch.float32)


# --- Equality -------------------------------------------------------------------------------------

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Largest relative difference of the loss, and of the gradient as one long vector. float32 has 24
bits and bfloat16 8; sums of some hundred terms in another order lose a few of them."""


def equality(options: Options) -> dict[str, Any]:
    """Losses and gradients of a small model beside those of the CPU in float32: heads of 32 and 64,
    rows whose length is a multiple of 8 and not, scores whole and in parts, no rows at all."""
    found: dict[str, Any] = {}
    wrong: list[str] = []
    wide = replace(SMALL, attention_hidden_size=256)
    # bfloat16 on the CPU too: not what it trains in, but what proves this code.
    fast = torch.bfloat16 if options.device == "cpu" else options.dtype
    dtypes = dict.fromkeys((torch.float32, fast))
    cases: list[tuple[str, ModelConfig, int, int, int]] = [
        ("heads of 32", SMALL, 4, 128, 2**62),
        ("heads of 64", wide, 4, 128, 2**62),
        ("rows of 101", wide, 4, 101, 2**62),
        ("scores in parts", SMALL, 4, 128, 512 * 50),
        ("no rows", SMALL, 0, 128, 2**62),
    ]
    for name, config, rows, length, at_once in cases[2:] if options.quick else cases:
        for stage in ("pretrain", "dpo"):
            torch.manual_seed(0)
            batch = packed_batch(rows, length, config.vocab_size, torch.device("cpu"))
            exact = loss_and_gradient(config, stage, batch, "cpu", torch.float32, 2**62)
            for dtype in dtypes:
                here = loss_and_gradient(config, stage, batch, options.device, dtype, at_once)
                differences = [
                    float((a - b).norm() / b.norm().clamp(min=1e-30))
                    for a, b in zip(here, exact, strict=True)
                ]
                label = f"{stage}, {name}, {short(dtype)}"
                found[label] = dict(zip(("loss", "gradient"), differences, strict=True))
                if not all(d <= TOLERANCE[dtype] for d in differences):  # or not a number
                    wrong.append(label)
    if wrong:
        raise Wrong(f"unlike the CPU: {'; '.join(wrong)}", found)
    return found


def loss_and_gradient(
    config: ModelConfig, stage: str, batch: Batch, device: str, dtype: torch.dtype, at_once: int
) -> tuple[Tensor, Tensor]:
    """Sum of the losses ``[1]`` and its gradient, all parameters in one vector, in float64 on the
    CPU."""
    torch.manual_seed(1)
    model, reference = Transformer(config), Transformer(config)  # the same on every device
    model, reference = model.to(device), reference.to(device).requires_grad_(False)
    objective: Objective = next_token_loss
    if stage == "dpo":
        objective = make_dpo_objective(reference, beta=0.1, nll_weight=0.3)
    with patch.object(objectives, "SCORES_AT_ONCE", at_once), autocast(device, dtype):
        loss = objective(model, batch.to(torch.device(device)))
    loss.total.backward()  # type: ignore[no-untyped-call]
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return loss.total.detach().view(1).cpu().double(), gradient.cpu().double()


# --- Kernels --------------------------------------------------------------------------------------

OPERATION = re.compile(r"aten::\w*(scaled_dot_product|efficient|flash|cudnn)\w*attention")
KERNEL = re.compile(r"attention|fmha|flash|sdpa", re.IGNORECASE)


def kernels(options: Options) -> dict[str, Any]:
    """Which attention ran, forward and backward: operations of PyTorch, and kernels of the GPU."""
    found: dict[str, Any] = {}
    device = torch.device(options.device)
    activities = [ProfilerActivity.CPU]
    if options.device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    config = replace(options.model, num_hidden_layers=1)
    for dtype in dict.fromkeys((options.dtype, torch.float32)):
        for masked in (True, False):
            torch.manual_seed(0)
            model = Transformer(config).to(device)
            batch = packed_batch(2, 128 if options.quick else LENGTH, config.vocab_size, device)
            documents = batch.document_ids if masked else None
            with profile(activities=activities) as seen:
                with autocast(options.device, dtype):
                    logits = model(batch.input_ids, None, documents)
                logits.float().sum().backward()
                if device.type == "cuda":
                    torch.cuda.synchronize()
            events = seen.key_averages()
            on_gpu = [event.key for event in events if event.device_type.name == "CUDA"]
            label = f"{short(dtype)}, {'documents' if masked else 'no mask'}"
            found[label] = {
                "operations": sorted(e.key for e in events if OPERATION.match(e.key)),
                "kernels": sorted(name[:200] for name in on_gpu if KERNEL.search(name)),
                "warning": warning_of_attention(config, Process(0, 1, device, dtype)),
            }
    # Without a mask, where a model writes, older versions share heads in 16 bits only.
    stored = [
        label
        for label, seen_there in found.items()
        if label.endswith("documents")
        and any("attention_math" in name for name in seen_there["operations"])
    ]
    if stored:
        raise Wrong(f"attention stored all its scores: {'; '.join(stored)}", found)
    return found


# --- Memory and speed -----------------------------------------------------------------------------


def memory(options: Options) -> dict[str, Any]:
    """Most bytes in use during two steps of the default preset's batch with its own optimizers: as
    training does it; with the scores whole in fp32; with keys and values left to be shared."""
    whole = patch.object(objectives, "SCORES_AT_ONCE", 2**62)
    shared = patch.object(transformer, "kernel_shares_heads", lambda mask, device: True)
    variants: dict[str, AbstractContextManager[Any]] = {
        "as in training": nullcontext(),
        "fp32 scores whole": whole,
        "heads shared by the kernel": shared,
    }
    found: dict[str, Any] = {
        "rows": options.rows[1],
        "length": LENGTH,
        "dtype": short(options.dtype),
    }
    for name, variant in variants.items():
        with variant:
            try:
                found[name] = peak_of_training(options)
            except torch.OutOfMemoryError:  # of what training would not do, that is a result
                if not found.get("as in training"):
                    raise
                found[name] = {"peak": None, "out of memory": True}
    return found


def peak_of_training(options: Options) -> dict[str, int | None]:
    """Bytes."""
    device, on_cuda = torch.device(options.device), options.device == "cuda"
    if on_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(0)
    model = Transformer(options.model).to(device)
    optimizers = make_optimizers(model, TRAINING["default"]["pretrain"])
    batch = packed_batch(options.rows[1], LENGTH, model.config.vocab_size, device)
    loss_of = mean_loss(batch)
    for _ in range(2):
        with autocast(options.device, options.dtype):
            loss = loss_of(model)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    if not on_cuda:
        return {"peak": None, "between steps": None}
    torch.cuda.synchronize()
    return {
        "peak": torch.cuda.max_memory_allocated(),
        "between steps": torch.cuda.memory_allocated(),
    }


def step_speed(options: Options) -> dict[str, Any]:
    """A raw step at batch 128, or at half of that as often as the memory does not suffice: tokens a
    second, and its share of a large matrix multiplication."""
    rows = options.rows[0]
    while True:
        try:
            return speed_of(options, rows, compiled=False)
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
        rows //= 2


def compiled_speed(options: Options) -> dict[str, Any]:
    """The same with ``--compile``; ``first_seconds`` is mostly what compiling takes."""
    return speed_of(options, options.rows[0], compiled=True)


def speed_of(options: Options, rows: int, compiled: bool) -> dict[str, Any]:
    torch.manual_seed(0)
    device = torch.device(options.device)
    model = Transformer(options.model).to(device)
    length = 64 if options.quick else LENGTH
    batch = packed_batch(rows, length, model.config.vocab_size, device)
    plain = loss_of = mean_loss(batch)
    if compiled:
        loss_of = torch.compile(plain, backend="eager" if options.quick else "inductor")
    repeats = 1 if options.quick else 10
    flops = speed.flops_per_token(model, length)
    measured = speed.measure_step(model, loss_of, rows * length, flops, options.dtype, repeats)
    found: dict[str, Any] = {"rows": rows, "length": length, "dtype": short(options.dtype)}
    found |= asdict(measured) | {"share": measured.share}
    if compiled:
        with autocast(options.device, options.dtype):
            losses = found["losses"] = {
                "compiled": loss_of(model).item(),
                "plain": plain(model).item(),
            }
        if not abs(losses["compiled"] - losses["plain"]) <= TOLERANCE[options.dtype]:
            raise Wrong("compiled, the loss is another one", found)
    return found


# --- The commands ---------------------------------------------------------------------------------

TOY = (
    "--preset smoke --hidden_size 32 --intermediate_size 32 --num_hidden_layers 1 "
    "--num_attention_heads 2 --num_key_value_heads 1 --max_seq_len 64 --batch_size 2 "
    "--accumulation_steps 1 --max_steps 2"
)


def commands(options: Options) -> dict[str, Any]:
    """The three stages of the default preset, cut short, and the scores of the last, by the
    commands that users type, on built-in rows."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        data, out = Path(name) / "data", Path(name) / "out"
        environment = {**os.environ, "TF_DIR": name, "PYTHONPATH": python_path()}

        def run(command: str, *arguments: str) -> None:
            done = subprocess.run(
                [sys.executable, "-c", "from minillm.cli import main; main()", command, *arguments],
                env=environment,
                capture_output=True,
                encoding="utf-8",
                cwd=name,
            )
            if done.returncode:
                raise Wrong(f"minillm {command}: {done.stderr[-2000:]}", found)

        run("mix", "--preset", "smoke", "--out_dir", str(data), "--data_dir", name)
        cut = (TOY if options.quick else "--max_steps 20 --epochs 50").split()
        stages: tuple[DataStage, ...] = ("pretrain", "sft", "dpo")
        for stage in stages:
            rows = data / f"{stage}_chinese.jsonl"
            where = ["--data_path", str(rows), "--out_dir", str(out), "--device", options.device]
            started = time.monotonic()
            run(stage, *cut, *where)
            lines = (out / f"{stage}_log.jsonl").read_text("utf-8").splitlines()
            seconds = round(time.monotonic() - started, 1)
            found[stage] = json.loads(lines[-1]) | {"steps": len(lines), "seconds": seconds}
        scores = ["--preset", "smoke", "--stage", "dpo", "--device", options.device]
        run("evaluate", *scores, "--data_dir", str(data), "--out_dir", str(out), "--tf_dir", name)
        results = (Path(name) / "eval_results.jsonl").read_text("utf-8").splitlines()
        found["evaluate"] = {"val_loss": json.loads(results[-1])["val_loss"]}
    return found


def python_path() -> str:
    """This checkout before all else."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


# --- All of them ----------------------------------------------------------------------------------


class Wrong(Exception):
    """A step that measured something, and found it wrong."""

    def __init__(self, message: str, values: dict[str, Any]) -> None:
        super().__init__(message)
        self.values = values


STEPS: dict[str, Callable[[Options], dict[str, Any]]] = {
    "equality": equality,
    "kernels": kernels,
    "memory": memory,
    "speed": step_speed,
    "commands": commands,
    "compiled": compiled_speed,  # the last: it may take the longest
}


def run_step(options: Options) -> None:
    """``--step``: the result of one, also of one that fails, as JSON."""
    result: dict[str, Any]
    try:
        result = {"ok": True, "values": STEPS[options.step](options)}
    except Wrong as error:
        result = {"ok": False, "error": str(error), "values": error.values}
    except Exception as error:  # whatever it is, the file is to say it
        result = {"ok": False, "error": f"{type(error).__name__}: {error}"[:2000]}
    write_atomically(options.out, json.dumps(result).encode())


def in_a_process(name: str, options: Options, seconds: float) -> dict[str, Any]:
    """A step's result, whatever becomes of it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        arguments = ["--step", name, "--device", options.device, "--out", str(out)]
        command = [sys.executable, __file__, *arguments, *(["--quick"] if options.quick else [])]
        environment = {**os.environ, "PYTHONPATH": python_path()}
        started = time.monotonic()
        try:
            # A session of its own, so that the commands that it runs end with it.
            with subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ) as running:
                try:
                    said = running.communicate(timeout=max(seconds, 0.1))[0].decode(
                        errors="replace"
                    )
                except subprocess.TimeoutExpired:
                    os.killpg(running.pid, 9)
                    raise
            if out.exists():
                result: dict[str, Any] = json.loads(out.read_text("utf-8"))
            else:
                result = {"ok": False, "error": f"ended with {running.returncode}: {said[-2000:]}"}
        except subprocess.TimeoutExpired:
            result = {
                "ok": False,
                "error": f"not done when the time was over, after {seconds:.0f} s",
            }
        return {"ok": result["ok"], "seconds": round(time.monotonic() - started, 1), **result}


def machine(options: Options) -> dict[str, Any]:
    """What was measured, and when."""
    about: dict[str, Any] = {
        "device": options.device,
        "quick": options.quick,
        "gpu": None,
        "driver": None,
        "host": host(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "git": git_revision(),
    }
    if options.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        about |= {
            "gpu": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory": properties.total_memory,
            "driver": driver(),
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }
    return about


def driver() -> str | None:
    """The driver's version, where the system tells it."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.check_output(query, encoding="utf-8", timeout=20).split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        pass
    try:
        text = Path("/proc/driver/nvidia/version").read_text("utf-8")
    except OSError:
        return None
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", text)
    return found[0] if found else None


def check(options: Options) -> bool:
    """Runs all steps and writes the file; returns whether every step did well."""
    deadline = time.monotonic() + options.seconds
    report: dict[str, Any] = {"ok": False, "machine": machine(options), "steps": {}}
    print(json.dumps(report["machine"]), flush=True)
    for name in STEPS:
        result = in_a_process(name, options, deadline - time.monotonic())
        report["steps"][name] = result
        report["ok"] = all(step["ok"] for step in report["steps"].values())
        shown = result.get("values") if result["ok"] else result["error"]
        verdict = "ok" if result["ok"] else "FAILED"
        print(f"{name}: {verdict}, {result['seconds']} s: {shown}", flush=True)
        # After each step, so that a machine that is taken away leaves what it has measured.
        unfinished = {"ok": report["ok"] and len(report["steps"]) == len(STEPS)}
        text = json.dumps(report | unfinished, ensure_ascii=False, indent=1)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(options.out, text.encode() + b"\n")
    failed = [name for name, step in report["steps"].items() if not step["ok"]]
    print(f"{'failed: ' + ', '.join(failed) if failed else 'all is well'}; see {options.out}")
    return not failed


def main(options: Options) -> None:
    if options.step:
        run_step(options)
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("PyTorch finds no CUDA GPU here, so there is nothing to check")
    sys.exit(not check(options))


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
