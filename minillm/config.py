"""Every default of the model and of training in one place, the values that they may have, and the
presets that name them.

A preset is a complete set of defaults: ``default`` is the 25.8M-parameter model for a GPU;
``small`` is a 3.6M-parameter model that learns to write classical poems by their titles, on a
laptop's CPU in about an hour; ``tiny`` is a 1M-parameter model that learns the built-in micro-world
there in minutes; ``smoke`` is the default model for a handful of steps: it proves that every stage
runs.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from tyro.conf import Suppress

from minillm.errors import UserError

DataStage = Literal["pretrain", "sft", "dpo"]
Stage = Literal[DataStage, "grpo"]
STAGES: tuple[DataStage, ...] = ("pretrain", "sft", "dpo")
"""Those that learn from rows: the data mix writes a file for each. GRPO makes its own answers."""
ALL_STAGES: tuple[Stage, ...] = (*STAGES, "grpo")
PREVIOUS_STAGE: dict[Stage, Stage | None] = {
    "pretrain": None,
    "sft": "pretrain",
    "dpo": "sft",
    "grpo": "dpo",
}
Preset = Literal["default", "small", "tiny", "smoke"]
PRESETS: tuple[Preset, ...] = ("default", "small", "tiny", "smoke")
Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class Range:
    """The values that a number may have, as an annotation of its type:
    ``Annotated[int, Range(1, 64)]``. Infinity and "not a number" are never among them."""

    least: float = 0
    most: float = 1e38
    """A float32 holds little more."""
    above: bool = False
    """The value must be above ``least``, which itself is too little."""

    def demand(self, value: float) -> str | None:
        """What the value would have to be, in words; None: it is in the range."""
        if not -math.inf < value < math.inf:
            return "a finite number"
        if value < self.least or (self.above and value == self.least):
            return f"{'above' if self.above else 'at least'} {self.least:,}"
        return f"at most {self.most:,}" if value > self.most else None


Count = Annotated[int, Range(1, 10**9)]
"""Of what there is at least one of."""
Size = Annotated[int, Range(1, 2**20)]
"""A count that memory or time grows with."""
Seed = Annotated[int, Range(0, 2**63 - 1)]
Share = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(above=True)]
NonNegative = Annotated[float, Range()]


def check_ranges(options: Any) -> None:
    """For the ``__post_init__`` of a dataclass of options: raises UserError, which names the flag,
    if a number is not in the range that its field is annotated with. None is in every range."""
    for name, hint in get_type_hints(type(options), include_extras=True).items():
        value = getattr(options, name)
        for kind in (hint, *get_args(hint)) if value is not None else ():  # also of Count | None
            for allowed in getattr(kind, "__metadata__", ()):
                if isinstance(allowed, Range) and (demand := allowed.demand(value)):
                    raise UserError(f"--{name} must be {demand}, not {value}")


def default_tf_dir() -> Path:
    """Where logs go: ``$TF_DIR``, else ``tf_dir`` in the folder above the current one."""
    return Path(os.environ.get("TF_DIR") or Path("..") / "tf_dir")


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the Llama-style Transformer, under Hugging Face's names. The default has
    25,829,888 parameters."""

    vocab_size: Size = 6400
    """Rows of the embedding table: merged tokens plus special tokens."""
    hidden_size: Size = 512
    """Width of the residual stream."""
    intermediate_size: Size = 1408
    """Inner width of the SwiGLU feed-forward network."""
    num_hidden_layers: Annotated[int, Range(1, 1024)] = 8
    """Transformer blocks."""
    num_attention_heads: Annotated[int, Range(1, 1024)] = 8
    """Query heads; each is attention_hidden_size / num_attention_heads wide."""
    num_key_value_heads: Annotated[int, Range(1, 1024)] = 2
    """Key and value heads, shared by groups of query heads."""
    attention_hidden_size: Size | None = None
    """Width of all query heads together; None: hidden_size."""
    max_position_embeddings: Size = 2048
    """Longest sequence, in tokens, that positions exist for."""
    rope_theta: Annotated[float, Range(1)] = 10000.0
    """Base of the rotary position embedding's wavelengths."""
    rms_norm_eps: Annotated[float, Range(0, 1, above=True)] = 1e-5
    """Added to the mean square in RMSNorm."""
    tie_word_embeddings: bool = True
    """The output layer is the embedding table, not a matrix of its own."""

    def __post_init__(self) -> None:
        check_ranges(self)
        name = "attention_hidden_size" if self.attention_hidden_size else "hidden_size"
        if (width := getattr(self, name)) % (2 * self.num_attention_heads):
            raise UserError(
                f"--{name} {width} must be a multiple of twice "
                f"--num_attention_heads {self.num_attention_heads} (rotary embeddings turn pairs)"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise UserError(
                f"--num_attention_heads {self.num_attention_heads} must be a multiple of "
                f"--num_key_value_heads {self.num_key_value_heads}"
            )

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return (self.attention_hidden_size or self.hidden_size) // self.num_attention_heads


@dataclass(frozen=True)
class TrainConfig:
    """How one stage is trained. A *row* is a packed one, of ``max_seq_len`` tokens; a step
    is one of the optimizer."""

    data_path: Path = Path("data/processed/pretrain_chinese.jsonl")
    """Training rows, in any format that `minillm import` reads: a file, a folder of shards, or
    a pattern of them in quotes, as `'shards/part-*.jsonl'`. Shards are read in the order of their
    names, as if they were one file. FILE_val.jsonl beside a FILE.jsonl is used for validation, and
    so is what ends in _val in a folder."""
    out_dir: Path = Path("out")
    """Where weights go and where the previous stage's weights are looked for."""
    tokenizer_path: Path | None = None
    """Folder of the tokenizer; None: OUT_DIR/tokenizer if it exists, else the one that ships with
    the package."""
    tf_dir: Path = field(default_factory=default_tf_dir)
    """Where TensorBoard logs go (environment variable TF_DIR, else ../tf_dir)."""
    init_from: Path | None = None
    """Weights to start from: a file of them, or a Hugging Face Llama folder, which then decides the
    model's shape and tokenizer too; None: the newest ones of the previous stage (pretrain: fresh
    weights)."""
    resume: bool = False
    """Go on from this stage's newest checkpoint in OUT_DIR/checkpoints."""

    model: ModelConfig = field(default_factory=ModelConfig)

    max_seq_len: Size = 512
    """Longest document in tokens: longer ones are split (pretrain) or cut (SFT, DPO)."""
    batch_size: Size = 32
    """Packed rows in one forward pass, on each device."""
    accumulation_steps: Size = 4
    """Forward passes whose gradients are added up before each optimizer step."""
    epochs: Annotated[int, Range(1, 1000)] = 2
    """Passes over the data."""
    max_steps: Count | None = None
    """Stop after this many optimizer steps, whatever --epochs says."""

    optimizer: Literal["adamw", "muon"] = "muon"
    """muon: matrices of the blocks by Muon, all else by AdamW."""
    learning_rate: Positive = 3e-3
    """Peak learning rate."""
    warmup_fraction: Share = 0.02
    """Share of the steps in which the learning rate rises from 0."""
    decay_fraction: Share = 0.4
    """Share of the steps, at the end, in which it falls to 0; in between it stays at its peak."""
    weight_decay: NonNegative = 0.1
    """Decoupled weight decay of all matrices."""
    clip_norm: Positive = 1.0
    """Largest norm of the gradient."""

    beta: Positive = 0.1
    """DPO: how strongly the policy is held to the reference model."""
    nll_weight: NonNegative = 0.3
    """DPO: weight of the chosen answer's negative log-likelihood per token, which keeps earlier
    skills."""

    seed: Seed = 42
    """Seed of fresh weights and of the order of rows."""
    device: Device = "auto"
    """auto: a CUDA GPU where there is one, else a Mac's GPU (mps), else the CPU."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the matrix products; auto: bfloat16 on a CUDA GPU that has it, else float32;
    on a CPU, bfloat16 pays only if it has AMX or AVX512_BF16 (`lscpu`). Weights are always
    float32."""
    compile: bool = False
    """Compile model and loss by torch.compile: slower to start, faster on a GPU."""
    save_every: Count = 1000
    """Optimizer steps between checkpoints."""
    eval_every: Count = 500
    """Optimizer steps between validations (there is always one at the end)."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.max_seq_len > self.model.max_position_embeddings:
            raise UserError(
                f"--max_seq_len {self.max_seq_len} is longer than --max_position_embeddings "
                f"{self.model.max_position_embeddings}: lower the one or raise the other"
            )
        if self.warmup_fraction + self.decay_fraction > 1:
            raise UserError("--warmup_fraction and --decay_fraction must add up to at most 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class GRPOConfig(TrainConfig):
    """How GRPO trains: in every step the model answers some questions, each several times; what is
    better than the average answer to its question becomes likelier. A *step* is one such batch of
    answers, with all the updates that are made on it."""

    data_path: Path | None = None  # type: ignore[assignment]  # only this stage has questions of its own
    """Questions with answers that can be checked: {"question": …, "answer": …} or conversations, in
    any format that `minillm import` reads; those of FILE_val.jsonl beside it are used for
    validation. If the answer (or what stands behind its last ####) is a number, a reply is right
    whose last number equals it; else one whose last sentence contains it. None: sums and
    differences of the built-in world that SFT never asked for in this way."""
    max_new_tokens: Size = 96
    """Longest answer, in tokens; a longer one is cut off. With its question it must fit into
    --max_seq_len."""
    questions: Size = 16
    """Questions in each step."""
    group_size: Size = 8
    """Answers to each question; they are compared with one another."""
    divide_by_std: bool = False
    """Divide advantages by the standard deviation of their group's rewards, as the first GRPO
    did."""
    length_penalty: NonNegative = 0.0
    """Taken off the reward of a right answer for every 100 tokens of it."""
    updates: Annotated[int, Range(1, 1000)] = 1
    """Optimizer steps on each batch of answers."""
    clip: Annotated[float, Range(0, 1, above=True)] = 0.2
    """With several updates: a token's probability is pushed until it is 1 ± this times what it was
    when the answer was sampled."""
    kl_weight: NonNegative = 0.0
    """How strongly the model is held to the weights that the stage starts from."""

    max_steps: Count = 200
    """Batches of answers."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: matrices of the blocks by Muon, all else by AdamW."""

    # What only stages with rows have is no option here.
    epochs: Suppress[int] = field(default=1, init=False)
    accumulation_steps: Suppress[int] = field(default=1, init=False)
    beta: Suppress[float] = field(default=TrainConfig.beta, init=False)
    nll_weight: Suppress[float] = field(default=TrainConfig.nll_weight, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size == 1:
            raise UserError(
                "--group_size 1: an answer counts by how much better it is than the others to the "
                "same question, so there must be at least 2"
            )
        if self.max_new_tokens >= self.max_seq_len:
            raise UserError(
                f"--max_new_tokens {self.max_new_tokens} leaves no room for a question in "
                f"--max_seq_len {self.max_seq_len}: lower the one or raise the other"
            )


MODELS: dict[Preset, ModelConfig] = {
    "default": ModelConfig(),
    "small": ModelConfig(
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=512,
    ),
    "tiny": ModelConfig(
        vocab_size=1024,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    ),
    "smoke": ModelConfig(),
}

# Learning rates are among the best of those that benchmarks/sweep.py tried, which does not tell
# neighbours apart; DPO's are the lowest that taught nearly every answer to be polite. Small's lie
# between tiny's and the default's.
_DEFAULT: dict[DataStage, TrainConfig] = {
    "pretrain": TrainConfig(),
    "sft": TrainConfig(
        data_path=Path("data/processed/sft_chinese.jsonl"),
        optimizer="adamw",
        learning_rate=3e-4,
        accumulation_steps=2,
    ),
    "dpo": TrainConfig(
        data_path=Path("data/processed/dpo_chinese.jsonl"),
        optimizer="adamw",
        learning_rate=5e-5,
        accumulation_steps=2,
        batch_size=16,
        epochs=1,
        decay_fraction=0.9,
        weight_decay=0.0,
    ),
}


def _tiny(stage: DataStage, **changes: Any) -> TrainConfig:
    # Trial runs keep to folders of their own, so that they never overwrite the weights of a real
    # one.
    return replace(
        _DEFAULT[stage],
        data_path=Path(f"data/processed/tiny/{stage}_chinese.jsonl"),
        out_dir=Path("out/tiny"),
        model=MODELS["tiny"],
        max_seq_len=128,
        batch_size=8,
        accumulation_steps=1,
        **changes,
    )


def _small(stage: DataStage, **changes: Any) -> TrainConfig:
    return replace(
        _DEFAULT[stage],
        data_path=Path(f"data/processed/small/{stage}_chinese.jsonl"),
        out_dir=Path("out/small"),
        model=MODELS["small"],
        max_seq_len=256,
        batch_size=16,
        accumulation_steps=1,
        epochs=1,
        **changes,
    )


def _smoke(stage: DataStage) -> TrainConfig:
    return replace(
        _DEFAULT[stage],
        data_path=Path(f"data/processed/smoke/{stage}_chinese.jsonl"),
        out_dir=Path("out/smoke"),
        max_seq_len=128,
        batch_size=4,
        accumulation_steps=2,
        epochs=1,
        max_steps=4,
        device="cpu",
        dtype="float32",
        save_every=2,
    )


TRAINING: dict[Preset, dict[DataStage, TrainConfig]] = {
    "default": _DEFAULT,
    "small": {
        "pretrain": _small("pretrain", learning_rate=5e-3, max_steps=2000),
        "sft": _small("sft", optimizer="muon", learning_rate=2e-3, max_steps=400),
        # There are no pairs of poems: this is for pairs of the reader's own, and never tried.
        "dpo": _small("dpo", learning_rate=1e-4),
    },
    "tiny": {
        "pretrain": _tiny("pretrain", learning_rate=6e-3, epochs=1, max_steps=1500),
        "sft": _tiny(
            "sft",
            optimizer="muon",
            learning_rate=6e-3,
            epochs=1,
            max_steps=1000,
            decay_fraction=0.9,
        ),
        "dpo": _tiny("dpo", learning_rate=1e-4, epochs=3),
    },
    "smoke": {stage: _smoke(stage) for stage in STAGES},
}

GRPO_PRESETS: dict[Preset, GRPOConfig] = {
    # Sensible, but never tried.
    "default": GRPOConfig(
        learning_rate=1e-5,
        decay_fraction=0.0,
        weight_decay=0.0,
        save_every=50,
        eval_every=20,
    ),
    # Never tried either: a poem is not right or wrong, so it needs questions of the reader's own.
    "small": GRPOConfig(
        out_dir=Path("out/small"),
        model=MODELS["small"],
        max_seq_len=256,
        batch_size=16,
        learning_rate=1e-4,
        decay_fraction=0.0,
        weight_decay=0.0,
        save_every=50,
        eval_every=20,
    ),
    "tiny": GRPOConfig(
        out_dir=Path("out/tiny"),
        model=MODELS["tiny"],
        max_seq_len=128,
        batch_size=8,
        max_steps=40,
        learning_rate=3e-4,
        warmup_fraction=0.1,
        decay_fraction=0.0,
        weight_decay=0.0,
        eval_every=10,
    ),
    "smoke": GRPOConfig(
        out_dir=Path("out/smoke"),
        max_seq_len=128,
        batch_size=4,
        max_new_tokens=8,
        questions=2,
        group_size=2,
        max_steps=2,
        device="cpu",
        dtype="float32",
        save_every=1,
    ),
}
