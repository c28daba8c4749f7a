"""Replay: what a recording is called, and what is refused before anything is overwritten."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_factory import make_flash_beep
from programs import finish

from mmstream.cli import EXIT_FAILED, EXIT_USAGE
from mmstream.messages import ID_PATTERN, RESERVED_SOURCES
from mmstream.pipelines.replay import source_id


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/films/Front Door.mp4", "front_door"),
        ("rtsp://admin:Geheim123@10.0.0.7:554/stream1.sdp?pwd=secret", "stream1"),
        ("rtsp://admin:Geheim123@10.0.0.7", "media"),
        ("http://cam/live?user=admin&pwd=secret", "live"),
        ("...", "media"),
        ("status.mp4", "status_media"),
        ("x" * 99, "x" * 64),
    ],
)
def test_a_recording_is_called_by_the_last_part_of_its_path(url: str, name: str) -> None:
    assert source_id(url) == name


@given(st.text())
def test_any_name_makes_a_source_id(url: str) -> None:
    name = source_id(url)
    assert name not in RESERVED_SOURCES
    assert 1 <= len(name) <= 64 + len("_media")
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_"), ID_PATTERN


def test_the_recording_itself_is_not_overwritten(tmp_path: Path) -> None:
    made = make_flash_beep(tmp_path / "own.mp4", n_flashes=1)
    before = made.path.read_bytes()
    played = finish("replay", str(made.path), "--out", str(made.path))
    assert played.returncode == EXIT_USAGE
    assert "the recording itself" in played.stderr
    assert made.path.read_bytes() == before


def test_older_lines_stay_when_the_recording_cannot_be_opened(tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text("older\n")
    played = finish("replay", str(tmp_path / "nosuch.mp4"), "--out", str(lines))
    assert played.returncode == EXIT_FAILED
    assert lines.read_text() == "older\n"


def test_lines_that_are_lost_are_a_failure(tmp_path: Path) -> None:
    made = make_flash_beep(tmp_path / "clip.mp4", n_flashes=2)
    played = finish("replay", str(made.path), "--out", "/dev/full")
    assert played.returncode == EXIT_FAILED
    assert "/dev/full" in played.stderr
    assert "Traceback" not in played.stderr


def test_no_name_is_no_file(tmp_path: Path) -> None:
    assert finish("replay", "clip.mp4", "--out", "", folder=tmp_path).returncode == EXIT_USAGE
