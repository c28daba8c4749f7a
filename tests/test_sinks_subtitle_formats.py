"""Captions as files: what others read in them is what was said, when it was said."""

import html
import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
import srt  # type: ignore[import-untyped]  # it has no types
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from mmstream.messages import Caption, iso_utc
from mmstream.sinks.line_breaks import LINE_COLUMNS, columns
from mmstream.sinks.subtitle_formats import (
    CUE_LINES,
    MIN_MS,
    Rolling,
    SubtitleFormat,
    beginning,
    cues_of,
    format_of,
    polished,
    whole,
)

ZERO_NS = 1_795_428_000_000_000_000
TAG = re.compile(r"<[^>]*>")
SHOWN = st.text(st.characters(codec="utf-8"), max_size=200)
WORDS = st.lists(st.text(st.sampled_from("abc&<>-12é"), min_size=1, max_size=12), max_size=40)


def caption(
    text: str,
    start_ms: int = 1000,
    end_ms: int = 2000,
    *,
    kind: str = "speech",
    state: str = "final",
    source: str = "door",
    on_screen: bool | None = None,
) -> Caption:
    start_ns, end_ns = (ZERO_NS + ms * 1_000_000 for ms in (start_ms, end_ms))
    return Caption.model_validate(
        {
            "id": "c1",
            "state": state,
            "revision": 0,
            "source": source,
            "text": text,
            "kind": kind,
            "ts_start": iso_utc(start_ns),
            "t_start": start_ns / 1e9,
            "ts_end": iso_utc(end_ns),
            "t_end": end_ns / 1e9,
            "confidence": 1,
            "language": "en",
            "on_screen": on_screen,
        }
    )


def file_of(
    captions: Sequence[Caption], form: SubtitleFormat, *, voices: bool = False, live: bool = False
) -> str:
    if not live:
        return whole(captions, form, zero_utc_ns=ZERO_NS, voices=voices)
    rolling = Rolling(form, zero_utc_ns=ZERO_NS, voices=voices)
    return beginning(form, ZERO_NS) + "".join(rolling.push(one) for one in captions)


def vtt_cues(file: str) -> list[webvtt.Caption]:
    return webvtt.from_string(file).captions


@st.composite
def talks(draw: st.DrawFn) -> Sequence[Caption]:
    """Any finals of two sources, of any length, in any order."""
    made = []
    for _ in range(draw(st.integers(0, 8))):
        start_ms = draw(st.integers(0, 20_000))
        end_ms = start_ms + draw(st.integers(0, 6_000))
        text = " ".join(draw(WORDS))
        kind = draw(st.sampled_from(("speech", "sound", "scene")))
        source = draw(st.sampled_from(("door", "yard")))
        made.append(caption(text, start_ms, end_ms, kind=kind, source=source))
    return made


def words_of(captions: Sequence[Caption]) -> list[str]:
    return sorted(word for one in captions for word in one.text.split())


@given(talk=talks(), live=st.booleans(), voices=st.booleans())
def test_webvtt_is_read_by_others_word_for_word(
    talk: Sequence[Caption], *, live: bool, voices: bool
) -> None:
    file = file_of(talk, SubtitleFormat.WEBVTT, voices=voices, live=live)
    read = vtt_cues(file)
    texts = [html.unescape(TAG.sub("", cue.raw_text)) for cue in read]
    assert sorted(" ".join(texts).split()) == words_of(talk)
    starts = [cue.start_in_seconds for cue in read]
    assert starts == sorted(starts)
    assert file.count("-->") == len(read)


@given(talk=talks(), live=st.booleans())
def test_subrip_is_read_by_others_word_for_word(talk: Sequence[Caption], *, live: bool) -> None:
    file = file_of(talk, SubtitleFormat.SUBRIP, live=live)
    read = list(srt.parse(file))
    assert [cue.index for cue in read] == list(range(1, len(read) + 1))
    texts = " ".join(cue.content.strip("()") for cue in read)
    expected = sorted(word for word in words_of(talk))
    assert sorted(texts.split()) == sorted(w.replace("-->", "→") for w in expected)


@given(talk=talks(), live=st.booleans())
def test_no_two_cues_of_one_source_and_kind_are_shown_at_once(
    talk: Sequence[Caption], *, live: bool
) -> None:
    voiced = [one.model_copy(update={"text": f"x{one.text}"}) for one in talk]
    told = [one for one in voiced if (one.source, one.kind) == ("door", "speech")]
    read = list(srt.parse(file_of(told, SubtitleFormat.SUBRIP, live=live)))
    assert all(before.end <= after.start for before, after in pairwise(read))
    assert all(cue.start < cue.end for cue in read) or live


@given(talks())
def test_a_cue_is_two_short_lines_and_long_enough_to_be_read(talk: Sequence[Caption]) -> None:
    cues = polished([cue for one in talk for cue in cues_of(one, ZERO_NS)])
    for n, cue in enumerate(cues):
        assert len(cue.lines) <= CUE_LINES
        assert all(columns(line) <= LINE_COLUMNS or " " not in line for line in cue.lines)
        later = [c for c in cues[n + 1 :] if (c.source, c.kind) == (cue.source, cue.kind)]
        is_cut_short = bool(later) and cue.end_ms == later[0].start_ms
        assert cue.end_ms - cue.start_ms >= max(MIN_MS, 60 * columns(cue.text)) or is_cut_short


@given(SHOWN, st.sampled_from(SubtitleFormat))
def test_no_text_breaks_a_file(text: str, form: SubtitleFormat) -> None:
    file = file_of([caption(text), caption("after", 5000, 6000)], form)
    if form is SubtitleFormat.TRANSCRIPT:
        assert file.endswith("[00:00:05] after\n")
        assert file.count("\n") <= 2
    elif form is SubtitleFormat.WEBVTT:
        assert vtt_cues(file)[-1].text == "after"
    else:
        assert [*srt.parse(file)][-1].content == "after"


def test_a_file_of_each_kind_as_it_is_written() -> None:
    talk = [
        caption("[dog barking]", 500, 900, kind="sound"),
        caption("if a < b & b --> c then it is time to go home", 1000, 4500, on_screen=False),
        caption("A person enters.", 2000, 2000, kind="scene"),
        caption("", 6000, 7000),
        caption("not yet", 6000, 7000, state="partial"),
    ]
    assert file_of(talk, SubtitleFormat.WEBVTT) == (
        "WEBVTT\n\n"
        "c1\n00:00:00.500 --> 00:00:01.500\n[dog barking]\n\n"
        "c1\n00:00:01.000 --> 00:00:04.500\n"
        "<i>if a &lt; b &amp; b --&gt; c then it is time to go\nhome</i>\n\n"
        "c1\n00:00:02.000 --> 00:00:03.000 line:0\n<c.scene>A person enters.</c>\n\n"
    )
    assert file_of(talk, SubtitleFormat.SUBRIP) == (
        "1\n00:00:00,500 --> 00:00:01,500\n[dog barking]\n\n"
        "2\n00:00:01,000 --> 00:00:04,500\n"
        "<i>if a < b & b → c then it is time to go\nhome</i>\n\n"
        "3\n00:00:02,000 --> 00:00:03,000\n(A person enters.)\n\n"
    )
    assert file_of(talk, SubtitleFormat.TRANSCRIPT) == (
        "[00:00:00] [dog barking]\n"
        "[00:00:01] if a < b & b --> c then it is time to go home\n"
        "[00:00:02] (A person enters.)\n"
    )


def test_only_a_file_that_grows_says_when_its_zero_was() -> None:
    talk = [caption("hello")]
    note = "NOTE Times count from 2026-11-23T10:00:00.000Z\n\n"
    live = file_of(talk, SubtitleFormat.WEBVTT, live=True)
    assert live.startswith(f"WEBVTT\n\n{note}c1\n")
    assert file_of(talk, SubtitleFormat.WEBVTT) == live.replace(note, "")
    for form in (SubtitleFormat.SUBRIP, SubtitleFormat.TRANSCRIPT):
        assert file_of(talk, form) == file_of(talk, form, live=True)


def test_chinese_is_broken_at_the_width_of_a_screen_and_never_in_the_transcript() -> None:
    text = "今天天气很好、我们一起去公园散步。" * 5
    cues = cues_of(caption(text, 0, 8000), ZERO_NS)
    assert "".join(cue.text for cue in cues) == text
    assert all(columns(line) <= LINE_COLUMNS for cue in cues for line in cue.lines)
    assert [len(cue.lines) for cue in cues] == [2, 2, 1]
    transcript = file_of([caption(text)], SubtitleFormat.TRANSCRIPT)
    assert "".join(line.partition("] ")[2] for line in transcript.splitlines()) == text
    assert cues[0].lines[0] in file_of([caption(text)], SubtitleFormat.WEBVTT).splitlines()


def test_several_sources_have_voices() -> None:
    talk = [caption("hello"), caption("there", source="yard")]
    file = file_of(talk, SubtitleFormat.WEBVTT, voices=True)
    assert [cue.voice for cue in vtt_cues(file)] == ["door", "yard"]
    assert "door: hello\n" in file_of(talk, SubtitleFormat.SUBRIP, voices=True)
    assert "[00:00:01] yard: there\n" in file_of(talk, SubtitleFormat.TRANSCRIPT, voices=True)


def test_what_comes_late_starts_no_earlier_than_the_last_and_is_still_seen() -> None:
    talk = [caption("A cat.", 8000, 9000, kind="scene"), caption("what was that", 4000, 7000)]
    _, late = vtt_cues(file_of(talk, SubtitleFormat.WEBVTT, live=True))
    assert (late.start, late.end) == ("00:00:08.000", "00:00:09.000")


def test_a_long_caption_is_several_cues_that_share_its_time() -> None:
    text = " ".join(["word"] * 40)
    cues = cues_of(caption(text, 0, 8000), ZERO_NS)
    assert [cue.id for cue in cues] == ["c1", "c1-2", "c1-3"]
    assert (cues[0].start_ms, cues[-1].end_ms) == (0, 8000)
    assert all(before.end_ms == after.start_ms for before, after in pairwise(cues))
    assert " ".join(cue.text for cue in cues) == text


def test_a_day_has_more_than_99_hours_to_come() -> None:
    file = file_of([caption("late", 360_000_000, 360_002_000)], SubtitleFormat.WEBVTT)
    assert "\n100:00:00.000 --> 100:00:02.000\n" in file


@pytest.mark.parametrize(("path", "given_"), [("x.mp4", "'.mp4'"), ("x", "none"), ("-", "none")])
def test_a_suffix_that_says_nothing_is_refused(path: str, given_: str) -> None:
    assert format_of("a/B.SRT") is SubtitleFormat.SUBRIP
    with pytest.raises(ValueError, match=f"{given_}; allowed: .vtt, .srt, .txt"):
        format_of(path)
