"""The encoders of AVP with their cache, beside the same done anew for each window.

cached       each hop's new chunk of sound and new pictures, of all sources at once, with what it
             takes to gather them and to remember (`Encoders.encode`)
recomputed   the same weights, all sources at once too, on the frames of sound and the stacks of
             pictures of the whole window: they lie ready, nothing is gathered

Neither has the making of log-mel frames and of small pictures in it, of which the second would need
as many times more. Both take turns on the same media.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from mmstream.benchmarks.worker_world import HOP_SECS, Cost, Stopwatch, cameras
from mmstream.media import Hop
from mmstream.metrics import StageMetrics
from mmstream.models.avp import Avp
from mmstream.models.avp_stream import AvpStream, Encoders, Taken

_BOTH: Final = "both"


class Compared(BaseModel):
    """A sense, per hop of one source."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    sense: str
    """audio, video or both."""
    cached: Cost
    recomputed: Cost
    ratio: float
    """How many times the CPU time of the cached is that of the recomputed."""
    wall_ratio: float


class EncoderCosts(BaseModel):
    """So many sources, encoded together."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    n_sources: int
    keeps_memory: bool
    """Whether freed memory was kept: then page faults are in neither."""
    senses: list[Compared]

    @property
    def ratio(self) -> float:
        """Of both senses."""
        return self.senses[-1].ratio


@dataclass(frozen=True, slots=True)
class Halves:
    """What a hop of each source adds, sound and sight apart; neither is encoded yet."""

    heard: tuple[Taken, ...]
    seen: tuple[Taken, ...]


class Senses:
    """Sources whose hops are heard and seen apart, so that either is measured by itself."""

    def __init__(self, model: Avp, n_sources: int) -> None:
        """Nothing came yet."""
        feature = model.settings.audio.front_end.build()
        device = model.background.device
        both = [
            [AvpStream(model.settings, feature, device) for _ in range(n_sources)] for _ in range(2)
        ]
        self._ears, self._eyes = both

    def hear(self, hops: Sequence[Hop]) -> tuple[Taken, ...]:
        """Frames of sound."""
        deaf = [replace(hop, frames=()) for hop in hops]
        return tuple(ear.take(hop) for ear, hop in zip(self._ears, deaf, strict=True))

    def see(self, hops: Sequence[Hop]) -> tuple[Taken, ...]:
        """Small pictures."""
        nothing, flags = np.zeros(0, np.float32), np.zeros(0, np.bool_)
        blind = [replace(hop, samples=nothing, heard=flags) for hop in hops]
        return tuple(eye.take(hop) for eye, hop in zip(self._eyes, blind, strict=True))

    def take(self, hops: Sequence[Hop]) -> Halves:
        """Both."""
        return Halves(self.hear(hops), self.see(hops))


def compare(model: Avp, n_sources: int, *, rounds: int, keeps_memory: bool) -> EncoderCosts:
    """As many hops as a window has, with the cache, then a window anew, `rounds` times.

    The model is in eval mode.
    """
    n_window = round(model.settings.window_secs / HOP_SECS)
    senses, encoders = Senses(model, n_sources), Encoders(model, StageMetrics("bench"))
    media = cameras(n_sources, model.settings.audio.front_end.rate_hz)
    recent: deque[Halves] = deque(maxlen=n_window)
    names = ("audio", "video", _BOTH)
    cached, recomputed = ({name: Stopwatch() for name in names} for _ in range(2))
    for n_round in range(1 + rounds):
        if n_round == 1:  # the first one fills windows and warms up
            cached, recomputed = ({name: Stopwatch() for name in names} for _ in range(2))
        for _ in range(n_window):
            halves = senses.take(next(media))
            recent.append(halves)
            for name, taken in zip(names, _kinds(halves), strict=True):
                with cached[name].turn():
                    encoders.encode(taken)
        window = Window.of(recent)
        for name in names:
            with recomputed[name].turn():
                window.encode(model, audio=name != "video", video=name != "audio")
    found = [
        _compared(name, cached[name].cost(n_parts=n_sources), recomputed[name], n_sources)
        for name in names
    ]
    return EncoderCosts(n_sources=n_sources, keeps_memory=keeps_memory, senses=found)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """All that the encoders take of a window of n sources."""

    frames: Tensor
    """[n, t, n_bands]"""
    present: Tensor
    """[n, t] bool."""
    stacks: Tensor
    """[n * n_pictures, n_seen, h, w]"""

    @classmethod
    def of(cls, recent: Sequence[Halves]) -> "Window":
        """The hops of a window, as they came."""
        per_source = zip(*(halves.heard for halves in recent), strict=True)
        sounds = [[one.sound for one in heard if one.sound is not None] for heard in per_source]
        return cls(
            torch.stack([torch.cat([s.frames.flatten(0, 1) for s in its]) for its in sounds]),
            torch.stack([torch.cat([s.present.flatten() for s in its]) for its in sounds]),
            torch.cat([one.sight.stacks for halves in recent for one in halves.seen]),
        )

    def to(self, device: torch.device) -> "Window":
        """The same there."""
        return Window(self.frames.to(device), self.present.to(device), self.stacks.to(device))

    @torch.inference_mode()
    def encode(self, model: Avp, *, audio: bool, video: bool) -> None:
        """All of it."""
        if audio:
            model.audio(self.frames, self.present)
        if video:
            model.video.stages(self.stacks)


def _kinds(halves: Halves) -> tuple[tuple[Taken, ...], ...]:
    return halves.heard, halves.seen, halves.heard + halves.seen


def _compared(name: str, cached: Cost, watch: Stopwatch, n_sources: int) -> Compared:
    recomputed = watch.cost(n_parts=n_sources)
    return Compared(
        sense=name,
        cached=cached,
        recomputed=recomputed,
        ratio=round(recomputed.cpu_ms / cached.cpu_ms, 2),
        wall_ratio=round(recomputed.wall_ms / cached.wall_ms, 2),
    )
