"""The book's workbench: what its chapters train, trained once and then taken from a cache.

A chapter can be run first, last or alone: it asks for the stages that it builds on, and whatever
has not been trained on this machine is trained then. The ladder is the ``tiny`` preset on the
built-in data, in the layout of ``bash scripts/run.sh --preset tiny``: pretrain, SFT, DPO. Beside it
stand variants: short runs with one thing changed, to see what that thing is good for.

A folder of the cache is named by a hash of everything that decides its content: the code, the
settings and the data. So a changed default or a changed line of the trainer never shows old
results, and nothing has to be cleaned up before a run.

``python -m minillm.lab`` trains the whole ladder and the reader's persona on top of it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import torch
from filelock import FileLock

import minillm
from minillm import evaluate, mix, tokenizer_training, trainer, world
from minillm.checkpoint import (
    Metadata,
    load_checkpoint,
    save_checkpoint,
    weights_path,
    write_atomically,
)
from minillm.config import PREVIOUS_STAGE, STAGES, TRAINING, Stage, UserError
from minillm.evaluate import EvaluateOptions, Evaluator
from minillm.identity import Persona, conversations, fill
from minillm.model import Transformer
from minillm.tensors import file_sha256
from minillm.tokenizer import RustBPETokenizer

ROOT = Path(minillm.__file__).resolve().parent.parent
"""The project."""
SAMPLE = ROOT / "dataset" / "identity_cn_sample.jsonl"
"""Conversations about the persona; a reader may put their own there."""
_NO_RESULT = {"__init__", "cli", "fetch", "export", "lab", "show", "mix_report"}
"""Modules that decide no result of training."""
_CODE = sorted({p.stem for p in Path(minillm.__file__).parent.glob("*.py")} - _NO_RESULT)
_TRAINING_CODE = [name for name in _CODE if name not in ("decode", "generate", "evaluate")]
_PERSONA = Persona()
READER = Persona("小满", "这位读者")
"""The persona that chapter 9 gives the model. All its characters occur in the built-in data: a
character that pretraining never saw comes out garbled."""
FLOORS = {
    "fact": 0.85,
    "phrasing": 0.80,
    "reading": 0.55,
    "multi_turn": 0.85,
    "chain": 0.80,
    "shop": 0.80,
}
"""By kind of question: the accuracy that the ladder reaches after SFT and after DPO, on every
machine. Other CPUs round differently, which changes the outcome as another seed would: each of
these is below the worst of four seeds."""
SNAPSHOTS = (25, 50, 100, 200, 400, 800)
"""Steps after which a run keeps its weights, for looking at what was learned when."""


def cache_dir() -> Path:
    """``$MINILLM_CACHE``, else ``.cache`` in the project's folder."""
    return Path(os.environ.get("MINILLM_CACHE") or ROOT / ".cache")


def _key(modules: Sequence[str], *parts: object) -> str:
    """A name for the outcome of these modules' code on these settings."""
    digest = hashlib.sha256(repr(parts).encode())
    for name in modules:
        digest.update((Path(minillm.__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()[:12]


# Progress bars are for people: where a chapter is run to compare or to store its outputs, whether
# something had to be trained first must not show.
_QUIET = "PYTEST_VERSION" in os.environ or os.environ.get("MINILLM_QUIET") == "1"


@contextmanager
def _messages_to(path: Path) -> Iterator[None]:
    """Keeps what training prints in a file; its progress bars remain."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file, redirect_stdout(file):
        bars = redirect_stderr(file) if _QUIET else nullcontext()
        with bars:
            yield


def _lock() -> FileLock:
    """Of chapters that run at the same time, one trains; the others wait for its result."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    return FileLock(cache_dir() / ".lock", is_singleton=True)


@dataclass(frozen=True)
class Run:
    """One finished training run."""

    name: str
    stage: Stage
    folder: Path

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

    def model(self, step: int | None = None) -> Transformer:
        """The model at the end, or after one of ``steps``; ready for inference, on the CPU."""
        path = self.weights
        if step is not None and step != len(self.log):
            path = _snapshot_path(self.folder, self.stage, step)
        return load_checkpoint(path)[0].eval()

    def evaluator(self, step: int | None = None) -> Evaluator:
        """Asks the model, and scores its answers."""
        return Evaluator(self.model(step), tokenizer())

    def scores(self, items: int = 60, persona: Persona = _PERSONA) -> dict[str, Any]:
        """All scores of ``minillm evaluate``, computed once."""
        key = _key(_CODE, items, persona)
        path = self.folder / f"{self.stage}-scores-{key}.json"
        with _lock():
            if not path.exists():
                options = EvaluateOptions(
                    stage=self.stage,
                    out_dir=self.folder,
                    data_dir=data(),
                    tokenizer_path=tokenizer_path(),
                    items=items,
                    max_seq_len=TRAINING["tiny"][self.stage].max_seq_len,
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
def _ladder_dir() -> Path:
    settings = (mix.PRESETS["tiny"], tokenizer_training.PRESETS["tiny"], TRAINING["tiny"])
    # Logs go elsewhere in every shell; the result does not depend on it.
    configs = {s: replace(c, tf_dir=Path()) for s, c in settings[2].items()}
    if not SAMPLE.exists():
        raise UserError(f"{SAMPLE} is missing: run the chapters in the project's folder")
    key = _key(_TRAINING_CODE, settings[0], settings[1], configs, file_sha256(SAMPLE))
    return cache_dir() / f"tiny-{key}"


def data() -> Path:
    """The tiny preset's data mix: a folder with pretrain, sft and dpo_chinese{,_val}.jsonl."""
    folder = _ladder_dir() / "data"
    with _lock():
        if not (folder / "mix_report.json").exists():
            raw = _ladder_dir() / "chinese"
            raw.mkdir(parents=True, exist_ok=True)
            shutil.copy(SAMPLE, raw / "identity_conversations.jsonl")
            with _messages_to(_ladder_dir() / "messages.txt"):
                mix.build(replace(mix.PRESETS["tiny"], data_dir=raw, out_dir=folder))
    return folder


def tokenizer_path() -> Path:
    """The folder of ``tokenizer()``."""
    folder = _ladder_dir() / "tokenizer"
    with _lock():
        if not (folder / "tokenizer_meta.json").exists():
            paths = tuple(data() / f"{stage}_chinese.jsonl" for stage in STAGES)
            options = replace(tokenizer_training.PRESETS["tiny"], data_path=paths, out_dir=folder)
            with _messages_to(_ladder_dir() / "messages.txt"):
                tokenizer_training.run_tokenizer(options)
    return folder


@cache
def tokenizer() -> RustBPETokenizer:
    """The tiny preset's tokenizer: 1,024 tokens, learned from ``data()``."""
    return RustBPETokenizer.load(tokenizer_path())


def fresh() -> Transformer:
    """The tiny model before its first step: the random weights that pretraining starts from."""
    config = TRAINING["tiny"]["pretrain"]
    torch.manual_seed(config.seed)
    return Transformer(config.model).eval()


def ladder(stage: Stage) -> Run:
    """A stage of the tiny preset, with all stages before it: the models of the whole book."""
    previous = PREVIOUS_STAGE[stage]
    if previous and not weights_path(_ladder_dir(), stage).exists():
        ladder(previous)
    return _train(Run(stage, stage, _ladder_dir()), data() / f"{stage}_chinese.jsonl", None, {})


def variant(
    name: str, stage: Stage, start: Run | None = None, data_path: Path | None = None, **changes: Any
) -> Run:
    """The tiny preset's ``stage`` with something changed.

    Args:
        name: letters and hyphens, for the folder and for the reader.
        start: whose weights to start from; None: fresh ones for pretraining, else the ladder's.
        data_path: rows to train on; None: the ladder's.
        changes: fields of TrainConfig with new values.
    """
    previous = PREVIOUS_STAGE[stage]
    if start is None and previous:
        start = ladder(previous)
    data_path = data_path or data() / f"{stage}_chinese.jsonl"
    origin = (_ladder_dir().name, start and start.folder.name, start and start.stage)
    base = replace(TRAINING["tiny"][stage], tf_dir=Path())
    key = _key(_TRAINING_CODE, origin, file_sha256(data_path), base, sorted(changes.items()))
    return _train(Run(name, stage, cache_dir() / f"{name}-{key}"), data_path, start, changes)


def identity(persona: Persona = READER) -> Run:
    """The DPO model with another persona: SFT once more, on 200 conversations about it, four times
    over, among the polite answers that DPO preferred, so that nothing else is forgotten."""
    rows = [
        [{**turn, "content": fill(turn["content"], persona)} for turn in turns]
        for turns in conversations(200)
    ] * 4
    with (data() / "dpo_chinese.jsonl").open("rb") as file:
        rows += [msgspec.json.decode(line)["chosen"] for line in file]
    content = b"".join(msgspec.json.encode({"messages": row}) + b"\n" for row in rows)
    path = cache_dir() / "identity" / f"{hashlib.sha256(content).hexdigest()[:12]}.jsonl"
    write_atomically(path, content)
    return variant("identity", "sft", ladder("dpo"), path, max_steps=90, learning_rate=2e-3)


def _train(run: Run, data_path: Path, start: Run | None, changes: dict[str, Any]) -> Run:
    how = "from the cache"
    with _lock():
        if not run.weights.exists():
            config = replace(
                TRAINING["tiny"][run.stage],
                data_path=data_path,
                out_dir=run.folder,
                tf_dir=run.folder / "tensorboard",
                tokenizer_path=tokenizer_path(),
                init_from=start.weights if start else None,
                device="cpu",
                **changes,
            )
            if run.stage == "dpo" and start:  # what `evaluate` takes as the reference model
                run.folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(start.weights, weights_path(run.folder, "sft"))

            def keep(step: int, model: Transformer) -> None:
                if step in SNAPSHOTS:
                    about = Metadata(run.stage, step, model.config, tokenizer().fingerprint, "", {})
                    save_checkpoint(_snapshot_path(run.folder, run.stage, step), model, about)

            started = time.monotonic()
            with _messages_to(run.folder / "messages.txt"):
                trainer.train(config, run.stage, keep)
            how = f"trained now, {time.monotonic() - started:.0f} s"
    print(f"{run.name}: {len(run.log):,} steps ({how})", flush=True)
    return run


def showcase(model: Transformer) -> list[str]:
    """The model's answers to the book's three questions."""
    return Evaluator(model, tokenizer()).ask(world.SHOWCASE)


def ask(model: Transformer, question: str) -> str:
    """The model's answer to one question."""
    return Evaluator(model, tokenizer()).ask([question])[0]


def start(seed: int = 42) -> None:
    """First line of a chapter: seeds PyTorch, and says what the figures were computed with."""
    torch.manual_seed(seed)
    torch.set_printoptions(precision=4, sci_mode=False)  # type: ignore[no-untyped-call]
    print(f"Python {platform.python_version()}, torch {torch.__version__}")
    print(f"minillm {minillm.__version__}, seed {seed}")


def main() -> None:
    for stage in STAGES:
        ladder(stage).scores()
    identity().scores(persona=READER)
    print(f"the models of the book are in {cache_dir()}", file=sys.stderr)


if __name__ == "__main__":
    main()
