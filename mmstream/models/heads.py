"""Embedding -> what somebody wants to know: classification."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from mmstream.config import Settings
from mmstream.models.tokens import MOST_DIMS


class ClassifierSettings(Settings):
    """Which labels there are, and whether they exclude each other."""

    labels: tuple[str, ...] = Field(min_length=1)
    """Each once; their order is that of the logits."""
    n_dims: int = Field(default=128, ge=1, le=MOST_DIMS)
    """Numbers in the embedding."""
    kind: Literal["one", "any"] = "one"
    """one: exactly one label is true; any: each on its own."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of numbers zeroed in training."""

    @field_validator("labels")
    @classmethod
    def _check_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            msg = f"each label once: got {', '.join(value)}"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _check_choice(self) -> Self:
        if self.kind == "one" and len(self.labels) == 1:
            msg = f"labels: one of them is true, so at least two: got {self.labels[0]}"
            raise ValueError(msg)
        return self


class Classifier(nn.Module):
    """Embeddings [b, d] -> logits [b, n_labels]."""

    def __init__(self, settings: ClassifierSettings) -> None:
        """Random weights."""
        super().__init__()
        self.settings = settings
        self.network = nn.Sequential(
            nn.LayerNorm(settings.n_dims),
            nn.Dropout(settings.dropout),
            nn.Linear(settings.n_dims, len(settings.labels)),
        )

    def forward(self, embedding: Tensor) -> Tensor:
        """Logits, for the loss."""
        logits: Tensor = self.network(embedding)
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """[b, n_labels] in 0..1; of kind one they sum to 1."""
        logits = logits.float()
        return logits.softmax(dim=-1) if self.settings.kind == "one" else logits.sigmoid()
