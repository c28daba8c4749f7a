"""Which threshold an event gets and whether it is told: the rule of `avp_thresholds` at work."""

from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict

from mmstream.benchmarks.avp_listening import Track
from mmstream.benchmarks.avp_sweep import THRESHOLDS, Counts, Swept, matched, summed, sweep
from mmstream.heads.lifecycle import LabelSettings
from mmstream.media import NS_PER_SEC
from mmstream.pipelines.tally import LabelScore, score
from mmstream.pipelines.truth import Judged

TIMINGS: Final = tuple(
    LabelSettings(for_secs=for_secs, within_secs=within_secs)
    for for_secs, within_secs in ((0.25, 0.5), (0.5, 1.0), (0.75, 1.5), (1.0, 2.0))
)
MOST_FALSE_PER_HOUR: Final = 8.0
LEAST_PRECISION: Final = 0.8
LEAST_RECALL: Final = 0.6
ESC10: Final = "esc10/"

_LEFT_TO_OTHERS: Final = ("speech",)
_TAKES: Final = ("av_clips/big_buck_bunny",)
"""Beginnings of names: such recordings are cut from one take."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Figures(_Record):
    """Counts, and what follows from them."""

    n_true: int
    n_hits: int
    n_false_alarms: int
    judged_s: float
    precision: float | None
    recall: float | None
    false_alarms_per_hour: float


class Point(_Record):
    """A threshold and what it gives on all recordings."""

    threshold: float
    n_hits: int
    n_false_alarms: int


class Choice(_Record):
    """What was decided of an event, and why."""

    label: str
    threshold: float
    told: bool
    reason: str
    """Why it is not told; empty if it is."""
    everywhere: LabelScore
    """What was found, missed and made up on all recordings, and when."""
    esc10: Figures
    """Of that, on fold 5 of ESC-10, a class a clip: false alarms are confusions."""
    others: Figures
    """Of that, on all other recordings."""
    left_out: Figures
    """Each recording judged by a threshold that was chosen without it."""
    curve: tuple[Point, ...]


class Timing(_Record):
    """When scores become an event, and how good that is."""

    for_secs: float
    within_secs: float
    mean_left_out_f1: float


class Thresholds(_Record):
    """What was decided for a checkpoint."""

    checkpoint: str
    """Its id before anything was written."""
    n_esc10: int
    n_others: int
    media_s: float
    timing: Timing
    timings: tuple[Timing, ...]
    choices: tuple[Choice, ...]


def decide(checkpoint_id: str, tracks: Sequence[Track], judged: Sequence[Judged]) -> Thresholds:
    """What follows from what was heard; `tracks` has each recording of `judged`."""
    labels = tracks[0].labels
    tried = [[sweep(label, tracks, judged, timing) for label in labels] for timing in TIMINGS]
    timings = [_timing(*both) for both in zip(TIMINGS, tried, strict=True)]
    best = max(range(len(TIMINGS)), key=lambda nth: timings[nth].mean_left_out_f1)
    n_esc10 = sum(track.file.startswith(ESC10) for track in tracks)
    return Thresholds(
        checkpoint=checkpoint_id,
        n_esc10=n_esc10,
        n_others=len(tracks) - n_esc10,
        media_s=round(sum(track.duration_ns for track in tracks) / NS_PER_SEC, 3),
        timing=timings[best],
        timings=tuple(timings),
        choices=tuple(_choice(swept, tracks, judged, TIMINGS[best]) for swept in tried[best]),
    )


def choose(swept: Swept, files: Sequence[int]) -> int | None:
    """The threshold, by number, that the rule takes for some recordings; None: none is good."""
    counts = [swept.counts(at, files) for at in range(len(THRESHOLDS))]
    good = [at for at, one in enumerate(counts) if _is_good(one)]
    if not good:
        return None
    best = min((-counts[at].n_hits, counts[at].n_false) for at in good)
    runs: list[list[int]] = []
    for at in good:
        if (-counts[at].n_hits, counts[at].n_false) != best:
            continue
        if runs and runs[-1][-1] == at - 1:
            runs[-1].append(at)
        else:
            runs.append([at])
    longest = max(runs, key=len)
    return longest[len(longest) // 2]


def left_out(swept: Swept) -> Counts:
    """Each take judged by what is chosen without it; where nothing is, nothing is told."""
    numbers = range(len(swept.files))
    takes = [_take(file) for file in swept.files]
    parts = []
    for take in dict.fromkeys(takes):
        its = [nth for nth in numbers if takes[nth] == take]
        at = choose(swept, [nth for nth in numbers if takes[nth] != take])
        parts.append(swept.counts(0, its).untold() if at is None else swept.counts(at, its))
    return summed(parts)


def _take(file: str) -> str:
    """What recordings of one take have in common; ESC-10 names clips `fold-take-clip-class`."""
    if file.startswith(ESC10):
        return "-".join(file.split("-")[:2])
    return next((take for take in _TAKES if file.startswith(take)), file)


def _is_good(counts: Counts) -> bool:
    return counts.false_alarms_per_hour <= MOST_FALSE_PER_HOUR and _is_right(counts)


def _is_right(counts: Counts) -> bool:
    right, found = counts.precision, counts.recall
    if right is None or found is None:
        return False
    return right >= LEAST_PRECISION and found >= LEAST_RECALL


def _timing(timing: LabelSettings, swept: Sequence[Swept]) -> Timing:
    return Timing(
        for_secs=timing.for_secs,
        within_secs=timing.within_secs,
        mean_left_out_f1=round(sum(left_out(one).f1 for one in swept) / len(swept), 4),
    )


def _choice(
    swept: Swept, tracks: Sequence[Track], judged: Sequence[Judged], timing: LabelSettings
) -> Choice:
    files = range(len(swept.files))
    esc10 = [nth for nth in files if swept.files[nth].startswith(ESC10)]
    others = [nth for nth in files if nth not in esc10]
    counts = [swept.counts(at, files) for at in range(len(THRESHOLDS))]
    chosen = choose(swept, files)
    at = max(range(len(counts)), key=lambda n: (counts[n].f1, n)) if chosen is None else chosen
    without = left_out(swept)
    reason = _reason(swept.label, chosen, without)
    return Choice(
        label=swept.label,
        threshold=THRESHOLDS[at],
        told=not reason,
        reason=reason,
        everywhere=_scored(swept.label, tracks, judged, THRESHOLDS[at], timing),
        esc10=_figures(swept.counts(at, esc10)),
        others=_figures(swept.counts(at, others)),
        left_out=_figures(without),
        curve=tuple(
            Point(threshold=threshold, n_hits=one.n_hits, n_false_alarms=one.n_false)
            for threshold, one in zip(THRESHOLDS, counts, strict=True)
        ),
    )


def _scored(
    label: str,
    tracks: Sequence[Track],
    judged: Sequence[Judged],
    threshold: float,
    timing: LabelSettings,
) -> LabelScore:
    by_file = {track.file: track for track in tracks}
    its = [one for one in judged if one.label == label]
    return score(label, [matched(by_file[one.file], one, threshold, timing) for one in its])


def _reason(label: str, chosen: int | None, without: Counts) -> str:
    if label in _LEFT_TO_OTHERS:
        return "left to the detector of the same name"
    if chosen is None:
        return "no threshold is good enough"
    if not _is_right(without):
        return "not good enough when left out"
    return ""


def _figures(counts: Counts) -> Figures:
    return Figures(
        n_true=counts.n_true,
        n_hits=counts.n_hits,
        n_false_alarms=counts.n_false,
        judged_s=round(counts.judged_ns / NS_PER_SEC, 3),
        precision=None if counts.precision is None else round(counts.precision, 4),
        recall=None if counts.recall is None else round(counts.recall, 4),
        false_alarms_per_hour=round(counts.false_alarms_per_hour, 2),
    )
