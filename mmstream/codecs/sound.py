"""Sound at the pipeline's rate: mixed to mono and band-limited once, placed by capture time."""

import math
from typing import Final

import av
import numpy as np

from mmstream.errors import SourceError
from mmstream.media import NS_PER_SEC, AudioChunk, Floats, samples_to_ns
from mmstream.metrics import StageMetrics

TOLERANCE_NS: Final = 5_000_000
"""Timestamps this close to the counted ones are jitter: WebM, FLV and RTP round to 1 ms."""
CHUNKS_PER_SEC: Final = 50
"""How sound is cut: 20 ms are a quick answer and few items."""

_FILTER: Final = {"filter_size": "64"}
"""libswresample's 32 taps let 8.5 kHz alias to 7.5 kHz at -26 dB; 64 give -90 dB for 16 kHz."""
_MEAN: Final = {"rematrix_volume": str(math.sqrt(0.5))}
"""libswresample mixes L, R to mono at -3 dB each, so that a voice on both would gain 3 dB and may
pass 1.0. Another -3 dB makes stereo the mean, and leaves 5.1 as ITU-R BS.775 has it."""

_Format = tuple[str, str, int]
"""Sample format, layout and rate in Hz, by FFmpeg's names."""

_NO_SAMPLES: Final = np.zeros(0, np.float32)


class CaptureResampler:
    """Decoded frames of one stream in, contiguous chunks of 20 ms out, by capture time.

    The first frame is the anchor, from which samples are counted; a frame's own instant only has
    to agree within the tolerance. Where it does not, what is inside is flushed and that frame is
    the new anchor: after lost sound the hole stays a hole; of sound that overlaps what was given,
    the overlap is dropped (and counted as `overlapping_sound`). A recorder whose sound drifts from
    its timestamps is put right by 5 ms at a time; rounding alone never moves the anchor.

    libswresample compensates its own delay: output sample k is at k / rate from the anchor. What is
    shorter than its filter (8 ms at most), alone between two holes, gives nothing.
    """

    def __init__(self, source: str, rate_hz: int, metrics: StageMetrics) -> None:
        """Nothing heard yet; chunks are named `source` and come at `rate_hz`."""
        self._source = source
        self._rate_hz = rate_hz
        self._metrics = metrics
        self._resampler: av.AudioResampler | None = None
        self._format: _Format = ("", "", rate_hz)
        self._anchor_ns = self._n_in = self._n_out = self._n_skip = 0
        self._end_ns: int | None = None
        self._rest = _NO_SAMPLES

    def push(
        self, frame: av.AudioFrame, start_ns: int, jitter_ns: int = TOLERANCE_NS
    ) -> list[AudioChunk]:
        """Take a frame whose first sample was captured at `start_ns`; give the chunks it fills.

        `jitter_ns` is how far `start_ns` may be off without meaning anything.

        Raises:
            SourceError: its channels cannot be mixed to one.
        """
        chunks = []
        found = (frame.format.name, frame.layout.name, frame.sample_rate)
        resampler = self._resampler
        expected_ns = self._anchor_ns + samples_to_ns(self._n_in, self._format[2])
        is_jitter = resampler is not None and abs(start_ns - expected_ns) <= jitter_ns
        if resampler is None or found != self._format or not is_jitter:
            chunks = self.flush()
            resampler = self._start(found, frame, expected_ns if is_jitter else start_ns)
        self._n_in += frame.samples
        try:
            resampled = resampler.resample(frame)
        except av.FFmpegError as error:
            msg = f"{self._source}: cannot mix {found[1]} to mono; allowed: layouts FFmpeg knows"
            raise SourceError(msg) from error
        return chunks + self._take(resampled)

    def flush(self) -> list[AudioChunk]:
        """No more frames come, or none for some time: give the rest."""
        if self._resampler is None:
            return []
        # One that has nothing to do (mono floats at the rate already) answers [None].
        tail = [frame for frame in self._resampler.resample(None) if frame is not None]
        chunks = self._take(tail)
        if self._rest.size:
            chunks.append(self._chunk(self._rest))
        self._forget()
        return chunks

    def _start(self, found: _Format, frame: av.AudioFrame, start_ns: int) -> av.AudioResampler:
        self._format = found
        self._anchor_ns = start_ns
        self._n_in = self._n_out = self._n_skip = 0
        if self._end_ns is not None and start_ns < self._end_ns:
            self._n_skip = -(-(self._end_ns - start_ns) * self._rate_hz // NS_PER_SEC)
            self._metrics.drop("overlapping_sound")
        options = _FILTER if frame.layout.nb_channels == 1 else _FILTER | _MEAN
        self._resampler = av.AudioResampler(
            format="flt", layout="mono", rate=self._rate_hz, options=options
        )
        return self._resampler

    def _take(self, frames: list[av.AudioFrame]) -> list[AudioChunk]:
        """Cut what came into chunks; keep what does not fill one."""
        if not frames:
            return []
        samples = np.concatenate([self._rest, *map(_samples, frames)])
        if not math.isfinite(samples.sum()):
            # One NaN would stay in the state of every filter and model downstream.
            self._metrics.drop("corrupt_sound")
            self._forget()
            return []
        n_skipped = min(self._n_skip, samples.size)
        self._n_skip -= n_skipped
        self._n_out += n_skipped
        samples = samples[n_skipped:]
        size = self._rate_hz // CHUNKS_PER_SEC
        n_full = samples.size // size
        self._rest = samples[n_full * size :]
        return [self._chunk(samples[i * size : (i + 1) * size]) for i in range(n_full)]

    def _chunk(self, samples: Floats) -> AudioChunk:
        start_ns = self._anchor_ns + samples_to_ns(self._n_out, self._rate_hz)
        self._n_out += samples.size
        chunk = AudioChunk(self._source, start_ns, self._rate_hz, samples)
        self._end_ns = chunk.end_ns
        return chunk

    def _forget(self) -> None:
        self._resampler = None
        self._rest = _NO_SAMPLES


def sound_from_array(samples: Floats, rate_hz: int) -> av.AudioFrame:
    """A frame for `CaptureResampler` of [n, 1] or [n, 2] samples, nominally -1..1; copies them."""
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout=layout)
    frame.sample_rate = rate_hz
    return frame


def _samples(frame: av.AudioFrame) -> Floats:
    """[n]: a view (PyAV's `to_ndarray` stacks the planes, which takes longer than resampling)."""
    return np.frombuffer(memoryview(frame.planes[0]), np.float32, frame.samples)
