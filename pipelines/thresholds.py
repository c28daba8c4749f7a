"""When scores become events, label by label: defaults that come from the recordings.

docs/senses.md says what each of them finds and misses.
"""

from collections.abc import Iterable, Mapping

from pydantic import ConfigDict, Field

from mmstream.config import Settings
from mmstream.heads.lifecycle import LabelSettings


class MotionEvents(LabelSettings):
    """Motion comes and goes with every step: wait for a little of it, bridge short rests."""

    for_secs: float = Field(0.2, ge=0, le=60)
    within_secs: float = Field(0.5, ge=0.05, le=60)
    min_off_secs: float = Field(1.5, ge=0, le=60)


class PresenceEvents(LabelSettings):
    """Whatever came in: wait for a little of it, bridge rests."""

    for_secs: float = Field(0.4, ge=0, le=60)
    within_secs: float = Field(1.0, ge=0.05, le=60)
    min_off_secs: float = Field(1.0, ge=0, le=60)


class PersonEvents(LabelSettings):
    """3 of 5 looks, two a second, by the same person."""

    for_secs: float = Field(1.3, ge=0, le=60)
    within_secs: float = Field(2.5, ge=0.05, le=60)
    min_off_secs: float = Field(2.0, ge=0, le=60)


class FaceEvents(LabelSettings):
    """2 of 4 looks, two a second: a face turns away sooner than a person leaves."""

    for_secs: float = Field(0.8, ge=0, le=60)
    within_secs: float = Field(2.0, ge=0.05, le=60)
    min_off_secs: float = Field(2.0, ge=0, le=60)


class LoudEvents(LabelSettings):
    """A knock lasts 20 ms, a sentence has pauses."""

    for_secs: float = Field(0.02, ge=0, le=60)
    within_secs: float = Field(0.1, ge=0.05, le=60)
    min_off_secs: float = Field(0.7, ge=0, le=60)


class SpeechEvents(LabelSettings):
    """Words, and the pauses between them."""

    on: float = Field(0.7, gt=0, le=1)
    for_secs: float = Field(0.32, ge=0, le=60)
    within_secs: float = Field(0.45, ge=0.05, le=60)
    min_off_secs: float = Field(0.6, ge=0, le=60)


class AlarmEvents(LabelSettings):
    """Bursts in groups, with pauses between; a group may be missed."""

    within_secs: float = Field(1.0, ge=0.05, le=60)
    for_secs: float = Field(0.4, ge=0, le=60)
    min_off_secs: float = Field(10.0, ge=0, le=60)


class CameraBlockedEvents(LabelSettings):
    """Films fade to black, hands wave past: longer than that."""

    for_secs: float = Field(1.5, ge=0, le=60)
    within_secs: float = Field(4.0, ge=0.05, le=60)
    min_off_secs: float = Field(2.0, ge=0, le=60)


class AudioLostEvents(LabelSettings):
    """Recordings are padded with up to 4.5 s of zeros: longer than that."""

    for_secs: float = Field(5.0, ge=0, le=60)
    within_secs: float = Field(8.0, ge=0.05, le=60)
    min_off_secs: float = Field(2.0, ge=0, le=60)


class PersonSpeakingEvents(LabelSettings):
    """Words of somebody who is seen, and the pauses between them."""

    for_secs: float = Field(0.4, ge=0, le=60)
    within_secs: float = Field(1.0, ge=0.05, le=60)
    min_off_secs: float = Field(1.0, ge=0, le=60)


class ImpactEvents(LabelSettings):
    """An instant."""

    for_secs: float = Field(0.02, ge=0, le=60)
    within_secs: float = Field(0.1, ge=0.05, le=60)
    min_off_secs: float = Field(0.5, ge=0, le=60)


class SoundEvents(LabelSettings):
    """What a model hears and sees, what it was taught, what is unusual: windows of 2 s.

    The best of those that `mmstream bench avp` tries.
    """

    for_secs: float = Field(1.0, ge=0, le=60)
    within_secs: float = Field(2.0, ge=0.05, le=60)


class EventsSettings(Settings):
    """When scores of a label become an event; further keys are the labels of models."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, SoundEvents] = Field(init=False)

    motion: MotionEvents = MotionEvents()
    presence: PresenceEvents = PresenceEvents()
    person: PersonEvents = PersonEvents()
    face: FaceEvents = FaceEvents()
    loud: LoudEvents = LoudEvents()
    speech: SpeechEvents = SpeechEvents()
    alarm: AlarmEvents = AlarmEvents()
    camera_blocked: CameraBlockedEvents = CameraBlockedEvents()
    audio_lost: AudioLostEvents = AudioLostEvents()
    person_speaking: PersonSpeakingEvents = PersonSpeakingEvents()
    impact: ImpactEvents = ImpactEvents()

    @property
    def of_models(self) -> Mapping[str, SoundEvents]:
        """Those of the labels of models, as far as they are set."""
        return self.__pydantic_extra__

    def by_label(self, names: Iterable[str]) -> dict[str, LabelSettings]:
        """Those of each of the labels, set or not."""
        own = type(self).model_fields
        return {
            name: getattr(self, name) if name in own else self.of_models.get(name, SoundEvents())
            for name in names
        }
