"""One look as Prometheus's text, or as OpenMetrics where that is asked for.

Names follow Prometheus's conventions: base units in the name (`_seconds`, `_bytes`), `_total` for
what only rises. Latencies are summaries over the last few minutes, as in `stats`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

import mmstream
from mmstream.messages import HealthState
from mmstream.metrics import StageMetrics
from mmstream.metrics import dropped as total_dropped
from mmstream.web.look import Look, SourceLook, StoreLook, WorkerLook

PERCENTS: Final = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Exposition:
    """What Prometheus gets."""

    content_type: str
    body: bytes


def expose(look: Look, accept: str) -> Exposition:
    """All families of a look; `accept` is the header of the request.

    Reads counters and `/proc`, and sorts latencies: call it beside the event loop.
    """
    encode, content_type = choose_encoder(accept)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Looked(look))
    ProcessCollector(registry=registry)
    return Exposition(content_type, encode(registry))


class _Looked(Collector):
    def __init__(self, look: Look) -> None:
        self._look = look

    def collect(self) -> Iterable[Metric]:
        """Those of the run, of its stages, its sources, its events, and what is outside of it."""
        look = self._look
        names = {one.health.source for one in look.run.sources}
        yield from _of_run(look)
        yield from _of_worker(look.run.worker)
        yield from _of_stages(look.run.stages, names)
        yield from _of_sources(look.run.sources)
        yield from _of_events(look)
        if look.broker is not None:
            text = "Whether there is a connection to the MQTT broker."
            yield GaugeMetricFamily("mmstream_broker_connected", text, look.broker.connected)
        if look.store is not None:
            yield from _of_store(look.store)


def _of_run(look: Look) -> Iterator[Metric]:
    run = look.run
    about = {
        "version": mmstream.__version__,
        "node": run.node,
        "boot_id": run.boot_id,
        "device": run.worker.device,
    }
    yield InfoMetricFamily("mmstream", "What runs here.", about)
    text = "When this boot began, in seconds since 1970."
    yield GaugeMetricFamily("mmstream_start_time_seconds", text, run.started_utc_ns / 1e9)


def _of_worker(worker: WorkerLook) -> Iterator[Metric]:
    text = "Whether detectors and models are loaded."
    yield GaugeMetricFamily("mmstream_worker_loaded", text, worker.is_built)
    text = "Hops that were scored together: sum / count is the mean batch."
    yield SummaryMetricFamily("mmstream_worker_batch_hops", text, worker.n_batches, worker.n_hops)
    text = "For how long the worker has been at its present batch; 0 while it waits for one."
    yield GaugeMetricFamily("mmstream_worker_busy_seconds", text, worker.busy_secs or 0)


def _of_stages(stages: Sequence[StageMetrics], sources: set[str]) -> Iterator[Metric]:
    """Of each stage, and of each source in it; stages of one name are added up."""
    keys = ["stage", "source"]
    came = CounterMetricFamily("mmstream_stage_in", "What went into a stage.", labels=keys)
    left = CounterMetricFamily("mmstream_stage_out", "What came out of a stage.", labels=keys)
    text = "What a stage lost or left out, by reason."
    dropped = CounterMetricFamily("mmstream_stage_dropped", text, labels=[*keys, "reason"])
    text = "How long it took lately."
    latency = SummaryMetricFamily("mmstream_stage_latency_seconds", text)
    text = "Seconds of computing for a second of sound, lately; over 1 it falls behind."
    factor = GaugeMetricFamily("mmstream_stage_realtime_factor", text, labels=keys)
    alike: dict[str, list[StageMetrics]] = {}
    for stage in stages:
        alike.setdefault(stage.name, []).append(stage)
    for name, group in alike.items():
        where = _where(name, sources)
        came.add_metric(where, sum(stage.n_in for stage in group))
        left.add_metric(where, sum(stage.n_out for stage in group))
        for reason, n in total_dropped(group).items():
            dropped.add_metric([*where, reason], n)
        longest = max((stage.latencies for stage in group), key=len)
        for percent, ms in zip(PERCENTS, longest.percentiles_ms(PERCENTS), strict=False):
            labels = {**dict(zip(keys, where, strict=True)), "quantile": f"{percent / 100:g}"}
            latency.add_sample(latency.name, labels, round(ms / 1e3, 6))
        factors = [one.realtime_factor for one in group if one.realtime_factor is not None]
        _add_known(factor, where, max(factors, default=None))
    yield from (came, left, dropped, latency, factor)


def _where(name: str, sources: set[str]) -> list[str]:
    """`windows/door` as stage and source; `outlet/web` is a stage, whatever sources are called."""
    stage, _, source = name.partition("/")
    return [stage, source] if source in sources and stage != "outlet" else [name, ""]


def _of_sources(sources: Sequence[SourceLook]) -> Iterator[Metric]:
    keys = ["source"]
    text = "1 for the state that a source is in, 0 for the others."
    state = GaugeMetricFamily("mmstream_source_state", text, labels=[*keys, "state"])
    text = "Whether a source should stream: neither disabled nor a recording that was played."
    expected = GaugeMetricFamily("mmstream_source_expected", text, labels=keys)
    text = "Frames per second of capture time, lately."
    fps = GaugeMetricFamily("mmstream_source_video_fps", text, labels=keys)
    text = "Root mean square level of the sound, lately."
    level = GaugeMetricFamily("mmstream_source_audio_level_dbfs", text, labels=keys)
    text = "How long after its capture the last scored hop was scored."
    lag = GaugeMetricFamily("mmstream_source_lag_seconds", text, labels=keys)
    text = "Whether sound and sight are known to be on one clock."
    synced = GaugeMetricFamily("mmstream_source_synced", text, labels=keys)
    text = "By how much a device's clock is fast; corrected for already."
    drift = GaugeMetricFamily("mmstream_source_clock_drift_ppm", text, labels=[*keys, "stream"])
    text = "How often a source was started anew."
    restarts = CounterMetricFamily("mmstream_source_restarts", text, labels=keys)
    for one in sources:
        health = one.health
        where = [health.source]
        for known in get_args(HealthState):
            state.add_metric([*where, known], health.state == known)
        expected.add_metric(where, one.is_expected)
        _add_known(fps, where, health.video_fps)
        _add_known(level, where, health.audio_rms)
        _add_known(lag, where, None if one.lag_ms is None else round(one.lag_ms / 1e3, 6))
        synced.add_metric(where, health.synced)
        _add_known(drift, [*where, "video"], health.video_drift_ppm)
        _add_known(drift, [*where, "audio"], health.audio_drift_ppm)
        restarts.add_metric(where, health.restarts)
    yield from (state, expected, fps, level, lag, synced, drift, restarts)


def _add_known(family: GaugeMetricFamily, labels: Sequence[str], value: float | None) -> None:
    if value is not None:
        family.add_metric(labels, value)


def _of_events(look: Look) -> Iterator[Metric]:
    keys = ["source", "label"]
    started = CounterMetricFamily("mmstream_events", "Events that began.", labels=keys)
    going = GaugeMetricFamily("mmstream_open_events", "Events that go on.", labels=keys)
    for one in look.events:
        started.add_metric([one.source, one.label], one.n_started)
        going.add_metric([one.source, one.label], one.n_open)
    yield from (started, going)


def _of_store(store: StoreLook) -> Iterator[Metric]:
    text = "Messages on disk that no broker has yet."
    yield GaugeMetricFamily("mmstream_store_waiting_messages", text, store.n_waiting)
    text = "How much of the event log holds something."
    yield GaugeMetricFamily("mmstream_store_used_bytes", text, store.used_bytes)
    text = "How much it may hold before the oldest goes."
    yield GaugeMetricFamily("mmstream_store_max_bytes", text, store.max_bytes)
    text = "Whether it can be written; events go on from memory where it cannot."
    yield GaugeMetricFamily("mmstream_store_writable", text, store.problem is None)
