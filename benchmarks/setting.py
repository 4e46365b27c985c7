"""What the benchmarks share: where they keep things, the machine's name, environments for peers."""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil  # type: ignore[import-untyped]
import tyro

from minillm.errors import UserError

Options = TypeVar("Options")
Result = TypeVar("Result")
CACHE = Path(__file__).resolve().parents[1] / ".cache"


def machine() -> str:
    """Cores, processor, memory and Python of this machine, in one line."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text("utf-8").splitlines() if x.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    memory_gib = psutil.virtual_memory().total >> 30
    return (
        f"{os.cpu_count()} cores of {model}, {memory_gib} GiB, Python {platform.python_version()}"
    )


def peer(requirement: str) -> Path:
    """The Python of an environment that holds only ``requirement``; made when first asked for.

    Raises:
        subprocess.CalledProcessError: the package cannot be installed.
    """
    home = CACHE / "peers" / requirement.replace("==", "-")
    home.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may ask at once: one makes the environment, the others wait for it.
    with home.with_name(home.name + ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        python, done = home / "bin" / "python", home / ".installed"
        if not done.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", requirement], check=True)
            done.touch()
    return python


def _cpu_seconds(pids: list[int]) -> float:
    """What all processes but these have used since the machine started."""
    times = psutil.cpu_times()
    idle = sum(getattr(times, kind, 0) for kind in ("idle", "iowait", "guest", "guest_nice"))
    own = [psutil.Process(pid).cpu_times() for pid in pids]
    return float(sum(times) - idle - sum(t.user + t.system for t in own))


def in_peace(work: Callable[[], Result], pids: list[int], others: float) -> Result:
    """Calls ``work`` again until other processes than these took at most that share of a core.

    Args:
        pids: the processes that work.
        others: 0.05 is a twentieth of a core. What the system's clock cannot tell, 0.02 s, is free.
    """
    while True:
        before, started = _cpu_seconds(pids), time.perf_counter()
        result = work()
        taken = _cpu_seconds(pids) - before
        if taken <= 0.02 + others * (time.perf_counter() - started):
            return result
        print("other processes are at work: once more", file=sys.stderr, flush=True)
        time.sleep(1)


def start(main: Callable[[Options], object], options: type[Options]) -> None:
    """Runs a benchmark with the flags of the command line; an error that its user can mend ends it
    with one line."""
    try:
        main(tyro.cli(options))
    except UserError as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {' '.join(map(str, error.cmd))} failed; is the package index in reach?")
