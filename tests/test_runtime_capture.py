"""A blocking reader on a thread of its own: nothing lost of files, live never held up."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

import pytest
from streams import Blank, ListReader, chunk, frame, pictures, started, until

from mmstream.errors import SourceError
from mmstream.media import AudioChunk, MediaItem, SourceStarted, StreamBound, VideoFrame
from mmstream.metrics import StageMetrics
from mmstream.runtime import capture, handoff
from mmstream.runtime.capture import ThreadedSource


class Reader:
    """A reader made of any generator."""

    name = "cam"
    metrics: Sequence[StageMetrics] = ()

    def __init__(self, items: Iterator[MediaItem], *, live: bool = False) -> None:
        self.live = live
        self._items = items

    @contextmanager
    def read(self) -> Iterator[Iterator[MediaItem]]:
        yield self._items


async def collect(source: ThreadedSource) -> list[MediaItem]:
    async with source.stream() as items:
        return [item async for item in items]


def instants(items: Sequence[MediaItem]) -> list[int]:
    return [item.start_ns for item in items if isinstance(item, AudioChunk | VideoFrame)]


def counts(source: ThreadedSource) -> StageMetrics:
    return source.metrics[-1]


def in_thread(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_all_items_come_in_order_then_the_end() -> None:
    reader = ListReader([started(), *pictures(0, 1)])
    source = ThreadedSource(reader)
    assert (source.name, source.live) == ("cam", False)
    items = asyncio.run(collect(source))
    assert items == [started(), *pictures(0, 1)]
    assert (counts(source).name, counts(source).n_in, counts(source).n_out) == (
        "capture/cam",
        21,
        21,
    )
    assert reader.n_closed == 1


@pytest.mark.parametrize("live", [False, True])
def test_an_error_comes_after_all_items_before_it(*, live: bool) -> None:
    source = ThreadedSource(ListReader([started(), frame(0), SourceError("torn off")], live=live))
    got = []

    async def scenario() -> None:
        async with source.stream() as items:
            async for item in items:
                got.append(item)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(SourceError, match="torn off"):
        asyncio.run(scenario())
    assert got == [started(), frame(0)]


def test_an_error_in_opening_is_raised() -> None:
    class Unplugged(ListReader):
        @contextmanager
        def read(self) -> Iterator[Iterator[MediaItem]]:
            if not self.n_opened:
                msg = "no such camera"
                raise SourceError(msg)
            yield iter(())

    with pytest.raises(SourceError, match="no such camera"):
        asyncio.run(collect(ThreadedSource(Unplugged([]))))


def test_the_reader_is_opened_read_and_closed_on_one_named_thread() -> None:
    seen: list[str] = []

    class Noting(ListReader):
        @contextmanager
        def read(self) -> Iterator[Iterator[MediaItem]]:
            seen.append(threading.current_thread().name)
            try:
                yield iter([started()])
            finally:
                seen.append(threading.current_thread().name)

    asyncio.run(collect(ThreadedSource(Noting([]))))
    assert seen == ["cam.capture"] * 2


def test_a_file_waits_for_room_and_loses_nothing() -> None:
    items: list[MediaItem] = [started(), *pictures(0, 100)]
    source = ThreadedSource(ListReader(items))

    async def scenario() -> list[MediaItem]:
        async with source.stream() as stream:
            await until(lambda: counts(source).n_in == handoff.MAX_ITEMS)
            await asyncio.sleep(0.02)  # were it not held back, it would be far ahead by now
            assert counts(source).n_in == handoff.MAX_ITEMS
            return [item async for item in stream]

    assert asyncio.run(scenario()) == items
    assert not counts(source).dropped


def test_a_live_reader_is_never_held_up_and_evictions_are_counted() -> None:
    items: list[MediaItem] = [started(), *pictures(0, 100)]
    reader = ListReader(items, live=True)
    source = ThreadedSource(reader)

    async def scenario() -> list[MediaItem]:
        async with source.stream() as stream:
            await until(lambda: reader.n_closed == 1)
            return [item async for item in stream]

    got = asyncio.run(scenario())
    assert got == [started(), *items[-(handoff.MAX_ITEMS - 1) :]]  # the start stays, the oldest go
    assert counts(source).dropped == {"loop_behind": len(items) - handoff.MAX_ITEMS}
    assert counts(source).n_in == len(items)


def test_a_newer_start_takes_the_place_of_an_older_one() -> None:
    again = started(utc_offset_ns=5)
    bound = StreamBound("cam", "video", 0)
    items: list[MediaItem | Exception] = [started(), frame(0), again, *[bound] * 300]
    reader = ListReader(items, live=True)
    source = ThreadedSource(reader)

    async def scenario() -> list[MediaItem]:
        async with source.stream() as stream:
            await until(lambda: reader.n_closed == 1)
            return [item async for item in stream]

    got = asyncio.run(scenario())
    assert [item for item in got if isinstance(item, SourceStarted)] == [again]
    assert got[0] == again
    assert len(got) == handoff.MAX_ITEMS


@pytest.mark.parametrize("live", [False, True])
def test_pixels_that_wait_are_bounded_in_bytes(
    monkeypatch: pytest.MonkeyPatch, *, live: bool
) -> None:
    monkeypatch.setattr(handoff, "MAX_BYTES", 10_000)
    items: list[MediaItem] = [started(), *pictures(0, 2, nbytes=1_000), chunk(0, 2_500)]
    reader = ListReader(items, live=live)
    source = ThreadedSource(reader)

    async def scenario() -> list[MediaItem]:
        async with source.stream() as stream:
            await until(lambda: counts(source).n_in == (len(items) if live else 11))
            if not live:
                await asyncio.sleep(0.02)
                assert counts(source).n_in == 11
            return [item async for item in stream]

    got = asyncio.run(scenario())
    if live:
        # 9 pictures are below the limit: one more and the chunk may come.
        assert got == [started(), *items[-10:]]
        assert counts(source).dropped == {"loop_behind": 31}
    else:
        assert got == items


def test_a_picture_above_the_limit_still_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handoff, "MAX_BYTES", 10_000)
    items: list[MediaItem] = [started(), *pictures(0, 1, nbytes=50_000)]
    assert asyncio.run(collect(ThreadedSource(ListReader(items)))) == items


N_STRESS = 20_000


def stamped(n: int) -> Iterator[MediaItem]:
    image = Blank()
    for index in range(n):
        yield VideoFrame("cam", index, image)


def test_a_fast_file_comes_whole_and_in_order() -> None:
    source = ThreadedSource(Reader(stamped(N_STRESS)))
    assert instants(asyncio.run(collect(source))) == list(range(N_STRESS))
    assert counts(source).n_in == counts(source).n_out == N_STRESS
    assert not counts(source).dropped


def test_a_fast_live_source_comes_in_order_and_what_is_missing_is_counted() -> None:
    source = ThreadedSource(Reader(stamped(N_STRESS), live=True))
    got = instants(asyncio.run(collect(source)))
    assert got == sorted(set(got))
    assert got[-1] == N_STRESS - 1
    assert len(got) + counts(source).dropped["loop_behind"] == N_STRESS
    assert len(got) == counts(source).n_out


def test_no_wake_up_is_lost() -> None:
    """Each item only follows when the one before has arrived: a lost wake-up would be the end."""
    arrived = threading.Semaphore(1)

    def one_by_one() -> Iterator[MediaItem]:
        for item in stamped(3_000):
            assert arrived.acquire(timeout=10)
            yield item

    async def scenario(source: ThreadedSource) -> int:
        n = 0
        async with source.stream() as items:
            async for _ in items:
                n += 1
                arrived.release()
        return n

    assert asyncio.run(asyncio.wait_for(scenario(ThreadedSource(Reader(one_by_one()))), 10)) == 3000


def test_others_get_their_turn_while_a_live_backlog_is_taken() -> None:
    reader = ListReader(pictures(0, 5), live=True)

    async def take(items: AsyncIterator[MediaItem]) -> None:
        async for _ in items:
            pass

    async def scenario() -> int:
        n_turns = 0
        async with ThreadedSource(reader).stream() as items:
            await until(lambda: reader.n_closed == 1)
            taking = asyncio.create_task(take(items))
            while not taking.done():
                await asyncio.sleep(0)
                n_turns += 1
        return n_turns

    assert asyncio.run(scenario()) >= 100


@pytest.mark.parametrize("live", [False, True])
def test_a_reader_notices_that_nobody_listens(*, live: bool) -> None:
    closed = threading.Event()

    class Endless(ListReader):
        @contextmanager
        def read(self) -> Iterator[Iterator[MediaItem]]:
            try:
                yield (frame(index) for index in range(10**9))
            finally:
                closed.set()

    async def scenario() -> None:
        source = ThreadedSource(Endless([], live=live))
        async with source.stream() as items:
            assert isinstance(await anext(items), VideoFrame)
            await until(lambda: counts(source).n_in > handoff.MAX_ITEMS)  # it waits for room

    asyncio.run(scenario())
    assert closed.wait(5)
    assert in_thread("cam.capture") == []


@pytest.mark.parametrize("ends", [False, True])
def test_a_read_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch, *, ends: bool) -> None:
    monkeypatch.setattr(capture, "JOIN_SECS", 0.05)
    let_go = threading.Event()

    def hanging() -> Iterator[MediaItem]:
        yield frame(0)
        let_go.wait(10)
        if not ends:
            yield frame(1)

    async def scenario() -> None:
        async with ThreadedSource(Reader(hanging())).stream() as items:
            await anext(items)

    before = time.monotonic()
    asyncio.run(scenario())
    assert time.monotonic() - before < 5  # far below the 10 s of the read
    [thread] = in_thread("cam.capture")
    assert thread.daemon
    let_go.set()  # the loop is gone: the thread must end without a word
    thread.join(5)
    assert not thread.is_alive()


def test_it_can_be_opened_again() -> None:
    source = ThreadedSource(ListReader([frame(0)], [frame(1)]))

    async def scenario() -> list[MediaItem]:
        return [*await collect(source), *await collect(source)]

    assert asyncio.run(scenario()) == [frame(0), frame(1)]


def test_being_cancelled_while_it_waits_closes_the_reader() -> None:
    waiting = threading.Event()
    let_go = threading.Event()

    def quiet() -> Iterator[MediaItem]:
        yield frame(0)
        waiting.set()
        let_go.wait(0.2)

    async def scenario() -> None:
        task = asyncio.create_task(collect(ThreadedSource(Reader(quiet()))))
        await until(waiting.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert in_thread("cam.capture") == []

    asyncio.run(scenario())


def test_reads_that_hang_are_counted_and_so_many_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "JOIN_SECS", 0.01)
    monkeypatch.setattr(capture, "MAX_ABANDONED", 2)
    let_go = threading.Event()

    class Hanging(ListReader):
        @contextmanager
        def read(self) -> Iterator[Iterator[MediaItem]]:
            self.n_opened += 1
            yield (frame(0) for _ in range(1) if let_go.wait(20))

    reader = Hanging([], live=True)
    source = ThreadedSource(reader)

    async def give_up() -> None:
        async with asyncio.timeout(5), source.stream():
            await until(lambda: len(in_thread("cam.capture")) > counts(source).dropped.total())

    async def scenario() -> None:
        await give_up()
        await give_up()
        with pytest.raises(SourceError, match="2 reads of it hang"):
            await give_up()
        assert (reader.n_opened, counts(source).dropped) == (2, {"reader_abandoned": 2})
        let_go.set()
        await until(lambda: in_thread("cam.capture") == [])
        assert len(await collect(source)) == 1

    asyncio.run(scenario())
