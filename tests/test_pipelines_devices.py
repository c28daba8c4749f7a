import ctypes.util
import io
import re
import threading

import numpy as np
import pytest
from brokers import wait_until
from pulse import RATE_HZ, Pulse

from mmstream.clock import ManualClock, SystemClock
from mmstream.errors import SourceError
from mmstream.media import AudioChunk
from mmstream.pipelines import devices
from mmstream.pipelines.devices import level_dbfs, report, show, watch_level
from mmstream.sources.cameras import Camera, CameraFormat
from mmstream.sources.microphone import Microphone
from mmstream.sources.synthetic import SyntheticSettings, SyntheticSource

WEBCAM = Camera(
    "/dev/video2",
    "HD Pro Webcam C920",
    (
        CameraFormat("YUYV", 640, 480, 30),
        CameraFormat("YUYV", 1280, 720, 7.5),
        CameraFormat("MJPG", 1920, 1080, None),
    ),
)
LOCKED = Camera("/dev/video0", "Integrated Camera", problem="no permission; ask")
MICROPHONES = (
    Microphone(1, "USB Audio (hw:1,0)", "ALSA", 1, 48_000, is_default=False),
    Microphone(4, "default", "ALSA", 2, 44_100, is_default=True),
)


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def synthetic() -> SyntheticSource:
    return SyntheticSource(
        "mic", SyntheticSettings(scene="flash_beep", duration_secs=10), ManualClock()
    )


def levels(text: str) -> list[float]:
    return [float(level) for level in re.findall(r"(-?[\d.]+) dBFS", text)]


def test_all_that_is_there_is_told() -> None:
    assert list(report((LOCKED, WEBCAM), MICROPHONES)) == [
        "Cameras",
        "  /dev/video0  Integrated Camera: no permission; ask",
        "  /dev/video2  HD Pro Webcam C920",
        "    YUYV  640x480 (30 fps), 1280x720 (7.5 fps)",
        "    MJPG  1920x1080",
        "Microphones",
        "  1  USB Audio (hw:1,0)  1 channel, 48000 Hz, ALSA",
        "  4  default  2 channels, 44100 Hz, ALSA, the default",
        "Try",
        "  mmstream run webcam --set sources.desk.device=/dev/video2",
    ]


def test_what_is_missing_is_told_with_what_helps() -> None:
    lines = list(report((), ()))
    assert "--device /dev/video0" in lines[1]
    assert "libasound2-plugins" in lines[3]
    assert lines[-1] == "  mmstream demo"


def test_a_microphone_alone_is_something_to_try() -> None:
    assert list(report((LOCKED,), MICROPHONES))[-1] == "  mmstream run microphone"


def test_without_portaudio_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> tuple[Microphone, ...]:
        msg = "microphones need PortAudio: apt install it"
        raise SourceError(msg)

    monkeypatch.setattr(devices, "list_microphones", missing)
    out = io.StringIO()
    show(out, SystemClock(), meter=False)
    assert "  microphones need PortAudio: apt install it\n" in out.getvalue()


def test_a_level_is_that_of_a_square_wave_at_full_scale() -> None:
    square = AudioChunk("mic", 0, 16_000, np.tile([1, -1], 80).astype(np.float32))
    half = AudioChunk("mic", 0, 16_000, np.full(160, 0.5, np.float32))
    silence = AudioChunk("mic", 0, 16_000, np.zeros(160, np.float32))
    assert level_dbfs([square]) == 0
    assert level_dbfs([half]) == pytest.approx(-6.02, abs=0.01)
    assert level_dbfs([square, silence]) == pytest.approx(-3.01, abs=0.01)
    assert level_dbfs([silence]) == -np.inf


def test_where_there_is_no_terminal_it_prints_a_line_per_second() -> None:
    out = io.StringIO()
    watch_level(synthetic(), out, secs=3)
    assert len(levels(out.getvalue())) == 3
    assert all(-90 < level < 0 for level in levels(out.getvalue()))


def test_a_terminal_gets_a_bar_that_moves() -> None:
    out = Screen()
    watch_level(synthetic(), out, secs=9)
    assert len(set(levels(out.getvalue()))) > 5
    assert "█" in out.getvalue()


def test_ctrl_c_ends_the_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(devices, "watch_level", interrupted)
    out = io.StringIO()
    show(out, SystemClock(), meter=True)
    assert out.getvalue().startswith("Cameras\n")


@pytest.mark.skipif(not ctypes.util.find_library("portaudio"), reason="libportaudio2 is missing")
def test_a_real_microphone_is_listed_and_metered(monkeypatch: pytest.MonkeyPatch) -> None:
    tone = np.sin(np.arange(RATE_HZ * 4) * 2 * np.pi * 440 / RATE_HZ).astype(np.float32) / 10
    out = io.StringIO()
    with Pulse(monkeypatch) as pulse:
        playing = threading.Thread(target=pulse.play, args=("room", tone), daemon=True)
        playing.start()
        show(out, SystemClock(), meter=True, secs=2)
        wait_until(lambda: not playing.is_alive(), "the tone has ended")
    listed = out.getvalue()
    assert re.search(r"^  \d+  default  .*ALSA, the default$", listed, re.MULTILINE), listed
    assert max(levels(listed)) == pytest.approx(-23.0, abs=1)
