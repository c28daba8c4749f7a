"""Home Assistant by MQTT discovery: which retained configurations follow from what is said.

    update(message) -> configurations that it changes       Info: sources, labels; Health: senses;
                                                            Features: what can be set
    heard(retained) -> what an earlier boot left and nobody has any more, to be taken back
    packets()       -> all of it, for a new connection and for Home Assistant's birth message

`device` announces a device in one payload (Home Assistant 2024.11 and later), `component` each
entity in its own (every release). Forms of the payloads and their change from one to the other:
https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from mmstream.media import NS_PER_SEC
from mmstream.messages import Features, Health, Info, Published, base_topic, utc_ns
from mmstream.sinks.homeassistant_controls import Setting, settings_of
from mmstream.sinks.homeassistant_device import Device, Entity, Names, Options, available
from mmstream.sinks.homeassistant_entities import Known, Senses, devices
from mmstream.sinks.mqtt_topics import Packet, RetainedPicture

Form = Literal["device", "component", "off"]

BIRTH: Final = "online"
"""What Home Assistant says on `<prefix>/status` when it has started."""
SETTLE_NS: Final = 5 * NS_PER_SEC
"""Home Assistant lets go in its own time, and ignores meanwhile what is announced elsewhere."""
_MIGRATE: Final = '{"migrate_discovery": true}'
"""Home Assistant lets go of what this topic announced and keeps what people have set for it."""


@dataclass(frozen=True, slots=True)
class Announced:
    """A configuration on its way to the broker."""

    packet: Packet
    platforms: Mapping[str, str]
    """What it announces: platforms by unique id."""
    retired: Mapping[str, str] = field(default_factory=dict)
    """What it takes back."""


class Discovery:
    """Everything announced to Home Assistant by one node, and what is to be taken back.

    Pure: the same calls give the same packets. All are retained; they are to be sent in order,
    one that replaces another of the same topic in its place or later.
    """

    def __init__(self, form: Form, prefix: str, *, node: str, base: str) -> None:
        """Nothing is announced before the first `Info`, and the `Features` that follow it."""
        self._form = form
        self._prefix = prefix
        self._names = Names(base_topic(node, base))
        self._told: Info | None = None
        self._info: Info | None = None
        """What was told, as soon as it is complete."""
        self._senses: defaultdict[str, Senses] = defaultdict(Senses)
        self._settings: dict[str, tuple[Setting, ...]] = {}
        self._wanted: dict[str, Announced] = {}
        self._known: dict[str, Mapping[str, str]] = {}
        """What the broker may retain of ours: by topic, the platforms by unique id."""
        self._now_ns = 0
        self._moving: dict[str, int] = {}
        """Topics of the other form that Home Assistant is to let go of, and since when."""
        self._is_told_again = False

    @property
    def topics(self) -> tuple[str, ...]:
        """To subscribe to, before anything is published: what comes goes to `heard`."""
        levels = ("status", "device/+/config", "+/+/+/config")
        return tuple(f"{self._prefix}/{below}" for below in levels)

    @property
    def is_announced(self) -> bool:
        """Whether all is told that there is to be told, and what is gone taken back."""
        return self._info is not None or self._form == "off"

    def is_birth(self, topic: str, payload: bytes, *, is_retained: bool) -> bool:
        """Whether Home Assistant has just started: it is to have `packets` and then all states."""
        is_said = topic == f"{self._prefix}/status" and payload == BIRTH.encode()
        return is_said and not is_retained and self._form != "off"

    def update(self, message: Published) -> tuple[Packet, ...]:
        """Take a message in; gives the configurations that it changes.

        What has changed its form is told again and then cleared, as messages show that time passes.
        """
        if not isinstance(message.content, Info | Health | Features):
            return ()  # they come each 10 s; what follows from others would wait with them
        self._now_ns = utc_ns(message.stamp.ts_emit)
        changes = self._taken_in(message.content)
        return self._next_step() or changes

    def _taken_in(self, content: Info | Health | Features) -> tuple[Packet, ...]:
        match content:
            case Info() as info:
                if info == self._told:
                    return ()
                self._told = info
            case Health() as health:
                before = self._senses[health.source]
                self._senses[health.source] = _senses(health, before)
                if self._senses[health.source] == before:
                    return ()
            case Features() as features:
                settings = settings_of(features)
                if self._settings.get(features.source) == settings:
                    return ()
                self._settings[features.source] = settings
        self._take_over()
        return self._changes()

    def _take_over(self) -> None:
        """What can be set is told after the source: without it, switches would go and come back."""
        if self._told is None or self._told == self._info:
            return
        sources = [source.id for source in self._told.sources]
        if "requests" in self._told.capabilities and not self._settings.keys() >= set(sources):
            return
        self._info = self._told
        self._senses = defaultdict(Senses, {name: self._senses[name] for name in sources})
        self._settings = {name: self._settings.get(name, ()) for name in sources}

    def _next_step(self) -> tuple[Packet, ...]:
        """Everything, if it is time: it is told again, and one step later the old is cleared."""
        if not self._moving or self._now_ns < max(self._moving.values()) + SETTLE_NS:
            return ()
        if self._is_told_again:
            packets = tuple(_packet(topic, "") for topic in self._moving)
            self._moving.clear()
            self._is_told_again = False
            return packets
        self._moving = dict.fromkeys(self._moving, self._now_ns)
        self._is_told_again = True
        return tuple(one.packet for one in self._wanted.values())

    def heard(self, topic: str, payload: bytes, *, is_retained: bool) -> tuple[Packet, ...]:
        """Take in what the broker retains; gives what that changes."""
        platforms = self._ours(topic, payload) if is_retained and payload else None
        if platforms is None:
            return ()
        known = self._known.get(topic)
        if known is not None and platforms.items() <= known.items():
            return ()  # at each connection the broker tells us all that we have told it
        self._known[topic] = {**(known or {}), **platforms}
        return self._changes()

    def packets(self) -> tuple[Packet, ...]:
        """All of it as it is now, with what is to be taken back."""
        return self._in_order(self._wanted.values())

    def delivered(self, packets: Iterable[Packet]) -> tuple[Packet, ...]:
        """The broker has these; gives those that are to follow them."""
        is_retired = is_free = False
        for packet in packets:
            wanted = self._wanted.get(packet.topic)
            if wanted is None and not packet.payload:
                is_free = is_free or packet.topic in self._in_the_way()
                self._known.pop(packet.topic, None)
            elif wanted is not None and wanted.packet == packet and wanted.retired:
                self._known[packet.topic] = wanted.platforms
                is_retired = True
        changed = self._changes() if is_retired else ()
        return self.packets() if is_free else changed

    def _changes(self) -> tuple[Packet, ...]:
        before = self._wanted
        self._wanted = {one.packet.topic: one for one in self._announcements()}
        changed = [
            one
            for topic, one in self._wanted.items()
            if topic not in before or before[topic].packet != one.packet
        ]
        packets = self._in_order(changed)
        for topic, one in self._wanted.items():
            self._known[topic] = {**one.retired, **one.platforms}
        return packets

    def _in_order(self, wanted: Iterable[Announced]) -> tuple[Packet, ...]:
        """Let go of the other form, announce, then clear what nobody wants any more.

        What the other form announced together with more than is there now would leave that behind:
        it is cleared first, and announced when the broker has done so.
        """
        if self._info is None and self._form != "off":
            return ()
        in_the_way = self._in_the_way()
        waiting = {unique for platforms in in_the_way.values() for unique in platforms}
        gone = [topic for topic in self._known if topic not in self._wanted]
        living = self._living()
        moved = [
            topic
            for topic in gone
            if topic not in in_the_way and not living.isdisjoint(self._known[topic])
        ]
        self._moving = {topic: self._moving.get(topic, self._now_ns) for topic in moved}
        return (
            *(_packet(topic, _MIGRATE) for topic in moved),
            *(one.packet for one in wanted if waiting.isdisjoint(one.platforms)),
            *(_packet(topic, "") for topic in gone if topic not in self._moving),
        )

    def _living(self) -> set[str]:
        return {unique for one in self._wanted.values() for unique in one.platforms}

    def _in_the_way(self) -> Mapping[str, Mapping[str, str]]:
        """Topics of the other form, and what they announced, of which only a part is there now."""
        living = self._living()
        return {
            topic: platforms
            for topic, platforms in self._known.items()
            if topic not in self._wanted
            and not living.isdisjoint(platforms)
            and not living.issuperset(platforms)
        }

    def _announcements(self) -> Iterable[Announced]:
        if self._info is None or self._form == "off":
            return
        known = {unique for platforms in self._known.values() for unique in platforms}
        of_sources = {
            source.id: Known(
                self._senses_or_known(source.id, known), self._settings.get(source.id, ())
            )
            for source in self._info.sources
        }
        for device in devices(self._info, self._names, of_sources):
            if self._form == "device":
                yield self._as_device(device, self._info.version)
            else:
                yield from self._as_components(device, self._info.version)

    def _senses_or_known(self, source: str, known: set[str]) -> Senses:
        """What health has not told yet is as an earlier boot has announced it."""
        device, senses = self._names.device(source), self._senses[source]
        if senses.video is None:
            senses = replace(senses, video=f"{device}-fps" in known)
        if senses.audio is None:
            senses = replace(senses, audio=f"{device}-level" in known)
        return senses

    def _as_device(self, device: Device, version: str) -> Announced:
        topic = f"{self._prefix}/device/{device.id}/config"
        platforms = {f"{device.id}-{one.key}": one.platform for one in device.entities}
        known = self._known.get(topic, {})
        retired = {unique: known[unique] for unique in known if unique not in platforms}
        components: dict[str, Options] = {  # nothing but its platform: it is taken back
            unique.removeprefix(f"{device.id}-"): {"p": platform}
            for unique, platform in retired.items()
        }
        for one in device.entities:
            components[one.key] = {"p": one.platform, **_identified(device, one)}
        body = {**_context(device, version), **available(device.availability)}
        payload = json.dumps({**body, "cmps": components}, ensure_ascii=False)
        return Announced(_packet(topic, payload), platforms, retired)

    def _as_components(self, device: Device, version: str) -> Iterable[Announced]:
        """Where Home Assistant puts the components of a device: to it both are the same."""
        for one in device.entities:
            topic = f"{self._prefix}/{one.platform}/{device.id}/{one.key}/config"
            body: Options = {**_context(device, version), **available(device.availability)}
            payload = json.dumps({**body, **_identified(device, one)}, ensure_ascii=False)
            platforms = {f"{device.id}-{one.key}": one.platform}
            yield Announced(_packet(topic, payload), platforms)

    def _ours(self, topic: str, payload: bytes) -> Mapping[str, str] | None:
        """What a configuration announces, if it is one of this node; else None."""
        if self._names.node not in topic:
            return None
        device = rf"({re.escape(self._names.node)}(?:-[A-Za-z0-9_-]+)?)"
        prefix = re.escape(self._prefix)
        if found := re.fullmatch(rf"{prefix}/device/{device}/config", topic):
            return {f"{found[1]}-{key}": platform for key, platform in _components(payload)}
        if found := re.fullmatch(rf"{prefix}/(\w+)/{device}/([a-z0-9_]+)/config", topic):
            return {f"{found[2]}-{found[3]}": found[1]}
        return None


class AnnouncedPicture(RetainedPicture):
    """Every retained topic of a node, with those that Home Assistant is to find it by."""

    def __init__(self, form: Form, prefix: str, *, node: str, base: str) -> None:
        """Nothing is known but the node."""
        super().__init__(node=node, base=base)
        self._discovery = Discovery(form, prefix, node=node, base=base)

    @property
    def topics(self) -> tuple[str, ...]:
        """To subscribe to, before anything is published: what comes goes to `heard`."""
        return (*self._discovery.topics, *self.own_topics)

    def heard(self, topic: str, payload: bytes, *, is_retained: bool) -> tuple[Packet, ...]:
        """What to answer: to Home Assistant's birth everything, configurations first."""
        if self._discovery.is_birth(topic, payload, is_retained=is_retained):
            return self.packets()
        if is_retained and payload:
            self.left(topic, payload)
        return (
            *self._discovery.heard(topic, payload, is_retained=is_retained),
            *self._without_ghosts(),
        )

    def update(self, message: Published) -> tuple[Packet, ...]:
        """Take a message in; gives the retained topics that it changes, in order."""
        return (
            *self._discovery.update(message),
            *super().update(message),
            *self._without_ghosts(),
        )

    def packets(self) -> tuple[Packet, ...]:
        """All of it, configurations first; with what is to be cleared."""
        return (*self._discovery.packets(), *super().packets())

    def _without_ghosts(self) -> tuple[Packet, ...]:
        """Home Assistant complains of an empty topic whose entity it still has."""
        return self.without_ghosts() if self._discovery.is_announced else ()

    def settled(self, packets: tuple[Packet, ...]) -> tuple[Packet, ...]:
        """The broker has these; gives those that are to follow them."""
        self.delivered(packets)
        return self._discovery.delivered(packets)


def _packet(topic: str, payload: str) -> Packet:
    return Packet(topic, payload, qos=1, retain=True)


def _senses(health: Health, before: Senses) -> Senses:
    """A source that is online has all that it has; in other states a part of it may say nothing."""
    has_video, has_audio = health.video_fps is not None, health.audio_rms is not None
    if health.state == "online":
        return Senses(has_video, has_audio)
    return Senses(has_video or before.video, has_audio or before.audio)


def _context(device: Device, version: str) -> Options:
    """What a device and an entity announced alone both say of themselves."""
    about: Options = {
        "ids": [device.id],
        "name": device.name,
        "mf": "mmstream",
        "mdl": device.model,
        "sw": version,
        **({} if device.via is None else {"via_device": device.via}),
    }
    return {"dev": dict(about), "o": {"name": "mmstream", "sw": version}}


def _identified(device: Device, entity: Entity) -> Options:
    """Its options; an entity has a unique id, a trigger none."""
    if entity.platform == "device_automation":
        return entity.options
    return {"unique_id": f"{device.id}-{entity.key}", **entity.options}


def _components(payload: bytes) -> Iterable[tuple[str, str]]:
    """Keys and platforms that a device's configuration holds; none where it is not understood."""
    try:
        components = json.loads(payload)["cmps"]
        return [
            (key, one["p"])
            for key, one in components.items()
            if re.fullmatch(r"[a-z0-9_]+", key) and isinstance(one["p"], str)
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
