"""Requests from outside: understood, carried out in order, answered, logged."""

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager

import pytest
from pydantic import JsonValue
from streams import Script, ScriptedSource, beeping, beeps, chain_of, steady, until

from mmstream.clock import SystemClock
from mmstream.errors import ConfigError, DiskFullError, SourceError
from mmstream.media import MediaItem
from mmstream.messages import Event, Features, Info, Request, Response
from mmstream.runtime import control, log_level, roster
from mmstream.runtime.chain import Chain
from mmstream.runtime.control import Difference
from mmstream.runtime.graph import Graph
from mmstream.runtime.local import LocalRuntime
from mmstream.sinks.memory import MemorySink
from mmstream.store.overrides import Acknowledgement, Override
from mmstream.worker import WorkerSettings

LOG = "mmstream.runtime.control"
ABOUT_ALL = "acknowledge is about the whole node: leave out the source"
NO_LOG = "this run keeps no event log (`store: false`): nothing can be acknowledged"


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


class Notes:
    """A keeper that remembers, or whose disk is full (fits `Keeper`)."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.is_full = False

    async def keep(self, override: Override) -> None:
        self._write(f"{override.source} {override.feature} {override.value} by {override.by}")

    async def forget(self, source: str, feature: str | None) -> None:
        self._write(f"forget {source} {feature or 'all'}")

    async def acknowledge(self, event_id: str, by: str) -> Acknowledgement | None:
        self._write(f"seen {event_id} by {by}")
        if event_id != "e1":
            return None
        return Acknowledgement(event_id, "a", "beep", is_open=True, at_ns=0, by=by)

    def _write(self, line: str) -> None:
        if self.is_full:
            msg = "the disk is full"
            raise DiskFullError(msg)
        self.log.append(line)


class Run:
    """A run with the sources `a` and `b` that can be asked."""

    def __init__(self, *, book: Book | None, notes: Notes | None = None) -> None:
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
            keeper=notes,
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

    async def set(self, source: str, feature: str, value: JsonValue) -> Response:
        arguments: JsonValue = {"feature": feature, "value": value}
        return await self.ask("set", json.dumps({"source": source, "arguments": arguments}))

    def told(self, source: str, feature: str) -> list[str]:
        """How a feature was said to be set, each time."""
        return [
            one.text()
            for told in self.sink.contents(Features)
            for one in told.features
            if (told.source, one.name) == (source, feature)
        ]

    def ended(self, source: str) -> list[str | None]:
        """Why its events ended."""
        events = self.sink.contents(Event)
        return [one.end_reason for one in events if one.source == source and one.type == "end"]

    async def ask(self, verb: str, payload: str = "") -> Response:
        """Ask and wait for the answer."""
        n = len(self.sink.contents(Response))
        self.asker.asked.put_nowait(Request(verb, payload, by="me"))
        await until(lambda: len(self.sink.contents(Response)) > n)
        return self.sink.contents(Response)[n]

    def sources(self) -> list[str]:
        return [one.source for one in self.runtime.statuses()]


def play(
    steps: Callable[[Run], Awaitable[None]],
    *,
    book: Book | None = None,
    notes: Notes | None = None,
) -> Run:
    run = Run(book=book, notes=notes)

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
        "disable a: offline: disabled (by me)",
        "enable a: online: streaming (by me)",
        "restart a: online: streaming (by me)",
        "add door: online: streaming (by me)",
        "remove b: offline: removed (by me)",
    ]


@pytest.fixture
def _same_log_level_as_before() -> Iterator[None]:
    ours = logging.getLogger("mmstream")
    before = ours.level
    yield
    ours.setLevel(before)


@pytest.mark.usefixtures("_same_log_level_as_before")
def test_the_log_level_is_selected_told_kept_and_taken_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def steps(run: Run) -> None:
        assert run.sink.contents(Info)[-1].log_level == "warning"
        answer = await run.ask("log_level", '{"arguments": {"level": "debug"}}')
        assert answer.result == {"level": "debug", "persisted": True}
        assert run.sink.contents(Info)[-1].log_level == "debug"
        assert (await run.ask("log_level", '{"arguments": {"level": "info"}}')).status == "ok"
        assert run.sink.contents(Info)[-1].log_level == "info"
        assert logging.getLogger("mmstream.any").isEnabledFor(logging.INFO)

    notes = Notes()
    play(steps, notes=notes)
    assert notes.log == [" log_level debug by me", " log_level info by me"]
    assert logged(caplog) == ["log_level: debug (by me)", "log_level: info (by me)"]

    log_level.select("warning")
    log_level.restore(
        [Override("", "log_level", "debug", 0, "me"), Override("", "x", "info", 0, "")]
    )
    assert log_level.current() == "debug"
    log_level.restore([Override("", "log_level", "trace", 0, "")])  # of another version
    assert log_level.current() == "debug"
    assert "log level debug, as was set at 1970-01-01T00:00:00.000Z by me" in caplog.messages


def test_an_answer_does_not_wait_for_ever_for_a_source_to_start() -> None:
    async def steps(run: Run) -> None:
        answer = await run.ask("add", '{"source": "door", "arguments": {"type": "dead"}}')
        assert answer.status == "ok"
        assert answer.result == {"state": "offline", "reason": "connection refused"}

    play(steps, book=Book())


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        ('{"transaction": "t1", "shape": 1}', "t1"),
        ('{"transaction": "t2", "source": 7}', "t2"),
        ('{"transaction": "t3", "arguments": {"value": NaN}}', "t3"),
        ('{"transaction": 4}', ""),
        ('{"transaction": "\\ud800"}', ""),
        ("[1]", ""),
        ("{", ""),
        ("[" * 5000, ""),
    ],
)
def test_whoever_asks_in_vain_is_answered_by_the_transaction(payload: str, name: str) -> None:
    async def steps(run: Run) -> None:
        answer = await run.ask("info", payload)
        assert (answer.status, answer.transaction) == ("error", name)

    play(steps)


@pytest.mark.parametrize(
    ("source", "of"),
    [
        ("x\nmmstream: set a: beep OFF (by me)", None),
        ("\x1b[2J\r\u2028", None),
        ("x" * 60_000, None),
        ("a", "a"),
    ],
)
def test_nobody_writes_a_line_of_his_own_into_the_log(
    source: str, of: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def steps(run: Run) -> None:
        arguments: JsonValue = {"feature": "hop", "value": "ON"}
        asked = json.dumps({"source": source, "arguments": arguments})
        answer = await run.ask("set", asked)
        assert len(answer.error or "") < 200
        odd = await run.ask("set", json.dumps({source * 2: 1}))
        assert odd.status == "error"

    play(steps)
    lines = logged(caplog)
    assert len(lines) == 2
    assert all(line.isprintable() and len(line) < 1200 for line in lines)
    assert lines[0].startswith("set a: " if of else "set '")
    assert [getattr(one, "source", "") for one in caplog.records if one.name == LOG] == [of, None]


@pytest.mark.parametrize(
    ("verb", "payload", "error"),
    [
        (
            "dance",
            "",
            (
                "nobody knows the request 'dance'; allowed: "
                "info, health, add, remove, enable, disable, restart, set, acknowledge, snapshot, "
                "reload, log_level"
            ),
        ),
        (
            "snapshot",
            '{"source": "a"}',
            "this run takes no snapshots; allowed: `snapshots: {}` in the configuration",
        ),
        ("snapshot", '{"source": "c"}', "no source 'c'; there are: a, b"),
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
        ("acknowledge", '{"source": "a", "arguments": {"event": "e"}}', ABOUT_ALL),
        ("acknowledge", "", "acknowledge needs these arguments and no others: event"),
        ("acknowledge", '{"arguments": {"event": "e1"}}', NO_LOG),
        ("set", "", "set needs these arguments and no others: feature, value"),
        (
            "set",
            '{"arguments": {"feature": "beep", "value": "ON"}}',
            "set needs a source; there are: a, b",
        ),
        (
            "set",
            '{"source": "c", "arguments": {"feature": "beep", "value": "ON"}}',
            "no source 'c'; there are: a, b",
        ),
        (
            "set",
            '{"source": "a", "arguments": {"feature": "hop", "value": "ON"}}',
            "no feature 'hop'; there are: enabled, video, audio, beep, beep_threshold",
        ),
        (
            "set",
            '{"source": "a", "arguments": {"feature": "beep_threshold", "value": 0}}',
            (
                "beep_threshold cannot be 0; allowed: 0.05 to 1, "
                "or nothing for what the configuration says"
            ),
        ),
        (
            "log_level",
            '{"arguments": {"level": "loud"}}',
            "level cannot be 'loud'; allowed: debug, info, warning",
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
    assert line.endswith(f"{error} (by me)".replace("\n", "; "))


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
            "only a restart of the program takes in worker.device, node (by me)"
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
    assert logged(caplog) == ["reload: home.yaml:3:5: sources.a.fps: 0; allowed: 1..240 (by me)"]


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


def test_what_is_set_is_applied_kept_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    notes = Notes()

    async def steps(run: Run) -> None:
        assert run.told("a", "beep") == ["ON"]
        done = await run.set("a", "beep", "OFF")
        assert done.result == {"feature": "beep", "value": "OFF", "is_set": True, "persisted": True}
        assert run.told("a", "beep") == ["ON", "OFF"]
        await until(lambda: run.ended("a") == ["disabled"])
        assert (await run.set("a", "beep", "")).result == {
            "feature": "beep",
            "value": "ON",
            "is_set": False,
            "persisted": True,
        }
        assert run.told("a", "beep") == ["ON", "OFF", "ON"]
        assert (await run.set("b", "beep_threshold", "0.25")).result["value"] == "0.25"
        assert (run.ended("b"), run.a.n_opened) == ([], 1)  # nothing was opened again

    play(steps, notes=notes)
    assert notes.log == ["a beep OFF by me", "forget a beep", "b beep_threshold 0.25 by me"]
    assert logged(caplog) == [
        "set a: beep OFF (by me)",
        "set a: beep ON, as the configuration says (by me)",
        "set b: beep_threshold 0.25 (by me)",
    ]


def test_to_enable_and_disable_is_to_set_and_to_remove_is_to_forget() -> None:
    notes = Notes()

    async def steps(run: Run) -> None:
        await run.ask("disable", '{"source": "a"}')
        assert run.told("a", "enabled") == ["ON", "OFF"]
        refused = await run.ask("restart", '{"source": "a"}')
        assert refused.error == "a is disabled: enable it"
        await run.set("a", "enabled", value=True)
        await until(lambda: run.a.n_opened == 2)
        await run.set("a", "enabled", "OFF")
        await run.set("a", "enabled", None)
        await until(lambda: run.a.n_opened == 3)
        await run.ask("remove", '{"source": "a"}')

    play(steps, notes=notes)
    enabled = [f"a enabled {value} by me" for value in ("OFF", "ON", "OFF")]
    assert notes.log == [*enabled, "forget a enabled", "forget a all"]


def test_a_stream_that_is_off_silences_what_needs_it() -> None:
    async def steps(run: Run) -> None:
        await run.set("a", "video", "OFF")
        assert (await run.set("a", "audio", "OFF")).status == "ok"
        await until(lambda: run.ended("a") == ["disabled"])
        assert run.ended("b") == []

    play(steps)


def test_a_source_that_takes_the_place_of_another_is_set_as_that_was() -> None:
    book = Book()
    book.difference = Difference((), (chain_of(beeps("a")),), ())

    async def steps(run: Run) -> None:
        await run.set("a", "beep", "OFF")
        await run.ask("reload")
        assert run.told("a", "beep") == ["ON", "OFF", "OFF"]
        await run.ask("remove", '{"source": "a"}')
        await run.ask("add", '{"source": "a", "arguments": {"type": "beep"}}')
        assert run.told("a", "beep")[3:] == ["ON"]

    play(steps, book=book)


@pytest.mark.parametrize("notes", [None, Notes()], ids=["no_log", "full_disk"])
def test_what_cannot_be_kept_holds_until_the_end_and_says_so(
    notes: Notes | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def steps(run: Run) -> None:
        if notes is not None:
            notes.is_full = True
        done = await run.set("a", "beep", "OFF")
        assert (done.status, done.result["persisted"]) == ("ok", False)
        assert run.told("a", "beep")[-1] == "OFF"
        assert (await run.ask("remove", '{"source": "a"}')).status == "ok"
        seen = await run.ask("acknowledge", '{"arguments": {"event": "e1"}}')
        assert seen.status == "error"
        assert seen.error == ("not written down: the disk is full" if notes else NO_LOG)

    play(steps, notes=notes)
    errors = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    forgotten = "what was set of a is not forgotten: the disk is full"
    unkept = "a: a restart will not know how beep is set: the disk is full"
    assert errors == ([unkept, forgotten] if notes else [])


def test_an_event_is_acknowledged(caplog: pytest.LogCaptureFixture) -> None:
    async def steps(run: Run) -> None:
        done = await run.ask("acknowledge", '{"arguments": {"event": "e1"}}')
        assert done.result == {
            "event": "e1",
            "source": "a",
            "label": "beep",
            "is_open": True,
            "by": "me",
            "acknowledged": "1970-01-01T00:00:00.000Z",
        }
        unknown = await run.ask("acknowledge", '{"arguments": {"event": 7}}')
        assert unknown.error == "no event '7' in the event log; give the `id` of one"

    play(steps, notes=Notes())
    assert logged(caplog)[0] == "acknowledge: event e1 (beep of a) (by me)"


def test_what_is_told_is_kept_already() -> None:
    kept = asyncio.Event()

    class Slow(Notes):
        async def keep(self, override: Override) -> None:
            await kept.wait()
            await super().keep(override)

    async def steps(run: Run) -> None:
        setting = asyncio.create_task(run.set("a", "beep", "OFF"))
        await until(lambda: run.ended("a") == ["disabled"])
        assert run.told("a", "beep") == ["ON"]
        assert not setting.done()
        kept.set()
        await setting
        assert run.told("a", "beep") == ["ON", "OFF"]

    play(steps, notes=Slow())
