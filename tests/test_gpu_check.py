"""The check of a GPU runs without one, at toy sizes, and whatever fails in it is in its file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gpu_check
import pytest
import torch
from conftest import REPO
from torch import Tensor


def script(*arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "scripts/gpu_check.sh", *arguments],
        cwd=REPO,
        env={"PATH": "/usr/bin:/bin", "PYTHON": python, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
    )


def test_every_step_runs_at_toy_sizes(tmp_path: Path) -> None:
    out = tmp_path / "results" / "gpu.json"
    arguments = ["--device", "cpu", "--quick", "--seconds", "3000", "--out", str(out)]
    done = script(*arguments)
    report = json.loads(out.read_text("utf-8"))
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert report["ok"]
    assert report["machine"]["torch"] == torch.__version__
    assert {"gpu", "driver", "date", "git"} <= report["machine"].keys()
    steps = {name: step["values"] for name, step in report["steps"].items()}
    assert list(steps) == list(gpu_check.STEPS)
    same = steps["equality"]["pretrain, scores in parts, float32"]
    assert same == {"loss": 0.0, "gradient": 0.0}
    assert (
        "aten::scaled_dot_product_attention" in steps["kernels"]["float32, documents"]["operations"]
    )
    assert steps["memory"]["as in training"] == {"peak": None, "between steps": None}  # of CUDA
    for name in ("speed", "compiled"):
        assert 0 < steps[name]["share"] == steps[name]["flops"] / steps[name]["matmul_flops"]
        assert steps[name]["tokens_per_second"] > 0
    assert [steps["commands"][stage]["steps"] for stage in ("pretrain", "sft", "dpo")] == [2, 2, 2]
    assert steps["commands"]["evaluate"]["val_loss"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_without_a_gpu_one_line_says_so(tmp_path: Path) -> None:
    done = script("--out", str(tmp_path / "gpu.json"))
    assert done.returncode == 2
    assert done.stderr == "error: PyTorch finds no CUDA GPU here, so there is nothing to check\n"
    assert not (tmp_path / "gpu.json").exists()


def test_missing_packages_are_named(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho torch tyro\n")
    bare.chmod(0o755)
    done = script(python=str(bare))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {bare} lacks torch tyro: install them by its pip")


def test_what_differs_from_the_cpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    right = gpu_check.loss_and_gradient

    def wrong_in_parts(*arguments: Any) -> tuple[Tensor, Tensor]:
        loss, gradient = right(*arguments)
        return loss, gradient * (1.0 if arguments[-1] == 2**62 else 1.001)

    monkeypatch.setattr(gpu_check, "loss_and_gradient", wrong_in_parts)
    with pytest.raises(gpu_check.Wrong, match="unlike the CPU: pretrain, scores in parts, float32"):
        gpu_check.equality(gpu_check.Options("cpu", quick=True))


def test_the_kernel_that_stores_scores_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.backends.cuda.enable_flash_sdp(False)  # on the CPU too
    try:
        with pytest.raises(gpu_check.Wrong, match="stored all its scores: float32, documents"):
            gpu_check.kernels(gpu_check.Options("cpu", quick=True))
    finally:
        torch.backends.cuda.enable_flash_sdp(True)


def test_a_batch_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def only_two_rows(options: gpu_check.Options, rows: int, compiled: bool) -> dict[str, Any]:
        tried.append(rows)
        if rows > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"rows": rows}

    monkeypatch.setattr(gpu_check, "speed_of", only_two_rows)
    assert gpu_check.step_speed(gpu_check.Options("cpu")) == {"rows": 2}
    assert tried == [128, 64, 32, 16, 8, 4, 2]


def test_a_step_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = gpu_check.Options("cpu", quick=True)
    late = gpu_check.in_a_process("kernels", options, 0.1)
    assert late["error"] == "not done when the time was over, after 0 s"
    monkeypatch.setattr(sys, "executable", "/bin/false")
    dead = gpu_check.in_a_process("kernels", options, 60)
    assert dead["error"].startswith("ended with 1")
    assert not late["ok"]
    assert not dead["ok"]

    def out_of_memory(options: gpu_check.Options) -> dict[str, Any]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def wrong(options: gpu_check.Options) -> dict[str, Any]:
        raise gpu_check.Wrong("too much", {"found": 3})

    for step, expected in (
        (out_of_memory, {"ok": False, "error": "OutOfMemoryError: CUDA out of memory"}),
        (wrong, {"ok": False, "error": "too much", "values": {"found": 3}}),
    ):
        monkeypatch.setitem(gpu_check.STEPS, "memory", step)
        out = tmp_path / "step.json"
        gpu_check.run_step(gpu_check.Options("cpu", out=out, step="memory"))
        assert json.loads(out.read_text("utf-8")) == expected


def test_the_file_is_written_after_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, so_far = tmp_path / "gpu.json", []

    def step(name: str, options: gpu_check.Options, seconds: float) -> dict[str, Any]:
        so_far.append(list(json.loads(out.read_text("utf-8"))["steps"]) if out.exists() else [])
        ok = name != "memory"
        return {"ok": ok, "seconds": 1.0, **({"values": {}} if ok else {"error": "no memory"})}

    monkeypatch.setattr(gpu_check, "in_a_process", step)
    with pytest.raises(SystemExit) as ended:
        gpu_check.main(gpu_check.Options("cpu", out=out))
    assert ended.value.code == 1
    names = list(gpu_check.STEPS)
    assert so_far == [names[:i] for i in range(len(names))]
    report = json.loads(out.read_text("utf-8"))
    assert list(report["steps"]) == names
    assert not report["ok"]
    text = capsys.readouterr().out
    assert "memory: FAILED, 1.0 s: no memory\n" in text
    assert text.endswith(f"failed: memory; see {out}\n")
