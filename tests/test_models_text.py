import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel, WordPiece

from mmstream.errors import ScorerError
from mmstream.models.text import TextEncoder, TextSettings, WordIds, WordPieces

_TEXTS = [
    "the picture shows seven and the voice says two",
    "the picture shows three and the voice says nine",
    "Is the voice saying what the picture shows?",
]
_WORDS = WordPieces.trained(_TEXTS, n_words=60)


def _encoder(n_layers: int = 2) -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(
        TextSettings(n_words=_WORDS.n_words, n_dims=8, n_heads=2, n_layers=n_layers)
    ).eval()


def test_texts_come_back_in_lower_case() -> None:
    words = _WORDS.encode([*_TEXTS[:2], "Séven"], n_longest=64)
    rows = zip(words.ids, words.present, strict=True)
    assert [_WORDS.decode(ids[there].tolist()) for ids, there in rows] == [*_TEXTS[:2], "seven"]


def test_a_vocabulary_is_the_same_each_time_and_after_its_json() -> None:
    again = WordPieces.from_json(WordPieces.trained(_TEXTS, n_words=60).to_json())
    assert again.to_json() == _WORDS.to_json()
    assert torch.equal(
        again.encode(_TEXTS, n_longest=9).ids, _WORDS.encode(_TEXTS, n_longest=9).ids
    )
    assert 2 < _WORDS.n_words <= 60


def test_what_is_no_vocabulary_is_refused() -> None:
    with pytest.raises(ScorerError, match="not a vocabulary"):
        WordPieces.from_json("{}")
    of_words = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1, "dog": 2}))
    without_padding = Tokenizer(WordPiece({"[UNK]": 0, "dog": 1}))
    for other in (of_words, without_padding):
        with pytest.raises(ScorerError, match="not a vocabulary of ours: word pieces, "):
            WordPieces.from_json(other.to_str())


@given(text=st.sampled_from(_TEXTS), beside=st.sampled_from(["", *_TEXTS]), n=st.integers(0, 2))
@settings(max_examples=20)
@torch.no_grad()
def test_a_longer_text_beside_it_changes_nothing(text: str, beside: str, n: int) -> None:
    encoder = _encoder(n)
    alone = encoder(_WORDS.encode([text], n_longest=64))
    both = encoder(_WORDS.encode([text, beside], n_longest=64))
    n_pieces = alone.values.shape[1]
    torch.testing.assert_close(both.values[:1, :n_pieces], alone.values)
    assert not both.values[:1, n_pieces:].any()
    assert bool(both.some[1]) == bool(beside)
    assert both.at_secs.isnan().all()


@torch.no_grad()
def test_order_matters() -> None:
    encoder = _encoder()
    one, other = (
        encoder(_WORDS.encode([text], n_longest=64)).values.mean(dim=1)
        for text in ("seven and two", "two and seven")
    )
    assert (one - other).abs().max() > 1e-3


def test_what_does_not_fit_is_named() -> None:
    encoder = _encoder()
    long = torch.ones(1, 65, dtype=torch.int64)
    with pytest.raises(ScorerError, match="65 pieces: at most 64"):
        encoder(WordIds(long, long.bool()))
    with pytest.raises(ScorerError, match="outside of the vocabulary"):
        encoder(WordIds(long[:, :2] * 999, long[:, :2].bool()))
