"""Modalities that learn at different speeds: how much each gets, and holding back the fast one.

A network that is trained as a whole stops to improve the weaker modality's encoder once the
stronger explains the labels (Wang et al. 2020, What makes training multi-modal classification
networks hard?; Peng et al. 2022, Balanced multimodal learning via on-the-fly gradient modulation).
Peng et al. scale the gradient of each encoder u by k_u, in every step:

    rho_u = s_u / s_v                       s: probability of the true class, by one modality (8, 9)
    k_u   = 1 - tanh(alpha * rho_u)         where rho_u > 1, else 1                            (10)
    step  = -rate * (k_u * gradient + h)    h: noise as large as the gradient's spread  (3.2, 3.3)

They use SGD. AdamW divides by the gradient's own size, so that scaling it changes little; we scale
what section 3.2 means, the encoder's step: its learning rate. That holds back h too, which theirs
does not: added as h / k_u it would stay, but AdamW would divide by it as well, and the gradient
would be held back twice. With more than two modalities s_v is the mean of the others.
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mmstream.config import Settings
from mmstream.media import Modality


class BalanceSettings(Settings):
    """Whether modalities are balanced."""

    type: Literal["none", "ogm", "ogm_ge"] = "none"
    """ogm: hold back the encoder of the modality that is ahead; ogm_ge: and add noise to the
    gradients of all encoders."""
    alpha: float = Field(default=0.3, gt=0)
    """How much it is held back."""


def coefficients(
    scores: Mapping[Modality, float], settings: BalanceSettings
) -> dict[Modality, float]:
    """What each modality's steps are multiplied by, in 0..1.

    Args:
        scores: how well each does on its own, above 0; 0: no example of the batch has it, and it
            is left out of the comparison.
        settings: whether to hold back, and how much.
    """
    there = {modality: score for modality, score in scores.items() if score > 0}
    ks = dict.fromkeys(scores, 1.0)
    if settings.type == "none" or len(there) == 1:
        return ks
    for modality, score in there.items():
        others = [other for name, other in there.items() if name != modality]
        ratio = score * len(others) / sum(others)
        if ratio > 1:
            ks[modality] = 1 - math.tanh(settings.alpha * ratio)
    return ks


@torch.no_grad()
def gradient_norms(encoders: Mapping[Modality, nn.Module]) -> dict[Modality, Tensor]:
    """[]: how long the gradient of each encoder's weights is; 0 where none came."""
    norms = {}
    for modality, encoder in encoders.items():
        parts = [weight.grad.norm() for weight in encoder.parameters() if weight.grad is not None]
        norms[modality] = torch.stack(parts).norm() if parts else torch.zeros(())
    return norms


@torch.no_grad()
def add_spread(encoders: Mapping[Modality, nn.Module]) -> None:
    """Add noise to the gradients of the encoders' matrices and filters, as large as their spread.

    Section 3.3, as its authors' program has it: normal, of the standard deviation that the
    gradient has over the entries of one weight. Norms and biases get none.
    """
    for encoder in encoders.values():
        for weight in encoder.parameters():
            if weight.grad is not None and weight.ndim > 1:
                weight.grad += torch.randn_like(weight.grad) * weight.grad.std()
