"""The text that Prometheus gets: its own parsers read it, and it says what the counters say."""

import threading
from collections.abc import Mapping

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from web_looks import look, run_look, source, worker

from mmstream.metrics import StageMetrics
from mmstream.web.look import BrokerLook, EventCount, Look, StoreLook
from mmstream.web.prometheus import expose

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def stage(name: str) -> StageMetrics:
    made = StageMetrics(name)
    made.n_in, made.n_out = 7, 5
    made.drop("late", 2)
    made.latencies.add(250_000_000)
    return made


def everything() -> Look:
    stages = (stage("windows/door"), stage("capture/door"), stage("capture/door"), stage("worker"))
    return look(
        run_look(source(), source("yard", "offline"), stages=(*stages, stage("outlet/mqtt"))),
        broker=BrokerLook(connected=True, problem=None),
        store=StoreLook(n_waiting=3, used_bytes=4096, max_bytes=10**6, problem=None),
        events=(EventCount("door", "motion", n_started=9, n_open=2),),
    )


def samples(shown: Look) -> list[Sample]:
    text = expose(shown, "").body.decode()
    families = text_string_to_metric_families(text)
    return [one for family in families for one in family.samples]


def values(shown: Look, name: str) -> Mapping[tuple[tuple[str, str], ...], float]:
    found = {
        tuple(sorted(one.labels.items())): one.value for one in samples(shown) if one.name == name
    }
    assert found, name
    return found


def value(shown: Look, name: str, **labels: str) -> float:
    return values(shown, name)[tuple(sorted(labels.items()))]


def test_an_outlet_is_of_its_sink_and_not_of_a_source_of_that_name() -> None:
    stages = (stage("outlet/mqtt"), stage("windows/mqtt"), stage("mqtt"))
    shown = look(run_look(source("mqtt"), stages=stages))
    assert value(shown, "mmstream_stage_in_total", stage="outlet/mqtt", source="") == 7
    assert value(shown, "mmstream_stage_in_total", stage="windows", source="mqtt") == 7


def test_counters_of_stages_by_stage_and_source() -> None:
    shown = everything()
    assert value(shown, "mmstream_stage_in_total", stage="windows", source="door") == 7
    assert value(shown, "mmstream_stage_out_total", stage="worker", source="") == 5
    where = {"stage": "windows", "source": "door"}
    assert value(shown, "mmstream_stage_dropped_total", **where, reason="late") == 2
    assert value(shown, "mmstream_stage_latency_seconds", **where, quantile="0.99") == 0.25


def test_how_fast_speech_is_understood_is_told_of_the_stage_that_does_it() -> None:
    ears = stage("speech_to_text")
    ears.realtime_factor = 0.31
    shown = look(run_look(stages=(ears, stage("worker"))))
    told = values(shown, "mmstream_stage_realtime_factor")
    assert told == {(("source", ""), ("stage", "speech_to_text")): 0.31}


def test_stages_of_one_name_are_added_up_since_a_series_may_come_but_once() -> None:
    shown = everything()
    assert value(shown, "mmstream_stage_in_total", stage="capture", source="door") == 14
    where = {"stage": "capture", "source": "door"}
    assert value(shown, "mmstream_stage_dropped_total", **where, reason="late") == 4


def test_what_stands_behind_a_slash_is_a_source_only_if_it_is_one() -> None:
    assert value(everything(), "mmstream_stage_in_total", stage="outlet/mqtt", source="") == 7


def test_no_series_comes_twice() -> None:
    seen = [(one.name, tuple(sorted(one.labels.items()))) for one in samples(everything())]
    assert len(seen) == len(set(seen))


def test_a_source_is_in_one_state() -> None:
    states = values(everything(), "mmstream_source_state")
    on = {labels for labels, is_on in states.items() if is_on}
    assert on == {
        (("source", "door"), ("state", "online")),
        (("source", "yard"), ("state", "offline")),
    }
    assert len(states) == 10


def test_what_is_not_known_has_no_value() -> None:
    names = {one.name for one in samples(everything())}
    assert "mmstream_source_video_fps" not in names
    assert value(everything(), "mmstream_source_lag_seconds", source="door") == 0.0125


def test_events_broker_store_and_worker() -> None:
    shown = everything()
    assert value(shown, "mmstream_events_total", source="door", label="motion") == 9
    assert value(shown, "mmstream_open_events", source="door", label="motion") == 2
    assert value(shown, "mmstream_broker_connected") == 1
    assert value(shown, "mmstream_store_waiting_messages") == 3
    assert value(shown, "mmstream_store_used_bytes") == 4096
    assert value(shown, "mmstream_store_writable") == 1
    assert value(shown, "mmstream_worker_batch_hops_sum") == 10
    assert value(shown, "mmstream_worker_batch_hops_count") == 4
    assert value(shown, "process_resident_memory_bytes") > 0


def test_without_broker_and_store_nothing_is_said_of_them() -> None:
    names = {one.name for one in samples(look())}
    assert not [name for name in names if name.startswith(("mmstream_broker", "mmstream_store"))]


def test_openmetrics_where_it_is_asked_for() -> None:
    exposed = expose(everything(), OPENMETRICS)
    assert exposed.content_type.startswith("application/openmetrics-text")
    text = exposed.body.decode()
    families = list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]  # it has no types
    assert "mmstream_stage_dropped" in {family.name for family in families}


def test_it_can_be_read_while_others_count() -> None:
    busy = stage("worker")
    is_over = threading.Event()

    def count() -> None:
        n = 0
        while not is_over.is_set():
            n += 1
            busy.drop(f"reason {n % 2000}")
            busy.latencies.add(n)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        for _ in range(20):
            expose(look(run_look(at_work=worker(), stages=(busy,))), "")
    finally:
        is_over.set()
        thread.join()
    assert busy.dropped.total() > 20
