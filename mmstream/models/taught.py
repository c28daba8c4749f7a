"""What people teach with a few clips: prototypes on the gists of a model that stays as it is.

After Snell et al. 2017 ("Prototypical networks for few-shot learning"): a class is the mean of its
examples, and what is near to that is of the class. A gist has a half for each sense
(`mmstream.models.avp_moments`), and nearness is the mean of the cosines of the halves that both
have: what was taught with sound alone is told where there are pictures, too. Where near ends
follows from the clips: between how near each is to the mean of the others, and how near ordinary
windows and what else was taught are.

    lesson = teach("bark", clips, background, others=..., model=..., made=...)
    save(folder, lesson.prototype)          a run that looks into the folder takes it up at once
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError, safe_open

from mmstream.config import Settings
from mmstream.errors import ScorerError
from mmstream.media import Floats
from mmstream.messages import slug
from mmstream.models import embedding_files
from mmstream.models.content import WEIGHTS
from mmstream.models.embedding_files import SUFFIX, EmbeddingFolder

FEWEST_CLIPS: Final = 3
"""With fewer, nothing says how much such clips differ."""
MOST_CLIPS: Final = 10

_RANGE_DB: Final = 30.0
"""What is so far below the loudest of a clip is silence beside it."""
_LEAST_RANGE_DB: Final = 6.0
"""What varies by less is steady: no part of it is more the sound than another."""
_ORDINARY: Final = 0.9
"""Share of ordinary windows that must not be taken for what is taught; the rest may be of it."""
_TOP: Final = 0.75
"""A clip is as near as the nearer quarter of what it says: an event needs a part of it only."""
_STEEP: Final = math.log(9)
"""A score at the clips' own nearness is 0.9, at that of ordinary windows 0.1."""
_LEAST_REACH: Final = 0.02
_VECTOR: Final = "prototype"


class TaughtClip(Settings):
    """A clip that something was taught with."""

    name: str = Field(min_length=1)
    """Its file's, without the folder."""
    digest: str = Field(pattern=r"^[0-9a-f]{16}$")
    """Of its bytes: the first 16 hexadecimal digits of their SHA-256."""


class TaughtSettings(Settings):
    """What is known of a prototype."""

    version: Literal[1] = 1
    label: str = Field(pattern=r"^[a-z0-9_]{1,64}$")
    """As events have it, a slug."""
    called: str = Field(min_length=1)
    """As it was said."""
    model: str = Field(min_length=1)
    """The id of the checkpoint that made the gists; for any other they mean nothing."""
    threshold: float = Field(gt=-1, lt=1)
    """The nearness at which it is decided."""
    reach: float = Field(gt=0, le=2)
    """How much nearer the clips are, and how much farther ordinary windows."""
    made: str
    """When, in UTC, ISO 8601."""
    clips: tuple[TaughtClip, ...] = Field(min_length=FEWEST_CLIPS, max_length=MOST_CLIPS)


@dataclass(frozen=True, slots=True, eq=False)
class Prototype:
    """Something that was taught."""

    about: TaughtSettings
    vector: Floats
    """[4d], a gist: each half of length 1, or 0 without that sense."""

    def nearness(self, gists: Floats) -> Floats:
        """Of gists [..., 4d], [...] in -1..1; see `nearness`."""
        return nearness(gists, self.vector)

    def score(self, gist: Floats) -> float:
        """Of a gist [4d]: 0..1, 0.5 at the threshold."""
        beyond = (float(self.nearness(gist)) - self.about.threshold) / self.about.reach
        return 1 / (1 + math.exp(-_STEEP * beyond))


@dataclass(frozen=True, slots=True, eq=False)
class ClipGists:
    """What a model made of a clip."""

    clip: TaughtClip
    values: Floats
    """[n, 4d]: gists of its windows, n >= 1."""
    weights: Floats
    """[n], 0..1: how much of what the clip is about is in each; not all 0."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What came of teaching."""

    prototype: Prototype
    nearness: tuple[float, ...]
    """Of each clip, to the mean of the others."""
    ordinary: float
    """The nearness that 90 % of ordinary windows stay below."""
    rival: str | None
    """What else was taught and is nearer than that."""

    @property
    def doubtful(self) -> tuple[TaughtClip, ...]:
        """Clips that would not be recognised if they had not been taught."""
        about = self.prototype.about
        pairs = zip(about.clips, self.nearness, strict=True)
        return tuple(clip for clip, near in pairs if near < about.threshold)


def teach(
    label: str,
    clips: Sequence[ClipGists],
    background: Floats,
    *,
    others: Sequence[Prototype],
    model: str,
    made: str,
) -> Lesson:
    """A prototype from 3 to 10 clips.

    Args:
        label: what it is to be called.
        clips: of the same model.
        background: [n, 4d], gists of ordinary windows; those that share no sense with the clips
            are passed over.
        others: what else was taught; what has the same label is passed over.
        model: the id of the checkpoint.
        made: when, in UTC, ISO 8601.

    Raises:
        ScorerError: too few or too many clips, nothing of the label is left in a slug, or the
            clips are no nearer to each other than ordinary windows are, or share no sense with
            any of these; the text has the figures.
    """
    if not FEWEST_CLIPS <= len(clips) <= MOST_CLIPS:
        msg = f"something is taught with {FEWEST_CLIPS} to {MOST_CLIPS} clips: got {len(clips)}"
        raise ScorerError(msg)
    means = np.stack([clip_gist(clip) for clip in clips])
    vector = _unit_halves(means.mean(axis=0))
    near = tuple(
        _clip_nearness(clip, _unit_halves(np.delete(means, i, axis=0).mean(axis=0)))
        for i, clip in enumerate(clips)
    )
    name = slug(label)
    ordinary = _ordinary(name, background, vector)
    rivals = {one.about.label: float(one.nearness(vector)) for one in others}
    rivals.pop(name, None)
    rival = max(rivals, key=lambda one: rivals[one], default=None)
    if rival is not None and rivals[rival] <= ordinary:
        rival = None
    far = ordinary if rival is None else rivals[rival]
    typical = float(np.median(near))
    if typical - far < 2 * _LEAST_REACH:
        msg = _no_difference(name, near, ordinary=ordinary, rival=rival, far=far)
        raise ScorerError(msg)
    about = TaughtSettings(
        label=name,
        called=label,
        model=model,
        threshold=(typical + far) / 2,
        reach=(typical - far) / 2,
        made=made,
        clips=tuple(clip.clip for clip in clips),
    )
    return Lesson(Prototype(about, vector), near, ordinary, rival)


def nearness(gists: Floats, vector: Floats) -> Floats:
    """Of gists [..., 4d] to one [4d]: the mean cosine of the halves that both have, [...].

    In -1..1; -1 where they share none.
    """
    n_shared = _shared(gists, vector).sum(axis=-1)
    return np.asarray(np.where(n_shared, gists @ vector / np.maximum(n_shared, 1), -1), np.float32)


def clip_gist(clip: ClipGists) -> Floats:
    """[4d], each half of length 1, or 0: the mean of its windows, each by its weight."""
    return _unit_halves(np.average(clip.values, axis=0, weights=clip.weights))


def standing_out(levels_db: Floats) -> Floats | None:
    """How far each of a clip's levels [n] stands out of its quiet parts, [n] in 0..1.

    None: it is steady, and no part of it more than another. A clip of 5 s with a bark of 0.5 s in
    silence is about the bark.
    """
    loudest = float(np.max(levels_db))
    quiet = max(float(np.quantile(levels_db, 0.1)), loudest - _RANGE_DB)
    if loudest - quiet < _LEAST_RANGE_DB:
        return None
    return np.asarray(np.clip((levels_db - quiet) / (loudest - quiet), 0, 1), np.float32)


def weights_of(levels_db: Sequence[Floats], *, n_window: int) -> Floats:
    """How much of what a clip is about is in each of its windows, [n] in 0..1.

    Where nothing varies, as much in each.

    Args:
        levels_db: of each sense, [n]: how loud each hop is, or how much its pictures change.
        n_window: hops in a window.
    """
    varying = [found for one in levels_db if (found := standing_out(one)) is not None]
    if not varying:
        return np.ones(len(levels_db[0]), np.float32)
    active = np.max(varying, axis=0)
    summed = np.convolve(active, np.ones(n_window))[: len(active)]
    return np.asarray(summed / min(n_window, len(active)), np.float32)


def background_in(folder: Path) -> Floats:
    """[n, 4d]: the gists of ordinary windows that a checkpoint keeps; see `avp.Avp`.

    Raises:
        ScorerError: it cannot be read, or has none.
    """
    path = folder / WEIGHTS
    try:
        with safe_open(path, framework="numpy") as file:
            found = np.asarray(file.get_tensor("background"), np.float32)
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror or error}"
        raise ScorerError(msg) from None
    except (SafetensorError, KeyError, TypeError) as error:
        msg = f"{path}: has no background of ordinary windows: {error}"
        raise ScorerError(msg) from None
    return found


def path_of(folder: Path, label: str) -> Path:
    """Where a label is kept.

    Raises:
        ValueError: nothing of it is left in a slug.
    """
    return folder / f"{slug(label)}{SUFFIX}"


def save(folder: Path, prototype: Prototype) -> Path:
    """Write it, whole or not at all; gives where.

    Raises:
        ScorerError: it cannot be written.
    """
    path = path_of(folder, prototype.about.label)
    embedding_files.write(path, {_VECTOR: prototype.vector}, prototype.about)
    return path


def read(path: Path, *, model: str | None, n_dims: int | None = None) -> Prototype:
    """What `save` wrote, if the checkpoint with the id `model` made it; None: whichever did.

    `n_dims`: how many numbers its gists have; None: nobody knows.

    Raises:
        ScorerError: it cannot be read, is something else, or of another model.
    """
    file = embedding_files.read(path, TaughtSettings)
    about = file.about
    if path.name != f"{about.label}{SUFFIX}":
        msg = f"{path}: holds {about.label!r}, which belongs into {about.label}{SUFFIX}"
        raise ScorerError(msg)
    if model is not None and about.model != model:
        msg = f"{path}: {about.label} was taught to the model {about.model}, not to {model}: "
        raise ScorerError(msg + "teach it again")
    return Prototype(about, file.array(_VECTOR, 1, n_dims))


def taught_in(
    folder: Path | None, *, model: str, n_dims: int | None = None
) -> EmbeddingFolder[Prototype]:
    """What was taught to the checkpoint with this id, live; `problems` has what cannot be used."""
    return EmbeddingFolder(folder, partial(read, model=model, n_dims=n_dims))


def _ordinary(name: str, background: Floats, vector: Floats) -> float:
    """The nearness that 90 % of those windows stay below that share a sense with `vector`.

    Raises:
        ScorerError: none does.
    """
    comparable = background[_shared(background, vector).any(axis=-1)]
    if not len(comparable):
        msg = (
            f"{name}: the clips have {_senses(vector)}, and what is ordinary for the model has "
            f"{_senses(background)}; allowed: clips with that"
        )
        raise ScorerError(msg)
    return float(np.quantile(nearness(comparable, vector), _ORDINARY))


def _senses(gists: Floats) -> str:
    """What some of them, [4d] or [n, 4d], have."""
    has = np.asarray(_halves(np.atleast_2d(gists)).any(axis=(0, 2)), np.bool_)
    named = [name for name, one in zip(("sound", "pictures"), has, strict=True) if one]
    return " and ".join(named) or "neither sound nor pictures"


def _clip_nearness(clip: ClipGists, vector: Floats) -> float:
    """How near the nearer quarter of a clip is: of its windows, each by its weight."""
    near = nearness(clip.values, vector)
    order = np.argsort(near)
    below = np.cumsum(clip.weights[order], dtype=np.float64)
    place = int(np.searchsorted(below, _TOP * below[-1]))
    return float(near[order[min(place, len(order) - 1)]])


def _no_difference(
    name: str, near: tuple[float, ...], *, ordinary: float, rival: str | None, far: float
) -> str:
    told = ", ".join(f"{one:.2f}" for one in near)
    whose = f"that of {rival}, which is taught already," if rival else "that of what is ordinary"
    return (
        f"{name}: the clips do not stand out: the nearness of each to the others is {told} "
        f"(1 is the same), {whose} {far if rival else ordinary:.2f}; "
        "allowed: clips that are more alike, or with less besides"
    )


def _shared(gists: Floats, vector: Floats) -> NDArray[np.bool_]:
    """Of gists [..., 4d] and one [4d]: which halves both have, [..., 2]."""
    return np.asarray(_halves(gists).any(axis=-1) & _halves(vector).any(axis=-1), np.bool_)


def _halves(gists: Floats) -> Floats:
    """[..., 4d] -> [..., 2, 2d]: of sound, of pictures."""
    return gists.reshape(*gists.shape[:-1], 2, gists.shape[-1] // 2)


def _unit_halves(gist: Floats) -> Floats:
    """[4d], with each half of length 1; 0 stays."""
    halves = _halves(gist)
    length = np.linalg.norm(halves, axis=-1, keepdims=True)
    return np.asarray(halves / np.maximum(length, 1e-12), np.float32).reshape(gist.shape)
