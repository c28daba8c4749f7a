"""What is read is what the settings say, with our own pieces or a pretrained encoder's."""

import pytest

from mmstream.errors import ConfigError
from mmstream.models.mmt import MmtSettings
from mmstream.models.text import WordPieces
from mmstream.training.manifest import Annotation
from mmstream.training.reading import Words, WordSettings

HEAD = {"labels": ("no", "yes"), "n_dims": 8}
TEXT = {"n_words": 40, "n_dims": 8, "n_layers": 0, "n_longest": 4}
MODEL = MmtSettings.model_validate(
    {
        "text": TEXT,
        "fusion": {"type": "concat", "modalities": ["text"], "n_dims": 8},
        "heads": {"happy": HEAD},
        "question": {"text": TEXT, "answers": HEAD},
    }
)
SAID = [Annotation("train", caption="a b a b a b", transcript="b"), Annotation("train")]


def test_words_are_read_from_where_it_says() -> None:
    pieces = WordPieces.trained(["a b"], n_words=40)
    words = Words(WordSettings(text="caption", question="transcript"), MODEL, pieces)
    text, question = words.text(SAID), words.question(SAID)
    assert text is not None
    assert question is not None
    assert pieces.decode(text.ids[0].tolist()) == "a b a b"  # n_longest is 4
    assert text.present.sum(dim=1).tolist() == [4, 0]
    assert pieces.decode(question.ids[0].tolist()) == "b"
    assert Words(WordSettings(text="caption"), MODEL, pieces).question(SAID) is None


def test_a_vocabulary_larger_than_the_model_is_refused() -> None:
    many = WordPieces.trained(["abcdefghijklmnopqrstuvwxyz" * 2], n_words=90)
    with pytest.raises(ConfigError, match=r"the vocabulary has \d+ pieces: the model knows 40"):
        Words(WordSettings(text="caption"), MODEL, many)
    with pytest.raises(ConfigError, match="the vocabulary has not been made"):
        Words(WordSettings(text="caption"), MODEL, None)
