import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from mmstream.clock import ManualClock
from mmstream.errors import ScorerError
from mmstream.media import NS_PER_SEC, Span
from mmstream.metrics import StageMetrics
from mmstream.recognition import beside as module
from mmstream.recognition.backlog import Job
from mmstream.recognition.beside import Beside, Factor

DEADLINE_SECS = 10


@dataclass
class Shouting:
    """Makes capitals when it is let; `!` breaks it."""

    clock: ManualClock = field(default_factory=ManualClock)
    secs_each: float = 0.0
    let: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    closed: threading.Event = field(default_factory=threading.Event)
    calls: list[tuple[str, ...]] = field(default_factory=list)

    def do(self, work: Sequence[str], /) -> Sequence[str]:
        self.calls.append(tuple(work))
        self.begun.set()
        assert self.let.wait(DEADLINE_SECS)
        if "!" in work:
            msg = "hoarse"
            raise ValueError(msg)
        self.clock.advance(self.secs_each)
        return [word.upper() for word in work]

    def forget(self, source: str, /) -> None:
        self.calls.append(("forget", source))

    def close(self) -> None:
        self.closed.set()


def job(source: str, what: str, *, must: bool = True, end_secs: float = 1.0) -> Job[str]:
    return Job(source, what, Span(0, round(end_secs * NS_PER_SEC)), must_be_done=must)


def beside(craft: Shouting, *, is_free: bool = True) -> tuple[Beside[str, str], StageMetrics]:
    metrics = StageMetrics("shouting")
    if is_free:
        craft.let.set()
    return Beside("shouting", lambda: craft, metrics, craft.clock), metrics


def results(of: Beside[str, str], source: str) -> list[str | None]:
    return [answer.result for answer in of.collect(source)]


def test_each_source_gets_its_own_answers_once() -> None:
    one, metrics = beside(Shouting())
    for source, what in (("a", "x"), ("b", "y"), ("a", "z")):
        one.put(job(source, what))
    assert one.wait("a")
    assert one.wait("b")
    assert [results(one, "a"), results(one, "a"), results(one, "b")] == [["X", "Z"], [], ["Y"]]
    assert (metrics.n_in, metrics.n_out, len(metrics.latencies)) == (3, 3, 3)
    one.close()


def test_what_comes_while_it_is_busy_is_done_together_and_old_partials_go() -> None:
    craft = Shouting()
    one, metrics = beside(craft, is_free=False)
    one.put(job("a", "first"))
    assert craft.begun.wait(DEADLINE_SECS)
    one.put(job("a", "old", must=False))
    one.put(job("a", "new", must=False))
    one.put(job("b", "other"))
    assert not one.wait("a", 0.0)
    craft.let.set()
    assert one.wait("a", DEADLINE_SECS)
    assert craft.calls == [("first",), ("new", "other")]
    assert metrics.dropped == {"partial_dropped": 1}
    one.close()


def test_what_comes_late_of_a_forgotten_source_is_discarded() -> None:
    craft = Shouting()
    one, metrics = beside(craft, is_free=False)
    one.put(job("a", "old"))
    assert craft.begun.wait(DEADLINE_SECS)
    one.put(job("a", "waiting"))
    one.forget("a")
    one.put(job("a", "new"))
    craft.let.set()
    assert one.wait("a", DEADLINE_SECS)
    assert results(one, "a") == ["NEW"]
    assert craft.calls == [("old",), ("forget", "a"), ("new",)]
    assert metrics.dropped == {"late_result": 2}
    one.close()


def test_what_cannot_be_built_is_an_error_of_the_one_who_builds() -> None:
    def fails() -> Shouting:
        msg = "no voice"
        raise ScorerError(msg)

    with pytest.raises(ScorerError, match="no voice"):
        Beside("shouting", fails, StageMetrics("shouting"), ManualClock())


def failing(monkeypatch: pytest.MonkeyPatch, *, pause_secs: float) -> Shouting:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECS", pause_secs)
    craft = Shouting()
    craft.let.set()
    return craft


def test_what_fails_costs_what_is_there_and_whoever_waits_for_all_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    craft = failing(monkeypatch, pause_secs=DEADLINE_SECS)
    one, metrics = beside(craft, is_free=False)
    craft.let.clear()
    one.put(job("a", "!"))
    assert craft.begun.wait(DEADLINE_SECS)
    one.put(job("b", "waits"))
    craft.let.set()
    assert one.wait("b", DEADLINE_SECS)
    assert one.failure == "shouting failed: ValueError: hoarse"
    assert [results(one, "a"), results(one, "b")] == [[None], [None]]
    one.put(job("b", "more"))
    assert one.wait("b", 0)
    assert results(one, "b") == [None]
    with pytest.raises(ScorerError, match="shouting failed: ValueError: hoarse"):
        one.wait("b")
    assert metrics.dropped == {"failed": 3}
    assert craft.closed.wait(DEADLINE_SECS)
    one.close()
    assert not one._thread.is_alive()  # noqa: SLF001 - others may have the same name


def test_what_has_failed_is_built_again_and_works(monkeypatch: pytest.MonkeyPatch) -> None:
    craft = failing(monkeypatch, pause_secs=0.0)
    built = threading.Semaphore(0)

    def build() -> Shouting:
        built.release()
        return craft

    one: Beside[str, str] = Beside("shouting", build, StageMetrics("shouting"), craft.clock)
    one.put(job("a", "!"))
    for _ in range(2):
        assert built.acquire(timeout=DEADLINE_SECS)
    answers: list[str | None] = []
    while answers[-1:] != ["X"]:  # until it is built again what is put is given up
        one.put(job("a", "x"))
        assert one.wait("a", DEADLINE_SECS)
        answers += results(one, "a")
    assert answers[0] is None
    assert one.failure is None
    one.close()


def test_what_cannot_be_built_again_is_tried_after_longer_and_longer_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    craft = failing(monkeypatch, pause_secs=1.0)
    pauses: list[float] = []
    n_built = 0
    is_over = threading.Event()

    def build() -> Shouting:
        nonlocal n_built
        n_built += 1
        if n_built > 1:
            msg = "no voice"
            raise ScorerError(msg)
        return craft

    one: Beside[str, str] = Beside("shouting", build, StageMetrics("shouting"), craft.clock)
    waits = one._condition.wait_for  # noqa: SLF001 - pauses of minutes are not waited for

    def hurried(until: Callable[[], bool], secs: float | None = None) -> bool:
        if threading.current_thread().name != "shouting" or secs is None:
            return waits(until, secs)
        pauses.append(secs)
        if len(pauses) < 11:
            return False
        is_over.set()
        return waits(until, secs)

    monkeypatch.setattr(one._condition, "wait_for", hurried)  # noqa: SLF001 - as above
    one.put(job("a", "!"))
    assert is_over.wait(DEADLINE_SECS)
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert one.failure == "no voice"
    one.close()


def test_nobody_waits_for_what_was_asked_of_a_forgotten_source() -> None:
    craft = Shouting()
    one, _ = beside(craft, is_free=False)
    one.put(job("a", "old"))
    assert craft.begun.wait(DEADLINE_SECS)
    one.forget("a")
    assert one.wait("a", 0.0)
    assert one.behind_secs("a") == 0
    craft.let.set()
    one.close()


def test_it_knows_how_far_it_is_behind_and_how_long_it_is_at_one_thing() -> None:
    craft = Shouting()
    one, metrics = beside(craft, is_free=False)
    assert (one.busy_secs, one.behind_secs("a")) == (0, 0)
    one.put(job("a", "first", must=False))
    assert craft.begun.wait(DEADLINE_SECS)
    craft.clock.advance(3)
    one.put(job("a", "old", must=False))
    one.put(job("b", "x"))
    craft.clock.advance(4)
    one.put(job("a", "new", must=False))
    assert (one.busy_secs, one.behind_secs("a"), one.behind_secs("b")) == (7, 7, 4)
    craft.let.set()
    assert one.wait("a", DEADLINE_SECS)
    assert [answer.took_secs for answer in one.collect("a")] == [7, 4]
    assert metrics.latencies.percentile_ms(100) == 7000
    assert (one.busy_secs, one.behind_secs("a")) == (0, 0)
    one.close()


def test_closed_it_lets_its_craft_go() -> None:
    craft = Shouting()
    one, _ = beside(craft)
    one.close()
    assert craft.closed.is_set()


def test_the_factor_counts_only_sound_that_is_new() -> None:
    craft = Shouting(secs_each=3.0)
    one, metrics = beside(craft)
    for end_secs in (2, 4, 6):
        one.put(job("a", "x", must=False, end_secs=end_secs))
        one.wait("a")
    one.collect("a")
    assert one.overall_factor == pytest.approx(1.5)
    assert metrics.realtime_factor == pytest.approx(1.5, rel=0.05)
    one.close()


def test_the_recent_factor_forgets_and_the_overall_one_does_not() -> None:
    factor = Factor()
    assert (factor.overall, factor.recent) == (None, None)
    for n in range(100):
        at_ns, computed_secs = n * NS_PER_SEC, 4 if n < 50 else 1
        factor.add([("a", Span(at_ns, at_ns + NS_PER_SEC))], computed_secs * NS_PER_SEC)
    assert factor.overall == pytest.approx(2.5)
    assert factor.recent == pytest.approx(1, abs=0.3)
