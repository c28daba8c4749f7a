"""A thread for work that may hang: a disk, a pipe that nobody reads, a terminal that is held."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

_Result = TypeVar("_Result")


class OwnThread:
    """Does one piece of work after the other, beside the loop.

    It is a daemon: unlike the threads of `concurrent.futures`, which are joined at exit, one that
    hangs holds nobody up. What waits is bounded by those who submit it: see `n_waiting`.
    """

    def __init__(self, name: str) -> None:
        """The thread starts with the first work."""
        self._name = name
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def n_waiting(self) -> int:
        """Work not begun, also such as nobody waits for any more."""
        return self._work.qsize()

    def submit(self, work: Callable[[], _Result]) -> Future[_Result]:
        """Do it after all that was submitted before."""
        future: Future[_Result] = Future()
        self._work.put(lambda: _settle(future, work))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        return future

    async def do(self, work: Callable[[], _Result]) -> _Result:
        """The same, and wait for what comes of it; cancelled, it is done all the same if begun."""
        return await asyncio.wrap_future(self.submit(work))

    def end(self) -> None:
        """Let the thread end after what was submitted; nothing may follow."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


def _settle(future: Future[_Result], work: Callable[[], _Result]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 - whoever waits raises it
        future.set_exception(error)
