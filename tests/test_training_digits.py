"""The files of the digits, whole or not."""

import gzip
import shutil
from collections import Counter
from pathlib import Path

import pytest

from mmstream.errors import ConfigError
from mmstream.training.digits import DigitSettings, origin, spoken, written


@pytest.fixture
def linked(tmp_path: Path, data_dir: Path) -> Path:
    """A folder with links to both data sets, to be spoiled."""
    for name in ("mnist", "fsdd/recordings"):
        (tmp_path / name).mkdir(parents=True)
        for path in (data_dir / name).iterdir():
            (tmp_path / name / path.name).symlink_to(path)
    return tmp_path


def test_splits_are_those_of_the_files(data_dir: Path) -> None:
    settings = DigitSettings(data=data_dir, n_train=100, n_val=50, n_test=70)
    images = written(settings)
    assert {split: one.images.shape for split, one in images.items()} == {
        "train": (100, 28, 28),
        "val": (50, 28, 28),
        "test": (70, 28, 28),
    }
    words = spoken(settings)
    n_speakers = len({one.speaker for one in words["test"]})
    assert Counter(one.digit for one in words["test"]) == dict.fromkeys(range(10), 5 * n_speakers)
    takes = {split: {one.take for one in here} for split, here in words.items()}
    assert takes == {"test": set(range(5)), "val": set(range(5, 10)), "train": set(range(10, 50))}


def damaged(whole: bytes, how: str) -> bytes:
    match how:
        case "empty":
            return b""
        case "cut":
            return whole[: len(whole) // 2]
        case "flipped":
            return whole[:5000] + bytes(500) + whole[5500:]
        case "short":
            return gzip.compress(gzip.decompress(whole)[:-784], 1)
        case "nothing":
            return gzip.compress(b"\0\0")
        case _:
            return whole


@pytest.mark.parametrize("how", ["empty", "cut", "flipped", "short", "nothing", "few"])
def test_damaged_images_are_said(linked: Path, how: str) -> None:
    few = linked / "mnist" / "t10k-images-idx3-ubyte.gz"
    path = linked / "mnist" / "train-images-idx3-ubyte.gz"
    path.unlink()
    path.write_bytes(damaged(few.read_bytes(), how))
    said = "not MNIST's 60000 images" if how == "few" else r"train-images-idx3-ubyte\.gz: damaged: "
    with pytest.raises(ConfigError, match=said):
        written(DigitSettings(data=linked, n_train=10, n_val=10))


def test_what_does_not_belong_there_is_passed_by(linked: Path, data_dir: Path) -> None:
    folder = linked / "fsdd" / "recordings"
    for name in ("._0_theo_0.flac", "0_theo_0_copy_1.flac", "zero_theo_0.flac"):
        shutil.copy(folder / "0_theo_0.flac", folder / name)
    names = [
        {split: [one.path.name for one in words] for split, words in spoken(settings).items()}
        for settings in (DigitSettings(data=linked), DigitSettings(data=data_dir))
    ]
    assert names[0] == names[1]
    before = origin(data_dir, ["mnist"])
    (linked / "mnist" / "thumbnails").mkdir()
    assert origin(linked, ["mnist"]) == before


def test_a_digit_that_nobody_says_is_missed(linked: Path) -> None:
    for path in (linked / "fsdd" / "recordings").glob("7_*_[5-9].flac"):
        path.unlink()
    with pytest.raises(ConfigError, match="nobody says 7 for val in"):
        spoken(DigitSettings(data=linked))
