"""Each shipped recipe, run as a user would run it."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
from brokers import Listener, Mosquitto
from media_factory import FlashBeep, make_flash_beep
from programs import ROOT, finish, start

pytestmark = pytest.mark.broker


@pytest.fixture
def clip(tmp_path: Path) -> FlashBeep:
    return make_flash_beep(tmp_path / "clip.mp4", n_flashes=2, size=(320, 180))


def test_the_demo_finds_its_truth_and_serves_subscribers() -> None:
    with start("demo", "--seconds", "8", "--no-web") as process:
        assert process.stdout is not None
        port = re.search(r"-p (\d+)", process.stdout.readline())
        assert port is not None
        with Listener(int(port[1])) as listener:
            heard = listener.wait_for(lambda heard: any(m.topic.endswith("/event") for m in heard))
        out, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert errors == ""
    assert {m.topic for m in heard} >= {"mmstream/demo/status", "mmstream/demo/info"}
    rows = {line.split()[0]: line.split()[1:5] for line in out.splitlines() if line[:1].isalpha()}
    for label in ("motion", "presence", "loud"):
        n_happened, n_found, n_events, n_false = map(int, rows[label])
        assert n_happened == n_found >= 1
        assert n_events >= 1
        assert n_false == 0


def test_json_lines_alone_are_on_standard_output(clip: FlashBeep) -> None:
    overrides = [f"sources.clip.url={clip.path}", "sources.clip.pace=max"]
    ran = finish("run", "file", "--no-web", *(word for one in overrides for word in ("--set", one)))
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    for line in lines:
        kind = line.pop("topic").rsplit("/", 1)[-1]
        schema = json.loads((ROOT / f"mmstream/schemas/{kind}.json").read_text("utf-8"))
        jsonschema.validate(line, schema)
    starts = [line["label"] for line in lines if line.get("type") == "start"]
    assert sorted(starts) == sorted(["loud", "motion", "presence"] * 2)
    assert "clip " in ran.stderr  # a person reads beside it


def test_surveillance_speaks_to_a_broker(tmp_path: Path, clip: FlashBeep) -> None:
    with Mosquitto(tmp_path) as broker, Listener(broker.port) as listener:
        overrides = [
            f"sources.door.url={clip.path}",
            "sources.door.pace=max",
            f"sinks.mqtt.port={broker.port}",
        ]
        words = [word for one in overrides for word in ("--set", one)]
        ran = finish("run", "surveillance", "--no-web", *words)
        heard = listener.wait_for(
            lambda heard: any(
                (m.topic, m.payload) == ("mmstream/home/status", "offline") for m in heard
            )
        )
    assert ran.returncode == 0, ran.stderr
    events = [json.loads(m.payload) for m in heard if m.topic == "mmstream/home/door/event"]
    assert [event["label"] for event in events if event["type"] == "end"].count("loud") == 2
