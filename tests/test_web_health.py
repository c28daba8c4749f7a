"""What counts as alive, as ready and as wrong."""

import pytest
from web_looks import look, run_look, source, worker

from mmstream.messages import HealthState
from mmstream.web.health import STUCK_SECS, judge
from mmstream.web.look import BrokerLook, StoreLook


def test_all_is_well() -> None:
    store = StoreLook(n_waiting=3, used_bytes=4096, max_bytes=10**6, problem=None)
    report = judge(look(broker=BrokerLook(connected=True, problem=None), store=store))
    assert (report.status, report.ready, report.problems) == ("ok", True, ())
    assert report.sources["door"].state == "online"
    assert report.sources["door"].lag_ms == 12.5


@pytest.mark.parametrize("state", ["offline", "stalled", "connecting"])
def test_a_source_that_does_not_stream_is_no_reason_to_restart_us(state: HealthState) -> None:
    report = judge(look(run_look(source(), source("yard", state))))
    assert report.alive
    assert not report.ready
    assert report.status == "degraded"
    assert report.problems == (f"source yard: {state}: it says so",)


def test_a_source_without_one_of_its_streams_is_told_and_ready() -> None:
    report = judge(look(run_look(source("yard", "degraded"))))
    assert report.ready
    assert report.problems == ("source yard: degraded: it says so",)


def test_a_source_that_should_not_stream_is_fine() -> None:
    report = judge(look(run_look(source("yard", "offline", is_expected=False))))
    assert (report.status, report.ready) == ("ok", True)
    assert not report.sources["yard"].expected


def test_loading_is_alive_and_not_ready() -> None:
    report = judge(look(run_look(at_work=worker(is_built=False))))
    assert report.alive
    assert not report.ready
    assert report.worker.state == "loading"


def test_a_worker_that_is_stuck_is_not_alive() -> None:
    slow = judge(look(run_look(at_work=worker(busy_secs=STUCK_SECS - 1))))
    assert slow.alive
    stuck = judge(look(run_look(at_work=worker(busy_secs=STUCK_SECS))))
    assert (stuck.alive, stuck.ready, stuck.status) == (False, False, "failing")
    assert stuck.problems[0].startswith("worker:")


def test_without_a_broker_that_is_configured_we_are_not_ready() -> None:
    report = judge(look(broker=BrokerLook(connected=False, problem="no route to pi:1883")))
    assert report.alive
    assert not report.ready
    assert report.problems == ("broker: no route to pi:1883",)


def test_a_full_disk_is_told_and_we_go_on() -> None:
    store = StoreLook(n_waiting=3, used_bytes=4096, max_bytes=10**6, problem="the disk is full")
    report = judge(look(store=store))
    assert (report.status, report.ready) == ("degraded", True)
    assert report.problems == ("store: the disk is full",)
