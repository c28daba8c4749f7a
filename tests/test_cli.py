"""The command line: what each command prints, and the exit status of every kind of mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from programs import ROOT, finish
from sink_messages import caption
from stores import append, life, numbered, opened

from mmstream import __version__
from mmstream.cli import EXIT_FAILED, EXIT_UNREACHABLE, EXIT_USAGE

HEAVY = ("torch", "torchaudio", "cv2", "av", "aiomqtt", "amqtt", "numpy", "pydantic", "uvicorn")
MINIMAL = "sources: {clip: {type: media, url: clip.mp4}}\n"


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, mmstream.cli; print([m for m in sys.argv[1:] if m in sys.modules])"
    asked = [sys.executable, "-c", code, *HEAVY]
    loaded = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_help_lists_the_commands() -> None:
    shown = finish("--help")
    assert shown.returncode == 0
    for command in (
        "run",
        "replay",
        "evaluate",
        "check",
        "devices",
        "demo",
        "schema",
        "bench",
        "events",
    ):
        assert f"  {command} " in shown.stdout


def test_version() -> None:
    assert finish("--version").stdout == f"mmstream {__version__}\n"


@pytest.mark.parametrize("recipe", ["demo", "surveillance", "captioning", "file"])
def test_check_accepts_every_shipped_recipe(recipe: str) -> None:
    checked = finish("check", recipe)
    assert checked.returncode == 0, checked.stderr
    assert f"{recipe}: right" in checked.stdout


def test_a_wrong_key_is_one_line_with_its_place(tmp_path: Path) -> None:
    config = tmp_path / "camera.yaml"
    config.write_text("sources:\n  clip:\n    type: media\n    uri: clip.mp4\n")
    checked = finish("check", str(config))
    assert checked.returncode == EXIT_USAGE
    wrong = [line for line in checked.stderr.splitlines() if "uri" in line]
    assert len(wrong) == 1
    assert f"{config}:4:5: sources.clip.uri" in wrong[0]
    assert "'url'" in wrong[0]
    assert "Traceback" not in checked.stderr


def test_set_overrides_and_is_checked_alike(tmp_path: Path) -> None:
    config = tmp_path / "camera.yaml"
    config.write_text(MINIMAL)
    right = finish("check", str(config), "--set", "node=porch")
    assert "node porch" in right.stdout
    wrong = finish("check", str(config), "--set", "hops.hop_secs=soon")
    assert wrong.returncode == EXIT_USAGE
    assert "hops.hop_secs" in wrong.stderr


def test_a_reserved_source_id_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "camera.yaml"
    config.write_text(MINIMAL.replace("clip:", "status:"))
    checked = finish("check", str(config))
    assert checked.returncode == EXIT_USAGE
    assert "reserved" in checked.stderr


def test_neither_file_nor_recipe_names_the_recipes() -> None:
    checked = finish("check", "survaillance")
    assert checked.returncode == EXIT_USAGE
    assert "surveillance" in checked.stderr


def test_schema_of_the_configuration_validates_the_shipped_files() -> None:
    printed = finish("schema")
    assert printed.returncode == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(printed.stdout))
    assert "sources" in json.loads(printed.stdout)["required"]


def test_schema_of_a_message() -> None:
    schema = json.loads(finish("schema", "event").stdout)
    assert {"id", "seq", "boot_id", "t_start"} <= set(schema["properties"])


def test_an_unknown_schema_names_those_there_are() -> None:
    asked = finish("schema", "evnt")
    assert asked.returncode == EXIT_USAGE
    assert "event" in asked.stderr


def test_an_unknown_benchmark_names_those_there_are() -> None:
    asked = finish("bench", "overhaed")
    assert asked.returncode == EXIT_USAGE
    assert "overhead" in asked.stderr


def test_a_missing_recording_fails_with_one_line(tmp_path: Path) -> None:
    played = finish("replay", "nosuch.mp4", folder=tmp_path)
    assert played.returncode == EXIT_FAILED
    assert "nosuch.mp4" in played.stderr
    assert "Traceback" not in played.stderr


def test_an_epoch_that_no_clock_has_is_refused() -> None:
    played = finish("replay", "clip.mp4", "--epoch", "9999-12-31T23:59:59Z")
    assert played.returncode == EXIT_USAGE
    assert "--epoch" in played.stderr
    assert "Traceback" not in played.stderr


def test_strict_turns_an_unreachable_source_into_its_own_status(tmp_path: Path) -> None:
    config = tmp_path / "camera.yaml"
    config.write_text(MINIMAL)
    ran = finish("run", str(config), "--strict", "--no-web", folder=tmp_path)
    assert ran.returncode == EXIT_UNREACHABLE
    assert "clip.mp4" in ran.stderr


def test_strict_turns_an_unreachable_broker_into_its_own_status(tmp_path: Path) -> None:
    config = tmp_path / "camera.yaml"
    config.write_text(
        "sources: {room: {type: synthetic}}\nsinks: {mqtt: {host: 127.0.0.1, port: 1}}\n"
    )
    ran = finish("run", str(config), "--strict", "--no-web", folder=tmp_path)
    assert ran.returncode == EXIT_UNREACHABLE
    assert "127.0.0.1:1" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_json_logs_are_json_lines_each_once_without_credentials(tmp_path: Path) -> None:
    config = tmp_path / "camera.yaml"
    config.write_text(
        "sources: {door: {type: media, url: 'nosuch.mp4?token=s3cret'}}\nsinks: {jsonl: {}}\n"
    )
    ran = finish("run", str(config), "--no-web", "--log-format", "json", folder=tmp_path)
    assert ran.returncode == EXIT_FAILED
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert lines
    for line in lines:
        assert {"ts", "level", "logger", "message"} <= line.keys()
    assert len({line["message"] for line in lines}) == len(lines)
    assert any("nosuch.mp4" in line["message"] for line in lines)
    assert "s3cret" not in ran.stderr + ran.stdout


def test_a_wrong_configuration_is_json_too_where_that_is_asked_for(tmp_path: Path) -> None:
    ran = finish("run", "nosuch.yaml", "--log-format", "json", folder=tmp_path)
    assert ran.returncode == EXIT_USAGE
    (line,) = (json.loads(line) for line in ran.stderr.splitlines())
    assert "nosuch.yaml" in line["message"]
    assert line["level"] == "ERROR"


def test_events_looks_in_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "XDG_STATE_HOME", str(tmp_path))
    nothing = finish("events", "list")
    assert nothing.returncode == EXIT_FAILED
    assert str(tmp_path / "mmstream") in nothing.stderr
    (tmp_path / "mmstream").mkdir()
    with opened(tmp_path / "mmstream" / "pi.db") as store:
        append(store, life("e1"))
        append(store, numbered([caption("final")], 3))
        listed = finish("events", "list", "--label", "motion", "--json")  # while it is written
    assert json.loads(listed.stdout)["id"] == "e1"
    found = finish("events", "search", "Grüß", "gott")
    assert "c1" in found.stdout
    exported = finish("events", "export", "--content", "event")
    assert [json.loads(line)["seq"] for line in exported.stdout.splitlines()] == [0, 1, 2]
    (tmp_path / "mmstream" / "porch.db").touch()
    several = finish("events", "list")
    assert several.returncode == EXIT_FAILED
    assert "pi.db, porch.db" in several.stderr


@pytest.mark.parametrize(
    "asked",
    [
        ("list", "--since", "soon"),
        ("list", "--limit", "0"),
        ("export", "--as", "manifest"),
        ("export", "--config", "file"),
        ("export", "--as", "manifest", "--config", "file", "--content", "alert"),
    ],
)
def test_what_events_is_asked_wrongly_is_told_in_words(asked: tuple[str, ...]) -> None:
    refused = finish("events", *asked)
    assert refused.returncode == EXIT_USAGE
    assert any(word in refused.stderr for word in ("--since", "--limit", "--config", "--content"))
    assert "Traceback" not in refused.stderr
