"""Speech: somebody talks, whoever it is and whatever the language; see `mmstream.detectors.silero`.

Apart from it, so that who only reads a configuration need not load torch.
"""

from typing import Final

from mmstream.config import Settings
from mmstream.media import Label
from mmstream.stages import Scorer

SPEECH: Final = Label("speech", "audio", "silero")
SPEECH_RATE_HZ: Final = 16_000
"""What the network was trained on."""


class SpeechSettings(Settings):
    """The spec of `SpeechScorer` (`ScorerSpec`); there is nothing to set."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """`speech`."""
        return (SPEECH,)

    def build(self, device: str) -> Scorer:  # noqa: ARG002 - too small for a device
        """Load the weights and compute on the calling thread only.

        Raises:
            ScorerError: the weights are not there.
        """
        from mmstream.detectors.silero import speech_scorer  # noqa: PLC0415 - see the module

        return speech_scorer()
