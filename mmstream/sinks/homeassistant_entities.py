"""Which devices and entities Home Assistant is told of: a node and its sources, as messages say.

Every option is one of https://www.home-assistant.io/integrations/mqtt/ and the page of its
platform there (`binary_sensor.mqtt` and so on). What is not on the wire has no entity: one whose
topic comes is added in one line, to `_source_entities` or `_label_entities`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, get_args

from mmstream.messages import HealthState, Info, SourceInfo, slug
from mmstream.sinks.homeassistant_controls import Setting, button, control, log_level
from mmstream.sinks.homeassistant_device import (
    DIAGNOSTIC,
    LOOKS,
    SURELY,
    Device,
    Entity,
    Look,
    Names,
    Options,
    available,
    words,
)

MAX_STATE: Final = 255
"""Characters that a state of Home Assistant may have."""
RELEASE: Final = "release"
"""Below the base topic: the newest version there is, if anybody says it (retained)."""

_MEASURED: Final[Options] = {"state_class": "measurement"}


@dataclass(frozen=True, slots=True)
class Senses:
    """What a source has, as far as its health has told; None: not told yet."""

    video: bool | None = None
    audio: bool | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a source beside its labels."""

    senses: Senses
    settings: tuple[Setting, ...] = ()


def devices(info: Info, names: Names, known: Mapping[str, Known]) -> tuple[Device, ...]:
    """The node, then its sources; sensors of what a source has not are left out."""
    node = Device(
        id=names.node,
        name=f"mmstream {names.root.rpartition('/')[2]}",
        model="node",
        via=None,
        availability=(names.topic("status"),),
        entities=_node_entities(info, names),
    )
    return (node, *(_source_device(one, info, names, known[one.id]) for one in info.sources))


def _source_device(source: SourceInfo, info: Info, names: Names, known: Known) -> Device:
    labels = {slug(label): label for label in source.labels}
    entities = _source_entities(source.id, info, names, known.senses)
    entities += tuple(control(setting, source.id, names) for setting in known.settings)
    for level, label in labels.items():
        entities += _label_entities(source.id, level, label, names)
    return Device(
        id=names.device(source.id),
        name=words(source.id),
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
                **DIAGNOSTIC,
            },
        ),
        _drops("mqtt", stats, "name == 'mqtt'"),
        _update(names),
    ]
    if "requests" in info.capabilities:
        entities += [button("reload", None, names), log_level(names)]
    return tuple(entities)


def _source_entities(source: str, info: Info, names: Names, senses: Senses) -> tuple[Entity, ...]:
    health, stats = names.topic(f"{source}/health"), names.topic("stats")
    entities = [
        _connectivity(names.topic(f"{source}/status"), (names.topic("status"),)),
        _health(health, names),
        _latency(source, stats),
        _drops("drops", stats, f"name.endswith('/{source}') and not name.startswith('outlet/')"),
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
        entities.append(button("restart", source, names))
    return tuple(entities)


def _label_entities(source: str, level: str, label: str, names: Names) -> tuple[Entity, ...]:
    look = LOOKS.get(level, Look())
    event = names.topic(f"{source}/event")
    state = {
        "name": words(level),
        "state_topic": names.topic(f"{source}/state/{level}"),
        **SURELY,
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
    options: Options = {
        "name": words(level),
        "state_topic": topic,
        "event_types": ["start", "end"],
        "value_template": (
            f"{{% if {is_told} %}}"
            f"{{{{ {{'event_type': value_json.type, {members}}} | tojson }}}}{{% endif %}}"
        ),
        **SURELY,
        **device_class,
        **({"icon": look.icon} if look.icon else {}),
        **(DIAGNOSTIC if look.is_diagnostic else {}),
    }
    return Entity(f"event_{level}", "event", options)


def _trigger(level: str, label: str, kind: str, topic: str) -> Entity:
    """Fires when it happens; what comes late, after an outage, is no reason to act."""
    told = "{{ value_json.label }} {{ value_json.type }}{{ ' late' if value_json.late }}"
    options: Options = {
        "automation_type": "trigger",
        "type": f"{kind}ed",
        "subtype": level,
        "topic": topic,
        "value_template": told,
        "payload": f"{label} {kind}",
        **SURELY,
    }
    return Entity(f"{kind}ed_{level}", "device_automation", options)


def _connectivity(topic: str, availability: tuple[str, ...]) -> Entity:
    """Off is what it has to say, so it does not hang on its own topic."""
    options: Options = {
        "name": "Connection",
        "device_class": "connectivity",
        "state_topic": topic,
        "payload_on": "online",
        "payload_off": "offline",
        **available(availability),
        **DIAGNOSTIC,
    }
    return Entity("connection", "binary_sensor", options)


def _health(topic: str, names: Names) -> Entity:
    told = ", ".join(f"'{name}': value_json.{name}" for name in ("reason", "since", "restarts"))
    options: Options = {
        "name": "Health",
        "device_class": "enum",
        "options": list(get_args(HealthState)),
        "state_topic": topic,
        "value_template": "{{ value_json.state }}",
        "json_attributes_topic": topic,
        "json_attributes_template": f"{{{{ {{{told}}} | tojson }}}}",
        **available((names.topic("status"),)),
        **DIAGNOSTIC,
    }
    return Entity("health", "sensor", options)


def _measure(key: str, name: str, unit: str, topic: str, member: str) -> Entity:
    options: Options = {
        "name": name,
        "unit_of_measurement": unit,
        "suggested_display_precision": 1,
        "state_topic": topic,
        "value_template": f"{{{{ value_json.{member} }}}}",
        **_MEASURED,
        **DIAGNOSTIC,
    }
    return Entity(key, "sensor", options)


def _latency(source: str, topic: str) -> Entity:
    options: Options = {
        "name": "Latency",
        "device_class": "duration",
        "unit_of_measurement": "ms",
        "state_topic": topic,
        "value_template": (
            f"{{% set stage = value_json.stages.get('heads/{source}') %}}"
            "{{ stage.lag_ms if stage else none }}"
        ),
        **_MEASURED,
        **DIAGNOSTIC,
    }
    return Entity("latency", "sensor", options)


def _drops(key: str, topic: str, condition: str) -> Entity:
    """All that the stages for which the condition holds have dropped since boot."""
    options: Options = {
        "name": "Dropped",
        "icon": "mdi:tray-remove",
        "state_class": "total_increasing",
        "state_topic": topic,
        "value_template": (
            "{% set all = namespace(n=0) %}{% for name, stage in value_json.stages.items() "
            f"if {condition} %}}{{% set all.n = all.n + stage.dropped.values() | sum %}}"
            "{% endfor %}{{ all.n }}"
        ),
        **DIAGNOSTIC,
    }
    return Entity(key, "sensor", options)


def _caption(topic: str) -> Entity:
    """The beginning as the state, all of it as an attribute.

    A final without text takes back partials, which Home Assistant has not seen: the state stays.
    """
    members = ("text", "kind", "language", "confidence", "ts_start", "ts_end", "late")
    told = ", ".join(f"'{name}': value_json.{name}" for name in members)
    options: Options = {
        "name": "Caption",
        "icon": "mdi:closed-caption",
        "state_topic": topic,
        **SURELY,
        "value_template": f"{{{{ value_json.text[:{MAX_STATE}] or this.state }}}}",
        "json_attributes_topic": topic,
        "json_attributes_template": f"{{{{ {{{told}}} | tojson }}}}",
    }
    return Entity("caption", "sensor", options)


def _snapshot(topic: str) -> Entity:
    options: Options = {
        "name": "Snapshot",
        "image_topic": topic,
        "content_type": "image/jpeg",
    }
    return Entity("snapshot", "image", options)


def _update(names: Names) -> Entity:
    """The newest version is what somebody has published for all nodes; we ask nobody for it."""
    options: Options = {
        "name": "Update",
        "title": "mmstream",
        "state_topic": names.topic("info"),
        "value_template": "{{ value_json.version }}",
        "latest_version_topic": f"{names.root.rpartition('/')[0]}/{RELEASE}",
        **SURELY,
        **DIAGNOSTIC,
    }
    return Entity("update", "update", options)


def _literal(text: str) -> str:
    """A string literal of Jinja, which takes JSON's but for halves of letters beyond 16 bits."""
    return json.dumps(text, ensure_ascii=False)
