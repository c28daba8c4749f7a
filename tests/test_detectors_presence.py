import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from recordings import read_frames
from test_detectors_motion import (
    FLASHED,
    HOP_NS,
    QUIET,
    THIRD,
    WIDTH,
    Seen,
    assert_same,
    cut,
    frames_of,
    textured,
    with_patch,
)

from mmstream.detectors.motion import MotionSettings
from mmstream.detectors.presence import PresenceScorer, PresenceSettings
from mmstream.heads.events import EventHead, HeadItem
from mmstream.heads.lifecycle import LabelSettings
from mmstream.media import (
    NS_PER_SEC,
    Box,
    Hop,
    Label,
    Scores,
    Series,
    SourceEnded,
    SourceStarted,
    Span,
    VideoFrame,
)
from mmstream.messages import Event
from mmstream.stages import Load

PROPOSED = LabelSettings(for_secs=0.4, within_secs=1.0, min_off_secs=1.0)


def joined(scores: Iterable[Scores]) -> Seen:
    told = list(scores)
    series = [one.outputs["presence"] for one in told if "presence" in one.outputs]
    whole = Series(
        np.concatenate([one.at_ns for one in series] or [np.zeros(0, np.int64)]),
        np.concatenate([one.values for one in series] or [np.zeros(0, np.float32)]),
    )
    return Seen(whole.at_ns.tolist(), whole.values, told)


def watch(
    hops: Sequence[Hop], scorer: PresenceScorer | None = None, load: Load = Load.FULL
) -> Seen:
    scorer = scorer or PresenceSettings().build("cpu")
    return joined(score for hop in hops for score in scorer.score([hop], (), load))


def visits(seen: Seen) -> list[tuple[float, float]]:
    """Start and end in seconds of what the head makes of it."""
    label = PresenceSettings().labels[0]
    head = EventHead(node="n", source="cam", labels=[label], settings={"presence": PROPOSED})
    items: list[HeadItem] = [
        SourceStarted("cam", frozenset({"video"}), 0, None),
        *seen.scores,
        SourceEnded("cam"),
    ]
    decided = [one.content for item in items for one in head.push(item)]
    events = [one for one in decided if isinstance(one, Event) and one.type == "end"]
    return [(one.t_start, one.t_end) for one in events if one.t_end is not None]


def truth(data_dir: Path, name: str) -> list[tuple[float, float]]:
    rows = (data_dir / "events.tsv").read_text().splitlines()[2:]
    columns = [row.split("\t") for row in rows if row.startswith(f"surveillance/{name}")]
    return [(float(start), float(end)) for _, _, start, end in columns]


@pytest.mark.parametrize("name", ["one_by_one_person.mp4", "car_detection.mp4"])
def test_each_visit_is_one_event(data_dir: Path, name: str) -> None:
    found = visits(watch(cut(read_frames(data_dir / "surveillance" / name))))
    expected = truth(data_dir, name)
    assert len(found) == len(expected)
    for (start, end), (true_start, true_end) in zip(found, expected, strict=True):
        assert abs(start - true_start) <= 0.7  # read by eye, +-0.7 s
        assert abs(end - true_end) <= 1.0


def test_a_change_of_light_in_a_garden_is_silent(data_dir: Path) -> None:
    garden = read_frames(data_dir / "surveillance/garden_brightness_change.avi")
    there_and_back = [*range(24), *range(22, 0, -1)] * 4
    images = [garden[n].image for n in [*there_and_back, *range(len(garden)), *there_and_back]]
    frames = [VideoFrame("cam", n * NS_PER_SEC // 12, image) for n, image in enumerate(images)]
    seen = watch(cut(frames))
    assert seen.at_ns[-1] > 35 * NS_PER_SEC
    assert seen.values.max() < 0.1


@pytest.mark.parametrize("name", ["marathon_runners.mp4", "pedestrians_pavement.mp4"])
def test_where_something_always_is_it_is_always_said(data_dir: Path, name: str) -> None:
    assert np.mean(watch(cut(read_frames(data_dir / "surveillance" / name))).values >= 0.5) > 0.95


def test_who_keeps_still_stays_and_the_place_is_told() -> None:
    frames = frames_of([QUIET] * 30 + [FLASHED] * 250 + [QUIET] * 50, 5)
    seen = watch(cut(frames))
    assert seen.on() == [Span(frames[30].start_ns, frames[280].start_ns)]
    for one in seen.found():
        assert (one.label, one.modality, one.detector) == ("presence", "video", "presence")
        assert one.box is not None
        assert 0 <= THIRD.x - one.box.x <= 8 / 160
        assert 0 <= THIRD.y - one.box.y <= 8 / 90
        assert 0 <= one.box.x + one.box.width - 2 / 3 <= 8 / 160
        assert 0 <= one.box.y + one.box.height - 2 / 3 <= 8 / 90


def stay_secs(before_secs: int, absorb_secs: float) -> float:
    """How long a thing that is left there counts, after so much time without it."""
    frames = frames_of([QUIET] * before_secs * 2 + [FLASHED] * 340, 2)
    spec = PresenceSettings(absorb_secs=absorb_secs)
    (span,) = watch(cut(frames), spec.build("cpu")).on()
    assert span.start_ns == frames[before_secs * 2].start_ns
    return span.duration_ns / NS_PER_SEC


@pytest.mark.parametrize(
    ("before_secs", "absorb_secs", "expected"),
    [(10, 300, 60), (100, 300, 100), (100, 80, 80), (20, 60, 60)],
)
def test_what_is_left_for_good_is_absorbed(
    before_secs: int, absorb_secs: float, expected: float
) -> None:
    assert abs(stay_secs(before_secs, absorb_secs) - expected) <= 3


def test_the_ghost_of_what_was_there_from_the_start_heals() -> None:
    frames = frames_of([FLASHED] * 40 + [QUIET] * 400, 5)
    (ghost,) = watch(cut(frames)).on()
    assert ghost.start_ns == frames[40].start_ns
    assert 59 < ghost.duration_ns / NS_PER_SEC < 62


def test_what_moves_a_little_is_not_absorbed() -> None:
    fidgeting = [
        with_patch(QUIET, Box(0.3, 0.3 + 0.05 * (n // 50 % 2), 0.2, 0.4)) for n in range(500)
    ]
    frames = frames_of([QUIET] * 50 + fidgeting + [QUIET] * 10, 5)
    on = watch(cut(frames)).on()
    assert on == [Span(frames[50].start_ns, frames[550].start_ns)]


def test_larger_scores_higher_and_min_area_is_the_middle() -> None:
    tops = []
    for side in (0.02, 0.1, 0.2, 0.4):
        picture = with_patch(QUIET, Box(0.3, 0.3, side, side))
        tops.append(watch(cut(frames_of([QUIET] * 8 + [picture] * 5, 5))).values.max())
    assert tops == sorted(tops)
    assert tops[0] < 0.5 < tops[1] < tops[-1]
    coarse = PresenceSettings(min_area=0.3).build("cpu")
    assert not watch(cut(frames_of([QUIET] * 8 + [FLASHED] * 5, 5)), coarse).found()


@settings(max_examples=25)
@given(
    gain=st.floats(0.4, 1.6),
    offset=st.integers(-30, 30),
    gamma=st.floats(0.7, 1.4),
    slope=st.floats(-0.5, 0.5),
    n_steps=st.sampled_from([1, 40]),
)
def test_light_is_nobody(
    gain: float, offset: int, gamma: float, slope: float, n_steps: int
) -> None:
    across = np.linspace(1 - slope / 2, 1 + slope / 2, WIDTH)
    lit = 255 * (QUIET / 255) ** gamma * gain * across + offset
    assume(np.mean((lit < 0) | (lit > 255)) < 0.01)  # what clips is another picture: docs/senses.md
    shares = [min(1.0, n / n_steps) for n in range(1, n_steps + 10)]
    pictures = [(QUIET + share * (lit - QUIET)).clip(0, 255).astype(np.uint8) for share in shares]
    assert watch(cut(frames_of([QUIET] * 10 + pictures, 5))).values.max() < 0.5


def test_another_picture_is_learnt_and_scores_0_at_the_cut() -> None:
    other = textured(seed=1)
    frames = frames_of([QUIET] * 20 + [other] * 20 + [with_patch(other, THIRD)] * 20, 5)
    seen = watch(cut(frames))
    values = dict(zip(seen.at_ns, seen.values, strict=True))
    assert values[frames[20].start_ns] == 0
    assert all(frames[n].start_ns not in values for n in range(21, 25))
    assert seen.on() == [Span(frames[40].start_ns, frames[59].start_ns)]


@settings(max_examples=20)
@given(
    hop_ns=st.sampled_from([40_000_000, NS_PER_SEC // 10, 330_000_000, NS_PER_SEC, 5 * NS_PER_SEC]),
    start=st.integers(10, 80),
    n_on=st.integers(1, 60),
    n_seen=st.integers(30, 110),
)
def test_how_hops_are_cut_changes_nothing_nor_what_comes_later(
    hop_ns: int, start: int, n_on: int, n_seen: int
) -> None:
    pictures = [FLASHED if 0 <= n - start < n_on else QUIET for n in range(120)]
    frames = frames_of(pictures, 25, first_ns=123_456_789)
    whole = watch(cut(frames))
    assert_same(whole, watch(cut(frames, hop_ns)))
    prefix = watch(cut(frames[:n_seen]))
    assert prefix.at_ns == whole.at_ns[: len(prefix.at_ns)]
    np.testing.assert_array_equal(prefix.values, whole.values[: prefix.values.size])


@pytest.mark.parametrize("fps", [4.0, 5.0, 12.5, 29.97])
def test_scores_are_never_further_apart_than_the_head_holds_them(fps: float) -> None:
    seen = watch(cut(frames_of([QUIET] * round(fps * 6), fps)))
    assert np.diff(seen.at_ns).max() <= 0.3 * NS_PER_SEC


def test_sources_do_not_touch_each_other_and_forgetting_learns_anew() -> None:
    pictures = [QUIET] * 20 + [FLASHED] * 20
    alone = watch(cut(frames_of(pictures, 10)))
    scorer = PresenceSettings().build("cpu")
    pairs = zip(
        cut(frames_of([QUIET] * 40, 10), source="other"), cut(frames_of(pictures, 10)), strict=True
    )
    others, cams = zip(*(scorer.score(pair, (), Load.FULL) for pair in pairs), strict=True)
    assert_same(joined(cams), alone)
    assert not joined(others).found()
    scorer.forget("cam")
    scorer.forget("never seen")
    anew = watch(cut(frames_of([FLASHED] * 20, 10, first_ns=4 * NS_PER_SEC)), scorer)
    assert anew.at_ns[0] == 5 * NS_PER_SEC
    assert not anew.on()


def test_under_load_the_background_is_kept_up_and_nothing_is_said() -> None:
    hops = cut(frames_of([QUIET] * 20 + [FLASHED] * 20, 5))
    scorer = PresenceSettings().build("cpu")
    assert watch(hops[:20], scorer, Load.INGEST).at_ns == []
    seen = watch(hops[20:], scorer, Load.STRETCHED)
    assert seen.at_ns[0] == 5 * NS_PER_SEC
    assert np.all(seen.values >= 0.5)


def test_a_gap_of_some_seconds_forgets_nobody() -> None:
    before = frames_of([QUIET] * 15 + [FLASHED] * 5, 5)
    after = frames_of([FLASHED] * 10, 5, first_ns=9 * NS_PER_SEC)
    seen = watch(cut([*before, *after], gap_at=9 * NS_PER_SEC // HOP_NS))
    assert np.all(seen.values[np.array(seen.at_ns) >= 9 * NS_PER_SEC] >= 0.5)


def test_without_pictures_there_is_no_output() -> None:
    sound, heard = np.zeros(4000, np.float32), np.ones(4000, np.bool_)
    silent = Hop("cam", 0, Span(0, HOP_NS), 16_000, sound, heard, ())
    (score,) = PresenceSettings().build("cpu").score([silent], (), Load.FULL)
    assert (score.outputs, score.detections) == ({}, ())


def test_the_spec_travels() -> None:
    spec = PresenceSettings(max_fps=4, min_area=0.01, absorb_secs=600)
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301 - our own bytes
    assert spec.labels == (Label("presence", "video", "presence"),)
    assert spec.labels != MotionSettings().labels
