r"""Motion: something in the picture changes its place, whatever the light does.

Luma, at most 320x180 and ten times a second, is normalised by its local contrast, so that neither
clouds nor exposure nor a night mode change it much. Each pixel remembers two values:

    background   what was last there for `_STILL_NS`; follows the light where nothing is in front
    candidate    what is there now, and since when

    contrast  ____/~~~~~~\____        foreground: differs from the background
    candidate ====|======|====        takes over as background once it has been there long enough

So what stops is motion for `_STILL_NS` more, and so is the ghost of something that was there from
the start and leaves. The score is a / (a + min_area), where a is the largest patch of foreground
as a fraction of the picture: 0.5 at `min_area`.

A picture that is another one as a whole (a cut, a turned camera) is not motion: it scores 0 and
everything is learnt anew, which takes `_LEARN_NS`; nothing is scored meanwhile, nor at the start.
A camera that keeps moving is mostly silent for the same reason. A lamp that lights up a corner is
motion until it has become background: it is a local change.

Between samples pictures are only kept. When the score passes 0.5 they are scored as well, so
starts and ends are right to the frame.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mmstream.config import Settings
from mmstream.features.video import fit_luma, local_contrast
from mmstream.media import (
    NS_PER_SEC,
    Box,
    Bytes,
    Detection,
    Floats,
    Hop,
    Label,
    Scores,
    Series,
    VideoFrame,
)
from mmstream.stages import Load

_Mask = NDArray[np.bool_]

MOTION: Final = Label("motion", "video", "motion")

_DECISION: Final = 0.5
_MAX_WIDTH, _MAX_HEIGHT = 320, 180
_MAX_BOXES: Final = 3
_MAX_SKIPPED: Final = 16
"""Pictures kept between two samples: 16 is 160 per second."""

_WINDOW: Final = 31
_SOFTNESS: Final = 10.0
_DIFFERENT: Final = 0.5
"""Least difference of contrasts that counts."""
_PER_NOISE: Final = 5.0
"""Nor does a difference count that is below so many times the usual one."""
_MAX_DIFFERENT: Final = 1.0
_DENSE: Final = 127
"""A place is foreground when half of the pixels around it are."""

_LEARN_NS: Final = NS_PER_SEC
_STILL_NS: Final = 3 * NS_PER_SEC // 2
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


class MotionSettings(Settings):
    """How closely to look; the spec of `MotionScorer` (`ScorerSpec`)."""

    max_fps: float = Field(10.0, gt=0, le=60)
    """Pictures looked at per second."""
    min_area: float = Field(0.003, gt=0, lt=1)
    """What covers this fraction of the picture scores 0.5."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """`motion`."""
        return (MOTION,)

    def build(self, device: str) -> "MotionScorer":  # noqa: ARG002 - always on the CPU
        """Make it."""
        return MotionScorer(self)


class MotionScorer:
    """Scores `motion` at each picture it looks at, with the places (`Scorer`).

    `Load.STRETCHED` changes nothing: this costs about 1 % of a core. Under `Load.INGEST` only the
    background is kept up.
    """

    def __init__(self, settings: MotionSettings) -> None:
        """Nothing has been seen."""
        self._settings = settings
        self._watches: dict[str, _Watch] = {}

    def score(
        self,
        hops: Sequence[Hop],
        so_far: Sequence[Scores],  # noqa: ARG002 - rests on no other scorer
        load: Load,
    ) -> Sequence[Scores]:
        """[t] scores at frame instants, rising within a source; the first may lie before the hop.

        No output: no picture was due, or the background is being learnt.
        """
        return [self._score(hop, load) for hop in hops]

    def forget(self, source: str) -> None:
        """Learn the source's background anew."""
        self._watches.pop(source, None)

    def _score(self, hop: Hop, load: Load) -> Scores:
        watch = self._watches.setdefault(hop.source, _Watch(self._settings))
        looks = watch.see(hop, scoring=load is not Load.INGEST)
        if not looks:
            return Scores(hop.source, hop.index, hop.span)
        at_ns = np.array([look.at_ns for look in looks], np.int64)
        scores = np.array([look.score for look in looks], np.float32)
        found = [
            Detection(MOTION.name, look.at_ns, "video", MOTION.detector, look.score, box)
            for look in looks
            if look.score >= _DECISION
            for box in look.boxes
        ]
        outputs = {MOTION.name: Series(at_ns, scores)}
        return Scores(hop.source, hop.index, hop.span, outputs, tuple(found))


@dataclass(frozen=True, slots=True)
class _Look:
    """What was found in one picture."""

    at_ns: int
    score: float
    boxes: tuple[Box, ...] = ()
    """Around the largest patches, largest first; up to half a `_WINDOW` too large on each side."""


@dataclass(slots=True)
class _Watch:
    """One source: which pictures to look at, and what against."""

    settings: MotionSettings
    _background: "_Background | None" = None
    _first_ns: int | None = None
    _slot: int = -1
    _skipped: deque[VideoFrame] = field(default_factory=lambda: deque(maxlen=_MAX_SKIPPED))
    _moving: bool = False

    def see(self, hop: Hop, *, scoring: bool) -> list[_Look]:
        """Look at the pictures of a hop that are due."""
        if hop.gap_before:
            self._skipped.clear()
            self._moving = False
        period_ns = round(NS_PER_SEC / self.settings.max_fps)
        looks = []
        for frame in hop.frames:
            if self._first_ns is None:
                self._first_ns = frame.start_ns
            # A camera at `max_fps` jitters around the grid: a quarter early is still in time.
            slot = (frame.start_ns - self._first_ns + period_ns // 4) // period_ns
            if slot == self._slot:
                self._skipped.append(frame)
                continue
            self._slot = slot
            looks += self._sample(frame, scoring=scoring)
            self._skipped.clear()
        return looks

    def _sample(self, frame: VideoFrame, *, scoring: bool) -> list[_Look]:
        contrast = _contrast(frame)
        known = self._background
        if known is None or not known.continues(frame.start_ns, contrast.shape):
            self._background = _Background(frame.start_ns, contrast)
            return []
        if known.is_another(contrast):
            self._background = _Background(frame.start_ns, contrast)
            self._moving = False
            return [_Look(frame.start_ns, 0.0)] if scoring else []
        is_learnt = known.update(frame.start_ns, contrast)
        if not (is_learnt and scoring):
            self._moving = False
            return []
        look = self._look(known, frame.start_ns, contrast)
        was_moving, self._moving = self._moving, look.score >= _DECISION
        if was_moving == self._moving:
            return [look]
        between = [(one.start_ns, _contrast(one)) for one in self._skipped]
        looks = [self._look(known, *one) for one in between if one[1].shape == contrast.shape]
        return [*looks, look]

    def _look(self, background: "_Background", at_ns: int, contrast: Floats) -> _Look:
        patches = _patches(background.foreground(contrast))
        largest = patches[0][0] if patches else 0.0
        boxes = tuple(box for area, box in patches if area >= self.settings.min_area)
        return _Look(at_ns, largest / (largest + self.settings.min_area), boxes)


def _contrast(frame: VideoFrame) -> Floats:
    small = fit_luma(frame.image.luma, max_width=_MAX_WIDTH, max_height=_MAX_HEIGHT)
    return local_contrast(small, window=_WINDOW, softness=_SOFTNESS)


class _Background:
    """Per pixel: what is usually there, what is there now, and since when."""

    def __init__(self, at_ns: int, contrast: Floats) -> None:
        """Start to learn from `contrast`, [h, w]."""
        self._since_ns = self._at_ns = at_ns
        self._usual = contrast.copy()
        self._candidate = contrast.copy()
        self._age_secs = np.zeros_like(contrast)
        self._zero = np.zeros_like(contrast)
        self._noise = 0.0

    def continues(self, at_ns: int, shape: tuple[int, ...]) -> bool:
        """Whether a picture of that instant and shape can be judged against this."""
        return at_ns - self._at_ns <= _MAX_LOST_NS and shape == self._usual.shape

    def is_another(self, contrast: Floats) -> bool:
        """Whether nearly all that was there is gone at once, and not for learning it just now."""
        if self._is_learning(self._at_ns):
            return False
        foreground = cv2.absdiff(contrast, self._usual) > _DIFFERENT
        if np.count_nonzero(foreground) < _LOST_AREA * foreground.size:
            return False
        edges = np.abs(self._usual) > _DIFFERENT
        return bool(np.sum(foreground & edges) >= _LOST_EDGES * np.sum(edges))

    def foreground(self, contrast: Floats) -> _Mask:
        """[h, w]: where `contrast` is not what is usually there."""
        return self._unlike(cv2.absdiff(contrast, self._usual))

    def update(self, at_ns: int, contrast: Floats) -> bool:
        """Take what is there now into account; gives whether the background is known by now."""
        step_secs = min(at_ns - self._at_ns, _MAX_STEP_NS) / NS_PER_SEC
        self._at_ns = at_ns
        self._follow_candidate(contrast, step_secs)
        difference = cv2.absdiff(contrast, self._usual)
        foreground = self._unlike(difference)
        usual = _as_bytes(~foreground)
        is_learning = self._is_learning(at_ns)
        share = _share(step_secs, _LEARN_NOISE_SECS if is_learning else _NOISE_SECS)
        self._noise += share * (float(np.median(difference[::4, ::4])) - self._noise)
        if is_learning:
            np.copyto(self._usual, self._candidate)
            return False
        cv2.accumulateWeighted(contrast, self._usual, _share(step_secs, _FOLLOW_SECS), mask=usual)
        settled = foreground & (self._age_secs >= _STILL_NS / NS_PER_SEC)
        cv2.copyTo(self._candidate, _as_bytes(settled), self._usual)
        return True

    def _follow_candidate(self, contrast: Floats, step_secs: float) -> None:
        changed = self._unlike(cv2.absdiff(contrast, self._candidate))
        share = _share(step_secs, _CANDIDATE_SECS)
        cv2.accumulateWeighted(contrast, self._candidate, share, mask=_as_bytes(~changed))
        cv2.copyTo(contrast, _as_bytes(changed), self._candidate)
        self._age_secs += np.float32(step_secs)
        cv2.copyTo(self._zero, _as_bytes(changed), self._age_secs)

    def _unlike(self, difference: cv2.typing.MatLike) -> _Mask:
        return difference > min(max(_DIFFERENT, _PER_NOISE * self._noise), _MAX_DIFFERENT)

    def _is_learning(self, at_ns: int) -> bool:
        return at_ns - self._since_ns < _LEARN_NS


def _share(step_secs: float, time_constant_secs: float) -> float:
    """The weight of what is new after a step, for an exponential average."""
    return 1 - math.exp(-step_secs / time_constant_secs)


def _as_bytes(mask: _Mask) -> Bytes:
    """The same memory as OpenCV takes it: 1 where true."""
    return mask.view(np.uint8)


def _patches(foreground: _Mask) -> list[tuple[float, Box]]:
    """Connected dense places as (fraction of the picture, box), the largest few first.

    At half the size: it is four times faster, and a single pixel is nothing anyway.
    """
    height, width = max(1, foreground.shape[0] // 2), max(1, foreground.shape[1] // 2)
    white = _as_bytes(foreground) * np.uint8(255)
    half = cv2.resize(white, (width, height), interpolation=cv2.INTER_AREA)
    dense = cv2.boxFilter(half, -1, (5, 5)) > _DENSE
    if not dense.any():
        return []
    _, _, statistics, _ = cv2.connectedComponentsWithStats(_as_bytes(dense))
    found = sorted(statistics[1:].tolist(), key=lambda row: -row[cv2.CC_STAT_AREA])
    return [
        (area / dense.size, Box(left / width, top / height, across / width, down / height))
        for left, top, across, down, area in found[:_MAX_BOXES]
    ]
