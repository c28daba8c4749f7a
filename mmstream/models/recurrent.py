"""What lets the tokens of a stream know of those before: a chunked Transformer, a GRU.

Both give the same for a whole recording and for its parts in order, each with the state that the
part before it left. How the Transformer looks back says `mmstream.models.audio`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from mmstream.config import Settings
from mmstream.errors import ScorerError
from mmstream.models.attention import Block
from mmstream.models.tokens import MOST_LAYERS, MOST_TOKENS


class ChunkSettings(Settings):
    """A Transformer with chunk-local attention and left context."""

    type: Literal["transformer"] = "transformer"
    n_layers: int = Field(default=4, ge=1, le=MOST_LAYERS)
    """Blocks."""
    n_heads: int = Field(default=4, ge=1)
    """Attention heads of each."""
    n_chunk: int = Field(default=6, ge=1, le=MOST_TOKENS)
    """Tokens in a chunk; its first waits for its last."""
    n_context: int = Field(default=24, ge=0, le=MOST_TOKENS)
    """Tokens before the chunk that each layer looks back on; the whole looks back n_layers times
    as far."""


class GruSettings(Settings):
    """A gated recurrent network (Cho et al. 2014), forwards only."""

    type: Literal["gru"] = "gru"
    n_layers: int = Field(default=2, ge=1, le=MOST_LAYERS)
    """Layers."""


@dataclass(frozen=True, slots=True, eq=False)
class StreamState:
    """What b streams remember; always of the same size, so those of several can be batched."""

    memory: Tensor
    """[b, ...]: keys and values [b, n_layers, n_context, 2 d], or the GRU's [b, n_layers, d]."""
    present: Tensor
    """[b, n_context] bool: which of them are there; the GRU has none."""

    @classmethod
    def batched(cls, states: Sequence[Self]) -> Self:
        """The states of several streams as one."""
        return cls(
            torch.cat([state.memory for state in states]),
            torch.cat([state.present for state in states]),
        )

    def split(self) -> "list[StreamState]":
        """The state of each stream, [1, ...]."""
        rows = range(self.memory.shape[0])
        return [StreamState(self.memory[i : i + 1], self.present[i : i + 1]) for i in rows]


class ChunkTransformer(nn.Module):
    """Tokens [b, t, d] -> [b, t, d]; each knows its chunk and `n_context` tokens before it."""

    def __init__(self, settings: ChunkSettings, *, n_dims: int, dropout: float) -> None:
        """Random weights."""
        super().__init__()
        self._settings = settings
        self._n_dims = n_dims
        self.blocks = nn.ModuleList(
            Block(n_dims=n_dims, n_heads=settings.n_heads, dropout=dropout)
            for _ in range(settings.n_layers)
        )
        n_distances = settings.n_context + 2 * settings.n_chunk - 1
        # How much a head cares for what lies so far back (Raffel et al. 2020, section 2.1).
        self.nearness = nn.Parameter(torch.zeros(settings.n_layers, settings.n_heads, n_distances))
        self.norm = nn.LayerNorm(n_dims)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """The tokens of whole recordings; `present` [b, t] bool."""
        at = torch.arange(x.shape[1], device=x.device)
        began = (at - at % self._settings.n_chunk)[:, None]
        sees = (at >= began - self._settings.n_context) & (at < began + self._settings.n_chunk)
        itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        mask = (sees & present[:, None, :]) | itself
        for block, scores in zip(self.blocks, self._scores(at[:, None] - at, mask), strict=True):
            x = block(x, scores)
        out: Tensor = self.norm(x)
        return out

    def step(self, x: Tensor, present: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """The next chunk of streams, and what to remember; shorter than n_chunk only at the end.

        Raises:
            ScorerError: it is longer than a chunk.
        """
        n, n_context = x.shape[1], self._settings.n_context
        if n > self._settings.n_chunk:
            msg = f"a step takes at most {self._settings.n_chunk} tokens: got {n}"
            raise ScorerError(msg)
        at = torch.arange(n_context + n, device=x.device)
        there = torch.cat((state.present, present), dim=1)
        itself = at == at[n_context:, None]
        mask = there[:, None, :] | itself
        distances = at[n_context:, None] - at
        kept = []
        for i, scores in enumerate(self._scores(distances, mask)):
            block = self.blocks[i]
            assert isinstance(block, Block)  # noqa: S101 - ModuleList forgets what it holds
            remembered = torch.cat((state.memory[:, i], block.remembered(x)), dim=1)
            kept.append(remembered[:, n:])
            x = block(x, scores, remembered)
        return self.norm(x), StreamState(torch.stack(kept, dim=1), there[:, n:])

    def empty_state(self, n_batch: int, *, device: torch.device) -> StreamState:
        """Nothing came before."""
        n_layers, n_context = self._settings.n_layers, self._settings.n_context
        return StreamState(
            torch.zeros(n_batch, n_layers, n_context, 2 * self._n_dims, device=device),
            torch.zeros(n_batch, n_context, dtype=torch.bool, device=device),
        )

    def _scores(self, distances: Tensor, mask: Tensor) -> Tensor:
        """[t, k] how far back, [b, t, k] what is seen -> added scores [layers, b, heads, t, k]."""
        index = (distances + self._settings.n_chunk - 1).clamp(0, self.nearness.shape[2] - 1)
        scores = self.nearness[:, :, index][:, None]
        return scores.masked_fill(~mask[None, :, None], -torch.inf)


class RecurrentGru(nn.Module):
    """Tokens [b, t, d] -> [b, t, d]; each knows all before it."""

    def __init__(self, settings: GruSettings, *, n_dims: int, dropout: float) -> None:
        """Random weights."""
        super().__init__()
        self._n_layers = settings.n_layers
        self._n_dims = n_dims
        between = dropout if settings.n_layers > 1 else 0.0  # torch warns where there is no between
        self.gru = nn.GRU(n_dims, n_dims, settings.n_layers, batch_first=True, dropout=between)
        self.norm = nn.LayerNorm(n_dims)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """The tokens of whole recordings; `present` [b, t] bool."""
        return self.step(x, present, self.empty_state(x.shape[0], device=x.device))[0]

    def step(self, x: Tensor, present: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """The next tokens of streams, and what to remember; what is not present comes in as 0."""
        if x.shape[1] == 0:
            return x, state
        x = x * present[..., None]
        seen, memory = self.gru(x, state.memory.transpose(0, 1).contiguous())
        out: Tensor = self.norm(x + seen)
        return out, StreamState(memory.transpose(0, 1), state.present)

    def empty_state(self, n_batch: int, *, device: torch.device) -> StreamState:
        """Nothing came before."""
        return StreamState(
            torch.zeros(n_batch, self._n_layers, self._n_dims, device=device),
            torch.zeros(n_batch, 0, dtype=torch.bool, device=device),
        )
