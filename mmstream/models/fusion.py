"""Tokens of several modalities -> one embedding: by concatenation, by weights, by a deep model.

All three take any subset of their modalities, example by example. Where one lacks, a learned absent
token stands in, and nothing that its `Tokens` hold reaches the result. Modality and time are added
here, the time counted back from the window's end, so that tokens kept from a stream stay valid.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from mmstream.config import Settings
from mmstream.errors import ScorerError
from mmstream.media import Modality
from mmstream.models.attention import Block, check_heads, everywhere
from mmstream.models.tokens import MOST_DIMS, MOST_LAYERS, MOST_TOKENS, Tokens

_N_PERIODS = 16
_SHORTEST_SECS, _LONGEST_SECS = 0.08, 40.0  # two frames of video; a long window


class FusionSettings(Settings):
    """What all fusions have."""

    modalities: tuple[Modality, ...] = Field(default=("audio", "video"), min_length=1)
    """Those that may come, each once."""
    n_dims: int = Field(default=128, ge=2, le=MOST_DIMS)
    """Numbers in a token of each of them, and in the embedding."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of numbers zeroed in training."""
    drop_modality: float = Field(default=0.0, ge=0, lt=1)
    """Share of the present modalities that training hides from an example, never all of them
    (Neverova et al. 2016, ModDrop)."""

    @field_validator("modalities")
    @classmethod
    def _check_once(cls, value: tuple[Modality, ...]) -> tuple[Modality, ...]:
        if len(set(value)) != len(value):
            msg = f"each modality once: got {', '.join(value)}"
            raise ValueError(msg)
        return value


class ConcatSettings(FusionSettings):
    """One summary of each modality, side by side."""

    type: Literal["concat"] = "concat"


class WeightedSettings(FusionSettings):
    """One summary of each modality, weighted by gates."""

    type: Literal["weighted"] = "weighted"


class DeepSettings(FusionSettings):
    """A Transformer over all tokens, or one for each modality with a bottleneck between."""

    type: Literal["deep"] = "deep"
    n_layers: int = Field(default=4, ge=1, le=MOST_LAYERS)
    """Blocks."""
    n_heads: int = Field(default=4, ge=1)
    """Attention heads of each."""
    n_bottleneck: int = Field(default=0, ge=0, le=MOST_TOKENS)
    """Tokens through which alone modalities see each other; 0: each token sees all others."""
    n_exchange: int = Field(default=2, ge=1)
    """With a bottleneck: the last layers that have it (L - L_f of the paper)."""

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        check_heads(n_dims=self.n_dims, n_heads=self.n_heads)
        if self.n_bottleneck and self.n_exchange > self.n_layers:
            msg = f"n_exchange is at most n_layers: got {self.n_exchange} and {self.n_layers}"
            raise ValueError(msg)
        return self


AnyFusionSettings = Annotated[
    ConcatSettings | WeightedSettings | DeepSettings, Field(discriminator="type")
]


@dataclass(frozen=True, slots=True, eq=False)
class Fused:
    """What a fusion gives."""

    embedding: Tensor
    """[b, d]."""
    gates: Tensor | None
    """[b, n_modalities] in 0..1, in the order of `settings.modalities`: how much each counts; they
    sum to 1 over the present, the absent have 0. None: this fusion has no gates."""
    context: Tensor
    """[b, t, d]: the tokens that a question may look at, as far as this fusion has mixed them."""
    context_present: Tensor
    """[b, t] bool: which of them are there; an absent token is where a modality is not."""


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """The tokens of one modality, ready to be fused."""

    x: Tensor
    """[b, 1 + t, d] with time and modality; the first is the absent token."""
    present: Tensor
    """[b, 1 + t] bool; the first where no other is."""
    some: Tensor
    """[b] bool: whether the modality is there."""


class Fusion(nn.Module, ABC):
    """Tokens by modality -> Fused."""

    def __init__(self, settings: FusionSettings) -> None:
        """Random weights."""
        super().__init__()
        self._settings = settings
        n_modalities, n_dims = len(settings.modalities), settings.n_dims
        self.norms = nn.ModuleList(nn.LayerNorm(n_dims) for _ in settings.modalities)
        self.modality = nn.Parameter(torch.randn(n_modalities, n_dims) * 0.02)
        self.absent = nn.Parameter(torch.randn(n_modalities, n_dims) * 0.02)
        self.time = _TimeEmbedding(n_dims)

    def forward(self, tokens: Mapping[Modality, Tokens], end_secs: Tensor | None = None) -> Fused:
        """One embedding for each example.

        Args:
            tokens: of the same b examples; a modality that is not in it is absent from all.
            end_secs: [b], when each window ends, by the origin of the tokens' `at_secs`; the
                latest token present if None.

        Raises:
            ScorerError: there are no tokens, or of a modality or size that is not in the settings.
        """
        there = self._checked(tokens)
        if self.training and self._settings.drop_modality:
            some = torch.stack([part.some for part in there], dim=1)
            keep = kept_modalities(some, share_dropped=self._settings.drop_modality)
            there = [part.kept(keep[:, i]) for i, part in enumerate(there)]
        if end_secs is None:
            end_secs = _latest(there)
        return self._fused([self._part(i, part, end_secs) for i, part in enumerate(there)])

    @abstractmethod
    def _fused(self, parts: list[_Part]) -> Fused:
        """One part for each modality, in order."""

    def _checked(self, tokens: Mapping[Modality, Tokens]) -> list[Tokens]:
        settings = self._settings
        allowed = ", ".join(settings.modalities)
        unknown = [name for name in tokens if name not in settings.modalities]
        if unknown or not tokens:
            msg = f"a fusion of {allowed} got tokens of {', '.join(unknown) or 'nothing'}"
            raise ScorerError(msg)
        n_batch = next(iter(tokens.values())).values.shape[0]
        for name, part in tokens.items():
            if part.values.shape[0] != n_batch or part.values.shape[2] != settings.n_dims:
                msg = (
                    f"the fusion takes [{n_batch}, t, {settings.n_dims}] tokens of {name}: "
                    f"got {list(part.values.shape)}"
                )
                raise ScorerError(msg)
        nothing = Tokens.absent(
            n_batch=n_batch, n_dims=settings.n_dims, device=self.modality.device
        )
        return [tokens.get(name, nothing) for name in settings.modalities]

    def _part(self, index: int, tokens: Tokens, end_secs: Tensor) -> _Part:
        x = self.norms[index](tokens.blanked())
        x = x + self.time(tokens.at_secs - end_secs[:, None], tokens.present) + self.modality[index]
        stand_in = self.absent[index].to(x.dtype).expand(x.shape[0], 1, -1)
        return _Part(
            torch.cat((stand_in, x), dim=1),
            torch.cat((~tokens.some[:, None], tokens.present), dim=1),
            tokens.some,
        )


class ConcatFusion(Fusion):
    """A summary of each modality, side by side, then a small network."""

    def __init__(self, settings: ConcatSettings) -> None:
        """Random weights."""
        super().__init__(settings)
        self.pools = _pools(settings)
        self.network = _network(settings, len(settings.modalities) * settings.n_dims)

    def _fused(self, parts: list[_Part]) -> Fused:
        pooled = [pool(part) for pool, part in zip(self.pools, parts, strict=True)]
        return Fused(self.network(torch.cat(pooled, dim=1)), None, *_beside_each_other(parts))


class WeightedFusion(Fusion):
    """The sum of one summary per modality, weighted by gates that see all of them.

    After Arevalo et al. 2017 (gated multimodal units), with a softmax over those present.
    An example that has none has gates of 0, and the embedding of nothing.
    """

    def __init__(self, settings: WeightedSettings) -> None:
        """Random weights."""
        super().__init__(settings)
        n_modalities = len(settings.modalities)
        self.pools = _pools(settings)
        self.gate = nn.Sequential(
            nn.Linear(n_modalities * settings.n_dims, settings.n_dims),
            nn.GELU(),
            nn.Linear(settings.n_dims, n_modalities),
        )
        self.network = _network(settings, settings.n_dims)

    def _fused(self, parts: list[_Part]) -> Fused:
        pooled = [pool(part) for pool, part in zip(self.pools, parts, strict=True)]
        some = torch.stack([part.some for part in parts], dim=1)
        scores = self.gate(torch.cat(pooled, dim=1)).float()
        lowest = torch.finfo(scores.dtype).min  # not -inf: a row without any would be NaN
        gates = scores.masked_fill(~some, lowest).softmax(dim=1) * some
        summed = (gates[..., None] * torch.stack(pooled, dim=1)).sum(dim=1)
        embedding = self.network(summed.to(pooled[0].dtype))
        return Fused(embedding, gates, *_beside_each_other(parts))


class DeepFusion(Fusion):
    """A Transformer over the tokens of all modalities and one that becomes the embedding."""

    def __init__(self, settings: DeepSettings) -> None:
        """Random weights."""
        super().__init__(settings)
        self.summary = nn.Parameter(torch.randn(settings.n_dims) * 0.02)
        self.blocks = _blocks(settings)
        self.norm = nn.LayerNorm(settings.n_dims)

    def _fused(self, parts: list[_Part]) -> Fused:
        n_batch = parts[0].x.shape[0]
        summary = self.summary.to(parts[0].x.dtype).expand(n_batch, 1, -1)
        x = torch.cat([summary, *(part.x for part in parts)], dim=1)
        present = torch.cat([_ones(summary), *(part.present for part in parts)], dim=1)
        mask = everywhere(present)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        return Fused(x[:, 0], None, x[:, 1:], present[:, 1:])


class BottleneckFusion(Fusion):
    """Modalities that see each other only through a few tokens, in the last layers.

    Nagrani et al. 2021 (Attention Bottlenecks for Multimodal Fusion), section 3.2: each modality
    has its own Transformer and summary token; in the last layers it runs over its tokens and the
    bottleneck's, which then become the mean of what each modality made of them.
    The embedding is the mean of the summaries.
    """

    def __init__(self, settings: DeepSettings) -> None:
        """Random weights."""
        super().__init__(settings)
        n_dims = settings.n_dims
        self._n_alone = settings.n_layers - settings.n_exchange
        self.bottleneck = nn.Parameter(torch.randn(settings.n_bottleneck, n_dims) * 0.02)
        self.summaries = nn.Parameter(torch.randn(len(settings.modalities), n_dims) * 0.02)
        self.towers = nn.ModuleList(_blocks(settings) for _ in settings.modalities)
        self.norm = nn.LayerNorm(n_dims)

    def _fused(self, parts: list[_Part]) -> Fused:
        n_batch, n_between = parts[0].x.shape[0], self.bottleneck.shape[0]
        xs, masks = [], []
        between = self.bottleneck.to(parts[0].x.dtype).expand(n_batch, -1, -1)
        for summary, part in zip(self.summaries, parts, strict=True):
            own = summary.to(part.x.dtype).expand(n_batch, 1, -1)
            xs.append(torch.cat((own, part.x), dim=1))
            masks.append(everywhere(torch.cat((_ones(between), _ones(own), part.present), dim=1)))
        towers = [list(tower) for tower in self.towers if isinstance(tower, nn.ModuleList)]
        for n_layer, layer in enumerate(zip(*towers, strict=True)):
            if n_layer < self._n_alone:
                alone = [mask[..., n_between:, n_between:] for mask in masks]
                xs = [block(x, mask) for block, x, mask in zip(layer, xs, alone, strict=True)]
                continue
            both = [
                block(torch.cat((between, x), dim=1), mask)
                for block, x, mask in zip(layer, xs, masks, strict=True)
            ]
            xs = [x[:, n_between:] for x in both]
            between = torch.stack([x[:, :n_between] for x in both]).mean(dim=0)
        embedding = self.norm(torch.stack([x[:, 0] for x in xs]).mean(dim=0))
        context = self.norm(torch.cat([x[:, 1:] for x in xs], dim=1))
        return Fused(embedding, None, context, torch.cat([part.present for part in parts], dim=1))


def build_fusion(settings: ConcatSettings | WeightedSettings | DeepSettings) -> Fusion:
    """The fusion that the settings describe, with random weights."""
    if isinstance(settings, ConcatSettings):
        return ConcatFusion(settings)
    if isinstance(settings, WeightedSettings):
        return WeightedFusion(settings)
    return BottleneckFusion(settings) if settings.n_bottleneck else DeepFusion(settings)


def kept_modalities(some: Tensor, *, share_dropped: float) -> Tensor:
    """Which modalities training shows: those that are there, but for a random share of them.

    Args:
        some: [b, n_modalities] bool, those that are there.
        share_dropped: of them, 0..1; one of each example stays, drawn at random, so fewer go.

    Returns:
        [b, n_modalities] bool.
    """
    drawn = torch.rand(some.shape, device=some.device)
    keep = some & (drawn >= share_dropped)
    luckiest = drawn.masked_fill(~some, -1).argmax(dim=1, keepdim=True)
    return keep | (some & torch.zeros_like(some).scatter(1, luckiest, value=True))


class _Pool(nn.Module):
    """Tokens [b, t, d] -> their summary [b, d]: a weighted mean, by learned scores."""

    def __init__(self, settings: FusionSettings) -> None:
        super().__init__()
        n_dims = settings.n_dims
        self.network = nn.Sequential(nn.LayerNorm(n_dims), nn.Linear(n_dims, n_dims), nn.GELU())
        self.score = nn.Linear(n_dims, 1)

    def forward(self, part: _Part) -> Tensor:
        x = self.network(part.x)
        scores = self.score(x).squeeze(-1).masked_fill(~part.present, -torch.inf)
        pooled: Tensor = (scores.softmax(dim=1).to(x.dtype)[..., None] * x).sum(dim=1)
        return pooled


class _TimeEmbedding(nn.Module):
    """Seconds [b, t] -> [b, t, d]: sines and cosines of 0.08 to 40 s, mixed; 0 where NaN."""

    turns_hz: Tensor

    def __init__(self, n_dims: int) -> None:
        super().__init__()
        periods_secs = torch.logspace(0, 1, _N_PERIODS, base=_LONGEST_SECS / _SHORTEST_SECS)
        turns_hz = 1 / (_SHORTEST_SECS * periods_secs)
        self.register_buffer("turns_hz", turns_hz, persistent=False)
        self.mix = nn.Linear(2 * _N_PERIODS, n_dims, bias=False)

    def forward(self, at_secs: Tensor, present: Tensor) -> Tensor:
        known = present & ~at_secs.isnan()
        turns = torch.where(known, at_secs, 0.0).float()[..., None] * self.turns_hz * (2 * torch.pi)
        mixed: Tensor = self.mix(torch.cat((turns.sin(), turns.cos()), dim=-1))
        return mixed * known[..., None]


def _latest(there: list[Tokens]) -> Tensor:
    """[b]: when the last token was, of all modalities; 0 where none has a time."""
    at_secs = torch.cat([part.at_secs for part in there], dim=1)
    known = torch.cat([part.present for part in there], dim=1) & ~at_secs.isnan()
    if at_secs.shape[1] == 0:
        return at_secs.new_zeros(at_secs.shape[0])
    latest = at_secs.masked_fill(~known, -torch.inf).amax(dim=1)
    return torch.where(known.any(dim=1), latest, 0.0)


def _beside_each_other(parts: list[_Part]) -> tuple[Tensor, Tensor]:
    """The tokens of all, [b, t, d], and which are there, [b, t]."""
    x = torch.cat([part.x for part in parts], dim=1)
    return x, torch.cat([part.present for part in parts], dim=1)


def _blocks(settings: DeepSettings) -> nn.ModuleList:
    return nn.ModuleList(
        Block(n_dims=settings.n_dims, n_heads=settings.n_heads, dropout=settings.dropout)
        for _ in range(settings.n_layers)
    )


def _pools(settings: FusionSettings) -> nn.ModuleList:
    return nn.ModuleList(_Pool(settings) for _ in settings.modalities)


def _network(settings: FusionSettings, n_in: int) -> nn.Sequential:
    n_dims, dropout = settings.n_dims, settings.dropout
    return nn.Sequential(
        nn.Dropout(dropout), nn.Linear(n_in, n_dims), nn.GELU(), nn.Linear(n_dims, n_dims)
    )


def _ones(x: Tensor) -> Tensor:
    return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
