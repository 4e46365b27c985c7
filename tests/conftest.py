"""What the tests share: the project, the real data, and copies of the project to run scripts in."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from screenshot import find_browser
from visitor import CHROMIUM_FLAGS

from minillm.book import lab
from minillm.config import GRPO_PRESETS, TRAINING
from minillm.data import mix

REPO = Path(__file__).resolve().parent.parent
settings.register_profile("minillm", deadline=None)  # a busy machine is no fault
settings.load_profile("minillm")
FOLDERS = ("dataset", "minillm", "rustbpe", "scripts", "trainer")
FILES = ("LICENSE", "README.md", "constraints.txt", "pyproject.toml", "requirements.txt")
READ_BY_SCRIPTS = (
    *("PYTHON", "VENV_DIR", "VIRTUAL_ENV", "INSTALLER", "TF_DIR", "ENABLE_RUSTBPE", "CI"),
    *("MIX_ARGS", "PRETRAIN_ARGS", "SFT_ARGS", "DPO_ARGS", "GRPO_ARGS", "PYTHONPATH"),
)
"""Environment variables of whoever runs the tests, which must not leak into the scripts."""

# A shell starts what it puts into the background with Ctrl-C ignored, and children inherit that;
# the tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def repo() -> Path:
    """The project's root."""
    return REPO


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; tests that need it are skipped where there is none."""
    path = Path(os.environ.get("MINILLM_REAL_DATA") or REPO.parent / "shared" / "data")
    if not path.is_dir():
        pytest.skip("no real data here: set MINILLM_REAL_DATA")
    return path


@pytest.fixture(scope="module")
def small_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """The tiny preset with a handful of rows and steps, and a cache of its own."""
    patch = pytest.MonkeyPatch()
    patch.setenv("MINILLM_CACHE", str(tmp_path_factory.mktemp("cache")))
    few = {stage: replace(c, max_steps=3, batch_size=2) for stage, c in TRAINING["tiny"].items()}
    patch.setitem(TRAINING, "tiny", few)
    answers = {"questions": 2, "group_size": 2, "max_new_tokens": 8, "max_steps": 2}
    patch.setitem(GRPO_PRESETS, "tiny", replace(GRPO_PRESETS["tiny"], **answers))
    rows = {"general": 40, "knowledge": 40, "math": 40, "identity": 20, "preference": 30}
    options = replace(mix.MIX_PRESETS["tiny"], built_in_text=200, val_fraction=0.2, **rows)
    patch.setitem(mix.MIX_PRESETS, "tiny", options)
    patch.setattr(lab, "SNAPSHOTS", (1,))
    patch.setattr(lab, "GRPO_SNAPSHOTS", (1,))
    made = (lab.data, lab.tokenizer_path, lab.tokenizer, lab._ladder_dir)
    for function in made:
        function.cache_clear()
    yield patch
    patch.undo()
    for function in made:
        function.cache_clear()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium or Chrome; tests that need it are skipped where there is none."""
    path = find_browser()
    if not path:
        message = "no Chromium or Chrome here: install one, or set CHROMIUM to its path"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@dataclass
class Project:
    """A copy of the project in a folder of its own: nothing is written into the real one."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def tf_dir(self) -> Path:
        return self.root.parent / "tf_dir"

    @property
    def python(self) -> Path:
        return self.root / ".venv" / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.root / ".venv" / "lib" / version / "site-packages"

    def run(
        self, command: str, *, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs one shell command line in the project's root, as a user would type it."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.root,
            env={**self._outer(), **self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"{command}\nended with exit code {done.returncode}:\n{done.stdout}")
        return done

    def activated(self, command: str, **kwargs: str) -> str:
        """Runs a command line with the project's environment activated; returns what it printed."""
        return self.run(f"source .venv/bin/activate && {command}", **kwargs).stdout

    def borrow_environment(self) -> None:
        """Makes an environment with the packages of the tests' own, marked as installed."""
        venv.create(self.root / ".venv", symlinks=True)
        borrowed = f"{self.root}\n{sysconfig.get_path('purelib')}\n"
        (self.site_packages / "borrowed.pth").write_text(borrowed, encoding="utf-8")
        self.activated("source scripts/env.sh && requirements_state > .venv/.deps_installed")

    @staticmethod
    def _outer() -> dict[str, str]:
        outer = {k: v for k, v in os.environ.items() if k not in READ_BY_SCRIPTS}
        # maturin and uv come with the tests' environment, which need not be activated.
        outer["PATH"] += os.pathsep + sysconfig.get_path("scripts")
        return outer


def copy_project(folder: Path) -> Project:
    """The project as FOLDER/project, without an environment."""
    root = folder / "project"
    root.mkdir(parents=True)
    ignore = shutil.ignore_patterns("__pycache__", "target", "*.so")
    for name in FOLDERS:
        shutil.copytree(REPO / name, root / name, ignore=ignore)
    for name in FILES:
        shutil.copy(REPO / name, root / name)
    return Project(root, {"CARGO_TARGET_DIR": str(REPO / "rustbpe" / "target")})


def borrowed_project(folder: Path) -> Project:
    """A fresh copy with a borrowed environment: every command works in it."""
    project = copy_project(folder)
    project.borrow_environment()
    return project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return borrowed_project(tmp_path)


# Stands in for torch, which takes seconds to import, where a script only asks it for a GPU.
FAKE_TORCH = """import os


class cuda:
    is_available = staticmethod(lambda: os.environ.get("FAKE_GPU") == "cuda")


class backends:
    class mps:
        is_available = staticmethod(lambda: os.environ.get("FAKE_GPU") == "mps")
"""
FAKE_EVALUATE = """def score_table(results):
    return "stages: " + " ".join(result["stage"] for result in results)
"""
RECORDER = """import json, os, pathlib, sys

call = [str(pathlib.Path(sys.argv[0])), *sys.argv[1:]]
with open("calls.jsonl", "a", encoding="utf-8") as file:
    print(json.dumps({"call": call, "TF_DIR": os.environ.get("TF_DIR")}), file=file)
if call[-2] == "--stage":
    with open(os.environ["TF_DIR"] + "/eval_results.jsonl", "a", encoding="utf-8") as file:
        print(json.dumps({"stage": call[-1]}), file=file)
if os.environ.get("FAIL_AT") in call:
    sys.exit("error: told to fail")
"""


def record_calls(project: Project) -> None:
    """Replaces the stages by ones that only note how they were called, in calls.jsonl.

    So a script takes a second. The stage whose name or argument equals $FAIL_AT fails.
    """
    for entry in [*project.root.glob("scripts/*.py"), *project.root.glob("trainer/*.py")]:
        entry.write_text(RECORDER, encoding="utf-8")
    (project.site_packages / "torch.py").write_text(FAKE_TORCH, encoding="utf-8")
    # Before the borrowed packages: the closing table needs no more of the package than this.
    (project.root / "minillm" / "evaluate.py").write_text(FAKE_EVALUATE, encoding="utf-8")


@pytest.fixture
def recorder(project: Project) -> Project:
    record_calls(project)
    return project


def calls(project: Project) -> list[list[str]]:
    """How the stages were called: the script's path, then its arguments."""
    path = project.root / "calls.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line)["call"] for line in lines]


def use_stub_requirements(project: Project, name: str = "stub") -> None:
    """Makes requirements.txt list one tiny wheel: it is installed at once, without a network."""
    wheel = project.root / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    (project.root / "requirements.txt").write_text(f"./{wheel.name}\n", encoding="utf-8")
    project.environment["PIP_NO_INDEX"] = "1"
