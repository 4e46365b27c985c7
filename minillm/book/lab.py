"""The book's workbench: what its chapters train, trained once and then taken from a cache.

A chapter can be run first, last or alone: it asks for the stages that it builds on, and whatever
has not been trained on this machine is trained then. The ladder is the ``tiny`` preset on the
built-in data, in the layout of ``bash scripts/run.sh --preset tiny``: pretrain, SFT, DPO; and on
top of it GRPO. Beside it stand variants: short runs with one thing changed, to see what that thing
is good for.

A folder of the cache is named by a hash of everything that decides its content: the code, the
settings and the data. So a changed default or a changed line of the trainer never shows old
results, and nothing has to be cleaned up before a run; a changed comment trains nothing anew.

``$MINILLM_SEED`` trains and runs the whole book with other random numbers, on the same data.

``python -m minillm.book.lab`` trains the whole ladder and the reader's persona on top of it.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import torch
from filelock import FileLock

import minillm
from minillm import evaluate
from minillm import persona as personas
from minillm.config import (
    GRPO_PRESETS,
    PREVIOUS_STAGE,
    STAGES,
    TRAINING,
    GRPOConfig,
    Stage,
    TrainConfig,
)
from minillm.data import mix
from minillm.errors import UserError
from minillm.evaluate import EvaluateOptions, Evaluator
from minillm.files import file_sha256, write_atomically
from minillm.microworld import scoring
from minillm.microworld.identity import Persona
from minillm.model.transformer import Transformer
from minillm.tokenizer import learn
from minillm.tokenizer.vocabulary import RustBPETokenizer
from minillm.training import grpo, loop
from minillm.training.checkpoint import Metadata, load_checkpoint, save_checkpoint, weights_path
from minillm.training.reinforcement import Reward, correct


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise UserError(f"MINILLM_SEED={text}: a seed is a whole number, such as 7")
    return int(text)


ROOT = Path(minillm.__file__).resolve().parent.parent
"""The project."""
SAMPLE = ROOT / "dataset" / "identity_cn_sample.jsonl"
"""Conversations about the persona; a reader may put their own there."""
SEED = _seed(os.environ.get("MINILLM_SEED") or "42")
"""Of everything random in the book: fresh weights, the order of rows, samples. The data stay."""
_ARITHMETIC = os.environ.get("ATEN_CPU_CAPABILITY", "")
"""PyTorch's own switch: other kernels round differently, and training shows it."""
RESULTS = ROOT / "book" / "results" / "seeds.json"
"""What other seeds and other arithmetic lead to: ``benchmarks/seeds.py`` writes it."""
_PERSONA = Persona()
READER = Persona("小满", "这位读者")
"""The persona that chapter 10 gives the model. All its characters occur in the built-in data: a
character that pretraining never saw comes out garbled."""
FLOORS = {
    "fact": 0.85,
    "phrasing": 0.70,
    "reading": 0.55,
    "multi_turn": 0.85,
    "chain": 0.80,
    "shop": 0.80,
}
"""By kind of question: the accuracy that the ladder reaches after SFT and after DPO, on every
machine. Other CPUs round differently, which changes the outcome much as another seed would: each of
these is below the worst of the runs in book/results/seeds.json."""
SNAPSHOTS = (25, 50, 100, 200, 400, 800)
"""Steps after which a run keeps its weights, for looking at what was learned when."""
GRPO_SNAPSHOTS = (10, 20, 30)
"""The same for GRPO, which needs few steps."""


def cache_dir() -> Path:
    """``$MINILLM_CACHE``, else ``.cache`` in the project's folder."""
    return Path(os.environ.get("MINILLM_CACHE") or ROOT / ".cache")


def _file(module: str) -> Path:
    """Where a module stands, named from the package's folder on: ``training.loop``."""
    return Path(minillm.__file__).parent / f"{module.replace('.', '/')}.py"


def tree(module: str) -> ast.Module:
    """The syntax of a module of the package."""
    return ast.parse(_file(module).read_bytes())


@cache
def _code(module: str) -> str:
    """What a module of the package does: its code without comments and docstrings."""
    syntax = tree(module)
    for node in ast.walk(syntax):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            kept = [line for line in node.body if not _is_text(line)]
            node.body = kept or [ast.Pass()]
    return ast.dump(syntax)


def _is_text(line: ast.stmt) -> bool:
    return (
        isinstance(line, ast.Expr)
        and isinstance(line.value, ast.Constant)
        and isinstance(line.value.value, str)
    )


def imported(module: str) -> set[str]:
    """The package's modules that one of them runs on, itself included."""
    found: set[str] = set()
    waiting = {module}
    while waiting:
        found.add(name := waiting.pop())
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("minillm"):
                waiting |= set(_modules_of(node))
        waiting -= found
    return found


def _modules_of(node: ast.ImportFrom) -> list[str]:
    """``from minillm.model.generate import reply`` names a module before ``import``, ``from
    minillm.model import generate`` behind it."""
    place = str(node.module).removeprefix("minillm").removeprefix(".")
    names = [".".join(filter(None, [place, alias.name])) for alias in node.names]
    return [place] if _file(place).is_file() else [name for name in names if _file(name).is_file()]


@cache
def _key(module: str, *parts: object) -> str:
    """A name for what this module computes from these settings."""
    code = [_code(name) for name in sorted(imported(module))]
    return hashlib.sha256(repr((code, parts)).encode()).hexdigest()[:12]


# Progress bars are for people: where a chapter is run to compare or to store its outputs, whether
# something had to be trained first must not show.
QUIET = "PYTEST_VERSION" in os.environ or os.environ.get("MINILLM_QUIET") == "1"


@contextmanager
def _messages_to(path: Path) -> Iterator[None]:
    """Keeps what training prints in a file; its progress bars remain."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file, redirect_stdout(file):
        bars = redirect_stderr(file) if QUIET else nullcontext()
        with bars:
            yield


_from_the_cache = False


@contextmanager
def from_the_cache() -> Iterator[None]:
    """Inside it nothing is made or trained: what the cache lacks is a UserError."""
    global _from_the_cache
    _from_the_cache = True
    try:
        yield
    finally:
        _from_the_cache = False


def _about_to_make() -> None:
    if _from_the_cache:
        raise UserError(
            f"the models of the book are not in {cache_dir()}: run `python -m minillm.book.lab`, "
            "which trains them"
        )


def _lock(what: str) -> FileLock:
    """Of chapters that want the same at the same time, one makes it; the others wait for it."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    return FileLock(cache_dir() / f".lock-{what}", is_singleton=True)


@dataclass(frozen=True)
class Run:
    """One finished training run."""

    name: str
    stage: Stage
    folder: Path
    vocab_size: int | None = None

    @property
    def weights(self) -> Path:
        return weights_path(self.folder, self.stage)

    @property
    def log(self) -> list[dict[str, float]]:
        """One entry for each step: step, loss, learning_rate, grad_norm, tokens, and what else the
        stage measures; ``val_…`` where it was validated."""
        lines = (self.folder / f"{self.stage}_log.jsonl").read_bytes().splitlines()
        return [msgspec.json.decode(line) for line in lines]

    @property
    def steps(self) -> list[int]:
        """Steps whose weights were kept, the last one included."""
        found = (self.folder / "snapshots").glob(f"{self.stage}-*.safetensors")
        return sorted({int(p.stem.rpartition("-")[2]) for p in found} | {len(self.log)})

    @property
    def window(self) -> int:
        """Tokens that a chat with the finished model looks back on."""
        return load_checkpoint(self.weights)[1].window

    def model(self, step: int | None = None) -> Transformer:
        """The model at the end, or after one of ``steps``; ready for inference, on the CPU."""
        path = self.weights
        if step is not None and step != len(self.log):
            path = _snapshot_path(self.folder, self.stage, step)
        return load_checkpoint(path)[0].eval()

    def evaluator(self, step: int | None = None) -> Evaluator:
        """Asks the model, and scores its answers."""
        return Evaluator(self.model(step), tokenizer(self.vocab_size))

    def scores(self, items: int = 60, persona: Persona = _PERSONA) -> dict[str, Any]:
        """All scores of ``minillm evaluate``, computed once."""
        key = _key("evaluate", _ARITHMETIC, items, persona)
        path = self.folder / f"{self.stage}-scores-{key}.json"
        with _lock(self.folder.name):
            if not path.exists():
                options = EvaluateOptions(
                    stage=self.stage,
                    out_dir=self.folder,
                    data_dir=data(),
                    tokenizer_path=tokenizer_path(self.vocab_size),
                    items=items,
                    max_seq_len=training(self.stage).max_seq_len,
                    persona_name=persona.name,
                    persona_author=persona.author,
                    device="cpu",
                )
                write_atomically(path, msgspec.json.encode(evaluate.evaluate(options)))
        result: dict[str, Any] = msgspec.json.decode(path.read_bytes())
        return result


def _snapshot_path(folder: Path, stage: Stage, step: int) -> Path:
    return folder / "snapshots" / f"{stage}-{step:06}.safetensors"


@cache
def data() -> Path:
    """The tiny preset's data mix: a folder with pretrain, sft and dpo_chinese{,_val}.jsonl."""
    if not SAMPLE.exists():
        raise UserError(f"{SAMPLE} is missing: run the chapters in the project's folder")
    key = _key("data.mix", repr(mix.MIX_PRESETS["tiny"]), file_sha256(SAMPLE))
    folder = cache_dir() / f"data-{key}"
    with _lock("data"):
        if not (folder / "mix_report.json").exists():
            _about_to_make()
            raw = folder / "chinese"
            raw.mkdir(parents=True, exist_ok=True)
            shutil.copy(SAMPLE, raw / "identity_conversations.jsonl")
            with _messages_to(folder / "messages.txt"):
                mix.build(replace(mix.MIX_PRESETS["tiny"], data_dir=raw, out_dir=folder))
    return folder


def _data_files() -> tuple[Path, ...]:
    return tuple(data() / f"{stage}_chinese.jsonl" for stage in STAGES)


@cache
def tokenizer_path(vocab_size: int | None = None) -> Path:
    """The folder of ``tokenizer(vocab_size)``."""
    options = learn.TOKENIZER_PRESETS["tiny"]
    options = replace(options, vocab_size=vocab_size or options.vocab_size)
    key = _key("tokenizer.learn", repr(options), *map(file_sha256, _data_files()))
    folder = cache_dir() / f"tokenizer-{key}"
    with _lock("data"):
        if not (folder / "tokenizer_meta.json").exists():
            _about_to_make()
            with _messages_to(cache_dir() / f"tokenizer-{key}.txt"):
                learn.run_tokenizer(replace(options, data_path=_data_files(), out_dir=folder))
    return folder


@cache
def tokenizer(vocab_size: int | None = None) -> RustBPETokenizer:
    """The tiny preset's tokenizer, learned from ``data()``: 1,024 tokens, or another number."""
    return RustBPETokenizer.load(tokenizer_path(vocab_size))


def training(stage: Stage) -> TrainConfig:
    """How the tiny preset trains a stage, with the book's seed."""
    # Logs go elsewhere in every shell; the result does not depend on it.
    config = GRPO_PRESETS["tiny"] if stage == "grpo" else TRAINING["tiny"][stage]
    return replace(config, tf_dir=Path(), seed=SEED)


def fresh() -> Transformer:
    """The tiny model before its first step: the random weights that pretraining starts from."""
    torch.manual_seed(SEED)
    return Transformer(training("pretrain").model).eval()


@cache
def _ladder_dir() -> Path:
    files = [*_data_files(), tokenizer_path() / "tokenizer_meta.json"]
    configs = [repr(training(stage)) for stage in STAGES]
    return (
        cache_dir()
        / f"tiny-{_key('training.loop', _ARITHMETIC, *configs, *map(file_sha256, files))}"
    )


def ladder(stage: Stage) -> Run:
    """A stage of the tiny preset, with all stages before it: the models of the whole book. GRPO has
    a folder of its own, since more code decides its result than that of the others."""
    if stage == "grpo":
        return variant("grpo", "grpo")
    previous = PREVIOUS_STAGE[stage]
    if previous and not weights_path(_ladder_dir(), stage).exists():
        ladder(previous)
    return _train(Run(stage, stage, _ladder_dir()), data() / f"{stage}_chinese.jsonl", None, {})


def variant(
    name: str,
    stage: Stage,
    start: Run | None = None,
    data_path: Path | None = None,
    vocab_size: int | None = None,
    reward: Reward = correct,
    **changes: Any,
) -> Run:
    """The tiny preset's ``stage`` with something changed.

    Args:
        name: letters and hyphens, for the folder and for the reader.
        start: whose weights to start from; None: fresh ones for pretraining, else the ladder's.
        data_path: rows to train on; None: the ladder's. For GRPO questions; None: the world's.
        vocab_size: of ``tokenizer(vocab_size)``, for a model that starts from fresh weights; None:
            the ladder's tokenizer.
        reward: of GRPO. Its source decides what is taken from the cache, not that of what it calls
            outside the package.
        changes: fields of TrainConfig or GRPOConfig with new values.
    """
    previous = PREVIOUS_STAGE[stage]
    if start is None and previous:
        start = ladder(previous)
    module = "training.grpo" if stage == "grpo" else "training.loop"
    if data_path is None and stage != "grpo":
        data_path = data() / f"{stage}_chinese.jsonl"
    origin = (_ladder_dir().name, start and start.folder.name, start and start.stage)
    settings = [repr(training(stage)), repr(sorted(changes.items()))]
    if vocab_size:
        model = replace(training(stage).model, vocab_size=vocab_size)
        changes = {"model": model, "tokenizer_path": tokenizer_path(vocab_size), **changes}
        settings.append(file_sha256(tokenizer_path(vocab_size) / "tokenizer_meta.json"))
    if reward is not correct:
        settings.append(inspect.getsource(reward))
    key = _key(module, _ARITHMETIC, origin, data_path and file_sha256(data_path), *settings)
    folder = cache_dir() / f"{name}-{key}"
    return _train(Run(name, stage, folder, vocab_size), data_path, start, changes, reward)


def identity(persona: Persona = READER, replay_own: int = 0) -> Run:
    """The DPO model with another persona: SFT once more, on 200 conversations about it, four times
    over, among the polite answers that DPO preferred, which keep its skills and manners.

    ``minillm persona`` does the same with ``replay_own`` 1,500, answers that the model gave before.
    """
    start, length = ladder("dpo"), training("sft").max_seq_len
    replayed = personas.chosen_answers(data(), 1500)
    if replay_own:
        replayed += personas.own_answers(start.model(), tokenizer(), data(), replay_own, length)
    content = personas.training_rows(personas.about(persona), replayed, 800)
    path = cache_dir() / "identity" / f"{hashlib.sha256(content).hexdigest()[:12]}.jsonl"
    write_atomically(path, content)
    return variant("identity", "sft", start, path, learning_rate=2e-3)


def _train(
    run: Run,
    data_path: Path | None,
    start: Run | None,
    changes: dict[str, Any],
    reward: Reward = correct,
) -> Run:
    how = "from the cache"
    with _lock(f"{run.folder.name}-{run.stage}"):
        if not run.weights.exists():
            _about_to_make()
            changes = {"data_path": data_path, "tokenizer_path": tokenizer_path(), **changes}
            config = replace(
                training(run.stage),
                out_dir=run.folder,
                tf_dir=run.folder / "tensorboard",
                init_from=start.weights if start else None,
                device="cpu",
                **changes,
            )

            def keep(step: int, model: Transformer) -> None:
                if step in (GRPO_SNAPSHOTS if run.stage == "grpo" else SNAPSHOTS):
                    made = tokenizer(run.vocab_size).fingerprint
                    about = Metadata(run.stage, step, model.config, made, "", {})
                    save_checkpoint(_snapshot_path(run.folder, run.stage, step), model, about)

            started = time.monotonic()
            with _messages_to(run.folder / "messages.txt"):
                if run.stage == "grpo":
                    assert isinstance(config, GRPOConfig)
                    grpo.train_grpo(config, keep, reward)
                else:
                    loop.train(config, run.stage, keep)
            how = f"trained now, {time.monotonic() - started:.0f} s"
    print(f"{run.name}: {len(run.log):,} steps ({how})", flush=True)
    return run


def showcase(model: Transformer) -> list[str]:
    """The model's answers to the book's three questions."""
    return Evaluator(model, tokenizer()).ask(scoring.SHOWCASE)


def ask(model: Transformer, question: str) -> str:
    """The model's answer to one question."""
    return Evaluator(model, tokenizer()).ask([question])[0]


def start() -> None:
    """First line of a chapter: seeds PyTorch, and says what the figures were computed with."""
    torch.manual_seed(SEED)
    torch.set_printoptions(precision=4, sci_mode=False)  # type: ignore[no-untyped-call]
    print(f"Python {platform.python_version()}, torch {torch.__version__}")
    print(f"minillm {minillm.__version__}, seed {SEED}")


def report() -> dict[str, dict[str, float]]:
    """Every score of the book's models, after each stage: stage → name in the tables → score.

    ``identity`` is the reader's persona on top of DPO, and so is ``grpo``.
    """
    results: dict[str, dict[str, Any]] = {stage: ladder(stage).scores() for stage in STAGES}
    results["identity"] = identity().scores(persona=READER)
    results["grpo"] = ladder("grpo").scores()
    return {stage: evaluate.flatten(result) for stage, result in results.items()}


def seeds() -> dict[str, dict[str, dict[str, Any]]]:
    """What ``report`` says under other seeds and other arithmetic: stage → score → its mean, std,
    min and max over all runs, and the values of each."""
    found: dict[str, dict[str, dict[str, Any]]]
    found = msgspec.json.decode(RESULTS.read_bytes())["scores"]
    return found


def _main() -> None:
    report()
    print(f"the models of the book are in {cache_dir()}", file=sys.stderr)


if __name__ == "__main__":
    _main()
