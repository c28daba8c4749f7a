"""Sound of a clock that drifts, laid on ours: stretched a little all the time, never shifted.

Between the two ends of a chunk our clock runs evenly, so that an instant of ours has a place
between two of its samples. What the sound is there, a windowed sinc tells (Smith, "Digital Audio
Resampling Home Page", "Theory of operation"). Its taps are polynomials in that place (Farrow, "A
Continuously Variable Digital Delay Element", ISCAS 1988), as it is another for each sample.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmstream.codecs.sound import CHUNKS_PER_SEC
from mmstream.media import NS_PER_SEC, AudioChunk, Floats, Span, samples_to_ns
from mmstream.metrics import StageMetrics

TOLERANCE_NS: Final = 5_000_000
"""A chunk that begins this close to where the last one ended goes on from there."""
MAX_STRETCH: Final = 0.03
"""Sound is stretched by no more than this (half a semitone); the rest becomes a seam."""

_N_TAPS: Final = 48
_N_RIGHT: Final = _N_TAPS // 2
"""Taps on samples after the place asked for; as many on those before, or at it."""
_KAISER_BETA: Final = 8.0
"""With 48 taps: -84 dB up to 7 kHz at 16 kHz."""
_ORDER: Final = 8
"""Of the polynomials; what they are off by (6e-7) is less than the sums of floats are."""

_Doubles = NDArray[np.float64]
_NO_SAMPLES: Final = np.zeros(0, np.float32)
_BEFORE: Final = np.zeros(_N_RIGHT - 1, np.float32)
"""Silence before the first sample, for its filter."""
_AFTER: Final = np.zeros(_N_RIGHT, np.float32)


def _filter() -> Floats:
    """[taps, order + 1]: each tap's polynomial in the distance from the middle of two samples."""
    place = (1 - np.cos(np.linspace(0, np.pi, 8 * _ORDER))) / 2
    away = np.arange(1 - _N_RIGHT, _N_RIGHT + 1) - place[:, None]
    inside = np.clip(1 - (away / _N_RIGHT) ** 2, 0, None)
    taps = np.sinc(away) * np.i0(_KAISER_BETA * np.sqrt(inside))
    taps /= taps.sum(axis=1, keepdims=True)
    powers = np.vander(place - 0.5, _ORDER + 1, increasing=True)
    return np.linalg.lstsq(powers, taps, rcond=None)[0].T.astype(np.float32)


_FILTER: Final = _filter()


class SteadySound:
    """Chunks of device time in, contiguous chunks of 20 ms on our clock out.

    The first chunk's start is the anchor of a grid of samples that is never left: chunk k + 1
    starts where chunk k ended. A chunk that begins more than 5 ms from where the last one ended
    (sound was lost, the clock stepped) begins a new grid: a hole stays a hole; what overlaps is
    dropped (and counted as `overlapping_sound`). Smaller differences are taken up by stretching.

    1.5 ms of sound (at 16 kHz) waits inside for what comes next. `flush` gives it.
    """

    def __init__(self, source: str, rate_hz: int, metrics: StageMetrics) -> None:
        """Nothing heard yet; chunks are named `source` and come and go at `rate_hz`."""
        self._source = source
        self._rate_hz = rate_hz
        self._metrics = metrics
        self._anchor_ns = self._n_out = self._n_made = 0
        self._given_until_ns: int | None = None
        self._rest = _NO_SAMPLES
        self._heard = _BEFORE
        self._marks: list[tuple[int, int]] = []
        """Instant on our clock and index in `_heard`: between two of them time runs evenly."""

    def push(self, chunk: AudioChunk, span: Span) -> list[AudioChunk]:
        """Take a chunk that, on our clock, was captured during `span`; give what it fills."""
        chunks: list[AudioChunk] = []
        if self._marks and abs(span.start_ns - self._marks[-1][0]) > TOLERANCE_NS:
            chunks = self.flush()
        if not self._marks:
            self._start(span.start_ns)
        start_ns, index = self._marks[-1]
        duration_ns = samples_to_ns(chunk.samples.size, self._rate_hz)
        most_ns = int(duration_ns * MAX_STRETCH)
        stretch_ns = span.end_ns - start_ns - duration_ns
        end_ns = start_ns + duration_ns + min(max(stretch_ns, -most_ns), most_ns)
        self._marks.append((end_ns, index + chunk.samples.size))
        self._heard = np.concatenate([self._heard, chunk.samples])
        made = self._make(self._heard.size - _N_RIGHT)
        self._forget()
        return chunks + self._cut(made)

    def flush(self) -> list[AudioChunk]:
        """No more comes, or none that follows: give the rest."""
        if not self._marks:
            return []
        n_heard = self._heard.size
        self._heard = np.concatenate([self._heard, _AFTER])
        chunks = self._cut(self._make(n_heard))
        if self._rest.size:
            chunks.append(self._chunk(self._rest))
            self._rest = _NO_SAMPLES
        self._marks.clear()
        self._heard = _BEFORE
        return chunks

    def _start(self, start_ns: int) -> None:
        self._anchor_ns = start_ns
        if self._given_until_ns is not None and start_ns < self._given_until_ns:
            self._anchor_ns = self._given_until_ns
            if self._anchor_ns - start_ns > samples_to_ns(1, self._rate_hz):
                self._metrics.drop("overlapping_sound")
        self._n_out = self._n_made = 0
        self._marks = [(start_ns, self._heard.size)]

    def _make(self, until: int) -> Floats:
        """The next samples of the grid, as far as they lie before index `until`."""
        places = self._places()
        places = places[: np.searchsorted(places, until)]
        self._n_made += places.size
        if not places.size:
            return _NO_SAMPLES
        before = places.astype(np.int64)
        powers = np.vander(places - before - 0.5, _ORDER + 1, increasing=True)
        windows = np.lib.stride_tricks.sliding_window_view(self._heard, _N_TAPS)
        filtered = windows[before + 1 - _N_RIGHT] @ _FILTER
        made: Floats = np.einsum("ij,ij->i", filtered, powers).astype(np.float32)
        return made

    def _places(self) -> _Doubles:
        """[n]: where in `_heard`, as fractional indices, the next samples of the grid lie."""
        marks_ns, indices = zip(*self._marks, strict=True)
        zero_ns = marks_ns[0]
        whole_ns, part = divmod(self._n_made * NS_PER_SEC, self._rate_hz)
        next_ns = self._anchor_ns - zero_ns + whole_ns
        n_more = (marks_ns[-1] - zero_ns - next_ns) * self._rate_hz // NS_PER_SEC + 1
        at_ns = next_ns + (np.arange(max(n_more, 0)) * NS_PER_SEC + part) / self._rate_hz
        away_ns = [mark_ns - zero_ns for mark_ns in marks_ns]
        places: _Doubles = np.interp(at_ns, away_ns, indices)
        return places

    def _forget(self) -> None:
        """What no sample to come needs."""
        n_past = max(self._heard.size - _N_TAPS, 0)
        self._heard = self._heard[n_past:]
        self._marks = [(at_ns, index - n_past) for at_ns, index in self._marks]
        n_past = sum(index <= 0 for _, index in self._marks)
        del self._marks[: max(n_past - 1, 0)]

    def _cut(self, made: Floats) -> list[AudioChunk]:
        samples = np.concatenate([self._rest, made])
        size = self._rate_hz // CHUNKS_PER_SEC
        n_full = samples.size // size
        self._rest = samples[n_full * size :]
        return [self._chunk(samples[i * size : (i + 1) * size]) for i in range(n_full)]

    def _chunk(self, samples: Floats) -> AudioChunk:
        start_ns = self._anchor_ns + samples_to_ns(self._n_out, self._rate_hz)
        self._n_out += samples.size
        self._given_until_ns = self._anchor_ns + samples_to_ns(self._n_out, self._rate_hz)
        return AudioChunk(self._source, start_ns, self._rate_hz, samples)
