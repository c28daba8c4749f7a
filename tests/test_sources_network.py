import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Literal

import numpy as np
import pytest
from cameras import CameraOptions, RtspCamera, read_counter
from pydantic import SecretStr, ValidationError

from mmstream.clock import SystemClock
from mmstream.errors import SourceError
from mmstream.media import (
    NS_PER_SEC,
    AudioChunk,
    MediaItem,
    SourceStarted,
    SourceSynced,
    StreamKind,
    VideoFrame,
    secs_to_ns,
)
from mmstream.sources.network import NetworkSettings, NetworkSource

pytestmark = pytest.mark.timeout(60)

CLOCK = SystemClock()
PASSWORD = "s3/c@r:t%"  # noqa: S105 - of nobody
SMALL = CameraOptions(size=(320, 240))
LOUD = 0.1


@dataclass
class Watched:
    """What came of a source, each with when, and what it has dropped."""

    items: list[tuple[int, MediaItem]] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    opened_ns: int = 0

    @property
    def started(self) -> SourceStarted:
        first = self.items[0][1]
        assert isinstance(first, SourceStarted)
        return first

    @property
    def frames(self) -> list[tuple[int, VideoFrame]]:
        return [(at_ns, one) for at_ns, one in self.items if isinstance(one, VideoFrame)]

    @property
    def chunks(self) -> list[AudioChunk]:
        return [one for _, one in self.items if isinstance(one, AudioChunk)]

    def ages_ms(self) -> list[float]:
        return [(at_ns - frame.start_ns) / 1e6 for at_ns, frame in self.frames]

    def video_errors_ms(self, camera: RtspCamera, *, skip_secs: float = 0) -> list[float]:
        """How far pictures are from when they were captured."""
        from_ns = self.opened_ns + secs_to_ns(skip_secs)
        numbered = [
            (frame.start_ns, read_counter(frame.image.luma))
            for at_ns, frame in self.frames
            if at_ns >= from_ns
        ]
        return [(at_ns - camera.true_ns(n)) / 1e6 for at_ns, n in numbered if n is not None]

    def beep_errors_ms(self, camera: RtspCamera, *, skip_secs: float = 0) -> list[float]:
        """How far beeps are from when they began."""
        from_ns = self.opened_ns + secs_to_ns(skip_secs)
        true_ns = np.array(camera.beeps_ns)
        errors_ms = []
        was_loud = True  # it may begin in the middle of one
        for chunk in self.chunks:
            loud = np.abs(chunk.samples) > LOUD
            if loud.any() and not was_loud and chunk.start_ns > from_ns:
                at_ns = chunk.start_ns + int(np.argmax(loud)) * NS_PER_SEC // chunk.rate_hz
                errors_ms.append(float((at_ns - true_ns[np.abs(true_ns - at_ns).argmin()]) / 1e6))
            was_loud = bool(loud.any())
        return errors_ms

    def holes_ms(self) -> list[float]:
        return [
            (after.start_ns - before.end_ns) / 1e6
            for before, after in pairwise(self.chunks)
            if after.start_ns - before.end_ns > NS_PER_SEC // 1000
        ]

    def check(self) -> None:
        """Nothing goes back, and nothing was captured after it came."""
        starts_ns = [frame.start_ns for _, frame in self.frames]
        assert all(before < after for before, after in pairwise(starts_ns))
        assert all(b.end_ns <= a.start_ns + 1 for b, a in pairwise(self.chunks))
        assert all(age_ms >= 0 for age_ms in self.ages_ms())
        assert self.started.clock_offset_ns == 0


def watch(url: str, secs: float, **more: object) -> Watched:
    """Read for so long, or until it ends."""
    source = NetworkSource("door", NetworkSettings.model_validate({"url": url, **more}), CLOCK)
    watched = Watched(opened_ns=CLOCK.monotonic_ns())
    with source.read() as items:
        for item in items:
            now_ns = CLOCK.monotonic_ns()
            watched.items.append((now_ns, item))
            if now_ns - watched.opened_ns > secs_to_ns(secs):
                break
    watched.dropped = dict(source.metrics[0].dropped)
    watched.check()
    return watched


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[RtspCamera]:
    with RtspCamera(tmp_path) as camera:
        yield camera


def test_sound_and_sight_are_when_they_were(camera: RtspCamera) -> None:
    camera.start(SMALL)
    watched = watch(camera.url, 5.5)
    assert watched.started.streams == {"audio", "video"}
    assert not watched.started.synced
    synced = [at_ns for at_ns, one in watched.items if isinstance(one, SourceSynced)]
    assert len(synced) == 1
    assert synced[0] - watched.opened_ns < 5.5 * NS_PER_SEC
    seen_ms = median(watched.video_errors_ms(camera, skip_secs=3.5))
    heard_ms = median(watched.beep_errors_ms(camera, skip_secs=3.5))
    assert abs(seen_ms) < 40
    assert abs(heard_ms) < 40
    assert abs(seen_ms - heard_ms) < 20
    assert median(watched.ages_ms()) < 500
    assert not watched.holes_ms()


@pytest.mark.parametrize(
    ("options", "streams"),
    [
        (CameraOptions(size=(320, 240), codec="h265", audio="none"), {"video"}),
        (CameraOptions(codec="none", audio="opus"), {"audio"}),
    ],
)
def test_one_stream_alone(
    camera: RtspCamera, options: CameraOptions, streams: set[StreamKind]
) -> None:
    camera.start(options)
    watched = watch(camera.url, 1.5)
    assert watched.started.streams == streams
    assert watched.started.synced
    assert len(watched.frames) + len(watched.chunks) > 10


def test_lost_packets_shift_nothing(camera: RtspCamera) -> None:
    camera.start(CameraOptions(loss=0.05))
    watched = watch(camera.url, 5, transport="udp")
    assert watched.dropped["corrupt_picture"] > 0
    assert watched.holes_ms()
    assert max(map(abs, watched.beep_errors_ms(camera, skip_secs=1))) < 60
    assert abs(median(watched.video_errors_ms(camera, skip_secs=1))) < 120


def test_timestamps_that_fall_back_by_an_hour(camera: RtspCamera) -> None:
    # Well after the first sender report, with which stamps may jump anyway (docs/log.md).
    camera.start(CameraOptions(size=(320, 240), pts_reset_after_secs=4.5))
    watched = watch(camera.url, 7)
    assert watched.dropped["clock_step"] > 0
    assert max(map(abs, watched.video_errors_ms(camera))) < 150
    assert max(map(abs, watched.beep_errors_ms(camera))) < 100
    assert sum(watched.holes_ms()) < 200


@pytest.mark.parametrize("auth", ["digest", "basic"])
def test_credentials_open_it_and_are_in_no_text(
    camera: RtspCamera, auth: Literal["digest", "basic"], capfd: pytest.CaptureFixture[str]
) -> None:
    guarded = CameraOptions(size=(320, 240), user="m@e", password=PASSWORD, auth=auth)
    camera.start(guarded)
    assert watch(camera.url, 0.3, username="m@e", password=PASSWORD).frames
    with pytest.raises(SourceError, match="wrong credentials") as caught:
        watch(camera.url, 0.3, username="m@e", password="nonsense")  # noqa: S106 - of nobody
    assert "nonsense" not in repr(caught.value)
    assert "nonsense" not in capfd.readouterr().err


def test_a_camera_that_goes_away_ends_it(camera: RtspCamera) -> None:
    camera.start(SMALL)
    source = NetworkSource("door", NetworkSettings(url=camera.url), CLOCK)
    with source.read() as items:
        assert any(isinstance(item, VideoFrame) for item in items)
        camera.kill()
        try:
            for _ in items:
                pass
        except SourceError as error:
            assert "breaks off" in str(error)  # noqa: PT017 - an end without an error is one, too


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def ffmpeg(*output: str, video: Sequence[str] = ("-c:v", "libx264", "-g", "25")) -> Iterator[None]:
    """25 pictures per second of FFmpeg's test card with a tone, sent in real time."""
    command = ["ffmpeg", "-loglevel", "error", "-re", "-f", "lavfi", "-i", "testsrc=s=160x120:r=25"]
    command += ["-f", "lavfi", "-i", "sine=1000:r=44100", "-t", "30"]
    if "libx264" in video:
        command += ["-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p"]
    process = subprocess.Popen([*command, *video, *output], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def watch_soon(url: str, secs: float) -> Watched:
    """As `watch`, once the server listens."""
    until_ns = CLOCK.monotonic_ns() + 15 * NS_PER_SEC
    while True:
        try:
            return watch(url, secs)
        except SourceError:
            if CLOCK.monotonic_ns() > until_ns:
                raise
            time.sleep(0.05)


def evenness_ms(watched: Watched) -> list[float]:
    starts_ns = [frame.start_ns for _, frame in watched.frames]
    return [(after - before) / 1e6 for before, after in pairwise(starts_ns)]


def test_rtmp() -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/x"
    with ffmpeg("-c:a", "aac", "-f", "flv", "-listen", "1", url):
        watched = watch_soon(url, 3)
    assert watched.started.streams == {"audio", "video"}
    assert watched.started.synced
    assert all(20 < gap_ms < 80 for gap_ms in evenness_ms(watched))
    assert median(watched.ages_ms()[-10:]) < 500
    assert watched.chunks


def test_http_mjpeg_is_as_old_as_when_it_came() -> None:
    url = f"http://127.0.0.1:{free_port()}/x"
    with ffmpeg("-an", "-f", "mpjpeg", "-listen", "1", url, video=("-r", "10", "-c:v", "mjpeg")):
        watched = watch_soon(url, 1.5)
    assert watched.started.streams == {"video"}
    assert median(watched.ages_ms()) < 50
    assert abs(median(evenness_ms(watched)[5:]) - 100) < 30


def test_hls_is_late_and_even(tmp_path: Path) -> None:
    handler = partial(_Quiet, directory=str(tmp_path))
    segments = ("-f", "hls", "-hls_time", "1", "-hls_list_size", "4")
    with ExitStack() as stack:
        server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        stack.enter_context(ffmpeg("-c:a", "aac", *segments, str(tmp_path / "live.m3u8")))
        until_ns = CLOCK.monotonic_ns() + 20 * NS_PER_SEC
        while not (tmp_path / "live2.ts").exists() and CLOCK.monotonic_ns() < until_ns:
            time.sleep(0.05)
        watched = watch_soon(f"http://127.0.0.1:{server.server_port}/live.m3u8", 4)
    assert watched.started.streams == {"audio", "video"}
    assert len(watched.frames) > 50
    assert min(watched.ages_ms()) > 0
    assert max(watched.ages_ms()) < 20_000
    assert median(evenness_ms(watched)) == pytest.approx(40, abs=5)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("url", ["/tmp/film.mp4", "film.mp4", "file:///film.mp4", "ftp://host/x"])  # noqa: S108
def test_what_is_no_live_url_is_refused_with_a_hint(url: str) -> None:
    with pytest.raises(ValidationError, match="a file takes type: media"):
        NetworkSettings(url=url)
    with pytest.raises(ValidationError, match="record_url"):
        NetworkSettings(url="rtsp://host/x", record_url=url)


def test_credentials_go_into_the_url_percent_encoded_and_nowhere_else() -> None:
    settings = NetworkSettings(url="rtsp://host/x@y", username="m@e", password=SecretStr(PASSWORD))
    assert settings.full_url() == "rtsp://m%40e:s3%2Fc%40r%3At%25@host/x@y"
    assert PASSWORD not in repr(settings)
    inside = NetworkSettings(url=f"rtsp://me:{PASSWORD}@host/x")
    assert inside.full_url() == inside.url
    assert PASSWORD not in repr(inside)


def test_credentials_are_given_once_and_whole() -> None:
    with pytest.raises(ValidationError, match="needs a username"):
        NetworkSettings(url="rtsp://host/x", password=SecretStr(PASSWORD))
    with pytest.raises(ValidationError, match="in the url already") as caught:
        NetworkSettings(url="rtsp://you:hidden@host/x", username="me")
    assert "hidden" not in str(caught.value)
