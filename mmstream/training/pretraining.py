"""What AVP learns from, besides labels: what belongs together, when, and what is hidden.

contrast     what is heard and what is seen at the same instants of one piece are alike, of two
             pieces they are not: InfoNCE (van den Oord et al. 2018) both ways, as CAV-MAE's L_c
             (Gong et al. 2023), of instants instead of the mean over a piece
synchrony    among shifts of the sound by up to `shift_secs` the true one fits best (after
             Chung and Zisserman 2016; as a choice among many, Chung, Chung and Kang 2019,
             "Perfect match")
reconstruct  log-mel patches and small frames are told from what is left when spans of both are
             hidden (CAV-MAE's L_r; hidden in the input, so that no encoder sees them)
events       which of the known sounds are in the window: together, from sound alone, and
             together with pictures that have nothing to do with them
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import (
    adaptive_avg_pool2d,
    binary_cross_entropy_with_logits,
    cross_entropy,
)

from mmstream.config import Settings
from mmstream.media import Modality
from mmstream.models.avp import Avp, AvpSettings
from mmstream.models.avp_moments import half
from mmstream.models.avp_spec import GIST_SECS
from mmstream.models.tokens import Tokens
from mmstream.models.video import about_zero
from mmstream.training.matching import SHIFT_STEP_SECS, hear, instants, see, within
from mmstream.training.scenes import Scenes

_N_PATCH: Final = 16
"""Pixels of a side of the small frames that are reconstructed."""
_SHARPEST: Final = 100
"""By which cosines are multiplied, at most (CLIP, Radford et al. 2021, section 2.5)."""
_SPAN: Final = 4
"""Tokens that are hidden in a row: fewer are guessed from their neighbours."""


class ObjectiveSettings(Settings):
    """What counts how much."""

    contrast: float = Field(default=1.0, ge=0)
    synchrony: float = Field(default=1.0, ge=0)
    reconstruct: float = Field(default=0.5, ge=0)
    events: float = Field(default=2.0, ge=0)
    shift_secs: float = Field(default=0.4, gt=0)
    """The largest shift of the sound."""
    match_secs: float = Field(default=1.0, gt=0)
    """How much of the pictures a shift is found from."""
    n_hidden: int = Field(default=8, ge=1)
    """Pairs of a step that are reconstructed; pictures alone all are."""
    hidden: float = Field(default=0.5, gt=0, lt=1)
    """Share of the tokens that is hidden."""

    def n_frames(self, model: AvpSettings) -> tuple[int, int]:
        """Frames before and after those that a shift is found from; those themselves."""
        fps = model.seen.fps
        margin = math.ceil((self.shift_secs + model.audio.token_secs) * fps)
        return margin, round(self.match_secs * fps)


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """Of a step, in nats; the reconstruction's is a squared error in deviations."""

    contrast: Tensor
    synchrony: Tensor
    reconstruct: Tensor
    events: Tensor

    def total(self, settings: ObjectiveSettings) -> Tensor:
        """Weighted."""
        return (
            settings.contrast * self.contrast
            + settings.synchrony * self.synchrony
            + settings.reconstruct * self.reconstruct
            + settings.events * self.events
        )


class Pretrainer(nn.Module):
    """An `Avp` with what only its training needs."""

    def __init__(self, model: AvpSettings, settings: ObjectiveSettings) -> None:
        """Random weights."""
        super().__init__()
        self._settings = settings
        self.avp = Avp(model)
        n_dims = model.fusion.n_dims
        n_patch = model.audio.n_stack * model.audio.front_end.n_bands
        self.heard_again = nn.Linear(n_dims, n_patch)
        self.seen_again = nn.Linear(n_dims, _N_PATCH**2)
        self.sharpness = nn.Parameter(torch.tensor([math.log(10.0), math.log(20.0)]))

    def forward(self, scenes: Scenes, *, end_secs: float) -> Losses:
        """The losses of a step; windows end `end_secs` after the pieces began."""
        sound, sight = self._encoded(scenes)
        n_pairs = scenes.n_pairs
        heard = within(self.avp, sound, end_secs)
        seen = within(self.avp, sight, end_secs)
        alone = self._fused({"audio": heard}, end_secs)
        watched = self._fused({"video": _rows(seen, slice(n_pairs))}, end_secs)
        n_lent = len(scenes.frames) - n_pairs
        lent = torch.cat((torch.arange(n_pairs), torch.randint(len(scenes.images), (n_lent,))))
        both = self._fused({"audio": heard, "video": _rows(seen, lent)}, end_secs)
        told = [self.avp.events(one) for one in (alone, both, watched)]
        truth = [scenes.truth, scenes.truth, scenes.truth[:n_pairs]]
        pairs = _rows(sound, slice(n_pairs)), _rows(sight, slice(n_pairs))
        return Losses(
            contrast=self._contrast(*pairs),
            synchrony=self._synchrony(*pairs),
            reconstruct=self._reconstruct(scenes, n_pairs),
            events=_events(torch.cat(told), torch.cat(truth)),
        )

    def gists(self, scenes: Scenes, *, end_secs: float) -> Tensor:
        """[n, 4d]: of sound alone, of pictures alone and of pairs, as windows of a stream have."""
        heard, seen = (
            half(_lately(within(self.avp, one, end_secs), end_secs))
            for one in self._encoded(scenes)
        )
        pairs = slice(scenes.n_pairs)
        windows = (
            (heard, torch.zeros_like(heard)),
            (torch.zeros_like(seen), seen),
            (heard[pairs], seen[pairs]),
        )
        return torch.cat([torch.cat(one, dim=1) for one in windows])

    def _fused(self, tokens: Mapping[Modality, Tokens], end_secs: float) -> Tensor:
        first = next(iter(tokens.values())).at_secs
        ends = first.new_full((len(first),), end_secs)
        return self.avp.fuse(tokens, ends).embedding

    def _encoded(self, scenes: Scenes) -> tuple[Tokens, Tokens]:
        return hear(self.avp, scenes.frames), see(self.avp, scenes.images, scenes.at_secs)

    def _contrast(self, sound: Tokens, sight: Tokens) -> Tensor:
        sharpness = self.sharpness[0].exp().clamp(max=_SHARPEST)
        alike = self.avp.alike(sound, sight, instants(sight)) * sharpness
        true = torch.arange(len(alike), device=alike.device)
        return (cross_entropy(alike, true) + cross_entropy(alike.T, true)) / 2

    def _synchrony(self, sound: Tokens, sight: Tokens) -> Tensor:
        settings = self._settings
        n_each_way = round(settings.shift_secs / SHIFT_STEP_SECS)
        offsets = (
            torch.arange(-n_each_way, n_each_way + 1, device=sight.values.device) * SHIFT_STEP_SECS
        )
        n_seen = sight.values.shape[1]
        margin, n_match = settings.n_frames(self.avp.settings)
        start = margin + int(torch.randint(max(1, n_seen - 2 * margin - n_match + 1), ()))
        part = Tokens(
            sight.values[:, start : start + n_match],
            sight.present[:, start : start + n_match],
            sight.at_secs[:, start : start + n_match],
        )
        fits = self.avp.synchrony(sound, part, offsets) * self.sharpness[1].exp().clamp(
            max=_SHARPEST
        )
        return cross_entropy(fits, torch.full((len(fits),), n_each_way, device=fits.device))

    def _reconstruct(self, scenes: Scenes, n_pairs: int) -> Tensor:
        """Of some pairs and of all pictures alone; the squared error where something was hidden."""
        settings, audio = self._settings, self.avp.settings.audio
        n_both = min(settings.n_hidden, n_pairs)
        rows = torch.cat((torch.arange(n_both), torch.arange(n_pairs, len(scenes.images)))).to(
            scenes.images.device
        )
        n_tokens = scenes.frames.shape[1] // audio.n_stack
        frames = scenes.frames[:n_both, : n_tokens * audio.n_stack]
        hide_sound = _spans(n_both, n_tokens, settings.hidden, frames.device)
        hide_sight = _spans(len(rows), scenes.images.shape[1], settings.hidden, frames.device)
        gone = hide_sound.repeat_interleave(audio.n_stack, dim=1)[..., None]
        pixels = scenes.images[rows].float() / 255
        grey = torch.where(hide_sight[..., None, None, None], 0.5, pixels)
        # The mean is what frames are standardised to 0 by.
        sound = hear(self.avp, torch.where(gone, self.avp.audio.mean.expand_as(frames), frames))
        sight = see(self.avp, grey, scenes.at_secs[rows])
        tokens: dict[Modality, Tokens] = {"audio": _filled_up(sound, len(rows)), "video": sight}
        ends = scenes.at_secs.new_full((len(rows),), n_tokens * audio.token_secs)
        context = self.avp.fuse(tokens, ends).context
        # Before the tokens of each modality there is its stand-in.
        heard = self.heard_again(context[:n_both, 1 : 1 + n_tokens])
        seen = self.seen_again(context[:, 2 + n_tokens :])
        patches = ((frames - self.avp.audio.mean) / self.avp.audio.std).reshape(
            n_both, n_tokens, -1
        )
        wrong_sound: Tensor = (heard - patches)[hide_sound].square().mean()
        wrong_sight: Tensor = (seen - _small(scenes.images[rows]))[hide_sight].square().mean()
        return wrong_sound + wrong_sight


def _lately(tokens: Tokens, end_secs: float) -> Tensor:
    """[b, t, d]: those of the last second, of tokens that are timed alike in all rows."""
    return tokens.values[:, (tokens.at_secs >= end_secs - GIST_SECS).any(dim=0)]


def _events(logits: Tensor, truth: Tensor) -> Tensor:
    known = ~truth.isnan()
    each = binary_cross_entropy_with_logits(logits, torch.nan_to_num(truth), reduction="none")
    loss: Tensor = (each * known).sum() / known.sum().clamp(min=1) * truth.shape[1]
    return loss


def _small(images: Tensor) -> Tensor:
    """[b, n, 1, h, w] u8 -> [b, n, 256]: small frames, each about 0 and of about one deviation."""
    small = adaptive_avg_pool2d(about_zero(images).flatten(0, 1), _N_PATCH)
    small = small.reshape(*images.shape[:2], -1)
    return (small - small.mean(-1, keepdim=True)) / (small.std(-1, keepdim=True) + 0.1)


def _filled_up(tokens: Tokens, n_rows: int) -> Tokens:
    """With rows that have none, up to `n_rows`."""
    n_more = n_rows - len(tokens.values)
    nothing = tokens.values.new_zeros(n_more, *tokens.values.shape[1:])
    return Tokens(
        torch.cat((tokens.values, nothing)),
        torch.cat((tokens.present, torch.zeros_like(nothing[..., 0], dtype=torch.bool))),
        torch.cat((tokens.at_secs, tokens.at_secs[:1].expand(n_more, -1))),
    )


def _rows(tokens: Tokens, rows: slice | Tensor) -> Tokens:
    return Tokens(tokens.values[rows], tokens.present[rows], tokens.at_secs[rows])


def _spans(n_rows: int, n_tokens: int, share: float, device: torch.device) -> Tensor:
    """[n_rows, n_tokens] bool: that share of the spans, drawn at random."""
    n_spans = math.ceil(n_tokens / _SPAN)
    drawn = torch.rand(n_rows, n_spans, device=device)
    n_hidden = max(1, round(share * n_spans))
    hidden = drawn.argsort(dim=1).argsort(dim=1) < n_hidden
    return hidden.repeat_interleave(_SPAN, dim=1)[:, :n_tokens]
