import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmstream.detectors.kinks import Kink, Moves, moves
from mmstream.media import NS_PER_SEC, Bytes

HEIGHT, WIDTH = 90, 160
Place = Callable[[float], tuple[float, float]]
"""Seconds -> where the middle is: down and across, shorter sides of the picture."""


def back(seed: int = 0) -> Bytes:
    blotches = cv2.GaussianBlur(
        np.random.default_rng(seed).normal(0, 1, (HEIGHT, WIDTH)), (0, 0), 3
    )
    return (110 + 60 * blotches).clip(60, 160).astype(np.uint8)


def picture(place: tuple[float, float], size: float = 0.15) -> Bytes:
    """A white square in front of `back`, drawn to a fraction of a pixel."""
    shown = back()
    corner = [(middle - size / 2) * HEIGHT for middle in place]
    ends = [start + size * HEIGHT for start in corner]
    covers = np.ones(shown.shape)
    for axis, (start, end) in enumerate(zip(corner, ends, strict=True)):
        pixels = np.arange(shown.shape[axis])
        share = np.clip(np.minimum(pixels + 1, end) - np.maximum(pixels, start), 0, 1)
        covers *= share[:, None] if axis == 0 else share
    return (shown + covers * (230.0 - shown)).astype(np.uint8)


def film(place: Place, fps: float = 25, secs: float = 1.0) -> Moves:
    """What is found in that time, of which the first third only tells what is usual."""
    at_secs = [n / fps for n in range(round(secs * fps))]
    pictures = [picture(place(at)) for at in at_secs]
    first = len(pictures) // 3
    at_ns = [round(at * NS_PER_SEC) for at in at_secs[first:]]
    return moves(pictures[first:], at_ns, pictures[:: max(1, len(pictures) // 7)])


def best(seen: Moves) -> Kink:
    return min(seen.kinks, key=lambda kink: kink.roughness / kink.jump)


def bounce(at_secs: float, before: float, after: float, across: float = 0.4) -> Place:
    """Falls at `before` and rises at `after` from that instant on."""

    def place(secs: float) -> tuple[float, float]:
        past = secs - at_secs
        return 0.8 + (before * past if past < 0 else -after * past), 0.3 + across * secs

    return place


@settings(max_examples=25)
@given(
    at_secs=st.floats(0.55, 0.75),
    before=st.floats(0.8, 1.4),
    after=st.floats(0.0, 1.0),
    fps=st.sampled_from([20.0, 25.0, 30.0]),
)
def test_a_bounce_is_dated_between_two_pictures(
    at_secs: float, before: float, after: float, fps: float
) -> None:
    # Whole pixels: at worst a third of a picture; see the next test for what is usual.
    found = best(film(bounce(at_secs, before, after), fps))
    assert found.at_ns / NS_PER_SEC == pytest.approx(at_secs, abs=0.35 / fps)
    assert found.jump == pytest.approx(before + after, rel=0.15)
    assert found.speed == pytest.approx(math.hypot(before, 0.4), rel=0.15)
    assert found.roughness < 0.1


def test_most_bounces_are_dated_to_a_tenth_of_a_picture() -> None:
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(40):
        at_secs, before, after = rng.uniform((0.55, 0.8, 0.0), (0.75, 1.4, 1.0)).tolist()
        fps = rng.choice([20.0, 25.0, 30.0])
        found = best(film(bounce(at_secs, before, after), fps))
        errors.append(abs(found.at_ns / NS_PER_SEC - at_secs) * fps)
    assert np.percentile(errors, 90) < 0.1
    assert np.max(errors) < 0.25


def test_kept_tells_a_stop_from_a_turn() -> None:
    assert best(film(bounce(0.65, 1.2, 0.0, across=0))).kept == pytest.approx(0, abs=0.05)
    assert best(film(bounce(0.65, 1.2, 0.6, across=0))).kept == pytest.approx(-0.5, abs=0.06)


def test_the_box_is_around_it() -> None:
    box = best(film(bounce(0.65, 1.2, 0.6))).box
    assert box.y + box.height / 2 == pytest.approx(0.8, abs=0.06)
    assert (box.x + box.width / 2) * WIDTH / HEIGHT == pytest.approx(0.56, abs=0.06)


def test_what_goes_on_has_no_kink() -> None:
    straight = film(lambda secs: (0.4, 0.2 + 1.2 * secs))
    falling = film(lambda secs: (0.1 + 1.3 * secs**2 / 2, 0.4 + 0.5 * secs))
    assert straight.area > 0.01
    assert falling.area > 0.01
    assert all(kink.jump < 0.3 for kink in (*straight.kinks, *falling.kinks))


def test_nothing_moves() -> None:
    still = [back()] * 12
    assert moves(still, [n * 40_000_000 for n in range(12)], still[:7]) == Moves(0.0, ())


def test_a_cut_and_a_shaken_camera_show_nothing() -> None:
    at_ns = [n * 40_000_000 for n in range(12)]
    cut = [back()] * 6 + [back(1)] * 6
    assert not moves(cut, at_ns, cut[::2]).kinks
    shaken = [np.roll(back(), round(9 * math.cos(2 * n)), axis=(0, 1)) for n in range(12)]
    assert not moves(shaken, at_ns, shaken[::2]).kinks


def test_what_changes_its_size_is_not_followed() -> None:
    """Two things that meet, lips that open: their middle jumps, and nothing was hit."""

    def grown(secs: float) -> Bytes:
        return picture((0.5, 0.5 + 0.9 * min(secs, 0.5)), 0.1 + 2 * min(max(secs - 0.3, 0), 0.2))

    pictures = [grown(n / 25) for n in range(20)]
    at_ns = [n * 40_000_000 for n in range(20)]
    seen = moves(pictures[6:], at_ns[6:], pictures[::3])
    assert seen.area > 0.01
    assert not [kink for kink in seen.kinks if kink.jump > 0.5 and kink.roughness < 0.12]
