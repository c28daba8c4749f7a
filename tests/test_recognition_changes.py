"""Laws of what is a change, on textured pictures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmstream.media import NS_PER_SEC, Bytes
from mmstream.recognition.changes import Changes, places

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


@settings(max_examples=10, deadline=None)
@given(_SEEDS)
def test_a_cut_is_picked_once_when_it_has_settled(seed: int) -> None:
    assert _picked([_scene(seed)] * 20 + [_scene(seed + 100)] * 60) == [25]


@settings(max_examples=10, deadline=None)
@given(_SEEDS, st.integers(1, 4))
def test_what_comes_is_picked_and_what_goes_too(seed: int, n_places: int) -> None:
    empty = _scene(seed)
    there = empty.copy()
    there[20:80, : 20 * n_places] = 255 - there[20:80, : 20 * n_places] // 2
    assert _picked([empty] * 10 + [there] * 20 + [empty] * 20) == [15, 35]


@settings(max_examples=10, deadline=None)
@given(_SEEDS, st.integers(1, 4))
def test_a_flash_is_nothing_new(seed: int, n_long: int) -> None:
    flash = np.full_like(_scene(seed), 255)
    assert _picked([_scene(seed)] * 10 + [flash] * n_long + [_scene(seed)] * 20) == []


@settings(max_examples=10, deadline=None)
@given(_SEEDS)
def test_noise_is_nothing_new(seed: int) -> None:
    random = np.random.default_rng(seed)
    noisy = [_scene(seed) + random.normal(0, 12, (90, 160)) for _ in range(40)]
    assert _picked([np.clip(one, 0, 255).astype(np.uint8) for one in noisy]) == []


@settings(max_examples=10, deadline=None)
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


def test_what_never_settles_is_picked_after_a_while() -> None:
    pictures = [_scene(0)] * 10 + [_scene(i) for i in range(1, 36)]
    assert _picked(pictures) == [40]


def test_lost_time_does_not_settle_anything() -> None:
    changes = Changes()
    assert not changes.look(_scene(0), 0)
    assert not changes.look(_scene(1), NS_PER_SEC)
    changes.interrupt()
    assert not changes.look(_scene(1), 9 * NS_PER_SEC)
    assert changes.look(_scene(1), 10 * NS_PER_SEC)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (1080, 1920)])
def test_pictures_of_any_size_have_the_same_places(shape: tuple[int, int]) -> None:
    assert np.array_equal(places(np.full(shape, 77, np.uint8)), np.full((9, 16), 77))
