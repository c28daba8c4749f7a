"""The event log beside the loop: what must arrive is on disk before it leaves.

    keep -> [unwritten] -> one transaction for all that has come together -> told "disk"
                      `--> the disk is full, broken or hangs              -> told "memory"
    read  <- what waits on disk
    delivered -> marked on disk, a few times a second

What the disk does not take is told at once, so that it goes on from memory, and is tried again
until it is written: then it is told once more.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from pydantic import Field

from mmstream.clock import Clock
from mmstream.config import Settings
from mmstream.errors import DiskFullError, StoreError
from mmstream.messages import Published
from mmstream.metrics import StageMetrics
from mmstream.sinks.own_thread import OwnThread
from mmstream.sinks.spool_disk import NS_PER_DAY, Disk, Row, Slip, in_words
from mmstream.store.eviction import Limits
from mmstream.store.store import Store

PATIENCE_SECS: Final = 1.0
"""What a disk has not taken by then goes on from memory; it may still be written."""
LAST_PATIENCE_SECS: Final = 0.25
"""The same at the end: the broker must have time for it."""
RETRY_SECS: Final = 1.0
"""How soon a disk that refused is tried again."""
TIDY_SECS: Final = 0.2
"""How soon deliveries are marked: after `kill -9` those of this time come twice."""
AGE_SECS: Final = 600.0
"""How often what is too old is let go where nothing is said."""
OPEN_SECS: Final = 60.0
"""A disk that has not let us in by then hangs: nobody would know why nothing starts."""
READ_TRIES: Final = 3
"""How often a disk is asked for what waits before all else goes on without that."""
READ_SECS: Final = 5.0
"""How long it is waited for each time: a disk that hangs does not say that it does."""
CLOSE_SECS: Final = 0.5
"""A disk that hangs holds `close` up for no longer than this."""
MAX_BATCH: Final = 256
"""Messages in one transaction."""
MAX_ASKED: Final = 64
"""Pieces of work that may wait for a disk that hangs; what is asked for then is refused."""
MAX_UNWRITTEN: Final = 10_000
"""Messages that wait for the disk; the oldest are not tried again."""

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class StoreSettings(Settings):
    """The event log on disk: nothing that must arrive is lost in an outage or a crash."""

    path: str | None = Field(None, min_length=1)
    """A file on a local disk, for this node alone; `$XDG_STATE_HOME/mmstream/<node>.db`, in
    `~/.local/state`, when left out."""
    max_age_days: float = Field(30, gt=0, le=3650)
    """What is older is let go."""
    max_mb: int = Field(500, ge=1, le=1_000_000)
    """What is beyond that is let go, the oldest first; about 5 MB come on top."""

    def file(self, node: str) -> Path:
        """Where it is.

        Raises:
            StoreError: it is in a home folder, and there is none.
        """
        home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        path = Path(home, "mmstream", f"{node}.db") if self.path is None else Path(self.path)
        try:
            return path.expanduser()
        except RuntimeError:
            msg = f"{path}: nobody knows a home folder; give a file"
            raise StoreError(msg) from None

    def limits(self) -> Limits:
        """How much is kept."""
        return Limits(round(self.max_age_days * NS_PER_DAY), self.max_mb * 1_000_000)


class Spool:
    """The writer of an event log, on a thread of its own; the methods are called on the loop."""

    def __init__(self, path: Path, limits: Limits, clock: Clock) -> None:
        """Nothing is opened yet."""
        self.metrics = StageMetrics("store")
        """As the store's own; the loop and the store's thread count in it, never the same reason.
        Dropped also: `not_on_disk` went on from memory, `unwritten` are not tried again (lost if
        nobody takes them before the end, and not in `shutdown`), `shutdown` are losses: neither
        the disk nor anybody else took them. `file_lost`: about so many waited in a file that was
        damaged or removed."""
        self.n_left: int | None = None
        """Messages that earlier boots have left, from `open` on; None: not known."""
        self.max_bytes = limits.max_bytes
        self.problem: str | None = None
        self.path = path
        self._disk = Disk(path, limits, clock, self.metrics)
        self._thread = OwnThread("store")
        self._unwritten: deque[Slip] = deque()
        self._is_failing = False
        self._is_closed = False
        self._patience_secs = PATIENCE_SECS
        self._quiet = asyncio.Event()
        """Set while nothing is being written."""
        self._quiet.set()
        self._rows: list[Row] = []
        """Delivered, and not marked yet."""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._last_line = ""
        self._looking: asyncio.Future[Sequence[str]] | None = None
        """Whether the file is sound is being found out."""

    @property
    def n_waiting(self) -> int:
        """Messages on disk that no broker had when it was last tidied."""
        return self._disk.n_waiting

    @property
    def used_bytes(self) -> int:
        """How much of the file held something when it was last tidied."""
        return self._disk.used_bytes

    async def open(self) -> None:
        """Open the file, or make it, with its folder; one without room is tried again later.

        One that is there can be read without room. If its writer was killed or cut off from power
        it is looked through beside all else, and set aside when that finds it damaged.

        Raises:
            StoreError: it cannot be used; the text says why and what to do.
        """
        try:
            async with asyncio.timeout(OPEN_SECS):
                self.n_left = await self._thread.do(self._disk.open)
        except DiskFullError as error:
            self._fail(error)
        except TimeoutError:
            msg = f"{self.path}: the disk does not answer"
            raise StoreError(msg) from None
        self._look_through()
        self._soon("age", AGE_SECS, self._tidy)

    async def open_events(self, boot_id: str) -> tuple[Published, ...]:
        """The last message of each event that an earlier boot left open.

        None of a file of an older mmstream that a full disk keeps from being brought up to date:
        the next start ends those.

        Raises:
            StoreError: the file cannot be read.
        """
        try:
            return await self._thread.do(partial(self._disk.open_events, boot_id))
        except DiskFullError:
            return ()

    async def do(self, work: Callable[[Store], _Result]) -> _Result:
        """Have something done with the store itself, after all that is under way to it.

        Raises:
            StoreError: what `work` raises, or the file cannot be used.
        """
        if self._thread.n_waiting >= MAX_ASKED:
            msg = f"{self.path}: the disk does not answer"
            raise StoreError(msg)
        return await self._thread.do(partial(self._disk.do, work))

    def keep(self, message: Published, told: Callable[[Slip], None]) -> Slip:
        """Write a message after all before it; its slip is told of as soon as that is decided."""
        slip = Slip(message, told)
        self._unwritten.append(slip)
        if len(self._unwritten) > MAX_UNWRITTEN:
            self._go_on(self._unwritten.popleft())
            self.metrics.drop("unwritten")
        if self._is_failing:
            asyncio.get_running_loop().call_soon(self._go_on, slip)
            self._soon("retry", RETRY_SECS, self._write)
        else:
            self._write()
        return slip

    def hurry(self) -> None:
        """The end is near: what the disk does not take soon goes on from memory while it can."""
        self._patience_secs = LAST_PATIENCE_SECS
        if timer := self._timers.pop("patience", None):
            timer.cancel()
            self._soon("patience", self._patience_secs, self._lose_patience)

    def delivered(self, slip: Slip) -> None:
        """It needs no more care: from now on it is history."""
        slip.is_delivered = True
        if slip.row is not None:
            self._rows.append(slip.row)
            self._soon("tidy", TIDY_SECS, self._tidy)

    def read(
        self,
        *,
        after_key: int,
        limit: int,
        then: Callable[[Sequence[Slip] | None], None],
        n_tries: int = READ_TRIES,
    ) -> None:
        """Read the oldest that wait behind `after_key`, in order; `then` gets them, on the loop.

        None: they cannot be read. Empty: there are none but those that are told of after this.
        """
        loop = asyncio.get_running_loop()

        def read(future: asyncio.Future[Sequence[Slip]]) -> None:
            patience.cancel()
            try:
                found = future.result()
            except asyncio.CancelledError:  # it took too long
                fail(f"{self.path}: the disk does not answer")
            except Exception as error:  # noqa: BLE001 - whatever it is, who waits must go on
                fail(in_words(error, self.path))
            else:
                then(found)

        def fail(why: str) -> None:
            if n_tries > 1 and not self._is_closed:
                again = partial(self.read, after_key=after_key, limit=limit, then=then)
                loop.call_later(RETRY_SECS, partial(again, n_tries=n_tries - 1))
                return
            _log.error("%s; what waits in it comes with the next start", why)
            then(None)

        self._tidy()  # what is delivered must not be read again
        reading = self._beside(partial(self._disk.read, after_key, limit), read)
        patience = loop.call_later(READ_SECS, reading.cancel)

    async def close(self) -> None:
        """Write and mark what is left, and let the file go; says what waits in it."""
        n_waiting = 0
        try:
            async with asyncio.timeout(CLOSE_SECS):
                self._write()  # also if it has just failed: a last try
                while not self._quiet.is_set():
                    await self._quiet.wait()
                self._end_timers()  # nothing may follow
                n_waiting = await self._thread.do(partial(self._disk.close, self._rows))
        except TimeoutError:
            _log.error("%s: the disk hangs", self.path)
            self._thread.submit(self._disk.let_go)
        except Exception as error:  # noqa: BLE001 - whatever it is, the rest must be closed too
            self._tell(error)
            self._thread.submit(self._disk.let_go)
        self._end_timers()
        if self._looking is not None:
            self._looking.cancel()
        self._thread.end()
        if n_waiting:
            kept = "%d messages wait on disk (%s): they come, marked late, at the next start"
            _log.warning(kept, n_waiting, self.path)
        if n_lost := sum(not slip.is_delivered for slip in self._unwritten):
            self.metrics.drop("shutdown", n_lost)
            _log.error("%d messages are lost: neither the disk nor the broker took them", n_lost)

    def _write(self) -> None:
        if not self._quiet.is_set() or not self._unwritten:
            return
        self._quiet.clear()
        batch = tuple(islice(self._unwritten, MAX_BATCH))
        self._soon("patience", self._patience_secs, self._lose_patience)
        messages = tuple(slip.message for slip in batch)
        self._beside(partial(self._disk.append, messages), partial(self._written, batch))

    def _written(self, batch: Sequence[Slip], future: asyncio.Future[Sequence[Row | None]]) -> None:
        self._quiet.set()
        if timer := self._timers.pop("patience", None):
            timer.cancel()
        try:
            rows = future.result()
        except StoreError as error:
            self._fail(error)
            return
        except Exception as error:  # noqa: BLE001 - a defect holds nothing up, nor is tried for ever
            self._tell(error)
            self._take_off(batch)
            for slip in batch:
                self._go_on(slip)
            self._write()
            return
        if self._is_failing:
            _log.warning("%s can be written again", self.path)
        self._is_failing = False
        self.problem = None
        self._take_off(batch)
        for slip, row in zip(batch, rows, strict=True):
            slip.row = row
            slip.place = "nowhere" if row is None else "disk"
            if slip.is_delivered:
                self.delivered(slip)
            slip.told(slip)
        self._soon("tidy", TIDY_SECS, self._tidy)
        self._look_through()  # it could not be opened at the start
        self._write()

    def _take_off(self, batch: Sequence[Slip]) -> None:
        decided = set(batch)
        while self._unwritten and self._unwritten[0] in decided:
            self._unwritten.popleft()

    def _lose_patience(self) -> None:
        self._fail(StoreError(f"{self.path}: the disk does not answer"))

    def _fail(self, error: StoreError) -> None:
        self.problem = str(error)
        if not self._is_failing:
            _log.error("%s; events go on from memory until it can be written", error)
        self._is_failing = True
        for slip in self._unwritten:
            self._go_on(slip)
        self._soon("retry", RETRY_SECS, self._write)

    def _go_on(self, slip: Slip) -> None:
        if slip.place == "under_way":
            slip.place = "memory"
            self.metrics.drop("not_on_disk")
            slip.told(slip)

    def _tidy(self) -> None:
        if timer := self._timers.pop("tidy", None):
            timer.cancel()
        if self._is_closed:
            return
        rows, self._rows = self._rows, []
        self._beside(partial(self._disk.tidy, rows), partial(self._tidied, rows))

    def _tidied(self, rows: Sequence[Row], future: asyncio.Future[bool]) -> None:
        self._soon("age", AGE_SECS, self._tidy)
        try:
            if future.result():
                self._soon("tidy", TIDY_SECS, self._tidy)
        except StoreError:  # the next message will tell
            self._rows += rows
            self._soon("tidy", RETRY_SECS, self._tidy)
        except Exception as error:  # noqa: BLE001 - a defect must not end this for good
            self._tell(error)
            self._rows += rows
            self._soon("tidy", RETRY_SECS, self._tidy)

    def _soon(self, what: str, secs: float, work: Callable[[], None]) -> None:
        """Once, however often it is asked for until then."""

        def do() -> None:
            self._timers.pop(what, None)
            work()

        if what not in self._timers and not self._is_closed:
            self._timers[what] = asyncio.get_running_loop().call_later(secs, do)

    def _tell(self, error: Exception) -> None:
        """Once, however often it comes."""
        line = in_words(error, self.path)
        if line != self._last_line:
            _log.error("%s", line)
        self._last_line = line

    def _end_timers(self) -> None:
        self._is_closed = True
        for timer in self._timers.values():
            timer.cancel()

    def _look_through(self) -> None:
        """Once, if the file may be damaged unseen."""
        if self._disk.was_left_open and not self._disk.is_alone and self._looking is None:
            looking = OwnThread("store check")
            self._looking = asyncio.wrap_future(looking.submit(self._disk.look_through))
            self._looking.add_done_callback(partial(self._looked_through, self._disk.n_files))
            looking.end()

    def _looked_through(self, n_file: int, future: asyncio.Future[Sequence[str]]) -> None:
        if future.cancelled():
            return
        try:
            problems = future.result()
        except Exception as error:  # noqa: BLE001 - it may be damaged in any way
            _log.warning("%s; whether it is sound is not known", in_words(error, self.path))
            return
        if problems and not self._is_closed:
            _log.error("%s: is damaged: %s", self.path, problems[0])
            self._beside(partial(self._disk.condemn, n_file), lambda _: self._tidy())

    def _beside(
        self, work: Callable[[], _Result], then: Callable[[asyncio.Future[_Result]], None]
    ) -> asyncio.Future[_Result]:
        future = asyncio.wrap_future(self._thread.submit(work))
        future.add_done_callback(then)
        return future
