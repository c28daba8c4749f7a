from dataclasses import FrozenInstanceError, dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmstream.media import (
    NS_PER_SEC,
    AudioChunk,
    Box,
    Bytes,
    Detection,
    Floats,
    Hop,
    Image,
    Series,
    SourceStarted,
    Span,
    VideoFrame,
    ns_to_samples,
    read_only,
    samples_to_ns,
    secs_to_ns,
)

INSTANTS = st.integers(-(10**18), 10**18)
RATES = st.integers(8_000, 192_000)
SPANS = st.tuples(INSTANTS, st.integers(0, 10**18)).map(lambda pair: Span(pair[0], sum(pair)))


@dataclass(frozen=True)
class Grey:
    """A flat picture."""

    width: int = 4
    height: int = 3
    nbytes: int = 12

    @property
    def luma(self) -> Bytes:
        return read_only(np.full((self.height, self.width), 126, np.uint8))

    def rgb(self, size: tuple[int, int] | None = None) -> Bytes:
        width, height = size or (self.width, self.height)
        return read_only(np.full((height, width, 3), 128, np.uint8))


GREY: Image = Grey()


def silence(n: int) -> Floats:
    return np.zeros(n, np.float32)


def hop(
    n: int = 4, *, n_heard: int | None = None, frames_ns: tuple[int, ...] = (), end_ns: int = 1000
) -> Hop:
    return Hop(
        source="door",
        index=0,
        span=Span(0, end_ns),
        rate_hz=16_000,
        samples=silence(n),
        heard=np.ones(n if n_heard is None else n_heard, np.bool_),
        frames=tuple(VideoFrame("door", at_ns, GREY) for at_ns in frames_ns),
    )


def test_secs_are_rounded_to_nanoseconds() -> None:
    assert secs_to_ns(0.1) == 100_000_000
    assert secs_to_ns(1.4e-9) == 1


@given(st.integers(-(10**13), 10**13), RATES)
def test_samples_survive_the_way_over_nanoseconds(n_samples: int, rate_hz: int) -> None:
    assert ns_to_samples(samples_to_ns(n_samples, rate_hz), rate_hz) == n_samples


def test_a_sample_lasts_as_long_as_it_does_to_the_nearest_nanosecond() -> None:
    assert samples_to_ns(1, 44_100) == 22_676  # 22675.74
    assert samples_to_ns(1, 48_000) == 20_833  # 20833.33


@given(st.integers(-(10**15), 10**15), RATES)
def test_the_nearest_sample_is_at_most_half_a_sample_away(duration_ns: int, rate_hz: int) -> None:
    n_samples = ns_to_samples(duration_ns, rate_hz)
    assert abs(n_samples * NS_PER_SEC - duration_ns * rate_hz) * 2 <= NS_PER_SEC


@given(st.integers(0, 10**13), st.integers(0, 10**6), RATES)
def test_adding_durations_costs_a_nanosecond_at_most(
    start: int, n_samples: int, rate_hz: int
) -> None:
    whole_ns = samples_to_ns(start + n_samples, rate_hz)
    parts_ns = samples_to_ns(start, rate_hz) + samples_to_ns(n_samples, rate_hz)
    assert abs(whole_ns - parts_ns) <= 1


def test_a_span_ends_no_earlier_than_it_starts() -> None:
    assert Span(3, 3).duration_ns == 0
    with pytest.raises(ValueError, match=r"self.start_ns=4 self.end_ns=3"):
        Span(4, 3)


@given(SPANS)
def test_a_span_holds_its_start_and_not_its_end(span: Span) -> None:
    assert span.contains(span.start_ns) == (span.duration_ns > 0)
    assert not span.contains(span.end_ns)
    assert not span.contains(span.start_ns - 1)
    assert span.overlap_ns(span) == span.duration_ns


@given(SPANS, SPANS)
def test_overlap_is_mutual_and_no_longer_than_either(one: Span, other: Span) -> None:
    overlap_ns = one.overlap_ns(other)
    assert overlap_ns == other.overlap_ns(one)
    assert 0 <= overlap_ns <= min(one.duration_ns, other.duration_ns)


@given(SPANS, SPANS, INSTANTS)
def test_what_two_spans_hold_lies_in_their_overlap(one: Span, other: Span, at_ns: int) -> None:
    if one.contains(at_ns) and other.contains(at_ns):
        assert one.overlap_ns(other) > 0


def test_spans_that_touch_share_nothing() -> None:
    assert Span(0, 5).overlap_ns(Span(5, 9)) == 0


@pytest.mark.parametrize(
    ("record", "name"),
    [
        (Span(0, 1), "end_ns"),
        (AudioChunk("door", 0, 16_000, silence(1)), "start_ns"),
        (VideoFrame("door", 0, GREY), "image"),
        (hop(), "gap_before"),
        (Box(0, 0, 1, 1), "x"),
        (Series(np.array([1]), silence(1)), "values"),
    ],
)
def test_records_are_frozen(record: object, name: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(record, name, None)


def test_a_chunk_ends_where_its_next_sample_would_be() -> None:
    chunk = AudioChunk("door", 1_000, 44_100, silence(441))
    assert chunk.end_ns == 1_000 + 10_000_000
    assert repr(chunk) == "AudioChunk('door', 1000, 44100, [441])"


def test_the_samples_of_a_chunk_are_read_only() -> None:
    samples = silence(3)
    chunk = AudioChunk("door", 0, 16_000, samples)
    with pytest.raises(ValueError, match="read-only"):
        chunk.samples[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        samples[0] = 1


@pytest.mark.parametrize(
    "samples",
    [np.zeros(0, np.float32), np.zeros((2, 2), np.float32), np.zeros(4), np.zeros(4, np.int16)],
)
def test_a_chunk_refuses_what_is_not_mono_float32(samples: Floats) -> None:
    with pytest.raises(ValueError, match=r"self\.samples\.dtype="):
        AudioChunk("door", 0, 16_000, samples)


@pytest.mark.parametrize("rate_hz", [0, -1])
def test_a_chunk_needs_a_rate(rate_hz: int) -> None:
    with pytest.raises(ValueError, match=f"self.rate_hz={rate_hz}"):
        AudioChunk("door", 0, rate_hz, silence(1))


def test_a_source_sends_something() -> None:
    with pytest.raises(ValueError, match="door has neither"):
        SourceStarted("door", frozenset(), 0, None)


def test_a_hop_holds_one_flag_per_sample() -> None:
    with pytest.raises(ValueError, match="one flag per sample"):
        hop(4, n_heard=3)


def test_a_hop_may_hold_no_sound() -> None:
    assert hop(0, frames_ns=(1, 2)).samples.size == 0


@pytest.mark.parametrize("at_ns", [-1, 1000])
def test_a_hop_refuses_frames_from_outside(at_ns: int) -> None:
    with pytest.raises(ValueError, match="start inside it"):
        hop(frames_ns=(at_ns,))
    assert len(hop(frames_ns=(0, 999)).frames) == 2


def test_the_arrays_of_a_hop_are_read_only() -> None:
    made = hop()
    assert not made.samples.flags.writeable
    assert not made.heard.flags.writeable
    assert repr(made) == "Hop('door', 0, samples=[4], frames=0, gap_before=False)"


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_any_box_between_two_corners_of_the_picture_is_one(
    left: float, right: float, top: float, bottom: float
) -> None:
    x, far_x = sorted((left, right))
    y, far_y = sorted((top, bottom))
    assert Box(x, y, far_x - x, far_y - y).x == x


@pytest.mark.parametrize(
    "edges",
    [
        (-0.1, 0, 0.5, 0.5),
        (0.6, 0, 0.5, 0.5),
        (0, 0.6, 0.5, 0.5),
        (0, 0, -0.1, 0.5),
        (0, float("nan"), 0.5, 0.5),
        (0, 0, 0.5, float("nan")),
        (0, 0, float("inf"), 0.5),
    ],
)
def test_a_box_lies_inside_the_picture(edges: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="inside the picture"):
        Box(*edges)


@pytest.mark.parametrize("score", [-0.01, 1.01, float("nan")])
def test_a_detection_scores_from_0_to_1(score: float) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1: got .* for face by haar"):
        Detection("face", 0, "video", "haar", score)


@pytest.mark.parametrize(
    ("at_ns", "n_values", "says"),
    [([1, 2], 1, "one value per instant"), ([2, 2], 2, "rise"), ([2, 1], 2, "rise")],
)
def test_a_series_has_rising_instants(at_ns: list[int], n_values: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Series(np.array(at_ns), silence(n_values))


def test_a_series_may_be_empty_or_hold_vectors() -> None:
    assert Series(np.array([], np.int64), silence(0)).values.size == 0
    series = Series(np.array([1, 2]), np.zeros((2, 7), np.float32))
    assert not series.at_ns.flags.writeable
    assert not series.values.flags.writeable
