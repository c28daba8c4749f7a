"""What is heard is told in brackets, at once and not again and again."""

from collections.abc import Sequence
from typing import Literal

import pytest
from pydantic import ValidationError
from streams import ms, started

from mmstream.errors import StateError
from mmstream.heads.caption_settings import SoundCaptions
from mmstream.heads.sound_captions import SoundCaptionPart, sound_text
from mmstream.media import Scores, Span
from mmstream.messages import Caption, Contribution, Decided, Event, epoch_secs, iso_utc

UTC_NS = 1_700_000_000_250_000_000
NOTHING = Scores("cam", 0, Span(0, ms(250)))


def part(settings: SoundCaptions | None = None) -> SoundCaptionPart:
    made = SoundCaptionPart(settings or SoundCaptions(), node="home", source="cam")
    made.push(started(utc_offset_ns=UTC_NS), [])
    return made


def event(
    step: Literal["start", "update", "end"],
    start_ms: float,
    *,
    label: str = "dog_bark",
    kind: Literal["audio", "video", "av"] = "audio",
    end_ms: float | None = None,
) -> Decided:
    start_ns = UTC_NS + ms(start_ms)
    end_ns = None if end_ms is None else UTC_NS + ms(end_ms)
    content = Event(
        id=f"{label}{start_ms}",
        type=step,
        source="cam",
        label=label,
        kind=kind,
        score=0.75,
        top_score=0.75,
        ts_start=iso_utc(start_ns),
        t_start=epoch_secs(start_ns),
        ts_end=None if end_ns is None else iso_utc(end_ns),
        t_end=None if end_ns is None else epoch_secs(end_ns),
        contribution=Contribution(audio=1),
    )
    return Decided(content, ms((start_ms if end_ms is None else end_ms) + 200))


def said(stage: SoundCaptionPart, *events: Decided) -> list[str]:
    told = [one.content for one in stage.push(NOTHING, events)]
    return [one.text for one in told if isinstance(one, Caption)]


def test_a_sound_is_told_at_once_and_for_good() -> None:
    (one,) = part().push(NOTHING, [event("start", 1000)])
    caption = one.content
    assert isinstance(caption, Caption)
    assert (caption.text, caption.kind, caption.state) == ("[dog barking]", "sound", "final")
    assert (caption.confidence, caption.language, caption.on_screen) == (0.75, "en", None)
    assert caption.t_start == epoch_secs(UTC_NS + ms(1000))
    assert caption.t_end == epoch_secs(UTC_NS + ms(1200))
    assert one.at_ns == ms(1200)


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("alarm", "[alarm]"),
        ("person_sneeze", "[sneeze]"),
        ("chainsaw", "[chainsaw]"),
        ("sea_waves", "[sea waves]"),
        ("Dog bark", "[dog barking]"),
        ("my-saw", "[my saw]"),
        ("loud", None),
        ("speech", None),
    ],
)
def test_what_is_said_of_a_label(label: str, text: str | None) -> None:
    assert sound_text(label, SoundCaptions()) == text


def test_settings_name_others_and_their_own_words() -> None:
    settings = SoundCaptions(texts={"loud": "loud noise"}, left_out=frozenset({"alarm", "loud"}))
    stage = part(settings)
    labels = ("loud", "alarm", "speech")
    assert said(stage, *(event("start", 1000, label=label) for label in labels)) == [
        "[loud noise]",
        "[speech]",
    ]


@pytest.mark.parametrize("text", ["", " ", "[bang]", "a\nb", "x" * 81])
def test_a_text_is_one_line_without_brackets(text: str) -> None:
    with pytest.raises(ValidationError, match="loud"):
        SoundCaptions(texts={"loud": text})


@pytest.mark.parametrize(
    ("kind", "texts"), [("audio", ["[thud]"]), ("av", ["[thud]"]), ("video", [])]
)
def test_only_what_has_sound_is_told(
    kind: Literal["audio", "video", "av"], texts: Sequence[str]
) -> None:
    assert said(part(), event("start", 1000, label="impact", kind=kind)) == texts


def test_only_the_start_is_told() -> None:
    assert said(part(), event("update", 1000), event("end", 1000, end_ms=2000)) == []


@pytest.mark.parametrize(("again_ms", "texts"), [(11_999, []), (12_000, ["[dog barking]"])])
def test_a_sound_that_comes_back_soon_is_not_told_again(
    again_ms: float, texts: Sequence[str]
) -> None:
    stage = part()
    assert said(stage, event("start", 1000), event("end", 1000, end_ms=2000)) == ["[dog barking]"]
    assert said(stage, event("start", again_ms)) == texts
    assert said(stage, event("start", again_ms, label="alarm")) == ["[alarm]"]


def test_a_sound_that_goes_on_is_not_told_again() -> None:
    stage = part(SoundCaptions(repeat_secs=0))
    assert len(said(stage, event("start", 1000))) == 1
    assert said(stage, event("start", 60_000, label="dog")) == []


def test_a_source_that_starts_again_is_told_anew() -> None:
    stage = part()
    assert len(said(stage, event("start", 1000), event("end", 1000, end_ms=2000))) == 1
    stage.push(started(utc_offset_ns=UTC_NS), [])
    assert said(stage, event("start", 3000)) == ["[dog barking]"]
    assert stage.flush() == []


def test_sounds_before_the_start_are_a_mistake() -> None:
    with pytest.raises(StateError, match="cam"):
        SoundCaptionPart(SoundCaptions(), node="home", source="cam").push(
            NOTHING, [event("start", 1000)]
        )
