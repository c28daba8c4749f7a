"""Timestamps that lie, put right: resets of both streams, holes, jitter."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmstream.clock import ManualClock
from mmstream.media import NS_PER_SEC, AudioChunk, MediaItem, SourceEnded, VideoFrame, secs_to_ns
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
from mmstream.sources.timeline import JITTER_NS, Timeline, mended
from mmstream.windows import HopCutter, HopSettings

SECS = 8


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


def test_a_reset_of_both_streams_goes_on_in_step() -> None:
    clean, _ = played()
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


def test_a_hole_stays_a_hole() -> None:
    timeline = Timeline(0, StageMetrics("s"))
    assert timeline.place("audio", 0, NS_PER_SEC) == 0
    assert timeline.place("audio", 30 * NS_PER_SEC, NS_PER_SEC) == 30 * NS_PER_SEC


def test_a_small_step_back_is_left_to_the_windows() -> None:
    timeline = Timeline(0, StageMetrics("s"))
    timeline.place("video", NS_PER_SEC, 1)
    assert timeline.place("video", NS_PER_SEC // 2, 1) == NS_PER_SEC // 2


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
