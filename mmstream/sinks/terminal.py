"""What a person watching the terminal sees: a live view, or plain lines where output is piped.

It is only a view: where it cannot be written any more it goes quiet, and the run goes on.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mmstream.messages import Caption, Content, Event, Health, Published
from mmstream.metrics import SourceStatus, StageMetrics
from mmstream.sinks.own_thread import OwnThread
from mmstream.sinks.terminal_captions import NewestCaptions

REFRESH_SECS: Final = 0.25
N_EVENTS: Final = 12
METER_CELLS: Final = 20
METER_FLOOR_DBFS: Final = -60.0
_COLOURS: Final = {"online": "green", "connecting": "yellow", "degraded": "yellow"}

_log = logging.getLogger(__name__)


def view(title: str, out: TextIO | None) -> "LiveView | PlainLines":
    """What fits `out`: a live view on a terminal, plain lines elsewhere; None, as `sys.stdout` is
    where it was closed, shows nothing.
    """
    if out is None:
        return PlainLines(None)
    own = _reopened(out)
    made = LiveView(title, Console(file=own or out)) if out.isatty() else PlainLines(own or out)
    if own is not None:
        made.when_closed = own.close
    return made


def _reopened(out: TextIO) -> TextIO | None:
    """The same place through a file of our own: Python flushes `sys.stdout` when it ends, and a
    write of ours that hangs would hold that up. None where `out` is no file of the system's.
    """
    try:
        out.flush()
        return os.fdopen(os.dup(out.fileno()), "w", encoding=out.encoding, errors=out.errors)
    except OSError:
        return None


def describe(content: Content) -> str | None:
    """An event, a caption that stays or a change of health as one plain line.

    None for what a person need not see.
    """
    match content:
        case Event(type="update"):
            return None
        case Event():
            until = "" if content.ts_end is None else f" until {_clock_time(content.ts_end)}"
            why = "" if content.end_reason in (None, "quiet") else f" ({content.end_reason})"
            return (
                f"{_clock_time(content.ts_start)} {content.source:<12} {content.label:<8} "
                f"{content.type:<5} {content.top_score:.2f}{until}{why}"
            )
        case Caption(state="final") if content.text.strip():
            at = _clock_time(content.ts_start)
            return f"{at} {content.source:<12} {content.kind:<8} {' '.join(content.text.split())}"
        case Health():
            since = _clock_time(content.since)
            return f"{since} {content.source:<12} {content.state}: {content.reason}"
    return None


def _nothing() -> None:
    """Nobody has asked for more."""


def _clock_time(iso: str) -> str:
    return iso[11:23]


class PlainLines:
    """Prints a line per start and end of an event, per final caption and per change of health."""

    name = "terminal"

    def __init__(self, out: TextIO | None) -> None:
        """Print to `out`, if there is one."""
        self.metrics = StageMetrics(self.name)
        self.when_closed: Callable[[], None] = _nothing
        """Called on the thread that prints, after the last line."""
        self._out = out
        self._thread = OwnThread(self.name)
        self._closed = asyncio.Event()
        self._told: dict[str, str] = {}

    def watch(self, statuses: Callable[[], Sequence[SourceStatus]]) -> None:
        """Lines tell of sources through their health messages alone."""

    async def publish(self, message: Published) -> None:
        """Print a message if a person would want to see it."""
        self.metrics.n_in += 1
        line = describe(message.content)
        if isinstance(message.content, Health):
            if self._told.get(message.content.source) == line:
                return
            self._told[message.content.source] = line or ""
        if line is None:
            return
        try:
            await self._thread.do(partial(self._print, line))
        except OSError as error:
            self.metrics.drop("unwritable")
            if self._out is not None:
                _log.warning("nothing more is shown: %s", error.strerror)
            self._out = None
        else:
            self.metrics.n_out += 1

    async def ready(self, timeout_secs: float) -> None:
        """At once."""

    async def run(self) -> None:
        """Wait for `close`."""
        await self._closed.wait()

    async def close(self) -> None:
        """Let `run` return."""
        if not self._closed.is_set():
            self._thread.submit(self.when_closed)
            self._thread.end()
        self._closed.set()

    def _print(self, line: str) -> None:
        if self._out is None:
            raise BrokenPipeError
        self._out.write(line + "\n")
        self._out.flush()


class LiveView:
    """Redraws sources (state, frame rate, level, lag), captions and events a few times a second."""

    name = "terminal"

    def __init__(self, title: str, console: Console) -> None:
        """Draw on `console`."""
        self.metrics = StageMetrics(self.name)
        self.when_closed: Callable[[], None] = _nothing
        """Called on the thread that draws, after the last drawing."""
        self._title = title
        self._statuses: Callable[[], Sequence[SourceStatus]] = tuple
        self._console = console
        self._thread = OwnThread(self.name)
        self._closed = asyncio.Event()
        self._events: deque[Event] = deque(maxlen=N_EVENTS)
        self._captions = NewestCaptions()

    def watch(self, statuses: Callable[[], Sequence[SourceStatus]]) -> None:
        """Draw the sources that `statuses` gives."""
        self._statuses = statuses

    async def publish(self, message: Published) -> None:
        """Remember an event or a caption for the next drawing."""
        self.metrics.n_in += 1
        content = message.content
        if isinstance(content, Event):
            self._forget(content.id)
            self._events.append(content)
            self.metrics.n_out += 1
        elif isinstance(content, Caption):
            self._captions.put(content)
            self.metrics.n_out += 1

    async def ready(self, timeout_secs: float) -> None:
        """At once."""

    async def run(self) -> None:
        """Draw until `close`."""
        try:
            await self._draw()
        except OSError as error:
            self.metrics.drop("unwritable")
            _log.warning("nothing more is shown: %s", error.strerror)
            await self._closed.wait()

    async def close(self) -> None:
        """Draw once more and let `run` return."""
        self._closed.set()

    def render(self) -> Group:
        """The view as it is now."""
        title = Text(self._title, style="bold")
        captions = self._captions.table(self._console)
        return Group(title, self._sources(), *self._troubles(), captions, self._last_events())

    async def _draw(self) -> None:
        live = Live(console=self._console, auto_refresh=False, transient=False)
        try:
            await self._thread.do(live.start)
            while not self._closed.is_set():
                await self._thread.do(partial(live.update, self.render(), refresh=True))
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closed.wait(), REFRESH_SECS)
            await self._thread.do(partial(live.update, self.render(), refresh=True))
        finally:  # not waited for here: who is cancelled need not wait for a terminal that is held
            stopping = self._thread.submit(live.stop)
            self._thread.submit(self.when_closed)
            self._thread.end()
        await asyncio.wrap_future(stopping)

    def _forget(self, event_id: str) -> None:
        kept = [event for event in self._events if event.id != event_id]
        self._events.clear()
        self._events.extend(kept)

    def _sources(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading in ("source", "state", "since", "fps", "level", "lag"):
            table.add_column(heading)
        for status in self._statuses():
            table.add_row(
                status.source,
                Text(status.state, style=_COLOURS.get(status.state, "red")),
                _clock_time(status.since)[:8],
                "-" if status.video_fps is None else f"{status.video_fps:5.1f}",
                _meter(status.audio_dbfs),
                "-" if status.lag_ms is None else f"{status.lag_ms:4.0f} ms",
            )
        return table

    def _troubles(self) -> Sequence[Text]:
        """A line for each source that is not online: why."""
        return [
            Text(f"{status.source}: {status.reason}", no_wrap=True, overflow="ellipsis")
            for status in self._statuses()
            if status.state != "online"
        ]

    def _last_events(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading in ("captured", "source", "event", "score", "for", ""):
            table.add_column(heading)
        for event in reversed(self._events):
            lasted = "now"
            if event.t_end is not None:
                lasted = f"{event.t_end - event.t_start:.1f} s"
            style = "bold" if event.t_end is None else "dim"
            evidence = ", ".join(f"{e.detector} ({event.kind})" for e in event.evidence[:1])
            table.add_row(
                _clock_time(event.ts_start),
                event.source,
                event.label,
                f"{event.top_score:.2f}",
                lasted,
                evidence,
                style=style,
            )
        return table


def _meter(dbfs: float | None) -> Text:
    """A bar from `METER_FLOOR_DBFS` to 0 dBFS."""
    if dbfs is None:
        return Text("-")
    share = min(1.0, max(0.0, 1 - dbfs / METER_FLOOR_DBFS))
    n_cells = round(share * METER_CELLS)
    bar = "█" * n_cells + "░" * (METER_CELLS - n_cells)
    return Text(f"{bar} {dbfs:6.1f} dBFS")
