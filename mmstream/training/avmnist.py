"""AV-MNIST rebuilt from real files: a written digit made hard to read, a spoken one hard to hear.

After Vielzeuf et al. 2018 (CentralNet), section 4: MNIST's images keep 4 of their principal
components, and speech is mixed with noises of ESC. Their speech (TIDIGITS) is not free, so:

    images   MNIST; components fitted on the training images only
    words    free-spoken-digit-dataset at its own 8 kHz: of each speaker and digit takes 0-4 are
             test, 5-9 val, the rest train; or one speaker is held out, and all his takes are test
    noises   ESC-10; the classes of train, val and test are disjoint

A word (its first second) lies somewhere in a second, loses 4 spans of 15 % of its length, and noise
is added over all of the second. The ratio is that of the word's mean power, before it lost
anything, to the noise's over the second, both within 0-4 kHz. Every image is paired with a word of
its digit, once, by the seed; the pairing and the spans are the same at every ratio.
"""

import csv
import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from mmstream.codecs import read_audio
from mmstream.config import Settings
from mmstream.errors import ConfigError
from mmstream.features.audio import LogMel, LogMelSettings
from mmstream.media import Bytes, Floats
from mmstream.training.dataset import ExampleDataset, Item
from mmstream.training.manifest import Annotation, Label, Split
from mmstream.training.recordings import Piece, digest_of
from mmstream.training.shards import Keyed, hashed, write_shards

TASK: Final = "digit"
CLASSES: Final = tuple("0123456789")
N_COMPONENTS: Final = 4
"""Of an image's 784."""
N_LOST: Final = 4
LOST: Final = 0.15
"""How many spans a word loses, and how long each is, of its length. They may overlap."""
LOG_MEL: Final = LogMelSettings(
    rate_hz=8_000, n_window=256, n_hop=122, n_fft=512, n_mels=64, f_max_hz=4_000.0
)
"""64 frames of 64 bands in a second."""
NOISES: Final[Mapping[Split, tuple[str, ...]]] = {
    "train": ("dog_bark", "rain", "baby_cry", "helicopter", "person_sneeze"),
    "val": ("sea_waves", "clock_tick"),
    "test": ("chainsaw", "rooster", "fire_crackling"),
}

_VERSION: Final = "avmnist-1"
_RATE_HZ: Final = LOG_MEL.rate_hz
_N_SAMPLES: Final = _RATE_HZ
_STEP: Final = _RATE_HZ // 10
"""Noise may begin at each tenth of a second..."""
_LEAST_POWER: Final = 0.5
"""...where it has so much of its recording's power."""
_N_MNIST_TRAIN: Final = 60_000
_IMAGES: Final[Mapping[bool, str]] = {True: "t10k", False: "train"}
_SPLITS: Final[tuple[Split, ...]] = ("train", "val", "test")


class AvMnistSettings(Settings):
    """Which AV-MNIST."""

    data: Path
    """The folder with `mnist`, `fsdd` and `esc10`."""
    snr_db: float = 3.0
    """Power of the word to that of the noise."""
    seed: int = Field(default=0, ge=0)
    held_out: str | None = None
    """A speaker whose words are all for the test, and no others are."""
    n_train: int = Field(default=55_000, ge=1)
    """Images from MNIST's training set, from its first."""
    n_val: int = Field(default=5_000, ge=1)
    """From its last."""
    n_test: int = Field(default=10_000, ge=1, le=10_000)
    """From MNIST's test set, from its first."""


@dataclass(frozen=True, slots=True, order=True)
class _Word:
    digit: int
    speaker: str
    take: int
    path: Path


@dataclass(frozen=True, slots=True)
class _Pair:
    """One example, before anything is decoded."""

    key: str
    split: Split
    digit: int
    image: int
    """Its place among the images of its split."""
    word: _Word
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
    items: dict[Split, list[Item]] = {split: [] for split in _SPLITS}
    for pair in pairs:
        label = Label(TASK, CLASSES[pair.digit])
        annotation = Annotation(pair.split, (label,), group=pair.word.path.stem)
        items[pair.split].append(Item(pair.key, annotation))
    return {split: ExampleDataset(items[split], shards) for split in _SPLITS}


def _make(maker: "_Maker", pairs: list[_Pair], missing: frozenset[str]) -> Iterator[Keyed]:
    for pair in pairs:
        if pair.key in missing:
            yield Keyed(pair.key, maker.piece(pair))


class _Maker:
    """Pairs files and makes pieces of them; what is decoded is kept."""

    def __init__(self, settings: AvMnistSettings) -> None:
        self._settings = settings
        self._sounds: dict[Path, Floats] = {}
        self._feature = LogMel(LOG_MEL)
        if settings.n_train + settings.n_val > _N_MNIST_TRAIN:
            msg = f"n_train + n_val: MNIST has {_N_MNIST_TRAIN} training images"
            raise ConfigError(msg)

    def pairs(self) -> list[_Pair]:
        """All examples, split by split."""
        settings = self._settings
        words, noises = _words(settings), _noises(settings.data)
        origin = _origin(settings.data)
        sizes = f"{settings.n_train} {settings.n_val} {N_COMPONENTS} {N_LOST} {LOST}"
        pairs = []
        for nth, split in enumerate(_SPLITS):
            spoken = [[word for word in words[split] if word.digit == digit] for digit in range(10)]
            rng = np.random.default_rng((settings.seed, nth))
            for image, digit in enumerate(self._labels[split].tolist()):
                word = spoken[digit][rng.integers(len(spoken[digit]))]
                noise = noises[split][rng.integers(len(noises[split]))]
                of = f"{sizes} {settings.seed} {settings.snr_db} {split} {image}"
                key = hashed(
                    _VERSION, origin, LOG_MEL.model_dump_json(), of, word.path.name, noise.name
                )
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
            pictures=self._reduced(self._images[pair.split][pair.image])[None, ..., None],
            at_ns=np.zeros(1, np.int64),
        )

    def _sound(self, path: Path) -> Floats:
        if path not in self._sounds:
            self._sounds[path] = read_audio(path, _RATE_HZ)
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
        images = self._images["train"].reshape(len(self._images["train"]), -1).astype(np.float64)
        mean = images.mean(0)
        centred = images - mean
        _, vectors = np.linalg.eigh(centred.T @ centred)  # rising
        return mean, vectors[:, -N_COMPONENTS:].T

    @cached_property
    def _images(self) -> Mapping[Split, Bytes]:
        return {split: self._mnist(split, "images-idx3") for split in _SPLITS}

    @cached_property
    def _labels(self) -> Mapping[Split, Bytes]:
        return {split: self._mnist(split, "labels-idx1") for split in _SPLITS}

    def _mnist(self, split: Split, what: str) -> Bytes:
        settings = self._settings
        name = f"{_IMAGES[split == 'test']}-{what}-ubyte.gz"
        array = _read_idx(settings.data / "mnist" / name)
        match split:
            case "train":
                return array[: settings.n_train]
            case "val":
                return array[len(array) - settings.n_val :]
            case "test":
                return array[: settings.n_test]


def _mixed(word: Floats, noise: Floats, snr_db: float, rng: np.random.Generator) -> Floats:
    """[_N_SAMPLES]: the word somewhere, with its losses, and noise all over."""
    at = int(rng.integers(_N_SAMPLES - word.size + 1))
    kept = word.copy()
    n_lost = round(LOST * word.size)
    for start in rng.integers(word.size - n_lost + 1, size=N_LOST):
        kept[start : start + n_lost] = 0
    begins = _loud_starts(noise)
    begin = begins[rng.integers(begins.size)]
    mixed = noise[begin : begin + _N_SAMPLES].copy()
    ratio = np.mean(word.astype(np.float64) ** 2) / np.mean(mixed.astype(np.float64) ** 2)
    mixed *= np.sqrt(ratio / 10 ** (snr_db / 10))
    mixed[at : at + word.size] += kept
    return mixed.astype(np.float32)


def _loud_starts(noise: Floats) -> NDArray[np.int64]:
    """From where a second of it has some of its power; many recordings are mostly silent."""
    energy = np.concatenate(([0.0], np.cumsum(noise.astype(np.float64) ** 2)))
    starts = np.arange(0, noise.size - _N_SAMPLES + 1, _STEP)
    powers = (energy[starts + _N_SAMPLES] - energy[starts]) / _N_SAMPLES
    loud: NDArray[np.int64] = starts[
        powers >= _LEAST_POWER * min(energy[-1] / noise.size, powers.max())
    ]
    return loud


def _words(settings: AvMnistSettings) -> Mapping[Split, list[_Word]]:
    """Which words each split may use."""
    words: dict[Split, list[_Word]] = {split: [] for split in _SPLITS}
    folder = settings.data / "fsdd" / "recordings"
    speakers = set()
    for path in sorted(folder.glob("*_*_*.flac")):
        digit, speaker, take = path.stem.split("_")
        speakers.add(speaker)
        word = _Word(int(digit), speaker, int(take), path)
        words[_split_of(word, settings.held_out)].append(word)
    if settings.held_out is not None and settings.held_out not in speakers:
        msg = f"held_out: no speaker {settings.held_out!r}; allowed: {', '.join(sorted(speakers))}"
        raise ConfigError(msg)
    if not speakers:
        msg = f"data: no recordings in {folder}"
        raise ConfigError(msg)
    return {
        split: [
            word for word in here if split != "test" or settings.held_out in (None, word.speaker)
        ]
        for split, here in words.items()
    }


def _split_of(word: _Word, held_out: str | None) -> Split:
    if word.speaker == held_out or word.take < 5:  # noqa: PLR2004 - the data set's own rule
        return "test"
    return "val" if word.take < 10 else "train"  # noqa: PLR2004


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


def _origin(data: Path) -> str:
    """A digest of all files it is made of."""
    digest = blake2b(digest_size=16)
    for place in ("mnist", "fsdd/recordings", "esc10/audio"):
        if not (data / place).is_dir():
            msg = f"data: no folder {data / place}"
            raise ConfigError(msg)
        for path in sorted((data / place).iterdir()):
            digest.update(f"{path.name} {digest_of(path)}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=2)  # what train and val are cut from
def _read_idx(path: Path) -> Bytes:
    """Unsigned bytes in the IDX format of yann.lecun.com/exdb/mnist."""
    try:
        data = gzip.decompress(path.read_bytes())
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror or error}"
        raise ConfigError(msg) from None
    n_dimensions = data[3]
    shape = np.frombuffer(data, ">u4", n_dimensions, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * n_dimensions).reshape(shape.tolist())
