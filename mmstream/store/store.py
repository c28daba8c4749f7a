"""The writer of an event log: spool, journal of open events, eviction.

    append          on disk when it returns        events, alerts, final captions, in order
    waiting         what no broker has yet, oldest first, also from earlier boots
    mark_delivered  a broker has it: from now on it is history
    open_events     what an earlier boot left open: to be ended before anything new is said
    keep_override   what people have set, for the next boot; acknowledge: what they have seen
    evict           keeps the file bounded

Ages are the wall clock's, which may be wrong and be set: `count_ages_anew` follows it.

**What is promised.** `append` waits until the disk says that it has the transaction (WAL with
`synchronous = FULL`): neither `kill -9` nor a power cut loses what it returned a key for. That
costs a sync per transaction, so append what has come together. All else is written with
`synchronous = NORMAL`: after a power cut a message may count as waiting again that was delivered,
and come twice; after `kill -9` not even that.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmstream.errors import StateError, StoreError
from mmstream.messages import NumberedStamp, Published
from mmstream.metrics import StageMetrics
from mmstream.store.database import (
    FileLock,
    close_quietly,
    number,
    telling,
    transaction,
)
from mmstream.store.eviction import (
    CLOCK_SET_NS,
    Evicted,
    Limits,
    evict_step,
    newest_ns,
    restamp,
    used_bytes,
)
from mmstream.store.opening import open_for_writing
from mmstream.store.overrides import (
    Acknowledgement,
    Override,
    acknowledge,
    drop_overrides,
    put_override,
    read_overrides,
)
from mmstream.store.records import Facts, facts_of, to_published

MAX_FREE_PAGES: Final = 256
"""Free pages (1 MiB) that the file may keep for what comes next; beyond them it shrinks."""
MAX_STEPS: Final = 64
"""Steps of eviction in one call."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """A message that no broker has acknowledged yet."""

    key: int
    """Rises in the order in which messages were appended, over boots; never given twice."""
    message: Published
    """As it was appended: with the `boot_id` and `seq` of its own boot."""


class Store:
    """One event log, open for writing; used on one thread."""

    def __init__(
        self, path: Path, limits: Limits, *, now_ns: int, is_damaged: bool = False
    ) -> None:
        """Open the file, or make it; a damaged one is set aside and a new one begun.

        That it is damaged is seen where it is read, also later (StoreCorruptError): open it again
        with `is_damaged`. To look through all of it takes a second per 500 MB from memory, and ten
        or more from a disk: see `EventLog.check`. Its folder must be there. `now_ns` (UTC, since
        1970) goes into the name of a file that is set aside.

        Raises:
            StoreError: another process writes it; it is no store, or one of a newer mmstream; it
                cannot be written. The text names the file and says what to do.
            DiskFullError: there is no room for a new one, or to bring one up to date.
        """
        self.path = path
        self.metrics = StageMetrics("store")
        """`n_in` were appended, `n_out` delivered. Dropped, before a broker had them: `spool_age`,
        `spool_size`, `unreadable` (of another version of mmstream). History that is gone, no loss:
        `log_age`, `log_size`."""
        self._limits = limits
        self._cut: set[str] = set()
        """Open events that were evicted unsent."""
        self._lock = FileLock(path)
        try:
            self.opened = open_for_writing(path, now_ns=now_ns, is_damaged=is_damaged)
            """What was found then, to be told to people."""
        except BaseException:
            self._lock.release()
            raise
        self._connection = self.opened.connection

    def append(self, messages: Sequence[Published], *, now_ns: int) -> tuple[int | None, ...]:
        """Put messages at the end of the spool, all or none; on disk when it returns.

        Gives the key of each, rising. None: the event's start was evicted unsent, so the rest of it
        must not be published either (counted as `spool_size`).

        Raises:
            StateError: one need not arrive, or was appended before.
            DiskFullError: nothing was written; append again later.
            StoreError: nothing was written; the file cannot be used.
        """
        cut = set(self._cut)
        with self._surely():
            keys = tuple(self._append_one(one, cut, now_ns) for one in messages)
        self._cut = cut
        self.metrics.n_in += len(keys)
        self._drop(Counter({"spool_size": keys.count(None)}))
        return keys

    def waiting(self, *, after_key: int = 0, limit: int) -> tuple[Spooled, ...]:
        """The oldest messages behind `after_key` that wait, at most `limit`, in order.

        What cannot be read, since another version of mmstream wrote it, is given up and counted.

        Raises:
            StoreError: the file cannot be read.
        """
        sql = """
            SELECT key, content, CAST(payload AS BLOB) FROM messages JOIN entries USING (entry)
            WHERE is_waiting = 1 AND key > ? ORDER BY key LIMIT ?
        """
        while True:
            with telling(self.path):
                rows = self._connection.execute(sql, (after_key, limit)).fetchall()
            found: list[Spooled] = []
            unreadable: list[int] = []
            for key, content, payload in rows:
                try:
                    found.append(Spooled(key, to_published(content, payload)))
                except StoreError:
                    unreadable.append(key)
            if unreadable:
                self._drop(Counter({"unreadable": self._settle(unreadable)}))
            if found or not rows:
                return tuple(found)

    def n_waiting(self) -> int:
        """How many messages wait.

        Raises:
            StoreError: the file cannot be read.
        """
        with telling(self.path):
            return number(self._connection, "SELECT count(*) FROM messages WHERE is_waiting = 1")

    def mark_delivered(self, keys: Iterable[int]) -> None:
        """A broker has these; those that were evicted meanwhile, or marked before, do not matter.

        Raises:
            DiskFullError: none is marked; they may come twice.
            StoreError: none is marked; the file cannot be used.
        """
        self.metrics.n_out += self._settle(keys)

    def open_events(self, boot_id: str) -> tuple[Published, ...]:
        """The last message of each event that has no end yet and is of another boot than this.

        Each must be ended (`end_reason: restart`) before anything new is said.

        Raises:
            StoreError: the file cannot be read.
        """
        sql = """
            SELECT content, CAST(payload AS BLOB) FROM entries CROSS JOIN messages
                ON key = (SELECT max(key) FROM messages AS m WHERE m.entry = entries.entry)
            WHERE is_open = 1 AND boot_id <> ? ORDER BY key
        """
        with telling(self.path):
            rows = self._connection.execute(sql, (boot_id,)).fetchall()
        found: list[Published] = []
        for content, payload in rows:
            try:
                found.append(to_published(content, payload))
            except StoreError:  # of another version: nobody could say how it ended
                self.metrics.drop("unreadable")
        return tuple(found)

    def overrides(self) -> tuple[Override, ...]:
        """What people have set, also in earlier boots.

        Raises:
            StoreError: the file cannot be read.
        """
        with telling(self.path):
            return read_overrides(self._connection)

    def keep_override(self, override: Override) -> None:
        """Write down what somebody has set; on disk when it returns.

        Raises:
            DiskFullError: nothing was written.
            StoreError: nothing was written; the file cannot be used, or too much is set.
        """
        with self._surely():
            put_override(self._connection, override)

    def drop_overrides(self, source: str, feature: str | None) -> None:
        """Forget what was set of a feature (None: of all) of a source; on disk when it returns.

        Raises:
            DiskFullError: nothing was written.
            StoreError: nothing was written; the file cannot be used.
        """
        with self._surely():
            drop_overrides(self._connection, source, feature)

    def acknowledge(self, event_id: str, by: str, *, now_ns: int) -> Acknowledgement | None:
        """Mark an event as seen; the first time counts. None: there is no such event.

        Raises:
            DiskFullError: nothing was written.
            StoreError: nothing was written; the file cannot be used.
        """
        with self._surely():
            return acknowledge(self._connection, event_id, by, now_ns=now_ns)

    def count_ages_anew(self, step_ns: int) -> None:
        """The clock was set by so much: what was stored since the file was opened was as well.

        Raises:
            DiskFullError: nothing is changed.
            StoreError: nothing is changed; the file cannot be used.
        """
        sql = """
            UPDATE entries SET touched_ns = touched_ns + ?
            WHERE entry IN (SELECT entry FROM messages WHERE key > ?)
        """
        with telling(self.path), transaction(self._connection):
            self._connection.execute(sql, (step_ns, self.opened.last_key))

    def newest_ns(self) -> int:
        """When something was last stored, by the clock of then, UTC since 1970; 0: never.

        Raises:
            StoreError: the file cannot be read.
        """
        with telling(self.path):
            return newest_ns(self._connection)

    def evict(self, *, now_ns: int, knows_age: bool = True) -> bool:
        """Let go what is too old or too much, at most about 1000 entries; whether more is due.

        See `mmstream.store.eviction`. Costs next to nothing when nothing is due. Nothing is too old
        unless `knows_age`, and by a clock that is set; what was stored by one that was not is as
        old as when that is found.

        Raises:
            DiskFullError: deleting needs room too; what was counted is gone all the same.
            StoreError: the file cannot be used.
        """
        with telling(self.path):
            self._connection.execute("PRAGMA synchronous = NORMAL")
            oldest_ns = None
            if knows_age and now_ns >= CLOCK_SET_NS:
                oldest_ns = now_ns - self._limits.max_age_ns
                with transaction(self._connection):
                    restamp(self._connection, now_ns)
            for _ in range(MAX_STEPS):
                evicted = self._evict_step(oldest_ns)
                if evicted is None:
                    break
                self._cut |= evicted.cut
                self._drop(evicted.n_messages)
            self._shrink()
        return evicted is not None

    def used_bytes(self) -> int:
        """How much of the file holds something: what `Limits.max_bytes` bounds.

        Raises:
            StoreError: the file cannot be read.
        """
        with telling(self.path):
            return used_bytes(self._connection)

    def close(self) -> None:
        """Let the file go; whatever state it is in, nothing is lost by it."""
        close_quietly(self._connection)
        self._lock.release()

    @contextmanager
    def _surely(self) -> Iterator[None]:
        """A transaction that is on disk when it ends."""
        with telling(self.path):
            self._connection.execute("PRAGMA synchronous = FULL")
            with transaction(self._connection):
                yield

    def _append_one(self, message: Published, cut: set[str], now_ns: int) -> int | None:
        stamp, facts = message.stamp, facts_of(message.content)
        if not isinstance(stamp, NumberedStamp) or stamp.seq is None:
            msg = f"a message of the topic {message.topic} has no seq"
            raise StateError(msg)
        if facts.content == "event" and facts.id in cut:
            if facts.type != "start":
                if not facts.is_open:
                    cut.remove(facts.id)
                return None
            cut.remove(facts.id)
        entry = self._entry(facts, stamp.node, now_ns)
        sql = """
            INSERT INTO messages (entry, boot_id, seq, type, is_waiting, added_ns, payload)
            VALUES (?, ?, ?, ?, 1, ?, ?)
        """
        row = (entry, stamp.boot_id, stamp.seq, facts.type, now_ns, message.to_json())
        try:
            return self._connection.execute(sql, row).lastrowid
        except sqlite3.IntegrityError:
            msg = f"number {stamp.seq} of boot {stamp.boot_id} was appended before"
            raise StateError(msg) from None

    def _entry(self, facts: Facts, node: str, now_ns: int) -> int:
        """The row of what the message is about, made or brought up to date."""
        sql = "SELECT entry, notes FROM entries WHERE content = ? AND id = ?"
        found = self._connection.execute(sql, (facts.content, facts.id)).fetchone()
        known = found[1].split("\n") if found and found[1] else ()
        notes = "\n".join(dict.fromkeys((*known, *facts.notes)))
        row = {
            "node": node,
            "source": facts.source,
            "kind": facts.kind,
            "label": facts.label,
            "text": facts.text,
            "notes": notes,
            "t_start": facts.t_start,
            "t_end": facts.t_end,
            "top_score": facts.top_score,
            "end_reason": facts.end_reason,
            "is_open": facts.is_open,
            "touched_ns": now_ns,
        }
        if found:
            columns = ", ".join(f"{name} = :{name}" for name in row)
            sql = f"UPDATE entries SET {columns}, n_waiting = n_waiting + 1 WHERE entry = :entry"  # noqa: S608 -- names
            self._connection.execute(sql, {**row, "entry": found[0]})
            return int(found[0])
        row = {**row, "content": facts.content, "id": facts.id, "n_waiting": 1}
        names = ", ".join(row)
        sql = f"INSERT INTO entries ({names}) VALUES ({', '.join('?' * len(row))})"  # noqa: S608 -- names
        made = self._connection.execute(sql, tuple(row.values())).lastrowid
        return int(made or 0)

    def _settle(self, keys: Iterable[int]) -> int:
        """These wait no more; gives how many did."""
        n_settled = 0
        with telling(self.path):
            self._connection.execute("PRAGMA synchronous = NORMAL")
            with transaction(self._connection):
                for key in keys:
                    sql = """
                        UPDATE entries SET n_waiting = n_waiting - 1
                        WHERE entry = (SELECT entry FROM messages WHERE key = ? AND is_waiting = 1)
                    """
                    n_settled += self._connection.execute(sql, (key,)).rowcount
                    sql = "UPDATE messages SET is_waiting = 0 WHERE key = ?"
                    self._connection.execute(sql, (key,))
        return n_settled

    def _evict_step(self, oldest_ns: int | None) -> Evicted | None:
        with transaction(self._connection):
            return evict_step(self._connection, self._limits.max_bytes, oldest_ns=oldest_ns)

    def _shrink(self) -> None:
        """Give back what is free beyond need; without waiting for a reader."""
        if number(self._connection, "PRAGMA freelist_count") > MAX_FREE_PAGES:
            # Not `execute`: it takes one step of a statement without columns, here one page.
            self._connection.executescript("PRAGMA incremental_vacuum")
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _drop(self, n_messages: Counter[str]) -> None:
        for reason, n in (+n_messages).items():
            self.metrics.drop(reason, n)
