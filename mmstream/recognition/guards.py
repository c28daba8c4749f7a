"""Against invented text: words that a recogniser makes of noise, of silence or of itself. Pure.

Three rules, each about a whole hypothesis:

* **no speech**: the sound was hardly speech, or was it weakly and the recogniser is unsure too (the
  rule of Whisper, Radford et al. 2022 section 4.5, with Silero in place of its own `no_speech`);
* **repetition**: one phrase again and again is said once; text that packs better than any real one
  (Whisper's limit of 2.4) is none;
* **speed**: more words than anybody can say in the time.

No phrase is refused for what it says.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from mmstream.media import NS_PER_SEC, Hypothesis, SpokenWord

Reason = Literal["no_speech", "repetition", "too_fast"]

_HARDLY_SPEECH: Final = 0.4
_WEAK_SPEECH: Final = 0.55
_UNSURE: Final = 0.37
"""exp(-1): Whisper's limit for the mean logarithm of its probabilities."""
_MOST_PACKED: Final = 2.4
_LONGEST_PHRASE: Final = 12
"""Words."""
_MOST_PHRASES: Final = 3
"""How often people say a phrase of two words or more in a row."""
_MOST_WORDS: Final = 7
"""How often they say a word in a row: `no, no, no, no`, `oh oh oh`, the digits of a number."""
_WORDS_PER_SEC: Final = 7.0
_WORDS_TO_SPARE: Final = 3
"""More than that speed allows: short words in a short time prove nothing."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """What is left of a hypothesis."""

    hypothesis: Hypothesis
    reason: Reason | None
    """Why some or all of its words are gone; None: they are all there."""


def guarded(hypothesis: Hypothesis, speech: float) -> Guarded:
    """The hypothesis without what is invented; `speech` is the mean probability of speech, 0..1."""
    words = hypothesis.words
    if not words:
        return Guarded(hypothesis, None)
    if _is_no_speech(words, speech):
        return Guarded(replace(hypothesis, words=()), "no_speech")
    if len(words) > hypothesis.span.duration_ns / NS_PER_SEC * _WORDS_PER_SEC + _WORDS_TO_SPARE:
        return Guarded(replace(hypothesis, words=()), "too_fast")
    once = _said_once(words)
    if _packs_too_well(once):
        return Guarded(replace(hypothesis, words=()), "repetition")
    return Guarded(
        replace(hypothesis, words=once), "repetition" if len(once) < len(words) else None
    )


def _is_no_speech(words: Sequence[SpokenWord], speech: float) -> bool:
    confidence = sum(word.confidence for word in words) / len(words)
    return speech < _HARDLY_SPEECH or (speech < _WEAK_SPEECH and confidence < _UNSURE)


def _said_once(words: Sequence[SpokenWord]) -> tuple[SpokenWord, ...]:
    """Without the repetitions of phrases that are said more often in a row than people do."""
    plain = [_plain(word) for word in words]
    kept: list[SpokenWord] = []
    at = 0
    while at < len(words):
        n_words, n_times = _repeated(plain, at)
        kept.extend(words[at : at + n_words])
        at += n_words * n_times
    return tuple(kept)


def _repeated(plain: Sequence[str], at: int) -> tuple[int, int]:
    """How many words the phrase at `at` has and how often it is said; (1, 1): nothing special."""
    for n_words in range(1, min(_LONGEST_PHRASE, (len(plain) - at) // 2) + 1):
        phrase, n_times = plain[at : at + n_words], 1
        while plain[at + n_times * n_words : at + (n_times + 1) * n_words] == phrase:
            n_times += 1
        if n_times > (_MOST_WORDS if len(set(phrase)) == 1 else _MOST_PHRASES):
            return n_words, n_times
    return 1, 1


def _packs_too_well(words: Sequence[SpokenWord]) -> bool:
    text = " ".join(word.text for word in words).encode()
    return len(text) > _MOST_PACKED * len(zlib.compress(text))


def _plain(word: SpokenWord) -> str:
    return "".join(sign for sign in word.text.casefold() if sign.isalnum()) or word.text
