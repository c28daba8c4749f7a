"""`mmstream events`: what is listed, shown, found, exported and checked of an event log."""

import csv
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import ROOT
from sink_messages import T_NS, alert, caption, event
from stores import append, life, numbered, opened

from mmstream.clock import ManualClock
from mmstream.errors import ConfigError, StoreError
from mmstream.pipelines import events
from mmstream.store.event_log import EventLog, Filter

ALL = Filter()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    """An event, an alert and a caption, all of them sent, and an event that goes on, unsent."""
    with opened(tmp_path / "pi.db") as store:
        append(store, life("e1"))
        contents = [alert("a1"), caption("final", "glass \x1b[31m breaks"), event("e2")]
        keys = append(store, numbered(contents, 3))
        store.mark_delivered(range(1, keys[-1]))
        with events.opened(tmp_path / "pi.db") as reader:
            yield reader


@pytest.fixture
def _in_new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(os.environ, "TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def listed(log: EventLog, *, as_json: bool = False, limit: int = 50, which: Filter = ALL) -> str:
    out = io.StringIO()
    events.list_entries(log, which, out, limit=limit, as_json=as_json)
    return out.getvalue()


def test_a_line_per_entry_the_newest_first(log: EventLog) -> None:
    heading, *lines = listed(log).splitlines()
    assert heading.split() == ["began", "for", "source", "what", "kind", "score", "state", "id"]
    assert [line.split()[-1] for line in lines] == ["e2", "c1", "a1", "e1"]
    assert "open, 1 not sent" in lines[0]
    assert "1.0 s" in lines[3]
    assert "quiet" in lines[3]


def test_no_escape_of_a_message_reaches_the_terminal(log: EventLog) -> None:
    out = io.StringIO()
    events.show(log, "c1", out, as_json=False)
    events.search(log, "glass", out, limit=9, as_json=False)
    assert "\x1b" not in listed(log) + out.getvalue()
    assert "breaks" in out.getvalue()


def test_json_is_an_object_per_line(log: EventLog) -> None:
    lines = [json.loads(line) for line in listed(log, as_json=True).splitlines()]
    assert [line["id"] for line in lines] == ["e2", "c1", "a1", "e1"]
    assert lines[3]["ts_end"] == "2026-11-23T10:00:01.000Z"
    assert lines[0]["is_open"]


def test_more_than_asked_for_is_told(log: EventLog, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(listed(log, limit=4).splitlines()) == 5
    assert not capsys.readouterr().err
    assert len(listed(log, limit=3).splitlines()) == 4
    assert "there are more" in capsys.readouterr().err


def test_nothing_found_is_told(log: EventLog, capsys: pytest.CaptureFixture[str]) -> None:
    assert not listed(log, which=Filter(source="yard"))
    events.search(log, "elephant", io.StringIO(), limit=1, as_json=False)
    assert capsys.readouterr().err == "mmstream: nothing found\n" * 2


def test_show_tells_all_that_was_said(log: EventLog) -> None:
    out = io.StringIO()
    events.show(log, "e1", out, as_json=False)
    shown = out.getvalue()
    assert "mmstream/pi/door/event" in shown
    for step in ("start", "update", "end"):
        assert f" {step} " in shown
    assert "2026-11-23T10:00:01.000Z" in shown


def test_show_as_json_is_what_went_on_the_wire(log: EventLog) -> None:
    out = io.StringIO()
    events.show(log, "e1", out, as_json=True)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    said = [{"topic": one.topic, **one.payload()} for one in life("e1")]
    assert lines == json.loads(json.dumps(said))


def test_show_of_an_id_that_nothing_has(log: EventLog) -> None:
    with pytest.raises(StoreError, match="'e9'"):
        events.show(log, "e9", io.StringIO(), as_json=False)


def test_search_shows_where_the_words_stand(log: EventLog) -> None:
    out = io.StringIO()
    events.search(log, "BREAK*", out, limit=9, as_json=True)
    (hit,) = (json.loads(line) for line in out.getvalue().splitlines())
    assert hit["id"] == "c1"
    assert "[breaks]" in hit["excerpt"]


def test_jsonl_is_everything_in_the_order_in_which_it_was_said(log: EventLog) -> None:
    out = io.StringIO()
    events.export_messages(log, ALL, out)
    assert [json.loads(line)["seq"] for line in out.getvalue().splitlines()] == [0, 1, 2, 3, 4, 5]


def test_csv_has_a_row_per_entry(log: EventLog) -> None:
    out = io.StringIO()
    events.export_table(log, Filter(content="event"), out)
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert [row["id"] for row in rows] == ["e2", "e1"]
    assert rows[1]["ts_start"] == "2026-11-23T10:00:00.000Z"
    assert float(rows[1]["t_end"]) - float(rows[1]["t_start"]) == 1
    assert rows[0]["t_end"] == ""


def test_an_export_spares_what_it_reads(tmp_path: Path) -> None:
    path = tmp_path / "pi.db"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="another file"), events.written_to(str(path), [path]):
        pass
    assert path.read_text() == "precious"
    nowhere = str(tmp_path / "nosuch" / "x.csv")
    with pytest.raises(ConfigError, match="No such file"), events.written_to(nowhere, [path]):
        pass


@pytest.mark.parametrize("end", ["", "-wal", "-shm", ".lock"])
def test_an_export_spares_what_a_run_keeps_beside_its_log(tmp_path: Path, end: str) -> None:
    """What stands in `-wal` is in no other file yet."""
    path = tmp_path / "pi.db"
    with opened(path) as store:
        append(store, life("e1"))
        taken = path.with_name(path.name + end)
        before = taken.read_bytes()
        refused = pytest.raises(ConfigError, match="another file")
        with refused, events.written_to(str(taken), events.beside(path)):
            pass
        assert taken.read_bytes() == before


@pytest.mark.parametrize("asked", [("list",), ("export",)])
def test_a_full_disk_behind_standard_output_is_told_in_a_line(
    tmp_path: Path, asked: tuple[str, ...]
) -> None:
    with opened(tmp_path / "pi.db") as store:
        append(store, life("e1"))
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "main", "events", *asked, "--store", tmp_path / "pi.db"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    told = "mmstream: standard output cannot be written: No space left on device\n"
    assert (ran.returncode, ran.stderr) == (2, told)


def test_check_says_whether_the_file_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "pi.db"
    with opened(path) as store:
        append(store, numbered([event(f"e{n}") for n in range(200)]))
    out = io.StringIO()
    with events.opened(path) as log:
        assert events.check(log, out)
    assert out.getvalue() == f"{path}: sound\n"
    content = bytearray(path.read_bytes())
    content[20_000:30_000] = bytes(10_000)
    path.write_bytes(content)
    with events.opened(path) as log:
        assert not events.check(log, out)
    assert len(out.getvalue().splitlines()) > 1


@pytest.mark.parametrize("holds", [b"", b"not a database, but words" * 100])
def test_a_file_that_is_no_event_log(tmp_path: Path, holds: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(holds)
    with pytest.raises(StoreError, match=r"notes\.txt"), events.opened(path):
        pass


@pytest.mark.usefixtures("_in_new_york")
@pytest.mark.parametrize(
    ("text", "secs_after"),
    [
        ("2026-11-23T10:00:00Z", 0),
        ("2026-11-23T12:00:00+01:00", 3600),
        ("2026-11-23T05:00", 0),
        ("2026-11-23", -5 * 3600),
        ("90s", -90),
        ("1.5h", -5400),
        ("2d", -172_800),
    ],
)
def test_times_as_people_type_them(text: str, secs_after: int) -> None:
    clock = ManualClock(utc_ns=T_NS)
    assert events.instant_ns(text, clock, "--since") == T_NS + secs_after * 10**9


@pytest.mark.parametrize("text", ["", "yesterday", "10:00", "2026-13-01", "-2h", "2 years"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--until"):
        events.instant_ns(text, ManualClock(), "--until")
