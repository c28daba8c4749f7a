"""Evaluate: labelled recordings through a configuration, and what it said beside the truth.

    media -> hops -> worker -> events -> tally <- truth

Same recordings, truth and configuration, same report. The detection delay is in media time: how
far the recording had got when there was enough to say so. A live source adds what is left of the
hop, and the computing.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mmstream.clock import Clock
from mmstream.errors import ConfigError
from mmstream.heads.events import EventHead, HeadItem
from mmstream.media import Scores, Span, secs_to_ns
from mmstream.messages import Decided, Event
from mmstream.pipelines import graph
from mmstream.pipelines.configuration import Configuration
from mmstream.pipelines.replay import source_id
from mmstream.pipelines.tally import LabelScore, Match, Said, Verdict, match, score, secs
from mmstream.pipelines.truth import Judged, read
from mmstream.runtime.local import LocalRuntime
from mmstream.runtime.session import new_boot_id, serve
from mmstream.sources.media import MediaSettings


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TruthSpan(_Record):
    """When something happened."""

    start_s: float
    end_s: float
    found: bool


class UnclearSpan(_Record):
    """When it cannot be told."""

    start_s: float
    end_s: float


class EventSpan(_Record):
    """An event and what it is."""

    start_s: float
    end_s: float
    decided_s: float
    top_score: float
    verdict: Verdict


class Timeline(_Record):
    """One label in one recording: the truth, and what was said."""

    file: str
    label: str
    duration_s: float
    truths: tuple[TruthSpan, ...]
    unclear: tuple[UnclearSpan, ...]
    events: tuple[EventSpan, ...]


class Report(_Record):
    """What a configuration makes of labelled recordings."""

    slack_s: float
    n_files: int
    media_s: float
    labels: tuple[LabelScore, ...]
    """In the order of the configuration."""
    timelines: tuple[Timeline, ...]
    """By recording, in the order of the truth."""


def check(
    recipe: Configuration, truth: Path, media: Path, only: Sequence[str]
) -> tuple[Judged, ...]:
    """The truth about recordings below `media`, where it fits the configuration and they exist.

    Raises:
        ConfigError: it does not; one line for each problem.
    """
    names = [label.name for label in graph.labels(recipe.detectors)]
    return read(truth, media, names, only)


def check_outputs(truth: Path, files: Sequence[Path]) -> None:
    """Make sure, before minutes are spent, that files can be written and are not the truth.

    Raises:
        ConfigError: one cannot, or is.
    """
    for file in files:
        if file.exists() and file.samefile(truth):
            msg = f"{file}: is the truth itself; allowed: another file"
            raise ConfigError(msg)
        try:
            with file.open("ab"):
                pass
        except OSError as error:
            msg = f"{file}: cannot be written: {error.strerror}"
            raise ConfigError(msg) from None


def run(
    recipe: Configuration,
    judged: Sequence[Judged],
    media: Path,
    clock: Clock,
    *,
    slack_secs: float,
) -> Report:
    """Replay every recording that is judged, one after the other, and score what was said.

    Raises:
        SourceError: a recording cannot be read.
        ScorerError: a detector cannot be built or run.
        ConfigError: a truth begins after its recording has ended.
    """
    files = list(dict.fromkeys(one.file for one in judged))
    played: dict[str, _Played] = {}
    with _progress(len(files)) as progress:
        for file in files:
            progress.update(progress.task_ids[0], clip=file)
            played[file] = _play(recipe, media / file, clock)
            progress.advance(progress.task_ids[0])
    _refuse_times_after_the_end(judged, played)
    slack_ns = secs_to_ns(slack_secs)
    matches = [
        match(one, played[one.file].duration_ns, played[one.file].said, slack_ns=slack_ns)
        for one in judged
    ]
    return Report(
        slack_s=slack_secs,
        n_files=len(files),
        media_s=secs(sum(one.duration_ns for one in played.values())),
        labels=tuple(
            score(label.name, its)
            for label in graph.labels(recipe.detectors)
            if (its := [one for one in matches if one.judged.label == label.name])
        ),
        timelines=tuple(_timeline(one) for one in matches),
    )


@contextmanager
def _progress(n_files: int) -> Iterator[Progress]:
    """A bar on standard error, where that is a terminal."""
    console = Console(stderr=True)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[clip]}"),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        bar.add_task("", total=n_files, clip="")
        yield bar


@dataclass(frozen=True, slots=True)
class _Played:
    """What one recording gave."""

    duration_ns: int
    said: tuple[Said, ...]


class _Witness(EventHead):
    """A head that remembers what it said, at which instant that was decided, and how far it got."""

    reached_ns = 0
    decided: tuple[Decided, ...] = ()

    def push(self, item: HeadItem) -> Sequence[Decided]:
        """As the head does."""
        said = super().push(item)
        self.decided += tuple(said)
        if isinstance(item, Scores):
            self.reached_ns = item.span.end_ns
        return said


def _play(recipe: Configuration, path: Path, clock: Clock) -> _Played:
    """Replay one recording.

    Raises:
        SourceError: it cannot be read.
        KeyboardInterrupt: a signal came first.
    """
    name = source_id(str(path))
    source = MediaSettings(type="media", url=str(path), pace="max")
    settings = recipe.model_copy(update={"sources": {name: source}})
    built = graph.build(settings, clock, (), reports=False)
    witness = _Witness(
        node=settings.node,
        source=name,
        labels=graph.labels(settings.detectors),
        settings=settings.events.by_label(),
    )
    built = replace(built, chains=tuple(replace(one, head=witness) for one in built.chains))
    runtime = LocalRuntime(built, clock, boot_id=new_boot_id())
    asyncio.run(serve(runtime))
    for failure in runtime.failures():
        raise failure
    if runtime.stopping:
        raise KeyboardInterrupt
    return _Played(witness.reached_ns, tuple(_said(witness.decided)))


def _said(decided: Sequence[Decided]) -> Iterator[Said]:
    """The events, in the order in which they ended."""
    started_ns: dict[str, int] = {}
    for one in decided:
        event = one.content
        if not isinstance(event, Event):
            continue
        if event.type == "start":
            started_ns[event.id] = one.at_ns
        if event.type == "end" and event.t_end is not None:
            span = Span(secs_to_ns(event.t_start), secs_to_ns(event.t_end))
            yield Said(event.label, span, started_ns.pop(event.id), event.top_score)


def _refuse_times_after_the_end(judged: Sequence[Judged], played: dict[str, _Played]) -> None:
    late = [
        f"{one.file}: {one.label} starts at {secs(span.start_ns):g} s, and the recording ends at "
        f"{secs(played[one.file].duration_ns):g} s"
        for one in judged
        for span in one.truths
        if span.start_ns >= played[one.file].duration_ns
    ]
    if late:
        raise ConfigError("\n".join(late))


def _timeline(found: Match) -> Timeline:
    judged = found.judged
    return Timeline(
        file=judged.file,
        label=judged.label,
        duration_s=secs(found.duration_ns),
        truths=tuple(
            TruthSpan(
                start_s=secs(span.start_ns),
                end_s=secs(span.end_ns),
                found=bool(found.events_of(i)),
            )
            for i, span in enumerate(judged.truths)
        ),
        unclear=tuple(
            UnclearSpan(start_s=secs(span.start_ns), end_s=secs(span.end_ns))
            for span in judged.unclear
        ),
        events=tuple(
            EventSpan(
                start_s=secs(event.span.start_ns),
                end_s=secs(event.span.end_ns),
                decided_s=secs(event.decided_ns),
                top_score=event.top_score,
                verdict=found.verdict(i),
            )
            for i, event in enumerate(found.events)
        ),
    )
