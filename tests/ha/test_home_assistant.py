"""The program beside a real Home Assistant and a real mosquitto: `make test-ha`."""

import json
import re
from pathlib import Path

import pytest
import yaml
from brokers import Listener, Mosquitto, say
from ha.home_assistant import HomeAssistant
from ha.program import SHAPES, Form, configurations, ours, running
from programs import ROOT
from pydantic import JsonValue
from regenerate import LABELS, announced_file
from sink_messages import caption, event, info, published

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

CLIP = "surveillance/car_detection.mp4"
"""A car passes from 4.4 s to 9.0 s (golden/car_detection.json)."""


def platforms(broker: Mosquitto) -> set[str]:
    return {topic.split("/")[1] for topic in configurations(broker)}


def wait_for_form(home: HomeAssistant, broker: Mosquitto, form: Form) -> None:
    """Until what the other form announced is cleared."""
    home.wait_until(
        lambda: all((kind == "device") == (form == "device") for kind in platforms(broker)), form
    )


@pytest.mark.usefixtures("_nothing_is_left")
def test_a_clip_is_seen_as_it_plays(
    broker: Mosquitto, home: HomeAssistant, form: Form, data_dir: Path, tmp_path: Path
) -> None:
    clip: JsonValue = {"type": "media", "url": str(data_dir / CLIP), "pace": "realtime"}
    with running(tmp_path, broker, form, {"door": clip}):
        home.wait_for("binary_sensor.door_connection", "on")
        home.wait_for("binary_sensor.door_motion", "off")
        home.wait_for("binary_sensor.mmstream_pi_connection", "on")
        assert home.state("event.door_motion") == "unknown"
        home.wait_for("binary_sensor.door_motion", "on")
        home.wait_until(lambda: home.state("event.door_motion") != "unknown", "the event")
        told = home.states()["event.door_motion"].attributes
        assert told["event_type"] == "start"
        assert told["event_types"] == ["start", "end"]
        assert told["late"] is False
        assert told["ts_start"] == "1970-01-01T00:00:04.400Z"
        home.wait_for("binary_sensor.door_motion", "off")
        home.wait_until(
            lambda: home.states()["event.door_motion"].attributes["event_type"] == "end", "the end"
        )
        assert home.states()["event.door_motion"].attributes["end_reason"] == "quiet"
        home.wait_for("sensor.door_frame_rate", "12.5")
        states = home.states()
        assert float(states["sensor.door_latency"].state) > 0
        assert states["sensor.door_dropped"].state == "0"
        assert float(states["sensor.door_sound_level"].state) == -120
        assert states["sensor.door_sound_level"].attributes["unit_of_measurement"] == "dBFS"
        assert states["sensor.door_health"].state == "online"
        assert states["sensor.door_health"].attributes["reason"] == "streaming"
        classes = {
            name: states[f"binary_sensor.door_{name}"].attributes.get("device_class")
            for name in ("motion", "presence", "loud", "alarm", "camera_blocked", "connection")
        }
        assert classes == {
            "motion": "motion",
            "presence": "occupancy",
            "loud": "sound",
            "alarm": "safety",
            "camera_blocked": "problem",
            "connection": "connectivity",
        }
    home.wait_for("binary_sensor.door_motion", "unavailable")
    home.wait_for("binary_sensor.mmstream_pi_connection", "off")


@pytest.mark.usefixtures("_nothing_is_left")
def test_what_is_removed_leaves_no_ghosts(
    broker: Mosquitto, home: HomeAssistant, form: Form, tmp_path: Path
) -> None:
    with running(tmp_path, broker, form, {"door": SHAPES, "yard": SHAPES}):
        home.wait_for("binary_sensor.door_alarm", "on", "off")
        home.wait_for("binary_sensor.yard_alarm", "on", "off")
        say(broker.port, "mmstream/pi/request/remove", '{"source": "yard"}')
        home.wait_until(
            lambda: not [one for one in ours(home) if ".yard_" in one], "the yard is gone"
        )
    with running(tmp_path, broker, form, {"door": SHAPES}, alarm=False):  # while we were away
        home.wait_for("binary_sensor.door_alarm", "")
        home.wait_for("event.door_alarm", "")
        home.wait_for("binary_sensor.door_loud", "on", "off")
    left = configurations(broker)
    assert left
    assert not [topic for topic in left if "alarm" in topic or "alarm" in left[topic]]


@pytest.mark.usefixtures("_nothing_is_left")
def test_home_assistant_that_starts_later_is_told_all(
    broker: Mosquitto, home: HomeAssistant, form: Form, tmp_path: Path
) -> None:
    with running(tmp_path, broker, form, {"door": SHAPES}):
        home.wait_for("binary_sensor.door_motion", "on", "off")
        with Listener(broker.port) as listener:
            for topic in configurations(broker):  # the broker has lost its memory
                listener.say(topic, "", retain=True)
            home.wait_until(lambda: not ours(home), "all is gone")
            listener.say("homeassistant/status", "online")
        home.wait_for("binary_sensor.door_motion", "on", "off")
        home.wait_for("binary_sensor.door_connection", "on")


def test_another_form_keeps_what_people_have_set(
    broker: Mosquitto, home: HomeAssistant, tmp_path: Path
) -> None:
    if not home.knows_devices:
        pytest.skip("this Home Assistant is older than 2024.11")
    with running(tmp_path, broker, "component", {"door": SHAPES}):
        home.wait_for("binary_sensor.door_motion", "on", "off")
        home.stop()
        home.rename("binary_sensor.door_motion", "binary_sensor.somebody_comes")
        home.start()
        home.wait_for("binary_sensor.somebody_comes", "on", "off")
    forms: tuple[Form, ...] = ("device", "component")
    for form in forms:
        home.wait_for("binary_sensor.somebody_comes", "unavailable")
        with running(tmp_path, broker, form, {"door": SHAPES}):
            home.wait_for("binary_sensor.somebody_comes", "on", "off")
            home.wait_until(lambda: "event.door_loud" in home.states(), "all is there")
            assert not [one for one in ours(home) if one.endswith("_2")]
            wait_for_form(home, broker, form)
            home.wait_for("binary_sensor.somebody_comes", "on", "off")
            assert not [one for one in ours(home) if one.endswith("_2")]
    with running(tmp_path, broker, "off", {"door": SHAPES}):
        home.wait_for("binary_sensor.somebody_comes", "")


@pytest.mark.usefixtures("_nothing_is_left")
def test_ids_stay_over_restarts(
    broker: Mosquitto, home: HomeAssistant, form: Form, tmp_path: Path
) -> None:
    registries = []
    for _ in range(2):
        with running(tmp_path, broker, form, {"door": SHAPES}):
            home.wait_for("binary_sensor.door_motion", "on", "off")
            home.wait_until(lambda: "sensor.door_frame_rate" in home.states(), "all is there")
            home.stop()
            registries.append(home.registry())
            home.start()
            home.wait_for("binary_sensor.door_motion", "on", "off")
    assert registries[0] == registries[1]
    ids = {one.entity_id for one in registries[0].values()}
    assert {"binary_sensor.door_motion", "event.door_motion", "switch.door_motion"} <= ids
    assert {"button.door_restart", "number.door_motion_threshold"} <= ids


@pytest.mark.usefixtures("_nothing_is_left")
def test_the_automations_of_the_page_fire(
    broker: Mosquitto, home: HomeAssistant, form: Form, data_dir: Path, tmp_path: Path
) -> None:
    automations = documented_automations()
    assert len(automations) == 6
    clip: JsonValue = {"type": "media", "url": str(data_dir / CLIP), "pace": "realtime"}
    looks: dict[str, JsonValue] = {"speech": {}, "face": {}}
    with running(tmp_path, broker, form, {"front_door": clip}, snapshots={}, **looks):
        home.wait_for("binary_sensor.front_door_motion", "off")
        home.automate([*automations, triggered_by_device(home)])
        home.wait_until(lambda: len(fired(home)) == 7, "all are taken in")
        before = fired(home)  # beside another form, it may be
        home.wait_for("binary_sensor.front_door_motion", "on")
        light = "light_while_something_moves_at_the_door"
        seen = {light, "by_device", "a_picture_of_the_door"}
        home.wait_until(lambda: seen <= fired_since(before, home), "three have fired")
        say(broker.port, "mmstream/pi/front_door/state/alarm", "ON")
        say(broker.port, "mmstream/pi/front_door/state/camera_blocked", "ON")
        heard = {"a_smoke_alarm_sounds", "something_is_wrong_with_the_camera"}
        home.wait_until(lambda: heard <= fired_since(before, home), "two more have fired")
        spoken = published(event("e", label="person_speaking", source="front_door"))
        said = spoken.to_json()
        say(broker.port, spoken.topic, said.replace('"late":false', '"late":true'))
        home.wait_until(lambda: is_late(home) is True, "what is late is told")
        assert "somebody_speaks_at_the_door" not in fired_since(before, home)
        say(broker.port, spoken.topic, said)
        home.wait_until(
            lambda: "somebody_speaks_at_the_door" in fired_since(before, home), "it fires"
        )
        home.pretend("zone.home", "1")
        home.wait_for("switch.front_door_enabled", "off")
        home.pretend("zone.home", "0")
        home.wait_for("switch.front_door_enabled", "on")


@pytest.mark.usefixtures("_nothing_is_left")
def test_a_picture_comes_with_events_and_goes_with_the_setting(
    broker: Mosquitto, home: HomeAssistant, form: Form, tmp_path: Path
) -> None:
    image, topic = "image.door_snapshot", "mmstream/pi/door/snapshot"
    with running(tmp_path, broker, form, {"door": SHAPES}, snapshots={"width": 320}):
        home.wait_until(lambda: home.picture(image).startswith(b"\xff\xd8"), "a picture")
        assert home.state(image) not in {"unknown", "unavailable"}
    home.wait_for(image, "unavailable")
    with running(tmp_path, broker, form, {"door": SHAPES}):
        home.wait_for(image, "")
        with Listener(broker.port) as latecomer:
            latecomer.wait_for(lambda heard: any(one.topic.endswith("/info") for one in heard))
            assert latecomer.retained().get(topic, "") == ""


def test_the_golden_configurations_are_taken(
    broker: Mosquitto, home: HomeAssistant, form: Form
) -> None:
    """All that there can be, captions too, which the program does not publish yet."""
    golden = json.loads(announced_file(form).read_text("utf-8"))
    node = "mmstream/pi"
    with Listener(broker.port) as listener:
        listener.say(f"{node}/front_door/snapshot", "", retain=True)  # of another test
        for topic, body in golden.items():
            listener.say(topic, json.dumps(body), retain=True)
        for topic in (f"{node}/status", f"{node}/front_door/status"):
            listener.say(topic, "online", retain=True)
        home.wait_for("sensor.front_door_caption", "unknown")
        home.wait_for("image.front_door_snapshot", "unknown")
        told = published(caption("final", "ä" * 300)).to_json().replace("door", "front_door")
        listener.say(f"{node}/front_door/caption/final", told)
        listener.say(f"{node}/front_door/snapshot", "a JPEG")
        home.wait_for("sensor.front_door_caption", "ä" * 255)
        assert home.states()["sensor.front_door_caption"].attributes["text"] == "ä" * 300
        home.wait_until(lambda: home.state("image.front_door_snapshot") != "unknown", "a picture")
        odd = published(event("e", label=LABELS[-1])).to_json()
        listener.say(f"{node}/front_door/event", odd)
        home.wait_until(
            lambda: home.state("event.front_door_grue_laut") != "unknown", "the odd one"
        )
        home.wait_for("update.mmstream_pi_update", "unknown")
        listener.say(f"{node}/info", published(info()).to_json(), retain=True)
        listener.say("mmstream/release", "0.1.0", retain=True)
        home.wait_for("update.mmstream_pi_update", "off")
        listener.say("mmstream/release", "0.2.0", retain=True)
        home.wait_for("update.mmstream_pi_update", "on")
        for topic in (*golden, f"{node}/info", "mmstream/release"):
            listener.say(topic, "", retain=True)
        home.wait_until(lambda: not ours(home), "all is taken back")


def documented_automations() -> list[JsonValue]:
    page = (ROOT / "docs/home-assistant.md").read_text()
    blocks = re.findall(r"```yaml\n(alias:.*?)```", page, re.DOTALL)
    return [{"id": str(i), **yaml.safe_load(block)} for i, block in enumerate(blocks)]


def triggered_by_device(home: HomeAssistant) -> JsonValue:
    device = home.render("{{ device_id('binary_sensor.front_door_motion') }}")
    trigger: JsonValue = {
        "platform": "device",
        "domain": "mqtt",
        "device_id": device,
        "type": "started",
        "subtype": "motion",
    }
    action: JsonValue = {"service": "automation.reload"}
    return {"id": "by_device", "alias": "by_device", "trigger": [trigger], "action": [action]}


def is_late(home: HomeAssistant) -> JsonValue:
    """Whether the last that Home Assistant knows of somebody who speaks has waited."""
    return home.states()["event.front_door_person_speaking"].attributes.get("late")


def fired(home: HomeAssistant) -> dict[str, JsonValue]:
    return {
        one.entity_id.removeprefix("automation."): one.attributes.get("last_triggered")
        for one in home.states().values()
        if one.entity_id.startswith("automation.") and one.state == "on"
    }


def fired_since(before: dict[str, JsonValue], home: HomeAssistant) -> set[str]:
    return {name for name, when in fired(home).items() if when != before.get(name)}
