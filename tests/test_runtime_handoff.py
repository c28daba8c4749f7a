"""Between tasks of one loop; what threads do with it is in test_runtime_capture.py."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from streams import frame, started

from mmstream.errors import SourceError
from mmstream.media import MediaItem
from mmstream.metrics import StageMetrics
from mmstream.runtime import handoff
from mmstream.runtime.handoff import Handoff


async def rest(items: AsyncGenerator[MediaItem]) -> list[MediaItem]:
    return [item async for item in items]


def test_a_lossy_one_never_waits_and_keeps_the_start_of_what_it_keeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handoff, "MAX_ITEMS", 4)
    metrics = StageMetrics("joined/cam")
    again = started(["video"])

    async def scenario() -> list[MediaItem]:
        made = Handoff(asyncio.get_running_loop(), metrics, lossy=True)
        for item in (started(), frame(0), frame(1), frame(2), again, frame(3)):
            assert made.put(item)
        made.end(None)
        return await rest(made.items())

    assert asyncio.run(scenario()) == [started(), frame(2), again, frame(3)]
    assert (metrics.n_in, metrics.n_out, metrics.dropped) == (6, 4, {"loop_behind": 2})


def test_what_was_put_before_an_error_comes_before_it() -> None:
    got: list[MediaItem] = []

    async def scenario() -> None:
        made = Handoff(asyncio.get_running_loop(), StageMetrics("joined/cam"), lossy=True)
        made.put(started())
        made.end(SourceError("torn off"))
        async for item in made.items():
            got.append(item)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(SourceError, match="torn off"):
        asyncio.run(scenario())
    assert got == [started()]


def test_a_closed_one_takes_nothing() -> None:
    async def scenario() -> bool:
        made = Handoff(asyncio.get_running_loop(), StageMetrics("joined/cam"), lossy=True)
        made.close()
        return made.put(started())

    assert asyncio.run(scenario()) is False
