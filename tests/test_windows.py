"""Hops: disjoint, settled, given once, on a grid; what is missing is masked, never made up."""

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from pydantic import ValidationError
from streams import (
    HOP_NS,
    RATE_HZ,
    chunk,
    chunk_ms,
    expected_sound,
    frame,
    in_time_order,
    ms,
    pictures,
    sound,
    started,
)

from mmstream.errors import StateError
from mmstream.media import (
    AudioChunk,
    Hop,
    SourceEnded,
    SourceItem,
    SourceStalled,
    Span,
    StreamBound,
    StreamKind,
    samples_to_ns,
)
from mmstream.windows import MAX_EMPTY_NS, HopCutter, HopSettings

N_HOP = 4000
NEVER_NS = 2**62


def cutter(*, live: bool = False, settings: HopSettings | None = None) -> HopCutter:
    return HopCutter("cam", settings or HopSettings(), live=live)


def push_all(stage: HopCutter, items: Iterable[SourceItem]) -> list[Hop]:
    return [hop for item in items for hop in stage.push(item)]


def indices(hops: Sequence[Hop]) -> list[int]:
    return [hop.index for hop in hops]


def frame_times(hops: Sequence[Hop]) -> list[int]:
    return [one.start_ns for hop in hops for one in hop.frames]


def check_whole(hops: Sequence[Hop]) -> None:
    """All their sound is there, in its place."""
    for hop in hops:
        assert hop.heard.all()
        assert hop.samples.tolist() == expected_sound(hop.index * N_HOP, N_HOP)


def test_a_file_is_cut_on_a_grid_with_all_in_its_place() -> None:
    stage = cutter()
    media = in_time_order(sound(0, 1), pictures(0, 1))
    hops = push_all(stage, [started(), *media, SourceEnded("cam")])
    assert [(hop.index, hop.span) for hop in hops] == [
        (index, Span(index * HOP_NS, (index + 1) * HOP_NS)) for index in range(4)
    ]
    check_whole(hops)
    assert frame_times(hops) == [ms(50 * index) for index in range(20)]
    assert all(hop.source == "cam" and hop.rate_hz == RATE_HZ for hop in hops)
    assert not any(hop.gap_before for hop in hops)
    assert not stage.metrics.dropped
    assert (stage.metrics.n_in, stage.metrics.n_out) == (72, 4)


def test_the_grid_begins_at_zero_wherever_the_source_does() -> None:
    hops = push_all(cutter(), [started(["audio"]), *sound(10.1, 10.3), SourceEnded("cam")])
    assert indices(hops) == [40, 41]
    assert hops[0].heard.tolist() == [False] * 1600 + [True] * 2400
    assert not hops[0].samples[:1600].any()
    assert hops[1].heard.tolist() == [True] * 800
    assert hops[1].span == Span(ms(10_250), ms(10_300))


def test_a_frame_belongs_to_the_hop_that_it_starts_in() -> None:
    items = [frame(HOP_NS - 1), frame(HOP_NS), frame(2 * HOP_NS)]
    hops = push_all(cutter(), [started(["video"]), *items, SourceEnded("cam")])
    assert [[one.start_ns for one in hop.frames] for hop in hops] == [
        [HOP_NS - 1],
        [HOP_NS],
        [2 * HOP_NS],
    ]
    assert all(hop.samples.size == 0 for hop in hops)


def test_a_hop_waits_until_both_streams_have_passed_its_end() -> None:
    stage = cutter()
    push_all(stage, [started(), frame(0)])
    assert push_all(stage, sound(0, 9)) == []
    assert push_all(stage, [frame(HOP_NS - 2)]) == []
    hops = push_all(stage, [frame(HOP_NS)])
    assert indices(hops) == [0]
    check_whole(hops)


def test_sound_that_ends_with_the_hop_settles_it() -> None:
    stage = cutter()
    assert push_all(stage, [started(["audio"]), *sound(0, 0.24)]) == []
    assert indices(push_all(stage, [chunk_ms(240, 250)])) == [0]


def test_a_file_is_waited_for_without_limit() -> None:
    stage = cutter()
    assert push_all(stage, [started(), *sound(0, 9.5)]) == []
    hops = push_all(stage, pictures(0, 9.5))
    check_whole(hops)
    assert indices(hops) == list(range(37))
    assert not stage.metrics.dropped


def test_a_live_source_is_waited_for_300_ms_of_capture_time() -> None:
    stage = cutter(live=True)
    push_all(stage, [started(), frame(0)])
    assert push_all(stage, [*sound(0, 0.54), chunk_ms(540, 549)]) == []
    hops = push_all(stage, [chunk_ms(549, 550)])
    assert indices(hops) == [0]
    check_whole(hops)
    assert frame_times(hops) == [0]


def test_a_live_hop_without_its_sound_is_masked() -> None:
    stage = cutter(live=True)
    hops = push_all(stage, [started(), *sound(0, 0.1), *pictures(0, 0.6)])
    assert indices(hops) == [0]
    assert hops[0].heard.tolist() == [True] * 1600 + [False] * 2400
    assert not hops[0].samples[1600:].any()


def test_what_comes_late_is_dropped_and_counted() -> None:
    stage = cutter(live=True)
    push_all(stage, [started(), *sound(0, 0.56)])  # 0 is cut, without pictures
    hops = push_all(stage, [frame(ms(240)), *pictures(0.25, 0.8)])
    assert stage.metrics.dropped == {"late_frames": 1}
    assert frame_times(hops) == [ms(at) for at in range(250, 500, 50)]


def test_of_a_chunk_that_is_partly_late_the_rest_is_kept() -> None:
    stage = cutter(live=True)
    push_all(stage, [started(), *pictures(0, 0.6)])
    hops = push_all(stage, [chunk_ms(200, 700)])
    assert stage.metrics.dropped == {"late_samples": 800}
    hops += push_all(stage, [frame(ms(750))])
    assert indices(hops) == [1]
    check_whole(hops)


def test_a_chunk_that_is_all_late_is_dropped_whole() -> None:
    stage = cutter(live=True)
    push_all(stage, [started(), *sound(0, 0.02), *pictures(0, 0.6)])
    push_all(stage, [chunk_ms(100, 200)])
    assert stage.metrics.dropped == {"late_samples": 1600}


def test_what_was_late_is_not_heard_when_the_first_hop_moves_back() -> None:
    stage = cutter(live=True)
    late = [chunk(0, 1007), chunk(ms(62) + 937_500, 3000)]
    last = chunk(ms(250) + 437_500, 1)
    hops = push_all(stage, [started(), frame(ms(550) - 1), *late, last, SourceEnded("cam")])
    n_heard = sum(int(hop.heard.sum()) for hop in hops)
    assert n_heard + stage.metrics.dropped["late_samples"] == 1007 + 3000 + 1


def test_late_sound_that_overlaps_is_counted_once() -> None:
    stage = cutter(live=True)
    push_all(stage, [started(), *sound(0, 0.26), *pictures(0, 0.6)])
    push_all(stage, [chunk_ms(200, 280)])
    assert stage.metrics.dropped == {"late_samples": 800, "overlapping_samples": 160}


def test_sound_that_starts_late_has_pushed_nothing_out() -> None:
    stage = cutter(live=True)
    push_all(stage, [started(), *pictures(0, 1), *sound(0.9, 1.2), *pictures(1, 1.5)])
    assert not stage.metrics.dropped


@pytest.mark.parametrize("at_ns", [ms(100), ms(60), ms(0)])
def test_frames_that_go_back_or_repeat_are_counted_never_raised(at_ns: int) -> None:
    stage = cutter()
    items: list[SourceItem] = [
        started(["video"]),
        frame(ms(100)),
        frame(at_ns),
        frame(ms(150)),
        SourceEnded("cam"),
    ]
    hops = push_all(stage, items)
    assert frame_times(hops) == [ms(100), ms(150)]
    assert stage.metrics.dropped == {"backward_frames": 1}


def test_a_frame_that_goes_back_before_the_first_hop_makes_up_no_hop() -> None:
    stage = cutter()
    hops = push_all(stage, [started(["video"]), frame(ms(600)), frame(0), SourceEnded("cam")])
    assert indices(hops) == [2]


def test_sound_that_goes_back_before_the_first_hop_makes_up_no_hop() -> None:
    stage = cutter()
    items: list[SourceItem] = [chunk_ms(600, 700), chunk_ms(100, 200), frame(ms(600))]
    hops = push_all(stage, [started(), *items, SourceEnded("cam")])
    assert indices(hops) == [2]
    assert stage.metrics.dropped == {"late_samples": 1600}


def test_sound_for_a_time_already_written_is_counted() -> None:
    stage = cutter()
    again = AudioChunk("cam", ms(100), RATE_HZ, np.full(1600, -1, np.float32))
    items: list[SourceItem] = [
        started(["audio"]),
        *sound(0, 0.15, step_ms=50),
        again,
        *sound(0.2, 0.5),
    ]
    hops = push_all(stage, items)
    assert stage.metrics.dropped == {"overlapping_samples": 800}
    assert hops[0].samples.tolist() == [
        *expected_sound(0, 2400),
        *([-1.0] * 800),
        *expected_sound(3200, 800),
    ]


@pytest.mark.parametrize("at_ms", [0, 90, 99])
def test_sound_that_resets_is_counted_never_raised(at_ms: int) -> None:
    stage = cutter(live=True)
    items: list[SourceItem] = [
        started(["audio"]),
        *sound(0.1, 0.5, step_ms=10),
        chunk_ms(at_ms, at_ms + 10),
    ]
    push_all(stage, items)
    assert stage.metrics.dropped.total() == 160


def test_a_bound_settles_hops_that_nothing_came_for() -> None:
    stage = cutter()
    assert push_all(stage, [started(), *sound(0, 0.6)]) == []
    hops = push_all(stage, [StreamBound("cam", "video", ms(499))])
    assert indices(hops) == [0]
    assert indices(push_all(stage, [StreamBound("cam", "video", ms(500))])) == [1]
    assert push_all(stage, [StreamBound("cam", "video", ms(100))]) == []


def test_when_one_stream_has_ended_the_other_is_not_held_up() -> None:
    stage = cutter()
    items: list[SourceItem] = [
        started(),
        *sound(0, 0.3),
        *pictures(0, 0.3),
        StreamBound("cam", "audio", NEVER_NS),
    ]
    push_all(stage, items)
    hops = push_all(stage, pictures(0.3, 1.05))
    assert indices(hops) == [1, 2, 3]
    assert hops[0].heard.tolist() == [True] * 800 + [False] * 3200
    assert not hops[1].heard.any()


def test_bounds_alone_make_up_no_hop() -> None:
    stage = cutter()
    ended: list[SourceItem] = [StreamBound("cam", "video", NEVER_NS)]
    assert push_all(stage, [started(["video"]), *ended]) == []
    items: list[SourceItem] = [
        started(),
        *sound(0, 0.5),
        *ended,
        StreamBound("cam", "audio", NEVER_NS),
    ]
    assert indices(push_all(stage, items)) == [0, 1]


def test_an_earlier_first_item_of_the_other_stream_still_belongs() -> None:
    stage = cutter()
    hops = push_all(stage, [started(), *sound(0.5, 1), *pictures(0.1, 1.05)])
    assert indices(hops) == [0, 1, 2, 3]
    assert frame_times(hops)[0] == ms(100)
    assert not hops[0].heard.any()


def test_an_earlier_first_item_within_the_patience_belongs_in_live_too() -> None:
    stage = cutter(live=True)
    hops = push_all(stage, [started(), *sound(0.3, 0.5), frame(ms(240)), *sound(0.5, 0.6)])
    assert frame_times(hops) == [ms(240)]


def test_a_stale_first_frame_of_a_live_source_is_late() -> None:
    stage = cutter(live=True)
    hops = push_all(stage, [started(), *sound(100, 100.1), frame(ms(2_000)), *sound(100.1, 101)])
    assert indices(hops) == [400, 401]
    assert stage.metrics.dropped == {"late_frames": 1}


@pytest.mark.parametrize("streams", [["audio"], ["video"], ["audio", "video"]])
def test_a_jump_of_more_than_ten_seconds_is_jumped_over(streams: list[StreamKind]) -> None:
    stage = cutter()
    heard = [*sound(0, 0.3), *sound(20, 20.5)] if "audio" in streams else []
    seen = [*pictures(0, 0.3), *pictures(20, 20.55)] if "video" in streams else []
    media = in_time_order(heard, seen)
    hops = push_all(stage, [started(streams), *media, SourceEnded("cam")])
    assert indices(hops)[:4] == [0, 1, 80, 81]
    assert [hop.gap_before for hop in hops][:4] == [False, False, True, False]
    assert not stage.metrics.dropped


def test_up_to_ten_seconds_of_nothing_are_empty_hops() -> None:
    stage = cutter()
    last = frame(MAX_EMPTY_NS + 1)
    hops = push_all(stage, [started(["video"]), frame(0), last, SourceEnded("cam")])
    assert indices(hops) == list(range(41))
    assert not any(hop.gap_before for hop in hops)
    assert frame_times(hops) == [0, last.start_ns]


def test_after_a_jump_the_other_stream_may_begin_a_little_earlier() -> None:
    stage = cutter()
    push_all(stage, [started(), *in_time_order(sound(0, 1), pictures(0, 1))])
    hops = push_all(stage, [chunk_ms(30_000, 30_020), frame(ms(29_960)), SourceEnded("cam")])
    assert indices(hops)[-2:] == [119, 120]
    assert frame_times(hops)[-1] == ms(29_960)
    assert [hop.index for hop in hops if hop.gap_before] == [119]
    assert not stage.metrics.dropped


def test_after_a_jump_no_hop_is_given_again() -> None:
    stage = cutter()
    hops = push_all(stage, [started(), *sound(0, 0.5), *pictures(0, 0.5), chunk_ms(30_000, 30_020)])
    hops += push_all(stage, [*pictures(0.3, 0.5), frame(ms(30_300)), SourceEnded("cam")])
    assert indices(hops) == [0, 1, 120, 121]


def test_a_stall_cuts_what_is_there_and_the_rest_of_that_hop_is_late() -> None:
    stage = cutter(live=True)
    push_all(stage, [started(["audio"]), *sound(0, 0.3)])
    hops = push_all(stage, [SourceStalled("cam", ms(5_300))])
    assert indices(hops) == [1]
    assert hops[0].heard.tolist() == [True] * 800
    later = push_all(stage, [chunk_ms(400, 500), *sound(0.5, 0.8)])
    assert indices(later) == [2]
    assert stage.metrics.dropped == {"late_samples": 1600}


def test_after_a_long_stall_comes_a_gap() -> None:
    stage = cutter(live=True)
    push_all(stage, [started(["audio"]), *sound(0, 0.3), SourceStalled("cam", ms(5_300))])
    hops = push_all(stage, sound(40, 40.6))
    assert [(hop.index, hop.gap_before) for hop in hops] == [(160, True), (161, False)]


def test_the_end_gives_the_rest_and_nothing_twice() -> None:
    stage = cutter()
    push_all(stage, [started(), *sound(0, 0.6)])
    assert indices(push_all(stage, [SourceEnded("cam")])) == [0, 1, 2]
    assert list(stage.flush()) == []


def test_flushing_gives_the_rest() -> None:
    stage = cutter()
    push_all(stage, [started(), *sound(0, 0.6)])
    assert indices(list(stage.flush())) == [0, 1, 2]


def test_an_end_a_rounding_error_after_a_hop_makes_up_no_hop() -> None:
    late = [chunk(one.start_ns + 20_000, one.samples.size) for one in sound(0, 0.5)]
    assert indices(push_all(cutter(), [started(["audio"]), *late, SourceEnded("cam")])) == [0, 1]


def test_sound_that_is_always_one_sample_late_is_whole() -> None:
    one = samples_to_ns(1, RATE_HZ)
    sizes = [300, 3699, 401, 3600, 4000]  # the second ends one sample before the first hop does
    items, first = [], 0
    for size in sizes:
        wanted = np.arange(first, first + size).astype(np.float32)
        start_ns = samples_to_ns(first, RATE_HZ) + (one if first else 0)
        items.append(AudioChunk("cam", start_ns, RATE_HZ, wanted))
        first += size
    hops = push_all(cutter(), [started(["audio"]), *items])
    assert indices(hops) == [0, 1, 2]
    assert all(hop.heard.all() for hop in hops)
    assert [value for hop in hops for value in hop.samples.tolist()] == list(range(12_000))


def test_a_new_start_on_another_clock_starts_over_with_a_gap() -> None:
    stage = cutter()
    hops = push_all(stage, [started(["audio"]), *sound(0, 0.6), started(["video"]), frame(0)])
    assert [(hop.index, hop.gap_before) for hop in hops] == [(0, False), (1, False), (2, False)]
    hops = push_all(stage, [frame(HOP_NS)])
    assert [(hop.index, hop.gap_before) for hop in hops] == [(0, True)]
    assert hops[0].samples.size == 0


def test_a_new_start_on_the_same_clock_gives_no_hop_twice() -> None:
    stage = cutter(live=True)
    push_all(stage, [started(["video"], clock_offset_ns=7), *pictures(0, 0.4), SourceEnded("cam")])
    hops = push_all(stage, [started(["video"], clock_offset_ns=7), *pictures(0.45, 1.05)])
    assert [(hop.index, hop.gap_before) for hop in hops] == [(2, True), (3, False)]
    assert stage.metrics.dropped == {"late_frames": 1}


def test_no_gap_where_nothing_was_before() -> None:
    hops = push_all(cutter(), [started(), started(["video"]), frame(0), frame(HOP_NS)])
    assert [hop.gap_before for hop in hops] == [False]


def test_a_stream_that_was_not_announced_is_a_mistake() -> None:
    stage = cutter()
    push_all(stage, [started(["video"])])
    with pytest.raises(StateError, match="cam sent audio that its SourceStarted did not announce"):
        push_all(stage, [chunk_ms(0, 20)])


def test_sound_that_no_hop_had_is_counted_when_the_ring_is_full() -> None:
    stage = cutter()
    push_all(stage, [started(), frame(0)])
    push_all(stage, sound(0, 20))
    statistics = stage.statistics()["audio"]
    assert statistics.span == Span(ms(7_700), ms(20_000))
    assert statistics.n_bytes == statistics.max_bytes
    assert stage.metrics.dropped == {"ring_full_samples": 7_700 * 16}
    hops = push_all(stage, [SourceEnded("cam")])
    assert sum(int(hop.heard.sum()) for hop in hops) == 12_300 * 16


def test_frames_that_no_hop_had_are_counted_when_the_ring_is_full() -> None:
    settings = HopSettings(max_video_mb=8)
    stage = cutter(settings=settings)
    push_all(stage, [started(), chunk_ms(0, 20), *pictures(0, 1, nbytes=1_000_000)])
    assert stage.metrics.dropped == {"ring_full_frames": 12}
    hops = push_all(stage, [SourceEnded("cam")])
    assert frame_times(hops) == [ms(at) for at in range(600, 1000, 50)]


def test_frames_that_were_in_a_hop_are_let_go_uncounted() -> None:
    settings = HopSettings(max_video_mb=8, keep_secs=60)
    stage = cutter(settings=settings)
    push_all(stage, [started(["video"]), *pictures(0, 4, nbytes=1_000_000)])
    assert not stage.metrics.dropped
    assert stage.statistics()["video"].n_bytes <= 8_000_000


def test_frames_older_than_the_longest_window_are_let_go() -> None:
    stage = cutter(settings=HopSettings(keep_secs=0.5))
    push_all(stage, [started(["video"]), *pictures(0, 5.05)])
    assert stage.statistics()["video"].span == Span(ms(4_250), ms(5_000))  # and the last hop


def test_other_hops_and_rates_fit_too() -> None:
    settings = HopSettings(hop_secs=0.1, rate_hz=48_000)
    stage = cutter(settings=settings)
    chunks = [chunk(samples_to_ns(i * 480, 48_000), 480, rate_hz=48_000) for i in range(30)]
    hops = push_all(stage, [started(["audio"]), *chunks])
    assert [hop.samples.size for hop in hops] == [4800] * 3
    assert hops[2].samples.tolist() == expected_sound(9600, 4800)


def test_a_hop_is_a_whole_number_of_samples() -> None:
    with pytest.raises(ValidationError, match=r"hop_secs 0.0001 is not a whole number of samples"):
        HopSettings(hop_secs=0.0001, rate_hz=8_000)


@pytest.mark.parametrize(
    "wrong", [{"hop_secs": 0}, {"hop_secs": 3}, {"patience_secs": 0}, {"rate_hz": 4000}]
)
def test_settings_have_limits(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        HopSettings.model_validate(wrong)
