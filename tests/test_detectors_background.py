"""Cameras that shake and are turned, as both detectors see them."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from recordings import read_frames
from test_detectors_motion import FLASHED, QUIET, Seen, cut, frames_of, textured
from test_detectors_motion import watch as watch_motion
from test_detectors_presence import truth
from test_detectors_presence import watch as watch_presence

from mmstream.codecs import image_from_array
from mmstream.media import NS_PER_SEC, Bytes, Hop, VideoFrame

BOTH = pytest.mark.parametrize("watch", [watch_motion, watch_presence])
Watch = Callable[[Sequence[Hop]], Seen]
Aim = Callable[[int], tuple[float, float]]
"""By which fraction of its width and height the camera is turned at a picture."""

MARGIN = 0.13
_RANDOM = np.random.default_rng(1).uniform(-1, 1, (2000, 2))


def shaking(n: int) -> tuple[float, float]:
    """Anywhere within 3 %, anew at each picture."""
    return 0.03 * _RANDOM[n][0], 0.03 * _RANDOM[n][1]


def trembling(n: int) -> tuple[float, float]:
    return 0.006 * _RANDOM[n][0], 0.006 * _RANDOM[n][1]


def in_the_wind(n: int) -> tuple[float, float]:
    return 0.02 * np.sin(0.8 * n), 0.01 * np.sin(1.3 * n + 1)


def aimed(frames: Sequence[VideoFrame], aim: Aim) -> list[VideoFrame]:
    """What a camera with a narrower view sees of it."""
    seen = []
    for n, frame in enumerate(frames):
        luma = frame.image.luma
        height, width = luma.shape
        right, down = aim(n)
        moved = np.array([[1, 0, right * width], [0, 1, down * height]], np.float64)
        whole = cv2.warpAffine(luma, moved, (width, height), flags=cv2.WARP_INVERSE_MAP)
        x, y = round(MARGIN * width), round(MARGIN * height)
        inner = np.ascontiguousarray(whole[y : height - y, x : width - x], np.uint8)
        seen.append(VideoFrame("cam", frame.start_ns, image_from_array(inner, "gray")))
    return seen


def garden(data_dir: Path) -> list[VideoFrame]:
    """12 s in which nothing happens."""
    frames = read_frames(data_dir / "surveillance/garden_brightness_change.avi")
    there_and_back = [*range(24), *range(22, 0, -1)] * 4
    return [
        VideoFrame("cam", n * NS_PER_SEC // 12, frames[k].image)
        for n, k in enumerate(there_and_back[:144])
    ]


@BOTH
@pytest.mark.parametrize("aim", [trembling, in_the_wind])
def test_a_shaking_camera_sees_nothing_where_nothing_is(
    data_dir: Path, watch: Watch, aim: Aim
) -> None:
    seen = watch(cut(aimed(garden(data_dir), aim)))
    assert len(seen.at_ns) > 40
    assert seen.values.max() < 0.5


def assert_sees_the_cars(seen: Seen, data_dir: Path) -> None:
    cars = truth(data_dir, "car_detection.mp4")
    on = [span for span in seen.on() if span.duration_ns > NS_PER_SEC // 2]
    for start, end in cars:
        inside = [one for one in on if one.end_ns > start * 1e9 and one.start_ns < end * 1e9]
        assert inside
        assert abs(inside[0].start_ns / 1e9 - start) < 1  # seen later in a narrower view
    for one in on:
        assert any(a - 0.7 < one.start_ns / 1e9 < one.end_ns / 1e9 < b + 2 for a, b in cars)


@BOTH
@pytest.mark.parametrize("aim", [shaking, in_the_wind])
def test_a_shaking_camera_sees_who_comes(data_dir: Path, watch: Watch, aim: Aim) -> None:
    frames = read_frames(data_dir / "surveillance/car_detection.mp4")
    assert_sees_the_cars(watch(cut(aimed(frames, aim))), data_dir)


@BOTH
@pytest.mark.parametrize("by", [0.02, 0.05, 0.12])
def test_a_turned_camera_works_on_after_a_short_silence(
    data_dir: Path, watch: Watch, by: float
) -> None:
    frames = read_frames(data_dir / "surveillance/car_detection.mp4")
    turned_ns = 11 * NS_PER_SEC
    first = next(n for n, frame in enumerate(frames) if frame.start_ns > turned_ns)
    seen = watch(cut(aimed(frames, lambda n: (by, by / 3) if n >= first else (0, 0))))
    assert_sees_the_cars(seen, data_dir)
    silences_ns = [after - before for before, after in pairwise(seen.at_ns)]
    assert max(silences_ns) < 1.3 * NS_PER_SEC


@BOTH
def test_what_is_undone_is_told_where_it_was(watch: Watch) -> None:
    wide = cv2.GaussianBlur(textured(1, 130, 220), (0, 0), 1.2)
    shifted = np.array(wide[22:112, 34:194], np.uint8)
    someone = shifted.copy()
    someone[50:80, 100:130] = 235
    first: Bytes = np.array(wide[20:110, 30:190], np.uint8)
    frames = frames_of([first] * 20 + [shifted] * 3 + [someone] * 4, 10)
    seen = watch(cut(frames))
    assert seen.values[np.array(seen.at_ns) < frames[23].start_ns].max() < 0.5
    (span,) = seen.on()
    assert frames[23].start_ns <= span.start_ns <= frames[24].start_ns


@BOTH
def test_something_large_is_not_taken_for_the_camera(watch: Watch) -> None:
    pictures = []
    for n in range(20):
        picture = QUIET.copy()
        picture[10:80, 4 * n : 4 * n + 60] = textured(seed=9)[10:80, :60]
        pictures.append(picture)
    frames = frames_of([QUIET] * 20 + pictures, 10)
    assert len(watch(cut(frames)).on()) == 1


@BOTH
@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (300, 2), (7, 9)])
def test_pictures_of_any_size_are_taken(watch: Watch, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, shape, dtype=np.uint8) for _ in range(30)]
    assert watch(cut(frames_of(pictures, 10))).at_ns
    assert watch(cut(frames_of([FLASHED] * 20, 10))).values.max() < 0.5
