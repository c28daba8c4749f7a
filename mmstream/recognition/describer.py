"""Sentences about pictures: at a cadence, and when what is seen has become something else.

    hop.frames -> changes.py: which -> rgb, masked -> [the newest waits] -> thread: captioner
    Scores.descriptions <- with the source's next hop <------------------------------+

The worker only picks and shrinks. For hops of sources that are not live it waits for the sentence,
so that a replay says the same each time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
from pydantic import Field

from mmstream.clock import Clock, SystemClock
from mmstream.config import Settings
from mmstream.detectors.masks import Masks, MasksBySource, Polygon, greyed, ignored
from mmstream.media import Bytes, Description, Hop, Label, Scores, Span, VideoFrame, secs_to_ns
from mmstream.metrics import StageMetrics
from mmstream.models.captioner_settings import CaptionerSettings
from mmstream.recognition.backlog import Job
from mmstream.recognition.beside import Beside, Craft
from mmstream.recognition.changes import Changes
from mmstream.stages import Captioner, CaptionerSpec, Load, Scorer

NAME: Final = "describer"
_MARGIN: Final = 2
"""Pixels around a mask that are painted too: scaling mixes neighbours."""


class SceneCaptioner(Settings):
    """The spec of `Describer` (`ScorerSpec`)."""

    captioner: CaptionerSettings
    """What describes."""
    every_secs: float = Field(default=10.0, ge=0.1, le=3600)
    """From one description of a source to the next, at most, of capture time."""
    on_change: bool = True
    """Whether a cut, or what has come or gone for good, is described at once."""
    width: int = Field(default=448, ge=64, le=1920)
    """Of a picture, at most, pixels; it keeps its shape and is never made larger."""
    masks: Masks = Field(default_factory=MasksBySource)
    """What is not to be described, by source: it is black."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """None: it gives sentences."""
        return ()

    def build(self, device: str) -> Scorer:
        """Load the captioner on its thread.

        Raises:
            ScorerError: its weights cannot be had.
        """
        return Describer(self, self.captioner, device, SystemClock())


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    at_ns: int
    pixels: Bytes
    """[h, w, 3]"""


@dataclass(slots=True)
class _State:
    """Of one source."""

    changes: Changes = field(default_factory=Changes)
    picked_ns: int | None = None
    said: str = ""


class _Describing:
    """What the thread does."""

    def __init__(self, captioner: Captioner) -> None:
        self._captioner = captioner

    def do(self, work: Sequence[_Picture], /) -> Sequence[str]:
        return self._captioner.describe([one.pixels for one in work])

    def forget(self, source: str, /) -> None:
        """A captioner knows no sources."""

    def close(self) -> None:
        """It holds nothing but memory."""


class Describer:
    """Hops -> what is seen in a few of their pictures (`Scorer`, `Reporting`)."""

    def __init__(
        self,
        settings: SceneCaptioner,
        captioner: CaptionerSpec,
        device: str,
        clock: Clock,
    ) -> None:
        """Start the thread and wait until the captioner is there.

        Raises:
            ScorerError: it cannot be had.
        """
        self.metrics = StageMetrics(NAME)
        """`n_in` counts the pictures that are to be described, `n_out` the sentences. Dropped:
        `partial_dropped` for a newer picture, `late_result` when its source is gone,
        `said_before`, `empty`. Latencies: from the picture's being picked."""
        self.problems: Sequence[str] = ()
        """None: a captioner that fails stops the scorer."""
        self._settings = settings
        self._name = captioner.name
        self._states: dict[str, _State] = {}
        build = partial(_built, captioner, device)
        self._beside: Beside[_Picture, str] = Beside(NAME, build, self.metrics, clock)

    def score(self, hops: Sequence[Hop], so_far: Sequence[Scores], load: Load) -> Sequence[Scores]:  # noqa: ARG002 - pictures are looked at anew
        """As `Scorer.score`; under `Load.INGEST` no picture is looked at.

        Raises:
            ScorerError: the captioner has failed.
        """
        return [self._score(hop, load) for hop in hops]

    def forget(self, source: str) -> None:
        """The source ended or started anew."""
        self._states.pop(source, None)
        self._beside.forget(source)

    def close(self) -> None:
        """Let the thread end."""
        self._beside.close()

    def _score(self, hop: Hop, load: Load) -> Scores:
        state = self._states.setdefault(hop.source, _State())
        if hop.gap_before:
            state.changes.interrupt()
        said: list[Description] = []
        if load < Load.INGEST:
            for frame in hop.frames:
                if not self._is_due(frame, state):
                    continue
                self._put(hop, frame)
                if not hop.live:
                    self._beside.wait(hop.source)
                    said += self._collect(hop.source, state)
        said += self._collect(hop.source, state)
        return Scores(hop.source, hop.index, hop.span, descriptions=tuple(said))

    def _is_due(self, frame: VideoFrame, state: _State) -> bool:
        """Whether to describe this picture; then others are compared with it."""
        polygons = self._settings.masks.get(frame.source, ())
        is_new = self._settings.on_change and state.changes.look(
            greyed(frame.image.luma, polygons), frame.start_ns
        )
        pause_ns = secs_to_ns(self._settings.every_secs)
        is_time = state.picked_ns is None or frame.start_ns - state.picked_ns >= pause_ns
        if not (is_new or is_time):
            return False
        state.picked_ns = frame.start_ns
        state.changes.taken()
        return True

    def _put(self, hop: Hop, frame: VideoFrame) -> None:
        polygons = self._settings.masks.get(hop.source, ())
        picture = _Picture(frame.start_ns, masked(frame, self._settings.width, polygons))
        # No length: there is no sound that it could keep up with.
        self._beside.put(Job(hop.source, picture, Span(frame.start_ns, frame.start_ns)))

    def _collect(self, source: str, state: _State) -> Sequence[Description]:
        said: list[Description] = []
        for answer in self._beside.collect(source):
            text = answer.result
            if not text:
                self.metrics.drop("empty")
            elif text == state.said:
                self.metrics.drop("said_before")
            else:
                state.said = text
                said.append(Description(answer.job.what.at_ns, text, self._name))
        return said


def masked(frame: VideoFrame, max_width: int, polygons: tuple[Polygon, ...]) -> Bytes:
    """[h, w, 3]: the picture at most `max_width` wide, black where nobody is to see anything."""
    image = frame.image
    width = min(max_width, image.width)
    height = max(1, round(image.height * width / image.width))
    picture = image.rgb((width, height))
    if not polygons:
        return picture
    hidden = ignored(polygons, height, width).copy()
    for _ in range(_MARGIN):
        hidden[1:] |= hidden[:-1].copy()
        hidden[:-1] |= hidden[1:].copy()
        hidden[:, 1:] |= hidden[:, :-1].copy()
        hidden[:, :-1] |= hidden[:, 1:].copy()
    return np.where(hidden[:, :, None], np.uint8(0), picture)


def _built(captioner: CaptionerSpec, device: str) -> Craft[_Picture, str]:
    return _Describing(captioner.build(device))
