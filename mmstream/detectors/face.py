r"""Face: somebody who looks towards the camera.

A cascade of boosted Haar features (Viola and Jones 2001; OpenCV's `frontalface_alt2`, of trees in
place of stumps: at the same recall it is wrong a fifth as often as `frontalface_default`), on the
picture made so small that the least face has the cascade's 20 pixels.

    score = n / (n + `_DECISION`), n: how many windows around the face agree

Where something is in front, faces from `min_height` on are looked for. Who sits before a webcam
from the first picture on is in front of nothing: so all of the picture is glanced at every
`glance_secs` for faces twice as large, and one that is found there is then looked for again where
it was (`looking`). A face on a poster is a face. Profiles and faces that look down are missed.

Give the head 0.8 s of 2 s (2 looks that follow each other) and `min_off_secs` of 2.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from pydantic import Field

from mmstream.config import Settings
from mmstream.detectors.looking import ANY, Cadence, Found, Glances, Heights, LookingScorer
from mmstream.errors import ScorerError
from mmstream.features.video import fit_luma
from mmstream.media import Box, Bytes, Label

FACE: Final = Label("face", "video", "haar")

_CASCADE: Final = "haarcascade_frontalface_alt2.xml"
_WINDOW: Final = 20
_LEVELS: Final = 1.15
"""Ratio of sizes of two windows."""
_LEAST_AGREE: Final = 2
_DECISION: Final = 3.0
"""So many windows that agree score 0.5."""
_GLANCE_SIZE: Final = 2.0
"""The least face of a glance, in `min_height`."""
_MAX_ASPECT: Final = 4
_MARGIN: Final = (2, 2)
_MAX_LOST_SECS: Final = 2.5


class FaceSettings(Settings):
    """How often and where to look; the spec of a `LookingScorer` (`ScorerSpec`)."""

    looks_per_sec: float = Field(2.0, gt=0, le=10)
    """What is known is checked at each look, the rest as `max_area_per_sec` allows."""
    max_area_per_sec: float = Field(0.3, gt=0, le=10)
    """Whole pictures searched per second; each costs 20-60 ms, more where there is much detail."""
    min_height: float = Field(0.1, ge=0.02, le=0.5)
    """The least face, from brow to chin, as a fraction of the picture's height."""
    glance_secs: float = Field(1.0, ge=0.5, le=60)
    """All of the picture is glanced at this often."""
    only_foreground: bool = True
    """Look only where `motion` or `presence` see something; false if both are switched off."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """`face`."""
        return (FACE,)

    def build(self, device: str) -> LookingScorer:  # noqa: ARG002 - always on the CPU
        """Make it.

        Raises:
            ScorerError: this OpenCV came without its cascades.
        """
        glances = Glances(FaceFinder(_GLANCE_SIZE * self.min_height), self.glance_secs)
        cadence = Cadence(
            looks_per_sec=self.looks_per_sec,
            max_area_per_sec=self.max_area_per_sec,
            only_foreground=self.only_foreground,
            margin=_MARGIN,
            max_lost_secs=_MAX_LOST_SECS,
            glances=glances if self.only_foreground else None,
        )
        return LookingScorer(FACE, FaceFinder(self.min_height), cadence)


class FaceFinder:
    """Finds faces in a part of a picture (`Finder`)."""

    def __init__(self, min_height: float) -> None:
        """Faces from this fraction of the picture's height on.

        Raises:
            ScorerError: this OpenCV came without its cascades.
        """
        path = Path(cv2.__file__).parent / "data" / _CASCADE
        if not path.is_file():
            msg = f"face: {path} is not there; opencv-python-headless 4.x has it, 5.x has not"
            raise ScorerError(msg)
        self._cascade = cv2.CascadeClassifier(str(path))
        self._max_height = round(_WINDOW / min_height)

    def find(
        self,
        luma: Bytes,
        regions: Sequence[Box],
        heights: Heights = ANY,  # noqa: ARG002 - checks are small and cheap
    ) -> list[Found]:
        """Each face once in a region."""
        max_width = _MAX_ASPECT * self._max_height
        small = fit_luma(luma, max_width=max_width, max_height=self._max_height)
        return [one for region in regions for one in self._find(small, region)]

    def _find(self, luma: Bytes, region: Box) -> list[Found]:
        height, width = luma.shape
        top, left = int(region.y * height), int(region.x * width)
        bottom = int(np.ceil((region.y + region.height) * height))
        right = int(np.ceil((region.x + region.width) * width))
        places, n_agree = self._cascade.detectMultiScale2(
            luma[top:bottom, left:right], scaleFactor=_LEVELS, minNeighbors=_LEAST_AGREE
        )
        places, n_agree = np.array(places).tolist(), np.ravel(n_agree).tolist()
        return [
            Found(
                Box((left + x) / width, (top + y) / height, across / width, down / height),
                n / (n + _DECISION),
            )
            for (x, y, across, down), n in zip(places, n_agree, strict=True)
        ]
