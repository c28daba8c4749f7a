"""Words -> tokens by BERT or another text network of the transformers library."""

# Before transformers imports a torchaudio that cannot:
import mmstream.features.audio  # noqa: F401 # isort: skip

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel

from mmstream.models.pretrained import PretrainedText
from mmstream.models.pretrained_loading import (
    TOKENIZERS,
    PretrainedEncoder,
    found,
    load,
    quiet,
    read_config,
)
from mmstream.models.text import WordIds
from mmstream.models.tokens import Tokens, blank

_ALLOWED = "encoder of texts; allowed: BERT and such, with its tokenizer.json"


class PretrainedPieces:
    """The folder's own vocabulary: texts to numbers of word pieces."""

    def __init__(self, settings: PretrainedText) -> None:
        """Read it.

        Raises:
            ScorerError: it cannot be had.
        """
        source = found(settings, *TOKENIZERS)
        if TOKENIZERS[0] not in source.files:
            source.refuse(f"no {_ALLOWED}")
        self._tokenizer = source.read(AutoTokenizer.from_pretrained, _ALLOWED)

    def encode(self, texts: Sequence[str], *, n_longest: int) -> WordIds:
        """The pieces of each text and those that begin and end it, cut to `n_longest`.

        A text without a word has nothing present.
        """
        rows = [
            self._tokenizer(text, truncation=True, max_length=n_longest).input_ids
            if text.strip()
            else []
            for text in texts
        ]
        n_most = max(map(len, rows), default=0)
        ids = torch.tensor([[*row, *[0] * (n_most - len(row))] for row in rows], dtype=torch.int64)
        lengths = torch.tensor([len(row) for row in rows])
        ids = ids.reshape(len(rows), n_most)
        return WordIds(ids, torch.arange(n_most) < lengths[:, None])


class PretrainedTextEncoder(PretrainedEncoder):
    """Numbers of word pieces -> Tokens of no instant."""

    def __init__(self, settings: PretrainedText) -> None:
        """The network of the folder or hub repository.

        Raises:
            ScorerError: it cannot be had, or takes no texts.
        """
        source = found(settings, *TOKENIZERS)
        config = read_config(source)
        n_places = getattr(config, "max_position_embeddings", None)
        if not hasattr(config, "vocab_size"):
            source.refuse(f"{config.model_type} is no {_ALLOWED}")
        if n_places is not None and n_places < settings.n_longest:
            source.refuse(f"n_longest is at most {n_places}: got {settings.n_longest}")
        network = load(source, config, _words_of if settings.words_only else _encoder_of)
        try:
            with torch.no_grad(), quiet():
                longest = torch.full((1, settings.n_longest), config.vocab_size - 1)
                n_features = _read(network, longest, longest >= 0).shape[2]
        except Exception as error:  # the library raises no narrower one
            what = f"no {_ALLOWED}, or n_longest is too many"
            raise source.refusal(what, error) from error
        super().__init__(settings, network, n_features=n_features)
        self.settings = settings.model_copy(update={"files": source.files})
        self._n_words = config.vocab_size

    def forward(self, words: WordIds) -> Tokens:
        """One token for each piece.

        Raises:
            ScorerError: a text is longer than `n_longest`, or a piece is not in the vocabulary.
        """
        ids = words.checked(n_longest=self.settings.n_longest, n_words=self._n_words)
        rows = words.present.any(dim=1)  # one without any would have nothing to look at
        values = torch.zeros(*ids.shape, self.settings.n_dims, device=ids.device)
        if rows.any():
            with self.learning():
                states = _read(self.network, ids[rows], words.present[rows])
            values[rows] = self.projection(states).to(values.dtype)
        at_secs = torch.full(ids.shape, torch.nan, device=ids.device)
        return Tokens(blank(values, words.present), words.present, at_secs)


def _read(network: nn.Module, ids: Tensor, present: Tensor) -> Tensor:
    """Pieces [n, t] -> [n, t, features]."""
    if isinstance(network, nn.Embedding):
        embedded: Tensor = network(ids)
        return embedded
    states: Tensor = network(ids, attention_mask=present.long()).last_hidden_state
    return states


def _words_of(model: PreTrainedModel) -> nn.Module:
    return model.get_input_embeddings()


def _encoder_of(model: PreTrainedModel) -> nn.Module:
    model.register_module("pooler", None)  # gives what is not used; many folders lack it
    return model
