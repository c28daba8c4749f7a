"""How fast to learn, and when to stop."""

import math
from typing import Literal

from pydantic import Field

from mmstream.config import Settings


class FitSettings(Settings):
    """AdamW (Loshchilov and Hutter 2019), warmed up, then along a cosine to 0."""

    n_epochs: int = Field(default=20, ge=1)
    """Passes over the training examples, at most."""
    n_batch: int = Field(default=64, ge=1)
    """Examples in a step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """At its highest."""
    warm_up: float = Field(default=0.05, ge=0, lt=1)
    """Share of all steps in which it rises to that."""
    weight_decay: float = Field(default=0.05, ge=0)
    """Of matrices and filters; norms and biases have none."""
    clip: float = Field(default=1.0, gt=0)
    """The longest that the gradient of all weights together may be."""


class OptimiseSettings(FitSettings):
    """As above, and when it is over before its time."""

    watch: Literal["loss", "accuracy"] = "loss"
    """What of the validation split says which epoch is best; accuracy: the mean of the tasks'."""
    patience: int = Field(default=5, ge=1)
    """Epochs in a row without a better one after which it stops."""


class Best(Settings):
    """The best epoch so far."""

    epoch: int = Field(ge=0)
    loss: float
    """Cross-entropy on the validation split, in nats."""
    accuracy: float = Field(ge=0, le=1)


def learning_rate(settings: FitSettings, *, step: int, n_steps: int) -> float:
    """Of the step with that number, from 0, of a training of `n_steps`."""
    n_warm_up = math.ceil(settings.warm_up * n_steps)
    if step < n_warm_up:
        return settings.learning_rate * (step + 1) / n_warm_up
    done = (step - n_warm_up) / max(1, n_steps - n_warm_up)
    return settings.learning_rate * (1 + math.cos(math.pi * done)) / 2


def better(settings: OptimiseSettings, now: Best, before: Best | None) -> bool:
    """Whether `now` is the best so far; of equals the first stays."""
    if before is None:
        return True
    if settings.watch == "loss":
        return now.loss < before.loss
    return now.accuracy > before.accuracy


def is_over(settings: OptimiseSettings, best: Best | None, *, epoch: int) -> bool:
    """Whether `epoch` must not begin any more."""
    if epoch >= settings.n_epochs:
        return True
    return best is not None and epoch - best.epoch > settings.patience
