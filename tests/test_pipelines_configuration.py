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
from mmstream.models.avp_spec import AvpSpec
from mmstream.pipelines.configuration import SHIPPED, Configuration, find, schemas
from mmstream.pipelines.graph import labels, specs
from mmstream.pipelines.thresholds import EventsSettings, LoudEvents, SoundEvents
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


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"captions": {}, "detectors": {"speech": False}},
            "captions.speech rests on detectors.speech, which is off; allowed: detectors.speech:",
        ),
        (
            {"captions": {"scene": False, "descriptions": {"captioner": {"weights": "blip"}}}},
            "descriptions are told as captions of the scene, and scene is off",
        ),
        (
            {"captions": {"speech": {"recogniser": {"language": "de", "type": "pocketsphinx"}}}},
            "en-US",
        ),
        (
            {
                "captions": {
                    "descriptions": {
                        "captioner": {"weights": "blip"},
                        "masks": {"door": [[[0, 0], [1, 0], [0, 1]]]},
                    }
                }
            },
            "masks of 'door', which is no source",
        ),
        ({"detectors": {"mmt": {"weights": "nowhere"}}}, "nowhere/config.json: cannot be read"),
        ({"sinks": {"subtitles": {"path": "talk.mp4"}}}, "talk.mp4"),
    ],
)
def test_captions_that_cannot_be_are_refused(asked: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        Configuration.model_validate({"sources": CLIP, **asked})


def test_without_speech_it_may_be_deaf() -> None:
    asked = {"captions": {"speech": False}, "detectors": {"speech": False}}
    assert Configuration.model_validate({"sources": CLIP, **asked}).captions is not False


def test_without_a_foreground_everything_may_be_looked_at() -> None:
    everywhere = {"only_foreground": False}
    detectors = {"motion": False, "presence": False, "person": everywhere, "face": everywhere}
    settings = Configuration.model_validate({"sources": CLIP, "detectors": detectors})
    assert settings.detectors.person == PersonSettings(only_foreground=False)


def test_speech_is_heard_at_its_own_rate_only() -> None:
    asked: dict[str, object] = {"sources": CLIP, "hops": {"rate_hz": 8000}}
    with pytest.raises(ValidationError, match=r"allowed: 16000, or detectors\.speech: false"):
        Configuration.model_validate(asked)
    quiet = Configuration.model_validate({**asked, "detectors": {"speech": False, "avp": False}})
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


def test_every_label_of_a_detector_has_thresholds_of_its_own() -> None:
    settings = Configuration.model_validate({"sources": CLIP, "detectors": {"avp": False}})
    names = [label.name for label in labels(settings.detectors)]
    assert sorted(names) == sorted(EventsSettings.model_fields)
    assert set(names) == {
        *("motion", "presence", "person", "face", "speech", "loud", "alarm"),
        *("person_speaking", "impact", "camera_blocked", "audio_lost"),
    }


def test_avp_small_comes_after_all_detectors_unless_it_is_switched_off() -> None:
    settings = Configuration.model_validate({"sources": CLIP})
    *detectors, model = specs(settings.detectors)
    assert model == AvpSpec(weights="avp-small")
    off = Configuration.model_validate({"sources": CLIP, "detectors": {"avp": False}})
    assert specs(off.detectors) == tuple(detectors)


def model(folder: Path, *, rate_hz: int = 16_000) -> dict[str, object]:
    """`detectors` that ask for a model of dogs, roosters and rain, of which it tells two."""
    config = {
        "identity": {"task": "avp", "rate_hz": rate_hz, "trained": False},
        "settings": {"events": {"labels": ["dog", "rooster", "rain"]}, "told": ["dog", "rain"]},
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return {"avp": {"weights": str(folder)}}


def test_a_model_hears_at_its_own_rate_only(tmp_path: Path) -> None:
    detectors = {**model(tmp_path), "speech": False}
    asked = {"sources": CLIP, "detectors": detectors, "hops": {"rate_hz": 8000}}
    why = (
        f"{tmp_path.name} hears at 16000 Hz only, and hops.rate_hz is 8000; "
        "allowed: 16000, or detectors.avp: false"
    )
    with pytest.raises(ValidationError, match=re.escape(why)):
        Configuration.model_validate(asked)
    assert Configuration.model_validate({**asked, "detectors": {"avp": False, "speech": False}})
    model(tmp_path, rate_hz=8000)
    assert Configuration.model_validate(asked).hops.rate_hz == 8000


def test_a_label_of_a_model_has_thresholds_set_or_not(tmp_path: Path) -> None:
    asked = {"sources": CLIP, "detectors": model(tmp_path), "events": {"rain": {"on": 0.8}}}
    settings = Configuration.model_validate(asked)
    names = [label.name for label in labels(settings.detectors)]
    assert names[-2:] == ["dog", "rain"]
    by_label = settings.events.by_label(names)
    assert list(by_label) == names
    assert (by_label["rain"], by_label["dog"]) == (SoundEvents(on=0.8), SoundEvents())
    assert by_label["loud"] == settings.events.loud == LoudEvents()


def refusal(folder: Path, text: str) -> str:
    path = folder / "own.yaml"
    path.write_text("sources: {clip: {type: media, url: clip.mp4}}\n" + text, "utf-8")
    with pytest.raises(ConfigError) as refused:
        load(path, Configuration)
    return str(refused.value).replace(f"{path}:", "")


def test_events_of_labels_that_nobody_says_are_refused_where_they_stand(tmp_path: Path) -> None:
    detectors = f"detectors: {json.dumps(model(tmp_path))}\n"
    fixed = EventsSettings.model_fields
    known = ", ".join(sorted((*fixed, "dog", "rain")))
    assert refusal(tmp_path, f"{detectors}events:\n  dog: {{on: 0.6}}\n  rian: {{}}\n") == (
        f"5:3: events.rian: unknown key; did you mean 'rain'? allowed: {known}"
    )
    # known to the model, and not told
    assert refusal(tmp_path, f"{detectors}events: {{rooster: {{}}}}\n") == (
        f"3:10: events.rooster: unknown key; allowed: {known}"
    )
    assert refusal(tmp_path, "detectors: {avp: false}\nevents: {motoin: {}, dog: {}}\n") == (
        "3:10: events.motoin: unknown key; did you mean 'motion'? allowed: "
        f"{', '.join(sorted(fixed))}\n"
        f"3:22: events.dog: unknown key; allowed: {', '.join(sorted(fixed))}"
    )


def test_what_was_taught_to_the_node_may_be_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    asked = {
        "node": "pi",
        "sources": CLIP,
        "detectors": model(tmp_path),
        "events": {"doorbell": {"on": 0.6}},
    }
    with pytest.raises(ValidationError, match=r"allowed: .*dog"):
        Configuration.model_validate(asked)
    taught = tmp_path / "mmstream" / "pi" / "taught"
    taught.mkdir(parents=True)
    (taught / "doorbell.safetensors").touch()
    settings = Configuration.model_validate(asked)
    assert labels(settings.detectors, settings.node)[-1].name == "doorbell"
    assert settings.events.by_label(["doorbell"]) == {"doorbell": SoundEvents(on=0.6)}


def test_what_is_wrong_with_a_label_of_a_model_is_said_where_it_stands(tmp_path: Path) -> None:
    detectors = f"detectors: {json.dumps(model(tmp_path))}\n"
    assert refusal(tmp_path, f"{detectors}events: {{dog: {{on: 2}}}}\n") == (
        "3:20: events.dog.on: must be less than or equal to 1 (got 2)"
    )
    known = ", ".join(sorted(SoundEvents.model_fields))
    assert refusal(tmp_path, f"{detectors}events: {{dog: {{onn: 0.6}}}}\n") == (
        f"3:16: events.dog.onn: unknown key; did you mean 'on'? allowed: {known}"
    )
    assert refusal(tmp_path, f"{detectors}events: {{dog: 3}}\n").startswith(
        "3:15: events.dog: must be a mapping"
    )


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    said = refusal(tmp_path, f"detectors: {{avp: {{weights: {tmp_path / 'none'}}}}}\n")
    assert said.startswith("2:18: detectors.avp: ")
    assert f"{tmp_path / 'none' / 'config.json'}: cannot be read: No such file" in said


def test_the_schema_for_editors_takes_labels_of_models() -> None:
    schema = schemas()["config"]
    assert isinstance(schema, dict)
    validator = jsonschema.Draft202012Validator(schema)
    clip: dict[str, object] = {"sources": CLIP, "events": {"rain": {"on": 0.7}}}
    assert validator.is_valid(clip)
    assert not validator.is_valid({**clip, "events": {"rain": {"onn": 0.7}}})
    assert not validator.is_valid({**clip, "events": {"rain": 0.7}})


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
