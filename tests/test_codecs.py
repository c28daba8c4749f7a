import gc
import math
import os
import wave
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_factory import Sound, Video, write_media

from mmstream.codecs import (
    CaptureResampler,
    CodedImage,
    MediaInput,
    Picture,
    image_from_array,
    read_audio,
)
from mmstream.errors import SourceError
from mmstream.media import (
    NS_PER_SEC,
    AudioChunk,
    Bytes,
    Floats,
    Image,
    VideoFrame,
    samples_to_ns,
    secs_to_ns,
)
from mmstream.metrics import StageMetrics

RATE_HZ = 16_000


def coloured(width: int, height: int) -> Bytes:
    """Red above, green below, a white corner: no two of its turns are alike."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, :, 0] = 250
    picture[height // 2 :, :, 1] = 250
    picture[: height // 4, : width // 4] = 250
    return picture


def audio_frame(
    samples: Floats, rate_hz: int, layout: str = "mono", sample_format: str = "flt"
) -> av.AudioFrame:
    """`samples`: [n] for every channel, or interleaved."""
    n_channels = av.AudioLayout(layout).nb_channels
    frame = av.AudioFrame.from_ndarray(
        np.repeat(samples, n_channels)[None], format=sample_format, layout=layout
    )
    frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
    return frame


def resampled(
    samples: Floats,
    rate_hz: int,
    layout: str = "mono",
    frame_size: int = 1024,
    to_hz: int = RATE_HZ,
) -> list[AudioChunk]:
    resampler = CaptureResampler("cam", to_hz, StageMetrics("cam"))
    chunks = []
    for at in range(0, samples.size, frame_size):
        frame = audio_frame(samples[at : at + frame_size], rate_hz, layout)
        chunks += resampler.push(frame, samples_to_ns(at, rate_hz))
    return chunks + resampler.flush()


def joined(chunks: list[AudioChunk]) -> Floats:
    return np.concatenate([chunk.samples for chunk in chunks])


def tone(hz: float, secs: float, rate_hz: int) -> Floats:
    return np.sin(2 * np.pi * hz * np.arange(round(secs * rate_hz)) / rate_hz).astype(np.float32)


# Pictures


@pytest.mark.parametrize("size", [(64, 48), (50, 30), (853, 481), (17, 5)])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "nv12", "gray", "yuvj444p"])
def test_luma_is_the_coded_plane_without_its_padding(
    size: tuple[int, int], pixel_format: str
) -> None:
    source = av.VideoFrame.from_ndarray(coloured(*size), format="rgb24")
    frame = source.reformat(format=pixel_format)
    image = CodedImage(frame)
    rows = np.frombuffer(bytes(frame.planes[0]), np.uint8).reshape(size[1], -1)
    np.testing.assert_array_equal(image.luma, rows[:, : size[0]])
    assert (image.width, image.height) == size
    assert not image.luma.flags.owndata, "a view costs nothing"
    assert not image.luma.flags.writeable


@pytest.mark.parametrize("pixel_format", ["yuyv422", "yuv420p10le", "rgb24", "bgra", "ya8"])
def test_luma_of_other_formats_is_converted_to_full_range(pixel_format: str) -> None:
    white = np.full((32, 48, 3), 255, np.uint8)
    white[16:] = 0
    source = av.VideoFrame.from_ndarray(white, format="rgb24")
    image = CodedImage(source.reformat(format=pixel_format))
    assert image.luma.shape == (32, 48)
    assert (image.luma[:14] >= 253).all()
    assert (image.luma[18:] <= 2).all()


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "yuv420p10le", "gray", "bgr24"])
def test_rgb_uses_the_whole_range_whatever_the_coded_one_is(pixel_format: str) -> None:
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 32, axis=0)
    ramp = np.repeat(ramp, 3, axis=2)
    source = av.VideoFrame.from_ndarray(ramp, format="rgb24")
    image = CodedImage(source.reformat(format=pixel_format))
    np.testing.assert_allclose(image.rgb().astype(int), ramp, atol=4)


def test_rgb_is_scaled_on_demand_and_the_last_one_is_kept() -> None:
    image = image_from_array(coloured(320, 240))
    small = image.rgb((32, 24))
    assert small.shape == (24, 32, 3)
    assert image.rgb((32, 24)) is small
    assert image.rgb().shape == (240, 320, 3)
    assert image.rgb() is image.rgb((320, 240))
    np.testing.assert_array_equal(image.rgb(), coloured(320, 240))
    with pytest.raises(ValueError, match="read-only"):
        image.rgb()[0] = 0


def test_scaling_down_averages() -> None:
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    small = image_from_array(stripes).rgb((16, 16))
    assert abs(small.astype(float) - 127.5).max() < 20


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_picture_taken_sideways_stands_upright(tmp_path: Path, degrees: int) -> None:
    upright = coloured(64, 48)
    stored = np.ascontiguousarray(np.rot90(upright, -degrees // 90))
    path = write_media(
        tmp_path / "phone.mp4",
        Video([stored] * 3, rotation_degrees=degrees, options={"qp": "4"}),
    )
    with MediaInput(str(path), {"video": None}, StageMetrics("phone")) as media:
        image = decoded_pictures(media)[1].image
    assert (image.width, image.height) == (64, 48)
    for shown, wanted in [
        (image.rgb(), upright),
        (image.rgb((32, 24)), upright[::2, ::2]),
        (image.luma, image_from_array(upright).luma),
    ]:
        assert shown.shape == wanted.shape
        assert abs(shown.astype(int) - wanted).mean() < 12


def test_rows_stored_bottom_up_stand_upright(tmp_path: Path) -> None:
    picture = coloured(64, 48)
    path = write_media(tmp_path / "raw.avi", Video([picture] * 2, "rawvideo", pixel_format="bgr24"))
    with MediaInput(str(path), {"video": None}, StageMetrics("raw")) as media:
        (first, *_) = decoded_pictures(media)
    np.testing.assert_array_equal(first.image.rgb(), picture)
    np.testing.assert_array_equal(first.image.luma, image_from_array(picture).luma)


@settings(max_examples=40)
@given(st.integers(1, 70), st.integers(1, 50), st.sampled_from(["rgb24", "bgr24"]))
def test_an_array_comes_back_as_it_went_in(width: int, height: int, pixel_format: str) -> None:
    array = np.random.default_rng(width).integers(0, 255, (height, width, 3), np.uint8)
    image: Image = image_from_array(array, "rgb24" if pixel_format == "rgb24" else "bgr24")
    wanted = (array if pixel_format == "rgb24" else array[..., ::-1]).copy()
    array[:] = 0  # it keeps a copy
    np.testing.assert_array_equal(image.rgb(), wanted)
    assert image.luma.shape == (height, width)
    assert image.nbytes >= array.nbytes


def test_gray_is_its_own_luma() -> None:
    gray = np.arange(35, dtype=np.uint8).reshape(5, 7)
    image = image_from_array(gray, "gray")
    np.testing.assert_array_equal(image.luma, gray)
    np.testing.assert_array_equal(image.rgb(), np.repeat(gray[..., None], 3, axis=2))
    assert VideoFrame("cam", 0, image).image is image


@pytest.mark.parametrize(
    ("shape", "pixel_format"),
    [
        ((4, 4), "rgb24"),
        ((4, 4, 4), "bgr24"),
        ((4, 4, 3), "gray"),
        ((0, 4, 3), "rgb24"),
        ((4,), "gray"),
    ],
)
def test_an_array_of_another_shape_is_refused(shape: tuple[int, ...], pixel_format: str) -> None:
    with pytest.raises(ValueError, match=r"array\.shape"):
        image_from_array(np.zeros(shape, np.uint8), pixel_format)  # type: ignore[arg-type]  # the point


def test_an_array_of_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match="bytes"):
        image_from_array(np.zeros((4, 4, 3), np.float32))


# Sound


@pytest.mark.parametrize(
    ("rate_hz", "layout"),
    [
        (44_100, "stereo"),
        (48_000, "mono"),
        (48_000, "5.1"),
        (8_000, "mono"),
        (16_000, "mono"),
        (22_050, "stereo"),
        (96_000, "mono"),
        (11_025, "mono"),
        (32_000, "quad"),
    ],
)
def test_a_sound_starts_when_it_started(rate_hz: int, layout: str) -> None:
    samples = np.zeros(2 * rate_hz, np.float32)
    onset_secs = 0.7013
    beep = 0.5 * tone(1000, 0.3, rate_hz)
    start = round(onset_secs * rate_hz)
    samples[start : start + beep.size] = beep
    chunks = resampled(samples, rate_hz, layout)
    heard = joined(chunks)
    first = int(np.flatnonzero(abs(heard) > 0.1)[0])
    last = int(np.flatnonzero(abs(heard) > 0.1)[-1])
    assert first / RATE_HZ == pytest.approx(onset_secs, abs=1e-3)
    assert last / RATE_HZ == pytest.approx(onset_secs + 0.3, abs=1e-3)
    assert heard.size == 2 * RATE_HZ, "flushing gives the tail"


@pytest.mark.parametrize("rate_hz", [44_100, 48_000, 96_000])
def test_what_16_khz_cannot_hold_does_not_alias(rate_hz: int) -> None:
    def gain_db(hz: float) -> float:
        heard = joined(resampled(tone(hz, 1, rate_hz), rate_hz))[2000:-2000]
        return 20 * math.log10(float(np.sqrt(2 * np.mean(heard**2))) + 1e-9)

    assert abs(gain_db(1000)) < 0.05
    assert abs(gain_db(7000)) < 0.5
    assert gain_db(8600) < -80
    assert gain_db(12_000) < -80
    assert gain_db(20_000) < -80


@pytest.mark.parametrize("layout", ["stereo", "2.1"])
def test_a_voice_on_both_channels_is_as_loud_as_in_mono(layout: str) -> None:
    voice = 0.9 * tone(300, 0.5, 48_000)
    mono, mixed = (joined(resampled(voice, 48_000, each)) for each in ("mono", layout))
    np.testing.assert_allclose(mixed, mono, atol=2e-3)


def test_surround_is_mixed_with_the_voice_in_front() -> None:
    n = 4800
    voice = tone(300, n / 48_000, 48_000)

    def level(channel: int) -> float:
        planes = np.zeros((6, n), np.float32)
        planes[channel] = voice
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout="5.1")
        frame.sample_rate, frame.time_base = 48_000, Fraction(1, 48_000)
        resampler = CaptureResampler("cam", RATE_HZ, StageMetrics("cam"))
        heard = joined(resampler.push(frame, 0) + resampler.flush())[200:-200]
        return float(np.sqrt(2 * np.mean(heard**2)))

    left, right, centre, bass, behind_left, _ = (level(i) for i in range(6))
    assert centre == pytest.approx(math.sqrt(0.5), rel=0.02)
    assert left == right == pytest.approx(0.5, rel=0.02)
    assert behind_left == pytest.approx(0.5 * math.sqrt(0.5), rel=0.02)
    assert bass < 0.01


@settings(max_examples=30)
@given(
    st.sampled_from([8_000, 16_000, 44_100, 48_000]),
    st.lists(st.integers(1, 3000), min_size=1, max_size=12).filter(lambda sizes: sum(sizes) > 400),
    st.integers(0, 10**10),
)
def test_how_sound_is_cut_into_frames_changes_nothing(
    rate_hz: int, sizes: list[int], origin_ns: int
) -> None:
    samples = np.random.default_rng(3).normal(0, 0.1, sum(sizes)).astype(np.float32)
    resampler = CaptureResampler("cam", RATE_HZ, StageMetrics("cam"))
    chunks = []
    at = 0
    for size in sizes:
        frame = audio_frame(samples[at : at + size], rate_hz)
        chunks += resampler.push(frame, origin_ns + samples_to_ns(at, rate_hz))
        at += size
    chunks += resampler.flush()
    whole = resampled(samples, rate_hz, frame_size=samples.size)
    np.testing.assert_allclose(joined(chunks), joined(whole), atol=1e-6)
    assert [chunk.start_ns - origin_ns for chunk in chunks] == [c.start_ns for c in whole]
    assert joined(chunks).size == pytest.approx(samples.size * RATE_HZ / rate_hz, abs=1)
    assert all(chunk.samples.size == RATE_HZ // 50 for chunk in chunks[:-1])


@settings(max_examples=30)
@given(st.lists(st.integers(-2_400_000, 2_400_000), min_size=20, max_size=20))
def test_jitter_of_timestamps_is_ignored(jitter_ns: list[int]) -> None:
    metrics = StageMetrics("cam")
    resampler = CaptureResampler("cam", RATE_HZ, metrics)
    chunks = []
    for i, off_ns in enumerate(jitter_ns):
        start_ns = NS_PER_SEC + i * 20_000_000 + off_ns
        chunks += resampler.push(audio_frame(tone(440, 0.02, 48_000), 48_000), start_ns)
    chunks += resampler.flush()
    assert chunks[0].start_ns == NS_PER_SEC + jitter_ns[0]
    assert all(a.end_ns == b.start_ns for a, b in pairwise(chunks))
    assert sum(chunk.samples.size for chunk in chunks) == 20 * 320
    assert not metrics.dropped


@given(st.integers(0, 10**6))
@settings(max_examples=20)
def test_timestamps_rounded_to_milliseconds_never_move_the_anchor(first_frame: int) -> None:
    metrics = StageMetrics("cam")
    resampler = CaptureResampler("cam", RATE_HZ, metrics)
    silence = np.zeros(1024, np.float32)
    origin_ns = round(first_frame * 1024 / 44_100 * 1000) * 1_000_000
    chunks = []
    for i in range(first_frame, first_frame + 60):
        start_ns = round(i * 1024 / 44_100 * 1000) * 1_000_000
        chunks += resampler.push(audio_frame(silence, 44_100), start_ns)
    chunks += resampler.flush()
    assert [c.start_ns for c in chunks] == [origin_ns + i * 20_000_000 for i in range(len(chunks))]


def test_lost_sound_stays_a_hole() -> None:
    resampler = CaptureResampler("cam", RATE_HZ, StageMetrics("cam"))
    beep = 0.5 * tone(1000, 0.1, 48_000)
    chunks = resampler.push(audio_frame(beep, 48_000), 0)
    chunks += resampler.push(audio_frame(beep, 48_000), secs_to_ns(0.1))
    chunks += resampler.push(audio_frame(beep, 48_000), secs_to_ns(5))
    chunks += resampler.flush()
    before = [chunk for chunk in chunks if chunk.start_ns < secs_to_ns(1)]
    after = [chunk for chunk in chunks if chunk.start_ns >= secs_to_ns(1)]
    assert before[-1].end_ns == secs_to_ns(0.2)
    assert after[0].start_ns == secs_to_ns(5)
    assert after[-1].end_ns == secs_to_ns(5.1)
    np.testing.assert_allclose(
        joined(before)[1000:3000], 0.5 * tone(1000, 0.2, 16_000)[1000:3000], atol=0.01
    )


@pytest.mark.parametrize("back_secs", [0.02, 0.05, 0.5, 3])
def test_sound_that_was_given_already_is_dropped_and_counted(back_secs: float) -> None:
    metrics = StageMetrics("cam")
    resampler = CaptureResampler("cam", RATE_HZ, metrics)
    ramp = np.linspace(0, 0.8, 4 * 48_000, dtype=np.float32)  # tells its own time
    chunks = []
    for second, size_secs in [(0.0, 3.0), (3.0 - back_secs, back_secs + 1.0)]:
        start = round(second * 48_000)
        samples = ramp[start : start + round(size_secs * 48_000)]
        chunks += resampler.push(audio_frame(samples, 48_000), secs_to_ns(second))
    chunks += resampler.flush()
    assert all(a.end_ns <= b.start_ns for a, b in pairwise(chunks))
    assert chunks[-1].end_ns == secs_to_ns(4)
    assert metrics.dropped == {"overlapping_sound": 1}
    for chunk in chunks:
        if abs(chunk.start_ns - secs_to_ns(3)) > secs_to_ns(0.05):  # a filter rings at the joint
            assert chunk.samples[0] == pytest.approx(chunk.start_ns / 5e9, abs=2e-3)


@pytest.mark.parametrize("ppm", [-500, 500])
def test_a_drifting_clock_is_put_right_before_it_is_heard(ppm: int) -> None:
    metrics = StageMetrics("cam")
    resampler = CaptureResampler("cam", RATE_HZ, metrics)
    worst_ns = 0
    end_ns = -1
    n_frames = 3000
    for i in range(n_frames):
        true_ns = i * 20_000_000 * (1_000_000 + ppm) // 1_000_000
        for chunk in resampler.push(audio_frame(np.zeros(320, np.float32), RATE_HZ), true_ns):
            worst_ns = max(worst_ns, abs(chunk.start_ns - true_ns))
            assert chunk.start_ns >= end_ns
            end_ns = chunk.end_ns
    assert worst_ns <= 26_000_000, "5 ms, and a chunk that waits for its end"
    assert abs(end_ns - n_frames * 20_000_000 * (1_000_000 + ppm) // 1_000_000) <= 26_000_000


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(-(10**10), 10**10), st.integers(1, 2000)), max_size=15))
def test_whatever_the_timestamps_are_chunks_never_overlap(frames: list[tuple[int, int]]) -> None:
    resampler = CaptureResampler("cam", RATE_HZ, StageMetrics("cam"))
    chunks = []
    for start_ns, size in frames:
        chunks += resampler.push(audio_frame(np.ones(size, np.float32), 44_100), start_ns)
    chunks += resampler.flush()
    assert all(a.end_ns <= b.start_ns for a, b in pairwise(chunks))
    assert resampler.flush() == []


def test_a_change_of_rate_or_channels_is_no_break() -> None:
    metrics = StageMetrics("cam")
    resampler = CaptureResampler("cam", RATE_HZ, metrics)
    chunks = resampler.push(audio_frame(tone(440, 1, 48_000), 48_000), 0)
    chunks += resampler.push(audio_frame(tone(440, 1, 44_100), 44_100, "stereo"), NS_PER_SEC)
    chunks += resampler.push(audio_frame(tone(440, 1, 8_000), 8_000), 2 * NS_PER_SEC + 1_000_000)
    chunks += resampler.flush()
    assert all(a.end_ns == b.start_ns for a, b in pairwise(chunks))
    assert joined(chunks).size == 3 * RATE_HZ
    np.testing.assert_allclose(
        joined(chunks)[200:47_800], tone(440, 3, RATE_HZ)[200:47_800], atol=0.1
    )


def test_sound_that_is_not_a_number_is_a_hole() -> None:
    metrics = StageMetrics("cam")
    resampler = CaptureResampler("cam", RATE_HZ, metrics)
    broken = tone(440, 0.1, 48_000)
    broken[100] = np.nan
    chunks = []
    for i, samples in enumerate([tone(440, 0.1, 48_000), broken, tone(440, 0.1, 48_000)]):
        chunks += resampler.push(audio_frame(samples, 48_000), i * 100_000_000)
    chunks += resampler.flush()
    assert metrics.dropped == {"corrupt_sound": 1}
    assert np.isfinite(joined(chunks)).all()
    assert chunks[-1].end_ns == secs_to_ns(0.3)
    assert not any(secs_to_ns(0.1) < c.end_ns <= secs_to_ns(0.2) for c in chunks)


def test_channels_without_a_meaning_are_refused() -> None:
    frame = audio_frame(np.zeros(100, np.float32), 48_000, "9 channels")
    with pytest.raises(SourceError, match="cam: cannot mix 9 channels"):
        CaptureResampler("cam", RATE_HZ, StageMetrics("cam")).push(frame, 0)


# Files


def decoded_pictures(media: MediaInput) -> list[Picture]:
    pictures: list[Picture] = []
    while (decoded := media.decode("video")) is not None:
        pictures += [one for one in decoded if isinstance(one, Picture)]
    return pictures


def test_read_audio_gives_the_samples_of_the_file(data_dir: Path) -> None:
    path = data_dir / "speech" / "librivox_0880.wav"
    with wave.open(str(path)) as file:
        stored = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    np.testing.assert_allclose(read_audio(path, RATE_HZ), stored / 32768, atol=1e-6)
    assert read_audio(path, 8_000).size == -(-stored.size // 2)


def test_read_audio_of_a_film_leaves_its_pictures_alone(data_dir: Path) -> None:
    samples = read_audio(data_dir / "av_clips" / "bear_vp9_opus.webm", RATE_HZ)
    assert samples.size / RATE_HZ == pytest.approx(2.71, abs=0.03)
    assert float(np.abs(samples).max()) > 0.05


def test_read_audio_of_something_silent_is_refused(data_dir: Path) -> None:
    with pytest.raises(SourceError, match="holds no audio"):
        read_audio(data_dir / "av_clips" / "pe_dog_noaudio.mp4", RATE_HZ)


def test_packets_of_one_stream_wait_no_longer_than_allowed_for_the_other(tmp_path: Path) -> None:
    pictures = [coloured(32, 32)] * 400
    path = write_media(tmp_path / "early.mkv", Video(pictures, fps=10), Sound(tone(440, 1, 48_000)))
    metrics = StageMetrics("early")
    with MediaInput(str(path), {"video": None, "audio": None}, metrics) as media:
        n_heard = 0
        while (decoded := media.decode("audio")) is not None:
            n_heard += len(decoded)
        assert n_heard > 40
        assert metrics.n_in < 200, "10 s of video, and the audio"
        assert len(decoded_pictures(media)) == 400
        while (decoded := media.decode("audio")) is not None:
            assert not decoded, "it was over long ago"


@pytest.mark.parametrize("n_pictures", [0, 5])
def test_closing_frees_the_file_and_the_decoders_threads(data_dir: Path, n_pictures: int) -> None:
    path = data_dir / "av_clips" / "butterfly_209.mp4"

    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))  # noqa: PTH208 - of the process

    gc.collect()
    before = held()
    with MediaInput(str(path), {"video": None, "audio": None}, StageMetrics("x")) as media:
        for _ in range(n_pictures):
            media.decode("video")
        if n_pictures:
            assert held() > before
    assert held() == before
