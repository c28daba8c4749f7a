from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmstream.features.video import (
    Shift,
    fit_luma,
    local_contrast,
    shift_between,
    unshifted,
    use_one_thread,
)
from mmstream.media import Bytes, Floats


def textured(height: int, width: int, seed: int = 0) -> Bytes:
    noise = np.random.default_rng(seed).integers(60, 180, (height, width), dtype=np.uint8)
    return np.asarray(cv2.blur(noise, (3, 3)), np.uint8)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1080, 1920), (180, 320)),
        ((432, 768), (180, 320)),
        ((1080, 960), (180, 160)),
        ((568, 320), (180, 101)),
        ((240, 320), (180, 240)),
        ((90, 160), (90, 160)),
        ((1, 5000), (1, 320)),
        ((5000, 1), (180, 1)),
    ],
)
def test_fits_and_keeps_the_aspect(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fit_luma(np.zeros(shape, np.uint8), max_width=320, max_height=180).shape == expected


@given(st.integers(1, 700), st.integers(1, 700))
def test_always_fits_and_is_never_made_larger(height: int, width: int) -> None:
    small = fit_luma(np.full((height, width), 77, np.uint8), max_width=64, max_height=36)
    assert small.shape[0] <= min(36, height)
    assert small.shape[1] <= min(64, width)
    assert small.min() == small.max() == 77


def test_scaling_averages_instead_of_picking_pixels() -> None:
    stripes = np.zeros((720, 1280), np.uint8)
    stripes[:, ::2] = 200
    small = fit_luma(stripes, max_width=320, max_height=180)
    np.testing.assert_array_equal(small, np.full((180, 320), 100))


def test_what_is_where_stays_there() -> None:
    picture = np.zeros((1080, 1920), np.uint8)
    picture[270:540, 480:960] = 255
    rows, columns = np.nonzero(fit_luma(picture, max_width=320, max_height=180) > 127)
    box = (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)
    assert box == (45, 90, 80, 160)


@pytest.mark.parametrize(
    "view",
    [
        lambda whole: whole[:, :300],  # rows with padding behind them, as a decoder leaves them
        lambda whole: np.rot90(whole, 1),
        lambda whole: np.rot90(whole, 2),
    ],
)
def test_takes_read_only_views(view: Callable[[Bytes], Bytes]) -> None:
    whole = textured(400, 352)
    whole.flags.writeable = False
    copy = np.ascontiguousarray(view(whole))
    small = fit_luma(view(whole), max_width=128, max_height=128)
    np.testing.assert_array_equal(small, fit_luma(copy, max_width=128, max_height=128))
    contrast = local_contrast(view(whole), window=9, softness=1)
    np.testing.assert_array_equal(contrast, local_contrast(copy, window=9, softness=1))


def test_contrast_is_the_distance_from_the_mean_in_deviations() -> None:
    luma = textured(40, 50)
    contrast = local_contrast(luma, window=7, softness=5)
    around = luma[10:17, 20:27].astype(float)
    expected = (luma[13, 23] - around.mean()) / (around.std() + 5)
    assert contrast.dtype == np.float32
    assert contrast.shape == luma.shape
    assert contrast[13, 23] == pytest.approx(expected, abs=1e-4)


@given(gain=st.floats(0.7, 1.3), offset=st.integers(-20, 20))
def test_contrast_hardly_depends_on_the_light(gain: float, offset: int) -> None:
    luma = textured(60, 80)
    lit = np.clip(luma * gain + offset, 0, 255).round().astype(np.uint8)
    before = local_contrast(luma, window=15, softness=1)
    after = local_contrast(lit, window=15, softness=1)
    assert np.abs(after - before).max() < 0.3
    assert before.std() > 0.8


def test_contrast_of_a_plain_wall_is_small_whatever_the_noise() -> None:
    noise = np.random.default_rng(0).normal(0, 2, (90, 160))
    wall = (100 + noise).round().astype(np.uint8)
    assert local_contrast(wall, window=31, softness=10).std() < 0.2


def test_cv2_keeps_to_one_thread() -> None:
    before = cv2.getNumThreads()
    try:
        use_one_thread()
        assert cv2.getNumThreads() == 1
    finally:
        cv2.setNumThreads(before)


@given(right=st.floats(-12, 12), down=st.floats(-9, 9), seed=st.integers(0, 20))
def test_a_shift_is_found_to_a_fraction_of_a_pixel(right: float, down: float, seed: int) -> None:
    before, after = contrasts_apart(right, down, seed)
    found = shift_between(before, after)
    assert found.minus(Shift(right, down)).length < 0.25


def test_a_shift_is_found_although_a_part_has_moved_by_itself() -> None:
    before, after = contrasts_apart(3.5, -2.25)
    after[20:60, 30:80] = contrasts_apart(0, 0, seed=7)[0][20:60, 30:80]
    assert shift_between(before, after).minus(Shift(3.5, -2.25)).length < 0.25


def test_a_shift_undone_brings_back_what_was_in_view() -> None:
    before, after = contrasts_apart(4, -3)
    nothing = np.full_like(before, 9)
    back = unshifted(after, Shift(4, -3), onto=nothing)
    np.testing.assert_allclose(back[3:, :-4], before[3:, :-4], atol=1e-4)
    assert np.all(back[:3] == 9)
    assert np.all(back[:, -4:] == 9)
    np.testing.assert_array_equal(nothing, 9)


def test_shifts_add_up() -> None:
    assert Shift(3, 4).length == 5
    assert Shift(3, 4).times(2).minus(Shift(1, 1)) == Shift(5, 7)


def contrasts_apart(right: float, down: float, seed: int = 0) -> tuple[Floats, Floats]:
    """[90, 160] of one scene, the second seen by a camera that was moved."""
    scene = cv2.GaussianBlur(textured(130, 200, seed).astype(np.float32), (0, 0), 2)
    scene = (scene - scene.mean()) / scene.std()
    moved = np.array([[1, 0, -right], [0, 1, -down]], np.float64)
    size = (scene.shape[1], scene.shape[0])
    later = cv2.warpAffine(scene, moved, size, flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
    inner = slice(20, 110), slice(20, 180)
    return scene[inner].astype(np.float32), later[inner].astype(np.float32)
