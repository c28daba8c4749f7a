"""What `mmstream train` made, on live windows of sound, sight and words: which checkpoint, how.

Apart from the scorer (`mmstream.models.mmt_scorer`), so that who only reads a configuration need
not load torch: of a checkpoint only config.json is read here.

    mmt: {weights: runs/claims/deep/best, window_secs: 3, pictures: {width: 28, height: 28}}

The class `true` of the task `claim` is told as `claim_true`: with the task before it, so that the
classes of two tasks are not taken for each other. Questions are not asked live: a model that
answers them besides tells its classes, one that does nothing else is refused.
"""

import re
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from mmstream.config import Settings
from mmstream.errors import ScorerError
from mmstream.media import Label, Modality
from mmstream.models.content import CONFIG
from mmstream.stages import Scorer

_COLOURS: Final = {"luma": 1, "rgb": 3}
_Threshold = Annotated[float, Field(gt=0, lt=1)]


class MmtPictures(Settings):
    """What the model sees: as `keep.pictures` of what it was trained on, the checkpoint has none.

    Pictures of a mouth (`part: mouth`) are not made live.
    """

    width: int = Field(default=64, ge=1, le=1024)
    """Pixels across; the aspect is not kept."""
    height: int = Field(default=64, ge=1, le=1024)
    """Pixels down."""
    fps: int = Field(default=25, ge=1, le=120)
    """At most so many in a second: the first that starts in each 1 / fps of the window."""
    colour: Literal["luma", "rgb"] = "luma"


class MmtSpec(Settings):
    """The spec of `MmtScorer` (`ScorerSpec`)."""

    weights: str = Field(min_length=1)
    """The folder of a checkpoint, such as `runs/claims/deep/best`."""
    window_secs: float = Field(default=2.0, gt=0, le=60)
    """How much of the past is looked at: about as long as what it was trained on. For words, as
    long as they take to be committed too: they count once they are."""
    pictures: MmtPictures = MmtPictures()
    """What it sees, if it does."""
    events: tuple[str, ...] | None = None
    """Which labels are told; by default all. Of classes that exclude each other one is always
    likely: leave out those that are no event."""
    thresholds: Mapping[str, _Threshold] = Field(default_factory=dict)
    """How likely each label is to be where it counts as true; 0.5 where nothing is said."""
    every_secs: float = Field(default=0.0, ge=0, le=0.5)
    """A window is scored each time so much has passed; 0: with each hop. A score holds no longer
    than half a second."""
    untrained: Literal["refuse", "allow"] = "refuse"
    """allow: random weights may speak; for tests and measurements only."""

    @model_validator(mode="after")
    def _check_known(self) -> Self:
        try:
            card = self.card
        except ScorerError as error:
            raise ValueError(str(error)) from None
        known = [column.label for column in card.columns]
        twice = [name for name, n in Counter(known).items() if n > 1]
        if twice:
            msg = f"{self.folder}: two classes of it would both be told as {', '.join(twice)}"
            raise ValueError(msg)
        for key, names in (("events", self.events or ()), ("thresholds", self.thresholds)):
            unknown = [name for name in names if name not in known]
            if unknown:
                msg = f"{key}: not known to {self.folder}: {', '.join(unknown)}; allowed: "
                raise ValueError(msg + ", ".join(known))
        n_channels = card.settings.video and card.settings.video.n_channels
        if n_channels not in (None, _COLOURS[self.pictures.colour]):
            msg = f"pictures.colour: {self.folder} sees {n_channels} channels; luma has 1, rgb 3"
            raise ValueError(msg)
        return self

    @property
    def folder(self) -> Path:
        """Where the checkpoint is."""
        return Path(self.weights)

    @property
    def name(self) -> str:
        """What evidence calls the model: its folder, or the row of a training's `<row>/best`."""
        folder = self.folder
        return (folder.parent.name if folder.name == "best" else folder.name) or "mmt"

    @property
    def rate_hz(self) -> int | None:
        """Samples per second of the sound it hears; None: it hears none.

        Raises:
            ScorerError: there is no such checkpoint.
        """
        return self.card.identity.rate_hz

    @property
    def task(self) -> str:
        """What the checkpoint says that it is for.

        Raises:
            ScorerError: there is no such checkpoint.
        """
        return self.card.identity.task

    @property
    def columns(self) -> tuple["Column", ...]:
        """What is told, in the order of the heads or of `events`.

        Raises:
            ScorerError: there is no such checkpoint.
        """
        every = {column.label: column for column in self.card.columns}
        return tuple(every[name] for name in (every if self.events is None else self.events))

    @property
    def labels(self) -> tuple[Label, ...]:
        """What is told: `av` for a model of several modalities.

        Raises:
            ScorerError: there is no such checkpoint.
        """
        modalities = self.card.settings.fusion.modalities
        kind: Modality | Literal["av"] = modalities[0] if len(modalities) == 1 else "av"
        return tuple(Label(column.label, kind, self.name) for column in self.columns)

    def build(self, device: str) -> Scorer:
        """Load the weights and run them once.

        Raises:
            ScorerError: there is no such checkpoint, its vocabulary is missing, or it is random
                and that is not allowed.
        """
        from mmstream.models.mmt_scorer import mmt_scorer  # noqa: PLC0415 - see the module

        return mmt_scorer(self, device)

    @cached_property
    def card(self) -> "Card":
        """What its config.json says, read once: when the configuration is checked.

        Raises:
            ScorerError: there is none, it is of something else, or it tells no classes.
        """
        path = self.folder / CONFIG
        try:
            card = Card.model_validate_json(path.read_bytes())
        except OSError as error:
            allowed = "allowed: a folder that `mmstream train` wrote"
            msg = f"{path}: cannot be read: {error.strerror}; {allowed}"
            raise ScorerError(msg) from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            keys = ".".join(str(key) for key in first["loc"])
            msg = f"{path}: not of an mmt model: {keys}{keys and ': '}{first['msg']}"
            raise ScorerError(msg) from None
        if not card.settings.heads:
            msg = f"{path}: only answers questions, and nobody asks any live; it needs `heads`"
            raise ScorerError(msg)
        return card


class Column(BaseModel, frozen=True):
    """Where a label is among the logits."""

    label: str
    """What it is told as."""
    task: str
    place: int
    """Of the class in its task."""


class _Identity(BaseModel):
    task: str
    rate_hz: int | None


class _Video(BaseModel):
    n_channels: int | None = None
    """None: a pretrained encoder takes either."""


class _Fusion(BaseModel):
    modalities: tuple[Modality, ...] = Field(min_length=1)


class _Head(BaseModel):
    labels: tuple[str, ...]


class _Model(BaseModel):
    video: _Video | None
    fusion: _Fusion
    heads: Mapping[str, _Head]


class Card(BaseModel):
    """What of config.json is needed before the weights are; the rest is `checkpoint.read`'s."""

    identity: _Identity
    settings: _Model

    @property
    def columns(self) -> tuple[Column, ...]:
        """Every class of every task."""
        return tuple(
            Column(label=_slug(f"{task}_{name}"), task=task, place=place)
            for task, head in self.settings.heads.items()
            for place, name in enumerate(head.labels)
        )


def _slug(text: str) -> str:
    """As topics have it: lower-case letters and digits, the rest is `_`."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower())
