"""Masks: the places of a picture that a detector is to ignore (a clock, a tree, a road behind).

    detectors:
      motion:
        masks:
          door:                                           # by source, any number of polygons
            - [[0, 0], [0.3, 0], [0.3, 0.1], [0, 0.1]]    # fractions from the top left corner

What is masked is grey, as bright as the rest is on average, before anything is measured: it is
never in front of anything, and what happens in it does not touch what is measured beside it. In
pictures for people and for captioners it is black, and a little more than it.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from mmstream.media import Bytes, Image, read_only

Fraction = Annotated[float, Field(ge=0, le=1)]
Point = tuple[Fraction, Fraction]
"""[x, y] as fractions of the picture, from the top left corner."""
Polygon = Annotated[tuple[Point, ...], Field(min_length=3)]
"""Its corners in order; what lies within it, its edge included, is ignored."""

_COARSE: Final = (90, 160)
_SUB_PIXEL_BITS: Final = 8
_MARGIN: Final = 2
"""Pixels around what is black that are black too: scaling mixes neighbours."""
_KEPT: Final = 64
"""Rasters kept: one per source, detector and size of picture."""


def _leaves_something(polygons: tuple[Polygon, ...]) -> tuple[Polygon, ...]:
    if polygons and ignored(polygons, *_COARSE).all():
        msg = "these masks leave nothing of the picture to look at"
        raise ValueError(msg)
    return polygons


Polygons = Annotated[tuple[Polygon, ...], AfterValidator(_leaves_something)]
"""All that is ignored in the pictures of one source; never all there is."""


class MasksBySource(dict[str, Polygons]):
    """Polygons by source; as settings are, it is not changed once made, and has a hash."""

    def __hash__(self) -> int:  # type: ignore[override] # dict sets it to None
        """Of what is in it, in whatever order."""
        return hash(frozenset(self.items()))


Masks = Annotated[Mapping[str, Polygons], AfterValidator(MasksBySource)]
"""The type of a setting."""


@lru_cache(maxsize=_KEPT)
def ignored(polygons: tuple[Polygon, ...], height: int, width: int) -> NDArray[np.bool_]:
    """[height, width]: where nothing is to be looked at; read-only."""
    raster = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        # Fractions are of the picture's edges, OpenCV's corners lie in the middle of pixels.
        corners = np.array(polygon, np.float64) * (width, height) - 0.5
        fixed = np.round(corners * (1 << _SUB_PIXEL_BITS)).astype(np.int32)
        cv2.fillPoly(raster, [fixed], 1, shift=_SUB_PIXEL_BITS)
    return read_only(raster.view(np.bool_))


def greyed(luma: Bytes, polygons: tuple[Polygon, ...]) -> Bytes:
    """[h, w] -> [h, w]: `luma` with what is ignored as bright as the rest is on average."""
    if not polygons:
        return luma
    hidden = ignored(polygons, *luma.shape)
    seen = cv2.mean(luma, mask=(~hidden).view(np.uint8))[0]
    grey = luma.copy()
    grey[hidden] = round(seen)
    return grey


def blackened(image: Image, max_width: int, polygons: tuple[Polygon, ...]) -> Bytes:
    """[h, w, 3], at most `max_width` pixels wide and in its shape: black where it is ignored."""
    width = min(max_width, image.width)
    height = max(1, round(image.height * width / image.width))
    picture = image.rgb((width, height))
    if not polygons:
        return picture
    hidden = ignored(polygons, height, width).copy()
    for _ in range(_MARGIN):
        hidden[1:] |= hidden[:-1].copy()
        hidden[:-1] |= hidden[1:].copy()
        hidden[:, 1:] |= hidden[:, :-1].copy()
        hidden[:, :-1] |= hidden[:, 1:].copy()
    return np.where(hidden[:, :, None], np.uint8(0), picture)
