from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmstream.codecs import image_from_array
from mmstream.detectors.foreground import Cadence, judge
from mmstream.detectors.motion import MotionSettings
from mmstream.detectors.presence import PresenceSettings
from mmstream.media import NS_PER_SEC, Bytes, Hop, Span, VideoFrame
from mmstream.stages import Load, Scorer

NOTHING = np.zeros(0, np.float32)
HOP_NS = NS_PER_SEC // 4


def due(max_fps: float, at_secs: Sequence[float]) -> list[float]:
    cadence = Cadence(max_fps)
    return [at for at in at_secs if cadence.is_due(round(at * NS_PER_SEC))]


def test_pictures_are_due_once_in_each_slot_of_a_grid_that_begins_with_the_first() -> None:
    at_secs = [7.03 + n / 30 for n in range(90)]
    assert len(due(10, at_secs)) == 30
    assert due(10, at_secs) == pytest.approx([7.03 + n / 10 for n in range(30)])


@pytest.mark.parametrize("fps", [1.0, 4.0, 10.0])
def test_a_camera_that_is_slower_than_the_cadence_or_jitters_loses_no_picture(fps: float) -> None:
    jitter = np.random.default_rng(0).uniform(-0.02, 0.02, 40)
    at_secs = [n / fps + away for n, away in enumerate(jitter.tolist(), start=1)]
    assert due(10, [1 / fps, *at_secs[1:]]) == [1 / fps, *at_secs[1:]]


def test_a_picture_is_judged_by_its_largest_patch() -> None:
    mask = np.zeros((90, 160), np.bool_)
    assert judge(5, mask, min_area=0.01, halved=False).score == 0
    mask[20:40, 30:60] = True
    mask[60:70, 100:110] = True
    look = judge(5, mask, min_area=600 / 14_400, halved=False)
    assert look.score == pytest.approx(0.5, abs=0.02)
    assert judge(5, mask, min_area=0.005, halved=False).boxes[0].width == pytest.approx(
        30 / 160, abs=0.02
    )
    assert len(judge(5, mask, min_area=0.005, halved=False).boxes) == 2


def picture(size: tuple[int, int], kind: str, n: int) -> Bytes:
    """[h, w]"""
    rng = np.random.default_rng(n)
    if kind == "flat":
        return np.full(size, 128, np.uint8)
    if kind == "noise":
        return rng.integers(0, 256, size, dtype=np.uint8)
    textured = np.random.default_rng(1).integers(60, 120, size, dtype=np.uint8)
    textured[n % size[0] :, : n % size[1] + 1] = 240
    return textured


SIDES = st.sampled_from([1, 2, 3, 5, 16, 33, 90, 200, 1000])


@pytest.mark.parametrize(
    "scorer", [MotionSettings(), PresenceSettings()], ids=lambda one: one.labels[0].name
)
@settings(max_examples=25)
@given(
    sizes=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=2),
    kind=st.sampled_from(["flat", "noise", "moves"]),
    fps=st.sampled_from([1, 8, 30, 120]),
    twice=st.booleans(),
)
def test_pictures_of_any_size_and_rate_are_survived_and_those_that_come_twice_are_told_once(
    *,
    scorer: MotionSettings | PresenceSettings,
    sizes: Sequence[tuple[int, int]],
    kind: str,
    fps: int,
    twice: bool,
) -> None:
    one: Scorer = scorer.build("cpu")
    told_ns: list[int] = []
    n_all = min(60, 4 * fps)
    frames = [
        VideoFrame(
            "cam",
            n * NS_PER_SEC // fps,
            image_from_array(picture(sizes[n * len(sizes) // n_all], kind, n), "gray"),
        )
        for n in range(n_all)
        for _ in range(1 + twice)
    ]
    for index in range(frames[-1].start_ns // HOP_NS + 1):
        span = Span(index * HOP_NS, (index + 1) * HOP_NS)
        inside = tuple(frame for frame in frames if span.contains(frame.start_ns))
        hop = Hop("cam", index, span, 16_000, NOTHING, np.zeros(0, np.bool_), inside)
        (scores,) = one.score([hop], (), Load.FULL)
        for series in scores.outputs.values():
            told_ns += series.at_ns.tolist()
            assert np.all((series.values >= 0) & (series.values < 1))
    assert told_ns == sorted(set(told_ns))
    assert set(told_ns) <= {frame.start_ns for frame in frames}
