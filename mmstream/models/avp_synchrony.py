r"""Whether sound and sight of a source belong to the same instants: `out_of_sync`.

Each frame is compared with the sound at 41 offsets, once, as soon as its sound is there at all of
them; nothing is encoded for it. What decides is the mean over the frames of the last 6 s:

    fits     cosines by offset, of `Avp.synchrony`
    shares   softmax of `_SHARPNESS` * mean of the fits
    clear    the share within one step of the best offset: low where nothing tells, such as no mouth
    offset   their mean there: how much later the sound is than the picture
    score    sigmoid(logit(clear) - logit(`CLEAR`)) where the offset is not acceptable, else 0

Acceptable is what Recommendation ITU-R BT.1359-1 (1998) calls so: sound up to 90 ms early, which
nature never has, or up to 185 ms late. A best offset at either end of what is tried is none:
there may be a better one beyond.

After a gap, while sound and sight are not on one clock, and where the clock goes back, nothing is
kept; across a hole in the sound no frame is compared. docs/senses.md says what it finds.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmstream.errors import ScorerError
from mmstream.media import NS_PER_SEC, Floats, Fused, Hop, Scores, Series, secs_to_ns
from mmstream.models.avp import Avp
from mmstream.models.avp_spec import OUT_OF_SYNC
from mmstream.models.avp_verdicts import score_of
from mmstream.models.avp_windows import Held, Window
from mmstream.models.tokens import Tokens

SYNCHRONY: Final = "synchrony"
"""The output [1, 2] at the start of the hop: `offset_secs` and `clear`."""
CLEAR: Final = 0.45
"""How clear an offset must be to be told."""
N_EITHER: Final = 20
"""Steps that the sound may be early or late."""
STEP_SECS: Final = 0.04
"""A frame, as in training."""
REACH_SECS: Final = N_EITHER * STEP_SECS
KEPT_SECS: Final = 6.0
"""What decides is so old at most."""
LEAST_FRAMES: Final = 50

_SHARPNESS: Final = 20.0
_EARLY_SECS: Final = 0.09
_LATE_SECS: Final = 0.185
_REACH_NS: Final = secs_to_ns(REACH_SECS)
_KEPT_NS: Final = secs_to_ns(KEPT_SECS)
_SLACK_NS: Final = NS_PER_SEC // 1_000
"""Room for what 32 bits round."""


@dataclass(frozen=True, slots=True)
class Apart:
    """How far sound and sight of a source seem to be apart."""

    offset_secs: float
    """How much later the sound is than the picture."""
    clear: float
    """How sure that is, 0..1; 3 / 41 if nothing speaks for any offset."""

    @property
    def is_acceptable(self) -> bool:
        """Whether people put up with it."""
        return -_EARLY_SECS <= self.offset_secs <= _LATE_SECS

    @property
    def score(self) -> float:
        """Of `out_of_sync`."""
        return 0.0 if self.is_acceptable else score_of(self.clear, CLEAR)


class Synchrony:
    """Compares what is seen with what is heard, for many sources."""

    def __init__(self, model: Avp) -> None:
        """The model is in eval mode; no frame was compared yet.

        Raises:
            ScorerError: its windows are too short for frames and the sound around them.
        """
        least_secs = 2 * REACH_SECS + 2 * model.settings.audio.token_secs
        if model.settings.window_secs <= least_secs:
            msg = (
                f"synchrony: compares offsets of {REACH_SECS:g} s either way in windows longer than"
                f" {least_secs:g} s: got window_secs {model.settings.window_secs:g}"
            )
            raise ScorerError(msg)
        self._model = model
        self._device = model.background.device
        steps = torch.arange(-N_EITHER, N_EITHER + 1, device=self._device)
        self._offsets_secs = steps * STEP_SECS
        self._token_ns = secs_to_ns(model.settings.audio.token_secs)
        self._pasts: dict[str, _Past] = {}

    @property
    def n_kept(self) -> int:
        """How many comparisons are kept, of a hop each."""
        return sum(len(past.fits) for past in self._pasts.values())

    def take(self, hops: Sequence[Hop], windows: Sequence[Window]) -> list[Apart | None]:
        """Compare what is new in the windows that end with the hops, a source's in order.

        None: too little could be compared lately.
        """
        pasts = [self._pasts.setdefault(hop.source, _Past()) for hop in hops]
        turns = [
            past.turn(hop, window, self._token_ns)
            for past, hop, window in zip(pasts, hops, windows, strict=True)
        ]
        fits = iter(self._compared([turn.pair for turn in turns if turn.pair is not None]))
        return [
            past.keep(turn, None if turn.pair is None else next(fits))
            for past, turn in zip(pasts, turns, strict=True)
        ]

    def forget(self, source: str) -> None:
        """Nothing of it was compared."""
        self._pasts.pop(source, None)

    @torch.inference_mode()
    def _compared(self, pairs: Sequence["_Pair"]) -> list["_Fit"]:
        if not pairs:
            return []
        heard = self._padded([pair.audio for pair in pairs], pairs)
        seen = self._padded([pair.video for pair in pairs], pairs)
        fits = self._model.synchrony(heard, seen, self._offsets_secs).float().cpu().numpy()
        return [
            _Fit(int(pair.video.at_ns[-1]), len(pair.video.at_ns), row)
            for pair, row in zip(pairs, fits, strict=True)
        ]

    def _padded(self, held: Sequence[Held], pairs: Sequence["_Pair"]) -> Tokens:
        """[b, t, d]: those of each, filled up to the longest; times from its first sound on."""

        def filled(parts: Sequence[Tensor]) -> Tensor:
            return pad_sequence(list(parts), batch_first=True).to(self._device)

        times = [
            torch.from_numpy(((one.at_ns - pair.audio.at_ns[0]) / NS_PER_SEC).astype(np.float32))
            for one, pair in zip(held, pairs, strict=True)
        ]
        there = filled([torch.ones(len(one.at_ns), dtype=torch.bool) for one in held])
        return Tokens(filled([one.values for one in held]), there, filled(times))


def with_synchrony(scores: Scores, apart: Apart) -> Scores:
    """What was said of a hop, and how far apart its sound and sight are."""
    at_ns = np.array([scores.span.start_ns], np.int64)
    found = np.array([[apart.offset_secs, apart.clear]], np.float32)
    outputs = {
        OUT_OF_SYNC: Series(at_ns, np.array([apart.score], np.float32)),
        SYNCHRONY: Series(at_ns, found),
    }
    # Neither sense says anything of it alone.
    made_of = Fused(audio=1.0, video=1.0, offset_ns=secs_to_ns(apart.offset_secs))
    return replace(
        scores,
        outputs={**scores.outputs, **outputs},
        fused={**scores.fused, OUT_OF_SYNC: made_of},
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """Frames that can be compared, and the sound around them without a hole."""

    audio: Held
    video: Held


@dataclass(frozen=True, slots=True)
class _Turn:
    """What a hop adds."""

    end_ns: int
    is_broken: bool
    """What was compared before does not count from here on."""
    pair: _Pair | None


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """How well the frames of a hop fit to the sound."""

    at_ns: int
    """The last frame."""
    n_frames: int
    fits: Floats
    """[n_offsets], their mean."""


@dataclass(slots=True)
class _Past:
    """What was compared of one source."""

    fits: deque[_Fit] = field(default_factory=deque)
    _since_ns: int = 0
    """What was before is of another time, or of another clock."""
    _done_ns: int | None = None
    """The last frame that was compared."""
    _end_ns: int | None = None

    def turn(self, hop: Hop, window: Window, token_ns: int) -> _Turn:
        """Find what can be compared now and could not be before."""
        is_broken = hop.gap_before or hop.span.start_ns != self._end_ns or not hop.synced
        self._end_ns = hop.span.end_ns
        if is_broken:
            self._since_ns = hop.span.start_ns if hop.synced else hop.span.end_ns
            self._done_ns = None
        return _Turn(hop.span.end_ns, is_broken, self._pair(window, token_ns))

    def keep(self, turn: _Turn, fit: _Fit | None) -> Apart | None:
        """Take what came of the hop; turns are kept in order."""
        if turn.is_broken:
            self.fits.clear()
        if fit is not None:
            self.fits.append(fit)
        while self.fits and self.fits[0].at_ns <= turn.end_ns - _REACH_NS - _KEPT_NS:
            self.fits.popleft()
        return self._apart() if sum(fit.n_frames for fit in self.fits) >= LEAST_FRAMES else None

    def _pair(self, window: Window, token_ns: int) -> _Pair | None:
        audio = _unbroken(window.audio.since(self._since_ns), token_ns)
        if not len(audio.at_ns):
            return None
        first_ns = int(audio.at_ns[0]) + _REACH_NS + _SLACK_NS
        if self._done_ns is not None:
            first_ns = max(first_ns, self._done_ns + 1)
        video = window.video.since(max(first_ns, self._since_ns))
        n_ready = int(np.searchsorted(video.at_ns, audio.at_ns[-1] - _REACH_NS - _SLACK_NS))
        if not n_ready:
            return None
        self._done_ns = int(video.at_ns[n_ready - 1])
        return _Pair(audio, Held(video.values[:n_ready], video.at_ns[:n_ready]))

    def _apart(self) -> Apart:
        """By all that is kept."""
        counts = np.array([one.n_frames for one in self.fits])
        mean = counts @ np.stack([one.fits for one in self.fits]) / counts.sum()
        shares = np.exp(_SHARPNESS * (mean - mean.max()))
        shares /= shares.sum()
        best = int(shares.argmax())
        near = slice(max(0, best - 1), best + 2)
        steps = np.arange(near.start, near.start + len(shares[near])) - N_EITHER
        clear = float(shares[near].sum())
        offset_secs = float(steps @ shares[near]) * STEP_SECS / clear
        is_end = best in (0, len(shares) - 1)
        return Apart(offset_secs, 0.0 if is_end else clear)


def _unbroken(audio: Held, token_ns: int) -> Held:
    """The end of it, from the last hole on."""
    uneven = np.flatnonzero(np.abs(np.diff(audio.at_ns) - token_ns) > _SLACK_NS)
    return audio.since(int(audio.at_ns[uneven[-1] + 1])) if len(uneven) else audio
