"""A real sound server of our own: PulseAudio with null sinks, whose monitors are microphones."""

import ctypes
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from types import TracebackType
from typing import Final, Self

import numpy as np
import pytest
from brokers import program_path, wait_until

from mmstream.clock import SystemClock
from mmstream.media import Floats

RATE_HZ: Final = 16_000
"""Of what is played."""
_BLOCK: Final = 160
_BUFFER_BYTES: Final = RATE_HZ * 4 // 25
"""40 ms: with more, PulseAudio is wrong by up to 15 ms about when it will be heard."""
_FLOAT32_LITTLE_ENDIAN: Final = 5
_PLAYBACK: Final = 1
_DEFAULT: Final = 0xFFFF_FFFF
_PLUGIN: Final = "alsa-lib/libasound_module_pcm_pulse.so"


class Pulse:
    """PulseAudio with one null sink per room; ALSA, and so PortAudio, knows their monitors.

    The first room's monitor is ALSA's `default`; each is known by the name of its room, too.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rooms: Sequence[str] = ("room",)) -> None:
        """ALSA in this process looks here, and nowhere else."""
        # Not pytest's folder: the path of a Unix socket has at most 107 characters.
        self._folder = tempfile.TemporaryDirectory(prefix="pulse-")
        self._path = Path(self._folder.name)
        self._rooms = rooms
        self._process: subprocess.Popen[bytes] | None = None
        self.server = f"unix:{self._path}/native"
        self.name_microphones(rooms)
        monkeypatch.setenv("ALSA_CONFIG_PATH", str(self._path / "asound.conf"))
        monkeypatch.setenv("PULSE_SERVER", self.server)
        for name in ("PULSE_RUNTIME_PATH", "PULSE_STATE_PATH", "XDG_RUNTIME_DIR", "HOME"):
            monkeypatch.setenv(name, str(self._path))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        self._folder.cleanup()

    def name_microphones(self, rooms: Sequence[str]) -> None:
        """What ALSA knows from now on, in this order, before `default`."""
        lines = [f'pcm.{room} {{ type pulse device "{room}.monitor" }}' for room in rooms]
        lines.append(f'pcm.!default {{ type pulse device "{self._rooms[0]}.monitor" }}')
        (self._path / "asound.conf").write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        """Start it, and wait until it listens."""
        program = program_path("pulseaudio")
        _need_plugin()
        command = [program, "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"]
        command += [
            "-L",
            f"module-native-protocol-unix auth-anonymous=1 socket={self._path}/native",
        ]
        for room in self._rooms:
            command += ["-L", f"module-null-sink sink_name={room} rate=48000 channels=2"]
        with (self._path / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._listens, "PulseAudio listens")

    def kill(self) -> None:
        """Kill it without a warning (SIGKILL)."""
        if self._process is not None:
            self._process.send_signal(SIGKILL)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop it in its tracks."""
        assert self._process is not None
        self._process.send_signal(SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(SIGCONT)

    def play(self, room: str, samples: Floats) -> int:
        """Play [n] at `RATE_HZ`; gives our monotonic instant at which the first sample is heard.

        Returns when all has been handed over, so just before its end is heard.
        """
        player = _Player(room)
        try:
            return player.play(samples)
        finally:
            player.close()

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._path / "log").read_text()
        answer = subprocess.run(["pactl", "info"], capture_output=True, timeout=5, check=False)
        return answer.returncode == 0


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

    def __init__(self, sink: str) -> None:
        self._library = ctypes.CDLL("libpulse-simple.so.0")
        self._library.pa_simple_new.restype = ctypes.c_void_p
        self._library.pa_simple_get_latency.restype = ctypes.c_uint64
        self._error = ctypes.c_int()
        form = _Format(_FLOAT32_LITTLE_ENDIAN, RATE_HZ, 1)
        buffering = _Buffering(_DEFAULT, _BUFFER_BYTES, 0, _DEFAULT, _DEFAULT)
        self._stream = ctypes.c_void_p(
            self._library.pa_simple_new(
                None,
                b"mmstream",
                _PLAYBACK,
                sink.encode(),
                b"test",
                ctypes.byref(form),
                None,
                ctypes.byref(buffering),
                ctypes.byref(self._error),
            )
        )
        assert self._stream, f"PulseAudio error {self._error.value}"

    def play(self, samples: Floats) -> int:
        """Some silence first: only then is the latency what it says."""
        self._write(np.zeros(RATE_HZ // 4, np.float32))
        latency_usecs = self._library.pa_simple_get_latency(self._stream, ctypes.byref(self._error))
        first_ns = SystemClock().monotonic_ns() + int(latency_usecs) * 1000
        self._write(np.append(samples, np.zeros(RATE_HZ // 10, np.float32)))
        return first_ns

    def close(self) -> None:
        self._library.pa_simple_free(self._stream)

    def _write(self, samples: Floats) -> None:
        for at in range(0, samples.size, _BLOCK):
            data = np.ascontiguousarray(samples[at : at + _BLOCK], np.float32).tobytes()
            result = self._library.pa_simple_write(
                self._stream, data, ctypes.c_size_t(len(data)), ctypes.byref(self._error)
            )
            assert result == 0, f"PulseAudio error {self._error.value}"


def _need_plugin() -> None:
    """Skip, or fail, where ALSA does not find PulseAudio."""
    if not any(Path("/usr/lib").glob(f"*/{_PLUGIN}")) and not Path("/usr/lib", _PLUGIN).exists():
        program_path("libasound2-plugins")
