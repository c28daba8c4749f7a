"""Microphones of this machine, through PortAudio: ALSA, PulseAudio, PipeWire, or a system's own.

PortAudio's list of devices is made when it is initialised, and its functions may not be called at
the same time. So it is initialised anew at each opening, if no microphone is open in this process:
what was plugged in since is found, under whatever index. While another one is open that would close
it: then what was plugged in since is not found (and the error says so). A sound server hides this
from everyone: there, `default` is whatever the server says.
"""

import atexit
import ctypes
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, Queue
from types import ModuleType
from typing import Annotated, Final, Literal, Protocol

from pydantic import Field

from mmstream.clock import Clock
from mmstream.config import Settings
from mmstream.errors import SourceError
from mmstream.media import (
    DEFAULT_RATE_HZ,
    NS_PER_SEC,
    MediaItem,
    SourceStarted,
    StreamClock,
)
from mmstream.metrics import StageMetrics
from mmstream.sources.hearing import Block, Blocks, Hearing

SILENT_SECS: Final = 10
"""A device that gives no block for so long is closed: sooner than the runtime gives up on us."""

_LATENCY_SECS: Final = 0.1
"""What the device keeps while nobody comes for it: Python may be busy for tens of milliseconds. It
is asked for every quarter of that, or half, so sound is no older than 50 ms when it comes."""
_MAX_CHANNELS: Final = 2
"""Of an array of microphones, the first two."""
_REPORT_NS: Final = 10 * NS_PER_SEC
_HANGS_SECS: Final = 10.0
_LEAVING_SECS: Final = 1.0
_NO_PORTAUDIO: Final = (
    "microphones need PortAudio: `apt install libportaudio2` (Debian, Ubuntu), "
    "`dnf install portaudio` (Fedora)"
)


class MicrophoneSettings(Settings):
    """A microphone of this machine, or the monitor of what it plays."""

    type: Literal["microphone"] = "microphone"
    device: Annotated[int, Field(ge=0, strict=True)] | Annotated[str, Field(min_length=1)] = (
        "default"
    )
    """`default`, or a number or name as `mmstream devices` shows it, or a part of the name that no
    other has. Numbers change when something is plugged in; names seldom do."""


@dataclass(frozen=True, slots=True)
class Microphone:
    """An input device as PortAudio knows it."""

    index: int
    name: str
    host_api: str
    """ALSA, JACK, Core Audio, ..."""
    n_channels: int
    """At most; two are enough for us."""
    rate_hz: int
    """What it prefers."""
    is_default: bool


def list_microphones() -> tuple[Microphone, ...]:
    """What PortAudio finds, by index; as it was before, while a microphone is open.

    Raises:
        SourceError: PortAudio is not installed, or does not answer.
    """
    with _inside_portaudio() as portaudio:
        return portaudio.microphones()


class MicrophoneSource:
    """Sound of a microphone, on our clock, in chunks of 20 ms."""

    live = True

    def __init__(
        self,
        name: str,
        settings: MicrophoneSettings,
        clock: Clock,
        *,
        rate_hz: int = DEFAULT_RATE_HZ,
    ) -> None:
        """Nothing is opened yet; chunks come at `rate_hz`."""
        self.name = name
        self._device = settings.device
        self._clock = clock
        self._rate_hz = rate_hz
        self._metrics = StageMetrics(f"microphone/{name}")

    @property
    def metrics(self) -> Sequence[StageMetrics]:
        """Blocks in, chunks out; drops: `xrun` and `reader_behind`, each a hole in time."""
        return (self._metrics,)

    @contextmanager
    def read(self) -> Iterator[Iterator[MediaItem]]:
        """Look the microphone up, open it and give its sound, until it is gone.

        Raises:
            SourceError: PortAudio is not installed; there is no such microphone, or it is busy, or
                gone, or silent: not one block came for `SILENT_SECS`.
        """
        blocks = Blocks(self._clock)
        with (
            _opened(self.name, self._device, blocks) as stream,
            closing(self._items(stream, blocks)) as items,
        ):
            yield items

    def _items(self, stream: "_Opened", blocks: Blocks) -> Generator[MediaItem]:
        clock = self._clock
        utc_offset_ns = clock.utc_ns() - clock.monotonic_ns()
        yield SourceStarted(self.name, frozenset({"audio"}), utc_offset_ns, clock_offset_ns=0)
        hearing = Hearing(self.name, stream.rate_hz, self._rate_hz, self._metrics)
        reported_ns = 0
        while True:
            for chunk in hearing.push(self._next(stream, blocks)):
                yield chunk
                drift_ppm = hearing.drift_ppm
                if drift_ppm is not None and chunk.end_ns - reported_ns >= _REPORT_NS:
                    reported_ns = chunk.end_ns
                    yield StreamClock(self.name, "audio", drift_ppm)

    def _next(self, stream: "_Opened", blocks: Blocks) -> Block:
        """Wait for it."""
        for _ in range(SILENT_SECS):
            try:
                block = blocks.get(timeout_secs=1)
            except Empty:
                if stream.active:
                    continue
                block = None
            if block is None:
                msg = (
                    f"{self.name}: microphone {stream.name!r} is gone (unplugged, or its sound "
                    "server ended)"
                )
                raise SourceError(msg)
            return block
        msg = f"{self.name}: microphone {stream.name!r} gave nothing for {SILENT_SECS} s"
        raise SourceError(msg)


class _Stream(Protocol):
    active: bool

    def start(self) -> None: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Opened:
    """A microphone that is open."""

    name: str
    rate_hz: int
    stream: _Stream

    @property
    def active(self) -> bool:
        """Whether PortAudio still serves it."""
        return self.stream.active


@dataclass(slots=True)
class _InUse:
    n_open: int = 0
    """Microphones, those that are being closed included."""
    n_closing: int = 0


_in_use: Final[Queue[_InUse]] = Queue(1)
"""Whoever has taken it is the only one in PortAudio."""
_in_use.put(_InUse())


@contextmanager
def _inside_portaudio(*, timeout_secs: float | None = _HANGS_SECS) -> Iterator["_PortAudio"]:
    """Nobody else is, and its devices are those of now if that can be."""
    try:
        in_use = _in_use.get(timeout=timeout_secs)
    except Empty:
        msg = f"PortAudio has been busy with another microphone for {_HANGS_SECS:g} s"
        raise SourceError(msg) from None
    try:
        portaudio = _PortAudio(_sounddevice(), in_use)
        if portaudio.is_fresh:
            portaudio.refresh()
        yield portaudio
    finally:
        _in_use.put(in_use)


def _sounddevice() -> ModuleType:
    try:
        import sounddevice  # noqa: PLC0415 - it wants a library that may be missing
    except OSError as error:
        raise SourceError(_NO_PORTAUDIO) from error
    module: ModuleType = sounddevice
    atexit.unregister(module._exit_handler)  # noqa: SLF001 - ours does it, if it can be done
    atexit.unregister(_leave)
    atexit.register(_leave, module)
    return module


def _leave(sounddevice: ModuleType) -> None:
    """End PortAudio with this process, and let nobody in any more.

    Its threads must not call Python any later. But what hangs would hang this, too.
    """
    with suppress(Empty):
        if not _in_use.get(timeout=_LEAVING_SECS).n_closing:
            sounddevice._exit_handler()  # noqa: SLF001


@dataclass(frozen=True, slots=True)
class _PortAudio:
    """What is to be done alone."""

    library: ModuleType
    in_use: _InUse

    @property
    def is_fresh(self) -> bool:
        """Whether the devices are those of now."""
        return not self.in_use.n_open

    def refresh(self) -> None:
        """Make it look for devices, which it only does when it is initialised."""
        if sys.platform == "linux":
            # ALSA tells standard error of each device that its configuration names and that is not
            # there. Any function that takes no notice of what it is given can be told instead.
            with suppress(OSError):
                alsa = ctypes.CDLL("libasound.so.2")
                alsa.snd_lib_error_set_handler(ctypes.CDLL(None).getpid)
        try:
            # Both are documented in spite of their names.
            if self.library._initialized:  # noqa: SLF001
                self.library._terminate()  # noqa: SLF001
            self.library._initialize()  # noqa: SLF001
        except self.library.PortAudioError as error:
            msg = f"PortAudio cannot look for microphones: {error}"
            raise SourceError(msg) from error

    def microphones(self) -> tuple[Microphone, ...]:
        """All it knows of, by index."""
        apis = self.library.query_hostapis()
        try:
            default = self.library.query_devices(kind="input")["index"]
        except self.library.PortAudioError:  # there is none
            default = None
        return tuple(
            Microphone(
                device["index"],
                device["name"],
                apis[device["hostapi"]]["name"],
                device["max_input_channels"],
                round(device["default_samplerate"]),
                is_default=device["index"] == default,
            )
            for device in self.library.query_devices()
            if device["max_input_channels"]
        )

    def open(self, wanted: int | str, blocks: Blocks) -> _Opened:
        """Find it and start it; `blocks` takes what it gives."""
        found = find_microphone(wanted, self.microphones())
        stream: _Stream | None = None
        try:
            stream = self.library.RawInputStream(
                device=found.index,
                samplerate=found.rate_hz,
                channels=min(found.n_channels, _MAX_CHANNELS),
                dtype="float32",
                latency=_LATENCY_SECS,
                callback=blocks.take,
                finished_callback=blocks.end,
            )
            stream.start()
        except self.library.PortAudioError as error:
            if stream is not None:
                stream.close()
            msg = (
                f"microphone {found.name!r} cannot be opened: {error} (another program may have "
                "it; with plain ALSA, its users are in the group `audio`)"
            )
            raise SourceError(msg) from error
        self.in_use.n_open += 1
        return _Opened(found.name, found.rate_hz, stream)


def find_microphone(wanted: int | str, among: Sequence[Microphone]) -> Microphone:
    """The one of that index or name, or the default.

    Raises:
        SourceError: there is none, or more than one; the text says what there is.
    """
    if isinstance(wanted, int):
        found = [one for one in among if one.index == wanted]
    elif wanted == "default":
        found = [one for one in among if one.is_default]
    else:
        found = [one for one in among if one.name == wanted] or [
            one for one in among if wanted.lower() in one.name.lower()
        ]
    if len(found) == 1:
        return found[0]
    problem = "there is more than one" if found else "there is no"
    shown = "; ".join(f"{one.index} {one.name!r} ({one.host_api})" for one in found or among)
    msg = f"{problem} microphone {wanted!r}; allowed: {shown or 'none was found'}"
    raise SourceError(msg)


@contextmanager
def _opened(source: str, device: int | str, blocks: Blocks) -> Iterator[_Opened]:
    """It, sending to `blocks`; closed on the way out."""
    is_fresh = True
    try:
        with _inside_portaudio() as portaudio:
            is_fresh = portaudio.is_fresh
            opened = portaudio.open(device, blocks)
    except SourceError as error:
        stale = "" if is_fresh else " (while others are open, what was plugged in is not seen)"
        msg = f"{source}: {error}{stale}"
        raise SourceError(msg) from error
    try:
        yield opened
    finally:
        with _inside_portaudio(timeout_secs=None) as portaudio:
            portaudio.in_use.n_closing += 1
        # Outside: this takes as long as a sound server that hangs, and others shall go on.
        opened.stream.abort()
        with _inside_portaudio(timeout_secs=None) as portaudio:
            opened.stream.close()
            portaudio.in_use.n_closing -= 1
            portaudio.in_use.n_open -= 1
