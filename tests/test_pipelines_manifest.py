"""The events of an event log as labelled stretches of recordings."""

import csv
import io
from pathlib import Path

import pytest
from sink_messages import T_NS, alert, event
from stores import append, numbered, opened

from mmstream.errors import ConfigError, SourceError
from mmstream.messages import Event, Published
from mmstream.pipelines import events, manifest
from mmstream.pipelines.configuration import Configuration
from mmstream.store.event_log import Filter

CLIP = Path("surveillance") / "one_by_one_person.mp4"
CLIP_SECS = 139.4
T_SECS = T_NS / 1e9


def lasting(event_id: str, start_s: float, end_s: float) -> list[Published]:
    """An event of `door` from `start_s` to `end_s` since 1970."""
    started = event(event_id)
    assert isinstance(started, Event)
    times = {"t_start": start_s, "t_end": end_s, "type": "end", "end_reason": "quiet"}
    return numbered([started.model_copy(update=times)], first_seq=round(start_s * 10))


def test_a_manifest_is_where_in_the_recording_each_event_was(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    door = {"type": "media", "url": str(data_dir / CLIP), "epoch": "2026-11-23T10:00:00Z"}
    settings = Configuration.model_validate({"sources": {"door": door, "yard": door}})
    with opened(tmp_path / "pi.db") as store:
        append(store, lasting("inside", T_SECS + 6, T_SECS + 19.25))
        append(store, lasting("over its end", T_SECS + 130, T_SECS + 150))
        append(store, lasting("after it", T_SECS + 140, T_SECS + 150))
        append(store, lasting("before it", T_SECS - 10, T_SECS + 5))
        append(store, numbered([event("open"), alert("no event")]))
        append(store, numbered([event("of a camera", source="camera")], 7))
    out = io.StringIO()
    with events.opened(tmp_path / "pi.db") as log:
        manifest.export(log, Filter(), out, played=manifest.recordings(settings))
    assert list(csv.reader(io.StringIO(out.getvalue()))) == [
        ["path", "start", "end", "labels"],
        [str(data_dir / CLIP), "130.000", f"{CLIP_SECS:.3f}", "motion"],
        [str(data_dir / CLIP), "6.000", "19.250", "motion"],
    ]
    assert "left out: 4" in capsys.readouterr().err


def test_a_manifest_of_cameras_is_refused() -> None:
    settings = Configuration.model_validate({"sources": {"room": {"type": "synthetic"}}})
    with pytest.raises(ConfigError, match="type: media"):
        manifest.recordings(settings)


def test_a_manifest_of_a_recording_that_is_gone_is_refused() -> None:
    gone = {"type": "media", "url": "nosuch.mp4"}
    with pytest.raises(SourceError, match=r"nosuch\.mp4"):
        manifest.recordings(Configuration.model_validate({"sources": {"door": gone}}))
