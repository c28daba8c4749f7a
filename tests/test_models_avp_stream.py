"""What AVP says of a stream is what it says of the whole recording, however it is cut."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from avp_recordings import (
    RATE_HZ,
    Part,
    Recording,
    avp_settings,
    recorded,
    said_by_stream,
    scorer_of,
    stretch_of,
    tiny,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mmstream.clock import ManualClock
from mmstream.media import (
    AudioChunk,
    Hop,
    Scores,
    VideoFrame,
    ns_to_samples,
)
from mmstream.metrics import StageMetrics
from mmstream.models.avp import Avp, AvpSettings
from mmstream.models.avp_spec import EMBEDDING
from mmstream.models.avp_stream import AvpStream, Encoders
from mmstream.models.avp_whole import Stretch, whole
from mmstream.models.fusion import (
    ConcatSettings,
    DeepSettings,
    WeightedSettings,
)
from mmstream.models.recurrent import ChunkSettings, GruSettings
from mmstream.sources.media import MediaFile, MediaSettings
from mmstream.training.recordings import PictureSettings, PieceSettings, read_pieces
from mmstream.windows import HopCutter, HopSettings

CLOSE = 1e-4


def check_same(model: Avp, recording: Recording, scores: Sequence[Scores]) -> None:
    said = whole(model, recording.stretches, [hop.span.end_ns for hop in recording.hops])
    labels = model.settings.events.labels
    for n, one in enumerate(scores):
        if np.isnan(said.embedding[n]).any():
            assert not one.outputs
            continue
        np.testing.assert_allclose(one.outputs[EMBEDDING].values[0], said.embedding[n], atol=CLOSE)
        likely = 1 / (1 + np.exp(-said.logits[n]))
        told = [one.outputs[label].values[0] for label in labels]
        np.testing.assert_allclose(told, likely, atol=CLOSE)


_PARTS = st.builds(
    Part,
    n_lost=st.integers(0, 6000),
    n_hops=st.lists(st.integers(150, 5000), min_size=1, max_size=4).map(tuple),
    has_sound=st.booleans(),
    frame_ns=st.sampled_from((0, 17_000_000, 40_000_000, 66_666_667)),
    n_deaf=st.sampled_from((0, 0, 700)),
)
_RECORDINGS = st.lists(st.lists(_PARTS, min_size=1, max_size=2), min_size=1, max_size=3)
_MODELS = st.builds(
    avp_settings,
    st.sampled_from(
        (
            ChunkSettings(n_layers=2, n_heads=2, n_chunk=2, n_context=3),
            ChunkSettings(n_layers=1, n_heads=2, n_chunk=5, n_context=0),
            GruSettings(n_layers=1),
        )
    ),
    st.sampled_from(
        (
            ConcatSettings(n_dims=8),
            WeightedSettings(n_dims=8),
            DeepSettings(n_dims=8, n_heads=2, n_layers=1),
            DeepSettings(n_dims=8, n_heads=2, n_layers=2, n_bottleneck=2, n_exchange=1),
        )
    ),
    n_seen=st.sampled_from((1, 3)),
    n_stack=st.integers(1, 3),
)


@given(of=_MODELS, parts=_RECORDINGS, n_batch=st.integers(1, 7), data=st.data())
@settings(max_examples=60)
def test_a_stream_says_what_the_whole_says(
    of: AvpSettings, parts: list[list[Part]], n_batch: int, data: st.DataObject
) -> None:
    """Hops of any length, several sources mixed, several hops of one source in a batch, gaps."""
    model = tiny(of)
    recordings = [recorded(f"cam{n}", some, seed=n) for n, some in enumerate(parts)]
    turns = [n for n, one in enumerate(recordings) for _ in one.hops]
    queues = [iter(one.hops) for one in recordings]
    mixed = [next(queues[n]) for n in data.draw(st.permutations(turns))]
    scores = said_by_stream(scorer_of(model), mixed, n_batch)
    assert [(one.source, one.index) for one in scores] == [(h.source, h.index) for h in mixed]
    for n, recording in enumerate(recordings):
        check_same(model, recording, [one for one in scores if one.source == f"cam{n}"])


def test_no_token_knows_of_both_sides_of_a_gap() -> None:
    model = tiny(avp_settings())
    one = Part(0, (4000, 4000), has_sound=True, frame_ns=40_000_000, n_deaf=0)
    before, after = (recorded("cam", [one, one], seed=seed) for seed in (0, 0))
    other = recorded("cam", [one], seed=1)
    # Half a second after the gap the window has nothing else than what came after it.
    last = said_by_stream(scorer_of(model), before.hops, 1)[-1]
    changed = [*other.hops, *after.hops[2:]]
    again = said_by_stream(scorer_of(model), changed, 1)[-1]
    np.testing.assert_array_equal(last.outputs[EMBEDDING].values, again.outputs[EMBEDDING].values)
    bridged = [*other.hops, *(_without_gap(hop) for hop in after.hops[2:])]
    known = said_by_stream(scorer_of(model), bridged, 1)[-1]
    assert not np.allclose(last.outputs[EMBEDDING].values, known.outputs[EMBEDDING].values)


def _without_gap(hop: Hop) -> Hop:
    return Hop(hop.source, hop.index, hop.span, hop.rate_hz, hop.samples, hop.heard, hop.frames)


def test_where_the_clock_goes_back_nothing_is_kept() -> None:
    model = tiny(avp_settings())
    part = Part(0, (4000,), has_sound=True, frame_ns=40_000_000, n_deaf=0)
    first, later = recorded("cam", [part], seed=0), recorded("cam", [part], seed=1)
    streamed = said_by_stream(scorer_of(model), [*first.hops, *later.hops], 2)
    check_same(model, later, streamed[1:])


def test_what_is_kept_of_a_stream_does_not_grow() -> None:
    model = tiny(avp_settings())
    of = model.settings
    stream = AvpStream(of, of.audio.front_end.build(), torch.device("cpu"))
    encoders = Encoders(model, StageMetrics("avp"))
    part = Part(0, (1000,) * 64, has_sound=True, frame_ns=40_000_000, n_deaf=0)
    sizes = []
    for hop in recorded("cam", [part]).hops:
        taken = stream.take(hop)
        window = stream.keep(taken, encoders.encode([taken])[0])
        held = (window.audio.values, window.video.values)
        sizes.append(max(one.untyped_storage().nbytes() for one in held))
    assert len(window.audio.at_ns) == 20  # of 25 ms
    assert len(window.video.at_ns) in {12, 13}
    n_most = 20 + 4  # a hop's more
    assert max(sizes) <= n_most * of.fusion.n_dims * 4


@pytest.mark.parametrize(
    ("path", "hop_secs"),
    [
        ("grid_s1/clips/bbaf2n.mp4", 0.25),
        ("grid_s1/clips/sbaa4n.mp4", 0.1),
        ("av_clips/dog_runs_openl3.mp4", 0.25),
        ("av_clips/fire_room_dog_vfr.mp4", 0.2),
    ],
)
def test_real_clips_through_the_hop_cutter(data_dir: Path, path: str, hop_secs: float) -> None:
    model = tiny(avp_settings())
    file = data_dir / path
    reader = MediaFile("clip", MediaSettings(url=str(file), pace="max"), ManualClock())
    cutter = HopCutter("clip", HopSettings(hop_secs=hop_secs), live=False)
    items: list[AudioChunk | VideoFrame] = []
    hops: list[Hop] = []
    with reader.read() as stream:
        for item in stream:
            hops += cutter.push(item)
            if isinstance(item, AudioChunk | VideoFrame):
                items.append(item)
    hops += cutter.flush()
    stretch = _as_a_whole(items, hops[-1].span.end_ns)
    _, piece = next(
        read_pieces(file, [None], PieceSettings(pictures=PictureSettings(width=8, height=8)))
    )
    np.testing.assert_array_equal(stretch.pictures, piece.pictures[..., 0])
    np.testing.assert_array_equal(stretch.at_ns, piece.at_ns)
    scores = said_by_stream(scorer_of(model), hops, 3)
    check_same(model, Recording(tuple(hops), (stretch,)), scores)
    assert all(one.outputs for one in scores[2:])


def _as_a_whole(items: Sequence[AudioChunk | VideoFrame], end_ns: int) -> Stretch:
    n_samples = ns_to_samples(end_ns, RATE_HZ)
    samples, heard = np.zeros(n_samples, np.float32), np.zeros(n_samples, np.bool_)
    for item in items:
        if isinstance(item, AudioChunk):
            at = ns_to_samples(item.start_ns, RATE_HZ)
            inside = item.samples[: n_samples - at]
            samples[at : at + inside.size], heard[at : at + inside.size] = inside, True
    return stretch_of(0, samples, heard, [item for item in items if isinstance(item, VideoFrame)])
