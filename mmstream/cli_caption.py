"""`mmstream caption`: a recording's subtitles; heavy imports happen inside the command."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated

import typer

from mmstream.clock import SystemClock


class Form(StrEnum):
    """What is written."""

    WEBVTT = "vtt"
    SUBRIP = "srt"
    TRANSCRIPT = "txt"


def caption(
    media: Annotated[str, typer.Argument(help="A recording.")],
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FILE", help="`-` is standard output.")
    ] = "-",
    recipe: Annotated[str, typer.Option(help="A YAML file, or a name.")] = "captioning",
    form: Annotated[
        Form | None, typer.Option("--format", help="By default as the suffix of FILE says, or vtt.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a key of the recipe."),
    ] = None,
    *,
    sounds: Annotated[bool, typer.Option(help="Tell what is heard besides speech.")] = True,
    scene: Annotated[bool, typer.Option(help="Tell what is seen.")] = True,
) -> None:
    """Write the subtitles or the transcript of a recording."""
    from mmstream.config import load
    from mmstream.pipelines import caption as pipeline
    from mmstream.pipelines import replay
    from mmstream.pipelines.configuration import Configuration, find
    from mmstream.sinks.subtitle_formats import SubtitleFormat
    from mmstream.sources.media import MediaSettings

    chosen = None if form is None else SubtitleFormat(f".{form}")
    wanted = pipeline.asked(out, chosen, sounds=sounds, scene=scene)
    settings = load(find(recipe), Configuration, overrides or ())
    source, clock = MediaSettings(url=media, pace="max"), SystemClock()
    replay.check(source, out, clock)
    with _bar(media) as heard:
        text = asyncio.run(pipeline.run(settings, source, wanted, clock, heard))
    pipeline.write(text, out)


@contextmanager
def _bar(media: str) -> Iterator[Callable[[int], None]]:
    """A bar in media time on standard error, where that is a terminal; gives what moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from mmstream.codecs.length import length_ns

    console = Console(stderr=True)
    length = length_ns(media)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("captions", total=None if length is None else length / 1e9)

        def heard(at_ns: int) -> None:
            of = "" if length is None else f" of {_minutes(length)}"
            told = f"captions {_minutes(at_ns)}{of}"
            bar.update(task, completed=at_ns / 1e9, description=told)

        yield heard


def _minutes(ns: int) -> str:
    minutes, secs = divmod(ns // 1_000_000_000, 60)
    return f"{minutes}:{secs:02}"
