"""One commit policy on one series of hypotheses: how late its words are, and how many wrong."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from mmstream.media import NS_PER_SEC, Hypothesis, SpokenWord
from mmstream.recognition.commit import key
from mmstream.stages import CommitPolicy


@dataclass(slots=True)
class Tried:
    """What came of some utterances."""

    delays_secs: list[float] = field(default_factory=list)
    """Of each word: from its end to its commit, seconds of sound."""
    n_words: int = 0
    """What the last hypotheses say."""
    n_wrong: int = 0
    """Words that had to be changed, left out or put in for it to be that (edit distance)."""
    n_retracted: int = 0
    """Words that were shown and then changed or gone."""

    def add(self, other: "Tried") -> None:
        """Take in what came of others."""
        self.delays_secs += other.delays_secs
        self.n_words += other.n_words
        self.n_wrong += other.n_wrong
        self.n_retracted += other.n_retracted


def attempt(utterances: Iterable[Sequence[Hypothesis]], build: Callable[[], CommitPolicy]) -> Tried:
    """Each utterance's hypotheses, the last of them its last, through a policy of its own."""
    tried = Tried()
    for hypotheses in utterances:
        tried.add(_one(hypotheses, build()))
    return tried


def _one(hypotheses: Sequence[Hypothesis], policy: CommitPolicy) -> Tried:
    tried = Tried()
    n_committed = 0
    shown: list[str] = []
    for hypothesis in hypotheses:
        spoken = policy.push(hypothesis)
        for word in spoken.words[n_committed : spoken.n_committed]:
            late_ns = hypothesis.span.end_ns - word.span.end_ns
            tried.delays_secs.append(max(0, late_ns) / NS_PER_SEC)
        n_committed = spoken.n_committed
        now = _keys(spoken.words)
        tried.n_retracted += sum(
            nth >= len(now) or now[nth] != word for nth, word in enumerate(shown)
        )
        shown = now
    truth = _keys(hypotheses[-1].words)
    tried.n_words = len(truth)
    tried.n_wrong = _n_edits(shown, truth)
    return tried


def _keys(words: Sequence[SpokenWord]) -> list[str]:
    return [key(word.text) for word in words]


def _n_edits(one: Sequence[str], other: Sequence[str]) -> int:
    costs = list(range(len(other) + 1))
    for nth, left in enumerate(one, 1):
        row = [nth]
        for at, right in enumerate(other):
            row.append(min(costs[at] + (left != right), costs[at + 1] + 1, row[at] + 1))
        costs = row
    return costs[-1]
