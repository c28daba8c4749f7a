"""A training as pictures: curves, confusion matrices, the table.

Drawn by matplotlib's Agg backend without pyplot: no window, no state of its own. Written without
date or version, so that the same figures give the same bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from typing import Final

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmstream.media import Modality
from mmstream.training.history import EpochRecord, ModalityRecord
from mmstream.training.predictions import Predictions
from mmstream.training.results import AS_IT_IS, TableResult

DPI: Final = 110

# Okabe and Ito's colours, which colour-blind people tell apart.
_TRAIN: Final = "#0072b2"
_VAL: Final = "#d55e00"
_TASKS: Final = ("#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_MODALITIES: Final[Mapping[Modality, str]] = {
    "audio": "#0072b2",
    "video": "#e69f00",
    "text": "#009e73",
}
_BEST: Final = "#888888"
_DARK: Final = 0.35
_DARKER: Final = 0.6
"""Shares from which white text is read better, on a scale by the square root and on a plain one."""
_MOST_NUMBERED: Final = 30
"""Classes, at most, whose confusion has its counts written into it."""


@rc_context({"text.parse_math": False})
def curves(history: Sequence[EpochRecord], best_epoch: int, title: str) -> bytes:
    """What was measured after each epoch, as PNG; `best_epoch`, from 0, is marked."""
    has_modalities = any(len(one.modalities) > 1 for one in history)
    figure = Figure(figsize=(11.0, 6.0 if has_modalities else 3.2), layout="constrained")
    figure.suptitle(title, fontsize=11)
    n_rows = 2 if has_modalities else 1
    axes = [figure.add_subplot(n_rows, 3, i + 1) for i in range(3 * n_rows)]
    _losses(axes[0], history)
    _accuracies(axes[1], history)
    _line(axes[2], history, "", _TRAIN, lambda one: one.learning_rate)
    _dress(axes[2], "learning rate")
    axes[2].ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    if has_modalities:
        _by_modality(axes[3], history, "loss of its own head (nats)", lambda one: one.loss)
        _by_modality(axes[4], history, "share of the gradient", lambda one: one.gradient_share)
        axes[4].set_ylim(0, 1.02)
        _by_modality(axes[5], history, "balancing coefficient", lambda one: one.coefficient)
        axes[5].set_ylim(0, None)
    for axis in axes:
        axis.axvline(best_epoch + 1, color=_BEST, linewidth=1, linestyle=":", label="best epoch")
    axes[0].legend(fontsize=8, frameon=False)
    return _png(figure)


@rc_context({"text.parse_math": False})
def confusion(predictions: Predictions, title: str) -> bytes:
    """Which class was taken for which, as PNG: shares of each true class, with the counts.

    Colours go by the square root, so that rare mistakes are seen.
    """
    counts, classes = predictions.confusion, predictions.classes
    n = len(classes)
    side_in = min(11.0, 2.2 + 0.36 * n)
    figure = Figure(figsize=(side_in + 0.8, side_in), layout="constrained")
    axis = figure.add_subplot()
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    shown = axis.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    if n <= _MOST_NUMBERED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            axis.text(
                column,
                row,
                str(counts[row, column]),
                ha="center",
                va="center",
                fontsize=7,
                color="white" if shares[row, column] > _DARK else "black",
            )
    axis.set_xticks(range(n), classes, rotation=90 if max(map(len, classes)) > 2 else 0)  # noqa: PLR2004
    axis.set_yticks(range(n), classes)
    axis.tick_params(labelsize=8 if n <= _MOST_NUMBERED else 5)
    axis.set_xlabel("said", fontsize=9)
    axis.set_ylabel("true", fontsize=9)
    axis.set_title(title, fontsize=9)
    bar = figure.colorbar(shown, ax=axis, fraction=0.046)
    bar.set_label("share of the true class", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return _png(figure)


@rc_context({"text.parse_math": False})
def accuracies(table: TableResult, task: str) -> bytes:
    """The table of one task, as PNG: each row's accuracy under each condition, in percent."""
    conditions = table.conditions(task)
    rows = [row for row in table.tested if any(row.of(task, name) for name in conditions)]
    found = [[row.of(task, name) for name in conditions] for row in rows]
    figure = Figure(
        figsize=(2.6 + 1.15 * len(conditions), 1.1 + 0.34 * len(rows)), layout="constrained"
    )
    axis = figure.add_subplot()
    shares = [[one.accuracy if one else np.nan for one in row] for row in found]
    axis.imshow(np.array(shares), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(found):
        for x, one in enumerate(row):
            text = f"{100 * one.accuracy:.1f} ± {100 * one.standard_error:.1f}" if one else "-"
            color = "white" if one is not None and one.accuracy > _DARKER else "black"
            axis.text(x, y, text, ha="center", va="center", fontsize=8, color=color)
    axis.set_xticks(range(len(conditions)), conditions)
    axis.set_yticks(range(len(rows)), [row.name for row in rows])
    axis.tick_params(labelsize=8, labeltop=True, labelbottom=False, length=0)
    n = next((one.n for row in rows if (one := row.of(task, AS_IT_IS))), None)
    of = f", {n} examples" if n else ""
    axis.set_title(f"{task}: accuracy in percent ± one standard error{of}", fontsize=9)
    axis.spines[:].set_visible(False)
    return _png(figure)


def _losses(axis: Axes, history: Sequence[EpochRecord]) -> None:
    _line(axis, history, "train", _TRAIN, lambda one: one.loss_train)
    _line(axis, history, "val", _VAL, lambda one: one.loss_val)
    _dress(axis, "loss (nats)")


def _accuracies(axis: Axes, history: Sequence[EpochRecord]) -> None:
    tasks = dict.fromkeys(task for one in history for task in one.accuracy_val)
    for nth, task in enumerate(tasks):
        color = _TASKS[nth % len(_TASKS)]
        _line(axis, history, task, color, partial(_percent, task))
    _dress(axis, "accuracy on val (%)")
    axis.set_ylim(0, 102)
    axis.legend(fontsize=8, frameon=False, loc="lower right")


def _by_modality(
    axis: Axes,
    history: Sequence[EpochRecord],
    title: str,
    measure: Callable[[ModalityRecord], float],
) -> None:
    for name, color in _MODALITIES.items():
        there = [one for one in history if name in one.modalities]
        if there:
            _line(axis, there, name, color, partial(_of_modality, name, measure))
    _dress(axis, title)
    axis.legend(fontsize=8, frameon=False)


def _line(
    axis: Axes,
    history: Sequence[EpochRecord],
    name: str,
    color: str,
    measure: Callable[[EpochRecord], float | None],
) -> None:
    known = [(one.epoch + 1, value) for one in history if (value := measure(one)) is not None]
    epochs, values = [epoch for epoch, _ in known], [value for _, value in known]
    # A single epoch makes no line: it needs a mark.
    axis.plot(epochs, values, color=color, label=name, linewidth=1.4, marker="o", markersize=2.5)


def _percent(task: str, one: EpochRecord) -> float | None:
    share = one.accuracy_val.get(task)
    return None if share is None else 100 * share


def _of_modality(
    name: Modality, measure: Callable[[ModalityRecord], float], one: EpochRecord
) -> float:
    return measure(one.modalities[name])


def _dress(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("epoch", fontsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _png(figure: Figure) -> bytes:
    out = BytesIO()
    figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return out.getvalue()
