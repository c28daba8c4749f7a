"""One source's hops on their way to the worker and back, and the marks among them, in order.

A mark (started, stalled, ended, tuned) passes when all hops before it are scored; what comes after
it waits until then. A live source is never held up: while a mark waits for a worker that stands
still, the oldest hops behind it make room and are counted. Files wait and lose nothing.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from mmstream.heads.events import HeadItem, Tuning
from mmstream.media import Hop, Scores, SourceEnded, SourceStalled, SourceStarted
from mmstream.metrics import StageMetrics
from mmstream.worker import Ending, Worker

MAX_IN_FLIGHT: Final = 16
"""Hops of a file between cutting and saying; more wait, so that nothing piles up."""
MAX_TO_SAY: Final = 256
"""Scores that may wait for slow sinks, more than a file ever has in flight."""
MAX_BEHIND: Final = 16
"""Hops of a live source that may wait behind a mark."""
MAX_MARKS: Final = 64
"""Marks on their way; more of them wait outside, whatever the source."""
DRAIN_SECS: Final = 0.7
"""How long the last hops may take to be scored when we shut down."""

Mark = SourceStarted | SourceStalled | SourceEnded | Tuning


class _Finish:
    """Scorers say what is left of the hops before it."""


class Passage:
    """From the cutter through the worker to the head; lives on the loop."""

    def __init__(self, source: str, worker: Worker, metrics: StageMetrics, *, live: bool) -> None:
        """Nothing is on its way."""
        self._source = source
        self._worker = worker
        self._metrics = metrics
        self._live = live
        self._waiting: deque[Hop | Mark | _Finish] = deque()
        """What comes next: a hop for which a file has no room yet, or a mark and what follows."""
        self._to_say: asyncio.Queue[HeadItem | None] = asyncio.Queue()
        """Bounded by `MAX_TO_SAY` scores and `MAX_MARKS` marks."""
        self._unfinished: Hop | None = None
        """The last hop, where scorers may have more to say of it and of those before."""
        self._n_marks = 0
        self._n_in_flight = 0
        self._n_room = MAX_IN_FLIGHT
        self._changed = asyncio.Event()
        self._is_closed = False

    @property
    def is_idle(self) -> bool:
        """Whether the worker holds nothing of the source, and nothing waits for it."""
        return self._n_in_flight == 0 and not self._waiting

    async def put(self, hops: Sequence[Hop]) -> None:
        """Send hops; for a file, wait until there is room for all of them."""
        self._waiting.extend(hops)
        self._advance()
        if self._live:
            self._make_room()
        while not self._live and any(isinstance(one, Hop) for one in self._waiting):
            await self._change()

    async def mark(self, item: Mark) -> None:
        """Tell the head after all that was sent before; for a file, wait until it has passed."""
        while self._n_marks >= MAX_MARKS:
            await self._change()
        self._n_marks += 1
        self._close(item)
        self._advance()
        while not self._live and self._waiting:
            await self._change()

    async def tune(self, tuning: Tuning) -> None:
        """Tell the head after all that was sent before; does not wait until it has passed."""
        while self._n_marks >= MAX_MARKS:
            await self._change()
        if self._is_closed:
            return
        self._n_marks += 1
        self._waiting.append(tuning)
        self._advance()

    def deliver(self, scores: Scores) -> None:
        """The worker has scored a hop."""
        self._n_in_flight -= 1
        if self._is_closed:  # counted as lost already
            if self._n_in_flight == 0:
                self._worker.forget(self._source)
            self._changed.set()
            return
        if self._to_say.qsize() >= MAX_TO_SAY:
            self._metrics.drop("sinks_behind")
        else:
            self._to_say.put_nowait(scores)
        self._advance()

    async def next(self) -> HeadItem | None:
        """What the head is to be told next; None at the end."""
        item = await self._to_say.get()
        if isinstance(item, Mark):
            self._n_marks -= 1
            self._changed.set()
        return item

    def said(self) -> None:
        """What follows from scores is said: there is room for another hop of a file."""
        self._n_room += 1
        self._advance()

    @property
    def n_unsaid(self) -> int:
        """How much of what the worker has given waits for the head."""
        return self._to_say.qsize()

    async def idle(self, secs: float) -> bool:
        """Wait, for so long, until the worker holds nothing; whether it is so."""
        try:
            async with asyncio.timeout(secs):
                while not self.is_idle:
                    await self._change()
        except TimeoutError:
            return False
        return True

    async def finish(self, rest: Sequence[Hop], last: Mark | None) -> None:
        """Send the rest, wait for a moment until it is scored, and end: `next` gives None then.

        With `last` the source leaves and others stay; without, everything shuts down.
        """
        self._n_room += len(self._waiting) + len(rest)  # no time to wait for it
        self._waiting.extend(rest)
        if last is not None:
            self._n_marks += 1
            self._close(last)
        else:
            self._waiting.append(_Finish())
        self._advance()
        if not await self.idle(DRAIN_SECS):
            self._give_up(is_leaving=last is not None)
        self._is_closed = True
        self._to_say.put_nowait(None)

    def _give_up(self, *, is_leaving: bool) -> None:
        left = list(self._waiting)
        self._waiting.clear()
        n_lost = self._n_in_flight + sum(isinstance(one, Hop) for one in left)
        self._metrics.drop("unscored_at_shutdown", n_lost)
        for one in left:
            if isinstance(one, Mark):
                self._to_say.put_nowait(one)
        if not is_leaving:  # else what it holds is waited for before the name is used again
            self._worker.forget(self._source)

    def _close(self, mark: Mark) -> None:
        if isinstance(mark, SourceStalled | SourceEnded):
            self._waiting.append(_Finish())
        self._waiting.append(mark)

    def _finish(self, last: Hop) -> None:
        if not self._live:
            self._n_room -= 1  # it is said like a hop
        self._n_in_flight += 1
        at_ns = last.span.end_ns
        self._worker.finish(Ending(self._source, last.index + 1, at_ns, live=self._live))

    def _advance(self) -> None:
        """Let through what can go."""
        while self._waiting:
            match self._waiting[0]:
                case Hop() as hop:
                    if not self._live:
                        if self._n_room <= 0:
                            break
                        self._n_room -= 1
                    self._n_in_flight += 1 - self._worker.submit(hop, live=self._live)
                    self._unfinished = hop
                case _Finish():
                    if self._n_in_flight:
                        break
                    if self._unfinished is not None and self._worker.finishes:
                        self._finish(self._unfinished)
                    self._unfinished = None
                case mark:
                    if self._n_in_flight:
                        break
                    if isinstance(mark, SourceStarted | SourceEnded):
                        self._worker.forget(self._source)
                    self._to_say.put_nowait(mark)
            self._waiting.popleft()
        self._changed.set()

    def _make_room(self) -> None:
        """Drop the oldest hops that wait behind a mark; what follows them carries a gap."""
        places = [index for index, one in enumerate(self._waiting) if isinstance(one, Hop)]
        n_over = max(0, len(places) - MAX_BEHIND)
        if n_over == 0:
            return
        first = self._waiting[places[n_over]]
        if isinstance(first, Hop):
            self._waiting[places[n_over]] = replace(first, gap_before=True)
        for index in reversed(places[:n_over]):
            del self._waiting[index]
        self._metrics.drop("worker_behind", n_over)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
