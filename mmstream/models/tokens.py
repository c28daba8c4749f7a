"""What flows between encoders and fusion: the tokens of one modality, with when each was."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import torch
from torch import Tensor

from mmstream.errors import ScorerError

MOST_DIMS: Final = 8192
MOST_LAYERS: Final = 256
MOST_TOKENS: Final = 8192
"""More than any model of ours has: what a slip or a stranger's file says beyond is refused at once,
instead of filling the memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Tokens of one modality of a batch; no position, time or modality is mixed into `values`.

    Raises:
        ScorerError: the shapes or types do not belong together.
    """

    values: Tensor
    """[b, t, d] floats; t may be 0. Where nothing is present they mean nothing."""
    present: Tensor
    """[b, t] bool: which are there. A row without any: that example lacks the modality."""
    at_secs: Tensor
    """[b, t] f32: when, by any origin that all modalities of an example share, near enough for 32
    bits. NaN: of no instant, such as the words of a question."""

    def __post_init__(self) -> None:
        shape = self.values.shape[:2]
        if self.values.ndim != 3 or self.present.shape != shape or self.at_secs.shape != shape:  # noqa: PLR2004 - [b, t, d]
            msg = (
                "tokens need values [b, t, d], present [b, t] and at_secs [b, t]: got "
                f"{list(self.values.shape)}, {list(self.present.shape)}, {list(self.at_secs.shape)}"
            )
            raise ScorerError(msg)
        kinds = (self.values.dtype, self.at_secs.dtype)
        if self.present.dtype != torch.bool or not all(kind.is_floating_point for kind in kinds):
            got = f"{kinds[0]}, {self.present.dtype}, {kinds[1]}"
            msg = f"tokens need floats, bools and floats: got {got}"
            raise ScorerError(msg)

    @classmethod
    def absent(cls, *, n_batch: int, n_dims: int, device: torch.device | None = None) -> Self:
        """No token in any of `n_batch` examples."""
        return cls(
            torch.zeros(n_batch, 0, n_dims, device=device),
            torch.zeros(n_batch, 0, dtype=torch.bool, device=device),
            torch.zeros(n_batch, 0, device=device),
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Parts of the same examples, one after the other; at least one part."""
        return cls(
            torch.cat([part.values for part in parts], dim=1),
            torch.cat([part.present for part in parts], dim=1),
            torch.cat([part.at_secs for part in parts], dim=1),
        )

    @property
    def some(self) -> Tensor:
        """[b] bool: which examples have any token."""
        return self.present.any(dim=1)

    def shifted(self, by_secs: float) -> "Tokens":
        """The same, `by_secs` later."""
        return Tokens(self.values, self.present, self.at_secs + by_secs)

    def kept(self, keep: Tensor) -> "Tokens":
        """Only the examples where `keep` [b] bool is true still have any token."""
        return Tokens(self.values, self.present & keep[:, None], self.at_secs)

    def blanked(self) -> Tensor:
        """[b, t, d]: `values`, with 0 where nothing is present, whatever was there, NaN too."""
        return blank(self.values, self.present)


def blank(values: Tensor, present: Tensor) -> Tensor:
    """`values` [b, t, ...], with 0 where `present` [b, t] is false, whatever was there."""
    mask = present.reshape(*present.shape, *[1] * (values.ndim - present.ndim))
    return torch.where(mask, values, torch.zeros((), dtype=values.dtype, device=values.device))
