"""What is in view, as far as events tell, once it has been so for a moment; and how it is said."""

from dataclasses import dataclass, field, replace
from typing import Final

from mmstream.heads.caption_settings import SceneCaptions
from mmstream.media import secs_to_ns
from mmstream.messages import Event, WireBox

BLOCKED: Final = "The camera is blocked."

_BLOCKED: Final = "camera_blocked"
_SPEAKING: Final = "person_speaking"
_MOTION: Final = "motion"
_PRESENCE: Final = "presence"
_PERSONS: Final = "person"
_FACES: Final = "face"
_SEEN: Final = (_BLOCKED, _SPEAKING, _MOTION, _PRESENCE, _PERSONS, _FACES)

_STILL_SECS: Final = 10.0
"""Something moves anew when nothing has moved for this long."""
_UNKNOWN_SECS: Final = 3.0
"""What moves is told of when nobody was found meanwhile: mostly it is a person, found later."""
_SILENT_SECS: Final = 10.0
"""Somebody speaks anew when nobody has spoken for this long."""
_WATCHED_SECS: Final = 3.0
"""What moves sooner after the start may have been there before."""
_SAME_OVERLAP: Final = 0.3
"""Boxes that share so much of the smaller one may be one person."""
_COUNTED: Final = ("Nobody", "One person", "Two people", "Three people")


@dataclass(frozen=True, slots=True)
class View:
    """What is known to be in view at an instant."""

    is_blocked: bool = False
    n_people: int = 0
    is_speaking: bool = False
    """Somebody who is seen speaks."""
    is_moving: bool = False


@dataclass(frozen=True, slots=True)
class Sentence:
    """What is said of a change, and how sure that is."""

    text: str
    since_ns: int
    """When what it tells of began to be so."""
    confidence: float


@dataclass(slots=True)
class _Steady:
    """A number that rises when it was higher for a while, and falls when it was lower for long."""

    rise_ns: int
    fall_ns: int
    value: int = 0
    since_ns: int = 0
    """When it began to be so."""
    _direction: int = 0
    _nearest: int = 0
    _turned_ns: int = 0

    @property
    def is_turning(self) -> bool:
        """Whether it seems to be another just now."""
        return self._direction != 0

    def pause(self) -> None:
        """What it seems to be is not known just now."""
        self._direction = 0

    def update(self, raw: int, now_ns: int, *, is_sure: bool = False) -> None:
        """Take what it seems to be since now; of all that it seemed meanwhile the nearest holds.

        `is_sure`: others tell so, too; then it falls as soon as it rises.
        """
        direction = (raw > self.value) - (raw < self.value)
        if direction != self._direction:
            self._direction, self._nearest, self._turned_ns = direction, raw, now_ns
        if not direction:
            return
        self._nearest = (min if direction > 0 else max)(self._nearest, raw)
        wait_ns = self.rise_ns if direction > 0 or is_sure else self.fall_ns
        if now_ns - self._turned_ns >= wait_ns:
            self.value, self.since_ns = self._nearest, self._turned_ns
            self._direction = 0


@dataclass(slots=True)
class SceneState:
    """One source: what is open, what is steady, and what was last said."""

    settings: SceneCaptions
    _open: dict[str, dict[str, float]] = field(
        default_factory=lambda: {label: {} for label in _SEEN}
    )
    """Scores by event id, by label."""
    _boxes: dict[str, WireBox] = field(default_factory=dict)
    """Where it was last told to be, by event id."""
    _lost: dict[str, float] = field(default_factory=dict)
    """The score with which the last event of a label ended."""
    _top: dict[str, float] = field(default_factory=dict)
    """The highest score of that event."""
    _on_ns: dict[str, int] = field(default_factory=dict)
    """When a label last had an open event."""
    _steady: dict[str, _Steady] = field(default_factory=dict)
    _told: View = field(default_factory=View)
    _watched_ns: int | None = None
    """Since when it is looked at."""

    def __post_init__(self) -> None:
        self._begin()

    @property
    def is_blocked(self) -> bool:
        """Whether nothing is seen."""
        return bool(self._steady[_BLOCKED].value)

    def _begin(self) -> None:
        """Nothing is known but of the camera itself."""
        self._watched_ns = None
        self._told = View(is_blocked=self._told.is_blocked)
        settled_ns = secs_to_ns(self.settings.settled_secs)
        gone_ns = secs_to_ns(self.settings.gone_secs)
        self._steady = {
            _BLOCKED: self._steady.get(_BLOCKED, _Steady(settled_ns, settled_ns)),
            _PERSONS: _Steady(settled_ns, gone_ns),
            _SPEAKING: _Steady(settled_ns, secs_to_ns(_SILENT_SECS)),
            _MOTION: _Steady(settled_ns, secs_to_ns(_STILL_SECS)),
        }

    def take(self, event: Event) -> None:
        """Take one step in the life of an event."""
        still = self._open.get(event.label)
        if still is None:
            return
        if event.type == "end":
            still.pop(event.id, None)
            self._boxes.pop(event.id, None)
            self._lost[event.label], self._top[event.label] = event.score, event.top_score
        else:
            still[event.id] = event.score
            box = next((one.box for one in event.evidence if one.box is not None), None)
            if box is not None:
                self._boxes[event.id] = box

    def look(self, now_ns: int) -> None:
        """Events are known up to now."""
        n_people = max(self._count(_PERSONS), self._count(_FACES))
        if self._open[_MOTION] or self._open[_PRESENCE]:
            # Somebody is lost, but something is there: who turns round or bends is not found.
            n_people = max(n_people, min(1, self._steady[_PERSONS].value))
        raw = {label: int(bool(self._open[label])) for label in _SEEN} | {_PERSONS: n_people}
        self._on_ns |= {label: now_ns for label in _SEEN if self._open[label]}
        if raw[_BLOCKED]:
            for label, steady in self._steady.items():
                if label != _BLOCKED:
                    steady.pause()  # what a blocked camera does not see is not gone
            self._steady[_BLOCKED].update(1, now_ns)
            return
        if self._watched_ns is None:
            self._watched_ns = now_ns
        has_left = n_people == 0 and self._has_left(now_ns)
        for label, steady in self._steady.items():
            steady.update(raw[label], now_ns, is_sure=has_left and label == _PERSONS)

    def sentence(self, now_ns: int) -> Sentence | None:
        """What has changed since the last sentence, the most important alone; it counts as said."""
        is_turning = self._open[_BLOCKED] and not self.is_blocked
        if is_turning or (self._steady[_PERSONS].is_turning and not self._open[_BLOCKED]):
            return None
        view = View(
            is_blocked=self.is_blocked,
            n_people=self._steady[_PERSONS].value,
            is_speaking=bool(self._steady[_SPEAKING].value),
            is_moving=self._is_moving(now_ns),
        )
        said = self._change(self._told, view)
        if view.n_people != self._told.n_people:
            # That somebody speaks is still to be said.
            view = replace(view, is_speaking=view.is_speaking and self._told.is_speaking)
        self._told = view
        if said is not None and view.is_blocked:
            self._begin()
        return said

    def _count(self, label: str) -> int:
        """How many there are at least: what lies over another may be the same, found twice.

        The largest come first: a head and an elbow lie apart, but both over the whole.
        """
        boxes = [self._boxes[one] for one in self._open[label] if one in self._boxes]
        apart: list[WireBox] = []
        for box in sorted(boxes, key=_area, reverse=True):
            if all(_overlap(box, other) < _SAME_OVERLAP for other in apart):
                apart.append(box)
        return len(apart) + len(self._open[label]) - len(boxes)

    def _has_left(self, now_ns: int) -> bool:
        """Whether who is lost was seen to go: it moved, and what was there is no more."""
        lately_ns = now_ns - secs_to_ns(self.settings.gone_secs)
        return all(
            lately_ns < self._on_ns.get(label, lately_ns) < now_ns for label in (_MOTION, _PRESENCE)
        )

    def _is_moving(self, now_ns: int) -> bool:
        steady = self._steady[_MOTION]
        return bool(steady.value) and now_ns - steady.since_ns >= secs_to_ns(_UNKNOWN_SECS)

    def _change(self, before: View, now: View) -> Sentence | None:
        if now.is_blocked:
            return None if before.is_blocked else self._say(BLOCKED, _BLOCKED)
        if now.n_people != before.n_people:
            return self._people(before.n_people, now.n_people)
        if now.is_speaking and not before.is_speaking and now.n_people:
            return self._say("A person is speaking.", _SPEAKING)
        if now.is_moving and not before.is_moving and not now.n_people:
            how = "moves" if self._open[_MOTION] else "moved"
            return self._say(f"Something {how}.", _MOTION)
        return self._say("The camera can see again.", _BLOCKED) if before.is_blocked else None

    def _people(self, before: int, now: int) -> Sentence:
        if not now:
            return self._say("Nobody is seen any more.", _PERSONS)
        if now == 1:
            text = "One person is in view." if before else "A person is in view."
            if not before and self._has_come():
                text = "A person comes into view."
        else:
            who = _COUNTED[now] if now < len(_COUNTED) else "Several people"
            text = f"{who} are in view."
        return self._say(text, _PERSONS)

    def _has_come(self) -> bool:
        """Whether who is found now was not there before: nothing moved at first, then one did."""
        moving = self._steady[_MOTION]
        if self._watched_ns is None or not moving.value:
            return False
        return moving.since_ns - self._watched_ns >= secs_to_ns(_WATCHED_SECS)

    def _say(self, text: str, label: str) -> Sentence:
        steady = self._steady[label]
        names = (_PERSONS, _FACES) if label == _PERSONS else (label,)
        scores = [score for name in names for score in self._open[name].values()]
        if steady.value:
            sure = max(scores or [self._top.get(name, 0.0) for name in names])
        else:
            sure = 1 - max([self._lost[name] for name in names if name in self._lost], default=1.0)
        return Sentence(text, steady.since_ns, sure)


def _area(one: WireBox) -> float:
    return one.width * one.height


def _overlap(one: WireBox, other: WireBox) -> float:
    """What they share, as a fraction of the smaller."""
    width = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    height = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    smaller = min(_area(one), _area(other))
    return max(0.0, width) * max(0.0, height) / smaller if smaller else 0.0
