"""The report of a table: pictures that show what they should, one page that needs nothing else."""

import io
import json
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]  # it has none
    EventAccumulator,
)

from mmstream.media import Floats
from mmstream.training import report, report_pictures
from mmstream.training.history import EpochRecord, ModalityRecord
from mmstream.training.predictions import Predictions, paired_bootstrap
from mmstream.training.report import RowSource
from mmstream.training.report_events import event_log
from mmstream.training.results import (
    AS_IT_IS,
    RowResult,
    TableResult,
    Versus,
    figures,
    markdown,
    plain,
)

EVIL = "<script>alert('&')</script>"
CLASSES = ("cat", "dog", r"$\no{formula}$")


def predictions(n_right: int, *, n: int = 30, task: str = "pet") -> Predictions:
    """Of three classes in turn; the first `n_right` are right, the others one class too high."""
    truth = np.arange(n) % 3
    said = np.where(np.arange(n) < n_right, truth, (truth + 1) % 3)
    probabilities = np.full((n, 3), 0.1, np.float32)
    probabilities[np.arange(n), said] = 0.8
    gates = np.tile(np.array([0.25, 0.75], np.float32), (n, 1))
    return Predictions(task, CLASSES, np.arange(n), truth, probabilities, ("audio", "video"), gates)


def history(n_epochs: int, modalities: tuple[str, ...] = ("audio", "video")) -> list[EpochRecord]:
    one = ModalityRecord(loss=0.5, gradient_share=0.5, coefficient=1.0)
    return [
        EpochRecord(
            epoch=epoch,
            n_steps=10 * epoch,
            secs=30.0,
            learning_rate=1e-3,
            loss_train=2.0 / (epoch + 1),
            loss_val=2.5 / (epoch + 1),
            accuracy_val={"pet": epoch / n_epochs},
            modalities={name: one for name in ("audio", "video") if name in modalities},
        )
        for epoch in range(n_epochs)
    ]


def row(name: str, said: Predictions, noisy: Predictions | None = None) -> RowResult:
    conditions = [(AS_IT_IS, said), *([("-10 dB", noisy)] if noisy else [])]
    return RowResult(
        name=name,
        checkpoint="0123456789abcdef",
        n_parameters=1_234_567,
        seed=7,
        n_epochs=4,
        best_epoch=3,
        minutes=2.0,
        device="cpu",
        figures=tuple(figures(condition, one) for condition, one in conditions),
        settings={"note": EVIL},
    )


def table() -> TableResult:
    better, worse = predictions(27), predictions(15)
    versus = Versus(
        row="deep",
        against="concat",
        condition=AS_IT_IS,
        task="pet",
        comparison=paired_bootstrap(better, worse, seed=0),
    )
    deep = row("deep", better, predictions(6, n=12)).model_copy(update={"versus": (versus,)})
    return TableResult(
        title=f"Pets {EVIL}", command="mmstream train pets.yaml", rows=(row("concat", worse), deep)
    )


def sources() -> dict[str, RowSource]:
    return {
        "concat": RowSource(history(4, ("audio",)), 2, {"pet": predictions(15)}),
        "deep": RowSource(history(4), 2, {"pet": predictions(27)}),
    }


class Page(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.images: list[bytes] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = dict(attrs)
        self.links += [link for key in ("src", "href") if (link := named.get(key))]
        if tag == "img":
            assert named["alt"]
            kind, _, data = (named["src"] or "").partition(",")
            assert kind == "data:image/png;base64"
            self.images.append(b64decode(data))

    def handle_data(self, data: str) -> None:
        self.text += data


def pixels(png: bytes) -> Floats:
    return np.asarray(imread(io.BytesIO(png), "png"), np.float32)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    report.write(folder, table(), sources(), {"commit": EVIL, "machine": {"n_cores": 2}})
    return folder


def test_the_page_holds_everything_and_loads_nothing(written: Path) -> None:
    text = (written / "report.html").read_text("utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert all(link.startswith(("data:image/png", "#row-")) for link in page.links)
    assert "default-src 'none'" in text
    assert page.text.count(EVIL) >= 4  # title, heading, commit, settings of two rows
    for shown in ("90.0 ± 5.5", "50.0 ± 14.4 (n 12)", "1,234,567", "0123456789abcdef", "0.75"):
        assert shown in page.text
    beside = [(written / name / "curves.png").read_bytes() for name in ("concat", "deep")]
    assert [page.images[0], page.images[2]] == beside
    assert all(pixels(image).std() > 0.05 for image in page.images)


def test_all_figures_are_in_the_file_for_programs(written: Path) -> None:
    record = json.loads((written / "results.json").read_text("utf-8"))
    assert (record.pop("commit"), record.pop("machine")) == (EVIL, {"n_cores": 2})
    assert TableResult.model_validate(record) == table()
    assert (written / "table.md").read_text("utf-8") == markdown(table())


def test_the_same_figures_give_the_same_bytes(written: Path, tmp_path: Path) -> None:
    report.write(tmp_path, table(), sources(), {"commit": EVIL, "machine": {"n_cores": 2}})
    files = sorted(str(path.relative_to(written)) for path in written.rglob("*.*"))
    assert files == [
        "concat/confusion-pet.png",
        "concat/curves.png",
        "deep/confusion-pet.png",
        "deep/curves.png",
        "report.html",
        "results.json",
        "table-pet.png",
        "table.md",
    ]
    for file in files:
        assert (tmp_path / file).read_bytes() == (written / file).read_bytes()


def test_tables_for_documents_and_terminals() -> None:
    lines = markdown(table()).splitlines()
    assert "| deep | 90.0 ± 5.5 | 50.0 ± 14.4 (n 12) | 0.431 | 30 | 1,234,567 | 2.0 | 7 |" in lines
    assert "| concat | 50.0 ± 9.1 | - | 1.263 | 30 | 1,234,567 | 2.0 | 7 |" in lines
    assert "| deep | gate of video | 0.75 | 0.75 |" in lines
    (compared,) = (line for line in lines if line.startswith("| deep - concat |"))
    assert "| +40.0 (+" in compared
    assert compared.endswith(")* |")
    aligned = [line for line in plain(table()).splitlines() if line.startswith(("row", "deep"))]
    assert len({len(line) for line in aligned[:2]}) == 1


def test_a_name_with_a_bar_stays_in_its_cell() -> None:
    one = replace(predictions(3), task="a|b")
    whole = TableResult(title="t", command="c", rows=(row("r", one),))
    assert "| row | test | cross-entropy |" in markdown(whole)
    odd = row("r", one).model_copy(update={"name": "x|y"})
    assert "| x\\|y |" in markdown(TableResult(title="t", command="c", rows=(odd,)))


def test_confusion_shows_the_classes_that_are_mistaken() -> None:
    right = pixels(report_pictures.confusion(predictions(30), "all right"))
    wrong = pixels(report_pictures.confusion(predictions(0), "all wrong"))
    assert right.shape == wrong.shape
    blue = (right[..., 2] - right[..., 0] > 0.3) & (right[..., 0] < 0.2)
    assert blue.any()
    assert (np.abs(right - wrong).max(axis=2) > 0.5).mean() > 0.1


def test_curves_of_several_modalities_are_two_rows_of_plots() -> None:
    single = pixels(report_pictures.curves(history(1, ("audio",)), 0, "one"))
    double = pixels(report_pictures.curves(history(1), 0, "two"))
    assert single.shape[1] == double.shape[1]
    assert double.shape[0] > 1.5 * single.shape[0]


def test_the_table_as_a_picture_is_darker_where_it_is_better() -> None:
    def darkness(n_right: int) -> float:
        one = TableResult(title="t", command="c", rows=(row("r", predictions(n_right)),))
        return float(1 - pixels(report_pictures.accuracies(one, "pet"))[..., :3].mean())

    assert darkness(30) > darkness(0) + 0.1


def test_tensorboard_reads_every_epoch_once_after_a_resume(tmp_path: Path) -> None:
    epochs = history(4)
    with event_log(tmp_path) as log:
        for one in epochs[:3]:
            log.add(one)
    with event_log(tmp_path, epochs[:2]) as log:  # the third epoch was not kept
        for one in epochs[2:]:
            log.add(one)
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    losses = read.Scalars("loss/train")
    assert [one.step for one in losses] == [1, 2, 3, 4]
    assert [one.value for one in losses] == pytest.approx([one.loss_train for one in epochs])
    assert {"gradient share/audio", "accuracy/pet", "learning rate"} <= set(read.Tags()["scalars"])


def test_a_card_has_the_figures_of_the_last_test_only() -> None:
    card = "# pets\n\n| | |\n|---|---|\n| fusion | deep |\n"
    once = report.card_with(card, row("deep", predictions(15)))
    again = report.card_with(once, row("deep", predictions(27)))
    assert again.startswith(card)
    assert "| test | pet | 90.00 | 5.48 | 0.4311 | 30 |" in again
    assert "50.00" not in again
