"""What waits for the broker, in order and bounded.

The seam for a spool on disk: what has the methods of `Outbox` can stand in its place.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from itertools import islice

from mmstream.messages import Published
from mmstream.sinks.mqtt_topics import Packet


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that is not acknowledged yet."""

    key: int
    """Counts up by one per `put`."""
    message: Published
    changes: tuple[Packet, ...]
    """The retained topics that follow from it, to be written right after it."""


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

    def put(self, message: Published, changes: tuple[Packet, ...] = ()) -> Waiting | None:
        """Add a message at the end; gives the oldest one, which had to make room when full."""
        evicted = None
        if len(self._waiting) >= self._limit:
            _, evicted = self._waiting.popitem(last=False)
        self._waiting[self._next_key] = Waiting(self._next_key, message, changes)
        self._next_key += 1
        return evicted

    def take(self, window: int) -> tuple[Waiting, ...]:
        """The oldest that are not under way, until `window` of them are; they stay."""
        oldest = islice(self._waiting.values(), window)
        taken = tuple(one for one in oldest if one.key >= self._next_to_take)
        if taken:
            self._next_to_take = taken[-1].key + 1
        return tuple(late(one) if one.key < self._first_prompt_key else one for one in taken)

    def pop(self, key: int) -> None:
        """The broker has it: forget it (nothing happens when it had to make room meanwhile)."""
        self._waiting.pop(key, None)

    def clear(self) -> int:
        """Forget everything; gives how many that were."""
        n_waiting = len(self._waiting)
        self._waiting.clear()
        return n_waiting

    def start_over(self) -> None:
        """The broker was away: nothing is under way any more, and what waits is late."""
        self._next_to_take = 0
        self._first_prompt_key = self._next_key


def late(waiting: Waiting) -> Waiting:
    """The same with a message that says so, and no `changes`.

    The whole retained picture is written before anything that is late.
    """
    stamp = waiting.message.stamp.model_copy(update={"late": True})
    return replace(waiting, message=replace(waiting.message, stamp=stamp), changes=())
