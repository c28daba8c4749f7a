"""Train: the rows of a table one after the other, then all of them on the test split, a report.

    recordings -> shards -> batches -> loop -> best checkpoint -> trials -> report

Whoever is interrupted goes on with the same command: rows that are finished stay as they are. The
test split is not touched before every row of the table is trained.

    folder/shards/           decoded recordings
           <row>/            state, history, events for TensorBoard, best/ (the checkpoint)
           report.html ...   as mmstream.training.report says
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import JsonValue
from safetensors import SafetensorError

from mmstream.errors import ConfigError, ScorerError, SinkError
from mmstream.models.checkpoint import CARD
from mmstream.pipelines.train_plan import Begin, Data, Plan, read_data
from mmstream.pipelines.train_progress import Shown, showing
from mmstream.training import history, report, results, trials
from mmstream.training.history import EpochRecord
from mmstream.training.loop import BEST, HISTORY, StepRecord, position, train
from mmstream.training.predict import load
from mmstream.training.report_events import event_log
from mmstream.training.results import AS_IT_IS, PoolResult, RowResult, TableResult
from mmstream.training.settings import Corpus
from mmstream.training.state import alone

EVENTS: Final = "events"
PREDICTIONS: Final = "predictions"


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it."""

    table: TableResult
    page: Path


def run(plan: Plan, made: Mapping[str, JsonValue]) -> Report | None:
    """Train what is not trained, then test all rows and report; None: some are still to be trained.

    Args:
        plan: from `check`.
        made: when, where and of what: `mmstream.benchmarks.machine`.

    Raises:
        ConfigError: data of rows do not belong together, or a folder holds another training.
        SourceError: a recording cannot be read.
        ScorerError: a loss is not finite; the text names the row and the examples.
        SinkError: something cannot be written.
        KeyboardInterrupt: Ctrl-C; what was trained is kept.
    """
    with _keeping(plan.folder):
        with showing() as begin:
            data = read_data(plan, begin)
            _refuse_others(plan, data)
            for name, one in data.items():
                _train(plan, name, one.own, begin(name, "training"))
            if len(plan.known) < len(plan.rows):
                return None
        with alone(plan.folder), showing() as begin:
            if data.keys() != plan.rows.keys():  # others have trained meanwhile
                data = read_data(plan, begin)
            return _tested(plan, data, begin, made)


@contextmanager
def _keeping(folder: Path) -> Iterator[None]:
    """Around all that writes below `folder`.

    Raises:
        SinkError: something cannot be written, or is gone.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        place = getattr(error, "filename", None) or folder
        what = getattr(error, "strerror", None) or error
        msg = f"{place}: {what}; what is saved below {folder} is kept"
        raise SinkError(msg) from None


def _refuse_others(plan: Plan, data: Mapping[str, Data]) -> None:
    """Say at once what would be found after hours.

    Raises:
        ConfigError: folders of rows hold other trainings; one line for each.
    """
    problems = []
    for name, one in data.items():
        try:
            position(plan.rows[name].training, one.own, plan.folder / name)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))


def _tested(
    plan: Plan, data: Mapping[str, Data], begin: Begin, made: Mapping[str, JsonValue]
) -> Report:
    """Ask every row about the test split, and report."""
    said = {name: _try(plan, name, data[name], begin(name, "test")) for name in plan.rows}
    rows = {name: _result(plan, name, said) for name in plan.rows}
    pools = {
        name: trials.pooled_said([said[row].by_trial for row in pool.rows])
        for name, pool in plan.table.pools.items()
    }
    table = TableResult(
        title=plan.table.title,
        command=plan.command,
        rows=tuple(rows.values()),
        pools=tuple(_pool(plan, name, pools, rows) for name in pools),
    )
    sources = {name: _source(plan, name, said[name]) for name in plan.rows}
    sources |= {name: report.RowSource((), 0, one[AS_IT_IS]) for name, one in pools.items()}
    for name, row in rows.items():
        card = plan.folder / name / BEST / CARD
        card.write_text(report.card_with(card.read_text("utf-8"), row), "utf-8")
    return Report(table, report.write(plan.folder, table, sources, made))


@dataclass(frozen=True, slots=True, eq=False)
class _Said:
    """What came of a row."""

    by_trial: trials.Said
    checkpoint: str
    n_parameters: int
    device: str


def _train(plan: Plan, name: str, corpus: Corpus, shown: Shown) -> None:
    """Train a row, if it is not; what is finished is only looked at."""
    folder = plan.folder / name
    settings = plan.rows[name].training
    if plan.is_trained(name):
        shown.line("is trained")
        return
    n_done = position(settings, corpus, folder).epoch
    past = history.read(folder / HISTORY)[:n_done] if n_done else ()
    try:
        with alone(folder), event_log(folder / EVENTS, past) as log:

            def told(record: StepRecord | EpochRecord) -> None:
                shown.told(record)
                if isinstance(record, EpochRecord):
                    log.add(record)

            train(settings, corpus, folder, told)
    except ScorerError as error:
        msg = f"{name}: {error}"
        raise ScorerError(msg) from None
    own = plan.table.rows[name].training
    plan.settings_of(name).write_text(own.model_dump_json(indent=2) + "\n", "utf-8")


def _try(plan: Plan, name: str, data: Data, shown: Shown) -> _Said:
    folder, row = plan.folder / name, plan.rows[name]
    trained = load(row.training, folder / BEST)
    asked = trials.trials(row.test)
    said = {}
    for nth, trial in enumerate(asked):
        shown.counted(nth, len(asked))
        corpus = data.others[trial.other] if trial.other else data.own
        said[trial.name] = trials.tried(trained, corpus, trial, folder / PREDICTIONS)
    return _Said(said, trained.id, trials.n_parameters(trained), trials.device_name(trained))


def _result(plan: Plan, name: str, said: Mapping[str, _Said]) -> RowResult:
    row, mine = plan.rows[name], said[name]
    epochs = history.read(plan.folder / name / HISTORY)
    versus = [
        one
        for other in row.test.against
        for one in trials.compared(name, mine.by_trial, other, said[other].by_trial, seed=row.seed)
    ]
    return RowResult(
        name=name,
        checkpoint=mine.checkpoint,
        n_parameters=mine.n_parameters,
        seed=row.seed,
        n_epochs=len(epochs),
        best_epoch=trials.best_epoch(epochs, row.optimise) + 1,
        minutes=sum(one.secs for one in epochs) / 60,
        device=mine.device,
        figures=_figures(mine.by_trial),
        versus=tuple(versus),
        settings=json.loads(plan.table.rows[name].model_dump_json()),
    )


def _pool(
    plan: Plan, name: str, pools: Mapping[str, trials.Said], rows: Mapping[str, RowResult]
) -> PoolResult:
    pool = plan.table.pools[name]
    of = [rows[row] for row in pool.rows]
    versus = [
        one
        for other in pool.against
        for one in trials.compared(name, pools[name], other, pools[other], seed=of[0].seed)
    ]
    return PoolResult(
        name=name,
        rows=pool.rows,
        n_parameters=of[0].n_parameters,
        minutes=sum(one.minutes for one in of),
        seed=of[0].seed,
        figures=_figures(pools[name]),
        versus=tuple(versus),
    )


def _figures(said: trials.Said) -> tuple[results.Figures, ...]:
    return tuple(
        results.figures(trial, one) for trial, by_task in said.items() for one in by_task.values()
    )


def _source(plan: Plan, name: str, said: _Said) -> report.RowSource:
    epochs = history.read(plan.folder / name / HISTORY)
    best = trials.best_epoch(epochs, plan.rows[name].optimise)
    return report.RowSource(epochs, best, said.by_trial[AS_IT_IS])
