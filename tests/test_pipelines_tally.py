"""Events beside the truth: hits, misses, false alarms, pieces, merged events and errors."""

from hypothesis import given
from hypothesis import strategies as st

from mmstream.media import Span, secs_to_ns
from mmstream.pipelines.tally import LabelScore, Said, match, score
from mmstream.pipelines.truth import Judged

Times = list[tuple[float, float]]
HOUR_NS = secs_to_ns(3600)


def spans(times: Times) -> tuple[Span, ...]:
    return tuple(Span(secs_to_ns(start), secs_to_ns(end)) for start, end in times)


def tally(truths: Times, events: Times, unclear: Times | None = None) -> LabelScore:
    judged = Judged("a.mp4", "motion", spans(truths), spans(unclear or []))
    said = [Said("motion", one, one.start_ns + secs_to_ns(0.25), 0.9) for one in spans(events)]
    return score("motion", [match(judged, HOUR_NS, said, slack_ns=secs_to_ns(0.5))])


def test_hits_misses_and_false_alarms_are_counted_and_named() -> None:
    made = tally([(10, 12), (20, 21), (30, 31)], [(10.5, 12.25), (29.75, 31), (50, 51)])
    assert (made.n_hits, made.n_misses, made.n_false_alarms) == (2, 1, 1)
    assert made.precision == 0.6667
    assert made.recall == 0.6667
    assert made.false_alarms_per_hour == 1
    assert [(one.file, one.start_s, one.end_s) for one in made.misses] == [("a.mp4", 20, 21)]
    assert [(one.start_s, one.end_s) for one in made.false_alarms] == [(50, 51)]


def test_errors_are_event_less_truth() -> None:
    made = tally([(10, 12), (30, 31)], [(10.5, 12.25), (29.75, 31)])
    assert made.start_error is not None
    assert made.end_error is not None
    assert made.delay is not None
    assert (made.start_error.median_s, made.start_error.abs_median_s) == (0.125, 0.375)
    assert made.start_error.abs_p95_s == round(0.25 + 0.95 * 0.25, 3)
    assert made.end_error.median_s == 0.125
    assert (made.delay.n, made.delay.median_s) == (2, 0.375)


def test_within_the_slack_it_is_a_hit_and_beyond_it_is_not() -> None:
    assert tally([(10, 11)], [(11.5, 12)]).n_hits == 1
    assert tally([(10, 11)], [(9, 9.5)]).n_hits == 1
    beyond = tally([(10, 11)], [(11.51, 12)])
    assert (beyond.n_hits, beyond.n_false_alarms) == (0, 1)


def test_an_event_that_has_its_truth_is_not_lent_to_a_neighbour() -> None:
    made = tally([(10, 11), (11.25, 12)], [(10, 11.1)])
    assert (made.n_hits, made.n_misses, made.n_merged) == (1, 1, 0)


def test_several_events_of_one_truth_are_one_hit_in_pieces() -> None:
    made = tally([(10, 20)], [(10, 12), (14, 15), (18, 21)])
    assert (made.n_hits, made.n_false_alarms, made.n_fragments) == (1, 0, 2)
    assert made.hits[0].start_error_s == 0
    assert made.hits[0].end_error_s == 1


def test_events_of_several_objects_at_once_are_one_piece() -> None:
    made = tally([(10, 20)], [(10, 16), (12, 20), (11, 13)])
    assert (made.n_hits, made.n_events, made.n_fragments) == (1, 3, 0)
    assert made.precision == 1


def test_one_event_over_two_truths_finds_both_and_is_merged() -> None:
    made = tally([(10, 11), (13, 14)], [(10, 14)])
    assert (made.n_hits, made.n_merged, made.precision) == (2, 1, 1)
    first, second = made.hits
    assert (first.start_error_s, first.end_error_s) == (0, None)
    assert (second.start_error_s, second.delay_s, second.end_error_s) == (None, None, 0)


def test_an_object_that_comes_later_does_not_date_a_truth_that_another_spans() -> None:
    made = tally([(10, 11), (13, 15)], [(10, 15), (14, 14.5)])
    assert [one.start_error_s for one in made.hits] == [0, None]
    assert [one.delay_s for one in made.hits] == [0.25, None]
    early = tally([(10, 12), (13, 15)], [(10.5, 11), (11.5, 15)])
    assert [one.end_error_s for one in early.hits] == [None, 0]
    assert [one.start_error_s for one in early.hits] == [0.5, None]


def test_where_it_is_unclear_nothing_counts_either_way() -> None:
    made = tally([], [(10, 11)], unclear=[(5, 15)])
    assert (made.n_unclear, made.n_false_alarms, made.precision) == (1, 0, None)
    assert made.judged_s == 3590


def test_an_instant_beside_an_unclear_stretch_has_no_error() -> None:
    made = tally([(10, 11), (13, 14)], [(9, 14)], unclear=[(8, 10), (11, 13)])
    assert made.n_merged == 0
    assert [one.start_error_s for one in made.hits] == [None, None]
    assert made.start_error is None
    assert made.end_error is not None
    assert made.end_error.n == 1


def test_nothing_true_and_nothing_said() -> None:
    made = tally([], [])
    assert (made.precision, made.recall, made.false_alarms_per_hour) == (None, None, 0)


instants = st.lists(st.integers(0, 300), min_size=0, max_size=12, unique=True).map(sorted)


def disjoint(numbers: list[int]) -> Times:
    return [(a / 10, b / 10) for a, b in zip(numbers[::2], numbers[1::2], strict=False)]


@given(instants, st.lists(st.tuples(st.integers(0, 300), st.integers(0, 40)), max_size=8))
def test_every_truth_and_every_event_is_counted_once(
    numbers: list[int], drawn: list[tuple[int, int]]
) -> None:
    truths = disjoint(numbers)
    events = [(start / 10, (start + length) / 10) for start, length in drawn]
    made = tally(truths, events)
    assert made.n_hits + made.n_misses == made.n_true == len(truths)
    n_right = made.n_events - made.n_false_alarms
    assert made.precision == (round(n_right / len(events), 4) if events else None)
    assert (made.n_hits > 0) == (n_right > 0)


@given(instants)
def test_the_truth_itself_is_without_fault(numbers: list[int]) -> None:
    truths = disjoint(numbers)
    made = tally(truths, truths)
    assert (made.n_misses, made.n_false_alarms, made.n_fragments, made.n_merged) == (0, 0, 0, 0)
    assert all(hit.start_error_s == hit.end_error_s == 0 for hit in made.hits)
