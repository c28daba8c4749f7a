"""Tracks: which detection is the same object as one before, at a slow and irregular cadence.

Two stages as in ByteTrack (Zhang et al. 2022, section 3.1 and algorithm 1): first the strong
detections are given to the tracks, then the weak ones to those tracks that are left and were seen
lately; only a strong one that is left begins a track. What differs, as looks are 0.5 s apart:

    look      0.0 s      0.5 s       1.0 s      1.5 s        all in capture time, not in frames
    person    [A]          [A]                    [A]
    track     begins     velocity   (coasts)    within reach of where it should be: still A

    where     constant velocity, by a Kalman filter whose steps last as long as they lasted; what
              is not seen coasts for `_COAST_SECS` and then stays where it is
    likeness  intersection over union with the predicted box, and how near the centres are: who
              walks may not overlap himself half a second ago
    reach     2.5 standard deviations of the prediction, in sizes of the object and at most
              `_MAX_REACH`: wide for who has just come, narrow for who has stood there for long

Of pairs that are possible, those of the largest likeness in sum are taken. Direction and speed are
the slope of the centres over the last `_SLOPE_NS`, and are told once they are above what boxes
jitter. Lengths are in picture widths, so that a degree is one on the screen.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy.optimize import linear_sum_assignment

from mmstream.media import NS_PER_SEC, Box, Detection, Path, secs_to_ns

_STRONG: Final = 0.5
"""A detector's own point of decision."""
_ASPECT: Final = 16 / 9

_JITTER: Final = 0.1
"""Standard deviation of a box's centre, in sizes of the object."""
_FIRST_SPEED: Final = 1.0
"""Standard deviation of the speed of who has just come, sizes per second: walking is about 1."""
_ACCELERATION: Final = 0.4
"""Density of white acceleration, sizes squared per second cubed: to walk off takes a second."""
_REACH: Final = 2.5
"""Standard deviations."""
_MAX_REACH: Final = 1.5
"""Sizes."""
_MAX_SCALE: Final = 2.0
"""Nor is it the same if the sizes differ by more."""
_COAST_SECS: Final = 1.0
_LEAST_LIKENESS: Final = 0.01
"""Of a pair that is possible at all."""
_PER_UNSEEN_SEC: Final = 0.1
"""What was not seen for a second is less likely than what was seen just now, by this part ..."""
_MAX_UNSEEN: Final = 0.5
"""... and by no more than this."""

_SLOPE_NS: Final = 2 * NS_PER_SEC
_SLOPE_JITTERS: Final = 3.0
"""A slope is motion above so many standard deviations of what jitter alone makes ..."""
_MIN_SPEED: Final = 0.15
"""... and so many sizes per second."""
_EDGE: Final = 0.01
_LEAST_SIZE: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Followed:
    """An object that is followed, at the instant of the last update."""

    label: str
    path: Path
    box: Box
    """Where it is; where it should be if it was not seen at that instant."""
    seen_ns: int
    """When it was last seen."""


class Tracker:
    """Follows the objects of one source. Its numbers count from 1 and are never used again."""

    def __init__(self, *, max_lost_secs: float) -> None:
        """Nothing is followed; what is not seen for longer than `max_lost_secs` is given up."""
        self._max_lost_ns = secs_to_ns(max_lost_secs)
        self._tracks: list[_Track] = []
        self._n_begun = 0
        self._lost: list[int] = []
        self._at_ns: int | None = None

    @property
    def alive(self) -> Sequence[Followed]:
        """All that is followed, seen at the last update or not, by number."""
        at_ns = self._at_ns
        return () if at_ns is None else [track.followed(at_ns) for track in self._tracks]

    def lost(self) -> Sequence[int]:
        """The numbers of those given up since this was last asked."""
        lost, self._lost = self._lost, []
        return lost

    def update(
        self, at_ns: int, found: Sequence[Detection], *, aspect: float = _ASPECT
    ) -> Sequence[Detection]:
        """`found`, in their order, each with `path` where it belongs to a followed object.

        `found` is all that one look at the picture gave, each with a box; `aspect` is the
        picture's width over its height. One that scores below 0.5 begins no track.

        Raises:
            ValueError: `at_ns` is not after that of the update before, or a detection has no box.
        """
        if self._at_ns is not None and at_ns <= self._at_ns:
            msg = f"looks come in order: got {at_ns=} after {self._at_ns}"
            raise ValueError(msg)
        self._at_ns = at_ns
        self._give_up(at_ns)
        seen = [_Seen(at_ns, one, _place_of(one, aspect)) for one in found]
        # Their order must not matter: not for ties, nor for who gets which number.
        ranked = sorted(range(len(found)), key=lambda i: seen[i].rank)
        strong = [i for i in ranked if found[i].score >= _STRONG]
        weak = [i for i in ranked if found[i].score < _STRONG]
        owners: dict[int, _Track] = {}
        lately = [track for track in self._tracks if track.seen_lately(at_ns)]
        for stage, tracks in ((strong, self._tracks), (weak, lately)):
            free = [track for track in tracks if track not in owners.values()]
            pairs = _matched(free, [seen[i] for i in stage])
            owners |= {stage[column]: free[row] for row, column in pairs}
        for i, track in owners.items():
            track.see(seen[i])
        for i in strong:
            if i not in owners:
                owners[i] = self._begin(seen[i])
        return [
            replace(one, path=owners[i].path) if i in owners else one for i, one in enumerate(found)
        ]

    def _begin(self, seen: "_Seen") -> "_Track":
        self._n_begun += 1
        track = _Track(self._n_begun, seen)
        self._tracks.append(track)
        return track

    def _give_up(self, at_ns: int) -> None:
        kept = [track for track in self._tracks if at_ns - track.last.at_ns <= self._max_lost_ns]
        self._lost += [track.number for track in self._tracks if track not in kept]
        self._tracks = kept


@dataclass(frozen=True, slots=True)
class _Place:
    """A box by its centre, in picture widths both ways."""

    x: float
    y: float
    width: float
    height: float
    aspect: float
    """The picture's."""

    @property
    def size(self) -> float:
        """The side of a square of its area; never 0."""
        return max(math.sqrt(self.width * self.height), _LEAST_SIZE)

    def may_grow_into(self, other: "_Place") -> bool:
        """Whether a larger one may be the same: what the picture's edge cuts grows as it comes in.

        What it does not cut must be of a size.
        """
        box = self.box()
        is_cut_across = min(box.x, 1 - box.x - box.width) < _EDGE
        is_cut_down = min(box.y, 1 - box.y - box.height) < _EDGE
        if not (is_cut_across or is_cut_down):
            return _of_a_size(self.size, other.size)
        return (is_cut_across or _of_a_size(self.width, other.width)) and (
            is_cut_down or _of_a_size(self.height, other.height)
        )

    def box(self) -> Box:
        """What of it lies inside the picture."""
        left, right = (_inside(self.x + side * self.width / 2) for side in (-1, 1))
        tall = self.height * self.aspect
        top, low = (_inside(self.y * self.aspect + side * tall / 2) for side in (-1, 1))
        return Box(left, top, right - left, low - top)

    def distance(self, other: "_Place") -> float:
        """From centre to centre."""
        return math.hypot(self.x - other.x, self.y - other.y)

    def overlap(self, other: "_Place") -> float:
        """Intersection over union, 0..1."""
        across = _shared(self.x, self.width, other.x, other.width)
        area = across * _shared(self.y, self.height, other.y, other.height)
        union = self.width * self.height + other.width * other.height - area
        return area / union if union > 0 else 0.0


@dataclass(frozen=True, slots=True)
class _Seen:
    """A detection, and where it is."""

    at_ns: int
    detection: Detection
    place: _Place

    @property
    def rank(self) -> tuple[float, float, float, float, float, str]:
        """Strongest first, then by place."""
        place, found = self.place, self.detection
        return -found.score, place.x, place.y, place.width, place.height, found.label


@dataclass(frozen=True, slots=True)
class _Spread:
    """The covariance of position and velocity: of either axis, as both are known equally well."""

    positions: float
    both: float
    velocities: float

    def after(self, secs: float, noise: float) -> "_Spread":
        """What it is when so much time has passed; `noise`: the density of acceleration."""
        positions = self.positions + secs * (2 * self.both + secs * self.velocities)
        return _Spread(
            positions + noise * secs**3 / 3,
            self.both + secs * self.velocities + noise * secs**2 / 2,
            self.velocities + noise * secs,
        )


class _Track:
    """One object: a Kalman filter of its centre, and the box that it had last."""

    def __init__(self, number: int, seen: _Seen) -> None:
        self.number = number
        self.path = Path(number)
        self._trail = deque([seen])
        self._start(seen.place)

    @property
    def last(self) -> _Seen:
        """As it was last seen."""
        return self._trail[-1]

    def followed(self, at_ns: int) -> Followed:
        """It, as others see it."""
        place = self.last.place if at_ns == self.last.at_ns else self._expected(at_ns)
        return Followed(self.last.detection.label, self.path, place.box(), self.last.at_ns)

    def likeness(self, seen: _Seen) -> float:
        """How much that may be this, above 0; 0: it cannot be."""
        last, place = self.last.place, seen.place
        if seen.detection.label != self.last.detection.label:
            return 0.0
        small, large = sorted((last, place), key=lambda one: one.size)
        size = large.size
        if not small.may_grow_into(large):
            return 0.0
        there = self._expected(seen.at_ns)
        distance = there.distance(place)
        if distance > min(_REACH * self._deviation(seen.at_ns), _MAX_REACH * size):
            return 0.0
        # Squared: two that step aside together are likelier than one that stays and one that leaps.
        nearness = 1 - (distance / (_MAX_REACH * size)) ** 2
        alike = small.size / size
        unseen = min(_PER_UNSEEN_SEC * self._unseen_secs(seen.at_ns), _MAX_UNSEEN)
        return (1 - unseen) * (_LEAST_LIKENESS + alike * nearness + there.overlap(place))

    def seen_lately(self, at_ns: int) -> bool:
        """Whether it still is where its motion brings it."""
        return self._unseen_secs(at_ns) <= _COAST_SECS

    def see(self, seen: _Seen) -> None:
        """That is this."""
        if self.seen_lately(seen.at_ns):
            self._correct(seen)
        else:
            self._trail.clear()
            self._start(seen.place)
        self._trail.append(seen)
        while seen.at_ns - self._trail[0].at_ns > _SLOPE_NS:
            self._trail.popleft()
        self.path = _path(self.number, self._trail)

    def _start(self, place: _Place) -> None:
        """Nothing is known of its motion."""
        self._x, self._y = place.x, place.y
        self._across = self._down = 0.0
        self._spread = _Spread((_JITTER * place.size) ** 2, 0, (_FIRST_SPEED * place.size) ** 2)

    def _expected(self, at_ns: int) -> _Place:
        """Where it should be; its centre stays in the picture."""
        secs = min(self._unseen_secs(at_ns), _COAST_SECS)
        aspect = self.last.place.aspect
        x = _inside(self._x + secs * self._across)
        y = _inside((self._y + secs * self._down) * aspect) / aspect
        return replace(self.last.place, x=x, y=y)

    def _after(self, at_ns: int) -> _Spread:
        noise = _ACCELERATION * self.last.place.size**2
        return self._spread.after(self._unseen_secs(at_ns), noise)

    def _deviation(self, at_ns: int) -> float:
        """How far from where it should be it is, and its box is told, widths."""
        jitter = _JITTER * self.last.place.size
        return math.hypot(jitter, math.sqrt(self._after(at_ns).positions))

    def _correct(self, seen: _Seen) -> None:
        there, spread = self._expected(seen.at_ns), self._after(seen.at_ns)
        total = spread.positions + (_JITTER * self.last.place.size) ** 2
        gain, lift = spread.positions / total, spread.both / total
        right, down = seen.place.x - there.x, seen.place.y - there.y
        self._x, self._y = there.x + gain * right, there.y + gain * down
        self._across += lift * right
        self._down += lift * down
        self._spread = _Spread(
            (1 - gain) * spread.positions,
            (1 - gain) * spread.both,
            spread.velocities - lift * spread.both,
        )

    def _unseen_secs(self, at_ns: int) -> float:
        return (at_ns - self.last.at_ns) / NS_PER_SEC


def _matched(tracks: Sequence[_Track], seen: Sequence[_Seen]) -> list[tuple[int, int]]:
    """Pairs of indices; each track and each detection at most once."""
    likeness = np.array([[track.likeness(one) for one in seen] for track in tracks])
    if not likeness.size:
        return []
    rows, columns = linear_sum_assignment(likeness, maximize=True)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(row, column) for row, column in pairs if likeness[row, column] > 0]


def _path(number: int, trail: Sequence[_Seen]) -> Path:
    """Direction and speed by the slope of the centres; neither where jitter may have made it."""
    secs = np.array([(seen.at_ns - trail[0].at_ns) / NS_PER_SEC for seen in trail])
    secs -= secs.mean()
    weight = float(secs @ secs)
    if weight == 0:
        return Path(number)
    across = float(secs @ np.array([seen.place.x for seen in trail])) / weight
    down = float(secs @ np.array([seen.place.y for seen in trail])) / weight
    speed = math.hypot(across, down)
    size = trail[-1].place.size
    if speed < size * max(_MIN_SPEED, _SLOPE_JITTERS * _JITTER / math.sqrt(weight)):
        return Path(number)
    return Path(number, math.degrees(math.atan2(-down, across)) % 360, speed)


def _place_of(detection: Detection, aspect: float) -> _Place:
    box = detection.box
    if box is None:
        msg = f"only what has a box can be followed: got {detection}"
        raise ValueError(msg)
    x, y = box.x + box.width / 2, box.y + box.height / 2
    return _Place(x, y / aspect, box.width, box.height / aspect, aspect)


def _shared(one: float, one_size: float, two: float, two_size: float) -> float:
    """How much two stretches share, each by its middle and size."""
    low = max(one - one_size / 2, two - two_size / 2)
    return max(0.0, min(one + one_size / 2, two + two_size / 2) - low)


def _of_a_size(one: float, two: float) -> bool:
    return max(one, two) <= _MAX_SCALE * min(one, two)


def _inside(value: float) -> float:
    return min(max(value, 0.0), 1.0)
