import asyncio

import pytest
from sink_messages import event, health, published

from mmstream.messages import Event, Health
from mmstream.sinks.memory import MemorySink


def test_keeps_messages_in_order_and_sorts_them_by_kind() -> None:
    first, middle, last = published(event("a"), 0), published(health()), published(event("b"), 1)

    async def session() -> MemorySink:
        sink = MemorySink()
        for message in (first, middle, last):
            await sink.publish(message)
        return sink

    sink = asyncio.run(session())
    assert sink.messages == (first, middle, last)
    assert [content.id for content in sink.contents(Event)] == ["a", "b"]
    assert sink.contents(Health) == (middle.content,)


@pytest.mark.parametrize(("n_kept", "n_evicted"), [(1, 4), (4, 1), (5, 0)])
def test_is_bounded_and_counts_what_it_lets_go(n_kept: int, n_evicted: int) -> None:
    messages = [published(event(str(i)), i) for i in range(5)]

    async def session() -> MemorySink:
        sink = MemorySink(n_kept)
        for message in messages:
            await sink.publish(message)
        return sink

    sink = asyncio.run(session())
    assert sink.messages == tuple(messages[-n_kept:])
    assert sink.metrics.dropped["evicted"] == n_evicted
    assert (sink.metrics.n_in, sink.metrics.n_out) == (5, 5)


def test_run_ends_with_close() -> None:
    async def session() -> None:
        sink = MemorySink()
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(sink.run())
            await sink.close()

    asyncio.run(session())
