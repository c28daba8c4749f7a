"""What waits for the broker, in order and bounded.

`Outbox` holds it in memory. `SpooledOutbox` has the same methods and a spool behind it: then it is
on disk before it is taken, and only what is taken next is in memory.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Final

from mmstream.messages import Published
from mmstream.sinks.mqtt_topics import Packet
from mmstream.sinks.spool import Spool
from mmstream.sinks.spool_disk import Row, Slip

REPLAY_PER_SEC: Final = 200
"""Late messages that leave in a second; the others are not held up by them."""
PAGE: Final = 256
"""Messages that are read from the disk at once."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that is not acknowledged yet."""

    key: int
    """Counts up by one per `put`."""
    message: Published
    changes: tuple[Packet, ...]
    """The retained topics that follow from it, to be written right after it."""
    slip: Slip | None = None
    """Where it is on disk; None without a spool."""
    is_late: bool = False
    """It waited for the broker."""


class Outbox:
    """Messages between `publish` and the broker's acknowledgement, oldest first."""

    def __init__(self, limit: int) -> None:
        """Hold at most `limit` messages."""
        self._limit = limit
        self._waiting: OrderedDict[int, Waiting] = OrderedDict()
        self._next_key = 0
        self._next_to_take = 0
        """Those before it are under way."""
        self._first_prompt_key = 0
        """Those before it are late."""

    def __len__(self) -> int:
        """How many wait or are under way."""
        return len(self._waiting)

    def put(
        self,
        message: Published,
        changes: tuple[Packet, ...] = (),
        *,
        slip: Slip | None = None,
        is_late: bool = False,
    ) -> Waiting | None:
        """Add a message at the end; gives the oldest one, which had to make room when full."""
        evicted = None
        if len(self._waiting) >= self._limit:
            _, evicted = self._waiting.popitem(last=False)
        self._waiting[self._next_key] = Waiting(self._next_key, message, changes, slip, is_late)
        self._next_key += 1
        return evicted

    def take(self, window: int, *, n_late: int | None = None) -> tuple[Waiting, ...]:
        """The oldest that are not under way, until `window` of them are; they stay.

        At most `n_late` that are late, and nothing behind those; None: as many as there are.
        """
        taken: list[Waiting] = []
        n_late = window if n_late is None else n_late
        for one in islice(self._waiting.values(), window):
            if one.key < self._next_to_take:
                continue
            is_late = one.is_late or one.key < self._first_prompt_key
            if is_late and n_late == 0:
                break
            n_late -= is_late
            taken.append(late(one) if is_late else one)
        if taken:
            self._next_to_take = taken[-1].key + 1
        return tuple(taken)

    def pop(self, key: int) -> Waiting | None:
        """The broker has it: forget it (None: it had to make room meanwhile)."""
        return self._waiting.pop(key, None)

    def strip(self) -> tuple[Packet, ...]:
        """Take off the retained topics that follow from what is not under way; gives those."""
        changes: list[Packet] = []
        for one in self:
            if one.changes and one.key >= self._next_to_take:
                changes += one.changes
                self._waiting[one.key] = replace(one, changes=())
        return tuple(changes)

    def clear(self) -> int:
        """Forget everything; gives how many that were."""
        n_waiting = len(self._waiting)
        self._waiting.clear()
        return n_waiting

    def pause(self) -> None:
        """The broker is away: nothing is under way any more."""
        self._next_to_take = 0

    def start_over(self) -> None:
        """The broker was away: what waits is late."""
        self._next_to_take = 0
        self._first_prompt_key = self._next_key

    def __iter__(self) -> Iterator[Waiting]:
        """What waits or is under way, oldest first."""
        return iter(tuple(self._waiting.values()))


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A message of which it is not decided yet whether the disk takes it."""

    slip: Slip
    changes: tuple[Packet, ...]
    is_late: bool = False


class SpooledOutbox:
    """The same over a spool.

        put -> [arriving] -> [window] -> broker        the broker is there and nothing waits
                          -> disk -> [window] -> ...   else: read back in order, late
                          -> [tail] -> [window] -> ... what the disk does not take, after that

    While the broker is away, all that is on disk is there only: what is let go for its age or the
    size of the file is not sent any more.
    """

    def __init__(
        self,
        spool: Spool,
        limit: int,
        *,
        wake: Callable[[], None],
        owe: Callable[[Iterable[Packet]], None],
        lose: Callable[[], None],
    ) -> None:
        """Hold at most `limit` messages in the window, and as many in the tail.

        `wake` is called when there may be more to take, `owe` with retained topics whose message
        comes later than they must, `lose` when the tail is full and its oldest is lost.
        """
        self._spool = spool
        self._limit = limit
        self._wake = wake
        self._owe = owe
        self._lose = lose
        self._arriving: deque[_Arrival] = deque()
        """No more than the spool holds undecided."""
        self._window = Outbox(limit)
        self._tail: OrderedDict[Slip, None] = OrderedDict()
        self._is_behind = spool.n_left != 0
        """There are messages on disk that must leave before what comes now."""
        self._n_behind = spool.n_left or 0
        """About how many."""
        self._read_key = 0
        """Up to here nothing has to be read."""
        self._n_file = 1
        """Of the file that it belongs to; a new one is begun when that is damaged."""
        self._is_reading = False
        self._is_away = False
        self._n_outages = 0
        self._early: set[Slip] = set()
        """In the window before the disk has taken them."""

    def __len__(self) -> int:
        """How many wait or are under way, about, with those on disk."""
        in_memory = len(self._arriving) + len(self._window) + len(self._tail)
        return in_memory + max(self._n_behind, self._is_behind)

    def put(self, message: Published, changes: tuple[Packet, ...] = ()) -> Waiting | None:
        """Add a message at the end; it can be taken once the disk has it or has refused it.

        Gives None: what is lost is said to `lose`.
        """
        self._arriving.append(_Arrival(self._spool.keep(message, self._told), changes))
        return None

    def take(self, window: int, *, n_late: int | None = None) -> tuple[Waiting, ...]:
        """As `Outbox.take`; reads ahead."""
        self._refill()
        return self._window.take(window, n_late=n_late)

    def pop(self, key: int) -> None:
        """The broker has it: it is history."""
        waiting = self._window.pop(key)
        if waiting is not None and waiting.slip is not None:
            self._early.discard(waiting.slip)
            self._spool.delivered(waiting.slip)

    def clear(self) -> int:
        """Forget what is in memory; none of it is lost yet: the spool says what is at its end."""
        self._window.clear()
        self._tail.clear()
        self._arriving.clear()
        return 0

    def pause(self) -> None:
        """The broker is away: keep only what the disk does not."""
        self._is_away = True
        self._n_outages += 1
        self._is_reading = False
        in_memory: list[Slip] = []
        for waiting in reversed(tuple(self._window)):
            slip = waiting.slip
            row = None if slip is None else slip.row
            if row is not None and row.n_file == self._n_file:
                self._fall_behind(row)
                self._read_key = row.key - 1
            elif slip is not None:
                in_memory.append(slip)
        self._window.clear()
        self._early.clear()
        self._tail = OrderedDict.fromkeys([*reversed(in_memory), *self._tail])
        self._shorten_tail()
        # The picture that comes first when the broker is back knows better.
        self._arriving = deque(_Arrival(one.slip, (), is_late=True) for one in self._arriving)

    def start_over(self) -> None:
        """The broker is back: read what waits."""
        self._is_away = False

    def hurry(self) -> None:
        """There is little time left: do not wait long for the disk."""
        self._spool.hurry()

    def _told(self, slip: Slip) -> None:
        if slip.place != "memory" and slip in self._tail:  # refused before, and decided now
            del self._tail[slip]
            if slip.row is not None:
                self._fall_behind(slip.row)
        elif slip in self._early:
            self._note_read(slip)
        while self._arriving and self._arriving[0].slip.place != "under_way":
            self._arrive(self._arriving.popleft())
        self._wake()

    def _arrive(self, arrival: _Arrival) -> None:
        slip = arrival.slip
        is_next = not (self._is_away or self._is_behind or self._tail)
        has_room = len(self._window) < self._limit
        if is_next and has_room and slip.place != "nowhere":
            self._put_in_window(slip, arrival.changes, is_late=arrival.is_late)
            return
        # What the window has of older states must not follow; it has none when others wait too.
        older = self._window.strip() if is_next else ()
        self._owe((*older, *arrival.changes))
        if slip.row is not None:
            self._fall_behind(slip.row)
        elif slip.place != "nowhere":
            self._append_to_tail(slip)

    def _append_to_tail(self, slip: Slip) -> None:
        self._tail[slip] = None
        self._shorten_tail()

    def _shorten_tail(self) -> None:
        while len(self._tail) > self._limit:
            lost, _ = self._tail.popitem(last=False)
            self._spool.delivered(lost)  # the disk may take it later: it is history then
            self._lose()

    def _fall_behind(self, row: Row) -> None:
        self._look_for_new_file(row)
        self._is_behind = True
        self._n_behind += 1

    def _put_in_window(
        self, slip: Slip, changes: tuple[Packet, ...] = (), *, is_late: bool = False
    ) -> None:
        self._window.put(slip.message, changes, slip=slip, is_late=is_late)
        if slip.row is None:
            self._early.add(slip)
        self._note_read(slip)

    def _note_read(self, slip: Slip) -> None:
        if slip.row is not None:
            self._look_for_new_file(slip.row)
            self._read_key = max(self._read_key, slip.row.key)
            self._early.discard(slip)

    def _look_for_new_file(self, row: Row) -> None:
        if row.n_file > self._n_file:
            self._n_file, self._read_key = row.n_file, 0

    def _refill(self) -> None:
        """The disk first, and once nothing waits there the tail."""
        most = min(PAGE, self._limit)
        n_room = most - len(self._window)
        if self._is_away or self._is_reading or n_room <= most // 2:
            return
        if self._is_behind:
            self._is_reading = True
            read = partial(self._read, self._n_outages)
            self._spool.read(after_key=self._read_key, limit=n_room, then=read)
            return
        for slip in tuple(islice(self._tail, n_room)):
            del self._tail[slip]
            self._put_in_window(slip, is_late=True)

    def _read(self, n_outages: int, found: Iterable[Slip] | None) -> None:
        if n_outages != self._n_outages:  # read before an outage: it is read again
            return
        self._is_reading = False
        slips = tuple(found or ())
        for slip in slips:
            self._put_in_window(slip, is_late=True)
        self._n_behind = max(0, self._n_behind - len(slips))
        if not slips:
            self._is_behind = False
            self._n_behind = 0
        self._wake()


class Pace:
    """So many in a second and no more, in small bursts."""

    def __init__(self, *, per_sec: float, burst: int) -> None:
        """The first burst may leave at once."""
        self._per_sec = per_sec
        self._burst = burst
        self._room = float(burst)
        self._at_secs = 0.0

    def room(self, now_secs: float) -> int:
        """How many may leave now."""
        grown = self._room + (now_secs - self._at_secs) * self._per_sec
        self._room, self._at_secs = min(self._burst, grown), now_secs
        return int(self._room)

    def left(self, n: int) -> None:
        """So many have."""
        self._room -= n


def late(waiting: Waiting) -> Waiting:
    """The same with a message that says so, and no `changes`.

    The whole retained picture is written before anything that is late.
    """
    stamp = waiting.message.stamp.model_copy(update={"late": True})
    return replace(waiting, message=replace(waiting.message, stamp=stamp), changes=(), is_late=True)
