from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmstream.codecs import image_from_array
from mmstream.detectors.looking import (
    ANY,
    WHOLE,
    Cadence,
    Found,
    Glances,
    Heights,
    LookingScorer,
)
from mmstream.media import (
    NS_PER_SEC,
    Box,
    Bytes,
    Detection,
    Hop,
    Label,
    Scores,
    Span,
    VideoFrame,
)
from mmstream.stages import Load

THING = Label("thing", "video", "scripted")
HOP_NS = NS_PER_SEC // 4
FPS = 20
HERE = Box(0.25, 0.25, 0.25, 0.5)
THERE = Box(0.75, 0.25, 0.125, 0.25)
PICTURE = image_from_array(np.zeros((90, 160), np.uint8), "gray")


@dataclass
class Script:
    """Finds what `finds` says of its n-th call, and remembers where it was told to look."""

    finds: Callable[[int], Sequence[Found]]
    regions: list[Sequence[Box]] = field(default_factory=list)
    heights: list[Heights] = field(default_factory=list)

    def find(self, luma: Bytes, regions: Sequence[Box], heights: Heights = ANY) -> Sequence[Found]:
        assert luma.shape == (90, 160)
        self.regions.append(regions)
        self.heights.append(heights)
        return self.finds(len(self.regions) - 1)


def always(*found: Found) -> Script:
    return Script(lambda _: found)


def scorer_of(script: Script, glances: Glances | None = None, **changed: float) -> LookingScorer:
    values = {"looks_per_sec": 2.0, "max_area_per_sec": 100.0, "max_lost_secs": 1.2, **changed}
    cadence = Cadence(
        looks_per_sec=values["looks_per_sec"],
        max_area_per_sec=values["max_area_per_sec"],
        only_foreground=bool(values.get("only_foreground", True)),
        margin=(1, 1),
        max_lost_secs=values["max_lost_secs"],
        glances=glances,
    )
    return LookingScorer(THING, script, cadence)


def hops_of(secs: float, source: str = "cam", hop_ns: int = HOP_NS) -> list[Hop]:
    nothing = np.zeros(0, np.float32), np.zeros(0, np.bool_)
    hops = []
    for index in range(round(secs * NS_PER_SEC / hop_ns)):
        span = Span(index * hop_ns, (index + 1) * hop_ns)
        instants = [n * NS_PER_SEC // FPS for n in range(round(secs * FPS))]
        frames = [VideoFrame(source, at, PICTURE) for at in instants if span.contains(at)]
        hops.append(Hop(source, index, span, 16_000, *nothing, tuple(frames)))
    return hops


def said_of(hop: Hop, *boxes: Box, label: str = "motion") -> Scores:
    """As the scorers before say it of each picture."""
    found = [
        Detection(label, frame.start_ns, "video", label, 0.9, box)
        for frame in hop.frames
        for box in boxes
    ]
    return Scores(hop.source, hop.index, hop.span, detections=tuple(found))


def run(
    scorer: LookingScorer, hops: Sequence[Hop], *boxes: Box, load: Load = Load.FULL
) -> list[Scores]:
    return [scorer.score([hop], [said_of(hop, *boxes)], load)[0] for hop in hops]


def points(scores: Sequence[Scores], track: int = 1) -> dict[int, float]:
    """Milliseconds -> score."""
    return {
        at_ns // 1_000_000: round(value, 4)
        for one in scores
        for thing in one.objects
        if thing.track == track
        for at_ns, value in zip(
            thing.series.at_ns.tolist(), thing.series.values.tolist(), strict=True
        )
    }


def looks_ms(scores: Sequence[Scores]) -> list[int]:
    return [found.at_ns // 1_000_000 for one in scores for found in one.detections]


def test_with_nothing_in_front_nobody_looks() -> None:
    script = always(Found(HERE, 0.9))
    scores = run(scorer_of(script), hops_of(3))
    assert script.regions == []
    assert all(not one.objects and not one.detections and not one.outputs for one in scores)


@pytest.mark.parametrize("label", ["motion", "presence"])
def test_what_is_in_front_is_looked_at_with_a_margin(label: str) -> None:
    script, hops = always(), hops_of(1)
    scorer = scorer_of(script)
    for hop in hops:
        scorer.score([hop], [said_of(hop, HERE, THERE, label=label)], Load.FULL)
    assert len(script.regions) == 2
    grown = [
        Box(x - 1 / 32, y - 1 / 18, w + 2 / 32, h + 2 / 18)
        for x, y, w, h in ((0.25, 4 / 18, 0.25, 10 / 18), (0.75, 4 / 18, 0.125, 5 / 18))
    ]
    for region, expected in zip(script.regions[0], grown, strict=True):
        for side in ("x", "y", "width", "height"):
            assert getattr(region, side) == pytest.approx(getattr(expected, side))


def test_what_others_say_is_not_in_front() -> None:
    script, hops = always(), hops_of(1)
    scorer = scorer_of(script)
    for hop in hops:
        scorer.score([hop], [said_of(hop, HERE, label="face")], Load.FULL)
    assert script.regions == []


def test_scores_are_told_at_looks_and_again_at_the_end_of_each_hop() -> None:
    scores = run(scorer_of(always(Found(HERE, 0.8))), hops_of(1), HERE)
    assert looks_ms(scores) == [0, 500]
    assert points(scores) == dict.fromkeys([0, 200, 450, 500, 700, 950], 0.8)
    (first, *_) = [found for one in scores for found in one.detections]
    assert (first.label, first.detector, first.box) == ("thing", "scripted", HERE)
    assert first.path is not None
    assert first.path.track == 1


def test_what_is_not_found_again_scores_0_until_it_is_lost() -> None:
    script = Script(lambda n: [Found(HERE, 0.8)] if n == 0 else [])
    scores = run(scorer_of(script), hops_of(4), HERE)
    told = points(scores)
    assert [at for at, value in told.items() if value > 0] == [0, 200, 450]
    # Looks at 0.5 and 1.0 s miss it; at 1.5 s it has been gone for more than 1.2 s.
    assert max(told) == 1450


def test_a_weak_one_begins_nothing_but_keeps_what_is_known() -> None:
    assert points(run(scorer_of(always(Found(HERE, 0.4))), hops_of(2), HERE)) == {}
    script = Script(lambda n: [Found(HERE, 0.8 if n == 0 else 0.4)])
    told = points(run(scorer_of(script), hops_of(4), HERE))
    assert (told[0], told[500], told[3500]) == (0.8, 0.4, 0.4)


def test_what_is_only_in_the_margin_is_not_believed() -> None:
    beside = Box(0.5, 0.25, 0.03, 0.5)
    scores = run(scorer_of(always(Found(beside, 0.9))), hops_of(2), HERE)
    assert points(scores) == {}


def test_of_two_that_are_the_same_the_stronger_stays() -> None:
    nearly = Box(0.26, 0.25, 0.25, 0.5)
    head = Box(0.3, 0.25, 0.1, 0.1)
    script = always(Found(nearly, 0.7), Found(HERE, 0.9), Found(head, 0.6), Found(THERE, 0.6))
    scores = run(scorer_of(script), hops_of(0.25), HERE, THERE)
    assert [found.box for found in scores[0].detections] == [HERE, THERE]


def test_much_in_front_is_searched_less_often_but_what_is_known_is_checked() -> None:
    idle = always()
    run(scorer_of(idle, max_area_per_sec=0.5), hops_of(8), WHOLE)
    assert idle.regions == [[WHOLE]] * 4
    script = always(Found(HERE, 0.9))
    scores = run(scorer_of(script, max_area_per_sec=0.5), hops_of(4), WHOLE)
    assert looks_ms(scores) == list(range(0, 4000, 500))
    sizes = [sum(one.width * one.height for one in regions) for regions in script.regions]
    assert [size == 1 for size in sizes] == [True, False, False, False] * 2
    assert max(size for size in sizes if size < 1) < 0.3
    # Who is checked has about the height that was seen before.
    checks = [one for one, size in zip(script.heights, sizes, strict=True) if size < 1]
    assert all(0.8 * HERE.height < one.least < HERE.height < one.most for one in checks)
    assert [one for one in script.heights if one == ANY] == [ANY, ANY]


def test_under_load_looks_are_half_as_often_and_ingesting_says_nothing() -> None:
    scorer = scorer_of(always(Found(HERE, 0.8)))
    assert looks_ms(run(scorer, hops_of(2), HERE, load=Load.STRETCHED)) == [0, 1000]
    script = always(Found(HERE, 0.8))
    scorer = scorer_of(script)
    hops = hops_of(2)
    assert not any(one.objects for one in run(scorer, hops[:4], HERE, load=Load.INGEST))
    assert script.regions == []
    # What was in front while it only ingested is remembered.
    assert looks_ms(run(scorer, hops[4:5])) == [1000]


def test_a_glance_finds_what_is_in_front_of_nothing_and_it_is_checked_from_then_on() -> None:
    script, wide = always(Found(HERE, 0.8)), always(Found(HERE, 0.9))
    scores = run(scorer_of(script, Glances(wide, every_secs=2.0)), hops_of(4))
    assert wide.regions == [[WHOLE]] * 2
    assert looks_ms(scores) == list(range(0, 4000, 500))
    assert len(script.regions) == 7
    assert points(scores)[3500] == 0.8


def test_without_a_foreground_all_of_the_picture_is_searched() -> None:
    script = always(Found(HERE, 0.8))
    scores = run(scorer_of(script, only_foreground=False), hops_of(1))
    assert script.regions == [[WHOLE]] * 2
    assert looks_ms(scores) == [0, 500]


def test_after_lost_time_nothing_stands_until_it_is_seen_again() -> None:
    scorer = scorer_of(always(Found(HERE, 0.8)), looks_per_sec=1.0)
    first, second, *_ = hops_of(1)
    run(scorer, [first], HERE)
    late = Hop(
        "cam", 1, second.span, 16_000, second.samples, second.heard, second.frames, gap_before=True
    )
    assert run(scorer, [late], HERE)[0].objects == ()


def test_without_pictures_there_is_nothing_to_say() -> None:
    silence, unheard = np.zeros(0, np.float32), np.zeros(0, np.bool_)
    hop = Hop("cam", 0, Span(0, HOP_NS), 16_000, silence, unheard, ())
    (scores,) = run(scorer_of(always(Found(HERE, 0.8))), [hop], HERE)
    assert (scores.objects, scores.detections) == ((), ())


def test_sources_do_not_touch_each_other_and_forgetting_begins_anew() -> None:
    scorer = scorer_of(always(Found(HERE, 0.8)))
    alone = run(scorer_of(always(Found(HERE, 0.8))), hops_of(2), HERE)
    both = [
        scorer.score([cam, other], [said_of(cam, HERE), said_of(other)], Load.FULL)
        for cam, other in zip(hops_of(2), hops_of(2, "other"), strict=True)
    ]
    assert [points([cam]) for cam, _ in both] == [points([one]) for one in alone]
    assert not any(other.objects for _, other in both)
    scorer.forget("cam")
    scorer.forget("never seen")
    assert looks_ms(run(scorer, hops_of(1), HERE)) == [0, 500]


@settings(max_examples=25)
@given(
    places=st.lists(
        st.lists(st.tuples(st.floats(0, 0.7), st.floats(0, 0.4), st.floats(0.2, 1)), max_size=3),
        min_size=16,
        max_size=16,
    ),
    n_first=st.integers(1, 15),
)
def test_the_same_gives_the_same_and_a_prefix_does_not_change(
    places: list[list[tuple[float, float, float]]], n_first: int
) -> None:
    def scored(n: int) -> list[Scores]:
        script = Script(
            lambda n: [Found(Box(x, y, 0.2, 0.5), score) for x, y, score in places[n % 16]]
        )
        return run(scorer_of(script), hops_of(4)[:n], WHOLE)

    def told(scores: Sequence[Scores]) -> list[list[tuple[int, list[int], list[float]]]]:
        return [
            [(o.track, o.series.at_ns.tolist(), o.series.values.tolist()) for o in one.objects]
            for one in scores
        ]

    everything = scored(16)
    assert told(scored(16)) == told(everything)
    assert told(scored(n_first)) == told(everything)[:n_first]
    assert all(
        found.path is not None and found.path.track in {o.track for o in one.objects}
        for one in everything
        for found in one.detections
    )
