"""What trained models are there, and what one is: without unpickling or running anything."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import yaml
from pydantic import JsonValue, ValidationError

from mmstream.config import Settings
from mmstream.errors import ConfigError, MmstreamError
from mmstream.models import checkpoint
from mmstream.models.avp import TASK, Avp, AvpSettings
from mmstream.models.avp_spec import AVP_SMALL
from mmstream.models.checkpoint import CARD, CONFIG, WEIGHTS, Checkpoint, Identity
from mmstream.models.mmt import Mmt, MmtSettings, rebuilt
from mmstream.pipelines.evaluate_model import checkpoint_in
from mmstream.training.results import aligned

COLUMNS: Final = ("model", "task", "modalities", "parameters", "MB", "id")
TRAINED: Final = Path("runs")
"""Where `mmstream train` leaves its models; it need not be there."""

AnyCheckpoint = Checkpoint[MmtSettings] | Checkpoint[AvpSettings]


class _Config(Settings):
    """config.json, whatever its model."""

    version: Literal[1]
    identity: Identity
    settings: dict[str, JsonValue]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A model whose weights are whole."""

    checkpoint: AnyCheckpoint
    n_parameters: int
    n_bytes: int
    """Of the weights."""


def read(folder: Path) -> Found:
    """The model in `folder`, or in `best` below it, or `avp-small`.

    Raises:
        ScorerError: there is none, its weights are pickled, damaged, missing in part or of
            another model; the text says what.
    """
    folder = checkpoint_in(folder)
    identity = _identity(folder)
    rate_hz = identity.rate_hz
    if identity.task == TASK:
        avp = checkpoint.read(folder, AvpSettings, task=TASK, rate_hz=rate_hz, untrained="allow")
        return _filled(avp, Avp(avp.settings))
    mmt = checkpoint.read(
        folder, MmtSettings, task=identity.task, rate_hz=rate_hz, untrained="allow"
    )
    return _filled(mmt, rebuilt(mmt.settings))


def _filled(kept: AnyCheckpoint, model: Mmt | Avp) -> Found:
    kept.fill(model)
    n_parameters = sum(weight.numel() for weight in model.parameters())
    return Found(kept, n_parameters, (kept.folder / WEIGHTS).stat().st_size)


def listed(folder: Path) -> str:
    """A line for `avp-small` and each model in or below `folder`; what is wrong with the damaged.

    Raises:
        ConfigError: there is no such folder.
    """
    if not folder.is_dir() and folder != TRAINED:
        msg = f"{folder}: no such folder; `mmstream train` makes models in {TRAINED}/"
        raise ConfigError(msg)
    places = sorted(path.parent for path in folder.rglob(WEIGHTS))
    rows, damaged = [], []
    for place in (Path(AVP_SMALL), *places):
        try:
            found = read(place)
        except MmstreamError as error:
            damaged.append(str(error))
        else:
            rows.append(_cells(place, found))
    none = [] if places else [f"{folder}: no models"]
    lines = aligned((COLUMNS, *rows)) if rows else []
    return "\n".join([*lines, *damaged, *none])


def described(folder: Path) -> str:
    """All that is known of the model in `folder`.

    Raises:
        ScorerError: as `read`.
    """
    found = read(folder)
    read_as, identity = found.checkpoint, found.checkpoint.identity
    facts = {
        "folder": str(read_as.folder),
        "id": read_as.id,
        "task": identity.task,
        "sound": f"{identity.rate_hz} Hz" if identity.rate_hz else "none",
        "trained": "yes" if identity.trained else "no, the weights are random",
        "modalities": ", ".join(read_as.settings.fusion.modalities),
        "parameters": f"{found.n_parameters:,}",
        "size": f"{_megabytes(found)} MB",
    }
    settings = yaml.safe_dump(
        read_as.settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True
    )
    return "\n".join(
        [
            *(f"{f'{name}:':<12} {text}" for name, text in facts.items()),
            "",
            "settings:",
            *(f"  {line}" for line in settings.splitlines()),
            "",
            *_card(read_as.folder / CARD),
        ]
    )


def _identity(folder: Path) -> Identity:
    """What it is for; where that cannot be read, anything: `checkpoint.read` then says why."""
    try:
        return _Config.model_validate_json((folder / CONFIG).read_bytes()).identity
    except (OSError, ValidationError):
        return Identity(task="?", rate_hz=None, trained=False)


def _cells(place: Path, found: Found) -> tuple[str, ...]:
    one = found.checkpoint
    return (
        str(place),
        one.identity.task if one.identity.trained else f"{one.identity.task} (random weights)",
        "+".join(one.settings.fusion.modalities),
        f"{found.n_parameters:,}",
        _megabytes(found),
        one.id,
    )


def _megabytes(found: Found) -> str:
    return f"{found.n_bytes / 1e6:.1f}"


def _card(path: Path) -> Iterator[str]:
    try:
        yield from path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        yield f"no {CARD}"
