"""Files: whatever FFmpeg reads, both streams of it from one demultiplexer on one clock.

Items leave in the order in which a camera would give them: a frame at its start, a chunk of sound
at its end. Instants are the file's own timestamps, moved so that the stream that starts first
starts at 0; so none is negative, and both streams keep their distance. A stream that is silent,
over or slow is followed by bounds, so that nothing has to wait for it.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Final, Literal

from pydantic import Field

from mmstream.clock import Clock
from mmstream.codecs import CaptureResampler, Decoded, MediaInput, Sound
from mmstream.config import Settings
from mmstream.errors import SourceError, mask_credentials
from mmstream.media import (
    DEFAULT_RATE_HZ,
    NS_PER_SEC,
    AudioChunk,
    MediaItem,
    SourceStarted,
    StreamBound,
    StreamKind,
    VideoFrame,
)
from mmstream.metrics import StageMetrics
from mmstream.sources.pacing import UNIX_EPOCH, Epoch, due_ns, epoch_ns, paced
from mmstream.sources.timeline import Timeline

FOLLOW_NS: Final = NS_PER_SEC // 10
"""How far a stream may fall behind the other before a bound says that nothing came."""


class MediaSettings(Settings):
    """A recording: any file that FFmpeg opens."""

    type: Literal["media"] = "media"
    url: str
    """A path or a `file://` URL; what comes from the network has `type: network`."""
    pace: Literal["realtime", "max"] = "realtime"
    """As it was recorded, or as fast as it can be read."""
    epoch: Epoch = UNIX_EPOCH
    """When its first instant was, from 1970 to 2261 (ISO 8601 with a zone), for messages."""
    video_stream: int | None = Field(None, ge=0)
    """Which of several video streams, counted from 0; the first by default."""
    audio_stream: int | None = Field(None, ge=0)
    """Which of several audio streams, counted from 0; the first by default."""


class MediaFile:
    """Reads one recording from its start to its end (`stages.Reader`).

    What it drops, by reason: `corrupt_packet`, `corrupt_picture`, `corrupt_sound` (not numbers),
    `unreadable_rest` (the container breaks off), `overlapping_sound` and `backward_picture` (time
    that was given already), `timestamp_outlier` (a stamp that was a lie). `timestamp_reset` counts
    where time was taken up anew.
    """

    live = False

    def __init__(
        self,
        name: str,
        settings: MediaSettings,
        clock: Clock,
        *,
        rate_hz: int = DEFAULT_RATE_HZ,
    ) -> None:
        """Nothing is opened yet; sound comes at `rate_hz`."""
        self._rate_hz = rate_hz
        self.name = name
        self._settings = settings
        self._clock = clock
        self._metrics = StageMetrics(f"media/{name}")

    @property
    def metrics(self) -> Sequence[StageMetrics]:
        """Packets in, items out, drops."""
        return (self._metrics,)

    @contextmanager
    def read(self) -> Iterator[Iterator[MediaItem]]:
        """Open it and give its items.

        Raises:
            SourceError: it is missing, no file or no media, or holds nothing that can be decoded.
        """
        settings = self._settings
        _refuse_networks(settings.url)
        wanted: dict[StreamKind, int | None] = {
            "video": settings.video_stream,
            "audio": settings.audio_stream,
        }
        with (
            MediaInput(settings.url, wanted, self._metrics) as media,
            closing(self._items(media)) as items,
        ):
            yield paced(items, self._clock) if settings.pace == "realtime" else items

    def _items(self, media: MediaInput) -> Generator[MediaItem]:
        feeds = self._feeds(media)
        yield SourceStarted(
            self.name,
            media.kinds,
            epoch_ns(self._settings.epoch),
            clock_offset_ns=None,
        )
        while True:
            n_open = sum(feed.fill(media) for feed in feeds)
            if not n_open:
                for feed in feeds:
                    feed.finish()
            ready = [feed for feed in feeds if feed.items]
            if not ready:
                if n_open:  # stamps are in doubt, and more of them are needed
                    continue
                return
            due_ns, item = min(ready, key=_Feed.due_ns).pop()
            self._metrics.n_out += 1
            yield item
            for feed in feeds:
                bound = feed.follow(due_ns)
                if bound is not None:
                    yield bound

    def _feeds(self, media: MediaInput) -> list["_Feed"]:
        """One per stream, with what its first packets gave: that tells when the file starts."""
        first = {kind: _first(media, kind) for kind in sorted(media.kinds)}
        instants_ns = [decoded[0].at_ns for decoded in first.values() if decoded]
        if not instants_ns:
            shown = mask_credentials(self._settings.url)
            msg = f"{shown}: nothing in it can be decoded; allowed: media that FFmpeg decodes"
            raise SourceError(msg)
        timeline = Timeline[Decoded](min(instants_ns), self._metrics)
        resampler = CaptureResampler(self.name, self._rate_hz, self._metrics)
        feeds = []
        for kind, decoded in first.items():
            feed = _Feed(kind, self.name, timeline, resampler, self._metrics)
            feed.take(decoded)
            feeds.append(feed)
        return feeds


def _refuse_networks(url: str) -> None:
    """What stalls or never ends is for `mmstream.sources.network`."""
    scheme, colon, _ = url.partition(":")
    if colon and "/" not in scheme and scheme != "file":  # as FFmpeg tells a URL from a path
        msg = (
            f"{mask_credentials(url)}: not a file; "
            "allowed: a path or file:// URL; for the network, `type: network`"
        )
        raise SourceError(msg)


def _first(media: MediaInput, kind: StreamKind) -> Sequence[Decoded]:
    """The first that the stream gives; nothing where it gives nothing, or not soon."""
    while (decoded := media.decode(kind)) is not None:
        if decoded:
            return decoded
    return ()


class _Feed:
    """The items of one stream that come next."""

    def __init__(
        self,
        kind: StreamKind,
        source: str,
        timeline: Timeline[Decoded],
        resampler: CaptureResampler,
        metrics: StageMetrics,
    ) -> None:
        self.items: deque[tuple[int, AudioChunk | VideoFrame]] = deque()
        """Each with the instant at which a live source would give it."""
        self._kind = kind
        self._source = source
        self._timeline = timeline
        self._resampler = resampler
        self._metrics = metrics
        self._bound_ns = 0
        self._last_ns = -1

    def fill(self, media: MediaInput) -> bool:
        """Decode until there is an item, or the other stream must tell what the stamps mean.

        Whether something is there or may come.
        """
        self._make(self._timeline.settled(self._kind))
        while not self.items:
            decoded = media.decode(self._kind)
            if decoded is None:
                if self._kind == "audio":
                    self._put(self._resampler.flush())
                return bool(self.items)
            self.take(decoded)
            if self._timeline.waits(self._kind):
                break
        return True

    def take(self, decoded: Sequence[Decoded]) -> None:
        """Make items of it, unless its stamps are in doubt."""
        for one in decoded:
            self._make(self._timeline.place(self._kind, one.at_ns, one.duration_ns, one))

    def finish(self) -> None:
        """Nothing more comes: make items of what is left."""
        self._make(self._timeline.settled(self._kind, is_over=True))
        if self._kind == "audio":
            self._put(self._resampler.flush())

    def _make(self, placed: Sequence[tuple[int, Decoded]]) -> None:
        for start_ns, one in placed:
            if isinstance(one, Sound):
                self._put(self._resampler.push(one.frame, start_ns, one.jitter_ns))
            elif start_ns > self._last_ns:
                self._put([VideoFrame(self._source, start_ns, one.image)])
                self._last_ns = start_ns
            else:
                self._metrics.drop("backward_picture")

    def due_ns(self) -> int:
        """When a live source would give the next item."""
        return self.items[0][0]

    def pop(self) -> tuple[int, AudioChunk | VideoFrame]:
        """The next item and when it is due."""
        self._bound_ns, item = self.items.popleft()
        return self._bound_ns, item

    def follow(self, until_ns: int) -> StreamBound | None:
        """What can be said of it when everything up to `until_ns` has been given."""
        if self.items:
            until_ns = min(until_ns, self.items[0][1].start_ns)
        elif self._timeline.waits(self._kind):
            return None
        if until_ns < self._bound_ns + FOLLOW_NS:
            return None
        self._bound_ns = until_ns
        return StreamBound(self._source, self._kind, until_ns)

    def _put(self, items: Sequence[AudioChunk | VideoFrame]) -> None:
        self.items.extend((due_ns(item), item) for item in items)
