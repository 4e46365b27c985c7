"""How threads wait: OpenMP reads it while PyTorch is loaded, so the package must come before."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
BRIEFLY = "None 3000 1"
WATCH = f"""
import os, sys

class Watch:
    # Where the program first asks for PyTorch, it notes the setting and ends.
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "torch" and not sys.argv[0].endswith("torchrun"):
            with open(os.environ["SEEN"], "a") as file:
                print(*map(os.environ.get, {SETTINGS}), file=file)
            os._exit(0)

sys.meta_path.insert(0, Watch)
"""
BIN = Path(sysconfig.get_path("scripts"))
BENCHMARKS = ("crash", "memory", "seeds", "speed", "sweep", "time_to_loss")
"""Those that need PyTorch."""


def scripts(pattern: str) -> list[list[str]]:
    return [[str(path)] for path in sorted(REPO.glob(pattern))]


def settings(command: list[str], folder: Path, **environment: str) -> list[str]:
    """What SETTINGS are when each process of a command asks for PyTorch."""
    (folder / "sitecustomize.py").write_text(WATCH, encoding="utf-8")
    seen = folder / "seen"
    outer = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**outer, "PYTHONPATH": f"{folder}:{REPO}", "SEEN": str(seen), **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert seen.exists(), done.stderr
    return seen.read_text("utf-8").splitlines()


@pytest.mark.parametrize(
    "command",
    [
        [str(BIN / "minillm"), "chat"],
        ["-c", "from minillm import load; load('out')"],
        ["-m", "minillm.book.lab"],
        ["-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(REPO), str(REPO / "tests")],
        *scripts("trainer/*.py"),
        *scripts("scripts/e*.py"),
        *([str(REPO / "benchmarks" / f"{name}.py")] for name in BENCHMARKS),
        *scripts("book/*.py"),
    ],
    ids=lambda command: " ".join(Path(part).name for part in command),
)
def test_threads_spin_briefly_and_sleep(command: list[str], tmp_path: Path) -> None:
    assert settings(command, tmp_path) == [BRIEFLY]


def test_the_processes_of_torchrun_do_too(tmp_path: Path) -> None:
    torchrun = [str(BIN / "torchrun"), "--standalone", "--nproc_per_node", "2"]
    command = [*torchrun, str(REPO / "trainer" / "train_pretrain.py")]
    assert settings(command, tmp_path) == [BRIEFLY, BRIEFLY]


@pytest.mark.parametrize(
    ("name", "value", "seen"),
    [
        ("OMP_WAIT_POLICY", "ACTIVE", "ACTIVE None None"),
        ("GOMP_SPINCOUNT", "7", "None 7 1"),
        ("KMP_BLOCKTIME", "7", "None 3000 7"),
    ],
)
def test_a_setting_of_the_user_stays(name: str, value: str, seen: str, tmp_path: Path) -> None:
    assert settings(["-m", "minillm.book.lab"], tmp_path, **{name: value}) == [seen]
