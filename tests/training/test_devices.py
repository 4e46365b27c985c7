"""Set-up of a process; its signals are tested with the trainer, which uses them."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

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
