"""What a YAML file in `configs/` may say: the schema of a whole configuration."""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, JsonValue

from mmstream import config, messages
from mmstream.config import Settings
from mmstream.detectors.loudness import LoudnessSettings
from mmstream.detectors.motion import MotionSettings
from mmstream.errors import ConfigError
from mmstream.heads.lifecycle import LabelSettings
from mmstream.messages import ID_PATTERN, RESERVED_SOURCES
from mmstream.sinks.jsonl import STDOUT, JsonlSettings
from mmstream.sinks.mqtt import MqttSettings
from mmstream.sources.media import MediaSettings
from mmstream.sources.microphone import MicrophoneSettings
from mmstream.sources.network import NetworkSettings
from mmstream.sources.synthetic import SyntheticSettings
from mmstream.sources.webcam import WebcamSettings
from mmstream.windows import HopSettings
from mmstream.worker import WorkerSettings

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
    """The detectors; `false` switches one off."""

    motion: MotionSettings | Literal[False] = MotionSettings()
    """Something moves in the picture."""
    loud: LoudnessSettings | Literal[False] = LoudnessSettings()
    """Something is louder than what is usual here."""


class MotionEvents(LabelSettings):
    """Motion comes and goes with every step: wait for a little of it, bridge short rests."""

    for_secs: float = Field(0.2, ge=0, le=60)
    within_secs: float = Field(0.5, ge=0.05, le=60)
    min_off_secs: float = Field(1.5, ge=0, le=60)


class LoudEvents(LabelSettings):
    """A knock lasts 20 ms, a sentence has pauses."""

    for_secs: float = Field(0.02, ge=0, le=60)
    within_secs: float = Field(0.1, ge=0.05, le=60)
    min_off_secs: float = Field(0.7, ge=0, le=60)


class EventsSettings(Settings):
    """When scores of a label become an event."""

    motion: MotionEvents = MotionEvents()
    loud: LoudEvents = LoudEvents()


class SinkSettings(Settings):
    """Where messages go; one that is left out is not used."""

    mqtt: MqttSettings | None = None
    """An MQTT broker."""
    jsonl: JsonlSettings | None = None
    """A file of JSON lines, or standard output."""

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
    worker: WorkerSettings = WorkerSettings()
    sinks: SinkSettings = SinkSettings()


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
