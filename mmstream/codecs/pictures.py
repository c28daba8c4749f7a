"""Pictures as a codec leaves them: an `Image` around a PyAV frame, converted only when asked."""

import threading
from functools import lru_cache
from typing import Final, Literal

import av
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, VideoReformatter

from mmstream.media import Bytes, read_only

PixelFormat = Literal["rgb24", "bgr24", "gray"]
"""What `image_from_array` takes: three interleaved bytes per pixel, or one."""

_N_CHANNELS: Final = {"rgb24": 3, "bgr24": 3, "gray": 1}


class CodedImage:
    """A decoded picture that stays as the codec left it until somebody asks for colour.

    It is turned upright where the file says that the camera was held sideways or upside down.
    Reading `width`, `height` and `nbytes` is free and safe from any thread. `rgb`, and `luma` of
    formats without a plane of their own for it, convert: never on the loop. `rgb` is safe from any
    thread; two that want different sizes only take each other's kept picture away.
    """

    __slots__ = ("_frame", "_luma", "_nbytes", "_quarter_turns", "_rgb")

    def __init__(self, frame: av.VideoFrame) -> None:
        """Keep `frame`; nobody may write to it any more."""
        self._frame = frame
        self._nbytes = sum(plane.buffer_size for plane in frame.planes)
        self._quarter_turns = round(frame.rotation / 90) % 4
        self._luma: Bytes | None = None
        self._rgb: Bytes | None = None

    @property
    def width(self) -> int:
        """Pixels across."""
        return self._frame.height if self._quarter_turns % 2 else self._frame.width

    @property
    def height(self) -> int:
        """Pixels down."""
        return self._frame.width if self._quarter_turns % 2 else self._frame.height

    @property
    def nbytes(self) -> int:
        """Its coded planes; constant, so what `rgb` keeps beside them is not counted."""
        return self._nbytes

    @property
    def luma(self) -> Bytes:
        """[height, width]: as coded (16..235 for most video), or 0..255 where it must be converted.

        A view for every 8-bit format that keeps its luma in a plane of its own.
        """
        if self._luma is None:
            frame = self._frame
            if not _has_luma_plane(frame.format.name):
                frame = _convert(frame, frame.width, frame.height, "gray")
            self._luma = self._upright(_pixels(frame.planes[0], 1)[:, :, 0])
        return self._luma

    def rgb(self, size: tuple[int, int] | None = None) -> Bytes:
        """[h, w, 3] in 0..255, scaled to `size` = (width, height) if given; the last one is kept.

        Scaling down averages (libswscale's bilinear widens its filter), so nothing aliases.
        """
        width, height = size or (self.width, self.height)
        rgb = self._rgb  # another thread may put another in its place
        if rgb is None or rgb.shape[:2] != (height, width):
            if self._quarter_turns % 2:
                frame = _convert(self._frame, height, width, "rgb24")
            else:
                frame = _convert(self._frame, width, height, "rgb24")
            upright = self._upright(_pixels(frame.planes[0], 3))
            rgb = self._rgb = read_only(np.ascontiguousarray(upright))
        return rgb

    def _upright(self, pixels: Bytes) -> Bytes:
        return read_only(np.rot90(pixels, self._quarter_turns)) if self._quarter_turns else pixels

    def __repr__(self) -> str:
        """Shape, not pixels."""
        return f"CodedImage({self.width}x{self.height} {self._frame.format.name})"


def image_from_array(array: Bytes, pixel_format: PixelFormat = "rgb24") -> CodedImage:
    """A picture holding a copy of `array`: [h, w, 3] for rgb24 and bgr24, [h, w] for gray.

    Raises:
        ValueError: the array's shape or type does not fit `pixel_format`.
    """
    shape = array.shape[2:] or (1,)
    if array.ndim not in (2, 3) or shape != (_N_CHANNELS[pixel_format],) or array.size == 0:
        msg = f"{pixel_format} takes [h, w, {_N_CHANNELS[pixel_format]}]: got {array.shape=}"
        raise ValueError(msg)
    if array.dtype != np.uint8:
        msg = f"a picture holds bytes: got {array.dtype=}"
        raise ValueError(msg)
    pixels = array if pixel_format != "gray" else array.reshape(array.shape[:2])
    return CodedImage(av.VideoFrame.from_ndarray(pixels, format=pixel_format))


class _Converters(threading.local):
    """One libswscale context per thread: setting one up costs as much as a small picture."""

    def __init__(self) -> None:
        self.reformatter = VideoReformatter()


_CONVERTERS: Final = _Converters()


def _convert(frame: av.VideoFrame, width: int, height: int, pixel_format: str) -> av.VideoFrame:
    return _CONVERTERS.reformatter.reformat(
        frame,
        width=width,
        height=height,
        format=pixel_format,
        dst_color_range=ColorRange.JPEG,
        threads=1,
    )


def _pixels(plane: VideoPlane, n_channels: int) -> Bytes:
    """[height, width, n_channels]: a view that honours the plane's line size, even a negative."""
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, abs(plane.line_size))
    if plane.line_size < 0:
        rows = rows[::-1]
    used = rows[:, : plane.width * n_channels]
    return read_only(used.reshape(plane.height, plane.width, n_channels))


@lru_cache(maxsize=64)
def _has_luma_plane(pixel_format: str) -> bool:
    """Whether plane 0 holds 8-bit luma and nothing else."""
    described = av.VideoFormat(pixel_format)
    if described.is_rgb or described.has_palette:
        return False
    first, *others = described.components
    return first.plane == 0 and first.bits == 8 and all(other.plane != 0 for other in others)  # noqa: PLR2004 - a byte
