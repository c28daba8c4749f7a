"""The flat step is the step, as long as nothing lacks."""

import pytest
import torch
from avp_recordings import avp_settings, tiny

from mmstream.models.avp_flat import FlatStep
from mmstream.models.recurrent import ChunkSettings, GruSettings, StreamState


@pytest.mark.parametrize("n_context", [0, 1, 5])
def test_it_gives_the_same_tokens_and_memory(n_context: int) -> None:
    body = ChunkSettings(n_layers=2, n_heads=2, n_chunk=3, n_context=n_context)
    encoder = tiny(avp_settings(body)).audio
    encoder.standardise(mean=torch.randn(8), std=1 + torch.rand(8))
    flat = FlatStep(encoder)
    empty = encoder.empty_state(2)
    state = StreamState(torch.randn(empty.memory.shape), torch.ones_like(empty.present))
    memory = state.memory
    for _ in range(3):
        frames = torch.randn(2, 6, 8)
        with torch.inference_mode():
            stepped = encoder.step(frames, torch.ones(2, 6, dtype=torch.bool), state)
            tokens, memory = flat(frames, memory)
        state = stepped.state
        torch.testing.assert_close(tokens, stepped.tokens.values, atol=1e-6, rtol=0)
        torch.testing.assert_close(memory, state.memory, atol=1e-6, rtol=0)


def test_it_is_of_no_gru() -> None:
    with pytest.raises(TypeError, match="of a Transformer"):
        FlatStep(tiny(avp_settings(GruSettings(n_layers=1))).audio)
