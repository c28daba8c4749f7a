"""How likely a checkpoint of AVP holds each event, hop by hop, in recordings that it never heard.

    media file -> hops -> AvpScorer -> scores -> log-odds [n_hops, n_labels]

Recordings go through the scorer side by side, as live sources would. What its own thresholds did to
the scores is taken back, so that any other threshold can be tried without listening again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from mmstream.clock import SystemClock
from mmstream.media import Floats, Hop, Scores, Span
from mmstream.models.avp_spec import AvpSpec
from mmstream.sources.media import MediaFile, MediaSettings
from mmstream.stages import Load
from mmstream.windows import HopCutter, HopSettings

N_TOGETHER: Final = 12
"""Recordings that go side by side."""

_SURE: Final = 1e-7
"""Scores are held this far from 0 and 1, whose log-odds are infinite."""


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """What was thought of one recording."""

    file: str
    labels: tuple[str, ...]
    spans: tuple[Span, ...]
    """Of the hops."""
    log_odds: Floats
    """[n_hops, n_labels], of the probability of each event; NaN where it was not scored."""

    def __post_init__(self) -> None:
        wanted = len(self.spans), len(self.labels)
        if self.log_odds.shape != wanted:
            msg = f"a track has a number for each hop and label: got {self.log_odds.shape=}"
            raise ValueError(msg)

    @property
    def duration_ns(self) -> int:
        """From the recording's first instant to the last hop's end."""
        return self.spans[-1].end_ns if self.spans else 0


@dataclass(slots=True)
class _Rows:
    spans: list[Span] = field(default_factory=list)
    log_odds: list[list[float]] = field(default_factory=list)


def log_odds(share: float) -> float:
    """Of a probability, which is first held inside of 0..1."""
    held = min(max(share, _SURE), 1 - _SURE)
    return float(np.log(held / (1 - held)))


def listen(
    spec: AvpSpec, thresholds: Mapping[str, float], media: Path, files: Sequence[str]
) -> tuple[Track, ...]:
    """What a checkpoint thinks of some events in recordings below `media`.

    Args:
        spec: which checkpoint.
        thresholds: the checkpoint's own, of each event that is asked for.
        media: a folder.
        files: below it.

    Raises:
        ScorerError: the checkpoint cannot be used.
        SourceError: a recording cannot be read.
    """
    labels = tuple(thresholds)
    scorer = spec.model_copy(update={"events": labels}).build("cpu")
    points = [log_odds(threshold) for threshold in thresholds.values()]
    rows = {file: _Rows() for file in files}
    for first in range(0, len(files), N_TOGETHER):
        some = files[first : first + N_TOGETHER]
        for hops in _side_by_side([_hops(media / file, file) for file in some]):
            so_far = [Scores(hop.source, hop.index, hop.span) for hop in hops]
            for said in scorer.score(hops, so_far, Load.FULL):
                row = [_score(said, label) + at for label, at in zip(labels, points, strict=True)]
                rows[said.source].spans.append(said.span)
                rows[said.source].log_odds.append(row)
        for file in some:
            scorer.forget(file)
    return tuple(_track(file, labels, its) for file, its in rows.items())


def _hops(path: Path, name: str) -> Iterator[Hop]:
    cutter = HopCutter(name, HopSettings(), live=False)
    with MediaFile(name, MediaSettings(url=str(path), pace="max"), SystemClock()).read() as items:
        for item in items:
            yield from cutter.push(item)
    yield from cutter.flush()


def _side_by_side(recordings: list[Iterator[Hop]]) -> Iterator[list[Hop]]:
    """A hop of each that has one left, again and again."""
    while hops := [hop for one in recordings if (hop := next(one, None)) is not None]:
        yield hops


def _score(said: Scores, label: str) -> float:
    """The log-odds of the last score of a hop; NaN without one."""
    series = said.outputs.get(label)
    if series is None or not len(series.values):
        return float("nan")
    return log_odds(float(series.values[-1]))


def _track(file: str, labels: tuple[str, ...], rows: _Rows) -> Track:
    odds = np.asarray(rows.log_odds, np.float32).reshape(len(rows.spans), len(labels))
    return Track(file, labels, tuple(rows.spans), odds)
