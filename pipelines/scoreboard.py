"""The figures of an evaluation as text: aligned for a terminal, or Markdown for a document."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from mmstream.pipelines.evaluate import Report, Timeline
from mmstream.pipelines.tally import Delay, Error, FalseAlarm, LabelScore, Miss

COUNTS: Final = (
    "label",
    "files",
    "minutes",
    "true",
    "hits",
    "misses",
    "false",
    "unclear",
    "pieces",
    "merged",
    "precision",
    "recall",
    "false/h",
)
TIMES: Final = ("start error", "end error", "delay")
LEGEND: Final = """\
Start and end error: seconds of the event after the truth, median (of sizes: median, 95 %).
Delay: seconds of media from the truth's start to the decision, median (95 %).
False: alarms at which nothing happened. Unclear: events where it cannot be told, not counted.
Pieces: of a truth, beyond the first. Merged: events over several truths. -: nothing to tell."""

CELLS: Final = """\
Found/true, **+false alarms**; -: judged, and nothing happened nor was wrongly said; empty: not
judged. Clips of one folder of which the same is to be said share a row; figures are of each."""


def plain(report: Report) -> str:
    """For a terminal: columns aligned, then every miss and false alarm."""
    counts = [COUNTS, *(_counts(one) for one in report.labels)]
    times = [("label", *TIMES), *((one.label, *_times(one)) for one in report.labels)]
    return "\n".join(
        [*_aligned(counts), "", *_aligned(times), "", LEGEND, *_lists(report, mark="  ")]
    )


def markdown(report: Report) -> str:
    """For a document: the same as a Markdown table and lists."""
    columns = (*COUNTS, *TIMES)
    rules = ("---", *["---:"] * (len(columns) - 1))
    rows = (columns, rules, *((*_counts(one), *_times(one)) for one in report.labels))
    lists = _lists(report, mark="* ")
    return "\n".join([*_table(rows), "", LEGEND, *lists, "", *_by_clip(report), "", CELLS])


def _table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _by_clip(report: Report) -> Iterator[str]:
    """A row per clip; clips of one folder of which the same is to be said share one."""
    labels = [one.label for one in report.labels]
    cells: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for one in report.timelines:
        cells[one.file][one.label] = _cell(one)
    clips: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for file, said in cells.items():
        folder = file.rpartition("/")[0]
        clips[folder, *(said.get(label, " ") for label in labels)].append(file)
    rows = (
        (files[0] if len(files) == 1 else f"{folder}: {len(files)} clips", *row)
        for (folder, *row), files in clips.items()
    )
    return _table([("clip", *labels), ("---", *["---"] * len(labels)), *rows])


def _cell(one: Timeline) -> str:
    n_false = sum(event.verdict == "false_alarm" for event in one.events)
    n_found = sum(truth.found for truth in one.truths)
    found = f"{n_found}/{len(one.truths)}" if one.truths else ""
    false = f"**+{n_false}**" if n_false else ""
    return " ".join(part for part in (found, false) if part) or "-"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The first column to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        figures = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *figures])


def _counts(one: LabelScore) -> Sequence[str]:
    return (
        one.label,
        str(one.n_files),
        f"{one.judged_s / 60:.1f}",
        str(one.n_true),
        str(one.n_hits),
        str(one.n_misses),
        str(one.n_false_alarms),
        str(one.n_unclear),
        str(one.n_fragments),
        str(one.n_merged),
        _share(one.precision),
        _share(one.recall),
        f"{one.false_alarms_per_hour:.1f}",
    )


def _times(one: LabelScore) -> Sequence[str]:
    return (_error(one.start_error), _error(one.end_error), _delay(one.delay))


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.2f}"


def _error(error: Error | None) -> str:
    if error is None:
        return "-"
    return f"{error.median_s:+.2f} ({error.abs_median_s:.2f}, {error.abs_p95_s:.2f})"


def _delay(delay: Delay | None) -> str:
    return "-" if delay is None else f"{delay.median_s:.2f} ({delay.p95_s:.2f})"


def _lists(report: Report, *, mark: str) -> Iterator[str]:
    for title, its in (
        ("False alarms", [(one.label, one.false_alarms) for one in report.labels]),
        ("Missed", [(one.label, one.misses) for one in report.labels]),
    ):
        names_any = any(found for _, found in its)
        yield ""
        yield f"{title}:" if names_any else f"{title}: none"
        if names_any and mark == "* ":
            yield ""
        for label, found in its:
            for one in found:
                yield f"{mark}{label}: {_place(one)}"


def _place(one: FalseAlarm | Miss) -> str:
    place = f"{one.file} {one.start_s:.2f}-{one.end_s:.2f} s"
    return f"{place} (score {one.top_score:.2f})" if isinstance(one, FalseAlarm) else place
