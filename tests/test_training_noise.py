"""Noise is as loud as was asked for, and the same for all who ask for the same example."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_factory import Sound, Video, write_media

from mmstream.codecs import read_audio
from mmstream.errors import ConfigError
from mmstream.media import Floats
from mmstream.training.dataset import Example, ExampleDataset, Item
from mmstream.training.manifest import Annotation, ManifestSettings
from mmstream.training.noise import Noise, NoiseSettings, mixed, read_noise
from mmstream.training.recordings import Piece
from mmstream.training.shards import Keyed, write_shards

RATE_HZ = 16_000
SPLITS = ("train", "train", "val", "test", "test")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> ManifestSettings:
    folder = tmp_path_factory.mktemp("noise")
    names = sorted(path.name for path in (data_dir / "esc10" / "audio").iterdir())[::60]
    rows = [f"{name},{split}" for name, split in zip(names, SPLITS, strict=False)]
    (folder / "noise.csv").write_text("path,split\n" + "\n".join(rows) + "\n")
    return ManifestSettings(path=folder / "noise.csv", media=data_dir / "esc10" / "audio")


@pytest.fixture(scope="module")
def recordings(
    manifest: ManifestSettings, tmp_path_factory: pytest.TempPathFactory
) -> ExampleDataset:
    found = read_noise(NoiseSettings(recordings=manifest), tmp_path_factory.mktemp("shards"))
    assert {split: len(each) for split, each in found.items()} == {"train": 2, "val": 1, "test": 2}
    return found["test"]


@pytest.fixture(scope="module")
def word(data_dir: Path) -> Example:
    """With a fifth of it unheard."""
    sound = read_audio(data_dir / "fsdd" / "recordings" / "2_jackson_0.flac", RATE_HZ)
    heard = np.ones(sound.size, np.bool_)
    heard[: sound.size // 5] = False
    none = np.zeros((0, 1, 1, 1), np.uint8)
    return Example(3, Annotation("test"), sound, heard, none, np.zeros(0, np.float32))


def added(noise: Noise, word: Example) -> Floats:
    return noise(word).sound - word.sound


def ratio_db(word: Example, noise: Floats) -> float:
    powers = [np.mean(one[word.heard].astype(np.float64) ** 2) for one in (word.sound, noise)]
    return float(10 * np.log10(powers[0] / powers[1]))


@given(snr_db=st.floats(-20, 20), index=st.integers(0, 1000))
def test_the_ratio_is_that_of_powers_where_it_was_heard(
    recordings: ExampleDataset, word: Example, snr_db: float, index: int
) -> None:
    noise = Noise(recordings, snr_db=(snr_db, snr_db), clean=0, seed=0)
    got = added(noise, replace(word, index=index))
    assert ratio_db(word, got) == pytest.approx(snr_db, abs=0.01)


def test_a_test_has_the_same_noise_at_every_ratio(
    recordings: ExampleDataset, word: Example
) -> None:
    loud, quiet = (
        added(Noise(recordings, snr_db=(db, db), clean=0, seed=0), word) for db in (-10, 0)
    )
    np.testing.assert_allclose(loud, quiet * np.sqrt(10), rtol=1e-3, atol=1e-4)


def test_it_is_drawn_by_seed_epoch_and_example(recordings: ExampleDataset, word: Example) -> None:
    def drawn(seed: int, epoch: int, index: int) -> bytes:
        noise = Noise(recordings, snr_db=(-5, 5), clean=0.2, seed=seed, epoch=epoch)
        return noise(replace(word, index=index)).sound.tobytes()

    keys = [(seed, epoch, index) for seed in (0, 1) for epoch in (0, 1) for index in range(4)]
    sounds = {key: drawn(*key) for key in keys}
    assert {key: drawn(*key) for key in reversed(keys)} == sounds
    assert len(set(sounds.values())) >= len(keys) - 8  # but for the clean ones, all differ


def test_some_stay_clean_and_the_others_lie_in_the_range(
    recordings: ExampleDataset, word: Example
) -> None:
    noise = Noise(recordings, snr_db=(-5, 5), clean=0.25, seed=0)
    each = [added(noise, replace(word, index=index)) for index in range(200)]
    ratios = [ratio_db(word, one) for one in each if one.any()]
    assert 0.15 < 1 - len(ratios) / len(each) < 0.35
    assert min(ratios) < -4 < 4 < max(ratios)
    assert -5.01 < min(ratios) <= max(ratios) < 5.01


def test_silence_and_what_has_no_sound_stay_as_they_are(
    recordings: ExampleDataset, word: Example
) -> None:
    noise = Noise(recordings, snr_db=(0, 0), clean=0, seed=0)
    silent = replace(word, sound=np.zeros_like(word.sound))
    assert not noise(silent).sound.any()
    unheard = mixed(word.sound, word.sound, np.zeros_like(word.heard), snr_db=0)
    np.testing.assert_array_equal(unheard, word.sound)
    gone = replace(word, sound=word.sound[:0], heard=word.heard[:0])
    assert noise(gone) is gone


def test_noise_shorter_than_the_example_is_repeated(
    recordings: ExampleDataset, word: Example
) -> None:
    minute = np.tile(word.sound, 60)
    long = replace(word, sound=minute, heard=np.ones(minute.size, np.bool_))
    noise = Noise(recordings, snr_db=(3, 3), clean=0, seed=0)
    assert ratio_db(long, added(noise, long)) == pytest.approx(3, abs=0.01)


def test_a_recording_that_is_silent_but_for_a_click_is_heard(tmp_path: Path, word: Example) -> None:
    click = np.zeros(20 * RATE_HZ, np.int16)
    click[7 * RATE_HZ : 7 * RATE_HZ + 50] = 3000
    whole = np.array([[0, click.size]])
    none = np.zeros((0, 1, 1, 1), np.uint8)
    made = Keyed("click", Piece(click, whole, none, np.zeros(0, np.int64)))
    shards = write_shards(tmp_path, ["click"], lambda _missing: [made])
    only = ExampleDataset([Item("click", Annotation("test"))], shards)
    noise = Noise(only, snr_db=(0, 0), clean=0, seed=0)
    heard = replace(word, heard=np.ones_like(word.heard))
    for index in range(20):
        got = added(noise, replace(heard, index=index))
        assert ratio_db(heard, got) == pytest.approx(0, abs=0.01)


def test_recordings_without_any_sound_are_refused(tmp_path: Path) -> None:
    """One is silent; of another the sound is over before the span begins."""
    tone = np.sin(np.arange(RATE_HZ) * 0.1).astype(np.float32)
    grey = Video([np.full((32, 32, 3), 90, np.uint8)] * 50)
    write_media(tmp_path / "loud.wav", Sound(tone, "pcm_s16le", RATE_HZ))
    write_media(tmp_path / "silent.wav", Sound(tone * 0, "pcm_s16le", RATE_HZ))
    write_media(tmp_path / "over.mkv", grey, Sound(tone, "pcm_s16le", RATE_HZ))
    rows = ("loud.wav,,,train", "over.mkv,1.2,1.9,val", "silent.wav,,,test")
    path = tmp_path / "noise.csv"
    path.write_text("\n".join(("path,start,end,split", *rows)))
    with pytest.raises(ConfigError) as caught:
        read_noise(NoiseSettings(recordings=ManifestSettings(path=path)), tmp_path / "shards")
    assert str(caught.value).splitlines() == [
        f"{path}:3: path: {tmp_path}/over.mkv is silent there",
        f"{path}:4: path: {tmp_path}/silent.wav is silent there",
    ]


def test_log_mel_cannot_be_mixed(recordings: ExampleDataset, word: Example) -> None:
    frames = replace(word, sound=np.zeros((4, 8), np.float32), heard=np.ones(4, np.bool_))
    with pytest.raises(ConfigError, match="keeps log-mel energies"):
        Noise(recordings, snr_db=(0, 0), clean=0, seed=0)(frames)


def test_every_split_needs_noise_of_its_own(manifest: ManifestSettings, tmp_path: Path) -> None:
    text = manifest.path.read_text().splitlines()
    (tmp_path / "few.csv").write_text("\n".join(one for one in text if "val" not in one))
    few = manifest.model_copy(update={"path": tmp_path / "few.csv"})
    with pytest.raises(ConfigError, match="got none of val"):
        read_noise(NoiseSettings(recordings=few), tmp_path / "shards")
    (tmp_path / "leak.csv").write_text("\n".join([*text, text[1].replace("train", "test")]))
    leak = manifest.model_copy(update={"path": tmp_path / "leak.csv"})
    with pytest.raises(ConfigError, match="shares time of the same recording"):
        read_noise(NoiseSettings(recordings=leak), tmp_path / "shards")
    with pytest.raises(ValueError, match="least, most"):
        NoiseSettings(recordings=manifest, snr_db=(5, -5))
