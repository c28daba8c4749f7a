import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from recordings import read_sound

from mmstream.clock import ManualClock
from mmstream.codecs import image_from_array
from mmstream.detectors.condition import ConditionScorer, ConditionSettings
from mmstream.features.video import fit_luma
from mmstream.heads.events import EventHead
from mmstream.heads.lifecycle import LabelSettings
from mmstream.media import (
    NS_PER_SEC,
    Bytes,
    Floats,
    Hop,
    Label,
    Scores,
    SourceEnded,
    SourceStarted,
    Span,
    VideoFrame,
    ns_to_samples,
    read_only,
)
from mmstream.messages import Event
from mmstream.sources.media import MediaFile, MediaSettings
from mmstream.stages import Load

RATE_HZ = 16_000
HOP_NS = NS_PER_SEC // 4
SETTINGS = {
    "camera_blocked": LabelSettings(for_secs=1.5, within_secs=4, min_off_secs=2),
    "audio_lost": LabelSettings(for_secs=5, within_secs=8, min_off_secs=2),
}
NO_SOUND = np.zeros(0, np.float32)
Spoil = Callable[[Bytes], Bytes]


@dataclass(frozen=True)
class Found:
    """An event: its label, times in seconds, and what the detections in that time note."""

    label: str
    start: float
    end: float
    notes: str


def read_frames(path: Path) -> list[VideoFrame]:
    """Small pictures of a recording, about 5 a second."""
    media = MediaFile("cam", MediaSettings(url=str(path), pace="max"), ManualClock())
    frames: list[VideoFrame] = []
    with media.read() as items:
        for item in items:
            if not isinstance(item, VideoFrame):
                continue
            if not frames or item.start_ns - frames[-1].start_ns >= 180_000_000:
                luma = fit_luma(item.image.luma, max_width=320, max_height=180)
                frames.append(replace(item, image=image_from_array(luma, "gray")))
    return frames


def frames_of(pictures: Sequence[Bytes]) -> list[VideoFrame]:
    """5 a second."""
    return [
        VideoFrame("cam", n * NS_PER_SEC // 5, image_from_array(picture, "gray"))
        for n, picture in enumerate(pictures)
    ]


def spoilt(frames: Sequence[VideoFrame], start: float, end: float, spoil: Spoil) -> list[Bytes]:
    """The pictures, those between `start` and `end` seconds spoilt."""
    times = [frame.start_ns / NS_PER_SEC for frame in frames]
    lumas = [frame.image.luma for frame in frames]
    return [spoil(one) if start <= at < end else one for at, one in zip(times, lumas, strict=True)]


def retimed(frames: Sequence[VideoFrame], pictures: Sequence[Bytes]) -> list[VideoFrame]:
    return [
        VideoFrame("cam", frame.start_ns, image_from_array(np.ascontiguousarray(picture), "gray"))
        for frame, picture in zip(frames, pictures, strict=True)
    ]


def noisy(luma: NDArray[np.float64], deviation: float = 0.4) -> Bytes:
    """0.4 levels are 1 level before the picture was made small."""
    noise = deviation * _noise(*luma.shape)
    return np.asarray((luma + noise).round().clip(16, 235), np.uint8)


@cache
def _noise(height: int, width: int) -> NDArray[np.float64]:
    """[height, width], deviation 1."""
    return read_only(np.random.default_rng(height).normal(0, 1, (height, width)))


def blurred(luma: Bytes) -> Bytes:
    """By 1/50 of its width: a lens out of focus, a film of rain."""
    return np.asarray(cv2.GaussianBlur(luma, (0, 0), luma.shape[1] / 50), np.uint8)


def covered(luma: Bytes) -> Bytes:
    """By something dark, near and out of focus that lets a little light through: a hand."""
    down, across = np.meshgrid(*(np.linspace(0, 1, n) for n in luma.shape), indexing="ij")
    hand = 45 + 15 * np.sin(3 * across + 1) * np.cos(2 * down)
    return noisy(0.95 * hand + 0.05 * cv2.blur(luma, (luma.shape[1] // 3, luma.shape[1] // 3)))


def black(luma: Bytes) -> Bytes:
    return noisy(np.full(luma.shape, 17.0))


def dimmed(luma: Bytes) -> Bytes:
    """The lamp goes out, some light is left."""
    return noisy(16 + (luma.astype(np.float64) - 16) / 4)


def hops_of(
    frames: Sequence[VideoFrame] = (),
    samples: Floats = NO_SOUND,
    *,
    heard: NDArray[np.bool_] | None = None,
    hop_ns: int = HOP_NS,
    rate_hz: int = RATE_HZ,
    source: str = "cam",
) -> list[Hop]:
    """Hops as windows cut them; what fills no hop is left out."""
    is_heard = np.ones(samples.size, np.bool_) if heard is None else heard
    last_ns = frames[-1].start_ns if frames else samples.size * NS_PER_SEC // rate_hz - hop_ns
    hops = []
    for index in range(last_ns // hop_ns + 1):
        span = Span(index * hop_ns, (index + 1) * hop_ns)
        here = slice(*(ns_to_samples(at, rate_hz) for at in (span.start_ns, span.end_ns)))
        part, flags = samples[here].copy(), is_heard[here].copy()
        inside = tuple(frame for frame in frames if span.contains(frame.start_ns))
        hops.append(Hop(source, index, span, rate_hz, part, flags, inside))
    return hops


def scored(hops: Sequence[Hop], scorer: ConditionScorer | None = None) -> list[Scores]:
    scorer = scorer or ConditionSettings().build("cpu")
    return [score for hop in hops for score in scorer.score([hop], (), Load.FULL)]


def points(scores: Sequence[Scores], label: str) -> list[tuple[float, float]]:
    """(seconds, score) as they were told."""
    told = [score.outputs[label] for score in scores if label in score.outputs]
    return [
        (at_ns / NS_PER_SEC, value)
        for series in told
        for at_ns, value in zip(series.at_ns.tolist(), series.values.tolist(), strict=True)
    ]


def events(hops: Sequence[Hop]) -> list[Found]:
    """What the head makes of them."""
    labels = ConditionSettings().labels
    head = EventHead(node="here", source="cam", labels=labels, settings=SETTINGS)
    head.push(SourceStarted("cam", frozenset({"audio", "video"}), 0, None))
    scores = scored(hops)
    decided = [one for score in scores for one in head.push(score)]
    decided += head.push(SourceEnded("cam"))
    ended = [one.content for one in decided if isinstance(one.content, Event)]
    return [
        _found(event, scores) for event in ended if event.type == "end" and event.t_end is not None
    ]


def _found(event: Event, scores: Sequence[Scores]) -> Found:
    end = event.t_end or event.t_start
    notes = {
        detection.note or ""
        for score in scores
        for detection in score.detections
        if detection.label == event.label
        and event.t_start - 0.01 <= detection.at_ns / NS_PER_SEC <= end + 0.01
    }
    return Found(event.label, event.t_start, end, " ".join(sorted(notes)))


# --- the camera ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def road(data_dir: Path) -> list[VideoFrame]:
    return read_frames(data_dir / "surveillance/car_detection.mp4")


@pytest.fixture(scope="module")
def clips(data_dir: Path, road: list[VideoFrame]) -> dict[str, list[VideoFrame]]:
    folder = data_dir / "surveillance"
    names = "night_city_billboards.mp4", "highway_day.avi"
    return {"car_detection.mp4": road, **{name: read_frames(folder / name) for name in names}}


@pytest.mark.parametrize(
    ("spoil", "note"), [(blurred, "blurred"), (covered, "covered"), (black, "black")]
)
def test_a_camera_that_sees_no_more_is_told_within_2_s(
    clips: dict[str, list[VideoFrame]], spoil: Spoil, note: str
) -> None:
    for name, frames in clips.items():
        start, last = 6.5, frames[-1].start_ns / NS_PER_SEC
        end = min(16.0, last - 2.5)
        (one,) = events(hops_of(retimed(frames, spoilt(frames, start, end, spoil))))
        assert (one.label, one.notes) == ("camera_blocked", note), name
        assert start <= one.start <= start + 0.5, name
        assert end - 0.5 <= one.end <= end + 0.5, name


def test_a_frozen_picture_is_told_after_10_s_and_back_to_its_first(
    road: list[VideoFrame],
) -> None:
    index = next(n for n, frame in enumerate(road) if frame.start_ns >= 6.5e9)
    last = next(n for n, frame in enumerate(road) if frame.start_ns >= 20e9)
    pictures = [frame.image.luma for frame in road]
    pictures[index:last] = [pictures[index]] * (last - index)
    frames = retimed(road, pictures)
    hops = hops_of(frames)
    (one,) = events(hops)
    assert one.notes == "frozen"
    assert abs(one.start - frames[index].start_ns / 1e9) <= 0.3
    assert abs(one.end - frames[last].start_ns / 1e9) <= 0.5
    known = next(n for n, score in enumerate(scored(hops)) if score.detections)
    assert hops[known].span.end_ns / 1e9 == pytest.approx(16.7, abs=0.5)
    # Five seconds of the same picture are no freeze.
    pictures[index + 25 : last] = [frame.image.luma for frame in road[index + 25 : last]]
    assert events(hops_of(retimed(road, pictures))) == []


def test_less_light_is_not_blocked_and_nothing_in_real_scenes_is(
    clips: dict[str, list[VideoFrame]],
) -> None:
    for name, frames in clips.items():
        assert events(hops_of(frames)) == [], name
        assert events(hops_of(retimed(frames, spoilt(frames, 6, 99, dimmed)))) == [], name


@pytest.mark.parametrize(
    "name",
    [
        "surveillance/garden_brightness_change.avi",
        "surveillance/pedestrians_pavement.mp4",
        "surveillance/marathon_runners.mp4",
        "av_clips/chaplin.mp4",
        "av_clips/his_girl_friday.mp4",
        "av_clips/desks.3gp",
        "av_clips/rabbit_figurine.mp4",
    ],
)
def test_clips_with_motion_cuts_and_light_are_not_blocked(data_dir: Path, name: str) -> None:
    assert events(hops_of(read_frames(data_dir / name))) == []


def test_an_empty_room_is_neither_frozen_nor_covered(data_dir: Path) -> None:
    assert events(hops_of(read_frames(data_dir / "surveillance/one_by_one_person.mp4"))) == []


def test_a_dark_start_is_black_at_once_and_a_dark_night_with_a_lamp_is_not() -> None:
    dark = black(np.zeros((90, 160), np.uint8))
    assert points(scored(hops_of(frames_of([dark] * 5))), "camera_blocked")[0] == (0.0, 1.0)
    lamp = dark.copy()
    lamp[40:50, 70:90] = 200
    assert not any(
        score for _, score in points(scored(hops_of(frames_of([lamp] * 9))), "camera_blocked")
    )


def test_a_plain_wall_has_no_detail_to_lose() -> None:
    wall = np.full((90, 160), 120, np.uint8)
    pictures = [wall] * 30 + [np.full((90, 160), 60, np.uint8)] * 30
    assert events(hops_of(frames_of(pictures))) == []


def test_pictures_that_stay_away_are_not_frozen(road: list[VideoFrame]) -> None:
    same = retimed(road, [road[0].image.luma] * len(road))
    few = [frame for frame in same if frame.start_ns % (3 * NS_PER_SEC) < 0.2e9]
    assert len(few) > 8
    assert not any(score for _, score in points(scored(hops_of(few)), "camera_blocked"))


# --- the microphone -----------------------------------------------------------------------------


def zeros(samples: Floats) -> Floats:
    return np.zeros_like(samples)


def unplugged(samples: Floats) -> Floats:
    """What a converter gives by itself."""
    dither = np.random.default_rng(0).triangular(-1, 0, 1, samples.size)
    return (np.round(dither) / 32_768).astype(np.float32)


def clipped(samples: Floats) -> Floats:
    """A recording that used all of the scale, 8 times too loud."""
    return np.asarray((8 * samples / np.abs(samples).max()).clip(-1, 1), np.float32)


def offset(samples: Floats) -> Floats:
    return samples + np.float32(0.3)


def humming(hz: float) -> Callable[[Floats], Floats]:
    def hum(samples: Floats) -> Floats:
        at_secs = np.arange(samples.size) / RATE_HZ
        tones = sum(np.sin(2 * np.pi * hz * n * at_secs + n) / n for n in (1, 2, 3, 5))
        level = 6 * np.sqrt(np.mean(samples**2))
        return np.asarray(samples + level * tones, np.float32)

    return hum


@pytest.mark.parametrize("name", ["mdn_guitar.mp3", "concert_crowd.mp3", "moviepy_rain.mp3"])
@pytest.mark.parametrize(
    ("spoil", "note"),
    [
        (zeros, "dead"),
        (unplugged, "dead"),
        (offset, "dc"),
        (humming(50), "hum"),
        (humming(60), "hum"),
    ],
)
def test_a_microphone_that_hears_no_more_is_told_within_2_s(
    data_dir: Path, name: str, spoil: Callable[[Floats], Floats], note: str
) -> None:
    samples = np.resize(read_sound(data_dir / "audio_events" / name), 40 * RATE_HZ)
    here = slice(round(14.2 * RATE_HZ), round(30.3 * RATE_HZ))
    samples[here] = spoil(samples[here])
    (one,) = events(hops_of(samples=samples))
    assert (one.label, one.notes) == ("audio_lost", note)
    assert abs(one.start - 14.2) <= 2
    assert abs(one.end - 30.3) <= 2


@pytest.mark.parametrize(
    "name", ["concert_crowd.mp3", "max_piano.flac", "max_snoring.flac", "max_birds1.flac"]
)
def test_a_microphone_that_is_driven_too_far_is_told(data_dir: Path, name: str) -> None:
    samples = np.resize(read_sound(data_dir / "audio_events" / name), 30 * RATE_HZ)
    samples[10 * RATE_HZ :] = clipped(samples[10 * RATE_HZ :])
    (one,) = events(hops_of(samples=samples))
    assert (one.label, one.notes, one.end) == ("audio_lost", "clipping", 30)
    assert 10 <= one.start <= 11


def test_a_microphone_far_below_its_own_floor_is_dead_and_a_soft_one_is_not() -> None:
    rng = np.random.default_rng(0)
    room = rng.normal(0, 10 ** (-45 / 20), 20 * RATE_HZ).astype(np.float32)
    soft = rng.normal(0, 10 ** (-80 / 20), 20 * RATE_HZ).astype(np.float32)
    (one,) = events(hops_of(samples=np.concatenate((room, soft))))
    assert (one.start, one.notes) == (20, "dead")
    assert events(hops_of(samples=soft)) == []


def test_a_silent_track_is_lost_from_its_start(data_dir: Path) -> None:
    samples = read_sound(data_dir / "surveillance/car_detection.mp4")
    (one,) = events(hops_of(samples=samples))
    assert (one.label, one.start, one.notes) == ("audio_lost", 0, "dead")
    assert one.end > 29


def test_an_offset_in_a_real_recording_is_told(data_dir: Path) -> None:
    samples = read_sound(data_dir / "audio_events/librosa_humpback.ogg")
    (one,) = events(hops_of(samples=samples))
    assert one.notes == "dc"


def test_other_recordings_are_not_lost(data_dir: Path) -> None:
    folders = "audio_events", "speech", "av_clips"
    paths = [path for folder in folders for path in sorted((data_dir / folder).iterdir())]
    paths += sorted((data_dir / "esc10/audio").iterdir())[::8]
    silent = {"pe_dog_noaudio.mp4", "librosa_humpback.ogg"}
    heard = [path for path in paths if path.name not in silent]
    assert len(heard) > 100
    lost = [p.name for p in heard if events(hops_of(samples=read_sound(p)))]
    assert lost == []


def test_missing_sound_has_no_score() -> None:
    samples = np.random.default_rng(0).normal(0, 0.01, 4 * RATE_HZ).astype(np.float32)
    heard = np.ones(samples.size, np.bool_)
    heard[RATE_HZ + 10] = False
    at_secs = [at for at, _ in points(scored(hops_of(samples=samples, heard=heard)), "audio_lost")]
    assert at_secs == [0, 0.5, 1.5, 2, 2.5, 3, 3.5]
    hops = hops_of(samples=samples)
    at_secs = [at for at, _ in points(scored(hops[:5] + hops[7:]), "audio_lost")]
    assert at_secs == [0, 0.5, 2, 2.5, 3, 3.5]


# --- state --------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(
    hop_ms=st.sampled_from([10, 33, 100, 250, 1000, 3000]),
    rate_hz=st.sampled_from([8000, 16_000, 44_100]),
    dead_secs=st.tuples(st.floats(0, 5), st.floats(0, 5)),
)
def test_how_hops_are_cut_changes_nothing(
    hop_ms: int, rate_hz: int, dead_secs: tuple[float, float]
) -> None:
    samples = np.random.default_rng(0).normal(0, 0.01, 9 * rate_hz).astype(np.float32)
    start, secs = dead_secs
    samples[round(start * rate_hz) : round((start + secs) * rate_hz)] = 0
    pictures = [noisy(np.full((18, 32), 40.0 + 5 * (n > 20)), 9) for n in range(45)]
    frames = frames_of(pictures)
    one = scored(hops_of(frames, samples, rate_hz=rate_hz))
    two = scored(hops_of(frames, samples, rate_hz=rate_hz, hop_ns=hop_ms * 1_000_000))
    for label in ("camera_blocked", "audio_lost"):
        first, second = points(one, label), points(two, label)
        n = min(len(first), len(second))
        assert n >= 12
        assert first[:n] == second[:n]


def test_sources_do_not_touch_each_other_and_forgetting_learns_anew(
    road: list[VideoFrame],
) -> None:
    blurry = retimed(road[:60], spoilt(road[:60], 6, 99, blurred))
    hops, others = hops_of(blurry), hops_of(road[:60], source="other")
    alone = scored(hops)
    assert any(score.detections for score in alone)
    scorer = ConditionSettings().build("cpu")
    pairs = [scorer.score(pair, (), Load.FULL) for pair in zip(others, hops, strict=True)]
    for mine, (other, cam) in zip(alone, pairs, strict=True):
        assert (other.source, cam.source, other.detections) == ("other", "cam", ())
        assert cam.detections == mine.detections
    scorer.forget("cam")
    scorer.forget("never seen")
    assert not any(score.detections for score in scored(hops[30:], scorer))


def test_without_sound_or_pictures_there_is_no_output() -> None:
    silent = Hop("cam", 0, Span(0, HOP_NS), RATE_HZ, NO_SOUND, np.zeros(0, np.bool_), ())
    scores = ConditionSettings().build("cpu").score([silent, silent], (), Load.FULL)
    assert [(score.index, score.outputs, score.detections) for score in scores] == [(0, {}, ())] * 2


def test_the_spec_survives_pickling_and_names_its_labels() -> None:
    spec = pickle.loads(pickle.dumps(ConditionSettings()))  # noqa: S301 - our own bytes
    assert spec == ConditionSettings()
    assert spec.labels == (
        Label("camera_blocked", "video", "condition"),
        Label("audio_lost", "audio", "condition"),
    )
