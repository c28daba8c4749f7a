"""What people have set and seen, in the store."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sink_messages import T_NS
from stores import append, life, opened

from mmstream.errors import StoreError
from mmstream.store import overrides as module
from mmstream.store.event_log import EventLog
from mmstream.store.overrides import Acknowledgement, Override
from mmstream.store.store import Store

MOTION = Override("door", "motion", "OFF", T_NS, "mqtt home/door/motion/set")
LOUD = Override("door", "loud_threshold", "0.25", T_NS + 1, "")
YARD = Override("yard", "enabled", "OFF", T_NS, "SIGHUP")
SEEN = Acknowledgement("e1", "door", "motion", is_open=True, at_ns=T_NS, by="ann")
VERSION_1 = Path(__file__).parent / "golden" / "store_version_1.sql"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


def keep(store: Store, *overrides: Override) -> None:
    for one in overrides:
        store.keep_override(one)


def test_what_was_set_last_is_there_when_it_is_opened_again(path: Path) -> None:
    with opened(path) as store:
        assert store.overrides() == ()
        keep(store, YARD, MOTION, LOUD, replace(MOTION, value="ON", set_ns=T_NS + 2))
    with opened(path) as store:
        assert store.overrides() == (LOUD, replace(MOTION, value="ON", set_ns=T_NS + 2), YARD)


def test_one_or_all_of_a_source_are_forgotten(path: Path) -> None:
    with opened(path) as store:
        keep(store, MOTION, LOUD, YARD)
        store.drop_overrides("door", "motion")
        store.drop_overrides("door", "nothing")
        assert store.overrides() == (LOUD, YARD)
        keep(store, MOTION)
        store.drop_overrides("door", None)
        assert store.overrides() == (YARD,)


def test_more_than_so_many_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OVERRIDES", 2)
    with opened(path) as store:
        keep(store, MOTION, LOUD, MOTION)
        with pytest.raises(StoreError, match="2 features are set, more are not kept"):
            store.keep_override(YARD)
        assert store.overrides() == (LOUD, MOTION)


def test_a_file_of_version_1_takes_them(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1.read_text())
    with opened(path) as store:
        assert store.overrides() == ()
        keep(store, MOTION)
        seen = store.acknowledge("e1", "me", now_ns=T_NS)
        assert seen == replace(SEEN, is_open=False, by="me")
    with opened(path) as store:
        assert store.overrides() == (MOTION,)


def test_an_event_is_acknowledged_once_open_or_over(path: Path) -> None:
    with opened(path) as store:
        messages = life("e1")
        append(store, messages[:1])
        first = store.acknowledge("e1", "ann", now_ns=T_NS)
        assert first == SEEN
        append(store, messages[1:])
        again = store.acknowledge("e1", "bob", now_ns=T_NS + 5)
        assert again == replace(first, is_open=False)
        append(store, life("e2", 3))
        assert store.acknowledge("e3", "ann", now_ns=T_NS) is None
    with closing(EventLog(path)) as log:
        seen = {one.id: (one.acknowledged_ns, one.acknowledged_by) for one in log.entries()}
    assert seen == {"e1": (T_NS, "ann"), "e2": (None, None)}
