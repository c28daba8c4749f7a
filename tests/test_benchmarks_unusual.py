"""Events beside visits: which were found, how late, and what touches none."""

from mmstream.benchmarks.train.unusual import compared
from mmstream.media import Span, secs_to_ns


def secs(start: float, end: float) -> Span:
    return Span(secs_to_ns(start), secs_to_ns(end))


def test_the_first_event_of_a_visit_says_how_late_it_was_found() -> None:
    visits = [secs(10, 20), secs(30, 40), secs(50, 60)]
    verdict = compared([secs(9.5, 12), secs(15, 22), secs(31, 35)], visits)
    assert verdict.late_secs == (-0.5, 1.0, None)
    assert verdict.n_false == 0


def test_events_that_touch_no_visit_are_false() -> None:
    verdict = compared([secs(0, 8.5), secs(20.5, 22), secs(70, 71)], [secs(10, 20)])
    assert verdict.late_secs == (None,)
    assert verdict.n_false == 2
