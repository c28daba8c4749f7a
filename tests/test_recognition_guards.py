import pytest

from mmstream.media import NS_PER_SEC, Hypothesis, Span, SpokenWord
from mmstream.recognition.guards import Reason, guarded


def hypothesis(text: str, secs: float = 10.0, confidence: float = 0.8) -> Hypothesis:
    span = Span(0, round(secs * NS_PER_SEC))
    words = tuple(SpokenWord(word, span, confidence) for word in text.split())
    return Hypothesis("mic", 0, span, words, "en")


def kept(one: Hypothesis, speech: float = 0.9) -> tuple[str, Reason | None]:
    found = guarded(one, speech)
    return " ".join(word.text for word in found.hypothesis.words), found.reason


@pytest.mark.parametrize(
    "text",
    [
        "he was not an ill disposed young man",
        "Eight of spades, four of clubs, seven of hearts.",
        "five five",
        "no no no no no",
        "My number is 0 0 0 0 0 0 7.",
        "row row row your boat gently down the stream merrily merrily merrily merrily",
        "I know, I know, I know",
        "Thank you for watching!",
        "",
    ],
)
def test_real_speech_is_left_alone(text: str) -> None:
    assert kept(hypothesis(text)) == (text, None)


def test_a_fast_speaker_is_left_alone() -> None:
    text = " ".join(f"w{n}" for n in range(60))  # the fastest debaters say 6 words per second
    assert kept(hypothesis(text))[1] is None


def test_short_words_in_a_short_time_are_left_alone() -> None:
    assert kept(hypothesis("oh I do", secs=0.4))[1] is None


def test_a_phrase_again_and_again_is_said_once() -> None:
    text = "and so " + "we will see. " * 5 + "that is all"
    assert kept(hypothesis(text)) == ("and so we will see. that is all", "repetition")


def test_a_word_again_and_again_is_said_once() -> None:
    assert kept(hypothesis("well " + "the " * 20)) == ("well the", "repetition")


def test_commas_and_capitals_hide_no_repetition() -> None:
    assert kept(hypothesis("Thanks, all. thanks all Thanks all! thanks, all")) == (
        "Thanks, all.",
        "repetition",
    )


def test_text_that_packs_too_well_is_dropped() -> None:
    text = " ".join(f"I think that we should go to the market and buy {n}" for n in range(9))
    assert kept(hypothesis(text, secs=30)) == ("", "repetition")


def test_more_words_than_anybody_says_are_dropped() -> None:
    text = " ".join(f"w{n}" for n in range(18))
    assert kept(hypothesis(text, secs=2)) == ("", "too_fast")
    assert kept(hypothesis(text, secs=3))[1] is None


def test_words_where_there_is_hardly_speech_are_dropped() -> None:
    assert kept(hypothesis("the"), speech=0.38) == ("", "no_speech")


def test_of_weak_speech_unsure_words_are_dropped() -> None:
    assert kept(hypothesis("the", confidence=0.2), speech=0.5) == ("", "no_speech")
    assert kept(hypothesis("the", confidence=0.5), speech=0.5) == ("the", None)
    assert kept(hypothesis("the", confidence=0.2), speech=0.7) == ("the", None)
