"""Features of sound: STFT, log-mel (ours, Whisper's, AST's) and MFCC, whole and streaming.

One path serves both. A feature maps samples [..., n] to frames [..., t, d]; `FeatureStream` feeds
it samples in pieces of any size and gives the same frames, each as soon as its last sample is in.

    sample   0         160       320  400  480  560       720
    frame 0  |------------------------|
    frame 1            |------------------------|
    frame 2                      |------------------------|

Frame t covers samples [t * n_hop, t * n_hop + n_window) and nothing else: it starts `t * hop_secs`
after the first sample. There is no padding, so n samples make `settings.n_frames(n)` frames and a
tail that fills no frame makes none (`center=False` of torch.stft, `snip_edges` of Kaldi).

Arithmetic is in float64, results are float32: float32 rounding reaches 1e-3 in the logarithm of
quiet bands beside loud ones, and nothing promises that it is the same however many frames are
computed at once. torchaudio gives the filterbanks and the DCT, and is the reference in the tests.
A frame takes 8 to 20 kB while it is computed: push long recordings in pieces.
"""

import math
from typing import Literal, Protocol, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from mmstream.config import Settings
from mmstream.errors import FeatureError
from mmstream.features._torchaudio import functional, kaldi
from mmstream.media import Floats

_KALDI_PREEMPHASIS = 0.97
_AST_MEAN, _AST_STD = -4.2677393, 4.5689974  # of AudioSet's log-mel; AST, Gong et al. 2021
_MFCC_OFFSET = 1e-6  # torchaudio.transforms.MFCC(log_mels=True)


class StftSettings(Settings):
    """How sound is cut into frames, and the spectrum of a frame."""

    rate_hz: int = Field(default=16_000, gt=0)
    """Samples per second that the feature expects."""
    n_window: int = Field(default=400, ge=2)
    """Samples in a frame; 25 ms at 16 kHz."""
    n_hop: int = Field(default=160, ge=1)
    """Samples from the start of one frame to the next; 10 ms at 16 kHz."""
    n_fft: int = Field(default=400, ge=2, multiple_of=2)
    """Length of the transform, even; zeros follow the frame where it is longer than `n_window`."""

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if not self.n_hop <= self.n_window <= self.n_fft:
            msg = (
                "needs n_hop <= n_window <= n_fft: "
                f"got {self.n_hop=} {self.n_window=} {self.n_fft=}"
            )
            raise ValueError(msg)
        return self

    @property
    def hop_secs(self) -> float:
        """Time from the start of one frame to the next."""
        return self.n_hop / self.rate_hz

    @property
    def n_freqs(self) -> int:
        """Frequencies in a spectrum: 0 to rate_hz / 2, evenly spaced."""
        return self.n_fft // 2 + 1

    def n_frames(self, n_samples: int) -> int:
        """How many frames `n_samples` fill."""
        return max(0, 1 + (n_samples - self.n_window) // self.n_hop)


class MelSettings(StftSettings):
    """Which bands the spectrum is summed into."""

    n_mels: int = Field(default=80, ge=4)
    """Bands."""
    f_min_hz: float = Field(default=0.0, ge=0)
    """Where the lowest band begins."""
    f_max_hz: float = Field(default=8_000.0, gt=0)
    """Where the highest band ends; at most half of `rate_hz`."""

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if not self.f_min_hz < self.f_max_hz <= self.rate_hz / 2:
            msg = (
                "needs f_min_hz < f_max_hz <= rate_hz / 2: "
                f"got {self.f_min_hz=} {self.f_max_hz=} {self.rate_hz=}"
            )
            raise ValueError(msg)
        return self


class LogMelSettings(MelSettings):
    """Log-mel energies: (ln(max(power in band, floor)) - mean) / std.

    Two published conventions are ready made, `whisper()` and `ast()`.
    """

    bands: Literal["slaney", "kaldi"] = "slaney"
    """slaney: periodic Hann window; Slaney's mel scale, bands of equal area (librosa, Whisper).
    kaldi: each frame loses its mean, is pre-emphasised by 0.97 and weighted by a symmetric Hann
    window; HTK's mel scale, bands of height 1 (Kaldi's fbank)."""
    floor: float = Field(default=1e-6, gt=0)
    """Least power; what is quieter counts as this. Samples are in -1..1, nothing is scaled."""
    mean: float = 0.0
    """Subtracted from the logarithm."""
    std: float = Field(default=1.0, gt=0)
    """What is left is divided by it."""

    @classmethod
    def whisper(cls, *, n_mels: Literal[80, 128] = 80) -> Self:
        """Whisper's: (log10(max(power, 1e-10)) + 4) / 4, from audio.py of openai/whisper.

        128 bands for large-v3 and later. Two things need the whole clip and are left to whoever
        holds it:

        * Whisper cuts off below 80 dB under the clip's loudest band. Here that is
          `features.clamp(min=features.max() - 2)`; a stream keeps everything down to the floor
          (-1.5), so quiet frames lie lower than Whisper saw in training until that is done.
        * Whisper's frames are centred on `t * hop_secs` and the clip is mirrored at its ends
          (and padded with silence to 30 s). Ours start there. With samples 200 to 1 put in front
          of the clip, the frames are Whisper's.
        """
        ln10 = math.log(10)
        return cls(n_mels=n_mels, floor=1e-10, mean=-4 * ln10, std=4 * ln10)

    @classmethod
    def ast(cls) -> Self:
        """AST's: Kaldi's fbank with 128 bands from 20 Hz, normalised by AudioSet's statistics.

        As in transformers' ASTFeatureExtractor, frame by frame, so a stream loses nothing. Left
        to the model: AST takes 1024 frames (10.24 s) and pads with zeros *before* normalising,
        i.e. missing frames are `(0 - mean) / std` = 0.467.
        """
        return cls(
            n_fft=512,
            n_mels=128,
            f_min_hz=20.0,
            bands="kaldi",
            floor=torch.finfo(torch.float32).eps,
            mean=_AST_MEAN,
            std=2 * _AST_STD,
        )


class MfccSettings(MelSettings):
    """Cepstral coefficients of Slaney mel bands."""

    n_mfcc: int = Field(default=40, ge=1)
    """Coefficients kept, from the 0th; at most `n_mels`."""

    @model_validator(mode="after")
    def _check_coefficients(self) -> Self:
        if self.n_mfcc > self.n_mels:
            msg = f"needs n_mfcc <= n_mels: got {self.n_mfcc=} {self.n_mels=}"
            raise ValueError(msg)
        return self


class Feature(Protocol):
    """Something computed from each frame of sound on its own."""

    @property
    def settings(self) -> StftSettings:
        """How sound is cut into frames."""
        ...

    def __call__(self, samples: Tensor) -> Tensor:
        """Samples [..., n] f32 on the CPU, at `settings.rate_hz` -> [..., n_frames(n), d]."""
        ...


class Stft:
    """Short-time spectra: [..., n] f32 -> [..., t, n_freqs] complex64.

    Periodic Hann window; phases count from the frame's first sample. Equal to
    torchaudio.transforms.Spectrogram(power=None, center=False) where n_fft = n_window.
    """

    def __init__(self, settings: StftSettings) -> None:
        """Prepare the window."""
        self.settings = settings
        self._window = _hann(settings.n_window, periodic=True)

    def __call__(self, samples: Tensor) -> Tensor:
        """The spectra of all frames of `samples`."""
        frames = _frames(samples, self.settings)
        return _spectra(frames * self._window, self.settings.n_fft).to(torch.complex64)


class LogMel:
    """Log-mel energies: [..., n] f32 -> [..., t, n_mels] f32."""

    def __init__(self, settings: LogMelSettings) -> None:
        """Prepare the window and the bands."""
        self.settings = settings
        self._is_kaldi = settings.bands == "kaldi"
        self._window = _hann(settings.n_window, periodic=not self._is_kaldi)
        self._bands = _kaldi_bands(settings) if self._is_kaldi else _slaney_bands(settings)

    def __call__(self, samples: Tensor) -> Tensor:
        """The energies of all frames of `samples`."""
        settings = self.settings
        frames = _frames(samples, settings)
        if self._is_kaldi:
            frames = _preemphasised(frames)
        power = _power(_spectra(frames * self._window, settings.n_fft))
        log_mel = (power @ self._bands).clamp(min=settings.floor).log()
        return ((log_mel - settings.mean) / settings.std).float()


class Mfcc:
    """Mel-frequency cepstral coefficients: [..., n] f32 -> [..., t, n_mfcc] f32.

    The orthonormal DCT-II of ln(power in band + 1e-6), as torchaudio.transforms.MFCC with
    log_mels=True. Its decibel variant cuts off below the clip's maximum, which no stream knows.
    """

    def __init__(self, settings: MfccSettings) -> None:
        """Prepare the window, the bands and the cosines."""
        self.settings = settings
        self._window = _hann(settings.n_window, periodic=True)
        self._bands = _slaney_bands(settings)
        dct: Tensor = functional.create_dct(settings.n_mfcc, settings.n_mels, "ortho")
        self._dct = dct.double()

    def __call__(self, samples: Tensor) -> Tensor:
        """The coefficients of all frames of `samples`."""
        frames = _frames(samples, self.settings)
        power = _power(_spectra(frames * self._window, self.settings.n_fft))
        return ((power @ self._bands + _MFCC_OFFSET).log() @ self._dct).float()


class FeatureStream:
    """A feature of one unbroken stream of samples, pushed in pieces of any size.

    The frames of all pushes together are the feature of all samples together. There is no flush:
    a tail shorter than a frame makes no frame. Streams may share one feature.

    The first push gives fewer frames than those after it: of 4000 samples 23, then 25 each. With
    `n_window - n_hop` zeros pushed first it is 25 each time, and frame t ends just before sample
    (t + 1) * n_hop.
    """

    def __init__(self, feature: Feature) -> None:
        """Begin before the first sample."""
        self._feature = feature
        self._held: Floats = np.empty(0, np.float32)

    def push(self, samples: Floats) -> Tensor:
        """Take the next samples [n] f32; give the frames [t, d] that they complete, t >= 0.

        Raises:
            FeatureError: they are not a row of 32-bit floats.
        """
        if samples.ndim != 1 or samples.dtype != np.float32:
            msg = f"a feature takes [n] float32 samples: got {samples.shape=} {samples.dtype=}"
            raise FeatureError(msg)
        held = np.concatenate((self._held, samples))
        settings = self._feature.settings
        n_done = settings.n_frames(held.size) * settings.n_hop
        self._held = held[n_done:].copy()  # a view would keep all of `held` alive
        return self._feature(torch.from_numpy(held))

    def reset(self) -> None:
        """Sound was lost or another recording follows: no frame spans the gap.

        The next sample pushed is the first of frame 0.
        """
        self._held = np.empty(0, np.float32)


def _hann(n_window: int, *, periodic: bool) -> Tensor:
    """[n_window] f64, of float32's accuracy: the window that torchaudio uses, rounding and all."""
    return torch.hann_window(n_window, periodic=periodic, dtype=torch.float32).double()


def _frames(samples: Tensor, settings: StftSettings) -> Tensor:
    """[..., n] -> [..., t, n_window] f64, a view."""
    if samples.shape[-1] < settings.n_window:
        return torch.empty((*samples.shape[:-1], 0, settings.n_window), dtype=torch.float64)
    return samples.double().unfold(-1, settings.n_window, settings.n_hop)


def _preemphasised(frames: Tensor) -> Tensor:
    """Kaldi's: the mean removed, then x[i] - 0.97 x[max(i - 1, 0)], within each frame."""
    frames = frames - frames.mean(-1, keepdim=True)
    before = torch.cat((frames[..., :1], frames[..., :-1]), dim=-1)
    return frames - _KALDI_PREEMPHASIS * before


def _spectra(frames: Tensor, n_fft: int) -> Tensor:
    """[..., t, n_window] -> [..., t, n_freqs] complex128."""
    if frames.numel() == 0:  # oneMKL refuses to transform nothing
        return torch.empty((*frames.shape[:-1], n_fft // 2 + 1), dtype=torch.complex128)
    spectra: Tensor = torch.fft.rfft(frames, n=n_fft)
    return spectra


def _power(spectra: Tensor) -> Tensor:
    return spectra.real.square() + spectra.imag.square()


def _slaney_bands(settings: MelSettings) -> Tensor:
    """[n_freqs, n_mels] f64."""
    bands: Tensor = functional.melscale_fbanks(
        settings.n_freqs,
        settings.f_min_hz,
        settings.f_max_hz,
        settings.n_mels,
        settings.rate_hz,
        norm="slaney",
        mel_scale="slaney",
    )
    return bands.double()


def _kaldi_bands(settings: MelSettings) -> Tensor:
    """[n_freqs, n_mels] f64; Kaldi gives the highest frequency to no band."""
    bands: Tensor = kaldi.get_mel_banks(
        settings.n_mels,
        settings.n_fft,
        float(settings.rate_hz),
        settings.f_min_hz,
        settings.f_max_hz,
        vtln_low=100.0,  # unused: no warping of the vocal tract
        vtln_high=-500.0,
        vtln_warp_factor=1.0,
    )[0]
    return torch.cat((bands.T, torch.zeros(1, settings.n_mels))).double()
