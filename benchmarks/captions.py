"""Commit policies: how late words are, and how many of those that stay are wrong.

A scripted recogniser (see `captions_script`) is asked every 0.125, 0.25 and 0.5 s of sound. How
much evidence ours asks for is chosen on some seeds, so that its delay is no more than that of
local agreement of two; what it gives then is measured on others. A word is wrong where what was
committed is not what the last hypothesis says; delays are from a word's end to its commit, in
seconds of sound.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from mmstream.benchmarks.captions_script import script
from mmstream.benchmarks.captions_trial import Tried, attempt
from mmstream.media import Hypothesis
from mmstream.recognition.commit import CommitSettings, Evidence, LocalAgreement
from mmstream.stages import CommitPolicy

STEPS_SECS: Final = (0.125, 0.25, 0.5)
HOP_SECS: Final = STEPS_SECS[0]
"""A recogniser that decodes only what is new is asked this often."""
AGREED_SECS: Final = STEPS_SECS[1:]
"""Steps at which local agreement is compared."""
TUNED_ON: Final = tuple(range(4))
REPORTED_ON: Final = tuple(range(100, 112))
N_WORDS: Final = 600
TRIED_SECS: Final = tuple(round(0.1 + 0.05 * nth, 2) for nth in range(23))
CURVE_SECS: Final = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
By = Literal["p50", "mean", "p95"]
BYS: Final[tuple[By, ...]] = ("p50", "mean", "p95")

_N_RESAMPLED: Final = 2_000
_CERTAIN: Final = 2.5, 97.5

Heard = Sequence[Sequence[Hypothesis]]
"""The hypotheses of each utterance."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Point(_Record):
    """One policy at one step."""

    policy: Literal["agreement", "evidence"]
    parameter: float
    """Hypotheses that agree, or seconds of evidence."""
    step_secs: float
    delay_p50_secs: float
    delay_mean_secs: float
    delay_p95_secs: float
    n_words: int
    wrong_per_600: float
    retracted_per_100: float
    """Of 100 words, how often one was changed after it was shown."""

    def delay_secs(self, by: By) -> float:
        """The delay that is compared."""
        delays = (self.delay_p50_secs, self.delay_mean_secs, self.delay_p95_secs)
        return delays[BYS.index(by)]


class Beside(_Record):
    """Evidence beside local agreement of two, where the delay is no more on the tuning seeds."""

    equal: By
    agreement: Point
    evidence: Point
    fewer_wrong: float
    """Per 600 words: what agreement has more."""
    fewer_wrong_low: float
    """95 % lie between this and the next, by resampling of seeds."""
    fewer_wrong_high: float


class Captions(_Record):
    """What was measured; all figures but the choice of evidence are of `reported_on`."""

    tuned_on: tuple[int, ...]
    reported_on: tuple[int, ...]
    n_words: int
    """Of each seed."""
    default_secs: float
    """What `CommitSettings` asks for."""
    curve: tuple[Point, ...]
    beside: tuple[Beside, ...]


@dataclass(frozen=True, slots=True)
class _Policy:
    kind: Literal["agreement", "evidence"]
    parameter: float

    @property
    def build(self) -> Callable[[], CommitPolicy]:
        if self.kind == "agreement":
            return lambda: LocalAgreement(int(self.parameter))
        return lambda: Evidence(self.parameter)


_TWO: Final = _Policy("agreement", 2)
_CURVE: Final = (
    _TWO,
    _Policy("agreement", 3),
    *(_Policy("evidence", secs) for secs in CURVE_SECS),
)


def measure(
    tuned_on: Sequence[int] = TUNED_ON,
    reported_on: Sequence[int] = REPORTED_ON,
    n_words: int = N_WORDS,
) -> Captions:
    """Choose on some seeds, measure on the others."""
    tuning, reporting = _heard(tuned_on, n_words), _heard(reported_on, n_words)
    tuned = {step: _tried(tuning[step], step) for step in STEPS_SECS}
    return Captions(
        tuned_on=tuple(tuned_on),
        reported_on=tuple(reported_on),
        n_words=n_words,
        default_secs=CommitSettings().steady_secs,
        curve=tuple(
            _point(policy, step, _runs(reporting[step], policy))
            for step in STEPS_SECS
            for policy in _CURVE
        ),
        beside=tuple(
            _beside(by, agreed_secs, step, tuned, reporting)
            for agreed_secs in AGREED_SECS
            for step in (agreed_secs, HOP_SECS)
            for by in BYS
        ),
    )


def table(figures: Captions) -> str:
    """The curve, and both policies at equal delay."""
    lines = [
        f"{len(figures.reported_on)} seeds of {figures.n_words} words; delays in seconds of sound",
        "step   policy            p50    mean   p95    wrong/600  retracted/100",
    ]
    lines += [_row(point) for point in figures.curve]
    lines.append("at equal delay: agreement of two beside evidence, wrong of 600")
    lines += [_row_beside(one) for one in figures.beside]
    return "\n".join(lines)


def _row(point: Point) -> str:
    policy = f"{point.policy} {point.parameter:g}"
    return (
        f"{point.step_secs:<6g} {policy:<17} {point.delay_p50_secs:<6.2f} "
        f"{point.delay_mean_secs:<6.2f} {point.delay_p95_secs:<6.2f} "
        f"{point.wrong_per_600:<10.1f} {point.retracted_per_100:.0f}"
    )


def _row_beside(one: Beside) -> str:
    theirs, ours = one.agreement, one.evidence
    return (
        f"{one.equal:<5} {theirs.delay_secs(one.equal):.2f} s, {theirs.wrong_per_600:5.1f} at "
        f"steps of {theirs.step_secs:g} s | {ours.delay_secs(one.equal):.2f} s, "
        f"{ours.wrong_per_600:5.1f} at {ours.step_secs:g} s, evidence {ours.parameter:g} s; "
        f"fewer: {one.fewer_wrong:.1f} [{one.fewer_wrong_low:.1f}, {one.fewer_wrong_high:.1f}]"
    )


def _heard(seeds: Sequence[int], n_words: int) -> Mapping[float, list[Heard]]:
    scripts = [script(seed, n_words) for seed in seeds]
    return {
        step: [[list(one.hypotheses(step)) for one in utterances] for utterances in scripts]
        for step in STEPS_SECS
    }


def _tried(heard: Sequence[Heard], step: float) -> list[Point]:
    policies = [_TWO, *(_Policy("evidence", secs) for secs in TRIED_SECS)]
    return [_point(policy, step, _runs(heard, policy)) for policy in policies]


def _runs(heard: Sequence[Heard], policy: _Policy) -> list[Tried]:
    return [attempt(one, policy.build) for one in heard]


def _point(policy: _Policy, step: float, runs: Sequence[Tried]) -> Point:
    delays = np.concatenate([run.delays_secs for run in runs])
    n_words = sum(run.n_words for run in runs)
    p50, p95 = np.percentile(delays, [50, 95])
    return Point(
        policy=policy.kind,
        parameter=policy.parameter,
        step_secs=step,
        delay_p50_secs=round(float(p50), 3),
        delay_mean_secs=round(float(delays.mean()), 3),
        delay_p95_secs=round(float(p95), 3),
        n_words=n_words,
        wrong_per_600=round(600 * sum(run.n_wrong for run in runs) / n_words, 2),
        retracted_per_100=round(100 * sum(run.n_retracted for run in runs) / n_words, 1),
    )


def _beside(
    by: By,
    agreed_secs: float,
    step: float,
    tuned: Mapping[float, Sequence[Point]],
    reporting: Mapping[float, Sequence[Heard]],
) -> Beside:
    most_secs = tuned[agreed_secs][0].delay_secs(by)
    chosen = choose(tuned[step][1:], by, most_secs)
    policy = _Policy("evidence", chosen.parameter)
    theirs, ours = _runs(reporting[agreed_secs], _TWO), _runs(reporting[step], policy)
    fewer = np.array([_per_600(one) - _per_600(two) for one, two in zip(theirs, ours, strict=True)])
    rng = np.random.default_rng(0)
    resampled = rng.choice(fewer, (_N_RESAMPLED, len(fewer))).mean(axis=1)
    low, high = np.percentile(resampled, _CERTAIN)
    return Beside(
        equal=by,
        agreement=_point(_TWO, agreed_secs, theirs),
        evidence=_point(policy, step, ours),
        fewer_wrong=round(float(fewer.mean()), 2),
        fewer_wrong_low=round(float(low), 2),
        fewer_wrong_high=round(float(high), 2),
    )


def choose(points: Sequence[Point], by: By, most_secs: float) -> Point:
    """The one with the fewest wrong words whose delay is no more; if none, the quickest."""
    allowed = [point for point in points if point.delay_secs(by) <= most_secs]
    if not allowed:
        return min(points, key=lambda point: point.delay_secs(by))
    return min(allowed, key=lambda point: (point.wrong_per_600, point.delay_secs(by)))


def _per_600(run: Tried) -> float:
    return 600 * run.n_wrong / run.n_words
