"""Laws of what is a change, on textured pictures."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import read_frames

from mmstream.media import NS_PER_SEC, Bytes
from mmstream.recognition.changes import GRID, Changes, places

_FPS = 10
_SEEDS = st.integers(0, 50)


def _scene(seed: int) -> Bytes:
    coarse = np.random.default_rng(seed).integers(30, 220, (9, 16), np.uint8)
    return np.kron(coarse, np.ones((10, 10), np.uint8))


def _picked(pictures: list[Bytes]) -> list[int]:
    """Numbers of those that are new; each is taken."""
    changes = Changes()
    picked = []
    for i, picture in enumerate(pictures):
        if changes.look(picture, i * NS_PER_SEC // _FPS):
            picked.append(i)
            changes.taken()
    return picked


@settings(max_examples=5, deadline=None)
@given(_SEEDS)
def test_a_cut_is_picked_once_when_it_has_settled(seed: int) -> None:
    assert _picked([_scene(seed)] * 20 + [_scene(seed + 100)] * 60) == [25]


@settings(max_examples=5, deadline=None)
@given(_SEEDS, st.integers(1, 4))
def test_what_comes_is_picked_and_what_goes_too(seed: int, n_places: int) -> None:
    empty = _scene(seed)
    there = empty.copy()
    there[20:80, : 20 * n_places] += np.uint8(128)  # wraps
    assert _picked([empty] * 10 + [there] * 20 + [empty] * 20) == [15, 35]


@settings(max_examples=5, deadline=None)
@given(_SEEDS, st.integers(1, 4))
def test_a_flash_is_nothing_new(seed: int, n_long: int) -> None:
    flash = np.full_like(_scene(seed), 255)
    assert _picked([_scene(seed)] * 10 + [flash] * n_long + [_scene(seed)] * 20) == []


@settings(max_examples=5, deadline=None)
@given(_SEEDS)
def test_noise_is_nothing_new(seed: int) -> None:
    random = np.random.default_rng(seed)
    noisy = [_scene(seed) + random.normal(0, 12, (90, 160)) for _ in range(40)]
    assert _picked([np.clip(one, 0, 255).astype(np.uint8) for one in noisy]) == []


@settings(max_examples=5, deadline=None)
@given(_SEEDS, st.floats(0.6, 1.15), st.integers(-20, 20))
def test_flicker_and_light_that_changes_everywhere_are_nothing_new(
    seed: int, gain: float, more: int
) -> None:
    lit = np.clip(_scene(seed) * gain + more, 0, 255).astype(np.uint8)
    assert _picked([_scene(seed), lit] * 20) == []
    assert _picked([_scene(seed)] * 10 + [lit] * 20) == []


def test_light_that_drifts_in_a_part_is_nothing_new() -> None:
    pictures = []
    for i in range(120 * _FPS):
        one = np.full((90, 160), 100, np.uint8)
        one[:, :60] += np.uint8(i * 60 // (120 * _FPS))
        pictures.append(one)
    assert _picked(pictures) == []
    assert len(_picked([pictures[0], *[pictures[-1]] * 20])) == 1


def test_what_moves_after_a_cut_is_picked_a_second_after_it() -> None:
    assert _picked([_scene(0)] * 10 + [_scene(i) for i in range(1, 36)]) == [20, 31, 42]


def _passing(seed: int, n: int) -> list[Bytes]:
    """Something dark that goes to and fro before a scene."""
    pictures = []
    for i in range(n):
        one = _scene(seed)
        left = 20 * (i % 5)
        one[20:60, left : left + 30] //= 4
        pictures.append(one)
    return pictures


@settings(max_examples=5, deadline=None)
@given(_SEEDS)
def test_what_goes_on_moving_is_picked_once_until_it_rests(seed: int) -> None:
    empty, moving = [_scene(seed)] * 10, _passing(seed, 100)
    assert _picked(empty + moving + empty + moving) == [40, 115, 150]


def _textured(seed: int) -> Bytes:
    return np.random.default_rng(seed).integers(60, 190, (90, 160), np.uint8)


@settings(max_examples=5, deadline=None)
@given(_SEEDS, st.integers(1, 8), st.floats(0.5, 1.3))
def test_light_on_a_part_of_what_has_texture_is_nothing_new(
    seed: int, n_columns: int, gain: float
) -> None:
    quiet = _textured(seed)
    lit = quiet.astype(np.float32)
    lit[:, : 10 * n_columns] *= gain
    assert _picked([quiet] * 10 + [np.clip(lit, 0, 255).astype(np.uint8)] * 20) == []
    covered = quiet.copy()
    covered[:, : 10 * n_columns] = _textured(seed + 100)[:, : 10 * n_columns] // 2
    assert _picked([quiet] * 10 + [covered] * 20) == [15]


def test_lost_time_does_not_settle_anything() -> None:
    changes = Changes()
    assert not changes.look(_scene(0), 0)
    assert not changes.look(_scene(1), NS_PER_SEC)
    changes.interrupt()
    assert not changes.look(_scene(1), 9 * NS_PER_SEC)
    assert changes.look(_scene(1), 10 * NS_PER_SEC)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (1080, 1920)])
def test_pictures_of_any_size_have_the_same_places(shape: tuple[int, int]) -> None:
    assert np.array_equal(places(np.full(shape, 77, np.uint8)), np.full((*GRID, 100), 77))


def test_each_place_has_its_own_samples() -> None:
    picture = np.kron(np.arange(144, dtype=np.uint8).reshape(GRID), np.ones((10, 10), np.uint8))
    found = places(picture)
    assert np.array_equal(found, np.repeat(np.arange(144), 100).reshape(*GRID, 100))


def _of_a_clip(path: Path) -> list[float]:
    """When its pictures are picked, in seconds."""
    changes, picked = Changes(), []
    for frame in read_frames(path):
        if changes.look(frame.image.luma, frame.start_ns):
            picked.append(frame.start_ns / NS_PER_SEC)
            changes.taken()
    return picked


def test_the_cuts_of_a_film_are_picked(data_dir: Path) -> None:
    picked = _of_a_clip(data_dir / "av_clips/big_buck_bunny_30s_6ch.mp4")
    for cut_secs in (11.88, 15.75, 23.04):  # seen frame by frame
        assert any(cut_secs + 0.4 < one < cut_secs + 1.2 for one in picked)


def test_who_comes_and_goes_is_picked_and_clouds_are_not(data_dir: Path) -> None:
    picked = _of_a_clip(data_dir / "surveillance/one_by_one_person.mp4")
    rows = csv.reader((data_dir / "events.tsv").read_text("utf-8").splitlines(), delimiter="\t")
    people = [row for row in rows if row[0].endswith("one_by_one_person.mp4")]
    changes = [float(secs) for row in people for secs in row[2:4]]
    assert len(changes) == 12
    assert all(any(-0.7 < one - change < 4 for one in picked) for change in changes)
    assert len(picked) <= 13
    assert _of_a_clip(data_dir / "surveillance/garden_brightness_change.avi") == []
