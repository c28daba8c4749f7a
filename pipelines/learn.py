"""Learning what is normal for a source: it is watched for a while, and a few embeddings are kept.

    source -> embeddings of its windows -> coreset and threshold -> <normal>/<source>.safetensors

docs/teach.md says how well that works.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from mmstream.clock import Clock
from mmstream.errors import ConfigError, ScorerError
from mmstream.media import Span, secs_to_ns
from mmstream.messages import iso_utc
from mmstream.models import normal
from mmstream.models.avp_spec import AvpSpec
from mmstream.models.normal import Normal, NormalLearner
from mmstream.pipelines.embedding import Embedded, Embedder, embedded, embedder
from mmstream.stages import Source
from mmstream.windows import HopSettings


@dataclass(frozen=True, slots=True)
class Lessons:
    """Which times of a source are normal; they count from its first instant."""

    spans: tuple[Span, ...] = ()
    """Only these; all of it, where there are none."""
    until_ns: int | None = None
    """Up to here; None: to its end."""

    def __post_init__(self) -> None:
        if self.until_ns is not None and self.until_ns <= 0:
            msg = f"until_ns must be positive: got {self.until_ns}"
            raise ValueError(msg)

    @property
    def length_ns(self) -> int | None:
        """Nothing that counts comes from there on; None: nobody knows."""
        ends = [self.until_ns] if self.until_ns is not None else []
        if self.spans:
            ends.append(max(span.end_ns for span in self.spans))
        return min(ends, default=None)

    def count(self, window: Span) -> bool:
        """Whether all of a window does."""
        return not self.spans or any(
            span.start_ns <= window.start_ns and window.end_ns <= span.end_ns for span in self.spans
        )


def lessons(*, seconds: float | None, begins: Sequence[float], ends: Sequence[float]) -> Lessons:
    """Which times are meant, in seconds; the first of `begins` belongs to the first of `ends`.

    Raises:
        ConfigError: there are more of the ones than of the others, or one ends before it begins.
    """
    if len(begins) != len(ends):
        msg = f"{len(begins)} --from and {len(ends)} --to; allowed: one --to for each --from"
        raise ConfigError(msg)
    spans = []
    for begin, end in zip(begins, ends, strict=True):
        if not 0 <= begin < end:
            msg = f"--from {begin:g} --to {end:g}; allowed: from 0 on, and an end after the start"
            raise ConfigError(msg)
        spans.append(Span(secs_to_ns(begin), secs_to_ns(end)))
    return Lessons(tuple(spans), None if seconds is None else secs_to_ns(seconds))


def learn(
    source: Source,
    spec: AvpSpec,
    hops: HopSettings,
    which: Lessons,
    *,
    clock: Clock,
    progress: Callable[[int], None],
) -> str:
    """Learn what is normal for a source, write it down and say so; it takes the place of before.

    `progress` is told how much of the source has passed, ns.

    Raises:
        ConfigError: a live source would never end, or there was too little to learn from.
        SourceError: it cannot be opened or read.
        ScorerError: the model cannot be loaded, or what was learned cannot be written.
    """
    folder = folder_of(spec)
    if source.live and which.length_ns is None:
        msg = f"{source.name} is live and does not end by itself; allowed: --seconds N"
        raise ConfigError(msg)
    model = embedder(spec)
    learner = asyncio.run(_learned(source, hops, model, which, progress))
    try:
        found = learner.result(source.name, model=model.id, made=iso_utc(clock.utc_ns()))
    except ScorerError as error:
        raise ConfigError(str(error)) from None
    return _told(found, normal.save(folder, found), model)


async def _learned(
    source: Source,
    hops: HopSettings,
    model: Embedder,
    which: Lessons,
    progress: Callable[[int], None],
) -> NormalLearner:
    learner = NormalLearner()
    async with aclosing(embedded(source, hops, model)) as windows:
        async for window in counted(windows, which, progress):
            if window.moment is not None:
                learner.add(window.moment)
    return learner


async def counted(
    windows: AsyncIterator[Embedded], which: Lessons, progress: Callable[[int], None]
) -> AsyncIterator[Embedded]:
    """Those that lie in the times that are meant."""
    origin_ns: int | None = None
    async for window in windows:
        origin_ns = window.span.start_ns if origin_ns is None else origin_ns
        since = Span(window.span.start_ns - origin_ns, window.span.end_ns - origin_ns)
        if which.count(since):
            yield window
        progress(since.end_ns)
        if which.length_ns is not None and since.end_ns >= which.length_ns:
            return


def folder_of(spec: AvpSpec) -> Path:
    """Where what is normal is kept.

    Raises:
        ConfigError: it is in a home folder, and there is none.
    """
    if spec.normal is None:
        msg = "nobody knows a home folder to keep it in; allowed: avp.normal in the configuration"
        raise ConfigError(msg)
    return spec.normal.expanduser()


def _told(found: Normal, path: Path, model: Embedder) -> str:
    about, window_secs = found.about, model.window_ns / 1e9
    return (
        f"{about.source}: learned from {about.n_learned} windows of {window_secs:g} s, "
        f"{len(found.embeddings)} kept; unusual from a distance of {about.threshold:.3f} on\n"
        f"written to {path}; a run that looks there tells `unusual` from now on"
    )
