"""What people set in Home Assistant, carried out by the program: `make test-ha`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from brokers import Heard, Listener, Mosquitto
from ha.home_assistant import HomeAssistant
from ha.program import SHAPES, Form, running
from pydantic import JsonValue

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

FLASHES: Final[JsonValue] = {"type": "synthetic", "scene": "flash_beep"}
"""Something moves and is loud each 2.5 s."""


@pytest.mark.usefixtures("_nothing_is_left")
def test_a_source_is_switched_off_and_on(
    broker: Mosquitto, home: HomeAssistant, form: Form, tmp_path: Path
) -> None:
    enabled: dict[str, JsonValue] = {"entity_id": "switch.door_enabled"}
    with running(tmp_path, broker, form, {"door": SHAPES}):
        home.wait_for("binary_sensor.door_connection", "on")
        home.wait_for("switch.door_enabled", "on")
        home.call("switch", "turn_off", enabled)
        home.wait_for("binary_sensor.door_connection", "off")
        home.wait_for("sensor.door_health", "offline")
        home.wait_for("binary_sensor.door_motion", "unavailable")
        home.wait_for("switch.door_enabled", "off")
        home.call("switch", "turn_on", enabled)
        home.wait_for("binary_sensor.door_connection", "on")
        home.wait_for("switch.door_enabled", "on")
        with Listener(broker.port) as listener:
            home.call("button", "press", {"entity_id": "button.door_restart"})
            answers = "mmstream/pi/response/restart"
            listener.wait_for(lambda _: answers in listener.retained())
            assert json.loads(listener.retained()[answers])["status"] == "ok"
    home.wait_for("switch.door_enabled", "unavailable")


@pytest.mark.usefixtures("_nothing_is_left")
def test_a_label_is_switched_off_and_on(
    broker: Mosquitto, home: HomeAssistant, form: Form, tmp_path: Path
) -> None:
    loud: dict[str, JsonValue] = {"entity_id": "switch.door_loud"}
    with running(tmp_path, broker, form, {"door": FLASHES}):
        home.wait_for("binary_sensor.door_loud", "on")
        home.wait_for("switch.door_loud", "on")
        home.call("switch", "turn_off", loud)
        home.wait_for("switch.door_loud", "off")
        home.wait_for("binary_sensor.door_loud", "off")
        with Listener(broker.port) as listener:
            assert "loud" not in started(listener.wait_for(lambda _: moved(listener, 3)))
            assert listener.retained()["mmstream/pi/door/loud"] == "OFF"
        home.call("switch", "turn_on", loud)
        home.wait_for("switch.door_loud", "on")
        home.wait_for("binary_sensor.door_loud", "on")


@pytest.mark.usefixtures("_nothing_is_left")
def test_a_number_sets_a_threshold_that_holds_over_a_restart(
    broker: Mosquitto, home: HomeAssistant, form: Form, tmp_path: Path
) -> None:
    number, topic = "number.door_loud_threshold", "mmstream/pi/door/loud_threshold"
    with running(tmp_path, broker, form, {"door": SHAPES}):
        unsaid = {"", "unknown", "unavailable"}
        home.wait_until(lambda: home.state(number) not in unsaid, "it says its value")
        told = home.states()[number]
        assert {told.attributes[name] for name in ("min", "max", "step")} == {0.05, 1.0, 0.01}
        assert float(told.state) != 0.83
        home.call("number", "set_value", {"entity_id": number, "value": 0.83})
        home.wait_for(number, "0.83")
        with Listener(broker.port) as listener:
            listener.wait_for(lambda _: listener.retained().get(topic) == "0.83")
            said = json.loads(listener.retained()["mmstream/pi/door/features"])["features"]
            (threshold,) = [one for one in said if one["name"] == "loud_threshold"]
            assert threshold["value"] == 0.83
            assert threshold["is_set"] is True
    home.wait_for(number, "unavailable")
    with running(tmp_path, broker, form, {"door": SHAPES}):
        home.wait_for(number, "0.83")


@pytest.mark.usefixtures("_nothing_is_left")
def test_the_log_level_is_selected(
    broker: Mosquitto, home: HomeAssistant, form: Form, tmp_path: Path
) -> None:
    select = "select.mmstream_pi_log_level"
    with running(tmp_path, broker, form, {"door": SHAPES}):
        home.wait_for(select, "warning")
        home.call("select", "select_option", {"entity_id": select, "option": "info"})
        home.wait_for(select, "info")
    home.wait_for(select, "unavailable")
    with running(tmp_path, broker, form, {"door": SHAPES}):
        home.wait_for(select, "info")


def started(heard: Sequence[Heard]) -> list[str]:
    """Labels of the events that have started."""
    told = [json.loads(one.payload) for one in heard if one.topic == "mmstream/pi/door/event"]
    return [one["label"] for one in told if one["type"] == "start"]


def moved(listener: Listener, n_times: int) -> bool:
    return started(listener.heard).count("motion") >= n_times
