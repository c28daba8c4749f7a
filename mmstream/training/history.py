"""What was measured after each epoch, kept as JSON Lines: one epoch, one line."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from mmstream.config import Settings
from mmstream.errors import ConfigError
from mmstream.media import Modality


class ModalityRecord(Settings):
    """What one modality did in an epoch of training, as the mean of its steps."""

    loss: float
    """Of its own heads, in nats."""
    gradient_share: float = Field(ge=0, le=1)
    """Its encoder's gradient norm, of the sum of all encoders'."""
    coefficient: float = Field(ge=0)
    """What its gradients were multiplied by to balance the modalities; 1: nothing was done."""


class EpochRecord(Settings):
    """One epoch."""

    epoch: int = Field(ge=0)
    """From 0."""
    n_steps: int = Field(ge=0)
    """Steps of the optimiser, of all epochs so far."""
    secs: float = Field(ge=0)
    """How long it took, validation included."""
    learning_rate: float = Field(ge=0)
    """Of its last step."""
    loss_train: float
    """Mean of its steps, in nats, dropout and smoothing included."""
    loss_val: float
    """Cross-entropy on the validation split, in nats, summed over tasks."""
    accuracy_val: Mapping[str, float]
    """By task, 0..1."""
    modalities: Mapping[Modality, ModalityRecord] = Field(default_factory=dict)
    """Those that were trained."""


def append(path: Path, record: EpochRecord) -> None:
    """Add an epoch; those from its number on, which a crash left behind, are dropped first.

    The file is written beside itself and renamed: whoever reads it finds whole lines.

    Raises:
        ConfigError: what is there is not a history.
    """
    before = read(path) if path.exists() else ()
    kept = [one for one in before if one.epoch < record.epoch]
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    beside.write_text("".join(one.model_dump_json() + "\n" for one in [*kept, record]), "utf-8")
    beside.replace(path)


def read(path: Path) -> tuple[EpochRecord, ...]:
    """All epochs, in order.

    Raises:
        ConfigError: it cannot be read, or a line is something else; the text names the line.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise ConfigError(msg) from None
    except UnicodeDecodeError:
        msg = f"{path}: no UTF-8 text"
        raise ConfigError(msg) from None
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(EpochRecord.model_validate_json(line))
        except ValidationError:
            msg = f"{path}:{number}: not an epoch of a training history"
            raise ConfigError(msg) from None
    return tuple(records)
