"""A table of trainings in one file: settings that all rows share, and what each row has of its own.

    title: AV-MNIST
    data: {type: avmnist, data: ../shared/data}
    model: {...}
    rows:
      concat: {model: {fusion: {type: concat}}}
      deep: {model: {fusion: {type: deep}}, test: {against: [concat]}}

A row's mappings are laid over the common ones, key by key; what is no mapping takes the place of
what is common. Where a row says another `type`, common keys that this type does not have are left
out. A file without `rows` is one training, called like the file.
"""

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Self, TypeVar

from pydantic import Field, StringConstraints, ValidationError, model_validator

from mmstream.config import Problem, Settings, problems_of
from mmstream.errors import ConfigError, mask_credentials
from mmstream.media import Modality
from mmstream.messages import ID_PATTERN
from mmstream.models.avp_spec import AVP_SMALL
from mmstream.training.results import AS_IT_IS
from mmstream.training.settings import AnyData, TrainSettings
from mmstream.yaml_tree import Node, Place, nearest, plain, read_tree, walk

ROWS: Final = "rows"
POOLS: Final = "pools"
TITLE: Final = "title"
_MEDIA: Final = ("media", "data")
"""What the kinds of data call the folder of their recordings."""

M = TypeVar("M", bound=Settings)
RowName = Annotated[str, StringConstraints(pattern=ID_PATTERN)]


class Conditions(Settings):
    """How a row's model is tested beside the test split as it is."""

    hidden: tuple[tuple[Modality, ...], ...] = ()
    """With these modalities hidden, once for each list."""
    snr_db: tuple[float, ...] = ()
    """With noise of the test split added, once for each ratio."""
    swapped: tuple[str, ...] = ()
    """With the sound of an example of another class of this task, once for each."""
    others: Mapping[RowName, AnyData] = Field(default_factory=dict)
    """On the test split of other data, by the name under which the table has it."""
    against: tuple[str, ...] = ()
    """Rows that it is compared with on the same examples."""


class RowSettings(TrainSettings):
    """One row of a table."""

    test: Conditions = Conditions()

    @property
    def training(self) -> TrainSettings:
        """Those that make its weights."""
        return self._with()

    def _with(self, **others: object) -> TrainSettings:
        values = {name: getattr(self, name) for name in TrainSettings.model_fields}
        return TrainSettings.model_validate({**values, **others})

    def placed(self, folder: Path, media: Path | None) -> "RowSettings":
        """With its paths relative to `folder`, or its recordings below `media`, if given."""
        update: dict[str, object] = {"data": _placed(self.data, folder, media)}
        if self.start_from is not None and self.start_from != AVP_SMALL:
            update["start_from"] = str((folder / Path(self.start_from).expanduser()).resolve())
        if self.noise is not None:
            recordings = _placed(self.noise.recordings, folder, media)
            update["noise"] = self.noise.model_copy(update={"recordings": recordings})
        others = {name: _placed(data, folder, media) for name, data in self.test.others.items()}
        update["test"] = self.test.model_copy(update={"others": others})
        return self.model_copy(update=update)

    @model_validator(mode="after")
    def _check_test(self) -> Self:
        test, modalities = self.test, self.model.fusion.modalities
        for names in test.hidden:
            if not names or not set(names) < set(modalities):
                got = ", ".join(names) or "nothing"
                msg = f"test.hidden: some but not all of {', '.join(modalities)}: got {got}"
                raise ValueError(msg)
        if test.snr_db and self.noise is None:
            msg = "test.snr_db: needs `noise`, which says what is added"
            raise ValueError(msg)
        for task in test.swapped:
            if not {"audio", "video"} <= set(modalities) or task not in self.model.heads:
                heads = ", ".join(self.model.heads)
                msg = (
                    f"test.swapped: tasks ({heads}) of a model of audio and video: "
                    f"got {task}, and a model of {', '.join(modalities)}"
                )
                raise ValueError(msg)
        for name, data in test.others.items():
            if name == AS_IT_IS:
                msg = f"test.others: {name!r} is what the test split itself is called"
                raise ValueError(msg)
            try:
                self._with(data=data, noise=None)
            except ValidationError as error:
                said = error.errors(include_url=False)[0]["msg"].partition(", ")[2]
                msg = f"test.others.{name}: {said}"
                raise ValueError(msg) from None
        return self


class Pool(Settings):
    """Rows that are told as one, such as the folds of a cross-validation."""

    rows: tuple[str, ...] = Field(min_length=2)
    """Their test examples count as those of one test."""
    against: tuple[str, ...] = ()
    """Pools that it is compared with, over the same tests in the same order."""


class Table(Settings):
    """All rows, by name, in the order of the file."""

    title: str
    rows: Mapping[str, RowSettings]
    pools: Mapping[str, Pool] = Field(default_factory=dict)


_OWN: Final = frozenset((TITLE, ROWS, POOLS))
"""Keys at the top that are no common settings."""
_KEYS: Final = tuple(sorted(_OWN.union(RowSettings.model_fields)))
"""What may stand at the top."""


class _Head(Settings):
    """What a table has beside the common settings."""

    title: str = ""
    rows: Mapping[RowName, Mapping[str, object] | None] = Field(min_length=1)
    pools: Mapping[RowName, Pool] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_pools(self) -> Self:
        for name, pool in self.pools.items():
            if name in self.rows:
                msg = f"pools.{name}: is called like a row"
                raise ValueError(msg)
            if len(set(pool.rows)) < len(pool.rows):
                msg = f"pools.{name}: each row once: got {', '.join(pool.rows)}"
                raise ValueError(msg)
            strangers = [one for one in pool.rows if one not in self.rows]
            strangers += [one for one in pool.against if one not in self.pools or one == name]
            if strangers:
                msg = (
                    f"pools.{name}: no other {strangers[0]!r}; rows: {', '.join(self.rows)}; "
                    f"pools: {', '.join(self.pools)}"
                )
                raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True)
class _Row:
    """A row as it is written."""

    name: str
    node: Node
    """With the common settings below its own."""
    own: frozenset[Place]
    """Where its own stand."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A row as it was understood."""

    settings: RowSettings | None
    problems: tuple[Problem, ...]
    left_out: Mapping[Place, str]
    """Common keys that its types do not have."""


def read_table(path: Path) -> Table:
    """The table in the file at `path`, as it is written there: `placed` says where its files are.

    Raises:
        ConfigError: the file cannot be read or something in it is wrong; one line per problem.
    """
    root = read_tree(path)
    if not isinstance(root.value, dict):
        what = "is empty" if root.value is None else "must be a mapping of keys"
        msg = f"{root.place}: {what}; allowed: {', '.join(_KEYS)}"
        raise ConfigError(msg)
    problems = [
        Problem(node.place, ".".join(keys), node.problem)
        for keys, node in walk(root)
        if node.problem
    ]
    problems += _unknown(root)
    root = _part(root, _KEYS)
    root = root if ROWS in _children(root) else _as_table(root, path)
    head: _Head | None = None
    try:
        head = _Head.model_validate(plain(_part(root, _OWN)))
    except ValidationError as error:
        problems += _said(error, root, _Head)
    written = {row.name: row for row in _rows(root)}
    reads = {name: _understood(row) for name, row in written.items()}
    for name, read in reads.items():
        problems += [*read.problems, *_strangers(written[name], read.settings, written)]
    problems += _of_no_row([read.left_out for read in reads.values()])
    if problems or head is None:
        unique = sorted(dict.fromkeys(problems), key=Problem.order)
        raise ConfigError(mask_credentials("\n".join(map(str, unique))))
    rows = {name: read.settings for name, read in reads.items() if read.settings is not None}
    return Table(title=head.title or path.stem, rows=rows, pools=head.pools)


def _unknown(root: Node) -> Iterator[Problem]:
    for key, node in _children(root).items():
        if key not in _KEYS:
            text = f"unknown key{nearest(key, _KEYS) or ';'} allowed: {', '.join(_KEYS)}"
            yield Problem(node.key_place or node.place, key, text)


def _as_table(root: Node, path: Path) -> Node:
    """A single training as a table of one row."""
    name = re.sub("[^A-Za-z0-9_-]", "-", path.stem)[:64]
    rows = Node(root.place, {name: Node(root.place)})
    return replace(root, value={**_children(root), ROWS: rows})


def _rows(root: Node) -> Iterator[_Row]:
    common = _part(root, _children(root).keys() - _OWN)
    for name, node in _children(_children(root)[ROWS]).items():
        places = [(one.place, one.key_place) for _, one in walk(node)]
        own = frozenset(place for pair in places for place in pair if place is not None)
        # Without any of its own, the file is where something is missing.
        yield _Row(name, _laid_over(common, node) if _children(node) else common, own)


def _laid_over(base: Node, over: Node) -> Node:
    """`over`, with what only `base` has."""
    if not isinstance(over.value, dict):
        return over
    below = _children(base)
    both = {
        key: _laid_over(below[key], node) if key in below else node
        for key, node in over.value.items()
    }
    return replace(over, value={**below, **both})


def _understood(row: _Row) -> _Read:
    """What it says, and what of that is wrong."""
    node, left_out = row.node, dict[Place, str]()
    while True:
        try:
            return _Read(RowSettings.model_validate(plain(node)), (), left_out)
        except ValidationError as error:
            unknown = _unknown_to_type(row, node, error)
            if not unknown:
                said = _said(error, node, RowSettings)
                return _Read(None, tuple(_of_row(row, one) for one in said), left_out)
        for keys in unknown:
            there = dict(walk(node))[keys]
            left_out[there.key_place or there.place] = ".".join(keys)
            node = _without(node, keys)


def _unknown_to_type(row: _Row, node: Node, error: ValidationError) -> set[tuple[str, ...]]:
    """Common keys that a type which the row itself says does not have."""
    found = set()
    for one in error.errors(include_url=False, include_input=False):
        if one["type"] != "extra_forbidden":
            continue
        above, there, keys = node, node, tuple[str, ...]()
        for part in one["loc"]:  # which names the arms of unions too
            child = _children(there).get(str(part))
            if child is not None:
                above, there, keys = there, child, (*keys, str(part))
        kind = _children(above).get("type")
        if kind is not None and kind.place in row.own and there.key_place not in row.own:
            found.add(keys)
    return found


def _without(node: Node, keys: tuple[str, ...]) -> Node:
    children = dict(_children(node))
    if len(keys) == 1:
        del children[keys[0]]
    else:
        children[keys[0]] = _without(children[keys[0]], keys[1:])
    return replace(node, value=children)


def _of_no_row(left_out: Sequence[Mapping[Place, str]]) -> Iterator[Problem]:
    """Common keys that every row leaves out."""
    for place, keys in left_out[0].items() if left_out else ():
        if all(place in one for one in left_out):
            yield Problem(place, keys, "no row has a type with this key")


def _children(node: Node) -> Mapping[str, Node]:
    return node.value if isinstance(node.value, dict) else {}


def _part(node: Node, keys: Container[str]) -> Node:
    return replace(node, value={key: one for key, one in _children(node).items() if key in keys})


def _said(error: ValidationError, node: Node, kind: type[Settings]) -> list[Problem]:
    return problems_of(error.errors(include_url=False, include_input=False), node, kind)


def _of_row(row: _Row, problem: Problem) -> Problem:
    """With the row in its key path, if it stands in the row."""
    if problem.place not in row.own:
        return problem
    return replace(problem, keys=f"{ROWS}.{row.name}.{problem.keys}".rstrip("."))


def _strangers(
    row: _Row, settings: RowSettings | None, written: Iterable[str]
) -> Iterator[Problem]:
    """What it is compared with and is not there."""
    others = [other for other in written if other != row.name]
    places = dict(walk(row.node))
    for nth, other in enumerate(settings.test.against if settings else ()):
        if other not in others:
            keys = ("test", "against", str(nth))
            hint = nearest(other, others) or ";"
            text = f"no other row {other!r}{hint} allowed: {', '.join(others) or 'none'}"
            yield _of_row(row, Problem(places[keys].place, ".".join(keys), text))


def _placed(data: M, folder: Path, media: Path | None) -> M:
    update = {
        name: (folder / path.expanduser()).resolve()
        for name in ("path", *_MEDIA)
        if isinstance(path := getattr(data, name, None), Path)
    }
    if media is not None:
        update |= {name: media.resolve() for name in _MEDIA if name in type(data).model_fields}
    return data.model_copy(update=update)
