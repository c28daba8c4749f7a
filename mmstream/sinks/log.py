"""The event log of those who have no broker: kept on disk, and sent nowhere."""

import asyncio

from mmstream.messages import Published
from mmstream.metrics import StageMetrics
from mmstream.sinks.spool import Spool
from mmstream.sinks.spool_disk import Slip


class LogSink:
    """Keeps what must arrive as history: a broker that comes later does not get it."""

    name = "log"

    def __init__(self, spool: Spool) -> None:
        """The spool is open, and somebody else closes it."""
        self.metrics = StageMetrics(self.name)
        """What the disk does not take is counted by the spool."""
        self._spool = spool
        self._closed = asyncio.Event()

    async def publish(self, message: Published) -> None:
        """Write a message, soon."""
        self.metrics.n_in += 1
        if message.content.must_arrive:
            self._spool.keep(message, self._told)
        self.metrics.n_out += 1

    async def ready(self, timeout_secs: float) -> None:
        """At once."""

    async def run(self) -> None:
        """Wait for `close`."""
        await self._closed.wait()

    async def close(self) -> None:
        """Let `run` return; the spool writes what is left."""
        self._closed.set()

    def _told(self, slip: Slip) -> None:
        """Only what is on disk needs no more care: the rest is tried again, or lost and counted."""
        if slip.place == "disk":
            self._spool.delivered(slip)
