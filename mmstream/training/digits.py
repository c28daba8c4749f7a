"""Digits that were written and digits that were spoken, from files, split for training.

written   MNIST: train from the first of its training images, val from the last, test its test
spoken    free-spoken-digit-dataset, 8 kHz: of each speaker and digit takes 0-4 are test, 5-9
          val, the rest train; or one speaker is held out, and all his takes are test
"""

import gzip
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import Field

from mmstream.config import Settings
from mmstream.errors import ConfigError
from mmstream.features.audio import LogMelSettings
from mmstream.media import Bytes
from mmstream.training.manifest import Split
from mmstream.training.recordings import digest_of

CLASSES: Final = tuple("0123456789")
LOG_MEL: Final = LogMelSettings(
    rate_hz=8_000, n_window=256, n_hop=122, n_fft=512, n_mels=64, f_max_hz=4_000.0
)
"""64 frames of 64 bands in a second."""
SPLITS: Final[tuple[Split, ...]] = ("train", "val", "test")

_N_MNIST_TRAIN: Final = 60_000
_N_MNIST_TEST: Final = 10_000
_WORD: Final = re.compile(r"(\d)_([^_]+)_(\d+)\.flac")
"""Digit, speaker, take."""
_IMAGES: Final[Mapping[bool, str]] = {True: "t10k", False: "train"}


class DigitSettings(Settings):
    """Which digits."""

    data: Path
    """The folder with `mnist` and `fsdd`."""
    seed: int = Field(default=0, ge=0)
    """What is drawn is the same by the same seed."""
    held_out: str | None = None
    """A speaker whose words are all for the test, and no others are."""
    n_train: int = Field(default=55_000, ge=1)
    """Images from MNIST's training set, from its first; examples are as many."""
    n_val: int = Field(default=5_000, ge=1)
    """From its last."""
    n_test: int = Field(default=10_000, ge=1, le=10_000)
    """From MNIST's test set, from its first."""


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """Images of digits."""

    images: Bytes
    """[n, 28, 28]."""
    digits: Bytes
    """[n], 0..9."""


@dataclass(frozen=True, slots=True, order=True)
class Spoken:
    """A recording of a digit."""

    digit: int
    speaker: str
    take: int
    path: Path


def written(settings: DigitSettings) -> Mapping[Split, Written]:
    """The images of each split.

    Raises:
        ConfigError: files are missing or damaged, or more images are wanted than there are.
    """
    if settings.n_train + settings.n_val > _N_MNIST_TRAIN:
        msg = f"n_train + n_val: MNIST has {_N_MNIST_TRAIN} training images"
        raise ConfigError(msg)
    first, last = slice(settings.n_train), slice(_N_MNIST_TRAIN - settings.n_val, None)
    return {
        "train": _mnist(settings.data, first, is_test=False),
        "val": _mnist(settings.data, last, is_test=False),
        "test": _mnist(settings.data, slice(settings.n_test), is_test=True),
    }


def spoken(settings: DigitSettings) -> Mapping[Split, tuple[Spoken, ...]]:
    """The recordings that each split may use.

    Raises:
        ConfigError: of some digit there are none, or nobody is called as who is to be held out.
    """
    folder = settings.data / "fsdd" / "recordings"
    found = [one for path in sorted(folder.glob("*.flac")) if (one := _spoken(path)) is not None]
    speakers = sorted({one.speaker for one in found})
    held_out = settings.held_out
    if not found:
        msg = f"data: no recordings in {folder}"
        raise ConfigError(msg)
    if held_out not in {None, *speakers}:
        msg = f"held_out: no speaker {held_out!r}; allowed: {', '.join(speakers)}"
        raise ConfigError(msg)
    splits: dict[Split, list[Spoken]] = {split: [] for split in SPLITS}
    for one in found:
        split = _split_of(one, held_out)
        if split != "test" or held_out in (None, one.speaker):
            splits[split].append(one)
    for split, here in splits.items():
        unsaid = set(range(10)) - {one.digit for one in here}
        if unsaid:
            msg = f"data: nobody says {min(unsaid)} for {split} in {folder}"
            raise ConfigError(msg)
    return {split: tuple(here) for split, here in splits.items()}


def origin(data: Path, places: Iterable[str]) -> str:
    """A digest of all files in some folders of `data`.

    Raises:
        ConfigError: a folder is missing.
    """
    digest = blake2b(digest_size=16)
    for place in places:
        if not (data / place).is_dir():
            msg = f"data: no folder {data / place}"
            raise ConfigError(msg)
        for path in sorted((data / place).iterdir()):
            if path.is_file():
                digest.update(f"{path.name} {digest_of(path)}\n".encode())
    return digest.hexdigest()


def _spoken(path: Path) -> Spoken | None:
    said = _WORD.fullmatch(path.name)
    return Spoken(int(said[1]), said[2], int(said[3]), path) if said else None


def _split_of(one: Spoken, held_out: str | None) -> Split:
    if one.speaker == held_out or one.take < 5:  # noqa: PLR2004 - the data set's own rule
        return "test"
    return "val" if one.take < 10 else "train"  # noqa: PLR2004


def _mnist(data: Path, part: slice, *, is_test: bool) -> Written:
    name = data / "mnist" / _IMAGES[is_test]
    images = _read_idx(name.with_name(f"{name.name}-images-idx3-ubyte.gz"))
    digits = _read_idx(name.with_name(f"{name.name}-labels-idx1-ubyte.gz"))
    n = _N_MNIST_TEST if is_test else _N_MNIST_TRAIN
    if images.shape != (n, 28, 28) or digits.shape != (n,):
        msg = f"{name}-*: not MNIST's {n} images: {images.shape} and labels {digits.shape}"
        raise ConfigError(msg)
    return Written(images[part], digits[part])


@lru_cache(maxsize=4)  # what train and val are cut from
def _read_idx(path: Path) -> Bytes:
    """Unsigned bytes in the IDX format of yann.lecun.com/exdb/mnist."""
    try:
        data = gzip.decompress(path.read_bytes())
        n_dimensions = data[3]
        shape = np.frombuffer(data, ">u4", n_dimensions, offset=4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * n_dimensions).reshape(shape.tolist())
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror or error}"
        raise ConfigError(msg) from None
    except (EOFError, IndexError, ValueError, zlib.error) as error:
        msg = f"{path}: damaged: {error}"
        raise ConfigError(msg) from None
