from hypothesis import given
from hypothesis import strategies as st

from mmstream.media import NS_PER_SEC, Span
from mmstream.metrics import StageMetrics
from mmstream.recognition.backlog import MAX_WAITING_NS, Backlog, Job, stamped


def job(source: str, what: int, *, must: bool = False, secs: int = 1) -> Job[int]:
    return Job(source, what, Span(0, secs * NS_PER_SEC), must_be_done=must)


def backlog(*jobs: Job[int]) -> tuple[Backlog[int], StageMetrics]:
    metrics = StageMetrics("test")
    waiting: Backlog[int] = Backlog(metrics)
    for one in jobs:
        waiting.put(one)
    return waiting, metrics


def taken(waiting: Backlog[int], n: int = 9) -> list[int]:
    return [one.what for one in waiting.take(n)]


def test_only_the_latest_waits_of_what_may_be_passed_over() -> None:
    waiting, metrics = backlog(job("a", 1), job("a", 2), job("b", 3), job("a", 4, must=True))
    assert taken(waiting) == [4, 3]
    assert metrics.dropped == {"partial_dropped": 2}
    assert len(waiting) == 0


def test_what_must_be_done_waits_its_turn_one_of_each_source_at_once() -> None:
    waiting, metrics = backlog(
        job("a", 1, must=True), job("a", 2, must=True), job("b", 3), job("a", 4)
    )
    assert [taken(waiting), taken(waiting), taken(waiting)] == [[1, 3], [2], [4]]
    assert not metrics.dropped


def test_the_oldest_is_first_and_a_newer_one_keeps_its_place() -> None:
    waiting, _ = backlog(job("a", 1), job("b", 2), job("a", 3))
    assert taken(waiting, 1) == [3]
    assert taken(waiting, 1) == [2]


def test_what_replaces_another_has_waited_as_long() -> None:
    waiting, _ = backlog(*(stamped(job("a", n), at_ns) for n, at_ns in ((1, 10), (2, 20), (3, 30))))
    assert waiting.waits_since_ns("a") == 10
    assert waiting.waits_since_ns("b") is None
    assert [(one.what, one.put_ns) for one in waiting.take(1)] == [(3, 10)]


def test_what_waits_of_a_source_is_forgotten() -> None:
    waiting, _ = backlog(job("a", 1, must=True), job("b", 2))
    assert [one.what for one in waiting.forget("a")] == [1]
    assert not waiting.has("a")
    assert waiting.has("b")
    assert taken(waiting) == [2]


def test_above_five_minutes_the_oldest_is_given_up() -> None:
    waiting, metrics = backlog(*(job("a", n, must=True, secs=20) for n in range(15)))
    assert not metrics.dropped
    assert [one.what for one in waiting.put(job("a", 15, must=True, secs=20))] == [0]
    assert metrics.dropped == {"final_given_up": 1}
    assert taken(waiting) == [1]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.integers(1, 90), st.integers(0, 2)))
)
def test_each_is_taken_dropped_or_given_up(
    puts: list[tuple[str, bool, int, int]],
) -> None:
    waiting, metrics = backlog()
    done: list[Job[int]] = []
    given_up: list[int] = []
    for what, (source, must, secs, n_taken) in enumerate(puts):
        given_up.extend(one.what for one in waiting.put(job(source, what, must=must, secs=secs)))
        done.extend(waiting.take(n_taken))
        assert len(waiting) <= 2 * (MAX_WAITING_NS // NS_PER_SEC + 1)
    while len(waiting):
        done.extend(waiting.take(1))
    n_lost = metrics.dropped["partial_dropped"] + metrics.dropped["final_given_up"]
    assert len(done) + n_lost == len(puts)
    for source in "ab":
        order = [one.what for one in done if one.source == source]
        assert order == sorted(order)
    finals = {what for what, (_, must, _, _) in enumerate(puts) if must}
    assert finals <= {one.what for one in done} | set(given_up)
