import json
import re
import traceback
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    DirectoryPath,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    field_validator,
)

from mmstream.config import Settings, load
from mmstream.errors import ConfigError


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Label(Settings):
    on: float = Field(0.5, gt=0, le=1)
    off: float = Field(0.35, ge=0, le=1)

    def model_post_init(self, _context: object, /) -> None:
        if self.off > self.on:
            msg = f"off {self.off} lies above on {self.on}"
            raise ValueError(msg)


class Media(Settings):
    type: Literal["media"]
    url: str
    pace: Literal["live", "max"] = "max"
    password: SecretStr | None = None
    login: tuple[str, SecretStr] | None = None

    @field_validator("url")
    @classmethod
    def _has_scheme(cls, url: str) -> str:
        if "://" not in url:
            msg = f"must be a URL: got {url}, that is {url!r}"
            raise ValueError(msg)
        return url


class Camera(Settings):
    type: Literal["webcam", "v4l2"]
    device: int = Field(0, ge=0)
    kind: Literal["media", "other"] = "other"
    """One of its values is another's tag."""


Source = Annotated[Media | Camera, Field(discriminator="type")]


class Events(Settings):
    labels: dict[str, Label] = Field(default_factory=dict)


class Tls(Settings):
    ca: FilePath | None = None
    folder: DirectoryPath | None = None


class Zone(Settings):
    name: str
    corners: tuple[float, float] = (0.0, 0.0)


class Demo(Settings):
    hop_secs: float = Field(0.25, gt=0)
    n_threads: int = 1
    colour: Colour = Colour.RED
    web: bool = False
    snapshot: bool | float = False
    name: Annotated[str, Field(pattern="^[a-z]+$")] = "x"
    events: Events = Events()
    tls: Tls | None = None
    zones: tuple[Zone, ...] = ()
    area: Zone | Tls | None = None
    loud: Label | Literal[False] = Label()
    sources: dict[str, Source] = Field(default_factory=dict)


ROOT_KEYS = (
    "area, colour, events, hop_secs, loud, n_threads, name, snapshot, sources, tls, web, zones"
)


def write(folder: Path, text: str) -> Path:
    path = folder / "demo.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusals(folder: Path, text: str, *overrides: str) -> list[str]:
    """The lines of the error, with the file as `demo.yaml`."""
    with pytest.raises(ConfigError) as caught:
        load(write(folder, text), Demo, overrides)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_a_good_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "hop_secs: 0.5\nevents: {labels: {motion: {on: 0.7}}}\n"
        "sources:\n  door: {type: media, url: rtsp://cam/x}\n  desk: {type: v4l2, device: 2}\n",
    )
    settings = load(path, Demo, ["sources.desk.device=1", "web=on", "zones=[{name: a}]"])
    assert settings.hop_secs == 0.5
    assert settings.events.labels["motion"].on == 0.7
    assert settings.sources == {
        "door": Media(type="media", url="rtsp://cam/x"),
        "desk": Camera(type="v4l2", device=1),
    }
    assert settings.web
    assert settings.zones == (Zone(name="a"),)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("hop_sec: 1", f"1:1: hop_sec: unknown key; did you mean 'hop_secs'? allowed: {ROOT_KEYS}"),
        ("zzz: 1", f"1:1: zzz: unknown key; allowed: {ROOT_KEYS}"),
        (
            "sources:\n  door:\n    type: media\n    url: rtsp://x\n    uri: y",
            (
                "5:5: sources.door.uri: unknown key; did you mean 'url'? "
                "allowed: login, pace, password, type, url"
            ),
        ),
        (
            "events:\n  labels: {motion: {on: 1.5}}",
            "2:25: events.labels.motion.on: must be less than or equal to 1 (got 1.5)",
        ),
        (
            "events:\n  labels: {motion: {on: 0.1}}",
            "2:20: events.labels.motion: off 0.35 lies above on 0.1",
        ),
        ("hop_secs: soon", "1:11: hop_secs: must be a number (got 'soon')"),
        ("hop_secs: .inf", "1:11: hop_secs: must be a finite number (got .inf)"),
        ("hop_secs: .nan", "1:11: hop_secs: must be a finite number (got .nan)"),
        ("hop_secs:", "1:10: hop_secs: must be a number (got nothing)"),
        ("n_threads: 1.5", "1:12: n_threads: must be a whole number (got 1.5)"),
        ("n_threads: [1]", "1:12: n_threads: must be a whole number (got a list)"),
        ("web: 2", "1:6: web: must be true or false (got 2)"),
        ("name: 123", "1:7: name: must be text, in quotes if need be (got 123)"),
        ("name: A", "1:7: name: must match pattern '^[a-z]+$' (got 'A')"),
        ("colour: bleu", "1:9: colour: must be 'red' or 'blue' (got 'bleu'); did you mean 'blue'?"),
        (
            "sources: {door: {type: media, url: 'a://b', pace: liv}}",
            "1:51: sources.door.pace: must be 'live' or 'max' (got 'liv'); did you mean 'live'?",
        ),
        (
            "sources: {door: {type: medai, url: x}}",
            (
                "1:24: sources.door.type: must be 'media', 'webcam' or 'v4l2' "
                "(got 'medai'); did you mean 'media'?"
            ),
        ),
        (
            "sources:\n  door: {url: x}",
            "2:9: sources.door.type: missing, but required; allowed: 'media', 'webcam', 'v4l2'",
        ),
        ("sources:\n  door: {type: media}", "2:9: sources.door.url: missing, but required"),
        ("sources: {door: }", "1:16: sources.door: must be a mapping (got nothing)"),
        ("sources: [1]", "1:10: sources: must be a mapping (got a list)"),
        ("zones: {}", "1:8: zones: must be a list (got a mapping)"),
        ("zones: [{name: a}, {}]", "1:20: zones.1.name: missing, but required"),
        ("zones: [{name: a, corners: [1]}]", "1:28: zones.0.corners.1: missing, but required"),
        (
            "zones: [{name: a, corners: [1, x]}]",
            "1:32: zones.0.corners.1: must be a number (got 'x')",
        ),
        (
            "zones: [{nme: a, name: b}]",
            "1:10: zones.0.nme: unknown key; did you mean 'name'? allowed: corners, name",
        ),
        (
            "snapshot: x",
            "1:11: snapshot: must be true or false (got 'x'); or must be a number (got 'x')",
        ),
        (
            "sources: {a: {type: webcam, kind: media, devise: 1}}",
            (
                "1:42: sources.a.devise: unknown key; did you mean 'device'? "
                "allowed: device, kind, type"
            ),
        ),
        ("name: " + "A" * 300, f"1:7: name: must match pattern '^[a-z]+$' (got '{'A' * 199}...)"),
        ("zones: [{name: a, Zone: 1}]", "1:19: zones.0.Zone: unknown key; allowed: corners, name"),
        (
            "sources: {a: {type: v4l2, v4l2: 1}}",
            "1:27: sources.a.v4l2: unknown key; allowed: device, kind, type",
        ),
        ("loud: {onn: 1}", "1:8: loud.onn: unknown key; did you mean 'on'? allowed: off, on"),
        ("loud: off", "1:7: loud: must be a mapping (got 'off'); or must be false (got 'off')"),
        ("name: a\nname: b", "2:1: name: this key stands twice; first at demo.yaml:1:1"),
    ],
)
def test_a_problem_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    (shown,) = refusals(tmp_path, text)
    assert shown == f"demo.yaml:{line}"


def test_a_union_tells_each_of_its_arms(tmp_path: Path) -> None:
    lines = refusals(tmp_path, "area: {name: 1}")
    assert lines == [
        "demo.yaml:1:8: area.name: unknown key; allowed: ca, folder",
        "demo.yaml:1:14: area.name: must be text, in quotes if need be (got 1)",
    ]


def test_all_problems_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    lines = refusals(
        tmp_path,
        "zzz: 1\nhop_secs: -1\nsources:\n  b: {type: media}\n  a: {type: webcam, device: -1}\n"
        "name: !env MMSTREAM_NOT_SET\n",
        "web=maybe",
        "hop_secs.x=1",
        "colour=bleu",
    )
    assert [line.partition(": ")[0] for line in lines] == [
        "demo.yaml:1:1",
        "demo.yaml:2:11",
        "demo.yaml:4:6",
        "demo.yaml:5:29",
        "demo.yaml:6:7",
        "--set colour",
        "--set web",
        "--set hop_secs.x",
    ]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("hop_sec=1", "--set hop_sec: unknown key; did you mean 'hop_secs'? allowed: "),
        ("events.labels.face.on=2", "--set events.labels.face.on: must be less than or equal to 1"),
        ("events.labels={face: {on: 2}}", "--set events.labels: events.labels.face.on: must be "),
        ("sources.door.url=x://y", "--set sources.door.url: sources.door.type: missing"),
        ("name='Ä", "--set name: not valid YAML: "),
        ("name", "--set name: must read key.path=value"),
    ],
)
def test_a_wrong_override_names_itself(tmp_path: Path, override: str, line: str) -> None:
    (shown,) = refusals(tmp_path, "web: false", override)
    assert shown.startswith(line)


def test_an_override_mends_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "hop_secs: soon\nname: !env MMSTREAM_NOT_SET")
    settings = load(path, Demo, ["hop_secs=1", "name=a", "hop_secs=2"])
    assert (settings.hop_secs, settings.name) == (2.0, "a")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", f"demo.yaml: is empty; allowed: {ROOT_KEYS}"),
        ("# nothing\n", f"demo.yaml: is empty; allowed: {ROOT_KEYS}"),
        ("- a", f"demo.yaml:1:1: must be a mapping of keys; allowed: {ROOT_KEYS}"),
        ("just words", f"demo.yaml:1:1: must be a mapping of keys; allowed: {ROOT_KEYS}"),
    ],
)
def test_a_file_is_a_mapping(tmp_path: Path, text: str, line: str) -> None:
    assert refusals(tmp_path, text, "web=true") == [line]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, "web: true")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "demmo.yaml", Demo)
    assert str(caught.value) == (
        f"{tmp_path}/demmo.yaml: no such file; did you mean '{tmp_path}/demo.yaml'?"
    )
    with pytest.raises(ConfigError, match=r"no such file; there is no folder '.*/none' that can"):
        load(tmp_path / "none" / "demo.yaml", Demo)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, Demo)


def test_a_file_named_in_the_settings_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    (line,) = refusals(tmp_path, f"tls: {{ca: {tmp_path}/ca.pen}}")
    assert line == "demo.yaml:1:11: tls.ca: no such file (got 'ca.pen'); did you mean 'ca.pem'?"
    (line,) = refusals(tmp_path, f"tls: {{folder: {tmp_path}/ca.pem}}")
    assert line == "demo.yaml:1:15: tls.folder: no such folder (got 'ca.pem')"
    path = write(tmp_path, f"tls: {{ca: {tmp_path}/ca.pem}}")
    assert load(path, Demo).tls == Tls(ca=tmp_path / "ca.pem")


def shown_anywhere(folder: Path, text: str, overrides: Sequence[str] = ()) -> str:
    """What a log with the whole traceback would show."""
    with pytest.raises(ConfigError) as caught:
        load(write(folder, text), Demo, overrides)
    assert caught.value.__context__ is None
    return "".join(traceback.format_exception_only(caught.value))


@pytest.mark.parametrize(
    "text",
    [
        "sources: {door: {type: media, url: x://y, password: [hunter2]}}",
        "sources: {door: {type: media, url: x://y, password: 12345, pasword: hunter2}}",
        "sources: {door: {type: media, url: x://y, login: [me, 12345]}}",
        "sources: {door: {type: media, url: !env CAM}}",
        "sources: {door: {type: media, url: !secret cam}}",
        "sources: {door: {type: !env CAM, url: x}}",
        "sources: {door: {type: media, url: x://y, pace: !secret cam}}",
        "sources: {door: !secret cam}",
        "tls: {ca: !secret cam}",
        "name: !secret cam",
        "hop_secs: !env CAM",
        "colour: !env CAM",
        "snapshot: !env CAM",
        "sources: {door: {type: media, url: x://y, pace: 'rtsp://u:hunter2@cam'}}",
        "web: http://cam/?password=hunter2",
    ],
)
def test_no_error_shows_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    hidden = "\\hunter2 \"12345'"  # its repr differs
    monkeypatch.setenv("CAM", hidden)
    (tmp_path / "secrets.yaml").write_text(json.dumps({"cam": hidden}))
    shown = shown_anywhere(tmp_path, text)
    assert "hunter2" not in shown
    assert "12345" not in shown


def test_no_error_shows_the_value_of_an_override(tmp_path: Path) -> None:
    (tmp_path / "secrets.yaml").write_text("cam: hunter2\n")
    overrides = [
        "sources.door.pasword=hunter2",
        "sources.door.password=12345",
        "sources.door.url=!secret cam",
        "sources.door.type=media",
        "hunter=[hunter2",
    ]
    shown = shown_anywhere(tmp_path, "web: true", overrides)
    assert len(shown.splitlines()) == 4
    assert "hunter2" not in shown
    assert "12345" not in shown


def test_secrets_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THREADS", "3")
    (tmp_path / "secrets.yaml").write_text("cam: 0123\n")
    path = write(
        tmp_path,
        "n_threads: !env THREADS\n"
        "sources: {door: {type: media, url: x://y, password: !secret cam}}",
    )
    settings = load(path, Demo)
    assert settings.n_threads == 3
    door = settings.sources["door"]
    assert isinstance(door, Media)
    assert door.password == SecretStr("0123")
    assert "0123" not in repr(settings)


KEYS = st.sampled_from([*Demo.model_fields, "labels", "type", "media", "url", "on", "x"])
TREES = st.recursive(
    st.sampled_from([None, True, -1, 0.5, "media", "webcam", "rtsp://cam", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(KEYS, TREES, min_size=1))
def test_whatever_a_file_holds_is_taken_or_refused_with_places(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, object]
) -> None:
    path = write(tmp_path_factory.getbasetemp(), json.dumps(tree, indent=1))
    try:
        settings = load(path, Demo)
    except ConfigError as error:
        for line in str(error).splitlines():
            assert re.match(r".*/demo\.yaml:[0-9]+:[0-9]+: [a-z0-9_.]+: \S", line)
    else:
        assert settings == Demo.model_validate(tree)


def test_settings_are_frozen_and_closed() -> None:
    demo = Demo()
    with pytest.raises(ValidationError, match="frozen"):
        demo.web = True  # type: ignore[misc]  # what mypy refuses is refused at run time too
    with pytest.raises(ValidationError, match="Extra inputs"):
        Demo.model_validate({"wbe": True})
