import errno
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from linuxpy.video import raw  # type: ignore[import-untyped]  # it has no types

from mmstream.errors import SourceError
from mmstream.sources import cameras
from mmstream.sources.cameras import (
    Camera,
    CameraFormat,
    described,
    find_camera,
    list_cameras,
    problem_of,
)

NOBODY = 65534

T = TypeVar("T")


@dataclass(frozen=True)
class Size:
    width: int
    height: int
    intervals: tuple[tuple[int, int], ...]
    """Seconds between frames, as fractions; none: the driver does not say."""
    smallest: tuple[int, int] | None = None
    """With one, every size up to this can be had."""


@dataclass(frozen=True)
class Node:
    card: bytes
    capabilities: int
    formats: Mapping[str, tuple[Size, ...]]


C920 = Node(
    b"HD Pro Webcam C920",
    raw.Capability.VIDEO_CAPTURE | raw.Capability.STREAMING,
    {
        "YUYV": (Size(640, 480, ((1, 30), (1, 15))), Size(1280, 720, ((1, 10), (2, 15)))),
        "MJPG": (Size(1280, 720, ((1, 30),)), Size(1920, 1080, ((1, 30), (1, 24)))),
    },
)
C920_METADATA = Node(b"HD Pro Webcam C920", raw.Capability.META_CAPTURE, {})
LOOPBACK = Node(
    b"Dummy video device (0x0000)",
    raw.Capability.VIDEO_CAPTURE,
    {"YU12": (Size(8192, 8192, (), smallest=(2, 1)),)},
)


STRUCTURES = {
    raw.IOC.QUERYCAP: raw.v4l2_capability,
    raw.IOC.ENUM_FMT: raw.v4l2_fmtdesc,
    raw.IOC.ENUM_FRAMESIZES: raw.v4l2_frmsizeenum,
    raw.IOC.ENUM_FRAMEINTERVALS: raw.v4l2_frmivalenum,
}


class Kernel:
    """Answers as drivers do, by linuxpy's structures: ours must lie on them to the byte."""

    def __init__(self, folder: Path, nodes: Mapping[str, Node]) -> None:
        self._nodes = {str(folder / name): node for name, node in nodes.items()}
        for path in self._nodes:
            Path(path).touch()

    def ioctl(self, fileno: int, request: int, buffer: bytearray) -> int:
        node = self._nodes[str(Path(f"/proc/self/fd/{fileno}").readlink())]
        asked = STRUCTURES[raw.IOC(request - 2**32)].from_buffer(buffer)  # it has them signed
        match asked:
            case raw.v4l2_capability():
                asked.card = node.card
                asked.device_caps = node.capabilities
            case raw.v4l2_fmtdesc():
                assert asked.type == raw.BufType.VIDEO_CAPTURE
                asked.pixelformat = raw.v4l2_fourcc(*_at(list(node.formats), asked.index))
            case raw.v4l2_frmsizeenum():
                self._size(asked, _at(_sizes(node, asked.pixel_format), asked.index))
            case raw.v4l2_frmivalenum():
                sizes = _sizes(node, asked.pixel_format)
                (size,) = (s for s in sizes if (s.width, s.height) == (asked.width, asked.height))
                interval = _at(size.intervals, asked.index)
                asked.type = raw.Frmivaltypes.DISCRETE
                asked.discrete.numerator, asked.discrete.denominator = interval
            case _:
                pytest.fail(f"not a question of these devices: {request}")
        return 0

    def _size(self, asked: raw.v4l2_frmsizeenum, size: Size) -> None:
        if size.smallest is None:
            asked.type = raw.Frmsizetypes.DISCRETE
            asked.discrete.width, asked.discrete.height = size.width, size.height
            return
        asked.type = raw.Frmsizetypes.STEPWISE
        asked.stepwise.min_width, asked.stepwise.min_height = size.smallest
        asked.stepwise.max_width, asked.stepwise.max_height = size.width, size.height


def _sizes(node: Node, code: int) -> tuple[Size, ...]:
    (sizes,) = (sizes for fourcc, sizes in node.formats.items() if raw.v4l2_fourcc(*fourcc) == code)
    return sizes


def _at(of: Sequence[T], index: int) -> T:
    """The one at `index`; past the last, the kernel says EINVAL."""
    if index >= len(of):
        raise OSError(errno.EINVAL, "no more of them")
    return of[index]


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /dev with a webcam of two nodes and a virtual camera."""
    nodes = {"video10": LOOPBACK, "video0": C920, "video1": C920_METADATA}
    monkeypatch.setattr(cameras, "DEVICES", tmp_path)
    monkeypatch.setattr(fcntl, "ioctl", Kernel(tmp_path, nodes).ioctl)
    return tmp_path


@contextmanager
def nobody() -> Iterator[None]:
    """Root may open everything: for a moment we are somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_the_cameras_of_this_machine_are_asked() -> None:
    nodes = {str(path) for path in Path("/dev").glob("video*")}
    assert {camera.path for camera in list_cameras()} <= nodes


def test_cameras_come_by_number_with_all_their_formats_and_no_metadata(devices: Path) -> None:
    assert list_cameras() == (
        Camera(
            str(devices / "video0"),
            "HD Pro Webcam C920",
            (
                CameraFormat("YUYV", 640, 480, 30),
                CameraFormat("YUYV", 1280, 720, 10),
                CameraFormat("MJPG", 1280, 720, 30),
                CameraFormat("MJPG", 1920, 1080, 30),
            ),
        ),
        Camera(
            str(devices / "video10"),
            "Dummy video device (0x0000)",
            (CameraFormat("YU12", 8192, 8192, None),),
        ),
    )


def test_a_camera_that_may_not_be_opened_is_listed_with_what_helps(
    devices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = tmp_path / "names"
    (names / "video10").mkdir(parents=True)
    (names / "video10" / "name").write_text("Dummy video device\n")
    monkeypatch.setattr(cameras, "NAMES", names)
    (devices / "video10").chmod(0)
    for folder in (devices, *devices.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o055)
    (devices / "video0").unlink()
    (devices / "video1").unlink()
    with nobody():
        (camera,) = list_cameras()
        problem = problem_of(camera.path)
    assert (camera.name, camera.formats) == ("Dummy video device", ())
    assert camera.problem == problem
    assert "usermod -aG video" in str(problem)


@pytest.mark.parametrize(
    "device", [0, "HD Pro Webcam C920", "c920", "/dev/v4l/by-id/usb-046d_HD_Pro_Webcam_C920"]
)
def test_a_camera_is_found_by_number_path_name_or_part_of_it(
    devices: Path, device: str | int
) -> None:
    is_path = isinstance(device, str) and device.startswith("/")
    assert find_camera(device) == (device if is_path else str(devices / "video0"))


def test_a_whole_name_goes_before_a_part(devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cams = {
        "video0": Node(b"Cam", C920.capabilities, {}),
        "video1": Node(b"Cam 2", C920.capabilities, {}),
    }
    monkeypatch.setattr(fcntl, "ioctl", Kernel(devices, cams).ioctl)
    (devices / "video10").unlink()
    assert find_camera("Cam") == str(devices / "video0")
    assert find_camera("cam 2") == str(devices / "video1")
    with pytest.raises(SourceError, match="several cameras have that name, say the path"):
        find_camera("cam")


@pytest.mark.usefixtures("devices")
def test_a_name_that_nothing_has_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(SourceError, match=r"C921: no camera has that name.*video0 \(HD Pro Web"):
        find_camera("C921")


def test_why_a_device_cannot_be_opened(devices: Path) -> None:
    assert problem_of(str(devices / "video0")) is None
    assert "is a directory" in str(problem_of(str(devices))).lower()
    missing = str(problem_of(str(devices / "video7")))
    assert missing.startswith("no such camera; there are: ")
    assert "video0 (HD Pro Webcam C920)" in missing


def test_without_cameras_it_says_how_to_get_one() -> None:
    assert "--device /dev/video0" in described(())
