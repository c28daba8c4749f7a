"""A written digit, a spoken one and a sentence: is it true of what is seen *and* heard?

Real images of MNIST, real words of the free-spoken-digit-dataset, split as in `digits`, and
sentences from the grammar of `claims`, of which no two modalities tell the truth. Nothing is made
hard to see or to hear. A quarter of the sentences of val and test is worded as none in training.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from pydantic import Field

from mmstream.codecs import read_audio
from mmstream.errors import ConfigError
from mmstream.features.audio import LogMel
from mmstream.media import Floats
from mmstream.training.claims import Claim, draw
from mmstream.training.dataset import ExampleDataset, Item
from mmstream.training.digits import (
    CLASSES,
    LOG_MEL,
    SPLITS,
    DigitSettings,
    Spoken,
    Written,
    origin,
    spoken,
    written,
)
from mmstream.training.manifest import Annotation, Label, Split
from mmstream.training.recordings import Piece
from mmstream.training.shards import Keyed, hashed, write_shards

TASK: Final = "claim"
TRUTH: Final = ("false", "true")
"""Its classes."""
DIGIT_TASKS: Final = ("heard", "seen")
"""Which digits they are: not asked for, but a net may be told in training."""

_VERSION: Final = "digit-claims-1"
_N_SAMPLES: Final = LOG_MEL.rate_hz


class DigitClaimSettings(DigitSettings):
    """Which claims."""

    n_claims: int = Field(default=55_000, ge=1)
    """Training examples: an image and a word may be in several, with other sentences. In the other
    splits there are as many as images."""


@dataclass(frozen=True, slots=True)
class _Example:
    """One example, before anything is decoded."""

    key: str
    split: Split
    claim: Claim
    image: int
    """Its place among the images of its split."""
    word: Spoken
    start: float
    """Where the word begins, of the room that it leaves in the second."""


def read_digit_claims(settings: DigitClaimSettings, folder: Path) -> Mapping[Split, ExampleDataset]:
    """Its three splits, made in the shards of `folder` unless they are there already.

    `sound` is [64, 64] log-mel, `pictures` [1, 28, 28, 1], the caption is the sentence.

    Raises:
        ConfigError: files are missing, more images are wanted than there are, or so few that a
            digit is not among them, no such speaker.
        SourceError: a recording cannot be read.
    """
    images, words = written(settings), spoken(settings)
    of = origin(settings.data, ("mnist", "fsdd/recordings"))
    examples = [
        example for split in SPLITS for example in _drawn(settings, split, images, words, of)
    ]
    make = partial(_make, _Maker(images), examples)
    shards = write_shards(folder, [example.key for example in examples], make)
    return {
        split: ExampleDataset([_item(one) for one in examples if one.split == split], shards)
        for split in SPLITS
    }


def _item(example: _Example) -> Item:
    claim = example.claim
    labels = (
        Label(TASK, TRUTH[claim.is_true]),
        Label("heard", CLASSES[claim.heard]),
        Label("seen", CLASSES[claim.seen]),
    )
    group = example.word.path.stem
    return Item(example.key, Annotation(example.split, labels, claim.text, group=group))


def _drawn(
    settings: DigitClaimSettings,
    split: Split,
    images: Mapping[Split, Written],
    words: Mapping[Split, tuple[Spoken, ...]],
    of: str,
) -> Iterator[_Example]:
    """In training `n_claims`, otherwise as many as the split has images."""
    n_examples = settings.n_claims if split == "train" else len(images[split].digits)
    rng = np.random.default_rng((settings.seed, SPLITS.index(split)))
    shown = [np.flatnonzero(images[split].digits == digit) for digit in range(len(CLASSES))]
    if not all(map(len, shown)):
        msg = f"n_{split}: more, so that each digit is among them: got {len(images[split].digits)}"
        raise ConfigError(msg)
    said = [[one for one in words[split] if one.digit == digit] for digit in range(len(CLASSES))]
    sizes = f"{settings.n_train} {settings.n_val}"
    for _ in range(n_examples):
        claim = draw(rng, is_training=split == "train")
        image = int(rng.choice(shown[claim.seen]))
        word = said[claim.heard][rng.integers(len(said[claim.heard]))]
        start = float(rng.random())
        what = f"{sizes} {split} {image} {word.path.name} {start}"
        key = hashed(_VERSION, of, LOG_MEL.model_dump_json(), what)
        yield _Example(key, split, claim, image, word, start)


def _make(maker: "_Maker", examples: list[_Example], missing: frozenset[str]) -> Iterator[Keyed]:
    for example in examples:
        if example.key in missing:
            yield Keyed(example.key, maker.piece(example))


class _Maker:
    """Makes pieces of examples; what is decoded is kept."""

    def __init__(self, images: Mapping[Split, Written]) -> None:
        self._images = images
        self._sounds: dict[Path, Floats] = {}
        self._feature = LogMel(LOG_MEL)

    def piece(self, example: _Example) -> Piece:
        word = self._sound(example.word.path)
        second = np.zeros(_N_SAMPLES, np.float32)
        at = int(example.start * (_N_SAMPLES - word.size + 1))
        second[at : at + word.size] = word
        log_mel = self._feature(torch.from_numpy(second)).numpy().astype(np.float16)
        return Piece(
            sound=log_mel,
            heard=np.array([[0, len(log_mel)]], np.int64),
            pictures=self._images[example.split].images[example.image][None, ..., None],
            at_ns=np.zeros(1, np.int64),
        )

    def _sound(self, path: Path) -> Floats:
        """Its first second."""
        if path not in self._sounds:
            self._sounds[path] = read_audio(path, LOG_MEL.rate_hz)[:_N_SAMPLES]
        return self._sounds[path]
