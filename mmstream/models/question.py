"""A question in words about what is seen and heard -> which of a list of answers is right.

Answering is choosing from a list, as in Antol et al. 2015 (VQA). The question's tokens look at each
other and at the fused tokens in one attention (after Kim et al. 2021, ViLT), but are not looked at:
what was fused is fused once, however many questions are asked about it.
"""

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mmstream.config import Settings
from mmstream.models.attention import Block, check_heads
from mmstream.models.fusion import Fused
from mmstream.models.heads import Classifier, ClassifierSettings
from mmstream.models.text import TextEncoder, TextSettings, WordIds
from mmstream.models.tokens import MOST_LAYERS


class QuestionSettings(Settings):
    """What questions are made of, and which answers there are."""

    text: TextSettings
    """The encoder of questions; its tokens are as large as the embedding."""
    answers: ClassifierSettings
    """The answers that may be given."""
    n_layers: int = Field(default=2, ge=1, le=MOST_LAYERS)
    """Blocks in which the question looks at what was fused."""
    n_heads: int = Field(default=4, ge=1)
    """Attention heads of each."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of numbers zeroed in training."""

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.text.n_dims != self.answers.n_dims:
            msg = (
                "text.n_dims and answers.n_dims must be the same: "
                f"got {self.text.n_dims} and {self.answers.n_dims}"
            )
            raise ValueError(msg)
        check_heads(n_dims=self.text.n_dims, n_heads=self.n_heads)
        return self


class QuestionHead(nn.Module):
    """Question and what was fused -> logits [b, n_answers]."""

    def __init__(self, settings: QuestionSettings) -> None:
        """Random weights."""
        super().__init__()
        n_dims = settings.text.n_dims
        self.text = TextEncoder(settings.text)
        self.answer = nn.Parameter(torch.randn(n_dims) * 0.02)
        self.blocks = nn.ModuleList(
            Block(n_dims=n_dims, n_heads=settings.n_heads, dropout=settings.dropout)
            for _ in range(settings.n_layers)
        )
        self.classifier = Classifier(settings.answers)

    def forward(self, question: WordIds, fused: Fused) -> Tensor:
        """Logits of the answers; those of an example without a question mean nothing.

        Raises:
            ScorerError: a question is too long, or a piece is not in the vocabulary.
        """
        words = self.text(question)
        n_batch = words.values.shape[0]
        answer = self.answer.to(words.values.dtype).expand(n_batch, 1, -1)
        x = torch.cat((answer, words.values), dim=1)
        seen = torch.cat((fused.embedding[:, None], fused.context), dim=1).to(x.dtype)
        always = torch.ones(n_batch, 1, dtype=torch.bool, device=x.device)
        parts = (always, words.present, always, fused.context_present)
        mask = torch.cat(parts, dim=1)[:, None, None]
        for block in self.blocks:
            assert isinstance(block, Block)  # noqa: S101 - ModuleList forgets what it holds
            x = block(x, mask, torch.cat((block.remembered(x), block.remembered(seen)), dim=1))
        logits: Tensor = self.classifier(x[:, 0])
        return logits
