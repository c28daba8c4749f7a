"""The model of sound and sight: what its settings allow, what it compares."""

import math

import numpy as np
import pytest
import torch
from avp_recordings import LABELS, avp_settings, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmstream.models.avp import Avp, AvpSettings
from mmstream.models.tokens import Tokens

_TOKEN_SECS = 0.025
_FRAME_SECS = 0.04


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"told": ("moo",)}, "of events.labels: got moo"),
        ({"thresholds": {"moo": 0.5}}, "of events.labels: got moo"),
        ({"thresholds": {"bark": 1.0}}, "thresholds"),
        ({"n_background": 0}, "n_background"),
        ({"fusion": {"type": "concat", "n_dims": 8, "modalities": ["audio"]}}, "got audio"),
        ({"fusion": {"type": "concat", "n_dims": 4}}, "audio 8, video 8, fusion 4, events 8"),
        ({"video": {"n_dims": 8, "n_channels": 3}}, "luma, 1: got 3"),
        ({"events": {"labels": LABELS, "n_dims": 8, "kind": "one"}}, "any: got one"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changed: dict[str, object], problem: str) -> None:
    good = avp_settings().model_dump()
    assert AvpSettings.model_validate(good) == avp_settings()
    with pytest.raises(ValidationError, match=problem):
        AvpSettings.model_validate({**good, **changed})


def test_each_event_is_as_likely_as_its_own_logit_says() -> None:
    model = tiny(avp_settings())
    embeddings = 3 * torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            model.probabilities(embeddings), model.events(embeddings).sigmoid()
        )


@torch.no_grad()
def _in_step(n_compared: int = 4) -> Avp:
    """A model to which a token of sound and one of sight are alike if their first numbers are."""
    model = Avp(avp_settings().model_copy(update={"n_compared": n_compared})).eval()
    for part in (model.heard_at, model.seen_at):
        assert isinstance(part, nn.Linear)
        part.weight.copy_(torch.eye(n_compared, 8))
        part.bias.zero_()
    return model


def _moving(at_secs: Tensor) -> Tokens:
    """[1, t, 8] of something that turns by a radian in 0.1 s."""
    turn = 10 * at_secs
    values = torch.zeros(1, len(at_secs), 8)
    values[0, :, 0], values[0, :, 1] = turn.cos(), turn.sin()
    return Tokens(values, torch.ones(1, len(at_secs), dtype=torch.bool), at_secs[None])


def test_synchrony_is_greatest_at_the_offset_there_is() -> None:
    audio = _moving(torch.arange(40) * _TOKEN_SECS).shifted(0.08)  # heard 80 ms after it was seen
    video = _moving(0.2 + torch.arange(15) * _FRAME_SECS)
    offsets = torch.arange(-4, 5) * _FRAME_SECS / 2
    with torch.no_grad():
        fits = _in_step().synchrony(audio, video, offsets)
    assert fits.shape == (1, 9)
    assert int(fits.argmax()) == 8
    assert float(fits[0, 8]) > 0.98  # between two tokens it is interpolated
    torch.testing.assert_close(fits[0], torch.cos(10 * (0.08 - offsets)), atol=0.02, rtol=0)


def test_synchrony_passes_over_frames_without_sound_at_every_offset() -> None:
    model, offsets = _in_step(), torch.tensor([-0.1, 0.0, 0.1])
    audio = _moving(torch.arange(20) * _TOKEN_SECS)
    video = _moving(0.15 + torch.arange(5) * _FRAME_SECS)
    strange = Tokens(
        torch.cat((video.values, torch.full((1, 2, 8), 9.0)), dim=1),
        torch.tensor([[True] * 6 + [False]]),
        torch.cat((video.at_secs, torch.tensor([[0.45, 0.3]])), dim=1),
    )  # the first would be compared beyond the end of the sound, the second is not there
    with torch.no_grad():
        torch.testing.assert_close(
            model.synchrony(audio, strange, offsets), model.synchrony(audio, video, offsets)
        )


@pytest.mark.parametrize(("n_heard", "n_seen"), [(0, 3), (1, 3), (9, 0)])
def test_synchrony_of_nothing_is_0(n_heard: int, n_seen: int) -> None:
    audio, video = (_moving(torch.arange(n) * _FRAME_SECS) for n in (n_heard, n_seen))
    with torch.no_grad():
        assert _in_step().synchrony(audio, video, torch.zeros(2)).tolist() == [[0.0, 0.0]]


def test_sound_is_alike_to_the_pictures_that_move_as_it_does() -> None:
    at_secs = torch.arange(40) * _TOKEN_SECS
    early, late = _moving(at_secs), _moving(at_secs + 0.1)
    audio = Tokens(
        torch.cat((early.values, late.values)),
        torch.ones(2, 40, dtype=torch.bool),
        early.at_secs.expand(2, -1),
    )
    seen_secs = torch.arange(20) * _FRAME_SECS
    first, second = _moving(seen_secs), _moving(seen_secs + 0.1)
    video = Tokens(
        torch.cat((first.values, second.values)),
        torch.ones(2, 20, dtype=torch.bool),
        first.at_secs.expand(2, -1),
    )
    with torch.no_grad():
        alike = _in_step().alike(audio, video, 0.105 + torch.arange(10) * 0.05)
    cosine = torch.cos(torch.tensor(1.0))  # a radian apart
    expected = torch.tensor([[1.0, cosine], [cosine, 1.0]])
    torch.testing.assert_close(alike, expected, atol=0.03, rtol=0)


@settings(max_examples=15)
@given(
    n_heard=st.integers(2, 12),
    n_seen=st.integers(1, 8),
    starts=st.tuples(st.floats(0, 0.3), st.floats(0, 0.3)),
    offsets=st.lists(st.floats(-0.2, 0.2), min_size=1, max_size=4),
    seed=st.integers(0, 999),
)
def test_synchrony_is_what_a_plain_loop_gives(
    n_heard: int, n_seen: int, starts: tuple[float, float], offsets: list[float], seed: int
) -> None:
    model, rng = _in_step(8), torch.Generator().manual_seed(seed)
    audio, video = (
        Tokens(
            torch.randn(2, n, 8, generator=rng),
            torch.rand(2, n, generator=rng) < 0.9,
            (start + torch.arange(n) * step).expand(2, -1),
        )
        for n, start, step in zip(
            (n_heard, n_seen), starts, (_TOKEN_SECS, _FRAME_SECS), strict=True
        )
    )
    with torch.no_grad():
        found = model.synchrony(audio, video, torch.tensor(offsets))
    heard, seen = (normalize(one.blanked(), dim=-1).double() for one in (audio, video))
    for row in range(2):
        fits: list[list[float]] = []
        for frame in range(n_seen):
            told: list[float] = []
            for offset in torch.tensor(offsets):
                at = float((video.at_secs[row, frame] + offset - audio.at_secs[row, 0]) / 0.025)
                if min(abs(at), abs(at - n_heard + 1)) < 1e-4:
                    return  # whether there is sound at its very edge hangs on a rounding
                before = min(max(math.floor(at), 0), n_heard - 2)
                there = bool(audio.present[row, before] & audio.present[row, before + 1])
                if 0 <= at <= n_heard - 1 and there and video.present[row, frame]:
                    one, other = (heard[row, before + n] @ seen[row, frame] for n in (0, 1))
                    told.append(float(one * (1 - at + before) + other * (at - before)))
            if len(told) == len(offsets):
                fits.append(told)
        mean = torch.tensor(fits).mean(dim=0) if fits else torch.zeros(len(offsets))
        torch.testing.assert_close(found[row], mean, atol=1e-3, rtol=0)


@settings(max_examples=10)
@given(n_heard=st.integers(2, 9), n_seen=st.integers(2, 6), seed=st.integers(0, 999))
def test_alike_is_what_a_plain_loop_gives(n_heard: int, n_seen: int, seed: int) -> None:
    model, rng = _in_step(8), torch.Generator().manual_seed(seed)
    shapes = ((n_heard, _TOKEN_SECS), (n_seen, _FRAME_SECS))
    audio, video = (
        Tokens(
            torch.randn(3, n, 8, generator=rng),
            torch.ones(3, n, dtype=torch.bool),
            (torch.arange(n) * step).expand(3, -1),
        )
        for n, step in shapes
    )
    at_secs = torch.rand(4, generator=rng) * 0.3 - 0.05  # beyond the ends, the ends stand
    with torch.no_grad():
        found = model.alike(audio, video, at_secs)
    whole = [normalize(one.values, dim=-1).numpy() for one in (audio, video)]
    for i in range(3):
        for j in range(3):
            told = []
            for at in at_secs.tolist():
                both = [
                    [np.interp(at, np.arange(n) * step, one[row, :, k]) for k in range(8)]
                    for one, row, (n, step) in zip(whole, (i, j), shapes, strict=True)
                ]
                told.append(np.prod(both, axis=0).sum())
            assert float(found[i, j]) == pytest.approx(np.mean(told), abs=1e-4)
