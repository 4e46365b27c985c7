"""The commands that the README takes its numbers from run, and print tables.

Peers that are installed, kills at random and files of many megabytes are left to the commands
themselves; ``crash.py`` has its test among those of the trainer.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from minillm.errors import UserError

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
CELL = re.compile(r"-?\d[\d,]*(\.\d+)?")


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def load(name: str) -> ModuleType:
    sys.modules.pop(name, None)
    return importlib.import_module(name)


def rows(output: str) -> list[list[str]]:
    """The cells of all tables but their heads."""
    lines = [line for line in output.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    heads = [i for i, row in enumerate(cells) if set(row) == {"---"}]
    return [row for i, row in enumerate(cells) if i not in heads and i + 1 not in heads]


@pytest.mark.usefixtures("benchmarks", "small_lab")
def test_speed(capsys: pytest.CaptureFixture[str]) -> None:
    speed = load("speed")
    speed.main(speed.Options("tiny", "cpu", batch_size=2, length=30, steps=1, new_tokens=8))
    output = capsys.readouterr().out
    table = rows(output)
    assert [row[0] for row in table] == ["MiniLLM", "MiniLLM, four documents a row", "transformers"]
    assert all(CELL.match(cell) for row in table for cell in row[1:5])
    assert re.search(r"the whole training loop: [\d,]+ positions/s, \d+% of the raw step", output)
    assert re.search(r"MiniLLM [\d,]+ tokens/s, transformers [\d,]+: \d+\.\d\d times", output)
    assert re.search(r"the preset's optimizers: [\d,]+ ms a step, \d+% of .* 256 tokens", output)


@pytest.mark.usefixtures("benchmarks")
def test_speed_beside_another_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    speed = load("speed")
    monkeypatch.setattr(speed, "PRESETS", ("tiny",))
    monkeypatch.setattr(speed, "THREADS", [1])
    options = speed.Options(busy=True, rounds=1, seconds=0.01, others=float("inf"))
    speed.main(options)
    table = rows(capsys.readouterr().out)
    assert [row[:2] for row in table] == [["tiny", "1"]]
    assert all(re.fullmatch(r"[\d,]+ \(\d+%\)", cell) for row in table for cell in row[2:])


@pytest.mark.usefixtures("benchmarks")
def test_threads_of_the_processes_wait_differently() -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    asked = f"; import os; print(*map(os.environ.get, {names}), 'torch' in sys.modules)"
    seen = []
    speed = load("speed")
    for first, environment in speed.WAITING.values():
        before = "import sys; sys.modules['speed'] = sys; " + first.replace("speed", "minillm")
        with speed.process(before + asked, **environment) as process:
            seen.append(process.stdout.read().strip())
    assert seen == ["None 3000 True", "PASSIVE None False", "None 3000 False"]


@pytest.mark.usefixtures("benchmarks")
def test_speed_of_writing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    speed = load("speed")
    monkeypatch.setattr(speed, "THREADS", [1])
    speed.main(speed.Options(writing=True, rounds=1, new_tokens=4, others=float("inf")))
    table = rows(capsys.readouterr().out)
    assert [row[:2] for row in table] == [["tiny", "1"], ["default", "1"]]
    assert all(re.fullmatch(r"[\d,]+ \(\d+\.\d\d\)", cell) for row in table for cell in row[2:])


@pytest.mark.usefixtures("benchmarks")
def test_what_others_disturbed_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = load("setting")
    used = iter([0.0, 0.5, 1.0, 1.01])  # of other processes: half a second, then nearly nothing
    monkeypatch.setattr(setting, "_cpu_seconds", lambda pids: next(used))
    monkeypatch.setattr(setting.time, "sleep", lambda seconds: None)
    results = iter(["disturbed", "in peace"])
    assert setting.in_peace(lambda: next(results), [], others=0.05) == "in peace"


@pytest.mark.usefixtures("benchmarks", "small_lab")
@pytest.mark.parametrize(
    ("stage", "seeds", "expected"),
    [
        ("pretrain", (1, 2), r"\d\.\d{3} \(\d\.\d{3}-\d\.\d{3}\)"),
        ("dpo", (1,), r"\d\.\d{3}, accuracy \d\.\d\d, polite \d\.\d\d"),
    ],
)
def test_sweep(
    stage: str, seeds: tuple[int, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = load("sweep")
    sweep.main(
        sweep.Options(
            stage=stage,
            steps=2,
            optimizers=("adamw",),
            learning_rates=(1e-3, 1e30),
            seeds=seeds,
            batch_size=2,
        )
    )
    first, second = rows(capsys.readouterr().out)[-2:]
    assert re.fullmatch(expected, first[1])
    assert "not finite" in second[1]


@pytest.mark.usefixtures("benchmarks", "small_lab")
def test_memory(capsys: pytest.CaptureFixture[str]) -> None:
    memory = load("memory")
    memory.main(memory.Options(megabytes=(1,)))
    ((size, *cells),) = rows(capsys.readouterr().out)
    assert size == "1"
    assert [bool(CELL.fullmatch(cell)) for cell in cells] == [True, True, True]
    # A process that has imported PyTorch holds some 100 MB.
    assert all(float(cell.replace(",", "")) > 50 for cell in cells[1:])


@pytest.mark.usefixtures("benchmarks")
def test_a_process_that_is_measured_may_write_much() -> None:
    # It stood still once 64 KB of its progress bar had not been read; then the alarm ends it.
    memory = load("memory")
    memory.most_memory("import signal, sys; signal.alarm(20); sys.stderr.write('x' * 200_000)")
    with pytest.raises(UserError, match="ValueError: a reason"):
        memory.most_memory("raise ValueError('a reason')")


@pytest.mark.usefixtures("benchmarks", "small_lab")
def test_sweep_names_what_is_missing(tmp_path: Path) -> None:
    sweep = load("sweep")
    with pytest.raises(UserError, match="--init_from: name weights of the pretrain stage"):
        sweep.main(sweep.Options(preset="default", stage="sft"))
    with pytest.raises(UserError, match=r"rows_val\.jsonl: no such file, to validate on"):
        sweep.main(sweep.Options(data=tmp_path / "rows.jsonl"))


@pytest.mark.usefixtures("benchmarks", "small_lab")
def test_time_to_loss(capsys: pytest.CaptureFixture[str]) -> None:
    time_to_loss = load("time_to_loss")
    time_to_loss.main(time_to_loss.Options(steps=1, validation_rows=8))
    table = rows(capsys.readouterr().out)
    assert [row[0] for row in table] == [recipe.name for recipe in time_to_loss.RECIPES]
    # The first recipe is by definition at the loss that it ends at.
    assert re.fullmatch(r"\d+, [\d,]+", table[0][1])
    assert all(re.fullmatch(r"\d+, \d\.\d{3}", row[-1]) for row in table)


def report(value: float) -> dict[str, dict[str, float]]:
    """Scores of one run, all of them alike."""
    seeds = load("seeds")
    return {stage: dict.fromkeys(seeds.ROWS, value) for stage in ("pretrain", "sft", "dpo", "grpo")}


@pytest.mark.usefixtures("benchmarks")
def test_seeds_summary() -> None:
    found = load("seeds").summary([report(value) for value in (0.5, 0.25, 1.0)])
    assert found["sft"]["polite"] == {
        "mean": 0.5833,
        "std": 0.3819,  # of a sample: statistics.stdev
        "min": 0.25,
        "max": 1.0,
        "values": [0.5, 0.25, 1.0],
    }
    assert set(found) == {"pretrain", "sft", "dpo", "grpo"}
    assert load("seeds").summary([report(0.5)])["sft"]["polite"]["std"] is None


@pytest.mark.usefixtures("benchmarks")
def test_seeds_table() -> None:
    seeds = load("seeds")
    scores = seeds.summary([report(0.5), report(1.0)])
    text = "before\n<!-- seeds -->\nold\n<!-- /seeds -->\nafter\n"
    written = seeds.with_table(text, 1, "留出测试", scores)
    assert written.startswith(
        "before\n<!-- seeds -->\n\n| 留出测试 | pretrain | SFT | DPO | GRPO |\n"
    )
    assert written.endswith("|\n\n<!-- /seeds -->\nafter\n")
    assert [row[0] for row in rows(written)] == [names[1] for names in seeds.ROWS.values()]
    assert {cell for row in rows(written) for cell in row[1:]} == {"0.75 (0.50–1.00)"}
    assert seeds.with_table(written, 1, "留出测试", scores) == written


@pytest.mark.usefixtures("benchmarks")
@pytest.mark.parametrize(
    ("capability", "arithmetics"), [("AVX512", ["default", "AVX512"]), ("DEFAULT", ["default"])]
)
def test_seeds(
    capability: str,
    arithmetics: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seeds = load("seeds")
    asked = []

    def train(seed: int, arithmetic: str) -> dict[str, dict[str, float]]:
        asked.append((seed, arithmetic))
        return report(seed / 100)

    monkeypatch.setattr(seeds, "train", train)
    monkeypatch.setattr(seeds.lab, "tokenizer", lambda: None)
    monkeypatch.setattr(seeds.torch.backends.cpu, "get_cpu_capability", lambda: capability)
    out = tmp_path / "results" / "seeds.json"
    seeds.main(seeds.Options(seeds=(42, 7), out=out, processes=1))
    runs = [(seed, arithmetic) for seed in (42, 7) for arithmetic in arithmetics]
    assert asked == runs
    content = json.loads(out.read_bytes())
    assert content["runs"] == [{"seed": s, "arithmetic": a} for s, a in runs]
    values = content["scores"]["dpo"]["identity"]["values"]
    assert values == [seed / 100 for seed, _ in runs]
    written = capsys.readouterr()
    assert f"{len(runs)} runs: {out}" in written.out
    asked.clear()
    seeds.main(seeds.Options(seeds=(42, 7), out=out, processes=1, plain=False))
    assert asked == [(42, capability), (7, capability)]
    assert written.err.count("only its plain kernels here") == (capability == "DEFAULT")


@pytest.mark.usefixtures("benchmarks")
def test_seeds_in_the_order_of_the_stored_runs() -> None:
    seeds = load("seeds")
    stored = json.loads(seeds.lab.RESULTS.read_bytes())["runs"]
    used = tuple(dict.fromkeys(run["seed"] for run in stored))
    assert used == seeds.Options().seeds[: len(used)]


@pytest.mark.usefixtures("benchmarks")
def test_seeds_names_the_run_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = load("seeds")
    monkeypatch.setattr(seeds, "REPORT", "import sys; sys.exit('error: disk full')")
    with pytest.raises(
        UserError, match=r"^training with seed 7 \(AVX512\) failed: error: disk full"
    ):
        seeds.train(7, "AVX512")
