"""How long to wait before a live source is opened again.

Pauses double, but none is longer than `SOON_SECS` or a tenth of the outage so far, so that a
source is back soon after the cause of a short outage is gone, and a camera that is off for hours
is asked once a minute.
"""

import random
from typing import Final

from mmstream.media import NS_PER_SEC, secs_to_ns

FIRST_RETRY_SECS: Final = 0.5
SOON_SECS: Final = 4.0
"""The longest pause of an outage that has not lasted long."""
MAX_RETRY_SECS: Final = 60.0
GOOD_SECS: Final = 5.0
"""What has streamed for so long was good: the outage after it is a new one."""


class Backoff:
    """The pauses of one source."""

    def __init__(self) -> None:
        """No outage yet."""
        self._n_failed = 0
        self._out_since_ns: int | None = None
        self._first_ns: int | None = None

    def see(self, now_ns: int) -> None:
        """Something came."""
        if self._first_ns is None:
            self._first_ns = now_ns
        elif now_ns - self._first_ns >= secs_to_ns(GOOD_SECS):
            self._n_failed = 0
            self._out_since_ns = None

    def pause_secs(self, now_ns: int) -> float:
        """It has failed or ended: how long to wait, half of it by chance."""
        self._first_ns = None
        if self._out_since_ns is None:
            self._out_since_ns = now_ns
        out_secs = (now_ns - self._out_since_ns) / NS_PER_SEC
        doubled_secs = FIRST_RETRY_SECS * 2.0 ** min(self._n_failed, 10)
        self._n_failed += 1
        longest_secs = min(doubled_secs, max(SOON_SECS, out_secs / 10), MAX_RETRY_SECS)
        return longest_secs * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
