"""What is seen is told when it changes: true, short, seldom, and the same each time."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import read_frames
from streams import ms, started

from mmstream.detectors.motion import MOTION, MotionSettings
from mmstream.detectors.person import PERSON, PersonSettings
from mmstream.detectors.presence import PRESENCE, PresenceSettings
from mmstream.errors import StateError
from mmstream.heads.caption_settings import SceneCaptions
from mmstream.heads.captions import CaptioningHead
from mmstream.heads.events import EventHead, HeadItem
from mmstream.heads.lifecycle import LabelSettings
from mmstream.heads.scene_captions import SceneCaptionPart
from mmstream.media import (
    NS_PER_SEC,
    Box,
    Description,
    Detection,
    Hop,
    Label,
    ObjectSeries,
    Path,
    Scores,
    Series,
    SourceStalled,
    Span,
    VideoFrame,
)
from mmstream.messages import Caption, Decided
from mmstream.stages import Load

UTC_NS = 1_700_000_000_250_000_000
HOP_MS = 250
FACE = Label("face", "video", "haar")
BLOCKED = Label("camera_blocked", "video", "condition")
SPEAKING = Label("person_speaking", "av", "speaking")
LABELS = (MOTION, PERSON, FACE, BLOCKED, SPEAKING, PRESENCE)
AT_ONCE = LabelSettings(for_secs=0, min_off_secs=0.25)


@dataclass(frozen=True)
class Life:
    """Something is so from one second to another; of an object, which one."""

    label: str
    start_secs: float
    end_secs: float
    track: int | None = None

    def is_on(self, at_ns: int) -> bool:
        return self.start_secs <= at_ns / NS_PER_SEC < self.end_secs


def person(start_secs: float, end_secs: float, track: int = 1, label: str = "person") -> Life:
    return Life(label, start_secs, end_secs, track)


def head(settings: SceneCaptions | None = None) -> CaptioningHead:
    events = EventHead(node="home", source="cam", labels=LABELS, settings={}, otherwise=AT_ONCE)
    part = SceneCaptionPart(settings or SceneCaptions(), node="home", source="cam")
    made = CaptioningHead(events, [part])
    made.push(started(utc_offset_ns=UTC_NS))
    return made


def items(
    lives: Sequence[Life], until_secs: float, described: Sequence[Description] = ()
) -> list[HeadItem]:
    made: list[HeadItem] = []
    for index in range(round(until_secs * 1000 / HOP_MS)):
        span = Span(ms(index * HOP_MS), ms((index + 1) * HOP_MS))
        outputs: dict[str, Series] = {}
        objects = []
        for life in sorted(lives, key=lambda one: one.is_on(span.start_ns)):
            score = 0.9 if life.is_on(span.start_ns) else 0.0
            series = Series(np.array([span.start_ns]), np.array([score], np.float32))
            if life.track is None:
                outputs[life.label] = series
            elif score:
                objects.append(ObjectSeries(life.label, life.track, series))
        said = tuple(one for one in described if span.contains(one.at_ns))
        made.append(Scores("cam", index, span, outputs, objects=tuple(objects), descriptions=said))
    return made


def captions(stage: CaptioningHead, pushed: Sequence[HeadItem]) -> list[Decided]:
    told = [one for item in pushed for one in stage.push(item)]
    return [one for one in told if isinstance(one.content, Caption)]


def texts(told: Sequence[Decided]) -> list[str]:
    return [one.content.text for one in told if isinstance(one.content, Caption)]


@pytest.mark.parametrize(
    ("lives", "said"),
    [
        ([], []),
        ([person(0, 20)], ["A person is in view."]),
        ([person(5, 20)], ["A person is in view."]),
        ([Life("motion", 4, 9), person(5, 20)], ["A person comes into view."]),
        ([Life("motion", 3, 9), person(8, 20)], ["Something moves.", "A person comes into view."]),
        ([Life("motion", 1, 20), person(8, 20)], ["Something moves.", "A person is in view."]),
        ([person(0, 8), Life("presence", 0, 20)], ["A person is in view."]),
        ([person(0, 8), person(0, 8, 2)], ["Two people are in view.", "Nobody is seen any more."]),
        ([person(0, 20), person(0, 20, 2)], ["Two people are in view."]),
        ([person(0, 20), person(0, 20, 1, "face")], ["A person is in view."]),
        ([person(0, 20, 1, "face")], ["A person is in view."]),
        (
            [person(0, 20), person(8, 20, 2)],
            ["A person is in view.", "Two people are in view."],
        ),
        (
            [person(0, 20), person(0, 10, 2)],
            ["Two people are in view.", "One person is in view."],
        ),
        ([person(0, 20, track) for track in range(9)], ["Several people are in view."]),
        ([person(0, 8)], ["A person is in view.", "Nobody is seen any more."]),
        ([person(0, 8), person(11, 20, 2)], ["A person is in view."]),
        ([person(0, 0.5)], []),
        (
            [person(0, 20), Life("person_speaking", 8, 9.5), Life("motion", 9, 20)],
            ["A person is in view.", "A person is speaking."],
        ),
        (
            [person(0, 20), Life("person_speaking", 0, 20)],
            ["A person is in view.", "A person is speaking."],
        ),
        ([Life("motion", 2, 9)], ["Something moves."]),
        ([Life("motion", 2, 4)], ["Something moved."]),
        ([Life("motion", 3, 9), person(5, 20)], ["A person comes into view."]),
        ([Life("camera_blocked", 2, 20)], ["The camera is blocked."]),
        (
            [Life("camera_blocked", 2, 9)],
            ["The camera is blocked.", "The camera can see again."],
        ),
        (
            [person(0, 6), Life("camera_blocked", 6, 12)],
            ["A person is in view.", "The camera is blocked.", "The camera can see again."],
        ),
    ],
)
def test_what_is_said_of_a_scene(lives: Sequence[Life], said: Sequence[str]) -> None:
    assert texts(captions(head(), items(lives, 20))) == said


def visit(start_secs: float, end_secs: float, track: int) -> list[Life]:
    """Somebody comes, keeps still for a while and leaves, as the detectors tell it."""
    return [
        Life("motion", start_secs, start_secs + 2),
        Life("presence", start_secs, end_secs),
        person(start_secs + 1, end_secs - 1, track),
        Life("motion", end_secs - 2, end_secs),
    ]


def test_each_visit_is_told_of() -> None:
    lives = [*visit(4, 12, 1), *visit(14.5, 23, 2)]
    assert (
        texts(captions(head(), items(lives, 30)))
        == [
            "A person comes into view.",
            "Nobody is seen any more.",
        ]
        * 2
    )


@pytest.mark.parametrize("missing", ["motion", "presence"])
def test_who_is_not_found_has_not_left_unless_all_that_tells_of_one_ended(missing: str) -> None:
    lives = [one for one in visit(0, 8, 1) if one.label != missing] + [person(10, 20, 2)]
    assert texts(captions(head(), items(lives, 20))) == ["A person is in view."]


def test_what_moved_is_as_sure_as_when_it_was_seen() -> None:
    (one,) = captions(head(), items([Life("motion", 2, 4)], 9))
    assert isinstance(one.content, Caption)
    assert one.content.confidence == 0.9


def test_a_sentence_is_final_and_tells_since_when_it_is_so() -> None:
    (one,) = captions(head(), items([person(5, 20)], 10))
    caption = one.content
    assert isinstance(caption, Caption)
    assert (caption.kind, caption.state, caption.language) == ("scene", "final", "en")
    assert (caption.confidence, caption.on_screen) == (0.9, None)
    assert one.at_ns == ms(6250)
    assert caption.t_end - caption.t_start == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("x", "text"), [(0.12, "A person is in view."), (0.5, "Two people are in view.")]
)
def test_one_who_is_found_twice_is_counted_once(x: float, text: str) -> None:
    pushed = []
    for item in items([person(0, 20), person(0, 20, 2)], 10):
        assert isinstance(item, Scores)
        at_ns = item.span.start_ns
        found = [
            Detection("person", at_ns, "video", "hog", 0.9, Box(left, 0.1, 0.1, 0.4), Path(track))
            for track, left in [(1, 0.1), (2, x)]
        ]
        pushed.append(replace(item, detections=tuple(found)))
    assert texts(captions(head(), pushed)) == [text]


def test_parts_of_one_who_is_found_whole_are_no_others() -> None:
    """As HOG told of one woman at a table: her head, an elbow, and all of her."""
    boxes = [
        Box(0.6285, 0.1587, 0.0867, 0.4083),
        Box(0.5031, 0.0, 0.2063, 0.9672),
        Box(0.5738, 0.0, 0.0867, 0.4073),
    ]
    pushed = []
    for item in items([person(0, 20, track) for track in range(1, 4)], 10):
        assert isinstance(item, Scores)
        found = [
            Detection("person", item.span.start_ns, "video", "hog", 0.9, box, Path(track))
            for track, box in enumerate(boxes, start=1)
        ]
        pushed.append(replace(item, detections=tuple(found)))
    assert texts(captions(head(), pushed)) == ["A person is in view."]


def test_after_a_stall_nothing_is_known() -> None:
    stage = head()
    assert texts(captions(stage, items([person(0, 20)], 5))) == ["A person is in view."]
    assert captions(stage, [SourceStalled("cam", ms(5000))]) == []
    assert captions(stage, items([], 9)) == []
    assert stage.flush() == []


def test_a_captioner_is_told_instead_but_for_a_blocked_camera() -> None:
    described = [
        Description(ms(at), text, "blip")
        for at, text in [(1000, "A man at a\ndesk."), (6000, "A man at a desk."), (9000, "A cat.")]
    ]
    lives = [person(3, 20), Life("camera_blocked", 12, 20)]
    told = captions(head(), items(lives, 20, described))
    assert texts(told) == ["A man at a desk.", "A cat.", "The camera is blocked."]
    assert told[0].at_ns == ms(1000)
    assert isinstance(told[0].content, Caption)
    assert told[0].content.confidence == 0


def test_what_a_captioner_makes_of_a_blocked_camera_is_not_told() -> None:
    described = [Description(ms(at * 1000), "A cat.", "blip") for at in (1, 12)]
    described.insert(1, Description(ms(8000), "A black wall.", "blip"))
    told = captions(head(), items([Life("camera_blocked", 5, 10)], 20, described))
    assert texts(told) == ["A cat.", "The camera is blocked.", "A cat."]


def test_scenes_before_the_start_are_a_mistake() -> None:
    part = SceneCaptionPart(SceneCaptions(), node="home", source="cam")
    (item,) = items([], 0.25, [Description(0, "A cat.", "blip")])
    with pytest.raises(StateError, match="cam"):
        part.push(item, [])


def lives() -> st.SearchStrategy[list[Life]]:
    at = st.integers(0, 60).map(lambda quarter: quarter / 4)
    whole = st.builds(
        Life, st.sampled_from(["motion", "camera_blocked", "person_speaking"]), at, at
    )
    followed = st.builds(person, at, at, st.integers(1, 4), st.sampled_from(["person", "face"]))
    return st.lists(whole | followed, max_size=8, unique_by=lambda one: (one.label, one.track))


@given(lives())
@settings(max_examples=40)
def test_the_same_is_said_each_time_seldom_and_never_twice(scene: list[Life]) -> None:
    pushed = items(scene, 20)
    told = captions(head(), pushed)
    assert told == captions(head(), pushed)
    for before, after in pairwise(told):
        assert after.at_ns - before.at_ns >= 4 * NS_PER_SEC
    for first, second in pairwise(texts(told)):
        assert first != second
    assert len({one.content.id for one in told if isinstance(one.content, Caption)}) == len(told)


def watched(frames: Sequence[VideoFrame], until_secs: float) -> list[HeadItem]:
    """What the real detectors say of the first seconds, as the worker has it."""
    specs = (MotionSettings(), PresenceSettings(), PersonSettings())
    scorers = [spec.build("cpu") for spec in specs]
    silence, unheard = np.zeros(0, np.float32), np.zeros(0, np.bool_)
    told: list[HeadItem] = []
    for index in range(round(until_secs * 1000 / HOP_MS)):
        span = Span(ms(index * HOP_MS), ms((index + 1) * HOP_MS))
        inside = tuple(frame for frame in frames if span.contains(frame.start_ns))
        hop = Hop("cam", index, span, 16_000, silence, unheard, inside)
        said = Scores("cam", index, span)
        for scorer in scorers:
            (new,) = scorer.score([hop], [said], Load.FULL)
            said = Scores(
                "cam",
                index,
                span,
                {**said.outputs, **new.outputs},
                said.detections + new.detections,
                objects=said.objects + new.objects,
            )
        told.append(said)
    return told


def test_a_real_recording_is_told_truly(data_dir: pathlib.Path) -> None:
    """Events.tsv: somebody at the table from 6 to 19 s, and another one from 23 s on."""
    frames = read_frames(data_dir / "surveillance/one_by_one_person.mp4")
    told = captions(head(), watched(frames, 27.25))
    assert texts(told) == [
        "A person comes into view.",
        "Nobody is seen any more.",
        "A person comes into view.",
    ]
    came, left, next_came = [one.at_ns / NS_PER_SEC for one in told]
    assert 6 < came < 19 < left < 23 < next_came
