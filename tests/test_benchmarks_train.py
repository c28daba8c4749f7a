"""The tables in `benchmarks/train` and the manifests that they read."""

import csv
import json
import runpy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mmstream.benchmarks.train import baselines, make_manifests, seeds
from mmstream.training.predictions import Comparison
from mmstream.training.results import Figures, RowResult, TableResult, Versus
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
    digits = rows(tmp_path / "grid_digits.csv")
    assert digits == [row for row in words if row["labels"].startswith("digit=")]
    assert Counter(row["split"] for row in digits) == {"train": 708, "val": 105, "test": 187}
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


@pytest.mark.parametrize("name", ["grid", "grid_avp", "esc10"])
def test_the_tables_can_be_read(name: str) -> None:
    table = read_table(TABLES / f"{name}.yaml")
    for row in table.rows.values():
        placed = row.placed(TABLES, None)
        assert placed.data.model_dump()["path"].is_file()


def test_rows_that_are_compared_differ_in_what_they_begin_with_only() -> None:
    table = read_table(TABLES / "grid_avp.yaml")
    begun = {name: row for name, row in table.rows.items() if row.start_from is not None}
    assert begun
    for name, row in begun.items():
        (against,) = row.test.against
        assert against.startswith(name.partition("-")[0])
        as_random = row.training.model_copy(update={"start_from": None, "frozen": False})
        assert as_random == table.rows[against].training, name
        assert row.training.seed == int(name.rpartition("-")[2])


def row_result(name: str, accuracy: float, against: str = "", ahead: float = 0) -> RowResult:
    figures = Figures(
        condition="test",
        task="digit",
        n=10,
        accuracy=accuracy,
        standard_error=0.1,
        cross_entropy=1,
        confidence=0.5,
    )
    compared = Comparison(difference=ahead, low=ahead - 1, high=ahead + 1)
    versus = Versus(row=name, against=against, condition="test", task="digit", comparison=compared)
    other = versus.model_copy(update={"condition": "-10 dB"})
    return RowResult(
        name=name,
        n_parameters=1,
        minutes=1,
        seed=0,
        figures=(figures, figures.model_copy(update={"condition": "-10 dB"})),
        versus=(other, versus) if against else (),
        checkpoint="",
        n_epochs=1,
        best_epoch=1,
        device="cpu",
        settings=None,
    )


def test_seeds_are_told_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = (
        row_result("a-b-0", 0.5),
        row_result("a-b-1", 0.7),
        row_result("avp-0", 0.75, "a-b-0", 0.25),
        row_result("avp-1", 0.85, "a-b-1", 0.15),
        row_result("alone", 0.25),
    )
    table = TableResult(title="t", command="c", rows=results)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(json.loads(table.model_dump_json()) | {"commit": "abc"}))
    seeds.main(path)
    assert capsys.readouterr().out.splitlines() == [
        "digit:",
        "",
        "| rows | seeds | accuracy | points |",
        "| --- | ---: | ---: | ---: |",
        "| a-b | 2 | 60.0 ± 10.0 | - |",
        "| avp | 2 | 80.0 ± 5.0 | +20.0 ± 5.0 to a-b |",
        "| alone | 1 | 25.0 | - |",
        "",
    ]


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


@pytest.mark.parametrize(
    "asked",
    [["make_manifests"], ["baselines"], ["baselines", "words", "a"], ["seeds"]],
)
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
