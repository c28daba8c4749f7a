"""Recordings that several tests see and hear: each is decoded once."""

from functools import cache
from pathlib import Path

from mmstream.clock import ManualClock
from mmstream.codecs import image_from_array, read_audio
from mmstream.features.video import fit_luma
from mmstream.media import Floats, VideoFrame, read_only
from mmstream.sources.media import MediaFile, MediaSettings


@cache
def read_sound(path: Path) -> Floats:
    """[n] at 16 kHz, read-only."""
    return read_only(read_audio(path, 16_000))


@cache
def read_frames(path: Path) -> tuple[VideoFrame, ...]:
    """All pictures, in grey, halved as often as `motion` itself would do: kept, they are small."""
    frames = []
    with MediaFile("cam", MediaSettings(url=str(path), pace="max"), ManualClock()).read() as items:
        for item in items:
            if isinstance(item, VideoFrame):
                width, height = item.image.width, item.image.height
                while width >= 640 or height >= 360:
                    width, height = width // 2, height // 2
                small = fit_luma(item.image.luma, max_width=width, max_height=height).copy()
                frames.append(VideoFrame("cam", item.start_ns, image_from_array(small, "gray")))
    return tuple(frames)
