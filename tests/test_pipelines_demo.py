"""The demo's closing summary: events beside the truth."""

from test_sinks_terminal import event, health, published

from mmstream.media import NS_PER_SEC, Span
from mmstream.messages import NumberedStamp, Published, epoch_secs, iso_utc
from mmstream.metrics import StageMetrics
from mmstream.pipelines.demo import match, played, summary
from mmstream.sources.scenes import Truth

PLAYED_NS = 10 * NS_PER_SEC


def span(start_secs: float, end_secs: float) -> Span:
    return Span(round(start_secs * NS_PER_SEC), round(end_secs * NS_PER_SEC))


def test_an_event_that_overlaps_finds_and_one_that_does_not_is_false() -> None:
    found = match([span(1, 2), span(5, 6)], [span(1.1, 1.9), span(8, 9)], PLAYED_NS)
    assert (found.n_true, found.n_found, found.n_events, found.n_false) == (2, 1, 2, 1)


def test_start_errors_are_event_minus_truth() -> None:
    found = match([span(1, 2), span(5, 6)], [span(1.25, 2), span(4.9, 6)], PLAYED_NS)
    assert [round(error / 1e6) for error in found.start_errors_ns] == [250, -100]


def test_an_event_far_from_any_start_has_no_start_error() -> None:
    assert match([span(1, 9)], [span(4, 5)], PLAYED_NS).start_errors_ns == ()


def test_what_began_just_before_the_end_is_not_missed_but_may_be_found() -> None:
    last = span(9.8, 10)
    assert match([last], [], PLAYED_NS).n_true == 0
    found = match([last], [last], PLAYED_NS)
    assert (found.n_true, found.n_found, found.n_false) == (1, 1, 0)


def test_nothing_happened_and_nothing_was_said() -> None:
    found = match([], [], PLAYED_NS)
    assert (found.n_true, found.n_events, found.n_false) == (0, 0, 0)


def test_the_summary_counts_labels_latency_and_drops() -> None:
    began_ns = 1_700_000_000 * NS_PER_SEC
    start_ns, end_ns = began_ns + 1_510_000_000, began_ns + 3 * NS_PER_SEC
    said = event("end", end_reason="quiet").model_copy(
        update={
            "t_start": epoch_secs(start_ns),
            "ts_start": iso_utc(start_ns),
            "t_end": epoch_secs(end_ns),
            "ts_end": iso_utc(end_ns),
        }
    )
    stamp = NumberedStamp(node="n", boot_id="b", ts_emit="x", seq=0, latency_ms=84.0)
    stage = StageMetrics("worker")
    stage.drop("hop_dropped", 2)
    messages = [
        published(health("online").model_copy(update={"since": iso_utc(began_ns)})),
        Published(said, stamp),
        published(health("offline").model_copy(update={"since": iso_utc(began_ns + PLAYED_NS)})),
    ]
    assert played(messages) == (began_ns, PLAYED_NS)
    lines = summary([Truth("loud", span(1.5, 3), "beep")], messages, [stage])
    loud = next(line for line in lines if line.startswith("loud"))
    assert loud.split()[1:5] == ["1", "1", "1", "0"]
    assert "+10 ms" in loud
    assert "capture to message: median 84 ms" in lines
    assert lines[-1] == "dropped: worker hop_dropped 2"
