r"""Somebody in sight speaks: speech is heard, a face or person is seen, and they fit together.

At each instant of `speech`, for each face and for each person whose face is not seen:

    base = min(speech, seen)         both must be at least 0.5
    what the mouth says of it, where the face is at least `min_face_px` wide:
      still     0.4 base             "off screen: no mouth moves with it"
      misfit    0.75 base            "sound does not fit the mouth": moves, but not with the sound
      moves     base
      fits      up to halfway to 1   "mouth moves with the speech"
    nothing, where the face is smaller, or nothing can be said yet: base

The score is that of the one with the highest; what it rests on is told with the box of that one.
A mouth is judged by 2 s of motion (`mmstream.detectors.mouths`), once half a second of speech lies
in them. Until then, at most `_PATIENCE_NS`, scores are withheld and then told for the time at which
they were true: else whatever is heard would be said by whoever is looked at, for a second.

Where nobody is in sight the score is 0. If so for `_ALONE_NS`, that is told with `speech` itself;
so is a mouth that does not move. "Nobody in sight" means that nobody was found.
All of this needs pictures, `speech`, and someone who looks for `person` or `face`: without these
two leave this out too, for it cannot tell that nobody is there from that nobody has looked.

`Fused`: without sound nothing is known to be said, without sight nobody to be there. Each sense is
all of the score (1 and 1), and a score of 0 has none. The offset is that of a mouth that fits.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from pydantic import Field

from mmstream.config import Settings
from mmstream.detectors.mouths import Ear, Envelope, Mouth
from mmstream.detectors.sight import FACE, HOLD_NS, Body, Sight, points
from mmstream.media import (
    NS_PER_SEC,
    Detection,
    Fused,
    Hop,
    Label,
    Scores,
    Series,
    VideoFrame,
)
from mmstream.stages import Load

PERSON_SPEAKING: Final = Label("person_speaking", "av", "speaking")

FITS: Final = "mouth moves with the speech"
MISFIT: Final = "sound does not fit the mouth"
STILL: Final = "off screen: no mouth moves with it"
ALONE: Final = "off screen: nobody in sight"

_SPEECH: Final = "speech"
_DECISION: Final = 0.5
_FORGET_NS: Final = 3 * NS_PER_SEC
_ALONE_NS: Final = 2 * NS_PER_SEC
"""Who has just come in or turned round may not have been found yet."""
_PATIENCE_NS: Final = 5 * NS_PER_SEC // 4
_JUDGE_NS: Final = 120_000_000
_LEAST_SPEECH_NS: Final = NS_PER_SEC // 2
_SPEECH_STEP_NS: Final = 32_000_000
"""How far apart the instants of `speech` are."""

_STILL_MOTION: Final = 0.04
_STILL_SHARE: Final = 0.4
_MISFIT_SHARE: Final = 0.75
_LEAST_R: Final = 0.05
_R_PER_SWING: Final = 0.18
_R_BIAS: Final = -0.42
_FIT_MARGIN: Final = 0.28
_FULL_MARGIN: Final = 0.7
"""The least agreement, `_R_BIAS` + `_R_PER_SWING` * swing, is 0.17 where the envelope goes from
silence to speech (GRID's sentences: a swing of 3.3), as then any mouth that opens agrees with it;
within speech that goes on (2.3) it is 0.05. Set so low because GRID's other speakers agree less
than the one whose 1000 clips this was measured with. A mouth fits from `_FIT_MARGIN` above on."""


class PersonSpeakingSettings(Settings):
    """The spec of `PersonSpeakingScorer` (`ScorerSpec`)."""

    min_face_px: int = Field(64, ge=32, le=4096)
    """The mouths of faces at least so many pixels wide are watched."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """`person_speaking`."""
        return (PERSON_SPEAKING,)

    def build(self, device: str) -> "PersonSpeakingScorer":  # noqa: ARG002 - always on the CPU
        """Make it."""
        return PersonSpeakingScorer(self)


class PersonSpeakingScorer:
    """Scores `person_speaking` at the instants of `speech` (`Scorer`).

    `Load.STRETCHED` changes nothing. Under `Load.INGEST` sound and mouths are followed for as long
    as it is known where the faces are.
    """

    def __init__(self, settings: PersonSpeakingSettings) -> None:
        """Nobody has been seen or heard."""
        self._settings = settings
        self._rooms: dict[str, _Room] = {}

    def score(self, hops: Sequence[Hop], so_far: Sequence[Scores], load: Load) -> Sequence[Scores]:
        """[t] scores at instants of `speech`, rising within a source; some from before the hop.

        No output: no `speech` or no pictures, sound and sight not known to be on one clock, or a
        mouth is still to be judged.
        """
        return [self._score(*one, load) for one in zip(hops, so_far, strict=True)]

    def forget(self, source: str) -> None:
        """Nobody has been seen or heard there."""
        self._rooms.pop(source, None)

    def _score(self, hop: Hop, known: Scores, load: Load) -> Scores:
        nothing = Scores(hop.source, hop.index, hop.span)
        if hop.gap_before or not hop.synced:
            self.forget(hop.source)
        if not hop.synced:
            return nothing
        room = self._rooms.setdefault(hop.source, _Room(self._settings.min_face_px))
        room.take(hop, known)
        if load is Load.INGEST:
            room.skip()
            return nothing
        speech = known.outputs.get(_SPEECH)
        heard = [] if speech is None else points(speech)
        told = [one for at_ns, value in heard for one in room.hear(at_ns, value)]
        told += room.overdue(hop.span.start_ns)
        if not told:
            return nothing
        at_ns = np.array([one.at_ns for one in told], np.int64)
        values = np.array([one.score for one in told], np.float32)
        found = [detection for one in told for detection in one.detections()]
        # The speech of an earlier hop has been said: no evidence can join it any more.
        first_ns = heard[0][0] if heard else hop.span.end_ns
        found += [one.aside for one in told if one.aside and one.at_ns >= first_ns]
        strongest = max(told, key=lambda one: one.score)
        made_of = Fused(1.0, 1.0, offset_ns=strongest.offset_ns)
        return Scores(
            hop.source,
            hop.index,
            hop.span,
            {PERSON_SPEAKING.name: Series(at_ns, values)},
            tuple(found),
            fused={PERSON_SPEAKING.name: made_of} if strongest.body else {},
        )


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a mouth says of the speech."""

    note: str | None = None
    margin: float = 0.0
    """By how much more than it must at least they agree."""
    offset_ns: int | None = None
    """How long after the mouth the sound came, where they fit."""

    def applied(self, base: float) -> float:
        """The score of whoever has this mouth."""
        if self.note == STILL:
            return _STILL_SHARE * base
        if self.note == MISFIT:
            return _MISFIT_SHARE * base
        if self.note == FITS and base >= _DECISION:
            return base + (1 - base) * min(1.0, self.margin / _FULL_MARGIN) / 2
        return base


_UNKNOWN: Final = _Verdict()


@dataclass(frozen=True, slots=True)
class _Told:
    """A score, and what it rests on."""

    at_ns: int
    score: float
    speech: float
    body: Body | None
    verdict: _Verdict
    is_alone: bool

    @property
    def offset_ns(self) -> int | None:
        """How long after the mouth the sound came, where they fit."""
        return self.verdict.offset_ns

    @property
    def aside(self) -> Detection | None:
        """What must be said of the speech itself."""
        is_still = self.body is not None and self.verdict.note == STILL
        if self.speech < _DECISION or not (self.is_alone or is_still):
            return None
        note, by = STILL if is_still else ALONE, PERSON_SPEAKING.detector
        return Detection(_SPEECH, self.at_ns, "video", by, self.speech, note=note)

    def detections(self) -> list[Detection]:
        """Who speaks, and that speech is heard; nothing where it is not so."""
        if self.body is None or min(self.speech, self.body.score) < _DECISION:
            return []
        name, by = PERSON_SPEAKING.name, PERSON_SPEAKING.detector
        box, path, note = self.body.box, self.body.path, self.verdict.note
        return [
            Detection(name, self.at_ns, "video", by, self.score, box, path, note),
            Detection(name, self.at_ns, "audio", _SPEECH, self.speech),
        ]


@dataclass(frozen=True, slots=True)
class _Heard:
    """An instant of speech that waits for its score."""

    at_ns: int
    speech: float
    bodies: tuple[Body, ...]
    is_alone: bool

    def told(self, verdicts: Mapping[int, _Verdict | None]) -> _Told:
        """Its score, now that it is known what the mouths say."""
        best = _Told(self.at_ns, 0.0, self.speech, None, _UNKNOWN, self.is_alone)
        for body in self.bodies:
            verdict = _UNKNOWN
            if body.label == FACE:
                verdict = verdicts.get(body.path.track) or _UNKNOWN
            score = verdict.applied(min(self.speech, body.score))
            if score > best.score:
                best = _Told(self.at_ns, score, self.speech, body, verdict, self.is_alone)
        return best


@dataclass(slots=True)
class _Room:
    """One source: who is in sight, what is heard, and what waits for a mouth to be judged."""

    min_face_px: int
    _sight: Sight = field(default_factory=Sight)
    _ear: Ear = field(default_factory=Ear)
    _mouths: dict[int, Mouth] = field(default_factory=dict)
    _frames: deque[int] = field(default_factory=deque)
    """Instants of the last pictures."""
    _before: VideoFrame | None = None
    _speech_ns: deque[int] = field(default_factory=deque)
    """Instants at which there was speech lately."""
    _waiting: list[_Heard] = field(default_factory=list)
    _gave_up_ns: int | None = None
    _alone_since_ns: int | None = None
    _verdicts: dict[int, _Verdict | None] = field(default_factory=dict)
    _judged_ns: int | None = None

    def take(self, hop: Hop, known: Scores) -> None:
        """Follow faces, their mouths and the sound through a hop."""
        self._sight.take(known)
        for frame in hop.frames:
            self._see(frame)
        if self._mouths and hop.samples.size:
            self._ear.hear(hop)
        oldest_ns = hop.span.start_ns - _FORGET_NS
        while self._frames and self._frames[0] < oldest_ns:
            self._frames.popleft()
        while self._speech_ns and self._speech_ns[0] < oldest_ns:
            self._speech_ns.popleft()

    def skip(self) -> None:
        """Nothing is scored just now: what waits has no chance to be told in time."""
        self._waiting.clear()

    def hear(self, at_ns: int, speech: float) -> list[_Told]:
        """The next instant of speech; gives the scores that are settled by it."""
        if not any(0 <= at_ns - seen_ns <= HOLD_NS for seen_ns in reversed(self._frames)):
            self._alone_since_ns = None
            return self._tell()
        bodies = tuple(one for one in self._sight.bodies(at_ns) if one.is_steady)
        if bodies:
            self._alone_since_ns = None
        elif self._alone_since_ns is None:
            self._alone_since_ns = at_ns
        alone_ns = at_ns - (at_ns if self._alone_since_ns is None else self._alone_since_ns)
        if speech >= _DECISION:
            self._speech_ns.append(at_ns)
        is_open = speech >= _DECISION or bool(self._waiting)
        self._waiting.append(_Heard(at_ns, speech, bodies, alone_ns >= _ALONE_NS))
        if is_open:
            self._judge(at_ns)
            if self._must_wait(at_ns, bodies):
                return []
        return self._tell()

    def overdue(self, at_ns: int) -> list[_Told]:
        """What waits although no speech, nor silence, was heard for long: the sound is lost."""
        if not self._waiting or at_ns - self._waiting[0].at_ns <= _PATIENCE_NS + HOLD_NS:
            return []
        return self._tell()

    def _tell(self) -> list[_Told]:
        told = [one.told(self._verdicts) for one in self._waiting]
        self._waiting.clear()
        return told

    def _must_wait(self, at_ns: int, bodies: Sequence[Body]) -> bool:
        """Whether a mouth is still to be judged, and there is hope that it will be."""
        tracks = {body.path.track for body in bodies if body.label == FACE}
        if all(self._verdicts.get(track, _UNKNOWN) is not None for track in tracks):
            return False
        if self._gave_up_ns is not None and at_ns - self._gave_up_ns < _FORGET_NS:
            return False
        if at_ns - self._waiting[0].at_ns < _PATIENCE_NS:
            return True
        self._gave_up_ns = at_ns
        return False

    def _see(self, frame: VideoFrame) -> None:
        faces = [one for one in self._sight.bodies(frame.start_ns) if one.label == FACE]
        boxes = {face.path.track: face.box for face in faces if face.box is not None}
        large = {
            track: box
            for track, box in boxes.items()
            if box.width * frame.image.width >= self.min_face_px
        }
        self._mouths = {t: self._mouths.get(t, Mouth()) for t in large}
        for track, box in large.items():
            self._mouths[track].see(frame, self._before, box)
        self._frames.append(frame.start_ns)
        self._before = frame

    def _judge(self, at_ns: int) -> None:
        last_ns = self._judged_ns
        is_same = self._verdicts.keys() == self._mouths.keys()
        if is_same and last_ns is not None and at_ns - last_ns < _JUDGE_NS:
            return
        self._judged_ns = at_ns
        envelope = self._ear.envelope() if self._mouths else None
        self._verdicts = {
            track: self._verdict(mouth, envelope, at_ns) if envelope else None
            for track, mouth in self._mouths.items()
        }

    def _verdict(self, mouth: Mouth, envelope: Envelope, at_ns: int) -> _Verdict | None:
        """None: too little was seen or heard so far."""
        moves = mouth.last(at_ns)
        if moves is None:
            return None
        first_ns, last_ns = int(moves.at_ns[0]), int(moves.at_ns[-1])
        speech_ns = [one for one in self._speech_ns if first_ns <= one <= last_ns]
        if len(speech_ns) * _SPEECH_STEP_NS < _LEAST_SPEECH_NS:
            return None
        if moves.level((speech_ns[0], speech_ns[-1])) < _STILL_MOTION:
            return _Verdict(STILL)
        agreement = moves.agreement(envelope)
        if agreement is None:
            return None
        least_r = max(_LEAST_R, _R_BIAS + _R_PER_SWING * agreement.swing)
        margin = agreement.r - least_r
        if margin >= _FIT_MARGIN:
            return _Verdict(FITS, margin, agreement.offset_ns)
        return _Verdict(MISFIT if margin < 0 else None)
