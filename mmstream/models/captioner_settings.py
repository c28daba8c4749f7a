"""Captioners of the transformers library: which folder or hub repository, and what it is asked.

    captioner: {weights: HuggingFaceTB/SmolVLM2-256M-Video-Instruct}
    captioner: {weights: /srv/models/florence-2, prompt: <DETAILED_CAPTION>}

Only settings are here: the library takes seconds to import.
"""

from pathlib import PurePath

from pydantic import Field

from mmstream.config import Settings
from mmstream.stages import Captioner


class CaptionerSettings(Settings):
    """BLIP, GIT, Florence-2 or SmolVLM2 (`CaptionerSpec`)."""

    weights: str = Field(min_length=1)
    """A folder as `save_pretrained` writes it, or the id of a repository of the hub. Only its
    safetensors are read, and none of its code."""
    prompt: str | None = Field(default=None, min_length=1, max_length=500)
    """What it is asked. For BLIP and GIT the beginning of the sentence: none, if not told; for
    Florence-2 a task: `<CAPTION>`; for SmolVLM2 a request: one short sentence."""
    max_words: int = Field(default=25, ge=1, le=100)
    """Words in a sentence, at most; what is longer is cut."""

    @property
    def name(self) -> str:
        """The last part of `weights`."""
        return PurePath(self.weights).name or self.weights

    def build(self, device: str) -> Captioner:
        """Load it; on the thread that will use it.

        Raises:
            ScorerError: the weights cannot be had, or are of no captioner.
        """
        from mmstream.models.pretrained_captioner import PretrainedCaptioner  # noqa: PLC0415 - above

        return PretrainedCaptioner(self, device)
