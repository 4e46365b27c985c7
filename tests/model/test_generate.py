"""Decoding: the cache changes nothing, sampling follows its definition, chat streams whole
characters."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import small
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from minillm.chat import ChatOptions, run_chat
from minillm.data.rows import Message
from minillm.errors import UserError
from minillm.model import generate as module
from minillm.model.generate import Sampling, choose, complete, generate, reply
from minillm.training.checkpoint import Metadata, save_checkpoint

TOKENIZER = small.tokenizer()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 319), min_size=1, max_size=30), st.integers(0, 5))
def test_greedy_output_is_the_same_with_and_without_the_cache(prompt: list[int], seed: int) -> None:
    model = small.model(seed)
    cached = [tokens[0] for tokens in generate(model, [prompt], 20)]
    plain = [tokens[0] for tokens in generate(model, [prompt], 20, use_cache=False)]
    assert len(cached) == 20
    assert cached == plain


def test_weights_of_another_precision_generate_too() -> None:
    model = small.model(3)
    expected = complete(model, [[5, 6, 7]], 20)
    assert complete(model.double(), [[5, 6, 7]], 20) == expected
    assert len(complete(model.bfloat16(), [[5, 6, 7]], 20)[0]) == 20


def test_greedy_output_equals_hugging_face() -> None:
    model = small.model()
    llama = LlamaForCausalLM(
        LlamaConfig(
            **vars(small.CONFIG), tie_word_embeddings=True, pad_token_id=0, eos_token_id=None
        )
    )
    llama.load_state_dict(model.state_dict())
    prompt = [3, 14, 15, 92, 65]
    theirs = llama.generate(torch.tensor([prompt]), max_new_tokens=30, do_sample=False)
    assert complete(model, [prompt], 30) == [theirs[0, len(prompt) :].tolist()]


def test_prompts_of_different_lengths_do_not_disturb_each_other() -> None:
    model = small.model()
    with torch.no_grad():  # fresh weights hardly attend to anything, so a leak would not show
        for parameter in model.model.layers.parameters():
            parameter.mul_(12)
    prompts = [[1], list(range(2, 30)), [7, 8, 9]]
    assert complete(model, prompts, 12) == [complete(model, [p], 12)[0] for p in prompts]


def test_a_stop_token_ends_its_prompt_only() -> None:
    model = small.model()
    prompts = [[1], [5, 6]]
    free = complete(model, prompts, 10)
    stop = free[0][3]
    stopped = complete(model, prompts, 10, [stop])
    assert stopped[0] == free[0][: free[0].index(stop)]
    assert stopped[1] == (free[1][: free[1].index(stop)] if stop in free[1] else free[1])


def test_generation_ends_where_positions_end() -> None:
    (answer,) = complete(small.model(), [[1] * 120], 50)
    assert len(answer) == small.CONFIG.max_position_embeddings - 120
    for prompts in ([[1] * 128], [[1], []]):
        with pytest.raises(UserError, match="1 to 127"):
            complete(small.model(), prompts, 5)


def frequencies(sampling: Sampling, draws: int = 20_000) -> dict[int, float]:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(draws, 4)
    tokens = choose(logits, sampling, torch.Generator().manual_seed(0)).tolist()
    return {token: count / draws for token, count in Counter(tokens).items()}


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), {0: 1.0}),
        (Sampling(temperature=1.0), {0: 0.5, 1: 0.3, 2: 0.15, 3: 0.05}),
        (Sampling(temperature=1.0, top_k=2), {0: 5 / 8, 1: 3 / 8}),
        (Sampling(temperature=1.0, top_p=0.79), {0: 5 / 8, 1: 3 / 8}),
        (Sampling(temperature=1.0, top_p=0.81), {0: 50 / 95, 1: 30 / 95, 2: 15 / 95}),
        (Sampling(temperature=1.0, top_p=1e-9), {0: 1.0}),
        # p^(1/T), renormalised, with T = 1/2: 25, 9, 2.25 and 0.25 parts.
        (Sampling(temperature=0.5), {0: 25 / 36.5, 1: 9 / 36.5, 2: 2.25 / 36.5, 3: 0.25 / 36.5}),
    ],
)
def test_sampling_follows_its_definition(sampling: Sampling, expected: dict[int, float]) -> None:
    assert frequencies(sampling) == pytest.approx(expected, abs=0.015)


def test_sampling_is_reproducible_by_seed() -> None:
    model = small.model()

    def draw(seed: int) -> list[list[int]]:
        return complete(model, [[1, 2]], 20, sampling=Sampling(temperature=1.0, seed=seed))

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.5}]
)
def test_impossible_sampling_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="--top_p"):
        Sampling(**wrong)  # type: ignore[arg-type]


def test_replies_stream_whole_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [i for byte in "鹦鹉🐦".encode() for i in [byte]]  # byte tokens are the first 256

    def fake(*_: object, **__: object) -> object:
        yield from ([i] for i in [*ids, 0xE9])

    monkeypatch.setattr(module, "generate", fake)
    parts = list(reply(small.model(), TOKENIZER, [Message("user", "谁")], 9))
    assert parts == ["鹦", "鹉", "🐦", "\ufffd"]


def save(folder: Path) -> None:
    TOKENIZER.save(folder / "tokenizer")
    metadata = Metadata("sft", 1, small.CONFIG, TOKENIZER.fingerprint, "", {})
    save_checkpoint(folder / "sft.safetensors", small.model(), metadata)


def test_chat_answers_until_an_empty_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path)
    questions = iter(["你好", "小猫在哪里？" * 6, "再见", ""])
    monkeypatch.setattr("builtins.input", lambda _: next(questions))
    run_chat(ChatOptions(out_dir=tmp_path, max_new_tokens=8))
    output = capsys.readouterr().out.splitlines()
    assert output[0].startswith("sft model, 28,832 parameters")
    assert len(output) >= 4


def test_one_question_needs_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path)
    run_chat(ChatOptions(prompt="你好", out_dir=tmp_path, max_new_tokens=4))
    expected = "".join(reply(small.model(), TOKENIZER, [Message("user", "你好")], 4))
    assert capsys.readouterr().out == expected + "\n"


def test_chat_without_weights_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train_pretrain\.py"):
        run_chat(ChatOptions(out_dir=tmp_path))
