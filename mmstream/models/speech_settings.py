"""Speech to text by networks: which weights, which language.

    recogniser: {type: whisper, weights: openai/whisper-tiny.en}
    recogniser: {type: whisper, weights: openai/whisper-large-v3-turbo, language: de}
    recogniser: {type: moonshine, weights: UsefulSensors/moonshine-streaming-tiny}

Apart from the networks (`mmstream.models.pretrained_whisper`, `pretrained_moonshine`), so that who
only reads a configuration need load neither torch nor transformers.
"""

from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from mmstream.config import Settings
from mmstream.stages import Recogniser

AUTO: Final = "auto"
"""The language that is not told but heard."""

_LANGUAGE: Final = r"^(auto|[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*)$"


class _SpeechSettings(Settings):
    """What both have."""

    weights: str = Field(min_length=1)
    """A folder as `save_pretrained` writes it, or the id of a repository of the hub. Only its
    safetensors are read, and none of its code."""
    partial_secs: float = Field(default=0.5, gt=0, le=20)
    """How much more must have been heard of an utterance before it is asked again."""

    @property
    def name(self) -> str:
        """What health and counters call it: the folder's or the repository's own name."""
        return Path(self.weights).name or self.weights


class WhisperSettings(_SpeechSettings):
    """Whisper (Radford et al. 2022) of any size, and what was distilled from it (`RecogniserSpec`).

    Each call costs an encoder pass over 30 s, however short the utterance is.
    """

    type: Literal["whisper"] = "whisper"
    language: str = Field(default="en", pattern=_LANGUAGE)
    """BCP 47, or `auto`: heard anew in each take. What is allowed depends on the weights."""

    def build(self, device: str) -> Recogniser:
        """Load the weights.

        Raises:
            ScorerError: they cannot be had, are of another model, or do not know the language.
        """
        from mmstream.models.pretrained_whisper import WhisperRecogniser  # noqa: PLC0415 - above

        return WhisperRecogniser(self, device)


class MoonshineSettings(_SpeechSettings):
    """Moonshine (Jeffries et al. 2024) and Moonshine streaming (`RecogniserSpec`).

    A call costs in proportion to the sound. A model knows one language, which its files do not
    say: what is set here is believed.
    """

    type: Literal["moonshine"] = "moonshine"
    language: str = Field(default="en", pattern=_LANGUAGE.replace("auto|", ""))
    """BCP 47: what the weights were trained on."""

    def build(self, device: str) -> Recogniser:
        """Load the weights.

        Raises:
            ScorerError: they cannot be had, or are of another model.
        """
        from mmstream.models.pretrained_moonshine import (  # noqa: PLC0415 - above
            MoonshineRecogniser,
        )

        return MoonshineRecogniser(self, device)
