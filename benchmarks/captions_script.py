"""A recogniser that follows a script: seeded words, and how they are revised until they settle.

Modelled on what pocketsphinx 5 did with 18 English recordings (304 words, asked every 0.125 s;
compared with its last partial hypothesis). A word was wrong in 64 % of the hypotheses at its end,
in 30 / 20 / 15 / 8 / 4 / 2 / 0.8 % of those 0.125 / 0.25 / 0.375 / 0.5 / 0.625 / 0.875 / 1.25 s
after; a third of the revisions took the word before along. Where that and the figures of issue 8
(local agreement of two: 0.75 s and 7 wrong of 600 words at steps of 0.5 s, 0.36 s and 46 at
0.25 s) pull apart, it lies between. What it says depends on how much it has heard, not on how
often it was asked.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmstream.media import NS_PER_SEC, Hypothesis, Span, SpokenWord

Secs = NDArray[np.float64]
"""[n] seconds since the utterance began."""

SOURCE: Final = "script"
LANGUAGE: Final = "en-US"

P_UNSETTLED: Final = 0.62
"""How many words are wrong at their end."""
SETTLING_SECS: Final = 0.18
"""How long those take to settle, on average (exponential)."""
P_ALONG: Final = 0.1
"""How many words settle no earlier than the word after them, if that is unsettled."""
CHANGE_SECS: Final = 0.25
"""How long an unsettled word stays the same, on average."""
PAUSE_SECS: Final = 0.4
"""Silence that is still heard when an utterance is over."""

_N_WORDS: Final = 400
_WORD_SECS: Final = 0.33
_LEAST_SECS: Final = 0.12
_SHOWN_SECS: Final = 0.2
"""So much of a word must have been heard."""
_P_GAP: Final = 0.12
_MOST_GAP_SECS: Final = 0.5
_N_IN_UTTERANCE: Final = 6, 22
_P_MISSING: Final = 0.1
_P_SPLIT: Final = 0.1


@dataclass(frozen=True, slots=True)
class ScriptedWord:
    """One word and what it is taken for; seconds since the utterance began."""

    text: str
    start_secs: float
    end_secs: float
    settled_secs: float
    """From when on it is right."""
    changes_secs: tuple[float, ...]
    """When it is taken for something else, until then."""
    missing: bool
    """Whether it is not said at all until then."""
    split: bool
    """Whether it is two words until then."""

    def heard(self, at_secs: float) -> list[str]:
        """What is said of it once so much was heard."""
        if at_secs >= self.settled_secs:
            return [self.text]
        if self.missing:
            return []
        nth = sum(change <= at_secs for change in self.changes_secs)
        wrong = f"{self.text}x{nth}"
        return [wrong, f"{wrong}y"] if self.split else [wrong]


@dataclass(frozen=True, slots=True)
class ScriptedUtterance:
    """What is said between two pauses."""

    number: int
    words: tuple[ScriptedWord, ...]

    def hypotheses(self, step_secs: float) -> Iterator[Hypothesis]:
        """One each `step_secs`, the last of all of it."""
        over_secs = self.words[-1].end_secs + PAUSE_SECS
        n_steps = int(over_secs / step_secs)
        for nth in range(1, n_steps + 1):
            yield self.at(nth * step_secs)
        yield self.at(over_secs, is_last=True)

    def at(self, at_secs: float, *, is_last: bool = False) -> Hypothesis:
        """What is said once so much was heard."""
        words: list[SpokenWord] = []
        for word in self.words:
            if word.start_secs + _SHOWN_SECS <= at_secs:
                texts = word.heard(np.inf if is_last else at_secs)
                end_secs = min(word.end_secs, at_secs)
                words += _in_turn(texts, word.start_secs, end_secs)
        span = Span(0, _ns(at_secs))
        return Hypothesis(SOURCE, self.number, span, tuple(words), LANGUAGE, is_last)


def script(seed: int, n_words: int) -> list[ScriptedUtterance]:
    """`n_words` words in utterances; the same for the same seed."""
    rng = np.random.default_rng(seed)
    utterances: list[ScriptedUtterance] = []
    while n_words > 0:
        n_here = min(n_words, int(rng.integers(*_N_IN_UTTERANCE)))
        utterances.append(ScriptedUtterance(len(utterances), _words(rng, n_here)))
        n_words -= n_here
    return utterances


def _words(rng: np.random.Generator, n_words: int) -> tuple[ScriptedWord, ...]:
    lengths = np.maximum(_LEAST_SECS, _WORD_SECS * rng.lognormal(-0.1, 0.45, n_words))
    gaps = np.where(rng.random(n_words) < _P_GAP, rng.random(n_words) * _MOST_GAP_SECS, 0.0)
    starts = np.cumsum(lengths + gaps) - lengths
    ends = starts + lengths
    settled = _settled(rng, starts, ends)
    which = rng.zipf(1.3, n_words) % _N_WORDS
    kinds = rng.random(n_words)
    return tuple(
        ScriptedWord(
            text=f"w{which[nth]}",
            start_secs=float(starts[nth]),
            end_secs=float(ends[nth]),
            settled_secs=float(settled[nth]),
            changes_secs=_changes(rng, float(starts[nth]), float(settled[nth])),
            missing=bool(kinds[nth] < _P_MISSING),
            split=bool(kinds[nth] > 1 - _P_SPLIT),
        )
        for nth in range(n_words)
    )


def _settled(rng: np.random.Generator, starts: Secs, ends: Secs) -> Secs:
    """When each word is right for good; those that are from the beginning: at once."""
    n_words = len(ends)
    unsettled = rng.random(n_words) < P_UNSETTLED
    settled = np.where(unsettled, ends + rng.exponential(SETTLING_SECS, n_words), starts)
    along = rng.random(n_words) < P_ALONG
    for nth in range(n_words - 2, -1, -1):
        if along[nth] and unsettled[nth] and unsettled[nth + 1]:
            settled[nth] = max(settled[nth], settled[nth + 1])
    return settled


def _changes(rng: np.random.Generator, from_secs: float, until_secs: float) -> tuple[float, ...]:
    changes: list[float] = []
    at_secs = from_secs + float(rng.exponential(CHANGE_SECS))
    while at_secs < until_secs:
        changes.append(at_secs)
        at_secs += float(rng.exponential(CHANGE_SECS))
    return tuple(changes)


def _in_turn(texts: Sequence[str], start_secs: float, end_secs: float) -> Iterator[SpokenWord]:
    length_secs = (end_secs - start_secs) / max(1, len(texts))
    for nth, text in enumerate(texts):
        begin = start_secs + nth * length_secs
        yield SpokenWord(text, Span(_ns(begin), _ns(begin + length_secs)), confidence=1.0)


def _ns(secs: float) -> int:
    return round(secs * NS_PER_SEC)
