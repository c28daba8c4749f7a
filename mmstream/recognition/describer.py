"""Sentences about pictures: at a cadence, and when what is seen has become something else.

    hop.frames -> changes.py: which -> rgb, masked -> [the newest waits] -> thread: captioner
    Scores.descriptions <- with the source's next hop <------------------------------+

The worker only picks and shrinks. For hops of sources that are not live it waits for the sentence,
so that a replay says the same each time; beside a live source only so long that this one is not
scored late for it, and the sentence may come some hops later. For live sources nothing is waited
for, at their end neither: a description that comes after it is nobody's.

A captioner that fails stops a replay. Where a live source is there, descriptions fail alone and it
is built again after a pause (`mmstream.recognition.beside`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from pydantic import Field

from mmstream.clock import Clock, SystemClock
from mmstream.config import Settings
from mmstream.detectors.masks import Masks, MasksBySource, blackened, greyed
from mmstream.media import Bytes, Description, Hop, Label, Scores, Span, VideoFrame, secs_to_ns
from mmstream.metrics import StageMetrics
from mmstream.models.captioner_settings import CaptionerSettings
from mmstream.recognition.backlog import Job
from mmstream.recognition.beside import Beside, Craft
from mmstream.recognition.changes import Changes
from mmstream.stages import Captioner, CaptionerSpec, Load, Scorer

NAME: Final = "describer"
_BESIDE_LIVE_SECS: Final = 0.4
"""How long a file's hop waits for its sentence beside a live source: that one's hops are degraded
when they are half a second old (`WorkerSettings.stale_secs`)."""
_HANGS_SECS: Final = 60.0


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
    is_live: bool = False
    index: int = 0
    end_ns: int = 0


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
    """Hops -> what is seen in a few of their pictures (`Scorer`, `Finishing`, `Reporting`)."""

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
        `picture_replaced` by a newer one of its source while it waited, `late_result` when its
        source had ended or stalled, `failed` with the captioner, `empty` where it said nothing,
        `said_before` where it said the same as last. Latencies: from a picture's being picked, or
        that of the one it took the place of."""
        self._settings = settings
        self._name = captioner.name
        self._states: dict[str, _State] = {}
        build = partial(_built, captioner, device)
        self._beside: Beside[_Picture, str] = Beside(NAME, build, self.metrics, clock)

    @property
    def problems(self) -> Sequence[str]:
        """That nothing is described just now; one that is only slow is seen in `metrics`."""
        if (failure := self._beside.failure) is not None:
            return (f"no descriptions until it works again, all else goes on: {failure}",)
        if self._beside.busy_secs >= _HANGS_SECS:
            return (f"{self._name} has been at its pictures for more than {_HANGS_SECS:.0f} s",)
        return ()

    def score(self, hops: Sequence[Hop], so_far: Sequence[Scores], load: Load) -> Sequence[Scores]:  # noqa: ARG002 - pictures are looked at anew
        """As `Scorer.score`; under `Load.INGEST` no picture is looked at.

        Raises:
            ScorerError: the captioner has failed and no source is live.
        """
        return [self._score(hop, load) for hop in hops]

    def finish(self, source: str, *, live: bool) -> Scores | None:
        """What has come since the last hop. The next picture, if any, is described anew.

        Raises:
            ScorerError: the captioner has failed and no source is live.
        """
        state = self._states.get(source)
        if state is None:
            return None
        if not live:
            self._wait(source)
        said = self._collect(source, state)
        self.forget(source)
        if not said:
            return None
        at = Span(state.end_ns, state.end_ns)
        return Scores(source, state.index + 1, at, descriptions=tuple(said))

    def forget(self, source: str) -> None:
        """The source ended or started anew."""
        if self._states.pop(source, None) is not None:
            self._beside.forget(source)

    def close(self) -> None:
        """Let the thread end."""
        self._beside.close()

    def _score(self, hop: Hop, load: Load) -> Scores:
        state = self._states.setdefault(hop.source, _State())
        state.is_live, state.index, state.end_ns = hop.live, hop.index, hop.span.end_ns
        if hop.gap_before:
            state.changes.interrupt()
        said: list[Description] = []
        if load < Load.INGEST:
            for frame in hop.frames:
                if not self._is_due(frame, state):
                    continue
                self._put(hop, frame)
                if not hop.live:
                    self._wait(hop.source)
                    said += self._collect(hop.source, state)
        said += self._collect(hop.source, state)
        return Scores(hop.source, hop.index, hop.span, descriptions=tuple(said))

    def _wait(self, source: str) -> None:
        """For all sentences about a file; beside a live source for a moment only."""
        has_live = any(state.is_live for state in self._states.values())
        self._beside.wait(source, _BESIDE_LIVE_SECS if has_live else None)

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
        pixels = blackened(frame.image, self._settings.width, polygons)
        picture = _Picture(frame.start_ns, pixels)
        # No length: there is no sound that it could keep up with.
        span = Span(frame.start_ns, frame.start_ns)
        self._beside.put(Job(hop.source, picture, span, replaced_as="picture_replaced"))

    def _collect(self, source: str, state: _State) -> Sequence[Description]:
        said: list[Description] = []
        for answer in self._beside.collect(source):
            text = answer.result
            if text is None:
                continue  # it was given up, and counted
            if not text:
                self.metrics.drop("empty")
            elif text == state.said:
                self.metrics.drop("said_before")
            else:
                state.said = text
                said.append(Description(answer.job.what.at_ns, text, self._name))
        return said


def _built(captioner: CaptionerSpec, device: str) -> Craft[_Picture, str]:
    return _Describing(captioner.build(device))
