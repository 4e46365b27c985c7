"""The speed of a training step and of generation, beside Hugging Face's Llama of the same weights.

    python benchmarks/speed.py                     # on a GPU if there is one
    python benchmarks/speed.py --preset tiny --device cpu

Prints, for the raw training step (forward, backward, clipping, AdamW) on random tokens: tokens per
second, the arithmetic that this means (6 FLOP for each parameter and token, and 6 for each
layer, hidden unit and position for causal attention: Chowdhery et al. 2022, arXiv:2204.02311,
appendix B, halved since half of the positions are masked), and its share of what a large matrix
multiplication reaches, timed in turn with the steps; the same where each row holds four documents
that do not see each other, as in training, and for the whole training loop, on rows of the built-in
data; tokens per second of generation (batch 1, greedy, with the KV cache), where both models have
the same weights and give the same tokens, which is checked; and how long the preset's own
optimizers take beside its much larger steps. With ``--compile`` also how long compiling takes.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from io import StringIO
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal

from setting import machine, start

import torch
import torch.nn.functional as F

from minillm.book import lab
from minillm.config import MODELS, TRAINING
from minillm.model.generate import generate
from minillm.model.transformer import Transformer
from minillm.training.devices import set_up_process
from minillm.training.loop import train
from minillm.training.optimizers import make_optimizers


@dataclass(frozen=True)
class Options:
    """Measure the training step and generation."""

    preset: Literal["tiny", "default"] = "default"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """bfloat16 on a CPU pays where it has AMX."""
    batch_size: int = 8
    """Rows in a step; 128 for a large GPU."""
    length: int = 512
    """Tokens in a row."""
    compile: bool = False
    """Compile both models, each with its loss."""
    steps: int = 5
    """Of which the median counts, after two that do not."""
    new_tokens: int = 256
    """Tokens to generate."""


def seconds(
    works: Sequence[Callable[[], object]], device: torch.device, repeats: int
) -> list[float]:
    """The median time of each, all of them in turn."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(repeats + 2):
        for work, taken in zip(works, times, strict=True):
            started = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - started)
    return [median(taken[2:]) for taken in times]


def hugging_face(model: Transformer) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = asdict(model.config)
    theta = shape.pop("rope_theta")
    config = LlamaConfig(
        **shape,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    llama: Any = LlamaForCausalLM(config)
    llama.load_state_dict(model.state_dict(), strict=False)
    return llama.to(next(model.parameters()).device)


def seconds_of_a_training_step(options: Options) -> float:
    """The median over steps of the whole loop: reading, packing, learning (by AdamW), logging."""
    started: list[float] = []
    with tempfile.TemporaryDirectory() as name, redirect_stdout(StringIO()):
        config = replace(
            TRAINING[options.preset]["pretrain"],
            data_path=lab.data() / "pretrain_chinese.jsonl",
            tokenizer_path=lab.tokenizer_path() if options.preset == "tiny" else None,
            out_dir=Path(name),
            tf_dir=Path(name),
            max_seq_len=options.length,
            batch_size=options.batch_size,
            accumulation_steps=1,
            epochs=99,
            max_steps=options.steps + 4,
            optimizer="adamw",
            device=options.device,
            dtype=options.dtype,
            compile=options.compile,
            eval_every=10**6,
            save_every=10**6,
        )
        with redirect_stderr(StringIO()):
            train(config, "pretrain", lambda *_: started.append(time.perf_counter()))
    # The last step validates and the first ones compile.
    return median(b - a for a, b in pairwise(started[2:-1]))


def main(options: Options) -> None:
    process = set_up_process(options.device, options.dtype)
    device, dtype = process.device, process.dtype
    torch.manual_seed(0)
    model = Transformer(MODELS[options.preset]).to(device)
    llama = hugging_face(model)
    config = model.config
    size = (options.batch_size, options.length)
    tokens = torch.randint(config.vocab_size, size, device=device)
    quarter = math.ceil(options.length / 4)
    places = torch.arange(options.length, device=device).expand(size)
    position_ids, document_ids = places % quarter, places // quarter
    large = torch.randn(4096, 4096, device=device, dtype=dtype)
    flops_per_token = 6 * (
        model.num_parameters() + config.num_hidden_layers * config.hidden_size * options.length
    )
    print(f"{machine()}; {device}, {dtype}, PyTorch {torch.__version__}\n")
    rates: dict[str, float] = {}
    print("| | tokens/s | GFLOP/s | large matmul | share | memory |")
    print("| --- | --- | --- | --- | --- | --- |")

    compiling = 0.0
    for name, net, logits_of in (
        ("MiniLLM", model, lambda m: m(tokens)),
        ("MiniLLM, four documents a row", model, lambda m: m(tokens, position_ids, document_ids)),
        ("transformers", llama, lambda m: m(tokens, use_cache=False).logits),
    ):
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)

        def loss_of(net: Any, logits_of: Any = logits_of) -> torch.Tensor:
            return F.cross_entropy(logits_of(net).flatten(0, 1).float(), tokens.flatten())

        compiled = torch.compile(loss_of) if options.compile else loss_of

        def step(net: Any = net, loss_of: Any = compiled, optimizer: Any = optimizer) -> None:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                loss = loss_of(net)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        step()
        compiling = compiling or time.perf_counter() - started
        step_seconds, matmul_seconds = seconds([step, lambda: large @ large], device, options.steps)
        flops = flops_per_token * tokens.numel() / step_seconds
        peak = 2 * 4096**3 / matmul_seconds
        memory = torch.cuda.max_memory_allocated() / 1e6 if device.type == "cuda" else 0
        print(
            f"| {name} | {tokens.numel() / step_seconds:,.0f} | {flops / 1e9:,.0f} | "
            f"{peak / 1e9:,.0f} | {flops / peak:.0%} | {f'{memory:,.0f} MB' if memory else ''} |",
            flush=True,
        )
        rates[name] = tokens.numel() / step_seconds
        del optimizer
    if options.compile:
        print(f"\nfirst step of MiniLLM, which compiles it: {compiling:.0f} s")

    positions = tokens.numel() / seconds_of_a_training_step(options)
    raw = rates["MiniLLM, four documents a row"]
    print(
        f"\nthe whole training loop: {positions:,.0f} positions/s, {positions / raw:.0%} of the "
        "raw step with four documents a row"
    )

    # The two have learned differently since; start generation from the same weights again.
    llama.load_state_dict(model.state_dict(), strict=False)
    prompt = tokens[:1, :16]
    count = min(options.new_tokens, config.max_position_embeddings - prompt.shape[1])
    by_llama: list[int] = []

    def generate_by_llama() -> None:
        with torch.no_grad():
            ids = llama.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=count,
                do_sample=False,
            )
        by_llama[:] = ids[0, prompt.shape[1] :].tolist()

    by_us: list[int | None] = []

    def generate_by_us() -> None:
        by_us[:] = [token for (token,) in generate(model, prompt.tolist(), count)]

    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    def read() -> None:
        for _ in range(count):
            weights.sum()

    by_turns = seconds([generate_by_llama, generate_by_us, read], device, 3)
    theirs, ours, reading = (count / taken for taken in by_turns)
    if by_us != by_llama:
        sys.exit("the two models generate different tokens")
    print(
        f"\n{count} tokens, batch 1, greedy: MiniLLM {ours:,.0f} tokens/s, transformers "
        f"{theirs:,.0f}: {ours / theirs:.2f} times as fast; adding up all "
        f"weights, which every token has to read, is possible {reading:,.0f} times a second"
    )

    training = TRAINING[options.preset]["pretrain"]
    own = make_optimizers(model, training)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) / parameter.numel()
    (own_seconds,) = seconds([lambda: [optimizer.step() for optimizer in own]], device, 5)
    own_tokens = training.batch_size * training.accumulation_steps * training.max_seq_len
    share = own_seconds / (own_tokens / rates["MiniLLM"] + own_seconds)
    print(
        f"\nthe preset's optimizers: {own_seconds * 1e3:,.0f} ms a step, {share:.0%} of a step of "
        f"{own_tokens:,} tokens"
    )


if __name__ == "__main__":
    start(main, Options)
