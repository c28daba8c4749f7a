"""Trained weights on disk: model.safetensors, config.json, card.md. Nothing is ever unpickled.

    save(folder, model, identity, card) -> the checkpoint's id
    checkpoint = read(folder, AvpSettings, task="digits", rate_hz=16_000)
    model = Avp(checkpoint.settings)
    checkpoint.fill(model)

The id is a hash of weights and configuration: the same numbers have the same id wherever they lie.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, Literal, TypeVar

import safetensors.torch
import torch
from pydantic import Field, JsonValue, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from mmstream.config import Settings
from mmstream.errors import ScorerError
from mmstream.models import content
from mmstream.models.content import content_id, read_bytes

WEIGHTS: Final = content.WEIGHTS
CONFIG: Final = content.CONFIG
CARD: Final = "card.md"
_PICKLED = frozenset({".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"})
_HALVES = frozenset({torch.float16, torch.bfloat16})
"""What weights of 32 bits may be stored as."""
_MOST_NAMED = 5


class Identity(Settings):
    """What a checkpoint is for, whatever its model."""

    task: str = Field(min_length=1)
    """What it was trained to tell, such as `digits`."""
    rate_hz: int | None = Field(gt=0)
    """Samples per second of the sound it takes; None: it takes no sound."""
    trained: bool
    """False: the weights are random."""


class _Config(Settings):
    """config.json."""

    version: Literal[1] = 1
    identity: Identity
    settings: dict[str, JsonValue]


M = TypeVar("M", bound=Settings)


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint(Generic[M]):
    """A checkpoint as read; its weights are not in a model yet."""

    id: str
    """16 hexadecimal digits."""
    folder: Path
    identity: Identity
    settings: M
    """Of the model."""
    weights: dict[str, Tensor]
    """By name, on the CPU."""

    def fill(self, model: nn.Module) -> None:
        """Put the weights into a model built from `settings`; all of them and no others.

        Those stored as float16 or bfloat16 are taken where the model has float32.

        Raises:
            ScorerError: some are missing, unexpected, of another shape or type, or not finite.
        """
        wanted = model.state_dict()
        both = wanted.keys() & self.weights.keys()
        alike = {name for name in both if _fits(self.weights[name], wanted[name])}
        problems = [
            _listed("missing", wanted.keys() - self.weights.keys()),
            _listed("unexpected", self.weights.keys() - wanted.keys()),
            _listed(
                "of another shape",
                {
                    f"{name} {list(self.weights[name].shape)}, not {list(wanted[name].shape)}"
                    for name in both
                    if wanted[name].shape != self.weights[name].shape
                },
            ),
            _listed(
                "of another type",
                {
                    f"{name} {self.weights[name].dtype}, not {wanted[name].dtype}"
                    for name in both - alike
                },
            ),
            _listed("not finite", {name for name in alike if not _finite(self.weights[name])}),
        ]
        if any(problems):
            msg = f"{self.folder / WEIGHTS}: weights {'; '.join(filter(None, problems))}"
            raise ScorerError(msg)
        model.load_state_dict(self.weights)


def save(
    folder: Path,
    model: nn.Module,
    settings: Settings,
    identity: Identity,
    card: str,
    *,
    half: bool = False,
) -> str:
    """Write a checkpoint; give its id, which the card has no part in.

    Each file is written beside itself and renamed, config.json last: a crash leaves no half file.

    Args:
        folder: made if it is not there.
        model: its weights.
        settings: what the model is built from.
        identity: what it is for.
        card: Markdown, with measured numbers.
        half: store float32 as float16, in half the room; `fill` turns it back.

    Raises:
        ScorerError: the folder cannot be made or written to, or numbers are too large for float16.
    """
    weights = {name: w.detach().cpu().clone() for name, w in model.state_dict().items()}
    if half:
        weights = _halved(folder, weights)
    config = _Config(identity=identity, settings=settings.model_dump(mode="json"))
    packed = safetensors.torch.save({name: w.contiguous() for name, w in weights.items()})
    written = (config.model_dump_json(indent=2) + "\n").encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / WEIGHTS, packed)
        _replace(folder / CARD, card.encode())
        _replace(folder / CONFIG, written)
    except OSError as error:
        msg = f"{folder}: the model cannot be saved there: {error.strerror}"
        raise ScorerError(msg) from None
    return content_id(written, packed)


def read(
    folder: Path,
    kind: type[M],
    *,
    task: str,
    rate_hz: int | None,
    untrained: Literal["refuse", "allow"] = "refuse",
) -> Checkpoint[M]:
    """The checkpoint in `folder`, if it is what the caller wants.

    Args:
        folder: with config.json and model.safetensors.
        kind: the settings of the model that the weights are for.
        task: what it must have been trained for.
        rate_hz: of the sound it will get; None: none.
        untrained: whether random weights may pass.

    Raises:
        ScorerError: a file is missing or is something else, the task or rate is another, the
            weights are pickled, or random and that is not allowed; the text names what.
    """
    refuse_pickle(folder)
    written = read_bytes(folder / CONFIG)
    try:
        config = _Config.model_validate_json(written)
        settings = kind.model_validate(config.settings)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        keys = ".".join(str(key) for key in first["loc"])
        where = f"{folder / CONFIG}: not of a {kind.__name__} model: {keys}"
        msg = f"{where}{keys and ': '}{first['msg']}"
        raise ScorerError(msg) from None
    _refuse_other(folder, config.identity, task=task, rate_hz=rate_hz)
    if not config.identity.trained and untrained == "refuse":
        msg = (
            f"{folder}: the weights are random, nobody trained them; "
            "only `untrained: allow` runs them"
        )
        raise ScorerError(msg)
    packed = read_bytes(folder / WEIGHTS)
    try:
        weights = safetensors.torch.load(packed)
    except SafetensorError as error:
        msg = f"{folder / WEIGHTS}: not a whole safetensors file: {error}"
        raise ScorerError(msg) from None
    except KeyError as error:  # what the library says of a type that it does not map to torch's
        msg = f"{folder / WEIGHTS}: weights of the type {error} are not read"
        raise ScorerError(msg) from None
    return Checkpoint(content_id(written, packed), folder, config.identity, settings, weights)


def refuse_pickle(path: Path) -> None:
    """Let pass a folder that has safetensors, and a file or folder with no pickle.

    Raises:
        ScorerError: all it offers are files that may run code when they are read; or it cannot be
            looked at.
    """
    try:
        files = list(path.iterdir()) if path.is_dir() else [path]
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise ScorerError(msg) from None
    pickled = sorted(file.name for file in files if file.suffix.lower() in _PICKLED)
    if WEIGHTS in {file.name for file in files}:
        pickled = []
    if pickled:
        msg = (
            f"{path}: {', '.join(pickled)} may run code when it is read and is refused; "
            f"weights are taken from {WEIGHTS} only"
        )
        raise ScorerError(msg)


def _refuse_other(folder: Path, identity: Identity, *, task: str, rate_hz: int | None) -> None:
    if identity.task != task:
        msg = f"{folder}: trained for the task {identity.task!r}, not for {task!r}"
        raise ScorerError(msg)
    if identity.rate_hz != rate_hz:
        has, wanted = (f"{r} Hz" if r else "no sound" for r in (identity.rate_hz, rate_hz))
        msg = f"{folder}: made for {has}, not for {wanted}"
        raise ScorerError(msg)


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.part")
    beside.write_bytes(content)
    beside.replace(path)


def _halved(folder: Path, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same with float32 as float16; whole numbers and flags stay."""
    halved = {
        name: weight.half() if weight.dtype == torch.float32 else weight
        for name, weight in weights.items()
    }
    lost = {name for name in weights if _finite(weights[name]) and not _finite(halved[name])}
    if lost:
        msg = f"{folder}: weights {_listed('too large for float16 (65504 at most)', lost)}"
        raise ScorerError(msg)
    return halved


def _fits(stored: Tensor, wanted: Tensor) -> bool:
    """Whether the model can take weights of that type."""
    if stored.dtype in _HALVES and wanted.dtype == torch.float32:
        return True
    return stored.dtype == wanted.dtype


def _finite(weight: Tensor) -> bool:
    return bool(torch.isfinite(weight).all())


def _listed(what: str, names: set[str]) -> str:
    """`missing: a, b and 3 more`, or nothing."""
    shown = ", ".join(sorted(names)[:_MOST_NAMED])
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{what}: {shown}{more}" if names else ""
