"""Pictures of what happens: of the right moment, masked, marked, paced, and of sound what it is."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from brokers import running, until
from sink_messages import T_NS, event, published
from streams import chunk, ms, pictures, started
from test_codecs_jpeg import decoded

from mmstream.clock import SystemClock
from mmstream.codecs import image_from_array
from mmstream.errors import CommandError
from mmstream.media import Bytes, SourceItem, VideoFrame
from mmstream.messages import Event, Evidence, Info, WireBox
from mmstream.pipelines import graph
from mmstream.pipelines.configuration import Configuration
from mmstream.runtime import snapshots
from mmstream.runtime.local import LocalRuntime
from mmstream.runtime.snapshots import Shot, Snapshots, SnapshotSettings, developed
from mmstream.sinks.memory import MemorySink
from mmstream.windows import Glimpse, HopCutter, HopSettings

CORNER = ((0.0, 0.0), (0.25, 0.0), (0.25, 0.25), (0.0, 0.25))
OFF = ("presence", "person", "face", "speech", "alarm", "condition", "impact", "person_speaking")
COLOUR = (255, 196, 0)
NOTHING = np.zeros(0, np.float32)


class Wall:
    """Keeps what is shown (fits `Gallery`)."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, bytes]] = []

    def show(self, source: str, jpeg: bytes) -> None:
        self.shown.append((source, jpeg))


def watched(url: Path) -> tuple[list[Bytes], tuple[Event, ...], Info]:
    """The pictures of a run over a clip up to the first, its events, and what it said of itself."""
    settings = Configuration.model_validate(
        {
            "node": "pi",
            "sources": {"cam": {"type": "media", "url": str(url), "pace": "max"}},
            "detectors": {**dict.fromkeys(OFF, False), "motion": {"masks": {"cam": [CORNER]}}},
            "events": {"motion": {"for_secs": 2, "within_secs": 3}},
            "snapshots": {"width": 640},
            "sinks": {"mqtt": {"port": 1}},
        }
    )
    wall, memory = Wall(), MemorySink()
    assert settings.snapshots is not False
    masks = {"cam": settings.detectors.masks("cam")}
    taker = Snapshots(settings.snapshots, [wall], masks)
    built = replace(graph.build(settings, SystemClock(), (memory, taker)), snapshots=taker)

    async def scenario() -> None:
        runtime = LocalRuntime(built, SystemClock(), boot_id="b00t")
        task = asyncio.create_task(runtime.run())
        await until(lambda: bool(wall.shown), "a picture")
        runtime.stop()
        await task

    asyncio.run(scenario())
    pictures = [decoded(jpeg) for _, jpeg in wall.shown]
    return pictures, memory.contents(Event), memory.contents(Info)[-1]


def test_the_car_is_in_its_box_and_a_mask_is_black(data_dir: Path) -> None:
    clip = data_dir / "surveillance/car_detection.mp4"
    pictures, events, info = watched(clip)
    assert "snapshots" in info.capabilities
    picture = pictures[0].astype(int)
    assert picture.shape == (360, 640, 3)
    assert picture[:88, :158].max() < 12  # JPEG rings by a few levels
    assert picture[100:, 200:].max() > 100

    box = events[0].evidence[0].box
    assert (events[0].label, events[0].type) == ("motion", "start")
    assert box is not None
    left, right = (round(x * 639) for x in (box.x, box.x + box.width))
    top, bottom = (round(y * 359) for y in (box.y, box.y + box.height))
    for edge in (picture[top, left:right], picture[top:bottom, left]):
        assert np.median(np.abs(edge - COLOUR).max(axis=1)) < 60

    white = picture.min(axis=2) > 150  # the car; the road around it is dark
    inside = np.zeros_like(white)
    inside[top + 3 : bottom - 2, left + 3 : right - 2] = True
    outside = ~inside
    outside[max(0, top - 24) : bottom + 24, max(0, left - 3) : right + 60] = False  # its text
    assert white[inside].mean() > 0.25
    assert white[outside].mean() < 0.02


def coloured(level: int) -> VideoFrame:
    pixels = np.full((90, 160, 3), level, np.uint8)
    return VideoFrame("door", 0, image_from_array(pixels))


def test_masks_are_painted_before_anything_else() -> None:
    glimpse = Glimpse(0, coloured(200), NOTHING, 16_000)
    settings = SnapshotSettings(width=160, quality=100)
    plain = decoded(developed(Shot("door", glimpse, ()), settings, ()))
    masked = decoded(developed(Shot("door", glimpse, ()), settings, (CORNER,)))
    assert plain.min() > 190
    assert masked[:22, :40].max() < 8
    assert masked[30:, 50:].min() > 190
    assert glimpse.frame is not None
    assert glimpse.frame.image.rgb().min() == 200  # the detectors' own picture is as it was


def cutter(items: list[SourceItem]) -> HopCutter:
    made = HopCutter("cam", HopSettings(), live=False)
    for item in items:
        made.push(item)
    return made


def test_a_glimpse_is_of_its_moment_and_of_nothing_that_is_switched_off() -> None:
    both = cutter([started(), chunk(0, 32_000), *pictures(0, 2, fps=10)])
    newest, held = both.glimpse(), both.glimpse(ms(349))
    assert newest is not None
    assert held is not None
    assert newest.frame is not None
    assert newest.frame.start_ns == ms(1900)
    assert held.frame is not None
    assert held.utc_ns == held.frame.start_ns == ms(300)
    heard = both.glimpse(ms(500), without=frozenset({"video"}))
    assert heard is not None
    assert heard.frame is None
    assert heard.utc_ns == ms(1500)
    assert heard.samples[-24_000:].tolist() == chunk(0, 24_000).samples.tolist()
    assert both.glimpse(without=frozenset({"audio", "video"})) is None
    assert cutter([]).glimpse() is None


@asynccontextmanager
async def taking(
    find: Callable[[str, int | None], Glimpse | None], **settings: object
) -> AsyncIterator[tuple[Snapshots, Wall]]:
    wall = Wall()
    taker = Snapshots(SnapshotSettings.model_validate({"width": 160, **settings}), [wall], {})
    taker.look_through(find)
    async with running(taker):
        yield taker, wall


def seen(level: int, *, off_ns: int = 0) -> Glimpse:
    return Glimpse(T_NS + off_ns, coloured(level), NOTHING, 16_000)


def found(event_id: str, top_score: float, *, source: str = "door") -> Event:
    box = WireBox(x=0.25, y=0.25, width=0.5, height=0.5)
    evidence = Evidence(
        modality="video",
        detector="motion",
        label="motion",
        score=top_score,
        t_start=T_NS / 1e9,
        t_end=T_NS / 1e9,
        box=box,
    )
    changes = {"top_score": top_score, "evidence": (evidence,)}
    return event(event_id, source=source).model_copy(update=changes)


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await scenario()

    asyncio.run(bounded())


def test_the_newest_waits_for_its_turn_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshots, "PAUSE_SECS", 0.3)
    levels = iter((50, 100, 150, 200, 250))

    async def scenario() -> None:
        async with taking(lambda _source, _at: seen(next(levels))) as (taker, wall):
            await taker.publish(published(found("e1", 0.5)))
            await until(lambda: len(wall.shown) == 1, "the first")
            for top_score in (0.6, 0.7, 0.7, 0.65):  # two of them are no rise
                await taker.publish(published(found("e1", top_score)))
            await taker.publish(published(found("e2", 0.5, source="yard")))
            await until(lambda: len(wall.shown) == 2, "another source does not wait")
            assert wall.shown[1][0] == "yard"
            await until(lambda: len(wall.shown) == 3, "the newest")
            assert decoded(wall.shown[2][1])[80:, :10].mean() == pytest.approx(150, abs=3)
            await taker.publish(published(event("e1", "end")))
        assert dict(taker.metrics.dropped) == {"superseded": 1}
        assert (taker.metrics.n_in, taker.metrics.n_out) == (4, 3)

    play(scenario)


@pytest.mark.parametrize(("off_ns", "has_box"), [(0, True), (ms(90), True), (ms(500), False)])
def test_boxes_are_of_the_same_moment_only(off_ns: int, *, has_box: bool) -> None:
    async def scenario() -> None:
        async with taking(lambda _source, _at: seen(90, off_ns=off_ns)) as (taker, wall):
            await taker.publish(published(found("e1", 0.5)))
            await until(lambda: bool(wall.shown), "a picture")
        edge = decoded(wall.shown[0][1])[30:60, 40, 0]
        assert (edge.min() > 180) == has_box
        assert (edge.max() < 100) != has_box

    play(scenario)


@pytest.mark.parametrize("glimpse", [None, seen(9, off_ns=ms(3100)), seen(9, off_ns=-ms(3100))])
def test_what_is_gone_from_the_ring_is_counted(glimpse: Glimpse | None) -> None:
    async def scenario() -> None:
        async with taking(lambda _source, _at: glimpse) as (taker, wall):
            await taker.publish(published(found("e1", 0.5)))
        assert wall.shown == []
        assert dict(taker.metrics.dropped) == {"gone": 1}

    play(scenario)


def test_a_request_gets_the_newest_and_sound_its_spectrogram() -> None:
    asked: list[tuple[str, int | None]] = []
    tone = np.sin(np.arange(64_000) / 4).astype(np.float32)
    threads: set[str] = set()

    class Spy(Wall):
        def show(self, source: str, jpeg: bytes) -> None:
            threads.add(threading.current_thread().name)
            super().show(source, jpeg)

    def find(source: str, at_utc_ns: int | None) -> Glimpse | None:
        asked.append((source, at_utc_ns))
        return {"ear": Glimpse(T_NS, None, tone, 16_000), "door": seen(90)}.get(source)

    async def scenario() -> None:
        wall = Spy()
        taker = Snapshots(SnapshotSettings(on=frozenset({"request"})), [wall], {})
        taker.look_through(find)
        async with running(taker):
            await taker.publish(published(found("e1", 0.5)))
            assert asked == []
            door, ear = await taker.take("door"), await taker.take("ear")
            with pytest.raises(CommandError, match="nothing of cellar"):
                await taker.take("cellar")
        assert (door["kind"], ear["kind"]) == ("picture", "sound")
        assert [len(jpeg) for _, jpeg in wall.shown] == [door["bytes"], ear["bytes"]]
        assert decoded(wall.shown[0][1]).shape == (90, 160, 3)  # never made larger
        assert decoded(wall.shown[1][1]).shape == (360, 640, 3)
        json.dumps(door)

    play(scenario)
    assert asked == [("door", None), ("ear", None), ("cellar", None)]
    assert threads == {"MainThread"}


def test_a_picture_that_cannot_be_made_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    broken = Glimpse(T_NS, None, np.zeros((2, 2), np.float32), 0)
    glimpses = iter((broken, broken, seen(90)))

    async def scenario() -> None:
        async with taking(lambda _source, _at: next(glimpses)) as (taker, wall):
            await taker.publish(published(found("e1", 0.5)))
            await until(lambda: taker.metrics.dropped["failed"] == 1, "it has failed")
            with pytest.raises(CommandError, match="cannot be made"):
                await taker.take("door")
            assert (await taker.take("door"))["kind"] == "picture"
            assert len(wall.shown) == 1

    play(scenario)
    assert "no snapshot of door" in caplog.text


def test_those_that_do_not_ask_for_pictures_are_told_how() -> None:
    async def scenario() -> None:
        async with taking(lambda _source, _at: seen(9), on=["events"]) as (taker, _):
            with pytest.raises(CommandError, match="request"):
                await taker.take("door")

    play(scenario)
