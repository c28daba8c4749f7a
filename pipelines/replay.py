"""Replay: one recording through a recipe, as fast as it goes or as it plays, to JSON lines.

    media -> hops -> worker -> events -> JSON lines

The same recording gives the same lines each time but for the emission fields (`boot_id`,
`ts_emit`, `latency_ms`, `late`), and only events, alerts and captions.
"""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from mmstream.clock import Clock
from mmstream.errors import ConfigError, SinkError, SourceError, mask_credentials
from mmstream.messages import RESERVED_SOURCES, slug
from mmstream.pipelines import graph
from mmstream.pipelines.configuration import Configuration
from mmstream.runtime.local import LocalRuntime
from mmstream.runtime.session import new_boot_id, serve
from mmstream.sinks.jsonl import STDOUT, JsonlSettings, JsonlSink
from mmstream.sources.media import MediaFile, MediaSettings


def check(media: MediaSettings, out: str, clock: Clock) -> None:
    """Make sure, before `out` is written anew, that the recording opens and is not `out` itself.

    Raises:
        ConfigError: `out` is nothing to write to, or is the recording.
        SourceError: the recording cannot be opened.
    """
    if not out:
        msg = "--out: an empty name; allowed: a file, or - for standard output"
        raise ConfigError(msg)
    with MediaFile(source_id(media.url), media, clock).read():
        pass
    recording, lines = Path(media.url), Path(out)
    if out != STDOUT and recording.exists() and lines.exists() and lines.samefile(recording):
        msg = f"--out: {mask_credentials(out)} is the recording itself; allowed: another file"
        raise ConfigError(msg)


async def run(
    recipe: Configuration, media: MediaSettings, out: str, clock: Clock
) -> Sequence[SourceError]:
    """Send a recording through the recipe's detectors and thresholds; gives its failure, if any.

    Raises:
        SinkError: lines were lost.
    """
    settings = recipe.model_copy(update={"sources": {source_id(media.url): media}})
    sink = JsonlSink(JsonlSettings(path=out, append=False))
    replayed = graph.build(settings, clock, [sink], reports=False)
    runtime = LocalRuntime(replayed, clock, boot_id=new_boot_id())
    await serve(runtime)
    n_lost = sum(sum(stage.dropped.values()) for stage in runtime.stages() if stage is sink.metrics)
    if n_lost:
        msg = f"{n_lost} lines could not be written to {out}"
        raise SinkError(msg)
    return runtime.failures()


def source_id(url: str) -> str:
    """A recording's name as a source id; nothing of a URL but its path's last part."""
    try:
        name = slug(Path(urlsplit(url).path).stem)[:64]
    except ValueError:
        return "media"
    return f"{name}_media" if name in RESERVED_SOURCES else name
