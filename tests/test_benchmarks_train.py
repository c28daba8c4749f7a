"""The tables in `benchmarks/train` and the manifests that they read."""

import csv
import runpy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mmstream.benchmarks.train import baselines, make_manifests
from mmstream.training.table import read_table

TABLES = Path(make_manifests.__file__).parent


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_manifests_are_those_that_the_labels_give(data_dir: Path, tmp_path: Path) -> None:
    make_manifests.main(data_dir, tmp_path)
    for path in sorted(tmp_path.glob("*.csv")):
        assert path.read_text("utf-8") == (TABLES / path.name).read_text("utf-8"), path.name
    words = rows(tmp_path / "grid_words.csv")
    assert Counter(row["split"] for row in words) == {"train": 2124, "val": 315, "test": 561}
    assert len({row["group"] for row in words}) == 1000
    for fold in range(1, 6):
        sounds = rows(tmp_path / f"esc10_fold{fold}.csv")
        tested = [row for row in sounds if row["split"] == "test"]
        n_val = {1: 40, 2: 38, 3: 38, 4: 36, 5: 38}[fold]  # half of a fold, but whole groups
        counted = Counter(row["split"] for row in sounds)
        assert counted == {"train": 320 - n_val, "val": n_val, "test": 80}
        assert {Path(row["path"]).name[0] for row in tested} == {str(fold)}


def test_words_of_strangers_lie_where_they_speak(data_dir: Path, tmp_path: Path) -> None:
    make_manifests.main(data_dir, tmp_path)
    strangers = rows(tmp_path / "grid_speakers.csv")
    assert strangers
    for row in strangers:
        assert 0.5 < float(row["start"]) < float(row["end"]) < 2.6


@pytest.mark.parametrize("name", ["grid", "esc10"])
def test_the_tables_can_be_read(name: str) -> None:
    table = read_table(TABLES / f"{name}.yaml")
    for row in table.rows.values():
        placed = row.placed(TABLES, None)
        assert placed.data.model_dump()["path"].is_file()


def test_what_cannot_be_made_again_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "made.csv"
    path.write_text("what was there")

    def broken() -> Iterator[make_manifests.Row]:
        yield make_manifests.Row("a", "", "", "", "", "train", "a")
        msg = "about different words"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="different words"):
        make_manifests.write(path, broken())
    assert path.read_text() == "what was there"


@pytest.mark.parametrize("asked", [["make_manifests"], ["baselines"], ["baselines", "words", "a"]])
def test_who_asks_wrongly_is_told_how(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    name = asked[0]
    monkeypatch.setattr("sys.argv", asked)
    with pytest.raises(SystemExit, match=rf"python -m mmstream\.benchmarks\.train\.{name} "):
        runpy.run_path(str(TABLES / f"{name}.py"), run_name="__main__")


def corners(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three classes in the plane, of one side of it each."""
    rng = torch.Generator().manual_seed(seed)
    classes = torch.arange(n) % 3
    middles = torch.tensor([[3.0, 0.0], [0.0, 3.0], [-3.0, -3.0]])
    return middles[classes] + torch.randn((n, 2), generator=rng) / 2, classes


def test_simple_models_learn_what_is_simple() -> None:
    (x, one), (y, two), (z, three) = (corners(60, seed) for seed in range(3))
    assert baselines.regressed([x, y, z], [one, two, three]) == 100
    assert (baselines.supported(x.double(), one, z.double()) == three).all()
    wrong = baselines.regressed([x, y, z], [one, two, (three + 1) % 3])
    assert wrong == 0


def test_the_test_chooses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both penalties are as good in validation; only the second is in the test."""
    x, classes = corners(60, 0)
    many = torch.cat([x, x[classes == 0]]), torch.cat([classes, classes[classes == 0]])
    val, test = (x[classes == 0], classes[classes == 0]), (x, classes)
    parts = [many, val, test]
    xs, truth = [one for one, _ in parts], [one for _, one in parts]
    monkeypatch.setattr(baselines, "PENALTIES", (1e-6, 1e6))
    assert baselines.regressed(xs, truth) == 100
    monkeypatch.setattr(baselines, "PENALTIES", (1e6, 1e-6))
    assert baselines.regressed(xs, truth) < 50
