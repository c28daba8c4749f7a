import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from cameras import CameraOptions, RtspCamera, read_counter
from hypothesis import given
from hypothesis import strategies as st

from mmstream.errors import SourceError
from mmstream.media import Bytes

PATIENCE_SECS = 15.0


@dataclass(frozen=True)
class Seen:
    """A picture, when it was in our hands, and the number in it."""

    number: int | None
    at_ns: int
    size: tuple[int, int]


def luma(frame: av.VideoFrame) -> Bytes:
    return frame.to_ndarray(format="gray").astype(np.uint8)


@contextmanager
def watching(url: str) -> Iterator[Iterator[Seen]]:
    options = {"rtsp_transport": "tcp", "probesize": "32", "analyzeduration": "0"}
    with av.open(url, options=options, timeout=PATIENCE_SECS) as container:
        yield (
            Seen(
                read_counter(luma(frame)),
                time.monotonic_ns(),
                (frame.width, frame.height),
            )
            for frame in container.decode(video=0)
        )


def see(url: str, n: int = 10) -> list[Seen]:
    with watching(url) as pictures:
        return [next(pictures) for _ in range(n)]


def code(number: int) -> Bytes:
    rows = [*number.to_bytes(3, "big")]
    rows.append((sum(rows) % 256) ^ 0xA5)
    bits = np.unpackbits(np.array(rows, np.uint8)).reshape(4, 8)
    picture = np.full((72, 200), 128, np.uint8)
    picture[:64, :128] = np.kron(np.where(bits == 1, 235, 16), np.ones((16, 16)))
    return picture


@given(st.integers(0, 2**24 - 1), st.integers(-60, 60))
def test_a_number_is_read_from_blocks_however_pale(number: int, change: int) -> None:
    paler = np.clip(code(number).astype(int) + change, 0, 255).astype(np.uint8)
    assert read_counter(paler) == number


@pytest.mark.parametrize("grey", [0, 16, 128, 235, 255])
def test_a_plain_picture_has_no_number(grey: int) -> None:
    assert read_counter(np.full((480, 640), grey, np.uint8)) is None


def test_a_picture_that_is_too_small_or_half_old_has_no_number() -> None:
    torn = code(0x010203)
    torn[16:32, :128] = code(0x010503)[16:32, :128]
    assert read_counter(torn) is None
    assert read_counter(code(5)[:60]) is None


@pytest.mark.parametrize("codec", ["h264", "h265", "mjpeg"])
def test_numbers_survive_the_codec_and_ages_are_true(tmp_path: Path, codec: str) -> None:
    options = {
        "h264": CameraOptions(),
        "h265": CameraOptions(codec="h265", size=(320, 240), fps=15),
        "mjpeg": CameraOptions(codec="mjpeg", audio="none"),
    }[codec]
    with RtspCamera(tmp_path) as camera:
        camera.start(options)
        seen = see(camera.url)
        numbers = [picture.number for picture in seen if picture.number is not None]
        assert len(numbers) == len(seen)
        assert numbers == sorted(set(numbers))
        ages_secs = [(one.at_ns - camera.true_ns(one.number or 0)) / 1e9 for one in seen]
        assert min(ages_secs) > 0
        assert max(ages_secs) < PATIENCE_SECS
        assert {picture.size for picture in seen} == {options.size}


def test_the_table_rises_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    with RtspCamera(tmp_path) as camera:
        with pytest.raises(SourceError, match="does not run"):
            camera.freeze()
        camera.start()
        url, first = camera.url, see(camera.url, 3)[-1]
        camera.kill()
        with pytest.raises(OSError, match="refused"):
            see(url)
        camera.start(CameraOptions(size=(320, 240), fps=10, codec="mjpeg", audio="none"))
        assert camera.url == url
        last = see(url, 3)[-1]
        assert last.size == (320, 240)
        assert first.number is not None
        assert last.number is not None
        assert last.number > first.number
        assert camera.frames_ns == sorted(set(camera.frames_ns))
        assert camera.stop() == 0


def test_a_frozen_camera_sends_nothing_and_has_seen_nothing(tmp_path: Path) -> None:
    with RtspCamera(tmp_path) as camera:
        camera.start(CameraOptions(codec="mjpeg", audio="none"))
        with watching(camera.url) as pictures:
            next(pictures)
            camera.freeze()
            frozen_ns = time.monotonic_ns()
            until(lambda: time.monotonic_ns() > frozen_ns + 700_000_000, "frozen for a while")
            thawed_ns = time.monotonic_ns()
            camera.thaw()
            later = (one.number for one in pictures if one.number is not None)
            assert any(camera.true_ns(number) > thawed_ns for number in later)
        assert max(np.diff(camera.frames_ns)) > 600_000_000


def test_beeps_are_where_the_table_says(tmp_path: Path) -> None:
    """Sound and sight share a clock: a beep's distance to a picture is that of the table."""
    with RtspCamera(tmp_path) as camera:
        camera.start(CameraOptions(codec="mjpeg"))
        with av.open(
            camera.url, options={"rtsp_transport": "tcp"}, timeout=PATIENCE_SECS
        ) as opened:
            offsets = av_offsets_secs(opened, camera)
            assert abs(np.median([next(offsets) for _ in range(3)])) < 0.03


def av_offsets_secs(opened: av.container.InputContainer, camera: RtspCamera) -> Iterator[float]:
    """For each beep: how much later than its picture it is than the table says."""
    video_secs = math.nan
    was_loud = True
    for frame in opened.decode(video=0, audio=0):
        if isinstance(frame, av.VideoFrame):
            number = read_counter(luma(frame))
            if number is not None and frame.time is not None:
                video_secs = frame.time - camera.true_ns(number) / 1e9
        elif isinstance(frame, av.AudioFrame) and frame.time is not None:
            loud = np.flatnonzero(abs(frame.to_ndarray()[0].astype(int)) > 8000)
            if loud.size and not was_loud and not math.isnan(video_secs):
                at_secs = frame.time + float(loud[0]) / frame.sample_rate
                true_secs = np.array(camera.beeps_ns) / 1e9 + video_secs
                yield float(at_secs - true_secs[np.argmin(abs(true_secs - at_secs))])
            was_loud = bool(loud.size)


def test_only_who_knows_the_password_comes_in(tmp_path: Path) -> None:
    with RtspCamera(tmp_path) as camera:
        camera.start(CameraOptions(user="joe", password="s3cret", codec="mjpeg"))  # noqa: S106
        with pytest.raises(av.HTTPUnauthorizedError):
            see(camera.url)
        assert see(camera.url.replace("//", "//joe:s3cret@"), 1)


def test_packets_are_lost_and_timestamps_fall_back(tmp_path: Path) -> None:
    with RtspCamera(tmp_path) as camera:
        camera.start(
            CameraOptions(codec="mjpeg", audio="none", loss=0.05, pts_reset_after_secs=2.0)
        )
        options = {"rtsp_transport": "tcp", "probesize": "32", "analyzeduration": "0"}
        with av.open(camera.url, options=options, timeout=PATIENCE_SECS) as opened:
            last_secs = None
            for packet in opened.demux(video=0):
                if packet.pts is None or packet.time_base is None:
                    continue
                secs = float(packet.pts * packet.time_base)
                if last_secs is not None and abs(secs - last_secs) > 60:
                    break
                last_secs = secs


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECS
    while not condition():
        assert time.monotonic() < deadline, f"still not so: {what}"
        time.sleep(0.01)


def test_what_cannot_be_started_says_why(tmp_path: Path) -> None:
    with (
        RtspCamera(tmp_path) as camera,
        pytest.raises(SourceError, match="at least 128x64"),
    ):
        camera.start(CameraOptions(size=(32, 32)))
