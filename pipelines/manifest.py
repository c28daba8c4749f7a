"""Manifest: the events of an event log as labelled stretches of recordings, to train on.

event log, what the sources of a configuration played -> path, start, end, labels
"""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TextIO
from urllib.parse import unquote, urlsplit

from mmstream.codecs.length import length_ns
from mmstream.errors import ConfigError
from mmstream.pipelines.configuration import Configuration
from mmstream.pipelines.events import say
from mmstream.sources.media import MediaSettings
from mmstream.sources.pacing import epoch_ns
from mmstream.store.event_log import Entry, EventLog, Filter

COLUMNS: Final = ("path", "start", "end", "labels")


@dataclass(frozen=True, slots=True)
class Recording:
    """What a source played."""

    path: str
    epoch_ns: int
    """When its first instant was, as its events have it, since 1970."""
    length_ns: int | None
    """None: its container does not say."""

    def seconds_of(self, entry: Entry) -> tuple[float, float] | None:
        """From when to when in it an event was; None: at another time, or it is not over."""
        if entry.t_end is None:
            return None
        start_s, end_s = (t - self.epoch_ns / 1e9 for t in (entry.t_start, entry.t_end))
        length_s = math.inf if self.length_ns is None else self.length_ns / 1e9
        return (start_s, min(end_s, length_s)) if 0 <= start_s < length_s else None


def recordings(settings: Configuration) -> dict[str, Recording]:
    """What the sources of a configuration that are recordings play.

    Raises:
        ConfigError: none of them is one.
        SourceError: one of them cannot be opened.
    """
    found = {
        name: Recording(_path(source.url), epoch_ns(source.epoch), length_ns(source.url))
        for name, source in settings.sources.items()
        if isinstance(source, MediaSettings)
    }
    if not found:
        msg = "no source of the configuration is a recording; allowed: one with type: media"
        raise ConfigError(msg)
    return found


def export(log: EventLog, which: Filter, out: TextIO, *, played: Mapping[str, Recording]) -> None:
    """A row of CSV per event that has ended: where in what its source `played`, in seconds."""
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(COLUMNS)
    n_left_out = 0
    for entry in log.entries(replace(which, content="event")):
        recording = played.get(entry.source)
        seconds = None if recording is None else recording.seconds_of(entry)
        if recording is None or seconds is None:
            n_left_out += 1
            continue
        start_s, end_s = seconds
        rows.writerow((recording.path, f"{start_s:.3f}", f"{end_s:.3f}", entry.label))
    if n_left_out:
        why = "still open, or in none of the recordings"
        say(f"events left out: {n_left_out}, {why}")


def _path(url: str) -> str:
    """Of a recording, so that it is found from any folder."""
    parts = urlsplit(url)
    path = Path(unquote(parts.path) if parts.scheme == "file" else url)
    return str(path.expanduser().absolute())
