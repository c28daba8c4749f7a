"""`mmstream run captioning` as its user runs it: words out of a real microphone, by a real broker."""

import json
import signal
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from brokers import Heard, Listener, Mosquitto
from programs import ROOT, start
from pulse import RATE_HZ, Pulse
from pydantic import JsonValue

from mmstream.codecs import read_audio

pytestmark = [pytest.mark.broker, pytest.mark.timeout(90)]

SAID = "she had your dark suit in greasy wash water all year".split()


def captions(heard: list[Heard], state: str) -> list[dict[str, JsonValue]]:
    topic = f"mmstream/captions/desk/caption/{state}"
    return [json.loads(one.payload) for one in heard if one.topic == topic]


def words(heard: list[Heard]) -> list[str]:
    return " ".join(str(one["text"]) for one in captions(heard, "final")).split()


def test_what_is_said_into_a_microphone_is_read_by_a_subscriber(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    speech = read_audio(data_dir / "speech" / "ldc93s1.wav", RATE_HZ)
    with Pulse(monkeypatch) as pulse, Mosquitto(tmp_path) as broker:
        overrides = [
            f"sinks.mqtt={{host: 127.0.0.1, port: {broker.port}}}",
            f"sinks.subtitles={{path: {tmp_path / 'desk.txt'}}}",
        ]
        asked = [word for one in overrides for word in ("--set", one)]
        with (
            Listener(broker.port) as listener,
            start("run", "captioning", "--no-web", *asked, folder=tmp_path) as process,
        ):
            try:
                listener.wait_for(lambda heard: any("degraded" in one.payload for one in heard))
                pulse.play("room", np.concatenate([np.zeros(RATE_HZ, np.float32), speech]))
                heard = listener.wait_for(lambda heard: len(words(heard)) >= len(SAID) - 3)
            finally:
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=15)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    schema = json.loads((ROOT / "mmstream/schemas/caption.json").read_text("utf-8"))
    for one in (*captions(heard, "partial"), *captions(heard, "final")):
        jsonschema.validate(one, schema)
    assert len(set(words(heard)) & set(SAID)) >= 6  # of 11; a recogniser of its size errs
    finals, partials = captions(heard, "final"), captions(heard, "partial")
    assert {one["kind"] for one in finals} == {"speech"}
    assert {one["id"] for one in finals} <= {one["id"] for one in partials}
    assert all(one["language"] == "en-US" for one in finals)
    assert " ".join(words(heard)) in " ".join((tmp_path / "desk.txt").read_text("utf-8").split())
