"""A live URL opened: packets decoded one by one as they arrive, with when that was and stamps.

Nothing is kept back and nothing is put in order: what waits for the other stream is late. Decoders
run on one thread, or share out the slices of one picture: threads that take a picture each would
hold back as many pictures as there are.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self

import av
from av.codec.context import Flags, ThreadType
from av.stream import Discard, Stream
from av.video.stream import VideoStream

from mmstream.clock import Clock
from mmstream.codecs.opening import (
    HARDWARE,
    INTERRUPTED,
    READ_SECS,
    Decoder,
    Transport,
    accelerator,
    choose_decodable,
    open_live,
    refuse_software,
)
from mmstream.codecs.pictures import CodedImage
from mmstream.codecs.rtp import RtpClock, report_of, sender_clock_ns
from mmstream.codecs.sound import TOLERANCE_NS
from mmstream.codecs.streams import (
    CodedStream,
    Decoded,
    Picture,
    Sound,
    picture_duration_ns,
    ticks_of,
    ticks_to_ns,
)
from mmstream.errors import SourceError, mask_credentials
from mmstream.media import NS_PER_SEC, StreamKind, samples_to_ns
from mmstream.metrics import StageMetrics

if TYPE_CHECKING:
    from av.packet import Packet  # generic in its stubs only

Stamping = Literal["sender", "container", "arrival"]
"""What stamps mean: each stream has a clock of its own, and reports may tie them together; both
have one; or there is none worth the name, and a stamp is when it arrived."""

BACKLOG_NS: Final = 3 * NS_PER_SEC // 10
"""How long is waited at first for what a server has in store."""
MAX_BACKLOG_NS: Final = 60 * NS_PER_SEC
"""No server has more in store."""

_N_SEGMENTS: Final = 3
"""So many FFmpeg begins with, of HLS; the latest may have ended up to one ago."""
_ARRIVAL_FORMATS: Final = frozenset({"mpjpeg", "mjpeg", "image2pipe"})
"""FFmpeg makes up 25 pictures per second for these, whatever comes."""
_MAX_THREADS: Final = 4


@dataclass(frozen=True, slots=True)
class Arrival:
    """A packet that has come, and what was in it."""

    kind: StreamKind
    arrived_ns: int
    """By our clock, before it was decoded. What came in a burst: when it would have come singly."""
    stamp_ns: int | None
    """By the stream's own clock; None before its first stamp: `at_ns` is then `arrived_ns`."""
    sender_ns: int | None
    """What the sender's clock showed at `stamp_ns` (since 1970, if it is right); None: unknown."""
    decoded: tuple[Decoded, ...]


class LiveInput:
    """An opened live URL, read on one thread.

    with LiveInput(url, {"video": None, "audio": None}, clock, metrics) as media:
        for arrival in media.arrivals(): ...
    """

    def __init__(
        self,
        url: str,
        wanted: Mapping[StreamKind, int | None],
        clock: Clock,
        metrics: StageMetrics,
        *,
        transport: Transport = "tcp",
        decoder: Decoder = "cpu",
    ) -> None:
        """Open `url` and choose, of each kind wanted, the stream of that number (None: the first).

        Counts `n_in` packets, and drops by reason, in `metrics`.

        Raises:
            SourceError: it cannot be opened, holds nothing that can be decoded, or there is no such
                `decoder` here.
        """
        self._shown = mask_credentials(url)
        self._clock = clock
        self._metrics = metrics
        accel = accelerator(decoder)
        self._container = open_live(url, transport, accel, clock)
        try:
            streams, self.missing = choose_decodable(self._container, wanted, self._shown)
            if decoder in HARDWARE and "video" in streams:
                refuse_software(streams["video"], decoder, self._shown)
        except SourceError:
            self._container.close()
            raise
        form = self._container.format.name
        self.stamping: Stamping = "sender" if form in {"rtsp", "rtp", "sdp"} else "container"
        if form in _ARRIVAL_FORMATS:
            self.stamping = "arrival"
        self._is_segmented = form == "hls"
        # With one stream, FFmpeg leaves its stamps alone whatever is reported.
        is_moved = self.stamping == "sender" and len(self._container.streams) > 1
        self._tracks = {
            stream.index: _Track(kind, stream, self.stamping, metrics, is_moved=is_moved)
            for kind, stream in streams.items()
        }
        for other in self._container.streams:
            if other.index not in self._tracks:
                other.discard = Discard.all
        self.kinds = frozenset(streams)
        """What it holds of what was wanted, and can be decoded; `missing` says what cannot."""
        self._packets = self._container.demux(*streams.values())

    def arrivals(self) -> Iterator[Arrival]:
        """Everything as it comes, until the other side ends it.

        Raises:
            SourceError: it breaks off, or nothing comes for `READ_SECS`.
        """
        packets = self._dated() if self.stamping == "container" else self._read()
        for packet, arrived_ns in packets:
            yield self._tracks[packet.stream_index].take(packet, arrived_ns)

    def close(self) -> None:
        """Hang up, and free the decoders."""
        self._packets = iter(())
        self._tracks.clear()
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

    def _read(self) -> "Iterator[tuple[Packet[Stream], int]]":
        """Packets, and when each arrived."""
        while (packet := self._next_packet()) is not None:
            arrived_ns = self._clock.monotonic_ns()
            if packet.size:  # an empty packet would tell the decoder that the stream is over
                self._metrics.n_in += 1
                yield packet, arrived_ns

    def _dated(self) -> "Iterator[tuple[Packet[Stream], int]]":
        """Packets, each with when it would have come, had it been sent as soon as it was made.

        Servers send at once what led up to now. The latest of that is the least late.
        """
        until_ns = self._clock.monotonic_ns() + BACKLOG_NS
        held: list[tuple[Packet[Stream], int]] = []
        for packet, arrived_ns in self._read():
            held.append((packet, arrived_ns))
            if arrived_ns >= until_ns:
                break
        stamped = [
            (at_ns, stamp_ns)
            for packet, at_ns in held
            if (stamp_ns := self._stamp_ns(packet)) is not None
        ]
        late_ns = [at_ns - stamp_ns for at_ns, stamp_ns in stamped]
        least_ns, most_ns = min(late_ns, default=0), max(late_ns, default=0)
        is_likely = most_ns - least_ns <= MAX_BACKLOG_NS
        if self._is_segmented and is_likely:
            least_ns -= (most_ns - least_ns) // _N_SEGMENTS
        for packet, arrived_ns in chain(held, self._read()):
            stamp_ns = self._stamp_ns(packet)
            is_old = is_likely and (self._is_segmented or arrived_ns < until_ns)
            if stamp_ns is None or not is_old:
                yield packet, arrived_ns
                continue
            least_ns = min(least_ns, arrived_ns - stamp_ns)
            yield packet, stamp_ns + least_ns

    def _stamp_ns(self, packet: "Packet[Stream]") -> int | None:
        return self._tracks[packet.stream_index].stamp_ns(packet)

    def _next_packet(self) -> "Packet[Stream] | None":
        try:
            return next(self._packets, None)
        except (av.FFmpegError, OSError) as error:
            is_quiet = isinstance(error, INTERRUPTED)
            why = f"nothing came for {READ_SECS:g} s" if is_quiet else error.strerror
            msg = f"{self._shown}: breaks off: {why}"
            raise SourceError(msg) from None
        except IndexError:  # PyAV, at the end, where a stream came up after the URL was opened
            return None


class _Track:
    """One stream: its decoder and its clock."""

    def __init__(
        self,
        kind: StreamKind,
        stream: CodedStream,
        stamping: Stamping,
        metrics: StageMetrics,
        *,
        is_moved: bool,
    ) -> None:
        self._kind = kind
        self._context = stream.codec_context
        self._metrics = metrics
        self._is_dated = stamping != "arrival"
        base = stream.time_base or Fraction(1, NS_PER_SEC)
        self._base = (base.numerator, base.denominator)
        self._rtp = RtpClock(base) if is_moved else None
        self._picture_ns = 0
        self._next_ns: int | None = None
        self._last_duration_ns = 0
        """Of what the last packet held."""
        if isinstance(stream, VideoStream):
            stream.thread_type = ThreadType.SLICE
            stream.thread_count = min(_MAX_THREADS, os.cpu_count() or 1)
            stream.codec_context.flags |= Flags.low_delay
            self._picture_ns = picture_duration_ns(stream.guessed_rate)

    def take(self, packet: "Packet[Stream]", arrived_ns: int) -> Arrival:
        """Decode a packet."""
        stamp_ns, sender_ns = self._stamps_ns(packet, arrived_ns)
        if packet.is_corrupt:
            self._metrics.drop("corrupt_packet")
        decoded: list[Decoded] = []
        try:
            frames = self._context.decode(packet)
        except av.FFmpegError:
            if not packet.is_corrupt:
                self._metrics.drop("corrupt_packet")
            frames = []
        at_ns = arrived_ns if stamp_ns is None else stamp_ns
        for frame in frames:
            if stamp_ns is not None and self._is_dated and frame.pts is not None:
                at_ns = ticks_to_ns(frame.pts, self._base)
            one = self._placed(frame, at_ns)
            at_ns += one.duration_ns
            if frame.is_corrupt:
                # Concealed: a smear for detectors. What refers to it FFmpeg does not mark.
                self._metrics.drop("corrupt_picture" if self._kind == "video" else "corrupt_sound")
            else:
                decoded.append(one)
        self._next_ns = at_ns if stamp_ns is not None else None
        self._last_duration_ns = sum(one.duration_ns for one in decoded)
        return Arrival(self._kind, arrived_ns, stamp_ns, sender_ns, tuple(decoded))

    def stamp_ns(self, packet: "Packet[Stream]") -> int | None:
        """The packet's stamp as it is."""
        ticks = ticks_of(packet)
        return None if ticks is None else ticks_to_ns(ticks, self._base)

    def _stamps_ns(
        self, packet: "Packet[Stream]", arrived_ns: int
    ) -> tuple[int | None, int | None]:
        """The packet's stamp, which it then also bears, and the sender's clock at that."""
        if not self._is_dated:
            return arrived_ns, None
        ticks = ticks_of(packet)
        if ticks is None:
            return self._next_ns, None
        sender_ns = None
        if self._rtp is not None:
            ticks = self._rtp.steady(ticks, report_of(packet), arrived_ns, self._last_duration_ns)
            sender_ns = sender_clock_ns(packet)
        packet.pts = ticks
        return ticks_to_ns(ticks, self._base), sender_ns

    def _placed(self, frame: av.VideoFrame | av.AudioFrame, at_ns: int) -> Decoded:
        if isinstance(frame, av.AudioFrame):
            duration_ns = samples_to_ns(frame.samples, frame.sample_rate)
            return Sound(at_ns, duration_ns, TOLERANCE_NS, frame)
        duration_ns = ticks_to_ns(frame.duration or 0, self._base) or self._picture_ns
        return Picture(at_ns, duration_ns, CodedImage(frame))
