"""pocketsphinx as a recogniser: nothing to download; see `mmstream.recognition.sphinx`.

Apart from it, so that who only reads a configuration starts no process.
"""

from typing import Final, Literal

from pydantic import field_validator

from mmstream.config import Settings
from mmstream.stages import Recogniser

_LANGUAGE: Final = "en-US"


class PocketsphinxSettings(Settings):
    """The spec of `Pocketsphinx` (`RecogniserSpec`): lower case, no punctuation, US English."""

    type: Literal["pocketsphinx"] = "pocketsphinx"
    """Which recogniser."""
    language: str = _LANGUAGE
    """BCP 47; only en-US, the model that comes with pocketsphinx."""

    @field_validator("language")
    @classmethod
    def _is_known(cls, language: str) -> str:
        if language != _LANGUAGE:
            msg = (
                f"pocketsphinx understands {_LANGUAGE} only (got {language!r}); "
                "allowed for others: type whisper or moonshine, with weights"
            )
            raise ValueError(msg)
        return language

    @property
    def name(self) -> str:
        """`pocketsphinx`."""
        return self.type

    @property
    def partial_secs(self) -> float:
        """0: it decodes only what is new, so it may be asked at each hop."""
        return 0.0

    def build(self, device: str) -> Recogniser:  # noqa: ARG002 - it knows no other than the CPU
        """Start its process.

        Raises:
            ScorerError: it does not come up.
        """
        from mmstream.recognition.sphinx import Pocketsphinx  # noqa: PLC0415 - see the module

        return Pocketsphinx(self.language)
