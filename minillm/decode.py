"""One token through the model, on a CPU, with as few and as large operations as possible.

``Transformer.forward`` does the same in some 100 small operations a layer, for any number of rows
and tokens. With a single token each of them takes longer to call than to compute, so that here,
where every token of an answer passes, about 25 take their place, all of which read and write the
same few vectors. What then remains is reading the weights from memory, once for each token.
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


class Product:
    """The product of matrices ``[rows, columns]``, one below the other, with a vector.

    PyTorch multiplies a matrix by one vector on one core of many a CPU. A batch of slices keeps
    all cores busy.

    Args:
        x: contiguous, of as many numbers as the matrices have columns; read whenever the product is
            asked for.
        y: contiguous, of as many numbers as they have rows; written then.
        matrices: several are copied, so a model that learns needs a new product.
    """

    def __init__(self, x: Tensor, y: Tensor, *matrices: Tensor) -> None:
        matrix = torch.cat(matrices) if len(matrices) > 1 else matrices[0]
        slices = math.gcd(matrix.shape[0], 16) if matrix.numel() >= SMALL_MATRIX else 1
        # [slices, columns, rows / slices]
        self.slices = matrix.detach().view(slices, -1, matrix.shape[1]).mT
        self.x = x.view(1, 1, -1).expand(slices, 1, -1)
        self.y = y.view(slices, 1, -1)

    def write(self) -> None:
        """y = matrix x"""
        torch.bmm(self.x, self.slices, out=self.y)

    def add(self) -> None:
        """y = y + matrix x"""
        self.y.baddbmm_(self.x, self.slices)


class Layer(NamedTuple):
    """A ``Block``; matrices that multiply the same vector are one."""

    input_norm: Tensor
    qkv: Product
    output: Product
    mlp_norm: Tensor
    gate_up: Product
    down: Product


class OneTokenDecoder:
    """Computes what ``model(token, cache=cache)`` does for a single token of a single row.

    It keeps copies of some weights, so a model that learns needs a new one.
    """

    def __init__(self, model: Transformer) -> None:
        config, decoder = model.config, model.model
        H, K, D = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.config, self.decoder = config, decoder
        # The vectors that all operations read and write.
        new = decoder.norm.weight.new_empty
        self.x, self.normed, self.zeros = (
            torch.zeros_like(decoder.norm.weight).expand(3, -1).clone()
        )
        self.heads = new(H + 2 * K, D)
        self.attended = new(1, K, H // K, D)
        self.gate_up = new(2, config.intermediate_size)
        self.hidden = new(config.intermediate_size)
        self.scores = new(config.vocab_size)
        self.queries_and_keys, self.values = self.heads[: H + K], self.heads[None, H + K :, None]
        self.gate, self.up = self.gate_up
        self.layers = []
        for block in decoder.layers:
            assert isinstance(block, Block)
            attention, mlp = block.self_attn, block.mlp
            q, k, v = attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight
            gate, up = mlp.gate_proj.weight, mlp.up_proj.weight
            self.layers.append(
                Layer(
                    block.input_layernorm.weight,
                    Product(self.normed, self.heads, q, k, v),
                    Product(self.attended, self.x, attention.o_proj.weight),
                    block.post_attention_layernorm.weight,
                    Product(self.normed, self.gate_up, gate, up),
                    Product(self.hidden, self.x, mlp.down_proj.weight),
                )
            )
        self.head = Product(self.normed, self.scores, model.lm_head.weight)

    @torch.no_grad()
    def __call__(self, token: Tensor, cache: KVCache) -> Tensor:
        """Scores ``[1, vocab_size]`` after ``token`` ``[1, 1]``, which is appended to the cache."""
        H = self.config.num_attention_heads
        cos, sin = self.decoder.cos[cache.length], self.decoder.sin[cache.length]
        self.x.copy_(self.decoder.embed_tokens(token)[0, 0])
        for i, layer in enumerate(self.layers):
            self.norm(layer.input_norm)
            layer.qkv.write()
            turned = rotate(self.queries_and_keys, cos, sin)
            k, v = cache.append(i, turned[None, H:, None], self.values)
            # The queries that share a key head stand where other tokens would.
            queries = turned[:H].view(self.attended.shape)
            self.attended.copy_(F.scaled_dot_product_attention(queries, k, v))
            layer.output.add()
            self.norm(layer.mlp_norm)
            layer.gate_up.write()
            torch.mul(F.silu(self.gate), self.up, out=self.hidden)
            layer.down.add()
        cache.length += 1
        self.norm(self.decoder.norm.weight)
        self.head.write()
        return self.scores.clone()[None]

    def norm(self, weight: Tensor) -> None:
        """RMSNorm of x."""
        mean_square = float(torch.dot(self.x, self.x)) / len(self.x)
        scale = (mean_square + self.config.rms_norm_eps) ** -0.5
        torch.addcmul(self.zeros, self.x, weight, value=scale, out=self.normed)
