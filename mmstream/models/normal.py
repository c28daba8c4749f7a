"""What is normal for one source: a few embeddings that stand for all that it has been like.

After PatchCore (Roth et al. 2022, "Towards total recall in industrial anomaly detection", section
3.2): what is kept is a coreset, chosen greedily so that nothing seen is far from it (k-centre), and
how unusual a window is follows from its distance to the nearest that is kept.

How far is far follows from what was learned itself: the time is divided into blocks, and windows of
each are laid beside the others, without the blocks next to it, since neighbours in time are alike.
Of a stream nobody knows how long it will be: when there are too many blocks, two become one, so
that memory stays the same however long it is.

    |.......|...x...|.......|.......|.......|    each: a coreset, and some windows drawn from it
                             ^^^^^^^ ^^^^^^^     what those are laid beside
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import Field

from mmstream.config import Settings
from mmstream.errors import ScorerError
from mmstream.media import Floats
from mmstream.models import embedding_files
from mmstream.models.embedding_files import SUFFIX, EmbeddingFolder

MOST_KEPT: Final = 256
"""Embeddings of a source, at most."""
FEWEST_LEARNED: Final = 24
"""With fewer, nothing says how much a source varies; 8 s at the usual hop and window."""

_N_BLOCK: Final = 8
"""Embeddings in a block at the beginning; twice as many each time that blocks are joined."""
_MOST_BLOCKS: Final = 8
_KEPT_OF_BLOCK: Final = 64
_DRAWN_OF_BLOCK: Final = 64
_USUAL: Final = 0.99
"""Share of what was learned that, left out, lies below the threshold."""
_MARGIN: Final = 1.25
"""What lies beyond that share by less is usual, too: nobody has seen all that is."""
_LEAST_THRESHOLD: Final = 0.02
"""A made-up picture that never changes has no distances at all."""
_STEEP: Final = 4
"""At twice the threshold the score is 0.94, at half of it 0.06."""
_EMBEDDINGS: Final = "embeddings"


class NormalSettings(Settings):
    """What is known of what is normal."""

    version: Literal[1] = 1
    source: str = Field(min_length=1)
    """Whose it is."""
    model: str = Field(min_length=1)
    """The id of the checkpoint that made the embeddings; for any other they mean nothing."""
    threshold: float = Field(gt=0, le=4)
    """The distance from which on it is unusual."""
    n_learned: int = Field(ge=1)
    """How many embeddings it was learned from."""
    made: str
    """When, in UTC, ISO 8601."""


@dataclass(frozen=True, slots=True, eq=False)
class Normal:
    """What is normal for a source."""

    about: NormalSettings
    embeddings: Floats
    """[n, d], unit vectors."""

    def distance(self, embedding: Floats) -> float:
        """From a unit embedding [d] to the nearest that is kept, 0..2."""
        return float(_distances(embedding[None], self.embeddings)[0])

    def score(self, embedding: Floats) -> float:
        """How unusual a unit embedding [d] is, 0..1; 0.5 at the threshold."""
        far = (self.distance(embedding) / self.about.threshold) ** _STEEP
        return far / (1 + far)


@dataclass(slots=True, eq=False)
class _Block:
    """A stretch of what was learned."""

    kept: Floats
    """[k, d]: stands for all of it."""
    drawn: Floats
    """[m, d]: some of it, each as likely as any other."""
    n_seen: int

    def joined(self, other: "_Block", rng: np.random.Generator) -> "_Block":
        """The same of both."""
        drawn = np.concatenate((self.drawn, other.drawn))
        if len(drawn) > _DRAWN_OF_BLOCK:
            drawn = drawn[np.sort(rng.choice(len(drawn), _DRAWN_OF_BLOCK, replace=False))]
        kept = coreset(np.concatenate((self.kept, other.kept)), _KEPT_OF_BLOCK)
        return _Block(kept, drawn, self.n_seen + other.n_seen)


@dataclass(slots=True)
class NormalLearner:
    """Takes embeddings of a source in the order of time; bounded memory, however many there are."""

    n_learned: int = 0
    _n_dims: int | None = None
    _waiting: list[Floats] = field(default_factory=list)
    _blocks: list[_Block] = field(default_factory=list)
    _n_block: int = _N_BLOCK
    _rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def add(self, embedding: Floats) -> None:
        """Take a unit embedding [d].

        Raises:
            ScorerError: it is of another length than those before, or not finite.
        """
        if embedding.ndim != 1 or len(embedding) != (self._n_dims or len(embedding)):
            msg = f"embeddings are [d], all alike: got {embedding.shape}"
            raise ScorerError(msg)
        if not np.isfinite(embedding).all():
            msg = "embeddings are finite: got one that is not"
            raise ScorerError(msg)
        self._n_dims = len(embedding)
        self.n_learned += 1
        self._waiting.append(np.array(embedding, np.float32))
        if len(self._waiting) == _N_BLOCK:
            values = np.stack(self._waiting)
            self._take(_Block(values, values, len(values)))
            self._waiting.clear()

    def result(self, source: str, *, model: str, made: str) -> Normal:
        """What is normal.

        Raises:
            ScorerError: it was too little to know.
        """
        threshold = self._threshold()
        if self.n_learned < FEWEST_LEARNED or threshold is None:
            msg = (
                f"{source}: {self.n_learned} windows are too few to know what is normal; "
                f"allowed: {FEWEST_LEARNED} and more"
            )
            raise ScorerError(msg)
        kept = [*(block.kept for block in self._blocks), *(one[None] for one in self._waiting)]
        about = NormalSettings(
            source=source,
            model=model,
            threshold=threshold,
            n_learned=self.n_learned,
            made=made,
        )
        return Normal(about, coreset(np.concatenate(kept), MOST_KEPT))

    def _take(self, fresh: _Block) -> None:
        """Another 8: into the last block while it is not as long as the others, or a new one."""
        if self._blocks and self._blocks[-1].n_seen < self._n_block:
            self._blocks[-1] = self._blocks[-1].joined(fresh, self._rng)
            return
        if len(self._blocks) == _MOST_BLOCKS:
            pairs = zip(self._blocks[::2], self._blocks[1::2], strict=True)
            self._blocks = [one.joined(two, self._rng) for one, two in pairs]
            self._n_block *= 2
        self._blocks.append(fresh)

    def _threshold(self) -> float | None:
        """None: there are no windows that could be laid beside others."""
        far = []
        for i, block in enumerate(self._blocks):
            others = [one.kept for j, one in enumerate(self._blocks) if abs(i - j) > 1]
            if others:
                far.append(_distances(block.drawn, np.concatenate(others)))
        if not far:
            return None
        usual = float(np.quantile(np.concatenate(far), _USUAL))
        return max(_LEAST_THRESHOLD, _MARGIN * usual)


def coreset(values: Floats, n_most: int) -> Floats:
    """At most so many of `values` [n, d], so that none is far from one of them.

    The greedy k-centre of Gonzalez 1985: the first, then always the one that is farthest from
    those chosen; no choice is better by more than a factor of 2.
    """
    if len(values) <= n_most:
        return values
    chosen = [0]
    nearest = _distances_to(values, values[0])
    while len(chosen) < n_most:
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, _distances_to(values, values[chosen[-1]]))
    best: Floats = values[np.sort(chosen)]
    return best


def path_of(folder: Path, source: str) -> Path:
    """Where what is normal for a source is kept."""
    return folder / f"{source}{SUFFIX}"


def save(folder: Path, normal: Normal) -> Path:
    """Write it, whole or not at all; gives where.

    Raises:
        ScorerError: it cannot be written.
    """
    path = path_of(folder, normal.about.source)
    embedding_files.write(path, {_EMBEDDINGS: normal.embeddings}, normal.about)
    return path


def read(path: Path, *, model: str | None, n_dims: int | None = None) -> Normal:
    """What `save` wrote, if the checkpoint with the id `model` made it; None: whichever did.

    `n_dims`: how many numbers its embeddings have; None: nobody knows.

    Raises:
        ScorerError: it cannot be read, is something else, or of another model.
    """
    file = embedding_files.read(path, NormalSettings)
    about = file.about
    if path.name != f"{about.source}{SUFFIX}":
        msg = f"{path}: holds {about.source!r}, which belongs into {about.source}{SUFFIX}"
        raise ScorerError(msg)
    if model is not None and about.model != model:
        msg = f"{path}: what is normal for {about.source} was learned with the model "
        msg += f"{about.model}, not with {model}: learn it again"
        raise ScorerError(msg)
    return Normal(about, file.array(_EMBEDDINGS, 2, n_dims))


def normal_in(
    folder: Path | None, *, model: str, n_dims: int | None = None
) -> EmbeddingFolder[Normal]:
    """What the checkpoint with this id has learned, live; `problems` has what cannot be used."""
    return EmbeddingFolder(folder, partial(read, model=model, n_dims=n_dims))


def by_source(normals: Sequence[Normal]) -> Mapping[str, Normal]:
    """The same by whose it is."""
    return {one.about.source: one for one in normals}


def _distances(values: Floats, kept: Floats) -> Floats:
    """[n]: how far each of `values` [n, d] is from the nearest of `kept` [k, d]; unit vectors."""
    alike = (values @ kept.T).max(axis=1)
    return np.asarray(np.sqrt(np.maximum(0, 2 - 2 * alike)), np.float32)


def _distances_to(values: Floats, one: Floats) -> Floats:
    return np.asarray(np.linalg.norm(values - one, axis=1), np.float32)
