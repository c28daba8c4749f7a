"""What is announced to Home Assistant; tests/ha has a real one.

The options of the platforms are those of https://www.home-assistant.io/integrations/mqtt/ and
`binary_sensor.mqtt`, `sensor.mqtt`, `event.mqtt`, `image.mqtt`, `button.mqtt` and
`device_trigger.mqtt` there, as of release 2024.12.
"""

import json
from collections.abc import Iterable, Mapping
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment
from pydantic import JsonValue
from regenerate import FORMS, LABELS, announced, announced_file
from sink_messages import NODE, caption, event, health, info, published, stats

from mmstream.media import NS_PER_SEC
from mmstream.messages import Content, NumberedStamp, Published, StageReport, iso_utc, slug, utc_ns
from mmstream.sinks.homeassistant import AnnouncedPicture, Discovery, Form
from mmstream.sinks.mqtt_topics import Packet

PREFIX = "homeassistant"
ROOT = f"mmstream/{NODE}"
DOOR = "homeassistant/device/mmstream_pi_0ae89c-door/config"
ENTITY = {
    "unique_id",
    "name",
    "availability",
    "availability_mode",
    "entity_category",
    "icon",
    "qos",
}
READING = ENTITY | {"state_topic", "value_template", "device_class"}
ATTRIBUTES = {"json_attributes_topic", "json_attributes_template"}
REQUIRED: dict[str, set[str]] = {
    "binary_sensor": {"unique_id", "state_topic"},
    "sensor": {"unique_id", "state_topic"},
    "event": {"unique_id", "state_topic", "event_types"},
    "image": {"unique_id", "image_topic"},
    "button": {"unique_id", "command_topic"},
    "device_automation": {"automation_type", "topic", "type", "subtype"},
}
DOCUMENTED: dict[str, set[str]] = {
    "binary_sensor": READING | {"payload_on", "payload_off"},
    "sensor": READING
    | ATTRIBUTES
    | {"unit_of_measurement", "state_class", "options", "suggested_display_precision"},
    "event": READING | {"event_types"},
    "image": ENTITY | {"image_topic", "content_type"},
    "button": ENTITY | {"command_topic", "payload_press", "device_class"},
    "device_automation": {
        *("automation_type", "payload", "qos", "subtype", "topic", "type", "value_template"),
    },
}
CONTEXT = {"dev", "o", "availability", "availability_mode"}

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


def components(form: Form) -> dict[str, Configuration]:
    """Of the golden door: options by key, without what belongs to the device."""
    found: dict[str, Configuration] = {}
    for topic, body in announced(form).items():
        assert isinstance(body, dict)
        if "front_door" not in topic:
            continue
        if form == "device":
            found |= cast("dict[str, Configuration]", body["cmps"])
        else:
            key = topic.split("/")[-2]
            found[key] = {"p": topic.split("/")[1], **body}
    return found


def rendered(template: JsonValue, message: Published) -> str:
    """As Home Assistant renders it, with what it has from Jinja itself."""
    assert isinstance(template, str)
    jinja = Environment(autoescape=False)  # noqa: S701 - what it renders is no HTML
    return jinja.from_string(template).render(value_json=json.loads(message.to_json()))


@pytest.mark.parametrize("form", FORMS)
def test_what_is_announced_is_as_before(form: Form) -> None:
    assert announced(form) == json.loads(announced_file(form).read_text("utf-8"))


@pytest.mark.parametrize("form", FORMS)
def test_only_documented_options_are_used(form: Form) -> None:
    for key, body in components(form).items():
        platform = body["p"]
        assert isinstance(platform, str)
        options = body.keys() - {"p"} - (CONTEXT if form == "component" else set())
        assert options <= DOCUMENTED[platform], key
        assert body.keys() >= REQUIRED[platform], key


def test_a_device_says_who_it_is_who_says_so_and_when_it_is_there() -> None:
    (door,) = [body for topic, body in announced("device").items() if "front_door" in topic]
    assert isinstance(door, dict)
    assert door.keys() == {"dev", "o", "availability", "availability_mode", "cmps"}
    assert door["availability_mode"] == "all"
    topics = ("mmstream/pi/status", "mmstream/pi/front_door/status")
    assert door["availability"] == [{"topic": topic} for topic in topics]
    assert isinstance(door["o"], dict)
    assert door["o"]["name"] == "mmstream"


def test_both_forms_say_the_same() -> None:
    whole, single = components("device"), components("component")
    assert whole.keys() == single.keys()
    for key, body in whole.items():
        assert single[key].items() >= body.items(), key


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("step", ["start", "update", "end"])
def test_an_event_entity_tells_the_start_and_the_end_of_its_own_label(
    label: str, step: str
) -> None:
    for key, body in components("device").items():
        if body["p"] != "event":
            continue
        message = published(event("e", step, label=label))  # type: ignore[arg-type]  # a literal
        text = rendered(body["value_template"], message)
        is_meant = body == components("device")[f"event_{slug(label)}"] and step != "update"
        assert bool(text) == is_meant, key
        if is_meant:
            payload = json.loads(text)
            assert payload["event_type"] == step
            assert payload["event_type"] in cast("list[str]", body["event_types"])
            assert payload["id"] == "e"
            assert payload["late"] is False


def test_a_trigger_fires_at_its_moment_unless_that_is_long_past() -> None:
    trigger = components("device")["started_motion"]
    for step, is_late, fires in (
        ("start", False, True),
        ("start", True, False),
        ("end", False, False),
    ):
        prompt = published(event("e", step, label="motion"))  # type: ignore[arg-type]  # a literal
        assert isinstance(prompt.stamp, NumberedStamp)
        stamp = prompt.stamp.model_copy(update={"late": is_late})
        text = rendered(trigger["value_template"], Published(prompt.content, stamp))
        assert (text == trigger["payload"]) is fires


def test_a_long_caption_is_cut_and_whole_in_an_attribute() -> None:
    body = components("device")["caption"]
    message = published(caption("final", "ä" * 300))
    assert rendered(body["value_template"], message) == "ä" * 255
    assert json.loads(rendered(body["json_attributes_template"], message))["text"] == "ä" * 300


def test_latency_and_drops_are_those_of_the_source() -> None:
    stages = {
        "heads/front_door": StageReport(n_in=9, n_out=9, dropped={"a": 2}, lag_ms=21.5),
        "capture/front_door": StageReport(n_in=9, n_out=9, dropped={"b": 3, "c": 4}),
        "capture/back_door": StageReport(n_in=9, n_out=9, dropped={"b": 50}),
    }
    message = published(stats().model_copy(update={"stages": stages}))
    door = components("device")
    assert rendered(door["latency"]["value_template"], message) == "21.5"
    assert rendered(door["drops"]["value_template"], message) == "9"
    assert rendered(door["latency"]["value_template"], published(stats())) == "None"
    assert rendered(door["drops"]["value_template"], published(stats())) == "0"


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
            last = [info(**{name: tuple(labels) for name, labels in sources.items()})]
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
