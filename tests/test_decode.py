"""Decoding one token: the numbers of the whole model, by other operations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import small
import torch

from minillm.config import ModelConfig
from minillm.decode import OneTokenDecoder, Product
from minillm.model import KVCache


@pytest.mark.parametrize("rows", [(512,), (520, 8), (1023,), (8, 4, 4)])  # 16, 16, 1, 1 slices
def test_a_product_is_that_of_the_matrices(rows: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    matrices = [torch.randn(n, 600) for n in rows]
    x, y = torch.randn(600), torch.empty(sum(rows))
    product = Product(x.numpy(), y.numpy(), *matrices)
    for _ in range(2):
        product()
        assert torch.allclose(y, torch.cat(matrices) @ x, atol=1e-4)
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
        decode = OneTokenDecoder(model, cache)
        scores = torch.cat([decode(int(ids[0, i])) for i in range(7, 60)])
    assert cache.length == 60
    assert expected.std() > 0.1
    assert torch.allclose(scores, expected[7:], rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("error")
def test_large_numbers_do_not_overflow() -> None:
    model = small.model()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "gate_proj" in name:
                weight *= 1e5
        expected = model(torch.tensor([[3]]))[0]
    decode = OneTokenDecoder(model, KVCache(model.config, 1, 8, model.lm_head.weight))
    assert torch.allclose(decode(3), expected, rtol=1e-4, atol=1e-3)
    assert decode.gate.min() < -1000

    keys = torch.full((decode.queries.shape[0], 3, decode.config.head_dim), 1000.0)
    values = torch.randn_like(keys)
    decode.queries[:] = 1000  # all three keys are equally near
    decode.attend(keys.numpy(), values.numpy())
    expected = values.mean(dim=1, keepdim=True).expand(decode.queries.shape)
    assert torch.allclose(torch.from_numpy(decode.attended), expected, atol=1e-6)
