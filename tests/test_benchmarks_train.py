"""The tables in `benchmarks/train` and the manifests that they read."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from mmstream.benchmarks.train import make_manifests
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
        assert Counter(row["split"] for row in sounds) == {"train": 240, "val": 80, "test": 80}
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
