"""What a source's health says of its pictures and its sound."""

import numpy as np
import pytest
from streams import RATE_HZ, chunk_ms, frame, ms, pictures, started

from mmstream.media import AudioChunk, SourceStarted, SourceSynced, StreamClock
from mmstream.messages import Health, HealthState
from mmstream.metrics import SourceStatus
from mmstream.runtime.gauge import SourceGauge


def tone(start_ms: float, end_ms: float, amplitude: float) -> AudioChunk:
    n_samples = round((end_ms - start_ms) * RATE_HZ / 1000)
    return AudioChunk("cam", ms(start_ms), RATE_HZ, np.full(n_samples, amplitude, np.float32))


def test_a_source_that_is_being_opened() -> None:
    gauge = SourceGauge("cam", 1_000_000_000)
    assert gauge.status() == SourceStatus(
        "cam", "connecting", "opening", "1970-01-01T00:00:01.000Z", None, None, None
    )
    assert gauge.health() == Health(
        source="cam", state="connecting", reason="opening", since="1970-01-01T00:00:01.000Z"
    )


def test_rate_and_level_are_of_capture_time() -> None:
    gauge = SourceGauge("cam", 0)
    gauge.enter("online", "streaming", 2_000_000_000)
    for item in (started(), *pictures(0, 3, fps=25), tone(0, 500, 0.5), tone(500, 1000, -0.5)):
        gauge.see(item)
    gauge.lag_ms = 12.5
    gauge.n_restarts = 3
    assert gauge.status() == SourceStatus(
        "cam", "online", "streaming", "1970-01-01T00:00:02.000Z", 25.0, -6.0, 12.5
    )
    assert gauge.health() == Health(
        source="cam",
        state="online",
        reason="streaming",
        since="1970-01-01T00:00:02.000Z",
        video_fps=25.0,
        audio_rms=-6.0,
        restarts=3,
    )


def test_only_the_last_two_seconds_count() -> None:
    gauge = SourceGauge("cam", 0)
    for item in (started(), *pictures(0, 10, fps=10), *pictures(10, 13, fps=30)):
        gauge.see(item)
    for index in range(50):
        gauge.see(tone(100 * index, 100 * index + 100, 1.0 if index < 20 else 0.1))
    assert gauge.status().video_fps == 30.0
    assert gauge.status().audio_dbfs == -20.0


def test_streams_that_are_not_there_have_no_rate() -> None:
    gauge = SourceGauge("cam", 0)
    gauge.see(started(["audio"]))
    assert (gauge.status().video_fps, gauge.status().audio_dbfs) == (None, -120.0)
    gauge.see(started(["video"]))
    assert (gauge.status().video_fps, gauge.status().audio_dbfs) == (0.0, None)


def test_one_picture_is_no_rate_yet() -> None:
    gauge = SourceGauge("cam", 0)
    for item in (started(), frame(0)):
        gauge.see(item)
    assert gauge.status().video_fps == 0.0
    gauge.see(frame(ms(50)))
    assert gauge.status().video_fps == 20.0


def test_pictures_with_the_same_instant_do_not_divide_by_zero() -> None:
    gauge = SourceGauge("cam", 0)
    for item in (started(), frame(0), frame(0)):
        gauge.see(item)
    assert gauge.status().video_fps == 1e9


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), 1e-30])
def test_silence_and_what_is_no_number_have_the_lowest_level(value: float) -> None:
    gauge = SourceGauge("cam", 0)
    for item in (started(), tone(0, 100, value)):
        gauge.see(item)
    assert gauge.status().audio_dbfs == -120.0


def test_a_new_start_counts_anew() -> None:
    gauge = SourceGauge("cam", 0)
    for item in (started(), *pictures(100, 102), chunk_ms(0, 100), started()):
        gauge.see(item)
    assert (gauge.status().video_fps, gauge.status().audio_dbfs) == (0.0, -120.0)
    for item in pictures(0, 1, fps=10):
        gauge.see(item)
    assert gauge.status().video_fps == 10.0


@pytest.mark.parametrize("state", ["stalled", "offline"])
def test_a_source_that_sends_nothing_has_no_rate(state: HealthState) -> None:
    gauge = SourceGauge("cam", 0)
    for item in (started(), *pictures(0, 2), tone(0, 500, 0.5)):
        gauge.see(item)
    gauge.enter(state, "nothing came", 0)
    assert (gauge.status().video_fps, gauge.status().audio_dbfs) == (0.0, -120.0)


def test_it_does_not_grow() -> None:
    gauge = SourceGauge("cam", 0)
    gauge.see(started())
    for index in range(5_000):
        gauge.see(frame(index))
        gauge.see(tone(0, 1, 0.5))
    assert gauge.status().video_fps == 1e9  # of the last 1024, all within 2 s
    assert gauge.status().audio_dbfs == -6.0


def test_drift_and_synchrony_are_of_the_present_start() -> None:
    gauge = SourceGauge("cam", 0)
    unsynced = SourceStarted("cam", frozenset(["audio", "video"]), 0, 0, synced=False)
    gauge.see(unsynced)
    assert (gauge.health().synced, gauge.health().video_drift_ppm) == (False, None)
    for item in (
        SourceSynced("cam"),
        StreamClock("cam", "video", 12.34),
        StreamClock("cam", "audio", -499.96),
        StreamClock("cam", "video", 20.0),
    ):
        gauge.see(item)
    health = gauge.health()
    assert (health.synced, health.video_drift_ppm, health.audio_drift_ppm) == (True, 20.0, -500.0)
    gauge.see(unsynced)
    health = gauge.health()
    assert (health.synced, health.video_drift_ppm, health.audio_drift_ppm) == (False, None, None)


def test_another_reason_for_the_same_state_does_not_begin_it_anew() -> None:
    gauge = SourceGauge("cam", 0)
    gauge.enter("offline", "refused", 1_000_000_000)
    gauge.enter("offline", "no route", 2_000_000_000)
    assert gauge.health().reason == "no route"
    assert gauge.health().since == "1970-01-01T00:00:01.000Z"
    gauge.enter("online", "streaming", 3_000_000_000)
    assert gauge.health().since == "1970-01-01T00:00:03.000Z"
