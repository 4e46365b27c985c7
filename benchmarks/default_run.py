"""The default model trained on real Chinese by run.sh, beside a forecast made before.

    python benchmarks/default_run.py --forecast    # once the data is mixed: four minutes, two cores
    bash scripts/run.sh                            # hours on a CPU
    python benchmarks/default_run.py --questions FOLDER --snapshots FOLDER

The forecast takes the shape of the law from book/results/scaling.json, the ladder of chapter 15
with the run that tested it, and its level from three small runs on the text that the default model
is about to read. They are kept in .cache/default_run. The other command gathers what the run left
behind and asks its models what run.sh does not. Both write to book/results/default/, which chapter
16 draws.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from setting import CACHE, machine, start

import msgspec
import torch
from scaling import ROW, Run, flops_per_token, rate_of, result, shape
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from minillm.book.laws import INTERVAL, elsewhere, fit_law, ladder_runs, predict
from minillm.config import STAGES, DataStage, ModelConfig, default_tf_dir
from minillm.data.readers import read
from minillm.data.report import MixReport
from minillm.data.rows import Text
from minillm.data.shards import validation_path
from minillm.errors import UserError
from minillm.evaluate import Evaluator
from minillm.files import file_sha256, write_atomically
from minillm.model.generate import Sampling, complete
from minillm.own.questions import ask_questions, question_scores, read_questions
from minillm.own.text import OwnText, measure, text_scores
from minillm.training.checkpoint import load_checkpoint, load_for_inference, weights_path

HOME = Path(__file__).resolve().parents[1] / "book" / "results"
FEW = ((96, 6e12, 6), (64, 6e12, 6), (64, 2e12, 4))
"""Hidden size, FLOPs, rows in a step: among the best of the ladder at their budgets."""
BEGINNINGS = (
    "中华人民共和国的首都是",
    "曹操听了大怒，",
    "《静夜思》李白：床前明月光，",
    "第一条 为了",
    "问：一年有几个月？答：",
)
"""What the pretrained model goes on with: of each kind of text one."""
QUESTIONS = (
    "你好。",
    "你是谁？",
    "中国的首都是哪里？",
    "怎样才能睡得好？",
    "3加5等于几？",
    "写一首关于春天的诗。",
)
"""What is asked after SFT and DPO."""
SETTINGS = (
    *("dtype", "compile", "max_seq_len", "batch_size", "accumulation_steps"),
    *("optimizer", "learning_rate", "seed"),
)
"""Of a stage that are told."""
POINTS = 100
"""Of a curve that are kept."""


@dataclass(frozen=True)
class Options:
    """Forecast the default model's loss, or gather what its training came to."""

    forecast: bool = False
    """Before the training: write down what it should come to."""
    data: Path = Path("data/processed/pretrain_chinese.jsonl")
    """Rows of the pretraining; those of FILE_val beside it are for validation."""
    out_dir: Path = Path("out")
    """Where the run is, or will be, and its tokenizer."""
    tokens: int = 10_027_008
    """Positions that the pretraining is to read."""
    processes: int = 2
    """Small runs at a time, of one thread each."""
    tf_dir: Path = field(default_factory=default_tf_dir)
    """Where the run logged to (environment variable TF_DIR, else ../tf_dir)."""
    snapshots: Path | None = None
    """Folder of checkpoints of the pretraining, as they were copied while it ran."""
    questions: Path | None = None
    """Folder of multiple-choice questions, such as CMMLU's test."""


def small_runs(options: Options) -> list[dict[str, Any]]:
    """Trains those of ``FEW`` that are not there yet."""
    home = CACHE / "default_run" / file_sha256(options.data)[:12]
    waiting = {}
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        for hidden, compute, rows in FEW:
            steps = round(compute / flops_per_token(shape(hidden))[2] / (rows * ROW))
            run = Run("ladder", hidden, rows, steps, rate_of(hidden))
            folder = home / run.name
            if (folder / "result.json").exists():
                continue
            folder.mkdir(parents=True, exist_ok=True)
            tokenizer = options.out_dir.resolve() / "tokenizer"
            if tokenizer.exists() and not (folder / "tokenizer").exists():
                (folder / "tokenizer").symlink_to(tokenizer, target_is_directory=True)
            waiting[pool.submit(result, run, options.data.resolve(), folder)] = folder
        for future, folder in waiting.items():
            write_atomically(folder / "result.json", msgspec.json.encode(future.result()))
    found = [msgspec.json.decode(path.read_bytes()) for path in home.glob("*/result.json")]
    return sorted(found, key=lambda run: (run["flops"], run["hidden"]))


def forecast(options: Options) -> dict[str, Any]:
    """The loss that the default model's pretraining should end at, in nats per token."""
    study = msgspec.json.decode((HOME / "scaling.json").read_bytes())
    runs = [*ladder_runs(study["runs"]), study["outcome"] | {"kind": "ladder"}]
    few = small_runs(options)
    blocks, table, flops = flops_per_token(ModelConfig())
    here = predict(runs, blocks + table, options.tokens)
    loss, low, high = elsewhere(here, fit_law(runs), few)
    return {
        "data_sha256": file_sha256(options.data),
        "few": few,
        "poems": dict(zip(("val_loss", "low", "high"), here, strict=True)),
        "non_embedding": blocks,
        "embedding": table,
        "tokens": options.tokens,
        "flops": flops * options.tokens,
        "interval": INTERVAL,
        "val_loss": loss,
        "low": low,
        "high": high,
    }


# --- What the run came to -------------------------------------------------------------------------


def curve(options: Options, stage: DataStage) -> dict[str, Any]:
    """A stage's log, thinned, and how long its steps took: the median, so that a pause does not
    count."""
    path = options.out_dir / f"{stage}_log.jsonl"
    if not path.exists():
        raise UserError(f"{path}: no such file; `bash scripts/run.sh` makes it")
    log = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    events = EventAccumulator(str(options.tf_dir / stage), size_guidance={"scalars": 0})
    events.Reload()
    clock = [event.wall_time for event in events.Scalars("loss")]
    seconds = median(b - a for a, b in pairwise(clock))
    width = -(-len(log) // POINTS)
    parts = [log[at : at + width] for at in range(0, len(log), width)]
    return {
        "steps": len(log),
        "tokens": log[-1]["tokens"],
        "seconds_a_step": round(seconds, 2),
        "hours": round((clock[-1] - clock[0] + seconds) / 3600, 3),
        "curve": [
            {
                "step": part[-1]["step"],
                "tokens": part[-1]["tokens"],
                "loss": round(sum(line["loss"] for line in part) / len(part), 4),
            }
            for part in parts
        ],
        "validation": [
            {"step": line["step"], "tokens": line["tokens"], "val_loss": line["val_loss"]}
            for line in log
            if "val_loss" in line
        ],
    }


def mixed(options: Options) -> dict[str, Any]:
    """Rows and tokens of each category."""
    content = (options.data.parent / "mix_report.json").read_bytes()
    report = msgspec.json.decode(content, type=MixReport)
    return {
        name: {"rows": one.rows, "repeats": one.repeats, "tokens": one.tokens}
        for name, one in report.categories.items()
        if one.rows
    }


def scores(options: Options) -> dict[str, Any]:
    """What run.sh's evaluations said, by stage: the newest of each."""
    lines = (options.tf_dir / "eval_results.jsonl").read_bytes().splitlines()
    found = {line["stage"]: line for line in map(msgspec.json.decode, lines)}
    kept = ("step", "val_loss", "bits_per_byte", "dpo", "identity_hit_rate", "left_out")
    return {
        stage: {name: line[name] for name in kept if name in line} for stage, line in found.items()
    }


def by_source(options: Options, evaluator: Evaluator) -> dict[str, Any]:
    """Bits per character of the held-out texts, apart for each source."""
    texts: dict[str, list[OwnText]] = defaultdict(list)
    path = validation_path(options.data)
    for record in read(path):
        if isinstance(record.row, Text):
            source = record.raw.get("source", "?")
            texts[source].append(OwnText(path, record.line, record.row.text))
    return {source: text_scores(measure(evaluator, found, ROW)) for source, found in texts.items()}


def continuations(options: Options) -> Iterator[dict[str, Any]]:
    """How the pretrained model goes on with BEGINNINGS, from the first snapshot to the end."""
    model, tokenizer, _ = load_for_inference(options.out_dir, "pretrain", None, "cpu")
    paths = sorted((options.snapshots or Path()).glob("pretrain-*.safetensors"))
    for path in [*(paths if options.snapshots else ()), weights_path(options.out_dir, "pretrain")]:
        model, about = load_checkpoint(path)
        prompts = [[tokenizer.bos_id, *tokenizer.encode(text)] for text in BEGINNINGS]
        sampling, size = Sampling(temperature=0.7, top_p=0.9, seed=0), tokenizer.vocab_size
        written = complete(model.eval(), prompts, 60, [tokenizer.bos_id], sampling, size)
        for prompt, ids in zip(BEGINNINGS, written, strict=True):
            yield {"step": about.step, "prompt": prompt, "text": tokenizer.decode(ids)}


def choices(evaluator: Evaluator, folder: Path) -> dict[str, Any]:
    """Multiple choice over all files of a folder, and apart for each of them."""
    asked = read_questions(sorted(folder.glob("*.csv")))
    verdicts = ask_questions(evaluator, asked)
    found = {"all": question_scores(asked, verdicts)["accuracy"]}
    for file in sorted({one.file for one in asked}):
        mine = [i for i, one in enumerate(asked) if one.file == file]
        part = question_scores([asked[i] for i in mine], [verdicts[i] for i in mine])
        found[file.stem] = part["accuracy"]
    return found


def gathered(options: Options) -> dict[str, Any]:
    """All that chapter 16 draws."""
    stages = [stage for stage in STAGES if weights_path(options.out_dir, stage).exists()]
    found: dict[str, Any] = {
        "machine": machine(),
        "torch": str(torch.__version__),
        "data_sha256": file_sha256(options.data),
        "mix": mixed(options),
        "stages": {stage: curve(options, stage) for stage in stages},
        "scores": scores(options),
        "continuations": list(continuations(options)),
        "replies": {},
        "questions": {},
    }
    for stage in stages:
        model, tokenizer, about = load_for_inference(options.out_dir, stage, None, "cpu")
        evaluator = Evaluator(model, tokenizer)
        found["stages"][stage]["arguments"] = {name: about.train[name] for name in SETTINGS}
        if stage == "pretrain":
            found["by_source"] = by_source(options, evaluator)
        else:
            found["replies"][stage] = dict(zip(QUESTIONS, evaluator.ask(QUESTIONS), strict=True))
        if stage == "sft" and options.questions:
            found["questions"] = choices(evaluator, options.questions)
    return found


def main(options: Options) -> None:
    folder = HOME / "default"
    folder.mkdir(exist_ok=True)
    path = folder / ("forecast.json" if options.forecast else "run.json")
    content = forecast(options) if options.forecast else gathered(options)
    write_atomically(path, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    print(path)


if __name__ == "__main__":
    start(main, Options)
