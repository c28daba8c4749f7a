"""AV-MNIST rebuilt from real files: a written digit made hard to read, a spoken one hard to hear.

After Vielzeuf et al. 2018 (CentralNet), section 4: MNIST's images keep 4 of their principal
components, and speech is mixed with noises of ESC. Their speech (TIDIGITS) is not free, so:

    images   MNIST; components fitted on the training images only
    words    free-spoken-digit-dataset at its own 8 kHz
    noises   ESC-10; the classes of train, val and test are disjoint

A word lies somewhere in a second of silence and loses 4 spans of 15 % of its length; noise is added
over all of the second. The ratio is that of the second's mean power, before anything was lost, to
that of the noise's whole recording, both within 0-4 kHz; which second of the recording it is, is
left to chance, and it may be a silent one. Every image is paired with a word of its digit, once, by
the seed; the pairing, the spans and the places are the same at every ratio.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from mmstream.codecs import read_audio
from mmstream.errors import ConfigError
from mmstream.features.audio import LogMel
from mmstream.media import Bytes, Floats
from mmstream.training.dataset import ExampleDataset, Item
from mmstream.training.digits import (
    CLASSES,
    LOG_MEL,
    SPLITS,
    DigitSettings,
    Spoken,
    origin,
    spoken,
    written,
)
from mmstream.training.manifest import Annotation, Label, Split
from mmstream.training.recordings import Piece
from mmstream.training.shards import Keyed, hashed, write_shards

TASK: Final = "digit"
N_COMPONENTS: Final = 4
"""Of an image's 784."""
N_LOST: Final = 4
LOST: Final = 0.15
"""How many spans a word loses, and how long each is, of its length. They may overlap."""
NOISES: Final[Mapping[Split, tuple[str, ...]]] = {
    "train": ("dog_bark", "rain", "baby_cry", "helicopter", "person_sneeze"),
    "val": ("sea_waves", "clock_tick"),
    "test": ("chainsaw", "rooster", "fire_crackling"),
}

_VERSION: Final = "avmnist-2"
_N_SAMPLES: Final = LOG_MEL.rate_hz


class AvMnistSettings(DigitSettings):
    """Which AV-MNIST; `data` holds `esc10` too."""

    snr_db: float = 3.0
    """Mean power of the word's second to that of the noise's recording."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """One example, before anything is decoded."""

    key: str
    split: Split
    digit: int
    image: int
    """Its place among the images of its split."""
    word: Spoken
    noise: Path
    seed: tuple[int, int, int]
    """For where the word and the noise begin and what is lost."""


def read_avmnist(settings: AvMnistSettings, folder: Path) -> Mapping[Split, ExampleDataset]:
    """Its three splits, made in the shards of `folder` unless they are there already.

    `sound` is [64, 64] log-mel, `pictures` [1, 28, 28, 1].

    Raises:
        ConfigError: files are missing, more images are wanted than there are, no such speaker.
        SourceError: a recording cannot be read.
    """
    maker = _Maker(settings)
    pairs = maker.pairs()
    make = partial(_make, maker, pairs)
    shards = write_shards(folder, [pair.key for pair in pairs], make)
    items: dict[Split, list[Item]] = {split: [] for split in SPLITS}
    for pair in pairs:
        label = Label(TASK, CLASSES[pair.digit])
        annotation = Annotation(pair.split, (label,), group=pair.word.path.stem)
        items[pair.split].append(Item(pair.key, annotation))
    return {split: ExampleDataset(items[split], shards) for split in SPLITS}


def _make(maker: "_Maker", pairs: list[_Pair], missing: frozenset[str]) -> Iterator[Keyed]:
    for pair in pairs:
        if pair.key in missing:
            yield Keyed(pair.key, maker.piece(pair))


class _Maker:
    """Pairs files and makes pieces of them; what is decoded is kept."""

    def __init__(self, settings: AvMnistSettings) -> None:
        self._settings = settings
        self._written = written(settings)
        self._sounds: dict[Path, Floats] = {}
        self._feature = LogMel(LOG_MEL)

    def pairs(self) -> list[_Pair]:
        """All examples, split by split."""
        settings = self._settings
        words, noises = spoken(settings), _noises(settings.data)
        of = origin(settings.data, ("mnist", "fsdd/recordings", "esc10/audio"))
        sizes = f"{settings.n_train} {settings.n_val} {N_COMPONENTS} {N_LOST} {LOST}"
        pairs = []
        for nth, split in enumerate(SPLITS):
            said = [[word for word in words[split] if word.digit == digit] for digit in range(10)]
            rng = np.random.default_rng((settings.seed, nth))
            for image, digit in enumerate(self._written[split].digits.tolist()):
                word = said[digit][rng.integers(len(said[digit]))]
                noise = noises[split][rng.integers(len(noises[split]))]
                what = f"{sizes} {settings.seed} {settings.snr_db} {split} {image}"
                feature = LOG_MEL.model_dump_json()
                key = hashed(_VERSION, of, feature, what, word.path.name, noise.name)
                seed = (settings.seed, nth, image)
                pairs.append(_Pair(key, split, digit, image, word, noise, seed))
        return pairs

    def piece(self, pair: _Pair) -> Piece:
        """One example, made."""
        rng = np.random.default_rng((*pair.seed, 1))
        word = self._sound(pair.word.path)[:_N_SAMPLES]
        mixed = _mixed(word, self._sound(pair.noise), self._settings.snr_db, rng)
        log_mel = self._feature(torch.from_numpy(mixed)).numpy().astype(np.float16)
        return Piece(
            sound=log_mel,
            heard=np.array([[0, len(log_mel)]], np.int64),
            pictures=self._reduced(self._written[pair.split].images[pair.image])[None, ..., None],
            at_ns=np.zeros(1, np.int64),
        )

    def _sound(self, path: Path) -> Floats:
        if path not in self._sounds:
            self._sounds[path] = read_audio(path, LOG_MEL.rate_hz)
        return self._sounds[path]

    def _reduced(self, image: Bytes) -> Bytes:
        """[28, 28]: what the components say of it."""
        mean, components = self._components
        centred = image.reshape(-1) - mean
        kept = mean + (centred @ components.T) @ components
        return np.rint(kept).clip(0, 255).astype(np.uint8).reshape(image.shape)

    @cached_property
    def _components(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The mean [784] and the first components [4, 784] of the training images."""
        train = self._written["train"].images
        images = train.reshape(len(train), -1).astype(np.float64)
        mean = images.mean(0)
        centred = images - mean
        _, vectors = np.linalg.eigh(centred.T @ centred)  # rising
        return mean, vectors[:, -N_COMPONENTS:].T


def _mixed(word: Floats, noise: Floats, snr_db: float, rng: np.random.Generator) -> Floats:
    """[_N_SAMPLES]: the word somewhere, with its losses, and noise all over."""
    at = int(rng.integers(_N_SAMPLES - word.size + 1))
    kept = word.copy()
    n_lost = round(LOST * word.size)
    for start in rng.integers(word.size - n_lost + 1, size=N_LOST):
        kept[start : start + n_lost] = 0
    begin = int(rng.integers(noise.size - _N_SAMPLES + 1))
    power = np.square(word, dtype=np.float64).sum() / _N_SAMPLES
    ratio = power / np.square(noise, dtype=np.float64).mean()
    mixed: Floats = noise[begin : begin + _N_SAMPLES] * np.sqrt(ratio / 10 ** (snr_db / 10))
    mixed[at : at + word.size] += kept
    return mixed.astype(np.float32)


def _noises(data: Path) -> Mapping[Split, list[Path]]:
    """Which noises each split may use."""
    path = data / "esc10" / "labels.tsv"
    if not path.is_file():
        msg = f"data: no file {path}"
        raise ConfigError(msg)
    with path.open(encoding="utf-8", newline="") as file:
        rows = sorted((row["class"], row["file"]) for row in csv.DictReader(file, delimiter="\t"))
    return {
        split: [data / "esc10" / "audio" / file for name, file in rows if name in names]
        for split, names in NOISES.items()
    }
