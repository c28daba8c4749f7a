"""What leaves: the content of every message, its stamp, its topic and its JSON Schema.

A head or rule makes the content (`Event`, `Alert`, `Caption`: a pure function of what it was
pushed); the runtime stamps it on the way out (`Stamp`: who said it, when, with which number).
On the wire both lie flat in one JSON object. docs/wire.md is generated from this module.
"""

import json
import re
import unicodedata
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, create_model

from mmstream.errors import CommandError
from mmstream.media import Modality

SCHEMA_VERSION: Final = 1
RESERVED_SOURCES: Final = frozenset({"status", "info", "stats", "request", "response"})
ID_PATTERN: Final = r"^[A-Za-z0-9_-]{1,64}$"
RESERVED_FEATURES: Final = frozenset(
    {"status", "health", "event", "alert", "open", "state", "caption", "snapshot", "features"}
)
"""Levels below a source that are topics already: no feature may be called so."""

EndReason = Literal["quiet", "source_ended", "source_stalled", "disabled", "shutdown", "restart"]
LogLevel = Literal["debug", "info", "warning"]
HealthState = Literal["connecting", "online", "degraded", "stalled", "offline"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def iso_utc(utc_ns: int) -> str:
    """Nanoseconds since 1970 as ISO 8601 in UTC with milliseconds: 2026-11-23T10:00:00.250Z."""
    instant = _EPOCH + timedelta(microseconds=utc_ns // 1_000_000 * 1000)
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc_ns(iso: str) -> int:
    """The inverse of `iso_utc`."""
    return (datetime.fromisoformat(iso) - _EPOCH) // timedelta(microseconds=1) * 1000


def epoch_secs(utc_ns: int) -> float:
    """Nanoseconds since 1970 as float seconds, to the microsecond (all a float can carry)."""
    return round(utc_ns / 1e9, 6)


def slug(text: str) -> str:
    """`text` as a topic level: lower-case letters, digits and `_`.

    Raises:
        ValueError: nothing of it is left.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    level = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    if not level:
        msg = f"no letter or digit in {text!r}"
        raise ValueError(msg)
    return level


class _Record(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_serialization_defaults_required=True,
    )


class Content(_Record):
    """Base of what a message says."""

    TOPIC: ClassVar[str]
    """Below `mmstream/<node>`, with `{source}` where it belongs to one."""
    RETAINED: ClassVar[bool] = False
    QOS: ClassVar[int] = 0
    NUMBERED: ClassVar[bool] = False
    """Whether its stamp has room for `seq`."""

    @property
    def must_arrive(self) -> bool:
        """Whether it gets a `seq`, so that a subscriber sees its loss."""
        return self.NUMBERED


class WireBox(_Record):
    """A rectangle as fractions of the picture, from the top left corner."""

    x: float = Field(ge=0, le=1)
    y: float = Field(ge=0, le=1)
    width: float = Field(ge=0, le=1)
    height: float = Field(ge=0, le=1)


class Evidence(_Record):
    """One observation that an event rests on."""

    modality: Modality
    detector: str
    label: str
    score: float = Field(ge=0, le=1)
    t_start: float
    """Seconds since 1970."""
    t_end: float
    """Seconds since 1970."""
    box: WireBox | None = None
    track: int | None = None
    """Which object it is, where objects are followed; counted from 1 since the source started."""
    direction_deg: int | None = Field(None, ge=0, lt=360)
    """Where the object goes: 0 right, 90 up, 180 left, 270 down; null when it does not move."""
    speed: float | None = None
    """How fast, in picture widths per second; null where objects are not followed."""
    note: str | None = None
    """What else must be said of it, in a few words."""


class Contribution(_Record):
    """How much of the score is gone when one modality is left out, 0..1 each."""

    audio: float = Field(0, ge=0, le=1)
    video: float = Field(0, ge=0, le=1)
    text: float = Field(0, ge=0, le=1)


class Event(Content):
    """One step in the life of something seen or heard: it starts, changes, ends."""

    TOPIC = "{source}/event"
    QOS = 1
    NUMBERED = True

    id: str
    """The same from start to end; a replay of the same media gives the same."""
    type: Literal["start", "update", "end"]
    source: str
    label: str
    """What it is; `state/<label>` has it with `_` for all but lower-case letters and digits."""
    kind: Literal["audio", "video", "av"]
    score: float = Field(ge=0, le=1)
    """Now."""
    top_score: float = Field(ge=0, le=1)
    """The highest since the start."""
    ts_start: str
    """Capture time at which it began, ISO 8601 UTC."""
    t_start: float
    """The same as seconds since 1970."""
    ts_end: str | None = None
    """Capture time at which it was over; null until the end."""
    t_end: float | None = None
    """The same as seconds since 1970."""
    evidence: tuple[Evidence, ...] = ()
    contribution: Contribution
    offset_ms: float | None = None
    """By how much the sound came after the picture, where the instants of both were compared."""
    end_reason: EndReason | None = None
    """Why it ended; null until the end."""


class Open(Content):
    """The events of a source that are open right now, in the order in which they began."""

    TOPIC = "{source}/open"
    RETAINED = True
    QOS = 1

    source: str
    events: tuple[Event, ...]
    """The last lifecycle message of each."""


class Alert(Content):
    """A rule fired."""

    TOPIC = "{source}/alert"
    QOS = 1
    NUMBERED = True

    id: str
    rule: str
    source: str
    severity: Literal["info", "warning", "critical"]
    events: tuple[str, ...]
    """The ids of the events that made it fire."""
    ts_start: str
    """Capture time at which its condition began, ISO 8601 UTC."""
    t_start: float
    """The same as seconds since 1970."""
    evidence: tuple[Evidence, ...] = ()
    snapshot_url: str | None = None
    """Null: no picture has an address; the newest is the payload of `<source>/snapshot`."""
    clip_url: str | None = None
    """Null: no clips are kept."""


class Word(_Record):
    """One word of a caption."""

    text: str
    t_start: float
    """Seconds since 1970."""
    t_end: float
    """Seconds since 1970."""
    confidence: float = Field(ge=0, le=1)


class Caption(Content):
    """What is said, heard or seen, as text; a partial may be revised, a final never.

    An id has any number of partials and then exactly one final. A final whose text is empty takes
    back what its partials showed: nothing was said after all.
    """

    TOPIC = "{source}/caption/{state}"
    QOS = 1
    NUMBERED = True

    id: str
    """The same from the first partial to the final; a replay of the same media gives the same."""
    state: Literal["partial", "final"]
    revision: int = Field(ge=0)
    """Rises within an id: the highest holds."""
    source: str
    text: str
    """Without line breaks. A final of speech fits on two lines of 42 characters, but for a word
    that is longer; a partial may be longer. Of sound in brackets: `[dog barking]`."""
    kind: Literal["speech", "sound", "scene"]
    ts_start: str
    """Capture time of the first word, or at which what it tells of began, ISO 8601 UTC."""
    t_start: float
    """The same as seconds since 1970."""
    ts_end: str
    """Capture time of the end of the last word, or at which it was decided, ISO 8601 UTC."""
    t_end: float
    """The same as seconds since 1970."""
    words: tuple[Word, ...] = ()
    """Those of `text`, in order; only of speech."""
    steady: int = Field(0, ge=0)
    """The first so many of `words` are held as they are: only what is heard of the whole sentence,
    or seconds later, corrects them. Of a final all."""
    confidence: float = Field(ge=0, le=1)
    """Of speech the mean of its words; 0 where nobody can tell."""
    language: str
    """BCP 47."""
    on_screen: bool | None = None
    """Whether the speaker is seen; null where nobody can tell, and of all but speech."""

    @property
    def must_arrive(self) -> bool:
        """A partial may be dropped, a final never."""
        return self.state == "final"


class Health(Content):
    """How a source is."""

    TOPIC = "{source}/health"
    RETAINED = True
    QOS = 1

    source: str
    state: HealthState
    reason: str
    """In words, without credentials."""
    since: str
    """When it came into this state, ISO 8601 UTC."""
    video_fps: float | None = None
    """Frames per second of capture time, lately; null without video."""
    audio_rms: float | None = None
    """Root mean square level of the sound, lately, in dBFS; null without audio."""
    synced: bool = True
    """Whether sound and sight are known to be on one clock."""
    video_drift_ppm: float | None = None
    """By how much the camera's clock is fast, corrected for already; null where unknown."""
    audio_drift_ppm: float | None = None
    """By how much the microphone's clock is fast, corrected for already; null where unknown."""
    restarts: int = 0
    """How often it was started anew since boot."""


class SourceInfo(_Record):
    """What a source is and what may be said about it."""

    id: str
    labels: tuple[str, ...]
    """All that events of it may say; each has its `state/<label>`."""


class ModelInfo(_Record):
    """A trained model that is running."""

    name: str
    """What evidence calls it."""
    id: str
    """A hash of its weights and settings: the same numbers have the same id."""


class Info(Content):
    """Who is speaking."""

    TOPIC = "info"
    RETAINED = True
    QOS = 1

    version: str
    started: str
    """When this boot began, ISO 8601 UTC."""
    sources: tuple[SourceInfo, ...]
    schemas: dict[str, int]
    """The schema version of each kind of message."""
    capabilities: tuple[str, ...]
    models: tuple[ModelInfo, ...] = ()
    """Those that score beside the built-in detectors."""
    log_level: LogLevel = "warning"
    """How much the log says; the request `log_level` selects it."""


class FeatureState(_Record):
    """Something that can be set while it runs, and how it is set."""

    name: str
    """The level of its topics: `<source>/<name>` says the value, `<source>/<name>/set` takes it."""
    value: Literal["ON", "OFF"] | float
    """Now: of a switch `ON` or `OFF`, else a number."""
    default: Literal["ON", "OFF"] | float
    """What the configuration says: what an empty payload to `set` goes back to."""
    is_set: bool
    """Whether the value came by a request; then it holds over restarts."""
    min: float | None = None
    """The least that can be set; null for a switch."""
    max: float | None = None
    """The most; null for a switch."""

    def text(self) -> str:
        """The value as its own topic has it."""
        return self.value if isinstance(self.value, str) else f"{self.value:g}"


class Features(Content):
    """What can be set of a source while it runs."""

    TOPIC = "{source}/features"
    RETAINED = True
    QOS = 1

    source: str
    features: tuple[FeatureState, ...]


class StageReport(_Record):
    """What one stage has done since boot; latencies over the last few minutes."""

    n_in: int
    n_out: int
    dropped: dict[str, int]
    """By reason."""
    lag_ms: float | None = None
    """How long after its capture the last hop was scored; only the heads of a source say so."""
    p50_ms: float | None = None
    """Null when nothing was measured."""
    p95_ms: float | None = None
    p99_ms: float | None = None
    realtime_factor: float | None = None
    """Seconds of computing per second of sound, below 1 where it keeps up; null where it means
    nothing."""


class Stats(Content):
    """Counters and latencies of every stage."""

    TOPIC = "stats"

    stages: dict[str, StageReport]
    """By `<stage>` or `<stage>/<source>`."""
    batch_size: float | None = None
    """Mean hops per batch of the worker."""
    device: str
    """Where the worker computes."""


class Response(Content):
    """The answer to a request."""

    TOPIC = "response/{verb}"
    QOS = 1

    verb: str
    transaction: str
    status: Literal["ok", "error"]
    error: str | None = None
    result: dict[str, JsonValue] = Field(default_factory=dict)


class Command(_Record):
    """What comes in, from MQTT or the API."""

    verb: str
    """What to do: the last level of the topic `request/<verb>`."""
    transaction: str = ""
    """Whatever tells the asker which request an answer is to."""
    source: str | None = None
    """The source that it is about."""
    arguments: dict[str, JsonValue] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """A command as it arrived, not understood yet."""

    verb: str
    payload: str
    by: str = field(default="", compare=False)
    """Who asks, as far as that is known: for logs."""

    def command(self) -> Command:
        """What it says; the payload is a JSON object, or empty.

        Raises:
            CommandError: it is neither, or holds what no command has.
        """
        try:
            fields = json.loads(self.payload or "{}")
            json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()  # it is sent back
            return Command.model_validate({**fields, "verb": self.verb})
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, problem["loc"]))
            msg = f"{where}: {problem['msg']}; allowed: transaction, source, arguments"
            raise CommandError(msg) from None
        except (ValueError, TypeError, RecursionError):
            msg = "the payload is no JSON object"
            raise CommandError(msg) from None


class Stamp(_Record):
    """Who sent a message, when, and which one it is."""

    v: int = SCHEMA_VERSION
    """The schema's version: goes up when a field comes, goes or changes its meaning."""
    node: str = Field(pattern=ID_PATTERN)
    boot_id: str
    """A new one each time the process starts."""
    ts_emit: str
    """When the message was made, ISO 8601 UTC."""


class NumberedStamp(Stamp):
    """The stamp of events, alerts and captions."""

    seq: int | None = Field(ge=0)
    """Counts up by one per node and boot: a gap is a loss. Null for a partial caption, which may
    be dropped."""
    latency_ms: float | None = None
    """From the capture of what decided it to `ts_emit`; null when media is read faster than it
    plays."""
    late: bool = False
    """It waited for the broker to come back."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What a head or rule says, before it is stamped."""

    content: Content
    at_ns: int
    """The capture instant, on the source's clock, of the last thing that it rests on."""


@dataclass(frozen=True, slots=True)
class Published:
    """A message ready for any sink: content, stamp, and where it goes."""

    content: Content
    stamp: Stamp

    @property
    def topic(self) -> str:
        """`mmstream/<node>/...` with the default base."""
        return f"{base_topic(self.stamp.node)}/{subtopic(self.content)}"

    def payload(self) -> dict[str, JsonValue]:
        """The flat JSON object that goes on the wire."""
        return self.stamp.model_dump(mode="json") | self.content.model_dump(mode="json")

    def to_json(self) -> str:
        """The payload as one line."""
        return json.dumps(self.payload(), ensure_ascii=False, separators=(",", ":"))


def base_topic(node: str, base: str = "mmstream") -> str:
    """Where everything of a node lies."""
    return f"{base}/{node}"


def subtopic(content: Content) -> str:
    """Where a message lies below its node."""
    fields = {
        name: str(getattr(content, name))
        for name in ("source", "state", "verb")
        if hasattr(content, name)
    }
    return content.TOPIC.format(**fields)


CONTENTS: Final[tuple[type[Content], ...]] = (
    Event,
    Open,
    Alert,
    Caption,
    Health,
    Info,
    Features,
    Stats,
    Response,
)


@cache
def wire_model(content: type[Content]) -> type[BaseModel]:
    """The model of a whole message on the wire: its stamp and its content, flat."""
    stamp = NumberedStamp if content.NUMBERED else Stamp
    return create_model(content.__name__, __base__=(stamp, content), __doc__=content.__doc__)


def json_schema(content: type[Content]) -> dict[str, JsonValue]:
    """The JSON Schema (2020-12) of a whole message on the wire."""
    schema: dict[str, JsonValue] = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return schema | wire_model(content).model_json_schema(mode="serialization")


def request_schema() -> dict[str, JsonValue]:
    """The JSON Schema (2020-12) of what a request may hold; its topic says the verb."""
    schema: dict[str, JsonValue] = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema |= Command.model_json_schema()
    del schema["required"]
    return schema


def schemas() -> dict[str, dict[str, JsonValue]]:
    """Every JSON Schema by the lower-case name of its message, as the wheel ships them."""
    messages = {content.__name__.lower(): json_schema(content) for content in CONTENTS}
    return {**messages, "command": request_schema()}
