"""Surveillance: every source is cut into hops, watched and listened to, and told as events.

sources -> hops -> worker (motion, loud) -> events -> MQTT, JSON lines, terminal
                                       requests <-'  `-> event log on disk
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TextIO

from mmstream.clock import Clock
from mmstream.errors import SourceError
from mmstream.pipelines import graph
from mmstream.pipelines.blueprint import ConfiguredSources
from mmstream.pipelines.configuration import Configuration
from mmstream.runtime.local import LocalRuntime
from mmstream.runtime.session import new_boot_id, serve
from mmstream.sinks import terminal
from mmstream.sinks.ledger import Ledger
from mmstream.sinks.mqtt import MqttSink


async def run(
    settings: Configuration,
    clock: Clock,
    out: TextIO,
    *,
    strict: bool,
    reload: Callable[[], Configuration],
) -> Sequence[SourceError]:
    """Run until the sources end or a signal comes; gives the failures of sources.

    `reload` reads the configuration again when SIGHUP or a request asks for it.

    Raises:
        ConfigError: the event log cannot be used.
        UnreachableError: with `strict`, a source or broker could not be reached at the start.
    """
    node, boot_id = settings.node, new_boot_id()
    view = terminal.view(f"mmstream {node}", out)
    async with graph.spooling(settings.store, clock, node=node) as spool:
        web = graph.web(settings)
        shown = (view,) if web is None else (view, web)
        to = (*graph.sinks(settings, clock, boot_id=boot_id, spool=spool), *shown)
        brokers = tuple(sink for sink in to if isinstance(sink, MqttSink))
        sources = ConfiguredSources(settings, clock, reload)
        snapshots = graph.snapshots(settings, brokers, sources.masks)
        if snapshots is not None:
            to = (*to, snapshots)
        ledger = Ledger(spool, clock) if spool is not None else None
        built = replace(
            graph.build(settings, clock, to),
            inlets=brokers,
            blueprint=sources,
            left_open=await spool.open_events(boot_id) if spool is not None else (),
            overrides=await ledger.overrides() if ledger is not None else (),
            keeper=ledger,
            snapshots=snapshots,
            meters=(spool.metrics,) if spool is not None else (),
        )
        runtime = LocalRuntime(built, clock, boot_id=boot_id)
        view.watch(runtime.statuses)
        if web is not None:
            web.watch(runtime.look, broker=brokers[0] if brokers else None, store=spool)
        await serve(runtime, strict=strict)
    return runtime.failures()
