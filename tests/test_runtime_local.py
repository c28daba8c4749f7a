"""A whole graph on one loop: what runs, what fails, and how it all comes to an end."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from sink_messages import event, published
from streams import (
    BEEP,
    Blank,
    ListReader,
    Script,
    ScriptedScorer,
    ScriptedSource,
    beeping,
    chain_of,
    sound,
    started,
    steady,
    until,
)

from mmstream.clock import SystemClock
from mmstream.errors import ConfigError, ScorerError, SinkError, SourceError, UnreachableError
from mmstream.heads.lifecycle import LabelSettings
from mmstream.media import Hop, Label, MediaItem, Scores, Series, VideoFrame
from mmstream.messages import (
    Content,
    Event,
    Health,
    Info,
    ModelInfo,
    NumberedStamp,
    Published,
    Stats,
)
from mmstream.metrics import StageMetrics
from mmstream.runtime import backoff, capture, handoff, local, outlet
from mmstream.runtime.capture import ThreadedSource
from mmstream.runtime.graph import Graph
from mmstream.runtime.local import LocalRuntime
from mmstream.sinks.memory import MemorySink
from mmstream.stages import Load, Scorer, ScorerSpec, Sink, Source
from mmstream.worker import WorkerSettings


def made(
    sources: Sequence[Source],
    specs: Sequence[ScorerSpec],
    sinks: Sequence[Sink],
    *,
    reports: bool = False,
    settings: LabelSettings | None = None,
    worker: WorkerSettings | None = None,
) -> LocalRuntime:
    chains = tuple(chain_of(source, settings) for source in sources)
    worker = worker or WorkerSettings(max_batch=1)
    graph = Graph("home", chains, tuple(specs), worker, tuple(sinks), reports=reports)
    return LocalRuntime(graph, SystemClock(), boot_id="b")


def a_file(*items: MediaItem | Exception, name: str = "cam") -> ThreadedSource:
    return ThreadedSource(ListReader(items, name=name))


def a_beep(name: str = "cam", secs: float = 1.0) -> ThreadedSource:
    return a_file(started(["audio"], source=name), *sound(0, secs, source=name), name=name)


def told(sink: MemorySink, source: str = "cam") -> list[tuple[str, str | None]]:
    return [(one.type, one.end_reason) for one in sink.contents(Event) if one.source == source]


def counts(runtime: LocalRuntime, name: str) -> StageMetrics:
    [metrics] = [stage for stage in runtime.stages() if stage.name == name]
    return metrics


async def stopped_after(runtime: LocalRuntime, condition: Callable[[], bool]) -> None:
    """Run until something is so, then stop; `run` must return soon."""
    running = asyncio.create_task(runtime.run())
    await until(lambda: condition() or running.done())
    runtime.stop()
    async with asyncio.timeout(5):
        await running


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs is soon given up."""
    for name in ("SAID", "GOODBYE", "WORKED", "EMPTIED", "CLOSED"):
        monkeypatch.setattr(local, f"{name}_SECS", 0.1)


class OpenSink(MemorySink):
    """Counts how often it was closed, and knows whether `run` has come to its end."""

    def __init__(self, name: str = "memory") -> None:
        super().__init__()
        self.name = name
        self.n_closed = 0
        self.has_run = False

    async def run(self) -> None:
        await super().run()
        self.has_run = True

    async def close(self) -> None:
        self.n_closed += 1
        await super().close()


def test_a_file_from_start_to_end() -> None:
    sink = OpenSink()
    runtime = made([a_beep()], [Script(steady(0.9))], [sink])
    asyncio.run(runtime.run())
    assert told(sink) == [("start", None), ("end", "source_ended")]
    assert len(sink.messages) == 2  # a replay tells nothing else
    assert (sink.n_closed, sink.has_run) == (1, True)
    assert runtime.failures() == []
    assert not any(stage.dropped for stage in runtime.stages())


def test_with_reports_it_says_who_it_is_and_how_it_is() -> None:
    sink = OpenSink()
    runtime = made([a_beep()], [Script(steady(0.9))], [sink], reports=True)
    asyncio.run(runtime.run())
    first, *_, health, last = (message.content for message in sink.messages)
    assert isinstance(first, Info)
    assert [(one.id, one.labels) for one in first.sources] == [("cam", ("beep",))]
    assert isinstance(health, Health)
    assert (health.source, health.state, health.reason) == ("cam", "offline", "ended")
    assert isinstance(last, Stats)
    assert last.batch_size == 1.0
    assert set(last.stages) == {
        "capture/cam",
        "windows/cam",
        "heads/cam",
        "worker",
        "outlet/memory",
        "memory",
    }
    assert (last.stages["worker"].n_in, last.stages["worker"].n_out) == (4, 4)
    assert last.stages["worker"].p50_ms is not None
    stamps = [message.stamp for message in sink.messages]
    assert {(one.node, one.boot_id) for one in stamps} == {("home", "b")}
    assert [one.seq for one in stamps if isinstance(one, NumberedStamp)] == [0, 1]


class CountingScorer(ScriptedScorer):
    """Counts for itself."""

    problems: tuple[str, ...] = ("bell.safetensors: torn",)

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.metrics = StageMetrics("model")


class CountingScript(Script):
    """Its spec."""

    def build(self, device: str) -> CountingScorer:  # noqa: ARG002 - not computed
        return CountingScorer(self)


def test_what_a_scorer_counts_reaches_the_stats() -> None:
    sink = OpenSink()
    runtime = made([a_beep()], [CountingScript(steady(0.9))], [sink], reports=True)
    asyncio.run(runtime.run())
    assert sink.contents(Stats)[-1].stages["model"].dropped == {"passed_over": 1}


def test_it_says_which_models_run_and_where_they_really_compute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mmstream.worker._DRIVERS", ())
    sink = OpenSink()
    settings = WorkerSettings(max_batch=1, device="auto")
    chains, scorers = (chain_of(a_beep()),), (Script(steady(0.9)),)
    models = (ModelInfo(name="avp-small", id="9b1c04de6f2a7735"),)
    graph = Graph("home", chains, scorers, settings, (sink,), models=models)
    runtime = LocalRuntime(graph, SystemClock(), boot_id="b")
    assert runtime.look().worker.device == "auto"
    asyncio.run(runtime.run())
    assert sink.contents(Info)[0].models == models
    assert sink.contents(Stats)[-1].device == runtime.look().worker.device == "cpu"


def test_stages_of_one_name_are_told_as_one() -> None:
    class Joined(ScriptedSource):
        @property
        def metrics(self) -> Sequence[StageMetrics]:
            made = [StageMetrics("capture/cam") for _ in range(2)]
            for n, one in enumerate(made, 1):
                one.n_in = n
                one.drop("loop_behind", n)
            made[1].drop("reader_abandoned")
            return made

    sink = MemorySink()
    runtime = made([Joined(beeping)], [Script(steady(0.9))], [sink], reports=True)
    asyncio.run(stopped_after(runtime, lambda: len(told(sink)) == 1))
    captured = sink.contents(Stats)[-1].stages["capture/cam"]
    assert captured.n_in == 3
    assert captured.dropped == {"loop_behind": 3, "reader_abandoned": 1}


def test_health_is_told_when_it_changes_and_stats_from_time_to_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local, "STATS_SECS", 0.02)
    sink = MemorySink()
    runtime = made([ScriptedSource(beeping)], [Script(steady(0.9))], [sink], reports=True)
    asyncio.run(stopped_after(runtime, lambda: len(sink.contents(Stats)) == 3))
    states = [one.state for one in sink.contents(Health)]
    assert states[0] == "online"
    assert states[-1] == "offline"
    assert sink.contents(Health)[-1].reason == "shut down"
    assert set(states[:-1]) == {"online"}


def test_stopping_ends_events_and_closes_sinks() -> None:
    sinks = [OpenSink("one"), OpenSink("two")]
    runtime = made([ScriptedSource(beeping)], [Script(steady(0.9))], sinks)
    asyncio.run(stopped_after(runtime, lambda: len(told(sinks[0])) == 1))
    assert runtime.stopping
    for sink in sinks:
        assert told(sink) == [("start", None), ("end", "shutdown")]
        assert (sink.n_closed, sink.has_run) == (1, True)


def test_nothing_is_left_running() -> None:
    sink = OpenSink()
    reader = ListReader([started(["audio"]), *sound(0, 1)], live=True)
    runtime = made([ThreadedSource(reader)], [Script(steady(0.9))], [sink], reports=True)

    async def scenario() -> None:
        await stopped_after(runtime, lambda: len(told(sink)) == 2)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("worker", "cam"))]


def test_tasks_have_names() -> None:
    sink = MemorySink()
    runtime = made([ScriptedSource(beeping)], [Script(steady(0.9))], [sink], reports=True)
    names: set[str] = set()

    def look() -> bool:
        names.update(task.get_name() for task in asyncio.all_tasks())
        return len(told(sink)) == 1

    asyncio.run(stopped_after(runtime, look))
    assert names >= {
        "worker",
        "sink.memory",
        "sink.memory.feed",
        "cam.capture",
        "cam.speak",
        "cam.watchdog",
        "reports",
        "stop",
        "over",
        "requests",
    }
    unnamed = {name for name in names if name.startswith("Task-")}
    assert len(unnamed) <= 2  # the test itself and `run`


def test_sources_that_fail_do_not_touch_others() -> None:
    sink = MemorySink()
    sources = [
        a_file(started(["audio"], source="a"), SourceError("a: no such file"), name="a"),
        a_file(started(["audio"], source="b"), KeyError("defect"), name="b"),
        a_beep("c", secs=10),
    ]
    runtime = made(sources, [Script(steady(0.9))], [sink])
    asyncio.run(runtime.run())
    assert told(sink, "c") == [("start", None), ("end", "source_ended")]
    assert [str(error) for error in runtime.failures()] == ["a: no such file", "KeyError: 'defect'"]
    assert [one.state for one in runtime.statuses()] == ["offline"] * 3


def test_a_live_source_that_keeps_failing_does_not_touch_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backoff, "FIRST_RETRY_SECS", 0.001)
    sink = MemorySink()

    async def refuse(n: int) -> AsyncIterator[MediaItem]:
        if n > 0:
            msg = "refused"
            raise SourceError(msg)
        yield started()

    refusing = ScriptedSource(refuse, name="door")
    runtime = made([refusing, ScriptedSource(beeping)], [Script(steady(0.9))], [sink])
    asyncio.run(stopped_after(runtime, lambda: refusing.n_opened > 4 and len(told(sink)) == 1))
    assert told(sink) == [("start", None), ("end", "shutdown")]
    assert told(sink, "door") == []


def test_it_runs_until_the_last_source_has_ended() -> None:
    sink = MemorySink()
    runtime = made([a_beep("a", 0.5), a_beep("b", 30)], [Script(steady(0.9))], [sink])
    asyncio.run(runtime.run())
    for source in ("a", "b"):
        assert told(sink, source) == [("start", None), ("end", "source_ended")]
    assert [one.t_end for one in sink.contents(Event) if one.type == "end"] == [0.5, 30.0]


@dataclass(frozen=True)
class Failing:
    """A scorer that fails from the fifth hop on."""

    error: Exception | None
    labels: tuple[Label, ...] = (BEEP,)

    def build(self, device: str) -> Scorer:
        if device != "cpu":
            raise ScorerError(device)
        return self

    def score(
        self,
        hops: Sequence[Hop],
        so_far: Sequence[Scores],  # noqa: ARG002
        load: Load,  # noqa: ARG002
    ) -> Sequence[Scores]:
        if hops[0].index < 4:
            return [Scores(one.source, one.index, one.span, steady(0.9)(one)) for one in hops]
        if self.error is not None:
            raise self.error
        return []

    def forget(self, source: str) -> None: ...


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (None, ScorerError, "Failing must give one result per hop, in order"),
        (ZeroDivisionError("a defect"), ZeroDivisionError, "a defect"),
    ],
)
@pytest.mark.parametrize("live", [False, True])
def test_when_the_worker_fails_events_end_and_sinks_close_before_it_is_raised(
    error: Exception | None, kind: type[Exception], message: str, *, live: bool
) -> None:
    sink = OpenSink()
    source: Source = a_beep(secs=30)
    if live:

        async def play(_: int) -> AsyncIterator[MediaItem]:
            yield started(["audio"])
            for item in sound(0, 1):
                yield item
            await until(lambda: len(told(sink)) == 1)
            for item in sound(1, 2):
                yield item
            await asyncio.Event().wait()

        source = ScriptedSource(play)
    runtime = made([source], [Failing(error)], [sink])
    with pytest.raises(kind, match=message):
        asyncio.run(asyncio.wait_for(runtime.run(), 5))
    assert told(sink) == [("start", None), ("end", "shutdown")]
    assert (sink.n_closed, sink.has_run) == (1, True)


def test_a_scorer_that_cannot_be_built_is_told_at_once() -> None:
    sink = OpenSink()
    worker = WorkerSettings(device="cuda")
    runtime = made([ScriptedSource(beeping)], [Failing(None)], [sink], worker=worker)
    with pytest.raises(ScorerError, match="cuda"):
        asyncio.run(asyncio.wait_for(runtime.run(), 5))
    assert sink.n_closed == 1


def test_two_sources_with_one_name_are_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="two sources have the name cam: each needs its own"):
        made([a_beep(), a_beep("door"), a_beep()], [Script(steady(0.9))], [])


def test_two_scorers_with_one_label_are_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="two scorers say the label 'beep'"):
        made([a_beep()], [Script(steady(0.9)), Script(steady(0.9))], [])


class NeverWorks(OpenSink):
    """Gives up as soon as the first event has come."""

    async def run(self) -> None:
        await until(lambda: len(self.messages) > 0)
        msg = "wrong password"
        raise SinkError(msg)


class Defective(OpenSink):
    """Fails in a way that no sink may."""

    async def publish(self, message: Published) -> None:  # noqa: ARG002 - as the protocol says
        msg = "a defect"
        raise ZeroDivisionError(msg)


class ClosesBadly(OpenSink):
    """Fails as it is closed."""

    async def close(self) -> None:
        await super().close()
        msg = "disk full"
        raise SinkError(msg)


@pytest.mark.parametrize(
    ("bad", "kind", "message"),
    [
        (NeverWorks, SinkError, "wrong password"),
        (Defective, ZeroDivisionError, "a defect"),
        (ClosesBadly, SinkError, "disk full"),
    ],
)
def test_when_a_sink_fails_the_others_get_their_ends_before_it_is_raised(
    bad: type[OpenSink], kind: type[Exception], message: str
) -> None:
    sinks = [bad("bad"), OpenSink("good")]
    runtime = made([ScriptedSource(beeping)], [Script(steady(0.9))], sinks)
    with pytest.raises(kind, match=message):
        asyncio.run(stopped_after(runtime, lambda: bad is ClosesBadly and len(told(sinks[1])) == 1))
    assert told(sinks[1]) == [("start", None), ("end", "shutdown")]
    assert [sink.n_closed for sink in sinks] == [1, 1]


class Losing(OpenSink):
    """Loses every message, as a sink may."""

    async def publish(self, message: Published) -> None:  # noqa: ARG002 - as the protocol says
        msg = "unreachable"
        raise SinkError(msg)


def test_a_sink_that_loses_messages_stops_nobody() -> None:
    losing, good = Losing("losing"), OpenSink("good")
    runtime = made([a_beep()], [Script(steady(0.9))], [losing, good])
    asyncio.run(runtime.run())
    assert told(good) == [("start", None), ("end", "source_ended")]
    assert counts(runtime, "outlet/losing").dropped == {"sink_error": 2}
    assert losing.n_closed == 1


class Slow(OpenSink):
    """Takes a while for each message."""

    async def publish(self, message: Published) -> None:
        await asyncio.sleep(0.005)
        await super().publish(message)


def pulses(one: Hop) -> Mapping[str, Series]:
    return steady(0.9 if one.index % 2 else 0.1)(one)


PULSES = LabelSettings(for_secs=0.1, within_secs=0.2, min_off_secs=0)


def test_when_files_end_a_slow_sink_gets_all_the_time_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(outlet, "MAX_QUEUED", 8)
    sink = Slow()
    runtime = made([a_beep(secs=20)], [Script(pulses)], [sink], settings=PULSES)
    asyncio.run(runtime.run())
    assert [kind for kind, _ in told(sink)] == ["start", "end"] * 40
    assert not any(stage.dropped for stage in runtime.stages())


class Hanging(OpenSink):
    """Never comes back from a `publish`."""

    async def publish(self, message: Published) -> None:  # noqa: ARG002 - as the protocol says
        await asyncio.Event().wait()


def test_a_sink_that_hangs_does_not_keep_the_end_from_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hurry(monkeypatch)
    hanging, good = Hanging("hanging"), OpenSink("good")
    runtime = made([ScriptedSource(beeping)], [Script(steady(0.9))], [hanging, good])
    asyncio.run(stopped_after(runtime, lambda: len(told(good)) == 1))
    assert told(good) == [("start", None), ("end", "shutdown")]
    assert counts(runtime, "outlet/hanging").dropped == {"undelivered_at_shutdown": 2}
    assert (hanging.n_closed, good.n_closed) == (1, 1)


@pytest.mark.parametrize("live", [False, True])
def test_a_sink_that_hangs_with_its_queue_full_does_not_hang_the_stop(
    monkeypatch: pytest.MonkeyPatch, *, live: bool
) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(outlet, "MAX_QUEUED", 2)
    hanging = Hanging("hanging")

    async def play(_: int) -> AsyncIterator[MediaItem]:
        yield started(["audio"])
        for item in sound(0, 30):
            yield item
            await asyncio.sleep(0)
        await asyncio.Event().wait()

    script = Script(pulses)
    source = ScriptedSource(play, live=live)
    runtime = made([source], [script], [hanging], settings=PULSES, reports=True)
    outcome, heads = counts(runtime, "outlet/hanging"), counts(runtime, "heads/cam")
    # One message hangs, two wait; a file's next waits for room, a live one's takes it.
    asyncio.run(stopped_after(runtime, lambda: outcome.n_in > (10 if live else 3)))
    assert outcome.n_in == outcome.dropped.total()
    assert outcome.dropped["undelivered_at_shutdown"] > 2
    assert (outcome.dropped["sink_behind"] > 0) is live
    assert hanging.n_closed == 1
    assert (heads.dropped["unsaid_at_shutdown"] > 0) is not live


def test_a_capture_thread_that_hangs_does_not_hang_the_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capture, "JOIN_SECS", 0.05)
    let_go = threading.Event()

    class Hung(ListReader):
        @contextmanager
        def read(self) -> Iterator[Iterator[MediaItem]]:
            def items() -> Iterator[MediaItem]:
                yield started(["audio"])
                yield from sound(0, 1)
                let_go.wait(20)

            yield items()

    sink = OpenSink()
    runtime = made([ThreadedSource(Hung([], live=True))], [Script(steady(0.9))], [sink])
    before = time.monotonic()
    asyncio.run(stopped_after(runtime, lambda: len(told(sink)) == 1))
    assert time.monotonic() - before < 10  # the read itself takes 20 s
    assert told(sink) == [("start", None), ("end", "shutdown")]
    assert sink.n_closed == 1
    let_go.set()


def test_under_a_flood_everything_stays_bounded_and_is_counted() -> None:
    flooding = threading.Event()
    waiting: list[int] = []

    class Flood(ListReader):
        @contextmanager
        def read(self) -> Iterator[Iterator[MediaItem]]:
            def items() -> Iterator[MediaItem]:
                image, index = Blank(), 0
                yield started(["video"], clock_offset_ns=0)
                while not flooding.is_set():
                    yield VideoFrame("cam", index * 40_000_000, image)
                    index += 1

            yield items()

    def watch(one: Hop) -> Mapping[str, Series]:
        heads = counts(runtime, "heads/cam")
        done = counts(runtime, "worker").dropped["hop_dropped"] + heads.n_in
        waiting.append(counts(runtime, "worker").n_in - done)
        return steady(0.9)(one)

    script = Script(watch, secs_per_batch=0.005)
    sink = OpenSink()
    settings = WorkerSettings(max_batch=4)
    reader = Flood([], live=True)
    runtime = made([ThreadedSource(reader)], [script], [sink], worker=settings)
    asyncio.run(stopped_after(runtime, lambda: len(script.batches) >= 40))
    flooding.set()
    worker, cut = counts(runtime, "worker"), counts(runtime, "windows/cam")
    assert max(waiting) <= settings.queue_hops + 2 * settings.max_batch
    assert worker.dropped["hop_dropped"] > 0
    assert cut.n_out == worker.n_in == worker.n_out + worker.dropped["hop_dropped"]
    # A hop that follows a dropped one says so, and no other does.
    hops = [one for one, _ in script.given]
    follows = [two.index != one.index + 1 for one, two in pairwise(hops)]
    assert [one.gap_before for one in hops[1:]] == follows
    captured = counts(runtime, "capture/cam")
    n_left = captured.n_in - captured.n_out - captured.dropped["loop_behind"]
    assert 0 <= n_left <= handoff.MAX_ITEMS
    assert sum(len(one.frames) for one in hops) > 0


def test_files_and_live_sources_share_the_worker_and_files_lose_nothing() -> None:
    script = Script(steady(0.9), secs_per_batch=0.001)
    sink = OpenSink()
    sources: list[Source] = [a_beep("file", 20), ScriptedSource(beeping)]
    runtime = made(sources, [script], [sink], worker=WorkerSettings())
    asyncio.run(stopped_after(runtime, lambda: len(told(sink, "file")) == 2))
    assert [one.index for one, _ in script.given if one.source == "file"] == list(range(80))
    assert told(sink) == [("start", None), ("end", "shutdown")]


def test_being_cancelled_still_closes_sinks() -> None:
    sinks = [OpenSink("one"), OpenSink("two")]
    runtime = made([ScriptedSource(beeping)], [Script(steady(0.9))], sinks)

    async def scenario() -> None:
        running = asyncio.create_task(runtime.run())
        await until(lambda: len(told(sinks[0])) == 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(asyncio.wait_for(scenario(), 5))
    assert [(sink.n_closed, sink.has_run) for sink in sinks] == [(1, True)] * 2


def test_being_cancelled_a_sink_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    hanging, good = Hanging("hanging"), OpenSink("good")
    runtime = made([ScriptedSource(beeping)], [Script(steady(0.9))], [hanging, good])

    async def scenario() -> None:
        running = asyncio.create_task(runtime.run())
        await until(lambda: len(told(good)) == 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(asyncio.wait_for(scenario(), 5))
    assert (hanging.n_closed, good.n_closed) == (1, 1)


class Unready(OpenSink):
    """Cannot be reached."""

    async def ready(self, timeout_secs: float) -> None:  # noqa: ARG002 - as the protocol says
        msg = "127.0.0.1:1883 refused the connection"
        raise SinkError(msg)


def reach(runtime: LocalRuntime, timeout_secs: float = 5) -> None:
    async def scenario() -> None:
        running = asyncio.create_task(runtime.run())
        try:
            await runtime.started(timeout_secs)
        finally:
            runtime.stop()
            await running

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_started_waits_until_all_is_reached() -> None:
    runtime = made([ScriptedSource(beeping)], [Script(steady(0.9))], [OpenSink()])
    reach(runtime)
    assert [one.state for one in runtime.statuses()] == ["online"]


async def never(n: int) -> AsyncIterator[MediaItem]:
    await asyncio.Event().wait()
    if n < 0:
        yield started()


@pytest.mark.parametrize(
    ("source", "sink", "message"),
    [
        (a_file(SourceError("no such file")), OpenSink(), "cam: no such file"),
        (ScriptedSource(never), OpenSink(), r"not reached in 0\.05 s: cam"),
        (ScriptedSource(beeping), Unready(), "127.0.0.1:1883 refused the connection"),
    ],
)
def test_started_says_what_is_not_reached(source: Source, sink: OpenSink, message: str) -> None:
    runtime = made([source], [Script(steady(0.9))], [sink])
    with pytest.raises(UnreachableError, match=message):
        reach(runtime, timeout_secs=0.05)
    assert sink.n_closed == 1


def test_messages_of_all_sources_are_numbered_without_a_gap() -> None:
    sinks = [OpenSink("one"), Slow("two")]
    names = ["a", "b", "c"]
    runtime = made([a_beep(name, 5) for name in names], [Script(pulses)], sinks, settings=PULSES)
    asyncio.run(runtime.run())
    for sink in sinks:
        stamps = [message.stamp for message in sink.messages]
        seqs = [one.seq for one in stamps if isinstance(one, NumberedStamp)]
        assert seqs == list(range(60))


def test_a_replay_says_the_same_each_time() -> None:
    def replay() -> list[Content]:
        sink = MemorySink()
        asyncio.run(made([a_beep(secs=10)], [Script(pulses)], [sink], settings=PULSES).run())
        return [message.content for message in sink.messages]

    first = replay()
    assert len(first) == 40
    assert replay() == first


def test_what_an_earlier_boot_left_open_ends_before_anything_else_is_said() -> None:
    sink = OpenSink()
    left = published(event("old", source="gone"))
    meter = StageMetrics("store")
    meter.drop("spool_age", 3)
    chains = (chain_of(a_beep()),)
    worker = WorkerSettings(max_batch=1)
    graph = Graph("home", chains, (Script(steady(0.9)),), worker, (sink,))
    graph = replace(graph, left_open=(left,), meters=(meter,))
    asyncio.run(LocalRuntime(graph, SystemClock(), boot_id="b").run())
    first, second, *_ = sink.messages
    assert isinstance(first.content, Event)
    assert (first.content.id, first.content.type) == ("old", "end")
    assert first.content.end_reason == "restart"
    assert isinstance(first.stamp, NumberedStamp)
    assert (first.stamp.boot_id, first.stamp.seq) == ("b", 0)
    assert isinstance(second.content, Info)
    assert sink.contents(Stats)[-1].stages["store"].dropped == {"spool_age": 3}
