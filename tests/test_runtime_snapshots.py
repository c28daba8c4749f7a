"""Pictures of what happens: of the right moment, masked, marked, paced, and of sound what it is."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from brokers import running, until
from sink_messages import T_NS, event, info, published
from streams import chunk, ms, pictures, started
from test_codecs_jpeg import decoded

from mmstream.clock import SystemClock
from mmstream.codecs import image_from_array
from mmstream.detectors.masks import Polygon
from mmstream.errors import CommandError
from mmstream.features.drawing import Mark
from mmstream.media import Box, Bytes, SourceItem, VideoFrame
from mmstream.messages import Event, Evidence, Info, WireBox
from mmstream.pipelines import graph
from mmstream.pipelines.configuration import Configuration
from mmstream.runtime import snapshots
from mmstream.runtime.local import LocalRuntime
from mmstream.runtime.snapshots import Masks, Shot, Snapshots, SnapshotSettings, developed
from mmstream.sinks.memory import MemorySink
from mmstream.windows import Glimpse, HopCutter, HopSettings

CORNER = ((0.0, 0.0), (0.25, 0.0), (0.25, 0.25), (0.0, 0.25))
OFF = (
    *("presence", "person", "face", "speech", "alarm", "condition"),
    *("impact", "person_speaking", "avp"),
)
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
    taker = Snapshots(settings.snapshots, [wall], settings.detectors.masks)
    built = replace(graph.build(settings, SystemClock(), (memory, taker)), snapshots=taker)

    async def scenario() -> None:
        runtime = LocalRuntime(built, SystemClock(), boot_id="b00t")
        task = asyncio.create_task(runtime.run())
        await until(lambda: any(jpeg for _, jpeg in wall.shown), "a picture")
        runtime.stop()
        await task

    asyncio.run(scenario())
    pictures = [decoded(jpeg) for _, jpeg in wall.shown if jpeg]
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
    outside[-24:, :260] = False  # the time
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
    assert plain[:70].min() > 190  # below it is written when it was
    assert masked[:22, :40].max() < 8
    assert masked[30:70, 50:].min() > 190
    assert glimpse.frame is not None
    assert glimpse.frame.image.rgb().min() == 200  # the detectors' own picture is as it was


def test_it_is_written_when_it_was_and_how_much_of_a_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    def spy(rgb: Bytes, _marks: object, *, footer: str) -> Bytes:
        written.append(footer)
        return rgb

    monkeypatch.setattr(snapshots, "marked", spy)
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    try:
        for glimpse in (seen(9), Glimpse(T_NS, None, np.zeros(64_000, np.float32), 8_000)):
            developed(Shot("door", glimpse, ()), SnapshotSettings(), ())
    finally:
        monkeypatch.undo()
        time.tzset()
    assert written[0].startswith("2026-11-23 12:00:00 ")
    assert written[1] == f"{written[0]}, 8.0 s, to 4 kHz"


def evidence(label: str, score: float, box: WireBox | None) -> Evidence:
    at_secs = T_NS / 1e9
    of = {"modality": "video", "detector": label, "label": label, "score": score, "box": box}
    return Evidence.model_validate({**of, "t_start": at_secs, "t_end": at_secs})


def test_each_label_is_written_once_at_its_largest_box(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[Mark, ...]] = []

    def spy(rgb: Bytes, marks: tuple[Mark, ...], *, footer: str) -> Bytes:
        drawn.append(marks)
        assert footer
        return rgb

    monkeypatch.setattr(snapshots, "marked", spy)
    small = WireBox(x=0.5, y=0.5, width=0.1, height=0.1)
    large = WireBox(x=0.1, y=0.1, width=0.2, height=0.8)
    seen_of = (
        evidence("person", 0.7, small),
        evidence("person", 0.934, large),
        evidence("person", 0.8, None),
        evidence("barking_dog", 0.5, None),
    )

    async def scenario() -> None:
        async with taking(lambda _source, _at: seen(90)) as (taker, wall):
            told = found("e1", 0.9).model_copy(update={"evidence": seen_of})
            await taker.publish(published(told))
            await until(lambda: bool(wall.shown), "a picture")

    play(scenario)
    assert drawn == [
        (
            Mark("person 93%", Box(0.1, 0.1, 0.2, 0.8)),
            Mark("", Box(0.5, 0.5, 0.1, 0.1)),
            Mark("barking dog 50%"),
        )
    ]


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
    find: Callable[[str, int | None], Glimpse | None],
    masks: Masks = lambda _source: (),
    **settings: object,
) -> AsyncIterator[tuple[Snapshots, Wall]]:
    wall = Wall()
    chosen = SnapshotSettings.model_validate({"width": 160, **settings})
    taker = Snapshots(chosen, [wall], masks)
    taker.look_through(find)
    async with running(taker):
        yield taker, wall


def seen(level: int, *, off_ns: int = 0) -> Glimpse:
    return Glimpse(T_NS + off_ns, coloured(level), NOTHING, 16_000)


def found(event_id: str, top_score: float, *, source: str = "door") -> Event:
    box = WireBox(x=0.25, y=0.25, width=0.5, height=0.5)
    changes = {"top_score": top_score, "evidence": (evidence("motion", top_score, box),)}
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
            assert decoded(wall.shown[2][1])[10:40, :10].mean() == pytest.approx(150, abs=3)
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
        taker = Snapshots(SnapshotSettings(on=frozenset({"request"})), [wall], lambda _: ())
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


def test_what_nobody_knows_the_masks_of_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        masks = {"yard": ()}
        async with taking(lambda _source, _at: seen(90), masks.get) as (taker, wall):
            await taker.publish(published(found("e1", 0.5)))
            await until(lambda: taker.metrics.dropped["unmasked"] == 1, "it is left out")
            with pytest.raises(CommandError, match="cannot be made"):
                await taker.take("door")
            assert wall.shown == []
            assert (await taker.take("yard"))["kind"] == "picture"

    play(scenario)
    assert "no snapshot of door: its masks are not known" in caplog.text


def test_what_was_made_with_other_masks_is_taken_back() -> None:
    masks = {"door": (CORNER,), "yard": (), "hall": ()}

    async def scenario() -> None:
        async with taking(lambda _source, _at: seen(200), masks.get) as (taker, wall):
            await taker.publish(published(info(door=(), yard=())))
            assert sorted(wall.shown) == [("door", b""), ("yard", b"")]  # of an earlier boot
            await taker.take("door")
            await taker.take("yard")
            await taker.publish(published(info(door=(), yard=(), hall=())))
            assert wall.shown[4:] == [("hall", b"")]
            masks["yard"] = (CORNER,)
            await taker.publish(published(event("e1", "end")))
            await taker.publish(published(event("e2", "end")))
            assert wall.shown[5:] == [("yard", b"")]
            await taker.take("yard")
            await taker.publish(published(event("e3", "end")))
            assert len(wall.shown) == 7
        assert decoded(wall.shown[6][1])[:22, :40].max() < 8

    play(scenario)


def test_what_waits_of_a_source_that_goes_is_not_shown() -> None:
    async def scenario() -> None:
        async with taking(lambda _source, _at: seen(90)) as (taker, wall):
            await taker.publish(published(info(door=(), yard=())))
            await taker.publish(published(found("e1", 0.5)))
            await until(lambda: len(wall.shown) == 3, "the first")
            await taker.publish(published(found("e1", 0.6)))
            await taker.publish(published(info(yard=())))
        assert len(wall.shown) == 3
        assert dict(taker.metrics.dropped) == {"gone": 1}

    play(scenario)


def test_a_picture_that_is_ready_when_its_source_is_gone_is_not_shown() -> None:
    async def scenario() -> None:
        in_hand, may_go_on = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def masks(_source: str) -> tuple[Polygon, ...]:
            loop.call_soon(in_hand.set)
            return ()

        async with taking(lambda _source, _at: seen(90), masks) as (taker, wall):
            await taker.publish(published(info(door=(), yard=())))
            taker._thread.submit(may_go_on.wait)  # noqa: SLF001 - holds the picture up
            await taker.publish(published(found("e1", 0.5)))
            await in_hand.wait()
            await taker.publish(published(info(yard=())))
            may_go_on.set()
            await until(lambda: bool(taker.metrics.dropped), "it is dropped")
            assert [source for source, jpeg in wall.shown if jpeg] == []
        assert dict(taker.metrics.dropped) == {"gone": 1}

    play(scenario)


def test_those_that_do_not_ask_for_pictures_are_told_how() -> None:
    async def scenario() -> None:
        async with taking(lambda _source, _at: seen(9), on=["events"]) as (taker, _):
            with pytest.raises(CommandError, match="request"):
                await taker.take("door")

    play(scenario)
