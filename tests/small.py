"""A model, a tokenizer and rows small enough that a test with them takes milliseconds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import torch

from minillm.config import (
    GRPO_PRESETS,
    TRAINING,
    DataStage,
    GRPOConfig,
    ModelConfig,
    Stage,
    TrainConfig,
)
from minillm.model.transformer import Transformer
from minillm.tokenizer.vocabulary import RustBPETokenizer

# A second thread gains nothing at this size, and loses much when the tests share the cores.
torch.set_num_threads(1)

TEXTS = [f"小猫和小狗一起去公园玩，看见{n}只鸟。" for n in range(40)]
CONFIG = ModelConfig(
    vocab_size=320,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
)


@cache
def tokenizer() -> RustBPETokenizer:
    return RustBPETokenizer.train(TEXTS, vocab_size=300, use_rust=False)


def model(seed: int = 0, config: ModelConfig = CONFIG) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(config).eval()


def conversation(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def rows(stage: Stage, count: int = 24) -> list[dict[str, Any]]:
    """Rows of a stage's format, of different lengths."""
    if stage == "pretrain":
        return [{"text": TEXTS[i % len(TEXTS)] * (1 + i % 3)} for i in range(count)]
    if stage == "sft":
        return [
            {"messages": conversation(f"{i}加1？", f"等于{i + 1}。" * (1 + i % 3))}
            for i in range(count)
        ]
    return [
        {
            "chosen": conversation(f"{i}加1？", f"等于{i + 1}，谢谢。"),
            "rejected": conversation(f"{i}加1？", f"{i + 1}" * (1 + i % 3)),
        }
        for i in range(count)
    ]


def write_rows(path: Path, content: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in content))
    return path


def train_config(folder: Path, stage: DataStage, **changes: Any) -> TrainConfig:
    """Settings to train the small model for a few steps, on rows that this writes."""
    data_path = folder / "data" / f"{stage}_chinese.jsonl"
    write_rows(data_path, rows(stage))
    write_rows(data_path.with_name(f"{stage}_chinese_val.jsonl"), rows(stage, 6))
    tokenizer().save(folder / "out" / "tokenizer")
    defaults = replace(
        TRAINING["smoke"][stage],
        data_path=data_path,
        out_dir=folder / "out",
        tf_dir=folder / "tf_dir",
        model=CONFIG,
        max_seq_len=48,
        batch_size=2,
        accumulation_steps=1,
    )
    return replace(defaults, **changes)


def grpo_config(folder: Path, **changes: Any) -> GRPOConfig:
    """Settings to let the small model answer a few questions, which this writes."""
    data_path = folder / "data" / "questions.jsonl"
    questions = [{"question": f"{i}加1？", "answer": i + 1} for i in range(6)]
    write_rows(data_path, questions)
    write_rows(data_path.with_name("questions_val.jsonl"), questions[:3])
    tokenizer().save(folder / "out" / "tokenizer")
    defaults = replace(
        GRPO_PRESETS["smoke"],
        data_path=data_path,
        out_dir=folder / "out",
        tf_dir=folder / "tf_dir",
        model=CONFIG,
        max_seq_len=48,
        batch_size=2,
        max_new_tokens=8,
        questions=3,
        group_size=4,
        max_steps=4,
    )
    return replace(defaults, **changes)
