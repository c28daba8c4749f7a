r"""Where somebody begins and ends to speak: cuts the sound of one source into utterances. Pure.

    speech    ....__/~~~~\_/~~~~~\____________/~~~
    utterance   [----------------------)    [-----
                 ^ pre-roll        ^ pause ^ the rest of it is in no utterance

The rules are those of Silero's `VADIterator` (github.com/snakers4/silero-vad, `utils_vad.py`): it
starts at a probability of 0.5 and ends after a pause that starts below 0.35, which only 0.5
interrupts. Besides: what is too short to be a word is passed over, and of long speech a shorter
pause ends the utterance, the longer it lasts the shorter, until it is cut anyway. Such a cut loses
nothing: the next utterance goes on with the next sample.

All is counted in samples and windows on a grid from capture time 0, so how the sound is cut into
hops changes nothing. An utterance only ever grows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmstream.detectors.speech import SPEECH_RATE_HZ
from mmstream.errors import ScorerError
from mmstream.media import Floats, Hop, Series, ns_to_samples, samples_to_ns

_Flags = NDArray[np.bool_]

N_WINDOW: Final = 512
"""Samples that one probability of speech is about: 32 ms."""

_ON: Final = 0.5
_OFF: Final = 0.35
_PRE_ROLL_SECS: Final = 0.3
"""The network wants to hear some of a word before it is sure: of soft beginnings up to 0.27 s."""
_KEPT_PAUSE_SECS: Final = 0.2
_LEAST_SPEECH_SECS: Final = 0.128
_SOFT_SECS: Final = 10.0
_HARD_SECS: Final = 20.0
_SHORTER_PAUSE_SECS: Final = 0.3


@dataclass(frozen=True, slots=True)
class CuttingRules:
    """When an utterance starts and ends; all in seconds."""

    pause_secs: float = 0.5
    """How long nothing must be said for it to be over."""
    pre_roll_secs: float = _PRE_ROLL_SECS
    """How much of what was heard before belongs to it."""
    kept_pause_secs: float = _KEPT_PAUSE_SECS
    """How much of what is heard after belongs to it."""
    least_speech_secs: float = _LEAST_SPEECH_SECS
    """What is shorter is no speech."""
    soft_secs: float = _SOFT_SECS
    """From this length on shorter pauses end it."""
    hard_secs: float = _HARD_SECS
    """At this length it is cut, pause or not."""

    def __post_init__(self) -> None:
        if not 0 < self.soft_secs < self.hard_secs:
            msg = f"the soft limit lies before the hard one: {self.soft_secs=} {self.hard_secs=}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """What was heard of one so far."""

    number: int
    """Counted from 0 since the source started."""
    start_ns: int
    """When the first sample was captured."""
    samples: Floats
    """[n] at 16 kHz; a later one of the same number begins with the same."""
    speech: float
    """The mean probability of speech outside of its pauses, 0..1."""
    is_last: bool


@dataclass(slots=True)
class _Open:
    """An utterance that goes on; sample numbers count from capture time 0."""

    start: int
    n_speech: int = 0
    """Windows at or over 0.5."""
    n_voiced: int = 0
    """Windows outside of pauses."""
    voiced: float = 0.0
    """The sum of their probabilities."""
    paused_at: int | None = None
    number: int | None = None
    """None: too short so far."""

    def hear(self, window: int, probability: float) -> None:
        if probability >= _ON:
            self.n_speech += 1
            self.paused_at = None
        elif probability < _OFF and self.paused_at is None:
            self.paused_at = window * N_WINDOW
        if self.paused_at is None:
            self.n_voiced += 1
            self.voiced += probability


class UtteranceCutter:
    """Hops of one source and their speech in, its utterances out; holds at most one of them."""

    def __init__(self, rules: CuttingRules) -> None:
        """Nothing was heard."""
        self._rules = rules
        self._n_pre_roll = _samples(rules.pre_roll_secs)
        self._n_kept = _samples(rules.kept_pause_secs)
        self._n_least = max(1, round(rules.least_speech_secs * SPEECH_RATE_HZ / N_WINDOW))
        self._n_hard = _samples(rules.hard_secs)
        self._samples: Floats = np.zeros(0, np.float32)
        self._heard: _Flags = np.zeros(0, np.bool_)
        self._first = 0
        """The number of the first sample that is held."""
        self._window = 0
        """The first one not looked at."""
        self._floor = 0
        """The first sample that may belong to the next utterance."""
        self._open: _Open | None = None
        self._n_utterances = 0
        self._ended: list[Utterance] = []

    def push(self, hop: Hop, speech: Series | None) -> Sequence[Utterance]:
        """Take a hop and the speech scores of the windows that it completes (None: not scored).

        Gives the utterances that ended, then the one that goes on, in order.

        Raises:
            ScorerError: the sound does not come at 16 kHz.
        """
        if not hop.samples.size:
            return self.flush()
        if hop.rate_hz != SPEECH_RATE_HZ:
            msg = (
                f"speech is recognised at 16000 Hz only: got {hop.rate_hz} Hz from {hop.source}; "
                "set hops.rate_hz to 16000 or leave captions.speech out"
            )
            raise ScorerError(msg)
        start = ns_to_samples(hop.span.start_ns, SPEECH_RATE_HZ)
        # Lost time; state must not bridge it.
        if hop.gap_before or start != self._end:
            self._end_at(self._sound_end())
            self._restart(start)
        self._samples = np.concatenate((self._samples, hop.samples))
        self._heard = np.concatenate((self._heard, hop.heard))
        probabilities = _by_window(speech)
        while (self._window + 1) * N_WINDOW <= self._end:
            self._look(probabilities)
        said = self._taken()
        if self._open is not None and self._open.number is not None:
            said = (*said, self._utterance(self._open, self._open_end(self._open), is_last=False))
        self._let_go()
        return said

    def flush(self) -> Sequence[Utterance]:
        """No more comes, or only after lost time: end the one that goes on."""
        self._end_at(self._sound_end())
        self._restart(self._end)
        return self._taken()

    @property
    def _end(self) -> int:
        return self._first + self._samples.size

    def _taken(self) -> tuple[Utterance, ...]:
        ended, self._ended = tuple(self._ended), []
        return ended

    def _restart(self, start: int) -> None:
        self._samples, self._heard = np.zeros(0, np.float32), np.zeros(0, np.bool_)
        self._first = self._floor = start
        self._window = -(-start // N_WINDOW)

    def _look(self, probabilities: Mapping[int, float]) -> None:
        """Decide on the next window."""
        window, start = self._window, self._window * N_WINDOW
        end = start + N_WINDOW
        self._window += 1
        missing = np.flatnonzero(~self._heard[start - self._first : end - self._first])
        if missing.size:
            self._end_at(start + int(missing[0]))
            self._floor = start + int(missing[-1]) + 1
            return
        probability = probabilities.get(window)
        if self._open is None and probability is not None and probability >= _ON:
            self._open = _Open(max(self._floor, start - self._n_pre_roll))
        if self._open is not None:
            self._go_on(self._open, window, probability)

    def _go_on(self, utterance: _Open, window: int, probability: float | None) -> None:
        """One more window, scored or not; one that is not changes nothing but the length."""
        end = (window + 1) * N_WINDOW
        if probability is not None:
            utterance.hear(window, probability)
            if utterance.n_speech >= self._n_least and utterance.number is None:
                utterance.number = self._n_utterances
                self._n_utterances += 1
            paused_at = utterance.paused_at
            if paused_at is not None and probability < _OFF:
                n_enough = self._n_pause(end - utterance.start)
                if end - paused_at >= n_enough:
                    self._end_at(min(end, paused_at + self._n_kept))
                    return
        if end - utterance.start >= self._n_hard:
            self._end_at(end if utterance.paused_at is None else self._open_end(utterance))
            if utterance.paused_at is None:
                # Within a word, perhaps: what is left of it is speech, however short.
                self._open = _Open(end, n_speech=self._n_least - 1)

    def _n_pause(self, n_samples: int) -> int:
        """How long a pause must be that ends an utterance of this length."""
        rules = self._rules
        secs = n_samples / SPEECH_RATE_HZ
        if secs < rules.soft_secs:
            return _samples(rules.pause_secs)
        left = max(0.0, (rules.hard_secs - secs) / (rules.hard_secs - rules.soft_secs))
        return max(N_WINDOW, _samples(left * min(_SHORTER_PAUSE_SECS, rules.pause_secs)))

    def _open_end(self, utterance: _Open) -> int:
        """As far as it is known to go: no later sample of a pause than it will keep."""
        looked = self._window * N_WINDOW
        if utterance.paused_at is None:
            return looked
        return min(looked, utterance.paused_at + self._n_kept)

    def _sound_end(self) -> int:
        """Where the sound ends that is held, if not in a pause."""
        tail = self._heard[self._window * N_WINDOW - self._first :] if self._heard.size else ()
        missing = np.flatnonzero(~np.asarray(tail, np.bool_))
        end = self._window * N_WINDOW + int(missing[0]) if missing.size else self._end
        if self._open is not None and self._open.paused_at is not None:
            return min(end, self._open.paused_at + self._n_kept)
        return end

    def _end_at(self, end: int) -> None:
        utterance, self._open = self._open, None
        if utterance is not None and utterance.number is not None:
            self._ended.append(self._utterance(utterance, end, is_last=True))
            self._floor = end

    def _utterance(self, utterance: _Open, end: int, *, is_last: bool) -> Utterance:
        return Utterance(
            number=-1 if utterance.number is None else utterance.number,
            start_ns=samples_to_ns(utterance.start, SPEECH_RATE_HZ),
            samples=self._samples[utterance.start - self._first : end - self._first].copy(),
            speech=utterance.voiced / max(1, utterance.n_voiced),
            is_last=is_last,
        )

    def _let_go(self) -> None:
        """Of sound that no utterance can want any more."""
        wanted = self._window * N_WINDOW - self._n_pre_roll
        first = max(self._floor, wanted) if self._open is None else self._open.start
        n_gone = min(max(0, first - self._first), self._samples.size)
        self._samples, self._heard = self._samples[n_gone:], self._heard[n_gone:]
        self._first += n_gone


def _samples(secs: float) -> int:
    return round(secs * SPEECH_RATE_HZ)


def _by_window(speech: Series | None) -> Mapping[int, float]:
    if speech is None:
        return {}
    numbers = [ns_to_samples(at_ns, SPEECH_RATE_HZ) // N_WINDOW for at_ns in speech.at_ns.tolist()]
    return dict(zip(numbers, speech.values.tolist(), strict=True))
