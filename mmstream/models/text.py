"""Words -> tokens: our own WordPiece vocabulary, embeddings, and a small Transformer.

WordPiece as in Devlin et al. 2019 (BERT), section 3: lower case, accents stripped, a word with an
unknown letter as [UNK]; there is no [CLS] and no [SEP], the fusion has a summary of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import WordPieceTrainer
from torch import Tensor, nn

from mmstream.config import Settings
from mmstream.errors import ScorerError
from mmstream.models.attention import Block, check_heads, everywhere
from mmstream.models.tokens import MOST_DIMS, MOST_LAYERS, MOST_TOKENS, Tokens, blank

_PADDING, _UNKNOWN = "[PAD]", "[UNK]"


@dataclass(frozen=True, slots=True, eq=False)
class WordIds:
    """A batch of texts as numbers of word pieces."""

    ids: Tensor
    """[b, t] int64, in 0..n_words - 1; 0 where nothing is present."""
    present: Tensor
    """[b, t] bool."""

    def checked(self, *, n_longest: int, n_words: int) -> Tensor:
        """`ids`, with 0 where nothing is present, whatever was there.

        Raises:
            ScorerError: a text is longer than `n_longest`, or a piece is not in the vocabulary.
        """
        n_pieces = self.ids.shape[1]
        if n_pieces > n_longest:
            msg = f"a text has {n_pieces} pieces: at most {n_longest} are allowed"
            raise ScorerError(msg)
        ids = blank(self.ids, self.present)
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < n_words:
            msg = f"a piece is outside of the vocabulary of {n_words} words"
            raise ScorerError(msg)
        return ids


class WordPieces:
    """A vocabulary of word pieces: texts to numbers and back."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Take what `trained` or `from_json` made."""
        self._tokenizer = tokenizer

    @classmethod
    def trained(cls, texts: Iterable[str], *, n_words: int) -> Self:
        """At most `n_words` pieces, those that `texts` need most; the same texts give the same.

        Each letter is a piece: where there are more of them, there are more than `n_words`.
        """
        texts = list(texts)
        tokenizer = _tokenizer({})
        # The library numbers the letters within words as its hash map has them, another way each
        # time, and breaks ties between pieces by number. Named as special they come first.
        letters = sorted({letter for text in texts for letter in _letters_within(text)})
        special = [_PADDING, _UNKNOWN, *(f"##{letter}" for letter in letters)]
        trainer = WordPieceTrainer(vocab_size=n_words, special_tokens=special, show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        return cls(_tokenizer(tokenizer.get_vocab()))  # in this one nothing is special

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` gave.

        Raises:
            ScorerError: it is something else.
        """
        try:
            tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # the library raises no narrower one
            msg = f"not a vocabulary of the tokenizers library: {error}"
            raise ScorerError(msg) from error
        special = [tokenizer.token_to_id(name) for name in (_PADDING, _UNKNOWN)]
        if special != [0, 1] or not isinstance(tokenizer.model, WordPiece):
            msg = f"not a vocabulary of ours: word pieces, {_PADDING} and {_UNKNOWN} the first two"
            raise ScorerError(msg)
        return cls(tokenizer)

    def to_json(self) -> str:
        """All of it, in the tokenizers library's format (tokenizer.json)."""
        return self._tokenizer.to_str(pretty=True)

    @property
    def n_words(self) -> int:
        """Pieces, [PAD] and [UNK] among them."""
        return self._tokenizer.get_vocab_size()

    def encode(self, texts: Sequence[str], *, n_longest: int) -> WordIds:
        """The pieces of each text, cut after `n_longest`; an empty text has nothing present."""
        rows = [self._tokenizer.encode(text).ids[:n_longest] for text in texts]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        n_most = max((len(row) for row in rows), default=0)
        ids = torch.zeros(len(rows), n_most, dtype=torch.int64)
        for row, numbers in zip(ids, rows, strict=True):
            row[: len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
        return WordIds(ids, torch.arange(n_most) < lengths[:, None])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of pieces, in lower case."""
        return self._tokenizer.decode(list(ids))


def _tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=_UNKNOWN))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.decoder = WordPieceDecoder()
    return tokenizer


def _letters_within(text: str) -> set[str]:
    """Those that do not begin a word."""
    plain = BertNormalizer(lowercase=True).normalize_str(text)
    return {letter for word, _ in BertPreTokenizer().pre_tokenize_str(plain) for letter in word[1:]}


class TextSettings(Settings):
    """An encoder of texts."""

    type: Literal["own"] = "own"
    n_words: int = Field(ge=2, le=1_000_000)
    """Pieces in the vocabulary."""
    n_dims: int = Field(default=128, ge=1, le=MOST_DIMS)
    """Numbers in a token."""
    n_layers: int = Field(default=2, ge=0, le=MOST_LAYERS)
    """Blocks; 0: word embeddings, which know nothing of each other."""
    n_heads: int = Field(default=4, ge=1)
    """Attention heads of each."""
    n_longest: int = Field(default=64, ge=1, le=MOST_TOKENS)
    """Pieces in a text, at most."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of numbers zeroed in training."""

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        check_heads(n_dims=self.n_dims, n_heads=self.n_heads)
        return self


class TextEncoder(nn.Module):
    """Numbers of word pieces -> Tokens of no instant; their order is in them."""

    def __init__(self, settings: TextSettings) -> None:
        """Random weights."""
        super().__init__()
        self.settings = settings
        self.words = nn.Embedding(settings.n_words, settings.n_dims, padding_idx=0)
        self.places = nn.Embedding(settings.n_longest, settings.n_dims)
        self.drop = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(
            Block(n_dims=settings.n_dims, n_heads=settings.n_heads, dropout=settings.dropout)
            for _ in range(settings.n_layers)
        )
        self.norm = nn.LayerNorm(settings.n_dims)

    def forward(self, words: WordIds) -> Tokens:
        """One token for each piece.

        Raises:
            ScorerError: a text is longer than `n_longest`, or a piece is not in the vocabulary.
        """
        settings = self.settings
        ids = words.checked(n_longest=settings.n_longest, n_words=settings.n_words)
        at = torch.arange(ids.shape[1], device=ids.device)
        x = self.drop(self.words(ids) + self.places(at))
        mask = everywhere(words.present)
        for block in self.blocks:
            x = block(x, mask)
        at_secs = torch.full(ids.shape, torch.nan, device=ids.device)
        return Tokens(blank(self.norm(x), words.present), words.present, at_secs)
