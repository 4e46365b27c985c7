"""`minillm gguf`: a model as one file for llama.cpp and all that is built on it.

A GGUF file holds weights, shape, tokenizer and chat template. What is different there:

* Tensors have other names.
* The rotary embedding turns the neighbours (2i, 2i + 1) of a head, here (i, i + D/2): the rows of
  the query and key matrices change places, and every score stays what it was.
* Numbers may be of fewer bits: see ``TYPES``.
* How text is split is a name that llama.cpp knows: ``llama-bpe`` is SPLIT_PATTERN. Only after an
  apostrophe they differ, and only for ``ſ``, the long s, which SPLIT_PATTERN takes for an s there.

Beside the file comes a Modelfile for Ollama, whose templates are of another language than Jinja.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minillm.config import ModelConfig, Preset, Stage
from minillm.errors import UserError
from minillm.files import atomic_folder
from minillm.model.transformer import Transformer
from minillm.tokenizer.hugging_face import chat_template
from minillm.tokenizer.tokenizer_json import as_letters, merge_pairs
from minillm.tokenizer.vocabulary import SPLIT_PATTERN, RustBPETokenizer
from minillm.training.checkpoint import load_for_inference

TYPES = ("F32", "F16", "Q8_0", "Q4_0")
"""32 bits a number; 16; 8 and 4, and 16 more for every 32 numbers: the scale that they share.

Vectors stay F32 in all of them. With Q4_0 the embedding, which is the output layer too, is Q8_0:
every answer goes through it. A matrix whose rows are no multiple of 32 numbers is F16 instead.
"""
BLOCK = 32
"""Numbers that share a scale."""


@dataclass(frozen=True)
class GgufOptions:
    """Write a model as one GGUF file, for llama.cpp, and a Modelfile for Ollama beside it."""

    type: str = "F16"
    """Of the weights: F32, F16, Q8_0 or Q4_0; each takes about half as many bytes as the one before
    it, and Q4_0 changes many answers of a small model."""
    out_dir: Path = Path("out")
    """Folder of the weights."""
    stage: Stage | None = None
    """Whose weights; None: the latest stage that there is."""
    tokenizer_path: Path | None = None
    """Folder of the tokenizer; None: OUT_DIR/tokenizer if it exists, else the built-in one."""
    output: Path | None = None
    """File to write; None: OUT_DIR/STAGE-TYPE.gguf."""

    def __post_init__(self) -> None:
        if self.type not in TYPES:
            raise UserError(f"--type {self.type!r}: choose one of {', '.join(TYPES)}")
        if self.output is not None and self.output.suffix != ".gguf":
            raise UserError(f"--output {self.output}: its name must end in .gguf")


GGUF_PRESETS: dict[Preset, GgufOptions] = {
    "default": GgufOptions(),
    "small": GgufOptions(out_dir=Path("out/small")),
    "tiny": GgufOptions(out_dir=Path("out/tiny")),
    "smoke": GgufOptions(out_dir=Path("out/smoke")),
}


def run_gguf(options: GgufOptions) -> Path:
    """`minillm gguf`; returns the path of the file.

    Raises:
        UserError: no weights or tokenizer, no package `gguf`, a tokenizer that llama.cpp cannot
            be told of, or the file cannot be written.
    """
    import_gguf()
    model, tokenizer, metadata = load_for_inference(
        options.out_dir, options.stage, options.tokenizer_path, "cpu"
    )
    path = options.output or options.out_dir / f"{metadata.stage}-{options.type}.gguf"
    modelfile = path.with_name(f"{path.stem}.Modelfile")
    with atomic_folder(path.parent, last=modelfile.name) as unfinished:
        write_gguf(unfinished / path.name, model, tokenizer, options.type, metadata.stage)
        content = ollama_modelfile(path.name, model.config)
        (unfinished / modelfile.name).write_text(content, encoding="utf-8")
    print(
        f"{path}: {path.stat().st_size:,} bytes ({metadata.stage}, {options.type})\n"
        f"llama.cpp: llama-server -m {path} --jinja\n"
        f"Ollama (untried): ollama create minillm -f {modelfile}"
    )
    return path


def import_gguf() -> Any:
    """The package that writes the format.

    Raises:
        UserError: it is not installed; says how to install it.
    """
    try:
        import gguf
    except ImportError as error:
        raise UserError(f"GGUF files need gguf: pip install -e '.[gguf]' ({error})") from None
    return gguf


def write_gguf(
    path: Path, model: Transformer, tokenizer: RustBPETokenizer, kind: str, stage: str
) -> None:
    """Writes a model on the CPU and its tokenizer as one file.

    Args:
        kind: one of ``TYPES``.
        stage: for the model's name in the file.

    Raises:
        UserError: the tokenizer splits text by a pattern of its own.
    """
    gguf = import_gguf()
    if tokenizer.pattern != SPLIT_PATTERN:
        raise UserError(
            "--tokenizer_path: it splits text by a pattern of its own, and llama.cpp knows only "
            "the usual one"
        )
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(f"MiniLLM {stage}")
    _describe_shape(writer, model.config)
    _describe_tokenizer(writer, tokenizer, model.config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType[f"{'ALL' if kind == 'F32' else 'MOSTLY'}_{kind}"])
    for name, array, wanted in tensors(model, kind):
        quantization = gguf.GGMLQuantizationType[wanted]
        writer.add_tensor(name, gguf.quantize(array, quantization), raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe_shape(writer: Any, config: ModelConfig) -> None:
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _describe_tokenizer(writer: Any, tokenizer: RustBPETokenizer, vocab_size: int) -> None:
    """The tokenizer, and one token for each row of the embedding that no token of it has."""
    kinds = import_gguf().TokenType
    ranks, special = tokenizer.mergeable_ranks, tokenizer.special_tokens
    unused = [f"<|unused_{i}|>" for i in range(tokenizer.vocab_size, vocab_size)]
    end = tokenizer.special_id("<|assistant_end|>")
    writer.add_tokenizer_model("gpt2")  # byte-level BPE
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list([*map(as_letters, ranks), *special, *unused])
    writer.add_token_types(
        [kinds.NORMAL] * len(ranks) + [kinds.CONTROL] * len(special) + [kinds.UNUSED] * len(unused)
    )
    writer.add_token_merges([f"{as_letters(a)} {as_letters(b)}" for a, b in merge_pairs(ranks)])
    writer.add_bos_token_id(tokenizer.bos_id)
    writer.add_eos_token_id(end)
    writer.add_eot_token_id(tokenizer.bos_id)  # where the next document would begin, it ends too
    writer.add_pad_token_id(end)
    writer.add_add_bos_token(True)
    writer.add_chat_template(chat_template())


# --- Tensors --------------------------------------------------------------------------------------

GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Hugging Face's name of a module → llama.cpp's; in a block, without what stands before it."""


class GgufTensor(NamedTuple):
    name: str
    array: NDArray[np.float32]
    type: str
    """One of ``TYPES``."""


def tensors(model: Transformer, kind: str) -> Iterator[GgufTensor]:
    """The model's parameters as a file of this type has them, not yet quantized."""
    config = model.config
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for parameter_name, parameter in model.named_parameters():  # a shared embedding once
        name, part = gguf_name(parameter_name)
        array = parameter.detach().numpy()
        if part in heads:
            array = neighbours(array, heads[part])
        yield GgufTensor(name, array, tensor_type(part, array, kind))


def gguf_name(parameter: str) -> tuple[str, str]:
    """llama.cpp's name of a parameter, and of its part of a block:
    ``model.layers.3.mlp.up_proj.weight`` → ``blk.3.ffn_up.weight``, ``ffn_up``."""
    module = parameter.removesuffix(".weight")
    if not module.startswith("model.layers."):
        return f"{GGUF_NAMES[module]}.weight", GGUF_NAMES[module]
    number, module = module.removeprefix("model.layers.").split(".", 1)
    return f"blk.{number}.{GGUF_NAMES[module]}.weight", GGUF_NAMES[module]


def neighbours(matrix: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """``[heads * D, C]``: in each head, row i + D/2 comes to stand after row i."""
    rows, columns = matrix.shape
    halves = matrix.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows, columns)


def tensor_type(part: str, array: NDArray[np.float32], kind: str) -> str:
    """The type of one tensor in a file of this type: see ``TYPES``."""
    if array.ndim == 1 or kind in ("F32", "F16"):
        return "F32" if array.ndim == 1 else kind
    if array.shape[1] % BLOCK:
        return "F16"
    return "Q8_0" if part in ("token_embd", "output") else kind


# --- Ollama ---------------------------------------------------------------------------------------

# `render_for_completion` in the language of Go's text/template. <|bos|> is added when the text is
# tokenized.
_OLLAMA_TEMPLATE = """\
{{- $system := .System -}}
{{- range .Messages -}}
{{- if eq .Role "user" -}}
<|user_start|>{{ if $system }}{{ $system }}

{{ $system = "" }}{{ end }}{{ .Content }}<|user_end|>
{{- else if eq .Role "assistant" -}}
<|assistant_start|>{{ .Content }}<|assistant_end|>
{{- else if eq .Role "tool" -}}
<|output_start|>{{ .Content }}<|output_end|>
{{- end -}}
{{- end -}}
<|assistant_start|>"""


def ollama_modelfile(file: str, config: ModelConfig) -> str:
    """What `ollama create NAME -f FILE` reads."""
    return f'''\
# Untried: written for Ollama by `minillm gguf`, and never run there.
# Ollama's templates have no function to escape text, so whoever types <|assistant_end|> there
# probably ends the turn. In llama.cpp's own server, by the template in the GGUF file, it cannot.
FROM ./{file}
TEMPLATE """{_OLLAMA_TEMPLATE}"""
PARAMETER stop "<|assistant_end|>"
PARAMETER stop "<|bos|>"
PARAMETER num_ctx {config.max_position_embeddings}
PARAMETER temperature 0
PARAMETER repeat_penalty 1
'''
