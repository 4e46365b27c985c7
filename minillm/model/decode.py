"""One token through the model, on a CPU, with as few and as cheap operations as possible.

``Transformer.forward`` computes the same for any number of rows and tokens, in some 40 small
PyTorch operations a layer. With a single token each of them takes longer to call than to compute.
So here, where every token of an answer passes, PyTorch multiplies by the large matrices and NumPy,
whose operations are cheaper to call, does the rest in the same memory. No weight is copied: each is
read where the model keeps it. ``benchmarks/speed.py --writing`` measures what this buys.

All of it is float32, as weights files are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from minillm.model.transformer import Block, KVCache, Transformer

Array = NDArray[np.float32]

SMALL_MATRIX = 2**17
"""Numbers in a matrix up to which NumPy's product, which one core computes, takes least time."""


def product(x: Array, y: Array, matrix: Tensor) -> Callable[[], object]:
    """A function that writes to ``y`` the product of the matrix ``[rows, columns]`` with ``x``.

    Where MKL has only its plain code for a processor, PyTorch multiplies a matrix by one vector on
    one core. A batch of slices keeps all cores busy, there and elsewhere.

    Args:
        x: as many numbers as the matrix has columns; read at every call.
        y: as many numbers as it has rows.
    """
    x, y, matrix = x.reshape(-1), y.reshape(-1), matrix.detach()
    if matrix.numel() <= SMALL_MATRIX:
        return partial(np.dot, matrix.numpy(), x, out=y)
    slices = math.gcd(len(y), 16)
    row = torch.from_numpy(x).expand(slices, 1, -1)
    columns = matrix.view(slices, -1, len(x)).mT  # [slices, columns, rows / slices]
    return partial(torch.bmm, row, columns, out=torch.from_numpy(y).view(slices, 1, -1))


class Layer(NamedTuple):
    """A ``Block``."""

    input_norm: Array
    q: Callable[[], object]
    k: Callable[[], object]
    v: Callable[[], object]
    keys: Array
    """``[K, max_length, D]``: the cache's, which grows in place."""
    values: Array
    output: Callable[[], object]
    mlp_norm: Array
    gate: Callable[[], object]
    up: Callable[[], object]
    down: Callable[[], object]


class OneTokenDecoder:
    """Computes what ``model(token, cache=cache)`` does for a single token of a single row.

    Args:
        model: its weights as they are now; after a change of them it takes a new decoder.
        cache: of one row; every call appends to it.
    """

    def __init__(self, model: Transformer, cache: KVCache) -> None:
        config, decoder = model.config, model.model
        H, K, D = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.config, self.cache = config, cache
        self.embeddings: Array = decoder.embed_tokens.weight.detach().numpy()
        # The vectors that the products read and write, and views of their parts.
        self.x, self.normed, self.change = np.zeros((3, config.hidden_size), np.float32)
        heads = np.zeros((H + 2 * K, D), np.float32)
        self.queries, self.keys, self.values = heads[:H], heads[H : H + K], heads[H + K :]
        # The numbers of a head's two halves turn in pairs.
        self.turning = heads[: H + K].reshape(-1, 2, D // 2)
        self.partners = self.turning[:, ::-1]
        # The queries that share a key head are the rows of one matrix.
        self.grouped = self.queries.reshape(K, H // K, D)
        self.attended = np.zeros_like(self.grouped)
        self.gate, self.up, self.hidden = np.zeros((3, config.intermediate_size), np.float32)
        self.gate_tensor = torch.from_numpy(self.gate)
        self.hidden_tensor = torch.from_numpy(self.hidden)
        self.scores = np.zeros(config.vocab_size, np.float32)
        self.layers = [
            self._layer(block, keys[0].numpy(), values[0].numpy())
            for block, keys, values in zip(decoder.layers, cache.keys, cache.values, strict=True)
        ]
        self.cos = decoder.cos.numpy().reshape(-1, 2, D // 2)
        self.sin = decoder.sin.numpy().reshape(-1, 2, D // 2)
        self.last_norm: Array = decoder.norm.weight.detach().numpy()
        self.head = product(self.normed, self.scores, model.lm_head.weight)

    def _layer(self, block: nn.Module, keys: Array, values: Array) -> Layer:
        assert isinstance(block, Block)
        attention, mlp = block.self_attn, block.mlp
        return Layer(
            input_norm=block.input_layernorm.weight.detach().numpy(),
            q=product(self.normed, self.queries, attention.q_proj.weight),
            k=product(self.normed, self.keys, attention.k_proj.weight),
            v=product(self.normed, self.values, attention.v_proj.weight),
            keys=keys,
            values=values,
            output=product(self.attended, self.change, attention.o_proj.weight),
            mlp_norm=block.post_attention_layernorm.weight.detach().numpy(),
            gate=product(self.normed, self.gate, mlp.gate_proj.weight),
            up=product(self.normed, self.up, mlp.up_proj.weight),
            down=product(self.hidden, self.change, mlp.down_proj.weight),
        )

    def __call__(self, token: int) -> Tensor:
        """Scores ``[1, vocab_size]`` after ``token``, which is appended to the cache."""
        place, end = self.cache.length, self.cache.length + 1
        cos, sin = self.cos[place], self.sin[place]
        self.x[:] = self.embeddings[token]
        for layer in self.layers:
            self.norm(layer.input_norm)
            layer.q()
            layer.k()
            layer.v()
            self.turn(cos, sin)
            layer.keys[:, place], layer.values[:, place] = self.keys, self.values
            self.attend(layer.keys[:, :end], layer.values[:, :end])
            layer.output()
            self.x += self.change
            self.norm(layer.mlp_norm)
            layer.gate()
            layer.up()
            self.swiglu()
            layer.down()
            self.x += self.change
        self.cache.length = end
        self.norm(self.last_norm)
        self.head()
        return torch.from_numpy(self.scores.copy())[None]

    def norm(self, weight: Array) -> None:
        """RMSNorm of x."""
        mean_square = float(self.x.dot(self.x)) / len(self.x)
        np.multiply(self.x, weight, out=self.normed)
        self.normed *= (mean_square + self.config.rms_norm_eps) ** -0.5

    def turn(self, cos: Array, sin: Array) -> None:
        """``minillm.model.transformer.rotate`` of queries and keys, in place."""
        turned = self.partners * sin
        self.turning *= cos
        self.turning += turned

    def attend(self, keys: Array, values: Array) -> None:
        """Attention of one token to all so far, ``[K, end, D]``."""
        weights = self.grouped @ keys.transpose(0, 2, 1)  # [K, H / K, end]
        weights *= keys.shape[-1] ** -0.5
        # Not weights.max(): that goes through a function written in Python.
        weights -= np.maximum.reduce(weights, axis=-1, keepdims=True)
        np.exp(weights, out=weights)
        weights /= np.add.reduce(weights, axis=-1, keepdims=True)
        np.matmul(weights, values, out=self.attended)

    def swiglu(self) -> None:
        """silu(gate) * up, where silu(x) = x * sigmoid(x)."""
        torch.sigmoid(self.gate_tensor, out=self.hidden_tensor)
        self.hidden *= self.gate
        self.hidden *= self.up
