"""Scores -> the life of events: `start`, `update`, `end`, stamped with capture time.

Reads `Scores.outputs[label]` ([t] scores in 0..1), the scores of single objects in
`Scores.objects`, the detections of either, and `Scores.fused`. What is scored as a whole has one
event at a time per label; of what is followed, each object has its own. A label in `Scores.learned`
that the head was not made for is told from then on, like any other.
"""

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mmstream.errors import StateError
from mmstream.heads.lifecycle import LabelSettings, Lifecycle, Peak, Step
from mmstream.media import (
    NS_PER_SEC,
    Detection,
    Fused,
    Label,
    Modality,
    Path,
    Scores,
    Series,
    SourceEnded,
    SourceStalled,
    SourceStarted,
)
from mmstream.messages import (
    Contribution,
    Decided,
    EndReason,
    Event,
    Evidence,
    WireBox,
    epoch_secs,
    iso_utc,
)


@dataclass(frozen=True, slots=True)
class Tuning:
    """How the labels of a source are to be told from here on: all of it, each time."""

    source: str
    silent: frozenset[str] = frozenset()
    """Labels that are not told."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """`LabelSettings.on` by label; of those left out as the head was made."""


HeadItem = SourceStarted | Tuning | Scores | SourceStalled | SourceEnded

_WHOLE = 0
"""The number of what is no single object; objects count from 1."""


class EventHead:
    """Scores of one source in, events out (`Stage[HeadItem, Decided]`)."""

    def __init__(
        self,
        *,
        node: str,
        source: str,
        labels: Sequence[Label],
        settings: Mapping[str, LabelSettings],
        otherwise: LabelSettings | None = None,
    ) -> None:
        """Nothing is open. A label without settings of its own has `otherwise`, or the defaults."""
        self._node = node
        self._source = source
        self._settings = settings
        self._otherwise = otherwise or LabelSettings()
        self._tuning = Tuning(source)
        self._voices: list[_Voice] = []
        self._learn(labels)
        self._utc_offset_ns: int | None = None

    def push(self, item: HeadItem) -> Sequence[Decided]:
        """Take what the worker or the runtime says next; give the events that follow.

        Raises:
            StateError: scores came before `SourceStarted`.
        """
        match item:
            case SourceStarted():
                ended = self._end_all("source_ended")
                self._utc_offset_ns = item.utc_offset_ns
                return ended
            case Tuning():
                self._tuning = item
                return [
                    self._event(voice.label, track, step)
                    for voice in self._voices
                    for track, step in voice.tune(item)
                ]
            case SourceStalled():
                return self._end_all("source_stalled")
            case SourceEnded():
                return self._end_all("source_ended")
            case Scores():
                self._learn(item.learned)
                return [
                    self._event(voice.label, track, step)
                    for voice in self._voices
                    for track, step in voice.hear(item)
                ]

    def flush(self) -> Sequence[Decided]:
        """We are shutting down: end what is open."""
        return self._end_all("shutdown")

    def _learn(self, labels: Sequence[Label]) -> None:
        known = {voice.label.name for voice in self._voices}
        for label in labels:
            if label.name not in known:
                voice = _Voice(label, self._settings.get(label.name, self._otherwise))
                deque(voice.tune(self._tuning), maxlen=0)  # nothing of it is open
                self._voices.append(voice)

    def _end_all(self, reason: EndReason) -> Sequence[Decided]:
        return [
            self._event(voice.label, track, step)
            for voice in self._voices
            for track, step in voice.close(reason)
        ]

    def _event(self, label: Label, track: int, step: Step) -> Decided:
        offset_ns = self._utc_offset_ns
        if offset_ns is None:
            msg = f"scores of {self._source} came before SourceStarted"
            raise StateError(msg)
        start_ns = offset_ns + step.start_ns
        end_ns = None if step.end_ns is None else offset_ns + step.end_ns
        fused = step.peak.fused
        event = Event(
            id=event_id(self._node, self._source, label.name, start_ns, track=track),
            type=step.type,
            source=self._source,
            label=label.name,
            kind="video" if label.modality == "text" else label.modality,
            score=round(step.score, 4),
            top_score=round(step.peak.score, 4),
            ts_start=iso_utc(start_ns),
            t_start=epoch_secs(start_ns),
            ts_end=None if end_ns is None else iso_utc(end_ns),
            t_end=None if end_ns is None else epoch_secs(end_ns),
            evidence=_evidence(step.peak, label, track, offset_ns),
            contribution=_contribution(label, fused),
            offset_ms=_offset_ms(fused),
            end_reason=step.end_reason,
        )
        return Decided(event, step.decided_ns)


def event_id(node: str, source: str, label: str, start_utc_ns: int, *, track: int = _WHOLE) -> str:
    """The id of an event: a hash of what makes it this one, so that a replay gives the same.

    `track`: which object it tells of, where it tells of one.
    """
    text = f"{node}/{source}/{label}/{start_utc_ns}"
    if track != _WHOLE:
        text += f"/{track}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class _Voice:
    """What is said of one label: of the scene as a whole, and of each object that is followed."""

    def __init__(self, label: Label, settings: LabelSettings) -> None:
        self.label = label
        self._made = settings
        """Before anybody has tuned it."""
        self._settings = settings
        self._is_silent = False
        self._lives: dict[int, Lifecycle] = {}

    def hear(self, scores: Scores) -> Iterator[tuple[int, Step]]:
        """The steps that follow from a hop's scores, with the object that they are about."""
        if self._is_silent:
            return
        name = self.label.name
        found = [detection for detection in scores.detections if detection.label == name]
        fused = scores.fused.get(name)
        if (whole := scores.outputs.get(name)) is not None:
            for step in _steps(self._life(_WHOLE), whole, found, fused):
                yield _WHOLE, step
        for one in scores.objects:
            if one.label == name:
                its = [d for d in found if d.path is not None and d.path.track == one.track]
                for step in _steps(self._life(one.track), one.series, its, fused):
                    yield one.track, step
        for track, life in list(self._lives.items()):
            for step in life.advance(scores.span.end_ns):
                yield track, step
            if life.is_idle():
                del self._lives[track]

    def tune(self, tuning: Tuning) -> Iterator[tuple[int, Step]]:
        """Set the threshold; fall silent, which ends what is open, or speak again."""
        name = self.label.name
        self._is_silent = name in tuning.silent
        if self._is_silent:
            yield from self.close("disabled")
        on = tuning.thresholds.get(name, self._made.on)
        if on != self._settings.on:
            self._settings = self._made if on == self._made.on else self._made.at(on)
            for life in self._lives.values():
                life.tune(self._settings)

    def close(self, reason: EndReason) -> Iterator[tuple[int, Step]]:
        """No more is to come."""
        for track, life in self._lives.items():
            for step in life.close(reason):
                yield track, step
        self._lives.clear()

    def _life(self, track: int) -> Lifecycle:
        return self._lives.setdefault(track, Lifecycle(self._settings))


def _steps(
    life: Lifecycle, series: Series, found: Sequence[Detection], fused: Fused | None
) -> Iterator[Step]:
    for at_ns, score in zip(series.at_ns.tolist(), series.values.tolist(), strict=True):
        here = [detection for detection in found if detection.at_ns == at_ns]
        yield from life.see(at_ns, score, here, fused)


def _contribution(label: Label, fused: Fused | None) -> Contribution:
    if fused is not None:
        return Contribution(
            audio=round(fused.audio, 4), video=round(fused.video, 4), text=round(fused.text, 4)
        )
    return Contribution() if label.modality == "av" else Contribution(**{label.modality: 1.0})


def _offset_ms(fused: Fused | None) -> float | None:
    if fused is None or fused.offset_ns is None:
        return None
    return round(fused.offset_ns * 1000 / NS_PER_SEC, 1)


def _evidence(peak: Peak, label: Label, track: int, offset_ns: int) -> tuple[Evidence, ...]:
    """What was found at the strongest moment; where nothing was, that moment itself."""
    senses = _senses(peak.fused) if label.modality == "av" else (label.modality,)
    path = None if track == _WHOLE else Path(track)
    here = tuple(
        Detection(label.name, peak.at_ns, sense, label.detector, peak.score, path=path)
        for sense in senses
    )
    at_secs = epoch_secs(offset_ns + peak.at_ns)
    return tuple(_told(detection, at_secs) for detection in peak.detections or here)


def _senses(fused: Fused | None) -> tuple[Modality, ...]:
    """The one that had more in what they made together; both, where nobody can say."""
    if fused is None:
        return ("audio", "video")
    if fused.text > max(fused.audio, fused.video):
        return ("text",)
    return ("audio",) if fused.audio > fused.video else ("video",)


def _told(detection: Detection, at_secs: float) -> Evidence:
    box, path = None, detection.path
    if detection.box is not None:
        edges = {name: round(getattr(detection.box, name), 4) for name in WireBox.model_fields}
        box = WireBox.model_validate(edges)
    direction_deg = None if path is None else path.direction_deg
    return Evidence(
        modality=detection.modality,
        detector=detection.detector,
        label=detection.label,
        score=round(detection.score, 4),
        t_start=at_secs,
        t_end=at_secs,
        box=box,
        track=None if path is None else path.track,
        direction_deg=None if direction_deg is None else round(direction_deg) % 360,
        speed=None if path is None else round(path.speed, 3),
        note=detection.note,
    )
