r"""The condition of a camera, from 4 small pictures a second.

    black     hardly any light and no contrast: absolute, known at once. Night is black only where
              there is no light at all; then the camera is as blind as with a cap on
    frozen    the same picture for `_FROZEN_NS`, told back to its first. A camera's noise makes
              every picture another one; what has none (a slide, a screen, a still drawing, an
              encoder that repeats a still scene bit by bit for 10 s) cannot be told from a freeze
    covered   fine detail, contrast and the coarse layout of the picture are all gone
    blurred   fine detail is gone, the layout is not

The last two are measured against what is usual for this camera, learnt in `_LEARN` pictures and
followed within minutes (`_FOLLOW_SECS`), or within half an hour while it is blocked: a camera that
was turned to a plain wall is right again some day. When the light goes down, detail and contrast
go down together and the layout stays: that is none of the four. Noise counts as detail: where there
is little (bare asphalt), a hand may go unnoticed before a very noisy camera.
"""

import math
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np

from mmstream.detectors.foreground import Cadence
from mmstream.features.video import fit_luma
from mmstream.media import NS_PER_SEC, Bytes, Floats, Hop

_MAX_WIDTH, _MAX_HEIGHT = 160, 90
_MAX_FPS: Final = 4.0
_LAYOUT: Final = (16, 9)

_BLACK_LUMA: Final = 28.0
"""Black as coded is 16."""
_BLACK_CONTRAST: Final = 4.0
_FROZEN_NS: Final = 10 * NS_PER_SEC
_SAME: Final = 0.01
"""Pictures that differ by less on average are the same."""
_MAX_STEP_NS: Final = 2 * NS_PER_SEC
"""Pictures further apart say nothing of the time between them."""

_LEARN: Final = 20
_FOLLOW_SECS: Final = 120.0
_FOLLOW_BLOCKED_SECS: Final = 1800.0
_LEAST_DETAIL: Final = 0.4
"""Of the usual. Real scenes kept 0.86 and more; blur and hands left 0.25 at most."""
_SLOPE: Final = 0.07
_LEAST_SHARPNESS: Final = 0.5
"""Detail per contrast, of the usual: below it is blur, not darkness."""
_LEAST_CONTRAST: Final = 0.6
_LEAST_LIKENESS: Final = 0.5
"""Correlation of the layout with the usual one."""
_MIN_DETAIL: Final = 0.5
"""A camera that usually sees less (a plain wall, in luma levels) cannot lose it."""


@dataclass(frozen=True, slots=True)
class VideoState:
    """How the camera was at one instant."""

    at_ns: int
    score: float
    """0..1; 0.5 is where it counts as blocked."""
    fault: str | None = None
    """`black`, `frozen`, `covered`, `blurred`; None where nothing is wrong."""


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """What is measured in a picture."""

    brightness: float
    contrast: float
    """Standard deviation, luma levels."""
    detail: float
    """Mean difference from the 3 x 3 pixels around, luma levels."""
    layout: Floats
    """[9, 16]: mean luma of its parts."""

    @property
    def is_black(self) -> bool:
        return self.brightness <= _BLACK_LUMA and self.contrast <= _BLACK_CONTRAST

    @property
    def sharpness(self) -> float:
        return self.detail / (self.contrast + 1)


@dataclass(slots=True)
class VideoCondition:
    """One camera."""

    _cadence: Cadence = field(default_factory=lambda: Cadence(_MAX_FPS))
    _still: Bytes | None = None
    """The first of pictures that are all the same ..."""
    _still_since_ns: int = 0
    """... when it was seen ..."""
    _unsaid_ns: list[int] = field(default_factory=list)
    """... and when they all were, until that is told."""
    _usual: "_View | None" = None
    _n_learnt: int = 0
    _at_ns: int = 0

    def see(self, hop: Hop) -> list[VideoState]:
        """Its state at each picture that is due; those of a freeze when it is known."""
        states: list[VideoState] = []
        for frame in hop.frames:
            if not self._cadence.is_due(frame.start_ns):
                continue
            luma = fit_luma(frame.image.luma, max_width=_MAX_WIDTH, max_height=_MAX_HEIGHT)
            now = self._look(frame.start_ns, luma)
            frozen = self._frozen(frame.start_ns, luma)
            if frozen and now.fault != "black":
                states = [state for state in states if state.at_ns < frozen[0].at_ns]
                states += frozen
            else:
                states.append(now)
            self._at_ns = frame.start_ns
        return states

    def _frozen(self, at_ns: int, luma: Bytes) -> list[VideoState]:
        """All of the freeze when it has just become one, then picture by picture."""
        still = self._still
        is_near = at_ns - self._at_ns <= _MAX_STEP_NS
        if not is_near or still is None or not _is_same(still, luma):
            # The memory of the frame may be the decoder's: keep a copy.
            self._still, self._still_since_ns, self._unsaid_ns = luma.copy(), at_ns, [at_ns]
            return []
        self._unsaid_ns.append(at_ns)
        if at_ns - self._still_since_ns < _FROZEN_NS:
            return []
        told, self._unsaid_ns = self._unsaid_ns, []
        return [VideoState(one, 1.0, "frozen") for one in told]

    def _look(self, at_ns: int, luma: Bytes) -> VideoState:
        view, usual = _view(luma), self._usual
        if view.is_black:
            return VideoState(at_ns, 1.0, "black")
        if usual is None or self._n_learnt < _LEARN:
            self._follow(view, 1 / (self._n_learnt + 1))
            self._n_learnt += 1
            return VideoState(at_ns, 0.0)
        state = _compared(at_ns, view, usual)
        secs = min(at_ns - self._at_ns, _MAX_STEP_NS) / NS_PER_SEC
        slow_secs = _FOLLOW_BLOCKED_SECS if state.fault else _FOLLOW_SECS
        self._follow(view, 1 - math.exp(-secs / slow_secs))
        return state

    def _follow(self, view: _View, share: float) -> None:
        usual = self._usual or view
        self._usual = _View(
            usual.brightness + share * (view.brightness - usual.brightness),
            usual.contrast + share * (view.contrast - usual.contrast),
            usual.detail + share * (view.detail - usual.detail),
            usual.layout + np.float32(share) * (view.layout - usual.layout),
        )


def _compared(at_ns: int, view: _View, usual: _View) -> VideoState:
    """Blur and covers, against what is usual."""
    if usual.detail < _MIN_DETAIL:
        return VideoState(at_ns, 0.0)
    detail = view.detail / usual.detail
    score = 1 / (1 + math.exp(min(50.0, (detail - _LEAST_DETAIL) / _SLOPE)))
    if _likeness(view.layout, usual.layout) >= _LEAST_LIKENESS:
        is_blurred = view.sharpness < _LEAST_SHARPNESS * usual.sharpness
        fault = "blurred" if is_blurred else None
    else:
        fault = "covered" if view.contrast < _LEAST_CONTRAST * usual.contrast else None
    if fault is None or detail > _LEAST_DETAIL:
        return VideoState(at_ns, min(score, 0.4))
    return VideoState(at_ns, score, fault)


def _view(luma: Bytes) -> _View:
    mean, deviation = cv2.meanStdDev(luma)
    smooth = cv2.blur(luma, (3, 3))
    detail = cv2.norm(luma, smooth, cv2.NORM_L1) / luma.size
    layout = cv2.resize(luma, _LAYOUT, interpolation=cv2.INTER_AREA)
    return _View(
        float(mean[0, 0]), float(deviation[0, 0]), float(detail), np.asarray(layout, np.float32)
    )


def _is_same(one: Bytes, two: Bytes) -> bool:
    return one.shape == two.shape and cv2.norm(one, two, cv2.NORM_L1) <= _SAME * one.size


def _likeness(one: Floats, two: Floats) -> float:
    """Correlation, -1..1; 0 where one of them is flat."""
    around_one, around_two = one - one.mean(), two - two.mean()
    size = math.sqrt(float((around_one**2).sum() * (around_two**2).sum()))
    return float((around_one * around_two).sum()) / size if size > 0 else 0.0
