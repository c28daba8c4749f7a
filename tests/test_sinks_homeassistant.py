"""What is announced to Home Assistant, and what is taken back; tests/ha has a real one."""

import json
from collections.abc import Iterable, Mapping
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue
from regenerate import FORMS
from sink_messages import NODE, event, features, health, info, published, stats

from mmstream.media import NS_PER_SEC
from mmstream.messages import Content, Features, FeatureState, Info, Published, iso_utc, utc_ns
from mmstream.sinks.homeassistant import AnnouncedPicture, Discovery, Form
from mmstream.sinks.mqtt_topics import Packet

PREFIX = "homeassistant"
ROOT = f"mmstream/{NODE}"
DOOR = "homeassistant/device/mmstream_pi_0ae89c-door/config"

Configuration = Mapping[str, JsonValue]


class Broker:
    """What a broker retains, and a Home Assistant that has listened all the time."""

    def __init__(self) -> None:
        self.retained: dict[str, str] = {}
        self.entities: dict[str, str] = {}
        """The topics that announced them, by unique id, or what a trigger's would be."""
        self.let_go: set[str] = set()
        """Kept until they are announced again."""

    def take(self, packets: Iterable[Packet]) -> tuple[Packet, ...]:
        """As they come; gives them."""
        taken = tuple(packets)
        for packet in taken:
            assert packet.retain
            self.retained.pop(packet.topic, None)
            if packet.payload:
                assert isinstance(packet.payload, str)
                self.retained[packet.topic] = packet.payload
            self._announced(packet)
        return taken

    def serve(self, discovery: Discovery, packets: Iterable[Packet]) -> None:
        """Until nothing follows."""
        while taken := self.take(packets):
            packets = discovery.delivered(taken)

    def greet(self, discovery: Discovery) -> None:
        """As at a new connection: it hears what is retained."""
        for topic, payload in list(self.retained.items()):
            self.serve(discovery, discovery.heard(topic, payload.encode(), is_retained=True))
        self.serve(discovery, discovery.packets())

    def _announced(self, packet: Packet) -> None:
        _, platform, *_ = packet.topic.split("/")
        body = json.loads(packet.payload or "{}")
        if body == {"migrate_discovery": True}:
            self.let_go |= {
                unique for unique, topic in self.entities.items() if topic == packet.topic
            }
        if not body or body == {"migrate_discovery": True}:
            self.entities = {k: v for k, v in self.entities.items() if v != packet.topic}
        elif platform == "device":
            for key, component in body["cmps"].items():
                self._one(packet.topic, f"{body['dev']['ids'][0]}-{key}", component)
        else:
            key = packet.topic.split("/")[-2]
            self._one(packet.topic, f"{body['dev']['ids'][0]}-{key}", body)

    def _one(self, topic: str, unique: str, body: Configuration) -> None:
        if body.keys() == {"p"}:
            assert self.entities.get(unique, topic) == topic
            self.entities.pop(unique, None)
        else:
            assert self.entities.setdefault(unique, topic) == topic, "announced twice"
            self.let_go.discard(unique)


def discovery(form: Form = "device", node: str = NODE, base: str = "mmstream") -> Discovery:
    return Discovery(form, PREFIX, node=node, base=base)


def told(now: Discovery, *contents: Content) -> list[Packet]:
    """All that follows from these contents."""
    return [packet for content in contents for packet in now.update(published(content))]


def later(content: Content, secs: int) -> Published:
    stamp = published(content).stamp
    told_at = iso_utc(utc_ns(stamp.ts_emit) + secs * NS_PER_SEC)
    return Published(content, stamp.model_copy(update={"ts_emit": told_at}))


def sensed(source: str = "door", *, video: bool = True, audio: bool = True) -> Content:
    senses = {"video_fps": 25.0 if video else None, "audio_rms": -40.0 if audio else None}
    return health(source=source).model_copy(update=senses)


def askable(**sources: tuple[str, ...]) -> Info:
    """A node that takes requests: it tells what can be set of each source."""
    return info(**sources).model_copy(update={"capabilities": ("events", "requests")})


def settable(source: str, *names: str) -> Features:
    """Switches of these names."""
    switches = [FeatureState(name=name, value="ON", default="ON", is_set=False) for name in names]
    return Features(source=source, features=tuple(switches))


def test_nothing_is_announced_before_the_node_has_said_what_there_is() -> None:
    now = discovery()
    assert told(now, sensed(), event("e")) == []
    assert now.packets() == ()
    assert [packet.topic for packet in told(now, info())][-1] == DOOR


def test_the_node_comes_before_its_sources() -> None:
    bodies = [json.loads(packet.payload) for packet in told(discovery(), info())]
    assert bodies[1]["dev"]["via_device"] == bodies[0]["dev"]["ids"][0]


def test_a_source_has_sensors_of_what_it_has() -> None:
    now = discovery()
    told(now, info(), sensed(audio=False))
    assert {"fps"} == door(now).keys() & {"fps", "level"}
    told(now, health("stalled"))  # says nothing of either
    assert {"fps"} == door(now).keys() & {"fps", "level"}
    told(now, sensed(video=False))
    assert {"level"} == {key for key, body in door(now).items() if len(body) > 1} & {"fps", "level"}


def door(now: Discovery) -> dict[str, Configuration]:
    (payload,) = [packet.payload for packet in now.packets() if packet.topic == DOOR]
    return cast("dict[str, Configuration]", json.loads(payload)["cmps"])


def test_what_has_not_changed_is_not_said_again() -> None:
    now = discovery()
    assert told(now, info(), sensed())
    assert told(now, info(), sensed(), event("e"), stats()) == []


def test_a_node_that_takes_requests_is_announced_with_all_that_can_be_set() -> None:
    now = discovery()
    assert told(now, askable(), health()) == []
    (_, packet) = told(now, features())
    assert packet.topic == DOOR
    assert {"set_motion", "set_motion_threshold", "restart"} < door(now).keys()
    assert told(now, features(motion="OFF")) == [], "its value is no configuration"


def test_what_can_be_set_stays_while_a_source_comes_and_after_a_restart() -> None:
    broker, now = Broker(), discovery()
    broker.serve(now, told(now, askable(door=("motion",)), features()))
    with_yard = askable(door=("motion",), yard=("motion",))
    for content in (with_yard, features("yard")):
        broker.serve(now, told(now, content))
        assert "state_topic" in door(now)["set_motion"]
    assert len(broker.retained) == 3
    again = discovery()
    broker.greet(again)
    for content in (with_yard, features("yard")):
        assert told(again, content) == []
    broker.greet(again)
    assert len(broker.retained) == 3
    assert '{"p": "switch"}' not in broker.retained[DOOR]
    broker.serve(again, told(again, features()))
    assert "set_motion" in door(again)


def test_what_can_no_longer_be_set_is_taken_back() -> None:
    now = discovery()
    now.delivered(told(now, askable(), settable("door", "video", "motion")))
    told(now, settable("door", "video"))
    assert door(now)["set_motion"] == {"p": "switch"}


def test_a_label_that_is_gone_is_taken_back_and_then_left_out() -> None:
    now = discovery()
    now.delivered(told(now, info(door=("motion", "alarm"))))
    changed = told(now, info(door=("motion",)))
    gone = {key: body for key, body in door(now).items() if "alarm" in key}
    assert gone["state_alarm"] == {"p": "binary_sensor"}
    assert gone["started_alarm"] == {"p": "device_automation"}
    tidied = now.delivered(changed)
    assert [packet.topic for packet in tidied] == [DOOR]
    assert not [key for key in door(now) if "alarm" in key]
    assert now.delivered(tidied) == ()


def test_birth_is_what_home_assistant_says_itself_and_just_now() -> None:
    now = discovery()
    assert now.is_birth("homeassistant/status", b"online", is_retained=False)
    assert not now.is_birth("homeassistant/status", b"online", is_retained=True)
    assert not now.is_birth("homeassistant/status", b"offline", is_retained=False)
    assert not now.is_birth("homeassistant/other", b"online", is_retained=False)


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("homeassistant/device/mmstream_pi_0ae89d-door/config", b'{"cmps": {}}'),
        ("homeassistant/device/zigbee2mqtt_0x1/config", b'{"cmps": {"a": {"p": "sensor"}}}'),
        ("homeassistant/sensor/mmstream_pi_0ae89d-door/fps/config", b"{}"),
        ("homeassistant/status", b"online"),
    ],
)
def test_what_others_have_announced_is_left_alone(topic: str, payload: bytes) -> None:
    now = discovery()
    told(now, info())
    assert now.heard(topic, payload, is_retained=True) == ()


@pytest.mark.parametrize("payload", [b"no json", b"[]", b"7", b'{"cmps": [1]}', b"[" * 100_000])
def test_what_cannot_be_read_is_replaced(payload: bytes) -> None:
    now = discovery()
    told(now, info())
    yard = DOOR.replace("door", "yard")
    assert now.heard(yard, payload, is_retained=True) == (Packet(yard, "", 1, retain=True),)


def test_ids_of_different_things_differ() -> None:
    pairs = (("pi", "door_x"), ("pi_door", "x"), ("pi", "door"), ("pi-door", "x"), ("pi", "door-x"))
    topics: set[str] = set()
    for node, source in pairs:
        now = discovery(node=node)
        found = {packet.topic for packet in told(now, info(**{source: ("motion",)}))}
        assert topics.isdisjoint(found) or node == "pi"
        topics |= found
    assert len(topics) == 3 + 5  # three nodes, five sources


@pytest.mark.parametrize("base", ["house/mm stream", "mmstream"])
def test_ids_hold_only_what_home_assistant_takes(base: str) -> None:
    for form in FORMS:
        for packet in told(discovery(form, base=base), info()):
            for level in packet.topic.split("/"):
                assert level.replace("-", "").replace("_", "").isalnum(), packet.topic


def test_the_picture_of_a_node_begins_with_what_home_assistant_finds_it_by() -> None:
    picture = AnnouncedPicture("device", PREFIX, node=NODE, base="mmstream")
    changes = picture.update(published(info()))
    assert [packet.topic for packet in changes][:3] == [
        DOOR.replace("-door", ""),
        DOOR,
        f"{ROOT}/info",
    ]
    assert picture.settled(changes) == ()
    birth = picture.heard("homeassistant/status", b"online", is_retained=False)
    assert birth == picture.packets()
    kinds = [packet.topic.startswith(PREFIX) for packet in birth]
    assert kinds == sorted(kinds, reverse=True), "configurations first, then states"
    assert {f"{ROOT}/status", f"{ROOT}/door/state/motion"} < {packet.topic for packet in birth}
    assert picture.heard("homeassistant/status", b"online", is_retained=True) == ()


def test_another_form_is_told_again_and_then_the_old_one_is_cleared() -> None:
    broker, now = Broker(), discovery("device")
    before = discovery("component")
    broker.serve(before, told(before, info(), sensed()))
    broker.greet(now)
    changes = told(now, info())
    assert {packet.payload for packet in changes[:-2]} == {'{"migrate_discovery": true}'}
    assert now.update(later(event("e"), 9)) == (), "only what is retained is sent at once"
    again = now.update(later(health(), 9))
    assert [packet.topic for packet in again][-1] == DOOR
    assert now.update(later(health(), 12)) == ()
    assert {packet.payload for packet in now.update(later(health(), 20))} == {""}


boots = st.lists(
    st.tuples(
        st.sampled_from(["device", "component", "off"]),
        st.lists(
            st.dictionaries(
                st.sampled_from(["door", "yard", "door-x"]),
                st.lists(st.sampled_from(["motion", "motion_x", "alarm"]), unique=True, max_size=3),
                min_size=1,
            ),
            min_size=1,
            max_size=3,
        ),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=60)
@given(boots)
def test_after_any_history_there_is_what_the_last_boot_has_and_nothing_else(
    history: list[tuple[Form, list[dict[str, list[str]]], bool]],
) -> None:
    broker = Broker()
    for form, changes, has_sound in history:
        now = discovery(form)
        broker.greet(now)
        last: list[Content] = []
        for sources in changes:
            last = [askable(**{name: tuple(labels) for name, labels in sources.items()})]
            last += [settable(name, "enabled", *labels) for name, labels in sources.items()]
            last += [sensed(name, audio=has_sound) for name in sources]
            for content in last:
                broker.serve(now, now.update(published(content)))
        for secs in (10, 20):
            broker.serve(now, now.update(later(last[-1], secs)))
    fresh, expected = discovery(form), Broker()
    for content in last:
        expected.serve(fresh, fresh.update(published(content)))
    assert broker.retained == expected.retained
    assert broker.entities == expected.entities
    assert broker.let_go == set()
    broker.greet(now)  # a connection later
    assert broker.retained == expected.retained
