"""Hops in, words out, with a recogniser that hears one word in each half second of sound."""

import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import read_sound

from mmstream.clock import ManualClock
from mmstream.detectors.silero import speech_scorer
from mmstream.errors import ScorerError
from mmstream.media import (
    NS_PER_SEC,
    AudioChunk,
    Hop,
    Hypothesis,
    Scores,
    Series,
    SourceEnded,
    SourceStarted,
    Span,
    Spoken,
    SpokenWord,
    Take,
    samples_to_ns,
    secs_to_ns,
)
from mmstream.recognition import beside
from mmstream.recognition.transcriber import Transcriber
from mmstream.recognition.utterances import N_WINDOW, CuttingRules
from mmstream.stages import Load, Recogniser
from mmstream.windows import HopCutter, HopSettings

RATE_HZ = 16_000
HOP_SAMPLES = 4096
DEADLINE_SECS = 10


@dataclass
class Counting:
    """Hears the words w0, w1, ... of half a second each, once it is let."""

    clock: ManualClock = field(default_factory=ManualClock)
    secs_each: float = 0.0
    let: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    takes: list[Take] = field(default_factory=list)
    is_broken: bool = False
    repeats: int = 1
    keeps: bool = True

    def recognise(self, takes: Sequence[Take]) -> Sequence[Hypothesis]:
        self.begun.set()
        assert self.let.wait(DEADLINE_SECS)
        if self.is_broken:
            msg = "out of memory"
            raise ScorerError(msg)
        self.takes.extend(takes if self.keeps else ())
        self.clock.advance(self.secs_each)
        return [self._heard(take) for take in takes]

    def forget(self, source: str) -> None:
        pass

    def close(self) -> None:
        pass

    def _heard(self, take: Take) -> Hypothesis:
        n_words = take.span.duration_ns * 2 // NS_PER_SEC
        starts = [take.start_ns + n * NS_PER_SEC // 2 for n in range(n_words)]
        words = tuple(
            SpokenWord(f"w{n}", Span(at_ns, at_ns + NS_PER_SEC // 2), 0.9)
            for n, at_ns in enumerate(starts)
        )
        words *= self.repeats
        return Hypothesis(take.source, take.utterance, take.span, words, "en", take.is_last)


@dataclass(frozen=True)
class CountingSpec:
    recogniser: Counting
    partial_secs: float = 0.0
    name: str = "counting"
    language: str = "en"

    def build(self, device: str) -> Recogniser:
        assert device == "cpu"
        return self.recogniser


class AllButOne:
    """Commits all words but the newest."""

    def push(self, hypothesis: Hypothesis) -> Spoken:
        words = hypothesis.words
        n_committed = len(words) if hypothesis.is_last else max(0, len(words) - 1)
        return Spoken(
            hypothesis.utterance,
            hypothesis.span,
            words,
            n_committed,
            hypothesis.language,
            hypothesis.is_last,
        )


def transcriber(
    recogniser: Counting, *, is_free: bool = True, partial_secs: float = 0.0
) -> Transcriber:
    if is_free:
        recogniser.let.set()
    spec = CountingSpec(recogniser, partial_secs)
    return Transcriber(spec, "cpu", CuttingRules(), AllButOne, recogniser.clock)


def hops(
    *parts: tuple[float | None, int], source: str = "mic", live: bool = False
) -> list[tuple[Hop, Scores]]:
    """Hops of 0.256 s with their speech: each part a probability and how many hops have it."""
    found = []
    for index, level in enumerate([level for level, n in parts for _ in range(n)]):
        first = index * HOP_SAMPLES
        edges = [samples_to_ns(at, RATE_HZ) for at in (first, first + HOP_SAMPLES)]
        span = Span(*edges)
        sound, heard = np.zeros(HOP_SAMPLES, np.float32), np.ones(HOP_SAMPLES, np.bool_)
        hop = Hop(source, index, span, RATE_HZ, sound, heard, (), live=live)
        at_ns = [samples_to_ns(first + n * N_WINDOW, RATE_HZ) for n in range(8)]
        outputs = {}
        if level is not None:
            outputs["speech"] = Series(np.array(at_ns), np.full(8, level, np.float32))
        found.append((hop, Scores(source, index, span, outputs)))
    return found


def recut(levels: Sequence[float], n_windows: int) -> list[tuple[Hop, Scores]]:
    """The same speech, one level a window, in hops of so many windows."""
    found = []
    for index, first in enumerate(range(0, len(levels), n_windows)):
        part = np.array(levels[first : first + n_windows], np.float32)
        edges = [samples_to_ns(at * N_WINDOW, RATE_HZ) for at in (first, first + part.size)]
        sound = np.zeros(part.size * N_WINDOW, np.float32)
        hop = Hop("mic", index, Span(*edges), RATE_HZ, sound, np.ones(sound.size, np.bool_), ())
        at_ns = np.array([samples_to_ns((first + n) * N_WINDOW, RATE_HZ) for n in range(part.size)])
        found.append((hop, Scores("mic", index, hop.span, {"speech": Series(at_ns, part)})))
    return found


def shifted(hop: Hop, so_far: Scores, by_ns: int) -> tuple[Hop, Scores]:
    """The same, later."""
    span = Span(hop.span.start_ns + by_ns, hop.span.end_ns + by_ns)
    speech = so_far.outputs["speech"]
    later = {"speech": Series(speech.at_ns + by_ns, speech.values)}
    return replace(hop, span=span), replace(so_far, span=span, outputs=later)


def answered(one: Transcriber, source: str = "mic") -> None:
    assert one._beside.wait(source, DEADLINE_SECS)  # noqa: SLF001 - nothing else tells


def run(of: Transcriber, given: Sequence[tuple[Hop, Scores]]) -> list[Scores]:
    return [s for hop, so_far in given for s in of.score([hop], [so_far], Load.FULL)]


def shown(said: Sequence[Scores]) -> list[tuple[int, str, int, bool]]:
    return [
        (s.utterance, " ".join(word.text for word in s.words), s.n_committed, s.is_last)
        for one in said
        for s in one.spoken
    ]


def texts(said: Sequence[Scores]) -> list[str]:
    return [text.text for one in said for text in one.texts]


SENTENCE = ((0.0, 4), (0.9, 6), (0.0, 4))


def test_words_come_while_they_are_said_and_stay_at_the_end() -> None:
    said = run(transcriber(Counting()), hops(*SENTENCE))
    assert shown(said) == [
        (0, "w0", 0, False),
        (0, "w0 w1", 1, False),
        (0, "w0 w1 w2", 2, False),
        (0, "w0 w1 w2 w3", 3, False),
        (0, "w0 w1 w2 w3", 4, True),
    ]
    assert texts(said) == ["w0", "w1", "w2", "w3"]


def test_committed_words_are_texts_of_their_own_time() -> None:
    said = run(transcriber(Counting()), hops(*SENTENCE))
    first = next(text for one in said for text in one.texts)
    assert first.span == Span(724_000_000, 1_224_000_000)


def test_the_end_of_a_source_ends_its_utterance() -> None:
    one = transcriber(Counting())
    given = hops((0.9, 6))
    run(one, given)
    last = one.finish("mic", live=False)
    assert last is not None
    assert (last.index, last.span) == (6, Span(given[-1][0].span.end_ns, given[-1][0].span.end_ns))
    assert shown([last]) == [(0, "w0 w1 w2", 3, True)]
    assert one.finish("mic", live=False) is None
    assert one.finish("nobody", live=False) is None
    assert not one.metrics.dropped


def test_a_live_source_is_not_waited_for() -> None:
    recogniser = Counting()
    one = transcriber(recogniser, is_free=False)
    given = hops(*SENTENCE, (0.0, 400), live=True)
    assert shown(run(one, given[:14])) == []
    recogniser.let.set()
    assert one._beside.wait("mic", DEADLINE_SECS)  # noqa: SLF001 - nothing else tells
    said = run(one, given[14:15])
    assert shown(said)[-1] == (0, "w0 w1 w2 w3", 4, True)
    assert one.metrics.dropped["partial_dropped"] > 0


def test_the_end_of_a_live_source_waits_half_a_second_and_keeps_what_it_has() -> None:
    recogniser = Counting()
    one = transcriber(recogniser)
    given = hops((0.9, 8), live=True)
    run(one, given[:7])
    one._beside.wait("mic", DEADLINE_SECS)  # noqa: SLF001 - as above
    recogniser.let.clear()
    said = run(one, given[7:])
    last = one.finish("mic", live=True)
    assert last is not None
    assert shown([*said, last])[-1] == (0, "w0 w1 w2", 3, True)
    assert one.metrics.dropped["final_given_up"] == 1
    one.forget("mic")
    recogniser.let.set()


def test_a_source_that_starts_anew_counts_from_0() -> None:
    one = transcriber(Counting())
    run(one, hops(*SENTENCE))
    one.forget("mic")
    assert shown(run(one, hops(*SENTENCE)))[-1] == (0, "w0 w1 w2 w3", 4, True)


def test_two_sources_have_their_own_words() -> None:
    one = transcriber(Counting())
    pairs = zip(hops(*SENTENCE, source="a"), hops((0.0, 14), source="b"), strict=True)
    said = [s for (a, of_a), (b, of_b) in pairs for s in one.score([a, b], [of_a, of_b], Load.FULL)]
    assert {scores.source for scores in said if scores.spoken} == {"a"}
    assert len(said) == 28


def test_partials_come_only_as_often_as_the_recogniser_wants() -> None:
    recogniser = Counting()
    run(transcriber(recogniser, partial_secs=1.0), hops(*SENTENCE))
    secs = [take.span.duration_ns / NS_PER_SEC for take in recogniser.takes]
    assert len(secs) == 2
    assert secs[0] >= 1


def test_overloaded_it_keeps_the_sound_and_asks_only_for_last_words() -> None:
    recogniser = Counting()
    one = transcriber(recogniser)
    given = hops((0.9, 2), (None, 4), (0.9, 2), (0.0, 4))
    loads = [Load.INGEST if not so_far.outputs else Load.FULL for _, so_far in given]
    said = [
        s
        for (hop, so_far), load in zip(given, loads, strict=True)
        for s in one.score([hop], [so_far], load)
    ]
    assert [bool(s.spoken) for s in said[2:6]] == [False] * 4
    assert shown(said)[-1] == (0, "w0 w1 w2 w3", 4, True)


def test_invented_words_are_counted_once_for_each_utterance() -> None:
    one = transcriber(Counting(repeats=9))
    said = run(one, hops(*SENTENCE))
    assert one.metrics.dropped == {"guard_too_fast": 1}
    assert shown(said) == []


def test_a_replay_ends_with_the_error_of_a_broken_recogniser() -> None:
    one = transcriber(Counting(is_broken=True))
    with pytest.raises(ScorerError, match="out of memory"):
        run(one, hops(*SENTENCE))
    one.close()


def test_a_recogniser_that_breaks_costs_a_live_source_words_and_nothing_else() -> None:
    recogniser = Counting()
    one = transcriber(recogniser)
    given = hops((0.9, 10), (0.0, 4), live=True)
    said = run(one, given[:6])
    answered(one)
    recogniser.is_broken = True
    said += run(one, given[6:8])
    answered(one)
    said += run(one, given[8:])
    assert one.finish("mic", live=True) is None
    assert shown(said)[-1] == (0, "w0 w1 w2", 3, True)
    assert texts(said) == ["w0", "w1", "w2"]
    assert one.metrics.dropped["failed"] > 0
    assert list(one.problems) == [
        "no captions of speech until it works again, all else goes on: out of memory"
    ]
    one.close()


def test_after_a_failure_within_a_sentence_it_goes_on_with_all_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(beside, "FIRST_PAUSE_SECS", 0.0)
    recogniser = Counting()
    one = transcriber(recogniser)
    given = hops((0.9, 12), (0.0, 4), live=True)
    said: list[Scores] = []
    for index, pair in enumerate(given):
        recogniser.is_broken = index == 5
        said += run(one, [pair])
        answered(one)
        within = one._beside._condition  # noqa: SLF001 - nothing else tells
        with within:
            assert within.wait_for(lambda: not one._beside._is_resting, DEADLINE_SECS)  # noqa: SLF001 - as above
    assert one.metrics.dropped == {"failed": 1}
    assert list(one.problems) == []
    assert [one for one in shown(said) if one[3]] == [(0, "w0 w1 w2 w3 w4 w5", 6, True)]
    assert texts(said) == ["w0", "w1", "w2", "w3", "w4", "w5"]
    one.close()


def test_beside_a_live_source_a_broken_recogniser_does_not_stop_a_file() -> None:
    one = transcriber(Counting(is_broken=True))
    run(one, hops((0.0, 1), source="mic", live=True))
    assert len(run(one, hops(*SENTENCE, source="file"))) == 14
    assert one.finish("file", live=False) is None
    one.close()


def late(one: Transcriber, recogniser: Counting, given: Sequence[tuple[Hop, Scores]]) -> None:
    """Each answer comes between two hops."""
    for pair in given:
        recogniser.let.clear()
        run(one, [pair])
        recogniser.let.set()
        answered(one)


def test_words_of_a_live_source_that_come_late_are_a_problem_until_they_do_not() -> None:
    recogniser = Counting(secs_each=4.9)
    one = transcriber(recogniser)
    given = hops((0.9, 40), live=True)
    late(one, recogniser, given[:10])
    assert list(one.problems) == []
    recogniser.secs_each = 6.0
    late(one, recogniser, given[10:12])
    problem = (
        "captions of speech come 6 s late: counting does not keep up with what is said on this "
        "machine; choose a smaller or faster recogniser, fewer sources or a faster machine"
    )
    assert list(one.problems) == [problem]
    recogniser.secs_each = 10.0
    late(one, recogniser, given[12:14])
    assert list(one.problems) == [problem]
    recogniser.secs_each = 4.0
    late(one, recogniser, given[14:19])
    assert list(one.problems) == [problem]
    late(one, recogniser, given[19:21])
    assert list(one.problems) == []
    one.close()


def test_what_piles_up_is_late_before_it_is_answered_and_names_how_many_speak() -> None:
    recogniser = Counting()
    one = transcriber(recogniser, is_free=False)
    for source in ("a", "b"):
        run(one, hops((0.9, 6), source=source, live=True))
    assert recogniser.begun.wait(DEADLINE_SECS)
    recogniser.clock.advance(5.0)
    run(one, hops((0.9, 7), source="b", live=True)[6:])
    assert "come 5 s late: counting does not keep up with 2 sources" in "".join(one.problems)
    recogniser.clock.advance(25.0)
    (_, hangs) = one.problems
    assert hangs.startswith("counting has not answered for 30 s")
    for source in ("a", "b"):
        one.forget(source)
    assert list(one.problems) == [hangs]
    recogniser.let.set()
    one.close()


def test_files_may_be_slow() -> None:
    one = transcriber(Counting(secs_each=5.0))
    run(one, hops((0.9, 40)))
    assert (one.metrics.realtime_factor or 0) > 1
    assert list(one.problems) == []
    one.close()


def waits_of(one: Transcriber, monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """How long it is ready to wait for words, each time; the clock goes on so long."""
    waits: list[float | None] = []

    def wait(source: str, timeout_secs: float | None = None) -> bool:  # noqa: ARG001 - as it is
        waits.append(timeout_secs)
        one._clock.sleep(timeout_secs or 0)  # noqa: SLF001 - a manual one
        return False

    monkeypatch.setattr(one._beside, "wait", wait)  # noqa: SLF001 - as above
    return waits


def test_sources_that_end_together_share_half_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    recogniser = Counting()
    one = transcriber(recogniser, is_free=False)
    for source in "abc":
        run(one, hops((0.9, 6), source=source, live=True))
    waits = waits_of(one, monkeypatch)
    one.finish("a", live=True)
    one.finish("b", live=True)
    recogniser.clock.advance(1)
    one.finish("c", live=True)
    assert waits == [0.5, 0.05, 0.5]
    recogniser.let.set()
    one.close()


def test_beside_a_live_source_a_file_does_not_wait_long(monkeypatch: pytest.MonkeyPatch) -> None:
    recogniser = Counting()
    one = transcriber(recogniser, is_free=False)
    run(one, hops((0.0, 1), source="mic", live=True))
    waits = waits_of(one, monkeypatch)
    run(one, hops((0.9, 3), source="file"))
    one.finish("file", live=False)
    assert waits == [0.4, 0.4, 0.4, 2.0]
    recogniser.let.set()
    one.close()


def test_a_replay_that_waits_long_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recogniser = Counting()
    one = transcriber(recogniser, is_free=False)
    wait = one._beside.wait  # noqa: SLF001 - as above

    def impatient(source: str, timeout_secs: float | None = None) -> bool:
        if len(caplog.messages) < 2:
            return False
        recogniser.let.set()
        return wait(source, timeout_secs)

    monkeypatch.setattr(one._beside, "wait", impatient)  # noqa: SLF001 - as above
    run(one, hops((0.9, 1)))
    assert caplog.messages == [
        "mic: counting has not answered for 30 s",
        "mic: counting has not answered for 60 s",
    ]
    one.close()


def talk(*, n_sentences: int) -> Iterator[tuple[float, int]]:
    for n in range(n_sentences):
        yield 0.9, 12 + n % 7
        yield 0.1, 4


def test_long_talk_leaves_nothing_behind() -> None:
    one = transcriber(Counting(keeps=False), partial_secs=2.0)
    given = hops(*talk(n_sentences=10))
    n_said = 0
    try:
        for lap in range(6):
            if lap == 3:
                tracemalloc.start()
            at_ns = lap * given[-1][0].span.end_ns
            n_said += len(shown(run(one, [shifted(*pair, at_ns) for pair in given])))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    one.close()
    assert n_said > 6 * 10
    assert held < 600_000  # the sound of one of these sentences has 320 kB


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.05, 0.4, 0.9]), st.integers(1, 90)), max_size=12),
    st.booleans(),
)
def test_how_a_file_is_cut_into_hops_changes_no_word(
    parts: list[tuple[float, int]],
    ends_in_pause: bool,  # noqa: FBT001 - given
) -> None:
    levels = [level for level, n in parts for _ in range(n)] + [0.0] * (40 * ends_in_pause)
    said = []
    for n_windows in (4, 8, 16):
        recogniser = Counting()
        one = transcriber(recogniser, partial_secs=0.3)
        found = run(one, recut(levels, n_windows))
        last = one.finish("mic", live=False)
        found += [] if last is None else [last]
        one.close()
        said.append([(words, n) for _, words, n, is_last in shown(found) if is_last])
        assert texts(found) == " ".join(words for words, _ in said[-1]).split()
    assert said[0] == said[1] == said[2]


# --- with real sound and the real detector of speech --------------------------------------------


def listened(path: Path, recogniser: Counting, *, chunk: int = 4410) -> list[Scores]:
    """Through hops and Silero, as it is in the worker."""
    samples = read_sound(path)
    cutter = HopCutter("mic", HopSettings(), live=False)
    speech, one = speech_scorer(), transcriber(recogniser, partial_secs=5)
    found = list(cutter.push(SourceStarted("mic", frozenset({"audio"}), 0, None)))
    for first in range(0, samples.size, chunk):
        at_ns = samples_to_ns(first, RATE_HZ)
        part = samples[first : first + chunk].copy()
        found += cutter.push(AudioChunk("mic", at_ns, RATE_HZ, part))
    found += cutter.push(SourceEnded("mic"))
    said: list[Scores] = []
    for hop in found:
        (so_far,) = speech.score([hop], [Scores("mic", hop.index, hop.span)], Load.FULL)
        said += one.score([hop], [so_far], Load.FULL)
    last = one.finish("mic", live=False)
    return said if last is None else [*said, last]


def test_a_sentence_that_is_read_is_one_utterance(data_dir: Path) -> None:
    recogniser = Counting()
    said = listened(data_dir / "speech/librivox_0880.wav", recogniser)
    (last,) = [take for take in recogniser.takes if take.is_last]
    assert last.start_ns < secs_to_ns(0.45)  # "he" begins at 0.45 s or before
    assert last.span.end_ns > secs_to_ns(2.5)
    assert shown(said)[-1][3]


def test_a_minute_of_talk_with_pauses_is_cut_at_them(data_dir: Path) -> None:
    path = data_dir / "speech/silero_vad_test.flac"
    recogniser = Counting()
    listened(path, recogniser)
    takes = [take for take in recogniser.takes if take.is_last]
    samples = read_sound(path)
    assert all(take.span.duration_ns < secs_to_ns(20.1) for take in takes)
    is_taken = np.zeros(samples.size, np.bool_)
    for take in takes:
        first = round(take.start_ns * RATE_HZ / NS_PER_SEC)
        assert np.array_equal(samples[first : first + take.samples.size], take.samples)
        assert not is_taken[first : first + take.samples.size].any()
        is_taken[first : first + take.samples.size] = True
    levels = np.square(samples[: samples.size // 160 * 160].reshape(-1, 160)).mean(axis=1)
    is_loud = np.repeat(levels > np.percentile(levels, 95) / 10**2, 160)
    assert is_taken[: is_loud.size][is_loud].mean() > 0.97
