"""What the web shows of sources and worker, taken on the loop."""

from mmstream.clock import Clock
from mmstream.media import NS_PER_SEC
from mmstream.runtime.roster import Roster
from mmstream.web.look import SourceLook, WorkerLook
from mmstream.worker import Worker


def look_at_sources(roster: Roster) -> tuple[SourceLook, ...]:
    """How each is, and whether it should stream."""
    expected = roster.expected
    return tuple(
        SourceLook(runner.gauge.health(), runner.gauge.lag_ms, name in expected)
        for name, runner in roster.runners.items()
    )


def look_at_worker(worker: Worker, clock: Clock) -> WorkerLook:
    """What it has done, and for how long it has been at what it does."""
    since_ns = worker.busy_since_ns
    busy_ns = None if since_ns is None else clock.monotonic_ns() - since_ns
    return WorkerLook(
        device=worker.device,
        is_built=worker.built.done(),
        n_batches=worker.n_batches,
        n_hops=worker.metrics.n_out,
        busy_secs=None if busy_ns is None else busy_ns / NS_PER_SEC,
    )
