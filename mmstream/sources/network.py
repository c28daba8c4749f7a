"""Network cameras and streams: whatever FFmpeg plays from a URL, as it comes.

Each packet is decoded when it is there, and what it gives leaves at once; no stream waits for the
other. Its arrival is only what its stamp is mapped by (`sender_time`): over a network everything
comes late, by more or less. Pictures that would go back in time are dropped.

RTP stamps are those of each stream's own clock (`codecs.live`). HTTP MJPEG has no stamps worth the
name, so a picture is as old as it is when it arrives. HLS comes in segments, seconds late: how late
nobody says, so that its instants are late by that; among themselves they are right.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Final, Literal, Self
from urllib.parse import quote

from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from mmstream.clock import Clock
from mmstream.codecs import (
    Arrival,
    CaptureResampler,
    Decoder,
    LiveInput,
    Picture,
    Sound,
    Transport,
)
from mmstream.config import Settings
from mmstream.errors import mask_credentials
from mmstream.media import (
    DEFAULT_RATE_HZ,
    NS_PER_SEC,
    AudioChunk,
    MediaItem,
    SourceStarted,
    SourceSynced,
    Span,
    StreamClock,
    StreamKind,
    VideoFrame,
)
from mmstream.metrics import StageMetrics
from mmstream.sources.sender_time import SenderTime
from mmstream.sources.steady_sound import SteadySound

SCHEMES: Final = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "srt", "udp", "rtp", "tcp")
RESET_NS: Final = NS_PER_SEC
"""Sound whose stamp is off by more is the beginning of something new."""
CLOCK_NS: Final = 10 * NS_PER_SEC
"""How often it is told how its clocks drift."""


class NetworkSettings(Settings):
    """A camera or stream on the network: RTSP, RTMP, HTTP (MJPEG, HLS), UDP."""

    model_config = ConfigDict(hide_input_in_errors=True)

    type: Literal["network"] = "network"
    url: str = Field(repr=False)
    """Where it is. May hold credentials, percent-encoded; better are `username` and `password`."""
    record_url: str | None = Field(None, repr=False)
    """The same in better quality, for recordings. Not read yet."""
    username: str | None = None
    """Whom the camera lets in."""
    password: SecretStr | None = None
    """By `!env NAME` or `!secret NAME`; never shown."""
    transport: Transport = "tcp"
    """RTSP only: `udp` loses packets where `tcp` lags."""
    decoder: Decoder = "auto"
    """What decodes the video: `auto` takes hardware if there is any that opens."""
    video_stream: int | None = Field(None, ge=0)
    """Which of several video streams, counted from 0; the first by default."""
    audio_stream: int | None = Field(None, ge=0)
    """Which of several audio streams, counted from 0; the first by default."""

    @field_validator("url", "record_url")
    @classmethod
    def _is_on_a_network(cls, url: str | None) -> str | None:
        scheme, found, _ = (url or "").partition("://")
        if url is not None and (not found or scheme.lower() not in SCHEMES):
            shown, allowed = mask_credentials(url), "://, ".join(SCHEMES)
            msg = f"{shown} is no live URL; allowed: {allowed}://; a file takes type: media"
            raise ValueError(msg)
        return url

    @model_validator(mode="after")
    def _says_who_once(self) -> Self:
        if self.password is not None and self.username is None:
            msg = "a password needs a username"
            raise ValueError(msg)
        if self.username is not None and "@" in _authority(self.url):
            msg = "credentials are in the url already; allowed: there, or username and password"
            raise ValueError(msg)
        return self

    def full_url(self) -> str:
        """The URL with the credentials, for FFmpeg alone: never to be shown."""
        if self.username is None:
            return self.url
        scheme, _, rest = self.url.partition("://")
        user = quote(self.username, safe="")
        if self.password is not None:
            user += f":{quote(self.password.get_secret_value(), safe='')}"
        return f"{scheme}://{user}@{rest}"


class NetworkSource:
    """Reads one URL for as long as it lasts (`stages.Reader`).

    What it drops, by reason: `corrupt_packet`, `corrupt_picture` (damaged, and concealed by the
    decoder), `corrupt_sound`, `unstamped_sound` (before the first timestamp), `backward_picture`
    and `overlapping_sound` (time that was given already). `clock_step` and `clock_outlier` count
    timestamps that jumped, and those that lied.
    """

    live = True

    def __init__(
        self,
        name: str,
        settings: NetworkSettings,
        clock: Clock,
        *,
        rate_hz: int = DEFAULT_RATE_HZ,
    ) -> None:
        """Nothing is opened yet; sound comes at `rate_hz`."""
        self.name = name
        self._settings = settings
        self._clock = clock
        self._rate_hz = rate_hz
        self._metrics = StageMetrics(f"network/{name}")

    @property
    def metrics(self) -> Sequence[StageMetrics]:
        """Packets in, items out, drops."""
        return (self._metrics,)

    @contextmanager
    def read(self) -> Iterator[Iterator[MediaItem]]:
        """Open it and give its items.

        Raises:
            SourceError: it cannot be opened, holds nothing that can be decoded, or breaks off.
        """
        settings = self._settings
        wanted: dict[StreamKind, int | None] = {
            "video": settings.video_stream,
            "audio": settings.audio_stream,
        }
        with (
            LiveInput(
                settings.full_url(),
                wanted,
                self._clock,
                self._metrics,
                transport=settings.transport,
                decoder=settings.decoder,
            ) as media,
            closing(self._items(media)) as items,
        ):
            yield items

    def _items(self, media: LiveInput) -> Generator[MediaItem]:
        feed = _Feed(self.name, media, self._rate_hz, self._metrics)
        yield SourceStarted(
            self.name,
            media.kinds,
            utc_offset_ns=self._clock.utc_ns() - self._clock.monotonic_ns(),
            clock_offset_ns=0,
            synced=feed.is_synced,
            missing=media.missing,
        )
        for arrival in media.arrivals():
            for item in feed.take(arrival):
                self._metrics.n_out += 1
                yield item
        yield from feed.finish()


class _Feed:
    """What has come, as items on our clock."""

    def __init__(self, name: str, media: LiveInput, rate_hz: int, metrics: StageMetrics) -> None:
        self._name = name
        self._metrics = metrics
        self._rate_hz = rate_hz
        self._time = SenderTime(media.kinds, media.stamping, metrics)
        self.is_synced = self._time.is_synced
        self._resampler = CaptureResampler(name, rate_hz, metrics)
        self._steady = SteadySound(name, rate_hz, metrics)
        self._heard_ns: int | None = None
        """The stamp that the next sound should have."""
        self._arrived_ns = 0
        self._seen_ns = -1
        """When the last picture was."""
        self._told_ns = dict.fromkeys(media.kinds, 0)

    def take(self, arrival: Arrival) -> Iterator[MediaItem]:
        """What a packet gives."""
        kind, stamp_ns, arrived_ns = arrival.kind, arrival.stamp_ns, arrival.arrived_ns
        if stamp_ns is not None:
            n_heard_ns = sum(one.duration_ns for one in arrival.decoded if isinstance(one, Sound))
            self._time.see(kind, stamp_ns + n_heard_ns, arrived_ns)
            self._time.tie(kind, stamp_ns, arrival.sender_ns, arrived_ns)
            if self._time.is_synced and not self.is_synced:
                self.is_synced = True
                yield SourceSynced(self._name)
            yield from self._drift(kind, arrived_ns)
        for one in arrival.decoded:
            if isinstance(one, Picture):
                yield from self._show(one, arrival)
            elif stamp_ns is not None:
                yield from self._hear(one, arrived_ns)
            else:
                self._metrics.drop("unstamped_sound")

    def finish(self) -> Iterator[AudioChunk]:
        """No more comes."""
        chunks = self._resampler.flush()
        if chunks and self._heard_ns is not None:
            yield from self._place(chunks, self._arrived_ns)
        yield from self._steady.flush()

    def _show(self, picture: Picture, arrival: Arrival) -> Iterator[VideoFrame]:
        at_ns = picture.at_ns
        if arrival.stamp_ns is not None:
            at_ns = self._time.at_ns("video", at_ns, arrival.arrived_ns)
        if at_ns > self._seen_ns:
            self._seen_ns = at_ns
            yield VideoFrame(self._name, at_ns, picture.image)
        else:
            self._metrics.drop("backward_picture")

    def _hear(self, sound: Sound, arrived_ns: int) -> Iterator[AudioChunk]:
        chunks: list[AudioChunk] = []
        heard_ns = self._heard_ns
        if heard_ns is not None and abs(sound.at_ns - heard_ns) > RESET_NS:
            # To the resampler what lies back would be sound that was given already.
            chunks = self._resampler.flush()
            self._resampler = CaptureResampler(self._name, self._rate_hz, self._metrics)
        chunks += self._resampler.push(sound.frame, sound.at_ns, sound.jitter_ns)
        self._heard_ns = sound.at_ns + sound.duration_ns
        self._arrived_ns = arrived_ns
        yield from self._place(chunks, arrived_ns)

    def _place(self, chunks: Sequence[AudioChunk], arrived_ns: int) -> Iterator[AudioChunk]:
        for chunk in chunks:
            start_ns = self._time.at_ns("audio", chunk.start_ns, arrived_ns)
            end_ns = self._time.at_ns("audio", chunk.end_ns, arrived_ns)
            yield from self._steady.push(chunk, Span(start_ns, max(start_ns, end_ns)))

    def _drift(self, kind: StreamKind, arrived_ns: int) -> Iterator[StreamClock]:
        if arrived_ns - self._told_ns[kind] >= CLOCK_NS:
            drift_ppm = self._time.drift_ppm(kind)
            if drift_ppm is not None:
                self._told_ns[kind] = arrived_ns
                yield StreamClock(self._name, kind, drift_ppm)


def _authority(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]
