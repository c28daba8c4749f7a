import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from media_factory import Sound as SoundTrack
from media_factory import Video, write_media

from mmstream.clock import SystemClock
from mmstream.codecs import Arrival, LiveInput, Picture, Sound
from mmstream.codecs.opening import Decoder
from mmstream.errors import SourceError
from mmstream.media import NS_PER_SEC, StreamKind
from mmstream.metrics import StageMetrics

BOTH: dict[StreamKind, int | None] = {"video": None, "audio": None}
SECRET = "hunter2"  # noqa: S105 - of nobody
TS_BYTES = 188


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler] | partial[Quiet]) -> Iterator[str]:
    """An HTTP server; its URL, with credentials that it does not ask for."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://me:{SECRET}@127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def read(url: str, metrics: StageMetrics | None = None) -> list[Arrival]:
    with LiveInput(url, BOTH, SystemClock(), metrics or StageMetrics("test")) as media:
        return list(media.arrivals())


def refusal(url: str, decoder: Decoder = "cpu") -> str:
    with pytest.raises(SourceError) as caught:
        LiveInput(url, BOTH, SystemClock(), StageMetrics("test"), decoder=decoder)
    assert caught.value.__cause__ is None
    assert SECRET not in repr(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def backlog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 s of MPEG-TS, with pictures that depend on later ones."""
    rng = np.random.default_rng(5)
    noise = rng.integers(0, 255, (120, 160, 3), np.uint8)
    pictures = [np.roll(noise, 2 * i, axis=1) for i in range(50)]
    samples = rng.normal(0, 0.1, 2 * 48_000).astype(np.float32)
    video = Video(pictures, options={"bf": "2", "preset": "fast"})
    path = tmp_path_factory.mktemp("live") / "backlog.ts"
    return write_media(path, video, SoundTrack(samples))


def test_what_a_server_has_in_store_came_when_it_was_made(backlog: Path) -> None:
    clock = SystemClock()
    began_ns = clock.monotonic_ns()
    with serving(partial(Quiet, directory=str(backlog.parent))) as url:
        arrivals = read(f"{url}/{backlog.name}")
    video = [one for one in arrivals if one.kind == "video"]
    assert video[-1].arrived_ns - video[0].arrived_ns > 1.5 * NS_PER_SEC
    assert video[-1].arrived_ns < clock.monotonic_ns()
    assert video[0].arrived_ns < began_ns
    offsets_ns = {one.arrived_ns - one.stamp_ns for one in arrivals if one.stamp_ns is not None}
    assert max(offsets_ns) - min(offsets_ns) <= 1


def test_pictures_that_depend_on_later_ones_stay_in_order(backlog: Path) -> None:
    with serving(partial(Quiet, directory=str(backlog.parent))) as url:
        arrivals = read(f"{url}/{backlog.name}")
    decoded = [one for arrival in arrivals for one in arrival.decoded]
    stamps_ns = [one.at_ns for one in decoded if isinstance(one, Picture)]
    assert len(stamps_ns) >= 45
    assert all(before < after for before, after in pairwise(stamps_ns))
    assert sum(one.duration_ns for one in decoded if isinstance(one, Sound)) > 1.8 * NS_PER_SEC


def test_a_damaged_picture_is_counted_and_left_out(backlog: Path, tmp_path: Path) -> None:
    data = backlog.read_bytes()
    packets = [data[at : at + TS_BYTES] for at in range(0, len(data), TS_BYTES)]
    half = len(packets) // 2
    kept = [packet for i, packet in enumerate(packets) if i < half or i % 7]
    (tmp_path / "damaged.ts").write_bytes(b"".join(kept))
    metrics = StageMetrics("test")
    with serving(partial(Quiet, directory=str(tmp_path))) as url:
        arrivals = read(f"{url}/damaged.ts", metrics)
    assert metrics.dropped["corrupt_picture"] > 0
    n_pictures = sum(len(one.decoded) for one in arrivals if one.kind == "video")
    assert 20 < n_pictures <= 50 - metrics.dropped["corrupt_picture"]


def test_refusals_say_why_and_no_credentials(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.html").write_text("<html>hello</html>")
    with serving(partial(Quiet, directory=str(tmp_path))) as url:
        assert "no such stream" in refusal(f"{url}/nothing.ts?token={SECRET}")
        assert "sends no video or sound" in refusal(f"{url}/page.html")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "connection refused" in refusal(f"rtsp://me:{SECRET}@127.0.0.1:{port}/x")
    assert "host's name" in refusal(f"rtsp://me:{SECRET}@no.such.host.invalid/x")
    assert "protocol" in refusal(f"gopher2://me:{SECRET}@127.0.0.1/x")
    assert capfd.readouterr().err == ""


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmstream.codecs.opening.OPEN_SECS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"rtsp://me:{SECRET}@127.0.0.1:{server.getsockname()[1]}/x"
        assert refusal(url).endswith("no answer within 0.3 s")


def test_a_server_that_falls_silent_is_given_up(
    monkeypatch: pytest.MonkeyPatch, backlog: Path
) -> None:
    monkeypatch.setattr("mmstream.codecs.opening.READ_SECS", 0.3)
    monkeypatch.setattr("mmstream.codecs.live.READ_SECS", 0.3)
    data = backlog.read_bytes()

    class Stalls(Quiet):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(2 * len(data)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(data)
                self.rfile.read(1)  # until the other side hangs up

    with serving(Stalls) as url, pytest.raises(SourceError, match=r"nothing came for 0\.3 s$"):
        read(f"{url}/x")


@pytest.mark.parametrize("decoder", ["cuda", "vaapi"])
def test_hardware_that_is_not_there_is_named(decoder: Decoder) -> None:
    told = refusal("rtsp://127.0.0.1:1/x", decoder)
    if "refused" in told:
        pytest.skip(f"{decoder} is there")
    assert told == f"decoder {decoder}: not to be had on this machine; allowed: auto, cpu"


def test_hardware_if_it_opens_else_the_processor(backlog: Path) -> None:
    metrics = StageMetrics("test")
    with (
        serving(partial(Quiet, directory=str(backlog.parent))) as url,
        LiveInput(f"{url}/{backlog.name}", BOTH, SystemClock(), metrics, decoder="auto") as media,
    ):
        assert any(one.kind == "video" and one.decoded for one in media.arrivals())


def test_a_stream_by_its_number_must_be_there(backlog: Path) -> None:
    metrics = StageMetrics("test")
    with (
        serving(partial(Quiet, directory=str(backlog.parent))) as url,
        pytest.raises(SourceError, match=r"video stream 3 is not there; allowed: 0\.\.0"),
    ):
        LiveInput(f"{url}/{backlog.name}", {"video": 3}, SystemClock(), metrics)
