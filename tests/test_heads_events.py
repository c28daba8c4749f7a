"""Scores become the life of events: in time, dated back, ended always."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams import BEEP, FLASH, ms, series, started

from mmstream.errors import StateError
from mmstream.heads.events import EventHead, HeadItem, Tuning, event_id
from mmstream.heads.lifecycle import LabelSettings
from mmstream.media import (
    Box,
    Detection,
    Fused,
    Label,
    ObjectSeries,
    Path,
    Scores,
    Series,
    SourceEnded,
    SourceStalled,
    Span,
    secs_to_ns,
)
from mmstream.messages import Contribution, Decided, Event, Evidence, WireBox

UTC_NS = 1_700_000_000_250_000_000


def head(
    settings: LabelSettings | None = None,
    *,
    labels: Sequence[Label] = (BEEP,),
    utc_offset_ns: int = 0,
) -> EventHead:
    per_label = {} if settings is None else {label.name: settings for label in labels}
    made = EventHead(node="home", source="cam", labels=labels, settings=per_label)
    made.push(started(utc_offset_ns=utc_offset_ns))
    return made


def scores(
    span_ms: tuple[float, float],
    outputs: Mapping[str, Series],
    detections: Sequence[Detection] = (),
) -> Scores:
    start_ns, end_ns = (ms(at) for at in span_ms)
    return Scores("cam", 0, Span(start_ns, end_ns), outputs, tuple(detections))


def feed(
    stage: EventHead,
    points: Sequence[tuple[float, float]],
    *,
    until_ms: float,
    hop_ms: float = 250,
) -> list[Decided]:
    """Scores of `beep` (milliseconds, value), hop by hop."""
    decided: list[Decided] = []
    start = points[0][0] // hop_ms * hop_ms
    while start < until_ms:
        here = [(at, value) for at, value in points if start <= at < start + hop_ms]
        outputs = {BEEP.name: series(*here)} if here else {}
        decided += stage.push(scores((start, start + hop_ms), outputs))
        start += hop_ms
    return decided


def every(
    step_ms: float, start_ms: float, end_ms: float, value: float
) -> list[tuple[float, float]]:
    """The same value again and again."""
    return [(at, value) for at in np.arange(start_ms, end_ms, step_ms).tolist()]


def events(decided: Sequence[Decided]) -> list[Event]:
    contents = [one.content for one in decided]
    assert all(isinstance(content, Event) for content in contents)
    return [content for content in contents if isinstance(content, Event)]


def told(decided: Sequence[Decided]) -> list[tuple[str, float]]:
    """(type, t_start of a start, else t_end or 0) of each."""
    return [
        (one.type, one.t_start if one.type == "start" else one.t_end or 0)
        for one in events(decided)
    ]


def test_an_event_starts_when_it_was_on_for_long_enough_and_is_dated_back() -> None:
    stage = head()
    decided = feed(stage, [(0, 0.1), *every(50, 500, 1000, 0.8)], until_ms=1000)
    assert told(decided) == [("start", 0.5)]
    assert decided[0].at_ns == ms(700)  # 0.2 s later: the instant at which it was enough
    assert events(decided)[0].score == 0.8


def test_too_short_is_no_event() -> None:
    points = [(0, 0.1), *every(50, 500, 650, 0.8), *every(50, 650, 3000, 0.1)]
    assert feed(head(), points, until_ms=3000) == []


def test_on_time_is_summed_over_breaks_within_the_window() -> None:
    points = [(0, 0.1), (500, 0.9), (600, 0.1), (750, 0.9), (900, 0.1)]
    decided = feed(head(), points, until_ms=1000)
    assert told(decided) == [("start", 0.5)]
    assert decided[0].at_ns == ms(850)  # 100 ms and 100 ms


def test_on_time_before_the_window_does_not_count() -> None:
    # Window 500 ms, 200 ms needed: 100 ms at 0, at 450 and at 1000 ms are never together.
    points = [(0, 0.9), (100, 0.1), (475, 0.9), (575, 0.1), (1000, 0.9), (1100, 0.1)]
    assert feed(head(), points, until_ms=2000) == []


def test_a_stretch_that_left_the_window_is_not_in_the_start() -> None:
    points = [(0, 0.9), (100, 0.1), (500, 0.9)]
    decided = feed(head(), points, until_ms=1000)
    assert told(decided) == [("start", 0.5)]
    assert decided[0].at_ns == ms(700)


def test_the_strongest_moment_of_a_start_lies_in_it() -> None:
    points = [(0, 0.99), (100, 0.1), (500, 0.6), (600, 0.7)]
    [event] = events(feed(head(), points, until_ms=1000))
    assert event.top_score == 0.7
    assert [one.t_start for one in event.evidence] == [0.6]


@pytest.mark.parametrize("hop_ms", [20, 250, 1000, 4000])
def test_stamps_do_not_depend_on_how_scores_are_cut(hop_ms: float) -> None:
    settings = LabelSettings(for_secs=0.2, within_secs=0.3, min_off_secs=0.4)
    points = [(0, 0.1), (280, 0.9), (700, 0.1), (1640, 0.9), (1900, 0.2), (3000, 0.1)]
    decided = feed(head(settings), points, until_ms=4000, hop_ms=hop_ms)
    assert told(decided) == [("start", 0.28), ("end", 0.7), ("start", 1.64), ("end", 1.9)]
    assert [one.at_ns for one in decided] == [ms(480), ms(1100), ms(1840), ms(2300)]


def test_a_score_between_off_and_on_keeps_an_event_but_starts_none() -> None:
    stage = head(LabelSettings(on=0.6, off=0.3))
    assert feed(stage, every(50, 0, 2000, 0.5), until_ms=2000) == []
    points = [*every(50, 2000, 2500, 0.7), *every(50, 2500, 6000, 0.31)]
    assert told(feed(stage, points, until_ms=6000)) == [("start", 2.0)]


def test_a_short_break_is_bridged_and_a_long_one_ends_it_where_it_began() -> None:
    stage = head(LabelSettings(min_off_secs=1.0))
    points = [
        *every(50, 0, 1000, 0.8),
        *every(50, 1000, 1950, 0.1),
        *every(50, 1950, 2500, 0.8),
        *every(50, 2500, 4000, 0.1),
    ]
    decided = feed(stage, points, until_ms=4000)
    assert told(decided) == [("start", 0.0), ("end", 2.5)]
    end = events(decided)[1]
    assert end.end_reason == "quiet"
    assert end.score == 0.0
    assert decided[1].at_ns == ms(3500)


def test_an_event_lasts_at_least_min_on() -> None:
    stage = head(LabelSettings(min_on_secs=2.0, min_off_secs=0.5))
    points = [*every(50, 0, 300, 0.8), *every(50, 300, 4000, 0.1)]
    decided = feed(stage, points, until_ms=4000)
    assert told(decided) == [("start", 0.0), ("end", 2.0)]
    assert decided[1].at_ns == ms(2500)


def test_an_event_that_is_cut_off_does_not_end_in_the_future() -> None:
    stage = head(LabelSettings(min_on_secs=10))
    feed(stage, every(50, 0, 1000, 0.8), until_ms=1000)
    assert told(stage.push(SourceEnded("cam"))) == [("end", 1.0)]


def test_with_for_secs_zero_one_score_is_enough() -> None:
    stage = head(LabelSettings(for_secs=0, min_off_secs=0))
    decided = feed(stage, [(0, 0.1), (100, 0.5), (110, 0.1)], until_ms=250)
    assert told(decided) == [("start", 0.1), ("end", 0.11)]
    assert decided[0].at_ns == ms(100)


def test_an_update_comes_only_when_the_top_score_rose_and_not_too_often() -> None:
    stage = head(LabelSettings(update_secs=1.0))
    rising = [(at, 0.6 + at / 20_000) for at in range(0, 6000, 50)]  # 0.05 in each second
    decided = feed(stage, [*rising, *every(50, 6000, 12_000, 0.7)], until_ms=12_000)
    assert [event.type for event in events(decided)] == ["start"] + ["update"] * 5
    scores_told = [event.top_score for event in events(decided)]
    assert (np.diff(scores_told[1:]).round(4) >= 0.05).all()
    assert scores_told[-1] == 0.86  # the rise to 0.8975 after it is less than 0.05
    assert (np.diff([one.at_ns for one in decided]) >= ms(1000)).all()


def test_a_fast_rise_is_not_told_step_by_step() -> None:
    stage = head(LabelSettings(update_secs=1.0))
    rising = [(at, 0.5 + at / 6_000) for at in range(0, 3_000, 100)]
    decided = feed(stage, rising, until_ms=3_000)
    assert [one.at_ns for one in decided] == [ms(200), ms(1_200), ms(2_200)]


def test_without_a_change_there_is_no_update() -> None:
    decided = feed(head(), every(50, 0, 10_000, 0.8), until_ms=10_000)
    assert told(decided) == [("start", 0.0)]


def boxed(at: float, x: float, score: float) -> Detection:
    return Detection(FLASH.name, ms(at), "video", "scripted", score, Box(x, 0.1, 0.2, 0.2))


@pytest.mark.parametrize(("x", "is_told"), [(0.5, True), (0.12, False)])
def test_a_stronger_box_somewhere_else_is_an_update(x: float, *, is_told: bool) -> None:
    stage = head(labels=(FLASH,))
    first = scores((0, 1250), {"flash": series((0, 0.8))}, [boxed(0, 0.1, 0.8)])
    assert told(stage.push(first)) == [("start", 0.0)]
    moved = scores((400, 1500), {"flash": series((450, 0.81))}, [boxed(450, x, 0.81)])
    decided = stage.push(moved)
    later = stage.push(scores((1500, 1750), {"flash": series((1500, 0.7))}))
    assert [one.type for one in events([*decided, *later])] == ["update"] * is_told


def test_a_score_holds_for_half_a_second_then_nothing_is_known() -> None:
    stage = head(LabelSettings(for_secs=0.6, within_secs=5))
    assert feed(stage, [(0, 0.9)], until_ms=3000) == []
    decided = feed(stage, [(3000, 0.9)], until_ms=3250)
    assert told(decided) == [("start", 0.0)]
    assert decided[0].at_ns == ms(3100)


def test_when_no_scores_come_an_event_ends_half_a_second_after_the_last() -> None:
    decided = feed(head(), every(50, 0, 1000, 0.9), until_ms=5000)
    assert told(decided) == [("start", 0.0), ("end", 1.45)]


def test_an_event_does_not_reach_over_a_jump() -> None:
    stage = head()
    feed(stage, every(50, 0, 1000, 0.9), until_ms=1000)
    decided = feed(stage, every(50, 30_000, 31_000, 0.9), until_ms=31_000)
    assert told(decided) == [("end", 1.45), ("start", 30.0)]


def test_hops_that_were_not_scored_do_not_end_an_event_at_once() -> None:
    stage = head()
    feed(stage, every(50, 0, 1000, 0.9), until_ms=1000)
    unscored = [scores((at, at + 250), {}) for at in (1000, 1250)]
    assert [one for item in unscored for one in stage.push(item)] == []
    assert feed(stage, every(50, 1500, 4000, 0.9), until_ms=4000) == []


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (SourceEnded("cam"), "source_ended"),
        (SourceStalled("cam", 0), "source_stalled"),
        (started(), "source_ended"),
        (None, "shutdown"),
    ],
)
def test_an_end_always_comes(item: HeadItem | None, reason: str) -> None:
    stage = head()
    feed(stage, every(50, 0, 1000, 0.9), until_ms=1000)
    decided = stage.flush() if item is None else stage.push(item)
    assert told(decided) == [("end", 1.0)]
    [event] = events(decided)
    assert (event.end_reason, event.score, event.top_score) == (reason, 0.9, 0.9)
    assert decided[0].at_ns == ms(1000)
    assert list(stage.flush()) == []


def test_nothing_open_nothing_ends() -> None:
    stage = head()
    feed(stage, every(50, 0, 100, 0.9), until_ms=100, hop_ms=50)
    assert list(stage.push(SourceEnded("cam"))) == []
    assert list(stage.flush()) == []


def test_an_end_while_it_was_quiet_is_dated_back() -> None:
    stage = head()
    feed(stage, [*every(50, 0, 1000, 0.9), *every(50, 1000, 1500, 0.1)], until_ms=1500)
    assert told(stage.push(SourceEnded("cam"))) == [("end", 1.0)]


def test_what_led_to_an_event_does_not_outlive_a_stall() -> None:
    stage = head()
    feed(stage, every(50, 0, 150, 0.9), until_ms=150, hop_ms=50)
    stage.push(SourceStalled("cam", 0))
    assert feed(stage, every(50, 150, 300, 0.9), until_ms=300, hop_ms=50) == []


def test_after_a_new_start_stamps_follow_its_clock() -> None:
    stage = head()
    feed(stage, every(50, 0, 1000, 0.9), until_ms=1000)
    [end] = events(stage.push(started(utc_offset_ns=UTC_NS)))
    assert end.t_end == 1.0
    decided = feed(stage, every(50, 0, 1000, 0.9), until_ms=1000)
    assert told(decided) == [("start", 1_700_000_000.25)]


def test_an_event_carries_what_it_needs() -> None:
    stage = head(utc_offset_ns=UTC_NS, labels=(BEEP, FLASH))
    decided = feed(stage, every(50, 100, 1000, 0.812345), until_ms=1000)
    assert events(decided) == [
        Event(
            id=event_id("home", "cam", "beep", UTC_NS + ms(100)),
            type="start",
            source="cam",
            label="beep",
            kind="audio",
            score=0.8123,
            top_score=0.8123,
            ts_start="2023-11-14T22:13:20.350Z",
            t_start=1_700_000_000.35,
            evidence=(
                Evidence(
                    modality="audio",
                    detector="scripted",
                    label="beep",
                    score=0.8123,
                    t_start=1_700_000_000.35,
                    t_end=1_700_000_000.35,
                ),
            ),
            contribution=Contribution(audio=1, video=0, text=0),
        )
    ]
    [end] = events(stage.flush())
    assert (end.id, end.t_start) == (events(decided)[0].id, 1_700_000_000.35)
    assert (end.ts_end, end.t_end) == ("2023-11-14T22:13:21.250Z", 1_700_000_001.25)


def test_ids_are_stable_and_differ() -> None:
    ids = {
        event_id(node, source, label, start_ns)
        for node in ("a", "b")
        for source in ("a", "b")
        for label in ("a", "b")
        for start_ns in (0, 1)
    }
    assert len(ids) == 16
    assert event_id("home", "cam", "beep", 5) == event_id("home", "cam", "beep", 5)


def test_the_three_strongest_detections_of_the_peak_are_the_evidence() -> None:
    stage = head(labels=(FLASH,))
    found = [boxed(50, 0.1 * n, 0.5 + 0.1 * n) for n in range(5)]
    found.append(Detection("other", ms(50), "video", "scripted", 1.0))
    found.append(boxed(0, 0.7, 1.0))  # of another instant
    [start] = events(stage.push(scores((0, 250), {"flash": series((0, 0.6), (50, 0.95))}, found)))
    assert [one.score for one in start.evidence] == [0.9, 0.8, 0.7]
    assert start.evidence[0].box == WireBox(x=0.4, y=0.1, width=0.2, height=0.2)
    assert start.evidence[0].t_start == 0.05
    assert start.kind == "video"
    assert start.contribution == Contribution(audio=0, video=1, text=0)


def test_labels_live_side_by_side() -> None:
    stage = head(labels=(BEEP, FLASH))
    both = {
        "beep": series((0, 0.9)),
        "flash": series((0, 0.2), (100, 0.8)),
        "other": series((0, 1)),
    }
    decided = stage.push(scores((0, 500), both))
    assert [(one.label, one.t_start) for one in events(decided)] == [("beep", 0.0), ("flash", 0.1)]


def test_a_label_without_settings_has_the_defaults() -> None:
    stage = EventHead(
        node="home", source="cam", labels=(BEEP,), settings={"flash": LabelSettings(on=0.9)}
    )
    stage.push(started())
    assert told(feed(stage, every(50, 0, 1000, 0.5), until_ms=1000)) == [("start", 0.0)]


def test_a_label_without_settings_has_those_that_are_for_all_others() -> None:
    given, otherwise = LabelSettings(on=0.4), LabelSettings(on=0.8)
    stage = EventHead(
        node="home", source="cam", labels=(BEEP,), settings={"beep": given}, otherwise=otherwise
    )
    stage.push(started())
    both = {"beep": series((0, 0.5)), "flash": series((0, 0.5))}
    first = stage.push(replace(scores((0, 400), both), learned=(FLASH,)))
    assert [one.label for one in events(first)] == ["beep"]
    more = stage.push(scores((400, 800), {"flash": series((400, 0.8))}))
    assert [one.label for one in events(more)] == ["flash"]


def test_a_refined_onset_a_little_before_the_hop_counts_once() -> None:
    settings = LabelSettings(for_secs=0.2, within_secs=0.5)
    stage = head(settings)
    stage.push(scores((0, 250), {"beep": series((0, 0.1), (150, 0.9))}))
    # 150..250 was on; the next hop speaks anew of the time from 190 ms on, and it was still on.
    assert list(stage.push(scores((250, 500), {"beep": series((190, 0.9), (320, 0.1))}))) == []
    decided = stage.push(scores((500, 750), {"beep": series((500, 0.9))}))
    assert [(one.at_ns, told([one])) for one in decided] == [(ms(530), [("start", 0.15)])]


def test_a_refined_onset_before_the_hop_is_where_the_event_starts() -> None:
    stage = head()
    stage.push(scores((0, 250), {"beep": series((0, 0.1))}))
    decided = stage.push(scores((250, 500), {"beep": series((247.5, 0.9))}))
    assert told(decided) == [("start", 0.2475)]


def test_a_refined_score_takes_back_time_that_was_on() -> None:
    stage = head(LabelSettings(min_off_secs=0.5))
    stage.push(scores((0, 250), {"beep": series((0, 0.9))}))
    decided = stage.push(scores((250, 1000), {"beep": series((240, 0.1))}))
    assert told(decided) == [("end", 0.24)]


def test_scores_before_a_start_are_a_mistake() -> None:
    stage = EventHead(node="home", source="cam", labels=(BEEP,), settings={})
    with pytest.raises(StateError, match="scores of cam came before SourceStarted"):
        feed(stage, every(50, 0, 1000, 0.9), until_ms=1000)


def test_the_longest_window_with_the_finest_scores_stays_cheap() -> None:
    stage = head(LabelSettings(for_secs=60, within_secs=60))
    at_ns = np.arange(0, secs_to_ns(50), ms(5))
    flicker = Series(at_ns, np.where(np.arange(at_ns.size) % 2, 0.9, 0.1).astype(np.float32))
    assert list(stage.push(scores((0, 50_000), {"beep": flicker}))) == []


def walker(at: float, track: int, score: float, *, speed: float = 0.0) -> Detection:
    path = Path(track, 359.7 if speed else None, speed)
    return Detection("flash", ms(at), "video", "scripted", score, Box(0, 0, 0.1, 0.1), path)


def test_each_object_has_an_event_of_its_own() -> None:
    stage = head(labels=(FLASH,))
    objects = (
        ObjectSeries("flash", 1, series((0, 0.9), (200, 0.9))),
        ObjectSeries("flash", 2, series((0, 0.6), (200, 0.7))),
        ObjectSeries("other", 3, series((0, 1.0))),
    )
    found = [walker(0, 1, 0.9, speed=0.12345), walker(200, 1, 0.8)]
    seen = Scores("cam", 0, Span(0, ms(250)), detections=tuple(found), objects=objects)
    first, second = events(stage.push(seen))
    assert [first.t_start, second.t_start] == [0.0, 0.0]
    assert first.id != second.id
    [one] = first.evidence
    assert (one.track, one.direction_deg, one.speed, one.score) == (1, 0, 0.123, 0.9)
    [two] = second.evidence
    assert (two.track, two.direction_deg, two.speed, two.score) == (2, None, 0.0, 0.6)
    # The first is seen for longer than the second.
    on = ObjectSeries("flash", 1, series((250, 0.9), (500, 0.9), (1000, 0.9), (1500, 0.9)))
    ended = stage.push(Scores("cam", 1, Span(ms(250), ms(2000)), objects=(on,)))
    assert [(event.type, event.id, event.t_end) for event in events(ended)] == [
        ("end", second.id, 0.7)
    ]
    assert [event.id for event in events(stage.flush())] == [first.id]


def test_an_object_that_is_gone_is_forgotten() -> None:
    stage = head(labels=(FLASH,))
    for track in range(1, 1000):
        at = 2000 * track
        one = ObjectSeries("flash", track, series((at, 0.9)))
        stage.push(Scores("cam", 0, Span(ms(at), ms(at + 250)), objects=(one,)))
        stage.push(Scores("cam", 0, Span(ms(at + 250), ms(at + 2000))))
    [voice] = stage._voices  # noqa: SLF001 - what it holds is the point
    assert len(voice._lives) <= 1  # noqa: SLF001


def test_what_sound_and_sight_made_together_says_how_much_each_made() -> None:
    both = Label("both", "av", "scripted")
    stage = head(labels=(both,))
    fused = {"both": Fused(audio=0.41234, video=0.8, text=0.12346, offset_ns=ms(31.26))}
    note = Detection("both", 0, "audio", "scripted", 0.9, note="off screen")
    seen = Scores("cam", 0, Span(0, ms(250)), {"both": series((0, 0.9))}, (note,), fused=fused)
    [event] = events(stage.push(seen))
    assert event.kind == "av"
    assert event.contribution == Contribution(audio=0.4123, video=0.8, text=0.1235)
    assert event.offset_ms == 31.3
    assert [(one.modality, one.note) for one in event.evidence] == [("audio", "off screen")]


def test_where_no_instants_were_compared_there_is_no_offset() -> None:
    both = Label("both", "av", "scripted")
    stage = head(labels=(both,))
    fused = {"both": Fused(audio=1, video=1)}
    seen = Scores("cam", 0, Span(0, ms(250)), {"both": series((0, 0.9))}, fused=fused)
    assert [event.offset_ms for event in events(stage.push(seen))] == [None]


def test_a_stronger_moment_brings_its_own_offset() -> None:
    both = Label("both", "av", "scripted")
    stage = head(LabelSettings(update_secs=0.5), labels=(both,))
    said: list[Decided] = []
    for index, score in enumerate((0.6, 0.9, 0.7, 0.7)):
        at = 500 * index
        fused = {"both": Fused(1, 1, offset_ns=ms(index))}
        outputs = {"both": series((at, score))}
        said += stage.push(Scores("cam", index, Span(ms(at), ms(at + 500)), outputs, fused=fused))
    assert [(one.type, one.offset_ms) for one in events(said)] == [("start", 0.0), ("update", 1.0)]


def test_a_label_that_is_silenced_ends_as_disabled_and_may_speak_again() -> None:
    stage = head(labels=(BEEP, FLASH))
    feed(stage, every(50, 0, 1000, 0.9), until_ms=1000)
    silenced = stage.push(Tuning("cam", silent=frozenset({"beep"})))
    assert told(silenced) == [("end", 1.0)]
    assert events(silenced)[0].end_reason == "disabled"
    assert list(stage.push(Tuning("cam", silent=frozenset({"beep"})))) == []
    assert feed(stage, every(50, 1000, 2000, 0.9), until_ms=2000) == []
    flash = stage.push(scores((2000, 2250), {FLASH.name: series((2000, 0.9))}))
    assert [one.label for one in events(flash)] == ["flash"]
    assert list(stage.push(Tuning("cam"))) == []
    again = feed(stage, every(50, 2250, 3000, 0.9), until_ms=3000)
    assert [(one.label, one.type, one.t_start) for one in events(again)] == [
        ("beep", "start", 2.25)
    ]


def test_a_threshold_holds_from_the_next_score_on_and_can_be_set_back() -> None:
    stage = head(LabelSettings(on=0.5, off=0.4, min_off_secs=0.2))
    assert feed(stage, every(50, 0, 1000, 0.3), until_ms=1000) == []
    stage.push(Tuning("cam", thresholds={"beep": 0.25}))
    started_ = feed(stage, every(50, 1000, 2000, 0.3), until_ms=2000)
    assert told(started_) == [("start", 1.0)]
    assert list(stage.push(Tuning("cam"))) == []  # what is open goes on, judged by `off` as it was
    assert told(feed(stage, every(50, 2000, 3000, 0.3), until_ms=3000)) == [("end", 2.0)]


def test_a_head_may_be_tuned_before_its_source_starts() -> None:
    stage = EventHead(node="home", source="cam", labels=[BEEP, FLASH], settings={})
    assert list(stage.push(Tuning("cam", frozenset({"beep"}), {"flash": 0.1}))) == []
    stage.push(started())
    assert feed(stage, every(50, 0, 1000, 0.9), until_ms=1000) == []
    flash = stage.push(scores((1000, 2000), {FLASH.name: series((1000, 0.15))}))
    assert [one.label for one in events(flash)] == ["flash"]


STEPS = st.lists(st.one_of(st.booleans(), st.sampled_from((0.1, 0.45, 0.9))), max_size=30)


@given(STEPS)
def test_however_it_is_tuned_each_start_has_its_end_and_what_is_silent_says_nothing(
    steps: Sequence[bool | float],
) -> None:
    """Hops of one score each, and among them: silent or not; speaking, it listens closer."""

    def play() -> list[tuple[str, bool]]:
        stage, is_silent, at_ms = head(LabelSettings(min_off_secs=0.1)), False, 0
        said: list[tuple[str, bool]] = []
        for step in (*steps, True):
            if isinstance(step, bool):
                is_silent = step
                silent = frozenset({"beep"} if is_silent else ())
                decided = stage.push(Tuning("cam", silent, {"beep": 0.4}))
                assert {one.end_reason for one in events(decided)} <= {"disabled"}
            else:
                decided = stage.push(scores((at_ms, at_ms + 250), {"beep": series((at_ms, step))}))
                assert not (is_silent and decided)
                at_ms += 250
            said += [(one.type, is_silent) for one in events(decided) if one.type != "update"]
        assert list(stage.flush()) == []
        return said

    said = play()
    assert [kind for kind, _ in said] == ["start", "end"] * (len(said) // 2)
    assert ("start", True) not in said
    assert play() == said


def test_a_label_that_was_taught_since_is_told_like_any_other() -> None:
    stage = head(labels=[BEEP])
    flash = series((0, 0.9), (250, 0.9))
    untold = scores((0, 500), {"flash": flash, "embedding": flash})
    assert list(stage.push(untold)) == []
    taught = replace(scores((500, 1000), {"flash": series((500, 0.9))}), learned=(FLASH, BEEP))
    (start,) = stage.push(taught)
    (end,) = stage.flush()
    assert isinstance(start.content, Event)
    assert (start.content.label, start.content.kind) == ("flash", "video")
    assert start.content.t_start == 0.5
    assert isinstance(end.content, Event)
    assert end.content.id == start.content.id


def test_what_is_taught_anew_goes_on_and_what_is_forgotten_ends() -> None:
    stage = head(labels=[])
    told: list[Decided] = []
    for n in range(6):
        span, outputs = (n * 250, n * 250 + 250), {"flash": series((n * 250, 0.9))}
        told += stage.push(replace(scores(span, outputs), learned=(FLASH,)))
    for n in range(6, 16):
        told += stage.push(scores((n * 250, n * 250 + 250), {}))
    contents = [one.content for one in told]
    assert [one.type for one in contents if isinstance(one, Event)] == ["start", "end"]
    assert isinstance(contents[-1], Event)
    assert contents[-1].end_reason == "quiet"


def test_a_label_that_is_taught_is_tuned_as_was_said_before() -> None:
    stage = head(labels=[BEEP])
    stage.push(Tuning("cam", silent=frozenset({"flash"})))
    taught = replace(scores((0, 500), {"flash": series((0, 0.9))}), learned=(FLASH,))
    assert list(stage.push(taught)) == []
    stage.push(Tuning("cam", thresholds={"flash": 0.95}))
    assert list(stage.push(replace(taught, span=Span(ms(500), ms(1000))))) == []


@pytest.mark.parametrize(
    ("fused", "senses"),
    [
        (Fused(1, 0), ["audio"]),
        (Fused(0.2, 0.7), ["video"]),
        (Fused(0.2, 0.1, text=0.9), ["text"]),
        (None, ["audio", "video"]),
    ],
)
def test_evidence_of_both_senses_names_the_one_that_had_more(
    fused: Fused | None, senses: Sequence[str]
) -> None:
    both = Label("bark", "av", "model")
    heard = scores((0, 500), {"bark": series((0, 0.9))})
    (start,) = head(labels=[both]).push(replace(heard, fused={"bark": fused} if fused else {}))
    assert isinstance(start.content, Event)
    assert [one.modality for one in start.content.evidence] == senses
    if fused is None:
        assert start.content.contribution == Contribution()
