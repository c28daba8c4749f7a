"""Captions of speech: the settings of `mmstream.recognition.transcriber`.

speech: {}
speech: {recogniser: {type: moonshine, weights: UsefulSensors/moonshine-streaming-tiny}}
"""

from typing import Annotated

from pydantic import Field

from mmstream.clock import SystemClock
from mmstream.config import Settings
from mmstream.media import Label
from mmstream.models.speech_settings import MoonshineSettings, WhisperSettings
from mmstream.recognition.commit import CommitSettings
from mmstream.recognition.sphinx_settings import PocketsphinxSettings
from mmstream.recognition.transcriber import Transcriber
from mmstream.recognition.utterances import CuttingRules

AnyRecogniser = Annotated[
    PocketsphinxSettings | WhisperSettings | MoonshineSettings, Field(discriminator="type")
]
"""The settings of a recogniser, told apart by `type`."""


class SpeechCaptions(Settings):
    """The spec of `Transcriber` (`ScorerSpec`). It rests on the scores of `speech`."""

    recogniser: AnyRecogniser = PocketsphinxSettings()
    """What makes words of sound."""
    commit: CommitSettings = CommitSettings()
    """When words are certain enough to stay."""
    pause_secs: float = Field(default=0.5, ge=0.2, le=3)
    """How long nobody must speak for an utterance to be over; those longer than 10 s end sooner."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """None: words are no label."""
        return ()

    def build(self, device: str) -> Transcriber:
        """Build the recogniser on a thread of its own, and wait for it.

        Raises:
            ScorerError: what it needs is not there.
        """
        rules = CuttingRules(pause_secs=self.pause_secs)
        return Transcriber(self.recogniser, device, rules, self.commit.build, SystemClock())
