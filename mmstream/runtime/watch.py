"""Which streams of a live source send nothing, and for how long. Pure: instants are passed in."""

from collections.abc import Iterable
from typing import Final

from mmstream.media import NS_PER_SEC, AudioChunk, StreamKind, VideoFrame, secs_to_ns

STALL_SECS: Final = 5.0
"""A live source that sends nothing for so long has stalled; with one stream only, it lacks it."""
REOPEN_SECS: Final = 15.0
"""One that goes on sending nothing for so long, or loses one of its streams, is opened again."""
MIN_WATCH_SECS: Final = 0.05
"""It is not looked at more often."""


class Watch:
    """When each stream last sent something."""

    def __init__(self) -> None:
        """Nothing is expected yet."""
        self._last_ns: dict[StreamKind, int] = {}
        self._seen: set[StreamKind] = set()
        self._start_ns = 0

    @property
    def streams(self) -> frozenset[StreamKind]:
        """Those that should send."""
        return frozenset(self._last_ns)

    def start(self, streams: frozenset[StreamKind], now_ns: int) -> None:
        """From now on these should send; with none, it is not known yet which."""
        self._start_ns = now_ns
        self._last_ns = dict.fromkeys(streams, now_ns)
        self._seen.clear()

    def resume(self, now_ns: int) -> None:
        """It sends again after a stall: what is still to come is waited for anew."""
        self._last_ns = dict.fromkeys(self._last_ns, now_ns)

    def see(self, item: AudioChunk | VideoFrame, now_ns: int) -> None:
        """Something came."""
        stream: StreamKind = "audio" if isinstance(item, AudioChunk) else "video"
        self._last_ns[stream] = now_ns
        self._seen.add(stream)

    def quiet_secs(self, now_ns: int) -> float:
        """For how long nothing at all has come."""
        return (now_ns - max(self._last_ns.values(), default=self._start_ns)) / NS_PER_SEC

    def quiet(self, now_ns: int) -> frozenset[StreamKind]:
        """The streams that have sent nothing for `STALL_SECS`."""
        return self._silent(now_ns, STALL_SECS)

    def lost(self, now_ns: int) -> frozenset[StreamKind]:
        """Those that did send, and then nothing for `REOPEN_SECS`.

        One that has never sent is not lost: opening it again would hardly help.
        """
        return self._silent(now_ns, REOPEN_SECS) & self._seen

    def _silent(self, now_ns: int, secs: float) -> frozenset[StreamKind]:
        since_ns = now_ns - secs_to_ns(secs)
        return frozenset(stream for stream, at_ns in self._last_ns.items() if at_ns <= since_ns)


def lacking(streams: Iterable[StreamKind], secs: float) -> list[str]:
    """That these have not come for so long, in words."""
    return [f"no {stream} for {secs:g} s" for stream in sorted(streams)]
