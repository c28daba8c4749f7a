"""Which words of an utterance stay: local agreement, and evidence in audio time.

A recogniser revises its last words as more is heard; a caption that changes under the reader's
eyes cannot be read. A policy gives up words one by one, in order, and takes none back.

Two of them work together (`Settling`): words become steady soon, so that what is shown stands
still, and are committed much later or at the end of the utterance, for then the recogniser has
heard the whole of it and knows better (docs/captioning.md has what that is worth).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Protocol

from pydantic import Field

from mmstream.config import Settings
from mmstream.media import NS_PER_SEC, Hypothesis, Span, Spoken, SpokenWord
from mmstream.stages import CommitPolicy

BEHIND_WEIGHT: Final = 0.5

_N_TAIL: Final = 12
"""Where the recogniser contradicts itself, so many of the last committed words are looked for."""
_GAP: Final = 1.0
"""What it costs that one side lacks a word; the costs below are beside it."""
_OTHER_TEXT: Final = 0.5
_NO_PAIR: Final = 2 * _GAP + 1
_MOST_APART: Final = 2.0


class CommitSettings(Settings):
    """How certain a word must be before it stays; the spec of `Settling`."""

    steady_secs: float = Field(default=0.75, ge=0, le=10)
    """Seconds of sound that must speak for a word, as `Evidence` counts them, before it is
    shown for good. More: later, and fewer that turn out wrong; see docs/captioning.md."""
    commit_secs: float = Field(default=5.0, ge=0, le=60)
    """The same, before nothing changes it any more, unless the utterance ends sooner."""

    def build(self) -> CommitPolicy:
        """A new policy, for one utterance."""
        return Settling(Evidence(self.steady_secs), Evidence(self.commit_secs))


class _Certain(Protocol):
    """What tells policies apart."""

    def count(self, rest: Sequence[SpokenWord], keys: Sequence[str], heard_ns: int) -> int:
        """How many of the words behind the committed ones may stay; the count then drops them."""
        ...


class _Committing:
    """What policies have in common: committed words stay, the rest follows them."""

    def __init__(self, certain: _Certain) -> None:
        self._certain = certain
        self._committed: list[SpokenWord] = []

    def push(self, hypothesis: Hypothesis) -> Spoken:
        """Its words, after those that were committed before; at the last all are committed."""
        n_said = said_before(self._committed, hypothesis.words)
        rest = _after(self._committed, hypothesis.words[n_said:])
        keys = [key(word.text) for word in rest]
        n_certain = self._certain.count(rest, keys, hypothesis.span.end_ns)
        n_new = len(rest) if hypothesis.is_last else n_certain
        self._committed += rest[:n_new]
        return Spoken(
            utterance=hypothesis.utterance,
            span=hypothesis.span,
            words=(*self._committed, *rest[n_new:]),
            n_committed=len(self._committed),
            language=hypothesis.language,
            is_last=hypothesis.is_last,
        )


class LocalAgreement(_Committing):
    """The longest common beginning of the last `n` hypotheses stays.

    Macháček et al. 2023, "Turning Whisper into Real-Time Transcription System", section 3, after
    Liu et al. 2020, "Low-Latency Sequence-to-Sequence Speech Recognition and Translation by
    Partial Hypothesis Selection". How long a word waits depends on how often it is asked for.
    """

    def __init__(self, n: int) -> None:
        """`n` is at least 1: what is said once stays."""
        if n < 1:
            msg = f"at least one hypothesis must agree: got {n=}"
            raise ValueError(msg)
        super().__init__(_Agreeing(n))


class Evidence(_Committing):
    """A word stays once enough sound speaks for it, however many hypotheses that took.

    For a word speak the seconds of sound that came
    * since it first appeared at its place: it did not change meanwhile;
    * since its own end, by `BEHIND_WEIGHT`: words settle as what follows them is heard.
    """

    def __init__(self, evidence_secs: float) -> None:
        """Seconds that must speak for a word; 0 or more."""
        super().__init__(_Weighing(evidence_secs))


class Settling:
    """Words are steady once `steady` would commit them, and committed once `final` does."""

    def __init__(self, steady: CommitPolicy, final: CommitPolicy) -> None:
        """Two policies of one utterance, the second of them the more careful."""
        self._steady = steady
        self._final = final

    def push(self, hypothesis: Hypothesis) -> Spoken:
        """What is committed, then what is shown behind it; at the last all is as it says."""
        final, shown = self._final.push(hypothesis), self._steady.push(hypothesis)
        if hypothesis.is_last:
            return replace(final, n_steady=len(final.words))
        committed = final.words[: final.n_committed]
        n_said = said_before(committed, shown.words)
        words = (*committed, *_after(committed, shown.words[n_said:]))
        n_steady = len(committed) + max(0, shown.n_committed - n_said)
        return replace(final, words=words, n_steady=n_steady)


@dataclass(slots=True)
class _Place:
    """What is said at one place behind the committed words."""

    key: str
    since_ns: int
    """How far was heard when it was first said."""


class _Weighing:
    def __init__(self, evidence_secs: float) -> None:
        self._needed_ns = evidence_secs * NS_PER_SEC
        self._places: list[_Place] = []

    def count(self, rest: Sequence[SpokenWord], keys: Sequence[str], heard_ns: int) -> int:
        """As `_Certain.count`."""
        before = self._places
        self._places = [
            before[nth]
            if nth < len(before) and before[nth].key == its
            else _Place(its, since_ns=heard_ns)
            for nth, its in enumerate(keys)
        ]
        n_certain = 0
        while n_certain < len(rest) and self._speaks_ns(n_certain, rest, heard_ns) >= (
            self._needed_ns
        ):
            n_certain += 1
        del self._places[:n_certain]
        return n_certain

    def _speaks_ns(self, nth: int, rest: Sequence[SpokenWord], heard_ns: int) -> float:
        behind_ns = max(0, heard_ns - rest[nth].span.end_ns)
        return heard_ns - self._places[nth].since_ns + BEHIND_WEIGHT * behind_ns


class _Agreeing:
    def __init__(self, n: int) -> None:
        self._n = n
        self._times: list[int] = []
        """How often each place was the same in a row."""
        self._keys: list[str] = []

    def count(self, rest: Sequence[SpokenWord], keys: Sequence[str], heard_ns: int) -> int:  # noqa: ARG002 - a protocol's
        """As `_Certain.count`."""
        known = self._keys
        n_same = 0
        while n_same < min(len(known), len(keys)) and known[n_same] == keys[n_same]:
            n_same += 1
        self._times = [*(times + 1 for times in self._times[:n_same])]
        self._times += [1] * (len(rest) - n_same)
        n_certain = 0
        while n_certain < len(rest) and self._times[n_certain] >= self._n:
            n_certain += 1
        self._keys = list(keys[n_certain:])
        del self._times[:n_certain]
        return n_certain


@lru_cache(maxsize=4096)
def key(text: str) -> str:
    """What of a word is compared: letters and digits without case; of `--` all."""
    bare = "".join(letter for letter in text.casefold() if letter.isalnum())
    return bare or text


def said_before(committed: Sequence[SpokenWord], words: Sequence[SpokenWord]) -> int:
    """How many of the first `words` say what is committed already.

    Mostly they begin alike. Where they do not, the last committed words are aligned to them, by
    text and by time, with as few left over as can be (edit distance; Wagner & Fischer 1974): what
    replaces a committed word is dropped with it, what is new is kept.
    """
    n_alike = 0
    for said, word in zip(committed, words, strict=False):
        if key(said.text) != key(word.text):
            break
        n_alike += 1
    if n_alike == len(committed):
        return n_alike
    tail = committed[max(n_alike, len(committed) - _N_TAIL) :]
    return n_alike + _cheapest(tail, words[n_alike:])


def _cheapest(tail: Sequence[SpokenWord], words: Sequence[SpokenWord]) -> int:
    """How many of `words` fit `tail` best; of equally good ones, the most."""
    costs = [nth * _GAP for nth in range(len(words) + 1)]
    for said in tail:
        row = [costs[0] + _GAP]
        for nth, word in enumerate(words):
            paired = costs[nth] + _apart(said, word)
            row.append(min(paired, costs[nth + 1] + _GAP, row[nth] + _GAP))
        costs = row
    end_ns = tail[-1].span.end_ns
    left_early = [_middle_ns(word) < end_ns for word in words]
    totals = [cost + _GAP * sum(left_early[nth:]) for nth, cost in enumerate(costs)]
    return max(range(len(totals)), key=lambda nth: (-totals[nth], nth))


def _apart(said: SpokenWord, word: SpokenWord) -> float:
    """What it costs to take the one for the other."""
    one, other = said.span, word.span
    if key(said.text) == key(word.text):
        between_ns = max(one.start_ns, other.start_ns) - min(one.end_ns, other.end_ns)
        return min(max(0, between_ns) / NS_PER_SEC, _MOST_APART)
    shorter_ns = min(one.duration_ns, other.duration_ns)
    return _OTHER_TEXT if 2 * one.overlap_ns(other) > shorter_ns else _NO_PAIR


def _middle_ns(word: SpokenWord) -> int:
    return (word.span.start_ns + word.span.end_ns) // 2


def _after(committed: Sequence[SpokenWord], words: Sequence[SpokenWord]) -> list[SpokenWord]:
    """The words, none of them before the end of what is committed."""
    if not committed:
        return list(words)
    end_ns = committed[-1].span.end_ns
    return [
        word
        if word.span.start_ns >= end_ns
        else SpokenWord(word.text, Span(end_ns, max(end_ns, word.span.end_ns)), word.confidence)
        for word in words
    ]
