"""All that is told of a source: the same each time, each id ended once, in order of time."""

from collections.abc import Sequence
from itertools import groupby, pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import ms, started

from mmstream.heads.caption_settings import SceneCaptions, SoundCaptions
from mmstream.heads.captions import CaptioningHead
from mmstream.heads.events import EventHead, HeadItem
from mmstream.heads.lifecycle import LabelSettings
from mmstream.heads.scene_captions import SceneCaptionPart
from mmstream.heads.sound_captions import SoundCaptionPart
from mmstream.heads.speech_captions import SpeechCaptions
from mmstream.media import (
    Description,
    Label,
    ObjectSeries,
    Scores,
    Series,
    SourceEnded,
    SourceStalled,
    Span,
    Spoken,
    SpokenWord,
)
from mmstream.messages import Caption, Decided, Event

UTC_NS = 1_700_000_000_250_000_000
HOP_MS = 500
WHOLE = (
    Label("impact", "audio", "impact"),
    Label("motion", "video", "motion"),
    Label("presence", "video", "presence"),
    Label("camera_blocked", "video", "condition"),
    Label("person_speaking", "av", "speaking"),
)
PERSON = Label("person", "video", "hog")


def head() -> CaptioningHead:
    events = EventHead(
        node="home",
        source="cam",
        labels=(*WHOLE, PERSON),
        settings={},
        otherwise=LabelSettings(for_secs=0, min_off_secs=0.25),
    )
    parts = (
        SpeechCaptions(node="home", source="cam"),
        SoundCaptionPart(SoundCaptions(repeat_secs=1), node="home", source="cam"),
        SceneCaptionPart(SceneCaptions(every_secs=0.5), node="home", source="cam"),
    )
    return CaptioningHead(events, parts)


def word(text: str, at_ms: int, long_ms: int) -> SpokenWord:
    return SpokenWord(text, Span(ms(at_ms), ms(at_ms + long_ms)), 0.5)


@st.composite
def utterances(draw: st.DrawFn) -> list[Spoken]:
    """Of one source, one after the other; each is told of in steps, as a commit policy does."""
    texts = st.sampled_from(["so", "then", "said.", "yesterday", "incomprehensibilities"])
    told, at_ms = [], 0
    for number in range(draw(st.integers(0, 3))):
        start_ms, sure = at_ms, list[SpokenWord]()
        for is_last in [*[False] * draw(st.integers(0, 4)), True]:
            words, next_ms = list[SpokenWord](), at_ms
            for text in draw(st.lists(texts, max_size=9)):
                next_ms += draw(st.sampled_from([0, 0, 700]))
                words.append(word(text, next_ms, draw(st.sampled_from([0, 250, 2000]))))
                next_ms = words[-1].span.end_ns // 1_000_000
            n_new = len(words) if is_last else draw(st.integers(0, len(words)))
            heard = Span(ms(start_ms), ms(next_ms + 100))
            sure += words[:n_new]
            said = (*sure, *words[n_new:])
            told.append(Spoken(number, heard, said, len(sure), "en-US", is_last))
            at_ms = max([at_ms, *(one.span.end_ns // 1_000_000 for one in sure)])
        at_ms += 1000
    return told


@st.composite
def runs(draw: st.DrawFn) -> list[HeadItem]:
    """One start of a source, its hops, and how it ends, if it does."""
    said = draw(utterances())
    items: list[HeadItem] = [started(utc_offset_ns=UTC_NS)]
    hop = st.tuples(
        st.sets(st.sampled_from(WHOLE)),
        st.sets(st.integers(1, 2)),
        st.integers(0, 3),
        st.sampled_from([(), (), ("A cat.",), ("A dog.",)]),
    )
    for index, (on, seen, n_said, described) in enumerate(draw(st.lists(hop, max_size=10))):
        span = Span(ms(index * HOP_MS), ms((index + 1) * HOP_MS))
        score = np.array([0.9], np.float32)
        at_ns = np.array([span.start_ns])
        items.append(
            Scores(
                "cam",
                index,
                span,
                {
                    one.name: Series(at_ns, score if one in on else np.zeros(1, np.float32))
                    for one in WHOLE
                },
                objects=tuple(
                    ObjectSeries("person", track, Series(at_ns, score)) for track in seen
                ),
                spoken=tuple(said[:n_said]),
                descriptions=tuple(Description(span.start_ns, text, "blip") for text in described),
            )
        )
        del said[:n_said]
    ends = st.sampled_from([SourceStalled("cam", ms(60_000)), SourceEnded("cam"), None])
    end = draw(ends)
    return items if end is None else [*items, end]


def everything(items: Sequence[HeadItem]) -> list[Decided]:
    stage = head()
    return [one for item in items for one in stage.push(item)] + [*stage.flush()]


def captions(told: Sequence[Decided]) -> list[Caption]:
    return [one.content for one in told if isinstance(one.content, Caption)]


@given(runs())
@settings(max_examples=40)
def test_each_caption_of_a_source_ends_once_and_keeps_to_its_time(items: list[HeadItem]) -> None:
    told = everything(items)
    assert told == everything(items)
    said = captions(told)
    for _, group in groupby(sorted(said, key=lambda one: one.id), key=lambda one: one.id):
        versions = list(group)
        assert [one.revision for one in versions] == list(range(len(versions)))
        assert [one.state for one in versions] == ["partial"] * (len(versions) - 1) + ["final"]
    for one in said:
        assert one.t_start <= one.t_end
        assert one.steady <= len(one.words)
        times = [one.t_start, *(at for it in one.words for at in (it.t_start, it.t_end)), one.t_end]
        assert times == sorted(times)
    finals = [one for one in said if one.kind == "speech" and one.state == "final" and one.words]
    for before, after in pairwise(finals):
        assert before.t_end <= after.t_start


@given(runs())
@settings(max_examples=20)
def test_what_was_told_is_not_changed_by_what_comes(items: list[HeadItem]) -> None:
    stage, half = head(), len(items) // 2
    steps = [stage.push(item) for item in items[:half]]
    early = [one for step in steps for one in step]
    assert everything(items)[: len(early)] == early
    for step in steps:
        kinds = [isinstance(one.content, Event) for one in step]
        assert kinds == sorted(kinds, reverse=True)  # events first


@given(runs(), runs())
@settings(max_examples=20)
def test_a_source_that_starts_again_is_told_of_as_if_for_the_first_time(
    before: list[HeadItem], after: list[HeadItem]
) -> None:
    stage = head()
    for item in before:
        stage.push(item)
    stage.push(after[0])  # what was open ends
    later = [one for item in after[1:] for one in stage.push(item)] + [*stage.flush()]
    assert captions(later) == captions(everything(after))
