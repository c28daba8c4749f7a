"""What pre-training hears and sees in a step: pieces of recordings, mixed and labelled.

    pairs    sound and pictures of one recording; a known sound may be mixed in
    sounds   sound alone: one kind or two at once, of any loudness
    silents  pictures alone

All pieces of a step are as long, and what is random about a piece is drawn by seed, step and row.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mmstream.config import Settings
from mmstream.errors import ConfigError
from mmstream.features.audio import Feature
from mmstream.media import DEFAULT_RATE_HZ, Bytes, Floats
from mmstream.models.avp import AvpSettings
from mmstream.training.dataset import Example, ExampleDataset, shuffled
from mmstream.training.made_sounds import coloured_noise, made_sound

TASK: Final = "sound"
"""The manifest's task whose class is the kind of a sound."""
OTHER: Final = "other"
"""The label of sounds that are made up."""
SPEECH: Final = "speech"

_PURPOSE: Final = 7  # as in mmstream.training.noise
_PART_SECS: Final = 0.05
_THERE, _GONE = 0.1, 0.03  # of a recording's loudest moment, in amplitude: -20 and -30 dB
_HEARD_RATIO: Final = 0.3  # of two sounds the softer, in amplitude: -10 dB
_N_COLOURS, _COLOURING = 5, 0.7  # points of the curve; nepers of power, 3 dB
_TIME_PARTS, _BAND_PARTS = 10, 6  # of the whole, a mask is at most one
_AT_ONCE: Final = 8  # sounds whose features are taken together: it is faster


class SceneSettings(Settings):
    """What a step holds."""

    secs: float = Field(default=3.0, gt=0)
    """Of each piece; its windows end in it, and what is before them is their past."""
    n_sounds: int = Field(default=24, ge=0)
    """Pieces of sound alone."""
    n_silents: int = Field(default=4, ge=0)
    """Pieces of pictures alone."""
    speech: float = Field(default=2.0, ge=0)
    """Of the sounds, how often speech comes for each time that another class of recordings does."""
    other: float = Field(default=4.0, ge=0)
    """How often a sound that is made up does."""
    silence: float = Field(default=1.0, ge=0)
    """How often only the noise of a room or a microphone does."""
    mixed: float = Field(default=0.5, ge=0, le=1)
    """Share of the sounds that have another one beside them, and of the pairs that have a sound
    mixed in."""
    shift_pixels: int = Field(default=3, ge=0)
    """How far pictures are moved, at most, either way; half of them are mirrored."""


@dataclass(frozen=True, slots=True, eq=False)
class Scenes:
    """The pieces of a step."""

    n_pairs: int
    frames: Tensor
    """[n_pairs + n_sounds, t, f], pairs first: what the sound encoder's front end gives."""
    images: Tensor
    """[n_pairs + n_silents, n, 1, h, w] u8, pairs first."""
    at_secs: Tensor
    """[n_pairs + n_silents, n]: when each was, from the piece's start."""
    truth: Tensor
    """[n_pairs + n_sounds, n_labels]: 1 where it is heard in the window, 0 where not, NaN where
    nobody can tell."""

    def to(self, device: torch.device) -> "Scenes":
        """The same on another device."""
        parts = (self.frames, self.images, self.at_secs, self.truth)
        frames, images, at_secs, truth = (part.to(device) for part in parts)
        return Scenes(self.n_pairs, frames, images, at_secs, truth)


@dataclass(frozen=True, slots=True, eq=False)
class _Heard:
    """A sound and what is in it."""

    samples: Floats
    truth: Floats
    """[n_labels], as in `Scenes`."""


class SceneMaker:
    """Step by step, the scenes of a training."""

    def __init__(
        self,
        settings: SceneSettings,
        model: AvpSettings,
        examples: ExampleDataset,
        *,
        n_pairs: int,
        seed: int,
        left_out: frozenset[str] = frozenset(),
    ) -> None:
        """Sort `examples` into what they are good for; those of classes `left_out` for nothing.

        Raises:
            ConfigError: there are fewer pairs than `n_pairs`, or a class is no label of the model.
        """
        self._settings, self._model, self._examples = settings, model, examples
        self._seed, self._n_pairs = seed, n_pairs
        self._labels = model.events.labels
        self._front: Feature = model.audio.front_end.build()
        self._n = round(settings.secs * DEFAULT_RATE_HZ)
        self.pairs: list[int] = []
        silents: list[int] = []
        sounds: defaultdict[str, list[int]] = defaultdict(list)
        names: set[str] = set()
        for index in range(len(examples)):
            example, name = examples[index], examples.items[index].annotation.class_of(TASK)
            if name in left_out:
                continue
            names |= {name} if name else set()
            if len(example.pictures):
                (self.pairs if len(example.sound) and name else silents).append(index)
            elif name is not None:
                sounds[name].append(index)
        self._silents, self._sounds = silents, dict(sounds)
        lacking = {*names, OTHER} - set(self._labels)
        if lacking:
            what = ", ".join(sorted(lacking))
            msg = f"model.events.labels: must have what is trained on, and {OTHER}: lacks {what}"
            raise ConfigError(msg)
        if len(self.pairs) < n_pairs:
            n = len(self.pairs)
            what = f"{n} of the split 'train' have sound, pictures and a class"
            msg = f"data: a step takes {n_pairs} examples (optimise.n_batch), and only {what}"
            raise ConfigError(msg)

    @property
    def n_steps_epoch(self) -> int:
        """Steps in which each pair comes once."""
        return max(1, len(self.pairs) // self._n_pairs)

    def scenes(self, step: int, *, end_secs: float) -> Scenes:
        """Those of a step; windows that end `end_secs` after the pieces began are labelled."""
        settings = self._settings
        epoch, nth = divmod(step, self.n_steps_epoch)
        order = shuffled(len(self.pairs), seed=self._seed, epoch=epoch)
        chosen = order[nth * self._n_pairs : (nth + 1) * self._n_pairs]
        rngs = [
            np.random.default_rng((_PURPOSE, self._seed, step, row))
            for row in range(self._n_pairs + settings.n_sounds + settings.n_silents)
        ]
        window = self._window(end_secs)
        heard, seen = [], []
        for place, rng in zip(chosen, rngs, strict=False):
            example = self._examples[self.pairs[place]]
            at = self._start(len(example.sound), rng)
            heard.append(self._pair_heard(example, at, window, rng))
            seen.append(self._seen(example, at / DEFAULT_RATE_HZ, rng))
        of_sounds = rngs[self._n_pairs : self._n_pairs + settings.n_sounds]
        heard += [self._sound(window, rng) for rng in of_sounds]
        for rng in rngs[self._n_pairs + settings.n_sounds :] if self._silents else ():
            example = self._examples[self._silents[int(rng.integers(len(self._silents)))]]
            start_secs = rng.uniform(0, max(0.0, float(example.at_secs[-1]) - settings.secs))
            seen.append(self._seen(example, start_secs, rng))
        images, at_secs = _stacked(seen)
        frames = features(self._front, [one.samples for one in heard])
        for row, rng in enumerate(rngs[: len(heard)]):
            _coloured(frames[row], rng)
            if row >= self._n_pairs:
                _masked(frames[row], rng)
        return Scenes(
            n_pairs=self._n_pairs,
            frames=frames,
            images=images,
            at_secs=at_secs,
            truth=torch.from_numpy(np.stack([one.truth for one in heard])),
        )

    def _window(self, end_secs: float) -> slice:
        end = round(end_secs * DEFAULT_RATE_HZ)
        return slice(max(0, end - round(self._model.window_secs * DEFAULT_RATE_HZ)), end)

    def _start(self, n_samples: int, rng: np.random.Generator) -> int:
        return int(rng.integers(max(0, n_samples - self._n) + 1))

    def _pair_heard(
        self, example: Example, at: int, window: slice, rng: np.random.Generator
    ) -> _Heard:
        samples = _cut(example.sound, at, self._n)
        heard = _Heard(samples, self._truth(example, samples, window))
        if self._sounds and rng.random() < self._settings.mixed:
            heard = _mixed(heard, self._recorded(window, rng), rng.uniform(0, 20), window)
        return self._varied(heard, rng)

    def _sound(self, window: slice, rng: np.random.Generator) -> _Heard:
        heard = self._one(window, rng)
        if rng.random() < self._settings.mixed:
            heard = _mixed(heard, self._one(window, rng), rng.uniform(0, 20), window)
        return self._varied(heard, rng)

    def _one(self, window: slice, rng: np.random.Generator) -> _Heard:
        settings, nothing = self._settings, np.zeros(len(self._labels), np.float32)
        weights = np.array((len(self._sounds), settings.other, settings.silence))
        which = rng.random() * weights.sum()
        if which < weights[0]:
            return self._recorded(window, rng)
        if which < weights[:2].sum():
            truth = nothing.copy()
            truth[self._labels.index(OTHER)] = 1
            return _Heard(made_sound(self._n, rng), truth)
        return _Heard(np.zeros(self._n, np.float32), nothing)

    def _recorded(self, window: slice, rng: np.random.Generator) -> _Heard:
        """A piece of a recording; short ones lie anywhere in silence."""
        names = list(self._sounds)
        weights = np.array([self._settings.speech if name == SPEECH else 1.0 for name in names])
        of_class = self._sounds[names[int(rng.choice(len(names), p=weights / weights.sum()))]]
        example = self._examples[of_class[int(rng.integers(len(of_class)))]]
        sound = example.sound
        n_over = len(sound) - self._n
        samples = _cut(sound, int(rng.integers(min(0, n_over), max(0, n_over) + 1)), self._n)
        return _Heard(samples, self._truth(example, samples, window))

    def _truth(self, example: Example, samples: Floats, window: slice) -> Floats:
        """Whether the class of the recording is heard in the window, by its loudness there."""
        truth = np.zeros(len(self._labels), np.float32)
        loudest = float(np.abs(example.sound).max())
        ratio = _level(samples[window]) / max(_level(example.sound), 1e-9) if loudest else 0.0
        name = example.annotation.class_of(TASK)
        if name is not None:
            sure = 1.0 if ratio >= _THERE else 0.0 if ratio <= _GONE else np.nan
            truth[self._labels.index(name)] = sure
        return truth

    def _varied(self, heard: _Heard, rng: np.random.Generator) -> _Heard:
        """As another microphone at another distance hears it."""
        loudest = float(np.abs(heard.samples).max())
        samples = heard.samples * np.float32(10 ** (rng.uniform(-30, 0) / 20) / max(loudest, 1e-3))
        if rng.random() < 0.5:  # noqa: PLR2004 - a coin
            noise = coloured_noise(self._n, rng)
            level = 10 ** (rng.uniform(-75, -35) / 20)
            samples = samples + (noise * (level / max(float(noise.std()), 1e-9))).astype(np.float32)
        return _Heard(samples, heard.truth)

    def _seen(
        self, example: Example, start_secs: float, rng: np.random.Generator
    ) -> tuple[Bytes, Floats]:
        """The pictures of a piece, moved and mirrored; the last stands where there are no more."""
        n = round(self._settings.secs * self._model.seen.fps)
        wanted = start_secs + np.arange(n, dtype=np.float32) / np.float32(self._model.seen.fps)
        places = np.searchsorted(example.at_secs, wanted - 1e-3).clip(0, len(example.at_secs) - 1)
        pictures = example.pictures[places]
        down, right = rng.integers(
            -self._settings.shift_pixels, self._settings.shift_pixels + 1, size=2
        ).tolist()
        rows = np.clip(np.arange(pictures.shape[1]) - down, 0, pictures.shape[1] - 1)
        columns = np.clip(np.arange(pictures.shape[2]) - right, 0, pictures.shape[2] - 1)
        if rng.random() < 0.5:  # noqa: PLR2004 - a coin
            columns = columns[::-1]
        pictures = pictures.take(rows, axis=1).take(columns, axis=2).astype(np.float32)
        gain, offset = rng.uniform(0.7, 1.3), rng.uniform(-25, 25)
        light = (pictures - 128) * np.float32(gain) + np.float32(128 + offset)
        at_secs = example.at_secs[places] - np.float32(start_secs)
        at_secs = np.where(np.diff(places, prepend=-1) > 0, at_secs, wanted - start_secs)
        return light.clip(0, 255).astype(np.uint8), at_secs.astype(np.float32)


def features(front: Feature, sounds: Sequence[Floats]) -> Tensor:
    """Sounds [n] -> frames [b, t, f]; frame t ends just before sample (t + 1) * n_hop."""
    settings = front.settings
    before = np.zeros(settings.n_window - settings.n_hop, np.float32)
    padded = torch.from_numpy(np.stack([np.concatenate((before, one)) for one in sounds]))
    return torch.cat([front(part) for part in torch.split(padded, _AT_ONCE)])


def _coloured(frames: Tensor, rng: np.random.Generator) -> None:
    """Make [t, f] sound, in place, as through another microphone: bands louder and softer."""
    n_bands = frames.shape[1]
    gains = rng.normal(0, _COLOURING, size=_N_COLOURS)
    curve = np.interp(np.linspace(0, 1, n_bands), np.linspace(0, 1, _N_COLOURS), gains)
    frames += torch.from_numpy(curve.astype(np.float32))


def _masked(frames: Tensor, rng: np.random.Generator) -> None:
    """Hide some time and some bands of [t, f], in place (Park et al. 2019, SpecAugment)."""
    n_frames, n_bands = frames.shape
    fill = float(frames.mean())
    start, n = int(rng.integers(n_frames)), int(rng.integers(max(1, n_frames // _TIME_PARTS)))
    frames[start : start + n] = fill
    low, n = int(rng.integers(n_bands)), int(rng.integers(max(1, n_bands // _BAND_PARTS)))
    frames[:, low : low + n] = fill


def _cut(sound: Floats, at: int, n: int) -> Floats:
    """[n] from `at`, which may be before the start; zeros where it has nothing."""
    cut = np.zeros(n, np.float32)
    start, end = max(0, at), min(len(sound), at + n)
    cut[start - at : end - at] = sound[start:end]
    return cut


def _level(samples: Floats) -> float:
    """The loudest 50 ms, root mean square."""
    n = round(_PART_SECS * DEFAULT_RATE_HZ)
    whole = samples[: samples.size // n * n].reshape(-1, n)
    return float(np.sqrt(np.mean(whole.astype(np.float64) ** 2, axis=1).max(initial=0.0)))


def _mixed(heard: _Heard, other: _Heard, ratio_db: float, window: slice) -> _Heard:
    """`other` is so much softer in the window than `heard`; nobody can tell of what is drowned."""
    levels = _level(heard.samples[window]), _level(other.samples[window])
    if min(levels) == 0:
        return heard if levels[0] else other
    ratio = 10 ** (-ratio_db / 20)
    samples = heard.samples + np.float32(ratio * levels[0] / levels[1]) * other.samples
    softer = other.truth.copy()
    if ratio < _HEARD_RATIO:
        softer[softer > 0] = np.nan
    truth = np.where((heard.truth == 1) | (softer == 1), np.float32(1), heard.truth + softer)
    return _Heard(samples, truth.astype(np.float32))


def _stacked(seen: Sequence[tuple[Bytes, Floats]]) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(np.stack([pictures for pictures, _ in seen]))
    at_secs = torch.from_numpy(np.stack([at_secs for _, at_secs in seen]))
    return images.permute(0, 1, 4, 2, 3), at_secs
