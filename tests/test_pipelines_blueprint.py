from pathlib import Path

import pytest

from mmstream.clock import ManualClock
from mmstream.errors import ConfigError
from mmstream.pipelines.blueprint import ConfiguredSources
from mmstream.pipelines.configuration import Configuration

DOOR = {"type": "network", "url": "rtsp://127.0.0.1/door"}
YARD = {"type": "network", "url": "rtsp://127.0.0.1/yard"}


def configuration(hop_secs: float = 0.25, **sources: object) -> Configuration:
    return Configuration.model_validate({"sources": sources, "hops": {"hop_secs": hop_secs}})


def blueprint(now: Configuration, *later: Configuration) -> ConfiguredSources:
    """It runs with `now`; the file then says one of `later` after the other."""
    files = iter(later)
    return ConfiguredSources(now, ManualClock(), lambda: next(files))


def test_a_chain_is_made_of_settings_as_the_file_has_them() -> None:
    made = blueprint(configuration(door=DOOR)).chain("yard", YARD)
    assert made.source.name == "yard"
    assert made.source.live


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("yard", {"type": "network", "uri": "rtsp://joe:hush@h/x"}, "uri: Extra inputs"),
        ("yard", {"type": "network", "url": "/tmp/hush.mp4"}, "is no live URL"),  # noqa: S108
        ("yard", {"type": "tv"}, "sources.yard: "),
        ("status", YARD, "is a topic of the node itself"),
        ("a b", YARD, "match pattern"),
    ],
)
def test_wrong_settings_are_told_without_credentials(
    name: str, settings: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        blueprint(configuration(door=DOOR)).chain(name, {**settings})
    assert says in str(caught.value)
    assert "joe" not in str(caught.value)


def test_only_what_has_changed_is_different() -> None:
    louder = {**DOOR, "transport": "udp"}
    plan = blueprint(
        configuration(door=DOOR, yard=YARD),
        configuration(door=DOOR, yard=YARD),
        configuration(door=louder, hall=YARD),
        configuration(door=louder, hall=YARD),
    )
    same, changed, again = plan.reread(), plan.reread(), plan.reread()
    assert (same.removed, same.changed, same.ignored) == ((), (), ())
    assert changed.removed == ("yard",)
    assert [chain.source.name for chain in changed.changed] == ["door", "hall"]
    assert (again.removed, again.changed) == ((), ())


def test_masks_of_a_source_are_those_of_the_start_and_of_now() -> None:
    def masked(**sources: object) -> Configuration:
        shut = {name: [[[0, 0], [size, 0], [0, size]]] for name, size in sources.items()}
        known = {"door": DOOR, **dict.fromkeys(sources, YARD)}
        return Configuration.model_validate(
            {"sources": known, "detectors": {"motion": {"masks": shut}}}
        )

    def sizes(source: str) -> list[float] | None:
        masks = plan.masks(source)
        return None if masks is None else [mask[1][0] for mask in masks]

    plan = blueprint(masked(hall=0.5), masked(hall=0.7, yard=0.6), masked(yard=0.8))
    assert (sizes("door"), sizes("hall"), sizes("yard")) == ([], [0.5], None)
    plan.reread()
    assert (sizes("door"), sizes("hall"), sizes("yard")) == ([], [0.5, 0.7], [0.6])
    plan.reread()
    plan.chain("hall", YARD)
    plan.chain("attic", YARD)
    assert (sizes("attic"), sizes("hall"), sizes("yard")) == ([], [0.5], [0.8])
    assert sizes("cellar") is None


def test_what_needs_a_restart_is_named_until_there_was_one() -> None:
    finer = configuration(hop_secs=0.125, door=DOOR)
    plan = blueprint(configuration(door=DOOR), finer, finer)
    assert plan.reread().ignored == ("hops.hop_secs",)
    assert plan.reread().ignored == ("hops.hop_secs",)


def test_thresholds_of_a_taught_label_need_a_restart_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    taught = tmp_path / "mmstream" / "mmstream" / "taught"
    taught.mkdir(parents=True)
    (taught / "doorbell.safetensors").touch()
    asked = {"sources": {"door": DOOR}}
    before, now = (
        Configuration.model_validate({**asked, "events": {"doorbell": events}})
        for events in ({}, {"on": 0.7})
    )
    plan = blueprint(Configuration.model_validate(asked), before, now)
    assert plan.reread().ignored == ("events.doorbell",)
    assert blueprint(before, now).reread().ignored == ("events.doorbell.on",)


def test_a_file_that_is_wrong_changes_nothing() -> None:
    def broken() -> Configuration:
        msg = "live.yaml:1:1: is empty"
        raise ConfigError(msg)

    with pytest.raises(ConfigError, match="is empty"):
        ConfiguredSources(configuration(door=DOOR), ManualClock(), broken).reread()
