"""Demo: a made-up scene through the whole graph, and what was understood of it beside the truth.

synthetic scene -> hops -> worker -> events -> embedded broker, terminal, memory
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, TextIO

from mmstream.clock import Clock
from mmstream.errors import ConfigError
from mmstream.media import Span, secs_to_ns
from mmstream.messages import Event, Health, NumberedStamp, Published, utc_ns
from mmstream.metrics import StageMetrics
from mmstream.pipelines import graph
from mmstream.pipelines.configuration import Configuration, SourceSettings
from mmstream.runtime.local import LocalRuntime
from mmstream.runtime.session import new_boot_id, serve
from mmstream.sinks import terminal
from mmstream.sinks.broker import HOST, EmbeddedBroker
from mmstream.sinks.memory import MemorySink
from mmstream.sinks.mqtt import MqttSettings, MqttSink
from mmstream.sources.scenes import Scene, Truth
from mmstream.sources.synthetic import SyntheticSettings, SyntheticSource

SOURCE: Final = "room"
LABELS: Final = ("motion", "presence", "loud", "speech", "alarm", "impact")
SLACK_NS: Final = secs_to_ns(0.5)
"""An event that starts so soon before the truth, or ends so soon after it, still belongs to it."""


async def run(settings: Configuration, clock: Clock, out: TextIO, *, seconds: float) -> None:
    """Play the scene for so many seconds and print what was found of it.

    Raises:
        BrokerError: the embedded broker cannot be started.
    """
    boot_id, memory = new_boot_id(), MemorySink()
    scene = _scene(settings.sources[SOURCE], clock)
    async with EmbeddedBroker() as broker:
        out.write(f"watch it: mosquitto_sub -h {HOST} -p {broker.port} -t 'mmstream/#' -v\n")
        place = MqttSettings(host=HOST, port=broker.port)
        mqtt = MqttSink(place, node=settings.node, boot_id=boot_id)
        view = terminal.view(f"mmstream {settings.node}", out)
        made = graph.build(settings, clock, [mqtt, memory, view])
        runtime = LocalRuntime(made, clock, boot_id=boot_id)
        view.watch(runtime.statuses)
        await serve(runtime, seconds=seconds)
    truth = scene.truth(played(memory.messages)[1])
    out.writelines(line + "\n" for line in summary(truth, memory.messages, runtime.stages()))


@dataclass(frozen=True, slots=True)
class Match:
    """The events of one label beside the truth."""

    n_true: int
    """Things that really happened."""
    n_found: int
    """Of these, how many an event tells of."""
    n_events: int
    n_false: int
    """Events at which nothing of that kind happened."""
    start_errors_ns: tuple[int, ...]
    """Event start minus true start, for what an event of its own was found for."""


def match(truths: Sequence[Span], events: Sequence[Span], played_ns: int) -> Match:
    """Lay events beside the truth: they belong together where they overlap.

    What began less than the slack before the end is not missed if no event tells of it.
    """
    wide = [Span(max(0, one.start_ns - SLACK_NS), one.end_ns + SLACK_NS) for one in truths]
    found = [any(event.overlap_ns(one) for event in events) for one in truths]
    n_false = sum(not any(event.overlap_ns(one) for one in wide) for event in events)
    starts = [one.start_ns for one in truths]
    errors = []
    for event in events:
        nearest_ns = min(starts, key=lambda start_ns: abs(start_ns - event.start_ns), default=None)
        if nearest_ns is not None and abs(event.start_ns - nearest_ns) <= SLACK_NS:
            errors.append(event.start_ns - nearest_ns)
    n_true = sum(
        is_found or one.start_ns < played_ns - SLACK_NS
        for one, is_found in zip(truths, found, strict=True)
    )
    return Match(n_true, sum(found), len(events), n_false, tuple(errors))


def summary(
    truth: Sequence[Truth], messages: Sequence[Published], stages: Sequence[StageMetrics]
) -> list[str]:
    """What was found of the truth, how late it was said, and what was lost."""
    began_ns, played_ns = played(messages)
    lines = ["", "label    happened  found  events  false  start error"]
    for label in LABELS:
        truths = [one.span for one in truth if one.label == label]
        events = [_span(event, began_ns) for event in _ended(messages) if event.label == label]
        found = match(truths, events, played_ns)
        error = "-"
        if found.start_errors_ns:
            error = f"{median(found.start_errors_ns) / 1e6:+.0f} ms (median)"
        lines.append(
            f"{label:<8} {found.n_true:>8} {found.n_found:>6} {found.n_events:>7} "
            f"{found.n_false:>6}  {error}"
        )
    latencies = [
        message.stamp.latency_ms
        for message in messages
        if isinstance(message.stamp, NumberedStamp) and message.stamp.latency_ms is not None
    ]
    if latencies:
        lines.append(f"capture to message: median {median(latencies):.0f} ms")
    drops = [f"{s.name} {why} {n}" for s in stages for why, n in s.dropped.items()]
    lines.append(f"dropped: {', '.join(drops) or 'nothing'}")
    return lines


def _ended(messages: Sequence[Published]) -> list[Event]:
    contents = (message.content for message in messages)
    return [event for event in contents if isinstance(event, Event) and event.type == "end"]


def _span(event: Event, began_ns: int) -> Span:
    """When an event was, in scene time."""
    start_ns = secs_to_ns(event.t_start) - began_ns
    end_ns = secs_to_ns(event.t_end or event.t_start) - began_ns
    return Span(start_ns, max(start_ns, end_ns))


def _scene(source: SourceSettings, clock: Clock) -> Scene:
    if not isinstance(source, SyntheticSettings):
        msg = f"the demo plays a made-up scene: sources.{SOURCE} has type {source.type}"
        raise ConfigError(msg)
    return SyntheticSource(SOURCE, source, clock).scene


def played(messages: Sequence[Published]) -> tuple[int, int]:
    """When the scene began, in nanoseconds since 1970, and for how long it was played."""
    healths = [message.content for message in messages if isinstance(message.content, Health)]
    online = [utc_ns(health.since) for health in healths if health.state == "online"]
    if not online:
        return 0, 0
    return online[0], utc_ns(healths[-1].since) - online[0]
