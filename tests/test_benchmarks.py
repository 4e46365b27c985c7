"""The commands that the README takes its numbers from run, and print tables.

Peers that are installed, kills at random and files of many megabytes are left to the commands
themselves; ``crash.py`` has its test among those of the trainer.
"""

from __future__ import annotations

import importlib
import io
import json
import math
import re
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import msgspec
import pytest
import small
import torch

from minillm.config import STAGES, TrainConfig
from minillm.data.report import CategoryReport, MixReport
from minillm.errors import UserError
from minillm.files import file_sha256
from minillm.microworld.entropy import measured_documents
from minillm.model.transformer import Transformer
from minillm.training.checkpoint import Metadata, load_checkpoint, save_checkpoint
from minillm.training.dataset import load_dataset
from minillm.training.loop import AfterStep, train
from minillm.training.packing import PackedRows

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


POEMS = [
    ("静夜思", "李白", "床前明月光，疑是地上霜。\n举头望明月，低头思故乡。", 5),
    ("登鹳雀楼", "王之涣", "白日依山尽，黄河入海流。\n欲穷千里目，更上一层楼。", 6),
    ("相思", "王维", "红豆生南国，春来发几枝。\n愿君多采撷，此物最相思。", 1),
    ("山中", "王维", "荆溪白石出，天寒红叶稀。\n山路元无雨，空翠湿人衣。", 1),
]


@pytest.fixture(scope="module")
def of_poems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All that benchmarks/poems.py reads, of four poems thirty times over, and models that have
    learned nothing."""
    folder = tmp_path_factory.mktemp("poems")
    rows = []
    for number in range(120):
        title, author, body, copies = POEMS[number % 4]
        row = {"text": f"《{title}》{author}\n{body}", "title": title, "author": author}
        row |= {"paragraphs": body.split("\n"), "copies": copies}
        rows.append(row | {"split": "train" if number < 112 else "held out"})
    paths = {
        "rows": small.write_rows(folder / "text_poetry.jsonl", rows),
        "data_path": small.write_rows(folder / "pretrain_chinese.jsonl", rows[:112]),
        "archive": folder / "poems.tgz",
        "out_dir": folder / "out",
    }
    asked = [{"messages": small.conversation(f"写一首《{t}》", b)} for t, _, b, _ in POEMS]
    small.write_rows(folder / "sft_chinese.jsonl", asked)
    poem = {"id": "1", "paragraphs": ["白日依山尽，"]}
    with tarfile.open(paths["archive"], "w:gz") as archive:
        for place, content in (
            ("quantangshi", poem),
            ("strains/json", {"strains": ["仄仄平平仄，"]}),
        ):
            data = json.dumps([{"id": "1"} | content]).encode()
            member = tarfile.TarInfo(f"package/dist/{place}/poet.tang.0.json")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    small.tokenizer().save(paths["out_dir"] / "tokenizer")
    settings = {"max_seq_len": 128, "rows_per_step": 1, "epochs": 1, "seed": 0}
    config = replace(small.CONFIG, max_position_embeddings=256)
    for name, stage, step in (
        ("step0003", "pretrain", 3),
        ("pretrain", "pretrain", 9),
        ("sft", "sft", 2),
    ):
        digest = file_sha256(paths["data_path"])
        fingerprint = small.tokenizer().fingerprint
        about = Metadata(stage, step, config, fingerprint, digest, settings)
        save_checkpoint(paths["out_dir"] / f"{name}.safetensors", small.model(step, config), about)
    return paths


@pytest.mark.usefixtures("benchmarks", "small_lab")
def test_poems(of_poems: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poems = load("poems")
    for name, value in {"MOST_TOKENS": 8, "TUNING_EVERY": 10, "PREFIX_BYTES": 2_000}.items():
        monkeypatch.setattr(poems, name, value)
    stages = poems.Stages(of_poems["out_dir"])
    tiny = SimpleNamespace(evaluator=lambda: stages.finished)
    monkeypatch.setattr(poems.lab, "ladder", lambda stage: tiny)
    monkeypatch.setattr(poems.lab, "tokenizer", small.tokenizer)
    out = tmp_path / "results" / "poems.json"
    poems.main(poems.Options(**of_poems, out=out, held_out=8, poems=8))
    found = json.loads(out.read_bytes())
    assert found["steps"] == [3, 9]
    assert found["zipf"]["characters"] == 112 * 20
    assert sum(found["zipf"]["cover"].values()) > 5
    assert found["tones"] == {"平": "依山", "仄": "白日尽"}

    bits = {
        name: each["bits_per_character"] for name, each in found["bits"].items() if "-gram" in name
    }
    # Poems that were counted thirty times need next to nothing but the choice of one of four.
    assert bits["1-gram"] > bits["2-gram"] > bits["4-gram"]
    assert bits["4-gram"] < 0.3
    assert found["bits"]["small"]["bits_per_character"] > 8  # has learned nothing
    assert set(found["bits"]["steps"]) == {"3", "9"}

    real, mixed = found["form"]["real"], found["form"]["shuffled"]
    assert real["metre"]["share"] == mixed["metre"]["share"] == 1
    assert real["rhymes"]["share"] == 1 > mixed["rhymes"]["share"]
    assert set(found["form"]) == {
        *("real", "shuffled", "ngram", "step 3", "step 9", "sft", "sft, 0.7")
    }
    assert found["memory"]["copied"]["real"] == {"20": 8}
    assert found["memory"]["seen"] == found["memory"]["train"] == 112  # each stood in some row
    assert found["memory"]["recited"]["famous"]["next"]["share"] == 0
    assert [one["poems"] for one in found["showcase"]["asked"]] == [28, 28, 0, 0, 0, 0]


@pytest.mark.usefixtures("benchmarks")
def test_poems_names_what_is_missing(of_poems: dict[str, Path], tmp_path: Path) -> None:
    poems = load("poems")
    with pytest.raises(UserError, match=r"pretrain\.safetensors: no such file; run: bash scripts"):
        poems.main(poems.Options(**of_poems | {"out_dir": tmp_path}))
    with pytest.raises(UserError, match=r"none\.jsonl: No such file .*; run: minillm download"):
        poems.main(poems.Options(**of_poems | {"rows": tmp_path / "none.jsonl"}))
    with pytest.raises(UserError, match="not the rows of minillm download poetry"):
        poems.main(
            poems.Options(**of_poems | {"rows": of_poems["rows"].with_name("sft_chinese.jsonl")})
        )
    stages = poems.Stages(of_poems["out_dir"])
    with pytest.raises(UserError, match="the weights were not trained on this file"):
        poems.seen_bodies(stages, of_poems["rows"], tmp_path)


@pytest.mark.usefixtures("benchmarks")
def test_poems_are_also_found_in_what_was_a_conversation() -> None:
    poems = load("poems")
    assert (
        poems.body_of({"text": "《夜》\n甲。\n乙。", "paragraphs": ["甲。", "乙。"]})
        == "甲。\n乙。"
    )
    assert poems.body_of({"text": "写一首《夜》\n甲。\n乙。", "source": "poetry"}) == "甲。\n乙。"


@pytest.mark.usefixtures("benchmarks")
def test_poems_keeps_the_weights_of_some_steps(
    of_poems: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poems = load("poems")
    trained = []

    def train(config: TrainConfig, stage: str, after_step: AfterStep | None) -> None:
        trained.append((stage, config.data_path, config.out_dir, config.max_steps))
        for step in (99, 100) if after_step else ():
            after_step(step, small.model())

    monkeypatch.setattr(poems.loop, "train", train)
    poems.train_stages(poems.Options(**of_poems | {"out_dir": tmp_path}))
    data = of_poems["data_path"]
    assert trained == [
        ("pretrain", data, tmp_path, 2000),
        ("sft", data.with_name("sft_chinese.jsonl"), tmp_path, 400),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["step0100.safetensors"]
    assert load_checkpoint(tmp_path / "step0100.safetensors")[1].step == 100


@pytest.mark.usefixtures("benchmarks")
def test_poems_seen_are_those_of_the_rows_that_training_read(
    of_poems: dict[str, Path], tmp_path: Path
) -> None:
    """Against the tokens of the batches themselves."""
    poems = load("poems")
    stages = poems.Stages(of_poems["out_dir"])
    seen = poems.seen_bodies(stages, of_poems["data_path"], tmp_path)
    tokenizer = stages.tokenizer
    data = load_dataset(of_poems["data_path"], "pretrain", tokenizer, 128, tmp_path)
    batch = PackedRows(data, 128, epochs=1, seed=0).batch(range(9))
    text = tokenizer.decode(batch.input_ids.flatten().tolist())
    bodies = {body for *_, body, _ in POEMS}
    assert seen == {body for body in bodies if body[:5] in text}


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
    table = seeds.TABLES[2]
    written = seeds.with_table(text, table, scores)
    assert written.startswith(
        "before\n<!-- seeds -->\n\n| 留出测试 | pretrain | SFT | DPO | GRPO |\n"
    )
    assert written.endswith("|\n\n<!-- /seeds -->\nafter\n")
    assert [row[0] for row in rows(written)] == list(seeds.TELLING.values())
    assert {cell for row in rows(written) for cell in row[1:]} == {"0.75 (0.50–1.00)"}
    assert seeds.with_table(written, table, scores) == written


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


@pytest.mark.usefixtures("benchmarks", "small_lab")
def test_distance_to_the_entropy_of_the_micro_world(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = load("world_entropy")
    options = world.Options(tmp_path / "world.json", sizes=(16, 32), steps=(1, 2), held_out=12)
    world.main(options)
    found = json.loads(options.out.read_bytes())["runs"]
    assert [(run["hidden"], run["steps"]) for run in found] == [(16, 1), (32, 1), (32, 2)]
    held = list(measured_documents(12, world.HELD_OUT))
    kinds = [document.kind for document in held]
    for run in found:
        # A fresh model finds all of the tokenizer's tokens about equally likely.
        vocabulary = run["embedding"] / run["hidden"]
        assert run["val_loss"] == pytest.approx(math.log(vocabulary), rel=0.1)
        shares = [(kinds.count(kind) / 12, bits) for kind, bits in run["by_kind"].items()]
        assert run["bits_per_document"] == pytest.approx(sum(a * b for a, b in shares))
        size = sum(len(document.text.encode()) for document in held) / len(held)
        assert run["bits_per_byte"] == pytest.approx(run["bits_per_document"] / size)
        assert set(run["by_kind"]) == set(kinds)
        assert run["tokens"] == run["steps"] * 1024
        assert list(run["on_the_way"]) == [str(step) for step in (1, 2) if step <= run["steps"]]
        assert run["on_the_way"][str(run["steps"])] == pytest.approx(run["bits_per_document"])
    capsys.readouterr()
    world.main(options)
    assert not capsys.readouterr().out  # all runs are in the file


@pytest.mark.usefixtures("benchmarks", "small_lab")
def test_mixes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixes = load("mixes")
    asked = {question.messages[-1][1] for question in mixes.exam(mixes.LEAKED, 60)}
    for name, mix in mixes.MIXES.items():
        rows = mixes.rows_of(mix, 4000, seed=1)
        assert rows == mixes.rows_of(mix, 4000, seed=1)
        assert len(rows) == 4000
        text = [row["messages"][-2]["content"] for row in rows]
        sums = [said for said in text if re.search(r"\d+[加减+-]\d+", said)]
        assert len(sums) == round(4000 * mix.share), name
        assert len(set(sums)) <= max(1, len(sums) // mix.times)
        assert bool(asked & set(sums)) == mix.leaked, name
    options = mixes.Options(tmp_path / "mixes.json", seeds=(1,), rows=24, items=2)
    mixes.main(options)
    found = json.loads(options.out.read_bytes())["runs"]
    assert [run["mix"] for run in found] == list(mixes.MIXES)
    assert all(0 <= share <= 1 for run in found for share in run["scores"].values())
    capsys.readouterr()
    mixes.main(options)
    said = capsys.readouterr().out
    assert said.endswith(f"{len(found)} runs: {options.out}\n")
    assert "seed" not in said  # all runs are in the file
    mixes.main(replace(options, items=3))  # other exams: nothing of the old ones stays
    again = json.loads(options.out.read_bytes())
    assert again["items"] == 3
    assert [run["mix"] for run in again["runs"]] == list(mixes.MIXES)
    thirds = [share * 3 for run in again["runs"] for share in run["scores"].values()]
    assert thirds == pytest.approx([round(share) for share in thirds], abs=1e-3)


@pytest.mark.usefixtures("benchmarks", "small_lab")
def test_ablations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ablations = load("ablations")
    options = ablations.Options(seeds=(1,), steps=1, longer=2, out=tmp_path / "ablations.json")
    ablations.main(options)
    found = json.loads(options.out.read_bytes())["runs"]
    assert tuple(run["change"] for run in found) == ablations.CHANGES + ablations.LONGER
    assert [run["steps"] for run in found] == [1] * 12 + [2] * 5
    # A model that has hardly learned finds all tokens about equally likely, whatever it lacks.
    vocabulary = ablations.BASE.vocab_size
    assert all(run["val_loss"] == pytest.approx(math.log(vocabulary), rel=0.15) for run in found)
    parameters = {run["change"]: run["parameters"] for run in found}
    same = {"no rope", "relu", "unscaled", "no residual"}
    assert {parameters[change] for change in same} == {parameters["base"]}
    for change in ("1 layer", "4 layers"):
        assert parameters[change] == pytest.approx(parameters["base"], rel=0.002)
    assert parameters["no ffn"] < parameters["no attention"] < parameters["base"]
    assert parameters["base"] < parameters["mha"] < parameters["untied"]
    capsys.readouterr()
    ablations.main(options)
    assert capsys.readouterr().out == f"{len(found)} runs: {options.out}\n"  # all are in the file


@pytest.mark.usefixtures("benchmarks")
def test_each_ablation_takes_out_what_it_says() -> None:
    ablations = load("ablations")
    ids = torch.randint(500, (1, 12), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[0, [2, 4]] = ids[0, [4, 2]]  # two earlier tokens change places

    def last(change: str, row: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        model = Transformer(replace(ablations.BASE, num_hidden_layers=1))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(5 if parameter.ndim > 1 else 1)  # so that attention looks somewhere
            return ablations.changed(model, change)(row)[0, -1]

    assert not torch.allclose(last("base", ids), last("base", other), atol=1e-4)
    assert torch.allclose(last("no rope", ids), last("no rope", other), atol=1e-4)
    assert torch.equal(last("no attention", ids), last("no attention", other))
    for change in ("relu", "no norm", "unscaled", "no residual", "no ffn"):
        assert not torch.allclose(last(change, ids), last("base", ids), atol=1e-4), change


@pytest.fixture
def trained(tmp_path: Path) -> dict[str, Path]:
    """What run.sh leaves behind: data, models of three stages, their logs and scores."""
    for stage in STAGES:
        settings = {"epochs": 9, "max_steps": 6, "eval_every": 3}
        train(small.train_config(tmp_path, stage, **settings), stage)
    data = tmp_path / "data" / "pretrain_chinese.jsonl"
    held_out = [{**row, "source": "诗"} for row in small.rows("pretrain", 6)]
    small.write_rows(data.with_name("pretrain_chinese_val.jsonl"), [*held_out, {"text": "小猫。"}])
    categories = {
        "text": CategoryReport(24, rows=24, tokens=900),
        "math": CategoryReport(0),
    }
    report = MixReport({}, [], categories, {}, 0, [])
    data.with_name("mix_report.json").write_bytes(msgspec.json.encode(report))
    scores = [
        {"stage": stage, "step": 6, "val_loss": loss, "machine": "x"}
        for loss, stage in ((5.0, "pretrain"), (4.0, "pretrain"), (3.0, "sft"))
    ]
    small.write_rows(tmp_path / "tf_dir" / "eval_results.jsonl", scores)
    snapshots = tmp_path / "snapshots"
    snapshots.mkdir()
    model, about = load_checkpoint(tmp_path / "out" / "pretrain.safetensors")
    save_checkpoint(
        snapshots / "pretrain-0003.safetensors",
        model,
        replace(about, step=3),
    )
    return {
        "data": data,
        "out_dir": tmp_path / "out",
        "tf_dir": tmp_path / "tf_dir",
        "snapshots": snapshots,
    }


@pytest.mark.usefixtures("benchmarks")
def test_default_run(
    trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default_run = load("default_run")
    monkeypatch.setattr(default_run, "HOME", tmp_path)
    questions = tmp_path / "questions"
    questions.mkdir()
    head = "Question,A,B,C,D,Answer\n"
    for name in ("arts", "law"):
        lines = "".join(f"{n}加1？,{n},{n + 1},{n + 2},{n + 3},B\n" for n in range(4))
        (questions / f"{name}.csv").write_text(head + lines, encoding="utf-8")
    default_run.main(default_run.Options(**trained, questions=questions))
    found = json.loads((tmp_path / "default" / "run.json").read_bytes())
    assert found["mix"] == {"text": {"rows": 24, "repeats": 0, "tokens": 900}}
    assert {stage: scores["val_loss"] for stage, scores in found["scores"].items()} == {
        "pretrain": 4.0,
        "sft": 3.0,
    }
    for stage in STAGES:
        told = found["stages"][stage]
        log = [json.loads(x) for x in (tmp_path / "out" / f"{stage}_log.jsonl").open()]
        assert told["steps"] == len(log) == len(told["curve"]) == 6
        assert told["curve"][-1]["loss"] == pytest.approx(log[-1]["loss"], abs=1e-4)
        assert [point["step"] for point in told["validation"]] == [3, 6]
        assert told["arguments"]["batch_size"] == 2
    assert {one["step"] for one in found["continuations"]} == {3, 6}
    assert len(found["continuations"]) == 2 * len(default_run.BEGINNINGS)
    assert set(found["replies"]) == {"sft", "dpo"}
    assert list(found["replies"]["sft"]) == list(default_run.QUESTIONS)
    assert {source: one["documents"] for source, one in found["by_source"].items()} == {
        "诗": 6,
        "?": 1,
    }
    assert {name: one["n"] for name, one in found["questions"].items()} == {
        "all": 8,
        "arts": 4,
        "law": 4,
    }


@pytest.mark.usefixtures("benchmarks")
def test_default_run_names_what_is_missing(trained: dict[str, Path]) -> None:
    default_run = load("default_run")
    log = trained["out_dir"] / "sft_log.jsonl"
    log.unlink()
    with pytest.raises(UserError, match=r"sft_log\.jsonl: no such file; `bash scripts/run\.sh`"):
        default_run.main(default_run.Options(**trained))
