"""Sound of a clock that drifts, on ours: contiguous, in its place, and as it was."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import RATE_HZ, ms

from mmstream.media import NS_PER_SEC, AudioChunk, Floats, Span, samples_to_ns
from mmstream.metrics import StageMetrics
from mmstream.sources.steady_sound import SteadySound

SIZE = 320


def tone(hz: float, n_samples: int, ppm: float = 0.0) -> Floats:
    """As a device hears it whose clock is fast by `ppm`."""
    secs = np.arange(n_samples) / RATE_HZ / (1 + ppm * 1e-6)
    return np.sin(2 * np.pi * hz * secs).astype(np.float32)


def spans(n_samples: int, ppm: float, start_ns: int = 0, size: int = SIZE) -> list[Span]:
    ends = [
        start_ns + round(i * NS_PER_SEC / RATE_HZ / (1 + ppm * 1e-6))
        for i in range(0, n_samples + 1, size)
    ]
    return [Span(*both) for both in pairwise(ends)]


def push(
    steady: SteadySound, samples: Floats, places: list[Span], size: int = SIZE
) -> list[AudioChunk]:
    chunks = []
    for i, span in enumerate(places):
        piece = samples[i * size : (i + 1) * size].copy()
        chunks += steady.push(AudioChunk("mic", span.start_ns, RATE_HZ, piece), span)
    return chunks


def joined(chunks: list[AudioChunk]) -> Floats:
    return np.concatenate([chunk.samples for chunk in chunks])


@pytest.mark.parametrize("ppm", [500.0, -500.0, 37.0])
@pytest.mark.parametrize("hz", [100.0, 3_000.0, 7_000.0])
def test_a_tone_stays_in_its_place(hz: float, ppm: float) -> None:
    n_samples = 2 * RATE_HZ
    steady = SteadySound("mic", RATE_HZ, StageMetrics("mic"))
    chunks = push(steady, tone(hz, n_samples, ppm), spans(n_samples, ppm, ms(1_000)))
    chunks += steady.flush()
    heard = joined(chunks)
    errors = np.abs(heard - tone(hz, heard.size))[48:-48]
    assert errors.max() < 2e-4  # -74 dB
    assert chunks[0].start_ns == ms(1_000)
    assert all(first.end_ns == then.start_ns for first, then in pairwise(chunks))
    assert {chunk.samples.size for chunk in chunks[:-1]} == {SIZE}
    assert chunks[-1].end_ns == pytest.approx(
        ms(1_000) + 2 * NS_PER_SEC / (1 + ppm * 1e-6), abs=samples_to_ns(1, RATE_HZ)
    )


def test_without_drift_all_passes_unchanged() -> None:
    samples = np.random.default_rng(0).standard_normal(RATE_HZ).astype(np.float32)
    steady = SteadySound("mic", RATE_HZ, StageMetrics("mic"))
    chunks = push(steady, samples, spans(RATE_HZ, 0)) + steady.flush()
    assert joined(chunks) == pytest.approx(samples, abs=2e-5)
    assert [chunk.start_ns for chunk in chunks] == list(range(0, NS_PER_SEC, ms(20)))


def test_an_onset_is_off_by_less_than_a_tenth_of_a_millisecond() -> None:
    """A click is put where the spans say, between two samples or not."""
    ppm, n_samples = 500.0, 4 * RATE_HZ
    samples = np.zeros(n_samples, np.float32)
    clicks = range(5_000, n_samples - 5_000, 7_001)
    samples[list(clicks)] = 1
    steady = SteadySound("mic", RATE_HZ, StageMetrics("mic"))
    heard = joined(push(steady, samples, spans(n_samples, ppm)) + steady.flush())
    for click in clicks:
        place = click / (1 + ppm * 1e-6)
        near = np.arange(round(place) - 40, round(place) + 41)
        weights = heard[near] ** 2
        assert (weights @ near) / weights.sum() == pytest.approx(place, abs=0.1 * RATE_HZ / 1_000)


@settings(max_examples=30)
@given(cuts=st.sets(st.integers(1, 3_999), max_size=20), step=st.sampled_from([0, 1, -1, 3]))
def test_cutting_chunks_differently_changes_nothing(cuts: set[int], step: int) -> None:
    samples = np.random.default_rng(1).standard_normal(4_000).astype(np.float32) * 0.1
    sample_ns = 62_500 + step * 10  # whole, so that cuts are exact; up to 480 ppm
    whole = SteadySound("mic", RATE_HZ, StageMetrics("mic"))
    span = Span(0, 4_000 * sample_ns)
    want = joined(whole.push(AudioChunk("mic", 0, RATE_HZ, samples.copy()), span) + whole.flush())
    parts = SteadySound("mic", RATE_HZ, StageMetrics("mic"))
    chunks = []
    for start, end in pairwise([0, *sorted(cuts), 4_000]):
        chunk = AudioChunk("mic", start * sample_ns, RATE_HZ, samples[start:end].copy())
        chunks += parts.push(chunk, Span(start * sample_ns, end * sample_ns))
    chunks += parts.flush()
    assert joined(chunks) == pytest.approx(want, abs=1e-6)
    assert all(first.end_ns == then.start_ns for first, then in pairwise(chunks))


def test_a_hole_stays_a_hole() -> None:
    metrics = StageMetrics("mic")
    steady = SteadySound("mic", RATE_HZ, metrics)
    samples = tone(440, RATE_HZ)
    chunks = push(steady, samples, spans(RATE_HZ, 0))
    after = push(steady, samples, spans(RATE_HZ, 0, ms(1_500))) + steady.flush()
    assert [chunks[0].start_ns, after[0].end_ns] == [0, ms(1_000)]
    assert after[1].start_ns == ms(1_500)
    assert joined(after[1:]) == pytest.approx(samples, abs=1e-5)
    assert not metrics.dropped


def test_what_overlaps_is_dropped_and_counted() -> None:
    metrics = StageMetrics("mic")
    steady = SteadySound("mic", RATE_HZ, metrics)
    chunks = push(steady, tone(440, RATE_HZ), spans(RATE_HZ, 0))
    chunks += push(steady, np.ones(RATE_HZ, np.float32), spans(RATE_HZ, 0, ms(700)))
    chunks += steady.flush()
    assert all(first.end_ns == then.start_ns for first, then in pairwise(chunks))
    assert chunks[-1].end_ns == ms(1_700)
    heard = joined(chunks)
    assert heard[: RATE_HZ - 24] == pytest.approx(tone(440, RATE_HZ)[:-24], abs=1e-5)
    assert heard[RATE_HZ : RATE_HZ * 17 // 10 - 24] == pytest.approx(1, abs=1e-5)
    assert metrics.dropped == {"overlapping_sound": 1}


def test_small_differences_are_taken_up_by_stretching() -> None:
    metrics = StageMetrics("mic")
    steady = SteadySound("mic", RATE_HZ, metrics)
    samples = tone(440, RATE_HZ)
    chunks = push(steady, samples, spans(RATE_HZ, 0))
    chunks += push(steady, samples, spans(RATE_HZ, 0, ms(1_004))) + steady.flush()
    assert all(first.end_ns == then.start_ns for first, then in pairwise(chunks))
    assert chunks[-1].end_ns == ms(2_004)
    assert not metrics.dropped


def test_no_stretch_is_beyond_half_a_semitone() -> None:
    """Spans of a map that makes up for a burst at the start: time all but stands still."""
    metrics = StageMetrics("mic")
    steady = SteadySound("mic", RATE_HZ, metrics)
    places = [Span(i * ms(1), (i + 1) * ms(1)) for i in range(50)]
    chunks = push(steady, tone(440, 50 * SIZE), places) + steady.flush()
    assert all(first.end_ns <= then.start_ns for first, then in pairwise(chunks))
    assert chunks[-1].end_ns < ms(50 + 25)
    assert metrics.dropped["overlapping_sound"] > 0


def test_nothing_in_nothing_out_and_a_flush_ends_a_stretch() -> None:
    steady = SteadySound("mic", RATE_HZ, StageMetrics("mic"))
    assert steady.flush() == []
    chunks = push(steady, tone(440, 400), spans(400, 0, size=100), size=100) + steady.flush()
    assert [chunk.samples.size for chunk in chunks] == [320, 80]
    assert steady.flush() == []
