"""Features of sound: the streaming laws, and torchaudio's answers on real recordings."""

import math
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from mmstream.errors import FeatureError
from mmstream.features._torchaudio import functional, kaldi, transforms
from mmstream.features.audio import (
    Feature,
    FeatureStream,
    LogMel,
    LogMelSettings,
    Mfcc,
    MfccSettings,
    Stft,
    StftSettings,
)
from mmstream.media import Floats

RATE_HZ = 16_000
FLOOR = 1e-6

STFT = Stft(StftSettings())
LOG_MEL = LogMel(LogMelSettings())
WHISPER = LogMel(LogMelSettings.whisper())
AST = LogMel(LogMelSettings.ast())
MFCC = Mfcc(MfccSettings())
ODD_SIZES = LogMel(LogMelSettings(n_window=301, n_hop=97, n_fft=512, n_mels=20, f_min_hz=60.0))
FEATURES: tuple[Feature, ...] = (STFT, LOG_MEL, WHISPER, AST, MFCC, ODD_SIZES)

feature_strategy = st.sampled_from(FEATURES)


@st.composite
def sounds(draw: st.DrawFn, max_samples: int = 3_000) -> Floats:
    """Noise of any loudness, with digital silence in it now and then."""
    n_samples = draw(st.integers(0, max_samples))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    samples = rng.standard_normal(n_samples) * 10 ** draw(st.floats(-8, 0))
    start, stop = sorted(draw(st.tuples(*[st.integers(0, max_samples)] * 2)))
    samples[start:stop] *= draw(st.sampled_from([0.0, 1.0]))
    return samples.astype(np.float32)


def whole(feature: Feature, samples: Floats) -> Tensor:
    return feature(torch.tensor(samples))


def pushed(stream: FeatureStream, pieces: Sequence[Floats]) -> Tensor:
    return torch.cat([stream.push(piece) for piece in pieces])


def worst(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max()) if one.numel() else 0.0


def decode(path: Path) -> Floats:
    """A recording as mono at 16 kHz, at most 10 s of it."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE_HZ)
    with av.open(str(path)) as container:
        pieces = [
            piece.to_ndarray()[0]
            for frame in (*container.decode(audio=0), None)
            for piece in resampler.resample(frame)
        ]
    return np.concatenate(pieces)[: 10 * RATE_HZ]


@pytest.fixture(scope="session")
def recordings(data_dir: Path) -> dict[str, Floats]:
    """Speech, events and every 20th of ESC-10's clips."""
    paths = [
        *sorted((data_dir / "speech").iterdir()),
        *sorted((data_dir / "audio_events").iterdir()),
        *sorted((data_dir / "esc10" / "audio").glob("*.ogg"))[::20],
    ]
    assert len(paths) > 50
    return {path.name: decode(path) for path in paths}


# The laws of streams


@given(feature_strategy, sounds(), st.lists(st.integers(0, 3_000), max_size=12))
@settings(max_examples=200)
def test_any_chunking_gives_the_frames_of_the_whole(
    feature: Feature, samples: Floats, cuts: list[int]
) -> None:
    pieces = np.split(samples, sorted(min(cut, samples.size) for cut in cuts))

    assert worst(pushed(FeatureStream(feature), pieces), whole(feature, samples)) <= 1e-5


@given(feature_strategy, sounds(), sounds())
def test_what_comes_later_changes_no_frame(
    feature: Feature, samples: Floats, later: Floats
) -> None:
    before = whole(feature, samples)

    after = whole(feature, np.concatenate((samples, later)))

    assert worst(after[: len(before)], before) <= 1e-5


@given(feature_strategy, sounds(), sounds())
def test_after_a_reset_nothing_is_left_of_the_past(
    feature: Feature, past: Floats, samples: Floats
) -> None:
    stream = FeatureStream(feature)
    stream.push(past)

    stream.reset()

    assert worst(stream.push(samples), whole(feature, samples)) <= 1e-5


@given(feature_strategy, st.integers(0, 2_999), st.integers(0, 2**32 - 1))
def test_a_sample_shows_in_the_frames_that_cover_it_and_no_other(
    feature: Feature, at: int, seed: int
) -> None:
    noise = np.random.default_rng(seed).standard_normal(3_000).astype(np.float32)
    clicked = noise.copy()
    clicked[at] += 50

    changed = (whole(feature, noise) != whole(feature, clicked)).any(-1)

    n_hop, n_window = feature.settings.n_hop, feature.settings.n_window
    for t in range(feature.settings.n_frames(3_000)):
        first, last = t * n_hop, t * n_hop + n_window - 1
        if first < at < last:  # the window is 0, or nearly, on the outermost samples
            assert changed[t]
        elif not first <= at <= last:
            assert not changed[t]


@given(feature_strategy, sounds())
def test_there_are_as_many_frames_as_the_settings_say(feature: Feature, samples: Floats) -> None:
    n_hop, n_window = feature.settings.n_hop, feature.settings.n_window
    starts = range(0, samples.size - n_window + 1, n_hop)

    assert feature.settings.n_frames(samples.size) == len(starts)
    assert len(whole(feature, samples)) == len(starts)


@pytest.mark.parametrize("feature", FEATURES)
def test_clips_in_a_batch_do_not_touch(feature: Feature) -> None:
    clips = torch.randn(2, 3, 1_000, generator=torch.Generator().manual_seed(0))

    batch = feature(clips)

    assert batch.shape[:2] == (2, 3)
    for i in range(2):
        for j in range(3):
            assert worst(batch[i, j], feature(clips[i, j])) <= 1e-5


def test_streams_share_a_feature_but_no_samples() -> None:
    one, other = np.random.default_rng(3).standard_normal((2, 2_000)).astype(np.float32)
    first, second = FeatureStream(LOG_MEL), FeatureStream(LOG_MEL)

    frames = [first.push(one[:900]), second.push(other), first.push(one[900:])]

    assert worst(torch.cat((frames[0], frames[2])), whole(LOG_MEL, one)) <= 1e-5
    assert worst(frames[1], whole(LOG_MEL, other)) <= 1e-5


@pytest.mark.parametrize("feature", FEATURES)
def test_the_shape_of_what_is_pushed(feature: Feature) -> None:
    stream = FeatureStream(feature)
    hop = np.zeros(4_000, np.float32)
    hop.flags.writeable = False  # as the records' arrays are

    first, second = stream.push(hop), stream.push(hop)

    expected = torch.complex64 if feature is STFT else torch.float32
    assert first.dtype == second.dtype == expected
    assert len(first) + len(second) == feature.settings.n_frames(8_000)
    if feature.settings.n_hop == 160:
        assert (len(first), len(second)) == (23, 25)
    assert stream.push(np.empty(0, np.float32)).shape == (0, first.shape[1])


def test_a_stream_that_begins_with_zeros_gives_as_many_frames_from_each_push() -> None:
    stream = FeatureStream(LOG_MEL)
    hops = np.random.default_rng(4).standard_normal((4, 4_000)).astype(np.float32)
    assert len(stream.push(np.zeros(400 - 160, np.float32))) == 0

    assert [len(stream.push(hop)) for hop in hops] == [25] * 4


# Real recordings


@pytest.mark.parametrize("feature", FEATURES)
def test_recordings_in_pieces_give_the_frames_of_the_whole(
    recordings: dict[str, Floats], feature: Feature
) -> None:
    rng = np.random.default_rng(0)
    for name, samples in recordings.items():
        hops = np.split(samples, range(4_000, samples.size, 4_000))
        ragged = np.split(samples, np.sort(rng.integers(0, samples.size, 50)))
        expected = whole(feature, samples)
        assert worst(pushed(FeatureStream(feature), hops), expected) <= 1e-5, name
        assert worst(pushed(FeatureStream(feature), ragged), expected) <= 1e-5, name


FRAMING = {"n_fft": 400, "hop_length": 160, "center": False}
SLANEY = {**FRAMING, "n_mels": 80, "norm": "slaney", "mel_scale": "slaney"}
LEAST_POWER = 1e-20  # ample for sound that was 16 bits once; in float32 much less is nothing


def torchaudio_mel_power(samples: Floats) -> Tensor:
    """[t, 80] as torchaudio gives it, in float32."""
    power: Tensor = transforms.MelSpectrogram(RATE_HZ, **SLANEY)(torch.tensor(samples)).T
    return power


def mel_power(samples: Floats) -> Tensor:
    """[t, 80] f64 from our log-mel, practically without a floor."""
    return whole(LogMel(LogMelSettings(floor=LEAST_POWER)), samples).double().exp()


def loud_bands_differ_by(power: Tensor, reference: Tensor, *, below_max_db: float) -> Tensor:
    """|power / reference - 1| of the bands that are that near to their frame's loudest."""
    reference = reference.double()
    least = reference.amax(-1, keepdim=True) * 10 ** (-below_max_db / 10)
    loud = reference >= least.clamp(min=LEAST_POWER)
    return (power / reference - 1).abs()[loud]


def test_stft_is_torchaudios(recordings: dict[str, Floats]) -> None:
    spectrogram = transforms.Spectrogram(power=None, **FRAMING)
    for name, samples in recordings.items():
        reference = spectrogram(torch.tensor(samples)).T
        scale = reference.abs().max()
        assert worst(whole(STFT, samples) / scale, reference / scale) <= 1e-6, name


def test_log_mel_is_torchaudios(recordings: dict[str, Floats]) -> None:
    for name, samples in recordings.items():
        reference = torchaudio_mel_power(samples).clamp(min=FLOOR).log()
        assert worst(whole(LOG_MEL, samples), reference) <= 2e-3, name


def test_mel_power_is_torchaudios_in_double_precision(recordings: dict[str, Floats]) -> None:
    mel_spectrogram = transforms.MelSpectrogram(RATE_HZ, **SLANEY).double()
    for name, samples in recordings.items():
        reference: Tensor = mel_spectrogram(torch.tensor(samples).double()).T
        assert loud_bands_differ_by(mel_power(samples), reference, below_max_db=60).max() <= 1e-5
        log_mel = whole(LOG_MEL, samples).double()
        assert worst(log_mel, reference.clamp(min=FLOOR).log()) <= 1e-5, name


def test_mel_power_is_torchaudios_in_single_precision(recordings: dict[str, Floats]) -> None:
    """1e-4 down to -50 dB, and down to -60 dB but for a few bands in a million.

    Those are torchaudio's own rounding: its transform errs by 1e-7 of the loudest frequency, and
    an amplitude at -60 dB is 1e-3 of that. Measured with oneMKL's SSE4.2, AVX2 and AVX-512 code:
    at most 5.8e-5 at -50 dB and 2.1e-4 at -60 dB, 1 to 4 bands in a million above 1e-4.
    """
    pairs = [(mel_power(samples), torchaudio_mel_power(samples)) for samples in recordings.values()]
    at_50 = torch.cat([loud_bands_differ_by(*pair, below_max_db=50) for pair in pairs])
    at_60 = torch.cat([loud_bands_differ_by(*pair, below_max_db=60) for pair in pairs])

    assert len(at_50) > 1_000_000
    assert at_50.max() <= 1e-4
    assert (at_60 > 1e-4).sum() <= len(at_60) / 100_000
    assert at_60.max() <= 4e-4


def test_mfcc_is_torchaudios(recordings: dict[str, Floats]) -> None:
    mfcc = transforms.MFCC(RATE_HZ, log_mels=True, melkwargs=SLANEY)
    for name, samples in recordings.items():
        assert worst(whole(MFCC, samples), mfcc(torch.tensor(samples)).T) <= 2e-3, name


def test_ast_features_are_kaldis_normalised(recordings: dict[str, Floats]) -> None:
    """As transformers' ASTFeatureExtractor: kaldi.fbank, then (x - mean) / (2 std)."""
    for name, samples in recordings.items():
        reference = kaldi.fbank(
            torch.tensor(samples)[None],
            sample_frequency=float(RATE_HZ),
            window_type="hanning",
            num_mel_bins=128,
        )
        normalised = (reference.double() + 4.2677393) / (2 * 4.5689974)
        assert worst(whole(AST, samples).double(), normalised) <= 2e-3, name


def whisper_features(samples: Tensor, n_mels: int) -> Tensor:
    """Whisper's own steps (openai/whisper, audio.py), on a clip that is not padded to 30 s."""
    bands = functional.melscale_fbanks(
        201, 0.0, 8_000.0, n_mels, RATE_HZ, norm="slaney", mel_scale="slaney"
    )
    stft = torch.stft(samples, 400, 160, window=torch.hann_window(400), return_complex=True)
    mel = bands.T @ stft[..., :-1].abs() ** 2
    log_spec = torch.clamp(mel, min=1e-10).log10()
    log_spec = torch.maximum(log_spec, log_spec.max() - 8.0)
    features: Tensor = (log_spec + 4.0) / 4.0
    return features.T


@pytest.mark.parametrize("feature", [WHISPER, LogMel(LogMelSettings.whisper(n_mels=128))])
def test_whisper_features_are_whispers(recordings: dict[str, Floats], feature: LogMel) -> None:
    for name, samples in recordings.items():
        mirrored = np.concatenate((samples[200:0:-1], samples))

        features = whole(feature, mirrored)

        clamped = features.clamp(min=features.max() - 2)
        reference = whisper_features(torch.tensor(samples), feature.settings.n_mels)
        reference = reference[: len(clamped)]  # its last frames see the mirrored end
        assert len(reference) >= samples.size // RATE_HZ * 100 - 2
        assert worst(clamped, reference) <= 2e-3, name


# What silence, tones and scale must give


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        (LOG_MEL, math.log(FLOOR)),
        (WHISPER, (-10 + 4) / 4),
        (AST, (math.log(2**-23) + 4.2677393) / 9.1379948),
    ],
)
def test_silence_lies_on_the_floor(feature: Feature, expected: float) -> None:
    silence = whole(feature, np.zeros(1_600, np.float32))

    assert worst(silence, torch.full_like(silence, expected)) <= 1e-5


@given(st.floats(200, 7_000))
@settings(max_examples=50)
def test_a_tone_is_loudest_at_its_frequency(tone_hz: float) -> None:
    samples = np.sin(2 * np.pi * tone_hz * np.arange(1_600) / RATE_HZ).astype(np.float32)

    peak = whole(STFT, samples).abs().argmax(-1)

    width_hz = RATE_HZ / STFT.settings.n_fft
    assert ((peak * width_hz - tone_hz).abs() <= width_hz / 2 + 1).all()


# What is refused


@pytest.mark.parametrize(
    "samples",
    [np.zeros((2, 400), np.float32), np.float32(0.5).reshape(()), np.zeros(400, np.float64)],
)
def test_other_arrays_than_rows_of_floats_are_refused(samples: Floats) -> None:
    with pytest.raises(FeatureError, match=r"\[n\] float32.*samples\.shape=.*samples\.dtype="):
        FeatureStream(LOG_MEL).push(samples)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"n_hop": 401}, "n_hop <= n_window"),
        ({"n_window": 401}, "n_window <= n_fft"),
        ({"n_fft": 401}, "multiple of 2"),
        ({"f_max_hz": 8_001.0}, "f_max_hz <= rate_hz / 2"),
        ({"rate_hz": 8_000}, "f_max_hz <= rate_hz / 2"),
        ({"f_min_hz": 8_000.0}, "f_min_hz < f_max_hz"),
        ({"floor": 0.0}, "greater than 0"),
        ({"std": 0.0}, "greater than 0"),
        ({"bands": "htk"}, "'slaney' or 'kaldi'"),
        ({"hop_secs": 0.01}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    keys: dict[str, float | str], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        LogMelSettings.model_validate(keys)


def test_there_are_no_more_coefficients_than_bands() -> None:
    with pytest.raises(ValidationError, match="n_mfcc <= n_mels"):
        MfccSettings(n_mels=39)


def test_times_of_frames() -> None:
    assert StftSettings(rate_hz=8_000, n_window=200, n_hop=80).hop_secs == 0.01
