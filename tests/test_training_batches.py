"""A batch holds each example as it would be alone, and says what is padding."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import training_world as world
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st

from mmstream.errors import ConfigError, ScorerError
from mmstream.features.audio import LogMel
from mmstream.media import Bytes, Floats
from mmstream.models.audio import LogMelFront
from mmstream.models.mmt import ANSWER, MmtSettings
from mmstream.training.batches import (
    AugmentSettings,
    Collator,
    Masks,
    Mix,
    Roll,
    Shift,
    Swapped,
    augmented,
    frame_statistics,
    loader,
    tasks_of,
)
from mmstream.training.dataset import UNKNOWN, Example, ExampleDataset
from mmstream.training.loop import train
from mmstream.training.manifest import Annotation, Label
from mmstream.training.shards import Shards

FRONT = LogMelFront(n_mels=8)
HEAD = {"labels": ("no", "yes"), "n_dims": 8}
NO_PICTURES = np.zeros((0, 4, 4, 1), np.uint8)


def model(*modalities: str, question: bool = False) -> MmtSettings:
    text = {"n_words": 40, "n_dims": 8, "n_layers": 0, "n_longest": 4}
    parts: dict[str, object] = {
        "audio": {"front_end": FRONT.model_dump(), "n_dims": 8},
        "video": {"n_dims": 8},
        "text": text,
    }
    return MmtSettings.model_validate(
        {name: parts[name] for name in modalities}
        | {
            "fusion": {"type": "concat", "modalities": modalities, "n_dims": 8},
            "heads": {"happy": HEAD},
            "question": {"text": text, "answers": HEAD} if question else None,
        }
    )


def example(
    index: int,
    sound: Floats | None = None,
    pictures: Bytes = NO_PICTURES,
    annotation: Annotation = Annotation("train"),  # noqa: B008 - frozen
) -> Example:
    sound = np.zeros(0, np.float32) if sound is None else sound
    at_secs = (np.arange(len(pictures)) / 25).astype(np.float32)
    return Example(index, annotation, sound, np.ones(len(sound), np.bool_), pictures, at_secs)


def noise(n: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, 0.1, n).astype(np.float32)


def _share(of: Floats, by: Floats) -> float:
    energy = float((by * by).sum())
    return float((of * by).sum()) / energy if energy else 0.0


def images(n: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 255, (n, 4, 4, 1), np.uint8)


@property_settings(max_examples=25)
@given(st.lists(st.integers(0, 2000), min_size=1, max_size=12).filter(any))
def test_features_of_a_batch_are_those_of_each_sound(lengths: list[int]) -> None:
    sounds = [noise(n, seed) for seed, n in enumerate(lengths)]
    batch = Collator(model("audio"))([example(nth, one) for nth, one in enumerate(sounds)])
    frames, present = batch.inputs.frames, batch.inputs.frames_present
    assert frames is not None
    assert present is not None
    feature = LogMel(FRONT)
    for row, there, sound in zip(frames, present, sounds, strict=True):
        alone = feature(torch.from_numpy(sound))
        torch.testing.assert_close(row[: len(alone)], alone)
        assert there.tolist() == [nth < len(alone) for nth in range(len(there))]
    assert batch.inputs.images is None


def test_frames_with_unheard_samples_are_not_there() -> None:
    one = example(0, noise(1600))
    one.heard[900:1000] = False
    present = Collator(model("audio"))([one]).inputs.frames_present
    assert present is not None
    # Frame t is samples 160 t to 160 t + 400.
    assert present[0].tolist() == [True, True, True, True, False, False, False, True]


def test_log_mel_is_taken_as_it_is() -> None:
    long, short = (np.random.default_rng(n).normal(size=(n, 8)).astype(np.float32) for n in (6, 4))
    inputs = Collator(model("audio"))([example(0, long), example(1, short), example(2)]).inputs
    assert inputs.frames is not None
    assert inputs.frames_present is not None
    np.testing.assert_array_equal(inputs.frames[0].numpy(), long)
    np.testing.assert_array_equal(inputs.frames[1, :4].numpy(), short)
    assert inputs.frames_present.sum(dim=1).tolist() == [6, 4, 0]


def test_pictures_are_padded_and_keep_their_instants() -> None:
    batch = Collator(model("audio", "video"))(
        [example(5, noise(800), images(3)), example(9, noise(800)), example(2, None, images(2, 1))]
    )
    inputs = batch.inputs
    assert inputs.images is not None
    assert inputs.images_present is not None
    assert inputs.images_at_secs is not None
    assert inputs.images.shape == (3, 3, 1, 4, 4)
    assert inputs.images_present.sum(dim=1).tolist() == [3, 0, 2]
    np.testing.assert_array_equal(inputs.images[2, :2, 0].numpy(), images(2, 1)[..., 0])
    np.testing.assert_allclose(inputs.images_at_secs[0].numpy(), [0, 0.04, 0.08])
    assert batch.indices == (5, 9, 2)


def test_what_the_model_has_not_is_not_in_the_batch() -> None:
    one = example(0, noise(800), images(3))
    assert Collator(model("video"))([one]).inputs.frames is None
    assert Collator(model("audio"))([one]).inputs.images is None


def test_targets_and_names() -> None:
    known = Annotation("train", (Label(ANSWER, "no"), Label("happy", "yes")), group="ann")
    settings = model("audio", question=True)
    batch = Collator(settings)([example(3, noise(800), annotation=known), example(1, noise(800))])
    assert {task: target.tolist() for task, target in batch.targets.items()} == {
        "happy": [1, UNKNOWN],
        ANSWER: [0, UNKNOWN],
    }
    assert batch.names == ("3 (ann)", "1")
    assert list(tasks_of(settings)) == ["happy", ANSWER]


@given(st.integers(0, 3), st.integers(0, 50), st.integers(0, 5))
def test_pictures_move_by_whole_pixels_and_all_the_same(
    n_most: int, index: int, epoch: int
) -> None:
    pictures = np.zeros((2, 9, 9, 1), np.uint8)
    pictures[:, 4, 4], pictures[:, 0], pictures[:, -1] = 200, 7, 7
    one = example(index, None, pictures)
    moved = Shift(n_most, seed=0, epoch=epoch)(one).pictures
    places = np.argwhere(moved[..., 0] == 200)
    assert len(places) == 2
    assert (places[0, 1:] == places[1, 1:]).all()
    assert np.abs(places[0, 1:] - 4).max() <= n_most
    assert (moved[:, 0] == 7).all() or (moved[:, -1] == 7).all()
    again = Shift(n_most, seed=0, epoch=epoch)(replace(one, pictures=pictures[:1]))
    np.testing.assert_array_equal(again.pictures[0], moved[0])


def test_pictures_move_everywhere() -> None:
    spot = np.zeros((1, 5, 5, 1), np.uint8)
    spot[0, 2, 2] = 200
    moved = [Shift(1, seed=0, epoch=0)(example(n, None, spot)).pictures for n in range(200)]
    places = {tuple(np.argwhere(one[0, ..., 0] == 200)[0].tolist()) for one in moved}
    assert places == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}


@given(n=st.integers(1, 40), index=st.integers(0, 1000), is_log_mel=st.booleans())
def test_sound_is_turned_round_and_nothing_of_it_lost(
    *, n: int, index: int, is_log_mel: bool
) -> None:
    sound = np.arange(n, dtype=np.float32)
    whole = np.stack((sound, -sound), axis=1) if is_log_mel else sound
    one = example(index, whole)
    one.heard[:] = sound != n // 2
    turned = Roll(seed=0, epoch=3)(one)
    first = turned.sound[:, 0] if is_log_mel else turned.sound
    np.testing.assert_array_equal(first, (sound + first[0]) % n)
    assert turned.sound.shape == whole.shape
    np.testing.assert_array_equal(turned.heard, first != n // 2)
    np.testing.assert_array_equal(Roll(seed=0, epoch=3)(one).sound, turned.sound)


def test_sound_is_turned_anew_in_every_epoch_but_not_beside_pictures() -> None:
    sound = np.arange(4, dtype=np.float32)
    begins = {Roll(seed=0, epoch=n)(example(5, sound)).sound[0] for n in range(60)}
    assert begins == set(sound)
    assert not len(Roll(seed=0, epoch=0)(example(5)).sound)
    with pytest.raises(ConfigError, match=r"augment\.roll: is for sound alone"):
        Roll(seed=0, epoch=0)(example(5, sound, images(2)))


def test_sounds_are_mixed_with_less_of_another(tmp_path: Path) -> None:
    examples = world.corpus(tmp_path).examples["train"]
    sounds = [examples[n].sound for n in range(len(examples))]
    rolled = [[np.roll(one, n, axis=0) for n in range(len(one))] for one in sounds]
    shares, partners = [], []
    for epoch in range(40):
        one = examples[4]
        mixture = Mix(examples, 0.5, seed=0, epoch=epoch)(one)
        assert mixture.annotation == one.annotation
        # Least squares: which of all there are, turned round, and how much of it.
        tries = [
            (float(np.abs(mixture.sound - one.sound - share * (other - one.sound)).max()), share, n)
            for n, turns in enumerate(rolled)
            for other in turns
            for share in [_share(mixture.sound - one.sound, other - one.sound)]
        ]
        error, share, partner = min(tries)
        assert error < 1e-4
        shares.append(share)
        partners.append(partner)
        again = Mix(examples, 0.5, seed=0, epoch=epoch)(one)
        np.testing.assert_array_equal(again.sound, mixture.sound)
    assert min(shares) > -1e-4
    assert max(shares) < 0.5 + 1e-4
    assert max(shares) > 0.3
    assert len(set(partners)) > 10


def test_what_is_mixed_may_be_of_another_length(tmp_path: Path) -> None:
    examples = world.corpus(tmp_path).examples["train"]
    for n in (1, 5, 20):
        sound = np.zeros((n, world.N_BANDS), np.float32)
        mixture = Mix(examples, 0.5, seed=0, epoch=0)(example(7, sound))
        assert mixture.sound.shape == sound.shape
        assert mixture.sound.dtype == np.float32
        assert mixture.heard.all()
    assert not len(Mix(examples, 0.5, seed=0, epoch=0)(example(7)).sound)


def test_what_is_not_heard_of_either_is_not_heard_of_the_mixture(tmp_path: Path) -> None:
    examples = world.corpus(tmp_path).examples["train"]
    one = example(7, np.zeros((8, world.N_BANDS), np.float32))
    one.heard[3] = False
    assert Mix(examples, 0.5, seed=0, epoch=0)(one).heard.tolist() == [n != 3 for n in range(8)]


def test_only_what_is_asked_for_is_changed(tmp_path: Path) -> None:
    examples = world.corpus(tmp_path).examples["train"]
    assert augmented(AugmentSettings(), examples, seed=0, epoch=0) == []
    every = AugmentSettings(roll=True, mix=0.3, shift_pixels=1)
    changes = augmented(every, examples, seed=0, epoch=0)
    assert [type(change) for change in changes] == [Shift, Mix, Roll]


def test_a_training_changes_its_examples(tmp_path: Path) -> None:
    settings = world.settings(augment={"roll": True})
    with pytest.raises(ConfigError, match=r"augment\.roll: is for sound alone"):
        train(settings, world.corpus(tmp_path / "shards"), tmp_path / "run")


@given(st.integers(0, 30), st.integers(0, 1000))
def test_masks_hide_no_more_than_they_may(n_frames: int, index: int) -> None:
    augment = AugmentSettings(n_masks=2, widest_time=0.25, widest_bands=3)
    fill = torch.arange(8.0)
    masks = Masks(augment, fill, seed=0, epoch=1)
    frames = torch.full((1, 30, 8), 99.0)
    masks(frames, [index], [n_frames])
    hidden = frames[0] == fill
    assert bool((hidden | (frames[0] == 99)).all())
    whole_bands = hidden.all(dim=0)
    whole_frames = hidden.all(dim=1)
    assert int(whole_bands.sum()) <= 2 * 3
    assert int(whole_frames.sum()) <= 2 * int(0.25 * n_frames)
    assert not bool(hidden[~whole_frames][:, ~whole_bands].any())
    again = torch.full((1, 30, 8), 99.0)
    masks(again, [index], [n_frames])
    assert torch.equal(again, frames)


def test_swapped_sounds_are_of_another_class(tmp_path: Path) -> None:
    examples = world.corpus(tmp_path).examples["train"]
    swapped = Swapped(examples, world.TASK, seed=0)
    assert len(swapped) == len(examples)
    for nth, sound in enumerate(swapped.sounds):
        assert nth % 3 != sound % 3
        np.testing.assert_array_equal(swapped[nth].sound, examples[sound].sound)
        np.testing.assert_array_equal(swapped[nth].pictures, examples[nth].pictures)
        assert swapped[nth].annotation == examples[nth].annotation
    assert Swapped(examples, world.TASK, seed=0).sounds == swapped.sounds
    assert Swapped(examples, world.TASK, seed=1).sounds != swapped.sounds
    with pytest.raises(ConfigError, match="two classes of colour: got none"):
        Swapped(examples, "colour", seed=0)


def test_who_is_of_no_known_class_is_not_swapped(tmp_path: Path) -> None:
    whole = world.corpus(tmp_path).examples["train"]
    told = [nth for nth in range(len(whole)) if nth % 4]
    items = [
        item if nth in told else replace(item, annotation=replace(item.annotation, labels=()))
        for nth, item in enumerate(whole.items)
    ]
    examples = ExampleDataset(items, Shards(tmp_path))
    swapped = Swapped(examples, world.TASK, seed=0)
    assert list(swapped.seen) == told
    assert [swapped[nth].index for nth in range(len(swapped))] == told
    assert set(swapped.sounds) <= set(told)
    for nth, (seen, heard) in enumerate(zip(swapped.seen, swapped.sounds, strict=True)):
        assert seen % 3 != heard % 3
        np.testing.assert_array_equal(swapped[nth].sound, examples[heard].sound)
    alone = [items[0], items[1]]
    with pytest.raises(ConfigError, match=f"two classes of {world.TASK}: got 1"):
        Swapped(ExampleDataset(alone, Shards(tmp_path)), world.TASK, seed=0)


def test_loading_draws_nothing_that_training_draws(tmp_path: Path) -> None:
    examples = world.corpus(tmp_path).examples["train"]
    before = torch.random.get_rng_state()
    collate = Collator(world.settings().model)
    batches = list(loader(examples, [3, 1, 4, 0, 5], collate, n_batch=2))
    assert [batch.indices for batch in batches] == [(3, 1), (4, 0), (5,)]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_statistics_are_of_the_frames_that_are_there() -> None:
    collate = Collator(model("audio"))
    sounds = [np.random.default_rng(n).normal(n, n, (n, 8)).astype(np.float32) for n in (2, 7, 5)]
    batches = [
        collate([example(0, sounds[0]), example(1, sounds[1])]),
        collate([example(2, sounds[2])]),
    ]
    mean, std = frame_statistics(batches)
    every = np.concatenate(sounds)
    np.testing.assert_allclose(mean.numpy(), every.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(std.numpy(), every.std(axis=0), rtol=1e-5)
    with pytest.raises(ScorerError, match="no training example has sound"):
        frame_statistics([])
