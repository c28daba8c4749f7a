"""The worker: what is batched, what gives way under overload, and what a scorer may not do."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams import BEEP, FLASH, Script, hop, ms, series, steady

from mmstream.clock import ManualClock, SystemClock
from mmstream.errors import ConfigError, ScorerError
from mmstream.media import Detection, Hop, Label, ObjectSeries, Scores, Series, Span, TimedText
from mmstream.metrics import StageMetrics
from mmstream.stages import Load, Scorer, ScorerSpec
from mmstream.worker import Backlog, Batch, Ending, Worker, WorkerSettings


def backlog(settings: WorkerSettings | None = None) -> tuple[Backlog, StageMetrics]:
    metrics = StageMetrics("worker")
    return Backlog(settings or WorkerSettings(), metrics), metrics


def taken(batch: Batch) -> list[tuple[str, int]]:
    return [(one.source, one.index) for one in batch.hops]


def test_nothing_waits_nothing_is_due() -> None:
    queue, _ = backlog()
    assert queue.due_in_ns(0) is None


def test_a_single_source_is_never_waited_for() -> None:
    queue, _ = backlog()
    queue.put(hop(0), 5, live=True)
    assert queue.due_in_ns(5) == 0


def test_a_hop_waits_for_other_sources_until_the_deadline() -> None:
    queue, _ = backlog(WorkerSettings(max_wait_ms=10))
    queue.put(hop(0, source="a"), 0, live=True)
    queue.put(hop(0, source="b"), ms(1), live=True)
    assert queue.due_in_ns(ms(1)) == 0
    assert taken(queue.take(ms(1))) == [("a", 0), ("b", 0)]
    queue.put(hop(1, source="a"), ms(250), live=True)
    assert queue.due_in_ns(ms(253)) == ms(7)
    assert queue.due_in_ns(ms(260)) == 0
    assert queue.due_in_ns(ms(300)) == 0


def test_a_full_batch_is_due_at_once_and_not_larger() -> None:
    queue, _ = backlog(WorkerSettings(max_batch=3))
    queue.put(hop(0, source="a"), 0, live=True)
    queue.take(0)
    for index in range(4):
        queue.put(hop(index, source="b"), 1, live=True)
        assert queue.due_in_ns(1) == (0 if index >= 2 else ms(10))
    assert taken(queue.take(1)) == [("b", 0), ("b", 1), ("b", 2)]
    assert taken(queue.take(1)) == [("b", 3)]


def test_a_source_that_has_ended_is_not_waited_for() -> None:
    queue, _ = backlog()
    queue.put(hop(0, source="a"), 0, live=True)
    queue.put(hop(0, source="b"), 0, live=True)
    queue.take(0)
    queue.put(hop(1, source="a"), ms(1), live=True)
    assert queue.due_in_ns(ms(1)) == ms(10)
    queue.forget("b")
    assert queue.due_in_ns(ms(1)) == 0


def test_media_that_is_read_is_scored_at_once_one_by_one() -> None:
    queue, _ = backlog()
    queue.put(hop(0, source="live"), 0, live=True)
    queue.take(0)
    queue.put(hop(0), 1, live=False)
    queue.put(hop(1), 1, live=False)
    assert queue.due_in_ns(1) == 0
    assert taken(queue.take(1)) == [("cam", 0)]
    assert taken(queue.take(1)) == [("cam", 1)]


def test_a_live_batch_takes_no_hops_of_files() -> None:
    queue, _ = backlog()
    queue.put(hop(0, source="a"), 0, live=True)
    queue.put(hop(0, source="file"), 1, live=False)
    queue.put(hop(0, source="b"), 2, live=True)
    assert taken(queue.take(2)) == [("a", 0), ("b", 0)]
    assert taken(queue.take(2)) == [("file", 0)]


def test_live_batches_and_hops_of_files_take_turns() -> None:
    queue, _ = backlog()
    for index in range(9):
        queue.put(hop(index, source="file"), index, live=False)
    for index in range(3):
        queue.put(hop(index), 10 + index, live=True)
    assert [taken(queue.take(13)) for _ in range(3)] == [
        [("cam", 0), ("cam", 1), ("cam", 2)],
        [("file", 0)],
        [("file", 1)],
    ]
    queue.put(hop(3), 14, live=True)
    queue.put(hop(4), 14, live=True)
    assert taken(queue.take(14)) == [("cam", 3), ("cam", 4)]
    queue.put(hop(5), 15, live=True)
    assert [taken(queue.take(15)) for _ in range(2)] == [[("file", 2)], [("cam", 5)]]


@given(
    puts=st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40),
    max_batch=st.integers(1, 8),
)
def test_each_source_stays_in_order_and_nothing_vanishes(
    puts: list[tuple[str, bool]], max_batch: int
) -> None:
    settings = WorkerSettings(max_batch=max_batch, queue_hops=4)
    queue, metrics = backlog(settings)
    out: list[tuple[str, int]] = []
    n_dropped = 0
    for index, (source, takes) in enumerate(puts):
        n_dropped += queue.put(hop(index, source=source), index, live=source != "c")
        if takes:
            out += taken(queue.take(index))
    while queue.due_in_ns(1000) is not None:
        out += taken(queue.take(1000))
    assert len(out) + n_dropped == len(puts) == metrics.n_in
    assert metrics.dropped["hop_dropped"] == n_dropped
    for source in "abc":
        given_out = [index for name, index in out if name == source]
        assert given_out == sorted(set(given_out))
    # What is read, not captured, is never dropped.
    assert [index for name, index in out if name == "c"] == [
        index for index, (source, _) in enumerate(puts) if source == "c"
    ]


def test_under_overload_cadences_are_stretched_then_windows_skipped() -> None:
    queue, metrics = backlog(WorkerSettings(stale_secs=1.0))
    loads = []
    for index, age_ms in enumerate((0, 499, 500, 999, 1000, 5000)):
        queue.put(hop(2 * index), 0, live=True)
        queue.put(hop(2 * index + 1), 0, live=True)
        loads.append(queue.take(ms(age_ms)).load)
    assert loads == [Load.FULL] * 2 + [Load.STRETCHED] * 2 + [Load.INGEST] * 2
    assert metrics.dropped == {"cadence_stretched": 4, "window_skipped": 4}


def test_then_the_oldest_hop_is_dropped_and_the_next_says_so() -> None:
    queue, metrics = backlog(WorkerSettings(queue_hops=2, max_batch=8))
    assert [queue.put(hop(index), 0, live=True) for index in range(4)] == [0, 0, 1, 1]
    batch = queue.take(0)
    assert [(one.index, one.gap_before) for one in batch.hops] == [(2, True), (3, False)]
    assert metrics.dropped == {"hop_dropped": 2}


def test_what_is_read_is_never_dropped_nor_degraded() -> None:
    queue, metrics = backlog(WorkerSettings(queue_hops=2))
    for index in range(50):
        assert queue.put(hop(index), 0, live=False) == 0
    batches = [queue.take(ms(60_000)) for _ in range(50)]
    assert [one for batch in batches for one in taken(batch)] == [("cam", n) for n in range(50)]
    assert {batch.load for batch in batches} == {Load.FULL}
    assert not metrics.dropped


class Delivered:
    """Takes what a worker delivers; tests wait for it."""

    def __init__(self) -> None:
        self.scores: list[Scores] = []
        self._changed = threading.Condition()

    def __call__(self, scored: Sequence[Scores]) -> None:
        with self._changed:
            self.scores.extend(scored)
            self._changed.notify_all()

    def wait(self, n: int) -> list[Scores]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.scores) >= n, timeout=5)
            return list(self.scores)


@contextmanager
def running(worker: Worker) -> Iterator[list[BaseException]]:
    """Runs it on a thread; gives where its error will be."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield errors
    finally:
        worker.close()
        thread.join(5)
        assert not thread.is_alive()


@dataclass(frozen=True)
class Answering:
    """A scorer that answers with whatever `answer` makes of the hops."""

    answer: Callable[[Sequence[Hop]], Sequence[Scores]]
    labels: tuple[Label, ...] = (BEEP,)

    def build(self, device: str) -> Scorer:  # noqa: ARG002 - as the protocol says
        return self

    def score(
        self,
        hops: Sequence[Hop],
        so_far: Sequence[Scores],  # noqa: ARG002
        load: Load,  # noqa: ARG002
    ) -> Sequence[Scores]:
        return self.answer(hops)

    def forget(self, source: str) -> None: ...


class Choosy:
    """A scorer that passes something over, and counts."""

    labels = (BEEP,)

    def __init__(self) -> None:
        self.metrics = StageMetrics("choosy")
        self.problems: tuple[str, ...] = ("bell: torn",)

    def build(self, device: str) -> Scorer:  # noqa: ARG002 - as the protocol says
        return self

    def score(
        self,
        hops: Sequence[Hop],
        so_far: Sequence[Scores],  # noqa: ARG002
        load: Load,  # noqa: ARG002
    ) -> Sequence[Scores]:
        self.problems = ("bell: torn", "kettle: torn") if hops[0].index else ("bell: torn",)
        return [Scores(one.source, one.index, one.span) for one in hops]

    def forget(self, source: str) -> None: ...


def test_what_a_scorer_passes_over_is_logged_once_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    choosy, delivered = Choosy(), Delivered()
    other = Answering(lambda hops: [Scores(one.source, one.index, one.span) for one in hops], ())
    worker = Worker([other, choosy], WorkerSettings(), SystemClock(), delivered)
    assert [stage.name for stage in worker.stages] == ["worker"]
    with running(worker) as errors:
        worker.built.result(5)
        assert [one.getMessage() for one in caplog.records] == ["passed over: bell: torn"]
        for index in range(3):
            worker.submit(hop(index), live=False)
            delivered.wait(index + 1)
        told = [(one.levelname, one.getMessage()) for one in caplog.records]
        assert told == [
            ("WARNING", "passed over: bell: torn"),
            ("WARNING", "passed over: kettle: torn"),
        ]
    assert errors == []
    assert [stage.name for stage in worker.stages] == ["worker", "choosy"]
    assert choosy.metrics.dropped == {"passed_over": 2}


def test_hops_come_back_as_scores_in_order() -> None:
    script, delivered = Script(steady(0.5)), Delivered()
    worker = Worker([script], WorkerSettings(), SystemClock(), delivered)
    with running(worker) as errors:
        for index in range(20):
            worker.submit(hop(index), live=False)
        scores = delivered.wait(20)
    assert errors == []
    assert [(one.source, one.index, one.span) for one in scores] == [
        ("cam", index, hop(index).span) for index in range(20)
    ]
    assert [one.outputs["beep"].values.tolist() for one in scores] == [[0.5]] * 20
    assert script.batches == [1] * 20
    assert (worker.metrics.n_in, worker.metrics.n_out, worker.n_batches) == (20, 20, 20)
    assert len(worker.metrics.latencies) == 20


def test_closing_scores_what_is_queued_first() -> None:
    delivered = Delivered()
    worker = Worker(
        [Script(steady(0.5))], WorkerSettings(max_wait_ms=1000), SystemClock(), delivered
    )
    for index in range(5):
        worker.submit(hop(index, source="a"), live=True)
    worker.submit(hop(0, source="b"), live=True)
    worker.close()
    with running(worker) as errors:
        pass
    assert errors == []
    assert len(delivered.scores) == 6


def test_closing_wakes_a_worker_that_waits_for_a_deadline() -> None:
    delivered = Delivered()
    worker = Worker(
        [Script(steady(0.5))], WorkerSettings(max_wait_ms=1000), ManualClock(), delivered
    )
    with running(worker):
        worker.submit(hop(0, source="a"), live=True)
        worker.submit(hop(0, source="b"), live=True)
        delivered.wait(2)
        worker.submit(hop(1, source="a"), live=True)  # the clock stands still: never due
        worker.close()
        delivered.wait(3)


def test_what_waits_of_a_forgotten_source_is_not_scored() -> None:
    delivered = Delivered()
    worker = Worker([Script(steady(0.5))], WorkerSettings(), SystemClock(), delivered)
    worker.submit(hop(0, source="a"), live=False)
    worker.submit(hop(0, source="b"), live=False)
    worker.forget("a")
    worker.close()
    with running(worker):
        pass
    assert [one.source for one in delivered.scores] == ["b"]


def test_one_batch_is_in_flight() -> None:
    class Busy:
        labels = (BEEP,)
        n_inside = 0
        most = 0

        def build(self, device: str) -> "Busy":  # noqa: ARG002 - as the protocol says
            return self

        def score(
            self,
            hops: Sequence[Hop],
            so_far: Sequence[Scores],  # noqa: ARG002
            load: Load,  # noqa: ARG002
        ) -> Sequence[Scores]:
            self.n_inside += 1
            self.most = max(self.most, self.n_inside)
            scored = [Scores(one.source, one.index, one.span) for one in hops]
            self.n_inside -= 1
            return scored

        def forget(self, source: str) -> None: ...

    busy, delivered = Busy(), Delivered()
    worker = Worker([busy], WorkerSettings(max_batch=1), SystemClock(), delivered)
    with running(worker):
        for index in range(50):
            worker.submit(hop(index), live=True)
            delivered.wait(index)
        delivered.wait(50)
    assert busy.most == 1
    assert [one.index for one in delivered.scores] == list(range(50))


def test_a_forgotten_source_is_forgotten_before_its_next_hop() -> None:
    told: list[str] = []

    class Remembering:
        labels = (BEEP,)

        def build(self, device: str) -> Scorer:  # noqa: ARG002 - as the protocol says
            return self

        def score(
            self,
            hops: Sequence[Hop],
            so_far: Sequence[Scores],  # noqa: ARG002
            load: Load,  # noqa: ARG002
        ) -> Sequence[Scores]:
            told.extend(f"{one.source}{one.index}" for one in hops)
            return [Scores(one.source, one.index, one.span) for one in hops]

        def forget(self, source: str) -> None:
            told.append(f"forget {source}")

    delivered = Delivered()
    worker = Worker([Remembering()], WorkerSettings(), SystemClock(), delivered)
    with running(worker):
        worker.submit(hop(0), live=False)
        delivered.wait(1)
        worker.forget("cam")
        worker.submit(hop(1), live=False)
        delivered.wait(2)
        worker.submit(hop(2), live=False)
        delivered.wait(3)
    assert told == ["cam0", "forget cam", "cam1", "cam2"]


class Lasting(Answering):
    """A scorer with something left to say."""

    def finish(self, source: str, *, live: bool) -> Scores | None:
        said = TimedText(Span(0, 1), f"{source} {'live' if live else 'read'}")
        return Scores(source, 0, Span(0, 1), texts=(said,))


class Exhausted(Answering):
    """One that may have, and has not."""

    def finish(self, source: str, *, live: bool) -> Scores | None: ...


def test_what_scorers_have_left_of_a_source_that_ends_is_delivered_once() -> None:
    lasting = Lasting(lambda hops: [Scores(one.source, one.index, one.span) for one in hops], ())
    exhausted = Exhausted(lasting.answer, ())
    delivered = Delivered()
    worker = Worker([exhausted, lasting], WorkerSettings(), SystemClock(), delivered)
    with running(worker) as errors:
        worker.submit(hop(4), live=True)
        delivered.wait(1)
        assert worker.finishes
        worker.finish(Ending("cam", 5, hop(4).span.end_ns, live=True))
        last = delivered.wait(2)[-1]
    assert errors == []
    assert (last.source, last.index, last.span) == (
        "cam",
        5,
        Span(hop(4).span.end_ns, hop(4).span.end_ns),
    )
    assert [one.text for one in last.texts] == ["cam live"]
    assert worker.metrics.n_in == worker.metrics.n_out == 1


class Owning(Answering):
    """A scorer with a thread of its own, as it were."""

    closed: ClassVar[list[str]] = []

    def close(self) -> None:
        self.closed.append("closed")


@pytest.mark.parametrize("fails", [False, True])
def test_what_scorers_own_is_let_go_when_the_worker_ends(*, fails: bool) -> None:
    def answer(hops: Sequence[Hop]) -> Sequence[Scores]:
        return () if fails else [Scores(one.source, one.index, one.span) for one in hops]

    Owning.closed.clear()
    delivered = Delivered()
    worker = Worker([Owning(answer)], WorkerSettings(), SystemClock(), delivered)
    with running(worker) as errors:
        worker.submit(hop(0), live=True)
        if not fails:
            delivered.wait(1)
            assert Owning.closed == []
    assert len(errors) == fails
    assert Owning.closed == ["closed"]


def test_what_was_built_before_one_that_cannot_be_is_let_go() -> None:
    class Missing:
        labels = ()

        def build(self, device: str) -> Scorer:
            msg = f"no weights for {device}"
            raise ScorerError(msg)

    Owning.closed.clear()
    specs: list[ScorerSpec] = [Owning(lambda _: ()), Missing()]
    with running(Worker(specs, WorkerSettings(), SystemClock(), Delivered())) as errors:
        pass
    assert len(errors) == 1
    assert Owning.closed == ["closed"]


def test_a_problem_is_told_when_it_shows_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    class Ailing(Choosy):
        def finish(self, source: str, *, live: bool) -> Scores | None:
            self.problems = ("bell: torn", f"{source} {live}")
            return None

    delivered = Delivered()
    worker = Worker([Ailing()], WorkerSettings(), SystemClock(), delivered)
    with running(worker):
        worker.finish(Ending("cam", 0, 0, live=True))
        delivered.wait(1)
    assert "passed over: cam True" in caplog.messages


def test_what_several_scorers_say_is_merged() -> None:
    def seen(_: Hop) -> Mapping[str, Series]:
        return {"flash": series((0, 0.25)), "embedding": Series(np.zeros(1, np.int64), WIDE)}

    def find(hops: Sequence[Hop]) -> Sequence[Scores]:
        found = Detection("thing", 0, "video", "finder", 0.5)
        text = TimedText(Span(0, 1), "EXIT")
        return [Scores(one.source, one.index, one.span, {}, (found,), (text,)) for one in hops]

    specs: list[ScorerSpec] = [
        Script(steady(0.5)),
        Script(seen, labels=(FLASH,)),
        Answering(find, labels=()),
    ]
    delivered = Delivered()
    worker = Worker(specs, WorkerSettings(), SystemClock(), delivered)
    with running(worker) as errors:
        worker.submit(hop(0), live=False)
        [scores] = delivered.wait(1)
    assert errors == []
    assert set(scores.outputs) == {"beep", "flash", "embedding"}
    assert [one.label for one in scores.detections] == ["thing"]
    assert [one.text for one in scores.texts] == ["EXIT"]


WIDE = np.full((1, 8), 7, np.float32)


def test_without_scorers_hops_come_back_empty() -> None:
    delivered = Delivered()
    worker = Worker([], WorkerSettings(), SystemClock(), delivered)
    with running(worker):
        worker.submit(hop(3), live=False)
        assert delivered.wait(1) == [Scores("cam", 3, hop(3).span)]


def test_two_scorers_may_not_say_the_same_label() -> None:
    specs = [Script(steady(0.1)), Script(steady(0.2))]
    with pytest.raises(ConfigError, match="two scorers say the label 'beep': switch one of them"):
        Worker(specs, WorkerSettings(), ManualClock(), Delivered())


def failure_of(spec: ScorerSpec) -> tuple[list[BaseException], Worker]:
    worker = Worker([spec], WorkerSettings(), SystemClock(), Delivered())
    worker.submit(hop(0), live=False)
    worker.submit(hop(1), live=False)
    worker.close()
    with running(worker) as errors:
        pass
    return errors, worker


def again(hops: Sequence[Hop]) -> list[Scores]:
    return [Scores(one.source, one.index, one.span) for one in hops] * 2


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: (),
        again,
        lambda hops: [Scores("other", one.index, one.span) for one in hops],
        lambda hops: [Scores(one.source, one.index + 1, one.span) for one in hops],
    ],
)
def test_a_scorer_must_answer_each_hop(answer: Callable[[Sequence[Hop]], list[Scores]]) -> None:
    [error], _ = failure_of(Answering(answer))
    assert isinstance(error, ScorerError)
    assert str(error) == "Answering must give one result per hop, in order"


def test_an_error_in_a_scorer_ends_the_run() -> None:
    def fail(_: Sequence[Hop]) -> Sequence[Scores]:
        msg = "out of memory"
        raise RuntimeError(msg)

    [error], _ = failure_of(Answering(fail))
    assert isinstance(error, RuntimeError)


def test_when_all_is_built_it_says_so() -> None:
    worker = Worker([Script(steady(0.5))], WorkerSettings(), SystemClock(), Delivered())
    assert not worker.built.done()
    with running(worker) as errors:
        worker.built.result(timeout=10)
    assert errors == []


def test_a_scorer_that_cannot_be_built_ends_the_run() -> None:
    class Missing:
        labels = (BEEP,)

        def build(self, device: str) -> Scorer:
            msg = f"no weights for {device}"
            raise ScorerError(msg)

    [error], worker = failure_of(Missing())
    assert str(error) == "no weights for cpu"
    assert worker.built.done()  # nobody waits for it any more


@pytest.mark.parametrize("wrong", [1.5, -0.2, float("inf")])
def test_a_label_is_scored_from_0_to_1(wrong: float) -> None:
    [error], _ = failure_of(Script(steady(wrong)))
    assert isinstance(error, ScorerError)
    assert str(error).startswith("Script must score beep as [t] in 0..1: got values.shape=(1,)")


def test_a_label_is_scored_by_one_number_at_a_time() -> None:
    wide = Script(lambda _: {"beep": Series(np.zeros(1, np.int64), np.zeros((1, 2), np.float32))})
    [error], _ = failure_of(wide)
    assert "got values.shape=(1, 2)" in str(error)


def test_what_is_no_number_is_not_a_score_and_counted() -> None:
    delivered = Delivered()
    worker = Worker([Script(steady(float("nan")))], WorkerSettings(), SystemClock(), delivered)
    with running(worker) as errors:
        worker.submit(hop(0), live=False)
        [scores] = delivered.wait(1)
    assert errors == []
    assert scores.outputs == {}
    assert worker.metrics.dropped == {"not_a_number": 1}


def of_an_object(value: float) -> Callable[[Sequence[Hop]], list[Scores]]:
    one = ObjectSeries(BEEP.name, 1, series((0, value)))
    return lambda hops: [Scores(h.source, h.index, h.span, objects=(one,)) for h in hops]


def test_an_object_is_scored_from_0_to_1() -> None:
    [error], _ = failure_of(Answering(of_an_object(1.5)))
    assert str(error).startswith("Answering must score beep as [t] in 0..1")


def test_what_is_no_number_is_no_score_of_an_object() -> None:
    errors, worker = failure_of(Answering(of_an_object(float("nan"))))
    assert errors == []
    assert worker.metrics.dropped == {"not_a_number": 2}


def taught(value: float) -> Answering:
    """A scorer that was taught `flash` since its spec was asked."""

    def answer(hops: Sequence[Hop]) -> list[Scores]:
        outputs = {"flash": series((0, value))}
        return [Scores(h.source, h.index, h.span, outputs, learned=(FLASH,)) for h in hops]

    return Answering(answer, labels=())


def test_what_was_taught_since_is_told_and_scored_from_0_to_1_too() -> None:
    delivered = Delivered()
    specs: list[ScorerSpec] = [taught(0.5), Script(steady(0.5))]
    worker = Worker(specs, WorkerSettings(), SystemClock(), delivered)
    with running(worker) as errors:
        worker.submit(hop(0), live=False)
        [scores] = delivered.wait(1)
    assert errors == []
    assert (set(scores.outputs), scores.learned) == ({"beep", "flash"}, (FLASH,))
    [error], _ = failure_of(taught(1.5))
    assert str(error).startswith("Answering must score flash as [t] in 0..1")


def test_rounding_errors_of_a_score_are_let_pass() -> None:
    errors, worker = failure_of(Script(steady(float(np.nextafter(np.float32(1), np.float32(2))))))
    assert errors == []
    assert worker.metrics.n_out == 2


def test_no_series_at_all_is_not_scored() -> None:
    empty = Series(np.zeros(0, np.int64), np.zeros(0, np.float32))
    errors, _ = failure_of(Script(lambda _: {"beep": empty}))
    assert errors == []


def test_a_device_that_is_not_there_is_named_with_what_is() -> None:
    worker = Worker([], WorkerSettings(device="cuda:99"), ManualClock(), lambda _scored: None)
    with pytest.raises(ScorerError, match=r"cuda:99 is not there; allowed: auto, cpu"):
        worker.run()


class Picky:
    """A spec that says where it was asked to be, and does not like it on some devices."""

    labels = (BEEP,)

    def __init__(self, **refuses: Exception) -> None:
        self.asked: list[str] = []
        self._refuses = refuses

    def build(self, device: str) -> Scorer:
        self.asked.append(device)
        if device in self._refuses:
            raise self._refuses[device]
        return Script(steady(0.1)).build("cpu")


def ran(spec: ScorerSpec, device: str) -> tuple[str, list[BaseException]]:
    """Where a worker with this spec says that it computes, and what went wrong."""
    worker = Worker([spec], WorkerSettings(device=device), SystemClock(), Delivered())
    worker.close()
    with running(worker) as errors:
        pass
    return worker.device, errors


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with an accelerator."""
    monkeypatch.setattr("mmstream.worker._DRIVERS", (tmp_path,))


def test_without_a_driver_auto_is_the_processor_and_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mmstream.worker._DRIVERS", (tmp_path / "nvidiactl",))
    monkeypatch.setattr("mmstream.worker._why_not_cuda", lambda: pytest.fail("torch was asked"))
    spec = Picky()
    assert WorkerSettings().device == "auto"
    assert ran(spec, "auto") == ("cpu", [])
    assert (spec.asked, caplog.records) == (["cpu"], [])


@pytest.mark.usefixtures("driver")
def test_auto_is_cuda_where_that_works(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mmstream.worker._why_not_cuda", lambda: None)
    spec = Picky()
    assert ran(spec, "auto") == ("cuda", [])
    assert (spec.asked, caplog.records) == (["cuda"], [])


@pytest.mark.usefixtures("driver")
def test_a_driver_that_does_not_work_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def too_old(*_args: object, **_options: object) -> None:
        msg = "The NVIDIA driver on your system is too old (found version 9000).\nUpdate it."
        raise RuntimeError(msg)

    monkeypatch.setattr("torch.ones", too_old)
    spec = Picky()
    assert ran(spec, "auto") == ("cpu", [])
    assert spec.asked == ["cpu"]
    (record,) = caplog.records
    assert record.getMessage() == (
        "worker.device: CUDA cannot be used, models compute on the processor: "
        "The NVIDIA driver on your system is too old (found version 9000)."
    )


@pytest.mark.usefixtures("driver")
def test_what_does_not_fit_on_the_device_is_built_on_the_processor(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mmstream.worker._why_not_cuda", lambda: None)
    full = RuntimeError("CUDA out of memory. Tried to allocate 20 MiB\nmore")
    spec = Picky(cuda=full)
    assert ran(spec, "auto") == ("cpu", [])
    assert spec.asked == ["cuda", "cpu"]
    (record,) = caplog.records
    assert record.getMessage().endswith("processor: CUDA out of memory. Tried to allocate 20 MiB")


@pytest.mark.usefixtures("driver")
def test_what_is_no_fault_of_the_device_is_not_tried_elsewhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mmstream.worker._why_not_cuda", lambda: None)
    spec = Picky(cuda=ScorerError("no weights"))
    device, errors = ran(spec, "auto")
    assert (device, str(errors[0]), spec.asked) == ("cuda", "no weights", ["cuda"])
    full = RuntimeError("no room")
    monkeypatch.setattr("mmstream.worker._refuse_absent", lambda _device: None)
    for asked in ("cuda", "cpu"):
        spec = Picky(cuda=full, cpu=full)
        assert ran(spec, asked) == (asked, [full])
        assert spec.asked == [asked]
    assert caplog.records == []


def test_on_the_processor_nobody_loads_torch() -> None:
    code = """
import sys
from mmstream.clock import SystemClock
from mmstream.worker import Worker, WorkerSettings

worker = Worker([], WorkerSettings(device="cpu"), SystemClock(), lambda scored: None)
worker.close()
worker.run()
print("torch" in sys.modules)
"""
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout == "False\n"
