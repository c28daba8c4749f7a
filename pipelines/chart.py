"""An evaluation as a picture: figures per label, and truth and events of each recording.

Drawn by matplotlib's Agg backend without pyplot: no window, no state of its own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mmstream.pipelines.evaluate import Report, Timeline

MAX_RECORDINGS: Final = 24
"""As many timelines are drawn; those with misses and false alarms go first."""
DPI: Final = 110

# Okabe and Ito's colours, which colour-blind people tell apart.
_TRUE: Final = "#404040"
_FOUND: Final = "#0072b2"
_WRONG: Final = "#d55e00"
_UNCLEAR: Final = "#bbbbbb"
_UNSURE: Final = "#888888"
_VERDICTS: Final = {"hit": _FOUND, "false_alarm": _WRONG, "unclear": _UNSURE}

_WIDTH_IN: Final = 11.0
_ROW_IN: Final = 0.34
_MARGIN_IN: Final = 0.75
_BARS_IN: Final = 0.3


def draw(report: Report, path: Path) -> None:
    """Write the picture as PNG.

    Raises:
        OSError: the file cannot be written.
    """
    drawn, n_left = recordings(report)
    bars_in = 0.9 + _BARS_IN * len(report.labels)
    heights_in = [_MARGIN_IN + _ROW_IN * len(rows) for rows in drawn]
    figure = Figure(figsize=(_WIDTH_IN, bars_in + 0.7 + sum(heights_in)), layout="constrained")
    halves = figure.add_gridspec(2, 1, height_ratios=[bars_in, 0.7 + sum(heights_in)])
    top, below = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
    _bars([top.add_subplot(1, 3, i) for i in (1, 2, 3)], report)
    left_out = f"; {n_left} more recordings are not shown" if n_left else ""
    below.suptitle(f"Truth above, events below, in seconds{left_out}", fontsize=10)
    grid = below.add_gridspec(len(drawn), 1, height_ratios=heights_in)
    for i, rows in enumerate(drawn):
        _timeline(below.add_subplot(grid[i]), rows)
    meanings = (
        ("it happens", _TRUE),
        ("event: hit", _FOUND),
        ("missed, or false alarm", _WRONG),
        ("unclear", _UNCLEAR),
        ("event: unclear", _UNSURE),
    )
    handles = [Patch(color=color, label=text) for text, color in meanings]
    below.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


def recordings(report: Report) -> tuple[list[list[Timeline]], int]:
    """The timelines that are drawn, by recording, and how many recordings are left out.

    Where nothing happens and nothing is said there is nothing to see.
    """
    by_file: dict[str, list[Timeline]] = {}
    for one in report.timelines:
        if one.truths or one.events:
            by_file.setdefault(one.file, []).append(one)
    worst = sorted(by_file, key=lambda file: _weight(by_file[file]), reverse=True)
    shown = set(worst[:MAX_RECORDINGS])
    drawn = [rows for file, rows in by_file.items() if file in shown]
    return drawn or [list(report.timelines[:1])], len(by_file) - len(shown)


def _weight(rows: Sequence[Timeline]) -> tuple[int, int, int]:
    """How much there is to see: what went wrong first, then labels, then all that is drawn."""
    n_drawn = sum(len(one.truths) + len(one.events) for one in rows)
    return sum(map(_n_wrong, rows)), len(rows), n_drawn


def _n_wrong(one: Timeline) -> int:
    n_missed = sum(not truth.found for truth in one.truths)
    return n_missed + sum(event.verdict == "false_alarm" for event in one.events)


def _bars(axes: Sequence[Axes], report: Report) -> None:
    names = [one.label for one in report.labels]
    columns: tuple[tuple[str, str, list[float | None], str], ...] = (
        ("precision", _FOUND, [one.precision for one in report.labels], ".2f"),
        ("recall", _FOUND, [one.recall for one in report.labels], ".2f"),
        ("false alarms per hour", _WRONG, [o.false_alarms_per_hour for o in report.labels], ".1f"),
    )
    for axis, (title, color, values, shown) in zip(axes, columns, strict=True):
        lengths = [value or 0.0 for value in values]
        bars = axis.barh(names, lengths, color=color, height=0.6)
        texts = ["-" if value is None else format(value, shown) for value in values]
        axis.bar_label(bars, texts, padding=3, fontsize=8)
        axis.set_title(title, fontsize=10)
        axis.set_xlim(0, 1.15 if shown == ".2f" else max(1.0, *lengths) * 1.2)
        axis.tick_params(labelsize=8, labelleft=axis is axes[0])
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)


def _timeline(axis: Axes, rows: Sequence[Timeline]) -> None:
    for y, row in enumerate(rows):
        for unclear in row.unclear:
            _bar(axis, y - 0.4, 0.8, (unclear.start_s, unclear.end_s), _UNCLEAR, alpha=0.4)
        for truth in row.truths:
            color = _TRUE if truth.found else _WRONG
            _bar(axis, y - 0.36, 0.34, (truth.start_s, truth.end_s), color)
        for event in row.events:
            color = _VERDICTS[event.verdict]
            _bar(axis, y + 0.02, 0.34, (event.start_s, event.end_s), color)
    longest_s = max(row.duration_s for row in rows)
    axis.set_title(f"{rows[0].file} ({longest_s:.1f} s)", fontsize=8, loc="left")
    axis.set_yticks(range(len(rows)), [row.label for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlim(0, longest_s)
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)


def _bar(
    axis: Axes,
    y: float,
    height: float,
    span_s: tuple[float, float],
    color: str,
    *,
    alpha: float = 1.0,
) -> None:
    """One span; a very short one still shows, by its edge."""
    start_s, end_s = span_s
    axis.broken_barh(
        [(start_s, end_s - start_s)],
        (y, height),
        facecolor=color,
        edgecolor=color,
        linewidth=0.8,
        alpha=alpha,
    )
