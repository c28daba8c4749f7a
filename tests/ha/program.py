"""The program as these tests run it, and what it leaves at the broker and in Home Assistant."""

import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from brokers import Listener, Mosquitto
from ha.home_assistant import HomeAssistant
from programs import start
from pydantic import JsonValue

Form = Literal["device", "component", "off"]

SHAPES: Final[JsonValue] = {"type": "synthetic"}
QUICK: Final = {"person": False, "face": False, "speech": False, "avp": False}
"""Detectors that load slowly and that nothing here needs."""


@contextmanager
def running(
    folder: Path,
    broker: Mosquitto,
    form: Form,
    sources: dict[str, JsonValue],
    *,
    snapshots: JsonValue = False,
    **detectors: JsonValue,
) -> Iterator[None]:
    """The program; stopped politely at the end."""
    config = {
        "node": "pi",
        "sources": sources,
        "detectors": {**QUICK, **detectors},
        "snapshots": snapshots,
        "sinks": {"mqtt": {"port": broker.port, "discovery": form}},
    }
    file = folder / "config.yaml"
    file.write_text(json.dumps(config))
    process = start("run", str(file), "--no-web", folder=folder)
    try:
        with Listener(broker.port) as listener:
            listener.wait_for(lambda _: listener.retained().get("mmstream/pi/status") == "online")
        yield
    finally:
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert process.returncode in (0, 130), told


def ours(home: HomeAssistant) -> set[str]:
    return {one for one in home.states() if re.search(r"\.(door|front_door|yard|mmstream)_", one)}


def configurations(broker: Mosquitto) -> dict[str, str]:
    """All that the broker retains for Home Assistant; what it says last comes after it."""
    with Listener(broker.port) as listener:
        listener.say("test/end", "")
        heard = listener.wait_for(lambda heard: any(one.topic == "test/end" for one in heard))
    return {one.topic: one.payload for one in heard if one.topic.endswith("/config")}
