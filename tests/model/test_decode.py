"""Decoding one token: the numbers of the whole model, by other operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import small
import torch
from torch import Tensor

from minillm.config import ModelConfig
from minillm.model.decode import OneTokenDecoder, product
from minillm.model.transformer import KVCache


def difference(scores: Tensor, expected: Tensor) -> float:
    """The largest one, as a share of the largest score."""
    return float((scores - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("rows", [512, 1023, 16])  # 16 slices, 1, by NumPy
def test_a_product_is_that_of_the_matrix(rows: int) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(rows, 600)
    x, y = torch.randn(600), torch.empty(rows)
    multiply = product(x.numpy(), y.numpy(), matrix)
    for _ in range(2):
        multiply()
        assert torch.allclose(y, matrix @ x, atol=1e-4)
        x *= 2


@pytest.mark.parametrize(
    "config",
    [
        small.CONFIG,
        replace(small.CONFIG, num_key_value_heads=4, rope_theta=500.0, rms_norm_eps=0.1),
        replace(small.CONFIG, num_key_value_heads=1),
        ModelConfig(num_hidden_layers=2),
    ],
)
def test_scores_equal_those_of_the_whole_model(config: ModelConfig) -> None:
    model = small.model(1, config)
    with torch.inference_mode():
        for parameter in model.parameters():  # fresh weights hardly attend to anything
            parameter.add_(torch.randn_like(parameter) * 0.1)
        ids = torch.randint(config.vocab_size, (1, 60))
        expected = model(ids)[0]
        cache = KVCache(config, 1, 60, model.lm_head.weight)
        model(ids[:, :7], cache=cache)
        one_token = OneTokenDecoder(model, cache)
        scores = torch.cat([one_token(int(ids[0, i])) for i in range(7, 60)])
    assert cache.length == 60
    assert expected.std() > 0.1
    assert difference(scores, expected[7:]) < 1e-5


def test_a_model_that_changes_is_decoded_as_it_is_now() -> None:
    model = small.model(1)
    weight = model.model.layers[1].mlp.up_proj.weight
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    ids = torch.randint(model.config.vocab_size, (1, 8))

    def step() -> None:
        model(ids).logsumexp(-1).sum().backward()
        optimizer.step()

    def in_inference_mode() -> None:
        with torch.inference_mode():
            weight.mul_(2)

    def by_another_tensor() -> None:
        weight.data = weight.detach() + 0.1

    def behind_its_back() -> None:
        weight.data.mul_(2)  # PyTorch counts no change

    def by_a_tensor_of_inference_mode() -> None:
        with torch.inference_mode():
            model.load_state_dict({k: v * 1.5 for k, v in model.state_dict().items()}, assign=True)

    def twice() -> None:
        with torch.inference_mode():
            model.model.layers[0].self_attn.v_proj.weight.mul_(1.5)

    changes: list[Callable[[], object]] = [
        step,
        in_inference_mode,
        by_another_tensor,
        behind_its_back,
        lambda: model.load_state_dict(small.model(2).state_dict()),
        by_a_tensor_of_inference_mode,
        twice,
    ]
    before = torch.zeros(1, model.config.vocab_size)
    for change in changes:
        change()
        with torch.inference_mode():
            scores = OneTokenDecoder(model, KVCache(model.config, 1, 8, weight))(3)
            expected = model(torch.tensor([[3]]))[0]
        assert not torch.allclose(expected, before, atol=1e-2)
        assert difference(scores, expected) < 1e-5
        before = expected


@pytest.mark.filterwarnings("error")
def test_large_numbers_do_not_overflow() -> None:
    model = small.model()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "gate_proj" in name:
                weight *= 1e5
        expected = model(torch.tensor([[3]]))[0]
    one_token = OneTokenDecoder(model, KVCache(model.config, 1, 8, model.lm_head.weight))
    assert torch.allclose(one_token(3), expected, rtol=1e-4, atol=1e-3)
    assert one_token.gate.min() < -1000

    keys = torch.full((one_token.grouped.shape[0], 3, one_token.config.head_dim), 1000.0)
    values = torch.randn_like(keys)
    one_token.grouped[:] = 1000  # all three keys are equally near
    one_token.attend(keys.numpy(), values.numpy())
    expected = values.mean(dim=1, keepdim=True).expand(one_token.grouped.shape)
    assert torch.allclose(torch.from_numpy(one_token.attended), expected, atol=1e-6)
