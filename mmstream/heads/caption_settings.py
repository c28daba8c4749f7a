"""How captions of sound and of the scene are made."""

from typing import Annotated

from pydantic import Field

from mmstream.config import Settings

SoundText = Annotated[str, Field(pattern=r"^[^\s\[\]]([^\[\]\r\n]{0,78}[^\s\[\]])?$")]
"""What stands in the brackets: one line without brackets, at most 80 characters."""


class SoundCaptions(Settings):
    """What is heard, in brackets: `[dog barking]`."""

    texts: dict[str, SoundText] = Field(default_factory=dict)
    """What is said of a label, without the brackets; a label with a text is always told."""
    left_out: tuple[str, ...] = (
        "speech",
        "person_speaking",
        "loud",
        "audio_lost",
        "out_of_sync",
        "unusual",
    )
    """Labels with sound that have no caption, unless `texts` names them."""
    repeat_secs: float = Field(10.0, ge=0, le=3600)
    """A label is not told again until it was over for this long."""


class SceneCaptions(Settings):
    """What is seen, as a short sentence when it changes."""

    settled_secs: float = Field(1.0, ge=0, le=60)
    """What is new is told once it has been so for this long."""
    gone_secs: float = Field(4.0, ge=0, le=600)
    """Who is lost is told of once this long has passed: detectors miss people who are there.
    Sooner, after `settled_secs`, where motion and presence end with them."""
    every_secs: float = Field(4.0, ge=0.5, le=3600)
    """At most one sentence in this time; the newest state wins."""
