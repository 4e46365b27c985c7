"""Settings: what values they take, and what is said of those that they do not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import small

from minillm import cli
from minillm.config import MODELS, PRESETS, TRAINING, ModelConfig, TrainConfig
from minillm.data import mix, poetry
from minillm.errors import UserError
from minillm.evaluate import EVALUATE_PRESETS, WORLD_SCORES, evaluate
from minillm.microworld.identity import SAMPLE_ROWS, persona_conversations
from minillm.training.loop import train

HOSTILE = (-1, 0, math.nan, math.inf, 10**12)

FINE = {
    "ModelConfig.rope_theta": {10**12},
    "TrainConfig.learning_rate": {10**12},
    "TrainConfig.warmup_fraction": {0},
    "TrainConfig.decay_fraction": {0},
    "TrainConfig.weight_decay": {0, 10**12},
    "TrainConfig.clip_norm": {10**12},
    "TrainConfig.beta": {10**12},
    "TrainConfig.nll_weight": {0, 10**12},
    "TrainConfig.seed": {0, 10**12},
    "GRPOConfig.learning_rate": {10**12},
    "GRPOConfig.warmup_fraction": {0},
    "GRPOConfig.decay_fraction": {0},
    "GRPOConfig.weight_decay": {0, 10**12},
    "GRPOConfig.clip_norm": {10**12},
    "GRPOConfig.length_penalty": {0, 10**12},
    "GRPOConfig.kl_weight": {0, 10**12},
    "GRPOConfig.seed": {0, 10**12},
    **{
        f"MixOptions.{name}": {0}
        for name in (
            *("general", "knowledge", "math", "identity", "preference"),
            *("text", "built_in_text", "val_fraction"),
        )
    },
    "MixOptions.seed": {0, 10**12},
    "PersonaOptions.replay_chosen": {0},
    "PersonaOptions.replay_own": {0},
    "PersonaOptions.learning_rate": {10**12},
    "PersonaOptions.seed": {0, 10**12},
    "Sampling.temperature": {0, 10**12},
    "Sampling.top_k": {0},
    "Sampling.seed": {0, 10**12},
}
"""Which of these values a setting takes: it refuses the others, and other settings refuse all."""


def every_default() -> dict[str, Any]:
    """The defaults of all commands, and those in them, by the name of their class."""

    def parts(value: Any) -> Iterator[Any]:
        yield value
        for field in fields(value):
            if is_dataclass(part := getattr(value, field.name)):
                yield from parts(part)

    found = {}
    for command in cli.COMMANDS.values():
        options = cli._load(command.options)
        if isinstance(options, dict):
            options = options["default"]
        if isinstance(options, dict):
            options = options[command.stage]
        for part in parts(options() if isinstance(options, type) else options):
            found[type(part).__name__] = part
    return found


def numbers() -> list[tuple[Any, str]]:
    """Every setting that is a number: the defaults that it is one of, and its name."""
    found = []
    for options in every_default().values():
        settable = {field.name for field in fields(options) if field.init}
        for name, hint in get_type_hints(type(options)).items():
            if name in settable and {int, float} & {hint, *get_args(hint)}:
                found.append((options, name))
    return found


NUMBERS = numbers()


def test_all_settings_are_walked() -> None:
    names = {f"{type(options).__name__}.{field}" for options, field in NUMBERS}
    assert set(FINE) <= names
    assert len(names) >= 50
    assert "TrainConfig.max_steps" in names


@pytest.mark.parametrize(("options", "name"), NUMBERS)
def test_a_number_that_makes_no_sense_is_refused(options: Any, name: str) -> None:
    fine = FINE.get(f"{type(options).__name__}.{name}", set())
    for value in HOSTILE:
        if value in fine:
            assert getattr(replace(options, **{name: value}), name) == value
            continue
        with pytest.raises(UserError) as caught:
            replace(options, **{name: value})
        assert f"--{name} " in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "--batch_size must be at least 1, not 0"),
        ({"batch_size": 10**12}, "--batch_size must be at most 1,048,576, not 1000000000000"),
        ({"epochs": 100_000}, "--epochs must be at most 1,000, not 100000"),
        ({"max_steps": -3}, "--max_steps must be at least 1, not -3"),
        ({"learning_rate": 0.0}, "--learning_rate must be above 0, not 0.0"),
        ({"learning_rate": math.nan}, "--learning_rate must be a finite number, not nan"),
        ({"clip_norm": math.inf}, "--clip_norm must be a finite number, not inf"),
        ({"learning_rate": 1e300}, "--learning_rate must be at most 1e+38, not 1e+300"),
        ({"decay_fraction": 1.5}, "--decay_fraction must be at most 1, not 1.5"),
        ({"decay_fraction": 0.99}, "must add up to at most 1"),
        ({"seed": 10**400}, "--seed must be at most 9,223,372,036,854,775,807, not 1"),
    ],
)
def test_the_message_says_what_is_allowed(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        replace(TrainConfig(), **changes)
    assert message in str(caught.value)


def test_what_may_be_none_may_be_none() -> None:
    assert TrainConfig(max_steps=None).max_steps is None
    assert TrainConfig(max_steps=1).max_steps == 1


def test_every_command_has_every_preset() -> None:
    for name, command in cli.COMMANDS.items():
        options = cli._load(command.options)
        if isinstance(options, dict):
            assert tuple(options) == PRESETS, name


def test_presets_keep_out_of_each_others_folders() -> None:
    """Also of data: small mixes none of the reader's own files but the persona."""
    assert len({TRAINING[preset]["pretrain"].out_dir for preset in PRESETS}) == len(PRESETS)
    assert len({TRAINING[preset]["pretrain"].data_path for preset in PRESETS}) == len(PRESETS)
    for preset in PRESETS:
        processed = mix.MIX_PRESETS[preset].out_dir
        assert processed == EVALUATE_PRESETS[preset].data_dir
        for config in TRAINING[preset].values():
            assert config.data_path.parent == processed
            assert config.model == MODELS[preset]
    assert mix.MIX_PRESETS["small"].data_dir != mix.MIX_PRESETS["default"].data_dir


SIGNS = "风花雪月江山春秋日夜星云松竹梅兰菊柳桥舟鸟鱼马羊酒茶琴棋书画诗剑灯火楼台亭阁"


def poem(i: int) -> poetry.Poem:
    drawn = [SIGNS[(i * 7919 + j * j * (i + 3) + j) % len(SIGNS)] for j in range(20)]
    lines = ["".join(drawn[k : k + 5]) for k in range(0, 20, 5)]
    body = f"{lines[0]}，{lines[1]}。\n{lines[2]}，{lines[3]}。"
    return poetry.Poem(0, f"第{SIGNS[i]}", "无名", body, {})


def test_the_small_preset_from_poems_to_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dozen poems, in the folders and with the model of the preset, for two steps a stage."""
    monkeypatch.chdir(tmp_path)
    rows = [poetry.row_of(poem(i)) for i in range(12)]
    poems = Path("data/poetry")
    small.write_rows(poems / poetry.ROWS, rows)
    chats = [chat for row in rows for chat in poetry.poem_conversations(row)]
    assert {chat["messages"][0]["content"][:7] for chat in chats} >= {"写一首五言绝句"}
    small.write_rows(poems / poetry.CONVERSATIONS, chats)
    persona = [{"messages": turns} for turns in persona_conversations(SAMPLE_ROWS)]
    small.write_rows(poems / "identity_conversations.jsonl", persona)
    report = mix.build(replace(mix.MIX_PRESETS["small"], general=40, val_fraction=0.1))
    counts = {name: category.rows for name, category in report.categories.items()}
    assert counts.pop("text") >= 8
    none = dict.fromkeys(("knowledge", "math", "preference"), 0)
    assert counts == {"general": 40, "identity": 300, **none}
    assert report.outputs["dpo_chinese.jsonl"] == 0
    for stage in ("pretrain", "sft"):
        config = TRAINING["small"][stage]
        train(replace(config, max_steps=2, batch_size=2, tf_dir=Path("tf"), device="cpu"), stage)
        options = replace(EVALUATE_PRESETS["small"], stage=stage, max_new_tokens=4, device="cpu")
        scores = evaluate(replace(options, tf_dir=Path("tf")))
        assert scores["parameters"] == 3_590_592
        assert scores["val_loss"] > 0
        assert set(WORLD_SCORES) <= set(scores["left_out"])
        assert "identity_hit_rate" in scores
        assert scores["samples"]


def test_heads_must_share_the_width() -> None:
    with pytest.raises(UserError, match="--hidden_size 500 must be a multiple of"):
        ModelConfig(hidden_size=500)
    with pytest.raises(UserError, match="--num_attention_heads 8 must be a multiple of"):
        ModelConfig(num_key_value_heads=3)
