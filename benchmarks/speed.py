"""The speed of a training step and of generation, beside Hugging Face's Llama of the same weights.

    python benchmarks/speed.py                     # on a GPU if there is one
    python benchmarks/speed.py --preset tiny --device cpu
    python benchmarks/speed.py --busy              # with another process at work on the CPU
    python benchmarks/speed.py --writing           # what the one-token decoder buys

Prints, for the raw training step (forward, backward, clipping, AdamW) on random tokens: tokens per
second, the arithmetic that this means (6 FLOP for each parameter and token, and 6 for each
layer, hidden unit and position for causal attention: Chowdhery et al. 2022, arXiv:2204.02311,
appendix B, halved since half of the positions are masked), and its share of what a large matrix
multiplication reaches, timed in turn with the steps; the same where each row holds four documents
that do not see each other, as in training, and for the whole training loop, on rows of the built-in
data; tokens per second of generation (batch 1, greedy, with the KV cache), where both models have
the same weights and give the same tokens, which is checked; and how long the preset's own
optimizers take beside its much larger steps. With ``--compile`` also how long compiling takes.

``--busy`` times training on the CPU alone, and while one more process keeps a core busy: with
threads that spin while they wait, which is OpenMP's way, and with threads that sleep, which is the
package's. ``--writing`` times generation on the CPU by ``minillm.model.decode``, by the model's own
forward pass, and by transformers. Both measure both models with one thread and with all, take
medians of rounds in which everything has its turn, and repeat what other processes disturbed.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from io import StringIO
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal
from unittest.mock import patch

from setting import in_peace, machine, start

import torch
import torch.nn.functional as F
from torch import Tensor

from minillm.book import lab
from minillm.config import MODELS, TRAINING, Device
from minillm.model import generate as generation
from minillm.model.generate import generate
from minillm.model.transformer import Transformer
from minillm.training.devices import set_up_process
from minillm.training.loop import train
from minillm.training.objectives import cross_entropy
from minillm.training.optimizers import make_optimizers


@dataclass(frozen=True)
class Options:
    """Measure the training step and generation."""

    preset: Literal["tiny", "default"] = "default"
    device: Device = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """bfloat16 on a CPU pays where it has AMX or AVX512_BF16."""
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
    busy: bool = False
    """Only: training beside another process."""
    writing: bool = False
    """Only: generation with and without the one-token decoder."""
    rounds: int = 9
    """Of --busy and --writing."""
    seconds: float = 2.0
    """Of training in each round of --busy."""
    others: float = 0.05
    """Share of a core that other processes may take in a round of --busy or --writing."""


PRESETS: tuple[Literal["tiny", "default"], ...] = ("tiny", "default")
LARGE = 4096
"""Rows and columns of the matrices whose product a step is compared with."""
THREADS = sorted({1, os.cpu_count() or 1})
WAITING = {
    "spinning": ("import torch, speed", {}),
    "sleeping": ("import speed", {"OMP_WAIT_POLICY": "PASSIVE"}),
    "as MiniLLM sets it": ("import speed", {}),
}
"""How threads wait for each other: how a process begins, and its environment. Where PyTorch is
loaded before the package, they do as they like."""


def seconds(
    works: Sequence[Callable[[], object]],
    device: torch.device,
    repeats: int,
    others: float = math.inf,
) -> list[float]:
    """The median time of each, all of them in turn; ``others`` as ``in_peace`` has it."""

    def timed(work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        if device.type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter() - started

    def round_of_all() -> list[float]:
        return [in_peace(lambda: timed(work), [os.getpid()], others) for work in works]  # noqa: B023

    times = [round_of_all() for _ in range(repeats + 2)][2:]
    return [median(taken) for taken in zip(*times, strict=True)]


@dataclass(frozen=True)
class Measured:
    """What a raw training step reaches."""

    tokens_per_second: float
    flops: float
    """A second, as the configuration says that a token needs them."""
    matmul_flops: float
    """A second, of a large matrix multiplication in the same dtype."""
    peak_bytes: int | None
    """The most memory of a CUDA GPU that was in use at once; None: another device."""
    first_seconds: float
    """Of the first step, which compiles if there is something to compile."""

    @property
    def share(self) -> float:
        return self.flops / self.matmul_flops


def flops_per_token(model: Transformer, length: int) -> int:
    """See above; for rows of ``length`` tokens."""
    config = model.config
    attention = config.num_hidden_layers * config.hidden_size * length
    return 6 * (model.num_parameters() + attention)


def four_documents(rows: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Position and document ids ``[rows, length]``: four documents of nearly one length a row."""
    places = torch.arange(length, device=device).expand(rows, length)
    quarter = math.ceil(length / 4)
    return places % quarter, places // quarter


def measure_step(
    net: torch.nn.Module,
    loss_of: Callable[[Any], Tensor],
    tokens: int,
    flops: int,
    dtype: torch.dtype,
    repeats: int,
) -> Measured:
    """Forward, backward, clipping and AdamW, in turn with a large matrix multiplication.

    Args:
        loss_of: the mean loss of a batch of ``tokens`` tokens; may be compiled.
        flops: of a token.
        repeats: steps, of which the median counts, after three that do not.
    """
    device = next(net.parameters()).device
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    large = torch.randn(LARGE, LARGE, device=device, dtype=dtype)

    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = loss_of(net)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    step()
    if on_cuda:
        torch.cuda.synchronize()
    first = time.perf_counter() - started
    step_seconds, matmul_seconds = seconds([step, lambda: large @ large], device, repeats)
    return Measured(
        tokens / step_seconds,
        flops * tokens / step_seconds,
        2 * LARGE**3 / matmul_seconds,
        torch.cuda.max_memory_allocated() if on_cuda else None,
        first,
    )


def hugging_face(model: Transformer) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = asdict(model.config)
    theta = shape.pop("rope_theta")
    config = LlamaConfig(
        **shape,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
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


def tokens_per_second(
    model: Transformer, llama: Any, count: int, repeats: int, others: float = math.inf
) -> dict[str, float]:
    """Generation, batch 1, greedy: by MiniLLM, by its forward pass alone, by transformers; and how
    often a second all weights can be read, which every token has to."""
    device = model.lm_head.weight.device
    prompt = torch.randint(model.config.vocab_size, (1, 16), device=device)
    count = min(count, model.config.max_position_embeddings - prompt.shape[1])
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    texts: dict[str, list[int | None]] = {}

    def by_us() -> None:
        texts["MiniLLM"] = [token for (token,) in generate(model, prompt.tolist(), count)]

    def by_the_forward_pass() -> None:
        with patch.object(generation, "OneTokenDecoder", lambda *_: None):
            texts["forward"] = [token for (token,) in generate(model, prompt.tolist(), count)]

    def by_llama() -> None:
        with torch.no_grad():
            ids = llama.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=count,
                do_sample=False,
            )
        texts["transformers"] = ids[0, prompt.shape[1] :].tolist()

    def read() -> None:
        for _ in range(count):
            weights.sum()

    taken = seconds([by_us, by_the_forward_pass, by_llama, read], device, repeats, others)
    if texts["MiniLLM"] != texts["transformers"] or texts["MiniLLM"] != texts["forward"]:
        sys.exit("the models generate different tokens")
    names = ("MiniLLM", "forward", "transformers", "reading")
    return {name: count / each for name, each in zip(names, taken, strict=True)}


def measure_writing(options: Options) -> None:
    """What ``minillm.model.decode`` buys, on the CPU."""
    print(f"{machine()}; PyTorch {torch.__version__}; {options.new_tokens} tokens, batch 1\n")
    print("| | threads | with the decoder | forward pass | transformers | reading all weights |")
    print("| --- | --- | --- | --- | --- | --- |")
    for preset in PRESETS:
        torch.manual_seed(0)
        model = Transformer(MODELS[preset])
        llama = hugging_face(model)
        for threads in THREADS:
            torch.set_num_threads(threads)
            rates = tokens_per_second(
                model, llama, options.new_tokens, options.rounds, options.others
            )
            cells = (f"{rate:,.0f} ({rate / rates['forward']:.2f})" for rate in rates.values())
            print(f"| {preset} | {threads} | {' | '.join(cells)} |", flush=True)


def train_when_asked(preset: Literal["tiny", "default"]) -> None:
    """A process of ``--busy``: for each line on standard input, a number of seconds, it trains so
    long and prints its tokens per second."""
    set_up_process("cpu", "float32")
    torch.manual_seed(0)
    model = Transformer(MODELS[preset])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens = torch.randint(model.config.vocab_size, (8, 128))
    for line in sys.stdin:
        steps, started = 0, time.perf_counter()
        while (passed := time.perf_counter() - started) < float(line):
            loss: Any = F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            steps += 1
        print(steps * tokens.numel() / passed, flush=True)


@contextmanager
def process(code: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs ``code`` beside this one, in the folder of the benchmarks."""
    settings = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # minillm has set them here
    outer = {name: value for name, value in os.environ.items() if name not in settings}
    running = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env={**outer, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    with running:
        try:
            yield running
        finally:
            running.kill()


def trained(trainer: subprocess.Popen[str], options: Options, busy: bool) -> float:
    """Tokens per second of a process that trains, beside one that keeps a core busy or alone."""
    assert trainer.stdin is not None
    assert trainer.stdout is not None
    with process("while True: pass") if busy else nullcontext() as neighbour:
        stdin, stdout = trainer.stdin, trainer.stdout

        def work() -> float:
            print(options.seconds, file=stdin, flush=True)
            return float(stdout.readline())

        pids = [os.getpid(), trainer.pid, *([neighbour.pid] if neighbour else [])]
        return in_peace(work, pids, options.others)


def measure_beside_another_process(options: Options) -> None:
    """Training on the CPU with threads that wait in three ways, alone and not."""
    print(f"{machine()}; PyTorch {torch.__version__}; AdamW, 8 rows of 128 tokens\n")
    print(f"| | threads | {' | and busy | '.join(WAITING)} | and busy |")
    print("| --- | --- |" + " --- |" * 2 * len(WAITING))
    for preset in PRESETS:
        for threads in THREADS:
            with ExitStack() as stack:
                trainers = [
                    stack.enter_context(
                        process(
                            f"{first}; speed.train_when_asked({preset!r})",
                            OMP_NUM_THREADS=str(threads),
                            **environment,
                        )
                    )
                    for first, environment in WAITING.values()
                ]
                cells = [(trainer, busy) for trainer in trainers for busy in (False, True)]
                rounds = [
                    [trained(trainer, options, busy) for trainer, busy in cells]
                    for _ in range(options.rounds + 1)
                ][1:]
            rates = [median(rates) for rates in zip(*rounds, strict=True)]
            shown = (f"{rate:,.0f} ({rate / rates[0]:.0%})" for rate in rates)
            print(f"| {preset} | {threads} | {' | '.join(shown)} |", flush=True)


def main(options: Options) -> None:
    if options.busy or options.writing:
        measure = measure_beside_another_process if options.busy else measure_writing
        measure(options)
        return
    process = set_up_process(options.device, options.dtype)
    device, dtype = process.device, process.dtype
    torch.manual_seed(0)
    model = Transformer(MODELS[options.preset]).to(device)
    llama = hugging_face(model)
    config = model.config
    size = (options.batch_size, options.length)
    tokens = torch.randint(config.vocab_size, size, device=device)
    position_ids, document_ids = four_documents(*size, device)
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

        def loss_of(net: Any, logits_of: Any = logits_of) -> Tensor:
            return cross_entropy(logits_of(net).flatten(0, 1), tokens.flatten()).mean()

        found = measure_step(
            net,
            torch.compile(loss_of) if options.compile else loss_of,
            tokens.numel(),
            flops_per_token(model, options.length),
            dtype,
            options.steps,
        )
        compiling = compiling or found.first_seconds
        memory = f"{found.peak_bytes / 1e6:,.0f} MB" if found.peak_bytes else ""
        print(
            f"| {name} | {found.tokens_per_second:,.0f} | {found.flops / 1e9:,.0f} | "
            f"{found.matmul_flops / 1e9:,.0f} | {found.share:.0%} | {memory} |",
            flush=True,
        )
        rates[name] = found.tokens_per_second
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
    written = tokens_per_second(model, llama, options.new_tokens, repeats=3)
    ours, theirs = written["MiniLLM"], written["transformers"]
    print(
        f"\n{options.new_tokens} tokens, batch 1, greedy: MiniLLM {ours:,.0f} tokens/s, "
        f"transformers {theirs:,.0f}: {ours / theirs:.2f} times as fast; adding up all weights, "
        f"which every token has to read, is possible {written['reading']:,.0f} times a second"
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
