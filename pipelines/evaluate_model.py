"""Evaluate a trained model on the test split of a manifest that its training need not have known.

manifest -> shards -> batches -> model -> predictions
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from mmstream.errors import ConfigError
from mmstream.models.avp_spec import AVP_SMALL, AvpSpec
from mmstream.pipelines.train_plan import SETTINGS
from mmstream.pipelines.train_progress import showing
from mmstream.training import report_pictures, results
from mmstream.training.dataset import ExampleDataset, Item
from mmstream.training.loop import BEST
from mmstream.training.manifest import read_manifest
from mmstream.training.predict import load, predict
from mmstream.training.predictions import Predictions
from mmstream.training.settings import Corpus, ManifestData, TrainSettings
from mmstream.training.shards import build_shards, key_of

COLUMNS: Final = ("task", "n", "accuracy", "standard error", "cross-entropy", "confidence", "gates")


class Task(BaseModel):
    """What a model said of one task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    figures: results.Figures
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    """How many of each true class (row) were said to be of each class (column)."""


def checkpoint_in(folder: Path) -> Path:
    """Where the checkpoint is: in the folder, or in `best` below it, as a training leaves it.

    `avp-small` is the one that comes with mmstream, if no folder here is called so.
    """
    if folder == Path(AVP_SMALL) and not folder.exists():
        return AvpSpec().folder
    below = folder / BEST
    return below if below.is_dir() and not (folder / SETTINGS).exists() else folder


def run(checkpoint: Path, manifest: Path, media: Path | None) -> tuple[Predictions, ...]:
    """What the model in `checkpoint` says of the test split, of each task that it is labelled for.

    Only what is tested is decoded, and kept nowhere.

    Raises:
        ConfigError: the training was of other data than a manifest's, or was pre-training, or
            the manifest is wrong.
        SourceError: a recording cannot be read.
        ScorerError: the model cannot be loaded.
        SinkError: there is no room for what is decoded.
    """
    folder = checkpoint_in(checkpoint)
    _refuse_avp(folder)
    settings = _settings(folder / SETTINGS)
    if not isinstance(settings.data, ManifestData):
        msg = (
            f"{folder}: was trained on {settings.data.type}; only a manifest's models can be asked"
        )
        raise ConfigError(msg)
    trained = load(settings, folder)
    if media is not None and not media.is_dir():  # instead of a line for every recording
        msg = f"{media}: no such folder; --media says where recordings are"
        raise ConfigError(msg)
    data = settings.data.model_copy(update={"path": manifest, "media": media})
    entries = [entry for entry in read_manifest(data) if entry.annotation.split == "test"]
    if not entries:
        msg = f"{manifest}: no examples in the split 'test'"
        raise ConfigError(msg)
    with showing() as begin, TemporaryDirectory() as place:
        told = begin(folder.resolve().parent.name, "decoding").counted
        shards = build_shards(Path(place), entries, data.keep, told)
        items = [Item(key_of(entry, data.keep), entry.annotation) for entry in entries]
        said = predict(trained, Corpus({"test": ExampleDataset(items, shards)}, None), "test")
    return tuple(said.values())


def tasks(said: Sequence[Predictions]) -> tuple[Task, ...]:
    """All figures, for a file."""
    return tuple(
        Task(
            figures=results.figures(results.AS_IT_IS, one),
            classes=one.classes,
            confusion=tuple(tuple(row) for row in one.confusion.tolist()),
        )
        for one in said
    )


def table(said: Sequence[Predictions], *, as_markdown: bool) -> str:
    """A row for each task."""
    rows = [_cells(results.figures(results.AS_IT_IS, one)) for one in said]
    lay = results.as_markdown if as_markdown else results.aligned
    return "\n".join(lay((COLUMNS, *rows)))


def draw(said: Sequence[Predictions], path: Path) -> None:
    """Write the confusion of each task as PNG, of several with the task in the name.

    Raises:
        OSError: a file cannot be written.
    """
    for one in said:
        place = path if len(said) == 1 else path.with_stem(f"{path.stem}-{one.task}")
        title = f"{one.task}: {100 * one.accuracy:.1f} % of {len(one)}"
        place.write_bytes(report_pictures.confusion(one, title))


def _cells(one: results.Figures) -> tuple[str, ...]:
    return (
        one.task,
        str(one.n),
        f"{100 * one.accuracy:.1f}",
        f"{100 * one.standard_error:.1f}",
        f"{one.cross_entropy:.3f}",
        f"{100 * one.confidence:.1f}",
        ", ".join(f"{name} {gate:.2f}" for name, gate in one.gates.items()) or "-",
    )


def _refuse_avp(folder: Path) -> None:
    """It reads windows of a stream, not the examples of a manifest."""
    try:
        model = AvpSpec(weights=str(folder))
    except ValidationError:
        return
    msg = (
        f"{folder}: {model.name} is an AVP model, which tells events of a stream and no tasks of a "
        "manifest; allowed: what `mmstream train` finished, or `mmstream evaluate TRUTH.tsv`, "
        "which judges its events"
    )
    raise ConfigError(msg)


def _settings(path: Path) -> TrainSettings:
    try:
        return TrainSettings.model_validate_json(path.read_bytes())
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}; allowed: what `mmstream train` finished"
        raise ConfigError(msg) from None
    except ValidationError:
        msg = f"{path}: not the settings of a training"
        raise ConfigError(msg) from None
