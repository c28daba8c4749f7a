"""A webcam and a microphone as one source: what is there goes on, what is missing is told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from streams import ListReader, ScriptedSource, chunk_ms, frame, ms, started, until

from mmstream.errors import ConfigError, SourceError
from mmstream.media import (
    AudioChunk,
    MediaItem,
    SourceStarted,
    SourceSynced,
    StreamKind,
    VideoFrame,
)
from mmstream.metrics import StageMetrics
from mmstream.runtime import backoff, handoff, joined, watch
from mmstream.runtime.capture import ThreadedSource
from mmstream.runtime.joined import JoinedSource

Script = Callable[[int], AsyncIterator[MediaItem]]


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_RETRY_SECS", 0.005)
    monkeypatch.setattr(backoff, "SOON_SECS", 0.005)
    monkeypatch.setattr(watch, "MIN_WATCH_SECS", 0.01)


def hurry_stalls(monkeypatch: pytest.MonkeyPatch, stall: float, reopen: float) -> None:
    monkeypatch.setattr(watch, "STALL_SECS", stall)
    monkeypatch.setattr(watch, "REOPEN_SECS", reopen)


class Heard:
    """Takes a joined source in a task of its own and keeps what came."""

    def __init__(self, *scripts: Script) -> None:
        self.parts = [ScriptedSource(script) for script in scripts]
        self.source = JoinedSource("cam", self.parts)
        self.items: list[MediaItem] = []
        self.error: SourceError | None = None

    @property
    def starts(self) -> list[tuple[str, tuple[str, ...]]]:
        """(streams, missing) as they were told."""
        return [
            ("+".join(sorted(one.streams)), one.missing)
            for one in self.items
            if isinstance(one, SourceStarted)
        ]

    def n_of(self, kind: type[MediaItem]) -> int:
        return sum(isinstance(one, kind) for one in self.items)

    @property
    def counts(self) -> StageMetrics:
        return self.source.metrics[-1]

    async def _take(self) -> None:
        try:
            async with self.source.stream() as items:
                async for item in items:
                    self.items.append(item)
        except SourceError as error:
            self.error = error

    @asynccontextmanager
    async def taking(self) -> AsyncIterator[None]:
        """On the way out everything must be closed soon, with no task left."""
        task = asyncio.create_task(self._take())
        try:
            yield
        finally:
            async with asyncio.timeout(2):
                task.cancel()
                await asyncio.wait([task])
            names = {one.get_name() for one in asyncio.all_tasks()}
            assert not {name for name in names if name.startswith("cam.")}

    def play(self, condition: Callable[[], bool]) -> None:
        async def scenario() -> None:
            async with self.taking():
                await until(lambda: condition() or self.error is not None)

        asyncio.run(scenario())


async def streaming(kind: StreamKind, n_items: int = 10**6) -> AsyncIterator[MediaItem]:
    yield started([kind], clock_offset_ns=0)
    for index in range(n_items):
        at = 20.0 * index
        yield chunk_ms(at, at + 20) if kind == "audio" else frame(ms(at))
        await asyncio.sleep(0.001)


async def nothing() -> AsyncIterator[MediaItem]:
    await asyncio.Event().wait()
    yield frame(0)


async def refused(reason: str) -> AsyncIterator[MediaItem]:
    if reason:
        raise SourceError(reason)
    yield frame(0)


def test_both_parts_are_one_source_whose_start_comes_first() -> None:
    heard = Heard(lambda _: streaming("video"), lambda _: streaming("audio"))
    heard.play(lambda: heard.n_of(VideoFrame) > 5 and heard.n_of(AudioChunk) > 5)
    assert heard.starts == [("audio+video", ())]
    assert heard.items[0] == started(clock_offset_ns=0)
    assert not heard.counts.dropped


def test_they_are_synced_when_all_parts_are() -> None:
    go_on = {kind: asyncio.Event() for kind in ("video", "audio")}

    async def unsynced(kind: StreamKind) -> AsyncIterator[MediaItem]:
        yield replace(started([kind], clock_offset_ns=0), synced=False)
        await go_on[kind].wait()
        yield SourceSynced("cam")
        async for item in streaming(kind):
            if not isinstance(item, SourceStarted):
                yield item

    heard = Heard(lambda _: unsynced("video"), lambda _: unsynced("audio"))

    async def scenario() -> None:
        async with heard.taking():
            await until(lambda: len(heard.items) == 1)
            go_on["video"].set()
            await until(lambda: heard.n_of(VideoFrame) > 0)
            assert heard.n_of(SourceSynced) == 0
            go_on["audio"].set()
            await until(lambda: heard.n_of(AudioChunk) > 0)

    asyncio.run(scenario())
    assert heard.items[0] == replace(started(clock_offset_ns=0), synced=False)
    assert heard.n_of(SourceSynced) == 1


def test_it_starts_with_what_there_is_when_the_other_fails() -> None:
    heard = Heard(lambda _: streaming("video"), lambda _: refused("there is no microphone"))
    heard.play(lambda: heard.n_of(VideoFrame) > 20)
    assert heard.starts == [("video", ("there is no microphone",))]
    assert heard.parts[1].n_opened > 1  # it is tried again, and that is not told each time


def test_it_waits_for_a_slow_part_and_loses_nothing_meanwhile() -> None:
    async def slow(_: int) -> AsyncIterator[MediaItem]:
        await until(lambda: len(heard.source.metrics) > 0 and heard.parts[0].n_opened == 1)
        await asyncio.sleep(0.05)
        async for item in streaming("audio"):
            yield item

    heard = Heard(lambda _: streaming("video"), slow)
    heard.play(lambda: heard.n_of(VideoFrame) > 20 and heard.n_of(AudioChunk) > 0)
    assert heard.starts == [("audio+video", ())]
    instants = [one.start_ns for one in heard.items if isinstance(one, VideoFrame)]
    assert instants == [ms(20 * index) for index in range(len(instants))]


def test_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "SLOW_SECS", 0.05)
    monkeypatch.setattr(joined, "MAX_HELD", 4)
    monkeypatch.setattr(watch, "STALL_SECS", 0.6)
    let_go = asyncio.Event()

    async def slow(_: int) -> AsyncIterator[MediaItem]:
        await let_go.wait()
        async for item in streaming("audio"):
            yield item

    heard = Heard(lambda _: streaming("video"), slow)

    async def scenario() -> None:
        async with heard.taking():
            await until(lambda: heard.n_of(VideoFrame) > 5)
            assert heard.starts == [("video", ("a part is still being opened",))]
            let_go.set()
            await until(lambda: heard.n_of(AudioChunk) > 5)

    asyncio.run(scenario())
    assert heard.starts[1:] == [("audio+video", ())]
    n_frames_before = heard.counts.dropped["before_start"]
    first = next(one for one in heard.items if isinstance(one, VideoFrame))
    assert first.start_ns == ms(20 * n_frames_before)  # the oldest made room


def test_a_part_that_is_lost_and_comes_back_is_told() -> None:
    again = asyncio.Event()

    async def unplugged(n: int) -> AsyncIterator[MediaItem]:
        if n == 1:
            async for item in streaming("audio", 5):
                yield item
        if not again.is_set():
            msg = "the microphone was unplugged"
            raise SourceError(msg)
        async for item in streaming("audio"):
            yield item

    heard = Heard(lambda _: streaming("video"), unplugged)

    async def scenario() -> None:
        async with heard.taking():
            await until(lambda: len(heard.starts) == 2)
            n_frames = heard.n_of(VideoFrame)
            await until(lambda: heard.n_of(VideoFrame) > n_frames + 5)
            again.set()
            await until(lambda: len(heard.starts) == 3 and heard.n_of(AudioChunk) > 6)

    asyncio.run(scenario())
    assert heard.starts == [
        ("audio+video", ()),
        ("video", ("the microphone was unplugged",)),
        ("audio+video", ()),
    ]
    assert heard.parts[0].n_opened == 1


def test_a_part_that_just_ends_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_RETRY_SECS", 60)
    monkeypatch.setattr(backoff, "SOON_SECS", 60)
    heard = Heard(lambda _: streaming("video"), lambda _: streaming("audio", 5))
    heard.play(lambda: len(heard.starts) == 2)
    assert heard.starts[1] == ("video", ("audio ended",))


def test_a_defect_of_one_part_is_not_the_others() -> None:
    async def defect(_: int) -> AsyncIterator[MediaItem]:
        yield started(["audio"])
        msg = "rtsp://me:secret@cam"
        raise ZeroDivisionError(msg)

    heard = Heard(lambda _: streaming("video"), defect)
    heard.play(lambda: len(heard.starts) >= 2 and heard.n_of(VideoFrame) > 5)
    assert heard.starts[1] == ("video", ("ZeroDivisionError: rtsp://***@cam",))


def test_a_part_that_says_nothing_is_told_and_told_when_it_speaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hurry_stalls(monkeypatch, 0.1, 30)
    speak = asyncio.Event()

    async def quiet(_: int) -> AsyncIterator[MediaItem]:
        yield started(["audio"], clock_offset_ns=0)
        await speak.wait()
        for index in range(100, 10**6):
            yield chunk_ms(20 * index, 20 * index + 20)
            await asyncio.sleep(0.001)

    heard = Heard(lambda _: streaming("video"), quiet)

    async def scenario() -> None:
        async with heard.taking():
            await until(lambda: len(heard.starts) == 2)
            speak.set()
            await until(lambda: heard.n_of(AudioChunk) > 0)

    asyncio.run(scenario())
    assert heard.starts == [
        ("audio+video", ()),
        ("video", ("no audio for 0.1 s",)),
        ("audio+video", ()),
    ]
    assert heard.parts[1].n_opened == 1


def test_a_part_that_goes_on_saying_nothing_is_opened_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hurry_stalls(monkeypatch, 0.1, 0.2)

    async def quiet(n: int) -> AsyncIterator[MediaItem]:
        yield started(["audio"], clock_offset_ns=0)
        if n == 1:
            await asyncio.Event().wait()
        async for item in streaming("audio"):
            yield item

    heard = Heard(lambda _: streaming("video"), quiet)
    heard.play(lambda: heard.n_of(AudioChunk) > 0)
    assert heard.parts[1].n_opened == 2
    assert heard.starts[-1] == ("audio+video", ())


def test_only_when_no_part_works_it_fails_and_says_why_of_each() -> None:
    heard = Heard(lambda _: refused("no camera"), lambda _: refused("no microphone"))
    heard.play(lambda: False)
    assert str(heard.error) == "no camera; no microphone"
    assert heard.starts == []


def test_it_fails_when_its_last_part_is_lost() -> None:
    heard = Heard(lambda n: _first(n, "video"), lambda _: refused("no microphone"))
    heard.play(lambda: False)
    assert str(heard.error) == "video ended; no microphone"
    assert heard.n_of(VideoFrame) == 5


async def _first(n: int, kind: StreamKind) -> AsyncIterator[MediaItem]:
    async for item in streaming(kind, 5) if n == 1 else refused("gone"):
        yield item


def test_parts_that_hang_in_opening_fail_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry_stalls(monkeypatch, 0.05, 0.1)
    heard = Heard(lambda _: nothing(), lambda _: refused("no microphone"))
    heard.play(lambda: False)
    assert str(heard.error) == "nothing came for 0.1 s; no microphone"


def test_when_both_go_quiet_nothing_is_told_that_the_stall_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hurry_stalls(monkeypatch, 0.05, 0.3)
    heard = Heard(lambda _: _then_quiet("video"), lambda _: _then_quiet("audio"))
    heard.play(lambda: False)
    assert heard.starts == [("audio+video", ())]
    assert str(heard.error) == "nothing came for 0.3 s; nothing came for 0.3 s"


async def _then_quiet(kind: StreamKind) -> AsyncIterator[MediaItem]:
    yield started([kind], clock_offset_ns=0)
    await asyncio.Event().wait()


def test_what_waits_for_the_loop_is_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handoff, "MAX_ITEMS", 8)
    heard = Heard(lambda _: streaming("video", 200), lambda _: streaming("audio"))

    async def scenario() -> None:
        async with heard.source.stream() as items:
            assert isinstance(await anext(items), SourceStarted)
            await until(lambda: heard.counts.dropped["loop_behind"] > 20)

    asyncio.run(scenario())
    left = heard.counts.n_in - heard.counts.n_out - heard.counts.dropped["loop_behind"]
    assert 0 <= left <= 8


def test_threads_of_parts_are_closed_too() -> None:
    def endless(kind: StreamKind) -> Sequence[MediaItem]:
        body: list[MediaItem] = [frame(i) for i in range(50)]
        if kind == "audio":
            body = [chunk_ms(20 * i, 20 * i + 20) for i in range(50)]
        return [started([kind], clock_offset_ns=0), *body]

    readers = [ListReader(endless(kind), live=True) for kind in ("video", "audio")]
    source = JoinedSource("cam", [ThreadedSource(reader) for reader in readers])

    async def scenario() -> list[MediaItem]:
        async with source.stream() as items:
            return [await anext(items) for _ in range(60)]

    assert isinstance(asyncio.run(scenario())[0], SourceStarted)
    assert [reader.n_opened for reader in readers] == [reader.n_closed for reader in readers]
    assert [one.name for one in source.metrics] == ["capture/cam", "capture/cam", "joined/cam"]


def test_parts_of_another_name_or_that_are_not_live_are_refused() -> None:
    for part in (
        ScriptedSource(lambda _: nothing(), name="other"),
        ScriptedSource(lambda _: nothing(), live=False),
    ):
        with pytest.raises(ConfigError, match="cam can only be made of live sources of that name"):
            JoinedSource("cam", [part])


def test_what_a_part_sent_that_was_lost_before_the_start_is_not_told() -> None:
    async def slow(_: int) -> AsyncIterator[MediaItem]:
        await until(lambda: heard.parts[1].n_opened == 2)  # what it sent first is held
        async for item in streaming("video"):
            yield item

    heard = Heard(slow, lambda n: _first(n, "audio"))
    heard.play(lambda: heard.n_of(VideoFrame) > 5)
    assert heard.starts == [("video", ("gone",))]
    assert heard.n_of(AudioChunk) == 0
    assert heard.counts.dropped == {"before_start": 5}
