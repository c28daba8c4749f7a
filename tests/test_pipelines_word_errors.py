"""Word errors of made-up texts: what counts as the same, and the two overall figures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmstream.pipelines.word_errors import mean_wer, normalised, total, word_errors

WORDS = st.lists(st.sampled_from(["a", "bee", "sea", "what's"]), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("written", "compared"),
    [
        ("She  had\tgreasy wash-water.", "she had greasy wash water"),
        ("Bo's “this” \N{EN DASH} ¿no?", "bos this no"),
        ("Bo\N{RIGHT SINGLE QUOTATION MARK}s", "bos"),
        ("Straße 4 €", "strasse 4 €"),
        ("four", "four"),
        ("... - !", ""),
    ],
)
def test_case_punctuation_and_dashes_do_not_count_and_nothing_else_is_changed(
    written: str, compared: str
) -> None:
    assert normalised(written) == compared


def test_each_kind_of_error_is_counted() -> None:
    errors = word_errors("One two, three four.", "one too three or four five")
    assert (errors.n_words, errors.n_substitutions) == (4, 1)
    assert (errors.n_deletions, errors.n_insertions) == (0, 2)
    assert errors.wer == 0.75
    assert word_errors("one two", "").n_deletions == 2
    assert word_errors("one", "a b c").wer == 3


def test_a_long_recording_counts_more_over_all_words_and_the_same_in_the_mean() -> None:
    errors = [word_errors("a b c d e f g h i", "a b c d e f g h"), word_errors("yes", "no")]
    assert total(errors).wer == pytest.approx(2 / 10)
    assert (total(errors).n_substitutions, total(errors).n_deletions) == (1, 1)
    assert mean_wer(errors) == pytest.approx((1 / 9 + 1) / 2)


def test_of_no_words_there_is_no_rate() -> None:
    with pytest.raises(ValueError, match=r"no word in '\?!'"):
        word_errors("?!", "what")


@given(WORDS, WORDS)
def test_the_errors_make_the_one_text_as_long_as_the_other(
    said: list[str], heard: list[str]
) -> None:
    errors = word_errors(" ".join(said), " ".join(heard))
    assert errors.n_words - errors.n_deletions + errors.n_insertions == len(heard)
    assert (errors.wer == 0) is (said == heard)
    n_errors = errors.n_substitutions + errors.n_deletions + errors.n_insertions
    assert n_errors <= max(len(said), len(heard))
