"""The scenes' pictures and samples against their own truth."""

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmstream.media import NS_PER_SEC, Floats, Span, secs_to_ns
from mmstream.sources.demo_scene import SENTENCE, SENTENCE_FILE, demo
from mmstream.sources.scenes import (
    ROUND_NS,
    ROUND_SECS,
    Scene,
    SceneFormat,
    Truth,
    flash_beep,
    shapes,
    square_at,
    tone_at,
)

LOOK: Final = SceneFormat(320, 180, 16_000)
SCENES: Final = {"flash_beep": flash_beep, "shapes": shapes, "demo": demo}
FRAME_NS: Final = NS_PER_SEC // 20
EVERY_SCENE: Final = pytest.mark.parametrize("name", SCENES)


@cache
def scene_of(name: str, seed: int = 0) -> Scene:
    return SCENES[name](LOOK, np.random.default_rng(seed))


@cache
def round_of(name: str) -> Floats:
    return scene_of(name).samples(0, ROUND_SECS * LOOK.rate_hz)


@cache
def shares_changed(name: str) -> NDArray[np.float64]:
    """[t]: how much of the picture is not as in the frame before; the first is 0."""
    frames = [scene_of(name).picture(at_ns) for at_ns in range(0, ROUND_NS, FRAME_NS)]
    changed = [
        (np.abs(after.astype(np.int16) - before) > 12).mean() for before, after in pairwise(frames)
    ]
    return np.array([0.0, *changed])


def truths(name: str, label: str) -> list[Truth]:
    return [one for one in scene_of(name).truth(ROUND_NS) if one.label == label]


def is_true(instants_ns: NDArray[np.int64], spans: list[Span], margin_ns: int) -> NDArray[np.bool_]:
    """[t]: whether an instant lies in one of the spans, which may be a bit longer at the end."""
    flags = np.zeros(instants_ns.shape, np.bool_)
    for span in spans:
        flags |= (instants_ns >= span.start_ns) & (instants_ns < span.end_ns + margin_ns)
    return flags


@EVERY_SCENE
@given(
    start=st.integers(0, 3 * ROUND_SECS * LOOK.rate_hz),
    sizes=st.lists(st.integers(0, 5000), min_size=1, max_size=6),
)
def test_any_chunking_gives_the_same_samples(name: str, start: int, sizes: list[int]) -> None:
    scene = scene_of(name)
    ends = start + np.cumsum(sizes)
    pieces = [scene.samples(int(end) - n, n) for end, n in zip(ends, sizes, strict=True)]
    assert np.array_equal(np.concatenate(pieces), scene.samples(start, sum(sizes)))


@EVERY_SCENE
def test_the_same_seed_makes_the_same_scene_and_another_another(name: str) -> None:
    again, other = SCENES[name](LOOK, np.random.default_rng(0)), scene_of(name, seed=1)
    at_ns, n = secs_to_ns(3.4), 4 * LOOK.rate_hz
    assert np.array_equal(again.picture(at_ns), scene_of(name).picture(at_ns))
    assert np.array_equal(again.samples(0, n), scene_of(name).samples(0, n))
    assert again.truth(ROUND_NS) == scene_of(name).truth(ROUND_NS)
    assert not np.array_equal(other.picture(at_ns), scene_of(name).picture(at_ns))
    assert not np.array_equal(other.samples(0, n), scene_of(name).samples(0, n))


@EVERY_SCENE
def test_loud_truth_is_what_is_heard(name: str) -> None:
    blocks = round_of(name).reshape(-1, LOOK.rate_hz // 50)
    rms = np.sqrt(np.mean(blocks**2, axis=1))
    starts_ns = np.arange(rms.size) * (NS_PER_SEC // 50)
    spans = [one.span for one in truths(name, "loud")]
    # A sound that starts within a block makes all of it loud.
    touched = [Span(max(0, one.start_ns - NS_PER_SEC // 50), one.end_ns) for one in spans]
    quiet = rms[~is_true(starts_ns, touched, 0)]
    assert quiet.size > 1000
    assert quiet.max() < 2e-3  # -54 dBFS, the room is at -60
    for span in spans:
        heard = rms[is_true(starts_ns, [span], 0)]
        assert heard[:2].max() > 0.02
        assert longest_run(heard < 4e-3) < 50  # silences under 1 s are part of it


@EVERY_SCENE
def test_motion_truth_is_what_is_seen(name: str) -> None:
    shares = shares_changed(name)
    instants_ns = np.arange(shares.size) * FRAME_NS
    spans = [one.span for one in truths(name, "motion")]
    # What is gone changes one more frame; a lamp of 4 by 4 pixels is no motion.
    still = shares[~is_true(instants_ns, spans, FRAME_NS)]
    assert still.size > 400
    assert still.max() < 4e-4
    for span in spans:
        seen = shares[is_true(instants_ns, [span], FRAME_NS)]
        assert np.quantile(seen, 0.9) > 5e-3
        assert longest_run(seen < 4e-4) < 20  # rests under 1 s are part of it


def longest_run(flags: NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max(initial=0))


@EVERY_SCENE
@given(until_ns=st.integers(0, 4 * ROUND_NS), more_ns=st.integers(0, ROUND_NS))
def test_truth_so_far_does_not_change(name: str, until_ns: int, more_ns: int) -> None:
    scene = scene_of(name)
    longer = scene.truth(until_ns + more_ns)
    cut = [
        Truth(one.label, Span(one.span.start_ns, min(until_ns, one.span.end_ns)), one.what)
        for one in longer
        if one.span.start_ns < until_ns
    ]
    assert sorted(scene.truth(until_ns), key=repr) == sorted(cut, key=repr)


@EVERY_SCENE
def test_a_round_repeats_the_one_before(name: str) -> None:
    first, both = scene_of(name).truth(ROUND_NS), scene_of(name).truth(2 * ROUND_NS)
    later = [
        Truth(one.label, Span(one.span.start_ns + ROUND_NS, one.span.end_ns + ROUND_NS), one.what)
        for one in first
    ]
    assert list(both) == [*first, *later]
    at_ns = secs_to_ns(3.3)
    pictures = [scene_of(name).picture(at_ns + n * ROUND_NS).astype(np.int16) for n in (0, 1)]
    assert np.abs(pictures[1] - pictures[0]).max() <= 4


@EVERY_SCENE
def test_camera_noise_is_small_but_never_the_same(name: str) -> None:
    stills = [scene_of(name).picture(n * FRAME_NS).astype(np.int16) for n in range(60)]
    mean = np.mean(stills, axis=0)
    assert max(np.abs(still - mean).max() for still in stills) < 3
    assert all((before != after).mean() > 0.3 for before, after in pairwise(stills))


def test_camera_noise_does_not_change_the_mean_brightness() -> None:
    stills = [scene_of("flash_beep").picture(n * FRAME_NS).mean() for n in range(60)]
    assert np.mean(stills) == pytest.approx(100, abs=0.5)


def test_flash_and_beep_begin_at_the_same_instants() -> None:
    scene = scene_of("flash_beep")
    flashes = [one.span for one in truths("flash_beep", "motion")]
    assert [one.start_ns for one in flashes[:3]] == [3_000_000_000, 5_500_000_000, 8_000_000_000]
    for flash in flashes:
        before, after = scene.picture(flash.start_ns - 1), scene.picture(flash.start_ns)
        assert (after.astype(np.int16) - before > 100).mean() == pytest.approx(1 / 9, rel=0.02)
        first = flash.start_ns * LOOK.rate_hz // NS_PER_SEC
        around = np.abs(round_of("flash_beep")[first - 320 : first + 320])
        assert 320 <= np.argmax(around > 0.01) <= 328  # within half a millisecond
    assert [one.span for one in truths("flash_beep", "loud")] == flashes


def test_square_is_where_it_is_said_to_be() -> None:
    n_seen = 0
    for at_ns in range(0, 20 * NS_PER_SEC, secs_to_ns(0.1)):
        box = square_at(at_ns, LOOK)
        bright = np.argwhere(scene_of("shapes").picture(at_ns) > 180)
        if box is None or box.width < 1 / LOOK.width:
            assert bright.size == 0
            continue
        n_seen += 1
        top, left = bright.min(axis=0)
        bottom, right = bright.max(axis=0) + 1
        found = (left / LOOK.width, top / LOOK.height, right / LOOK.width, bottom / LOOK.height)
        assert found == pytest.approx(
            (box.x, box.y, box.x + box.width, box.y + box.height), abs=1 / LOOK.height
        )
    assert n_seen > 50


def test_tone_has_the_frequency_it_is_said_to_have() -> None:
    heard = set()
    for at_ns in range(0, ROUND_NS, NS_PER_SEC // 2):
        first = at_ns * LOOK.rate_hz // NS_PER_SEC
        spectrum = np.abs(np.fft.rfft(round_of("shapes")[first : first + LOOK.rate_hz // 2]))
        frequency_hz = tone_at(at_ns)
        assert (spectrum.max() > 100) == (frequency_hz is not None)
        if frequency_hz is not None:
            assert np.argmax(spectrum) * 2 == frequency_hz
            heard.add(frequency_hz)
    assert heard == {440, 1000, 2500}


def test_demo_shows_and_sounds_something_within_ten_seconds() -> None:
    early = [one for one in scene_of("demo").truth(secs_to_ns(10)) if one.span.end_ns < 7e9]
    assert [(one.label, one.what) for one in early if one.label != "impact"] == [
        ("motion", "ball"),
        ("presence", "ball"),
        ("loud", "impact"),
    ]
    assert [one.what for one in early if one.label == "impact"] == ["impact"] * 3


@given(seed=st.integers(0, 2**32), shape=st.sampled_from([(64, 64), (160, 90), (64, 200)]))
@settings(max_examples=10)
def test_demo_rests_between_its_acts(seed: int, shape: tuple[int, int]) -> None:
    scene = demo(SceneFormat(*shape, 8000), np.random.default_rng(seed))
    done_ns = secs_to_ns(0.5)
    for one in scene.truth(2 * ROUND_NS):
        rest_ns = one.span.start_ns - done_ns
        assert rest_ns <= 0 or rest_ns >= secs_to_ns(2.5) or one.what == "alarm"
        done_ns = max(done_ns, one.span.end_ns)


def test_impacts_are_heard_when_something_is_on_the_floor() -> None:
    scene = scene_of("demo")
    sound = np.abs(round_of("demo")[: 7 * LOOK.rate_hz])
    is_loud = sound.reshape(-1, LOOK.rate_hz // 100).max(axis=1) > 0.05
    onsets = np.flatnonzero(is_loud & ~np.roll(is_loud, 1) & ~np.roll(is_loud, 2)) / 100
    falls = [
        onset for onset in onsets if not is_loud[int(onset * 100) - 10 : int(onset * 100)].any()
    ]
    assert len(falls) == 3

    def lowest(secs: float) -> int:
        at_ns = secs_to_ns(secs)
        changed = np.abs(scene.picture(at_ns).astype(np.int16) - scene.picture(0)) > 12
        return int(np.flatnonzero(changed.any(axis=(1, 2))).max())

    floor = max(lowest(secs) for secs in np.arange(3.1, 5.9, 0.02))
    hits = [one.span.start_ns for one in truths("demo", "impact")][:3]
    assert [hit / NS_PER_SEC for hit in hits] == pytest.approx(falls, abs=0.01)
    for secs in falls:
        assert lowest(secs + 0.005) >= floor - 3
        assert lowest(secs - 0.1) < floor - 8
        assert lowest(secs + 0.1) < floor - 8


def test_alarm_keeps_the_temporal_three_rhythm() -> None:
    blocks = round_of("demo")[8 * LOOK.rate_hz : 20 * LOOK.rate_hz].reshape(-1, 160)
    power = np.abs(np.fft.rfft(blocks, axis=1)[:, 31])  # 3.1 kHz
    is_on = power > power.max() / 10
    edges = np.flatnonzero(np.diff(is_on.astype(np.int8))) / 100
    lengths = np.diff(edges)
    group = [0.5, 0.5, 0.5, 0.5, 0.5]
    assert lengths == pytest.approx([*group, 1.5, *group, 1.5, *group], abs=0.021)


def test_louder_when_it_falls_faster() -> None:
    impacts = round_of("demo")[3 * LOOK.rate_hz : 6 * LOOK.rate_hz].reshape(-1, 1600)
    peaks = np.abs(impacts).max(axis=1)
    loudest = peaks[peaks > 0.15]
    assert loudest[0] == peaks.max()
    assert loudest[-1] < 0.8 * loudest[0]


def test_sentence_is_the_committed_one_and_as_long_as_the_speech() -> None:
    assert SENTENCE_FILE.stat().st_size < 100_000
    script = Path(__file__).parent.parent / "scripts" / "make_sentence"
    assert SENTENCE in script.read_text()
    (speech,) = [one for one in truths("demo", "loud") if one.what == "speech"]
    assert speech.span.duration_ns == pytest.approx(secs_to_ns(2.852), abs=secs_to_ns(0.01))


def test_mouth_and_hand_move_with_the_voice() -> None:
    (speech,) = [one for one in truths("demo", "loud") if one.what == "speech"]
    shares = shares_changed("demo")
    first, last = speech.span.start_ns // FRAME_NS + 1, speech.span.end_ns // FRAME_NS
    assert (shares[first:last] > 4e-4).mean() > 0.6
    before = slice(first - 6, first - 1)
    assert shares[before].max() < 4e-4


def test_demo_says_what_is_speech_and_what_an_alarm() -> None:
    [speech], [alarm] = truths("demo", "speech"), truths("demo", "alarm")
    assert speech.span in [one.span for one in truths("demo", "loud") if one.what == "speech"]
    beeps = [one.span for one in truths("demo", "loud") if one.what == "alarm"]
    assert len(beeps) == 3
    assert alarm.span == Span(beeps[0].start_ns, beeps[-1].end_ns)
