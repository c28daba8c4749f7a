"""Events: what an event log holds, listed, shown, searched, exported and checked.

event log -> table, JSON lines, CSV (and a manifest to train on: `mmstream.pipelines.manifest`)

It only reads, also while a run writes the same file. Times that people type and read are local;
those in JSON, CSV and manifests are not.
"""

import csv
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

from rich.console import Console

from mmstream.clock import Clock
from mmstream.errors import ConfigError, StoreError
from mmstream.messages import iso_utc
from mmstream.pipelines import event_tables
from mmstream.sinks.jsonl import STDOUT, to_line
from mmstream.sinks.spool import StoreSettings
from mmstream.sources.pacing import epoch_ns
from mmstream.store.event_log import Entry, EventLog, Filter

CSV_COLUMNS: Final = (
    "content",
    "id",
    "node",
    "source",
    "kind",
    "label",
    "text",
    "ts_start",
    "ts_end",
    "t_start",
    "t_end",
    "top_score",
    "end_reason",
    "is_open",
)
_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)")
_UNIT_SECS: Final = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def find_store(named: Path | None) -> Path:
    """The file that is meant: the one named, else the only one in the usual folder.

    Raises:
        StoreError: there is none, or there are several; the text says what to do.
    """
    if named is not None:
        return named
    folder = StoreSettings().file("any").parent
    found = sorted(folder.glob("*.db")) if folder.is_dir() else []
    if not found:
        msg = f"no event log in {folder}; `mmstream run` makes one; allowed: --store FILE"
        raise StoreError(msg)
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        msg = f"several event logs in {folder}: {names}; say which: --store FILE"
        raise StoreError(msg)
    return found[0]


@contextmanager
def opened(path: Path) -> Iterator[EventLog]:
    """An event log, for reading.

    Raises:
        StoreError: it is missing, damaged, none of ours, or of another version.
    """
    log = EventLog(path)
    try:
        yield log
    finally:
        log.close()


def instant_ns(text: str, clock: Clock, flag: str) -> int:
    """What `2026-11-23`, `2026-11-23T10:00`, `2026-11-23T10:00Z` or `2h` (ago) means, since 1970.

    Without a zone it is local time.

    Raises:
        ConfigError: it is none of these.
    """
    if ago := _AGO.fullmatch(text.strip()):
        return clock.utc_ns() - round(float(ago[1]) * _UNIT_SECS[ago[2]] * 1e9)
    try:
        return epoch_ns(datetime.fromisoformat(text.strip()).astimezone(UTC))
    except (ValueError, OverflowError):
        msg = (
            f"{flag}: {text!r} is no time; allowed: 2026-11-23, 2026-11-23T10:00:00, "
            "2026-11-23T10:00:00Z, or how long ago: 90s, 30min, 2h, 7d, 4w"
        )
        raise ConfigError(msg) from None


def list_entries(log: EventLog, which: Filter, out: TextIO, *, limit: int, as_json: bool) -> None:
    """The newest entries, the newest first."""
    found = list(log.entries(which, limit=limit + 1))
    shown = found[:limit]
    if as_json:
        out.writelines(_json_line(entry) for entry in shown)
    elif shown:
        event_tables.show(event_tables.listing(shown), out)
    if not shown:
        say("nothing found")
    elif len(found) > limit:
        say(f"these are the newest {limit}; there are more: --limit, or `events export`")


def show(log: EventLog, entry_id: str, out: TextIO, *, as_json: bool) -> None:
    """All that was said of one event, alert or caption.

    Raises:
        StoreError: there is none with this id, or another version of mmstream wrote it.
    """
    messages = list(log.show(entry_id))
    if not messages:
        msg = f"{log.path}: nothing has the id {entry_id!r}; `mmstream events list` shows ids"
        raise StoreError(msg)
    if as_json:
        out.writelines(to_line(message.published()) for message in messages)
        return
    for part in event_tables.life(messages):
        event_tables.show(part, out)


def search(log: EventLog, text: str, out: TextIO, *, limit: int, as_json: bool) -> None:
    """What holds all of these words, the best first."""
    hits = log.search(text, limit=limit)
    if as_json:
        out.writelines(_json_line(hit.entry, excerpt=hit.excerpt) for hit in hits)
    elif hits:
        event_tables.show(event_tables.found(hits), out)
    if not hits:
        say("nothing found")


def check(log: EventLog, out: TextIO) -> bool:
    """Whether the file is sound; says what is wrong with it."""
    with working("looking through the file", out):
        problems = log.check()
    out.writelines(f"{log.path}: {problem}\n" for problem in problems or ("sound",))
    return not problems


def export_messages(log: EventLog, which: Filter, out: TextIO) -> None:
    """All messages of what passes the filter as JSON lines, as they were said one by one."""
    n_unreadable = 0
    with working("exporting", out):
        for message in log.messages(which):
            try:
                out.write(to_line(message.published()))
            except StoreError:
                n_unreadable += 1
    if n_unreadable:
        say(f"messages left out: {n_unreadable}, of another version of mmstream")


def export_table(log: EventLog, which: Filter, out: TextIO) -> None:
    """A row of CSV per event, alert or caption, the newest first."""
    rows = csv.DictWriter(out, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    with working("exporting", out):
        rows.writeheader()
        rows.writerows(_fields(entry) for entry in log.entries(which))


@contextmanager
def written_to(name: str, keep: Iterable[Path] = ()) -> Iterator[TextIO]:
    """The file of that name, or standard output; never one of those to `keep`.

    Raises:
        ConfigError: it is one of those, or cannot be written.
    """
    if name == STDOUT:
        with _told_to_stdout() as out:
            yield out
        return
    path = Path(name)
    if path.exists() and any(one.exists() and path.samefile(one) for one in keep):
        msg = f"--out: {name} is read for this; allowed: another file"
        raise ConfigError(msg)
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            yield file
    except OSError as error:
        msg = f"--out: cannot write {name}: {error.strerror}; allowed: another file, or -"
        raise ConfigError(msg) from None


@contextmanager
def _told_to_stdout() -> Iterator[TextIO]:
    if sys.stdout is None:
        msg = "there is nothing to write to: standard output is closed"
        raise ConfigError(msg)
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read it has seen enough
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the rest, at the end
        msg = f"standard output cannot be written: {error.strerror}"
        raise ConfigError(msg) from None


def beside(store: Path) -> tuple[Path, ...]:
    """An event log, and the files that SQLite and a run keep beside it."""
    return (store, *(store.with_name(store.name + end) for end in ("-wal", "-shm", ".lock")))


def _fields(entry: Entry) -> dict[str, str | float | bool | None]:
    fields = asdict(entry)
    fields["ts_start"] = iso_utc(round(entry.t_start * 1e9))
    fields["ts_end"] = None if entry.t_end is None else iso_utc(round(entry.t_end * 1e9))
    return fields


def _json_line(entry: Entry, **more: str) -> str:
    return json.dumps(_fields(entry) | more, ensure_ascii=False, separators=(",", ":")) + "\n"


def say(text: str) -> None:
    """What is no part of the answer."""
    Console(stderr=True, soft_wrap=True).print(f"mmstream: {text}", markup=False, highlight=False)


@contextmanager
def working(text: str, out: TextIO) -> Iterator[None]:
    """Something moves while it takes long, where nothing else does."""
    console = Console(stderr=True)
    if out.isatty() or not console.is_terminal:
        yield
        return
    with console.status(text):
        yield
