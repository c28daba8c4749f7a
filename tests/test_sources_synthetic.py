"""The synthetic source as others see it: order, instants, pace and settings."""

from datetime import UTC, datetime
from itertools import islice, pairwise
from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mmstream.clock import ManualClock
from mmstream.media import (
    NS_PER_SEC,
    AudioChunk,
    MediaItem,
    SourceEnded,
    SourceStarted,
    VideoFrame,
    secs_to_ns,
)
from mmstream.sources.pacing import due_ns
from mmstream.sources.synthetic import SyntheticSettings, SyntheticSource
from mmstream.stages import Reader
from mmstream.windows import HopCutter, HopSettings

SMALL: Final = SyntheticSettings(
    scene="flash_beep", width=64, height=64, duration_secs=4, pace="max"
)


def with_changes(**changes: object) -> SyntheticSettings:
    return SyntheticSettings.model_validate(SMALL.model_dump() | changes)


def items_of(
    chosen: SyntheticSettings, clock: ManualClock | None = None, n: int | None = None
) -> list[MediaItem]:
    return taken(SyntheticSource("test", chosen, clock or ManualClock()), n)


def taken(reader: Reader, n: int | None) -> list[MediaItem]:
    with reader.read() as items:
        return list(islice(items, n))


def seen(items: list[MediaItem]) -> list[VideoFrame]:
    return [item for item in items if isinstance(item, VideoFrame)]


def heard(items: list[MediaItem]) -> list[AudioChunk]:
    return [item for item in items if isinstance(item, AudioChunk)]


def started(items: list[MediaItem]) -> SourceStarted:
    assert isinstance(items[0], SourceStarted)
    return items[0]


def is_same(one: MediaItem, other: MediaItem) -> bool:
    """Equal with its samples and pixels."""
    match one, other:
        case AudioChunk(), AudioChunk():
            return one.start_ns == other.start_ns and np.array_equal(one.samples, other.samples)
        case VideoFrame(), VideoFrame():
            pictures = (one.image.rgb(), other.image.rgb())
            return one.start_ns == other.start_ns and np.array_equal(*pictures)
    return one == other


def test_it_starts_then_sends_both_streams_in_the_order_of_a_camera() -> None:
    items = items_of(SMALL)
    assert started(items).streams == {"audio", "video"}
    dues_ns = [due_ns(item) for item in items[1:] if isinstance(item, AudioChunk | VideoFrame)]
    assert len(dues_ns) == len(items) - 1
    assert dues_ns == sorted(dues_ns)
    assert [frame.start_ns for frame in seen(items)] == [n * NS_PER_SEC // 20 for n in range(80)]
    assert [chunk.start_ns for chunk in heard(items)] == [n * NS_PER_SEC // 50 for n in range(200)]


@given(
    rate_hz=st.sampled_from([8000, 11_025, 16_000, 22_050, 44_100, 48_000]),
    fps=st.sampled_from([7.5, 29.97, 60.0]),
    duration_secs=st.floats(0.001, 1.5),
)
@settings(max_examples=20)
def test_any_format_is_contiguous_and_as_long_as_asked(
    rate_hz: int, fps: float, duration_secs: float
) -> None:
    chosen = with_changes(fps=fps, duration_secs=duration_secs)
    items = taken(SyntheticSource("test", chosen, ManualClock(), rate_hz=rate_hz), None)
    chunks, frames = heard(items), seen(items)
    assert sum(chunk.samples.size for chunk in chunks) == pytest.approx(
        duration_secs * rate_hz, abs=0.51
    )
    assert all(abs(two.start_ns - one.end_ns) <= 1 for one, two in pairwise(chunks))
    assert len(frames) == pytest.approx(duration_secs * fps, abs=1)
    assert all(frame.start_ns < secs_to_ns(duration_secs) for frame in frames)
    assert frames[-1].start_ns == round((len(frames) - 1) * NS_PER_SEC / fps)


@pytest.mark.parametrize("scene", ["flash_beep", "shapes", "demo"])
def test_two_readings_give_the_same_items(scene: str) -> None:
    source = SyntheticSource("test", with_changes(scene=scene), ManualClock())
    with source.read() as first, source.read() as second:
        assert all(is_same(one, other) for one, other in zip(first, second, strict=True))


def test_a_longer_source_begins_like_a_shorter_one() -> None:
    short, long = items_of(SMALL), items_of(with_changes(duration_secs=9))
    assert all(is_same(one, other) for one, other in zip(short, long, strict=False))


def test_samples_and_pictures_are_those_of_the_scene() -> None:
    source = SyntheticSource("test", with_changes(scene="demo"), ManualClock())
    with source.read() as read:
        items = list(read)
    chunks = np.concatenate([chunk.samples for chunk in heard(items)])
    assert np.array_equal(chunks, source.scene.samples(0, 4 * 16_000))
    for frame in seen(items)[::7]:
        assert np.array_equal(frame.image.rgb(), source.scene.picture(frame.start_ns))


def test_grey_scenes_are_as_bright_as_drawn() -> None:
    source = SyntheticSource("test", SMALL, ManualClock())
    with source.read() as read:
        last = seen(list(read))[-1]
    assert np.array_equal(last.image.luma, source.scene.picture(last.start_ns))


def test_real_time_takes_as_long_as_life() -> None:
    clock = ManualClock(monotonic_ns=5_000, utc_ns=secs_to_ns(1_000_000))
    items = items_of(with_changes(pace="realtime"), clock)
    assert started(items).clock_offset_ns == 5_000
    assert started(items).utc_offset_ns == secs_to_ns(1_000_000)
    assert clock.monotonic_ns() - 5_000 == pytest.approx(secs_to_ns(4), abs=secs_to_ns(0.1))


def test_real_time_is_kept_when_stamps_are_wrong() -> None:
    clock = ManualClock()
    faults = [{"kind": "reset", "stream": stream, "at_secs": 2} for stream in ("audio", "video")]
    items = items_of(with_changes(pace="realtime", faults=faults), clock)
    assert seen(items)[-1].start_ns == pytest.approx(secs_to_ns(4), abs=secs_to_ns(0.1))
    assert clock.monotonic_ns() == pytest.approx(secs_to_ns(4), abs=secs_to_ns(0.1))


def test_everything_comes_when_it_is_due_and_is_counted() -> None:
    clock = ManualClock()
    source = SyntheticSource("test", with_changes(pace="realtime"), clock)
    with source.read() as items:
        for n, item in enumerate(items, start=1):
            assert source.metrics[0].n_out == n
            if isinstance(item, AudioChunk | VideoFrame):
                assert abs(due_ns(item) - clock.monotonic_ns()) < 1000


def test_as_fast_as_can_be_has_no_latency_to_speak_of() -> None:
    clock = ManualClock(monotonic_ns=5_000, utc_ns=7_000)
    items = items_of(SMALL, clock)
    assert clock.monotonic_ns() == 5_000
    assert started(items).clock_offset_ns is None
    assert started(items).utc_offset_ns == 0


@pytest.mark.parametrize(
    ("pace", "epoch", "utc_ns"),
    [
        ("max", None, 0),
        ("max", "now", 7_000),
        ("realtime", None, 7_000),
        ("max", "2026-11-23T10:00:00.25+01:00", 1_795_424_400_250_000_000),
        ("realtime", "1970-01-01T00:00:01Z", 1_000_000_000),
    ],
)
def test_epoch_is_when_the_scene_begins(pace: str, epoch: str | None, utc_ns: int) -> None:
    items = items_of(with_changes(pace=pace, epoch=epoch), ManualClock(utc_ns=7_000), n=1)
    assert started(items).utc_offset_ns == utc_ns


def test_without_a_duration_it_goes_on_for_ever_in_real_time_and_for_a_round_otherwise() -> None:
    changes = {"duration_secs": None, "fps": 1}
    assert len(items_of(with_changes(**changes))) == 1 + 60 * 51
    more = items_of(with_changes(**changes, pace="realtime"), n=1 + 61 * 51)
    assert seen(more)[-1].start_ns == 60 * NS_PER_SEC


def test_it_is_lossless_unless_it_plays_a_camera() -> None:
    assert not SyntheticSource("test", SMALL, ManualClock()).live
    assert SyntheticSource("test", with_changes(live=True), ManualClock()).live


def test_it_can_be_cut_into_hops() -> None:
    cutter = HopCutter("test", HopSettings(), live=False)
    hops = [hop for item in items_of(SMALL) for hop in cutter.push(item)]
    hops += cutter.push(SourceEnded("test"))
    assert [hop.index for hop in hops] == list(range(16))
    assert all(hop.heard.all() and len(hop.frames) == 5 for hop in hops)
    loud = [hop.index for hop in hops if np.abs(hop.samples).max() > 0.1]
    bright = [hop.index for hop in hops if any((f.image.luma > 200).any() for f in hop.frames)]
    assert loud == bright == [12, 13]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"scene": "beach"}, "'flash_beep', 'shapes' or 'demo'"),
        ({"width": 8}, "greater than or equal to 64"),
        ({"pace": "slow"}, "'realtime' or 'max'"),
        ({"epoch": "2026-11-23T10:00:00"}, "timezone"),
        ({"duration_secs": 0}, "greater than 0"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_wrong_settings_are_refused_with_what_is_allowed(
    changes: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        with_changes(**changes)


def test_settings_go_through_json_unchanged() -> None:
    chosen = with_changes(
        epoch=datetime(2026, 11, 23, tzinfo=UTC),
        faults=[{"kind": "drift", "stream": "audio", "ppm": 200}],
    )
    assert SyntheticSettings.model_validate_json(chosen.model_dump_json()) == chosen
