"""A spool whose thread and disk do what a test says, step by step."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from stores import ROOMY

from mmstream.clock import ManualClock
from mmstream.errors import DiskFullError, StoreCorruptError, StoreError
from mmstream.messages import Published
from mmstream.metrics import StageMetrics
from mmstream.sinks import spool as module
from mmstream.sinks import spool_disk
from mmstream.sinks.spool import Spool
from mmstream.store.store import Spooled


class SteppedThread:
    """In the place of `OwnThread`: what is submitted waits for `step`."""

    def __init__(self, _name: str) -> None:
        self._work: list[Callable[[], None]] = []

    def submit(self, work: Callable[[], object]) -> Future[object]:
        future: Future[object] = Future()

        def do() -> None:
            try:
                future.set_result(work())
            except StoreError as error:
                future.set_exception(error)

        self._work.append(do)
        return future

    async def do(self, work: Callable[[], object]) -> object:
        future = asyncio.wrap_future(self.submit(work))
        await self.step()
        return await future

    def end(self) -> None: ...

    async def step(self) -> bool:
        """Do what was submitted first, and let the loop hear of it; whether there was anything."""
        if not self._work:
            return False
        await asyncio.to_thread(self._work.pop(0))
        for _ in range(4):
            await asyncio.sleep(0)
        return True


class ListStore:
    """In the place of `Store`: a list that may be full."""

    opened = SimpleNamespace(set_aside=None, is_alone=False, was_left_open=False)

    def __init__(self, *_: object, now_ns: int) -> None:
        assert now_ns >= 0
        self.metrics = StageMetrics("store")
        self.is_full = False
        self.n_files = 1
        self.rows: list[Spooled] = []
        self.delivered: set[int] = set()
        self.is_cut = False
        """The start of the event was let go."""
        self.is_damaged = False
        """Until it is opened again, as a new one."""

    def append(self, messages: Sequence[Published], *, now_ns: int) -> tuple[int | None, ...]:
        self._look(now_ns)
        if self.is_cut:
            return (None,) * len(messages)
        keys = range(len(self.rows) + 1, len(self.rows) + 1 + len(messages))
        self.rows += [Spooled(key, one) for key, one in zip(keys, messages, strict=True)]
        return tuple(keys)

    def waiting(self, *, after_key: int, limit: int) -> tuple[Spooled, ...]:
        left = (one for one in self.rows[after_key:] if one.key not in self.delivered)
        return tuple(left)[:limit]

    def n_waiting(self) -> int:
        return len(self.rows) - len(self.delivered)

    def used_bytes(self) -> int:
        return 0

    def mark_delivered(self, keys: Iterable[int]) -> None:
        self._look(0)
        self.delivered.update(keys)

    def newest_ns(self) -> int:
        return 0

    def evict(self, *, now_ns: int, knows_age: bool) -> bool:
        assert not knows_age, "nobody has waited so long"
        self._look(now_ns)
        return False

    def close(self) -> None:
        if self.is_damaged:
            self.is_damaged = False
            self.n_files += 1
            self.rows.clear()
            self.delivered.clear()

    def _look(self, _now_ns: int) -> None:
        if self.is_damaged:
            msg = "damaged"
            raise StoreCorruptError(msg)
        if self.is_full:
            msg = "full"
            raise DiskFullError(msg)


@contextmanager
def stepped() -> Iterator[tuple[Spool, SteppedThread, ListStore]]:
    """Timers fire at once."""
    thread, store = SteppedThread("store"), ListStore(now_ns=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "OwnThread", lambda _: thread)
        patch.setattr(spool_disk, "Store", lambda *_, **__: store)
        patch.setattr(spool_disk, "_file_at", lambda _: (0, store.n_files))
        for name in ("TIDY_SECS", "RETRY_SECS"):
            patch.setattr(module, name, 0.0)
        yield Spool(Path("list.db"), ROOMY, ManualClock()), thread, store
