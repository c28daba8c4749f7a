"""What is made small: the cross-entropy of every head, and of heads that see one modality only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmstream.config import Settings
from mmstream.media import Modality
from mmstream.models.tokens import Tokens
from mmstream.training.dataset import UNKNOWN


class LossSettings(Settings):
    """How much what counts."""

    tasks: Mapping[str, float] = Field(default_factory=dict)
    """By task; 1 for those not named."""
    unimodal: float = Field(default=0.0, ge=0)
    """Of the heads that see one modality only. 0: they are trained beside the model and change
    nothing in it; above, every encoder must also do well on its own (Wang et al. 2020, What makes
    training multi-modal classification networks hard?, section 3, with one fixed weight)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the truth spread over all classes (Szegedy et al. 2016, section 7)."""


@dataclass(frozen=True, slots=True, eq=False)
class TaskLoss:
    """The loss of a batch."""

    mean: Tensor
    """[], summed over tasks, each the mean of the examples whose class is known."""
    each: Tensor
    """[b], of each example, summed over tasks."""


def joint_loss(
    logits: Mapping[str, Tensor], targets: Mapping[str, Tensor], settings: LossSettings
) -> TaskLoss:
    """Weighted, smoothed cross-entropy.

    Args:
        logits: [b, n_classes] by task.
        targets: [b] int64 by task, `UNKNOWN` where the class is not known.
        settings: the weights.
    """
    means, eaches = [], []
    for task, target in targets.items():
        weight = settings.tasks.get(task, 1.0)
        each = weight * cross_entropy(
            logits[task].float(),
            target,
            ignore_index=UNKNOWN,
            label_smoothing=settings.label_smoothing,
            reduction="none",
        )
        eaches.append(each)
        means.append(each.sum() / (target != UNKNOWN).sum().clamp(min=1))
    return TaskLoss(torch.stack(means).sum(), torch.stack(eaches).sum(dim=0))


@dataclass(frozen=True, slots=True, eq=False)
class Alone:
    """How well each modality does on its own in a batch."""

    losses: Mapping[Modality, Tensor]
    """[], as `TaskLoss.mean`; 0 where no example has the modality."""
    scores: Mapping[Modality, Tensor]
    """[]: mean probability of the true class, summed over tasks; 0 where no example has it."""


class UnimodalHeads(nn.Module):
    """A linear classifier for each modality and task, over the mean of the modality's tokens.

    This is what says how much a modality knows, for `mmstream.training.balance` and the history.
    Peng et al. 2022 split the weights of one linear layer after a concatenation among modalities;
    our fusions are not linear, and have no such split. To hide the other modalities would ask the
    fusion something that it never saw in training (unless modalities were dropped there), so a
    score would tell as much about the fusion as about the modality, at twice the cost.
    """

    def __init__(
        self, modalities: tuple[Modality, ...], n_classes: Mapping[str, int], *, n_dims: int
    ) -> None:
        """Random weights; `n_classes` by task."""
        super().__init__()
        self._n_classes = dict(n_classes)
        self._modalities = modalities
        n_all = sum(n_classes.values())
        self.heads = nn.ModuleDict(
            {
                modality: nn.Sequential(nn.LayerNorm(n_dims), nn.Linear(n_dims, n_all))
                for modality in modalities
            }
        )

    def forward(
        self,
        tokens: Mapping[Modality, Tokens],
        targets: Mapping[str, Tensor],
        settings: LossSettings,
    ) -> Alone:
        """Losses, which reach the encoders only where `settings.unimodal` is not 0, and scores."""
        losses, scores = {}, {}
        for modality in self._modalities:
            part = tokens[modality]
            known = {
                task: target.masked_fill(~part.some, UNKNOWN) for task, target in targets.items()
            }
            mean = part.blanked().sum(dim=1) / part.present.sum(dim=1, keepdim=True).clamp(min=1)
            seen = mean if settings.unimodal else mean.detach()
            logits = self._by_task(self.heads[modality](seen))
            losses[modality] = joint_loss(logits, known, settings).mean
            scores[modality] = _score(logits, known)
        return Alone(losses, scores)

    def _by_task(self, logits: Tensor) -> dict[str, Tensor]:
        parts = torch.split(logits, list(self._n_classes.values()), dim=1)
        return dict(zip(self._n_classes, parts, strict=True))


@torch.no_grad()
def _score(logits: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    means = []
    for task, target in targets.items():
        known = target != UNKNOWN
        chosen = logits[task].float().softmax(dim=1).gather(1, target.clamp(min=0)[:, None])[:, 0]
        means.append((chosen * known).sum() / known.sum().clamp(min=1))
    return cast("Tensor", sum(means))
