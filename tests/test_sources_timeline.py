"""Timestamps that lie, put right: outliers, resets of both streams, holes, jitter."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmstream.clock import ManualClock
from mmstream.media import (
    NS_PER_SEC,
    AudioChunk,
    MediaItem,
    SourceEnded,
    StreamKind,
    VideoFrame,
    secs_to_ns,
)
from mmstream.metrics import StageMetrics
from mmstream.sources.synthetic import (
    Backward,
    Drift,
    Duplicate,
    Fault,
    Gap,
    Jitter,
    Reset,
    SyntheticSettings,
    SyntheticSource,
)
from mmstream.sources.timeline import HOLE_NS, JITTER_NS, Timeline, mended
from mmstream.windows import HopCutter, HopSettings

SECS = 8
Counts = dict[str, int]


def played(*faults: Fault, live: bool = False) -> tuple[list[MediaItem], StageMetrics]:
    chosen = SyntheticSettings(
        scene="flash_beep",
        width=64,
        height=64,
        duration_secs=SECS,
        pace="max",
        faults=faults,
        live=live,
    )
    source = SyntheticSource("test", chosen, ManualClock())
    with source.read() as items:
        return list(items), source.metrics[0]


def stamps(items: Sequence[MediaItem], kind: type[AudioChunk | VideoFrame]) -> list[int]:
    return [item.start_ns for item in items if isinstance(item, kind)]


CLEAN = played()[0]


def test_a_reset_of_both_streams_goes_on_in_step() -> None:
    clean = CLEAN
    items, metrics = played(Reset(stream="audio", at_secs=4), Reset(stream="video", at_secs=4))
    assert metrics.dropped["timestamp_reset"] == 1
    for kind in (AudioChunk, VideoFrame):
        off_ns = [abs(a - b) for a, b in zip(stamps(items, kind), stamps(clean, kind), strict=True)]
        assert max(off_ns) <= NS_PER_SEC // 20
    sound, sight = stamps(items, AudioChunk)[-1], stamps(items, VideoFrame)[-1]
    clean_sound, clean_sight = stamps(clean, AudioChunk)[-1], stamps(clean, VideoFrame)[-1]
    assert sound - sight == pytest.approx(clean_sound - clean_sight, abs=JITTER_NS)


def test_a_reset_stream_is_heard_to_its_end() -> None:
    items, _ = played(Reset(stream="audio", at_secs=4), Reset(stream="video", at_secs=4))
    cutter = HopCutter("test", HopSettings(), live=False)
    hops = [hop for item in [*items, SourceEnded("test")] for hop in cutter.push(item)]
    assert [hop.index for hop in hops] == list(range(SECS * 4))
    assert sum(int(hop.heard.sum()) for hop in hops) >= (SECS - 0.1) * 16_000


@given(secs=st.floats(0.0001, 0.004), seed=st.integers(0, 9))
def test_jitter_of_sound_leaves_no_seam(secs: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    true_ns = [n * 20_000_000 for n in range(50)]
    samples = np.zeros(320, np.float32)
    off_ns = rng.uniform(-secs_to_ns(secs), secs_to_ns(secs), len(true_ns)).astype(int).tolist()
    jittered = [
        AudioChunk("s", max(0, at_ns + off), 16_000, samples)
        for at_ns, off in zip(true_ns, off_ns, strict=True)
    ]
    assert stamps(list(mended(jittered, StageMetrics("s"))), AudioChunk) == true_ns


STEP_NS: dict[StreamKind, int] = {"audio": 20_000_000, "video": 40_000_000}
N = 100
"""Pictures in what `both` gives; twice as many chunks."""
HOUR_SECS = 3600
STREAMS: list[StreamKind] = ["audio", "video"]
Stamp = tuple[StreamKind, int]
"""Of an item of a stream, by its source."""


def both() -> list[Stamp]:
    """4 s of true stamps, in the order in which they come."""
    true = [(kind, n * step_ns) for kind, step_ns in STEP_NS.items() for n in range(2 * N)]
    return sorted((one for one in true if one[1] < 4 * NS_PER_SEC), key=lambda one: one[1])


def placed(stamped: Sequence[Stamp]) -> tuple[dict[StreamKind, list[tuple[int, int]]], Counts]:
    """Per stream, of what was kept, its number in `stamped` and when it was; what was counted."""
    metrics = StageMetrics("s")
    timeline = Timeline[int](0, metrics)
    kept: dict[StreamKind, list[tuple[int, int]]] = {"audio": [], "video": []}
    for number, (kind, at_ns) in enumerate(stamped):
        kept[kind] += [(n, at) for at, n in timeline.place(kind, at_ns, STEP_NS[kind], number)]
        for stream in STREAMS:
            kept[stream] += [(n, at) for at, n in timeline.settled(stream)]
    for stream in STREAMS:
        kept[stream] += [(n, at) for at, n in timeline.settled(stream, is_over=True)]
    return kept, dict(metrics.dropped)


def numbers_of(stamped: Sequence[Stamp], kind: StreamKind) -> list[int]:
    return [number for number, (stream, _) in enumerate(stamped) if stream == kind]


@given(
    kind=st.sampled_from(STREAMS),
    nth=st.integers(0, N - 1),
    # The sound leads by a chunk of 0.1 s: up to a second past its end a stamp is in no doubt.
    off_secs=st.one_of(st.floats(1.101, 1e6), st.floats(-1e6, -1.1)),
    n_lies=st.integers(1, 2),
)
@example(kind="video", nth=0, off_secs=1.101, n_lies=2)
@example(kind="video", nth=0, off_secs=10 * HOUR_SECS, n_lies=1)
@example(kind="audio", nth=0, off_secs=10 * HOUR_SECS, n_lies=2)
@example(kind="video", nth=N - 1, off_secs=10 * HOUR_SECS, n_lies=1)
def test_a_lie_is_dropped_and_moves_nothing_else(
    kind: StreamKind, nth: int, off_secs: float, n_lies: int
) -> None:
    stamped = both()
    lies = numbers_of(stamped, kind)[nth : nth + n_lies]
    for number in lies:
        stamped[number] = (kind, stamped[number][1] + secs_to_ns(off_secs))
    kept, counted = placed(stamped)
    true = dict(enumerate(both()))
    told = {number: at_ns for of in kept.values() for number, at_ns in of}
    n_last = 2 * N if kind == "audio" else N  # at the very end a lie of < 30 s looks like a hole
    if nth + n_lies < n_last or off_secs * NS_PER_SEC > HOLE_NS + NS_PER_SEC or off_secs < 0:
        assert counted == {"timestamp_outlier": len(lies)}
        assert told.keys().isdisjoint(lies)
    for number, (_, at_ns) in true.items():
        if number not in lies:
            assert told[number] == at_ns
    for of in kept.values():
        assert of == sorted(of)


@pytest.mark.parametrize("kind", STREAMS)
def test_two_lies_of_different_size(kind: StreamKind) -> None:
    for first_secs, second_secs in [(HOUR_SECS, 2 * HOUR_SECS), (2 * HOUR_SECS, HOUR_SECS)]:
        stamped = both()
        one, two = numbers_of(stamped, kind)[30:32]
        stamped[one], stamped[two] = (kind, secs_to_ns(first_secs)), (kind, secs_to_ns(second_secs))
        kept, counted = placed(stamped)
        assert counted == {"timestamp_outlier": 2}
        assert all(stamped[number][1] == at_ns for of in kept.values() for number, at_ns in of)


@pytest.mark.parametrize("hole_secs", [1.5, 20, 60, 10 * HOUR_SECS])
@pytest.mark.parametrize("late", STREAMS)
def test_a_hole_in_both_streams_stays_one(hole_secs: float, late: StreamKind) -> None:
    stamped = [
        (kind, at_ns + secs_to_ns(hole_secs) * (at_ns >= (2 + 0.3 * (kind == late)) * NS_PER_SEC))
        for kind, at_ns in both()
    ]
    kept, counted = placed(stamped)
    assert not counted
    for kind in STREAMS:
        assert kept[kind] == [(number, stamped[number][1]) for number in numbers_of(stamped, kind)]


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("hole_secs", [20, HOUR_SECS])
def test_a_hole_in_the_only_stream_stays_one(kind: StreamKind, hole_secs: float) -> None:
    stamped: list[Stamp] = [
        (kind, at_ns + secs_to_ns(hole_secs) * (at_ns >= NS_PER_SEC))
        for stream, at_ns in both()
        if stream == kind
    ]
    kept, counted = placed(stamped)
    assert not counted
    assert kept[kind] == [(number, at_ns) for number, (_, at_ns) in enumerate(stamped)]


def test_a_hole_after_the_other_stream_has_ended_stays_one() -> None:
    stamped = [
        (kind, at_ns + secs_to_ns(60) * (at_ns >= 2 * NS_PER_SEC))
        for kind, at_ns in both()
        if kind == "video" or at_ns < NS_PER_SEC
    ]
    kept, counted = placed(stamped)
    assert not counted
    assert [at for _, at in kept["video"]] == [at for kind, at in stamped if kind == "video"]


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_that_alone_jumps_hours_ahead_for_good_stays_in_step(kind: StreamKind) -> None:
    stamped = [
        (stream, at_ns + secs_to_ns(10 * HOUR_SECS) * (stream == kind and at_ns >= NS_PER_SEC))
        for stream, at_ns in both()
    ]
    kept, counted = placed(stamped)
    assert counted == {"timestamp_reset": 1}
    true = both()
    for number, at_ns in [*kept["audio"], *kept["video"]]:
        assert at_ns == true[number][1]
    assert len(kept["audio"]) + len(kept["video"]) == len(true)


@pytest.mark.parametrize("n_more", [0, 12])
def test_a_reset_to_0_of_both_streams_goes_on_where_they_were(n_more: int) -> None:
    first = both() + [("video", 4 * NS_PER_SEC + n * STEP_NS["video"]) for n in range(n_more)]
    stamped = first + both()
    kept, counted = placed(stamped)
    assert counted == {"timestamp_reset": 1}
    for kind in STREAMS:
        assert [number for number, _ in kept[kind]] == numbers_of(stamped, kind)
    apart_ns = {
        at_ns - stamped[number][1]
        for of in kept.values()
        for number, at_ns in of
        if number >= len(first)
    }
    assert len(apart_ns) == 1, "both by the same shift"
    assert apart_ns == {4 * NS_PER_SEC + n_more * STEP_NS["video"]}


def test_a_lie_just_before_a_reset_is_one_of_each() -> None:
    stamped = both()
    stamped[-1] = (stamped[-1][0], secs_to_ns(HOUR_SECS))
    _, counted = placed(stamped + both())
    assert counted == {"timestamp_reset": 1, "timestamp_outlier": 1}


@given(kind=st.sampled_from([AudioChunk, VideoFrame]), nth=st.integers(0, SECS * 20 - 1))
@settings(max_examples=20)
def test_a_lie_of_10_hours_makes_no_hop_jump(kind: type[AudioChunk | VideoFrame], nth: int) -> None:
    items = list(CLEAN)
    at = [n for n, item in enumerate(items) if isinstance(item, kind)][nth]
    lie = items[at]
    assert isinstance(lie, AudioChunk | VideoFrame)
    items[at] = replace(lie, start_ns=lie.start_ns + secs_to_ns(10 * HOUR_SECS))
    metrics = StageMetrics("s")
    mended_items = list(mended(items, metrics))
    assert {id(item) for item in mended_items} == {id(item) for item in CLEAN if item is not lie}
    assert metrics.dropped == {"timestamp_outlier": 1}
    cutter = HopCutter("test", HopSettings(), live=True)
    hops = [hop for item in [*mended_items, SourceEnded("test")] for hop in cutter.push(item)]
    assert [hop.index for hop in hops] == list(range(SECS * 4))
    assert not any(hop.gap_before for hop in hops[1:])


@pytest.mark.parametrize("off_secs", [-1, -0.5, 0.5, 1])
def test_small_steps_are_left_to_the_windows(off_secs: float) -> None:
    timeline = Timeline[str](0, StageMetrics("s"))
    assert timeline.place("video", NS_PER_SEC, 0, "a") == [(NS_PER_SEC, "a")]
    at_ns = NS_PER_SEC + secs_to_ns(off_secs)
    assert timeline.place("video", at_ns, 0, "b") == [(at_ns, "b")]
    assert timeline.place("video", 2 * NS_PER_SEC, 0, "c") == [(2 * NS_PER_SEC, "c")]


def test_no_more_than_a_second_of_pictures_is_held_back() -> None:
    timeline = Timeline[int](0, StageMetrics("s"))
    for kind, at_ns in both():
        timeline.place(kind, at_ns, STEP_NS[kind], 0)
    n_held, given = 0, False
    while not given:
        at_ns = 5 * NS_PER_SEC + n_held * STEP_NS["video"]
        n_held += 1
        timeline.place("audio", at_ns - NS_PER_SEC, STEP_NS["audio"], 0)
        given = bool(timeline.place("video", at_ns + secs_to_ns(HOUR_SECS), STEP_NS["video"], 0))
    assert n_held == 25


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        Gap(stream="audio", at_secs=2, duration_secs=1, share=0.5),
        Jitter(stream="video", at_secs=1, duration_secs=5, amount_secs=0.03),
        Drift(stream="audio", at_secs=0, ppm=500),
        Drift(stream="video", at_secs=0, ppm=-500),
        Backward(stream="video", at_secs=3, duration_secs=0.5, amount_secs=0.4),
        Backward(stream="audio", at_secs=3, duration_secs=0.5, amount_secs=2),
        Duplicate(stream="video", at_secs=3, duration_secs=1),
        Duplicate(stream="audio", at_secs=3, duration_secs=1),
        Reset(stream="audio", at_secs=4),
        Reset(stream="video", at_secs=4),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.stream}" if isinstance(fault, Gap) else None,
)
def test_no_fault_stops_the_hops_or_goes_uncounted(fault: Fault, *, live: bool) -> None:
    items, metrics = played(fault, live=live)
    cutter = HopCutter("test", HopSettings(), live=live)
    hops = [hop for item in [*items, SourceEnded("test")] for hop in cutter.push(item)]
    indices = [hop.index for hop in hops]
    assert indices == list(range(indices[0], indices[0] + len(indices)))
    assert len(hops) >= SECS * 4 - 4
    n_heard = sum(int(hop.heard.sum()) for hop in hops)
    n_sent = sum(item.samples.size for item in items if isinstance(item, AudioChunk))
    n_seen = sum(len(hop.frames) for hop in hops)
    n_frames = sum(isinstance(item, VideoFrame) for item in items)
    lost = cutter.metrics.dropped
    sound_lost = lost["late_samples"] + lost["overlapping_samples"]
    assert n_heard == pytest.approx(n_sent - sound_lost, abs=2)
    assert n_seen == n_frames - lost["late_frames"] - lost["backward_frames"]
    assert metrics.dropped["timestamp_reset"] <= 2
