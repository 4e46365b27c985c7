"""The Transformer: parameters, equality with Hugging Face's Llama, document masks, KV cache."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import pytest
import small
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import LlamaConfig, LlamaForCausalLM

from minillm.config import MODELS, ModelConfig
from minillm.errors import UserError
from minillm.model import transformer
from minillm.model.transformer import KVCache, Transformer, document_mask, rotary_tables, rotate


def test_default_has_the_documented_number_of_parameters() -> None:
    assert Transformer(ModelConfig()).num_parameters() == 25_829_888


def test_tiny_has_about_a_million_parameters() -> None:
    assert 0.8e6 < Transformer(MODELS["tiny"]).num_parameters() < 1.2e6
    assert Transformer(MODELS["small"]).num_parameters() == 3_590_592


@pytest.mark.parametrize(
    "config", [small.CONFIG, ModelConfig(), replace(small.CONFIG, rope_theta=5e5)]
)
def test_logits_equal_hugging_face_llama(config: ModelConfig) -> None:
    model = small.model(1, config)
    reference = LlamaForCausalLM(LlamaConfig(**asdict(config))).eval()
    reference.load_state_dict(model.state_dict())
    input_ids = torch.randint(config.vocab_size, (2, 50))
    with torch.no_grad():
        assert torch.allclose(model(input_ids), reference(input_ids).logits, rtol=0, atol=1e-5)


def test_rotation_by_hand() -> None:
    # Head of 4: pair 0 turns by p radians, pair 1 by p / 10000^(2/4) = p / 100.
    config = replace(small.CONFIG, hidden_size=16, num_attention_heads=4)
    cos, sin = rotary_tables(config)
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    turned = rotate(x, cos[5].view(1, 1, 1, 4), sin[5].view(1, 1, 1, 4)).flatten().tolist()
    expected = [
        1 * math.cos(5) - 3 * math.sin(5),
        2 * math.cos(0.05) - 4 * math.sin(0.05),
        3 * math.cos(5) + 1 * math.sin(5),
        4 * math.cos(0.05) + 2 * math.sin(0.05),
    ]
    assert turned == pytest.approx(expected, abs=1e-5)


def test_document_mask_by_hand() -> None:
    mask = document_mask(torch.tensor([[0, 0, 1, 1]]))[0, 0].int().tolist()
    assert mask == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_packed_documents_are_as_alone(lengths: list[int], seed: int) -> None:
    model = small.model()
    generator = torch.Generator().manual_seed(seed)
    documents = [torch.randint(320, (1, n), generator=generator) for n in lengths]
    ids = torch.cat([torch.full((1, n), i) for i, n in enumerate(lengths)], dim=1)
    positions = torch.cat([torch.arange(n)[None] for n in lengths], dim=1)
    with torch.no_grad():
        packed = model(torch.cat(documents, dim=1), positions, ids)
        alone = torch.cat([model(d) for d in documents], dim=1)
    assert torch.allclose(packed, alone, atol=1e-5)


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_repeated_keys_and_values_are_shared_ones(
    heads: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What CUDA computes under a document mask, computed here: output and gradients, against
    attention by its definition, PyTorch's math kernel."""
    config = replace(small.CONFIG, num_key_value_heads=heads)
    ids, places = torch.randint(320, (2, 24)), torch.arange(24).expand(2, 24)

    def run() -> tuple[Tensor, Tensor]:
        model = small.model(1, config).to(dtype)
        logits = model(ids, places % 9, places // 9)
        logits.square().sum().backward()
        return logits.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])

    with sdpa_kernel(SDPBackend.MATH):
        expected, expected_gradient = run()
    monkeypatch.setattr(transformer, "kernel_shares_heads", lambda mask, device: False)
    logits, gradient = run()
    # atol: gradients are sums of many terms, of which the largest is the measure.
    close = 1e-12 if dtype == torch.float64 else 1e-5
    assert torch.allclose(logits, expected, atol=close)
    assert (gradient - expected_gradient).abs().max() < close * expected_gradient.abs().max()


@pytest.mark.parametrize(
    ("device", "documents", "heads"),
    [("cuda", True, 4), ("cuda", False, 2), ("cpu", True, 2), ("cpu", False, 2)],
)
def test_only_a_mask_on_cuda_repeats_keys_and_values(
    device: str, documents: bool, heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def recorded(q: Tensor, k: Tensor, v: Tensor, **options: object) -> Tensor:
        given.extend((k.shape[1], v.shape[1]))
        return attention(q, k, v, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", recorded)
    with FakeTensorMode(), torch.device(device):
        model = Transformer(small.CONFIG)
        ids = torch.zeros(2, 8, dtype=torch.int64)
        logits = model(ids, document_ids=ids if documents else None)
    assert logits.shape == (2, 8, 320)
    assert given == [heads] * 4  # keys and values of two layers


def test_a_token_sees_no_later_one() -> None:
    model = small.model()
    a = torch.randint(320, (1, 20))
    b = a.clone()
    b[0, 12] = (b[0, 12] + 1) % 320
    with torch.no_grad():
        difference = (model(a) - model(b)).abs().amax(dim=-1)[0]
    assert difference[:12].max() == 0
    assert difference[12:].min() > 0


def test_cache_gives_the_same_logits() -> None:
    model = small.model()
    input_ids = torch.randint(320, (3, 24))
    cache = KVCache(model.config, 3, 24, model.lm_head.weight)
    with torch.no_grad():
        pieces = [model(part, cache=cache) for part in input_ids.split([10, 1, 1, 12], dim=1)]
        assert torch.allclose(torch.cat(pieces, dim=1), model(input_ids), atol=1e-5)
    assert cache.length == 24


@pytest.mark.parametrize("changes", [{"hidden_size": 36}, {"num_key_value_heads": 3}])
def test_impossible_shapes_name_the_flag(changes: dict[str, int]) -> None:
    with pytest.raises(UserError, match="--num_attention_heads 4"):
        replace(small.CONFIG, **changes)
