"""What AVP costs in the worker, with the weights of the wheel, on one thread.

Sources are made-up cameras of 640x480 at 25 fps with sound, cut into hops of 0.25 s. Five
questions: what the cache of tokens saves; how many windows a core scores, by sources and by batch;
what the time goes to; whether live sources are served in time; how far the scorer is from the bare
model.
"""

from collections.abc import Callable, Sequence
from threading import Thread
from typing import Final

import torch
from pydantic import BaseModel, ConfigDict

from mmstream.benchmarks.worker_bare import BareCosts, bare
from mmstream.benchmarks.worker_encoders import EncoderCosts, Senses, compare
from mmstream.benchmarks.worker_world import (
    HOP_SECS,
    Cost,
    Stopwatch,
    cameras,
    keep_freed_memory,
    model_of,
    process_ms,
    thread_ms,
)
from mmstream.clock import SystemClock
from mmstream.media import Hop
from mmstream.metrics import StageMetrics
from mmstream.models.avp import Avp
from mmstream.models.avp_learned import Learned
from mmstream.models.avp_spec import AvpSpec
from mmstream.models.avp_stream import Encoders
from mmstream.models.avp_verdicts import Judge, View
from mmstream.models.avp_windows import Window
from mmstream.stages import Load, Scorer
from mmstream.worker import Worker, WorkerSettings

ENCODED: Final = (1, 4, 8, 16)
KEPT: Final = (1, 8)
SOURCES: Final = (1, 2, 4, 8, 16)
LIVE: Final = (4, 8)
ROUNDS: Final = 3
LIVE_SECS: Final = 3
TARGET_RATIO: Final = 6
TARGET_SOURCES: Final = 4

_N_PARTS_OF: Final = 4
_WARM_UP_HOPS: Final = 9
_TURNS_PER_ROUND: Final = 2
_CLOCK: Final = SystemClock()


class Scored(BaseModel):
    """So many sources, so many hops in a batch."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    n_sources: int
    max_batch: int
    cost: Cost
    """Of a hop: features, pictures, encoders, three fusions, verdict."""
    windows_per_sec: float
    """By CPU time."""
    real_time_factor: float
    """Share of a core's time that one source takes."""
    sources_per_core: float


class Part(BaseModel):
    """What of a hop goes where."""

    name: str
    cost: Cost


class Live(BaseModel):
    """Sources in real time, through the whole worker."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    n_sources: int
    secs: float
    n_hops: int
    dropped: dict[str, int]
    """Hops by what was saved or lost; none: all were scored in full."""
    p50_ms: float
    """From a hop that waits to its scores."""
    p99_ms: float
    core_share: float
    """CPU time of the worker over the time that passed."""


class Costs(BaseModel):
    """All of it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    weights: str
    rounds: int
    encoders: list[EncoderCosts]
    """With memory as it is by default, then with freed memory kept."""
    scored: list[Scored]
    """By sources, then by batch."""
    parts: list[Part]
    """Of a hop, at four sources."""
    live: list[Live]
    bare: list[BareCosts]
    """On the CPU, and on CUDA where there is one."""
    no_cuda: str | None
    """Why CUDA is not measured."""


def measure(
    spec: AvpSpec | None = None,
    *,
    rounds: int = ROUNDS,
    live_secs: float = LIVE_SECS,
    sources: Sequence[int] = SOURCES,
) -> Costs:
    """All that can be measured here.

    Raises:
        ScorerError: there is no such checkpoint.
    """
    spec = spec or AvpSpec(untrained="allow")
    torch.set_num_threads(1)
    model = model_of(spec)
    encoded = [n for n in ENCODED if n <= max(sources)]
    scored = _scored(spec, sources, rounds)
    parts = _parts(model, spec, 2 * rounds * _TURNS_PER_ROUND)
    live = [_live(spec, n, live_secs) for n in LIVE if n <= max(sources)]
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    bares = [bare(spec, device, max(sources[:-1]), rounds) for device in devices]
    encoders = [compare(model, n, rounds=rounds, keeps_memory=False) for n in encoded]
    if keep_freed_memory():  # last: there is no way back
        encoders += [compare(model, n, rounds=rounds, keeps_memory=True) for n in KEPT]
    return Costs(
        weights=spec.name,
        rounds=rounds,
        encoders=encoders,
        scored=scored,
        parts=parts,
        live=live,
        bare=bares,
        no_cuda=None if len(devices) > 1 else "torch.cuda.is_available() is false here",
    )


def _scored(spec: AvpSpec, sources: Sequence[int], rounds: int) -> list[Scored]:
    """All sources at the default batch, then the most of them at every other. They take turns."""
    most, usual = max(sources), WorkerSettings().max_batch
    cases = [(n, usual) for n in sources] + [(most, n) for n in sources if n != usual]
    runs = [_Run(spec.build("cpu"), spec.rate_hz, *case) for case in cases]
    for run in runs:
        run.warm_up()
    for _ in range(rounds):
        for run in runs:
            run.go()
    return [run.result() for run in runs]


class _Run:
    """A scorer and its sources."""

    def __init__(self, scorer: Scorer, rate_hz: int, n_sources: int, max_batch: int) -> None:
        self._scorer, self._n_sources, self._max_batch = scorer, n_sources, max_batch
        self._media = cameras(n_sources, rate_hz)
        self._watch = Stopwatch()

    def warm_up(self) -> None:
        for _ in range(_WARM_UP_HOPS):
            self._score(next(self._media))

    def go(self) -> None:
        for _ in range(_TURNS_PER_ROUND):
            hops = next(self._media)
            with self._watch.turn():
                self._score(hops)

    def _score(self, hops: Sequence[Hop]) -> None:
        for first in range(0, len(hops), self._max_batch):
            self._scorer.score(hops[first : first + self._max_batch], (), Load.FULL)

    def result(self) -> Scored:
        cost = self._watch.cost(n_parts=self._n_sources)
        return Scored(
            n_sources=self._n_sources,
            max_batch=self._max_batch,
            cost=cost,
            windows_per_sec=round(1e3 / cost.cpu_ms, 1),
            real_time_factor=round(cost.cpu_ms / 1e3 / HOP_SECS, 4),
            sources_per_core=round(HOP_SECS * 1e3 / cost.cpu_ms, 1),
        )


def _parts(model: Avp, spec: AvpSpec, n_turns: int) -> list[Part]:
    """One after the other, as `AvpScorer` does them, but with sound and sight apart."""
    metrics = StageMetrics("bench")
    n_dims = model.settings.fusion.n_dims
    learned = Learned(taught_in=None, normal_in=None, model="", n_dims=n_dims, detector=spec.name)
    told = spec.told or model.settings.events.labels
    judge, encoders = Judge(model, told, learned, metrics), Encoders(model, metrics)
    senses = Senses(model, _N_PARTS_OF)
    watches = {name: Stopwatch() for name in ("log-mel", "pictures", "sound", "sight", "fusion")}
    for n, hops in enumerate(cameras(_N_PARTS_OF, spec.rate_hz)):
        if n == _WARM_UP_HOPS:
            watches = {name: Stopwatch() for name in watches}
        if n == _WARM_UP_HOPS + n_turns:
            break
        with watches["log-mel"].turn():
            heard = senses.hear(hops)
        with watches["pictures"].turn():
            seen = senses.see(hops)
        with watches["sound"].turn():
            sounds = encoders.encode(heard)
        with watches["sight"].turn():
            sights = encoders.encode(seen)
        windows = [
            Window(hop.span.end_ns, ear.stream.keep(ear, a).audio, eye.stream.keep(eye, v).video)
            for hop, ear, a, eye, v in zip(hops, heard, sounds, seen, sights, strict=True)
        ]
        with watches["fusion"].turn():
            judge.judge([View("camera", window) for window in windows])
    parts = watches.items()
    return [Part(name=name, cost=watch.cost(n_parts=_N_PARTS_OF)) for name, watch in parts]


def _live(spec: AvpSpec, n_sources: int, secs: float) -> Live:
    """Hops of all sources, each when it is due: as simultaneous as they can be."""
    worker = Worker([spec], WorkerSettings(device="cpu"), _CLOCK, lambda _: None)
    thread = Thread(target=worker.run)
    thread.start()
    worker.built.result()
    n_hops = round(secs / HOP_SECS)
    media = cameras(n_sources, spec.rate_hz)
    begun_ns, cpu_ms, own_ms = _CLOCK.monotonic_ns(), process_ms(), thread_ms()
    for n in range(n_hops):
        hops = next(media)
        due_ns = begun_ns + round((n + 1) * HOP_SECS * 1e9)
        _CLOCK.sleep(max(0, due_ns - _CLOCK.monotonic_ns()) / 1e9)
        for hop in hops:
            worker.submit(hop, live=True)
    worker.close()
    thread.join()
    took_ms = (_CLOCK.monotonic_ns() - begun_ns) / 1e6
    used_ms = process_ms() - cpu_ms - (thread_ms() - own_ms)
    p50_ms, p99_ms = worker.metrics.latencies.percentiles_ms((50, 99))
    return Live(
        n_sources=n_sources,
        secs=secs,
        n_hops=n_hops * n_sources,
        dropped=dict(worker.metrics.dropped),
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        core_share=round(used_ms / took_ms, 3),
    )


def table(found: Costs) -> str:
    """The figures for people."""
    sections: Sequence[Callable[[Costs], list[str]]] = (_encoders, _scores, _times, _rest)
    return "\n".join(line for section in sections for line in section(found))


def _encoders(found: Costs) -> list[str]:
    heading = f"{found.weights}: encoders, CPU ms per hop and source"
    lines = [f"{heading:<44}{'cached':>10}{'anew':>10}{'ratio':>8}{'by wall':>9}"]
    for costs in found.encoders:
        kept = ", freed memory kept" if costs.keeps_memory else ""
        for one in costs.senses:
            name = f"{costs.n_sources} x {one.sense}{kept}"
            lines.append(
                f"{name:<44}{one.cached.cpu_ms:10.2f}{one.recomputed.cpu_ms:10.2f}"
                f"{one.ratio:8.1f}{one.wall_ratio:9.1f}"
            )
    best = max(costs.ratio for costs in found.encoders)
    return [*lines, f"the cache saves up to {best:.1f} (target >= {TARGET_RATIO})"]


def _scores(found: Costs) -> list[str]:
    columns = f"{'CPU ms':>10}{'wall ms':>10}{'windows/s':>11}{'of real time':>14}{'per core':>10}"
    lines = [f"{'whole scorer, per hop':<44}{columns}"]
    for one in found.scored:
        name = f"{one.n_sources} sources, batches of {one.max_batch}"
        lines.append(
            f"{name:<44}{one.cost.cpu_ms:10.2f}{one.cost.wall_ms:10.2f}"
            f"{one.windows_per_sec:11.0f}{one.real_time_factor:14.3f}{one.sources_per_core:10.0f}"
        )
    least = min(one.sources_per_core for one in found.scored)
    return [*lines, f"one core: at least {least:.0f} live sources (target >= {TARGET_SOURCES})"]


def _times(found: Costs) -> list[str]:
    per_sec = 1 / HOP_SECS
    lines = [f"{f'{_N_PARTS_OF} sources, each':<44}{'CPU ms per media-second':>24}"]
    lines += [f"{part.name:<44}{part.cost.cpu_ms * per_sec:24.1f}" for part in found.parts]
    total = sum(part.cost.cpu_ms for part in found.parts) * per_sec
    return [*lines, f"{'all':<44}{total:24.1f}"]


def _rest(found: Costs) -> list[str]:
    lines = [*map(_live_line, found.live), *map(_bare_line, found.bare)]
    return lines if found.no_cuda is None else [*lines, f"CUDA: {found.no_cuda}"]


def _live_line(one: Live) -> str:
    lost = ", ".join(f"{n} {name}" for name, n in one.dropped.items()) or "nothing dropped"
    return (
        f"{one.n_sources} live sources for {one.secs:g} s: {one.core_share:.2f} of a core, "
        f"{lost}, p50 {one.p50_ms:.0f} ms, p99 {one.p99_ms:.0f} ms"
    )


def _bare_line(one: BareCosts) -> str:
    return (
        f"{one.device}, {one.n_sources} sources: {one.windows_per_sec:.0f} windows/s, "
        f"{one.share:.2f} of the bare model's; {one.host_ms_per_hop:.2f} ms of CPU time per hop"
    )
