"""One token through the model, on a CPU, with as few and as large operations as possible.

``Transformer.forward`` does the same in some 100 small operations a layer, for any number of rows
and tokens. With a single token each of them takes longer to call than to compute, so that here,
where every token of an answer passes, about 25 take their place. What then remains is reading the
weights from memory, once for each token.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from minillm.model import Block, KVCache, Transformer, rotate

SMALL_MATRIX = 2**17
"""Numbers in a matrix for which cutting it into slices takes longer than it saves."""


class Layer(NamedTuple):
    """The weights of a ``Block``, side by side where they multiply the same vector."""

    input_norm: Tensor  # [C]
    qkv: Tensor  # slices of [(H + 2K) D, C]
    output: Tensor  # slices of [C, H D]
    mlp_norm: Tensor  # [C]
    gate_up: Tensor  # slices of [2 intermediate_size, C]
    down: Tensor  # slices of [C, intermediate_size]


def sliced(*matrices: Tensor) -> Tensor:
    """Matrices ``[rows, columns]``, one below the other, as ``[slices, columns, rows / slices]``.

    PyTorch multiplies a matrix by one vector on one core of many a CPU. A batch of slices keeps
    all cores busy.
    """
    matrix = torch.cat(matrices) if len(matrices) > 1 else matrices[0]
    slices = math.gcd(matrix.shape[0], 16) if matrix.numel() >= SMALL_MATRIX else 1
    return matrix.view(slices, -1, matrix.shape[1]).mT


def times(x: Tensor, slices: Tensor) -> Tensor:
    """``[columns]`` → ``[rows]``: the product with the matrices that were sliced."""
    return torch.bmm(x.expand(slices.shape[0], 1, -1), slices).flatten()


class OneTokenDecoder:
    """Computes what ``model(token, cache=cache)`` does for a single token of a single row.

    It keeps copies of some weights, so a model that learns needs a new one.
    """

    def __init__(self, model: Transformer) -> None:
        self.config, self.decoder = model.config, model.model
        self.layers = []
        for block in model.model.layers:
            assert isinstance(block, Block)
            attention, mlp = block.self_attn, block.mlp
            projections = attention.q_proj, attention.k_proj, attention.v_proj
            self.layers.append(
                Layer(
                    block.input_layernorm.weight,
                    sliced(*(projection.weight for projection in projections)),
                    sliced(attention.o_proj.weight),
                    block.post_attention_layernorm.weight,
                    sliced(mlp.gate_proj.weight, mlp.up_proj.weight),
                    sliced(mlp.down_proj.weight),
                )
            )
        self.head = sliced(model.lm_head.weight)
        self.zeros = torch.zeros_like(model.model.norm.weight)

    def __call__(self, token: Tensor, cache: KVCache) -> Tensor:
        """Scores ``[1, vocab_size]`` after ``token`` ``[1, 1]``, which is appended to the cache."""
        H, K, D = (
            self.config.num_attention_heads,
            self.config.num_key_value_heads,
            self.config.head_dim,
        )
        place = cache.length
        cos, sin = self.decoder.cos[place], self.decoder.sin[place]
        x = self.decoder.embed_tokens(token).flatten()  # [C]
        for i, layer in enumerate(self.layers):
            qkv = times(self.norm(x, layer.input_norm), layer.qkv).view(-1, D)
            turned = rotate(qkv[: H + K], cos, sin)
            k, v = cache.append(i, turned[None, H:, None], qkv[None, H + K :, None])
            # The queries that share a key head stand where other tokens would.
            y = F.scaled_dot_product_attention(turned[:H].view(1, K, -1, D), k, v)
            x = x + times(y.flatten(), layer.output)
            gate, up = times(self.norm(x, layer.mlp_norm), layer.gate_up).chunk(2)
            x = x + times(F.silu(gate).mul_(up), layer.down)
        cache.length += 1
        return times(self.norm(x, self.decoder.norm.weight), self.head)[None]

    def norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """RMSNorm of a vector."""
        scale = (torch.dot(x, x).item() / len(x) + self.config.rms_norm_eps) ** -0.5
        return torch.addcmul(self.zeros, x, weight, value=scale)
