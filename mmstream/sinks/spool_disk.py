"""The store of a spool, used on one thread; and the records of what is on its way to it."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar

from mmstream.clock import Clock
from mmstream.errors import StoreCorruptError, StoreError
from mmstream.media import NS_PER_SEC
from mmstream.messages import Published
from mmstream.metrics import StageMetrics
from mmstream.sinks.spool_calendar import Calendar
from mmstream.store.database import refusal
from mmstream.store.event_log import EventLog
from mmstream.store.eviction import Limits
from mmstream.store.store import Spooled, Store

NS_PER_DAY: Final = 86_400 * NS_PER_SEC
LARGE_STEP: Final = 10
"""A clock that is set by less than this part of `Limits.max_age_ns` changes no age that matters."""

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

    Every method but the first may raise `StoreError`, and `StateError` where there is a defect.
    """

    def __init__(self, path: Path, limits: Limits, clock: Clock, metrics: StageMetrics) -> None:
        """Nothing is opened yet."""
        self.path = path
        self._limits = limits
        self._clock = clock
        self._metrics = metrics
        self.n_waiting = 0
        self.used_bytes = 0
        self.was_left_open = False
        """Nobody let go of the file before us: it may be damaged unseen."""
        self.is_alone = False
        """Nobody else can read the file now."""
        self._store: Store | None = None
        self._calendar: Calendar | None = None
        self.n_files = 0
        """That were opened so far: another one when the first was damaged or removed."""
        self._file: tuple[int, int] | None = None
        """Device and number of the one that was opened last."""
        self._is_damaged = False

    def open(self) -> int:
        """Gives how many messages wait."""
        self.n_waiting, self.used_bytes = self.ask(_size)
        return self.n_waiting

    def open_events(self, boot_id: str) -> tuple[Published, ...]:
        """As `Store.open_events`."""
        return self.ask(lambda store: store.open_events(boot_id))

    def do(self, work: Callable[[Store], _Result]) -> _Result:
        """Have something done with the store."""
        store = self._opened()
        try:
            return work(store)
        except StoreCorruptError:
            self.condemn(self.n_files)
            raise

    def ask(self, work: Callable[[Store], _Result]) -> _Result:
        """Have something read; of a damaged file that is what a new one says."""
        try:
            return self.do(work)
        except StoreCorruptError:
            return self.do(work)

    def append(self, messages: Sequence[Published]) -> tuple[Row | None, ...]:
        """Where each is now; None for one that must not leave."""
        keys = self.do(lambda store: store.append(messages, now_ns=self._now_ns(store)))
        rows = tuple(None if key is None else Row(self.n_files, key) for key in keys)
        if self._store is not None and self._store.opened.is_alone:
            self.let_go()  # there is room again: opened anew, others can read it too
        return rows

    def read(self, after_key: int, limit: int) -> tuple[Slip, ...]:
        """The oldest that wait behind `after_key`."""
        found = self.do(lambda store: store.waiting(after_key=after_key, limit=limit))
        rows = (Row(self.n_files, one.key) for one in found)
        return tuple(map(_read_slip, found, rows))

    def tidy(self, delivered: Sequence[Row]) -> bool:
        """Mark what is delivered and let go of what is too old; whether there is more of that."""
        self._look_whether_it_is_there()
        self._mark(delivered)
        is_more = self.do(self._evict)
        self.open()
        return is_more

    def look_through(self) -> tuple[str, ...]:
        """What is wrong with the file, a line each; on any thread, and takes long."""
        log = EventLog(self.path)
        try:
            return log.check()
        finally:
            log.close()

    def condemn(self, n_file: int) -> None:
        """This file is damaged: opened again, it is set aside. Nothing when that has happened."""
        if n_file == self.n_files:
            self._is_damaged = True
            self.let_go()

    def close(self, delivered: Sequence[Row]) -> int:
        """Mark what is delivered and let the file go; gives how many messages wait."""
        try:
            self._mark(delivered)
            return self.do(Store.n_waiting)
        finally:
            self.let_go()

    def _mark(self, delivered: Sequence[Row]) -> None:
        self._opened()  # it may be another file by now
        keys = [row.key for row in delivered if row.n_file == self.n_files]
        self.do(lambda store: store.mark_delivered(keys))

    def _evict(self, store: Store) -> bool:
        now_ns = self._now_ns(store)
        is_steady = self._calendar is not None and self._calendar.is_steady
        return store.evict(now_ns=now_ns, knows_age=is_steady)

    def _now_ns(self, store: Store) -> int:
        """What was stored by a clock that has been set since is made to follow it."""
        if self._calendar is None:
            self._calendar = Calendar(self._clock, store.newest_ns())
        step_ns = self._calendar.step_ns()
        is_large = abs(step_ns) > self._limits.max_age_ns // LARGE_STEP
        if is_large:
            store.count_ages_anew(step_ns)
            said = "the clock was set by %+.1f days: what %s has of this run is dated anew"
            _log.warning(said, step_ns / NS_PER_DAY, self.path)
        self._calendar.follow(step_ns, is_large=is_large)
        return self._calendar.now_ns()

    def _opened(self) -> Store:
        if self._store is None:
            self._make_folder()
            now_ns, is_damaged = self._clock.utc_ns(), self._is_damaged
            store = Store(self.path, self._limits, now_ns=now_ns, is_damaged=is_damaged)
            self._is_damaged = False
            aside = store.opened.set_aside
            if aside is not None:
                new = "%s was damaged: what could not be read is in %s, and a new one is begun"
                _log.error(new, self.path, aside)
            file = _file_at(self.path)
            if file is None or file != self._file:
                self._count_file(store)
            self._file = file
            store.metrics = self._metrics  # counted on over files
            self.is_alone = store.opened.is_alone
            self._store = store
        return self._store

    def _count_file(self, store: Store) -> None:
        self.n_files += 1
        self.was_left_open = store.opened.was_left_open
        if self.n_waiting:  # in the one before
            self._metrics.drop("file_lost", self.n_waiting)

    def _look_whether_it_is_there(self) -> None:
        """Nobody else would notice before the next start that what is written is nowhere."""
        if self._store is not None and _file_at(self.path) is None:
            gone = "%s was removed while it was in use, with %d messages that wait; it is made anew"
            _log.error(gone, self.path, self.n_waiting)
            self.let_go()
            self._file = None  # the new one may get its number

    def _make_folder(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"{self.path}: its folder cannot be made: {error.strerror}"
            raise refusal(error, msg) from None

    def let_go(self) -> None:
        """Close the file; nothing when it is."""
        if self._store is not None:
            self._store.close()
        self._store = None


def in_words(error: Exception, path: Path) -> str:
    """One line of it; ours name the file themselves."""
    if isinstance(error, StoreError):
        return str(error)
    return f"{path}: {type(error).__name__}: {error}"


def _file_at(path: Path) -> tuple[int, int] | None:
    """None: there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError:  # a disk in trouble says more about it elsewhere
        return 0, 0
    return found.st_dev, found.st_ino


def _size(store: Store) -> tuple[int, int]:
    return store.n_waiting(), store.used_bytes()


def _read_slip(spooled: Spooled, row: Row) -> Slip:
    return Slip(spooled.message, told=lambda _: None, place="disk", row=row)
