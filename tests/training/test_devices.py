"""Set-up of a process; its signals are tested with the trainer, which uses them."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import small
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from minillm.errors import UserError
from minillm.training import loop
from minillm.training.devices import (
    Process,
    StopRequest,
    choose_device,
    set_up_process,
    warning_of_attention,
)

FAULTS = """
import resource
import torch
from minillm.training.devices import set_up_process

def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = min(faults() for _ in range(9))
set_up_process("cpu", "auto")
print(usual, min(faults() for _ in range(9)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_that_was_freed_is_used_again() -> None:
    result = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    usual, kept = map(int, result.stdout.split())
    if usual < 1000:
        pytest.skip("here 40 MB do not mean 10,000 fresh pages")
    assert kept < usual / 10


class Machine:
    """What PyTorch finds here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch

    def has(self, cuda: bool = False, mps: bool = False, bfloat16: bool = True) -> None:
        self.patch.setattr(torch.cuda, "is_available", lambda: cuda)
        self.patch.setattr(torch.backends.mps, "is_available", lambda: mps)

        def is_bf16_supported(including_emulation: bool = True) -> bool:
            return bfloat16 or including_emulation

        self.patch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return Machine(monkeypatch)


@pytest.mark.parametrize(
    ("found", "processes", "device", "dtype"),
    [
        ({"cuda": True, "mps": True}, 1, "cuda:0", torch.bfloat16),
        ({"cuda": True, "bfloat16": False}, 1, "cuda:0", torch.float32),
        ({"mps": True}, 1, "mps", torch.float32),
        ({"mps": True}, 2, "cpu", torch.float32),
        ({}, 1, "cpu", torch.float32),
    ],
)
def test_auto_takes_the_best_that_there_is(
    machine: Machine, found: dict[str, bool], processes: int, device: str, dtype: torch.dtype
) -> None:
    machine.has(**found)
    machine.patch.setenv("WORLD_SIZE", str(processes))
    machine.patch.delenv("LOCAL_RANK", raising=False)
    assert choose_device("auto") == (torch.device(device), dtype)
    assert choose_device("cpu", "bfloat16") == (torch.device("cpu"), torch.bfloat16)


def test_each_process_has_a_gpu_of_its_own(machine: Machine) -> None:
    machine.has(cuda=True)
    machine.patch.setenv("LOCAL_RANK", "3")
    assert choose_device("auto")[0] == torch.device("cuda", 3)


@pytest.mark.parametrize(
    ("found", "device", "dtype", "message"),
    [
        ({"mps": True}, "cuda", "auto", r"--device cuda: PyTorch finds no CUDA .*--device cpu"),
        ({}, "mps", "auto", r"--device mps: PyTorch finds no GPU of a Mac here; use --device cpu"),
        ({"cuda": True, "bfloat16": False}, "auto", "bfloat16", r"not for this GPU; .* float32"),
        ({"mps": True}, "mps", "bfloat16", r"--dtype bfloat16 is not for this GPU"),
    ],
)
def test_devices_and_dtypes_that_are_not_there(
    machine: Machine, found: dict[str, bool], device: str, dtype: str, message: str
) -> None:
    machine.has(**found)
    with pytest.raises(UserError, match=message):
        set_up_process(device, dtype)


def test_a_macs_gpu_is_for_one_process(machine: Machine) -> None:
    machine.has(mps=True)
    machine.patch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="--device mps: a Mac's GPU is for one process"):
        set_up_process("mps", "auto")


def test_a_macs_gpu_gets_no_float64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(0, 1, torch.device("mps"), torch.float32)
    assert loop.data_workers(process) == 0
    here = replace(process, device=torch.device("cpu"))
    trainer = loop.Trainer(
        small.train_config(tmp_path, "pretrain"), "pretrain", here, StopRequest()
    )
    sums = trainer.accumulate([trainer.rows.batch(range(2))])
    asked: list[tuple[str, torch.dtype]] = []
    as_tensor = torch.as_tensor

    def stays_here(value: object, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        asked.append((device.type, dtype))
        return as_tensor(value, dtype=dtype)

    monkeypatch.setattr(torch, "as_tensor", stays_here)
    trainer.process = process
    totals, _ = trainer.update(sums)
    assert set(asked) == {("mps", torch.float32)}
    assert totals.tolist() == [float(value) for value in sums.values()]


@pytest.mark.parametrize("which", ["efficient", "cudnn", None])
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_attention_that_stores_its_scores_is_said(
    device: str, which: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []

    def answer(kernel: str):  # type: ignore[no-untyped-def]
        def can_use(asked: torch.backends.cuda.SDPAParams) -> bool:
            shapes.append((tuple(asked.key.shape), asked.key.dtype, asked.attn_mask.dtype))
            return kernel == which

        return can_use

    for kernel in ("efficient", "cudnn"):
        monkeypatch.setattr(torch.backends.cuda, f"can_use_{kernel}_attention", answer(kernel))
    with FakeTensorMode():
        process = Process(0, 1, torch.device(device), torch.bfloat16)
        said = warning_of_attention(replace(small.CONFIG, hidden_size=48), process)
    if device == "cuda":
        assert set(shapes) == {((1, 4, 16, 12), torch.bfloat16, torch.bool)}
    if device == "cuda" and which is None:
        assert "heads of 12 numbers in torch.bfloat16" in said
    else:
        assert said is None


def test_the_trainer_says_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "warning_of_attention", lambda *_: "warning: heads of 12 numbers")
    loop.train(small.train_config(tmp_path, "pretrain", max_steps=2), "pretrain")
    assert capsys.readouterr().out.count("pretrain: warning: heads of 12 numbers\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB, max allowed: 9.1 GB)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_out_of_memory_of_every_device(error: RuntimeError) -> None:
    assert loop.out_of_memory(error)
    assert not loop.out_of_memory(RuntimeError("Expected all tensors to be on the same device"))
