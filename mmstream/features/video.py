"""What detectors and models see of a picture: its luma, made small; independent of the light."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np

from mmstream.media import Bytes, Floats, Image, read_only

_REFINEMENTS: Final = 2
_OUTLYING: Final = 1.0
"""What differs by more has moved by itself."""
_LEAST_GRADIENT: Final = 1.0
"""Keeps a picture without edges where it is."""
_BT601: Final = np.array((0.299, 0.587, 0.114), np.float32)


def use_one_thread() -> None:
    """Let OpenCV compute on the calling thread only, as the worker wants it."""
    cv2.setNumThreads(1)


def fit_luma(luma: Bytes, *, max_width: int, max_height: int) -> Bytes:
    """[h, w] -> [<= max_height, <= max_width] with the same aspect; never made larger.

    Halved by averaging as often as it goes (an odd row or column is cut off), then interpolated
    for what is left of the factor, below 2: 0.2 ms from 1080p, where one INTER_AREA by the whole
    factor takes 0.7 ms, or 0.9 ms from 768x432 because that factor is broken.
    """
    while luma.shape[1] >= 2 * max_width or luma.shape[0] >= 2 * max_height:
        height, width = (max(1, length // 2) for length in luma.shape)
        even = luma[: 2 * height, : 2 * width]
        luma = _bytes(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA))
    factor = max(luma.shape[1] / max_width, luma.shape[0] / max_height)
    if factor > 1:
        size = (max(1, round(luma.shape[1] / factor)), max(1, round(luma.shape[0] / factor)))
        luma = _bytes(cv2.resize(luma, size, interpolation=cv2.INTER_LINEAR))
    return luma


def small_luma(image: Image, *, width: int, height: int) -> Bytes:
    """[height, width] in 0..255: what models see of a picture, in training and in a stream.

    Scaled down by averaging, the aspect is not kept. By way of colour, so that pictures whose codec
    says 16..235 and those that are 0..255 look the same.
    """
    return luma_of(image.rgb((width, height)))


def luma_of(rgb: Bytes) -> Bytes:
    """[h, w, 3] -> [h, w] (BT.601)."""
    luma: Floats = rgb @ _BT601
    return np.rint(luma).clip(0, 255).astype(np.uint8)


def local_contrast(luma: Bytes, *, window: int, softness: float) -> Floats:
    """[h, w] -> [h, w]: how far each pixel is from the mean around it, in deviations around it.

    (x - mean) / (deviation + softness) over `window` x `window` pixels (odd). Light that changes
    by a factor and an offset, each the same all over the window, changes nothing as long as the
    deviation is well above `softness` levels; where it is below (plain walls), the noise of the
    camera stays small. Both statistics are box filters: the cost does not depend on `window`.
    """
    size = (window, window)
    mean = cv2.boxFilter(luma, cv2.CV_32F, size)
    variance = cv2.sqrBoxFilter(luma, cv2.CV_32F, size) - mean * mean
    deviation = cv2.sqrt(np.maximum(variance, 0))
    return np.asarray(cv2.subtract(luma, mean, dtype=cv2.CV_32F) / (deviation + softness))


@dataclass(frozen=True, slots=True)
class Shift:
    """By how many pixels what is seen has moved as a whole."""

    right: float
    down: float

    @property
    def length(self) -> float:
        """Pixels."""
        return math.hypot(self.right, self.down)

    def minus(self, other: "Shift") -> "Shift":
        """By how much more than `other`."""
        return Shift(self.right - other.right, self.down - other.down)

    def times(self, factor: float) -> "Shift":
        """The same in a picture so many times as large."""
        return Shift(self.right * factor, self.down * factor)


def shift_between(before: Floats, after: Floats) -> Shift:
    """How far `after` [h, w] lies from `before` [h, w]; a guess to be checked by undoing it.

    Phase correlation (Kuglin, Hines 1975) at half the size, then two steps of least squares on
    the gradients (Lucas, Kanade 1981) over what does not differ too much. Right to about 0.1
    pixels where most of the picture has moved alike and by less than a quarter of its sides.
    """
    height, width = before.shape
    size = (max(2, width // 2), max(2, height // 2))
    small_before = cv2.resize(before, size, interpolation=cv2.INTER_AREA)
    small_after = cv2.resize(after, size, interpolation=cv2.INTER_AREA)
    (right, down), _ = cv2.phaseCorrelate(small_before, small_after, _hanning(*size))
    shift = Shift(right * width / size[0], down * height / size[1])
    across = cv2.Sobel(before, cv2.CV_32F, 1, 0, scale=1 / 8)
    along = cv2.Sobel(before, cv2.CV_32F, 0, 1, scale=1 / 8)
    normal = np.array([[np.vdot(a, b) for a in (across, along)] for b in (across, along)])
    normal += np.eye(2) * _LEAST_GRADIENT
    for _ in range(_REFINEMENTS):
        difference = unshifted(after, shift, onto=before) - before
        difference[np.abs(difference) > _OUTLYING] = 0
        right, down = np.linalg.solve(
            normal, [np.vdot(across, difference), np.vdot(along, difference)]
        )
        shift = Shift(shift.right - float(right), shift.down - float(down))
    return shift


def unshifted(picture: Floats, shift: Shift, *, onto: Floats) -> Floats:
    """[h, w] -> [h, w]: `picture` with `shift` undone; what was out of view is that of `onto`."""
    moved = np.array([[1, 0, shift.right], [0, 1, shift.down]], np.float64)
    size = (picture.shape[1], picture.shape[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_TRANSPARENT
    return np.asarray(cv2.warpAffine(picture, moved, size, onto.copy(), flags, border))


@lru_cache(maxsize=16)
def _hanning(width: int, height: int) -> Floats:
    """Fades towards the borders, so that they do not count as edges; read-only."""
    return read_only(np.asarray(cv2.createHanningWindow((width, height), cv2.CV_32F), np.float32))


def _bytes(array: cv2.typing.MatLike) -> Bytes:
    return np.asarray(array, np.uint8)
