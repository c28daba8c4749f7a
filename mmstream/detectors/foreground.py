"""What is in front of the background: for detectors that watch a camera which looks one way.

frame  ->  View  ->  Watch  ->  judge  ->  told  ->  Scores
           contrast  foreground  the largest patch    at the pictures that are due (`Cadence`)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from mmstream.detectors.background import DENSE, Background, Habits, Mask, as_bytes, white
from mmstream.detectors.masks import Polygon, greyed, ignored
from mmstream.features.video import fit_luma, local_contrast
from mmstream.media import (
    NS_PER_SEC,
    Box,
    Detection,
    Floats,
    Hop,
    Label,
    Scores,
    Series,
    VideoFrame,
)

DECISION: Final = 0.5
"""A score from here on says that something is in front."""


_SOFTNESS: Final = 10.0
_MAX_BOXES: Final = 3


@dataclass(frozen=True, slots=True)
class View:
    """How a picture is looked at."""

    max_width: int
    max_height: int
    window: int
    """Contrast is local to so many pixels each way (odd)."""

    def contrast(self, frame: VideoFrame, masks: tuple[Polygon, ...]) -> Floats:
        """[h, w]: the local contrast of a frame's luma, made small; 0 in the midst of a mask."""
        luma = frame.image.luma
        small = fit_luma(luma, max_width=self.max_width, max_height=self.max_height)
        contrast = local_contrast(greyed(small, masks), window=self.window, softness=_SOFTNESS)
        if masks:
            contrast[ignored(masks, *contrast.shape)] = 0
        return contrast


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """What is to be judged of a picture."""

    contrast: Floats
    """[h, w], steadied."""
    is_another: bool = False
    """Whether it has nothing to do with the one before, so that nothing is known of it."""


class Watch:
    """One source, watched at pictures that come in order: holds their background."""

    def __init__(self, habits: Habits, masks: tuple[Polygon, ...]) -> None:
        """Nothing has been seen."""
        self._habits = habits
        self._masks = masks
        self._background: Background | None = None

    def see(self, at_ns: int, contrast: Floats) -> Picture | None:
        """Take a picture into account; None while its background is being learnt."""
        known = self._background
        if known is None or not known.continues(at_ns, contrast.shape):
            self._start(at_ns, contrast)
            return None
        steadied = known.steadied(at_ns, contrast)
        if known.is_another(steadied):
            self._start(at_ns, contrast)
            return Picture(contrast, is_another=True)
        turned = known.follow_camera(at_ns, contrast, steadied.shift)
        laid = contrast if turned else steadied.contrast
        return Picture(laid) if known.update(at_ns, laid) else None

    def foreground(self, picture: Picture) -> Mask:
        """[h, w]: what is in front of what is usually there."""
        if self._background is None or picture.is_another:
            return np.zeros(picture.contrast.shape, np.bool_)
        return self._background.foreground(picture.contrast)

    def glance(self, at_ns: int, contrast: Floats) -> Mask | None:
        """As `foreground` of another picture, which is not learnt; None: of another size."""
        known = self._background
        if known is None or not known.fits(contrast.shape):
            return None
        return known.foreground(known.steadied(at_ns, contrast).contrast)

    def _start(self, at_ns: int, contrast: Floats) -> None:
        self._background = Background(at_ns, contrast, self._habits, self._masks)


class Cadence:
    """Which pictures are due, on a grid that begins with the first."""

    def __init__(self, max_fps: float) -> None:
        """No picture was seen."""
        self._period_ns = round(NS_PER_SEC / max_fps)
        self._first_ns: int | None = None
        self._slot = -1

    def is_due(self, at_ns: int) -> bool:
        """Whether it is the first of its slot; ask once per picture."""
        if self._first_ns is None:
            self._first_ns = at_ns
        # A camera at `max_fps` jitters around the grid: a quarter early is still in time.
        slot = (at_ns - self._first_ns + self._period_ns // 4) // self._period_ns
        is_due, self._slot = slot != self._slot, slot
        return is_due


@dataclass(frozen=True, slots=True)
class Look:
    """What was found in one picture."""

    at_ns: int
    score: float
    """0.5 and more: something is in front."""
    boxes: tuple[Box, ...] = ()
    """Around the largest patches, largest first; up to half a window too large on each side."""


def judge(at_ns: int, foreground: Mask, *, min_area: float, halved: bool) -> Look:
    """Score the largest patch: its area is a fraction of the picture, `min_area` scores 0.5.

    A patch is made of connected places where most of 5 x 5 pixels are foreground. `halved`: looked
    for at half the size; four times faster, and in a large picture a single pixel is nothing.
    """
    share = white(foreground)
    height, width = foreground.shape
    if halved:
        height, width = max(1, height // 2), max(1, width // 2)
        share = np.asarray(cv2.resize(share, (width, height), interpolation=cv2.INTER_AREA))
    dense = cv2.boxFilter(share, -1, (5, 5)) > DENSE
    if not dense.any():
        return Look(at_ns, 0.0)
    _, _, statistics, _ = cv2.connectedComponentsWithStats(as_bytes(dense))
    rows = sorted(statistics[1:].tolist(), key=lambda row: -row[cv2.CC_STAT_AREA])
    boxes = [
        Box(left / width, top / height, across / width, down / height)
        for left, top, across, down, area in rows[:_MAX_BOXES]
        if area / dense.size >= min_area
    ]
    largest = rows[0][cv2.CC_STAT_AREA] / dense.size
    return Look(at_ns, largest / (largest + min_area), tuple(boxes))


def told(hop: Hop, label: Label, looks: Sequence[Look]) -> Scores:
    """The looks as scores of `label`, with the places where something is in front."""
    if not looks:
        return Scores(hop.source, hop.index, hop.span)
    at_ns = np.array([look.at_ns for look in looks], np.int64)
    scores = np.array([look.score for look in looks], np.float32)
    found = [
        Detection(label.name, look.at_ns, "video", label.detector, look.score, box)
        for look in looks
        if look.score >= DECISION
        for box in look.boxes
    ]
    outputs = {label.name: Series(at_ns, scores)}
    return Scores(hop.source, hop.index, hop.span, outputs, tuple(found))
