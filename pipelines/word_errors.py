"""Word error rates, by jiwer: what was heard beside what was said. Pure."""

import unicodedata
from collections.abc import Sequence
from typing import Final

import jiwer
from pydantic import BaseModel, ConfigDict

_DASHES: Final = "Pd"
_PUNCTUATION: Final = "P"


class WordErrors(BaseModel):
    """The least changes that make of what was said what was heard, in words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_words: int
    """That were said; 1 or more."""
    n_substitutions: int
    n_deletions: int
    n_insertions: int
    wer: float
    """All three of them by `n_words`; over 1 where much was invented."""


def normalised(text: str) -> str:
    """What is compared of a text: lower case, no punctuation, and a blank for a dash."""
    signs = (
        " " if unicodedata.category(sign) == _DASHES else sign
        for sign in text.casefold()
        if unicodedata.category(sign) == _DASHES
        or not unicodedata.category(sign).startswith(_PUNCTUATION)
    )
    return " ".join("".join(signs).split())


def word_errors(said: str, heard: str) -> WordErrors:
    """Of one recording; both texts as they are.

    Raises:
        ValueError: nothing was said.
    """
    truth = normalised(said)
    if not truth:
        msg = f"no word in {said!r}: there is no rate of none"
        raise ValueError(msg)
    found = jiwer.process_words(truth, normalised(heard))
    return _errors(len(truth.split()), found.substitutions, found.deletions, found.insertions)


def total(errors: Sequence[WordErrors]) -> WordErrors:
    """Over all words of one or more recordings."""
    return _errors(
        sum(one.n_words for one in errors),
        sum(one.n_substitutions for one in errors),
        sum(one.n_deletions for one in errors),
        sum(one.n_insertions for one in errors),
    )


def mean_wer(errors: Sequence[WordErrors]) -> float:
    """Of one or more recordings, each counting the same, long or short."""
    return sum(one.wer for one in errors) / len(errors)


def _errors(n_words: int, n_subst: int, n_del: int, n_ins: int, /) -> WordErrors:
    return WordErrors(
        n_words=n_words,
        n_substitutions=n_subst,
        n_deletions=n_del,
        n_insertions=n_ins,
        wer=(n_subst + n_del + n_ins) / n_words,
    )
