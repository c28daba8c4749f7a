r"""The mouth of who is seen, cut out of the pictures of one short span.

    +-----------+    a face, as `mmstream.detectors.face` finds it in 5 pictures of the span: middle
    |           |    and width are the medians of them
    |     +     |
    |   +---+   |    the mouth is `_BELOW` widths below the middle, and what is cut out is a square
    |   |   |   |    of `_SIDE` widths
    +---|   |---+
        +---+

One square serves all pictures: a box that jumps is no motion. Where heads move between recordings
lip reading hangs on this.
"""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from mmstream.detectors.face import FaceFinder
from mmstream.media import Box, Bytes

_LEAST_FACE: Final = 0.15
"""Of the height of the picture with its margin."""
_LEAST_SCORE: Final = 0.8
"""Of a face: 12 windows agree."""
_MARGINS: Final = (0.2, 0.225, 0.25, 0.275, 0.3)
"""Repeated edge on every side, of the picture's sides, look by look: the finder misses a face that
fills the picture (82 of GRID's 1000 crops without, none with it), and it counts in coarse steps,
which fall elsewhere with each margin."""
_BELOW: Final = 0.36
_SIDE: Final = 0.48
_WHOLE: Final = (Box(0, 0, 1, 1),)


class MouthFinder:
    """Finds the mouth of the face that is surest."""

    def __init__(self) -> None:
        """Ready for pictures of any size.

        Raises:
            ScorerError: this OpenCV came without its cascades.
        """
        self._faces = FaceFinder(_LEAST_FACE)

    def find(self, lumas: Sequence[Bytes]) -> NDArray[np.float64] | None:
        """[3]: middle (x, y) and side, in pixels, of the square around the mouth.

        Args:
            lumas: [h, w] each, of one place, at least one; 5 of them, spread evenly, are looked at.

        Returns:
            None where most of them show no face.
        """
        looked = np.linspace(0, len(lumas) - 1, len(_MARGINS)).round().astype(int)
        looks = zip(looked, _MARGINS, strict=True)
        faces = [face for nth, by in looks if (face := self._face(lumas[nth], by)) is not None]
        if 2 * len(faces) < len(_MARGINS):
            return None
        x, y, width = np.median(faces, axis=0)
        return np.array((x, y + _BELOW * width, _SIDE * width))

    def _face(self, luma: Bytes, margin: float) -> tuple[float, float, float] | None:
        """Middle and width of the surest face."""
        height, width = luma.shape
        down, across = round(margin * height), round(margin * width)
        framed = cv2.copyMakeBorder(luma, down, down, across, across, cv2.BORDER_REPLICATE)
        found = self._faces.find(np.asarray(framed, np.uint8), _WHOLE)
        surest = max(found, key=lambda one: one.score, default=None)
        if surest is None or surest.score < _LEAST_SCORE:
            return None
        box = surest.box
        x = (box.x + box.width / 2) * framed.shape[1] - across
        y = (box.y + box.height / 2) * framed.shape[0] - down
        return x, y, box.width * framed.shape[1]


def cut_square(pixels: Bytes, square: NDArray[np.float64], *, width: int, height: int) -> Bytes:
    """[h, w, c] -> [height, width, c]: the square (`MouthFinder.find`) scaled to that size.

    Beyond the picture's edge, the edge goes on.
    """
    x, y, side = square
    n = max(1, round(side))
    middle = (float(x) - 0.5, float(y) - 0.5)  # OpenCV counts from the middle of the first pixel
    patch = cv2.getRectSubPix(pixels, (n, n), middle)
    method = cv2.INTER_AREA if n > min(width, height) else cv2.INTER_LINEAR
    scaled = cv2.resize(patch, (width, height), interpolation=method)
    return np.asarray(scaled, np.uint8).reshape(height, width, pixels.shape[2])
