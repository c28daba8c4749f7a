"""What annotations say, as numbers of word pieces."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mmstream.config import Settings
from mmstream.errors import ConfigError
from mmstream.models.mmt import MmtSettings
from mmstream.models.pretrained import PretrainedText
from mmstream.models.text import TextSettings, WordIds, WordPieces
from mmstream.training.manifest import Annotation

if TYPE_CHECKING:
    from mmstream.models.pretrained_text import PretrainedPieces

Said = Literal["caption", "transcript"]
"""What an annotation holds in words."""


class WordSettings(Settings):
    """What the model reads, and in which pieces."""

    text: Said | None = None
    """What the modality `text` is."""
    question: Said | None = None
    """What is asked."""
    n_words: int = Field(default=1000, ge=2)
    """Pieces in our own vocabulary, at most; it is made of the training examples."""


class Words:
    """What annotations say, as word pieces: of our own vocabulary, or a pretrained encoder's."""

    def __init__(
        self, settings: WordSettings, model: MmtSettings, vocabulary: WordPieces | None
    ) -> None:
        """Read for `model`; what of it is not pretrained reads with `vocabulary`.

        Raises:
            ConfigError: it has more pieces than the model knows.
            ScorerError: a pretrained encoder's own cannot be had.
        """
        self.vocabulary = vocabulary
        asked = model.question.text if model.question else None
        self._text = _reader(settings.text, model.text, vocabulary)
        self._question = _reader(settings.question, asked, vocabulary)

    def text(self, annotations: Sequence[Annotation]) -> WordIds | None:
        """The modality `text`; None: the model has none."""
        return self._text(annotations) if self._text else None

    def question(self, annotations: Sequence[Annotation]) -> WordIds | None:
        """What is asked; None: the model takes no question."""
        return self._question(annotations) if self._question else None


def written(annotation: Annotation, what: Said) -> str:
    """That text of it."""
    return annotation.caption if what == "caption" else annotation.transcript


@dataclass(frozen=True, slots=True, eq=False)
class _Reader:
    """Reads one kind of text for one encoder."""

    what: Said
    n_longest: int
    pieces: "WordPieces | PretrainedPieces"

    def __call__(self, annotations: Sequence[Annotation]) -> WordIds:
        said = [written(one, self.what) for one in annotations]
        return self.pieces.encode(said, n_longest=self.n_longest)


def _reader(
    what: Said | None,
    encoder: TextSettings | PretrainedText | None,
    vocabulary: WordPieces | None,
) -> _Reader | None:
    if what is None or encoder is None:
        return None
    return _Reader(what, encoder.n_longest, _pieces(encoder, vocabulary))


def _pieces(
    encoder: TextSettings | PretrainedText, vocabulary: WordPieces | None
) -> "WordPieces | PretrainedPieces":
    if isinstance(encoder, PretrainedText):
        from mmstream.models.pretrained_text import PretrainedPieces  # noqa: PLC0415 - slow

        return PretrainedPieces(encoder)
    if vocabulary is None or vocabulary.n_words > encoder.n_words:
        has = f"{vocabulary.n_words} pieces" if vocabulary else "not been made"
        msg = f"n_words: the vocabulary has {has}: the model knows {encoder.n_words}"
        raise ConfigError(msg)
    return vocabulary
