"""Which MQTT packets follow from a message: its own, and the retained topics it changes."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from mmstream.messages import (
    RESERVED_SOURCES,
    Event,
    Features,
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
    payload: str | bytes
    """Text, or a picture. Empty and retained: the topic is cleared."""
    qos: int
    retain: bool

    def encoded(self) -> bytes:
        """The payload as it is sent."""
        if isinstance(self.payload, bytes):
            return self.payload
        # half a surrogate pair (from a file name, or out of a request) must not end the connection
        return self.payload.encode(errors="replace")


class RetainedPicture:
    """Every retained topic of one node and its value now, so that a new broker can be told all.

    Pure: the same messages give the same picture. It grows with sources and labels, not with time.
    From the first `Info` on it shows the sources that the last one names: topics of another are
    cleared, and what is said about it is set aside, for the next `Info` to show or to forget.
    """

    def __init__(self, *, node: str, base: str) -> None:
        """Nothing is known but the node."""
        self._root = base_topic(node, base)
        self._packets: dict[str, Packet] = {}
        self._aside: dict[str, Packet] = {}
        self._open: defaultdict[str, dict[str, Event]] = defaultdict(dict)
        self._sources: dict[str, None] = {}
        self._left: dict[str, None] = {}
        """What the broker retains, as long as it is not known which sources there are."""
        self._is_informed = False

    @property
    def own_topics(self) -> tuple[str, ...]:
        """To subscribe to until the picture is out: what is retained there goes to `left`.

        None of them is called as a verb: requests are not to come twice.
        """
        return (f"{self._root}/+/features", f"{self._root}/+/state/+")

    def left(self, topic: str, payload: bytes) -> None:
        """Take in what the broker retains."""
        if not topic.startswith(f"{self._root}/"):
            return
        source, _, rest = topic.removeprefix(f"{self._root}/").partition("/")
        if not rest or source in RESERVED_SOURCES:
            return
        names = [rest]
        if rest == "features":
            names += ["status", "health", "open", "snapshot", *_feature_names(payload)]
        self._left |= {f"{self._root}/{source}/{name}": None for name in names}

    def without_ghosts(self) -> tuple[Packet, ...]:
        """What clears topics that an earlier boot left, of sources that there are no more."""
        if not self._is_informed:
            return ()
        left = [Packet(topic, "", qos=1, retain=True) for topic in self._left]
        self._left.clear()
        return self._shown(
            [one for one in left if not (one.topic in self._packets or self._is_of_the_living(one))]
        )

    def packet(self, message: Published) -> Packet:
        """The message itself."""
        content = message.content
        topic = f"{self._root}/{subtopic(content)}"
        return Packet(topic, message.to_json(), content.QOS, content.RETAINED)

    def update(self, message: Published) -> tuple[Packet, ...]:
        """Take a message in; gives the retained topics that it changes, in order."""
        match message.content:
            case Info() as info:
                return self._shown([self.packet(message), *self._informed(info, message.stamp)])
            case Health() as health:
                if not self._is_informed:
                    self._sources[health.source] = None
                changes = [self._source_status(health), self.packet(message)]
                return self._shown_or_aside(health.source, changes)
            case Features() as features:
                changes = [self.packet(message), *self._feature_states(features)]
                return self._shown_or_aside(features.source, changes)
            case Event() as event:
                changes = self._told_event(event, message.stamp)
                return self._shown_or_aside(event.source, changes)
            case _:
                return ()

    def show(self, source: str, jpeg: bytes) -> tuple[Packet, ...]:
        """Take in the newest picture of a source; gives the retained topics that it changes."""
        topic = f"{self._root}/{source}/snapshot"
        return self._shown_or_aside(source, [Packet(topic, jpeg, qos=0, retain=True)])

    def packets(self) -> tuple[Packet, ...]:
        """All of it, the node's own status first; with what is to be cleared."""
        return (self.node_status("online"), *self._packets.values())

    def now(self, packets: Iterable[Packet]) -> tuple[Packet, ...]:
        """The same topics as they are now, but for those that are cleared."""
        topics = (packet.topic for packet in packets if self.shows(packet))
        return tuple(self._packets[topic] for topic in topics)

    def shows(self, packet: Packet) -> bool:
        """Whether its topic is still in the picture; once cleared, nothing old may follow."""
        known = self._packets.get(packet.topic)
        return known is not None and bool(known.payload)

    def delivered(self, packets: Iterable[Packet]) -> None:
        """The broker has these: what they have cleared need not be cleared again."""
        for packet in packets:
            if not packet.payload and self._packets.get(packet.topic) is packet:
                del self._packets[packet.topic]

    def farewell(self) -> tuple[Packet, ...]:
        """Every source and then the node is offline."""
        offline = (self._status(f"{source}/status", "offline") for source in self._sources)
        return (*offline, self.node_status("offline"))

    def node_status(self, status: str) -> Packet:
        """The node's `online` or `offline`; the latter is also the will."""
        return self._status("status", status)

    def _status(self, topic: str, status: str) -> Packet:
        return Packet(f"{self._root}/{topic}", status, qos=1, retain=True)

    def _shown(self, changes: list[Packet]) -> tuple[Packet, ...]:
        self._packets |= {packet.topic: packet for packet in changes}
        return tuple(changes)

    def _shown_or_aside(self, source: str, changes: list[Packet]) -> tuple[Packet, ...]:
        if self._is_informed and source not in self._sources:
            self._aside |= {packet.topic: packet for packet in changes}
            return ()
        return self._shown(changes)

    def _source_status(self, health: Health) -> Packet:
        delivers = health.state in {"online", "degraded"}
        return self._status(f"{health.source}/status", "online" if delivers else "offline")

    def _feature_states(self, features: Features) -> list[Packet]:
        """Those that have changed."""
        root = features.source
        states = [self._status(f"{root}/{one.name}", one.text()) for one in features.features]
        return [state for state in states if self._packets.get(state.topic) != state]

    def _informed(self, info: Info, stamp: Stamp) -> list[Packet]:
        self._is_informed = True
        self._sources = dict.fromkeys(source.id for source in info.sources)
        for forgotten in self._open.keys() - self._sources:
            del self._open[forgotten]
        gone = [one for one in self._packets.values() if not self._is_of_the_living(one)]
        changes = [replace(one, payload="") for one in gone if one.payload]
        changes += [one for one in self._aside.values() if self._is_of_the_living(one)]
        self._aside.clear()
        for source in info.sources:
            changes.append(self._open_events(source.id, stamp))
            changes += [self._label_state(source.id, label) for label in source.labels]
        return changes

    def _is_of_the_living(self, packet: Packet) -> bool:
        source, _, rest = packet.topic.removeprefix(f"{self._root}/").partition("/")
        return not rest or source in self._sources

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
        events = tuple(sorted(self._open[source].values(), key=lambda event: event.t_start))
        return self.packet(Published(Open(source=source, events=events), plain))

    def _label_state(self, source: str, label: str) -> Packet:
        level = slug(label)
        is_on = any(slug(event.label) == level for event in self._open[source].values())
        return self._status(f"{source}/state/{level}", "ON" if is_on else "OFF")


def _feature_names(payload: bytes) -> tuple[str, ...]:
    """Which topics a retained `features` speaks of; none where it is not understood."""
    try:
        names = [str(one["name"]) for one in json.loads(payload)["features"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ()
    # anybody may have retained it: what cannot be a topic of ours would end the sink
    return tuple(name for name in names if re.fullmatch("[a-z0-9_]{1,256}", name))
