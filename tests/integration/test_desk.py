"""`mmstream run webcam` with a real microphone and no camera: it works with what is there."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from brokers import Heard, Listener, Mosquitto
from programs import finish, start
from pulse import RATE_HZ, Pulse

from mmstream.codecs import read_audio

pytestmark = [pytest.mark.broker, pytest.mark.timeout(90)]


def _payloads(heard: list[Heard], topic: str) -> list[dict[str, str]]:
    return [json.loads(m.payload) for m in heard if m.topic == f"mmstream/desk/desk/{topic}"]


def test_what_is_said_is_heard_although_no_camera_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    speech = read_audio(data_dir / "speech" / "ldc93s1.wav", RATE_HZ)
    with Pulse(monkeypatch) as pulse, Mosquitto(tmp_path) as broker:
        sink = f"sinks.mqtt={{host: 127.0.0.1, port: {broker.port}}}"
        with (
            Listener(broker.port) as listener,
            start("run", "webcam", "--no-web", "--set", sink, folder=tmp_path) as process,
        ):
            try:
                heard = listener.wait_for(
                    lambda heard: any(h["state"] == "degraded" for h in _payloads(heard, "health"))
                )
                assert "camera" in _payloads(heard, "health")[-1]["reason"]
                pulse.play("room", np.concatenate([np.zeros(2 * RATE_HZ, np.float32), speech]))
                listener.wait_for(
                    lambda heard: any(e["label"] == "loud" for e in _payloads(heard, "event"))
                )
            finally:
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=15)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def test_devices_names_the_microphone_and_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Pulse(monkeypatch):
        listed = finish("devices")
    assert listed.returncode == 0, listed.stderr
    assert "room" in listed.stdout
    assert "no camera is there" in listed.stdout
    assert "mmstream run" in listed.stdout
