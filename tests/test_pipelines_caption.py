"""A recording's subtitles: what is refused, what stays, and the same words everywhere."""

import asyncio
import json
import os
import wave
from pathlib import Path

import pytest
import srt  # type: ignore[import-untyped]  # it has no types
import webvtt

from mmstream.clock import SystemClock
from mmstream.config import load
from mmstream.errors import ConfigError, SinkError
from mmstream.pipelines import caption, replay
from mmstream.pipelines.configuration import CaptionsSettings, Configuration, find
from mmstream.sinks.subtitle_formats import SubtitleFormat
from mmstream.sources.media import MediaSettings


def test_the_name_says_the_format() -> None:
    assert caption.asked("-", None, sounds=True, scene=True).form is SubtitleFormat.WEBVTT
    assert caption.asked("a.SRT", None, sounds=True, scene=True).form is SubtitleFormat.SUBRIP
    given = caption.asked("a.dat", SubtitleFormat.TRANSCRIPT, sounds=True, scene=True)
    assert given.form is SubtitleFormat.TRANSCRIPT


@pytest.mark.parametrize(
    ("out", "fault"),
    [
        ("", "an empty name"),
        (".", r"\. is a folder"),
        ("talk.mp4", "the suffix is '.mp4'"),
        ("talk", "the suffix is none"),
        ("none/talk.vtt", "none/talk.vtt: there is no folder /.*/none"),
    ],
)
def test_what_cannot_be_written_is_refused(out: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--out: .*{fault}; allowed: "):
        caption.asked(out, None, sounds=True, scene=True)


def test_a_folder_that_takes_no_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)  # root may all
    with pytest.raises(ConfigError, match=r"talk\.vtt: the folder /.* is not writable; allowed: "):
        caption.asked("talk.vtt", None, sounds=True, scene=True)
    device = caption.asked("/dev/null", SubtitleFormat.SUBRIP, sounds=True, scene=True)
    assert device.out == "/dev/null"  # it is written itself


def test_a_recipe_without_captions_gets_the_usual_ones_or_says_what_they_rest_on() -> None:
    wanted = caption.asked("-", None, sounds=True, scene=True)
    recipe = load(find("surveillance"), Configuration, ("captions=false",))
    assert caption.narrowed(recipe, wanted).captions == CaptionsSettings()
    deaf = load(find("surveillance"), Configuration, ("detectors.speech=false",))
    with pytest.raises(ConfigError, match=r"rests on detectors\.speech, which is off; allowed: "):
        caption.narrowed(deaf, wanted)


def test_without_the_scene_nothing_describes_it_either() -> None:
    captioner = "captions.descriptions.captioner={weights: nowhere}"
    recipe = load(find("captioning"), Configuration, (captioner,))
    wanted = caption.asked("-", None, sounds=True, scene=False)
    narrow = caption.narrowed(recipe, wanted).captions
    assert narrow is not False
    assert (narrow.scene, narrow.descriptions) == (False, False)
    assert narrow.sounds is not False


def test_a_recording_without_captions_is_a_file_without_cues_and_a_word_of_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quiet = tmp_path / "quiet.wav"
    with wave.open(str(quiet), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", "not compressed"))
        file.writeframes(bytes(32_000))
    wanted = caption.asked("-", None, sounds=True, scene=False)
    media = MediaSettings(url=str(quiet), pace="max")
    light = ("captions.speech=false", "detectors.speech=false", "detectors.avp=false")
    recipe = load(find("captioning"), Configuration, light)
    text = asyncio.run(caption.run(recipe, media, wanted, SystemClock(), lambda _ns: None))
    assert text == "WEBVTT\n\n"
    assert f"{quiet} has no captions" in caplog.text


def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "talk.vtt"
    caption.write("old", str(path))
    path.chmod(0o640)
    caption.write("new", str(path))
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o640)

    def fail(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SinkError, match=r"cannot write to .*talk\.vtt: No space left"):
        caption.write("half", str(path))
    assert path.read_text() == "new"
    assert [one.name for one in tmp_path.iterdir()] == ["talk.vtt"]


def test_the_same_words_everywhere(data_dir: Path, tmp_path: Path) -> None:
    recording = data_dir / "speech" / "azure_whats_the_weather_like.wav"
    settings, clock = load(find("captioning"), Configuration, ()), SystemClock()
    media = MediaSettings(url=str(recording), pace="max")
    heard: list[int] = []
    for form in SubtitleFormat:
        out = str(tmp_path / f"talk{form}")
        wanted = caption.asked(out, None, sounds=False, scene=False)
        text = asyncio.run(caption.run(settings, media, wanted, clock, heard.append))
        caption.write(text, out)
    narrow = caption.narrowed(settings, wanted)
    lines = tmp_path / "talk.jsonl"
    asyncio.run(replay.run(narrow, media, str(lines), clock))
    said = [json.loads(line) for line in lines.read_text().splitlines()]
    finals = [one["text"] for one in said if one["topic"].endswith("/caption/final")]
    words = " ".join(finals).split()
    assert words
    vtt = [cue.text for cue in webvtt.read(str(tmp_path / "talk.vtt")).captions]
    subrip = [cue.content for cue in srt.parse((tmp_path / "talk.srt").read_text())]
    plain = [line.split("] ", 1)[1] for line in (tmp_path / "talk.txt").read_text().splitlines()]
    assert [" ".join(texts).split() for texts in (vtt, subrip, plain)] == [words] * 3
    assert heard[-1] > 1_000_000_000
