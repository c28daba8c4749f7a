"""What a V4L2 device says of itself: the four questions of linux/videodev2.h that list formats.

Python packages that ask them are under the GPL. The layouts are the kernel's, which never change.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final

CAPTURE: Final = 0x1
CAPTURE_PLANES: Final = 0x1000
"""`device_caps`: gives pictures, in one plane or several."""

_QUERYCAP: Final = 0x80685600
_ENUM_FMT: Final = 0xC0405602
_ENUM_FRAMESIZES: Final = 0xC02C564A
_ENUM_FRAMEINTERVALS: Final = 0xC034564B
_CAPABILITY: Final = struct.Struct("=16s32s32s3I12x")
_FORMAT: Final = struct.Struct("=3I32sI16x")
_SIZE: Final = struct.Struct("=9I8x")
_INTERVAL: Final = struct.Struct("=11I8x")
_BUFFER_TYPES: Final = {CAPTURE: 1, CAPTURE_PLANES: 9}
_DISCRETE: Final = 1


@dataclass(frozen=True, slots=True)
class Capability:
    """Who a device is, and what it can do."""

    card: str
    device_caps: int


@dataclass(frozen=True, slots=True)
class Size:
    """A size that a format comes in, in pixels; of a range the largest."""

    width: int
    height: int


def capability(device: int) -> Capability:
    """What the device behind a file descriptor is.

    Raises:
        OSError: it is no V4L2 device, or is unplugged.
    """
    answer = bytearray(_CAPABILITY.size)
    fcntl.ioctl(device, _QUERYCAP, answer)
    _, card, _, _, _, device_caps = _CAPABILITY.unpack(answer)
    return Capability(card.split(b"\0")[0].decode("utf-8", "replace"), device_caps)


def pixel_formats(device: int, device_caps: int) -> Iterator[int]:
    """The codes of its pixel formats, as the driver orders them."""
    for bit, buffer_type in _BUFFER_TYPES.items():
        if not device_caps & bit:
            continue
        for index in count():
            asked = bytearray(_FORMAT.pack(index, buffer_type, 0, b"", 0))
            if not _has(device, _ENUM_FMT, asked):
                break
            yield int(_FORMAT.unpack(asked)[4])


def sizes(device: int, pixel_format: int) -> Iterator[Size]:
    """The sizes of a pixel format."""
    for index in count():
        asked = bytearray(_SIZE.pack(index, pixel_format, *[0] * 7))
        if not _has(device, _ENUM_FRAMESIZES, asked):
            return
        _, _, kind, first, second, _, _, highest, _ = _SIZE.unpack(asked)
        if kind != _DISCRETE:  # a range: min, max and step of the width, then of the height
            yield Size(second, highest)
            return
        yield Size(first, second)


def most_fps(device: int, pixel_format: int, size: Size) -> float | None:
    """The most frames per second at that size; None: the driver does not say."""
    fastest = 0.0
    for index in count():
        asked = bytearray(_INTERVAL.pack(index, pixel_format, size.width, size.height, *[0] * 7))
        if not _has(device, _ENUM_FRAMEINTERVALS, asked):
            break
        _, _, _, _, kind, numerator, denominator, *_ = _INTERVAL.unpack(asked)
        if numerator:  # of a range the shortest interval comes first
            fastest = max(fastest, denominator / numerator)
        if kind != _DISCRETE:
            break
    return fastest or None


def fourcc(pixel_format: int) -> str:
    """The four letters of a code; the highest bit only says big-endian."""
    letters = (pixel_format & 0x7FFFFFFF).to_bytes(4, "little")
    return letters.decode("ascii", "replace").strip()


def open_device(path: str) -> int:
    """A file descriptor to ask by, which does not take the device from anybody.

    Raises:
        OSError: there is none, or no permission.
    """
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def _has(device: int, request: int, asked: bytearray) -> bool:
    """Ask for one more; False where the driver has no more, or does not list any."""
    try:
        fcntl.ioctl(device, request, asked)
    except OSError:
        return False
    return True
