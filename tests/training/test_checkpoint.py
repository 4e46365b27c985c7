"""Weights on disk: whole or not at all, readable by others, never unpickled."""

from __future__ import annotations

import errno
import json
import os
import pickle
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest
import small
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from minillm import files
from minillm.config import TrainConfig
from minillm.data.rows import Message
from minillm.errors import UserError
from minillm.model.transformer import Transformer
from minillm.training import checkpoint
from minillm.training.checkpoint import (
    Metadata,
    checkpoint_paths,
    find_weights,
    load_checkpoint,
    load_optimizers,
    save_checkpoint,
    save_training_checkpoint,
)
from minillm.training.optimizers import make_optimizers

METADATA = Metadata("pretrain", 7, small.CONFIG, "tokenizer", "data", {"seed": 42})


def trained(optimizer: str) -> tuple[Transformer, list[torch.optim.Optimizer]]:
    model = small.model()
    optimizers = make_optimizers(
        model, TrainConfig(model=small.CONFIG, max_seq_len=64, optimizer=optimizer)
    )  # type: ignore[arg-type]
    step(model, optimizers)
    return model, optimizers


def step(model: Transformer, optimizers: list[torch.optim.Optimizer]) -> None:
    model.zero_grad()
    model(torch.arange(40).view(2, 20)).square().mean().backward()
    for optimizer in optimizers:
        optimizer.step()


def test_weights_and_metadata_come_back(tmp_path: Path) -> None:
    model = small.model()
    save_checkpoint(tmp_path / "a.safetensors", model, METADATA)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    loaded, metadata = load_checkpoint(tmp_path / "a.safetensors")
    assert metadata == METADATA
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_hugging_face_reads_the_file(tmp_path: Path) -> None:
    model = small.model()
    save_checkpoint(tmp_path / "a.safetensors", model, METADATA)
    llama = LlamaForCausalLM(LlamaConfig(**asdict(small.CONFIG))).eval()
    missing, unexpected = llama.load_state_dict(load_file(tmp_path / "a.safetensors"), strict=False)
    assert missing == ["lm_head.weight"]  # tied to the embedding
    assert unexpected == []
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.allclose(model(ids), llama(ids).logits, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_goes_on_exactly(tmp_path: Path, optimizer: str) -> None:
    model, optimizers = trained(optimizer)
    path = save_training_checkpoint(tmp_path, model, METADATA, optimizers)
    step(model, optimizers)

    again, _ = load_checkpoint(path)
    config = TrainConfig(model=small.CONFIG, max_seq_len=64, optimizer=optimizer)  # type: ignore[arg-type]
    fresh = make_optimizers(again, config)
    load_optimizers(path, fresh)
    step(again, fresh)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_old_training_checkpoints_are_deleted(tmp_path: Path) -> None:
    model, optimizers = trained("adamw")
    for number in (1, 2, 3, 10):
        metadata = Metadata("sft", number, small.CONFIG, "", "", {})
        save_training_checkpoint(tmp_path, model, metadata, optimizers)
    assert [p.name for p in checkpoint_paths(tmp_path, "sft")] == [
        "sft-0000003.safetensors",
        "sft-0000010.safetensors",
    ]


@pytest.mark.parametrize("keep", [0, 4, 100, 2000, -1])
def test_truncated_files_are_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, small.model(), METADATA)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"a\.safetensors: not a complete safetensors file"):
        load_checkpoint(path)


def test_foreign_files_are_refused_and_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "exploded"),)

    path = tmp_path / "a.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="not a complete safetensors file"):
        load_checkpoint(path)
    assert not (tmp_path / "exploded").exists()
    save_file({"x": torch.ones(2)}, path)
    with pytest.raises(UserError, match="not written by minillm"):
        load_checkpoint(path)


def test_tensors_that_contradict_the_metadata_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, small.model(), METADATA)
    header = json.dumps({**asdict(METADATA), "model": {**asdict(small.CONFIG), "hidden_size": 64}})
    tensors = load_file(path)
    sha256 = checkpoint._sha256(header, tensors)
    save_file(tensors, path, {"minillm": header, "sha256": sha256})
    with pytest.raises(UserError, match=r"a\.safetensors: tensors do not match the metadata"):
        load_checkpoint(path)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_no_damage_goes_unnoticed(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.safetensors")
        save_checkpoint(path, small.model(), METADATA)
        content = bytearray(path.read_bytes())
        header_end = 8 + int.from_bytes(content[:8], "little")
        # Half of the damage in the short header, half in the long rest.
        place = st.integers(0, header_end - 1) | st.integers(header_end, len(content) - 1)
        content[data.draw(place)] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.safetensors: "):
            load_checkpoint(path)


def test_missing_weights_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"sft\.safetensors: no sft weights.*trainer/train_full_sft\.py"
    ):
        find_weights(tmp_path, "sft")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EACCES, "choose another"),
        (errno.EROFS, "read-only"),
    ],
)
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, small.model(), METADATA)
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(UserError, match=rf"a\.safetensors: cannot write: .*{advice}"):
        save_checkpoint(path, small.model(seed=1), METADATA)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_notebook_loads_a_model_and_asks_it(tmp_path: Path) -> None:
    from minillm import load, reply, train

    config = small.train_config(tmp_path, "pretrain", max_steps=2)
    train(config, "pretrain")
    train(small.train_config(tmp_path, "sft", max_steps=2), "sft")
    model, tokenizer = load(config.out_dir, device="cpu")
    assert not model.training
    assert tokenizer.fingerprint == small.tokenizer().fingerprint
    assert_same(model, checkpoint.load_checkpoint(config.out_dir / "sft.safetensors")[0])
    text = "".join(reply(model, tokenizer, "1加1？", max_new_tokens=4))
    question = [Message("user", "1加1？")]
    assert text == "".join(reply(model, tokenizer, question, max_new_tokens=4))
    before, _ = load(str(config.out_dir), "pretrain", device="cpu")
    assert_same(before, checkpoint.load_checkpoint(config.out_dir / "pretrain.safetensors")[0])
    with pytest.raises(UserError, match="no pretrain weights"):
        load(tmp_path / "elsewhere")


def assert_same(model: Transformer, other: Transformer) -> None:
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name
