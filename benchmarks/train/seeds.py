"""Rows of a table that differ in nothing but their seed, told as one.

    python -m mmstream.benchmarks.train.seeds runs/grid_avp/results.json

Rows are called NAME-SEED. Of each NAME the mean accuracy on the test split as it is, over its
seeds, in percent; and by how much it is above what the table compares it with, in points, seed by
seed. Both with the standard error of the mean over seeds: it says how much draws of weights and
training examples matter, and nothing of the test examples, which all have in common.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mmstream.training.results import AS_IT_IS, TableResult, as_markdown


def main(path: Path) -> None:
    """Print a table for each task, for a document."""
    record = json.loads(path.read_text("utf-8"))
    table = TableResult.model_validate({key: record[key] for key in TableResult.model_fields})
    for task in table.tasks:
        print("\n".join((f"{task}:", "", *as_markdown(list(cells(table, task))), "")))


def cells(table: TableResult, task: str) -> Iterator[tuple[str, ...]]:
    """The header, then a row for each NAME."""
    accuracies: defaultdict[str, list[float]] = defaultdict(list)
    ahead: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in table.rows:
        found = row.of(task, AS_IT_IS)
        if found is not None:
            accuracies[_name(row.name)].append(100 * found.accuracy)
        for one in row.versus:
            if (one.task, one.condition) == (task, AS_IT_IS):
                points = 100 * one.comparison.difference
                ahead[_name(row.name)][_name(one.against)].append(points)
    yield "rows", "seeds", "accuracy", "points"
    for name, values in accuracies.items():
        others = [f"{_mean(by, '+')} to {other}" for other, by in ahead[name].items()]
        yield name, str(len(values)), _mean(values), "; ".join(others) or "-"


def _name(row: str) -> str:
    """Without its seed."""
    return row.rpartition("-")[0] or row


def _mean(values: Sequence[float], sign: str = "") -> str:
    """`94.8 ± 0.2`; of one alone nobody knows how far it may be off."""
    mean = format(np.mean(values), f"{sign}.1f")
    if len(values) == 1:
        return mean
    return f"{mean} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.1f}"


if __name__ == "__main__":
    if len(sys.argv) != 2:  # noqa: PLR2004 - the program and its argument
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
