"""Hops and committed words -> windows of sound, sight and words, as training makes examples.

A window ends with a hop, and is what `mmstream.training.recordings` keeps of the same span: what
was not heard is masked, the first picture of each 1 / fps of the window is kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmstream.media import (
    NS_PER_SEC,
    Bytes,
    Floats,
    Hop,
    Modality,
    Span,
    TimedText,
    ns_to_samples,
)
from mmstream.models.mmt_shapes import picture_of, slot_of
from mmstream.models.mmt_spec import MmtPictures


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
            for frame in hop.frames:
                self._pictures.append(_Picture(frame.start_ns, picture_of(frame.image, self._seen)))
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
            first.setdefault(slot_of(one.at_ns - span.start_ns, self._seen), one)
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
