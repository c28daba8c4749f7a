"""`mmstream evaluate`: recordings beside their truth; heavy imports happen inside the command."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmstream.clock import SystemClock
from mmstream.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import JsonValue

    from mmstream.pipelines.configuration import Configuration

Truth = Annotated[
    Path,
    typer.Argument(
        metavar="TRUTH.tsv|CHECKPOINT", help="Labelled recordings, or a model for --manifest."
    ),
]


Recipe = Annotated[
    str | None,
    typer.Option(help="A YAML file, or a name; by default surveillance, for words captioning."),
]
Media = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Where recordings are; by default beside the truth."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a key of the recipe."),
]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be judged, and where figures go."""

    truth: Path
    recipe: str
    overrides: Sequence[str]
    media: Path
    json_file: Path | None
    png_file: Path | None
    as_markdown: bool

    @property
    def outputs(self) -> list[Path]:
        return [file for file in (self.json_file, self.png_file) if file is not None]

    def load(self) -> "Configuration":
        from mmstream.config import load
        from mmstream.pipelines.configuration import Configuration, find

        return load(find(self.recipe), Configuration, self.overrides)


def evaluate(  # noqa: PLR0913 - each is an option of its own
    truth: Truth,
    recipe: Recipe = None,
    media: Media = None,
    overrides: Overrides = None,
    labels: Annotated[
        list[str] | None, typer.Option("--label", help="Judge only this one; may be repeated.")
    ] = None,
    slack: Annotated[
        float,
        typer.Option(min=0, max=60, help="Seconds between an event and a truth that still match."),
    ] = 0.5,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here too.")
    ] = None,
    png_file: Annotated[
        Path | None, typer.Option("--png", metavar="FILE", help="Draw them here.")
    ] = None,
    *,
    manifest: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Test a trained model on the test split of this."),
    ] = None,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table as Markdown.")
    ] = False,
) -> None:
    """Replay labelled recordings and lay what is said beside the truth (docs/evaluate.md).

    A truth with transcripts is judged by its words. With --manifest: ask a trained model about the
    test split (docs/training.md).
    """
    from mmstream.pipelines import transcripts

    if manifest is not None or truth.is_dir():
        if manifest is None or overrides or labels:
            msg = f"{truth}: a trained model needs --manifest, and has no --set and no --label"
            raise ConfigError(msg)
        _evaluate_model(truth, manifest, media, json_file, png_file, as_markdown=as_markdown)
        return
    is_of_words = transcripts.is_of_words(truth)
    asked = _Asked(
        truth,
        recipe or ("captioning" if is_of_words else "surveillance"),
        overrides or (),
        media or truth.parent,
        json_file,
        png_file,
        as_markdown,
    )
    if is_of_words:
        if labels or png_file is not None:
            msg = f"{truth}: words have no --label and no --png"
            raise ConfigError(msg)
        _evaluate_words(asked)
    else:
        _evaluate_events(asked, labels or (), slack)


def _evaluate_events(asked: _Asked, labels: Sequence[str], slack: float) -> None:
    from mmstream.pipelines import evaluate as recipe
    from mmstream.pipelines import scoreboard

    settings, clock = asked.load(), SystemClock()
    judged = recipe.check(settings, asked.truth, asked.media, labels, clock)
    recordings = {asked.media / one.file for one in judged}
    recipe.check_outputs(asked.outputs, [asked.truth, *recordings])
    report = recipe.run(settings, judged, asked.media, clock, slack_secs=slack)
    typer.echo(scoreboard.markdown(report) if asked.as_markdown else scoreboard.plain(report))
    _write_json(asked, report.model_dump())
    if asked.png_file is not None:
        from mmstream.pipelines import chart

        with recipe.writing(asked.png_file):
            chart.draw(report, asked.png_file)


def _evaluate_words(asked: _Asked) -> None:
    from mmstream.pipelines import evaluate_words as recipe
    from mmstream.pipelines import word_table
    from mmstream.pipelines.evaluate import check_outputs

    settings, clock = asked.load(), SystemClock()
    judged = recipe.check(settings, asked.truth, asked.media, clock)
    recordings = {asked.media / one.file for one in judged.transcripts}
    check_outputs(asked.outputs, [asked.truth, *recordings])
    report = recipe.run(judged, asked.media, clock)
    typer.echo(word_table.markdown(report) if asked.as_markdown else word_table.plain(report))
    _write_json(asked, report.model_dump())


def _write_json(asked: _Asked, figures: "dict[str, JsonValue]") -> None:
    from mmstream.benchmarks import machine
    from mmstream.pipelines.evaluate import writing

    if asked.json_file is None:
        return
    what = {"truth": asked.truth.name, "recipe": asked.recipe, "set": list(asked.overrides)}
    record = {**what, **machine.describe(), **figures}
    with writing(asked.json_file):
        asked.json_file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _evaluate_model(
    checkpoint: Path,
    manifest: Path,
    media: Path | None,
    json_file: Path | None,
    png_file: Path | None,
    *,
    as_markdown: bool,
) -> None:
    from mmstream.benchmarks import machine
    from mmstream.pipelines import evaluate_model as recipe
    from mmstream.pipelines.evaluate import check_outputs, writing

    files = [file for file in (json_file, png_file) if file is not None]
    check_outputs(files, [manifest, *(path for path in checkpoint.rglob("*") if path.is_file())])
    said = recipe.run(checkpoint, manifest, media)
    typer.echo(recipe.table(said, as_markdown=as_markdown))
    if json_file is not None:
        asked = {"checkpoint": str(checkpoint), "manifest": manifest.name}
        tasks = [task.model_dump(mode="json") for task in recipe.tasks(said)]
        record = {**asked, **machine.describe(), "tasks": tasks}
        with writing(json_file):
            json_file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if png_file is not None:
        with writing(png_file):
            recipe.draw(said, png_file)
