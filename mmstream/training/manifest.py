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

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import Field

from mmstream.config import Settings
from mmstream.errors import ConfigError, SourceError
from mmstream.media import Span, StreamKind, secs_to_ns
from mmstream.training.manifest_rows import MAX_SECS, Problem, Row, Split, rows
from mmstream.training.recordings import Measured, measure
from mmstream.yaml_tree import nearest, nearest_file

__all__ = [
    "Annotation",
    "Entry",
    "Label",
    "ManifestSettings",
    "Split",
    "class_counts",
    "read_manifest",
]

SLACK_NS: Final = 50_000_000
"""By how much an end may pass the recording's: people round, and so do containers."""

_N_NAMED: Final = 3
"""Of the lines that have the same problem as another, so many are named with it."""


class ManifestSettings(Settings):
    """Which manifest, and what its examples must be like."""

    path: Path
    """The manifest: .csv or .jsonl."""
    media: Path | None = None
    """The folder that the paths in it are below; by default the manifest's own."""
    needs: frozenset[StreamKind] = frozenset()
    """Streams that every example's recording must have."""
    tasks: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """The classes of each task."""


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


@dataclass(frozen=True, slots=True)
class _Read:
    """A row that could be read."""

    line: int
    row: Row
    path: Path
    span: Span | None


def read_manifest(settings: ManifestSettings) -> tuple[Entry, ...]:
    """Its examples, in its order, with every recording looked into.

    Raises:
        ConfigError: something is wrong; one line for each problem, with file and line.
    """
    problems: list[Problem] = []
    folder = settings.media or settings.path.parent
    reads = []
    for line, row in rows(settings.path, problems):
        try:
            reads.append(_Read(line, row, _place(folder, row.path), row.span()))
        except (OSError, RuntimeError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            problems.append(Problem(line, f"path: {row.path[:200]!r} cannot be read: {why}"))
    measured = _measured(reads, settings.needs, problems)
    problems += _unknown_labels(reads, settings.tasks)
    problems += _duplicates(reads)
    problems += _leaks(reads, measured)
    if not reads and not problems:
        problems.append(Problem(1, "no examples"))
    if problems:
        raise ConfigError("\n".join(f"{settings.path}:{one}" for one in _told(problems)))
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


def _place(folder: Path, written: str) -> Path:
    """Where it is, with all links followed.

    Raises:
        OSError: its name is too long, or a folder may not be looked into.
        RuntimeError: its links lead to each other, or `~` to nobody's home.
        ValueError: no file can be called so.
    """
    resolved = (folder / Path(written).expanduser()).resolve()
    resolved.is_file()  # asked here for its errors
    return resolved


def _told(problems: Iterable[Problem]) -> Iterator[str]:
    """A line for each, in order; those that are the same are said once."""
    lines: defaultdict[str, list[int]] = defaultdict(list)
    for one in sorted(problems):
        lines[one.text].append(one.line)
    for text, (first, *others) in lines.items():
        named = ", ".join(map(str, others[:_N_NAMED]))
        more = f" and {len(others) - _N_NAMED} more" if len(others) > _N_NAMED else ""
        yield f"{first}: {text} (also: {named}{more})" if others else f"{first}: {text}"


def _measured(
    reads: Sequence[_Read], needs: frozenset[StreamKind], problems: list[Problem]
) -> Mapping[Path, Measured]:
    """Every recording that can be read, looked into once; the rows that it does not fit."""
    by_path: defaultdict[Path, list[_Read]] = defaultdict(list)
    for read in reads:
        by_path[read.path].append(read)
    found: dict[Path, Measured] = {}
    for path, here in by_path.items():
        if not path.is_file():
            hint = nearest_file(path)
            problems += [Problem(one.line, f"path: no such file: {path}{hint}") for one in here]
            continue
        until_ns = max((one.span.end_ns for one in here if one.span), default=0)
        try:
            found[path] = measured = measure(path, until_ns)
        except SourceError as error:
            problems += [Problem(one.line, f"path: {error}") for one in here]
            continue
        problems += [problem for one in here for problem in _misfits(one, measured, needs)]
    return found


def _misfits(read: _Read, measured: Measured, needs: frozenset[StreamKind]) -> Iterator[Problem]:
    for kind in sorted(needs - measured.kinds):
        yield Problem(read.line, f"path: {read.path} has no {kind} that can be decoded")
    ends = f"is beyond the recording: {read.path.name} ends at {measured.end_ns / 1e9:.3f}"
    if read.span and read.span.start_ns >= measured.end_ns:
        yield Problem(read.line, f"start: {read.row.start:.12g} {ends}")
    elif read.span and read.span.end_ns > measured.end_ns + SLACK_NS:
        yield Problem(read.line, f"end: {read.row.end:.12g} {ends}")


def _unknown_labels(
    reads: Sequence[_Read], tasks: Mapping[str, tuple[str, ...]]
) -> Iterator[Problem]:
    for read in reads:
        for task, name in read.row.labels.items():
            if task not in tasks:
                hint = nearest(task, tasks) or ";"
                allowed = ", ".join(tasks) or "none, no task is configured"
                yield Problem(read.line, f"labels: unknown task {task!r}{hint} allowed: {allowed}")
            elif name not in tasks[task]:
                hint = nearest(name, tasks[task]) or ";"
                allowed = ", ".join(tasks[task])
                yield Problem(
                    read.line, f"labels: unknown {task} {name!r}{hint} allowed: {allowed}"
                )


def _duplicates(reads: Sequence[_Read]) -> Iterator[Problem]:
    """Spans of one recording that are there twice."""
    first: dict[tuple[Path, Span | None], int] = {}
    for read in reads:
        line = first.setdefault((read.path, read.span), read.line)
        if line != read.line:
            yield Problem(read.line, f"the same span of the same recording as line {line}")


def _leaks(reads: Sequence[_Read], measured: Mapping[Path, Measured]) -> Iterator[Problem]:
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
            yield Problem(read.line, f"group: {group!r} {where}")
    for copies in by_digest.values():
        yield from _shared(copies)


def _shared(copies: Sequence[_Read]) -> Iterator[Problem]:
    """Of rows about the same bytes, those that share time with one of another split before."""
    widest: dict[Split, tuple[int, _Read]] = {}
    for read in sorted(copies, key=_start_ns):
        for split, (end_ns, other) in widest.items():
            if split != read.row.split and end_ns > _start_ns(read):
                text = f"shares time of the same recording with line {other.line}, which is {split}"
                yield Problem(read.line, f"split: {text}")
        end_ns = read.span.end_ns if read.span else secs_to_ns(MAX_SECS)
        known = widest.get(read.row.split)
        if known is None or end_ns > known[0]:
            widest[read.row.split] = (end_ns, read)


def _start_ns(read: _Read) -> int:
    return read.span.start_ns if read.span else 0
