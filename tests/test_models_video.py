import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmstream.errors import ScorerError
from mmstream.models.video import VideoEncoder, VideoSettings


def _encoder() -> VideoEncoder:
    torch.manual_seed(0)
    return VideoEncoder(VideoSettings(n_dims=8, widths=(4, 8), n_grid=2)).eval()


@given(n_frames=st.integers(0, 4), n_more=st.integers(1, 3))
@settings(max_examples=15)
@torch.no_grad()
def test_padding_changes_nothing(n_frames: int, n_more: int) -> None:
    encoder = _encoder()
    images = torch.rand(2, n_frames + n_more, 1, 16, 16)
    present = (torch.arange(n_frames + n_more) < n_frames).expand(2, -1)
    at_secs = torch.arange(n_frames + n_more).expand(2, -1) / 25
    alone = encoder(images[:, :n_frames], present[:, :n_frames], at_secs[:, :n_frames])
    images[:, n_frames:] = torch.nan
    padded = encoder(images, present, at_secs)
    torch.testing.assert_close(padded.values[:, :n_frames], alone.values)
    assert not padded.values[:, n_frames:].any()


@torch.no_grad()
def test_bytes_are_the_same_as_floats() -> None:
    encoder = _encoder()
    images = torch.randint(0, 256, (1, 2, 1, 16, 16), dtype=torch.uint8)
    there, at_secs = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2)
    torch.testing.assert_close(
        encoder(images, there, at_secs).values, encoder(images / 255, there, at_secs).values
    )


@torch.no_grad()
def test_floats_may_be_of_any_width() -> None:
    encoder = _encoder()
    images = torch.randint(0, 2, (1, 2, 1, 16, 16)).float()
    there, at_secs = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2)
    expected = encoder(images, there, at_secs).values
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        assert torch.equal(encoder(images.to(kind), there, at_secs).values, expected)


@torch.no_grad()
def test_a_token_is_made_of_its_frame_and_those_just_before() -> None:
    torch.manual_seed(0)
    settings = VideoSettings(n_dims=8, widths=(4, 8), n_grid=2, n_seen=3, is_deep=False)
    encoder = VideoEncoder(settings).eval()
    images = torch.rand(1, 8, 1, 16, 16)
    there, at_secs = torch.ones(1, 8, dtype=torch.bool), torch.zeros(1, 8)
    before = encoder(images, there, at_secs).values
    images[0, 4] = 1 - images[0, 4]
    changed = (encoder(images, there, at_secs).values != before).any(dim=2)[0]
    assert changed.tolist() == [False] * 4 + [True] * 3 + [False]
    # A stream that keeps two frames gives the same.
    later = encoder(images[:, 3:], there[:, 3:], at_secs[:, 3:]).values[:, 2:]
    torch.testing.assert_close(later, encoder(images, there, at_secs).values[:, 5:])


@torch.no_grad()
def test_where_something_is_seen_matters() -> None:
    images = torch.zeros(1, 2, 1, 16, 16)
    images[0, 0, 0, 2:6, 2:6] = 1
    images[0, 1, 0, 10:14, 10:14] = 1
    tokens = _encoder()(images, torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2)).values
    assert (tokens[0, 0] - tokens[0, 1]).abs().max() > 1e-2


def test_the_wrong_number_of_channels_is_named() -> None:
    images = torch.zeros(1, 2, 3, 16, 16)
    with pytest.raises(ScorerError, match=r"\[b, t, 1, h, w\]: got \[1, 2, 3, 16, 16\]"):
        _encoder()(images, torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2))


def test_what_does_not_belong_to_the_pictures_is_named() -> None:
    images, there = torch.zeros(1, 2, 1, 16, 16), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ScorerError, match=r"come with .*: got \[1, 1\] and \[1, 2\]"):
        _encoder()(images, there[:, :1], torch.zeros(1, 2))
    with pytest.raises(ScorerError, match=r"come with .*: got \[1, 2\] and \[1, 3\]"):
        _encoder()(images, there, torch.zeros(1, 3))
