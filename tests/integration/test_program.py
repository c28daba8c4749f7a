"""The program as a process beside a real mosquitto: what a subscriber gets, outages, Ctrl-C."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import jsonschema
import pytest
from brokers import Heard, Listener, Mosquitto
from programs import MOTION_AND_LOUD, ROOT, start

from mmstream.runtime.session import EXIT_INTERRUPTED

pytestmark = pytest.mark.broker

SCHEMAS = {
    path.stem: json.loads(path.read_text("utf-8"))
    for path in (ROOT / "mmstream" / "schemas").glob("*.json")
}
RETAINED = {
    f"mmstream/test/{topic}"
    for topic in ("status", "info", "clip/status", "clip/health", "clip/open", "clip/state/motion")
}
PLAIN = {"online", "offline", "ON", "OFF"}


def run(config: str, broker: Mosquitto, folder: Path) -> subprocess.Popen[str]:
    """`mmstream run` with a configuration whose messages go to the broker."""
    path = folder / "config.yaml"
    mqtt = f"{{host: 127.0.0.1, port: {broker.port}, discovery: off}}"
    path.write_text(f"{config}\nsinks: {{mqtt: {mqtt}}}\n")
    return start("run", str(path), "--no-web", folder=folder)


def clip(path: Path, pace: str) -> str:
    return f"node: test\nsources: {{clip: {{type: media, url: {path}, pace: {pace}}}}}"


SCENE = f"node: test\nsources: {{room: {{type: synthetic, scene: flash_beep}}}}\n{MOTION_AND_LOUD}"


def payloads(heard: Sequence[Heard], kind: str) -> list[dict[str, object]]:
    return [json.loads(m.payload) for m in heard if m.topic.rsplit("/", 1)[-1] == kind]


def is_over(heard: Sequence[Heard]) -> bool:
    return any(m.topic == "mmstream/test/status" and m.payload == "offline" for m in heard)


def has_started_an_event(heard: Sequence[Heard]) -> bool:
    return any(event["type"] == "start" for event in payloads(heard, "event"))


def assert_valid(heard: Sequence[Heard]) -> None:
    """Every message is a plain word or a threshold, or fits the shipped schema of its topic."""
    assert heard
    for message in heard:
        topic = message.topic
        if message.payload in PLAIN:
            is_feature = re.fullmatch(r"mmstream/test/\w+/\w+", topic) is not None
            assert topic.endswith("/status") or "/state/" in topic or is_feature
        elif topic.endswith("/snapshot"):
            assert message.payload == ""  # what an earlier boot has shown is taken back
        elif topic.endswith("_threshold"):
            assert 0 < float(message.payload) <= 1
        else:
            kind = message.topic.rsplit("/", 1)[-1]
            jsonschema.validate(json.loads(message.payload), SCHEMAS[kind])


def test_a_recording_is_published_as_the_wire_contract_says(tmp_path: Path, data_dir: Path) -> None:
    recording = data_dir / "surveillance/car_detection.mp4"
    with Mosquitto(tmp_path) as broker, Listener(broker.port) as listener:
        with run(clip(recording, "max"), broker, tmp_path) as process:
            heard = listener.wait_for(is_over)
            _, errors = process.communicate(timeout=10)
        with Listener(broker.port) as late:
            late.wait_for(lambda heard: {m.topic for m in heard} >= RETAINED)
            retained = late.retained()
    assert process.returncode == 0, errors
    assert errors == ""
    assert_valid(heard)
    events = payloads(heard, "event")
    assert [event["seq"] for event in events] == list(range(len(events)))
    # Three groups of cars, and a sound track that is silent from start to end.
    assert {event["label"] for event in events} == {"motion", "presence", "audio_lost"}
    for label, n_events in (("motion", 3), ("presence", 3), ("audio_lost", 1)):
        types = [event["type"] for event in events if event["label"] == label]
        assert [one for one in types if one != "update"] == ["start", "end"] * n_events
    states = [m.payload for m in heard if m.topic == "mmstream/test/clip/state/motion"]
    assert states == ["OFF", *["ON", "OFF"] * 3]
    assert retained["mmstream/test/status"] == "offline"
    assert retained["mmstream/test/clip/status"] == "offline"
    assert retained["mmstream/test/clip/state/motion"] == "OFF"
    assert json.loads(retained["mmstream/test/clip/open"])["events"] == []
    assert json.loads(retained["mmstream/test/clip/health"])["state"] == "offline"
    assert "mmstream/test/clip/event" not in retained
    assert "mmstream/test/stats" not in retained


def test_an_outage_of_the_broker_loses_no_event(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path, is_persistent=True) as broker,
        Listener(broker.port, name="listener") as listener,
        run(SCENE, broker, tmp_path) as process,
    ):
        for _ in range(2):
            wait_for_line(process, " start ")
        listener.wait_for(has_started_an_event)
        broker.save()  # it knows the listener, and will keep what comes before it is back
        broker.kill()
        n_before = len(payloads(listener.heard, "event"))
        for _ in range(2):
            wait_for_line(process, " start ")
        broker.start()
        heard = listener.wait_for(
            lambda heard: (
                any(event["late"] for event in payloads(heard, "event"))
                and len(payloads(heard, "event")) >= n_before + 4
            )
        )
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
        heard = listener.wait_for(is_over)
    assert process.returncode == 0, errors
    numbers = {int(str(event["seq"])) for event in payloads(heard, "event")}
    assert numbers == set(range(len(numbers)))
    assert "Traceback" not in errors
    assert_valid(heard)


def wait_for_line(process: subprocess.Popen[str], part: str) -> None:
    """Until the program prints a line with `part` in it."""
    assert process.stdout is not None
    for line in process.stdout:
        if part in line:
            return
    pytest.fail(f"the program ended without {part!r}")


def test_ctrl_c_ends_open_events_and_says_offline(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Listener(broker.port) as listener:
        with run(SCENE, broker, tmp_path) as process:
            listener.wait_for(has_started_an_event)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=3)
        heard = listener.wait_for(is_over)
    assert process.returncode == 0, errors
    events = payloads(heard, "event")
    started = {event["id"] for event in events if event["type"] == "start"}
    ended = {event["id"]: event["end_reason"] for event in events if event["type"] == "end"}
    assert set(ended) == started
    assert "shutdown" in ended.values()
    assert listener.retained()["mmstream/test/room/state/loud"] == "OFF"
    assert errors == ""


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path) as broker,
        Listener(broker.port) as listener,
        run(SCENE, broker, tmp_path) as process,
    ):
        listener.wait_for(has_started_an_event)
        broker.freeze()  # a goodbye now has to wait for its deadline
        process.send_signal(signal.SIGINT)
        wait_for_line(process, "(shutdown)")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=3)
    assert process.returncode == EXIT_INTERRUPTED


def test_death_without_a_word_is_told_by_the_broker(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Listener(broker.port) as listener:
        with run(SCENE, broker, tmp_path) as process:
            listener.wait_for(has_started_an_event)
            os.kill(process.pid, signal.SIGKILL)
            process.communicate(timeout=3)
        listener.wait_for(is_over)
