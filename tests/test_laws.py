"""The laws of everything that streams, for rings, hops and events.

The same pushes give the same outputs; cutting a chunk in two changes nothing; what was given for a
prefix does not change when more comes; how the two streams of a file interleave does not matter; a
recorded live session replays to what it said. The chunked features and detectors have theirs in
their own tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import BEEP, RATE_HZ, chunk, frame, halves, ms, started

from mmstream.heads.events import EventHead, HeadItem
from mmstream.heads.lifecycle import LabelSettings
from mmstream.media import (
    AudioChunk,
    Hop,
    Scores,
    Series,
    SourceEnded,
    SourceItem,
    SourceStalled,
    SourceStarted,
    Span,
    StreamBound,
    VideoFrame,
    samples_to_ns,
    secs_to_ns,
)
from mmstream.messages import Decided, Event
from mmstream.rings import AudioRing
from mmstream.windows import HopCutter, HopSettings

Media = AudioChunk | VideoFrame
Sized = tuple[int, int, tuple[float, ...], tuple[bool, ...], tuple[int, ...], bool]

_ODD_RATE = HopSettings(rate_hz=22_050, hop_secs=0.2)  # a sample is not a whole nanosecond


def look(hops: Sequence[Hop]) -> list[Sized]:
    """All that a hop says, taken down at once: later pushes cannot reach it."""
    return [
        (
            hop.index,
            hop.span.end_ns,
            tuple(hop.samples.tolist()),
            tuple(hop.heard.tolist()),
            tuple(one.start_ns for one in hop.frames),
            hop.gap_before,
        )
        for hop in hops
    ]


def cut(
    items: Sequence[SourceItem], *, live: bool, hop_settings: HopSettings | None = None
) -> list[Sized]:
    """What is given for these items in this order, and at their end."""
    stage = HopCutter("cam", hop_settings or HopSettings(), live=live)
    given_out: list[Sized] = []
    for item in (started(), *items, SourceEnded("cam")):
        given_out += look(stage.push(item))
    return given_out


@st.composite
def sounds(draw: st.DrawFn, rate_hz: int = RATE_HZ) -> list[AudioChunk]:
    """Chunks with rounding errors, holes, overlaps and steps back."""
    chunks = []
    at = draw(st.integers(0, 20_000))
    for _ in range(draw(st.integers(1, 12))):
        size = draw(st.integers(1, 3_000))
        off_ns = draw(st.sampled_from([0, 0, 0, -40_000, 40_000, 300_000, -300_000]))
        jump = draw(st.sampled_from([0, 0, 0, 0, 2, -2, 700, -700, 9_000, -30_000]))
        at = max(0, at + jump)
        start_ns = max(0, samples_to_ns(at, rate_hz) + off_ns)
        chunks.append(chunk(start_ns, size, rate_hz=rate_hz))
        at += size
    return chunks


@st.composite
def films(draw: st.DrawFn) -> list[VideoFrame]:
    """Frames with jitter, holes, repeats and steps back."""
    frames = []
    at_ns = draw(st.integers(0, secs_to_ns(1)))
    for _ in range(draw(st.integers(1, 25))):
        frames.append(frame(at_ns))
        at_ns += draw(st.sampled_from([40, 40, 40, 41, 39, 0, -40, 700])) * ms(1)
        at_ns = max(0, at_ns)
    return frames


@st.composite
def mixtures(draw: st.DrawFn, one: Sequence[Media], two: Sequence[Media]) -> list[Media]:
    """Both, each in its own order."""
    left, right = list(one), list(two)
    mixed: list[Media] = []
    while left and right:
        mixed.append((left if draw(st.booleans()) else right).pop(0))
    return mixed + left + right


@st.composite
def sessions(draw: st.DrawFn) -> list[SourceItem]:
    """Anything that a source may send, in any order."""
    items: list[SourceItem] = list(draw(mixtures(draw(sounds()), draw(films()))))
    others: list[SourceItem] = [
        StreamBound("cam", "audio", ms(700)),
        StreamBound("cam", "video", ms(1200)),
        SourceStalled("cam", 0),
        SourceEnded("cam"),
        started(),
        started(clock_offset_ns=5),
        chunk(ms(15_000), 500),
    ]
    for _ in range(draw(st.integers(0, 3))):
        items.insert(draw(st.integers(0, len(items))), draw(st.sampled_from(others)))
    return items


@given(session=sessions(), live=st.booleans())
def test_the_same_items_in_the_same_order_give_the_same_hops(
    session: list[SourceItem], *, live: bool
) -> None:
    assert cut(session, live=live) == cut(session, live=live)


@given(session=sessions(), live=st.booleans())
def test_hops_are_disjoint_in_order_and_given_once(
    session: list[SourceItem], *, live: bool
) -> None:
    stage = HopCutter("cam", HopSettings(), live=live)
    last_end_ns = clock = None
    for item in (started(), *session, SourceEnded("cam")):
        if isinstance(item, SourceStarted) and (clock is None or clock != item.clock_offset_ns):
            stage.push(SourceEnded("cam"))
            last_end_ns, clock = None, item.clock_offset_ns  # on a new clock, hops begin anew
        for hop in stage.push(item):
            assert hop.index == hop.span.start_ns // ms(250)
            assert hop.span.start_ns == hop.index * ms(250)
            assert 0 < hop.span.duration_ns <= ms(250)
            assert last_end_ns is None or hop.span.start_ns >= last_end_ns
            last_end_ns = hop.span.end_ns


@given(session=sessions(), live=st.booleans())
def test_every_frame_and_sample_is_in_a_hop_or_counted(
    session: list[SourceItem], *, live: bool
) -> None:
    stage = HopCutter("cam", HopSettings(), live=live)
    hops = [hop for item in (started(), *session, SourceEnded("cam")) for hop in stage.push(item)]
    lost = stage.metrics.dropped
    frames = [item for item in session if isinstance(item, VideoFrame)]
    n_frames = sum(len(hop.frames) for hop in hops)
    assert n_frames + lost["backward_frames"] + lost["late_frames"] == len(frames)
    n_samples = sum(item.samples.size for item in session if isinstance(item, AudioChunk))
    n_heard = sum(int(hop.heard.sum()) for hop in hops)
    n_counted = lost["late_samples"] + lost["overlapping_samples"] + lost["ring_full_samples"]
    # A chunk may be pulled by one sample: that much rounding per chunk and border is let pass.
    slack = 2 * sum(isinstance(item, AudioChunk) for item in session)
    assert abs(n_heard + n_counted - n_samples) <= slack


@given(session=sessions(), live=st.booleans(), data=st.data())
def test_cutting_a_chunk_in_two_changes_nothing(
    session: list[SourceItem], *, live: bool, data: st.DataObject
) -> None:
    # Sound for a time that a bound has given up is late from its first hop on.
    session = [one for one in session if one != StreamBound("cam", "audio", ms(700))]
    pieces: list[SourceItem] = []
    for item in session:
        if isinstance(item, AudioChunk) and item.samples.size > 1:
            n_first = data.draw(st.integers(1, item.samples.size - 1))
            pieces += halves(item, n_first)
        else:
            pieces.append(item)
    assert cut(pieces, live=live) == cut(session, live=live)


@given(chunks=sounds(rate_hz=22_050), live=st.booleans(), data=st.data())
def test_cutting_a_chunk_in_two_changes_nothing_at_odd_rates(
    chunks: list[AudioChunk], *, live: bool, data: st.DataObject
) -> None:
    pieces: list[AudioChunk] = []
    for item in chunks:
        n_first = data.draw(st.integers(0, item.samples.size - 1))
        pieces += halves(item, n_first) if n_first else [item]
    assert cut(pieces, live=live, hop_settings=_ODD_RATE) == cut(
        chunks, live=live, hop_settings=_ODD_RATE
    )


@given(chunks=sounds(), data=st.data())
def test_a_ring_holds_the_same_of_a_chunk_cut_in_two(
    chunks: list[AudioChunk], data: st.DataObject
) -> None:
    whole, cut_up = (AudioRing(rate_hz=RATE_HZ, capacity_secs=0.3) for _ in range(2))
    for item in chunks:
        n_refused = whole.write(item)
        n_first = data.draw(st.integers(0, item.samples.size - 1))
        parts = halves(item, n_first) if n_first else (item,)
        assert sum(cut_up.write(part) for part in parts) == n_refused
    assert cut_up.statistics() == whole.statistics()
    around = Span(max(0, whole.end_ns - ms(400)), whole.end_ns + ms(10))
    for one, two in zip(whole.read(around), cut_up.read(around), strict=True):
        assert np.array_equal(one, two)


@given(session=sessions(), more=sessions(), live=st.booleans())
def test_what_was_given_does_not_change_when_more_comes(
    session: list[SourceItem], more: list[SourceItem], *, live: bool
) -> None:
    stage = HopCutter("cam", HopSettings(), live=live)
    hops = [hop for item in (started(), *session) for hop in stage.push(item)]
    before = look(hops)
    for item in more:
        stage.push(item)
    stage.flush()
    assert look(hops) == before
    assert cut(session + more, live=live)[: len(before)] == before


@given(chunks=sounds(), frames=films(), data=st.data())
def test_how_the_streams_of_a_file_interleave_does_not_matter(
    chunks: list[AudioChunk], frames: list[VideoFrame], data: st.DataObject
) -> None:
    # Nothing here leads by more than 10 s, the most that a file is waited for.
    mixed = data.draw(mixtures(chunks, frames))
    assert cut(mixed, live=False) == cut([*chunks, *frames], live=False)
    assert cut(mixed, live=False) == cut([*frames, *chunks], live=False)


@given(session=sessions())
def test_a_recorded_live_session_replays_to_the_same_hops(session: list[SourceItem]) -> None:
    stage = HopCutter("cam", HopSettings(), live=True)
    recorded: list[SourceItem] = []
    said: list[Sized] = []
    for item in (started(), *session, SourceEnded("cam")):
        recorded.append(item)
        said += look(stage.push(item))
    assert cut(recorded[1:-1], live=True) == said


@given(chunks=sounds(), hop_ms=st.sampled_from([20, 100, 250, 500]))
def test_hops_of_any_length_put_together_give_the_same_sound(
    chunks: list[AudioChunk], hop_ms: int
) -> None:
    def joined(length_ms: int) -> dict[int, float]:
        hops = HopCutter("cam", HopSettings(hop_secs=length_ms / 1000), live=False)
        items: list[SourceItem] = [started(["audio"]), *chunks, SourceEnded("cam")]
        return {
            round(hop.span.start_ns * RATE_HZ / 1e9) + int(place): float(hop.samples[place])
            for item in items
            for hop in hops.push(item)
            for place in np.flatnonzero(hop.heard)
        }

    # Smaller hops are settled sooner, so a step back finds more of them cut: only new sound counts.
    if all(one.end_ns <= two.start_ns for one, two in pairwise(chunks)):
        assert joined(hop_ms) == joined(1000)


@dataclass(frozen=True)
class Curve:
    """Scores at instants, and how they are cut into `Scores`."""

    at_ms: tuple[int, ...]
    values: tuple[float, ...]
    borders_ms: tuple[int, ...]
    other_borders_ms: tuple[int, ...]


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    steps = draw(
        st.lists(st.sampled_from([5, 40, 90, 250, 400, 700, 3_000]), min_size=1, max_size=40)
    )
    at_ms = tuple(int(at) for at in np.cumsum(steps))
    values = tuple(draw(st.sampled_from([0.05, 0.4, 0.6, 0.95])) for _ in at_ms)
    end_ms = at_ms[-1] + draw(st.sampled_from([1, 300, 5_000]))
    borders = st.lists(st.integers(1, max(1, end_ms - 1)), max_size=30, unique=True)
    return Curve(
        at_ms,
        values,
        (0, *sorted(draw(borders)), end_ms),
        (0, *sorted(draw(borders)), end_ms),
    )


def as_scores(curve: Curve, borders_ms: Sequence[int]) -> list[HeadItem]:
    items: list[HeadItem] = []
    at_ms, values = np.array(curve.at_ms), np.array(curve.values, np.float32)
    for index, (start, end) in enumerate(pairwise(borders_ms)):
        here = (at_ms >= start) & (at_ms < end)
        outputs = {"beep": Series(at_ms[here] * ms(1), values[here])} if here.any() else {}
        items.append(Scores("cam", index, Span(ms(start), ms(end)), outputs))
    return items


def told(items: Sequence[HeadItem], label_settings: LabelSettings) -> list[Decided]:
    head = EventHead(node="n", source="cam", labels=[BEEP], settings={"beep": label_settings})
    everything: list[HeadItem] = [started(), *items, SourceEnded("cam")]
    return [one for item in everything for one in head.push(item)]


def lives(decided: Sequence[Decided]) -> list[tuple[object, ...]]:
    """Starts and ends, with their stamps and the instants that decided them."""
    events = [(one, one.content) for one in decided if isinstance(one.content, Event)]
    return [
        (event.type, event.id, event.t_start, event.t_end, event.end_reason, one.at_ns)
        for one, event in events
        if event.type != "update"
    ]


label_settings = st.builds(
    LabelSettings,
    on=st.just(0.5),
    off=st.sampled_from([0.1, 0.35, 0.5]),
    for_secs=st.sampled_from([0, 0.02, 0.2, 0.5]),
    within_secs=st.sampled_from([0.5, 0.8, 3]),
    min_on_secs=st.sampled_from([0, 0.3, 2]),
    min_off_secs=st.sampled_from([0, 0.2, 1]),
)


@given(curve=curves(), chosen=label_settings)
@settings(max_examples=300)
def test_events_do_not_depend_on_how_scores_are_cut(curve: Curve, chosen: LabelSettings) -> None:
    one = told(as_scores(curve, curve.borders_ms), chosen)
    two = told(as_scores(curve, curve.other_borders_ms), chosen)
    assert lives(one) == lives(two)


@given(curve=curves(), chosen=label_settings)
def test_the_same_scores_give_the_same_messages(curve: Curve, chosen: LabelSettings) -> None:
    items = as_scores(curve, curve.borders_ms)
    assert told(items, chosen) == told(items, chosen)


@given(curve=curves(), chosen=label_settings)
def test_the_life_of_an_event_is_whole(curve: Curve, chosen: LabelSettings) -> None:
    events = [one.content for one in told(as_scores(curve, curve.borders_ms), chosen)]
    opened: Event | None = None
    last_end = -1.0
    ids = []
    for event in events:
        assert isinstance(event, Event)
        if event.type == "start":
            assert opened is None
            assert event.t_start >= last_end
            opened = event
            ids.append(event.id)
        assert opened is not None
        assert (event.id, event.t_start) == (opened.id, opened.t_start)
        assert event.top_score >= opened.top_score
        assert all(event.t_start <= one.t_start for one in event.evidence)
        if event.type == "end":
            assert event.t_end is not None
            assert event.t_start <= event.t_end <= curve.borders_ms[-1] / 1000
            assert all(one.t_start <= event.t_end for one in event.evidence)
            opened, last_end = None, event.t_end
    assert opened is None
    assert len(set(ids)) == len(ids)


@given(curve=curves(), chosen=label_settings, n=st.integers(0, 30))
def test_what_was_said_does_not_change_when_more_scores_come(
    curve: Curve, chosen: LabelSettings, n: int
) -> None:
    items = as_scores(curve, curve.borders_ms)
    head = EventHead(node="n", source="cam", labels=[BEEP], settings={"beep": chosen})
    head.push(started())
    prefix = [one for item in items[:n] for one in head.push(item)]
    assert told(items, chosen)[: len(prefix)] == prefix


def _plain_start_ms(curve: Curve, chosen: LabelSettings) -> int | None:
    """When the first event starts, found millisecond by millisecond."""
    for_ms, within_ms = (round(secs * 1000) for secs in (chosen.for_secs, chosen.within_secs))
    on: list[int] = []
    for now in range(curve.borders_ms[-1]):
        before = [index for index, at in enumerate(curve.at_ms) if at <= now]
        if not before:
            continue
        last = before[-1]
        if now < curve.at_ms[last] + 500 and curve.values[last] >= chosen.on:
            on.append(now)
        on = [at for at in on if at > now - within_ms]
        if len(on) >= for_ms and on:
            return on[0]
    return None


@given(curve=curves(), chosen=label_settings.filter(lambda one: one.for_secs > 0))
@settings(max_examples=60)
def test_an_event_starts_where_counting_milliseconds_says(
    curve: Curve, chosen: LabelSettings
) -> None:
    starts = [
        one.content.t_start
        for one in told(as_scores(curve, curve.borders_ms), chosen)
        if isinstance(one.content, Event) and one.content.type == "start"
    ]
    plain_ms = _plain_start_ms(curve, chosen)
    assert starts[:1] == ([] if plain_ms is None else [plain_ms / 1000])
