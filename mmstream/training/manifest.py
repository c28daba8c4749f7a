"""A manifest: which spans of which recordings are examples, and what is known of them.

    path,start,end,labels,caption,transcript,split,group
    clips/bbaf2n.mp4,1.18,1.42,colour=blue,,blue,train,bbaf2n

CSV with a header, or JSON Lines (`.jsonl`) with the same keys. `path` is below the folder of the
media; `start` and `end` are seconds from the recording's first instant, both left out for all of
it; `labels` is `task=class`, several separated by `;` (in JSON also a mapping). Examples of one
`group` (a speaker, a camera, a session) must not be spread over splits. `path` and `split` must be
there, and the columns of what is nowhere known may be left out.

Everything is checked before anything is trained, and all that is wrong is said at once.
"""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from mmstream.config import Settings
from mmstream.errors import ConfigError, SourceError
from mmstream.media import Span, StreamKind, secs_to_ns
from mmstream.training.recordings import Measured, measure
from mmstream.yaml_tree import nearest, nearest_file

Split = Literal["train", "val", "test"]

SLACK_NS: Final = 50_000_000
"""By how much an end may pass the recording's: people round, and so do containers."""

_MAX_SECS: Final = 1e9
"""No recording is so long; nanoseconds must stay whole."""


class ManifestSettings(Settings):
    """Which manifest, and what its examples must be like."""

    path: Path
    """The manifest: .csv or .jsonl."""
    media: Path | None = None
    """The folder that the paths in it are below; by default the manifest's own."""
    needs: frozenset[StreamKind] = frozenset()
    """Streams that every example's recording must have."""
    tasks: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """The classes of each task, in the order of the model's outputs."""


@dataclass(frozen=True, slots=True, order=True)
class Label:
    """Which class of a task an example is of."""

    task: str
    name: str


@dataclass(frozen=True, slots=True)
class Annotation:
    """What is known of an example; empty texts are not known."""

    split: Split
    labels: tuple[Label, ...] = ()
    """At most one per task, in order of tasks."""
    caption: str = ""
    transcript: str = ""
    group: str = ""

    def class_of(self, task: str) -> str | None:
        """Its class, None where it is not known."""
        return next((label.name for label in self.labels if label.task == task), None)


@dataclass(frozen=True, slots=True)
class Entry:
    """One example as a manifest has it."""

    line: int
    """Where it stands there, from 1."""
    path: Path
    """The recording, resolved."""
    span: Span | None
    """None: all of it."""
    digest: str
    """Of the recording's bytes."""
    annotation: Annotation


class _Row(Settings):
    """A row as it is written."""

    path: str = Field(min_length=1)
    start: float | None = Field(default=None, ge=0, le=_MAX_SECS)
    end: float | None = Field(default=None, gt=0, le=_MAX_SECS)
    labels: Mapping[str, str] = Field(default_factory=dict)
    caption: str = ""
    transcript: str = ""
    split: Split
    group: str = ""

    @field_validator("labels", mode="before")
    @classmethod
    def _pairs(cls, written: object) -> object:
        """`a=b;c=d` as a mapping."""
        if not isinstance(written, str):
            return written
        pairs = [pair.partition("=") for pair in written.split(";") if pair.strip()]
        labels = {task.strip(): name.strip() for task, _, name in pairs}
        if not all(task.strip() and name.strip() for task, _, name in pairs):
            msg = f"must be task=class, separated by ';' (got {written!r})"
            raise ValueError(msg)
        if len(labels) < len(pairs):
            msg = f"a task has one class (got {written!r})"
            raise ValueError(msg)
        return labels

    @model_validator(mode="after")
    def _check_span(self) -> "_Row":
        if (self.start is None) != (self.end is None):
            msg = "start and end: both or none"
            raise ValueError(msg)
        if self.start is not None and self.end is not None and self.end <= self.start:
            msg = f"end {self.end:g} is not after start {self.start:g}: an empty span"
            raise ValueError(msg)
        return self

    def span(self) -> Span | None:
        """As instants."""
        if self.start is None or self.end is None:
            return None
        return Span(secs_to_ns(self.start), secs_to_ns(self.end))


@dataclass(frozen=True, slots=True)
class _Read:
    """A row that could be read."""

    line: int
    row: _Row
    path: Path
    span: Span | None


@dataclass(frozen=True, slots=True, order=True)
class _Problem:
    line: int
    text: str


def read_manifest(settings: ManifestSettings) -> tuple[Entry, ...]:
    """Its examples, in its order, with every recording looked into.

    Raises:
        ConfigError: something is wrong; one line for each problem, with file and line.
    """
    problems: list[_Problem] = []
    folder = settings.media or settings.path.parent
    reads = []
    for line, cells in _rows(settings.path, problems):
        try:
            row = _Row.model_validate(cells)
        except ValidationError as error:
            problems += [_Problem(line, text) for text in _texts(error)]
        else:
            path = (folder / Path(row.path).expanduser()).resolve()
            reads.append(_Read(line, row, path, row.span()))
    measured = _measured(reads, settings.needs, problems)
    problems += _unknown_labels(reads, settings.tasks)
    problems += _duplicates(reads)
    problems += _leaks(reads, measured)
    if not reads and not problems:
        problems.append(_Problem(1, "no examples"))
    if problems:
        raise ConfigError(
            "\n".join(f"{settings.path}:{one.line}: {one.text}" for one in sorted(problems))
        )
    return tuple(_entry(read, measured[read.path].digest) for read in reads)


def class_counts(annotations: Iterable[Annotation], task: str) -> Mapping[Split, Counter[str]]:
    """How many examples of each class each split has; those whose class is not known count not."""
    counts: dict[Split, Counter[str]] = {"train": Counter(), "val": Counter(), "test": Counter()}
    for annotation in annotations:
        name = annotation.class_of(task)
        if name is not None:
            counts[annotation.split][name] += 1
    return counts


def _entry(read: _Read, digest: str) -> Entry:
    row = read.row
    labels = tuple(sorted(Label(task, name) for task, name in row.labels.items()))
    annotation = Annotation(row.split, labels, row.caption, row.transcript, row.group)
    return Entry(read.line, read.path, read.span, digest, annotation)


def _rows(path: Path, problems: list[_Problem]) -> Iterator[tuple[int, object]]:
    """What each row says, with its line."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        hint = nearest_file(path) if isinstance(error, FileNotFoundError) else ""
        msg = f"{path}: cannot be read: {error.strerror}{hint}"
        raise ConfigError(msg) from None
    except UnicodeDecodeError:
        msg = f"{path}: no UTF-8 text"
        raise ConfigError(msg) from None
    if path.suffix == ".jsonl":
        yield from _json_rows(text, problems)
    elif path.suffix == ".csv":
        yield from _csv_rows(text, problems)
    else:
        msg = f"{path}: not known by its ending; allowed: .csv, .jsonl"
        raise ConfigError(msg)


def _json_rows(text: str, problems: list[_Problem]) -> Iterator[tuple[int, object]]:
    for line, whole in enumerate(text.split("\n"), 1):
        if not whole.strip():
            continue
        try:
            yield line, json.loads(whole)
        except json.JSONDecodeError as error:
            problems.append(_Problem(line, f"no JSON: {error.msg} at column {error.colno}"))


def _csv_rows(text: str, problems: list[_Problem]) -> Iterator[tuple[int, object]]:
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            if header is None:
                header = [cell.strip() for cell in cells]
            elif len(cells) > len(header):
                excess = f"{len(cells)} cells under {len(header)} columns; commas go in quotes"
                problems.append(_Problem(line, excess))
            elif cells:
                filled = zip(header, (cell.strip() for cell in cells), strict=False)
                yield line, {name: cell for name, cell in filled if cell}
            line = reader.line_num + 1
    except csv.Error as error:
        problems.append(_Problem(line, f"no CSV: {error}"))


def _texts(error: ValidationError) -> Iterator[str]:
    """What is wrong with a row, one text each."""
    for one in error.errors(include_url=False):
        key = ".".join(str(part) for part in one["loc"])
        said = one["msg"].removeprefix("Value error, ")
        match one["type"]:
            case "extra_forbidden":
                hint = nearest(key, _Row.model_fields) or ";"
                yield f"{key}: unknown column{hint} allowed: {', '.join(_Row.model_fields)}"
            case "missing":
                yield f"{key}: missing, but required"
            case "literal_error":
                hint = nearest(str(one["input"]), ("train", "val", "test"))
                yield f"{key}: must be train, val or test (got {one['input']!r}){hint}"
            case _:
                got = f" (got {one['input']!r})" if one["type"] != "value_error" else ""
                yield f"{key}: {said}{got}" if key else said


def _measured(
    reads: Sequence[_Read], needs: frozenset[StreamKind], problems: list[_Problem]
) -> Mapping[Path, Measured]:
    """Every recording that can be read, looked into once; the rows that it does not fit."""
    by_path: defaultdict[Path, list[_Read]] = defaultdict(list)
    for read in reads:
        by_path[read.path].append(read)
    found: dict[Path, Measured] = {}
    for path, here in by_path.items():
        if not path.is_file():
            hint = nearest_file(path)
            problems += [_Problem(one.line, f"path: no such file: {path}{hint}") for one in here]
            continue
        until_ns = max((one.span.end_ns for one in here if one.span), default=0)
        try:
            found[path] = measured = measure(path, until_ns)
        except SourceError as error:
            problems += [_Problem(one.line, f"path: {error}") for one in here]
            continue
        problems += [problem for one in here for problem in _misfits(one, measured, needs)]
    return found


def _misfits(read: _Read, measured: Measured, needs: frozenset[StreamKind]) -> Iterator[_Problem]:
    for kind in sorted(needs - measured.kinds):
        yield _Problem(read.line, f"path: {read.path} has no {kind} that can be decoded")
    if read.span and read.span.end_ns > measured.end_ns + SLACK_NS:
        ends = f"{read.path.name} ends at {measured.end_ns / 1e9:.3f}"
        yield _Problem(read.line, f"end: {read.row.end:g} is beyond the recording: {ends}")


def _unknown_labels(
    reads: Sequence[_Read], tasks: Mapping[str, tuple[str, ...]]
) -> Iterator[_Problem]:
    for read in reads:
        for task, name in read.row.labels.items():
            if task not in tasks:
                hint = nearest(task, tasks) or ";"
                allowed = ", ".join(tasks) or "none, no task is configured"
                yield _Problem(read.line, f"labels: unknown task {task!r}{hint} allowed: {allowed}")
            elif name not in tasks[task]:
                hint = nearest(name, tasks[task]) or ";"
                allowed = ", ".join(tasks[task])
                yield _Problem(
                    read.line, f"labels: unknown {task} {name!r}{hint} allowed: {allowed}"
                )


def _duplicates(reads: Sequence[_Read]) -> Iterator[_Problem]:
    """Spans of one recording that are there twice."""
    first: dict[tuple[Path, Span | None], int] = {}
    for read in reads:
        line = first.setdefault((read.path, read.span), read.line)
        if line != read.line:
            yield _Problem(read.line, f"the same span of the same recording as line {line}")


def _leaks(reads: Sequence[_Read], measured: Mapping[Path, Measured]) -> Iterator[_Problem]:
    """Groups in more than one split; the same stretch of the same bytes in more than one."""
    first: dict[str, _Read] = {}
    by_digest: defaultdict[str, list[_Read]] = defaultdict(list)
    for read in reads:
        if read.path in measured:
            by_digest[measured[read.path].digest].append(read)
        group, split = read.row.group, read.row.split
        one = first.setdefault(group, read) if group else read
        if one.row.split != split:
            where = f"is in {one.row.split} at line {one.line} and here in {split}"
            yield _Problem(read.line, f"group: {group!r} {where}")
    for copies in by_digest.values():
        yield from _shared(copies)


def _shared(copies: Sequence[_Read]) -> Iterator[_Problem]:
    """Of rows about the same bytes, those that share time with one of another split before."""
    widest: dict[Split, tuple[int, _Read]] = {}
    for read in sorted(copies, key=_start_ns):
        for split, (end_ns, other) in widest.items():
            if split != read.row.split and end_ns > _start_ns(read):
                text = f"shares time of the same recording with line {other.line}, which is {split}"
                yield _Problem(read.line, f"split: {text}")
        end_ns = read.span.end_ns if read.span else secs_to_ns(_MAX_SECS)
        known = widest.get(read.row.split)
        if known is None or end_ns > known[0]:
            widest[read.row.split] = (end_ns, read)


def _start_ns(read: _Read) -> int:
    return read.span.start_ns if read.span else 0
