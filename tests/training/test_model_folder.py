"""The folder of a stage's weights: transformers opens it, and finds the same model."""

from __future__ import annotations

import json
import os
import shutil
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from minillm import files
from minillm.config import STAGES, ModelConfig
from minillm.data.rows import Message
from minillm.errors import UserError
from minillm.model.generate import reply
from minillm.model.transformer import Transformer
from minillm.tokenizer.vocabulary import RustBPETokenizer
from minillm.training.checkpoint import Metadata, load_checkpoint
from minillm.training.loop import train
from minillm.training.model_folder import model_folder, save_stage

NAMES = [
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
]
OTHER = replace(small.CONFIG, hidden_size=64, num_key_value_heads=4, rope_theta=500.0)


def save(
    path: Path,
    seed: int = 0,
    config: ModelConfig = small.CONFIG,
    tokenizer: RustBPETokenizer | None = None,
) -> Transformer:
    """Saves random weights as a stage's; larger ones than fresh ones, so that answers differ."""
    model = small.model(seed, config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    tokenizer = tokenizer or small.tokenizer()
    save_stage(path, model, Metadata("dpo", 7, config, tokenizer.fingerprint, "", {}), tokenizer)
    return model


def logits_of(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found = model(ids)
    return getattr(found, "logits", found)  # type: ignore[no-any-return]


def assert_opens_as(folder: Path, model: Transformer) -> None:
    llama = AutoModelForCausalLM.from_pretrained(folder)
    assert llama.config.max_position_embeddings == model.config.max_position_embeddings
    ids = torch.randint(model.config.vocab_size, (3, 100))
    assert torch.allclose(logits_of(llama, ids), logits_of(model, ids), rtol=0, atol=1e-4)


@pytest.mark.parametrize("config", [small.CONFIG, OTHER])
def test_logits_are_the_same(tmp_path: Path, config: ModelConfig) -> None:
    model = save(tmp_path / "dpo.safetensors", config=config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dpo", "dpo.safetensors"]
    assert sorted(path.name for path in (tmp_path / "dpo").iterdir()) == NAMES
    assert_opens_as(tmp_path / "dpo", model)
    _, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "dpo", output_loading_info=True)
    assert not any(loading.values())
    said = json.loads((tmp_path / "dpo" / "config.json").read_bytes())
    assert said["rope_theta"] == said["rope_parameters"]["rope_theta"] == config.rope_theta
    opened = AutoConfig.from_pretrained(tmp_path / "dpo")
    assert opened.dtype == torch.float32
    for name, value in vars(config).items():
        if name not in ("rope_theta", "attention_hidden_size"):  # rope_parameters, head_dim
            assert getattr(opened, name) == value


def test_greedy_answers_are_the_same(tmp_path: Path) -> None:
    model = save(tmp_path / "dpo.safetensors")  # its vocabulary is larger than the tokenizer's
    tokenizer = small.tokenizer()
    llama = AutoModelForCausalLM.from_pretrained(tmp_path / "dpo")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "dpo")
    lengths = set()
    for question in ("1加1？", "小猫", "<|bos|>", *(f"{n}只鸟" for n in range(20))):
        ours = "".join(reply(model, tokenizer, [Message("user", question)], max_new_tokens=60))
        prompt = theirs.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        room = model.config.max_position_embeddings - prompt["input_ids"].shape[1]
        (ids,) = llama.generate(**prompt, max_new_tokens=min(60, room))
        answer = ids[prompt["input_ids"].shape[1] :]
        lengths.add(len(answer))
        assert theirs.decode(answer, skip_special_tokens=True) == ours
    assert len(lengths) > 1  # some end by themselves


def test_weights_are_linked_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "dpo.safetensors"
    for seed in (0, 1):
        model = save(path, seed)
        assert (tmp_path / "dpo" / "model.safetensors").samefile(path)
        assert path.stat().st_nlink == 2
        assert_opens_as(tmp_path / "dpo", model)


def test_weights_are_copied_where_links_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    for seed in (0, 1):
        model = save(tmp_path / "dpo.safetensors", seed)
        assert (tmp_path / "dpo.safetensors").stat().st_nlink == 1
        assert_opens_as(tmp_path / "dpo", model)


def test_what_else_is_in_the_folder_stays(tmp_path: Path) -> None:
    save(tmp_path / "dpo.safetensors")
    (tmp_path / "dpo" / "notes.txt").write_text("mine", encoding="utf-8")
    model = save(tmp_path / "dpo.safetensors", 1, OTHER)
    assert (tmp_path / "dpo" / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert_opens_as(tmp_path / "dpo", model)


def test_the_folder_opens_while_weights_are_saved(tmp_path: Path) -> None:
    path = tmp_path / "dpo.safetensors"
    models = [save(path, seed) for seed in range(2)]
    ids = torch.arange(50)[None]
    allowed = [logits_of(model, ids) for model in models]
    done = threading.Event()

    def keep_saving() -> None:
        while not done.is_set():
            for model in models:
                about = Metadata("dpo", 7, small.CONFIG, small.tokenizer().fingerprint, "", {})
                save_stage(path, model, about, small.tokenizer())

    saver = threading.Thread(target=keep_saving)
    saver.start()
    try:
        for _ in range(20):
            found = logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "dpo"), ids)
            assert any(torch.allclose(found, logits, rtol=0, atol=1e-4) for logits in allowed)
            AutoTokenizer.from_pretrained(tmp_path / "dpo")
    finally:
        done.set()
        saver.join()


class Killed(BaseException):
    """Ends the process at once: nothing is tidied up."""


def kill_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is killed when it is about to change a file's name for the ``call``-th time."""
    left = call

    def counted(function: Any) -> Any:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return function(*arguments, **options)

        return wrapper

    for name in ("link", "replace"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    for name in ("rename", "unlink"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("config", [small.CONFIG, OTHER])
def test_killed_at_any_moment_the_folder_is_of_one_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: ModelConfig, first: bool
) -> None:
    path, folder = tmp_path / "dpo.safetensors", tmp_path / "dpo"
    finished = False
    for call in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        path.unlink(missing_ok=True)
        old = None if first else save(path)
        new = None
        with monkeypatch.context() as patch:
            kill_at(call, patch)
            with suppress(Killed):
                new = save(path, 1, config)
        if new is None and not (folder / "config.json").exists():
            # The new one is of another shape, and not complete; or there is none yet.
            assert first or config is OTHER
        else:
            saved = (folder / "model.safetensors").read_bytes()
            stands = load_checkpoint(folder / "model.safetensors")[0]
            assert_opens_as(folder, stands)
            assert new is None or saved == path.read_bytes()
            assert new is not None or old is None or stands.config == small.CONFIG
        if new is not None:
            finished = True
            break
        # Whatever it was left as, the next run puts it right.
        assert_opens_as(folder, save(path, 2, config))
    assert finished
    assert call >= (3 if first else 8)


def test_all_stages_leave_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stage in STAGES:
        config = small.train_config(tmp_path, stage, epochs=9, max_steps=4, save_every=2)
        path = train(config, stage)
        folder = model_folder(path)
        assert folder == config.out_dir / stage
        assert f"weights in {path}, for transformers in {folder}\n" in capsys.readouterr().out
        model, _ = load_checkpoint(path)
        assert_opens_as(folder, model)
        # Stopped on the way, a run leaves weights and folder as they are; resumed, it writes both.
        again = replace(config, max_steps=6, resume=True)

        def stop(step: int, _: Transformer) -> None:
            raise Killed

        with pytest.raises(Killed):
            train(again, stage, stop)
        assert (folder / "model.safetensors").samefile(path)
        assert_opens_as(folder, model)
        train(again, stage)
        assert (folder / "model.safetensors").samefile(path)
        resumed, metadata = load_checkpoint(path)
        assert metadata.step == 6
        assert_opens_as(folder, resumed)


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    (tmp_path / "dpo").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match=r"dpo: cannot write: .*a file is in the place of a folder"):
        save(tmp_path / "dpo.safetensors")
    assert (tmp_path / "dpo").read_text(encoding="utf-8") == "mine"
    load_checkpoint(tmp_path / "dpo.safetensors")  # the weights are safe


def test_a_full_disk_leaves_the_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dpo.safetensors"
    model = save(path)
    real = files.os.fsync
    calls = iter(range(99))

    def fail(number: int) -> None:
        if next(calls) > 0:  # the weights themselves still had room
            raise OSError(28, "No space left on device")
        real(number)

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(UserError, match=r"dpo: cannot write: No space left on device; free some"):
        save(path, 1)
    assert sorted(p.name for p in (tmp_path / "dpo").iterdir()) == NAMES
    assert_opens_as(tmp_path / "dpo", model)
