import ctypes.util
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest
from brokers import wait_until
from pulse import RATE_HZ, Pulse
from pydantic import ValidationError

from mmstream.clock import SystemClock
from mmstream.codecs import read_audio
from mmstream.errors import SourceError
from mmstream.media import (
    NS_PER_SEC,
    AudioChunk,
    Floats,
    MediaItem,
    SourceStarted,
    ns_to_samples,
    secs_to_ns,
)
from mmstream.sources import microphone
from mmstream.sources.hearing import SETTLING_NS
from mmstream.sources.microphone import (
    Microphone,
    MicrophoneSettings,
    MicrophoneSource,
    find_microphone,
    list_microphones,
)

HELD = (
    Microphone(0, "USB Audio: Device (hw:1,0)", "ALSA", 1, 48_000, is_default=False),
    Microphone(3, "Webcam: USB Audio (hw:2,0)", "ALSA", 2, 32_000, is_default=False),
    Microphone(4, "pulse", "ALSA", 32, 44_100, is_default=False),
    Microphone(5, "default", "ALSA", 32, 44_100, is_default=True),
)
CLOCK = SystemClock()


class Listening:
    """A microphone that is read on a thread of its own, as the runtime does it."""

    def __init__(self, reader: MicrophoneSource) -> None:
        self.items: list[MediaItem] = []
        self.ages_ns: list[int] = []
        """How long after its end each chunk was there."""
        self.error: SourceError | None = None
        self._reader = reader
        self._is_left = False
        self.thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_left = True
        self.wait_for_end()

    @property
    def chunks(self) -> list[AudioChunk]:
        return [item for item in self.items if isinstance(item, AudioChunk)]

    def wait_for_sound(self) -> None:
        wait_until(lambda: bool(self.chunks) or self.error is not None, "sound comes")
        assert self.error is None, self.error

    def wait_for_end(self) -> None:
        wait_until(lambda: not self.thread.is_alive(), "the reader has ended")

    def heard(self, at_ns: int, n: int) -> Floats:
        """[n]: what was captured from that instant on; waits for it."""
        end_ns = at_ns + n * NS_PER_SEC // RATE_HZ
        wait_until(lambda: self.chunks[-1].end_ns >= end_ns, "all was heard")
        chunks = self.chunks
        zero_ns = chunks[0].start_ns
        samples = np.zeros(ns_to_samples(chunks[-1].end_ns - zero_ns, RATE_HZ) + 1, np.float32)
        for chunk in chunks:
            at = ns_to_samples(chunk.start_ns - zero_ns, RATE_HZ)
            samples[at : at + chunk.samples.size] = chunk.samples
        first = ns_to_samples(at_ns - zero_ns, RATE_HZ)
        assert first >= 0
        return samples[first : first + n]

    def seams_ns(self) -> list[int]:
        """Where chunks do not follow each other, but for the seam that settling may leave."""
        settled_ns = self.chunks[0].start_ns + SETTLING_NS + NS_PER_SEC // 2
        return [
            left.end_ns
            for left, right in pairwise(self.chunks)
            if left.end_ns != right.start_ns and left.end_ns > settled_ns
        ]

    def _read(self) -> None:
        try:
            with self._reader.read() as items:
                for item in items:
                    self.items.append(item)
                    if isinstance(item, AudioChunk):
                        self.ages_ns.append(CLOCK.monotonic_ns() - item.end_ns)
                    if self._is_left:
                        return
        except SourceError as error:
            self.error = error


def source(device: str | int = "default") -> MicrophoneSource:
    return MicrophoneSource("room", MicrophoneSettings(device=device), CLOCK)


def tone(hz: float, secs: float) -> Floats:
    at_secs = np.arange(round(secs * RATE_HZ)) / RATE_HZ
    return (0.5 * np.sin(2 * np.pi * hz * at_secs)).astype(np.float32)


def strongest_hz(samples: Floats) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples)))) * RATE_HZ / samples.size


def compared(heard: Floats, said: Floats, margin: int) -> tuple[Floats, Floats]:
    """Of each 0.2 s that are no pause: how much later than said they were heard, ms; how alike.

    `heard` begins and ends by `margin` samples further out.
    """
    late_ms, likeness = [], []
    size = RATE_HZ // 5
    for at in range(0, said.size - size, size):
        part, around = said[at : at + size], heard[at : at + size + 2 * margin]
        if rms(part) < rms(said) / 2:
            continue
        late = int(np.correlate(around, part, "valid").argmax())
        late_ms.append((late - margin) / RATE_HZ * 1e3)
        likeness.append(np.corrcoef(around[late : late + size], part)[0, 1])
    return np.array(late_ms, np.float32), np.array(likeness, np.float32)


def rms(samples: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def test_speech_is_heard_as_it_was_said_and_when(
    monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    said = read_audio(data_dir / "speech" / "google_brooklyn_bridge.wav", RATE_HZ)
    with Pulse(monkeypatch) as pulse, Listening(source()) as listening:
        listening.wait_for_sound()
        pulse.play("room", tone(440, 1))  # while PulseAudio finds out how late it is
        said_ns = pulse.play("room", said)
        margin = RATE_HZ // 10
        heard = listening.heard(said_ns - secs_to_ns(0.1), said.size + 2 * margin)
    started = listening.items[0]
    assert isinstance(started, SourceStarted)
    assert (started.streams, started.clock_offset_ns) == (frozenset({"audio"}), 0)
    now_ns = CLOCK.monotonic_ns() + started.utc_offset_ns
    assert abs(now_ns - CLOCK.utc_ns()) < NS_PER_SEC
    assert {chunk.rate_hz for chunk in listening.chunks} == {RATE_HZ}
    assert not listening.seams_ns()
    late_ms, likeness = compared(heard, said, margin)
    assert np.median(likeness) > 0.95
    # Where a piece is being stretched by some ms, its best match may be a period of the voice off.
    is_clear = likeness > 0.9
    assert is_clear.mean() > 0.7
    assert np.abs(late_ms[is_clear]).max() < 15
    assert rms(heard) * np.sqrt(heard.size) == pytest.approx(
        rms(said) * np.sqrt(said.size), rel=0.02
    )
    assert np.median(listening.ages_ns) < 0.5e9


def test_a_server_that_dies_ends_the_reader_and_one_that_is_back_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = source()
    with Pulse(monkeypatch) as pulse:
        with Listening(reader) as listening:
            listening.wait_for_sound()
            pulse.kill()
            listening.wait_for_end()
        assert str(listening.error).startswith("room: microphone 'default' is gone")
        with Listening(reader) as nobody:
            nobody.wait_for_end()
        assert str(nobody.error) == (
            "room: there is no microphone 'default'; allowed: none was found"
        )
        pulse.start()
        with Listening(reader) as again:
            again.wait_for_sound()
        assert again.error is None
        assert again.chunks[0].start_ns > listening.chunks[-1].end_ns


def test_a_microphone_is_found_by_name_under_whatever_index(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Pulse(monkeypatch, ("hall", "kitchen")) as pulse:
        before = find_microphone("kitchen", list_microphones())
        pulse.name_microphones(["cellar", "attic", "kitchen", "hall"])
        after = find_microphone("kitchen", list_microphones())
        assert before.index != after.index
        with Listening(source("Kitch")) as listening:
            listening.wait_for_sound()
            pulse.play("hall", tone(440, 0.2))
            at_ns = pulse.play("kitchen", tone(1000, 0.5))
            heard = listening.heard(at_ns, RATE_HZ // 2)
        everything = np.concatenate([chunk.samples for chunk in listening.chunks])
    assert strongest_hz(heard) == pytest.approx(1000, abs=4)
    assert rms(heard) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)
    spectrum = np.abs(np.fft.rfft(everything))
    at_440 = spectrum[round(440 * everything.size / RATE_HZ)]
    assert at_440 < spectrum.max() / 100


def test_two_microphones_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with Pulse(monkeypatch, ("hall", "kitchen")) as pulse, Listening(source("hall")) as hall:
        hall.wait_for_sound()
        pulse.name_microphones(["attic", "kitchen", "hall"])
        with Listening(source("kitchen")) as kitchen:
            kitchen.wait_for_sound()
            at_ns = pulse.play("kitchen", tone(1000, 0.5))
            assert strongest_hz(kitchen.heard(at_ns, RATE_HZ // 2)) == pytest.approx(1000, abs=4)
            with Listening(source("attic")) as attic:
                attic.wait_for_end()
        assert str(attic.error).startswith("room: there is no microphone 'attic'; allowed: 0 '")
        assert str(attic.error).endswith("(while others are open, what was plugged in is not seen)")
        n_chunks = len(hall.chunks)  # closing the others has not closed it
        wait_until(lambda: len(hall.chunks) > n_chunks + 50, "it goes on")
        assert rms(hall.heard(at_ns, RATE_HZ // 2)) == 0.0


def test_a_server_that_hangs_is_given_up_and_holds_nobody_else_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Pulse(monkeypatch) as pulse, Listening(source()) as listening:
        listening.wait_for_sound()
        known = list_microphones()
        monkeypatch.setattr(microphone, "SILENT_SECS", 1)
        n_chunks = len(listening.chunks)
        wait_until(lambda: len(listening.chunks) > n_chunks + 10, "it waits for 1 s now")
        pulse.freeze()
        wait_until(lambda: is_in(listening.thread, "abort"), "the reader has given up")
        assert list_microphones() == known
        pulse.thaw()
        listening.wait_for_end()
        assert str(listening.error) == "room: microphone 'default' gave nothing for 1 s"


def is_in(thread: threading.Thread, function: str) -> bool:
    """Whether it is just now executing that function."""
    assert thread.ident is not None
    frame = sys._current_frames().get(thread.ident)  # noqa: SLF001 - the only way to look
    while frame is not None and frame.f_code.co_name != function:
        frame = frame.f_back
    return frame is not None


def test_a_process_that_stood_still_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = source()
    with Pulse(monkeypatch) as pulse, Listening(reader) as listening:
        listening.wait_for_sound()
        pulse.play("room", tone(440, 1))
        at_ns = pulse.play("room", tone(1000, 0.5))
        # No other thread runs meanwhile, PortAudio's neither: it needs Python's lock.
        ctypes.PyDLL(None).usleep(700_000)
        listening.heard(at_ns, RATE_HZ)
    assert not listening.seams_ns()
    assert max(listening.ages_ns) > 0.6e9
    dropped = reader.metrics[0].dropped
    assert (dropped["reader_behind"], dropped["xrun"]) == (0, 0)


def test_a_process_may_end_while_a_microphone_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    program = """
import threading
from mmstream.clock import SystemClock
from mmstream.sources.microphone import MicrophoneSettings, MicrophoneSource

def read():
    with MicrophoneSource("room", MicrophoneSettings(), SystemClock()).read() as items:
        for _ in items:
            is_open.set()

is_open = threading.Event()
threading.Thread(target=read, daemon=True).start()
assert is_open.wait(10)
"""
    with Pulse(monkeypatch):
        command = [sys.executable, "-c", program]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    assert ended.returncode == 0, ended.stderr


def test_without_portaudio_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(ctypes.util, "find_library", lambda _: None)
    with Listening(source()) as listening:
        listening.wait_for_end()
    assert "apt install libportaudio2" in str(listening.error)
    with pytest.raises(SourceError, match="libportaudio2"):
        list_microphones()


@pytest.mark.parametrize(
    ("wanted", "index"),
    [("default", 5), (3, 3), ("pulse", 4), ("webcam", 3), ("hw:1", 0), ("PULSE", 4)],
)
def test_find(wanted: int | str, index: int) -> None:
    assert find_microphone(wanted, HELD).index == index


@pytest.mark.parametrize(
    ("wanted", "among", "text"),
    [
        ("usb", HELD, r"more than one microphone 'usb'; allowed: 0 'USB Audio: .*; 3 'Webcam: "),
        ("attic", HELD, r"no microphone 'attic'; allowed: 0 'USB .* 5 'default' \(ALSA\)$"),
        (1, HELD, "no microphone 1; allowed: 0 "),
        ("default", HELD[:2], "no microphone 'default'; allowed: 0 "),
        ("default", (), "no microphone 'default'; allowed: none was found"),
    ],
)
def test_find_refuses(wanted: int | str, among: tuple[Microphone, ...], text: str) -> None:
    with pytest.raises(SourceError, match=text):
        find_microphone(wanted, among)


def test_the_exact_name_comes_before_a_part_of_others() -> None:
    longer = Microphone(7, "pulse of the room", "ALSA", 2, 48_000, is_default=False)
    assert find_microphone("pulse", (longer, *HELD)).index == 4


@pytest.mark.parametrize("device", [-1, "", 1.5, True, None])
def test_settings_refuse(device: object) -> None:
    with pytest.raises(ValidationError):
        MicrophoneSettings.model_validate({"type": "microphone", "device": device})
