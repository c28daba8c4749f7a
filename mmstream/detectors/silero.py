r"""Speech: somebody talks, whoever it is and whatever the language.

Silero VAD (github.com/snakers4/silero-vad, version 6, MIT) with the weights of its wheel, the
plain ones in `silero_vad_16k.safetensors`; nothing is downloaded, unpickled or imported from it.

    samples   ..........|--------- 512 = 32 ms ---------|....
    context        |-64-|
    spectrum -> 4 convolutions (of each window by itself) -> LSTM (through all) -> probability

The convolutions of all sources' windows are computed at once, then the LSTM window by window for
all sources together. Windows lie on a grid counted from capture time 0, so how the sound is cut
into hops changes nothing. A window with a missing sample has no score, and what follows is heard
afresh: state does not bridge it.

The score is Silero's probability, whose own point of decision is 0.5. It is dated at the start of
its window. The LSTM wants to hear a little more before it is sure, and goes on for about 0.1 s
after the last word: see docs/senses.md for the measured delays.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import conv1d, pad

from mmstream.detectors.speech import SPEECH, SPEECH_RATE_HZ
from mmstream.errors import ScorerError
from mmstream.media import Floats, Hop, Scores, Series, ns_to_samples, samples_to_ns
from mmstream.stages import Load

_N_WINDOW: Final = 512
_N_CONTEXT: Final = 64
_N_FFT: Final = 256
_N_STRIDE: Final = 128
_N_PAD: Final = 64
_N_FREQS: Final = _N_FFT // 2 + 1
_N_STATE: Final = 128


def speech_scorer() -> "SpeechScorer":
    """One with the weights of the wheel, which computes on the calling thread only.

    Raises:
        ScorerError: the weights are not there.
    """
    torch.set_num_threads(1)
    return SpeechScorer(SileroNet(_read_weights()))


class SpeechScorer:
    """Scores `speech` every 32 ms (`Scorer`).

    Under any load all is heard, so that the state stays in step; it costs 1 % of a core.
    """

    def __init__(self, net: "SileroNet") -> None:
        """Nothing has been heard."""
        self._net = net
        self._ears: dict[str, _Ear] = {}

    def score(
        self,
        hops: Sequence[Hop],
        so_far: Sequence[Scores],  # noqa: ARG002 - rests on no other scorer
        load: Load,
    ) -> Sequence[Scores]:
        """[t] scores at the starts of windows; the first may have begun in the hop before.

        No output: no sound, or no window was completed.

        Raises:
            ScorerError: the pipeline does not run at 16 kHz.
        """
        heard = [self._ear(hop).hear(hop) for hop in hops]
        probabilities = self._probabilities(hops, heard)
        return [_scores(*one, load) for one in zip(hops, heard, probabilities, strict=True)]

    def forget(self, source: str) -> None:
        """Hear the source afresh."""
        self._ears.pop(source, None)

    def _ear(self, hop: Hop) -> "_Ear":
        if hop.samples.size and hop.rate_hz != SPEECH_RATE_HZ:
            msg = (
                f"speech is heard at 16000 Hz only: got {hop.rate_hz} Hz from {hop.source}; "
                "set hops.rate_hz to 16000 or leave speech out"
            )
            raise ScorerError(msg)
        return self._ears.setdefault(hop.source, _Ear())

    def _probabilities(self, hops: Sequence[Hop], heard: Sequence["_Heard"]) -> list[Floats]:
        """For each hop, those of its windows."""
        windows = np.concatenate([one.windows for one in heard])
        if not len(windows):
            return [np.zeros(0, np.float32) for _ in hops]
        offsets = np.cumsum([0, *(len(one.windows) for one in heard)]).tolist()
        queues: dict[str, list[_Turn]] = {}
        for hop, one, offset in zip(hops, heard, offsets, strict=False):
            turns = [_Turn(offset + n, bool(fresh)) for n, fresh in enumerate(one.is_fresh)]
            queues.setdefault(hop.source, []).extend(turns)
        found = self._listen(windows, {self._ears[name]: turns for name, turns in queues.items()})
        return [found[start:end] for start, end in itertools.pairwise(offsets)]

    def _listen(self, windows: Floats, queues: Mapping["_Ear", Sequence["_Turn"]]) -> Floats:
        """[n, context + window] -> [n]; the windows of one ear one after the other."""
        with torch.inference_mode():
            gates = self._net.encode(torch.from_numpy(windows))
            states = torch.zeros(len(windows), _N_STATE)
            for nth in range(max(map(len, queues.values()))):
                ears = [ear for ear, turns in queues.items() if nth < len(turns)]
                turns = [queues[ear][nth] for ear in ears]
                before = [
                    _silent() if t.fresh else e.state for e, t in zip(ears, turns, strict=True)
                ]
                rows = [turn.row for turn in turns]
                state = self._net.step(gates[rows], torch.stack(before, dim=1))
                states[rows] = state[0]
                for column, ear in enumerate(ears):
                    ear.state = state[:, column]
            probabilities: Floats = self._net.decode(states).numpy()
        return probabilities


@dataclass(frozen=True, slots=True)
class _Turn:
    """A window that waits for its state."""

    row: int
    fresh: bool
    """It follows lost sound."""


@dataclass(frozen=True, slots=True, eq=False)
class _Heard:
    """The windows that are complete now."""

    at_ns: NDArray[np.int64]
    """[n]"""
    windows: Floats
    """[n, context + window]"""
    is_fresh: NDArray[np.bool_]
    """[n]: the window before it was not heard."""


def _silent() -> Tensor:
    return torch.zeros(2, _N_STATE)


@dataclass(slots=True, eq=False)
class _Ear:
    """The unfinished window and the state of the network for one source."""

    state: Tensor = field(default_factory=_silent)
    """[2, 128]: the LSTM's output and cell."""
    _samples: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    """Those of the last window so far; the first of them is sample `_index`."""
    _heard: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    _index: int = 0
    """Counted from capture time 0; the start of a window."""
    _context: Floats = field(default_factory=lambda: np.zeros(_N_CONTEXT, np.float32))
    """What came just before `_index`; zeros where nothing was heard."""
    _is_unbroken: bool = False
    """Whether the window before was heard."""

    def hear(self, hop: Hop) -> _Heard:
        """Take the hop's sound; give the windows that were heard as a whole."""
        self._append(hop)
        n_windows = self._samples.size // _N_WINDOW
        n_whole = n_windows * _N_WINDOW
        windows = self._samples[:n_whole].reshape(n_windows, _N_WINDOW)
        is_heard = self._heard[:n_whole].reshape(n_windows, _N_WINDOW).all(axis=1)
        follows = np.concatenate(([self._is_unbroken], is_heard))
        ends = np.concatenate((self._context[None], windows[:, -_N_CONTEXT:]))
        contexts = ends[:-1] * follows[:-1, None]
        first = self._index // _N_WINDOW
        self._samples, self._heard = self._samples[n_whole:], self._heard[n_whole:]
        self._index += n_whole
        self._context, self._is_unbroken = ends[-1], bool(follows[-1])
        numbers = first + np.flatnonzero(is_heard)
        at_ns = [samples_to_ns(number * _N_WINDOW, SPEECH_RATE_HZ) for number in numbers.tolist()]
        joined = np.concatenate((contexts, windows), axis=1)[is_heard]
        return _Heard(np.array(at_ns, np.int64), joined, ~follows[:-1][is_heard])

    def _append(self, hop: Hop) -> None:
        start = ns_to_samples(hop.span.start_ns, SPEECH_RATE_HZ)
        if start != self._index + self._samples.size:
            # What is lost belongs to no window: start at the window that the hop starts in.
            n_lost = start % _N_WINDOW
            self._index = start - n_lost
            self._samples = np.zeros(n_lost, np.float32)
            self._heard = np.zeros(n_lost, np.bool_)
            self._is_unbroken = False
        self._samples = np.concatenate((self._samples, hop.samples))
        self._heard = np.concatenate((self._heard, hop.heard))


class SileroNet:
    """The network of Silero VAD 6 for 16 kHz, as its `tinygrad_model.py` spells it out."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """Keep the weights, by the names in the file.

        Raises:
            ScorerError: they are those of another version.
        """
        try:
            self._spectrum = weights["stft_conv.weight"]
            self._convolutions = [
                (weights[f"conv{n}.weight"], weights[f"conv{n}.bias"], stride)
                for n, stride in ((1, 1), (2, 2), (3, 2), (4, 1))
            ]
            self._into_gates = weights["lstm_cell.weight_ih"].T.contiguous()
            self._state_into_gates = weights["lstm_cell.weight_hh"].T.contiguous()
            self._gate_bias = weights["lstm_cell.bias_ih"] + weights["lstm_cell.bias_hh"]
            self._out = weights["final_conv.weight"][0, :, 0]
            self._out_bias = weights["final_conv.bias"]
        except KeyError as error:
            msg = f"silero-vad is not of version 6: its weights have no {error}"
            raise ScorerError(msg) from None

    def encode(self, windows: Tensor) -> Tensor:
        """[n, context + window] -> [n, 512]: what each window says to the LSTM's gates."""
        padded = pad(windows[:, None], (0, _N_PAD), mode="reflect")
        spectrum = conv1d(padded, self._spectrum, stride=_N_STRIDE)
        real, imaginary = spectrum[:, :_N_FREQS], spectrum[:, _N_FREQS:]
        x = (real.square() + imaginary.square()).sqrt()
        for weight, bias, stride in self._convolutions:
            x = conv1d(x, weight, bias, stride=stride, padding=1).relu()
        return x[:, :, 0] @ self._into_gates + self._gate_bias

    def step(self, gates: Tensor, state: Tensor) -> Tensor:
        """One step of the LSTM: [n, 512] and [2, n, 128] -> [2, n, 128]."""
        output, cell = state
        inward, kept, new, outward = (gates + output @ self._state_into_gates).chunk(4, dim=1)
        cell = kept.sigmoid() * cell + inward.sigmoid() * new.tanh()
        return torch.stack((outward.sigmoid() * cell.tanh(), cell))

    def decode(self, outputs: Tensor) -> Tensor:
        """[n, 128] -> [n]: the probability of speech."""
        return (outputs.relu() @ self._out + self._out_bias).sigmoid()


def _scores(hop: Hop, heard: _Heard, probabilities: Floats, load: Load) -> Scores:
    if load is Load.INGEST or not probabilities.size:
        return Scores(hop.source, hop.index, hop.span)
    series = Series(heard.at_ns, probabilities.copy())
    return Scores(hop.source, hop.index, hop.span, {SPEECH.name: series})


def _read_weights() -> Mapping[str, Tensor]:
    # Importing the package would import torchaudio's compiled part, where it is installed.
    spec = find_spec("silero_vad")
    folders = spec.submodule_search_locations if spec is not None else None
    if not folders:
        msg = "speech needs the package silero-vad: pip install silero-vad"
        raise ScorerError(msg)
    path = Path(folders[0]) / "data" / "silero_vad_16k.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        msg = f"speech cannot read {path}: {error}; it comes with silero-vad >= 6.2"
        raise ScorerError(msg) from None
