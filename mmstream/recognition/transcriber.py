"""What is said: cuts utterances, has them recognised beside the worker, commits their words.

    hop + speech -> UtteranceCutter -> Take -> Beside -> Hypothesis -> guards -> CommitPolicy
                                                                        -> Spoken, TimedText

For live sources nothing is waited for: what has come back goes into the next `Scores`. For others
each take is waited for, so that a replay says the same each time; beside a live source only so long
that this one is not scored late for it: words of the file may then come some hops later, and of
speech that the recogniser is five minutes behind they are given up (`backlog`).

A recogniser that fails stops a replay. Where a live source is there, captions fail alone: what is
said meanwhile is lost and counted (`failed`), all else goes on, and it is built again after a
pause. What is wrong is a line of `problems`, which the worker logs.

Under overload (`Load.INGEST`) nothing is scored, so no speech can begin: of a sentence that begins
then only the pre-roll of 0.3 s before the first scored window is heard. One that is open goes on,
and is asked about when it ends.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from mmstream.clock import Clock
from mmstream.detectors.speech import SPEECH, SPEECH_RATE_HZ
from mmstream.media import (
    NS_PER_SEC,
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
"""How long live sources that end together wait for their last words."""
_LEAST_PATIENCE_SECS: Final = 0.05
_TOGETHER_SECS: Final = 0.1
_BESIDE_LIVE_SECS: Final = 0.4
"""How long a hop of a file waits for its words beside a live source: that one's hops are
degraded when they are half a second old (`WorkerSettings.stale_secs`)."""
_END_BESIDE_LIVE_SECS: Final = 2.0
"""The same, of its end: the live one's hops queue for 4 s before any is dropped."""
_TELLS_SECS: Final = 30.0
"""A replay that waits so long for one answer says so."""
_LATE_SECS: Final = 5.0
"""Words that come later than this after their sound are a problem."""
_HANGS_SECS: Final = 30.0
_GOOD_AGAIN_SECS: Final = 20.0
"""So long nothing must be late for that to be over."""


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
        self._clock = clock
        self._speakers: dict[str, _Speaker] = {}
        self._lateness = _Lateness()
        self._patient_until_ns = 0
        """How long the last end of a live source waited at most."""
        self._finished_ns: int | None = None
        """When it was over."""

    @property
    def metrics(self) -> StageMetrics:
        """Takes in, hypotheses out; drops by reason, also words (`guard_...`).

        Latencies: from the time at which sound came here to that of its hypothesis. One that waits
        for an earlier answer and is replaced by a newer take passes its age on.
        """
        return self._metrics

    @property
    def problems(self) -> Sequence[str]:
        """That words of live sources come late, or not at all, and what to do about it."""
        found = []
        if (failure := self._beside.failure) is not None:
            found.append(f"no captions of speech until it works again, all else goes on: {failure}")
        if self._lateness.text is not None:
            found.append(self._lateness.text)
        if self._beside.busy_secs >= _HANGS_SECS:
            found.append(
                f"{self._name} has not answered for {_HANGS_SECS:.0f} s: captions of speech stand "
                "still until it does; if it never does, start mmstream again"
            )
        return found

    def score(self, hops: Sequence[Hop], so_far: Sequence[Scores], load: Load) -> Sequence[Scores]:
        """Take the hops' sound; say what became known, maybe of sound before.

        Raises:
            ScorerError: the recogniser has failed and no source is live, or the pipeline does not
                run at 16 kHz.
        """
        return [self._score(hop, sc, load) for hop, sc in zip(hops, so_far, strict=True)]

    def finish(self, source: str, *, live: bool) -> Scores | None:
        """End what is being said and wait for its last words, of a live source half a second.

        What does not come in time ends with the words of its latest hypothesis. Sources that end
        together share the half second.

        Raises:
            ScorerError: the recogniser has failed and no source is live.
        """
        speaker = self._speakers.get(source)
        if speaker is None:
            return None
        self._ask(speaker, speaker.cutter.flush(), Load.FULL)
        if live:
            self._wait_in_company(source)
        else:
            self._wait(source, _END_BESIDE_LIVE_SECS)
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
        if not self._has_live:
            self._lateness = _Lateness()

    def close(self) -> None:
        """Let the recogniser go; nothing may follow."""
        self._beside.close()

    @property
    def _has_live(self) -> bool:
        return any(speaker.is_live for speaker in self._speakers.values())

    def _score(self, hop: Hop, so_far: Scores, load: Load) -> Scores:
        speaker = self._speakers.get(hop.source)
        if speaker is None:
            speaker = _Speaker(hop.source, UtteranceCutter(self._rules))
            self._speakers[hop.source] = speaker
        speaker.is_live, speaker.index, speaker.end_ns = hop.live, hop.index, hop.span.end_ns
        speech: Series | None = so_far.outputs.get(SPEECH.name)
        self._ask(speaker, speaker.cutter.push(hop, speech), load)
        if not hop.live:
            self._wait(hop.source, _BESIDE_LIVE_SECS)
        said = self._said(speaker)
        self._look(speaker)
        return Scores(hop.source, hop.index, hop.span, texts=said.texts, spoken=said.spoken)

    def _wait(self, source: str, beside_live_secs: float) -> None:
        """For all words of a file; beside a live source no longer than that."""
        if self._has_live:
            self._beside.wait(source, beside_live_secs)
            return
        n_times = 0
        while not self._beside.wait(source, _TELLS_SECS):
            n_times += 1
            _log.warning(
                "%s: %s has not answered for %d s", source, self._name, n_times * _TELLS_SECS
            )
        self._beside.wait(source)

    def _wait_in_company(self, source: str) -> None:
        now_ns = self._clock.monotonic_ns()
        before_ns = self._finished_ns
        if before_ns is None or now_ns - before_ns > secs_to_ns(_TOGETHER_SECS):
            self._patient_until_ns = now_ns + secs_to_ns(_PATIENCE_SECS)
        left_secs = (self._patient_until_ns - now_ns) / NS_PER_SEC
        self._beside.wait(source, max(_LEAST_PATIENCE_SECS, left_secs))
        self._finished_ns = self._clock.monotonic_ns()

    def _look(self, speaker: "_Speaker") -> None:
        """Whether the words of a live source come late."""
        if not speaker.is_live:
            return
        behind_secs = max(speaker.behind_secs, self._beside.behind_secs(speaker.source))
        speaker.behind_secs = 0.0
        n_voices = sum(bool(one.asked) for one in self._speakers.values())
        self._lateness.see(behind_secs, n_voices, self._name, self._clock.monotonic_ns())

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
            speaker.behind_secs = max(speaker.behind_secs, answer.took_secs)
            said = said.plus(self._understood(speaker, answer))
        return said

    def _understood(self, speaker: "_Speaker", answer: Answer[Take, Hypothesis]) -> "_Said":
        number = answer.job.what.utterance
        if answer.result is None:
            if not answer.job.must_be_done:
                return _Said()  # the next take has all that this one had
            if self._beside.failure is None:
                _log.warning(
                    "%s: %s is minutes behind: gave up an utterance of %.1f s",
                    speaker.source,
                    self._name,
                    answer.job.span.duration_ns / NS_PER_SEC,
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
    behind_secs: float = 0.0
    """The longest that an answer took since this was looked at."""


@dataclass(slots=True)
class _Lateness:
    """Whether words of live sources come late; said once until it is over."""

    text: str | None = None
    _late_ns: int = 0

    def see(self, behind_secs: float, n_voices: int, name: str, now_ns: int) -> None:
        if behind_secs >= _LATE_SECS:
            self._late_ns = now_ns
            self.text = self.text or (
                f"captions of speech come {behind_secs:.0f} s late: {name} does not keep up with "
                f"{_voices(n_voices)} on this machine; choose a smaller or faster recogniser, "
                "fewer sources or a faster machine"
            )
        elif now_ns - self._late_ns >= secs_to_ns(_GOOD_AGAIN_SECS):
            self.text = None


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


def _voices(n: int) -> str:
    return f"{n} sources that speak at once" if n > 1 else "what is said"


def _is_news(before: Spoken | None, now: Spoken) -> bool:
    if before is None:
        return bool(now.words)
    says, said = ((one.words, one.n_steady, one.n_committed, one.is_last) for one in (now, before))
    return says != said and bool(now.words or before.words)


def _take(source: str, utterance: Utterance) -> Take:
    return Take(
        source,
        utterance.number,
        utterance.start_ns,
        SPEECH_RATE_HZ,
        utterance.samples,
        utterance.is_last,
    )
