import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from recordings import read_sound

from mmstream.detectors.alarm import AlarmScorer, AlarmSettings
from mmstream.errors import ScorerError
from mmstream.heads.events import EventHead
from mmstream.heads.lifecycle import LabelSettings
from mmstream.media import (
    NS_PER_SEC,
    Detection,
    Floats,
    Hop,
    Label,
    Scores,
    SourceEnded,
    SourceStarted,
    Span,
    ns_to_samples,
)
from mmstream.messages import Event
from mmstream.stages import Load

RATE_HZ = 16_000
HOP_NS = NS_PER_SEC // 4
LEAD_SECS = 2.0
SETTINGS = LabelSettings(for_secs=0.4, within_secs=1.0, min_off_secs=10.0)
Sound = NDArray[np.float64]


@dataclass(frozen=True)
class Pattern:
    """An alarm as it is sold."""

    beep_secs: float
    n_beeps: int
    cycle_secs: float
    note: str


SMOKE = Pattern(0.5, 3, 4.0, "smoke")
CO = Pattern(0.1, 4, 5.8, "carbon monoxide")


def sounding(pattern: Pattern, *, tempo: float = 1.0, secs: float = 14.0) -> NDArray[np.bool_]:
    """When it beeps, from `LEAD_SECS` on for `secs`, at 16 kHz."""
    at_secs = np.arange(round((LEAD_SECS + secs) * RATE_HZ)) / RATE_HZ - LEAD_SECS
    beeps = at_secs / tempo % pattern.cycle_secs // pattern.beep_secs
    is_on = (at_secs >= 0) & (beeps % 2 == 0) & (beeps < 2 * pattern.n_beeps)
    return np.asarray(is_on, np.bool_)


def beeping(is_on: NDArray[np.bool_], hz: float) -> Sound:
    """Power 1 while on; a square wave below 1 kHz; edges of 4 ms."""
    phase = 2 * np.pi * hz * np.arange(is_on.size) / RATE_HZ
    orders = [n for n in range(1, 15, 2) if n * hz < RATE_HZ / 2] if hz < 1000 else [1]
    wave: Sound = np.sum([np.sin(n * phase) / n for n in orders], axis=0)
    edge = np.hanning(64)
    soft = np.convolve(is_on, edge / edge.sum(), "same")
    return np.asarray(soft * wave / np.sqrt(np.mean(wave**2)), np.float64)


def in_a_room(sound: Sound, rt60_secs: float) -> Sound:
    """With echoes as strong as the sound itself, that fall by 60 dB in that time."""
    n = round(rt60_secs * RATE_HZ)
    echoes = np.random.default_rng(n).normal(0, 1, n) * 10 ** (-3 * np.arange(n) / n)
    echoes /= np.sqrt(np.sum(echoes**2))
    echoes[0] += 1
    size = sound.size + n
    wet: Sound = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(echoes, size), size)
    return wet[: sound.size]


def white(n: int, seed: int = 0) -> Sound:
    return np.random.default_rng(seed).standard_normal(n)


def pink(n: int, seed: int = 0) -> Sound:
    spectrum = np.fft.rfft(white(n, seed))
    spectrum[1:] /= np.sqrt(np.arange(1, spectrum.size))
    spectrum[0] = 0
    made: Sound = np.fft.irfft(spectrum, n)
    return made


def mixed(sound: Sound, noise: NDArray[np.floating], snr_db: float) -> Floats:
    """`sound`, whose power while on is 1, over noise of the full band 0..8 kHz."""
    noise = np.resize(noise, sound.size)
    mix = sound + noise * np.sqrt(10 ** (-snr_db / 10) / np.mean(noise**2))
    return np.asarray(mix / np.abs(mix).max() * 0.5, np.float32)


def cut(
    samples: Floats, *, hop_ns: int = HOP_NS, rate_hz: int = RATE_HZ, first_index: int = 0
) -> list[Hop]:
    """Hops as windows cut them; what fills no hop is left out."""
    offset = ns_to_samples(first_index * hop_ns, rate_hz)
    hops = []
    for index in range(first_index, 10**9):
        span = Span(index * hop_ns, (index + 1) * hop_ns)
        here = slice(*(ns_to_samples(at, rate_hz) - offset for at in (span.start_ns, span.end_ns)))
        if here.stop > samples.size:
            break
        part = samples[here].copy()
        hops.append(Hop("mic", index, span, rate_hz, part, np.ones(part.size, np.bool_), ()))
    return hops


def scored(hops: Sequence[Hop], scorer: AlarmScorer | None = None) -> list[Scores]:
    scorer = scorer or AlarmSettings().build("cpu")
    return [score for hop in hops for score in scorer.score([hop], (), Load.FULL)]


def found(samples: Floats) -> list[Detection]:
    return [one for score in scored(cut(samples)) for one in score.detections]


def events(scores: Sequence[Scores]) -> list[Event]:
    """The first and the last message of each event."""
    labels = AlarmSettings().labels
    head = EventHead(node="n", source="mic", labels=labels, settings={"alarm": SETTINGS})
    head.push(SourceStarted("mic", frozenset({"audio"}), 0, None))
    decided = [one for score in scores for one in head.push(score)]
    decided += head.push(SourceEnded("mic"))
    said = [one.content for one in decided if isinstance(one.content, Event)]
    return [event for event in said if event.type != "update"]


# --- alarms -------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    pattern=st.sampled_from([SMOKE, CO]),
    hz=st.one_of(st.floats(2800, 3600), st.floats(500, 545)),
    tempo=st.floats(0.9, 1.1),
    noise=st.sampled_from([white, pink]),
    snr_db=st.sampled_from([0.0, 5.0, 20.0]),
    seed=st.integers(0, 50),
)
def test_alarms_in_noise_are_told_with_their_start_and_kind(
    *, pattern: Pattern, hz: float, tempo: float, noise: object, snr_db: float, seed: int
) -> None:
    made = (white if noise is white else pink)(16 * RATE_HZ, seed)
    # A low CO alarm has 94 ms bins against pink noise's strongest octave: 5 dB is what it takes.
    snr_db = max(snr_db, 5) if hz < 1000 else snr_db
    samples = mixed(beeping(sounding(pattern, tempo=tempo), hz), made, snr_db)
    told = [one for one in found(samples) if abs(float((one.note or "").split()[-2]) - hz) < 40]
    starts = [one.at_ns / NS_PER_SEC for one in told]
    assert len(starts) >= 2
    assert starts[0] == pytest.approx(LEAD_SECS, abs=0.25)
    assert starts[1] == pytest.approx(LEAD_SECS + tempo * pattern.cycle_secs, abs=0.25)
    assert {(one.note or "").startswith(pattern.note + " alarm at about ") for one in told} == {
        True
    }


@pytest.mark.parametrize(
    "name",
    [
        "audio_events/max_rain.flac",
        "audio_events/max_train.flac",
        "audio_events/mdn_voices_around_fire.mp3",
        "audio_events/metro_station_paris.flac",
        "audio_events/max_applause.flac",
        "speech/silero_vad_test.flac",
    ],
)
@pytest.mark.parametrize(("pattern", "hz"), [(SMOKE, 3150), (CO, 3400), (SMOKE, 520)])
def test_alarms_in_real_noise_as_loud_as_they_are_told(
    data_dir: Path, name: str, pattern: Pattern, hz: float
) -> None:
    samples = mixed(beeping(sounding(pattern), hz), read_sound(data_dir / name), 0)
    told = found(samples)
    assert [one.note for one in told if (one.note or "").startswith(pattern.note)]
    assert told[0].at_ns / NS_PER_SEC == pytest.approx(LEAD_SECS, abs=0.25)


@pytest.mark.parametrize(
    ("pattern", "rt60_secs"), [(SMOKE, 0.3), (SMOKE, 0.6), (SMOKE, 1.0), (CO, 0.3)]
)
def test_echoes_do_not_hide_the_pauses(pattern: Pattern, rt60_secs: float) -> None:
    for hz in (2900, 3150, 3400):
        wet = in_a_room(beeping(sounding(pattern), hz), rt60_secs)
        assert found(mixed(wet, white(wet.size), 10))


@pytest.mark.parametrize(
    ("pattern", "last_secs", "delay"), [(SMOKE, 10.5, (8, 10)), (CO, 12.3, (7, 9.2))]
)
def test_it_is_one_event_from_the_first_beep_to_the_last(
    pattern: Pattern, last_secs: float, delay: tuple[float, float]
) -> None:
    n_quiet = 14 * RATE_HZ
    is_on = np.concatenate((sounding(pattern), np.zeros(n_quiet, np.bool_)))
    scores = scored(cut(mixed(beeping(is_on, 3100), white(is_on.size), 10)))
    start, end = events(scores)
    assert (start.type, end.type, end.label) == ("start", "end", "alarm")
    assert start.t_start == pytest.approx(LEAD_SECS, abs=0.15)
    # Three whole groups: the last begins two cycles after the first.
    assert end.t_end is not None
    assert end.t_end == pytest.approx(LEAD_SECS + last_secs, abs=0.3)
    first = next(score for score in scores if score.detections)
    assert delay[0] <= first.span.end_ns / NS_PER_SEC - LEAD_SECS <= delay[1]
    assert first.outputs["alarm"].at_ns[0] == first.detections[0].at_ns


# --- what is none -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "is_on",
    [
        np.ones(16 * RATE_HZ, np.bool_),
        np.arange(16 * RATE_HZ) % RATE_HZ < RATE_HZ / 2,
        np.arange(16 * RATE_HZ) % (RATE_HZ // 5) < RATE_HZ / 10,
        sounding(SMOKE, secs=3),
        sounding(CO, secs=3),
        sounding(SMOKE, tempo=1.5, secs=20),
        sounding(CO, tempo=0.6),
        sounding(Pattern(0.5, 2, 4, "two beeps")),
        sounding(Pattern(0.5, 4, 4, "four beeps")),
        sounding(Pattern(0.1, 3, 5.8, "three beeps")),
    ],
    ids=["tone", "truck", "clock", "once", "once CO", "slow", "fast", "two", "four", "three"],
)
def test_other_rhythms_are_no_alarm(is_on: NDArray[np.bool_]) -> None:
    for snr_db in (0, 20, 60):
        assert found(mixed(beeping(is_on, 3100), white(is_on.size), snr_db)) == []


def test_noise_in_the_rhythm_of_an_alarm_is_no_alarm() -> None:
    is_on = sounding(SMOKE)
    assert found(mixed(is_on * white(is_on.size), white(is_on.size, 1), 20)) == []


def test_no_recording_holds_an_alarm(data_dir: Path) -> None:
    folders = "audio_events", "speech", "av_clips"
    paths = [path for folder in folders for path in sorted((data_dir / folder).iterdir())]
    paths = [path for path in paths if path.name != "pe_dog_noaudio.mp4"]
    quiet = np.zeros(6 * RATE_HZ, np.float32)
    alarms = [path.name for path in paths if found(np.concatenate((read_sound(path), quiet)))]
    assert len(paths) > 50
    assert alarms == []


@pytest.mark.parametrize("kind", ["baby_cry", "rooster", "dog_bark", "clock_tick", "chainsaw"])
def test_no_kind_of_sound_in_a_row_makes_an_alarm(data_dir: Path, kind: str) -> None:
    rows = [row.split("\t") for row in (data_dir / "esc10/labels.tsv").read_text().splitlines()]
    names = [row[0] for row in rows[1:] if row[3] == kind]
    clips = [read_sound(data_dir / "esc10/audio" / name) for name in names]
    assert len(clips) == 40
    assert found(np.concatenate(clips)) == []


def test_a_baby_that_cries_again_and_again_is_no_alarm(data_dir: Path) -> None:
    # These had two groups in time when a pause might be half a beep.
    for name in ("1-60997-B-3.ogg", "3-152007-C-3.ogg", "5-198411-A-3.ogg"):
        cry = read_sound(data_dir / "esc10/audio" / name)
        assert found(np.tile(cry, 6)) == []


# --- state --------------------------------------------------------------------------------------


@settings(max_examples=8)
@given(
    hop_ms=st.sampled_from([20, 33, 100, 250, 1000, 3000]),
    pattern=st.sampled_from([SMOKE, CO]),
    lost_secs=st.floats(0, 20),
)
def test_how_hops_are_cut_changes_nothing(hop_ms: int, pattern: Pattern, lost_secs: float) -> None:
    samples = mixed(beeping(sounding(pattern, secs=22), 3100), white(24 * RATE_HZ), 10)
    samples[round(lost_secs * RATE_HZ) :][:4000] = 0
    one = scored(cut(samples))
    two = scored(cut(samples, hop_ns=hop_ms * 1_000_000))
    first, second = ([d for score in scores for d in score.detections] for scores in (one, two))
    assert len(first) >= 2
    assert [(d.at_ns, d.note) for d in first] == [(d.at_ns, d.note) for d in second]
    assert [d.score for d in first] == pytest.approx([d.score for d in second], abs=1e-4)
    ones, twos = events(one), events(two)
    assert [(e.type, e.t_start) for e in ones] == [(e.type, e.t_start) for e in twos]


def test_a_lost_hop_costs_its_group_only() -> None:
    hops = cut(mixed(beeping(sounding(SMOKE, secs=22), 3100), white(24 * RATE_HZ), 10))
    kept = [hop for hop in hops if not 7.0 <= hop.span.start_ns / NS_PER_SEC < 7.8]
    told = [one.at_ns / NS_PER_SEC for score in scored(kept) for one in score.detections]
    assert told == pytest.approx([10, 14, 18], abs=0.2)


def test_after_a_long_loss_or_a_late_start_it_begins_anew() -> None:
    samples = mixed(beeping(sounding(SMOKE), 3100), white(16 * RATE_HZ), 10)
    scorer = AlarmSettings().build("cpu")
    scored(cut(samples[: 7 * RATE_HZ]), scorer)
    later = scored(cut(samples, first_index=4001), scorer)
    told = [one.at_ns / NS_PER_SEC for score in later for one in score.detections]
    assert told[:2] == pytest.approx([1002.25, 1006.25], abs=0.15)
    assert all(np.all(np.diff(s.outputs["alarm"].at_ns) > 0) for s in later if s.outputs)


def test_forgetting_a_source_and_other_sources() -> None:
    hops = cut(mixed(beeping(sounding(SMOKE), 3100), white(16 * RATE_HZ), 10))
    scorer = AlarmSettings().build("cpu")
    scored(hops[:30], scorer)
    scorer.forget("mic")
    scorer.forget("never heard")
    told = [
        one.at_ns / NS_PER_SEC for score in scored(hops[30:], scorer) for one in score.detections
    ]
    assert told == []
    scorer.forget("mic")
    silence = np.zeros(4000, np.float32)
    both: list[Scores] = []
    for hop in hops:
        quiet = Hop("other", hop.index, hop.span, RATE_HZ, silence, np.ones(4000, np.bool_), ())
        both += scorer.score([quiet, hop], (), Load.FULL)
    assert {score.source for score in both if score.detections} == {"mic"}
    alone = [one for score in scored(hops) for one in score.detections]
    assert [one for score in both for one in score.detections] == alone


def test_other_rates_are_heard_and_too_low_ones_refused() -> None:
    samples = mixed(beeping(sounding(SMOKE), 3100), white(16 * RATE_HZ), 10)
    scores = scored(cut(np.repeat(samples, 3), rate_hz=48_000))
    told = [one.at_ns / NS_PER_SEC for score in scores for one in score.detections]
    assert told == pytest.approx([2, 6, 10], abs=0.15)
    with pytest.raises(ScorerError, match=r"at least 8000: got 4000"):
        scored(cut(samples, rate_hz=4000))


def test_without_sound_there_is_no_output() -> None:
    none, unheard = np.zeros(0, np.float32), np.zeros(0, np.bool_)
    hops = [
        Hop("cam", n, Span(n * HOP_NS, (n + 1) * HOP_NS), RATE_HZ, none, unheard, ())
        for n in range(8)
    ]
    assert all(score.outputs == {} for score in scored(hops))


def test_the_spec_survives_pickling_and_names_its_label() -> None:
    spec = pickle.loads(pickle.dumps(AlarmSettings()))  # noqa: S301 - our own bytes
    assert spec == AlarmSettings()
    assert spec.labels == (Label("alarm", "audio", "alarm"),)
