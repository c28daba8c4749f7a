"""Real noise, mixed with the samples of an example before any feature is taken of them.

The ratio is that of mean powers over the samples of the example that were heard: for a word that
was cut from a clip those of the word alone, without the silence around it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mmstream.config import Settings
from mmstream.errors import ConfigError
from mmstream.media import Floats
from mmstream.training.dataset import Example, ExampleDataset, Item
from mmstream.training.manifest import ManifestSettings, Split, read_manifest
from mmstream.training.recordings import PieceSettings, SoundSettings
from mmstream.training.shards import build_shards, key_of

_PURPOSE: Final = 1
"""Sets what is drawn here apart from what else is drawn by the same seed."""
_N_TRIED: Final = 8
_LEAST_POWER: Final = 0.5
"""A stretch has so much of its recording's power; many recordings are mostly silent."""
_SAMPLES: Final = PieceSettings(sound=SoundSettings())


class NoiseSettings(Settings):
    """Which noise, and how loud."""

    recordings: ManifestSettings
    """A manifest whose `split` says what each recording may be mixed with; that none is in two is
    checked as for examples."""
    snr_db: tuple[float, float] = (-10.0, 20.0)
    """Least and most, in training and validation: power of the example to that of the noise."""
    clean: float = Field(default=0.1, ge=0, le=1)
    """Share of the training and validation examples that get no noise."""

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.snr_db[0] > self.snr_db[1]:
            msg = f"snr_db is least, most: got {self.snr_db[0]:g}, {self.snr_db[1]:g}"
            raise ValueError(msg)
        return self


def read_noise(
    settings: NoiseSettings,
    folder: Path,
    told: Callable[[int, int], None] = lambda _done, _all: None,
) -> Mapping[Split, ExampleDataset]:
    """The recordings of each split, decoded into the shards of `folder` unless they are there.

    Raises:
        ConfigError: the manifest is wrong, a recording is silent, or a split has none.
        SourceError: a recording cannot be read.
    """
    manifest = settings.recordings.model_copy(update={"needs": frozenset({"audio"})})
    entries = read_manifest(manifest)
    shards = build_shards(folder, entries, _SAMPLES, told)
    silent = [entry for entry in entries if not shards[key_of(entry, _SAMPLES)].sound.any()]
    if silent:
        lines = [f"{manifest.path}:{one.line}: path: {one.path} is silent there" for one in silent]
        raise ConfigError("\n".join(lines))
    items: dict[Split, list[Item]] = {"train": [], "val": [], "test": []}
    for entry in entries:
        items[entry.annotation.split].append(Item(key_of(entry, _SAMPLES), entry.annotation))
    empty = [split for split, here in items.items() if not here]
    if empty:
        msg = f"{manifest.path}: noise needs recordings of every split: got none of {empty[0]}"
        raise ConfigError(msg)
    return {split: ExampleDataset(here, shards) for split, here in items.items()}


class Noise:
    """Mixes noise with examples: the same example, seed and epoch get the same noise."""

    def __init__(
        self,
        recordings: ExampleDataset,
        *,
        snr_db: tuple[float, float],
        clean: float,
        seed: int,
        epoch: int = 0,
    ) -> None:
        """Draw from `recordings`; what it means says `NoiseSettings`.

        For a test: both ends of `snr_db` the same and `clean` 0. An example then has the same
        stretch of the same recording at every ratio.
        """
        self._recordings = recordings
        self._snr_db = snr_db
        self._clean = clean
        self._seed = (_PURPOSE, seed, epoch)

    def __call__(self, example: Example) -> Example:
        """The example with noise; one without sound as it is.

        Raises:
            ConfigError: its sound is kept as log-mel energies.
        """
        if not len(example.sound):
            return example
        if example.sound.ndim != 1:
            msg = "noise: is mixed with samples, and this data keeps log-mel energies"
            raise ConfigError(msg)
        rng = np.random.default_rng((*self._seed, example.index))
        is_clean = rng.random() < self._clean
        snr_db = rng.uniform(*self._snr_db)
        if is_clean:
            return example
        recording = self._recordings[int(rng.integers(len(self._recordings)))].sound
        noise = _stretch(recording, len(example.sound), rng)
        return replace(example, sound=mixed(example.sound, noise, example.heard, snr_db=snr_db))


def mixed(sound: Floats, noise: Floats, heard: NDArray[np.bool_], *, snr_db: float) -> Floats:
    """[n]: `sound` and, so much less loud where it was `heard`, `noise`.

    As it is where one of the two is silent: no ratio is true then.
    """
    energies = [float(np.sum(one[heard].astype(np.float64) ** 2)) for one in (sound, noise)]
    if min(energies) == 0:
        return sound
    gain = np.sqrt(energies[0] / energies[1] / 10 ** (snr_db / 10))
    return sound + np.float32(gain) * noise


def _stretch(recording: Floats, n: int, rng: np.random.Generator) -> Floats:
    """[n] from somewhere in it, repeated if it is shorter, not from where it is silent."""
    if len(recording) < n:
        recording = np.tile(recording, -(-n // len(recording)))
    enough = _LEAST_POWER * float(np.mean(recording**2))
    loudest, most = recording[:n], -1.0
    for start in rng.integers(len(recording) - n + 1, size=_N_TRIED).tolist():
        tried = recording[start : start + n]
        power = float(np.mean(tried**2))
        if power >= enough:
            return tried
        if power > most:
            loudest, most = tried, power
    if most > 0:
        return loudest
    start = int(np.abs(recording).argmax()) - n // 2
    start = min(max(0, start), len(recording) - n)
    return recording[start : start + n]
