"""What a YAML file in `configs/` may say: the schema of a whole configuration."""

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from mmstream import config, messages
from mmstream.config import Settings
from mmstream.detectors.alarm import AlarmSettings
from mmstream.detectors.condition import ConditionSettings
from mmstream.detectors.face import FaceSettings
from mmstream.detectors.impact import ImpactSettings
from mmstream.detectors.loudness import LoudnessSettings
from mmstream.detectors.masks import Polygon
from mmstream.detectors.motion import MotionSettings
from mmstream.detectors.person import PersonSettings
from mmstream.detectors.presence import PresenceSettings
from mmstream.detectors.speaking import PersonSpeakingSettings
from mmstream.detectors.speech import SPEECH_RATE_HZ, SpeechSettings
from mmstream.errors import ConfigError, ScorerError
from mmstream.heads.caption_settings import SceneCaptions, SoundCaptions
from mmstream.messages import ID_PATTERN, RESERVED_SOURCES
from mmstream.models.avp_spec import AvpSpec
from mmstream.models.mmt_spec import MmtSpec
from mmstream.pipelines.thresholds import EventsSettings
from mmstream.recognition.describer import SceneCaptioner
from mmstream.recognition.spec import SpeechCaptions
from mmstream.runtime.snapshots import SnapshotSettings
from mmstream.sinks.jsonl import STDOUT, JsonlSettings
from mmstream.sinks.mqtt import MqttSettings
from mmstream.sinks.spool import StoreSettings
from mmstream.sinks.subtitles import SubtitlesSettings
from mmstream.sources.media import MediaSettings
from mmstream.sources.microphone import MicrophoneSettings
from mmstream.sources.network import NetworkSettings
from mmstream.sources.synthetic import SyntheticSettings
from mmstream.sources.webcam import WebcamSettings
from mmstream.web.settings import WebSettings
from mmstream.windows import HopSettings
from mmstream.worker import WorkerSettings
from mmstream.yaml_tree import nearest

SHIPPED: Final = Path(config.__file__).parent / "configs"
"""The configurations in the wheel; each is run by its name."""


def _not_reserved(name: str) -> str:
    if name in RESERVED_SOURCES:
        msg = f"{name!r} is a topic of the node itself; reserved: {sorted(RESERVED_SOURCES)}"
        raise ValueError(msg)
    return name


SourceId = Annotated[str, Field(pattern=ID_PATTERN), AfterValidator(_not_reserved)]


class DeskSettings(WebcamSettings):
    """A webcam, and a microphone beside it if you like: one source on one clock."""

    microphone: MicrophoneSettings | Literal[False] = False
    """What hears for the camera; `{}` takes the default microphone."""


SourceSettings = Annotated[
    MediaSettings | NetworkSettings | DeskSettings | MicrophoneSettings | SyntheticSettings,
    Field(discriminator="type"),
]


class DetectorSettings(Settings):
    """The detectors, in the order in which they score; `false` switches one off."""

    motion: MotionSettings | Literal[False] = MotionSettings()
    """Something moves in the picture."""
    presence: PresenceSettings | Literal[False] = PresenceSettings()
    """Something came in and is still there, whatever it is."""
    person: PersonSettings | Literal[False] = PersonSettings()
    """A person, each followed; looked for where `motion` or `presence` see something."""
    face: FaceSettings | Literal[False] = FaceSettings()
    """A face that looks at the camera, each followed."""
    loud: LoudnessSettings | Literal[False] = LoudnessSettings()
    """Something is louder than what is usual here."""
    speech: SpeechSettings | Literal[False] = SpeechSettings()
    """Somebody talks; heard at `hops.rate_hz` 16000 only."""
    alarm: AlarmSettings | Literal[False] = AlarmSettings()
    """A smoke or gas alarm sounds its pattern."""
    condition: ConditionSettings | Literal[False] = ConditionSettings()
    """The camera is blocked, the microphone lost."""
    person_speaking: PersonSpeakingSettings | Literal[False] = PersonSpeakingSettings()
    """Speech while somebody is seen; rests on `speech`, `person` and `face`."""
    impact: ImpactSettings | Literal[False] = ImpactSettings()
    """Something hits something, seen and heard."""
    avp: AvpSpec | Literal[False] = AvpSpec()
    """What a model has learned to tell from sound and sight, such as the bark of a dog; heard at
    the model's own rate only, 16000 for `avp-small`."""
    mmt: MmtSpec | Literal[False] = False
    """What a model of `mmstream train` tells from sound, sight and the words that were said; these
    come from `captions.speech`."""

    @model_validator(mode="after")
    def _somebody_says_what_is_in_front(self) -> Self:
        if self.motion is not False or self.presence is not False:
            return self
        for name, settings in (("person", self.person), ("face", self.face)):
            if settings is not False and settings.only_foreground:
                msg = (
                    f"{name} looks only where motion or presence see something, and both are off; "
                    f"allowed: {name}: {{only_foreground: false}}, or {name}: false"
                )
                raise ValueError(msg)
        return self

    def masks(self, source: str) -> tuple[Polygon, ...]:
        """All that is to be ignored in the pictures of a source."""
        watching = [one for one in (self.motion, self.presence) if one is not False]
        return tuple(polygon for one in watching for polygon in one.masks.get(source, ()))

    @property
    def masked_sources(self) -> frozenset[str]:
        """Those whose pictures have places to ignore."""
        watching = [one for one in (self.motion, self.presence) if one is not False]
        return frozenset(name for settings in watching for name in settings.masks)


class CaptionsSettings(Settings):
    """What is said, heard and seen, as text; `false` leaves a kind out."""

    speech: SpeechCaptions | Literal[False] = SpeechCaptions()
    """What is said; rests on `detectors.speech`."""
    sounds: SoundCaptions | Literal[False] = SoundCaptions()
    """What is heard besides, from events: `[dog barking]`."""
    scene: SceneCaptions | Literal[False] = SceneCaptions()
    """What is seen, as short sentences out of a small grammar, or of `descriptions`."""
    descriptions: SceneCaptioner | Literal[False] = False
    """A captioner that describes pictures, where there are weights of one."""

    @model_validator(mode="after")
    def _descriptions_are_told(self) -> Self:
        if self.descriptions is not False and self.scene is False:
            msg = (
                "descriptions are told as captions of the scene, and scene is off; "
                "allowed: scene: {}, or descriptions: false"
            )
            raise ValueError(msg)
        return self


class SinkSettings(Settings):
    """Where messages go; one that is left out is not used."""

    mqtt: MqttSettings | None = None
    """An MQTT broker."""
    jsonl: JsonlSettings | None = None
    """A file of JSON lines, or standard output."""
    subtitles: SubtitlesSettings | None = None
    """A file of subtitles that grows while it runs."""

    @property
    def writes_to_stdout(self) -> bool:
        """Whether JSON lines go to standard output."""
        return self.jsonl is not None and self.jsonl.path == STDOUT


class Configuration(Settings):
    """A whole configuration."""

    node: str = Field("mmstream", pattern=ID_PATTERN)
    """Whose messages these are: topics begin with `mmstream/<node>`."""
    sources: dict[SourceId, SourceSettings] = Field(min_length=1)
    """What to watch and listen to, by name."""
    hops: HopSettings = HopSettings()
    """How time is cut."""
    detectors: DetectorSettings = DetectorSettings()
    events: EventsSettings = EventsSettings()
    captions: CaptionsSettings | Literal[False] = False
    """Text of what is said, heard and seen; `{}` takes the defaults, `false` tells events only."""
    worker: WorkerSettings = WorkerSettings()
    sinks: SinkSettings = SinkSettings()
    store: StoreSettings | Literal[False] = StoreSettings()
    """Where `run` keeps what happened, and what has to wait for the broker; `false`: nowhere."""
    snapshots: SnapshotSettings | Literal[False] = False
    """Pictures of what happens, for all who may read at the broker; `{}` switches them on."""
    web: WebSettings | Literal[False] = WebSettings()
    """Metrics and health over HTTP, while it runs; `false` serves nothing."""

    @model_validator(mode="after")
    def _masks_are_of_sources(self) -> Self:
        masked = set(self.detectors.masked_sources)
        if self.captions is not False and self.captions.descriptions is not False:
            masked |= self.captions.descriptions.masks.keys()
        for name in sorted(masked - self.sources.keys()):
            msg = f"masks of {name!r}, which is no source; there are: {', '.join(self.sources)}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _snapshots_go_somewhere(self) -> Self:
        if self.snapshots is not False and self.sinks.mqtt is None:
            msg = (
                "snapshots are published by a broker, and there is none; "
                "allowed: sinks.mqtt, or snapshots: false"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _speech_can_be_heard(self) -> Self:
        if self.detectors.speech is not False and self.hops.rate_hz != SPEECH_RATE_HZ:
            msg = (
                f"speech is heard at {SPEECH_RATE_HZ} Hz only, and hops.rate_hz is "
                f"{self.hops.rate_hz}; allowed: {SPEECH_RATE_HZ}, or detectors.speech: false"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _captions_rest_on_something(self) -> Self:
        captions = self.captions
        if captions is False or captions.speech is False or self.detectors.speech is not False:
            return self
        msg = (
            "captions.speech rests on detectors.speech, which is off; "
            "allowed: detectors.speech: {}, or captions.speech: false"
        )
        raise ValueError(msg)

    @model_validator(mode="after")
    def _the_models_can_hear(self) -> Self:
        for key, spec in (("avp", self.detectors.avp), ("mmt", self.detectors.mmt)):
            if spec is False:
                continue
            try:
                rate_hz = spec.rate_hz
            except ScorerError as error:
                raise ValueError(str(error)) from None
            if rate_hz not in (None, self.hops.rate_hz):
                msg = (
                    f"{spec.name} hears at {rate_hz} Hz only, and hops.rate_hz is "
                    f"{self.hops.rate_hz}; allowed: {rate_hz}, or detectors.{key}: false"
                )
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _events_are_of_labels(self) -> Self:
        if not self.events.of_models:
            return self
        avp, mmt = self.detectors.avp, self.detectors.mmt
        said = () if avp is False else avp.of_node(self.node).labels
        said += () if mmt is False else mmt.labels
        allowed = [*type(self.events).model_fields, *(label.name for label in said)]
        unknown = [name for name in self.events.of_models if name not in allowed]
        if unknown:
            problems = [_unknown_label(name, allowed) for name in unknown]
            raise ValidationError.from_exception_data(type(self).__name__, problems)
        return self


def _unknown_label(name: str, allowed: list[str]) -> InitErrorDetails:
    """The error of a key of `events`, at that key."""
    hint = nearest(name, allowed) or ";"
    text = f"Value error, unknown key{hint} allowed: {', '.join(sorted(allowed))}"
    kind = PydanticCustomError("value_error", "{text}", {"text": text})
    return InitErrorDetails(type=kind, loc=("events", name, "[key]"), input=name)


def find(name: str) -> Path:
    """The file that a configuration's path or a recipe's name means.

    Raises:
        ConfigError: it is neither.
    """
    path = Path(name)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    shipped = SHIPPED / f"{name}.yaml"
    if not shipped.is_file():
        known = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.yaml")))
        msg = f"{name}: neither a file nor a recipe; recipes: {known}"
        raise ConfigError(msg)
    return shipped


def schemas() -> dict[str, JsonValue]:
    """The JSON Schema of every message, and of the configuration as `config`."""
    return {**messages.schemas(), "config": Configuration.model_json_schema()}
