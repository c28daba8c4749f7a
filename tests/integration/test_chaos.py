"""A short form of `mmstream bench chaos`: everything fails at once, each for a run of its own."""

import pytest
from brokers import program_path

from mmstream.benchmarks import chaos
from mmstream.benchmarks.chaos_outages import CASES

pytestmark = pytest.mark.broker

OUTAGE_SECS = 5.0
N_KILLS = 2


@pytest.mark.timeout(150)  # what goes wrong is waited for, so that its figures are seen
def test_nothing_is_lost_doubled_or_out_of_order_whatever_fails() -> None:
    program_path("mosquitto")
    found = chaos.measure(OUTAGE_SECS, N_KILLS, n_together=len(CASES))
    printed = chaos.table(found)
    assert [case.name for case in found.cases] == list(CASES)
    assert all(case.is_right for case in found.cases), printed + found.model_dump_json()
    assert all(case.counts.said >= chaos.N_WARM for case in found.cases)
    counts = {case.name: case.counts for case in found.cases}
    for name in ("broker killed", "credentials refused"):
        assert counts[name].late > 0, name
