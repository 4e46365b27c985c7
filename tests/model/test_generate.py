"""Decoding: the cache changes nothing, sampling follows its definition, answers stream in whole
characters of tokens that the tokenizer has."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import small
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from minillm.data.rows import Message, Role
from minillm.errors import UserError
from minillm.evaluate import Evaluator
from minillm.model import generate as module
from minillm.model.decode import OneTokenDecoder
from minillm.model.generate import Sampling, choose, complete, generate, remembered, reply
from minillm.model.transformer import Transformer

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
    llama = LlamaForCausalLM(LlamaConfig(**vars(small.CONFIG), pad_token_id=0, eos_token_id=None))
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
    with pytest.raises(UserError, match="128 tokens long, and the model has places for 1 to 127"):
        complete(small.model(), [[1], [1] * 128], 5)


def test_nothing_to_go_on_from_and_nothing_to_write_are_refused() -> None:
    for prompts in ([[1], []], [[]]):
        with pytest.raises(UserError, match="a prompt is empty"):
            complete(small.model(), prompts, 5)
    for count in (0, -1):
        with pytest.raises(UserError, match=f"--max_new_tokens must be at least 1, not {count}"):
            complete(small.model(), [[1]], count)


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
    "wrong",
    [
        {"temperature": -1},
        {"temperature": math.nan},
        {"top_k": -1},
        {"top_p": 0},
        {"top_p": 1e-50},
        {"top_p": 1.5},
    ],
)
def test_impossible_sampling_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(wrong))} must be"):
        Sampling(**wrong)


def test_a_temperature_next_to_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="--temperature must be 0 or at least"):
        Sampling(temperature=1e-40)
    logits = 1000 * torch.randn(200, 50)
    generator = torch.Generator().manual_seed(0)
    assert choose(logits, Sampling(1e-5), generator).equal(logits.argmax(dim=-1))


def test_replies_stream_whole_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [i for byte in "鹦鹉🐦".encode() for i in [byte]]  # byte tokens are the first 256

    def fake(*_: object, **__: object) -> object:
        yield from ([i] for i in [*ids, 0xE9])

    monkeypatch.setattr(module, "generate", fake)
    parts = list(reply(small.model(), TOKENIZER, [Message("user", "谁")], 9))
    assert parts == ["鹦", "鹉", "🐦", "\ufffd"]


# --- Ids that the model has and the tokenizer has not ---------------------------------------------


def longing() -> Transformer:
    """A model that would nearly always choose one of the 20 ids that its tokenizer lacks."""
    model = small.model()
    with torch.no_grad():
        model.lm_head.weight[TOKENIZER.vocab_size :] *= 100
    return model


PROMPTS = {"one prompt": [[5, 6, 7]], "a batch": [[1], list(range(2, 30)), [7, 8, 9]]}


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.3, seed=2)])
@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("use_cache", [True, False])
def test_an_id_beyond_the_vocabulary_is_never_chosen(
    sampling: Sampling, prompts: list[list[int]], dtype: torch.dtype, use_cache: bool
) -> None:
    model = longing().to(dtype)

    def ids(vocab_size: int | None) -> list[int | None]:
        steps = generate(model, prompts, 10, (), sampling, use_cache, vocab_size=vocab_size)
        return [token for tokens in steps for token in tokens]

    assert max(token or 0 for token in ids(None)) >= TOKENIZER.vocab_size
    known = ids(TOKENIZER.vocab_size)
    assert len(known) == 10 * len(prompts)
    assert max(token or 0 for token in known) < TOKENIZER.vocab_size


def test_the_way_of_single_tokens_keeps_to_the_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    call = OneTokenDecoder.__call__

    def counted(self: OneTokenDecoder, token: int) -> torch.Tensor:
        calls.append(token)
        return call(self, token)

    monkeypatch.setattr(OneTokenDecoder, "__call__", counted)
    complete(longing(), [[5, 6, 7]], 20, vocab_size=TOKENIZER.vocab_size)
    assert len(calls) == 19
    assert max(calls) < TOKENIZER.vocab_size


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.3)])
def test_replies_are_made_of_the_tokenizers_tokens(sampling: Sampling) -> None:
    list(reply(longing(), TOKENIZER, "小猫", 30, sampling))  # any other has no bytes: ValueError


def test_scores_of_known_ids_decide_as_they_did() -> None:
    model = small.model()
    for sampling in (Sampling(), Sampling(temperature=1.3)):
        all_ids = complete(model, [[1, 2]], 20, (), sampling)
        assert complete(model, [[1, 2]], 20, (), sampling, vocab_size=320) == all_ids


def test_evaluation_and_own_answers_keep_to_the_vocabulary() -> None:
    evaluator = Evaluator(longing(), TOKENIZER, 20)
    answers = evaluator.chat([[Message("user", "小猫")], [Message("user", "公园里有什么？")]])
    assert all(answers)


def test_the_oldest_questions_are_forgotten_first() -> None:
    # With byte tokens: 1 for <|bos|>, 2 + bytes a turn, 1 for the start of the answer.
    roles: tuple[Role, ...] = ("user", "assistant", "user", "assistant", "user")
    chat = [Message(role, text * 4) for role, text in zip(roles, "abcde", strict=True)]
    for window, kept in ((32, 5), (31, 3), (20, 3), (19, 1), (8, 1), (1, 1)):
        assert remembered(TOKENIZER, chat, window) == chat[-kept:]
    assert len(TOKENIZER.render_for_completion(chat)) == 32
