"""Speech in a run: sources stall, end, start anew and go in mid-sentence."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from streams import RATE_HZ, Script, ScriptedSource, chain_of, sound, started, until

from mmstream.clock import SystemClock
from mmstream.heads.captions import CaptioningHead
from mmstream.heads.events import EventHead
from mmstream.heads.speech_captions import SpeechCaptions
from mmstream.media import (
    NS_PER_SEC,
    Hop,
    Hypothesis,
    Label,
    MediaItem,
    Series,
    Span,
    SpokenWord,
    Take,
    ns_to_samples,
    samples_to_ns,
)
from mmstream.messages import Caption
from mmstream.recognition.commit import CommitSettings
from mmstream.recognition.transcriber import Transcriber
from mmstream.recognition.utterances import N_WINDOW, CuttingRules
from mmstream.runtime import backoff, watch
from mmstream.runtime.chain import Chain
from mmstream.runtime.graph import Graph
from mmstream.runtime.local import LocalRuntime
from mmstream.sinks.memory import MemorySink
from mmstream.worker import WorkerSettings

SPEECH = Label("speech", "audio", "scripted")


def talking(one: Hop) -> Mapping[str, Series]:
    """All is speech: of the windows that the hop completes."""
    edges = [ns_to_samples(at, RATE_HZ) // N_WINDOW for at in (one.span.start_ns, one.span.end_ns)]
    at_ns = [samples_to_ns(window * N_WINDOW, RATE_HZ) for window in range(*edges)]
    return {"speech": Series(np.array(at_ns, np.int64), np.full(len(at_ns), 0.9, np.float32))}


@dataclass
class Telling:
    """Hears one word in each half second: the time at which it begins, in seconds."""

    let: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    forgotten: list[str] = field(default_factory=list)
    n_closed: int = 0

    def recognise(self, takes: Sequence[Take]) -> Sequence[Hypothesis]:
        self.begun.set()
        self.let.wait()
        return [self._heard(take) for take in takes]

    def forget(self, source: str) -> None:
        self.forgotten.append(source)

    def close(self) -> None:
        self.n_closed += 1

    def _heard(self, take: Take) -> Hypothesis:
        half_ns = NS_PER_SEC // 2
        starts = range(take.start_ns, take.span.end_ns - half_ns + 1, half_ns)
        words = tuple(
            SpokenWord(f"{at_ns / NS_PER_SEC:.1f}", Span(at_ns, at_ns + half_ns), 0.9)
            for at_ns in starts
        )
        return Hypothesis(take.source, take.utterance, take.span, words, "en", take.is_last)


@dataclass(frozen=True)
class Spec:
    """Of the recogniser, and of the transcriber with it."""

    recogniser: Telling
    name: str = "telling"
    language: str = "en"
    partial_secs: float = 0.0
    labels: tuple[Label, ...] = ()

    def build(self, device: str) -> Transcriber:
        return Transcriber(
            Heard(self.recogniser), device, CuttingRules(), CommitSettings().build, SystemClock()
        )


@dataclass(frozen=True)
class Heard:
    recogniser: Telling
    name: str = "telling"
    language: str = "en"
    partial_secs: float = 0.0

    def build(self, device: str) -> Telling:
        assert device == "cpu"
        return self.recogniser


class Run:
    def __init__(self, *sources: ScriptedSource) -> None:
        self.sink = MemorySink()
        self.recogniser = Telling()
        self.recogniser.let.set()
        script = Script(talking, (SPEECH,))
        specs = (script, Spec(self.recogniser))
        chains = tuple(captioned(source) for source in sources)
        graph = Graph("home", chains, specs, WorkerSettings(), (self.sink,), reports=False)
        self.runtime = LocalRuntime(graph, SystemClock(), boot_id="b")

    def finals(self, source: str = "cam") -> list[str]:
        return [
            one.text or ""
            for one in self.sink.contents(Caption)
            if one.source == source and one.state == "final"
        ]

    def n_shown(self, text: str) -> int:
        """How often a partial had these words."""
        return sum(text in (one.text or "") for one in self.sink.contents(Caption))

    def during(self, acts: Callable[[], Awaitable[None]]) -> None:
        async def scenario() -> None:
            running = asyncio.create_task(self.runtime.run())
            try:
                await acts()
            finally:
                self.runtime.stop()
                async with asyncio.timeout(5):
                    await running

        asyncio.run(scenario())


def captioned(source: ScriptedSource) -> Chain:
    events = EventHead(node="home", source=source.name, labels=[SPEECH], settings={})
    part = SpeechCaptions(node="home", source=source.name)
    return replace(chain_of(source), head=CaptioningHead(events, (part,)))


async def paced(start_secs: int, source: str = "cam") -> AsyncIterator[MediaItem]:
    """Two seconds of sound, faster than life, with time for answers between."""
    for item in sound(start_secs, start_secs + 2, source=source):
        yield item
        await asyncio.sleep(0.002)


def talker(name: str = "cam", *, ends: bool = False) -> ScriptedSource:
    """Talks for 2 s from 10 s, 20 s, ... on, each time that it is opened; then is quiet."""

    async def play(n: int) -> AsyncIterator[MediaItem]:
        yield started(["audio"], source=name, clock_offset_ns=0)
        async for item in paced(10 * n, name):
            yield item
        if not ends:
            await asyncio.Event().wait()

    return ScriptedSource(play, name=name)


FIRST, SECOND = "10.0 10.5 11.0 11.5", "20.0 20.5 21.0 21.5"


@pytest.fixture(autouse=True)
def nothing_is_left() -> object:
    before = set(threading.enumerate())
    yield
    for thread in threading.enumerate():
        if thread not in before and thread.name in ("speech_to_text", "worker"):
            thread.join(5)
            assert not thread.is_alive()


def test_at_shutdown_the_words_of_an_open_sentence_are_final() -> None:
    run = Run(talker())
    run.during(lambda: until(lambda: run.n_shown("11.0") > 0))
    assert run.finals() == [FIRST]
    assert run.recogniser.n_closed == 1


def test_a_stall_ends_the_sentence_and_what_follows_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "STALL_SECS", 0.2)
    goes_on = asyncio.Event()

    async def play(_: int) -> AsyncIterator[MediaItem]:
        yield started(["audio"], clock_offset_ns=0)
        async for item in paced(10):
            yield item
        await goes_on.wait()
        async for item in paced(20):
            yield item
        await asyncio.Event().wait()

    run = Run(ScriptedSource(play))

    async def acts() -> None:
        await until(lambda: bool(run.finals()))
        goes_on.set()
        await until(lambda: run.n_shown("21.0") > 0)

    run.during(acts)
    assert run.finals() == [FIRST, SECOND]


def test_a_source_that_ends_and_is_opened_again_has_its_own_words_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backoff, "FIRST_RETRY_SECS", 0.01)
    run = Run(talker(ends=True))
    run.during(lambda: until(lambda: len(run.finals()) >= 2))
    assert run.finals()[:2] == [FIRST, SECOND]
    assert "cam" in run.recogniser.forgotten


@pytest.mark.parametrize("how", ["restart", "disable and enable", "remove and add"])
def test_on_request_the_sentence_ends_with_its_words_and_others_go_on(how: str) -> None:
    source = talker()
    run = Run(source, talker("other"))

    async def acts() -> None:
        await until(lambda: run.n_shown("11.0") > 1)
        if how == "restart":
            await run.runtime.restart("cam")
        elif how == "disable and enable":
            await run.runtime.disable("cam")
            await until(lambda: run.finals() == [FIRST])
            await run.runtime.enable("cam")
        else:
            await run.runtime.remove("cam")
            await run.runtime.add(captioned(source))
        await until(lambda: run.n_shown("21.0") > 0)
        assert run.finals("other") == []

    run.during(acts)
    assert run.finals() == [FIRST, SECOND]
    assert run.finals("other") == [FIRST]


def test_a_recogniser_that_hangs_holds_up_neither_other_requests_nor_the_end() -> None:
    source = talker()
    run = Run(source)

    async def acts() -> None:
        await until(lambda: run.n_shown("11.0") > 0)
        run.recogniser.begun.clear()
        run.recogniser.let.clear()
        await run.runtime.restart("cam")
        await asyncio.to_thread(run.recogniser.begun.wait, 5)

    run.during(acts)
    run.recogniser.let.set()
    (final,) = run.finals()
    assert FIRST.startswith(final)
