"""One token through the model, on a CPU, with as few and as cheap operations as possible.

``Transformer.forward`` computes the same for any number of rows and tokens, in some 100 small
PyTorch operations a layer. With a single token each of them takes longer to call than to compute.
So here, where every token of an answer passes, PyTorch multiplies by the large matrices, four times
a layer, and NumPy, whose operations are cheaper to call, does the rest in the same memory. What
then remains is mostly reading the weights, once for each token. They drive everything else out of
the processor's caches, the code of the small operations too: many kinds of them cost more than many
of one kind.

All of it is float32, as weights files are.
"""

from __future__ import annotations

import math
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minillm.model.transformer import Block, KVCache, Transformer

Array = NDArray[np.float32]

SMALL_MATRIX = 2**17
"""Numbers in a matrix for which cutting it into slices takes longer than it saves."""


class Product:
    """The product of a matrix ``[rows, columns]`` with a vector.

    PyTorch multiplies a matrix by one vector on one core of many a CPU. A batch of slices keeps
    all cores busy.

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


class Joined(NamedTuple):
    """Matrices of a ``Block`` that multiply the same vector, one below the other."""

    qkv: Tensor
    """``[(H + 2 K) D, hidden_size]``; queries come out divided by sqrt(D), as attention asks."""
    gate_up: Tensor
    """``[2 intermediate_size, hidden_size]``"""


_joined: WeakKeyDictionary[Transformer, tuple[list[object], list[Joined]]] = WeakKeyDictionary()


def join(model: Transformer) -> list[Joined]:
    """Copies of matrices, for each layer.

    Making them takes as long as ten tokens, so they are kept for the next answer, until a weight
    changes. PyTorch counts the changes of each; one made through ``weight.data`` escapes it.
    """
    state: list[object] = []
    for weight in model.parameters():
        # Changes of a tensor made in inference mode are not counted, and nothing equals object().
        state += [weight.data_ptr(), object() if weight.is_inference() else weight._version]
    if model not in _joined or _joined[model][0] != state:
        layers = []
        for block in model.model.layers:
            assert isinstance(block, Block)
            attention, mlp = block.self_attn, block.mlp
            q = attention.q_proj.weight * model.config.head_dim**-0.5
            qkv = torch.cat((q, attention.k_proj.weight, attention.v_proj.weight))
            gate_up = torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight))
            layers.append(Joined(qkv.detach(), gate_up.detach()))
        _joined[model] = state, layers
    return _joined[model][1]


class Layer(NamedTuple):
    """A ``Block``."""

    input_norm: Array
    qkv: Product
    keys: Array
    """``[K, max_length, D]``: the cache's, which grows in place."""
    values: Array
    output: Product
    mlp_norm: Array
    gate_up: Product
    down: Product


class OneTokenDecoder:
    """Computes what ``model(token, cache=cache)`` does for a single token of a single row.

    Args:
        model: if it learns on, it needs a new decoder.
        cache: of one row; every call appends to it.
    """

    def __init__(self, model: Transformer, cache: KVCache) -> None:
        config, decoder = model.config, model.model
        H, K, D = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.config, self.cache = config, cache
        self.embeddings: Array = decoder.embed_tokens.weight.detach().numpy()
        # The vectors that the products read and write, and views of their parts.
        self.x, self.normed, self.change = np.zeros((3, config.hidden_size), np.float32)
        self.heads = np.zeros((H + 2 * K, D), np.float32)
        self.values = self.heads[H + K :]
        # The numbers of a head's two halves turn in pairs.
        self.turning = self.heads[: H + K].reshape(-1, 2, D // 2)
        self.partners = self.turning[:, ::-1]
        # The queries that share a key head are the rows of one matrix.
        self.queries, self.keys = self.heads[:H].reshape(K, H // K, D), self.heads[H : H + K]
        self.attended = np.zeros_like(self.queries)
        self.gate, self.up = self.gate_up = np.zeros((2, config.intermediate_size), np.float32)
        self.hidden = np.zeros_like(self.up)
        self.gate_tensor = torch.from_numpy(self.gate)
        self.hidden_tensor = torch.from_numpy(self.hidden)
        self.scores = np.zeros(config.vocab_size, np.float32)
        self.layers = []
        for block, joined, keys, values in zip(
            decoder.layers, join(model), cache.keys, cache.values, strict=True
        ):
            assert isinstance(block, Block)
            self.layers.append(
                Layer(
                    block.input_layernorm.weight.detach().numpy(),
                    Product(self.normed, self.heads, joined.qkv),
                    keys[0].numpy(),
                    values[0].numpy(),
                    Product(self.attended, self.change, block.self_attn.o_proj.weight),
                    block.post_attention_layernorm.weight.detach().numpy(),
                    Product(self.normed, self.gate_up, joined.gate_up),
                    Product(self.hidden, self.change, block.mlp.down_proj.weight),
                )
            )
        self.cos = decoder.cos.numpy().reshape(-1, 2, D // 2)
        self.sin = decoder.sin.numpy().reshape(-1, 2, D // 2)
        self.last_norm: Array = decoder.norm.weight.detach().numpy()
        self.head = Product(self.normed, self.scores, model.lm_head.weight)

    def __call__(self, token: int) -> Tensor:
        """Scores ``[1, vocab_size]`` after ``token``, which is appended to the cache."""
        place, end = self.cache.length, self.cache.length + 1
        cos, sin = self.cos[place], self.sin[place]
        self.x[:] = self.embeddings[token]
        for layer in self.layers:
            self.norm(layer.input_norm)
            layer.qkv()
            self.turn(cos, sin)
            layer.keys[:, place], layer.values[:, place] = self.keys, self.values
            self.attend(layer.keys[:, :end], layer.values[:, :end])
            layer.output()
            self.x += self.change
            self.norm(layer.mlp_norm)
            layer.gate_up()
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
        weights = self.queries @ keys.transpose(0, 2, 1)  # [K, H / K, end]
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
