"""A source that needs no device: a scene with known truth, and faults where the settings say so.

Faults only change how the truth is delivered: which items come, how often, and with which stamps.
What happens in the scene, and when, stays as `Scene.truth` has it. Items keep the order in which
they were captured, so that a stamp may be earlier than the one before.
"""

import heapq
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import count
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field

from mmstream.clock import Clock
from mmstream.codecs import image_from_array
from mmstream.codecs.sound import CHUNKS_PER_SEC
from mmstream.config import Settings
from mmstream.media import (
    DEFAULT_RATE_HZ,
    NS_PER_SEC,
    AudioChunk,
    MediaItem,
    SourceStarted,
    StreamBound,
    StreamKind,
    VideoFrame,
    ns_to_samples,
    samples_to_ns,
    secs_to_ns,
)
from mmstream.metrics import StageMetrics
from mmstream.sources.demo_scene import demo
from mmstream.sources.pacing import UNIX_EPOCH, Epoch, due_ns, epoch_ns, paced
from mmstream.sources.scenes import ROUND_NS, Scene, SceneFormat, flash_beep, shapes
from mmstream.sources.timeline import mended

NEVER_NS: Final = 2**63 - 1
"""The bound of a stream that has ended."""

_SCENES: Final = {"flash_beep": flash_beep, "shapes": shapes, "demo": demo}
_Media = AudioChunk | VideoFrame


class _Fault(Settings):
    """What goes wrong with one stream; it strikes what is captured from `at_secs` on."""

    stream: StreamKind
    at_secs: float = Field(0, ge=0)
    """Scene time."""

    @property
    def at_ns(self) -> int:
        """Scene time."""
        return secs_to_ns(self.at_secs)

    def strikes(self, captured_ns: int) -> bool:
        """Whether it is there for what is captured at that instant."""
        return captured_ns >= self.at_ns


class _PassingFault(_Fault):
    """A fault that may be over after some time."""

    duration_secs: float | None = Field(None, gt=0)
    """How long; null: to the end."""

    def strikes(self, captured_ns: int) -> bool:
        """Whether it is there for what is captured at that instant."""
        if self.duration_secs is not None and captured_ns >= self.at_ns + secs_to_ns(
            self.duration_secs
        ):
            return False
        return super().strikes(captured_ns)


class Gap(_PassingFault):
    """Chunks or frames are lost, unannounced."""

    kind: Literal["gap"] = "gap"
    share: float = Field(1, gt=0, le=1)
    """How many of them, chosen at random."""


class Silent(_PassingFault):
    """The stream sends nothing. A source that is not live says so by stream bounds."""

    kind: Literal["silent"] = "silent"


class EndsEarly(_Fault):
    """The stream ends, and says so."""

    kind: Literal["ends_early"] = "ends_early"


class Jitter(_PassingFault):
    """Stamps are off by a random time, up to `amount_secs` either way."""

    kind: Literal["jitter"] = "jitter"
    amount_secs: float = Field(gt=0)


class Drift(_Fault):
    """The stream's clock runs too fast (stamps get ahead) or, below 0, too slow."""

    kind: Literal["drift"] = "drift"
    ppm: float


class Backward(_PassingFault):
    """Stamps are `amount_secs` too early, though never below 0."""

    kind: Literal["backward"] = "backward"
    amount_secs: float = Field(gt=0)


class Duplicate(_PassingFault):
    """Everything is sent twice, with the same stamp."""

    kind: Literal["duplicate"] = "duplicate"


class Reset(_Fault):
    """Stamps start again from 0."""

    kind: Literal["reset"] = "reset"


Fault = Annotated[
    Gap | Silent | EndsEarly | Jitter | Drift | Backward | Duplicate | Reset,
    Field(discriminator="kind"),
]


class SyntheticSettings(Settings):
    """A made-up scene."""

    type: Literal["synthetic"] = "synthetic"
    scene: Literal["flash_beep", "shapes", "demo"] = "demo"
    width: int = Field(640, ge=64, le=3840)
    """Pixels across."""
    height: int = Field(360, ge=64, le=2160)
    """Pixels down."""
    fps: float = Field(20, gt=0, le=120)
    """Frames per second."""
    duration_secs: float | None = Field(None, gt=0)
    """How long it lasts; null: for ever, or one round of 60 s when it is read as fast as can be."""
    seed: int = Field(0, ge=0)
    """Chooses noise, variations and random faults."""
    pace: Literal["realtime", "max"] = "realtime"
    """As life goes, or as fast as it is taken."""
    epoch: Epoch | Literal["now"] | None = None
    """The instant at which the scene begins, with a time zone, from 1970 to 2261; null: `now` in
    real time, else 1970-01-01T00:00:00Z."""
    live: bool = False
    """Whether it goes on without us as a camera does, so that what is not taken in time is lost."""
    faults: tuple[Fault, ...] = ()
    """What goes wrong; several may strike the same item, in this order."""


class SyntheticSource:
    """Plays a scene (fits `mmstream.stages.Reader`); each reading gives the same items."""

    def __init__(
        self,
        name: str,
        settings: SyntheticSettings,
        clock: Clock,
        *,
        rate_hz: int = DEFAULT_RATE_HZ,
    ) -> None:
        """`name` is its id on the wire; sound comes at `rate_hz`."""
        self._rate_hz = rate_hz
        self.name = name
        self.live = settings.live
        self._settings = settings
        self._clock = clock
        self._metrics = StageMetrics(f"synthetic/{name}")

    @cached_property
    def scene(self) -> Scene:
        """What it plays, with its truth.

        Raises:
            SourceError: the demo's sentence cannot be read.
        """
        chosen = self._settings
        look = SceneFormat(chosen.width, chosen.height, self._rate_hz)
        return _SCENES[chosen.scene](look, np.random.default_rng(chosen.seed))

    @property
    def metrics(self) -> Sequence[StageMetrics]:
        """Items out, and timestamps that were reset or lies; what faults swallow is not counted."""
        return (self._metrics,)

    @contextmanager
    def read(self) -> Iterator[Iterator[MediaItem]]:
        """Play the scene from its start.

        Raises:
            SourceError: the demo's sentence cannot be read.
        """
        chosen = self._settings
        items: Iterator[MediaItem] = self._captured(self.scene)
        if chosen.pace == "realtime":
            # Before the faults: wrong stamps must not change when something happens.
            items = paced(items, self._clock)
        if chosen.faults:
            items = faulty(items, chosen.faults, chosen.seed, live=self.live)
            items = mended(items, self._metrics)
        with closing(self._counted(items)) as counted:
            yield counted

    def _captured(self, scene: Scene) -> Iterator[MediaItem]:
        """What camera and microphone deliver, in the order of `due_ns`; 0 is the scene's start."""
        chosen = self._settings
        yield SourceStarted(
            self.name, frozenset({"audio", "video"}), self._utc_offset_ns(), clock_offset_ns=None
        )
        until_ns = NEVER_NS if chosen.pace == "realtime" else ROUND_NS
        if chosen.duration_secs is not None:
            until_ns = secs_to_ns(chosen.duration_secs)
        streams = self._chunks(scene, until_ns), self._frames(scene, until_ns)
        yield from heapq.merge(*streams, key=due_ns)

    def _counted(self, items: Iterable[MediaItem]) -> Generator[MediaItem]:
        for item in items:
            self._metrics.n_out += 1
            yield item

    def _utc_offset_ns(self) -> int:
        epoch = self._settings.epoch
        if epoch == "now" or (epoch is None and self._settings.pace == "realtime"):
            return self._clock.utc_ns()
        return epoch_ns(epoch or UNIX_EPOCH)

    def _chunks(self, scene: Scene, until_ns: int) -> Iterator[_Media]:
        rate_hz = self._rate_hz
        n_all = ns_to_samples(until_ns, rate_hz)
        for index in count():
            first = index * rate_hz // CHUNKS_PER_SEC
            end = min(n_all, (index + 1) * rate_hz // CHUNKS_PER_SEC)
            if first >= end:
                return
            samples = scene.samples(first, end - first)
            yield AudioChunk(self.name, samples_to_ns(first, rate_hz), rate_hz, samples)

    def _frames(self, scene: Scene, until_ns: int) -> Iterator[_Media]:
        for index in count():
            start_ns = round(index * NS_PER_SEC / self._settings.fps)
            if start_ns >= until_ns:
                return
            pixels = scene.picture(start_ns)
            image = image_from_array(pixels, "rgb24" if pixels.shape[2:] else "gray")
            yield VideoFrame(self.name, start_ns, image)


def faulty(
    items: Iterable[MediaItem], faults: Sequence[Fault], seed: int, *, live: bool
) -> Iterator[MediaItem]:
    """`items` as they come when `faults` strike; the same arguments give the same.

    Faults strike by the instant at which an item was truly captured, whatever its stamp has become.
    When both streams have ended, so does this.
    """
    dice = [np.random.default_rng([seed, index]) for index in range(len(faults))]
    streams: set[StreamKind] = {"audio", "video"}
    for item in items:
        if not isinstance(item, AudioChunk | VideoFrame):
            yield item
            continue
        stream = _stream(item)
        if stream not in streams:
            continue
        striking = [
            (fault, rng)
            for fault, rng in zip(faults, dice, strict=True)
            if fault.stream == stream and fault.strikes(item.start_ns)
        ]
        if not any(isinstance(fault, EndsEarly) for fault, _ in striking):
            yield from _struck(item, striking, live=live)
            continue
        yield StreamBound(item.source, stream, NEVER_NS)
        streams.remove(stream)
        if not streams:
            return


def _stream(item: _Media) -> StreamKind:
    return "audio" if isinstance(item, AudioChunk) else "video"


def _struck(
    item: _Media, striking: Sequence[tuple[Fault, np.random.Generator]], *, live: bool
) -> Sequence[MediaItem]:
    """What comes instead of `item`."""
    shift_ns = sum(_shift_ns(fault, rng, item.start_ns) for fault, rng in striking)
    stamped = replace(item, start_ns=max(0, item.start_ns + shift_ns)) if shift_ns else item
    n_sent = 1
    for fault, rng in striking:
        match fault:
            case Gap() if rng.random() < fault.share:
                n_sent = 0
            case Duplicate():
                n_sent *= 2
            case Silent():
                return () if live else (StreamBound(item.source, _stream(item), stamped.start_ns),)
    return (stamped,) * n_sent


def _shift_ns(fault: Fault, rng: np.random.Generator, captured_ns: int) -> int:
    """How far a fault moves the stamp of what was captured at that instant."""
    match fault:
        case Jitter():
            amount_ns = secs_to_ns(fault.amount_secs)
            return int(rng.integers(-amount_ns, amount_ns, endpoint=True))
        case Drift():
            return round((captured_ns - fault.at_ns) * fault.ppm / 1e6)
        case Backward():
            return -secs_to_ns(fault.amount_secs)
        case Reset():
            return -fault.at_ns
        case _:
            return 0
