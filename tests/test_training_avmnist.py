"""AV-MNIST: nothing of the test is in what is trained on, and it is as hard as it says."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from mmstream.codecs import read_audio
from mmstream.errors import ConfigError
from mmstream.training.avmnist import (
    NOISES,
    AvMnistSettings,
    _Maker,  # what goes into an example is not seen in it any more
    _mixed,
    read_avmnist,
)
from mmstream.training.manifest import Split


def few(data_dir: Path, **changes: object) -> AvMnistSettings:
    sizes = {"data": data_dir, "n_train": 40, "n_val": 10, "n_test": 20}
    return AvMnistSettings.model_validate(sizes | changes)


def speakers_and_takes(settings: AvMnistSettings, split: Split) -> set[tuple[str, int]]:
    pairs = _Maker(settings).pairs()
    return {(pair.word.speaker, pair.word.take) for pair in pairs if pair.split == split}


def test_splits_share_no_take_and_no_noise(data_dir: Path) -> None:
    settings = few(data_dir, n_train=2000, n_val=500, n_test=500)
    pairs = _Maker(settings).pairs()
    takes = {split: {take for _, take in speakers_and_takes(settings, split)} for split in NOISES}
    assert takes == {"train": set(range(10, 50)), "val": {5, 6, 7, 8, 9}, "test": set(range(5))}
    noises = {split: {p.noise for p in pairs if p.split == split} for split in NOISES}
    assert noises["train"].isdisjoint(noises["test"] | noises["val"])
    assert noises["val"].isdisjoint(noises["test"])
    assert all(pair.digit == pair.word.digit for pair in pairs)


def test_a_speaker_is_held_out(data_dir: Path) -> None:
    settings = few(data_dir, n_train=500, n_test=300, held_out="theo")
    assert "theo" not in {name for name, _ in speakers_and_takes(settings, "train")}
    tested = speakers_and_takes(settings, "test")
    assert {name for name, _ in tested} == {"theo"}
    assert max(take for _, take in tested) > 10
    with pytest.raises(ConfigError, match="no speaker 'tho'; allowed: george"):
        _Maker(few(data_dir, held_out="tho")).pairs()


def test_examples_are_the_same_again_and_by_another_seed_others(
    tmp_path: Path, data_dir: Path
) -> None:
    data = read_avmnist(few(data_dir), tmp_path / "a")
    again = read_avmnist(few(data_dir), tmp_path / "b")
    other = read_avmnist(few(data_dir, seed=1), tmp_path / "a")
    assert {split: len(each) for split, each in data.items()} == {
        "train": 40,
        "val": 10,
        "test": 20,
    }
    one = data["test"][0]
    assert one.annotation.class_of("digit") == "7"  # MNIST's first test image
    assert (one.sound.shape, one.pictures.shape) == ((64, 64), (1, 28, 28, 1))
    groups = {split: {item.annotation.group for item in data[split].items} for split in data}
    assert groups["train"].isdisjoint(groups["val"] | groups["test"])
    assert np.array_equal(one.sound, again["test"][0].sound)
    assert np.array_equal(one.pictures, again["test"][0].pictures)
    assert not np.array_equal(one.sound, other["test"][0].sound)


def test_images_keep_four_components_fitted_on_the_training_images(
    tmp_path: Path, data_dir: Path
) -> None:
    data = read_avmnist(few(data_dir), tmp_path)["test"]
    pixels = (data_dir / "mnist" / "train-images-idx3-ubyte.gz").read_bytes()
    train = np.frombuffer(gzip.decompress(pixels), np.uint8, 40 * 784, offset=16).reshape(40, 784)
    pixels = (data_dir / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes()
    test = np.frombuffer(gzip.decompress(pixels), np.uint8, 20 * 784, offset=16).reshape(20, 784)
    mean = train.mean(0)
    components = np.linalg.svd(train - mean, full_matrices=False)[2][:4]
    true = mean + (test - mean) @ components.T @ components
    found = np.stack([data[nth].pictures.reshape(784) for nth in range(20)])
    assert np.abs(found - true.clip(0, 255)).max() <= 0.51


@pytest.mark.parametrize("snr_db", [3.0, -10.0])
def test_the_mix_has_the_ratio_and_the_losses(data_dir: Path, snr_db: float) -> None:
    word = read_audio(data_dir / "fsdd/recordings/7_jackson_0.flac", 8000)
    noise = np.random.default_rng(0).normal(size=8000).astype(np.float32)  # all of it is used
    mixed = _mixed(word, noise, snr_db, np.random.default_rng(5))
    kept = _mixed(word, noise, 200.0, np.random.default_rng(5))  # the same spans, no noise
    assert 0.35 * word.size <= np.count_nonzero(np.abs(kept) > 1e-6) <= 0.85 * word.size
    assert np.sum(word**2) / np.sum((mixed - kept) ** 2) == pytest.approx(
        10 ** (snr_db / 10), rel=0.01
    )


def test_noise_is_as_loud_as_its_recording_and_silent_where_that_is(data_dir: Path) -> None:
    word = read_audio(data_dir / "fsdd/recordings/7_jackson_0.flac", 8000)
    noise = np.zeros(5 * 8000, np.float32)
    noise[:8000] = np.random.default_rng(0).normal(size=8000).astype(np.float32)
    noises = [
        _mixed(word, noise, 3.0, np.random.default_rng(nth))
        - _mixed(word, noise, 200.0, np.random.default_rng(nth))
        for nth in range(50)
    ]
    powers = np.array([np.mean(each**2) for each in noises])
    assert 0.5 < np.mean(powers < 1e-12) < 0.95  # four seconds of five are silent
    loudest = 5 * np.sum(word**2) / 8000 / 10**0.3  # all of the recording's sound in one second
    assert 0.6 * loudest < powers.max() <= 1.01 * loudest


def test_wrong_folders_and_sizes_are_refused(tmp_path: Path, data_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"images-idx3-ubyte\.gz: cannot be read"):
        _Maker(few(tmp_path)).pairs()
    with pytest.raises(ConfigError, match="60000"):
        _Maker(few(data_dir, n_train=59_000, n_val=2000))
