"""A model that reads, in the stream: words that are said make its event, and only they do."""

import asyncio
import json
import wave
from pathlib import Path

import mmt_world as world

from mmstream.clock import SystemClock
from mmstream.messages import Event
from mmstream.pipelines import replay
from mmstream.pipelines.configuration import Configuration, DetectorSettings
from mmstream.sources.media import MediaSettings


def _told(recording: Path, weights: Path, out: Path, captions: object) -> list[Event]:
    """What the model tells of a recording."""
    kinds = DetectorSettings.model_fields.keys() - {"speech", "mmt"}
    mmt = {"weights": str(weights), "window_secs": 4.5, "events": [world.SPADES]}
    detectors = {**dict.fromkeys(kinds, False), "mmt": mmt}
    media = MediaSettings(url=str(recording), pace="max")
    recipe = Configuration.model_validate(
        {"sources": {"talk": media}, "detectors": detectors, "captions": captions}
    )
    assert not asyncio.run(replay.run(recipe, media, str(out), SystemClock()))
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    events = [Event.model_validate(_bare(one)) for one in lines if one["topic"].endswith("/event")]
    return [one for one in events if one.label == world.SPADES]


def _bare(line: dict[str, object]) -> dict[str, object]:
    """The event of a line, without what wraps it."""
    return {key: value for key, value in line.items() if key in Event.model_fields}


def _with_quiet_after(recording: Path, out: Path) -> Path:
    """What is said is committed after a pause, and then a window must follow."""
    with wave.open(str(recording), "rb") as said, wave.open(str(out), "wb") as written:
        written.setparams(said.getparams())
        written.writeframes(said.readframes(said.getnframes()) + bytes(2 * 2 * said.getframerate()))
    return out


def test_a_word_that_is_said_makes_the_event_of_a_model(data_dir: Path, tmp_path: Path) -> None:
    said = data_dir / "speech" / "cards_005.wav"  # "eight of spades, four of clubs, ..."
    recording = _with_quiet_after(said, tmp_path / "cards.wav")
    weights = world.learned(tmp_path / "model")
    events = _told(recording, weights, tmp_path / "said.jsonl", {"scene": False})
    lines = (tmp_path / "said.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(line)["kind"] for line in lines if "/caption/" in line} == {"speech"}
    assert [one.type for one in events] == ["start", "end"]
    assert all(one.contribution.text > 0.5 > one.contribution.video for one in events)
    assert {evidence.modality for evidence in events[0].evidence} == {"text"}
    assert not _told(recording, weights, tmp_path / "unsaid.jsonl", captions=False)
