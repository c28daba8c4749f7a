"""What really happens in recordings: labelled times, read from a file of tab-separated values.

    # comment
    file              event     start_s  end_s  note
    door/visit.mp4    presence  6        19     in from the left
    door/visit.mp4    ?person   18.5     19     half behind the door
    door/wind.mp4     presence

`file` is a path below the folder of the media, `event` a label of the configuration, and times
are seconds from the recording's first instant. Columns after the fourth are for people.

* No times: the label is judged on this file, and it never happens there.
* No row: the label is not judged on this file; what is said of it there counts neither way.
* `?label`: a stretch where it cannot be told; events there are neither hits nor false alarms. A
  label with only such rows is judged: in the rest of the file it does not happen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmstream.errors import ConfigError
from mmstream.media import Span, secs_to_ns
from mmstream.yaml_tree import nearest, nearest_file

COLUMNS: Final = ("file", "event", "start_s", "end_s")
"""The header; more may follow."""
UNCLEAR: Final = "?"
"""Before a label: it cannot be told."""

_MAX_SECS: Final = 1e9
"""No recording is so long; nanoseconds must stay whole."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What is known of one label in one recording."""

    file: str
    label: str
    truths: tuple[Span, ...]
    """When it happens, in order, disjoint; empty: never."""
    unclear: tuple[Span, ...]
    """When it cannot be told, in order, disjoint."""


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    file: str
    label: str
    is_unclear: bool
    span: Span | None


def read(
    path: Path, media: Path, labels: Sequence[str], only: Sequence[str] = ()
) -> tuple[Judged, ...]:
    """The truth about recordings below `media`, by file and label in the order of the rows.

    `labels` are those that the configuration can say; `only` narrows to some of them, and rows of
    others are passed over.

    Raises:
        ConfigError: a row is wrong, a recording is missing, or nothing is left; one line for each
            problem, with its place.
    """
    problems = [f"--label: {_unknown(label, labels)}" for label in only if label not in labels]
    rows = []
    for line, cells in _cells(path, problems):
        try:
            row = _row(line, cells)
        except ValueError as error:
            problems.append(f"{path}:{line}: {error}")
        else:
            if not only or row.label in only:
                rows.append(row)
    problems += _misfits(path, rows, media, labels)
    if not problems and not rows:
        wanted = f" for {', '.join(only)}" if only else ""
        problems.append(f"{path}: no row{wanted}")
    if problems:
        raise ConfigError("\n".join(problems))
    return _by_label(rows)


def _cells(path: Path, problems: list[str]) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row below the header, with its line."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        hint = nearest_file(path) if isinstance(error, FileNotFoundError) else ""
        problems.append(f"{path}: cannot be read: {error.strerror}{hint}")
        return
    except UnicodeDecodeError:
        problems.append(f"{path}: no UTF-8 text")
        return
    rows = [
        (line, [cell.strip() for cell in whole.split("\t")])
        for line, whole in enumerate(text.splitlines(), 1)
        if whole.strip() and not whole.startswith("#")
    ]
    header = tuple(rows[0][1][: len(COLUMNS)]) if rows else ()
    if header != COLUMNS:
        line = rows[0][0] if rows else 1
        wanted = " ".join(COLUMNS)
        problems.append(f"{path}:{line}: the first row must be {wanted}, separated by tabs")
        return
    yield from rows[1:]


def _row(line: int, cells: Sequence[str]) -> _Row:
    """One row.

    Raises:
        ValueError: it is wrong; the text says how.
    """
    if len(cells) < len(COLUMNS) - 2:
        msg = f"one cell; needed: {' '.join(COLUMNS)}, separated by tabs"
        raise ValueError(msg)
    file, event, start, end, *_ = (*cells, "", "")
    label = event.removeprefix(UNCLEAR)
    for name, cell in (("file", file), ("event", label)):
        if not cell:
            msg = f"{name} is empty"
            raise ValueError(msg)
    is_unclear = label != event
    if not start and not end:
        if is_unclear:
            msg = f"{event} needs a start and an end; where a label is unclear all along, no row"
            raise ValueError(msg)
        return _Row(line, file, label, is_unclear, None)
    start_ns, end_ns = _instant_ns("start_s", start), _instant_ns("end_s", end)
    if end_ns <= start_ns:
        msg = f"end_s {end} is not after start_s {start}"
        raise ValueError(msg)
    return _Row(line, file, label, is_unclear, Span(start_ns, end_ns))


def _instant_ns(column: str, cell: str) -> int:
    msg = f"{column} must be seconds from the recording's start (got {cell!r})"
    try:
        secs = float(cell)
    except ValueError:
        raise ValueError(msg) from None
    if not 0 <= secs <= _MAX_SECS:
        raise ValueError(msg)
    return secs_to_ns(secs)


def _unknown(label: str, labels: Sequence[str]) -> str:
    hint = nearest(label, labels) or ";"
    return f"no label {label!r} in this configuration{hint} allowed: {', '.join(labels)}"


def _misfits(path: Path, rows: Sequence[_Row], media: Path, labels: Sequence[str]) -> Iterator[str]:
    """What is wrong between rows, and between rows and the world; each thing once."""
    if not media.is_dir():
        yield f"--media: no folder {media}"
        return
    unknown, missing = set[str](), set[str]()
    earlier: dict[tuple[str, str], list[_Row]] = {}
    for row in rows:
        if row.label not in labels and row.label not in unknown:
            unknown.add(row.label)
            yield f"{path}:{row.line}: {_unknown(row.label, labels)}"
        if row.file not in missing and not (media / row.file).is_file():
            missing.add(row.file)
            yield f"{path}:{row.line}: no file {media / row.file}{nearest_file(media / row.file)}"
        same = earlier.setdefault((row.file, row.label), [])
        clash = next((one for one in same if _contradict(one, row)), None)
        if clash is not None:
            yield f"{path}:{row.line}: {row.label} contradicts or overlaps line {clash.line}"
        same.append(row)


def _contradict(one: _Row, other: _Row) -> bool:
    if one.span is not None and other.span is not None:
        return one.span.overlap_ns(other.span) > 0
    return not (one.is_unclear or other.is_unclear)


def _by_label(rows: Sequence[_Row]) -> tuple[Judged, ...]:
    grouped: dict[tuple[str, str], list[_Row]] = {}
    for row in rows:
        grouped.setdefault((row.file, row.label), []).append(row)
    return tuple(
        Judged(file, label, _spans(same, unclear=False), _spans(same, unclear=True))
        for (file, label), same in grouped.items()
    )


def _spans(rows: Sequence[_Row], *, unclear: bool) -> tuple[Span, ...]:
    spans = [row.span for row in rows if row.span is not None and row.is_unclear is unclear]
    return tuple(sorted(spans, key=lambda span: span.start_ns))
