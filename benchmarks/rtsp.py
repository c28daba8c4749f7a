"""How old pictures of a network camera are when a program has them, and how long the first takes.

OpenCV and PyAV, each as people use it, beside our network source: the same camera (640x480 H.264 at
25 fps with sound, RTSP over TCP), one after the other in one process, so that none takes another's
cores; they take turns, as these machines are noisy, and the figures are medians over the rounds.

Age is from the true instant of capture, read from the picture itself, to a decoded picture in
our hands. Of each view the first second is left out, in which a backlog may be worked off. Nobody
else watches, so the camera begins with a key picture: one that is being watched already lets
everybody wait for its next.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import av
import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict

from mmstream.benchmarks.camera import RtspCamera, read_counter
from mmstream.clock import SystemClock
from mmstream.errors import SourceError
from mmstream.media import NS_PER_SEC, Bytes, VideoFrame, secs_to_ns
from mmstream.sources.network import NetworkSettings, NetworkSource

SECS: Final = 2.0
ROUNDS: Final = 3
SETTLE_NS: Final = NS_PER_SEC
TARGET_AGE_MS: Final = 75
TARGET_FIRST_MS: Final = 200
GREEN: Final = 1

_CLOCK: Final = SystemClock()


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture, as soon as it was in our hands."""

    at_ns: int
    number: int | None


Client = Callable[[str], AbstractContextManager[Iterator[Seen]]]
"""Opens a URL; gives its pictures as they come."""


class View(BaseModel):
    """How one client sees the camera: medians over the rounds."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    first_ms: float
    """From before it was opened to the first decoded picture, milliseconds."""
    p50_ms: float
    """Median age, milliseconds."""
    p95_ms: float


class RtspAges(BaseModel):
    """All clients beside each other."""

    secs: float
    rounds: int
    opencv: View
    pyav: View
    mmstream: View

    @property
    def ratio(self) -> float:
        """Our median age over OpenCV's."""
        return self.mmstream.p50_ms / self.opencv.p50_ms


def measure(secs: float = SECS, rounds: int = ROUNDS) -> RtspAges:
    """`rounds` times each client, for `secs` seconds after it has settled.

    Raises:
        SourceError: the camera cannot be started, or a client does not get its pictures.
    """
    clients: dict[str, Client] = {"opencv": _opencv, "pyav": _pyav, "mmstream": _mmstream}
    views: dict[str, list[View]] = {name: [] for name in clients}
    with TemporaryDirectory() as folder, RtspCamera(Path(folder)) as camera:
        camera.start()
        for _ in range(rounds):
            for name, client in clients.items():
                views[name].append(_view(name, client, camera, secs))
    return RtspAges(
        secs=secs, rounds=rounds, **{name: _median(rounds) for name, rounds in views.items()}
    )


def table(found: RtspAges) -> str:
    """The figures for people."""
    heading = f"RTSP 640x480@25 H.264 + sound, {found.rounds} x {found.secs:g} s"
    lines = [f"{heading:<42} first ms   age p50 ms   p95 ms"]
    rows = (
        ("OpenCV", found.opencv),
        ("PyAV, defaults", found.pyav),
        ("mmstream", found.mmstream),
    )
    for name, view in rows:
        lines.append(f"{name:<42}{view.first_ms:9.0f}{view.p50_ms:13.1f}{view.p95_ms:9.1f}")
    lines.append(
        f"target: first <= {TARGET_FIRST_MS} ms, age <= {TARGET_AGE_MS} ms; "
        f"age beside OpenCV's {found.ratio:.2f}"
    )
    return "\n".join(lines)


def _view(name: str, client: Client, camera: RtspCamera, secs: float) -> View:
    opened_ns = _CLOCK.monotonic_ns()
    first_ns: int | None = None
    ages_ms = []
    with client(camera.url) as pictures:
        for seen in pictures:
            first_ns = seen.at_ns if first_ns is None else first_ns
            watched_ns = seen.at_ns - first_ns - SETTLE_NS
            if watched_ns > 0 and seen.number is not None:
                ages_ms.append((seen.at_ns - camera.true_ns(seen.number)) / 1e6)
            if watched_ns > secs_to_ns(secs):
                break
    if first_ns is None or not ages_ms:
        msg = f"{name} has read too little of {camera.url}: {camera.log}"
        raise SourceError(msg)
    p50, p95 = np.percentile(ages_ms, [50, 95])
    return View(first_ms=(first_ns - opened_ns) / 1e6, p50_ms=float(p50), p95_ms=float(p95))


@contextmanager
def _opencv(url: str) -> Iterator[Iterator[Seen]]:
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG)  # over TCP, by its own default

    def pictures() -> Iterator[Seen]:
        while capture.grab():
            _, image = capture.retrieve()
            at_ns = _CLOCK.monotonic_ns()
            yield Seen(at_ns, read_counter(image[:, :, GREEN].astype(np.uint8, copy=False)))

    try:
        yield pictures()
    finally:
        capture.release()


@contextmanager
def _pyav(url: str) -> Iterator[Iterator[Seen]]:
    def pictures() -> Iterator[Seen]:
        for frame in container.decode(video=0):
            at_ns = _CLOCK.monotonic_ns()
            yield Seen(at_ns, read_counter(_luma(frame)))

    # All defaults but UDP, which neither of the others uses here.
    with av.open(url, options={"rtsp_transport": "tcp"}) as container:
        yield pictures()


@contextmanager
def _mmstream(url: str) -> Iterator[Iterator[Seen]]:
    source = NetworkSource("camera", NetworkSettings(url=url), _CLOCK)

    def pictures() -> Iterator[Seen]:
        for item in items:
            if isinstance(item, VideoFrame):
                at_ns = _CLOCK.monotonic_ns()
                yield Seen(at_ns, read_counter(item.image.luma))

    with source.read() as items:
        yield pictures()


def _luma(frame: av.VideoFrame) -> Bytes:
    return frame.to_ndarray(format="gray").astype(np.uint8, copy=False)


def _median(views: list[View]) -> View:
    fields = {name: median(getattr(view, name) for view in views) for name in View.model_fields}
    return View.model_validate({name: round(value, 1) for name, value in fields.items()})
