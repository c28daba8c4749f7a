r"""When an event starts, changes and ends: the life of one thing, from its scores.

Whatever is counted is counted in time, not in scores, so that dropped hops and stretched cadences
do not change what a threshold means: a score holds until the next, at most `MAX_HOLD_NS`; after
that nothing is known, which is not "on".

    score   __/~~~\__/~~~~~~~~~\____________
    on        xxxx   xxxxx                       `for_secs` of the last `within_secs`: start,
    event     [===================)              dated back to the first of them
                                   <-min_off->   `end`, dated back to where it fell below `off`
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from pydantic import Field

from mmstream.config import Settings
from mmstream.media import Detection, Fused, Span, secs_to_ns
from mmstream.messages import EndReason

MAX_HOLD_NS: Final = 500_000_000
"""How long a score holds when no other follows."""
MAX_EVIDENCE: Final = 3
CHANGED_SCORE: Final = 0.05
"""A rise of the top score by less than this is not worth an update."""
CHANGED_OVERLAP: Final = 0.5
"""A box that shares less than this with the one last told (intersection over union) has moved."""


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

    def at(self, on: float) -> "LabelSettings":
        """The same with another `on`; `off` keeps its ratio to it, so that events still end.

        Raises:
            ValueError: `on` is not in 0..1, or 0.
        """
        if not 0 < on <= 1:
            msg = f"a threshold lies in 0..1 and is not 0: got {on=}"
            raise ValueError(msg)
        return self.model_copy(update={"on": on, "off": min(on, self.off * (on / self.on))})


@dataclass(frozen=True, slots=True)
class Peak:
    """The strongest moment of an event so far."""

    at_ns: int
    score: float
    detections: tuple[Detection, ...]
    fused: Fused | None = None
    """What each sense had in it, where sound and sight were compared."""


@dataclass(frozen=True, slots=True)
class Step:
    """What there is to tell of an event."""

    type: Literal["start", "update", "end"]
    start_ns: int
    score: float
    peak: Peak
    decided_ns: int
    end_ns: int | None = None
    end_reason: EndReason | None = None


@dataclass(slots=True)
class _Open:
    """An event that has started and not ended."""

    start_ns: int
    lasts_until_ns: int
    """Up to here the score was at least `off`."""
    peak: Peak
    told: Peak
    told_at_ns: int

    def end(self, end_ns: int, reason: EndReason, score: float, decided_ns: int) -> Step:
        """Its last step."""
        return Step("end", self.start_ns, score, self.peak, decided_ns, end_ns, reason)


@dataclass(frozen=True, slots=True)
class _On:
    """A stretch of time in which the score was `on`, and its strongest moment."""

    span: Span
    peak: Peak


@dataclass(slots=True)
class Lifecycle:
    """The state of one thing: off with a memory of recent "on" time, or an open event."""

    settings: LabelSettings
    _now_ns: int | None = None
    _last: Peak = Peak(0, 0.0, ())
    """The newest score."""
    _on: deque[_On] = field(default_factory=deque)
    _open: _Open | None = None

    def is_idle(self) -> bool:
        """Whether nothing is open, and nothing that was seen can still lead to a start."""
        if self._open is not None or self._now_ns is None:
            return self._open is None
        return self._now_ns - self._last.at_ns > MAX_HOLD_NS + secs_to_ns(self.settings.within_secs)

    def see(
        self, at_ns: int, score: float, found: Sequence[Detection] = (), fused: Fused | None = None
    ) -> list[Step]:
        """A score at an instant; first account for the time before it.

        It may come for a time that is accounted for (a detector that refines an onset): from
        there on it takes the place of the score before.
        """
        steps = self.advance(at_ns)
        self._forget_from(at_ns)
        strongest = sorted(found, key=lambda detection: -detection.score)[:MAX_EVIDENCE]
        self._now_ns, self._last = at_ns, Peak(at_ns, score, tuple(strongest), fused)
        if self._open is not None:
            if score > self._open.peak.score:
                self._open.peak = self._last
        elif self.settings.for_secs == 0 and score >= self.settings.on:
            steps.append(self._start(at_ns, at_ns, self._last))
        return steps

    def advance(self, to_ns: int) -> list[Step]:
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
                self._open.lasts_until_ns = max(self._open.start_ns, held.end_ns)
            steps += self._end_if_due(self._open, to_ns) or self._update_if_due(self._open, to_ns)
        return steps

    def tune(self, settings: LabelSettings) -> None:
        """Judge by these from here on; what counted for a start by the others is forgotten."""
        self.settings = settings
        self._on.clear()

    def close(self, reason: EndReason) -> list[Step]:
        """No more is to come: end the open event, if there is one, and forget what led to it."""
        opened, now_ns = self._open, self._now_ns
        self._open = self._now_ns = None
        self._on.clear()
        if opened is None or now_ns is None:
            return []
        end_ns = min(self._ends_at_ns(opened), max(now_ns, opened.lasts_until_ns))
        return [opened.end(end_ns, reason, self._last.score, now_ns)]

    def _start_if_due(self, held: Span) -> list[Step]:
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

    def _start(self, start_ns: int, decided_ns: int, peak: Peak) -> Step:
        self._open = _Open(start_ns, decided_ns, peak, peak, decided_ns)
        self._on.clear()
        return Step("start", start_ns, self._last.score, peak, decided_ns)

    def _end_if_due(self, opened: _Open, now_ns: int) -> list[Step]:
        end_ns = self._ends_at_ns(opened)
        decided_ns = end_ns + max(1, secs_to_ns(self.settings.min_off_secs))
        if now_ns < decided_ns:
            return []
        self._open = None
        return [opened.end(end_ns, "quiet", 0.0, decided_ns)]

    def _ends_at_ns(self, opened: _Open) -> int:
        return max(opened.lasts_until_ns, opened.start_ns + secs_to_ns(self.settings.min_on_secs))

    def _update_if_due(self, opened: _Open, now_ns: int) -> list[Step]:
        if now_ns - opened.told_at_ns < secs_to_ns(self.settings.update_secs):
            return []
        if opened.peak is opened.told or not _changed(opened.told, opened.peak):
            return []
        opened.told, opened.told_at_ns = opened.peak, now_ns
        return [Step("update", opened.start_ns, self._last.score, opened.peak, now_ns)]

    def _forget_from(self, at_ns: int) -> None:
        """A newer score tells of the time from here on."""
        while self._on and self._on[-1].span.end_ns > at_ns:
            on = self._on.pop()
            if on.span.start_ns < at_ns:
                self._on.append(_On(Span(on.span.start_ns, at_ns), on.peak))
        if self._open is not None and self._open.lasts_until_ns > at_ns:
            self._open.lasts_until_ns = max(self._open.start_ns, at_ns)


def _changed(told: Peak, peak: Peak) -> bool:
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
