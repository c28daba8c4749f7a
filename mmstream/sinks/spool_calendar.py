"""UTC for how old stored things are: of a clock that may not be set yet, or be set while we run.

A small computer without a clock of its own starts in 1970, or when it was last switched off, and
learns the time minutes later, from the network, or never.
"""

from typing import Final

from mmstream.clock import Clock
from mmstream.media import NS_PER_SEC
from mmstream.store.eviction import CLOCK_SET_NS

STEADY_NS: Final = 600 * NS_PER_SEC
"""Nothing is too old by a clock that was not left alone for so long: it may still be set."""


class Calendar:
    """What the clock says once it is set; until then time goes on from what was stored last."""

    def __init__(self, clock: Clock, newest_ns: int) -> None:
        """`newest_ns`: when something was last stored, UTC since 1970; 0: never."""
        self._clock = clock
        utc_ns, at_ns = clock.utc_ns(), clock.monotonic_ns()
        begin_ns = utc_ns if utc_ns >= CLOCK_SET_NS else max(utc_ns, newest_ns)
        self._ahead_ns = begin_ns - at_ns
        """Of the clock that never goes back."""
        self._steady_from_ns = at_ns

    def now_ns(self) -> int:
        """By what has been followed so far."""
        return self._clock.monotonic_ns() + self._ahead_ns

    def step_ns(self) -> int:
        """By how much the clock was set since it was last followed."""
        utc_ns = self._clock.utc_ns()
        return utc_ns - self.now_ns() if utc_ns >= CLOCK_SET_NS else 0

    def follow(self, step_ns: int, *, is_large: bool) -> None:
        """From now on it says so much more; `is_large`: too much to be sure of it at once."""
        self._ahead_ns += step_ns
        if is_large:
            self._steady_from_ns = self._clock.monotonic_ns()

    @property
    def is_steady(self) -> bool:
        """Whether ages can be told by it."""
        return self._clock.monotonic_ns() - self._steady_from_ns >= STEADY_NS
