"""Devices: the cameras and microphones of this machine, what they send, and what is missing.

list_cameras, list_microphones -> lines of text; microphone -> a level that moves
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from typing import Final, TextIO

import numpy as np
from rich.bar import Bar
from rich.console import Console
from rich.live import Live
from rich.table import Table

from mmstream.clock import Clock
from mmstream.errors import SourceError
from mmstream.media import NS_PER_SEC, AudioChunk, secs_to_ns
from mmstream.sources.cameras import NO_CAMERA, Camera, CameraFormat
from mmstream.sources.microphone import (
    Microphone,
    MicrophoneSettings,
    MicrophoneSource,
    list_microphones,
)
from mmstream.sources.webcam import available_cameras
from mmstream.stages import Reader

NO_MICROPHONE: Final = (
    "no microphone is there; with PulseAudio or PipeWire, install libasound2-plugins; hand a "
    "container the sound server's socket, or --device /dev/snd"
)
QUIETEST_DBFS: Final = -60.0
"""Where the bar begins."""
_N_CELLS: Final = 40
_LIVE_NS: Final = NS_PER_SEC // 10
_LINE_NS: Final = NS_PER_SEC


def show(
    out: TextIO,
    clock: Clock,
    *,
    meter: bool,
    microphone: str | int = "default",
    secs: float | None = None,
) -> None:
    """Say what there is; with `meter`, then the level of `microphone` until Ctrl-C or for `secs`.

    Raises:
        SourceError: the microphone to be metered cannot be opened.
    """
    microphones: tuple[Microphone, ...] = ()
    missing = NO_MICROPHONE
    try:
        microphones = list_microphones()
    except SourceError as error:  # no PortAudio
        missing = str(error)
    out.writelines(f"{line}\n" for line in report(available_cameras(), microphones, missing))
    out.flush()
    if meter:
        reader = MicrophoneSource("meter", MicrophoneSettings(device=microphone), clock)
        with suppress(KeyboardInterrupt):
            watch_level(reader, out, secs=secs)


def report(
    cameras: Sequence[Camera], microphones: Sequence[Microphone], missing: str = NO_MICROPHONE
) -> Iterator[str]:
    """What a person reads; `missing` says why there is no microphone. The last line can be run."""
    yield "Cameras"
    if not cameras:
        yield f"  {NO_CAMERA}"
    for camera in cameras:
        yield from _camera(camera)
    yield "Microphones"
    if not microphones:
        yield f"  {missing}"
    for microphone in microphones:
        yield _microphone(microphone)
    yield "Try"
    usable = [camera.path for camera in cameras if camera.problem is None]
    if usable:
        yield f"  mmstream run webcam --set sources.desk.device={usable[0]}"
    elif microphones:
        yield "  mmstream run microphone"
    else:
        yield "  mmstream demo"


def _camera(camera: Camera) -> Iterator[str]:
    problem = "" if camera.problem is None else f": {camera.problem}"
    yield f"  {camera.path}  {camera.name}{problem}"
    for fourcc, formats in groupby(camera.formats, key=lambda one: one.fourcc):
        yield f"    {fourcc}  {', '.join(map(_size, formats))}"


def _size(one: CameraFormat) -> str:
    rate = "" if one.fps is None else f" ({one.fps:.4g} fps)"
    return f"{one.width}x{one.height}{rate}"


def _microphone(one: Microphone) -> str:
    channels = "1 channel" if one.n_channels == 1 else f"{one.n_channels} channels"
    is_default = ", the default" if one.is_default else ""
    return f"  {one.index}  {one.name}  {channels}, {one.rate_hz} Hz, {one.host_api}{is_default}"


def watch_level(reader: Reader, out: TextIO, *, secs: float | None) -> None:
    """Show how loud `reader` is, for `secs` of its sound: a bar on a terminal, else plain lines.

    Raises:
        SourceError: from the reader.
    """
    every_ns = _LIVE_NS if out.isatty() else _LINE_NS
    waiting: list[AudioChunk] = []
    end_ns: int | None = None
    with reader.read() as items, _display(out) as show_level:
        for item in items:
            if not isinstance(item, AudioChunk):
                continue
            if end_ns is None and secs is not None:
                end_ns = item.start_ns + secs_to_ns(secs)
            waiting.append(item)
            if item.end_ns - waiting[0].start_ns >= every_ns:
                show_level(level_dbfs(waiting))
                waiting.clear()
            if end_ns is not None and item.end_ns >= end_ns:
                return


def level_dbfs(chunks: Sequence[AudioChunk]) -> float:
    """The RMS of the chunks, dBFS (0 is a square wave at full scale); -inf for silence."""
    samples = np.concatenate([chunk.samples for chunk in chunks]).astype(np.float64)
    power = float(np.mean(np.square(samples)))
    return 10 * float(np.log10(power)) if power > 0 else -np.inf


@contextmanager
def _display(out: TextIO) -> Iterator[Callable[[float], None]]:
    """Shows a level each time it is called."""
    if not out.isatty():

        def write(dbfs: float) -> None:
            out.write(f"{dbfs:6.1f} dBFS\n")
            out.flush()

        yield write
        return
    with Live(console=Console(file=out), auto_refresh=False) as live:

        def draw(dbfs: float) -> None:
            live.update(_bar(dbfs), refresh=True)

        yield draw


def _bar(dbfs: float) -> Table:
    row = Table.grid(padding=1)
    filled = min(-QUIETEST_DBFS, max(0.0, dbfs - QUIETEST_DBFS))
    row.add_row(Bar(-QUIETEST_DBFS, 0, filled, width=_N_CELLS), f"{dbfs:6.1f} dBFS")
    return row
