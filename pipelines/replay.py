"""Replay: one recording through a recipe, as fast as it goes or as it plays, to JSON lines.

    media -> hops -> worker -> events -> JSON lines

The same recording gives the same lines each time but for the emission fields (`boot_id`,
`ts_emit`, `latency_ms`, `late`), and only events, alerts and captions.
"""

from collections.abc import Sequence
from pathlib import Path

from mmstream.clock import Clock
from mmstream.errors import SourceError
from mmstream.messages import slug
from mmstream.pipelines import surveillance
from mmstream.pipelines.configuration import Configuration
from mmstream.runtime.local import LocalRuntime
from mmstream.runtime.session import new_boot_id, serve
from mmstream.sources.media import MediaSettings
from mmstream.stages import Sink


async def run(
    recipe: Configuration, media: MediaSettings, sink: Sink, clock: Clock
) -> Sequence[SourceError]:
    """Send a recording through the recipe's detectors and thresholds; gives its failure, if any."""
    settings = recipe.model_copy(update={"sources": {source_id(media.url): media}})
    graph = surveillance.graph(settings, clock, [sink], reports=False)
    runtime = LocalRuntime(graph, clock, boot_id=new_boot_id())
    await serve(runtime)
    return runtime.failures()


def source_id(url: str) -> str:
    """A recording's name as a source id."""
    try:
        return slug(Path(url).stem)[:64]
    except ValueError:
        return "media"
