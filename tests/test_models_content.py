"""The id of a checkpoint, without loading it."""

from pathlib import Path

import pytest

from mmstream.errors import ScorerError
from mmstream.models.checkpoint import Identity, read, save
from mmstream.models.content import id_of
from mmstream.models.heads import Classifier, ClassifierSettings

SETTINGS = ClassifierSettings(labels=("dog", "rain"), n_dims=4)


def saved(folder: Path) -> str:
    identity = Identity(task="pets", rate_hz=16_000, trained=True)
    return save(folder, Classifier(SETTINGS), SETTINGS, identity, "# Pets\n")


def test_the_id_is_that_of_the_checkpoint_when_it_is_read(tmp_path: Path) -> None:
    one, other = saved(tmp_path / "one"), saved(tmp_path / "other")
    assert one != other
    assert id_of(tmp_path / "one") == one
    found = read(tmp_path / "one", ClassifierSettings, task="pets", rate_hz=16_000)
    assert id_of(tmp_path / "one") == found.id


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    saved(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ScorerError, match=f"{tmp_path / name}: cannot be read: No such file"):
        id_of(tmp_path)
