r"""Scores -> the life of events: `start`, `update`, `end`, stamped with capture time.

Reads `Scores.outputs[label]` ([t] scores in 0..1) and the detections of that label. Whatever is
counted is counted in time, not in scores, so that dropped hops and stretched cadences do not
change what a threshold means: a score holds until the next, at most `MAX_HOLD_NS`; after that
nothing is known, which is not "on".

    score   __/~~~\__/~~~~~~~~~\____________
    on        xxxx   xxxxx                       `for_secs` of the last `within_secs`: start,
    event     [===================)              dated back to the first of them
                                   <-min_off->   `end`, dated back to where it fell below `off`
"""

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from pydantic import Field

from mmstream.config import Settings
from mmstream.errors import StateError
from mmstream.media import (
    Detection,
    Label,
    Scores,
    SourceEnded,
    SourceStalled,
    SourceStarted,
    Span,
    secs_to_ns,
)
from mmstream.messages import (
    Contribution,
    Decided,
    EndReason,
    Event,
    Evidence,
    WireBox,
    epoch_secs,
    iso_utc,
)

MAX_HOLD_NS: Final = 500_000_000
"""How long a score holds when no other follows."""
MAX_EVIDENCE: Final = 3
CHANGED_SCORE: Final = 0.05
"""A rise of the top score by less than this is not worth an update."""
CHANGED_OVERLAP: Final = 0.5
"""A box that shares less than this with the one last told (intersection over union) has moved."""

HeadItem = SourceStarted | Scores | SourceStalled | SourceEnded


class LabelSettings(Settings):
    """When scores of a label become an event."""

    on: float = Field(0.5, gt=0, le=1)
    """A score from here on counts for a start."""
    off: float = Field(0.35, ge=0, le=1)
    """An open event goes on while the score is at least this."""
    for_secs: float = Field(0.2, ge=0, le=60)
    """An event starts when scores were `on` for this long ..."""
    within_secs: float = Field(0.5, ge=0.05, le=60)
    """... within the last so many seconds."""
    min_on_secs: float = Field(0.0, ge=0, le=60)
    """An event lasts at least this long."""
    min_off_secs: float = Field(1.0, ge=0, le=60)
    """It ends when the score was below `off` for this long; shorter breaks are bridged."""
    update_secs: float = Field(1.0, ge=0.1, le=3600)
    """At most one update in this time, and only when something changed."""

    def model_post_init(self, _context: object, /) -> None:
        """Check that the thresholds leave room for hysteresis."""
        if self.off > self.on:
            msg = f"off {self.off} lies above on {self.on}"
            raise ValueError(msg)
        if self.for_secs > self.within_secs:
            msg = f"for_secs {self.for_secs} does not fit into within_secs {self.within_secs}"
            raise ValueError(msg)


class EventHead:
    """Scores of one source in, events out (`Stage[HeadItem, Decided]`)."""

    def __init__(
        self,
        *,
        node: str,
        source: str,
        labels: Sequence[Label],
        settings: Mapping[str, LabelSettings],
    ) -> None:
        """Nothing is open. A label without settings of its own gets the defaults."""
        self._node = node
        self._source = source
        self._tracks = [
            _Track(label, settings.get(label.name, LabelSettings())) for label in labels
        ]
        self._utc_offset_ns: int | None = None

    def push(self, item: HeadItem) -> Sequence[Decided]:
        """Take what the worker or the runtime says next; give the events that follow.

        Raises:
            StateError: scores came before `SourceStarted`.
        """
        match item:
            case SourceStarted():
                ended = self._end_all("source_ended")
                self._utc_offset_ns = item.utc_offset_ns
                return ended
            case SourceStalled():
                return self._end_all("source_stalled")
            case SourceEnded():
                return self._end_all("source_ended")
            case Scores():
                return self._score(item)

    def flush(self) -> Sequence[Decided]:
        """We are shutting down: end what is open."""
        return self._end_all("shutdown")

    def _score(self, scores: Scores) -> Sequence[Decided]:
        decided = []
        for track in self._tracks:
            series = scores.outputs.get(track.label.name)
            if series is not None:
                found = [d for d in scores.detections if d.label == track.label.name]
                for at_ns, score in zip(series.at_ns.tolist(), series.values.tolist(), strict=True):
                    here = [d for d in found if d.at_ns == at_ns]
                    decided += [self._event(track, step) for step in track.see(at_ns, score, here)]
            decided += [self._event(track, step) for step in track.advance(scores.span.end_ns)]
        return decided

    def _end_all(self, reason: EndReason) -> Sequence[Decided]:
        return [self._event(track, step) for track in self._tracks for step in track.close(reason)]

    def _event(self, track: "_Track", step: "_Step") -> Decided:
        offset_ns = self._utc_offset_ns
        if offset_ns is None:
            msg = f"scores of {self._source} came before SourceStarted"
            raise StateError(msg)
        start_ns = offset_ns + step.start_ns
        end_ns = None if step.end_ns is None else offset_ns + step.end_ns
        modality = track.label.modality
        event = Event(
            id=event_id(self._node, self._source, track.label.name, start_ns),
            type=step.type,
            source=self._source,
            label=track.label.name,
            kind="audio" if modality == "audio" else "video",
            score=round(step.score, 4),
            top_score=round(step.peak.score, 4),
            ts_start=iso_utc(start_ns),
            t_start=epoch_secs(start_ns),
            ts_end=None if end_ns is None else iso_utc(end_ns),
            t_end=None if end_ns is None else epoch_secs(end_ns),
            evidence=step.peak.evidence(track.label, offset_ns),
            contribution=Contribution.model_validate({modality: 1.0}),
            end_reason=step.end_reason,
        )
        return Decided(event, step.decided_ns)


def event_id(node: str, source: str, label: str, start_utc_ns: int) -> str:
    """The id of an event: a hash of what makes it this one, so that a replay gives the same."""
    text = f"{node}/{source}/{label}/{start_utc_ns}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class _Peak:
    """The strongest moment of an event so far."""

    at_ns: int
    score: float
    detections: tuple[Detection, ...]

    def evidence(self, label: Label, offset_ns: int) -> tuple[Evidence, ...]:
        at_secs = epoch_secs(offset_ns + self.at_ns)
        if not self.detections:
            seen = "video" if label.modality == "av" else label.modality
            here = Detection(label.name, self.at_ns, seen, label.detector, self.score)
            return (_evidence(here, at_secs),)
        return tuple(_evidence(detection, at_secs) for detection in self.detections)


def _evidence(detection: Detection, at_secs: float) -> Evidence:
    box = None
    if detection.box is not None:
        edges = {name: round(getattr(detection.box, name), 4) for name in WireBox.model_fields}
        box = WireBox.model_validate(edges)
    return Evidence(
        modality=detection.modality,
        detector=detection.detector,
        label=detection.label,
        score=round(detection.score, 4),
        t_start=at_secs,
        t_end=at_secs,
        box=box,
    )


@dataclass(frozen=True, slots=True)
class _Step:
    """What a track has to tell."""

    type: Literal["start", "update", "end"]
    start_ns: int
    score: float
    peak: _Peak
    decided_ns: int
    end_ns: int | None = None
    end_reason: EndReason | None = None


@dataclass(slots=True)
class _Open:
    """An event that has started and not ended."""

    start_ns: int
    lasts_until_ns: int
    """Up to here the score was at least `off`."""
    peak: _Peak
    told: _Peak
    told_at_ns: int

    def end(self, end_ns: int, reason: EndReason, score: float, decided_ns: int) -> _Step:
        """Its last step."""
        return _Step("end", self.start_ns, score, self.peak, decided_ns, end_ns, reason)


@dataclass(frozen=True, slots=True)
class _On:
    """A stretch of time in which the score was `on`, and its strongest moment."""

    span: Span
    peak: _Peak


@dataclass(slots=True)
class _Track:
    """The state of one label: off with a memory of recent "on" time, or an open event."""

    label: Label
    settings: LabelSettings
    _now_ns: int | None = None
    _last: _Peak = _Peak(0, 0.0, ())
    """The newest score."""
    _on: deque[_On] = field(default_factory=deque)
    _open: _Open | None = None

    def see(self, at_ns: int, score: float, found: Sequence[Detection]) -> list[_Step]:
        """A score at an instant; first account for the time before it.

        It may come for a time that is accounted for (a detector that refines an onset): from
        there on it takes the place of the score before.
        """
        steps = self.advance(at_ns)
        self._forget_from(at_ns)
        strongest = sorted(found, key=lambda detection: -detection.score)[:MAX_EVIDENCE]
        self._now_ns, self._last = at_ns, _Peak(at_ns, score, tuple(strongest))
        if self._open is not None:
            if score > self._open.peak.score:
                self._open.peak = self._last
        elif self.settings.for_secs == 0 and score >= self.settings.on:
            steps.append(self._start(at_ns, at_ns, self._last))
        return steps

    def advance(self, to_ns: int) -> list[_Step]:
        """Nothing more is known up to `to_ns`: the last score holds, for a while."""
        now_ns = self._now_ns
        if now_ns is None or to_ns <= now_ns:
            return []
        self._now_ns = to_ns
        steps = []
        held = Span(now_ns, max(now_ns, min(to_ns, self._last.at_ns + MAX_HOLD_NS)))
        if self._open is None and self._last.score >= self.settings.on and held.duration_ns > 0:
            steps += self._start_if_due(held)
        if self._open is not None:
            if self._last.score >= self.settings.off and held.duration_ns > 0:
                self._open.lasts_until_ns = held.end_ns
            steps += self._end_if_due(self._open, to_ns) or self._update_if_due(self._open, to_ns)
        return steps

    def close(self, reason: EndReason) -> list[_Step]:
        """No more is to come: end the open event, if there is one, and forget what led to it."""
        opened, now_ns = self._open, self._now_ns
        self._open = self._now_ns = None
        self._on.clear()
        if opened is None or now_ns is None:
            return []
        end_ns = min(self._ends_at_ns(opened), max(now_ns, opened.lasts_until_ns))
        return [opened.end(end_ns, reason, self._last.score, now_ns)]

    def _start_if_due(self, held: Span) -> list[_Step]:
        """Add held time to the memory of "on" time; start at the instant when there is enough.

        A stretch counts whole or, once `within_secs` before that instant lies inside it, not at
        all: from there on what that window gains at its end, it loses at its beginning.
        """
        on = _On(held, self._last)
        if self._on and self._on[-1].span.end_ns == held.start_ns:
            before = self._on.pop()
            peak = max(before.peak, self._last, key=lambda peak: peak.score)
            on = _On(Span(before.span.start_ns, held.end_ns), peak)
        earlier_ns = sum(one.span.duration_ns for one in self._on)
        self._on.append(on)
        for_ns, within_ns = (
            secs_to_ns(self.settings.for_secs),
            secs_to_ns(self.settings.within_secs),
        )
        due_ns = on.span.start_ns + max(0, for_ns - earlier_ns)
        while self._on[0].span.start_ns < due_ns - within_ns:
            earlier_ns -= self._on.popleft().span.duration_ns
            due_ns = on.span.start_ns + max(0, for_ns - earlier_ns)
        if due_ns > held.end_ns:
            return []
        peak = max((one.peak for one in self._on), key=lambda peak: peak.score)
        return [self._start(self._on[0].span.start_ns, due_ns, peak)]

    def _start(self, start_ns: int, decided_ns: int, peak: _Peak) -> _Step:
        self._open = _Open(start_ns, decided_ns, peak, peak, decided_ns)
        self._on.clear()
        return _Step("start", start_ns, self._last.score, peak, decided_ns)

    def _end_if_due(self, opened: _Open, now_ns: int) -> list[_Step]:
        end_ns = self._ends_at_ns(opened)
        decided_ns = end_ns + max(1, secs_to_ns(self.settings.min_off_secs))
        if now_ns < decided_ns:
            return []
        self._open = None
        return [opened.end(end_ns, "quiet", 0.0, decided_ns)]

    def _ends_at_ns(self, opened: _Open) -> int:
        return max(opened.lasts_until_ns, opened.start_ns + secs_to_ns(self.settings.min_on_secs))

    def _update_if_due(self, opened: _Open, now_ns: int) -> list[_Step]:
        if now_ns - opened.told_at_ns < secs_to_ns(self.settings.update_secs):
            return []
        if opened.peak is opened.told or not _changed(opened.told, opened.peak):
            return []
        opened.told, opened.told_at_ns = opened.peak, now_ns
        return [_Step("update", opened.start_ns, self._last.score, opened.peak, now_ns)]

    def _forget_from(self, at_ns: int) -> None:
        """A newer score tells of the time from here on."""
        while self._on and self._on[-1].span.end_ns > at_ns:
            on = self._on.pop()
            if on.span.start_ns < at_ns:
                self._on.append(_On(Span(on.span.start_ns, at_ns), on.peak))
        if self._open is not None and self._open.lasts_until_ns > at_ns:
            self._open.lasts_until_ns = max(self._open.start_ns, at_ns)


def _changed(told: _Peak, peak: _Peak) -> bool:
    if peak.score - told.score >= CHANGED_SCORE:
        return True
    old = next((detection.box for detection in told.detections), None)
    new = next((detection.box for detection in peak.detections), None)
    if old is None or new is None:
        return old is not new
    across = min(old.x + old.width, new.x + new.width) - max(old.x, new.x)
    down = min(old.y + old.height, new.y + new.height) - max(old.y, new.y)
    shared = max(0.0, across) * max(0.0, down)
    together = old.width * old.height + new.width * new.height - shared
    return shared < CHANGED_OVERLAP * together
