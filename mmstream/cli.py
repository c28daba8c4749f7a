"""The command line. Heavy imports happen inside the commands, so that `--help` answers at once."""

import asyncio
import gc
import json
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, NoReturn

import typer

from mmstream import __version__, cli_caption, cli_evaluate, cli_events, cli_models
from mmstream.clock import SystemClock
from mmstream.errors import ConfigError, MmstreamError, SourceError, UnreachableError
from mmstream.logs import LogFormat, set_up

if TYPE_CHECKING:
    from mmstream.pipelines.configuration import Configuration

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3

app = typer.Typer(
    name="mmstream",
    help="Sound and sight on one clock, published over MQTT.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(cli_events.app, name="events")

models = typer.Typer(help="Trained models.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(models, name="models")

Config = Annotated[str, typer.Argument(metavar="CONFIG|RECIPE", help="A YAML file, or a name.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a key of the configuration."),
]
Web = Annotated[bool, typer.Option("--web/--no-web", help="Serve metrics and health.")]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here too.")
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Exit 3 when a source or broker is not reached at the start."),
]


class Speed(StrEnum):
    """How fast a recording is read."""

    AS_FAST_AS_IT_GOES = "max"
    AS_IT_PLAYS = "1"


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=lambda asked: _print_version(asked=asked)
        ),
    ] = False,
) -> None:
    """Sound and sight on one clock, published over MQTT."""


def _print_version(*, asked: bool) -> None:
    if asked:
        typer.echo(f"mmstream {__version__}")
        raise typer.Exit


@app.command()
def run(
    config: Config,
    overrides: Overrides = None,
    *,
    strict: Strict = False,
    web: Web = True,
    log_format: Annotated[
        LogFormat, typer.Option(help="What stderr gets: lines for people, or JSON lines.")
    ] = LogFormat.TEXT,
) -> None:
    """Run a configuration until its sources have ended, or Ctrl-C."""
    from mmstream.pipelines import surveillance

    set_up(log_format)
    if not web:
        overrides = [*(overrides or ()), "web=false"]
    settings = _load(config, overrides)
    # What a program reads must not be mixed with what a person reads.
    out = sys.stderr if settings.sinks.writes_to_stdout else sys.stdout
    if out is sys.stderr and log_format is LogFormat.JSON:
        out = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open until the end
    reload = partial(_load, config, overrides)
    failures = asyncio.run(
        surveillance.run(settings, SystemClock(), out, strict=strict, reload=reload)
    )
    _exit_if_all_failed(failures, len(settings.sources))


@app.command()
def replay(
    media: Annotated[str, typer.Argument(help="A recording.")],
    recipe: Annotated[str, typer.Option(help="A YAML file, or a name.")] = "surveillance",
    out: Annotated[str, typer.Option(metavar="FILE.jsonl", help="`-` is standard output.")] = "-",
    speed: Annotated[
        Speed, typer.Option(help="As fast as it goes, or as it plays.")
    ] = Speed.AS_FAST_AS_IT_GOES,
    epoch: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%dT%H:%M:%S%z"], help="UTC instant of its start.")
    ] = "1970-01-01T00:00:00Z",  # type: ignore[assignment]  # typer parses the default
    overrides: Overrides = None,
) -> None:
    """Read one recording through a recipe into JSON lines: the same lines each time."""
    from pydantic import ValidationError

    from mmstream.pipelines import replay as recipe_of_replay
    from mmstream.sources.media import MediaSettings

    pace: Literal["max", "realtime"] = "max" if speed is Speed.AS_FAST_AS_IT_GOES else "realtime"
    try:
        source = MediaSettings(type="media", url=media, pace=pace, epoch=epoch)
    except ValidationError as error:
        raise ConfigError(
            "; ".join(f"--{e['loc'][0]}: {e['msg']}" for e in error.errors())
        ) from None
    settings, clock = _load(recipe, overrides), SystemClock()
    recipe_of_replay.check(source, out, clock)
    failures = asyncio.run(recipe_of_replay.run(settings, source, out, clock))
    _exit_if_all_failed(failures, 1)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="A training, or a table.")],
    rows: Annotated[
        list[str] | None, typer.Option("--row", help="Train only this one; may be repeated.")
    ] = None,
    media: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where recordings are; by default as it is written."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where results go; by default runs/CONFIG."),
    ] = None,
) -> None:
    """Train models, test them, and write a report (docs/training.md)."""
    from mmstream.benchmarks import machine
    from mmstream.pipelines import train as recipe
    from mmstream.pipelines.train_plan import check as check_plan
    from mmstream.training import results

    folder = out or Path("runs") / config.stem
    places = [f"--{name}={place}" for name, place in (("media", media), ("out", out)) if place]
    command = shlex.join(["mmstream", "train", str(config), *places])
    try:
        plan = check_plan(config, rows or (), media=media, folder=folder, command=command)
        done = recipe.run(plan, machine.describe())
    except KeyboardInterrupt:
        again = shlex.join(f"--row={row}" for row in rows or ())
        typer.echo(f"mmstream: stopped; go on with: {command} {again}".rstrip(), err=True)
        raise typer.Exit(EXIT_FAILED) from None
    if done is None:
        typer.echo(f"rows are left; they are tested when all are trained: {command}")
    else:
        typer.echo(f"{results.plain(done.table)}\n\n{done.page}")


app.command()(cli_caption.caption)
app.command()(cli_evaluate.evaluate)
app.command()(cli_models.pretrain)
app.command()(cli_models.teach)
app.command()(cli_models.learn)


@app.command()
def check(config: Config, overrides: Overrides = None) -> None:
    """Say whether a configuration is right and, if not, where and what is allowed."""
    settings = _load(config, overrides)
    sources = ", ".join(f"{name} ({source.type})" for name, source in settings.sources.items())
    typer.echo(f"{config}: right; node {settings.node}, sources {sources}")


@app.command()
def devices(
    *,
    meter: Annotated[
        bool, typer.Option("--meter", help="Show how loud the default microphone is, until Ctrl-C.")
    ] = False,
) -> None:
    """List cameras and microphones, what is missing, and how to get it."""
    from mmstream.pipelines import devices as recipe

    recipe.show(sys.stdout, SystemClock(), meter=meter)


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(min=1, help="For how long.")] = 60.0,
    *,
    web: Web = True,  # noqa: ARG001 - accepted from the start, the view itself comes later
) -> None:
    """Show it working: a made-up scene, an embedded broker, and what was understood of it."""
    from mmstream.pipelines import demo as recipe

    if sys.stdout is None:
        msg = "the demo shows itself on standard output, which is closed"
        raise ConfigError(msg)
    settings = _load("demo", None)
    asyncio.run(recipe.run(settings, SystemClock(), sys.stdout, seconds=seconds))


@models.command("list")
def list_models(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER")] = Path("runs"),
) -> None:
    """List the trained models in and below a folder."""
    from mmstream.pipelines import models as recipe

    typer.echo(recipe.listed(folder))


@models.command()
def info(folder: Annotated[Path, typer.Argument(metavar="FOLDER")]) -> None:
    """Say what a trained model is, and whether its weights are whole."""
    from mmstream.pipelines import models as recipe

    typer.echo(recipe.described(folder))


@app.command()
def schema(
    name: Annotated[str, typer.Argument(help="A kind of message, or `config`.")] = "config",
) -> None:
    """Print the JSON Schema of the configuration, or of a kind of message."""
    from mmstream.pipelines import configuration

    schemas = configuration.schemas()
    if name not in schemas:
        msg = f"no schema {name!r}; there are: {', '.join(sorted(schemas))}"
        raise ConfigError(msg)
    typer.echo(json.dumps(schemas[name], indent=2))


@app.command()
def bench(
    name: Annotated[
        str,
        typer.Argument(
            help="One of: avp, captions, captions-live, chaos, drift, overhead, rtsp, senses, "
            "worker."
        ),
    ],
    json_file: JsonFile = None,
) -> None:
    """Measure something beside a baseline in the same run."""
    from mmstream import benchmarks

    benchmarks.run(name, json_file)


def _load(config: str, overrides: list[str] | None) -> "Configuration":
    from mmstream.config import load
    from mmstream.pipelines.configuration import Configuration, find

    return load(find(config), Configuration, overrides or ())


def _exit_if_all_failed(failures: Sequence[SourceError], n_sources: int) -> None:
    """Each failure has been logged when it happened."""
    if len(failures) == n_sources:
        raise typer.Exit(EXIT_FAILED)


def _fail(error: MmstreamError, status: int) -> NoReturn:
    for line in str(error).splitlines():
        logging.getLogger("mmstream").error(line)
    sys.exit(status)


def main() -> None:
    """Run the command line; an error of ours is one line on stderr and an exit status."""
    set_up(LogFormat.TEXT)
    try:
        app()
    except ConfigError as error:
        _fail(error, EXIT_USAGE)
    except UnreachableError as error:
        _fail(error, EXIT_UNREACHABLE)
    except MmstreamError as error:
        _fail(error, EXIT_FAILED)
    finally:
        gc.freeze()  # with torch loaded, the last search for cycles would take 0.3 s
