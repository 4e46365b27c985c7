"""Weights and everything needed to go on from them, one safetensors file each, written whole or
not at all.

The tensors carry Hugging Face's names; the header's metadata holds the rest as JSON: the model's
shape, the stage and step, the tokenizer's fingerprint, the training settings. Nothing is ever
unpickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from minillm.config import ALL_STAGES, PREVIOUS_STAGE, ModelConfig, Stage, TrainConfig
from minillm.errors import UserError
from minillm.files import write_atomically
from minillm.model.transformer import Transformer
from minillm.tokenizer.tokenizer_json import TOKENIZER_JSON
from minillm.tokenizer.vocabulary import RustBPETokenizer, find_tokenizer
from minillm.training.devices import choose_device
from minillm.training.llama_folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    folder_sha256,
    read_config,
    read_weights,
)

KEEP = 2  # training checkpoints: the newest, and the one before should the newest be damaged


@dataclass(frozen=True)
class Metadata:
    """What a file of weights says of itself."""

    stage: Stage
    step: int
    """Optimizer steps taken in this stage."""
    model: ModelConfig
    tokenizer: str
    """The tokenizer's fingerprint."""
    data: str
    """SHA-256 of the file of training rows; of several shards, that of theirs."""
    train: dict[str, Any]
    """Settings of the run."""

    @property
    def window(self) -> int:
        """Tokens of a chat that the model should look back on: beyond the length of nearly all the
        conversations that it was trained on, it never learned to answer."""
        return int(self.train.get("window", self.model.max_position_embeddings // 2))


def weights_path(out_dir: Path, stage: Stage) -> Path:
    """Where a stage's finished weights lie."""
    return out_dir / f"{stage}.safetensors"


def checkpoint_paths(out_dir: Path, stage: Stage) -> list[Path]:
    """A stage's training checkpoints, oldest first."""
    return sorted((out_dir / "checkpoints").glob(f"{stage}-*.safetensors"))


def save_checkpoint(
    path: Path,
    model: Transformer,
    metadata: Metadata,
    optimizers: list[torch.optim.Optimizer] | None = None,
) -> None:
    """Saves fp32 weights and, for a training checkpoint, the optimizers' state."""
    tensors = model.state_dict()
    if model.config.tie_word_embeddings:  # the same tensor as the embedding, stored once
        del tensors["lm_head.weight"]
    scalars: dict[str, Any] = {}
    for i, optimizer in enumerate(optimizers or []):
        for index, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                key = f"optimizer.{i}.{index}.{name}"
                if isinstance(value, Tensor):
                    tensors[key] = value
                else:
                    scalars[key] = value
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    about = msgspec.json.encode({**asdict(metadata), "scalars": scalars}).decode()
    write_atomically(path, save(tensors, _header(about, tensors)))


def _header(about: str, tensors: dict[str, Tensor]) -> dict[str, str]:
    """What a file says beside its tensors. The format is that of the tensors' layout, PyTorch's:
    Hugging Face's transformers 4 reads no file that does not say it."""
    return {"format": "pt", "minillm": about, "sha256": _sha256(about, tensors)}


def _sha256(about: str, tensors: dict[str, Tensor]) -> str:
    """Hash of all that a file says: safetensors itself notices a missing end, but no other byte
    that is not what was written."""
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_training_checkpoint(
    out_dir: Path,
    model: Transformer,
    metadata: Metadata,
    optimizers: list[torch.optim.Optimizer],
) -> Path:
    """Saves ``checkpoints/<stage>-<step>.safetensors`` and deletes all but the newest ones."""
    path = out_dir / "checkpoints" / f"{metadata.stage}-{metadata.step:07d}.safetensors"
    save_checkpoint(path, model, metadata, optimizers)
    # Also what a run left that was killed while it wrote.
    unfinished = path.parent.glob(f"{metadata.stage}-*.safetensors.tmp")
    for old in [*checkpoint_paths(out_dir, metadata.stage)[:-KEEP], *unfinished]:
        old.unlink()
    return path


def _open(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: not a complete safetensors file ({error}); delete it and run its stage again"
        ) from None
    if "minillm" not in header:
        raise UserError(f"{path}: these weights were not written by minillm (no metadata)")
    # Files of earlier versions do not say their format.
    if {"format": "pt", **header} != _header(header["minillm"], tensors):
        raise UserError(
            f"{path}: damaged or changed since it was written (its SHA-256 is another); delete it "
            "and run its stage again"
        )
    return msgspec.json.decode(header["minillm"]), tensors


def load_checkpoint(path: Path) -> tuple[Transformer, Metadata]:
    """The model and what its file says of it, on the CPU.

    Raises:
        UserError: missing, truncated, damaged or foreign file, or tensors of another shape than it
            says.
    """
    header, tensors = _open(path)
    try:
        metadata = _metadata(header)
        model = Transformer(metadata.model)
        weights = {k: v for k, v in tensors.items() if not k.startswith("optimizer.")}
        if metadata.model.tie_word_embeddings:
            weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
        model.load_state_dict(weights)
    except (KeyError, TypeError, RuntimeError, UserError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: tensors do not match the metadata: {reason:.200}") from None
    return model, metadata


def stored_sha256(path: Path) -> str:
    """The hash that a file of weights carries, of its header and tensors."""
    with safe_open(path, framework="pt") as file:
        return str(file.metadata()["sha256"])


def load_optimizers(path: Path, optimizers: list[torch.optim.Optimizer]) -> None:
    """Puts the state in a training checkpoint into freshly made optimizers, exactly."""
    header, tensors = _open(path)
    values = {**header["scalars"], **tensors}
    for i, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Any]] = {}
        for key, value in values.items():
            if key.startswith(f"optimizer.{i}."):
                index, name = key.split(".")[2:]
                state.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _metadata(header: dict[str, Any]) -> Metadata:
    return Metadata(
        **{f.name: header[f.name] for f in fields(Metadata) if f.name != "model"},
        model=ModelConfig(**header["model"]),
    )


def find_weights(out_dir: Path, stage: Stage) -> Path:
    """A stage's finished weights.

    Raises:
        UserError: there are none; says which command makes them.
    """
    path = weights_path(out_dir, stage)
    if not path.is_file():
        script = "train_full_sft" if stage == "sft" else f"train_{stage}"
        raise UserError(
            f"{path}: no {stage} weights; run `python trainer/{script}.py` first, or name others"
        )
    return path


def previous_weights(out_dir: Path, stage: Stage) -> Path | None:
    """The weights that a stage starts from by default; None for pretraining."""
    previous = PREVIOUS_STAGE[stage]
    return find_weights(out_dir, previous) if previous else None


def starting_model(
    config: TrainConfig, stage: Stage, tokenizer: RustBPETokenizer, say: Callable[[str], None]
) -> tuple[Transformer, str, int]:
    """Fresh weights for pretraining, else those of ``--init_from`` or of the previous stage; the
    SHA-256 of their file or files ("" for fresh ones); and the window of chats that they know (0 if
    none).

    Raises:
        UserError: the previous stage has not run, or its model or tokenizer is another than this
            run's.
    """
    if tokenizer.vocab_size > config.model.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model room for --vocab_size "
            f"{config.model.vocab_size}: raise it, or choose another --tokenizer_path"
        )
    path = config.init_from or previous_weights(config.out_dir, stage)
    if path is None:
        return Transformer(config.model), "", 0
    if path.is_dir():
        say(f"starting from {path}, which decides the model's shape")
        return *folder_weights(path, config.model, tokenizer), 0
    model, metadata = load_checkpoint(path)
    check_matches(path, metadata, config.model, tokenizer)
    say(f"starting from {path} ({metadata.stage}, step {metadata.step})")
    return model, stored_sha256(path), 0 if metadata.stage == "pretrain" else metadata.window


# --- Folders in Hugging Face's format -------------------------------------------------------------


def settle(config: TrainConfig) -> tuple[TrainConfig, RustBPETokenizer]:
    """The settings of a run with the shape of its model, and its tokenizer: both those of the
    folder, if ``--init_from`` names one.

    Raises:
        UserError: the folder holds what is not implemented, ``--max_seq_len`` is more than its
            model can read, or the tokenizer cannot be used.
    """
    folder = config.init_from
    if folder is None or not folder.is_dir():
        return config, find_tokenizer(config.tokenizer_path, config.out_dir)
    config = replace(config, model=read_config(folder))
    return config, folder_tokenizer(folder, config.tokenizer_path, config.model)


def folder_tokenizer(folder: Path, named: Path | None, model: ModelConfig) -> RustBPETokenizer:
    """The tokenizer for a folder's model: the one that the user names, else the folder's own.

    Raises:
        UserError: it cannot be used, or has more tokens than the model.
    """
    if named is None and not (folder / TOKENIZER_JSON).exists():
        raise UserError(
            f"{folder}: no {TOKENIZER_JSON} in this folder; name a tokenizer by --tokenizer_path"
        )
    tokenizer = RustBPETokenizer.load(named or folder)
    if tokenizer.vocab_size > model.vocab_size:
        raise UserError(
            f"{folder}: the model has room for {model.vocab_size} tokens (vocab_size), the "
            f"tokenizer {tokenizer.vocab_size}; name another one by --tokenizer_path"
        )
    return tokenizer


def keep_tokenizer(config: TrainConfig, tokenizer: RustBPETokenizer, write: bool) -> None:
    """Puts a folder's tokenizer where the commands that follow look for one: OUT_DIR/tokenizer.

    Args:
        write: whether this process is the one that does it; the others only check.

    Raises:
        UserError: OUT_DIR is already of another tokenizer, which its weights were trained with.
    """
    folder, out_dir = config.init_from, config.out_dir
    if folder is None or not folder.is_dir() or config.tokenizer_path is not None:
        return
    if find_tokenizer(None, out_dir).fingerprint == tokenizer.fingerprint:
        return
    places = [out_dir / "tokenizer", *(weights_path(out_dir, stage) for stage in ALL_STAGES)]
    if there := next((path for path in places if path.exists()), None):
        raise UserError(
            f"{there}: belongs to another tokenizer than that of {folder}: choose another --out_dir"
        )
    if write:
        tokenizer.save(places[0])


def folder_weights(
    folder: Path, config: ModelConfig, tokenizer: RustBPETokenizer
) -> tuple[Transformer, str]:
    """A folder's model, on the CPU, and the SHA-256 of its weights.

    Raises:
        UserError: like ``read_weights``; if minillm wrote them, like ``load_checkpoint`` and
            ``check_matches`` too.
    """
    path = folder / WEIGHTS_FILE
    if not _is_ours(path):
        return read_weights(folder, config), folder_sha256(folder)
    model, metadata = load_checkpoint(path)
    check_matches(path, metadata, config, tokenizer)
    return model, stored_sha256(path)


def _is_ours(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return "minillm" in (file.metadata() or {})
    except (SafetensorError, OSError):  # whoever reads the weights says so
        return False


# --- What weights must match ----------------------------------------------------------------------


def check_matches(
    path: Path, metadata: Metadata, model: ModelConfig, tokenizer: RustBPETokenizer
) -> None:
    """Raises UserError if the weights are of another shape than asked for, or speak another
    vocabulary."""
    for name, wanted in vars(model).items():
        found = getattr(metadata.model, name)
        if found != wanted:
            raise UserError(
                f"{path}: has {name} {found}, this run {wanted}; use the --preset and flags that "
                "it was trained with, or other weights"
            )
    if metadata.tokenizer != tokenizer.fingerprint:
        raise UserError(
            f"{path}: was trained with another tokenizer ({metadata.tokenizer[:8]}, not "
            f"{tokenizer.fingerprint[:8]}); name its folder by --tokenizer_path, or train all "
            "stages again"
        )


class Saved(NamedTuple):
    """A training checkpoint that is whole."""

    path: Path
    model: Transformer
    metadata: Metadata


def newest_checkpoint(
    config: TrainConfig, stage: Stage, tokenizer: RustBPETokenizer, say: Callable[[str], None]
) -> Saved | None:
    """The newest training checkpoint of a stage that is whole; None if there is none.

    Raises:
        UserError: its model or tokenizer is another than this run's.
    """
    for path in reversed(checkpoint_paths(config.out_dir, stage)):
        try:
            model, metadata = load_checkpoint(path)
        except UserError as error:
            say(f"passing over a damaged checkpoint: {error}")
            continue
        check_matches(path, metadata, config.model, tokenizer)
        say(f"going on from {path}")
        return Saved(path, model, metadata)
    say(f"no checkpoint in {config.out_dir / 'checkpoints'}; starting at step 0")
    return None


def check_continues(path: Path, metadata: Metadata, this: Metadata, total_steps: int) -> None:
    """Raises UserError if ``this`` run cannot go on from a checkpoint.

    What decides the order of the rows or questions, the state of the optimizer or the reference
    must be what it was: else step n of the one run would not be step n of the other. All else, such
    as the learning rate or --epochs, may change, but there must be a step left to do.
    """
    remedy = "go on with what it was trained with, or start anew without --resume"
    if metadata.step >= total_steps:
        flags = "--max_steps" if this.stage == "grpo" else "--max_steps or --epochs"
        raise UserError(
            f"{path}: stands at step {metadata.step} already, and this run ends after "
            f"{total_steps}: raise {flags}, or start anew without --resume"
        )
    if metadata.data != this.data:
        raise UserError(f"{path}: --data_path held other rows then; {remedy}")
    reference, previous = metadata.train.get("started_from"), PREVIOUS_STAGE[this.stage]
    compares = this.stage == "dpo" or (this.stage == "grpo" and this.train["kl_weight"] > 0)
    if compares and previous and reference and reference != this.train["started_from"]:
        raise UserError(
            f"{path}: began with other {previous.upper()} weights than those that are there now, "
            f"and {this.stage.upper()} compares with them in every step; {remedy}"
        )
    names = ("optimizer", "max_seq_len", "seed", "rows_per_step", "questions", "group_size")
    for name in names:  # the last two are GRPO's
        before, now = metadata.train.get(name), this.train.get(name)
        if before != now:
            flag = f"--{name} {before}"
            if name == "rows_per_step":
                flag = f"--batch_size x --accumulation_steps x processes = {before}"
            raise UserError(f"{path}: was trained with {flag}, not {now}; {remedy}")


def load_for_inference(
    out_dir: Path, stage: Stage | None, tokenizer_path: Path | None, device: str
) -> tuple[Transformer, RustBPETokenizer, Metadata]:
    """A stage's finished model, by default the latest stage's, with its tokenizer.

    Raises:
        UserError: no weights, or a tokenizer that they were not trained with.
    """
    stages = [stage] if stage else reversed(ALL_STAGES)
    path = next((p for s in stages if (p := weights_path(out_dir, s)).exists()), None)
    path = path or find_weights(out_dir, stage or "pretrain")
    model, metadata = load_checkpoint(path)
    tokenizer = find_tokenizer(tokenizer_path, out_dir)
    check_matches(path, metadata, metadata.model, tokenizer)
    return model.to(choose_device(device)[0]).eval(), tokenizer, metadata


def load(
    out_dir: Path | str = "out",
    stage: Stage | None = None,
    tokenizer_path: Path | str | None = None,
    device: str = "auto",
) -> tuple[Transformer, RustBPETokenizer]:
    """A trained model, ready to answer, and its tokenizer: ``model, tokenizer = load("out/tiny")``.

    Args:
        out_dir: the folder that training wrote to, or one in Hugging Face's format with a Llama
            model of anybody's.
        stage: pretrain, sft, dpo or grpo; None: the latest that there is, or the folder's only one.
        tokenizer_path: a tokenizer's folder; None: ``out_dir/tokenizer`` if it exists, else the one
            that comes with the package. Of a folder in Hugging Face's format: None is its own.
        device: cpu, cuda, mps, or auto: a CUDA GPU where there is one, else a Mac's, else the CPU.

    Raises:
        UserError: no weights, damaged ones, or a tokenizer that they were not trained with; a
            folder that asks for what is not implemented.
    """
    folder, named = Path(out_dir), Path(tokenizer_path) if tokenizer_path else None
    if not (folder / CONFIG_FILE).exists():
        model, tokenizer, _ = load_for_inference(folder, stage, named, device)
        return model, tokenizer
    if stage is not None:
        raise UserError(f"{folder}: a folder of one model: leave out the stage, {stage}")
    config = read_config(folder)
    tokenizer = folder_tokenizer(folder, named, config)
    model, _ = folder_weights(folder, config, tokenizer)
    return model.to(choose_device(device)[0]).eval(), tokenizer
