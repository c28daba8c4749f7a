"""Laws of commit policies, and what becomes of contradictions."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmstream.media import Hypothesis, Span, SpokenWord
from mmstream.recognition.commit import CommitSettings, Evidence, LocalAgreement, said_before
from mmstream.stages import CommitPolicy

MS = 1_000_000
POLICIES: tuple[Callable[[], CommitPolicy], ...] = (
    lambda: LocalAgreement(1),
    lambda: LocalAgreement(2),
    lambda: LocalAgreement(3),
    lambda: Evidence(0),
    lambda: Evidence(0.25),
    CommitSettings(steady_secs=0.1, commit_secs=0.5).build,
    CommitSettings().build,
)


def words(text: str, start_ms: int = 0) -> tuple[SpokenWord, ...]:
    """Each 300 ms long; `_` is a place where nothing is said."""
    return tuple(
        SpokenWord(one, Span((start_ms + 300 * nth) * MS, (start_ms + 300 * nth + 300) * MS), 0.5)
        for nth, one in enumerate(text.split())
        if one != "_"
    )


def said(text: str, heard_ms: int, *, is_last: bool = False) -> Hypothesis:
    span = Span(0, heard_ms * MS)
    return Hypothesis("mic", 0, span, words(text), "en-US", is_last)


def texts(spoken: Sequence[SpokenWord]) -> str:
    return " ".join(word.text for word in spoken)


@st.composite
def _revised(draw: st.DrawFn) -> list[Hypothesis]:
    """Anything a recogniser may say: words of a few letters, at any times in order."""
    hypotheses = []
    heard_ms = 0
    n = draw(st.integers(1, 8))
    for nth in range(n):
        heard_ms += draw(st.integers(0, 700))
        at_ms = 0
        told = []
        for text in draw(st.lists(st.sampled_from(["a", "B", "b,", "c", "--"]), max_size=7)):
            start_ms = at_ms + draw(st.integers(0, 200))
            at_ms = start_ms + draw(st.integers(0, 500))
            told.append(SpokenWord(text, Span(start_ms * MS, at_ms * MS), 0.5))
        span = Span(0, heard_ms * MS)
        hypotheses.append(Hypothesis("mic", 0, span, tuple(told), "en-US", nth == n - 1))
    return hypotheses


@pytest.mark.parametrize("build", POLICIES)
@given(hypotheses=_revised())
def test_committed_words_stay_and_at_the_end_all_are(
    build: Callable[[], CommitPolicy], hypotheses: list[Hypothesis]
) -> None:
    policy = build()
    committed: tuple[SpokenWord, ...] = ()
    for hypothesis in hypotheses:
        spoken = policy.push(hypothesis)
        assert spoken.words[: len(committed)] == committed
        assert spoken.n_committed >= len(committed)
        starts = [word.span.start_ns for word in spoken.words]
        assert starts == sorted(starts)
        committed = spoken.words[: spoken.n_committed]
    assert spoken.is_last
    assert spoken.n_committed == len(spoken.words)


@given(
    text=st.lists(st.sampled_from("abc"), min_size=1, max_size=8),
    looks=st.lists(st.integers(1, 40), min_size=1, max_size=20),
)
def test_a_word_that_never_changes_waits_for_evidence_however_often_it_is_asked(
    text: list[str], looks: list[int]
) -> None:
    last_ms = 300 * len(text) + 2_000
    first = said(" ".join(text), 300 * len(text))
    once, often = Evidence(0.75), Evidence(0.75)
    once.push(first)
    often.push(first)
    now_ms = 300 * len(text)
    for look in looks:
        now_ms = min(last_ms, now_ms + look)
        spoken = often.push(said(" ".join(text), now_ms))
    assert once.push(said(" ".join(text), now_ms)) == spoken


def test_what_is_said_again_without_new_sound_is_no_evidence() -> None:
    policy = Evidence(0.25)
    assert {policy.push(said("one two", 650)).n_committed for _ in range(5)} == {0}
    assert policy.push(said("one two", 850)).n_committed == 2


def test_a_word_that_changes_holds_those_behind_it() -> None:
    policy = Evidence(0.75)
    policy.push(said("won two three", 900))
    assert policy.push(said("one two three", 1300)).n_committed == 0
    assert policy.push(said("one two three", 1800)).n_committed == 3


def test_steady_words_are_held_until_the_whole_was_heard() -> None:
    policy = CommitSettings(steady_secs=0.25, commit_secs=5).build()
    policy.push(said("won two", 650))
    shown = policy.push(said("won two three", 1000))
    assert (texts(shown.words), shown.n_steady, shown.n_committed) == ("won two three", 2, 0)
    shown = policy.push(said("one two free", 1200))
    assert (texts(shown.words), shown.n_steady, shown.n_committed) == ("won two free", 2, 0)
    last = policy.push(said("one two three", 1500, is_last=True))
    assert (texts(last.words), last.n_steady, last.n_committed) == ("one two three", 3, 3)


def test_what_was_said_long_ago_is_corrected_and_committed() -> None:
    policy = CommitSettings(steady_secs=0.25, commit_secs=1).build()
    policy.push(said("won two", 650))
    policy.push(said("won two", 900))
    policy.push(said("one two three", 1200))
    shown = policy.push(said("one two three", 2300))
    assert (texts(shown.words), shown.n_steady, shown.n_committed) == ("one two three", 3, 3)


@given(hypotheses=_revised())
def test_steady_words_stand_behind_committed_ones(hypotheses: list[Hypothesis]) -> None:
    policy = CommitSettings(steady_secs=0.1, commit_secs=60).build()
    held: tuple[str, ...] = ()
    for hypothesis in hypotheses[:-1]:
        shown = policy.push(hypothesis)
        assert shown.n_committed == 0
        told = tuple(word.text for word in shown.words)
        assert told[: len(held)] == held
        held = told[: shown.n_steady]
    last = policy.push(hypotheses[-1])
    assert last.words == hypotheses[-1].words


@pytest.mark.parametrize("n", [1, 2, 3])
def test_agreement_commits_what_the_last_hypotheses_have_in_common(n: int) -> None:
    policy = LocalAgreement(n)
    said_so_far = ["one", "One, two", "one two free", "one two three four"]
    got = [policy.push(said(text, 500 * nth)).n_committed for nth, text in enumerate(said_so_far)]
    assert got == {1: [1, 2, 3, 4], 2: [0, 1, 2, 2], 3: [0, 0, 1, 2]}[n]


def test_what_agreed_on_committed_words_does_not_count_for_those_behind() -> None:
    policy = LocalAgreement(3)
    said_so_far = ["one", "one", "one two", "one two", "one two"]
    got = [policy.push(said(text, 500 * nth)).n_committed for nth, text in enumerate(said_so_far)]
    assert got == [0, 0, 1, 1, 2]


def test_agreement_needs_someone_to_agree() -> None:
    with pytest.raises(ValueError, match="at least one"):
        LocalAgreement(0)


def test_case_and_punctuation_are_no_change_and_committed_words_keep_theirs() -> None:
    policy = LocalAgreement(2)
    policy.push(said("hello there", 600))
    spoken = policy.push(said("Hello, there", 1000))
    assert (texts(spoken.words), spoken.n_committed) == ("Hello, there", 2)
    assert texts(policy.push(said("hello. There you", 1400)).words) == "Hello, there you"


@pytest.mark.parametrize(
    ("later", "whole"),
    [
        ("one too three four", "one two three four"),  # another text in its place
        ("_ two three four", "one two three four"),  # one is gone
        ("one _ three four", "one two three four"),
        ("one two three four", "one two three four"),
        ("six seven three four", "one two three four"),  # nothing is as it was
        ("_ _ three", "one two three"),
        ("one", "one two"),
        ("", "one two"),
        ("one two two", "one two two"),  # said twice indeed
    ],
)
def test_what_is_contradicted_stays_and_nothing_is_lost_or_doubled(later: str, whole: str) -> None:
    policy = LocalAgreement(1)
    policy.push(said("one two", 600))
    spoken = policy.push(said(later, 1500, is_last=True))
    assert texts(spoken.words) == whole


def test_a_word_that_is_two_later_is_not_told_again() -> None:
    policy = LocalAgreement(1)
    policy.push(said("one two", 600))
    halves = (("wo", 0, 150), ("on", 150, 300), ("two", 300, 600), ("three", 600, 900))
    later = tuple(SpokenWord(text, Span(a * MS, b * MS), 0.5) for text, a, b in halves)
    spoken = policy.push(Hypothesis("mic", 0, Span(0, 900 * MS), later, "en-US", is_last=True))
    assert texts(spoken.words) == "one two three"


def test_another_word_that_lasts_longer_takes_the_place_of_a_committed_one() -> None:
    later = (SpokenWord("too", Span(100 * MS, 550 * MS), 0.5), *words("three", 600))
    assert said_before(words("two"), later) == 1


def test_words_of_the_last_one_that_is_split_later_are_not_told_again() -> None:
    committed = [SpokenWord("brooklyn", Span(0, 600 * MS), 0.5)]
    assert said_before(committed, words("brook lynn bridge")) == 2


def test_a_long_utterance_contradicted_early_goes_on_where_it_was() -> None:
    text = " ".join(f"w{nth}" for nth in range(60))
    policy = LocalAgreement(1)
    policy.push(said(text, 18_000))
    spoken = policy.push(said("x" + text + " more", 18_300))
    assert texts(spoken.words) == text + " more"


@given(hypotheses=_revised())
def test_a_long_tail_behind_committed_words_is_kept_whole(hypotheses: list[Hypothesis]) -> None:
    policy = LocalAgreement(2)
    for hypothesis in hypotheses:
        spoken = policy.push(hypothesis)
        behind = spoken.words[spoken.n_committed :]
        n_behind = len(behind)
        end = [word.text for word in hypothesis.words[len(hypothesis.words) - n_behind :]]
        assert [word.text for word in behind] == end
