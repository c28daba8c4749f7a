"""A tiny untrained AVP on disk and recordings for it: for tests of what people teach."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from media_factory import Sound, Video, write_media
from numpy.typing import NDArray

from mmstream.media import Bytes, Floats
from mmstream.models import checkpoint
from mmstream.models.audio import AudioSettings, LogMelFront
from mmstream.models.avp import TASK, Avp, AvpSettings
from mmstream.models.checkpoint import Identity
from mmstream.models.fusion import DeepSettings
from mmstream.models.heads import ClassifierSettings
from mmstream.models.recurrent import ChunkSettings
from mmstream.models.video import VideoSettings

RATE_HZ = 16_000


def save_model(folder: Path, *, seed: int = 0) -> str:
    """A checkpoint with random weights that hears a window of 1 s; gives its id."""
    n_dims = 16
    settings = AvpSettings(
        audio=AudioSettings(
            front_end=LogMelFront(n_mels=16, n_window=400, n_hop=200),
            n_stack=4,
            n_dims=n_dims,
            widths=(4, 8),
            body=ChunkSettings(n_layers=1, n_heads=2, n_chunk=5, n_context=5),
        ),
        video=VideoSettings(n_dims=n_dims, widths=(4, 8), n_grid=2, n_seen=2),
        fusion=DeepSettings(modalities=("audio", "video"), n_dims=n_dims, n_layers=1, n_heads=2),
        events=ClassifierSettings(labels=("bark",), n_dims=n_dims, kind="any"),
        window_secs=1.0,
        n_background=8,
        told=("bark",),
    )
    torch.manual_seed(seed)
    model = Avp(settings)
    background = torch.nn.functional.normalize(torch.randn(8, 2, 2 * n_dims), dim=-1)
    model.background.copy_(background.flatten(1))
    identity = Identity(task=TASK, rate_hz=RATE_HZ, trained=False)
    return checkpoint.save(folder, model, settings, identity, "untrained")


def tone(pitch_hz: float, secs: float, *, seed: int = 0, level: float = 0.3) -> Floats:
    """A tone and a little noise, [n] at 16 kHz."""
    at_secs = np.arange(round(secs * RATE_HZ)) / RATE_HZ
    noise = np.random.default_rng(seed).standard_normal(len(at_secs)) * 0.01
    return np.asarray(level * np.sin(2 * np.pi * pitch_hz * at_secs) + noise, np.float32)


def hissing(secs: float, *, seed: int = 0) -> Floats:
    """Noise, [n] at 16 kHz."""
    noise = np.random.default_rng(seed).standard_normal(round(secs * RATE_HZ))
    return np.asarray(0.2 * noise, np.float32)


def record(path: Path, samples: Floats) -> Path:
    """Write a recording of sound alone, a `.wav`."""
    return write_media(path, Sound(samples, "pcm_s16le", rate_hz=RATE_HZ, layout="mono"))


def filmed(path: Path, brightness: Sequence[float] | NDArray[np.float64]) -> Path:
    """Write a recording of plain pictures, one for each number in 0..255, 10 in a second."""
    pictures: list[Bytes] = [
        np.full((48, 64, 3), np.clip(one, 0, 255), np.uint8) for one in brightness
    ]
    return write_media(path, Video(pictures, fps=10))
