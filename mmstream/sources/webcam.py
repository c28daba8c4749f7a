"""Cameras of this machine, through OpenCV: V4L2 on Linux, whatever it finds on other systems.

A picture's instant is the driver's where there is one. OpenCV's V4L2 backend gives the buffer's
timestamp as CAP_PROP_POS_MSEC (modules/videoio/src/cap_v4l.cpp, `getProperty`), and nearly every
driver takes it from CLOCK_MONOTONIC, which is our clock; a USB camera's is when the first bytes of
the picture arrived. Stamps of another clock are brought to ours by the quickest of them. Without
any, the instant is when the picture was there, which is late by what the camera took to send it.

Untested: real cameras, since no machine that builds this has one. The tests read recordings through
the same lines, with OpenCV's FFmpeg backend in the place of V4L2.
"""

import logging
import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Protocol, Self

import cv2
import numpy as np
from pydantic import Field, model_validator

from mmstream.clock import Clock
from mmstream.config import Settings
from mmstream.errors import SourceError
from mmstream.media import NS_PER_SEC, Bytes, MediaItem, SourceStarted, VideoFrame, read_only
from mmstream.metrics import StageMetrics
from mmstream.sources.cameras import Camera, find_camera, list_cameras, problem_of
from mmstream.sources.clock_map import ClockMap

MAX_FAILURES: Final = 5
"""So many pictures in a row that do not come, or cannot be decoded, are the end of it."""
N_BUFFERS: Final = 3
"""The driver fills one, one may be full, one is being decoded; more would only age."""
OLDEST_NS: Final = 2 * NS_PER_SEC
"""A stamp up to this much before now is of our own clock."""
_MAX_PROBED: Final = 4

_log = logging.getLogger(__name__)


class WebcamSettings(Settings):
    """A camera of this machine: built in, USB, or a capture card."""

    type: Literal["webcam"] = "webcam"
    device: Annotated[int, Field(ge=0, strict=True)] | Annotated[str, Field(min_length=1)] = 0
    """A number, a path (/dev/video0, /dev/v4l/by-id/...), or a name as `mmstream devices` shows it,
    or a part of it that no other camera has."""
    width: int | None = Field(None, ge=16, le=16384)
    """Pixels across; only together with `height`. 640x480 by default, on Linux."""
    height: int | None = Field(None, ge=16, le=16384)
    """Pixels down."""
    fps: int | None = Field(None, ge=1, le=1000)
    """Frames per second; the camera takes the nearest it can, and fewer in the dark."""
    fourcc: str | None = Field(None, pattern=r"^[A-Za-z0-9 ]{4}$")
    """How it codes pixels, as `mmstream devices` shows it. MJPG fits more pixels and frames through
    USB than YUYV, and costs some milliseconds of processor time per picture."""

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if (self.width is None) != (self.height is None):
            msg = "width and height come together; give both or neither"
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True)
class Granted:
    """What a camera says that it sends, which need not be what it was asked for."""

    width: int
    height: int
    """Pixels."""
    fourcc: str
    """Empty: it does not say."""
    fps: float | None
    """None: it does not say."""

    def __str__(self) -> str:
        """As in `1280x720 YUYV 10 fps`."""
        rate = "" if self.fps is None else f"{self.fps:.4g} fps"
        return " ".join(filter(None, (f"{self.width}x{self.height}", self.fourcc, rate)))


class Capture(Protocol):
    """What is used of `cv2.VideoCapture`."""

    def isOpened(self) -> bool: ...  # noqa: D102, N802 - OpenCV's
    def grab(self) -> bool: ...  # noqa: D102 - OpenCV's
    def retrieve(self) -> tuple[bool, cv2.typing.MatLike]: ...  # noqa: D102 - OpenCV's
    def get(self, prop: int, /) -> float: ...  # noqa: D102 - OpenCV's
    def set(self, prop: int, value: float, /) -> bool: ...  # noqa: D102 - OpenCV's
    def release(self) -> None: ...  # noqa: D102 - OpenCV's


class BgrImage:
    """A picture as OpenCV gives it, converted when somebody asks (fits `media.Image`)."""

    __slots__ = ("_bgr", "_luma", "_rgb")

    def __init__(self, bgr: Bytes) -> None:
        """Keep `bgr`, [h, w, 3]; nobody may write to it any more."""
        self._bgr = read_only(bgr)
        self._luma: Bytes | None = None
        self._rgb: Bytes | None = None

    @property
    def width(self) -> int:
        """Pixels across."""
        return int(self._bgr.shape[1])

    @property
    def height(self) -> int:
        """Pixels down."""
        return int(self._bgr.shape[0])

    @property
    def nbytes(self) -> int:
        """Its pixels; what is kept beside them is not counted."""
        return self._bgr.nbytes

    @property
    def luma(self) -> Bytes:
        """[height, width], 0..255 (BT.601); made once."""
        if self._luma is None:
            self._luma = _bytes(cv2.cvtColor(self._bgr, cv2.COLOR_BGR2GRAY))
        return self._luma

    def rgb(self, size: tuple[int, int] | None = None) -> Bytes:
        """[h, w, 3] in 0..255, scaled to `size` = (width, height) if given; the last one is kept.

        Scaling down averages, so nothing aliases.
        """
        width, height = size or (self.width, self.height)
        rgb = self._rgb  # another thread may put another in its place
        if rgb is None or rgb.shape[:2] != (height, width):
            bgr = self._bgr
            if (width, height) != (self.width, self.height):
                shrinks = width <= self.width and height <= self.height
                how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
                bgr = _bytes(cv2.resize(bgr, (width, height), interpolation=how))
            rgb = self._rgb = _bytes(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
        return rgb

    def __repr__(self) -> str:
        """Shape, not pixels."""
        return f"BgrImage({self.width}x{self.height})"


class WebcamSource:
    """Reads one camera for as long as it is there (`stages.Reader`).

    What it drops, by reason: `no_picture` (none came), `corrupt_picture` (half of one came),
    `backward_picture` (stamped no later than the one before).
    """

    live = True

    def __init__(
        self,
        name: str,
        settings: WebcamSettings,
        clock: Clock,
        *,
        capture: "Callable[[str | int], Capture] | None" = None,
    ) -> None:
        """Nothing is opened yet; `capture` opens `settings.device` (by default, `open_camera`)."""
        self.name = name
        self.granted: Granted | None = None
        """What the camera says that it sends; None before it was opened."""
        self._settings = settings
        self._clock = clock
        self._open = capture or open_camera
        self._metrics = StageMetrics(f"webcam/{name}")

    @property
    def metrics(self) -> Sequence[StageMetrics]:
        """Pictures taken, given on and dropped."""
        return (self._metrics,)

    @contextmanager
    def read(self) -> Iterator[Iterator[MediaItem]]:
        """Open it and give its pictures; it starts with the first of them.

        A read may hang: V4L2 waits 10 s for a picture.

        Raises:
            SourceError: it cannot be opened, or no picture comes any more.
        """
        capture = self._open(self._settings.device)
        try:
            self._settle(capture)
            with closing(self._items(capture)) as items:
                yield items
        finally:
            capture.release()

    def _settle(self, capture: Capture) -> None:
        """Ask for what is wanted, and say what it became."""
        _request(capture, self._settings)
        granted = _granted(capture)
        if granted == self.granted:  # said when it was opened before
            return
        self.granted = granted
        of = {"source": self.name}
        if _fits(granted, self._settings):
            _log.info("%s: %s", self.name, granted, extra=of)
        else:
            asked = _asked(self._settings)
            _log.warning("%s: asked for %s: got %s", self.name, asked, granted, extra=of)

    def _items(self, capture: Capture) -> Generator[MediaItem]:
        instants = _Instants(self._metrics)
        frame = self._next(capture, instants)
        yield SourceStarted(
            self.name,
            frozenset({"video"}),
            utc_offset_ns=self._clock.utc_ns() - self._clock.monotonic_ns(),
            clock_offset_ns=0,
        )
        last_ns: int | None = None
        while True:
            if last_ns is None or frame.start_ns > last_ns:
                last_ns = frame.start_ns
                self._metrics.n_out += 1
                yield frame
            else:
                self._metrics.drop("backward_picture")
            frame = self._next(capture, instants)

    def _next(self, capture: Capture, instants: "_Instants") -> VideoFrame:
        """The next picture that can be used."""
        for _ in range(MAX_FAILURES):
            if not _grabbed(capture):
                self._metrics.drop("no_picture")
                continue
            now_ns = self._clock.monotonic_ns()
            self._metrics.n_in += 1
            start_ns = instants.at_ns(_stamp_ns(capture), now_ns)
            image = _image(capture)
            if image is not None:
                return VideoFrame(self.name, start_ns, image)
            self._metrics.drop("corrupt_picture")
        msg = f"camera {self._settings.device}: {MAX_FAILURES} pictures in a row failed; unplugged?"
        raise SourceError(msg)


class _Instants:
    """When pictures were captured, by our clock."""

    def __init__(self, metrics: StageMetrics) -> None:
        self._other_clock = ClockMap(metrics, noise="late")
        self._last_stamp_ns = 0

    def at_ns(self, stamp_ns: int, now_ns: int) -> int:
        """The instant of a picture with this stamp that is there now; never after now."""
        if 0 <= now_ns - stamp_ns < OLDEST_NS:
            return stamp_ns
        advances = stamp_ns > self._last_stamp_ns
        self._last_stamp_ns = stamp_ns
        if not advances:  # no stamps at all, or their clock was set back
            return now_ns
        self._other_clock.see(stamp_ns, now_ns)
        return min(now_ns, self._other_clock.at_ns(stamp_ns))


def open_camera(device: str | int) -> cv2.VideoCapture:
    """Open the camera that `device` means, as `WebcamSettings.device` describes it.

    Raises:
        SourceError: it is not there, there is no permission, or another program uses it.
    """
    _quiet()
    if sys.platform != "linux":
        return _open_elsewhere(device)
    path = find_camera(device)
    problem = problem_of(path)
    if problem is None:
        opened = cv2.VideoCapture(path, cv2.CAP_V4L2)
        if opened.isOpened():
            return opened
        problem = f"another program uses it (`fuser -v {path}` shows which), or it is no camera"
    msg = f"{path}: {problem}"
    raise SourceError(msg)


def _open_elsewhere(device: str | int) -> cv2.VideoCapture:
    if isinstance(device, int):
        opened = cv2.VideoCapture(device)
        if opened.isOpened():
            return opened
    msg = f"camera {device} cannot be opened; allowed: the number of one that nobody else uses"
    raise SourceError(msg)


def available_cameras() -> tuple[Camera, ...]:
    """The cameras there are; where the system cannot be asked, those that OpenCV can open."""
    return _opened_in_turn() if sys.platform != "linux" else list_cameras()


def _opened_in_turn() -> tuple[Camera, ...]:
    _quiet()
    found = []
    for index in range(_MAX_PROBED):
        capture = cv2.VideoCapture(index)
        if capture.isOpened():
            found.append(Camera(str(index), f"camera {index}"))
        capture.release()
    return tuple(found)


def _quiet() -> None:
    """Keep OpenCV from saying what we say already, unless the user wants to hear it."""
    if "OPENCV_LOG_LEVEL" not in os.environ:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _request(capture: Capture, settings: WebcamSettings) -> None:
    """In the order that V4L2 needs: what the rate may be depends on the size, that on the format.

    A refusal shows in what is granted.
    """
    capture.set(cv2.CAP_PROP_BUFFERSIZE, N_BUFFERS)
    if settings.fourcc is not None:
        code = cv2.VideoWriter.fourcc(*settings.fourcc)
        capture.set(cv2.CAP_PROP_FOURCC, code)
    if settings.width is not None and settings.height is not None:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, settings.width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, settings.height)
    if settings.fps is not None:
        capture.set(cv2.CAP_PROP_FPS, settings.fps)


def _granted(capture: Capture) -> Granted:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return Granted(
        int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        _fourcc(int(capture.get(cv2.CAP_PROP_FOURCC))),
        fps if np.isfinite(fps) and fps > 0 else None,
    )


def _fourcc(code: int) -> str:
    letters = (code & 0xFFFFFFFF).to_bytes(4, "little").decode("latin-1")
    return letters if letters.isascii() and letters.isprintable() else ""


def _fits(granted: Granted, settings: WebcamSettings) -> bool:
    """Whether it is what was asked for, as far as anything was, and is known."""
    return (
        settings.width in (None, granted.width)
        and settings.height in (None, granted.height)
        and (settings.fourcc is None or granted.fourcc.strip() in ("", settings.fourcc.strip()))
        and (settings.fps is None or granted.fps is None or abs(granted.fps - settings.fps) < 1)
    )


def _asked(settings: WebcamSettings) -> str:
    size = None if settings.width is None else f"{settings.width}x{settings.height}"
    rate = None if settings.fps is None else f"{settings.fps} fps"
    return " ".join(part for part in (size, settings.fourcc, rate) if part is not None)


def _grabbed(capture: Capture) -> bool:
    try:
        return capture.grab()
    except cv2.error:  # what it asserts of the driver's buffers does not hold
        return False


def _stamp_ns(capture: Capture) -> int:
    return round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)


def _image(capture: Capture) -> BgrImage | None:
    """The picture just taken; None where it cannot be decoded."""
    try:
        ok, pixels = capture.retrieve()
    except cv2.error:
        return None
    # A JPEG that broke off is "retrieved" as nothing.
    return BgrImage(_bytes(pixels)) if ok and pixels is not None and pixels.size else None


def _bytes(pixels: cv2.typing.MatLike) -> Bytes:
    return read_only(np.asarray(pixels, np.uint8))
