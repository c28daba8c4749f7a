"""When, by our clock, something was captured that a device stamped by its own.

What comes over a network comes late, by more or less, but never early: of (seen - stamp) the lower
envelope is what counts, and its slope is how much faster our clock runs (the line below all points
that is nearest to them: Moon, Skelly, Towsley, "Estimation and Removal of Clock Skew from Network
Delay Measurements", INFOCOM 1999). Instants that err either way (a sound card's) get medians and
Theil and Sen's slope instead.

The line is found anew once a second, and is never jumped to: from the last instant that was asked
for, the map bends towards it. A stamp that cannot lie on the line is doubted, and mapped by its
arrival; when the next ones agree with it, the device's clock has stepped.
"""

from bisect import bisect_right
from collections import deque
from itertools import pairwise
from statistics import median
from typing import Final, Literal

import numpy as np

from mmstream.errors import StateError
from mmstream.media import NS_PER_SEC
from mmstream.metrics import StageMetrics

Noise = Literal["late", "both"]
"""How instants at which something is seen err: never early, or either way."""

LIMIT_NS: Final = 100_000_000
"""What is off by more is no jitter: early, it is doubted; late for long, the clock has stepped."""
MAX_DRIFT: Final = 1e-3
"""1000 ppm; quartz has 100, bad drivers and virtual sound cards 500."""
KNOWN_NS: Final = 10 * NS_PER_SEC
"""Before so much was seen, a slope means nothing."""
_BETTER_NS: Final = 3 * KNOWN_NS
"""Before so much was seen since a step, the slope from before it is the better one."""

_BUCKET_NS: Final = NS_PER_SEC
_N_BUCKETS: Final = 60
_N_KEPT: Final = 128
"""Offsets per bucket that a median is taken of."""
_YOUNG_NS: Final = 2 * NS_PER_SEC
"""So long the line follows every item: it may have begun in a burst, or with a late one."""
_YOUNG_LIMIT_NS: Final = 500_000_000
"""How much sooner than all before an item may come meanwhile."""
_YOUNG_NEAR_NS: Final = 20_000_000
_YOUNG_RATE: Final = 0.98
"""Meanwhile, what is off by more than that is made up for at once: time all but stands still."""
_START_RATE: Final = 0.02
"""Until a slope is known; no more than `SteadySound` can follow."""
_RATE: Final = 0.005
_GENTLE_SECS: Final = 2.0
"""Small errors are made up for within this."""

_N_AGREE: Final = 3
"""Doubted items in a row that are believed."""
_AGREE_NS: Final = 300_000_000
"""Where stamps are counted samples, it is rather the instant that lies: it must do so for long."""
_RECENT_NS: Final = NS_PER_SEC
"""Stamps of two streams, and of pictures that depend on later ones, change places within this."""
_BURST_NS: Final = 30 * NS_PER_SEC
"""No server keeps more than that for those who come."""
_SHARE: Final = 0.02
"""Of each item in how late, and how far apart, they are on the whole."""
_N_LATE: Final = 10
"""Seconds in a row in which all was late, and by the same, that make a step."""
_N_VERY_LATE: Final = 3
_VERY_LATE_NS: Final = NS_PER_SEC
"""Networks do not queue for longer: the device paused."""

_ASKED_BACK_NS: Final = 5 * NS_PER_SEC
_ASKED_AHEAD_NS: Final = NS_PER_SEC // 2
"""Stamps so far from the last that was seen may be asked for: decoders lag, chunks have ends."""
_N_KNOTS: Final = 64


class _Curve:
    """Instants of ours over stamps, in straight pieces; what was asked for once stays as it is."""

    def __init__(self, stamp_ns: int, at_ns: int, slope: float) -> None:
        self._stamps_ns = [stamp_ns]
        self._ats_ns = [at_ns]
        self._slopes = [slope]
        """Of each piece, less 1."""
        self._asked_ns = stamp_ns

    def at_ns(self, stamp_ns: int) -> int:
        """On the curve; ahead of all that was asked for it may still bend."""
        i = bisect_right(self._stamps_ns, stamp_ns) - 1
        if i < 0:
            return self._ats_ns[0] + stamp_ns - self._stamps_ns[0]
        away_ns = stamp_ns - self._stamps_ns[i]
        return self._ats_ns[i] + away_ns + round(away_ns * self._slopes[i])

    def ask_ns(self, stamp_ns: int, until_ns: int) -> int:
        """On the curve, which stays as it is up to there (or up to `until_ns`)."""
        self._asked_ns = max(self._asked_ns, min(stamp_ns, until_ns))
        return self.at_ns(stamp_ns)

    def bend(self, error_ns: int, slope: float, rate: float) -> None:
        """Go on, from what was asked for last, towards what is `error_ns` from there.

        `error_ns` is that of the line to follow, of `slope`, at `bent_from_ns`.
        """
        asked_ns = self._asked_ns
        at_ns = self.at_ns(asked_ns)
        keep = bisect_right(self._stamps_ns, asked_ns - 1)
        for knots in (self._stamps_ns, self._ats_ns, self._slopes):
            del knots[keep:]
            del knots[: max(keep - _N_KNOTS, 0)]
        if error_ns:
            turn = rate if error_ns > 0 else -rate
            self._add(asked_ns, at_ns, slope + turn)
            asked_ns += max(round(error_ns / turn), 1)
            at_ns = self.at_ns(asked_ns)
        self._add(asked_ns, at_ns, slope)

    @property
    def bent_from_ns(self) -> int:
        """The last stamp that was asked for."""
        return self._asked_ns

    def _add(self, stamp_ns: int, at_ns: int, slope: float) -> None:
        self._stamps_ns.append(stamp_ns)
        self._ats_ns.append(at_ns)
        self._slopes.append(slope)


class _Epoch:
    """A stretch of a device's time without a step."""

    def __init__(
        self, stamp_ns: int, seen_ns: int, noise: Noise, before: "_Epoch | None" = None
    ) -> None:
        """Its first item; drift, lateness and spacing are as they were `before`."""
        self.first_ns = self.head_ns = stamp_ns
        self.n_seen = 0
        self.slope: float | None = before.slope if before else None
        self.lateness: float = before.lateness if before else 0.0
        """How late items are on the whole, ns."""
        self.spacing: float = before.spacing if before else 0.0
        """By how much an item moves the head on the whole, ns."""
        self._late_ns = before.presumed_late_ns(seen_ns) if before else 0
        """How late the first item is taken to be."""
        self._is_first = before is None
        self._noise = noise
        self._began_ns = seen_ns
        self._base_ns = seen_ns - stamp_ns
        """Offsets are less this, and stamps less the first, so that floats hold them."""
        self._offset = 0.0
        """The line's at the first stamp."""
        self._points: deque[tuple[int, float]] = deque(maxlen=_N_BUCKETS)
        """Stamp and offset, one per bucket."""
        self._bucket = 0
        self._bucket_points: list[tuple[int, int]] = []
        self._recent: deque[tuple[int, int]] = deque(maxlen=256)
        """Instants and stamps."""
        self._n_late, self._too_late_ns = 0, 0
        self.curve = _Curve(stamp_ns, seen_ns - self._late_ns, self.slope or 0.0)
        self.see(stamp_ns, seen_ns)

    def fits(self, stamp_ns: int, seen_ns: int) -> bool:
        """Whether an item can be of this stretch."""
        late_ns = seen_ns - self._line_ns(stamp_ns)
        if self._noise == "both":
            return abs(late_ns) <= LIMIT_NS
        is_young = self._is_young(seen_ns)
        if late_ns <= LIMIT_NS:
            return late_ns >= -(_YOUNG_LIMIT_NS if is_young else LIMIT_NS)
        # Nothing comes late without what was sent before it coming late, too.
        if is_young and self._is_first:
            return stamp_ns >= self.head_ns - _BURST_NS
        recent_ns = [before_ns for at_ns, before_ns in self._recent if seen_ns - at_ns < _RECENT_NS]
        return stamp_ns >= min(recent_ns, default=self.head_ns) - LIMIT_NS

    def see(self, stamp_ns: int, seen_ns: int) -> None:
        """Take an item that fits."""
        self.n_seen += 1
        if 0 < stamp_ns - self.head_ns < _RECENT_NS:
            self.spacing += _SHARE * (stamp_ns - self.head_ns - self.spacing)
        self.head_ns = max(self.head_ns, stamp_ns)
        self._recent.append((seen_ns, stamp_ns))
        late_ns = max(seen_ns - self._line_ns(stamp_ns), 0)
        if self._noise == "late" and self.n_seen > 1 and late_ns < LIMIT_NS:
            self.lateness += _SHARE * (late_ns - self.lateness)
        point = (stamp_ns - self.first_ns, seen_ns - stamp_ns - self._base_ns)
        bucket = (seen_ns - self._began_ns) // _BUCKET_NS
        if bucket > self._bucket:
            self._close(bucket)
        if self._noise == "both":
            if len(self._bucket_points) < _N_KEPT:
                self._bucket_points.append(point)
        elif not self._bucket_points or point[1] < self._bucket_points[0][1]:
            self._bucket_points = [point]
        if self._is_young(seen_ns):
            self._fit([*self._points, self._typical()])
            self._bend(_START_RATE, _YOUNG_NEAR_NS)

    @property
    def has_stepped(self) -> bool:
        """Whether all has been late, by the same, for longer than a network makes it."""
        return self._n_late >= (_N_VERY_LATE if self._too_late_ns > _VERY_LATE_NS else _N_LATE)

    def agreed(self, seen_ns: int) -> bool:
        """Whether a doubted stretch is borne out."""
        lasted = self._noise == "late" or seen_ns - self._began_ns >= _AGREE_NS
        return lasted and self.n_seen >= _N_AGREE

    def presumed_late_ns(self, seen_ns: int) -> int:
        """How late an item is that says nothing of it: a little after the last, if that can be."""
        if self._noise == "both":
            return 0
        next_ns = self._line_ns(self.head_ns + round(self.spacing))
        late_ns = round(self.lateness)
        return seen_ns - next_ns if late_ns < seen_ns - next_ns < LIMIT_NS else late_ns

    def distance_ns(self, stamp_ns: int) -> int:
        """How far the stamp is from what was seen of this stretch lately, or will be soon."""
        first_ns = max(self.first_ns, self.head_ns - _ASKED_BACK_NS)
        return max(first_ns - stamp_ns, stamp_ns - self.head_ns - _ASKED_AHEAD_NS, 0)

    def _is_young(self, seen_ns: int) -> bool:
        return seen_ns - self._began_ns < _YOUNG_NS

    def _line_ns(self, stamp_ns: int) -> int:
        slope_ns = (stamp_ns - self.first_ns) * (self.slope or 0.0)
        return stamp_ns + self._base_ns + round(self._offset + slope_ns)

    def _typical(self) -> tuple[int, float]:
        """The stamp and offset that stand for the bucket."""
        points = self._bucket_points
        return points[len(points) // 2][0], median(offset for _, offset in points)

    def _close(self, bucket: int) -> None:
        self._bucket = bucket
        point = self._typical()
        self._bucket_points.clear()
        self._points.append(point)
        late_ns = int(point[1] - self._offset - point[0] * (self.slope or 0.0))
        if late_ns <= LIMIT_NS:
            self._n_late = 0
        elif self._n_late and abs(late_ns - self._too_late_ns) <= LIMIT_NS:
            self._n_late += 1
        else:
            self._n_late, self._too_late_ns = 1, late_ns
        points = list(self._points)
        needed_ns = KNOWN_NS if self._is_first or self.slope is None else _BETTER_NS
        if points[-1][0] - points[0][0] >= needed_ns:
            slope = _slope_below(points) if self._noise == "late" else _slope_amid(points)
            self.slope = min(max(slope, -MAX_DRIFT), MAX_DRIFT)
        self._fit(points)
        self._bend(_RATE if self.slope is not None else _START_RATE)

    def _fit(self, points: list[tuple[int, float]]) -> None:
        slope = self.slope or 0.0
        offsets = [offset - slope * away for away, offset in points]
        if self._noise == "late":
            # The least late of n is late by an n-th of what one is (exactly so if exponential).
            self._offset = min(offsets) - self._late_ns / self.n_seen
        else:
            self._offset = median(offsets)

    def _bend(self, most: float, near_ns: int | None = None) -> None:
        curve = self.curve
        from_ns = curve.bent_from_ns
        error_ns = self._line_ns(from_ns) - curve.at_ns(from_ns)
        rate = min(most, abs(error_ns) / NS_PER_SEC / _GENTLE_SECS)
        if near_ns is not None and abs(error_ns) > near_ns:
            rate = _YOUNG_RATE
        curve.bend(error_ns, self.slope or 0.0, rate)


class ClockMap:
    """From the stamps of one device's clock to our monotonic clock, with its drift.

    `at_ns` is continuous and rises with the stamp; what it said once it says again. It follows
    errors by at most 5 ms per second (20 ms until the drift is known; in its first 2 s at once).
    Only where the device's clock was stepped or started anew does it jump: stamps that are off by
    more than 0.1 s and agree with each other 3 times are believed (counted as `clock_step`), others
    are not (`clock_outlier`).

    Until it is known which, a doubted stamp is mapped by when it was seen, less what things are
    late on the whole: so not far off.
    """

    def __init__(self, metrics: StageMetrics, *, noise: Noise = "late") -> None:
        """Nothing seen yet.

        Args:
            metrics: of the source, for steps and outliers.
            noise: "late" where things arrive over a network: never early, often late; "both" where
                the instants err either way and stamps are counted (a sound card).
        """
        self._metrics = metrics
        self._noise: Noise = noise
        self._epoch: _Epoch | None = None
        self._before: _Epoch | None = None
        self._doubted: _Epoch | None = None

    def see(self, stamp_ns: int, seen_ns: int) -> None:
        """Something that the device stamped `stamp_ns` was seen at our `seen_ns`."""
        epoch, doubted = self._epoch, self._doubted
        if epoch is None:
            self._epoch = _Epoch(stamp_ns, seen_ns, self._noise)
            return
        if epoch.fits(stamp_ns, seen_ns):
            self._dismiss()
            epoch.see(stamp_ns, seen_ns)
            if epoch.has_stepped:
                self._step(_Epoch(stamp_ns, seen_ns, self._noise, epoch))
            return
        if doubted is None or not doubted.fits(stamp_ns, seen_ns):
            self._dismiss()
            self._doubted = _Epoch(stamp_ns, seen_ns, self._noise, epoch)
            return
        doubted.see(stamp_ns, seen_ns)
        if doubted.agreed(seen_ns):
            self._step(doubted)

    def at_ns(self, stamp_ns: int) -> int:
        """When, by our clock, the device's showed `stamp_ns`.

        Raises:
            StateError: nothing was seen yet.
        """
        epoch = self._epoch
        if epoch is None:
            msg = "see something before asking when it was"
            raise StateError(msg)
        doubted, before = self._doubted, self._before
        if doubted is not None and self._must_map(doubted, epoch, stamp_ns):
            epoch = doubted
        elif before is not None and before.distance_ns(stamp_ns) < epoch.distance_ns(stamp_ns):
            epoch = before
        return epoch.curve.ask_ns(stamp_ns, epoch.head_ns + _ASKED_AHEAD_NS)

    @property
    def drift_ppm(self) -> float | None:
        """Parts per million by which the device's clock is fast; None until known (some 10 s)."""
        if self._epoch is None or self._epoch.slope is None:
            return None
        return (1 / (1 + self._epoch.slope) - 1) * 1e6

    def _must_map(self, doubted: _Epoch, epoch: _Epoch, stamp_ns: int) -> bool:
        """Whether the stamp is of a stretch in doubt."""
        # Counted samples do not lie, unless they are counted anew: the instants do.
        is_anew = self._noise == "late" or epoch.distance_ns(doubted.first_ns) > NS_PER_SEC
        return is_anew and doubted.distance_ns(stamp_ns) <= epoch.distance_ns(stamp_ns)

    def _step(self, epoch: _Epoch) -> None:
        self._metrics.drop("clock_step")
        self._before, self._epoch, self._doubted = self._epoch, epoch, None

    def _dismiss(self) -> None:
        if self._doubted is not None:
            self._metrics.drop("clock_outlier", self._doubted.n_seen)
            self._doubted = None


def _slope_below(points: list[tuple[int, float]]) -> float:
    """Of the line below all points that is nearest to them: the hull's edge at their centre."""
    hull: list[tuple[int, float]] = []
    for point in sorted(points):
        while len(hull) > 1 and _is_above(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    centre = sum(away for away, _ in points) / len(points)
    for left, right in pairwise(hull):
        if left[0] < right[0] and centre <= right[0]:
            return (right[1] - left[1]) / (right[0] - left[0])
    return 0.0


def _is_above(left: tuple[int, float], middle: tuple[int, float], right: tuple[int, float]) -> bool:
    """Whether the middle one lies on or above the line between the others."""
    rise, run = right[1] - left[1], right[0] - left[0]
    return (middle[1] - left[1]) * run >= rise * (middle[0] - left[0])


def _slope_amid(points: list[tuple[int, float]]) -> float:
    """The median of the slopes between any two of them (Theil and Sen)."""
    stamps, offsets = (np.array(values, np.float64) for values in zip(*points, strict=True))
    left, right = np.triu_indices(stamps.size, 1)
    runs = stamps[right] - stamps[left]
    is_far = runs > 0
    rises = offsets[right] - offsets[left]
    return float(np.median(rises[is_far] / runs[is_far]))
