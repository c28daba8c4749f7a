"""What is said: cuts utterances, has them recognised beside the worker, commits their words.

    hop + speech -> UtteranceCutter -> Take -> Beside -> Hypothesis -> guards -> CommitPolicy
                                                                        -> Spoken, TimedText

For live sources nothing is waited for: what has come back goes into the next `Scores`. For others
each take is waited for, so that a replay says the same each time.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from mmstream.clock import Clock
from mmstream.detectors.speech import SPEECH, SPEECH_RATE_HZ
from mmstream.media import (
    Hop,
    Hypothesis,
    Scores,
    Series,
    Span,
    Spoken,
    Take,
    TimedText,
    secs_to_ns,
)
from mmstream.metrics import StageMetrics
from mmstream.recognition.backlog import Job
from mmstream.recognition.beside import Answer, Beside
from mmstream.recognition.guards import guarded
from mmstream.recognition.utterances import CuttingRules, Utterance, UtteranceCutter
from mmstream.stages import CommitPolicy, Load, Recogniser, RecogniserSpec

_log = logging.getLogger(__name__)

_PATIENCE_SECS: Final = 0.5
"""How long the end of a live source waits for its last words."""
_KEEPS_UP: Final = 0.9


class Transcriber:
    """Says what is said (`Scorer`, `Finishing`, `Reporting`)."""

    def __init__(
        self,
        spec: RecogniserSpec,
        device: str,
        rules: CuttingRules,
        new_policy: Callable[[], CommitPolicy],
        clock: Clock,
    ) -> None:
        """Build the recogniser on its thread, and wait for it.

        Raises:
            ScorerError: what it needs is not there.
        """
        self._name = spec.name
        self._partial_ns = secs_to_ns(spec.partial_secs)
        self._rules = rules
        self._new_policy = new_policy
        self._metrics = StageMetrics("speech_to_text")
        self._beside: Beside[Take, Hypothesis] = Beside(
            "speech_to_text", lambda: _Recognising(spec.build(device)), self._metrics, clock
        )
        self._speakers: dict[str, _Speaker] = {}
        self._problem: str | None = None

    @property
    def metrics(self) -> StageMetrics:
        """Takes in, hypotheses out, their delays; drops by reason, also words (`guard_...`)."""
        return self._metrics

    @property
    def problems(self) -> Sequence[str]:
        """That the recogniser is slower than a live source."""
        factor = self._metrics.realtime_factor
        is_live = any(speaker.is_live for speaker in self._speakers.values())
        if factor is None or not is_live or factor < _KEEPS_UP:
            self._problem = None
        elif factor > 1 and self._problem is None:
            self._problem = (
                f"{self._name} is slower than the sound: it takes {factor:.1f} s for each second; "
                "captions fall behind: choose a smaller or faster recogniser, fewer sources or a "
                "faster machine"
            )
        return () if self._problem is None else (self._problem,)

    def score(self, hops: Sequence[Hop], so_far: Sequence[Scores], load: Load) -> Sequence[Scores]:
        """Take the hops' sound; say what became known, maybe of sound before.

        Raises:
            ScorerError: the recogniser has failed, or the pipeline does not run at 16 kHz.
        """
        return [self._score(hop, sc, load) for hop, sc in zip(hops, so_far, strict=True)]

    def finish(self, source: str, *, live: bool) -> Scores | None:
        """End what is being said and wait for its last words, of a live source half a second.

        What does not come in time ends with the words of its latest hypothesis.

        Raises:
            ScorerError: the recogniser has failed.
        """
        speaker = self._speakers.get(source)
        if speaker is None:
            return None
        self._ask(speaker, speaker.cutter.flush(), Load.FULL)
        self._beside.wait(source, _PATIENCE_SECS if live else None)
        said = self._said(speaker)
        for number in list(speaker.asked):
            self._metrics.drop("final_given_up")
            said = said.plus(self._given_up(speaker, number))
        if not said.spoken:
            return None
        at = Span(speaker.end_ns, speaker.end_ns)
        return Scores(source, speaker.index + 1, at, texts=said.texts, spoken=said.spoken)

    def forget(self, source: str) -> None:
        """Drop what is known of the source; what still comes of it is nobody's."""
        if self._speakers.pop(source, None) is not None:
            self._beside.forget(source)

    def close(self) -> None:
        """Let the recogniser go; nothing may follow."""
        self._beside.close()

    def _score(self, hop: Hop, so_far: Scores, load: Load) -> Scores:
        speaker = self._speakers.get(hop.source)
        if speaker is None:
            speaker = _Speaker(hop.source, UtteranceCutter(self._rules))
            self._speakers[hop.source] = speaker
        speaker.is_live, speaker.index, speaker.end_ns = hop.live, hop.index, hop.span.end_ns
        speech: Series | None = so_far.outputs.get(SPEECH.name)
        self._ask(speaker, speaker.cutter.push(hop, speech), load)
        if not hop.live:
            self._beside.wait(hop.source)
        said = self._said(speaker)
        return Scores(hop.source, hop.index, hop.span, texts=said.texts, spoken=said.spoken)

    def _ask(self, speaker: "_Speaker", utterances: Sequence[Utterance], load: Load) -> None:
        """Have those recognised that are over, and the open one if enough of it is new."""
        for utterance in utterances:
            asked = speaker.asked.get(utterance.number)
            if asked is None:
                asked = _Asked(self._new_policy(), utterance.start_ns)
                speaker.asked[utterance.number] = asked
            asked.speech = utterance.speech
            take = _take(speaker.source, utterance)
            new_ns = take.span.end_ns - asked.until_ns
            is_due = load is not Load.INGEST and new_ns > 0 and new_ns >= self._partial_ns
            if take.is_last or is_due:
                asked.until_ns = take.span.end_ns
                job = Job(speaker.source, take, take.span, must_be_done=take.is_last)
                self._beside.put(job)

    def _said(self, speaker: "_Speaker") -> "_Said":
        said = _Said()
        for answer in self._beside.collect(speaker.source):
            said = said.plus(self._understood(speaker, answer))
        return said

    def _understood(self, speaker: "_Speaker", answer: Answer[Take, Hypothesis]) -> "_Said":
        number = answer.job.what.utterance
        if answer.result is None:
            _log.warning(
                "%s: %s is minutes behind: gave up an utterance of %.1f s",
                speaker.source,
                self._name,
                answer.job.span.duration_ns / 1e9,
            )
            return self._given_up(speaker, number)
        asked = speaker.asked.get(number)
        if asked is None:
            self._metrics.drop("late_result")
            return _Said()
        kept = guarded(answer.result, asked.speech)
        if kept.reason is not None and kept.reason not in asked.reasons:
            asked.reasons.add(kept.reason)
            self._metrics.drop(f"guard_{kept.reason}")
        return self._committed(speaker, number, kept.hypothesis)

    def _given_up(self, speaker: "_Speaker", number: int) -> "_Said":
        """End an utterance with what is known of it."""
        asked = speaker.asked.get(number)
        if asked is None:
            return _Said()
        if asked.latest is None:
            del speaker.asked[number]
            return _Said()
        return self._committed(speaker, number, replace(asked.latest, is_last=True))

    def _committed(self, speaker: "_Speaker", number: int, hypothesis: Hypothesis) -> "_Said":
        asked = speaker.asked[number]
        asked.latest = hypothesis
        spoken = asked.policy.push(hypothesis)
        if spoken.is_last:
            del speaker.asked[number]
        new = spoken.words[asked.n_committed : spoken.n_committed]
        asked.n_committed = spoken.n_committed
        texts = tuple(TimedText(word.span, word.text) for word in new)
        before, asked.spoken = asked.spoken, spoken
        return _Said((spoken,) if _is_news(before, spoken) else (), texts)


@dataclass(slots=True)
class _Asked:
    """An utterance whose last hypothesis has not come."""

    policy: CommitPolicy
    until_ns: int
    """How much of it was given to the recogniser."""
    speech: float = 0.0
    n_committed: int = 0
    latest: Hypothesis | None = None
    spoken: Spoken | None = None
    """What was said of it last."""
    reasons: set[str] = field(default_factory=set)
    """Why words of it were dropped."""


@dataclass(slots=True)
class _Speaker:
    """What is known of one source."""

    source: str
    cutter: UtteranceCutter
    asked: dict[int, _Asked] = field(default_factory=dict)
    """By number."""
    is_live: bool = False
    index: int = 0
    end_ns: int = 0


@dataclass(frozen=True, slots=True)
class _Said:
    spoken: tuple[Spoken, ...] = ()
    texts: tuple[TimedText, ...] = ()

    def plus(self, other: "_Said") -> "_Said":
        return _Said(self.spoken + other.spoken, self.texts + other.texts)


@dataclass(frozen=True, slots=True)
class _Recognising:
    """A recogniser as the thread's `Craft`."""

    recogniser: Recogniser

    def do(self, takes: Sequence[Take], /) -> Sequence[Hypothesis]:
        return self.recogniser.recognise(takes)

    def forget(self, source: str, /) -> None:
        self.recogniser.forget(source)

    def close(self) -> None:
        self.recogniser.close()


def _is_news(before: Spoken | None, now: Spoken) -> bool:
    if before is None:
        return bool(now.words)
    return (now.words, now.n_committed, now.is_last) != (
        before.words,
        before.n_committed,
        before.is_last,
    ) and bool(now.words or before.words)


def _take(source: str, utterance: Utterance) -> Take:
    return Take(
        source,
        utterance.number,
        utterance.start_ns,
        SPEECH_RATE_HZ,
        utterance.samples,
        utterance.is_last,
    )
