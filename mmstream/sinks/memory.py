"""A sink that keeps messages in memory, for tests and notebooks."""

import asyncio
from collections import deque
from typing import Final, TypeVar

from mmstream.messages import Content, Published
from mmstream.metrics import StageMetrics

N_KEPT: Final = 10_000
"""Messages that are kept unless told otherwise."""

_Kind = TypeVar("_Kind", bound=Content)


class MemorySink:
    """The last messages, oldest first."""

    name = "memory"

    def __init__(self, n_kept: int = N_KEPT) -> None:
        """Keep the last `n_kept` messages; older ones are let go and counted as `evicted`."""
        self.metrics = StageMetrics(self.name)
        self._messages: deque[Published] = deque(maxlen=n_kept)
        self._closed = asyncio.Event()

    @property
    def messages(self) -> tuple[Published, ...]:
        """What is kept, oldest first."""
        return tuple(self._messages)

    def contents(self, kind: type[_Kind]) -> tuple[_Kind, ...]:
        """What the kept messages of one kind say, oldest first."""
        return tuple(m.content for m in self._messages if isinstance(m.content, kind))

    async def publish(self, message: Published) -> None:
        """Keep a message."""
        self.metrics.n_in += 1
        if len(self._messages) == self._messages.maxlen:
            self.metrics.drop("evicted")
        self._messages.append(message)
        self.metrics.n_out += 1

    async def ready(self, timeout_secs: float) -> None:
        """At once."""

    async def run(self) -> None:
        """Wait for `close`; keeping needs no help."""
        await self._closed.wait()

    async def close(self) -> None:
        """Let `run` return; the messages stay."""
        self._closed.set()
