"""The counters of stages as the `stats` message tells them."""

from collections.abc import Iterable, Mapping, Sequence

from mmstream.messages import StageReport
from mmstream.metrics import StageMetrics, dropped


def reports(
    stages: Sequence[StageMetrics], lags_ms: Mapping[str, float | None]
) -> dict[str, StageReport]:
    """By name, those of one name as one; `lags_ms` has the lag of those that know theirs."""
    named: dict[str, list[StageMetrics]] = {}
    for stage in stages:
        named.setdefault(stage.name, []).append(stage)
    return {name: _report(alike, lags_ms.get(name)) for name, alike in named.items()}


def _report(alike: Sequence[StageMetrics], lag_ms: float | None) -> StageReport:
    """Of stages of one name (the captures of a joined source's parts) the sum."""
    latencies = max((stage.latencies for stage in alike), key=len)
    return StageReport(
        n_in=sum(stage.n_in for stage in alike),
        n_out=sum(stage.n_out for stage in alike),
        dropped=dict(dropped(alike)),
        lag_ms=lag_ms,
        p50_ms=latencies.percentile_ms(50),
        p95_ms=latencies.percentile_ms(95),
        p99_ms=latencies.percentile_ms(99),
        realtime_factor=_largest(stage.realtime_factor for stage in alike),
    )


def _largest(known: Iterable[float | None]) -> float | None:
    """Of those that mean something."""
    return max((one for one in known if one is not None), default=None)
