"""What a table asks for, checked: its rows, its manifests, and the data that they share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from mmstream.errors import ConfigError
from mmstream.pipelines.train_progress import Shown, showing
from mmstream.training import trials
from mmstream.training.beginning import starting_point
from mmstream.training.loop import BEST
from mmstream.training.manifest import Annotation, ManifestSettings, read_manifest
from mmstream.training.settings import AnyData, Corpus, ManifestData, TrainSettings
from mmstream.training.table import RowSettings, Table, read_table
from mmstream.yaml_tree import nearest

SHARDS: Final = "shards"
SETTINGS: Final = "training.json"
"""In the folder of a checkpoint whose training is over: the settings that made it."""

Begin = Callable[[str, str], Shown]
"""Begins to show something: of what, and what is done with it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, checked."""

    table: Table
    """As it is written."""
    rows: Mapping[str, RowSettings]
    """All of them, with their files where they are."""
    chosen: tuple[str, ...]
    """Those to train."""
    folder: Path
    command: str
    """What was asked, for those who want it again."""

    @property
    def known(self) -> tuple[str, ...]:
        """Those to train and those that are trained."""
        return tuple(name for name in self.rows if name in self.chosen or self.is_trained(name))

    def is_trained(self, name: str) -> bool:
        """Whether the row was trained with these settings."""
        try:
            written = TrainSettings.model_validate_json(self.settings_of(name).read_text("utf-8"))
        except (OSError, ValidationError):
            return False
        return written == self.table.rows[name].training

    def settings_of(self, name: str) -> Path:
        """Where the settings of a finished row are kept."""
        return self.folder / name / BEST / SETTINGS


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """What a row is trained and tested with."""

    own: Corpus
    others: Mapping[str, Corpus]


def check(
    config: Path, names: Sequence[str], *, media: Path | None, folder: Path, command: str
) -> Plan:
    """Read the table and look into every manifest that the rows need; nothing is kept of it yet.

    Args:
        config: the table.
        names: the rows to train; all, if empty.
        media: where recordings are; None: where the table says.
        folder: what comes of it goes there.
        command: what was asked.

    Raises:
        ConfigError: something is wrong; one line for each problem.
    """
    table = read_table(config)
    problems = [
        f"{config}: {name}: no name for rows and pools, decoded recordings are kept there"
        for name in (*table.rows, *table.pools)
        if name == SHARDS
    ]
    for name in names:
        if name not in table.rows:
            hint = nearest(name, table.rows) or ";"
            problems.append(f"--row {name}: no such row{hint} allowed: {', '.join(table.rows)}")
    rows = {name: row.placed(config.parent, media) for name, row in table.rows.items()}
    plan = Plan(table, rows, tuple(names) or tuple(rows), folder, command)
    wanted = [one for name in plan.known if name in rows for one in _manifests(rows[name])]
    with showing() as begin:
        for settings in {one.model_dump_json(): one for one in wanted}.values():
            begin(settings.path.name, "checking")
            below = settings.media or settings.path.parent
            if not below.is_dir():  # instead of a line for every recording
                problems.append(f"{below}: no such folder; --media says where recordings are")
                continue
            try:
                read_manifest(settings)
            except ConfigError as error:
                problems.append(str(error))
    problems = [*dict.fromkeys(problems), *_no_beginnings(plan)]
    try:
        (folder / SHARDS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problems.append(f"{folder}: cannot be written: {error.strerror}")
    if problems:
        raise ConfigError("\n".join(problems))
    return plan


def read_data(plan: Plan, begin: Begin) -> Mapping[str, Data]:
    """The data of all rows; rows that ask for the same share it.

    Raises:
        ConfigError: it is not what the rows need; one line for each problem.
    """
    shards = plan.folder / SHARDS
    corpora: dict[str, Corpus] = {}
    found: dict[str, Data] = {}
    problems: list[str] = []

    def corpus(name: str, data: AnyData, row: RowSettings) -> Corpus:
        noise = row.noise.model_dump_json() if row.noise else ""
        key = data.model_dump_json() + noise
        if key not in corpora:
            told = begin(name, "decoding").counted
            whole = row.training.model_copy(update={"data": data, "share": 1.0})
            corpora[key] = whole.read(shards, told)
        return corpora[key]

    for name in plan.known:
        row = plan.rows[name]
        own = row.drawn(corpus(name, row.data, row))
        others = {other: corpus(name, one, row) for other, one in row.test.others.items()}
        found[name] = Data(own, others)
        problems += trials.unusable(f"rows.{name}", row, own, others)
    problems += [*_incomparable_rows(plan, found), *_incomparable_pools(plan, found)]
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def _no_beginnings(plan: Plan) -> Iterator[str]:
    """What is wrong with the checkpoints that rows begin with, each with the first of its rows."""
    said: dict[str, str] = {}
    for name in plan.known:
        try:
            starting_point(plan.rows[name])
        except ConfigError as error:
            said.setdefault(str(error), name)
    return (f"rows.{name}.{text}" for text, name in said.items())


def _incomparable_rows(plan: Plan, found: Mapping[str, Data]) -> Iterator[str]:
    for name, data in found.items():
        for other in plan.rows[name].test.against:
            if other in found and _told(data) != _told(found[other]):
                yield f"rows.{name}.test.against: {other} is tested on other examples"


def _incomparable_pools(plan: Plan, found: Mapping[str, Data]) -> Iterator[str]:
    pools = plan.table.pools
    for name, pool in pools.items():
        models = [plan.rows[row].model for row in pool.rows]
        first = models[0]
        same = [one for one in models if one.fusion.modalities == first.fusion.modalities]
        if any(one.heads != first.heads for one in models) or len(same) < len(models):
            yield f"pools.{name}: its rows have other heads or modalities than each other"
        tested = [_tested(found[row]) for row in pool.rows if row in found]
        if len(frozenset().union(*tested)) < sum(map(len, tested)):
            yield f"pools.{name}: its rows share test examples, which would count several times"
        for other in pool.against:
            mine, theirs = (
                [_told(found[row]) if row in found else [] for row in one.rows]
                for one in (pool, pools[other])
            )
            if mine != theirs and set(found) == set(plan.rows):
                yield f"pools.{name}.against: {other} is tested on other examples"


def _told(data: Data) -> list[Annotation]:
    """What is known of its test examples."""
    return [item.annotation for item in data.own.examples["test"].items]


def _tested(data: Data) -> frozenset[str]:
    """Which test examples there are."""
    return frozenset(item.key for item in data.own.examples["test"].items)


def _manifests(row: RowSettings) -> Iterator[ManifestSettings]:
    for data in (row.data, *row.test.others.values()):
        if isinstance(data, ManifestData):
            yield data
    if row.noise is not None:
        yield row.noise.recordings.model_copy(update={"needs": frozenset({"audio"})})
