"""Claims about real digits: what is said of an example is what is in it."""

from pathlib import Path

import numpy as np
import pytest

from mmstream.errors import ConfigError
from mmstream.training.digit_claims import (
    TASK,
    TRUTH,
    DigitClaimSettings,
    read_digit_claims,
)
from mmstream.training.digits import DigitSettings, written


def few(data_dir: Path, **changes: object) -> DigitClaimSettings:
    sizes = {"data": data_dir, "n_train": 100, "n_claims": 130, "n_val": 50, "n_test": 70}
    return DigitClaimSettings.model_validate(sizes | changes)


def test_an_example_is_what_its_labels_say(tmp_path: Path, data_dir: Path) -> None:
    settings = few(data_dir)
    data = read_digit_claims(settings, tmp_path)
    images = written(settings)
    for split, examples in data.items():
        known = {
            image.tobytes(): str(digit)
            for image, digit in zip(images[split].images, images[split].digits, strict=True)
        }
        for example in (examples[nth] for nth in range(len(examples))):
            annotation = example.annotation
            assert (example.sound.shape, example.pictures.shape) == ((64, 64), (1, 28, 28, 1))
            assert known[example.pictures.tobytes()] == annotation.class_of("seen")
            assert annotation.group[0] == annotation.class_of("heard")
            assert annotation.class_of(TASK) in TRUTH
            assert annotation.caption.count(" ") >= 2
            assert np.ptp(example.sound) > 3  # somebody speaks


def test_splits_share_no_recording_and_a_seed_says_it_all(tmp_path: Path, data_dir: Path) -> None:
    data = read_digit_claims(few(data_dir), tmp_path / "a")
    again = read_digit_claims(few(data_dir), tmp_path / "b")
    other = read_digit_claims(few(data_dir, seed=1), tmp_path / "a")
    assert [len(data[split]) for split in ("train", "val", "test")] == [130, 50, 70]
    groups = {split: {item.annotation.group for item in each.items} for split, each in data.items()}
    takes = {split: {int(name.split("_")[2]) for name in groups[split]} for split in groups}
    assert takes["test"] <= set(range(5))
    assert takes["val"] <= set(range(5, 10))
    assert takes["train"] <= set(range(10, 50))
    assert data["test"].items == again["test"].items
    assert np.array_equal(data["test"][0].sound, again["test"][0].sound)
    assert data["test"].items != other["test"].items


def test_a_speaker_is_held_out(tmp_path: Path, data_dir: Path) -> None:
    data = read_digit_claims(few(data_dir, held_out="theo"), tmp_path)
    speakers = {
        split: {item.annotation.group.split("_")[1] for item in each.items}
        for split, each in data.items()
    }
    assert speakers["test"] == {"theo"}
    assert "theo" not in speakers["train"] | speakers["val"]


def test_too_few_images_are_refused(tmp_path: Path, data_dir: Path) -> None:
    with pytest.raises(ConfigError, match="n_test: more, so that each digit is among them: got 60"):
        read_digit_claims(few(data_dir, n_test=60), tmp_path)


def test_without_files_it_says_which(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"images-idx3-ubyte\.gz: cannot be read"):
        written(DigitSettings(data=tmp_path))
