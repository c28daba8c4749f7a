"""What every streaming recipe is made of: a configuration's sources, detectors, heads, sinks."""

from collections.abc import Sequence

from mmstream.clock import Clock
from mmstream.heads.events import EventHead
from mmstream.pipelines.configuration import (
    Configuration,
    DetectorSettings,
    SinkSettings,
    SourceSettings,
)
from mmstream.runtime.capture import ThreadedSource
from mmstream.runtime.chain import Chain
from mmstream.runtime.local import Graph
from mmstream.sinks.jsonl import JsonlSink
from mmstream.sinks.mqtt import MqttSink
from mmstream.sources.media import MediaFile
from mmstream.sources.synthetic import SyntheticSettings, SyntheticSource
from mmstream.stages import Reader, ScorerSpec, Sink
from mmstream.windows import HopCutter


def build(
    settings: Configuration, clock: Clock, to: Sequence[Sink], *, reports: bool = True
) -> Graph:
    """The graph of a configuration, ending in the sinks given."""
    detectors = specs(settings.detectors)
    labels = tuple(label for spec in detectors for label in spec.labels)
    events = {"motion": settings.events.motion, "loud": settings.events.loud}
    chains = []
    for name, source_settings in settings.sources.items():
        source = ThreadedSource(reader(name, source_settings, clock, settings.hops.rate_hz))
        cutter = HopCutter(name, settings.hops, live=source.live)
        head = EventHead(node=settings.node, source=name, labels=labels, settings=events)
        chains.append(Chain(source, cutter, head))
    return Graph(
        settings.node, tuple(chains), detectors, settings.worker, tuple(to), reports=reports
    )


def reader(name: str, settings: SourceSettings, clock: Clock, rate_hz: int) -> Reader:
    """The reader that a source's settings ask for."""
    if isinstance(settings, SyntheticSettings):
        return SyntheticSource(name, settings, clock, rate_hz=rate_hz)
    return MediaFile(name, settings, clock, rate_hz=rate_hz)


def specs(settings: DetectorSettings) -> tuple[ScorerSpec, ...]:
    """The detectors that are on."""
    return tuple(spec for spec in (settings.motion, settings.loud) if spec is not False)


def sinks(settings: SinkSettings, *, node: str, boot_id: str) -> tuple[Sink, ...]:
    """The sinks that are asked for."""
    made: list[Sink] = []
    if settings.mqtt is not None:
        made.append(MqttSink(settings.mqtt, node=node, boot_id=boot_id))
    if settings.jsonl is not None:
        made.append(JsonlSink(settings.jsonl))
    return tuple(made)
