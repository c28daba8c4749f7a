"""One step of training: a batch goes through the model, and the weights follow the gradient."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from mmstream.errors import ConfigError, ScorerError
from mmstream.media import Modality
from mmstream.models.mmt import Mmt
from mmstream.training import state
from mmstream.training.balance import add_spread, coefficients, gradient_norms
from mmstream.training.batches import Batch, tasks_of
from mmstream.training.beginning import fill, starting_point
from mmstream.training.losses import TaskLoss, UnimodalHeads, joint_loss
from mmstream.training.settings import TrainSettings

_MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Measured:
    """What one modality did in a step."""

    loss: float
    """Of its own heads, in nats."""
    gradient_share: float
    """Its encoder's gradient norm, of the sum of all encoders'."""
    coefficient: float
    """What its step was multiplied by."""


@dataclass(frozen=True, slots=True)
class Stepped:
    """What a step did."""

    loss: float
    modalities: Mapping[Modality, Measured]


class Learner:
    """A model in training, with what it takes: the optimiser, and heads of single modalities."""

    def __init__(self, settings: TrainSettings) -> None:
        """Random weights, by the seed, but for encoders that begin with those of a checkpoint.

        Raises:
            ConfigError: the device is not there, or the checkpoint cannot be had.
            ScorerError: the checkpoint's weights are not those of its encoders.
        """
        torch.manual_seed(settings.seed)
        self._settings = settings
        model = Mmt(settings.model)
        n_classes = {task: len(head.labels) for task, head in tasks_of(settings.model).items()}
        modalities = settings.model.fusion.modalities
        heads = UnimodalHeads(modalities, n_classes, n_dims=settings.model.fusion.n_dims)
        self._encoders = _encoders(model)
        self._frozen: list[nn.Module] = []
        self.start_id = self._start()
        """The id of the checkpoint that the encoders began with; None: with random weights."""
        groups = list(_groups(model, heads, self._encoders))
        self._owners = [group.owner for group in groups]
        optimiser = torch.optim.AdamW(
            {
                "params": group.weights,
                "weight_decay": settings.optimise.weight_decay if group.decays else 0.0,
            }
            for group in groups
        )
        self._accelerator = _accelerator(settings)
        self._model, self._heads, self._optimiser = self._accelerator.prepare(
            model, heads, optimiser
        )
        self.model = model

    @property
    def device(self) -> torch.device:
        """Where batches must be."""
        device: torch.device = self._accelerator.device
        return device

    def step(self, batch: Batch, *, learning_rate: float, number: int) -> Stepped:
        """Learn from a batch; the same weights, batch and `number` give the same weights.

        Raises:
            ScorerError: the loss or its gradient is not finite; the weights are as they were.
        """
        settings = self._settings
        torch.manual_seed(state.drawn(settings.seed, number))
        self._model.train()
        for encoder in self._frozen:
            encoder.eval()
        outputs = self._model(batch.inputs)
        loss = joint_loss(outputs.logits, batch.targets, settings.loss)
        alone = self._heads(outputs.tokens, batch.targets, settings.loss)
        own = torch.stack(list(alone.losses.values()))
        self._accelerator.backward(loss.mean + (settings.loss.unimodal or 1.0) * own.sum())
        norms = gradient_norms(self._encoders)
        whole = self._accelerator.clip_grad_norm_(self._model.parameters(), settings.optimise.clip)
        if not bool(torch.isfinite(loss.mean + own.sum() + whole)):
            self._optimiser.zero_grad()
            raise ScorerError(_not_finite(loss, batch))
        ks = coefficients(
            {name: float(score) for name, score in alone.scores.items()}, settings.balance
        )
        if settings.balance.type == "ogm_ge":
            add_spread(self._encoders)
        for group, owner in zip(self._optimiser.param_groups, self._owners, strict=True):
            group["lr"] = learning_rate * (ks[owner] if owner else 1.0)
        self._optimiser.step()
        self._optimiser.zero_grad()
        all_norms = float(sum(norms.values())) or 1.0
        return Stepped(
            loss.mean.item(),
            {
                name: Measured(part.item(), float(norms[name]) / all_norms, ks[name])
                for name, part in alone.losses.items()
            },
        )

    def _start(self) -> str | None:
        """Fill the encoders from a checkpoint, if one is asked for; give its id."""
        found = starting_point(self._settings)
        if found is None:
            return None
        begun: dict[Modality, nn.Module] = {
            name: one for name, one in self._encoders.items() if name != "text"
        }
        fill(found, begun)
        if self._settings.frozen:
            self._frozen = [
                encoder.requires_grad_(requires_grad=False) for encoder in begun.values()
            ]
        return found.id

    def tensors(self) -> dict[str, Tensor]:
        """All that `restore` needs, on the CPU; where the weights are there too, views of them."""
        parts = {"model": self._model.state_dict(), "heads": self._heads.state_dict()}
        states = self._optimiser.state_dict()["state"]
        parts |= {f"optimiser.{index}": one for index, one in states.items()}
        return {
            f"{part}.{name}": tensor.detach().cpu().contiguous()
            for part, tensors in parts.items()
            for name, tensor in tensors.items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` gave."""
        self._model.load_state_dict(state.under("model", tensors))
        self._heads.load_state_dict(state.under("heads", tensors))
        written = self._optimiser.state_dict()
        n_weights = sum(len(group["params"]) for group in written["param_groups"])
        states = {index: state.under(f"optimiser.{index}", tensors) for index in range(n_weights)}
        written["state"] = {index: one for index, one in states.items() if one}
        self._optimiser.load_state_dict(written)


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    owner: Modality | None
    """Whose encoder's; None: of what all share."""
    decays: bool
    weights: list[Tensor]


def _encoders(model: Mmt) -> dict[Modality, nn.Module]:
    found: dict[Modality, nn.Module | None] = {
        "audio": model.audio,
        "video": model.video,
        "text": model.text,
    }
    return {name: encoder for name, encoder in found.items() if encoder is not None}


def _groups(
    model: nn.Module, heads: nn.Module, encoders: Mapping[Modality, nn.Module]
) -> Iterator[_Group]:
    """Weights by whose they are and whether they decay: matrices and filters do."""
    owned = {id(one) for encoder in encoders.values() for one in encoder.parameters()}
    shared = [one for one in model.parameters() if id(one) not in owned]
    parts: list[tuple[Modality | None, list[nn.Parameter]]] = [
        (name, list(encoder.parameters())) for name, encoder in encoders.items()
    ]
    parts.append((None, [*shared, *heads.parameters()]))
    for owner, weights in parts:
        for decays in (False, True):
            learned = [one for one in weights if one.requires_grad]
            those: list[Tensor] = [one for one in learned if (one.ndim > 1) == decays]
            if those:
                yield _Group(owner, decays, those)


def _accelerator(settings: TrainSettings) -> Accelerator:
    has_cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not has_cuda:
        msg = "device: there is no CUDA device here; allowed: auto, cpu"
        raise ConfigError(msg)
    on_cpu = settings.device == "cpu"
    auto = "bfloat16" if has_cuda and not on_cpu and torch.cuda.is_bf16_supported() else "float32"
    precision = auto if settings.precision == "auto" else settings.precision
    # It keeps one state for the process, and refuses another precision in the next training.
    AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001
    return Accelerator(cpu=on_cpu, mixed_precision="bf16" if precision == "bfloat16" else "no")


def _not_finite(loss: TaskLoss, batch: Batch) -> str:
    """Which examples did it."""
    each: Sequence[float] = loss.each.tolist()
    named = [name for name, one in zip(batch.names, each, strict=True) if not math.isfinite(one)]
    what = f"the loss is not finite for {len(named)} of {len(each)} examples of the batch"
    if not named:
        named, what = list(batch.names), "the gradient is not finite; examples of the batch"
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return f"{what}: {', '.join(named[:_MOST_NAMED])}{more}"
