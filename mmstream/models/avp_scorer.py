"""AVP in the stream: scores of labels and one embedding for each hop, of the window it ends.

A window without any token has no score. Where it is not whole yet, as the source has just begun or
there was a gap, nobody asks whether it is unusual: no such window was learned. Whether sound and
sight are on one clock yet (`Hop.synced`) is not asked for events, which do not hang on a part of a
second; for synchrony it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch

from mmstream.errors import ScorerError
from mmstream.media import NS_PER_SEC, Bytes, Hop, Scores, Series, Span, VideoFrame, secs_to_ns
from mmstream.metrics import StageMetrics
from mmstream.models import checkpoint
from mmstream.models.avp import TASK, Avp, AvpSettings
from mmstream.models.avp_learned import Learned
from mmstream.models.avp_spec import EMBEDDING, GIST, MOMENT, AvpSpec
from mmstream.models.avp_stream import AvpStream, Encoders
from mmstream.models.avp_synchrony import Synchrony, with_synchrony
from mmstream.models.avp_verdicts import Judge, Verdict, View
from mmstream.stages import Load

_WARM_UP: Final = "warm-up"
_HOP_SECS: Final = 0.25


def avp_scorer(spec: AvpSpec, device: str) -> "AvpScorer":
    """One with the weights of the spec, warmed up.

    Raises:
        ScorerError: see `AvpSpec.build`.
    """
    if device == "cpu":
        torch.set_num_threads(1)
    kept = checkpoint.read(
        spec.folder, AvpSettings, task=TASK, rate_hz=spec.rate_hz, untrained=spec.untrained
    )
    rate_hz = kept.settings.audio.front_end.rate_hz
    if rate_hz != spec.rate_hz:
        msg = f"{spec.folder}: made for {spec.rate_hz} Hz, and hears {rate_hz} Hz"
        raise ScorerError(msg)
    model = Avp(kept.settings)
    kept.fill(model)
    learned = Learned(
        taught_in=spec.taught,
        normal_in=spec.normal,
        model=kept.id,
        n_dims=kept.settings.fusion.n_dims,
        detector=spec.name,
    )
    scorer = AvpScorer(model.to(device), spec.told, learned, synchrony=spec.synchrony)
    scorer.warm_up()
    return scorer


class AvpScorer:
    """Scores AVP's events, and what it was taught (`Scorer`, `Reporting`).

    Under any load all is encoded, so that the state stays in step; with `Load.INGEST` nothing is
    fused.
    """

    def __init__(
        self, model: Avp, told: Sequence[str], learned: Learned, *, synchrony: bool = False
    ) -> None:
        """Nothing came yet. `told` are events of the model.

        Raises:
            ScorerError: `synchrony`, whether `out_of_sync` is told, needs longer windows.
        """
        self.metrics = StageMetrics("avp")
        """Of hops, and windows told. Dropped: `batch_halved`, by which nothing is lost."""
        self.learned = learned
        self._settings = model.settings
        self._device = model.background.device
        self._feature = model.settings.audio.front_end.build()
        self._encoders = Encoders(model.eval(), self.metrics)
        self._judge = Judge(model, told, learned, self.metrics)
        self._synchrony = Synchrony(model) if synchrony else None
        self._streams: dict[str, AvpStream] = {}

    def score(
        self,
        hops: Sequence[Hop],
        so_far: Sequence[Scores],  # noqa: ARG002 - rests on no other scorer
        load: Load,
    ) -> Sequence[Scores]:
        """One value of each label, an embedding, a moment and a gist, at the start of the hop.

        Raises:
            ScorerError: the sound is of another rate, or a single hop does not fit into memory.
        """
        taken = [self._stream(hop).take(hop) for hop in hops]
        encoded = self._encoders.encode(taken)
        windows = [one.stream.keep(one, its) for one, its in zip(taken, encoded, strict=True)]
        scores = [Scores(hop.source, hop.index, hop.span) for hop in hops]
        apart = self._synchrony.take(hops, windows) if self._synchrony else [None for _ in hops]
        self.metrics.n_in += len(hops)
        if load is Load.INGEST:
            return scores
        told = [n for n, window in enumerate(windows) if window.is_any]
        self.metrics.n_out += len(told)
        verdicts = self._judge.judge([View(scores[n].source, windows[n]) for n in told])
        for n, verdict in zip(told, verdicts, strict=True):
            scores[n] = _told(scores[n], verdict)
        return [
            said if found is None else with_synchrony(said, found)
            for said, found in zip(scores, apart, strict=True)
        ]

    @property
    def problems(self) -> Sequence[str]:
        """Why files of what it was taught, and of what is normal, are passed over."""
        return self.learned.problems

    def forget(self, source: str) -> None:
        """Hear and see the source afresh."""
        self._streams.pop(source, None)
        if self._synchrony is not None:
            self._synchrony.forget(source)

    def warm_up(self) -> None:
        """Score a window of silence and grey: what is set up at first use is set up then."""
        n_hops = 1 + round(self._settings.window_secs / _HOP_SECS)
        for index in range(n_hops):
            self.score([_grey_hop(index, self._settings)], (), Load.FULL)
        self.forget(_WARM_UP)

    def _stream(self, hop: Hop) -> AvpStream:
        rate_hz = self._settings.audio.front_end.rate_hz
        if hop.samples.size and hop.rate_hz != rate_hz:
            msg = (
                f"avp hears {rate_hz} Hz only: got {hop.rate_hz} Hz from {hop.source}; "
                f"set hops.rate_hz to {rate_hz} or leave avp out"
            )
            raise ScorerError(msg)
        stream = self._streams.get(hop.source)
        if stream is None:
            stream = AvpStream(self._settings, self._feature, self._device)
            self._streams[hop.source] = stream
        return stream


@dataclass(frozen=True, slots=True)
class _Grey:
    """A picture of nothing (`Image`)."""

    width: int = 1
    height: int = 1
    nbytes: int = 0

    @property
    def luma(self) -> Bytes:
        return np.full((self.height, self.width), 128, np.uint8)

    def rgb(self, size: tuple[int, int] | None = None) -> Bytes:
        width, height = size or (self.width, self.height)
        return np.full((height, width, 3), 128, np.uint8)


def _grey_hop(index: int, settings: AvpSettings) -> Hop:
    """A silent hop of a source that nobody has."""
    hop_ns, frame_ns = secs_to_ns(_HOP_SECS), NS_PER_SEC // settings.seen.fps
    span = Span(index * hop_ns, (index + 1) * hop_ns)
    first_ns = -(-span.start_ns // frame_ns) * frame_ns
    instants = range(first_ns, span.end_ns, frame_ns)
    rate_hz = settings.audio.front_end.rate_hz
    n_samples = round(_HOP_SECS * rate_hz)
    sound, heard = np.zeros(n_samples, np.float32), np.ones(n_samples, np.bool_)
    frames = tuple(VideoFrame(_WARM_UP, at_ns, _Grey()) for at_ns in instants)
    return Hop(_WARM_UP, index, span, rate_hz, sound, heard, frames)


def _told(hop: Scores, verdict: Verdict) -> Scores:
    at_ns = np.array([hop.span.start_ns], np.int64)
    outputs = {
        name: Series(at_ns, np.array([score], np.float32)) for name, score in verdict.scores.items()
    }
    vectors = {EMBEDDING: verdict.embedding, MOMENT: verdict.moment, GIST: verdict.gist}
    outputs |= {
        name: Series(at_ns, vector[None].copy())
        for name, vector in vectors.items()
        if vector is not None
    }
    return replace(hop, outputs=outputs, fused=verdict.fused, learned=verdict.learned)
