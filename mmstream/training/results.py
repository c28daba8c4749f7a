"""The figures of a table of trainings: what each row came to, under which conditions.

A row is one training; a condition is how its model was tested: on the test split as it is, with a
modality hidden, in noise, with the sound of another example, on other recordings.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pydantic import Field, JsonValue

from mmstream.config import Settings
from mmstream.media import Modality
from mmstream.training.predictions import Comparison, Predictions

AS_IT_IS: Final = "test"
"""The condition of the test split as it is."""
LEGEND: Final = """\
Accuracy and confidence (the probability of what is said) in percent, ± one standard error
(binomial); gates, 0 to 1, say how much a modality counts; cross-entropy in nats, on the test split
as it is. With the sound of another, what is seen counts as true. Points: by how much the first is
more accurate on the same examples, with the 95 % interval of a paired bootstrap, which leaves 0 out
where there is a star."""


class Figures(Settings):
    """What one model said of one task under one condition."""

    condition: str
    task: str
    n: int = Field(ge=1)
    """Examples."""
    accuracy: float
    standard_error: float
    """Both 0..1; the error is binomial."""
    cross_entropy: float
    """In nats."""
    confidence: float
    """Mean probability of the likeliest class."""
    gates: Mapping[Modality, float] = Field(default_factory=dict)
    """Mean of each; empty: the fusion has no gates."""


class Versus(Settings):
    """Two rows on the same examples: how much more accurate the first is."""

    row: str
    against: str
    condition: str
    task: str
    comparison: Comparison


class Tested(Settings):
    """What was tested: a row, or several as one."""

    name: str
    n_parameters: int
    """Of one model."""
    minutes: float
    """Of training, validation included, in all."""
    seed: int
    figures: tuple[Figures, ...]
    versus: tuple[Versus, ...] = ()

    def of(self, task: str, condition: str) -> Figures | None:
        """Its figures under that condition, if it was tested so."""
        both = (task, condition)
        return next((one for one in self.figures if (one.task, one.condition) == both), None)


class RowResult(Tested):
    """One training and what came of it."""

    checkpoint: str
    """The id of its weights."""
    n_epochs: int
    best_epoch: int
    """Whose weights were kept, from 1."""
    device: str
    """What it was tested on."""
    settings: JsonValue
    """All of them, those that were left to their defaults too."""


class PoolResult(Tested):
    """Several rows as one."""

    rows: tuple[str, ...]


class TableResult(Settings):
    """All rows."""

    title: str
    command: str
    """What makes it again."""
    rows: tuple[RowResult, ...]
    pools: tuple[PoolResult, ...] = ()

    @property
    def tested(self) -> tuple[Tested, ...]:
        """Rows, then pools of them."""
        return (*self.rows, *self.pools)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Of all rows, in the order in which they come."""
        return _unique(one.task for row in self.rows for one in row.figures)

    def conditions(self, task: str) -> tuple[str, ...]:
        """Under which any row was tested, in the order in which they come."""
        return _unique(
            one.condition for row in self.rows for one in row.figures if one.task == task
        )


def figures(condition: str, predictions: Predictions) -> Figures:
    """The figures of predictions."""
    return Figures(
        condition=condition,
        task=predictions.task,
        n=len(predictions),
        accuracy=predictions.accuracy,
        standard_error=predictions.standard_error,
        cross_entropy=predictions.cross_entropy,
        confidence=predictions.confidence,
        gates=dict(zip(predictions.modalities, predictions.mean_gates, strict=False)),
    )


def points(comparison: Comparison) -> str:
    """`+3.2 (+1.0 to +5.4)*`, in percentage points; with the star the interval leaves 0 out."""
    low, high = 100 * comparison.low, 100 * comparison.high
    star = "*" if comparison.clear else ""
    return f"{100 * comparison.difference:+.1f} ({low:+.1f} to {high:+.1f}){star}"


def table_cells(table: TableResult, task: str) -> tuple[tuple[str, ...], ...]:
    """The header, then a row for each that was tested on the task."""
    conditions = table.conditions(task)
    header = ("row", *conditions, "cross-entropy", "n", "parameters", "minutes", "seed")
    return (header, *(_cells(row, task, conditions) for row in _tested(table, task)))


def sure_cells(table: TableResult, task: str) -> tuple[tuple[str, ...], ...]:
    """How sure each row was under each condition; of its gates, if it has any, a line for each."""
    conditions = table.conditions(task)
    lines = []
    for row in _tested(table, task):
        found = [row.of(task, condition) for condition in conditions]
        sure = (f"{100 * one.confidence:.1f}" if one else "-" for one in found)
        lines.append((row.name, "confidence", *sure))
        for name in dict.fromkeys(name for one in found if one for name in one.gates):
            gates = (f"{one.gates[name]:.2f}" if one and one.gates else "-" for one in found)
            lines.append((row.name, f"gate of {name}", *gates))
    return (("row", "mean", *conditions), *lines)


def versus_cells(table: TableResult, task: str) -> tuple[tuple[str, ...], ...]:
    """A line for each two that are compared; only the header, if none are."""
    found = [one for row in table.tested for one in row.versus if one.task == task]
    conditions = _unique(one.condition for one in found)
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for one in found:
        cells = lines.setdefault((one.row, one.against), {})
        cells[one.condition] = points(one.comparison)
    rows = [
        (f"{row} - {against}", *(cells.get(condition, "-") for condition in conditions))
        for (row, against), cells in lines.items()
    ]
    return (("points", *conditions), *rows)


def all_cells(table: TableResult, task: str) -> tuple[tuple[tuple[str, ...], ...], ...]:
    """Every table of a task that has more than a header."""
    tables = (table_cells(table, task), sure_cells(table, task), versus_cells(table, task))
    return tuple(cells for cells in tables if len(cells) > 1)


def markdown(table: TableResult) -> str:
    """The tables, for a document."""
    parts = [f"# {table.title}", "", f"`{table.command}`", ""]
    for task in table.tasks:
        parts += [f"## {task}", ""]
        for cells in all_cells(table, task):
            parts += [*as_markdown(cells), ""]
    return "\n".join([*parts, LEGEND, ""])


def plain(table: TableResult) -> str:
    """The tables, aligned for a terminal."""
    parts = []
    for task in table.tasks:
        parts += [f"{task}:", ""]
        for cells in all_cells(table, task):
            parts += [*aligned(cells), ""]
    return "\n".join([*parts, LEGEND])


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines for a terminal: the first column to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])])
        for first, *rest in cells
    ]


def _cells(row: Tested, task: str, conditions: Sequence[str]) -> tuple[str, ...]:
    as_it_is = row.of(task, AS_IT_IS)
    return (
        row.name,
        *(_percent(row.of(task, condition), as_it_is) for condition in conditions),
        f"{as_it_is.cross_entropy:.3f}" if as_it_is else "-",
        str(as_it_is.n) if as_it_is else "-",
        f"{row.n_parameters:,}",
        f"{row.minutes:.1f}",
        str(row.seed),
    )


def _percent(one: Figures | None, as_it_is: Figures | None) -> str:
    """`94.8 ± 0.2`; of another number of examples than the test split with that number."""
    if one is None:
        return "-"
    n = "" if as_it_is is not None and one.n == as_it_is.n else f" (n {one.n})"
    return f"{100 * one.accuracy:.1f} ± {100 * one.standard_error:.1f}{n}"


def _tested(table: TableResult, task: str) -> list[Tested]:
    return [row for row in table.tested if any(one.task == task for one in row.figures)]


def as_markdown(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown; the first row is the header."""
    header, *rows = ([cell.replace("|", "\\|") for cell in row] for row in cells)
    rules = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(row)} |" for row in (header, rules, *rows)]


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
