"""The report of a table of trainings: pictures, table.md, results.json and one HTML page.

folder/report.html          all of it in one file
       table.md             the tables, for a document
       results.json         every figure, with machine and commit
       table-<task>.png
       <row>/curves.png
             confusion-<task>.png
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from mmstream.training import report_pictures
from mmstream.training.history import EpochRecord
from mmstream.training.predictions import Predictions
from mmstream.training.report_page import Picture, page
from mmstream.training.results import RowResult, TableResult, markdown

PAGE: Final = "report.html"
TABLE: Final = "table.md"
RESULTS: Final = "results.json"
_TESTED: Final = "## Tested"


@dataclass(frozen=True, slots=True, eq=False)
class RowSource:
    """What the pictures of a row, or of several as one, are drawn from."""

    history: Sequence[EpochRecord]
    """Empty: these are several rows as one."""
    best_epoch: int
    """Whose weights were kept, from 0."""
    predictions: Mapping[str, Predictions]
    """By task, on the test split as it is."""


def write(
    folder: Path,
    table: TableResult,
    sources: Mapping[str, RowSource],
    made: Mapping[str, JsonValue],
) -> Path:
    """Write all of it; give the page.

    Args:
        folder: made if it is not there.
        table: all figures.
        sources: of each row and pool, by its name.
        made: when, where and of what: `mmstream.benchmarks.machine`.

    Raises:
        OSError: a file cannot be written.
    """
    pictures = {row.name: _of_row(row.name, sources[row.name]) for row in table.tested}
    for picture in (one for row in pictures.values() for one in row):
        _replace(folder / picture.name, picture.png)
    for task in table.tasks:
        png = report_pictures.accuracies(table, task)
        _replace(folder / f"table-{file_name(task)}.png", png)
    record = {**made, **table.model_dump(mode="json")}
    _replace(folder / RESULTS, (json.dumps(record, indent=2) + "\n").encode())
    _replace(folder / TABLE, markdown(table).encode())
    _replace(folder / PAGE, page(table, pictures, made).encode())
    return folder / PAGE


def card_with(card: str, row: RowResult) -> str:
    """A model card with what was measured on the test split, in place of what it had of that."""
    lines = [
        f"| {one.condition} | {one.task} | {100 * one.accuracy:.2f} "
        f"| {100 * one.standard_error:.2f} | {one.cross_entropy:.4f} | {one.n} |"
        for one in row.figures
    ]
    head = [
        "| condition | task | accuracy, % | standard error | cross-entropy | n |",
        "|---|---|---:|---:|---:|---:|",
    ]
    before = card.partition(_TESTED)[0].rstrip()
    return "\n".join([before, "", _TESTED, "", *head, *lines, ""])


def file_name(text: str) -> str:
    """A name of a task, row or condition as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", text).lstrip(".") or "-"


def _of_row(name: str, source: RowSource) -> tuple[Picture, ...]:
    place = file_name(name)
    drawn = []
    if source.history:
        png = report_pictures.curves(source.history, source.best_epoch, name)
        text = f"{name}: losses, accuracy and learning rate after each epoch"
        drawn.append(Picture(f"{place}/curves.png", text, png))
    for task, predictions in source.predictions.items():
        title = f"{name}: {task}, {len(predictions)} examples of the test split"
        drawn.append(
            Picture(
                f"{place}/confusion-{file_name(task)}.png",
                f"{title}: which class was taken for which",
                report_pictures.confusion(predictions, title),
            )
        )
    return tuple(drawn)


def _replace(path: Path, content: bytes) -> None:
    """Beside its place and renamed: whoever reads it finds it whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    beside.write_bytes(content)
    beside.replace(path)
