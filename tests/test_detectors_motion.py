import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from recordings import read_frames

from mmstream.codecs import image_from_array
from mmstream.detectors.motion import MotionScorer, MotionSettings
from mmstream.media import (
    NS_PER_SEC,
    Box,
    Bytes,
    Detection,
    Floats,
    Hop,
    Label,
    Scores,
    Span,
    VideoFrame,
)
from mmstream.stages import Load

BUSY = "pedestrians_pavement.mp4", "vehicles_suburb.mp4", "highway_day.avi", "marathon_runners.mp4"
HOP_NS = NS_PER_SEC // 4
HEIGHT, WIDTH = 90, 160


def textured(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> Bytes:
    coarse = np.random.default_rng(seed).integers(60, 140, (height // 5 + 1, width // 5 + 1))
    return coarse.repeat(5, axis=0).repeat(5, axis=1)[:height, :width].astype(np.uint8)


def with_patch(picture: Bytes, box: Box) -> Bytes:
    """`picture` with a white rectangle in it."""
    height, width = picture.shape
    patched = picture.copy()
    rows = slice(round(box.y * height), round((box.y + box.height) * height))
    patched[rows, round(box.x * width) : round((box.x + box.width) * width)] = 235
    return patched


def frames_of(pictures: Iterable[Bytes], fps: float, first_ns: int = 0) -> list[VideoFrame]:
    return [
        VideoFrame("cam", first_ns + round(n * NS_PER_SEC / fps), image_from_array(picture, "gray"))
        for n, picture in enumerate(pictures)
    ]


def cut(
    frames: Sequence[VideoFrame], hop_ns: int = HOP_NS, source: str = "cam", gap_at: int = -1
) -> list[Hop]:
    """Hops as windows cut them; that of number `gap_at` follows lost ones."""
    silence, unheard = np.zeros(0, np.float32), np.zeros(0, np.bool_)
    hops = []
    for index in range(frames[0].start_ns // hop_ns, frames[-1].start_ns // hop_ns + 1):
        span = Span(index * hop_ns, (index + 1) * hop_ns)
        inside = tuple(frame for frame in frames if span.contains(frame.start_ns))
        gap = index == gap_at
        hops.append(Hop(source, index, span, 16_000, silence, unheard, inside, gap_before=gap))
    return hops


@dataclass(frozen=True)
class Seen:
    """All of a series, and what was scored for each hop."""

    at_ns: list[int]
    values: Floats
    scores: list[Scores]

    def found(self) -> list[Detection]:
        """All places."""
        return [detection for score in self.scores for detection in score.detections]

    def on(self) -> list[Span]:
        """Stretches with a score of 0.5 or more; a value holds until the next."""
        steps = list(pairwise([*self.at_ns, self.at_ns[-1]]))
        held = [Span(*step) for step, value in zip(steps, self.values, strict=True) if value >= 0.5]
        merged: list[Span] = []
        for span in held:
            if merged and merged[-1].end_ns == span.start_ns:
                span = Span(merged.pop().start_ns, span.end_ns)  # noqa: PLW2901 - it grows
            merged.append(span)
        return merged


def watch(hops: Sequence[Hop], scorer: MotionScorer | None = None, load: Load = Load.FULL) -> Seen:
    scorer = scorer or MotionSettings().build("cpu")
    return joined([score for hop in hops for score in scorer.score([hop], (), load)])


def joined(scores: list[Scores]) -> Seen:
    series = [score.outputs["motion"] for score in scores if "motion" in score.outputs]
    at_ns = [at for one in series for at in one.at_ns.tolist()]
    values = np.concatenate([one.values for one in series] or [np.zeros(0, np.float32)])
    assert all(before < after for before, after in pairwise(at_ns))
    assert np.all((values >= 0) & (values <= 1))
    return Seen(at_ns, values, scores)


def assert_same(one: Seen, two: Seen) -> None:
    assert one.at_ns == two.at_ns
    np.testing.assert_array_equal(one.values, two.values)
    assert one.found() == two.found()


THIRD = Box(1 / 3, 1 / 3, 1 / 3, 1 / 3)
QUIET = textured()
FLASHED = with_patch(QUIET, THIRD)


def flashing(starts: Sequence[int], n_on: int, n: int) -> list[Bytes]:
    """`n` pictures; from each of `starts` on the white rectangle is there for `n_on`."""
    return [FLASHED if any(0 <= k - at < n_on for at in starts) else QUIET for k in range(n)]


@settings(max_examples=40)
@given(
    fps=st.sampled_from([10.0, 12.5, 15.0, 24.0, 25.0, 30_000 / 1001, 30.0, 60.0]),
    starts_secs=st.tuples(st.floats(1.3, 2.0), st.floats(3.0, 4.0)),
    hop_ns=st.sampled_from([HOP_NS, NS_PER_SEC // 10, NS_PER_SEC]),
)
def test_starts_and_ends_are_right_to_the_frame(
    fps: float, starts_secs: tuple[float, float], hop_ns: int
) -> None:
    starts = [round(secs * fps) for secs in starts_secs]
    n_on = round(0.5 * fps)
    frames = frames_of(flashing(starts, n_on, round(5 * fps)), fps)
    expected = [Span(frames[at].start_ns, frames[at + n_on].start_ns) for at in starts]
    assert watch(cut(frames, hop_ns)).on() == expected


def test_a_start_between_samples_may_lie_before_the_hop_that_tells_it() -> None:
    # At 30 fps in hops of 0.1 s each hop's first frame is looked at: 2 s + 1/30 s is not.
    frames = frames_of(flashing([61], 15, 90), 30)
    seen = watch(cut(frames, NS_PER_SEC // 10))
    told = next(s for s in seen.scores if "motion" in s.outputs and s.outputs["motion"].values[-1])
    instants_ns = told.outputs["motion"].at_ns.tolist()
    assert instants_ns == [frames[61].start_ns, frames[62].start_ns, frames[63].start_ns]
    assert instants_ns[0] < told.span.start_ns


def test_the_place_is_told() -> None:
    wide = textured(height=180, width=320)
    patched = with_patch(wide, THIRD)
    seen = watch(cut(frames_of([wide] * 60 + [patched] * 15 + [wide] * 15, 30)))
    largest = {detection.at_ns: detection for detection in reversed(seen.found())}
    series = zip(seen.at_ns, seen.values, strict=True)
    moving = {at_ns: value for at_ns, value in series if value >= 0.5}
    assert {at_ns: np.float32(one.score) for at_ns, one in largest.items()} == moving
    for detection in largest.values():
        told = (detection.label, detection.modality, detection.detector)
        assert told == ("motion", "video", "motion")
        box = detection.box
        assert box is not None
        # The contrast of what lies up to 15 pixels away (of 320 x 180) changes as well.
        assert 0 <= THIRD.x - box.x < 16 / 320
        assert 0 <= THIRD.y - box.y < 16 / 180
        assert 0 <= box.x + box.width - 2 / 3 < 16 / 320
        assert 0 <= box.y + box.height - 2 / 3 < 16 / 180


def test_what_is_larger_scores_higher_and_min_area_is_the_middle() -> None:
    tops = []
    for side in (0.02, 0.1, 0.2, 0.4):
        picture = with_patch(QUIET, Box(0.3, 0.3, side, side))
        tops.append(watch(cut(frames_of([QUIET] * 15 + [picture] * 5, 10))).values.max())
    assert tops == sorted(tops)
    assert tops[0] < 0.5 < tops[1] < tops[-1]
    hops = cut(frames_of([QUIET] * 15 + [FLASHED] * 5, 10))
    coarse = watch(hops, MotionSettings(min_area=0.2).build("cpu"))
    assert 0.2 < coarse.values.max() < 0.5
    assert not coarse.found()


def test_what_is_too_small_by_itself_is_not_told() -> None:
    both = with_patch(FLASHED, Box(0.05, 0.1, 0.1, 0.15))
    hops = cut(frames_of([QUIET] * 15 + [both], 10))
    for min_area, n_told in ((0.003, 2), (0.1, 1)):
        assert len(watch(hops, MotionSettings(min_area=min_area).build("cpu")).found()) == n_told


def test_something_that_crosses_is_motion_all_the_while() -> None:
    crossing = [with_patch(QUIET, Box(0.02 * n, 0.4, 0.1, 0.3)) for n in range(40)]
    frames = frames_of([QUIET] * 15 + crossing + [QUIET] * 30, 10)
    # What it uncovers last is known at once: that was background before.
    assert watch(cut(frames)).on() == [Span(frames[15].start_ns, frames[55].start_ns)]


def test_what_stops_is_motion_for_a_while_and_its_leaving_is_motion_again() -> None:
    frames = frames_of([QUIET] * 20 + [FLASHED] * 40 + [QUIET] * 40, 10)
    on = watch(cut(frames)).on()
    assert [span.start_ns for span in on] == [frames[20].start_ns, frames[60].start_ns]
    assert all(1.4e9 < span.duration_ns < 1.7e9 for span in on)


def test_nothing_is_said_while_it_learns() -> None:
    seen = watch(cut(frames_of(flashing([0, 8], 4, 60), 20)))
    assert (seen.at_ns[0], seen.on()) == (NS_PER_SEC, [])


def test_what_was_there_from_the_start_is_no_motion_and_its_ghost_heals() -> None:
    frames = frames_of([FLASHED] * 30 + [QUIET] * 50, 10)
    (ghost,) = watch(cut(frames)).on()
    assert ghost.start_ns == frames[30].start_ns
    assert ghost.duration_ns < 1.7e9


@settings(max_examples=25)
@given(
    gain=st.floats(0.5, 1.6),
    offset=st.integers(-30, 30),
    gamma=st.floats(0.7, 1.4),
    slope=st.floats(-0.5, 0.5),
)
def test_light_is_no_motion(gain: float, offset: int, gamma: float, slope: float) -> None:
    across = np.linspace(1 - slope / 2, 1 + slope / 2, WIDTH)
    lit = 255 * (QUIET / 255) ** gamma * gain * across + offset
    assume(np.mean((lit < 0) | (lit > 255)) < 0.1)  # what clips is gone: docs/senses.md
    told = lit.clip(0, 255).astype(np.uint8)
    values = watch(cut(frames_of([QUIET] * 15 + [told] * 10 + [QUIET] * 10, 10))).values
    assert values.size == 25
    assert values.max() < 0.5


@pytest.mark.parametrize(("deviation", "grain"), [(2, 0.3), (6, 0.3), (10, 0.3), (10, 1.5)])
def test_noise_of_the_camera_is_no_motion_and_hides_none(deviation: float, grain: float) -> None:
    rng = np.random.default_rng(0)
    pictures = []
    for picture in flashing([50], 5, 80):
        noise = cv2.GaussianBlur(rng.normal(0, 1, picture.shape), (0, 0), grain)
        noisy = picture + deviation / noise.std() * noise
        pictures.append(noisy.clip(0, 255).astype(np.uint8))
    frames = frames_of(pictures, 10)
    assert watch(cut(frames)).on() == [Span(frames[50].start_ns, frames[55].start_ns)]


def test_whatever_hides_the_only_thing_on_a_plain_wall_is_no_other_picture() -> None:
    wall = np.full((HEIGHT, WIDTH), 100, np.uint8)
    wall[30:50, 30:50] = QUIET[30:50, 30:50]
    hidden = with_patch(wall, Box(0.15, 0.25, 0.2, 0.4))
    frames = frames_of([wall] * 15 + [hidden] * 5 + [wall] * 5, 10)
    assert watch(cut(frames)).on() == [Span(frames[15].start_ns, frames[20].start_ns)]


def test_another_picture_is_learnt_and_scores_0_at_the_cut() -> None:
    other = textured(seed=1)
    pictures = [QUIET] * 20 + [other] * 20 + [with_patch(other, THIRD)] * 5 + [other] * 10
    frames = frames_of(pictures, 10)
    seen = watch(cut(frames))
    values = dict(zip(seen.at_ns, seen.values, strict=True))
    assert values[frames[20].start_ns] == 0
    assert all(frames[n].start_ns not in values for n in range(21, 30))
    assert seen.on() == [Span(frames[40].start_ns, frames[45].start_ns)]


@settings(max_examples=20)
@given(
    hop_ns=st.sampled_from([40_000_000, NS_PER_SEC // 10, 330_000_000, NS_PER_SEC, 5 * NS_PER_SEC]),
    starts=st.lists(st.integers(30, 110), max_size=3),
    n_on=st.integers(1, 30),
)
def test_how_hops_are_cut_changes_nothing(hop_ns: int, starts: list[int], n_on: int) -> None:
    frames = frames_of(flashing(starts, n_on, 120), 25, first_ns=123_456_789)
    assert_same(watch(cut(frames)), watch(cut(frames, hop_ns)))


def test_sources_do_not_touch_each_other_and_the_same_again_gives_the_same() -> None:
    still, moving = frames_of([QUIET] * 90, 30), frames_of(flashing([40, 65], 15, 90), 30)
    alone = watch(cut(moving))
    assert len(alone.on()) == 2
    assert_same(watch(cut(moving)), alone)
    scorer = MotionSettings().build("cpu")
    pairs = zip(cut(still, source="other"), cut(moving), strict=True)
    others, cams = zip(*(scorer.score(pair, (), Load.FULL) for pair in pairs), strict=True)
    assert {score.source for score in others} == {"other"}
    assert not joined(list(others)).found()
    assert_same(joined(list(cams)), alone)


def test_forgetting_a_source_learns_it_anew() -> None:
    scorer, hops = MotionSettings().build("cpu"), cut(frames_of([QUIET] * 20 + [FLASHED] * 20, 10))
    watch(hops[:8], scorer)
    scorer.forget("cam")
    scorer.forget("never seen")
    seen = watch(hops[8:], scorer)
    assert seen.at_ns[0] == 3 * NS_PER_SEC
    assert not seen.on()


def test_a_camera_that_jitters_around_the_cadence_loses_no_picture() -> None:
    rng = np.random.default_rng(0)
    jittered = [
        VideoFrame("cam", frame.start_ns + int(rng.integers(20_000_000)), frame.image)
        for frame in frames_of([QUIET] * 80, 10, first_ns=100_000_000)
    ]
    assert watch(cut(jittered)).at_ns[-69:] == [frame.start_ns for frame in jittered[-69:]]


def test_without_pictures_there_is_no_output() -> None:
    sound, heard = np.zeros(4000, np.float32), np.ones(4000, np.bool_)
    silent = Hop("cam", 0, Span(0, HOP_NS), 16_000, sound, heard, ())
    scores = MotionSettings().build("cpu").score([silent, silent], (), Load.FULL)
    assert [(score.index, score.outputs, score.detections) for score in scores] == [(0, {}, ())] * 2


def test_under_load_the_background_is_kept_up_and_nothing_is_said() -> None:
    hops = cut(frames_of([QUIET] * 30 + [FLASHED] * 30 + [QUIET] * 5 + [FLASHED] * 10, 10))
    scorer = MotionSettings().build("cpu")
    ingested = watch(hops[:20], scorer, Load.INGEST)
    assert (ingested.at_ns, ingested.found()) == ([], [])
    # What came while nothing was scored has become background.
    seen = watch(hops[20:], scorer, Load.STRETCHED)
    assert seen.at_ns[0] == 5 * NS_PER_SEC
    assert seen.values[:10].max() < 0.5
    assert seen.on()[0].start_ns == 6 * NS_PER_SEC


def test_a_gap_is_not_bridged_by_pictures_from_before_it() -> None:
    frames = frames_of(flashing([59], 30, 90), 30)  # 1.967 s, looked at from 2.0 s on
    assert watch(cut(frames)).on()[0].start_ns == frames[59].start_ns
    assert watch(cut(frames, gap_at=8)).on()[0].start_ns == frames[60].start_ns


def test_lost_time_lets_nothing_become_background() -> None:
    before = frames_of([QUIET] * 18 + [FLASHED] * 2, 10)
    after = frames_of([FLASHED] * 10, 10, first_ns=6 * NS_PER_SEC)
    assert watch(cut([*before, *after], gap_at=24)).on()[-1].end_ns > 6 * NS_PER_SEC


def test_after_a_long_gap_or_in_another_size_it_learns_anew() -> None:
    before = frames_of([QUIET] * 20, 10)
    for secs, picture in ((13, FLASHED), (2, textured(2, 180, 320))):
        after = frames_of([picture] * 20, 10, first_ns=secs * NS_PER_SEC)
        seen = watch(cut([*before, *after], gap_at=52))
        assert seen.at_ns[10] == (secs + 1) * NS_PER_SEC
        assert not seen.on()


def test_a_picture_of_another_size_between_samples_is_left_out() -> None:
    frames = frames_of(flashing([61], 15, 90), 30)
    odd = image_from_array(textured(2, 180, 320), "gray")
    frames[61] = VideoFrame("cam", frames[61].start_ns, odd)
    assert watch(cut(frames)).on()[0].start_ns == frames[62].start_ns


def test_few_pictures_are_kept_between_samples() -> None:
    frames = frames_of(flashing([250], 100, 400), 100)
    seen = watch(cut(frames), MotionSettings(max_fps=1).build("cpu"))
    # Looked at 2.75 s: the 16 pictures before it, not all 99.
    assert seen.on()[0].start_ns == frames[259].start_ns


def test_the_spec_travels() -> None:
    spec = MotionSettings(max_fps=5, min_area=0.01)
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301 - our own bytes
    assert spec.labels == (Label("motion", "video", "motion"),)


def test_a_change_of_light_in_a_garden_is_silent(data_dir: Path) -> None:
    recorded = read_frames(data_dir / "surveillance/garden_brightness_change.avi")
    there_and_back = [*range(24), *range(22, 0, -1)] * 4  # 15 s of its first 2 s
    images = [recorded[n].image for n in [*there_and_back, *range(len(recorded))]]
    frames = [VideoFrame("cam", n * NS_PER_SEC // 12, image) for n, image in enumerate(images)]
    seen = watch(cut(frames))
    assert seen.at_ns[-1] > 19 * NS_PER_SEC
    assert seen.values.max() < 0.1


@pytest.mark.parametrize("name", ["one_by_one_person", "car_detection"])
def test_who_comes_and_goes_is_seen_and_nobody_else(data_dir: Path, name: str) -> None:
    rows = (data_dir / "events.tsv").read_text().splitlines()[2:]
    columns = [row.split("\t") for row in rows if row.startswith(f"surveillance/{name}.mp4")]
    truth = [(float(start), float(end)) for _, _, start, end in columns]
    on = watch(cut(read_frames(data_dir / f"surveillance/{name}.mp4"))).on()
    for start, end in truth:
        first = next(span for span in on if span.end_ns > (start - 0.7) * NS_PER_SEC)
        assert abs(first.start_ns / NS_PER_SEC - start) < 0.7  # read by eye, +-0.7 s
        last = [span for span in on if span.start_ns < end * NS_PER_SEC][-1]
        assert abs(last.end_ns / NS_PER_SEC - end) < 1.5  # something that leaves a ghost
    allowed = [Span(round((a - 0.7) * 1e9), round((b + 1.5) * 1e9)) for a, b in truth]
    assert all(any(span.overlap_ns(one) == span.duration_ns for one in allowed) for span in on)


@pytest.mark.parametrize("name", [*BUSY, "traffic_camera_vfr.mp4"])
def test_busy_places_move_nearly_all_the_time(data_dir: Path, name: str) -> None:
    values = watch(cut(read_frames(data_dir / "surveillance" / name))).values
    assert np.mean(values >= 0.5) >= 0.8
