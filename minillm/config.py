"""Every default of the model and of training in one place, and the presets that name them.

A preset is a complete set of defaults: ``default`` is the 25.8M-parameter model for a GPU;
``tiny`` is a 1M-parameter model that learns the built-in micro-world on a laptop's CPU in
minutes; ``smoke`` is the default model for a handful of steps: it proves that every stage runs.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from minillm.errors import UserError

Stage = Literal["pretrain", "sft", "dpo"]
STAGES: tuple[Stage, ...] = ("pretrain", "sft", "dpo")
PREVIOUS_STAGE: dict[Stage, Stage | None] = {"pretrain": None, "sft": "pretrain", "dpo": "sft"}
Preset = Literal["default", "tiny", "smoke"]
PRESETS: tuple[Preset, ...] = ("default", "tiny", "smoke")


def default_tf_dir() -> Path:
    """Where logs go: ``$TF_DIR``, else ``tf_dir`` in the folder above the current one."""
    return Path(os.environ.get("TF_DIR") or Path("..") / "tf_dir")


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the Llama-style Transformer, under Hugging Face's names. The default has
    25,829,888 parameters."""

    vocab_size: int = 6400
    """Rows of the embedding table: merged tokens plus special tokens."""
    hidden_size: int = 512
    """Width of the residual stream."""
    intermediate_size: int = 1408
    """Inner width of the SwiGLU feed-forward network."""
    num_hidden_layers: int = 8
    """Transformer blocks."""
    num_attention_heads: int = 8
    """Query heads; each is hidden_size / num_attention_heads wide."""
    num_key_value_heads: int = 2
    """Key and value heads, shared by groups of query heads."""
    max_position_embeddings: int = 2048
    """Longest sequence, in tokens, that positions exist for."""
    rope_theta: float = 10000.0
    """Base of the rotary position embedding's wavelengths."""
    rms_norm_eps: float = 1e-5
    """Added to the mean square in RMSNorm."""

    def __post_init__(self) -> None:
        if self.hidden_size % (2 * self.num_attention_heads):
            raise UserError(
                f"--hidden_size {self.hidden_size} must be a multiple of twice "
                f"--num_attention_heads {self.num_attention_heads} (rotary embeddings turn pairs)"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise UserError(
                f"--num_attention_heads {self.num_attention_heads} must be a multiple of "
                f"--num_key_value_heads {self.num_key_value_heads}"
            )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class TrainConfig:
    """How one stage is trained. A *row* is a packed one, of ``max_seq_len`` tokens; a step
    is one of the optimizer."""

    data_path: Path = Path("data/processed/pretrain_chinese.jsonl")
    """Training rows, in any format that `minillm import` reads; rows of FILE_val.jsonl beside it
    are used for validation."""
    out_dir: Path = Path("out")
    """Where weights go and where the previous stage's weights are looked for."""
    tokenizer_path: Path | None = None
    """Folder of the tokenizer; None: OUT_DIR/tokenizer if it exists, else the one that ships with
    the package."""
    tf_dir: Path = field(default_factory=default_tf_dir)
    """Where TensorBoard logs go (environment variable TF_DIR, else ../tf_dir)."""
    init_from: Path | None = None
    """Weights to start from; None: the newest ones of the previous stage (pretrain: fresh
    weights)."""
    resume: bool = False
    """Go on from this stage's newest checkpoint in OUT_DIR/checkpoints."""

    model: ModelConfig = field(default_factory=ModelConfig)

    max_seq_len: int = 512
    """Longest document in tokens: longer ones are split (pretrain) or cut (SFT, DPO)."""
    batch_size: int = 32
    """Packed rows in one forward pass, on each device."""
    accumulation_steps: int = 4
    """Forward passes whose gradients are added up before each optimizer step."""
    epochs: int = 2
    """Passes over the data."""
    max_steps: int | None = None
    """Stop after this many optimizer steps, whatever --epochs says."""

    optimizer: Literal["adamw", "muon"] = "muon"
    """muon: matrices of the blocks by Muon, all else by AdamW."""
    learning_rate: float = 3e-3
    """Peak learning rate."""
    warmup_fraction: float = 0.02
    """Share of the steps in which the learning rate rises from 0."""
    decay_fraction: float = 0.4
    """Share of the steps, at the end, in which it falls to 0; in between it stays at its peak."""
    weight_decay: float = 0.1
    """Decoupled weight decay of all matrices."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""

    beta: float = 0.1
    """DPO: how strongly the policy is held to the reference model."""
    nll_weight: float = 0.3
    """DPO: weight of the chosen answer's negative log-likelihood per token, which keeps earlier
    skills."""

    seed: int = 42
    """Seed of fresh weights and of the order of rows."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a CUDA GPU where there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the matrix products; auto: bfloat16 on a GPU, float32 on a CPU, where bfloat16
    pays only if the CPU has AMX. Weights are always float32."""
    compile: bool = False
    """Compile model and loss by torch.compile: slower to start, faster on a GPU."""
    save_every: int = 1000
    """Optimizer steps between checkpoints."""
    eval_every: int = 500
    """Optimizer steps between validations (there is always one at the end)."""

    def __post_init__(self) -> None:
        for name in (
            "max_seq_len",
            "batch_size",
            "accumulation_steps",
            "epochs",
            "save_every",
            "eval_every",
        ):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 1, not {getattr(self, name)}")
        if self.max_steps is not None and self.max_steps < 1:
            raise UserError(f"--max_steps must be at least 1, not {self.max_steps}")
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


MODELS: dict[Preset, ModelConfig] = {
    "default": ModelConfig(),
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
# neighbours apart; DPO's are the lowest that taught nearly every answer to be polite.
_DEFAULT: dict[Stage, TrainConfig] = {
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


def _tiny(stage: Stage, **changes: Any) -> TrainConfig:
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


def _smoke(stage: Stage) -> TrainConfig:
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


TRAINING: dict[Preset, dict[Stage, TrainConfig]] = {
    "default": _DEFAULT,
    "tiny": {
        "pretrain": _tiny("pretrain", learning_rate=6e-3, epochs=1, max_steps=1500),
        "sft": _tiny(
            "sft", optimizer="muon", learning_rate=6e-3, epochs=1, max_steps=800, decay_fraction=0.9
        ),
        "dpo": _tiny("dpo", learning_rate=1e-4, epochs=2),
    },
    "smoke": {stage: _smoke(stage) for stage in STAGES},
}
