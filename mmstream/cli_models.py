"""`mmstream pretrain`, `teach` and `learn`; heavy imports happen inside them."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from mmstream.clock import SystemClock
from mmstream.errors import ConfigError

if TYPE_CHECKING:
    from mmstream.models.avp_spec import AvpSpec
    from mmstream.pipelines.configuration import Configuration
    from mmstream.stages import Source

_FAILED: Final = 1
_NS_PER_SEC: Final = 1_000_000_000
_YAML: Final = frozenset({".yaml", ".yml"})

Config = Annotated[
    str, typer.Option("--config", metavar="CONFIG|RECIPE", help="Of the node that is to know it.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a key of the configuration."),
]
Weights = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="Another model; by default the configuration's."),
]


def pretrain(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="A pre-training.")],
    media: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where recordings are; by default as it is written."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where results go; by default runs/CONFIG."),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Pre-train a model of sound and sight, and say what it knows (docs/training.md)."""
    from mmstream.benchmarks import machine
    from mmstream.pipelines import pretrain as recipe

    folder = out or Path("runs") / config.stem
    places = [f"--{name}={place}" for name, place in (("media", media), ("out", out)) if place]
    places += [f"--set={override}" for override in overrides or ()]
    try:
        settings = recipe.read_settings(config, media=media, overrides=overrides or ())
        report = recipe.run(settings, folder, machine.describe())
    except KeyboardInterrupt:
        again = shlex.join(["mmstream", "pretrain", str(config), *places])
        typer.echo(f"mmstream: stopped; go on with: {again}", err=True)
        raise typer.Exit(_FAILED) from None
    typer.echo(recipe.plain(report))


def teach(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="LABEL CLIP...", help="A name, and 3 to 10 recordings of it."),
    ] = None,
    config: Config = "surveillance",
    weights: Weights = None,
    overrides: Overrides = None,
    *,
    forget: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Forget what was taught under this name.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List what was taught.")] = False,
) -> None:
    """Teach something to hear or see with a few recordings of it; a run tells it at once."""
    from mmstream.pipelines import teach as recipe

    asked = [bool(words), forget is not None, list_]
    if sum(asked) != 1:
        msg = "teach: one of LABEL CLIP..., --list and --forget LABEL"
        raise ConfigError(msg)
    settings = _load(config, weights, overrides)
    spec = _model(settings)
    if words:
        label, *clips = words
        paths = [Path(clip) for clip in clips]
        recipe.teach(label, paths, spec, settings.hops, clock=SystemClock(), tell=typer.echo)
    elif forget is not None:
        typer.echo(f"{forget}: forgotten; {recipe.forget(forget, spec)} is gone")
    else:
        typer.echo(recipe.listed(spec))


def learn(
    what: Annotated[
        str, typer.Argument(metavar="CONFIG|RECIPE|MEDIA", help="With the source, or a recording.")
    ],
    source: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which source; of a recording, for which."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.25, help="For how long; by default to the end.")
    ] = None,
    begins: Annotated[
        list[float] | None,
        typer.Option("--from", metavar="SECONDS", help="Only from here on; may be repeated ..."),
    ] = None,
    ends: Annotated[
        list[float] | None,
        typer.Option("--to", metavar="SECONDS", help="... with as many of these."),
    ] = None,
    config: Config = "surveillance",
    weights: Weights = None,
    overrides: Overrides = None,
) -> None:
    """Learn what is normal for a source; a run then tells what is `unusual` there, at once."""
    from mmstream.pipelines import learn as recipe

    which = recipe.lessons(seconds=seconds, begins=begins or (), ends=ends or ())
    is_media = Path(what).is_file() and Path(what).suffix not in _YAML
    settings = _load(config if is_media else what, weights, overrides)
    watched = _recording(what, source, settings) if is_media else _source(source, settings)
    spec, clock = _model(settings), SystemClock()
    with _bar(which.length_ns) as progress:
        told = recipe.learn(watched, spec, settings.hops, which, clock=clock, progress=progress)
    typer.echo(told)


def _load(config: str, weights: str | None, overrides: list[str] | None) -> "Configuration":
    from mmstream.config import load
    from mmstream.pipelines.configuration import Configuration, find

    model = [] if weights is None else [f"detectors.avp.weights={json.dumps(weights)}"]
    return load(find(config), Configuration, [*(overrides or ()), *model])


def _model(settings: "Configuration") -> "AvpSpec":
    if settings.detectors.avp is False:
        msg = "detectors.avp is false: nothing is there that could learn; allowed: avp: {}"
        raise ConfigError(msg)
    return settings.detectors.avp.of_node(settings.node)


def _recording(media: str, source: str | None, settings: "Configuration") -> "Source":
    from mmstream.messages import ID_PATTERN, RESERVED_SOURCES
    from mmstream.pipelines import graph
    from mmstream.pipelines.replay import source_id
    from mmstream.sources.media import MediaSettings

    name = source_id(media) if source is None else source
    if re.fullmatch(ID_PATTERN, name) is None or name in RESERVED_SOURCES:
        msg = f"--source {name!r}; allowed: a source's name, letters, digits, _ and -"
        raise ConfigError(msg)
    recording = MediaSettings(type="media", url=media, pace="max")
    return graph.source_of(name, recording, SystemClock(), settings.hops.rate_hz)


def _source(name: str | None, settings: "Configuration") -> "Source":
    from mmstream.pipelines import graph
    from mmstream.sources.media import MediaSettings

    names = list(settings.sources)
    if name is None and len(names) == 1:
        (name,) = names
    if name is None or name not in settings.sources:
        msg = f"--source {name or 'NAME'}: which source? allowed: {', '.join(names)}"
        raise ConfigError(msg)
    watched = settings.sources[name]
    if isinstance(watched, MediaSettings):
        watched = watched.model_copy(update={"pace": "max"})
    return graph.source_of(name, watched, SystemClock(), settings.hops.rate_hz)


@contextmanager
def _bar(length_ns: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, where that is a terminal; gives what moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.completed:.0f} s learned"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    is_hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=is_hidden) as progress:
        total_secs = None if length_ns is None else length_ns / _NS_PER_SEC
        task = progress.add_task("learning", total=total_secs)
        yield lambda passed_ns: progress.update(task, completed=passed_ns / _NS_PER_SEC)
