"""What AVP says of windows: tokens that were encoded before are fused, many windows at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from mmstream.media import NS_PER_SEC, Floats, Modality
from mmstream.metrics import StageMetrics
from mmstream.models.avp import Avp
from mmstream.models.avp_batches import Batches
from mmstream.models.avp_senses import Instants
from mmstream.models.tokens import Tokens


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Tokens of one modality of one source, all of them present."""

    values: Tensor
    """[n, d], on the model's device."""
    at_ns: Instants
    """[n], rising."""

    @classmethod
    def nothing(cls, *, n_dims: int, device: torch.device) -> Self:
        """No token."""
        return cls(torch.zeros(0, n_dims, device=device), np.zeros(0, np.int64))

    def followed_by(self, later: "Held") -> "Held":
        """Both."""
        if not len(later.at_ns):
            return self
        at_ns = np.concatenate((self.at_ns, later.at_ns))
        return Held(torch.cat((self.values, later.values)), at_ns)

    def since(self, at_ns: int) -> "Held":
        """What is at that instant or later."""
        first = int(np.searchsorted(self.at_ns, at_ns))
        return Held(self.values[first:], self.at_ns[first:]) if first else self


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """What there is of a source in the `window_secs` before an instant."""

    end_ns: int
    audio: Held
    video: Held
    is_whole: bool = True
    """Nothing of it is missing since the source had not begun, or time had broken off."""

    def of(self, modality: Modality) -> Held:
        """Its tokens of sound or of sight."""
        return self.audio if modality == "audio" else self.video

    def has(self, modality: Modality) -> bool:
        """Whether there are any."""
        return len(self.of(modality).at_ns) > 0

    @property
    def is_any(self) -> bool:
        """Whether there is a token of anything."""
        return self.has("audio") or self.has("video")

    @property
    def is_both(self) -> bool:
        """Whether there are tokens of sound and of sight."""
        return self.has("audio") and self.has("video")


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What the model says of b windows."""

    embedding: Floats
    """[b, d], of length 1."""
    logits: Floats
    """[b, n_labels], in the order of `events.labels`."""


class Fuser:
    """Says what windows hold."""

    def __init__(self, model: Avp, metrics: StageMetrics) -> None:
        """The model is in eval mode; halved batches are counted."""
        self._model = model
        self._device = model.background.device
        self._batches = Batches("avp, windows", metrics)

    @torch.inference_mode()
    def say(self, windows: Sequence[Window], modalities: Sequence[Modality]) -> Said:
        """What is said if there is nothing else than `modalities`; each window has some of them.

        Raises:
            ScorerError: there is not memory enough for one window.
        """

        def fused(rows: slice) -> tuple[Tensor, Tensor]:
            some = windows[rows]
            kinds = [kind for kind in modalities if any(one.has(kind) for one in some)]
            tokens = {kind: self._tokens(some, kind) for kind in kinds}
            ends = torch.zeros(len(some), device=self._device)
            embedding = self._model.fuse(tokens, ends).embedding
            return normalize(embedding, dim=-1), self._model.events(embedding)

        embedding, logits = self._batches.run(fused, len(windows))
        return Said(embedding.float().cpu().numpy(), logits.float().cpu().numpy())

    def _tokens(self, windows: Sequence[Window], modality: Modality) -> Tokens:
        """[b, t, d]: their tokens, filled up to those of the longest; times before the end."""
        held = [window.of(modality) for window in windows]
        longest = max(len(one.at_ns) for one in held)
        at_secs = np.full((len(held), longest), np.nan, np.float32)
        present = np.zeros((len(held), longest), np.bool_)
        for row, (window, one) in enumerate(zip(windows, held, strict=True)):
            n = len(one.at_ns)
            at_secs[row, :n] = (one.at_ns - window.end_ns) / NS_PER_SEC
            present[row, :n] = True
        values = pad_sequence([one.values for one in held], batch_first=True)
        there = torch.from_numpy(present).to(self._device, non_blocking=True)
        at = torch.from_numpy(at_secs).to(self._device, non_blocking=True)
        return Tokens(values, there, at)
