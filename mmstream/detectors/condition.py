"""Condition: can the camera still see, can the microphone still hear?

    camera_blocked   black, frozen, covered, blurred       (`condition_video`)
    audio_lost       dead, clipping, dc, hum               (`condition_audio`)

The note of each detection says which. Both labels speak of the instrument, not of the place: a
recording whose sound track is digital silence from start to end is `audio_lost`, and a camera in
a room without any light is `black`, because nobody can tell what happens there.

Give the head 1.5 s of 4 s for `camera_blocked` (films fade to black, hands wave past) and 5 s of
8 s for `audio_lost` (recordings are padded with up to 4.5 s of zeros).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from mmstream.config import Settings
from mmstream.detectors.condition_audio import AudioCondition
from mmstream.detectors.condition_video import VideoCondition
from mmstream.media import Detection, Hop, Label, Modality, Scores, Series
from mmstream.stages import Load

CAMERA_BLOCKED: Final = Label("camera_blocked", "video", "condition")
AUDIO_LOST: Final = Label("audio_lost", "audio", "condition")

_DECISION: Final = 0.5


class ConditionSettings(Settings):
    """The spec of `ConditionScorer` (`ScorerSpec`); there is nothing to set."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """`camera_blocked` and `audio_lost`."""
        return (CAMERA_BLOCKED, AUDIO_LOST)

    def build(self, device: str) -> "ConditionScorer":  # noqa: ARG002 - always on the CPU
        """Make it."""
        return ConditionScorer()


@dataclass(frozen=True, slots=True)
class _Instruments:
    """Those of one source."""

    video: VideoCondition = field(default_factory=VideoCondition)
    audio: AudioCondition = field(default_factory=AudioCondition)


class ConditionScorer:
    """Scores `camera_blocked` 4 times a second and `audio_lost` twice (`Scorer`).

    All loads are alike: it costs 0.2 % of a core, and who sheds load wants to know of this.
    """

    def __init__(self) -> None:
        """Nothing is known."""
        self._sources: dict[str, _Instruments] = {}

    def score(
        self,
        hops: Sequence[Hop],
        so_far: Sequence[Scores],  # noqa: ARG002 - rests on no other scorer
        load: Load,  # noqa: ARG002 - see the class
    ) -> Sequence[Scores]:
        """[t] scores at instants of frames, and at starts of blocks of 0.5 s of sound.

        `camera_blocked` goes back to where the picture froze once that is known. No output: no
        picture was due; no block of sound was completed.
        """
        return [self._score(hop) for hop in hops]

    def forget(self, source: str) -> None:
        """Learn anew what is usual for the source."""
        self._sources.pop(source, None)

    def _score(self, hop: Hop) -> Scores:
        known = self._sources.setdefault(hop.source, _Instruments())
        states = ((CAMERA_BLOCKED, known.video.see(hop)), (AUDIO_LOST, known.audio.hear(hop)))
        outputs: dict[str, Series] = {}
        found: list[Detection] = []
        for label, seen in states:
            if not seen:
                continue
            at_ns = np.array([state.at_ns for state in seen], np.int64)
            values = np.array([state.score for state in seen], np.float32)
            outputs[label.name] = Series(at_ns, values)
            modality: Modality = "video" if label is CAMERA_BLOCKED else "audio"
            found += [
                Detection(
                    label.name, state.at_ns, modality, label.detector, state.score, note=state.fault
                )
                for state in seen
                if state.score >= _DECISION
            ]
        return Scores(hop.source, hop.index, hop.span, outputs, tuple(found))
