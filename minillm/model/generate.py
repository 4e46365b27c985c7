"""Decoding: from a prompt's tokens to an answer's, one token at a time with a key-value cache."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from minillm.config import NonNegative, Range, Seed, check_ranges
from minillm.data.rows import Message
from minillm.errors import UserError
from minillm.model.decode import OneTokenDecoder
from minillm.model.transformer import KVCache, Transformer
from minillm.tokenizer.vocabulary import RustBPETokenizer

_AT_ONCE = 32
"""Prompts that ``answers`` goes on from at once."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen from the model's scores."""

    temperature: NonNegative = 0.0
    """Scores are divided by it; 0 is greedy: always the best token."""
    top_k: Annotated[int, Range(0, 10**9)] = 0
    """Choose among the best K tokens only; 0: all."""
    top_p: Annotated[float, Range(1e-9, 1)] = 1.0
    """Choose among the fewest best tokens whose probabilities add up to P
    (Holtzman et al. 2020)."""
    seed: Seed = 0
    """Seed of the random choice."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if 0 < self.temperature < 1e-5:  # scores divided by so little overflow
            raise UserError(f"--temperature must be 0 or at least 0.00001, not {self.temperature}")


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """One token for every row: ``[B, vocab_size]`` scores → ``[B]`` int64 ids."""
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    scores, ids = (logits.float() / sampling.temperature).sort(dim=-1, descending=True)
    if sampling.top_k:
        scores[:, sampling.top_k :] = -torch.inf
    probabilities = scores.softmax(dim=-1)
    # A token stays if those better than it have not yet reached top_p: so the best one always
    # stays.
    before = probabilities.cumsum(dim=-1) - probabilities
    probabilities[before >= sampling.top_p] = 0
    place = torch.multinomial(probabilities, 1, generator=generator)
    return ids.gather(-1, place)[:, 0]


@torch.inference_mode()
def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop_ids: Sequence[int] = (),
    sampling: Sampling = Sampling(),
    use_cache: bool = True,
    vocab_size: int | None = None,
) -> Iterator[list[int | None]]:
    """Continues several prompts at once; yields one token for each at every step.

    Args:
        prompts: token ids of any lengths; shorter ones get padding on the left that they never see.
        max_new_tokens: at most so many steps; fewer if the model's positions run out.
        stop_ids: a prompt is finished when one of these comes; it is not yielded.
        sampling: how tokens are chosen.
        use_cache: False computes the whole text anew for every token: slow, and the same result.
        vocab_size: the tokenizer's, which may be smaller than the model's: only ids below it are
            chosen. None: it is the model's.

    Yields:
        A list with the next token of each prompt, None for those that are finished.

    Raises:
        UserError: a prompt is empty, or leaves no position for an answer; or no token is wanted.
    """
    longest, positions = max(map(len, prompts)), model.config.max_position_embeddings
    if max_new_tokens < 1:
        raise UserError(f"--max_new_tokens must be at least 1, not {max_new_tokens}")
    if not all(prompts):
        raise UserError("a prompt is empty: there is nothing to go on from")
    if longest >= positions:
        raise UserError(
            f"the prompt is {longest} tokens long, and the model has places for 1 to "
            f"{positions - 1} and an answer"
        )
    limit = min(longest + max_new_tokens, positions)
    device = model.lm_head.weight.device
    generator = torch.Generator(device).manual_seed(sampling.seed)
    pad = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=device)

    def new_cache() -> KVCache:
        cache = KVCache(model.config, len(prompts), limit, model.lm_head.weight)
        if pad.any():
            cache.valid = torch.arange(limit, device=device) >= pad[:, None]
        return cache

    def run(cache: KVCache, tokens: Tensor) -> Tensor:
        positions = None
        if cache.valid is not None:
            places = torch.arange(cache.length, cache.length + tokens.shape[1], device=device)
            positions = (places[None] - pad[:, None]).clamp(min=0)
        logits: Tensor = model(tokens, position_ids=positions, cache=cache)
        return logits[:, -1]

    cache = new_cache()
    one_token = None
    dtype = model.lm_head.weight.dtype
    if use_cache and len(prompts) == 1 and device.type == "cpu" and dtype == torch.float32:
        one_token = OneTokenDecoder(model, cache)
    finished = [False] * len(prompts)
    tokens = ids
    for _ in range(limit - longest):
        if one_token and cache.length:
            logits = one_token(int(tokens))
        else:
            logits = run(cache, tokens) if use_cache else run(new_cache(), ids)
        tokens = choose(logits[:, :vocab_size], sampling, generator)[:, None]
        if not use_cache:
            ids = torch.cat([ids, tokens], dim=1)
        chosen = tokens[:, 0].tolist()
        finished = [f or token in stop_ids for f, token in zip(finished, chosen, strict=True)]
        if all(finished):
            return
        yield [None if f else token for f, token in zip(finished, chosen, strict=True)]


def complete(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop_ids: Sequence[int] = (),
    sampling: Sampling = Sampling(),
    vocab_size: int | None = None,
) -> list[list[int]]:
    """Like ``generate``, but returns the whole continuation of each prompt."""
    answers: list[list[int]] = [[] for _ in prompts]
    steps = generate(model, prompts, max_new_tokens, stop_ids, sampling, vocab_size=vocab_size)
    for tokens in steps:
        for answer, token in zip(answers, tokens, strict=True):
            if token is not None:
                answer.append(token)
    return answers


def answers(
    model: Transformer,
    tokenizer: RustBPETokenizer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
) -> list[str]:
    """Greedy answers to rendered conversations, in their order; "" to one that is too long."""
    stops = [tokenizer.special_id("<|assistant_end|>"), tokenizer.bos_id]
    order = [i for i, p in enumerate(prompts) if len(p) < model.config.max_position_embeddings]
    order.sort(key=lambda i: len(prompts[i]))  # little padding
    texts = [""] * len(prompts)
    for start in range(0, len(order), _AT_ONCE):
        part = order[start : start + _AT_ONCE]
        asked = [prompts[i] for i in part]
        replies = complete(model, asked, max_new_tokens, stops, vocab_size=tokenizer.vocab_size)
        for i, ids in zip(part, replies, strict=True):
            texts[i] = tokenizer.decode(ids)
    return texts


def reply(
    model: Transformer,
    tokenizer: RustBPETokenizer,
    messages: str | Sequence[Message],
    max_new_tokens: int = 256,
    sampling: Sampling = Sampling(),
) -> Iterator[str]:
    """The assistant's answer to a question, or to a conversation that ends with one, as text that
    grows.

    A Chinese character may be split over several tokens: its bytes are held back until it is whole.
    """
    if isinstance(messages, str):
        messages = [Message("user", messages)]
    decoder = getincrementaldecoder("utf-8")(errors="replace")
    prompt = tokenizer.render_for_completion(messages)
    stops = [tokenizer.special_id("<|assistant_end|>"), tokenizer.bos_id]
    tokens = generate(
        model, [prompt], max_new_tokens, stops, sampling, vocab_size=tokenizer.vocab_size
    )
    for (token,) in tokens:
        if token is not None and (text := decoder.decode(tokenizer.token_bytes(token))):
            yield text
    if text := decoder.decode(b"", final=True):
        yield text


def remembered(tokenizer: RustBPETokenizer, messages: list[Message], window: int) -> list[Message]:
    """A chat that ends with a question, without the oldest questions and answers: it takes at most
    ``window`` tokens, or the last question stands alone."""
    while len(messages) > 1 and len(tokenizer.render_for_completion(messages)) > window:
        messages = messages[2:]
    return messages
