"""The figures of an evaluation as text: aligned for a terminal, or Markdown for a document."""

from collections.abc import Iterator, Sequence
from typing import Final

from mmstream.pipelines.evaluate import Report
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
    table = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*table, "", LEGEND, *_lists(report, mark="* ")])


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
