"""What is said becomes captions: each committed word once, each id ended once."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams import ms, started

from mmstream.errors import StateError
from mmstream.heads.caption_cuts import first_cut, fits, joined
from mmstream.heads.captions import CaptioningHead
from mmstream.heads.events import EventHead, HeadItem
from mmstream.heads.speech_captions import SpeechCaptions
from mmstream.media import (
    Detection,
    Scores,
    Series,
    SourceEnded,
    SourceStalled,
    Span,
    Spoken,
    SpokenWord,
)
from mmstream.messages import Caption, epoch_secs, iso_utc

UTC_NS = 1_700_000_000_250_000_000
WORD_MS = 300


def head() -> CaptioningHead:
    events = EventHead(node="home", source="cam", labels=(), settings={})
    made = CaptioningHead(events, [SpeechCaptions(node="home", source="cam")])
    made.push(started(utc_offset_ns=UTC_NS))
    return made


def words(text: str, *, start_ms: float = 1000, confidence: float = 0.5) -> tuple[SpokenWord, ...]:
    """One after the other, without pauses; `|` is a pause of a word's length."""
    made, at = [], start_ms
    for one in text.split():
        if one != "|":
            made.append(SpokenWord(one, Span(ms(at), ms(at + WORD_MS)), confidence))
        at += WORD_MS * (2 if one == "|" else 1)
    return tuple(made)


def spoken(
    text: str,
    n_committed: int = 0,
    *,
    utterance: int = 0,
    last: bool = False,
    start_ms: float = 1000,
) -> Spoken:
    said = words(text, start_ms=start_ms)
    end_ns = max([ms(start_ms + 100), *(word.span.end_ns for word in said)])
    n_sure = len(said) if last else n_committed
    return Spoken(utterance, Span(ms(start_ms), end_ns), said, n_sure, "en-US", last)


def scores(*said: Spoken) -> Scores:
    return Scores("cam", 0, Span(0, ms(250)), spoken=said)


def captions(stage: CaptioningHead, *items: HeadItem) -> list[Caption]:
    told = [one.content for item in items for one in stage.push(item)]
    return [one for one in told if isinstance(one, Caption)]


def told(stage: CaptioningHead, *said: Spoken) -> list[Caption]:
    return [one for step in said for one in captions(stage, scores(step))]


def shape(said: Sequence[Caption]) -> list[tuple[str, int, str, int]]:
    return [(one.state, one.revision, one.text, one.steady) for one in said]


def test_steady_words_are_told_and_committed_ones_are_steady() -> None:

    steady = replace(spoken("so we go to"), n_steady=2)
    committed = replace(spoken("so we go to", n_committed=3), n_steady=2)
    last = spoken("so we went too", last=True)
    assert shape(told(head(), steady, committed, last)) == [
        ("partial", 0, "so we go to", 2),
        ("partial", 1, "so we go to", 3),
        ("final", 2, "so we went too", 4),
    ]


def test_partials_are_revised_until_the_final() -> None:
    said = told(head(), spoken("we want"), spoken("we went", 1), spoken("we went out", last=True))
    assert shape(said) == [
        ("partial", 0, "we want", 0),
        ("partial", 1, "we went", 1),
        ("final", 2, "we went out", 3),
    ]
    assert len({one.id for one in said}) == 1


def test_a_final_tells_when_it_was_said_and_by_how_sure_words() -> None:
    (first,) = head().push(scores(spoken("so we went", last=True)))
    final = first.content
    assert isinstance(final, Caption)
    assert (final.t_start, final.t_end) == (
        epoch_secs(UTC_NS + ms(1000)),
        epoch_secs(UTC_NS + ms(1900)),
    )
    assert (final.ts_start, final.ts_end) == (
        iso_utc(UTC_NS + ms(1000)),
        iso_utc(UTC_NS + ms(1900)),
    )
    assert [word.text for word in final.words] == ["so", "we", "went"]
    assert final.words[1].t_start == epoch_secs(UTC_NS + ms(1300))
    assert (final.confidence, final.language, final.kind) == (0.5, "en-US", "speech")
    assert final.on_screen is None
    assert first.at_ns == ms(1900)


def test_what_says_the_same_is_not_sent_again() -> None:
    stage = head()
    assert len(told(stage, spoken("we went", 1))) == 1
    assert told(stage, spoken("we went", 1)) == []
    assert shape(told(stage, spoken("we went", 2))) == [("partial", 1, "we went", 2)]


def test_nothing_said_is_nothing_shown() -> None:
    assert told(head(), spoken(""), spoken("", last=True)) == []


def test_words_that_all_go_are_taken_back() -> None:
    stage = head()
    shown, back, end = told(stage, spoken("thank you"), spoken(""), spoken("", last=True))
    assert shape([back, end]) == [("partial", 1, "", 0), ("final", 2, "", 0)]
    assert shown.id == back.id == end.id
    assert end.confidence == 0
    assert (end.t_start, end.t_end) == (shown.t_start, shown.t_end)


def test_two_full_lines_are_a_caption_and_the_rest_goes_on() -> None:
    text = " ".join(f"word{i:02d}" for i in range(16))  # six of seven characters fill a line
    said = told(head(), spoken(text, 16), spoken(text, last=True))
    assert [(one.state, len(one.words)) for one in said] == [
        ("final", 12),
        ("partial", 4),
        ("final", 4),
    ]
    assert said[0].id != said[1].id == said[2].id


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("this is all that he said. But then", 6),
        ("this is all that he said.", 6),
        ('this is all "that he said." But', 6),
        ("Yes. But then", None),
        ("it was told to us by Dr. Who", None),
        ("it was told to all by J. Smith", None),
        ("this is all that he said | but then", 6),
        ("well | but then", None),
        ("x" * 99 + " and so", 1),
        ("x " * 25, 23),  # 7 s of words of 0.3 s
        ("", None),
    ],
)
def test_a_caption_ends_where_a_reader_would(text: str, cut: int | None) -> None:
    assert first_cut(words(text)) == cut


def test_only_words_that_stay_are_cut_off() -> None:
    text = "this is all that he said. But then"
    assert shape(told(head(), spoken(text, 3))) == [("partial", 0, text, 3)]


@pytest.mark.parametrize("end", [SourceStalled("cam", ms(9000)), SourceEnded("cam"), started()])
def test_what_is_open_ends_with_the_words_it_has(end: HeadItem) -> None:
    stage = head()
    (shown,) = told(stage, spoken("we went", 1))
    (final,) = captions(stage, end)
    assert shape([final]) == [("final", 1, "we went", 2)]
    assert final.id == shown.id
    assert captions(stage, end) == []


def test_a_shutdown_ends_what_is_open() -> None:
    stage = head()
    told(stage, spoken("we went", 1))
    (one,) = stage.flush()
    assert isinstance(one.content, Caption)
    assert (one.content.state, one.content.text) == ("final", "we went")
    assert stage.flush() == []


def test_words_that_come_after_a_stall_ended_them_are_not_told_again() -> None:
    stage = head()
    told(stage, spoken("we went", 1))
    captions(stage, SourceStalled("cam", ms(9000)))
    assert told(stage, spoken("we went out", last=True)) == []
    (next_one,) = told(stage, spoken("hello", last=True, start_ms=20_000))
    assert next_one.text == "hello"


def test_the_next_utterance_ends_the_one_before() -> None:
    said = told(head(), spoken("we went"), spoken("hello", utterance=1, start_ms=5000))
    assert [(one.state, one.text) for one in said] == [
        ("partial", "we went"),
        ("final", "we went"),
        ("partial", "hello"),
    ]


def test_a_source_that_starts_again_is_told_from_its_beginning() -> None:
    stage = head()
    (before,) = told(stage, spoken("hello", last=True))
    captions(stage, started(utc_offset_ns=UTC_NS + ms(60_000)))
    (after,) = told(stage, spoken("hello", last=True))
    assert after.id != before.id


@pytest.mark.parametrize(
    ("speaking", "note", "on_screen"),
    [
        (0.9, None, True),
        (0.2, "off screen: no mouth moves with it", False),
        (0.2, "sound does not fit the mouth", None),
        (0.2, None, None),
    ],
)
def test_whether_the_speaker_is_seen(
    *, speaking: float, note: str | None, on_screen: bool | None
) -> None:
    stage = head()
    at_ns = ms(1200)
    series = Series(np.array([at_ns], np.int64), np.array([speaking], np.float32))
    found = Detection("speech", at_ns, "video", "speaking", 0.8, note=note)
    outputs = {"person_speaking": series}
    stage.push(Scores("cam", 0, Span(ms(1000), ms(1250)), outputs, (found,) if note else ()))
    (final,) = told(stage, spoken("we went", last=True))
    (other,) = told(stage, spoken("hello", utterance=1, last=True, start_ms=9000))
    assert (final.on_screen, other.on_screen) == (on_screen, None)


def test_words_before_the_start_are_a_mistake() -> None:
    with pytest.raises(StateError, match="cam"):
        SpeechCaptions(node="home", source="cam").push(scores(spoken("a", last=True)), [])


@st.composite
def speeches(draw: st.DrawFn) -> list[Spoken]:
    """Utterances whose words are committed bit by bit, as a commit policy has them."""
    letters = st.text("abc", min_size=1, max_size=12)
    word = st.builds(str.__add__, letters, st.sampled_from(["", "", "", ".", ","]))
    steps, at = [], 0.0
    for utterance in range(draw(st.integers(1, 3))):
        sure: list[str] = []
        at += 20_000
        for _ in range(draw(st.integers(0, 6))):
            sure += draw(st.lists(word, max_size=12))
            text = " ".join([*sure, *draw(st.lists(word, max_size=3))])
            steps.append(spoken(text, len(sure), utterance=utterance, start_ms=at))
        sure += draw(st.lists(word, max_size=3))
        if draw(st.booleans()):
            steps.append(spoken(" ".join(sure), utterance=utterance, last=True, start_ms=at))
    return steps


@given(speeches())
def test_each_word_is_final_once_and_each_id_ends_once(steps: list[Spoken]) -> None:
    stage = head()
    said = told(stage, *steps)
    said += [one.content for one in stage.flush() if isinstance(one.content, Caption)]
    lasts = [list(group)[-1] for _, group in groupby(steps, key=lambda one: one.utterance)]
    finals = [one for one in said if one.state == "final"]
    heard = [word.text for last in lasts for word in last.words]
    assert " ".join(heard).split() == " ".join(one.text for one in finals).split()
    assert len({one.id for one in finals}) == len(finals)
    assert {one.id for one in said} == {one.id for one in finals}
    for _, group in groupby(said, key=lambda one: one.id):
        versions = list(group)
        assert [one.revision for one in versions] == list(range(len(versions)))
        assert [one.state for one in versions[:-1]] == ["partial"] * (len(versions) - 1)
        for before, after in pairwise(versions):
            assert before.words[: before.steady] == after.words[: before.steady]
            assert (before.text, before.steady) != (after.text, after.steady) or (
                after.state == "final"
            )
    for one in said:
        assert one.text == " ".join(word.text for word in one.words)
    for final in finals:
        assert final.steady == len(final.words)


@given(speeches())
def test_a_final_is_at_most_two_lines_and_seven_seconds(steps: list[Spoken]) -> None:
    for one in told(head(), *steps):
        if one.state == "final" and len(one.words) > 1:
            assert len(one.text) <= 85
            assert one.t_end - one.t_start <= 7.001


@given(st.lists(st.sampled_from(["so", "then", "said.", "|", "yesterday"]), max_size=60))
def test_more_words_do_not_move_a_cut(texts: list[str]) -> None:
    said = words(" ".join(texts))
    cuts = [first_cut(said[:count]) for count in range(len(said) + 1)]
    known = [cut for cut in cuts if cut is not None]
    assert len(set(known)) <= 1
    assert all(fits(said[:cut]) or cut == 1 for cut in known)
    assert joined(said[: known[0]]) if known else fits(said or words("a"))
