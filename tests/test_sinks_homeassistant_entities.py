"""The options of what is announced to Home Assistant; tests/ha has a real one.

They are those of https://www.home-assistant.io/integrations/mqtt/ and `binary_sensor.mqtt`,
`sensor.mqtt`, `event.mqtt`, `image.mqtt`, `button.mqtt`, `switch.mqtt`, `number.mqtt`,
`select.mqtt`, `update.mqtt` and `device_trigger.mqtt` there, as of release 2024.12.
"""

import json
from collections.abc import Mapping
from typing import cast

import pytest
from jinja2 import Environment
from pydantic import JsonValue
from regenerate import FORMS, LABELS, announced, announced_file
from sink_messages import caption, event, info, published, stats

from mmstream.messages import NumberedStamp, Published, Request, StageReport, slug
from mmstream.sinks.homeassistant import Form
from mmstream.sinks.homeassistant_device import LOOKS

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
    "switch": {"unique_id", "command_topic"},
    "number": {"unique_id", "command_topic"},
    "update": {"unique_id", "state_topic"},
    "select": {"unique_id", "command_topic", "options"},
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
    "switch": ENTITY | {"command_topic", "state_topic"},
    "number": ENTITY | {"command_topic", "state_topic", "min", "max", "step"},
    "select": ENTITY
    | {"command_topic", "command_template", "options", "state_topic", "value_template"},
    "update": READING | {"latest_version_topic", "title"},
    "device_automation": {
        *("automation_type", "payload", "qos", "subtype", "topic", "type", "value_template"),
    },
}
CONTEXT = {"dev", "o", "availability", "availability_mode"}

NODE_ID = "mmstream_pi_0ae89c"

Configuration = Mapping[str, JsonValue]


def components(form: Form, device: str = "-front_door") -> dict[str, Configuration]:
    """Of the golden door, or the node: options by key, without what belongs to the device."""
    found: dict[str, Configuration] = {}
    for topic, body in announced(form).items():
        assert isinstance(body, dict)
        if f"{NODE_ID}{device}/" not in topic:
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
    said = json.loads(message.to_json())
    return jinja.from_string(template).render(value_json=said, this={"state": "before"})


@pytest.mark.parametrize("form", FORMS)
def test_what_is_announced_is_as_before(form: Form) -> None:
    assert announced(form) == json.loads(announced_file(form).read_text("utf-8"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("device", ["-front_door", ""])
def test_only_documented_options_are_used(form: Form, device: str) -> None:
    for key, body in components(form, device).items():
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


def test_a_caption_that_takes_back_what_was_never_shown_leaves_the_last_one() -> None:
    template = components("device")["caption"]["value_template"]
    assert rendered(template, published(caption("final", "so it is"))) == "so it is"
    assert rendered(template, published(caption("final", ""))) == "before"


def test_a_long_caption_is_cut_and_whole_in_an_attribute() -> None:
    body = components("device")["caption"]
    message = published(caption("final", "ä" * 300))
    assert rendered(body["value_template"], message) == "ä" * 255
    assert json.loads(rendered(body["json_attributes_template"], message))["text"] == "ä" * 300


def test_the_update_entity_knows_our_version_and_asks_nobody_for_another() -> None:
    body = components("device", "")["update"]
    assert body["state_topic"] == "mmstream/pi/info"
    assert rendered(body["value_template"], published(info())) == "0.1.0"
    assert body["latest_version_topic"] == "mmstream/release"
    assert "command_topic" not in body


def test_the_log_level_is_selected_by_a_request_and_shown_as_the_node_says() -> None:
    body = components("device", "")["log_level"]
    assert body["options"] == ["debug", "info", "warning"]
    assert rendered(body["value_template"], published(info())) == "warning"
    jinja = Environment(autoescape=False)  # noqa: S701 - what it renders is no HTML
    asked = jinja.from_string(str(body["command_template"])).render(value="debug")
    assert Request("log_level", asked).command().arguments == {"level": "debug"}
    assert body["command_topic"] == "mmstream/pi/request/log_level"


def test_latency_and_drops_are_those_of_the_source() -> None:
    stages = {
        "heads/front_door": StageReport(n_in=9, n_out=9, dropped={"a": 2}, lag_ms=21.5),
        "capture/front_door": StageReport(n_in=9, n_out=9, dropped={"b": 3, "c": 4}),
        "capture/back_door": StageReport(n_in=9, n_out=9, dropped={"b": 50}),
        "outlet/front_door": StageReport(n_in=9, n_out=9, dropped={"b": 50}),  # a sink's
    }
    message = published(stats().model_copy(update={"stages": stages}))
    door = components("device")
    assert rendered(door["latency"]["value_template"], message) == "21.5"
    assert rendered(door["drops"]["value_template"], message) == "9"
    assert rendered(door["latency"]["value_template"], published(stats())) == "None"
    assert rendered(door["drops"]["value_template"], published(stats())) == "0"


def test_what_can_be_set_hangs_on_the_node_alone() -> None:
    root = "mmstream/pi/front_door"
    for key, body in components("device").items():
        if body["p"] not in {"switch", "number", "button"}:
            continue
        assert body["availability"] == [{"topic": "mmstream/pi/status"}], key
        assert body["entity_category"] == "config"
        if body["p"] != "button":
            feature = key.removeprefix("set_")
            assert body["state_topic"] == f"{root}/{feature}"
            assert body["command_topic"] == f"{root}/{feature}/set"


def test_every_feature_is_a_switch_or_a_number_with_its_range() -> None:
    door = components("device")
    found = {key: body for key, body in door.items() if body["p"] in {"switch", "number"}}
    levels = [slug(label) for label in LABELS]
    features = ["enabled", "video", "audio", *levels, *(f"{level}_threshold" for level in levels)]
    assert list(found) == [f"set_{feature}" for feature in features]
    for key, body in found.items():
        is_number = key.endswith("_threshold")
        assert body["p"] == ("number" if is_number else "switch")
        span = (0.05, 1, 0.01) if is_number else (None, None, None)
        assert (body.get("min"), body.get("max"), body.get("step")) == span
    assert not door.keys() & {"enable", "disable"}, "the switch replaces these buttons"


MODEL = (
    *("dog_bark", "rooster", "baby_cry", "person_sneeze", "clock_tick"),
    *("rain", "sea_waves", "fire_crackling", "helicopter", "chainsaw"),
)


def test_what_a_model_hears_is_shown_as_a_sound_with_a_picture_of_its_own() -> None:
    looks = [LOOKS[label] for label in MODEL]
    assert {look.device_class for look in looks} == {"sound"}
    icons = [look.icon or "" for look in looks]
    assert len(set(icons)) == len(MODEL)
    assert all(icon.startswith("mdi:") for icon in icons)
    assert LOOKS["unusual"].device_class is None
