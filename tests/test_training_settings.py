"""A training that cannot be is refused before anything is decoded, in words."""

from pathlib import Path

import pytest
import training_world as world
from pydantic import ValidationError

from mmstream.config import load
from mmstream.errors import ConfigError
from mmstream.training.settings import ManifestData, TrainSettings

LOG_MEL = world.LOG_MEL.model_dump()


def changed(where: str, value: object) -> dict[str, object]:
    """The settings of the world, with one key path changed."""
    whole: dict[str, object] = world.settings().model_dump(mode="json")
    *way, last = where.split("/")
    at = whole
    for key in way:
        inner = at[key]
        assert isinstance(inner, dict)
        at = inner
    at[last] = value
    return whole


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        ("model/heads/digit/labels", ["0", "1", "3"], "model.heads.digit.labels: must be the data"),
        ("model/heads/digit/kind", "any", "model.heads.digit.kind: only 'one' can be trained"),
        ("data/tasks", {"colour": ["red"]}, "it has only the tasks colour"),
        ("loss/tasks", {"digits": 1}, "loss.tasks.digits: no such task; allowed: digit"),
        ("data/keep/sound", None, "model.audio: the data keeps no audio"),
        ("data/keep/pictures", None, "model.video: the data keeps no video"),
        ("words/text", "caption", "words.text: says what model.text reads; both or none"),
        ("words/question", "caption", "words.question: says what model.question is asked"),
        ("data/keep/sound/log_mel/n_mels", 16, "front_end: must be what the data keeps"),
        (
            "noise",
            {"recordings": {"path": "noise.csv"}},
            "noise: is mixed with samples, and the data keeps log-mel",
        ),
    ],
)
def test_what_does_not_belong_together(where: str, value: object, said: str) -> None:
    TrainSettings.model_validate(world.settings().model_dump())
    with pytest.raises(ValidationError, match=said):
        TrainSettings.model_validate(changed(where, value))


def test_samples_are_of_16_khz() -> None:
    whole = changed("data/keep/sound/log_mel", None)
    TrainSettings.model_validate(whole)
    narrow = {**LOG_MEL, "rate_hz": 8000, "f_max_hz": 4000.0, "type": "log_mel"}
    model = world.settings().model.model_dump(mode="json")
    model["audio"]["front_end"] = narrow
    with pytest.raises(ValidationError, match=r"front_end.rate_hz: the data keeps 16000 Hz"):
        TrainSettings.model_validate(whole | {"model": model})


def test_a_file_of_settings(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(world.settings().model_dump_json())
    assert load(tmp_path / "train.yaml", TrainSettings) == world.settings()
    with pytest.raises(ConfigError, match=r"optimise.n_epochs: .*greater than or equal to 1"):
        load(tmp_path / "train.yaml", TrainSettings, ["optimise.n_epochs=0"])
    with pytest.raises(ConfigError, match=r"balance: .*unknown key|unknown key.*'?alpha"):
        load(tmp_path / "train.yaml", TrainSettings, ["balance.alfa=1"])


def test_what_it_is_for() -> None:
    settings = world.settings()
    assert settings.task == "digit"
    assert settings.rate_hz == 16_000
    assert not settings.reads


def test_recordings_by_a_manifest(data_dir: Path, tmp_path: Path) -> None:
    rows = ("bbaf2n,two,train", "bbaf3s,three,test", "bbaf4p,four,val")
    lines = [f"{name}.mp4,0.5,1.0,digit={digit},{split}" for name, digit, split in map(parts, rows)]
    (tmp_path / "grid.csv").write_text("path,start,end,labels,split\n" + "\n".join(lines))
    data = ManifestData.model_validate(
        {
            "path": tmp_path / "grid.csv",
            "media": data_dir / "grid_s1" / "clips",
            "tasks": {"digit": ["two", "three", "four"]},
            "keep": {"sound": {}, "pictures": {"width": 8, "height": 6}},
        }
    )
    assert data.keeps == {"audio", "video"}
    told: list[tuple[int, int]] = []
    splits = data.read(tmp_path / "shards", lambda done, n: told.append((done, n)))
    assert {split: len(each) for split, each in splits.items()} == {"train": 1, "val": 1, "test": 1}
    one = splits["val"][0]
    assert one.annotation.class_of("digit") == "four"
    assert one.sound.shape == (8000,)
    assert one.pictures.shape[1:] == (6, 8, 1)
    assert told[-1] == (3, 3)


def parts(row: str) -> list[str]:
    return row.split(",")
