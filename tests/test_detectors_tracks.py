from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path as FilePath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmstream.clock import ManualClock
from mmstream.detectors.motion import MotionSettings
from mmstream.detectors.tracks import Tracker
from mmstream.media import NS_PER_SEC, Box, Detection, Path, secs_to_ns
from mmstream.sources.media import MediaFile, MediaSettings
from mmstream.stages import Load
from mmstream.windows import HopCutter, HopSettings

ASPECT = 16 / 9
MAX_LOST_SECS = 2.0
WALKER = 0.08, 0.32
"""Width and height of a person who walks: 0.107 picture widths as a square."""


@dataclass(frozen=True)
class Look:
    """One instant and what was found there."""

    at_ns: int
    found: tuple[Detection, ...]


def person(
    at_secs: float,
    x: float,
    y: float = 0.5,
    *,
    score: float = 0.9,
    size: tuple[float, float] = WALKER,
    label: str = "person",
) -> Detection:
    """A box around (x, y), as far as it lies in the picture."""
    left, right = (min(max(x + side * size[0] / 2, 0.0), 1.0) for side in (-1, 1))
    top, low = (min(max(y + side * size[1] / 2, 0.0), 1.0) for side in (-1, 1))
    box = Box(left, top, right - left, low - top)
    return Detection(label, secs_to_ns(at_secs), "video", "hog", score, box)


def look(at_secs: float, *found: Detection) -> Look:
    return Look(secs_to_ns(at_secs), found)


def follow(looks: Iterable[Look], tracker: Tracker | None = None) -> list[list[Detection]]:
    tracker = tracker or Tracker(max_lost_secs=MAX_LOST_SECS)
    return [list(tracker.update(one.at_ns, one.found)) for one in looks]


def numbers(seen: Sequence[Sequence[Detection]]) -> list[list[int | None]]:
    return [[one.path.track if one.path else None for one in found] for found in seen]


def walk(secs: Sequence[float], start: float, speed: float) -> list[Look]:
    return [look(at, person(at, start + speed * at)) for at in secs]


steps_secs = st.lists(st.sampled_from([0.25, 0.4, 0.5, 0.52, 0.8, 1.0, 3.0]), max_size=12)
places = st.lists(
    st.tuples(
        st.floats(0, 1), st.floats(0, 1), st.sampled_from([0.2, 0.45, 0.5, 0.9]), st.booleans()
    ),
    max_size=5,
)


@st.composite
def scenes(draw: st.DrawFn) -> list[Look]:
    """Anything: boxes anywhere, at irregular instants, of two labels."""
    looks, at_secs = [], 0.0
    for step in draw(steps_secs):
        at_secs += step
        found = [
            person(at_secs, x, y, score=score, label="face" if is_face else "person")
            for x, y, score, is_face in draw(places)
        ]
        looks.append(look(at_secs, *found))
    return looks


@given(scenes(), st.data())
def test_the_order_of_detections_does_not_matter(scene: list[Look], data: st.DataObject) -> None:
    turned = [replace(one, found=tuple(data.draw(st.permutations(one.found)))) for one in scene]
    for seen, other in zip(follow(scene), follow(turned), strict=True):
        assert Counter(seen) == Counter(other)


@given(scenes(), st.data())
def test_a_prefix_does_not_change_and_the_same_again_gives_the_same(
    scene: list[Look], data: st.DataObject
) -> None:
    n = data.draw(st.integers(0, len(scene)))
    whole = follow(scene)
    assert follow(scene[:n]) == whole[:n]
    assert follow(scene) == whole


@given(scenes())
def test_a_look_at_nothing_changes_nothing(scene: list[Look]) -> None:
    more = [two for one in scene for two in (Look(one.at_ns - 100_000_000, ()), one)]
    assert follow(more)[1::2] == follow(scene)


@given(scenes())
def test_numbers_are_never_used_again_and_each_is_at_one_place(scene: list[Look]) -> None:
    tracker, highest = Tracker(max_lost_secs=MAX_LOST_SECS), 0
    given_up: set[int] = set()
    seen_ns: dict[int, int] = {}
    for one in scene:
        before = {followed.path.track for followed in tracker.alive}
        found = tracker.update(one.at_ns, one.found)
        lost = list(tracker.lost())
        assert not given_up & set(lost)
        given_up |= set(lost)
        assert [replace(two, path=None) for two in found] == list(one.found)
        tracks = [two.path.track for two in found if two.path]
        assert len(set(tracks)) == len(tracks)
        assert not given_up & set(tracks)
        began = sorted(set(tracks) - before)
        assert began == list(range(highest + 1, highest + 1 + len(began)))
        highest += len(began)
        seen_ns |= dict.fromkeys(tracks, one.at_ns)
        assert all(two.path for two in found if two.score >= 0.5)
        assert all(two.score >= 0.5 for two in found if two.path and two.path.track in began)
        alive = {followed.path.track: followed.seen_ns for followed in tracker.alive}
        assert alive == {t: at for t, at in seen_ns.items() if t not in given_up}
        assert all(one.at_ns - at <= secs_to_ns(MAX_LOST_SECS) for at in alive.values())
    assert list(tracker.lost()) == []


@settings(max_examples=60)
@given(
    steps=st.lists(st.floats(0.3, 0.7), min_size=8, max_size=8),
    meet=st.floats(0.35, 0.65),
    speeds=st.tuples(st.floats(0.06, 0.14), st.floats(-0.14, -0.06)),
    apart=st.floats(0.03, 0.1),
    jitters=st.lists(st.floats(-0.006, 0.006), min_size=16, max_size=16),
)
def test_two_who_cross_keep_their_numbers(
    steps: list[float],
    meet: float,
    speeds: tuple[float, float],
    apart: float,
    jitters: list[float],
) -> None:
    looks, at_secs = [], 0.0
    half = sum(steps) / 2
    for n, step in enumerate(steps):
        at_secs += step
        xs = [meet + speed * (at_secs - half) for speed in speeds]
        right = person(at_secs, xs[0] + jitters[2 * n], 0.5 - apart / 2)
        left = person(at_secs, xs[1] + jitters[2 * n + 1], 0.5 + apart / 2)
        looks.append(look(at_secs, right, left))
    seen = follow(looks)
    assert numbers(seen) == [numbers(seen)[0]] * len(looks)
    directions = [one.path.direction_deg for one in seen[-1] if one.path]
    assert [round(deg / 180) % 2 for deg in directions if deg is not None] == [0, 1]


@given(gap_secs=st.floats(0.3, 4.0))
def test_who_is_away_for_longer_than_max_lost_secs_comes_back_as_another(gap_secs: float) -> None:
    looks = [look(at, person(at, 0.5)) for at in (0.0, 0.5, 1.0, 1.0 + gap_secs)]
    assert numbers(follow(looks))[-1] == [1 if gap_secs <= MAX_LOST_SECS else 2]


@pytest.mark.parametrize("speed", [0.05, 0.1, 0.15])
@pytest.mark.parametrize("hz", [1.0, 2.0, 5.0])
def test_a_walker_is_one_object_and_his_way_is_told(speed: float, hz: float) -> None:
    seen = follow(walk([n / hz for n in range(round(4 * hz))], 0.1, speed))
    assert {number for found in numbers(seen) for number in found} == {1}
    path = seen[-1][0].path
    assert path is not None
    assert path.speed == pytest.approx(speed, rel=0.15)
    assert path.direction_deg is not None
    assert min(path.direction_deg, 360 - path.direction_deg) < 1


@pytest.mark.parametrize(
    ("right", "down", "direction_deg"),
    [(0.1, 0, 0), (0, -0.1, 90), (-0.1, 0, 180), (0, 0.1, 270), (0.1, 0.1 * ASPECT, 315)],
)
def test_directions_are_those_on_the_screen(
    right: float, down: float, direction_deg: float
) -> None:
    looks = [
        look(at, person(at, 0.5 + right * at, 0.5 + down * at, size=(0.1, 0.2)))
        for at in (0.0, 0.5, 1.0, 1.5)
    ]
    path = follow(looks)[-1][0].path
    assert path is not None
    assert path.direction_deg == pytest.approx(direction_deg, abs=0.1)
    in_widths = (right**2 + (down / ASPECT) ** 2) ** 0.5
    assert path.speed == pytest.approx(in_widths)


@given(jitters=st.lists(st.floats(-0.01, 0.01), min_size=12, max_size=12))
def test_who_stands_goes_nowhere_however_his_box_jitters(jitters: list[float]) -> None:
    looks = [look(n / 2, person(n / 2, 0.5 + jitter)) for n, jitter in enumerate(jitters)]
    for found in follow(looks):
        (path,) = [one.path for one in found]
        assert path is not None
        assert (path.track, path.direction_deg, path.speed) == (1, None, 0)


def test_a_weak_one_carries_a_track_on_but_begins_none() -> None:
    scores = [0.4, 0.9, 0.3, 0.1, 0.9]
    looks = [look(n / 2, person(n / 2, 0.3 + n / 40, score=s)) for n, s in enumerate(scores)]
    assert numbers(follow(looks)) == [[None], [1], [1], [1], [1]]


def test_a_weak_one_is_not_somebody_who_was_not_seen_for_long() -> None:
    for score, number in ((0.4, None), (0.6, 1)):
        looks = [look(0, person(0, 0.5)), look(1.2, person(1.2, 0.5, score=score))]
        assert numbers(follow(looks)) == [[1], [number]]


def test_strong_ones_choose_first() -> None:
    strong, weak = person(0.5, 0.52, score=0.6), person(0.5, 0.5, score=0.49)
    seen = follow([look(0, person(0, 0.5)), look(0.5, weak, strong)])
    assert numbers(seen)[-1] == [None, 1]


def test_nobody_takes_the_number_of_another() -> None:
    standing = [look(n / 2, person(n / 2, 0.3)) for n in range(4)]
    # Who stood there is not seen, and somebody is found three steps aside, or someone far larger.
    aside, near = look(2.0, person(2.0, 0.55)), look(2.0, person(2.0, 0.3, size=(0.3, 0.9)))
    face = look(2.0, person(2.0, 0.3, label="face"))
    for other in (aside, near, face):
        assert numbers(follow([*standing, other]))[-1] == [2]
    # What is larger than the picture cannot become small; what comes in at the edge grows.
    sizes = [(0.3, 1.0), (0.1, 0.35)]
    shrinks = [look(n / 2, person(n / 2, 0.5, size=size)) for n, size in enumerate(sizes)]
    assert numbers(follow(shrinks)) == [[1], [2]]
    for y, size in ((0.17, (0.1, 0.34)), (0.05, (0.1, 0.1))):
        falls = [*shrinks[:1], look(0.5, person(0.5, 0.5, y, size=size))]
        assert numbers(follow(falls)) == [[1], [2]]
    comes = [look(n / 2, person(n / 2, 0.05 * n, size=(0.16, 0.5))) for n in range(4)]
    assert numbers(follow(comes)) == [[1]] * 4
    # He is back: the same again, while the other has his own.
    back = look(2.5, person(2.5, 0.55), person(2.5, 0.3))
    assert numbers(follow([*standing, aside, back]))[-1] == [2, 1]


def test_what_is_not_seen_is_told_where_it_should_be() -> None:
    tracker = Tracker(max_lost_secs=MAX_LOST_SECS)
    assert list(tracker.alive) == []
    follow(walk([0.0, 0.5, 1.0, 1.5], 0.2, 0.1), tracker)
    # He coasts for a second, and is then believed to stay.
    for at_secs, x in ((2.0, 0.4), (2.5, 0.45), (3.5, 0.45)):
        tracker.update(secs_to_ns(at_secs), ())
        (followed,) = tracker.alive
        assert followed.seen_ns == secs_to_ns(1.5)
        assert followed.box.x + followed.box.width / 2 == pytest.approx(x, abs=0.01)
        assert followed.box.height == pytest.approx(WALKER[1])
    assert list(tracker.lost()) == []
    tracker.update(secs_to_ns(3.6), ())
    assert [list(tracker.alive), *(list(tracker.lost()) for _ in range(2))] == [[], [1], []]


def test_who_walks_out_of_the_picture_is_told_inside_it() -> None:
    tracker = Tracker(max_lost_secs=MAX_LOST_SECS)
    follow(walk([0.0, 0.5, 1.0], 0.7, 0.2), tracker)
    tracker.update(secs_to_ns(2.5), ())
    (followed,) = tracker.alive
    assert followed.box.x + followed.box.width == pytest.approx(1)


def test_looks_come_in_order_and_with_boxes() -> None:
    tracker = Tracker(max_lost_secs=MAX_LOST_SECS)
    follow([look(1.0, person(1.0, 0.5))], tracker)
    with pytest.raises(ValueError, match="looks come in order"):
        tracker.update(NS_PER_SEC, ())
    with pytest.raises(ValueError, match="has a box"):
        tracker.update(2 * NS_PER_SEC, [replace(person(2.0, 0.5), box=None)])


@pytest.fixture(scope="module")
def car_looks(data_dir: FilePath) -> list[Look]:
    """The boxes of `motion` on cars that pass, each time it looked."""
    url = str(data_dir / "surveillance" / "car_detection.mp4")
    cutter = HopCutter("cam", HopSettings(), live=False)
    scorer = MotionSettings().build("cpu")
    with MediaFile("cam", MediaSettings(url=url, pace="max"), ManualClock()).read() as items:
        hops = [hop for item in items for hop in cutter.push(item)]
    looks = []
    for scores in scorer.score([*hops, *cutter.flush()], (), Load.FULL):
        series = scores.outputs.get("motion")
        for at_ns in [] if series is None else series.at_ns.tolist():
            found = [one for one in scores.detections if one.at_ns == at_ns]
            looks.append(Look(at_ns, tuple(found)))
    return looks


def thinned(looks: Sequence[Look], hz: float) -> list[Look]:
    """The first in each period."""
    slots = [int(one.at_ns * hz) // NS_PER_SEC for one in looks]
    is_first = [True, *(before != slot for before, slot in pairwise(slots))]
    return [one for one, first in zip(looks, is_first, strict=True) if first]


@dataclass(frozen=True)
class Car:
    """One that passes, read by eye: cars go down on the left and up on the right."""

    from_secs: float
    to_secs: float
    direction_deg: float

    def paths(self, seen: Sequence[Sequence[Detection]]) -> list[Path]:
        """Of the largest box in its lane at each look; one that holds two cars is in neither."""
        paths = []
        for found in seen:
            own = [one for one in found if self._may_be(one)]
            own.sort(key=lambda one: -_box(one).width * _box(one).height)
            paths += [one.path for one in own[:1] if one.path is not None]
        return paths

    def _may_be(self, one: Detection) -> bool:
        box = _box(one)
        is_on_the_left = box.x + box.width / 2 < 0.36
        return (
            self.from_secs <= one.at_ns / NS_PER_SEC <= self.to_secs
            and is_on_the_left == (self.direction_deg == 270)
            and box.width * box.height > 0.03
            and box.width < 0.3
        )


def _box(one: Detection) -> Box:
    assert one.box is not None
    return one.box


CARS = Car(4, 9, 90), Car(14, 18.4, 270), Car(14.9, 19.2, 90), Car(25, 28, 270)


@pytest.mark.parametrize("hz", [2.0, 5.0])
def test_who_passes_alone_is_one_object_and_nobody_takes_the_number_of_another(
    car_looks: list[Look], hz: float
) -> None:
    seen = follow(thinned(car_looks, hz), Tracker(max_lost_secs=1.5))
    tracks = []
    for car in CARS:
        paths = car.paths(seen)
        assert len(paths) >= 2 * hz
        tracks.append({path.track for path in paths})
        told = [path.direction_deg for path in paths if path.direction_deg is not None]
        assert len(told) >= len(paths) / 2
        assert all(abs(deg - car.direction_deg) < 35 for deg in told)
        assert abs(told[-1] - car.direction_deg) < 15
    assert len(set.union(*tracks)) == sum(len(one) for one in tracks)
    # Those two are one patch of foreground for a while, and then pieces of it.
    met = tracks[1:3]
    assert [len(one) for one in tracks if one not in met] == [1, 1]
    assert all(len(one) <= 2 for one in met)
