from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmstream.clock import ManualClock
from mmstream.media import NS_PER_SEC, AudioChunk, Floats, samples_to_ns, secs_to_ns
from mmstream.metrics import StageMetrics
from mmstream.sources.hearing import MAX_BLOCKS, SETTLING_NS, Block, Blocks, Hearing

RATE_HZ = 16_000
DEVICE_HZ = 44_100
SIZE = 1024
"""Of a block."""
ALREADY_NS = 7 * NS_PER_SEC
"""What our clock shows when the device takes its first sample."""


@dataclass
class TimeInfo:
    inputBufferAdcTime: float  # noqa: N815 - PortAudio's names
    currentTime: float  # noqa: N815


@dataclass
class Status:
    input_overflow: bool = False


class Device:
    """A sound card: takes samples, and hands them over in blocks, as PortAudio does."""

    def __init__(self, *, ppm: float = 0, n_channels: int = 2) -> None:
        """Its clock is fast by `ppm`."""
        self.clock = ManualClock(monotonic_ns=ALREADY_NS)
        self.blocks = Blocks(self.clock)
        self.metrics = StageMetrics("room")
        self.hearing = Hearing("room", DEVICE_HZ, RATE_HZ, self.metrics)
        self._rate_hz = DEVICE_HZ * (1 + ppm * 1e-6)
        self._n_channels = n_channels
        self._n_taken = 0
        self._has_lost = False

    def at_ns(self, n: int) -> int:
        """When, by our clock, it takes its sample `n`."""
        return ALREADY_NS + round(n / self._rate_hz * NS_PER_SEC)

    def lose(self, n: int) -> None:
        """Take samples that nobody gets."""
        self._n_taken += n
        self._has_lost = True

    def hand_over(
        self,
        n: int = SIZE,
        *,
        late_secs: float = 0.0,
        claims_secs: float | None = 0.0,
        is_silent: bool = False,
    ) -> None:
        """Take `n` samples and hand them over `late_secs` after the last.

        What it says of their age is wrong by `claims_secs`; None: says nothing. Each sample tells
        by its phase which it is: a sine of 100 Hz, by our clock.
        """
        end_ns = self.at_ns(self._n_taken + n) + secs_to_ns(late_secs)
        self.clock.advance((end_ns - self.clock.monotonic_ns()) / NS_PER_SEC)
        now_ns = self.clock.monotonic_ns()
        age_secs = (now_ns - self.at_ns(self._n_taken)) / NS_PER_SEC
        adc_secs = 0.0 if claims_secs is None else 5000 - age_secs - claims_secs
        wave = self.wave((self._n_taken + np.arange(n)) / self._rate_hz)
        data = np.repeat(wave, self._n_channels) * (not is_silent)
        info, status = TimeInfo(adc_secs, 5000.0), Status(self._has_lost)
        self.blocks.take(memoryview(data.astype(np.float32).tobytes()), n, info, status)
        self._n_taken += n
        self._has_lost = False

    @staticmethod
    def wave(at_secs: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Floats:
        return np.asarray(0.5 * np.sin(2 * np.pi * 100 * at_secs), np.float32)

    def hear(self) -> list[AudioChunk]:
        """What the reader makes of all that waits."""
        self.blocks.end()
        chunks = []
        while (block := self.blocks.get(timeout_secs=0)) is not None:
            chunks += self.hearing.push(block)
        return chunks

    def play(self, secs: float, **how: float | None) -> list[AudioChunk]:
        """Hand over and hear so many seconds, block by block."""
        chunks = []
        for _ in range(round(secs * DEVICE_HZ / SIZE)):
            self.hand_over(**how)  # type: ignore[arg-type]  # the keywords of hand_over
            chunks += self.hear()
        return chunks


def errors_ms(chunks: list[AudioChunk]) -> Floats:
    """By how much each chunk was taken sooner than its instant says, ms, by its phase: +-5 ms."""
    errors = []
    for chunk in chunks:
        secs = (chunk.start_ns - ALREADY_NS) / NS_PER_SEC + np.arange(chunk.samples.size) / RATE_HZ
        turns = 2 * np.pi * 100 * secs
        sine = float(np.dot(chunk.samples, np.sin(turns)))
        cosine = float(np.dot(chunk.samples, np.cos(turns)))
        errors.append(-np.arctan2(cosine, sine) / (2 * np.pi * 100) * 1e3)
    return np.array(errors, np.float32)


def holes(chunks: list[AudioChunk]) -> list[tuple[int, int]]:
    """Where, and for how long, nothing was heard."""
    return [
        (left.end_ns, right.start_ns - left.end_ns)
        for left, right in pairwise(chunks)
        if left.end_ns != right.start_ns
    ]


@pytest.mark.parametrize("n_channels", [1, 2])
def test_sound_is_when_it_was_taken(n_channels: int) -> None:
    device = Device(n_channels=n_channels)
    chunks = device.play(3)
    assert chunks[0].start_ns == pytest.approx(ALREADY_NS, abs=1e6)
    assert np.abs(errors_ms(chunks[1:])).max() < 0.5
    assert not holes(chunks)
    assert {chunk.samples.size for chunk in chunks} == {320}
    assert (device.metrics.n_in, device.metrics.n_out) == (129, len(chunks))
    assert not device.metrics.dropped


@pytest.mark.parametrize("ppm", [-500, 100, 500])
def test_drift_is_found_and_taken_out(ppm: float) -> None:
    device = Device(ppm=ppm)
    chunks = device.play(9)
    assert device.hearing.drift_ppm is None
    chunks += device.play(51)
    drift_ppm = device.hearing.drift_ppm
    assert drift_ppm == pytest.approx(ppm, abs=20)
    assert not holes(chunks)
    assert np.abs(errors_ms(chunks[1:])).max() < 5
    assert np.abs(errors_ms(chunks[-500:])).max() < 1


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=60))
def test_blocks_of_any_size(sizes: list[int]) -> None:
    device = Device()
    chunks = []
    for n in sizes:
        device.hand_over(n)
        chunks += device.hear()
    assert not holes(chunks)
    assert all(abs(error) < 0.5 for error in errors_ms(chunks[1:]))
    given_secs = sum(sizes) / DEVICE_HZ
    # What does not fill a chunk and what the filters keep is still inside.
    assert given_secs - 0.05 < len(chunks) * 0.02 < given_secs + 0.001


def test_an_empty_block_means_nothing() -> None:
    device = Device()
    device.hand_over(0)
    assert device.hear() == []
    assert device.metrics.n_in == 0


@settings(max_examples=20)
@given(st.integers(20, 5000))
def test_what_an_xrun_lost_stays_a_hole(lost_ms: int) -> None:
    device = Device()
    chunks = device.play(2.5)
    n_before = len(chunks)
    device.lose(lost_ms * DEVICE_HZ // 1000)
    chunks += device.play(1)
    assert device.metrics.dropped == {"xrun": 1}
    ((at_ns, hole_ns),) = holes(chunks)
    assert at_ns == pytest.approx(ALREADY_NS + 2.5 * NS_PER_SEC, abs=0.05 * NS_PER_SEC)
    assert hole_ns / 1e6 == pytest.approx(lost_ms, abs=2)
    assert np.abs(errors_ms(chunks[n_before + 4 :])).max() < 1


def test_an_xrun_before_the_first_block_is_only_counted() -> None:
    device = Device()
    device.lose(1000)
    chunks = device.play(1)
    assert device.metrics.dropped == {"xrun": 1}
    assert chunks[0].start_ns == pytest.approx(device.at_ns(1000), abs=1e6)


def test_a_reader_that_is_behind_loses_the_oldest_and_time_stays() -> None:
    device = Device()
    chunks = device.play(2.5)
    for _ in range(MAX_BLOCKS + 100):
        device.hand_over()
    late = device.hear()
    assert device.metrics.dropped == {"reader_behind": 100}
    ((_, hole_ns),) = holes(chunks + late)
    assert hole_ns == pytest.approx(samples_to_ns(100 * SIZE, DEVICE_HZ), abs=3e6)
    assert np.abs(errors_ms(late[2:])).max() < 0.5


def test_blocks_that_waited_are_as_old_as_they_are() -> None:
    device = Device()
    chunks = device.play(3)
    for n in range(60):  # handed over all at once, 1.4 s after the first was taken
        device.hand_over(late_secs=(59 - n) * SIZE / DEVICE_HZ)
    chunks += device.hear() + device.play(1)
    assert not holes(chunks)
    assert np.abs(errors_ms(chunks[1:])).max() < 0.5
    assert not device.metrics.dropped


@pytest.mark.parametrize("claims_secs", [None, -9.0, 100.0])
def test_where_portaudio_says_nonsense_the_arrival_counts(claims_secs: float | None) -> None:
    device = Device()
    chunks = device.play(5, late_secs=0.003, claims_secs=claims_secs)
    assert np.abs(errors_ms(chunks[1:]) - 3).max() < 0.5
    assert not holes(chunks)


def test_what_is_claimed_at_first_is_not_believed() -> None:
    device = Device()
    chunks = device.play(1.2, claims_secs=0.6037)  # as a monitor of PulseAudio does
    chunks += device.play(4)
    assert np.abs(errors_ms(chunks[1:])).max() < 0.5
    assert not device.metrics.dropped


def test_a_latency_that_is_there_for_good_is_believed_in_the_end() -> None:
    device = Device()  # Bluetooth
    chunks = device.play(6, late_secs=0.2037)
    settled_ns = ALREADY_NS + SETTLING_NS
    late = [chunk for chunk in chunks if chunk.start_ns > settled_ns + NS_PER_SEC // 4]
    assert np.abs(errors_ms(late)).max() < 0.5
    assert device.metrics.dropped == {"overlapping_sound": 1}


def test_the_end_comes_after_what_waits() -> None:
    device = Device()
    device.hand_over()
    device.blocks.end()
    assert isinstance(device.blocks.get(timeout_secs=0), Block)
    assert device.blocks.get(timeout_secs=0) is None
