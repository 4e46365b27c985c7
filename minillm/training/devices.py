"""This process: its device, its place among others, the signals that ask it to stop."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch.backends import cuda

from minillm.config import ModelConfig
from minillm.errors import UserError


@dataclass(frozen=True)
class Process:
    """This process among those that ``torchrun`` started; by itself it is number 0 of 1."""

    rank: int
    world_size: int
    device: torch.device
    dtype: torch.dtype

    @property
    def is_main(self) -> bool:
        """The one that prints and saves."""
        return self.rank == 0


def choose_device(device: str, dtype: str = "auto") -> tuple[torch.device, torch.dtype]:
    """What ``auto`` stands for on this machine; of several GPUs the one of this process.

    Raises:
        UserError: a device or dtype that this machine does not have.
    """
    alone = int(os.environ.get("WORLD_SIZE", 1)) == 1
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        # Several processes speak through gloo or NCCL, which take no tensors of a Mac's GPU.
        device = next(name for name in has if has[name] and (alone or name != "mps"))
    if not has[device]:
        kind = "CUDA GPU" if device == "cuda" else "GPU of a Mac"
        raise UserError(f"--device {device}: PyTorch finds no {kind} here; use --device cpu")
    if device == "mps" and not alone:
        raise UserError("--device mps: a Mac's GPU is for one process; use --device cpu")
    # PyTorch emulates bfloat16 on GPUs without it (before Ampere), slowly, and no fused attention
    # of theirs takes it.
    has_bfloat16 = device == "cpu" or (
        device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    if dtype == "bfloat16" and not has_bfloat16:
        raise UserError("--dtype bfloat16 is not for this GPU; use --dtype float32")
    if dtype == "auto":
        dtype = "bfloat16" if device == "cuda" and has_bfloat16 else "float32"
    number = f":{os.environ.get('LOCAL_RANK', 0)}" if device == "cuda" else ""
    return torch.device(device + number), getattr(torch, dtype)


def set_up_process(device: str, dtype: str) -> Process:
    """Prepares this process for training: joins the others, by NCCL on GPUs and gloo on CPUs, and
    on a CPU keeps the memory that it frees.

    Raises:
        UserError: a device or dtype that this machine does not have.
    """
    here, precision = choose_device(device, dtype)
    world_size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if here.type == "cuda":
        torch.cuda.set_device(here)
    elif here.type == "cpu":
        keep_freed_memory()
    if world_size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if here.type == "cuda" else "gloo")
    return Process(rank, world_size, here, precision)


def warning_of_attention(model: ModelConfig, process: Process) -> str | None:
    """What to say where attention under a document mask would fall back on CUDA to the kernel that
    stores the score of every pair, ``[B, H, T, T]`` in each layer; None: it does not. Both fused
    kernels that take a mask want heads of a certain width, a multiple of 8 numbers in bfloat16,
    and may want other things in another version, so they are asked."""
    if process.device.type != "cuda":
        return None
    like: dict[str, Any] = {"device": process.device, "dtype": process.dtype}
    q = torch.empty(1, model.num_attention_heads, 16, model.head_dim, **like)
    mask = torch.ones(1, 1, 16, 16, device=process.device, dtype=torch.bool)
    asked = cuda.SDPAParams(q, q, q, mask, 0.0, False, True)
    if cuda.can_use_efficient_attention(asked) or cuda.can_use_cudnn_attention(asked):
        return None
    return (
        f"warning: no fused attention of this GPU takes heads of {model.head_dim} numbers in "
        f"{process.dtype}, so the score of every pair of positions is stored; with a multiple of 8 "
        "numbers, training would need less memory and time"
    )


def keep_freed_memory() -> None:
    """Has glibc keep large blocks for the next step instead of giving them back at once: the
    system zeroes each page that it hands out, and a step on a CPU asks for all of its activations
    anew. Elsewhere this does nothing."""
    mallopt = getattr(ctypes.CDLL(None) if os.name == "posix" else None, "mallopt", None)
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX: no block is mapped by itself
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: what is free stays


class StopRequest:
    """Within a ``with`` block, turns SIGTERM into a KeyboardInterrupt, as Ctrl-C is one. Once
    ``deferred`` is set, the first signal is only noted in ``received``, so that a step can be
    finished and saved; a second one does not wait."""

    def __init__(self) -> None:
        self.deferred = self.received = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        # Python allows signal handlers in the main thread only; elsewhere nothing changes.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, background jobs
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received or not self.deferred:
            raise KeyboardInterrupt
        self.received = True
