"""What people can do from Home Assistant: buttons and a select request, switches and numbers set.

All hang on the node's status alone: a source that is switched off is offline, and must be switched
on again from there.
"""

import json
from dataclasses import dataclass
from typing import Final, get_args

from mmstream.messages import Features, LogLevel
from mmstream.sinks.homeassistant_device import (
    CONFIG,
    LOOKS,
    SURELY,
    Entity,
    Look,
    Names,
    Options,
    available,
    words,
)

TRANSACTION: Final = "home-assistant"
"""Who asks, in the requests that buttons send."""
STEP: Final = 0.01
"""Between two thresholds that a slider offers; a topic takes finer ones."""

_ICONS: Final = {"enabled": "mdi:power", "video": "mdi:video", "audio": "mdi:microphone"}


@dataclass(frozen=True, slots=True)
class Setting:
    """A feature of a source but for its value, which its own topic says."""

    name: str
    range: tuple[float, float] | None = None
    """The least and the most that a number takes; None: a switch."""


def settings_of(features: Features) -> tuple[Setting, ...]:
    """What can be set, in order."""
    return tuple(
        Setting(one.name, None if one.min is None or one.max is None else (one.min, one.max))
        for one in features.features
    )


def control(setting: Setting, source: str, names: Names) -> Entity:
    """A switch or a number; its state is what the node says, not what was asked for."""
    topic = names.topic(f"{source}/{setting.name}")
    icon = _ICONS.get(setting.name) or LOOKS.get(setting.name, Look()).icon
    options: Options = {
        "name": words(setting.name),
        "state_topic": topic,
        "command_topic": f"{topic}/set",
        **SURELY,
        **({"icon": icon} if icon else {}),
        **CONFIG,
        **_while_node_is_online(names),
    }
    key = f"set_{setting.name}"
    if setting.range is None:
        return Entity(key, "switch", options)
    least, most = setting.range
    return Entity(key, "number", {**options, "min": least, "max": most, "step": STEP})


def button(verb: str, source: str | None, names: Names) -> Entity:
    """A request."""
    request = {"transaction": TRANSACTION, **({} if source is None else {"source": source})}
    options: Options = {
        "name": verb.capitalize(),
        "command_topic": names.topic(f"request/{verb}"),
        "payload_press": json.dumps(request),
        **SURELY,
        **CONFIG,
        **({"device_class": "restart"} if verb == "restart" else {}),
        **_while_node_is_online(names),
    }
    return Entity(verb, "button", options)


def log_level(names: Names) -> Entity:
    """What the log says from which level on; the node's `info` says what is so."""
    request = {"transaction": TRANSACTION, "arguments": {"level": "{{ value }}"}}
    options: Options = {
        "name": "Log level",
        "state_topic": names.topic("info"),
        "value_template": "{{ value_json.log_level }}",
        "command_topic": names.topic("request/log_level"),
        "command_template": json.dumps(request),
        "options": list(get_args(LogLevel)),
        "icon": "mdi:text-box-search",
        **SURELY,
        **CONFIG,
        **_while_node_is_online(names),
    }
    return Entity("log_level", "select", options)


def _while_node_is_online(names: Names) -> Options:
    return available((names.topic("status"),))
