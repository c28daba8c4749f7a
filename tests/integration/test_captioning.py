"""`mmstream run captioning` as its user runs it: a real microphone, a real broker."""

import json
import signal
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import webvtt
from brokers import Heard, Listener, Mosquitto
from programs import ROOT, start
from pulse import RATE_HZ, Pulse
from pydantic import JsonValue

from mmstream.codecs import read_audio

pytestmark = [pytest.mark.broker, pytest.mark.timeout(90)]

SAID = {"how", "old", "is", "the", "brooklyn", "bridge"}


def captions(heard: list[Heard], state: str) -> list[dict[str, JsonValue]]:
    topic = f"mmstream/captions/desk/caption/{state}"
    return [json.loads(one.payload) for one in heard if one.topic == topic]


def words(heard: list[Heard]) -> list[str]:
    return " ".join(str(one["text"]) for one in captions(heard, "final")).split()


LIGHT = (
    "detectors={presence: false, person: false, face: false, alarm: false, condition: false, "
    "person_speaking: false, impact: false, avp: false}"
)
"""What captions of speech do without: it takes seconds to load."""


def is_connected(heard: list[Heard]) -> bool:
    return any(one.topic == "mmstream/captions/info" for one in heard)


def is_listening(heard: list[Heard]) -> bool:
    """The microphone works; there is no camera."""
    return any(one.topic.endswith("desk/health") and "degraded" in one.payload for one in heard)


def test_what_is_said_into_a_microphone_is_read_by_a_subscriber(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    speech = read_audio(data_dir / "speech" / "google_brooklyn_bridge.wav", RATE_HZ)
    subtitles = tmp_path / "desk.vtt"
    with Pulse(monkeypatch) as pulse, Mosquitto(tmp_path) as broker:
        overrides = [
            LIGHT,
            f"sinks.mqtt={{host: 127.0.0.1, port: {broker.port}}}",
            f"sinks.subtitles={{path: {subtitles}}}",
        ]
        asked = [word for one in overrides for word in ("--set", one)]
        with (
            Listener(broker.port) as listener,
            start("run", "captioning", "--no-web", *asked, folder=tmp_path) as process,
        ):
            try:
                listener.wait_for(is_connected)
                listener.wait_for(is_listening)
                assert webvtt.read(str(subtitles)).captions == []
                pulse.play("room", np.concatenate([np.zeros(RATE_HZ, np.float32), speech]))
                heard = listener.wait_for(lambda heard: "bridge" in words(heard))
                growing = webvtt.read(str(subtitles)).captions
            finally:
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=15)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    schema = json.loads((ROOT / "mmstream/schemas/caption.json").read_text("utf-8"))
    for one in (*captions(heard, "partial"), *captions(heard, "final")):
        jsonschema.validate(one, schema)
    assert len(SAID.intersection(words(heard))) >= 3  # of 6; a recogniser of its size errs
    finals, partials = captions(heard, "final"), captions(heard, "partial")
    assert {one["kind"] for one in finals} == {"speech"}
    assert {one["id"] for one in finals} & {one["id"] for one in partials}
    assert all(one["language"] == "en-US" for one in finals)
    shown = [cue.text for cue in webvtt.read(str(subtitles)).captions]
    assert " ".join(shown).split()[: len(words(heard))] == words(heard)
    assert [cue.text for cue in growing] == shown[: len(growing)]
