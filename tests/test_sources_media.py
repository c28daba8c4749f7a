import os
import socket
import threading
import wave
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice, pairwise, takewhile
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media_factory import FLASH_NS, FlashBeep, Sound, Video, make_flash_beep, write_media
from pydantic import ValidationError

from mmstream.clock import ManualClock
from mmstream.errors import SourceError
from mmstream.media import (
    NS_PER_SEC,
    AudioChunk,
    Bytes,
    Floats,
    MediaItem,
    SourceStarted,
    StreamBound,
    StreamKind,
    VideoFrame,
    secs_to_ns,
)
from mmstream.sources.media import MediaFile, MediaSettings
from mmstream.sources.pacing import due_ns

RATE_HZ = 16_000
SAMPLE_NS = NS_PER_SEC // RATE_HZ
CLIPS = [
    "av_clips/bear_vp9_opus.webm",
    "av_clips/big_buck_bunny_30s_6ch.mp4",
    "av_clips/big_buck_bunny_320_15fps.mp4",
    "av_clips/big_buck_bunny_5s_720p_6ch.mp4",
    "av_clips/butterfly_209.mp4",
    "av_clips/chaplin.mp4",
    "av_clips/chrome_animation.mp4",
    "av_clips/desks.3gp",
    "av_clips/dog_runs_openl3.mp4",
    "av_clips/face_office_1s.mp4",
    "av_clips/fire_room_dog_vfr.mp4",
    "av_clips/googlework_tiny.mp4",
    "av_clips/his_girl_friday.mp4",
    "av_clips/pe_dog_noaudio.mp4",
    "av_clips/rabbit_figurine.mp4",
    "av_clips/realshort.mp4",
    "av_clips/tears_of_steel_battle.webm",
    "surveillance/car_detection.mp4",
    "surveillance/garden_brightness_change.avi",
    "surveillance/highway_day.avi",
    "surveillance/marathon_runners.mp4",
    "surveillance/night_city_billboards.mp4",
    "surveillance/one_by_one_person.mp4",
    "surveillance/pedestrians_pavement.mp4",
    "surveillance/traffic_camera_vfr.mp4",
    "surveillance/vehicles_suburb.mp4",
    "grid_speakers/lbax4n.mpg",
    "speech/libri_198-209-0000.ogg",
    "speech/silero_vad_test.flac",
    "speech/google_commercial_mono.wav",
    "audio_events/mdn_voices_around_fire.mp3",
]
"""Every container and codec there is, 5.1 and 8 kHz sound, variable frame rates, sound as the first
stream, no sound, no video."""


def media_file(path: Path | str, **options: object) -> MediaFile:
    chosen = MediaSettings.model_validate({"url": str(path), "pace": "max", **options})
    return MediaFile("cam", chosen, ManualClock())


def read(source: MediaFile, until_secs: float = 1e6) -> list[MediaItem]:
    with source.read() as items:
        until_ns = secs_to_ns(until_secs)
        return list(
            takewhile(
                lambda x: (
                    not isinstance(x, AudioChunk | VideoFrame | StreamBound) or due_ns(x) < until_ns
                ),
                items,
            )
        )


def chunks_of(items: Iterable[MediaItem]) -> list[AudioChunk]:
    return [item for item in items if isinstance(item, AudioChunk)]


def frames_of(items: Iterable[MediaItem]) -> list[VideoFrame]:
    return [item for item in items if isinstance(item, VideoFrame)]


def bounds_of(items: Iterable[MediaItem], stream: StreamKind) -> list[StreamBound]:
    return [x for x in items if isinstance(x, StreamBound) and x.stream == stream]


def heard(chunks: Sequence[AudioChunk]) -> Floats:
    """[n] from 0, zeros where nothing came."""
    samples = np.zeros(round(chunks[-1].end_ns / SAMPLE_NS) + 1, np.float32)
    for chunk in chunks:
        start = round(chunk.start_ns / SAMPLE_NS)
        samples[start : start + chunk.samples.size] = chunk.samples
    return samples


def beeps_ns(chunks: Sequence[AudioChunk]) -> list[int]:
    """Where it gets loud after at least 0.3 s of quiet."""
    loud = np.flatnonzero(abs(heard(chunks)) > 0.1)
    return [int(i) * SAMPLE_NS for i in loud[np.diff(loud, prepend=-RATE_HZ) > 0.3 * RATE_HZ]]


def flashes_ns(frames: Sequence[VideoFrame]) -> list[int]:
    """Where the corner that `make_flash_beep` lights turns white."""
    lit = [float(frame.image.luma[:60, :60].mean()) > 180 for frame in frames]
    return [
        b.start_ns for (a, was), (b, now) in pairwise(zip(frames, lit, strict=True)) if now > was
    ]


def lead_secs(items: Sequence[MediaItem]) -> float:
    """How far what is known of one stream ever gets ahead of the other; bounds that were given must
    hold."""
    reached_ns: dict[StreamKind, int] = {}
    worst_ns = 0
    for item, following in zip(items, [*items[1:], None], strict=True):
        match item:
            case SourceStarted():
                reached_ns = dict.fromkeys(item.streams, 0)
            case StreamBound():
                assert item.at_ns > reached_ns[item.stream]
                reached_ns[item.stream] = item.at_ns
            case AudioChunk() | VideoFrame():
                kind: StreamKind = "audio" if isinstance(item, AudioChunk) else "video"
                assert item.start_ns >= reached_ns[kind]
                reached_ns[kind] = due_ns(item)
        if not isinstance(following, StreamBound):
            worst_ns = max(worst_ns, max(reached_ns.values()) - min(reached_ns.values()))
    return worst_ns / NS_PER_SEC


def grey(n: int, size: tuple[int, int] = (64, 48)) -> list[Bytes]:
    """Pictures that tell their number by their brightness."""
    return [np.full((size[1], size[0], 3), 40 + 5 * (i % 40), np.uint8) for i in range(n)]


def tone(secs: float, rate_hz: int = 48_000, hz: float = 440) -> Floats:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(secs * rate_hz)) / rate_hz)).astype(
        np.float32
    )


@pytest.fixture(scope="module")
def flash_beep(tmp_path_factory: pytest.TempPathFactory) -> FlashBeep:
    return make_flash_beep(tmp_path_factory.mktemp("media") / "flash.mp4")


@pytest.fixture(scope="module")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("small")
    tracks = Video(grey(50)), Sound(tone(2, 44_100), rate_hz=44_100)
    return {
        suffix: write_media(folder / f"small.{suffix}", *tracks).read_bytes()
        for suffix in ("mp4", "ts", "flv")
    }


# Every recording


@pytest.mark.parametrize("clip", CLIPS)
def test_items_come_as_from_a_camera(data_dir: Path, clip: str) -> None:
    source = media_file(data_dir / clip)
    items = read(source, until_secs=3)
    started, *rest = items
    assert isinstance(started, SourceStarted)
    assert not any(isinstance(item, SourceStarted) for item in rest)
    chunks, frames = chunks_of(rest), frames_of(rest)
    dues = [due_ns(item) for item in rest if isinstance(item, (AudioChunk, VideoFrame))]
    assert dues == sorted(dues)
    assert 0 in [*(x.start_ns for x in chunks[:1]), *(x.start_ns for x in frames[:1])]
    assert all(a.end_ns <= b.start_ns for a, b in pairwise(chunks))
    assert all(a.start_ns < b.start_ns for a, b in pairwise(frames))
    assert {chunk.rate_hz for chunk in chunks} <= {RATE_HZ}
    assert started.streams == {"audio" for _ in chunks[:1]} | {"video" for _ in frames[:1]}
    assert not source.live
    assert not source.metrics[0].dropped
    assert lead_secs(items) < 0.14


@pytest.mark.parametrize(
    ("clip", "n_frames", "audio_secs"),
    [
        ("av_clips/chaplin.mp4", 241, 9.61),
        ("av_clips/desks.3gp", 71, 5.25),
        ("av_clips/bear_vp9_opus.webm", 82, 2.71),
        ("surveillance/garden_brightness_change.avi", 59, 0),
        ("surveillance/highway_day.avi", 748, 0),
        ("speech/google_commercial_mono.wav", 0, 45.3),
    ],
)
def test_nothing_is_left_out(data_dir: Path, clip: str, n_frames: int, audio_secs: float) -> None:
    source = media_file(data_dir / clip)
    items = read(source)
    assert len(frames_of(items)) == n_frames
    n_samples = sum(chunk.samples.size for chunk in chunks_of(items))
    assert n_samples / RATE_HZ == pytest.approx(audio_secs, abs=0.02)
    (metrics,) = source.metrics
    assert metrics.n_out == len(chunks_of(items)) + n_frames
    assert metrics.n_in > 0
    assert not metrics.dropped


def test_variable_frame_rates_keep_their_timestamps(data_dir: Path) -> None:
    path = data_dir / "surveillance" / "traffic_camera_vfr.mp4"
    with media_file(path).read() as items:
        starts_ns = [x.start_ns for x in islice(items, 300) if isinstance(x, VideoFrame)]
    with av.open(str(path)) as container:
        pts = sorted(packet.pts for packet in container.demux() if packet.pts is not None)
    assert starts_ns == [round(at * NS_PER_SEC / 12_800) for at in pts[: len(starts_ns)]]
    assert max(np.diff(starts_ns)) > 1.5 * min(np.diff(starts_ns))


def test_a_film_held_upside_down_stands_upright(data_dir: Path) -> None:
    path = data_dir / "av_clips" / "fire_room_dog_vfr.mp4"
    (frame, *_) = frames_of(read(media_file(path), until_secs=1))
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="gray")
    assert abs(frame.image.luma[::-1, ::-1].astype(int) - stored).mean() < 20
    assert abs(frame.image.luma.astype(int) - stored).mean() > 40


def test_two_reads_of_a_file_are_alike(data_dir: Path) -> None:
    source = media_file(data_dir / "av_clips" / "his_girl_friday.mp4")
    first, second = read(source), read(source)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        if isinstance(a, AudioChunk) and isinstance(b, AudioChunk):
            assert a.start_ns == b.start_ns
            np.testing.assert_array_equal(a.samples, b.samples)
        elif isinstance(a, VideoFrame) and isinstance(b, VideoFrame):
            assert a.start_ns == b.start_ns
            np.testing.assert_array_equal(a.image.luma, b.image.luma)
        else:
            assert a == b


# Synchrony


@pytest.mark.parametrize(
    ("name", "video_codec", "audio_codec", "fps", "rate_hz"),
    [
        ("a.mp4", "libx264", "aac", 25, 44_100),
        ("b.webm", "libvpx", "libopus", 30, 48_000),
        ("c.webm", "libvpx-vp9", "libopus", 25, 48_000),
        ("d.avi", "mpeg4", "pcm_s16le", 12, 44_100),
        ("e.mp4", "libx264", "libmp3lame", 30, 44_100),
        ("f.ts", "libx264", "aac", 25, 48_000),
        ("g.flv", "libx264", "aac", 25, 44_100),
        ("h.mkv", "libx264", "aac", 10, 8_000),
        ("i.mpg", "mpeg1video", "mp2", 25, 44_100),
    ],
)
def test_what_flashes_and_beeps_at_once_is_at_once(
    tmp_path: Path, name: str, video_codec: str, audio_codec: str, fps: int, rate_hz: int
) -> None:
    made = make_flash_beep(
        tmp_path / name,
        video_codec=video_codec,
        audio_codec=audio_codec,
        fps=fps,
        rate_hz=rate_hz,
    )
    items = read(media_file(made.path))
    flashes, beeps = flashes_ns(frames_of(items)), beeps_ns(chunks_of(items))
    assert len(flashes) == len(beeps) == len(made.instants_ns)
    apart_ns = abs(np.array(beeps) - flashes)
    assert np.median(apart_ns) <= secs_to_ns(0.010)
    assert apart_ns.max() <= secs_to_ns(0.5 / fps + 0.010)
    # Only priming that the container does not announce (TS, FLV, MPEG) may come before.
    late_ns = np.array(flashes) - made.instants_ns
    assert (late_ns >= 0).all()
    assert late_ns.max() <= secs_to_ns(0.025)


def test_a_file_whose_timestamps_start_late_starts_at_0(
    tmp_path: Path, flash_beep: FlashBeep
) -> None:
    path = write_media(
        tmp_path / "late.ts",
        Video(grey(50), at_secs=[3 + i / 25 for i in range(50)]),
        Sound(tone(2), start_secs=3.5),
    )
    with av.open(str(path)) as container:
        assert min(stream.start_time or 0 for stream in container.streams) >= 3 * 90_000
    items = read(media_file(path))
    assert frames_of(items)[0].start_ns == 0
    assert chunks_of(items)[0].start_ns == pytest.approx(secs_to_ns(0.5), abs=secs_to_ns(0.025))
    assert flash_beep.instants_ns[0] == flashes_ns(frames_of(read(media_file(flash_beep.path))))[0]


def test_a_recording_glued_together_goes_on_with_both_streams_in_step(tmp_path: Path) -> None:
    made = make_flash_beep(tmp_path / "one.ts", n_flashes=2)
    glued = tmp_path / "glued.ts"
    glued.write_bytes(made.path.read_bytes() * 3)
    source = media_file(glued)
    items = read(source)
    frames, chunks = frames_of(items), chunks_of(items)
    flashes, beeps = flashes_ns(frames), beeps_ns(chunks)
    assert len(flashes) == len(beeps) == 6
    assert abs(np.array(beeps) - flashes).max() <= secs_to_ns(0.030)
    assert source.metrics[0].dropped["timestamp_reset"] == 2
    part_ns = made.instants_ns[-1] + 2 * NS_PER_SEC
    assert frames[-1].start_ns == pytest.approx(3 * part_ns, abs=secs_to_ns(0.3))
    dues = [due_ns(item) for item in items if isinstance(item, (AudioChunk, VideoFrame))]
    assert dues == sorted(dues)


# Timestamps that lie


def restamped(path: Path, target: Path, shift_secs: Callable[[StreamKind, int], float]) -> Path:
    """A copy whose packets, counted per stream, are shown later by what `shift_secs` says."""
    counts: Counter[StreamKind] = Counter()
    with av.open(str(path)) as source, av.open(str(target), "w") as copy:
        streams = {each.index: copy.add_stream_from_template(each) for each in source.streams}
        for packet in source.demux():
            if packet.size and packet.pts is not None:
                kind: StreamKind = "audio" if packet.stream.type == "audio" else "video"
                packet.pts += round(shift_secs(kind, counts[kind]) / packet.time_base)
                counts[kind] += 1
                packet.stream = streams[packet.stream_index]
                copy.mux(packet)
    return target


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [("mkv", "video"), ("mkv", "audio"), ("ts", "video"), ("ts", "audio"), ("mp4", "video")],
)
@pytest.mark.parametrize("lies", [{0}, {60}, {60, 61}, {-1}])
def test_a_stamp_10_hours_ahead_moves_nothing_else(
    tmp_path: Path, flash_beep: FlashBeep, suffix: str, kind: StreamKind, lies: set[int]
) -> None:
    plain = restamped(flash_beep.path, tmp_path / f"plain.{suffix}", lambda *_: 0)
    with av.open(str(plain)) as container:
        n_packets = sum(p.size > 0 and p.stream.type == kind for p in container.demux())
    lies = {lie % n_packets for lie in lies}
    if suffix == "mp4":
        lies = {max(1, lie) for lie in lies}  # FFmpeg hides what the first says in an edit list
    path = restamped(
        plain, tmp_path / f"lie.{suffix}", lambda *at: 36_000 * (at[0] == kind and at[1] in lies)
    )
    clock = ManualClock()
    source = MediaFile("cam", MediaSettings(url=str(path)), clock)
    items, wanted = read(source), read(media_file(plain))
    assert source.metrics[0].dropped == {"timestamp_outlier": len(lies)}
    frames = [frame.start_ns for frame in frames_of(wanted)]
    found = [frame.start_ns for frame in frames_of(items)]
    # When the sound's priming is the first and a lie, the pictures' first is instant 0.
    moved_ns = frames[100] - found[100] if 0 in lies and kind == "audio" else 0
    assert 0 <= moved_ns < secs_to_ns(0.025)
    assert {at_ns + moved_ns for at_ns in found} <= set(frames)
    assert len(frames) - len(found) == (len(lies) if kind == "video" else 0)
    secs_off = abs(heard(chunks_of(wanted)).size - heard(chunks_of(items)).size) / RATE_HZ
    assert secs_off < 0.03
    n_lost = sum(x.samples.size for x in chunks_of(wanted)) - sum(
        x.samples.size for x in chunks_of(items)
    )
    assert abs(n_lost / RATE_HZ - (1024 / 48_000) * len(lies) * (kind == "audio")) < 0.012
    assert clock.monotonic_ns() < 14 * NS_PER_SEC
    dues = [due_ns(item) for item in items if isinstance(item, (AudioChunk, VideoFrame))]
    assert dues == sorted(dues)


@pytest.mark.parametrize("hole_secs", [20, 60])
def test_a_hole_in_both_streams_stays_one(
    tmp_path: Path, flash_beep: FlashBeep, hole_secs: int
) -> None:
    plain = restamped(flash_beep.path, tmp_path / "plain.mkv", lambda *_: 0)
    hole_at = {"video": 100, "audio": round(4 * 48_000 / 1024)}
    path = restamped(plain, tmp_path / "hole.mkv", lambda kind, n: hole_secs * (n >= hole_at[kind]))
    source = media_file(path)
    items = read(source)
    assert not source.metrics[0].dropped
    frames = [frame.start_ns for frame in frames_of(read(media_file(plain)))]
    assert [frame.start_ns for frame in frames_of(items)] == [
        at_ns + (n >= 100) * hole_secs * NS_PER_SEC for n, at_ns in enumerate(frames)
    ]
    flashes, beeps = flashes_ns(frames_of(items)), beeps_ns(chunks_of(items))
    assert len(flashes) == len(beeps) == len(flash_beep.instants_ns)
    assert abs(np.array(beeps) - flashes).max() <= secs_to_ns(0.030)


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_a_stream_that_alone_jumps_10_hours_ahead_stays_in_step(
    tmp_path: Path, flash_beep: FlashBeep, kind: StreamKind
) -> None:
    path = restamped(
        flash_beep.path, tmp_path / "jump.mkv", lambda *at: 36_000 * (at[0] == kind and at[1] > 50)
    )
    source = media_file(path)
    items = read(source)
    assert source.metrics[0].dropped["timestamp_reset"] == 1
    flashes, beeps = flashes_ns(frames_of(items)), beeps_ns(chunks_of(items))
    assert len(flashes) == len(beeps) == len(flash_beep.instants_ns)
    assert abs(np.array(beeps) - flashes).max() <= secs_to_ns(0.030)


# One stream is silent, late or over


@pytest.mark.parametrize(
    ("name", "start_secs", "audio_secs", "video_secs"),
    [("early", 0, 2, 40), ("late", 25, 3, 30), ("short_video", 0, 30, 1)],
)
@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "aac"), ("mkv", "pcm_s16le")])
def test_a_stream_that_is_silent_is_followed_by_bounds(
    tmp_path: Path,
    suffix: str,
    codec: str,
    name: str,
    start_secs: float,
    audio_secs: float,
    video_secs: float,
) -> None:
    path = write_media(
        tmp_path / f"{name}.{suffix}",
        Video(grey(round(video_secs * 10)), fps=10),
        Sound(tone(audio_secs, RATE_HZ), codec, RATE_HZ, start_secs=start_secs),
    )
    items = read(media_file(path))
    assert lead_secs(items) <= 0.2
    assert len(frames_of(items)) == video_secs * 10
    assert heard(chunks_of(items)).size / RATE_HZ == pytest.approx(start_secs + audio_secs, abs=0.1)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "libvpx"])
def test_pictures_that_go_on_after_a_long_silence_are_whole(tmp_path: Path, codec: str) -> None:
    options = {"preset": "medium", "bf": "3", "g": "600"} if codec == "libx264" else {"g": "600"}
    at_secs = [i / 10 for i in range(20)] + [25 + i / 10 for i in range(20)]
    video = Video(grey(40), codec, fps=10, at_secs=at_secs, options=options)
    path = write_media(
        tmp_path / "screen.mkv", video, Sound(tone(30, RATE_HZ), "pcm_s16le", RATE_HZ)
    )
    source = media_file(path)
    items = read(source)
    with media_file(write_media(tmp_path / "mute.mkv", video)).read() as mute:
        wanted = frames_of(mute)
    frames = frames_of(items)
    assert [frame.start_ns for frame in frames] == [frame.start_ns for frame in wanted]
    for frame, other in zip(frames, wanted, strict=True):
        np.testing.assert_array_equal(frame.image.luma, other.image.luma)
    assert max(bound.at_ns for bound in bounds_of(items, "video")) > 14 * NS_PER_SEC
    assert not source.metrics[0].dropped


def test_a_hole_in_the_sound_stays_one(tmp_path: Path) -> None:
    sound = tone(1)
    pieces = [write_media(tmp_path / f"{i}.ts", Video(grey(25)), Sound(sound)) for i in range(2)]
    del pieces
    samples = np.concatenate([sound, np.zeros(48_000, np.float32), sound])
    path = write_media(tmp_path / "hole.mkv", Video(grey(75)), Sound(samples, "pcm_s16le"))
    without = tmp_path / "without.mkv"
    with av.open(str(path)) as source, av.open(str(without), "w") as target:
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            at_secs = float((packet.pts or 0) * packet.time_base)
            if packet.size and not (packet.stream.type == "audio" and 1 <= at_secs < 2):
                packet.stream = streams[packet.stream_index]
                target.mux(packet)
    items = read(media_file(without))
    chunks = chunks_of(items)
    ((before, after),) = [(a, b) for a, b in pairwise(chunks) if b.start_ns - a.end_ns > 5_000_000]
    assert before.end_ns == pytest.approx(NS_PER_SEC, abs=secs_to_ns(0.025))
    assert after.start_ns == pytest.approx(2 * NS_PER_SEC, abs=secs_to_ns(0.025))
    assert any(NS_PER_SEC < bound.at_ns < 2 * NS_PER_SEC for bound in bounds_of(items, "audio"))


# Which streams


@pytest.mark.parametrize(("chosen", "level", "hz"), [(None, 0, 300), (0, 0, 300), (1, 20, 900)])
def test_of_several_streams_the_one_asked_for(
    tmp_path: Path, chosen: int | None, level: int, hz: int
) -> None:
    path = write_media(
        tmp_path / "two.mkv",
        Video([picture * 0 + 60 for picture in grey(25)]),
        Sound(tone(1, hz=300)),
        Video([picture * 0 + 180 for picture in grey(25, (32, 32))]),
        Sound(tone(1, hz=900)),
    )
    items = read(media_file(path, video_stream=chosen, audio_stream=chosen))
    frames = frames_of(items)
    assert len(frames) == 25
    assert frames[3].image.width == (32 if level else 64)
    assert (float(frames[3].image.luma.mean()) > 120) == bool(level)
    spectrum = abs(np.fft.rfft(heard(chunks_of(items))[:RATE_HZ]))
    assert abs(int(spectrum.argmax()) - hz) <= 2


def test_the_cover_of_a_record_is_no_video(tmp_path: Path) -> None:
    plain = write_media(
        tmp_path / "plain.mkv", Sound(tone(1)), Video(grey(1), "mjpeg", pixel_format="yuvj420p")
    )
    path = tmp_path / "record.m4a"
    with av.open(str(plain)) as source, av.open(str(path), "w", format="mp4") as target:
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        streams[1].disposition = av.stream.Disposition.attached_pic
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                target.mux(packet)
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["audio", "video"]
    started, *rest = read(media_file(path))
    assert isinstance(started, SourceStarted)
    assert started.streams == {"audio"}
    assert len(chunks_of(rest)) >= 50


def test_a_stream_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = write_media(tmp_path / "one.mkv", Video(grey(3)))
    for options, allowed in [
        ({"video_stream": 1}, r"video stream 1 is not there; allowed: 0\.\.0"),
        ({"audio_stream": 0}, r"audio stream 0 is not there; allowed: none"),
    ]:
        with pytest.raises(SourceError, match=allowed), media_file(path, **options).read():
            pass


# What cannot be opened


def test_what_is_no_media_is_refused_by_name(tmp_path: Path) -> None:
    good = write_media(tmp_path / "good.mp4", Video(grey(3)), Sound(tone(0.5))).read_bytes()
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(1).bytes(5000))
    (tmp_path / "header.mp4").write_bytes(good[:24] + bytes(200) + good[224:])
    (tmp_path / "text.txt").write_text("[ti:a song]\n[00:01.00]words\n")
    at = good.index(b"avc1", good.index(b"stsd"))
    (tmp_path / "codec.mp4").write_bytes(good[:at] + b"zzzz" + good[at + 4 :])
    with wave.open(str(tmp_path / "none.wav"), "wb") as none:
        none.setparams((1, 2, 16_000, 0, "NONE", ""))
    for name, why in {
        "missing.mp4": "No such file",
        "empty.mp4": "cannot be opened",
        "noise.mp4": "cannot be opened",
        "header.mp4": "cannot be opened|holds no|decoded",
        "text.txt": "holds no video and no audio",
        "codec.mp4": "video stream 0 has an unknown codec",
        "none.wav": "nothing in it can be decoded",
        "": "Is a directory",
    }.items():
        path = tmp_path / name
        with pytest.raises(SourceError, match=why) as caught:
            read(media_file(path))
        assert str(path) in str(caught.value)
        assert "allowed: " in str(caught.value) or "holds no" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://me:hush@{}/x.mp4",
        "rtsp://me:hush@{}/live?password=hush",
        "RTSP://me:hush@{}/",
        "tcp://me:hush@{}",
        "tcp:{}",
        "cache:http://me:hush@{}/x.mp4",
        "nothing://me:hush@{}/",
    ],
)
def test_networks_are_refused_untouched_and_passwords_not_told(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as camera:
        camera.settimeout(0)
        place = f"127.0.0.1:{camera.getsockname()[1]}"
        with pytest.raises(SourceError, match="not a file; allowed: a path") as caught:
            read(media_file(url.format(place)))
        with pytest.raises(BlockingIOError):
            camera.accept()
    shown = url.format(place).replace("me:hush@", "***@").replace("=hush", "=***")
    assert str(caught.value).startswith(f"{shown}: ")


def test_a_file_that_cannot_be_opened_does_not_tell_a_password() -> None:
    with pytest.raises(SourceError, match=r"file://\*\*\*@host/x: cannot be opened") as caught:
        read(media_file("file://me:hush@host/x"))
    assert "hush" not in str(caught.value)


def test_a_file_may_be_told_as_an_url(flash_beep: FlashBeep) -> None:
    wanted = read(media_file(flash_beep.path), until_secs=1)
    assert len(read(media_file(flash_beep.path.as_uri()), until_secs=1)) == len(wanted)


def test_a_colon_in_a_folder_or_name_makes_no_url(tmp_path: Path) -> None:
    path = write_media(tmp_path / "cam1:07:30.mkv", Video(grey(3)))
    assert len(frames_of(read(media_file(path)))) == 3


# What breaks off or is damaged


@pytest.mark.parametrize("suffix", ["ts", "mkv", "avi"])
def test_a_file_cut_off_plays_to_where_it_breaks(tmp_path: Path, suffix: str) -> None:
    codecs = {"avi": ("mpeg4", "pcm_s16le")}.get(suffix, ("libx264", "aac"))
    made = make_flash_beep(
        tmp_path / f"whole.{suffix}", video_codec=codecs[0], audio_codec=codecs[1]
    )
    whole = made.path.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole[: len(whole) // 2])
    items = read(media_file(cut))
    assert 2 * NS_PER_SEC < frames_of(items)[-1].start_ns < 10 * NS_PER_SEC
    flashes = flashes_ns(frames_of(items))
    assert len(flashes) in (1, 2, 3)
    np.testing.assert_allclose(flashes, made.instants_ns[: len(flashes)], atol=25_000_000)


def test_damage_in_the_middle_is_skipped_and_counted(
    tmp_path: Path, flash_beep: FlashBeep, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray(flash_beep.path.read_bytes())
    with av.open(str(flash_beep.path)) as container:
        packets = [
            p for p in container.demux() if p.size and p.pts and 40 < p.pts * p.time_base * 10 < 60
        ]
    for packet in packets:
        assert packet.pos is not None
        middle = packet.pos + packet.size // 2
        data[packet.pos : middle] = bytes(middle - packet.pos)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    source = media_file(broken)
    items = read(source)
    (metrics,) = source.metrics
    assert metrics.dropped["corrupt_packet"] + metrics.dropped["corrupt_picture"] > 10
    assert len([r for r in caplog.records if r.levelname == "ERROR"]) <= 2, "once per stream"
    assert str(broken) in caplog.text
    flashes, beeps = flashes_ns(frames_of(items)), beeps_ns(chunks_of(items))
    last_ns = flash_beep.instants_ns[-1]
    assert last_ns in flashes
    assert min(abs(beep - last_ns) for beep in beeps) < secs_to_ns(0.01)
    assert frames_of(items)[-1].start_ns > last_ns + FLASH_NS


def test_a_stream_that_comes_up_later_is_let_pass(tmp_path: Path) -> None:
    mute = write_media(tmp_path / "mute.flv", Video(grey(200)))
    both = write_media(
        tmp_path / "both.flv", Video(grey(25)), Sound(tone(1, 44_100), rate_hz=44_100)
    )
    header_bytes = 13
    mute.write_bytes(mute.read_bytes() + both.read_bytes()[header_bytes:])
    items = read(media_file(mute))
    assert not chunks_of(items)
    assert len(frames_of(items)) > 200


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(["mp4", "ts", "flv"]),
    cut=st.floats(0, 1),
    damage=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=300)), max_size=4),
)
def test_whatever_is_in_a_file_it_is_read_or_refused(
    small_files: dict[str, bytes],
    tmp_path: Path,
    suffix: str,
    cut: float,
    damage: list[tuple[float, bytes]],
) -> None:
    data = bytearray(small_files[suffix])
    for where, noise in damage:
        at = int(where * len(data))
        data[at : at + len(noise)] = noise
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(data[: round((1 - cut**4) * len(data))])
    try:
        items = read(media_file(path))
    except SourceError as error:
        assert str(path) in str(error)  # noqa: PT017 - refusing is one of two right answers
        return
    assert all(a.end_ns <= b.start_ns for a, b in pairwise(chunks_of(items)))
    assert all(a.start_ns < b.start_ns for a, b in pairwise(frames_of(items)))


# Settings, and the reader as a whole


def test_the_epoch_places_the_recording_in_the_world(flash_beep: FlashBeep) -> None:
    epoch = datetime(2026, 11, 23, 7, 0, 0, 125, tzinfo=timezone(timedelta(hours=1)))
    started, *_ = read(media_file(flash_beep.path, epoch=epoch.isoformat()), until_secs=0.1)
    assert isinstance(started, SourceStarted)
    assert (
        started.utc_offset_ns
        == round(datetime(2026, 11, 23, 6, tzinfo=UTC).timestamp()) * NS_PER_SEC + 125_000
    )
    assert started.clock_offset_ns is None
    started, *_ = read(media_file(flash_beep.path), until_secs=0.1)
    assert isinstance(started, SourceStarted)
    assert started.utc_offset_ns == 0


def test_at_its_own_pace_it_takes_as_long_as_it_is(flash_beep: FlashBeep) -> None:
    clock = ManualClock(monotonic_ns=5 * NS_PER_SEC)
    source = MediaFile("cam", MediaSettings(url=str(flash_beep.path)), clock)
    with source.read() as items:
        started = next(items)
        assert isinstance(started, SourceStarted)
        assert started.clock_offset_ns == 5 * NS_PER_SEC
        for item in items:
            assert isinstance(item, AudioChunk | VideoFrame | StreamBound)
            assert clock.monotonic_ns() == 5 * NS_PER_SEC + due_ns(item)
    assert clock.monotonic_ns() > flash_beep.instants_ns[-1] + 6 * NS_PER_SEC


def test_another_rate(flash_beep: FlashBeep) -> None:
    chosen = MediaSettings(url=str(flash_beep.path), pace="max")
    source = MediaFile("cam", chosen, ManualClock(), rate_hz=8_000)
    chunks = chunks_of(read(source, until_secs=1))
    assert {(chunk.rate_hz, chunk.samples.size) for chunk in chunks} == {(8_000, 160)}


@pytest.mark.parametrize(
    "options",
    [
        {"epoch": "2026-11-23T07:00:00"},
        {"epoch": "0001-01-01T00:00:00Z"},
        {"epoch": "9999-12-31T00:00:00Z"},
        {"pace": "fast"},
        {"video_stream": -1},
        {"rate_hz": 8_000},
        {"loop": True},
    ],
)
def test_settings_that_mean_nothing_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MediaSettings.model_validate({"url": "a.mp4", **options})


def test_leaving_early_frees_the_file_and_the_threads(data_dir: Path) -> None:
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))  # noqa: PTH208 - of the process

    before = held()
    source = media_file(data_dir / "av_clips" / "butterfly_209.mp4")
    with source.read() as items:
        kept = [next(items) for _ in range(10)]
        assert held() > before
    assert held() == before
    assert next(items, None) is None
    (frame, *_) = frames_of(kept)
    assert frame.image.luma.shape == (720, 1280), "what was given stays"


def test_it_may_be_opened_on_a_thread_and_twice_at_once(flash_beep: FlashBeep) -> None:
    source = media_file(flash_beep.path)
    counts: Counter[str] = Counter()

    def count(name: str) -> None:
        counts[name] = len(read(media_file(flash_beep.path)))

    threads = [threading.Thread(target=count, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts["a"] == counts["b"] == len(read(source))
