import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmstream.detectors.onsets import LEAST_DB, Onset, OnsetFinder
from mmstream.media import NS_PER_SEC, Floats, Hop, Span, ns_to_samples

RATE_HZ = 16_000


def room(secs: float, seed: int = 0, rate_hz: int = RATE_HZ) -> Floats:
    """Noise at -60 dBFS."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(round(secs * rate_hz)) * 1e-3).astype(np.float32)


def knock(samples: Floats, at_secs: float, peak: float, rate_hz: int = RATE_HZ) -> None:
    """Put a burst that dies away within 50 ms into `samples`."""
    first = round(at_secs * rate_hz)
    n = min(rate_hz // 20, samples.size - first)
    burst = np.random.default_rng(first).standard_normal(n)
    fades = np.exp(-np.arange(n) / rate_hz / 0.015)
    samples[first : first + n] += (peak * burst * fades / 3).astype(np.float32)


def hops_of(
    samples: Floats,
    sizes: list[int],
    heard: NDArray[np.bool_] | None = None,
    rate_hz: int = RATE_HZ,
) -> list[Hop]:
    """Hops of so many samples each, over and over."""
    flags = np.ones(samples.size, np.bool_) if heard is None else heard
    hops: list[Hop] = []
    first = 0
    while first < samples.size:
        last = min(samples.size, first + sizes[len(hops) % len(sizes)])
        span = Span(*(at * NS_PER_SEC // rate_hz for at in (first, last)))
        part = slice(first, last)
        hop = Hop("mic", len(hops), span, rate_hz, samples[part].copy(), flags[part].copy(), ())
        hops.append(hop)
        first = last
    return hops


def onsets_of(hops: list[Hop]) -> list[Onset]:
    finder = OnsetFinder(hops[0].rate_hz)
    return [onset for hop in hops for onset in finder.hear(hop)]


@settings(max_examples=40)
@given(
    at_secs=st.floats(0.2, 1.8),
    peak=st.floats(0.03, 1),
    rate_hz=st.sampled_from([8_000, 16_000, 44_100]),
)
def test_a_knock_is_dated_to_5_ms(at_secs: float, peak: float, rate_hz: int) -> None:
    samples = room(2, rate_hz=rate_hz)
    knock(samples, at_secs, peak, rate_hz)
    (found,) = onsets_of(hops_of(samples, [rate_hz // 4], rate_hz=rate_hz))
    assert found.at_ns / NS_PER_SEC == pytest.approx(at_secs, abs=0.0055)
    assert found.rise_db > 10


@settings(max_examples=25)
@given(sizes=st.lists(st.integers(30, 9000), min_size=1, max_size=5))
def test_how_sound_is_cut_changes_nothing(sizes: list[int]) -> None:
    samples = room(3)
    for at_secs in (0.5, 0.9, 1.42, 2.2):
        knock(samples, at_secs, at_secs / 4)
    whole = onsets_of(hops_of(samples, [samples.size]))
    cut = onsets_of(hops_of(samples, sizes))
    assert len(whole) == 4
    assert [one.at_ns for one in cut] == [one.at_ns for one in whole]
    assert [one.rise_db for one in cut] == pytest.approx([one.rise_db for one in whole], abs=1e-3)


def test_the_strongest_of_what_is_close_together_is_the_onset() -> None:
    samples = room(1)
    for at_secs, peak in ((0.5, 0.02), (0.53, 0.5)):
        knock(samples, at_secs, peak)
    (found,) = onsets_of(hops_of(samples, [4000]))
    assert found.at_ns / NS_PER_SEC == pytest.approx(0.53, abs=0.0055)


def test_what_swells_and_what_goes_on_is_no_onset() -> None:
    at_secs = np.arange(3 * RATE_HZ) / RATE_HZ
    swell = np.random.default_rng(1).standard_normal(at_secs.size) * np.minimum(1, at_secs / 2)
    beating = np.sin(2 * np.pi * 1000 * at_secs) + np.sin(2 * np.pi * 1007 * at_secs)
    for sound in (swell, beating):
        assert not onsets_of(hops_of((room(3) + 0.2 * sound).astype(np.float32), [4000]))


def test_what_is_below_the_room_is_no_onset() -> None:
    samples = room(2)
    knock(samples, 1, 5e-4)
    assert not onsets_of(hops_of(samples, [4000]))


def test_sound_that_comes_back_after_a_dropout_is_no_onset() -> None:
    samples = 100 * room(2)
    heard = np.ones(samples.size, np.bool_)
    heard[RATE_HZ // 2 : RATE_HZ] = False
    samples[~heard] = 0
    assert not onsets_of(hops_of(samples, [4000], heard))
    gone = np.ones(samples.size, np.bool_)
    assert onsets_of(hops_of(samples, [4000], gone)), "it is one if the silence was heard"


def test_lost_hops_are_not_bridged() -> None:
    samples = room(2)
    samples[RATE_HZ:] *= 100
    hops = hops_of(samples, [4000])
    assert len(onsets_of(hops)) == 1
    assert not onsets_of(hops[:3] + hops[5:])
    knock(samples, 1.5, 1.0)
    later = ns_to_samples(
        onsets_of(hops_of(samples, [4000])[:3] + hops_of(samples, [4000])[5:])[0].at_ns, RATE_HZ
    )
    assert later == pytest.approx(1.5 * RATE_HZ, abs=88)


def test_an_onset_says_by_how_much_it_rose() -> None:
    rises = []
    for peak in (0.02, 0.06, 0.2):
        samples = room(1)
        knock(samples, 0.5, peak)
        rises += [one.rise_db for one in onsets_of(hops_of(samples, [4000]))]
    assert LEAST_DB < rises[0] < rises[1] < rises[2] <= 30
