"""The schema of a configuration, and the files that are shipped."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
from pydantic import ValidationError

from mmstream.config import load
from mmstream.detectors.person import PersonSettings
from mmstream.errors import ConfigError
from mmstream.pipelines.configuration import SHIPPED, Configuration, find, schemas
from mmstream.pipelines.graph import labels, specs
from mmstream.yaml_tree import plain, read_tree

CLIP = {"clip": {"type": "media", "url": "clip.mp4"}}


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_file_loads_and_names_its_schema(path: Path) -> None:
    settings = load(path, Configuration)
    first = path.read_text("utf-8").splitlines()[0]
    named = path.parent / first.rpartition("=")[2]
    jsonschema.validate(plain(read_tree(path)), json.loads(named.read_text("utf-8")))
    assert settings.sources


def test_the_recipes_of_the_issue_are_shipped() -> None:
    assert {path.stem for path in SHIPPED.glob("*.yaml")} >= {
        "captioning",
        "demo",
        "file",
        "microphone",
        "multi",
        "rtsp",
        "surveillance",
        "webcam",
    }


def test_false_switches_a_detector_off() -> None:
    settings = Configuration.model_validate({"sources": CLIP, "detectors": {"loud": False}})
    assert settings.detectors.loud is False
    assert settings.detectors.motion is not False


@pytest.mark.parametrize(
    ("detectors", "message"),
    [
        ({"motion": False, "presence": False}, "person looks only where motion or presence see"),
        ({"motion": False, "presence": False, "person": False}, "allowed: face: {only_foreground"),
        ({"motion": {"masks": {"door": [[[0, 0], [1, 0], [0, 1]]]}}}, "masks of 'door', which is"),
        ({"presence": {"masks": {"clip": [[[0, 0], [1, 0]]]}}}, "at least 3 items"),
    ],
)
def test_detectors_that_could_see_nothing_are_refused(
    detectors: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        Configuration.model_validate({"sources": CLIP, "detectors": detectors})


def test_without_a_foreground_everything_may_be_looked_at() -> None:
    everywhere = {"only_foreground": False}
    detectors = {"motion": False, "presence": False, "person": everywhere, "face": everywhere}
    settings = Configuration.model_validate({"sources": CLIP, "detectors": detectors})
    assert settings.detectors.person == PersonSettings(only_foreground=False)


def test_speech_is_heard_at_its_own_rate_only() -> None:
    asked: dict[str, object] = {"sources": CLIP, "hops": {"rate_hz": 8000}}
    with pytest.raises(ValidationError, match=r"allowed: 16000, or detectors\.speech: false"):
        Configuration.model_validate(asked)
    quiet = Configuration.model_validate({**asked, "detectors": {"speech": False}})
    assert [spec.labels[0].name for spec in specs(quiet.detectors)][-1] == "impact"


@pytest.mark.parametrize(
    ("off", "is_heard"),
    [((), True), (("speech",), False), (("person",), True), (("person", "face"), False)],
)
def test_a_fused_label_is_off_with_what_it_rests_on(
    off: tuple[str, ...], *, is_heard: bool
) -> None:
    detectors = dict.fromkeys(off, False)
    settings = Configuration.model_validate({"sources": CLIP, "detectors": detectors})
    names = [label.name for label in labels(settings.detectors)]
    assert ("person_speaking" in names) is is_heard


def test_every_label_has_thresholds_of_its_own() -> None:
    settings = Configuration.model_validate({"sources": CLIP})
    names = [label.name for label in labels(settings.detectors)]
    assert sorted(names) == sorted(settings.events.by_label())
    assert set(names) == {
        *("motion", "presence", "person", "face", "speech", "loud", "alarm"),
        *("person_speaking", "impact", "camera_blocked", "audio_lost"),
    }


def test_one_threshold_changed_keeps_the_others_of_that_label() -> None:
    settings = Configuration.model_validate({"sources": CLIP, "events": {"loud": {"on": 0.9}}})
    assert settings.events.loud.on == 0.9
    default = Configuration.model_validate({"sources": CLIP}).events.loud
    assert settings.events.loud == default.model_copy(update={"on": 0.9})


@pytest.mark.parametrize("name", ["status", "info", "stats", "request", "response", "a b", "", "é"])
def test_a_source_id_must_be_a_topic_level_of_its_own(name: str) -> None:
    with pytest.raises(ValidationError):
        Configuration.model_validate({"sources": {name: CLIP["clip"]}})


def test_there_is_no_configuration_without_sources() -> None:
    with pytest.raises(ValidationError):
        Configuration.model_validate({"sources": {}})


def test_find_takes_a_path_or_a_recipe(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.touch()
    assert find(str(own)) == own
    assert find("demo") == SHIPPED / "demo.yaml"
    with pytest.raises(ConfigError, match="neither a file nor a recipe"):
        find("dem")


def test_schemas_hold_every_message_and_the_configuration() -> None:
    assert {"event", "alert", "caption", "health", "info", "stats", "config"} <= set(schemas())


def test_the_event_log_is_on_unless_it_is_switched_off() -> None:
    settings = Configuration.model_validate({"sources": CLIP})
    assert settings.store is not False
    assert settings.store.file(settings.node).name == "mmstream.db"
    assert Configuration.model_validate({"sources": CLIP, "store": False}).store is False
    with pytest.raises(ValidationError, match="max_mb"):
        Configuration.model_validate({"sources": CLIP, "store": {"max_mb": 0}})
