"""Pictures of what happens, for those who ask for them: made beside the loop, shown by the broker.

    event   -> [waiting: the newest of each source] -> thread: masks, boxes, JPEG -> galleries
    request -------------------------------------------^

The loop only picks the frame out of the source's ring. A source's pictures of events are a second
apart; one that comes meanwhile takes the place of the one that waits. No picture is made before it
is known what of it nobody is to see, and what is shown with other masks is taken back.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final, Literal, Protocol

from pydantic import Field, JsonValue

from mmstream.codecs.jpeg import encode_jpeg
from mmstream.config import Settings
from mmstream.detectors.masks import Polygon, blackened
from mmstream.errors import CommandError
from mmstream.features.drawing import MAX_HZ, Mark, marked, spectrogram
from mmstream.media import NS_PER_SEC, Box, secs_to_ns
from mmstream.messages import Event, Info, Published, WireBox, iso_utc
from mmstream.metrics import StageMetrics
from mmstream.sinks.own_thread import OwnThread
from mmstream.windows import Glimpse

PAUSE_SECS: Final = 1.0
"""At least so long from one picture of a source's events to the next."""
TAKE_SECS: Final = 5.0
"""How long a request waits for its picture."""
MAX_OFF_SECS: Final = 3.0
"""A picture that was captured so long before or after is none of the event."""
SAME_SECS: Final = 0.1
"""Boxes are drawn only where the picture was captured this near to when they were seen."""
_UNKNOWN: Final = "no snapshot of %s: its masks are not known"

_log = logging.getLogger(__name__)

Masks = Callable[[str], tuple[Polygon, ...] | None]
"""What nobody is to see of a source; None: that is not known, so nothing of it is shown."""


class SnapshotSettings(Settings):
    """Pictures of what happens, published as JPEG."""

    width: int = Field(640, ge=64, le=3840)
    """At most, pixels; the picture keeps its shape and is never made larger."""
    quality: int = Field(80, ge=1, le=100)
    """Of the JPEG: 1 is small, 100 is large."""
    on: frozenset[Literal["events", "request"]] = Field(
        frozenset({"events", "request"}), min_length=1
    )
    """When: as an event starts and as its top score rises; when `request/snapshot` asks."""


class Gallery(Protocol):
    """Where pictures are shown."""

    def show(self, source: str, jpeg: bytes) -> None:
        """Show the newest picture of a source in the place of the one before; empty: take it away.

        On the loop.
        """
        ...


@dataclass(frozen=True, slots=True)
class Shot:
    """A moment of one source, not developed yet."""

    source: str
    glimpse: Glimpse
    marks: tuple[Mark, ...]


class Snapshots:
    """Takes pictures as events are published (it is a sink), and when it is asked."""

    name = "snapshots"

    def __init__(
        self, settings: SnapshotSettings, galleries: Sequence[Gallery], masks: Masks
    ) -> None:
        """Nothing to be seen before `look_through`. `masks` is asked anew for each picture."""
        self.metrics = StageMetrics(self.name)
        """`n_in` counts the pictures that are called for. Dropped: `superseded` by a newer one,
        `gone` from the ring or with its source, `unmasked` where it is not known what is to be
        hidden, `failed`, `shutdown`. Latencies: of making it."""
        self._settings = settings
        self._galleries = tuple(galleries)
        self._masks = masks
        self._find: Callable[[str, int | None], Glimpse | None] = _nothing
        self._thread = OwnThread(self.name)
        self._shown: dict[str, tuple[Polygon, ...] | None] = {}
        """By source, the masks of what is shown of it; None: nothing is."""
        self._waiting: dict[str, Shot] = {}
        self._not_before: dict[str, float] = {}
        """On the loop's clock, by source: when its next picture is due."""
        self._top_scores: dict[str, float] = {}
        """Of the events that are open, by id, as told last."""
        self._work = asyncio.Event()
        self._is_closed = False

    def look_through(self, find: Callable[[str, int | None], Glimpse | None]) -> None:
        """From now on `find` gives what is held of a source at an instant since 1970, or newest."""
        self._find = find

    async def publish(self, message: Published) -> None:
        """Take a picture if an event has started, or is stronger than before; returns at once."""
        match message.content:
            case Info() as info:
                self._go_by(info)
            case Event() as event if "events" in self._settings.on:
                self._follow(event)
        self._take_back()

    def _follow(self, event: Event) -> None:
        if event.type == "end":
            self._top_scores.pop(event.id, None)
            return
        if event.top_score <= self._top_scores.get(event.id, -1):
            return
        self._top_scores[event.id] = event.top_score
        self.metrics.n_in += 1
        shot = self._shot(event)
        if shot is None:
            self.metrics.drop("gone")
            return
        if self._waiting.pop(event.source, None) is not None:
            self.metrics.drop("superseded")
        self._waiting[event.source] = shot
        self._work.set()

    def _go_by(self, info: Info) -> None:
        """Of sources that have come nothing is shown yet, of those that are gone no more.

        What an earlier boot has shown may have had other masks. The sink clears what is gone.
        """
        sources = {source.id for source in info.sources}
        for source in sources - self._shown.keys():
            self._show(source, b"")
        self._shown = {source: self._shown.get(source) for source in sources}
        for source in self._waiting.keys() - sources:
            del self._waiting[source]
            self.metrics.drop("gone")

    def _take_back(self) -> None:
        """What was made with other masks than those of now; messages show that time passes."""
        for source, had in self._shown.items():
            if had is not None and self._masks(source) != had:
                self._shown[source] = None
                self._show(source, b"")

    def _show(self, source: str, jpeg: bytes) -> None:
        for gallery in self._galleries:
            gallery.show(source, jpeg)

    async def take(self, source: str) -> dict[str, JsonValue]:
        """Show the newest picture of a source; gives what it is.

        Raises:
            CommandError: there is none, or it cannot be made in time.
        """
        if "request" not in self._settings.on:
            msg = "no snapshots are taken on request; allowed: `snapshots: {on: [request]}`"
            raise CommandError(msg)
        glimpse = self._find(source, None)
        if glimpse is None:
            msg = f"nothing of {source} to show: nothing has come of it, or it is switched off"
            raise CommandError(msg)
        self.metrics.n_in += 1
        try:
            async with asyncio.timeout(TAKE_SECS):
                jpeg = await self._develop(Shot(source, glimpse, ()))
        except TimeoutError:
            self.metrics.drop("failed")
            msg = f"the picture is not ready after {TAKE_SECS:g} s"
            raise CommandError(msg) from None
        if jpeg is None:
            msg = "the picture cannot be made; the log says why"
            raise CommandError(msg)
        kind = "sound" if glimpse.frame is None else "picture"
        return {"kind": kind, "captured": iso_utc(glimpse.utc_ns), "bytes": len(jpeg)}

    async def ready(self, timeout_secs: float) -> None:
        """At once."""

    async def run(self) -> None:
        """Make and show pictures until `close`."""
        loop = asyncio.get_running_loop()
        try:
            while not self._is_closed:
                self._work.clear()
                source = min(self._waiting, key=self._due_secs, default=None)
                due_secs = None if source is None else self._due_secs(source)
                if source is not None and self._due_secs(source) <= loop.time():
                    self._forget_pauses(loop.time())
                    self._not_before[source] = loop.time() + PAUSE_SECS
                    await self._develop(self._waiting.pop(source))
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(due_secs):
                        await self._work.wait()
        finally:
            self._thread.end()

    async def close(self) -> None:
        """Let `run` return after the picture that is being made; those that wait are dropped."""
        self._is_closed = True
        if self._waiting:
            self.metrics.drop("shutdown", len(self._waiting))
            self._waiting.clear()
        self._work.set()

    def _due_secs(self, source: str) -> float:
        return self._not_before.get(source, 0.0)

    def _forget_pauses(self, now_secs: float) -> None:
        """It grows with sources that are there, not with those that were."""
        for source in [one for one, secs in self._not_before.items() if secs < now_secs]:
            del self._not_before[source]

    def _shot(self, event: Event) -> Shot | None:
        """The strongest moment of an event, with what is seen of it."""
        strongest = max(event.evidence, key=lambda one: one.score, default=None)
        at_secs = event.t_start if strongest is None else strongest.t_start
        glimpse = self._find(event.source, secs_to_ns(at_secs))
        if glimpse is None:
            return None
        off_secs = abs(glimpse.utc_ns / 1e9 - at_secs)
        if off_secs > MAX_OFF_SECS:
            return None
        is_same = glimpse.frame is not None and off_secs <= SAME_SECS
        return Shot(event.source, glimpse, tuple(_marks(event, with_boxes=is_same)))

    async def _develop(self, shot: Shot) -> bytes | None:
        """Make a picture beside the loop and show it; None: it cannot be made."""
        begin_secs = asyncio.get_running_loop().time()
        was_there = shot.source in self._shown
        masks = self._masks(shot.source)
        if masks is None:
            self.metrics.drop("unmasked")
            _log.error(_UNKNOWN, shot.source, extra={"source": shot.source})
            return None
        try:
            jpeg = await self._thread.do(partial(developed, shot, self._settings, masks))
        except Exception as error:  # noqa: BLE001 - no picture stops the stream
            self.metrics.drop("failed")
            _log.debug("a defect of the snapshots", exc_info=True)
            what = f"{type(error).__name__}: {error}"
            _log.error("no snapshot of %s: %s", shot.source, what, extra={"source": shot.source})
            return None
        if was_there and shot.source not in self._shown:  # removed while it was made
            self.metrics.drop("gone")
            _log.warning("no snapshot of %s: it is gone", shot.source)
            return None
        self._shown[shot.source] = masks
        self._show(shot.source, jpeg)
        self.metrics.n_out += 1
        self.metrics.latencies.add(secs_to_ns(asyncio.get_running_loop().time() - begin_secs))
        return jpeg


def developed(shot: Shot, settings: SnapshotSettings, masks: tuple[Polygon, ...]) -> bytes:
    """The JPEG of a moment: masked, then marked; of sound, its spectrogram."""
    glimpse = shot.glimpse
    captured = datetime.fromtimestamp(glimpse.utc_ns // NS_PER_SEC, UTC).astimezone()
    footer = f"{captured:%Y-%m-%d %H:%M:%S %Z}"
    if glimpse.frame is None:
        rate_hz, width = glimpse.rate_hz, settings.width
        picture = spectrogram(glimpse.samples, rate_hz=rate_hz, width=width)
        secs, max_khz = glimpse.samples.size / rate_hz, min(MAX_HZ, rate_hz / 2) / 1000
        footer += f", {secs:.1f} s, to {max_khz:g} kHz"
    else:
        picture = blackened(glimpse.frame.image, settings.width, masks)
    return encode_jpeg(marked(picture, shot.marks, footer=footer), quality=settings.quality)


def _marks(event: Event, *, with_boxes: bool) -> Iterator[Mark]:
    """Each label is written once: at its largest box, or at the top where it has none."""
    if not event.evidence:
        yield Mark(_text(event.label, event.top_score))
    for label in dict.fromkeys(one.label for one in event.evidence):
        seen = [one for one in event.evidence if one.label == label]
        found = {_box(one.box) for one in seen if with_boxes and one.box is not None}
        boxes = sorted(found, key=lambda box: box.width * box.height, reverse=True)
        yield Mark(_text(label, max(one.score for one in seen)), boxes[0] if boxes else None)
        yield from (Mark("", box) for box in boxes[1:])


def _box(box: WireBox) -> Box:
    """Rounded, it may stand out of the picture by a little."""
    return Box(box.x, box.y, min(box.width, 1 - box.x), min(box.height, 1 - box.y))


def _text(label: str, score: float) -> str:
    return f"{label.replace('_', ' ')} {score:.0%}"


def _nothing(_source: str, _at_utc_ns: int | None) -> None:
    """Before there are sources."""
