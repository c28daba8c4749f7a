r"""Impact: something hits something, seen and heard: a ball, a door, a hammer.

    sound    ______|\____________________      an onset (`mmstream.detectors.onsets`)
    path     \  .                              a kink in the path of what moves: it stops or turns
              \/   \                           back (`mmstream.detectors.kinks`)
    both     ______|xx___________________      not further apart than `_LEAST_TOLERANCE_NS` or
                                               1.5 times between pictures; held for `_HOLD_NS`

Loud noise while something moves is no impact, nor is a cut with a bang. Pictures are looked at
only around onsets: where it is quiet they are merely kept, for 0.8 s. The decision waits for
those that the last possible kink needs, 0.2 s at 30 and 0.45 s at 10 pictures per second; then
the score goes back in time to the onset (the events head takes what is newer).

The score is that of the weaker sense: 0.5 where it is only just enough. Without either sense
nothing is left of it, so each one's contribution is all of it. Chance lets some onset meet some
kink now and then: when most sounds of the last `_MEMORY_NS` had no impact to them while
something moved (people talk with their hands; the sound belongs to another picture), the score is
lower and says so.

Not found: what happens while the camera moves or with less than 8 pictures per second; hits that
follow each other within six pictures; what does not go from place to place as it moves (a hinged
door seen from the front); things that cross just then.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from mmstream.config import Settings
from mmstream.detectors.kinks import MOST_AREA, N_LINE, Kink, moves
from mmstream.detectors.onsets import LEAST_DB, Onset, OnsetFinder
from mmstream.features.video import fit_luma
from mmstream.media import (
    NS_PER_SEC,
    Bytes,
    Detection,
    Fused,
    Hop,
    Image,
    Label,
    Scores,
    Series,
    VideoFrame,
)
from mmstream.stages import Load

IMPACT: Final = Label("impact", "av", "impact")

_LEAST_TOLERANCE_NS: Final = NS_PER_SEC // 10
_HOLD_NS: Final = NS_PER_SEC // 10
_BEFORE_NS: Final = 7 * NS_PER_SEC // 10
_LEAST_PERIOD_NS: Final = NS_PER_SEC // 40
"""Pictures that follow sooner are skipped: what moves between them is lost in the noise."""
_MOST_PERIOD_NS: Final = NS_PER_SEC // 8
_HEARD_LATE_NS: Final = NS_PER_SEC // 10
"""An onset is known before so much more was heard."""
_MAX_WIDTH, _MAX_HEIGHT = 160, 90
_MOST_HELD_BYTES: Final = 1 << 20
"""Larger pictures are made small as they come: 1.2 s of 1080p would be 110 MB per source."""

_LEAST_JUMP: Final = 0.7
"""Shorter sides of the picture per second: a ball that falls from 6 % of the picture's height, if
that is 2.5 m, and does not bounce."""
_LEAST_SPEED: Final = 0.4
_MOST_KEPT: Final = 0.5
_TURNED: Final = -0.1
_MOST_ROUGH: Final = 0.11
_SLOPE_DB: Final = 4.0
_SLOPE_OCTAVES: Final = 0.5
_MEMORY_NS: Final = 10 * NS_PER_SEC
_MOVING: Final = 0.002
"""The part of a picture that differs when something moves."""
_USUAL_SHARE: Final = 0.5
"""Of the sounds, this one included, at least so many should come with an impact."""
_SAME_OFFSET_NS: Final = NS_PER_SEC // 25
"""Offsets of one source differ by no more."""
_SOUND_DOUBT: Final = 0.5
_OFFSET_DOUBT: Final = 0.4
"""So much of a score is lost at most, when hardly any sound comes with an impact, and when the
offset is as far from the usual one as the tolerance."""
_DOUBTFUL: Final = 0.8
"""Trust below which the evidence says so."""
_N_AROUND: Final = 9
"""So many pictures, evenly spread, tell what is usually there."""


class ImpactSettings(Settings):
    """The spec of `ImpactScorer` (`ScorerSpec`); there is nothing to set."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """`impact`."""
        return (IMPACT,)

    def build(self, device: str) -> "ImpactScorer":  # noqa: ARG002 - always on the CPU
        """Make it."""
        return ImpactScorer()


class ImpactScorer:
    """Scores `impact` (`Scorer`).

    `Load.STRETCHED` changes nothing. Under `Load.INGEST` sound and pictures are kept up with, and
    what would have been decided then never is.
    """

    def __init__(self) -> None:
        """Nothing has been seen or heard."""
        self._places: dict[str, _Place] = {}

    def score(
        self,
        hops: Sequence[Hop],
        so_far: Sequence[Scores],  # noqa: ARG002 - rests on no other scorer
        load: Load,
    ) -> Sequence[Scores]:
        """[t] scores at the start of the hop and at onsets, rising within a hop, and who saw what.

        No output: no sound, no pictures lately, or not `synced`.
        """
        return [self._score(hop, load) for hop in hops]

    def forget(self, source: str) -> None:
        """See and hear the source afresh."""
        self._places.pop(source, None)

    def _score(self, hop: Hop, load: Load) -> Scores:
        place = self._places.get(hop.source)
        if place is None or place.rate_hz != hop.rate_hz:
            place = self._places[hop.source] = _Place(hop.rate_hz)
        place.take(hop)
        is_scoring = hop.synced and load is not Load.INGEST
        impacts = place.impacts(hop.span.end_ns, is_scoring=is_scoring)
        if not is_scoring or not place.is_seen_and_heard(hop):
            return Scores(hop.source, hop.index, hop.span)
        outputs = {IMPACT.name: _series(hop.span.start_ns, impacts)}
        found = tuple(detection for impact in impacts for detection in impact.detections())
        fused = {}
        if impacts:
            fused[IMPACT.name] = max(impacts, key=lambda impact: impact.score).fused()
        return Scores(hop.source, hop.index, hop.span, outputs, found, fused=fused)


@dataclass(frozen=True, slots=True)
class _Impact:
    """An onset and the kink that goes with it."""

    onset: Onset
    kink: Kink
    trust: float
    """What is left of the score, 0..1, after what other sounds came with."""

    @property
    def audio(self) -> float:
        """How sure sound is, 0..1."""
        return _squashed((self.onset.rise_db - LEAST_DB) / _SLOPE_DB)

    @property
    def video(self) -> float:
        """How sure sight is, 0..1."""
        return _squashed(_octaves_over(self.kink) / _SLOPE_OCTAVES)

    @property
    def score(self) -> float:
        """That of the weaker sense, less what makes it doubtful."""
        return min(self.audio, self.video) * self.trust

    @property
    def offset_ns(self) -> int:
        """How long after the picture the sound came."""
        return self.onset.at_ns - self.kink.at_ns

    def fused(self) -> Fused:
        """Neither sense can do without the other."""
        return Fused(self.score, self.score, offset_ns=self.offset_ns)

    def detections(self) -> list[Detection]:
        """What was heard, and what was seen and where."""
        heard, seen = f"onset of {self.onset.rise_db:.0f} dB", "stops"
        if self.kink.kept < _TURNED:
            seen = "turns back"
        if self.trust < _DOUBTFUL:
            seen += "; sound and picture often disagree here"
        at_ns = self.onset.at_ns
        return [
            Detection(IMPACT.name, at_ns, "audio", IMPACT.detector, self.audio, note=heard),
            Detection(
                IMPACT.name, at_ns, "video", IMPACT.detector, self.video, self.kink.box, note=seen
            ),
        ]


class _Past:
    """What the sounds of the last moments came with, when something moved."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._offsets_ns: deque[tuple[int, int | None]] = deque()

    def add(self, at_ns: int, offset_ns: int | None) -> None:
        """An onset, and how long after a kink it came; None where there was no kink."""
        self._drop_before(at_ns - _MEMORY_NS)
        self._offsets_ns.append((at_ns, offset_ns))

    def trust(self, at_ns: int, offset_ns: int, tolerance_ns: int) -> float:
        """What an impact at `at_ns` with that offset is worth, 0..1.

        Real ones come with most sounds and always at the same offset, near 0 until more is known.
        """
        self._drop_before(at_ns - _MEMORY_NS)
        met_ns = [other_ns for _, other_ns in self._offsets_ns if other_ns is not None]
        share = (1 + len(met_ns)) / (1 + len(self._offsets_ns))
        away_ns = abs(offset_ns - float(np.median([0, *met_ns])))
        away = (away_ns - _SAME_OFFSET_NS) / max(1, tolerance_ns - _SAME_OFFSET_NS)
        return (1 - _SOUND_DOUBT * max(0.0, 1 - share / _USUAL_SHARE)) * (
            1 - _OFFSET_DOUBT * min(1.0, max(0.0, away))
        )

    def _drop_before(self, at_ns: int) -> None:
        while self._offsets_ns and self._offsets_ns[0][0] < at_ns:
            self._offsets_ns.popleft()


class _Kept:
    """A picture whose luma is made small when that is needed; at once, if it is large."""

    def __init__(self, frame: VideoFrame) -> None:
        """Lets go of the frame as soon as it is small."""
        self.at_ns = frame.start_ns
        is_large = frame.image.nbytes > _MOST_HELD_BYTES
        self._picture: Image | Bytes = _made_small(frame.image) if is_large else frame.image

    @property
    def small(self) -> Bytes:
        """[<= 90, <= 160], made once."""
        if not isinstance(self._picture, np.ndarray):
            self._picture = _made_small(self._picture)
        return self._picture


def _made_small(image: Image) -> Bytes:
    return fit_luma(image.luma, max_width=_MAX_WIDTH, max_height=_MAX_HEIGHT)


@dataclass(slots=True)
class _Place:
    """One source: the pictures of the last moments and the onsets that wait for a decision."""

    rate_hz: int
    _onsets: OnsetFinder = field(init=False)
    _frames: deque[_Kept] = field(default_factory=deque)
    _waiting: deque[Onset] = field(default_factory=deque)
    _past: _Past = field(default_factory=_Past)

    def __post_init__(self) -> None:
        self._onsets = OnsetFinder(self.rate_hz)

    def take(self, hop: Hop) -> None:
        """Keep its pictures, hear its sound."""
        if hop.gap_before:
            self._frames.clear()
            self._waiting.clear()
        self._frames.extend(_Kept(frame) for frame in hop.frames)
        self._waiting.extend(self._onsets.hear(hop))

    def is_seen_and_heard(self, hop: Hop) -> bool:
        """Whether both senses are there, so that silence means that there was no impact."""
        is_seen = bool(self._frames) and self._frames[-1].at_ns >= hop.span.start_ns - _BEFORE_NS
        return is_seen and bool(hop.heard.any())

    def impacts(self, until_ns: int, *, is_scoring: bool) -> list[_Impact]:
        """Those among the onsets for which enough has been seen, in order."""
        found = []
        while self._waiting:
            onset = self._waiting[0]
            tolerance_ns, until_needed_ns = self._reach(onset)
            if until_ns < until_needed_ns:
                break
            self._waiting.popleft()
            if not is_scoring or tolerance_ns is None:
                continue
            impact = self._judge(onset, tolerance_ns, until_needed_ns)
            if impact is not None:
                found.append(impact)
        next_ns = self._waiting[0].at_ns if self._waiting else until_ns - _HEARD_LATE_NS
        while self._frames and self._frames[0].at_ns < next_ns - _BEFORE_NS:
            self._frames.popleft()
        return found

    def _reach(self, onset: Onset) -> tuple[int | None, int]:
        """How far from it a kink may lie, if there are pictures enough, and until when to wait."""
        before = [
            kept.at_ns
            for kept in self._frames
            if onset.at_ns - _BEFORE_NS <= kept.at_ns <= onset.at_ns
        ]
        if len(before) < 2 * N_LINE:
            return None, onset.at_ns
        period_ns = max(_LEAST_PERIOD_NS, round(float(np.median(np.diff(before)))))
        if period_ns > _MOST_PERIOD_NS:
            return None, onset.at_ns
        tolerance_ns = max(_LEAST_TOLERANCE_NS, 3 * period_ns // 2)
        return tolerance_ns, onset.at_ns + tolerance_ns + N_LINE * period_ns

    def _judge(self, onset: Onset, tolerance_ns: int, until_ns: int) -> _Impact | None:
        chosen = self._between(onset.at_ns - _BEFORE_NS, until_ns)
        period_ns = (until_ns - onset.at_ns - tolerance_ns) // N_LINE
        since_ns = onset.at_ns - tolerance_ns - (N_LINE + 1) * period_ns
        followed = [kept for kept in chosen if kept.at_ns >= since_ns]
        evenly = np.linspace(0, len(chosen) - 1, _N_AROUND).round().astype(int).tolist()
        around = [chosen[number] for number in evenly]
        is_one_size = len({kept.small.shape for kept in (*followed, *around)}) == 1
        if len(followed) < 2 * N_LINE or not is_one_size:
            return None
        seen = moves(
            [kept.small for kept in followed],
            [kept.at_ns for kept in followed],
            [kept.small for kept in around],
        )
        near = [
            kink
            for kink in seen.kinks
            if abs(kink.at_ns - onset.at_ns) <= tolerance_ns and _octaves_over(kink) > 0
        ]
        kink = max(near, key=_octaves_over, default=None)
        impact = None
        if kink is not None:
            offset_ns = onset.at_ns - kink.at_ns
            trust = self._past.trust(onset.at_ns, offset_ns, tolerance_ns)
            impact = _Impact(onset, kink, trust)
        if _MOVING <= seen.area <= MOST_AREA:
            self._past.add(onset.at_ns, None if impact is None else impact.offset_ns)
        return impact

    def _between(self, start_ns: int, end_ns: int) -> list[_Kept]:
        """The pictures of that time, without those that follow too soon."""
        chosen: list[_Kept] = []
        for kept in self._frames:
            is_due = not chosen or kept.at_ns - chosen[-1].at_ns >= _LEAST_PERIOD_NS
            if start_ns <= kept.at_ns < end_ns and is_due:
                chosen.append(kept)
        return chosen


def _octaves_over(kink: Kink) -> float:
    """By which factor, as a power of 2, it is more than enough, in what it is least so."""
    if kink.kept > _MOST_KEPT or kink.speed < _LEAST_SPEED:
        return -np.inf
    return float(
        min(np.log2(kink.jump / _LEAST_JUMP), np.log2(_MOST_ROUGH / max(kink.roughness, 1e-6)))
    )


def _squashed(over: float) -> float:
    """0.5 where it is 0."""
    return float(1 / (1 + np.exp(-over)))


def _series(start_ns: int, impacts: Sequence[_Impact]) -> Series:
    """0 from the start of the hop on, and around impacts their scores."""
    points = {start_ns: 0.0}
    for impact in impacts:
        end_ns = impact.onset.at_ns + _HOLD_NS
        points = {
            at: score for at, score in points.items() if not impact.onset.at_ns <= at < end_ns
        }
        points |= {impact.onset.at_ns: impact.score, end_ns: 0.0}
    at_ns = sorted(points)
    values = [points[at] for at in at_ns]
    return Series(np.array(at_ns, np.int64), np.array(values, np.float32))
