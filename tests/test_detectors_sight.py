from collections.abc import Sequence

import numpy as np
import pytest

from mmstream.detectors.sight import Body, Sight
from mmstream.media import Box, Detection, ObjectSeries, Path, Scores, Series, Span

HALF = Box(0.25, 0.25, 0.5, 0.5)


def ms(instant: float) -> int:
    return round(instant * 1_000_000)


def known(
    *points: tuple[float, float], label: str = "face", track: int = 1, box: Box = HALF
) -> Scores:
    """Scores at milliseconds, each with its place where it is at least 0.5."""
    at_ns = np.array([ms(at) for at, _ in points], np.int64)
    series = Series(at_ns, np.array([value for _, value in points], np.float32))
    places = [
        Detection(label, ms(at), "video", "scripted", value, box, Path(track))
        for at, value in points
        if value >= 0.5
    ]
    span = Span(ms(points[0][0]), ms(points[-1][0]) + 1)
    one = ObjectSeries(label, track, series)
    return Scores("cam", 0, span, detections=tuple(places), objects=(one,))


def bodies(said: Sequence[Scores], at_ms: float) -> tuple[Body, ...]:
    sight = Sight()
    for one in said:
        sight.take(one)
    return sight.bodies(ms(at_ms))


def test_one_look_is_seen_and_two_are_believed() -> None:
    assert [one.is_steady for one in bodies([known((0, 0.75))], 400)] == [False]
    twice = known((0, 0.75), (500, 0.5))
    assert [(one.is_steady, one.score) for one in bodies([twice], 700)] == [(True, 0.75)]


@pytest.mark.parametrize(("at_ms", "n_seen"), [(-1, 0), (0, 1), (500, 1), (501, 0)])
def test_a_score_holds_for_half_a_second(at_ms: float, n_seen: int) -> None:
    assert len(bodies([known((0, 0.75))], at_ms)) == n_seen


def test_a_missed_look_is_bridged_and_one_who_left_is_gone() -> None:
    said = known((0, 0.75), (500, 0.75), (1000, 0.0), (1500, 0.0), (2000, 0.0), (2500, 0.0))
    assert [one.is_steady for one in bodies([said], 1100)] == [True]
    assert bodies([said], 2300) == ()
    assert bodies([known((0, 0.75)), known((2000, 0.0))], 2000) == ()


def test_who_tells_anew_is_believed() -> None:
    said = [known((0, 0.75), (500, 0.75)), known((0, 0.0), (500, 0.0))]
    assert bodies(said, 600) == ()


def test_a_person_is_told_only_where_the_face_is_not() -> None:
    face = known((0, 0.75), box=Box(0.45, 0.3, 0.1, 0.1))
    its_own = known((0, 0.75), label="person", track=5)
    other = known((0, 0.75), label="person", track=6, box=Box(0.8, 0.2, 0.1, 0.5))
    found = bodies([face, its_own, other], 100)
    assert [(one.label, one.path.track) for one in found] == [("face", 1), ("person", 6)]
    assert found[0].box == Box(0.45, 0.3, 0.1, 0.1)


def test_other_labels_are_nobody() -> None:
    assert bodies([known((0, 0.9), label="vehicle")], 100) == ()
