"""Which devices and entities Home Assistant is told of: a node and its sources, as messages say.

Every option is one of https://www.home-assistant.io/integrations/mqtt/ and the page of its
platform there (`binary_sensor.mqtt` and so on). What is not on the wire has no entity: one whose
topic comes is added in one line, to `_source_entities` or `_label_entities`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, get_args

from pydantic import JsonValue

from mmstream.messages import HealthState, Info, SourceInfo, slug

Options = Mapping[str, JsonValue]

MAX_STATE: Final = 255
"""Characters that a state of Home Assistant may have."""
TRANSACTION: Final = "home-assistant"
"""Who asks, in the requests that buttons send."""

_DIAGNOSTIC: Final[Options] = {"entity_category": "diagnostic"}
_MEASURED: Final[Options] = {"state_class": "measurement"}
_SURELY: Final[Options] = {"qos": 1}


@dataclass(frozen=True, slots=True)
class Look:
    """How Home Assistant shows a label."""

    device_class: str | None = None
    icon: str | None = None
    is_diagnostic: bool = False

    def options(self) -> Options:
        """Those of them that are set."""
        shown: dict[str, JsonValue] = {"device_class": self.device_class, "icon": self.icon}
        category = _DIAGNOSTIC if self.is_diagnostic else {}
        return {name: value for name, value in shown.items() if value is not None} | dict(category)


_LOOKS: Final[Mapping[str, Look]] = {
    "motion": Look("motion"),
    "presence": Look("occupancy"),
    "person": Look("occupancy"),
    "face": Look(icon="mdi:face-recognition"),
    "loud": Look("sound"),
    "speech": Look("sound", icon="mdi:account-voice"),
    "alarm": Look("safety", icon="mdi:alarm-light"),  # not `smoke`: gas alarms sound alike
    "person_speaking": Look("occupancy", icon="mdi:account-voice"),
    "impact": Look(icon="mdi:flash-alert"),
    "camera_blocked": Look("problem", is_diagnostic=True),
    "audio_lost": Look("problem", is_diagnostic=True),
}


@dataclass(frozen=True, slots=True)
class Entity:
    """One component of a device: an entity or a device trigger."""

    key: str
    """Lower-case letters, digits and `_`; one of a kind within the device, and stable."""
    platform: str
    """`binary_sensor`, `device_automation` and so on."""
    options: Options


@dataclass(frozen=True, slots=True)
class Device:
    """A source, or the node that it belongs to."""

    id: str
    name: str
    model: str
    via: str | None
    """The id of the node's device."""
    availability: tuple[str, ...]
    """Topics that must all say `online`."""
    entities: tuple[Entity, ...]


@dataclass(frozen=True, slots=True)
class Senses:
    """What a source has, as far as its health has told; None: not told yet."""

    video: bool | None = None
    audio: bool | None = None


@dataclass(frozen=True, slots=True)
class Names:
    """Topics and ids of one node. Ids are stable and no two nodes share one.

    Ids of sources may hold all that ids here may, so the parts are told apart by the `-` before
    the key (which holds none), and nodes by a hash of their base topic.
    """

    root: str
    """`<base>/<node>`."""
    node: str = field(init=False)
    """The id of the node's device."""

    def __post_init__(self) -> None:
        """Derive the id."""
        plain = re.sub(r"[^A-Za-z0-9_-]+", "_", self.root)
        object.__setattr__(self, "node", f"{plain}_{sha256(self.root.encode()).hexdigest()[:6]}")

    def device(self, source: str) -> str:
        """The id of a source's device."""
        return f"{self.node}-{source}"

    def topic(self, below: str) -> str:
        """A topic of the node."""
        return f"{self.root}/{below}"


def devices(info: Info, names: Names, senses: Mapping[str, Senses]) -> tuple[Device, ...]:
    """The node, then its sources; sensors of what a source has not are left out."""
    node = Device(
        id=names.node,
        name=f"mmstream {names.root.rpartition('/')[2]}",
        model="node",
        via=None,
        availability=(names.topic("status"),),
        entities=_node_entities(info, names),
    )
    return (node, *(_source_device(one, info, names, senses[one.id]) for one in info.sources))


def _source_device(source: SourceInfo, info: Info, names: Names, senses: Senses) -> Device:
    labels = {slug(label): label for label in source.labels}
    entities = _source_entities(source.id, info, names, senses)
    for level, label in labels.items():
        entities += _label_entities(source.id, level, label, names)
    return Device(
        id=names.device(source.id),
        name=_words(source.id),
        model="source",
        via=names.node,
        availability=(names.topic("status"), names.topic(f"{source.id}/status")),
        entities=entities,
    )


def _node_entities(info: Info, names: Names) -> tuple[Entity, ...]:
    stats = names.topic("stats")
    entities = [
        _connectivity(names.topic("status"), ()),
        Entity(
            "started",
            "sensor",
            {
                "name": "Started",
                "device_class": "timestamp",
                "state_topic": names.topic("info"),
                "value_template": "{{ value_json.started }}",
                **_DIAGNOSTIC,
            },
        ),
        _drops("mqtt", stats, "name == 'mqtt'"),
    ]
    if "requests" in info.capabilities:
        entities.append(_button("reload", None, names))
    return tuple(entities)


def _source_entities(source: str, info: Info, names: Names, senses: Senses) -> tuple[Entity, ...]:
    health, stats = names.topic(f"{source}/health"), names.topic("stats")
    entities = [
        _connectivity(names.topic(f"{source}/status"), (names.topic("status"),)),
        _health(health, names),
        _latency(source, stats),
        _drops("drops", stats, f"name.endswith('/{source}')"),
    ]
    if senses.video:
        entities.append(_measure("fps", "Frame rate", "fps", health, "video_fps"))
    if senses.audio:
        entities.append(_measure("level", "Sound level", "dBFS", health, "audio_rms"))
    if "captions" in info.capabilities:
        entities.append(_caption(names.topic(f"{source}/caption/final")))
    if "snapshots" in info.capabilities:
        entities.append(_snapshot(names.topic(f"{source}/snapshot")))
    if "requests" in info.capabilities:
        entities += [_button(verb, source, names) for verb in ("restart", "enable", "disable")]
    return tuple(entities)


def _label_entities(source: str, level: str, label: str, names: Names) -> tuple[Entity, ...]:
    look = _LOOKS.get(level, Look())
    event = names.topic(f"{source}/event")
    state = {
        "name": _words(level),
        "state_topic": names.topic(f"{source}/state/{level}"),
        **_SURELY,
        **look.options(),
    }
    return (
        Entity(f"state_{level}", "binary_sensor", state),
        _event(level, label, look, event),
        *(_trigger(level, label, kind, event) for kind in ("start", "end")),
    )


def _event(level: str, label: str, look: Look, topic: str) -> Entity:
    """Told at start and end; what is rendered empty (other labels, updates) fires nothing."""
    attributes = ("id", "score", "top_score", "kind", "ts_start", "ts_end", "end_reason", "late")
    members = ", ".join(f"'{name}': value_json.{name}" for name in attributes)
    is_told = f"value_json.label == {_literal(label)} and value_json.type in ('start', 'end')"
    device_class = {"device_class": "motion"} if look.device_class == "motion" else {}
    options: dict[str, JsonValue] = {
        "name": _words(level),
        "state_topic": topic,
        "event_types": ["start", "end"],
        "value_template": (
            f"{{% if {is_told} %}}"
            f"{{{{ {{'event_type': value_json.type, {members}}} | tojson }}}}{{% endif %}}"
        ),
        **_SURELY,
        **device_class,
        **({"icon": look.icon} if look.icon else {}),
        **(_DIAGNOSTIC if look.is_diagnostic else {}),
    }
    return Entity(f"event_{level}", "event", options)


def _trigger(level: str, label: str, kind: str, topic: str) -> Entity:
    """Fires when it happens; what comes late, after an outage, is no reason to act."""
    told = "{{ value_json.label }} {{ value_json.type }}{{ ' late' if value_json.late }}"
    options: dict[str, JsonValue] = {
        "automation_type": "trigger",
        "type": f"{kind}ed",
        "subtype": level,
        "topic": topic,
        "value_template": told,
        "payload": f"{label} {kind}",
        **_SURELY,
    }
    return Entity(f"{kind}ed_{level}", "device_automation", options)


def _connectivity(topic: str, availability: tuple[str, ...]) -> Entity:
    """Off is what it has to say, so it does not hang on its own topic."""
    options: dict[str, JsonValue] = {
        "name": "Connection",
        "device_class": "connectivity",
        "state_topic": topic,
        "payload_on": "online",
        "payload_off": "offline",
        **available(availability),
        **_DIAGNOSTIC,
    }
    return Entity("connection", "binary_sensor", options)


def _health(topic: str, names: Names) -> Entity:
    told = ", ".join(f"'{name}': value_json.{name}" for name in ("reason", "since", "restarts"))
    options: dict[str, JsonValue] = {
        "name": "Health",
        "device_class": "enum",
        "options": list(get_args(HealthState)),
        "state_topic": topic,
        "value_template": "{{ value_json.state }}",
        "json_attributes_topic": topic,
        "json_attributes_template": f"{{{{ {{{told}}} | tojson }}}}",
        **available((names.topic("status"),)),
        **_DIAGNOSTIC,
    }
    return Entity("health", "sensor", options)


def _measure(key: str, name: str, unit: str, topic: str, member: str) -> Entity:
    options: dict[str, JsonValue] = {
        "name": name,
        "unit_of_measurement": unit,
        "suggested_display_precision": 1,
        "state_topic": topic,
        "value_template": f"{{{{ value_json.{member} }}}}",
        **_MEASURED,
        **_DIAGNOSTIC,
    }
    return Entity(key, "sensor", options)


def _latency(source: str, topic: str) -> Entity:
    options: dict[str, JsonValue] = {
        "name": "Latency",
        "device_class": "duration",
        "unit_of_measurement": "ms",
        "state_topic": topic,
        "value_template": (
            f"{{% set stage = value_json.stages.get('heads/{source}') %}}"
            "{{ stage.lag_ms if stage else none }}"
        ),
        **_MEASURED,
        **_DIAGNOSTIC,
    }
    return Entity("latency", "sensor", options)


def _drops(key: str, topic: str, condition: str) -> Entity:
    """All that the stages for which the condition holds have dropped since boot."""
    options: dict[str, JsonValue] = {
        "name": "Dropped",
        "icon": "mdi:tray-remove",
        "state_class": "total_increasing",
        "state_topic": topic,
        "value_template": (
            "{% set all = namespace(n=0) %}{% for name, stage in value_json.stages.items() "
            f"if {condition} %}}{{% set all.n = all.n + stage.dropped.values() | sum %}}"
            "{% endfor %}{{ all.n }}"
        ),
        **_DIAGNOSTIC,
    }
    return Entity(key, "sensor", options)


def _caption(topic: str) -> Entity:
    """The beginning as the state, all of it as an attribute."""
    members = ("text", "kind", "language", "confidence", "ts_start", "ts_end", "late")
    told = ", ".join(f"'{name}': value_json.{name}" for name in members)
    options: dict[str, JsonValue] = {
        "name": "Caption",
        "icon": "mdi:closed-caption",
        "state_topic": topic,
        **_SURELY,
        "value_template": f"{{{{ value_json.text[:{MAX_STATE}] }}}}",
        "json_attributes_topic": topic,
        "json_attributes_template": f"{{{{ {{{told}}} | tojson }}}}",
    }
    return Entity("caption", "sensor", options)


def _snapshot(topic: str) -> Entity:
    options: dict[str, JsonValue] = {
        "name": "Snapshot",
        "image_topic": topic,
        "content_type": "image/jpeg",
    }
    return Entity("snapshot", "image", options)


def _button(verb: str, source: str | None, names: Names) -> Entity:
    """A request; it works while the source is offline too."""
    request = {"transaction": TRANSACTION, **({} if source is None else {"source": source})}
    options: dict[str, JsonValue] = {
        "name": verb.capitalize(),
        "command_topic": names.topic(f"request/{verb}"),
        "payload_press": json.dumps(request),
        **_SURELY,
        "entity_category": "config",
        **({"device_class": "restart"} if verb == "restart" else {}),
        **available((names.topic("status"),)),
    }
    return Entity(verb, "button", options)


def available(topics: tuple[str, ...]) -> Options:
    """Available while all of these say `online`; always if there are none."""
    return {"availability": [{"topic": topic} for topic in topics], "availability_mode": "all"}


def _literal(text: str) -> str:
    """A string literal of Jinja, which takes JSON's."""
    return json.dumps(text)


def _words(name: str) -> str:
    """`front_door` as people would write it."""
    return re.sub(r"[_-]+", " ", name).strip().capitalize() or name
