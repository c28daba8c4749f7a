import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Final, Literal

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from mmstream.clock import ManualClock
from mmstream.errors import SourceError
from mmstream.media import NS_PER_SEC, Bytes, MediaItem, SourceStarted, VideoFrame
from mmstream.sources.webcam import (
    MAX_FAILURES,
    BgrImage,
    Granted,
    WebcamSettings,
    WebcamSource,
    available_cameras,
    open_camera,
)

FPS: Final = 25
FRAME_NS: Final = NS_PER_SEC // FPS
N_FRAMES: Final = 132
CLIP: Final = "av_clips/big_buck_bunny_5s_720p_6ch.mp4"
"""25 frames per second, stamped from 0."""
START_NS: Final = 5_000 * NS_PER_SEC
SENT_NS: Final = 12_000_000
"""How long a picture is under way from the camera to us."""

Stamps = Literal["ours", "others", "none"]


class Camera:
    """A recording that plays as a camera would: a picture is there when its time has come.

    `cv2.VideoCapture` reads it; only the time stamps of pictures are moved (a subclass of it
    crashes the interpreter when it is freed).
    """

    def __init__(
        self, path: Path, clock: ManualClock, stamps: Stamps, late_ns: Sequence[int] = (0,)
    ) -> None:
        self._file = cv2.VideoCapture(str(path))
        self._clock = clock
        self._stamps = stamps
        self._late_ns = late_ns
        self.n_grabbed = 0
        self.asked: list[tuple[int, float]] = []
        self.is_released = False

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's
        return self._file.isOpened()

    def grab(self) -> bool:
        """Wait for the next picture; it was captured a frame's time after the one before."""
        late_ns = self._late_ns[self.n_grabbed % len(self._late_ns)]
        there_ns = self.captured_ns(self.n_grabbed) + SENT_NS + late_ns
        self._clock.sleep((there_ns - self._clock.monotonic_ns()) / NS_PER_SEC)
        self.n_grabbed += 1
        return self._file.grab()

    @staticmethod
    def captured_ns(index: int) -> int:
        return START_NS + index * FRAME_NS

    def retrieve(self) -> tuple[bool, cv2.typing.MatLike]:
        return self._file.retrieve()

    def get(self, prop: int, /) -> float:
        value = self._file.get(prop)
        if prop != cv2.CAP_PROP_POS_MSEC:
            return value
        if self._stamps == "ours":
            return value + START_NS / 1e6
        return 0.0 if self._stamps == "none" else value + 7e9

    def set(self, prop: int, value: float, /) -> bool:
        self.asked.append((prop, value))
        return self._file.set(prop, value)

    def release(self) -> None:
        self.is_released = True
        self._file.release()


class Unsteady(Camera):
    """One whose pictures fail as `fails` says, by their number."""

    fails: Callable[[int], bool] = staticmethod(lambda _: False)
    how: Literal["grab", "retrieve", "assert", "empty"] = "grab"

    def grab(self) -> bool:
        there = super().grab()
        return there and not (self.how == "grab" and self.fails(self.n_grabbed - 1))

    def retrieve(self) -> tuple[bool, cv2.typing.MatLike]:
        if not self.fails(self.n_grabbed - 1) or self.how == "grab":
            return super().retrieve()
        if self.how == "assert":
            raise cv2.error
        return self.how == "empty", np.empty((0, 0, 3), np.uint8)


def source(camera: Camera, clock: ManualClock, **settings: object) -> WebcamSource:
    chosen = WebcamSettings.model_validate(settings)
    return WebcamSource("desk", chosen, clock, capture=lambda _: camera)


def first(reader: WebcamSource, n: int) -> list[MediaItem]:
    with reader.read() as items:
        return list(islice(items, n))


def frames_of(items: Sequence[MediaItem]) -> list[VideoFrame]:
    return [item for item in items if isinstance(item, VideoFrame)]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START_NS, 1_700_000_000 * NS_PER_SEC)


def test_it_starts_with_its_first_picture_on_our_clock(data_dir: Path, clock: ManualClock) -> None:
    camera = Camera(data_dir / CLIP, clock, "ours")
    reader = source(camera, clock)
    started, frame = first(reader, 2)
    assert started == SourceStarted(
        "desk",
        frozenset({"video"}),
        utc_offset_ns=1_700_000_000 * NS_PER_SEC - START_NS,
        clock_offset_ns=0,
    )
    assert isinstance(frame, VideoFrame)
    assert (frame.image.width, frame.image.height) == (1280, 720)
    assert camera.is_released


def test_the_drivers_stamps_are_the_instants(data_dir: Path, clock: ManualClock) -> None:
    camera = Camera(data_dir / CLIP, clock, "ours", late_ns=(0, 900_000_000, 30_000_000))
    got = frames_of(first(source(camera, clock), 101))
    assert [frame.start_ns for frame in got] == [camera.captured_ns(i) for i in range(100)]


def test_without_stamps_it_is_when_the_picture_was_there(
    data_dir: Path, clock: ManualClock
) -> None:
    camera = Camera(data_dir / CLIP, clock, "none", late_ns=(0, 7_000_000))
    got = frames_of(first(source(camera, clock), 51))
    late = [frame.start_ns - camera.captured_ns(i) for i, frame in enumerate(got)]
    assert set(late) == {SENT_NS, SENT_NS + 7_000_000}


def test_stamps_of_another_clock_take_the_jitter_out(data_dir: Path, clock: ManualClock) -> None:
    camera = Camera(data_dir / CLIP, clock, "others", late_ns=(0, 25_000_000, 10_000_000))
    got = frames_of(first(source(camera, clock), 101))
    late = [frame.start_ns - camera.captured_ns(i) for i, frame in enumerate(got)][10:]
    assert all(SENT_NS <= by <= SENT_NS + 2_000_000 for by in late), late
    assert all(a.start_ns < b.start_ns for a, b in pairwise(got))


def test_a_picture_stamped_no_later_than_the_one_before_is_dropped(
    data_dir: Path, clock: ManualClock
) -> None:
    camera = Camera(data_dir / CLIP, clock, "ours")
    reader = source(camera, clock)
    with reader.read() as items:
        before = frames_of(list(islice(items, 4)))
        camera.get = _stuck(camera.get, n=3)  # type: ignore[method-assign]  # for three pictures
        after = frames_of(list(islice(items, 2)))
    starts = [frame.start_ns for frame in (*before, *after)]
    assert starts == sorted(set(starts))
    assert reader.metrics[0].dropped["backward_picture"] == 3


def _stuck(get: Callable[[int], float], n: int) -> Callable[[int], float]:
    """The same, but the next `n` stamps are one that was."""
    left = [START_NS / 1e6] * n

    def stuck(prop: int, /) -> float:
        said = get(prop)
        return left.pop() if prop == cv2.CAP_PROP_POS_MSEC and left else said

    return stuck


def test_a_camera_has_no_end(data_dir: Path, clock: ManualClock) -> None:
    camera = Camera(data_dir / CLIP, clock, "ours")
    reader = source(camera, clock, device="/dev/video3")
    got: list[MediaItem] = []
    with (
        pytest.raises(SourceError, match=r"camera /dev/video3: .*unplugged\?"),
        reader.read() as it,
    ):
        got.extend(it)
    assert len(frames_of(got)) == N_FRAMES
    counts = reader.metrics[0]
    assert (counts.n_in, counts.n_out) == (N_FRAMES, N_FRAMES)
    assert counts.dropped == {"no_picture": MAX_FAILURES}
    assert camera.is_released


@pytest.mark.parametrize("how", ["grab", "retrieve", "assert", "empty"])
def test_a_few_pictures_that_fail_are_counted_and_passed_over(
    data_dir: Path, clock: ManualClock, how: Literal["grab", "retrieve", "assert", "empty"]
) -> None:
    camera = Unsteady(data_dir / CLIP, clock, "ours")
    camera.how, camera.fails = how, lambda i: i % 10 < MAX_FAILURES - 1
    reader = source(camera, clock)
    got = frames_of(first(reader, 31))
    kept = [i for i in range(camera.n_grabbed) if not camera.fails(i)]
    assert [frame.start_ns for frame in got] == [camera.captured_ns(i) for i in kept]
    reason = "no_picture" if how == "grab" else "corrupt_picture"
    assert reader.metrics[0].dropped == {reason: camera.n_grabbed - len(kept)}


def test_one_that_never_gives_a_picture_never_starts(data_dir: Path, clock: ManualClock) -> None:
    camera = Unsteady(data_dir / CLIP, clock, "ours")
    camera.how, camera.fails = "empty", lambda _: True
    with pytest.raises(SourceError, match="5 pictures in a row failed"):
        first(source(camera, clock), 1)


def test_what_was_granted_is_said_once(
    data_dir: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    wanted = {"width": 1920, "height": 1080, "fourcc": "MJPG", "fps": 30}
    chosen = WebcamSettings.model_validate(wanted)
    reader = WebcamSource(
        "desk", chosen, clock, capture=lambda _: Camera(data_dir / CLIP, clock, "ours")
    )
    before = reader.granted
    assert before is None
    for _ in range(2):  # opened again: not said again
        first(reader, 1)
    assert reader.granted == Granted(1280, 720, "h264", 25.0)
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", "desk: asked for 1920x1080 MJPG 30 fps: got 1280x720 h264 25 fps")
    ]


def test_what_fits_is_no_warning(
    data_dir: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first(source(Camera(data_dir / CLIP, clock, "ours"), clock, width=1280, height=720, fps=25), 1)
    first(source(Camera(data_dir / CLIP, clock, "ours"), clock), 1)
    said = [(r.levelname, r.getMessage()) for r in caplog.records]
    assert said == [("INFO", "desk: 1280x720 h264 25 fps")] * 2


def test_the_format_is_asked_for_first_and_the_rate_last(
    data_dir: Path, clock: ManualClock
) -> None:
    camera = Camera(data_dir / CLIP, clock, "ours")
    first(source(camera, clock, width=640, height=480, fps=30, fourcc="YUYV"), 1)
    assert [prop for prop, _ in camera.asked] == [
        cv2.CAP_PROP_BUFFERSIZE,
        cv2.CAP_PROP_FOURCC,
        cv2.CAP_PROP_FRAME_WIDTH,
        cv2.CAP_PROP_FRAME_HEIGHT,
        cv2.CAP_PROP_FPS,
    ]
    assert dict(camera.asked)[cv2.CAP_PROP_FOURCC] == int.from_bytes(b"YUYV", "little")


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 640},
        {"height": 480},
        {"fourcc": "MJPEG"},
        {"fourcc": "ab!c"},
        {"device": -1},
        {"device": True},
        {"device": ""},
        {"fps": 0},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        WebcamSettings.model_validate(wrong)


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("/dev/video77", "no such camera"),
        ("/dev/null", "/dev/null: another program uses it .*, or it is no camera"),
        ("no such name", "no camera has that name"),
    ],
)
def test_opening_what_is_no_camera_says_why(device: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        open_camera(device)


def test_opencv_is_quiet_about_it() -> None:
    program = (
        "from mmstream.errors import SourceError\n"
        "from mmstream.sources.webcam import open_camera\n"
        "try:\n    open_camera('/dev/null')\nexcept SourceError: pass\n"
    )
    env = {key: value for key, value in os.environ.items() if key != "OPENCV_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, timeout=30, check=True
    )
    assert (done.stdout, done.stderr) == (b"", b"")


def test_the_cameras_there_are() -> None:
    assert {camera.path for camera in available_cameras()} <= {
        str(path) for path in Path("/dev").glob("video*")
    }


def picture(data_dir: Path) -> Bytes:
    capture = cv2.VideoCapture(str(data_dir / CLIP))
    ok, pixels = capture.retrieve() if capture.grab() else (False, np.empty(0))
    assert ok
    return np.asarray(pixels, np.uint8)


def test_a_picture_is_converted_when_asked(data_dir: Path) -> None:
    pixels = picture(data_dir)
    image = BgrImage(pixels)
    assert (image.width, image.height, image.nbytes) == (1280, 720, 1280 * 720 * 3)
    assert np.array_equal(image.rgb(), pixels[:, :, ::-1])
    weighted = pixels @ np.array([0.114, 0.587, 0.299])
    assert np.abs(image.luma - weighted).max() <= 1
    assert image.luma is image.luma
    assert image.rgb((80, 60)) is image.rgb((80, 60))
    for made in (image.luma, image.rgb(), pixels):
        assert not made.flags.writeable


@pytest.mark.parametrize("size", [(80, 60), (107, 33), (640, 480), (500, 100)])
def test_scaling_keeps_the_picture(data_dir: Path, size: tuple[int, int]) -> None:
    image = BgrImage(picture(data_dir))
    scaled = image.rgb(size)
    assert scaled.shape == (size[1], size[0], 3)
    assert np.abs(scaled.mean((0, 1)) - image.rgb().mean((0, 1))).max() < 2


def test_scaling_down_averages() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(BgrImage(stripes).rgb((16, 16))) <= 1
