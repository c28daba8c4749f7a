"""torchaudio loads with or without its compiled part, and what mmstream needs of it works."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmstream.features._torchaudio import functional, kaldi, transforms

ROOT = Path(__file__).resolve().parent.parent
TONE_HZ = 1_000


@pytest.fixture
def tone() -> torch.Tensor:
    """[1, 16000]: a second of 1 kHz."""
    phase = 2 * torch.pi * TONE_HZ * torch.arange(16_000, dtype=torch.float64) / 16_000
    return phase.sin().float()[None]


def test_mel_spectrogram_hears_the_tone(tone: torch.Tensor) -> None:
    mel = transforms.MelSpectrogram(16_000, n_fft=400, hop_length=160, n_mels=40, center=False)
    bands = functional.melscale_fbanks(201, 0.0, 8_000.0, 40, 16_000)

    power = mel(tone)

    assert power.shape == (1, 40, 98)
    assert (power[0].argmax(0) == bands[TONE_HZ // 40].argmax()).all()


def test_mfcc_of_a_steady_tone_is_steady(tone: torch.Tensor) -> None:
    mfcc = transforms.MFCC(
        16_000,
        n_mfcc=13,
        log_mels=True,
        melkwargs={"n_fft": 400, "hop_length": 160, "n_mels": 40, "center": False},
    )

    coefficients = mfcc(tone)[0]

    assert coefficients.shape == (13, 98)
    assert coefficients.std(0).min() > 1
    assert (coefficients - coefficients[:, :1]).abs().max() < 0.1


def test_fbank_hears_the_tone(tone: torch.Tensor) -> None:
    bands, _centres = kaldi.get_mel_banks(40, 512, 16_000.0, 20.0, 8_000.0, 100.0, -500.0, 1.0)

    energies = kaldi.fbank(tone, num_mel_bins=40, window_type="hanning")

    assert energies.shape == (98, 40)
    assert (energies.argmax(1) == bands[:, TONE_HZ * 512 // 16_000].argmax()).all()


def test_resampling_keeps_the_tone(tone: torch.Tensor) -> None:
    resampled = functional.resample(tone, 16_000, 8_000)

    expected = torch.sin(2 * torch.pi * TONE_HZ * torch.arange(8_000) / 8_000)
    assert resampled.shape == (1, 8_000)
    assert (resampled[0] - expected)[100:-100].abs().max() < 1e-2


def test_filters_run_in_python(tone: torch.Tensor) -> None:
    """lfilter is one of two that torchaudio also has compiled."""
    low = functional.lowpass_biquad(tone, 16_000, 100.0)

    assert low[0, 8_000:].abs().max() < 0.02


# How it loads: in a fresh interpreter, with a package that stands in for torchaudio


def import_with(folder: Path, extension: str) -> str:
    """What `mmstream.features._torchaudio` finds as `_extension`, or the error it passes on."""
    package = folder / "torchaudio"
    for name, text in {
        "__init__.py": "from . import _extension, functional, transforms, compliance",
        "_extension/__init__.py": extension,
        "functional.py": "from torchaudio._extension import _IS_TORCHAUDIO_EXT_AVAILABLE as built",
        "transforms.py": "",
        "compliance/__init__.py": "from . import kaldi",
        "compliance/kaldi.py": "",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text + "\n")
    script = (
        "from mmstream.features._torchaudio import functional\n"
        "import torchaudio._extension\n"
        "print(functional.built, type(torchaudio._extension).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_a_compiled_part_that_loads_is_used(tmp_path: Path) -> None:
    assert import_with(tmp_path, "_IS_TORCHAUDIO_EXT_AVAILABLE = True") == "True module"


@pytest.mark.parametrize(
    "failure",
    [
        "OSError('Could not load this library: _torchaudio.abi3.so')",
        "RuntimeError('compiled with different CUDA versions')",
    ],
)
def test_one_that_cannot_load_is_stood_in_for(tmp_path: Path, failure: str) -> None:
    assert import_with(tmp_path, f"raise {failure}") == "False _NotBuilt"


def test_a_broken_installation_is_not_hidden(tmp_path: Path) -> None:
    assert import_with(tmp_path, "import no_such_module") == (
        "ModuleNotFoundError: No module named 'no_such_module'"
    )


def test_what_needs_the_compiled_part_says_so() -> None:
    torchaudio = sys.modules["torchaudio"]
    if torchaudio._extension._IS_TORCHAUDIO_EXT_AVAILABLE:  # noqa: SLF001 - the stand-in's own
        pytest.skip("torchaudio's compiled part loads here")

    with pytest.raises(RuntimeError, match="forced_align needs its compiled part"):
        functional.forced_align(torch.zeros(1, 4, 3), torch.tensor([[1]]))
