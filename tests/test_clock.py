import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmstream.clock import Clock, ManualClock, SystemClock


def test_manual_sleep_moves_both_instants_and_waits_for_nothing() -> None:
    clock = ManualClock(monotonic_ns=5, utc_ns=1_700_000_000_000_000_000)
    clock.sleep(86_400.0)
    assert clock.monotonic_ns() == 5 + 86_400_000_000_000
    assert clock.utc_ns() == 1_700_000_000_000_000_000 + 86_400_000_000_000


@given(st.lists(st.floats(-10, 10)))
def test_manual_time_never_goes_back(steps: list[float]) -> None:
    clock = ManualClock()
    for secs in steps:
        before = clock.monotonic_ns()
        clock.advance(secs)
        assert clock.monotonic_ns() == before + max(0, round(secs * 1e9))
    assert clock.utc_ns() == clock.monotonic_ns()


def test_manual_clock_loses_no_step_among_threads() -> None:
    clock = ManualClock()

    def step() -> None:
        for _ in range(2_000):
            clock.advance(1e-9)

    threads = [threading.Thread(target=step) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.monotonic_ns() == 8_000


@pytest.mark.parametrize("secs", [0.0, -1.0])
def test_system_clock_does_not_sleep_for_nothing(secs: float) -> None:
    clock: Clock = SystemClock()
    before = clock.monotonic_ns()
    clock.sleep(secs)  # time.sleep would refuse a negative one
    assert clock.monotonic_ns() >= before


def test_system_clock_knows_this_century() -> None:
    assert SystemClock().utc_ns() > 1_700_000_000 * 10**9
