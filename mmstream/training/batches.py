"""Examples -> a batch: changed where asked for, padded to one length, with features of sound.

What is random about an example is drawn by seed, epoch and its index: it does not matter who asks,
in which batch, or whether the training was interrupted before.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmstream.config import Settings
from mmstream.errors import ConfigError, ScorerError
from mmstream.models.heads import ClassifierSettings
from mmstream.models.mmt import ANSWER, Inputs, MmtSettings
from mmstream.models.mmt_shapes import sight_of, sound_of
from mmstream.training.dataset import Example, ExampleDataset, shuffled, targets
from mmstream.training.reading import Words

if TYPE_CHECKING:
    from mmstream.features.audio import Feature

Change = Callable[[Example], Example]
"""What is done to an example before it is in a batch."""

_SHIFT, _MASK, _ROLL, _MIX = 2, 3, 4, 5  # purposes, as in mmstream.training.noise


class AugmentSettings(Settings):
    """Changes to training examples that leave their labels true."""

    roll: bool = False
    """Whether a sound begins anywhere in itself, and its beginning follows its end (after the
    random delays of Piczak 2015, Environmental sound classification with convolutional neural
    networks). For sounds without pictures."""
    mix: float = Field(default=0.0, ge=0)
    """Alpha: of a sound there stays the share lambda or 1 - lambda, whichever is more, drawn from
    Beta(alpha, alpha), and the rest is another's (Zhang et al. 2018, mixup, section 2; labels are
    not mixed: that of the larger share stays). 0: none."""
    n_masks: int = Field(default=0, ge=0)
    """Of time, and as many of frequency, after Park et al. 2019 (SpecAugment), section 2."""
    widest_time: float = Field(default=0.2, gt=0, le=1)
    """Of a mask, as a share of the example's frames."""
    widest_bands: int = Field(default=8, ge=1)
    """Of a mask."""
    shift_pixels: int = Field(default=0, ge=0)
    """How far pictures are moved, at most, either way; all of an example the same."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What a model takes, and what is true."""

    inputs: Inputs
    targets: Mapping[str, Tensor]
    """[b] int64 by task: the place of the class, `UNKNOWN` where it is not known."""
    indices: tuple[int, ...]
    """The place of each example in its data set."""
    names: tuple[str, ...]
    """The same for people: with the group, where there is one."""

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        there = {task: target.to(device) for task, target in self.targets.items()}
        return Batch(self.inputs.to(device), there, self.indices, self.names)


class Shift:
    """Moves the pictures of an example by a few pixels; what comes in repeats the edge."""

    def __init__(self, n_most: int, *, seed: int, epoch: int) -> None:
        """By at most `n_most` pixels."""
        self._n_most = n_most
        self._seed = (_SHIFT, seed, epoch)

    def __call__(self, example: Example) -> Example:
        """The example, moved."""
        rng = np.random.default_rng((*self._seed, example.index))
        down, right = rng.integers(-self._n_most, self._n_most + 1, size=2).tolist()
        _, height, width, _ = example.pictures.shape
        rows = np.clip(np.arange(height) - down, 0, height - 1)
        columns = np.clip(np.arange(width) - right, 0, width - 1)
        moved = example.pictures.take(rows, axis=1).take(columns, axis=2)
        return replace(example, pictures=moved)


class Roll:
    """Turns the sound of an example round in time, as if it were a loop."""

    def __init__(self, *, seed: int, epoch: int) -> None:
        """By any number of samples or frames."""
        self._seed = (_ROLL, seed, epoch)

    def __call__(self, example: Example) -> Example:
        """The example, turned; one without sound as it is.

        Raises:
            ConfigError: it has pictures, which would no longer go with it.
        """
        if len(example.pictures):
            msg = "augment.roll: is for sound alone, and this data has pictures"
            raise ConfigError(msg)
        if not len(example.sound):
            return example
        rng = np.random.default_rng((*self._seed, example.index))
        n = int(rng.integers(len(example.sound)))
        sound, heard = np.roll(example.sound, n, axis=0), np.roll(example.heard, n)
        return replace(example, sound=sound, heard=heard)


class Mix:
    """Mixes the sound of an example with another's; what it means says `AugmentSettings`."""

    def __init__(self, others: ExampleDataset, alpha: float, *, seed: int, epoch: int) -> None:
        """With one of `others`."""
        self._others = others
        self._alpha = alpha
        self._seed = (_MIX, seed, epoch)

    def __call__(self, example: Example) -> Example:
        """The mixture, as long as `example`, or that where one of the two has no sound.

        The other one begins anywhere in itself, and over again where it ends.
        """
        rng = np.random.default_rng((*self._seed, example.index))
        other = self._others[int(rng.integers(len(self._others)))]
        if not len(example.sound) or not len(other.sound):
            return example
        share = float(rng.beta(self._alpha, self._alpha))
        share = max(share, 1 - share)
        start, n_other = int(rng.integers(len(other.sound))), len(other.sound)
        at = np.arange(start, start + len(example.sound)) % n_other
        return replace(
            example,
            sound=np.float32(share) * example.sound + np.float32(1 - share) * other.sound[at],
            heard=example.heard & other.heard[at],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """Hides stretches of time and bands of frequency from features."""

    settings: AugmentSettings
    fill: Tensor
    """[f]: what stands there instead, the mean of the training frames."""
    seed: int
    epoch: int

    def __call__(self, frames: Tensor, indices: Sequence[int], lengths: Sequence[int]) -> None:
        """Mask [b, t, f] in place, of which `lengths` [b] frames are there."""
        n_bands = frames.shape[2]
        for row, index, n_frames in zip(frames, indices, lengths, strict=True):
            rng = np.random.default_rng((_MASK, self.seed, self.epoch, index))
            n_longest = int(self.settings.widest_time * n_frames)
            n_widest = min(self.settings.widest_bands, n_bands)
            for _ in range(self.settings.n_masks):
                start, end = _stretch(n_longest, n_frames, rng)
                row[start:end] = self.fill
                low, high = _stretch(n_widest, n_bands, rng)
                row[:, low:high] = self.fill[low:high]


def augmented(
    settings: AugmentSettings, examples: ExampleDataset, *, seed: int, epoch: int
) -> list[Change]:
    """What is done to each of `examples` in that epoch, before its features are taken."""
    changes: list[Change] = []
    if settings.shift_pixels:
        changes.append(Shift(settings.shift_pixels, seed=seed, epoch=epoch))
    if settings.mix:
        changes.append(Mix(examples, settings.mix, seed=seed, epoch=epoch))
    if settings.roll:
        changes.append(Roll(seed=seed, epoch=epoch))
    return changes


class Collator:
    """Examples -> Batch, for a model."""

    def __init__(
        self,
        model: MmtSettings,
        words: Words | None = None,
        changes: Sequence[Change] = (),
        masks: Masks | None = None,
    ) -> None:
        """Take what `model` takes.

        Args:
            model: which modalities, the front end of the sound, the tasks.
            words: what reads; None where the model reads nothing.
            changes: made to each example first, in order.
            masks: laid over the frames of the sound.
        """
        self._modalities = model.fusion.modalities
        self._tasks = tasks_of(model)
        self._words = words
        self._changes = tuple(changes)
        self._masks = masks
        self._front: Feature | None = model.audio.front_end.build() if model.audio else None

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """The batch of at least one example.

        Raises:
            ScorerError: sounds are of another kind or rate than the model takes.
        """
        for change in self._changes:
            examples = [change(example) for example in examples]
        indices = tuple(example.index for example in examples)
        annotations = [example.annotation for example in examples]
        frames, frames_present = self._sound(examples)
        images, images_present, at_secs = self._sight(examples)
        inputs = Inputs(
            frames=frames,
            frames_present=frames_present,
            images=images,
            images_present=images_present,
            images_at_secs=at_secs,
            words=self._words.text(annotations) if self._words else None,
            question=self._words.question(annotations) if self._words else None,
        )
        true = {task: targets(annotations, task, head.labels) for task, head in self._tasks.items()}
        return Batch(inputs, true, indices, tuple(map(_name, examples)))

    def _sound(self, examples: Sequence[Example]) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Frames [b, t, f] and whether they are there [b, t]."""
        if self._front is None:
            return None, None
        sounds, heards = [one.sound for one in examples], [one.heard for one in examples]
        frames, heard = sound_of(sounds, heards, self._front)
        if frames is None or heard is None:
            return None, None
        if self._masks is not None:
            lengths = heard.sum(dim=1).tolist()
            self._masks(frames, [example.index for example in examples], lengths)
        return frames, heard

    def _sight(
        self, examples: Sequence[Example]
    ) -> tuple[Tensor, Tensor, Tensor] | tuple[None, None, None]:
        """Pictures [b, t, c, h, w], whether they are there [b, t], and when [b, t]."""
        if "video" not in self._modalities:
            return None, None, None
        return sight_of([one.pictures for one in examples], [one.at_secs for one in examples])


class Swapped(Dataset[Example]):
    """Examples with each other's sound: of another class of `task`, drawn by the seed.

    What sound and pictures say then is in conflict; annotations are those of the pictures. Examples
    whose class is not known are left out.

    Raises:
        ConfigError: all are of one class, or none is known.
    """

    def __init__(self, examples: ExampleDataset, task: str, *, seed: int) -> None:
        """Pair those of `examples` whose class is known."""
        self._examples = examples
        known = [(n, item.annotation.class_of(task)) for n, item in enumerate(examples.items)]
        names = {place: name for place, name in known if name is not None}
        if len(set(names.values())) < 2:  # noqa: PLR2004 - two make a conflict
            got = ", ".join(set(names.values())) or "none"
            msg = f"swapped sounds need two classes of {task}: got {got}"
            raise ConfigError(msg)
        self.seen = tuple(names)
        """The place of each example's pictures and annotation in `examples`."""
        others = _partners(list(names.values()), shuffled(len(names), seed=seed, epoch=0))
        self.sounds = tuple(self.seen[other] for other in others)
        """The place of each example's sound."""

    def __len__(self) -> int:
        return len(self.seen)

    def __getitem__(self, index: int) -> Example:
        """The example at that place, with another's sound."""
        seen, heard = self._examples[self.seen[index]], self._examples[self.sounds[index]]
        return replace(seen, sound=heard.sound, heard=heard.heard)


def loader(
    examples: Dataset[Example], order: Sequence[int], collate: Collator, *, n_batch: int
) -> Iterable[Batch]:
    """Batches of the examples in that order; the last may be smaller."""
    # A generator of its own: by default iterating draws from the one that dropout draws from.
    return DataLoader(
        examples,
        batch_size=n_batch,
        sampler=order,
        collate_fn=collate,
        generator=torch.Generator(),
    )


def tasks_of(model: MmtSettings) -> Mapping[str, ClassifierSettings]:
    """The heads that have logits, by task, the question's by `ANSWER`."""
    asked = {ANSWER: model.question.answers} if model.question else {}
    return {**model.heads, **asked}


def frame_statistics(batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [f] of all frames that are there.

    Raises:
        ScorerError: there are none, or some are not finite; the text names the examples.
    """
    n, total, squares = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        frames, present = batch.inputs.frames, batch.inputs.frames_present
        if frames is not None and present is not None:
            finite = frames.isfinite().all(dim=2).logical_or(~present).all(dim=1).tolist()
            if not all(finite):
                wrong = [name for name, fine in zip(batch.names, finite, strict=True) if not fine]
                msg = f"the sound is not finite of the training examples {', '.join(wrong)}"
                raise ScorerError(msg)
            there = frames[present].double()
            n += len(there)
            total, squares = total + there.sum(dim=0), squares + there.square().sum(dim=0)
    if n == 0:
        msg = "no training example has sound that is as long as one frame"
        raise ScorerError(msg)
    mean = total / n
    return mean.float(), (squares / n - mean.square()).clamp(min=0).sqrt().float()


def _name(example: Example) -> str:
    group = example.annotation.group
    return f"{example.index} ({group})" if group else str(example.index)


def _stretch(n_longest: int, n: int, rng: np.random.Generator) -> tuple[int, int]:
    """Somewhere in 0..n, at most `n_longest` long."""
    length = int(rng.integers(n_longest + 1))
    start = int(rng.integers(n - length + 1))
    return start, start + length


def _partners(names: Sequence[str], order: Sequence[int]) -> tuple[int, ...]:
    """For each, the next one after it in `order`, and round again, that has another name."""
    place = {index: nth for nth, index in enumerate(order)}
    n = len(order)
    return tuple(
        next(
            order[(place[index] + step) % n]
            for step in range(1, n)
            if names[order[(place[index] + step) % n]] != name
        )
        for index, name in enumerate(names)
    )
