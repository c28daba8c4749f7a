"""Which MQTT packets follow from a message: its own, and the retained topics it changes."""

from collections import defaultdict
from dataclasses import dataclass

from mmstream.messages import (
    Event,
    Health,
    Info,
    Open,
    Published,
    Stamp,
    base_topic,
    slug,
    subtopic,
)


@dataclass(frozen=True, slots=True)
class Packet:
    """Something to publish."""

    topic: str
    payload: str
    qos: int
    retain: bool


class RetainedPicture:
    """Every retained topic of one node and its value now, so that a new broker can be told all.

    Pure: the same messages give the same picture. It grows with sources and labels, not with time.
    """

    def __init__(self, *, node: str, base: str) -> None:
        """Nothing is known but the node."""
        self._root = base_topic(node, base)
        self._packets: dict[str, Packet] = {}
        self._open: defaultdict[str, dict[str, Event]] = defaultdict(dict)
        self._sources: dict[str, None] = {}

    def packet(self, message: Published) -> Packet:
        """The message itself."""
        content = message.content
        topic = f"{self._root}/{subtopic(content)}"
        return Packet(topic, message.to_json(), content.QOS, content.RETAINED)

    def update(self, message: Published) -> tuple[Packet, ...]:
        """Take a message in; gives the retained topics that it changes, in order."""
        match message.content:
            case Info() as info:
                changes = [self.packet(message), *self._told_sources(info, message.stamp)]
            case Health() as health:
                changes = [self._source_status(health), self.packet(message)]
            case Event() as event:
                changes = self._told_event(event, message.stamp)
            case _:
                changes = []
        self._packets |= {packet.topic: packet for packet in changes}
        return tuple(changes)

    def packets(self) -> tuple[Packet, ...]:
        """All of it, the node's own status first."""
        return (self.node_status("online"), *self._packets.values())

    def now(self, topic: str) -> Packet:
        """One of the topics that `update` has given, as it is now."""
        return self._packets[topic]

    def farewell(self) -> tuple[Packet, ...]:
        """Every source and then the node is offline."""
        offline = (self._status(f"{source}/status", "offline") for source in self._sources)
        return (*offline, self.node_status("offline"))

    def node_status(self, status: str) -> Packet:
        """The node's `online` or `offline`; the latter is also the will."""
        return self._status("status", status)

    def _status(self, topic: str, status: str) -> Packet:
        return Packet(f"{self._root}/{topic}", status, qos=1, retain=True)

    def _source_status(self, health: Health) -> Packet:
        self._sources[health.source] = None
        delivers = health.state in {"online", "degraded"}
        return self._status(f"{health.source}/status", "online" if delivers else "offline")

    def _told_sources(self, info: Info, stamp: Stamp) -> list[Packet]:
        changes: list[Packet] = []
        for source in info.sources:
            self._sources[source.id] = None
            changes.append(self._open_events(source.id, stamp))
            changes += [self._label_state(source.id, label) for label in source.labels]
        return changes

    def _told_event(self, event: Event, stamp: Stamp) -> list[Packet]:
        if event.type == "end":
            self._open[event.source].pop(event.id, None)
        else:
            self._open[event.source][event.id] = event
        changes = [self._open_events(event.source, stamp)]
        state = self._label_state(event.source, event.label)
        if self._packets.get(state.topic) != state:
            changes.append(state)
        return changes

    def _open_events(self, source: str, stamp: Stamp) -> Packet:
        plain = Stamp(**stamp.model_dump(include=set(Stamp.model_fields)))
        events = tuple(self._open[source].values())
        return self.packet(Published(Open(source=source, events=events), plain))

    def _label_state(self, source: str, label: str) -> Packet:
        level = slug(label)
        is_on = any(slug(event.label) == level for event in self._open[source].values())
        return self._status(f"{source}/state/{level}", "ON" if is_on else "OFF")
