"""A microphone that hears what we play: PulseAudio's null sink, which ALSA knows as `default`."""

import ctypes
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from mmstream.clock import SystemClock
from mmstream.errors import SourceError
from mmstream.media import DEFAULT_RATE_HZ, NS_PER_SEC, Floats, secs_to_ns

START_SECS: Final = 10.0

_SINK: Final = "room"
_BLOCK: Final = DEFAULT_RATE_HZ // 100
_BUFFER_BYTES: Final = DEFAULT_RATE_HZ * 4 // 25
"""40 ms: with more, PulseAudio is wrong by up to 15 ms about when it will be heard."""
_FLOAT32_LITTLE_ENDIAN: Final = 5
_PLAYBACK: Final = 1
_DEFAULT: Final = 0xFFFF_FFFF
_CLOCK: Final = SystemClock()


class NullMicrophone:
    """A sound server of our own, which nobody is told of but through `environment`."""

    def __init__(self, folder: Path) -> None:
        """It does not run yet. `folder` has a short path, of 90 characters: a socket is in it."""
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a process must be told whose microphone this is to be."""
        own = ("PULSE_RUNTIME_PATH", "PULSE_STATE_PATH", "XDG_RUNTIME_DIR")
        return {
            "ALSA_CONFIG_PATH": str(self._folder / "asound.conf"),
            "PULSE_SERVER": self._server,
            **dict.fromkeys(own, str(self._folder)),
        }

    def __enter__(self) -> Self:
        """Start it, and wait until it takes sound.

        Raises:
            SourceError: it is not installed, or does not start.
        """
        lines = f'pcm.!default {{ type pulse device "{_SINK}.monitor" }}\n'
        (self._folder / "asound.conf").write_text(lines, encoding="utf-8")
        log = self._folder / "pulseaudio.log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(  # noqa: S603 - a fixed command
                [
                    *(_path("pulseaudio"), "-n", "--daemonize=no", "--use-pid-file=no"),
                    *("--exit-idle-time=-1", "-L"),
                    f"module-native-protocol-unix auth-anonymous=1 socket={self._folder}/native",
                    *("-L", f"module-null-sink sink_name={_SINK} rate=48000 channels=2"),
                ],
                stdout=out,
                stderr=out,
            )
        deadline_ns = _CLOCK.monotonic_ns() + secs_to_ns(START_SECS)
        while not self._listens():
            if self._process.poll() is not None or _CLOCK.monotonic_ns() > deadline_ns:
                self._end()
                msg = f"PulseAudio does not start: {log.read_text('utf-8', 'replace')}"
                raise SourceError(msg)
            _CLOCK.sleep(0.02)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it."""
        self._end()

    def play(self, samples: Floats) -> int:
        """Play [n] at `DEFAULT_RATE_HZ`; gives our monotonic instant at which the first is heard.

        Returns when all has been handed over, so just before its end is heard.

        Raises:
            SourceError: the server does not take it.
        """
        player = _Player(self._server)
        try:
            return player.play(samples)
        finally:
            player.close()

    @property
    def _server(self) -> str:
        return f"unix:{self._folder}/native"

    def _listens(self) -> bool:
        try:
            _Player(self._server).close()
        except SourceError:
            return False
        return True

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class _Format(ctypes.Structure):
    _fields_ = (
        ("format", ctypes.c_int),
        ("rate", ctypes.c_uint32),
        ("channels", ctypes.c_uint8),
    )


class _Buffering(ctypes.Structure):
    _fields_ = (
        ("maxlength", ctypes.c_uint32),
        ("tlength", ctypes.c_uint32),
        ("prebuf", ctypes.c_uint32),
        ("minreq", ctypes.c_uint32),
        ("fragsize", ctypes.c_uint32),
    )


class _Player:
    """PulseAudio's `pa_simple`: it tells when what is written will be heard; `paplay` does not."""

    def __init__(self, server: str) -> None:
        try:
            self._library = ctypes.CDLL("libpulse-simple.so.0")
        except OSError:
            msg = "libpulse-simple.so.0 is not installed: apt-get install libpulse0"
            raise SourceError(msg) from None
        self._library.pa_simple_new.restype = ctypes.c_void_p
        self._library.pa_simple_get_latency.restype = ctypes.c_uint64
        self._error = ctypes.c_int()
        form = _Format(_FLOAT32_LITTLE_ENDIAN, DEFAULT_RATE_HZ, 1)
        buffering = _Buffering(_DEFAULT, _BUFFER_BYTES, 0, _DEFAULT, _DEFAULT)
        self._stream = ctypes.c_void_p(
            self._library.pa_simple_new(
                server.encode(),
                b"mmstream",
                _PLAYBACK,
                _SINK.encode(),
                b"bench",
                ctypes.byref(form),
                None,
                ctypes.byref(buffering),
                ctypes.byref(self._error),
            )
        )
        if not self._stream:
            raise self._failure()

    def play(self, samples: Floats) -> int:
        """Some silence first: only then is the latency what it says."""
        self._write(np.zeros(DEFAULT_RATE_HZ // 4, np.float32))
        latency_usecs = self._library.pa_simple_get_latency(self._stream, ctypes.byref(self._error))
        first_ns = _CLOCK.monotonic_ns() + int(latency_usecs) * (NS_PER_SEC // 1_000_000)
        self._write(np.append(samples, np.zeros(DEFAULT_RATE_HZ // 10, np.float32)))
        return first_ns

    def close(self) -> None:
        """Let it go."""
        self._library.pa_simple_free(self._stream)

    def _write(self, samples: Floats) -> None:
        for at in range(0, samples.size, _BLOCK):
            data = np.ascontiguousarray(samples[at : at + _BLOCK], np.float32).tobytes()
            size = ctypes.c_size_t(len(data))
            if self._library.pa_simple_write(self._stream, data, size, ctypes.byref(self._error)):
                raise self._failure()

    def _failure(self) -> SourceError:
        return SourceError(f"PulseAudio does not take sound: error {self._error.value}")


def _path(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        msg = f"{program} is not installed: apt-get install pulseaudio libasound2-plugins"
        raise SourceError(msg)
    return path
