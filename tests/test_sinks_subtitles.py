"""Subtitles of what runs: whole at any moment, and nothing of yesterday is lost."""

import asyncio
import os
from pathlib import Path

import pytest
import srt  # type: ignore[import-untyped]  # it has no types
import webvtt
from full_disks import file_size_limit
from pydantic import ValidationError
from sink_messages import T_NS, caption, event, published

from mmstream.errors import SinkError
from mmstream.messages import Caption
from mmstream.sinks.subtitles import SubtitlesSettings, SubtitlesSink


def told(text: str, kind: str = "speech") -> Caption:
    return Caption.model_validate({**caption("final", text).model_dump(), "kind": kind})


def sink_of(settings: SubtitlesSettings) -> SubtitlesSink:
    return SubtitlesSink(settings, zero_utc_ns=T_NS, voices=False)


def write(settings: SubtitlesSettings, *captions: Caption) -> SubtitlesSink:
    async def session() -> SubtitlesSink:
        sink = sink_of(settings)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(sink.run())
            await sink.ready(10)
            for one in captions:
                await sink.publish(published(one))
            await sink.close()
        return sink

    return asyncio.run(session())


def test_a_reader_finds_a_whole_file_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "talk.vtt"

    async def session() -> list[list[str]]:
        sink = sink_of(SubtitlesSettings(path=str(path)))
        seen = []
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(sink.run())
            await sink.ready(10)
            for content in (event("e1"), caption("partial", "on"), told("one"), told("two")):
                await sink.publish(published(content))
                seen.append([cue.text for cue in webvtt.read(str(path)).captions])
            await sink.close()
        assert (sink.metrics.n_in, sink.metrics.n_out) == (2, 2)
        return seen

    assert asyncio.run(session()) == [[], [], ["one"], ["one", "two"]]


def test_what_is_not_wanted_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "talk.txt"
    said = (told("hello"), told("[bell]", "sound"), told("A cat.", "scene"), told(" "))
    write(SubtitlesSettings(path=str(path), sounds=False, scene=False), *said)
    assert path.read_text() == "[00:00:00] hello\n"
    write(SubtitlesSettings(path=str(path)), *said)
    assert path.read_text() == "[00:00:00] hello\n[00:00:00] [bell]\n[00:00:00] (A cat.)\n"


@pytest.mark.parametrize("suffix", [".vtt", ".srt", ".txt"])
def test_what_an_earlier_run_has_written_is_kept(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"talk{suffix}"
    settings = SubtitlesSettings(path=str(path))
    for text in ("one", "two", "three"):
        write(settings, told(text))
        os.utime(path, (0, 0))
    write(settings)  # begins anew and says nothing ...
    write(settings)  # ... so this one has nothing to keep
    kept = [f"talk.19700101T000000Z{n}{suffix}" for n in ("", "-2", "-3")]
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted([*kept, path.name])
    texts = [(tmp_path / name).read_text() for name in kept]
    assert ["one" in texts[0], "two" in texts[1], "three" in texts[2]] == [True] * 3


def test_a_file_of_somebody_else_is_kept_too(tmp_path: Path) -> None:
    path = tmp_path / "film.vtt"
    path.write_text("WEBVTT made by hand\n")
    write(SubtitlesSettings(path=str(path)), told("new"))
    assert "made by hand" in "".join(one.read_text() for one in tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none" / "x.vtt"
    sink = sink_of(SubtitlesSettings(path=str(path)))
    with pytest.raises(SinkError) as caught:
        asyncio.run(sink.publish(published(told("x"))))
    assert str(caught.value) == f"cannot open {path}: No such file or directory"
    assert sink.metrics.dropped == {"write_failed": 1}


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.vtt"
    path.symlink_to("/dev/full")
    with pytest.raises(SinkError) as caught:
        asyncio.run(sink_of(SubtitlesSettings(path=str(path))).ready(10))
    assert str(caught.value) == f"cannot write to {path}: No space left on device"


@pytest.mark.parametrize("suffix", [".vtt", ".srt", ".txt"])
def test_half_a_cue_is_taken_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"talk{suffix}"

    async def session() -> SubtitlesSink:
        sink = sink_of(SubtitlesSettings(path=str(path)))
        await sink.publish(published(told("one")))
        with file_size_limit(path.stat().st_size + 40), pytest.raises(SinkError, match="too large"):
            await sink.publish(published(told("a cue that the disk takes half of")))
        await sink.publish(published(told("three")))
        await sink.close()
        return sink

    sink = asyncio.run(session())
    file = path.read_text()
    match suffix:
        case ".vtt":
            texts = [cue.text for cue in webvtt.from_string(file).captions]
        case ".srt":
            texts = [cue.content for cue in srt.parse(file)]
        case _:
            texts = [line.partition("] ")[2] for line in file.splitlines()]
    assert texts == ["one", "three"]
    assert "a cue" not in file
    assert sink.metrics.dropped == {"write_failed": 1}


def test_a_disk_that_was_full_at_first_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "talk.vtt"
    path.write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nolder\n")

    async def session() -> None:
        sink = sink_of(SubtitlesSettings(path=str(path)))
        with file_size_limit(10), pytest.raises(SinkError, match="too large"):
            await sink.ready(10)
        assert path.read_bytes() == b""
        await sink.publish(published(told("one")))
        await sink.close()

    asyncio.run(session())
    assert [cue.text for cue in webvtt.read(str(path)).captions] == ["one"]
    assert len(list(tmp_path.iterdir())) == 2  # the older one and this


@pytest.mark.parametrize("path", ["talk.mp4", "talk", "-"])
def test_settings_say_which_suffixes_there_are(path: str) -> None:
    with pytest.raises(ValidationError, match=r"allowed: \.vtt, \.srt, \.txt"):
        SubtitlesSettings(path=path)
