"""Recordings through the whole program: real ones beside what is seen and heard in them, made
ones beside their exact truth, broken ones beside what a user should be told.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import pytest
from media_factory import make_flash_beep
from programs import finish

from mmstream.cli import EXIT_FAILED
from mmstream.clock import ManualClock
from mmstream.heads.events import EventHead
from mmstream.media import NS_PER_SEC, MediaItem, SourceStarted, Span, VideoFrame
from mmstream.messages import Event
from mmstream.metrics import StageMetrics
from mmstream.pipelines import graph
from mmstream.pipelines.configuration import Configuration
from mmstream.runtime.capture import ThreadedSource
from mmstream.runtime.chain import Chain
from mmstream.runtime.graph import Graph
from mmstream.runtime.local import LocalRuntime
from mmstream.sinks.memory import MemorySink
from mmstream.sources.media import MediaFile, MediaSettings
from mmstream.stages import Reader
from mmstream.windows import HopCutter, HopSettings
from mmstream.worker import WorkerSettings

MIN_PREFIX_SECS = 15


def events_of(reader: Reader) -> Sequence[Event]:
    """What the recipe `surveillance` says of a source, with its own defaults."""
    settings = Configuration.model_validate({"sources": {"x": {"type": "media", "url": "x"}}})
    specs = graph.specs(settings.detectors)
    labels = [label for spec in specs for label in spec.labels]
    thresholds = {"motion": settings.events.motion, "loud": settings.events.loud}
    head = EventHead(node="test", source=reader.name, labels=labels, settings=thresholds)
    chain = Chain(ThreadedSource(reader), HopCutter(reader.name, HopSettings(), live=False), head)
    memory = MemorySink()
    made = Graph("test", (chain,), specs, WorkerSettings(max_batch=1), (memory,), reports=False)
    asyncio.run(LocalRuntime(made, ManualClock(), boot_id="test").run())
    return memory.contents(Event)


def media(path: Path) -> MediaFile:
    return MediaFile("clip", MediaSettings(type="media", url=str(path), pace="max"), ManualClock())


def spans(events: Sequence[Event], label: str) -> list[Span]:
    """When events of a label were, checked to be whole: a start, then an end."""
    ours = [event for event in events if event.label == label]
    starts = [event.id for event in ours if event.type == "start"]
    ends = [event for event in ours if event.type == "end"]
    assert [event.id for event in ends] == starts
    return [Span(ns(event.t_start), ns(event.t_end or 0.0)) for event in ends]


def ns(secs: float) -> int:
    return round(secs * NS_PER_SEC)


@pytest.mark.parametrize(
    ("name", "video_codec", "audio_codec", "fps"),
    [
        ("a.mp4", "libx264", "aac", 30),
        ("b.webm", "libvpx", "libopus", 25),
        ("c.avi", "mpeg4", "pcm_s16le", 30),
    ],
)
def test_flash_and_beep_are_told_at_one_instant(
    name: str, video_codec: str, audio_codec: str, fps: int, tmp_path: Path
) -> None:
    made = make_flash_beep(
        tmp_path / name,
        video_codec=video_codec,
        audio_codec=audio_codec,
        fps=fps,
        n_flashes=6,
        size=(320, 180),
    )
    events = events_of(media(made.path))
    seen = [span.start_ns for span in spans(events, "motion")]
    heard = [span.start_ns for span in spans(events, "loud")]
    assert len(seen) == len(heard) == len(made.instants_ns)
    apart_ms = [abs(a - v) / 1e6 for a, v in zip(heard, seen, strict=True)]
    assert median(apart_ms) <= 10, apart_ms
    assert max(apart_ms) <= 500 / fps + 10, apart_ms
    for instants_ns in (seen, heard):
        errors_ms = [abs(a - b) / 1e6 for a, b in zip(instants_ns, made.instants_ns, strict=True)]
        assert max(errors_ms) <= 1000 / fps + 10, errors_ms


def truth(data_dir: Path, clip: str, label: str) -> list[Span]:
    rows = [line.split("\t") for line in (data_dir / "events.tsv").read_text("utf-8").splitlines()]
    return [Span(ns(float(r[2])), ns(float(r[3]))) for r in rows if r[:2] == [clip, label]]


def test_cars_are_seen_when_they_pass_and_a_silent_track_is_never_loud(data_dir: Path) -> None:
    clip = "surveillance/car_detection.mp4"
    events = events_of(media(data_dir / clip))
    cars = truth(data_dir, clip, "car_present")
    seen = spans(events, "motion")
    assert len(cars) == 3
    for car in cars:
        assert any(span.overlap_ns(car) > car.duration_ns // 2 for span in seen), (car, seen)
    slack_ns = 2 * NS_PER_SEC  # the times were read by eye, and an entering car is seen early
    wide = [Span(max(0, car.start_ns - slack_ns), car.end_ns + slack_ns) for car in cars]
    assert all(any(span.overlap_ns(car) for car in wide) for span in seen), seen
    assert spans(events, "loud") == []


def test_pedestrians_are_seen(data_dir: Path) -> None:
    seen = spans(events_of(media(data_dir / "surveillance/pedestrians_pavement.mp4")), "motion")
    assert sum(span.duration_ns for span in seen) >= 4 * NS_PER_SEC, seen


class PingPong:
    """A recording after 15 s of its own first two, forth and back (fits `stages.Reader`)."""

    name = "garden"
    live = False
    metrics: Sequence[StageMetrics] = ()

    def __init__(self, recording: MediaFile) -> None:
        self._recording = recording

    @contextmanager
    def read(self) -> Iterator[Iterator[MediaItem]]:
        with self._recording.read() as items:
            frames = [item for item in items if isinstance(item, VideoFrame)]
        step_ns = frames[1].start_ns - frames[0].start_ns
        first = [frame for frame in frames if frame.start_ns < 2 * NS_PER_SEC]
        there_and_back = [*first, *reversed(first)]
        n_rounds = -(-MIN_PREFIX_SECS * NS_PER_SEC // (len(there_and_back) * step_ns))
        shown = [*there_and_back * n_rounds, *frames]
        dated = [VideoFrame(self.name, i * step_ns, f.image) for i, f in enumerate(shown)]
        yield iter([SourceStarted(self.name, frozenset({"video"}), 0, None), *dated])


def test_a_change_of_light_is_no_event(data_dir: Path) -> None:
    garden = data_dir / "surveillance/garden_brightness_change.avi"
    assert events_of(PingPong(media(garden))) == ()


def broken(tmp_path: Path, data_dir: Path) -> dict[str, Path]:
    whole = (data_dir / "av_clips/his_girl_friday.mp4").read_bytes()
    files = {
        "empty": b"",
        "text": b"this is no recording\n" * 100,
        "headless": whole[len(whole) // 2 :],
    }
    for name, content in files.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
    (tmp_path / "folder.mp4").mkdir()
    return {name: tmp_path / f"{name}.mp4" for name in (*files, "folder", "missing")}


@pytest.mark.parametrize("kind", ["empty", "text", "headless", "folder", "missing"])
def test_a_file_that_is_no_recording_is_one_clear_line(
    kind: str, tmp_path: Path, data_dir: Path
) -> None:
    path = broken(tmp_path, data_dir)[kind]
    played = finish("replay", str(path))
    assert played.returncode == EXIT_FAILED
    assert played.stdout == ""
    assert str(path) in played.stderr
    assert len(played.stderr.splitlines()) == 1, played.stderr


def test_a_recording_that_breaks_off_is_told_up_to_there(tmp_path: Path, data_dir: Path) -> None:
    whole = (data_dir / "av_clips/tears_of_steel_battle.webm").read_bytes()
    cut = tmp_path / "cut.webm"
    cut.write_bytes(whole[: len(whole) // 8])
    seen = spans(events_of(media(cut)), "motion")
    assert 5 * NS_PER_SEC < seen[-1].end_ns < 30 * NS_PER_SEC, seen


def test_a_corrupt_middle_is_skipped(tmp_path: Path, data_dir: Path) -> None:
    whole = bytearray((data_dir / "av_clips/tears_of_steel_battle.webm").read_bytes()[:900_000])
    whole[300_000:330_000] = bytes(30_000)
    damaged = tmp_path / "damaged.webm"
    damaged.write_bytes(whole)
    seen = spans(events_of(media(damaged)), "motion")
    assert seen[-1].end_ns > 8 * NS_PER_SEC, seen
