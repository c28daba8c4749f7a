"""Makes recordings with known truth, for tests that need a container, codec or fault of their own.

write_media(path, Video(pictures), Sound(samples))
make_flash_beep(path, fps=25)            something to see and to hear at the same instants
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream

from mmstream.media import NS_PER_SEC, Bytes, Floats, secs_to_ns

if TYPE_CHECKING:
    from av.packet import Packet  # generic in its stubs only
    from av.stream import Stream

FLASH_NS: Final = secs_to_ns(0.5)
"""How long a flash and its beep last."""
PERIOD_NS: Final = secs_to_ns(2.5)
"""From one flash to the next; the first comes after as long."""

_QUICK: Final = {
    "libx264": {"preset": "ultrafast", "crf": "23"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}
_BIT_RATE: Final = 1_500_000
_TICKS: Final = 90_000
_N_SAMPLES: Final = 1024
_CHUNK_SECS: Final = 0.5
"""How finely the streams of a file are interleaved."""


@dataclass(frozen=True)
class Video:
    """A video stream to be written."""

    pictures: Sequence[Bytes]
    """Each [h, w, 3], all of one size."""
    codec: str = "libx264"
    fps: int = 25
    at_secs: Sequence[float] | None = None
    """When each is shown; every 1 / fps from 0 by default."""
    rotation_degrees: int = 0
    """How far a player must turn it, anticlockwise."""
    pixel_format: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)

    def add_to(self, container: OutputContainer) -> "Iterator[Packet[Stream]]":
        """Announce the stream at once; the packets come when they are taken."""
        stream = container.add_stream(self.codec, rate=self.fps)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = self.pictures[0].shape[:2]
        stream.pix_fmt = self.pixel_format
        stream.bit_rate = _BIT_RATE
        stream.options = {**_QUICK.get(self.codec, {}), **self.options}
        if self.rotation_degrees:
            stream.set_display_rotation(self.rotation_degrees)

        def packets() -> "Iterator[Packet[Stream]]":
            at_secs = self.at_secs or [i / self.fps for i in range(len(self.pictures))]
            # MPEG-4's clock has 16 bits, so the frame rate is its base where that will do.
            base = Fraction(1, _TICKS if self.at_secs else self.fps)
            for at, picture in zip(at_secs, self.pictures, strict=True):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = round(at / float(base)), base
                yield from stream.encode(frame)
            yield from stream.encode(None)

        return packets()


@dataclass(frozen=True)
class Sound:
    """An audio stream to be written."""

    samples: Floats
    """[n], the same for every channel."""
    codec: str = "aac"
    rate_hz: int = 48_000
    layout: str = "stereo"
    start_secs: float = 0

    def add_to(self, container: OutputContainer) -> "Iterator[Packet[Stream]]":
        """Announce the stream at once; the packets come when they are taken."""
        stream = container.add_stream(self.codec, rate=self.rate_hz)
        assert isinstance(stream, AudioStream)
        stream.layout = self.layout
        n_channels = av.AudioLayout(self.layout).nb_channels
        first = round(self.start_secs * self.rate_hz)

        def packets() -> "Iterator[Packet[Stream]]":
            for at in range(0, self.samples.size, _N_SAMPLES):
                piece = np.repeat(self.samples[at : at + _N_SAMPLES], n_channels)[None]
                frame = av.AudioFrame.from_ndarray(piece, format="flt", layout=self.layout)
                frame.sample_rate, frame.pts = self.rate_hz, first + at
                frame.time_base = Fraction(1, self.rate_hz)
                yield from stream.encode(frame)
            yield from stream.encode(None)

        return packets()


def write_media(path: Path, *tracks: Video | Sound) -> Path:
    """Write the tracks, interleaved, into the container that the file's suffix names."""
    with av.open(str(path), "w") as container:
        streams = [track.add_to(container) for track in tracks]
        packets = [packet for stream in streams for packet in stream]
        for packet in sorted(packets, key=_time_of):
            container.mux(packet)
    return path


def _time_of(packet: "Packet[Stream]") -> float:
    return float((packet.dts or 0) * packet.time_base) // _CHUNK_SECS


@dataclass(frozen=True)
class FlashBeep:
    """What is in a recording of flashes and beeps."""

    path: Path
    instants_ns: tuple[int, ...]
    """When a flash and its beep start: each is the start of a picture."""
    fps: int


def make_flash_beep(
    path: Path,
    *,
    video_codec: str = "libx264",
    audio_codec: str = "aac",
    fps: int = 25,
    n_flashes: int = 4,
    size: tuple[int, int] = (160, 120),
    rate_hz: int = 48_000,
) -> FlashBeep:
    """Write a third of the picture going white for 0.5 s every 2.5 s, each with a 1 kHz beep.

    `size` is (width, height). The background is textured grey, the room is at -60 dBFS.
    """
    rng = np.random.default_rng(7)
    first_pictures = [-(-k * PERIOD_NS * fps // NS_PER_SEC) for k in range(1, n_flashes + 1)]
    n_lit = FLASH_NS * fps // NS_PER_SEC
    n_pictures = first_pictures[-1] + 2 * fps
    dark = _texture(size, rng)
    light = dark.copy()
    light[: size[1] * 2 // 3, : size[0] // 2] = 255
    lit = {first + i for first in first_pictures for i in range(n_lit)}
    samples = rng.normal(0, 1e-3, n_pictures * rate_hz // fps).astype(np.float32)
    beep = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(FLASH_NS * rate_hz // NS_PER_SEC) / rate_hz)
    for first in first_pictures:
        start = first * rate_hz // fps
        samples[start : start + beep.size] += beep.astype(np.float32)
    write_media(
        path,
        Video([light if i in lit else dark for i in range(n_pictures)], video_codec, fps),
        Sound(samples, audio_codec, rate_hz),
    )
    return FlashBeep(path, tuple(i * NS_PER_SEC // fps for i in first_pictures), fps)


def _texture(size: tuple[int, int], rng: np.random.Generator) -> Bytes:
    coarse = rng.integers(70, 130, (size[1] // 8 + 1, size[0] // 8 + 1), np.uint8)
    grey = coarse.repeat(8, axis=0).repeat(8, axis=1)[: size[1], : size[0]]
    return np.repeat(grey[..., None], 3, axis=2)
