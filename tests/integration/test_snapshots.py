"""Snapshots: the program, mosquitto, and what a subscriber gets as bytes."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from brokers import HOST, Listener, Mosquitto, program_path, running, say, wait_until
from programs import start
from pydantic import JsonValue

from mmstream.codecs.jpeg import encode_jpeg
from mmstream.media import Bytes
from mmstream.sinks.mqtt import MqttSettings, MqttSink

pytestmark = pytest.mark.broker

ROOT = "mmstream/test"
OFF = (
    *("presence", "person", "face", "speech", "alarm", "condition"),
    *("impact", "person_speaking", "avp"),
)


LEFT: JsonValue = [[0, 0], [0.6, 0], [0.6, 1], [0, 1]]
"""The left of the picture is hidden."""


def configure(folder: Path, port: int, **more: JsonValue) -> None:
    config: dict[str, JsonValue] = {
        "node": "test",
        "detectors": dict.fromkeys(OFF, False),
        "store": False,
        "sinks": {"mqtt": {"port": port}},
        **more,
    }
    (folder / "config.yaml").write_text(json.dumps(config))


@contextmanager
def program(folder: Path, port: int, **more: JsonValue) -> Iterator[None]:
    """A road that is filmed, and somebody who talks in the dark."""
    configure(folder, port, **more)
    with start("run", "config.yaml", "--no-web", folder=folder) as process:
        try:
            yield
        finally:
            process.kill()


def media(path: Path) -> dict[str, JsonValue]:
    return {"type": "media", "url": str(path), "pace": "realtime"}


def shown(port: int, source: str) -> tuple[Bytes, bool]:
    """The first picture that a subscriber gets, and whether it was retained."""
    topic = f"{ROOT}/{source}/snapshot"
    command = [program_path("mosquitto_sub"), "-h", HOST, "-p", str(port), "-t", topic]
    options = ["-C", "1", "-W", "15", "-F", "%r %x"]
    got = subprocess.run([*command, *options], check=True, capture_output=True, timeout=20)
    retained, payload = got.stdout.split()
    bgr = cv2.imdecode(np.frombuffer(bytes.fromhex(payload.decode()), np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    return np.asarray(bgr, np.uint8), retained == b"1"


def ask(
    listener: Listener, source: str | None, verb: str = "snapshot", **arguments: JsonValue
) -> dict[str, JsonValue]:
    topic, n = f"{ROOT}/response/{verb}", len(listener.heard)
    asked = json.dumps({"source": source, "arguments": arguments})
    listener.say(f"{ROOT}/request/{verb}", asked)
    heard = listener.wait_for(lambda heard: any(one.topic == topic for one in heard[n:]))
    answer: dict[str, JsonValue] = json.loads(
        next(one.payload for one in heard[n:] if one.topic == topic)
    )
    return answer


def wait_for_picture(listener: Listener, source: str) -> None:
    """A source that has just started may have nothing to show yet."""
    wait_until(lambda: ask(listener, source)["error"] is None, "a picture")


def test_a_subscriber_gets_pictures_of_events_and_of_requests(
    tmp_path: Path, data_dir: Path
) -> None:
    sources: dict[str, JsonValue] = {
        "road": media(data_dir / "surveillance/car_detection.mp4"),
        "dark": media(data_dir / "speech/silero_vad_test.flac"),
    }
    more: dict[str, JsonValue] = {"sources": sources, "snapshots": {"width": 320}}
    with Mosquitto(tmp_path) as broker, Listener(broker.port) as listener:  # noqa: SIM117 - long
        with program(tmp_path, broker.port, **more):
            said = {f"{ROOT}/{source}/event" for source in sources}
            listener.wait_for(lambda heard: said <= {one.topic for one in heard})
            road, _ = shown(broker.port, "road")
            dark, _ = shown(broker.port, "dark")
            assert road.shape == dark.shape == (180, 320, 3)
            assert 30 < road.mean() < 130  # asphalt
            assert dark.std() > 30  # a voice, and the pauses in it

            info = json.loads(listener.retained()[f"{ROOT}/info"])
            assert "snapshots" in info["capabilities"]
            answer = ask(listener, "dark")
            assert answer["status"] == "ok"
            result = answer["result"]
            assert isinstance(result, dict)
            assert result["kind"] == "sound"
            assert ask(listener, "road")["error"] is None
            assert "there are: road, dark" in str(ask(listener, "cellar")["error"])
            listener.say(f"{ROOT}/road/video/set", "OFF")
            listener.wait_for(lambda _: listener.retained().get(f"{ROOT}/road/video") == "OFF")
            assert ask(listener, "road")["error"] is None  # its sound track is shown, no picture
            unseen, is_retained = shown(broker.port, "road")
            assert is_retained
            assert unseen.mean() < 15  # it is silent


def test_nothing_leaves_the_machine_unless_the_configuration_says_so(tmp_path: Path) -> None:
    sources: JsonValue = {"road": {"type": "synthetic", "scene": "flash_beep"}}
    with Mosquitto(tmp_path) as broker, Listener(broker.port) as listener:
        for source in ("road", "attic"):
            say(broker.port, f"{ROOT}/{source}/snapshot", b"of an earlier boot", "-r")
            say(broker.port, f"{ROOT}/{source}/features", b'{"features": []}', "-r")
        with program(tmp_path, broker.port, sources=sources):
            topic = f"{ROOT}/road/event"
            listener.wait_for(lambda heard: any(one.topic == topic for one in heard))
            answer = ask(listener, "road")
            assert answer["status"] == "error"
            assert "snapshots: {}" in str(answer["error"])
        assert "snapshots" not in json.loads(listener.retained()[f"{ROOT}/info"])["capabilities"]
        for source in ("road", "attic"):
            assert listener.retained()[f"{ROOT}/{source}/snapshot"] == ""
        with Listener(broker.port) as latecomer:
            latecomer.wait_for(lambda heard: any(one.topic == f"{ROOT}/info" for one in heard))
            assert not [topic for topic in latecomer.retained() if "snapshot" in topic]


def test_a_source_that_comes_by_reload_is_masked_from_its_first_picture(
    tmp_path: Path, data_dir: Path
) -> None:
    road = media(data_dir / "surveillance/car_detection.mp4")
    before: dict[str, JsonValue] = {"sources": {"road": road}, "snapshots": {}}
    quiet: dict[str, JsonValue] = dict.fromkeys(OFF, False)
    with Mosquitto(tmp_path) as broker, Listener(broker.port) as listener:  # noqa: SIM117 - long
        with program(tmp_path, broker.port, **before):
            listener.wait_for(lambda _: listener.retained().get(f"{ROOT}/road/status") == "online")
            configure(
                tmp_path,
                broker.port,
                sources={"road": road, "yard": road},
                snapshots={},
                detectors={**quiet, "motion": {"masks": {"yard": [LEFT], "road": [LEFT]}}},
            )
            answer = ask(listener, None, "reload")
            assert answer["result"] == {
                "added": ["yard"],
                "changed": [],
                "removed": [],
                "ignored": ["detectors.motion.masks"],
            }
            for source in ("yard", "road"):  # in the road, masks come while it is seen
                wait_for_picture(listener, source)
                picture, _ = shown(broker.port, source)
                assert picture[:320, : round(picture.shape[1] * 0.6)].max() < 12
                assert picture[:320, round(picture.shape[1] * 0.65) :].max() > 60
            assert ask(listener, "mews", "add", **road)["status"] == "ok"
            wait_for_picture(listener, "mews")  # nobody masks it
            assert shown(broker.port, "mews")[0][:320, :300].max() > 60


def test_what_is_shown_in_an_outage_is_there_after_it(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    sink = MqttSink(MqttSettings(port=broker.port), node="test", boot_id="b00t")

    async def scenario() -> None:
        async with running(sink):
            for level in (10, 200):
                sink.show("road", encode_jpeg(np.full((90, 160, 3), level, np.uint8), quality=80))
            await asyncio.to_thread(broker.start)
            picture, _ = await asyncio.to_thread(shown, broker.port, "road")
            assert picture.mean() == pytest.approx(200, abs=3)

    try:
        asyncio.run(scenario())
    finally:
        broker.kill()
