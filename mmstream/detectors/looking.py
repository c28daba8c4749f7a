r"""Looking: where and when a costly detector of objects looks, and which of them it saw before.

    looks     |      |      |      |      |      |        `looks_per_sec`, on a grid
    checks    x      x      x      x      x      x        where the tracker follows something
    searches  x             x             x               what is in front: motion and presence
    glances   x                           x               all of the picture, by a cheaper finder

A picture is cut into `_COLUMNS` x `_ROWS` cells. In front is what `motion` and `presence` told of
within `_RECENT_NS`; with nothing in front a look costs nothing. What is found must lie on cells in
front (where there are glances, also where something is followed): what stands in a region's margin
is a part of the place, however much it looks like a person.

A search that sees much of the picture pays for the next: no more than `max_area_per_sec` of it are
searched in a second. A check is small, and tells chance from a thing: what is there is found again
half a second later. Scores are said again at the last picture of each hop, so that the head, which
counts in time, does not lose them between two looks.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mmstream.detectors.tracks import Tracker
from mmstream.media import (
    NS_PER_SEC,
    Box,
    Bytes,
    Detection,
    Hop,
    Label,
    ObjectSeries,
    Scores,
    Series,
    VideoFrame,
    secs_to_ns,
)
from mmstream.stages import Load

_Cells = NDArray[np.uint8]
"""[_ROWS, _COLUMNS]: 1 where something is."""

_FOREGROUND: Final = ("motion", "presence")
_RECENT_NS: Final = NS_PER_SEC
_COLUMNS, _ROWS = 32, 18
_IN_FRONT: Final = 0.5
"""So much of what is found lies on cells in front."""
_SAME: Final = 0.4
"""Two that share more (intersection over union) are one, found twice."""
_INSIDE: Final = 0.7
"""Nor are they two when so much of the smaller one lies in the larger."""
_STRETCH: Final = 2
_CHECK_MARGIN: Final = (1, 1)
_CLOSER: Final = 1.2
"""By so much what is followed may grow or shrink from look to look."""
WHOLE: Final = Box(0, 0, 1, 1)


@dataclass(frozen=True, slots=True)
class Heights:
    """From the least to the largest, as fractions of the picture's height."""

    least: float
    most: float


ANY: Final = Heights(0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Found:
    """An object in one picture."""

    box: Box
    score: float
    """0..1"""


class Finder(Protocol):
    """Finds the objects of one kind in a part of a picture."""

    def find(self, luma: Bytes, regions: Sequence[Box], heights: Heights = ANY) -> Sequence[Found]:
        """Those in some regions of `luma`, [h, w]; the same one may be there twice.

        `heights` may save it some work: nobody asks for much smaller or larger ones.
        """
        ...


@dataclass(frozen=True, slots=True)
class Glances:
    """Looks at all of the picture, with a finder that is cheap enough for it."""

    finder: Finder
    every_secs: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """Where and how often to look."""

    looks_per_sec: float
    max_area_per_sec: float
    """Whole pictures searched per second, on average."""
    only_foreground: bool
    margin: tuple[int, int]
    """Columns and rows around what is in front that are looked at as well."""
    max_lost_secs: float
    """What is not found for longer is another object when it comes back."""
    glances: Glances | None = None


class LookingScorer:
    """Scores each object that `finder` finds and that can be followed (`Scorer`).

    `Load.STRETCHED` halves the cadence; under `Load.INGEST` it only keeps in mind what is in front.
    """

    def __init__(self, label: Label, finder: Finder, cadence: Cadence) -> None:
        """Nothing has been seen."""
        self._label = label
        self._finder = finder
        self._cadence = cadence
        self._watches: dict[str, _Watch] = {}

    def score(self, hops: Sequence[Hop], so_far: Sequence[Scores], load: Load) -> Sequence[Scores]:
        """`Scores.objects` at looks (0: followed and not found) and last pictures of hops."""
        return [self._score(hop, said, load) for hop, said in zip(hops, so_far, strict=True)]

    def forget(self, source: str) -> None:
        """Follow nothing there any more."""
        self._watches.pop(source, None)

    def _score(self, hop: Hop, said: Scores, load: Load) -> Scores:
        watch = self._watches.get(hop.source)
        if watch is None:
            watch = _Watch(self._label, self._finder, self._cadence)
            self._watches[hop.source] = watch
        watch.remember(hop, said.detections)
        if load is Load.INGEST:
            return Scores(hop.source, hop.index, hop.span)
        found = watch.look(hop.frames, stretch=_STRETCH if load is Load.STRETCHED else 1)
        objects = watch.take_series()
        return Scores(
            hop.source, hop.index, hop.span, detections=tuple(found), objects=tuple(objects)
        )


@dataclass(slots=True)
class _Watch:
    """One source: when to look, where, and what was seen there before."""

    label: Label
    finder: Finder
    cadence: Cadence
    _tracker: Tracker = field(init=False)
    _front: deque[Detection] = field(default_factory=deque)
    _look_ns: int | None = None
    """When the next look is due; None: at once."""
    _search_ns: int | None = None
    _glance_ns: int | None = None
    _standing: dict[int, float] = field(default_factory=dict)
    """By track: the score at the last look."""
    _points: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    """By track: what is not yet told."""

    def __post_init__(self) -> None:
        self._tracker = Tracker(max_lost_secs=self.cadence.max_lost_secs)

    def remember(self, hop: Hop, said: Iterable[Detection]) -> None:
        """Keep in mind what is in front."""
        if hop.gap_before:
            self._standing.clear()
        self._front.extend(one for one in said if one.label in _FOREGROUND and one.box)
        while self._front and self._front[0].at_ns < hop.span.start_ns - _RECENT_NS:
            self._front.popleft()

    def look(self, frames: Sequence[VideoFrame], *, stretch: int) -> list[Detection]:
        """Look at those that are due; what stands is said again at the last of them."""
        found: list[Detection] = []
        for frame in frames:
            if _is_due(self._look_ns, frame.start_ns):
                self._wait(frame.start_ns, stretch)
                found += self._look(frame, stretch)
        if frames:
            for track, score in self._standing.items():
                points = self._points.setdefault(track, [])
                if not points or points[-1][0] < frames[-1].start_ns:
                    points.append((frames[-1].start_ns, score))
        return found

    def take_series(self) -> list[ObjectSeries]:
        """What `look` has found out, by object."""
        taken, self._points = self._points, {}
        return [
            ObjectSeries(
                self.label.name,
                track,
                Series(
                    np.array([at_ns for at_ns, _ in points], np.int64),
                    np.array([score for _, score in points], np.float32),
                ),
            )
            for track, points in sorted(taken.items())
        ]

    def _look(self, frame: VideoFrame, stretch: int) -> list[Detection]:
        at_ns, luma = frame.start_ns, frame.image.luma
        found = [*self._near(at_ns, luma, stretch), *self._glance(at_ns, luma)]
        told = [
            Detection(self.label.name, at_ns, "video", self.label.detector, one.score, one.box)
            for one in _distinct(found)
        ]
        aspect = frame.image.width / frame.image.height
        followed = [one for one in self._tracker.update(at_ns, told, aspect=aspect) if one.path]
        scores = {one.path.track: one.score for one in followed if one.path}
        self._standing = {
            one.path.track: scores.get(one.path.track, 0.0) for one in self._tracker.alive
        }
        for track, score in self._standing.items():
            self._points.setdefault(track, []).append((at_ns, score))
        return followed

    def _near(self, at_ns: int, luma: Bytes, stretch: int) -> list[Found]:
        """What a check finds, and a search if one is due."""
        front = _cells(one.box for one in self._front if at_ns - _RECENT_NS <= one.at_ns <= at_ns)
        alive = [one.box for one in self._tracker.alive]
        known = _cells(alive)
        whole = not self.cadence.only_foreground
        regions = _regions(known, _CHECK_MARGIN)
        heights = _heights(alive)
        if _is_due(self._search_ns, at_ns):
            regions = [WHOLE] if whole else _regions(front | known, self.cadence.margin)
            heights = ANY
            area = sum(one.width * one.height for one in regions)
            # Half a look early is in time: searches happen at looks only.
            secs = stretch * area / self.cadence.max_area_per_sec - 0.5 / self.cadence.looks_per_sec
            self._search_ns = at_ns + secs_to_ns(secs)
        found = self.finder.find(luma, regions, heights) if regions else ()
        # What a glance has found is in front of nothing.
        believed = front | known if self.cadence.glances else front
        return [one for one in found if whole or _share(believed, one.box) >= _IN_FRONT]

    def _wait(self, at_ns: int, stretch: int) -> None:
        wait_ns = secs_to_ns(stretch / self.cadence.looks_per_sec)
        due_ns = at_ns if self._look_ns is None else self._look_ns
        # On the grid, but after lost time not twice in a row.
        self._look_ns = max(due_ns + wait_ns, at_ns + wait_ns // 2)

    def _glance(self, at_ns: int, luma: Bytes) -> Sequence[Found]:
        glances = self.cadence.glances
        if glances is None or not _is_due(self._glance_ns, at_ns):
            return ()
        self._glance_ns = at_ns + secs_to_ns(glances.every_secs)
        return glances.finder.find(luma, [WHOLE])


def _heights(boxes: Sequence[Box]) -> Heights:
    """Those of objects that may be a little nearer or farther by now."""
    heights = [box.height for box in boxes]
    return Heights(min(heights) / _CLOSER, max(heights) * _CLOSER) if heights else ANY


def _is_due(due_ns: int | None, at_ns: int) -> bool:
    return due_ns is None or at_ns >= due_ns


def _cells(boxes: Iterable[Box | None]) -> _Cells:
    """Those that any of the boxes touches."""
    cells = np.zeros((_ROWS, _COLUMNS), np.uint8)
    for box in boxes:
        if box is not None:
            cells[_slices(box)] = 1
    return cells


def _slices(box: Box) -> tuple[slice, slice]:
    """The cells that a box touches: rows, columns."""
    return (
        slice(int(box.y * _ROWS), int(np.ceil((box.y + box.height) * _ROWS))),
        slice(int(box.x * _COLUMNS), int(np.ceil((box.x + box.width) * _COLUMNS))),
    )


def _share(cells: _Cells, box: Box) -> float:
    """How much of the box lies on cells that are set, 0..1."""
    inside = cells[_slices(box)]
    return float(inside.mean()) if inside.size else 0.0


def _regions(cells: _Cells, margin: tuple[int, int]) -> list[Box]:
    """Boxes around connected cells, each with its margin; they may overlap."""
    if not cells.any():
        return []
    columns, rows = margin
    near = cv2.dilate(cells, np.ones((2 * rows + 1, 2 * columns + 1), np.uint8))
    _, _, statistics, _ = cv2.connectedComponentsWithStats(near)
    return [
        Box(left / _COLUMNS, top / _ROWS, across / _COLUMNS, down / _ROWS)
        for left, top, across, down, _ in statistics[1:].tolist()
    ]


def _distinct(found: Sequence[Found]) -> list[Found]:
    """The strongest of those that are the same (non-maximum suppression)."""
    kept: list[Found] = []
    for one in sorted(found, key=lambda one: (-one.score, one.box.x, one.box.y)):
        if not any(_is_same(one.box, other.box) for other in kept):
            kept.append(one)
    return kept


def _is_same(one: Box, two: Box) -> bool:
    across = min(one.x + one.width, two.x + two.width) - max(one.x, two.x)
    down = min(one.y + one.height, two.y + two.height) - max(one.y, two.y)
    shared = max(0.0, across) * max(0.0, down)
    areas = one.width * one.height, two.width * two.height
    return shared > _SAME * (sum(areas) - shared) or shared > _INSIDE * min(areas)
