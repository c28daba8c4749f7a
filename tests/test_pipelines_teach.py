"""`mmstream teach`: clips become a prototype that a run tells; mistakes are named, status 2."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from programs import MOTION_AND_LOUD, finish
from taught_world import filmed, hissing, record, save_model, tone
from typer.testing import CliRunner

from mmstream.cli import app
from mmstream.clock import ManualClock
from mmstream.errors import ConfigError
from mmstream.models import taught
from mmstream.models.avp_spec import EMBEDDING, GIST, MOMENT, AvpSpec
from mmstream.models.avp_synchrony import SYNCHRONY
from mmstream.pipelines import teach
from mmstream.windows import HopSettings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, three tones, three hisses."""
    folder = tmp_path_factory.mktemp("taught")
    save_model(folder / "model")
    for n in range(3):
        record(folder / f"tone{n}.wav", tone(800 + 10 * n, 1.5, seed=n))
        record(folder / f"hiss{n}.wav", hissing(1.5, seed=n))
    return folder


def spec(world: Path, taught_in: Path) -> AvpSpec:
    return AvpSpec(weights=str(world / "model"), untrained="allow", taught=taught_in)


def clips(world: Path, name: str, n: int = 3) -> list[Path]:
    return [world / f"{name}{i}.wav" for i in range(n)]


def taught_by(world: Path, folder: Path, label: str, paths: Sequence[Path]) -> list[str]:
    told: list[str] = []
    clock = ManualClock(utc_ns=1_700_000_000_000_000_000)
    teach.teach(label, paths, spec(world, folder), HopSettings(), clock=clock, tell=told.append)
    return told


def refusal(world: Path, folder: Path, label: str, paths: Sequence[Path]) -> str:
    with pytest.raises(ConfigError) as error:
        taught_by(world, folder, label, paths)
    return str(error.value)


def test_three_clips_teach_a_label(world: Path, tmp_path: Path) -> None:
    (told,) = taught_by(world, tmp_path, "Door bell", clips(world, "tone"))
    (one,) = taught.taught_in(tmp_path, model=save_model(tmp_path / "same")).taken
    assert one.about.label == "door_bell"
    assert one.about.made == "2023-11-14T22:13:20.000Z"
    assert [clip.name for clip in one.about.clips] == ["tone0.wav", "tone1.wav", "tone2.wav"]
    assert len({clip.digest for clip in one.about.clips}) == 3
    assert f"told from {one.about.threshold:.2f} on" in told
    assert "tone1.wav 1.00" in told
    listed = teach.listed(spec(world, tmp_path))
    assert listed.startswith("door_bell: 3 clips, 2023-11-14")


def test_what_was_taught_can_be_taught_anew_and_forgotten(world: Path, tmp_path: Path) -> None:
    taught_by(world, tmp_path, "bell", clips(world, "tone"))
    taught_by(world, tmp_path, "bell", clips(world, "hiss"))
    (one,) = taught.taught_in(tmp_path, model=save_model(tmp_path / "same")).taken
    assert one.about.clips[0].name == "hiss0.wav"
    assert teach.forget("Bell", spec(world, tmp_path)) == tmp_path / "bell.safetensors"
    assert "nothing was taught" in teach.listed(spec(world, tmp_path))
    with pytest.raises(ConfigError, match="'bell' was not taught; there are: none"):
        teach.forget("bell", spec(world, tmp_path))


def test_the_number_of_clips_is_bounded(world: Path, tmp_path: Path) -> None:
    said = refusal(world, tmp_path, "bell", clips(world, "tone", 2))
    assert "2 clips; allowed: 3 to 10" in said
    assert list(tmp_path.iterdir()) == []


def test_a_clip_that_cannot_be_read_is_named(world: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("no media")
    for path in (notes, tmp_path / "nosuch.wav", tmp_path):
        said = refusal(world, tmp_path / "taught", "bell", [*clips(world, "tone", 2), path])
        assert str(path) in said


def test_the_same_recording_twice_is_refused(world: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.wav"
    copy.write_bytes((world / "tone0.wav").read_bytes())
    said = refusal(world, tmp_path / "taught", "bell", [*clips(world, "tone", 2), copy])
    assert "copy.wav: the same recording as" in said


@pytest.mark.parametrize(
    "label",
    [
        "speech",
        "Person Speaking",
        "impact",
        "unusual",
        "out_of_sync",
        EMBEDDING,
        MOMENT,
        GIST,
        SYNCHRONY,
    ],
)
def test_a_label_of_a_detector_is_refused(world: Path, tmp_path: Path, label: str) -> None:
    said = refusal(world, tmp_path, label, clips(world, "tone"))
    assert "is told by mmstream itself; allowed" in said


def test_a_label_needs_letters(world: Path, tmp_path: Path) -> None:
    assert "letters or digits" in refusal(world, tmp_path, "???", clips(world, "tone"))
    assert "longer than 64" in refusal(world, tmp_path, "a" * 65, clips(world, "tone"))


def test_two_names_with_one_slug_are_kept_apart(world: Path, tmp_path: Path) -> None:
    taught_by(world, tmp_path, "Door bell", clips(world, "tone"))
    said = refusal(world, tmp_path, "door-bell", clips(world, "hiss"))
    assert "door_bell is taught already, as 'Door bell'" in said


def test_clips_that_differ_are_refused_and_nothing_is_written(world: Path, tmp_path: Path) -> None:
    taught_by(world, tmp_path, "hiss", clips(world, "hiss"))
    mixed = [world / "tone0.wav", world / "hiss0.wav", filmed(tmp_path / "v.mp4", [40] * 12)]
    said = refusal(world, tmp_path, "mixed", mixed)
    assert "the clips do not stand out" in said
    assert not (tmp_path / "mixed.safetensors").exists()


def test_pictures_can_be_taught(world: Path, tmp_path: Path) -> None:
    dark = [filmed(tmp_path / f"{n}.mp4", [10 + 20 * n] * 15) for n in range(3)]
    taught_by(world, tmp_path / "taught", "dark", dark)
    assert (tmp_path / "taught" / "dark.safetensors").is_file()


def test_a_clip_too_short_for_a_window_is_refused(world: Path, tmp_path: Path) -> None:
    short = record(tmp_path / "short.wav", tone(800, 0.01))
    said = refusal(world, tmp_path / "taught", "bell", [*clips(world, "tone", 2), short])
    assert "short.wav: too short" in said


def test_a_clip_of_one_picture_has_nothing_to_compare(world: Path, tmp_path: Path) -> None:
    still = filmed(tmp_path / "still.mp4", [90])
    said = refusal(world, tmp_path / "taught", "bell", [*clips(world, "tone", 2), still])
    assert "still.mp4: there is no second of it with some sound, or with 2 pictures" in said


def test_what_another_model_was_taught_is_listed_as_such(world: Path, tmp_path: Path) -> None:
    taught_by(world, tmp_path / "taught", "bell", clips(world, "tone"))
    save_model(tmp_path / "model", seed=1)
    assert "teach it again" in teach.listed(spec(tmp_path, tmp_path / "taught"))


def test_the_command_line(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    model = ["--weights", str(world / "model"), "--set", "detectors.avp.untrained=allow"]
    runner = CliRunner()
    done = runner.invoke(app, ["teach", "bell", *map(str, clips(world, "tone")), *model])
    assert done.exit_code == 0, done.output
    assert "bell: taught with 3 clips" in done.output
    assert (tmp_path / "mmstream" / "home" / "taught" / "bell.safetensors").is_file()
    assert "bell: 3 clips" in runner.invoke(app, ["teach", "--list", *model]).output
    assert "bell: forgotten" in runner.invoke(app, ["teach", "--forget", "bell", *model]).output
    for wrong in ([], ["--list", "--forget", "bell"], ["bell", "--list"]):
        with pytest.raises(ConfigError, match="one of"):
            runner.invoke(app, ["teach", *wrong, *model], catch_exceptions=False)


def test_a_replay_tells_what_was_taught(world: Path, tmp_path: Path) -> None:
    taught_by(world, tmp_path, "bell", clips(world, "tone"))
    config = tmp_path / "home.yaml"
    avp = f"avp: {{weights: {world / 'model'}, untrained: allow, events: [], taught: {tmp_path}}}"
    config.write_text(
        f"sources: {{cam: {{type: synthetic}}}}\n{MOTION_AND_LOUD.replace('avp: false', avp)}\n"
    )
    played = finish("replay", str(world / "tone0.wav"), "--recipe", str(config))
    events = [json.loads(line) for line in played.stdout.splitlines()]
    assert ("start", "bell", "av") in {(one["type"], one["label"], one["kind"]) for one in events}
    assert all(
        one["evidence"][0]["modality"] == "audio" for one in events if one["label"] == "bell"
    )
