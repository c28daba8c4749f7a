"""The faults of a synthetic source: each does what it says and leaves the rest alone."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from mmstream.clock import ManualClock
from mmstream.media import (
    NS_PER_SEC,
    AudioChunk,
    Hop,
    MediaItem,
    SourceEnded,
    SourceStarted,
    StreamBound,
    StreamKind,
    VideoFrame,
    secs_to_ns,
)
from mmstream.sources.synthetic import (
    NEVER_NS,
    Backward,
    Drift,
    Duplicate,
    EndsEarly,
    Fault,
    Gap,
    Jitter,
    Reset,
    Silent,
    SyntheticSettings,
    SyntheticSource,
    faulty,
)
from mmstream.windows import HopCutter, HopSettings

SECS = 4
Media = AudioChunk | VideoFrame


@cache
def clean() -> tuple[MediaItem, ...]:
    chosen = SyntheticSettings(
        scene="flash_beep", width=64, height=64, duration_secs=SECS, pace="max"
    )
    with SyntheticSource("test", chosen, ManualClock()).read() as items:
        return tuple(items)


def struck(*faults: Fault, seed: int = 0, live: bool = False) -> list[MediaItem]:
    return list(faulty(clean(), faults, seed, live=live))


def media(items: Sequence[MediaItem], stream: StreamKind) -> list[Media]:
    kind = AudioChunk if stream == "audio" else VideoFrame
    return [item for item in items if isinstance(item, kind)]


def stamps(items: Sequence[MediaItem], stream: StreamKind) -> list[int]:
    return [item.start_ns for item in media(items, stream)]


def hops_of(items: Sequence[MediaItem], *, live: bool) -> list[list[Hop]]:
    """What each item settles; last what the end does."""
    cutter = HopCutter("test", HopSettings(), live=live)
    return [list(cutter.push(item)) for item in [*items, SourceEnded("test")]]


FAULTS: st.SearchStrategy[Fault] = st.one_of(
    st.builds(Gap, stream=st.sampled_from(["audio", "video"]), share=st.floats(0.1, 1)),
    st.builds(Silent, stream=st.just("audio"), at_secs=st.floats(0, 3), duration_secs=st.just(0.5)),
    st.builds(EndsEarly, stream=st.just("video"), at_secs=st.floats(0, 5)),
    st.builds(Jitter, stream=st.just("video"), amount_secs=st.floats(0.001, 1)),
    st.builds(Drift, stream=st.just("audio"), ppm=st.floats(-1000, 1000)),
    st.builds(Backward, stream=st.just("video"), amount_secs=st.floats(0.01, 9)),
    st.builds(Duplicate, stream=st.just("audio"), at_secs=st.floats(0, 3)),
    st.builds(Reset, stream=st.just("video"), at_secs=st.floats(0, 5)),
)


@given(faults=st.lists(FAULTS, max_size=4), seed=st.integers(0, 9), n_first=st.integers(0, 281))
@settings(max_examples=50)
def test_faults_are_reproducible_and_causal(faults: list[Fault], seed: int, n_first: int) -> None:
    sent = struck(*faults, seed=seed)
    whole = [repr(item) for item in sent]
    assert [repr(item) for item in struck(*faults, seed=seed)] == whole
    first = [repr(item) for item in faulty(clean()[:n_first], faults, seed, live=False)]
    assert first == whole[: len(first)]
    assert all(item.start_ns >= 0 for item in sent if isinstance(item, AudioChunk | VideoFrame))


def test_without_faults_nothing_changes() -> None:
    assert tuple(struck()) == clean()


@pytest.mark.parametrize("stream", ["audio", "video"])
@pytest.mark.parametrize("make", [Gap, Silent, Jitter, Drift, Backward, Duplicate, Reset])
def test_a_fault_strikes_its_stream_from_its_instant_on(
    make: type[Gap], stream: StreamKind
) -> None:
    needed = {"amount_secs": 0.2, "ppm": 500}
    values = {name: value for name, value in needed.items() if name in make.model_fields}
    fault = make(stream=stream, at_secs=2.0, **values)
    items = struck(fault)
    other: StreamKind = "video" if stream == "audio" else "audio"
    assert media(items, other) == media(clean(), other)
    n_before = sum(start_ns < 2 * NS_PER_SEC for start_ns in stamps(clean(), stream))
    assert media(items, stream)[:n_before] == media(clean(), stream)[:n_before]
    assert media(items, stream)[n_before + 1 :] != media(clean(), stream)[n_before + 1 :]


def test_gap_loses_all_and_is_over_after_its_duration() -> None:
    items = struck(Gap(stream="audio", at_secs=1.0, duration_secs=0.5))
    expected = [at for at in stamps(clean(), "audio") if not 1e9 <= at < 1.5e9]
    assert stamps(items, "audio") == expected
    assert len(clean()) - len(items) == 25


def test_gap_may_lose_a_share() -> None:
    kept = stamps(struck(Gap(stream="audio", share=0.3)), "audio")
    assert set(kept) < set(stamps(clean(), "audio"))
    assert 0.55 < len(kept) / 200 < 0.85
    assert stamps(struck(Gap(stream="audio", share=0.3), seed=1), "audio") != kept


def test_silent_stream_that_is_live_says_nothing() -> None:
    fault = Silent(stream="audio", at_secs=1.0, duration_secs=1.0)
    assert struck(fault, live=True) == struck(
        Gap(stream="audio", at_secs=1.0, duration_secs=1.0), live=True
    )


def test_silent_stream_that_is_not_live_says_how_far_it_is() -> None:
    items = struck(Silent(stream="audio", at_secs=1.0, duration_secs=1.0))
    bounds = [item for item in items if isinstance(item, StreamBound)]
    lost = [at for at in stamps(clean(), "audio") if 1e9 <= at < 2e9]
    assert bounds == [StreamBound("test", "audio", at) for at in lost]
    settled = hops_of(items, live=False)
    assert sum(map(len, settled)) == 4 * SECS
    n_by_then = items.index(media(items, "video")[36])  # captured at 1.8 s, in the silence
    assert sum(map(len, settled[:n_by_then])) == 7
    assert sum(map(len, hops_of(struck(Gap(stream="audio", at_secs=1.0)), live=False)[:-1])) == 4


def test_live_windows_do_not_wait_for_a_silent_stream() -> None:
    items = struck(Silent(stream="audio", at_secs=1.0), live=True)
    hops = [hop for settled in hops_of(items, live=True)[:-1] for hop in settled]
    assert len(hops) == 14  # up to 3.5 s, then patience is not over yet
    assert [bool(hop.heard.any()) for hop in hops] == [True] * 4 + [False] * 10


def test_stream_that_ends_early_says_so_once() -> None:
    items = struck(EndsEarly(stream="video", at_secs=1.0))
    assert stamps(items, "video") == [at for at in stamps(clean(), "video") if at < 1e9]
    bounds = [item for item in items if isinstance(item, StreamBound)]
    assert bounds == [StreamBound("test", "video", NEVER_NS)]
    assert media(items, "audio") == media(clean(), "audio")
    hops = [hop for settled in hops_of(items, live=False)[:-1] for hop in settled]
    assert [len(hop.frames) for hop in hops] == [5] * 4 + [0] * 12


def test_source_ends_when_both_streams_have() -> None:
    items = struck(EndsEarly(stream="video", at_secs=1.0), EndsEarly(stream="audio", at_secs=2.0))
    assert len(media(items, "audio")) == 100
    assert items[-1] == StreamBound("test", "audio", NEVER_NS)
    chosen = SyntheticSettings(
        scene="flash_beep",
        width=64,
        height=64,
        faults=(EndsEarly(stream="video"), EndsEarly(stream="audio", at_secs=1)),
    )
    with SyntheticSource("test", chosen, ManualClock()).read() as endless:
        assert len(list(endless)) == 53


def test_jitter_stays_within_its_amount_and_keeps_the_order_of_capture() -> None:
    items = struck(Jitter(stream="video", amount_secs=0.08))
    offsets = [
        after - before
        for before, after in zip(stamps(clean(), "video"), stamps(items, "video"), strict=True)
    ]
    assert max(map(abs, offsets)) <= secs_to_ns(0.08)
    assert len(set(offsets)) == len(offsets)
    assert max(offsets) > secs_to_ns(0.06)
    assert min(offsets) < secs_to_ns(-0.06)
    assert any(later < earlier for earlier, later in pairwise(stamps(items, "video")))


def test_each_fault_has_dice_of_its_own() -> None:
    jitter = Jitter(stream="video", at_secs=0.2, amount_secs=0.01)
    shifts = [
        [after - before for before, after in zip(stamps(clean(), "video"), moved, strict=True)]
        for moved in (stamps(struck(jitter), "video"), stamps(struck(jitter, jitter), "video"))
    ]
    assert shifts[1] != [2 * shift for shift in shifts[0]]


def test_drift_grows_with_time() -> None:
    fault = Drift(stream="audio", at_secs=1.0, ppm=-500)
    items = struck(fault)
    for before, after in zip(stamps(clean(), "audio"), stamps(items, "audio"), strict=True):
        assert after == before - max(0, before - NS_PER_SEC) // 2000


def test_backward_burst_is_stamped_earlier() -> None:
    items = struck(Backward(stream="video", at_secs=2.0, duration_secs=0.5, amount_secs=0.7))
    moved = [
        after - before
        for before, after in zip(stamps(clean(), "video"), stamps(items, "video"), strict=True)
    ]
    assert moved == [0] * 40 + [secs_to_ns(-0.7)] * 10 + [0] * 30


def test_duplicates_come_twice_with_the_same_stamp() -> None:
    items = struck(Duplicate(stream="audio", at_secs=2.0, duration_secs=0.1))
    chunks = media(items, "audio")
    expected = media(clean(), "audio")
    twice = [chunk for chunk in expected[100:105] for _ in range(2)]
    assert chunks == [*expected[:100], *twice, *expected[105:]]


def test_reset_starts_again_from_zero() -> None:
    items = struck(Reset(stream="video", at_secs=1.0))
    once = stamps(clean(), "video")
    assert stamps(items, "video") == [*once[:20], *once[:60]]


def test_faults_strike_by_true_time_whatever_the_stamp() -> None:
    items = struck(
        Reset(stream="video", at_secs=1.0), Gap(stream="video", at_secs=2.0, duration_secs=1.0)
    )
    once = stamps(clean(), "video")
    assert stamps(items, "video") == [*once[:20], *once[:20], *once[40:60]]


def test_faults_only_change_stamps_and_number() -> None:
    items = struck(Jitter(stream="video", amount_secs=0.01), Drift(stream="audio", ppm=100))
    for before, after in zip(clean(), items, strict=True):
        if isinstance(after, SourceStarted | StreamBound):
            assert after == before
        elif isinstance(before, AudioChunk):
            assert isinstance(after, AudioChunk)
            assert after.samples is before.samples
        elif isinstance(before, VideoFrame):
            assert isinstance(after, VideoFrame)
            assert replace(after, start_ns=before.start_ns) == before


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"kind": "explode", "stream": "audio"}, "'gap', 'silent', 'ends_early'"),
        ({"kind": "gap", "stream": "smell"}, "'audio' or 'video'"),
        ({"kind": "gap", "stream": "audio", "share": 0}, "greater than 0"),
        ({"kind": "jitter", "stream": "audio"}, "amount_secs"),
        ({"kind": "reset", "stream": "audio", "duration_secs": 1}, "Extra inputs"),
    ],
)
def test_wrong_faults_are_refused_with_what_is_allowed(
    values: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        TypeAdapter(Fault).validate_python(values)
