import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from recordings import read_frames
from test_detectors_motion import THIRD, cut, frames_of, textured, with_patch

from mmstream.codecs import image_from_array
from mmstream.config import load
from mmstream.detectors.masks import Polygon, blackened, greyed, ignored
from mmstream.detectors.motion import MotionSettings
from mmstream.detectors.presence import PresenceSettings
from mmstream.errors import ConfigError
from mmstream.media import NS_PER_SEC, Box, Bytes, Floats, VideoFrame
from mmstream.stages import Load, ScorerSpec

CORNER = [[0, 0], [0.3, 0], [0.3, 0.1], [0, 0.1]]
EVERYTHING = [[0, 0], [1, 0], [1, 1], [0, 1]]
BOTH = pytest.mark.parametrize("kind", [MotionSettings, PresenceSettings])
Kind = type[MotionSettings] | type[PresenceSettings]


def rectangle(left: float, top: float, right: float, bottom: float) -> Polygon:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def scores(frames: list[VideoFrame], spec: ScorerSpec) -> Floats:
    scorer, name = spec.build("cpu"), spec.labels[0].name
    told = [one for hop in cut(frames) for one in scorer.score([hop], (), Load.FULL)]
    values = [one.outputs[name].values for one in told if name in one.outputs]
    return np.concatenate([*values, np.zeros(0, np.float32)])


@BOTH
def test_masks_are_read_from_yaml_by_source(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "masks.yaml"
    path.write_text(
        "masks: {door: [[[0, 0], [0.3, 0], [0.3, 0.1], [0, 0.1]], [[1, 1], [0.5, 1], [1, 0.5]]]}\n"
    )
    masks = load(path, kind).masks
    assert list(masks) == ["door"]
    assert masks["door"] == (rectangle(0, 0, 0.3, 0.1), ((1, 1), (0.5, 1), (1, 0.5)))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{door: [[[0, 0], [1, 1]]]}", "masks.door.0: must have at least 3"),
        ("{door: [[[0, 0], [1, 0], [1, 1.5]]]}", "masks.door.0.2.1: must be less than or equal"),
        ("{door: [[[0, 0], [1, 0], [1]]]}", "masks.door.0.2.1: missing"),
        ("{door: [[0, 0], [1, 0], [1, 1]]}", "must be a list"),
        ("{door: [[[0, 0], [1, 0], [1, 1], [0, 1]]]}", "masks.door: these masks leave nothing"),
    ],
)
def test_what_is_wrong_with_a_mask_is_said(tmp_path: Path, written: str, said: str) -> None:
    path = tmp_path / "masks.yaml"
    path.write_text(f"masks: {written}\n")
    with pytest.raises(ConfigError) as caught:
        load(path, MotionSettings)
    assert said in str(caught.value)


@BOTH
def test_settings_with_masks_travel_and_have_a_hash(kind: Kind) -> None:
    masks = {"door": [CORNER], "yard": [CORNER, CORNER[:3]]}
    spec, other = kind.model_validate({"masks": masks}), kind()
    twin = kind.model_validate({"masks": dict(reversed(masks.items()))})
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301 - our own bytes
    assert (spec, hash(spec)) == (twin, hash(twin))
    assert len({spec, twin, other, kind()}) == 2
    assert other.masks == {}
    assert kind.model_validate(spec.model_dump(mode="json")) == spec


def test_two_halves_leave_nothing_either() -> None:
    halves = [rectangle(0, 0, 0.5, 1), rectangle(0.5, 0, 1, 1)]
    with pytest.raises(ValidationError, match="leave nothing"):
        MotionSettings.model_validate({"masks": {"door": halves}})
    nearly = [rectangle(0, 0, 0.5, 1), rectangle(0.5, 0, 1, 0.9)]
    assert MotionSettings.model_validate({"masks": {"door": nearly}}).masks["door"]


@given(
    sides=st.tuples(*[st.floats(0, 1)] * 4),
    height=st.integers(1, 200),
    width=st.integers(1, 200),
)
def test_what_lies_within_is_ignored_and_what_lies_without_is_not(
    sides: tuple[float, float, float, float], height: int, width: int
) -> None:
    left, right = sorted(sides[:2])
    top, bottom = sorted(sides[2:])
    raster = ignored((rectangle(left, top, right, bottom),), height, width)
    across, down = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    inside = np.outer((down > top) & (down < bottom), (across > left) & (across < right))
    near_across = (across > left - 1 / width) & (across < right + 1 / width)
    near = np.outer((down > top - 1 / height) & (down < bottom + 1 / height), near_across)
    assert raster.shape == (height, width)
    assert not np.any(inside & ~raster)
    assert not np.any(raster & ~near)
    assert not raster.flags.writeable


def test_what_is_masked_is_as_bright_as_the_rest() -> None:
    luma = textured()
    half = (rectangle(0, 0, 0.5, 1),)
    grey = greyed(luma, half)
    hidden = ignored(half, *luma.shape)
    np.testing.assert_array_equal(grey[~hidden], luma[~hidden])
    assert set(grey[hidden].tolist()) == {round(float(luma[~hidden].mean()))}
    assert greyed(luma, ()) is luma
    all_of_a_tiny_one = greyed(luma[:1, :1], (rectangle(0, 0, 0.9, 0.9),))
    assert all_of_a_tiny_one.shape == (1, 1)


def test_what_nobody_is_to_see_is_black_with_a_margin_and_the_rest_as_it_was() -> None:
    picture = np.random.default_rng(0).integers(1, 256, (90, 160, 3), np.uint8)
    image = image_from_array(picture)
    np.testing.assert_array_equal(blackened(image, 640, ()), image.rgb())
    small = blackened(image, 80, (rectangle(0, 0, 0.5, 1),))
    assert small.shape == (45, 80, 3)
    assert not small[:, :43].any()  # the edge is ignored, too, and two more
    np.testing.assert_array_equal(small[:, 43:], image.rgb((80, 45))[:, 43:])


@BOTH
def test_what_is_masked_is_not_seen_and_the_rest_is(kind: Kind) -> None:
    quiet = textured()
    inside, outside = with_patch(quiet, THIRD), with_patch(quiet, Box(0.8, 0.7, 0.1, 0.2))
    spec = kind.model_validate({"masks": {"cam": [rectangle(0.32, 0.32, 0.68, 0.68)]}})
    for picture, masked, unmasked in ((inside, False, True), (outside, True, True)):
        frames = frames_of([quiet] * 20 + [picture] * 10, 10)
        assert bool(scores(frames, spec).max() >= 0.5) is masked
        assert bool(scores(frames, kind()).max() >= 0.5) is unmasked
    elsewhere = kind.model_validate({"masks": {"yard": [rectangle(0.32, 0.32, 0.68, 0.68)]}})
    assert scores(frames_of([quiet] * 20 + [inside] * 10, 10), elsewhere).max() >= 0.5


@BOTH
def test_a_swaying_tree_is_masked(kind: Kind) -> None:
    quiet, leaves = textured(), textured(seed=3)
    pictures: list[Bytes] = []
    for n in range(80):
        picture, by = quiet.copy(), round(6 * np.sin(n / 3))
        picture[5:60, 90 + by : 140 + by] = leaves[5:60, 90:140]
        pictures.append(picture)
    frames = frames_of(pictures, 10)
    tree = kind.model_validate({"masks": {"cam": [[[0.5, 0], [0.95, 0], [0.95, 0.7], [0.5, 0.7]]]}})
    assert np.mean(scores(frames, kind()) >= 0.5) > 0.5
    assert scores(frames, tree).max() < 0.5
    passing = [with_patch(one, Box(0.1, 0.5, 0.1, 0.3)) for one in pictures[50:]]
    assert scores(frames_of([*pictures[:50], *passing], 10), tree).max() >= 0.5


def test_what_is_masked_does_not_make_it_another_picture_nor_noise() -> None:
    quiet, other = textured(), textured(seed=5)
    mask = rectangle(0, 0, 1, 0.7)
    spec = MotionSettings.model_validate({"masks": {"cam": [mask]}})
    changed = quiet.copy()
    changed[:60] = other[:60]
    assert scores(frames_of([quiet] * 20 + [changed] * 15, 10), spec).size == 25
    small = with_patch(changed, Box(0.4, 0.8, 0.06, 0.1))
    assert scores(frames_of([quiet] * 20 + [changed] * 5 + [small] * 5, 10), spec).max() >= 0.5


@BOTH
def test_a_masked_camera_may_shake(kind: Kind) -> None:
    wide = cv2.GaussianBlur(textured(1, 130, 220), (0, 0), 1.2)
    rng = np.random.default_rng(0)
    pictures: list[Bytes] = []
    for n in range(60):
        right, down = rng.integers(-4, 5, 2) if n >= 15 else (0, 0)
        picture = np.array(wide[20 + down : 110 + down, 30 + right : 190 + right], np.uint8)
        cv2.putText(picture, str(n), (4, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)  # overlay
        pictures.append(picture)
    spec = kind.model_validate({"masks": {"cam": [rectangle(0, 0, 0.3, 0.3)]}})
    assert scores(frames_of(pictures, 10), spec).max() < 0.5


def test_the_overlay_of_a_motorway_camera_is_masked(data_dir: Path) -> None:
    frames = list(read_frames(data_dir / "surveillance/highway_day.avi")[:300])
    road = [rectangle(0.18, 0, 1, 1), rectangle(0, 0.37, 1, 1)]  # leaves bushes and a caption
    caption = rectangle(0, 0.32, 0.18, 0.37)
    without = MotionSettings.model_validate({"masks": {"cam": road}})
    seen = scores(frames, without)
    assert frames[-1].start_ns > 11 * NS_PER_SEC
    assert np.mean(seen >= 0.5) > 0.05
    masked = MotionSettings.model_validate({"masks": {"cam": [*road, caption]}})
    assert scores(frames, masked).max() < 0.5


def test_a_picture_that_a_mask_covers_by_rounding_is_no_trouble() -> None:
    spec = MotionSettings.model_validate({"masks": {"cam": [rectangle(0, 0, 1, 0.95)]}})
    image = image_from_array(np.full((2, 2), 99, np.uint8), "gray")
    frames = [VideoFrame("cam", n * NS_PER_SEC // 10, image) for n in range(20)]
    assert scores(frames, spec).tolist() == [0] * 10
