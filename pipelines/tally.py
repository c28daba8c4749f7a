"""Events beside the truth: what was found, missed and made up, when, and how late it was said.

    truth    ------[=========)--------[====)---------[====)-----
    events   -------[===)-[====)----------------[)---------[==)-
                    a hit, in 2 pieces  a miss   |   within the slack: a hit
                                                 a false alarm

Event-based, in the manner of Mesaros, Heittola and Virtanen, "Metrics for polyphonic sound event
detection" (Applied Sciences 6(6), 2016, 162; sed_eval), and of PASCAL VOC (Everingham et al., IJCV
88, 2010, 303-338), with two differences. An event belongs to a truth if they overlap at all, or are
no further apart than a slack; how well they agree is told by the start and end errors instead of a
threshold. Several events of one truth are one hit (VOC calls all but one of them false), and one
event may find several truths; both are counted (`n_fragments`, `n_merged`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from mmstream.media import NS_PER_SEC, Span
from mmstream.pipelines.truth import Judged

SECS_PER_HOUR: Final = 3600

Verdict = Literal["hit", "false_alarm", "unclear"]


@dataclass(frozen=True, slots=True)
class Said:
    """One event, from start to end, in media time."""

    label: str
    span: Span
    decided_ns: int
    """The capture instant at which there was enough for it to start."""
    top_score: float


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Hit(_Record):
    """Something that happened and was told; errors are event minus truth."""

    file: str
    start_s: float
    end_s: float
    start_error_s: float | None
    """None: its start is unclear, or an event of the truth before goes on into it."""
    end_error_s: float | None
    """None: its end is unclear, or an event goes on into the next truth."""
    delay_s: float | None
    """From its start until there was enough to say so; None as for the start."""
    n_pieces: int
    """Stretches that its events make; events of several objects at once are one."""


class Miss(_Record):
    """Something that happened and was not told."""

    file: str
    start_s: float
    end_s: float


class FalseAlarm(_Record):
    """Something that was told and did not happen."""

    file: str
    start_s: float
    end_s: float
    top_score: float


class Error(_Record):
    """How far off instants were."""

    n: int
    median_s: float
    """Signed: negative is too early."""
    abs_median_s: float
    abs_p95_s: float


class Delay(_Record):
    """How long it took."""

    n: int
    median_s: float
    p95_s: float


class LabelScore(_Record):
    """One label over all files on which it was judged."""

    label: str
    n_files: int
    judged_s: float
    """Time of media, less what is unclear."""
    n_true: int
    n_hits: int
    n_misses: int
    n_events: int
    n_false_alarms: int
    n_unclear: int
    """Events that count neither way."""
    n_fragments: int
    """Pieces of truths beyond the first."""
    n_merged: int
    """Events that cover several truths, though the time between them is clear."""
    precision: float | None
    """Events that found a truth, of those that count; None: there were none."""
    recall: float | None
    """Truths found; None: there were none."""
    false_alarms_per_hour: float
    """Per hour of `judged_s`."""
    start_error: Error | None
    end_error: Error | None
    delay: Delay | None
    hits: tuple[Hit, ...]
    misses: tuple[Miss, ...]
    false_alarms: tuple[FalseAlarm, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """The events of one label in one recording, beside the truth."""

    judged: Judged
    duration_ns: int
    events: tuple[Said, ...]
    truths_of: tuple[tuple[int, ...], ...]
    """For each event, the truths that it belongs to, by number, in order."""
    slack_ns: int

    def verdict(self, event: int) -> Verdict:
        """What an event is."""
        if self.truths_of[event]:
            return "hit"
        span = self.events[event].span
        is_unclear = any(_gap_ns(span, one) <= self.slack_ns for one in self.judged.unclear)
        return "unclear" if is_unclear else "false_alarm"

    def events_of(self, truth: int) -> list[int]:
        """The events that found a truth."""
        return [i for i, truths in enumerate(self.truths_of) if truth in truths]


def match(judged: Judged, duration_ns: int, said: Sequence[Said], *, slack_ns: int) -> Match:
    """Lay what was said of a label in a recording beside what is known.

    An event belongs to every truth that it overlaps; if there is none, to the nearest one within
    the slack.
    """
    events = tuple(one for one in said if one.label == judged.label)
    truths_of = []
    for event in events:
        gaps_ns = [_gap_ns(event.span, truth) for truth in judged.truths]
        inside = tuple(i for i, gap_ns in enumerate(gaps_ns) if gap_ns < 0)
        near = tuple(
            sorted(
                (i for i, gap_ns in enumerate(gaps_ns) if gap_ns <= slack_ns),
                key=gaps_ns.__getitem__,
            )
        )
        truths_of.append(inside or near[:1])
    return Match(judged, duration_ns, events, tuple(truths_of), slack_ns)


def score(label: str, matches: Sequence[Match]) -> LabelScore:
    """The figures of one label over its recordings."""
    hits = [hit for one in matches for hit in _hits(one)]
    misses = [miss for one in matches for miss in _misses(one)]
    false = [alarm for one in matches for alarm in _false_alarms(one)]
    verdicts = [one.verdict(i) for one in matches for i in range(len(one.events))]
    n_true, n_right = len(hits) + len(misses), verdicts.count("hit")
    judged_s = sum(_judged_ns(one) for one in matches) / NS_PER_SEC
    return LabelScore(
        label=label,
        n_files=len(matches),
        judged_s=round(judged_s, 3),
        n_true=n_true,
        n_hits=len(hits),
        n_misses=len(misses),
        n_events=len(verdicts),
        n_false_alarms=len(false),
        n_unclear=verdicts.count("unclear"),
        n_fragments=sum(hit.n_pieces - 1 for hit in hits),
        n_merged=sum(_n_merged(one) for one in matches),
        precision=_ratio(n_right, n_right + len(false)),
        recall=_ratio(len(hits), n_true),
        false_alarms_per_hour=round(len(false) * SECS_PER_HOUR / judged_s, 2) if judged_s else 0.0,
        start_error=_error([hit.start_error_s for hit in hits]),
        end_error=_error([hit.end_error_s for hit in hits]),
        delay=_delay([hit.delay_s for hit in hits]),
        hits=tuple(hits),
        misses=tuple(misses),
        false_alarms=tuple(false),
    )


def _gap_ns(one: Span, other: Span) -> int:
    """The time between two spans; negative where they overlap."""
    return max(one.start_ns, other.start_ns) - min(one.end_ns, other.end_ns)


def secs(duration_ns: int) -> float:
    """Nanoseconds as seconds, to the millisecond."""
    return round(duration_ns / NS_PER_SEC, 3)


def _hits(found: Match) -> list[Hit]:
    return [_hit(found, i) for i in range(len(found.judged.truths)) if found.events_of(i)]


def _hit(found: Match, truth: int) -> Hit:
    span, unclear = found.judged.truths[truth], found.judged.unclear
    its = found.events_of(truth)
    events = [found.events[i] for i in its]
    starts_here = all(found.truths_of[i][0] == truth for i in its)
    ends_here = all(found.truths_of[i][-1] == truth for i in its)
    start_error_s = end_error_s = delay_s = None
    if starts_here and _is_clear(span.start_ns, unclear):
        start_error_s = secs(min(one.span.start_ns for one in events) - span.start_ns)
        delay_s = secs(min(one.decided_ns for one in events) - span.start_ns)
    if ends_here and _is_clear(span.end_ns, unclear):
        end_error_s = secs(max(one.span.end_ns for one in events) - span.end_ns)
    return Hit(
        file=found.judged.file,
        start_s=secs(span.start_ns),
        end_s=secs(span.end_ns),
        start_error_s=start_error_s,
        end_error_s=end_error_s,
        delay_s=delay_s,
        n_pieces=len(_joined(one.span for one in events)),
    )


def _is_clear(at_ns: int, unclear: Sequence[Span]) -> bool:
    return not any(one.start_ns <= at_ns <= one.end_ns for one in unclear)


def _misses(found: Match) -> list[Miss]:
    return [
        Miss(file=found.judged.file, start_s=secs(span.start_ns), end_s=secs(span.end_ns))
        for i, span in enumerate(found.judged.truths)
        if not found.events_of(i)
    ]


def _false_alarms(found: Match) -> list[FalseAlarm]:
    return [
        FalseAlarm(
            file=found.judged.file,
            start_s=secs(event.span.start_ns),
            end_s=secs(event.span.end_ns),
            top_score=event.top_score,
        )
        for i, event in enumerate(found.events)
        if found.verdict(i) == "false_alarm"
    ]


def _n_merged(found: Match) -> int:
    spans, unclear = found.judged.truths, found.judged.unclear
    return sum(
        any(
            not any(
                u.start_ns <= spans[a].end_ns and spans[b].start_ns <= u.end_ns for u in unclear
            )
            for a, b in pairwise(truths)
        )
        for truths in found.truths_of
    )


def _judged_ns(found: Match) -> int:
    """The recording less what is unclear in it."""
    whole = Span(0, found.duration_ns)
    return found.duration_ns - sum(one.overlap_ns(whole) for one in found.judged.unclear)


def _joined(spans: Iterable[Span]) -> list[Span]:
    """The stretches that spans cover together."""
    joined: list[Span] = []
    for span in sorted(spans, key=lambda one: one.start_ns):
        if joined and span.start_ns <= joined[-1].end_ns:
            joined[-1] = Span(joined[-1].start_ns, max(joined[-1].end_ns, span.end_ns))
        else:
            joined.append(span)
    return joined


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _error(errors_s: Sequence[float | None]) -> Error | None:
    known = [error_s for error_s in errors_s if error_s is not None]
    if not known:
        return None
    sizes = np.abs(known)
    return Error(
        n=len(known),
        median_s=round(float(np.median(known)), 3),
        abs_median_s=round(float(np.median(sizes)), 3),
        abs_p95_s=round(float(np.percentile(sizes, 95)), 3),
    )


def _delay(delays_s: Sequence[float | None]) -> Delay | None:
    known = [delay_s for delay_s in delays_s if delay_s is not None]
    if not known:
        return None
    return Delay(
        n=len(known),
        median_s=round(float(np.median(known)), 3),
        p95_s=round(float(np.percentile(known, 95)), 3),
    )
