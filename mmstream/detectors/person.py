r"""Person: somebody upright, by the shape of head, shoulders and legs.

Histograms of oriented gradients under a linear SVM (Dalal and Triggs 2005), with the weights that
OpenCV ships (trained on the INRIA persons), at two sizes of the picture:

    as 512x288   people of a third to two thirds of the picture's height
    as 320x180   from a half to all of it

Who is smaller is not seen, nor who sits, lies, or shows less than head to knee. A window has a
sixth of air around the person, and who fills the picture leaves none: so air is added around the
picture by repeating its edge. Without it such people are missed, or parts of them found.

    margin of the SVM   0.2 ... `decision` ... 2
    score               0.2     0.5            1     logistic, 0.73 one `_SLOPE` above

The best of overlapping windows stands for them; what is told is without the air. Where to look and
who is who: see `looking`. With `presence` switched off, who stands still is lost once that is no
longer motion.

Give the head 1.3 s of 2.5 s (3 of 5 looks) and `min_off_secs` of 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from pydantic import Field

from mmstream.config import Settings
from mmstream.detectors.looking import ANY, Cadence, Found, Heights, LookingScorer
from mmstream.features.video import fit_luma
from mmstream.media import Box, Bytes, Label

PERSON: Final = Label("person", "video", "hog")

_WINDOW: Final = (64, 128)
_STRIDE: Final = (8, 8)
_LEAST: Final = 0.2
"""Margin below which nothing is told."""
_SLOPE: Final = 0.25
_AIR: Final = (0.2, 0.1)
"""On each side of a person: of the window's width, of its height."""
_MARGIN: Final = (2, 3)
_MAX_LOST_SECS: Final = 2.5


class PersonSettings(Settings):
    """How often and where to look; the spec of a `LookingScorer` (`ScorerSpec`)."""

    looks_per_sec: float = Field(2.0, gt=0, le=10)
    """What is known is checked at each look, the rest as `max_area_per_sec` allows."""
    max_area_per_sec: float = Field(0.5, gt=0, le=10)
    """Whole pictures searched per second; each costs about 40 ms."""
    only_foreground: bool = True
    """Look only where `motion` or `presence` see something; false if both are switched off."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """`person`."""
        return (PERSON,)

    def build(self, device: str) -> LookingScorer:  # noqa: ARG002 - always on the CPU
        """Make it."""
        cadence = Cadence(
            looks_per_sec=self.looks_per_sec,
            max_area_per_sec=self.max_area_per_sec,
            only_foreground=self.only_foreground,
            margin=_MARGIN,
            max_lost_secs=_MAX_LOST_SECS,
        )
        return LookingScorer(PERSON, PersonFinder(), cadence)


@dataclass(frozen=True, slots=True)
class _Scale:
    """A size at which to look."""

    max_width: int
    max_height: int
    air: tuple[int, int]
    """What is added on each side: columns, rows."""
    ratio: float
    """Of sizes of two windows."""
    n_sizes: int
    decision: float
    """Margin that scores 0.5."""

    def shows(self, heights: Heights) -> bool:
        """Whether it can show people of one of these heights."""
        least = (1 - 2 * _AIR[1]) * _WINDOW[1] / self.max_height
        most = least * self.ratio ** (self.n_sizes - 1)
        return heights.least <= most and least <= heights.most


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """A picture at such a size."""

    luma: Bytes
    """[h, w], with air: what lies at the edge, repeated."""
    air: tuple[int, int]
    """On each side: columns, rows; more than asked for where it is smaller than a window."""


_SCALES: Final = (
    _Scale(512, 288, air=(16, 24), ratio=1.15, n_sizes=5, decision=0.6),
    _Scale(320, 180, air=(32, 50), ratio=1.08, n_sizes=12, decision=0.45),
)


class PersonFinder:
    """Finds people in parts of a picture (`Finder`)."""

    def __init__(self) -> None:
        """With OpenCV's own weights."""
        self._hogs = [_hog(scale.n_sizes) for scale in _SCALES]

    def find(self, luma: Bytes, regions: Sequence[Box], heights: Heights = ANY) -> list[Found]:
        """All windows above the least margin, best or not, without their air."""
        found = []
        for scale, hog in zip(_SCALES, self._hogs, strict=True):
            if not scale.shows(heights):
                continue
            view = _view(luma, scale)
            for region in regions:
                found += _find(hog, view, region, scale)
        return found


def _find(hog: cv2.HOGDescriptor, view: _View, region: Box, scale: _Scale) -> list[Found]:
    across, down = view.air
    height, width = view.luma.shape[0] - 2 * down, view.luma.shape[1] - 2 * across
    left, right = _stretch(region.x, region.width, width, across, _WINDOW[0])
    top, bottom = _stretch(region.y, region.height, height, down, _WINDOW[1])
    windows, margins = hog.detectMultiScale(
        np.ascontiguousarray(view.luma[top:bottom, left:right]),
        hitThreshold=_LEAST,
        winStride=_STRIDE,
        scale=scale.ratio,
        groupThreshold=0,
    )
    corner = left - across, top - down
    return [
        Found(
            _person(window, corner, (width, height)),
            float(1 / (1 + np.exp((scale.decision - margin) / _SLOPE))),
        )
        for window, margin in zip(np.array(windows).tolist(), np.ravel(margins), strict=True)
    ]


def _hog(n_sizes: int) -> cv2.HOGDescriptor:
    """OpenCV's defaults and weights, but for the number of sizes, which cannot be set later."""
    usual = cv2.HOGDescriptor()
    hog = cv2.HOGDescriptor(
        usual.winSize,
        usual.blockSize,
        usual.blockStride,
        usual.cellSize,
        usual.nbins,
        usual.derivAperture,
        usual.winSigma,
        usual.histogramNormType,
        usual.L2HysThreshold,
        usual.gammaCorrection,
        n_sizes,
    )
    hog.setSVMDetector(np.array(cv2.HOGDescriptor.getDefaultPeopleDetector(), np.float32))
    return hog


def _view(luma: Bytes, scale: _Scale) -> _View:
    luma = fit_luma(luma, max_width=scale.max_width, max_height=scale.max_height)
    factor = min(scale.max_width / luma.shape[1], scale.max_height / luma.shape[0])
    if factor > 1:
        size = max(1, round(factor * luma.shape[1])), max(1, round(factor * luma.shape[0]))
        luma = np.asarray(cv2.resize(luma, size), np.uint8)
    # What has no room for a window makes OpenCV crash.
    height, width = luma.shape
    across = max(scale.air[0], (_WINDOW[0] - width + 1) // 2)
    down = max(scale.air[1], (_WINDOW[1] - height + 1) // 2)
    wide = cv2.copyMakeBorder(luma, down, down, across, across, cv2.BORDER_REPLICATE)
    return _View(np.asarray(wide, np.uint8), (across, down))


def _stretch(start: float, length: float, n: int, n_air: int, n_least: int) -> tuple[int, int]:
    """A part of a side of `n` pixels and its air, in pixels of both: first, end."""
    low, high = int(start * n), int(np.ceil((start + length) * n)) + 2 * n_air
    missing = max(0, n_least - (high - low))
    low = max(0, low - missing // 2)
    high = min(n + 2 * n_air, low + max(high - low, n_least))
    return max(0, min(low, high - n_least)), high


def _person(window: list[int], corner: tuple[int, int], whole: tuple[int, int]) -> Box:
    """What a window holds, as a part of the whole picture."""
    sides = []
    for axis in (0, 1):
        size = window[axis + 2]
        low = (corner[axis] + window[axis] + _AIR[axis] * size) / whole[axis]
        high = low + (1 - 2 * _AIR[axis]) * size / whole[axis]
        low, high = min(max(low, 0.0), 1.0), min(max(high, 0.0), 1.0)
        sides.append((low, high - low))
    return Box(sides[0][0], sides[1][0], sides[0][1], sides[1][1])
