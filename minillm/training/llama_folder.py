"""A folder in Hugging Face's format with anybody's Llama model, read.

``config.json``                   the model's shape
``model.safetensors``             its weights, or
``model.safetensors.index.json``  which of several such files holds which tensor

What ``Transformer`` does not compute is refused, never passed over. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open

from minillm.config import ModelConfig
from minillm.errors import UserError
from minillm.files import file_sha256
from minillm.model.transformer import Transformer

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

IMPLEMENTED: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0.0,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
}
"""Fields of ``config.json`` that may have one value only, if they are there."""


class Rope(msgspec.Struct):
    """Rotary embeddings, as ``rope_parameters`` (transformers 5) or ``rope_scaling`` (before)."""

    rope_type: str | None = None
    type: str | None = None
    """An older name of ``rope_type``."""
    rope_theta: float | None = None
    partial_rotary_factor: float | None = None


class LlamaShape(msgspec.Struct):
    """The fields of ``config.json`` that decide what is computed; defaults are Hugging Face's."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: int = 2048
    rope_theta: float | None = None
    rope_parameters: Rope | None = None
    rope_scaling: Rope | None = None
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False


def read_config(folder: Path) -> ModelConfig:
    """The shape that ``config.json`` describes.

    Raises:
        UserError: there is none, it is no Llama model's, or it asks for what is not implemented;
            names the field.
    """
    path = folder / CONFIG_FILE
    fields = _read_json(path, "a file of weights, or a folder with one, is wanted")
    if "model_type" not in fields:
        raise UserError(f"{path}: no model_type: not the configuration of a model")
    for name, only in IMPLEMENTED.items():
        if (found := fields.get(name)) is not None:
            _check(path, name, found, only)
    try:
        shape = msgspec.convert(fields, LlamaShape)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: not the configuration of a Llama model: {error}") from None
    theta = _rope_theta(path, shape)
    heads, width = shape.num_attention_heads, None
    key_value_heads = heads if shape.num_key_value_heads is None else shape.num_key_value_heads
    if shape.head_dim is not None and shape.head_dim * heads != shape.hidden_size:
        width = shape.head_dim * heads
        if shape.head_dim < 2 or shape.head_dim % 2:
            raise UserError(f"{path}: head_dim must be even (rotary embeddings turn pairs)")
    try:
        return ModelConfig(
            vocab_size=shape.vocab_size,
            hidden_size=shape.hidden_size,
            intermediate_size=shape.intermediate_size,
            num_hidden_layers=shape.num_hidden_layers,
            num_attention_heads=heads,
            num_key_value_heads=key_value_heads,
            attention_hidden_size=width,
            max_position_embeddings=shape.max_position_embeddings,
            rope_theta=theta,
            rms_norm_eps=shape.rms_norm_eps,
            tie_word_embeddings=shape.tie_word_embeddings,
        )
    except UserError as error:
        raise UserError(f"{path}: {str(error).replace('--', '')}") from None


def _rope_theta(path: Path, shape: LlamaShape) -> float:
    """The base of the wavelengths, wherever the version of transformers has put it."""
    theta = shape.rope_theta
    for name in ("rope_scaling", "rope_parameters"):
        rope: Rope | None = getattr(shape, name)
        if rope is None:
            continue
        _check(path, f"{name}.rope_type", rope.rope_type or rope.type or "default", "default")
        _check(path, f"{name}.partial_rotary_factor", rope.partial_rotary_factor or 1.0, 1.0)
        theta = theta if rope.rope_theta is None else rope.rope_theta
    return 10_000.0 if theta is None else theta


def _check(path: Path, name: str, found: Any, only: Any) -> None:
    if found != only:
        raise UserError(
            f"{path}: {name} is {_json(found):.60}, but minillm computes only {_json(only)}"
        )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _read_json(path: Path, wanted: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        raise UserError(f"{path.parent}: no {path.name} in this folder; {wanted}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: damaged: {error}; copy its folder anew") from None


# --- Weights --------------------------------------------------------------------------------------


def read_weights(folder: Path, config: ModelConfig) -> Transformer:
    """The model of this shape with the folder's weights, as float32, on the CPU.

    Raises:
        UserError: a file is missing or damaged; a tensor is missing, of another shape or dtype, or
            none that the model has, such as a bias.
    """
    model = Transformer(config)
    parameters = dict(model.named_parameters())  # a shared embedding once
    places = {
        name: path
        for name, path in tensor_places(folder).items()
        # Old files hold the wavelengths of the rotary embedding, which follow from the config.
        if not name.endswith("rotary_emb.inv_freq")
    }
    shared = "lm_head.weight" if config.tie_word_embeddings else ""
    for name in sorted(places.keys() - parameters.keys() - {shared}):
        raise UserError(
            f"{places[name]}: tensor {name} is none of a Llama model's without biases, which is "
            "what minillm computes"
        )
    for name in sorted(parameters.keys() - places.keys()):
        raise UserError(f"{folder}: no tensor {name} in its weights; copy the folder anew")
    names_in: defaultdict[Path, list[str]] = defaultdict(list)
    for name, path in places.items():
        names_in[path].append(name)
    output = None
    for path, names in names_in.items():
        with _opened(path) as file, torch.no_grad():
            for name in names:
                tensor = file.get_tensor(name)
                if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
                    raise UserError(
                        f"{path}: tensor {name} is of {tensor.dtype}: quantized weights are not "
                        "implemented"
                    )
                if name == shared:
                    output = tensor.float()
                    continue
                if tensor.shape != parameters[name].shape:
                    raise UserError(
                        f"{path}: tensor {name} has the shape {list(tensor.shape)}, but "
                        f"{CONFIG_FILE} says {list(parameters[name].shape)}"
                    )
                parameters[name].copy_(tensor)
    if output is not None and not torch.equal(output, model.lm_head.weight):
        raise UserError(
            f"{places[shared]}: {shared} is not the embedding table, but {CONFIG_FILE} says "
            "tie_word_embeddings; set it to false there"
        )
    return model


def tensor_places(folder: Path) -> dict[str, Path]:
    """Each tensor's file.

    Raises:
        UserError: there are no weights, or one of several files is missing; names it.
    """
    path = folder / WEIGHTS_FILE
    if path.is_file():
        with _opened(path) as file:
            return dict.fromkeys(file.keys(), path)
    index = folder / INDEX_FILE
    if not index.exists():
        pickled = next(iter(sorted(folder.glob("pytorch_model*.bin*"))), None)
        raise UserError(
            f"{pickled}: pickled weights, which could run any code and are never read; save the "
            f"model as safetensors (`save_pretrained` of transformers)"
            if pickled
            else f"{folder}: no {WEIGHTS_FILE} in this folder, nor {INDEX_FILE}"
        )
    places = _read_json(index, "").get("weight_map")
    try:
        files = msgspec.convert(places, dict[str, str])
    except msgspec.ValidationError as error:
        raise UserError(f"{index}: weight_map: {error}") from None
    for file in sorted(set(files.values())):
        if Path(file).name != file:
            raise UserError(f"{index}: weight_map names {file}, which is not in this folder")
        if not (folder / file).is_file():
            raise UserError(
                f"{folder / file}: missing, but {INDEX_FILE} says that it holds weights; copy the "
                "folder anew"
            )
    return {name: folder / file for name, file in files.items()}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: not a complete safetensors file ({error}); copy its folder anew"
        ) from None


def folder_sha256(folder: Path) -> str:
    """Hash of all the files that the weights are in."""
    files = sorted(set(tensor_places(folder).values()))
    return hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()
