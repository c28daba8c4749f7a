"""Who is in sight: the faces and persons that other detectors follow, at any instant."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from mmstream.media import NS_PER_SEC, Box, Detection, Path, Scores, Series

FACE: Final = "face"
PERSON: Final = "person"
HOLD_NS: Final = NS_PER_SEC // 2
"""A score says something for so long, as in the events head."""

_DECISION: Final = 0.5
_WITHIN_NS: Final = 3 * NS_PER_SEC // 2
_STEADY_NS: Final = 3 * NS_PER_SEC // 5
"""Twice a second is looked: seen in two looks of the last three."""
_FORGET_NS: Final = 3 * NS_PER_SEC


@dataclass(frozen=True, slots=True)
class Body:
    """A face or a person, at one instant."""

    label: str
    score: float
    path: Path
    box: Box | None
    is_steady: bool
    """Seen for long enough to be believed."""

    def holds(self, other: "Body") -> bool:
        """Whether the middle of `other` lies in this one's box."""
        if self.box is None or other.box is None:
            return False
        x, y = other.box.x + other.box.width / 2, other.box.y + other.box.height / 2
        across = self.box.x <= x <= self.box.x + self.box.width
        return across and self.box.y <= y <= self.box.y + self.box.height


@dataclass(slots=True)
class _Object:
    """What was last said of one face or person."""

    scores: deque[tuple[int, float]] = field(default_factory=deque)
    places: deque[Detection] = field(default_factory=deque)

    def take(self, series: Series) -> None:
        """Scores that tell anew of the time from their first on."""
        while self.scores and series.at_ns.size and self.scores[-1][0] >= series.at_ns[0]:
            self.scores.pop()
        self.scores.extend(points(series))

    def body(self, label: str, track: int, at_ns: int) -> Body | None:
        """It at an instant: seen in the last looks, whether or not in the very last."""
        on_ns, score, end_ns = 0, 0.0, at_ns
        is_newest = True
        for start_ns, value in reversed(self.scores):
            if start_ns > at_ns:
                continue
            if at_ns - start_ns > (HOLD_NS if is_newest else _WITHIN_NS):
                break
            is_newest = False
            if value >= _DECISION:
                on_ns += min(end_ns - start_ns, HOLD_NS)
                score = max(score, value)
            end_ns = start_ns
        if score < _DECISION:
            return None
        place = next((one for one in reversed(self.places) if one.at_ns <= at_ns), None)
        path, box = (place.path, place.box) if place else (None, None)
        return Body(label, score, path or Path(track), box, is_steady=on_ns >= _STEADY_NS)

    def drop_before(self, at_ns: int) -> bool:
        """Let go of what is old; gives whether anything is left."""
        while self.scores and self.scores[0][0] < at_ns:
            self.scores.popleft()
        while self.places and self.places[0].at_ns < at_ns:
            self.places.popleft()
        return bool(self.scores)


@dataclass(slots=True)
class Sight:
    """Who is in sight of one source."""

    _objects: dict[tuple[str, int], _Object] = field(default_factory=dict)

    def take(self, known: Scores) -> None:
        """What was said of persons and faces in a hop."""
        for one in known.objects:
            if one.label in (FACE, PERSON):
                key = one.label, one.track
                self._objects.setdefault(key, _Object()).take(one.series)
        for place in known.detections:
            if place.path is not None and (place.label, place.path.track) in self._objects:
                self._objects[place.label, place.path.track].places.append(place)
        oldest_ns = known.span.start_ns - _FORGET_NS
        self._objects = {k: one for k, one in self._objects.items() if one.drop_before(oldest_ns)}

    def bodies(self, at_ns: int) -> tuple[Body, ...]:
        """Faces, and persons whose face is not among them."""
        found = [one.body(*key, at_ns) for key, one in self._objects.items()]
        seen = [body for body in found if body is not None]
        faces = [body for body in seen if body.label == FACE]
        others = [body for body in seen if body.label != FACE]
        return (*faces, *(one for one in others if not any(map(one.holds, faces))))


def points(series: Series) -> list[tuple[int, float]]:
    """(at_ns, value) of each."""
    return list(zip(series.at_ns.tolist(), series.values.tolist(), strict=True))
