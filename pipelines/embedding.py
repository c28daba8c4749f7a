"""What a model makes of sources when nothing else runs: for what people teach, and what is normal.

    source -> hops -> the model, as in a run -> an embedding for each hop

It is the way that a stream takes, so that what is kept fits to what a run will see.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from mmstream.errors import ScorerError
from mmstream.features.video import small_luma
from mmstream.media import (
    Bytes,
    Floats,
    Hop,
    Scores,
    SourceEnded,
    SourceItem,
    Span,
    secs_to_ns,
)
from mmstream.models.avp_spec import GIST, MOMENT, AvpSpec
from mmstream.models.content import CONFIG, id_of, read_bytes
from mmstream.models.taught import background_in
from mmstream.stages import Load, Scorer, Source
from mmstream.windows import HopCutter, HopSettings

_SEEN: Final = 48
"""Pixels across and down in which changes are looked for."""
_QUIETEST: Final = 1e-5
"""-100 dB."""
_STILL: Final = 0.5
"""Levels of brightness by which pictures of one thing differ."""


class _Model(BaseModel):
    window_secs: float = Field(gt=0)


class _Config(BaseModel):
    """What of a checkpoint's config.json is needed here."""

    settings: _Model


@dataclass(frozen=True, slots=True, eq=False)
class Embedder:
    """A model that embeds."""

    scorer: Scorer
    id: str
    """Of its checkpoint."""
    background: Floats
    """[n, 4d]: gists of ordinary windows."""
    window_ns: int
    """What a moment tells of: so much time, up to the end of its hop."""


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """A hop, and what the window that ends with it is like."""

    span: Span
    """Of the window; it begins with the source where that is shorter ago."""
    gist: Floats
    """[4d], each half of length 1, or 0: what is compared with what was taught."""
    moment: Floats | None
    """[2d], of length 1: what is compared with what is normal; None: the window is not whole."""
    sound_db: float | None
    """How loud the hop is; None: nothing was heard."""
    change_db: float | None
    """How much its pictures change; None: nothing was seen."""


def embedder(spec: AvpSpec) -> Embedder:
    """The model that a spec describes, on the processor.

    Raises:
        ScorerError: it cannot be loaded; the text says why.
    """
    folder = spec.folder
    scorer = spec.model_copy(update={"taught": None, "normal": None}).build("cpu")
    try:
        config = _Config.model_validate_json(read_bytes(folder / CONFIG))
    except ValidationError as error:
        msg = f"{folder / CONFIG}: {error.errors()[0]['msg']}"
        raise ScorerError(msg) from None
    window_ns = secs_to_ns(config.settings.window_secs)
    return Embedder(scorer, id_of(folder), background_in(folder), window_ns)


async def embedded(source: Source, hops: HopSettings, model: Embedder) -> AsyncGenerator[Embedded]:
    """All that there is to say of a source, hop by hop; a live one never ends by itself.

    Raises:
        SourceError: it cannot be opened or read.
        ScorerError: the model cannot take what it sends.
    """
    cutter = HopCutter(source.name, hops, live=source.live)
    embedding = _Embedding(model)
    try:
        async with source.stream() as items:
            async for item in items:
                for one in await embedding.of(cutter, item):
                    yield one
        for one in await embedding.of(cutter, SourceEnded(source.name)):
            yield one
    finally:
        model.scorer.forget(source.name)


class _Changes:
    """How much pictures differ from those before them."""

    def __init__(self) -> None:
        self._before: Bytes | None = None

    def see(self, hop: Hop) -> float | None:
        """The greatest change of a hop, dB; None: it has no pictures."""
        greatest = 0.0
        for frame in hop.frames:
            now = small_luma(frame.image, width=_SEEN, height=_SEEN)
            if self._before is not None:
                change = np.abs(now.astype(np.float32) - self._before).mean()
                greatest = max(greatest, float(change))
            self._before = now
        return 20 * float(np.log10(max(greatest, _STILL))) if hop.frames else None


@dataclass(slots=True, eq=False)
class _Embedding:
    """The state of one source."""

    model: Embedder
    _start_ns: int | None = None
    _changes: _Changes = field(default_factory=_Changes)

    async def of(self, cutter: HopCutter, item: SourceItem) -> Sequence[Embedded]:
        """What an item settles; the model computes beside the loop, which takes in what comes."""
        hops = cutter.push(item)
        return await asyncio.to_thread(self._scored, hops) if hops else ()

    def _scored(self, hops: Sequence[Hop]) -> list[Embedded]:
        found = []
        for hop in hops:
            if self._start_ns is None:
                self._start_ns = hop.span.start_ns
            change_db = self._changes.see(hop)
            empty = Scores(hop.source, hop.index, hop.span)
            (scores,) = self.model.scorer.score([hop], [empty], Load.FULL)
            gist, moment = _last(scores, GIST), _last(scores, MOMENT)
            if gist is not None:
                began_ns = max(self._start_ns, hop.span.end_ns - self.model.window_ns)
                span = Span(began_ns, hop.span.end_ns)
                found.append(Embedded(span, gist, moment, _loudness_db(hop), change_db))
        return found


def _last(scores: Scores, name: str) -> Floats | None:
    series = scores.outputs.get(name)
    if series is None:
        return None
    last: Floats = series.values[-1]
    return last


def _loudness_db(hop: Hop) -> float | None:
    heard = hop.samples[hop.heard]
    if heard.size == 0:
        return None
    return 20 * float(np.log10(max(float(np.sqrt(np.mean(heard**2))), _QUIETEST)))
