"""Sound events, heard and seen together by AVP: which weights, what it tells, what it was taught.

Apart from the scorer (`mmstream.models.avp_scorer`), so that who only reads a configuration need
not load torch: of a checkpoint only config.json is read here.

    avp: {}                                      the model of the wheel
    avp: {weights: /srv/models/mine, events: [dog, rain]}
"""

import os
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from mmstream import config
from mmstream.config import Settings
from mmstream.errors import ScorerError
from mmstream.media import Label
from mmstream.stages import Scorer

AVP_SMALL: Final = "avp-small"
UNUSUAL: Final = "unusual"
"""The label of what a source has not been like before."""
EMBEDDING: Final = "embedding"
"""The output [1, d] at the start of the hop: what was fused, of length 1."""
MOMENT: Final = "moment"
"""The output [1, 2d] of whole windows, of length 1; see `mmstream.models.avp_moments`."""
GIST: Final = "gist"
"""The output [1, 4d], by which what was taught is told; see `mmstream.models.avp_moments`."""
GIST_SECS: Final = 1.0
"""How much of the past a gist tells of."""
OUTPUTS: Final = (EMBEDDING, MOMENT, GIST, "synchrony")
"""What AVP's scores have besides labels, which no label may be called."""
OUT_OF_SYNC: Final = "out_of_sync"
"""The label of sound that comes too early or too late for the picture."""

_CONFIG: Final = "config.json"  # as mmstream.models.checkpoint, which loads torch
_SHIPPED: Final = Path(config.__file__).parent / "avp_small"


class AvpSpec(Settings):
    """The spec of `AvpScorer` (`ScorerSpec`)."""

    weights: str = Field(default=AVP_SMALL, min_length=1)
    """`avp-small`, which comes with mmstream, or the folder of a checkpoint of the same kind."""
    events: tuple[str, ...] | None = None
    """Which of the model's events are told; by default those that its card calls good enough."""
    taught: Path | None = None
    """Where `mmstream teach` keeps what it was taught; by default in the node's state folder."""
    normal: Path | None = None
    """Where `mmstream learn` keeps what is normal for each source; by default likewise."""
    synchrony: bool = False
    """Whether `out_of_sync` is told: for pictures that a face fills, as it was trained on."""
    untrained: Literal["refuse", "allow"] = "refuse"
    """allow: random weights may speak; for tests and measurements only."""

    @model_validator(mode="after")
    def _check_known(self) -> Self:
        # The default is not looked at: that there is a spec must not depend on files.
        if self.weights == AVP_SMALL and self.events is None:
            return self
        try:
            known = self._card().settings.events.labels
        except ScorerError as error:
            raise ValueError(str(error)) from None
        unknown = [name for name in self.events or () if name not in known]
        if unknown:
            msg = f"events: not known to {self.name}: {', '.join(unknown)}; allowed: " + ", ".join(
                known
            )
            raise ValueError(msg)
        return self

    @property
    def folder(self) -> Path:
        """Where the checkpoint is."""
        return _SHIPPED if self.weights == AVP_SMALL else Path(self.weights)

    @property
    def name(self) -> str:
        """What evidence calls the model."""
        return AVP_SMALL if self.weights == AVP_SMALL else self.folder.resolve().name

    @property
    def rate_hz(self) -> int:
        """Samples per second of the sound it hears.

        Raises:
            ScorerError: there is no such checkpoint.
        """
        return self._card().identity.rate_hz

    @property
    def told(self) -> tuple[str, ...]:
        """The model's own events that are told.

        Raises:
            ScorerError: there is no such checkpoint.
        """
        return self._card().settings.told if self.events is None else self.events

    @property
    def labels(self) -> tuple[Label, ...]:
        """Events, `out_of_sync` if wanted, what was taught, `unusual` where normal was learned.

        What was taught under the name of an event takes its place.

        Raises:
            ScorerError: there is no such checkpoint.
        """
        own = [*self.told, *([OUT_OF_SYNC] if self.synchrony else ())]
        names = [*own, *kept(self.taught), *([UNUSUAL] if kept(self.normal) else ())]
        return tuple(Label(name, "av", self.name) for name in dict.fromkeys(names))

    def of_node(self, node: str) -> Self:
        """The same, with folders that were left out where they are by default.

        They are `taught` and `normal` in `$XDG_STATE_HOME/mmstream/<node>`, in `~/.local/state`
        without it; nowhere, if nobody knows a home folder.
        """
        home = state_folder(node)
        if home is None:
            return self
        folders = {
            "taught": self.taught or home / "taught",
            "normal": self.normal or home / "normal",
        }
        return self.model_copy(update=folders)

    def build(self, device: str) -> Scorer:
        """Load the weights and run them once.

        Raises:
            ScorerError: there is no such checkpoint, it is of another task, or random and that is
                not allowed.
        """
        from mmstream.models.avp_scorer import avp_scorer  # noqa: PLC0415 - see the module

        return avp_scorer(self, device)

    def _card(self) -> "_Card":
        path = self.folder / _CONFIG
        try:
            card = _Card.model_validate_json(path.read_bytes())
        except OSError as error:
            msg = f"{path}: cannot be read: {error.strerror}; allowed: {AVP_SMALL}, or a folder"
            raise ScorerError(msg) from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            keys = ".".join(str(key) for key in first["loc"])
            msg = f"{path}: not of an AVP model: {keys}{keys and ': '}{first['msg']}"
            raise ScorerError(msg) from None
        return card


class _Identity(BaseModel):
    task: Literal["avp"]  # as mmstream.models.avp.TASK
    rate_hz: int


class _Events(BaseModel):
    labels: tuple[str, ...]


class _Model(BaseModel):
    events: _Events
    told: tuple[str, ...] = ()


class _Card(BaseModel):
    """What of config.json is needed before the weights are; the rest is `checkpoint.read`'s."""

    identity: _Identity
    settings: _Model


def state_folder(node: str) -> Path | None:
    """Where a node keeps what it learned; None: nobody knows a home folder."""
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    try:
        return Path(home, "mmstream", node).expanduser()
    except RuntimeError:
        return None


def kept(folder: Path | None) -> tuple[str, ...]:
    """The names of what is in such a folder, `<name>.safetensors` each; none if it is not there."""
    if folder is None or not folder.is_dir():
        return ()
    return tuple(sorted(file.stem for file in folder.glob("[!.]*.safetensors")))
