from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from recordings import read_sound
from torch import Tensor

from mmstream.errors import ScorerError
from mmstream.models.audio import (
    AudioEncoder,
    AudioSettings,
    AudioStream,
    LogMelFront,
    MfccFront,
    StftFront,
)
from mmstream.models.recurrent import ChunkSettings, GruSettings, StreamState
from mmstream.models.tokens import Tokens

_FRONT = LogMelFront(n_mels=8)
_ROUNDING = 1e-4  # group norms of a few numbers that hardly differ multiply it
_SHARES = st.lists(st.integers(0, 30), max_size=8)
_BODIES = st.one_of(
    st.builds(
        ChunkSettings,
        n_layers=st.integers(1, 3),
        n_heads=st.just(2),
        n_chunk=st.integers(1, 6),
        n_context=st.integers(0, 9),
    ),
    st.builds(GruSettings, n_layers=st.integers(1, 2)),
)


def _encoder(body: ChunkSettings | GruSettings, *, n_stack: int = 2) -> AudioEncoder:
    torch.manual_seed(0)
    encoder = AudioEncoder(
        AudioSettings(front_end=_FRONT, n_stack=n_stack, n_dims=8, widths=(4, 4), body=body)
    ).eval()
    encoder.standardise(mean=torch.full((8,), 0.3), std=torch.full((8,), 1.5))
    for name, weights in encoder.named_parameters():
        if name.endswith("nearness"):  # it begins at 0, and distance would not matter
            torch.nn.init.normal_(weights)
    return encoder


def _frames(n_batch: int, n_frames: int) -> Tensor:
    generator = torch.Generator().manual_seed(n_frames)
    return torch.randn(n_batch, n_frames, 8, generator=generator)


def _there(frames: Tensor) -> Tensor:
    return torch.ones(frames.shape[:2], dtype=torch.bool)


@given(body=_BODIES, shares=_SHARES, n_stack=st.integers(1, 3))
@settings(max_examples=60)
@torch.no_grad()
def test_a_stream_in_any_pieces_gives_the_tokens_of_the_whole(
    body: ChunkSettings | GruSettings, shares: list[int], n_stack: int
) -> None:
    encoder = _encoder(body, n_stack=n_stack)
    frames = _frames(1, sum(shares))
    whole = encoder(frames, _there(frames))
    stream = AudioStream(encoder)
    pieces = torch.split(frames[0], shares) if shares else ()
    streamed = Tokens.joined([*(stream.push(piece) for piece in pieces), stream.flush()])
    torch.testing.assert_close(streamed.values, whole.values, atol=_ROUNDING, rtol=0)
    torch.testing.assert_close(streamed.at_secs, whole.at_secs)
    assert torch.equal(streamed.present, whole.present)


@given(body=_BODIES, n_frames=st.integers(2, 30), n_more=st.integers(1, 20))
@settings(max_examples=30)
@torch.no_grad()
def test_padding_changes_nothing(
    body: ChunkSettings | GruSettings, n_frames: int, n_more: int
) -> None:
    encoder = _encoder(body)
    frames = _frames(2, n_frames)
    alone = encoder(frames, _there(frames))
    rubbish = torch.full((2, n_more, 8), torch.nan)
    padded = encoder(
        torch.cat((frames, rubbish), dim=1),
        torch.cat((_there(frames), torch.zeros(2, n_more, dtype=torch.bool)), dim=1),
    )
    n_tokens = alone.values.shape[1]
    torch.testing.assert_close(padded.values[:, :n_tokens], alone.values, atol=_ROUNDING, rtol=0)
    assert padded.present.sum() == alone.present.sum()
    assert not padded.values[:, n_tokens:].any()


@torch.no_grad()
def test_a_chunk_is_not_seen_before_it_and_not_beyond_the_context() -> None:
    body = ChunkSettings(n_layers=1, n_heads=2, n_chunk=3, n_context=2)
    encoder = _encoder(body, n_stack=1)
    frames = _frames(1, 12)
    before = encoder(frames, _there(frames)).values[0]
    frames[0, 4] += 1  # in chunk 1; of the context of chunk 2 (3 and 4 -> 4 and 5), not of chunk 3
    after = encoder(frames, _there(frames)).values[0]
    changed = (before - after).abs().amax(dim=1) > 1e-7
    assert changed.nonzero().flatten().tolist() == [3, 4, 5, 6, 7, 8]


@torch.no_grad()
def test_streams_that_began_at_different_times_step_together() -> None:
    encoder = _encoder(ChunkSettings(n_layers=2, n_heads=2, n_chunk=2, n_context=5))
    frames = _frames(2, 12)
    old = encoder.step(frames[:1, :4], _there(frames[:1, :4]), encoder.empty_state(1)).state
    both = StreamState.batched([old, encoder.empty_state(1)])
    now = torch.stack((frames[0, 4:8], frames[1, :4]))
    together = encoder.step(now, _there(now), both)
    for i, state in enumerate([old, encoder.empty_state(1)]):
        alone = encoder.step(now[i : i + 1], _there(now[:1]), state)
        torch.testing.assert_close(together.tokens.values[i : i + 1], alone.tokens.values)
        split = together.state.split()[i]
        torch.testing.assert_close(split.memory, alone.state.memory)


@pytest.mark.parametrize("front", [LogMelFront(n_mels=32), MfccFront(n_mfcc=13), StftFront()])
@torch.no_grad()
def test_every_front_end_hears_a_real_recording(
    front: LogMelFront | MfccFront | StftFront, data_dir: Path
) -> None:
    samples = torch.from_numpy(read_sound(data_dir / "speech" / "cards_001.wav").copy())
    frames = front.build()(samples)[None]
    assert frames.shape[2] == front.n_bands
    tokens = AudioEncoder(AudioSettings(front_end=front, n_dims=8)).eval()(frames, _there(frames))
    assert tokens.values.shape == (1, frames.shape[1] // 4, 8)
    assert tokens.values.isfinite().all()
    assert tokens.values.std(dim=1).min() > 1e-3  # it hears that the sound changes
    assert tokens.at_secs[0, 0] == pytest.approx((3 * 160 + 400) / 16_000 / 2)


def test_wrong_shapes_are_named() -> None:
    encoder = _encoder(ChunkSettings(n_heads=2, n_chunk=2))
    with pytest.raises(ScorerError, match=r"frames \[b, t, 8\].*got \[1, 4, 9\]"):
        encoder(torch.zeros(1, 4, 9), torch.ones(1, 4, dtype=torch.bool))
    frames = _frames(1, 6)
    with pytest.raises(ScorerError, match="at most 2 tokens: got 3"):
        encoder.step(frames, _there(frames), encoder.empty_state(1))
    with pytest.raises(ValidationError, match="multiple of n_heads"):
        AudioSettings(n_dims=10, body=ChunkSettings(n_heads=4))
