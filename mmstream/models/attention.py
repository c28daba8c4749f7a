"""The block that all our Transformers are made of: attention, then a small network, per token."""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

_WIDENING = 4  # Vaswani et al. 2017, section 3.3


class Block(nn.Module):
    """One pre-norm layer (Vaswani et al. 2017; the norms as in Xiong et al. 2020, figure 1b).

    What is attended to is passed as keys and values, so that a stream can keep those of the past.
    """

    def __init__(self, *, n_dims: int, n_heads: int, dropout: float) -> None:
        """Random weights."""
        super().__init__()
        self._n_heads = n_heads
        self._dropout = dropout
        self.norm = nn.LayerNorm(n_dims)
        self.queries = nn.Linear(n_dims, n_dims)
        self.keys_and_values = nn.Linear(n_dims, 2 * n_dims)
        self.attended = nn.Linear(n_dims, n_dims)
        self.network = nn.Sequential(
            nn.LayerNorm(n_dims),
            nn.Linear(n_dims, _WIDENING * n_dims),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(_WIDENING * n_dims, n_dims),
        )
        self.drop = nn.Dropout(dropout)

    def remembered(self, x: Tensor) -> Tensor:
        """Tokens [b, t, d] -> their keys and values [b, t, 2 d]."""
        kept: Tensor = self.keys_and_values(self.norm(x))
        return kept

    def forward(self, x: Tensor, mask: Tensor, remembered: Tensor | None = None) -> Tensor:
        """Tokens [b, t, d] -> [b, t, d], having looked at themselves or at what is `remembered`.

        Args:
            x: the tokens.
            mask: [b or 1, heads or 1, t, k]: bools, true where one looks, or floats added to the
                scores. Every token must look at something.
            remembered: [b, k, 2 d], from `remembered()`; x's own if None.
        """
        keys, values = (self.remembered(x) if remembered is None else remembered).chunk(2, dim=-1)
        seen = scaled_dot_product_attention(
            self._by_head(self.queries(self.norm(x))),
            self._by_head(keys),
            self._by_head(values),
            attn_mask=mask if mask.dtype == torch.bool else mask.to(keys.dtype),
            dropout_p=self._dropout if self.training else 0.0,
        )
        x = x + self.drop(self.attended(seen.transpose(1, 2).flatten(2)))
        out: Tensor = x + self.drop(self.network(x))
        return out

    def _by_head(self, x: Tensor) -> Tensor:
        """[b, t, d] -> [b, heads, t, d / heads]."""
        n_batch, n_tokens, n_dims = x.shape
        n_each = n_dims // self._n_heads
        return x.reshape(n_batch, n_tokens, self._n_heads, n_each).transpose(1, 2)


def check_heads(*, n_dims: int, n_heads: int) -> None:
    """Let settings pass whose heads share the numbers of a token evenly.

    Raises:
        ValueError: they cannot.
    """
    if n_dims % n_heads:
        msg = f"n_dims must be a multiple of n_heads: got {n_dims} and {n_heads}"
        raise ValueError(msg)


def everywhere(present: Tensor) -> Tensor:
    """[b, t] bool -> mask [b, 1, t, t]: each looks at all that are present, and at itself."""
    itself = torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
    return (present[:, None, :] | itself)[:, None]
