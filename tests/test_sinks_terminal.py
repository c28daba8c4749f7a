"""What a person sees: plain lines where output is piped, a live view on a terminal."""

import asyncio
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from mmstream.messages import (
    Caption,
    Content,
    Contribution,
    EndReason,
    Event,
    Evidence,
    Health,
    NumberedStamp,
    Published,
    Stamp,
    Word,
)
from mmstream.metrics import SourceStatus
from mmstream.sinks import terminal
from mmstream.sinks.terminal import LiveView, PlainLines
from mmstream.sinks.terminal_captions import styled

SINCE = "2026-11-23T10:00:00.250Z"


def event(kind: str, *, end_reason: EndReason | None = None) -> Event:
    evidence = Evidence(
        modality="audio", detector="loudness", label="loud", score=0.9, t_start=1.5, t_end=1.5
    )
    return Event.model_validate(
        {
            "id": "e1",
            "type": kind,
            "source": "door",
            "label": "loud",
            "kind": "audio",
            "score": 0.9,
            "top_score": 0.9,
            "ts_start": "1970-01-01T00:00:01.500Z",
            "t_start": 1.5,
            "ts_end": "1970-01-01T00:00:03.000Z" if kind == "end" else None,
            "t_end": 3.0 if kind == "end" else None,
            "evidence": (evidence,),
            "contribution": Contribution(audio=1),
            "end_reason": end_reason,
        }
    )


def health(state: str) -> Health:
    return Health.model_validate(
        {
            "source": "door",
            "state": state,
            "reason": "streaming",
            "since": "1970-01-01T00:00:00.000Z",
        }
    )


def published(content: Content) -> Published:
    stamp = Stamp(node="n", boot_id="b", ts_emit="1970-01-01T00:00:04.000Z")
    if content.NUMBERED:
        stamp = NumberedStamp(**stamp.model_dump(), seq=0)
    return Published(content, stamp)


def lines_of(*contents: Content) -> list[str]:
    out = StringIO()

    async def publish() -> None:
        sink = PlainLines(out)
        for content in contents:
            await sink.publish(published(content))
        await sink.close()
        await sink.run()

    asyncio.run(publish())
    return out.getvalue().splitlines()


def test_an_event_is_a_line_at_its_start_and_its_end() -> None:
    lines = lines_of(event("start"), event("update"), event("end", end_reason="quiet"))
    assert lines == [
        "00:00:01.500 door         loud     start 0.90",
        "00:00:01.500 door         loud     end   0.90 until 00:00:03.000",
    ]


def test_an_unusual_end_says_why() -> None:
    assert lines_of(event("end", end_reason="shutdown"))[0].endswith("(shutdown)")


def test_health_is_a_line_only_when_it_changes() -> None:
    lines = lines_of(health("online"), health("online"), health("stalled"), health("online"))
    assert [line.split()[2] for line in lines] == ["online:", "stalled:", "online:"]


def test_a_pipe_gets_lines_and_a_terminal_the_view() -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(terminal.view("t", StringIO()), PlainLines)
    assert isinstance(terminal.view("t", Terminal()), LiveView)


@pytest.mark.parametrize("out", [None, "full"])
def test_lines_that_cannot_be_written_are_counted_and_said_once(
    out: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(sink: LiveView | PlainLines) -> None:
        for state in ("online", "stalled", "online"):
            await sink.publish(published(health(state)))
        await sink.close()
        await sink.run()

    with Path("/dev/full").open("w") as full:
        sink = terminal.view("t", None if out is None else full)
        asyncio.run(scenario(sink))
    assert (sink.metrics.n_in, sink.metrics.n_out) == (3, 0)
    assert sink.metrics.dropped == {"unwritable": 3}
    logged = [] if out is None else ["nothing more is shown: No space left on device"]
    assert [record.message for record in caplog.records] == logged


def test_a_view_that_cannot_be_drawn_goes_quiet_until_closed() -> None:
    class Gone(StringIO):
        def write(self, _text: str) -> int:
            raise OSError(5, "Input/output error")

    view = LiveView("t", Console(file=Gone(), force_terminal=True))

    async def scenario() -> None:
        running = asyncio.create_task(view.run())
        while not view.metrics.dropped:  # noqa: ASYNC110 - it happens on a thread
            await asyncio.sleep(0.001)
        assert not running.done()
        await view.close()
        await running

    asyncio.run(asyncio.wait_for(scenario(), 10))
    assert view.metrics.dropped == {"unwritable": 1}


def drawn(view: LiveView) -> str:
    console = Console(file=StringIO(), width=120, record=True)
    console.print(view.render())
    return console.export_text()


def test_the_view_shows_sources_and_the_last_state_of_each_event() -> None:
    view = LiveView("mmstream home", Console(file=StringIO()))
    status = SourceStatus("door", "online", "streaming", SINCE, 24.97, -23.4, 81.0)
    view.watch(lambda: [status])

    async def publish() -> None:
        await view.publish(published(event("start")))
        await view.publish(published(event("end", end_reason="quiet")))

    asyncio.run(publish())
    text = drawn(view)
    assert "mmstream home" in text
    assert "25.0" in text
    assert "-23.4 dBFS" in text
    assert "81 ms" in text
    assert text.count("loud ") == 1
    assert "1.5 s" in text
    assert "loudness (audio)" in text


def test_the_view_says_since_when_and_why_a_source_is_not_online() -> None:
    view = LiveView("t", Console(file=StringIO()))
    reason = "no video for 5 s; there is no microphone [USB]"
    door = SourceStatus("door", "degraded", reason, SINCE, 0.0, -20.0, 80.0)
    yard = SourceStatus("yard", "online", "streaming", SINCE, 25.0, None, 80.0)
    view.watch(lambda: [door, yard])
    lines = drawn(view).splitlines()
    of_sources = [line.split()[1:3] for line in lines if line[:5] in ("door ", "yard ")]
    assert of_sources == [["degraded", "10:00:00"], ["online", "10:00:00"]]
    assert f"door: {reason}" in [line.rstrip() for line in lines]
    assert "streaming" not in drawn(view)


def test_a_long_reason_stays_on_one_line() -> None:
    view = LiveView("t", Console(file=StringIO()))
    view.watch(lambda: [SourceStatus("door", "offline", "x" * 500, SINCE, None, None, None)])
    assert max(map(len, drawn(view).splitlines())) <= 120
    [told] = [line for line in drawn(view).splitlines() if line.startswith("door: xxx")]
    assert told.endswith("x…")


@pytest.mark.parametrize(("dbfs", "cells"), [(0.0, 20), (-30.0, 10), (-60.0, 0), (-99.0, 0)])
def test_the_meter_spans_60_db(dbfs: float, cells: int) -> None:
    view = LiveView("t", Console(file=StringIO()))
    view.watch(lambda: [SourceStatus("door", "online", "", SINCE, None, dbfs, None)])
    assert drawn(view).count("█") == cells


def test_the_view_draws_until_closed() -> None:
    out = StringIO()
    view = LiveView("mmstream home", Console(file=out, width=100, force_terminal=True))

    async def serve() -> None:
        is_drawn = asyncio.Event()

        def statuses() -> list[SourceStatus]:
            is_drawn.set()
            return [SourceStatus("door", "online", "", SINCE, 25.0, None, None)]

        view.watch(statuses)
        running = asyncio.create_task(view.run())
        for _ in range(2):
            await is_drawn.wait()
            is_drawn.clear()
        await view.close()
        await running

    asyncio.run(serve())
    assert out.getvalue().count("door") >= 3


def caption(
    text: str, state: str = "final", *, name: str = "c1", kind: str = "speech", steady: int = 0
) -> Caption:
    words = tuple(Word(text=w, t_start=1.5, t_end=3, confidence=1) for w in text.split())
    return Caption.model_validate(
        {
            "id": name,
            "state": state,
            "revision": 0,
            "source": "door",
            "text": text,
            "kind": kind,
            "ts_start": "1970-01-01T00:00:01.500Z",
            "t_start": 1.5,
            "ts_end": "1970-01-01T00:00:03.000Z",
            "t_end": 3.0,
            "words": words if kind == "speech" else (),
            "steady": steady,
            "confidence": 1,
            "language": "en",
        }
    )


def test_a_final_caption_is_a_line() -> None:
    lines = lines_of(
        caption("good", "partial"),
        caption("good morning"),
        caption("[bell]", kind="sound"),
        caption(""),
    )
    assert lines == [
        "00:00:01.500 door         speech   good morning",
        "00:00:01.500 door         sound    [bell]",
    ]


def shown(*captions: Caption) -> list[str]:
    """The lines of the view that are about captions of the door."""
    view = LiveView("t", Console(file=StringIO(), width=60))

    async def publish() -> None:
        for one in captions:
            await view.publish(published(one))

    asyncio.run(publish())
    console = Console(file=StringIO(), width=60, record=True)
    console.print(view.render())
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    return lines[2:-1]


def test_the_view_shows_the_last_two_lines_that_were_said() -> None:
    assert shown(caption("a b", "partial"), caption("a c")) == ["door  a c"]
    others = [caption(f"line {n}", name=str(n)) for n in range(3)]
    assert shown(*others) == ["door  line 1", "      line 2"]
    assert shown(caption("gone", "partial"), caption("")) == []
    told = shown(caption(" ".join(map(str, range(100, 140))), "partial"))
    assert len(told) == 2
    assert told[-1].endswith("139")  # the newest words are seen


def test_words_that_may_change_are_dim() -> None:
    text = styled(caption("it is is late", "partial", steady=2))
    assert [(str(span.style), text.plain[span.start : span.end]) for span in text.spans] == [
        ("not bold dim", " is late")
    ]
    assert not styled(caption("it is late", steady=3)).spans
    assert str(styled(caption("[bell]", "partial", kind="sound")).style) == "cyan"
