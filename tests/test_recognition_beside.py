import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from mmstream.clock import ManualClock
from mmstream.errors import ScorerError
from mmstream.media import NS_PER_SEC, Span
from mmstream.metrics import StageMetrics
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


@pytest.mark.parametrize(
    "call",
    [
        lambda one: one.wait("a"),
        lambda one: one.collect("a"),
        lambda one: one.put(job("b", "more")),
    ],
)
def test_what_fails_is_an_error_at_every_next_call(
    call: Callable[[Beside[str, str]], object],
) -> None:
    craft = Shouting()
    one, _ = beside(craft)
    one.put(job("a", "!"))
    with pytest.raises(ScorerError):
        one.wait("a")
    with pytest.raises(ScorerError, match="shouting failed: ValueError: hoarse"):
        call(one)
    assert craft.closed.wait(DEADLINE_SECS)


def test_closed_it_lets_its_craft_go() -> None:
    craft = Shouting()
    one, _ = beside(craft)
    one.close()
    assert craft.closed.wait(DEADLINE_SECS)


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
