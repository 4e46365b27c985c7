"""Hugging Face Llama folders, beside transformers' own reading of them; and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from minillm import load
from minillm.config import STAGES, Stage
from minillm.errors import UserError
from minillm.model.generate import complete
from minillm.model.transformer import Transformer
from minillm.tokenizer.hugging_face import tokenizer_files
from minillm.training.checkpoint import Metadata, load_checkpoint, save_checkpoint
from minillm.training.llama_folder import read_config, read_weights, tensor_places
from minillm.training.loop import train

SHAPE: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
}


def llama(**changes: Any) -> LlamaForCausalLM:
    """A random model of transformers; its norms are random too, so that none can be left out."""
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(**{**SHAPE, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.15 + (parameter.ndim == 1))
    return model


def write(
    folder: Path, dtype: torch.dtype = torch.float32, shard: str = "1GB", **changes: Any
) -> Path:
    """The folder of such a model, written by transformers, with the small tokenizer."""
    llama(**changes).to(dtype).save_pretrained(folder, max_shard_size=shard)
    for name, content in tokenizer_files(small.tokenizer(), 128).items():
        (folder / name).write_bytes(content)
    return folder


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text("utf-8"))
    kept = {k: v for k, v in {**content, **changes}.items() if v is not ...}
    path.write_text(json.dumps(kept), encoding="utf-8")


SHAPES: dict[str, dict[str, Any]] = {
    "as here": {},
    "a key head for each query head": {"num_key_value_heads": 4},
    "one key head": {"num_key_value_heads": 1},
    "an output layer of its own": {"tie_word_embeddings": False},
    "wide heads": {"head_dim": 16},
    "narrow heads, untied": {"head_dim": 4, "tie_word_embeddings": False},
    "another rotary base": {"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}},
    "another epsilon": {"rms_norm_eps": 0.1},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16, in pieces": {"dtype": torch.float16, "shard": "15KB"},
    "in pieces": {"shard": "30KB", "tie_word_embeddings": False},
}


@pytest.mark.parametrize("name", SHAPES)
def test_logits_and_answers_equal_transformers(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path, **SHAPES[name])
    files = list(tmp_path.glob("model*.safetensors"))
    assert (len(files) > 2) == ("pieces" in name)
    theirs: Any = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model, tokenizer = load(folder, device="cpu")
    assert tokenizer.fingerprint == small.tokenizer().fingerprint
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.num_parameters() == theirs.num_parameters()
    ids = torch.randint(320, (2, 60), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.allclose(model(ids), theirs(ids).logits, rtol=0, atol=1e-4)
    prompt = ids[0, :7].tolist()
    theirs.generation_config.eos_token_id = None
    answer = theirs.generate(
        torch.tensor([prompt]), max_new_tokens=12, do_sample=False, pad_token_id=0
    )
    assert complete(model, [prompt], 12) == [answer[0, 7:].tolist()]


def test_an_older_config_says_the_same(tmp_path: Path) -> None:
    folder = write(tmp_path, rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    config = read_config(folder)
    change_config(folder, rope_parameters=..., rope_theta=5e5, rope_scaling=None)
    assert read_config(folder) == config
    change_config(folder, head_dim=None, rope_scaling={"type": "default"})
    assert read_config(folder) == config
    names = ("num_key_value_heads", "head_dim", "tie_word_embeddings", "rms_norm_eps")
    change_config(folder, **dict.fromkeys((*names, "rope_theta", "max_position_embeddings"), ...))
    assert read_config(folder) == replace(
        config,
        num_key_value_heads=4,
        tie_word_embeddings=False,
        rope_theta=1e4,
        rms_norm_eps=1e-6,
        max_position_embeddings=2048,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen2"}, 'model_type is "qwen2", but minillm computes only "llama"'),
        ({"model_type": ...}, "no model_type: not the configuration of a model"),
        ({"architectures": ["LlamaForSequenceClassification"]}, r'architectures is \["LlamaForS'),
        ({"hidden_act": "gelu"}, 'hidden_act is "gelu", but minillm computes only "silu"'),
        ({"attention_bias": True}, "attention_bias is true, but minillm computes only false"),
        ({"mlp_bias": True}, "mlp_bias is true, but minillm computes only false"),
        ({"attention_dropout": 0.1}, "attention_dropout is 0.1"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config is .*only null"),
        (
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}},
            'rope_parameters.rope_type is "llama3", but minillm computes only "default"',
        ),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, 'rope_scaling.rope_type is "linear"'),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
        ({"hidden_size": ...}, "missing required field `hidden_size`"),
        ({"num_hidden_layers": "two"}, r"Expected `int`, got `str` - at `\$.num_hidden_layers`"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1, not 0"),
        ({"num_attention_heads": 0}, "num_attention_heads must be at least 1, not 0"),
        ({"num_key_value_heads": 3}, "must be a multiple of num_key_value_heads 3"),
        ({"head_dim": 5}, "head_dim must be even"),
        ({"hidden_size": 36, "head_dim": None}, "hidden_size 36 must be a multiple of twice"),
        ({"vocab_size": 10**9}, "vocab_size must be at most 1,048,576"),
    ],
)
def test_what_is_not_implemented_names_the_field(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = write(tmp_path)
    change_config(folder, **changes)
    with pytest.raises(UserError, match=rf"config\.json: .*{message}") as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("config.json") == 1


def biased(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(32)
    save_file(tensors, folder / "model.safetensors")


def without_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors")


def quantized(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(32, dtype=torch.int8)
    save_file(tensors, folder / "model.safetensors")


def another_output_layer(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = torch.ones(320, 32)
    save_file(tensors, folder / "model.safetensors")


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (biased, r"model\.safetensors: tensor model.layers.0.self_attn.q_proj.bias is none of"),
        (without_a_tensor, r"no tensor model\.norm\.weight"),
        (quantized, r"model\.norm\.weight is of torch\.int8: quantized"),
        (another_output_layer, r"lm_head\.weight is not the embedding table"),
        (cut, r"model\.safetensors: not a complete safetensors file"),
        (pickled, r"pytorch_model\.bin: pickled weights, which could run any code"),
        (
            lambda f: (f / "model.safetensors").unlink(),
            r"no model\.safetensors in this folder, nor",
        ),
        (lambda f: change_config(f, hidden_size=64), r"\[320, 32\], but config\.json says \[320"),
        (lambda f: change_config(f, tie_word_embeddings=False), r"no tensor lm_head\.weight"),
        (lambda f: change_config(f, num_hidden_layers=1), r"tensor model\.layers\.1\.input_lay"),
        (lambda f: (f / "config.json").write_bytes(b"{"), r"config\.json: damaged: "),
        (lambda f: (f / "config.json").write_bytes(b"[]"), r"config\.json: damaged: "),
        (lambda f: (f / "tokenizer.json").unlink(), r"no tokenizer\.json.*--tokenizer_path"),
        (lambda f: change_config(f, vocab_size=290), r"room for 290 tokens .* the tokenizer 300"),
    ],
)
def test_damaged_folders_name_what_is_wrong(
    tmp_path: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    folder = write(tmp_path)
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        load(folder)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_piece_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, shard="30KB")
    piece = sorted(folder.glob("model-*.safetensors"))[1]
    piece.unlink()
    with pytest.raises(UserError, match=rf"{piece.name}: missing, but model\.safetensors\.index"):
        load(folder)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"model.norm.weight": "../elsewhere.safetensors"}, "which is not in this folder"),
        ({"model.norm.weight": 7}, "weight_map: Expected `str`, got `int`"),
        (None, "weight_map: Expected `object`, got `null`"),
    ],
)
def test_an_index_that_makes_no_sense(tmp_path: Path, weight_map: Any, message: str) -> None:
    folder = write(tmp_path, shard="30KB")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    with pytest.raises(UserError, match=rf"index\.json: .*{message}"):
        tensor_places(folder)


def test_what_old_exporters_add_is_passed_over(tmp_path: Path) -> None:
    folder = write(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    before = read_weights(folder, read_config(folder))
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, folder / "model.safetensors")
    same(read_weights(folder, read_config(folder)), before)


def same(model: Transformer, other: Transformer) -> None:
    assert model.config == other.config
    for name, weight in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name


def own_folder(folder: Path, model: Transformer, fingerprint: str) -> Path:
    """As this project leaves one, but that transformers wrote its config."""
    write(folder)
    metadata = Metadata("sft", 3, model.config, fingerprint, "", {})
    save_checkpoint(folder / "model.safetensors", model, metadata)
    change_config(folder, intermediate_size=model.config.intermediate_size, rms_norm_eps=1e-5)
    return folder


def test_a_folder_of_this_project_comes_back_and_is_checked(tmp_path: Path) -> None:
    model, tokenizer = small.model(), small.tokenizer()
    folder = own_folder(tmp_path / "own", model, tokenizer.fingerprint)
    same(load(folder, device="cpu")[0], model)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="damaged or changed since it was written"):
        load(folder)
    other = own_folder(tmp_path / "other", model, "another")
    with pytest.raises(UserError, match="trained with another tokenizer"):
        load(other)


def test_a_folder_has_one_stage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a folder of one model: leave out the stage, sft"):
        load(write(tmp_path), "sft")


def test_a_tokenizer_that_is_named_takes_the_place_of_the_folders(tmp_path: Path) -> None:
    folder = write(tmp_path / "folder")
    (folder / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}', encoding="utf-8")
    with pytest.raises(UserError, match=r"tokenizer\.json: .*Unigram.*--tokenizer_path"):
        load(folder)
    small.tokenizer().save(tmp_path / "named")
    _, tokenizer = load(folder, tokenizer_path=tmp_path / "named")
    assert tokenizer.fingerprint == small.tokenizer().fingerprint


# --- Training goes on from a folder ---------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_starts_from_a_folder(tmp_path: Path, stage: Stage) -> None:
    folder = write(tmp_path / "folder", tie_word_embeddings=False, head_dim=16, shard="30KB")
    start = load(folder, device="cpu")[0]
    # The default shape, and the tokenizer that ships with the package: neither is the folder's.
    config = small.train_config(tmp_path, stage, init_from=folder, max_steps=1)
    config = replace(config, model=type(small.CONFIG)())
    shutil.rmtree(config.out_dir / "tokenizer")
    seen: list[Transformer] = []
    path = train(config, stage, lambda _, model: seen.append(model))
    trained, metadata = load_checkpoint(path)
    assert metadata.model == start.config
    assert metadata.tokenizer == small.tokenizer().fingerprint
    same(trained, seen[0])
    before = start.state_dict()
    moved = {n for n, w in trained.state_dict().items() if not torch.equal(w, before[n])}
    assert moved == set(before)  # the output layer too learns
    largest = max((trained.state_dict()[n] - w).abs().max().item() for n, w in before.items())
    assert largest < 0.02  # one small step away from the folder's weights
    same(load(config.out_dir, device="cpu")[0], trained)  # its tokenizer is there
    left = path.with_suffix("")
    same(load(left, device="cpu")[0], trained)
    theirs: Any = LlamaForCausalLM.from_pretrained(left).eval()
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.allclose(trained.eval()(ids), theirs(ids).logits, rtol=0, atol=1e-4)


def test_dpo_goes_on_with_a_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "folder")
    config = small.train_config(tmp_path, "dpo", init_from=folder, epochs=9, save_every=2)
    whole = load_checkpoint(train(replace(config, max_steps=4), "dpo"))[0]
    (config.out_dir / "dpo.safetensors").unlink()
    same(load_checkpoint(train(replace(config, max_steps=4, resume=True), "dpo"))[0], whole)


def test_a_folder_that_training_cannot_use(tmp_path: Path) -> None:
    folder = write(tmp_path / "folder")
    config = small.train_config(tmp_path, "sft", init_from=folder, max_steps=1)
    with pytest.raises(UserError, match="--max_seq_len 129 is longer than --max_position_emb"):
        train(replace(config, model=type(small.CONFIG)(), max_seq_len=129), "sft")
    with pytest.raises(UserError, match=r"out: no config\.json in this folder; a file of weights"):
        train(replace(config, init_from=config.out_dir), "sft")
    small.RustBPETokenizer.train(["另一个"], vocab_size=266).save(config.out_dir / "tokenizer")
    with pytest.raises(
        UserError, match=r"belongs to another tokenizer .* choose another --out_dir"
    ):
        train(config, "sft")
    assert not (config.out_dir / "sft.safetensors").exists()
