"""Tiny models of sound and sight, and made-up recordings, cut into hops and as a whole."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mmstream.codecs import image_from_array
from mmstream.features.video import small_luma
from mmstream.media import (
    NS_PER_SEC,
    Bytes,
    Floats,
    Hop,
    Scores,
    Span,
    VideoFrame,
)
from mmstream.models.audio import AudioSettings, LogMelFront
from mmstream.models.avp import Avp, AvpSettings, SeenSettings
from mmstream.models.avp_learned import Learned
from mmstream.models.avp_scorer import AvpScorer
from mmstream.models.avp_whole import Stretch
from mmstream.models.fusion import (
    AnyFusionSettings,
    DeepSettings,
)
from mmstream.models.heads import ClassifierSettings
from mmstream.models.recurrent import ChunkSettings, GruSettings
from mmstream.models.video import VideoSettings
from mmstream.stages import Load

RATE_HZ = 16_000
SAMPLE_NS = NS_PER_SEC // RATE_HZ
LABELS = ("bark", "rain", "bell")


def avp_settings(
    body: ChunkSettings | GruSettings | None = None,
    fusion: AnyFusionSettings | None = None,
    *,
    n_seen: int = 3,
    n_stack: int = 2,
) -> AvpSettings:
    """A tiny model: a chunk of sound is 50 ms by default, a window half a second."""
    return AvpSettings(
        audio=AudioSettings(
            front_end=LogMelFront(n_mels=8, n_hop=200),
            n_stack=n_stack,
            n_dims=8,
            widths=(4, 4),
            body=body or ChunkSettings(n_layers=2, n_heads=2, n_chunk=2, n_context=3),
        ),
        video=VideoSettings(n_dims=8, widths=(4, 4), n_grid=2, n_seen=n_seen),
        seen=SeenSettings(width=8, height=8),
        fusion=fusion or DeepSettings(n_dims=8, n_heads=2, n_layers=1),
        events=ClassifierSettings(labels=LABELS, n_dims=8, kind="any"),
        window_secs=0.5,
    )


def tiny(of: AvpSettings) -> Avp:
    torch.manual_seed(0)
    model = Avp(of).eval()
    for name, weights in model.named_parameters():
        if name.endswith(("nearness", "absent", "modality")):  # they begin at 0 or near
            torch.nn.init.normal_(weights)
    return model


def scorer_of(model: Avp) -> AvpScorer:
    nothing = Learned(taught_in=None, normal_in=None, model="tiny", n_dims=8, detector="tiny")
    return AvpScorer(model, model.settings.events.labels, nothing)


@dataclass(frozen=True)
class Part:
    """A stretch of a recording and how it is cut."""

    n_lost: int
    """Samples of time before it."""
    n_hops: tuple[int, ...]
    """Samples in each hop."""
    has_sound: bool
    frame_ns: int
    """From one picture to the next; 0: none."""
    n_deaf: int
    """Samples in the middle that were not heard."""


@dataclass(frozen=True)
class Recording:
    """Hops, and the same as stretches."""

    hops: tuple[Hop, ...]
    stretches: tuple[Stretch, ...]


def recorded(source: str, parts: Sequence[Part], *, seed: int = 0) -> Recording:
    rng = np.random.default_rng(seed)
    hops: list[Hop] = []
    stretches = []
    start_ns = 40 * NS_PER_SEC
    for part in parts:
        start_ns += part.n_lost * SAMPLE_NS
        n_samples = sum(part.n_hops)
        end_ns = start_ns + n_samples * SAMPLE_NS
        sound = rng.standard_normal(n_samples * part.has_sound).astype(np.float32) * 0.1
        heard = np.ones(sound.size, np.bool_)
        middle = sound.size // 2
        heard[middle : middle + part.n_deaf] = False
        sound[~heard] = 0
        instants = range(start_ns, end_ns, part.frame_ns) if part.frame_ns else ()
        frames = [_frame(source, at_ns, rng) for at_ns in instants]
        stretches.append(stretch_of(start_ns, sound, heard, frames))
        hops += _cut(source, part, stretches[-1], frames, len(hops))
        start_ns = end_ns
    return Recording(tuple(hops), tuple(stretches))


def _frame(source: str, at_ns: int, rng: np.random.Generator) -> VideoFrame:
    pixels = rng.integers(0, 256, (12, 10, 3)).astype(np.uint8)
    return VideoFrame(source, at_ns, image_from_array(pixels))


def _cut(
    source: str,
    part: Part,
    stretch: Stretch,
    frames: Sequence[VideoFrame],
    n_before: int,
) -> Iterator[Hop]:
    start_ns, first = stretch.start_ns, 0
    for n, length in enumerate(part.n_hops):
        span = Span(start_ns + first * SAMPLE_NS, start_ns + (first + length) * SAMPLE_NS)
        samples = stretch.samples[first : first + length].copy()
        heard = stretch.heard[first : first + length].copy()
        seen = tuple(frame for frame in frames if span.contains(frame.start_ns))
        gap = n == 0 and n_before > 0
        yield Hop(source, n_before + n, span, RATE_HZ, samples, heard, seen, gap_before=gap)
        first += length


def stretch_of(
    start_ns: int, samples: Floats, heard: NDArray[np.bool_], frames: Sequence[VideoFrame]
) -> Stretch:
    """Its pictures: the first of each 40 ms, of 8 x 8."""
    firsts: dict[int, VideoFrame] = {}
    for frame in frames:
        firsts.setdefault((frame.start_ns + 1_000_000) // 40_000_000, frame)
    small = [small_luma(frame.image, width=8, height=8) for frame in firsts.values()]
    pictures: Bytes = np.stack(small) if small else np.zeros((0, 8, 8), np.uint8)
    at_ns = np.array([frame.start_ns for frame in firsts.values()], np.int64)
    return Stretch(start_ns, samples, heard, pictures, at_ns)


def said_by_stream(scorer: AvpScorer, hops: Sequence[Hop], n_batch: int) -> list[Scores]:
    scores: list[Scores] = []
    for first in range(0, len(hops), n_batch):
        scores += scorer.score(hops[first : first + n_batch], (), Load.FULL)
    return scores
