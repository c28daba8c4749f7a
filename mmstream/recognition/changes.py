"""When what is seen has become something else: a cut, or what has come or gone for good.

A picture is compared as 9 x 16 means of its luma with the one that was described last, once its
brightness and contrast as a whole are made the same (so light that changes everywhere alike is no
change). It has changed when enough of these differ, and it is time to describe it as soon as it
has been like itself for a moment, or has been unlike the one before for longer.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmstream.media import Bytes, Floats, secs_to_ns

GRID: Final = (9, 16)
"""Rows and columns of places that are compared."""
LEAST_LEVELS: Final = 14.0
"""By so much a place differs, of 256."""
LEAST_PLACES: Final = 0.06
"""So much of the picture must differ."""
SETTLED_SECS: Final = 0.5
"""So long it must have been like itself, and unlike the one before."""
PATIENCE_SECS: Final = 3.0
"""So long it may go on changing before it is taken as it is."""
PAUSE_SECS: Final = 0.1
"""From one picture that is looked at to the next, at least."""
FOLLOW_SECS: Final = 20.0
"""In so much time the picture before becomes like the one of now, where they are much alike."""
_SAMPLES_PER_PLACE: Final = 10
_GAINS: Final = (0.5, 2.0)


class Changes:
    """Those of one source, in order of time. Pure: no clock."""

    def __init__(self) -> None:
        """Nothing was seen."""
        self._before: Floats | None = None
        """As it was when it was last described; slowly follows what drifts."""
        self._now: Floats | None = None
        self._settling: Floats | None = None
        """As it was when it last changed."""
        self._unlike_since_ns = 0
        self._settling_since_ns = 0
        self._looked_ns: int | None = None

    def look(self, luma: Bytes, at_ns: int) -> bool:
        """[h, w] -> whether it has changed for good since the last that was `taken`.

        It stays so until it is `taken`, or is as before again. The first is nothing new.
        """
        if self._looked_ns is not None and at_ns - self._looked_ns < secs_to_ns(PAUSE_SECS):
            return False
        last_ns, self._looked_ns = self._looked_ns, at_ns
        self._now = now = places(luma)
        if self._before is None or last_ns is None:
            self._before = now
            return False
        if not unlike(now, self._before):
            self._settling = None
            share = min(1.0, (at_ns - last_ns) / secs_to_ns(FOLLOW_SECS))
            self._before = self._before + np.float32(share) * (now - self._before)
            return False
        if self._settling is None:
            self._unlike_since_ns = at_ns
        if self._settling is None or unlike(now, self._settling):
            self._settling, self._settling_since_ns = now, at_ns
        return at_ns - self._settling_since_ns >= secs_to_ns(
            SETTLED_SECS
        ) or at_ns - self._unlike_since_ns >= secs_to_ns(PATIENCE_SECS)

    def taken(self) -> None:
        """The picture that was looked at last is described: from now on others differ from it."""
        self._before, self._settling = self._now, None

    def interrupt(self) -> None:
        """Time was lost: what had begun to change must settle anew."""
        self._settling = None


def places(luma: Bytes) -> Floats:
    """[h, w] -> `GRID` means; a picture smaller than that is made larger."""
    rows, columns = (
        _indices(n_pixels, n_places) for n_pixels, n_places in zip(luma.shape, GRID, strict=True)
    )
    sampled = luma[rows[:, None], columns]
    shape = (GRID[0], _SAMPLES_PER_PLACE, GRID[1], _SAMPLES_PER_PLACE)
    means: Floats = sampled.reshape(shape).mean(axis=(1, 3), dtype=np.float32)
    return means


def unlike(now: Floats, before: Floats) -> bool:
    """Whether enough places differ once brightness and contrast are made the same."""
    middles = np.median(now), np.median(before)
    now, before = now - middles[0], before - middles[1]
    spreads = float(np.abs(now).mean()), float(np.abs(before).mean())
    gain = np.clip(spreads[0] / max(spreads[1], 1e-6), *_GAINS)
    # What has come can be large and bright: then it is no contrast that has changed.
    off = min(_off(now, before), _off(now, before * np.float32(gain)))
    return off >= LEAST_PLACES


def _off(now: Floats, before: Floats) -> float:
    return float((np.abs(now - before) >= LEAST_LEVELS).mean())


def _indices(n_pixels: int, n_places: int) -> NDArray[np.intp]:
    n_samples = n_places * _SAMPLES_PER_PLACE
    return (2 * np.arange(n_samples, dtype=np.intp) + 1) * n_pixels // (2 * n_samples)
