"""Hops and committed words -> windows -> what the three-modality Transformer takes.

A window ends with a hop. It is made as training makes an example of the same span of a recording
(`mmstream.training.recordings`, `mmstream.training.batches`): what was not heard is masked, the
first picture of each 1 / fps of the window is kept, frames are counted from its start.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmstream.features.audio import Feature
from mmstream.features.video import small_luma
from mmstream.media import (
    NS_PER_SEC,
    Bytes,
    Floats,
    Hop,
    Image,
    Modality,
    Span,
    TimedText,
    ns_to_samples,
)
from mmstream.models.mmt_spec import MmtPictures

_EARLY_NS: Final = NS_PER_SEC // 1_000
"""Containers round the instants of pictures to as much; as in `mmstream.training.recordings`."""


@dataclass(frozen=True, slots=True, eq=False)
class MmtWindow:
    """What there is in one span; a modality that is not there has no rows, or no text."""

    samples: Floats
    """[n] of the whole span, 0 where nothing was heard; n = 0: nothing was."""
    heard: NDArray[np.bool_]
    """[n]"""
    pictures: Bytes
    """[t, height, width, 1 or 3]."""
    at_secs: Floats
    """[t]: when each picture started, from the start of the span."""
    text: str

    @property
    def is_any(self) -> bool:
        """Whether there is anything."""
        return bool(self.samples.size or len(self.pictures) or self.text)


class MmtStream:
    """What one source was like in the last `window_ns`, of the modalities that a model has."""

    def __init__(
        self, modalities: Iterable[Modality], pictures: MmtPictures, *, window_ns: int
    ) -> None:
        """Nothing came yet."""
        self._modalities = frozenset(modalities)
        self._seen = pictures
        self._window_ns = window_ns
        self._since_ns = 0
        self._end_ns: int | None = None
        self._hops: list[_Sound] = []
        self._pictures: list[_Picture] = []
        self._words: list[TimedText] = []

    def take(self, hop: Hop, words: Sequence[TimedText]) -> None:
        """The next hop, and the words that were committed with it, which were said before.

        After a gap nothing from before it is there any more: no window reaches across.
        """
        if self._end_ns is None or hop.gap_before or hop.span.start_ns != self._end_ns:
            self._since_ns = hop.span.start_ns
            self._hops, self._pictures, self._words = [], [], []
        self._end_ns = hop.span.end_ns
        if "audio" in self._modalities and hop.heard.any():
            self._hops.append(_Sound(hop.span, hop.rate_hz, hop.samples, hop.heard))
        if "video" in self._modalities:
            self._pictures += [
                _Picture(frame.start_ns, _small(frame.image, self._seen)) for frame in hop.frames
            ]
        if "text" in self._modalities:
            self._words += words
        start_ns = max(self._since_ns, self._end_ns - self._window_ns)
        self._hops = [one for one in self._hops if one.span.end_ns > start_ns]
        self._pictures = [one for one in self._pictures if one.at_ns >= start_ns]
        self._words = [one for one in self._words if one.span.start_ns >= start_ns]

    def window(self) -> MmtWindow:
        """The window that ends with the last hop, of which there was one."""
        end_ns = self._end_ns or 0
        span = Span(end_ns - self._window_ns, end_ns)
        samples, heard = self._sound(span)
        chosen = self._chosen(span)
        n_channels = 3 if self._seen.colour == "rgb" else 1
        pictures = np.zeros((0, self._seen.height, self._seen.width, n_channels), np.uint8)
        if chosen:
            pictures = np.stack([one.pixels for one in chosen])
        since_ns = np.array([one.at_ns - span.start_ns for one in chosen], np.int64)
        at_secs = (since_ns / NS_PER_SEC).astype(np.float32)
        return MmtWindow(samples, heard, pictures, at_secs, self._text(span))

    def _sound(self, span: Span) -> tuple[Floats, NDArray[np.bool_]]:
        """[n], and which of them were heard; n = 0 where nothing was."""
        if not self._hops:
            return np.zeros(0, np.float32), np.zeros(0, np.bool_)
        rate_hz = self._hops[-1].rate_hz
        n_samples = ns_to_samples(span.duration_ns, rate_hz)
        samples, heard = np.zeros(n_samples, np.float32), np.zeros(n_samples, np.bool_)
        for one in self._hops:
            at = ns_to_samples(one.span.start_ns - span.start_ns, rate_hz)
            inside = slice(max(0, -at), max(0, n_samples - at))
            n = one.samples[inside].size
            samples[max(0, at) : max(0, at) + n] = one.samples[inside]
            heard[max(0, at) : max(0, at) + n] = one.heard[inside]
        return samples, heard

    def _chosen(self, span: Span) -> list["_Picture"]:
        """The first picture in each 1 / fps of the span."""
        first: dict[int, _Picture] = {}
        for one in self._pictures:
            since_ns = one.at_ns - span.start_ns
            first.setdefault((since_ns + _EARLY_NS) * self._seen.fps // NS_PER_SEC, one)
        return list(first.values())

    def _text(self, span: Span) -> str:
        inside = [
            one
            for one in self._words
            if span.start_ns <= one.span.start_ns and one.span.end_ns <= span.end_ns
        ]
        inside.sort(key=lambda one: one.span)
        return " ".join(one.text for one in inside)


@dataclass(frozen=True, slots=True, eq=False)
class _Sound:
    """Of one hop."""

    span: Span
    rate_hz: int
    samples: Floats
    heard: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    """As small as the model sees it."""

    at_ns: int
    pixels: Bytes
    """[height, width, 1 or 3]."""


def sound_of(
    windows: Sequence[MmtWindow], feature: Feature
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Frames [b, t, f] and whether all of each was heard [b, t]; None: no window has sound."""
    if not any(window.samples.size for window in windows):
        return None, None
    sounds, there = _padded([window.samples for window in windows])
    heard = there & _padded([window.heard for window in windows])[0]
    front = feature.settings
    if heard.shape[1] < front.n_window:
        return feature(sounds), heard[:, :0]
    return feature(sounds), heard.unfold(1, front.n_window, front.n_hop).all(dim=2)


def sight_of(
    windows: Sequence[MmtWindow],
) -> tuple[Tensor, Tensor, Tensor] | tuple[None, None, None]:
    """Pictures [b, t, c, h, w], whether they are there [b, t], and when, s [b, t]."""
    if not any(len(window.pictures) for window in windows):
        return None, None, None
    pictures, present = _padded([window.pictures for window in windows])
    at_secs, _ = _padded([window.at_secs for window in windows])
    return pictures.permute(0, 1, 4, 2, 3), present, at_secs


def _padded(arrays: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """[b, n, ...] with zeros behind, and which of [b, n] are no padding."""
    n_most, first = max(map(len, arrays)), arrays[0]
    whole = np.zeros((len(arrays), n_most, *first.shape[1:]), first.dtype)
    present = np.zeros((len(arrays), n_most), np.bool_)
    for row, array in enumerate(arrays):
        whole[row, : len(array)] = array
        present[row, : len(array)] = True
    return torch.from_numpy(whole), torch.from_numpy(present)


def _small(image: Image, settings: MmtPictures) -> Bytes:
    """[height, width, 1 or 3], scaled down by averaging."""
    if settings.colour == "rgb":
        return image.rgb((settings.width, settings.height))
    return small_luma(image, width=settings.width, height=settings.height)[..., None]
