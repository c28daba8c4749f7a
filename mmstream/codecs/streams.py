"""What is in an opened container: which of its streams are wanted, and what their ticks mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import av
from av.audio.stream import AudioStream
from av.codec.context import CodecContext
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from mmstream.codecs.pictures import CodedImage
from mmstream.errors import SourceError
from mmstream.media import NS_PER_SEC, StreamKind

if TYPE_CHECKING:
    from av.packet import Packet  # generic in its stubs only

CodedStream = VideoStream | AudioStream

_COVER: Final = Disposition.attached_pic | Disposition.timed_thumbnails


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture and its timestamp."""

    at_ns: int
    """By the stream's clock, from wherever that starts."""
    duration_ns: int
    """0 where unknown."""
    image: CodedImage


@dataclass(frozen=True, slots=True)
class Sound:
    """A decoded piece of sound and its timestamp."""

    at_ns: int
    """By the stream's clock, from wherever that starts."""
    duration_ns: int
    jitter_ns: int
    """How far `at_ns` may be off without meaning anything."""
    frame: av.AudioFrame
    """As coded, for `CaptureResampler`."""


Decoded = Picture | Sound


def choose_streams(
    container: InputContainer, wanted: Mapping[StreamKind, int | None], shown: str
) -> dict[StreamKind, CodedStream]:
    """Of each kind wanted, the stream of that number (None: the first); cover art is not video.

    Raises:
        SourceError: one that is numbered is not there, one has no decoder, or there is none at all.
    """
    chosen: dict[StreamKind, CodedStream] = {}
    for kind, nth in wanted.items():
        streams: Sequence[CodedStream] = container.streams.audio
        if kind == "video":
            streams = [each for each in container.streams.video if not each.disposition & _COVER]
        if streams or nth is not None:
            chosen[kind] = _the(nth or 0, streams, f"{shown}: {kind}")
    if not chosen:
        msg = f"{shown}: holds no {' and no '.join(wanted)}"
        raise SourceError(msg)
    return chosen


def ticks_of(stamped: "Packet[Stream] | av.VideoFrame | av.AudioFrame") -> int | None:
    """Its timestamp, in the time base of its stream."""
    return stamped.dts if stamped.pts is None else stamped.pts


def ticks_to_ns(ticks: int, base: tuple[int, int]) -> int:
    """`ticks` of a fraction of a second in nanoseconds, exact but for rounding to the nearest."""
    numerator, denominator = base
    return (2 * ticks * numerator * NS_PER_SEC + denominator) // (2 * denominator)


def picture_duration_ns(rate: Fraction | None) -> int:
    """How long a picture of so many per second is shown; 0 where unknown."""
    return ticks_to_ns(1, (rate.denominator, rate.numerator)) if rate else 0


def _the(nth: int, streams: Sequence[CodedStream], name: str) -> CodedStream:
    if nth >= len(streams):
        allowed = f"0..{len(streams) - 1}" if streams else "none, there is none"
        msg = f"{name} stream {nth} is not there; allowed: {allowed}"
        raise SourceError(msg)
    if not _has_decoder(streams[nth].codec_context):
        msg = f"{name} stream {nth} has an unknown codec; allowed: those that FFmpeg decodes"
        raise SourceError(msg)
    return streams[nth]


def _has_decoder(context: CodecContext | None) -> bool:
    """PyAV leaves the context out where it knows no decoder, which its types do not say."""
    return context is not None
