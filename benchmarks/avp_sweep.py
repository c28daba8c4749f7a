"""What each threshold would have said of recordings, by the head that says it live.

    log-odds --threshold--> scores -> EventHead -> events -> tally <- truth

A threshold shifts the log-odds so that it lies at 0.5, as `AvpScorer` does; when such scores become
an event is the same for all labels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmstream.benchmarks.avp_listening import Track, log_odds
from mmstream.heads.events import EventHead
from mmstream.heads.lifecycle import LabelSettings
from mmstream.media import (
    NS_PER_SEC,
    Floats,
    Label,
    Scores,
    Series,
    SourceStarted,
    Span,
    secs_to_ns,
)
from mmstream.messages import Decided, Event
from mmstream.pipelines.tally import SECS_PER_HOUR, Match, Said, match
from mmstream.pipelines.truth import Judged

THRESHOLDS: Final = (
    *(n / 20 for n in range(1, 19)),
    0.92,
    0.94,
    0.95,
    0.96,
    0.97,
    0.98,
    0.985,
    0.99,
    0.993,
    0.996,
)
SLACK_NS: Final = secs_to_ns(1.0)
"""How far an event may lie from what it tells of. More than in `mmstream evaluate`: what was heard
stays in the model's window for 2 s, so that a sneeze may be told when it is over: late, not
false."""

Numbers = NDArray[np.int64]

_FIELDS: Final = 5


@dataclass(frozen=True, slots=True)
class Counts:
    """What was right and wrong of one label; may be of one recording or the sum over many."""

    n_true: int
    n_hits: int
    n_right: int
    """Events that found a truth."""
    n_false: int
    judged_ns: int

    @property
    def precision(self) -> float | None:
        """Events that found a truth, of those that count; None: there were none."""
        n_told = self.n_right + self.n_false
        return self.n_right / n_told if n_told else None

    @property
    def recall(self) -> float | None:
        """Truths found; None: there were none."""
        return self.n_hits / self.n_true if self.n_true else None

    @property
    def false_alarms_per_hour(self) -> float:
        """Of judged time; 0 where nothing was judged."""
        hours = self.judged_ns / NS_PER_SEC / SECS_PER_HOUR
        return self.n_false / hours if hours else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; 0 if either is or cannot be told."""
        both = (self.precision or 0.0) + (self.recall or 0.0)
        return 2 * (self.precision or 0.0) * (self.recall or 0.0) / both if both else 0.0

    def untold(self) -> "Counts":
        """The same recordings, had nothing been told."""
        return replace(self, n_hits=0, n_right=0, n_false=0)


def summed(parts: Sequence[Counts]) -> Counts:
    """Over all parts together."""
    return Counts(
        n_true=sum(one.n_true for one in parts),
        n_hits=sum(one.n_hits for one in parts),
        n_right=sum(one.n_right for one in parts),
        n_false=sum(one.n_false for one in parts),
        judged_ns=sum(one.judged_ns for one in parts),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Swept:
    """One label at every threshold in every recording on which it is judged."""

    label: str
    files: tuple[str, ...]
    numbers: Numbers
    """[n_thresholds, n_files, 5]: the fields of `Counts`."""

    def counts(self, threshold: int, files: Sequence[int]) -> Counts:
        """The sum over some files, by number, at a threshold, by number."""
        return Counts(*(int(n) for n in self.numbers[threshold, list(files)].sum(axis=0)))


def sweep(
    label: str, tracks: Sequence[Track], judged: Sequence[Judged], timing: LabelSettings
) -> Swept:
    """Try every threshold on a label.

    Args:
        label: one that the tracks have.
        tracks: one for each recording.
        judged: the truth about them; recordings without a row of the label are left out.
        timing: when scores become an event.
    """
    by_file = {track.file: track for track in tracks}
    its = [one for one in judged if one.label == label]
    numbers = np.zeros((len(THRESHOLDS), len(its), _FIELDS), np.int64)
    for nth, one in enumerate(its):
        track = by_file[one.file]
        known: dict[bytes, Numbers] = {}
        for at, threshold in enumerate(THRESHOLDS):
            crossed = _crossed(_over(track, label, threshold), timing)
            if crossed not in known:
                known[crossed] = _numbers(matched(track, one, threshold, timing))
            numbers[at, nth] = known[crossed]
    return Swept(label, tuple(one.file for one in its), numbers)


def matched(track: Track, judged: Judged, threshold: float, timing: LabelSettings) -> Match:
    """What would have been told of a label in a recording, beside the truth."""
    odds = _over(track, judged.label, threshold)
    told = tuple(_told(judged.label, track.spans, odds, timing))
    return match(judged, track.duration_ns, told, slack_ns=SLACK_NS)


def _over(track: Track, label: str, threshold: float) -> Floats:
    """[n_hops]: the log-odds of the scores."""
    return track.log_odds[:, track.labels.index(label)] - np.float32(log_odds(threshold))


def _crossed(odds: Floats, timing: LabelSettings) -> bytes:
    """All that decides when events start and end: which hops are on, which are not off.

    By the scores that the head gets: at a threshold itself rounding decides.
    """
    scores = _scores(odds).astype(np.float64)
    return (scores >= timing.on).tobytes() + (scores >= timing.off).tobytes()


def _scores(odds: Floats) -> Floats:
    """Log-odds -> 0..1."""
    return np.asarray(1 / (1 + np.exp(-odds.astype(np.float64))), np.float32)


def _told(label: str, spans: Sequence[Span], odds: Floats, timing: LabelSettings) -> Iterator[Said]:
    """The events, in the order in which they ended."""
    if not np.any(_scores(odds).astype(np.float64) >= timing.on):
        return  # most recordings at most thresholds
    head = EventHead(
        node="bench", source="one", labels=[Label(label, "av", "avp")], settings={label: timing}
    )
    decided = list(head.push(SourceStarted("one", frozenset({"audio"}), 0, None)))
    for nth, (span, score) in enumerate(zip(spans, _scores(odds), strict=True)):
        decided += head.push(Scores("one", nth, span, _outputs(label, span, score)))
    yield from _events([*decided, *head.flush()])


def _outputs(label: str, span: Span, score: np.float32) -> dict[str, Series]:
    if np.isnan(score):
        return {}
    return {label: Series(np.array([span.start_ns], np.int64), np.array([score]))}


def _events(decided: Sequence[Decided]) -> Iterator[Said]:
    started_ns: dict[str, int] = {}
    for one in decided:
        event = one.content
        if not isinstance(event, Event):
            continue
        if event.type == "start":
            started_ns[event.id] = one.at_ns
        if event.type == "end" and event.t_end is not None:
            span = Span(secs_to_ns(event.t_start), secs_to_ns(event.t_end))
            yield Said(event.label, span, started_ns.pop(event.id), event.top_score)


def _numbers(found: Match) -> Numbers:
    verdicts = [found.verdict(nth) for nth in range(len(found.events))]
    n_true = len(found.judged.truths)
    whole = Span(0, found.duration_ns)
    unclear_ns = sum(one.overlap_ns(whole) for one in found.judged.unclear)
    return np.array(
        [
            n_true,
            sum(bool(found.events_of(nth)) for nth in range(n_true)),
            verdicts.count("hit"),
            verdicts.count("false_alarm"),
            found.duration_ns - unclear_ns,
        ],
        np.int64,
    )
