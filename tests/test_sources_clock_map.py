"""Stamps of clocks that drift, jump and lie, on ours."""

from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import ms

from mmstream.errors import StateError
from mmstream.media import NS_PER_SEC
from mmstream.metrics import StageMetrics
from mmstream.sources.clock_map import ClockMap

OURS_NS = 7_000 * NS_PER_SEC
FRAME_NS = ms(40)
Noise = Literal["late", "both"]


def delays(noise: Noise, n: int, seed: int = 0) -> list[int]:
    rng = np.random.default_rng(seed)
    if noise == "late":
        return [round(late) for late in rng.exponential(ms(15), n)]
    wild = rng.choice([0, ms(50)], n, p=[0.99, 0.01])
    return [round(late) for late in rng.uniform(-ms(5), ms(5), n) + wild]


def errors_ms(clock_map: ClockMap, ppm: float, late_ns: list[int], first: int = 0) -> list[float]:
    """How far off each frame is put, by a clock that is fast by `ppm`."""
    errors = []
    for i, delay_ns in enumerate(late_ns, first):
        true_ns = i * FRAME_NS
        stamp_ns = round(true_ns * (1 + ppm * 1e-6))
        clock_map.see(stamp_ns, OURS_NS + true_ns + delay_ns)
        errors.append((clock_map.at_ns(stamp_ns) - OURS_NS - true_ns) / 1e6)
    return errors


def settled(noise: Noise = "late") -> tuple[ClockMap, StageMetrics]:
    """After 20 s of frames stamped from 0 that came at once."""
    metrics = StageMetrics("cam")
    clock_map = ClockMap(metrics, noise=noise)
    errors_ms(clock_map, 0, [0] * 500)
    return clock_map, metrics


def test_asking_before_anything_was_seen_is_a_mistake() -> None:
    with pytest.raises(StateError, match="see something"):
        ClockMap(StageMetrics("cam")).at_ns(0)


@given(
    stamps=st.lists(st.integers(0, ms(60_000)), min_size=1, max_size=200).map(sorted),
    offset_ns=st.integers(-(10**15), 10**18),
    noise=st.sampled_from(["late", "both"]),
)
def test_without_noise_and_drift_it_is_a_shift(
    stamps: list[int], offset_ns: int, noise: Noise
) -> None:
    clock_map = ClockMap(StageMetrics("cam"), noise=noise)
    for stamp_ns in stamps:
        clock_map.see(stamp_ns, stamp_ns + offset_ns)
        assert clock_map.at_ns(stamp_ns) == stamp_ns + offset_ns
    assert clock_map.drift_ppm in {None, 0.0}


@pytest.mark.parametrize("noise", ["late", "both"])
@pytest.mark.parametrize("ppm", [500.0, -500.0, 100.0, 0.0])
def test_drift_is_found_and_followed(noise: Noise, ppm: float) -> None:
    metrics = StageMetrics("cam")
    clock_map = ClockMap(metrics, noise=noise)
    early = errors_ms(clock_map, ppm, delays(noise, 200))
    assert clock_map.drift_ppm is None  # 8 s are too little
    later = errors_ms(clock_map, ppm, delays(noise, 2_800, 1), first=200)
    assert max(map(abs, early[125:])) < 12
    assert max(map(abs, later)) < 10
    assert max(map(abs, later[1_300:])) < 2
    assert clock_map.drift_ppm == pytest.approx(ppm, abs=30)
    assert not metrics.dropped


def test_drift_is_bounded() -> None:
    clock_map = ClockMap(StageMetrics("cam"))
    errors_ms(clock_map, 3_000, [0] * 500)
    assert clock_map.drift_ppm == pytest.approx(1_000, abs=2)


@settings(max_examples=30)
@given(
    late_ns=st.lists(st.integers(0, ms(90)), min_size=300, max_size=400),
    ppm=st.floats(-900, 900),
    noise=st.sampled_from(["late", "both"]),
)
def test_time_rises_with_the_stamp_and_nothing_said_is_taken_back(
    late_ns: list[int], ppm: float, noise: Noise
) -> None:
    clock_map = ClockMap(StageMetrics("cam"), noise=noise)
    said: list[tuple[int, int]] = []
    for i, delay_ns in enumerate(late_ns):
        stamp_ns = i * FRAME_NS
        clock_map.see(stamp_ns, OURS_NS + round(stamp_ns * (1 - ppm * 1e-6)) + delay_ns)
        said += [(at, clock_map.at_ns(at)) for at in (stamp_ns, stamp_ns + FRAME_NS // 2)]
    assert [clock_map.at_ns(stamp_ns) for stamp_ns, _ in said[-100:]] == [
        at for _, at in said[-100:]
    ]
    for (stamp_ns, at_ns), (next_stamp_ns, next_at_ns) in pairwise(said):
        rate = (next_at_ns - at_ns) / (next_stamp_ns - stamp_ns)
        assert 0 < rate < 2
        if stamp_ns > 12 * NS_PER_SEC:
            assert 0.99 < rate < 1.01  # settled: 5 ms per second, and the drift


def test_what_a_server_had_kept_comes_in_a_burst() -> None:
    metrics = StageMetrics("cam")
    clock_map = ClockMap(metrics)
    burst = [2 * NS_PER_SEC - i * ms(39) for i in range(50)]
    errors_ms(clock_map, 0, burst)
    errors = errors_ms(clock_map, 0, delays("late", 1_000), first=50)
    assert abs(errors[5]) < 60
    assert max(map(abs, errors[75:])) < 10
    assert not metrics.dropped


def test_what_a_network_held_up_moves_nothing() -> None:
    clock_map, metrics = settled()
    drift_ppm = clock_map.drift_ppm
    held_up = [9 * NS_PER_SEC - i * ms(39) for i in range(225)]
    errors = errors_ms(clock_map, 0, held_up, first=500)
    assert max(map(abs, errors)) < 1
    errors = errors_ms(clock_map, 0, [0] * 500, first=725)
    assert max(map(abs, errors)) < 1
    assert clock_map.drift_ppm == drift_ppm
    assert not metrics.dropped


@given(
    jump_ns=st.one_of(st.integers(ms(120), 10**17), st.integers(-(10**17), -ms(2_000))),
    noise=st.sampled_from(["late", "both"]),
)
@settings(max_examples=40)
def test_a_jump_is_believed_within_half_a_second(jump_ns: int, noise: Noise) -> None:
    clock_map, metrics = settled(noise)
    for i in range(500, 600):
        true_ns = i * FRAME_NS
        stamp_ns = true_ns + jump_ns
        clock_map.see(stamp_ns, OURS_NS + true_ns)
        at_ns, end_ns = clock_map.at_ns(stamp_ns), clock_map.at_ns(stamp_ns + FRAME_NS)
        assert end_ns > at_ns
        if i >= 512 or (noise == "late" and i >= 500):
            assert at_ns == pytest.approx(OURS_NS + true_ns, abs=ms(1))
    assert metrics.dropped == {"clock_step": 1}
    before_ns = 499 * FRAME_NS
    if jump_ns > NS_PER_SEC:  # what was inside a decoder keeps its time
        assert clock_map.at_ns(before_ns) == OURS_NS + before_ns


@given(
    lie_ns=st.integers(-(10**17), 10**17).filter(lambda lie_ns: not -ms(2_000) < lie_ns < ms(150))
)
def test_a_wild_stamp_moves_nothing(lie_ns: int) -> None:
    clock_map, metrics = settled()
    true_ns = 500 * FRAME_NS
    clock_map.see(true_ns + lie_ns, OURS_NS + true_ns)
    assert clock_map.at_ns(true_ns + lie_ns) == pytest.approx(OURS_NS + true_ns, abs=ms(1))
    assert max(map(abs, errors_ms(clock_map, 0, [0] * 200, first=501))) < 0.01
    assert metrics.dropped == {"clock_outlier": 1}


def test_stamps_that_repeat_or_go_back_a_little_are_taken() -> None:
    clock_map, metrics = settled()
    order = [500, 503, 501, 502, 502, 504, 507, 505, 506]  # pictures that depend on later ones
    for i in order:
        clock_map.see(i * FRAME_NS, OURS_NS + 507 * FRAME_NS)
        assert clock_map.at_ns(i * FRAME_NS) == pytest.approx(OURS_NS + i * FRAME_NS, abs=ms(1))
    assert not metrics.dropped


def test_a_device_that_paused_without_saying_so_is_found_out_in_seconds() -> None:
    clock_map, metrics = settled()
    errors_ms(clock_map, 0, [5 * NS_PER_SEC] * 125, first=500)
    assert metrics.dropped == {"clock_step": 1}
    errors = errors_ms(clock_map, 0, [5 * NS_PER_SEC] * 50, first=625)
    assert errors == pytest.approx([5_000] * 50)


def test_both_streams_of_a_camera_may_feed_one() -> None:
    metrics = StageMetrics("cam")
    clock_map = ClockMap(metrics)
    rng = np.random.default_rng(3)
    worst_ms = 0.0
    items = sorted([(i * ms(40), 0) for i in range(1_500)] + [(i * ms(64), 1) for i in range(937)])
    for true_ns, is_sound in items:
        stamp_ns = round(true_ns * 1.0005) - is_sound * ms(200)  # sound is encoded the sooner
        late_ns = round(rng.exponential(ms(10)))
        clock_map.see(stamp_ns, OURS_NS + true_ns + late_ns)
        error_ns = clock_map.at_ns(stamp_ns) - OURS_NS - true_ns + is_sound * ms(200)
        if true_ns > 5 * NS_PER_SEC:
            worst_ms = max(worst_ms, abs(error_ns) / 1e6)
    assert worst_ms < 10
    assert clock_map.drift_ppm == pytest.approx(500, abs=30)
    assert not metrics.dropped
