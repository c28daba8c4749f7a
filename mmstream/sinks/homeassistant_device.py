"""What Home Assistant is told of is made of these: devices, their entities, topics and ids."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from pydantic import JsonValue

Options = Mapping[str, JsonValue]

DIAGNOSTIC: Final[Options] = {"entity_category": "diagnostic"}
CONFIG: Final[Options] = {"entity_category": "config"}
SURELY: Final[Options] = {"qos": 1}


@dataclass(frozen=True, slots=True)
class Look:
    """How Home Assistant shows a label."""

    device_class: str | None = None
    icon: str | None = None
    is_diagnostic: bool = False

    def options(self) -> Options:
        """Those of them that are set."""
        shown: dict[str, JsonValue] = {"device_class": self.device_class, "icon": self.icon}
        category = DIAGNOSTIC if self.is_diagnostic else {}
        return {name: value for name, value in shown.items() if value is not None} | dict(category)


LOOKS: Final[Mapping[str, Look]] = {
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
    "out_of_sync": Look("problem", icon="mdi:sync-alert", is_diagnostic=True),
    "dog_bark": Look("sound", icon="mdi:dog"),
    "rooster": Look("sound", icon="mdi:bird"),
    "baby_cry": Look("sound", icon="mdi:baby-face"),
    "person_sneeze": Look("sound", icon="mdi:account-alert"),
    "clock_tick": Look("sound", icon="mdi:clock-outline"),
    "rain": Look("sound", icon="mdi:weather-rainy"),  # not `moisture`: it is heard, nothing is wet
    "sea_waves": Look("sound", icon="mdi:waves"),
    "fire_crackling": Look("sound", icon="mdi:fire"),  # not `heat`: a hearth sounds so, too
    "helicopter": Look("sound", icon="mdi:helicopter"),
    "chainsaw": Look("sound", icon="mdi:saw-blade"),
    "unusual": Look(icon="mdi:help-circle-outline"),  # not `problem`: it is only new
}
"""By `state/<label>`; what people teach has none."""


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


def available(topics: tuple[str, ...]) -> Options:
    """Available while all of these say `online`; always if there are none."""
    return {"availability": [{"topic": topic} for topic in topics], "availability_mode": "all"}


def words(name: str) -> str:
    """`front_door` as people would write it."""
    return re.sub(r"[_-]+", " ", name).strip().capitalize() or name
