"""Settings: what values they take, and what is said of those that they do not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_args, get_type_hints

import pytest

from minillm import cli
from minillm.config import ModelConfig, TrainConfig
from minillm.errors import UserError

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


def test_heads_must_share_the_width() -> None:
    with pytest.raises(UserError, match="--hidden_size 500 must be a multiple of"):
        ModelConfig(hidden_size=500)
    with pytest.raises(UserError, match="--num_attention_heads 8 must be a multiple of"):
        ModelConfig(num_key_value_heads=3)
