"""Rings: addressed by capture time, bounded, the oldest overwritten, everything counted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams import RATE_HZ, chunk, chunk_ms, expected_sound, frame, halves, ms

from mmstream.media import AudioChunk, Span, samples_to_ns
from mmstream.rings import AudioRing, VideoRing


def ring(capacity_secs: float = 1.0) -> AudioRing:
    return AudioRing(rate_hz=RATE_HZ, capacity_secs=capacity_secs)


def read(held: AudioRing, start_ms: float, end_ms: float) -> tuple[list[float], list[bool]]:
    samples, heard = held.read(Span(ms(start_ms), ms(end_ms)))
    return samples.tolist(), heard.tolist()


def test_sound_lies_where_its_capture_time_says() -> None:
    held = ring()
    held.write(chunk_ms(100, 150))
    assert read(held, 110, 120) == (expected_sound(1760, 160), [True] * 160)


def test_time_skipped_is_zero_and_unheard() -> None:
    held = ring()
    held.write(chunk_ms(0, 10))
    held.write(chunk_ms(20, 30))
    samples, heard = read(held, 0, 30)
    assert heard == [True] * 160 + [False] * 160 + [True] * 160
    assert samples == expected_sound(0, 160) + [0.0] * 160 + expected_sound(320, 160)


def test_what_was_never_held_reads_as_unheard() -> None:
    held = ring()
    held.write(chunk_ms(100, 110))
    samples, heard = read(held, 90, 120)
    assert heard == [False] * 160 + [True] * 160 + [False] * 160
    assert not any(samples[:160])
    assert not any(samples[-160:])


def test_a_skip_over_stale_places_of_the_buffer_is_unheard() -> None:
    held = ring(0.1)
    held.write(chunk_ms(0, 100))
    held.write(chunk_ms(150, 160))
    samples, heard = read(held, 100, 160)
    assert heard == [False] * 800 + [True] * 160
    assert not any(samples[:800])


def test_the_first_to_come_wins_and_the_rest_is_counted() -> None:
    held = ring()
    held.write(chunk_ms(0, 20))
    again = AudioChunk("cam", ms(10), RATE_HZ, np.full(320, -1, np.float32))
    assert held.write(again) == 160
    samples, heard = read(held, 0, 30)
    assert samples == expected_sound(0, 320) + [-1.0] * 160
    assert all(heard)
    assert held.statistics().n_refused == 160
    assert held.statistics().n_written == 480


def test_an_overlapping_chunk_may_be_cut_one_sample_before_the_end() -> None:
    held = ring()
    held.write(chunk(0, 160))
    again = AudioChunk("cam", samples_to_ns(158, RATE_HZ), RATE_HZ, np.full(100, -1, np.float32))
    first, rest = halves(again, 1)
    assert (held.write(first), held.write(rest)) == (1, 1)
    assert held.end_ns == samples_to_ns(258, RATE_HZ)


def test_a_chunk_for_time_already_written_changes_nothing() -> None:
    held = ring()
    held.write(chunk_ms(0, 50))
    assert held.write(chunk_ms(10, 30)) == 320
    assert held.end_ns == ms(50)
    assert read(held, 0, 50) == (expected_sound(0, 800), [True] * 800)


@pytest.mark.parametrize("off_by", [-1, 1])
def test_rounding_by_one_sample_neither_drops_nor_doubles(off_by: int) -> None:
    held = ring()
    held.write(chunk(0, 160))
    wanted = chunk(0, 320).samples[160:]
    held.write(AudioChunk("cam", samples_to_ns(160 + off_by, RATE_HZ), RATE_HZ, wanted.copy()))
    assert read(held, 0, 20) == (expected_sound(0, 320), [True] * 320)
    assert held.statistics().n_refused == 0


def test_two_samples_are_a_hole_not_rounding() -> None:
    held = ring()
    held.write(chunk(0, 160))
    held.write(chunk(samples_to_ns(162, RATE_HZ), 158))
    assert read(held, 0, 20)[1] == [True] * 160 + [False] * 2 + [True] * 158


def test_the_first_chunk_is_not_pulled_to_instant_zero() -> None:
    held = ring()
    held.write(chunk(samples_to_ns(1, RATE_HZ), 10))
    assert held.start_ns == samples_to_ns(1, RATE_HZ)


def test_a_long_skip_forgets_all_that_was_held() -> None:
    held = ring(0.1)
    held.write(chunk_ms(0, 50))
    held.write(chunk_ms(1000, 1010))
    assert held.start_ns == ms(1000)
    assert held.statistics().n_overwritten == 800
    assert not any(read(held, 0, 50)[1])


def test_a_chunk_longer_than_the_ring_leaves_its_end() -> None:
    held = ring(0.1)
    held.write(chunk_ms(0, 250))
    assert held.statistics().span == Span(ms(150), ms(250))
    assert held.statistics().n_overwritten == 2400
    assert read(held, 150, 250) == (expected_sound(2400, 1600), [True] * 1600)


def test_a_chunk_of_another_rate_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ring of cam runs at 16000 Hz: got chunk.rate_hz=8000"):
        ring().write(chunk(0, 10, rate_hz=8000))


def test_clearing_forgets_sound_and_keeps_counts() -> None:
    held = ring()
    held.write(chunk_ms(0, 50))
    held.clear()
    assert held.statistics().span is None
    assert held.statistics().n_written == 800
    held.write(chunk_ms(20, 30))
    assert read(held, 0, 30)[1] == [False] * 320 + [True] * 160


def test_what_was_read_does_not_change_afterwards() -> None:
    held = ring(0.1)
    held.write(chunk_ms(0, 100))
    samples, heard = held.read(Span(ms(20), ms(60)))
    before = samples.copy()
    held.write(chunk_ms(200, 300))
    assert np.array_equal(samples, before)
    assert heard.all()


@given(
    steps=st.lists(
        st.tuples(st.integers(-300, 500).filter(lambda off: abs(off) != 1), st.integers(1, 250)),
        min_size=1,
        max_size=12,
    )
)
def test_it_holds_what_a_plain_dictionary_would(steps: list[tuple[int, int]]) -> None:
    held = AudioRing(rate_hz=RATE_HZ, capacity_secs=0.025)  # 400 samples
    plain: dict[int, float] = {}
    end = expected = 5000
    for value, (off, size) in enumerate(steps, start=1):
        first = expected + off
        if not plain:
            end = first
        samples = np.full(size, value, np.float32)
        held.write(AudioChunk("cam", samples_to_ns(first, RATE_HZ), RATE_HZ, samples))
        plain |= {index: float(value) for index in range(max(first, end), first + size)}
        expected = first + size
        end = max(end, expected)
    oldest = end - 400
    span = Span(samples_to_ns(oldest - 50, RATE_HZ), samples_to_ns(end + 50, RATE_HZ))
    samples, heard = held.read(span)
    held_plain = {index: value for index, value in plain.items() if index >= oldest}
    assert heard.tolist() == [index in held_plain for index in range(oldest - 50, end + 50)]
    assert samples.tolist() == [held_plain.get(i, 0.0) for i in range(oldest - 50, end + 50)]
    statistics = held.statistics()
    assert statistics.n_written == len(plain)
    assert statistics.n_bytes == statistics.max_bytes == 400 * 5


def starts(held: VideoRing, span: Span) -> list[int]:
    return [one.start_ns for one in held.read(span)]


def test_frames_are_read_by_half_open_span_in_order() -> None:
    held = VideoRing(max_bytes=10_000)
    for at in (0, 40, 80, 120):
        held.write(frame(at))
    assert starts(held, Span(40, 120)) == [40, 80]
    assert starts(held, Span(41, 121)) == [80, 120]
    assert starts(held, Span(0, 1)) == [0]
    assert starts(held, Span(130, 200)) == []


@pytest.mark.parametrize("at", [80, 79])
def test_a_frame_that_is_not_newer_is_refused_and_counted(at: int) -> None:
    held = VideoRing(max_bytes=10_000)
    held.write(frame(80))
    assert held.write(frame(at)) == ()
    assert starts(held, Span(0, 100)) == [80]
    assert held.statistics().n_refused == 1
    assert held.statistics().n_bytes == 100


def test_the_byte_budget_pushes_out_the_oldest() -> None:
    held = VideoRing(max_bytes=250)
    assert held.write(frame(0)) == ()
    assert held.write(frame(1)) == ()
    assert [one.start_ns for one in held.write(frame(2))] == [0]
    statistics = held.statistics()
    assert statistics.span == Span(1, 2)
    assert (statistics.n_bytes, statistics.n_written, statistics.n_overwritten) == (200, 3, 1)


def test_the_newest_frame_stays_even_above_the_budget() -> None:
    held = VideoRing(max_bytes=250)
    held.write(frame(0))
    assert [one.start_ns for one in held.write(frame(1, nbytes=900))] == [0]
    assert starts(held, Span(0, 10)) == [1]


def test_frames_are_let_go_up_to_an_instant() -> None:
    held = VideoRing(max_bytes=10_000)
    for at in (0, 40, 80):
        held.write(frame(at))
    held.discard_before(40)
    assert starts(held, Span(0, 100)) == [40, 80]
    assert held.statistics().n_bytes == 200
    assert held.statistics().n_overwritten == 0


def test_clearing_forgets_frames_and_keeps_counts() -> None:
    held = VideoRing(max_bytes=10_000)
    held.write(frame(80))
    held.clear()
    assert held.statistics().span is None
    assert (held.statistics().n_bytes, held.statistics().n_written) == (0, 1)
    held.write(frame(40))
    assert starts(held, Span(0, 100)) == [40]
