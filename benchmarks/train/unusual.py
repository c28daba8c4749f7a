"""Is somebody who comes into a room unusual, once the empty room was learned?

    python -m mmstream.benchmarks.train.unusual CHECKPOINT --media DIR

In `surveillance/one_by_one_person.mp4` 6 people visit a room one by one (`events.tsv` says when).
Learned, as `mmstream learn` does it, are 13 s of it without anybody, before and between the first
visits; then all of it is told with the events' usual settings. Said is how many visits have an
event, how late each began, and how many events touch no visit, with 1 s to spare.
"""

import argparse
import asyncio
import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmstream.clock import SystemClock
from mmstream.heads.lifecycle import Lifecycle, Step
from mmstream.media import NS_PER_SEC, Span, secs_to_ns
from mmstream.models.avp_spec import AvpSpec
from mmstream.models.normal import Normal, NormalLearner
from mmstream.pipelines.embedding import Embedded, Embedder, embedded, embedder
from mmstream.pipelines.learn import lessons
from mmstream.pipelines.thresholds import SoundEvents
from mmstream.runtime.capture import ThreadedSource
from mmstream.sources.media import MediaFile, MediaSettings
from mmstream.windows import HopSettings

FILE: Final = "surveillance/one_by_one_person.mp4"
LABEL: Final = "person_present"
BEGINS: Final = (0.0, 19.5, 45.0)
ENDS: Final = (5.5, 22.5, 49.5)
SPARE_NS: Final = NS_PER_SEC


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was told beside what was so."""

    late_secs: tuple[float | None, ...]
    """Of each visit, by how much its first event began after it; None: it has none."""
    n_false: int
    """Events that touch no visit."""


def visits(media: Path) -> list[Span]:
    """When somebody is there."""
    with (media / "events.tsv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file, delimiter="\t") if row[:2] == [FILE, LABEL]]
    return [Span(secs_to_ns(float(row[2])), secs_to_ns(float(row[3]))) for row in rows]


async def seen(media: Path, model: Embedder) -> list[Embedded]:
    """The windows of the recording."""
    settings = MediaSettings(type="media", url=str(media / FILE), pace="max")
    source = ThreadedSource(MediaFile("room", settings, SystemClock()))
    return [one async for one in embedded(source, HopSettings(), model)]


def learned(windows: list[Embedded]) -> Normal:
    """What is normal: the room without anybody."""
    which, learner = lessons(seconds=None, begins=BEGINS, ends=ENDS), NormalLearner()
    for one in windows:
        if one.moment is not None and which.count(one.span):
            learner.add(one.moment)
    return learner.result("room", model="-", made="-")


def told(windows: list[Embedded], normal: Normal) -> list[Span]:
    """When `unusual` is told."""
    life, steps = Lifecycle(SoundEvents()), list[Step]()
    hop_ns = secs_to_ns(HopSettings().hop_secs)
    for one in windows:
        if one.moment is not None:
            steps += life.see(one.span.end_ns - hop_ns, normal.score(one.moment))
        steps += life.advance(one.span.end_ns)
    steps += life.close("source_ended")
    return [Span(step.start_ns, step.end_ns) for step in steps if step.end_ns is not None]


def compared(events: list[Span], truth: list[Span]) -> Verdict:
    """Events beside visits."""
    late: list[float | None] = []
    for visit in truth:
        its = [event.start_ns for event in events if event.overlap_ns(visit)]
        late.append((min(its) - visit.start_ns) / NS_PER_SEC if its else None)
    wide = [Span(one.start_ns - SPARE_NS, one.end_ns + SPARE_NS) for one in truth]
    n_false = sum(not any(event.overlap_ns(one) for one in wide) for event in events)
    return Verdict(tuple(late), n_false)


def main() -> None:
    """Print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--media", type=Path, required=True)
    asked = parser.parse_args()
    model = embedder(AvpSpec(weights=asked.checkpoint, untrained="allow"))
    windows = asyncio.run(seen(asked.media, model))
    normal = learned(windows)
    truth = visits(asked.media)
    verdict = compared(told(windows, normal), truth)
    late = ["missed" if one is None else f"{one:+.2f} s" for one in verdict.late_secs]
    n_found = sum(one is not None for one in verdict.late_secs)
    print(f"learned from {normal.about.n_learned} windows, threshold {normal.about.threshold:.3f}")
    print(f"visits found: {n_found} of {len(truth)}; events began {', '.join(late)}")
    print(f"events that touch no visit: {verdict.n_false}")


if __name__ == "__main__":
    main()
