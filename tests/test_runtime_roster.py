"""Sources that come, go, pause and are opened again while others go on."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from streams import (
    FLASH,
    ListReader,
    Script,
    ScriptedScorer,
    ScriptedSource,
    beeps,
    chain_of,
    sound,
    started,
    steady,
    until,
)

from mmstream.clock import SystemClock
from mmstream.errors import CommandError
from mmstream.media import Hop, MediaItem, Scores, Series
from mmstream.messages import Event, Features, Health, Info, Published, Request
from mmstream.runtime import passage, roster
from mmstream.runtime.capture import ThreadedSource
from mmstream.runtime.graph import Graph
from mmstream.runtime.local import LocalRuntime
from mmstream.sinks.memory import MemorySink
from mmstream.stages import Inlet, Load, Source
from mmstream.store.overrides import Override
from mmstream.worker import WorkerSettings

BEEPED = [("start", None), ("end", "source_ended")]


class Silent:
    """Nobody asks, but somebody could (fits `Inlet`)."""

    async def requests(self) -> AsyncIterator[Request]:
        await asyncio.Event().wait()
        yield Request("info", "")


class Run:
    """A run of some sources, with one sink that remembers."""

    def __init__(
        self,
        *sources: Source,
        script: Script | None = None,
        sink: MemorySink | None = None,
        inlets: Sequence[Inlet] = (Silent(),),
        overrides: Sequence[Override] = (),
    ) -> None:
        self.sink = sink or MemorySink()
        self.script = script or Script(steady(0.9))
        graph = Graph(
            "home",
            tuple(chain_of(source) for source in sources),
            (self.script,),
            WorkerSettings(max_batch=1),
            (self.sink,),
            inlets=tuple(inlets),
            overrides=tuple(overrides),
        )
        self.runtime = LocalRuntime(graph, SystemClock(), boot_id="b")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.runtime.run())
        await until(lambda: "requests" in {one.get_name() for one in asyncio.all_tasks()})
        try:
            yield task
        finally:
            self.runtime.stop()
            async with asyncio.timeout(5):
                await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def told(self, source: str) -> list[tuple[str, str | None]]:
        events = self.sink.contents(Event)
        return [(one.type, one.end_reason) for one in events if one.source == source]

    def states(self, source: str) -> list[tuple[str, str]]:
        """How its health changed, as it was told."""
        told = [(h.state, h.reason) for h in self.sink.contents(Health) if h.source == source]
        return [now for before, now in zip([("", ""), *told], told, strict=False) if now != before]

    @property
    def informed(self) -> list[list[str]]:
        return [[source.id for source in info.sources] for info in self.sink.contents(Info)]

    async def beeped(self, source: str, n: int = 1) -> None:
        await until(lambda: [kind for kind, _ in self.told(source)].count("start") == n)


def play(run: Run, steps: Callable[[], Awaitable[None]]) -> None:
    async def scenario() -> None:
        async with run.running():
            await steps()

    asyncio.run(scenario())


def test_a_source_that_is_added_runs_and_info_says_so() -> None:
    run = Run(beeps("a"))

    async def steps() -> None:
        await run.beeped("a")
        await run.runtime.add(chain_of(beeps("b")))
        await run.beeped("b")
        await until(lambda: len(run.states("b")) == 1)
        assert {one.source for one in run.runtime.statuses()} == {"a", "b"}

    play(run, steps)
    assert run.informed == [["a"], ["a", "b"]]
    assert run.told("a") == run.told("b") == [("start", None), ("end", "shutdown")]
    assert run.states("b") == [("online", "streaming"), ("offline", "shut down")]


def test_a_source_that_is_removed_ends_and_is_forgotten() -> None:
    run = Run(beeps("a"), beeps("b"))

    async def steps() -> None:
        await run.beeped("a")
        await run.beeped("b")
        await run.runtime.remove("b")
        assert run.told("b") == BEEPED
        assert run.script.forgotten.count("b") <= 2
        await until(lambda: run.informed == [["a", "b"], ["a"]])
        last = run.sink.messages[-1].content
        assert isinstance(last, Info)  # what clears its topics comes after all it says
        assert not [one for one in run.runtime.stages() if one.name.endswith("/b")]

    play(run, steps)
    assert run.states("b")[-1] == ("offline", "removed")
    assert run.told("a") == [("start", None), ("end", "shutdown")]


def test_it_can_come_back_under_the_same_name() -> None:
    run = Run(beeps("a"), beeps("b"))

    async def steps() -> None:
        await run.beeped("b")
        await run.runtime.remove("b")
        await run.runtime.add(chain_of(beeps("b")))
        await run.beeped("b", 2)

    play(run, steps)
    assert run.told("b") == [*BEEPED, ("start", None), ("end", "shutdown")]
    assert run.informed == [["a", "b"], ["a"], ["a", "b"]]


def test_a_disabled_source_ends_its_events_and_goes_on_when_enabled() -> None:
    source = beeps("a")
    run = Run(source, beeps("b"))

    async def steps() -> None:
        await run.beeped("a")
        for _ in range(2):  # the second does nothing
            await run.runtime.disable("a")
            await until(lambda: run.told("a") == BEEPED)
        assert source.n_opened == 1
        for _ in range(2):
            await run.runtime.enable("a")
            await run.beeped("a", 2)
        assert source.n_opened == 2

    play(run, steps)
    assert run.told("a") == [*BEEPED, ("start", None), ("end", "shutdown")]
    states = run.states("a")
    assert ("offline", "disabled") in states
    assert states.index(("offline", "disabled")) < len(states) - 2
    assert states[-2:] == [("online", "streaming"), ("offline", "shut down")]
    assert run.informed == [["a", "b"]]


def test_a_restarted_source_is_opened_again() -> None:
    source = beeps("a")
    run = Run(source)

    async def steps() -> None:
        await run.beeped("a")
        await run.runtime.restart("a")
        await run.beeped("a", 2)
        assert source.n_opened == 2

    play(run, steps)
    assert run.told("a") == [*BEEPED, ("start", None), ("end", "shutdown")]
    assert run.sink.contents(Health)[-1].restarts == 1


def test_a_file_that_has_ended_begins_anew_when_restarted() -> None:
    reader = ListReader([started(["audio"]), *sound(0, 1)])
    run = Run(beeps("a"), ThreadedSource(reader))

    async def steps() -> None:
        await until(lambda: run.told("cam") == BEEPED)
        await run.runtime.restart("cam")
        await until(lambda: run.told("cam") == [*BEEPED, *BEEPED])

    play(run, steps)
    assert reader.n_closed == 2


def test_what_cannot_be_done_says_what_can() -> None:
    run = Run(beeps("a"), beeps("b"))

    async def steps() -> None:
        no_c = "no source 'c'; there are: a, b"
        for request in (run.runtime.remove, run.runtime.disable, run.runtime.restart):
            with pytest.raises(CommandError, match=no_c):
                await request("c")
        with pytest.raises(CommandError, match=no_c):
            await run.runtime.enable("c")
        with pytest.raises(CommandError, match="there is a source a already: remove it first"):
            await run.runtime.add(chain_of(beeps("a")))
        await run.runtime.disable("a")
        with pytest.raises(CommandError, match="a is disabled: enable it"):
            await run.runtime.restart("a")

    play(run, steps)

    async def when_over() -> None:
        with pytest.raises(CommandError, match="only be changed while they run"):
            await run.runtime.add(chain_of(beeps("c")))
        with pytest.raises(CommandError, match="only be changed while they run"):
            await run.runtime.remove("a")

    asyncio.run(when_over())


def a_file(secs: float) -> ThreadedSource:
    return ThreadedSource(ListReader([started(["audio"]), *sound(0, secs)]))


def test_a_run_that_can_be_asked_goes_on_without_sources_that_were_taken_away() -> None:
    run = Run(beeps("a"), beeps("b"))

    async def scenario() -> None:
        async with run.running() as task:
            await run.runtime.disable("a")
            await run.runtime.remove("b")
            await run.runtime.remove("a")
            await asyncio.sleep(0.02)
            assert not task.done()
            await run.runtime.add(chain_of(a_file(1)))
            async with asyncio.timeout(5):
                await task  # all sources that are left have ended by themselves

    asyncio.run(scenario())
    assert run.told("cam") == BEEPED


@pytest.mark.parametrize("can_be_asked", [False, True])
def test_a_disabled_source_is_waited_for_only_where_it_can_be_enabled(
    *, can_be_asked: bool
) -> None:
    go_on = threading.Event()

    async def file(_: int) -> AsyncIterator[MediaItem]:
        await until(go_on.is_set)
        yield started(["audio"])
        for item in sound(0, 1):
            yield item

    run = Run(
        beeps("a"), ScriptedSource(file, live=False), inlets=[Silent()] if can_be_asked else []
    )

    async def scenario() -> None:
        async with run.running() as task:
            await run.runtime.disable("a")
            go_on.set()
            await until(lambda: run.told("cam") == BEEPED)
            await asyncio.wait([task], timeout=0.1 if can_be_asked else 5)
            assert task.done() is not can_be_asked

    asyncio.run(scenario())


def test_a_source_that_hangs_on_is_told_and_touches_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(roster, "CLOSE_SECS", 0.05)
    let_go = asyncio.Event()

    class Clinging(ScriptedSource):
        @asynccontextmanager
        async def stream(self) -> AsyncIterator[AsyncIterator[MediaItem]]:
            async with super().stream() as items:
                try:
                    yield items
                finally:
                    await let_go.wait()

    async def beep(_: int) -> AsyncIterator[MediaItem]:
        yield started(["audio"], source="a", clock_offset_ns=0)
        for item in sound(0, 1, source="a"):
            yield item
        await asyncio.Event().wait()

    run = Run(Clinging(beep, name="a"), beeps("b"))

    async def steps() -> None:
        await run.beeped("a")
        with pytest.raises(CommandError, match=r"a cannot be closed within 0\.05 s"):
            await run.runtime.disable("a")
        await run.runtime.restart("b")
        let_go.set()
        await run.runtime.remove("a")
        assert run.told("a") == BEEPED

    play(run, steps)


def test_a_name_is_free_when_the_worker_is_done_with_what_had_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passage, "DRAIN_SECS", 0.02)
    monkeypatch.setattr(roster, "SCORED_SECS", 0.02)
    go_on = threading.Event()

    def stand_still(one: Hop) -> Mapping[str, Series]:
        if one.index > 42:
            go_on.wait(20)
        return steady(0.9)(one)

    run = Run(beeps("a"), script=Script(stand_still))

    async def steps() -> None:
        await run.beeped("a")
        await until(lambda: len(run.script.given) == 4)
        await run.runtime.remove("a")
        assert run.told("a") == BEEPED
        with pytest.raises(CommandError, match="still being scored"):
            await run.runtime.add(chain_of(beeps("a")))
        go_on.set()
        monkeypatch.setattr(roster, "SCORED_SECS", 5)
        await run.runtime.add(chain_of(beeps("a")))
        await run.beeped("a", 2)

    play(run, steps)
    assert run.told("a") == [*BEEPED, ("start", None), ("end", "shutdown")]


class Stuck(MemorySink):
    """Takes nothing before it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = asyncio.Event()

    async def publish(self, message: Published) -> None:
        await self.let_go.wait()
        await super().publish(message)


def test_a_sink_that_hangs_holds_up_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "LEAVE_SECS", 0.1)
    sink = Stuck()
    run = Run(beeps("a"), sink=sink)

    async def steps() -> None:
        await until(lambda: len(run.script.given) >= 3)
        await run.runtime.restart("a")
        await run.runtime.disable("a")
        await run.runtime.enable("a")
        await run.runtime.remove("a")
        sink.let_go.set()

    play(run, steps)
    assert run.told("a")[:2] == BEEPED


def test_requests_at_once_are_carried_out_one_after_the_other() -> None:
    source = beeps("a")
    run = Run(source, beeps("b"))

    async def steps() -> None:
        await run.beeped("a")
        await asyncio.gather(*(run.runtime.restart("a") for _ in range(5)))
        await run.beeped("b")
        await until(lambda: source.n_opened >= 2)

    play(run, steps)
    assert run.sink.contents(Health)[-1].source in ("a", "b")
    restarts = {one.source: one.restarts for one in run.sink.contents(Health)}
    assert restarts == {"a": 5, "b": 0}


def test_a_live_source_among_files_makes_the_run_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmstream.runtime.outlet.MAX_QUEUED", 1)
    sink = Stuck()
    run = Run(a_file(30), sink=sink)

    async def steps() -> None:
        await until(lambda: len(run.script.given) >= 3)  # the file waits for the sink
        await run.runtime.add(chain_of(beeps("b")))
        await until(lambda: any(one.source == "b" for one in run.runtime.statuses()))
        await until(lambda: run.runtime.stages()[-2].dropped.total() > 2)
        sink.let_go.set()

    play(run, steps)


def set_before(source: str, feature: str, value: str) -> Override:
    return Override(source, feature, value, 0, "mqtt home/a/set")


def test_a_source_that_was_disabled_before_stays_so_until_it_is_enabled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    a = beeps("a")
    run = Run(a, beeps("b"), overrides=[set_before("a", "enabled", "OFF")])

    async def steps() -> None:
        await run.beeped("b")
        await run.runtime.started(5)
        assert (a.n_opened, run.told("a")) == (0, [])
        assert run.states("a") == [("offline", "disabled")]
        await run.runtime.enable("a")
        await run.beeped("a")

    play(run, steps)
    [warning] = [one.getMessage() for one in caplog.records if one.name.endswith("roster")]
    when = "1970-01-01T00:00:00.000Z"
    assert warning == f"a: enabled is OFF, as was set at {when} by mqtt home/a/set"


def test_what_was_set_before_holds_from_the_first_event_on() -> None:
    overrides = [set_before("a", "beep", "OFF"), set_before("b", "beep_threshold", "0.95")]
    odd = [set_before("c", "beep", "maybe"), set_before("c", "person", "OFF")]
    run = Run(beeps("a"), beeps("b"), beeps("c"), overrides=[*overrides, *odd])

    async def steps() -> None:
        await run.beeped("c")
        features = {one.source: one.features for one in run.sink.contents(Features)}
        assert [one.text() for one in features["a"]] == ["ON", "ON", "ON", "OFF", "0.5"]
        assert [one.text() for one in features["b"]] == ["ON", "ON", "ON", "ON", "0.95"]
        assert not [one for one in features["c"] if one.is_set]
        hops = {hop.source for hop, _ in run.script.given}
        assert {"a", "b"} <= hops

    play(run, steps)
    assert run.told("a") == run.told("b") == []


class TaughtScorer(ScriptedScorer):
    """Has been taught to see flashes while it runs."""

    def score(self, hops: Sequence[Hop], so_far: Sequence[Scores], load: Load) -> Sequence[Scores]:
        return [replace(one, learned=(FLASH,)) for one in super().score(hops, so_far, load)]


class TaughtScript(Script):
    """Its spec, which knows of beeps only."""

    def build(self, device: str) -> TaughtScorer:  # noqa: ARG002 - not computed
        return TaughtScorer(self)


def test_what_is_taught_while_it_runs_is_told_and_can_be_set() -> None:
    run = Run(beeps("a"), script=TaughtScript(steady(0.9, FLASH)))

    def names() -> list[str]:
        told = run.sink.contents(Features)
        return [one.name for one in told[-1].features] if told else []

    async def steps() -> None:
        await run.beeped("a")
        await until(lambda: "flash_threshold" in names())
        roster_of = run.runtime._roster  # noqa: SLF001 - as a request would
        await roster_of.set("a", "flash", value=False, by="somebody")
        await until(lambda: ("end", "disabled") in run.told("a"))

    play(run, steps)
    events = run.sink.contents(Event)
    assert {one.label for one in events} == {"flash"}
    assert len([one for one in run.sink.contents(Features) if "flash" in str(one)]) == 1


def test_what_is_taught_of_a_stream_that_is_switched_off_falls_silent() -> None:
    off = [set_before("a", "video", "OFF")]
    run = Run(beeps("a"), script=TaughtScript(steady(0.9, FLASH)), overrides=off)

    async def steps() -> None:
        await until(lambda: ("end", "disabled") in run.told("a"))

    play(run, steps)
    assert run.told("a") == [("start", None), ("end", "disabled")]
