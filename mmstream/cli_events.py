"""`mmstream events`: the commands over the event log; heavy imports happen inside them."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmstream.clock import SystemClock
from mmstream.errors import ConfigError

if TYPE_CHECKING:
    from mmstream.store.event_log import Filter

app = typer.Typer(
    help="Look into the event log on disk, also while a run writes it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Content(StrEnum):
    """What an entry is."""

    EVENT = "event"
    ALERT = "alert"
    CAPTION = "caption"


class ExportForm(StrEnum):
    """What an export is."""

    JSONL = "jsonl"
    CSV = "csv"
    MANIFEST = "manifest"


StoreFile = Annotated[
    Path | None,
    typer.Option("--store", metavar="FILE", help="By default the one in the state folder."),
]
OnlyContent = Annotated[Content | None, typer.Option("--content", help="Only these.")]
OnlySource = Annotated[str | None, typer.Option("--source", help="Only of this source.")]
OnlyLabel = Annotated[str | None, typer.Option("--label", help="Only this label, or rule.")]
OnlyKind = Annotated[
    str | None,
    typer.Option("--kind", help="Only audio, video or av; of captions speech, sound or scene."),
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Began then or later: 2h, 7d, 2026-11-23T10:00."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Began before then.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="At most so many.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]


@app.command("list")
def list_(  # noqa: PLR0913 - each is an option of its own
    store: StoreFile = None,
    content: OnlyContent = None,
    source: OnlySource = None,
    label: OnlyLabel = None,
    kind: OnlyKind = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    *,
    as_json: AsJson = False,
) -> None:
    """List events, alerts and captions, the newest first."""
    from mmstream.pipelines import events

    which = _filter(content, source, label, kind, since, until)
    with events.opened(events.find_store(store)) as log, events.written_to("-") as out:
        events.list_entries(log, which, out, limit=limit, as_json=as_json)


@app.command()
def show(
    entry_id: Annotated[str, typer.Argument(metavar="ID", help="Of an event, alert or caption.")],
    store: StoreFile = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show all that was said of one event, alert or caption."""
    from mmstream.pipelines import events

    with events.opened(events.find_store(store)) as log, events.written_to("-") as out:
        events.show(log, entry_id, out, as_json=as_json)


@app.command()
def search(
    words: Annotated[list[str], typer.Argument(metavar="WORDS", help='`glas*`, `"two words"`.')],
    store: StoreFile = None,
    limit: Limit = 50,
    *,
    as_json: AsJson = False,
) -> None:
    """Find what holds all of these words: captions, labels, rules, sources, notes of evidence."""
    from mmstream.pipelines import events

    with events.opened(events.find_store(store)) as log, events.written_to("-") as out:
        events.search(log, " ".join(words), out, limit=limit, as_json=as_json)


@app.command()
def export(  # noqa: PLR0913 - each is an option of its own
    form: Annotated[
        ExportForm,
        typer.Option("--as", help="Messages as they were said; a line per event; for training."),
    ] = ExportForm.JSONL,
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="`-`: standard output.")] = "-",
    config: Annotated[
        str | None,
        typer.Option(metavar="CONFIG", help="For a manifest: whose recordings the events are of."),
    ] = None,
    store: StoreFile = None,
    *,
    content: OnlyContent = None,
    source: OnlySource = None,
    label: OnlyLabel = None,
    kind: OnlyKind = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Write out everything, or what passes the filters."""
    from mmstream.pipelines import events

    if (config is None) is (form is ExportForm.MANIFEST):
        msg = "--config CONFIG goes with `--as manifest`: it says where which recording is"
        raise ConfigError(msg)
    if form is ExportForm.MANIFEST and content not in {None, Content.EVENT}:
        msg = "--content: a manifest is of events"
        raise ConfigError(msg)
    which = _filter(content, source, label, kind, since, until)
    path = events.find_store(store)
    if config is not None:
        _export_manifest(path, which, config, out)
        return
    export = events.export_table if form is ExportForm.CSV else events.export_messages
    with events.opened(path) as log, events.written_to(out, events.beside(path)) as file:
        export(log, which, file)


@app.command()
def check(store: StoreFile = None) -> None:
    """Say whether the file is sound; reads all of it. Exit status 1 when it is not."""
    from mmstream.pipelines import events

    with events.opened(events.find_store(store)) as log, events.written_to("-") as out:
        is_sound = events.check(log, out)
    if not is_sound:
        raise typer.Exit(1)


def _export_manifest(path: Path, which: "Filter", config: str, out: str) -> None:
    from mmstream.config import load
    from mmstream.pipelines import events, manifest
    from mmstream.pipelines.configuration import Configuration, find

    played = manifest.recordings(load(find(config), Configuration))
    keep = [*events.beside(path), *(Path(one.path) for one in played.values())]
    with events.opened(path) as log, events.written_to(out, keep) as file:
        manifest.export(log, which, file, played=played)


def _filter(
    content: Content | None,
    source: str | None,
    label: str | None,
    kind: str | None,
    since: str | None,
    until: str | None,
) -> "Filter":
    from mmstream.pipelines.events import instant_ns
    from mmstream.store.event_log import Filter

    clock = SystemClock()
    return Filter(
        content=None if content is None else content.value,
        source=source,
        label=label,
        kind=kind,
        since_ns=None if since is None else instant_ns(since, clock, "--since"),
        until_ns=None if until is None else instant_ns(until, clock, "--until"),
    )
