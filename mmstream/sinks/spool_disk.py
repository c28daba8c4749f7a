"""The store of a spool, used on one thread; and the records of what is on its way to it."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from mmstream.clock import Clock
from mmstream.errors import StoreCorruptError, StoreError
from mmstream.messages import Published
from mmstream.metrics import StageMetrics
from mmstream.store.eviction import Limits
from mmstream.store.store import Spooled, Store

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Row:
    """Where a message is in the store."""

    n_file: int
    """Which file since the start: another one when the first had to be set aside."""
    key: int


@dataclass(eq=False, slots=True)
class Slip:
    """A message on its way to the disk, and what became of it."""

    message: Published
    told: Callable[["Slip"], None]
    """Called on the loop when `place` has changed."""
    place: Literal["under_way", "disk", "memory", "nowhere"] = "under_way"
    """`memory`: the disk does not take it now. `nowhere`: the start of the event was let go, so
    that this must not leave either."""
    row: Row | None = None
    is_delivered: bool = False


class Disk:
    """The store, opened when it is needed and again when the file was damaged.

    Every method but the first may raise `StoreError`.
    """

    def __init__(self, path: Path, limits: Limits, clock: Clock, metrics: StageMetrics) -> None:
        """Nothing is opened yet."""
        self.path = path
        self._limits = limits
        self._clock = clock
        self._metrics = metrics
        self.n_waiting = 0
        self.used_bytes = 0
        self._store: Store | None = None
        self._n_files = 0

    def open(self) -> int:
        """Gives how many messages wait."""
        store = self._opened()
        self.n_waiting, self.used_bytes = store.n_waiting(), store.used_bytes()
        return self.n_waiting

    def open_events(self, boot_id: str) -> tuple[Published, ...]:
        """As `Store.open_events`."""
        return self._opened().open_events(boot_id)

    def do(self, work: Callable[[Store], _Result]) -> _Result:
        """Have something done with the store."""
        store = self._opened()
        try:
            return work(store)
        except StoreCorruptError:
            self.let_go()  # opened again, it is set aside
            raise

    def append(self, messages: Sequence[Published]) -> tuple[Row | None, ...]:
        """Where each is now; None for one that must not leave."""
        now_ns = self._clock.utc_ns()
        keys = self.do(lambda store: store.append(messages, now_ns=now_ns))
        return tuple(None if key is None else Row(self._n_files, key) for key in keys)

    def read(self, after_key: int, limit: int) -> tuple[Slip, ...]:
        """The oldest that wait behind `after_key`."""
        found = self._opened().waiting(after_key=after_key, limit=limit)
        rows = (Row(self._n_files, one.key) for one in found)
        return tuple(map(_read_slip, found, rows))

    def tidy(self, delivered: Sequence[Row]) -> bool:
        """Mark what is delivered and let go of what is too old; whether there is more of that."""
        self._mark(delivered)
        is_more = self._opened().evict(now_ns=self._clock.utc_ns())
        self.open()
        return is_more

    def close(self, delivered: Sequence[Row]) -> int:
        """Mark what is delivered and let the file go; gives how many messages wait."""
        try:
            self._mark(delivered)
            return self._opened().n_waiting()
        finally:
            self.let_go()

    def _mark(self, delivered: Sequence[Row]) -> None:
        store = self._opened()
        store.mark_delivered([row.key for row in delivered if row.n_file == self._n_files])

    def _opened(self) -> Store:
        if self._store is None:
            self._make_folder()
            store = Store(self.path, self._limits, now_ns=self._clock.utc_ns())
            if store.set_aside is not None:
                aside = "%s was damaged: what could not be read is in %s, and a new one is begun"
                _log.error(aside, self.path, store.set_aside)
            self._metrics.dropped.update(store.metrics.dropped)
            store.metrics = self._metrics  # counted on over files
            self._store = store
            self._n_files += 1
        return self._store

    def _make_folder(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"{self.path}: its folder cannot be made: {error.strerror}"
            raise StoreError(msg) from None

    def let_go(self) -> None:
        """Close the file; nothing when it is."""
        if self._store is not None:
            self._store.close()
        self._store = None


def _read_slip(spooled: Spooled, row: Row) -> Slip:
    return Slip(spooled.message, told=lambda _: None, place="disk", row=row)
