"""A file or URL opened: packets demultiplexed, and decoded stream by stream as they are asked for.

What waits is compressed. Decoded pictures exist only as many as the caller keeps, and the few that
the decoder's threads hold.
"""

import logging
import os
from collections import deque
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import av
import numpy as np
from av.codec.context import ThreadType
from av.container import InputContainer
from av.stream import Discard, Stream
from av.video.stream import VideoStream

from mmstream.codecs.pictures import CodedImage
from mmstream.codecs.sound import TOLERANCE_NS, CaptureResampler
from mmstream.codecs.streams import (
    CodedStream,
    Decoded,
    Picture,
    Sound,
    choose_streams,
    picture_duration_ns,
    ticks_of,
    ticks_to_ns,
)
from mmstream.errors import SourceError, mask_credentials
from mmstream.media import (
    NS_PER_SEC,
    AudioChunk,
    Floats,
    StreamKind,
    ns_to_samples,
    samples_to_ns,
)
from mmstream.metrics import StageMetrics

if TYPE_CHECKING:
    from av.packet import Packet  # generic in its stubs only

MAX_AHEAD_NS: Final = 10 * NS_PER_SEC
"""How much of one stream may wait for the next packet of the other."""
MAX_AHEAD_BYTES: Final = 64 * 1024 * 1024
"""The same by size."""
MAX_THREADS: Final = 4
"""Decoder threads; each holds one more picture."""

_JITTER_NS: Final = {"vorbis": 30_000_000}
"""A Vorbis packet may be stamped with its end or its start, which differ by up to a block: as block
sizes change, its timestamps jump to and fro by 10 and 20 ms while not a sample is missing."""
_OPTIONS: Final = {"fflags": "-genpts"}
"""PyAV would have libavformat invent the timestamps that AVI lacks: with packed B-frames they go
to and fro. Without, the decoder's output is in order of its packets' decoding times."""
_MAX_STEP_NS: Final = NS_PER_SEC
"""A jump between two packets counts as no more: it says nothing about the other stream."""
_MAX_GROUP: Final = 300
"""Packets since the last key picture that are kept, to decode on after a silence."""
_LOG: Final = logging.getLogger(__name__)


class MediaInput:
    """An opened file or URL, read on one thread.

        with MediaInput(url, {"video": None, "audio": None}, metrics) as media:
            while (decoded := media.decode("video")) is not None: ...

    One stream is asked for at a time; packets of the other that lie before are kept, compressed,
    up to 10 s or 64 MB of them. Then the first is taken to be silent for now.
    """

    def __init__(
        self, url: str, wanted: Mapping[StreamKind, int | None], metrics: StageMetrics
    ) -> None:
        """Open `url` and choose, of each kind wanted, the stream of that number (None: the first).

        Counts `n_in` packets and drops by reason in `metrics`. Cover art is not video.

        Raises:
            SourceError: it cannot be opened, or holds nothing that can be decoded.
        """
        self._shown = mask_credentials(url)
        self._metrics = metrics
        self._container = _opened(url)
        try:
            self._tracks = {
                kind: _Track(kind, stream, self._shown, metrics)
                for kind, stream in choose_streams(self._container, wanted, self._shown).items()
            }
        except SourceError:
            self._container.close()
            raise
        streams = [track.stream for track in self._tracks.values()]
        for other in self._container.streams:
            if other not in streams:
                other.discard = Discard.all
        self._by_index = {track.stream.index: track for track in self._tracks.values()}
        self._packets = self._container.demux(*streams)
        self._is_read = False

    @property
    def kinds(self) -> frozenset[StreamKind]:
        """What it holds of what was wanted."""
        return frozenset(self._tracks)

    def decode(self, kind: StreamKind) -> Sequence[Decoded] | None:
        """What the next packet of that stream gives, maybe nothing.

        None: it is over, or silent as far as the other stream is known; ask again later.
        """
        track = self._tracks[kind]
        if track.waiting:
            return track.decode_next()
        others = [other for other in self._tracks.values() if other is not track]
        while not (self._is_read or any(other.is_far() for other in others)):
            self._read_packet()
            if track.waiting:
                return track.decode_next()
        if self._is_read:
            return None if track.has_given_all else track.drain(None)
        return None if track.is_drained else track.drain(max(other.last_ns for other in others))

    def close(self) -> None:
        """Free the file and the decoders' threads."""
        self._packets = iter(())
        self._tracks.clear()
        self._by_index.clear()
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read_packet(self) -> None:
        try:
            packet = next(self._packets, None)
        except av.FFmpegError as error:
            _LOG.error("%s: breaks off: %s", self._shown, error.strerror)
            self._metrics.drop("unreadable_rest")
            packet = None
        except IndexError:  # PyAV, at the end, where a stream came up after the file was opened
            packet = None
        if packet is None:
            self._is_read = True
        elif packet.size:  # an empty packet would tell the decoder that the stream is over
            self._metrics.n_in += 1
            self._by_index[packet.stream_index].put(packet)


class _Track:
    """One stream: packets that wait, a decoder, and what time it is there."""

    def __init__(
        self, kind: StreamKind, stream: CodedStream, shown: str, metrics: StageMetrics
    ) -> None:
        self.stream = stream
        self.waiting: deque[tuple[Packet[Stream], int]] = deque()
        """Packets, each with the time since the one before."""
        self.last_ns = 0
        """The decoding time of the latest packet."""
        self.is_drained = self.has_given_all = False
        self._group: deque[Packet[Stream]] = deque(maxlen=_MAX_GROUP)
        self._given: set[int] = set()
        self._name = f"{shown}: {kind}"
        self._metrics = metrics
        self._context = stream.codec_context
        base = stream.time_base or Fraction(1, NS_PER_SEC)
        self._base = (base.numerator, base.denominator)
        self._n_waiting_bytes = self._waiting_ns = 0
        self._next_ns = 0
        self._jitter_ns = _JITTER_NS.get(stream.codec_context.name, TOLERANCE_NS)
        self._has_logged = False
        self._picture_ns = 0
        if isinstance(stream, VideoStream):
            stream.thread_type = ThreadType.AUTO
            stream.thread_count = min(MAX_THREADS, os.cpu_count() or 1)
            self._picture_ns = picture_duration_ns(stream.guessed_rate)

    def put(self, packet: "Packet[Stream]") -> None:
        """Let it wait."""
        at = packet.pts if packet.dts is None else packet.dts
        step_ns = 0
        if at is not None:
            at_ns = ticks_to_ns(at, self._base)
            step_ns = min(max(0, at_ns - self.last_ns), _MAX_STEP_NS)
            self.last_ns = at_ns
        self.waiting.append((packet, step_ns))
        self._waiting_ns += step_ns
        self._n_waiting_bytes += packet.size

    def is_far(self) -> bool:
        """Whether so much waits that the other stream must be silent."""
        return self._waiting_ns > MAX_AHEAD_NS or self._n_waiting_bytes > MAX_AHEAD_BYTES

    def decode_next(self) -> list[Decoded]:
        """Decode the packet that waits longest."""
        packet, step_ns = self.waiting.popleft()
        self._waiting_ns -= step_ns
        self._n_waiting_bytes -= packet.size
        again = self._resume() if self.is_drained else []
        if isinstance(self.stream, VideoStream):
            if packet.is_keyframe:
                self._group.clear()
            self._group.append(packet)
        return again + self._decode(packet)

    def drain(self, until_ns: int | None) -> list[Decoded]:
        """Get what the decoder still holds: the stream is over (None), or silent until then.

        In a silence, pictures from after it are kept back: others may yet come before them.
        """
        again = self._resume() if self.is_drained else []
        self.is_drained = self.has_given_all = True
        decoded = again + self._decode(None)
        if until_ns is None:
            return decoded
        kept = [one for one in decoded if one.at_ns <= until_ns]
        self.has_given_all = len(kept) == len(decoded)
        stamps = (at for packet in self._group if (at := ticks_of(packet)) is not None)
        self._given = {at for at in stamps if ticks_to_ns(at, self._base) <= until_ns}
        return kept

    def _resume(self) -> list[Decoded]:
        """Bring a drained decoder to where it was: it has forgotten what pictures refer to."""
        self._context.flush_buffers()
        self.is_drained = self.has_given_all = False
        return [one for packet in self._group for one in self._decode(packet)]

    def _decode(self, packet: "Packet[Stream] | None") -> list[Decoded]:
        try:
            frames = self._context.decode(packet)
        except av.FFmpegError as error:
            self._drop("corrupt_packet", error.strerror or str(error))
            return []
        return [decoded for frame in frames if (decoded := self._stamped(frame)) is not None]

    def _stamped(self, frame: av.VideoFrame | av.AudioFrame) -> Decoded | None:
        at = ticks_of(frame)
        at_ns = self._next_ns if at is None else ticks_to_ns(at, self._base)
        if isinstance(frame, av.AudioFrame):
            duration_ns = samples_to_ns(frame.samples, frame.sample_rate)
            self._next_ns = at_ns + duration_ns
            return Sound(at_ns, duration_ns, self._jitter_ns, frame)
        duration_ns = ticks_to_ns(frame.duration, self._base) or self._picture_ns
        self._next_ns = at_ns + duration_ns
        if at is not None and at in self._given:
            self._given.discard(at)
            return None
        if frame.is_corrupt:
            self._drop("corrupt_picture", "damaged")
            return None
        return Picture(at_ns, duration_ns, CodedImage(frame))

    def _drop(self, reason: str, why: str) -> None:
        self._metrics.drop(reason)
        if not self._has_logged:
            self._has_logged = True
            _LOG.error("%s: lost something near %.3f s: %s", self._name, self._next_ns / 1e9, why)


def read_audio(path: Path, rate_hz: int) -> Floats:
    """[n] f32: the whole sound of a file, mixed to mono, from its first sample; 0 where lost.

    Raises:
        SourceError: the file cannot be opened or has no sound.
    """
    metrics = StageMetrics(f"read/{path.name}")
    resampler = CaptureResampler(path.name, rate_hz, metrics)
    chunks: list[AudioChunk] = []
    with MediaInput(str(path), {"audio": None}, metrics) as media:
        while (decoded := media.decode("audio")) is not None:
            for sound in decoded:
                if isinstance(sound, Sound):
                    chunks += resampler.push(sound.frame, sound.at_ns, sound.jitter_ns)
    chunks += resampler.flush()
    if not chunks:
        msg = f"{path}: none of its sound can be decoded"
        raise SourceError(msg)
    origin_ns = chunks[0].start_ns
    samples = np.zeros(ns_to_samples(chunks[-1].end_ns - origin_ns, rate_hz), np.float32)
    for chunk in chunks:
        start = ns_to_samples(chunk.start_ns - origin_ns, rate_hz)
        samples[start : start + chunk.samples.size] = chunk.samples[: samples.size - start]
    return samples


def _opened(url: str) -> InputContainer:
    shown = mask_credentials(url)
    place = url if "://" in url else str(Path(url).expanduser())
    try:
        return av.open(place, mode="r", container_options=_OPTIONS, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        msg = (
            f"{shown}: cannot be opened: {error.strerror}; "
            "allowed: a file or URL of video or sound that FFmpeg reads"
        )
        raise SourceError(msg) from error
