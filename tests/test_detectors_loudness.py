import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmstream.codecs import read_audio
from mmstream.detectors.loudness import LoudnessScorer, LoudnessSettings
from mmstream.media import NS_PER_SEC, Floats, Hop, Label, Scores, Span, ns_to_samples, secs_to_ns
from mmstream.stages import Load

RATE_HZ = 16_000
HOP_NS = NS_PER_SEC // 4
STEP_SECS = 0.005


def noise(secs: float, level_db: float = -60.0, seed: int = 0, rate_hz: int = RATE_HZ) -> Floats:
    """White, at `level_db` under full scale (root mean square)."""
    samples = np.random.default_rng(seed).standard_normal(round(secs * rate_hz))
    return (samples * 10 ** (level_db / 20)).astype(np.float32)


def add_tone(
    samples: Floats, at_secs: float, secs: float, level_db: float, rate_hz: int = RATE_HZ
) -> float:
    """Put 1 kHz of that level (root mean square) into `samples`; gives when it really starts."""
    first, n = round(at_secs * rate_hz), round(secs * rate_hz)
    wave = np.sin(2 * np.pi * 1000 * np.arange(n) / rate_hz)
    samples[first : first + n] += (np.sqrt(2) * 10 ** (level_db / 20) * wave).astype(np.float32)
    return first / rate_hz


def cut(
    samples: Floats,
    *,
    hop_ns: int = HOP_NS,
    rate_hz: int = RATE_HZ,
    heard: NDArray[np.bool_] | None = None,
    first_index: int = 0,
    source: str = "mic",
) -> list[Hop]:
    """Hops as windows cut them; what fills no hop is left out."""
    is_heard = np.ones(samples.size, np.bool_) if heard is None else heard
    offset = ns_to_samples(first_index * hop_ns, rate_hz)
    hops = []
    for index in range(first_index, 10**9):
        span = Span(index * hop_ns, (index + 1) * hop_ns)
        here = slice(*(ns_to_samples(at, rate_hz) - offset for at in (span.start_ns, span.end_ns)))
        if here.stop > samples.size:
            break
        part, flags = samples[here].copy(), is_heard[here].copy()
        hops.append(Hop(source, index, span, rate_hz, part, flags, ()))
    return hops


@dataclass(frozen=True)
class Heard:
    """All of a series, and what was scored for each hop."""

    at_secs: NDArray[np.float64]
    values: Floats
    scores: list[Scores]

    def between(self, start_secs: float, end_secs: float) -> Floats:
        """The values of that time."""
        return self.values[(self.at_secs >= start_secs - 1e-9) & (self.at_secs < end_secs)]

    def share_loud(self, start_secs: float = 0, end_secs: float = 1e9) -> float:
        """How much of what was scored then is loud."""
        return float(np.mean(self.between(start_secs, end_secs) >= 0.5))

    def loud(self, bridge_secs: float = 0.5) -> list[tuple[float, float]]:
        """Start and end of what is loud."""
        merged: list[tuple[float, float]] = []
        for at in self.at_secs[self.values >= 0.5].tolist():
            start = merged.pop()[0] if merged and at - merged[-1][1] <= bridge_secs else at
            merged.append((start, at + STEP_SECS))
        return merged


def listen(
    hops: Sequence[Hop], scorer: LoudnessScorer | None = None, load: Load = Load.FULL
) -> Heard:
    scorer = scorer or LoudnessSettings().build("cpu")
    scores = [score for hop in hops for score in scorer.score([hop], (), load)]
    series = [score.outputs["loud"] for score in scores if "loud" in score.outputs]
    at_ns = [at for one in series for at in one.at_ns.tolist()]
    values = np.concatenate([one.values for one in series] or [np.zeros(0, np.float32)])
    assert all(before < after for before, after in pairwise(at_ns))
    assert np.all((values >= 0) & (values <= 1))
    return Heard(np.array(at_ns) / NS_PER_SEC, values, scores)


# --- what is loud -------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    at_secs=st.floats(1, 3),
    secs=st.floats(0.05, 0.6),
    over_db=st.floats(16, 40),
    seed=st.integers(0, 100),
)
def test_a_tone_over_noise_starts_and_ends_within_5_ms(
    at_secs: float, secs: float, over_db: float, seed: int
) -> None:
    samples = noise(4, seed=seed)
    start = add_tone(samples, at_secs, secs, -60 + over_db)
    end = start + round(secs * RATE_HZ) / RATE_HZ
    ((first, last),) = listen(cut(samples)).loud(bridge_secs=0.01)
    assert abs(first - start) <= 0.005
    assert abs(last - end) <= 0.005


def test_the_score_rises_with_the_level_and_is_half_at_the_setting() -> None:
    tops = []
    for over_db in (0, 6, 11, 13, 20, 40):
        samples = noise(3)
        add_tone(samples, 2, 0.5, -60 + over_db)
        tops.append(float(np.median(listen(cut(samples)).between(2.01, 2.49))))
    assert tops == sorted(tops)
    assert tops[0] < 0.15 < tops[1] < 0.35 < tops[2] < tops[3] < 0.75 < tops[4] < tops[5]
    samples = noise(3)
    add_tone(samples, 2, 0.5, -60 + 20)
    lenient, strict = (
        listen(cut(samples), LoudnessSettings(above_db=above_db).build("cpu")).share_loud(2, 2.5)
        for above_db in (15, 25)
    )
    assert lenient == 1
    assert strict == 0


def test_soft_sounds_are_loud_in_a_quiet_place_and_not_in_a_noisy_one() -> None:
    shares = []
    for floor_db in (-70, -30):
        samples = noise(4, floor_db)
        add_tone(samples, 3, 0.5, -45)
        shares.append(listen(cut(samples)).share_loud(3, 3.5))
    assert shares[0] > 0.95
    assert shares[1] == 0


def test_a_noise_that_stays_becomes_the_floor() -> None:
    samples = np.concatenate((noise(12, -60), noise(18, -30, seed=1)))
    heard = listen(cut(samples))
    ((start, end),) = heard.loud()
    assert start == pytest.approx(12, abs=0.005)
    assert 18 < end < 22
    # When it stops, the floor comes down again: what is soft is loud once more.
    samples = np.concatenate((samples, noise(4, -60, seed=2)))
    add_tone(samples, 33, 0.5, -40)
    assert listen(cut(samples)).share_loud(33, 33.5) > 0.95


def test_noise_alone_is_never_loud() -> None:
    for seed in range(3):
        assert listen(cut(noise(20, -50, seed=seed))).values.max() < 0.3


def test_hum_rumble_and_an_offset_are_not_heard() -> None:
    at_secs = np.arange(20 * RATE_HZ) / RATE_HZ
    samples = noise(20, -50)
    slow = 0.02 * np.sin(2 * np.pi * 50 * at_secs) + 0.3 * np.sin(2 * np.pi * 5 * at_secs)
    samples += np.where(at_secs >= 10, slow + 0.2, 0).astype(np.float32)
    assert listen(cut(samples)).share_loud(10.005) == 0


def test_dither_after_digital_silence_is_not_loud_but_a_whisper_is() -> None:
    samples = np.zeros(15 * RATE_HZ, np.float32)
    triangular = np.random.default_rng(0).triangular(-1, 0, 1, 10 * RATE_HZ)
    samples[5 * RATE_HZ :] = np.round(triangular * 1.5) / 32768
    add_tone(samples, 12, 0.5, -55)
    heard = listen(cut(samples))
    assert heard.between(0, 12).max() < 0.05
    assert heard.share_loud(12, 12.5) > 0.95


# --- what is missing ----------------------------------------------------------------------------


def test_nothing_is_said_before_there_is_a_floor() -> None:
    heard = listen(cut(noise(2)))
    assert heard.at_secs[0] == 0.5
    assert heard.values.size == 300
    assert heard.scores[0].outputs == heard.scores[1].outputs == {}


def test_a_moment_is_no_floor() -> None:
    samples, lost = noise(3, -40), slice(RATE_HZ // 5, RATE_HZ // 2)
    is_heard = np.ones(samples.size, np.bool_)
    samples[lost], is_heard[lost] = 0, False
    assert listen(cut(samples, heard=is_heard)).at_secs[0] == 1


def test_missing_sound_has_no_score_and_is_not_silence() -> None:
    samples, lost = noise(20, -40), slice(6 * RATE_HZ + 13, 17 * RATE_HZ + 13)
    is_heard = np.ones(samples.size, np.bool_)
    samples[lost], is_heard[lost] = 0, False
    heard = listen(cut(samples, heard=is_heard))
    assert heard.between(6.0, 17.005).size == 0
    # A floor made from 11 s of zeros would let the noise be loud; there is none until 0.5 s later.
    assert heard.between(17.5, 20).size == 500
    assert heard.values.max() < 0.3


def test_a_short_loss_keeps_the_floor_and_every_whole_step() -> None:
    samples, lost = noise(3, -40), slice(2 * RATE_HZ + 90, 2 * RATE_HZ + 100)
    is_heard = np.ones(samples.size, np.bool_)
    samples[lost], is_heard[lost] = 0, False
    add_tone(samples, 2.1, 0.2, -20)
    heard = listen(cut(samples, heard=is_heard))
    assert heard.values.size == 499  # all but the second step after 2 s
    assert heard.share_loud(2.1, 2.3) == 1


def test_lost_hops_are_not_bridged() -> None:
    # Hops of 33 ms end within a step.
    hops = cut(noise(4, -40), hop_ns=33_000_000)
    whole = listen(hops)
    gappy = [*hops[:60], replace(hops[62], gap_before=True), *hops[63:]]
    parts = listen(gappy)
    lost = Span(hops[60].span.start_ns, hops[62].span.start_ns)
    kept = [
        value
        for at, value in zip(whole.at_secs, whole.values, strict=True)
        if not lost.overlap_ns(Span(secs_to_ns(at), secs_to_ns(at + STEP_SECS)))
    ]
    assert parts.values.size == len(kept)
    assert parts.values.max() < 0.3
    # Without the flag too: time tells.
    np.testing.assert_array_equal(listen([*hops[:60], *hops[62:]]).values, parts.values)


def test_after_a_long_loss_the_floor_is_learnt_anew() -> None:
    quiet = cut(noise(5, -60))
    later = cut(noise(3, -30), first_index=100)
    heard = listen([*quiet, *later])
    assert heard.between(25, 25.5).size == 0
    assert heard.between(25.5, 28).size == 500
    assert heard.values.max() < 0.3


def test_without_sound_there_is_no_output() -> None:
    none = np.zeros(0, np.float32)
    hops = [
        Hop("cam", n, Span(n * HOP_NS, (n + 1) * HOP_NS), RATE_HZ, none, np.zeros(0, np.bool_), ())
        for n in range(8)
    ]
    scores = LoudnessSettings().build("cpu").score(hops, (), Load.FULL)
    assert [(score.index, score.outputs, score.detections) for score in scores] == [
        (n, {}, ()) for n in range(8)
    ]


# --- state --------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    hop_ms=st.sampled_from([3, 10, 33, 100, 250, 1000, 3000]),
    rate_hz=st.sampled_from([8000, 16_000, 22_050, 44_100]),
    lost=st.lists(st.tuples(st.floats(0, 6), st.floats(0, 0.7)), max_size=2),
    seed=st.integers(0, 20),
)
def test_how_hops_are_cut_changes_nothing(
    hop_ms: int, rate_hz: int, lost: list[tuple[float, float]], seed: int
) -> None:
    samples = noise(6, seed=seed, rate_hz=rate_hz)
    add_tone(samples, 2.3456, 0.3, -30, rate_hz)
    is_heard = np.ones(samples.size, np.bool_)
    for start, secs in lost:
        is_heard[round(start * rate_hz) : round((start + secs) * rate_hz)] = False
    samples[~is_heard] = 0
    one = listen(cut(samples, rate_hz=rate_hz, heard=is_heard))
    two = listen(cut(samples, rate_hz=rate_hz, heard=is_heard, hop_ns=hop_ms * 1_000_000))
    n = min(one.values.size, two.values.size)  # the last hop may be cut off
    assert n >= max(one.values.size, two.values.size) - 600
    np.testing.assert_array_equal(one.at_secs[:n], two.at_secs[:n])
    np.testing.assert_allclose(one.values[:n], two.values[:n], atol=1e-5)


def test_sources_do_not_touch_each_other_and_the_same_again_gives_the_same() -> None:
    samples = noise(4)
    add_tone(samples, 2, 0.5, -30)
    alone, again = listen(cut(samples)), listen(cut(samples))
    scorer = LoudnessSettings().build("cpu")
    pairs = zip(cut(noise(4, -20, seed=1), source="other"), cut(samples), strict=True)
    both = [scorer.score(pair, (), Load.FULL) for pair in pairs]
    assert alone.share_loud(2, 2.5) == 1
    for n, (other, mic) in enumerate(both):
        assert (other.source, mic.source) == ("other", "mic")
        assert mic.outputs.keys() == alone.scores[n].outputs.keys()
        for name, series in mic.outputs.items():
            for same in (alone, again):
                np.testing.assert_array_equal(series.values, same.scores[n].outputs[name].values)


def test_forgetting_a_source_learns_its_floor_anew() -> None:
    scorer = LoudnessSettings().build("cpu")
    listen(cut(noise(5, -60)), scorer)
    scorer.forget("mic")
    scorer.forget("never heard")
    heard = listen(cut(noise(2, -30), first_index=20), scorer)
    assert heard.at_secs[0] == 5.5
    assert heard.values.max() < 0.3


def test_another_rate_starts_anew() -> None:
    scorer = LoudnessSettings().build("cpu")
    listen(cut(noise(2)), scorer)
    heard = listen(cut(noise(2, -30, rate_hz=8000), rate_hz=8000, first_index=8), scorer)
    assert heard.at_secs[0] == 2.5
    assert heard.values.max() < 0.3


def test_under_load_the_floor_is_kept_up_and_nothing_is_said() -> None:
    samples = noise(6, -60)
    add_tone(samples, 5, 0.5, -30)
    hops, scorer = cut(samples), LoudnessSettings().build("cpu")
    ingested = listen(hops[:16], scorer, Load.INGEST)
    assert all(score.outputs == {} for score in ingested.scores)
    heard = listen(hops[16:], scorer, Load.STRETCHED)
    assert heard.at_secs[0] == 4
    assert heard.share_loud(5, 5.5) == 1


def test_the_spec_travels() -> None:
    spec = LoudnessSettings(above_db=9)
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301 - our own bytes
    assert spec.labels == (Label("loud", "audio", "loudness"),)


# --- real recordings ----------------------------------------------------------------------------


def hear_file(path: Path, *, n_times: int = 1) -> Heard:
    """The recording, there and back again `n_times` in all."""
    samples = read_audio(path, RATE_HZ)
    turns = [samples if n % 2 == 0 else samples[::-1] for n in range(n_times)]
    return listen(cut(np.concatenate(turns)))


def test_digital_silence_is_never_loud(data_dir: Path) -> None:
    heard = hear_file(data_dir / "surveillance/car_detection.mp4")
    assert heard.values.size > 5800
    assert heard.values.max() < 0.01


def test_each_count_of_a_countdown_is_loud(data_dir: Path) -> None:
    starts = [start for start, _ in hear_file(data_dir / "audio_events/mdn_countdown.mp3").loud()]
    assert starts[:8] == pytest.approx([2 * n for n in range(1, 9)], abs=0.2)


@pytest.mark.parametrize("name", ["max_car_engine.flac", "max_train.flac"])
def test_engines_are_not_loud(data_dir: Path, name: str) -> None:
    assert hear_file(data_dir / "audio_events" / name).share_loud() == 0


@pytest.mark.parametrize(
    "name", ["libri_198-209-0000.ogg", "librivox_0890.wav", "picovoice_en.wav", "ldc93s1.wav"]
)
def test_speech_is_loud_between_its_pauses(data_dir: Path, name: str) -> None:
    assert 0.6 < hear_file(data_dir / "speech" / name).share_loud() < 0.9


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [
        ("rain", 0, 0.02),
        ("sea_waves", 0, 0.1),
        ("helicopter", 0, 0.1),
        ("dog_bark", 0.15, 0.7),
        ("baby_cry", 0.15, 0.9),
        ("person_sneeze", 0.05, 0.5),
        ("clock_tick", 0.05, 0.5),
    ],
)
def test_what_stays_is_the_floor_and_what_comes_and_goes_is_loud(
    data_dir: Path, kind: str, least: float, most: float
) -> None:
    rows = [row.split("\t") for row in (data_dir / "esc10/labels.tsv").read_text().splitlines()]
    names = [row[0] for row in rows[1:] if row[3] == kind][:6]
    shares = [
        hear_file(data_dir / "esc10/audio" / name, n_times=4).share_loud(start_secs=15)
        for name in names
    ]
    assert len(shares) == 6
    assert least <= np.median(shares) <= most
