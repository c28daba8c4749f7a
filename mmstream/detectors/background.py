r"""What is usually in the picture of a camera that looks one way.

A `Background` judges pictures of local contrast. Each pixel remembers two values:

    background   what was usually there; follows the light where nothing is in front
    candidate    what is there now, and since when

    contrast  ____/~~~~~~\____        foreground: differs from the background
    candidate ====|======|====        takes over as background once it has been there long enough

How long is long enough say `Habits`: as long as the background was seen there, within limits. If
that takes long, what hangs together is taken over as a whole or not at all.

**A camera that shakes.** When edges of the background are missing, the picture is laid on it by
the shift that brings them back; where none does, nothing is shifted. What came into view counts
as background. A shift that stays moves the background: the camera was turned.

**A picture that is another one** as a whole (a cut, a camera turned far) is for the caller to
notice (`is_another`) and to start anew with.
"""

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from mmstream.detectors.masks import Polygon, ignored
from mmstream.features.video import Shift, shift_between, unshifted
from mmstream.media import NS_PER_SEC, Bytes, Floats

Mask = NDArray[np.bool_]
_Part = tuple[slice, slice]
"""Rows and columns of a picture."""
_ALL: Final[_Part] = (slice(None), slice(None))

_DIFFERENT: Final = 0.5
"""Least difference of contrasts that counts."""
_PER_NOISE: Final = 5.0
"""Nor does a difference count that is below so many times the usual one."""
_MAX_DIFFERENT: Final = 1.0
_WHITE: Final = 255
DENSE: Final = 127
"""A place is foreground when half of the pixels around it are."""

_WHOLE: Final = 0.9
"""A patch has settled as a whole when so much of it has."""

_LEARN_NS: Final = NS_PER_SEC
_MAX_STEP_NS: Final = NS_PER_SEC
"""Lost time counts as no more."""
_MAX_LOST_NS: Final = 10 * NS_PER_SEC
"""After so much lost time everything is learnt anew."""
_FOLLOW_SECS: Final = 5.0
_CANDIDATE_SECS: Final = 0.4
_LEARN_NOISE_SECS: Final = 0.3
_NOISE_SECS: Final = 2.0

_LOST_EDGES: Final = 0.6
"""The picture is another one when so much of the background's structure is gone ..."""
_LOST_AREA: Final = 0.3
"""... and so much of the picture differs. Of real cuts 0.62 and 0.31 were the least; of real
motion (five people filling the picture) 0.61 and 0.24 the most."""

_SHAKEN_EDGES: Final = 0.06
"""A shift is looked for when so much of the background's structure is missing ..."""
_EDGES_WIDTH: Final = 80
"""Edges are looked at in about so many columns."""
_CELLS: Final = 5
"""Parts of the picture each way ..."""
_LEAST_CELL: Final = 0.02
"""... which count when edges cover so much of them."""
_REGAINED: Final = 0.4
"""... and undone when that brings back so much of what is missing."""
_SHIFT_WIDTH: Final = 160
"""It is looked for at no more: that is right to a fifth of a pixel at 320."""
_MAX_SHIFT: Final = 0.2
"""It is not believed beyond that, as a fraction of the shorter side."""
_SAME: Final = 0.006
"""Shifts that differ by less, as a fraction of the width, are the same ..."""
_TURNED_NS: Final = NS_PER_SEC
"""... and the camera has been turned when it has stayed the same for so long."""
_NO_SHIFT_NS: Final = 3 * NS_PER_SEC // 10
"""Where none was found, the next is looked for after so long: it costs as much as all the rest."""
_UNMOVED: Final = Shift(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Habits:
    """How a background is kept: when a thing that was put there belongs to it.

    It does when it has not changed for as long as what was there before it had been seen, ...
    """

    least_secs: float
    """... but no sooner than this ..."""
    most_secs: float
    """... and no later than this."""
    guard: int
    """What is in front is in the contrast of so many pixels around it (odd, or 0 for none), which
    therefore do not follow the light."""


@dataclass(frozen=True, slots=True, eq=False)
class Steadied:
    """A picture, laid on the background."""

    contrast: Floats
    """[h, w]"""
    shift: Shift
    """What was undone."""
    missing: float
    """Which fraction of the background's edges is not there even so."""


@dataclass(frozen=True, slots=True)
class _Missing:
    """Which fraction of the background's edges is not there."""

    overall: float
    typically: float
    """In most parts of the picture: small where something stands in front, however large."""


class Background:
    """Per pixel: what is usually there, what is there now, and since when."""

    def __init__(
        self, at_ns: int, contrast: Floats, habits: Habits, masks: tuple[Polygon, ...]
    ) -> None:
        """Start to learn from `contrast`, [h, w]."""
        self._since_ns = self._at_ns = at_ns
        self._habits = habits
        hidden = ignored(masks, *contrast.shape) if masks else None
        self._hidden = hidden
        self._n_seen = contrast.size - (0 if hidden is None else int(np.count_nonzero(hidden)))
        self._usual = contrast.copy()
        self._seen_secs = np.zeros_like(contrast)
        self._candidate = contrast.copy()
        self._age_secs = np.zeros_like(contrast)
        self._zero = np.zeros_like(contrast)
        self._noise = 0.0
        self._shift = _UNMOVED
        self._shifted_since_ns = at_ns
        self._no_shift_until_ns = at_ns

    def continues(self, at_ns: int, shape: tuple[int, ...]) -> bool:
        """Whether a picture of that instant and shape can be judged against this."""
        return at_ns - self._at_ns <= _MAX_LOST_NS and self.fits(shape)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a picture of that shape can be laid on this."""
        return shape == self._usual.shape

    def steadied(self, at_ns: int, contrast: Floats) -> "Steadied":
        """`contrast`, [h, w], as a camera would see it that was not moved.

        Where no shift explains what has changed, the next is not looked for at once.
        """
        missing = self._missing_edges(contrast, _ALL)
        as_it_is = Steadied(contrast, _UNMOVED, missing.overall)
        if missing.typically < _SHAKEN_EDGES or at_ns < self._no_shift_until_ns:
            return as_it_is
        self._no_shift_until_ns = at_ns + _NO_SHIFT_NS
        shift = self._shift_of(contrast)
        if shift.length > _MAX_SHIFT * min(contrast.shape):
            return as_it_is
        laid = self._unshifted(contrast, shift, onto=self._usual)
        in_view = _in_view(shift, contrast.shape)
        before, after = (self._missing_edges(one, in_view) for one in (contrast, laid))
        if after.typically > (1 - _REGAINED) * before.typically:
            return as_it_is
        self._no_shift_until_ns = at_ns
        return Steadied(laid, shift, after.overall)

    def is_another(self, steadied: "Steadied") -> bool:
        """Whether nearly all that was there is gone at once, and not for learning it just now."""
        if steadied.missing < _LOST_EDGES or self._is_learning(self._at_ns):
            return False
        differs = cv2.absdiff(steadied.contrast, self._usual) > _DIFFERENT
        return bool(np.count_nonzero(differs) >= _LOST_AREA * self._n_seen)

    def foreground(self, contrast: Floats) -> Mask:
        """[h, w]: where `contrast`, steadied, is not what is usually there."""
        return self._unlike(cv2.absdiff(contrast, self._usual))

    def follow_camera(self, at_ns: int, contrast: Floats, shift: Shift) -> bool:
        """Turn with the camera, if `shift` has stayed; `contrast` as it came."""
        width = self._usual.shape[1]
        is_new = _UNMOVED in (shift, self._shift)
        if is_new or shift.minus(self._shift).length > _SAME * width:
            self._shift, self._shifted_since_ns = shift, at_ns
        if at_ns - self._shifted_since_ns < _TURNED_NS:
            return False
        self._usual = self._unshifted(self._usual, shift.times(-1), onto=contrast)
        self._candidate = contrast.copy()
        self._age_secs.fill(0)
        self._shift = _UNMOVED
        return True

    def update(self, at_ns: int, contrast: Floats) -> bool:
        """Take what is there now into account; gives whether the background is known by now."""
        step_secs = min(at_ns - self._at_ns, _MAX_STEP_NS) / NS_PER_SEC
        self._at_ns = at_ns
        self._follow_candidate(contrast, step_secs)
        difference = cv2.absdiff(contrast, self._usual)
        foreground = self._unlike(difference)
        usual = as_bytes(~self._around(foreground))
        is_learning = self._is_learning(at_ns)
        share = _share(step_secs, _LEARN_NOISE_SECS if is_learning else _NOISE_SECS)
        self._noise += share * (self._usual_difference(difference) - self._noise)
        if is_learning:
            np.copyto(self._usual, self._candidate)
            return False
        cv2.accumulateWeighted(contrast, self._usual, _share(step_secs, _FOLLOW_SECS), mask=usual)
        self._settle(foreground, step_secs)
        return True

    def _around(self, foreground: Mask) -> Mask:
        """`foreground` and what is so near to it that its contrast is touched as well."""
        guard = self._habits.guard
        if guard == 0:
            return foreground
        dense = cv2.boxFilter(white(foreground), -1, (5, 5)) > DENSE
        near = cv2.dilate(as_bytes(dense), np.ones((guard, guard), np.uint8))
        return foreground | (near > 0)

    def _settle(self, foreground: Mask, step_secs: float) -> None:
        """What has been there for long enough is background."""
        least_secs, most_secs = self._habits.least_secs, self._habits.most_secs
        settled = foreground & (self._age_secs >= least_secs)
        if most_secs > least_secs:
            self._seen_secs += (~foreground) * np.float32(step_secs)
            np.minimum(self._seen_secs, most_secs, out=self._seen_secs)
            settled &= self._age_secs >= self._seen_secs
            settled = _whole_patches(foreground, settled)
            cv2.copyTo(self._age_secs, as_bytes(settled), self._seen_secs)
        cv2.copyTo(self._candidate, as_bytes(settled), self._usual)

    def _follow_candidate(self, contrast: Floats, step_secs: float) -> None:
        changed = self._unlike(cv2.absdiff(contrast, self._candidate))
        share = _share(step_secs, _CANDIDATE_SECS)
        cv2.accumulateWeighted(contrast, self._candidate, share, mask=as_bytes(~changed))
        cv2.copyTo(contrast, as_bytes(changed), self._candidate)
        self._age_secs += np.float32(step_secs)
        cv2.copyTo(self._zero, as_bytes(changed), self._age_secs)

    def _unlike(self, difference: cv2.typing.MatLike) -> Mask:
        return difference > min(max(_DIFFERENT, _PER_NOISE * self._noise), _MAX_DIFFERENT)

    def _usual_difference(self, difference: cv2.typing.MatLike) -> float:
        some = difference[::4, ::4]
        if self._hidden is not None:
            some = some[~self._hidden[::4, ::4]]
        return float(np.median(some)) if some.size else 0.0

    def _is_learning(self, at_ns: int) -> bool:
        return at_ns - self._since_ns < _LEARN_NS

    def _missing_edges(self, contrast: Floats, part: _Part) -> "_Missing":
        step = max(1, contrast.shape[1] // _EDGES_WIDTH)
        usual = self._usual[part][::step, ::step]
        edges = np.abs(usual) > _DIFFERENT
        missing = edges & (np.abs(contrast[part][::step, ::step] - usual) > _DIFFERENT)
        all_edges, lost_edges = (
            np.asarray(cv2.resize(white(one), (_CELLS, _CELLS), interpolation=cv2.INTER_AREA))
            for one in (edges, missing)
        )
        has_edges = all_edges >= _LEAST_CELL * _WHITE
        if not has_edges.any():
            return _Missing(0.0, 0.0)
        per_cell = lost_edges[has_edges] / all_edges[has_edges]
        overall = np.count_nonzero(missing) / np.count_nonzero(edges)
        return _Missing(overall, float(np.median(per_cell)))

    def _shift_of(self, contrast: Floats) -> Shift:
        height, width = contrast.shape
        factor = max(1, round(width / _SHIFT_WIDTH))
        size = (max(1, width // factor), max(1, height // factor))
        small_usual, small = (
            np.asarray(cv2.resize(one, size, interpolation=cv2.INTER_AREA), np.float32)
            for one in (self._usual, contrast)
        )
        return shift_between(small_usual, small).times(width / size[0])

    def _unshifted(self, picture: Floats, shift: Shift, *, onto: Floats) -> Floats:
        """What was out of view, or hidden, is that of `onto`; what is hidden stays hidden."""
        laid = unshifted(picture, shift, onto=onto)
        if self._hidden is not None:
            nothing = np.zeros_like(picture)
            hidden = unshifted(self._hidden.astype(np.float32), shift, onto=nothing) > 0
            np.copyto(laid, onto, where=hidden)
            laid[self._hidden] = 0
        return laid


def as_bytes(mask: Mask) -> Bytes:
    """The same memory as OpenCV takes it: 1 where true."""
    return mask.view(np.uint8)


def _in_view(shift: Shift, shape: tuple[int, ...]) -> _Part:
    """What of the background is in the picture after that shift, and not less than a pixel."""
    rows, columns = (
        slice(max(0, math.ceil(-by)), max(1, length - max(0, math.ceil(by))))
        for by, length in zip((shift.down, shift.right), shape, strict=True)
    )
    return rows, columns


def _whole_patches(foreground: Mask, settled: Mask) -> Mask:
    """`settled` where all that hangs together has settled: who moves a hand stays as a whole."""
    if not settled.any():
        return settled
    n_patches, patches = cv2.connectedComponents(as_bytes(foreground))
    n_pixels = np.bincount(patches.ravel(), minlength=n_patches)
    n_settled = np.bincount(patches[settled], minlength=n_patches)
    in_whole: Mask = (n_settled >= _WHOLE * n_pixels)[patches]
    return settled & in_whole


def white(mask: Mask) -> Bytes:
    """0 or 255, so that averages of it have a scale."""
    return as_bytes(mask) * np.uint8(_WHITE)


def _share(step_secs: float, time_constant_secs: float) -> float:
    """The weight of what is new after a step, for an exponential average."""
    return 1 - math.exp(-step_secs / time_constant_secs)
