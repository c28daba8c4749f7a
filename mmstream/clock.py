"""The clock, injected wherever time passes; only this module reads the system's.

Instants are integer nanoseconds. `monotonic_ns` orders and measures; `utc_ns` (since 1970) is for
people and appears only in messages.
"""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What time it is, and how to wait."""

    def monotonic_ns(self) -> int:
        """An instant that never goes back; comparable within this process only."""
        ...

    def utc_ns(self) -> int:
        """Nanoseconds since 1970-01-01T00:00:00Z; may be stepped by NTP."""
        ...

    def sleep(self, secs: float) -> None:
        """Block the calling thread for `secs` seconds (not at all when <= 0)."""
        ...


class SystemClock:
    """The system's own clocks."""

    def monotonic_ns(self) -> int:
        """An instant of `time.monotonic_ns`."""
        return time.monotonic_ns()

    def utc_ns(self) -> int:
        """An instant of `time.time_ns`."""
        return time.time_ns()

    def sleep(self, secs: float) -> None:
        """Block the calling thread."""
        if secs > 0:
            time.sleep(secs)


class ManualClock:
    """Virtual time: `sleep` and `advance` move it, nothing waits. Safe to share among threads."""

    def __init__(self, monotonic_ns: int = 0, utc_ns: int = 0) -> None:
        """Start at the given instants."""
        self._lock = threading.Lock()
        self._monotonic_ns = monotonic_ns
        self._utc_ns = utc_ns

    def monotonic_ns(self) -> int:
        """The instant that the test has reached."""
        return self._monotonic_ns

    def utc_ns(self) -> int:
        """The UTC instant that the test has reached."""
        return self._utc_ns

    def sleep(self, secs: float) -> None:
        """Advance by `secs` and return at once."""
        self.advance(secs)

    def advance(self, secs: float) -> None:
        """Move both instants forward by `secs` (nothing when <= 0)."""
        delta_ns = max(0, round(secs * 1e9))
        with self._lock:
            self._monotonic_ns += delta_ns
            self._utc_ns += delta_ns
