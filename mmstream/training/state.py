"""Where a training stands, in one safetensors file: nothing is pickled, all of it is of one step.

It is written beside itself and renamed, so that a crash leaves the one before. No generator of
random numbers is in it: what a step draws follows from the seed and the step's number.
"""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import safetensors.torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmstream.config import Settings
from mmstream.errors import ConfigError
from mmstream.media import Modality
from mmstream.training.history import ModalityRecord
from mmstream.training.schedule import Best

_KEY: Final = "position"
_LOCK: Final = ".lock"


class Sums(Settings):
    """Of one modality over the steps of an epoch so far."""

    loss: float = 0.0
    gradient_share: float = 0.0
    coefficient: float = 0.0


class Position(Settings):
    """How far it has come."""

    begun: str
    """A digest of the settings and the data it began with."""
    epoch: int = Field(default=0, ge=0)
    """The one it is in."""
    step: int = Field(default=0, ge=0)
    """Steps done in this epoch."""
    n_steps: int = Field(default=0, ge=0)
    """Steps done in all."""
    loss: float = 0.0
    """The sum over the steps of this epoch."""
    modalities: Mapping[Modality, Sums] = Field(default_factory=dict)
    secs: float = Field(default=0.0, ge=0)
    """What this epoch has taken."""
    best: Best | None = None
    finished: bool = False

    def means(self) -> dict[Modality, ModalityRecord]:
        """Of the steps of this epoch."""
        n = max(1, self.step)
        return {
            modality: ModalityRecord(
                loss=sums.loss / n,
                gradient_share=min(1.0, sums.gradient_share / n),  # rounding may pass 1
                coefficient=sums.coefficient / n,
            )
            for modality, sums in self.modalities.items()
        }


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """All that goes on from."""

    position: Position
    tensors: Mapping[str, Tensor]
    """On the CPU; none where it is finished."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """No other process works in `folder` meanwhile; it is made if it is not there.

    Raises:
        ConfigError: another one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"{folder}: another process works there; wait for it, or take another --out"
            raise ConfigError(msg) from None
        yield


def save(path: Path, state: State) -> None:
    """Write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    about = {_KEY: state.position.model_dump_json()}
    safetensors.torch.save_file(dict(state.tensors), beside, metadata=about)
    beside.replace(path)


def load(path: Path, begun: str, *, only_position: bool = False) -> State:
    """What `save` wrote; the beginning, where nothing is there.

    Raises:
        ConfigError: it is damaged, or of a training that began with something else than `begun`.
    """
    if not path.exists():
        return State(Position(begun=begun), {})
    try:
        with safe_open(path, framework="pt") as file:
            position = Position.model_validate_json(file.metadata()[_KEY])
            names = () if only_position else file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError, KeyError, TypeError, ValidationError):
        msg = f"{path}: not the state of a training; remove {path.parent} to begin anew"
        raise ConfigError(msg) from None
    if position.begun != begun:
        msg = (
            f"{path.parent}: holds a training with other settings or other data; "
            "allowed: another folder, or the settings it began with"
        )
        raise ConfigError(msg)
    return State(position, tensors)


def under(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin with `part.`, without it."""
    prefix = f"{part}."
    return {
        name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)
    }


def drawn(seed: int, number: int) -> int:
    """What torch draws from in the step with that number."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
