"""What is drawn over a picture, and how sound looks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmstream.features.drawing import Mark, marked, spectrogram
from mmstream.media import Box, Bytes, Floats

GREY = np.full((180, 320, 3), 90, np.uint8)


def changed(picture: Bytes) -> Bytes:
    return np.asarray((picture != GREY).any(axis=2), np.uint8)


def test_a_box_lies_where_it_was_found_and_leaves_its_inside_alone() -> None:
    before = GREY.copy()
    seen = changed(marked(GREY, [Mark("car 0.90", Box(0.25, 0.25, 0.5, 0.5))]))
    assert (before == GREY).all()
    assert seen[45, 80:240].all()
    assert seen[45:135, 80].all()
    assert seen[45:135, 239].all()
    assert not seen[50:130, 85:235].any()
    assert not seen[:40].any()


@pytest.mark.parametrize(("top", "is_above"), [(0.2, False), (0.7, True)])
def test_a_text_does_not_cover_its_box(top: float, *, is_above: bool) -> None:
    seen = changed(marked(GREY, [Mark("car 0.90", Box(0.25, top, 0.5, 0.25))]))
    first, last = round(top * 179), round((top + 0.25) * 179)
    assert not seen[first + 5 : last - 4, 85:235].any()
    assert seen[: first - 3].any() == is_above
    assert seen[last + 4 :].any() != is_above


@given(
    x=st.floats(0, 1),
    y=st.floats(0, 1),
    width=st.floats(0, 1),
    height=st.floats(0, 1),
    text=st.text(max_size=80),
)
def test_whatever_is_found_can_be_drawn(
    x: float, y: float, width: float, height: float, text: str
) -> None:
    box = Box(x, y, min(width, 1 - x), min(height, 1 - y))
    assert marked(GREY, [Mark(text, box), Mark(text)]).shape == GREY.shape


def test_texts_without_a_box_stand_below_each_other() -> None:
    one = changed(marked(GREY, [Mark("speech 0.90")])).any(axis=1).sum()
    two = changed(marked(GREY, [Mark("speech 0.90"), Mark("loud 0.80")])).any(axis=1).sum()
    assert two == 2 * one > 0


def tone(hz: float, rate_hz: int = 16_000) -> Floats:
    at = np.arange(2 * rate_hz) / rate_hz
    heard = 0.3 * np.sin(2 * np.pi * hz * at)
    heard[:rate_hz] = 0
    return np.asarray(heard, np.float32)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 48_000])
def test_time_goes_right_and_pitch_up(rate_hz: int) -> None:
    rows = []
    for hz in (300, 1000, 3000):
        picture = spectrogram(tone(hz, rate_hz), rate_hz=rate_hz, width=320)
        assert picture.shape == (180, 320, 3)
        bright = picture.astype(int).sum(axis=2)
        assert bright[:, :140].max() < 60  # silence first
        rows.append(int(bright[:, 180:].mean(axis=1).argmax()))
    assert rows[0] > rows[1] > rows[2]


@pytest.mark.parametrize("n_samples", [0, 1, 399, 400])
def test_a_moment_of_silence_is_dark(n_samples: int) -> None:
    picture = spectrogram(np.zeros(n_samples, np.float32), rate_hz=16_000, width=64)
    assert picture.shape == (36, 64, 3)
    assert picture.max() < 30
