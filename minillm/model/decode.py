"""One token through the model, on a CPU, with as few and as cheap operations as possible.

``Transformer.forward`` computes the same for any number of rows and tokens, in some 40 small
PyTorch operations a layer. With a single token each of them takes longer to call than to compute.
So here, where every token of an answer passes, PyTorch multiplies by the matrices and NumPy, whose
operations are cheaper to call, does the rest in the same memory. Nothing is copied: the weights are
read where the model keeps them. ``benchmarks/speed.py --writing`` measures what this buys.

All of it is float32, as weights files are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from minillm.model.transformer import Block, KVCache, Transformer

Array = NDArray[np.float32]

SMALL_MATRIX = 2**17
"""Numbers in a matrix for which cutting it into slices takes longer than it saves."""


class Product:
    """The product of a matrix ``[rows, columns]`` with a vector.

    On processors for which MKL has only its plain code, PyTorch multiplies a matrix by one vector
    on one core. A batch of slices keeps all cores busy, there and elsewhere.

    Args:
        x: as many numbers as the matrix has columns; read at every call.
        y: as many numbers as it has rows; written then.
    """

    def __init__(self, x: Array, y: Array, matrix: Tensor) -> None:
        slices = math.gcd(matrix.shape[0], 16) if matrix.numel() >= SMALL_MATRIX else 1
        # [slices, columns, rows / slices]
        self.slices = matrix.detach().view(slices, -1, matrix.shape[1]).mT
        self.x = torch.from_numpy(x).view(1, 1, -1).expand(slices, 1, -1)
        self.y = torch.from_numpy(y).view(slices, 1, -1)

    def __call__(self) -> None:
        torch.bmm(self.x, self.slices, out=self.y)


class Layer(NamedTuple):
    """A ``Block``."""

    input_norm: Array
    q: Product
    k: Product
    v: Product
    keys: Array
    """``[K, max_length, D]``: the cache's, which grows in place."""
    values: Array
    output: Product
    mlp_norm: Array
    gate: Product
    up: Product
    down: Product


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
        self.head = Product(self.normed, self.scores, model.lm_head.weight)

    def _layer(self, block: nn.Module, keys: Array, values: Array) -> Layer:
        assert isinstance(block, Block)
        attention, mlp = block.self_attn, block.mlp
        return Layer(
            input_norm=block.input_layernorm.weight.detach().numpy(),
            q=Product(self.normed, self.queries, attention.q_proj.weight),
            k=Product(self.normed, self.keys, attention.k_proj.weight),
            v=Product(self.normed, self.values, attention.v_proj.weight),
            keys=keys,
            values=values,
            output=Product(self.attended, self.change, attention.o_proj.weight),
            mlp_norm=block.post_attention_layernorm.weight.detach().numpy(),
            gate=Product(self.normed, self.gate, mlp.gate_proj.weight),
            up=Product(self.normed, self.up, mlp.up_proj.weight),
            down=Product(self.hidden, self.change, mlp.down_proj.weight),
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
