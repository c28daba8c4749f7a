"""Examples to train on: what was kept of a span, and what is known of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from mmstream.media import NS_PER_SEC, Bytes, Floats
from mmstream.training.manifest import Annotation
from mmstream.training.recordings import FULL_SCALE, Piece
from mmstream.training.shards import Shards

UNKNOWN: Final = -100
"""The target where the class is not known: what torch's cross-entropy ignores."""


@dataclass(frozen=True, slots=True)
class Item:
    """Where an example's piece is found, and what is known of it."""

    key: str
    annotation: Annotation


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One example, decoded; a modality that is not there has no rows."""

    index: int
    """Its place in the data set."""
    annotation: Annotation
    sound: Floats
    """[n] samples, nominally -1..1, or [t, n_mels] log-mel energies."""
    heard: NDArray[np.bool_]
    """[n] or [t]: False where sound is missing."""
    pictures: Bytes
    """[t, height, width, 1 or 3]; a read-only view of the shard."""
    at_secs: Floats
    """[t]: when each picture started, from the start of the span."""


class ExampleDataset(Dataset[Example]):
    """Examples in a fixed order, read from shards as they are asked for.

    Shuffled by giving `shuffled(len(data), seed=..., epoch=...)` as the sampler.
    """

    def __init__(self, items: Sequence[Item], shards: Shards) -> None:
        """All of `items` must be in `shards`.

        Raises:
            KeyError: one is not.
        """
        for item in items:
            if item.key not in shards:
                raise KeyError(item.key)
        self.items = tuple(items)
        self._shards = shards

    def only(self, items: Sequence[Item]) -> "ExampleDataset":
        """Some of its examples."""
        return ExampleDataset(items, self._shards)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Example:
        """The example at that place.

        Raises:
            IndexError: there is none.
        """
        item = self.items[index]
        piece = self._shards[item.key]
        return Example(
            index=index,
            annotation=item.annotation,
            sound=_sound(piece),
            heard=_heard(piece),
            pictures=piece.pictures,
            at_secs=(piece.at_ns / NS_PER_SEC).astype(np.float32),
        )


def shuffled(n: int, *, seed: int, epoch: int) -> list[int]:
    """The indices 0..n-1 in the order of that epoch: the same wherever and whenever it is asked."""
    order: list[int] = np.random.default_rng((seed, epoch)).permutation(n).tolist()
    return order


def targets(annotations: Sequence[Annotation], task: str, classes: Sequence[str]) -> torch.Tensor:
    """[n] int64: the place of each one's class in `classes`; `UNKNOWN` where it is not known."""
    places: Mapping[str | None, int] = {name: place for place, name in enumerate(classes)}
    return torch.tensor([places.get(one.class_of(task), UNKNOWN) for one in annotations])


def _sound(piece: Piece) -> Floats:
    sound = piece.sound.astype(np.float32)
    if piece.sound.dtype == np.int16:
        sound /= FULL_SCALE
    return sound


def _heard(piece: Piece) -> NDArray[np.bool_]:
    heard = np.zeros(len(piece.sound), np.bool_)
    for start, end in piece.heard:
        heard[start:end] = True
    return heard
