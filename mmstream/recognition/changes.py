"""When what is seen has become something else: a cut, or what has come or gone for good.

A picture is compared in 9 x 16 places with the one that was described last. A place differs when it
is brighter or darker, once brightness and contrast of the whole are made the same, and does not
show the same texture in another light: a cloud or a lamp is no change. When enough places differ,
the picture has changed; it is time to describe it as soon as it has been like itself for a moment.
What goes on moving is taken as it is a second after a cut, and else once after a while: further
descriptions of what never rests are left to the cadence.
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
CUT_PLACES: Final = 0.5
"""Where so much differs from one picture to the next, it was cut."""
SETTLED_SECS: Final = 0.5
"""So long it must have been like itself, and unlike the one before."""
CUT_PATIENCE_SECS: Final = 1.0
"""So long it may move after a cut before it is taken as it is."""
PATIENCE_SECS: Final = 3.0
"""So long it may go on changing otherwise; once, until it has rested."""
PAUSE_SECS: Final = 0.1
"""From one picture that is looked at to the next, at least."""
FOLLOW_SECS: Final = 20.0
"""In so much time the picture before becomes like the one of now, where they are much alike."""
_SAMPLES_PER_SIDE: Final = 10
_GAINS: Final = (0.5, 2.0)
_LEAST_TEXTURE: Final = 4.0
"""Standard deviation within a place below which noise is all there is."""
_LEAST_LIKENESS: Final = 0.6
"""Correlation of two textures from which they are the same. Of garden_brightness_change.avi 95 % of
the places lie above it, of what people cover in chaplin.mp4 and one_by_one_person.mp4 20 %."""


class Changes:
    """Those of one source, in order of time. Pure: no clock."""

    def __init__(self) -> None:
        """Nothing was seen."""
        self._before: Floats | None = None
        """As it was when it was last described; slowly follows what drifts."""
        self._now: Floats | None = None
        self._rest: Floats | None = None
        """What it has been like since `_rest_since_ns`."""
        self._rest_since_ns = 0
        self._unlike_since_ns: int | None = None
        self._cut_ns: int | None = None
        """When it was cut since the one before."""
        self._is_still = False
        self._is_spent = False
        """Whether it was described as it moved, and has not rested since."""
        self._looked_ns: int | None = None

    def look(self, luma: Bytes, at_ns: int) -> bool:
        """[h, w] -> whether it has changed for good since the last that was `taken`.

        It stays so until it is `taken`, or is as before again. The first is nothing new.
        """
        if self._looked_ns is not None and at_ns - self._looked_ns < secs_to_ns(PAUSE_SECS):
            return False
        last_ns, self._looked_ns = self._looked_ns, at_ns
        last, self._now = self._now, places(luma)
        now = self._now
        self._settle(now, at_ns)
        if self._before is None or last_ns is None:
            self._before = now
            return False
        if not unlike(now, self._before):
            self._unlike_since_ns = self._cut_ns = None
            share = min(1.0, (at_ns - last_ns) / secs_to_ns(FOLLOW_SECS))
            self._before = self._before + np.float32(share) * (now - self._before)
            return False
        if self._unlike_since_ns is None:
            self._unlike_since_ns = at_ns
        if self._cut_ns is None and last is not None and unlike(now, last, CUT_PLACES):
            self._cut_ns = at_ns
        return self._is_due(at_ns, self._unlike_since_ns)

    def taken(self) -> None:
        """The picture that was looked at last is described: from now on others differ from it."""
        self._before = self._now
        self._unlike_since_ns = self._cut_ns = None
        self._is_spent = not self._is_still

    def interrupt(self) -> None:
        """Time was lost: what had begun to change must settle anew."""
        self._now = self._rest = self._unlike_since_ns = self._cut_ns = None

    def _settle(self, now: Floats, at_ns: int) -> None:
        if self._rest is None or unlike(now, self._rest):
            self._rest, self._rest_since_ns = now, at_ns
        self._is_still = at_ns - self._rest_since_ns >= secs_to_ns(SETTLED_SECS)
        self._is_spent = self._is_spent and not self._is_still

    def _is_due(self, at_ns: int, since_ns: int) -> bool:
        if self._is_still:
            return at_ns - since_ns >= secs_to_ns(SETTLED_SECS)
        if self._cut_ns is not None:
            return at_ns - self._cut_ns >= secs_to_ns(CUT_PATIENCE_SECS)
        return not self._is_spent and at_ns - since_ns >= secs_to_ns(PATIENCE_SECS)


def places(luma: Bytes) -> Floats:
    """[h, w] -> [9, 16, 100]: samples of each of `GRID`; a small picture has some twice."""
    rows, columns = (
        _indices(n_pixels, n_places) for n_pixels, n_places in zip(luma.shape, GRID, strict=True)
    )
    sampled = luma[rows[:, None], columns].astype(np.float32)
    split = sampled.reshape(GRID[0], _SAMPLES_PER_SIDE, GRID[1], _SAMPLES_PER_SIDE)
    return split.swapaxes(1, 2).reshape(*GRID, _SAMPLES_PER_SIDE**2)


def unlike(now: Floats, before: Floats, least_places: float = LEAST_PLACES) -> bool:
    """Whether enough places differ in more than their light."""
    levels = now.mean(axis=2), before.mean(axis=2)
    differ = _differ(*levels)
    if differ.mean() < least_places:
        return False
    textures = now - levels[0][:, :, None], before - levels[1][:, :, None]
    return bool((differ & ~_are_same(*textures)).mean() >= least_places)


def _differ(now: Floats, before: Floats) -> NDArray[np.bool_]:
    """[9, 16] means each -> where they differ once brightness and contrast are made the same."""
    spread_now, spread_before = (
        float(np.abs(one - np.median(one)).mean()) for one in (now, before)
    )
    gain = np.float32(np.clip(spread_now / max(spread_before, 1e-6), *_GAINS))
    # What has come can be large and bright: then it is no contrast that has changed.
    plain, gained = _far(now - before), _far(now - before * gain)
    return plain if plain.mean() < gained.mean() else gained


def _far(differences: Floats) -> NDArray[np.bool_]:
    # The median of the differences stays when less than half of the picture changes.
    far: NDArray[np.bool_] = np.abs(differences - np.median(differences)) >= LEAST_LEVELS
    return far


def _are_same(now: Floats, before: Floats) -> NDArray[np.bool_]:
    """[9, 16, 100] around their means -> where both have the same texture."""
    spreads = np.sqrt((now**2).mean(axis=2)), np.sqrt((before**2).mean(axis=2))
    has_texture = np.minimum(*spreads) >= _LEAST_TEXTURE
    products = (now * before).mean(axis=2)
    same: NDArray[np.bool_] = has_texture & (products >= _LEAST_LIKENESS * spreads[0] * spreads[1])
    return same


def _indices(n_pixels: int, n_places: int) -> NDArray[np.intp]:
    n_samples = n_places * _SAMPLES_PER_SIDE
    return (2 * np.arange(n_samples, dtype=np.intp) + 1) * n_pixels // (2 * n_samples)
