"""Requests from outside: understood, carried out in order, answered, logged."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import pytest
from pydantic import JsonValue
from streams import Script, ScriptedSource, beeping, beeps, chain_of, steady, until

from mmstream.clock import SystemClock
from mmstream.errors import ConfigError, SourceError
from mmstream.media import MediaItem
from mmstream.messages import Event, Info, Request, Response
from mmstream.runtime import control, roster
from mmstream.runtime.chain import Chain
from mmstream.runtime.control import Difference
from mmstream.runtime.local import Graph, LocalRuntime
from mmstream.sinks.memory import MemorySink
from mmstream.worker import WorkerSettings

LOG = "mmstream.runtime.control"


class Asker:
    """An inlet into which the test puts requests."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[Request | Exception] = asyncio.Queue()

    async def requests(self) -> AsyncIterator[Request]:
        while True:
            request = await self.asked.get()
            if isinstance(request, Exception):
                raise request
            yield request


class Book:
    """A blueprint whose settings say what becomes of them."""

    def __init__(self) -> None:
        self.difference: Difference | Exception = Difference((), (), ())
        self.given: list[tuple[str, Mapping[str, JsonValue]]] = []
        self.threads: set[str] = set()
        self.hold = threading.Event()
        self.hold.set()

    def chain(self, name: str, settings: Mapping[str, JsonValue]) -> Chain:
        self.threads.add(threading.current_thread().name)
        self.given.append((name, settings))
        if "type" not in settings:
            msg = "sources.door.type: missing; allowed: beep, dead\nsee rtsp://me:secret@cam"
            raise ConfigError(msg)
        return chain_of(dead(name) if settings["type"] == "dead" else beeps(name))

    def reread(self) -> Difference:
        self.threads.add(threading.current_thread().name)
        self.hold.wait(10)
        if isinstance(self.difference, Exception):
            raise self.difference
        return self.difference


def dead(name: str) -> ScriptedSource:
    async def refuse(n: int) -> AsyncIterator[MediaItem]:
        if n:
            msg = "connection refused"
            raise SourceError(msg)
        async for item in beeping(n):
            yield item

    return ScriptedSource(refuse, name=name)


class Run:
    """A run with the sources `a` and `b` that can be asked."""

    def __init__(self, *, book: Book | None) -> None:
        self.asker = Asker()
        self.sink = MemorySink()
        self.a = beeps("a")
        graph = Graph(
            "home",
            (chain_of(self.a), chain_of(beeps("b"))),
            (Script(steady(0.9)),),
            WorkerSettings(max_batch=1),
            (self.sink,),
            inlets=(self.asker,),
            blueprint=book,
        )
        self.runtime = LocalRuntime(graph, SystemClock(), boot_id="b00t")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.runtime.run())
        try:
            await until(lambda: {one.source for one in self.sink.contents(Event)} == {"a", "b"})
            yield
        finally:
            self.runtime.stop()
            async with asyncio.timeout(5):
                await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def ask(self, verb: str, payload: str = "") -> Response:
        """Ask and wait for the answer."""
        n = len(self.sink.contents(Response))
        self.asker.asked.put_nowait(Request(verb, payload))
        await until(lambda: len(self.sink.contents(Response)) > n)
        return self.sink.contents(Response)[n]

    def sources(self) -> list[str]:
        return [one.source for one in self.runtime.statuses()]


def play(steps: Callable[[Run], Awaitable[None]], *, book: Book | None = None) -> Run:
    run = Run(book=book)

    async def scenario() -> None:
        async with run.running():
            await steps(run)

    asyncio.run(scenario())
    return run


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOG]


def test_info_says_who_we_are_and_health_how_the_sources_are() -> None:
    async def steps(run: Run) -> None:
        answer = await run.ask("info", '{"transaction": "t1"}')
        assert (answer.verb, answer.transaction, answer.status) == ("info", "t1", "ok")
        assert (answer.result["node"], answer.result["boot_id"]) == ("home", "b00t")
        labels: list[JsonValue] = ["beep"]
        sources = [{"id": "a", "labels": labels}, {"id": "b", "labels": labels}]
        assert answer.result["sources"] == sources
        health = (await run.ask("health")).result
        assert list(health) == ["a", "b"]
        one = (await run.ask("health", '{"source": "b"}')).result
        assert list(one) == ["b"]
        assert isinstance(one["b"], dict)
        assert one["b"]["state"] == "online"
        assert {"reason", "since", "synced", "restarts"} < one["b"].keys()

    play(steps)


def test_sources_are_changed_by_request_and_each_change_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def steps(run: Run) -> None:
        online: dict[str, JsonValue] = {"state": "online", "reason": "streaming"}
        disabled: dict[str, JsonValue] = {"state": "offline", "reason": "disabled"}
        assert (await run.ask("disable", '{"source": "a"}')).result == disabled
        assert (await run.ask("enable", '{"source": "a"}')).result == online
        assert (await run.ask("restart", '{"source": "a"}')).result == online
        assert run.a.n_opened == 3
        added = await run.ask("add", '{"source": "door", "arguments": {"type": "beep"}}')
        assert added.result == online
        assert run.sources() == ["a", "b", "door"]
        removed: dict[str, JsonValue] = {"state": "offline", "reason": "removed"}
        assert (await run.ask("remove", '{"source": "b"}')).result == removed
        assert run.sources() == ["a", "door"]

    book = Book()
    run = play(steps, book=book)
    assert book.given == [("door", {"type": "beep"})]
    assert not [name for name in book.threads if name == threading.main_thread().name]
    assert len(run.sink.contents(Info)) == 3
    assert logged(caplog) == [
        "disable a: offline: disabled",
        "enable a: online: streaming",
        "restart a: online: streaming",
        "add door: online: streaming",
        "remove b: offline: removed",
    ]


def test_an_answer_does_not_wait_for_ever_for_a_source_to_start() -> None:
    async def steps(run: Run) -> None:
        answer = await run.ask("add", '{"source": "door", "arguments": {"type": "dead"}}')
        assert answer.status == "ok"
        assert answer.result == {"state": "offline", "reason": "connection refused"}

    play(steps, book=Book())


@pytest.mark.parametrize(
    ("verb", "payload", "error"),
    [
        (
            "dance",
            "",
            (
                "nobody knows the request 'dance'; allowed: "
                "info, health, add, remove, enable, disable, restart, reload"
            ),
        ),
        ("disable", "", "disable needs a source; there are: a, b"),
        ("disable", '{"source": "c"}', "no source 'c'; there are: a, b"),
        ("health", '{"source": "c"}', "no source 'c'; there are: a, b"),
        ("enable", '{"source": "a", "arguments": {"x": 1}}', "enable takes no arguments"),
        ("info", '{"source": "a"}', "info is about the whole node: leave out the source"),
        ("reload", '{"source": "a"}', "reload is about the whole node: leave out the source"),
        (
            "add",
            '{"source": "a", "arguments": {"type": "beep"}}',
            "there is a source a already: remove it first, or give another name",
        ),
        (
            "add",
            '{"source": "door"}',
            "sources.door.type: missing; allowed: beep, dead\nsee rtsp://***@cam",
        ),
        ("info", "[1]", "the payload is no JSON object"),
        (
            "info",
            '{"shape": 1}',
            "shape: Extra inputs are not permitted; allowed: transaction, source, arguments",
        ),
    ],
)
def test_what_cannot_be_done_says_what_can(
    verb: str, payload: str, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def steps(run: Run) -> None:
        answer = await run.ask(verb, payload)
        assert (answer.verb, answer.status, answer.error) == (verb, "error", error)
        assert answer.result == {}
        assert (await run.ask("info")).status == "ok"

    run = play(steps, book=Book())
    assert len(run.sink.contents(Info)) == 1  # nothing has come or gone
    [line] = logged(caplog)
    assert line.startswith(verb)
    assert line.endswith(error.replace("\n", "; "))


def test_without_a_blueprint_nothing_is_added_or_read_again() -> None:
    async def steps(run: Run) -> None:
        assert not run.runtime.can_reload
        added = await run.ask("add", '{"source": "door", "arguments": {"type": "beep"}}')
        assert added.error == "this run cannot take in sources"
        reloaded = await run.ask("reload")
        assert reloaded.error == "this run has no configuration that could be read again"

    play(steps)


def test_a_configuration_read_again_is_applied_and_told(caplog: pytest.LogCaptureFixture) -> None:
    book = Book()
    book.difference = Difference(
        ("b", "gone long ago"),
        (chain_of(beeps("a")), chain_of(beeps("door"))),
        ("worker.device", "node"),
    )

    async def steps(run: Run) -> None:
        answer = await run.ask("reload", '{"transaction": "t"}')
        assert answer.result == {
            "added": ["door"],
            "changed": ["a"],
            "removed": ["b"],
            "ignored": ["worker.device", "node"],
        }
        assert run.sources() == ["a", "door"]
        book.difference = Difference((), (), ())
        run.runtime.reload_soon()  # SIGHUP does this
        await until(lambda: len(logged(caplog)) == 2)

    run = play(steps, book=book)
    assert run.a.n_opened == 1  # another source has its name now
    assert len(run.sink.contents(Response)) == 1
    assert logged(caplog) == [
        (
            "reload: added door; changed a; removed b; "
            "only a restart of the program takes in worker.device, node"
        ),
        "reload: nothing has changed",
    ]


def test_a_wrong_configuration_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    book = Book()
    book.difference = ConfigError("home.yaml:3:5: sources.a.fps: 0; allowed: 1..240")

    async def steps(run: Run) -> None:
        answer = await run.ask("reload")
        assert answer.error == "home.yaml:3:5: sources.a.fps: 0; allowed: 1..240"
        assert run.sources() == ["a", "b"]

    play(steps, book=book)
    assert logged(caplog) == ["reload: home.yaml:3:5: sources.a.fps: 0; allowed: 1..240"]


def test_what_cannot_be_applied_keeps_nothing_else_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(roster, "CLOSE_SECS", 0.02)
    let_go = asyncio.Event()

    class Clinging(ScriptedSource):
        @asynccontextmanager
        async def stream(self) -> AsyncIterator[AsyncIterator[MediaItem]]:
            async with super().stream() as items:
                try:
                    yield items
                finally:
                    await let_go.wait()

    async def nothing(_: int) -> AsyncIterator[MediaItem]:
        await asyncio.Event().wait()
        async for item in beeping(0):
            yield item

    book = Book()
    book.difference = Difference(("stuck",), (chain_of(beeps("door")),), ())

    async def steps(run: Run) -> None:
        await run.runtime.add(chain_of(Clinging(nothing, name="stuck")))
        await asyncio.sleep(0)
        answer = await run.ask("reload")
        assert answer.error == (
            "stuck cannot be closed within 0.02 s: try again later (else done: added door)"
        )
        assert "door" in run.sources()
        let_go.set()

    play(steps, book=book)


def test_requests_are_carried_out_in_order_and_a_slow_one_stops_no_stream() -> None:
    book = Book()
    book.hold.clear()

    async def steps(run: Run) -> None:
        for request in (Request("reload", '{"transaction": "1"}'), Request("info", "")):
            run.asker.asked.put_nowait(request)
        await until(lambda: bool(book.threads))
        await run.runtime.restart("a")  # meanwhile everything goes on
        await until(lambda: run.a.n_opened == 2)
        assert run.sink.contents(Response) == ()
        book.hold.set()
        await until(lambda: len(run.sink.contents(Response)) == 2)

    run = play(steps, book=book)
    assert [one.verb for one in run.sink.contents(Response)] == ["reload", "info"]


def test_a_defect_in_a_request_is_answered_and_stops_nothing() -> None:
    book = Book()
    book.difference = ZeroDivisionError("rtsp://me:secret@cam")

    async def steps(run: Run) -> None:
        assert (await run.ask("reload")).error == "ZeroDivisionError: rtsp://***@cam"
        assert (await run.ask("info")).status == "ok"

    play(steps, book=book)


def test_an_inlet_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def steps(run: Run) -> None:
        run.asker.asked.put_nowait(KeyError("a defect"))
        await until(lambda: bool(logged(caplog)))
        await run.runtime.restart("a")

    with caplog.at_level(logging.ERROR):
        play(steps)
    assert logged(caplog) == ["no more requests are heard: KeyError: 'a defect'"]


def test_requests_that_wait_are_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(control, "MAX_WAITING", 2)
    book = Book()
    book.hold.clear()

    async def steps(run: Run) -> None:
        run.runtime.reload_soon()
        await until(lambda: bool(book.threads))
        for _ in range(3):  # one is being carried out, two wait
            run.runtime.reload_soon()
        assert logged(caplog) == ["not read again: 2 requests wait"]
        book.hold.set()
        await until(lambda: len(logged(caplog)) == 4)

    play(steps, book=book)
