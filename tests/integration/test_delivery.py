"""What must arrive does: the program, its event log on disk, and a broker that comes and goes."""

import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from brokers import Heard, Listener, Mosquitto, wait_until
from programs import start
from stores import fill_disk, mount, unmount

pytestmark = pytest.mark.broker

SURE = ["max_inflight_messages 0", "autosave_on_changes true", "autosave_interval 1"]
"""mosquitto itself forgets what it has acknowledged and not passed on: here it does not."""
SOURCES = ("a", "b", "c")


@dataclass(frozen=True)
class Said:
    """What identifies a message, and how it came."""

    boot_id: str
    seq: int
    id: str
    type: str
    end_reason: str | None
    late: bool


@dataclass(frozen=True)
class Place:
    """A folder with a configuration, and where its event log is."""

    folder: Path
    store: Path

    def configure(self, port: int, *, outbox_size: int = 10_000) -> None:
        off = ("presence", "person", "face", "speech", "alarm", "condition", "impact")
        config = {
            "node": "test",
            "sources": {
                name: {
                    "type": "synthetic",
                    "scene": "flash_beep",
                    "live": True,
                    "width": 160,
                    "height": 90,
                    "fps": 10,
                }
                for name in SOURCES
            },
            "detectors": dict.fromkeys((*off, "person_speaking", "avp"), False),
            "events": {"loud": {"min_off_secs": 0.5}, "motion": {"min_off_secs": 0.5}},
            "store": {"path": str(self.store)},
            "sinks": {"mqtt": {"port": port, "outbox_size": outbox_size}},
        }
        (self.folder / "config.yaml").write_text(json.dumps(config))

    @contextmanager
    def run(self) -> Iterator[subprocess.Popen[str]]:
        with start("run", "config.yaml", "--no-web", folder=self.folder) as process:
            try:
                yield process
            finally:
                process.kill()  # where the test has failed

    def rows(self, sql: str) -> list[tuple[str, ...]]:
        """What is on disk, beside the program that writes it."""
        with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True)) as connection:
            return connection.execute(sql).fetchall()

    def n_waiting(self) -> int:
        return len(self.waiting())

    def waiting(self) -> set[tuple[str, int]]:
        found = self.rows("SELECT boot_id, seq FROM messages WHERE is_waiting = 1")
        return {(boot_id, int(seq)) for boot_id, seq in found}

    def open_ids(self) -> set[str]:
        return {event_id for (event_id,) in self.rows("SELECT id FROM entries WHERE is_open = 1")}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, tmp_path / "events.db")


@contextmanager
def broker_and_listener(folder: Path) -> Iterator[tuple[Mosquitto, Listener]]:
    """A broker that keeps what comes while the listener is away, and is known to it."""
    with (
        Mosquitto(folder, is_persistent=True, extra=SURE) as broker,
        Listener(broker.port, name="durable") as listener,
    ):
        broker.save()
        yield broker, listener


def said(heard: Sequence[Heard]) -> list[Said]:
    """The events, as they came."""
    events = [json.loads(one.payload) for one in heard if one.topic.endswith("/event")]
    return [Said(**{name: one[name] for name in Said.__dataclass_fields__}) for one in events]


def of_boot(listener: Listener, boot_id: str) -> list[Said]:
    return [one for one in said(listener.heard) if one.boot_id == boot_id]


def once(events: Sequence[Said]) -> dict[tuple[str, int], Said]:
    """What a subscriber keeps who drops what has come before; twice may come only the same."""
    kept: dict[tuple[str, int], Said] = {}
    for one in events:
        first = kept.setdefault((one.boot_id, one.seq), one)
        assert (first.id, first.type) == (one.id, one.type)
    return kept


def assert_gap_free(events: Sequence[Said]) -> None:
    """Of each boot every number, in order, from 0 on."""
    kept = list(once(events))
    assert kept
    for boot_id in {boot_id for boot_id, _ in kept}:
        numbers = [seq for boot, seq in kept if boot == boot_id]
        assert numbers == list(range(len(numbers))), boot_id


def has_heard(listener: Listener, n_events: int) -> bool:
    return len(once(said(listener.heard))) >= n_events


def stop(process: subprocess.Popen[str]) -> str:
    """End it; gives what it has said to people."""
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    return errors


def test_an_outage_loses_nothing_and_the_present_is_told_first(place: Place) -> None:
    with broker_and_listener(place.folder) as (broker, listener):
        place.configure(broker.port)
        with place.run() as process:
            wait_until(lambda: has_heard(listener, 4), "some events")
            broker.kill()
            wait_until(lambda: place.n_waiting() >= 4 * len(SOURCES), "events wait on disk")
            before = once(said(listener.heard)).keys()  # some of them not acknowledged
            waiting = place.waiting()
            broker.start()
            wait_until(lambda: waiting <= once(said(listener.heard)).keys(), "they arrive")
            errors = stop(process)
        assert_gap_free(said(listener.heard))
        kept = once(said(listener.heard))
        assert all(kept[one].late for one in waiting - before)
        assert place.n_waiting() == 0
    assert errors.count("\n") == 2  # lost, and then out of reach


def test_retained_topics_are_right_soon_after_the_broker_is_back(place: Place) -> None:
    topics = {f"mmstream/test/{name}/{what}" for name in SOURCES for what in ("open", "status")}
    topics |= {f"mmstream/test/{name}/state/motion" for name in SOURCES}
    status, info = "mmstream/test/status", "mmstream/test/info"
    with Mosquitto(place.folder) as broker:  # it keeps nothing
        place.configure(broker.port)
        with place.run() as process:
            with Listener(broker.port) as before:
                wait_until(lambda: has_heard(before, 4), "some events")
            broker.kill()
            wait_until(lambda: place.n_waiting() >= 8, "events wait on disk")
            broker.start()
            with Listener(broker.port) as listener:
                wait_until(lambda: status in listener.retained(), "it is back")
                wait_until(lambda: topics | {info} <= listener.retained().keys(), "the picture")
                states = listener.retained()
            stop(process)
    assert states[status] == "online"
    for name in SOURCES:
        opened = json.loads(states[f"mmstream/test/{name}/open"])["events"]
        is_on = "motion" in {event["label"] for event in opened}
        assert states[f"mmstream/test/{name}/state/motion"] == ("ON" if is_on else "OFF")


def test_kill_9_in_an_outage_loses_nothing_and_ends_what_was_open(place: Place) -> None:
    with broker_and_listener(place.folder) as (broker, listener):
        place.configure(broker.port)
        with place.run() as process:
            wait_until(lambda: has_heard(listener, 4), "some events")
            broker.kill()
            wait_until(lambda: place.n_waiting() >= 4 and bool(place.open_ids()), "one is open")
            os.kill(process.pid, signal.SIGKILL)
            process.communicate(timeout=5)
        waiting, opened = place.waiting(), place.open_ids()
        [old_boot] = {boot_id for boot_id, _ in waiting}
        with place.run() as process:
            wait_until(lambda: not opened & place.open_ids(), "it is ended on disk")
            broker.start()
            wait_until(lambda: waiting <= once(said(listener.heard)).keys(), "all of the old boot")
            wait_until(lambda: has_new(listener, old_boot), "something of the new one")
            stop(process)
        assert_gap_free(said(listener.heard))
        kept = list(once(said(listener.heard)).values())
        old, new = ([one for one in kept if (one.boot_id == old_boot) is w] for w in (True, False))
        assert kept[: len(old)] == old
        ends = new[: len(opened)]
        assert {one.id for one in ends} == opened
        assert {(one.type, one.end_reason) for one in ends} == {("end", "restart")}
        assert all(one.end_reason != "restart" for one in new[len(opened) :])


def has_new(listener: Listener, old_boot: str) -> bool:
    """Whether the next boot has told more than what the old one left open."""
    return any(one.boot_id != old_boot and one.type == "start" for one in said(listener.heard))


def test_more_than_the_memory_holds_comes_from_disk_in_order(place: Place) -> None:
    with broker_and_listener(place.folder) as (broker, listener):
        place.configure(broker.port, outbox_size=3)
        with place.run() as process:
            wait_until(lambda: has_heard(listener, 4), "some events")
            broker.kill()
            wait_until(lambda: place.n_waiting() >= 20, "more than 3 wait on disk")
            waiting = place.waiting()
            broker.start()
            wait_until(lambda: waiting <= once(said(listener.heard)).keys(), "all arrive")
            errors = stop(process)
        assert_gap_free(said(listener.heard))
    assert "lost:" not in errors


def test_what_waits_at_a_clean_stop_comes_with_the_next_start(place: Place) -> None:
    with broker_and_listener(place.folder) as (broker, listener):
        place.configure(broker.port)
        with place.run() as process:
            wait_until(lambda: has_heard(listener, 4), "some events")
            broker.kill()
            before = once(said(listener.heard)).keys()
            wait_until(lambda: place.n_waiting() >= 4, "events wait on disk")
            errors = stop(process)
        waiting = place.waiting()
        assert f"{len(waiting)} messages wait on disk ({place.store})" in errors
        assert "lost:" not in errors.replace("lost the MQTT broker", "")
        assert place.open_ids() == set()
        broker.start()
        with place.run() as process:
            wait_until(lambda: waiting <= once(said(listener.heard)).keys(), "they come")
            stop(process)
        assert_gap_free(said(listener.heard))
        kept = once(said(listener.heard))
        assert all(kept[one].late for one in waiting - before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Place]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "none", folder)
    yield Place(tmp_path, folder / "events.db")
    unmount(folder)


def test_a_full_disk_holds_nothing_up_and_is_used_again(small_disk: Place) -> None:
    filler = small_disk.store.with_name("filler")
    with broker_and_listener(small_disk.folder) as (broker, listener):
        small_disk.configure(broker.port)
        with small_disk.run() as process:
            wait_until(lambda: has_heard(listener, 4), "some events")
            fill_disk(filler)
            n_heard = len(said(listener.heard))
            wait_until(lambda: has_heard(listener, n_heard + 12), "events go on")
            filler.unlink()
            n_kept = len(small_disk.rows("SELECT key FROM messages"))
            wait_until(
                lambda: len(small_disk.rows("SELECT key FROM messages")) > n_kept, "kept again"
            )
            errors = stop(process)
        listener.wait_for(lambda heard: any(one.payload == "offline" for one in heard))
        assert_gap_free(said(listener.heard))
        [stats] = [
            json.loads(one.payload) for one in listener.heard if one.topic.endswith("stats")
        ][-1:]
        on_disk = {
            (boot, int(seq)) for boot, seq in small_disk.rows("SELECT boot_id, seq FROM messages")
        }
        assert on_disk == once(said(listener.heard)).keys()
    assert stats["stages"]["store"]["dropped"]["not_on_disk"] > 0
    assert errors.count("the disk is full") == 1
    assert errors.count("can be written again") == 1


def test_a_damaged_event_log_is_set_aside_and_told(place: Place) -> None:
    with Mosquitto(place.folder) as broker, Listener(broker.port) as listener:
        place.configure(broker.port)
        with place.run() as process:
            wait_until(lambda: has_heard(listener, 4), "some events")
            stop(process)
        with place.store.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * 8192)
        with place.run() as process:
            n_heard = len(said(listener.heard))
            wait_until(lambda: has_heard(listener, n_heard + 4), "events go on")
            errors = stop(process)
        boot_ids = place.rows("SELECT boot_id FROM messages")
        [boot_id] = set(boot_ids)
        wait_until(lambda: len(of_boot(listener, *boot_id)) >= len(boot_ids), "all are heard")
        assert len(of_boot(listener, *boot_id)) == len(boot_ids)
    [aside] = place.folder.glob("events.db.corrupt-*[0-9Z]")
    assert f"{place.store} was damaged" in errors
    assert str(aside) in errors


def test_an_event_log_that_cannot_be_written_is_a_mistake_in_the_configuration(
    place: Place,
) -> None:
    where = Place(place.folder, place.folder / "config.yaml" / "events.db")
    where.configure(1)
    with where.run() as process:
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert errors.startswith(f"mmstream: store.path: {where.store}: ")
    assert errors.count("\n") == 1
