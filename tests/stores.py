"""Event logs on disk for the tests of `mmstream.store`."""

import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from sink_messages import T_NS, event, published

from mmstream.messages import Content, NumberedStamp, Published
from mmstream.store.eviction import Limits
from mmstream.store.store import Spooled, Store

ROOMY = Limits(max_age_ns=10**18, max_bytes=10**9)


@contextmanager
def opened(path: Path, limits: Limits = ROOMY, *, now_ns: int = T_NS) -> Iterator[Store]:
    store = Store(path, limits, now_ns=now_ns)
    try:
        yield store
    finally:
        store.close()


def numbered(contents: Sequence[Content], first_seq: int = 0) -> list[Published]:
    return [published(content, first_seq + index) for index, content in enumerate(contents)]


def of_boot(message: Published, boot_id: str) -> Published:
    return Published(message.content, message.stamp.model_copy(update={"boot_id": boot_id}))


def life(event_id: str, first_seq: int = 0, *, source: str = "door") -> list[Published]:
    """An event from start to end: three messages."""
    steps = [event(event_id, step, source=source) for step in ("start", "update", "end")]
    return numbered(steps, first_seq)


def append(store: Store, messages: Sequence[Published], *, now_ns: int = T_NS) -> tuple[int, ...]:
    """All of them are taken."""
    keys = store.append(messages, now_ns=now_ns)
    taken = tuple(key for key in keys if key is not None)
    assert len(taken) == len(keys)
    return taken


def seqs(spooled: Sequence[Spooled]) -> list[int | None]:
    return [seq_of(one.message) for one in spooled]


def seq_of(message: Published) -> int | None:
    assert isinstance(message.stamp, NumberedStamp)
    return message.stamp.seq


def check_texts(path: Path) -> None:
    """The words that can be found are those of the entries, neither more nor less."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO texts (texts, rank) VALUES ('integrity-check', 1)")


def mount(*arguments: str | Path) -> None:
    """Skips the test where nobody may mount: as another user, in a container without privileges."""
    done = subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")


def copy_as_killed(path: Path, to: Path) -> None:
    """What there would be of the file now, were its writer killed."""
    for ending in ("", "-wal"):
        source = path.with_name(path.name + ending)
        to.with_name(to.name + ending).write_bytes(source.read_bytes())


def fill_disk(file: Path) -> None:
    """To the last byte."""
    with suppress(OSError), file.open("wb", 0) as ballast:
        while True:
            ballast.write(bytes(4096))


def unmount(folder: Path) -> None:
    subprocess.run(["umount", folder], check=True)
