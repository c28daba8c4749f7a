"""A short form of `mmstream bench drift`."""

import pytest

from mmstream.benchmarks.drift import TARGET_MS, Drift, simulate, table
from mmstream.benchmarks.drift_world import Scenario


@pytest.mark.parametrize(
    "scenario",
    [Scenario("microphone", 500, -500), Scenario("two clocks", -500, -500)],
    ids=lambda scenario: scenario.link,
)
def test_sound_and_picture_stay_together_whatever_their_clocks_do(scenario: Scenario) -> None:
    row = simulate(scenario, 300)
    assert row.max_ms <= TARGET_MS
    assert row.outside_secs == 0
    assert row.p95_ms < 5
    assert row.n_instants > 25_000
    assert row.baseline_max_ms > 10 * row.max_ms
    assert row.drift_error_p50_ppm < 50
    assert row.n_steps >= 2


def test_one_clock_of_two_streams_puts_them_in_one_place() -> None:
    row = simulate(Scenario("one clock", 500, 500), 100)
    assert row.p95_ms < 1
    assert row.clock_max_ms < TARGET_MS
    printed = table(Drift(secs=100, rows=[row]))
    assert f"largest {row.max_ms:.1f} ms" in printed
    assert "+500/+500" in printed
