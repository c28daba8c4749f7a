import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmstream.metrics import N_KEPT, Latencies, StageMetrics


def test_nothing_measured_has_no_percentile() -> None:
    assert Latencies().percentile_ms(50) is None


@given(st.lists(st.integers(0, 10**11), min_size=1, max_size=50), st.floats(0, 100))
def test_percentiles_are_numpys_in_milliseconds(durations_ns: list[int], percent: float) -> None:
    latencies = Latencies()
    for duration_ns in durations_ns:
        latencies.add(duration_ns)
    expected = float(np.percentile(np.array(durations_ns) / 1e6, percent))
    assert latencies.percentile_ms(percent) == pytest.approx(expected, abs=1e-3)


def test_old_durations_give_way_to_new_ones() -> None:
    latencies = Latencies()
    for duration_ns in [10**9] * 10 + [1_000_000] * N_KEPT:
        latencies.add(duration_ns)
    assert len(latencies) == N_KEPT
    assert latencies.percentile_ms(100) == 1.0


def test_drops_are_counted_by_reason() -> None:
    metrics = StageMetrics("windows/door")
    metrics.drop("late_frames")
    metrics.drop("late_frames", 3)
    metrics.drop("late_samples", 160)
    assert metrics.dropped == {"late_frames": 4, "late_samples": 160}
    assert (metrics.n_in, metrics.n_out, len(metrics.latencies)) == (0, 0, 0)


def test_several_percentiles_are_those_asked_for_one_by_one() -> None:
    latencies = Latencies()
    assert latencies.percentiles_ms((50, 99)) == ()
    for ms in range(100):
        latencies.add(ms * 1_000_000)
    one_by_one = tuple(latencies.percentile_ms(percent) for percent in (50, 99))
    assert latencies.percentiles_ms((50, 99)) == one_by_one
