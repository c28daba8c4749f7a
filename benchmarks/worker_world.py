"""What `benchmarks.worker` gives to AVP, hops of made-up cameras; how it tells what work costs."""

import ctypes
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from statistics import median
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from mmstream.clock import SystemClock
from mmstream.codecs import image_from_array
from mmstream.media import NS_PER_SEC, AudioChunk, Hop, MediaItem, SourceStarted, VideoFrame
from mmstream.models import checkpoint
from mmstream.models.avp import TASK, Avp, AvpSettings
from mmstream.models.avp_spec import AvpSpec
from mmstream.windows import HopCutter, HopSettings

HOP_SECS: Final = HopSettings().hop_secs
FPS: Final = 25
WIDTH: Final = 640
HEIGHT: Final = 480

_N_CHUNKS: Final = 2
"""Chunks of sound in the time of a frame."""
_N_PICTURES: Final = 8
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h
_MOST_KEPT: Final = 1 << 30
_CLOCK: Final = SystemClock()


class Cost(BaseModel):
    """What one turn of some work takes: medians."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    cpu_ms: float
    """CPU time of the process; what else the machine does matters little to it."""
    wall_ms: float


class Stopwatch:
    """Counts what turns of some work take, in a process that does nothing else meanwhile."""

    def __init__(self) -> None:
        """No turn yet."""
        self._cpu_ms: list[float] = []
        self._wall_ms: list[float] = []

    @contextmanager
    def turn(self) -> Iterator[None]:
        """What is done within it is one turn."""
        wall_ns, cpu_ms = _CLOCK.monotonic_ns(), process_ms()
        yield
        self._cpu_ms.append(process_ms() - cpu_ms)
        self._wall_ms.append((_CLOCK.monotonic_ns() - wall_ns) / 1e6)

    def cost(self, *, n_parts: int = 1) -> Cost:
        """Of one of `n_parts` equal parts of a turn."""
        return Cost(
            cpu_ms=round(median(self._cpu_ms) / n_parts, 4),
            wall_ms=round(median(self._wall_ms) / n_parts, 4),
        )


def process_ms() -> float:
    """What this process has used since it began."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return (used.ru_utime + used.ru_stime) * 1e3


def thread_ms() -> float:
    """What this thread has used since it began."""
    process_ms()  # the kernel counts up to now for whole processes only
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return (used.ru_utime + used.ru_stime) * 1e3


def keep_freed_memory() -> bool:
    """Let glibc give nothing back to the kernel from now on; whether there is such a thing.

    By default large blocks go back when they are freed, and come again page by page.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _MOST_KEPT))


def model_of(spec: AvpSpec) -> Avp:
    """The model of a checkpoint, on the CPU.

    Raises:
        ScorerError: see `AvpSpec.build`.
    """
    kept = checkpoint.read(
        spec.folder, AvpSettings, task=TASK, rate_hz=spec.rate_hz, untrained=spec.untrained
    )
    model = Avp(kept.settings)
    kept.fill(model)
    return model.eval()


def cameras(n_sources: int, rate_hz: int) -> Iterator[tuple[Hop, ...]]:
    """Without end: the next hop of each source."""
    return zip(*(_camera(f"camera{n}", rate_hz) for n in range(n_sources)), strict=True)


def _camera(source: str, rate_hz: int) -> Iterator[Hop]:
    """Its hops, cut from noise. Each picture is new: what is kept with one is no help."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (_N_PICTURES, HEIGHT, WIDTH), dtype=np.uint8)
    n_chunk = rate_hz // FPS // _N_CHUNKS
    sound = (0.1 * rng.standard_normal((_N_PICTURES, n_chunk))).astype(np.float32)
    cutter = HopCutter(source, HopSettings(rate_hz=rate_hz), live=True)
    cutter.push(SourceStarted(source, frozenset({"audio", "video"}), 0, None))
    frame_ns = NS_PER_SEC // FPS
    chunk_ns = frame_ns // _N_CHUNKS
    for n in count():
        at_ns = n * frame_ns
        image = image_from_array(pictures[n % _N_PICTURES], "gray")
        items: list[MediaItem] = [VideoFrame(source, at_ns, image)]
        items += [
            AudioChunk(source, at_ns + i * chunk_ns, rate_hz, sound[n % _N_PICTURES])
            for i in range(_N_CHUNKS)
        ]
        for item in items:
            yield from cutter.push(item)
