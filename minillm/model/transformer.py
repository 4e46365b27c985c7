"""The Transformer: Llama's architecture, small enough to read in one sitting.

RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467), rotary position embeddings (Su et al. 2021,
arXiv:2104.09864), grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245), SwiGLU
(Shazeer 2020, arXiv:2002.05202), and, unless the config says otherwise, one table for input and
output embeddings (Press & Wolf 2017, arXiv:1608.05859).

Modules carry Hugging Face's names, so ``state_dict()`` loads into ``LlamaForCausalLM`` as it is.
Shapes in comments: B rows, T positions, S keys, H query heads, K key/value heads, D head_dim, C
hidden_size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minillm.config import ModelConfig


class KVCache:
    """Keys and values of the tokens already seen, so that decoding computes each of them once.

    One pair of ``[B, K, max_length, D]`` buffers per layer; ``length`` slots are filled. ``valid``
    ``[B, max_length]`` (bool) is False in the slots of padding, which no token may attend to; None
    if there is none.
    """

    def __init__(self, config: ModelConfig, batch_size: int, max_length: int, like: Tensor) -> None:
        shape = (batch_size, config.num_key_value_heads, max_length, config.head_dim)
        self.keys = [like.new_zeros(shape) for _ in range(config.num_hidden_layers)]
        self.values = [like.new_zeros(shape) for _ in range(config.num_hidden_layers)]
        self.valid: Tensor | None = None
        self.length = 0

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores ``[B, K, T, D]`` and returns all ``[B, K, length + T, D]``."""
        end = self.length + k.shape[2]
        self.keys[layer][:, :, self.length : end] = k
        self.values[layer][:, :, self.length : end] = v
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]


def rotary_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """cos and sin ``[max_position_embeddings, D]``: position p turns pair i by p / theta^(2i/D)
    radians. Each angle is there twice, for both members of its pair; the first one's sine is
    negative."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    inv_freq = 1.0 / config.rope_theta**exponents
    angles = torch.outer(torch.arange(config.max_position_embeddings).float(), inv_freq)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns each pair (x_i, x_{i + D/2}) of ``[B, heads, T, D]`` by its angle; cos, sin ``[B, 1,
    T, D]``, as ``rotary_tables`` has them. Rolling by half a head puts each beside its partner."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


def document_mask(document_ids: Tensor) -> Tensor:
    """``[B, T]`` document numbers → bool ``[B, 1, T, T]``: attend to the same document's earlier
    tokens."""
    T = document_ids.shape[1]
    causal = torch.ones(T, T, dtype=torch.bool, device=document_ids.device).tril()
    same = document_ids[:, :, None] == document_ids[:, None, :]
    return (same & causal)[:, None]


def kernel_shares_heads(mask: Tensor | None, device: torch.device) -> bool:
    """Whether the attention kernel is left to give several query heads the same keys and values.

    Not under a mask on CUDA. There FlashAttention takes no mask (``check_for_attn_mask`` in
    PyTorch's aten/src/ATen/native/transformers/sdp_utils_cpp.h). The memory-efficient kernel does,
    in float32 too, but up to 2026 only with as many keys as queries
    (``can_use_mem_efficient_attention`` in cuda/sdp_utils.cpp; pytorch/pytorch#191085, which 2.15
    has, teaches it to share them). So an older PyTorch took the math kernel without a word, unless
    cuDNN's is for the GPU: it stores the score of every pair, ``[B, H, T, T]`` in each layer. Keys
    and values that are repeated first suit every version. They cost 4 H D bytes a token and layer
    in bfloat16, where the scores in float32 would cost 4 H T.
    """
    return mask is None or device.type != "cuda"


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        C, D = config.hidden_size, config.head_dim
        H, K = config.num_attention_heads, config.num_key_value_heads
        self.H, self.K, self.D = H, K, D
        self.q_proj = nn.Linear(C, H * D, bias=False)
        self.k_proj = nn.Linear(C, K * D, bias=False)
        self.v_proj = nn.Linear(C, K * D, bias=False)
        self.o_proj = nn.Linear(H * D, C, bias=False)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        B, T, _ = x.shape
        # B is 0 where the last rows of a run do not suffice for all processes.
        H, K, D = self.H, self.K, self.D
        q = self.q_proj(x).view(B, T, H, D).transpose(1, 2)  # [B, H, T, D]
        k = self.k_proj(x).view(B, T, K, D).transpose(1, 2)  # [B, K, T, D]
        v = self.v_proj(x).view(B, T, K, D).transpose(1, 2)  # [B, K, T, D]
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)  # [B, K, S, D]
        if not kernel_shares_heads(mask, x.device):
            k, v = (x.repeat_interleave(H // K, dim=1) for x in (k, v))  # [B, H, S, D]
        # A single token may attend to all that the cache holds, and needs no mask.
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None and T > 1, enable_gqa=True
        )  # [B, H, T, D]
        return self.o_proj(y.transpose(1, 2).reshape(B, T, H * D))  # type: ignore[no-any-return]


class MLP(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Embedding, blocks and the last norm: everything but the output layer."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        cos, sin = rotary_tables(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        x = self.embed_tokens(input_ids)  # [B, T, C]
        cos = self.cos[position_ids][:, None].to(x.dtype)  # [B, 1, T, D]
        sin = self.sin[position_ids][:, None].to(x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin, mask, cache)
        return self.norm(x)  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """A causal language model: token ids in, a score for every possible next token out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.apply(self._init)

    def _init(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        # The 2L layers that write to the residual stream start smaller, so that its variance does
        # not grow with depth (GPT-2, Radford et al. 2019, section 2.3).
        if isinstance(module, Attention | MLP):
            out = module.o_proj if isinstance(module, Attention) else module.down_proj
            nn.init.normal_(out.weight, std=0.02 / math.sqrt(2 * self.config.num_hidden_layers))

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Scores of the next token.

        Args:
            input_ids: ``[B, T]`` int64.
            position_ids: ``[B, T]`` int64, each token's place in its document; by default 0, 1, 2 …
                after what the cache holds.
            document_ids: ``[B, T]``; a token attends to earlier tokens with the same number only.
                By default a row is one document.
            cache: decoding; the tokens are appended to it.

        Returns:
            logits ``[B, T, vocab_size]``, in the dtype of the computation.
        """
        T = input_ids.shape[1]
        start = cache.length if cache is not None else 0
        if position_ids is None:
            position_ids = torch.arange(start, start + T, device=input_ids.device)[None]
        mask = None
        if document_ids is not None:
            mask = document_mask(document_ids)
        elif cache is not None and (cache.valid is not None or (start and T > 1)):
            keys = torch.arange(start + T, device=input_ids.device)
            queries = keys[start:, None]
            mask = keys <= queries  # [T, S]
            if cache.valid is not None:
                # A token always sees itself, also in padding, where a softmax over nothing is NaN.
                seen = cache.valid[:, None, None, : start + T] | (keys == queries)
                mask = mask & seen  # [B, 1, T, S]
        x = self.model(input_ids, position_ids, mask, cache)
        if cache is not None:
            cache.length += T
        return self.lm_head(x)  # type: ignore[no-any-return]

    def num_parameters(self) -> int:
        """Trainable parameters; the shared embedding table counts once."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)
