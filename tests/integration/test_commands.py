"""Commands over MQTT: applied live, told retained, kept over a kill; the program and mosquitto."""

import json
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from brokers import Heard, Listener, Mosquitto, say, wait_until
from programs import start
from pydantic import JsonValue

pytestmark = pytest.mark.broker

ROOT = "mmstream/test"
OFF = (
    *("presence", "person", "face", "speech", "alarm", "condition"),
    *("impact", "person_speaking", "avp"),
)
FEATURES = {
    "enabled": "ON",
    "video": "ON",
    "audio": "ON",
    "motion": "ON",
    "loud": "ON",
    "motion_threshold": "0.5",
    "loud_threshold": "0.5",
}


@dataclass(frozen=True)
class House:
    """A folder with a configuration, its event log, and a broker with somebody who listens."""

    folder: Path
    broker: Mosquitto
    listener: Listener

    @contextmanager
    def run(self) -> Iterator[subprocess.Popen[str]]:
        synthetic: dict[str, JsonValue] = {
            "type": "synthetic",
            "scene": "flash_beep",
            "live": True,
            "width": 160,
            "height": 90,
            "fps": 10,
        }
        config = {
            "node": "test",
            "sources": {"door": synthetic, "yard": synthetic},
            "detectors": dict.fromkeys(OFF, False),
            "events": {"loud": {"min_off_secs": 30}, "motion": {"min_off_secs": 0.5}},
            "store": {"path": str(self.folder / "events.db")},
            "sinks": {"mqtt": {"port": self.broker.port}},
        }
        (self.folder / "config.yaml").write_text(json.dumps(config))
        with start("run", "config.yaml", "--no-web", folder=self.folder) as process:
            try:
                yield process
            finally:
                process.kill()

    def say(self, topic: str, payload: str = "", *, retain: bool = False) -> None:
        self.listener.say(f"{ROOT}/{topic}", payload, retain=retain)

    def ask(self, verb: str, **fields: JsonValue) -> dict[str, JsonValue]:
        """Ask and wait for the answer."""
        n = len(self.answers(verb))
        self.say(f"request/{verb}", json.dumps(fields))
        self.wait_for(lambda: len(self.answers(verb)) > n)
        return self.answers(verb)[n]

    def answers(self, verb: str) -> list[dict[str, JsonValue]]:
        return self.payloads(f"response/{verb}")

    def payloads(self, topic: str) -> list[dict[str, JsonValue]]:
        return [json.loads(one.payload) for one in self.heard(topic)]

    def heard(self, topic: str) -> list[Heard]:
        return [one for one in self.listener.heard if one.topic == f"{ROOT}/{topic}"]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        self.listener.wait_for(lambda _: condition())

    def now(self, topic: str) -> str:
        """The last value of a topic; empty: none, or it was cleared."""
        return self.listener.retained().get(f"{ROOT}/{topic}", "")

    def events(self, source: str) -> list[tuple[JsonValue, JsonValue, JsonValue]]:
        """Label, type and end reason of those of the present boot."""
        boot_id = self.payloads("info")[-1]["boot_id"]
        return [
            (one["label"], one["type"], one["end_reason"])
            for one in self.payloads(f"{source}/event")
            if one["boot_id"] == boot_id
        ]

    def retained(self) -> dict[str, str]:
        """What a late joiner is told."""
        with Listener(self.broker.port) as late:
            late.wait_for(lambda heard: any(one.topic.endswith("yard/loud") for one in heard))
            return late.retained()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with Mosquitto(tmp_path) as broker, Listener(broker.port) as listener:
        yield House(tmp_path, broker, listener)


def test_what_is_set_is_applied_told_and_survives_a_kill(house: House) -> None:
    with house.run() as process:
        house.wait_for(lambda: bool(house.heard("info")))
        house.wait_for(lambda: ("motion", "start", None) in house.events("door"))
        assert {name: house.now(f"door/{name}") for name in FEATURES} == FEATURES

        house.wait_for(lambda: house.now("door/state/loud") == "ON")
        house.say("door/loud/set", "OFF")
        house.wait_for(lambda: house.now("door/loud") == "OFF")
        house.wait_for(lambda: ("loud", "end", "disabled") in house.events("door"))
        house.say("door/motion_threshold/set", "0.25")
        house.wait_for(lambda: house.now("door/motion_threshold") == "0.25")
        house.say("yard/enabled/set", "off")
        house.wait_for(lambda: house.now("yard/status") == "offline")
        house.wait_for(lambda: house.now("yard/enabled") == "OFF")
        house.wait_for(lambda: len(house.answers("set")) == 3)
        assert all(
            one["status"] == "ok" and one["transaction"] == "" for one in house.answers("set")
        )
        process.kill()
        process.communicate(timeout=10)

    with house.run() as process:
        house.wait_for(lambda: len(house.heard("info")) >= 2)
        house.wait_for(lambda: ("motion", "start", None) in house.events("door"))
        assert ("loud", "start", None) not in house.events("door")
        assert ("motion", "start", None) not in house.events("yard")
        assert (house.now("yard/status"), house.now("yard/enabled")) == ("offline", "OFF")
        told = house.retained()
        assert told[f"{ROOT}/door/loud"] == "OFF"
        assert told[f"{ROOT}/door/motion_threshold"] == "0.25"

        house.say("door/loud/set", "")  # back to what the configuration says
        house.wait_for(lambda: house.now("door/loud") == "ON")
        house.wait_for(lambda: ("loud", "start", None) in house.events("door"))
        assert house.ask("enable", source="yard")["status"] == "ok"
        house.wait_for(lambda: ("motion", "start", None) in house.events("yard"))
        assert house.now("yard/enabled") == "ON"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "door: loud is OFF, as was set at 2" in errors
    assert f"by mqtt {ROOT}/door/loud/set" in errors
    assert "set door: loud ON, as the configuration says (by mqtt" in errors
    assert kept(house) == [("door", "motion_threshold", "0.25"), ("yard", "enabled", "ON")]


def kept(house: House) -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(house.folder / "events.db")) as connection:
        return connection.execute("SELECT source, feature, value FROM overrides").fetchall()


def test_a_broker_that_comes_back_is_told_all_and_what_is_retained_is_not_obeyed(
    house: House,
) -> None:
    with house.run() as process:
        house.wait_for(lambda: house.now("yard/loud_threshold") == "0.5")
        answer = house.ask(
            "set", transaction="t", source="door", arguments={"feature": "video", "value": False}
        )
        assert answer["result"] == {
            "feature": "video",
            "value": "OFF",
            "is_set": True,
            "persisted": True,
        }
        house.wait_for(lambda: house.now("door/video") == "OFF")
        n_informed = len(house.heard("info"))
        house.broker.kill()  # it forgets all
        house.broker.start()
        say(house.broker.port, f"{ROOT}/yard/motion/set", "OFF", "-r")
        wait_until(lambda: house.retained()[f"{ROOT}/door/video"] == "OFF", "all is told")
        assert house.retained()[f"{ROOT}/yard/motion"] == "ON"
        house.wait_for(lambda: len(house.heard("info")) > n_informed)
        assert house.ask("remove", source="door")["status"] == "ok"
        left = [topic for topic in house.retained() if topic.startswith(f"{ROOT}/door/")]
        assert left == []
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
    assert kept(house) == []


def test_what_cannot_be_set_is_answered_and_changes_nothing(house: House) -> None:
    with house.run():
        house.wait_for(lambda: house.now("yard/loud_threshold") == "0.5")
        wrong = (
            (
                "door/dance/set",
                "ON",
                "no feature 'dance'; there are: enabled, video, audio, motion, ",
            ),
            ("cellar/motion/set", "ON", "no source 'cellar'; there are: door, yard"),
            ("door/motion/set", "maybe", "motion cannot be 'maybe'; allowed: ON, OFF, or nothing"),
            (
                "door/loud_threshold/set",
                "2",
                "loud_threshold cannot be '2'; allowed: 0.05 to 1, or",
            ),
        )
        for topic, payload, _ in wrong:
            house.say(topic, payload)
        house.wait_for(lambda: len(house.answers("set")) == len(wrong))
        for answer, (*_, error) in zip(house.answers("set"), wrong, strict=True):
            assert (answer["status"], answer["transaction"]) == ("error", "")
            assert str(answer["error"]).startswith(error)
        assert {name: house.now(f"door/{name}") for name in FEATURES} == FEATURES


def test_an_event_is_acknowledged_once(house: House) -> None:
    with house.run():
        house.wait_for(lambda: bool(house.heard("door/event")))
        event = house.payloads("door/event")[0]["id"]
        answers = [house.ask("acknowledge", arguments={"event": event}) for _ in range(2)]
        first, again = (one["result"] for one in answers)
        assert isinstance(first, dict)
        assert isinstance(again, dict)
        assert (first["event"], first["source"]) == (event, "door")
        assert first["by"] == f"mqtt {ROOT}/request/acknowledge"
        assert first["acknowledged"] == again["acknowledged"]
        unknown = house.ask("acknowledge", arguments={"event": "e0"})
        assert unknown["error"] == "no event 'e0' in the event log; give the `id` of one"
