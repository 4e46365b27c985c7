"""A folder for each stage's finished weights that Hugging Face's `transformers` opens as a Llama.

out/dpo.safetensors                  the weights, as this package reads them
out/dpo/model.safetensors            the same file under a second name (a hard link)
        config.json                  shape of the model
        generation_config.json       how an answer ends; greedy by default, as here
        tokenizer.json, tokenizer_config.json, chat_template.jinja
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path

from minillm.files import atomic_folder
from minillm.model.transformer import Transformer
from minillm.tokenizer.hugging_face import json_file, tokenizer_files
from minillm.tokenizer.vocabulary import RustBPETokenizer
from minillm.training.checkpoint import Metadata, save_checkpoint
from minillm.training.llama_folder import CONFIG_FILE, WEIGHTS_FILE

LONGEST_ANSWER = 256
"""Tokens that ``generate`` writes there unless told otherwise: as many as ``reply``."""


def model_folder(weights: Path) -> Path:
    """Of a stage's weights: ``out/dpo.safetensors`` → ``out/dpo``."""
    return weights.with_suffix("")


def save_stage(
    path: Path, model: Transformer, metadata: Metadata, tokenizer: RustBPETokenizer
) -> None:
    """Saves a stage's finished weights, and the folder beside them that `transformers` opens.

    Whoever opens the folder meanwhile, or after a crash at any moment, finds the old model or the
    new one. Where the new one is of another shape or vocabulary, there are some milliseconds in
    which the folder cannot be opened, since it would be a mixture of both.

    Raises:
        UserError: cannot be written; weights that were saved already stay.
    """
    contents = folder_files(metadata, tokenizer)
    save_checkpoint(path, model, metadata)
    folder = model_folder(path)
    with atomic_folder(folder, last=CONFIG_FILE) as unfinished:
        for name, content in contents.items():
            (unfinished / name).write_bytes(content)
        _link(path, unfinished / WEIGHTS_FILE)
        if not all(_holds(folder / name, content) for name, content in contents.items()):
            (folder / CONFIG_FILE).unlink(missing_ok=True)


def folder_files(metadata: Metadata, tokenizer: RustBPETokenizer) -> dict[str, bytes]:
    """All of the folder but its weights: the content of each file, by name."""
    shape = metadata.model
    fields = asdict(shape)
    del fields["attention_hidden_size"]  # there, head_dim says it
    end = tokenizer.special_id("<|assistant_end|>")
    tokens = {"bos_token_id": tokenizer.bos_id, "eos_token_id": [end, tokenizer.bos_id]}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **fields,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        # transformers 5 reads this one, 4 the rope_theta of the shape.
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "dtype": "float32",
        # No pad_token_id: the embedding of that token would learn nothing in further training.
        **tokens,
    }
    generation = {
        **tokens,
        "pad_token_id": end,
        "do_sample": False,
        "max_new_tokens": LONGEST_ANSWER,
    }
    if unused := list(range(tokenizer.vocab_size, shape.vocab_size)):
        generation["suppress_tokens"] = unused  # rows of the embedding that no token has
    return {
        CONFIG_FILE: json_file(config),
        "generation_config.json": json_file(generation),
        **tokenizer_files(tokenizer, shape.max_position_embeddings),
    }


def _link(path: Path, name: Path) -> None:
    """Gives a file a second name; a copy, where the file system cannot do that."""
    try:
        os.link(path, name)
    except OSError:
        shutil.copyfile(path, name)


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content
