"""What people have set and seen, kept in the event log (fits `runtime.features.Keeper`)."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, TypeVar

from mmstream.clock import Clock
from mmstream.errors import StoreError
from mmstream.sinks.spool import Spool
from mmstream.store.overrides import Acknowledgement, Override
from mmstream.store.store import Store

PATIENCE_SECS: Final = 2.0
"""A disk that has not written it by then counts as broken; it may still write it."""

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class Ledger:
    """Writes through a spool, after the events that came before; called on the loop."""

    def __init__(self, spool: Spool, clock: Clock) -> None:
        """The spool is open, and somebody else closes it."""
        self._spool = spool
        self._clock = clock

    async def overrides(self) -> tuple[Override, ...]:
        """What was set, also in earlier boots."""
        try:
            return await self._do(Store.overrides)
        except StoreError as error:
            _log.error("what was set before is not known, all is as configured: %s", error)
            return ()

    async def keep(self, override: Override) -> None:
        """Write down what somebody has set; on disk when it returns.

        Raises:
            StoreError: it could not be written.
        """
        await self._do(lambda store: store.keep_override(override))

    async def forget(self, source: str, feature: str | None) -> None:
        """Forget what was set of a feature, or of all of a source's.

        Raises:
            StoreError: it could not be written.
        """
        await self._do(lambda store: store.drop_overrides(source, feature))

    async def acknowledge(self, event_id: str, by: str) -> Acknowledgement | None:
        """Note that somebody has seen an event; the first time counts. None: no such event.

        Raises:
            StoreError: it could not be written.
        """
        now_ns = self._clock.utc_ns()
        return await self._do(lambda store: store.acknowledge(event_id, by, now_ns=now_ns))

    async def _do(self, work: Callable[[Store], _Result]) -> _Result:
        try:
            async with asyncio.timeout(PATIENCE_SECS):
                return await self._spool.do(work)
        except TimeoutError:
            msg = f"{self._spool.path}: the disk does not answer"
            raise StoreError(msg) from None
