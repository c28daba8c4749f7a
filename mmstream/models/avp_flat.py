"""A step of the encoder of sound with few calls: a chunk of a few sources costs little but calls.

The same sums as `AudioEncoder.step`, with all that they need laid out beforehand: a projection to
queries, keys and values at once, how near is how much worth. It is for streams in which nothing
lacks: neither in the chunk nor in what is remembered, so no masks are made.
"""

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

from mmstream.models.attention import Block
from mmstream.models.audio import AudioEncoder
from mmstream.models.recurrent import ChunkTransformer

_ONLY_TRANSFORMERS: Final = "a flat step is of a Transformer"


class FlatStep:
    """The step of one encoder, as its weights are now."""

    def __init__(self, encoder: AudioEncoder) -> None:
        """The encoder is in eval mode.

        Raises:
            TypeError: its body is no Transformer.
        """
        body, of = encoder.body, encoder.settings.body
        if not isinstance(body, ChunkTransformer) or of.type != "transformer":
            raise TypeError(_ONLY_TRANSFORMERS)
        self._encoder = encoder
        self._norm = body.norm
        device = encoder.mean.device
        at = torch.arange(of.n_context + of.n_chunk, device=device)
        distances = at[of.n_context :, None] - at + of.n_chunk - 1
        nearness = body.nearness.detach()[:, :, distances.clamp(0, body.nearness.shape[2] - 1)]
        blocks = [block for block in body.blocks if isinstance(block, Block)]
        self._layers = [
            _Layer(block, near[None].contiguous())
            for block, near in zip(blocks, nearness, strict=True)
        ]

    def __call__(self, frames: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Frames [b, n_chunk * n_stack, n_bands], memory as in `StreamState` -> tokens, memory."""
        encoder = self._encoder
        x = encoder.stem((frames - encoder.mean) / encoder.std)
        kept = []
        for n, layer in enumerate(self._layers):
            x, remembered = layer(x, memory[:, n])
            kept.append(remembered)
        tokens: Tensor = self._norm(x)
        return tokens, torch.stack(kept, dim=1)


class _Layer:
    """A `Block`, with what it remembers."""

    def __init__(self, block: Block, nearness: Tensor) -> None:
        """`nearness` [1, heads, n_chunk, n_context + n_chunk]."""
        both = block.queries, block.keys_and_values
        self._block = block
        self._nearness = nearness
        self._weight = torch.cat([one.weight.detach() for one in both])
        self._bias = torch.cat([one.bias.detach() for one in both])

    def __call__(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [b, t, d], keys and values [b, k, 2 d] before them -> both, k as before."""
        block, (n_batch, n_tokens, n_dims) = self._block, x.shape
        all_three = linear(block.norm(x), self._weight, self._bias)
        remembered = torch.cat((memory, all_three[..., n_dims:]), dim=1)
        n_heads = self._nearness.shape[1]
        queries = all_three[..., :n_dims].view(n_batch, n_tokens, n_heads, -1).transpose(1, 2)
        by_head = remembered.view(n_batch, remembered.shape[1], 2, n_heads, -1)
        keys, values = by_head.permute(2, 0, 3, 1, 4).unbind(0)
        seen = scaled_dot_product_attention(queries, keys, values, attn_mask=self._nearness)
        x = x + block.attended(seen.transpose(1, 2).reshape(n_batch, n_tokens, n_dims))
        return x + block.network(x), remembered[:, n_tokens:]
