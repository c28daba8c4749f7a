"""What a model said of a split, beside the truth: accuracy with its error, confusion, comparison.

Every example has exactly one class. Examples whose class is not known are not in it.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from mmstream.config import Settings
from mmstream.errors import ConfigError
from mmstream.media import Floats, Modality
from mmstream.training.shard import writing

N_RESAMPLED: Final = 10_000
"""How often `paired_bootstrap` draws the examples anew."""

_LEAST: Final = 1e-12
"""No probability counts as less: 32 bits round small ones to 0, whose logarithm is infinite."""
_APART: Final = 2**32
"""Between the indices of one data set and of the next, where they are pooled."""


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """One task on one split.

    Raises:
        ValueError: the arrays do not belong together, or there are no examples.
    """

    task: str
    classes: tuple[str, ...]
    """In the order of the probabilities."""
    indices: NDArray[np.int64]
    """[n]: the place of each example in its data set, each once."""
    truth: NDArray[np.int64]
    """[n]: the place of its class in `classes`."""
    probabilities: Floats
    """[n, c] in 0..1, each row sums to 1."""
    modalities: tuple[Modality, ...]
    """In the order of the gates."""
    gates: Floats | None
    """[n, m] in 0..1: how much each modality counted; None: the fusion has no gates."""

    def __post_init__(self) -> None:
        n = len(self.indices)
        if n == 0 or self.indices.shape != (n,) or np.unique(self.indices).size != n:
            msg = f"predictions need examples, each once: got {self.indices.shape=}"
            raise ValueError(msg)
        if self.truth.shape != (n,) or self.probabilities.shape != (n, len(self.classes)):
            msg = (
                f"predictions of {n} examples in {len(self.classes)} classes: "
                f"got {self.truth.shape=} {self.probabilities.shape=}"
            )
            raise ValueError(msg)
        if self.truth.min() < 0 or self.truth.max() >= len(self.classes):
            msg = f"true classes are 0..{len(self.classes) - 1}: got {self.truth.tolist()}"
            raise ValueError(msg)
        if not np.isfinite(self.probabilities).all():
            msg = "probabilities are finite: got NaN or infinities"
            raise ValueError(msg)
        if self.gates is not None and self.gates.shape != (n, len(self.modalities)):
            msg = f"one gate per modality: got {self.gates.shape=} {self.modalities=}"
            raise ValueError(msg)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """[n]: the likeliest class."""
        return np.asarray(self.probabilities.argmax(axis=1), np.int64)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """[n]: whether the likeliest class is the true one."""
        return np.asarray(self.predicted == self.truth)

    @property
    def accuracy(self) -> float:
        """Share that is correct, 0..1."""
        return float(self.correct.mean())

    @property
    def standard_error(self) -> float:
        """Of the accuracy, binomial: 0 where all or none are correct."""
        return float(np.sqrt(self.accuracy * (1 - self.accuracy) / len(self)))

    @property
    def cross_entropy(self) -> float:
        """Mean of -ln p(true class), in nats."""
        chosen = self.probabilities[np.arange(len(self)), self.truth].astype(np.float64)
        return float(-np.log(chosen.clip(min=_LEAST)).mean())

    @property
    def confidence(self) -> float:
        """Mean probability of the likeliest class."""
        return float(self.probabilities.max(axis=1).mean(dtype=np.float64))

    @property
    def mean_gates(self) -> tuple[float, ...]:
        """How much each modality counted on average; empty without gates."""
        means = () if self.gates is None else self.gates.mean(axis=0, dtype=np.float64)
        return tuple(float(mean) for mean in means)

    @property
    def confusion(self) -> NDArray[np.int64]:
        """[c, c]: how many of each true class (row) were said to be of each class (column)."""
        n = len(self.classes)
        counts = np.bincount(self.truth * n + self.predicted, minlength=n * n)
        return np.asarray(counts.reshape(n, n), np.int64)


def pooled(parts: Sequence[Predictions]) -> Predictions:
    """Of several data sets as if they were one, such as the folds of a cross-validation.

    Raises:
        ValueError: they are not of the same task, classes and modalities.
    """
    first = parts[0]
    kinds = {(one.task, one.classes, one.modalities, one.gates is None) for one in parts}
    if len(kinds) > 1:
        msg = f"{first.task}: pooled are predictions of one task, with the same classes"
        raise ValueError(msg)
    gates = [one.gates for one in parts if one.gates is not None]
    indices = [nth * _APART + one.indices for nth, one in enumerate(parts)]
    return Predictions(
        task=first.task,
        classes=first.classes,
        indices=np.concatenate(indices),
        truth=np.concatenate([one.truth for one in parts]),
        probabilities=np.concatenate([one.probabilities for one in parts]),
        modalities=first.modalities,
        gates=np.concatenate(gates) if gates else None,
    )


class Comparison(Settings):
    """Two models on the same examples."""

    difference: float
    """Accuracy of the first minus that of the second, -1..1."""
    low: float
    high: float
    """Between these lies the difference with 95 % confidence."""

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def paired_bootstrap(a: Predictions, b: Predictions, *, seed: int) -> Comparison:
    """How much more accurate `a` is than `b` (Koehn 2004, section 3.2, with percentiles).

    Examples are drawn anew with both models' answers to them. What an example adds to the
    difference is -1, 0 or 1, so how often each was drawn is drawn at once.

    Raises:
        ValueError: they are not about the same examples of the same task.
    """
    order_a, order_b = np.argsort(a.indices), np.argsort(b.indices)
    same = a.task == b.task and np.array_equal(a.indices[order_a], b.indices[order_b])
    if not (same and np.array_equal(a.truth[order_a], b.truth[order_b])):
        msg = f"{a.task} and {b.task}: not the same examples, or not with the same truth"
        raise ValueError(msg)
    each = a.correct[order_a].astype(np.int64) - b.correct[order_b]
    counts = np.bincount(each + 1, minlength=3)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(each), counts / len(each), size=N_RESAMPLED)
    differences = (drawn[:, 2] - drawn[:, 0]) / len(each)
    low, high = np.quantile(differences, (0.025, 0.975))
    return Comparison(difference=float(each.mean()), low=float(low), high=float(high))


def save(path: Path, predictions: Predictions) -> None:
    """Write them as safetensors, beside its place and renamed; several may write the same.

    Raises:
        SinkError: there is no room.
    """
    arrays: dict[str, NDArray[np.generic]] = {
        "indices": predictions.indices,
        "truth": predictions.truth,
        "probabilities": predictions.probabilities,
    }
    if predictions.gates is not None:
        arrays["gates"] = predictions.gates
    about = {
        "task": predictions.task,
        "classes": json.dumps(predictions.classes),
        "modalities": json.dumps(predictions.modalities),
    }
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=path.parent) as folder:
            beside = Path(folder) / path.name
            beside.write_bytes(safetensors.numpy.save(whole, metadata=about))
            beside.replace(path)


def load(path: Path) -> Predictions:
    """What `save` wrote.

    Raises:
        ConfigError: it cannot be read, or is something else.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata()
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        return Predictions(
            task=about["task"],
            classes=tuple(json.loads(about["classes"])),
            indices=arrays["indices"],
            truth=arrays["truth"],
            probabilities=arrays["probabilities"],
            modalities=tuple(json.loads(about["modalities"])),
            gates=arrays.get("gates"),
        )
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror or error}"
        raise ConfigError(msg) from None
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        msg = f"{path}: not the predictions of a training: {error}"
        raise ConfigError(msg) from None
