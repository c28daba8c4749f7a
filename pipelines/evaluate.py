"""Evaluate: labelled recordings through a configuration, and what it said beside the truth.

    media -> hops -> worker -> events -> tally <- truth

Same recordings, truth and configuration, same report. The detection delay is in media time: how
far the recording had got when there was enough to say so. A live source adds what is left of the
hop, and the computing.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mmstream.clock import Clock
from mmstream.errors import ConfigError, SinkError, SourceError
from mmstream.heads.events import HeadItem
from mmstream.media import Scores, Span, secs_to_ns
from mmstream.messages import Decided, Event
from mmstream.pipelines import graph
from mmstream.pipelines.configuration import Configuration
from mmstream.pipelines.replay import source_id
from mmstream.pipelines.tally import LabelScore, Match, Said, Verdict, match, score, secs
from mmstream.pipelines.truth import Judged, read
from mmstream.runtime.graph import Graph
from mmstream.runtime.local import LocalRuntime
from mmstream.runtime.session import new_boot_id, serve
from mmstream.sources.media import MediaFile, MediaSettings
from mmstream.stages import Stage


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
    recipe: Configuration, truth: Path, media: Path, only: Sequence[str], clock: Clock
) -> tuple[Judged, ...]:
    """The truth about recordings below `media`, where it fits the configuration and they open.

    Raises:
        ConfigError: it does not; one line for each problem.
        SourceError: recordings cannot be opened; one line for each.
    """
    names = [label.name for label in graph.labels(recipe.detectors, recipe.node)]
    judged = read(truth, media, names, only)
    problems = []
    for file in dict.fromkeys(one.file for one in judged):
        settings = _source(media / file)
        try:
            with MediaFile(source_id(settings.url), settings, clock).read():
                pass
        except SourceError as error:
            problems.append(str(error))
    if problems:
        raise SourceError("\n".join(problems))
    return judged


def check_outputs(files: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Make sure, before minutes are spent, that files can be written, each once, and are no input.

    Raises:
        ConfigError: one cannot, or is.
    """
    for i, file in enumerate(files):
        if any(_is_same(file, other) for other in inputs):
            msg = f"{file}: is read here, as truth, recording or model; allowed: another file"
            raise ConfigError(msg)
        if any(_is_same(file, other) for other in files[:i]):
            msg = f"{file}: is asked for twice; allowed: another file"
            raise ConfigError(msg)
        is_new = not file.exists()
        try:
            with file.open("ab"):
                pass
        except OSError as error:
            msg = f"{file}: cannot be written: {error.strerror}"
            raise ConfigError(msg) from None
        if is_new:
            file.unlink()  # nothing is left behind when it comes to no figures


def _is_same(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return one.samefile(other)
    return one.resolve() == other.resolve()


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Around what writes a file.

    Raises:
        SinkError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        msg = f"{file}: cannot be written: {error.strerror}"
        raise SinkError(msg) from None


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
    with progress_of(len(files)) as progress:
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
            for label in graph.labels(recipe.detectors, recipe.node)
            if (its := [one for one in matches if one.judged.label == label.name])
        ),
        timelines=tuple(_timeline(one) for one in matches),
    )


@contextmanager
def progress_of(n_files: int) -> Iterator[Progress]:
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


@dataclass(slots=True)
class _Witness:
    """Remembers what a head said and how far it got (`Stage[HeadItem, Decided]`)."""

    head: Stage[HeadItem, Decided]
    reached_ns: int = 0
    decided: list[Decided] = field(default_factory=list)

    def push(self, item: HeadItem) -> Sequence[Decided]:
        """As the head does."""
        if isinstance(item, Scores):
            self.reached_ns = item.span.end_ns
        said = self.head.push(item)
        self.decided += said
        return said

    def flush(self) -> Sequence[Decided]:
        """As the head does; nothing is open any more when a recording has ended."""
        return self.head.flush()


def run_through(built: Graph, clock: Clock) -> None:
    """Run a graph of recordings until they have ended.

    Raises:
        SourceError: one cannot be read.
        KeyboardInterrupt: a signal came first.
    """
    runtime = LocalRuntime(built, clock, boot_id=new_boot_id())
    asyncio.run(serve(runtime))
    for failure in runtime.failures():
        raise failure
    if runtime.stopping:
        raise KeyboardInterrupt


def _source(path: Path) -> MediaSettings:
    return MediaSettings(type="media", url=str(path), pace="max")


def _play(recipe: Configuration, path: Path, clock: Clock) -> _Played:
    """Replay one recording.

    Raises:
        SourceError: it cannot be read.
        KeyboardInterrupt: a signal came first.
    """
    source = _source(path)
    settings = recipe.model_copy(update={"sources": {source_id(source.url): source}})
    built = graph.build(settings, clock, (), reports=False)
    (chain,) = built.chains
    witness = _Witness(chain.head)
    built = replace(built, chains=(replace(chain, head=witness),))
    run_through(built, clock)
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
