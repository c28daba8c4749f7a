"""Which cameras this machine has, and what each can send: V4L2, asked by `sources.v4l2`.

Other systems cannot be asked without opening every camera: there, `list_cameras` names none.

Untested: real devices. No machine that builds this has a camera; the tests answer the
questions to the kernel as two real cameras did.
"""

import errno
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmstream.errors import SourceError
from mmstream.sources import v4l2

NO_CAMERA: Final = (
    "no camera is there; plug one in, or hand one to the container (--device /dev/video0) "
    "or virtual machine"
)
DEVICES: Final = Path("/dev")
"""Where the kernel shows devices."""
NAMES: Final = Path("/sys/class/video4linux")
"""Where it tells their names to everyone."""
_PROBLEMS: Final = {
    errno.EACCES: "no permission; add yourself to the group video (sudo usermod -aG video $USER) "
    "and log in again",
    errno.EPERM: "no permission; hand it to the container (--device)",
    errno.EBUSY: "another program uses it",
    errno.ENODEV: "it is unplugged",
    errno.ENXIO: "it is unplugged",
}
"""What the ways in which opening fails mean, and what helps."""


@dataclass(frozen=True, slots=True)
class CameraFormat:
    """One kind of picture that a camera sends."""

    fourcc: str
    """How its pixels are coded: MJPG, YUYV, ..."""
    width: int
    height: int
    """Pixels; where a camera offers any size in a range, the largest."""
    fps: float | None
    """The most frames per second; None: it does not say."""


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera of this machine."""

    path: str
    """What opens it: /dev/videoN."""
    name: str
    """What it calls itself; several may have the same name."""
    formats: tuple[CameraFormat, ...] = ()
    problem: str | None = None
    """Why it cannot be opened, and what helps."""


def list_cameras() -> tuple[Camera, ...]:
    """Every V4L2 device that captures pictures, by number; empty on systems other than Linux."""
    if sys.platform != "linux":
        return ()
    found = (_camera(path) for path in sorted(DEVICES.glob("video[0-9]*"), key=_number))
    return tuple(camera for camera in found if camera is not None)


def find_camera(device: str | int) -> str:
    """The path that `device` means: a number, a path, a name, or a part of only one name.

    Raises:
        SourceError: there is no such camera, or several have that name; the text lists them.
    """
    if isinstance(device, int):
        return str(DEVICES / f"video{device}")
    if device.startswith("/"):
        return device
    cameras = list_cameras()
    exact = [camera.path for camera in cameras if camera.name == device]
    part = [camera.path for camera in cameras if device.casefold() in camera.name.casefold()]
    paths = exact or part
    if len(paths) == 1:
        return paths[0]
    what = "several cameras have that name, say the path" if paths else "no camera has that name"
    msg = f"{device}: {what}; there are: {described(cameras)}"
    raise SourceError(msg)


def problem_of(path: str) -> str | None:
    """Why the device at `path` cannot be opened, and what helps; None where it can."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"no such camera; there are: {described(list_cameras())}"
    except OSError as error:
        return _PROBLEMS.get(error.errno or 0, error.strerror)
    return None


def described(cameras: Sequence[Camera]) -> str:
    """Their paths and names in one line."""
    return ", ".join(f"{camera.path} ({camera.name})" for camera in cameras) or NO_CAMERA


def _number(path: Path) -> int:
    digits = re.search(r"\d+$", path.name)
    return int(digits[0]) if digits else 0


def _camera(path: Path) -> Camera | None:
    """The camera at `path`; None for a device that sends no pictures, such as metadata."""
    try:
        device = v4l2.open_device(str(path))
        try:
            found = v4l2.capability(device)
            if not found.device_caps & (v4l2.CAPTURE | v4l2.CAPTURE_PLANES):
                return None
            return Camera(str(path), found.card, tuple(_formats(device, found.device_caps)))
        finally:
            os.close(device)
    except OSError as error:
        problem = _PROBLEMS.get(error.errno or 0, error.strerror)
        return Camera(str(path), _name(path), problem=problem)


def _formats(device: int, device_caps: int) -> Iterator[CameraFormat]:
    """Every size of every format."""
    for pixel_format in v4l2.pixel_formats(device, device_caps):
        for size in v4l2.sizes(device, pixel_format):
            fps = v4l2.most_fps(device, pixel_format, size)
            yield CameraFormat(v4l2.fourcc(pixel_format), size.width, size.height, fps)


def _name(path: Path) -> str:
    """What the kernel calls it: that can be read without permission to open it."""
    try:
        return (NAMES / path.name / "name").read_text().strip()
    except OSError:
        return "camera"
