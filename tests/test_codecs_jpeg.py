"""JPEG files that another decoder reads, in the colours and the quality that were asked for."""

import cv2
import numpy as np
import pytest

from mmstream.codecs.jpeg import encode_jpeg
from mmstream.media import Bytes

STRIPES = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128))


def stripes(width: int = 96, height: int = 64) -> Bytes:
    picture = np.zeros((height, width, 3), np.uint8)
    for place, colour in zip(np.array_split(np.arange(width), len(STRIPES)), STRIPES, strict=True):
        picture[:, place] = colour
    return picture


def decoded(jpeg: bytes) -> Bytes:
    bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    return np.asarray(bgr[:, :, ::-1], np.uint8)


def test_another_decoder_sees_the_same_colours() -> None:
    seen = decoded(encode_jpeg(stripes(), quality=90)).astype(int)
    for place, colour in zip(np.array_split(np.arange(96), len(STRIPES)), STRIPES, strict=True):
        assert np.abs(seen[:, place[4:-4]] - colour).max() <= 12


@pytest.mark.parametrize("size", [(64, 36), (641, 359), (2, 2), (1, 1)])
def test_any_size_is_kept(size: tuple[int, int]) -> None:
    width, height = size
    picture = np.full((height, width, 3), 200, np.uint8)
    assert decoded(encode_jpeg(picture, quality=80)).shape == (height, width, 3)


def test_more_quality_takes_more_bytes_and_is_nearer() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (18, 32, 3), np.uint8)
    picture = noise.repeat(8, axis=0).repeat(8, axis=1)
    files = [encode_jpeg(picture, quality=quality) for quality in (10, 50, 80, 95)]
    assert sorted(map(len, files)) == list(map(len, files))
    errors = [float(np.abs(decoded(one).astype(int) - picture).mean()) for one in files]
    assert sorted(errors, reverse=True) == errors


@pytest.mark.parametrize(
    ("picture", "quality"),
    [
        (np.zeros((4, 4), np.uint8), 80),
        (np.zeros((4, 4, 4), np.uint8), 80),
        (np.zeros((4, 4, 3), np.float32), 80),
        (stripes(), 0),
        (stripes(), 101),
    ],
)
def test_what_makes_no_jpeg_is_refused(picture: Bytes, quality: int) -> None:
    with pytest.raises(ValueError, match="got"):
        encode_jpeg(picture, quality=quality)
